//! Floors asked for, queued for, held and given back.

use mrfp_core::floor::{FloorOrder, FloorPolicy};
use mrfp_protocol::bfcp::{Primitive, Value};

use crate::world::{CONFERENCE, SECOND_NS, World, policy};

#[test]
fn who_comes_first_is_served_first() {
    let mut world = World::with(&[1, 2, 3]);
    assert_eq!(world.request(1, &[1]), "FloorRequestStatus: #1 Granted (1 Granted)");
    assert_eq!(world.changes(), "+1/1");
    assert_eq!(world.request(2, &[1]), "FloorRequestStatus: #2 Accepted@1 (1 Accepted@1)");
    assert_eq!(world.request(3, &[1]), "FloorRequestStatus: #3 Accepted@2 (1 Accepted@2)");
    assert_eq!(world.told(), [""; 0], "nobody has subscribed, and answers say it all");
    assert_eq!(world.changes(), "");
    assert_eq!(world.release(1, 1), "FloorRequestStatus: #1 Released (1 Released)");
    assert_eq!(world.changes(), "-1/1 +2/1");
    assert_eq!(world.told(), ["2< FloorRequestStatus 0: #2 Granted (1 Granted)"]);
    let third = world.ask(3, Primitive::FloorRequestQuery, &[Value::FloorRequestId(3)]);
    assert_eq!(third, "FloorRequestStatus: #3 Accepted@1 (1 Accepted@1)");
    assert_eq!(world.release(3, 3), "FloorRequestStatus: #3 Cancelled (1 Cancelled)");
    assert_eq!(world.release(2, 2), "FloorRequestStatus: #2 Released (1 Released)");
    assert_eq!(world.changes(), "-2/1");
    assert_eq!(world.told(), [""; 0]);
    assert!(!world.server.holds(CONFERENCE, 1, 2));
}

#[test]
fn higher_priorities_pass_lower_ones_that_wait() {
    let mut world = World::with(&[1, 2, 3, 4]);
    let mut ask = |user, priority| {
        world.ask(user, Primitive::FloorRequest, &[Value::FloorId(3), Value::Priority(priority)])
    };
    assert_eq!(ask(1, 0), "FloorRequestStatus: #1 Granted (3 Granted) Lowest");
    assert_eq!(ask(2, 1), "FloorRequestStatus: #2 Accepted@1 (3 Accepted@1) Low");
    assert_eq!(ask(3, 3), "FloorRequestStatus: #3 Accepted@1 (3 Accepted@1) High");
    // 7 counts as 4; where none is given it is 2.
    assert_eq!(ask(4, 7), "FloorRequestStatus: #4 Accepted@1 (3 Accepted@1) Highest");
    assert_eq!(world.request(1, &[3]), "FloorRequestStatus: #5 Accepted@3 (3 Accepted@3)");
    world.release(1, 1);
    assert_eq!(world.told(), ["4< FloorRequestStatus 0: #4 Granted (3 Granted) Highest"]);
}

#[test]
fn several_may_hold_a_floor_if_its_policy_says_so() {
    let mut world = World::with(&[1, 2, 3]);
    let two = FloorPolicy { holders_max: 2, ..policy(FloorOrder::FirstComeFirstServed) };
    world.server.set_policy(CONFERENCE, 1, two, world.now_ns, &mut world.said).unwrap();
    for user in [1, 2] {
        assert!(world.request(user, &[1]).ends_with("Granted (1 Granted)"));
    }
    assert!(world.request(3, &[1]).ends_with("(1 Accepted@1)"));
    assert_eq!(world.changes(), "+1/1 +2/1");
}

#[test]
fn several_floors_are_granted_together_or_not_at_all() {
    let mut world = World::with(&[1, 2, 3]);
    world.request(1, &[2]);
    let both = world.request(2, &[1, 2, 1]);
    assert_eq!(both, "FloorRequestStatus: #2 Accepted@1 (1 Accepted@1) (2 Accepted@1)");
    // Floor 1 is free, and kept from nobody who wants no more.
    assert_eq!(world.request(3, &[1]), "FloorRequestStatus: #3 Granted (1 Granted)");
    world.release(1, 1);
    assert_eq!(world.changes(), "+1/2 +3/1 -1/2");
    assert_eq!(world.told(), [""; 0]);
    world.release(3, 3);
    assert_eq!(world.changes(), "-3/1 +2/1 +2/2");
    let granted = "2< FloorRequestStatus 0: #2 Granted (1 Granted) (2 Granted)";
    assert_eq!(world.told(), [granted]);
    let released = world.release(2, 2);
    assert_eq!(released, "FloorRequestStatus: #2 Released (1 Released) (2 Released)");
    assert_eq!(world.changes(), "-2/1 -2/2");
}

#[test]
fn a_request_for_several_floors_stands_in_several_queues() {
    let mut world = World::with(&[1, 2, 3, 4]);
    world.request(1, &[1]);
    world.request(1, &[2]);
    world.request(2, &[2]);
    world.request(3, &[2]);
    let last = world.request(4, &[1, 2]);
    assert_eq!(last, "FloorRequestStatus: #5 Accepted@3 (1 Accepted@1) (2 Accepted@3)");
}

