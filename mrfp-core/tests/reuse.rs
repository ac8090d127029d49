//! Several sessions on one connection (RFC 4975 section 5.4).

mod common;

use common::{Ue, World, key};
use mrfp_core::Limits;
use mrfp_core::mp::{Command, Event, ReleaseCause, Setup, TerminationId};
use mrfp_io::{ConnectAnswer, Simulator};

const EGRESS_BYTES_MAX: usize = 64 * 1024;

fn released(world: &World, termination: u64) -> Option<ReleaseCause> {
    world.seen.iter().find_map(|event| match event {
        Event::BearerReleased { termination: id, cause } if id.0 == termination => Some(*cause),
        _ => None,
    })
}

fn subtract(world: &mut World, termination: u64) {
    world.command(Command::Subtract { termination: TerminationId(termination) });
}

/// A further session on the connection of `ue`, bound by an empty SEND; its two URIs.
fn join(world: &mut World, ue: &mut Ue, context: u64, termination: u64) -> Session {
    world.reserve(context, termination, None);
    let session = Session::new(ue, termination);
    let bind = session.apply(ue, &ue.empty_send(&format!("bind{termination:04}")));
    ue.send_raw(world, &bind);
    world.settle();
    ue.read(world);
    assert_eq!(ue.take_statuses(), [200]);
    assert!(world.is_bound(termination));
    session
}

/// A second session of a UE that has a connection.
struct Session {
    local_uri: String,
    remote_uri: String,
}

impl Session {
    fn new(ue: &Ue, termination: u64) -> Self {
        let old = format!("{:016}", ue.termination.0);
        Self {
            local_uri: ue
                .local_uri
                .replace(&format!("ue-{}", ue.termination.0), &format!("ue-{termination}")),
            remote_uri: ue.remote_uri.replace(&old, &format!("{termination:016}")),
        }
    }

    /// The same message in this session.
    fn apply(&self, ue: &Ue, message: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(message.to_vec()).unwrap();
        text.replace(&ue.local_uri, &self.local_uri)
            .replace(&ue.remote_uri, &self.remote_uri)
            .into_bytes()
    }
}

fn bodies_for(ue: &Ue, local_uri: &str) -> Vec<Vec<u8>> {
    let received = ue.received.iter().filter(|message| message.to_path == local_uri);
    received.map(|message| message.body.clone()).collect()
}

#[test]
fn each_session_of_a_connection_talks_into_its_own_context() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let mut carol = world.member(2, 3, None);
    let second = join(&mut world, &mut alice, 2, 4);
    let to_bob = alice.send("tran0001", "message1", b"for bob");
    let to_carol = second.apply(&alice, &alice.send("tran0002", "message1", b"for carol"));
    alice.send_raw(&mut world, &to_bob);
    alice.send_raw(&mut world, &to_carol);
    let (from_bob, from_carol) =
        (bob.send("tran0003", "message3", b"bob"), carol.send("tran0004", "message4", b"carol"));
    bob.send_raw(&mut world, &from_bob);
    carol.send_raw(&mut world, &from_carol);
    world.settle();
    for ue in [&mut alice, &mut bob, &mut carol] {
        ue.read(&mut world);
    }
    assert_eq!(alice.take_statuses(), [200, 200]);
    assert_eq!(bob.bodies(), [b"for bob"]);
    assert_eq!(carol.bodies(), [b"for carol"]);
    assert_eq!(bodies_for(&alice, &alice.local_uri), [b"bob"]);
    assert_eq!(bodies_for(&alice, &second.local_uri), [b"carol"]);
    assert_eq!(world.measure().connections, 3);
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn two_members_of_one_context_may_share_a_connection() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let second = join(&mut world, &mut alice, 1, 3);
    let body: Vec<u8> = (0..100_000u32).map(|i| (i * 7) as u8).collect();
    let message = bob.chunk("long0001", "long-message", "1-*/100000", &body, '$');
    for part in message.chunks(9_000) {
        bob.send_raw(&mut world, part);
        world.settle();
    }
    alice.read(&mut world);
    bob.read(&mut world);
    assert_eq!(bob.take_statuses(), [200]);
    for uri in [&alice.local_uri, &second.local_uri] {
        assert_eq!(bodies_for(&alice, uri).concat(), body, "each of the two gets all of it");
    }
    alice.received.clear();
    let message = second.apply(&alice, &alice.send("tran0001", "message1", b"hello"));
    alice.send_raw(&mut world, &message);
    world.settle();
    alice.read(&mut world);
    bob.read(&mut world);
    assert_eq!(alice.take_statuses(), [200]);
    assert_eq!(bodies_for(&alice, &alice.local_uri), [b"hello"], "the other member hears it");
    assert!(bodies_for(&alice, &second.local_uri).is_empty(), "nobody hears itself");
    assert_eq!(bob.bodies(), [b"hello"]);
    world.subtract_all([1, 2, 3]);
}

