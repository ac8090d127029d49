//! The simulator keeps the promises of the seam, whatever the seed.

use std::net::SocketAddr;
use std::time::Duration;

use mrfp_io::{ConnectAnswer, Driver, Errno, Faults, Operation, Simulator, SimulatorConfig};

use crate::harness::{Harness, Seen, token};
use crate::ring::pattern;

fn calm() -> Harness<Simulator> {
    Harness::new(Simulator::without_faults())
}

fn finish(harness: Harness<Simulator>) {
    assert_eq!(harness.finish().sockets_open(), 0);
}

/// One conversation under every fault; what it saw, for comparison.
fn converse(seed: u64) -> (Vec<usize>, usize) {
    const LENGTH: usize = 20_000;
    let mut harness = Harness::new(Simulator::new(seed));
    let address = harness.listen();
    let peers: Vec<_> = (0..3).map(|_| harness.driver.peer_connect(address)).collect();
    for &peer in &peers {
        harness.driver.peer_send(peer, &pattern(LENGTH));
    }
    let mut steps = Vec::new();
    while harness.seen.len() < 3 || harness.seen.values().any(|it| it.received.len() < LENGTH) {
        harness.turn(Duration::ZERO);
        steps.push(harness.seen.values().map(|it| it.received.len()).sum());
        let dry: Vec<u32> = harness
            .seen
            .iter()
            .filter(|(_, seen)| !seen.recv_armed)
            .map(|(&index, _)| index)
            .collect();
        for index in dry {
            harness.arm_recv(index);
        }
    }
    let answer = pattern(1000);
    let mut sent = 0;
    let mut sends = 0;
    while sent < answer.len() {
        harness.send(1, &answer[sent..]);
        sends += 1;
        harness.run_until("sent", |harness| harness.seen[&1].sends_in_flight == 0);
        sent += harness.seen.get_mut(&1).unwrap().sends.pop().unwrap().unwrap();
    }
    for seen in harness.seen.values() {
        assert!(seen.received == pattern(LENGTH));
    }
    let received: Vec<Vec<u8>> =
        peers.iter().map(|&peer| harness.driver.peer_received(peer)).collect();
    assert_eq!(received.iter().filter(|it| **it == answer).count(), 1);
    finish(harness);
    (steps, sends)
}

#[test]
fn delivers_every_byte_in_order_under_every_fault() {
    let runs: Vec<_> = (0..50).map(converse).collect();
    assert!(runs.iter().any(|(_, sends)| *sends > 1), "no short send");
}

#[test]
fn one_seed_is_one_run() {
    assert_eq!(converse(7), converse(7));
    assert_ne!(converse(7).0, converse(8).0);
}

#[test]
fn time_passes_only_when_told() {
    let mut harness = calm();
    let before_ns = harness.driver.now_ns();
    harness.driver.wait(Some(before_ns + 500)).unwrap();
    assert_eq!(harness.driver.now_ns(), before_ns);
    assert!(harness.driver.advance_to_deadline());
    assert_eq!(harness.driver.now_ns(), before_ns + 500);
    harness.driver.advance_ns(7);
    assert_eq!(harness.driver.now_ns(), before_ns + 507);
}

#[test]
fn answers_connects_as_told() {
    let mut harness = calm();
    let up: SocketAddr = "198.51.100.1:2855".parse().unwrap();
    let down: SocketAddr = "198.51.100.2:2855".parse().unwrap();
    let silent: SocketAddr = "198.51.100.3:2855".parse().unwrap();
    harness.driver.answer_connects(up, ConnectAnswer::Accept);
    harness.driver.answer_connects(silent, ConnectAnswer::Silence);
    let indices = [up, down, silent].map(|address| harness.connect(address));
    harness.turn(Duration::ZERO);
    let connected = |harness: &Harness<Simulator>| indices.map(|it| harness.seen[&it].connected);
    let refused = Some(Err(Errno(libc::ECONNREFUSED)));
    assert_eq!(connected(&harness), [Some(Ok(())), refused, None]);
    let peer = harness.driver.next_connected().unwrap();
    assert_eq!(harness.driver.peer_address(peer), up);
    assert!(harness.driver.is_idle());
    harness.driver.cancel(token(Operation::Connect, indices[2]));
    harness.turn(Duration::ZERO);
    let cancelled = Some(Err(Errno(libc::ECANCELED)));
    assert_eq!(connected(&harness)[2], cancelled);
    finish(harness);
}

