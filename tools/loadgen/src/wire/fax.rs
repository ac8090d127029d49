//! Fax at its real pace (T.38 over UDPTL), through whoever takes DTLS off it: an end over DTLS on the access
//! side, one without on the core side. Of each pair one sends the image, a packet at a time when it is due; the
//! other says once a second that it is there. What stands in place of the image is numbered, so that every
//! packet is known by its content: lost ones, doubled ones, ones out of order, changed ones.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Instant;

use mrfp_io::{
    Completion, Driver as _, Errno, Key, Operation, RecvBuffer, Ring, RingConfig, SendBuffer,
    SendBufferClass, SendBuffers, SendBuffersConfig, Socket, Token,
};
use mrfp_protocol::tls::Fingerprint;
use mrfp_protocol::tls::dtls::{
    self, Handshake, Progress as Handshaking, Record, SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES,
    Session,
};
use mrfp_protocol::udptl::{Packet, Recovery, Redundancy, Sender};

use super::lobby::Arrival;
use super::plan::{Protection, is_access};
use super::worker::WorkerFigures;
use super::{Control, Phase, Plan, Progress, Work};
use crate::accounting::thread_cpu_ns;
use crate::expectation::Violation;

/// What has become of the packets.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) reordered: u64,
    pub(super) duplicated: u64,
}

/// A thread with its ends.
pub(super) struct Fax {
    driver: Ring,
    plan: Arc<Plan>,
    control: Arc<Control>,
    progress: Arc<Progress>,
    /// Number of the first link in the whole run.
    first: u32,
    origin: Instant,
    links: Vec<Link>,
    arrivals: mpsc::Receiver<Arrival>,
    /// May begin: where to, and by what the peer is known.
    waiting: VecDeque<(u32, SocketAddr, Option<Fingerprint>)>,
    /// Handshakes under way.
    securing: u32,
    /// When image packets are due, and when the others' signs of life; in order.
    due: [VecDeque<(u64, u32)>; 2],
    pool: SendBuffers,
    scratch: Vec<u8>,
    figures: WorkerFigures,
    counts: Counts,
    rearm: Vec<u32>,
    phase: Phase,
    next_housekeeping_ns: u64,
    drain_deadline_ns: u64,
    cpu_begun: (u64, u64),
}

struct Link {
    socket: Socket,
    stage: Stage,
    handshake: Option<Box<Handshake>>,
    session: Option<Box<Session>>,
    /// Datagrams of handshakes that wait.
    output: VecDeque<Vec<u8>>,
    sending: bool,
    deadline_ns: u64,
    begun_ns: u64,
    sender: Sender,
    /// Number of the last packet that has left, and of the last that may.
    sent: u32,
    allowed: u32,
    /// When packet 1 is due.
    start_ns: u64,
    heard: Heard,
}

/// What has come from the partner.
#[derive(Default)]
struct Heard {
    received: u32,
    highest: u32,
    /// Whether the one so many before the highest has come.
    window: u128,
    /// How late the last one was.
    last_delay_ns: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Waiting,
    Securing,
    Ready,
    Lost,
}

/// What a packet was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    InOrder,
    Late,
    Again,
}

/// Ends that send no image say that they are there so often.
const IDLE_INTERVAL_NS: u64 = 1_000_000_000;
const IDLE_BYTES: usize = 12;
/// Number of link and packet.
pub(super) const STAMP_BYTES: usize = 8;
const SECURING_MAX: u32 = 64;
const BEGIN_TIMEOUT_NS: u64 = 15_000_000_000;
const HOUSEKEEPING_NS: u64 = 100_000_000;
const WAIT_NS_MAX: u64 = 2_000_000;
const COMPLETIONS_PER_TURN_MAX: usize = 4096;
/// What fits into no datagram is none of ours.
const DATAGRAM_BYTES_MAX: usize = 1500;

impl Fax {
    pub(super) fn ring(links: usize) -> RingConfig {
        RingConfig {
            sockets_expected: links,
            recv_buffer_size_bytes: 2048,
            recv_buffer_count: 8192,
            ..RingConfig::default()
        }
    }

