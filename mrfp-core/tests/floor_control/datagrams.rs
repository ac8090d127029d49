//! BFCP over UDP: a port for each user, and a network that loses, doubles and delays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use mrfp_core::Limits;
use mrfp_core::mp::*;
use mrfp_io::{DatagramFaults, Simulator};
use mrfp_protocol::bfcp::{
    Fragments, Group, Header, Payload, Primitive, Reassembly, RequestStatus, Transport, Value,
    Writer,
};

use crate::common::World;
use crate::phone::*;
use crate::shown::shown;

/// A participant's end of its association.
struct Handset {
    user_id: u16,
    own: SocketAddr,
    /// Where the shard takes what is from it.
    remote: SocketAddr,
    transaction_id: u16,
    reassembly: Reassembly,
    /// Acknowledges what it is told.
    acknowledges: bool,
    /// What it was told already, by transaction.
    told: BTreeSet<u16>,
}

impl Handset {
    fn send(&self, world: &mut World, bytes: &[u8]) {
        world.shard.driver_mut().peer_send_datagram(self.own, self.remote, bytes);
    }

    fn message(&mut self, primitive: Primitive, values: &[Value<'_>]) -> Vec<u8> {
        self.transaction_id += 1;
        let id = self.transaction_id;
        let header = Header::new(Transport::Unreliable, primitive, CONFERENCE, id, self.user_id);
        let mut out = vec![0; 8192];
        let mut writer = Writer::new(&mut out, &header).unwrap();
        values.iter().for_each(|value| writer.put(value).unwrap());
        let length = writer.finish();
        out.truncate(length);
        out
    }

    /// What it hears after it has said something.
    fn ask(&mut self, world: &mut World, primitive: Primitive, values: &[Value<'_>]) -> String {
        let message = self.message(primitive, values);
        self.send(world, &message);
        world.settle();
        let heard = self.heard(world);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard[0].clone()
    }

    fn request(&mut self, world: &mut World, floor: u16) -> String {
        self.ask(world, Primitive::FloorRequest, &[Value::FloorId(floor)])
    }

    /// Datagrams that have come since it was last asked.
    fn datagrams(&mut self, world: &mut World) -> Vec<Vec<u8>> {
        let arrived = world.shard.driver_mut().peer_datagrams(self.own);
        let own = |(from, bytes): (SocketAddr, Vec<u8>)| {
            assert_eq!(from, self.remote, "from where it was announced");
            bytes
        };
        arrived.into_iter().map(own).collect()
    }

    /// Messages that have come whole, once each where they were acknowledged.
    fn messages(&mut self, world: &mut World) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for datagram in self.datagrams(world) {
            let header = Header::parse(&datagram, Transport::Unreliable).unwrap();
            let content = header.content(&datagram).unwrap();
            let message = match header.fragment {
                None => datagram.clone(),
                Some(_) => match self.reassembly.take(&header, content, 262_144).unwrap() {
                    Some(message) => message.to_vec(),
                    None => continue,
                },
            };
            if !header.responder && self.acknowledges {
                self.acknowledge(world, &header);
                if !self.told.insert(header.transaction_id) {
                    continue;
                }
            }
            whole.push(message);
        }
        world.settle();
        whole
    }

    fn acknowledge(&self, world: &mut World, header: &Header) {
        let primitive = match Primitive::from_code(header.primitive) {
            Some(Primitive::FloorStatus) => Primitive::FloorStatusAck,
            Some(Primitive::FloorRequestStatus) => Primitive::FloorRequestStatusAck,
            Some(Primitive::Goodbye) => Primitive::GoodbyeAck,
            other => panic!("{other:?}"),
        };
        let mut bytes = [0; 12];
        header.response(Transport::Unreliable, primitive).write(&mut bytes).unwrap();
        self.send(world, &bytes);
    }

    fn heard(&mut self, world: &mut World) -> Vec<String> {
        self.messages(world).iter().map(|it| shown(it, Transport::Unreliable)).collect()
    }
}

fn address(user_id: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 77], 5000 + user_id))
}

