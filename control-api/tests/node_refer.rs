//! Calls of the focus, over real sockets: REFER brings others in and throws them out, and an INVITE
//! without an offer gets ours.

mod node_ue;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use control_api::config::Config;
use control_api::node::Node;
use node_ue::callee::{Callee, refer};
use node_ue::{
    Phone, assert_becomes_empty, authority, config, line, metric, plain_offer, status, stop,
};
use support::http::request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// An answer to the node's offer by whoever connects.
fn answer() -> &'static str {
    "v=0\r\no=- 2 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
     m=message 9 TCP/MSRP *\r\na=accept-types:message/cpim text/plain\r\na=setup:active\r\n\
     a=path:msrp://127.0.0.1:9/calleeSession1;tcp\r\n"
}

/// Binds the MSRP connection of a session that the node offered.
async fn connect(offer: &str) -> TcpStream {
    let mut media = TcpStream::connect(authority(offer)).await.expect("connects");
    let path = line(offer, "a=path:");
    let send = format!(
        "MSRP abcd1234 SEND\r\nTo-Path: {path}\r\n\
         From-Path: msrp://127.0.0.1:9/calleeSession1;tcp\r\nMessage-ID: 1\r\n-------abcd1234$\r\n"
    );
    media.write_all(send.as_bytes()).await.expect("sent");
    let mut buffer = [0; 1024];
    let length = media.read(&mut buffer).await.expect("answered");
    let response = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(response.starts_with("MSRP abcd1234 200"), "{response}");
    media
}

async fn start(adjust: impl FnOnce(&mut Config)) -> (Node, SocketAddr, SocketAddr) {
    let mut settings = config();
    adjust(&mut settings);
    let node = Node::start(settings).await.expect("starts");
    let (udp, http) = (node.addresses().sip_udp, node.addresses().http);
    (node, udp, http)
}

async fn member(node: SocketAddr) -> Phone {
    let mut phone = Phone::new(node).await;
    assert_eq!(status(&phone.invite(&plain_offer()).await), 200);
    phone
}

/// The next NOTIFY, answered: Subscription-State and body.
async fn notified(phone: &Phone) -> (String, String) {
    let notify = phone.receive("NOTIFY ").await;
    phone.accept(&notify).await;
    assert!(line(&notify, "Event:").starts_with("refer;id="), "{notify}");
    assert_eq!(line(&notify, "Content-Type:"), "message/sipfrag;version=2.0");
    let body = notify.split_once("\r\n\r\n").expect("a body").1.trim().to_owned();
    (line(&notify, "Subscription-State:").to_owned(), body)
}

async fn rooms(http: SocketAddr) -> String {
    request(http, "GET", "/api/v1/rooms").await.text()
}

