//! Calls through a whole node, over real sockets: what they go through, and that nothing stays
//! behind, however they end.

mod node_ue;
mod support;

use std::net::Ipv6Addr;
use std::time::Duration;

use control_api::config::{Creation, Plain};
use control_api::mikey::{Initiator, Parameters, TicketProtectionKey};
use control_api::node::Node;
use node_ue::{
    Phone, Protected, TICKET_KEY, assert_becomes_empty, authority, binding_send, config, config_on,
    line, metric, now, plain_offer, protected_offer, status, stop, transfer_init,
};
use support::http::request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

#[tokio::test]
async fn a_protected_call_goes_from_ticket_to_message() {
    let mut config = config();
    config.security.plain = Plain::Refuse;
    let node = Node::start(config).await.expect("starts");
    let http = node.addresses().http;
    let mut phone = Phone::new(node.addresses().sip_udp).await;
    let (initiator, init) = transfer_init(&phone.from, &phone.to, TICKET_KEY);

    let answer = phone.invite(&protected_offer(&init)).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("\r\nm=message "), "{answer}");
    let response = line(&answer, "a=key-mgmt:mikey ");
    let response = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, response);
    let keys = initiator.finish(&response.expect("base64"), now()).expect("TRANSFER_RESP");
    let identity = keys.psk_identity.as_bytes();
    let mut media = Protected::connect(authority(&answer), identity, &keys.psk).await;
    media.send(&binding_send(&answer)).await;
    media.receive("MSRP abcd1234 200").await;
    let shown = request(http, "GET", "/api/v1/contexts").await.text();
    assert!(shown.contains("\"security\":\"tls-psk\""), "{shown}");
    // The shard publishes its counters every 50 ms.
    while metric(http, "mrf_handshakes_completed_total").await != 1 {
        sleep(Duration::from_millis(10)).await;
    }

    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    drop(media);
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn a_refused_key_exchange_gets_488_and_leaves_nothing() {
    let mut config = config();
    config.sip.domains = vec!["conference.example".to_owned()];
    let node = Node::start(config).await.expect("starts");
    let http = node.addresses().http;
    let sip = node.addresses().sip_udp;
    let alice = "sip:alice@example.com";
    let lobby = "sip:lobby@conference.example".to_owned();
    let (_, good) = transfer_init(alice, &lobby, TICKET_KEY);
    let (_, other_key) = transfer_init(alice, &lobby, b"not the key it is");
    let (_, other_room) = transfer_init(alice, "sip:kitchen@elsewhere.example", TICKET_KEY);
    let mut damaged = good.clone();
    *damaged.last_mut().expect("a MAC") ^= 1;
    let cases: [(&str, Vec<u8>); 5] = [
        ("no MIKEY", b"not MIKEY".to_vec()),
        ("cut", good[..good.len() / 2].to_vec()),
        ("damaged", damaged),
        ("key the KMS does not have", other_key[..].to_vec()),
        ("ticket for another domain", other_room),
    ];
    for (case, transfer_init) in cases {
        let mut phone = Phone::new(sip).await;
        phone.to = lobby.clone();
        let answer = phone.invite(&protected_offer(&transfer_init)).await;
        assert_eq!(status(&answer), 488, "{case}: {answer}");
        assert!(line(&answer, "Warning: ").starts_with("3"), "{case}: {answer}");
    }
    assert_becomes_empty(http).await;
    assert_eq!(metric(http, "mrf_terminations_subtracted_total").await, 0);

    // Nothing of it stands in the way of a good one; the same one again is a replay.
    for expected in [200, 488] {
        let mut phone = Phone::new(sip).await;
        phone.to = lobby.clone();
        let answer = phone.invite(&protected_offer(&good)).await;
        assert_eq!(status(&answer), expected, "{answer}");
        if expected == 200 {
            assert_eq!(status(&phone.ask("BYE", b"").await), 200);
        }
    }
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn two_callers_that_chose_the_same_identity_both_come_in() {
    let node = Node::start(config()).await.expect("starts");
    let (sip, http) = (node.addresses().sip_udp, node.addresses().http);
    let key = TicketProtectionKey {
        identity: b"development-tpk".to_vec(),
        key: TICKET_KEY.to_vec().into(),
    };
    let mut calls = Vec::new();
    for name in ["alice", "bob"] {
        let mut phone = Phone::new(sip).await;
        phone.from = format!("sip:{name}@example.com");
        // Nothing is random here, so that both choose the same CSB ID.
        let (initiator, init) = Initiator::with_own_ticket(
            &Parameters::default(),
            &phone.from,
            &phone.to,
            "sip:kms@localhost",
            &key,
            now(),
            &mut |bytes| bytes.fill(0x11),
        )
        .expect("a message");
        assert_eq!(initiator.psk_identity(), "11111111.1");
        let answer = phone.invite(&protected_offer(&init)).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let response = line(&answer, "a=key-mgmt:mikey ");
        let response = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, response);
        let keys = initiator.finish(&response.expect("base64"), now()).expect("TRANSFER_RESP");
        calls.push((phone, answer, keys));
    }
    assert_ne!(authority(&calls[0].1), authority(&calls[1].1), "a port tells them apart");
    for (phone, answer, keys) in &mut calls {
        let identity = keys.psk_identity.as_bytes();
        let mut media = Protected::connect(authority(answer), identity, &keys.psk).await;
        media.send(&binding_send(answer)).await;
        media.receive("MSRP abcd1234 200").await;
        assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    }
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn hold_keeps_the_session() {
    let node = Node::start(config()).await.expect("starts");
    let http = node.addresses().http;
    let mut phone = Phone::new(node.addresses().sip_udp).await;
    let answer = phone.invite(&plain_offer()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let mut media = TcpStream::connect(authority(&answer)).await.expect("connects");
    media.write_all(binding_send(&answer).as_bytes()).await.expect("sent");
    let mut buffer = vec![0; 4096];
    assert_ne!(media.read(&mut buffer).await.expect("received"), 0);

    let offer = String::from_utf8(plain_offer()).expect("text");
    for (direction, answered) in [("sendonly", "recvonly"), ("sendrecv", "sendrecv")] {
        let changed = offer.replace("a=setup:active", &format!("a=setup:active\r\na={direction}"));
        let response = phone.ask("INVITE", changed.as_bytes()).await;
        assert_eq!(status(&response), 200, "{response}");
        assert!(response.contains(&format!("\r\na={answered}\r\n")), "{response}");
        assert_eq!(line(&response, "a=path:"), line(&answer, "a=path:"));
        phone.send("ACK", b"").await;
    }
    assert_eq!(status(&phone.ask("OPTIONS", b"").await), 200);
    let shown = request(http, "GET", "/api/v1/contexts").await.text();
    assert!(shown.contains("\"state\":\"connected\""), "{shown}");
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn a_caller_that_vanishes_is_given_up() {
    let mut config = config();
    config.timers.establishment_seconds = 1;
    let node = Node::start(config).await.expect("starts");
    let http = node.addresses().http;
    // Neither ACK nor media.
    let phone = Phone::new(node.addresses().sip_udp).await;
    phone.send("INVITE", &plain_offer()).await;
    assert_eq!(status(&phone.answer().await), 200);
    while metric(http, "mrf_terminations").await != 0 || metric(http, "mrf_calls").await != 0 {
        sleep(Duration::from_millis(50)).await;
    }
    // The BYE waits for the ACK (RFC 3261 section 15), but not when the node stops.
    let stopping = tokio::spawn(stop(node));
    let bye = phone.receive("BYE ").await;
    phone.accept(&bye).await;
    stopping.await.expect("stops");
}

#[tokio::test]
async fn cancel_at_once_leaves_nothing() {
    let node = Node::start(config()).await.expect("starts");
    let http = node.addresses().http;
    for _ in 0..20 {
        let mut phone = Phone::new(node.addresses().sip_udp).await;
        phone.send("INVITE", &plain_offer()).await;
        phone.send("CANCEL", b"").await;
        let mut answer = phone.answer().await;
        while !line(&answer, "CSeq: ").ends_with("INVITE") {
            answer = phone.answer().await;
        }
        match status(&answer) {
            487 => {}
            // The answer was faster.
            200 => {
                phone.to_tag = line(&answer, "To: ").split_once('>').expect("a tag").1.to_owned();
                phone.send("ACK", b"").await;
                assert_eq!(status(&phone.ask("BYE", b"").await), 200);
            }
            other => panic!("{other}: {answer}"),
        }
    }
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let mut config = config();
    config.rooms.creation = Creation::Closed;
    config.rooms.list = vec!["lobby".to_owned()];
    config.rooms.members_max = 2;
    config.limits.calls_per_user_max = 2;
    let node = Node::start(config).await.expect("starts");
    let (http, sip) = (node.addresses().http, node.addresses().sip_udp);

    let mut stranger = Phone::new(sip).await;
    stranger.to = format!("sip:kitchen@{sip}");
    assert_eq!(status(&stranger.invite(&plain_offer()).await), 404);
    let mut audio = Phone::new(sip).await;
    let offer = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                  m=audio 9 RTP/AVP 0\r\n";
    let answer = audio.invite(offer).await;
    assert_eq!(status(&answer), 488, "{answer}");
    assert!(answer.contains("\r\nWarning: 3"), "{answer}");
    let text = Phone::new(sip).await;
    let message = String::from_utf8(text.message("INVITE", b"hello")).expect("text");
    let message = message.replace("application/sdp", "text/plain");
    text.socket.send_to(message.as_bytes(), sip).await.expect("sent");
    let answer = text.answer().await;
    assert_eq!(status(&answer), 415, "{answer}");
    assert!(answer.contains("\r\nAccept: application/sdp, "), "{answer}");
    assert_becomes_empty(http).await;

    let mut phones = Vec::new();
    for (user, expected) in [("alice", 200), ("bob", 200), ("carol", 486)] {
        let mut phone = Phone::new(sip).await;
        phone.from = format!("sip:{user}@example.com");
        let answer = phone.invite(&plain_offer()).await;
        assert_eq!(status(&answer), expected, "{answer}");
        phones.push(phone);
    }
    for phone in &mut phones[..2] {
        assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    }
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn calls_over_ipv6() {
    let config = config_on(Ipv6Addr::LOCALHOST.into());
    let node = Node::start(config).await.expect("starts");
    let mut phone = Phone::new(node.addresses().sip_udp).await;
    let offer = String::from_utf8(plain_offer()).expect("text");
    let offer = offer.replace("IP4 127.0.0.1", "IP6 ::1").replace("127.0.0.1", "[::1]");
    let answer = phone.invite(offer.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("\r\nc=IN IP6 ::1\r\n"), "{answer}");
    assert!(line(&answer, "Contact: ").starts_with("<sip:lobby@[::1]:"), "{answer}");
    let mut media = TcpStream::connect(authority(&answer)).await.expect("connects");
    let bind = binding_send(&answer).replace("127.0.0.1", "[::1]");
    media.write_all(bind.as_bytes()).await.expect("sent");
    let mut buffer = vec![0; 4096];
    let length = media.read(&mut buffer).await.expect("received");
    assert!(buffer[..length].starts_with(b"MSRP abcd1234 200"));
    let stopping = tokio::spawn(stop(node));
    let bye = phone.receive("BYE ").await;
    phone.accept(&bye).await;
    stopping.await.expect("stops");
}
