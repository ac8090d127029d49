//! A session that gets another key while it stands: a second TLS session beside the running one, and
//! every message once, in order, over the one or the other.

mod common;

use common::{Received, Ue, World, identity, key, reservation};
use mrfp_core::mp::*;
use mrfp_io::ConnectAnswer;
use mrfp_protocol::tls::{Handshake, Profile, ProfileConfig, Progress};

const NEXT_IDENTITY: &[u8] = b"00000001.2";

fn rekey(world: &mut World, termination: u64, key: NextKey) {
    let termination = TerminationId(termination);
    world.command(Command::Rekey(Box::new(Rekey { termination, key })));
}

fn agreed(byte: u8, setup: Setup) -> NextKey {
    NextKey::Agreed { identity: NEXT_IDENTITY.to_vec(), psk: key(byte), setup }
}

fn awaited() -> NextKey {
    NextKey::Awaited { identity: NEXT_IDENTITY.to_vec() }
}

fn count(world: &World, wanted: impl Fn(&Event) -> bool) -> usize {
    world.seen.iter().filter(|event| wanted(event)).count()
}

fn rekeyed(world: &World) -> usize {
    count(world, |event| matches!(event, Event::Rekeyed { .. }))
}

fn failed(world: &World) -> Option<ReleaseCause> {
    world.seen.iter().find_map(|event| match event {
        Event::RekeyingFailed { cause, .. } => Some(*cause),
        _ => None,
    })
}

fn released(world: &World) -> Option<ReleaseCause> {
    world.seen.iter().find_map(|event| match event {
        Event::BearerReleased { cause, .. } => Some(*cause),
        _ => None,
    })
}

fn refused(world: &World) -> Option<Refusal> {
    world.seen.iter().rev().find_map(|event| match event {
        Event::Refused { reason, .. } => Some(*reason),
        _ => None,
    })
}

/// Two parties with keys; where the first one connects.
fn parties(world: &mut World) -> (Ue, Ue) {
    (world.member(1, 1, Some(&key(1))), world.member(1, 2, Some(&key(2))))
}

/// The first party comes with another key.
fn connect_next(world: &mut World, ue: &Ue, byte: u8) -> Ue {
    world.connect(1, ue.address, Some((NEXT_IDENTITY.to_vec(), &key(byte))))
}

/// Has a key agreed for the first party, and lets it come with that.
fn move_over(world: &mut World, ue: &Ue) -> Ue {
    rekey(world, 1, agreed(9, Setup::Passive));
    let next = connect_next(world, ue, 9);
    assert!(next.is_secured());
    assert_eq!(rekeyed(world), 1);
    next
}

/// Says something and gets its 200.
fn say(world: &mut World, ue: &mut Ue, id: &str, body: &[u8]) {
    let message = ue.send(id, id, body);
    ue.send_raw(world, &message);
    world.settle();
    ue.read(world);
    assert_eq!(ue.take_statuses(), [200]);
}

/// Reads and answers what has come.
fn hear(world: &mut World, ue: &mut Ue) -> Vec<Vec<u8>> {
    ue.read(world);
    ue.answer(world, 200);
    ue.bodies()
}

/// What came over the first connection, then over the second.
fn put_together(former: &mut Ue, next: &mut Ue) -> Vec<Vec<u8>> {
    let before: Vec<Received> = former.received.drain(..).collect();
    next.received.splice(0..0, before);
    next.bodies()
}

#[test]
fn a_session_goes_over_to_its_next_key_and_the_former_connection_is_closed() {
    for own_port in [false, true] {
        let mut world = World::calm();
        let psk = key(1);
        let address = world.reserve_with(1, 1, Some(&psk), |it| it.own_port = own_port);
        let mut former = world.connect(1, address, Some((identity(1), &psk)));
        let mut bob = world.member(1, 2, Some(&key(2)));
        rekey(&mut world, 1, agreed(9, Setup::Passive));
        // Until the peer comes with it everything stays as it was.
        say(&mut world, &mut former, "before01", b"one");
        assert_eq!(hear(&mut world, &mut bob), [b"one"]);
        let mut next = connect_next(&mut world, &former, 9);
        assert!(next.is_secured());
        assert_eq!((rekeyed(&world), released(&world)), (1, None));
        say(&mut world, &mut next, "after001", b"two");
        assert_eq!(hear(&mut world, &mut bob), [&b"one"[..], b"two"]);
        // What was under way on the former one is taken and answered there.
        say(&mut world, &mut former, "before02", b"three");
        assert_eq!(hear(&mut world, &mut bob).len(), 3);
        say(&mut world, &mut bob, "from0bob", b"four");
        assert_eq!(hear(&mut world, &mut next), [b"four"]);
        former.read(&mut world);
        assert!(former.bodies().is_empty());
        assert_eq!(world.measure().connections, 3);
        world.pass(4);
        assert_eq!(world.measure().connections, 2, "own port: {own_port}");
        assert_eq!(released(&world), None);
        say(&mut world, &mut next, "after002", b"five");
        assert_eq!(hear(&mut world, &mut bob).len(), 4);
        assert_eq!(world.measure().rekeyings_completed, 1);
        world.subtract_all([1, 2]);
    }
}

