//! A shard that has warmed up relays messages without a single heap allocation, and an idle
//! session owns no buffer. On the real ring, over loopback; the counter counts the shard's thread
//! only.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mrfp_core::metrics::PublishedMetrics;
use mrfp_core::mp::{
    self, Command, ContextId, Direction, Event, RealmId, ReserveAndConfigure, Security, Setup,
    Switching, TerminationId,
};
use mrfp_core::{Limits, Psk, Shard, ShardParts};
use mrfp_io::{Consumer, Producer, Ring, RingConfig, doorbell, queue};
use mrfp_protocol::msrp::{Continuation, Framer, Start, write_response};
use mrfp_protocol::tls::{
    Handshake, Opened, Profile, ProfileConfig, Progress, SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES,
    Session,
};
use socket2::{Domain, Socket, Type};

const MEMBERS: u64 = 3;
/// Messages of one member in one round; they leave it in one write.
const BURST: usize = 50;
const MESSAGES_RELAYED: usize = 100_000;
/// A round relays every member's burst to every other member.
const ROUNDS: usize = MESSAGES_RELAYED.div_ceil(BURST * (MEMBERS * (MEMBERS - 1)) as usize);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protect {
    Nothing,
    TlsPsk,
}

/// What the members have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Talk {
    /// Everything passes as it comes.
    Transparent,
    /// A chat room in which the last member knows no wrapper: what it says is wrapped, what it
    /// hears is not.
    InRoom,
}

const ROOM: &str = "sip:room@example.com";

impl Talk {
    fn switching(self) -> Switching {
        match self {
            Self::Transparent => Switching::TwoParty,
            Self::InRoom => Switching::ChatRoom(Box::new(mp::ChatRoomPolicy {
                uris: vec![ROOM.to_owned()],
                nicknames: true,
                nicknames_reserved: Vec::new(),
                private_messages: true,
                cpim: mp::CpimPolicy::Wrap,
                accept_types: String::new(),
                accept_wrapped_types: String::new(),
                message_bytes_max: None,
                floors: None,
            })),
        }
    }

    fn content_type(self, member: u64) -> &'static str {
        if self == Self::InRoom && member < MEMBERS { "message/cpim" } else { "text/plain" }
    }

    fn body(self, member: u64, bytes: usize) -> String {
        let text = "x".repeat(bytes);
        match self.content_type(member) {
            "message/cpim" => format!(
                "From: <sip:ue{member}@example.com>\r\nTo: <{ROOM}>\r\n\r\n\
                 Content-Type: text/plain\r\n\r\n{text}"
            ),
            _ => text,
        }
    }
}

#[test]
fn a_warm_shard_relays_plain_messages_without_an_allocation() {
    relays_without_an_allocation(Protect::Nothing, Talk::Transparent);
}

#[test]
fn a_warm_chat_room_passes_messages_on_in_every_form_without_an_allocation() {
    relays_without_an_allocation(Protect::Nothing, Talk::InRoom);
}

#[test]
fn a_warm_shard_relays_protected_messages_without_an_allocation() {
    relays_without_an_allocation(Protect::TlsPsk, Talk::Transparent);
}

#[test]
fn the_counter_sees_what_a_shard_allocates() {
    let (mut shard, mut controller) = shard();
    controller.reserve(1, Protect::Nothing, Talk::Transparent);
    let counted = allocation_counter::measure(|| {
        assert!(shard.turn().expect("a turn"));
    });
    assert!(counted.count_total > 0, "a new Termination is stored somewhere");
}

