//! The media logic of the border: what the shards are told of offers and answers, and how calls end.

mod border_shards;

use std::net::IpAddr as UeAddress;

use border_shards::*;
use control_api::border::sdp::Start;
use control_api::border::{
    BorderCallId, Event, ExchangeId, Leg, MediaSecurity, Party, Refusal as Refused, SideRole,
};
use mrfp_core::mp::{
    Bearer, Command, Establishment, Event as Mp, Refusal, ReleaseCause, Source, TlsRole,
};

/// A UE that asks for protection up to the access edge.
fn protected(version: u32) -> String {
    format!(
        "v=0\r\no=ue 1 {version} IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n\
         m=message 40210 TCP/TLS/MSRP *\r\na=setup:active\r\na=3ge2ae:requested\r\n\
         a=fingerprint:{FINGERPRINT}\r\na=accept-types:*\r\na=msrp-cema\r\n\
         a=path:msrps://198.51.100.7:40210/q7Fz0K2m9XbA;tcp\r\n"
    )
}

/// A peer in the core.
fn plain(version: u32, setup: &str) -> String {
    format!(
        "v=0\r\no=peer 1 {version} IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
         m=message 50210 TCP/MSRP *\r\na=setup:{setup}\r\na=accept-types:*\r\na=msrp-cema\r\n\
         a=path:msrp://192.0.2.9:50210/p7Fz0K2m9XbA;tcp\r\n"
    )
}

/// The same after its last stream was switched off.
fn switched_off(sdp: &str) -> String {
    sdp.replace("m=message 50210", "m=message 0").replace("m=message 40210", "m=message 0")
}

fn established(world: &mut World) {
    world.begin(CALL, access(), core());
    world.offer(1, Leg::Caller, &protected(1)).expect("goes on");
    world.answer(1, &plain(1, "passive")).expect("goes back");
    world.bound(SideRole::Access);
    world.bound(SideRole::Core);
}

#[test]
fn a_ue_gets_tls_up_to_the_access_edge_and_the_core_none() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    let exchange = ExchangeId(1);
    let sdp = protected(1).into();
    world.event(Event::Offer { call: CALL, exchange, from: Leg::Caller, sdp });
    // The side that the offer goes to comes first, in the Context of both.
    let reserved: Vec<_> = world
        .asked
        .iter()
        .map(|(_, command)| match command {
            Command::ReserveConnectionPoint(it) => (it.context, it.interface.0, it.bearer),
            other => panic!("{other:?}"),
        })
        .collect();
    let context = reserved[0].0;
    assert_eq!(reserved, [(context, 1, Bearer::Tcp), (context, 0, Bearer::TlsOverTcp)]);
    assert!(world.wanted.is_empty(), "the addresses are not known yet");
    world.shards_answer();
    let Some(control_api::border::Action::Offer { outcome: Ok(offer), .. }) =
        world.wanted.pop_front()
    else {
        panic!("the offer goes on")
    };
    let offer = String::from_utf8(offer).expect("text");
    assert!(offer.contains(" TCP/MSRP *\r\n") && offer.contains("203.0.113.2"), "{offer}");
    assert!(!offer.contains("fingerprint") && offer.contains("c=IN IP4 203.0.113.2"), "{offer}");
    // Nothing is connected before the answer.
    assert!(world.points.values().all(|point| point.remote.is_none()));

    let answer = world.answer(1, &plain(1, "passive")).expect("goes back");
    assert!(answer.contains(" TCP/TLS/MSRP *\r\n") && answer.contains("203.0.113.1"), "{answer}");
    assert!(answer.contains(&format!("a=fingerprint:{FINGERPRINT}\r\n")), "{answer}");
    assert!(answer.contains("a=setup:passive\r\n"), "{answer}");
    let remote = |side| world.on(side)[0].1.remote.clone().expect("configured");
    let (ue, peer) = (remote(SideRole::Access), remote(SideRole::Core));
    assert_eq!((ue.establishment, ue.tls_role), (Establishment::Incoming, TlsRole::Server));
    assert_eq!(ue.fingerprints.len(), 1);
    // Its certificate tells who it is, wherever it comes from.
    assert_eq!(ue.source, Source::Any);
    assert_eq!(peer.establishment, Establishment::AtOnce);
    assert_eq!(peer.address, Some("192.0.2.9:50210".parse().expect("an address")));
    world.end();
    let carried = &world.border.counters().carried;
    assert_eq!(carried[&SideRole::Access].bytes_received, 10);
    assert_eq!(carried[&SideRole::Core].bytes_sent, 20);
}

