//! MSRP traffic as the API and the metrics show it, per realm and per room.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::node::Node;
use support::program::wait_until;
use support::ue::Ue;

fn json(node: &Node, path: &str) -> Value {
    let answer = node.get(path);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a response");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn traffic_is_told_by_realm_and_room_for_the_lifetime_and_the_last_window() {
    let node = Node::start(&[
        ("http", "statistics_window_seconds = 1"),
        ("[realm]", "name = \"near\"\nnetworks = [\"127.0.0.0/8\"]"),
    ]);
    let mut alice = Ue::join(&node, "counted", "alice", false);
    let mut bob = Ue::join(&node, "counted", "bob", false);
    for text in ["one", "three"] {
        alice.say(text);
        assert_eq!(bob.hear(), text);
    }
    alice.say_bytes("application/im-iscomposing+xml", b"<isComposing/>");
    bob.hear();

    let room = json(&node, "/api/v1/rooms/counted/statistics");
    let of = |direction: &str| &room["lifetime"][direction];
    assert_eq!(of("received")["send"]["chat"], 2, "{room}");
    assert_eq!(of("received")["send"]["is_composing"], 1, "{room}");
    assert_eq!(of("sent")["send"]["chat"], 2, "{room}");
    let body_bytes = "one".len() + "three".len() + "<isComposing/>".len();
    assert_eq!(of("received")["body_bytes"], body_bytes, "{room}");
    assert!(of("sent")["responses"]["200"].as_u64().is_some_and(|count| count >= 3), "{room}");
    assert_eq!(room["lifetime"]["members_dropped"], 0);
    let missing = node.get("/api/v1/rooms/nowhere/statistics");
    assert!(missing.starts_with("HTTP/1.1 404 "), "{missing}");

    // The realms are published with the timers of the shard.
    let near = |node: &Node| {
        let all = json(node, "/api/v1/statistics");
        let realms = all["realms"].as_array().expect("a list").clone();
        realms.into_iter().find(|realm| realm["realm"] == "near").expect("configured")
    };
    let published = || near(&node)["lifetime"]["received"]["send"]["chat"] == 2;
    wait_until(published, || "the realm to be published".to_owned());
    let sample = "mrf_msrp_requests_total{realm=\"near\",direction=\"received\",kind=\"chat\"} 2";
    assert!(node.metrics().contains(sample), "{}", node.metrics());
    assert!(
        node.metrics()
            .contains("mrf_msrp_responses_total{realm=\"near\",direction=\"sent\",code=\"200\"}")
    );

    // Windows: what is said in one shows in it, and no longer in the one after the next.
    let heard = || {
        alice.say("again");
        bob.hear();
        std::thread::sleep(Duration::from_millis(100));
        let room = json(&node, "/api/v1/rooms/counted/statistics");
        let chat = |of: &Value| of["received"]["send"]["chat"].as_u64();
        chat(&room["window"]).is_some_and(|count| count > 0)
            && chat(&near(&node)["window"]).is_some_and(|count| count > 0)
    };
    wait_until(heard, || "a window with what was said".to_owned());
    let silence = || {
        std::thread::sleep(Duration::from_millis(100));
        let room = json(&node, "/api/v1/rooms/counted/statistics");
        room["window"]["received"]["send"]["chat"] == 0
            && near(&node)["window"]["received"]["send"]["chat"] == 0
    };
    wait_until(silence, || "a window of silence".to_owned());
}