fn by_udp(user_id: u16, remote: Option<SocketAddr>) -> ReserveFloorControl {
    let mut wanted = reservation(user_id, Setup::Passive, Security::Plain);
    wanted.unanswered = remote.is_none();
    wanted.stream.transport = FloorTransport::Udp { remote };
    wanted
}

fn handset(user_id: u16, remote: SocketAddr) -> Handset {
    let (transaction_id, reassembly) = (0, Reassembly::default());
    let (own, told) = (address(user_id), BTreeSet::new());
    Handset { user_id, own, remote, transaction_id, reassembly, acknowledges: true, told }
}

const UDP_HELLO: &str = "HelloAck 1: primitives 17 attributes 18";

/// One that has said Hello.
fn participant(world: &mut World, user_id: u16) -> Handset {
    let remote = reserve(world, by_udp(user_id, Some(address(user_id)))).unwrap();
    let mut handset = handset(user_id, remote);
    assert!(!world.is_bound(user_id.into()));
    assert_eq!(handset.ask(world, Primitive::Hello, &[]), UDP_HELLO);
    assert!(world.is_bound(user_id.into()));
    handset
}

#[test]
fn each_user_has_a_port_and_is_bound_by_its_first_message() {
    let (mut world, _ue) = with_room(false);
    let mut one = participant(&mut world, 11);
    let mut other = participant(&mut world, 12);
    assert_ne!(one.remote, other.remote);
    assert_ne!(one.remote, world.shard.address());
    assert_eq!(one.request(&mut world, MESSAGES), "FloorRequestStatus 2: #1 Granted (1 Granted)");
    let waits = "FloorRequestStatus 2: #2 Accepted@1 (1 Accepted@1)";
    assert_eq!(other.request(&mut world, MESSAGES), waits);
    let released = one.ask(&mut world, Primitive::FloorRelease, &[Value::FloorRequestId(1)]);
    assert_eq!(released, "FloorRequestStatus 3: #1 Released (1 Released)");
    assert_eq!(other.heard(&mut world), ["FloorRequestStatus 1: #2 Granted (1 Granted)"]);
    assert_eq!(world.metrics.floor_control().retransmissions, 0);
    world.subtract_all([1, 11, 12]);
}

#[test]
fn strangers_are_not_heard_and_nobody_is_taken_for_somebody_else() {
    let (mut world, _ue) = with_room(false);
    let mut one = participant(&mut world, 11);
    let remote = reserve(&mut world, by_udp(12, Some(address(12)))).unwrap();
    // From another address: the kernel does not let it through.
    let hello = one.message(Primitive::Hello, &[]);
    world.shard.driver_mut().peer_send_datagram(address(13), one.remote, &hello);
    world.shard.driver_mut().peer_send_datagram(address(11), remote, &hello);
    world.settle();
    assert_eq!(one.heard(&mut world), [""; 0]);
    assert!(world.shard.driver_mut().peer_datagrams(address(13)).is_empty());
    // From the right one, but with the number of another user, of nobody, of another conference.
    let mut other = handset(12, remote);
    other.user_id = 11;
    assert_eq!(other.ask(&mut world, Primitive::Hello, &[]), "Error 1: 5");
    other.user_id = 99;
    assert_eq!(other.ask(&mut world, Primitive::Hello, &[]), "Error 2: 2");
    other.user_id = 12;
    let mut elsewhere = other.message(Primitive::Hello, &[]);
    elsewhere[7] ^= 1;
    other.send(&mut world, &elsewhere);
    world.settle();
    assert_eq!(other.heard(&mut world), ["Error 3: 1"]);
    assert!(!world.is_bound(12));
    assert!(other.ask(&mut world, Primitive::Hello, &[]).starts_with("HelloAck"));
    assert!(world.is_bound(12));
    // Nor may it be somebody else afterwards.
    other.user_id = 11;
    assert_eq!(other.ask(&mut world, Primitive::UserQuery, &[]), "Error 5: 5");
    // By TCP nobody gets the place of one who comes by UDP.
    let address = world.shard.address();
    let mut stream = Phone::plain(&mut world, address, 12);
    assert_eq!(stream.hello(&mut world), "Error 1: 5");
    world.subtract_all([1, 11, 12]);
}

