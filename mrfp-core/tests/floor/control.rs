//! What the control plane sees and decides.

use mrfp_core::floor::{
    ConferencePolicy, FLOORS_PER_CONFERENCE_MAX, FloorLimits, FloorOrder, FloorPolicy, FloorServer,
    Refusal, ThirdPartyRequests,
};
use mrfp_protocol::bfcp::{Priority, RequestStatus};

use crate::world::{CONFERENCE, SECOND_NS, Said, TCP, World, policy, user};

fn grant(world: &mut World, floor: u16, user: u16) {
    world.server.grant(CONFERENCE, floor, user, world.now_ns, &mut world.said).unwrap();
}

fn revoke(world: &mut World, floor: u16, user: u16) {
    world.server.revoke(CONFERENCE, floor, user, world.now_ns, &mut world.said).unwrap();
}

#[test]
fn what_is_granted_from_outside_is_held_like_anything_else() {
    let mut world = World::with(&[1, 2, 3]);
    // Without a request of its own.
    grant(&mut world, 1, 1);
    assert_eq!(world.changes(), "+1/1");
    let granted = |id, user| {
        format!("{user}< FloorRequestStatus 0: #{id} Granted note \"by the operator\" (1 Granted)")
    };
    assert_eq!(world.told(), [granted(1, 1)]);
    grant(&mut world, 1, 1);
    assert_eq!((world.changes(), world.told()), (String::new(), vec![]));
    // With one that waits: the holder makes way, the queue is passed.
    world.request(2, &[1]);
    world.request(3, &[1]);
    grant(&mut world, 1, 3);
    assert_eq!(world.changes(), "-1/1 +3/1");
    let revoked = "1< FloorRequestStatus 0: #1 Revoked note \"granted to somebody else\" \
                   (1 Revoked)";
    assert_eq!(world.told(), [revoked, &granted(3, 3)]);
    // A request that a chair has not seen.
    world.request(1, &[4]);
    grant(&mut world, 4, 1);
    assert_eq!(world.changes(), "+1/4");
    world.told();
}

#[test]
fn what_is_revoked_from_outside_goes_to_the_next() {
    let mut world = World::with(&[1, 2, 3]);
    world.request(1, &[1]);
    world.request(2, &[1]);
    world.request(3, &[1]);
    revoke(&mut world, 1, 3);
    revoke(&mut world, 1, 1);
    assert_eq!(world.changes(), "+1/1 -1/1 +2/1");
    let note = "note \"by the operator\"";
    assert_eq!(
        world.told(),
        [
            format!("1< FloorRequestStatus 0: #1 Revoked {note} (1 Revoked)"),
            "2< FloorRequestStatus 0: #2 Granted (1 Granted)".to_owned(),
            format!("3< FloorRequestStatus 0: #3 Denied {note} (1 Denied)"),
        ]
    );
    revoke(&mut world, 1, 1);
    assert_eq!(world.told(), [""; 0], "it has nothing more to lose");
}

#[test]
fn floors_are_listed_as_they_are() {
    let mut world = World::with(&[1, 2, 9]);
    world.server.set_chair(CONFERENCE, 4, Some(9)).unwrap();
    world.request(1, &[3]);
    world.now_ns += SECOND_NS;
    world.request(2, &[3, 4]);
    world.told();
    let floors = world.server.floors(CONFERENCE).unwrap();
    let ids: Vec<u16> = floors.iter().map(|floor| floor.floor_id).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    assert_eq!(floors[3].chair, Some(9));
    assert_eq!(floors[3].policy, policy(FloorOrder::Chair));
    let third: Vec<_> = floors[2]
        .requests
        .iter()
        .map(|it| (it.request_id, it.user_id, it.status, it.queue_position, it.since_ns))
        .collect();
    let expected = [
        (1, 1, RequestStatus::Granted, 0, SECOND_NS),
        (2, 2, RequestStatus::Accepted, 1, 2 * SECOND_NS),
    ];
    assert_eq!(third, expected);
    let fourth = &floors[3].requests[0];
    assert_eq!((fourth.status, fourth.queue_position), (RequestStatus::Pending, 0));
    assert_eq!((fourth.requested_by, fourth.priority), (None, None::<Priority>));
    assert_eq!(world.server.floors(1), None);
}

#[test]
fn policies_change_while_floors_are_held() {
    let mut world = World::with(&[1, 2, 3]);
    let set = |world: &mut World, holders_max, order| {
        let policy = FloorPolicy { holders_max, ..policy(order) };
        world.server.set_policy(CONFERENCE, 4, policy, world.now_ns, &mut world.said).unwrap();
    };
    for user in [1, 2, 3] {
        assert!(world.request(user, &[4]).contains("Pending"));
    }
    // No chair any more: who waited for one is in the queue, and served.
    set(&mut world, 2, FloorOrder::FirstComeFirstServed);
    assert_eq!(world.changes(), "+1/4 +2/4");
    let told = world.told();
    assert_eq!(told[2], "3< FloorRequestStatus 0: #3 Accepted@1 (4 Accepted@1)");
    // One may hold it: the last one loses it.
    set(&mut world, 1, FloorOrder::FirstComeFirstServed);
    assert_eq!(world.changes(), "-2/4");
    let revoked = "2< FloorRequestStatus 0: #2 Revoked note \"fewer may hold this floor now\" \
                   (4 Revoked)";
    assert_eq!(world.told(), [revoked]);
    // Moderated: who holds it keeps it, who has been accepted stays so.
    set(&mut world, 1, FloorOrder::Chair);
    assert!(world.request(2, &[4]).contains("Pending"));
    world.release(1, 1);
    assert_eq!(world.changes(), "-1/4 +3/4");
    world.told();
}

