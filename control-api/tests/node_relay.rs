//! The relay of a whole node, over real sockets and TLS with certificates.

mod relay_world;
mod support;

use std::net::TcpListener;

use mrfp_protocol::tls::Handshake;
use relay_world::{
    ALICE, Paths, Peer, World, authenticate, chunk, local, paths, port_of, request, response, send,
};
use support::node::Node;
use support::wire::Wire;

/// A client of a relay, and a peer the relay connects to: in the clear or with TLS.
struct Pair {
    node: Node,
    alice: Peer,
    bob: Peer,
    /// From alice to bob and back.
    there: Paths,
    back: Paths,
}

impl Pair {
    fn new(world: &World, secure: bool) -> Self {
        let node = world.relay("localhost");
        let mut alice = world.connect(node.relay.expect("on"), "localhost");
        let through = authenticate(&mut alice, "localhost", &["msrps://localhost;tcp"]).remove(0);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let scheme = if secure { "msrps" } else { "msrp" };
        let bob_uri = format!("{scheme}://localhost:{port}/bob;tcp");
        let there = paths(&[&through, &bob_uri], ALICE);
        let back = paths(&[&through, ALICE], &bob_uri);
        alice.write(send("first1", &there, b"hello"));
        let (stream, _) = listener.accept().expect("the relay connects");
        let profile = world.profile("localhost");
        let handshake = secure.then(|| Handshake::server(&profile).expect("a certificate"));
        let mut bob = Peer::new(Wire::accept(stream, handshake).expect("secured"));
        assert_eq!(bob.next_send().body, b"hello");
        assert_eq!(alice.next().start, "200");
        Self { node, alice, bob, there, back }
    }

    /// Sends and has the answer.
    fn sent(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.alice.write(bytes);
        self.alice.next().start
    }
}

