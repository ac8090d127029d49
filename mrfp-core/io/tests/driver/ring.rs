//! The ring: what goes well.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use mrfp_io::{Driver, Errno, Listen, Operation, Ring, RingConfig};

use crate::harness::{Harness, loopback, token};

/// Small enough that every limit is met.
pub(crate) fn small_config() -> RingConfig {
    RingConfig {
        submission_entries: 64,
        completion_entries: 256,
        recv_buffer_count: 16,
        recv_buffer_size_bytes: 1024,
        recv_large_buffer_count: 2,
        recv_large_buffer_size_bytes: 16 * 1024,
        sockets_expected: 16,
    }
}

pub(crate) fn small_ring() -> Harness<Ring> {
    Harness::new(Ring::new(small_config()).unwrap())
}

pub(crate) fn finish(harness: Harness<Ring>) {
    assert_eq!(harness.finish().sockets_open(), 0);
}

/// Bytes in which a loss, a double or a swap shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

#[test]
fn echoes_what_a_peer_sends() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(b"hello ring").unwrap();
    harness.run_until("bytes arrive", |harness| {
        let seen = harness.seen.get(&1);
        seen.is_some_and(|seen| seen.received == b"hello ring")
    });
    assert_eq!(harness.peers[&1], peer.local_addr().unwrap());
    harness.send(1, b"hello peer");
    harness.run_until("send completes", |harness| harness.seen[&1].sends == [Ok(10)]);
    let mut echo = [0; 10];
    peer.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hello peer");
    finish(harness);
}

#[test]
fn a_look_brings_what_has_come_and_keeps_sends_for_the_wait() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    // The recv that was armed goes to the kernel.
    harness.turn(Duration::ZERO);
    harness.send(1, b"stays");
    peer.write_all(b"comes").unwrap();
    // The kernel may need a moment to say so.
    let begun = std::time::Instant::now();
    while harness.seen[&1].received.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "looked in vain");
        harness.driver.look().unwrap();
        harness.drain();
    }
    assert_eq!(harness.seen[&1].received, b"comes");
    peer.set_nonblocking(true).unwrap();
    let early = peer.read(&mut [0; 5]).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    peer.set_nonblocking(false).unwrap();
    harness.run_until("sent", |harness| harness.seen[&1].sends == [Ok(5)]);
    let mut sent = [0; 5];
    peer.read_exact(&mut sent).unwrap();
    assert_eq!(&sent, b"stays");
    finish(harness);
}

#[test]
fn sends_what_is_started_together_in_order() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    let bytes = pattern(40_000);
    let (first, second) = bytes.split_at(20_000);
    for piece in first.chunks(1000) {
        harness.send(1, piece);
    }
    harness.turn(Duration::ZERO);
    for piece in second.chunks(1000) {
        harness.send(1, piece);
    }
    harness.run_until("all is sent", |harness| harness.seen[&1].sends == [Ok(1000); 40]);
    let mut received = vec![0; bytes.len()];
    peer.read_exact(&mut received).unwrap();
    assert!(received == bytes);
    finish(harness);
}

#[test]
fn connects_out_and_sends_small_messages_at_once() {
    let mut harness = small_ring();
    let listener = TcpListener::bind(loopback()).unwrap();
    let index = harness.connect(listener.local_addr().unwrap());
    harness.run_until("connected", |harness| harness.seen[&index].connected == Some(Ok(())));
    let (mut peer, _) = listener.accept().unwrap();
    harness.arm_recv(index);
    harness.send(index, b"first");
    peer.write_all(b"answer").unwrap();
    harness.run_until("answered", |harness| {
        let seen = &harness.seen[&index];
        seen.received == b"answer" && seen.sends == [Ok(5)]
    });
    finish(harness);
}

#[test]
fn says_that_a_connection_was_refused() {
    let mut harness = small_ring();
    let free = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let index = harness.connect(free);
    harness.run_until("refused", |harness| {
        harness.seen[&index].connected == Some(Err(Errno(libc::ECONNREFUSED)))
    });
    finish(harness);
}

#[test]
fn reports_the_end_of_a_direction_and_still_sends() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(b"last words").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    harness.run_until("end of stream", |harness| harness.seen.get(&1).is_some_and(|seen| seen.eof));
    assert_eq!(harness.seen[&1].received, b"last words");
    assert!(!harness.seen[&1].recv_armed);
    harness.send(1, b"answer");
    harness.driver.shutdown_write(harness.sockets[&1]);
    harness.run_until("sent", |harness| harness.seen[&1].sends == [Ok(6)]);
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    finish(harness);
}

