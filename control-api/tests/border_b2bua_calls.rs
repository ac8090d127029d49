//! Calls through the B2BUA: every message comes out on the other side, its description marked by the border.

mod border_world;

use border_world::{
    ACCESS_HOST, ANSWER, CORE_HOST, Dialog, Heard, NETWORK_HOST, OFFER, Received, Refuses, SILENCE,
    UE_HOST, World,
};
use control_api::border::{Action, Leg};

#[tokio::test]
async fn a_call_goes_through_and_is_hung_up_by_either_end() {
    for caller_hangs_up in [true, false] {
        let mut world = World::start().await;
        let mut call = Dialog::new(&world.ue, "basic");
        let (invite, ok) = world.establish(&mut call).await;
        assert!(invite.body.starts_with(OFFER) && invite.body.contains("a=offered:Caller 1"));
        assert!(ok.body.starts_with(ANSWER) && ok.body.contains("a=answered:1"));
        assert!(matches!(world.heard().await.1, Heard::Begun { .. }));
        let reason = "Reason: Q.850;cause=16\r\n";
        let heard = if caller_hangs_up {
            world.ue.send(&call.request("BYE", reason, "")).await;
            world.ue.response_to("BYE", 200).await;
            let bye = world.network.request("BYE").await;
            world.network.reply(&bye, "200 OK", "", "", "").await;
            bye
        } else {
            let mut callee = Dialog::of_callee(&world.network, &invite, "net");
            world.network.peer = invite.source;
            world.network.send(&callee.request("BYE", reason, "")).await;
            world.network.response_to("BYE", 200).await;
            let bye = world.ue.request("BYE").await;
            world.ue.reply(&bye, "200 OK", "", "", "").await;
            bye
        };
        assert_eq!(heard.header("Reason"), Some("Q.850;cause=16"));
        world.hears(&Heard::Ended).await;
        world.await_empty().await;
    }
}

/// Everything the other side must not learn.
fn tells_nothing_of(message: &Received, hosts: [&str; 2]) {
    for host in hosts {
        assert!(!message.text().contains(host), "{host} in {}", message.text());
    }
}

