//! TLS-PSK in every combination of roles: who connects and who sends the ClientHello are two things
//! (RFC 8856 section 8).

use std::net::SocketAddr;

use mrfp_core::mp::*;
use mrfp_io::ConnectAnswer;
use mrfp_protocol::bfcp::Primitive;

use crate::common::{World, identity, key};
use crate::phone::*;

fn remote() -> SocketAddr {
    "192.0.2.1:4000".parse().unwrap()
}

/// A user whose key is 5, and its phone, which has another one where that is said.
fn connected(world: &mut World, we_connect: bool, tls_role: TlsRole, byte: u8) -> Phone {
    let setup = if we_connect { Setup::Active { remote: remote() } } else { Setup::Passive };
    let mut wanted = reservation(11, setup, secured(11, 5));
    wanted.stream.tls_role = tls_role;
    wanted.own_port = tls_role == TlsRole::Client;
    world.shard.driver_mut().answer_connects(remote(), ConnectAnswer::Accept);
    let address = reserve(world, wanted).unwrap();
    let peer = match we_connect {
        true => world.shard.driver_mut().next_connected().expect("it connects"),
        false => world.shard.driver_mut().peer_connect(address),
    };
    match tls_role {
        TlsRole::Server => Phone::client_on(world, peer, 11, &key(byte)),
        TlsRole::Client => Phone::server_on(world, peer, 11, &key(byte)),
    }
}

#[test]
fn whoever_connects_the_tls_client_is_who_was_said() {
    for tls_role in [TlsRole::Server, TlsRole::Client] {
        for we_connect in [false, true] {
            let (mut world, _ue) = with_room(false);
            let mut phone = connected(&mut world, we_connect, tls_role, 5);
            assert!(phone.is_secured(), "{tls_role:?}, we connect: {we_connect}");
            assert!(world.is_bound(11), "by the key, before anything is said");
            if tls_role == TlsRole::Client {
                assert_eq!(phone.named, identity(11));
            }
            assert_eq!(phone.hello(&mut world), HELLO);
            let granted = "FloorRequestStatus 2: #1 Granted (1 Granted)";
            assert_eq!(phone.request(&mut world, MESSAGES), granted);
            world.subtract_all([1, 11]);
        }
    }
}

#[test]
fn a_wrong_key_opens_nothing_in_any_role() {
    for tls_role in [TlsRole::Server, TlsRole::Client] {
        for we_connect in [false, true] {
            let (mut world, _ue) = with_room(false);
            let phone = connected(&mut world, we_connect, tls_role, 6);
            assert!(!world.is_bound(11), "{tls_role:?}, we connect: {we_connect}");
            world.pass(1);
            assert!(phone.saw_end(&mut world));
            // Who has come may have been a stranger; whom we have called is the peer.
            let failed = Some(ReleaseCause::TlsEstablishmentFailure);
            assert_eq!(released(&world, 11), failed.filter(|_| we_connect));
            world.pass(40);
            assert_eq!(released(&world, 11), failed);
            world.subtract_all([1, 11]);
        }
    }
}

#[test]
fn on_a_connection_of_ours_only_its_own_identity_is_known() {
    let (mut world, _ue) = with_room(false);
    reserve(&mut world, reservation(12, Setup::Passive, secured(12, 6))).unwrap();
    world.shard.driver_mut().answer_connects(remote(), ConnectAnswer::Accept);
    let setup = Setup::Active { remote: remote() };
    reserve(&mut world, reservation(11, setup, secured(11, 5))).unwrap();
    let peer = world.shard.driver_mut().next_connected().unwrap();
    // It has the key of another user, who is to connect by itself.
    Phone::client_on(&mut world, peer, 12, &key(6));
    assert!(!world.is_bound(11) && !world.is_bound(12));
    assert_eq!(released(&world, 11), Some(ReleaseCause::TlsEstablishmentFailure));
    assert_eq!(released(&world, 12), None);
    world.subtract_all([1, 11, 12]);
}

#[test]
fn a_peer_that_waits_for_our_hello_where_it_is_to_send_one_is_given_up() {
    let (mut world, _ue) = with_room(false);
    world.shard.driver_mut().answer_connects(remote(), ConnectAnswer::Accept);
    let setup = Setup::Active { remote: remote() };
    reserve(&mut world, reservation(11, setup, secured(11, 5))).unwrap();
    let peer = world.shard.driver_mut().next_connected().unwrap();
    Phone::server_on(&mut world, peer, 11, &key(5));
    world.pass(8);
    assert_eq!(released(&world, 11), Some(ReleaseCause::TlsEstablishmentFailure));
    world.subtract_all([1, 11]);
}

