//! Sessions that come about in two steps, and sessions in the place of others (RFC 4975 section 5.4).

mod common;

use common::{Ue, World, identity, key, reservation};
use mrfp_core::mp::*;
use mrfp_io::{ConnectAnswer, PeerId};

fn ask(world: &mut World, ue: &mut Ue, request: &[u8]) -> Vec<u16> {
    ue.send_raw(world, request);
    world.settle();
    ue.read(world);
    ue.take_statuses()
}

fn bind(world: &mut World, ue: &mut Ue) -> Vec<u16> {
    let request = ue.empty_send("bind0001");
    ask(world, ue, &request)
}

fn path(termination: u64) -> String {
    reservation(1, termination, None).remote_path.unwrap()
}

fn capabilities(accept_types: &str) -> Capabilities {
    Capabilities {
        accept_types: accept_types.to_owned(),
        accept_wrapped_types: String::new(),
        max_size_bytes: Some(100),
        private_messages: false,
    }
}

fn modify(termination: u64, remote: Remote) -> Command {
    Command::Modify(Box::new(Modify {
        termination: TerminationId(termination),
        direction: Direction::SendRecv,
        muted: false,
        remote: Some(remote),
        psk: None,
    }))
}

fn replace(termination: u64, session_id: &str, security: Security) -> ReplaceSession {
    ReplaceSession {
        termination: TerminationId(termination),
        security,
        session_id: session_id.to_owned(),
        remote: Some(Remote { path: path(termination), setup: Setup::Passive, capabilities: None }),
    }
}

fn bound(world: &World, termination: u64) -> usize {
    let is_it =
        |event: &&Event| matches!(event, Event::Bound { termination: id } if id.0 == termination);
    world.seen.iter().filter(is_it).count()
}

fn refused(world: &World) -> Option<Refusal> {
    match world.seen.last() {
        Some(Event::Refused { reason, .. }) => Some(*reason),
        _ => None,
    }
}

fn released(world: &World, termination: u64) -> Option<ReleaseCause> {
    world.seen.iter().find_map(|event| match event {
        Event::BearerReleased { termination: id, cause } if id.0 == termination => Some(*cause),
        _ => None,
    })
}

fn reset(world: &mut World, peer: PeerId) {
    world.shard.driver_mut().peer_reset(peer);
    world.settle();
}

#[test]
fn until_the_answer_to_our_offer_is_there_nothing_can_be_bound() {
    for protect in [false, true] {
        let psk = key(1);
        let mut world = World::calm();
        let address =
            world.reserve_with(1, 1, protect.then_some(&psk), |reserve| reserve.remote_path = None);
        let credentials = || protect.then(|| (identity(1), &psk));
        let mut early = world.connect(1, address, credentials());
        if protect {
            assert!(!early.is_secured());
        } else {
            assert_eq!(bind(&mut world, &mut early), [481]);
        }
        // It may ring for long.
        world.pass(120);
        assert_eq!(released(&world, 1), None);
        let remote = Remote {
            path: path(1),
            setup: Setup::Passive,
            capabilities: Some(capabilities("text/html")),
        };
        world.command(modify(1, remote));
        assert!(matches!(world.seen.last(), Some(Event::Modified { .. })));
        let mut ue = world.connect(1, address, credentials());
        assert_eq!(bind(&mut world, &mut ue), [200]);
        assert_eq!(bound(&world, 1), 1);
        // What the answer said counts.
        let mut bob = world.member(1, 2, None);
        let message = bob.send("tran0001", "mess1", b"hello");
        assert_eq!(ask(&mut world, &mut bob, &message), [415]);
        world.subtract_all([1, 2]);
    }
}

#[test]
fn once_the_answer_is_there_the_peer_must_connect_in_time() {
    let mut world = World::calm();
    world.reserve_with(1, 1, None, |reserve| reserve.remote_path = None);
    world.pass(120);
    let remote = Remote { path: path(1), setup: Setup::Passive, capabilities: None };
    world.command(modify(1, remote));
    world.pass(30);
    assert_eq!(released(&world, 1), None);
    world.pass(5);
    assert_eq!(released(&world, 1), Some(ReleaseCause::TcpEstablishmentFailure));
    world.subtract_all([1]);
}