#[tokio::test]
async fn nothing_of_one_sides_addresses_appears_on_the_other() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "hygiene");
    let local = world.ue.local();
    let headers = format!(
        "Route: <sip:{local};lr>\r\nRecord-Route: <sip:{local};lr>\r\nUser-Agent: ue/{local}\r\n\
         History-Info: <sip:{local}>;index=1\r\nP-Asserted-Identity: <sip:fake@{local}>\r\n\
         P-Charging-Vector: icid-value=x;icid-generated-at={UE_HOST}\r\nX-Unknown: kept\r\n\
         P-Preferred-Identity: <sip:alice@{local}>\r\nReferred-By: <sip:alice@{local}>\r\n\
         P-Access-Network-Info: 3GPP-E-UTRAN-FDD\r\nRequire: mediasec\r\n\
         Security-Verify: msrp-tls;mediasec\r\nReplaces: a@{UE_HOST};to-tag=1;from-tag=2\r\n\
         Join: b@{UE_HOST};to-tag=1;from-tag=2\r\nTarget-Dialog: c@{UE_HOST};remote-tag=1\r\n"
    );
    world.ue.send(&call.request("INVITE", &headers, OFFER)).await;
    let invite = world.network.request("INVITE").await;
    tells_nothing_of(&invite, [UE_HOST, ACCESS_HOST]);
    assert_eq!(invite.header("X-Unknown"), Some("kept"));
    assert_eq!(invite.header("Max-Forwards"), Some("69"));
    assert_eq!(invite.header("P-Access-Network-Info"), Some("3GPP-E-UTRAN-FDD"));
    assert!(invite.header("Contact").is_some_and(|it| it.ends_with("+sip.instance=\"<urn:x>\"")));
    for gone in [
        "Route",
        "Record-Route",
        "History-Info",
        "P-Asserted-Identity",
        "P-Charging-Vector",
        "P-Preferred-Identity",
        "Require",
        "Security-Verify",
        "Replaces",
        "Join",
        "Target-Dialog",
    ] {
        assert_eq!(invite.header(gone), None);
    }
    assert_eq!(invite.all("Via").len(), 1);
    let there = world.network.local();
    let headers = format!(
        "Server: net/{there}\r\nRecord-Route: <sip:{there};lr>\r\n\
         P-Charging-Vector: icid-value=x;orig-ioi={NETWORK_HOST}\r\n\
         P-Asserted-Identity: <sip:bob@{there}>\r\nWarning: 399 {there} \"as you like\"\r\n"
    );
    world.network.reply(&invite, "183 Session Progress", "net", &headers, ANSWER).await;
    world.network.reply(&invite, "200 OK", "net", &headers, ANSWER).await;
    for status in [183, 200] {
        let response = world.ue.response(status).await;
        tells_nothing_of(&response, [NETWORK_HOST, CORE_HOST]);
        assert!(response.header("Warning").is_some_and(|it| it.contains(ACCESS_HOST)));
        call.remote_tag = Some(response.to_tag().to_owned());
    }
    world.ue.send(&call.request("ACK", "", "")).await;
    let ack = world.network.request("ACK").await;
    tells_nothing_of(&ack, [UE_HOST, ACCESS_HOST]);
    // The route of the network is its own.
    assert!(ack.header("Route").is_some_and(|it| it.contains(NETWORK_HOST)));
    world.ue.send(&call.request("INFO", "X-Unknown: kept\r\n", "")).await;
    let info = world.network.request("INFO").await;
    tells_nothing_of(&info, [UE_HOST, ACCESS_HOST]);
    world.network.reply(&info, "200 Fine With Me", "", "", "").await;
    let fine = world.ue.response_to("INFO", 200).await;
    assert!(fine.head.starts_with("SIP/2.0 200 Fine With Me"));
    tells_nothing_of(&fine, [NETWORK_HOST, CORE_HOST]);
}

#[tokio::test]
async fn an_offer_in_the_200_is_answered_by_the_ack() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "late");
    world.ue.send(&call.request("INVITE", "", "")).await;
    let invite = world.network.request("INVITE").await;
    assert!(invite.body.is_empty());
    world.network.reply(&invite, "200 OK", "net", "", OFFER).await;
    let ok = world.ue.response(200).await;
    assert!(ok.body.contains("a=offered:Callee 1"), "{}", ok.body);
    call.remote_tag = Some(ok.to_tag().to_owned());
    world.ue.send(&call.request("ACK", "", ANSWER)).await;
    let ack = world.network.request("ACK").await;
    assert!(ack.body.contains("a=answered:1"), "{}", ack.body);
}

