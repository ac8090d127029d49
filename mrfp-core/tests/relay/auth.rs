//! Who may use it.

use crate::world::*;
use mrfp_core::Limits;
use mrfp_io::Simulator;

fn challenge_of(peer: &mut Peer, world: &mut crate::common::World) -> Message {
    peer.send(world, request("ask1", "AUTH", RELAY, ALICE_URI, ""));
    peer.run(world);
    peer.take().pop().expect("a challenge")
}

fn login<'a>(nonce: &'a str) -> Login<'a> {
    Login {
        user: "alice",
        password: "secret",
        nonce,
        count: 1,
        uri: RELAY,
        with_uri: false,
        sha256: false,
    }
}

#[test]
fn hands_out_a_uri_for_the_right_password_in_every_dialect() {
    for (with_uri, sha256) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = world();
        let mut peer = Peer::connect(&mut world, KNOWN_PORT);
        let challenge = challenge_of(&mut peer, &mut world);
        assert_eq!(challenge.start, "401");
        assert_eq!(challenge.to, ALICE_URI);
        assert_eq!(challenge.from, RELAY);
        assert_eq!(challenge.headers.len(), 2, "one challenge for each algorithm");
        let header = challenge.header("WWW-Authenticate").unwrap();
        let nonce = parameter(header, "nonce").unwrap();
        assert!(parameter(header, "opaque").is_some());
        let login = Login { with_uri, sha256, ..login(&nonce) };
        peer.send(&mut world, request("go01", "AUTH", RELAY, ALICE_URI, &login.header()));
        peer.run(&mut world);
        let granted = peer.take().pop().unwrap();
        assert_eq!(granted.start, "200");
        assert_eq!(granted.header("Expires"), Some("900"));
        let info = granted.header("Authentication-Info").unwrap();
        assert_eq!(parameter(info, "cnonce").as_deref(), Some("c0ffee"));
        assert_eq!(parameter(info, "nc").as_deref(), Some("00000001"));
        assert_eq!(parameter(info, "qop").as_deref(), Some("auth"));
        assert_eq!(parameter(info, "rspauth").unwrap().len(), if sha256 { 64 } else { 32 });
        let path = granted.header("Use-Path").unwrap();
        assert!(path.starts_with("msrp://relay.example:2900/") && path.ends_with(";tcp"), "{path}");
        let session_id = path.strip_prefix("msrp://relay.example:2900/").unwrap();
        assert!(session_id.len() >= 26, "128 bits");
        // The next nonce serves for another URI, with the count of the first use.
        let next = parameter(info, "nextnonce").unwrap();
        let login = Login { with_uri, sha256, ..crate::auth::login(&next) };
        peer.send(&mut world, request("go02", "AUTH", RELAY, ALICE_URI, &login.header()));
        peer.run(&mut world);
        let second = peer.take().pop().unwrap();
        assert_eq!(second.start, "200");
        assert_ne!(second.header("Use-Path"), Some(path), "a URI for each session");
        finish(&mut world, &[&peer]);
    }
}

#[test]
fn a_wrong_password_or_user_is_challenged_again_and_soon_cut_off() {
    for (user, password) in [("alice", "wrong"), ("nobody", "secret"), ("", "")] {
        let mut world = world();
        let mut peer = Peer::connect(&mut world, KNOWN_PORT);
        let challenge = challenge_of(&mut peer, &mut world);
        let nonce = parameter(challenge.header("WWW-Authenticate").unwrap(), "nonce").unwrap();
        for count in 1..=5 {
            assert!(!world.shard.driver_mut().peer_saw_end(peer.id), "attempt {count}");
            let login = Login { user, password, count, ..login(&nonce) };
            peer.send(&mut world, request("go01", "AUTH", RELAY, ALICE_URI, &login.header()));
            peer.run(&mut world);
            let answer = peer.take().pop().unwrap();
            assert_eq!(answer.start, "401");
            assert!(!answer.headers[0].contains("stale"));
        }
        assert!(world.shard.driver_mut().peer_saw_end(peer.id));
        assert_eq!(world.measure().relay_registrations, 0);
        finish(&mut world, &[&peer]);
    }
}