fn body(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn the_cases_relays_fail_on_pass_in_the_clear_and_with_tls() {
    let world = World::new();
    for secure in [false, true] {
        let mut pair = Pair::new(&world, secure);
        // Byte by byte.
        for byte in send("bytes1", &pair.there, b"byte by byte") {
            pair.alice.write([byte]);
        }
        assert_eq!(pair.bob.next_send().body, b"byte by byte");
        assert_eq!(pair.alice.next().start, "200");
        // Fifty frames in one write.
        let all: Vec<u8> =
            (0..50).flat_map(|n| send(&format!("tr{n:04}"), &pair.there, b"of fifty")).collect();
        pair.alice.write(all);
        for n in 0..50 {
            assert_eq!(pair.bob.next_send().header("Message-ID"), Some(&*format!("tr{n:04}")));
            assert_eq!(pair.alice.next().start, "200");
        }
        // What looks like an end-line.
        let text = b"-------look1$x\r\n-------look2$\r\n-------\r\n-------look1";
        assert_eq!(pair.sent(send("look1", &pair.there, text)), "200");
        assert_eq!(pair.bob.next_send().body, text);
        // No body.
        let headers = "Message-ID: none1\r\nByte-Range: 1-0/0\r\n";
        let empty = request("none1", "SEND", &pair.there.to, ALICE, headers);
        assert_eq!(pair.sent(empty), "200");
        assert_eq!(pair.bob.next_send().header("Byte-Range"), Some("1-0/0"));
        // A chunk and its continuation; an abort.
        for (range, flag) in [("1-5/10", '+'), ("6-10/10", '$'), ("1-*/10", '#')] {
            assert_eq!(pair.sent(chunk("part1", &pair.there, range, b"hello", flag)), "200");
            assert_eq!(pair.bob.next_send().flag, flag);
        }
        // Silence where it is asked for: the next answer is to the next request.
        let quiet = Paths { headers: "Failure-Report: no\r\n", ..paths(&[&pair.there.to], ALICE) };
        pair.alice.write(send("quiet1", &quiet, b"hush"));
        assert_eq!(pair.bob.next_send().body, b"hush");
        // An unknown session.
        let wrong = paths(&[&pair.there.to.replacen(";tcp", "x;tcp", 1)], ALICE);
        pair.alice.write(send("wrong1", &wrong, b"?"));
        let answer = pair.alice.next();
        assert_eq!((answer.start.as_str(), answer.transaction.as_str()), ("481", "wrong1"));
        // An unknown method: the far end says so.
        pair.alice.write(request("dance1", "DANCE", &pair.there.to, ALICE, ""));
        let dance = pair.bob.next();
        assert_eq!(dance.start, "DANCE");
        pair.bob.write(response(&dance, "501 Unknown Method"));
        let answer = pair.alice.next();
        assert_eq!((answer.start.as_str(), answer.transaction.as_str()), ("501", "dance1"));
        // A large text, and something binary.
        for length in [64 * 1024, 1024 * 1024] {
            let body = body(length);
            pair.alice.write(send("large1", &pair.there, &body));
            assert!(pair.bob.next_body() == body);
            assert_eq!(pair.alice.next().start, "200");
        }
        // The other way.
        let bytes = send("back1", &pair.back, b"and back");
        pair.bob.write(bytes);
        assert_eq!(pair.alice.next_send().body, b"and back");
        assert_eq!(pair.bob.next().start, "200");
        // The peer goes without an answer.
        pair.alice.write(send("gone1", &pair.there, b"are you there?"));
        assert_eq!(pair.alice.next().start, "200");
        pair.bob.next();
        drop(pair.bob);
        let report = pair.alice.next();
        assert_eq!((report.start.as_str(), report.header("Message-ID")), ("REPORT", Some("gone1")));
        assert_eq!(report.header("Status"), Some("000 408 Timeout"));
        assert_eq!(report.header("Byte-Range"), Some("1-14/14"));
    }
}

#[test]
fn a_hundred_mebibytes_pass_byte_by_byte_and_leave_no_trace_in_memory() {
    let world = World::new();
    for secure in [false, true] {
        let mut pair = Pair::new(&world, secure);
        // The receive ring goes round once: 16 MiB that are there from the start and are touched now.
        for _ in 0..3 {
            let Pair { alice, bob, there, .. } = &mut pair;
            let bytes = send("warm1", there, &body(8 * 1024 * 1024));
            std::thread::scope(|scope| {
                scope.spawn(|| alice.write(bytes));
                bob.next_body();
            });
            assert_eq!(pair.alice.next().start, "200");
        }
        let before = pair.node.resident_bytes();
        let expected = body(100 * 1024 * 1024);
        let bytes = send("large1", &pair.there, &expected);
        let mut alice = pair.alice;
        let writer = std::thread::spawn(move || {
            alice.write(bytes);
            alice.next().start
        });
        let mut received = Vec::with_capacity(expected.len());
        while received.len() < expected.len() {
            let part = pair.bob.next_send();
            let range = part.header("Byte-Range").expect("one");
            assert!(range.starts_with(&format!("{}-", received.len() + 1)), "{range}");
            received.extend_from_slice(&part.body);
        }
        assert!(received == expected);
        assert_eq!(writer.join().expect("no panic"), "200");
        let grown = pair.node.resident_bytes().saturating_sub(before);
        assert!(grown <= 4 * 1024 * 1024, "{grown} bytes more");
    }
}

#[test]
fn a_peer_whose_certificate_is_for_another_name_gets_nothing_and_the_sender_a_report() {
    let world = World::new();
    let node = world.relay("localhost");
    let mut alice = world.connect(node.relay.expect("on"), "localhost");
    let through = authenticate(&mut alice, "localhost", &["msrps://localhost;tcp"]).remove(0);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let uri = format!("msrps://localhost:{port}/bob;tcp");
    alice.write(send("wrong1", &paths(&[&through, &uri], ALICE), b"secret"));
    let (stream, _) = listener.accept().expect("the relay connects");
    let handshake = Handshake::server(&world.profile("elsewhere.invalid")).expect("a certificate");
    assert!(Wire::accept(stream, Some(handshake)).is_err());
    assert_eq!(alice.next().start, "200");
    let report = alice.next();
    assert_eq!(report.start, "REPORT");
    assert_eq!(report.header("Status"), Some("000 408 Timeout"));
}

#[test]
fn two_relays_that_prove_themselves_carry_a_session_both_ways() {
    let world = World::new();
    let (near, far) = (world.relay("localhost"), world.relay("127.0.0.1"));
    let mut alice = world.connect(near.relay.expect("on"), "localhost");
    let through_near = authenticate(&mut alice, "localhost", &["msrps://localhost;tcp"]).remove(0);
    let far_relay = format!("msrps://{};tcp", far.relay.expect("on"));
    let path = authenticate(&mut alice, "127.0.0.1", &[&through_near, &far_relay]);
    assert_eq!(path[0], through_near);
    let through_far = path[1].clone();
    // Outwards: over another connection between the two than the AUTH.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let bob_uri = format!("msrp://127.0.0.1:{port}/bob;tcp");
    let there = paths(&[&through_near, &through_far, &bob_uri], ALICE);
    alice.write(send("out001", &there, b"through two"));
    assert_eq!(alice.next().start, "200");
    let (stream, _) = listener.accept().expect("the far relay connects");
    let mut bob = Peer::new(Wire::accept(stream, None).expect("in the clear"));
    let received = bob.next_send();
    assert_eq!(received.body, b"through two");
    assert_eq!(received.from, format!("{through_far} {through_near} {ALICE}"));
    // Back, and a report.
    let back = paths(&[&through_far, &through_near, ALICE], &bob_uri);
    bob.write(send("back01", &back, b"and back"));
    let answer = alice.next_send();
    assert_eq!(answer.body, b"and back");
    assert_eq!(answer.from, format!("{through_near} {through_far} {bob_uri}"));
    assert_eq!(bob.next().start, "200");
    let headers = "Message-ID: out001\r\nByte-Range: 1-11/11\r\nStatus: 000 200 OK\r\n";
    bob.write(request("rep01", "REPORT", &received.from, &bob_uri, headers));
    let report = alice.next();
    assert_eq!(report.start, "REPORT");
    assert_eq!(report.from, format!("{through_near} {through_far} {bob_uri}"));
    near.await_metric("mrf_relay_registrations", 1);
    far.await_metric("mrf_relay_registrations", 1);
}

#[test]
fn nobody_authenticates_in_the_clear_and_whoever_knows_the_uri_needs_tls_for_it() {
    let world = World::new();
    let node = world.relay("localhost");
    let address = node.relay.expect("on");
    let mut plain = Peer::new(Wire::connect(address, None).expect("connected"));
    plain.write(request("auth1", "AUTH", "msrps://localhost;tcp", ALICE, ""));
    assert_eq!(plain.next().start, "403");
    let mut alice = world.connect(address, "localhost");
    let through = authenticate(&mut alice, "localhost", &["msrps://localhost;tcp"]).remove(0);
    let own_port = local(port_of(&through));
    let peer_uri = "msrps://peer.invalid:1/peer;tcp";
    let to_alice = paths(&[&through, ALICE], peer_uri);
    let mut plain = Peer::new(Wire::connect(own_port, None).expect("connected"));
    plain.write(send("plain1", &to_alice, b"hello"));
    assert_eq!(plain.next().start, "403");
    // Over TLS to the port the URI names, and the answer the same way.
    let mut peer = world.connect(own_port, "localhost");
    peer.write(send("tls001", &to_alice, b"hello"));
    assert_eq!(peer.next().start, "200");
    assert_eq!(alice.next_send().body, b"hello");
    alice.write(send("answer1", &paths(&[&through, peer_uri], ALICE), b"hello yourself"));
    assert_eq!(alice.next().start, "200");
    assert_eq!(peer.next_send().body, b"hello yourself");
    node.await_metric("mrf_relay_registrations", 1);
    drop(alice);
    node.await_metric("mrf_relay_registrations", 0);
    peer.write(send("late01", &to_alice, b"still there?"));
    assert_eq!(peer.next().start, "481");
}
