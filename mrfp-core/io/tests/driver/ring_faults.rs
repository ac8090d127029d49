//! The ring: what goes wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mrfp_io::{Completion, Driver, Errno, Operation, Ring, RingConfig};

use crate::harness::{Harness, Seen, token};
use crate::ring::{finish, pattern, run_rearming, small_config, small_ring};

/// A peer that resets on drop instead of closing in peace.
fn reset(peer: TcpStream) {
    let peer = socket2::Socket::from(peer);
    peer.set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn runs_out_of_receive_buffers_and_recovers() {
    let config = RingConfig { recv_buffer_count: 2, recv_buffer_size_bytes: 64, ..small_config() };
    let mut harness = Harness::new(Ring::new(config).unwrap());
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    let sent = pattern(5000);
    peer.write_all(&sent).unwrap();
    run_rearming(&mut harness, "all bytes arrive", |harness| {
        let seen = harness.seen.get(&1);
        seen.is_some_and(|seen| seen.received.len() == 5000)
    });
    assert!(harness.seen[&1].received == sent);
    assert!(harness.seen[&1].out_of_buffers > 0);
    finish(harness);
}

#[test]
fn reports_a_reset_to_recv_and_send() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(b"begin").unwrap();
    harness.run_until("begun", |harness| {
        let seen = harness.seen.get(&1);
        seen.is_some_and(|seen| seen.received == b"begin")
    });
    // More than the socket buffers hold: in flight when the reset comes.
    harness.send(1, &pattern(4 << 20));
    harness.turn(Duration::ZERO);
    harness.turn(Duration::ZERO);
    assert!(harness.seen[&1].sends_in_flight > 0);
    reset(peer);
    harness.run_until("both end", |harness| {
        let seen = &harness.seen[&1];
        !seen.recv_armed && seen.sends_in_flight == 0
    });
    let seen = &harness.seen[&1];
    assert!(seen.eof || seen.recv_error == Some(Errno(libc::ECONNRESET)));
    // Short or failed, never whole.
    assert_ne!(seen.sends, [Ok(4 << 20)]);
    finish(harness);
}

#[test]
fn a_reset_cuts_what_was_started_together_at_one_place() {
    const LENGTH: usize = 1 << 20;
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(b"begin").unwrap();
    harness.run_until("begun", |harness| {
        let seen = harness.seen.get(&1);
        seen.is_some_and(|seen| seen.received == b"begin")
    });
    for _ in 0..12 {
        harness.send(1, &pattern(LENGTH));
    }
    harness.turn(Duration::ZERO);
    harness.turn(Duration::ZERO);
    assert_eq!(harness.seen[&1].sends_in_flight, 12);
    reset(peer);
    harness.run_until("all end", |harness| harness.seen[&1].sends_in_flight == 0);
    let sends = &harness.seen[&1].sends;
    let whole = sends.iter().take_while(|&&sent| sent == Ok(LENGTH)).count();
    assert!(whole < sends.len(), "the socket buffers do not hold it all");
    assert!(sends[whole + 1..].iter().all(|sent| matches!(sent, Ok(0) | Err(_))));
    finish(harness);
}

#[test]
fn loses_no_byte_when_a_recv_is_cancelled_and_armed_again() {
    const LENGTH: usize = 1 << 20;
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let bytes = pattern(LENGTH);
        for half in bytes.chunks(LENGTH / 2) {
            for piece in half.chunks(700) {
                peer.write_all(piece).unwrap();
            }
            may_go_on.recv().unwrap();
        }
        peer
    });
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    while harness.seen[&1].received.len() < LENGTH {
        let silent = harness.seen[&1].received.len() == LENGTH / 2;
        harness.driver.cancel(token(Operation::Recv, 1));
        harness.run_until("recv ends", |harness| !harness.seen[&1].recv_armed);
        let error = harness.seen.get_mut(&1).unwrap().recv_error.take();
        if silent {
            assert_eq!(error, Some(Errno(libc::ECANCELED)));
            go_on.send(()).unwrap();
        }
        let before = harness.seen[&1].received.len();
        harness.arm_recv(1);
        if before == LENGTH / 2 && !silent {
            continue;
        }
        harness.run_until("more arrives", |harness| {
            let seen = &harness.seen[&1];
            seen.received.len() > before || !seen.recv_armed || before == LENGTH
        });
        if !harness.seen[&1].recv_armed {
            harness.arm_recv(1);
        }
    }
    go_on.send(()).unwrap();
    assert!(harness.seen[&1].received == pattern(LENGTH));
    drop(writer.join().unwrap());
    finish(harness);
}

#[test]
fn pausing_holds_the_peer_back() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    harness.driver.cancel(token(Operation::Recv, 1));
    harness.run_until("paused", |harness| !harness.seen[&1].recv_armed);
    peer.write_all(b"later").unwrap();
    harness.turn(Duration::from_millis(20));
    assert!(harness.seen[&1].received.is_empty());
    harness.arm_recv(1);
    harness.run_until("resumed", |harness| harness.seen[&1].received == b"later");
    finish(harness);
}

