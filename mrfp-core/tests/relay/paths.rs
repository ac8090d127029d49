//! Who may send to whom, and what becomes of the paths.

use mrfp_core::mp::{Command, Event};
use mrfp_core::{Limits, RelayConfig};
use mrfp_io::{ConnectAnswer, Simulator};

use crate::common::World;
use crate::world::*;

const NAMED_URI: &str = "msrp://peer.example:7000/named;tcp";

#[test]
fn our_uri_moves_from_the_to_path_to_the_front_of_the_from_path() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let further = "msrp://beyond.example:1/x;tcp";
    let to = format!("{} {BOB_URI} {further}", alice.through);
    let headers = "Success-Report: yes\r\nX-Unknown: Kept As It Is\r\n";
    alice.peer.send(&mut world, send("path1", &to, ALICE_URI, headers, b"hello"));
    world.settle();
    bob.run(&mut world);
    alice.peer.run(&mut world);
    let sent = bob.take().pop().unwrap();
    assert_eq!(sent.to, format!("{BOB_URI} {further}"));
    assert_eq!(sent.from, format!("{} {ALICE_URI}", alice.through));
    assert_ne!(sent.transaction, "path1");
    for kept in
        ["Message-ID: msg1", "Byte-Range: 1-5/5", "Success-Report: yes", "X-Unknown: Kept As It Is"]
    {
        assert!(sent.headers.iter().any(|line| line == kept), "{kept}");
    }
    assert_eq!(sent.headers.last().unwrap(), "Content-Type: text/plain");
    let answer = alice.peer.take().pop().unwrap();
    assert_eq!((answer.start.as_str(), answer.transaction.as_str()), ("200", "path1"));
    assert_eq!((answer.to.as_str(), answer.from.as_str()), (ALICE_URI, &*alice.through));
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_report_goes_back_along_the_path_with_everything_it_says() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let back = format!("{} {ALICE_URI}", alice.through);
    let headers = "Message-ID: msg1\r\nByte-Range: 1-39/39\r\nStatus: 000 200 OK\r\n";
    bob.send(&mut world, request("rep01", "REPORT", &back, BOB_URI, headers));
    alice.peer.run(&mut world);
    let report = alice.peer.take().pop().unwrap();
    assert_eq!(report.start, "REPORT");
    assert_eq!(report.to, ALICE_URI);
    assert_eq!(report.from, format!("{} {BOB_URI}", alice.through));
    assert_eq!(report.headers.iter().filter(|line| headers.contains(line.as_str())).count(), 3);
    assert_eq!(report.headers.len(), 3);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn whoever_knows_the_uri_reaches_its_client_and_is_reached_on_the_same_connection() {
    for port in [KNOWN_PORT, OWN_PORT] {
        let mut world = world();
        let mut alice = Client::new(&mut world, "alice", ALICE_URI);
        // A peer that listens nowhere.
        let uri = "msrp://nat.example:9/nat;tcp";
        let mut peer = Peer::connect(&mut world, port);
        let to = format!("{} {ALICE_URI}", alice.through);
        peer.send(&mut world, send("in001", &to, uri, "", b"from outside"));
        exchange(&mut world, &mut [&mut alice.peer, &mut peer]);
        assert_eq!(peer.take_starts(), ["200"]);
        assert_eq!(alice.peer.body("msg1"), b"from outside");
        alice.peer.take();
        let to = format!("{} {uri}", alice.through);
        alice.peer.send(&mut world, send("out01", &to, ALICE_URI, "", b"answer"));
        exchange(&mut world, &mut [&mut alice.peer, &mut peer]);
        assert_eq!(alice.peer.take_starts(), ["200"]);
        assert_eq!(peer.body("msg1"), b"answer");
        assert!(Peer::accept(&mut world).is_none());
        finish(&mut world, &[&alice.peer, &peer]);
    }
}

