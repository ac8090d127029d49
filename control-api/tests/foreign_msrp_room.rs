//! MSRP libraries that others wrote, as members of a room: each with a member of ours, and all of
//! them with each other.

mod foreign;
mod support;

use foreign::{Client, Library};
use support::node::Node;
use support::program::say_skipped;
use support::random::Random;
use support::ue::Ue;

const LARGE_BYTES: usize = 1 << 20;

#[test]
fn every_library_chats_with_a_member_of_ours() {
    for library in Library::present() {
        let node = Node::start(&[]);
        let mut bob = Ue::join(&node, "lobby", "bob", false);
        let mut alice = Client::join(library, &node, "lobby", "alice");

        let id = alice.client.send("text/plain", "grüß dich".as_bytes());
        assert_eq!(bob.hear(), "grüß dich", "{}", library.name);
        alice.client.await_ok(&id);

        bob.say("hello to you");
        assert_eq!(alice.client.hear(), ("text/plain".to_owned(), b"hello to you".to_vec()));
        alice.call.hang_up();
        bob.call.hang_up();
        node.await_empty();
    }
}

#[test]
fn success_is_reported_to_every_library_that_asks() {
    for library in Library::present().into_iter().filter(|library| library.tells_reports) {
        let node = Node::start(&[]);
        let mut bob = Ue::join(&node, "lobby", "bob", false);
        let mut alice = Client::join(library, &node, "lobby", "alice");
        let id = alice.client.send_with_report("text/plain", b"are you there?");
        assert_eq!(bob.hear(), "are you there?");
        assert_eq!(alice.client.next("report"), [id.as_str(), "200"], "{}", library.name);
    }
}

#[test]
fn cpim_of_every_library_reaches_the_others_as_it_was() {
    for library in Library::present() {
        let node = Node::start(&[]);
        let mut bob = Ue::join(&node, "lobby", "bob", false);
        let mut alice = Client::join(library, &node, "lobby", "alice");
        let id = alice.client.send("message/cpim", cpim("alice", "grüß dich").as_bytes());
        assert_eq!(bob.hear(), cpim("alice", "grüß dich"), "{}", library.name);
        alice.client.await_ok(&id);
        let answer = cpim("bob", "hello to you");
        bob.say_bytes("message/cpim", answer.as_bytes());
        let heard = alice.client.hear();
        assert_eq!(heard, ("message/cpim".to_owned(), answer.into_bytes()), "{}", library.name);
    }
}

#[test]
fn a_large_message_of_every_library_arrives_byte_by_byte_both_ways() {
    for library in Library::present() {
        let node = Node::start(&[]);
        let mut bob = Ue::join(&node, "lobby", "bob", false);
        let mut alice = Client::join(library, &node, "lobby", "alice");
        let (content_type, body) = large(library);

        let id = alice.client.send(content_type, &body);
        assert!(bob.hear_all(body.len()) == body, "{} sent something else", library.name);
        alice.client.await_ok(&id);

        bob.say_bytes(content_type, &body);
        let (received_type, received) = alice.client.hear();
        assert_eq!((received_type.as_str(), received.len()), (content_type, body.len()));
        assert!(received == body, "{} received something else", library.name);
    }
}

#[test]
fn libraries_that_know_nothing_of_each_other_share_a_room() {
    let libraries = Library::present();
    if libraries.len() < 2 {
        return say_skipped("two MSRP libraries are needed to talk to each other");
    }
    let node = Node::start(&[]);
    let mut members: Vec<_> = libraries
        .iter()
        .map(|library| Client::join(*library, &node, "babel", &library.name.replace('-', "")))
        .collect();
    for round in 0..3 {
        for speaker in 0..members.len() {
            let text = format!("{} says {round}", libraries[speaker].name);
            let id = members[speaker].client.send("text/plain", text.as_bytes());
            for listener in (0..members.len()).filter(|listener| *listener != speaker) {
                let heard = members[listener].client.hear();
                assert_eq!(heard, ("text/plain".to_owned(), text.clone().into_bytes()));
            }
            members[speaker].client.await_ok(&id);
        }
    }
    for member in &mut members {
        member.call.hang_up();
    }
    node.await_empty();
}

/// A text from that member to the room, as CPIM (RFC 3862).
fn cpim(member: &str, text: &str) -> String {
    format!(
        "From: <sip:{member}@ue.example>\r\nTo: <sip:lobby@conference.example>\r\n\
         DateTime: 2026-11-21T13:00:00Z\r\n\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n{text}"
    )
}

/// A large body of what the library can carry.
fn large(library: Library) -> (&'static str, Vec<u8>) {
    let mut random = Random(4975);
    let mut body = random.bytes(LARGE_BYTES);
    if library.binary {
        return ("application/octet-stream", body);
    }
    for byte in &mut body {
        *byte = b' ' + *byte % 95;
    }
    ("text/plain", body)
}