#[test]
fn a_registered_ue_is_called_with_tls() {
    let mut world = World::new(config());
    world.begin(CALL, core(), access());
    let offer = world.offer(1, Leg::Caller, &plain(1, "actpass")).expect("goes on");
    assert!(offer.contains("TCP/TLS/MSRP") && offer.contains("a=3ge2ae:applied"), "{offer}");
    let answer = world.answer(1, &protected(1).replace("a=3ge2ae:requested\r\n", ""));
    let answer = answer.expect("goes back");
    assert!(answer.contains("TCP/MSRP") && !answer.contains("fingerprint"), "{answer}");
    world.end();
    // Who has agreed on nothing is called as it came.
    let mut world = World::new(config());
    world.begin(CALL, core(), Party { security: MediaSecurity::default(), ..access() });
    let offer = world.offer(1, Leg::Caller, &plain(1, "actpass")).expect("goes on");
    assert!(offer.contains(" TCP/MSRP *"), "{offer}");
    assert!(world.on(SideRole::Access)[0].1.reserved.bearer == Bearer::Tcp);
    world.end();
}

#[test]
fn a_connection_that_comes_in_triggers_the_other_where_the_operator_wants_it() {
    let mut triggers = config();
    triggers.rules.start = Start::IncomingTriggers;
    for (config, expected) in
        [(config(), Establishment::AtOnce), (triggers, Establishment::WhenOtherComesIn)]
    {
        let mut world = World::new(config);
        established(&mut world);
        let peer = world.on(SideRole::Core)[0].1.remote.clone().expect("configured");
        assert_eq!(peer.establishment, expected);
        world.end();
    }
}

#[test]
fn a_certificate_that_was_not_announced_ends_the_call_with_the_reason() {
    let causes = [
        (ReleaseCause::PeerNotAuthenticated, "certificate not as announced (access side)"),
        (ReleaseCause::TlsEstablishmentFailure, "TLS handshake failed (access side)"),
        (ReleaseCause::TcpEstablishmentFailure, "no TCP connection (access side)"),
    ];
    for (cause, text) in causes {
        let mut world = World::new(config());
        world.begin(CALL, access(), core());
        world.offer(1, Leg::Caller, &protected(1)).expect("goes on");
        world.answer(1, &plain(1, "passive")).expect("goes back");
        world.released(SideRole::Access, cause);
        let reason = world.release().expect("both legs are released");
        assert_eq!(reason, format!("Q.850;cause=41;text=\"{text}\""));
        // What the other side says of it afterwards changes nothing.
        world.shards_answer();
        assert!(world.points.is_empty());
        let released = &world.border.counters().bearers_released;
        assert_eq!(released[&(SideRole::Access, "end-to-access-edge", cause)], 1);
        assert_eq!(world.border.calls(), 1, "the front has not ended it");
        world.end();
    }
}

#[test]
fn whoever_closes_its_connection_has_time_to_hang_up() {
    let mut world = World::new(config());
    established(&mut world);
    world.released(SideRole::Access, ReleaseCause::PeerClosed);
    world.released(SideRole::Core, ReleaseCause::PeerClosed);
    world.wait(1);
    assert_eq!(world.release(), None);
    world.end();

    let mut world = World::new(config());
    established(&mut world);
    world.released(SideRole::Access, ReleaseCause::ConnectionLost);
    world.wait(3);
    let reason = world.release().expect("nobody hung up");
    assert_eq!(reason, "Q.850;cause=41;text=\"media connection lost (access side)\"");
    world.end();
}

