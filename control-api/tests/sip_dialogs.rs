//! What happens to a call between its INVITE and its end: lost ACKs, CANCEL, re-INVITE, session
//! timers, limits.

mod sip_ua;

use std::time::Duration;

use control_api::mrfc::{Action, Answer, Event};
use control_api::sip::SipConfig;
use sip_ua::{ANSWER, Caller, Link, Node, OFFER, SILENCE, config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// 64 * T1 passes in 640 ms.
fn impatient() -> SipConfig {
    SipConfig { t1: Duration::from_millis(10), ..config() }
}

fn refusal(status: u16) -> Answer {
    Answer::Refused { status, warning: None, retry_after: None }
}

#[tokio::test]
async fn repeats_the_200_until_the_ack() {
    let mut node = Node::start(impatient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "ack-late");
    caller.send("INVITE", "1", OFFER).await;
    let (call, _) = node.invited().await;
    node.accept(call);
    let first = caller.link.response(200).await;
    let second = caller.link.response(200).await;
    assert_eq!(first.head, second.head);
    caller.to_tag = Some(first.to_tag().to_owned());
    caller.send("ACK", "2", b"").await;
    // Those on their way first, then none: 300 ms would see several.
    while caller.link.receive_within(SILENCE).await.is_some() {}
    caller.hang_up(&mut node, call).await;
    node.assert_no_event();
}

#[tokio::test]
async fn ends_a_call_whose_ack_never_comes() {
    let mut node = Node::start(impatient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "ack-never");
    caller.send("INVITE", "1", OFFER).await;
    let (call, _) = node.invited().await;
    node.accept(call);
    assert_eq!(node.ended().await, call);
    let bye = loop {
        let message = caller.link.receive().await;
        if message.method() == "BYE" {
            break message;
        }
    };
    caller.link.send(&bye.ok()).await;
    assert_eq!(node.sip.metrics().acks_missing.get(), 1);
    assert_eq!(node.sip.metrics().dialogs_active.get(), 0);
}

#[tokio::test]
async fn a_repeated_invite_is_not_a_new_call() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "again");
    caller.send("INVITE", "1", OFFER).await;
    let (call, _) = node.invited().await;
    caller.send("INVITE", "1", OFFER).await;
    caller.send("INVITE", "1", OFFER).await;
    assert_eq!(caller.link.receive().await.status(), 100);
    assert_eq!(caller.link.receive().await.status(), 100);
    node.accept(call);
    caller.link.response(200).await;
    node.assert_no_event();
    assert_eq!(node.sip.metrics().invites.get(), 1);
    assert_eq!(node.sip.metrics().retransmissions.get(), 2);
}

#[tokio::test]
async fn refuses_an_invite_that_came_along_two_paths() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "merged");
    caller.send("INVITE", "path1", OFFER).await;
    node.invited().await;
    caller.send("INVITE", "path2", OFFER).await;
    caller.link.response(482).await;
    node.assert_no_event();
}

#[tokio::test]
async fn cancel_ends_an_unanswered_call() {
    for tcp in [false, true] {
        let mut node = Node::start(config()).await;
        let link = if tcp { Link::tcp(&node).await } else { Link::udp(&node).await };
        let mut caller = Caller::new(link, "cancel");
        caller.send("INVITE", "1", OFFER).await;
        let (call, _) = node.invited().await;
        caller.send("CANCEL", "1", b"").await;
        let cancelled = caller.link.response(200).await;
        assert_eq!(cancelled.header("CSeq"), Some("1 CANCEL"));
        let terminated = caller.link.response(487).await;
        assert_eq!(terminated.header("CSeq"), Some("1 INVITE"));
        assert_eq!(node.ended().await, call);
        // The answer comes too late and does nothing.
        node.accept(call);
        caller.send("ACK", "1", b"").await;
        caller.link.send(b"\r\n").await;
        assert!(caller.link.receive_within(SILENCE).await.is_none());
        assert_eq!(node.sip.metrics().dialogs_active.get(), 0);
    }
}