fn relays_without_an_allocation(protect: Protect, talk: Talk) {
    let (mut shard, mut controller) = shard();
    let stage = Arc::clone(&controller.stage);
    let metrics = Arc::clone(&controller.metrics);
    let members = thread::spawn(move || {
        let mut conference = Conference::new(&mut controller, protect, talk);
        conference.warm_up();
        controller.enter(Stage::Counted);
        for _ in 0..ROUNDS {
            conference.round();
        }
        controller.enter(Stage::Idle);
        // The members stay connected until the shard has been looked at.
        controller.await_stage(Stage::Over);
    });
    let turn_until = |shard: &mut Shard<Ring>, end: Stage| {
        while stage.load(Ordering::Acquire) < end as u8 && !members.is_finished() {
            assert!(shard.turn().expect("a turn"));
        }
    };
    turn_until(&mut shard, Stage::Counted);
    let relayed_before = metrics.read().messages_sent;
    let counted = allocation_counter::measure(|| turn_until(&mut shard, Stage::Idle));
    // The counters are published with the timers, a few times a second.
    let published = metrics.read().housekeepings;
    while metrics.read().housekeepings < published + 2 {
        assert!(shard.turn().expect("a turn"));
    }
    let idle = metrics.read();
    stage.store(Stage::Over as u8, Ordering::Release);
    members.join().expect("the members are content");

    assert!(idle.messages_sent - relayed_before >= MESSAGES_RELAYED as u64);
    assert_eq!(counted.count_total, 0, "{counted:?}");
    assert_eq!(idle.terminations, MEMBERS);
    assert_eq!(idle.connections, MEMBERS);
    assert_eq!(idle.handshakes_completed, if protect == Protect::TlsPsk { MEMBERS } else { 0 });
    assert_eq!(idle.send_buffers_outstanding, 0, "an idle session owns no send buffer");
    assert_eq!(idle.carry_buffers_outstanding, 0, "nor any other");
}

/// What is going on, in order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    WarmUp,
    Counted,
    Idle,
    Over,
}

struct Controller {
    stage: Arc<AtomicU8>,
    metrics: Arc<PublishedMetrics>,
    commands: Producer<Command>,
    events: Consumer<Event>,
}

/// The longest queue of a receiver; far above what is queued while allocations are counted, so that
/// the warm-up has made every buffer.
const EGRESS_BYTES_MAX: usize = 256 * 1024;

fn shard() -> (Shard<Ring>, Controller) {
    let (commands, shard_commands) = queue(64);
    let (shard_events, events) = queue(64);
    let metrics = Arc::new(PublishedMetrics::default());
    let limits = Limits {
        egress_bytes_max: EGRESS_BYTES_MAX,
        // The warm-up makes members lag; none is to be dropped for it.
        slow_member_grace_ns: u64::MAX,
        ..Limits::default()
    };
    let config = RingConfig {
        recv_buffer_count: 256,
        recv_buffer_size_bytes: 8 * 1024,
        ..RingConfig::default()
    };
    let parts = ShardParts {
        limits,
        profile: Profile::new(&ProfileConfig::default()).expect("the default is known"),
        listen: "127.0.0.1:0".parse().expect("an address"),
        advertise: None,
        relay: None,
        gateway: None,
        seed: [7; 32],
        commands: shard_commands,
        events: shard_events,
        doorbell: doorbell().expect("a descriptor").0,
        metrics: Arc::clone(&metrics),
    };
    let shard = Shard::new(Ring::new(config).expect("a ring"), parts).expect("a shard");
    let stage = Arc::new(AtomicU8::new(Stage::WarmUp as u8));
    (shard, Controller { stage, metrics, commands, events })
}

impl Controller {
    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    fn await_stage(&self, stage: Stage) {
        wait_for(|| self.stage.load(Ordering::Acquire) >= stage as u8);
    }

    fn reserve(&mut self, termination: u64, protect: Protect, talk: Talk) {
        let command = Command::ReserveAndConfigure(Box::new(ReserveAndConfigure {
            context: ContextId(1),
            switching: talk.switching(),
            termination: TerminationId(termination),
            security: match protect {
                Protect::Nothing => Security::Plain,
                Protect::TlsPsk => Security::TlsPsk { identity: identity(termination), psk: psk() },
            },
            setup: Setup::Passive,
            session_id: format!("session-{termination:016}"),
            remote_path: Some(local_uri(termination)),
            member: mp::Member {
                uris: vec![format!("sip:ue{termination}@example.com")],
                ..mp::Member::default()
            },
            realm: RealmId::default(),
            file_transfer: false,
            accept_types: talk.content_type(termination).to_owned(),
            accept_wrapped_types: String::new(),
            direction: Direction::SendRecv,
            max_size_bytes: None,
            own_port: false,
        }));
        assert!(self.commands.push(command).is_ok());
    }

