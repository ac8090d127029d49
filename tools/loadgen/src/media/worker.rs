//! A media thread of the fleet: the connections of some rooms on one driver, the rooms' ledgers,
//! the clock of the traffic.

mod files;
mod lifecycle;
mod shared;
mod traffic;

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use hdrhistogram::Histogram;
use mrfp_io::{Completion, Driver as _, Ring};
use mrfp_protocol::tls::Profile;

use self::files::StallTimes;
use self::shared::{Room, Shared};
use super::connection::{Connection, Stage};
use super::{Progress, Traffic, WorkerReport};
use crate::accounting::thread_cpu_ns;
use crate::expectation::Violation;
use crate::security::Protection;

/// What the fleet asks of a media thread.
#[derive(Debug)]
pub enum Command {
    /// A call was answered: connect and bind. Answered by [`Event::Bound`] or [`Event::Failed`].
    Connect(Box<Connect>),
    /// Everybody who will come is bound: talk.
    Start,
    /// From now on it counts: forget the latencies so far.
    Measure,
    /// Say nothing new; wait for what is on its way. Answered by [`Event::Drained`].
    Stop,
    /// The call is about to end: a close by the node is in order from now on.
    Release {
        /// Whose.
        session: u32,
    },
    /// The call has ended: close.
    Close {
        /// Whose.
        session: u32,
    },
    /// Close everything, report, end.
    Finish,
}

/// One UE's media session.
#[derive(Debug)]
pub struct Connect {
    /// Session number in the fleet.
    pub session: u32,
    /// Room number in the fleet.
    pub room: u32,
    /// Where to.
    pub address: SocketAddr,
    /// Where from; `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// `a=path` of the answer.
    pub remote_path: String,
    /// `a=path` of our offer: one URI.
    pub local_path: String,
    /// SIP URI of the UE.
    pub from: String,
    /// SIP URI of the room.
    pub to: String,
    /// What protects the session.
    pub protection: Protection,
}

/// What a media thread tells the fleet.
#[derive(Debug)]
pub enum Event {
    /// A UE can send.
    Bound {
        /// Which.
        session: u32,
    },
    /// A UE's media session is lost; the violation is booked.
    Failed {
        /// Which.
        session: u32,
    },
    /// After [`Command::Stop`]: all is delivered, or will never be.
    Drained,
    /// After [`Command::Finish`].
    Finished(Box<WorkerReport>),
}

/// One media thread.
pub struct Worker {
    driver: Ring,
    connections: Vec<Connection>,
    /// Index of a session's connection, [`NONE`] where it has none here.
    by_session: Vec<u32>,
    shared: Shared,
    /// Slots whose connection is closed and was somebody's of a run of calls.
    free: Vec<u32>,
    commands: mpsc::Receiver<Command>,
    /// The last turn did not take every command.
    commands_left: bool,
    phase: Phase,
    /// Connections whose receive ended for lack of buffers.
    rearm: Vec<u32>,
    /// When the unbound must be looked at again.
    next_housekeeping_ns: u64,
    drain_deadline_ns: u64,
    finish_deadline_ns: u64,
    thread_cpu_at_start: u64,
    /// Of an open loop, which hardly sleeps: the time of the turns that had something to do.
    awake_work_ns: u64,
    stall: Option<StallTimes>,
    /// What the sender of the stalled receiver had sent of its file when the stall ended.
    stalled_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    SettingUp,
    Talking,
    Draining,
    Drained,
    Finishing,
}

const NONE: u32 = u32::MAX;
/// A UE that is not bound by then never will be.
const BIND_TIMEOUT_NS: u64 = 15_000_000_000;
/// Longest wait of a turn, so that figures and deadlines are looked at.
const WAIT_NS_MAX: u64 = 50_000_000;
/// What the node has not read by then of our last bytes is cut off.
const FINISH_TIMEOUT_NS: u64 = 2_000_000_000;
/// With less than that until the next message is due the thread stays awake: falling asleep and waking
/// up for each would cost more than the messages, and be in their latencies.
const AWAKE_NS_MAX: u64 = 1_000_000;
/// How often figures are published and deadlines looked at.
const HOUSEKEEPING_NS: u64 = 100_000_000;
/// Commands of one turn, so that media is served in between.
const COMMANDS_PER_TURN_MAX: usize = 64;
/// Completions handled before output is flushed.
const COMPLETIONS_PER_TURN_MAX: usize = 4096;

