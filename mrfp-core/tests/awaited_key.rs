//! A key that comes with the answer to an offer of ours (TS 23.333 clause 5.20.2, the MRFC as
//! initiator): until then nobody is let in, and whoever is faster than the answer waits.

mod common;

use common::{Ue, World, identity, key, reservation};
use mrfp_core::mp::*;
use mrfp_io::ConnectAnswer;
use mrfp_protocol::tls::{Handshake, Profile, ProfileConfig, Progress, Psk};

/// A Termination whose offer is unanswered; where the peer is to connect to.
fn offered(world: &mut World, own_port: bool) -> std::net::SocketAddr {
    world.reserve_with(1, 1, None, |reserve| {
        reserve.security = Security::TlsPskAwaited { identity: identity(1) };
        reserve.remote_path = None;
        reserve.own_port = own_port;
    })
}

fn answer(world: &mut World, setup: Setup, psk: Option<Psk>) {
    let path = reservation(1, 1, None).remote_path.unwrap();
    world.command(Command::Modify(Box::new(Modify {
        termination: TerminationId(1),
        direction: Direction::SendRecv,
        muted: false,
        remote: Some(Remote { path, setup, capabilities: None }),
        psk,
    })));
}

fn go_on(world: &mut World, ue: &mut Ue) {
    for _ in 0..4 {
        ue.read(world);
        world.settle();
    }
}

fn released(world: &World) -> Option<ReleaseCause> {
    world.seen.iter().find_map(|event| match event {
        Event::BearerReleased { cause, .. } => Some(*cause),
        _ => None,
    })
}

#[test]
fn a_client_that_is_faster_than_the_answer_waits_for_its_key() {
    for own_port in [false, true] {
        let mut world = World::calm();
        let address = offered(&mut world, own_port);
        let mut early = world.connect(1, address, Some((identity(1), &key(1))));
        assert!(!early.is_secured() && !world.is_bound(1));
        answer(&mut world, Setup::Passive, Some(key(1)));
        go_on(&mut world, &mut early);
        assert!(early.is_secured() && world.is_bound(1), "own port: {own_port}");
        early.send_raw(&mut world, &early.empty_send("bind0001"));
        world.settle();
        early.read(&mut world);
        assert_eq!(early.take_statuses(), [200]);
        world.subtract_all([1]);
    }
}

#[test]
fn waiting_opens_nothing_to_who_has_another_key() {
    let mut world = World::calm();
    let address = offered(&mut world, false);
    let mut stranger = world.connect(1, address, Some((identity(1), &key(2))));
    answer(&mut world, Setup::Passive, Some(key(1)));
    go_on(&mut world, &mut stranger);
    assert!(!stranger.is_secured() && !world.is_bound(1));
    // It has not kept the answerer out.
    let ue = world.connect(1, address, Some((identity(1), &key(1))));
    assert!(ue.is_secured() && world.is_bound(1));
    world.subtract_all([1]);
}

#[test]
fn an_answer_without_a_key_lets_nobody_in() {
    let mut world = World::calm();
    let address = offered(&mut world, false);
    let mut early = world.connect(1, address, Some((identity(1), &key(1))));
    answer(&mut world, Setup::Passive, None);
    go_on(&mut world, &mut early);
    let late = world.connect(1, address, Some((identity(1), &key(1))));
    assert!(!early.is_secured() && !late.is_secured() && !world.is_bound(1));
    world.subtract_all([1]);
}

#[test]
fn one_waits_and_a_place_that_is_given_up_is_free_again() {
    let mut world = World::calm();
    let address = offered(&mut world, false);
    let credentials = (identity(1), key(1));
    let credentials = || Some((credentials.0.clone(), &credentials.1));
    let first = world.connect(1, address, credentials());
    let mut second = world.connect(1, address, credentials());
    world.shard.driver_mut().peer_reset(first.peer);
    world.settle();
    let mut third = world.connect(1, address, credentials());
    answer(&mut world, Setup::Passive, Some(key(1)));
    go_on(&mut world, &mut second);
    go_on(&mut world, &mut third);
    assert!(!second.is_secured() && third.is_secured());
    world.subtract_all([1]);
}

#[test]
fn nothing_waits_for_long_or_for_what_does_not_come() {
    let mut world = World::calm();
    let address = offered(&mut world, false);
    world.connect(1, address, Some((identity(1), &key(1))));
    assert_eq!(world.measure().connections, 1);
    world.pass(10);
    assert_eq!(world.measure().connections, 0);
    assert_eq!(released(&world), None, "it may still ring");
    world.connect(1, address, Some((identity(1), &key(1))));
    world.command(Command::Subtract { termination: TerminationId(1) });
    assert_eq!(world.measure().connections, 0);
    world.subtract_all([]);
}

#[test]
fn a_peer_with_another_key_is_told_apart_from_one_that_never_came() {
    for (client_key, cause) in [
        (Some(key(2)), ReleaseCause::TlsEstablishmentFailure),
        (None, ReleaseCause::TcpEstablishmentFailure),
    ] {
        let mut world = World::calm();
        let address = offered(&mut world, false);
        answer(&mut world, Setup::Passive, Some(key(1)));
        if let Some(wrong) = &client_key {
            assert!(!world.connect(1, address, Some((identity(1), wrong))).is_secured());
        }
        world.pass(20);
        assert_eq!(released(&world), None, "the peer may come again");
        world.pass(20);
        assert_eq!(released(&world), Some(cause));
        world.subtract_all([1]);
    }
}

#[test]
fn where_the_answer_makes_us_active_we_are_tls_client_with_the_key_of_the_answer() {
    for peer_key in [key(1), key(2)] {
        let mut world = World::calm();
        let remote = "192.0.2.1:4000".parse().unwrap();
        world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
        offered(&mut world, false);
        assert!(world.shard.driver_mut().next_connected().is_none(), "not before the answer");
        answer(&mut world, Setup::Active { remote }, Some(key(1)));
        let peer = world.shard.driver_mut().next_connected().expect("it connects");
        let profile = Profile::new(&ProfileConfig::default()).unwrap();
        let mut handshake = Handshake::server(&profile).unwrap();
        let (mut input, mut secured) = (Vec::new(), false);
        for _ in 0..6 {
            input.extend(world.shard.driver_mut().peer_received(peer));
            let mut output = Vec::new();
            match handshake.advance(&input, &mut output) {
                Ok((taken, Progress::NeedPsk)) => {
                    assert_eq!(handshake.identity(), identity(1));
                    handshake.provide_psk(Some(&peer_key));
                    input.drain(..taken);
                }
                Ok((taken, Progress::NeedInput)) => drop(input.drain(..taken)),
                Ok((_, Progress::Done(_))) => secured = true,
                Err(_) => {}
            }
            world.shard.driver_mut().peer_send(peer, &output);
            world.settle();
            if secured || released(&world).is_some() {
                break;
            }
        }
        let right = peer_key.expose() == key(1).expose();
        assert_eq!(secured, right);
        assert_eq!(world.is_bound(1), right);
        if !right {
            assert_eq!(released(&world), Some(ReleaseCause::TlsEstablishmentFailure));
        }
        world.subtract_all([1]);
    }
}
