//! In the clear, by conference and user of the first message.

use mrfp_core::mp::*;
use mrfp_protocol::bfcp::{Primitive, Value};

use crate::common::{World, key};
use crate::phone::*;

#[test]
fn a_participant_is_known_by_its_first_message_and_gets_floors() {
    let (mut world, _ue) = with_room(false);
    let mut phone = participant(&mut world, 11, None);
    let granted = "FloorRequestStatus 2: #1 Granted (1 Granted)";
    assert_eq!(phone.request(&mut world, MESSAGES), granted);
    let mut other = participant(&mut world, 12, None);
    let waits = "FloorRequestStatus 2: #2 Accepted@1 (1 Accepted@1)";
    assert_eq!(other.request(&mut world, MESSAGES), waits);
    let released = "FloorRequestStatus 3: #1 Released (1 Released)";
    assert_eq!(phone.release(&mut world, 1), released);
    let told = ["FloorRequestStatus 0: #2 Granted (1 Granted)"];
    assert_eq!(other.heard(&mut world), told, "without having asked");
    world.subtract_all([1, 11, 12]);
}

#[test]
fn every_split_of_a_message_is_the_same_message() {
    for cut in 1..24 {
        let (mut world, _ue) = with_room(false);
        let address =
            reserve(&mut world, reservation(11, Setup::Passive, Security::Plain)).unwrap();
        let mut phone = Phone::plain(&mut world, address, 11);
        let mut both = phone.message(Primitive::Hello, &[]);
        both.extend(phone.message(Primitive::UserQuery, &[]));
        let (front, back) = both.split_at(cut);
        let mut heard = phone.say(&mut world, front);
        heard.extend(phone.say(&mut world, back));
        assert_eq!(heard, [HELLO, "UserStatus 2: for 11"], "cut at {cut}");
        world.subtract_all([1, 11]);
    }
}

#[test]
fn all_of_it_stands_faults_of_the_network() {
    for seed in 0..20 {
        let mut world = World::faulty(seed);
        empty_room(&mut world);
        let mut phones: Vec<Phone> = Vec::new();
        for user_id in 11..16 {
            let security = if user_id % 2 == 0 { secured(user_id, 5) } else { Security::Plain };
            let wanted = reservation(user_id, Setup::Passive, security);
            let address = reserve(&mut world, wanted).unwrap();
            phones.push(match user_id % 2 {
                0 => Phone::client(&mut world, address, user_id, &key(5)),
                _ => Phone::plain(&mut world, address, user_id),
            });
        }
        for phone in &mut phones {
            assert_eq!(phone.hello(&mut world), HELLO, "seed {seed}");
            phone.query(&mut world, MESSAGES);
        }
        for phone in &mut phones {
            phone.request(&mut world, MESSAGES);
        }
        for phone in &mut phones {
            let told = phone.heard(&mut world);
            let last = told.last().cloned().unwrap_or_default();
            // Whoever asked last was told with its answer of how it is.
            let all = "(1 Accepted@4) for 15";
            assert!(last.ends_with(all) || phone.user_id == 15, "{last}, seed {seed}");
        }
        world.subtract_all([1, 11, 12, 13, 14, 15]);
    }
}

#[test]
fn a_stranger_is_told_what_is_wrong() {
    let (mut world, _ue) = with_room(false);
    let address = reserve(&mut world, reservation(11, Setup::Passive, Security::Plain)).unwrap();
    reserve(&mut world, reservation(12, Setup::Passive, secured(12, 5))).unwrap();
    let mut nobody = Phone::plain(&mut world, address, 99);
    assert_eq!(nobody.hello(&mut world), "Error 1: 2");
    // In the clear where TLS was agreed upon.
    let mut insecure = Phone::plain(&mut world, address, 12);
    assert_eq!(insecure.hello(&mut world), "Error 1: 9");
    let mut lost = Phone::plain(&mut world, address, 11);
    let mut message = lost.message(Primitive::Hello, &[]);
    message[7] ^= 1;
    assert_eq!(lost.say(&mut world, &message), ["Error 1: 1"]);
    // It may try again, and then is who it says.
    assert!(!world.is_bound(11));
    assert_eq!(lost.hello(&mut world), HELLO.replace(" 1:", " 2:"));
    assert!(world.is_bound(11) && !world.is_bound(12));
    // It has come; another one that says so is not it.
    let mut late = Phone::plain(&mut world, address, 11);
    assert_eq!(late.hello(&mut world), "Error 1: 5");
    world.pass(8);
    for phone in [&nobody, &insecure, &late] {
        assert!(phone.saw_end(&mut world), "nobody may stay unknown for long");
    }
    assert_eq!(lost.ask(&mut world, Primitive::UserQuery, &[]), "UserStatus 3: for 11");
    world.subtract_all([1, 11, 12]);
}

