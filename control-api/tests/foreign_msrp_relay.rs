//! MSRP libraries that others wrote, as clients of our relay and as peers of its clients.

mod foreign;
mod relay_world;
mod support;

use std::net::SocketAddr;

use foreign::{Client, Library, MSRPLIB};
use relay_world::{Peer, World, local, port_of, request};
use support::node::Node;
use support::random::Random;
use support::wire::Wire;

const LARGE_BYTES: usize = 1 << 20;

/// In the clear, where msrp-node-lib takes no names.
const HOST: &str = "127.0.0.1";

/// A client of the relay in the clear: digest with MD5, without `uri`, and it wants an `opaque`.
fn behind(relay: SocketAddr) -> Client {
    let port = relay.port().to_string();
    let arguments = [HOST, &port, "tcp", HOST, "alice", "secret"];
    Client::start(MSRPLIB, &arguments)
}

/// The same over TLS; it looks at the certificate.
fn secured(world: &World, relay: SocketAddr, password: &str) -> Client {
    let port = relay.port().to_string();
    let authority = world.directory.path().join("localhost-authority.pem");
    let authority = authority.to_str().expect("text");
    let arguments = ["localhost", &port, "tls", "localhost", "alice", password, authority];
    Client::launch(MSRPLIB, &arguments)
}

/// A relay that hands out URIs in the clear, as most libraries know no TLS.
fn plain_relay(world: &World) -> (Node, SocketAddr) {
    let node = world.relay_with(HOST, "allow_plain_auth = true");
    let address = node.relay.expect("on");
    (node, address)
}

#[test]
fn msrplib_authenticates_over_tls_and_talks_through_the_relay_to_itself() {
    if !MSRPLIB.is_present() {
        return;
    }
    let world = World::new();
    let node = world.relay("localhost");
    let relay = node.relay.expect("on");
    let (mut alice, mut bob) = (secured(&world, relay, "secret"), secured(&world, relay, "secret"));
    for client in [&mut alice, &mut bob] {
        client.path = client.next("path").join(" ");
    }
    bob.tell(&format!("accept {}", alice.path));
    alice.tell(&format!("connect {}", bob.path));
    alice.next("connected");
    bob.next("connected");
    let body = Random(4976).bytes(LARGE_BYTES);
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = [&mut alice, &mut bob];
        let id = ends[from].send_with_report("text/plain", "grüß dich".as_bytes());
        assert_eq!(ends[to].hear(), ("text/plain".to_owned(), "grüß dich".as_bytes().to_vec()));
        assert_eq!(ends[from].next("report"), [id.as_str(), "200"]);
        ends[from].await_ok(&id);
        let id = ends[from].send("application/octet-stream", &body);
        assert!(ends[to].hear().1 == body, "something else arrived");
        ends[from].await_ok(&id);
    }
    drop((alice, bob));
    node.await_metric("mrf_relay_registrations", 0);
}

#[test]
fn a_wrong_password_of_msrplib_is_refused() {
    if !MSRPLIB.is_present() {
        return;
    }
    let world = World::new();
    let node = world.relay("localhost");
    let mut client = secured(&world, node.relay.expect("on"), "guess");
    assert_eq!(client.next("refused"), ["401"]);
}

#[test]
fn every_library_reaches_a_client_of_the_relay() {
    if !MSRPLIB.is_present() {
        return;
    }
    for library in Library::present().into_iter().filter(|library| library.paths) {
        let world = World::new();
        let (_node, relay) = plain_relay(&world);
        let mut alice = behind(relay);
        let mut bob = Client::start(library, &[]);
        alice.tell(&format!("accept {}", bob.path));
        bob.tell(&format!("connect {}", alice.path));
        bob.next("connected");
        alice.next("connected");

        let id = bob.send_with_report("text/plain", b"hello to you");
        assert_eq!(alice.hear(), ("text/plain".to_owned(), b"hello to you".to_vec()));
        bob.await_ok(&id);
        if library.tells_reports {
            assert_eq!(bob.next("report"), [id.as_str(), "200"], "{}", library.name);
        }
        let id = alice.send("text/plain", b"and to you");
        assert_eq!(bob.hear(), ("text/plain".to_owned(), b"and to you".to_vec()));
        alice.await_ok(&id);

        let (content_type, body) = library.large_body(LARGE_BYTES);
        let id = bob.send(content_type, &body);
        assert!(alice.hear().1 == body, "{} sent something else", library.name);
        bob.await_ok(&id);
        let id = alice.send(content_type, &body);
        assert!(bob.hear().1 == body, "{} received something else", library.name);
        alice.await_ok(&id);
    }
}

#[test]
fn a_client_of_the_relay_learns_that_its_peer_is_gone() {
    if !MSRPLIB.is_present() {
        return;
    }
    let world = World::new();
    let (_node, relay) = plain_relay(&world);
    let mut alice = behind(relay);
    let own = "msrp://127.0.0.1:9/bob;tcp";
    let there = local(port_of(&alice.path));
    let mut bob = Peer::new(Wire::connect(there, None).expect("connects"));
    alice.tell(&format!("accept {own}"));
    let headers = "Message-ID: first001\r\nByte-Range: 1-0/0\r\n";
    bob.write(request("first001", "SEND", &alice.path, own, headers));
    alice.next("connected");
    assert_eq!(bob.next().start, "200");
    drop(bob);
    let id = alice.send("text/plain", b"are you there?");
    alice.await_ok(&id);
    let report = alice.next("report");
    assert_eq!(report[0], id);
    assert_ne!(report[1], "200");
}
