//! The node as TLS client: it connects to a UE whose TLS server is OpenSSL's.

mod support;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use support::node::Node;
use support::program::{Program, find, wait_until};
use support::sip::Call;
use support::ue::Ue;

const SUITES: [&str; 3] =
    ["ECDHE-PSK-CHACHA20-POLY1305", "PSK-AES128-GCM-SHA256", "PSK-AES256-GCM-SHA384"];

/// Starts the server, which must be told its key: that is known only when the node has connected.
fn s_server(openssl: &Path, identity: &str, key: &str, suite: &str) -> (Program, SocketAddr) {
    let mut command = Command::new(openssl);
    command.args(["s_server", "-accept", "127.0.0.1:0", "-nocert", "-tls1_2", "-naccept", "1"]);
    command.args(["-psk_identity", identity, "-psk", key, "-cipher", suite]);
    let program = Program::start(&mut command);
    let address = || {
        let output = program.output();
        output.lines().find_map(|line| line.strip_prefix("ACCEPT ")?.trim().parse().ok())
    };
    wait_until(|| address().is_some(), || format!("its address: {}", program.output()));
    let address = address().expect("just seen");
    (program, address)
}

/// Joins two connections.
fn relay(one: TcpStream, other: TcpStream) {
    for (mut from, mut to) in
        [(one.try_clone().expect("cloned"), other.try_clone().expect("cloned")), (other, one)]
    {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

#[test]
fn the_node_connects_to_openssl_s_server_and_chats() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let node = Node::start(&[]);
    let mut bob = Ue::join(&node, "called", "bob", false);
    for suite in SUITES {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let listen = listener.local_addr().expect("bound");
        let mut call = Call::place_listening(&node, "called", "alice", true, listen);
        assert!(call.answer.peer_is_active);
        let (from_node, _) = listener.accept().expect("the node connects");
        let credential = call.credential.clone().expect("secure");
        let (mut alice, address) =
            s_server(&openssl, &credential.identity, &credential.hex(), suite);
        relay(from_node, TcpStream::connect(address).expect("connects"));
        // RFC 4975 section 5.4: whoever connected sends the first SEND.
        alice.await_output(" SEND\r\n");
        assert!(alice.output().contains(&format!("To-Path: {}\r\n", call.paths.from)));
        alice.write(&call.paths.send("called01", "hello from the server side\n"));
        alice.await_output("MSRP called01 200 OK\r\n");
        assert_eq!(bob.hear(), "hello from the server side\n", "{suite}");
        bob.say("hello from here\n");
        alice.await_output("\r\n\r\nhello from here\n\r\n-------");
        assert!(!alice.output().contains("PSK warning"), "another identity: {}", alice.output());
        call.hang_up();
        node.await_metric("mrf_terminations", 1);
    }
}

#[test]
fn the_node_hangs_up_on_an_openssl_s_server_with_another_key() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let node = Node::start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let listen = listener.local_addr().expect("bound");
    let mut call = Call::place_listening(&node, "called", "alice", true, listen);
    let (from_node, _) = listener.accept().expect("the node connects");
    let identity = call.credential.clone().expect("secure").identity;
    let other_key = "000102030405060708090a0b0c0d0e0f";
    let (_server, address) = s_server(&openssl, &identity, other_key, SUITES[1]);
    relay(from_node, TcpStream::connect(address).expect("connects"));
    let bye = call.await_bye();
    assert!(bye.contains("\r\nReason: "), "{bye}");
    node.await_empty();
}