#[test]
fn nothing_is_taken_before_the_answer_to_our_offer() {
    let (mut world, _ue) = with_room(false);
    let remote = reserve(&mut world, by_udp(11, None)).unwrap();
    let mut handset = handset(11, remote);
    let hello = handset.message(Primitive::Hello, &[]);
    handset.send(&mut world, &hello);
    world.pass(60);
    assert!(!world.is_bound(11));
    assert_eq!(released(&world, 11), None, "it may still ring");
    // Nor does anybody get its place by TCP meanwhile.
    let shared = world.shard.address();
    assert_eq!(Phone::plain(&mut world, shared, 11).hello(&mut world), "Error 1: 5");
    let answer = |remote| {
        let transport = FloorTransport::Udp { remote };
        let termination = TerminationId(11);
        Command::ModifyFloorControl(Box::new(ModifyFloorControl {
            termination,
            transport,
            psk: None,
        }))
    };
    let is_refused = |world: &World| matches!(world.seen.last(), Some(Event::Refused { .. }));
    world.command(answer(None));
    assert!(is_refused(&world));
    world.command(answer(Some(address(11))));
    assert!(matches!(world.seen.last(), Some(Event::Modified { .. })));
    assert_eq!(handset.heard(&mut world), [""; 0], "what was early is lost");
    handset.send(&mut world, &hello);
    world.settle();
    assert_eq!(handset.heard(&mut world), [UDP_HELLO]);
    world.command(answer(Some(address(12))));
    assert!(is_refused(&world), "a peer is not exchanged");
    world.subtract_all([1, 11]);
}

#[test]
fn what_cannot_be_is_refused() {
    let (mut world, _ue) = with_room(false);
    let mut nowhere = by_udp(11, Some(address(11)));
    nowhere.stream.transport = FloorTransport::Udp { remote: None };
    assert_eq!(reserve(&mut world, nowhere), Err(Refusal::Transport));
    let mut sealed = by_udp(11, Some(address(11)));
    sealed.stream.security = secured(11, 5);
    assert_eq!(reserve(&mut world, sealed), Err(Refusal::Transport));
    world.subtract_all([1]);
}

#[test]
fn who_does_not_come_is_reported() {
    let (mut world, _ue) = with_room(false);
    reserve(&mut world, by_udp(11, Some(address(11)))).unwrap();
    world.pass(40);
    assert_eq!(released(&world, 11), Some(ReleaseCause::TcpEstablishmentFailure));
    world.subtract_all([1, 11]);
}

#[test]
fn who_is_subtracted_is_told_goodbye_and_who_says_it_is_gone() {
    let (mut world, _ue) = with_room(false);
    let mut one = participant(&mut world, 11);
    let mut other = participant(&mut world, 12);
    one.request(&mut world, MESSAGES);
    other.request(&mut world, MESSAGES);
    assert_eq!(one.ask(&mut world, Primitive::Goodbye, &[]), "GoodbyeAck 3");
    assert_eq!(released(&world, 11), Some(ReleaseCause::PeerClosed));
    assert_eq!(other.heard(&mut world), ["FloorRequestStatus 1: #2 Granted (1 Granted)"]);
    world.command(Command::Subtract { termination: TerminationId(12) });
    assert_eq!(other.heard(&mut world), ["Goodbye 2"]);
    world.subtract_all([1, 11]);
}

