//! Bytes nobody should send: whatever comes, only its sender is hurt, and nothing is kept of it.

use mrfp_core::mp::*;
use mrfp_protocol::bfcp::{Primitive, Value};

use crate::chance::Chance;
use crate::common::key;
use crate::phone::*;

/// Messages of one participant, good ones, some of which are changed.
fn stream(phone: &mut Phone, chance: &mut Chance) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..chance.below(12) {
        let floor = Value::FloorId(chance.below(5) as u16);
        let request = Value::FloorRequestId(chance.below(9) as u16);
        let primitive = Primitive::from_code(1 + chance.below(17) as u8).expect("one of 17");
        let mut message = phone.message(primitive, &[floor, request]);
        for _ in 0..chance.below(4) {
            let at = chance.below(message.len() as u64);
            // The length mostly stays, so that what follows is read at all.
            if !(2..4).contains(&at) || chance.below(20) == 0 {
                message[at] = chance.below(256) as u8;
            }
        }
        bytes.extend(message);
    }
    bytes
}

#[test]
fn whatever_comes_hurts_nobody_else() {
    for seed in 1..=60 {
        let mut chance = Chance::new(seed);
        let (mut world, _ue) = with_room(true);
        let mut good = participant(&mut world, 11, Some(1));
        for user_id in 12..16 {
            let protected = chance.below(2) == 0;
            let security = if protected { secured(user_id, 5) } else { Security::Plain };
            let wanted = reservation(user_id, Setup::Passive, security);
            let address = reserve(&mut world, wanted).unwrap();
            let mut bad = match protected {
                true => Phone::client(&mut world, address, user_id, &key(5)),
                false => Phone::plain(&mut world, address, user_id),
            };
            let bytes = stream(&mut bad, &mut chance);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let count = 1 + chance.below(rest.len().min(40) as u64);
                bad.send_raw(&mut world, &rest[..count]);
                rest = &rest[count..];
                if chance.below(3) == 0 {
                    world.settle();
                }
            }
            world.settle();
            if chance.below(2) == 0 {
                world.shard.driver_mut().peer_reset(bad.peer);
            }
        }
        world.settle();
        let told = good.query(&mut world, MESSAGES);
        assert!(told.starts_with("FloorStatus 2: floor 1"), "{told}, seed {seed}");
        assert_eq!(released(&world, 11), None);
        world.subtract_all([1, 11, 12, 13, 14, 15]);
    }
}

#[test]
fn who_waits_for_an_answer_does_not_fill_memory() {
    let (mut world, _ue) = with_room(false);
    let mut offer = reservation(11, Setup::Passive, Security::Plain);
    offer.unanswered = true;
    let address = reserve(&mut world, offer).unwrap();
    let mut greedy = Phone::plain(&mut world, address, 11);
    for _ in 0..40 {
        let hellos: Vec<u8> =
            (0..100).flat_map(|_| greedy.message(Primitive::Hello, &[])).collect();
        greedy.send_raw(&mut world, &hellos);
        world.settle();
    }
    assert!(greedy.saw_end(&mut world));
    assert!(!world.is_bound(11) && released(&world, 11).is_none(), "it was a stranger");
    assert_eq!(world.measure().carry_buffers_outstanding, 0);
    world.subtract_all([1, 11]);
}