#[test]
fn a_replayed_or_old_nonce_is_stale_and_counts_as_no_failure() {
    let mut world = world();
    let mut peer = Peer::connect(&mut world, KNOWN_PORT);
    let challenge = challenge_of(&mut peer, &mut world);
    let nonce = parameter(challenge.header("WWW-Authenticate").unwrap(), "nonce").unwrap();
    let header = login(&nonce).header();
    for (attempt, expected) in ["200", "401", "401", "401", "401", "401", "401"].iter().enumerate()
    {
        peer.send(&mut world, request("go01", "AUTH", RELAY, ALICE_URI, &header));
        peer.run(&mut world);
        let answer = peer.take().pop().unwrap();
        assert_eq!(answer.start, *expected, "attempt {attempt}");
        if *expected == "401" {
            assert!(answer.headers.iter().all(|line| line.ends_with("stale=true")));
        }
    }
    world.pass(1_900);
    let header = Login { count: 2, ..login(&nonce) }.header();
    peer.send(&mut world, request("go02", "AUTH", RELAY, ALICE_URI, &header));
    peer.run(&mut world);
    let answer = peer.take().pop().unwrap();
    assert!(answer.headers[0].contains("stale=true"), "{answer:?}");
    finish(&mut world, &[&peer]);
}

#[test]
fn the_digest_of_another_request_is_refused() {
    let mut world = world();
    let mut peer = Peer::connect(&mut world, KNOWN_PORT);
    let challenge = challenge_of(&mut peer, &mut world);
    let nonce = parameter(challenge.header("WWW-Authenticate").unwrap(), "nonce").unwrap();
    let other = "msrp://other.example;tcp";
    let login = Login { uri: other, with_uri: true, ..login(&nonce) };
    peer.send(&mut world, request("go01", "AUTH", RELAY, ALICE_URI, &login.header()));
    peer.run(&mut world);
    assert_eq!(peer.take_starts(), ["400"]);
    finish(&mut world, &[&peer]);
}

#[test]
fn sess_algorithms_and_auth_int_are_answered_with_what_is_offered() {
    for change in [("qop=auth", "qop=auth-int"), ("qop=auth", "qop=auth, algorithm=MD5-sess")] {
        let mut world = world();
        let mut peer = Peer::connect(&mut world, KNOWN_PORT);
        let challenge = challenge_of(&mut peer, &mut world);
        let nonce = parameter(challenge.header("WWW-Authenticate").unwrap(), "nonce").unwrap();
        let header = login(&nonce).header().replace(change.0, change.1);
        peer.send(&mut world, request("go01", "AUTH", RELAY, ALICE_URI, &header));
        peer.run(&mut world);
        assert_eq!(peer.take_starts(), ["401"]);
        finish(&mut world, &[&peer]);
    }
}

#[test]
fn an_interval_out_of_bounds_is_refused_with_the_bound() {
    for (expires, status, bound) in [
        ("0", "423", Some("Min-Expires: 60")),
        ("59", "423", Some("Min-Expires: 60")),
        ("60", "200", None),
        ("3600", "200", None),
        ("3601", "423", Some("Max-Expires: 3600")),
        ("99999999999999999999", "423", Some("Max-Expires: 3600")),
        ("soon", "400", None),
    ] {
        let mut world = world();
        let mut peer = Peer::connect(&mut world, KNOWN_PORT);
        let challenge = challenge_of(&mut peer, &mut world);
        let nonce = parameter(challenge.header("WWW-Authenticate").unwrap(), "nonce").unwrap();
        let headers = format!("Expires: {expires}\r\n{}", login(&nonce).header());
        peer.send(&mut world, request("go01", "AUTH", RELAY, ALICE_URI, &headers));
        peer.run(&mut world);
        let answer = peer.take().pop().unwrap();
        assert_eq!(answer.start, status, "{expires}");
        if let Some(bound) = bound {
            assert_eq!(answer.headers, [bound]);
        }
        finish(&mut world, &[&peer]);
    }
}

