//! Chairs, and requests for others.

use mrfp_core::floor::FloorOrder;
use mrfp_protocol::bfcp::{Primitive, RequestStatus, Value};

use crate::world::{CONFERENCE, World, policy};

use RequestStatus::{Accepted, Denied, Granted, Pending, Released, Revoked};

/// User 9 is the chair of floor 4.
fn chaired(users: &[u16]) -> World {
    let mut world = World::with(users);
    world.server.set_chair(CONFERENCE, 4, Some(9)).unwrap();
    assert_eq!(world.told(), ["9< FloorStatus 0: floor 4"]);
    world
}

#[test]
fn a_chair_grants_what_is_pending() {
    let mut world = chaired(&[1, 9]);
    assert_eq!(world.request(1, &[4]), "FloorRequestStatus: #1 Pending (4 Pending)");
    // The chair is told without having asked.
    assert_eq!(world.told(), ["9< FloorStatus 0: floor 4 #1 Pending (4 Pending) for 1"]);
    assert_eq!(world.act(9, 1, &[(4, Granted, 0)]), "ChairActionAck");
    assert_eq!(world.changes(), "+1/4");
    let granted = "1< FloorRequestStatus 0: #1 Granted (4 Granted)";
    assert_eq!(world.told(), [granted, "9< FloorStatus 0: floor 4 #1 Granted (4 Granted) for 1"]);
}

#[test]
fn a_chair_denies_and_revokes() {
    let mut world = chaired(&[1, 9]);
    world.request(1, &[4]);
    world.act(9, 1, &[(4, Denied, 0)]);
    let told = ["1< FloorRequestStatus 0: #1 Denied (4 Denied)", "9< FloorStatus 0: floor 4"];
    assert_eq!(world.told(), told);
    world.request(1, &[4]);
    world.act(9, 2, &[(4, Granted, 0)]);
    world.act(9, 2, &[(4, Revoked, 0)]);
    assert_eq!(world.changes(), "+1/4 -1/4");
    let told = ["1< FloorRequestStatus 0: #2 Revoked (4 Revoked)", "9< FloorStatus 0: floor 4"];
    assert_eq!(world.told(), told);
}

#[test]
fn a_chair_orders_the_queue() {
    let mut world = chaired(&[1, 2, 3, 4, 9]);
    for user in [1, 2, 3, 4] {
        assert!(world.request(user, &[4]).ends_with("(4 Pending)"));
    }
    world.act(9, 1, &[(4, Accepted, 0)]);
    world.told();
    assert_eq!(world.changes(), "+1/4", "accepted, and the floor is free");
    world.act(9, 2, &[(4, Accepted, 0)]);
    world.act(9, 3, &[(4, Accepted, 1)]);
    world.act(9, 4, &[(4, Accepted, 200)]);
    let status = world.query(9, &[4]);
    let queue = "#1 Granted (4 Granted) for 1 #3 Accepted@1 (4 Accepted@1) for 3 \
                 #2 Accepted@2 (4 Accepted@2) for 2 #4 Accepted@3 (4 Accepted@3) for 4";
    assert_eq!(status, format!("FloorStatus: floor 4 {queue}"));
    world.act(9, 4, &[(4, Accepted, 1)]);
    world.told();
    world.release(1, 1);
    assert_eq!(world.changes(), "-1/4 +4/4");
    world.told();
}

#[test]
fn a_chair_that_grants_a_full_floor_takes_it_from_the_holder() {
    let mut world = chaired(&[1, 2, 9]);
    world.request(1, &[4]);
    world.request(2, &[4]);
    world.act(9, 1, &[(4, Granted, 0)]);
    world.told();
    world.act(9, 2, &[(4, Granted, 0)]);
    assert_eq!(world.changes(), "+1/4 -1/4 +2/4");
    let told = world.told();
    let revoked = "1< FloorRequestStatus 0: #1 Revoked note \"granted to somebody else\" \
                   (4 Revoked)";
    assert_eq!(told[0], revoked);
    assert_eq!(told[1], "2< FloorRequestStatus 0: #2 Granted (4 Granted)");
}

#[test]
fn every_chair_has_to_agree() {
    let mut world = World::with(&[1, 8, 9]);
    let chairs = policy(FloorOrder::Chair);
    world.server.set_policy(CONFERENCE, 2, chairs, world.now_ns, &mut world.said).unwrap();
    world.server.set_chair(CONFERENCE, 2, Some(8)).unwrap();
    world.server.set_chair(CONFERENCE, 4, Some(9)).unwrap();
    world.told();
    world.request(1, &[2, 4]);
    world.told();
    world.act(8, 1, &[(2, Granted, 0)]);
    assert_eq!(world.changes(), "");
    let half = "1< FloorRequestStatus 0: #1 Pending (2 Granted) (4 Pending)";
    assert_eq!(world.told()[0], half);
    world.act(9, 1, &[(4, Accepted, 0)]);
    assert_eq!(world.changes(), "+1/2 +1/4");
    world.told();
    world.release(1, 1);
    world.told();
    // One who denies is enough.
    world.request(1, &[2, 4]);
    world.told();
    world.act(8, 2, &[(2, Granted, 0)]);
    world.act(9, 2, &[(4, Denied, 0)]);
    let told = world.told();
    assert_eq!(told[0], "1< FloorRequestStatus 0: #2 Denied (2 Denied) (4 Denied)");
    assert_eq!(world.changes(), "-1/2 -1/4");
}