/// What a worker is built with.
pub struct WorkerConfig {
    /// What the UEs do.
    pub traffic: Traffic,
    /// Sessions of the whole fleet.
    pub sessions: u32,
    /// Sessions this worker may get.
    pub connections_max: u32,
    /// CPIM DateTime of the run.
    pub date_time: String,
    /// TLS parameters, where sessions are protected.
    pub profile: Option<Arc<Profile>>,
    /// Origin of the media clock.
    pub origin: Instant,
    /// Where figures are published.
    pub progress: Arc<Progress>,
}

impl Worker {
    /// A worker without connections. `events` is called on the worker's thread.
    pub fn new(
        driver: Ring,
        config: WorkerConfig,
        commands: mpsc::Receiver<Command>,
        events: impl Fn(Event) + Send + 'static,
    ) -> Self {
        let connections_max = config.connections_max as usize;
        let sessions = config.sessions as usize;
        Self {
            driver,
            connections: Vec::with_capacity(connections_max),
            by_session: vec![NONE; sessions],
            shared: Shared::new(config, events),
            free: Vec::new(),
            commands,
            commands_left: false,
            phase: Phase::SettingUp,
            rearm: Vec::new(),
            next_housekeeping_ns: 0,
            drain_deadline_ns: u64::MAX,
            finish_deadline_ns: u64::MAX,
            thread_cpu_at_start: 0,
            awake_work_ns: 0,
            stall: None,
            stalled_bytes: 0,
        }
    }

    /// Works until [`Command::Finish`] has been carried out or the fleet is gone. An error is the
    /// driver's.
    pub fn run(mut self) -> std::io::Result<()> {
        while !self.turn()? {}
        let report = self.report();
        (self.shared.events)(Event::Finished(Box::new(report)));
        Ok(())
    }

    /// One turn; `true` when all is done.
    fn turn(&mut self) -> std::io::Result<bool> {
        let turned_ns = self.shared.now();
        let mut works = false;
        self.take_commands();
        for index in std::mem::take(&mut self.rearm) {
            self.arm(index);
        }
        for _ in 0..COMPLETIONS_PER_TURN_MAX {
            let Some(completion) = self.driver.next_completion() else {
                break;
            };
            works = true;
            self.completion(completion);
        }
        self.send_what_is_due();
        self.housekeep();
        while let Some(index) = self.shared.dirty.pop() {
            works = true;
            self.flush(index);
        }
        if self.phase == Phase::Finishing
            && self.connections.iter().all(|connection| connection.stage == Stage::Closed)
        {
            return Ok(true);
        }
        let now = self.shared.now();
        let due = self.shared.due.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
        let wait = due.saturating_sub(now).min(WAIT_NS_MAX);
        let idle = self.rearm.is_empty() && self.shared.is_idle() && !self.commands_left;
        let awake = self.phase == Phase::Talking && wait < AWAKE_NS_MAX;
        let wait = if idle && !awake { wait } else { 0 };
        self.driver.wait(Some(self.driver.now_ns() + wait))?;
        if works || !awake {
            self.awake_work_ns += self.shared.now() - turned_ns;
        }
        Ok(false)
    }

