//! What the controller does about floors, and is told of them.

use mrfp_core::floor::{self, FloorOrder};
use mrfp_core::mp::*;
use mrfp_protocol::bfcp::RequestStatus;

use crate::common::World;
use crate::phone::*;

/// The requests of a floor: user, whether it holds, queue position.
fn requests(view: &FloorsView, floor_id: u16) -> Vec<(u16, bool, u8)> {
    let floor = view.floors.iter().find(|floor| floor.floor_id == floor_id).expect("that floor");
    floor.requests.iter().map(|it| (it.user_id, it.holds, it.queue_position)).collect()
}

fn changes(world: &World) -> Vec<(u16, u16, bool)> {
    let changes = world.seen.iter().filter_map(|event| match *event {
        Event::FloorChanged { context: ContextId(1), floor_id, user_id, holds } => {
            Some((floor_id, user_id, holds))
        }
        _ => None,
    });
    changes.collect()
}

#[test]
fn floors_are_listed_granted_revoked_and_given_a_chair() {
    let (mut world, _ue) = with_room(true);
    let mut phones = [11, 12, 13].map(|user_id| participant(&mut world, user_id, None));
    phones[0].request(&mut world, MESSAGES);
    phones[1].request(&mut world, MESSAGES);
    let view = act(&mut world, FloorAction::List).unwrap();
    assert!(view.moderated);
    assert_eq!(view.message_floor_id, Some(MESSAGES));
    assert_eq!(view.floors.len(), 3);
    assert_eq!(requests(&view, MESSAGES), [(11, true, 0), (12, false, 1)]);
    let grant = FloorAction::Grant { floor_id: MESSAGES, user_id: 13 };
    let view = act(&mut world, grant).unwrap();
    assert_eq!(requests(&view, MESSAGES), [(13, true, 0), (12, false, 1)], "the other made way");
    let revoked = "FloorRequestStatus 0: #1 Revoked note \"granted to somebody else\" (1 Revoked)";
    assert_eq!(phones[0].heard(&mut world), [revoked]);
    assert!(phones[2].heard(&mut world)[0].contains("Granted"));
    let revoke = FloorAction::Revoke { floor_id: MESSAGES, user_id: 13 };
    let view = act(&mut world, revoke).unwrap();
    assert_eq!(requests(&view, MESSAGES), [(12, true, 0)]);
    let chair = FloorAction::SetChair { floor_id: CHAIRED, user_id: Some(13) };
    let view = act(&mut world, chair).unwrap();
    assert_eq!(view.floors[2].chair, Some(13));
    phones[0].request(&mut world, CHAIRED);
    let told = phones[2].heard(&mut world);
    assert!(told.last().unwrap().contains("Pending"), "the chair is told: {told:?}");
    let policy = floor_policy(FloorOrder::FirstComeFirstServed);
    let action = FloorAction::SetPolicy { floor_id: CHAIRED, policy };
    let view = act(&mut world, action).unwrap();
    assert_eq!(view.floors[2].requests[0].status, RequestStatus::Granted);
    world.subtract_all([1, 11, 12, 13]);
}

#[test]
fn what_is_not_there_is_refused() {
    let (mut world, _ue) = with_room(false);
    participant(&mut world, 11, None);
    for action in [
        FloorAction::Grant { floor_id: 9, user_id: 11 },
        FloorAction::Grant { floor_id: MESSAGES, user_id: 99 },
        FloorAction::SetChair { floor_id: MESSAGES, user_id: Some(99) },
    ] {
        assert_eq!(act(&mut world, action), Err(floor::Refusal::Unknown));
    }
    let nobody = floor::FloorPolicy { holders_max: 0, ..floor_policy(FloorOrder::Priority) };
    let action = FloorAction::SetPolicy { floor_id: MESSAGES, policy: nobody };
    assert_eq!(act(&mut world, action), Err(floor::Refusal::Policy));
    world.subtract_all([1, 11]);
    assert_eq!(act(&mut world, FloorAction::List), Err(floor::Refusal::Unknown));
    // A Context without floors has none, whatever is asked.
    world.reserve(1, 2, None);
    assert_eq!(act(&mut world, FloorAction::Moderate(true)), Err(floor::Refusal::Unknown));
    let wanted = reservation(12, Setup::Passive, Security::Plain);
    assert_eq!(reserve(&mut world, wanted), Err(Refusal::TerminationId));
    world.subtract_all([2]);
}

#[test]
fn a_room_without_a_floor_for_its_messages_cannot_be_moderated() {
    let mut world = World::calm();
    let mut control = floors(false);
    control.floors.remove(0);
    let policy = ChatRoomPolicy { floors: Some(Box::new(control)), ..room(false) };
    world.reserve_with(1, 1, None, |reserve| {
        crate::room_support::configure(reserve, &policy, crate::room_support::client("ue1"));
    });
    assert_eq!(act(&mut world, FloorAction::Moderate(true)), Err(floor::Refusal::Unknown));
    world.subtract_all([1]);
}

#[test]
fn the_controller_is_told_of_the_floors_it_asked_for() {
    let (mut world, _ue) = with_room(false);
    let mut phones = [11, 12].map(|user_id| participant(&mut world, user_id, None));
    phones[0].request(&mut world, MESSAGES);
    assert_eq!(changes(&world), []);
    phones[0].request(&mut world, REPORTED);
    phones[1].request(&mut world, REPORTED);
    phones[0].release(&mut world, 2);
    let expected = [(REPORTED, 11, true), (REPORTED, 11, false), (REPORTED, 12, true)];
    assert_eq!(changes(&world), expected);
    world.command(Command::Subtract { termination: TerminationId(12) });
    assert_eq!(changes(&world).pop(), Some((REPORTED, 12, false)));
    world.subtract_all([1, 11]);
}