#[tokio::test]
async fn reliable_early_media_is_acknowledged_and_updated() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "early");
    world.ue.send(&call.request("INVITE", "Supported: 100rel\r\n", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    let reliable = "Require: 100rel\r\nRSeq: 7\r\n";
    world.network.reply(&invite, "183 Session Progress", "net", reliable, ANSWER).await;
    let progress = world.ue.response(183).await;
    assert!(progress.body.contains("a=answered:1"));
    assert_eq!(progress.header("RSeq"), Some("7"));
    // Unacknowledged it comes again, though the network has said it once.
    world.ue.response(183).await;
    call.remote_tag = Some(progress.to_tag().to_owned());
    let invited = call.cseq;
    world.ue.send(&call.request("PRACK", &format!("RAck: 7 {invited} INVITE\r\n"), "")).await;
    let prack = world.network.request("PRACK").await;
    let cseq = invite.header("CSeq").expect("mandatory");
    assert_eq!(prack.header("RAck"), Some(format!("7 {cseq}").as_str()));
    world.network.reply(&prack, "200 OK", "", "", "").await;
    world.ue.response_to("PRACK", 200).await;
    world.ue.send(&call.request("UPDATE", "", OFFER)).await;
    let update = world.network.request("UPDATE").await;
    assert!(update.body.contains("a=offered:Caller 2"));
    world.network.reply(&update, "200 OK", "", "", ANSWER).await;
    assert!(world.ue.response_to("UPDATE", 200).await.body.contains("a=answered:2"));
    world.network.reply(&invite, "200 OK", "net", "", "").await;
    world.ue.response_to("INVITE", 200).await;
    call.cseq = invited;
    world.ue.send(&call.request("ACK", "", "")).await;
    world.network.request("ACK").await;
}

#[tokio::test]
async fn a_reliable_response_that_comes_again_is_no_other() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "again");
    world.ue.send(&call.request("INVITE", "Supported: 100rel\r\n", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    let reliable = "Require: 100rel\r\nRSeq: 7\r\n";
    world.network.reply(&invite, "183 Session Progress", "net", reliable, ANSWER).await;
    let progress = world.ue.response(183).await;
    call.remote_tag = Some(progress.to_tag().to_owned());
    let invited = call.cseq;
    world.ue.send(&call.request("PRACK", &format!("RAck: 7 {invited} INVITE\r\n"), "")).await;
    let prack = world.network.request("PRACK").await;
    // It was on its way when the PRACK went the other.
    world.network.reply(&invite, "183 Session Progress", "net", reliable, ANSWER).await;
    world.network.reply(&prack, "200 OK", "", "", "").await;
    world.ue.response_to("PRACK", 200).await;
    world.ue.gets_no("SIP/2.0 183").await;
    let next = "Require: 100rel\r\nRSeq: 8\r\n";
    world.network.reply(&invite, "180 Ringing", "net", next, "").await;
    assert_eq!(world.ue.response(180).await.header("RSeq"), Some("8"));
}

#[tokio::test]
async fn a_call_with_a_branch_that_was_not_taken_rests() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "rest");
    world.ue.send(&call.request("INVITE", "Supported: 100rel\r\n", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    let reliable = "Require: 100rel\r\nRSeq: 1\r\n";
    world.network.reply(&invite, "183 Session Progress", "one", reliable, ANSWER).await;
    world.ue.response(183).await;
    world.network.reply(&invite, "200 OK", "two", "", ANSWER).await;
    call.remote_tag = Some(world.ue.response(200).await.to_tag().to_owned());
    world.ue.send(&call.request("ACK", "", "")).await;
    world.network.request("ACK").await;
    // Longer than the response would have been repeated for the first time.
    tokio::time::sleep(SILENCE).await;
    let runtime = tokio::runtime::Handle::current().metrics();
    let busy = || runtime.worker_total_busy_duration(0);
    let before = busy();
    tokio::time::sleep(SILENCE).await;
    // On the one thread of this test, a task that never rests leaves the sleep no rest, either.
    let taken = busy() - before;
    assert!(taken < SILENCE / 2, "{taken:?}");
}

#[tokio::test]
async fn what_a_200_says_again_is_no_new_offer() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "settled");
    world.ue.send(&call.request("INVITE", "Supported: 100rel\r\n", "")).await;
    let invite = world.network.request("INVITE").await;
    let reliable = "Require: 100rel\r\nRSeq: 1\r\n";
    world.network.reply(&invite, "183 Session Progress", "net", reliable, OFFER).await;
    let progress = world.ue.response(183).await;
    assert!(progress.body.contains("a=offered:Callee 1"));
    call.remote_tag = Some(progress.to_tag().to_owned());
    let invited = call.cseq;
    world.ue.send(&call.request("PRACK", &format!("RAck: 1 {invited} INVITE\r\n"), ANSWER)).await;
    let prack = world.network.request("PRACK").await;
    assert!(prack.body.contains("a=answered:1"));
    world.network.reply(&prack, "200 OK", "", "", "").await;
    world.ue.response_to("PRACK", 200).await;
    world.network.reply(&invite, "200 OK", "net", "", OFFER).await;
    assert!(world.ue.response_to("INVITE", 200).await.body.is_empty());
    call.cseq = invited;
    world.ue.send(&call.request("ACK", "", "")).await;
    world.network.request("ACK").await;
    world.network.gets_no("BYE").await;
    assert_eq!(world.b2bua.calls(), 1);
}