    /// Binds a socket for each end, and tells where they are.
    pub(super) fn new(
        mut driver: Ring,
        plan: Arc<Plan>,
        control: Arc<Control>,
        progress: Arc<Progress>,
        (links, origin): (Range<u32>, Instant),
        arrivals: mpsc::Receiver<Arrival>,
    ) -> std::io::Result<Self> {
        let Work::Fax(fax) = &plan.work else { unreachable!("another work has another worker") };
        let redundancy = Redundancy::Copies(fax.redundancy);
        let mut ends = Vec::with_capacity(links.len());
        for number in links.clone() {
            let ip: IpAddr = if is_access(number) { fax.access } else { fax.core };
            let (socket, address) = driver.bind_datagram((ip, 0).into())?;
            control.bound.lock().unwrap_or_else(PoisonError::into_inner).insert(number, address);
            ends.push(Link {
                socket,
                stage: Stage::Waiting,
                handshake: None,
                session: None,
                output: VecDeque::new(),
                sending: false,
                deadline_ns: u64::MAX,
                begun_ns: 0,
                sender: Sender::new(redundancy, 0),
                sent: 0,
                allowed: 0,
                start_ns: 0,
                heard: Heard::default(),
            });
        }
        let mut waiting = VecDeque::new();
        if !fax.called {
            for number in links.clone() {
                let index = number - links.start;
                let known_by = plan.point(number).and_then(|point| point.fingerprint.clone());
                waiting.push_back((
                    index,
                    plan.target(number),
                    known_by.filter(|_| is_access(number)),
                ));
            }
        }
        let pool = SendBuffers::new(SendBuffersConfig {
            small_size_bytes: SEAL_HEADROOM_BYTES + DATAGRAM_BYTES_MAX + SEAL_TAILROOM_BYTES,
            small_count_max: links.len(),
            large_size_bytes: 1,
            large_count_max: 0,
        });
        Ok(Self {
            driver,
            plan,
            control,
            progress,
            first: links.start,
            origin,
            links: ends,
            arrivals,
            waiting,
            securing: 0,
            due: Default::default(),
            pool,
            scratch: Vec::with_capacity(DATAGRAM_BYTES_MAX),
            figures: WorkerFigures::new(),
            counts: Counts::default(),
            rearm: Vec::new(),
            phase: Phase::SettingUp,
            next_housekeeping_ns: 0,
            drain_deadline_ns: u64::MAX,
            cpu_begun: (0, 0),
        })
    }

