//! A gateway, its controller, and the peers of both sides.
#![allow(unreachable_pub, reason = "as in the other worlds of these tests")]
#![allow(dead_code, reason = "a module for each kind of test uses a part of it")]

use std::net::SocketAddr;

use mrfp_core::mp::{
    Bearer, Command, ConfigureConnectionPoint, ContextId, Establishment, Event, InterfaceId,
    RealmId, Refusal, ReleaseCause, RemoteConnectionPoint, ReserveConnectionPoint, Source,
    TerminationId, TerminationStatistics, TlsRole,
};
use mrfp_core::{Certificates, GatewayParts, Interface, Limits};
use mrfp_io::{ConnectAnswer, PeerId, Producer, Simulator, SimulatorConfig, queue};
use mrfp_protocol::tls::{
    AnnouncedProfile, Fingerprint, Handshake, HandshakeError, Identity, Opened, Progress,
    RecordError, Session, dtls,
};

use crate::common::World;

/// The two sides of the Context most tests have.
pub const ACCESS: u64 = 1 << 63 | 1;
pub const CORE: u64 = 1 << 63 | 2;

/// Where the peers are that we connect to.
pub const UE: &str = "198.51.100.1:2855";
pub const SERVER: &str = "203.0.113.1:2855";

pub struct Gateway {
    pub world: World,
    pub certificates: Producer<Identity>,
}

/// The far end of one connection.
pub struct Party {
    pub peer: PeerId,
    tls: Option<Tls>,
    sealed: Vec<u8>,
    /// What it has received, in the clear.
    pub received: Vec<u8>,
    /// The other end has said goodbye in TLS.
    pub was_told_goodbye: bool,
    /// What went wrong with its TLS.
    pub failure: Option<String>,
}

enum Tls {
    Handshaking(Box<Handshake>),
    Session(Box<Session>),
    Over,
}

impl Gateway {
    pub fn new(simulator: Simulator, limits: Limits) -> Self {
        let (certificates, ready) = queue(2048);
        let interfaces = ["198.18.0.1", "198.18.0.2"]
            .map(|ip| Interface { listen: ip.parse().unwrap(), advertise: None })
            .to_vec();
        let parts = GatewayParts {
            interfaces,
            certificates: Certificates::new(ready),
            tls: AnnouncedProfile::default(),
            dtls: dtls::Profile::new().unwrap(),
        };
        let world = World::with(simulator, limits, |it| it.gateway = Some(parts));
        Self { world, certificates }
    }

    pub fn calm() -> Self {
        Self::new(Simulator::without_faults(), Limits::default())
    }

    /// Every fault the simulator knows, drawn from `seed`.
    pub fn faulty(seed: u64) -> Self {
        let config = SimulatorConfig { recv_buffer_count: 8, ..SimulatorConfig::default() };
        Self::new(Simulator::with_config(seed, config), Limits::default())
    }

    pub fn certificate_is_ready(&mut self) {
        self.certificates.push(Identity::self_signed().unwrap()).unwrap();
    }

    /// Reserves a connection point; one more certificate is ready where it takes one.
    pub fn reserve(
        &mut self,
        termination: u64,
        bearer: Bearer,
        remote: Option<RemoteConnectionPoint>,
    ) -> (SocketAddr, Option<Fingerprint>) {
        self.reserve_in(1, termination, bearer, remote)
    }

    pub fn reserve_in(
        &mut self,
        context: u64,
        termination: u64,
        bearer: Bearer,
        remote: Option<RemoteConnectionPoint>,
    ) -> (SocketAddr, Option<Fingerprint>) {
        if bearer.is_protected() {
            self.certificate_is_ready();
        }
        let command = reservation(context, termination, bearer, remote);
        self.world.command(Command::ReserveConnectionPoint(Box::new(command)));
        let reserved = self.world.seen.iter().find_map(|event| match event {
            Event::ConnectionPointReserved { termination: id, address, fingerprint } => {
                (id.0 == termination).then(|| (*address, fingerprint.clone()))
            }
            _ => None,
        });
        reserved.unwrap_or_else(|| panic!("not reserved: {:?}", self.world.seen.last()))
    }

