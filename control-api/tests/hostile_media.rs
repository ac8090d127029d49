//! Hostile and broken peers at the media port: they get nothing, the others notice nothing.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::node::Node;
use support::program::{PATIENCE, skip, wait_until};
use support::ue::Ue;

const MIB: u64 = 1024 * 1024;

/// Sends as much as is taken, then waits until the node has closed the connection.
fn until_closed(node: &Node, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.media).expect("connects");
    // A kernel whose socket is closed with a full window takes no more and says no more.
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    // It may be closed before everything is sent: that is the point.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "not closed"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Two members who talk, and go on to.
struct Witnesses {
    alice: Ue,
    bob: Ue,
    said: u32,
}

impl Witnesses {
    fn join(node: &Node) -> Self {
        let alice = Ue::join(node, "witnesses", "alice", true);
        let bob = Ue::join(node, "witnesses", "bob", false);
        Self { alice, bob, said: 0 }
    }

    fn chat(&mut self) {
        self.said += 1;
        let text = format!("message {}", self.said);
        self.alice.say(&text);
        assert_eq!(self.bob.hear(), text);
        self.bob.say(&text);
        assert_eq!(self.alice.hear(), text);
    }
}

#[test]
fn garbage_at_the_media_port_is_cut_off_and_costs_no_memory() {
    let node = Node::start(&[("timers", "unbound_seconds = 2")]);
    let mut witnesses = Witnesses::join(&node);
    witnesses.chat();
    let before = node.resident_bytes();
    let long_line = [b"MSRP tid1 SEND\r\nTo-Path: ", vec![b'x'; 16 << 20].as_slice()].concat();
    // A whole record cannot follow: the length is more than TLS allows.
    let record_too_long = [&[0x16, 3, 1, 0xff, 0xff], vec![0; 70_000].as_slice()].concat();
    let garbage: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff; 100_000],
        &[0; 1],
        &long_line,
        &record_too_long,
        // A handshake record that says 512 bytes and breaks off: ended by the timer.
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        // A record of the right shape that holds no handshake.
        &[0x16, 3, 1, 0, 4, 0xff, 0xff, 0xff, 0xff],
        b"MSRP \r\n\r\n\r\n",
    ];
    for (index, bytes) in garbage.iter().enumerate() {
        let answer = until_closed(&node, bytes);
        assert!(!answer.contains(" 200 "), "{index}: {answer}");
        witnesses.chat();
    }
    let growth = node.resident_bytes().saturating_sub(before);
    assert!(growth < 8 * MIB, "grew by {growth} bytes");
    node.await_metric("mrf_connections", 2);
    node.await_metric("mrf_carry_buffers_outstanding", 0);
    node.await_metric("mrf_send_buffers_outstanding", 0);
}

#[test]
fn a_member_that_stops_reading_is_dropped_and_the_others_get_everything() {
    let node = Node::start(&[]);
    let mut talker = Ue::join(&node, "lively", "talker", false);
    let mut slow = Ue::join(&node, "lively", "slow", false);
    let mut others =
        [Ue::join(&node, "lively", "one", false), Ue::join(&node, "lively", "two", true)];
    // The kernel takes some megabytes for the slow one before the node has to keep any.
    let text = "0123456789abcdef".repeat(4096);
    let mut said = 0;
    while node.metric("mrf_drops_slow_member") == 0 {
        assert!(said < 2000, "never dropped");
        talker.say(&text);
        said += 1;
        for other in &mut others {
            let mut length = 0;
            let total = other
                .hear_pieces(&mut |at, piece| {
                    assert!(text.as_bytes()[at as usize..].starts_with(piece));
                    length += piece.len();
                })
                .expect("a message");
            assert_eq!(total as usize, text.len());
            assert_eq!(length, text.len());
        }
    }
    let bye = slow.call.await_bye();
    assert!(bye.contains("\r\nReason: "), "{bye}");
    assert_eq!(node.metric("mrf_drops_slow_member"), 1);
    node.await_metric("mrf_terminations", 3);
    talker.say("without him");
    for other in &mut others {
        assert_eq!(other.hear(), "without him");
    }
    node.await_metric("mrf_send_buffers_outstanding", 0);
    node.await_metric("mrf_carry_buffers_outstanding", 0);
}

#[test]
fn a_connection_reset_in_the_middle_of_a_message_ends_it_with_a_hash() {
    let node = Node::start(&[]);
    for secure in [false, true] {
        let mut breaker = Ue::join(&node, "broken", "breaker", secure);
        let mut others =
            [Ue::join(&node, "broken", "one", false), Ue::join(&node, "broken", "two", true)];
        let begun =
            breaker.call.paths.send_head("half0001", Some(1_000_000)) + &"half ".repeat(999);
        breaker.wire.write_all(begun.as_bytes()).expect("sends");
        node.await_metric("mrf_terminations", 3);
        wait_until(|| node.metric("mrf_messages_sent") >= 2, || "it to be passed on".to_owned());
        let Ue { wire, mut call, .. } = breaker;
        wire.reset();
        for other in &mut others {
            let (mut text, mut flag) = (String::new(), b'+');
            while flag == b'+' {
                let (head, body) = other.hear_chunk().expect("the rest");
                assert_eq!(head.range_start(), text.len() as u64 + 1);
                text.push_str(&body);
                flag = head.flag;
            }
            assert_eq!(flag, b'#');
            assert!(begun.ends_with(&text), "not what was sent");
        }
        call.await_bye();
        let [one, two] = &mut others;
        one.say("what was that?");
        assert_eq!(two.hear(), "what was that?");
        others.iter_mut().for_each(|other| other.call.hang_up());
        node.await_empty();
    }
}

#[test]
fn the_node_may_open_as_many_descriptors_as_it_is_allowed_to() {
    let node = Node::start(&[]);
    let (soft, hard) = node.descriptor_limits();
    assert_eq!(soft, hard);
}

const SILENT: usize = 5000;

#[test]
fn five_thousand_connections_that_never_say_a_word_are_closed_by_the_timer() {
    // Ours and, as the hard limit is inherited, the node's.
    let limit = mrfp_io::raise_descriptor_limit().expect("permitted");
    if limit < SILENT as u64 + 200 {
        return skip(&format!(
            "only {limit} descriptors are permitted, raise the limit: ulimit -Hn"
        ));
    }
    let node = Node::start(&[("timers", "unbound_seconds = 3")]);
    let mut witnesses = Witnesses::join(&node);
    let mut silent = Vec::new();
    for index in 0..SILENT {
        silent.push(TcpStream::connect(node.media).expect("connects"));
        if index % 250 == 0 {
            witnesses.chat();
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.metric("mrf_connections_unbound_timeout") < SILENT as u64 {
        assert!(Instant::now() < deadline, "not closed:\n{}", node.metrics());
        witnesses.chat();
    }
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        match stream.read(&mut [0; 1]) {
            Ok(length) => assert_eq!(length, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    node.await_metric("mrf_connections", 2);
    assert_eq!(node.metric("mrf_connections_unbound_timeout"), SILENT as u64);
    assert_eq!(node.metric("mrf_connections_accepted"), SILENT as u64 + 2);
    assert_eq!(node.metric("mrf_connections_refused"), 0);
    witnesses.chat();
}