#[test]
fn where_we_begin_there_is_one_at_a_time() {
    let (mut world, _ue) = with_room(false);
    let mut wanted = reservation(11, Setup::Passive, secured(11, 5));
    wanted.stream.tls_role = TlsRole::Client;
    wanted.own_port = true;
    let address = reserve(&mut world, wanted).unwrap();
    // It accepts our ClientHello, and says nothing.
    let idle = Phone::plain(&mut world, address, 11);
    world.settle();
    let second = Phone::server(&mut world, address, 11, &key(5));
    assert!(!second.is_secured() && second.saw_end(&mut world));
    assert!(!idle.saw_end(&mut world));
    world.pass(8);
    assert!(idle.saw_end(&mut world), "not for long");
    let mut phone = Phone::server(&mut world, address, 11, &key(5));
    assert!(phone.is_secured() && world.is_bound(11));
    assert_eq!(phone.hello(&mut world), HELLO);
    let late = Phone::server(&mut world, address, 11, &key(5));
    assert!(!late.is_secured() && late.saw_end(&mut world));
    world.subtract_all([1, 11]);
}

#[test]
fn a_hello_is_not_answered_where_we_send_it() {
    let (mut world, _ue) = with_room(false);
    let mut wanted = reservation(11, Setup::Passive, secured(11, 5));
    wanted.stream.tls_role = TlsRole::Client;
    wanted.own_port = true;
    let address = reserve(&mut world, wanted).unwrap();
    let both = Phone::client(&mut world, address, 11, &key(5));
    assert!(!both.is_secured() && !world.is_bound(11));
    world.subtract_all([1, 11]);
}

#[test]
fn as_tls_client_and_tcp_server_it_takes_a_port_of_its_own() {
    let (mut world, _ue) = with_room(false);
    let mut wanted = reservation(11, Setup::Passive, secured(11, 5));
    wanted.stream.tls_role = TlsRole::Client;
    assert_eq!(reserve(&mut world, wanted), Err(Refusal::Transport));
    world.subtract_all([1]);
}

fn offer(world: &mut World) -> SocketAddr {
    let awaited = Security::TlsPskAwaited { identity: identity(11) };
    let mut wanted = reservation(11, Setup::Passive, awaited);
    wanted.stream.tls_role = TlsRole::Client;
    wanted.own_port = true;
    wanted.unanswered = true;
    reserve(world, wanted).unwrap()
}

fn answered(world: &mut World, setup: Setup, byte: Option<u8>) {
    world.command(Command::ModifyFloorControl(Box::new(ModifyFloorControl {
        termination: TerminationId(11),
        transport: FloorTransport::Tcp(setup),
        psk: byte.map(key),
    })));
    assert!(matches!(world.seen.last(), Some(Event::Modified { .. })), "{:?}", world.seen.last());
}

#[test]
fn who_connects_before_the_answer_gets_our_hello_after_it() {
    let (mut world, _ue) = with_room(false);
    let address = offer(&mut world);
    let mut early = Phone::server(&mut world, address, 11, &key(5));
    assert!(early.named.is_empty(), "we have no key yet");
    let second = Phone::server(&mut world, address, 11, &key(5));
    assert!(second.saw_end(&mut world), "one waits");
    answered(&mut world, Setup::Passive, Some(5));
    early.shake_hands(&mut world);
    assert!(early.is_secured() && world.is_bound(11));
    assert_eq!(early.hello(&mut world), HELLO);
    world.subtract_all([1, 11]);
}

#[test]
fn an_answer_that_is_repeated_disturbs_no_handshake() {
    let (mut world, _ue) = with_room(false);
    let address = offer(&mut world);
    let peer = world.shard.driver_mut().peer_connect(address);
    world.settle();
    answered(&mut world, Setup::Passive, Some(5));
    answered(&mut world, Setup::Passive, Some(5));
    let mut phone = Phone::server_on(&mut world, peer, 11, &key(5));
    assert!(phone.is_secured() && world.is_bound(11));
    answered(&mut world, Setup::Passive, None);
    assert_eq!(phone.hello(&mut world), HELLO);
    world.subtract_all([1, 11]);
}

