//! MSRP libraries that others wrote, as members of a room: each with a member of ours, and all of
//! them with each other.

mod foreign;
mod support;

use foreign::{Client, Library, Member, offer};
use support::node::Node;
use support::program::say_skipped;
use support::sip::{Call, Transport};
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
fn a_nickname_belongs_to_one_library_until_it_leaves() {
    for library in Library::present().into_iter().filter(|library| library.nickname) {
        let node = Node::start(&[]);
        let mut alice = Client::join(library, &node, "lobby", "alice");
        let mut carol = Client::join(library, &node, "lobby", "carol");
        let ask = |member: &mut Member, name| {
            member.client.tell(&format!("nickname {name}"));
            member.client.next("response").remove(1)
        };
        assert_eq!(ask(&mut alice, "Queen"), "200", "{}", library.name);
        assert_eq!(ask(&mut carol, "queen"), "425", "{}", library.name);
        alice.call.hang_up();
        node.await_metric("mrf_terminations", 1);
        assert_eq!(ask(&mut carol, "queen"), "200", "{}", library.name);
    }
}

#[test]
fn cpim_of_every_library_reaches_the_others_as_it_was() {
    const ACCEPT_TYPES: &str = "message/cpim text/plain";
    for library in Library::present() {
        let node = Node::start(&[]);
        let own = "msrp://127.0.0.1:9/bobWithCpim;tcp";
        let offer = offer(own, ACCEPT_TYPES);
        let (tcp, offer) = (Transport::Tcp, offer.as_bytes());
        let call = Call::place_offering(&node, tcp, "lobby", "bob", own, offer);
        let mut bob = Ue::connect(call);
        let mut alice = Client::join_accepting(library, &node, "lobby", "alice", ACCEPT_TYPES);
        let mut carol = Client::join(library, &node, "lobby", "carol");

        let id = alice.client.send("message/cpim", cpim("alice", "grüß dich").as_bytes());
        assert_eq!(bob.hear(), cpim("alice", "grüß dich"), "{}", library.name);
        alice.client.await_ok(&id);
        let (_, heard) = carol.client.hear();
        assert_eq!(heard, "grüß dich".as_bytes(), "who knows no CPIM gets what is in it");

        let answer = cpim("bob", "hello to you");
        bob.say_bytes("message/cpim", answer.as_bytes());
        let heard = alice.client.hear();
        assert_eq!(heard, ("message/cpim".to_owned(), answer.into_bytes()), "{}", library.name);
        assert_eq!(carol.client.hear().1, b"hello to you");

        let id = carol.client.send("text/plain", b"me too");
        let (_, wrapped) = alice.client.hear();
        let wrapped = String::from_utf8(wrapped).expect("text");
        assert_eq!(wrapped, bob.hear());
        assert!(wrapped.starts_with("From: <sip:carol@ue.example>\r\n"), "{wrapped}");
        assert!(wrapped.ends_with("\r\n\r\nme too"), "{wrapped}");
        carol.client.await_ok(&id);
    }
}

#[test]
fn a_large_message_of_every_library_arrives_byte_by_byte_both_ways() {
    for library in Library::present() {
        let node = Node::start(&[]);
        let mut bob = Ue::join(&node, "lobby", "bob", false);
        let mut alice = Client::join(library, &node, "lobby", "alice");
        let (content_type, body) = library.large_body(LARGE_BYTES);

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
