//! Almost right: what a peer's bug or a fuzzer would send at the media port, from strangers and
//! from members. Whoever sends it may be cut off; nobody else notices.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mrfp_protocol::tls::{Handshake, Profile, ProfileConfig, Psk};
use support::msrp::Paths;
use support::node::Node;
use support::random::Random;
use support::sip::{Call, Transport};
use support::ue::Ue;
use support::wire::Wire;

/// What a stranger's bytes are made from.
fn client_hello(identity: &str) -> Vec<u8> {
    let profile = Profile::new(&ProfileConfig::default()).expect("the default");
    let psk = Psk::new(vec![7; 16]).expect("long enough");
    let mut handshake = Handshake::client(&profile, identity.as_bytes(), &psk).expect("short");
    let mut hello = Vec::new();
    handshake.advance(&[], &mut hello).expect("begins");
    hello
}

/// Sends bytes in a few pieces, with looks at what comes back between them.
fn pour(stream: &mut TcpStream, random: &mut Random, bytes: &[u8]) {
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(1 + random.below(rest.len()));
        rest = others;
        // It may be closed by now.
        if stream.write_all(piece).is_err() {
            return;
        }
        let _ = stream.read(&mut [0; 4096]);
    }
}

#[test]
fn strangers_who_send_almost_tls_or_almost_msrp_disturb_nobody() {
    let node = Node::start(&[("timers", "unbound_seconds = 2")]);
    let mut alice = Ue::join(&node, "calm", "alice", true);
    let mut bob = Ue::join(&node, "calm", "bob", false);
    // Terminations that await their owners.
    let carol = Call::place(&node, Transport::Tcp, "calm", "carol", false);
    let dave = Call::place(&node, Transport::Tcp, "calm", "dave", true);
    let hello = client_hello(&dave.credential.as_ref().expect("secure").identity);
    let mut random = Random(0x5eed_0003);
    for index in 0..600 {
        let mut stream = TcpStream::connect(node.media).expect("connects");
        let bytes = match index % 4 {
            0 => [random.mutated(&hello), random.mutated(&hello)].concat(),
            1 => {
                let length = random.below(40_000);
                [hello.clone(), random.bytes(length)].concat()
            }
            2 => {
                let length = random.below(40_000);
                [&[0x16, 3, 3], random.bytes(length).as_slice()].concat()
            }
            _ => {
                let to = format!("msrp://{}/{};tcp", node.media, "q".repeat(20));
                let stray = Paths { to, from: carol.paths.from.clone() };
                random.mutated(&stray.send(&format!("stray{index}"), "stray"))
            }
        };
        pour(&mut stream, &mut random, &bytes);
        if index % 50 == 0 {
            alice.say("calm");
            assert_eq!(bob.hear(), "calm");
        }
    }
    let mut dave = Ue::connect(dave);
    dave.say("me at last");
    assert_eq!(bob.hear(), "me at last");
    assert_eq!(alice.hear(), "me at last");
    let mut carol = Ue::connect(carol);
    carol.say("me too");
    assert_eq!(bob.hear(), "me too");
    node.await_metric("mrf_connections", 4);
    node.await_metric("mrf_send_buffers_outstanding", 0);
    node.await_metric("mrf_carry_buffers_outstanding", 0);
}

#[test]
fn members_who_send_almost_msrp_disturb_nobody() {
    let node = Node::start(&[]);
    let mut alice = Ue::join(&node, "tea", "alice", true);
    let mut bob = Ue::join(&node, "tea", "bob", false);
    // In the room with the noise: what she is sent must be MSRP, whatever came in.
    let mut ears = Ue::join(&node, "biscuit", "ears", false);
    let mut mouth = Ue::join(&node, "biscuit", "mouth", true);
    let mut random = Random(0x5eed_0004);
    for index in 0..120 {
        let secure = index % 2 == 0;
        let Ue { mut call, mut wire, .. } = Ue::join(&node, "biscuit", "mallory", secure);
        let text = "biscuit ".repeat(random.below(900));
        let good = call.paths.send("good0001", &text);
        let bytes = [good.clone(), random.mutated(&good), random.mutated(&good)].concat();
        // It may be closed by now.
        let _ = wire.write_all(&bytes);
        drop(wire);
        call.await_bye();
        let marker = format!("after {index}");
        mouth.say(&marker);
        while ears.hear_chunk().expect("well-formed").1 != marker {}
        if index % 20 == 0 {
            alice.say("tea");
            assert_eq!(bob.hear(), "tea");
        }
    }
    node.await_metric("mrf_connections", 4);
    node.await_metric("mrf_terminations", 4);
    node.await_metric("mrf_send_buffers_outstanding", 0);
    node.await_metric("mrf_carry_buffers_outstanding", 0);
}

#[test]
fn a_forged_record_ends_its_own_connection_and_call_only() {
    let node = Node::start(&[]);
    let mut alice = Ue::join(&node, "forged", "alice", true);
    let mut bob = Ue::join(&node, "forged", "bob", true);
    for kind in [20, 21, 22, 23, 24, 99] {
        let mut mallory = Ue::join(&node, "forged", "mallory", true);
        let forged = [&[kind, 3, 3, 0, 64], [0x5a; 64].as_slice()].concat();
        mallory.wire.write_around(&forged).expect("sends");
        mallory.call.await_bye();
        assert!(is_over(&mut mallory.wire));
    }
    alice.say("intact");
    assert_eq!(bob.hear(), "intact");
    node.await_metric("mrf_terminations", 2);
    node.await_metric("mrf_drops_protocol_violation", 6);
}

/// Whether nothing can be read any more: end of stream, fatal alert or reset.
fn is_over(wire: &mut Wire) -> bool {
    let mut bytes = Vec::new();
    matches!(wire.read(&mut bytes), Ok(0) | Err(_))
}
