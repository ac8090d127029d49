//! A session that gets another key while somebody is held back, or while a chunk is cut in two: nobody
//! waits for ever, and nothing is lost or written where it does not belong.

mod common;

use common::{Ue, World, key};
use mrfp_core::Limits;
use mrfp_core::mp::*;
use mrfp_io::Simulator;

const EGRESS_BYTES_MAX: usize = 64 * 1024;

/// Two parties with keys on a shard that queues little.
fn parties() -> (World, Ue, Ue) {
    let limits = Limits { egress_bytes_max: EGRESS_BYTES_MAX, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    let (alice, bob) = (world.member(1, 1, Some(&key(1))), world.member(1, 2, Some(&key(2))));
    (world, alice, bob)
}

/// Has a key agreed for the first party, which comes with it.
fn move_over(world: &mut World, former: &Ue) -> Ue {
    let identity = b"00000001.2".to_vec();
    let (termination, setup) = (TerminationId(1), Setup::Passive);
    let key = NextKey::Agreed { identity: identity.clone(), psk: key(9), setup };
    world.command(Command::Rekey(Box::new(Rekey { termination, key })));
    let next = world.connect(1, former.address, Some((identity, &common::key(9))));
    let is_rekeyed = |event: &Event| matches!(event, Event::Rekeyed { .. });
    assert!(next.is_secured() && world.seen.iter().any(is_rekeyed));
    next
}

fn flood(world: &mut World, ue: &mut Ue, name: &str, count: usize) {
    for n in 0..count {
        let id = format!("{name}{n:04}");
        let message = ue.send(&id, &id, &[b'x'; 1000]);
        ue.send_raw(world, &message);
        world.settle();
    }
}

#[test]
fn a_chunk_that_is_cut_with_the_former_connection_is_given_up() {
    let (mut world, mut former, mut bob) = parties();
    let chunk = former.chunk("chunk001", "message1", "1-4/8", b"left", '+');
    former.send_raw(&mut world, &chunk);
    let chunk = former.chunk("chunk002", "message1", "5-*/8", b"ha", '+');
    former.send_raw(&mut world, &chunk[..chunk.len() - 18]);
    let mut next = move_over(&mut world, &former);
    world.shard.driver_mut().peer_reset(former.peer);
    world.settle();
    let chunk = next.chunk("chunk003", "message1", "5-8/8", b"hand", '$');
    next.send_raw(&mut world, &chunk);
    world.settle();
    next.read(&mut world);
    assert_eq!(next.take_statuses(), [408]);
    let whole = next.send("chunk004", "message1", b"lefthand");
    next.send_raw(&mut world, &whole);
    world.settle();
    next.read(&mut world);
    assert_eq!(next.take_statuses(), [200]);
    bob.read(&mut world);
    let got: Vec<_> = bob.messages().into_iter().map(|(_, body, end)| (body, end)).collect();
    assert_eq!(got, [(b"leftha".to_vec(), '#'), (b"lefthand".to_vec(), '$')]);
    world.subtract_all([1, 2]);
}

#[test]
fn what_lies_unread_on_the_former_connection_is_waited_for() {
    let (mut world, mut former, mut bob) = parties();
    world.shard.driver_mut().peer_stop_reading(bob.peer);
    flood(&mut world, &mut former, "before", 600);
    assert!(world.measure().recv_paused > 0);
    let next = move_over(&mut world, &former);
    world.pass(10);
    world.shard.driver_mut().peer_resume_reading(bob.peer);
    world.settle();
    world.pass(1);
    former.read(&mut world);
    bob.read(&mut world);
    assert_eq!(former.take_statuses().len(), 600);
    assert_eq!(bob.bodies().len(), 600);
    drop(next);
    world.subtract_all([1, 2]);
}

#[test]
fn the_answers_a_move_waits_for_are_read_whoever_lags() {
    let (mut world, mut former, mut bob) = parties();
    flood(&mut world, &mut bob, "first", 10);
    let mut next = move_over(&mut world, &former);
    flood(&mut world, &mut bob, "second", 200);
    // The queue of the next connection is full, so that whoever sends is held back. Not its own peer.
    flood(&mut world, &mut former, "other", 20);
    for _ in 0..20 {
        for ue in [&mut former, &mut next, &mut bob] {
            ue.read(&mut world);
            ue.answer(&mut world, 200);
        }
        world.settle();
    }
    assert_eq!((former.bodies().len(), next.bodies().len()), (10, 200));
    assert_eq!(former.take_statuses(), [200; 20]);
    assert_eq!(bob.take_statuses(), [200; 210]);
    assert_eq!(bob.bodies().len(), 20);
    world.subtract_all([1, 2]);
}

#[test]
fn silence_on_the_former_connection_is_no_failure_where_only_errors_are_answered() {
    let (mut world, mut former, mut bob) = parties();
    let chunk = bob.chunk("chunk001", "message1", "1-4/8", b"left", '+');
    let [chunk, rest] =
        [chunk, bob.chunk("chunk002", "message1", "5-8/8", b"hand", '$')].map(|it| {
            let text = String::from_utf8(it).unwrap();
            text.replacen("Byte-Range", "Failure-Report: partial\r\nByte-Range", 1).into_bytes()
        });
    bob.send_raw(&mut world, &chunk);
    world.settle();
    former.read(&mut world);
    let mut next = move_over(&mut world, &former);
    world.pass(4);
    assert_eq!(world.measure().connections, 2, "the former one is closed");
    bob.send_raw(&mut world, &rest);
    world.settle();
    next.read(&mut world);
    bob.read(&mut world);
    assert_eq!((bob.take_statuses(), bob.take_reports()), (vec![], vec![]));
    let got = former.received.iter().chain(&next.received).map(|it| it.body.as_slice());
    assert_eq!(got.collect::<Vec<_>>().concat(), b"lefthand");
    world.subtract_all([1, 2]);
}
