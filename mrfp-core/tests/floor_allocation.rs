//! A shard that has warmed up serves participants without a single heap allocation: requests, grants,
//! releases, and those who are told of them. On the real ring, over loopback; the counter counts the
//! shard's thread only.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mrfp_core::floor::{ConferencePolicy, FloorOrder, FloorPolicy, ThirdPartyRequests};
use mrfp_core::metrics::PublishedMetrics;
use mrfp_core::mp::*;
use mrfp_core::{Limits, Psk, Shard, ShardParts};
use mrfp_io::{Consumer, Producer, Ring, RingConfig, doorbell, queue};
use mrfp_protocol::bfcp::{
    Framer, HEADER_BYTES, Header, MESSAGE_BYTES_MAX, Payload, Primitive, RequestStatus, Transport,
    Value, Writer,
};
use mrfp_protocol::tls::{Handshake, Opened, Profile, ProfileConfig, Progress, Session};

const CONFERENCE: u32 = 77;
const FLOOR: u16 = 1;
/// Both ask for the floor, so that every release is a grant for the other one.
const USERS: [u16; 2] = [11, 12];
const CYCLES: usize = 5_000;
const CYCLES_WARM: usize = 500;

/// What is going on, in order.
const WARM_UP: u8 = 0;
const COUNTED: u8 = 1;
const IDLE: u8 = 2;
const OVER: u8 = 3;

#[test]
fn a_warm_shard_gives_floors_in_the_clear_without_an_allocation() {
    gives_floors_without_an_allocation(false);
}

#[test]
fn a_warm_shard_gives_floors_over_tls_without_an_allocation() {
    gives_floors_without_an_allocation(true);
}

