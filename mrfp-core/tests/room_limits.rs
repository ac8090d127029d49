//! What a room says of itself in its SDP, and refuses beyond (RFC 4975 sections 8.6 and 8.7).

mod common;
mod room_support;

use common::{Ue, World};
use mrfp_core::mp::ChatRoomPolicy;
use room_support::{
    ROOM, chunk, client, cpim, heard, join, plain_client, policy, say, send, send_cpim, three,
    typed_cpim, uri, wrapping,
};

/// A room of small messages.
fn small(message_bytes_max: usize) -> ChatRoomPolicy {
    ChatRoomPolicy { message_bytes_max: Some(message_bytes_max as u64), ..policy() }
}

/// A room of text, of images in a wrapper as well.
fn narrow() -> ChatRoomPolicy {
    ChatRoomPolicy {
        accept_types: "text/plain".into(),
        accept_wrapped_types: "text/plain image/*".into(),
        ..wrapping()
    }
}

/// What of Alice's message has come: its body so far, and how its last chunk ends.
fn got(world: &mut World, ue: &mut Ue) -> Vec<(Vec<u8>, char)> {
    ue.read(world);
    let messages = ue.messages();
    ue.received.clear();
    messages.into_iter().map(|(_, body, end)| (body, end)).collect()
}

#[test]
fn a_message_of_the_largest_size_passes_and_one_byte_more_is_refused() {
    let body = cpim(&uri("alice"), ROOM, &"x".repeat(700));
    for (limit, status) in [(body.len(), 200), (body.len() - 1, 413)] {
        for announced in [true, false] {
            let (mut world, mut alice, mut bob, mut carol) = three(&small(limit));
            let total = if announced { body.len().to_string() } else { "*".into() };
            let message =
                chunk(&alice, "message1", &format!("1-*/{total}"), "message/cpim", &body, '$');
            assert_eq!(say(&mut world, &mut alice, &message), [status], "{limit} {announced}");
            for ue in [&mut bob, &mut carol] {
                let whole = got(&mut world, ue).iter().filter(|(_, end)| *end == '$').count();
                assert_eq!(whole, usize::from(status == 200), "{limit} {announced}");
            }
            let body = cpim(&uri("alice"), ROOM, "short");
            let message = send_cpim(&alice, "message2", &body);
            assert_eq!(say(&mut world, &mut alice, &message), [200], "the session goes on");
            assert_eq!(heard(&mut world, &mut bob), [body]);
            world.subtract_all([1, 2, 3]);
        }
    }
}

#[test]
fn what_is_announced_too_large_is_heard_by_nobody() {
    let body = cpim(&uri("alice"), ROOM, &"x".repeat(700));
    let (mut world, mut alice, mut bob, mut carol) = three(&small(500));
    let range = format!("1-300/{}", body.len());
    let message = chunk(&alice, "message1", &range, "message/cpim", &body[..300], '+');
    assert_eq!(say(&mut world, &mut alice, &message), [413]);
    let range = format!("301-*/{}", body.len());
    let message = chunk(&alice, "message1", &range, "message/cpim", &body[300..], '$');
    assert_eq!(say(&mut world, &mut alice, &message), [413]);
    assert!(got(&mut world, &mut bob).is_empty());
    assert!(got(&mut world, &mut carol).is_empty());
    world.subtract_all([1, 2, 3]);
}

#[test]
fn what_grows_too_large_underway_is_given_up() {
    let body = cpim(&uri("alice"), ROOM, &"x".repeat(700));
    // It grows beyond, or its second chunk, still below, says that it will.
    for (total, end) in [("*".to_owned(), 600), (body.len().to_string(), 400)] {
        let (mut world, mut alice, mut bob, mut carol) = three(&small(500));
        let message = chunk(&alice, "message1", "1-300/*", "message/cpim", &body[..300], '+');
        assert_eq!(say(&mut world, &mut alice, &message), [200]);
        let range = format!("301-*/{total}");
        let message = chunk(&alice, "message1", &range, "message/cpim", &body[300..end], '+');
        assert_eq!(say(&mut world, &mut alice, &message), [413], "{total}");
        for ue in [&mut bob, &mut carol] {
            assert_eq!(got(&mut world, ue), [(body[..300].to_vec(), '#')], "{total}");
        }
        let range = format!("{}-*/*", end + 1);
        let message = chunk(&alice, "message1", &range, "message/cpim", &body[end..], '$');
        assert_eq!(say(&mut world, &mut alice, &message), [413], "{total}");
        assert!(got(&mut world, &mut bob).is_empty());
        world.subtract_all([1, 2, 3]);
    }
}