#[tokio::test]
async fn cancel_after_the_answer_changes_nothing() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "cancel-late");
    caller.send("INVITE", "1", OFFER).await;
    let (call, _) = node.invited().await;
    node.accept(call);
    let ok = caller.link.response(200).await;
    caller.send("CANCEL", "1", b"").await;
    let cancelled = caller.link.response(200).await;
    assert_eq!(cancelled.header("CSeq"), Some("1 CANCEL"));
    caller.to_tag = Some(ok.to_tag().to_owned());
    caller.send("ACK", "2", b"").await;
    node.assert_no_event();
    caller.hang_up(&mut node, call).await;
}

#[tokio::test]
async fn cancel_and_answer_at_once_leave_one_final_response() {
    for round in 0..20 {
        let mut node = Node::start(config()).await;
        let mut caller = Caller::new(Link::udp(&node).await, &format!("race{round}"));
        caller.send("INVITE", "1", OFFER).await;
        let (call, _) = node.invited().await;
        caller.send("CANCEL", "1", b"").await;
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        node.accept(call);
        let outcome = loop {
            let reply = caller.link.receive().await;
            if reply.status() >= 200 && reply.header("CSeq") == Some("1 INVITE") {
                break reply;
            }
        };
        match outcome.status() {
            200 => {
                caller.to_tag = Some(outcome.to_tag().to_owned());
                caller.send("ACK", "2", b"").await;
                caller.hang_up(&mut node, call).await;
            }
            487 => assert_eq!(node.ended().await, call),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn reinvite_and_update_ask_the_mrfc() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "change");
    let call = caller.establish(&mut node).await;
    for (cseq, method) in [(2, "INVITE"), (3, "UPDATE"), (4, "INVITE")] {
        caller.cseq = cseq;
        caller.send(method, &format!("change{cseq}"), OFFER).await;
        let Event::Reinvite { call: changed, offer } = node.event().await else {
            panic!("not a Reinvite");
        };
        assert_eq!(changed, call);
        assert_eq!(offer.as_deref(), Some(OFFER));
        // The last one is refused, which leaves the call as it was.
        if cseq == 4 {
            node.sip.act(Action::Answer { call, answer: refusal(488) });
            caller.link.response(488).await;
        } else {
            node.accept(call);
            let ok = caller.link.response(200).await;
            assert_eq!(ok.header("CSeq"), Some(format!("{cseq} {method}").as_str()));
            assert_eq!(ok.body, ANSWER);
            assert_eq!(Some(ok.to_tag()), caller.to_tag.as_deref());
        }
        if method == "INVITE" {
            caller.send("ACK", &format!("change{cseq}"), b"").await;
        }
    }
    caller.hang_up(&mut node, call).await;
}

#[tokio::test]
async fn a_reinvite_inside_a_reinvite_is_told_to_wait() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "glare");
    let call = caller.establish(&mut node).await;
    caller.cseq = 2;
    caller.send("INVITE", "first", OFFER).await;
    assert!(matches!(node.event().await, Event::Reinvite { .. }));
    caller.cseq = 3;
    caller.send("INVITE", "second", OFFER).await;
    let wait = caller.link.response(500).await;
    assert!(wait.header("Retry-After").unwrap().parse::<u32>().unwrap() <= 10);
    caller.send("ACK", "second", b"").await;
    node.accept(call);
    caller.link.response(200).await;
    // Answered, but not acknowledged.
    caller.cseq = 4;
    caller.send("INVITE", "third", OFFER).await;
    caller.link.response(491).await;
    node.assert_no_event();
}

#[tokio::test]
async fn requests_outside_any_dialog_get_481() {
    let node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "nowhere");
    caller.to_tag = Some("1-0000000000000000".to_owned());
    for (cseq, method) in [(1, "BYE"), (2, "INVITE"), (3, "UPDATE"), (4, "CANCEL")] {
        caller.cseq = cseq;
        caller.send(method, &format!("nowhere{cseq}"), b"").await;
        let reply = caller.link.response(481).await;
        assert_eq!(reply.header("CSeq"), Some(format!("{cseq} {method}").as_str()));
    }
}