#[test]
fn nothing_is_sent_under_the_new_key_before_the_rest_is_answered() {
    let mut world = World::calm();
    let (mut former, mut bob) = parties(&mut world);
    say(&mut world, &mut bob, "first001", b"one");
    let mut next = move_over(&mut world, &former);
    say(&mut world, &mut bob, "second01", b"two");
    next.read(&mut world);
    assert!(next.bodies().is_empty(), "it could be there before the first");
    assert_eq!(hear(&mut world, &mut former), [b"one"]);
    assert_eq!(hear(&mut world, &mut next), [b"two"]);
    world.subtract_all([1, 2]);
}

#[test]
fn an_answer_is_taken_on_either_connection() {
    let mut world = World::calm();
    let (mut former, mut bob) = parties(&mut world);
    say(&mut world, &mut bob, "first001", b"one");
    let mut next = move_over(&mut world, &former);
    say(&mut world, &mut bob, "second01", b"two");
    former.read(&mut world);
    put_together(&mut former, &mut next);
    assert_eq!(hear(&mut world, &mut next), [b"one"]);
    assert_eq!(hear(&mut world, &mut next), [&b"one"[..], b"two"]);
    world.pass(40);
    bob.read(&mut world);
    assert!(bob.take_reports().is_empty(), "both were answered");
    world.subtract_all([1, 2]);
}

#[test]
fn what_is_refused_on_the_former_connection_goes_no_further_on_the_next() {
    let mut world = World::calm();
    let (mut former, mut bob) = parties(&mut world);
    let chunk = bob.chunk("chunk001", "message1", "1-3/9", b"abc", '+');
    bob.send_raw(&mut world, &chunk);
    world.settle();
    let mut next = move_over(&mut world, &former);
    let chunk = bob.chunk("chunk002", "message1", "4-6/9", b"def", '+');
    bob.send_raw(&mut world, &chunk);
    world.settle();
    former.read(&mut world);
    former.answer(&mut world, 413);
    bob.read(&mut world);
    bob.take_statuses();
    let chunk = bob.chunk("chunk003", "message1", "7-9/9", b"ghi", '$');
    bob.send_raw(&mut world, &chunk);
    world.settle();
    bob.read(&mut world);
    assert_eq!(bob.take_statuses(), [413]);
    assert_eq!(bob.take_reports().len(), 1, "once for the message");
    next.read(&mut world);
    next.answer(&mut world, 413);
    let bodies: Vec<_> = next.received.iter().map(|message| message.body.clone()).collect();
    assert!(!bodies.contains(&b"ghi".to_vec()), "{bodies:?}");
    world.subtract_all([1, 2]);
}

#[test]
fn a_long_message_to_the_peer_goes_on_where_it_was() {
    let mut world = World::calm();
    let (mut former, mut bob) = parties(&mut world);
    let body: Vec<u8> = (0..600_000u32).map(|i| (i * 7) as u8).collect();
    let message = bob.chunk("long0001", "long-message", "1-*/600000", &body, '$');
    rekey(&mut world, 1, agreed(9, Setup::Passive));
    let mut next = None;
    for (index, part) in message.chunks(9_000).enumerate() {
        bob.send_raw(&mut world, part);
        world.settle();
        former.read(&mut world);
        former.answer(&mut world, 200);
        if index == 20 {
            next = Some(connect_next(&mut world, &former, 9));
        }
        if let Some(next) = &mut next {
            next.read(&mut world);
            next.answer(&mut world, 200);
        }
    }
    let mut next = next.unwrap();
    for _ in 0..4 {
        former.read(&mut world);
        former.answer(&mut world, 200);
        next.read(&mut world);
        next.answer(&mut world, 200);
    }
    assert!(former.received.iter().all(|chunk| chunk.end == Some('+') || chunk.body.is_empty()));
    assert!(!next.received.is_empty());
    assert_eq!(put_together(&mut former, &mut next), [body]);
    bob.read(&mut world);
    assert_eq!(bob.take_statuses(), [200]);
    world.subtract_all([1, 2]);
}

