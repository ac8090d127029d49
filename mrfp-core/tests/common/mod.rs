//! A shard on the simulated driver, its controller, and UEs that speak real MSRP and TLS to it.
#![allow(unreachable_pub, reason = "shared by test binaries, none of which is a library")]
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;

use mrfp_core::metrics::{PublishedMetrics, ShardMetrics};
use mrfp_core::mp::{
    Command, ContextId, Direction, Event, Member, RealmId, ReserveAndConfigure, Security, Setup,
    Switching, TerminationId,
};
use mrfp_core::{Limits, Psk, Shard, ShardParts};
use mrfp_io::{Consumer, PeerId, Producer, Simulator, SimulatorConfig, doorbell, queue};
use mrfp_protocol::msrp::{ByteRange, Continuation, FailureReport, Framer, Start};
use mrfp_protocol::tls::{
    Handshake, Opened, Profile, ProfileConfig, Progress, RecordError, Session,
};

/// A shard with everything around it.
pub struct World {
    pub shard: Shard<Simulator>,
    pub commands: Producer<Command>,
    pub events: Consumer<Event>,
    pub metrics: Arc<PublishedMetrics>,
    /// Events seen so far.
    pub seen: Vec<Event>,
}

/// A UE's side of one session.
pub struct Ue {
    pub peer: PeerId,
    pub termination: TerminationId,
    pub address: SocketAddr,
    pub local_uri: String,
    pub remote_uri: String,
    tls: Tls,
    framer: Framer,
    unparsed: Vec<u8>,
    sealed: Vec<u8>,
    current: Option<Received>,
    /// Every message received so far, requests and responses.
    pub received: Vec<Received>,
}

enum Tls {
    Plain,
    Handshaking(Box<Handshake>),
    Failed,
    Session(Box<Session>),
}

/// A message as a UE received it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub status: Option<u16>,
    pub method: Option<String>,
    pub transaction_id: String,
    pub message_id: Option<String>,
    pub byte_range_start: Option<u64>,
    pub byte_range: Option<ByteRange>,
    pub failure_report: FailureReport,
    pub success_report: bool,
    /// Header lines after From-Path, as they came.
    pub header_lines: String,
    /// Status code of a REPORT.
    pub report_status: Option<u16>,
    pub content_type: Option<String>,
    pub to_path: String,
    pub from_path: String,
    pub body: Vec<u8>,
    pub end: Option<char>,
    pub answered: bool,
}

impl Received {
    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.header_lines
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
    }
}

/// A response, as a UE writes it: each with one of the comments that the RFC leaves to it.
pub fn response(transaction_id: &str, status: u16, to: &str, from: &str) -> Vec<u8> {
    let comment = match transaction_id.as_bytes()[0] % 3 {
        0 => " OK",
        1 => " Said",
        _ => "",
    };
    format!(
        "MSRP {transaction_id} {status}{comment}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
         -------{transaction_id}$\r\n"
    )
    .into_bytes()
}

impl World {
    pub fn new(simulator: Simulator, limits: Limits) -> Self {
        Self::with(simulator, limits, |_| {})
    }

    pub fn with_profile(simulator: Simulator, limits: Limits, profile: Profile) -> Self {
        Self::with(simulator, limits, |parts| parts.profile = profile)
    }

    /// With parts changed as the test needs them.
    pub fn with(
        simulator: Simulator,
        limits: Limits,
        change: impl FnOnce(&mut ShardParts),
    ) -> Self {
        let (commands, shard_commands) = queue(1024);
        let (shard_events, events) = queue(1024);
        let metrics = Arc::new(PublishedMetrics::default());
        let mut parts = ShardParts {
            limits,
            profile: Profile::new(&ProfileConfig::default()).unwrap(),
            listen: "127.0.0.1:2855".parse().unwrap(),
            advertise: None,
            relay: None,
            gateway: None,
            seed: [7; 32],
            commands: shard_commands,
            events: shard_events,
            doorbell: doorbell().unwrap().0,
            metrics: Arc::clone(&metrics),
        };
        change(&mut parts);
        let shard = Shard::new(simulator, parts).unwrap();
        Self { shard, commands, events, metrics, seen: Vec::new() }
    }