#[tokio::test]
async fn what_is_changed_goes_both_ways_and_not_at_once() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "change");
    let (invite, _) = world.establish(&mut call).await;
    let mut callee = Dialog::of_callee(&world.network, &invite, "net");
    world.network.peer = invite.source;
    world.network.send(&callee.request("INVITE", "", OFFER)).await;
    let reinvite = world.ue.request("INVITE").await;
    assert!(reinvite.body.contains("a=offered:Callee 2"));
    world.ue.reply(&reinvite, "183 Session Progress", "", "", ANSWER).await;
    assert_eq!(world.network.response(183).await.body, "");
    // Glare (RFC 3261 section 14.1).
    let earlier = call.cseq;
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    world.ue.response(491).await;
    world.ue.send(&call.request("ACK", "", "")).await;
    assert!(call.cseq > earlier);
    world.ue.reply(&reinvite, "200 OK", "", "", ANSWER).await;
    let ok = world.network.response_to("INVITE", 200).await;
    assert!(ok.body.contains("a=answered:2"));
    world.network.send(&callee.request("ACK", "", "")).await;
    world.ue.request("ACK").await;
    // One that is refused leaves all as it was.
    world.ue.send(&call.request("UPDATE", "", OFFER)).await;
    let update = world.network.request("UPDATE").await;
    assert!(update.body.contains("a=offered:Caller 3"));
    world.network.reply(&update, "488 Not Here", "", "", "").await;
    let refused = world.ue.response_to("UPDATE", 488).await;
    assert!(refused.head.starts_with("SIP/2.0 488 Not Here"));
    world.hears(&Heard::Withdrawn).await;
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_and_one_answered_meanwhile_is_hung_up() {
    for answered in [false, true] {
        let mut world = World::start().await;
        let mut call = Dialog::new(&world.ue, "cancel");
        world.ue.send(&call.request("INVITE", "", OFFER)).await;
        let invite = world.network.request("INVITE").await;
        world.network.reply(&invite, "180 Ringing", "net", "", "").await;
        world.ue.response(180).await;
        let why = "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n";
        world.ue.send(&call.request("CANCEL", why, "")).await;
        world.ue.response_to("CANCEL", 200).await;
        world.ue.response_to("INVITE", 487).await;
        world.ue.send(&call.request("ACK", "", "")).await;
        let cancel = world.network.request("CANCEL").await;
        assert!(cancel.header("Reason").is_some_and(|it| it.contains("elsewhere")));
        world.network.reply(&cancel, "200 OK", "net", "", "").await;
        if answered {
            world.network.reply(&invite, "200 OK", "net", "", ANSWER).await;
            world.network.request("ACK").await;
            let bye = world.network.request("BYE").await;
            world.network.reply(&bye, "200 OK", "", "", "").await;
        } else {
            world.network.reply(&invite, "487 Request Terminated", "net", "", "").await;
            world.network.request("ACK").await;
        }
        world.hears(&Heard::Ended).await;
        world.await_empty().await;
        assert_eq!(world.b2bua.metrics().calls_cancelled.get(), 1);
    }
}

