//! A message far larger than any buffer: it passes through while it arrives.

#[path = "../../mrfp-core/protocol/tests/tls_common/authority.rs"]
mod authority;
mod support;

use std::thread;

use authority::Authority;
use mrfp_protocol::tls::{Authorities, CertificateConfig, Identity, Profile, ProfileConfig};
use support::node::Node;
use support::ue::Ue;

/// The node is reached by address.
const HOST: &str = "127.0.0.1";
const MIB: u64 = 1024 * 1024;
const MESSAGE_BYTES: u64 = 100 * MIB;
/// What the node may grow by while the message passes: the queue of one receiver (1 MiB), what one
/// turn has read before the sender is held back, and the allocator's steps of 2 MiB, one for each of
/// the two pools of send buffers.
const GROWTH_BYTES_MAX: u64 = 6 * MIB;

/// The byte at a place of the message: no run of it repeats within four gigabytes, so that a byte
/// lost, doubled or exchanged shows.
fn byte_at(place: u64) -> u8 {
    let word = (place / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word >> (8 * (place % 8))) as u8
}

/// Fills `buffer` with the message from `place` on.
fn fill(buffer: &mut [u8], place: u64) {
    for (byte, at) in buffer.iter_mut().zip(place..) {
        *byte = byte_at(at);
    }
}

/// What carries the message on both sides.
#[derive(Clone, Copy)]
enum Protection {
    None,
    Key,
    Certificate,
}

/// A node with a certificate, and two members of a room of it.
fn start(protection: Protection) -> (Node, [Ue; 2]) {
    let authority = Authority::new("authority");
    let issued = authority.issue(&[HOST]);
    let directory = tempfile::tempdir().expect("writable");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("writable");
        path
    };
    let chain = format!("chain = {:?}", file("chain.pem", &issued.chain));
    let key = format!("key = {:?}", file("key.pem", &issued.key));
    let node = Node::start(&[("tls.certificate", &chain), ("tls.certificate", &key)]);
    let identity = Identity::from_pem(issued.chain.as_bytes(), issued.key.as_bytes());
    let authorities = Authorities::from_pem(authority.pem.as_bytes()).expect("just made");
    let config = CertificateConfig { identity: identity.expect("just made"), authorities };
    let profile = Profile::new(&ProfileConfig::default()).expect("the default");
    let profile = profile.with_certificates(&config).expect("good");
    let ues = ["sender", "receiver"].map(|name| match protection {
        Protection::None => Ue::join(&node, "volume", name, false),
        Protection::Key => Ue::join(&node, "volume", name, true),
        Protection::Certificate => Ue::join_certified(&node, "volume", name, &profile, HOST),
    });
    (node, ues)
}

fn passes(protection: Protection) {
    let (node, [mut sender, mut receiver]) = start(protection);
    sender.say("so that everything has been used once");
    receiver.hear();
    let before = node.resident_bytes();
    let id = sender.next_id();
    let sending = thread::spawn(move || {
        let head = sender.call.paths.send_head(&id, Some(MESSAGE_BYTES));
        sender.wire.write_all(head.as_bytes()).expect("sends");
        let mut buffer = vec![0; 64 * 1024];
        for place in (0..MESSAGE_BYTES).step_by(buffer.len()) {
            fill(&mut buffer, place);
            sender.wire.write_all(&buffer).expect("sends");
        }
        sender.wire.write_all(format!("\r\n-------{id}$\r\n").as_bytes()).expect("sends");
        assert_eq!(sender.await_status(&id).expect("an answer"), 200);
        sender
    });
    let mut expected = Vec::new();
    let mut next = 0;
    let length = receiver
        .hear_pieces(&mut |place, piece| {
            assert_eq!(place, next);
            expected.resize(piece.len(), 0);
            fill(&mut expected, place);
            assert!(expected == piece, "not what was sent, within {} of {place}", piece.len());
            next = place + piece.len() as u64;
        })
        .expect("the message");
    assert_eq!(length, MESSAGE_BYTES);
    let mut sender = sending.join().expect("sent");
    let growth = node.resident_bytes_peak().saturating_sub(before);
    println!("peak growth {growth} bytes");
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
    receiver.say("got it");
    assert!(sender.hear().ends_with("got it"));
    sender.call.hang_up();
    receiver.call.hang_up();
    node.await_empty();
}

#[test]
fn a_hundred_mebibyte_message_passes_in_the_clear_byte_for_byte_in_bounded_memory() {
    passes(Protection::None);
}

#[test]
fn a_hundred_mebibyte_message_passes_under_tls_psk_byte_for_byte_in_bounded_memory() {
    passes(Protection::Key);
}

#[test]
fn a_hundred_mebibyte_message_passes_with_certificates_byte_for_byte_in_bounded_memory() {
    passes(Protection::Certificate);
}
