//! The cases relays of the field fail on.

use crate::common::World;
use crate::world::*;

fn to(alice: &Client) -> String {
    format!("{} {BOB_URI}", alice.through)
}

fn body(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Sends, lets everybody work, and gives what came of it.
fn relayed(world: &mut World, alice: &mut Client, bob: &mut Peer, bytes: &[u8]) -> Vec<String> {
    alice.peer.send(world, bytes);
    exchange(world, &mut [&mut alice.peer, bob]);
    alice.peer.take_starts()
}

#[test]
fn a_frame_may_come_byte_by_byte() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    for byte in send("tiny1", &to(&alice), ALICE_URI, "", b"byte by byte") {
        alice.peer.send(&mut world, [byte]);
        world.settle();
    }
    exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    assert_eq!(bob.body("msg1"), b"byte by byte");
    assert_eq!(alice.peer.take_starts(), ["200"]);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn fifty_frames_may_come_in_one_write() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let all: Vec<u8> = (0..50)
        .flat_map(|n| send(&format!("tr{n:04}"), &to(&alice), ALICE_URI, "", b"one of fifty"))
        .collect();
    assert_eq!(relayed(&mut world, &mut alice, &mut bob, &all), vec!["200"; 50]);
    assert_eq!(bob.take_starts(), vec!["SEND"; 50]);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn what_looks_like_an_end_line_may_stand_in_a_body() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let text = b"-------look1$x\r\n-------look2$\r\n-------\r\nend\r\n-------look1";
    let bytes = send("look1", &to(&alice), ALICE_URI, "", text);
    assert_eq!(relayed(&mut world, &mut alice, &mut bob, &bytes), ["200"]);
    assert_eq!(bob.body("msg1"), text);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_send_without_a_body_goes_on_as_it_came() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let headers = "Message-ID: none1\r\nByte-Range: 1-0/0\r\n";
    let bytes = request("empty1", "SEND", &to(&alice), ALICE_URI, headers);
    assert_eq!(relayed(&mut world, &mut alice, &mut bob, bytes.as_bytes()), ["200"]);
    let received = bob.take();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].header("Byte-Range"), Some("1-0/0"));
    assert_eq!(received[0].header("Message-ID"), Some("none1"));
    assert!(received[0].body.is_empty());
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_message_may_be_resumed_after_a_chunk() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let to = to(&alice);
    let bytes = [
        chunk("part1", &to, ALICE_URI, "", "1-*/10", b"hello", '+'),
        send("else1", &to, ALICE_URI, "", b"x").replace_id(b"msg1", b"msg2"),
        chunk("part2", &to, ALICE_URI, "", "6-10/10", b"world", '$'),
    ]
    .concat();
    assert_eq!(relayed(&mut world, &mut alice, &mut bob, &bytes), ["200"; 3]);
    assert_eq!(bob.body("msg1"), b"helloworld");
    let flags: String = bob.take().iter().map(|message| message.flag).collect();
    assert_eq!(flags, "+$$");
    finish(&mut world, &[&alice.peer, &bob]);
}