#[tokio::test]
async fn a_member_brings_somebody_in_and_throws_him_out() {
    let (node, udp, http) = start(|_| {}).await;
    let mut alice = member(udp).await;
    let bob = Callee::new(udp).await;
    let accepted = refer(&mut alice, &format!("<{}>", bob.uri()), "").await;
    assert_eq!(status(&accepted), 202, "{accepted}");
    assert_eq!(notified(&alice).await, ("active;expires=180".into(), "SIP/2.0 100 Trying".into()));

    let invite = bob.receive("INVITE ").await;
    assert!(invite.starts_with(&format!("INVITE {} SIP/2.0\r\n", bob.uri())), "{invite}");
    assert!(line(&invite, "Contact:").ends_with(";isfocus"), "{invite}");
    assert!(line(&invite, "Contact:").starts_with("<sip:lobby@"), "{invite}");
    assert_eq!(line(&invite, "Referred-By:"), "<sip:alice@example.com>");
    let offer = invite.split_once("\r\n\r\n").expect("an offer").1;
    assert!(offer.contains("a=setup:actpass\r\n") && offer.contains("a=chatroom"), "{offer}");
    assert!(rooms(http).await.contains("\"state\":\"calling\""));
    bob.respond(&invite, "180 Ringing", "").await;
    assert_eq!(notified(&alice).await.1, "SIP/2.0 180 Ringing");
    bob.respond(&invite, "200 OK", answer()).await;
    let ack = bob.receive("ACK ").await;
    assert_eq!(line(&ack, "CSeq:"), "1 ACK");
    assert!(line(&ack, "To:").ends_with(";tag=callee"), "{ack}");
    assert_eq!(
        notified(&alice).await,
        ("terminated;reason=noresource".into(), "SIP/2.0 200 OK".into())
    );
    // A 200 that comes again asks for another ACK (RFC 3261 section 13.2.2.4).
    bob.respond(&invite, "200 OK", answer()).await;
    assert_eq!(bob.receive("ACK ").await, ack);
    let media = connect(offer).await;
    while !rooms(http).await.contains("\"state\":\"connected\"") {
        sleep(Duration::from_millis(5)).await;
    }

    let target = format!("<{};method=BYE>", bob.uri());
    assert_eq!(status(&refer(&mut alice, &target, "").await), 202);
    assert_eq!(notified(&alice).await.1, "SIP/2.0 100 Trying");
    assert_eq!(
        notified(&alice).await,
        ("terminated;reason=noresource".into(), "SIP/2.0 200 OK".into())
    );
    let bye = bob.receive("BYE ").await;
    assert_eq!(line(&bye, "CSeq:"), "2 BYE");
    bob.respond(&bye, "200 OK", "").await;
    drop(media);
    assert_eq!(status(&alice.ask("BYE", b"").await), 200);
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn who_referred_learns_why_nobody_came() {
    let (node, udp, http) = start(|_| {}).await;
    let mut alice = member(udp).await;
    let bob = Callee::new(udp).await;
    for (refusal, fragment) in [
        ("486 Busy Here", "SIP/2.0 486 Busy Here"),
        ("302 Moved Temporarily", "SIP/2.0 302 Moved Temporarily"),
        ("603 Decline", "SIP/2.0 603 Decline"),
    ] {
        assert_eq!(status(&refer(&mut alice, &format!("<{}>", bob.uri()), "").await), 202);
        notified(&alice).await;
        let invite = bob.receive("INVITE ").await;
        bob.respond(&invite, refusal, "").await;
        bob.receive("ACK ").await;
        let expected = ("terminated;reason=noresource".to_owned(), fragment.to_owned());
        assert_eq!(notified(&alice).await, expected);
    }
    // Nobody can be reached by a name: this node asks no DNS.
    assert_eq!(status(&refer(&mut alice, "<sip:carol@nowhere.example>", "").await), 202);
    notified(&alice).await;
    assert_eq!(notified(&alice).await.1, "SIP/2.0 503 Service Unavailable");
    // An answer that makes no session: the dialog stands, and is ended.
    assert_eq!(status(&refer(&mut alice, &format!("<{}>", bob.uri()), "").await), 202);
    notified(&alice).await;
    let invite = bob.receive("INVITE ").await;
    bob.respond(&invite, "200 OK", "v=0\r\n").await;
    bob.receive("ACK ").await;
    assert_eq!(notified(&alice).await.1, "SIP/2.0 488 Not Acceptable Here");
    let bye = bob.receive("BYE ").await;
    bob.respond(&bye, "200 OK", "").await;
    assert_eq!(metric(http, "mrf_calls").await, 1);
    assert_eq!(status(&alice.ask("BYE", b"").await), 200);
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn a_call_nobody_wants_any_more_is_cancelled() {
    let (node, udp, http) = start(|_| {}).await;
    let mut alice = member(udp).await;
    let bob = Callee::new(udp).await;
    let silent = "Refer-Sub: false\r\nRequire: norefersub\r\n";
    let accepted = refer(&mut alice, &format!("<{}>", bob.uri()), silent).await;
    assert_eq!((status(&accepted), line(&accepted, "Refer-Sub:")), (202, "false"));
    let invite = bob.receive("INVITE ").await;
    bob.respond(&invite, "180 Ringing", "").await;
    // It rings already.
    let again = refer(&mut alice, &format!("<{}>", bob.uri()), "").await;
    assert_eq!(status(&again), 486, "{again}");
    let shown: serde_json::Value = serde_json::from_str(&rooms(http).await).expect("JSON");
    let members = shown["rooms"][0]["members"].as_array().expect("members").iter();
    let called =
        members.map(|m| (m["state"].clone(), m["call"].clone())).find(|m| m.0 == "calling");
    let path = format!("/api/v1/rooms/lobby/members/{}/kick", called.expect("bob").1);
    assert_eq!(request(http, "POST", &path).await.status, 204);
    let cancel = bob.receive("CANCEL ").await;
    assert_eq!(line(&cancel, "Via:"), line(&invite, "Via:"));
    bob.respond(&cancel, "200 OK", "").await;
    bob.respond(&invite, "487 Request Terminated", "").await;
    bob.receive("ACK ").await;
    assert_eq!(status(&alice.ask("BYE", b"").await), 200);
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn a_refer_that_may_not_or_cannot_be_is_refused() {
    let (node, udp, http) = start(|_| {}).await;
    let mut alice = member(udp).await;
    for (refer_to, expected) in [
        (format!("<sip:lobby@{udp}>"), 482),
        ("<tel:+4930123456>".to_owned(), 416),
        ("<sip:bob@192.0.2.1;method=SUBSCRIBE>".to_owned(), 501),
        ("<sip:bob@192.0.2.1;method=BYE>".to_owned(), 404),
        ("<sip:a@192.0.2.1>\r\nRefer-To: <sip:b@192.0.2.1>".to_owned(), 400),
    ] {
        let answer = refer(&mut alice, &refer_to, "").await;
        assert_eq!(status(&answer), expected, "{refer_to}: {answer}");
    }
    let mut eve = Phone::new(udp).await;
    eve.from = "sip:eve@example.com".to_owned();
    assert_eq!(status(&refer(&mut eve, "<sip:bob@192.0.2.1>", "").await), 403);
    eve.to = format!("sip:nowhere@{udp}");
    assert_eq!(status(&refer(&mut eve, "<sip:bob@192.0.2.1>", "").await), 404);
    assert_eq!(status(&alice.ask("BYE", b"").await), 200);
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn only_operators_refer_where_the_policy_says_so() {
    let (node, udp, http) = start(|settings| {
        settings.conference.referrers = control_api::config::Referrers::Operators;
        settings.conference.operators = vec!["sip:alice@EXAMPLE.com".to_owned()];
    })
    .await;
    let mut alice = member(udp).await;
    let mut bob = Phone::new(udp).await;
    bob.from = "sip:bob@example.com".to_owned();
    assert_eq!(status(&bob.invite(&plain_offer()).await), 200);
    let alice_out = "<sip:alice@example.com;method=BYE>";
    assert_eq!(status(&refer(&mut bob, alice_out, "").await), 403);
    let bob_out = "<sip:bob@example.com;method=BYE>";
    assert_eq!(status(&refer(&mut alice, bob_out, "Refer-Sub: false\r\n").await), 202);
    let bye = bob.receive("BYE ").await;
    bob.accept(&bye).await;
    assert_eq!(status(&alice.ask("BYE", b"").await), 200);
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn an_invite_without_an_offer_gets_ours() {
    let (node, udp, http) = start(|_| {}).await;
    let mut phone = Phone::new(udp).await;
    phone.send("INVITE", b"").await;
    let ok = phone.answer().await;
    assert_eq!(status(&ok), 200, "{ok}");
    let offer = ok.split_once("\r\n\r\n").expect("an offer").1.to_owned();
    phone.to_tag = format!(";{}", line(&ok, "To:").split_once(">;").expect("a tag").1);
    phone.send("ACK", answer().as_bytes()).await;
    while !rooms(http).await.contains("\"state\":\"answered\"") {
        sleep(Duration::from_millis(5)).await;
    }
    let media = connect(&offer).await;
    while !rooms(http).await.contains("\"state\":\"connected\"") {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    drop(media);

    // An ACK without an answer leaves nothing to do but to end it.
    let mut mute = Phone::new(udp).await;
    mute.send("INVITE", b"").await;
    let ok = mute.answer().await;
    mute.to_tag = format!(";{}", line(&ok, "To:").split_once(">;").expect("a tag").1);
    mute.send("ACK", b"").await;
    let bye = mute.receive("BYE ").await;
    assert!(line(&bye, "Reason:").contains("cause=488"), "{bye}");
    mute.accept(&bye).await;
    assert_becomes_empty(http).await;
    stop(node).await;
}