#[tokio::test]
async fn a_bye_before_the_answer_ends_the_call() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "early-bye");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    world.network.reply(&invite, "180 Ringing", "net", "", "").await;
    let tag = world.ue.response(180).await.to_tag().to_owned();
    call.remote_tag = Some(tag.clone());
    let invited = call.cseq;
    world.ue.send(&call.request("BYE", "", "")).await;
    world.ue.response_to("BYE", 200).await;
    assert_eq!(world.ue.response_to("INVITE", 487).await.to_tag(), tag);
    call.cseq = invited;
    world.ue.send(&call.request("ACK", "", "")).await;
    for method in ["BYE", "CANCEL"] {
        let request = world.network.request(method).await;
        world.network.reply(&request, "200 OK", "", "", "").await;
    }
    world.network.reply(&invite, "487 Request Terminated", "net", "", "").await;
    world.network.request("ACK").await;
    world.hears(&Heard::Ended).await;
}

#[tokio::test]
async fn whoever_is_called_is_called_by_the_same_name() {
    let mut world = World::start().await;
    for (number, target) in [
        "tel:+4930123456",
        "tel:123;phone-context=ims.example",
        "sip:0301234;phone-context=ims.example@ims.example;user=phone",
        "sip:a%40b:secret@ims.example:5070;lr",
        "sips:bob@ims.example",
        "urn:service:sos",
    ]
    .into_iter()
    .enumerate()
    {
        let mut call = Dialog::new(&world.ue, &format!("name{number}"));
        call.target = target.to_owned();
        world.ue.send(&call.request("INVITE", "", OFFER)).await;
        let invite = world.network.request("INVITE").await;
        assert!(
            invite.head.starts_with(&format!("INVITE {target} SIP/2.0\r\n")),
            "{}",
            invite.head
        );
        world.network.reply(&invite, "486 Busy Here", "net", "", "").await;
        world.network.request("ACK").await;
        world.ue.response(486).await;
        world.ue.send(&call.request("ACK", "", "")).await;
    }
}

#[tokio::test]
async fn refusals_are_carried_over_with_what_they_say() {
    let target = "Contact: <sip:elsewhere@other.example>\r\n";
    let mut world = World::start().await;
    for (status, headers) in [
        ("302 Moved Temporarily", target),
        ("407 Proxy Authentication Required", "Proxy-Authenticate: Digest realm=\"r\"\r\n"),
        ("422 Session Interval Too Small", "Min-SE: 120\r\n"),
        ("486 On The Phone", "Retry-After: 30\r\nReason: Q.850;cause=17\r\n"),
        ("603 Decline", "Warning: 399 somebody \"no\"\r\n"),
    ] {
        let mut call = Dialog::new(&world.ue, &format!("refused{}", &status[..3]));
        world.ue.send(&call.request("INVITE", "", OFFER)).await;
        let invite = world.network.request("INVITE").await;
        // What it could do instead it says with addresses of its own (RFC 3261 section 21.4.26).
        world.network.reply(&invite, status, "net", headers, ANSWER).await;
        world.network.request("ACK").await;
        let code = status[..3].parse().expect("a number");
        let refused = world.ue.response(code).await;
        assert_eq!(refused.body, "");
        assert!(refused.head.starts_with(&format!("SIP/2.0 {status}\r\n")), "{}", refused.head);
        for line in headers.lines().filter(|line| !line.starts_with("Warning")) {
            assert!(refused.head.contains(line), "{line} in {}", refused.head);
        }
        world.ue.send(&call.request("ACK", "", "")).await;
        world.hears(&Heard::Ended).await;
    }
    world.await_empty().await;
}

#[tokio::test]
async fn a_next_hop_that_is_busy_is_passed_over() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "reroute");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    world.network.reply(&invite, "503 Service Unavailable", "net", "", "").await;
    let second = world.spare.request("INVITE").await;
    assert_eq!(second.body, invite.body);
    assert_ne!(second.header("Call-ID"), invite.header("Call-ID"));
    world.spare.reply(&second, "200 OK", "spare", "", ANSWER).await;
    world.ue.response(200).await;
    let (_, begun) = world.heard().await;
    assert!(matches!(begun, Heard::Begun { .. }));
    assert_eq!(world.heard().await.1, Heard::Offer(Leg::Caller));
    assert!(matches!(world.heard().await.1, Heard::Rerouted(_)));
    assert_eq!(world.heard().await.1, Heard::Answer);
    // The next call does not even try the one that is busy.
    let mut call = Dialog::new(&world.ue, "rerouted");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    world.spare.request("INVITE").await;
}

