//! A relay, and peers that speak MSRP to it, written out by hand.
#![allow(unreachable_pub, reason = "a module of a test")]

use std::net::SocketAddr;

use mrfp_core::mp::Command;
use mrfp_core::{Limits, RelayConfig, RelayLimits, RelayParts, RelayUser};
use mrfp_io::{ConnectAnswer, PeerId, Simulator, SimulatorConfig};
use mrfp_protocol::msrp::auth::Credentials;
use mrfp_protocol::msrp::{Continuation, Framer, Start};

use crate::common::World;

pub const KNOWN_PORT: &str = "127.0.0.1:2856";
pub const OWN_PORT: &str = "127.0.0.1:2900";
pub const RELAY: &str = "msrp://relay.example;tcp";
/// Where a peer listens that the relay connects to.
pub const BOB: &str = "192.0.2.200:7000";
pub const BOB_URI: &str = "msrp://192.0.2.200:7000/bob;tcp";

pub fn config() -> RelayConfig {
    let user = |name: &str| RelayUser {
        name: name.to_owned(),
        credentials: Credentials::derive(name.as_bytes(), b"relay.example", b"secret"),
    };
    RelayConfig {
        listen: KNOWN_PORT.parse().unwrap(),
        host: "relay.example".to_owned(),
        own_port_first: 2900,
        realm: "relay.example".to_owned(),
        users: vec![user("alice"), user("bob")],
        expires_default_seconds: 900,
        expires_min_seconds: 60,
        expires_max_seconds: 3_600,
        allow_plain: true,
        allow_local_targets: false,
        limits: RelayLimits::default(),
    }
}

pub fn world_with(simulator: Simulator, limits: Limits, config: RelayConfig) -> World {
    let own_listen = OWN_PORT.parse().unwrap();
    let mut world = World::with(simulator, limits, |parts| {
        parts.relay = Some(RelayParts { config, own_listen });
    });
    answer(&mut world, BOB, ConnectAnswer::Accept);
    world
}

pub fn world() -> World {
    world_with(Simulator::without_faults(), Limits::default(), config())
}

/// With every fault the simulator knows.
pub fn faulty(seed: u64) -> World {
    let simulator = SimulatorConfig { recv_buffer_count: 8, ..SimulatorConfig::default() };
    world_with(Simulator::with_config(seed, simulator), Limits::default(), config())
}

pub fn answer(world: &mut World, address: &str, answer: ConnectAnswer) {
    world.shard.driver_mut().answer_connects(address.parse().unwrap(), answer);
}

/// Ends every connection and checks that nothing of the shard is left in use.
pub fn finish(world: &mut World, peers: &[&Peer]) {
    for peer in peers {
        world.shard.driver_mut().peer_close(peer.id);
    }
    world.settle();
    // What was on its way may have made the relay connect once more.
    while let Some(late) = Peer::accept(world) {
        world.shard.driver_mut().peer_close(late.id);
        world.settle();
    }
    world.pass(70);
    let metrics = world.measure();
    assert_eq!(metrics.relay_registrations, 0);
    assert_eq!(metrics.relay_routes, 0);
    assert_eq!(metrics.send_buffers_outstanding, 0);
    assert_eq!(metrics.carry_buffers_outstanding, 0);
    assert_eq!(metrics.connections, 0);
    assert_eq!(world.shard.driver_mut().sockets_open(), 3, "only the listeners are left");
    world.commands.push(Command::Stop).unwrap();
    for _ in 0..10_000 {
        if !world.shard.turn().unwrap() {
            return;
        }
        world.shard.driver_mut().advance_ns(25_000_000);
    }
    panic!("the shard does not stop");
}

/// A message as a peer received it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Method or status code.
    pub start: String,
    pub transaction: String,
    pub to: String,
    pub from: String,
    /// Header lines after From-Path.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    pub flag: char,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// The far end of a connection.
pub struct Peer {
    pub id: PeerId,
    framer: Framer,
    unparsed: Vec<u8>,
    current: Option<Message>,
    /// Whether it answers SENDs by itself.
    pub answers: bool,
    pub received: Vec<Message>,
}

impl Peer {
    fn new(id: PeerId) -> Self {
        Self {
            id,
            framer: Framer::default(),
            unparsed: Vec::new(),
            current: None,
            answers: true,
            received: Vec::new(),
        }
    }

