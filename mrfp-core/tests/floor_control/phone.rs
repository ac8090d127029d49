//! Participants that speak real BFCP and TLS to a shard, and the rooms they are in.

use std::net::SocketAddr;

use mrfp_core::Psk;
use mrfp_core::floor::{ConferencePolicy, FloorOrder, FloorPolicy, ThirdPartyRequests};
use mrfp_core::mp::*;
use mrfp_io::PeerId;
use mrfp_protocol::bfcp::{Framer, Header, Primitive, Transport, Value, Writer};
use mrfp_protocol::tls::{Handshake, Opened, Profile, ProfileConfig, Progress, Session};

use crate::common::{Ue, World, identity, key};
use crate::room_support::{self, client, configure};
use crate::shown::shown;

pub const CONFERENCE: u32 = 4321;
pub const GRACE_SECONDS: u64 = 10;
/// The floor that is for the messages, one that is reported, and the chair's.
pub const MESSAGES: u16 = 1;
pub const REPORTED: u16 = 2;
pub const CHAIRED: u16 = 3;

/// A participant's end of its connection.
pub struct Phone {
    pub peer: PeerId,
    pub user_id: u16,
    tls: Tls,
    /// As TLS server: the key it has.
    psk: Option<Psk>,
    /// As TLS server: how the shard has called itself.
    pub named: Vec<u8>,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    transaction_id: u16,
}

enum Tls {
    Plain,
    Handshaking(Box<Handshake>),
    Failed,
    Session(Box<Session>),
}

pub fn profile() -> Profile {
    Profile::new(&ProfileConfig::default()).unwrap()
}

impl Phone {
    pub fn new(peer: PeerId, user_id: u16, handshake: Option<Handshake>) -> Self {
        let tls = handshake.map_or(Tls::Plain, |it| Tls::Handshaking(Box::new(it)));
        let (sealed, plain, named) = (Vec::new(), Vec::new(), Vec::new());
        Self { peer, user_id, tls, psk: None, named, sealed, plain, transaction_id: 0 }
    }

    /// Connects in the clear.
    pub fn plain(world: &mut World, address: SocketAddr, user_id: u16) -> Self {
        let peer = world.shard.driver_mut().peer_connect(address);
        Self::new(peer, user_id, None)
    }

    /// Connects, and is TLS client with that key.
    pub fn client(world: &mut World, address: SocketAddr, user_id: u16, psk: &Psk) -> Self {
        let peer = world.shard.driver_mut().peer_connect(address);
        Self::client_on(world, peer, user_id, psk)
    }

    pub fn client_on(world: &mut World, peer: PeerId, user_id: u16, psk: &Psk) -> Self {
        let named = identity(u64::from(user_id));
        let handshake = Handshake::client(&profile(), &named, psk).unwrap();
        let mut phone = Self::new(peer, user_id, Some(handshake));
        phone.shake_hands(world);
        phone
    }

    /// Connects, and is TLS server with that key.
    pub fn server(world: &mut World, address: SocketAddr, user_id: u16, psk: &Psk) -> Self {
        let peer = world.shard.driver_mut().peer_connect(address);
        Self::server_on(world, peer, user_id, psk)
    }

    pub fn server_on(world: &mut World, peer: PeerId, user_id: u16, psk: &Psk) -> Self {
        let handshake = Handshake::server(&profile()).unwrap();
        let mut phone = Self::new(peer, user_id, Some(handshake));
        phone.psk = Some(psk.clone());
        phone.shake_hands(world);
        phone
    }

    pub fn shake_hands(&mut self, world: &mut World) {
        for _ in 0..6 {
            self.read(world);
            world.settle();
        }
    }

    pub fn is_secured(&self) -> bool {
        matches!(self.tls, Tls::Session(_))
    }

    /// Whether it can say anything.
    pub fn is_ready(&self) -> bool {
        matches!(self.tls, Tls::Plain | Tls::Session(_))
    }

    pub fn saw_end(&self, world: &mut World) -> bool {
        world.shard.driver_mut().peer_saw_end(self.peer)
    }