    /// The address to connect to, of the Termination reserved last.
    fn reserved(&mut self) -> SocketAddr {
        let mut reserved = None;
        wait_for(|| {
            while let Some(event) = self.events.pop() {
                match event {
                    Event::Reserved { address, .. } => reserved = Some(address),
                    Event::Bound { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            reserved.is_some()
        });
        reserved.expect("just seen")
    }
}

fn identity(termination: u64) -> Vec<u8> {
    format!("{termination:08x}.1").into_bytes()
}

fn psk() -> Psk {
    Psk::new(vec![0x5a; 16]).expect("long enough")
}

fn local_uri(termination: u64) -> String {
    format!("msrp://192.0.2.1:9/ue-{termination};tcp")
}

/// Generous: this only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

fn wait_for(mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "nothing happens any more");
        thread::sleep(Duration::from_micros(50));
    }
}

/// All members of one Context, each with every other to talk to.
struct Conference {
    members: Vec<Member>,
    metrics: Arc<PublishedMetrics>,
}

impl Conference {
    fn new(controller: &mut Controller, protect: Protect, talk: Talk) -> Self {
        let members = (1..=MEMBERS)
            .map(|termination| {
                controller.reserve(termination, protect, talk);
                Member::new(termination, controller.reserved(), protect, talk)
            })
            .collect();
        let mut conference = Self { members, metrics: Arc::clone(&controller.metrics) };
        for member in &mut conference.members {
            let binding = member.binding_request();
            member.write(&binding);
        }
        conference.settle(|member| member.answered == 1);
        conference
    }

    /// Drives the shard further into each of its pools and lists than a round does.
    fn warm_up(&mut self) {
        for deaf in 0..self.members.len() {
            self.flood(deaf, BURST - 1);
            self.flood(deaf, BURST);
        }
        self.cut_every_burst();
        for _ in 0..20 {
            self.round();
        }
    }

    /// One member does not read until the shard holds its senders back. `count` messages, a burst or
    /// the short ones of it, are sent again and again.
    fn flood(&mut self, deaf: usize, count: usize) {
        let paused = self.metrics.read().recv_paused;
        let sender = (deaf + 1) % self.members.len();
        let bytes = match count {
            BURST => self.members[sender].burst.len(),
            _ => self.members[sender].short_bytes,
        };
        let burst = self.members[sender].burst[..bytes].to_vec();
        let mut bursts = 0;
        while self.metrics.read().recv_paused == paused {
            bursts += 1;
            self.members[sender].answers_due += count;
            self.members[sender].queue(&burst);
            wait_for(|| {
                for (index, member) in self.members.iter_mut().enumerate() {
                    member.flush();
                    if index != deaf {
                        member.read();
                    }
                }
                self.members[sender].unsent.is_empty() || self.metrics.read().recv_paused > paused
            });
        }
        for (index, member) in self.members.iter_mut().enumerate() {
            if index != sender {
                member.messages_due += bursts * count;
            }
        }
        self.settle(Member::is_content);
    }

    /// Every member leaves a message unfinished, in the middle of its end-line.
    fn cut_every_burst(&mut self) {
        let per_member = match self.members[0].session {
            // The header lines of the message, and the beginning of its end-line.
            None => 2,
            // The beginning of the record.
            Some(_) => 1,
        };
        let mut rests = Vec::new();
        for member in &mut self.members {
            let wire = member.wire(&member.burst.clone());
            let (first, rest) = wire.split_at(wire.len() - 5);
            member.unsent.extend_from_slice(first);
            rests.push(rest.to_vec());
        }
        let metrics = Arc::clone(&self.metrics);
        let due = MEMBERS * per_member;
        wait_for(|| {
            // Nobody reads yet: the answers must not come between the two parts.
            self.members.iter_mut().for_each(Member::flush);
            metrics.read().carry_buffers_outstanding == due
        });
        for (member, rest) in self.members.iter_mut().zip(rests) {
            member.unsent.extend_from_slice(&rest);
        }
        self.expect_burst_of_everybody();
    }