#[test]
fn where_the_answer_makes_us_active_we_connect_then() {
    let mut world = World::calm();
    let remote = "192.0.2.1:4000".parse().unwrap();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
    world.reserve_with(1, 1, None, |reserve| {
        reserve.remote_path = None;
        reserve.setup = Setup::Active { remote };
    });
    assert!(world.shard.driver_mut().next_connected().is_none(), "not before the path is known");
    let active = || Remote { path: path(1), setup: Setup::Active { remote }, capabilities: None };
    world.command(modify(1, active()));
    let peer = world.shard.driver_mut().next_connected().expect("it connects");
    assert!(world.shard.driver_mut().peer_received(peer).starts_with(b"MSRP "));
    assert_eq!(bound(&world, 1), 1);
    world.command(modify(1, active()));
    assert!(world.shard.driver_mut().next_connected().is_none(), "once");
    world.subtract_all([1]);
}

#[test]
fn a_bad_path_in_the_answer_is_refused_and_a_good_one_may_follow() {
    let mut world = World::calm();
    let address = world.reserve_with(1, 1, None, |reserve| reserve.remote_path = None);
    let remote = |path: String| Remote { path, setup: Setup::Passive, capabilities: None };
    world.command(modify(1, remote("http://example.com".to_owned())));
    assert_eq!(refused(&world), Some(Refusal::Transport));
    world.command(modify(1, remote(path(1))));
    let mut ue = world.connect(1, address, None);
    assert_eq!(bind(&mut world, &mut ue), [200]);
    world.subtract_all([1]);
}

#[test]
fn after_a_lost_connection_a_new_session_takes_the_place_of_the_old() {
    for protect in [false, true] {
        let (first, second) = (key(1), key(2));
        let mut world = World::calm();
        let mut alice = world.member(1, 1, protect.then_some(&first));
        let mut bob = world.member(1, 2, None);
        let mut carol = world.member(1, 3, None);
        let message = alice.send("tran0001", "message1", b"before");
        assert_eq!(ask(&mut world, &mut alice, &message), [200]);
        reset(&mut world, alice.peer);
        assert_eq!(released(&world, 1), Some(ReleaseCause::ConnectionLost));
        let security = match protect {
            true => Security::TlsPsk { identity: b"anew".to_vec(), psk: second.clone() },
            false => Security::Plain,
        };
        let renewal = replace(1, "another-session-0001", security);
        world.command(Command::ReplaceSession(Box::new(renewal)));
        assert!(matches!(world.seen.last(), Some(Event::Reserved { .. })));
        // The old session is gone for good.
        let mut old = world.connect(1, alice.address, None);
        assert_eq!(bind(&mut world, &mut old), [481]);
        let credentials = protect.then(|| (b"anew".to_vec(), &second));
        let mut anew = world.connect(1, alice.address, credentials);
        anew.remote_uri =
            anew.remote_uri.replace("session-0000000000000001", "another-session-0001");
        assert_eq!(bind(&mut world, &mut anew), [200]);
        assert_eq!(bound(&world, 1), 2);
        // What was not confirmed comes again, and is recognised.
        let again = anew.send("tran0002", "message1", b"before");
        assert_eq!(ask(&mut world, &mut anew, &again), [200]);
        for ue in [&mut bob, &mut carol] {
            ue.read(&mut world);
            let ids: Vec<_> = ue.messages().into_iter().map(|(id, ..)| id).collect();
            assert_eq!(ids.len(), 2);
            assert_eq!(ids[0], ids[1], "the same message to the receivers");
        }
        let reply = bob.send("tran0003", "message3", b"welcome back");
        assert_eq!(ask(&mut world, &mut bob, &reply), [200]);
        anew.read(&mut world);
        assert_eq!(anew.bodies(), [b"welcome back"]);
        assert_eq!(anew.received.last().unwrap().from_path, anew.remote_uri);
        world.subtract_all([1, 2, 3]);
    }
}

