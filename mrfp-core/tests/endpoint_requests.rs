//! What a request is answered with, and what of it is passed on (RFC 4975 sections 7.1 to 7.3).

mod common;

use common::{Ue, World};
use mrfp_core::mp::{Command, Direction, Modify, TerminationId};

fn two() -> (World, Ue, Ue) {
    let mut world = World::calm();
    let alice = world.member(1, 1, None);
    let bob = world.member(1, 2, None);
    (world, alice, bob)
}

/// Two parties of which the second has said more in its SDP.
fn two_with(accept_types: &str, max_size_bytes: Option<u64>) -> (World, Ue, Ue) {
    let mut world = World::calm();
    let alice = world.member(1, 1, None);
    let address = world.reserve_with(1, 2, None, |reserve| {
        reserve.accept_types = accept_types.to_owned();
        reserve.max_size_bytes = max_size_bytes;
    });
    let mut bob = world.connect(2, address, None);
    let bind = bob.empty_send("bind0002");
    assert_eq!(ask(&mut world, &mut bob, &bind), [200]);
    (world, alice, bob)
}

fn ask(world: &mut World, ue: &mut Ue, request: &[u8]) -> Vec<u16> {
    ue.send_raw(world, request);
    world.settle();
    ue.read(world);
    ue.take_statuses()
}

fn text(message: Vec<u8>) -> String {
    String::from_utf8(message).unwrap()
}

fn is_alive(world: &mut World, ue: &mut Ue) -> bool {
    let request = ue.empty_send("alive001");
    ask(world, ue, &request) == [200]
}

fn direct(world: &mut World, termination: u64, direction: Direction) {
    world.command(Command::Modify(Box::new(Modify {
        termination: TerminationId(termination),
        direction,
        muted: false,
        remote: None,
        psk: None,
    })));
}

/// Byte-Range and body of every SEND with a body.
fn ranges(ue: &Ue) -> Vec<(String, Vec<u8>, char)> {
    ue.received
        .iter()
        .filter(|m| m.method.as_deref() == Some("Send") && m.content_type.is_some())
        .map(|m| (m.header("Byte-Range").unwrap(), m.body.clone(), m.end.unwrap()))
        .collect()
}

#[test]
fn a_malformed_request_is_answered_400_and_the_connection_goes_on() {
    let (mut world, mut alice, mut bob) = two();
    let good = text(alice.send("tran0001", "mess1", b"hello"));
    let spoilt = [
        good.replace("Message-ID: mess1", "Message-ID: two words"),
        good.replace("Message-ID: mess1", &format!("Message-ID: {}", "x".repeat(65))),
        good.replace("Byte-Range: 1-5/5", "Byte-Range: 0-5/5"),
        good.replace("Byte-Range: 1-5/5", "Byte-Range: 5-1/5"),
        good.replace("Byte-Range: 1-5/5", "Byte-Range: one-five/5"),
        good.replace("Byte-Range: 1-5/5", "Byte-Range: 7-11/5"),
        good.replace("Byte-Range: 1-5/5", "Byte-Range: 99999999999999999999999-*/*"),
        good.replace("Byte-Range: 1-5/5\r\n", "Byte-Range: 1-5/5\r\nByte-Range: 1-5/5\r\n"),
        good.replace(
            "Content-Type: text/plain",
            "Success-Report: maybe\r\nContent-Type: text/plain",
        ),
        good.replace("Content-Type: text/plain", "Content-Type: nonsense"),
        good.replace("Content-Type: text/plain", "No header at all"),
        good.replace("Content-Type: text/plain\r\n", ""),
        good.replace("Message-ID: mess1\r\n", ""),
        good.replace("\r\n\r\nhello", ""),
    ];
    for request in spoilt {
        assert_eq!(ask(&mut world, &mut alice, request.as_bytes()), [400], "{request}");
        // Byte by byte it is the same.
        for byte in request.as_bytes() {
            alice.send_raw(&mut world, &[*byte]);
            world.settle();
        }
        alice.read(&mut world);
        assert_eq!(alice.take_statuses(), [400], "{request}");
    }
    assert!(is_alive(&mut world, &mut alice));
    bob.read(&mut world);
    assert!(ranges(&bob).is_empty(), "nothing of that was passed on");
    world.subtract_all([1, 2]);
}

