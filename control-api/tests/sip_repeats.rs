//! Requests that come again, too late, out of order or from somebody else: what a call makes of them
//! that has no transaction of the stack.

mod sip_ua;

use std::net::SocketAddr;
use std::time::Duration;

use control_api::mrfc::{Action, Answer, CallId, Event};
use control_api::sip::SipConfig;
use sip_ua::{Caller, Link, Node, OFFER, Received, SILENCE, config};
use tokio::net::UdpSocket;

const T1: Duration = Duration::from_millis(10);

/// 64 * T1 passes in 640 ms.
fn impatient() -> SipConfig {
    SipConfig { t1: T1, ..config() }
}

/// Nothing is repeated while a test runs.
fn patient() -> SipConfig {
    SipConfig { t1: Duration::from_secs(10), ..config() }
}

fn refuse(node: &Node, call: CallId) {
    let answer = Answer::Refused { status: 486, warning: None, retry_after: None };
    node.sip.act(Action::Answer { call, answer });
}

async fn request(link: &mut Link, method: &str) -> Received {
    loop {
        let message = link.receive().await;
        if message.method() == method {
            return message;
        }
    }
}

#[tokio::test]
async fn a_refusal_is_repeated_over_udp_until_its_ack() {
    let mut node = Node::start(impatient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "refused");
    caller.send("INVITE", "1", OFFER).await;
    let (call, _) = node.invited().await;
    refuse(&node, call);
    let first = caller.link.response(486).await;
    let second = caller.link.response(486).await;
    assert_eq!(first.head, second.head);
    caller.to_tag = Some(first.to_tag().to_owned());
    caller.send("ACK", "1", b"").await;
    // Those on their way first, then none: 300 ms would see several.
    while caller.link.receive_within(SILENCE).await.is_some() {}
    node.assert_no_event();
    assert_eq!(node.sip.metrics().invites.get(), 1);
    assert_eq!(node.sip.metrics().dialogs_active.get(), 0);
}

#[tokio::test]
async fn an_invite_that_was_refused_is_no_new_call() {
    for tcp in [false, true] {
        let mut node = Node::start(patient()).await;
        let link = if tcp { Link::tcp(&node).await } else { Link::udp(&node).await };
        let mut caller = Caller::new(link, "refused-again");
        caller.send("INVITE", "1", OFFER).await;
        let (call, _) = node.invited().await;
        refuse(&node, call);
        caller.link.response(486).await;
        caller.send("INVITE", "1", OFFER).await;
        // What is answered behind it has been read behind it.
        caller.cseq = 2;
        caller.send("OPTIONS", "2", b"").await;
        caller.link.response(200).await;
        node.assert_no_event();
        assert_eq!(node.sip.metrics().invites.get(), 1);
    }
}

#[tokio::test]
async fn a_repeated_cancel_gets_its_200_again() {
    for tcp in [false, true] {
        let mut node = Node::start(patient()).await;
        let link = if tcp { Link::tcp(&node).await } else { Link::udp(&node).await };
        let mut caller = Caller::new(link, "cancel-again");
        caller.send("INVITE", "1", OFFER).await;
        let (call, _) = node.invited().await;
        caller.send("CANCEL", "1", b"").await;
        let first = caller.link.response(200).await;
        let terminated = caller.link.response(487).await;
        assert_eq!(node.ended().await, call);
        caller.send("CANCEL", "1", b"").await;
        let second = caller.link.response(200).await;
        for ok in [&first, &second] {
            assert_eq!(ok.header("CSeq"), Some("1 CANCEL"));
            assert_eq!(ok.to_tag(), terminated.to_tag());
        }
        node.assert_no_event();
        assert_eq!(node.sip.metrics().cancels.get(), 1);
    }
}

#[tokio::test]
async fn another_method_with_the_branch_of_the_invite_is_another_request() {
    let mut node = Node::start(patient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "branch");
    caller.send("INVITE", "same", OFFER).await;
    let (call, _) = node.invited().await;
    caller.send("OPTIONS", "same", b"").await;
    let options = caller.link.response(200).await;
    assert_eq!(options.header("CSeq"), Some("1 OPTIONS"));
    node.accept(call);
    let ok = loop {
        let ok = caller.link.response(200).await;
        if ok.header("CSeq") == Some("1 INVITE") {
            break ok;
        }
    };
    caller.to_tag = Some(ok.to_tag().to_owned());
    caller.send("ACK", "same", b"").await;
    caller.cseq = 2;
    caller.send("BYE", "same", b"").await;
    assert_eq!(caller.link.response(200).await.header("CSeq"), Some("2 BYE"));
    assert_eq!(node.ended().await, call);
}

