//! Regular messages in a chat room (RFC 7701 sections 6.1 and 6.3).

mod common;
mod room_support;

use common::{Ue, World};
use room_support::{
    Client, ROOM, audit, chunk, client, cpim, heard, join, policy, say, send, send_cpim, three,
    typed_cpim, uri,
};

#[test]
fn a_message_to_the_room_reaches_everybody_else_as_it_was_sent() {
    let (mut world, mut alice, mut bob, mut carol) = three(&policy());
    for (id, to) in [
        ("message1", ROOM),
        ("message2", "SIP:room@Conference.Example.com;transport=tcp"),
        ("message3", "im:room@conference.example.com"),
    ] {
        let body = cpim(&uri("alice"), to, "hello");
        let message = send_cpim(&alice, id, &body);
        assert_eq!(say(&mut world, &mut alice, &message), [200], "{to}");
        assert_eq!(heard(&mut world, &mut bob), std::slice::from_ref(&body));
        assert_eq!(heard(&mut world, &mut carol), [body]);
    }
    assert!(heard(&mut world, &mut alice).is_empty());
    world.subtract_all([1, 2, 3]);
}

#[test]
fn what_the_rules_forbid_is_refused_with_their_own_word_and_heard_by_nobody() {
    let (mut world, mut alice, mut bob, mut carol) = three(&policy());
    let from_alice = uri("alice");
    let cases = [
        // RFC 7701 section 6.3: no wrapper.
        (send(&alice, "m01", "text/plain", b"hello"), 415),
        // Somebody else's name, nobody's, none, and her own in other case.
        (send_cpim(&alice, "m02", &cpim(&uri("bob"), ROOM, "x")), 403),
        (send_cpim(&alice, "m03", &cpim(&uri("mallory"), ROOM, "x")), 403),
        (send_cpim(&alice, "m04", b"To: <sip:room@conference.example.com>\r\n\r\n\r\nx"), 403),
        (send_cpim(&alice, "m05", &cpim(&uri("Alice"), ROOM, "x")), 403),
        // RFC 7701 section 6.1: several To.
        (
            send_cpim(
                &alice,
                "m06",
                &cpim(&from_alice, &format!("{ROOM}>\r\nTo: <{}", uri("bob")), "x"),
            ),
            403,
        ),
        // Nobody is called that, and nobody at all.
        (send_cpim(&alice, "m07", &cpim(&from_alice, "sip:rooom@example.com", "x")), 404),
        (send_cpim(&alice, "m08", format!("From: <{from_alice}>\r\n\r\n\r\nx").as_bytes()), 404),
        // No CPIM head, and none that ends.
        (send_cpim(&alice, "m09", b"hello\r\n\r\n"), 400),
        (send_cpim(&alice, "m10", b"From: <sip:alice@example.com>"), 400),
        (send_cpim(&alice, "m11", format!("Subject: {}", "x".repeat(5000)).as_bytes()), 400),
        // A second From in disguise.
        (
            send_cpim(
                &alice,
                "m12",
                &cpim(&format!("{from_alice}>\r\nfrom: <{}", uri("bob")), ROOM, "x"),
            ),
            400,
        ),
    ];
    for (message, status) in cases {
        let text = String::from_utf8_lossy(&message).into_owned();
        assert_eq!(say(&mut world, &mut alice, &message), [status], "{text}");
    }
    assert!(heard(&mut world, &mut bob).is_empty());
    assert!(heard(&mut world, &mut carol).is_empty());
    let body = cpim(&from_alice, ROOM, "still here");
    let message = send_cpim(&alice, "m99", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    assert_eq!(heard(&mut world, &mut bob), [body]);
    world.subtract_all([1, 2, 3]);
}

#[test]
fn every_uri_of_a_participant_is_good_in_from() {
    let mut world = World::calm();
    let mut somebody = client("alice");
    somebody.uris.push("tel:+1-201-555-0123".into());
    somebody.uris.push("sip:anonymous@anonymous.invalid".into());
    let mut alice = join(&mut world, 1, &policy(), somebody);
    let mut bob = join(&mut world, 2, &policy(), client("bob"));
    for (id, from) in [
        ("m1", "sip:alice@EXAMPLE.com"),
        ("m2", "tel:+12015550123"),
        ("m3", "sip:anonymous@anonymous.invalid"),
    ] {
        let message = send_cpim(&alice, id, &cpim(from, ROOM, "hello"));
        assert_eq!(say(&mut world, &mut alice, &message), [200], "{from}");
        assert_eq!(heard(&mut world, &mut bob).len(), 1);
    }
    world.subtract_all([1, 2]);
}

#[test]
fn a_head_may_arrive_split_over_receives_at_any_byte() {
    let (mut world, mut alice, mut bob, mut carol) = three(&policy());
    let body = cpim(&uri("alice"), ROOM, "hello");
    for at in 0..body.len() + 40 {
        let id = format!("message{at}");
        let message = send_cpim(&alice, &id, &body);
        let at = message.len() - body.len() - 20 + at;
        alice.send_raw(&mut world, &message[..at.min(message.len())]);
        world.settle();
        assert_eq!(say(&mut world, &mut alice, &message[at.min(message.len())..]), [200]);
        assert_eq!(heard(&mut world, &mut bob), std::slice::from_ref(&body), "split at {at}");
        assert_eq!(heard(&mut world, &mut carol).len(), 1);
    }
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_head_may_arrive_byte_by_byte() {
    let (mut world, mut alice, mut bob, _carol) = three(&policy());
    let body = cpim(&uri("alice"), ROOM, "hello");
    let message = send_cpim(&alice, "message1", &body);
    for byte in &message {
        alice.send_raw(&mut world, &[*byte]);
        world.settle();
    }
    alice.read(&mut world);
    assert_eq!(alice.take_statuses(), [200]);
    assert_eq!(heard(&mut world, &mut bob), [body]);
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_head_may_be_split_over_chunks_at_any_byte() {
    let (mut world, mut alice, mut bob, mut carol) = three(&policy());
    let body = cpim(&uri("alice"), ROOM, "hello");
    let total = body.len();
    for at in 1..total {
        let id = format!("message{at}");
        let (first, second) = body.split_at(at);
        let range = format!("1-{at}/{total}");
        let message = chunk(&alice, &id, &range, "message/cpim", first, '+');
        assert_eq!(say(&mut world, &mut alice, &message), [200]);
        let range = format!("{}-{total}/{total}", at + 1);
        let message = chunk(&alice, &id, &range, "message/cpim", second, '$');
        assert_eq!(say(&mut world, &mut alice, &message), [200]);
        assert_eq!(heard(&mut world, &mut bob), std::slice::from_ref(&body), "split at {at}");
        assert_eq!(heard(&mut world, &mut carol), std::slice::from_ref(&body));
    }
    world.subtract_all([1, 2, 3]);
}

#[test]
fn what_is_held_of_a_head_is_given_back() {
    let (mut world, mut alice, mut bob, _carol) = three(&policy());
    let part = b"From: <sip:alice@example.com>\r\n";
    // Given up by its sender.
    let first = chunk(&alice, "message1", "1-*/*", "message/cpim", part, '+');
    let last = chunk(&alice, "message1", "32-*/*", "message/cpim", b"", '#');
    assert_eq!(say(&mut world, &mut alice, &first), [200]);
    assert_eq!(say(&mut world, &mut alice, &last), [200]);
    assert_eq!(world.measure().carry_buffers_outstanding, 0);
    // Never continued.
    let first = chunk(&alice, "message2", "1-*/*", "message/cpim", part, '+');
    assert_eq!(say(&mut world, &mut alice, &first), [200]);
    assert_eq!(world.measure().carry_buffers_outstanding, 1);
    world.pass(560);
    assert_eq!(world.measure().carry_buffers_outstanding, 0);
    // Its sender vanishes.
    let first = chunk(&alice, "message3", "1-*/*", "message/cpim", part, '+');
    assert_eq!(say(&mut world, &mut alice, &first), [200]);
    world.shard.driver_mut().peer_reset(alice.peer);
    world.settle();
    assert_eq!(world.measure().carry_buffers_outstanding, 0);
    assert!(heard(&mut world, &mut bob).is_empty());
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_chunk_from_the_middle_of_an_unknown_message_is_stopped() {
    let (mut world, mut alice, mut bob, _carol) = three(&policy());
    let message = chunk(&alice, "message1", "100-104/104", "message/cpim", b"hello", '$');
    assert_eq!(say(&mut world, &mut alice, &message), [413]);
    let message = chunk(&alice, "message2", "100-104/204", "message/cpim", b"hello", '+');
    assert_eq!(say(&mut world, &mut alice, &message), [413]);
    // A gap in the head is no better.
    let message = chunk(&alice, "message3", "1-7/200", "message/cpim", b"From: <", '+');
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    let message = chunk(&alice, "message3", "50-54/200", "message/cpim", b"hello", '+');
    assert_eq!(say(&mut world, &mut alice, &message), [413]);
    assert!(heard(&mut world, &mut bob).is_empty());
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_head_that_was_checked_cannot_be_replaced() {
    let (mut world, mut alice, mut bob, _carol) = three(&policy());
    let body = cpim(&uri("alice"), ROOM, "first");
    let total = body.len() + 6;
    let range = format!("1-{}/{total}", body.len());
    let message = chunk(&alice, "message1", &range, "message/cpim", &body, '+');
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    let forged = cpim("sip:mallo@example.com", ROOM, "first second");
    assert_eq!(forged.len(), total + 1);
    let message = chunk(
        &alice,
        "message1",
        &format!("1-{total}/{total}"),
        "message/cpim",
        &forged[..total],
        '$',
    );
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    bob.read(&mut world);
    let head_bytes = body.len() - 5;
    let chunks: Vec<_> = bob.received.iter().filter(|m| m.method.is_some()).collect();
    assert_eq!(chunks[0].body, body);
    assert_eq!(chunks[1].byte_range_start, Some(head_bytes as u64 + 1), "behind the head");
    assert!(!String::from_utf8_lossy(&chunks[1].body).contains("mallo"));
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_participant_on_hold_or_muted_is_not_heard() {
    use mrfp_core::mp::{Command, Direction, Modify, TerminationId};
    let mut world = World::calm();
    let muted = Client { muted: true, ..client("alice") };
    let mut alice = join(&mut world, 1, &policy(), muted);
    let mut bob = join(&mut world, 2, &policy(), client("bob"));
    let message = send_cpim(&alice, "message1", &cpim(&uri("alice"), ROOM, "hello"));
    assert_eq!(say(&mut world, &mut alice, &message), [403]);
    let modify = |muted| {
        Command::Modify(Box::new(Modify {
            termination: TerminationId(1),
            direction: Direction::SendRecv,
            muted,
            remote: None,
            psk: None,
        }))
    };
    world.command(modify(false));
    let body = cpim(&uri("alice"), ROOM, "hello");
    let message = send_cpim(&alice, "message2", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    assert_eq!(heard(&mut world, &mut bob), std::slice::from_ref(&body));
    // In the middle of a message.
    let message = chunk(&alice, "message3", "1-*/900", "message/cpim", &body, '$');
    alice.send_raw(&mut world, &message[..message.len() - 20]);
    world.settle();
    world.command(modify(true));
    assert_eq!(say(&mut world, &mut alice, &message[message.len() - 20..]), [403]);
    bob.read(&mut world);
    assert_eq!(bob.messages()[0].2, '#', "what was begun is given up");
    // A muted participant still hears.
    let message = send_cpim(&bob, "message4", &cpim(&uri("bob"), ROOM, "quiet"));
    assert_eq!(say(&mut world, &mut bob, &message), [200]);
    assert_eq!(heard(&mut world, &mut alice).len(), 1);
    world.subtract_all([1, 2]);
}

#[test]
fn what_a_client_does_not_take_is_not_sent_to_it() {
    let mut world = World::calm();
    let mut alice = join(&mut world, 1, &policy(), client("alice"));
    let takes = |types, wrapped| Client {
        accept_types: types,
        accept_wrapped_types: wrapped,
        ..client("somebody")
    };
    let mut text =
        join(&mut world, 2, &policy(), takes("message/cpim", "text/plain message/imdn+xml"));
    let mut images = join(&mut world, 3, &policy(), takes("message/cpim text/plain", "image/*"));
    let mut silent = join(&mut world, 4, &policy(), takes("message/cpim", ""));
    for (id, content_type, expected) in [
        ("m1", "text/plain;charset=utf-8", [1, 1, 1]),
        ("m2", "image/png", [0, 1, 1]),
        ("m3", "message/imdn+xml", [1, 0, 1]),
        ("m4", "application/x-unknown", [0, 0, 1]),
    ] {
        let body = typed_cpim(&uri("alice"), ROOM, content_type, b"content");
        let message = send_cpim(&alice, id, &body);
        assert_eq!(say(&mut world, &mut alice, &message), [200]);
        let counts = [&mut text, &mut images, &mut silent].map(|ue| heard(&mut world, ue).len());
        assert_eq!(counts, expected, "{content_type}");
    }
    assert_eq!(audit(&mut world).messages_skipped, 4);
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn a_message_nobody_takes_is_refused() {
    let mut world = World::calm();
    let mut alice = join(&mut world, 1, &policy(), client("alice"));
    let body = typed_cpim(&uri("alice"), ROOM, "image/png", b"content");
    let message = send_cpim(&alice, "m1", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [200], "into an empty room");
    let picky =
        Client { accept_wrapped_types: "text/plain", max_size_bytes: Some(300), ..client("bob") };
    let mut bob = join(&mut world, 2, &policy(), picky);
    let message = send_cpim(&alice, "m2", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [415]);
    let body = cpim(&uri("alice"), ROOM, &"x".repeat(300));
    let message = send_cpim(&alice, "m3", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [413]);
    assert!(heard(&mut world, &mut bob).is_empty());
    world.subtract_all([1, 2]);
}

#[test]
fn a_message_too_large_for_one_goes_to_the_others() {
    for announced in [true, false] {
        let mut world = World::calm();
        let mut alice = join(&mut world, 1, &policy(), client("alice"));
        let small = Client { max_size_bytes: Some(1_000), ..client("bob") };
        let mut bob = join(&mut world, 2, &policy(), small);
        let mut carol = join(&mut world, 3, &policy(), client("carol"));
        let body = cpim(&uri("alice"), ROOM, &"x".repeat(3_000));
        let total = if announced { body.len().to_string() } else { "*".into() };
        let range = format!("1-*/{total}");
        let (first, rest) = body.split_at(500);
        let message = chunk(&alice, "message1", &range, "message/cpim", first, '+');
        assert_eq!(say(&mut world, &mut alice, &message), [200]);
        for (n, part) in rest.chunks(400).enumerate() {
            let at = 501 + n * 400;
            let flag = if at + part.len() > body.len() { '$' } else { '+' };
            let range = format!("{at}-*/{total}");
            let message = chunk(&alice, "message1", &range, "message/cpim", part, flag);
            assert_eq!(say(&mut world, &mut alice, &message), [200]);
        }
        assert_eq!(heard(&mut world, &mut carol), std::slice::from_ref(&body));
        bob.read(&mut world);
        let got = bob.messages();
        match announced {
            true => assert!(got.is_empty(), "it is known before it begins"),
            false => {
                assert_eq!(got.len(), 1);
                assert_eq!((got[0].1.as_slice(), got[0].2), (&body[..900], '#'));
            }
        }
        assert_eq!(audit(&mut world).messages_skipped, 1);
        world.subtract_all([1, 2, 3]);
    }
}

#[test]
fn a_newcomer_gets_no_tail_of_a_message() {
    let (mut world, mut alice, mut bob, _carol) = three(&policy());
    let body = cpim(&uri("alice"), ROOM, "hello");
    let total = body.len();
    let (first, second) = body.split_at(total - 2);
    let range = format!("1-{}/{total}", total - 2);
    let message = chunk(&alice, "message1", &range, "message/cpim", first, '+');
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    let mut dave = join(&mut world, 4, &policy(), client("dave"));
    let range = format!("{}-{total}/{total}", total - 1);
    let message = chunk(&alice, "message1", &range, "message/cpim", second, '$');
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    assert_eq!(heard(&mut world, &mut bob), [body]);
    assert!(heard(&mut world, &mut dave).is_empty());
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn faults_of_the_network_change_nothing_in_a_room() {
    for seed in 0..30 {
        let mut world = World::faulty(seed);
        let names = ["alice", "bob", "carol"];
        let mut ues: Vec<_> = names
            .iter()
            .zip(1..)
            .map(|(name, termination)| join(&mut world, termination, &policy(), client(name)))
            .collect();
        for n in 0..12usize {
            for (name, ue) in names.iter().zip(&mut ues) {
                let body = cpim(&uri(name), ROOM, &"x".repeat(n * 997 % 6_000));
                let message = send_cpim(ue, &format!("{name}{n}"), &body);
                ue.send_raw(&mut world, &message);
            }
        }
        world.settle();
        for (index, name) in names.iter().enumerate() {
            ues[index].read(&mut world);
            assert_eq!(ues[index].take_statuses(), [200; 12], "seed {seed}");
            let bodies = ues[index].bodies();
            for other in names.iter().filter(|other| *other != name) {
                let expected: Vec<_> = (0..12usize)
                    .map(|n| cpim(&uri(other), ROOM, &"x".repeat(n * 997 % 6_000)))
                    .collect();
                let from = format!("<{}>", uri(other));
                let theirs = |body: &&Vec<u8>| String::from_utf8_lossy(body).contains(&from);
                let got: Vec<_> = bodies.iter().filter(theirs).cloned().collect();
                assert_eq!(got, expected, "seed {seed}");
            }
        }
        world.subtract_all([1, 2, 3]);
    }
}

#[test]
fn success_is_not_reported_before_the_head_has_been_checked() {
    for (author, statuses, ranges) in
        [("alice", [200, 200], vec!["1-10/200", "11-180/200"]), ("bob", [200, 403], Vec::new())]
    {
        let (mut world, mut alice, _bob, _carol) = three(&policy());
        let mut body = cpim(&uri(author), ROOM, "hello");
        body.resize(200, b'!');
        let ask = |world: &mut World, alice: &mut Ue, range: &str, part: &[u8]| {
            let chunk = chunk(alice, "held", range, "message/cpim", part, '+');
            let text = String::from_utf8(chunk).unwrap();
            let text = text
                .replace("Content-Type: message", "Success-Report: yes\r\nContent-Type: message");
            say(world, alice, text.as_bytes())
        };
        assert_eq!(ask(&mut world, &mut alice, "1-*/200", &body[..10]), [statuses[0]]);
        assert!(alice.take_reports().is_empty(), "nobody knows yet whom it is for");
        assert_eq!(ask(&mut world, &mut alice, "11-*/200", &body[10..180]), [statuses[1]]);
        let reported: Vec<_> = alice.take_reports().into_iter().map(|(.., range)| range).collect();
        assert_eq!(reported, ranges);
    }
}

#[test]
fn a_message_that_has_become_too_large_for_somebody_never_resumes() {
    let mut world = World::calm();
    let mut alice = join(&mut world, 1, &policy(), client("alice"));
    let small = Client { max_size_bytes: Some(300), ..client("bob") };
    let mut bob = join(&mut world, 2, &policy(), small);
    let mut carol = join(&mut world, 3, &policy(), client("carol"));
    let mut body = cpim(&uri("alice"), ROOM, "hello");
    body.resize(500, b'!');
    for (start, end) in [(1, 250), (251, 400)] {
        let part = &body[start - 1..end];
        let chunk = chunk(&alice, "grows", &format!("{start}-*/*"), "message/cpim", part, '+');
        assert_eq!(say(&mut world, &mut alice, &chunk), [200]);
    }
    bob.read(&mut world);
    assert_eq!(bob.received.last().unwrap().end, Some('#'));
    let chunks = bob.received.len();
    // Some of it once more, and the rest.
    for (start, end, flag) in [(240, 260, '+'), (401, 500, '$')] {
        let part = &body[start - 1..end];
        let chunk = chunk(&alice, "grows", &format!("{start}-*/*"), "message/cpim", part, flag);
        assert_eq!(say(&mut world, &mut alice, &chunk), [200]);
    }
    bob.read(&mut world);
    assert_eq!(bob.received.len(), chunks, "{:?}", bob.received.last());
    carol.read(&mut world);
    assert_eq!(carol.received.last().unwrap().end, Some('$'));
}
