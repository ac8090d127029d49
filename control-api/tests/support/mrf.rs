//! `mrf` with a configuration file of its own, its log watched: a node, or a KMS.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use super::program::Program;

/// A process that is killed when the test ends, however it ends.
pub(crate) struct Mrf {
    pub(crate) program: Program,
    ready: String,
    _config: tempfile::NamedTempFile,
}

impl Mrf {
    /// Starts `mrf serve` or `mrf kms`, and waits until it listens.
    pub(crate) fn start(command: &str, config: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(config.as_bytes()).expect("written");
        let mut mrf = Command::new(env!("CARGO_BIN_EXE_mrf"));
        mrf.args([command, "--config"]).arg(file.path()).env("RUST_LOG", "info");
        let program = Program::start(&mut mrf);
        program.await_output("mrf ready ");
        program.await_output("\n");
        let ready = || {
            program.output().lines().find(|line| line.starts_with("mrf ready ")).map(str::to_owned)
        };
        let ready = ready().expect("it is ready");
        Self { program, ready, _config: file }
    }

    /// The address behind this in the line that says what it listens on.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let mut words = self.ready.split([' ', ',', '=']).skip_while(|word| {
            !word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        });
        let word = words.next().unwrap_or_else(|| panic!("no {name} in {}", self.ready));
        let value = word.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'));
        let value = value.map_or_else(|| words.next().unwrap_or_default(), |value| value);
        value.parse().unwrap_or_else(|_| panic!("no {name} in {}", self.ready))
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.program.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(status.success());
    }
}
