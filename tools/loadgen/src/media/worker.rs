//! A media thread of the fleet: the connections of some rooms on one driver, the rooms' ledgers,
//! the clock of the traffic.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use hdrhistogram::Histogram;
use mrfp_io::{
    Completion, Driver, Errno, Key, Operation, RecvBuffer, SendBuffer, SendBuffers,
    SendBuffersConfig, Token,
};
use mrfp_protocol::tls::{self, Handshake, Profile, Psk};

use super::connection::{
    Beginning, Connection, Failure, Heard, Security, Sending, Stage, Surroundings,
};
use super::message::{self, Author, Padding, Stamp, Template};
use super::{Progress, Traffic, WorkerReport};
use crate::expectation::{Ledger, Violation, Violations};

/// What the fleet asks of a media thread.
#[derive(Debug)]
pub enum Command {
    /// A call was answered: connect and bind. Answered by [`Event::Bound`] or [`Event::Failed`].
    Connect(Box<Connect>),
    /// Everybody who will come is bound: talk.
    Start,
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
    /// `a=path` of the answer.
    pub remote_path: String,
    /// `a=path` of our offer: one URI.
    pub local_path: String,
    /// SIP URI of the UE.
    pub from: String,
    /// SIP URI of the room.
    pub to: String,
    /// Identity and key, where the session is protected.
    pub psk: Option<(Vec<u8>, Psk)>,
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
pub struct Worker<D> {
    driver: D,
    connections: Vec<Connection>,
    /// Index of a session's connection, [`NONE`] where it has none here.
    by_session: Vec<u32>,
    shared: Shared,
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
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    SettingUp,
    Talking,
    Draining,
    Drained,
    Finishing,
}

/// Everything a connection's event may touch besides the connection.
struct Shared {
    traffic: Traffic,
    padding: Padding,
    date_time: String,
    profile: Option<Arc<Profile>>,
    rooms: Vec<Room>,
    room_index: BTreeMap<u32, u32>,
    pool: SendBuffers,
    scratch: Vec<u8>,
    heard: Vec<Heard>,
    /// Connections with output, without repetition.
    dirty: Set,
    /// Connections that may be able to send, without repetition.
    ready: Set,
    due: BinaryHeap<Reverse<(u64, u32)>>,
    origin: Instant,
    violations: Violations,
    delivery_latency: Histogram<u64>,
    answer_latency: Histogram<u64>,
    slip: Histogram<u64>,
    recent: Histogram<u64>,
    progress: Arc<Progress>,
    events: Box<dyn Fn(Event) + Send>,
}

/// One room.
struct Room {
    number: u32,
    /// Connection indices; positions are the ledger's member numbers once talking has begun.
    members: Vec<u32>,
    ledger: Option<Ledger>,
}

/// Indices, each at most once, in the order they came.
#[derive(Default)]
struct Set {
    order: Vec<u32>,
    inside: Vec<bool>,
}

impl Set {
    fn insert(&mut self, index: u32) {
        if self.inside.len() <= index as usize {
            self.inside.resize(index as usize + 1, false);
        }
        if !std::mem::replace(&mut self.inside[index as usize], true) {
            self.order.push(index);
        }
    }

