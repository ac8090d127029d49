//! A relay that has warmed up passes messages on without a heap allocation. On the real ring, over
//! loopback; client, peer and shard take turns on one thread, and only the shard's are counted.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use mrfp_core::metrics::PublishedMetrics;
use mrfp_core::{Limits, RelayConfig, RelayLimits, RelayParts, RelayUser, Shard, ShardParts};
use mrfp_io::{Ring, RingConfig, doorbell, queue};
use mrfp_protocol::msrp::auth::Credentials;
use mrfp_protocol::msrp::{Framer, Start};
use mrfp_protocol::tls::{Profile, ProfileConfig};
use sha2::{Digest, Sha256};

const ALICE: &str = "msrp://alice.invalid:1/alice;tcp";
const RELAY: &str = "msrp://localhost;tcp";
/// Short messages of one round; a long one, which takes several receives, follows.
const BURST: usize = 50;
const LONG_BYTES: usize = 40_000;
const ROUNDS_OF_WARM_UP: usize = 300;
const ROUNDS: usize = 400;

#[test]
fn a_warm_relay_passes_messages_on_without_an_allocation() {
    let mut relay = Relay::new();
    let mut alice = End::new(TcpStream::connect(relay.address).expect("the shard listens"));
    let through = relay.authenticate(&mut alice);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let bob_uri = format!("msrp://{}/bob;tcp", listener.local_addr().expect("bound"));
    let to = format!("{through} {bob_uri}");
    alice.write(&send("first1", &to, 5));
    listener.set_nonblocking(true).expect("an option");
    let mut accepted = None;
    while accepted.is_none() {
        relay.turn();
        accepted = listener.accept().ok();
    }
    let mut bob = End::new(accepted.expect("the relay has connected").0);
    let mut round = Vec::new();
    (0..BURST).for_each(|n| round.extend_from_slice(&send(&format!("tr{n:04}"), &to, 20)));
    round.extend_from_slice(&send("long01", &to, LONG_BYTES));
    let (mut sent, mut taken) = (1, 0);
    for number in 0..ROUNDS_OF_WARM_UP + ROUNDS {
        if number == ROUNDS_OF_WARM_UP {
            taken = relay.allocations;
        }
        alice.write(&round);
        sent += BURST + 1;
        while alice.answered < sent || bob.messages < sent {
            relay.turn();
            alice.read();
            bob.read();
        }
    }
    assert_eq!(relay.allocations - taken, 0, "allocations of {ROUNDS} rounds");
    assert_eq!(bob.errors + alice.errors, 0);
}

struct Relay {
    shard: Shard<Ring>,
    address: SocketAddr,
    allocations: u64,
}