#[test]
fn what_grows_too_large_within_a_chunk_is_given_up_and_refused_once() {
    let body = cpim(&uri("alice"), ROOM, &"x".repeat(6_000));
    let (mut world, mut alice, mut bob, _carol) = three(&small(2_000));
    let message = chunk(&alice, "message1", "1-*/*", "message/cpim", &body, '$');
    let mut statuses = Vec::new();
    for part in message.chunks(900) {
        statuses.extend(say(&mut world, &mut alice, part));
    }
    assert_eq!(statuses, [413]);
    let got = got(&mut world, &mut bob);
    assert_eq!(got.len(), 1);
    let (heard, end) = &got[0];
    assert!(*end == '#' && heard.len() <= 2_000 && body.starts_with(heard));
    world.subtract_all([1, 2, 3]);
}

#[test]
fn content_that_is_not_listed_is_refused_bare_or_wrapped() {
    let mut world = World::calm();
    let mut alice = join(&mut world, 1, &narrow(), plain_client("alice"));
    let anything = room_support::Client { accept_types: "*", ..plain_client("bob") };
    let mut bob = join(&mut world, 2, &narrow(), anything);
    let mut carol = join(&mut world, 3, &narrow(), client("carol"));
    for (n, (content_type, bare, wrapped)) in [
        ("text/plain;charset=utf-8", 200, 200),
        ("Text/Plain", 200, 200),
        ("image/png", 415, 200),
        ("text/html", 415, 415),
        ("application/zip", 415, 415),
        // What is said about the conversation.
        ("application/im-iscomposing+xml", 200, 200),
        ("message/imdn+xml", 200, 200),
    ]
    .into_iter()
    .enumerate()
    {
        let message = send(&alice, &format!("bare{n}"), content_type, b"content");
        assert_eq!(say(&mut world, &mut alice, &message), [bare], "{content_type}");
        let body = typed_cpim(&uri("carol"), ROOM, content_type, b"content");
        let message = send_cpim(&carol, &format!("wrapped{n}"), &body);
        assert_eq!(say(&mut world, &mut carol, &message), [wrapped], "{content_type}");
        let taken = [bare, wrapped].iter().filter(|status| **status == 200).count();
        assert_eq!(heard(&mut world, &mut bob).len(), taken, "{content_type}");
    }
    // RFC 2045 section 5.2: without a type it is text.
    let head = format!("From: <{}>\r\nTo: <{ROOM}>\r\n\r\n\r\nhello", uri("carol"));
    let message = send_cpim(&carol, "untyped", head.as_bytes());
    assert_eq!(say(&mut world, &mut carol, &message), [200]);
    world.subtract_all([1, 2, 3]);
}

#[test]
fn private_messages_obey_the_same_limits() {
    let room = ChatRoomPolicy { message_bytes_max: Some(500), ..narrow() };
    let (mut world, mut alice, mut bob, _carol) = three(&room);
    let picture = typed_cpim(&uri("alice"), &uri("bob"), "image/png", b"content");
    let page = typed_cpim(&uri("alice"), &uri("bob"), "text/html", b"content");
    let long = cpim(&uri("alice"), &uri("bob"), &"x".repeat(500));
    for (id, body, status) in [("m1", &picture, 200), ("m2", &page, 415), ("m3", &long, 413)] {
        let message = send_cpim(&alice, id, body);
        assert_eq!(say(&mut world, &mut alice, &message), [status], "{id}");
    }
    assert_eq!(heard(&mut world, &mut bob), [picture]);
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_list_with_a_star_takes_everything() {
    let room = ChatRoomPolicy {
        accept_types: "text/plain *".into(),
        accept_wrapped_types: "*".into(),
        ..wrapping()
    };
    let (mut world, mut alice, mut bob, _carol) = three(&room);
    let message = send(&alice, "m1", "application/zip", b"content");
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    let body = typed_cpim(&uri("alice"), ROOM, "application/zip", b"content");
    let message = send_cpim(&alice, "m2", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    assert_eq!(heard(&mut world, &mut bob).len(), 2);
    world.subtract_all([1, 2, 3]);
}
