//! The fleet without SIP: connections to a target that is reached directly, a relay of RFC 4976, one
//! that only moves bytes, the media plane by itself.
//!
//! - [`plan`]: what is to be done, checked.
//! - `worker`: a thread with a ring and its links; `talk` is what they say.
//! - `link`: one connection, with TLS or without; `auth`: a URI of a relay; `end`: one end of a pair.
//! - `participant`: a user of a conference with floors (BFCP).
//! - [`Lobby`]: where participants come from that calls bring.
//! - `flights`: the oracle; `pattern`: messages recognised and written without parsing.
//! - `fax`: datagrams at the pace of a fax.
//! - `bulk`: a stream through whoever forwards bytes.
//! - [`report`]: what a run has shown.

mod auth;
mod bulk;
mod end;
mod fax;
mod flights;
mod link;
mod lobby;
mod participant;
mod pattern;
pub mod plan;
pub mod report;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mrfp_io::{Ring, RingConfig};

use self::bulk::Bulk;
use self::fax::Fax;
use self::lobby::Arrival;
pub use self::lobby::{Invitation, Lobby, Stream};
pub use self::plan::Plan;
use self::plan::Work;
pub use self::report::WireReport;
use self::report::{Counted, Measured, Used};
use self::worker::{Worker, WorkerFigures};
use crate::accounting::Processes;

/// Body bytes of a chunk of bulk.
pub(crate) const BULK_CHUNK_BYTES: usize = bulk::CHUNK_BODY_BYTES;

/// Where the run stands, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
enum Phase {
    /// Links come up.
    SettingUp,
    /// All are up and say their first word.
    Speaking,
    /// Traffic, not measured yet.
    Talking,
    /// Traffic.
    Measuring,
    /// Traffic still, while what was used is read: that takes processor time of the generator, and
    /// so is in nobody's latency.
    Measured,
    /// What is on its way is awaited.
    Draining,
    /// The calls that have brought the participants end, and whoever was called closes.
    Leaving,
    /// Links are closed.
    Ending,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::SettingUp,
        Self::Speaking,
        Self::Talking,
        Self::Measuring,
        Self::Measured,
        Self::Draining,
        Self::Leaving,
        Self::Ending,
    ];

    /// Pairs talk, links begin again.
    fn has_traffic(self) -> bool {
        (Self::Talking..=Self::Measured).contains(&self)
    }

    fn next(self) -> Self {
        Self::ALL[(self as usize + 1).min(Self::ALL.len() - 1)]
    }
}

/// What the run tells its threads.
#[derive(Debug, Default)]
struct Control {
    phase: AtomicU8,
    /// The thread that may connect, where the order of connections counts.
    turn: AtomicU32,
    /// All is said: the calls that have brought the participants may end.
    served: AtomicBool,
    /// They have.
    calls_over: AtomicBool,
    /// Where links are reached that listen, by their numbers.
    bound: Mutex<BTreeMap<u32, SocketAddr>>,
}

impl Control {
    fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }
}

/// What a thread tells the run, once a turn.
#[derive(Debug, Default)]
struct Progress {
    up: AtomicU64,
    failed: AtomicU64,
    messages: AtomicU64,
    deliveries: AtomicU64,
    handshakes: AtomicU64,
    bytes: AtomicU64,
    /// What it has told is of [`Phase::Speaking`] or later.
    speaking: AtomicBool,
    drained: AtomicBool,
}

/// One thread, seen from the run.
struct Thread {
    progress: Arc<Progress>,
    handle: JoinHandle<io::Result<WorkerFigures>>,
}

/// How often the threads are looked after.
const INTERVAL: Duration = Duration::from_millis(2);
/// A thread says by then that it has drained, past the time it may take for that.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// Runs a plan. An error means that it could not be run; what the target did wrong is in the report.
pub fn run(plan: Plan, node: &Processes) -> io::Result<WireReport> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Run::begin(plan, node)?.drive())
}

/// A run whose threads are there.
pub(crate) struct Run<'a> {
    plan: Arc<Plan>,
    node: &'a Processes,
    control: Arc<Control>,
    threads: Vec<Thread>,
    interrupted: bool,
    measured: Measured,
}

impl<'a> Run<'a> {
    fn begin(plan: Plan, node: &'a Processes) -> io::Result<Self> {
        Self::with_lobby(plan, node).map(|(run, _)| run)
    }

    /// The lobby is where participants come from if calls bring them.
    pub(crate) fn with_lobby(plan: Plan, node: &'a Processes) -> io::Result<(Self, Lobby)> {
        let plan = Arc::new(plan);
        let control = Arc::new(Control::default());
        let mut measured = Measured::default();
        measured.pss_before = node.pss_bytes();
        let origin = Instant::now();
        let (mut threads, mut doors) = (Vec::new(), Vec::new());
        for (number, core) in (0..).zip(crate::media::cores(plan.share, plan.threads)) {
            let (door, arrivals) = mpsc::channel();
            doors.push((plan.links_of(number), door));
            threads.push(Thread::spawn(&plan, &control, number, core, origin, arrivals)?);
        }
        let lobby = Lobby { control: Arc::clone(&control), doors };
        Ok((Self { plan, node, control, threads, interrupted: false, measured }, lobby))
    }