#[test]
fn sends_a_large_buffer_whole_to_a_peer_that_reads_slowly() {
    const LENGTH: usize = 4 << 20;
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    harness.send(1, &pattern(LENGTH));
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; LENGTH];
        for piece in bytes.chunks_mut(64 << 10) {
            peer.read_exact(piece).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        (bytes, peer)
    });
    harness.run_until("sent", |harness| harness.seen[&1].sends == [Ok(LENGTH)]);
    let (bytes, _peer) = reader.join().unwrap();
    assert!(bytes == pattern(LENGTH));
    finish(harness);
}

#[test]
fn serves_a_thousand_connections() {
    const COUNT: u32 = 1000;
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peers = Vec::new();
    for number in 0..COUNT {
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(&number.to_be_bytes()).unwrap();
        peers.push(peer);
    }
    // Sixteen receive buffers and 64 submission entries for all of them: recvs run dry and are
    // armed again, and the submission queue overflows.
    run_rearming(&mut harness, "all have spoken", |harness| {
        let spoke = |index| harness.seen.get(&index).map(|seen| seen.received.len());
        (1..=COUNT).all(|index| spoke(index) == Some(4))
    });
    for index in 1..=COUNT {
        let bytes = harness.seen[&index].received.clone();
        harness.send(index, &bytes);
    }
    harness.run_until("all are answered", |harness| {
        let answered = |index| harness.seen[&index].sends == [Ok(4)];
        (1..=COUNT).all(answered)
    });
    for (number, peer) in peers.iter_mut().enumerate() {
        let mut echo = [0; 4];
        peer.read_exact(&mut echo).unwrap();
        assert_eq!(u32::from_be_bytes(echo), number as u32);
    }
    finish(harness);
}

/// As `run_until`; a recv that ended for want of buffers is armed again in the next turn.
pub(crate) fn run_rearming(
    harness: &mut Harness<Ring>,
    what: &str,
    done: impl Fn(&Harness<Ring>) -> bool,
) {
    while !done(harness) {
        let mut dry: Vec<u32> = harness
            .seen
            .iter()
            .filter(|(_, seen)| !seen.recv_armed && !seen.eof && seen.recv_error.is_none())
            .map(|(&index, _)| index)
            .collect();
        // The kernel serves them in this order, each as long as it has bytes and buffers last.
        dry.sort_by_key(|index| harness.seen[index].received.len());
        for index in dry {
            harness.arm_recv(index);
        }
        let turns = std::cell::Cell::new(0);
        harness.run_until(what, |harness| {
            let ran_dry = harness.seen.values().any(|seen| !seen.recv_armed);
            turns.set(turns.get() + 1);
            done(harness) || (turns.get() > 1 && ran_dry)
        });
    }
}

#[test]
fn listeners_share_a_port_when_asked() {
    let mut harness = small_ring();
    let shared = Listen { backlog: 16, reuse_port: true };
    let first = token(Operation::Accept, 900);
    let second = token(Operation::Accept, 901);
    let third = token(Operation::Accept, 902);
    let driver = &mut harness.driver;
    let (one, address) = driver.listen(loopback(), shared, first).unwrap();
    let (two, same) = driver.listen(address, shared, second).unwrap();
    assert_eq!(address, same);
    let alone = Listen { reuse_port: false, ..shared };
    let refused = driver.listen(address, alone, third).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    driver.cancel(first);
    driver.cancel(second);
    harness.run_until("accept ends", |harness| harness.accepts_ended == 2);
    harness.driver.close(one, token(Operation::Close, 900));
    harness.driver.close(two, token(Operation::Close, 901));
    harness.turn(Duration::ZERO);
    finish(harness);
}

#[test]
fn a_reset_is_seen_by_the_peer_and_ends_what_waits() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    (0..4).for_each(|_| harness.send(1, &pattern(16_000)));
    harness.driver.reset(harness.sockets[&1]);
    harness.run_until("both end", |harness| {
        let seen = &harness.seen[&1];
        seen.sends_in_flight == 0 && !seen.recv_armed
    });
    let mut rest = Vec::new();
    let error = peer.read_to_end(&mut rest).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    finish(harness);
}
