//! SUBSCRIBE and NOTIFY on the wire, with a scripted MRFC behind the front.

mod sip_ua;

use std::time::Duration;

use control_api::mrfc::{Action, CallId, Content, Event, Notice, SubscribeAnswer, SubscriptionId};
use sip_ua::{Caller, Link, Node, Received, SILENCE, config};
use tokio::net::TcpListener;

const HOUR: Duration = Duration::from_secs(3600);

async fn subscriber(node: &Node, tcp: bool) -> Caller {
    let link = if tcp { Link::tcp(node).await } else { Link::udp(node).await };
    let mut caller = Caller::new(link, "subscription-1");
    caller.extra = "Event: conference\r\nAccept: application/conference-info+xml\r\n\
                    Expires: 3600\r\n"
        .to_owned();
    caller
}

async fn subscribed(node: &mut Node) -> (SubscriptionId, Option<CallId>, Option<Duration>) {
    match node.event().await {
        Event::Subscribe { subscription, room, from, within, expires } => {
            assert_eq!(room, "room 1");
            assert_eq!(from.uri, "sip:alice@example.com");
            assert_eq!(from.display_name.as_deref(), Some("Alice"));
            assert!(!from.anonymous);
            (subscription, within, expires)
        }
        other => panic!("not Subscribe: {other:?}"),
    }
}

fn grant(node: &Node, subscription: SubscriptionId) {
    let answer = SubscribeAnswer::Granted { expires: HOUR };
    node.sip.act(Action::AnswerSubscribe { subscription, answer });
}

fn notify(node: &Node, subscription: SubscriptionId, body: &str) {
    let notice = Notice::Active {
        expires: HOUR,
        content: Content::ConferenceInfo(body.as_bytes().to_vec()),
    };
    node.sip.act(Action::Notify { subscription, notice });
}

fn terminate(node: &Node, subscription: SubscriptionId, reason: &'static str) {
    let notice = Notice::Terminated { reason, content: None };
    node.sip.act(Action::Notify { subscription, notice });
}

async fn notified(node: &mut Node) -> (SubscriptionId, bool) {
    match node.event().await {
        Event::Notified { subscription, delivered } => (subscription, delivered),
        other => panic!("not Notified: {other:?}"),
    }
}

/// The next NOTIFY, whatever else comes.
async fn receive_notify(link: &mut Link) -> Received {
    loop {
        let message = link.receive().await;
        if message.method() == "NOTIFY" {
            return message;
        }
    }
}

/// SUBSCRIBE, 200, first NOTIFY.
async fn establish(node: &mut Node, caller: &mut Caller) -> SubscriptionId {
    caller.send("SUBSCRIBE", "subscribe", b"").await;
    let (subscription, within, expires) = subscribed(node).await;
    assert_eq!((within, expires), (None, Some(HOUR)));
    grant(node, subscription);
    let ok = caller.link.response(200).await;
    assert_eq!(ok.header("Expires"), Some("3600"));
    assert!(ok.header("Contact").unwrap().ends_with(";isfocus"), "{}", ok.head);
    caller.to_tag = Some(ok.to_tag().to_owned());
    notify(node, subscription, "<first/>");
    let first = receive_notify(&mut caller.link).await;
    assert_eq!(first.header("Event"), Some("conference"));
    assert_eq!(first.header("Subscription-State"), Some("active;expires=3600"));
    assert_eq!(first.header("Content-Type"), Some("application/conference-info+xml"));
    assert_eq!(first.header("Call-ID"), Some("subscription-1"));
    assert!(first.header("From").unwrap().ends_with(caller.to_tag.as_deref().unwrap()));
    assert_eq!(first.body, b"<first/>");
    caller.link.send(&first.ok()).await;
    assert_eq!(notified(node).await, (subscription, true));
    subscription
}

#[tokio::test]
async fn a_subscription_lives_from_subscribe_to_its_end() {
    for tcp in [false, true] {
        let mut node = Node::start(config()).await;
        let mut caller = subscriber(&node, tcp).await;
        let subscription = establish(&mut node, &mut caller).await;

        caller.cseq += 1;
        caller.extra = "Event: conference\r\nExpires: 0\r\n".to_owned();
        caller.send("SUBSCRIBE", "end", b"").await;
        match node.event().await {
            Event::Resubscribe { subscription: which, expires } => {
                assert_eq!((which, expires), (subscription, Some(Duration::ZERO)));
            }
            other => panic!("not Resubscribe: {other:?}"),
        }
        let answer = SubscribeAnswer::Granted { expires: Duration::ZERO };
        node.sip.act(Action::AnswerSubscribe { subscription, answer });
        terminate(&node, subscription, "timeout");
        assert_eq!(caller.link.response(200).await.header("Expires"), Some("0"));
        let last = receive_notify(&mut caller.link).await;
        assert_eq!(last.header("Subscription-State"), Some("terminated;reason=timeout"));
        caller.link.send(&last.ok()).await;

        caller.cseq += 1;
        caller.send("SUBSCRIBE", "late", b"").await;
        caller.link.response(481).await;
        node.assert_no_event();
    }
}

