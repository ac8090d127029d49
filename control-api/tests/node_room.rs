//! What MSRP relays are known to fail on, through a chat room of a whole node: in the clear and with
//! TLS-PSK.

mod support;

use support::node::Node;
use support::ue::Ue;

/// Sends bytes as they are; the status of the answer to request `id`.
fn sent(ue: &mut Ue, id: &str, bytes: &[u8]) -> u16 {
    ue.wire.write_all(bytes).expect("sends");
    ue.await_status(id).expect("an answer")
}

fn body(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn the_cases_relays_fail_on_pass_through_a_room() {
    let node = Node::start(&[]);
    for secure in [false, true] {
        let mut alice = Ue::join(&node, "cases", "alice", secure);
        let mut bob = Ue::join(&node, "cases", "bob", secure);
        // Byte by byte.
        for byte in alice.call.paths.send("bytes1", "byte by byte") {
            alice.wire.write_all(&[byte]).expect("sends");
        }
        assert_eq!(alice.await_status("bytes1").expect("an answer"), 200);
        assert_eq!(bob.hear(), "byte by byte");
        // Fifty frames in one write.
        let id = |n: u32| format!("frame{n:03}");
        let text = |n: u32| format!("{n} of fifty");
        let all: Vec<u8> = (0..50).flat_map(|n| alice.call.paths.send(&id(n), &text(n))).collect();
        alice.wire.write_all(&all).expect("sends");
        for n in 0..50 {
            assert_eq!(alice.await_status(&id(n)).expect("an answer"), 200);
            assert_eq!(bob.hear(), text(n));
        }
        // What looks like an end-line.
        let look_alike = "-------look1$x\r\n-------look2$\r\n-------\r\n-------look1";
        let bytes = alice.call.paths.send("look1", look_alike);
        assert_eq!(sent(&mut alice, "look1", &bytes), 200);
        assert_eq!(bob.hear(), look_alike);
        // No body: it keeps the session alive and is for nobody else.
        let bytes = alice.call.paths.bind("none1");
        assert_eq!(sent(&mut alice, "none1", &bytes), 200);
        // A chunk and its continuation; then one that is given up.
        for (id, range) in [("part1", 0..5), ("part2", 5..10)] {
            let paths = &alice.call.paths;
            let chunk = paths.chunk(id, "parts1", "text/plain", range, b"helloworld");
            assert_eq!(sent(&mut alice, id, &chunk), 200);
        }
        let (first, second) = (bob.hear_chunk().expect("one"), bob.hear_chunk().expect("another"));
        assert_eq!((first.0.flag, first.1.as_str()), (b'+', "hello"));
        assert_eq!((second.0.flag, second.1.as_str()), (b'$', "world"));
        assert_eq!(second.0.range_start(), 6);
        assert_eq!(first.0.header("Message-ID"), second.0.header("Message-ID"));
        let head = alice.call.paths.send_head("abort1", None);
        let aborted = format!("{head}never mind\r\n-------abort1#\r\n");
        assert_eq!(sent(&mut alice, "abort1", aborted.as_bytes()), 200);
        assert_eq!(bob.hear_chunk().expect("a chunk").0.flag, b'#');
        // Silence where it is asked for: the next answer is to the next request.
        let quiet = String::from_utf8(alice.call.paths.send("quiet1", "hush")).expect("text");
        let quiet = quiet.replace("Content-Type", "Failure-Report: no\r\nContent-Type");
        alice.wire.write_all(quiet.as_bytes()).expect("sends");
        assert_eq!(bob.hear(), "hush");
        // An unknown session, an unknown method.
        let wrong = String::from_utf8(alice.call.paths.send("wrong1", "?")).expect("text");
        let wrong = wrong.replacen(";tcp", "x;tcp", 1);
        assert_eq!(sent(&mut alice, "wrong1", wrong.as_bytes()), 481);
        let dance = String::from_utf8(alice.call.paths.bind("dance1")).expect("text");
        let dance = dance.replacen(" SEND", " DANCE", 1);
        assert_eq!(sent(&mut alice, "dance1", dance.as_bytes()), 501);
        // A large text, and something binary.
        for length in [64 * 1024, 1024 * 1024] {
            let body = body(length);
            std::thread::scope(|scope| {
                scope.spawn(|| alice.say_bytes("application/octet-stream", &body));
                assert!(bob.hear_all(length) == body);
            });
        }
        // The peer goes without an answer.
        let bytes = alice.call.paths.send("gone1", "are you there?");
        assert_eq!(sent(&mut alice, "gone1", &bytes), 200);
        drop(bob);
        let report = alice.await_request("REPORT");
        assert_eq!(report.header("Message-ID"), Some("mgone1"), "{report:?}");
        assert_eq!(report.header("Status"), Some("000 408 Timeout"), "{report:?}");
        assert_eq!(report.header("Byte-Range"), Some("1-14/14"), "{report:?}");
        drop(alice);
        node.await_metric("mrf_connections", 0);
    }
}