    /// No faults, default limits.
    pub fn calm() -> Self {
        Self::new(Simulator::without_faults(), Limits::default())
    }

    /// Every fault the simulator knows, drawn from `seed`.
    pub fn faulty(seed: u64) -> Self {
        let config = SimulatorConfig { recv_buffer_count: 8, ..SimulatorConfig::default() };
        Self::new(Simulator::with_config(seed, config), Limits::default())
    }

    /// Turns the shard until nothing more happens.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..100_000 {
            assert!(self.shard.turn().unwrap());
            self.take_events();
            quiet = if self.shard.driver_mut().is_idle() { quiet + 1 } else { 0 };
            if quiet == 3 {
                return;
            }
        }
        panic!("the shard does not come to rest");
    }

    /// Lets time pass in steps in which timers run.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 40 {
            self.shard.driver_mut().advance_ns(25_000_000);
            self.shard.turn().unwrap();
            self.take_events();
        }
        self.settle();
    }

    pub fn take_events(&mut self) {
        while let Some(event) = self.events.pop() {
            self.seen.push(event);
        }
    }

    pub fn command(&mut self, command: Command) {
        self.commands.push(command).unwrap();
        self.settle();
    }

    /// The newest published counters.
    pub fn measure(&mut self) -> ShardMetrics {
        self.pass(1);
        self.metrics.read()
    }

    /// Reserves a Termination for a plain (no key) or protected member; the address to connect to.
    pub fn reserve(&mut self, context: u64, termination: u64, psk: Option<&Psk>) -> SocketAddr {
        self.reserve_with(context, termination, psk, |_| {})
    }

    pub fn reserve_with(
        &mut self,
        context: u64,
        termination: u64,
        psk: Option<&Psk>,
        change: impl FnOnce(&mut ReserveAndConfigure),
    ) -> SocketAddr {
        let mut reserve = reservation(context, termination, psk);
        change(&mut reserve);
        self.command(Command::ReserveAndConfigure(Box::new(reserve)));
        let address = self.seen.iter().find_map(|event| match event {
            Event::Reserved { termination: id, address } if id.0 == termination => Some(*address),
            _ => None,
        });
        address.unwrap_or_else(|| panic!("not reserved: {:?}", self.seen.last()))
    }

    /// A member that has connected, secured itself and bound its session.
    pub fn member(&mut self, context: u64, termination: u64, psk: Option<&Psk>) -> Ue {
        let address = self.reserve(context, termination, psk);
        let mut ue =
            self.connect(termination, address, psk.map(|psk| (identity(termination), psk)));
        ue.send_raw(self, &ue.empty_send("bind0001"));
        self.settle();
        ue.read(self);
        assert_eq!(ue.take_statuses(), [200], "the binding request is answered");
        assert!(self.is_bound(termination));
        ue
    }

    /// Connects and, with a key, shakes hands as far as that goes.
    pub fn connect(
        &mut self,
        termination: u64,
        address: SocketAddr,
        key: Option<(Vec<u8>, &Psk)>,
    ) -> Ue {
        self.connect_with(termination, address, client_handshake(key))
    }

    /// Connects, and leaves it to others to let anything happen.
    pub fn connect_only(
        &mut self,
        termination: u64,
        address: SocketAddr,
        key: Option<(Vec<u8>, &Psk)>,
    ) -> Ue {
        let peer = self.shard.driver_mut().peer_connect(address);
        Ue::new(termination, address, client_handshake(key), peer)
    }

    /// The same with any handshake.
    pub fn connect_with(
        &mut self,
        termination: u64,
        address: SocketAddr,
        handshake: Option<Handshake>,
    ) -> Ue {
        let peer = self.shard.driver_mut().peer_connect(address);
        self.ue(termination, address, handshake, peer)
    }

    /// A UE on a connection that is there already.
    pub fn ue(
        &mut self,
        termination: u64,
        address: SocketAddr,
        handshake: Option<Handshake>,
        peer: PeerId,
    ) -> Ue {
        let mut ue = Ue::new(termination, address, handshake, peer);
        for _ in 0..6 {
            ue.read(self);
            self.settle();
        }
        ue
    }

    pub fn is_bound(&self, termination: u64) -> bool {
        self.seen
            .iter()
            .any(|event| matches!(event, Event::Bound { termination: id } if id.0 == termination))
    }

    /// Subtracts every named Termination and checks that nothing of the shard is left in use.
    pub fn subtract_all(&mut self, terminations: impl IntoIterator<Item = u64>) {
        for termination in terminations {
            self.command(Command::Subtract { termination: TerminationId(termination) });
        }
        self.pass(5);
        let metrics = self.measure();
        assert_eq!(metrics.terminations, 0);
        assert_eq!(metrics.contexts, 0);
        assert_eq!(metrics.connections, 0);
        assert_eq!(metrics.send_buffers_outstanding, 0);
        assert_eq!(metrics.carry_buffers_outstanding, 0);
        assert_eq!(self.shard.driver_mut().sockets_open(), 1, "only the listener is left");
    }
}

