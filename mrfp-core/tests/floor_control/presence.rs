//! Connections that are lost, and others that take their place.

use std::net::SocketAddr;

use mrfp_core::mp::*;
use mrfp_io::ConnectAnswer;
use mrfp_protocol::bfcp::Primitive;

use crate::common::{World, identity, key};
use crate::phone::*;

/// Another connection for user 11, with that key.
fn again(world: &mut World, byte: u8, tls_role: TlsRole, own_port: bool) -> SocketAddr {
    let stream = FloorStream {
        transport: FloorTransport::Tcp(Setup::Passive),
        security: secured(11, byte),
        tls_role,
    };
    let wanted =
        ReplaceFloorControl { termination: TerminationId(11), stream, unanswered: false, own_port };
    replace(world, wanted).unwrap()
}

/// A room with user 11, by key 5, who holds the floor, and user 12, who waits for it.
fn two_users() -> (World, Phone, Phone) {
    let (mut world, _ue) = with_room(false);
    let address = reserve(&mut world, reservation(11, Setup::Passive, secured(11, 5))).unwrap();
    let mut phone = Phone::client(&mut world, address, 11, &key(5));
    phone.query(&mut world, MESSAGES);
    phone.request(&mut world, MESSAGES);
    let mut other = participant(&mut world, 12, None);
    other.request(&mut world, MESSAGES);
    phone.heard(&mut world);
    (world, phone, other)
}

fn holder(world: &mut World) -> u16 {
    let view = act(world, FloorAction::List).unwrap();
    view.floors[0].requests.iter().find(|it| it.holds).expect("somebody holds it").user_id
}

#[test]
fn who_comes_back_within_the_grace_has_what_it_had() {
    for own_port in [false, true] {
        let (mut world, phone, mut other) = two_users();
        world.shard.driver_mut().peer_reset(phone.peer);
        world.settle();
        assert_eq!(released(&world, 11), Some(ReleaseCause::ConnectionLost));
        world.pass(GRACE_SECONDS / 2);
        let address = again(&mut world, 6, TlsRole::Server, own_port);
        let old = Phone::client(&mut world, address, 11, &key(5));
        assert!(!old.is_secured(), "a key serves one connection");
        let mut phone = Phone::client(&mut world, address, 11, &key(6));
        assert!(phone.is_secured());
        assert_eq!(bound(&world, 11), 2);
        let told = phone.heard(&mut world);
        let request = "FloorRequestStatus 0: #1 Granted (1 Granted)";
        let floor = "FloorStatus 0: floor 1 #1 Granted (1 Granted) for 11 #2 Accepted@1 (1 Accepted@1) for 12";
        assert_eq!(told, [request, floor]);
        world.pass(GRACE_SECONDS * 2);
        assert_eq!(holder(&mut world), 11);
        assert_eq!(other.heard(&mut world), [""; 0]);
        world.subtract_all([1, 11, 12]);
    }
}

#[test]
fn who_does_not_come_back_in_time_loses_its_floors_and_not_its_seat() {
    let (mut world, phone, mut other) = two_users();
    world.shard.driver_mut().peer_close(phone.peer);
    world.settle();
    assert_eq!(released(&world, 11), Some(ReleaseCause::PeerClosed));
    world.pass(GRACE_SECONDS + 1);
    assert_eq!(holder(&mut world), 12);
    assert_eq!(other.heard(&mut world), ["FloorRequestStatus 0: #2 Granted (1 Granted)"]);
    let address = again(&mut world, 6, TlsRole::Server, false);
    let mut phone = Phone::client(&mut world, address, 11, &key(6));
    let query = phone.message(Primitive::UserQuery, &[]);
    let told = phone.say(&mut world, &query);
    assert!(told.contains(&"UserStatus 1: for 11".to_owned()), "{told:?}");
    world.subtract_all([1, 11, 12]);
}