#[test]
fn a_conference_is_one_contexts_and_ends_with_it() {
    let (mut world, _ue) = with_room(false);
    let refused = |world: &mut World| {
        let mut wanted = crate::common::reservation(2, 2, None);
        let policy = room(false);
        crate::room_support::configure(&mut wanted, &policy, crate::room_support::client("ue2"));
        world.seen.clear();
        world.command(Command::ReserveAndConfigure(Box::new(wanted)));
        match world.seen[..] {
            [Event::Refused { reason, .. }] => Some(reason),
            [Event::Reserved { .. }] => None,
            _ => panic!("{:?}", world.seen),
        }
    };
    assert_eq!(refused(&mut world), Some(Refusal::IdentityInUse));
    // The conference it did not get is untouched.
    let mut phone = participant(&mut world, 11, None);
    phone.request(&mut world, MESSAGES);
    let metrics = world.measure();
    assert_eq!((metrics.contexts, metrics.floor_conferences, metrics.floor_users), (1, 1, 1));
    world.subtract_all([1, 11]);
    assert_eq!(world.measure().floor_conferences, 0);
    assert_eq!(refused(&mut world), None, "the number is free again");
    world.subtract_all([2]);
}

#[test]
fn a_user_is_there_once_and_is_no_member() {
    let limits = mrfp_core::Limits { context_members_max: 1, ..Default::default() };
    let mut world = World::new(mrfp_io::Simulator::without_faults(), limits);
    member(&mut world, 1, false);
    participant(&mut world, 11, Some(1));
    participant(&mut world, 12, None);
    let mut twice = reservation(12, Setup::Passive, Security::Plain);
    twice.termination = TerminationId(13);
    assert_eq!(reserve(&mut world, twice), Err(Refusal::IdentityInUse));
    let mut speaks_too = reservation(14, Setup::Passive, Security::Plain);
    speaks_too.speaks_by = Some(TerminationId(1));
    assert_eq!(reserve(&mut world, speaks_too), Err(Refusal::IdentityInUse));
    let known = reservation(11, Setup::Passive, Security::Plain);
    assert_eq!(reserve(&mut world, known), Err(Refusal::TerminationId));
    let mut second = crate::common::reservation(1, 2, None);
    crate::room_support::configure(&mut second, &room(false), crate::room_support::client("ue2"));
    world.command(Command::ReserveAndConfigure(Box::new(second)));
    let full = Event::Refused { termination: TerminationId(2), reason: Refusal::ContextFull };
    assert_eq!(format!("{:?}", world.seen.last().unwrap()), format!("{full:?}"));
    world.subtract_all([1, 11, 12]);
}

#[test]
fn commands_for_messages_are_not_for_floors_nor_the_other_way_round() {
    let (mut world, _ue) = with_room(false);
    participant(&mut world, 11, None);
    let refused = |world: &mut World, command| {
        world.command(command);
        matches!(world.seen.pop(), Some(Event::Refused { reason: Refusal::TerminationId, .. }))
    };
    let modify = Modify {
        termination: TerminationId(11),
        direction: Direction::Inactive,
        muted: true,
        remote: None,
        psk: None,
    };
    assert!(refused(&mut world, Command::Modify(Box::new(modify))));
    let rekey = Rekey { termination: TerminationId(11), key: NextKey::Withdrawn };
    world.command(Command::Rekey(Box::new(rekey)));
    let modify = ModifyFloorControl {
        termination: TerminationId(1),
        transport: FloorTransport::Tcp(Setup::Passive),
        psk: None,
    };
    assert!(refused(&mut world, Command::ModifyFloorControl(Box::new(modify))));
    world.subtract_all([1, 11]);
}

#[test]
fn what_is_said_is_counted() {
    let (mut world, _ue) = with_room(false);
    let mut phones = [11, 12].map(|user_id| participant(&mut world, user_id, None));
    phones[0].request(&mut world, MESSAGES);
    phones[1].request(&mut world, MESSAGES);
    world.pass(3);
    phones[0].release(&mut world, 1);
    phones[0].release(&mut world, 77);
    world.pass(1);
    let counted = world.metrics.floor_control();
    // Hello, FloorRequest, FloorRelease; HelloAck, FloorRequestStatus, Error.
    assert_eq!([11, 1, 2].map(|code| counted.received[code]), [2, 2, 2]);
    assert_eq!([12, 4, 13].map(|code| counted.sent[code]), [2, 4, 1]);
    assert_eq!(counted.errors[7], 1);
    assert_eq!(counted.waits.iter().sum::<u64>(), 2);
    assert_eq!(counted.waits[0], 1);
    assert!(counted.waits_sum_ns >= 3_000_000_000);
    world.command(Command::Subtract { termination: TerminationId(11) });
    let carried = world.seen.iter().find_map(|event| match event {
        Event::Subtracted { termination: TerminationId(11), statistics } => Some(*statistics),
        _ => None,
    });
    let carried = carried.expect("it is gone");
    assert_eq!((carried.messages_received, carried.messages_sent), (4, 4));
    assert!(carried.bytes_received >= 4 * 12 && carried.bytes_sent >= 4 * 12);
    world.subtract_all([1, 12]);
}
