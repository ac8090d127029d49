//! Participants that ask and do not read.

use mrfp_core::Limits;
use mrfp_core::mp::*;
use mrfp_io::Simulator;
use mrfp_protocol::bfcp::{Primitive, Value};

use crate::common::World;
use crate::phone::*;

fn small() -> World {
    let limits = Limits { egress_bytes_max: 16 * 1024, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    member(&mut world, 1, false);
    world
}

#[test]
fn who_asks_and_does_not_read_is_not_read_from_and_then_dropped() {
    let mut world = small();
    let mut slow = participant(&mut world, 11, None);
    let mut other = participant(&mut world, 12, None);
    world.shard.driver_mut().peer_stop_reading(slow.peer);
    // A HelloAck is longer than a Hello: five hundred exceed the limit, but not twice.
    let hellos: Vec<u8> = (0..500).flat_map(|_| slow.message(Primitive::Hello, &[])).collect();
    slow.send_raw(&mut world, &hellos);
    for _ in 0..20 {
        world.shard.turn().unwrap();
    }
    world.take_events();
    assert_eq!(released(&world, 11), None, "it has a moment");
    assert_eq!(other.hello(&mut world), HELLO.replace(" 1:", " 2:"), "nobody waits for it");
    world.pass(5);
    assert_eq!(released(&world, 11), Some(ReleaseCause::TooSlow));
    assert_eq!(other.hello(&mut world), HELLO.replace(" 1:", " 3:"));
    assert_eq!(released(&world, 1), None);
    world.subtract_all([1, 11, 12]);
}

#[test]
fn who_catches_up_goes_on() {
    let mut world = small();
    let mut slow = participant(&mut world, 11, None);
    world.shard.driver_mut().peer_stop_reading(slow.peer);
    let count = 500;
    for _ in 0..count {
        let hello = slow.message(Primitive::Hello, &[]);
        slow.send_raw(&mut world, &hello);
        // One piece at a time, so that it is held back before it is out of reach.
        world.shard.turn().unwrap();
    }
    let paused = world.metrics.read().recv_paused;
    world.shard.driver_mut().peer_resume_reading(slow.peer);
    world.settle();
    assert_eq!(slow.heard(&mut world).len(), count, "all is answered, held back or not");
    assert_eq!(released(&world, 11), None);
    assert!(world.measure().recv_paused > paused || paused > 0, "it was held back");
    world.subtract_all([1, 11]);
}

#[test]
fn a_flood_of_questions_does_not_fill_the_pool() {
    let mut world = small();
    let mut greedy = participant(&mut world, 11, None);
    world.shard.driver_mut().peer_stop_reading(greedy.peer);
    let questions: Vec<u8> =
        (0..20_000).flat_map(|_| greedy.message(Primitive::Hello, &[])).collect();
    greedy.send_raw(&mut world, &questions);
    let mut most = 0;
    for _ in 0..200 {
        world.shard.turn().unwrap();
        most = most.max(world.metrics.read().send_buffers_outstanding);
    }
    world.pass(3);
    assert_eq!(released(&world, 11), Some(ReleaseCause::TooSlow));
    assert!(most <= 64, "{most} buffers");
    world.subtract_all([1, 11]);
}

#[test]
fn a_subscriber_that_does_not_read_is_dropped_and_the_others_are_told() {
    let mut world = small();
    let mut slow = participant(&mut world, 11, None);
    let mut keen = participant(&mut world, 12, None);
    slow.query(&mut world, MESSAGES);
    keen.query(&mut world, MESSAGES);
    world.shard.driver_mut().peer_stop_reading(slow.peer);
    for round in 1..400 {
        let request = keen.request(&mut world, MESSAGES);
        assert!(request.contains("Granted"), "{request}, round {round}");
        keen.release(&mut world, round);
        keen.heard(&mut world);
        if released(&world, 11).is_some() {
            break;
        }
        world.pass(1);
    }
    assert_eq!(released(&world, 11), Some(ReleaseCause::TooSlow));
    assert!(keen.query(&mut world, MESSAGES).contains("floor 1"));
    world.subtract_all([1, 11, 12]);
}

#[test]
fn a_controller_that_does_not_listen_is_not_drowned() {
    let (mut world, _ue) = with_room(false);
    let mut phone = participant(&mut world, 11, None);
    // Each pair of messages is two changes, and nobody takes the events.
    let mut queued = Vec::new();
    for request in 1..=20_000 {
        queued.extend(phone.message(Primitive::FloorRequest, &[Value::FloorId(REPORTED)]));
        queued.extend(phone.message(Primitive::FloorRelease, &[Value::FloorRequestId(request)]));
    }
    phone.send_raw(&mut world, &queued);
    for _ in 0..3_000 {
        world.shard.turn().unwrap();
        world.shard.driver_mut().peer_received(phone.peer);
    }
    assert!(world.metrics.read().recv_paused > 0 || world.measure().recv_paused > 0);
    world.settle();
    let changes = world.seen.iter().filter(|it| matches!(it, Event::FloorChanged { .. })).count();
    assert_eq!(changes, 40_000, "and nothing is lost");
    world.subtract_all([1, 11]);
}

#[test]
fn who_reads_slowly_is_told_how_floors_are_and_not_how_they_became_so() {
    let mut world = small();
    let mut slow = participant(&mut world, 11, None);
    let mut keen = participant(&mut world, 12, None);
    slow.query(&mut world, MESSAGES);
    world.shard.driver_mut().peer_stop_reading(slow.peer);
    let mut most = 0;
    for round in 1..2_000 {
        let request = keen.message(Primitive::FloorRequest, &[Value::FloorId(MESSAGES)]);
        keen.send_raw(&mut world, &request);
        world.shard.turn().unwrap();
        let release = keen.message(Primitive::FloorRelease, &[Value::FloorRequestId(round)]);
        keen.send_raw(&mut world, &release);
        world.shard.turn().unwrap();
        keen.heard(&mut world);
        most = most.max(world.metrics.read().send_buffers_outstanding);
    }
    keen.request(&mut world, MESSAGES);
    world.take_events();
    assert_eq!(released(&world, 11), None, "others change much, and it has a moment");
    world.shard.driver_mut().peer_resume_reading(slow.peer);
    world.settle();
    let told = slow.heard(&mut world).pop();
    assert!(told.is_some_and(|it| it.contains("#2000 Granted (1 Granted) for 12")));
    assert!(most <= 64, "{most} buffers");
    world.subtract_all([1, 11, 12]);
}

#[test]
fn what_many_are_told_leaves_buffers_for_others() {
    let limits = Limits { send_buffers_large_max: 16, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    member(&mut world, 1, false);
    let mut phones: Vec<Phone> = (11..51).map(|user| participant(&mut world, user, None)).collect();
    for phone in &mut phones {
        phone.query(&mut world, MESSAGES);
        world.shard.driver_mut().peer_stop_reading(phone.peer);
    }
    // What is told of so many requests takes a large buffer for each who is told.
    let info = [b'x'; 200];
    let requests: Vec<_> = phones
        .iter_mut()
        .map(|phone| {
            let values = [Value::FloorId(MESSAGES), Value::ParticipantProvidedInfo(&info)];
            phone.message(Primitive::FloorRequest, &values)
        })
        .collect();
    for (phone, request) in phones.iter_mut().zip(&requests) {
        phone.send_raw(&mut world, request);
    }
    for _ in 0..50 {
        world.shard.turn().unwrap();
    }
    for phone in &phones {
        world.shard.driver_mut().peer_resume_reading(phone.peer);
    }
    world.settle();
    for phone in &mut phones {
        let user = u64::from(phone.user_id);
        assert_eq!(released(&world, user), None, "{user}");
        let told = phone.heard(&mut world).pop().expect("something");
        assert!(told.starts_with("FloorStatus") && told.contains("for 50"), "{told}");
    }
    world.subtract_all(std::iter::once(1).chain(11..51));
}