    /// Works until the run is over.
    pub(super) fn run(mut self) -> std::io::Result<WorkerFigures> {
        while self.phase != Phase::Ending {
            self.follow_phase();
            self.begin_links();
            for index in std::mem::take(&mut self.rearm) {
                let socket = self.links[index as usize].socket;
                self.driver.recv(socket, token(Operation::Recv, index));
            }
            for _ in 0..COMPLETIONS_PER_TURN_MAX {
                let Some(completion) = self.driver.next_completion() else { break };
                self.completion(completion);
            }
            self.take_due();
            self.housekeep();
            self.publish();
            let now = self.now();
            let due = self.due.iter().filter_map(|due| Some(due.front()?.0)).min();
            let wait = due.unwrap_or(u64::MAX).saturating_sub(now).min(WAIT_NS_MAX);
            let wait = if self.rearm.is_empty() { wait } else { 0 };
            self.driver.wait(Some(self.driver.now_ns() + wait))?;
        }
        self.say_goodbye()?;
        self.close_books();
        Ok(self.figures)
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn follow_phase(&mut self) {
        let wanted = self.control.phase();
        while self.phase < wanted {
            self.phase = self.phase.next();
            match self.phase {
                Phase::Talking => self.begin_talk(),
                Phase::Measuring => {
                    self.cpu_begun = (thread_cpu_ns(), self.now());
                    self.figures.begin_measuring();
                }
                Phase::Measured => {
                    let (cpu, begun) = self.cpu_begun;
                    self.figures.cpu_ns = thread_cpu_ns().saturating_sub(cpu);
                    self.figures.measured_ns = self.now() - begun;
                }
                Phase::Draining => {
                    self.due.iter_mut().for_each(VecDeque::clear);
                    let timeout = self.plan.drain_timeout.as_nanos() as u64;
                    self.drain_deadline_ns = self.now() + timeout;
                }
                Phase::SettingUp | Phase::Speaking | Phase::Leaving | Phase::Ending => {}
            }
        }
    }

    /// Lets begin whom a call has brought, or everybody.
    fn begin_links(&mut self) {
        while let Ok(Arrival { link, invitation }) = self.arrivals.try_recv() {
            let index = link - self.first;
            match invitation {
                Some(said) => self.waiting.push_back((index, said.address, said.fingerprint)),
                None => {
                    self.links[index as usize].stage = Stage::Lost;
                    self.progress.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        while self.securing < SECURING_MAX {
            let Some((index, address, known_by)) = self.waiting.pop_front() else { break };
            self.begin(index, address, known_by);
        }
    }

    fn begin(&mut self, index: u32, address: SocketAddr, known_by: Option<Fingerprint>) {
        let now = self.now();
        let link = &mut self.links[index as usize];
        if let Err(error) = self.driver.connect_datagram(link.socket, address) {
            return self.lose(index, Violation::ConnectFailed, &error.to_string());
        }
        self.driver.recv(link.socket, token(Operation::Recv, index));
        (link.begun_ns, link.deadline_ns) = (now, now + BEGIN_TIMEOUT_NS);
        let Some(known_by) = known_by else { return self.ready(index) };
        let Protection::Datagrams { profile, credentials } = &self.plan.protection else {
            return self.lose(index, Violation::TlsHandshakeFailed, "there is no certificate");
        };
        let own = &credentials[((self.first + index) / 2) as usize % credentials.len()];
        match Handshake::client(profile, own, std::slice::from_ref(&known_by)) {
            Ok(handshake) => {
                link.handshake = Some(Box::new(handshake));
                link.stage = Stage::Securing;
                self.securing += 1;
                self.shake_hands(index, None);
            }
            Err(error) => self.lose(index, Violation::TlsHandshakeFailed, &error.to_string()),
        }
    }

    /// A datagram has come, or time has passed.
    fn shake_hands(&mut self, index: u32, datagram: Option<&[u8]>) {
        let link = &mut self.links[index as usize];
        let Some(handshake) = &mut link.handshake else { return };
        let mut output = Vec::new();
        let outcome = match datagram {
            Some(datagram) => handshake.advance(datagram, &mut output),
            None => handshake.pass_time(&mut output),
        };
        link.output.extend(output);
        match outcome {
            Ok(Handshaking::UnderWay) => {}
            Ok(Handshaking::Done(session)) => {
                self.securing -= 1;
                let latency = self.origin.elapsed().as_nanos() as u64 - link.begun_ns;
                self.figures.handshake.saturating_record(latency);
                self.figures.suite = Some(session.suite());
                link.handshake = None;
                link.session = Some(session);
                self.progress.handshakes.fetch_add(1, Ordering::Relaxed);
                return self.ready(index);
            }
            Err(error) => {
                return self.lose(index, Violation::TlsHandshakeFailed, &error.to_string());
            }
        }
        self.pump(index);
    }

    /// The end can send. Its first packet, number 0, only says so: where a gateway learns from it who is there,
    /// the other side may not be.
    fn ready(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        link.stage = Stage::Ready;
        link.deadline_ns = u64::MAX;
        self.progress.up.fetch_add(1, Ordering::Relaxed);
        self.write(index, 0);
        let datagram = std::mem::take(&mut self.scratch);
        if let Some(record) = self.sealed(index, &datagram) {
            self.links[index as usize].output.push_back(record);
        }
        self.scratch = datagram;
        self.pump(index);
    }

    fn begin_talk(&mut self) {
        let now = self.now();
        let count = self.links.len() as u64;
        for index in 0..self.links.len() as u32 {
            let both = [index, index ^ 1].map(|index| self.links[index as usize].stage);
            if both != [Stage::Ready; 2] {
                continue;
            }
            let (queue, interval) = match self.sends_image(index) {
                true => (0, self.image_interval_ns()),
                false => (1, IDLE_INTERVAL_NS),
            };
            // Nobody is in step with anybody.
            let start = now + interval * u64::from(index) / count;
            self.links[index as usize].start_ns = start;
            self.due[queue].push_back((start, index));
        }
    }

    /// Of every second pair the UE, of the others its peer.
    fn sends_image(&self, index: u32) -> bool {
        let number = self.first + index;
        is_access(number) == (number / 2).is_multiple_of(2)
    }

    fn image_interval_ns(&self) -> u64 {
        self.plan.traffic.interval_ns.unwrap_or(IDLE_INTERVAL_NS)
    }

    fn interval_ns(&self, index: u32) -> u64 {
        if self.sends_image(index) { self.image_interval_ns() } else { IDLE_INTERVAL_NS }
    }

    fn take_due(&mut self) {
        if !self.phase.has_traffic() {
            return;
        }
        let now = self.now();
        for queue in 0..self.due.len() {
            while let Some((due, index)) =
                self.due[queue].front().copied().filter(|(due, _)| *due <= now)
            {
                self.due[queue].pop_front();
                self.due[queue].push_back((due + self.interval_ns(index), index));
                self.links[index as usize].allowed += 1;
                self.pump(index);
            }
        }
    }

    /// Sends what is next, if nothing is with the kernel.
    fn pump(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        if link.sending || link.stage == Stage::Lost {
            return;
        }
        if let Some(datagram) = link.output.pop_front() {
            return self.send(index, &datagram);
        }
        if link.sent == link.allowed || link.stage != Stage::Ready {
            return;
        }
        link.sent += 1;
        let number = link.sent;
        let due = link.start_ns + u64::from(number - 1) * self.interval_ns(index);
        self.write(index, number);
        let datagram = std::mem::take(&mut self.scratch);
        if self.links[index as usize].session.is_some() {
            self.send_sealed(index, &datagram);
        } else {
            self.send(index, &datagram);
        }
        self.scratch = datagram;
        self.counts.sent += 1;
        if self.phase == Phase::Measuring {
            let late = self.now().saturating_sub(due);
            self.figures.slip.saturating_record(late.max(1));
        }
    }

    /// Packet `number` of an end, into the scratch.
    fn write(&mut self, index: u32, number: u32) {
        let bytes = if self.sends_image(index) && number > 0 {
            self.plan.traffic.body_bytes
        } else {
            IDLE_BYTES
        };
        let primary = primary(self.first + index, number, bytes);
        self.scratch.clear();
        self.links[index as usize].sender.write(&primary, &mut self.scratch);
    }

    fn sealed(&mut self, index: u32, plain: &[u8]) -> Option<Vec<u8>> {
        let Some(session) = &mut self.links[index as usize].session else {
            return Some(plain.to_vec());
        };
        let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + plain.len();
        let mut memory = vec![0; range.end + SEAL_TAILROOM_BYTES];
        memory[range.clone()].copy_from_slice(plain);
        let record = session.seal(&mut memory, range).ok()?;
        Some(memory[record].to_vec())
    }

    fn send_sealed(&mut self, index: u32, plain: &[u8]) {
        let Some(mut buffer) = self.pool.take(SendBufferClass::Small, 0) else { return };
        let link = &mut self.links[index as usize];
        let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + plain.len();
        buffer.memory_mut()[range.clone()].copy_from_slice(plain);
        let session = link.session.as_mut().expect("there is one where this is called");
        match session.seal(buffer.memory_mut(), range) {
            Ok(record) => {
                buffer.set_range(record);
                link.sending = true;
                self.driver.send(link.socket, buffer, token(Operation::Send, index));
            }
            Err(dtls::KeysExhausted) => self.pool.put(buffer),
        }
    }

    fn send(&mut self, index: u32, datagram: &[u8]) {
        let Some(mut buffer) = self.pool.take(SendBufferClass::Small, 0) else { return };
        let link = &mut self.links[index as usize];
        buffer.memory_mut()[..datagram.len()].copy_from_slice(datagram);
        buffer.set_range(0..datagram.len());
        link.sending = true;
        self.driver.send(link.socket, buffer, token(Operation::Send, index));
    }

    fn completion(&mut self, completion: Completion) {
        match completion {
            Completion::Recv { token, result, more } => {
                self.received(token.key().index, result, more);
            }
            Completion::Send { token, buffer, .. } => self.sent(token.key().index, buffer),
            Completion::Connect { .. }
            | Completion::Accept { .. }
            | Completion::Readable { .. }
            | Completion::Close { .. }
            | Completion::Doorbell => {}
        }
    }

    fn sent(&mut self, index: u32, buffer: SendBuffer) {
        self.pool.put(buffer);
        self.links[index as usize].sending = false;
        self.pump(index);
    }

    fn received(&mut self, index: u32, result: Result<Option<RecvBuffer>, Errno>, more: bool) {
        if !more {
            self.rearm.push(index);
        }
        let Ok(Some(buffer)) = result else { return };
        let mut datagram = std::mem::take(&mut self.scratch);
        datagram.clear();
        datagram.extend_from_slice(self.driver.recv_bytes(&buffer));
        self.driver.recv_release(buffer);
        match self.links[index as usize].stage {
            Stage::Securing => self.shake_hands(index, Some(&datagram)),
            Stage::Ready if self.links[index as usize].session.is_some() => {
                self.open(index, &mut datagram);
            }
            Stage::Ready => self.hear(index, &datagram),
            Stage::Waiting | Stage::Lost => {}
        }
        self.scratch = datagram;
    }

    fn open(&mut self, index: u32, datagram: &mut [u8]) {
        let mut at = 0;
        loop {
            let link = &mut self.links[index as usize];
            let Some(session) = &mut link.session else { return };
            let Some((record, consumed)) = session.open(&mut datagram[at..]) else { return };
            match record {
                Record::Data(range) => {
                    let range = at + range.start..at + range.end;
                    self.hear(index, &datagram[range]);
                }
                Record::Repeated => {
                    link.output.extend(session.last_flight().iter().cloned());
                    self.pump(index);
                }
                Record::Nothing => {}
                Record::CloseNotify | Record::FatalAlert(_) => {
                    if self.phase < Phase::Leaving {
                        self.lose(index, Violation::UnexpectedClose, &format!("{record:?}"));
                    }
                    return;
                }
            }
            at += consumed;
        }
    }

    /// A datagram of the partner's.
    fn hear(&mut self, index: u32, datagram: &[u8]) {
        let (now, partner) = (self.now(), index ^ 1);
        let author = self.first + partner;
        let bytes = |number: u32| match self.sends_image(partner) && number > 0 {
            true => self.plan.traffic.body_bytes,
            false => IDLE_BYTES,
        };
        let Some(number) = number_of(datagram, author, bytes) else {
            return self.violation(index, Violation::Corrupted, "not what the partner sent");
        };
        if number == 0 {
            return;
        }
        let link = &mut self.links[index as usize];
        match link.heard.take(number) {
            Came::InOrder => {}
            Came::Late => self.counts.reordered += 1,
            Came::Again => {
                self.counts.duplicated += 1;
                return self.violation(index, Violation::Duplicated, &format!("packet {number}"));
            }
        }
        self.counts.received += 1;
        let start = self.links[partner as usize].start_ns;
        let due = start + u64::from(number - 1) * self.interval_ns(partner);
        let delay = now.saturating_sub(due);
        let last = self.links[index as usize].heard.last_delay_ns.replace(delay);
        if self.phase == Phase::Measuring {
            self.figures.delivery.saturating_record(delay.max(1));
            if let Some(last) = last {
                self.figures.jitter.saturating_record(delay.abs_diff(last).max(1));
            }
        }
    }

    fn housekeep(&mut self) {
        let now = self.now();
        if now < self.next_housekeeping_ns {
            return;
        }
        self.next_housekeeping_ns = now + HOUSEKEEPING_NS;
        for index in 0..self.links.len() as u32 {
            let link = &self.links[index as usize];
            if link.stage == Stage::Securing && now >= link.deadline_ns {
                self.lose(index, Violation::NotBound, "the handshake did not end in time");
            } else if link.stage == Stage::Securing {
                self.shake_hands(index, None);
            }
        }
        let is_drained = now >= self.drain_deadline_ns || self.counts.sent == self.counts.received;
        if self.phase == Phase::Draining && is_drained {
            self.progress.drained.store(true, Ordering::Release);
        }
    }

    fn publish(&self) {
        self.progress.messages.store(self.counts.sent, Ordering::Relaxed);
        self.progress.deliveries.store(self.counts.received, Ordering::Relaxed);
        self.progress.speaking.store(self.phase >= Phase::Speaking, Ordering::Release);
    }

    fn lose(&mut self, index: u32, violation: Violation, text: &str) {
        let link = &mut self.links[index as usize];
        let stage = std::mem::replace(&mut link.stage, Stage::Lost);
        if stage == Stage::Securing {
            self.securing -= 1;
        }
        if stage < Stage::Ready {
            self.progress.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.violation(index, violation, text);
    }

    fn violation(&mut self, index: u32, violation: Violation, text: &str) {
        let number = self.first + index;
        self.figures.violations.add(violation, || format!("link {number}: {text}"));
    }

    /// Closes the associations.
    fn say_goodbye(&mut self) -> std::io::Result<()> {
        for index in 0..self.links.len() as u32 {
            let link = &mut self.links[index as usize];
            if let Some(session) = link.session.as_mut().filter(|_| !link.sending) {
                let goodbye = session.close_notify();
                self.send(index, &goodbye);
            }
        }
        self.driver.wait(Some(self.driver.now_ns()))
    }

    /// What is still owed will not come.
    fn close_books(&mut self) {
        for index in 0..self.links.len() {
            let sent = self.links[index].sent;
            let lost = u64::from(sent.saturating_sub(self.links[index ^ 1].heard.received));
            let number = self.first + index as u32;
            self.figures.violations.add_many(Violation::Lost, lost, || {
                format!("link {number}: {lost} of {sent} packets never came")
            });
        }
        self.figures.fax = Some(self.counts);
    }
}

impl Heard {
    fn take(&mut self, number: u32) -> Came {
        if number > self.highest {
            let step = number - self.highest;
            self.window = self.window.checked_shl(step).unwrap_or(0) | 1;
            self.highest = number;
            self.received += 1;
            return Came::InOrder;
        }
        let bit = 1_u128.checked_shl(self.highest - number).unwrap_or(0);
        // One that is older than the window has been waited for longer than any fax does.
        if self.window & bit != 0 || bit == 0 {
            return Came::Again;
        }
        self.window |= bit;
        self.received += 1;
        Came::Late
    }
}

/// What stands in place of the image.
fn primary(link: u32, number: u32, bytes: usize) -> Vec<u8> {
    let mut primary = Vec::with_capacity(bytes);
    primary.extend_from_slice(&link.to_be_bytes());
    primary.extend_from_slice(&number.to_be_bytes());
    primary.extend((0..bytes.saturating_sub(STAMP_BYTES)).map(|at| (number as usize + at) as u8));
    primary
}

/// Whether that is what [`primary`] makes, which it need not make for that.
fn is_primary(found: &[u8], link: u32, number: u32, bytes: usize) -> bool {
    let Some((stamp, rest)) = found.split_first_chunk::<STAMP_BYTES>() else { return false };
    let expected = u64::from(link) << 32 | u64::from(number);
    found.len() == bytes
        && *stamp == expected.to_be_bytes()
        && (0..).zip(rest).all(|(at, byte)| *byte == (number as usize + at) as u8)
}

/// Number of a packet that is one of this link's, unchanged, with copies of those before it.
fn number_of(datagram: &[u8], link: u32, bytes: impl Fn(u32) -> usize) -> Option<u32> {
    let packet = Packet::parse(datagram).ok()?;
    let number = u32::from_be_bytes(packet.primary.get(4..STAMP_BYTES)?.try_into().ok()?);
    let is_own = |number: u32, found: &[u8]| is_primary(found, link, number, bytes(number));
    if packet.sequence != number as u16 || !is_own(number, packet.primary) {
        return None;
    }
    let Recovery::Redundancy(copies) = packet.recovery else { return None };
    let is_copy =
        |(back, copy): (u32, &[u8])| number.checked_sub(back).is_some_and(|it| is_own(it, copy));
    (1..).zip(copies).all(is_copy).then_some(number)
}

fn token(operation: Operation, index: u32) -> Token {
    Token::new(operation, Key { index, generation: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_is_known_by_its_content_also_when_its_number_begins_anew() {
        let bytes = |number: u32| if number == 0 { IDLE_BYTES } else { 168 };
        let mut sender = Sender::new(Redundancy::Copies(2), 0);
        for number in 0..70_000 {
            let mut datagram = Vec::new();
            sender.write(&primary(7, number, bytes(number)), &mut datagram);
            if number % 1_000 > 3 && number < 65_530 {
                continue;
            }
            assert_eq!(number_of(&datagram, 7, bytes), Some(number));
            assert_eq!(number_of(&datagram, 8, bytes), None);
            for at in [1, 5, datagram.len() / 2, datagram.len() - 1] {
                datagram[at] ^= 1;
                assert_eq!(number_of(&datagram, 7, bytes), None, "{number} {at}");
                datagram[at] ^= 1;
            }
        }
    }

    #[test]
    fn what_is_lost_late_or_doubled_is_told_apart() {
        let mut heard = Heard::default();
        let came: Vec<Came> = [1, 2, 4, 3, 3, 4, 200, 5].map(|number| heard.take(number)).into();
        use Came::{Again, InOrder, Late};
        assert_eq!(came, [InOrder, InOrder, InOrder, Late, Again, Again, InOrder, Again]);
        assert_eq!(heard.received, 5);
    }
}
