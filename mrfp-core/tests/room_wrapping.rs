//! Rooms that let clients in which know no wrapper: what is put around their messages, and taken off
//! those of the others.

mod common;
mod room_support;

use common::{Received, Ue, World};
use room_support::{
    Client, ROOM, audit, chunk, client, cpim, heard, join, plain_client, say, send, send_cpim,
    typed_cpim, uri, wrapping,
};

/// Alice and Anna write wrappers, Paul and Peter text.
fn mixed() -> (World, [Ue; 4]) {
    let mut world = World::calm();
    let alice = join(&mut world, 1, &wrapping(), client("alice"));
    let anna = join(&mut world, 2, &wrapping(), client("anna"));
    let paul = join(&mut world, 3, &wrapping(), plain_client("paul"));
    let peter = join(&mut world, 4, &wrapping(), plain_client("peter"));
    (world, [alice, anna, paul, peter])
}

/// What the node puts in front of Paul's messages.
fn wrapper() -> Vec<u8> {
    let from = uri("paul");
    format!("From: <{from}>\r\nTo: <{ROOM}>\r\n\r\nContent-Type: text/plain\r\n\r\n").into_bytes()
}

fn chunks(ue: &mut Ue, world: &mut World) -> Vec<Received> {
    ue.read(world);
    let chunks = ue.received.iter().filter(|m| m.content_type.is_some()).cloned().collect();
    ue.received.clear();
    chunks
}

