//! A message far larger than any buffer: it passes through while it arrives.

mod support;

use std::thread;

use support::node::Node;
use support::ue::Ue;

const MIB: u64 = 1024 * 1024;
const MESSAGE_BYTES: u64 = 100 * MIB;
/// What the node may grow by while the message passes: the queue of one receiver (1 MiB), the
/// receive ring (16 MiB, touched as it is used) and as much again for everything else.
const GROWTH_BYTES_MAX: u64 = 36 * MIB;

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

fn passes(secure: bool) {
    let node = Node::start(&[]);
    let mut sender = Ue::join(&node, "volume", "sender", secure);
    let mut receiver = Ue::join(&node, "volume", "receiver", secure);
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
    assert_eq!(sender.hear(), "got it");
    sender.call.hang_up();
    receiver.call.hang_up();
    node.await_empty();
}

#[test]
fn a_hundred_mebibyte_message_passes_in_the_clear_byte_for_byte_in_bounded_memory() {
    passes(false);
}

#[test]
fn a_hundred_mebibyte_message_passes_under_tls_psk_byte_for_byte_in_bounded_memory() {
    passes(true);
}