#[test]
fn nothing_is_handed_out_in_the_clear_unless_configured() {
    let config = mrfp_core::RelayConfig { allow_plain: false, ..config() };
    let mut world = world_with(Simulator::without_faults(), Limits::default(), config);
    let mut peer = Peer::connect(&mut world, KNOWN_PORT);
    peer.send(&mut world, request("ask1", "AUTH", RELAY, ALICE_URI, ""));
    peer.run(&mut world);
    assert_eq!(peer.take_starts(), ["403"]);
    finish(&mut world, &[&peer]);
}

#[test]
fn a_user_beyond_its_limits_gets_403() {
    let mut config = config();
    config.limits.registrations_per_user_max = 3;
    config.limits.connections_per_user_max = 2;
    let mut world = world_with(Simulator::without_faults(), Limits::default(), config);
    let mut first = Client::new(&mut world, "alice", ALICE_URI);
    let second = Client::new(&mut world, "alice", ALICE_URI);
    let refused = |world: &mut crate::common::World, peer: &mut Peer| {
        peer.send(world, request("ask1", "AUTH", RELAY, ALICE_URI, ""));
        peer.run(world);
        let challenge = peer.take().pop().unwrap();
        let nonce = parameter(challenge.header("WWW-Authenticate").unwrap(), "nonce").unwrap();
        let headers = login(&nonce).header();
        peer.send(world, request("go01", "AUTH", RELAY, ALICE_URI, &headers));
        peer.run(world);
        peer.take_starts()
    };
    let mut third = Peer::connect(&mut world, KNOWN_PORT);
    assert_eq!(refused(&mut world, &mut third), ["403"], "too many connections");
    assert_eq!(refused(&mut world, &mut first.peer), ["200"]);
    assert_eq!(refused(&mut world, &mut first.peer), ["403"], "too many URIs");
    let other = Client::new(&mut world, "bob", ALICE_URI);
    assert_eq!(world.measure().relay_refused_limit, 2);
    // What is given back can be had again.
    world.shard.driver_mut().peer_close(second.peer.id);
    world.pass(3);
    assert_eq!(refused(&mut world, &mut third), ["200"]);
    finish(&mut world, &[&first.peer, &third, &other.peer]);
}

#[test]
fn a_uri_named_in_the_to_path_is_prolonged_and_otherwise_runs_out() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let to = format!("{} {BOB_URI}", alice.through);
    world.pass(800);
    assert_eq!(
        authenticate(&mut world, &mut alice.peer, "alice", &alice.through.clone(), ALICE_URI),
        alice.through
    );
    world.pass(800);
    alice.peer.send(&mut world, send("still1", &to, ALICE_URI, "", b"still"));
    exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    assert_eq!(alice.peer.take_starts(), ["200"]);
    assert_eq!(bob.take_starts(), ["SEND"]);
    world.pass(200);
    alice.peer.send(&mut world, send("gone1", &to, ALICE_URI, "", b"gone"));
    exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    assert_eq!(alice.peer.take_starts(), ["481"]);
    assert_eq!(bob.take_starts(), [] as [&str; 0]);
    assert_eq!(world.measure().relay_registrations_expired, 1);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_connection_without_a_successful_request_is_closed_after_thirty_seconds() {
    let mut world = world();
    let mut peer = Peer::connect(&mut world, KNOWN_PORT);
    challenge_of(&mut peer, &mut world);
    world.pass(28);
    assert!(!world.shard.driver_mut().peer_saw_end(peer.id));
    world.pass(4);
    assert!(world.shard.driver_mut().peer_saw_end(peer.id));
    finish(&mut world, &[&peer]);
}