    pub(crate) async fn drive(mut self) -> io::Result<WireReport> {
        let begun = Instant::now();
        let links = u64::from(self.plan.links);
        let (works_from_start, burst) = (self.plan.work != Work::Handshakes, self.plan.burst);
        if works_from_start {
            self.wait(SET_UP_TIMEOUT, |counted| counted.up + counted.failed >= links).await;
            self.measured.set_up_seconds = begun.elapsed().as_secs_f64();
            if burst {
                self.control.enter(Phase::Speaking);
                // Until the threads have noticed, those who are there count, silent as they are.
                while !self.is_speaking() && !self.interrupted {
                    self.wait(INTERVAL, |_| false).await;
                }
                self.wait(SET_UP_TIMEOUT, |counted| counted.up + counted.failed >= links).await;
            }
        }
        self.measured.up = self.counted().up;
        self.control.enter(Phase::Talking);
        self.wait(self.plan.warmup, |_| false).await;
        self.measured.pss_set_up = self.node.pss_bytes();

        let used = Used::of(self.node);
        self.measured.begin(used, self.counted());
        self.control.enter(Phase::Measuring);
        let someone = self.measured.up > 0 || !works_from_start;
        if someone {
            self.wait(self.plan.duration, move |counted| {
                works_from_start && counted.failed >= links
            })
            .await;
        }
        self.control.enter(Phase::Measured);
        let used = Used::of(self.node);
        self.measured.end(&used, self.counted());
        self.measured.pss_end = self.node.pss_bytes();

        self.control.enter(Phase::Draining);
        let deadline = Instant::now() + self.plan.drain_timeout + DRAIN_GRACE;
        while !self.is_drained() && Instant::now() < deadline {
            tokio::time::sleep(INTERVAL).await;
        }
        self.measured.total = self.counted();
        if self.plan.is_called() {
            self.control.enter(Phase::Leaving);
            self.control.served.store(true, Ordering::Release);
            while !self.control.calls_over.load(Ordering::Acquire) {
                tokio::time::sleep(INTERVAL).await;
            }
        }
        self.control.enter(Phase::Ending);
        let mut figures = Vec::new();
        for thread in self.threads {
            figures.push(thread.join()?);
        }
        Ok(WireReport::new(&self.plan, self.measured, figures, self.interrupted))
    }

    /// Until it is done, the time has passed, or the user has enough.
    async fn wait(&mut self, timeout: Duration, is_done: impl Fn(&Counted) -> bool) {
        let deadline = Instant::now() + timeout;
        while !self.interrupted && Instant::now() < deadline && !is_done(&self.counted()) {
            if self.threads.iter().any(|thread| thread.handle.is_finished()) {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::select! {
                () = crate::processes::interrupted() => self.interrupted = true,
                () = tokio::time::sleep(left.min(INTERVAL)) => {}
            }
        }
    }

    fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for Thread { progress, .. } in &self.threads {
            counted.up += progress.up.load(Ordering::Relaxed);
            counted.failed += progress.failed.load(Ordering::Relaxed);
            counted.messages += progress.messages.load(Ordering::Relaxed);
            counted.deliveries += progress.deliveries.load(Ordering::Relaxed);
            counted.bytes += progress.bytes.load(Ordering::Relaxed);
            counted.handshakes += progress.handshakes.load(Ordering::Relaxed);
        }
        counted
    }

    fn is_speaking(&self) -> bool {
        self.threads.iter().all(|thread| {
            thread.progress.speaking.load(Ordering::Acquire) || thread.handle.is_finished()
        })
    }

    fn is_drained(&self) -> bool {
        self.threads.iter().all(|thread| {
            thread.progress.drained.load(Ordering::Acquire) || thread.handle.is_finished()
        })
    }
}

/// Ample: each link has a deadline of its own.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(300);

impl Thread {
    fn spawn(
        plan: &Arc<Plan>,
        control: &Arc<Control>,
        number: u32,
        core: Option<mrfp_io::Core>,
        origin: Instant,
        arrivals: mpsc::Receiver<Arrival>,
    ) -> io::Result<Self> {
        let progress = Arc::new(Progress::default());
        let (plan, control) = (Arc::clone(plan), Arc::clone(control));
        let links = plan.links_of(number);
        let (ready, started) = mpsc::channel();
        let published = Arc::clone(&progress);
        let handle = thread::Builder::new().name("media".to_owned()).spawn(move || {
            if let Some(core) = core {
                // Not being pinned costs precision, not correctness.
                let _ = mrfp_io::pin_current_thread(core);
            }
            let config = match plan.work {
                Work::Bulk { .. } => Bulk::ring(),
                Work::Fax(_) => Fax::ring(links.len()),
                _ => RingConfig { sockets_expected: links.len(), ..RingConfig::default() },
            };
            match Ring::new(config) {
                Ok(ring) if matches!(plan.work, Work::Fax(_)) => {
                    let fax = Fax::new(ring, plan, control, published, (links, origin), arrivals);
                    let said = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
                    let _ = ready.send(fax.as_ref().map(|_| ()).map_err(said));
                    fax?.run()
                }
                Ok(ring) => {
                    let _ = ready.send(Ok(()));
                    if let Work::Bulk { sink } = plan.work {
                        return Bulk::new(ring, plan, control, published).run(sink);
                    }
                    let place = (number, links, origin);
                    Worker::new(ring, plan, control, published, place, arrivals).run()
                }
                Err(error) => {
                    let said = io::Error::new(error.kind(), error.to_string());
                    let _ = ready.send(Err(error));
                    Err(said)
                }
            }
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { progress, handle })
    }

    fn join(self) -> io::Result<WorkerFigures> {
        self.handle.join().unwrap_or_else(|_| Err(io::Error::other("a media thread panicked")))
    }
}

/// Where the first URI that a link was given leads to.
fn first_hop(link: &link::Link) -> Option<&str> {
    let uri = link.registration.as_ref()?.use_path.first()?;
    uri.split('/').nth(2)
}