    fn round(&mut self) {
        for member in &mut self.members {
            let burst = std::mem::take(&mut member.burst);
            member.queue(&burst);
            member.burst = burst;
        }
        self.expect_burst_of_everybody();
    }

    fn expect_burst_of_everybody(&mut self) {
        for member in &mut self.members {
            member.answers_due += BURST;
            member.messages_due += BURST * (MEMBERS - 1) as usize;
        }
        self.settle(Member::is_content);
    }

    fn pump(&mut self) {
        for member in &mut self.members {
            member.flush();
            member.read();
        }
    }

    fn settle(&mut self, content: impl Fn(&Member) -> bool) {
        wait_for(|| {
            self.pump();
            self.members.iter().all(&content)
        });
    }
}

struct Member {
    stream: Socket,
    session: Option<Session>,
    framer: Framer,
    local_uri: String,
    remote_uri: String,
    /// The messages of a round.
    burst: Vec<u8>,
    /// Bytes of the short ones, which are all but the last.
    short_bytes: usize,
    unsent: Vec<u8>,
    unopened: Vec<u8>,
    unread: Vec<u8>,
    /// The transaction whose end has not come.
    transaction: Vec<u8>,
    /// SENDs received so far, and to be received by now.
    messages: usize,
    messages_due: usize,
    /// 200 responses likewise.
    answered: usize,
    answers_due: usize,
}

impl Member {
    fn new(termination: u64, address: SocketAddr, protect: Protect, talk: Talk) -> Self {
        let stream = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // So that a deaf member is soon felt.
        stream.set_recv_buffer_size(64 * 1024).expect("a size");
        stream.connect(&address.into()).expect("the shard listens");
        stream.set_tcp_nodelay(true).expect("an option");
        stream.set_nonblocking(true).expect("an option");
        let scheme = if protect == Protect::TlsPsk { "msrps" } else { "msrp" };
        let mut member = Self {
            stream,
            session: None,
            framer: Framer::default(),
            local_uri: local_uri(termination),
            remote_uri: format!("{scheme}://{address}/session-{termination:016};tcp"),
            burst: Vec::new(),
            short_bytes: 0,
            unsent: Vec::new(),
            unopened: Vec::new(),
            unread: Vec::new(),
            transaction: Vec::new(),
            messages: 0,
            messages_due: 0,
            answered: 0,
            answers_due: 1,
        };
        for number in 0..BURST {
            // The last one is a full chunk: it takes a large buffer, and may arrive in pieces.
            member.short_bytes = member.burst.len();
            let body_bytes = if number + 1 == BURST { 2_000 } else { 20 };
            let body = talk.body(termination, body_bytes);
            let content_type = talk.content_type(termination);
            let message = member.message(&format!("tran{number:04}"), content_type, &body);
            member.burst.extend_from_slice(&message);
        }
        if protect == Protect::TlsPsk {
            member.shake_hands(termination);
        }
        member
    }

    fn shake_hands(&mut self, termination: u64) {
        let profile = Profile::new(&ProfileConfig::default()).expect("the default is known");
        let mut handshake =
            Handshake::client(&profile, &identity(termination), &psk()).expect("a client");
        wait_for(|| {
            self.receive();
            let (consumed, progress) =
                handshake.advance(&self.unopened, &mut self.unsent).expect("a handshake");
            self.unopened.drain(..consumed);
            self.flush();
            match progress {
                Progress::Done(session) => {
                    self.session = Some(session);
                    true
                }
                Progress::NeedInput | Progress::NeedPsk => false,
            }
        });
    }