#[test]
fn a_holding_time_set_later_counts_from_the_beginning() {
    let mut world = World::with(&[1]);
    world.request(1, &[1]);
    world.pass(20 * SECOND_NS);
    world.limit_holding(1, 30 * SECOND_NS);
    world.pass(10 * SECOND_NS - 1);
    assert_eq!(world.changes(), "+1/1");
    world.pass(1);
    assert_eq!(world.changes(), "-1/1");
}

#[test]
fn who_leaves_loses_everything() {
    let mut world = World::with(&[1, 2, 9]);
    world.server.set_chair(CONFERENCE, 4, Some(1)).unwrap();
    world.query(1, &[2]);
    world.query(9, &[1]);
    world.request(1, &[1]);
    world.request(2, &[1]);
    world.told();
    let (participant, _) = world.users.remove(&1).unwrap();
    world.server.remove_user(participant, world.now_ns, &mut world.said);
    assert_eq!(world.changes(), "+1/1 -1/1 +2/1");
    assert_eq!(
        world.told(),
        [
            "2< FloorRequestStatus 0: #2 Granted (1 Granted)",
            "9< FloorStatus 0: floor 1 #2 Granted (1 Granted) for 2",
        ]
    );
    assert_eq!(world.server.floors(CONFERENCE).unwrap()[3].chair, None);
    world.request(2, &[2]);
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn a_conference_ends_with_all_its_floors() {
    let mut world = World::with(&[1, 2, 9]);
    world.query(9, &[1]);
    world.request(1, &[1]);
    world.request(2, &[1, 2]);
    world.told();
    world.changes();
    world.server.close_conference(CONFERENCE, world.now_ns, &mut world.said);
    assert_eq!(world.changes(), "-1/1");
    world.server.flush(world.now_ns, &mut world.said);
    assert_eq!(world.server.floors(CONFERENCE), None);
    assert!(!world.server.holds(CONFERENCE, 1, 2));
    assert_eq!(
        format!("{:?}", world.server),
        "FloorServer { conferences: 0, users: 0, requests: 0, .. }"
    );
    // The same numbers may be used again.
    let again = ConferencePolicy { grace_ns: 0, third_party_requests: ThirdPartyRequests::Nobody };
    world.server.open_conference(CONFERENCE, again).unwrap();
    world.server.add_floor(CONFERENCE, 1, policy(FloorOrder::Chair)).unwrap();
    world.said.messages.clear();
    world.join(user(1), TCP);
    assert!(world.request(1, &[1]).contains("#1 Pending"));
}

#[test]
fn what_is_not_there_or_too_much_is_refused() {
    let limits = FloorLimits { conferences_max: 1, users_max: 2, ..FloorLimits::default() };
    let mut server = FloorServer::new(limits);
    let mut said = Said::default();
    let conference =
        ConferencePolicy { grace_ns: 0, third_party_requests: ThirdPartyRequests::Nobody };
    server.open_conference(1, conference.clone()).unwrap();
    assert_eq!(server.open_conference(1, conference.clone()), Err(Refusal::InUse));
    assert_eq!(server.open_conference(2, conference), Err(Refusal::Exhausted));
    let rules = policy(FloorOrder::FirstComeFirstServed);
    for floor in 0..FLOORS_PER_CONFERENCE_MAX as u16 {
        server.add_floor(1, floor, rules.clone()).unwrap();
    }
    assert_eq!(server.add_floor(1, 0, rules.clone()), Err(Refusal::InUse));
    assert_eq!(server.add_floor(1, 999, rules.clone()), Err(Refusal::Exhausted));
    assert_eq!(server.add_floor(2, 0, rules.clone()), Err(Refusal::Unknown));
    for refused in [
        FloorPolicy { holders_max: 0, ..policy(FloorOrder::Chair) },
        FloorPolicy { requests_per_user_max: 0, ..policy(FloorOrder::Chair) },
    ] {
        assert_eq!(server.add_floor(1, 999, refused.clone()), Err(Refusal::Policy));
        assert_eq!(server.set_policy(1, 0, refused, 0, &mut said), Err(Refusal::Policy));
    }
    server.add_user(1, user(1)).unwrap();
    assert_eq!(server.add_user(1, user(1)), Err(Refusal::InUse));
    assert_eq!(server.add_user(2, user(2)), Err(Refusal::Unknown));
    server.add_user(1, user(2)).unwrap();
    assert_eq!(server.add_user(1, user(3)), Err(Refusal::Exhausted));
    for (conference, floor, user) in [(2, 0, 1), (1, 999, 1), (1, 0, 9)] {
        let unknown = Err(Refusal::Unknown);
        assert_eq!(server.grant(conference, floor, user, 0, &mut said), unknown);
        assert_eq!(server.revoke(conference, floor, user, 0, &mut said), unknown);
        assert_eq!(server.set_chair(conference, floor, Some(user)), unknown);
    }
    assert_eq!(server.set_policy(1, 999, rules, 0, &mut said), Err(Refusal::Unknown));
}