#[test]
fn who_acknowledges_nothing_is_lost_and_may_come_back_elsewhere() {
    let (mut world, _ue) = with_room(false);
    let mut one = participant(&mut world, 11);
    let mut other = participant(&mut world, 12);
    one.request(&mut world, MESSAGES);
    other.request(&mut world, MESSAGES);
    one.ask(&mut world, Primitive::FloorRelease, &[Value::FloorRequestId(1)]);
    other.acknowledges = false;
    // The first time, and three repetitions.
    world.pass(7);
    assert_eq!(released(&world, 12), None);
    let told = "FloorRequestStatus 1: #2 Granted (1 Granted)";
    assert_eq!(other.heard(&mut world), [told; 4]);
    world.pass(2);
    assert_eq!(released(&world, 12), Some(ReleaseCause::ConnectionLost));
    // Within its grace it has what it had.
    let transport = FloorTransport::Udp { remote: Some(address(22)) };
    let stream = FloorStream { transport, security: Security::Plain, tls_role: TlsRole::Server };
    let termination = TerminationId(12);
    let wanted = ReplaceFloorControl { termination, stream, unanswered: false, own_port: true };
    let remote = replace(&mut world, wanted).unwrap();
    assert_ne!(remote, other.remote);
    let mut again = handset(12, remote);
    again.own = address(22);
    let hello = again.message(Primitive::Hello, &[]);
    again.send(&mut world, &hello);
    world.settle();
    assert_eq!(again.heard(&mut world), [UDP_HELLO, told]);
    assert_eq!(bound(&world, 12), 2);
    // And from UDP to a stream.
    let transport = FloorTransport::Tcp(Setup::Passive);
    let stream = FloorStream { transport, security: Security::Plain, tls_role: TlsRole::Server };
    let wanted = ReplaceFloorControl { termination, stream, unanswered: false, own_port: false };
    let address = replace(&mut world, wanted).unwrap();
    let mut stream = Phone::plain(&mut world, address, 12);
    let hello = stream.message(Primitive::Hello, &[]);
    let told = "FloorRequestStatus 0: #2 Granted (1 Granted)";
    assert_eq!(stream.say(&mut world, &hello), [HELLO, told]);
    world.subtract_all([1, 11, 12]);
}

#[test]
fn long_messages_come_and_leave_in_fragments() {
    let (mut world, _ue) = with_room(false);
    let mut one = participant(&mut world, 11);
    let info = "so much to say ".repeat(10);
    let values = [Value::FloorId(MESSAGES), Value::ParticipantProvidedInfo(info.as_bytes())];
    let message = one.message(Primitive::FloorRequest, &values);
    let mut fragments = Fragments::new(&message, 80);
    let mut out = [0; 80];
    while let Some(length) = fragments.next(&mut out) {
        one.send(&mut world, &out[..length]);
    }
    world.settle();
    let heard = one.heard(&mut world);
    assert_eq!(heard.len(), 1);
    assert!(heard[0].contains("Granted") && heard[0].contains(&info), "{heard:?}");
    let mut users = vec![1, 11];
    for user_id in 20..60 {
        let mut phone = participant_with_text(&mut world, user_id);
        let text = Value::ParticipantProvidedInfo(info.as_bytes());
        phone.ask(&mut world, Primitive::FloorRequest, &[Value::FloorId(MESSAGES), text]);
        users.push(u64::from(user_id));
    }
    let query = one.message(Primitive::FloorQuery, &[Value::FloorId(MESSAGES)]);
    one.send(&mut world, &query);
    world.settle();
    let arrived = one.datagrams(&mut world);
    assert!(arrived.len() > 5 && arrived.iter().all(|it| it.len() <= 1200), "{}", arrived.len());
    one.send(&mut world, &query);
    world.settle();
    let again = one.messages(&mut world);
    assert_eq!(again.len(), 1, "the answer, put together");
    assert_eq!(shown(&again[0], Transport::Unreliable).matches(&info).count(), 41);
    world.subtract_all(users);
}

fn participant_with_text(world: &mut World, user_id: u16) -> Phone {
    let address = {
        let wanted = reservation(user_id, Setup::Passive, Security::Plain);
        reserve(world, wanted).unwrap()
    };
    let mut phone = Phone::plain(world, address, user_id);
    assert_eq!(phone.hello(world), HELLO);
    phone
}

#[test]
fn a_flood_costs_its_sender_its_answers_and_nobody_else() {
    let (mut world, _ue) = with_room(false);
    let mut one = participant(&mut world, 11);
    let mut other = participant(&mut world, 12);
    for _ in 0..2_000 {
        let hello = one.message(Primitive::Hello, &[]);
        one.send(&mut world, &hello);
    }
    world.shard.turn().unwrap();
    for _ in 0..600 {
        world.shard.turn().unwrap();
        assert!(world.metrics.read().send_buffers_outstanding < 500);
    }
    assert!(other.request(&mut world, MESSAGES).contains("Granted"));
    assert!(!one.messages(&mut world).is_empty());
    // It is none the worse for it, when it stops.
    assert!(one.ask(&mut world, Primitive::Hello, &[]).starts_with("HelloAck"));
    assert_eq!(released(&world, 11), None);
    world.subtract_all([1, 11, 12]);
}