    fn is_content(&self) -> bool {
        self.unsent.is_empty()
            && self.messages == self.messages_due
            && self.answered == self.answers_due
    }

    fn binding_request(&self) -> Vec<u8> {
        let (to, from) = (&self.remote_uri, &self.local_uri);
        format!(
            "MSRP bind0001 SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
             Message-ID: bind0001\r\nByte-Range: 1-0/0\r\n-------bind0001$\r\n"
        )
        .into_bytes()
    }

    fn message(&self, transaction: &str, content_type: &str, body: &str) -> Vec<u8> {
        let (to, from) = (&self.remote_uri, &self.local_uri);
        let body_bytes = body.len();
        format!(
            "MSRP {transaction} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
             Message-ID: m{transaction}\r\nByte-Range: 1-{body_bytes}/{body_bytes}\r\n\
             Content-Type: {content_type}\r\n\r\n{body}\r\n-------{transaction}$\r\n"
        )
        .into_bytes()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.queue(bytes);
        self.flush();
    }

    fn queue(&mut self, bytes: &[u8]) {
        let wire = self.wire(bytes);
        self.unsent.extend_from_slice(&wire);
    }

    /// As it goes over TCP: sealed as one record where there is a session.
    fn wire(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(session) = &mut self.session else { return bytes.to_vec() };
        let plaintext = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + bytes.len();
        let mut memory = vec![0; plaintext.end + SEAL_TAILROOM_BYTES];
        memory[plaintext.clone()].copy_from_slice(bytes);
        let record = session.seal(&mut memory, plaintext).expect("sealed");
        memory[record].to_vec()
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match (&self.stream).write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the shard has closed: {error}"),
            }
        }
    }

    /// Everything that has arrived, as it came.
    fn receive(&mut self) {
        let mut memory = [0; 64 * 1024];
        loop {
            match (&self.stream).read(&mut memory) {
                Ok(0) => panic!("the shard has closed"),
                Ok(count) => self.unopened.extend_from_slice(&memory[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the shard has closed: {error}"),
            }
        }
    }

    /// Reads what has arrived, answers every SEND.
    fn read(&mut self) {
        self.receive();
        let Some(session) = &mut self.session else {
            self.unread.append(&mut self.unopened);
            return self.cut();
        };
        let mut opened = 0;
        loop {
            match session.open(&mut self.unopened[opened..]).expect("good records") {
                Opened::Data { plaintext, consumed } => {
                    let plaintext = opened + plaintext.start..opened + plaintext.end;
                    self.unread.extend_from_slice(&self.unopened[plaintext]);
                    opened += consumed;
                }
                Opened::NeedInput => break,
                other => panic!("{other:?}"),
            }
        }
        self.unopened.drain(..opened);
        self.cut();
    }

    fn cut(&mut self) {
        let mut taken = 0;
        let mut answers = Vec::new();
        while let Some(piece) = self.framer.next(&self.unread[taken..]).expect("well formed") {
            taken += piece.consumed;
            match piece.head.as_ref().map(|head| head.start) {
                Some(Start::Response(status, _)) => {
                    assert_eq!(status, 200);
                    self.answered += 1;
                    self.transaction.clear();
                    continue;
                }
                Some(Start::Request(_)) | None => {}
            }
            if let Some(head) = &piece.head {
                self.transaction.clear();
                self.transaction.extend_from_slice(head.transaction_id);
            }
            if let Some(end) = piece.end {
                let mut memory = [0; 512];
                let (to, from) = (self.remote_uri.as_bytes(), self.local_uri.as_bytes());
                let length =
                    write_response(&self.transaction, 200, to, from, &mut memory).expect("it fits");
                answers.extend_from_slice(&memory[..length]);
                self.messages += usize::from(end == Continuation::Last);
            }
        }
        self.unread.drain(..taken);
        // A record takes 16 KiB.
        answers.chunks(16 * 1024).for_each(|chunk| self.queue(chunk));
        self.flush();
    }
}
