//! Messages among the members of a Context.

mod common;

use common::{World, key};
use mrfp_core::mp::{Command, ContextId, Direction, Event, Modify, ReleaseCause, TerminationId};

#[test]
fn every_other_member_gets_each_message_once_and_the_sender_a_200() {
    for protect in [false, true] {
        let keys = [key(1), key(2), key(3)];
        let psk = |index: usize| protect.then(|| &keys[index]);
        let mut world = World::calm();
        let mut alice = world.member(1, 1, psk(0));
        let mut bob = world.member(1, 2, psk(1));
        let mut carol = world.member(1, 3, psk(2));
        for n in 0..5 {
            let message = alice.send(&format!("tran{n}"), &format!("message{n}"), b"hello");
            alice.send_raw(&mut world, &message);
        }
        world.settle();
        for ue in [&mut alice, &mut bob, &mut carol] {
            ue.read(&mut world);
        }
        assert_eq!(alice.take_statuses(), [200; 5]);
        assert!(alice.messages().is_empty(), "nobody hears itself");
        assert_eq!(bob.bodies(), vec![b"hello".to_vec(); 5]);
        assert_eq!(carol.bodies(), bob.bodies());
        let first = &bob.received[0];
        assert_eq!(first.to_path, bob.local_uri);
        assert_eq!(first.from_path, bob.remote_uri);
        assert_eq!(first.content_type.as_deref(), Some("text/plain"));
        world.subtract_all([1, 2, 3]);
    }
}

#[test]
fn contexts_do_not_hear_each_other() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut stranger = world.member(2, 2, None);
    let message = alice.send("tran0001", "message1", b"secret");
    alice.send_raw(&mut world, &message);
    world.settle();
    alice.read(&mut world);
    stranger.read(&mut world);
    assert_eq!(alice.take_statuses(), [408], "there is nobody to take it");
    assert!(stranger.received.is_empty());
    world.subtract_all([1, 2]);
}

#[test]
fn a_long_message_is_passed_on_before_it_is_complete_and_makes_room_for_others() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let mut carol = world.member(1, 3, None);
    let body: Vec<u8> = (0..300_000u32).map(|i| (i * 7) as u8).collect();
    let message = alice.chunk("long0001", "long-message", "1-*/300000", &body, '$');
    let half = message.len() / 2;
    alice.send_raw(&mut world, &message[..half]);
    world.settle();
    carol.read(&mut world);
    let early = carol.received.len();
    let short = bob.send("tran0001", "short", b"in between");
    bob.send_raw(&mut world, &short);
    world.settle();
    carol.read(&mut world);
    assert!(carol.received.len() > early, "the short message interrupts the long one");
    assert_eq!(carol.bodies(), [b"in between"]);
    alice.send_raw(&mut world, &message[half..]);
    world.settle();
    for ue in [&mut alice, &mut bob, &mut carol] {
        ue.read(&mut world);
    }
    assert_eq!(carol.bodies(), [b"in between".to_vec(), body.clone()]);
    assert_eq!(bob.bodies(), [body]);
    assert_eq!(alice.take_statuses(), [200]);
    assert_eq!(bob.take_statuses(), [200]);
    world.subtract_all([1, 2, 3]);
}

#[test]
fn all_three_continuation_flags_reach_the_receivers() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    for chunk in [
        alice.chunk("chunk001", "first", "1-3/6", b"abc", '+'),
        alice.chunk("chunk002", "first", "4-6/6", b"def", '$'),
        alice.chunk("chunk003", "second", "1-3/6", b"abc", '#'),
    ] {
        alice.send_raw(&mut world, &chunk);
    }
    world.settle();
    alice.read(&mut world);
    bob.read(&mut world);
    assert_eq!(alice.take_statuses(), [200; 3]);
    let messages = bob.messages();
    assert_eq!(messages[0].1, b"abcdef");
    assert_eq!(messages[0].2, '$');
    assert_eq!((messages[1].1.as_slice(), messages[1].2), (b"abc".as_slice(), '#'));
    assert_eq!(messages.len(), 2);
    world.subtract_all([1, 2]);
}

#[test]
fn a_sender_that_vanishes_in_the_middle_of_a_message_has_it_given_up() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let message = alice.chunk("chunk001", "first", "1-*/6000", &[b'x'; 3000], '$');
    alice.send_raw(&mut world, &message[..2000]);
    world.settle();
    world.shard.driver_mut().peer_reset(alice.peer);
    world.settle();
    bob.read(&mut world);
    let messages = bob.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].2, '#');
    assert!(world.seen.iter().any(|event| matches!(
        event,
        Event::BearerReleased {
            termination: TerminationId(1),
            cause: ReleaseCause::ConnectionLost
        }
    )));
    alice.received.clear();
    world.subtract_all([1, 2]);
}

