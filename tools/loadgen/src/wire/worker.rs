//! A media thread without SIP: links on one ring, the pairs they make, the clock of the traffic.

mod floors;
mod lifecycle;
mod talk;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use hdrhistogram::Histogram;
use mrfp_io::{Completion, Driver as _, Listen, Ring, SendBuffers, Socket};

use self::floors::Holding;
use super::end::Heard;
use super::link::{Link, Stage};
use super::lobby::Arrival;
use super::participant;
use super::{Control, Phase, Plan, Progress, Work};
use crate::accounting::thread_cpu_ns;
use crate::expectation::{Violation, Violations};
use crate::media::worker::{Set, latency_histogram};

/// One thread.
pub(super) struct Worker {
    driver: Ring,
    links: Vec<Link>,
    shared: Shared,
}

/// All but the ring and the links, so that a link's event may touch it.
struct Shared {
    plan: Arc<Plan>,
    control: Arc<Control>,
    progress: Arc<Progress>,
    /// Which thread this is, and the number of its first link in the whole run.
    thread: u32,
    first: u32,
    origin: Instant,
    phase: Phase,
    pool: SendBuffers,
    scratch: Vec<u8>,
    heard: Vec<Heard>,
    heard_of_floors: Vec<participant::Heard>,
    /// Who holds a floor, in the order they are to give it back.
    holding: VecDeque<Holding>,
    /// Of each floor of each conference.
    holders: Vec<u32>,
    dirty: Set,
    /// May have something to say.
    ready: Set,
    /// Links whose receive ended for lack of buffers.
    rearm: Vec<u32>,
    /// Participants whose call was answered.
    arrivals: mpsc::Receiver<Arrival>,
    /// Links that may begin (again).
    waiting: VecDeque<u32>,
    /// Where the target connects to us, if it does, and the link it is to be.
    listener: Option<Socket>,
    expected: Option<u32>,
    /// Being connected or secured.
    beginning: u32,
    /// When links are due, in order.
    due: VecDeque<(u64, u32)>,
    next_housekeeping_ns: u64,
    drain_deadline_ns: u64,
    end_deadline_ns: u64,
    cpu_begun: (u64, u64),
    /// Of an open loop, which never sleeps: the time of the turns that had something to do.
    awake_work_ns: u64,
    /// Keys that nobody uses, the longest unused first.
    identities: VecDeque<u32>,
    counts: Counts,
    figures: WorkerFigures,
}

/// Published once a turn.
#[derive(Clone, Copy, Default)]
struct Counts {
    up: u64,
    failed: u64,
    messages: u64,
    deliveries: u64,
    handshakes: u64,
}

/// What a thread has measured.
pub(super) struct WorkerFigures {
    pub(super) violations: Violations,
    /// From the moment a message was due to its arrival, in nanoseconds.
    pub(super) delivery: Histogram<u64>,
    /// From a SEND to its 200.
    pub(super) answer: Histogram<u64>,
    /// From a link's first word to the first answer, where all speak at once.
    pub(super) first_answer: Histogram<u64>,
    /// From the beginning of a connection to the end of its handshake.
    pub(super) handshake: Histogram<u64>,
    /// How late the open loop was.
    pub(super) slip: Histogram<u64>,
    /// Of each pair: messages that were over, and their mean latency in nanoseconds.
    pub(super) pairs: Vec<(u64, f64)>,
    /// Processor time of the thread while it was measured, and that time.
    pub(super) cpu_ns: u64,
    pub(super) measured_ns: u64,
    /// Of a fax: how much later or earlier after the one before a packet came than it was due.
    pub(super) jitter: Histogram<u64>,
    pub(super) fax: Option<super::fax::Counts>,
    /// The suite in use.
    pub(super) suite: Option<&'static str>,
}

/// Links being connected or secured at a time: what any listener's backlog holds.
const BEGINNING_MAX: u32 = 64;
/// A link that is not up by then never will be.
const BEGIN_TIMEOUT_NS: u64 = 15_000_000_000;
/// A peer that was told goodbye closes by then, or we do.
const GOODBYE_TIMEOUT_NS: u64 = 1_000_000_000;
/// What the peer has not read by then of our last bytes is cut off.
const END_TIMEOUT_NS: u64 = 5_000_000_000;
/// Longest wait of a turn, so that a new phase is seen.
const WAIT_NS_MAX: u64 = 5_000_000;
const HOUSEKEEPING_NS: u64 = 100_000_000;
/// Completions handled before output is flushed.
const COMPLETIONS_PER_TURN_MAX: usize = 4096;