#[test]
fn a_stream_that_cannot_be_followed_any_more_ends_with_a_400() {
    let (mut world, mut alice, _bob) = two();
    let good = text(alice.send("tran0001", "mess1", b"hello"));
    let request = good.replace("Message-ID: mess1\r\n", "Message-ID: mess1\n");
    assert_eq!(ask(&mut world, &mut alice, request.as_bytes()), [400]);
    world.pass(3);
    assert!(world.shard.driver_mut().peer_saw_end(alice.peer));
    world.subtract_all([1, 2]);
}

#[test]
fn message_ids_are_taken_as_clients_write_them() {
    let (mut world, mut alice, mut bob) = two();
    for (n, id) in [
        "abc",
        "{0a1b2c3d-4e5f-4000-8000-0123456789ab}",
        "urn:uuid:0a1b2c3d-4e5f-4000-8000-0123456789ab",
        "87652491@192.0.2.1:5060_1",
    ]
    .into_iter()
    .enumerate()
    {
        let message = alice.send(&format!("tran000{n}"), id, b"hello");
        assert_eq!(ask(&mut world, &mut alice, &message), [200]);
        bob.read(&mut world);
        assert_eq!(bob.received.last().unwrap().message_id.as_deref(), Some(id));
    }
    world.subtract_all([1, 2]);
}

#[test]
fn byte_range_in_all_its_forms_is_understood_and_passed_on() {
    let (mut world, mut alice, mut bob) = two();
    let message = text(alice.send("tran0001", "mess1", b"hello"));
    let forms = [
        (message.replace("1-5/5", "1-5/*"), "1-5/5"),
        (message.replace("1-5/5", "1-*/5"), "1-5/5"),
        (message.replace("1-5/5", "1-*/*"), "1-5/5"),
        // What counts is the body (RFC 4975 section 7.3.1).
        (message.replace("1-5/5", "1-99/99"), "1-5/5"),
        (message.replace("1-5/5", "1-2/2"), "1-5/5"),
        (message.replace("Byte-Range: 1-5/5\r\n", ""), "1-5/5"),
    ];
    for (request, range) in forms {
        assert_eq!(ask(&mut world, &mut alice, request.as_bytes()), [200], "{request}");
        bob.read(&mut world);
        assert_eq!(ranges(&bob).pop(), Some((range.to_owned(), b"hello".to_vec(), '$')));
    }
    let empty = alice.chunk("tran0002", "empty", "1-0/0", b"", '$');
    assert_eq!(ask(&mut world, &mut alice, &empty), [200]);
    bob.read(&mut world);
    assert_eq!(ranges(&bob).pop(), Some(("1-0/0".to_owned(), Vec::new(), '$')));
    world.subtract_all([1, 2]);
}

#[test]
fn duplicate_and_overlapping_chunks_are_passed_on_with_their_own_ranges() {
    let (mut world, mut alice, mut bob) = two();
    let chunks = [
        ("1-4/12", &b"abcd"[..], '+'),
        ("1-4/12", b"abcd", '+'),
        ("3-8/12", b"CDefgh", '+'),
        ("9-12/12", b"ijkl", '$'),
    ];
    for (n, (range, body, flag)) in chunks.into_iter().enumerate() {
        let chunk = alice.chunk(&format!("chunk00{n}"), "long", range, body, flag);
        assert_eq!(ask(&mut world, &mut alice, &chunk), [200]);
    }
    bob.read(&mut world);
    let mut message = Vec::new();
    for (range, body, _) in ranges(&bob) {
        let start: usize = range.split('-').next().unwrap().parse().unwrap();
        message.resize(message.len().max(start - 1 + body.len()), 0);
        message[start - 1..start - 1 + body.len()].copy_from_slice(&body);
    }
    assert_eq!(message, b"abCDefghijkl");
    assert_eq!(ranges(&bob).len(), 4);
    world.subtract_all([1, 2]);
}