    fn take_commands(&mut self) {
        self.commands_left = true;
        for _ in 0..COMMANDS_PER_TURN_MAX {
            match self.commands.try_recv() {
                Ok(command) => self.command(command),
                Err(mpsc::TryRecvError::Empty) => {
                    self.commands_left = false;
                    break;
                }
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.commands_left = false;
                    if self.phase != Phase::Finishing {
                        self.finish();
                    }
                    break;
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Connect(connect) => self.connect(*connect),
            Command::Start => self.start(),
            Command::Stop => {
                if matches!(self.phase, Phase::SettingUp | Phase::Talking) {
                    self.phase = Phase::Draining;
                    self.shared.due.clear();
                    let timeout = self.shared.traffic.drain_timeout.as_nanos() as u64;
                    self.drain_deadline_ns = self.shared.now() + timeout;
                    let used = thread_cpu_ns().saturating_sub(self.thread_cpu_at_start);
                    let cpu = used.min(self.awake_work_ns);
                    self.shared.progress.thread_cpu_ns.store(cpu, Ordering::Relaxed);
                }
            }
            Command::Measure => {
                self.thread_cpu_at_start = thread_cpu_ns();
                self.awake_work_ns = 0;
                self.shared.begin_measuring();
            }
            Command::Release { session } => {
                if let Some(index) = self.index(session) {
                    self.connections[index as usize].released = true;
                }
            }
            Command::Close { session } => {
                if let Some(index) = self.index(session) {
                    self.connections[index as usize].released = true;
                    self.close(index, None);
                }
            }
            Command::Finish => self.finish(),
        }
    }

    fn index(&self, session: u32) -> Option<u32> {
        let index = *self.by_session.get(session as usize)?;
        (index != NONE).then_some(index)
    }

    fn completion(&mut self, completion: Completion) {
        match completion {
            Completion::Accept { .. } | Completion::Readable { .. } | Completion::Doorbell => {}
            Completion::Connect { token, result } => self.connected(token, result),
            Completion::Recv { token, result, more } => self.received(token, result, more),
            Completion::Send { token, result, buffer } => self.sent(token, result, buffer),
            Completion::Close { token } => {
                let index = token.key().index;
                let connection = &mut self.connections[index as usize];
                connection.stage = Stage::Closed;
                if self.shared.traffic.speaks_once {
                    let session = connection.session as usize;
                    self.by_session[session] = NONE;
                    self.free.push(index);
                }
            }
        }
    }

    fn housekeep(&mut self) {
        let now = self.shared.now();
        if now < self.next_housekeeping_ns {
            return;
        }
        self.next_housekeeping_ns = now + HOUSEKEEPING_NS;
        self.shared.publish();
        for index in 0..self.connections.len() as u32 {
            let connection = &self.connections[index as usize];
            if connection.stage < Stage::Bound && now > connection.bind_deadline_ns {
                self.lose(index, Violation::NotBound, "no answer to the binding SEND", None);
            }
        }
        if now > self.finish_deadline_ns {
            // A node that does not read keeps our last bytes with the kernel: cut it off.
            for connection in &self.connections {
                if connection.stage == Stage::Closing {
                    self.driver.shutdown(connection.socket);
                }
            }
        }
        if self.phase == Phase::Draining {
            let settled = self.shared.rooms.iter().all(Room::is_settled);
            let sending = self.connections.iter().any(|connection| connection.sending.is_some());
            if (settled && !sending) || now > self.drain_deadline_ns {
                self.phase = Phase::Drained;
                self.shared.book_debts();
                (self.shared.events)(Event::Drained);
            }
        }
    }

    fn finish(&mut self) {
        self.phase = Phase::Finishing;
        self.finish_deadline_ns = self.shared.now() + FINISH_TIMEOUT_NS;
        self.shared.due.clear();
        for index in 0..self.connections.len() as u32 {
            self.connections[index as usize].released = true;
            self.close(index, None);
        }
    }

    fn violation(&mut self, index: u32, violation: Violation, text: &str) {
        let session = self.connections[index as usize].session;
        let violations = &mut self.shared.violations;
        violations.add(violation, || format!("session {session}: {text}"));
        self.shared.progress.violations.store(violations.total(), Ordering::Relaxed);
    }

    fn report(&mut self) -> WorkerReport {
        self.shared.publish();
        let shared = &mut self.shared;
        let take =
            |histogram: &mut Histogram<u64>| std::mem::replace(histogram, latency_histogram());
        WorkerReport {
            violations: std::mem::take(&mut shared.violations),
            delivery_latency: take(&mut shared.delivery_latency),
            answer_latency: take(&mut shared.answer_latency),
            first_answer_latency: take(&mut shared.first_answer_latency),
            slip: take(&mut shared.slip),
            unstalled_latency: take(&mut shared.unstalled_latency),
            stalled_latency: take(&mut shared.stalled_latency),
            stalled_bytes: self.stalled_bytes,
            file_latency: take(&mut shared.file_latency),
            file_bytes_taken: shared.file_bytes_taken,
            delivered_by_room: shared.rooms.iter().map(|room| room.delivered).collect(),
            latency_by_room: shared
                .rooms
                .iter()
                .map(|room| {
                    let mean = room.latency_ns as f64 / room.delivered.max(1) as f64;
                    (room.delivered, mean)
                })
                .collect(),
        }
    }
}

/// Indices, each at most once, in the order they came.
#[derive(Default)]
pub(crate) struct Set {
    pub(crate) order: Vec<u32>,
    inside: Vec<bool>,
}

impl Set {
    pub(crate) fn insert(&mut self, index: u32) {
        if self.inside.len() <= index as usize {
            self.inside.resize(index as usize + 1, false);
        }
        if !std::mem::replace(&mut self.inside[index as usize], true) {
            self.order.push(index);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<u32> {
        let index = self.order.pop()?;
        self.inside[index as usize] = false;
        Some(index)
    }
}

/// Longest latency a histogram tells from longer ones.
const LATENCY_NS_MAX: u64 = 120_000_000_000;

/// A histogram of nanoseconds, up to two minutes, to three digits.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are in order")
}