#[test]
fn a_new_offer_brings_a_lost_bearer_back() {
    let mut world = World::new(config());
    established(&mut world);
    world.released(SideRole::Access, ReleaseCause::ConnectionLost);
    world.released(SideRole::Core, ReleaseCause::PeerClosed);
    let again = protected(2).replace("40210", "40220").replace("q7Fz0K2m9XbA", "r7Fz0K2m9XbA");
    world.offer(2, Leg::Caller, &again).expect("goes on");
    let other = plain(2, "passive").replace("50210", "50220").replace("p7Fz0K2m9XbA", "s7F");
    world.answer(2, &other).expect("goes back");
    assert!(world.points.values().all(|point| point.afresh && point.configured == 2));
    world.wait(10);
    assert_eq!(world.release(), None);
    assert_eq!(world.points.len(), 2, "the same connection points");
    world.end();
}

#[test]
fn a_lost_bearer_comes_back_on_both_sides_where_one_party_alone_has_moved() {
    let mut world = World::new(config());
    established(&mut world);
    // The shard ends the other connection with the lost one, and tells of that one only.
    world.released(SideRole::Access, ReleaseCause::ConnectionLost);
    let again = protected(2).replace("40210", "40220").replace("q7Fz0K2m9XbA", "r7Fz0K2m9XbA");
    world.offer(2, Leg::Caller, &again).expect("goes on");
    world.answer(2, &plain(1, "passive")).expect("goes back");
    assert!(world.points.values().all(|point| point.afresh && point.configured == 2));
    world.wait(10);
    assert_eq!(world.release(), None);
    world.end();
}

#[test]
fn tls_of_the_parties_own_begins_anew_on_both_sides_or_on_neither() {
    let between = |sdp: &str| {
        let sdp = sdp.replace("a=3ge2ae:requested\r\n", "a=key-mgmt:mikey AQAFAA==\r\n");
        sdp.replace(" TCP/MSRP", " TCP/TLS/MSRP").replace("path:msrp:", "path:msrps:")
    };
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    world.offer(1, Leg::Caller, &between(&protected(1))).expect("goes on");
    world.answer(1, &between(&plain(1, "passive"))).expect("goes back");
    assert!(world.points.values().all(|point| point.reserved.bearer == Bearer::Tcp));
    world.bound(SideRole::Access);
    world.bound(SideRole::Core);
    world.offer(2, Leg::Caller, &between(&protected(1))).expect("goes on");
    world.answer(2, &between(&plain(1, "passive"))).expect("goes back");
    assert!(world.points.values().all(|point| point.configured == 1));
    // A new session of the UE begins with a ClientHello, which is nothing for a connection that stands.
    let again = between(&protected(2)).replace("q7Fz0K2m9XbA", "r7Fz0K2m9XbA");
    world.offer(3, Leg::Caller, &again).expect("goes on");
    world.answer(3, &between(&plain(1, "passive"))).expect("goes back");
    assert!(world.points.values().all(|point| point.afresh && point.configured == 2));
    world.end();
}

#[test]
fn what_is_passed_stays_so_when_the_ue_offers_again() {
    let mut world = World::new(config());
    world.begin(CALL, core(), access());
    let fingerprint = format!("a=fingerprint:{FINGERPRINT}\r\n");
    let of_core = plain(1, "passive").replace(" TCP/MSRP", " TCP/TLS/MSRP") + &fingerprint;
    let of_core = of_core.replace("path:msrp:", "path:msrps:");
    let of_ue = |version| protected(version).replace("a=3ge2ae:requested\r\n", "");
    world.offer(1, Leg::Caller, &of_core).expect("goes on");
    world.answer(1, &of_ue(1)).expect("goes back");
    assert!(world.points.values().all(|point| point.reserved.bearer == Bearer::Tcp));
    // The session is refreshed.
    let offer = world.offer(2, Leg::Callee, &of_ue(1)).expect("goes on");
    assert!(offer.contains(" TCP/TLS/MSRP "), "{offer}");
    world.answer(2, &of_core).expect("goes back");
    assert_eq!(world.points.len(), 2);
    assert!(world.points.values().all(|point| point.configured == 1));
    world.end();
}