#[tokio::test]
async fn a_repeated_bye_gets_its_200_again_and_then_no_more() {
    let mut node = Node::start(impatient()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "bye-again");
    let call = caller.establish(&mut node).await;
    caller.cseq = 2;
    caller.send("BYE", "bye", b"").await;
    let first = caller.link.response(200).await;
    assert_eq!(node.ended().await, call);
    caller.send("BYE", "bye", b"").await;
    let second = caller.link.response(200).await;
    assert_eq!(first.head, second.head);
    // Another BYE is none that was answered.
    caller.send("BYE", "other", b"").await;
    assert_eq!(caller.link.receive_final().await.status(), 481);
    node.assert_no_event();
    assert_eq!(node.sip.metrics().retransmissions.get(), 1);
    assert_eq!(node.sip.metrics().byes_received.get(), 1);
    // 64 * T1 are over.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    caller.send("BYE", "bye", b"").await;
    assert_eq!(caller.link.receive_final().await.status(), 481);
}

#[tokio::test]
async fn a_repeated_invite_of_a_call_that_is_up_is_absorbed() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "late");
    let call = caller.establish(&mut node).await;
    let to_tag = caller.to_tag.take();
    caller.send("INVITE", "invite", OFFER).await;
    assert!(caller.link.receive_within(SILENCE).await.is_none());
    node.assert_no_event();
    // And when the call is over, too.
    caller.to_tag = to_tag;
    caller.hang_up(&mut node, call).await;
    caller.to_tag = None;
    caller.cseq = 1;
    caller.send("INVITE", "invite", OFFER).await;
    assert!(caller.link.receive_within(SILENCE).await.is_none());
    node.assert_no_event();
    assert_eq!(node.sip.metrics().invites.get(), 1);
}

#[tokio::test]
async fn a_session_that_is_not_refreshed_ends() {
    let mut node = Node::start(SipConfig { min_se: Duration::from_secs(1), ..impatient() }).await;
    let mut caller = Caller::new(Link::udp(&node).await, "expires");
    caller.extra = "Supported: timer\r\nSession-Expires: 1\r\n".to_owned();
    caller.send("INVITE", "1", OFFER).await;
    let (call, _) = node.invited().await;
    node.accept(call);
    let ok = caller.link.response(200).await;
    assert_eq!(ok.header("Session-Expires"), Some("1;refresher=uac"));
    assert_eq!(ok.header("Require"), Some("timer"));
    caller.to_tag = Some(ok.to_tag().to_owned());
    caller.send("ACK", "2", b"").await;
    assert_eq!(node.ended().await, call);
    let bye = loop {
        let message = caller.link.receive().await;
        if message.method() == "BYE" {
            break message;
        }
    };
    assert!(bye.header("Reason").unwrap().contains("Session expired"));
    assert_eq!(node.sip.metrics().sessions_expired.get(), 1);
}

#[tokio::test]
async fn refreshes_a_session_that_is_ours_to_refresh() {
    let mut node = Node::start(SipConfig { min_se: Duration::from_secs(1), ..config() }).await;
    let mut caller = Caller::new(Link::udp(&node).await, "refresh");
    caller.extra = "Supported: timer\r\nSession-Expires: 2;refresher=uas\r\n".to_owned();
    let call = caller.establish(&mut node).await;
    for _ in 0..2 {
        let update = caller.link.receive().await;
        assert_eq!(update.method(), "UPDATE");
        assert_eq!(update.header("Session-Expires"), Some("2;refresher=uac"));
        caller.link.send(&update.ok()).await;
    }
    node.assert_no_event();
    caller.extra.clear();
    caller.hang_up(&mut node, call).await;
}

#[tokio::test]
async fn an_update_without_a_body_only_refreshes() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "refreshed");
    let call = caller.establish(&mut node).await;
    caller.cseq = 2;
    caller.extra = "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n".to_owned();
    caller.send("UPDATE", "update", b"").await;
    let ok = caller.link.response(200).await;
    assert_eq!(ok.header("Session-Expires"), Some("1800;refresher=uac"));
    node.assert_no_event();
    caller.extra.clear();
    caller.hang_up(&mut node, call).await;
}

#[tokio::test]
async fn a_session_interval_below_the_minimum_gets_422() {
    let node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "brief");
    caller.extra = "Supported: timer\r\nSession-Expires: 30\r\n".to_owned();
    caller.send("INVITE", "1", OFFER).await;
    assert_eq!(caller.link.response(422).await.header("Min-SE"), Some("90"));
}

