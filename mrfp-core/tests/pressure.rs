//! Receivers that do not keep up: nothing is lost, nothing grows without bound.

mod common;

use common::{Ue, World, key};
use mrfp_core::Limits;
use mrfp_core::mp::{Event, ReleaseCause, TerminationId};
use mrfp_io::Simulator;

const EGRESS_BYTES_MAX: usize = 64 * 1024;

fn small_world() -> World {
    let limits = Limits { egress_bytes_max: EGRESS_BYTES_MAX, ..Limits::default() };
    World::new(Simulator::without_faults(), limits)
}

fn is_dropped(world: &World, termination: u64) -> bool {
    world.seen.iter().any(|event| {
        matches!(event, Event::BearerReleased { termination: id, cause: ReleaseCause::TooSlow }
            if *id == TerminationId(termination))
    })
}

fn flood(world: &mut World, ue: &mut Ue, count: usize) {
    for n in 0..count {
        let message = ue.send(&format!("tran{n}"), &format!("flood{n}"), &[b'x'; 1000]);
        ue.send_raw(world, &message);
    }
}

#[test]
fn between_two_parties_the_slower_one_sets_the_pace() {
    for protect in [false, true] {
        let (first, second) = (key(1), key(2));
        let mut world = small_world();
        let mut alice = world.member(1, 1, protect.then_some(&first));
        let mut bob = world.member(1, 2, protect.then_some(&second));
        world.shard.driver_mut().peer_stop_reading(bob.peer);
        flood(&mut world, &mut alice, 2_000);
        world.settle();
        world.pass(10);
        let metrics = world.metrics.read();
        assert!(metrics.recv_paused > 0, "the sender is held back");
        assert!(!is_dropped(&world, 2));
        let held_bytes_max = 16 * EGRESS_BYTES_MAX as u64;
        assert!(metrics.send_buffers_outstanding * 2048 < held_bytes_max, "memory is bounded");
        world.shard.driver_mut().peer_resume_reading(bob.peer);
        world.settle();
        world.pass(1);
        bob.read(&mut world);
        alice.read(&mut world);
        assert_eq!(bob.bodies().len(), 2_000, "and everything arrives afterwards");
        assert_eq!(alice.take_statuses(), [200; 2_000]);
        world.subtract_all([1, 2]);
    }
}

#[test]
fn a_conference_drops_the_member_that_stops_reading_and_goes_on() {
    let mut world = small_world();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let carol = world.member(1, 3, None);
    world.shard.driver_mut().peer_stop_reading(carol.peer);
    flood(&mut world, &mut alice, 500);
    world.settle();
    world.pass(2);
    assert!(is_dropped(&world, 3));
    bob.read(&mut world);
    alice.read(&mut world);
    assert_eq!(bob.bodies().len(), 500);
    assert_eq!(alice.take_statuses(), [200; 500]);
    assert_eq!(world.measure().drops_slow_member, 1);
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_member_that_reads_no_answers_is_not_read_from() {
    let mut world = small_world();
    let mut alice = world.member(1, 1, None);
    world.shard.driver_mut().peer_stop_reading(alice.peer);
    flood(&mut world, &mut alice, 3_000);
    world.settle();
    world.pass(5);
    assert!(world.metrics.read().recv_paused > 0);
    world.shard.driver_mut().peer_resume_reading(alice.peer);
    world.settle();
    world.pass(1);
    alice.read(&mut world);
    assert_eq!(alice.take_statuses().len(), 3_000);
    world.subtract_all([1]);
}

#[test]
fn a_connection_that_takes_nothing_for_too_long_is_broken() {
    let mut world = small_world();
    let mut alice = world.member(1, 1, None);
    let bob = world.member(1, 2, None);
    world.shard.driver_mut().peer_stop_reading(bob.peer);
    flood(&mut world, &mut alice, 10);
    world.settle();
    world.pass(65);
    assert!(is_dropped(&world, 2));
    world.subtract_all([1, 2]);
}

#[test]
fn a_large_message_between_two_parties_needs_little_memory() {
    let mut world = small_world();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let body: Vec<u8> = (0..8_000_000u32).map(|i| (i >> 3) as u8).collect();
    let message = alice.chunk("large001", "large-message", "1-*/8000000", &body, '$');
    let mut outstanding_max = 0;
    for part in message.chunks(100_000) {
        alice.send_raw(&mut world, part);
        world.settle();
        bob.read(&mut world);
        outstanding_max = outstanding_max.max(world.metrics.read().send_buffers_outstanding);
    }
    world.settle();
    bob.read(&mut world);
    alice.read(&mut world);
    assert_eq!(alice.take_statuses(), [200]);
    assert_eq!(bob.bodies(), [body]);
    assert!(outstanding_max < 64);
    world.subtract_all([1, 2]);
}