    pub fn send_raw(&mut self, world: &mut World, bytes: &[u8]) {
        let wire = match &mut self.tls {
            Tls::Plain => bytes.to_vec(),
            Tls::Handshaking(_) | Tls::Failed => panic!("the handshake is not done"),
            Tls::Session(session) => {
                let mut memory = vec![0; bytes.len() + 13 + 128];
                memory[13..13 + bytes.len()].copy_from_slice(bytes);
                let range = session.seal(&mut memory, 13..13 + bytes.len()).unwrap();
                memory[range].to_vec()
            }
        };
        world.shard.driver_mut().peer_send(self.peer, &wire);
    }

    pub fn message(&mut self, primitive: Primitive, values: &[Value<'_>]) -> Vec<u8> {
        self.transaction_id += 1;
        let id = self.transaction_id;
        let header = Header::new(Transport::Reliable, primitive, CONFERENCE, id, self.user_id);
        let mut out = vec![0; 4096];
        let mut writer = Writer::new(&mut out, &header).unwrap();
        values.iter().for_each(|value| writer.put(value).unwrap());
        let length = writer.finish();
        out.truncate(length);
        out
    }

    /// What it hears after it has said something, in order.
    pub fn say(&mut self, world: &mut World, bytes: &[u8]) -> Vec<String> {
        self.send_raw(world, bytes);
        world.settle();
        self.heard(world)
    }

    pub fn ask(&mut self, world: &mut World, primitive: Primitive, values: &[Value<'_>]) -> String {
        let message = self.message(primitive, values);
        let heard = self.say(world, &message);
        assert!(!heard.is_empty(), "no answer to {primitive:?}");
        heard[0].clone()
    }

    pub fn hello(&mut self, world: &mut World) -> String {
        self.ask(world, Primitive::Hello, &[])
    }

    pub fn request(&mut self, world: &mut World, floor: u16) -> String {
        self.ask(world, Primitive::FloorRequest, &[Value::FloorId(floor)])
    }

    pub fn release(&mut self, world: &mut World, request: u16) -> String {
        self.ask(world, Primitive::FloorRelease, &[Value::FloorRequestId(request)])
    }

    pub fn query(&mut self, world: &mut World, floor: u16) -> String {
        self.ask(world, Primitive::FloorQuery, &[Value::FloorId(floor)])
    }

    /// What has come since it was last asked.
    pub fn heard(&mut self, world: &mut World) -> Vec<String> {
        self.read(world);
        let mut heard = Vec::new();
        let framer = Framer::new(65_536);
        while let Some(message) = framer.next(&self.plain).expect("not too long") {
            heard.push(shown(message, Transport::Reliable));
            let length = message.len();
            self.plain.drain(..length);
        }
        heard
    }

    /// Takes what has arrived, answering handshake flights.
    pub fn read(&mut self, world: &mut World) {
        let arrived = world.shard.driver_mut().peer_received(self.peer);
        if matches!(self.tls, Tls::Plain) {
            self.plain.extend_from_slice(&arrived);
            return;
        }
        self.sealed.extend_from_slice(&arrived);
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
                        Ok((taken, Progress::NeedPsk)) => {
                            self.sealed.drain(..taken);
                            self.named = handshake.identity().to_vec();
                            handshake.provide_psk(self.psk.as_ref());
                        }
                        Ok((taken, Progress::NeedInput)) => {
                            self.sealed.drain(..taken);
                            return;
                        }
                        Err(_) => self.tls = Tls::Failed,
                    }
                }
                Tls::Session(session) => match session.open(&mut self.sealed) {
                    Ok(Opened::Data { plaintext, consumed }) => {
                        self.plain.extend_from_slice(&self.sealed[plaintext]);
                        self.sealed.drain(..consumed);
                    }
                    Ok(Opened::Handled { consumed }) => drop(self.sealed.drain(..consumed)),
                    Ok(Opened::NeedInput | Opened::CloseNotify { .. }) => return,
                    Err(error) => panic!("the node sent a bad record: {error:?}"),
                },
            }
        }
    }
}

pub fn floor_policy(order: FloorOrder) -> FloorPolicy {
    FloorPolicy { order, holders_max: 1, requests_per_user_max: 2, holding_max_ns: None }
}

/// The floors of every room of these tests.
pub fn floors(moderated: bool) -> FloorControl {
    let first = FloorOrder::FirstComeFirstServed;
    let floor = |floor_id, order, governs_messages, reported| Floor {
        floor_id,
        policy: floor_policy(order),
        governs_messages,
        reported,
    };
    FloorControl {
        conference_id: CONFERENCE,
        policy: ConferencePolicy {
            grace_ns: GRACE_SECONDS * 1_000_000_000,
            third_party_requests: ThirdPartyRequests::Chairs,
        },
        floors: vec![
            floor(MESSAGES, first, true, false),
            floor(REPORTED, first, false, true),
            floor(CHAIRED, FloorOrder::Chair, false, false),
        ],
        moderated,
    }
}