#[tokio::test]
async fn a_member_subscribes_in_its_own_dialog() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "call-1");
    let call = caller.establish(&mut node).await;
    caller.cseq += 1;
    caller.extra = "Event: conference;id=7\r\n".to_owned();
    caller.send("SUBSCRIBE", "subscribe", b"").await;
    let (subscription, within, expires) = subscribed(&mut node).await;
    assert_eq!((within, expires), (Some(call), None));
    grant(&node, subscription);
    caller.link.response(200).await;
    notify(&node, subscription, "<first/>");
    let first = receive_notify(&mut caller.link).await;
    assert_eq!(first.header("Event"), Some("conference;id=7"));
    assert_eq!(first.header("CSeq"), Some("1 NOTIFY"));
    caller.link.send(&first.ok()).await;
    assert_eq!(notified(&mut node).await, (subscription, true));

    // RFC 5057 section 4.1: the call ends, the dialog lasts as long as the subscription.
    caller.extra.clear();
    caller.hang_up(&mut node, call).await;
    terminate(&node, subscription, "noresource");
    let last = receive_notify(&mut caller.link).await;
    assert_eq!(last.header("Subscription-State"), Some("terminated;reason=noresource"));
    assert_eq!(last.header("CSeq"), Some("2 NOTIFY"));
    caller.link.send(&last.ok()).await;
}

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let mut node = Node::start(config()).await;
    type Named = Option<(&'static str, &'static str)>;
    let cases: [(&str, u16, Named); 8] = [
        ("", 489, Some(("Allow-Events", "conference"))),
        ("Event: presence\r\n", 489, Some(("Allow-Events", "conference"))),
        ("Event: conference\r\nEvent: conference\r\n", 400, None),
        ("Event: conference\r\nAccept: application/pidf+xml\r\n", 406, None),
        ("Event: conference\r\nExpires: -1\r\n", 400, None),
        ("Event: conference\r\nExpires: 4294967296\r\n", 400, None),
        ("Event: conference\r\nRequire: eventlist\r\n", 420, Some(("Unsupported", "eventlist"))),
        ("o: presence\r\n", 489, None),
    ];
    let mut caller = Caller::new(Link::udp(&node).await, "refused");
    for (number, (extra, status, header)) in cases.into_iter().enumerate() {
        caller.extra = extra.to_owned();
        caller.cseq += 1;
        caller.send("SUBSCRIBE", &format!("refused{number}"), b"").await;
        let refusal = caller.link.receive_final().await;
        assert_eq!(refusal.status(), status, "{extra:?}: {}", refusal.head);
        if let Some((name, value)) = header {
            assert_eq!(refusal.header(name), Some(value), "{extra:?}");
        }
    }
    // A body would be a filter, and none is defined.
    caller.extra = "Event: conference\r\n".to_owned();
    caller.cseq += 1;
    caller.send("SUBSCRIBE", "filter", b"<filter/>").await;
    assert_eq!(caller.link.receive_final().await.status(), 415);
    node.assert_no_event();

    caller.extra = "Event: conference\r\nExpires: 10\r\n".to_owned();
    let answers = [
        (SubscribeAnswer::TooBrief { expires_min: Duration::from_secs(60) }, 423, "Min-Expires"),
        (SubscribeAnswer::Refused { status: 503, retry: true }, 503, "Retry-After"),
        (SubscribeAnswer::Refused { status: 403, retry: false }, 403, "Call-ID"),
    ];
    for (answer, status, header) in answers {
        caller.cseq += 1;
        caller.send("SUBSCRIBE", &format!("policy{status}"), b"").await;
        let (subscription, ..) = subscribed(&mut node).await;
        node.sip.act(Action::AnswerSubscribe { subscription, answer });
        let refusal = caller.link.receive_final().await;
        assert_eq!(refusal.status(), status);
        assert!(refusal.header(header).is_some(), "{}", refusal.head);
        // Nothing is left that could be notified.
        notify(&node, subscription, "<never/>");
    }
    assert!(caller.link.receive_within(SILENCE).await.is_none());
}