impl Ue {
    fn new(
        termination: u64,
        address: SocketAddr,
        handshake: Option<Handshake>,
        peer: PeerId,
    ) -> Self {
        let scheme = if handshake.is_some() { "msrps" } else { "msrp" };
        let tls = match handshake {
            None => Tls::Plain,
            Some(handshake) => Tls::Handshaking(Box::new(handshake)),
        };
        Self {
            peer,
            termination: TerminationId(termination),
            address,
            local_uri: remote_uri(termination),
            remote_uri: format!("{scheme}://{address}/session-{termination:016};tcp"),
            tls,
            framer: Framer::default(),
            unparsed: Vec::new(),
            sealed: Vec::new(),
            current: None,
            received: Vec::new(),
        }
    }

    /// Sends bytes as they are (sealed, where there is a session).
    pub fn send_raw(&mut self, world: &mut World, bytes: &[u8]) {
        for chunk in bytes.chunks(16_000) {
            let wire = match &mut self.tls {
                Tls::Plain => chunk.to_vec(),
                Tls::Handshaking(_) | Tls::Failed => panic!("the handshake is not done"),
                Tls::Session(session) => {
                    let mut memory = vec![0; chunk.len() + 13 + 128];
                    memory[13..13 + chunk.len()].copy_from_slice(chunk);
                    let range = session.seal(&mut memory, 13..13 + chunk.len()).unwrap();
                    memory[range].to_vec()
                }
            };
            world.shard.driver_mut().peer_send(self.peer, &wire);
        }
    }

    /// A SEND with a body.
    pub fn send(&self, transaction_id: &str, message_id: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        self.chunk(transaction_id, message_id, &format!("1-{length}/{length}"), body, '$')
    }

    /// A chunk of a SEND.
    pub fn chunk(
        &self,
        transaction_id: &str,
        message_id: &str,
        byte_range: &str,
        body: &[u8],
        flag: char,
    ) -> Vec<u8> {
        let (to, from) = (&self.remote_uri, &self.local_uri);
        let head = format!(
            "MSRP {transaction_id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
             Message-ID: {message_id}\r\nByte-Range: {byte_range}\r\n\
             Content-Type: text/plain\r\n\r\n"
        );
        let end = format!("\r\n-------{transaction_id}{flag}\r\n");
        [head.as_bytes(), body, end.as_bytes()].concat()
    }