    fn pop(&mut self) -> Option<u32> {
        let index = self.order.pop()?;
        self.inside[index as usize] = false;
        Some(index)
    }
}

const NONE: u32 = u32::MAX;
/// Longest wait of a turn, so that figures and deadlines are looked at.
const WAIT_NS_MAX: u64 = 50_000_000;
/// A UE that is not bound by then never will be.
const BIND_TIMEOUT_NS: u64 = 15_000_000_000;
/// What the node has not read by then of our last bytes is cut off.
const FINISH_TIMEOUT_NS: u64 = 2_000_000_000;
/// How often figures are published and deadlines looked at.
const HOUSEKEEPING_NS: u64 = 100_000_000;
/// Commands of one turn, so that media is served in between.
const COMMANDS_PER_TURN_MAX: usize = 64;
/// Completions handled before output is flushed.
const COMPLETIONS_PER_TURN_MAX: usize = 4096;
/// Messages a UE may have open in the open loop; past it the schedule slips and is reported.
const OPEN_MESSAGES_MAX: u32 = 10_000;
/// Longest latency a histogram tells from longer ones.
const LATENCY_NS_MAX: u64 = 120_000_000_000;

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

impl<D: Driver> Worker<D> {
    /// A worker without connections. `events` is called on the worker's thread.
    pub fn new(
        driver: D,
        config: WorkerConfig,
        commands: mpsc::Receiver<Command>,
        events: impl Fn(Event) + Send + 'static,
    ) -> Self {
        let connections_max = config.connections_max as usize;
        let shared = Shared {
            padding: Padding::new(config.traffic.texts.clone()),
            traffic: config.traffic,
            date_time: config.date_time,
            profile: config.profile,
            rooms: Vec::new(),
            room_index: BTreeMap::new(),
            pool: SendBuffers::new(SendBuffersConfig {
                small_size_bytes: SMALL_BUFFER_BYTES,
                small_count_max: connections_max * 2 + 64,
                large_size_bytes: LARGE_BUFFER_BYTES,
                large_count_max: connections_max * 2 + 1024,
            }),
            scratch: Vec::with_capacity(2 * message::CHUNK_BODY_BYTES),
            heard: Vec::new(),
            dirty: Set::default(),
            ready: Set::default(),
            due: BinaryHeap::new(),
            origin: config.origin,
            violations: Violations::default(),
            delivery_latency: latency_histogram(),
            answer_latency: latency_histogram(),
            slip: latency_histogram(),
            recent: latency_histogram(),
            progress: config.progress,
            events: Box::new(events),
        };
        Self {
            driver,
            connections: Vec::with_capacity(connections_max),
            by_session: vec![NONE; config.sessions as usize],
            shared,
            commands,
            commands_left: false,
            phase: Phase::SettingUp,
            rearm: Vec::new(),
            next_housekeeping_ns: 0,
            drain_deadline_ns: u64::MAX,
            finish_deadline_ns: u64::MAX,
            thread_cpu_at_start: 0,
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
        self.take_commands();
        for index in std::mem::take(&mut self.rearm) {
            self.arm(index);
        }
        for _ in 0..COMPLETIONS_PER_TURN_MAX {
            let Some(completion) = self.driver.next_completion() else {
                break;
            };
            self.completion(completion);
        }
        self.send_what_is_due();
        self.housekeep();
        while let Some(index) = self.shared.dirty.pop() {
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
        let wait = if idle { wait } else { 0 };
        self.driver.wait(Some(self.driver.now_ns() + wait))?;
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
                    let cpu = thread_cpu_ticks().saturating_sub(self.thread_cpu_at_start);
                    self.shared.progress.thread_cpu_ticks.store(cpu, Ordering::Relaxed);
                }
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

    fn connect(&mut self, connect: Connect) {
        let index = self.connections.len() as u32;
        let token = Token::new(Operation::Connect, key(index));
        let socket = match self.driver.connect(connect.address, token) {
            Ok(socket) => socket,
            Err(error) => {
                self.shared.violations.add(Violation::ConnectFailed, || {
                    format!("session {}: {}: {error}", connect.session, connect.address)
                });
                return (self.shared.events)(Event::Failed { session: connect.session });
            }
        };
        let room = self.shared.room(connect.room);
        self.shared.rooms[room as usize].members.push(index);
        self.by_session[connect.session as usize] = index;
        let nonce = nonce();
        let template = Template::new(
            &Author {
                session: connect.session,
                nonce,
                from: &connect.from,
                to: &connect.to,
                local_path: &connect.local_path,
                remote_path: &connect.remote_path,
                date_time: &self.shared.date_time,
            },
            self.shared.traffic.texts.of(connect.session),
        );
        let (security, failure) = match self.shared.security(connect.psk) {
            Ok(security) => (security, None),
            Err(error) => (Security::Plain, Some(Failure::Handshake(error))),
        };
        self.connections.push(Connection::new(Beginning {
            session: connect.session,
            room,
            socket,
            security,
            template,
            local_path: connect.local_path,
            nonce,
            bind_deadline_ns: self.shared.now() + BIND_TIMEOUT_NS,
        }));
        if let Some(failure) = failure {
            self.fail(index, &failure);
        }
    }

    fn start(&mut self) {
        if self.phase != Phase::SettingUp {
            return;
        }
        self.phase = Phase::Talking;
        self.thread_cpu_at_start = thread_cpu_ticks();
        let now = self.shared.now();
        let total = self.connections.len().max(1) as u64;
        for room in &mut self.shared.rooms {
            let connections = &mut self.connections;
            room.members.retain(|index| connections[*index as usize].stage == Stage::Bound);
            for (member, index) in (0..).zip(&room.members) {
                connections[*index as usize].member = member;
            }
            room.ledger = Some(Ledger::new(room.members.len() as u32));
        }
        for index in 0..self.connections.len() as u32 {
            let connection = &mut self.connections[index as usize];
            if connection.stage != Stage::Bound {
                continue;
            }
            match self.shared.traffic.interval_ns {
                None => self.shared.ready.insert(index),
                Some(interval) => {
                    // Spread over the first interval: UEs are not in step.
                    let phase = interval.saturating_mul(u64::from(index)) / total;
                    connection.next_intended_ns = now + phase;
                    self.shared.due.push(Reverse((now + phase, index)));
                }
            }
        }
    }

    fn completion(&mut self, completion: Completion) {
        match completion {
            Completion::Accept { .. } | Completion::Doorbell => {}
            Completion::Connect { token, result } => self.connected(token, result),
            Completion::Recv { token, result, more } => self.received(token, result, more),
            Completion::Send { token, result, buffer } => self.sent(token, result, buffer),
            Completion::Close { token } => {
                self.connections[token.key().index as usize].stage = Stage::Closed;
            }
        }
    }

    fn connected(&mut self, token: Token, result: Result<(), Errno>) {
        let index = token.key().index;
        let connection = &mut self.connections[index as usize];
        match (connection.stage, result) {
            (Stage::Connecting, Ok(())) => {
                let mut with = self.shared.surroundings();
                let outcome = connection.connected(&mut with);
                self.shared.dirty.insert(index);
                self.arm(index);
                if let Err(failure) = outcome {
                    self.fail(index, &failure);
                }
            }
            (Stage::Connecting, Err(errno)) => {
                let session = connection.session;
                let released = connection.released;
                connection.stage = Stage::Binding;
                if !released {
                    self.shared.violations.add(Violation::ConnectFailed, || {
                        format!("session {session}: {}", describe_errno(errno))
                    });
                    (self.shared.events)(Event::Failed { session });
                }
                self.close(index, None);
            }
            (_, _) => self.try_free(index),
        }
    }

    fn received(&mut self, token: Token, result: Result<Option<RecvBuffer>, Errno>, more: bool) {
        let index = token.key().index;
        let connection = &mut self.connections[index as usize];
        connection.recv_armed = more;
        let closing = connection.stage >= Stage::Closing;
        match result {
            Ok(Some(buffer)) => {
                let outcome = if closing {
                    Ok(())
                } else {
                    let bytes = self.driver.recv_bytes(&buffer);
                    connection.receive(bytes, &mut self.shared.surroundings())
                };
                self.driver.recv_release(buffer);
                if closing {
                    return self.try_free(index);
                }
                self.shared.dirty.insert(index);
                self.heard(index);
                match outcome {
                    Ok(()) if !more => self.rearm.push(index),
                    Ok(()) => {}
                    Err(failure) => self.fail(index, &failure),
                }
            }
            _ if closing => self.try_free(index),
            Ok(None) => self.peer_closed(index, "end of stream"),
            Err(Errno(ENOBUFS)) if !more => self.rearm.push(index),
            Err(errno) => self.peer_closed(index, &describe_errno(errno)),
        }
    }

    fn sent(&mut self, token: Token, result: Result<usize, Errno>, buffer: SendBuffer) {
        let index = token.key().index;
        let connection = &mut self.connections[index as usize];
        let count = result.unwrap_or(0);
        connection.egress.completed(buffer, count, &mut self.shared.pool);
        if connection.stage >= Stage::Closing {
            if result.is_err() {
                connection.egress.discard(&mut self.shared.pool);
            }
            self.shared.dirty.insert(index);
            return self.try_free(index);
        }
        match result {
            Ok(_) => {
                self.shared.dirty.insert(index);
                self.shared.ready.insert(index);
            }
            Err(errno) => self.peer_closed(index, &describe_errno(errno)),
        }
    }

    /// Books what the node has just said on a connection.
    fn heard(&mut self, index: u32) {
        if self.shared.heard.is_empty() {
            return;
        }
        let now = self.shared.now();
        let mut heard = std::mem::take(&mut self.shared.heard);
        for said in heard.drain(..) {
            match said {
                Heard::Binding { status } => self.bound(index, status),
                Heard::Answer { transaction, status } => {
                    self.answered(index, transaction, status, now);
                }
                Heard::StrayAnswer => {
                    self.violation(index, Violation::UnexpectedResponse, "unknown transaction");
                }
                Heard::Message(stamp) => self.delivered(index, stamp, now),
                Heard::Corrupted => {
                    self.violation(index, Violation::Corrupted, "not what any UE sent");
                }
                Heard::Aborted => self.violation(index, Violation::Corrupted, "aborted (#)"),
            }
        }
        self.shared.heard = heard;
    }

    fn bound(&mut self, index: u32, status: u16) {
        let connection = &mut self.connections[index as usize];
        if connection.stage != Stage::Binding {
            return self.violation(index, Violation::UnexpectedResponse, "second binding answer");
        }
        if status == 200 {
            connection.stage = Stage::Bound;
            let session = connection.session;
            return (self.shared.events)(Event::Bound { session });
        }
        let text = format!("binding SEND answered {status}");
        self.lose(index, Violation::NotBound, &text, None);
    }

    fn answered(&mut self, index: u32, transaction: message::Transaction, status: u16, now: u64) {
        let connection = &self.connections[index as usize];
        let room = &mut self.shared.rooms[connection.room as usize];
        let Some(ledger) = &mut room.ledger else {
            return self.violation(index, Violation::UnexpectedResponse, "nothing was sent");
        };
        let outcome = ledger.answered(connection.member, transaction.sequence, transaction.chunk);
        match outcome {
            Ok(answered) => {
                let latency = now.saturating_sub(answered.sent_ns);
                self.shared.answer_latency.saturating_record(latency);
                if answered.complete {
                    self.shared.ready.insert(index);
                }
            }
            Err(violation) => self.violation(index, violation, "answered twice or never sent"),
        }
        if status != 200 {
            let text = format!("message {} answered {status}", transaction.sequence);
            self.violation(index, Violation::SendRefused, &text);
        }
        self.shared.progress.answers.fetch_add(1, Ordering::Relaxed);
    }

    fn delivered(&mut self, index: u32, stamp: Stamp, now: u64) {
        let recipient = &self.connections[index as usize];
        let sender_index = self.by_session.get(stamp.session as usize).copied();
        let sender = sender_index
            .and_then(|sender| self.connections.get(sender as usize))
            .filter(|sender| sender.room == recipient.room);
        let ledger = self.shared.rooms[recipient.room as usize].ledger.as_mut();
        let (Some(sender), Some(ledger)) = (sender, ledger) else {
            return self.violation(index, Violation::Foreign, "sender is not in the room");
        };
        if !ledger.is_present(sender.member) {
            return;
        }
        match ledger.delivered(sender.member, recipient.member, stamp.sequence) {
            Ok(delivered) => {
                let latency = now.saturating_sub(delivered.intended_ns);
                self.shared.delivery_latency.saturating_record(latency);
                self.shared.recent.saturating_record(latency);
                if delivered.complete {
                    self.shared.ready.insert(sender_index.unwrap_or(index));
                }
                if delivered.intended_ns != stamp.intended_ns {
                    self.violation(index, Violation::Corrupted, "its stamp changed");
                }
            }
            Err(violation) => {
                let text = format!("message {} of session {}", stamp.sequence, stamp.session);
                self.violation(index, violation, &text);
            }
        }
        self.shared.progress.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends what the clock and the windows allow.
    fn send_what_is_due(&mut self) {
        let now = self.shared.now();
        while let Some(Reverse((due, index))) = self.shared.due.peek().copied() {
            if due > now {
                break;
            }
            self.shared.due.pop();
            self.shared.slip.saturating_record(now - due);
            self.shared.ready.insert(index);
        }
        while let Some(index) = self.shared.ready.pop() {
            if let Err(failure) = self.pump(index, now) {
                self.fail(index, &failure);
            }
        }
    }

    /// Lets one UE send; what it may not send yet brings it back through `ready` or `due`.
    fn pump(&mut self, index: u32, now: u64) -> Result<(), Failure> {
        let connection = &mut self.connections[index as usize];
        if connection.stage != Stage::Bound {
            return Ok(());
        }
        let room = connection.room as usize;
        while connection.egress.has_room() {
            if let Some(sending) = connection.sending {
                connection.send_chunk(sending, &mut self.shared.surroundings())?;
                self.shared.dirty.insert(index);
                continue;
            }
            let Some(ledger) = &mut self.shared.rooms[room].ledger else {
                break;
            };
            if self.phase != Phase::Talking {
                break;
            }
            let intended_ns = match self.shared.traffic.interval_ns {
                None if ledger.open(connection.member) >= self.shared.traffic.window => break,
                None => now,
                Some(_) if connection.next_intended_ns > now => break,
                Some(_) if ledger.open(connection.member) >= OPEN_MESSAGES_MAX => break,
                Some(interval) => {
                    let intended_ns = connection.next_intended_ns;
                    connection.next_intended_ns += interval;
                    let next = Reverse((connection.next_intended_ns, index));
                    if connection.next_intended_ns > now {
                        self.shared.due.push(next);
                    }
                    intended_ns
                }
            };
            let chunks = connection.template.chunks();
            let sequence = ledger.sent(connection.member, intended_ns, now, chunks);
            connection.sending = Some(Sending { sequence, chunk: 0, intended_ns });
            self.shared.progress.messages.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn flush(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if connection.stage == Stage::Closed {
            return;
        }
        let socket = connection.socket;
        let (session, egress) = connection.session_and_egress();
        match egress.take_next(session) {
            Ok(Some(buffer)) => {
                let token = Token::new(Operation::Send, key(index));
                self.driver.send(socket, buffer, token);
            }
            Ok(None) => self.try_free(index),
            Err(error) => self.fail(index, &Failure::Egress(error)),
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

    fn peer_closed(&mut self, index: u32, how: &str) {
        if self.connections[index as usize].released {
            return self.close(index, None);
        }
        self.lose(index, Violation::UnexpectedClose, how, None);
    }

    /// The session is lost through the node's (or the generator's) fault.
    fn fail(&mut self, index: u32, failure: &Failure) {
        let (violation, text) = match failure {
            Failure::CloseNotify => return self.peer_closed(index, "close_notify"),
            Failure::Handshake(error) => (Violation::TlsHandshakeFailed, format!("{error:?}")),
            Failure::Record(tls::RecordError::AlertReceived(alert)) => {
                (Violation::UnexpectedClose, format!("TLS alert {alert}"))
            }
            Failure::Record(error) => (Violation::Malformed, format!("TLS record: {error:?}")),
            Failure::Malformed(reason) => (Violation::Malformed, format!("MSRP: {reason}")),
            Failure::Egress(error) => (Violation::GeneratorExhausted, format!("{error:?}")),
        };
        self.lose(index, violation, &text, Some(failure));
    }

    fn lose(&mut self, index: u32, violation: Violation, text: &str, failure: Option<&Failure>) {
        let connection = &self.connections[index as usize];
        if connection.stage >= Stage::Closing {
            return;
        }
        let session = connection.session;
        self.violation(index, violation, text);
        (self.shared.events)(Event::Failed { session });
        self.close(index, failure);
    }

    fn close(&mut self, index: u32, failure: Option<&Failure>) {
        let connection = &mut self.connections[index as usize];
        if connection.stage >= Stage::Closing {
            return;
        }
        let connecting = connection.stage == Stage::Connecting;
        let was_member = connection.stage == Stage::Bound;
        connection.sending = None;
        connection.end_session(failure, &mut self.shared.surroundings());
        connection.stage = Stage::Closing;
        if connecting {
            self.driver.cancel(Token::new(Operation::Connect, key(index)));
        } else {
            self.flush(index);
            let connection = &mut self.connections[index as usize];
            if connection.recv_armed && connection.egress.is_empty() {
                self.driver.shutdown(connection.socket);
            }
        }
        let connection = &self.connections[index as usize];
        let room = &mut self.shared.rooms[connection.room as usize];
        if let (true, Some(ledger)) = (was_member, &mut room.ledger) {
            ledger.left(connection.member);
            for other in &room.members {
                self.shared.ready.insert(*other);
            }
        }
        if !connecting {
            self.try_free(index);
        }
    }

    /// Frees the descriptor of a closing connection once nothing of it is with the kernel.
    fn try_free(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if connection.stage != Stage::Closing || connection.egress.in_flight() {
            return;
        }
        if !connection.egress.is_empty() {
            return self.shared.dirty.insert(index);
        }
        if connection.recv_armed {
            return self.driver.shutdown(connection.socket);
        }
        // `Closed` already: no operation may follow. The completion finds it so.
        connection.stage = Stage::Closed;
        let token = Token::new(Operation::Close, key(index));
        self.driver.close(connection.socket, token);
    }

    fn arm(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if connection.stage < Stage::Closing && !connection.recv_armed {
            connection.recv_armed = true;
            let token = Token::new(Operation::Recv, key(index));
            self.driver.recv(connection.socket, token);
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
        WorkerReport {
            violations: std::mem::take(&mut self.shared.violations),
            delivery_latency: std::mem::replace(
                &mut self.shared.delivery_latency,
                latency_histogram(),
            ),
            answer_latency: std::mem::replace(&mut self.shared.answer_latency, latency_histogram()),
            slip: std::mem::replace(&mut self.shared.slip, latency_histogram()),
        }
    }
}

impl Room {
    fn is_settled(&self) -> bool {
        self.ledger.as_ref().is_none_or(Ledger::is_settled)
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn is_idle(&self) -> bool {
        self.dirty.order.is_empty() && self.ready.order.is_empty()
    }

    fn surroundings(&mut self) -> Surroundings<'_> {
        Surroundings {
            pool: &mut self.pool,
            scratch: &mut self.scratch,
            padding: &self.padding,
            heard: &mut self.heard,
        }
    }

    fn room(&mut self, number: u32) -> u32 {
        let rooms = &mut self.rooms;
        *self.room_index.entry(number).or_insert_with(|| {
            rooms.push(Room { number, members: Vec::new(), ledger: None });
            rooms.len() as u32 - 1
        })
    }

    fn security(&self, psk: Option<(Vec<u8>, Psk)>) -> Result<Security, tls::HandshakeError> {
        match (psk, &self.profile) {
            (Some((identity, psk)), Some(profile)) => {
                let handshake = Handshake::client(profile, &identity, &psk)?;
                Ok(Security::Handshaking(Box::new(handshake)))
            }
            (None, _) => Ok(Security::Plain),
            (Some(_), None) => Err(tls::HandshakeError::NoCommonParameters),
        }
    }

    fn book_debts(&mut self) {
        for room in &self.rooms {
            let Some(ledger) = &room.ledger else { continue };
            let debts = ledger.debts();
            let number = room.number;
            self.violations.add_many(Violation::Lost, debts.lost, || {
                format!("room {number}: {} deliveries never came", debts.lost)
            });
            self.violations.add_many(Violation::SendUnanswered, debts.unanswered, || {
                format!("room {number}: {} SENDs were never answered", debts.unanswered)
            });
        }
    }

    fn publish(&mut self) {
        let progress = &self.progress;
        progress.violations.store(self.violations.total(), Ordering::Relaxed);
        let now = self.now();
        if !self.recent.is_empty()
            && now > progress.recent_at_ns.load(Ordering::Relaxed) + 1_000_000_000
        {
            let p50 = self.recent.value_at_quantile(0.50);
            let p99 = self.recent.value_at_quantile(0.99);
            progress.recent_p50_ns.store(p50, Ordering::Relaxed);
            progress.recent_p99_ns.store(p99, Ordering::Relaxed);
            progress.recent_at_ns.store(now, Ordering::Relaxed);
            self.recent.reset();
        }
    }
}

/// What a chat UE has to send in a moment: a few answers and messages.
const SMALL_BUFFER_BYTES: usize = 4 * 1024;
/// One full TLS record with what surrounds it.
const LARGE_BUFFER_BYTES: usize =
    tls::SEAL_HEADROOM_BYTES + tls::PLAINTEXT_BYTES_MAX + tls::SEAL_TAILROOM_BYTES;

/// The kernel's word for "no receive buffer was free".
const ENOBUFS: i32 = 105;

/// Connections are never replaced: every session has one, for the whole run.
fn key(index: u32) -> Key {
    Key { index, generation: 1 }
}

fn describe_errno(errno: Errno) -> String {
    std::io::Error::from_raw_os_error(errno.0).to_string()
}

fn nonce() -> u32 {
    // An identifier that can be guessed would do no harm here; the clock serves where the system
    // has no randomness.
    getrandom::u32().unwrap_or_else(|_| {
        let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        elapsed.map_or(0, |elapsed| elapsed.subsec_nanos())
    })
}

/// A histogram of nanoseconds, up to two minutes, to three digits.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are in order")
}

/// Processor time of this thread in clock ticks; 0 where the system does not tell.
fn thread_cpu_ticks() -> u64 {
    super::cpu_ticks("/proc/thread-self/stat").unwrap_or(0)
}