#[test]
fn nobody_has_the_node_connect_to_itself_or_to_no_host_at_all() {
    let elsewhere = [
        ("192.0.2.9:50210", "127.0.0.1:8080"),
        ("192.0.2.9:50210", "0.0.0.0:8080"),
        ("192.0.2.9:50210", "[::1]:8080"),
        ("192.0.2.9:50210", "[::ffff:127.0.0.1]:8080"),
        ("192.0.2.9:50210", "169.254.169.254:80"),
        ("192.0.2.9:50210", "224.0.0.1:80"),
        ("192.0.2.9:50210", "255.255.255.255:80"),
        ("192.0.2.9:50210", "192.0.2.9:0"),
        // The node, on its other side.
        ("192.0.2.9:50210", "203.0.113.1:80"),
    ];
    for (from, to) in elsewhere {
        let mut world = World::new(config());
        world.begin(CALL, access(), core());
        world.offer(1, Leg::Caller, &protected(1)).expect("goes on");
        let answer = plain(1, "passive").replace("a=msrp-cema\r\n", "").replace(from, to);
        assert!(answer.contains(to));
        let refusal = world.answer(1, &answer).expect_err(to);
        assert_eq!(refusal.status, 488, "{to}");
        assert!(world.points.values().all(|point| point.remote.is_none()), "{to}");
        world.end();
    }
    for to in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "203.0.113.1"] {
        let mut world = World::new(config());
        world.begin(CALL, access(), core());
        world.offer(1, Leg::Caller, &protected(1)).expect("goes on");
        let answer = plain(1, "passive").replace("c=IN IP4 192.0.2.9", &format!("c=IN IP4 {to}"));
        let refusal = world.answer(1, &answer).expect_err(to);
        assert_eq!(refusal.status, 488, "{to}");
        world.end();
    }
    // A datagram is sent unasked.
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    let fax = |to: &str| {
        format!(
            "v=0\r\no=a 1 1 IN IP4 {to}\r\ns=-\r\nc=IN IP4 {to}\r\nt=0 0\r\nm=image 53 udptl t38\r\n"
        )
    };
    world.offer(1, Leg::Caller, &fax("198.51.100.7")).expect("goes on");
    assert_eq!(world.answer(1, &fax("127.0.0.1")).expect_err("loopback").status, 488);
    world.end();
}

#[test]
fn what_a_party_says_takes_no_more_room_than_it_is_worth() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    let lines = |what: &str, count: usize| protected(1) + &what.repeat(count);
    let status = |outcome: Result<String, _>| outcome.err().map(|it: Refused| it.status);
    assert_eq!(status(world.offer(1, Leg::Caller, &lines("a=\r\n", 10_000))), Some(488));
    let fingerprint = format!("a=fingerprint:{FINGERPRINT}\r\n");
    assert_eq!(status(world.offer(2, Leg::Caller, &lines(&fingerprint, 100))), Some(488));
    // What stands for the session would be written under each m-line.
    let session = format!("t=0 0\r\na=fingerprint:{}\r\n", "x".repeat(40_000));
    let bfcp = "m=application 50000 TCP/TLS/BFCP *\r\na=setup:active\r\n".repeat(30);
    let offer = protected(1).replace("t=0 0\r\n", &session) + &bfcp;
    assert_eq!(status(world.offer(3, Leg::Caller, &offer)), Some(488));
    world.offer(4, Leg::Caller, &lines("a=x\r\n", 500)).expect("goes on");
    world.end();
}