    pub fn refusal(&mut self, command: ReserveConnectionPoint) -> Option<Refusal> {
        self.world.command(Command::ReserveConnectionPoint(Box::new(command)));
        match self.world.seen.last() {
            Some(Event::Refused { reason, .. }) => Some(*reason),
            _ => None,
        }
    }

    pub fn configure(&mut self, termination: u64, remote: RemoteConnectionPoint) {
        self.configure_with(termination, remote, false);
    }

    pub fn configure_afresh(&mut self, termination: u64, remote: RemoteConnectionPoint) {
        self.configure_with(termination, remote, true);
    }

    fn configure_with(&mut self, termination: u64, remote: RemoteConnectionPoint, afresh: bool) {
        let termination = TerminationId(termination);
        let configure = ConfigureConnectionPoint { termination, remote, afresh };
        let before = self.world.seen.len();
        self.world.command(Command::ConfigureConnectionPoint(Box::new(configure)));
        let is_answer = |event: &Event| matches!(event, Event::Modified { termination: id } if *id == termination);
        assert!(self.world.seen[before..].iter().any(is_answer), "{:?}", self.world.seen);
    }

    pub fn subtract(&mut self, termination: u64) {
        let termination = TerminationId(termination);
        self.world.command(Command::Subtract { termination });
    }

    pub fn statistics(&self, termination: u64) -> TerminationStatistics {
        let of_it = |event: &Event| match event {
            Event::Subtracted { termination: id, statistics } if id.0 == termination => {
                Some(*statistics)
            }
            _ => None,
        };
        self.world.seen.iter().find_map(of_it).expect("subtracted")
    }

    pub fn times_bound(&self, termination: u64) -> usize {
        let is_it =
            |it: &&Event| matches!(it, Event::Bound { termination: id } if id.0 == termination);
        self.world.seen.iter().filter(is_it).count()
    }

    pub fn is_bound(&self, termination: u64) -> bool {
        self.times_bound(termination) > 0
    }

    /// What was reported of a connection point, in order.
    pub fn causes(&self, termination: u64) -> Vec<ReleaseCause> {
        let of_it = |event: &Event| match event {
            Event::BearerReleased { termination: id, cause } if id.0 == termination => Some(*cause),
            _ => None,
        };
        self.world.seen.iter().filter_map(of_it).collect()
    }

    /// A peer connects, and as far as it goes shakes hands.
    pub fn connect(&mut self, address: SocketAddr, handshake: Option<Handshake>) -> Party {
        let peer = self.world.shard.driver_mut().peer_connect(address);
        let mut party = Party::new(peer, handshake);
        self.work(&mut [&mut party]);
        party
    }

    /// The peer that the node has connected to.
    pub fn answer(&mut self, handshake: Option<Handshake>) -> Party {
        let peer = self.world.shard.driver_mut().next_connected().expect("a connection of ours");
        let mut party = Party::new(peer, handshake);
        self.work(&mut [&mut party]);
        party
    }

    pub fn accepts_connections(&mut self, address: &str) {
        let driver = self.world.shard.driver_mut();
        driver.answer_connects(address.parse().unwrap(), ConnectAnswer::Accept);
    }

    /// Lets everything happen that can.
    pub fn work(&mut self, parties: &mut [&mut Party]) {
        for _ in 0..8 {
            self.world.settle();
            parties.iter_mut().for_each(|party| party.read(&mut self.world));
        }
    }

    /// Two sides of plain TCP that are up: both peers have connected.
    pub fn plain_pair(&mut self) -> (Party, Party) {
        let access = self.reserve(ACCESS, Bearer::Tcp, Some(incoming())).0;
        let core = self.reserve(CORE, Bearer::Tcp, Some(incoming())).0;
        let (a, b) = (self.connect(access, None), self.connect(core, None));
        assert!(self.is_bound(ACCESS) && self.is_bound(CORE));
        (a, b)
    }

