//! Connections lost, and found again.

use mrfp_protocol::bfcp::{Primitive, Value};

use crate::world::{CONFERENCE, GRACE_NS, SECOND_NS, TCP, World};

fn lose(world: &mut World, user: u16) {
    let (participant, _) = world.users[&user];
    world.server.disconnect(participant, world.now_ns);
}

fn find(world: &mut World, user: u16) {
    let (participant, channel) = world.users[&user];
    world.server.connect(participant, channel);
}

#[test]
fn who_comes_back_in_time_has_what_it_had() {
    let mut world = World::with(&[1, 2]);
    world.query(1, &[1, 2]);
    world.request(1, &[1]);
    world.request(2, &[1]);
    world.told();
    lose(&mut world, 1);
    world.pass(GRACE_NS - 1);
    assert_eq!(world.told(), [""; 0]);
    assert_eq!(world.changes(), "+1/1");
    assert!(world.server.holds(CONFERENCE, 1, 1));
    find(&mut world, 1);
    let told = [
        "1< FloorRequestStatus 0: #1 Granted (1 Granted)",
        "1< FloorStatus 0: floor 1 #1 Granted (1 Granted) for 1 #2 Accepted@1 (1 Accepted@1) for 2",
        "1< FloorStatus 0: floor 2",
    ];
    assert_eq!(world.told(), told);
    world.pass(2 * GRACE_NS);
    assert_eq!(world.changes(), "", "the grace is over, and was not needed");
    assert_eq!(world.release(1, 1), "FloorRequestStatus: #1 Released (1 Released)");
    world.told();
}

#[test]
fn who_does_not_come_back_loses_its_floors() {
    let mut world = World::with(&[1, 2, 9]);
    world.query(9, &[1, 2]);
    world.query(1, &[2]);
    world.request(1, &[1]);
    world.request(2, &[1, 2]);
    world.told();
    lose(&mut world, 1);
    world.pass(GRACE_NS);
    assert_eq!(world.changes(), "+1/1 -1/1 +2/1 +2/2");
    let told = world.told();
    assert_eq!(told[0], "2< FloorRequestStatus 0: #2 Granted (1 Granted) (2 Granted)");
    assert_eq!(told.len(), 3);
    // It may come back all the same, with nothing left of what it had.
    find(&mut world, 1);
    assert_eq!(world.told(), [""; 0]);
    assert_eq!(world.ask(1, Primitive::UserQuery, &[]), "UserStatus: for 1");
    world.release(2, 2);
    assert!(world.told().iter().all(|text| text.starts_with("9<")));
}

#[test]
fn what_waits_when_the_grace_ends_is_denied() {
    let mut world = World::with(&[1, 2, 9]);
    world.query(9, &[1]);
    world.request(1, &[1]);
    world.request(2, &[1]);
    world.told();
    lose(&mut world, 2);
    world.pass(GRACE_NS);
    assert_eq!(world.told(), ["9< FloorStatus 0: floor 1 #1 Granted (1 Granted) for 1"]);
}

#[test]
fn who_is_away_keeps_its_place_and_is_passed() {
    let mut world = World::with(&[1, 2, 3]);
    world.request(1, &[1]);
    world.request(2, &[1]);
    world.request(3, &[1]);
    lose(&mut world, 2);
    world.release(1, 1);
    assert_eq!(world.changes(), "+1/1 -1/1 +3/1");
    world.told();
    let place = world.ask(3, Primitive::FloorRequestQuery, &[Value::FloorRequestId(2)]);
    assert_eq!(place, "FloorRequestStatus: #2 Accepted@1 (1 Accepted@1)");
    world.release(3, 3);
    world.told();
    assert_eq!(world.changes(), "-3/1", "it is free, and nobody is there");
    world.pass(SECOND_NS);
    find(&mut world, 2);
    assert_eq!(world.told(), ["2< FloorRequestStatus 0: #2 Granted (1 Granted)"]);
    assert_eq!(world.changes(), "+2/1");
}

#[test]
fn nothing_is_said_to_who_is_away() {
    let mut world = World::with(&[1, 9]);
    world.query(9, &[1]);
    world.told();
    lose(&mut world, 9);
    world.request(1, &[1]);
    assert_eq!(world.told(), [""; 0]);
    find(&mut world, 9);
    assert_eq!(world.told(), ["9< FloorStatus 0: floor 1 #1 Granted (1 Granted) for 1"]);
    assert_eq!(world.users[&9].1, TCP);
}

#[test]
fn a_grace_that_was_interrupted_begins_anew() {
    let mut world = World::with(&[1]);
    world.request(1, &[1]);
    for _ in 0..5 {
        lose(&mut world, 1);
        world.pass(GRACE_NS - SECOND_NS);
        find(&mut world, 1);
        world.told();
    }
    assert_eq!(world.changes(), "+1/1");
    lose(&mut world, 1);
    world.pass(GRACE_NS);
    assert_eq!(world.changes(), "-1/1");
}