#[test]
fn while_a_fax_is_on_hold_nobody_else_takes_its_place() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    let fax = |version: u32, at: &str| {
        format!(
            "v=0\r\no=a 1 {version} IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 {at}\r\nt=0 0\r\n\
             m=image 7000 udptl t38\r\n"
        )
    };
    world.offer(1, Leg::Caller, &fax(1, "198.51.100.7")).expect("goes on");
    world.answer(1, &fax(1, "192.0.2.9")).expect("goes back");
    let source =
        |world: &World| world.on(SideRole::Core)[0].1.remote.as_ref().expect("configured").source;
    assert_eq!(source(&world), Source::Address);
    world.offer(2, Leg::Callee, &fax(2, "0.0.0.0")).expect("goes on");
    world.answer(2, &fax(2, "198.51.100.7")).expect("goes back");
    assert_ne!(source(&world), Source::Any);
    world.end();
}

#[test]
fn a_new_offer_that_has_come_in_time_may_be_answered_later() {
    let mut world = World::new(config());
    established(&mut world);
    world.released(SideRole::Access, ReleaseCause::ConnectionLost);
    let again = protected(2).replace("40210", "40220").replace("q7Fz0K2m9XbA", "r7Fz0K2m9XbA");
    world.offer(2, Leg::Caller, &again).expect("goes on");
    world.wait(3);
    assert_eq!(world.release(), None, "it is with the other party");
    world.answer(2, &plain(1, "passive")).expect("goes back");
    world.wait(10);
    assert_eq!(world.release(), None);
    // Refused, it was none.
    world.released(SideRole::Access, ReleaseCause::TcpEstablishmentFailure);
    assert!(world.release().is_some());
    world.end();
    let mut world = World::new(config());
    established(&mut world);
    world.released(SideRole::Access, ReleaseCause::ConnectionLost);
    world.offer(2, Leg::Caller, &again).expect("goes on");
    world.wait(3);
    world.event(Event::Withdrawn { call: CALL, exchange: ExchangeId(2) });
    world.shards_answer();
    world.wait(3);
    assert!(world.release().is_some(), "nothing has come of it");
    world.end();
}

#[test]
fn msrp_knows_nothing_of_new_connections() {
    let mut world = World::new(config());
    let new = |sdp: String| sdp + "a=connection:new\r\n";
    world.begin(CALL, access(), core());
    for version in 1..=2 {
        world.offer(version, Leg::Caller, &new(protected(version))).expect("goes on");
        world.answer(version, &new(plain(version, "passive"))).expect("goes back");
    }
    assert!(world.points.values().all(|point| !point.afresh), "RFC 6135 section 4.4");
    world.end();
}

#[test]
fn a_ue_is_known_whichever_way_the_listener_writes_its_address() {
    let mut world = World::new(config());
    let UeAddress::V4(ue) = UE else { panic!("it has one of IPv4") };
    let caller = Party { signalling: Some(ue.to_ipv6_mapped().into()), ..access() };
    world.begin(CALL, caller, core());
    let unprotected = protected(1).replace("TCP/TLS/", "TCP/").replace("msrps:", "msrp:");
    world.offer(1, Leg::Caller, &unprotected).expect("goes on");
    world.answer(1, &plain(1, "passive")).expect("goes back");
    let remote = world.on(SideRole::Access)[0].1.remote.as_ref().expect("configured");
    assert_eq!(remote.source, Source::Host(UE));
    world.end();
}

#[test]
fn of_many_streams_the_first_few_pass() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    let bfcp = "m=application 50000 TCP/BFCP *\r\na=setup:active\r\n".repeat(31);
    let offer = world.offer(1, Leg::Caller, &(protected(1) + &bfcp)).expect("goes on");
    assert_eq!(world.points.len(), 16, "two for each stream");
    assert_eq!(offer.matches("m=application 0 ").count(), 24, "{offer}");
    world.end();
}

#[test]
fn what_is_between_the_ue_and_us_stays_there_for_media_that_is_not_ours_too() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    let audio = "m=audio 49170 RTP/SAVP 0\r\na=3ge2ae:requested\r\n";
    let offer = world.offer(1, Leg::Caller, &(protected(1) + audio)).expect("goes on");
    assert!(offer.contains("m=audio 49170 RTP/SAVP 0\r\n") && !offer.contains("3ge2ae"), "{offer}");
    world.end();
}