pub fn room(moderated: bool) -> ChatRoomPolicy {
    ChatRoomPolicy { floors: Some(Box::new(floors(moderated))), ..room_support::policy() }
}

/// A member of the room, by MSRP, who has connected.
pub fn member(world: &mut World, termination: u64, moderated: bool) -> Ue {
    let name = format!("ue{termination}");
    room_support::join(world, termination, &room(moderated), client(&name))
}

/// A room with one member, Termination 1.
pub fn with_room(moderated: bool) -> (World, Ue) {
    let mut world = World::calm();
    let ue = member(&mut world, 1, moderated);
    (world, ue)
}

/// A room whose first member has not connected.
pub fn empty_room(world: &mut World) {
    world.reserve_with(1, 1, None, |reserve| configure(reserve, &room(false), client("ue1")));
}

/// The Termination of a user for BFCP has the number of the user.
pub fn reservation(user_id: u16, setup: Setup, security: Security) -> ReserveFloorControl {
    ReserveFloorControl {
        context: ContextId(1),
        termination: TerminationId(u64::from(user_id)),
        stream: FloorStream {
            transport: FloorTransport::Tcp(setup),
            security,
            tls_role: TlsRole::Server,
        },
        unanswered: false,
        user_id,
        display_name: String::new(),
        uri: String::new(),
        speaks_by: None,
        realm: RealmId::default(),
        own_port: false,
    }
}

pub fn secured(user_id: u16, byte: u8) -> Security {
    Security::TlsPsk { identity: identity(u64::from(user_id)), psk: key(byte) }
}

pub fn reserve(world: &mut World, reserve: ReserveFloorControl) -> Result<SocketAddr, Refusal> {
    let termination = reserve.termination;
    world.command(Command::ReserveFloorControl(Box::new(reserve)));
    answer(world, termination)
}

pub fn replace(world: &mut World, replace: ReplaceFloorControl) -> Result<SocketAddr, Refusal> {
    let termination = replace.termination;
    world.command(Command::ReplaceFloorControl(Box::new(replace)));
    answer(world, termination)
}

fn answer(world: &World, termination: TerminationId) -> Result<SocketAddr, Refusal> {
    let answer = world.seen.iter().rev().find_map(|event| match event {
        Event::Reserved { termination: id, address } if *id == termination => Some(Ok(*address)),
        Event::Refused { termination: id, reason } if *id == termination => Some(Err(*reason)),
        _ => None,
    });
    answer.expect("an answer")
}

/// A participant in the clear whose messages pass by a Termination.
pub fn participant(world: &mut World, user_id: u16, speaks_by: Option<u64>) -> Phone {
    let mut wanted = reservation(user_id, Setup::Passive, Security::Plain);
    wanted.speaks_by = speaks_by.map(TerminationId);
    let address = reserve(world, wanted).unwrap();
    let mut phone = Phone::plain(world, address, user_id);
    assert_eq!(phone.hello(world), HELLO);
    assert!(world.is_bound(u64::from(user_id)));
    phone
}

pub const HELLO: &str = "HelloAck 1: primitives 13 attributes 18";

pub fn act(world: &mut World, action: FloorAction) -> FloorsAnswer {
    world.command(Command::Floors { context: ContextId(1), action: Box::new(action) });
    let at = world.seen.iter().rposition(|event| matches!(event, Event::Floors { .. }));
    match world.seen.remove(at.expect("an answer")) {
        Event::Floors { context: ContextId(1), answer } => answer,
        other => panic!("{other:?}"),
    }
}

pub fn released(world: &World, termination: u64) -> Option<ReleaseCause> {
    world.seen.iter().rev().find_map(|event| match event {
        Event::BearerReleased { termination: id, cause } if id.0 == termination => Some(*cause),
        _ => None,
    })
}

pub fn bound(world: &World, termination: u64) -> usize {
    let is =
        |event: &&Event| matches!(event, Event::Bound { termination: id } if id.0 == termination);
    world.seen.iter().filter(is).count()
}
