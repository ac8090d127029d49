//! Calls over real sockets.

mod sip_ua;

use control_api::mrfc::{Action, Answer, Event};
use sip_ua::{ANSWER, Caller, Link, Node, OFFER, config};

async fn sets_up_and_tears_down(node: &mut Node, link: Link) {
    let transport = link.name();
    let mut caller = Caller::new(link, "basic");
    caller.send("INVITE", "1", OFFER).await;
    let Event::Invite { call, room, from, to, offer } = node.event().await else {
        panic!("not an Invite");
    };
    assert_eq!(room, "room 1");
    assert_eq!(from.uri, "sip:alice@example.com");
    assert_eq!(from.source, Some(std::net::Ipv4Addr::LOCALHOST.into()));
    assert_eq!(to, "sip:room%201@node.example");
    assert_eq!(offer.as_deref(), Some(OFFER));
    node.accept(call);
    // Nothing before it: what is answered at once needs no 100 (RFC 3261 section 17.2.1).
    let ok = caller.link.receive().await;
    assert_eq!(ok.status(), 200);
    assert_eq!(ok.body, ANSWER);
    assert_eq!(ok.header("Content-Type"), Some("application/sdp"));
    let contact = ok.header("Contact").unwrap();
    let address = match transport {
        "UDP" => format!("<sip:room%201@{}>;isfocus", node.sip.udp_address()),
        _ => format!("<sip:room%201@{};transport=tcp>;isfocus", node.sip.tcp_address()),
    };
    assert_eq!(contact, address);
    assert!(ok.header("Allow").unwrap().contains("UPDATE"));
    assert_eq!(ok.header("Supported"), Some("timer, norefersub"));
    assert_eq!(node.sip.metrics().dialogs_active.get(), 1);
    caller.to_tag = Some(ok.to_tag().to_owned());
    caller.send("ACK", "2", b"").await;
    caller.hang_up(node, call).await;
    assert_eq!(node.sip.metrics().dialogs_active.get(), 0);
}

#[tokio::test]
async fn sets_up_and_tears_down_over_udp() {
    let mut node = Node::start(config()).await;
    let link = Link::udp(&node).await;
    sets_up_and_tears_down(&mut node, link).await;
    node.sip.shutdown().await;
}

#[tokio::test]
async fn sets_up_and_tears_down_over_tcp() {
    let mut node = Node::start(config()).await;
    let link = Link::tcp(&node).await;
    sets_up_and_tears_down(&mut node, link).await;
    node.sip.shutdown().await;
}

#[tokio::test]
async fn a_description_among_other_parts_is_what_counts() {
    let sdp = std::str::from_utf8(OFFER).expect("text");
    for (subtype, other, taken) in [
        ("related", "Content-Type: image/jpeg\r\nContent-ID: <id2@alice>", true),
        ("mixed", "Content-Type: a/b\r\nContent-Disposition: c;handling=optional", true),
        ("mixed", "Content-Type: a/b\r\nContent-Disposition: c;handling=required", false),
    ] {
        for tcp in [false, true] {
            let mut node = Node::start(config()).await;
            let link = if tcp { Link::tcp(&node).await } else { Link::udp(&node).await };
            let mut caller = Caller::new(link, "parts");
            let body = format!(
                "--cut\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--cut\r\n{other}\r\n\r\n\
                 \u{1}\r\n\u{2}\r\n--cut--\r\n"
            );
            let request = caller.request("INVITE", "1", body.as_bytes());
            let content_type = format!("multipart/{subtype};boundary=cut");
            let request = String::from_utf8(request).expect("text");
            let request = request.replacen("application/sdp", &content_type, 1);
            caller.link.send(request.as_bytes()).await;
            if taken {
                let (call, offer) = node.invited().await;
                assert_eq!(offer.as_deref(), Some(OFFER));
                node.accept(call);
                caller.link.response(200).await;
            } else {
                let refused = caller.link.response(415).await;
                assert_eq!(refused.header("Accept"), Some(control_api::sip::gate::ACCEPT));
                node.assert_no_event();
            }
        }
    }
}

#[tokio::test]
async fn hangs_up_with_a_reason() {
    for tcp in [false, true] {
        let mut node = Node::start(config()).await;
        let link = if tcp { Link::tcp(&node).await } else { Link::udp(&node).await };
        let mut caller = Caller::new(link, "hang-up");
        let call = caller.establish(&mut node).await;
        // Before the ACK is processed the BYE waits for it; either way it comes.
        let reason = "Q.850;cause=41;text=\"media lost\"".to_owned();
        node.sip.act(Action::HangUp { call, reason: reason.clone() });
        let bye = caller.link.receive().await;
        assert_eq!(bye.method(), "BYE");
        assert_eq!(bye.header("Reason"), Some(reason.as_str()));
        assert_eq!(bye.header("To"), Some("\"Alice\" <sip:alice@example.com>;tag=a-tag"));
        assert!(bye.header("From").unwrap().ends_with(caller.to_tag.as_deref().unwrap()));
        assert!(bye.header("Via").unwrap().contains(";branch=z9hG4bK"), "{}", bye.head);
        caller.link.send(&bye.ok()).await;
        // A hang-up of our own is not reported back.
        node.assert_no_event();
        node.sip.shutdown().await;
    }
}

#[tokio::test]
async fn refuses_with_warning_and_retry_after() {
    let mut node = Node::start(config()).await;
    let link = Link::udp(&node).await;
    let mut caller = Caller::new(link, "refused");
    caller.send("INVITE", "1", OFFER).await;
    let (call, _) = node.invited().await;
    let answer = Answer::Refused {
        status: 488,
        warning: Some((304, "no \"such\" medium".to_owned())),
        retry_after: Some(std::time::Duration::from_secs(7)),
    };
    node.sip.act(Action::Answer { call, answer });
    let refusal = caller.link.response(488).await;
    assert!(refusal.header("Warning").unwrap().starts_with("304 127.0.0.1:"));
    assert!(refusal.header("Warning").unwrap().ends_with("\"no  such  medium\""));
    assert_eq!(refusal.header("Retry-After"), Some("7"));
    assert_eq!(node.sip.metrics().dialogs_active.get(), 0);
    node.sip.shutdown().await;
}
