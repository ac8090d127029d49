//! `mrf` with a configuration file of its own, its log watched: a node, or a KMS.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use super::program::{Program, wait_until};

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
        let line = || {
            let output = program.output();
            let (_, rest) = output.split_once("mrf ready ")?;
            rest.split_once('\n').map(|(line, _)| line.to_owned())
        };
        wait_until(|| line().is_some(), || format!("it to be ready: {}", program.output()));
        let ready = line().expect("just seen");
        Self { program, ready, _config: file }
    }

    /// The address behind this in the line that says what it listens on.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let words = self.ready.split([' ', ',']).map(|word| word.trim_start_matches("sip="));
        let mut named = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix(['=', ':']));
        let value = named.next().unwrap_or_else(|| panic!("no {name} in {}", self.ready));
        value.parse().expect("an address")
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.program.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(status.success());
    }
}