    /// A UE with TLS, as client or server of TCP and of TLS, and a peer in the core without.
    pub fn secured_pair(
        &mut self,
        establishment: Establishment,
        tls_role: TlsRole,
    ) -> (Party, Party) {
        let ue = Identity::self_signed().unwrap();
        let (access, fingerprint) = self.reserve(ACCESS, Bearer::TlsOverTcp, None);
        let core = self.reserve(CORE, Bearer::Tcp, Some(incoming())).0;
        let handshake = shakes(&ue, tls_role, &[fingerprint.unwrap()]);
        self.accepts_connections(UE);
        self.configure(ACCESS, secured(establishment, tls_role, vec![ue.fingerprint()]));
        let a = match establishment {
            Establishment::Incoming => self.connect(access, Some(handshake)),
            Establishment::AtOnce | Establishment::WhenOtherComesIn => self.answer(Some(handshake)),
        };
        let b = self.connect(core, None);
        assert_eq!(a.failure, None);
        assert!(self.is_bound(ACCESS) && self.is_bound(CORE));
        (a, b)
    }

    /// The ports of the connection points, in the order they were made.
    pub fn ports(&self) -> Vec<SocketAddr> {
        let of_it = |event: &Event| match event {
            Event::ConnectionPointReserved { address, .. } => Some(*address),
            _ => None,
        };
        self.world.seen.iter().filter_map(of_it).collect()
    }

    /// What the certificate of a connection point is known by.
    pub fn own_fingerprint(&self, termination: u64) -> Fingerprint {
        let of_it = |event: &Event| match event {
            Event::ConnectionPointReserved { termination: id, fingerprint, .. } => {
                fingerprint.clone().filter(|_| id.0 == termination)
            }
            _ => None,
        };
        self.world.seen.iter().find_map(of_it).expect("TLS ends there")
    }

    /// Subtracts both sides; nothing of them is left.
    pub fn subtract_both(&mut self) {
        self.world.subtract_all([ACCESS, CORE]);
    }
}

impl Party {
    pub fn new(peer: PeerId, handshake: Option<Handshake>) -> Self {
        Self {
            peer,
            tls: handshake.map(|handshake| Tls::Handshaking(Box::new(handshake))),
            sealed: Vec::new(),
            received: Vec::new(),
            was_told_goodbye: false,
            failure: None,
        }
    }

    pub fn is_secured(&self) -> bool {
        matches!(self.tls, Some(Tls::Session(_)))
    }

    /// What a send looks like on the wire.
    pub fn wire(&mut self, bytes: &[u8]) -> Vec<u8> {
        let session = match &mut self.tls {
            None => return bytes.to_vec(),
            Some(Tls::Session(session)) => session,
            Some(Tls::Handshaking(_) | Tls::Over) => panic!("there is no session"),
        };
        let mut wire = Vec::new();
        for chunk in bytes.chunks(16_000) {
            let mut memory = vec![0; chunk.len() + 13 + 128];
            memory[13..13 + chunk.len()].copy_from_slice(chunk);
            let range = session.seal(&mut memory, 13..13 + chunk.len()).unwrap();
            wire.extend_from_slice(&memory[range]);
        }
        wire
    }

    pub fn send(&mut self, gateway: &mut Gateway, bytes: &[u8]) {
        let wire = self.wire(bytes);
        gateway.world.shard.driver_mut().peer_send(self.peer, &wire);
    }

    /// Says goodbye in TLS.
    pub fn say_goodbye(&mut self, gateway: &mut Gateway) {
        let Some(Tls::Session(session)) = &mut self.tls else { panic!("there is no session") };
        let wire = session.close_notify();
        gateway.world.shard.driver_mut().peer_send(self.peer, &wire);
    }

    pub fn saw_end(&self, gateway: &mut Gateway) -> bool {
        gateway.world.shard.driver_mut().peer_saw_end(self.peer)
    }

    pub fn was_reset(&self, gateway: &mut Gateway) -> bool {
        gateway.world.shard.driver_mut().peer_was_reset(self.peer)
    }