impl Worker {
    pub(super) fn new(
        driver: Ring,
        plan: Arc<Plan>,
        control: Arc<Control>,
        progress: Arc<Progress>,
        (thread, links, origin): (u32, Range<u32>, Instant),
        arrivals: mpsc::Receiver<Arrival>,
    ) -> Self {
        let count = links.end - links.start;
        let pool = SendBuffers::new(plan.buffers(count));
        let identities = plan.identities_of(thread).collect();
        let waiting = if plan.is_called() { VecDeque::new() } else { (0..count).collect() };
        let shared = Shared {
            plan,
            control,
            progress,
            thread,
            first: links.start,
            origin,
            phase: Phase::SettingUp,
            pool,
            scratch: Vec::with_capacity(16 * 1024),
            heard: Vec::new(),
            heard_of_floors: Vec::new(),
            holding: VecDeque::new(),
            holders: Vec::new(),
            dirty: Set::default(),
            ready: Set::default(),
            rearm: Vec::new(),
            arrivals,
            waiting,
            listener: None,
            expected: None,
            beginning: 0,
            due: VecDeque::new(),
            next_housekeeping_ns: 0,
            drain_deadline_ns: u64::MAX,
            end_deadline_ns: u64::MAX,
            cpu_begun: (0, 0),
            awake_work_ns: 0,
            identities,
            counts: Counts::default(),
            figures: WorkerFigures::new(),
        };
        Self { driver, links: (0..count).map(|_| Link::new()).collect(), shared }
    }

    /// Works until the run is over. An error is the ring's.
    pub(super) fn run(mut self) -> std::io::Result<WorkerFigures> {
        if let Some(sink) = self.shared.plan.sink() {
            let listen = Listen { backlog: 1024, reuse_port: false };
            let (listener, _) = self.driver.listen(sink, listen, lifecycle::listening())?;
            self.shared.listener = Some(listener);
        }
        while !self.turn()? {}
        self.close_books();
        Ok(self.shared.figures)
    }

    fn turn(&mut self) -> std::io::Result<bool> {
        let turned_ns = self.shared.now();
        self.follow_phase();
        for index in std::mem::take(&mut self.shared.rearm) {
            self.arm(index);
        }
        let mut works = false;
        for _ in 0..COMPLETIONS_PER_TURN_MAX {
            let Some(completion) = self.driver.next_completion() else { break };
            works = true;
            self.completion(completion);
        }
        self.begin_links();
        self.talk();
        self.housekeep();
        while let Some(index) = self.shared.dirty.pop() {
            works = true;
            self.flush(index);
        }
        self.publish();
        if self.shared.phase == Phase::Ending && self.is_over() {
            return Ok(true);
        }
        let idle = self.shared.rearm.is_empty()
            && self.shared.dirty.order.is_empty()
            && self.shared.ready.order.is_empty();
        let due = self.shared.due.front().map_or(u64::MAX, |(due, _)| *due);
        let until = self.shared.holding.front().map_or(u64::MAX, |holding| holding.until_ns);
        let due = due.min(until);
        let wait = due.saturating_sub(self.shared.now()).min(WAIT_NS_MAX);
        // Falling asleep and waking up costs more than the time between two messages, and would be
        // in their latencies: the open loop stays awake.
        let awake = self.shared.plan.traffic.interval_ns.is_some() && due != u64::MAX;
        let wait = if idle && !awake { wait } else { 0 };
        self.driver.wait(Some(self.driver.now_ns() + wait))?;
        if awake && works {
            self.shared.awake_work_ns += self.shared.now() - turned_ns;
        }
        Ok(false)
    }

    fn completion(&mut self, completion: Completion) {
        match completion {
            Completion::Connect { token, result } => self.connected(token, result),
            Completion::Recv { token, result, more } => self.received(token, result, more),
            Completion::Send { token, result, buffer } => self.sent(token, result, buffer),
            Completion::Close { token } => self.closed(token),
            Completion::Accept { result, more, .. } => self.accepted(result, more),
            // Nobody rings, and nothing is waited for so.
            Completion::Readable { .. } | Completion::Doorbell => {}
        }
    }

    fn follow_phase(&mut self) {
        let wanted = self.shared.control.phase();
        while self.shared.phase < wanted {
            let next = self.shared.phase.next();
            self.shared.phase = next;
            let now = self.shared.now();
            match next {
                Phase::SettingUp => {}
                Phase::Speaking => self.speak_up(),
                Phase::Talking => self.begin_talk(),
                Phase::Measuring => {
                    self.shared.cpu_begun = (thread_cpu_ns(), now);
                    self.shared.awake_work_ns = 0;
                    self.shared.figures.begin_measuring();
                    for end in self.links.iter_mut().filter_map(|link| link.end.as_mut()) {
                        (end.over, end.latency_ns, end.deliveries) = (0, 0, 0);
                    }
                }
                Phase::Measured => {
                    let (cpu, begun) = self.shared.cpu_begun;
                    let used = thread_cpu_ns().saturating_sub(cpu);
                    let awake = self.shared.plan.traffic.interval_ns.is_some();
                    self.shared.figures.cpu_ns =
                        if awake { self.shared.awake_work_ns.min(used) } else { used };
                    self.shared.figures.measured_ns = now - begun;
                }
                Phase::Draining => {
                    self.shared.due.clear();
                    self.shared.waiting.clear();
                    let timeout = self.shared.plan.drain_timeout.as_nanos() as u64;
                    self.shared.drain_deadline_ns = now + timeout;
                }
                Phase::Leaving if self.shared.plan.is_called() => {
                    for link in &mut self.links {
                        link.released = true;
                    }
                }
                Phase::Leaving => {}
                Phase::Ending => {
                    self.shared.end_deadline_ns = now + END_TIMEOUT_NS;
                    for index in 0..self.links.len() as u32 {
                        self.close(index);
                    }
                }
            }
        }
    }