#[test]
fn many_messages_of_one_sender_may_be_interleaved_and_one_too_many_is_answered_413() {
    let (mut world, mut alice, mut bob) = two();
    for n in 0..64 {
        let chunk = alice.chunk(&format!("first{n}"), &format!("message{n}"), "1-3/6", b"abc", '+');
        assert_eq!(ask(&mut world, &mut alice, &chunk), [200]);
    }
    let more = alice.send("more0001", "more", b"hello");
    assert_eq!(ask(&mut world, &mut alice, &more), [413]);
    for n in 0..64 {
        let id = format!("message{n}");
        let chunk = alice.chunk(&format!("second{n}"), &id, "4-6/6", b"def", '$');
        assert_eq!(ask(&mut world, &mut alice, &chunk), [200]);
    }
    assert_eq!(ask(&mut world, &mut alice, &more), [200]);
    bob.read(&mut world);
    let bodies = bob.bodies();
    assert_eq!(bodies.len(), 65);
    assert!(bodies[..64].iter().all(|body| body == b"abcdef"));
    world.subtract_all([1, 2]);
}

#[test]
fn the_rest_of_a_message_that_was_given_up_is_refused_and_goes_nowhere() {
    let (mut world, mut alice, mut bob) = two();
    let begin = |ue: &Ue, id: &str| ue.chunk("chunk001", id, "1-*/6", b"abc", '+');
    let rest = |ue: &Ue, id: &str| ue.chunk("chunk002", id, "4-6/6", b"def", '$');
    // Given up between its chunks.
    let (first, second) = (begin(&alice, "held"), rest(&alice, "held"));
    assert_eq!(ask(&mut world, &mut alice, &first), [200]);
    direct(&mut world, 1, Direction::Inactive);
    direct(&mut world, 1, Direction::SendRecv);
    assert_eq!(ask(&mut world, &mut alice, &second), [413]);
    // Refused where it began.
    direct(&mut world, 1, Direction::Inactive);
    let (first, second) = (begin(&alice, "refused"), rest(&alice, "refused"));
    assert_eq!(ask(&mut world, &mut alice, &first), [403]);
    direct(&mut world, 1, Direction::SendRecv);
    assert_eq!(ask(&mut world, &mut alice, &second), [413]);
    // Never begun, and aborted by its sender.
    let never = rest(&alice, "never");
    assert_eq!(ask(&mut world, &mut alice, &never), [413]);
    let aborted = alice.chunk("chunk003", "aborted", "1-3/6", b"abc", '#');
    let resumed = rest(&alice, "aborted");
    assert_eq!(ask(&mut world, &mut alice, &aborted), [200]);
    assert_eq!(ask(&mut world, &mut alice, &resumed), [413]);
    bob.read(&mut world);
    assert!(
        ranges(&bob).iter().all(|(range, ..)| range.starts_with("1-")
            || range.ends_with("/6") && range.starts_with("4-*")),
        "{:?}",
        ranges(&bob)
    );
    let bodies: Vec<_> = ranges(&bob).into_iter().map(|(_, body, _)| body).collect();
    assert!(!bodies.contains(&b"def".to_vec()));
    // From the beginning it may come again.
    for id in ["held", "refused", "aborted"] {
        let again = alice.send("again001", id, b"abcdef");
        assert_eq!(ask(&mut world, &mut alice, &again), [200]);
    }
    bob.read(&mut world);
    assert_eq!(ranges(&bob).iter().filter(|(_, body, _)| body == b"abcdef").count(), 3);
    world.subtract_all([1, 2]);
}

#[test]
fn a_message_resumed_after_an_interruption_keeps_its_identifier() {
    let (mut world, mut alice, mut bob) = two();
    let body: Vec<u8> = (0..9_000u32).map(|i| (i * 7) as u8).collect();
    let first = alice.chunk("chunk001", "long", "1-*/9000", &body[..4000], '+');
    let short = alice.send("tran0001", "short", b"in between");
    let second = alice.chunk("chunk002", "long", "4001-*/9000", &body[4000..], '$');
    assert_eq!(ask(&mut world, &mut alice, &[first, short, second].concat()), [200; 3]);
    bob.read(&mut world);
    assert_eq!(bob.bodies(), [b"in between".to_vec(), body]);
    world.subtract_all([1, 2]);
}

