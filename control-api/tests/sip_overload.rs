//! More calls than the SIP front has time for: the runtime it shares with the test is held up while
//! requests arrive, so that they wait as long as the test likes.

mod sip_ua;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use control_api::mrfc::CallId;
use control_api::sip::SipConfig;
use sip_ua::{Caller, Link, Node, OFFER, PATIENCE, config};

/// Far more than a request waits by itself.
const DELAY_MAX: Duration = Duration::from_millis(500);
const HELD_UP: Duration = Duration::from_millis(600);
/// Far longer than it takes to read what is there.
const MOMENT: Duration = Duration::from_millis(20);
const NEWCOMERS: usize = 20;

/// A queue stands as soon as somebody has waited; nothing is repeated while a test runs.
fn overloaded_at_once() -> SipConfig {
    SipConfig {
        queue_delay_max: DELAY_MAX,
        queue_delay_interval: Duration::ZERO,
        t1: Duration::from_secs(10),
        ..config()
    }
}

/// A front whose socket is stamped: the kernel begins for the first who asks, and not in that moment.
async fn start(config: SipConfig) -> Node {
    let node = Node::start(config).await;
    let mut link = link(&node, false).await;
    let deadline = Instant::now() + PATIENCE;
    for number in 0.. {
        let caller = Caller::new(link, &format!("stamped-{number}"));
        caller.link.send_now(&caller.request("OPTIONS", &format!("stamped-{number}"), b""));
        std::thread::sleep(MOMENT);
        link = caller.link;
        link.response(200).await;
        if node.sip.queue_delay() >= MOMENT / 2 {
            break;
        }
        assert!(Instant::now() < deadline, "nothing is stamped");
    }
    node
}

async fn link(node: &Node, tcp: bool) -> Link {
    let mut link = if tcp { Link::tcp(node).await } else { Link::udp(node).await };
    // Accepted, if it is a connection, and known to be ready for what is sent at once.
    let caller = Caller::new(link, "ready");
    let options = caller.request("OPTIONS", "ready", b"");
    link = caller.link;
    link.send(&options).await;
    link.response(200).await;
    link
}

/// A call that is taken; the machine may hold us up by itself now and then.
async fn taken(node: &mut Node, tcp: bool, name: &str) -> (Caller, CallId) {
    let deadline = Instant::now() + PATIENCE;
    for attempt in 0.. {
        assert!(Instant::now() < deadline, "no call is taken");
        let mut caller = Caller::new(link(node, tcp).await, &format!("{name}-{attempt}"));
        caller.send("INVITE", "invite", OFFER).await;
        let call = tokio::select! {
            (call, _) = node.invited() => call,
            refused = caller.link.receive_final() => {
                assert_eq!(refused.status(), 503);
                continue;
            }
        };
        node.accept(call);
        let ok = caller.link.response(200).await;
        caller.to_tag = Some(ok.to_tag().to_owned());
        caller.send("ACK", "ack", b"").await;
        return (caller, call);
    }
    unreachable!("an attempt is made")
}

#[tokio::test]
async fn new_calls_that_have_waited_too_long_are_shed_and_what_is_under_way_goes_on() {
    for tcp in [false, true] {
        let mut node = start(overloaded_at_once()).await;
        let (mut caller, call) = taken(&mut node, tcp, "before").await;
        let mut newcomers = Vec::new();
        for number in 0..NEWCOMERS {
            newcomers.push(Caller::new(link(&node, tcp).await, &format!("new{number}")));
        }
        let before = node.sip.metrics().invites_shed.get();
        // From here to the end of the sleep nobody else runs.
        for newcomer in &newcomers {
            newcomer.link.send_now(&newcomer.request("INVITE", "1", OFFER));
        }
        let to_tag = caller.to_tag.take();
        caller.link.send_now(&caller.request("INVITE", "invite", OFFER));
        caller.to_tag = to_tag;
        caller.cseq = 2;
        caller.link.send_now(&caller.request("BYE", "bye", b""));
        std::thread::sleep(HELD_UP);

        let mut pauses = HashSet::new();
        for newcomer in &mut newcomers {
            let refused = newcomer.link.receive_final().await;
            assert_eq!(refused.status(), 503, "{}", refused.head);
            let pause: u64 = refused.header("Retry-After").unwrap().parse().unwrap();
            assert!((5..10).contains(&pause), "{pause}");
            pauses.insert(pause);
            newcomer.to_tag = Some(refused.to_tag().to_owned());
            newcomer.send("ACK", "1", b"").await;
            newcomer.to_tag = None;
            // Repeated before the refusal was there: the same again, though there is time now.
            newcomer.send("INVITE", "1", OFFER).await;
            assert_eq!(newcomer.link.receive_final().await.head, refused.head);
        }
        assert!(pauses.len() > 1, "all come back at once, after {pauses:?}");
        // The repeated INVITE of a call that was taken is no new one: the BYE is answered, nothing else.
        let ok = caller.link.receive_final().await;
        assert_eq!((ok.status(), ok.header("CSeq")), (200, Some("2 BYE")), "{}", ok.head);
        assert_eq!(node.ended().await, call);
        node.assert_no_event();
        let metrics = node.sip.metrics();
        assert_eq!(metrics.invites_shed.get() - before, NEWCOMERS as u64);
        assert_eq!(metrics.dialogs_active.get(), 0);

        let (mut caller, call) = taken(&mut node, tcp, "after").await;
        caller.hang_up(&mut node, call).await;
    }
}

#[tokio::test]
async fn requests_within_a_dialog_are_not_shed_however_long_they_have_waited() {
    let mut node = start(overloaded_at_once()).await;
    let (mut caller, call) = taken(&mut node, false, "within").await;
    caller.cseq = 2;
    caller.link.send_now(&caller.request("INVITE", "change", OFFER));
    std::thread::sleep(HELD_UP);
    let event = node.event().await;
    let control_api::mrfc::Event::Reinvite { call: changed, .. } = event else {
        panic!("not a Reinvite: {event:?}")
    };
    assert_eq!(changed, call);
    node.accept(call);
    assert_eq!(caller.link.receive_final().await.status(), 200);
}

#[tokio::test]
async fn without_a_limit_calls_are_taken_however_long_they_have_waited() {
    let config = SipConfig { queue_delay_max: Duration::ZERO, ..overloaded_at_once() };
    let mut node = start(config).await;
    let caller = Caller::new(link(&node, false).await, "late");
    caller.link.send_now(&caller.request("INVITE", "1", OFFER));
    std::thread::sleep(HELD_UP);
    node.invited().await;
    assert!(node.sip.queue_delay() > DELAY_MAX);
}
