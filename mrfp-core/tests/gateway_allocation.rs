//! A gateway that has warmed up converts between TLS and plain text without a heap allocation, in both
//! directions. On the real ring, over loopback; both peers and the shard take turns on one thread, and only
//! the shard's are counted.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mrfp_core::metrics::PublishedMetrics;
use mrfp_core::mp::{
    Bearer, Command, ContextId, Establishment, Event, InterfaceId, RealmId, RemoteConnectionPoint,
    ReserveConnectionPoint, Source, TerminationId, TlsRole,
};
use mrfp_core::{Certificates, GatewayParts, Interface, Limits, Shard, ShardParts};
use mrfp_io::{Consumer, Producer, Ring, RingConfig, doorbell, queue};
use mrfp_protocol::tls::{
    AnnouncedProfile, Fingerprint, Handshake, Identity, Opened, Profile, ProfileConfig, Progress,
    SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES, Session, dtls,
};

/// Sizes of what is sent in one round: chat, and a part of a file that takes several receives.
const SIZES: [usize; 4] = [200, 1_400, 200, 40_000];
const ROUNDS_OF_WARM_UP: usize = 300;
const ROUNDS: usize = 400;

#[test]
fn a_warm_gateway_converts_without_an_allocation() {
    let mut gateway = Gateway::new();
    let ue = Identity::self_signed().expect("made");
    let (access, own) = gateway.reserve(1, Bearer::TlsOverTcp, remote(vec![ue.fingerprint()]));
    let (core, _) = gateway.reserve(2, Bearer::Tcp, remote(Vec::new()));
    let own = own.expect("TLS ends there");
    let mut b = End::new(core);
    let mut a = End::new(access);
    a.handshake =
        Some(Handshake::announced_client(&AnnouncedProfile::default(), &ue, &[own]).expect("made"));
    while a.session.is_none() {
        a.read();
        gateway.turn();
    }
    let (mut sent, mut taken) = (0, 0);
    for number in 0..ROUNDS_OF_WARM_UP + ROUNDS {
        if number == ROUNDS_OF_WARM_UP {
            taken = gateway.allocations;
        }
        for size in SIZES {
            a.write(size);
            b.write(size);
            sent += size;
        }
        while a.received < sent || b.received < sent {
            gateway.turn();
            a.read();
            b.read();
        }
    }
    assert_eq!(gateway.allocations - taken, 0, "allocations of {ROUNDS} rounds");
}

struct Gateway {
    shard: Shard<Ring>,
    commands: Producer<Command>,
    events: Consumer<Event>,
    allocations: u64,
}

impl Gateway {
    fn new() -> Self {
        let ring = RingConfig {
            recv_buffer_count: 256,
            recv_buffer_size_bytes: 8 * 1024,
            ..RingConfig::default()
        };
        let (mut certificates, ready) = queue(1);
        certificates.push(Identity::self_signed().expect("made")).expect("room");
        let interfaces =
            vec![Interface { listen: "127.0.0.1".parse().expect("an address"), advertise: None }];
        let (commands, shard_commands) = queue(16);
        let (shard_events, events) = queue(16);
        let parts = ShardParts {
            limits: Limits::default(),
            profile: Profile::new(&ProfileConfig::default()).expect("the default is known"),
            listen: "127.0.0.1:0".parse().expect("an address"),
            advertise: None,
            relay: None,
            gateway: Some(GatewayParts {
                interfaces,
                certificates: Certificates::new(ready),
                tls: AnnouncedProfile::default(),
                dtls: dtls::Profile::new().unwrap(),
            }),
            seed: [7; 32],
            commands: shard_commands,
            events: shard_events,
            doorbell: doorbell().expect("a descriptor").0,
            metrics: Arc::new(PublishedMetrics::default()),
        };
        let shard = Shard::new(Ring::new(ring).expect("a ring"), parts).expect("a shard");
        Self { shard, commands, events, allocations: 0 }
    }

    fn turn(&mut self) {
        let shard = &mut self.shard;
        let counted = allocation_counter::measure(|| {
            assert!(shard.turn().expect("a turn"));
        });
        self.allocations += counted.count_total;
    }

    fn reserve(
        &mut self,
        termination: u64,
        bearer: Bearer,
        remote: RemoteConnectionPoint,
    ) -> (SocketAddr, Option<Fingerprint>) {
        let reserve = ReserveConnectionPoint {
            context: ContextId(1),
            termination: TerminationId(termination),
            realm: RealmId::default(),
            interface: InterfaceId(0),
            bearer,
            remote: Some(remote),
        };
        self.commands.push(Command::ReserveConnectionPoint(Box::new(reserve))).expect("room");
        loop {
            self.turn();
            match self.events.pop() {
                Some(Event::ConnectionPointReserved { address, fingerprint, .. }) => {
                    return (address, fingerprint);
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
    }
}

fn remote(fingerprints: Vec<Fingerprint>) -> RemoteConnectionPoint {
    RemoteConnectionPoint {
        address: None,
        establishment: Establishment::Incoming,
        tls_role: TlsRole::Server,
        fingerprints,
        source: Source::Any,
        msrp: None,
    }
}

/// A peer: counts what it gets.
struct End {
    stream: TcpStream,
    handshake: Option<Handshake>,
    session: Option<Session>,
    unread: Vec<u8>,
    received: usize,
}

impl End {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the shard listens");
        stream.set_nonblocking(true).expect("an option");
        stream.set_nodelay(true).expect("an option");
        Self { stream, handshake: None, session: None, unread: Vec::new(), received: 0 }
    }

    /// What is written in one round fits the buffers of the two sockets.
    fn write(&mut self, size: usize) {
        let text = vec![b'x'; size];
        let Some(session) = &mut self.session else {
            return self.stream.write_all(&text).expect("it fits");
        };
        for chunk in text.chunks(16 * 1024) {
            let mut memory = vec![0; SEAL_HEADROOM_BYTES + chunk.len() + SEAL_TAILROOM_BYTES];
            let plaintext = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + chunk.len();
            memory[plaintext.clone()].copy_from_slice(chunk);
            let record = session.seal(&mut memory, plaintext).expect("sealed");
            self.stream.write_all(&memory[record]).expect("it fits");
        }
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
        if let Some(handshake) = &mut self.handshake {
            let mut output = Vec::new();
            let (taken, progress) = handshake.advance(&self.unread, &mut output).expect("good");
            self.stream.write_all(&output).expect("it fits");
            self.unread.drain(..taken);
            if let Progress::Done(session) = progress {
                (self.session, self.handshake) = (Some(session), None);
            }
            return;
        }
        let Some(session) = &mut self.session else {
            self.received += self.unread.len();
            return self.unread.clear();
        };
        loop {
            match session.open(&mut self.unread).expect("a record") {
                Opened::NeedInput => return,
                Opened::Data { plaintext, consumed } => {
                    self.received += plaintext.len();
                    self.unread.drain(..consumed);
                }
                Opened::Handled { consumed } => drop(self.unread.drain(..consumed)),
                Opened::CloseNotify { .. } => panic!("the shard says goodbye"),
            }
        }
    }
}