    /// Nothing is on its way any more, or will ever come.
    fn is_drained(&self) -> bool {
        let settled = |link: &Link| {
            link.end.as_ref().is_none_or(|end| end.flights.open() == 0)
                && link.participant.as_ref().is_none_or(|participant| participant.open() == 0)
                && (self.shared.plan.work != Work::Handshakes
                    || matches!(link.stage, Stage::Waiting | Stage::Closed))
        };
        self.shared.now() >= self.shared.drain_deadline_ns || self.links.iter().all(settled)
    }

    fn is_over(&self) -> bool {
        let gone = |link: &Link| matches!(link.stage, Stage::Closed | Stage::Waiting);
        self.links.iter().all(gone) || self.shared.now() >= self.shared.end_deadline_ns
    }

    fn housekeep(&mut self) {
        let now = self.shared.now();
        if now < self.shared.next_housekeeping_ns {
            return;
        }
        self.shared.next_housekeeping_ns = now + HOUSEKEEPING_NS;
        for index in 0..self.links.len() as u32 {
            let link = &self.links[index as usize];
            if link.deadline_ns > now || link.stage >= Stage::Closing {
                continue;
            }
            if link.released {
                self.close(index);
            } else {
                let stage = link.stage;
                self.lose(index, Violation::NotBound, &format!("{stage:?} did not end in time"));
            }
        }
        if self.shared.phase == Phase::Draining && self.is_drained() {
            self.shared.progress.drained.store(true, Ordering::Release);
        }
    }

    fn publish(&mut self) {
        let Shared { progress, counts, .. } = &self.shared;
        progress.up.store(counts.up, Ordering::Relaxed);
        progress.failed.store(counts.failed, Ordering::Relaxed);
        progress.messages.store(counts.messages, Ordering::Relaxed);
        progress.deliveries.store(counts.deliveries, Ordering::Relaxed);
        progress.handshakes.store(counts.handshakes, Ordering::Relaxed);
        progress.speaking.store(self.shared.phase >= Phase::Speaking, Ordering::Release);
    }

    /// What is still owed will not come.
    fn close_books(&mut self) {
        for (index, link) in self.links.iter().enumerate() {
            let number = self.shared.first + index as u32;
            if let Some(participant) = &link.participant {
                let (unanswered, waiting) = participant.debts();
                let violations = &mut self.shared.figures.violations;
                violations.add_many(Violation::PrimitiveUnanswered, unanswered, || {
                    format!("link {number}: {unanswered} primitives were never answered")
                });
                violations.add_many(Violation::FloorNotGranted, waiting, || {
                    format!("link {number}: {waiting} requests were never granted")
                });
            }
            let Some(end) = &link.end else { continue };
            let (lost, unanswered) = end.flights.debts();
            let violations = &mut self.shared.figures.violations;
            violations.add_many(Violation::Lost, lost, || {
                format!("link {number}: {lost} messages never came")
            });
            violations.add_many(Violation::SendUnanswered, unanswered, || {
                format!("link {number}: {unanswered} SENDs were never answered")
            });
            let partner = end.partner as usize;
            let Some(other) = self.links[partner].end.as_ref().filter(|_| index < partner) else {
                continue;
            };
            let deliveries = end.deliveries + other.deliveries;
            let latency = (end.latency_ns + other.latency_ns) as f64;
            let mean = if deliveries > 0 { latency / deliveries as f64 } else { 0.0 };
            self.shared.figures.pairs.push((end.over + other.over, mean));
        }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn is_measuring(&self) -> bool {
        self.phase == Phase::Measuring
    }

    fn violation(&mut self, index: u32, violation: Violation, text: &str) {
        let number = self.first + index;
        self.figures.violations.add(violation, || format!("link {number}: {text}"));
    }
}

impl WorkerFigures {
    pub(super) fn new() -> Self {
        Self {
            violations: Violations::default(),
            delivery: latency_histogram(),
            answer: latency_histogram(),
            first_answer: latency_histogram(),
            handshake: latency_histogram(),
            slip: latency_histogram(),
            pairs: Vec::new(),
            cpu_ns: 0,
            measured_ns: 0,
            jitter: latency_histogram(),
            fax: None,
            suite: None,
        }
    }

    pub(super) fn begin_measuring(&mut self) {
        self.delivery.reset();
        self.answer.reset();
        self.slip.reset();
        self.handshake.reset();
        self.jitter.reset();
    }
}
