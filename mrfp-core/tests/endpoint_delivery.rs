//! The delivery contract: what a 200 promises, and how a sender learns that it could not be kept.

mod common;

use common::{Ue, World, response};
use mrfp_core::Limits;
use mrfp_core::mp::{Command, ContextId, Direction, Event, Modify, TerminationId};
use mrfp_io::Simulator;

fn two() -> (World, Ue, Ue) {
    let mut world = World::calm();
    let alice = world.member(1, 1, None);
    let bob = world.member(1, 2, None);
    (world, alice, bob)
}

fn say(world: &mut World, ue: &mut Ue, message: &[u8]) {
    ue.send_raw(world, message);
    world.settle();
    ue.read(world);
}

/// The same message with a further header line.
fn with(message: &[u8], line: &str) -> Vec<u8> {
    let text = String::from_utf8(message.to_vec()).unwrap();
    text.replace("Content-Type", &format!("{line}\r\nContent-Type")).into_bytes()
}

/// Everything a UE has got is read and answered.
fn hear(world: &mut World, ue: &mut Ue, status: u16) {
    ue.read(world);
    ue.answer(world, status);
}

fn report(status: u16, id: &str, range: &str) -> (u16, String, String) {
    (status, id.to_owned(), range.to_owned())
}

#[test]
fn an_error_of_the_only_recipient_becomes_a_report_with_its_status() {
    for status in [400, 403, 413, 415, 404, 500] {
        let (mut world, mut alice, mut bob) = two();
        let message = alice.send("tran0001", "message1", b"hello");
        say(&mut world, &mut alice, &message);
        assert_eq!(alice.take_statuses(), [200]);
        hear(&mut world, &mut bob, status);
        alice.read(&mut world);
        assert_eq!(alice.take_reports(), [report(status, "message1", "1-5/5")]);
        assert_eq!(world.measure().messages_known, 0, "nothing of it is remembered");
        world.subtract_all([1, 2]);
    }
}

#[test]
fn a_200_clears_the_transaction_and_nothing_follows() {
    let (mut world, mut alice, mut bob) = two();
    for n in 0..10 {
        let message = alice.send(&format!("tran{n}"), &format!("message{n}"), b"hello");
        say(&mut world, &mut alice, &message);
    }
    assert_eq!(world.measure().messages_known, 10);
    hear(&mut world, &mut bob, 200);
    assert_eq!(world.measure().messages_known, 0);
    world.pass(40);
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty());
    world.subtract_all([1, 2]);
}

#[test]
fn a_recipient_that_does_not_answer_in_30_seconds_is_reported_as_408() {
    let (mut world, mut alice, mut bob) = two();
    let message = alice.send("tran0001", "message1", b"hello");
    say(&mut world, &mut alice, &message);
    world.pass(29);
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty(), "not before its time");
    world.pass(4);
    alice.read(&mut world);
    assert_eq!(alice.take_reports(), [report(408, "message1", "1-5/5")]);
    // Too late; said once is said.
    hear(&mut world, &mut bob, 413);
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty());
    assert_eq!(world.measure().transactions_timeout, 1);
    world.subtract_all([1, 2]);
}

#[test]
fn the_timer_starts_when_the_last_byte_has_left() {
    let (mut world, mut alice, mut bob) = two();
    world.shard.driver_mut().peer_stop_reading(bob.peer);
    let message = alice.send("tran0001", "message1", &[b'x'; 5000]);
    say(&mut world, &mut alice, &message);
    world.pass(45);
    world.shard.driver_mut().peer_resume_reading(bob.peer);
    world.settle();
    world.pass(25);
    hear(&mut world, &mut bob, 200);
    world.pass(40);
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty(), "it waited long for its turn, not for its answer");
    world.subtract_all([1, 2]);
}

