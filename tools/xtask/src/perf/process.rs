//! Programs that are started for a measurement, and ended after it whatever happens: each leads a
//! process group of its own, which a guard ends.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts `program` on `processors` (a list as taskset takes it); what it says goes to `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        processors: &str,
        log: PathBuf,
    ) -> Result<Self, String> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let describe = |error: io::Error| format!("{name}: {error}");
        let output = File::create(&log).map_err(describe)?;
        let errors = output.try_clone().map_err(describe)?;
        // taskset becomes the program: the same process.
        let child = Command::new("taskset")
            .args(["-c", processors])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("taskset (Debian package util-linux): {error}"))?;
        let group = Pid::from_child(&child);
        groups().push(group);
        Ok(Self { name, child, group, log })
    }

    /// Every process of the group that has not ended.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids: Vec<u32> = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| group_of(*pid) == Some(self.group.as_raw_nonzero().get()))
            .collect();
        pids.sort_unstable();
        pids
    }

    /// What it has said so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a line that begins so, and returns it.
    pub(crate) fn await_line(&mut self, beginning: &str) -> Result<String, String> {
        let mut found = None;
        self.await_sign(&format!("to say {beginning:?}"), |process| {
            let output = process.output();
            // Without its end a line may be half written.
            let mut lines = output.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            found = lines.find(|line| line.starts_with(beginning)).map(str::to_owned);
            found.is_some()
        })?;
        Ok(found.unwrap_or_default().trim_end().to_owned())
    }

    /// Waits until it takes connections.
    pub(crate) fn await_listening(&mut self, address: SocketAddr) -> Result<(), String> {
        self.await_sign(&format!("to listen on {address}"), |_| is_listening(address))
    }

    fn await_sign(
        &mut self,
        what: &str,
        mut is_there: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            check_interrupt()?;
            // Somebody else may listen where it was to.
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended ({status}): {}", self.name, self.last_words()));
            }
            if is_there(self) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{} failed {what}: {}", self.name, self.last_words()));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for its end; past the limit that is brought about.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + limit;
        loop {
            check_interrupt()?;
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) => return Err(format!("{} took more than {limit:.0?}", self.name)),
                Err(error) => return Err(format!("{}: {error}", self.name)),
            }
        }
    }

    /// The end of what it has said, for a message about its failure.
    pub(crate) fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<_> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LAST_WORDS_LINES)..].join(" | ")
    }

    fn is_gone(&mut self) -> bool {
        // The leader stays in the table until it is waited for.
        !matches!(self.child.try_wait(), Ok(None)) && self.pids().is_empty()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for (signal, patience) in [(Signal::TERM, END_TIMEOUT), (Signal::KILL, END_TIMEOUT)] {
            let _ = kill_process_group(self.group, signal);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline {
                if self.is_gone() {
                    groups().retain(|group| *group != self.group);
                    return;
                }
                thread::sleep(POLL);
            }
        }
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP end what is under way, in order; a second one at once.
pub(crate) fn watch_for_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                if INTERRUPTED.swap(true, Ordering::Relaxed) {
                    for group in groups().iter() {
                        let _ = kill_process_group(*group, Signal::KILL);
                    }
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

/// An error once somebody has asked for the end.
pub(crate) fn check_interrupt() -> Result<(), String> {
    if is_interrupted() { Err("interrupted".to_owned()) } else { Ok(()) }
}

pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Where a program is, in $PATH or where Debian puts what only root usually starts.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(SYSTEM_DIRECTORIES.map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Asks the kernel rather than the program, for which a connection that says nothing may be an event.
/// IPv4 alone, as everything here is on 127.0.0.1.
fn is_listening(address: SocketAddr) -> bool {
    let IpAddr::V4(ip) = address.ip() else { return false };
    let ip = u32::from_ne_bytes(ip.octets());
    let local = format!("{ip:08X}:{:04X}", address.port());
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    sockets.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().take(4).collect();
        matches!(fields[..], [_, at, _, STATE_LISTEN] if at == local)
    })
}

/// The fifth field of stat; the second, the name, may have blanks and brackets. One that has ended
/// (`Z`) and only waits for being noticed is in no group any more.
fn group_of(pid: u32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" { None } else { fields.nth(1)?.parse().ok() }
}

fn groups() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
const STATE_LISTEN: &str = "0A";
const POLL: Duration = Duration::from_millis(10);
/// All of them are there within a second.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Enough for the node to send a BYE to everybody.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const LAST_WORDS_LINES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, directory: &Path) -> Process {
        let arguments = ["-c".to_owned(), script.to_owned()];
        let log = directory.join("log");
        Process::start(Path::new("/bin/sh"), &arguments, "0", log).unwrap()
    }

    #[test]
    fn ends_what_a_program_has_forked() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("sleep 60 & echo ready to go; wait", directory.path());
        assert_eq!(process.await_line("ready").unwrap(), "ready to go");
        let pids = process.pids();
        assert_eq!(pids.len(), 2, "{pids:?}");
        drop(process);
        assert!(pids.iter().all(|pid| group_of(*pid).is_none()));
    }

    #[test]
    fn ends_what_does_not_want_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("trap '' TERM; echo ready; sleep 60; sleep 60", directory.path());
        process.await_line("ready").unwrap();
        let pids = process.pids();
        drop(process);
        assert!(!pids.is_empty() && pids.iter().all(|pid| group_of(*pid).is_none()));
    }

    #[test]
    fn tells_the_last_words_of_what_ended_too_early() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("echo no such port >&2; exit 3", directory.path());
        let error = process.await_line("ready").unwrap_err();
        assert!(error.contains("no such port") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_program_that_takes_too_long_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("sleep 60", directory.path());
        assert!(process.wait(Duration::from_millis(50)).is_err());
        let mut process = shell("exit 1", directory.path());
        assert_eq!(process.wait(Duration::from_secs(30)).unwrap().code(), Some(1));
    }
}