#[test]
fn subscribers_are_told_of_every_change() {
    let mut world = World::with(&[1, 2, 9]);
    assert_eq!(world.query(9, &[1, 2]), "FloorStatus: floor 1");
    assert_eq!(world.told(), ["9< FloorStatus 0: floor 2"]);
    world.request(1, &[1]);
    assert_eq!(world.told(), ["9< FloorStatus 0: floor 1 #1 Granted (1 Granted) for 1"]);
    world.request(2, &[1]);
    let both = "9< FloorStatus 0: floor 1 #1 Granted (1 Granted) for 1 \
                #2 Accepted@1 (1 Accepted@1) for 2";
    assert_eq!(world.told(), [both]);
    assert_eq!(world.query(9, &[2]), "FloorStatus: floor 2");
    world.release(1, 1);
    assert_eq!(world.told(), ["2< FloorRequestStatus 0: #2 Granted (1 Granted)"]);
    assert_eq!(world.query(9, &[1]), "FloorStatus: floor 1 #2 Granted (1 Granted) for 2");
    assert_eq!(world.query(9, &[]), "FloorStatus");
    world.release(2, 2);
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn several_changes_in_a_turn_are_told_once() {
    let mut world = World::with(&[1, 2, 8, 9]);
    world.query(8, &[1]);
    world.query(9, &[1]);
    world.told();
    world.request(1, &[1]);
    world.request(2, &[1]);
    world.release(1, 1);
    let status = "FloorStatus 0: floor 1 #2 Granted (1 Granted) for 2";
    let granted = "2< FloorRequestStatus 0: #2 Granted (1 Granted)".to_owned();
    assert_eq!(world.told(), [granted, format!("8< {status}"), format!("9< {status}")]);
}

#[test]
fn a_floor_is_taken_away_when_its_time_is_over() {
    let mut world = World::with(&[1, 2]);
    world.limit_holding(1, 10 * SECOND_NS);
    world.request(1, &[1]);
    world.pass(3 * SECOND_NS);
    world.request(2, &[1]);
    world.pass(7 * SECOND_NS - 1);
    assert_eq!(world.changes(), "+1/1");
    world.pass(1);
    assert_eq!(world.changes(), "-1/1 +2/1");
    let revoked = "1< FloorRequestStatus 0: #1 Revoked note \"the holding time is over\" \
                   (1 Revoked)";
    assert_eq!(world.told(), [revoked, "2< FloorRequestStatus 0: #2 Granted (1 Granted)"]);
    // The next one has its own time.
    world.pass(10 * SECOND_NS - 1);
    assert_eq!(world.changes(), "");
    world.pass(1);
    assert_eq!(world.changes(), "-2/1");
    let waits = world.server.counters().waits;
    assert_eq!(waits.iter().sum::<u64>(), 2);
    assert_eq!((waits[0], waits[5]), (1, 1), "one at once, one after seven seconds");
    assert_eq!(world.server.counters().waits_sum_ns, 7 * SECOND_NS);
}

#[test]
fn a_floor_given_back_in_time_is_not_taken_from_the_next() {
    let mut world = World::with(&[1, 2]);
    world.limit_holding(1, 10 * SECOND_NS);
    world.request(1, &[1]);
    world.pass(9 * SECOND_NS);
    world.release(1, 1);
    world.request(2, &[1]);
    world.pass(9 * SECOND_NS);
    assert_eq!(world.changes(), "+1/1 -1/1 +2/1");
    world.pass(SECOND_NS);
    assert_eq!(world.changes(), "-2/1");
}

#[test]
fn users_are_told_of_with_their_requests() {
    let mut world = World::with(&[1, 2]);
    world.request(1, &[1]);
    world.request(1, &[2]);
    world.release(1, 1);
    let status = "UserStatus: for 1 #2 Granted (2 Granted) for 1";
    assert_eq!(world.ask(1, Primitive::UserQuery, &[]), status);
    assert_eq!(world.ask(2, Primitive::UserQuery, &[Value::BeneficiaryId(1)]), status);
    assert_eq!(world.ask(2, Primitive::UserQuery, &[]), "UserStatus: for 2");
}

#[test]
fn who_says_hello_is_told_what_the_server_can_do() {
    let mut world = World::with(&[1]);
    let hello = world.ask(1, Primitive::Hello, &[]);
    assert_eq!(hello, "HelloAck: primitives 13 attributes 18");
}

#[test]
fn a_user_that_holds_a_floor_twice_holds_it_until_both_are_over() {
    let mut world = World::with(&[1]);
    let two = FloorPolicy { holders_max: 2, ..policy(FloorOrder::FirstComeFirstServed) };
    world.server.set_policy(CONFERENCE, 1, two, world.now_ns, &mut world.said).unwrap();
    world.request(1, &[1]);
    world.request(1, &[1]);
    assert_eq!(world.changes(), "+1/1");
    world.release(1, 1);
    assert_eq!(world.changes(), "");
    assert!(world.server.holds(CONFERENCE, 1, 1));
    world.release(1, 2);
    assert_eq!(world.changes(), "-1/1");
}
