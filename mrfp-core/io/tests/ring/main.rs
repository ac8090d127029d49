//! The ring against real sockets on the loopback interface.

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;

use harness::{Harness, small_config};

#[test]
fn echoes_what_a_peer_sends() {
    let mut harness = Harness::new(small_config());
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(b"hello ring").unwrap();
    harness.run_until("bytes arrive", |harness| {
        harness
            .seen
            .get(&1)
            .is_some_and(|seen| seen.received == b"hello ring")
    });
    assert_eq!(harness.peers[&1], peer.local_addr().unwrap());
    harness.send(1, b"hello peer");
    harness.run_until("send completes", |harness| {
        harness.seen[&1].sends == [Ok(10)]
    });
    let mut echo = [0; 10];
    peer.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hello peer");
    harness.finish();
}