#[test]
fn a_lost_connection_reports_what_was_unanswered_and_what_was_unsent() {
    let (mut world, mut alice, mut bob) = two();
    let answered = alice.send("tran0001", "answered", b"hello");
    say(&mut world, &mut alice, &answered);
    hear(&mut world, &mut bob, 200);
    let unanswered = alice.send("tran0002", "unanswered", b"hello");
    say(&mut world, &mut alice, &unanswered);
    world.shard.driver_mut().peer_stop_reading(bob.peer);
    let unsent = alice.send("tran0003", "unsent", &[b'x'; 5000]);
    say(&mut world, &mut alice, &unsent);
    assert_eq!(alice.take_statuses(), [200; 3]);
    world.shard.driver_mut().peer_reset(bob.peer);
    world.settle();
    alice.read(&mut world);
    let reports = alice.take_reports();
    assert_eq!(reports, [report(408, "unanswered", "1-5/5"), report(408, "unsent", "1-5000/5000")]);
    world.subtract_all([1, 2]);
}

#[test]
fn subtracting_the_recipient_reports_what_it_has_not_answered() {
    let (mut world, mut alice, _bob) = two();
    let message = alice.send("tran0001", "message1", b"hello");
    say(&mut world, &mut alice, &message);
    world.command(Command::Subtract { termination: TerminationId(2) });
    alice.read(&mut world);
    assert_eq!(alice.take_reports(), [report(408, "message1", "1-5/5")]);
    let message = alice.send("tran0002", "message2", b"anybody?");
    say(&mut world, &mut alice, &message);
    assert_eq!(alice.take_statuses(), [200, 408], "and now nobody is there to take anything");
    world.subtract_all([1, 2]);
}

#[test]
fn a_recipient_that_is_lost_in_the_middle_of_a_chunk_ends_it_with_an_error() {
    let (mut world, mut alice, bob) = two();
    let first = alice.chunk("chunk001", "long", "1-3/9000", b"abc", '+');
    let second = alice.chunk("chunk002", "long", "4-*/9000", &[b'x'; 8997], '$');
    say(&mut world, &mut alice, &first);
    say(&mut world, &mut alice, &second[..4000]);
    world.shard.driver_mut().peer_reset(bob.peer);
    world.settle();
    alice.read(&mut world);
    assert_eq!(alice.take_statuses(), [200, 408], "the chunk under way is answered at once");
    assert_eq!(alice.take_reports(), [report(408, "long", "1-3/9000")], "the rest reported");
    say(&mut world, &mut alice, &second[4000..]);
    assert!(alice.take_statuses().is_empty(), "one answer to a request");
    world.subtract_all([1, 2]);
}

#[test]
fn a_413_from_the_only_recipient_stops_the_sender_and_whatever_more_it_sends() {
    let (mut world, mut alice, mut bob) = two();
    let first = alice.chunk("chunk001", "long", "1-*/9000", &[b'x'; 4000], '+');
    let second = alice.chunk("chunk002", "long", "4001-*/9000", &[b'x'; 4000], '+');
    let third = alice.chunk("chunk003", "long", "8001-9000/9000", &[b'x'; 1000], '$');
    say(&mut world, &mut alice, &first);
    say(&mut world, &mut alice, &second[..2000]);
    bob.read(&mut world);
    bob.answer(&mut world, 413);
    alice.read(&mut world);
    assert_eq!(alice.take_statuses(), [200, 413]);
    assert_eq!(alice.take_reports(), [report(413, "long", "1-4000/9000")]);
    bob.read(&mut world);
    assert_eq!(bob.received.last().unwrap().end, Some('#'), "the chunk that was open");
    let before = bob.received.len();
    say(&mut world, &mut alice, &second[2000..]);
    say(&mut world, &mut alice, &third);
    bob.read(&mut world);
    assert_eq!(bob.received.len(), before, "an aborted message never resumes");
    assert_eq!(alice.take_statuses(), [413]);
    let next = alice.send("tran0001", "next", b"hello");
    say(&mut world, &mut alice, &next);
    bob.read(&mut world);
    assert_eq!(bob.received.last().unwrap().body, b"hello");
    assert_eq!(alice.take_statuses(), [200]);
    world.subtract_all([1, 2]);
}