#[tokio::test]
async fn a_next_hop_that_is_silent_is_passed_over() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "silent");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let first = world.network.request("INVITE").await;
    let second = world.spare.request("INVITE").await;
    // What it says then is too late.
    world.network.reply(&first, "200 OK", "late", "", ANSWER).await;
    let ack = world.network.request("ACK").await;
    let bye = world.network.request("BYE").await;
    for message in [&ack, &bye] {
        assert_eq!(message.header("Call-ID"), first.header("Call-ID"));
        assert_eq!(message.sender_tag(), first.sender_tag());
    }
    world.network.reply(&bye, "200 OK", "", "", "").await;
    world.spare.reply(&second, "486 Busy Here", "spare", "", "").await;
    world.ue.response(486).await;
}

#[tokio::test]
async fn what_the_border_refuses_does_not_go_through() {
    let mut world = World::start_with(|_| {}, Refuses { offers: true, ..Refuses::default() }).await;
    let mut call = Dialog::new(&world.ue, "offer");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let refused = world.ue.response(488).await;
    assert!(refused.header("Warning").is_some_and(|it| it.ends_with("\"not with us\"")));
    world.ue.send(&call.request("ACK", "", "")).await;
    world.network.gets_no("INVITE").await;
    world.hears(&Heard::Ended).await;
    world.await_empty().await;

    let mut world =
        World::start_with(|_| {}, Refuses { answers: true, ..Refuses::default() }).await;
    let mut call = Dialog::new(&world.ue, "answer");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    world.network.reply(&invite, "200 OK", "net", "", ANSWER).await;
    world.ue.response(488).await;
    world.ue.send(&call.request("ACK", "", "")).await;
    world.network.request("ACK").await;
    let bye = world.network.request("BYE").await;
    world.network.reply(&bye, "200 OK", "", "", "").await;
    world.hears(&Heard::Ended).await;
    world.await_empty().await;
}

#[tokio::test]
async fn the_border_releases_both_legs_with_a_reason() {
    const REASON: &str = "Q.850;cause=41;text=\"TLS handshake failed\"";
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "release");
    world.establish(&mut call).await;
    let (id, _) = world.heard().await;
    world.b2bua.act(Action::Release { call: id, reason: REASON.to_owned() });
    for ua in [&mut world.ue, &mut world.network] {
        let bye = ua.request("BYE").await;
        assert_eq!(bye.header("Reason"), Some(REASON));
        ua.reply(&bye, "200 OK", "", "", "").await;
    }
    world.hears(&Heard::Ended).await;
    world.await_empty().await;
    // Before the answer it is a CANCEL and a refusal.
    let mut call = Dialog::new(&world.ue, "early-release");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    world.network.reply(&invite, "180 Ringing", "net", "", "").await;
    world.ue.response(180).await;
    let (id, _) = world.heard().await;
    world.b2bua.act(Action::Release { call: id, reason: REASON.to_owned() });
    let refused = world.ue.response(480).await;
    assert_eq!(refused.header("Reason"), Some(REASON));
    world.ue.send(&call.request("ACK", "", "")).await;
    let cancel = world.network.request("CANCEL").await;
    assert_eq!(cancel.header("Reason"), Some(REASON));
    world.network.reply(&cancel, "200 OK", "net", "", "").await;
    world.network.reply(&invite, "487 Request Terminated", "net", "", "").await;
    world.hears(&Heard::Ended).await;
    world.await_empty().await;
}