    pub fn empty_send(&self, transaction_id: &str) -> Vec<u8> {
        let (to, from) = (&self.remote_uri, &self.local_uri);
        format!(
            "MSRP {transaction_id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
             Message-ID: m{transaction_id}\r\nByte-Range: 1-0/0\r\n-------{transaction_id}$\r\n"
        )
        .into_bytes()
    }

    /// The message whose end has not come yet.
    pub fn incomplete(&self) -> Option<&Received> {
        self.current.as_ref()
    }

    /// Answers every SEND that was received and not answered.
    pub fn answer(&mut self, world: &mut World, status: u16) {
        let mut responses = Vec::new();
        for message in &mut self.received {
            if message.method.as_deref() == Some("Send") && !message.answered {
                message.answered = true;
                let (to, from) = (&message.from_path, &message.to_path);
                responses.extend(response(&message.transaction_id, status, to, from));
            }
        }
        self.send_raw(world, &responses);
        world.settle();
    }

    /// REPORTs received, which are then forgotten: status, Message-ID, Byte-Range.
    pub fn take_reports(&mut self) -> Vec<(u16, String, String)> {
        let is_report = |m: &Received| m.method.as_deref() == Some("Report");
        let reports = self
            .received
            .iter()
            .filter(|m| is_report(m))
            .map(|m| {
                let range = m.header("Byte-Range").expect("every REPORT of ours has one");
                (m.report_status.expect("so has it a Status"), m.message_id.clone().unwrap(), range)
            })
            .collect();
        self.received.retain(|m| !is_report(m));
        reports
    }

    pub fn is_secured(&self) -> bool {
        matches!(self.tls, Tls::Session(_))
    }

    /// Takes what has arrived, answering handshake flights.
    pub fn read(&mut self, world: &mut World) {
        let arrived = world.shard.driver_mut().peer_received(self.peer);
        if matches!(self.tls, Tls::Plain) {
            self.unparsed.extend_from_slice(&arrived);
        } else {
            self.sealed.extend_from_slice(&arrived);
            self.open(world);
        }
        self.parse();
    }

    fn open(&mut self, world: &mut World) {
        loop {
            match &mut self.tls {
                Tls::Plain | Tls::Failed => return,
                Tls::Handshaking(handshake) => {
                    let mut output = Vec::new();
                    let result = handshake.advance(&self.sealed, &mut output);
                    world.shard.driver_mut().peer_send(self.peer, &output);
                    match result {
                        Ok((taken, Progress::Done(session))) => {
                            self.sealed.drain(..taken);
                            self.tls = Tls::Session(Box::new(session));
                        }
                        Ok((taken, _)) => {
                            self.sealed.drain(..taken);
                            return;
                        }
                        Err(_) => self.tls = Tls::Failed,
                    }
                }
                Tls::Session(session) => match session.open(&mut self.sealed) {
                    Ok(Opened::Data { plaintext, consumed }) => {
                        self.unparsed.extend_from_slice(&self.sealed[plaintext]);
                        self.sealed.drain(..consumed);
                    }
                    Ok(Opened::NeedInput) => return,
                    Ok(Opened::Handled { consumed }) => drop(self.sealed.drain(..consumed)),
                    Ok(Opened::CloseNotify { .. }) => return,
                    // The shard ended a session that this UE has broken.
                    Err(RecordError::AlertReceived(_)) => return self.tls = Tls::Failed,
                    Err(error) => panic!("the node sent a bad record: {error:?}"),
                },
            }
        }
    }