#[tokio::test]
async fn calls_over_the_limit_get_503() {
    let mut node = Node::start(SipConfig { calls_max: 1, ..config() }).await;
    let mut first = Caller::new(Link::udp(&node).await, "first");
    first.establish(&mut node).await;
    let mut second = Caller::new(Link::udp(&node).await, "second");
    second.send("INVITE", "second", OFFER).await;
    let busy = second.link.response(503).await;
    let pause: u64 = busy.header("Retry-After").unwrap().parse().unwrap();
    assert!((5..10).contains(&pause), "{pause}");
    // A call that is in stays in: its repeated INVITE and its re-INVITE are no new calls.
    first.cseq = 1;
    first.to_tag = None;
    let mut node = Node::start(SipConfig { calls_max: 1, ..config() }).await;
    first.link = Link::udp(&node).await;
    first.send("INVITE", "first", OFFER).await;
    let (call, _) = node.invited().await;
    first.send("INVITE", "first", OFFER).await;
    node.accept(call);
    let ok = first.link.receive_final().await;
    assert_eq!(ok.status(), 200);
    first.to_tag = Some(ok.to_tag().to_owned());
    first.send("ACK", "ack", b"").await;
    first.cseq = 2;
    first.send("INVITE", "again", OFFER).await;
    assert!(matches!(node.event().await, Event::Reinvite { .. }));
    node.accept(call);
    assert_eq!(first.link.receive_final().await.status(), 200);
    for full in [
        SipConfig { transactions_max: 0, ..config() },
        SipConfig { transactions_open_max: 0, ..config() },
    ] {
        let mut node = Node::start(full).await;
        let mut third = Caller::new(Link::udp(&node).await, "third");
        third.send("INVITE", "third", OFFER).await;
        third.link.response(503).await;
        node.assert_no_event();
    }
}

#[tokio::test]
async fn an_invite_without_a_body_has_no_offer() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "empty");
    caller.send("INVITE", "1", b"").await;
    let (_, offer) = node.invited().await;
    assert_eq!(offer, None);
}

#[tokio::test]
async fn a_body_that_is_not_text_reaches_the_mrfc_unharmed() {
    // What our side says is well-formed all the same: whoever captures the tests looks at that.
    let sdp = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=caf\xe9 \xff\x00\r\nt=0 0\r\n".to_vec();
    let mut offer = sdp.clone();
    offer.extend(0..=255);
    for tcp in [false, true] {
        let mut node = Node::start(config()).await;
        let link = if tcp { Link::tcp(&node).await } else { Link::udp(&node).await };
        let mut caller = Caller::new(link, "bytes");
        caller.send("INVITE", "1", &offer).await;
        let (call, received) = node.invited().await;
        assert_eq!(received.as_deref(), Some(offer.as_slice()));
        node.sip.act(Action::Answer { call, answer: Answer::Accepted { sdp: sdp.clone() } });
        assert_eq!(caller.link.response(200).await.body, sdp);
    }
}

#[tokio::test]
async fn a_datagram_without_content_length_keeps_its_body() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "no-length");
    let request = String::from_utf8(caller.request("INVITE", "1", OFFER)).unwrap();
    let length = format!("Content-Length: {}\r\n", OFFER.len());
    caller.link.send(request.replace(&length, "").as_bytes()).await;
    assert_eq!(node.invited().await.1.as_deref(), Some(OFFER));
}

#[tokio::test]
async fn record_route_is_returned_and_followed() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::udp(&node).await, "routed");
    let route = format!("<sip:{};lr>", caller.link.local());
    caller.extra = format!("Record-Route: {route}\r\n");
    caller.send("INVITE", "1", OFFER).await;
    let (call, _) = node.invited().await;
    node.accept(call);
    let ok = caller.link.response(200).await;
    assert_eq!(ok.header("Record-Route"), Some(route.as_str()));
    caller.to_tag = Some(ok.to_tag().to_owned());
    caller.extra.clear();
    caller.send("ACK", "2", b"").await;
    node.sip.act(Action::HangUp { call, reason: "SIP;cause=200".to_owned() });
    let bye = caller.link.receive().await;
    assert_eq!(bye.header("Route"), Some(route.as_str()));
    assert!(bye.head.starts_with(&format!("BYE sip:alice@{} SIP/2.0", caller.link.local())));
}

