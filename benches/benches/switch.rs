//! What passing a message on costs a shard: the whole of it on a simulated network, from the bytes of
//! a SEND to those of its copies. The network is a part of the figures, the same in all of them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mrfp_core::metrics::PublishedMetrics;
use mrfp_core::mp::{
    ChatRoomPolicy, Command, ContextId, CpimPolicy, Direction, Event, Member, RealmId,
    ReserveAndConfigure, Security, Setup, Switching, TerminationId,
};
use mrfp_core::{Limits, Shard, ShardParts};
use mrfp_io::{Consumer, PeerId, Producer, Simulator, doorbell, queue};
use mrfp_protocol::tls::{Profile, ProfileConfig};

const ROOM: &str = "sip:room@example.com";
/// Messages of one iteration; they arrive at once.
const BURST: usize = 16;
const TEXT: &str = "Shall we meet at the usual place, say at a quarter past seven?";

struct World {
    shard: Shard<Simulator>,
    commands: Producer<Command>,
    events: Consumer<Event>,
    peers: Vec<PeerId>,
}

impl World {
    fn new() -> Self {
        let (commands, shard_commands) = queue(64);
        let (shard_events, events) = queue(4096);
        let parts = ShardParts {
            limits: Limits::default(),
            profile: Profile::new(&ProfileConfig::default()).expect("the default is known"),
            listen: "127.0.0.1:2855".parse().expect("an address"),
            advertise: None,
            seed: [7; 32],
            commands: shard_commands,
            events: shard_events,
            doorbell: doorbell().expect("a descriptor").0,
            relay: None,
            gateway: None,
            metrics: Arc::new(PublishedMetrics::default()),
        };
        let shard = Shard::new(Simulator::without_faults(), parts).expect("a shard");
        Self { shard, commands, events, peers: Vec::new() }
    }

    fn join(&mut self, switching: &Switching, accept_types: &str) {
        let number = self.peers.len() as u64 + 1;
        let reserve = ReserveAndConfigure {
            context: ContextId(1),
            switching: switching.clone(),
            termination: TerminationId(number),
            security: Security::Plain,
            setup: Setup::Passive,
            session_id: format!("session-{number:016}"),
            remote_path: Some(format!("msrp://192.0.2.1:9/ue-{number};tcp")),
            member: Member { uris: vec![user(number)], private_messages: true, muted: false },
            realm: RealmId::default(),
            file_transfer: false,
            accept_types: accept_types.into(),
            accept_wrapped_types: "*".into(),
            direction: Direction::SendRecv,
            max_size_bytes: None,
            own_port: false,
        };
        assert!(self.commands.push(Command::ReserveAndConfigure(Box::new(reserve))).is_ok());
        self.settle();
        let address = std::iter::from_fn(|| self.events.pop())
            .find_map(|event| match event {
                Event::Reserved { address, .. } => Some(address),
                _ => None,
            })
            .expect("reserved");
        let peer = self.shard.driver_mut().peer_connect(address);
        self.peers.push(peer);
        let bind = request(number, "bind", "Byte-Range: 1-0/0\r\n", "");
        self.shard.driver_mut().peer_send(peer, bind.as_bytes());
        self.settle();
        self.read();
    }

    fn settle(&mut self) {
        loop {
            assert!(self.shard.turn().expect("a turn"));
            if self.shard.driver_mut().is_idle() {
                return;
            }
        }
    }

    /// Takes what the peers have got; how many bytes that were.
    fn read(&mut self) -> usize {
        let Self { shard, peers, .. } = self;
        peers.iter().map(|&peer| shard.driver_mut().peer_received(peer).len()).sum()
    }

    /// The first member says something to everybody.
    fn round(&mut self, burst: &[u8]) -> usize {
        self.shard.driver_mut().peer_send(self.peers[0], burst);
        self.settle();
        self.read()
    }
}

fn user(number: u64) -> String {
    format!("sip:user{number}@example.com")
}

fn request(number: u64, id: &str, lines: &str, body: &str) -> String {
    // Nobody answers, so nobody is waited for.
    format!(
        "MSRP tran{id} SEND\r\nTo-Path: msrp://127.0.0.1:2855/session-{number:016};tcp\r\n\
         From-Path: msrp://192.0.2.1:9/ue-{number};tcp\r\nMessage-ID: {id}\r\n\
         Failure-Report: no\r\n{lines}{body}-------tran{id}$\r\n"
    )
}

fn burst(content_type: &str, body: &str) -> Vec<u8> {
    let lines = format!("Byte-Range: 1-{0}/{0}\r\nContent-Type: {content_type}\r\n", body.len());
    let body = format!("\r\n{body}\r\n");
    (0..BURST).flat_map(|n| request(1, &format!("m{n:04}"), &lines, &body).into_bytes()).collect()
}

fn room() -> Switching {
    Switching::ChatRoom(Box::new(ChatRoomPolicy {
        uris: vec![ROOM.into()],
        nicknames: true,
        nicknames_reserved: Vec::new(),
        private_messages: true,
        cpim: CpimPolicy::Wrap,
        accept_types: String::new(),
        accept_wrapped_types: String::new(),
        message_bytes_max: None,
        floors: None,
    }))
}

fn passing_on(c: &mut Criterion) {
    let wrapped = format!(
        "From: <{}>\r\nTo: <{ROOM}>\r\n\r\nContent-Type: text/plain\r\n\r\n{TEXT}",
        user(1)
    );
    let bare = ("text/plain", TEXT);
    let wrapped = ("message/cpim", wrapped.as_str());
    let mut group = c.benchmark_group("pass on");
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, switching, members, (content_type, body), accept_types) in [
        ("between two parties", Switching::TwoParty, 2, bare, "*"),
        ("between two parties, wrapped", Switching::TwoParty, 2, wrapped, "*"),
        ("in a room of two", room(), 2, wrapped, "message/cpim"),
        ("in a room of 100", room(), 100, wrapped, "message/cpim"),
        ("in a room of 100, wrapper put on", room(), 100, bare, "message/cpim"),
        ("in a room of 100, wrapper taken off", room(), 100, wrapped, "text/plain"),
    ] {
        let mut world = World::new();
        for _ in 0..members {
            world.join(&switching, accept_types);
        }
        let burst = burst(content_type, body);
        assert!(world.round(&burst) > BURST * (members - 1) * TEXT.len(), "everybody hears it");
        group.bench_function(name, |b| b.iter(|| world.round(black_box(&burst))));
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = short(); targets = passing_on }
criterion_main!(benches);
