//! Kamailio between a member and its room: a relay that knows nothing of this node.

mod foreign;
mod support;

use foreign::kamailio::Kamailio;
use foreign::offer;
use support::node::Node;
use support::random::Random;
use support::sip::{Call, Transport};
use support::ue::Ue;

/// Kamailio takes no SEND above some 10 KiB.
const CHUNK_BYTES: usize = 8 * 1024;

/// Calls the room as a client of the relay does: its offer names both, its connection is the one to
/// the relay.
fn join_behind(kamailio: &Kamailio, node: &Node, room: &str, name: &str) -> Ue {
    let own = format!("msrp://127.0.0.1:9/{name}BehindRelay;tcp");
    let (wire, use_path) = kamailio.authorise(&own);
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
