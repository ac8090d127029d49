//! Several processes that share one load: copies of this program, each with its part of the sessions,
//! one display, one report.
//!
//! A copy is started with the same words and `--share`. It tells its progress on standard error, a
//! line of JSON a second, and its report on standard output. Standard input stays open as long as it
//! is to go on: its end is the interrupt, so that the copies end in order with whoever started them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::Error;
use crate::display::{Display, Figures};
use crate::merge::{Input, MergedReport, merge_inputs};

/// What a copy has to say, or the user.
enum Said {
    /// One of them, a line.
    Line(u32, String),
    /// Ctrl-C.
    Interrupt,
}

/// One copy.
struct Copy {
    child: Child,
    /// Closed: it ends its calls.
    go_on: Option<ChildStdin>,
    report: Option<JoinHandle<std::io::Result<String>>>,
}

/// Ends what is still running when the others cannot go on.
impl Drop for Copy {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How often the display is looked after.
const INTERVAL: Duration = Duration::from_millis(200);

/// Runs `count` copies of a command line, which has `sessions` sessions in all.
pub fn run(words: &[String], count: u32, sessions: u32) -> Result<MergedReport, Error> {
    let (said, heard) = mpsc::channel();
    watch_for_interrupt(said.clone())?;
    let copies = (0..count).map(|index| Copy::start(words, index, count, &said));
    let mut copies = copies.collect::<std::io::Result<Vec<_>>>()?;
    drop(said);
    follow(&mut copies, &heard, sessions)?;
    let names = (0..count).map(|index| format!("process {index}")).collect();
    let reports = copies.iter_mut().enumerate().map(|(index, copy)| {
        copy.report()
            .map_err(|why| Error::Io(std::io::Error::other(format!("process {index} {why}"))))
    });
    let reports = reports.collect::<Result<Vec<_>, _>>()?;
    Ok(merge_inputs(names, &reports))
}

/// Shows what all do together until they have ended.
fn follow(copies: &mut [Copy], heard: &mpsc::Receiver<Said>, sessions: u32) -> Result<(), Error> {
    let mut display = Display::new(sessions);
    let mut latest = vec![Figures::default(); copies.len()];
    let mut interrupted = false;
    while copies.iter_mut().any(|copy| !matches!(copy.child.try_wait(), Ok(Some(_)))) {
        match heard.recv_timeout(INTERVAL) {
            Ok(Said::Line(index, line)) => match serde_json::from_str(&line) {
                Ok(figures) => latest[index as usize] = figures,
                Err(_) => display.note(&format!("process {index}: {line}")),
            },
            Ok(Said::Interrupt) if interrupted => {
                return Err(Error::Io(std::io::Error::other(
                    "interrupted twice: calls are left as they are",
                )));
            }
            Ok(Said::Interrupt) => {
                interrupted = true;
                display.note("interrupted: ending the calls (again: leave at once)");
                copies.iter_mut().for_each(|copy| copy.go_on = None);
            }
            Err(_) => {}
        }
        let now = Instant::now();
        if display.is_due(now) && latest.iter().any(|figures| !figures.phase.is_empty()) {
            display.show(&Figures::together(&latest), now);
        }
    }
    display.finish();
    for said in heard.try_iter() {
        match said {
            Said::Line(index, line) if !line.starts_with('{') => {
                eprintln!("process {index}: {line}");
            }
            Said::Line(..) | Said::Interrupt => {}
        }
    }
    Ok(())
}

impl Copy {
    fn start(
        words: &[String],
        index: u32,
        count: u32,
        said: &mpsc::Sender<Said>,
    ) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(words.iter().skip(1))
            .arg(format!("--share={index}/{count}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (go_on, output, errors) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(errors) = errors {
            let said = said.clone();
            thread::spawn(move || tell(errors, index, &said));
        }
        let report = thread::spawn(move || {
            let mut report = String::new();
            output.map_or(Ok(0), |mut output| output.read_to_string(&mut report))?;
            Ok(report)
        });
        Ok(Self { child, go_on, report: Some(report) })
    }

    /// What it has shown; or why there is nothing.
    fn report(&mut self) -> Result<Input, String> {
        let status = self.child.wait().map_err(|error| error.to_string())?;
        let said = self.report.take().and_then(|thread| thread.join().ok());
        let text = said.and_then(Result::ok).unwrap_or_default();
        serde_json::from_str(&text).map_err(|_| format!("ended without a report ({status})"))
    }
}

fn tell(errors: ChildStderr, index: u32, said: &mpsc::Sender<Said>) {
    for line in BufReader::new(errors).lines() {
        let Ok(line) = line else { return };
        if said.send(Said::Line(index, line)).is_err() {
            return;
        }
    }
}

fn watch_for_interrupt(said: mpsc::Sender<Said>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut signal = signal(SignalKind::interrupt())?;
    drop(guard);
    thread::spawn(move || {
        while runtime.block_on(signal.recv()).is_some() && said.send(Said::Interrupt).is_ok() {}
    });
    Ok(())
}

/// For one of several: Ctrl-C is for whoever started it, and standard input ends when it is to end.
/// What this returns is done then.
pub(crate) fn obey() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    // Once somebody has listened the signal does nothing by itself.
    drop(signal(SignalKind::interrupt())?);
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ENDED.notify_one();
    });
    OBEYS.store(true, Ordering::Release);
    Ok(())
}

/// Until the user, or whoever started this process, has enough.
pub(crate) async fn interrupted() {
    if OBEYS.load(Ordering::Acquire) {
        return ENDED.notified().await;
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // Without signals the run ends by itself.
        std::future::pending::<()>().await;
    }
}

static OBEYS: AtomicBool = AtomicBool::new(false);
static ENDED: tokio::sync::Notify = tokio::sync::Notify::const_new();