#[test]
fn ending_one_session_leaves_the_connection_to_the_others() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let mut carol = world.member(2, 3, None);
    let second = join(&mut world, &mut alice, 2, 4);
    // In the middle of a message in either direction.
    let from_alice = alice.chunk("chunk001", "first", "1-*/9000", &[b'x'; 9000], '$');
    let from_bob = bob.chunk("chunk002", "other", "1-*/9000", &[b'y'; 9000], '$');
    alice.send_raw(&mut world, &from_alice[..4000]);
    bob.send_raw(&mut world, &from_bob[..4000]);
    world.settle();
    subtract(&mut world, 1);
    let subtracted = |event: &Event| matches!(event, Event::Subtracted { termination, .. } if termination.0 == 1);
    assert!(world.seen.iter().any(subtracted), "it does not wait for the connection");
    bob.read(&mut world);
    assert_eq!(bob.messages()[0].2, '#', "the message of the session is given up");
    alice.send_raw(&mut world, &from_alice[4000..]);
    let after = second.apply(&alice, &alice.send("tran0001", "message1", b"still here"));
    alice.send_raw(&mut world, &after);
    let late = alice.send("tran0002", "message2", b"too late");
    alice.send_raw(&mut world, &late);
    world.settle();
    alice.read(&mut world);
    carol.read(&mut world);
    assert_eq!(carol.bodies(), [b"still here"]);
    assert_eq!(alice.take_statuses(), [481, 200, 481]);
    assert_eq!(alice.messages()[0].2, '#', "nor does the chunk towards it stay open");
    assert!(!world.shard.driver_mut().peer_saw_end(alice.peer));
    subtract(&mut world, 4);
    assert!(world.shard.driver_mut().peer_saw_end(alice.peer), "the last one ends it");
    world.subtract_all([2, 3]);
}

#[test]
fn a_481_or_506_from_the_peer_ends_the_session_it_names_and_no_other() {
    for status in [481, 506] {
        let mut world = World::calm();
        let mut alice = world.member(1, 1, None);
        let second = join(&mut world, &mut alice, 2, 2);
        let response = format!(
            "MSRP 12345678 {status} No\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------12345678$\r\n",
            second.remote_uri, second.local_uri
        );
        alice.send_raw(&mut world, response.as_bytes());
        world.settle();
        assert_eq!(released(&world, 2), Some(ReleaseCause::PeerClosed));
        assert_eq!(released(&world, 1), None);
        let request = alice.empty_send("alive001");
        alice.send_raw(&mut world, &request);
        world.settle();
        alice.read(&mut world);
        assert_eq!(alice.take_statuses(), [200]);
        world.subtract_all([1, 2]);
    }
}

#[test]
fn a_lost_connection_releases_every_session_it_carried() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    join(&mut world, &mut alice, 2, 2);
    world.shard.driver_mut().peer_reset(alice.peer);
    world.settle();
    for termination in [1, 2] {
        assert_eq!(released(&world, termination), Some(ReleaseCause::ConnectionLost));
    }
    world.subtract_all([1, 2]);
}