#[test]
fn nothing_else_is_relayed() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    let mut carol = Client::new(&mut world, "bob", "msrp://carol.example:1/carol;tcp");
    let mut stranger = Peer::connect(&mut world, KNOWN_PORT);
    let through = alice.through.clone();
    let outwards = format!("{through} {BOB_URI}");
    let elsewhere = format!("msrp://other.example:2855/x;tcp {BOB_URI}");
    let paths = [
        // Through a URI of somebody else.
        outwards.clone(),
        // To the relay itself.
        through.clone(),
        // Through no URI at all, of ours or of others.
        BOB_URI.to_owned(),
        elsewhere.clone(),
        format!("{} {BOB_URI}", through.replace("msrp://", "msrps://")),
        format!("{} {BOB_URI}", through.replace(":2900", ":2901")),
    ];
    for path in &paths {
        carol.peer.send(&mut world, send("open1", path, &carol.uri, "", b"spam"));
        exchange(&mut world, &mut [&mut carol.peer]);
        assert_eq!(carol.peer.take_starts(), ["481"], "{path}");
    }
    stranger.send(&mut world, send("open2", &outwards, "msrp://s.example:1/s;tcp", "", b"spam"));
    stranger.run(&mut world);
    assert_eq!(stranger.take_starts(), ["481"]);
    stranger.send(&mut world, send("open3", &elsewhere, "msrp://s.example:1/s;tcp", "", b"spam"));
    stranger.run(&mut world);
    assert_eq!(stranger.take_starts(), ["481"]);
    assert!(world.shard.driver_mut().peer_saw_end(stranger.id), "not ours: cut off");
    alice.peer.read(&mut world);
    bob.read(&mut world);
    assert_eq!(alice.peer.take_starts(), [] as [&str; 0]);
    assert_eq!(bob.take_starts(), [] as [&str; 0]);
    assert_eq!(world.measure().relay_refused_path, 8);
    finish(&mut world, &[&alice.peer, &bob, &carol.peer, &stranger]);
}

#[test]
fn two_clients_of_one_shard_talk_without_a_socket_between_them() {
    let mut world = world();
    let mut alice = Client::new(&mut world, "alice", ALICE_URI);
    let mut carol = Client::new(&mut world, "bob", "msrp://carol.example:1/carol;tcp");
    let to = format!("{} {} {}", alice.through, carol.through, carol.uri);
    alice.peer.send(&mut world, send("near1", &to, ALICE_URI, "", b"neighbour"));
    exchange(&mut world, &mut [&mut alice.peer, &mut carol.peer]);
    assert_eq!(alice.peer.take_starts(), ["200"]);
    let sent = carol.peer.take().pop().unwrap();
    assert_eq!(sent.to, carol.uri);
    assert_eq!(sent.from, format!("{} {} {ALICE_URI}", carol.through, alice.through));
    // A NICKNAME, as it needs an answer from the far end, and a REPORT back.
    alice.peer.send(&mut world, request("nick1", "NICKNAME", &to, ALICE_URI, ""));
    world.settle();
    carol.peer.run(&mut world);
    let nickname = carol.peer.take().pop().unwrap();
    carol.peer.send(&mut world, response(&nickname, "425 Nickname reserved"));
    let headers = "Message-ID: msg1\r\nByte-Range: 1-9/9\r\nStatus: 000 200 OK\r\n";
    let report = request("rep01", "REPORT", &sent.from, &carol.uri, headers);
    carol.peer.send(&mut world, report);
    alice.peer.run(&mut world);
    let received = alice.peer.take();
    assert_eq!(received[0].start, "425");
    assert_eq!(received[0].to, ALICE_URI);
    assert_eq!(received[0].from, format!("{} {} {}", alice.through, carol.through, carol.uri));
    assert_eq!(received[1].start, "REPORT");
    assert_eq!(received[1].to, ALICE_URI);
    assert_eq!(received[1].from, received[0].from);
    assert!(Peer::accept(&mut world).is_none());
    assert_eq!(world.measure().relay_connections_outbound, 0);
    finish(&mut world, &[&alice.peer, &carol.peer]);
}

/// Two relays, and the wire between them.
struct Wire {
    near: Peer,
    far: Peer,
}

impl Wire {
    /// The near one has connected: so does this towards the far one.
    fn new(near: &mut World, far: &mut World) -> Self {
        near.settle();
        let mut wire = Self {
            near: Peer::accept(near).expect("it has connected"),
            far: Peer::connect(far, KNOWN_PORT),
        };
        wire.carry(near, far);
        wire
    }