#[test]
fn a_connection_that_stands_makes_way_for_another_one() {
    let (mut world, phone, _other) = two_users();
    let address = again(&mut world, 6, TlsRole::Server, false);
    world.settle();
    assert!(phone.saw_end(&mut world));
    assert_eq!(released(&world, 11), None, "it was asked for");
    let mut next = Phone::client(&mut world, address, 11, &key(6));
    assert!(next.is_secured());
    assert!(next.heard(&mut world)[0].contains("Granted"));
    assert_eq!(holder(&mut world), 11);
    world.subtract_all([1, 11, 12]);
}

#[test]
fn the_roles_may_change_with_the_connection() {
    let (mut world, _phone, _other) = two_users();
    let own = again(&mut world, 6, TlsRole::Client, true);
    let mut phone = Phone::server(&mut world, own, 11, &key(6));
    assert!(phone.is_secured());
    assert_eq!(bound(&world, 11), 2);
    phone.heard(&mut world);
    // Back to the shared port: its own is given up.
    let shared = again(&mut world, 7, TlsRole::Server, false);
    assert_ne!(own, shared);
    assert!(phone.saw_end(&mut world));
    let mut phone = Phone::client(&mut world, shared, 11, &key(7));
    assert_eq!(
        phone.ask(&mut world, Primitive::Hello, &[]).split(' ').next(),
        Some("FloorRequestStatus")
    );
    assert_eq!(bound(&world, 11), 3);
    world.subtract_all([1, 11, 12]);
}

#[test]
fn an_offer_of_ours_may_renew_a_connection() {
    let (mut world, phone, _other) = two_users();
    world.shard.driver_mut().peer_reset(phone.peer);
    world.settle();
    let stream = FloorStream {
        transport: FloorTransport::Tcp(Setup::Passive),
        security: Security::TlsPskAwaited { identity: identity(11) },
        tls_role: TlsRole::Client,
    };
    let termination = TerminationId(11);
    let offered = ReplaceFloorControl { termination, stream, unanswered: true, own_port: true };
    replace(&mut world, offered).unwrap();
    let remote = "192.0.2.1:4000".parse().unwrap();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
    world.command(Command::ModifyFloorControl(Box::new(ModifyFloorControl {
        termination,
        transport: FloorTransport::Tcp(Setup::Active { remote }),
        psk: Some(key(8)),
    })));
    let peer = world.shard.driver_mut().next_connected().expect("it connects");
    let phone = Phone::server_on(&mut world, peer, 11, &key(8));
    assert!(phone.is_secured());
    assert_eq!((bound(&world, 11), holder(&mut world)), (2, 11));
    world.subtract_all([1, 11, 12]);
}

#[test]
fn who_goes_from_tls_to_clear_text_was_told_to() {
    let (mut world, phone, _other) = two_users();
    world.shard.driver_mut().peer_reset(phone.peer);
    world.settle();
    let stream = FloorStream {
        transport: FloorTransport::Tcp(Setup::Passive),
        security: Security::Plain,
        tls_role: TlsRole::Server,
    };
    let termination = TerminationId(11);
    let wanted = ReplaceFloorControl { termination, stream, unanswered: false, own_port: false };
    let address = replace(&mut world, wanted).unwrap();
    let mut phone = Phone::plain(&mut world, address, 11);
    assert_eq!(phone.hello(&mut world), HELLO);
    assert_eq!(holder(&mut world), 11);
    world.subtract_all([1, 11, 12]);
}

#[test]
fn nobody_else_is_replaced() {
    let (mut world, _phone, _other) = two_users();
    for (termination, security, expected) in [
        (1, Security::Plain, Refusal::TerminationId),
        (99, Security::Plain, Refusal::TerminationId),
    ] {
        let transport = FloorTransport::Tcp(Setup::Passive);
        let stream = FloorStream { transport, security, tls_role: TlsRole::Server };
        let termination = TerminationId(termination);
        let wanted = ReplaceFloorControl { termination, stream, unanswered: false, own_port: true };
        assert_eq!(replace(&mut world, wanted), Err(expected));
    }
    // The ports that were made for them are gone, too.
    world.subtract_all([1, 11, 12]);
}

