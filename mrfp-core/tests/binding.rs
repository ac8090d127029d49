//! How a connection finds its Termination, and who is turned away.

mod common;

use common::{World, identity, key};
use mrfp_core::mp::{Command, Event, Refusal, ReleaseCause, Setup};
use mrfp_core::{Limits, Psk};
use mrfp_io::{ConnectAnswer, Simulator};

fn released(world: &World, termination: u64) -> Option<ReleaseCause> {
    world.seen.iter().find_map(|event| match event {
        Event::BearerReleased { termination: id, cause } if id.0 == termination => Some(*cause),
        _ => None,
    })
}

fn refused(world: &World, termination: u64) -> Option<Refusal> {
    world.seen.iter().find_map(|event| match event {
        Event::Refused { termination: id, reason } if id.0 == termination => Some(*reason),
        _ => None,
    })
}

/// What a client that fails the handshake gets to see: bytes, and the end.
fn failing_handshake(world: &mut World, identity: Vec<u8>, psk: &Psk) -> (usize, bool) {
    let address = "127.0.0.1:2855".parse().unwrap();
    let before = world.metrics.read().bytes_sent;
    let ue = world.connect(99, address, Some((identity, psk)));
    assert!(!ue.is_secured());
    world.pass(1);
    let ended = world.shard.driver_mut().peer_saw_end(ue.peer);
    ((world.metrics.read().bytes_sent - before) as usize, ended)
}

#[test]
fn wrong_key_unknown_identity_and_a_strangers_identity_look_the_same() {
    let mut world = World::calm();
    world.reserve(1, 1, Some(&key(1)));
    world.reserve(1, 2, Some(&key(2)));
    let wrong_key = failing_handshake(&mut world, identity(1), &key(9));
    let unknown = failing_handshake(&mut world, b"nobody".to_vec(), &key(1));
    let strangers = failing_handshake(&mut world, identity(2), &key(1));
    assert_eq!(wrong_key, unknown);
    assert_eq!(wrong_key, strangers);
    assert!(wrong_key.1, "the connection is closed");
    let metrics = world.measure();
    assert_eq!(metrics.handshakes_failed_authentication, 3);
    assert!(!world.is_bound(1) && !world.is_bound(2));
    // Whoever has the key still gets in.
    let ue = world.connect(1, "127.0.0.1:2855".parse().unwrap(), Some((identity(1), &key(1))));
    assert!(ue.is_secured() && world.is_bound(1));
    world.subtract_all([1, 2]);
}

#[test]
fn a_key_serves_exactly_one_connection() {
    let mut world = World::calm();
    let psk = key(1);
    let _alice = world.member(1, 1, Some(&psk));
    let second = failing_handshake(&mut world, identity(1), &psk);
    assert!(second.1);
    assert_eq!(world.measure().handshakes_completed, 1);
    world.subtract_all([1]);
}

#[test]
fn plain_text_is_never_accepted_where_tls_was_asked() {
    let mut world = World::calm();
    let address = world.reserve(1, 1, Some(&key(1)));
    let mut ue = world.connect(1, address, None);
    for scheme in ["msrp", "msrps"] {
        ue.remote_uri = format!("{scheme}://{address}/session-{:016};tcp", 1);
        let request = ue.empty_send("bind0001");
        ue.send_raw(&mut world, &request);
        world.settle();
        ue.read(&mut world);
        assert_eq!(ue.take_statuses(), [481]);
    }
    assert!(!world.is_bound(1));
    world.subtract_all([1]);
}

#[test]
fn a_second_connection_to_a_bound_session_is_answered_506_and_an_unknown_one_481() {
    let mut world = World::calm();
    let alice = world.member(1, 1, None);
    let mut second = world.connect(1, alice.address, None);
    let request = second.empty_send("bind0002");
    second.send_raw(&mut world, &request);
    world.settle();
    second.read(&mut world);
    assert_eq!(second.take_statuses(), [506]);
    second.remote_uri = second.remote_uri.replace("session-", "unknown-");
    let request = second.empty_send("bind0003");
    second.send_raw(&mut world, &request);
    world.settle();
    second.read(&mut world);
    assert_eq!(second.take_statuses(), [481]);
    world.subtract_all([1]);
}

#[test]
fn on_a_port_of_its_own_any_identity_will_do_but_not_any_key() {
    let mut world = World::calm();
    let psk = key(1);
    let address = world.reserve_with(1, 1, Some(&psk), |reserve| reserve.own_port = true);
    assert_ne!(address.port(), 2855);
    let stranger = world.connect(1, address, Some((b"anything".to_vec(), &key(2))));
    assert!(!stranger.is_secured());
    // The identity is not known on the shared port.
    let shared = failing_handshake(&mut world, identity(1), &psk);
    assert!(shared.1);
    let ue = world.connect(1, address, Some((b"anything".to_vec(), &psk)));
    assert!(ue.is_secured() && world.is_bound(1));
    world.subtract_all([1]);
}

#[test]
fn as_client_the_shard_connects_secures_and_binds_by_itself() {
    for protect in [false, true] {
        let mut world = World::calm();
        let remote = "192.0.2.1:4000".parse().unwrap();
        world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
        let psk = key(1);
        world.reserve_with(1, 1, protect.then_some(&psk), |reserve| {
            reserve.setup = Setup::Active { remote };
        });
        let peer = world.shard.driver_mut().next_connected().expect("it connects");
        let first = world.shard.driver_mut().peer_received(peer);
        if protect {
            assert_eq!(first[0], 0x16, "a ClientHello comes first");
            assert!(!world.is_bound(1), "not before the handshake is done");
        } else {
            assert!(first.starts_with(b"MSRP "), "the binding SEND comes at once");
            assert!(world.is_bound(1));
        }
        world.subtract_all([1]);
    }
}