#[tokio::test]
async fn a_request_out_of_order_changes_nothing() {
    let mut node = Node::start(patient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "order");
    caller.cseq = 7;
    let call = caller.establish(&mut node).await;
    for (cseq, method, body) in
        [(7, "BYE", &b""[..]), (6, "BYE", b""), (6, "UPDATE", OFFER), (6, "INVITE", OFFER)]
    {
        caller.cseq = cseq;
        caller.send(method, &format!("{method}{cseq}"), body).await;
        let refused = caller.link.response(500).await;
        assert_eq!(refused.header("CSeq"), Some(format!("{cseq} {method}").as_str()));
    }
    caller.send("ACK", "INVITE6", b"").await;
    node.assert_no_event();
    assert_eq!(node.sip.metrics().dialogs_active.get(), 1);
    caller.cseq = 7;
    caller.hang_up(&mut node, call).await;
}

#[tokio::test]
async fn a_bye_before_the_ack_ends_the_call_and_its_repetitions() {
    let mut node = Node::start(impatient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "bye-early");
    caller.send("INVITE", "1", OFFER).await;
    let (call, _) = node.invited().await;
    node.accept(call);
    let ok = caller.link.response(200).await;
    caller.to_tag = Some(ok.to_tag().to_owned());
    caller.cseq = 2;
    caller.send("BYE", "bye", b"").await;
    assert_eq!(node.ended().await, call);
    while caller.link.response(200).await.header("CSeq") != Some("2 BYE") {}
    // The ACK that the BYE has overtaken.
    caller.cseq = 1;
    caller.send("ACK", "ack", b"").await;
    assert!(caller.link.receive_within(T1 * 64).await.is_none());
    node.assert_no_event();
    assert_eq!(node.sip.metrics().acks_missing.get(), 0);
}

#[tokio::test]
async fn byes_that_cross_end_the_call_once() {
    let mut node = Node::start(patient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "cross");
    let call = caller.establish(&mut node).await;
    node.sip.act(Action::HangUp { call, reason: "SIP;cause=200".to_owned() });
    let bye = request(&mut caller.link, "BYE").await;
    caller.cseq = 2;
    caller.send("BYE", "bye", b"").await;
    assert_eq!(caller.link.receive_final().await.status(), 481);
    caller.link.send(&bye.ok()).await;
    assert!(caller.link.receive_within(SILENCE).await.is_none());
    node.assert_no_event();
    assert_eq!(node.sip.metrics().dialogs_active.get(), 0);
}

#[tokio::test]
async fn a_change_that_waits_when_the_session_ends_is_answered() {
    let mut node = Node::start(SipConfig { min_se: Duration::from_secs(1), ..impatient() }).await;
    let mut caller = Caller::new(Link::udp(&node).await, "left-waiting");
    caller.extra = "Supported: timer\r\nSession-Expires: 3\r\n".to_owned();
    let call = caller.establish(&mut node).await;
    caller.cseq = 2;
    caller.send("INVITE", "change", OFFER).await;
    assert!(matches!(node.event().await, Event::Reinvite { .. }));
    assert_eq!(node.ended().await, call);
    let (mut refused, mut ended) = (false, false);
    while !(refused && ended) {
        let message = caller.link.receive().await;
        if message.method() == "BYE" {
            ended = true;
            caller.link.send(&message.ok()).await;
        } else if message.status() == 487 {
            assert_eq!(message.header("CSeq"), Some("2 INVITE"));
            refused = true;
        }
    }
}

#[tokio::test]
async fn a_repetition_from_elsewhere_is_answered_where_the_request_came_from() {
    let mut node = Node::start(patient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "spoofed");
    let invite = caller.request("INVITE", "1", OFFER);
    caller.link.send(&invite).await;
    let (call, _) = node.invited().await;
    let mut stranger = Link::udp(&node).await;
    for _ in 0..3 {
        stranger.send(&invite).await;
    }
    node.accept(call);
    caller.link.response(200).await;
    assert!(stranger.receive_within(SILENCE).await.is_none());
    node.assert_no_event();
}