#[tokio::test]
async fn tcp_takes_two_messages_in_one_segment_and_one_in_many() {
    let mut node = Node::start(config()).await;
    let mut caller = Caller::new(Link::tcp(&node).await, "segments");
    let mut both = caller.request("INVITE", "1", OFFER);
    caller.cseq = 9;
    both.extend(caller.request("OPTIONS", "2", b""));
    caller.link.send(&both).await;
    node.invited().await;
    caller.link.response(200).await;
    caller.cseq = 10;
    for byte in caller.request("OPTIONS", "3", b"").chunks(7) {
        caller.link.send(byte).await;
        tokio::task::yield_now().await;
    }
    let ok = caller.link.response(200).await;
    assert_eq!(ok.header("CSeq"), Some("10 OPTIONS"));
}

#[tokio::test]
async fn tcp_closes_on_garbage_on_half_a_message_and_on_silence() {
    let timeout = Duration::from_millis(200);
    let node = Node::start(SipConfig { tcp_message_timeout: timeout, ..config() }).await;
    for bytes in
        [&b"\x16\x03\x01\x02garbage\r\n\r\n"[..], b"INVITE sip:half@node SIP/2.0\r\nVia: ", b""]
    {
        let Link::Tcp(mut stream, _) = Link::tcp(&node).await else { panic!("TCP") };
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(sip_ua::PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the connection stays open");
    }
    let mut caller = Caller::new(Link::tcp(&node).await, "after");
    caller.send("OPTIONS", "after", b"").await;
    caller.link.response(200).await;
}

#[tokio::test]
async fn tcp_answers_keep_alives_and_limits_connections() {
    let node = Node::start(SipConfig { connections_max: 1, ..config() }).await;
    let Link::Tcp(mut first, _) = Link::tcp(&node).await else { panic!("TCP") };
    first.write_all(b"\r\n\r\n").await.unwrap();
    let mut pong = [0; 2];
    first.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\r\n");
    let Link::Tcp(mut second, _) = Link::tcp(&node).await else { panic!("TCP") };
    let end = tokio::time::timeout(sip_ua::PATIENCE, second.read(&mut pong)).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(node.sip.metrics().connections_refused.get(), 1);
}

#[tokio::test]
async fn an_answer_that_takes_its_time_is_announced_with_180() {
    let mut node = Node::start(config()).await;
    for (link, name) in [(Link::udp(&node).await, "udp"), (Link::tcp(&node).await, "tcp")] {
        let mut caller = Caller::new(link, name);
        caller.extra = "Record-Route: <sip:proxy.example;lr>\r\n".to_owned();
        caller.send("INVITE", "slow", OFFER).await;
        let asked = std::time::Instant::now();
        let (call, _) = node.invited().await;
        let ringing = caller.link.receive().await;
        assert_eq!(ringing.status(), 180);
        // Not for every call: those that are answered at once hear nothing before.
        assert!(asked.elapsed() >= Duration::from_millis(90));
        // Who asks all the same hears it again.
        caller.send("INVITE", "slow", OFFER).await;
        assert_eq!(caller.link.receive().await.head, ringing.head);
        assert_eq!(ringing.header("Record-Route"), Some("<sip:proxy.example;lr>"));
        assert!(ringing.header("Contact").is_some());
        node.accept(call);
        let ok = caller.link.receive().await;
        assert_eq!(ok.status(), 200);
        assert_eq!(ok.to_tag(), ringing.to_tag());
        caller.to_tag = Some(ok.to_tag().to_owned());
        caller.extra.clear();
        caller.send("ACK", "ack", b"").await;
        caller.hang_up(&mut node, call).await;
    }
    // A quick answer is not.
    let mut caller = Caller::new(Link::udp(&node).await, "quick");
    let call = caller.establish(&mut node).await;
    tokio::time::sleep(SILENCE).await;
    assert_eq!(node.sip.metrics().ringing.get(), 2);
    caller.hang_up(&mut node, call).await;
}