#[test]
fn without_floors_nobody_understands() {
    let mut world = World::calm();
    let address = world.reserve(1, 1, None);
    let mut phone = Phone::plain(&mut world, address, 11);
    let hello = phone.message(Primitive::Hello, &[]);
    assert_eq!(phone.say(&mut world, &hello), [""; 0]);
    assert!(phone.saw_end(&mut world));
    world.subtract_all([1]);
}

#[test]
fn neither_protocol_turns_into_the_other() {
    let (mut world, mut ue) = with_room(false);
    let mut phone = participant(&mut world, 11, None);
    let msrp = ue.empty_send("chat0001");
    // Its version is not ours, and it is far longer than any message.
    let told = phone.say(&mut world, &msrp);
    assert!(told.len() == 1 && told[0].ends_with(": 13"), "{told:?}");
    assert!(phone.saw_end(&mut world));
    assert_eq!(released(&world, 11), Some(ReleaseCause::ProtocolViolation));
    let hello = phone.message(Primitive::Hello, &[]);
    ue.send_raw(&mut world, &hello);
    world.settle();
    assert_eq!(released(&world, 1), Some(ReleaseCause::ProtocolViolation));
    world.subtract_all([1, 11]);
}

#[test]
fn what_cannot_be_read_is_answered_and_ends_the_connection() {
    let (mut world, _ue) = with_room(false);
    for (user_id, change, says, ends) in [
        (11, (0, 0x40), "Error 2: 12", false),
        (12, (1, 99), "Error 2: 3", false),
        (13, (2, 0xff), "Error 2: 13", true),
        // An attribute that ends behind the message.
        (14, (13, 0xff), "Error 2: 10", true),
    ] {
        let mut phone = participant(&mut world, user_id, None);
        let mut message = phone.message(Primitive::FloorQuery, &[Value::FloorId(1)]);
        message[change.0] = change.1;
        assert_eq!(phone.say(&mut world, &message), [says]);
        assert_eq!(phone.saw_end(&mut world), ends, "{says}");
        let cause = ends.then_some(ReleaseCause::ProtocolViolation);
        assert_eq!(released(&world, u64::from(user_id)), cause);
    }
    world.subtract_all([1, 11, 12, 13, 14]);
}

#[test]
fn on_a_port_of_its_own_only_its_user_is_heard() {
    let (mut world, _ue) = with_room(false);
    let mut wanted = reservation(11, Setup::Passive, Security::Plain);
    wanted.own_port = true;
    let own = reserve(&mut world, wanted).unwrap();
    let shared = reserve(&mut world, reservation(12, Setup::Passive, Security::Plain)).unwrap();
    assert_ne!(own, shared);
    let mut wrong = Phone::plain(&mut world, own, 12);
    assert_eq!(wrong.hello(&mut world), "Error 1: 5");
    let mut wrong = Phone::plain(&mut world, shared, 11);
    assert_eq!(wrong.hello(&mut world), "Error 1: 5");
    let mut right = Phone::plain(&mut world, own, 11);
    assert_eq!(right.hello(&mut world), HELLO);
    world.subtract_all([1, 11, 12]);
}

#[test]
fn silence_is_no_loss_but_half_a_message_does_not_wait_for_ever() {
    let limits = mrfp_core::Limits { idle_timeout_ns: 5_000_000_000, ..Default::default() };
    let mut world = World::new(mrfp_io::Simulator::without_faults(), limits);
    empty_room(&mut world);
    let mut phone = participant(&mut world, 11, None);
    world.pass(20);
    assert_eq!(released(&world, 11), None);
    let message = phone.message(Primitive::UserQuery, &[]);
    assert_eq!(phone.say(&mut world, &message[..5]), [""; 0]);
    world.pass(20);
    assert_eq!(released(&world, 11), Some(ReleaseCause::Idle));
    world.subtract_all([1, 11]);
}