#[tokio::test]
async fn responses_go_to_the_port_of_the_via_unless_it_asks_for_the_source() {
    let mut node = Node::start(patient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "no-rport");
    let Link::Udp(sender) = Link::udp(&node).await else { panic!("UDP") };
    let unasked =
        |request: Vec<u8>| String::from_utf8(request).unwrap().replace(";rport", "").into_bytes();
    sender.send(&unasked(caller.request("INVITE", "1", OFFER))).await.unwrap();
    let (call, _) = node.invited().await;
    node.accept(call);
    let ok = caller.link.response(200).await;
    caller.to_tag = Some(ok.to_tag().to_owned());
    sender.send(&unasked(caller.request("ACK", "2", b""))).await.unwrap();
    caller.cseq = 2;
    sender.send(&unasked(caller.request("BYE", "3", b""))).await.unwrap();
    let bye = caller.link.response(200).await;
    assert_eq!(node.ended().await, call);
    // What the stack answers goes the same way.
    caller.to_tag = None;
    caller.cseq = 3;
    sender.send(&unasked(caller.request("OPTIONS", "4", b""))).await.unwrap();
    let options = caller.link.response(200).await;
    caller.cseq = 4;
    sender.send(&unasked(caller.request("INVITE", "5", OFFER))).await.unwrap();
    let (call, _) = node.invited().await;
    refuse(&node, call);
    let refused = caller.link.response(486).await;
    for reply in [ok, bye, options, refused] {
        let via = reply.header("Via").unwrap();
        assert!(!via.contains("rport"), "{via}");
    }
}

#[tokio::test]
async fn calls_over_ipv6_hear_of_where_they_came_from() {
    let any: SocketAddr = "[::1]:0".parse().unwrap();
    let mut node = Node::start(SipConfig { udp: any, tcp: any, ..patient() }).await;
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(node.sip.udp_address()).await.unwrap();
    let local = socket.local_addr().unwrap();
    let mut caller = Caller::new(Link::Udp(socket), "ipv6");
    for (sent_by, differs) in [("[::1]:9", false), ("phone.example", true)] {
        let named = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(&format!("UDP {local};"), &format!("UDP {sent_by};")).into_bytes()
        };
        caller.cseq += 1;
        caller.to_tag = None;
        let invite = named(caller.request("INVITE", &format!("invite{differs}"), OFFER));
        caller.link.send(&invite).await;
        let (call, _) = node.invited().await;
        node.accept(call);
        let ok = caller.link.response(200).await;
        let via = ok.header("Via").unwrap().to_owned();
        assert!(via.contains(&format!("rport={}", local.port())), "{via}");
        assert!(via.contains(";received=::1"), "{via}");
        caller.to_tag = Some(ok.to_tag().to_owned());
        let ack = named(caller.request("ACK", "ack", b""));
        caller.link.send(&ack).await;
        caller.cseq += 1;
        let bye = named(caller.request("BYE", &format!("bye{differs}"), b""));
        caller.link.send(&bye).await;
        let mut answer = caller.link.response(200).await;
        while answer.header("CSeq").is_none_or(|cseq| !cseq.ends_with("BYE")) {
            answer = caller.link.response(200).await;
        }
        assert_eq!(node.ended().await, call);
        // What the stack answers goes the same way.
        caller.to_tag = None;
        caller.cseq += 1;
        let invite = named(caller.request("INVITE", &format!("refused{differs}"), OFFER));
        caller.link.send(&invite).await;
        let (call, _) = node.invited().await;
        refuse(&node, call);
        caller.link.response(486).await;
    }
}

#[tokio::test]
async fn what_is_remembered_of_calls_counts_against_the_limit() {
    let mut node = Node::start(SipConfig { transactions_max: 4, ..patient() }).await;
    for number in 0..2 {
        let mut caller = Caller::new(Link::udp(&node).await, &format!("call{number}"));
        let call = caller.establish(&mut node).await;
        caller.hang_up(&mut node, call).await;
        // Both of its requests are remembered; the BYE is answered again however full it is.
        caller.send("BYE", "bye2", b"").await;
        caller.link.response(200).await;
    }
    let mut caller = Caller::new(Link::udp(&node).await, "too-many");
    caller.send("INVITE", "too-many", OFFER).await;
    caller.link.response(503).await;
    node.assert_no_event();
}

#[tokio::test]
async fn what_is_remembered_of_calls_is_forgotten() {
    let mut node = Node::start(SipConfig { transactions_max: 2, ..impatient() }).await;
    let mut caller = Caller::new(Link::udp(&node).await, "first");
    let call = caller.establish(&mut node).await;
    caller.hang_up(&mut node, call).await;
    let patience = std::time::Instant::now() + sip_ua::PATIENCE;
    let mut next = Caller::new(Link::udp(&node).await, "next");
    while node.sip.metrics().invites.get() < 2 {
        assert!(std::time::Instant::now() < patience, "nothing is ever forgotten");
        next.cseq += 1;
        next.send("INVITE", &format!("next{}", next.cseq), OFFER).await;
        tokio::time::sleep(T1 * 16).await;
    }
}
