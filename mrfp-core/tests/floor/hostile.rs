//! Bytes nobody should send: whatever comes is answered or dropped, by TCP and by UDP, and the
//! server goes on.

use mrfp_core::floor::Received;
use mrfp_protocol::bfcp::{Primitive, RequestStatus, Value};

use crate::random::Random;
use crate::seeds;
use crate::world::{CONFERENCE, SECOND_NS, TCP, UDP, World, user};

/// Seeds of an ordinary run: a second.
const SEEDS: u64 = 300;
const STEPS: usize = 200;

#[test]
fn no_bytes_do_harm() {
    seeds::for_each_seed(SEEDS, "--test floor hostile::no_bytes_do_harm", run);
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new();
    for id in 1..=4 {
        world.join(user(id), if id % 2 == 0 { UDP } else { TCP });
    }
    world.server.set_chair(CONFERENCE, 4, Some(1)).unwrap();
    for _ in 0..STEPS {
        let id = random.below(4) as u16 + 1;
        let mut bytes = message(&mut world, &mut random, id);
        mutate(&mut bytes, &mut random);
        if world.receive(id, &bytes) == Received::Close {
            let (participant, channel) = world.users[&id];
            world.server.disconnect(participant, world.now_ns);
            world.server.connect(participant, channel);
        }
        if random.once_in(4) {
            world.server.flush(world.now_ns, &mut world.said);
            world.pass(SECOND_NS / 4);
        }
        for closed in std::mem::take(&mut world.said.closed) {
            let (participant, channel) = world.users[&(closed.index as u16)];
            world.server.connect(participant, channel);
        }
        world.said.messages.clear();
    }
    // It is as good as before.
    let (participant, _) = world.users[&1];
    world.server.connect(participant, TCP);
    world.server.flush(world.now_ns, &mut world.said);
    world.said.messages.clear();
    assert!(world.ask(1, Primitive::Hello, &[]).starts_with("HelloAck"));
    for (_, (participant, _)) in std::mem::take(&mut world.users) {
        world.server.remove_user(participant, world.now_ns, &mut world.said);
    }
    world.server.flush(world.now_ns, &mut world.said);
    let shown = format!("{:?}", world.server);
    assert_eq!(shown, "FloorServer { conferences: 1, users: 0, requests: 0, .. }");
}

fn message(world: &mut World, random: &mut Random, id: u16) -> Vec<u8> {
    let floor = Value::FloorId(random.below(5) as u16);
    let request = Value::FloorRequestId(random.below(20) as u16);
    let beneficiary = Value::BeneficiaryId(random.below(5) as u16);
    let primitive = random.pick(Primitive::ALL);
    if primitive == Primitive::ChairAction {
        let status = random.pick(RequestStatus::ALL);
        let request = random.below(20) as u16;
        return world.action_message(id, request, &[(4, status, random.below(9) as u8)]);
    }
    let info = Value::ParticipantProvidedInfo(b"something to say");
    let values = [floor, request, beneficiary, info, floor];
    world.message(id, primitive, &values[..random.below(values.len() + 1)])
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            // The flags of version 2.
            2 => bytes[0] ^= random.pick(&[0x10, 0x08, 0x18]),
            3 => bytes.truncate(at.max(1)),
            4 => bytes.extend([random.next() as u8; 4]),
            _ => bytes.insert(at, random.next() as u8),
        }
    }
}