#[test]
fn nobody_need_connect_while_connections_are_on_hold() {
    let floor = |version: u32, at: &str, setup: &str| {
        format!(
            "v=0\r\no=a 1 {version} IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 {at}\r\nt=0 0\r\n\
             m=application 20000 TCP/BFCP *\r\na=setup:{setup}\r\n"
        )
    };
    let held = [
        [floor(1, "198.51.100.7", "holdconn"), floor(1, "192.0.2.9", "holdconn")],
        [floor(1, "198.51.100.7", "active"), floor(1, "0.0.0.0", "passive")],
    ];
    for [offer, answer] in held {
        let mut world = World::new(config());
        world.begin(CALL, access(), core());
        world.offer(1, Leg::Caller, &offer).expect("goes on");
        world.answer(1, &answer).expect("goes back");
        for side in [SideRole::Access, SideRole::Core] {
            world.released(side, ReleaseCause::TcpEstablishmentFailure);
        }
        world.wait(60);
        assert_eq!(world.release(), None, "RFC 4145 section 4.1, RFC 3264 section 8.4");
        world.offer(2, Leg::Caller, &floor(2, "198.51.100.7", "active")).expect("goes on");
        world.answer(2, &floor(2, "192.0.2.9", "passive")).expect("goes back");
        assert!(world.points.values().all(|point| point.afresh));
        world.released(SideRole::Core, ReleaseCause::TcpEstablishmentFailure);
        assert!(world.release().is_some(), "now somebody was to");
        world.end();
    }
}

#[test]
fn an_association_that_did_not_come_up_on_hold_does_so_afterwards() {
    let fax = |version: u32, at: &str, protocol: &str, more: &str| {
        format!(
            "v=0\r\no=a 1 {version} IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 {at}\r\nt=0 0\r\n\
             m=image 7000 {protocol} t38\r\n{more}"
        )
    };
    let ue = |version, at| {
        let more = format!("a=setup:active\r\na=fingerprint:{FINGERPRINT}\r\n");
        fax(version, at, "UDP/TLS/UDPTL", &more)
    };
    let mut world = World::new(config());
    world.begin(CALL, core(), access());
    world.offer(1, Leg::Caller, &fax(1, "192.0.2.9", "udptl", "")).expect("goes on");
    world.answer(1, &ue(1, "0.0.0.0")).expect("goes back");
    world.released(SideRole::Access, ReleaseCause::TlsEstablishmentFailure);
    assert_eq!(world.release(), None);
    world.offer(2, Leg::Caller, &fax(1, "192.0.2.9", "udptl", "")).expect("goes on");
    world.answer(2, &ue(2, "198.51.100.7")).expect("goes back");
    assert!(world.on(SideRole::Access)[0].1.afresh);
    assert!(!world.on(SideRole::Core)[0].1.afresh);
    world.end();
}

#[test]
fn an_offer_that_changes_nothing_leaves_the_connections_alone() {
    let mut world = World::new(config());
    established(&mut world);
    // The session is refreshed, by either party.
    world.offer(2, Leg::Caller, &protected(1)).expect("goes on");
    world.answer(2, &plain(1, "passive")).expect("goes back");
    let offer = world.offer(3, Leg::Callee, &plain(1, "passive")).expect("goes on");
    assert!(offer.contains("TCP/TLS/MSRP"), "it stays protected: {offer}");
    world.answer(3, &protected(1).replace("a=3ge2ae:requested\r\n", "")).expect("goes back");
    assert!(world.points.values().all(|point| !point.afresh), "a connection was given up");
    assert_eq!(world.points.len(), 2);
    world.end();
}