    pub fn connect(world: &mut World, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        Self::new(world.shard.driver_mut().peer_connect(address))
    }

    /// The connection the relay has made last.
    pub fn accept(world: &mut World) -> Option<Self> {
        world.shard.driver_mut().next_connected().map(Self::new)
    }

    pub fn send(&mut self, world: &mut World, bytes: impl AsRef<[u8]>) {
        world.shard.driver_mut().peer_send(self.id, bytes.as_ref());
    }

    /// Reads, answers what is to be answered, lets the shard work.
    pub fn run(&mut self, world: &mut World) {
        world.settle();
        self.read(world);
        world.settle();
    }

    pub fn read(&mut self, world: &mut World) {
        let arrived = world.shard.driver_mut().peer_received(self.id);
        self.unparsed.extend_from_slice(&arrived);
        let mut taken = 0;
        let mut answers = String::new();
        while let Some(piece) = self.framer.next(&self.unparsed[taken..]).expect("well-formed") {
            taken += piece.consumed;
            if let Some(head) = &piece.head {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.current = Some(Message {
                    start: match head.start {
                        Start::Request(method) => text(method.as_bytes()),
                        Start::Response(status, _) => status.to_string(),
                    },
                    transaction: text(head.transaction_id),
                    to: text(head.to_path.0),
                    from: text(head.from_path.0),
                    headers: text(head.header_lines).lines().map(str::to_owned).collect(),
                    ..Message::default()
                });
            }
            let current = self.current.as_mut().expect("a head comes first");
            current.body.extend_from_slice(piece.body);
            let Some(end) = piece.end else { continue };
            let mut message = self.current.take().expect("just seen");
            message.flag = match end {
                Continuation::Last => '$',
                Continuation::More => '+',
                Continuation::Abort => '#',
            };
            let expected = !matches!(message.header("Failure-Report"), Some("no" | "partial"));
            if self.answers && message.start == "SEND" && expected {
                answers.push_str(&response(&message, "200 OK"));
            }
            self.received.push(message);
        }
        self.unparsed.drain(..taken);
        if !answers.is_empty() {
            self.send(world, answers);
        }
    }

    /// The messages received since it was last asked.
    pub fn take(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.received)
    }

    /// Start lines of the messages received since it was last asked.
    pub fn take_starts(&mut self) -> Vec<String> {
        self.take().into_iter().map(|message| message.start).collect()
    }

    /// Bodies of the SENDs received so far, in the order of their bytes; checks that they join.
    pub fn body(&self, message_id: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for message in self.received.iter().filter(|m| m.start == "SEND") {
            if message.header("Message-ID") == Some(message_id) {
                let range = message.header("Byte-Range").expect("every SEND has one");
                let start: usize = range.split('-').next().unwrap().parse().unwrap();
                assert_eq!(start, body.len() + 1, "no gap, no overlap");
                body.extend_from_slice(&message.body);
            }
        }
        body
    }
}

/// The response to a request, to its previous hop.
pub fn response(request: &Message, status: &str) -> String {
    let (transaction, from) = (&request.transaction, &request.to);
    let to = if request.start == "SEND" {
        request.from.split(' ').next().unwrap()
    } else {
        &request.from
    };
    format!(
        "MSRP {transaction} {status}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n-------{transaction}$\r\n"
    )
}

/// A SEND of a whole message.
pub fn send(transaction: &str, to: &str, from: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    chunk(transaction, to, from, headers, &format!("1-{length}/{length}"), body, '$')
}

/// A SEND of a chunk of the message `m1`.
pub fn chunk(
    transaction: &str,
    to: &str,
    from: &str,
    headers: &str,
    range: &str,
    body: &[u8],
    flag: char,
) -> Vec<u8> {
    let head = format!(
        "MSRP {transaction} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: msg1\r\n\
         Byte-Range: {range}\r\n{headers}Content-Type: text/plain\r\n\r\n"
    );
    [head.as_bytes(), body, format!("\r\n-------{transaction}{flag}\r\n").as_bytes()].concat()
}

pub fn request(transaction: &str, method: &str, to: &str, from: &str, headers: &str) -> String {
    format!(
        "MSRP {transaction} {method}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{headers}\
         -------{transaction}$\r\n"
    )
}

