//! What cannot be delivered is never passed over in silence, and never told twice.

use mrfp_io::ConnectAnswer;

use crate::common::World;
use crate::world::*;

fn to(alice: &Client) -> String {
    format!("{} {BOB_URI}", alice.through)
}

/// The REPORTs among what a peer has received, as Byte-Range and status.
fn reports(peer: &mut Peer) -> Vec<(String, String)> {
    let text = |message: &Message, name: &str| message.header(name).unwrap().to_owned();
    peer.take()
        .iter()
        .filter(|message| message.start == "REPORT")
        .map(|message| (text(message, "Byte-Range"), text(message, "Status")))
        .collect()
}

fn timeout(range: &str) -> Vec<(String, String)> {
    vec![(range.to_owned(), "000 408 Timeout".to_owned())]
}

#[test]
fn an_error_of_the_recipient_becomes_a_report_unless_none_is_wanted() {
    for (headers, reported) in
        [("", true), ("Failure-Report: partial\r\n", true), ("Failure-Report: no\r\n", false)]
    {
        let mut world = world();
        let (mut alice, mut bob) = pair(&mut world);
        bob.answers = false;
        alice.peer.send(&mut world, send("fail1", &to(&alice), ALICE_URI, headers, b"hello"));
        exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
        alice.peer.take();
        let received = bob.take().pop().unwrap();
        bob.send(&mut world, response(&received, "413 Stop Sending"));
        bob.send(&mut world, response(&received, "413 Stop Sending"));
        alice.peer.run(&mut world);
        let got = alice.peer.take();
        assert_eq!(got.len(), usize::from(reported), "{got:?}");
        if let Some(report) = got.first() {
            assert_eq!(report.start, "REPORT");
            assert_eq!((report.to.as_str(), report.from.as_str()), (ALICE_URI, &*alice.through));
            assert_eq!(report.header("Message-ID"), Some("msg1"));
            assert_eq!(report.header("Byte-Range"), Some("1-5/5"));
            assert_eq!(report.header("Status"), Some("000 413 Stop Sending"));
        }
        finish(&mut world, &[&alice.peer, &bob]);
    }
}

#[test]
fn silence_of_the_recipient_becomes_a_report_after_thirty_seconds() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    bob.answers = false;
    alice.peer.send(&mut world, send("mute1", &to(&alice), ALICE_URI, "", b"hello"));
    exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    assert_eq!(alice.peer.take_starts(), ["200"]);
    world.pass(29);
    alice.peer.read(&mut world);
    assert_eq!(reports(&mut alice.peer), []);
    world.pass(3);
    alice.peer.read(&mut world);
    assert_eq!(reports(&mut alice.peer), timeout("1-5/5"));
    assert_eq!(world.measure().relay_transactions_timeout, 1);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn the_timer_does_not_run_while_bytes_wait_to_leave() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    world.shard.driver_mut().peer_stop_reading(bob.id);
    // One chunk: of a larger message each would have a timer of its own.
    let body = vec![b'x'; 60_000];
    alice.peer.send(&mut world, send("slow1", &to(&alice), ALICE_URI, "", &body));
    for _ in 0..8 {
        world.shard.driver_mut().peer_limit_window(bob.id, 6_000);
        world.pass(20);
    }
    alice.peer.read(&mut world);
    assert_eq!(alice.peer.take_starts(), ["200"], "no report");
    world.shard.driver_mut().peer_resume_reading(bob.id);
    exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    assert!(bob.body("msg1") == body);
    world.pass(40);
    alice.peer.read(&mut world);
    assert_eq!(alice.peer.take_starts(), [] as [&str; 0]);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_lost_recipient_becomes_a_report_for_each_message_without_an_answer() {
    let lose: [fn(&mut World, &Peer); 2] = [
        |world, bob| world.shard.driver_mut().peer_close(bob.id),
        |world, bob| world.shard.driver_mut().peer_reset(bob.id),
    ];
    for lose in lose {
        let mut world = world();
        let (mut alice, mut bob) = pair(&mut world);
        bob.answers = false;
        for (transaction, body) in [("lost1", "one"), ("lost2", "three")] {
            let bytes = send(transaction, &to(&alice), ALICE_URI, "", body.as_bytes());
            alice.peer.send(&mut world, bytes);
        }
        exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
        assert_eq!(alice.peer.take_starts(), ["200", "200"]);
        lose(&mut world, &bob);
        alice.peer.run(&mut world);
        let expected = [timeout("1-3/3"), timeout("1-5/5")].concat();
        assert_eq!(reports(&mut alice.peer), expected);
        finish(&mut world, &[&alice.peer, &bob]);
    }
}