#[test]
fn what_is_larger_than_the_only_recipient_takes_is_answered_413() {
    let (mut world, mut alice, mut bob) = two_with("*", Some(1000));
    let fits = alice.send("tran0001", "fits", &[b'x'; 1000]);
    assert_eq!(ask(&mut world, &mut alice, &fits), [200]);
    let announced = alice.chunk("tran0002", "announced", "1-*/1001", b"abc", '+');
    assert_eq!(
        ask(&mut world, &mut alice, &announced),
        [413],
        "before anything of it is passed on"
    );
    bob.read(&mut world);
    assert_eq!(ranges(&bob).len(), 1);
    // Not announced: as soon as it is too large, and the recipient learns that it was given up.
    let first = alice.chunk("tran0003", "grows", "1-*/*", &[b'x'; 900], '+');
    let second = alice.chunk("tran0004", "grows", "901-*/*", &[b'x'; 900], '+');
    let third = alice.chunk("tran0005", "grows", "1801-*/*", &[b'x'; 900], '$');
    assert_eq!(ask(&mut world, &mut alice, &first), [200]);
    assert_eq!(ask(&mut world, &mut alice, &second), [413]);
    assert_eq!(ask(&mut world, &mut alice, &third), [413]);
    bob.read(&mut world);
    assert_eq!(bob.received.last().unwrap().end, Some('#'));
    let total: usize = ranges(&bob).iter().map(|(_, body, _)| body.len()).sum();
    assert_eq!(total, 1900);
    // Saying the same bytes again does not make it larger.
    for n in 0..5 {
        let chunk = alice.chunk(&format!("same000{n}"), "same", "1-*/1000", &[b'x'; 900], '+');
        assert_eq!(ask(&mut world, &mut alice, &chunk), [200]);
    }
    assert!(is_alive(&mut world, &mut alice));
    world.subtract_all([1, 2]);
}

#[test]
fn a_type_the_only_recipient_does_not_take_is_answered_415() {
    let (mut world, mut alice, mut bob) = two_with("message/cpim text/html image/*", None);
    let message = text(alice.send("tran0001", "mess1", b"hello"));
    let typed = |content_type: &str| message.replace("text/plain", content_type).into_bytes();
    for (content_type, status) in [
        ("text/plain", 415),
        ("text/html;charset=utf-8", 200),
        ("Message/CPIM", 200),
        ("image/png", 200),
        ("application/octet-stream", 415),
        ("multipart/mixed;boundary=x", 200),
        ("multipart/alternative;boundary=x", 200),
    ] {
        assert_eq!(ask(&mut world, &mut alice, &typed(content_type)), [status], "{content_type}");
    }
    bob.read(&mut world);
    assert_eq!(ranges(&bob).len(), 5);
    world.subtract_all([1, 2]);
}

#[test]
fn failure_report_partial_is_answered_where_something_is_wrong_and_no_never() {
    let (mut world, mut alice, _bob) = two_with("text/html", None);
    let message = text(alice.send("tran0001", "mess1", b"hello"));
    let with = |line: &str| message.replace("Content-Type", &format!("{line}\r\nContent-Type"));
    let partial = with("Failure-Report: partial");
    assert_eq!(ask(&mut world, &mut alice, partial.as_bytes()), [415]);
    let partial_html = partial.replace("text/plain", "text/html");
    assert!(ask(&mut world, &mut alice, partial_html.as_bytes()).is_empty());
    let no = with("Failure-Report: no");
    for spoilt in [no.clone(), no.replace("1-5/5", "5-1/5"), no.replace("session-", "other---")] {
        assert!(ask(&mut world, &mut alice, spoilt.as_bytes()).is_empty(), "{spoilt}");
    }
    world.subtract_all([1, 2]);
}

#[test]
fn uris_are_compared_by_their_rules() {
    let (mut world, mut alice, _bob) = two();
    let message = text(alice.send("tran0001", "mess1", b"hello"));
    let from = format!("From-Path: {}", alice.local_uri);
    for (other, status) in [
        ("MSRP://192.0.2.1:9/ue-1;TCP", 200),
        ("msrp://somebody@192.0.2.1:9/ue-1;tcp;x=y", 200),
        ("msrp://192.0.2.1/ue-1;tcp", 481),
        ("msrp://192.0.2.1:9/UE-1;tcp", 481),
        ("msrp://192.0.2.1:9/ue-1;sctp", 481),
        ("msrps://192.0.2.1:9/ue-1;tcp", 481),
        ("msrp://192.0.2.1:9;tcp", 481),
    ] {
        let request = message.replace(&from, &format!("From-Path: {other}"));
        assert_eq!(ask(&mut world, &mut alice, request.as_bytes()), [status], "{other}");
    }
    world.subtract_all([1, 2]);
}