#[test]
fn a_long_message_of_the_peer_goes_on_in_the_next_chunk() {
    let mut world = World::calm();
    let (mut former, mut bob) = parties(&mut world);
    let chunk = former.chunk("chunk001", "message1", "1-4/8", b"over", '+');
    former.send_raw(&mut world, &chunk);
    world.settle();
    // One is open when the session moves, and ends where it began.
    let chunk = former.chunk("chunk002", "message2", "1-*/8", b"left", '+');
    let (head, tail) = chunk.split_at(chunk.len() - 22);
    former.send_raw(&mut world, head);
    let mut next = move_over(&mut world, &former);
    let overtaking = next.chunk("chunk003", "message2", "5-8/8", b"hand", '$');
    next.send_raw(&mut world, &overtaking);
    world.settle();
    next.read(&mut world);
    assert_eq!(next.take_statuses(), [413], "a chunk within a chunk would be mixed up with it");
    former.send_raw(&mut world, tail);
    let chunk = next.chunk("chunk004", "message1", "5-8/8", b"land", '$');
    next.send_raw(&mut world, &chunk);
    world.settle();
    let chunk = next.chunk("chunk005", "message2", "5-8/8", b"hand", '$');
    next.send_raw(&mut world, &chunk);
    world.settle();
    for ue in [&mut former, &mut next] {
        ue.read(&mut world);
        assert_eq!(ue.take_statuses(), [200, 200]);
    }
    assert_eq!(hear(&mut world, &mut bob), [b"overland", b"lefthand"]);
    world.subtract_all([1, 2]);
}

#[test]
fn the_peer_may_close_the_former_connection_once_it_owes_nothing() {
    for owes in [false, true] {
        let mut world = World::calm();
        let (mut former, mut bob) = parties(&mut world);
        say(&mut world, &mut bob, "first001", b"one");
        if !owes {
            hear(&mut world, &mut former);
        }
        let mut next = move_over(&mut world, &former);
        world.shard.driver_mut().peer_reset(former.peer);
        world.settle();
        if owes {
            // Nobody can say whether it has the message.
            assert_eq!(released(&world), Some(ReleaseCause::ConnectionLost));
            bob.read(&mut world);
            assert_eq!(bob.take_reports().len(), 1);
        } else {
            assert_eq!(released(&world), None);
            say(&mut world, &mut next, "after001", b"two");
        }
        world.subtract_all([1, 2]);
    }
}

#[test]
fn without_a_connection_in_time_the_session_stays_with_its_key() {
    for wrong_key in [false, true] {
        let mut world = World::calm();
        let (mut alice, mut bob) = parties(&mut world);
        rekey(&mut world, 1, agreed(9, Setup::Passive));
        if wrong_key {
            assert!(!connect_next(&mut world, &alice, 8).is_secured());
        }
        world.pass(20);
        assert_eq!(failed(&world), None, "the peer may still come");
        world.pass(20);
        let cause = match wrong_key {
            true => ReleaseCause::TlsEstablishmentFailure,
            false => ReleaseCause::TcpEstablishmentFailure,
        };
        assert_eq!(failed(&world), Some(cause));
        assert_eq!(world.measure().rekeyings_failed, 1);
        assert!(!connect_next(&mut world, &alice, 9).is_secured(), "the key is forgotten");
        assert_eq!((rekeyed(&world), released(&world)), (0, None));
        say(&mut world, &mut alice, "after001", b"one");
        assert_eq!(hear(&mut world, &mut bob), [b"one"]);
        // The next attempt is as good as the first.
        let mut next = move_over(&mut world, &alice);
        say(&mut world, &mut next, "after002", b"two");
        world.subtract_all([1, 2]);
    }
}

#[test]
fn a_key_that_is_withdrawn_gets_no_answer() {
    let mut world = World::calm();
    parties(&mut world);
    let answered = |world: &World| {
        count(world, |event| matches!(event, Event::Modified { .. } | Event::Refused { .. }))
    };
    let before = answered(&world);
    rekey(&mut world, 1, awaited());
    assert_eq!(answered(&world), before + 1);
    rekey(&mut world, 1, NextKey::Withdrawn);
    assert_eq!(answered(&world), before + 1);
    world.subtract_all([1, 2]);
}