#[test]
fn a_session_may_be_replaced_while_its_connection_lives() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let message = alice.chunk("chunk001", "long", "1-*/9000", &[b'x'; 9000], '$');
    alice.send_raw(&mut world, &message[..4000]);
    world.settle();
    let renewal = replace(1, "another-session-0001", Security::Plain);
    world.command(Command::ReplaceSession(Box::new(renewal)));
    assert!(world.shard.driver_mut().peer_saw_end(alice.peer), "the old one ends");
    assert_eq!(released(&world, 1), None, "as the controller wanted it to");
    bob.read(&mut world);
    assert_eq!(bob.messages()[0].2, '#');
    let mut anew = world.connect(1, alice.address, None);
    anew.remote_uri = anew.remote_uri.replace("session-0000000000000001", "another-session-0001");
    assert_eq!(bind(&mut world, &mut anew), [200]);
    let message = bob.send("tran0001", "message1", b"hello");
    assert_eq!(ask(&mut world, &mut bob, &message), [200]);
    anew.read(&mut world);
    assert_eq!(anew.bodies(), [b"hello"]);
    world.subtract_all([1, 2]);
}

#[test]
fn a_replacement_with_a_name_in_use_is_refused_and_changes_nothing() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let bob = world.member(1, 2, None);
    for (session_id, path, reason) in [
        ("session-0000000000000001", path(1), Refusal::IdentityInUse),
        ("session-0000000000000002", path(1), Refusal::IdentityInUse),
        ("another-session-0001", "http://x".to_owned(), Refusal::Transport),
    ] {
        let mut renewal = replace(1, session_id, Security::Plain);
        renewal.remote.as_mut().unwrap().path = path;
        world.command(Command::ReplaceSession(Box::new(renewal)));
        assert_eq!(refused(&world), Some(reason), "{session_id}");
    }
    world.command(Command::ReplaceSession(Box::new(replace(9, "nobody", Security::Plain))));
    assert_eq!(refused(&world), Some(Refusal::TerminationId));
    assert_eq!(bind(&mut world, &mut alice), [200]);
    drop(bob);
    world.subtract_all([1, 2]);
}

#[test]
fn a_handshake_with_the_key_of_the_old_session_does_not_bind_the_new_one() {
    let (first, second) = (key(1), key(2));
    let mut world = World::calm();
    let address = world.reserve(1, 1, Some(&first));
    // Its hello is there, its proof is not.
    let peer = world.shard.driver_mut().peer_connect(address);
    let profile =
        mrfp_protocol::tls::Profile::new(&mrfp_protocol::tls::ProfileConfig::default()).unwrap();
    let mut handshake =
        mrfp_protocol::tls::Handshake::client(&profile, &identity(1), &first).unwrap();
    let mut flight = Vec::new();
    let mut received = Vec::new();
    handshake.advance(&[], &mut flight).unwrap();
    world.shard.driver_mut().peer_send(peer, &std::mem::take(&mut flight));
    world.settle();
    received.extend(world.shard.driver_mut().peer_received(peer));
    let _ = handshake.advance(&received, &mut flight).unwrap();
    // The first record has the key chosen, those behind it prove that the client has it.
    let first_record = 5 + usize::from(u16::from_be_bytes([flight[3], flight[4]]));
    assert!(first_record < flight.len());
    world.shard.driver_mut().peer_send(peer, &flight[..first_record]);
    world.settle();
    let security = Security::TlsPsk { identity: identity(1), psk: second };
    let renewal = replace(1, "another-session-0001", security);
    world.command(Command::ReplaceSession(Box::new(renewal)));
    world.shard.driver_mut().peer_send(peer, &flight[first_record..]);
    world.settle();
    assert_eq!(bound(&world, 1), 0);
    assert!(world.shard.driver_mut().peer_saw_end(peer));
    world.subtract_all([1]);
}