#[test]
fn failure_report_decides_what_is_answered() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let _carol = world.member(1, 3, None);
    let with = |message: Vec<u8>, line: &str| {
        let text = String::from_utf8(message).unwrap();
        text.replace("Content-Type", &format!("{line}\r\nContent-Type")).into_bytes()
    };
    let silent = with(alice.send("tran0001", "mess1", b"1"), "Failure-Report: no");
    let partial = with(alice.send("tran0002", "mess2", b"2"), "Failure-Report: partial");
    let yes = with(alice.send("tran0003", "mess3", b"3"), "Success-Report: yes");
    for message in [silent, partial, yes] {
        alice.send_raw(&mut world, &message);
    }
    world.settle();
    alice.read(&mut world);
    bob.read(&mut world);
    assert_eq!(bob.bodies(), [b"1", b"2", b"3"]);
    assert_eq!(alice.take_statuses(), [200]);
    let reports: Vec<_> = alice.received.iter().collect();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].method.as_deref(), Some("Report"));
    assert_eq!(reports[0].message_id.as_deref(), Some("mess3"));
    world.subtract_all([1, 2, 3]);
}

#[test]
fn refusals_carry_the_protocols_own_word() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let text = |message: Vec<u8>| String::from_utf8(message).unwrap();
    let good = text(alice.send("tran0001", "mess1", b"1"));
    let cases = [
        (good.replace(" SEND\r\n", " AUTH\r\n"), 501),
        (good.replace(" SEND\r\n", " DANCE\r\n"), 501),
        (good.replace(" SEND\r\n", " NICKNAME\r\n"), 403),
        (good.replace("session-", "other---"), 481),
        (good.replace("From-Path: msrp://192.0.2.1:9/", "From-Path: msrp://192.0.2.9:9/"), 481),
        (good.replace("Message-ID: mess1\r\n", ""), 400),
    ];
    for (message, status) in cases {
        alice.send_raw(&mut world, message.as_bytes());
        world.settle();
        alice.read(&mut world);
        assert_eq!(alice.take_statuses(), [status], "{message}");
    }
    world.subtract_all([1]);
}

#[test]
fn a_member_on_hold_neither_sends_nor_receives() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let hold = |direction| {
        Command::Modify(Box::new(Modify {
            termination: TerminationId(2),
            direction,
            muted: false,
            remote: None,
            psk: None,
        }))
    };
    world.command(hold(Direction::Inactive));
    let (to_bob, from_bob) =
        (alice.send("tran0001", "mess1", b"unheard"), bob.send("tran0002", "mess2", b"unsaid"));
    alice.send_raw(&mut world, &to_bob);
    bob.send_raw(&mut world, &from_bob);
    world.settle();
    alice.read(&mut world);
    bob.read(&mut world);
    assert_eq!(alice.take_statuses(), [408], "between two parties nobody else could hear it");
    assert_eq!(bob.take_statuses(), [403]);
    assert!(bob.messages().is_empty());
    world.command(hold(Direction::SendRecv));
    let again = alice.send("tran0003", "mess3", b"heard");
    alice.send_raw(&mut world, &again);
    world.settle();
    bob.read(&mut world);
    assert_eq!(bob.bodies(), [b"heard"]);
    world.subtract_all([1, 2]);
}

#[test]
fn faults_of_the_network_change_nothing_for_the_members() {
    for seed in 0..40 {
        let protect = seed % 2 == 1;
        let keys = [key(1), key(2), key(3)];
        let psk = |index: usize| protect.then(|| &keys[index]);
        let mut world = World::faulty(seed);
        let mut ues: Vec<_> =
            (0..3).map(|index| world.member(1, index as u64 + 1, psk(index))).collect();
        for n in 0..20u32 {
            for (index, ue) in ues.iter_mut().enumerate() {
                let body = vec![b'a' + index as u8; (n * 997 % 9000) as usize + 1];
                let message = ue.send(&format!("tr{index}x{n}"), &format!("message{n}"), &body);
                ue.send_raw(&mut world, &message);
            }
            if n % 3 == 0 {
                world.settle();
            }
        }
        world.settle();
        for ue in &mut ues {
            ue.read(&mut world);
        }
        for (index, ue) in ues.iter_mut().enumerate() {
            assert_eq!(ue.take_statuses().len(), 20, "seed {seed}");
            let bodies = ue.bodies();
            assert_eq!(bodies.len(), 40, "seed {seed}");
            for other in (0..3).filter(|&other| other != index) {
                let lengths: Vec<_> = bodies
                    .iter()
                    .filter(|body| body[0] == b'a' + other as u8)
                    .map(Vec::len)
                    .collect();
                let expected: Vec<_> = (0..20).map(|n| (n * 997 % 9000) + 1).collect();
                assert_eq!(lengths, expected, "in order, once each, seed {seed}");
            }
        }
        world.subtract_all([1, 2, 3]);
    }
}

#[test]
fn an_audit_answers_for_a_context_that_exists() {
    let mut world = World::calm();
    world.reserve(1, 1, None);
    world.command(Command::Audit { context: ContextId(1) });
    world.command(Command::Audit { context: ContextId(2) });
    let known = world.seen.iter().find_map(|event| match event {
        Event::Audited { context, statistics } => Some((*context, statistics.is_some())),
        _ => None,
    });
    assert_eq!(known, Some((ContextId(1), true)));
    assert!(matches!(
        world.seen.last(),
        Some(Event::Audited { context: ContextId(2), statistics: None })
    ));
}