#[test]
fn an_answer_may_make_us_connect_and_begin() {
    let (mut world, _ue) = with_room(false);
    let address = offer(&mut world);
    let early = Phone::server(&mut world, address, 11, &key(5));
    world.shard.driver_mut().answer_connects(remote(), ConnectAnswer::Accept);
    answered(&mut world, Setup::Active { remote: remote() }, Some(5));
    assert!(early.saw_end(&mut world), "nobody was to come");
    let peer = world.shard.driver_mut().next_connected().expect("it connects");
    let mut phone = Phone::server_on(&mut world, peer, 11, &key(5));
    assert!(phone.is_secured() && world.is_bound(11));
    assert_eq!(phone.hello(&mut world), HELLO);
    world.subtract_all([1, 11]);
}

#[test]
fn an_answer_without_a_key_lets_nobody_in() {
    let (mut world, _ue) = with_room(false);
    let address = offer(&mut world);
    let mut early = Phone::server(&mut world, address, 11, &key(5));
    answered(&mut world, Setup::Passive, None);
    early.shake_hands(&mut world);
    let late = Phone::server(&mut world, address, 11, &key(5));
    for phone in [&early, &late] {
        assert!(!phone.is_secured() && phone.saw_end(&mut world));
    }
    world.pass(40);
    assert_eq!(released(&world, 11), Some(ReleaseCause::TcpEstablishmentFailure));
    world.subtract_all([1, 11]);
}

#[test]
fn a_tls_client_that_is_faster_than_the_answer_waits_for_its_key() {
    let (mut world, _ue) = with_room(false);
    let awaited = Security::TlsPskAwaited { identity: identity(11) };
    let mut wanted = reservation(11, Setup::Passive, awaited);
    wanted.unanswered = true;
    let address = reserve(&mut world, wanted).unwrap();
    let mut early = Phone::client(&mut world, address, 11, &key(5));
    assert!(!early.is_secured());
    answered(&mut world, Setup::Passive, Some(5));
    early.shake_hands(&mut world);
    assert!(early.is_secured() && world.is_bound(11));
    world.subtract_all([1, 11]);
}

#[test]
fn swapped_keys_fail_both_handshakes() {
    let mut world = World::calm();
    let policy = room(false);
    let address = world.reserve_with(1, 1, Some(&key(1)), |reserve| {
        crate::room_support::configure(reserve, &policy, crate::room_support::client("ue1"));
    });
    reserve(&mut world, reservation(11, Setup::Passive, secured(11, 2))).unwrap();
    let messages = world.connect(1, address, Some((identity(1), &key(2))));
    let floors = Phone::client(&mut world, address, 11, &key(1));
    assert!(!messages.is_secured() && !floors.is_secured());
    assert!(!world.is_bound(1) && !world.is_bound(11));
    // The right ones open both.
    let messages = world.connect(1, address, Some((identity(1), &key(1))));
    let mut floors = Phone::client(&mut world, address, 11, &key(2));
    assert!(messages.is_secured() && floors.is_secured());
    assert_eq!(floors.hello(&mut world), HELLO);
    assert!(world.is_bound(1) && world.is_bound(11));
    world.subtract_all([1, 11]);
}

#[test]
fn a_key_opens_the_protocol_it_is_for_and_no_other() {
    let mut world = World::calm();
    let policy = room(false);
    let address = world.reserve_with(1, 1, Some(&key(1)), |reserve| {
        crate::room_support::configure(reserve, &policy, crate::room_support::client("ue1"));
    });
    reserve(&mut world, reservation(11, Setup::Passive, secured(11, 2))).unwrap();
    let mut messages = world.connect(1, address, Some((identity(1), &key(1))));
    let mut floors = Phone::client(&mut world, address, 11, &key(2));
    let hello = floors.message(Primitive::Hello, &[]);
    let send = messages.empty_send("bind0001");
    let told = floors.say(&mut world, &send);
    assert!(told.len() == 1 && told[0].ends_with(": 13"), "{told:?}");
    messages.send_raw(&mut world, &hello);
    world.settle();
    for termination in [1, 11] {
        let cause = released(&world, termination);
        assert_eq!(cause, Some(ReleaseCause::ProtocolViolation), "{termination}");
    }
    world.subtract_all([1, 11]);
}

#[test]
fn an_identity_is_one_terminations_whatever_it_carries() {
    let mut world = World::calm();
    let policy = room(false);
    world.reserve_with(1, 1, Some(&key(1)), |reserve| {
        crate::room_support::configure(reserve, &policy, crate::room_support::client("ue1"));
    });
    let security = Security::TlsPsk { identity: identity(1), psk: key(2) };
    let wanted = reservation(11, Setup::Passive, security);
    assert_eq!(reserve(&mut world, wanted), Err(Refusal::IdentityInUse));
    world.subtract_all([1]);
}