trait ReplaceId {
    fn replace_id(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
}

impl ReplaceId for Vec<u8> {
    fn replace_id(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = self.windows(from.len()).position(|window| window == from).unwrap();
        [&self[..at], to, &self[at + from.len()..]].concat()
    }
}

#[test]
fn an_abort_goes_on() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let bytes = chunk("stop1", &to(&alice), ALICE_URI, "", "1-*/100", b"never m", '#');
    assert_eq!(relayed(&mut world, &mut alice, &mut bob, &bytes), ["200"]);
    let received = bob.take();
    assert_eq!((received[0].flag, received[0].body.as_slice()), ('#', b"never m".as_slice()));
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn failure_report_no_is_silent_and_partial_says_no_200() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    for kind in ["no", "partial"] {
        let headers = format!("Failure-Report: {kind}\r\n");
        let bytes = send("quiet1", &to(&alice), ALICE_URI, &headers, b"hush");
        assert_eq!(relayed(&mut world, &mut alice, &mut bob, &bytes), [] as [&str; 0]);
        assert_eq!(bob.take()[0].header("Failure-Report"), Some(kind));
    }
    world.pass(40);
    alice.peer.read(&mut world);
    assert_eq!(alice.peer.take_starts(), [] as [&str; 0], "nothing was wrong");
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn an_unknown_session_gets_481_and_failure_report_no_nothing() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let unknown = format!("msrp://relay.example:2900/unknown;tcp {BOB_URI}");
    let bytes = send("who01", &unknown, ALICE_URI, "", b"anybody?");
    assert_eq!(relayed(&mut world, &mut alice, &mut bob, &bytes), ["481"]);
    let bytes = send("who02", &unknown, ALICE_URI, "Failure-Report: no\r\n", b"anybody?");
    assert_eq!(relayed(&mut world, &mut alice, &mut bob, &bytes), [] as [&str; 0]);
    assert_eq!(bob.take_starts(), [] as [&str; 0]);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn an_unknown_method_is_passed_on_and_for_the_relay_itself_gets_501() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    alice
        .peer
        .send(&mut world, request("make1", "DANCE", &to(&alice), ALICE_URI, "Tempo: 3/4\r\n"));
    world.settle();
    bob.run(&mut world);
    let dance = bob.take().pop().unwrap();
    assert_eq!((dance.start.as_str(), dance.header("Tempo")), ("DANCE", Some("3/4")));
    assert_ne!(dance.transaction, "make1");
    assert_eq!(dance.from, format!("{} {ALICE_URI}", alice.through));
    bob.send(&mut world, response(&dance, "501 Unknown Method"));
    alice.peer.run(&mut world);
    let answer = alice.peer.take().pop().unwrap();
    assert_eq!((answer.start.as_str(), answer.transaction.as_str()), ("501", "make1"));
    assert_eq!(answer.to, ALICE_URI);
    assert_eq!(answer.from, format!("{} {BOB_URI}", alice.through));
    alice.peer.send(&mut world, request("make2", "DANCE", &alice.through, ALICE_URI, ""));
    alice.peer.run(&mut world);
    assert_eq!(alice.peer.take_starts(), ["501"]);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn large_messages_pass_byte_by_byte_the_same() {
    let lengths = (4..40).map(|seed| (3_000 * seed as usize, seed));
    for (length, seed) in
        [(64 * 1024, 1), (1024 * 1024, 2), (1024 * 1024, 3)].into_iter().chain(lengths)
    {
        let mut world = faulty(seed);
        let (mut alice, mut bob) = pair(&mut world);
        let body = body(length);
        let bytes = send("large1", &to(&alice), ALICE_URI, "", &body);
        alice.peer.send(&mut world, &bytes);
        exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
        assert_eq!(alice.peer.take_starts(), ["200"]);
        assert!(bob.body("msg1") == body, "every byte, in order");
        assert_eq!(bob.received.last().unwrap().flag, '$');
        finish(&mut world, &[&alice.peer, &bob]);
    }
}

#[test]
fn chat_of_another_session_and_answers_interrupt_a_large_message() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let to = to(&alice);
    let body = body(100_000);
    let large = chunk("large1", &to, ALICE_URI, "", "1-*/100000", &body, '$');
    let (first, second) = large.split_at(50_000);
    // A second client of the relay talks to the same peer: one connection for both.
    let mut carol = Client::new(&mut world, "bob", "msrp://carol.example:1/carol;tcp");
    alice.peer.send(&mut world, first);
    world.settle();
    let chat = send("chat1", &format!("{} {BOB_URI}", carol.through), &carol.uri, "", b"hi")
        .replace_id(b"msg1", b"chat");
    carol.peer.send(&mut world, &chat);
    world.settle();
    assert!(Peer::accept(&mut world).is_none(), "the connection is shared");
    bob.run(&mut world);
    assert_eq!(bob.body("chat"), b"hi", "before the large message has ended");
    bob.send(
        &mut world,
        send("back1", &format!("{} {ALICE_URI}", alice.through), BOB_URI, "", b"yo"),
    );
    world.settle();
    alice.peer.send(&mut world, second);
    exchange(&mut world, &mut [&mut alice.peer, &mut bob, &mut carol.peer]);
    assert!(bob.body("msg1") == body);
    assert_eq!(alice.peer.body("msg1"), b"yo");
    assert_eq!(carol.peer.take_starts(), ["200"]);
    let mut starts = alice.peer.take_starts();
    starts.sort();
    assert_eq!(starts, ["200", "SEND"]);
    finish(&mut world, &[&alice.peer, &bob, &carol.peer]);
}