    fn parse(&mut self) {
        let mut taken = 0;
        while let Some(piece) = self.framer.next(&self.unparsed[taken..]).expect("well-formed") {
            taken += piece.consumed;
            if let Some(head) = &piece.head {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let mut message = Received {
                    transaction_id: text(head.transaction_id),
                    message_id: head.message_id.map(text),
                    byte_range_start: head.byte_range.map(|range| range.start),
                    byte_range: head.byte_range,
                    failure_report: head.failure_report,
                    success_report: head.success_report,
                    header_lines: text(head.header_lines),
                    report_status: head.status.as_ref().map(|status| status.code),
                    content_type: head.content_type.map(text),
                    to_path: text(head.to_path.0),
                    from_path: text(head.from_path.0),
                    ..Received::default()
                };
                match head.start {
                    Start::Request(method) => message.method = Some(format!("{method:?}")),
                    Start::Response(status, _) => message.status = Some(status),
                }
                self.current = Some(message);
            }
            let current = self.current.as_mut().expect("a head comes first");
            current.body.extend_from_slice(piece.body);
            if let Some(end) = piece.end {
                current.end = Some(match end {
                    Continuation::Last => '$',
                    Continuation::More => '+',
                    Continuation::Abort => '#',
                });
                self.received.push(self.current.take().expect("just seen"));
            }
        }
        self.unparsed.drain(..taken);
    }

    /// Status codes of the responses received, which are then forgotten.
    pub fn take_statuses(&mut self) -> Vec<u16> {
        let statuses = self.received.iter().filter_map(|message| message.status).collect();
        self.received.retain(|message| message.status.is_none());
        statuses
    }

    /// Bodies of the SENDs received, chunks put together by Message-ID, in order of completion.
    pub fn messages(&self) -> Vec<(String, Vec<u8>, char)> {
        let mut open: Vec<(String, Vec<u8>)> = Vec::new();
        let mut complete = Vec::new();
        for chunk in self.received.iter().filter(|m| m.method.as_deref() == Some("Send")) {
            let id = chunk.message_id.clone().expect("every SEND has one");
            let position = open.iter().position(|(open_id, _)| *open_id == id);
            // The request that binds; otherwise the end of a message.
            if chunk.content_type.is_none() && chunk.end == Some('$') && position.is_none() {
                continue;
            }
            let position = position.unwrap_or_else(|| {
                open.push((id.clone(), Vec::new()));
                open.len() - 1
            });
            let start = chunk.byte_range_start.expect("every SEND of ours has one");
            assert_eq!(start, open[position].1.len() as u64 + 1, "no gap, no overlap");
            open[position].1.extend_from_slice(&chunk.body);
            if chunk.end != Some('+') {
                let (id, body) = open.remove(position);
                complete.push((id, body, chunk.end.expect("complete")));
            }
        }
        complete
    }

    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.messages().into_iter().map(|(_, body, _)| body).collect()
    }
}

fn client_handshake(key: Option<(Vec<u8>, &Psk)>) -> Option<Handshake> {
    let profile = Profile::new(&ProfileConfig::default()).unwrap();
    key.map(|(identity, psk)| Handshake::client(&profile, &identity, psk).unwrap())
}

pub fn identity(termination: u64) -> Vec<u8> {
    format!("{termination:08x}.1").into_bytes()
}

pub fn key(byte: u8) -> Psk {
    Psk::new(vec![byte; 16]).unwrap()
}

fn remote_uri(termination: u64) -> String {
    format!("msrp://192.0.2.1:9/ue-{termination};tcp")
}

pub fn reservation(context: u64, termination: u64, psk: Option<&Psk>) -> ReserveAndConfigure {
    ReserveAndConfigure {
        context: ContextId(context),
        switching: Switching::TwoParty,
        termination: TerminationId(termination),
        security: match psk {
            None => Security::Plain,
            Some(psk) => Security::TlsPsk { identity: identity(termination), psk: psk.clone() },
        },
        setup: Setup::Passive,
        session_id: format!("session-{termination:016}"),
        remote_path: Some(remote_uri(termination)),
        member: Member {
            uris: vec![format!("sip:ue{termination}@example.com")],
            private_messages: true,
            muted: false,
        },
        realm: RealmId::default(),
        file_transfer: false,
        accept_types: "*".into(),
        accept_wrapped_types: String::new(),
        direction: Direction::SendRecv,
        max_size_bytes: None,
        own_port: false,
    }
}