#[test]
fn a_change_that_is_refused_leaves_everything_as_it_was() {
    let mut world = World::new(config());
    established(&mut world);
    let second = "m=message 40300 TCP/MSRP *\r\na=setup:active\r\na=accept-types:*\r\n\
        a=path:msrp://198.51.100.7:40300/zzz;tcp\r\n";
    world.offer(2, Leg::Caller, &format!("{}{second}", protected(2))).expect("goes on");
    assert_eq!(world.points.len(), 4);
    world.event(Event::Withdrawn { call: CALL, exchange: ExchangeId(2) });
    world.shards_answer();
    assert_eq!(world.points.len(), 2);
    assert!(world.points.values().all(|point| point.configured == 1));
    // The same after an answer that came early.
    world.offer(3, Leg::Caller, &format!("{}{second}", protected(3))).expect("goes on");
    let moved = plain(2, "passive").replace("50210", "50220");
    let other = moved.lines().skip_while(|line| !line.starts_with("m=")).collect::<Vec<_>>();
    let other = other.join("\r\n").replace("50220", "50300") + "\r\n";
    world.answer(3, &format!("{moved}{other}")).expect("goes back");
    assert_eq!(world.points.len(), 4);
    world.event(Event::Withdrawn { call: CALL, exchange: ExchangeId(3) });
    world.shards_answer();
    assert_eq!(world.points.len(), 2);
    let peer = world.on(SideRole::Core)[0].1.remote.clone().expect("configured");
    assert_eq!(peer.address, Some("192.0.2.9:50210".parse().expect("an address")));
    assert_eq!(world.release(), None);
    world.end();
}

#[test]
fn a_stream_that_is_switched_off_or_declined_gives_its_connection_points_back() {
    let mut world = World::new(config());
    established(&mut world);
    world.offer(2, Leg::Caller, &switched_off(&protected(2))).expect("goes on");
    assert_eq!(world.points.len(), 2, "until the other party agrees");
    world.answer(2, &switched_off(&plain(2, "passive"))).expect("goes back");
    assert!(world.points.is_empty());
    world.offer(3, Leg::Caller, &protected(3)).expect("goes on");
    world.answer(3, &switched_off(&plain(3, "passive"))).expect("goes back");
    assert!(world.points.is_empty());
    assert_eq!(world.border.terminations(), 0);
    world.end();
}

#[test]
fn of_several_answers_the_last_one_holds() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    world.offer(1, Leg::Caller, &protected(1)).expect("goes on");
    world.answer(1, &plain(1, "passive")).expect("goes back");
    // Its repetition changes nothing, another branch of a fork does.
    world.answer(1, &plain(1, "passive")).expect("goes back");
    assert!(world.points.values().all(|point| point.configured == 1));
    let other = plain(1, "passive").replace("192.0.2.9", "192.0.2.10");
    world.answer(1, &other).expect("goes back");
    let (_, peer) = world.on(SideRole::Core)[0];
    let address = peer.remote.as_ref().and_then(|remote| remote.address);
    assert_eq!(address, Some("192.0.2.10:50210".parse().expect("an address")));
    assert!(peer.afresh);
    assert!(!world.on(SideRole::Access)[0].1.afresh, "the UE does not notice");
    world.end();
}

#[test]
fn what_one_branch_of_a_fork_declines_another_may_take() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    world.offer(1, Leg::Caller, &protected(1)).expect("goes on");
    let answer = world.answer(1, &switched_off(&plain(1, "passive"))).expect("goes back");
    assert!(answer.contains("m=message 0 "), "{answer}");
    let answer = world.answer(1, &plain(1, "passive")).expect("goes back");
    assert!(answer.contains("203.0.113.1") && !answer.contains("m=message 0 "), "{answer}");
    assert!(world.points.values().all(|point| point.configured == 1));
    // What nobody has taken is given back with the next offer.
    world.answer(1, &switched_off(&plain(1, "passive"))).expect("goes back");
    world.offer(2, Leg::Caller, &switched_off(&protected(2))).expect("goes on");
    world.answer(2, &switched_off(&plain(2, "passive"))).expect("goes back");
    assert!(world.points.is_empty());
    world.end();
}