/// The value of a parameter of a header.
pub fn parameter(header: &str, name: &str) -> Option<String> {
    let at = header.find(&format!("{name}="))? + name.len() + 1;
    let rest = &header[at..];
    Some(match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?.to_owned(),
        None => rest.split(',').next()?.trim().to_owned(),
    })
}

/// What a client puts into its Authorization header.
pub struct Login<'a> {
    pub user: &'a str,
    pub password: &'a str,
    pub nonce: &'a str,
    pub count: u32,
    pub uri: &'a str,
    /// Whether `uri=` is sent.
    pub with_uri: bool,
    pub sha256: bool,
}

impl Login<'_> {
    fn hash(&self, text: &str) -> String {
        use sha2::Digest;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.sha256 { hex(&sha2::Sha256::digest(text)) } else { hex(&md5::Md5::digest(text)) }
    }

    pub fn header(&self) -> String {
        let Self { user, password, nonce, count, uri, .. } = self;
        let ha1 = self.hash(&format!("{user}:relay.example:{password}"));
        let ha2 = self.hash(&format!("AUTH:{uri}"));
        let response = self.hash(&format!("{ha1}:{nonce}:{count:08x}:c0ffee:auth:{ha2}"));
        let with_uri = if self.with_uri { format!(", uri=\"{uri}\"") } else { String::new() };
        let algorithm = if self.sha256 { ", algorithm=SHA-256" } else { "" };
        format!(
            "Authorization: Digest username=\"{user}\", realm=\"relay.example\", \
             nonce=\"{nonce}\", qop=auth, nc={count:08x}, cnonce=\"c0ffee\", \
             response=\"{response}\"{with_uri}{algorithm}\r\n"
        )
    }
}

/// A client with a URI.
pub struct Client {
    pub peer: Peer,
    pub uri: String,
    /// The relay's URI that leads to it.
    pub through: String,
}

impl Client {
    /// Connects, authenticates, gets a URI.
    pub fn new(world: &mut World, user: &str, uri: &str) -> Self {
        let mut peer = Peer::connect(world, KNOWN_PORT);
        let through = authenticate(world, &mut peer, user, RELAY, uri);
        Self { peer, uri: uri.to_owned(), through }
    }
}

/// AUTH twice, as a client does; the Use-Path.
pub fn authenticate(
    world: &mut World,
    peer: &mut Peer,
    user: &str,
    to: &str,
    from: &str,
) -> String {
    peer.send(world, request("auth1", "AUTH", to, from, ""));
    peer.run(world);
    let challenge = peer.take().pop().expect("a challenge");
    assert_eq!(challenge.start, "401");
    let nonce = parameter(challenge.header("WWW-Authenticate").unwrap(), "nonce").unwrap();
    let uri = to.rsplit(' ').next().unwrap();
    let login = Login {
        user,
        password: "secret",
        nonce: &nonce,
        count: 1,
        uri,
        with_uri: false,
        sha256: true,
    };
    peer.send(world, request("auth2", "AUTH", to, from, &login.header()));
    peer.run(world);
    let granted = peer.take().pop().expect("an answer");
    assert_eq!(granted.start, "200", "{granted:?}");
    granted.header("Use-Path").unwrap().to_owned()
}

pub const ALICE_URI: &str = "msrp://alice.example:9892/98cjs;tcp";

/// A client, and the peer the relay connects to on its behalf, after a first message each.
pub fn pair(world: &mut World) -> (Client, Peer) {
    let mut alice = Client::new(world, "alice", ALICE_URI);
    let to = format!("{} {BOB_URI}", alice.through);
    alice.peer.send(world, send("first1", &to, &alice.uri, "", b"hello"));
    world.settle();
    let mut bob = Peer::accept(world).expect("the relay has connected");
    bob.run(world);
    alice.peer.run(world);
    assert_eq!(alice.peer.take_starts(), ["200"]);
    assert_eq!(bob.take_starts(), ["SEND"]);
    (alice, bob)
}

/// Lets both read and answer until nothing more happens.
pub fn exchange(world: &mut World, peers: &mut [&mut Peer]) {
    for _ in 0..30 {
        peers.iter_mut().for_each(|peer| peer.run(world));
    }
}