#[test]
fn a_client_that_is_faster_than_the_answer_waits_for_the_next_key() {
    for comes in [true, false] {
        let mut world = World::calm();
        let (mut alice, _bob) = parties(&mut world);
        rekey(&mut world, 1, awaited());
        let mut early = connect_next(&mut world, &alice, 9);
        assert!(!early.is_secured());
        rekey(&mut world, 1, if comes { agreed(9, Setup::Passive) } else { NextKey::Withdrawn });
        for _ in 0..4 {
            early.read(&mut world);
            world.settle();
        }
        assert_eq!(early.is_secured(), comes);
        assert_eq!(rekeyed(&world), usize::from(comes));
        assert_eq!((failed(&world), released(&world)), (None, None));
        let current = if comes { &mut early } else { &mut alice };
        say(&mut world, current, "after001", b"one");
        world.subtract_all([1, 2]);
    }
}

#[test]
fn a_key_that_was_announced_has_no_time_limit_and_another_takes_its_place() {
    let mut world = World::calm();
    let (alice, _bob) = parties(&mut world);
    rekey(&mut world, 1, awaited());
    world.pass(60);
    assert_eq!(failed(&world), None, "the offer is unanswered");
    rekey(
        &mut world,
        1,
        NextKey::Agreed { identity: b"00000001.3".to_vec(), psk: key(7), setup: Setup::Passive },
    );
    assert!(!connect_next(&mut world, &alice, 9).is_secured());
    assert!(!connect_next(&mut world, &alice, 7).is_secured());
    let next = world.connect(1, alice.address, Some((b"00000001.3".to_vec(), &key(7))));
    assert!(next.is_secured());
    world.subtract_all([1, 2]);
}

#[test]
fn as_client_the_node_makes_the_new_connection() {
    for peer_key in [9, 8] {
        let mut world = World::calm();
        let (mut alice, mut bob) = parties(&mut world);
        let remote = "192.0.2.1:4000".parse().unwrap();
        world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
        rekey(&mut world, 1, agreed(9, Setup::Active { remote }));
        say(&mut world, &mut alice, "before01", b"one");
        let peer = world.shard.driver_mut().next_connected().expect("it connects");
        let profile = Profile::new(&ProfileConfig::default()).unwrap();
        let mut handshake = Handshake::server(&profile).unwrap();
        let (mut input, mut secured) = (Vec::new(), false);
        for _ in 0..6 {
            input.extend(world.shard.driver_mut().peer_received(peer));
            let mut output = Vec::new();
            match handshake.advance(&input, &mut output) {
                Ok((taken, Progress::NeedPsk)) => {
                    assert_eq!(handshake.identity(), NEXT_IDENTITY);
                    handshake.provide_psk(Some(&key(peer_key)));
                    input.drain(..taken);
                }
                Ok((taken, Progress::NeedInput)) => drop(input.drain(..taken)),
                Ok((_, Progress::Done(_))) => secured = true,
                Err(_) => {}
            }
            world.shard.driver_mut().peer_send(peer, &output);
            world.settle();
            if secured || failed(&world).is_some() {
                break;
            }
        }
        assert_eq!(secured, peer_key == 9);
        assert_eq!(rekeyed(&world), usize::from(secured));
        assert_eq!(released(&world), None);
        if !secured {
            assert_eq!(failed(&world), Some(ReleaseCause::TlsEstablishmentFailure));
            say(&mut world, &mut alice, "after001", b"two");
        }
        hear(&mut world, &mut bob);
        world.subtract_all([1, 2]);
    }
}

#[test]
fn a_connection_that_is_refused_leaves_the_session_as_it_is() {
    let mut world = World::calm();
    let (mut alice, _bob) = parties(&mut world);
    let remote = "192.0.2.1:4000".parse().unwrap();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Refuse);
    rekey(&mut world, 1, agreed(9, Setup::Active { remote }));
    world.settle();
    assert_eq!(failed(&world), Some(ReleaseCause::TcpEstablishmentFailure));
    say(&mut world, &mut alice, "after001", b"one");
    world.subtract_all([1, 2]);
}