#[test]
fn a_connection_that_cannot_be_made_is_reported() {
    let mut world = World::calm();
    let remote = "192.0.2.1:4000".parse().unwrap();
    world.reserve_with(1, 1, None, |reserve| reserve.setup = Setup::Active { remote });
    world.pass(1);
    assert_eq!(released(&world, 1), Some(ReleaseCause::TcpEstablishmentFailure));
    world.subtract_all([1]);
    let mut world = World::calm();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Silence);
    world.reserve_with(1, 1, None, |reserve| reserve.setup = Setup::Active { remote });
    world.pass(10);
    assert_eq!(released(&world, 1), Some(ReleaseCause::TcpEstablishmentFailure));
    world.subtract_all([1]);
}

#[test]
fn a_termination_nobody_connects_to_is_reported() {
    let mut world = World::calm();
    world.reserve(1, 1, Some(&key(1)));
    world.pass(40);
    assert_eq!(released(&world, 1), Some(ReleaseCause::TcpEstablishmentFailure));
    // Its key is gone with it.
    assert!(failing_handshake(&mut world, identity(1), &key(1)).1);
    world.subtract_all([1]);
}

#[test]
fn connections_that_never_say_a_word_are_closed_and_counted() {
    let mut world = World::calm();
    let address = world.shard.address();
    let silent: Vec<_> = (0..200).map(|_| world.shard.driver_mut().peer_connect(address)).collect();
    let half = world.shard.driver_mut().peer_connect(address);
    world.shard.driver_mut().peer_send(half, &[0x16, 3, 1, 0, 200, 1]);
    world.settle();
    let mut alice = world.member(1, 1, None);
    world.pass(8);
    for peer in silent {
        assert!(world.shard.driver_mut().peer_saw_end(peer));
    }
    let metrics = world.measure();
    assert_eq!(metrics.connections_unbound_timeout, 200);
    assert_eq!(metrics.handshakes_timeout, 1);
    assert_eq!(metrics.connections, 1);
    let request = alice.empty_send("alive001");
    alice.send_raw(&mut world, &request);
    world.settle();
    alice.read(&mut world);
    assert_eq!(alice.take_statuses(), [200]);
    world.subtract_all([1]);
}

#[test]
fn one_source_cannot_use_up_all_unbound_connections() {
    let limits = Limits { connections_unbound_per_source_max: 3, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    let address = world.shard.address();
    let connect = |world: &mut World, source: &str| {
        let source = source.parse().unwrap();
        let peer = world.shard.driver_mut().peer_connect_from(address, source);
        world.settle();
        !world.shard.driver_mut().peer_saw_end(peer)
    };
    for port in 1..=3 {
        assert!(connect(&mut world, &format!("198.51.100.1:{port}")));
    }
    assert!(!connect(&mut world, "198.51.100.1:4"));
    assert!(connect(&mut world, "198.51.100.2:1"));
    assert_eq!(world.measure().connections_refused, 1);
    world.pass(8);
    assert!(connect(&mut world, "198.51.100.1:5"), "those that were closed no longer count");
    world.pass(8);
    world.subtract_all([]);
}

#[test]
fn identities_in_use_and_bad_paths_are_refused_and_leave_nothing() {
    let mut world = World::calm();
    world.reserve(1, 1, Some(&key(1)));
    let mut twin = common::reservation(1, 2, Some(&key(2)));
    twin.security = common::reservation(1, 1, Some(&key(2))).security;
    world.command(Command::ReserveAndConfigure(Box::new(twin)));
    assert_eq!(refused(&world, 2), Some(Refusal::IdentityInUse));
    let mut bad = common::reservation(2, 3, None);
    bad.remote_path = Some("http://example.com".into());
    world.command(Command::ReserveAndConfigure(Box::new(bad)));
    assert_eq!(refused(&world, 3), Some(Refusal::Transport));
    world.subtract_all([1]);
}

#[test]
fn garbage_ends_its_connection_and_hurts_nobody_else() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let address = alice.address;
    let mut head = b"MSRP abcd SEND\r\nTo-Path: ".to_vec();
    head.resize(200_000, b'a');
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"MSRP \0\0\0 garbage\r\n\r\n\r\n".to_vec(),
        vec![0x16; 40_000],
        vec![0xff; 10],
        [b"\x16\x03\x01\x00\x05".as_slice(), &[0; 5], &[0x17; 300]].concat(),
        head,
    ] {
        let peer = world.shard.driver_mut().peer_connect(address);
        world.shard.driver_mut().peer_send(peer, &garbage);
        world.settle();
        world.pass(8);
        assert!(world.shard.driver_mut().peer_saw_end(peer), "{:?}", &garbage[..10]);
    }
    let request = alice.empty_send("alive001");
    alice.send_raw(&mut world, &request);
    world.settle();
    alice.read(&mut world);
    assert_eq!(alice.take_statuses(), [200]);
    world.subtract_all([1]);
}

#[test]
fn stop_ends_every_connection_and_the_thread() {
    let mut world = World::calm();
    let alice = world.member(1, 1, None);
    let _protected = world.member(1, 2, Some(&key(2)));
    world.commands.push(Command::Stop).unwrap();
    let mut turns = 0;
    while world.shard.turn().unwrap() {
        world.shard.driver_mut().advance_ns(10_000_000);
        turns += 1;
        assert!(turns < 1_000);
    }
    assert!(world.shard.driver_mut().peer_saw_end(alice.peer));
    assert_eq!(world.shard.driver_mut().sockets_open(), 0);
    let mut stopped = false;
    while let Some(event) = world.events.pop() {
        stopped |= matches!(event, Event::Stopped);
    }
    assert!(stopped);
}
