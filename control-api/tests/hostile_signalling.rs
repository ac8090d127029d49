//! Noise where calls come in.

mod support;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use support::node::Node;
use support::random::Random;
use support::sip::Transport;
use support::ue::Ue;

const DATAGRAMS: usize = 3000;

const INVITE: &[u8] = b"INVITE sip:room@127.0.0.1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKnoise\r\nMax-Forwards: 70\r\n\
    From: <sip:noise@ue.example>;tag=n\r\nTo: <sip:room@127.0.0.1>\r\n\
    Call-ID: noise\r\nCSeq: 1 INVITE\r\nContact: <sip:noise@127.0.0.1:9>\r\n\
    Content-Type: application/sdp\r\nContent-Length: 12\r\n\r\nv=0\r\no=- 1 1\r\n";

/// Noise of three kinds: bytes, a torn INVITE, an INVITE with some bytes changed.
fn datagram(random: &mut Random, index: usize) -> Vec<u8> {
    match index % 3 {
        0 => {
            let length = random.below(1400);
            random.bytes(length)
        }
        1 => INVITE[..random.below(INVITE.len())].to_vec(),
        _ => random.mutated(INVITE),
    }
}

#[test]
fn calls_work_after_three_thousand_random_datagrams() {
    let node = Node::start(&[]);
    let mut random = Random(0x5eed_0001);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.connect(node.sip_udp).expect("connects");
    for index in 0..DATAGRAMS {
        socket.send(&datagram(&mut random, index)).expect("sends");
        if index % 100 == 0 {
            // So that the noise arrives instead of overflowing the socket's buffer.
            node.metric("mrf_sip_messages");
        }
    }
    // What got through the gate was refused, abandoned or never acknowledged; none stays.
    let mut alice = Ue::join_over(&node, Transport::Udp, "after", "alice", false);
    let mut bob = Ue::join_over(&node, Transport::Udp, "after", "bob", true);
    alice.say("still here");
    assert_eq!(bob.hear(), "still here");
    bob.say("so am I");
    assert_eq!(alice.hear(), "so am I");
    let refused = node.metric("mrf_sip_refused") + node.metric("mrf_sip_dropped");
    assert!(refused > DATAGRAMS as u64 / 3, "only {refused} were seen as noise");
    alice.call.hang_up();
    bob.call.hang_up();
    node.await_metric("mrf_terminations", 0);
    node.await_metric("mrf_contexts", 0);
}

#[test]
fn calls_work_after_hundreds_of_broken_streams_over_tcp() {
    let node = Node::start(&[]);
    let mut random = Random(0x5eed_0002);
    for index in 0..300 {
        let mut stream = TcpStream::connect(node.sip_tcp).expect("connects");
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
        for _ in 0..3 {
            // It may be closed by now.
            let _ = stream.write_all(&datagram(&mut random, index));
            let _ = stream.read(&mut [0; 2048]);
        }
    }
    let mut alice = Ue::join(&node, "after", "alice", false);
    let mut bob = Ue::join(&node, "after", "bob", true);
    alice.say("still here");
    assert_eq!(bob.hear(), "still here");
    alice.call.hang_up();
    bob.call.hang_up();
    node.await_metric("mrf_terminations", 0);
}