#[test]
fn answers_wait_for_the_shard() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    world.offer(1, Leg::Caller, &protected(1)).expect("goes on");
    for version in 1..=2 {
        let sdp = plain(version, "passive").into();
        world.event(Event::Answer { call: CALL, exchange: ExchangeId(1), sdp });
    }
    assert_eq!(world.asked.len(), 2, "one answer at a time");
    world.shards_answer();
    assert_eq!(world.wanted.len(), 2);
    world.wanted.clear();
    world.end();
}

#[test]
fn what_the_shard_cannot_do_is_refused_and_what_it_does_not_answer_ends_the_call() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    let offer = |exchange, version| Event::Offer {
        call: CALL,
        exchange: ExchangeId(exchange),
        from: Leg::Caller,
        sdp: protected(version).into(),
    };
    world.event(offer(1, 1));
    // The second of the two connection points.
    world.shard_answers(None);
    world.shard_answers(Some(Refusal::CertificatesExhausted));
    let Some(control_api::border::Action::Offer { outcome: Err(refusal), .. }) =
        world.wanted.pop_front()
    else {
        panic!("refused")
    };
    assert_eq!((refusal.status, refusal.retry_after.is_some()), (503, true));
    assert_eq!(refusal.warning, Some((399, "No certificate ready".to_owned())));
    world.shards_answer();
    assert!(world.points.is_empty());
    assert_eq!(world.border.terminations(), 0);
    // The front may try again, and then the shard is silent.
    world.event(offer(2, 2));
    world.wait(6);
    let Some(control_api::border::Action::Offer { outcome: Err(refusal), .. }) =
        world.wanted.pop_front()
    else {
        panic!("refused")
    };
    assert_eq!(refusal.status, 503);
    assert_eq!(world.release().as_deref(), Some("Q.850;cause=38;text=\"media plane lost\""));
    world.end();
}

#[test]
fn a_shard_that_ends_takes_its_calls_and_no_others() {
    let mut world = World::new(config());
    established(&mut world);
    let shard = world.on(SideRole::Core)[0].1.shard;
    world.stopped.insert(shard);
    world.points.clear();
    world.event(Event::Mp { shard, event: Mp::Stopped });
    assert_eq!(world.release().as_deref(), Some("Q.850;cause=38;text=\"media plane lost\""));
    world.end();
    // The next call finds the other one.
    established(&mut world);
    assert_ne!(world.on(SideRole::Core)[0].1.shard, shard);
    world.end();
}

#[test]
fn a_full_border_says_when_to_come_back_and_a_stopping_one_drains() {
    let mut world = World::new(config());
    for call in 2..=5 {
        world.begin(BorderCallId(call), access(), core());
    }
    world.begin(CALL, access(), core());
    let refusal = world.offer(1, Leg::Caller, &protected(1)).expect_err("full");
    assert_eq!((refusal.status, refusal.retry_after.is_some()), (503, true));
    world.event(Event::Ended { call: CALL });
    world.event(Event::Shutdown);
    assert_eq!(world.wanted.len(), 4, "each of them is released");
    world.wanted.clear();
    world.begin(CALL, access(), core());
    let refusal = world.offer(1, Leg::Caller, &protected(1)).expect_err("stopping");
    assert_eq!(refusal.status, 503);
    for call in 1..=5 {
        assert!(world.wanted.is_empty());
        world.event(Event::Ended { call: BorderCallId(call) });
    }
    let drained = world.wanted.pop_front();
    assert!(matches!(drained, Some(control_api::border::Action::Drained)), "{drained:?}");
}

#[test]
fn what_cannot_be_read_is_refused_with_what_is_wrong() {
    let mut world = World::new(config());
    world.begin(CALL, access(), core());
    let refusal = world.offer(1, Leg::Caller, "v=0\r\nm=message\r\n").expect_err("malformed");
    assert_eq!(refusal.status, 488);
    world.offer(2, Leg::Caller, &protected(1)).expect("goes on");
    let refusal = world.answer(2, "v=0\r\nm=message\r\n").expect_err("malformed");
    assert_eq!(refusal.status, 488);
    world.shards_answer();
    assert!(world.points.is_empty(), "the exchange is over");
    world.end();
}