#[test]
fn what_a_chair_may_not_or_cannot_do_is_refused_whole() {
    let mut world = chaired(&[1, 9]);
    world.request(1, &[4]);
    world.request(1, &[1]);
    world.told();
    let mut act = |chair, request, floors: &[_]| world.act(chair, request, floors);
    assert_eq!(act(1, 1, &[(4, Granted, 0)]), "Error: 5");
    assert_eq!(act(9, 2, &[(1, Revoked, 0)]), "Error: 5");
    assert_eq!(act(9, 7, &[(4, Granted, 0)]), "Error: 7");
    assert_eq!(act(9, 1, &[(1, Granted, 0)]), "Error: 6");
    assert_eq!(act(9, 1, &[(4, Granted, 0), (77, Granted, 0)]), "Error: 6");
    for status in [Pending, Released] {
        let refused = "Error: 14 \"a chair accepts, grants, denies or revokes\"";
        assert_eq!(act(9, 1, &[(4, status, 0)]), refused);
    }
    let refused = "Error: 14 \"the request is not granted: it can only be denied\"";
    assert_eq!(act(9, 1, &[(4, Revoked, 0)]), refused);
    assert_eq!(act(9, 1, &[(4, Granted, 0)]), "ChairActionAck");
    assert_eq!(act(9, 1, &[(4, Granted, 0)]), "ChairActionAck", "once more does no harm");
    let refused = "Error: 14 \"the request is granted: it can only be revoked\"";
    for status in [Denied, Accepted] {
        assert_eq!(act(9, 1, &[(4, status, 0)]), refused);
    }
    assert_eq!(world.changes(), "+1/1 +1/4");
    world.told();
}

#[test]
fn a_chair_needs_nobody_to_decide_for_it() {
    let mut world = chaired(&[9]);
    assert_eq!(world.request(9, &[4]), "FloorRequestStatus: #1 Granted (4 Granted)");
    world.told();
}

#[test]
fn a_chair_may_ask_for_others() {
    let mut world = chaired(&[1, 2, 9]);
    let asked =
        world.ask(9, Primitive::FloorRequest, &[Value::FloorId(4), Value::BeneficiaryId(1)]);
    assert_eq!(asked, "FloorRequestStatus: #1 Granted (4 Granted) for 1 by 9");
    assert_eq!(world.changes(), "+1/4");
    let told = world.told();
    assert_eq!(told[0], "1< FloorRequestStatus 0: #1 Granted (4 Granted) for 1 by 9");
    let status = world.ask(9, Primitive::UserQuery, &[]);
    assert_eq!(status, "UserStatus: for 9 #1 Granted (4 Granted) for 1 by 9");
    // Either may release it, nobody else.
    assert_eq!(world.release(2, 1), "Error: 5");
    assert_eq!(world.release(1, 1), "FloorRequestStatus: #1 Released (4 Released) for 1 by 9");
    let told = world.told();
    assert_eq!(told[0], "9< FloorStatus 0: floor 4");
    assert_eq!(told[1], "9< FloorRequestStatus 0: #1 Released (4 Released) for 1 by 9");
    // Not for floors of others, not for strangers, and not if one is no chair.
    let mut ask = |user, floor, beneficiary| {
        let values = [Value::FloorId(floor), Value::BeneficiaryId(beneficiary)];
        world.ask(user, Primitive::FloorRequest, &values)
    };
    assert_eq!(ask(9, 1, 1), "Error: 5");
    assert_eq!(ask(1, 4, 2), "Error: 5");
    assert_eq!(ask(9, 4, 77), "Error: 2");
    // Oneself is nobody else.
    assert_eq!(ask(1, 1, 1), "FloorRequestStatus: #2 Granted (1 Granted)");
}

#[test]
fn where_nobody_is_chair_requests_wait_for_one() {
    let mut world = World::with(&[1, 9]);
    assert_eq!(world.request(1, &[4]), "FloorRequestStatus: #1 Pending (4 Pending)");
    assert_eq!(world.told(), [""; 0]);
    world.server.set_chair(CONFERENCE, 4, Some(9)).unwrap();
    assert_eq!(world.told(), ["9< FloorStatus 0: floor 4 #1 Pending (4 Pending) for 1"]);
    world.server.set_chair(CONFERENCE, 4, None).unwrap();
    assert_eq!(world.act(9, 1, &[(4, Granted, 0)]), "Error: 5");
}