#[test]
fn an_empty_last_chunk_that_is_refused_is_reported_as_what_it_was_to_complete() {
    let (mut world, mut alice, mut bob) = two();
    let first = alice.chunk("chunk001", "long", "1-*/9", b"abcdefghi", '+');
    let empty = alice.chunk("chunk002", "long", "10-*/9", b"", '$');
    say(&mut world, &mut alice, &first);
    hear(&mut world, &mut bob, 200);
    say(&mut world, &mut alice, &empty);
    assert_eq!(alice.take_statuses(), [200; 2]);
    hear(&mut world, &mut bob, 413);
    alice.read(&mut world);
    assert_eq!(alice.take_reports(), [report(413, "long", "1-9/9")]);
    world.subtract_all([1, 2]);
}

/// A chunk without a body; RFC 4975 section 9: then there is no Content-Type either.
fn bare_end(ue: &Ue, transaction_id: &str, message_id: &str, range: &str, flag: char) -> Vec<u8> {
    let text = String::from_utf8(ue.chunk(transaction_id, message_id, range, b"", flag)).unwrap();
    text.replace("Content-Type: text/plain\r\n\r\n\r\n", "").into_bytes()
}

#[test]
fn a_chunk_without_a_body_ends_the_message_it_belongs_to() {
    for (flag, status) in [('$', 200), ('#', 200), ('$', 413)] {
        for further in [false, true] {
            let (mut world, mut alice, mut bob) = two();
            let carol = further.then(|| world.member(1, 3, None));
            let first = alice.chunk("chunk001", "long", "1-*/*", b"abc", '+');
            say(&mut world, &mut alice, &first);
            let end = bare_end(&alice, "chunk002", "long", "4-3/*", flag);
            say(&mut world, &mut alice, &end);
            assert_eq!(alice.take_statuses(), [200; 2]);
            bob.read(&mut world);
            let messages = bob.messages();
            assert_eq!(messages.len(), 1, "{flag}: it is at its end");
            assert_eq!((messages[0].1.as_slice(), messages[0].2), (&b"abc"[..], flag));
            assert_eq!(bob.received.last().unwrap().header("Content-Type"), None);
            let first_id = bob.received[0].transaction_id.clone();
            let (to, from) = (bob.remote_uri.clone(), bob.local_uri.clone());
            bob.send_raw(&mut world, &response(&first_id, 200, &to, &from));
            bob.received.remove(0);
            hear(&mut world, &mut bob, status);
            alice.read(&mut world);
            let due = status != 200 && !further;
            let expected = due.then(|| report(status, "long", "1-3/3"));
            assert_eq!(alice.take_reports(), expected.into_iter().collect::<Vec<_>>());
            drop(carol);
            world.subtract_all([1, 2, 3]);
        }
    }
}

#[test]
fn what_was_taken_over_of_a_message_that_is_given_up_is_reported_all_the_same() {
    let (mut world, mut alice, _bob) = two();
    let first = alice.chunk("chunk001", "long", "1-3/9", b"abc", '+');
    say(&mut world, &mut alice, &first);
    for direction in [Direction::Inactive, Direction::SendRecv] {
        world.command(Command::Modify(Box::new(Modify {
            termination: TerminationId(1),
            direction,
            muted: false,
            remote: None,
            psk: None,
        })));
    }
    world.pass(34);
    alice.read(&mut world);
    assert_eq!(alice.take_reports(), [report(408, "long", "1-3/9")]);
    world.subtract_all([1, 2]);
}

#[test]
fn two_messages_a_receiver_has_declined_both_stay_declined() {
    let (mut world, mut alice, mut bob) = two();
    let _carol = world.member(1, 3, None);
    for id in ["first", "other"] {
        let chunk = alice.chunk(&format!("c{id}001"), id, "1-3/9", b"abc", '+');
        say(&mut world, &mut alice, &chunk);
        hear(&mut world, &mut bob, 413);
    }
    let before = bob.received.len();
    for id in ["first", "other"] {
        let chunk = alice.chunk(&format!("c{id}002"), id, "4-6/9", b"def", '+');
        say(&mut world, &mut alice, &chunk);
        bob.read(&mut world);
        assert_eq!(bob.received.len(), before, "{id}");
    }
    assert_eq!(alice.take_statuses(), [200; 4], "carol gets them");
    world.subtract_all([1, 2, 3]);
}