    pub fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    /// Takes what has arrived, answering handshake flights.
    pub fn read(&mut self, world: &mut World) {
        let arrived = world.shard.driver_mut().peer_received(self.peer);
        let Some(tls) = &mut self.tls else {
            return self.received.extend_from_slice(&arrived);
        };
        self.sealed.extend_from_slice(&arrived);
        loop {
            match tls {
                Tls::Over => return,
                Tls::Handshaking(handshake) => {
                    let mut output = Vec::new();
                    let result = handshake.advance(&self.sealed, &mut output);
                    world.shard.driver_mut().peer_send(self.peer, &output);
                    match result {
                        Ok((taken, Progress::Done(session))) => {
                            self.sealed.drain(..taken);
                            *tls = Tls::Session(Box::new(session));
                        }
                        Ok((taken, _)) => {
                            self.sealed.drain(..taken);
                            return;
                        }
                        Err(error) => {
                            self.failure = Some(failure_of_handshake(error));
                            *tls = Tls::Over;
                        }
                    }
                }
                Tls::Session(session) => match session.open(&mut self.sealed) {
                    Ok(Opened::NeedInput) => return,
                    Ok(Opened::Data { plaintext, consumed }) => {
                        self.received.extend_from_slice(&self.sealed[plaintext]);
                        self.sealed.drain(..consumed);
                    }
                    Ok(Opened::Handled { consumed }) => {
                        self.sealed.drain(..consumed);
                        let output = session.pending_output();
                        world.shard.driver_mut().peer_send(self.peer, &output);
                    }
                    Ok(Opened::CloseNotify { .. }) => {
                        self.was_told_goodbye = true;
                        return;
                    }
                    Err(error) => {
                        self.failure = Some(failure_of_record(error));
                        *tls = Tls::Over;
                    }
                },
            }
        }
    }
}

fn failure_of_handshake(error: HandshakeError) -> String {
    match error {
        HandshakeError::AlertReceived(alert) => format!("alert {alert}"),
        error => error.to_string(),
    }
}

fn failure_of_record(error: RecordError) -> String {
    match error {
        RecordError::AlertReceived(alert) => format!("alert {alert}"),
        error => format!("{error:?}"),
    }
}

/// The peer's side of a handshake in which we have `ours` for a role.
pub fn shakes(identity: &Identity, ours: TlsRole, announced: &[Fingerprint]) -> Handshake {
    match ours {
        TlsRole::Server => {
            Handshake::announced_client(&AnnouncedProfile::default(), identity, announced).unwrap()
        }
        TlsRole::Client => {
            Handshake::announced_server(&AnnouncedProfile::default(), identity, announced).unwrap()
        }
    }
}

pub fn reservation(
    context: u64,
    termination: u64,
    bearer: Bearer,
    remote: Option<RemoteConnectionPoint>,
) -> ReserveConnectionPoint {
    ReserveConnectionPoint {
        context: ContextId(context),
        termination: TerminationId(termination),
        realm: RealmId::default(),
        interface: InterfaceId((termination % 2) as u16),
        bearer,
        remote,
    }
}

/// A peer of plain TCP that connects.
pub fn incoming() -> RemoteConnectionPoint {
    RemoteConnectionPoint {
        address: None,
        establishment: Establishment::Incoming,
        tls_role: TlsRole::Server,
        fingerprints: Vec::new(),
        source: Source::Any,
        msrp: None,
    }
}

/// A peer of plain TCP that is connected to.
pub fn outgoing(address: &str, establishment: Establishment) -> RemoteConnectionPoint {
    RemoteConnectionPoint { address: Some(address.parse().unwrap()), establishment, ..incoming() }
}

/// A UE with TLS.
pub fn secured(
    establishment: Establishment,
    tls_role: TlsRole,
    fingerprints: Vec<Fingerprint>,
) -> RemoteConnectionPoint {
    RemoteConnectionPoint { tls_role, fingerprints, ..outgoing(UE, establishment) }
}