#[test]
fn only_a_session_that_stands_under_a_key_of_its_own_gets_another() {
    let mut world = World::calm();
    let alice = world.member(1, 1, Some(&key(1)));
    world.reserve(1, 2, Some(&key(2)));
    world.member(1, 3, None);
    for (termination, reason) in
        [(2, Refusal::Busy), (3, Refusal::Transport), (4, Refusal::TerminationId)]
    {
        rekey(&mut world, termination, agreed(9, Setup::Passive));
        assert_eq!(refused(&world), Some(reason), "{termination}");
    }
    // The identity of somebody who is still to come.
    rekey(
        &mut world,
        1,
        NextKey::Agreed { identity: identity(2), psk: key(9), setup: Setup::Passive },
    );
    assert_eq!(refused(&world), Some(Refusal::IdentityInUse));
    // A session that has just moved has its hands full.
    let next = move_over(&mut world, &alice);
    rekey(&mut world, 1, agreed(7, Setup::Passive));
    assert_eq!(refused(&world), Some(Refusal::Busy));
    world.pass(4);
    rekey(&mut world, 1, agreed(7, Setup::Passive));
    assert!(connect_next(&mut world, &next, 7).is_secured());
    // Nor may another be reserved under an identity that is awaited.
    rekey(&mut world, 1, NextKey::Withdrawn);
    world.pass(4);
    rekey(&mut world, 1, agreed(6, Setup::Passive));
    let mut reserve = reservation(1, 5, Some(&key(5)));
    reserve.security = Security::TlsPsk { identity: NEXT_IDENTITY.to_vec(), psk: key(5) };
    world.command(Command::ReserveAndConfigure(Box::new(reserve)));
    assert_eq!(refused(&world), Some(Refusal::IdentityInUse));
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_session_that_ends_takes_everything_with_it() {
    for moved in [false, true] {
        let mut world = World::calm();
        let (alice, _bob) = parties(&mut world);
        rekey(&mut world, 1, awaited());
        connect_next(&mut world, &alice, 9);
        if moved {
            rekey(&mut world, 1, NextKey::Withdrawn);
            move_over(&mut world, &alice);
        }
        world.subtract_all([1, 2]);
    }
}

#[test]
fn a_chat_goes_on_over_the_move_whatever_the_network_does() {
    for seed in 0..60 {
        let mut world = World::faulty(seed);
        let (mut former, mut bob) = parties(&mut world);
        let mut next: Option<Ue> = None;
        let (mut to_bob, mut to_alice, mut on_former) = (Vec::new(), Vec::new(), 0);
        for round in 0..40_u32 {
            let text = format!("round {round:03}").into_bytes();
            let id = format!("tran{round:04}");
            let message = bob.send(&id, &id, &text);
            bob.send_raw(&mut world, &message);
            to_alice.push(text.clone());
            // The peer says nothing over the new connection before it has all answers of the old.
            let settled = former.received.iter().filter(|it| it.status == Some(200)).count();
            let speaker = match &mut next {
                Some(next) => (settled == on_former).then_some(next),
                None => {
                    on_former += 1;
                    Some(&mut former)
                }
            };
            if let Some(speaker) = speaker {
                let message = speaker.send(&id, &id, &text);
                speaker.send_raw(&mut world, &message);
                to_bob.push(text);
            }
            if round == 5 {
                rekey(&mut world, 1, agreed(9, Setup::Passive));
            }
            if round == 10 + seed as u32 % 7 {
                world.settle();
                former.read(&mut world);
                former.answer(&mut world, 200);
                next = Some(world.connect_only(
                    1,
                    former.address,
                    Some((NEXT_IDENTITY.to_vec(), &key(9))),
                ));
                while !next.as_ref().unwrap().is_secured() {
                    world.settle();
                    next.as_mut().unwrap().read(&mut world);
                }
                world.settle();
            }
            if seed % 2 == 0 || round % 3 == 0 {
                world.settle();
            } else {
                world.shard.turn().unwrap();
            }
            bob.read(&mut world);
            former.read(&mut world);
            if round % 2 == 0 {
                bob.answer(&mut world, 200);
                former.answer(&mut world, 200);
            }
            if let Some(next) = &mut next {
                next.read(&mut world);
                next.answer(&mut world, 200);
            }
        }
        let mut next = next.unwrap();
        for _ in 0..10 {
            for ue in [&mut bob, &mut former, &mut next] {
                ue.read(&mut world);
                ue.answer(&mut world, 200);
            }
            world.settle();
        }
        assert_eq!((rekeyed(&world), released(&world)), (1, None), "{seed}");
        assert_eq!(bob.bodies(), to_bob, "{seed}");
        let answers = [&former, &next]
            .map(|ue| ue.received.iter().filter(|message| message.status == Some(200)).count());
        // The request that binds was answered before.
        assert_eq!(answers.iter().sum::<usize>(), to_bob.len(), "{seed}");
        assert_eq!(put_together(&mut former, &mut next), to_alice, "{seed}");
        world.pass(6);
        assert_eq!(world.measure().connections, 2, "{seed}");
        bob.read(&mut world);
        assert!(bob.take_reports().is_empty(), "{seed}");
        world.subtract_all([1, 2]);
    }
}