#[test]
fn a_session_bound_elsewhere_is_answered_506_an_unknown_one_481_and_none_joins_a_secured_one() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let bob = world.member(1, 2, None);
    let mut carol = world.member(1, 3, Some(&key(3)));
    world.reserve(2, 4, None);
    let ask = |world: &mut World, ue: &mut Ue, session: &Session| {
        let request = session.apply(ue, &ue.empty_send("bind0001"));
        ue.send_raw(world, &request);
        world.settle();
        ue.read(world);
        ue.take_statuses()
    };
    let theirs = Session { local_uri: bob.local_uri, remote_uri: bob.remote_uri };
    assert_eq!(ask(&mut world, &mut alice, &theirs), [506]);
    let unknown = Session::new(&alice, 77);
    assert_eq!(ask(&mut world, &mut alice, &unknown), [481]);
    let mut not_announced = Session::new(&alice, 4);
    not_announced.local_uri = alice.local_uri.clone();
    assert_eq!(ask(&mut world, &mut alice, &not_announced), [481]);
    let free = Session::new(&alice, 4);
    assert_eq!(ask(&mut world, &mut carol, &free), [481], "a key serves one session");
    assert!(!world.is_bound(4));
    assert_eq!(ask(&mut world, &mut alice, &free), [200]);
    assert!(world.is_bound(4));
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn a_laggard_holds_back_the_senders_of_every_context_it_is_in_and_of_no_other() {
    let limits = Limits { egress_bytes_max: EGRESS_BYTES_MAX, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(2, 2, None);
    let mut carol = world.member(3, 3, None);
    let mut dave = world.member(3, 4, None);
    let mut both = world.member(1, 5, None);
    join(&mut world, &mut both, 2, 6);
    world.shard.driver_mut().peer_stop_reading(both.peer);
    for n in 0..500 {
        for ue in [&mut alice, &mut bob, &mut carol] {
            let message = ue.send(&format!("tran{n}"), &format!("flood{n}"), &[b'x'; 1000]);
            ue.send_raw(&mut world, &message);
        }
    }
    world.settle();
    alice.read(&mut world);
    bob.read(&mut world);
    carol.read(&mut world);
    dave.read(&mut world);
    let held = alice.take_statuses().len() + bob.take_statuses().len();
    assert!(held < 500, "both senders are held back, {held} were answered");
    assert_eq!(carol.take_statuses(), [200; 500]);
    assert_eq!(dave.bodies().len(), 500);
    // One of its sessions ends: that Context goes on, the other still waits.
    subtract(&mut world, 6);
    bob.read(&mut world);
    alice.read(&mut world);
    assert!(bob.take_statuses().len() > 250);
    assert_eq!(alice.take_statuses().len(), 0);
    world.shard.driver_mut().peer_resume_reading(both.peer);
    world.settle();
    alice.read(&mut world);
    assert!(alice.take_statuses().len() > 250, "and on it goes");
    world.subtract_all([1, 2, 3, 4, 5]);
}

#[test]
fn a_sender_paused_by_two_contexts_goes_on_when_both_have_caught_up() {
    let limits = Limits { egress_bytes_max: EGRESS_BYTES_MAX, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut alice = world.member(1, 1, None);
    let second = join(&mut world, &mut alice, 2, 2);
    let mut bob = world.member(1, 3, None);
    let mut carol = world.member(2, 4, None);
    for ue in [&bob, &carol] {
        world.shard.driver_mut().peer_stop_reading(ue.peer);
    }
    for n in 0..500 {
        let message = alice.send(&format!("tran{n}"), &format!("flood{n}"), &[b'x'; 1000]);
        alice.send_raw(&mut world, &message);
        let message = second.apply(&alice, &message);
        alice.send_raw(&mut world, &message);
    }
    world.settle();
    world.shard.driver_mut().peer_resume_reading(bob.peer);
    world.settle();
    alice.read(&mut world);
    assert!(alice.take_statuses().len() < 1000);
    world.shard.driver_mut().peer_resume_reading(carol.peer);
    world.settle();
    for ue in [&mut bob, &mut carol] {
        ue.read(&mut world);
        assert_eq!(ue.bodies().len(), 500);
    }
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn a_laggard_whose_session_ends_in_the_middle_of_a_chunk_is_read_from_again() {
    let limits = Limits { egress_bytes_max: EGRESS_BYTES_MAX, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut alice = world.member(1, 1, None);
    let _bob = world.member(1, 2, None);
    let mut carol = world.member(2, 3, None);
    let second = join(&mut world, &mut alice, 2, 4);
    world.shard.driver_mut().peer_stop_reading(alice.peer);
    for n in 0..500 {
        let message = carol.send(&format!("tran{n}"), &format!("flood{n}"), &[b'x'; 1000]);
        carol.send_raw(&mut world, &message);
    }
    world.settle();
    let chunk = alice.chunk("chunk001", "long", "1-*/9000", &[b'x'; 9000], '$');
    alice.send_raw(&mut world, &chunk[..4000]);
    world.settle();
    subtract(&mut world, 1);
    world.shard.driver_mut().peer_resume_reading(alice.peer);
    world.settle();
    world.pass(1);
    alice.read(&mut world);
    alice.answer(&mut world, 200);
    let message = second.apply(&alice, &alice.send("tran0001", "message1", b"still here"));
    alice.send_raw(&mut world, &chunk[4000..]);
    alice.send_raw(&mut world, &message);
    world.settle();
    carol.read(&mut world);
    assert_eq!(carol.bodies(), [b"still here"]);
    world.subtract_all([2, 3, 4]);
}

#[test]
fn a_conference_drops_its_slow_member_and_spares_the_other_session_of_the_connection() {
    let limits = Limits { egress_bytes_max: EGRESS_BYTES_MAX, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let mut slow = world.member(1, 3, None);
    join(&mut world, &mut slow, 2, 4);
    world.shard.driver_mut().peer_stop_reading(slow.peer);
    for n in 0..500 {
        let message = alice.send(&format!("tran{n}"), &format!("flood{n}"), &[b'x'; 1000]);
        alice.send_raw(&mut world, &message);
    }
    world.settle();
    world.pass(2);
    assert_eq!(released(&world, 3), Some(ReleaseCause::TooSlow));
    assert_eq!(released(&world, 4), None, "between two parties one may take its time");
    bob.read(&mut world);
    alice.read(&mut world);
    assert_eq!(bob.bodies().len(), 500);
    assert_eq!(alice.take_statuses(), [200; 500]);
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn as_client_the_shard_reuses_the_connection_it_has_to_the_same_peer() {
    let mut world = World::calm();
    let remote = "192.0.2.1:9".parse().unwrap();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
    for termination in [1, 2] {
        world.reserve_with(termination, termination, None, |reserve| {
            reserve.setup = Setup::Active { remote };
        });
        assert!(world.is_bound(termination));
    }
    let peer = world.shard.driver_mut().next_connected().expect("it connects");
    assert!(world.shard.driver_mut().next_connected().is_none(), "once");
    let text = String::from_utf8(world.shard.driver_mut().peer_received(peer)).unwrap();
    assert_eq!(text.matches(" SEND\r\n").count(), 2, "each session is bound by a request");
    assert!(text.contains("ue-1") && text.contains("ue-2"));
    world.subtract_all([1, 2]);
}

#[test]
fn as_client_a_connection_through_somebody_in_between_is_not_shared() {
    let mut world = World::calm();
    // The paths name 192.0.2.1, the SDP says to connect elsewhere (RFC 6714 section 6.3).
    let remote = "192.0.2.200:4000".parse().unwrap();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
    for termination in [1, 2] {
        world.reserve_with(termination, termination, None, |reserve| {
            reserve.setup = Setup::Active { remote };
        });
    }
    assert!(world.shard.driver_mut().next_connected().is_some());
    assert!(world.shard.driver_mut().next_connected().is_some());
    world.subtract_all([1, 2]);
}

#[test]
fn the_request_that_binds_a_further_session_makes_room_for_itself_in_a_long_message() {
    let mut world = World::calm();
    let remote = "192.0.2.1:9".parse().unwrap();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
    let mut bob = world.member(1, 5, None);
    for termination in [1, 2] {
        world.reserve_with(termination, termination, None, |reserve| {
            reserve.setup = Setup::Active { remote };
        });
        let message = bob.chunk("chunk001", "long", "1-*/9000", &[b'x'; 9000], '$');
        match termination {
            1 => bob.send_raw(&mut world, &message[..4000]),
            _ => bob.send_raw(&mut world, &message[4000..]),
        }
        world.settle();
    }
    let peer = world.shard.driver_mut().next_connected().expect("it connects");
    let received = world.shard.driver_mut().peer_received(peer);
    let mut framer = mrfp_protocol::msrp::Framer::default();
    let (mut taken, mut bodies, mut heads) = (0, 0, 0);
    while let Some(piece) = framer.next(&received[taken..]).expect("well-formed") {
        taken += piece.consumed;
        bodies += piece.body.len();
        heads += usize::from(piece.head.is_some());
        assert!(piece.body.iter().all(|&byte| byte == b'x'));
    }
    assert_eq!((taken, bodies, heads), (received.len(), 9000, 4));
    world.subtract_all([1, 2, 5]);
}
