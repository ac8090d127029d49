//! Calls over real sockets.

mod sip_ua;

use control_api::mrfc::{Action, Answer, Event};
use sip_ua::{ANSWER, Caller, Link, Node, OFFER, config};

async fn sets_up_and_tears_down(node: &mut Node, link: Link) {
    let transport = link.name();
    let mut caller = Caller::new(link, "basic");
    caller.send("INVITE", "1", OFFER).await;
    assert_eq!(caller.link.receive().await.status(), 100);
    let Event::Invite { call, room, from, to, offer } = node.event().await else {
        panic!("not an Invite");
    };
    assert_eq!(room, "room 1");
    assert_eq!(from.uri, "sip:alice@example.com");
    assert_eq!(to, "sip:room%201@node.example");
    assert_eq!(offer.as_deref(), Some(OFFER));
    node.accept(call);
    let ok = caller.link.response(200).await;
    assert_eq!(ok.body, ANSWER);
    assert_eq!(ok.header("Content-Type"), Some("application/sdp"));
    let contact = ok.header("Contact").unwrap();
    let address = match transport {
        "UDP" => format!("<sip:room%201@{}>;isfocus", node.sip.udp_address()),
        _ => format!("<sip:room%201@{};transport=tcp>;isfocus", node.sip.tcp_address()),
    };
    assert_eq!(contact, address);
    assert!(ok.header("Allow").unwrap().contains("UPDATE"));
    assert_eq!(ok.header("Supported"), Some("timer"));
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