#[tokio::test]
async fn a_subscriber_that_knows_nothing_of_it_any_more_is_forgotten() {
    let mut node = Node::start(config()).await;
    let mut caller = subscriber(&node, false).await;
    let subscription = establish(&mut node, &mut caller).await;
    notify(&node, subscription, "<second/>");
    let second = receive_notify(&mut caller.link).await;
    let gone = String::from_utf8(second.ok()).unwrap().replace("200 OK", "481 Gone");
    caller.link.send(gone.as_bytes()).await;
    assert_eq!(notified(&mut node).await, (subscription, false));
    caller.cseq += 1;
    caller.send("SUBSCRIBE", "refresh", b"").await;
    caller.link.response(481).await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_answer_is_forgotten() {
    let mut config = config();
    config.t1 = Duration::from_millis(5);
    let mut node = Node::start(config).await;
    let mut caller = subscriber(&node, false).await;
    let subscription = establish(&mut node, &mut caller).await;
    notify(&node, subscription, "<second/>");
    assert_eq!(notified(&mut node).await, (subscription, false));
}

#[tokio::test]
async fn a_notification_too_large_for_a_datagram_goes_over_tcp() {
    let mut node = Node::start(config()).await;
    let mut caller = subscriber(&node, false).await;
    let subscription = establish(&mut node, &mut caller).await;
    let body = "x".repeat(100_000);
    // RFC 3261 section 18.1.1: whoever takes UDP takes TCP at the same address.
    let listener = TcpListener::bind(caller.link.local()).await.unwrap();
    notify(&node, subscription, &body);
    let (stream, _) = listener.accept().await.unwrap();
    let mut link = Link::Tcp(stream, Vec::new());
    let large = receive_notify(&mut link).await;
    assert!(large.header("Via").unwrap().starts_with("SIP/2.0/TCP "), "{}", large.head);
    assert_eq!(large.body, body.as_bytes());
    link.send(&large.ok()).await;
    assert_eq!(notified(&mut node).await, (subscription, true));
    // The connection is kept for the next one.
    notify(&node, subscription, &body);
    let next = receive_notify(&mut link).await;
    link.send(&next.ok()).await;
    assert_eq!(notified(&mut node).await, (subscription, true));

    drop((link, listener));
    while node.sip.metrics().connections_active.get() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Where there is no TCP it goes in fragments, as long as a datagram holds it at all.
    notify(&node, subscription, &"y".repeat(20_000));
    let fragmented = receive_notify(&mut caller.link).await;
    assert_eq!(fragmented.body.len(), 20_000);
    caller.link.send(&fragmented.ok()).await;
    assert_eq!(notified(&mut node).await, (subscription, true));
    notify(&node, subscription, &body);
    assert_eq!(notified(&mut node).await, (subscription, false));
}

#[tokio::test]
async fn a_request_of_the_past_or_of_another_dialog_changes_nothing() {
    let mut node = Node::start(config()).await;
    let mut caller = subscriber(&node, true).await;
    establish(&mut node, &mut caller).await;
    caller.send("SUBSCRIBE", "again", b"").await;
    caller.link.response(500).await;
    caller.cseq += 1;
    let tag = caller.to_tag.replace("1-0000000000000000".to_owned());
    caller.send("SUBSCRIBE", "guess", b"").await;
    caller.link.response(481).await;
    caller.to_tag = tag;
    caller.call_id = "another".to_owned();
    caller.send("SUBSCRIBE", "other", b"").await;
    caller.link.response(481).await;
    node.assert_no_event();
}

#[tokio::test]
async fn options_tells_of_the_focus() {
    let node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "options");
    caller.send("OPTIONS", "options", b"").await;
    let ok = caller.link.response(200).await;
    assert_eq!(ok.header("Allow-Events"), Some("conference"));
    assert!(ok.header("Allow").unwrap().contains("SUBSCRIBE"), "{}", ok.head);
    assert!(ok.header("Contact").unwrap().ends_with(";isfocus"), "{}", ok.head);
}

#[tokio::test]
async fn a_call_to_the_factory_is_answered_with_the_uri_of_its_room() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "factory");
    caller.send("INVITE", "invite", sip_ua::OFFER).await;
    let (call, _) = node.invited().await;
    node.sip.act(Action::Room { call, room: "n3wRoom".to_owned() });
    node.accept(call);
    let ok = caller.link.response(200).await;
    let contact = ok.header("Contact").unwrap();
    assert!(contact.starts_with("<sip:n3wRoom@") && contact.ends_with(">;isfocus"), "{contact}");
    assert_eq!(ok.header("Allow-Events"), Some("conference"));
}