#[test]
fn each_gets_a_message_in_the_form_it_understands() {
    let (mut world, [mut alice, mut anna, mut paul, mut peter]) = mixed();
    let body = cpim(&uri("alice"), ROOM, "hello");
    let message = send_cpim(&alice, "m1", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    let got = chunks(&mut anna, &mut world);
    assert_eq!((got.len(), got[0].body.as_slice()), (1, body.as_slice()));
    for ue in [&mut paul, &mut peter] {
        let got = chunks(ue, &mut world);
        assert_eq!((got.len(), got[0].body.as_slice()), (1, &b"hello"[..]));
        assert_eq!(got[0].content_type.as_deref(), Some("text/plain"));
        assert_eq!(got[0].header("Byte-Range").as_deref(), Some("1-5/5"));
    }
    let message = send(&paul, "m2", "text/plain", b"hi");
    assert_eq!(say(&mut world, &mut paul, &message), [200]);
    let whole = [wrapper(), b"hi".to_vec()].concat();
    for ue in [&mut alice, &mut anna] {
        let got = chunks(ue, &mut world);
        assert_eq!((got.len(), got[0].body.as_slice()), (1, whole.as_slice()));
        assert_eq!(got[0].content_type.as_deref(), Some("message/cpim"));
        let range = format!("1-{0}/{0}", whole.len());
        assert_eq!(got[0].header("Byte-Range"), Some(range));
    }
    let got = chunks(&mut peter, &mut world);
    assert_eq!((got.len(), got[0].body.as_slice()), (1, &b"hi"[..]));
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn taking_a_wrapper_off_shifts_every_chunk_by_its_length() {
    let (mut world, [mut alice, mut anna, mut paul, _peter]) = mixed();
    let body = cpim(&uri("alice"), ROOM, "hello world");
    let total = body.len();
    let inner = total - 11;
    for at in 1..total {
        let id = format!("message{at}");
        let (first, second) = body.split_at(at);
        let range = format!("1-{at}/{total}");
        let message = chunk(&alice, &id, &range, "message/cpim", first, '+');
        assert_eq!(say(&mut world, &mut alice, &message), [200]);
        let range = format!("{}-{total}/{total}", at + 1);
        let message = chunk(&alice, &id, &range, "message/cpim", second, '$');
        assert_eq!(say(&mut world, &mut alice, &message), [200]);
        let got = chunks(&mut paul, &mut world);
        let text: Vec<u8> = got.iter().flat_map(|chunk| chunk.body.clone()).collect();
        assert_eq!(text, b"hello world", "split at {at}");
        assert!(got.iter().all(|chunk| chunk.content_type.as_deref() == Some("text/plain")));
        let last = got.last().expect("something");
        let start = if at < inner { 1 } else { at - inner + 1 };
        assert_eq!(last.byte_range_start, Some(start as u64), "split at {at}");
        assert!(last.header("Byte-Range").unwrap().ends_with("/11"), "split at {at}");
        assert_eq!(heard(&mut world, &mut anna), std::slice::from_ref(&body));
    }
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn putting_a_wrapper_on_shifts_every_chunk_by_its_length() {
    let (mut world, [mut alice, _anna, mut paul, mut peter]) = mixed();
    let message = chunk(&paul, "message1", "1-5/11", "text/plain", b"hello", '+');
    assert_eq!(say(&mut world, &mut paul, &message), [200]);
    let message = chunk(&paul, "message1", "6-11/11", "text/plain", b" world", '$');
    assert_eq!(say(&mut world, &mut paul, &message), [200]);
    let length = wrapper().len();
    let got = chunks(&mut alice, &mut world);
    assert_eq!(got[0].body, [wrapper(), b"hello".to_vec()].concat());
    assert_eq!(got[1].body, b" world");
    assert_eq!(got[1].byte_range_start, Some(length as u64 + 6));
    let total = format!("/{}", length + 11);
    assert!(got.iter().all(|chunk| chunk.header("Byte-Range").unwrap().ends_with(&total)));
    assert_eq!(heard(&mut world, &mut peter), [b"hello world"]);
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn a_long_message_is_converted_while_it_arrives_and_interrupted() {
    let (mut world, [mut alice, mut anna, mut paul, mut peter]) = mixed();
    let content: String = (0..60_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let wrapped = cpim(&uri("alice"), ROOM, &content);
    for (bare, total) in [(false, "*"), (true, "*"), (false, "known"), (true, "known")] {
        let (sender, other) = if bare { (&mut paul, &mut alice) } else { (&mut alice, &mut paul) };
        let (body, content_type) = match bare {
            true => (content.as_bytes(), "text/plain"),
            false => (wrapped.as_slice(), "message/cpim"),
        };
        let size = body.len().to_string();
        let range = format!("1-*/{}", if total == "*" { "*" } else { &size });
        let id = format!("long{bare}{}", total.len());
        let message = chunk(sender, &id, &range, content_type, body, '$');
        for (n, part) in message.chunks(7_001).enumerate() {
            sender.send_raw(&mut world, part);
            world.settle();
            // Somebody who speaks in between makes room for itself.
            let id = format!("between{}{bare}{n}", total.len());
            let between = send(&peter, &id, "text/plain", b"between");
            assert_eq!(say(&mut world, &mut peter, &between), [200]);
        }
        sender.read(&mut world);
        assert_eq!(sender.take_statuses(), [200]);
        sender.received.clear();
        other.read(&mut world);
        let whole = match bare {
            true => [wrapper(), content.clone().into_bytes()].concat(),
            false => content.clone().into_bytes(),
        };
        let got = other.bodies();
        assert!(got.contains(&whole), "bare {bare}, total {total}");
        assert!(got.len() > 5, "and what came between");
        other.received.clear();
        peter.read(&mut world);
        assert_eq!(peter.bodies(), [content.as_bytes()]);
        heard(&mut world, &mut peter);
        heard(&mut world, &mut anna);
    }
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn a_client_without_wrappers_gets_the_types_it_lists() {
    let (mut world, [mut alice, mut anna, mut paul, _peter]) = mixed();
    let rich = Client { accept_types: "text/plain image/png", ..plain_client("rich") };
    let mut rich = join(&mut world, 5, &wrapping(), rich);
    let body = typed_cpim(&uri("alice"), ROOM, "image/png", b"\x89PNG");
    let message = send_cpim(&alice, "m1", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    assert_eq!(heard(&mut world, &mut anna), [body]);
    assert!(heard(&mut world, &mut paul).is_empty());
    assert_eq!(heard(&mut world, &mut rich), [b"\x89PNG"]);
    assert_eq!(audit(&mut world).messages_skipped, 2);
    world.subtract_all([1, 2, 3, 4, 5]);
}

#[test]
fn what_describes_the_content_goes_with_it_and_the_rest_stays_outside() {
    let (mut world, [mut alice, mut anna, mut paul, mut peter]) = mixed();
    let lines = "X-Tag: a\r\nContent-Disposition: attachment; filename=\"a\"\r\nContent-Type";
    let bare = String::from_utf8(send(&paul, "m1", "text/plain;charset=utf-8", b"hi")).unwrap();
    let bare = bare.replacen("Content-Type", lines, 1);
    assert_eq!(say(&mut world, &mut paul, bare.as_bytes()), [200]);
    let got = chunks(&mut alice, &mut world);
    assert_eq!(got[0].header("X-Tag").as_deref(), Some("a"));
    assert_eq!(got[0].header("Content-Disposition"), None);
    let text = String::from_utf8(got[0].body.clone()).unwrap();
    assert!(text.ends_with(
        "\r\n\r\nContent-Disposition: attachment; filename=\"a\"\r\n\
         Content-Type: text/plain;charset=utf-8\r\n\r\nhi"
    ));
    chunks(&mut peter, &mut world);
    chunks(&mut anna, &mut world);
    // And the other way round: what came back is what went in.
    let message = send_cpim(&anna, "m2", text.replace(&uri("paul"), &uri("anna")).as_bytes());
    assert_eq!(say(&mut world, &mut anna, &message), [200]);
    let got = chunks(&mut peter, &mut world);
    assert_eq!(got[0].body, b"hi");
    assert_eq!(got[0].header("Content-Disposition").as_deref(), Some("attachment; filename=\"a\""));
    assert_eq!(got[0].content_type.as_deref(), Some("text/plain;charset=utf-8"));
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn a_message_given_up_is_given_up_in_every_form() {
    let (mut world, [mut alice, mut anna, mut paul, _peter]) = mixed();
    let body = cpim(&uri("alice"), ROOM, &"x".repeat(3_000));
    let message = chunk(&alice, "message1", "1-*/9000", "message/cpim", &body, '$');
    alice.send_raw(&mut world, &message[..2_000]);
    world.settle();
    world.shard.driver_mut().peer_reset(alice.peer);
    world.settle();
    for ue in [&mut anna, &mut paul] {
        ue.read(&mut world);
        let got = ue.messages();
        assert_eq!((got.len(), got[0].2), (1, '#'));
    }
    alice.received.clear();
    world.subtract_all([1, 2, 3, 4]);
}