#[tokio::test]
async fn a_session_that_nobody_refreshes_is_released() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "timer");
    world.ue.send(&call.request("INVITE", "Supported: timer\r\n", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    let interval = "Session-Expires: 2;refresher=uac\r\nRequire: timer\r\n";
    world.network.reply(&invite, "200 OK", "net", interval, ANSWER).await;
    let ok = world.ue.response(200).await;
    assert_eq!(ok.header("Session-Expires"), Some("2;refresher=uac"));
    call.remote_tag = Some(ok.to_tag().to_owned());
    world.ue.send(&call.request("ACK", "", "")).await;
    for ua in [&mut world.ue, &mut world.network] {
        let bye = ua.request("BYE").await;
        assert!(bye.header("Reason").is_some_and(|it| it.contains("not refreshed")));
        ua.reply(&bye, "200 OK", "", "", "").await;
    }
    world.await_empty().await;
    assert_eq!(world.b2bua.metrics().sessions_expired.get(), 1);
}

#[tokio::test]
async fn of_several_branches_the_first_that_answers_has_the_call() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "fork");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    let mut tags = Vec::new();
    for branch in ["one", "two"] {
        world.network.reply(&invite, "183 Session Progress", branch, "", ANSWER).await;
        tags.push(world.ue.response(183).await.to_tag().to_owned());
    }
    assert_ne!(tags[0], tags[1]);
    world.network.reply(&invite, "200 OK", "two", "", ANSWER).await;
    let ok = world.ue.response(200).await;
    assert_eq!(ok.to_tag(), tags[1]);
    call.remote_tag = Some(tags[1].clone());
    world.ue.send(&call.request("ACK", "", "")).await;
    let ack = world.network.request("ACK").await;
    assert!(ack.header("To").is_some_and(|it| it.ends_with(";tag=two")));
    // The other one was too late.
    world.network.reply(&invite, "200 OK", "one", "", ANSWER).await;
    let ack = world.network.request("ACK").await;
    assert!(ack.header("To").is_some_and(|it| it.ends_with(";tag=one")));
    let bye = world.network.request("BYE").await;
    assert!(bye.header("To").is_some_and(|it| it.ends_with(";tag=one")));
    world.network.reply(&bye, "200 OK", "", "", "").await;
    // A 2xx that comes again gets its ACK again.
    world.network.reply(&invite, "200 OK", "two", "", ANSWER).await;
    let ack = world.network.request("ACK").await;
    assert!(ack.header("To").is_some_and(|it| it.ends_with(";tag=two")));
}

#[tokio::test]
async fn a_description_among_other_parts_is_exchanged_and_the_others_are_carried() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "parts");
    call.target = "tel:+4912345".to_owned();
    call.to = "<tel:+4912345>".to_owned();
    let body = format!(
        "--cut\r\nContent-Type: application/sdp\r\n\r\n{OFFER}\r\n--cut\r\n\
         Content-Type: application/vnd.3gpp.cw+xml\r\n\r\n<x/>\r\n--cut--\r\n"
    );
    let parts = "Content-Type: multipart/mixed;boundary=cut\r\n";
    world.ue.send(&call.request("INVITE", parts, &body)).await;
    let invite = world.network.request("INVITE").await;
    assert!(invite.head.starts_with("INVITE tel:+4912345 SIP/2.0\r\n"), "{}", invite.head);
    assert_eq!(invite.header("Content-Type"), Some("multipart/mixed;boundary=cut"));
    assert!(invite.body.contains("a=offered:Caller 1\r\n"), "{}", invite.body);
    assert!(invite.body.ends_with("<x/>\r\n--cut--\r\n"), "{}", invite.body);
    // One that cannot be told from the rest does not pass by the border.
    let mut call = Dialog::new(&world.ue, "nested");
    let nested = body.replace("application/vnd.3gpp.cw+xml", "multipart/mixed;boundary=inner");
    world.ue.send(&call.request("INVITE", parts, &nested)).await;
    world.ue.response(415).await;
}