impl Relay {
    fn new() -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let credentials = Credentials::derive(b"alice", b"realm", b"secret");
        let config = RelayConfig {
            listen: any,
            host: "localhost".to_owned(),
            own_port_first: 0,
            realm: "realm".to_owned(),
            users: vec![RelayUser { name: "alice".to_owned(), credentials }],
            expires_default_seconds: 900,
            expires_min_seconds: 60,
            expires_max_seconds: 3_600,
            allow_plain: true,
            allow_local_targets: true,
            limits: RelayLimits::default(),
        };
        let ring = RingConfig {
            recv_buffer_count: 256,
            recv_buffer_size_bytes: 8 * 1024,
            ..RingConfig::default()
        };
        let parts = ShardParts {
            limits: Limits::default(),
            profile: Profile::new(&ProfileConfig::default()).expect("the default is known"),
            listen: any,
            advertise: None,
            relay: Some(RelayParts { config, own_listen: any }),
            gateway: None,
            seed: [7; 32],
            commands: queue(16).1,
            events: queue(16).0,
            doorbell: doorbell().expect("a descriptor").0,
            metrics: Arc::new(PublishedMetrics::default()),
        };
        let shard = Shard::new(Ring::new(ring).expect("a ring"), parts).expect("a shard");
        let address = shard.relay_address().expect("it is a relay");
        Self { shard, address, allocations: 0 }
    }

    fn turn(&mut self) {
        let shard = &mut self.shard;
        let counted = allocation_counter::measure(|| {
            assert!(shard.turn().expect("a turn"));
        });
        self.allocations += counted.count_total;
    }

    fn exchange(&mut self, end: &mut End, request: &str) -> String {
        end.write(request.as_bytes());
        let before = end.answered + end.errors;
        for _ in 0..100 {
            self.turn();
            end.read();
            if end.answered + end.errors > before {
                return std::mem::take(&mut end.answer);
            }
        }
        panic!("no answer to {request}");
    }

    fn authenticate(&mut self, alice: &mut End) -> String {
        let request = |transaction: &str, lines: &str| {
            format!(
                "MSRP {transaction} AUTH\r\nTo-Path: {RELAY}\r\nFrom-Path: {ALICE}\r\n{lines}\
                 -------{transaction}$\r\n"
            )
        };
        let challenge = self.exchange(alice, &request("auth1", ""));
        let nonce = challenge.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next());
        let nonce = nonce.expect("a challenge");
        let hash = |text: String| -> String {
            Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let (ha1, ha2) = (hash("alice:realm:secret".into()), hash(format!("AUTH:{RELAY}")));
        let proof = hash(format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
        let line = format!(
            "Authorization: Digest username=\"alice\", realm=\"realm\", nonce=\"{nonce}\", \
             qop=auth, nc=00000001, cnonce=\"c0ffee\", response=\"{proof}\", algorithm=SHA-256\r\n"
        );
        let granted = self.exchange(alice, &request("auth2", &line));
        (alice.answered, alice.errors) = (0, 0);
        let path = granted.lines().find_map(|line| line.strip_prefix("Use-Path: "));
        path.expect("a URI").to_owned()
    }
}

fn send(transaction: &str, to: &str, body_bytes: usize) -> Vec<u8> {
    let body = "x".repeat(body_bytes);
    format!(
        "MSRP {transaction} SEND\r\nTo-Path: {to}\r\nFrom-Path: {ALICE}\r\n\
         Message-ID: m{transaction}\r\nByte-Range: 1-{body_bytes}/{body_bytes}\r\n\
         Content-Type: text/plain\r\n\r\n{body}\r\n-------{transaction}$\r\n"
    )
    .into_bytes()
}

/// A client or a peer: counts what it gets, answers every SEND.
struct End {
    stream: TcpStream,
    framer: Framer,
    unread: Vec<u8>,
    /// Head of the response read last.
    answer: String,
    answer_to_give: Vec<u8>,
    messages: usize,
    answered: usize,
    errors: usize,
}

impl End {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("an option");
        stream.set_nodelay(true).expect("an option");
        Self {
            stream,
            framer: Framer::default(),
            unread: Vec::new(),
            answer: String::new(),
            answer_to_give: Vec::new(),
            messages: 0,
            answered: 0,
            errors: 0,
        }
    }

    /// What is written at once fits the buffers of the two sockets.
    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it fits");
    }

    fn read(&mut self) {
        let mut memory = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut memory) {
                Ok(0) => panic!("the shard has closed"),
                Ok(count) => self.unread.extend_from_slice(&memory[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the shard has closed: {error}"),
            }
        }
        let (mut taken, mut answers) = (0, Vec::new());
        while let Some(piece) = self.framer.next(&self.unread[taken..]).expect("well formed") {
            if let Some(head) = &piece.head {
                match head.start {
                    Start::Response(status, _) => {
                        self.answered += usize::from(status == 200);
                        self.errors += usize::from(status != 200);
                        self.answer = String::from_utf8_lossy(head.header_lines).into_owned();
                        self.answer_to_give.clear();
                    }
                    Start::Request(_) => {
                        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                        let (transaction, to) =
                            (text(head.transaction_id), text(head.from_path.first()));
                        let from = text(head.to_path.0);
                        self.answer_to_give = format!(
                            "MSRP {transaction} 200 OK\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
                             -------{transaction}$\r\n"
                        )
                        .into_bytes();
                    }
                }
            }
            if let Some(end) = piece.end
                && !self.answer_to_give.is_empty()
            {
                answers.append(&mut self.answer_to_give);
                self.messages += usize::from(end == mrfp_protocol::msrp::Continuation::Last);
            }
            taken += piece.consumed;
        }
        self.unread.drain(..taken);
        self.write(&answers);
    }
}
