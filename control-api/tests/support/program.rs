//! Programs that are not ours: found or loudly skipped, watched, and ended by their own id.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Far longer than anything takes: only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Set to `1` where a missing program is a failure: there is a place where nothing is skipped.
const REQUIRE: &str = "MRF_REQUIRE_FOREIGN";

/// Where a program is. `None`: it is not there, which was said loudly, and the test is to pass.
#[must_use]
pub(crate) fn find(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are where only root looks.
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = dirs.map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{name} not found, install the Debian package {package}"));
    }
    found
}

/// Says loudly that a test did not test anything, past the harness's capture.
///
/// # Panics
/// Where nothing may be skipped.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os(REQUIRE).is_none_or(|value| value != "1"), "{reason}");
    say_skipped(reason);
}

/// The same where nothing can be required, since no package of Debian's brings the program.
pub(crate) fn say_skipped(reason: &str) {
    // The harness captures `println!` of passing tests only, not the handle itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Compiles a small client against a library; `None`: it is not there, which was said loudly.
pub(crate) fn compiled(
    source: &str,
    header: &str,
    package: &str,
    options: &[&str],
) -> Option<Compiled> {
    if !Path::new(header).is_file() {
        skip(&format!("{header} not found, install the Debian package {package}"));
        return None;
    }
    let compiler = find(if source.ends_with(".c") { "cc" } else { "c++" }, "build-essential")?;
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("client");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(source);
    let mut command = Command::new(compiler);
    command.arg("-o").arg(&program).arg(source).args(options);
    let output = command.output().expect("the compiler runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(Compiled { program, _directory: directory })
}

/// A program that is there as long as this.
pub(crate) struct Compiled {
    pub(crate) program: PathBuf,
    _directory: tempfile::TempDir,
}

/// A program that runs: its output is gathered while it does, and it ends with the test.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Program {
    /// Starts it with all three streams piped; stdout and stderr are gathered together.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = Arc::new(Mutex::new(Vec::new()));
        gather(child.stdout.take().expect("piped"), Arc::clone(&output));
        gather(child.stderr.take().expect("piped"), Arc::clone(&output));
        Self { input: child.stdin.take(), child, output }
    }

    /// Types something.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("open");
        input.write_all(bytes).and_then(|()| input.flush()).expect("it reads");
    }

    /// Everything it has said so far.
    pub(crate) fn output(&self) -> String {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Waits until it has said this.
    pub(crate) fn await_output(&self, expected: &str) {
        wait_until(
            || self.output().contains(expected),
            || format!("{expected:?} in its output:\n{}", self.output()),
        );
    }

    /// Whether it has closed its output, as it does when it ends.
    pub(crate) fn has_ended(&self) -> bool {
        Arc::strong_count(&self.output) == 1
    }

    /// Waits until it ends by itself, and for all its output.
    pub(crate) fn await_end(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("ours") {
                // Only the gathering threads hold the others; they end with the pipes.
                while Arc::strong_count(&self.output) > 1 && Instant::now() < deadline {
                    thread::sleep(POLL);
                }
                return status;
            }
            assert!(Instant::now() < deadline, "does not end; it said:\n{}", self.output());
            thread::sleep(POLL);
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", "INT", &id]).status().expect("kill runs");
        assert!(status.success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(mut stream: impl Read + Send + 'static, output: Arc<Mutex<Vec<u8>>>) {
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.extend_from_slice(&buffer[..length]);
        }
    });
}

/// Looks again and again until it holds.
///
/// # Panics
/// After [`PATIENCE`], saying what was waited for.
pub(crate) fn wait_until(mut holds: impl FnMut() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        thread::sleep(POLL);
    }
}

const POLL: Duration = Duration::from_millis(20);