#[test]
fn a_connection_that_cannot_be_made_becomes_a_report() {
    for (answered, seconds) in [(ConnectAnswer::Refuse, 0), (ConnectAnswer::Silence, 17)] {
        let mut world = world();
        answer(&mut world, BOB, answered);
        let mut alice = Client::new(&mut world, "alice", ALICE_URI);
        alice.peer.send(&mut world, send("call1", &to(&alice), ALICE_URI, "", b"hello"));
        world.pass(seconds);
        alice.peer.run(&mut world);
        let got = alice.peer.take();
        let starts: Vec<&str> = got.iter().map(|message| message.start.as_str()).collect();
        assert_eq!(starts, ["200", "REPORT"]);
        assert_eq!(got[1].header("Status"), Some("000 408 Timeout"));
        finish(&mut world, &[&alice.peer]);
    }
}

#[test]
fn a_recipient_that_stops_a_message_under_way_stops_its_sender_at_once() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    bob.answers = false;
    let large = chunk("long1", &to(&alice), ALICE_URI, "", "1-*/9000", &[b'x'; 9_000], '$');
    alice.peer.send(&mut world, &large[..5_000]);
    world.settle();
    let arrived = world.shard.driver_mut().peer_received(bob.id);
    let transaction = String::from_utf8_lossy(&arrived)[5..18].to_owned();
    let stop = Message {
        start: "SEND".to_owned(),
        transaction: transaction.clone(),
        to: BOB_URI.to_owned(),
        from: alice.through.clone(),
        ..Message::default()
    };
    bob.send(&mut world, response(&stop, "413 Stop Sending"));
    alice.peer.run(&mut world);
    assert_eq!(alice.peer.take_starts(), ["413"], "and no report beside it");
    let end = world.shard.driver_mut().peer_received(bob.id);
    assert_eq!(String::from_utf8_lossy(&end), format!("\r\n-------{transaction}#\r\n"));
    // What was under way already goes nowhere; the next message does.
    alice.peer.send(&mut world, &large[5_000..]);
    alice.peer.run(&mut world);
    assert_eq!(alice.peer.take_starts(), [] as [&str; 0]);
    bob.answers = true;
    alice.peer.send(&mut world, send("next1", &to(&alice), ALICE_URI, "", b"next"));
    exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    assert_eq!(alice.peer.take_starts(), ["200"]);
    assert_eq!(bob.body("msg1"), b"next");
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_recipient_lost_in_the_middle_of_a_message_is_told_once() {
    let mut world = world();
    let (mut alice, bob) = pair(&mut world);
    let large = chunk("long1", &to(&alice), ALICE_URI, "", "1-*/9000", &[b'x'; 9_000], '$');
    alice.peer.send(&mut world, &large[..5_000]);
    world.settle();
    world.shard.driver_mut().peer_reset(bob.id);
    world.settle();
    alice.peer.send(&mut world, &large[5_000..]);
    alice.peer.run(&mut world);
    assert_eq!(alice.peer.take_starts(), ["408"]);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_sender_lost_in_the_middle_of_a_message_is_an_abort_for_the_recipient() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let large = chunk("long1", &to(&alice), ALICE_URI, "", "1-*/9000", &[b'x'; 9_000], '$');
    alice.peer.send(&mut world, &large[..5_000]);
    world.settle();
    world.shard.driver_mut().peer_reset(alice.peer.id);
    bob.run(&mut world);
    let received = bob.take().pop().unwrap();
    assert_eq!(received.flag, '#');
    assert!(received.body.iter().all(|&byte| byte == b'x'));
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_uri_that_runs_out_in_the_middle_of_a_message_ends_it() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let large = chunk("long1", &to(&alice), ALICE_URI, "", "1-*/9000", &[b'x'; 9_000], '$');
    alice.peer.send(&mut world, &large[..5_000]);
    world.pass(901);
    alice.peer.send(&mut world, &large[5_000..]);
    exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    assert_eq!(alice.peer.take_starts(), ["481"]);
    assert_eq!(bob.take().pop().unwrap().flag, '#');
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn whoever_writes_to_a_client_that_is_gone_gets_481() {
    let mut world = world();
    let (alice, mut bob) = pair(&mut world);
    world.shard.driver_mut().peer_close(alice.peer.id);
    world.settle();
    let back = format!("{} {ALICE_URI}", alice.through);
    bob.send(&mut world, send("late1", &back, BOB_URI, "", b"too late"));
    bob.run(&mut world);
    assert_eq!(bob.take_starts(), ["481"]);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_report_is_neither_answered_nor_reported() {
    let mut world = world();
    let (mut alice, bob) = pair(&mut world);
    world.shard.driver_mut().peer_close(bob.id);
    world.settle();
    answer(&mut world, BOB, ConnectAnswer::Refuse);
    let headers = "Message-ID: msg9\r\nByte-Range: 1-3/3\r\nStatus: 000 200 OK\r\n";
    let unknown = format!("msrp://relay.example:2900/unknown;tcp {BOB_URI}");
    for to in [&to(&alice), &unknown, &alice.through] {
        alice.peer.send(&mut world, request("rep01", "REPORT", to, ALICE_URI, headers));
    }
    world.pass(40);
    alice.peer.read(&mut world);
    assert_eq!(alice.peer.take_starts(), [] as [&str; 0]);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_request_the_far_end_does_not_answer_gets_408() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    alice.peer.send(&mut world, request("nick1", "NICKNAME", &to(&alice), ALICE_URI, ""));
    world.pass(33);
    alice.peer.read(&mut world);
    let answer = alice.peer.take().pop().unwrap();
    assert_eq!((answer.start.as_str(), answer.transaction.as_str()), ("408", "nick1"));
    bob.run(&mut world);
    let late = bob.take().pop().unwrap();
    bob.send(&mut world, response(&late, "200 OK"));
    alice.peer.run(&mut world);
    assert_eq!(alice.peer.take_starts(), [] as [&str; 0]);
    finish(&mut world, &[&alice.peer, &bob]);
}

/// Where only errors are answered, silence of a recipient that is lost says that it got what had
/// left: everything else is reported, whatever has left instead of it.
#[test]
fn what_has_not_left_is_reported_even_where_something_else_overtook_it() {
    const LENGTH: usize = 600_000;
    for overtaking in [false, true] {
        let mut world = world();
        let (mut alice, mut bob) = pair(&mut world);
        let mut carol = Client::new(&mut world, "bob", "msrp://carol.example:9892/carol;tcp");
        world.shard.driver_mut().peer_stop_reading(bob.id);
        let to = format!("{} {BOB_URI}", alice.through);
        let body = vec![b'x'; LENGTH];
        let bytes = send("large1", &to, ALICE_URI, "Failure-Report: partial\r\n", &body);
        alice.peer.send(&mut world, bytes);
        world.settle();
        if overtaking {
            let to = format!("{} {BOB_URI}", carol.through);
            for number in 0..4 {
                let headers = "Failure-Report: no\r\n";
                let bytes =
                    send(&format!("small{number}"), &to, &carol.uri, headers, &body[..50_000]);
                carol.peer.send(&mut world, bytes);
            }
            world.settle();
        }
        world.shard.driver_mut().peer_limit_window(bob.id, 320_000);
        world.settle();
        bob.read(&mut world);
        world.shard.driver_mut().peer_reset(bob.id);
        world.settle();
        alice.peer.run(&mut world);
        let mut known = vec![false; LENGTH];
        let of_alice =
            |m: &&Message| m.header("Message-ID") == Some("msg1") && m.from.contains("alice");
        for chunk in bob.take().iter().filter(of_alice) {
            let range = chunk.header("Byte-Range").unwrap();
            let start: usize = range.split('-').next().unwrap().parse().unwrap();
            known[start - 1..start - 1 + chunk.body.len()].fill(true);
        }
        let got = known.iter().filter(|&&got| got).count();
        assert!(got > 0 && got < LENGTH, "{got}");
        for report in alice.peer.take() {
            assert_eq!(report.start, "REPORT");
            let range = report.header("Byte-Range").unwrap();
            let (start, end) = range.split('/').next().unwrap().split_once('-').unwrap();
            let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
            known[start - 1..end].fill(true);
        }
        let lost = known.iter().filter(|&&known| !known).count();
        assert_eq!(lost, 0, "overtaking: {overtaking}");
        finish(&mut world, &[&alice.peer, &carol.peer, &bob]);
    }
}