    fn carry(&mut self, near: &mut World, far: &mut World) {
        for _ in 0..4 {
            near.settle();
            let bytes = near.shard.driver_mut().peer_received(self.near.id);
            self.far.send(far, bytes);
            far.settle();
            let bytes = far.shard.driver_mut().peer_received(self.far.id);
            self.near.send(near, bytes);
        }
        near.settle();
    }
}

#[test]
fn a_client_may_have_two_relays_and_its_peer_writes_through_both() {
    let mut near = world();
    let far_config = RelayConfig { host: "far.example".to_owned(), ..config() };
    let mut far = world_with(Simulator::without_faults(), Limits::default(), far_config);
    let far_address = "192.0.2.250:2856";
    answer(&mut near, far_address, ConnectAnswer::Accept);
    let mut alice = Client::new(&mut near, "alice", ALICE_URI);
    // AUTH with the far relay, through the near one.
    let relay_far = format!("msrp://{far_address};tcp");
    let to = format!("{} {relay_far}", alice.through);
    alice.peer.send(&mut near, request("auth3", "AUTH", &to, ALICE_URI, ""));
    let mut wire = Wire::new(&mut near, &mut far);
    alice.peer.read(&mut near);
    let challenge = alice.peer.take().pop().unwrap();
    assert_eq!((challenge.start.as_str(), challenge.transaction.as_str()), ("401", "auth3"));
    assert_eq!(challenge.to, ALICE_URI);
    assert_eq!(challenge.from, format!("{} {relay_far}", alice.through));
    let nonce = parameter(challenge.header("WWW-Authenticate").unwrap(), "nonce").unwrap();
    let login = Login {
        user: "alice",
        password: "secret",
        nonce: &nonce,
        count: 1,
        uri: &relay_far,
        with_uri: true,
        sha256: false,
    };
    alice.peer.send(&mut near, request("auth4", "AUTH", &to, ALICE_URI, &login.header()));
    wire.carry(&mut near, &mut far);
    alice.peer.read(&mut near);
    let granted = alice.peer.take().pop().unwrap();
    assert_eq!(granted.start, "200");
    let path: Vec<&str> = granted.header("Use-Path").unwrap().split(' ').collect();
    assert_eq!(path.len(), 2);
    assert_eq!(path[0], alice.through, "in the order the client uses them");
    assert!(path[1].starts_with("msrp://far.example:2900/"));
    let far_uri = path[1].to_owned();
    // Outwards.
    let to = format!("{} {far_uri} {BOB_URI}", alice.through);
    // The near relay knows the far one by name: it asks for its address, or uses the connection it
    // has to the place.
    alice
        .peer
        .send(&mut near, send("out01", &to, ALICE_URI, "Success-Report: yes\r\n", b"through two"));
    near.settle();
    let resolution = near.seen.iter().find_map(|event| match event {
        Event::Resolve { id, host, .. } if host == "far.example" => Some(*id),
        _ => None,
    });
    let id = resolution.expect("the name is looked up");
    near.command(Command::Resolved { id, addresses: vec![far_address.parse().unwrap()] });
    let mut second = Wire::new(&mut near, &mut far);
    second.carry(&mut near, &mut far);
    alice.peer.run(&mut near);
    // Without a certificate the far relay knows its client by the connection of the AUTH only.
    let starts = alice.peer.take_starts();
    assert_eq!(starts, ["200", "REPORT"], "refused where it came from");
    // Inwards: the far URI, then the near one, then the client.
    let mut bob = Peer::connect(&mut far, OWN_PORT);
    let to = format!("{far_uri} {} {ALICE_URI}", alice.through);
    bob.send(&mut far, send("in001", &to, BOB_URI, "", b"back through two"));
    far.settle();
    wire.carry(&mut near, &mut far);
    alice.peer.run(&mut near);
    wire.carry(&mut near, &mut far);
    bob.run(&mut far);
    assert_eq!(bob.take_starts(), ["200"]);
    let received = alice.peer.take().pop().unwrap();
    assert_eq!(received.body, b"back through two");
    assert_eq!(received.from, format!("{} {far_uri} {BOB_URI}", alice.through));
    // And an error on the way back: alice answers 413, bob is told by the far relay's REPORT.
    alice.peer.answers = false;
    bob.send(&mut far, send("in002", &to, BOB_URI, "", b"unwanted"));
    far.settle();
    wire.carry(&mut near, &mut far);
    alice.peer.run(&mut near);
    let unwanted = alice.peer.take().pop().unwrap();
    alice.peer.send(&mut near, response(&unwanted, "413 Stop Sending"));
    wire.carry(&mut near, &mut far);
    bob.run(&mut far);
    let got = bob.take();
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(got[1].header("Status"), Some("000 413 Stop Sending"));
    assert_eq!(got[1].header("Byte-Range"), Some("1-8/8"));
    finish(&mut far, &[&bob, &wire.far, &second.far]);
    finish(&mut near, &[&alice.peer, &wire.near, &second.near]);
}

