//! Kamailio, a relay that knows nothing of this node: between a member and its room, and behind our
//! relay.

mod foreign;
mod relay_world;
mod support;

use std::fs;

use foreign::kamailio::Kamailio;
use foreign::offer;
use relay_world::{ALICE, Paths, Peer, World, authenticate, chunk, paths, send};
use support::node::Node;
use support::random::Random;
use support::sip::{Call, Transport};
use support::ue::Ue;
use support::wire::Wire;

/// Kamailio takes no SEND above some 10 KiB.
const CHUNK_BYTES: usize = 8 * 1024;

/// Calls the room as a client of the relay does: its offer names both, its connection is the one to
/// the relay.
fn join_behind(kamailio: &Kamailio, node: &Node, room: &str, name: &str) -> Ue {
    let own = format!("msrp://127.0.0.1:9/{name}BehindRelay;tcp");
    let mut wire = Wire::connect(kamailio.address, None).expect("connects");
    let use_path = kamailio.authorise(&mut wire, &own);
    let offer = offer(&format!("{use_path} {own}"), "*");
    let mut call = Call::place_offering(node, Transport::Tcp, room, name, &own, offer.as_bytes());
    call.paths.to = format!("{use_path} {}", call.answer.path);
    Ue::bind(call, wire)
}

#[test]
fn a_member_behind_kamailio_chats_with_the_room() {
    let Some(kamailio) = Kamailio::start() else { return };
    let node = Node::start(&[]);
    let mut bob = Ue::join(&node, "lobby", "bob", false);
    let mut alice = join_behind(&kamailio, &node, "lobby", "alice");
    for round in 0..20 {
        alice.say(&format!("question {round}"));
        assert_eq!(bob.hear(), format!("question {round}"), "{}", kamailio.log());
        bob.say(&format!("answer {round}"));
        assert_eq!(alice.hear(), format!("answer {round}"), "{}", kamailio.log());
    }
    alice.call.hang_up();
    bob.call.hang_up();
    node.await_empty();
}

#[test]
fn a_chunked_message_passes_kamailio_byte_by_byte_both_ways() {
    let Some(kamailio) = Kamailio::start() else { return };
    let node = Node::start(&[]);
    let mut bob = Ue::join(&node, "lobby", "bob", false);
    let mut alice = join_behind(&kamailio, &node, "lobby", "alice");
    let body = Random(4976).bytes(16 * CHUNK_BYTES + 77);
    alice.say_in_chunks("application/octet-stream", &body, CHUNK_BYTES);
    assert_eq!(bob.hear_all(body.len()), body, "{}", kamailio.log());
    bob.say_in_chunks("application/octet-stream", &body, CHUNK_BYTES);
    assert_eq!(alice.hear_all(body.len()), body, "{}", kamailio.log());
}

/// Alice is a client of our relay, Bob one of Kamailio; everything is over TLS.
struct TwoRelays {
    kamailio: Kamailio,
    alice: Peer,
    bob: Peer,
    /// From Alice to Bob and back.
    there: Paths,
    back: Paths,
    _node: Node,
    _world: World,
}

impl TwoRelays {
    fn new() -> Option<Self> {
        const BOB: &str = "msrps://bob.invalid:9892/bobBehindKamailio;tcp";
        let world = World::new();
        let issued = world.authority.issue(&["localhost"]);
        let file = |name: &str, text: &str| {
            let path = world.directory.path().join(name);
            fs::write(&path, text).expect("writable");
            path
        };
        let (chain, key) = (file("chain.pem", &issued.chain), file("key.pem", &issued.key));
        let kamailio = Kamailio::start_secure(&chain, &key)?;
        let node = world.relay("localhost");
        let mut alice = world.connect(node.relay.expect("on"), "localhost");
        let ours = authenticate(&mut alice, "localhost", &["msrps://localhost;tcp"]).remove(0);
        let mut bob = world.connect(kamailio.address, "localhost");
        let theirs = kamailio.authorise(&mut bob.wire, BOB);
        let there = paths(&[&ours, &theirs, BOB], ALICE);
        let back = paths(&[&theirs, &ours, ALICE], BOB);
        Some(Self { kamailio, alice, bob, there, back, _node: node, _world: world })
    }
}

#[test]
fn a_session_passes_our_relay_and_then_kamailio_both_ways() {
    let Some(mut relays) = TwoRelays::new() else { return };
    let TwoRelays { kamailio, alice, bob, there, back, .. } = &mut relays;
    for round in 0..20 {
        let text = format!("round {round}");
        alice.write(send(&format!("there{round:03}"), there, text.as_bytes()));
        assert_eq!(alice.next().start, "200");
        let heard = bob.next_send();
        assert_eq!(heard.body, text.as_bytes(), "{}", kamailio.log());
        assert_eq!(heard.from, back.to);
        bob.write(send(&format!("back{round:04}"), back, text.as_bytes()));
        assert_eq!(bob.next().start, "200");
        let heard = alice.next_send();
        assert_eq!(heard.body, text.as_bytes(), "{}", kamailio.log());
        assert_eq!(heard.from, there.to);
    }
}

#[test]
fn chunks_pass_our_relay_and_then_kamailio_byte_by_byte_both_ways() {
    let Some(mut relays) = TwoRelays::new() else { return };
    let TwoRelays { kamailio, alice, bob, there, back, .. } = &mut relays;
    let body = Random(4976).bytes(8 * CHUNK_BYTES + 77);
    let there = pass_in_chunks(alice, bob, there, &body);
    assert!(there == body, "{}", kamailio.log());
    let back = pass_in_chunks(bob, alice, back, &body);
    assert!(back == body, "{}", kamailio.log());
}

/// Sends a message chunk by chunk; what the other one has received.
fn pass_in_chunks(from: &mut Peer, to: &mut Peer, paths: &Paths, body: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    for (number, part) in body.chunks(CHUNK_BYTES).enumerate() {
        let start = number * CHUNK_BYTES;
        let end = start + part.len();
        let flag = if end == body.len() { '$' } else { '+' };
        let range = format!("{}-{end}/{}", start + 1, body.len());
        from.write(chunk("chunk0001", paths, &range, part, flag));
        assert_eq!(from.next().start, "200");
        while heard.len() < end {
            heard.extend(to.next_send().body);
        }
    }
    heard
}

#[test]
fn what_kamailio_refuses_is_reported_to_the_sender() {
    let Some(mut relays) = TwoRelays::new() else { return };
    let TwoRelays { kamailio, alice, there, .. } = &mut relays;
    // Nobody is called so there.
    let unknown = Paths { to: there.to.replace("bobBehindKamailio", "bob"), ..paths(&[], ALICE) };
    let unknown = Paths { to: unknown.to.replacen("/s", "/t", 2), ..unknown };
    alice.write(send("wrong001", &unknown, b"hello?"));
    let mut answers = [alice.next(), alice.next()];
    answers.sort_by(|one, other| one.start.cmp(&other.start));
    let [ok, report] = answers;
    assert_eq!((ok.start.as_str(), report.start.as_str()), ("200", "REPORT"), "{}", kamailio.log());
    assert_eq!(report.header("Message-ID"), Some("wrong001"));
    assert!(
        report.header("Status").is_some_and(|status| status.starts_with("000 481")),
        "{report:?}"
    );
}
