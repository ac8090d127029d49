//! Commands and connections in any order: whatever the controller asks for while whatever happens,
//! nothing breaks, and at the end nothing is left.

use mrfp_core::mp::*;
use mrfp_io::ConnectAnswer;
use mrfp_protocol::bfcp::{Primitive, Value};

use crate::chance::Chance;
use crate::common::{World, identity, key};
use crate::phone::*;

const REMOTE: &str = "192.0.2.1:4000";

fn yes(chance: &mut Chance) -> bool {
    chance.below(2) == 0
}

fn transport(chance: &mut Chance) -> FloorTransport {
    let remote = REMOTE.parse().unwrap();
    match chance.below(6) {
        0 => FloorTransport::Udp { remote: yes(chance).then_some(remote) },
        1 | 2 => FloorTransport::Tcp(Setup::Active { remote }),
        _ => FloorTransport::Tcp(Setup::Passive),
    }
}

fn stream(chance: &mut Chance, user_id: u16) -> FloorStream {
    let identity = identity(u64::from(user_id + chance.below(8) as u16 / 7));
    let security = match chance.below(4) {
        0 => Security::Plain,
        1 => Security::TlsPskAwaited { identity },
        _ => Security::TlsPsk { identity, psk: key(5) },
    };
    let tls_role = if yes(chance) { TlsRole::Server } else { TlsRole::Client };
    FloorStream { transport: transport(chance), security, tls_role }
}

fn command(chance: &mut Chance) -> Command {
    let user_id = 11 + chance.below(4) as u16;
    let termination = TerminationId(u64::from(user_id));
    let (unanswered, own_port) = (yes(chance), yes(chance));
    match chance.below(10) {
        0..4 => {
            let mut wanted = reservation(user_id, Setup::Passive, Security::Plain);
            wanted.stream = stream(chance, user_id);
            wanted.speaks_by = yes(chance).then_some(TerminationId(1));
            (wanted.unanswered, wanted.own_port) = (unanswered, own_port);
            Command::ReserveFloorControl(Box::new(wanted))
        }
        4 | 5 => Command::ModifyFloorControl(Box::new(ModifyFloorControl {
            termination,
            transport: transport(chance),
            psk: yes(chance).then(|| key(5)),
        })),
        6 | 7 => Command::ReplaceFloorControl(Box::new(ReplaceFloorControl {
            termination,
            stream: stream(chance, user_id),
            unanswered,
            own_port,
        })),
        8 => Command::Subtract { termination },
        _ => {
            let action = match chance.below(4) {
                0 => FloorAction::Grant { floor_id: MESSAGES, user_id },
                1 => FloorAction::Revoke { floor_id: MESSAGES, user_id },
                2 => FloorAction::SetChair { floor_id: CHAIRED, user_id: Some(user_id) },
                _ => FloorAction::Moderate(yes(chance)),
            };
            Command::Floors { context: ContextId(1), action: Box::new(action) }
        }
    }
}

/// Somebody connects, to any port there is or ever was, or to whoever has connected.
fn connection(world: &mut World, chance: &mut Chance) -> Phone {
    let addresses = world.seen.iter().filter_map(|event| match event {
        Event::Reserved { address, .. } => Some(*address),
        _ => None,
    });
    let mut addresses: Vec<_> = addresses.collect();
    addresses.retain(|address| world.shard.driver_mut().listens(*address));
    let address = addresses[chance.below(addresses.len() as u64)];
    let user_id = 11 + chance.below(4) as u16;
    let driver = world.shard.driver_mut();
    let peer = driver.next_connected().unwrap_or_else(|| driver.peer_connect(address));
    match chance.below(3) {
        0 => Phone::new(peer, user_id, None),
        1 => Phone::client_on(world, peer, user_id, &key(5)),
        _ => Phone::server_on(world, peer, user_id, &key(5)),
    }
}

fn speak(world: &mut World, chance: &mut Chance, phone: &mut Phone) {
    let message = match chance.below(3) {
        0 => phone.message(Primitive::Hello, &[]),
        1 => phone.message(Primitive::FloorQuery, &[Value::FloorId(MESSAGES)]),
        _ => phone.message(Primitive::FloorRequest, &[Value::FloorId(MESSAGES)]),
    };
    let count = if chance.below(4) == 0 { 7 } else { message.len() };
    if phone.is_ready() {
        phone.send_raw(world, &message[..count]);
    }
}

#[test]
fn commands_may_come_at_any_moment() {
    let mut bound = 0;
    for seed in 1..=400 {
        let mut chance = Chance::new(seed);
        let (mut world, _ue) = with_room(yes(&mut chance));
        let remote = REMOTE.parse().unwrap();
        let mut phones: Vec<Phone> = Vec::new();
        for _ in 0..40 {
            let answer =
                if yes(&mut chance) { ConnectAnswer::Accept } else { ConnectAnswer::Refuse };
            world.shard.driver_mut().answer_connects(remote, answer);
            match chance.below(8) {
                0..4 => world.command(command(&mut chance)),
                4 | 5 => phones.push(connection(&mut world, &mut chance)),
                6 if !phones.is_empty() => {
                    let at = chance.below(phones.len() as u64);
                    speak(&mut world, &mut chance, &mut phones[at]);
                }
                7 if chance.below(4) == 0 => world.pass(1 + chance.below(20) as u64),
                _ => {}
            }
            if yes(&mut chance) {
                world.settle();
            }
            for phone in &mut phones {
                if chance.below(9) == 0 {
                    phone.read(&mut world);
                }
            }
        }
        bound += world.seen.iter().filter(|it| matches!(it, Event::Bound { .. })).count();
        world.settle();
        for phone in phones {
            world.shard.driver_mut().peer_reset(phone.peer);
        }
        world.settle();
        world.subtract_all([1, 11, 12, 13, 14]);
    }
    assert!(bound > 450, "{bound} were bound: the member of each room, and others");
}