#[test]
fn a_name_is_looked_up_while_the_message_waits() {
    let mut world = world();
    let mut alice = Client::new(&mut world, "alice", ALICE_URI);
    let to = format!("{} {NAMED_URI}", alice.through);
    for number in 0..2 {
        let bytes = send(&format!("name{number}"), &to, ALICE_URI, "", b"hello");
        alice.peer.send(&mut world, bytes);
    }
    world.settle();
    let asked: Vec<_> = world
        .seen
        .iter()
        .filter_map(|event| match event {
            Event::Resolve { id, host, port, secure } => Some((*id, host.clone(), *port, *secure)),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 1);
    let (id, host, port, secure) = asked[0].clone();
    assert_eq!((host.as_str(), port, secure), ("peer.example", Some(7000), false));
    // The first address does not answer, the second does.
    answer(&mut world, "192.0.2.210:7000", ConnectAnswer::Refuse);
    answer(&mut world, "192.0.2.211:7000", ConnectAnswer::Accept);
    let addresses = ["192.0.2.210:7000", "192.0.2.211:7000"].map(|a| a.parse().unwrap()).to_vec();
    world.command(Command::Resolved { id, addresses });
    let mut peer = Peer::accept(&mut world).expect("connected");
    exchange(&mut world, &mut [&mut alice.peer, &mut peer]);
    assert_eq!(alice.peer.take_starts(), ["200", "200"]);
    assert_eq!(peer.take_starts(), ["SEND", "SEND"]);
    // An answer that comes late or twice changes nothing.
    world.command(Command::Resolved { id, addresses: vec!["192.0.2.212:7000".parse().unwrap()] });
    finish(&mut world, &[&alice.peer, &peer]);
}

#[test]
fn a_name_that_leads_nowhere_or_takes_too_long_becomes_a_report() {
    for (addresses, seconds) in [(Some(vec![]), 0), (Some(vec!["127.0.0.1:7000"]), 0), (None, 17)] {
        let mut world = world();
        let mut alice = Client::new(&mut world, "alice", ALICE_URI);
        let to = format!("{} {NAMED_URI}", alice.through);
        alice.peer.send(&mut world, send("name1", &to, ALICE_URI, "", b"hello"));
        world.settle();
        let id = world.seen.iter().find_map(|event| match event {
            Event::Resolve { id, .. } => Some(*id),
            _ => None,
        });
        if let Some(addresses) = addresses {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            world.command(Command::Resolved { id: id.unwrap(), addresses });
        }
        world.pass(seconds);
        alice.peer.run(&mut world);
        assert_eq!(alice.peer.take_starts(), ["200", "REPORT"]);
        assert!(Peer::accept(&mut world).is_none());
        finish(&mut world, &[&alice.peer]);
    }
}

#[test]
fn clients_do_not_reach_what_is_local_to_the_node() {
    let mut world = world();
    let mut alice = Client::new(&mut world, "alice", ALICE_URI);
    for target in
        ["msrp://127.0.0.1:8080/x;tcp", "msrp://[::1]:8080/x;tcp", "msrp://0.0.0.0:1/x;tcp"]
    {
        let to = format!("{} {target}", alice.through);
        alice.peer.send(&mut world, send("local1", &to, ALICE_URI, "", b"GET / HTTP/1.1"));
        alice.peer.run(&mut world);
        assert_eq!(alice.peer.take_starts(), ["403"], "{target}");
    }
    assert_eq!(world.measure().relay_refused_target, 3);
    finish(&mut world, &[&alice.peer]);
}

#[test]
fn past_the_limit_of_connections_the_idle_one_makes_way_and_else_403_is_said() {
    let mut config = config();
    config.limits.outbound_max = 2;
    let mut world = world_with(Simulator::without_faults(), Limits::default(), config);
    let mut alice = Client::new(&mut world, "alice", ALICE_URI);
    let mut peers = Vec::new();
    let mut statuses = Vec::new();
    for number in 1..=4 {
        let address = format!("192.0.2.21{number}:7000");
        answer(&mut world, &address, ConnectAnswer::Accept);
        let to = format!("{} msrp://{address}/x;tcp", alice.through);
        alice.peer.send(&mut world, send("many1", &to, ALICE_URI, "", b"hello"));
        world.settle();
        if let Some(mut peer) = Peer::accept(&mut world) {
            // From the second on nobody answers, so nobody is idle.
            peer.answers = number == 1;
            peer.run(&mut world);
            peers.push(peer);
        }
        alice.peer.run(&mut world);
        statuses.extend(alice.peer.take_starts());
    }
    assert_eq!(statuses, ["200", "200", "200", "403"]);
    assert!(world.shard.driver_mut().peer_saw_end(peers[0].id));
    let all: Vec<&Peer> = peers.iter().chain([&alice.peer]).collect();
    finish(&mut world, &all);
}

#[test]
fn a_uri_that_runs_out_ends_the_path_of_another_client_through_it() {
    let mut world = world();
    let mut alice = Client::new(&mut world, "alice", ALICE_URI);
    let mut bob = Client::new(&mut world, "bob", BOB_URI);
    let to = format!("{} {} {BOB_URI}", alice.through, bob.through);
    alice.peer.send(&mut world, send("both1", &to, ALICE_URI, "", b"in time"));
    exchange(&mut world, &mut [&mut alice.peer, &mut bob.peer]);
    assert_eq!(alice.peer.take_starts(), ["200"]);
    assert_eq!(bob.peer.take_starts(), ["SEND"]);
    // Alice's URI is made to last longer than bob's, and the path is in use all the time.
    world.pass(600);
    let renewed = authenticate(&mut world, &mut alice.peer, "alice", &alice.through, ALICE_URI);
    assert_eq!(renewed, alice.through);
    for (seconds, status, received) in
        [(0, "200", 1), (250, "200", 1), (100, "481", 0), (400, "481", 0)]
    {
        world.pass(seconds);
        alice.peer.send(&mut world, send("both2", &to, ALICE_URI, "", b"hello"));
        exchange(&mut world, &mut [&mut alice.peer, &mut bob.peer]);
        assert_eq!(alice.peer.take_starts(), [status], "after {seconds} s more");
        assert_eq!(bob.peer.take_starts(), vec!["SEND"; received]);
    }
    // Nor does the relay look for itself where the URI is no longer known.
    assert!(!world.seen.iter().any(|event| matches!(event, Event::Resolve { .. })));
    finish(&mut world, &[&alice.peer, &bob.peer]);
}

#[test]
fn requests_for_one_session_that_is_gone_do_not_end_the_others_on_the_connection() {
    let mut world = world();
    let (mut alice, bob) = pair(&mut world);
    let mut peer = Peer::connect(&mut world, OWN_PORT);
    let good = format!("{} {ALICE_URI}", alice.through);
    let gone = format!("msrp://relay.example:2900/expired;tcp {ALICE_URI}");
    peer.send(&mut world, send("good1", &good, BOB_URI, "", b"hello"));
    exchange(&mut world, &mut [&mut alice.peer, &mut peer]);
    assert_eq!(peer.take_starts(), ["200"]);
    for number in 0..8 {
        peer.send(&mut world, send(&format!("gone{number}"), &gone, BOB_URI, "", b"hello"));
    }
    peer.send(&mut world, send("good2", &good, BOB_URI, "", b"still there"));
    exchange(&mut world, &mut [&mut alice.peer, &mut peer]);
    let mut expected = vec!["481"; 8];
    expected.push("200");
    assert_eq!(peer.take_starts(), expected);
    assert_eq!(alice.peer.take().len(), 2);
    finish(&mut world, &[&alice.peer, &bob, &peer]);
}