#[test]
fn a_peer_that_stops_reading_holds_sends_up() {
    let mut harness = calm();
    let address = harness.listen();
    let peer = harness.driver.peer_connect(address);
    harness.turn(Duration::ZERO);
    harness.driver.peer_limit_window(peer, 100);
    harness.send(1, &pattern(300));
    harness.turn(Duration::ZERO);
    assert!(harness.seen[&1].sends_in_flight > 0);
    assert!(harness.driver.is_idle());
    assert_eq!(harness.driver.peer_received(peer), pattern(300)[..100]);
    harness.driver.peer_resume_reading(peer);
    harness.turn(Duration::ZERO);
    assert_eq!(harness.seen[&1].sends, [Ok(300)]);
    assert_eq!(harness.driver.peer_received(peer), pattern(300)[100..]);
    finish(harness);
}

#[test]
fn a_reset_reaches_recv_and_send() {
    let mut harness = calm();
    let address = harness.listen();
    let peer = harness.driver.peer_connect(address);
    harness.turn(Duration::ZERO);
    harness.driver.peer_stop_reading(peer);
    harness.send(1, b"stuck");
    harness.turn(Duration::ZERO);
    harness.driver.peer_reset(peer);
    harness.turn(Duration::ZERO);
    let seen = &harness.seen[&1];
    assert_eq!(seen.recv_error, Some(Errno(libc::ECONNRESET)));
    assert!(matches!(seen.sends[..], [Err(_)]));
    finish(harness);
}

#[test]
fn a_close_ends_the_stream_after_its_bytes() {
    let mut harness = calm();
    let address = harness.listen();
    let peer = harness.driver.peer_connect(address);
    harness.driver.peer_send(peer, b"bye");
    harness.driver.peer_close(peer);
    harness.run_until("end", |harness| harness.seen.get(&1).is_some_and(|seen| seen.eof));
    assert_eq!(harness.seen[&1].received, b"bye");
    harness.close(1);
    harness.run_until("closed", |harness| harness.seen[&1].closed);
    assert!(harness.driver.peer_saw_end(peer));
    assert!(!harness.driver.peer_was_reset(peer));
    finish(harness);
}

#[test]
fn runs_out_of_receive_buffers() {
    let config =
        SimulatorConfig { faults: Faults::NONE, recv_buffer_count: 1, recv_buffer_size_bytes: 10 };
    let mut harness = Harness::new(Simulator::with_config(0, config));
    let address = harness.listen();
    let peer = harness.driver.peer_connect(address);
    harness.driver.peer_send(peer, &pattern(25));
    harness.run_until("dry", |harness| harness.seen.get(&1).is_some_and(|seen| !seen.recv_armed));
    assert_eq!(harness.seen[&1].out_of_buffers, 1);
    assert_eq!(harness.seen[&1].received, pattern(25)[..10]);
    finish(harness);
}

#[test]
#[should_panic(expected = "close while reading")]
fn refuses_to_close_before_the_recv_has_ended() {
    let mut harness = calm();
    let address = harness.listen();
    harness.driver.peer_connect(address);
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    harness.close(1);
}

#[test]
#[should_panic(expected = "one token for all sends")]
fn refuses_a_second_token_for_a_send() {
    let mut harness = calm();
    let address = harness.listen();
    harness.driver.peer_connect(address);
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    harness.send(1, b"one");
    harness.sockets.insert(2, harness.sockets[&1]);
    harness.seen.insert(2, Seen::default());
    harness.send(2, b"two");
}

#[test]
fn sends_what_is_started_together_in_order_however_short_the_counts() {
    for seed in 0..200 {
        let mut harness = Harness::new(Simulator::new(seed));
        harness.resend = true;
        let address = harness.listen();
        let peer = harness.driver.peer_connect(address);
        harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
        let bytes = pattern(2_000);
        let (first, second) = bytes.split_at(1_300);
        for piece in first.chunks(100) {
            harness.send(1, piece);
        }
        harness.turn(Duration::ZERO);
        for piece in second.chunks(300) {
            harness.send(1, piece);
        }
        harness.run_until("all is sent", |harness| harness.seen[&1].sends_in_flight == 0);
        assert!(harness.driver.peer_received(peer) == bytes, "seed {seed}");
        finish(harness);
    }
}

#[test]
fn a_reset_is_seen_by_the_peer_and_ends_what_waits() {
    for seed in 0..20 {
        let mut harness = Harness::new(Simulator::new(seed));
        let address = harness.listen();
        let peer = harness.driver.peer_connect(address);
        harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
        harness.driver.peer_stop_reading(peer);
        harness.send(1, b"it will never arrive");
        harness.driver.reset(harness.sockets[&1]);
        harness.run_until("both end", |harness| {
            let seen = &harness.seen[&1];
            seen.sends_in_flight == 0 && !seen.recv_armed
        });
        assert!(harness.driver.peer_was_reset(peer));
        assert!(harness.driver.peer_received(peer).is_empty());
        finish(harness);
    }
}
