//! Who is held back, and who is given up.

use mrfp_core::Limits;
use mrfp_io::{ConnectAnswer, Simulator};

use crate::world::*;

const DAVE: &str = "192.0.2.201:7000";
const DAVE_URI: &str = "msrp://192.0.2.201:7000/dave;tcp";

fn to(alice: &Client) -> String {
    format!("{} {BOB_URI}", alice.through)
}

#[test]
fn a_recipient_that_stops_reading_holds_its_sender_back_and_loses_nothing() {
    let mut world = world();
    let (mut alice, mut bob) = pair(&mut world);
    world.shard.driver_mut().peer_stop_reading(bob.id);
    let body = vec![b'x'; 100_000];
    let mut expected = 0;
    for number in 0..100 {
        let bytes = send(&format!("tr{number:04}"), &to(&alice), ALICE_URI, "", &body);
        alice.peer.send(&mut world, bytes);
        expected += 1;
    }
    world.pass(10);
    let metrics = world.measure();
    assert!(metrics.recv_paused > 0, "the sender is held back");
    // A MiB and what one turn adds to it, in buffers of some 16 KiB.
    assert!(metrics.send_buffers_outstanding < 200, "{}", metrics.send_buffers_outstanding);
    world.shard.driver_mut().peer_resume_reading(bob.id);
    exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    for _ in 0..20 {
        exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    }
    assert_eq!(alice.peer.take_starts(), vec!["200"; expected]);
    let bytes: usize = bob.take().iter().map(|message| message.body.len()).sum();
    assert_eq!(bytes, expected * body.len());
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_dead_recipient_is_given_up_and_what_waits_behind_it_goes_on() {
    let mut world = world();
    answer(&mut world, DAVE, ConnectAnswer::Accept);
    let (mut alice, bob) = pair(&mut world);
    let to_dave = format!("{} {DAVE_URI}", alice.through);
    alice.peer.send(&mut world, send("dave1", &to_dave, ALICE_URI, "", b"hello"));
    world.settle();
    let mut dave = Peer::accept(&mut world).unwrap();
    exchange(&mut world, &mut [&mut alice.peer, &mut dave]);
    alice.peer.take();
    world.shard.driver_mut().peer_stop_reading(bob.id);
    // One chunk each, more than is ever queued for one connection.
    let body = vec![b'x'; 60_000];
    for number in 0..20 {
        let bytes = send(&format!("tr{number:04}"), &to(&alice), ALICE_URI, "", &body);
        alice.peer.send(&mut world, bytes);
    }
    alice.peer.send(&mut world, send("dave2", &to_dave, ALICE_URI, "", b"behind it all"));
    world.pass(25);
    dave.read(&mut world);
    assert_eq!(dave.take().len(), 1, "held back");
    answer(&mut world, BOB, ConnectAnswer::Refuse);
    world.pass(10);
    exchange(&mut world, &mut [&mut alice.peer, &mut dave]);
    assert_eq!(dave.take().pop().unwrap().body, b"behind it all");
    // Each of the twenty has failed in exactly one way, and dave's has not.
    let got = alice.peer.take();
    let count = |start: &str| got.iter().filter(|message| message.start == start).count();
    assert_eq!(count("408") + count("REPORT"), 20, "{}", count("REPORT"));
    assert_eq!(count("200"), count("REPORT") + 1);
    finish(&mut world, &[&alice.peer, &bob, &dave]);
}

#[test]
fn a_slow_recipient_is_given_up_where_others_wait_behind_it_and_only_there() {
    for shared in [true, false] {
        let mut world = world();
        answer(&mut world, DAVE, ConnectAnswer::Accept);
        let (mut alice, bob) = pair(&mut world);
        let to_dave = format!("{} {DAVE_URI}", alice.through);
        let mut dave = None;
        if shared {
            alice.peer.send(&mut world, send("dave1", &to_dave, ALICE_URI, "", b"hello"));
            world.settle();
            let connected = dave.insert(Peer::accept(&mut world).unwrap());
            exchange(&mut world, &mut [&mut alice.peer, connected]);
        }
        let body = vec![b'x'; 100_000];
        for number in 0..20 {
            let bytes = send(&format!("tr{number:04}"), &to(&alice), ALICE_URI, "", &body);
            alice.peer.send(&mut world, bytes);
        }
        // Some bytes every second, but far too few.
        for _ in 0..40 {
            world.shard.driver_mut().peer_limit_window(bob.id, 1_000);
            world.pass(1);
        }
        assert_eq!(world.shard.driver_mut().peer_saw_end(bob.id), shared);
        let peers: Vec<&Peer> = [&alice.peer, &bob].into_iter().chain(&dave).collect();
        finish(&mut world, &peers);
    }
}

#[test]
fn a_recipient_that_answers_nothing_is_sent_no_more_than_can_be_kept_track_of() {
    let mut config = config();
    config.limits.outstanding_max = 10;
    let mut world = world_with(Simulator::without_faults(), Limits::default(), config);
    let (mut alice, mut bob) = pair(&mut world);
    bob.answers = false;
    let count = 2_000;
    for number in 0..count {
        let bytes = send(&format!("tr{number:04}"), &to(&alice), ALICE_URI, "", b"more");
        alice.peer.send(&mut world, bytes);
    }
    exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    let sent = bob.received.len();
    // Ten, and what lay in receive buffers already.
    assert!((10..400).contains(&sent), "{sent}");
    bob.answers = true;
    let answers: String = bob.received.iter().map(|sent| response(sent, "200 OK")).collect();
    bob.send(&mut world, answers);
    for _ in 0..20 {
        exchange(&mut world, &mut [&mut alice.peer, &mut bob]);
    }
    assert_eq!(bob.received.len(), count);
    assert_eq!(alice.peer.take_starts(), vec!["200"; count]);
    finish(&mut world, &[&alice.peer, &bob]);
}

#[test]
fn a_client_that_reads_no_answers_is_read_from_no_more() {
    let mut world = world();
    let (mut alice, bob) = pair(&mut world);
    world.shard.driver_mut().peer_stop_reading(alice.peer.id);
    let unknown = format!("msrp://relay.example:2900/unknown;tcp {BOB_URI}");
    for _ in 0..10 {
        let many: Vec<u8> = (0..2_000)
            .flat_map(|n| send(&format!("tr{n:04}"), &unknown, ALICE_URI, "", b"?"))
            .collect();
        alice.peer.send(&mut world, many);
        world.pass(1);
    }
    assert!(world.measure().recv_paused > 0);
    world.pass(40);
    assert!(world.shard.driver_mut().peer_saw_end(alice.peer.id), "given up");
    finish(&mut world, &[&alice.peer, &bob]);
}