fn gives_floors_without_an_allocation(protected: bool) {
    let (mut shard, mut commands, mut events, metrics) = shard();
    reserve(&mut commands, protected);
    let mut reserved = 0;
    while reserved < 1 + USERS.len() {
        assert!(shard.turn().expect("a turn"));
        while let Some(event) = events.pop() {
            assert!(matches!(event, Event::Reserved { .. }), "{event:?}");
            reserved += 1;
        }
    }
    let address = shard.address();
    let stage = Arc::new(AtomicU8::new(WARM_UP));
    let entered = Arc::clone(&stage);
    let phones = thread::spawn(move || {
        let mut phones = USERS.map(|user_id| Phone::connect(address, user_id, protected));
        phones.iter_mut().for_each(Phone::subscribe);
        let mut cycle = |cycles| {
            for _ in 0..cycles {
                phones.iter_mut().for_each(Phone::request);
                phones.iter_mut().for_each(Phone::release);
            }
        };
        cycle(CYCLES_WARM);
        entered.store(COUNTED, Ordering::Release);
        cycle(CYCLES);
        entered.store(IDLE, Ordering::Release);
        wait_for(|| entered.load(Ordering::Acquire) == OVER);
    });
    let turn_until = |shard: &mut Shard<Ring>, end: u8| {
        while stage.load(Ordering::Acquire) < end && !phones.is_finished() {
            assert!(shard.turn().expect("a turn"));
        }
    };
    turn_until(&mut shard, COUNTED);
    let counted = allocation_counter::measure(|| turn_until(&mut shard, IDLE));
    let published = metrics.read().housekeepings;
    while metrics.read().housekeepings < published + 2 {
        assert!(shard.turn().expect("a turn"));
    }
    stage.store(OVER, Ordering::Release);
    phones.join().expect("the participants are content");
    let all = ((CYCLES + CYCLES_WARM) * USERS.len()) as u64;
    let said = metrics.floor_control();
    assert_eq!([1, 2].map(|code| said.received[code]), [all, all]);
    assert_eq!(said.errors, [0; 15]);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

type Commands = Producer<Command>;

fn shard() -> (Shard<Ring>, Commands, Consumer<Event>, Arc<PublishedMetrics>) {
    let (commands, shard_commands) = queue(64);
    let (shard_events, events) = queue(64);
    let metrics = Arc::new(PublishedMetrics::default());
    let config = RingConfig { recv_buffer_count: 64, ..RingConfig::default() };
    let parts = ShardParts {
        limits: Limits::default(),
        profile: profile(),
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
    (shard, commands, events, metrics)
}

/// A room with a floor, and its users.
fn reserve(commands: &mut Commands, protected: bool) {
    let floor = Floor {
        floor_id: FLOOR,
        policy: FloorPolicy {
            order: FloorOrder::FirstComeFirstServed,
            holders_max: 1,
            requests_per_user_max: 2,
            holding_max_ns: None,
        },
        governs_messages: true,
        reported: false,
    };
    let floors = FloorControl {
        conference_id: CONFERENCE,
        policy: ConferencePolicy { grace_ns: 0, third_party_requests: ThirdPartyRequests::Nobody },
        floors: vec![floor],
        moderated: true,
    };
    let policy = ChatRoomPolicy {
        uris: vec!["sip:room@example.com".to_owned()],
        nicknames: false,
        nicknames_reserved: Vec::new(),
        private_messages: false,
        cpim: CpimPolicy::Wrap,
        accept_types: String::new(),
        accept_wrapped_types: String::new(),
        message_bytes_max: None,
        floors: Some(Box::new(floors)),
    };
    let room = ReserveAndConfigure {
        context: ContextId(1),
        switching: Switching::ChatRoom(Box::new(policy)),
        termination: TerminationId(1),
        security: Security::Plain,
        setup: Setup::Passive,
        session_id: "session-0000000001".to_owned(),
        remote_path: Some("msrp://192.0.2.1:9/ue;tcp".to_owned()),
        member: Member::default(),
        realm: RealmId::default(),
        file_transfer: false,
        accept_types: "*".to_owned(),
        accept_wrapped_types: String::new(),
        direction: Direction::SendRecv,
        max_size_bytes: None,
        own_port: false,
    };
    assert!(commands.push(Command::ReserveAndConfigure(Box::new(room))).is_ok());
    for user_id in USERS {
        let security = match protected {
            true => Security::TlsPsk { identity: identity(user_id), psk: psk() },
            false => Security::Plain,
        };
        let user = ReserveFloorControl {
            context: ContextId(1),
            termination: TerminationId(u64::from(user_id)),
            stream: FloorStream {
                transport: FloorTransport::Tcp(Setup::Passive),
                security,
                tls_role: TlsRole::Server,
            },
            unanswered: false,
            user_id,
            display_name: "Somebody".to_owned(),
            uri: "sip:somebody@example.com".to_owned(),
            speaks_by: (user_id == USERS[0]).then_some(TerminationId(1)),
            realm: RealmId::default(),
            own_port: false,
        };
        assert!(commands.push(Command::ReserveFloorControl(Box::new(user))).is_ok());
    }
}

/// A participant's end.
struct Phone {
    stream: TcpStream,
    session: Option<Session>,
    user_id: u16,
    transaction_id: u16,
    arrived: Vec<u8>,
    plain: Vec<u8>,
    /// Its last request, and how it stands.
    request: Option<(u16, RequestStatus)>,
}

impl Phone {
    fn connect(address: SocketAddr, user_id: u16, protected: bool) -> Self {
        let mut stream = TcpStream::connect(address).expect("the shard listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_nodelay(true).expect("an option");
        let session = protected.then(|| shake_hands(&mut stream, user_id));
        let (arrived, plain) = (Vec::new(), Vec::new());
        Self { stream, session, user_id, transaction_id: 0, arrived, plain, request: None }
    }

    fn send(&mut self, primitive: Primitive, value: &Value<'_>) {
        self.transaction_id = self.transaction_id.wrapping_add(1).max(1);
        let (id, user_id) = (self.transaction_id, self.user_id);
        let header = Header::new(Transport::Reliable, primitive, CONFERENCE, id, user_id);
        let mut memory = [0; 256];
        let mut writer = Writer::new(&mut memory[13..128], &header).expect("room");
        writer.put(value).expect("room");
        let length = writer.finish();
        let range = match &mut self.session {
            Some(session) => session.seal(&mut memory, 13..13 + length).expect("sealed"),
            None => 13..13 + length,
        };
        self.stream.write_all(&memory[range]).expect("the shard is there");
    }

    fn subscribe(&mut self) {
        self.send(Primitive::FloorQuery, &Value::FloorId(FLOOR));
    }

    /// Until its request is granted or waits.
    fn request(&mut self) {
        self.request = None;
        self.send(Primitive::FloorRequest, &Value::FloorId(FLOOR));
        self.read_until(|it| it.request.is_some());
    }

    /// As soon as it has the floor, until it has it no more.
    fn release(&mut self) {
        let status = |it: &Self| it.request.map(|(_, status)| status);
        self.read_until(|it| status(it) == Some(RequestStatus::Granted));
        let (request, _) = self.request.expect("it has asked");
        self.send(Primitive::FloorRelease, &Value::FloorRequestId(request));
        self.read_until(|it| status(it) == Some(RequestStatus::Released));
    }

    fn read_until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let mut memory = [0; 4096];
            let count = self.stream.read(&mut memory).expect("an answer");
            assert!(count > 0, "the shard has closed");
            self.take(&memory[..count]);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let Some(session) = &mut self.session else {
            self.plain.extend_from_slice(bytes);
            return self.parse();
        };
        self.arrived.extend_from_slice(bytes);
        loop {
            match session.open(&mut self.arrived).expect("a good record") {
                Opened::Data { plaintext, consumed } => {
                    self.plain.extend_from_slice(&self.arrived[plaintext]);
                    self.arrived.drain(..consumed);
                }
                Opened::Handled { consumed } => drop(self.arrived.drain(..consumed)),
                Opened::NeedInput | Opened::CloseNotify { .. } => return self.parse(),
            }
        }
    }

    fn parse(&mut self) {
        let framer = Framer::new(MESSAGE_BYTES_MAX);
        let mut taken = 0;
        while let Some(message) = framer.next(&self.plain[taken..]).expect("not too long") {
            taken += message.len();
            if message[1] != Primitive::FloorRequestStatus.code() {
                continue;
            }
            let payload = Payload::parse(&message[HEADER_BYTES..]).expect("sound");
            for attribute in payload.attributes {
                if let Value::Grouped(_, inner) = attribute.value
                    && let Some(stands) = stands(inner)
                {
                    self.request = Some(stands);
                }
            }
        }
        self.plain.drain(..taken);
    }
}

/// Request and status of an OVERALL-REQUEST-STATUS.
fn stands(mut inner: mrfp_protocol::bfcp::Attributes<'_>) -> Option<(u16, RequestStatus)> {
    inner.find_map(|attribute| match attribute.value {
        Value::Grouped(mrfp_protocol::bfcp::Group::OverallRequestStatus(id), mut status) => status
            .find_map(|attribute| match attribute.value {
                Value::RequestStatus { status, .. } => {
                    Some((id, RequestStatus::from_code(status).expect("a status")))
                }
                _ => None,
            }),
        _ => None,
    })
}

fn shake_hands(stream: &mut TcpStream, user_id: u16) -> Session {
    let mut handshake =
        Handshake::client(&profile(), &identity(user_id), &psk()).expect("a client");
    let (mut input, mut output) = (Vec::new(), Vec::new());
    loop {
        let (consumed, progress) = handshake.advance(&input, &mut output).expect("a handshake");
        input.drain(..consumed);
        stream.write_all(&output).expect("the shard is there");
        output.clear();
        if let Progress::Done(session) = progress {
            return session;
        }
        let mut memory = [0; 4096];
        let count = stream.read(&mut memory).expect("an answer");
        assert!(count > 0, "the shard has closed");
        input.extend_from_slice(&memory[..count]);
    }
}

fn profile() -> Profile {
    Profile::new(&ProfileConfig::default()).expect("the default is known")
}

fn identity(user_id: u16) -> Vec<u8> {
    format!("{user_id:08x}.1").into_bytes()
}

fn psk() -> Psk {
    Psk::new(vec![0x5a; 16]).expect("long enough")
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
