//! The ring: what comes in bulk.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use mrfp_io::{Driver, Errno, Operation, Ring, RingConfig};

use crate::harness::{Harness, token};
use crate::ring::{finish, pattern, small_config};

const ORDINARY_BYTES: usize = 1024;
const LARGE_BYTES: usize = 16 * 1024;

/// A connection on which so many bytes wait before anything is received.
fn connection_with(waiting: &[u8], recv_buffer_count: u16) -> (Harness<Ring>, TcpStream) {
    let config = RingConfig { recv_buffer_count, ..small_config() };
    let mut harness = Harness::new(Ring::new(config).unwrap());
    harness.recv_on_accept = false;
    let mut peer = TcpStream::connect(harness.listen()).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    peer.write_all(waiting).unwrap();
    (harness, peer)
}

/// Receives, and arms again whenever a receive has ended, until so many bytes have come.
fn receive(harness: &mut Harness<Ring>, length: usize) {
    while harness.seen[&1].received.len() < length {
        if !harness.seen[&1].recv_armed {
            harness.arm_recv(1);
        }
        harness.turn(Duration::from_secs(5));
        assert_eq!(harness.seen[&1].recv_error, None);
    }
}

#[test]
fn what_comes_in_bulk_comes_in_large_buffers_and_in_order() {
    let bytes = pattern(8 * LARGE_BYTES);
    let (mut harness, _peer) = connection_with(&bytes, 16);
    receive(&mut harness, bytes.len());
    assert!(harness.seen[&1].received == bytes);
    assert_eq!(harness.seen[&1].runs.iter().max(), Some(&LARGE_BYTES));
    finish(harness);
}

#[test]
fn a_conversation_comes_in_ordinary_buffers_by_one_operation_again_after_bulk() {
    let bytes = pattern(4 * LARGE_BYTES);
    let (mut harness, mut peer) = connection_with(&bytes, 16);
    receive(&mut harness, bytes.len());
    for text in [b"first", b"later"] {
        let length = harness.seen[&1].received.len() + text.len();
        peer.write_all(text).unwrap();
        receive(&mut harness, length);
    }
    assert!(harness.seen[&1].recv_armed, "one operation goes on");
    finish(harness);
}

#[test]
fn the_change_to_large_buffers_is_not_seen() {
    // Fewer than there are ordinary buffers, so that nothing else ends the receive.
    let bytes = pattern(16 * ORDINARY_BYTES);
    let (mut harness, mut peer) = connection_with(&bytes, 64);
    receive(&mut harness, bytes.len());
    assert!(harness.seen[&1].recv_armed);
    // The receive has been cancelled and another one begun.
    for _ in 0..3 {
        harness.turn(Duration::ZERO);
    }
    assert!(harness.seen[&1].recv_armed);
    peer.write_all(&bytes).unwrap();
    receive(&mut harness, 2 * bytes.len());
    assert_eq!(harness.seen[&1].runs.iter().max(), Some(&LARGE_BYTES));
    assert!(harness.seen[&1].received == [bytes.as_slice(), &bytes].concat());
    finish(harness);
}

#[test]
fn whoever_cancels_on_the_way_to_large_buffers_learns_the_end() {
    let bytes = pattern(16 * ORDINARY_BYTES);
    let (mut harness, _peer) = connection_with(&bytes, 64);
    receive(&mut harness, bytes.len());
    harness.driver.cancel(token(Operation::Recv, 1));
    harness.run_until("cancelled", |harness| !harness.seen[&1].recv_armed);
    assert_eq!(harness.seen[&1].recv_error, Some(Errno::CANCELED));
    finish(harness);
}