#[test]
fn failure_report_no_is_silent_in_both_directions_and_goes_on_to_the_recipient() {
    let (mut world, mut alice, mut bob) = two();
    let message = with(&alice.send("tran0001", "message1", b"hello"), "Failure-Report: no");
    say(&mut world, &mut alice, &message);
    bob.read(&mut world);
    assert_eq!(bob.received[0].header("Failure-Report").as_deref(), Some("no"));
    assert_eq!(world.measure().messages_known, 0, "no answer is waited for");
    bob.answer(&mut world, 413);
    let message = with(&alice.send("tran0002", "message2", b"hello"), "Failure-Report: no");
    say(&mut world, &mut alice, &message);
    world.pass(40);
    world.shard.driver_mut().peer_reset(bob.peer);
    world.settle();
    alice.read(&mut world);
    assert!(alice.received.is_empty(), "{:?}", alice.received);
    world.subtract_all([1, 2]);
}

#[test]
fn failure_report_partial_goes_on_silence_is_success_and_an_error_is_reported() {
    let (mut world, mut alice, mut bob) = two();
    let partial = |n: u32| {
        let message = alice.send(&format!("tran000{n}"), &format!("message{n}"), b"hello");
        with(&message, "Failure-Report: partial")
    };
    let (first, second) = (partial(1), partial(2));
    say(&mut world, &mut alice, &first);
    bob.read(&mut world);
    assert_eq!(bob.received[0].header("Failure-Report").as_deref(), Some("partial"));
    world.pass(40);
    alice.read(&mut world);
    assert!(alice.received.is_empty(), "no 200, no 408");
    assert_eq!(world.measure().messages_known, 0);
    bob.received.clear();
    say(&mut world, &mut alice, &second);
    hear(&mut world, &mut bob, 415);
    alice.read(&mut world);
    assert_eq!(alice.take_reports(), [report(415, "message2", "1-5/5")]);
    world.subtract_all([1, 2]);
}

#[test]
fn between_two_parties_success_reports_are_the_recipients_and_carry_its_ranges() {
    let (mut world, mut alice, mut bob) = two();
    let id = "{0a1b2c3d-0000-4000-8000-0123456789ab}";
    let message = with(&alice.send("tran0001", id, b"hello world"), "Success-Report: yes");
    say(&mut world, &mut alice, &message);
    bob.read(&mut world);
    assert_eq!(bob.received[0].header("Success-Report").as_deref(), Some("yes"));
    assert_eq!(bob.received[0].message_id.as_deref(), Some(id), "end to end it is the sender's");
    bob.answer(&mut world, 200);
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty(), "the node does not speak for the recipient");
    for (n, range) in ["1-5/11", "6-11/11"].into_iter().enumerate() {
        let report = format!(
            "MSRP report0{n} REPORT\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {id}\r\n\
             Byte-Range: {range}\r\nStatus: 000 200 OK\r\n-------report0{n}$\r\n",
            bob.remote_uri, bob.local_uri
        );
        bob.send_raw(&mut world, report.as_bytes());
    }
    world.settle();
    alice.read(&mut world);
    assert_eq!(alice.received.last().unwrap().to_path, alice.local_uri);
    assert_eq!(alice.received.last().unwrap().from_path, alice.remote_uri);
    assert_eq!(alice.take_reports(), [report(200, id, "1-5/11"), report(200, id, "6-11/11")]);
    bob.read(&mut world);
    assert!(bob.take_statuses().is_empty(), "a REPORT is never answered");
    world.subtract_all([1, 2]);
}