#[test]
fn what_comes_too_late_finds_nobody() {
    let (mut world, _phone, mut other) = two_users();
    world.command(Command::Subtract { termination: TerminationId(11) });
    assert_eq!(other.heard(&mut world), ["FloorRequestStatus 0: #2 Granted (1 Granted)"]);
    let address = world.shard.address();
    let late = Phone::client(&mut world, address, 11, &key(5));
    assert!(!late.is_secured());
    let mut late = Phone::plain(&mut world, address, 11);
    assert_eq!(late.hello(&mut world), "Error 1: 2");
    // The number is free for somebody else.
    let mut wanted = reservation(11, Setup::Passive, Security::Plain);
    wanted.termination = TerminationId(21);
    reserve(&mut world, wanted).unwrap();
    assert_eq!(late.hello(&mut world), HELLO.replace(" 1:", " 2:"));
    world.subtract_all([1, 12, 21]);
}

#[test]
fn who_never_comes_is_reported() {
    let (mut world, _ue) = with_room(false);
    reserve(&mut world, reservation(11, Setup::Passive, secured(11, 5))).unwrap();
    world.pass(40);
    assert_eq!(released(&world, 11), Some(ReleaseCause::TcpEstablishmentFailure));
    let remote: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Refuse);
    reserve(&mut world, reservation(12, Setup::Active { remote }, Security::Plain)).unwrap();
    assert_eq!(released(&world, 12), Some(ReleaseCause::TcpEstablishmentFailure));
    world.subtract_all([1, 11, 12]);
}

#[test]
fn who_speaks_before_the_answer_is_heard_after_it() {
    for half in [false, true] {
        let (mut world, _ue) = with_room(false);
        let mut offer = reservation(11, Setup::Passive, Security::Plain);
        offer.unanswered = true;
        let address = reserve(&mut world, offer).unwrap();
        let mut early = Phone::plain(&mut world, address, 11);
        let mut said = early.message(Primitive::Hello, &[]);
        said.extend(early.message(Primitive::UserQuery, &[]));
        let now = if half { 20 } else { said.len() };
        assert_eq!(early.say(&mut world, &said[..now]), [""; 0]);
        let mut second = Phone::plain(&mut world, address, 11);
        assert_eq!(second.hello(&mut world), "Error 1: 5", "one waits");
        world.command(Command::ModifyFloorControl(Box::new(ModifyFloorControl {
            termination: TerminationId(11),
            transport: FloorTransport::Tcp(Setup::Passive),
            psk: None,
        })));
        let mut told = early.heard(&mut world);
        told.extend(early.say(&mut world, &said[now..]));
        assert_eq!(told, [HELLO, "UserStatus 2: for 11"], "half: {half}");
        assert_eq!(bound(&world, 11), 1);
        world.subtract_all([1, 11]);
    }
}

#[test]
fn in_the_clear_we_may_connect_too() {
    let (mut world, _ue) = with_room(false);
    let remote: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
    reserve(&mut world, reservation(11, Setup::Active { remote }, Security::Plain)).unwrap();
    let peer = world.shard.driver_mut().next_connected().expect("it connects");
    assert!(world.is_bound(11));
    let mut phone = Phone::new(peer, 11, None);
    assert_eq!(phone.hello(&mut world), HELLO, "and says nothing before");
    // A session of MSRP to the same place gets a connection of its own.
    world.reserve_with(1, 2, None, |reserve| {
        crate::room_support::configure(reserve, &room(false), crate::room_support::client("ue2"));
        reserve.setup = Setup::Active { remote };
        reserve.remote_path = Some("msrp://192.0.2.1:4000/ue2;tcp".to_owned());
    });
    assert!(world.shard.driver_mut().next_connected().is_some_and(|second| second != peer));
    assert_eq!(phone.heard(&mut world), [""; 0]);
    world.subtract_all([1, 2, 11]);
}