/// Users who ask for one floor in turn, over a network that does what it likes; requests are
/// repeated until they are answered, and what is told is acknowledged. How many were lost.
fn ill_used(seed: u64) -> usize {
    let mut world = World::new(Simulator::new(seed), Limits::default());
    world.shard.driver_mut().set_datagram_faults(DatagramFaults::default());
    empty_room(&mut world);
    let mut users: BTreeMap<u16, Handset> = BTreeMap::new();
    for user_id in 11..15 {
        users.insert(user_id, participant(&mut world, user_id));
    }
    let faults =
        DatagramFaults { lost_per_mille: 150, doubled_per_mille: 150, late_per_mille: 200 };
    world.shard.driver_mut().set_datagram_faults(faults);
    let mut requests: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    let mut own: BTreeMap<u16, u16> = BTreeMap::new();
    let mut granted: BTreeSet<u16> = BTreeSet::new();
    for handset in users.values_mut() {
        let message = handset.message(Primitive::FloorRequest, &[Value::FloorId(MESSAGES)]);
        requests.insert(handset.user_id, message);
    }
    let mut over: BTreeSet<u16> = BTreeSet::new();
    for _ in 0..4_000 {
        if over.len() == users.len() {
            break;
        }
        for (user_id, handset) in &mut users {
            for message in handset.messages(&mut world) {
                let header = Header::parse(&message, Transport::Unreliable).unwrap();
                let Some((id, status)) = status_of(&message, &header) else { continue };
                let answers = |it: &Vec<u8>| it[8..10] == header.transaction_id.to_be_bytes();
                if header.responder && requests.get(user_id).is_some_and(answers) {
                    requests.remove(user_id);
                }
                assert_eq!(*own.entry(*user_id).or_insert(id), id, "one request, granted once");
                if status == RequestStatus::Granted && granted.insert(*user_id) {
                    let release = [Value::FloorRequestId(id)];
                    let message = handset.message(Primitive::FloorRelease, &release);
                    requests.insert(*user_id, message);
                }
                if status == RequestStatus::Released {
                    over.insert(*user_id);
                    requests.remove(user_id);
                }
            }
        }
        for user_id in 11..15 {
            if released(&world, user_id.into()) == Some(ReleaseCause::ConnectionLost) {
                over.insert(user_id);
                requests.remove(&user_id);
            }
        }
        for (user_id, message) in &requests {
            users[user_id].send(&mut world, message);
        }
        world.shard.driver_mut().advance_ns(250_000_000);
        world.settle();
        let holders = act(&mut world, FloorAction::List).unwrap();
        assert!(holders.floors[0].requests.iter().filter(|it| it.holds).count() <= 1);
    }
    let lost = (11..15).filter(|user_id| released(&world, *user_id).is_some()).count();
    assert_eq!(over.len(), users.len(), "everybody had the floor or was lost, seed {seed}");
    assert!(granted.len() + lost >= users.len(), "seed {seed}");
    world.shard.driver_mut().set_datagram_faults(DatagramFaults::default());
    world.subtract_all([1, 11, 12, 13, 14]);
    lost
}

/// Request and status of a FloorRequestStatus.
fn status_of(message: &[u8], header: &Header) -> Option<(u16, RequestStatus)> {
    let payload = Payload::parse(header.content(message)?).ok()?;
    let information = payload.attributes.clone().next()?;
    let Value::Grouped(Group::FloorRequestInformation(id), inner) = information.value else {
        return None;
    };
    inner.into_iter().find_map(|attribute| match attribute.value {
        Value::Grouped(Group::OverallRequestStatus(_), mut status) => match status.next()?.value {
            Value::RequestStatus { status, .. } => Some((id, RequestStatus::from_code(status)?)),
            _ => None,
        },
        _ => None,
    })
}

#[test]
fn nothing_is_granted_twice_and_nothing_is_kept_from_anybody_whatever_gets_lost() {
    let lost: usize = (0..12).map(ill_used).sum();
    // Three repetitions make that rare.
    assert!(lost < 12, "{lost} of 48");
}