#[test]
fn a_conference_keeps_the_reports_of_its_members_and_counts_them() {
    let (mut world, mut alice, mut bob) = two();
    let mut carol = world.member(1, 3, None);
    let message = with(&alice.send("tran0001", "message1", b"hello"), "Success-Report: yes");
    say(&mut world, &mut alice, &message);
    assert_eq!(alice.take_reports(), [report(200, "message1", "1-5/5")], "it answers itself");
    bob.read(&mut world);
    assert_eq!(bob.received[0].header("Success-Report"), None);
    let report = format!(
        "MSRP report01 REPORT\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: message1\r\n\
         Byte-Range: 1-5/5\r\nStatus: 000 413 Stop\r\n-------report01$\r\n",
        bob.remote_uri, bob.local_uri
    );
    bob.send_raw(&mut world, report.as_bytes());
    hear(&mut world, &mut bob, 413);
    hear(&mut world, &mut carol, 200);
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty(), "somebody has got it");
    assert_eq!(world.measure().reports_received, 1);
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_message_that_none_of_several_gets_is_reported_once() {
    let (mut world, mut alice, mut bob) = two();
    let mut carol = world.member(1, 3, None);
    let mut dave = world.member(1, 4, None);
    let message = alice.send("tran0001", "message1", b"hello");
    say(&mut world, &mut alice, &message);
    hear(&mut world, &mut bob, 413);
    hear(&mut world, &mut carol, 403);
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty());
    hear(&mut world, &mut dave, 415);
    alice.read(&mut world);
    assert_eq!(alice.take_reports(), [report(415, "message1", "1-5/5")]);
    world.command(Command::Audit { context: ContextId(1) });
    let Some(Event::Audited { statistics: Some(statistics), .. }) = world.seen.last() else {
        panic!("not audited");
    };
    assert_eq!(statistics.messages_undelivered, 1);
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn a_receiver_that_answers_nothing_lags_and_catches_up_when_its_time_is_over() {
    let limits = Limits { egress_bytes_max: 1 << 24, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    for n in 0..12_000 {
        let message = alice.send(&format!("tran{n}"), &format!("flood{n}"), b"x");
        alice.send_raw(&mut world, &message);
    }
    world.settle();
    alice.read(&mut world);
    let answered = alice.take_statuses().len();
    assert!((4_096..6_000).contains(&answered), "{answered}");
    bob.read(&mut world);
    for _ in 0..20 {
        hear(&mut world, &mut bob, 200);
    }
    alice.read(&mut world);
    assert_eq!(alice.take_statuses().len() + answered, 12_000, "answers let the sender go on");
    assert_eq!(bob.messages().len(), 12_000);
    world.subtract_all([1, 2]);
}

#[test]
fn a_strange_response_is_nobodys_answer() {
    let (mut world, mut alice, mut bob) = two();
    let message = alice.send("tran0001", "message1", b"hello");
    say(&mut world, &mut alice, &message);
    bob.read(&mut world);
    // Right identifier on the wrong connection, wrong identifier on the right one.
    let id = bob.received[0].transaction_id.clone();
    let forged = response(&id, 413, &alice.remote_uri, &alice.local_uri);
    say(&mut world, &mut alice, &forged);
    let unknown = response("whoknows", 413, &bob.remote_uri, &bob.local_uri);
    bob.send_raw(&mut world, &unknown);
    world.settle();
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty());
    hear(&mut world, &mut bob, 200);
    assert_eq!(world.measure().messages_known, 0);
    world.subtract_all([1, 2]);
}

#[test]
fn a_message_whose_next_chunk_does_not_come_is_given_up_after_540_seconds() {
    let (mut world, mut alice, mut bob) = two();
    let between = alice.chunk("chunk001", "between", "1-3/9", b"abc", '+');
    let within = alice.chunk("chunk002", "within", "1-*/9000", &[b'x'; 9000], '$');
    say(&mut world, &mut alice, &between);
    say(&mut world, &mut alice, &within[..4000]);
    hear(&mut world, &mut bob, 200);
    // The sender is still there.
    for _ in 0..53 {
        world.pass(10);
        bob.read(&mut world);
        bob.answer(&mut world, 200);
    }
    assert!(bob.messages().is_empty(), "neither is at its end");
    world.pass(15);
    bob.read(&mut world);
    let ends: Vec<_> =
        bob.messages().iter().map(|message| (message.0.clone(), message.2)).collect();
    assert!(ends.contains(&("between".to_owned(), '#')), "{ends:?}");
    assert!(ends.contains(&("within".to_owned(), '#')), "{ends:?}");
    alice.read(&mut world);
    assert_eq!(alice.take_statuses(), [200, 408]);
    assert_eq!(world.measure().messages_abandoned, 2);
    let next = alice.send("tran0001", "next", b"hello");
    say(&mut world, &mut alice, &[&within[4000..], &next].concat());
    bob.read(&mut world);
    assert_eq!(bob.received.last().unwrap().body, b"hello");
    world.subtract_all([1, 2]);
}
