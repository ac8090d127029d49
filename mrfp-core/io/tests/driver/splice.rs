//! From one stream to another without being received, on either driver.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use mrfp_io::{Driver, Errno, Operation, Ring, Simulator};

use crate::harness::{Harness, token};
use crate::ring::{finish, pattern, small_config};

/// Two connections, of which nothing is received.
fn ring() -> (Harness<Ring>, [TcpStream; 2]) {
    let mut harness = Harness::new(Ring::new(small_config()).unwrap());
    harness.recv_on_accept = false;
    let address = harness.listen();
    let mut connect = |index| {
        let peer = TcpStream::connect(address).unwrap();
        harness.run_until("accepted", |harness| harness.seen.contains_key(&index));
        peer
    };
    let peers = [connect(1), connect(2)];
    (harness, peers)
}

#[test]
fn the_ring_passes_everything_in_order_to_a_peer_that_reads_slowly() {
    let (mut harness, [mut from, mut to]) = ring();
    let bytes = pattern(8 << 20);
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        from.write_all(&sent).unwrap();
        from.shutdown(Shutdown::Write).unwrap();
        from
    });
    let length = bytes.len();
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; length];
        for part in received.chunks_mut(100_000) {
            to.read_exact(part).unwrap();
            std::thread::yield_now();
        }
        (to, received)
    });
    while harness.splice(1, 2).unwrap() {}
    let (_to, received) = reader.join().unwrap();
    assert!(received == bytes);
    drop(writer.join().unwrap());
    finish(harness);
}

#[test]
fn the_ring_has_a_rest_where_the_other_side_is_full_and_says_when_nothing_has_come() {
    let (mut harness, [mut from, mut to]) = ring();
    let (source, target) = (harness.sockets[&1], harness.sockets[&2]);
    let nothing = harness.driver.splice(source, target).unwrap().unwrap();
    assert_eq!((nothing.passed, nothing.rest), (0, &b""[..]));
    // Nobody reads: sooner or later less is taken than has come.
    let mut passed = Vec::new();
    let rest = loop {
        from.write_all(&pattern(50_000)).unwrap();
        let mut left = 50_000;
        while left > 0 {
            harness.await_readable(1);
            harness.run_until("readable", |harness| !harness.seen[&1].recv_armed);
            let spliced = harness.driver.splice(source, target).unwrap().unwrap();
            left -= spliced.passed + spliced.rest.len();
            passed.push(spliced.passed);
            if !spliced.rest.is_empty() {
                assert_eq!(left, 0, "so that the rest is the end of what was written");
                break;
            }
        }
        let total: usize = passed.iter().sum();
        assert!(total < 100 << 20, "the kernel has no end");
        if !total.is_multiple_of(50_000) || passed.last() == Some(&0) {
            break 50_000 * (total / 50_000 + 1) - total;
        }
    };
    harness.send(2, &pattern(50_000)[50_000 - rest..]);
    let length = passed.iter().sum::<usize>() + rest;
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; length];
        to.read_exact(&mut received).unwrap();
        (to, received)
    });
    harness.run_until("sent", |harness| harness.seen[&2].sends_in_flight == 0);
    assert_eq!(harness.seen[&2].sends, [Ok(rest)]);
    let (_to, received) = reader.join().unwrap();
    assert!(received.chunks(50_000).all(|chunk| chunk == pattern(50_000)));
    drop(from);
    finish(harness);
}

#[test]
fn the_ring_goes_on_receiving_and_sending_as_before() {
    let (mut harness, [mut from, mut to]) = ring();
    from.write_all(b"spliced").unwrap();
    assert!(harness.splice(1, 2).unwrap());
    harness.arm_recv(1);
    // Nothing is there: the receive must wait for it.
    harness.turn(Duration::ZERO);
    assert!(harness.seen[&1].recv_armed);
    from.write_all(b"received").unwrap();
    harness.run_until("received", |harness| harness.seen[&1].received == b"received");
    harness.send(2, b"sent");
    let mut received = [0; 11];
    harness.run_until("sent", |harness| harness.seen[&2].sends_in_flight == 0);
    to.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"splicedsent");
    finish(harness);
}

#[test]
fn the_ring_tells_the_end_from_a_reset_and_takes_a_wait_back() {
    let (mut harness, [from, to]) = ring();
    harness.await_readable(1);
    harness.driver.cancel(token(Operation::Recv, 1));
    harness.run_until("cancelled", |harness| !harness.seen[&1].recv_armed);
    assert_eq!(harness.seen[&1].readable, [Err(Errno::CANCELED)]);
    to.shutdown(Shutdown::Write).unwrap();
    assert_eq!(harness.splice(2, 1), Ok(false));
    socket2::SockRef::from(&from).set_linger(Some(Duration::ZERO)).unwrap();
    drop(from);
    assert_eq!(harness.splice(1, 2), Err(Errno(libc::ECONNRESET)));
    finish(harness);
}

#[test]
fn the_simulator_passes_everything_whatever_the_seed() {
    for seed in 0..50 {
        let mut harness = Harness::new(Simulator::new(seed));
        harness.recv_on_accept = false;
        let address = harness.listen();
        let peers = [1, 2].map(|index| {
            let peer = harness.driver.peer_connect(address);
            harness.run_until("accepted", |harness| harness.seen.contains_key(&index));
            peer
        });
        let bytes = pattern(300_000);
        harness.driver.peer_send(peers[0], &bytes);
        harness.driver.peer_shutdown_write(peers[0]);
        while harness.splice(1, 2).unwrap() {}
        assert!(harness.driver.peer_received(peers[1]) == bytes, "seed {seed}");
        assert_eq!(harness.finish().sockets_open(), 0);
    }
}