#[test]
fn ends_under_load_with_every_buffer_back() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peers = Vec::new();
    for _ in 0..20 {
        peers.push(TcpStream::connect(address).unwrap());
    }
    harness.run_until("accepted", |harness| harness.seen.len() == 20);
    for index in 1..=20 {
        harness.send(index, &pattern(1 << 20));
    }
    let writers: Vec<_> = peers
        .into_iter()
        .map(|mut peer| {
            peer.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let mut answer = [0; 100];
                while peer.write_all(&pattern(900)).is_ok()
                    && matches!(peer.read(&mut answer), Ok(1..))
                {}
            })
        })
        .collect();
    run_rearming(&mut harness, "bytes flow", |harness| {
        harness.seen.values().all(|seen| seen.received.len() > 2000)
    });
    // Shuts everything down with sends and recvs in flight, and counts.
    finish(harness);
    for writer in writers {
        writer.join().unwrap();
    }
}

/// A listener whose backlog is full: the kernel drops further SYNs, no connect gets an answer.
fn silent_listener() -> (socket2::Socket, TcpStream, SocketAddr) {
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&crate::harness::loopback().into()).unwrap();
    silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let fill = TcpStream::connect(address).unwrap();
    (silent, fill, address)
}

#[test]
fn ends_a_connect_that_gets_no_answer() {
    let mut harness = small_ring();
    let (_silent, _fill, address) = silent_listener();
    let cancelled = harness.connect(address);
    let shut = harness.connect(address);
    harness.turn(Duration::from_millis(20));
    assert_eq!(harness.seen[&cancelled].connected, None);
    harness.driver.cancel(token(Operation::Connect, cancelled));
    harness.driver.shutdown(harness.sockets[&shut]);
    harness.run_until("both end", |harness| {
        let ended = |index| harness.seen[index].connected == Some(Err(Errno(libc::ECANCELED)));
        [cancelled, shut].iter().all(ended)
    });
    finish(harness);
}

#[test]
fn a_listener_ends_by_shutdown() {
    let mut harness = small_ring();
    let address = harness.listen();
    harness.driver.shutdown(harness.sockets[&0]);
    harness.run_until("accept ends", |harness| harness.accepts_ended == 1);
    harness.close(0);
    harness.run_until("closed", |harness| harness.sockets.is_empty());
    assert!(TcpStream::connect(address).is_err());
    finish(harness);
}

#[test]
fn drops_with_operations_in_flight() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peers: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    harness.run_until("accepted", |harness| harness.seen.len() == 10);
    for index in 1..=10 {
        harness.send(index, &pattern(4 << 20));
    }
    harness.turn(Duration::ZERO);
    for peer in &mut peers {
        peer.write_all(b"never read").unwrap();
    }
    // One that is accepted by the kernel and never delivered.
    let mut undelivered = TcpStream::connect(address).unwrap();
    drop(harness);
    for peer in &mut peers {
        // The descriptors are gone: what was sent, then the end or a reset.
        let mut bytes = Vec::new();
        let _ = peer.read_to_end(&mut bytes);
        assert!(bytes.len() < 4 << 20);
    }
    let _ = undelivered.read_to_end(&mut Vec::new());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn drops_with_unsubmitted_operations() {
    let mut harness = small_ring();
    let address = harness.listen();
    let _peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    harness.send(1, b"queued only");
    drop(harness);
}

#[test]
#[should_panic(expected = "one token for all sends")]
fn refuses_a_second_token_for_a_send() {
    let mut harness = small_ring();
    let address = harness.listen();
    let _peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    harness.send(1, b"one");
    harness.sockets.insert(2, harness.sockets[&1]);
    harness.seen.insert(2, Seen::default());
    harness.send(2, b"two");
}

#[test]
#[should_panic(expected = "stale socket")]
fn refuses_a_socket_whose_slot_has_a_new_tenant() {
    let mut harness = small_ring();
    let address = harness.listen();
    let peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    drop(peer);
    harness.run_until("end", |harness| harness.seen[&1].eof);
    let stale = harness.sockets[&1];
    harness.close(1);
    harness.run_until("closed", |harness| harness.seen[&1].closed);
    let _peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&2));
    harness.driver.shutdown(stale);
}

#[test]
#[should_panic(expected = "release before wait")]
fn refuses_a_receive_buffer_that_outlives_its_turn() {
    let mut harness = small_ring();
    let address = harness.listen();
    let mut peer = TcpStream::connect(address).unwrap();
    harness.run_until("accepted", |harness| harness.seen.contains_key(&1));
    peer.write_all(b"kept").unwrap();
    loop {
        harness.driver.wait(None).unwrap();
        let completion = harness.driver.next_completion();
        if matches!(completion, Some(Completion::Recv { .. })) {
            harness.driver.wait(None).unwrap();
        }
    }
}
