//! What connections give back while nothing happens on them, and that nobody notices.

mod common;

use common::{Ue, World, key};

/// One message, with its answers.
fn says(world: &mut World, from: &mut Ue, to: &mut Ue, id: &str) {
    let request = from.send(id, id, id.as_bytes());
    from.send_raw(world, &request);
    world.settle();
    to.read(world);
    assert_eq!(to.bodies().last().map(Vec::as_slice), Some(id.as_bytes()));
    to.answer(world, 200);
    world.settle();
    from.read(world);
    assert_eq!(from.take_statuses(), [200]);
}

#[test]
fn sessions_go_on_after_any_number_of_rests() {
    let mut world = World::calm();
    let psk = key(1);
    let mut alice = world.member(1, 1, Some(&psk));
    let mut bob = world.member(1, 2, Some(&psk));
    for round in 0..4 {
        says(&mut world, &mut alice, &mut bob, &format!("alice00{round}"));
        if round % 2 == 0 {
            says(&mut world, &mut bob, &mut alice, &format!("bobxx00{round}"));
        }
        world.pass(10);
    }
    assert_eq!(alice.bodies().len(), 2);
    assert_eq!(bob.bodies().len(), 4);
    world.subtract_all([1, 2]);
}

#[test]
fn a_rest_gives_back_expanded_keys_and_queues() {
    let mut world = World::calm();
    let psk = key(1);
    let members = 20_u64;
    let mut ues: Vec<Ue> =
        (1..=members).map(|member| world.member(member.div_ceil(2), member, Some(&psk))).collect();
    let rest = allocation_counter::measure(|| world.pass(10));
    let given_back = -rest.bytes_current;
    // Queues, the Passage, and of the keys the 48 bytes that hold them: the schedules themselves lie in
    // memory of AWS-LC's own, which is not counted here.
    assert!(given_back >= 700 * members as i64, "{given_back} bytes");
    let again = allocation_counter::measure(|| world.pass(10));
    assert!(again.bytes_current >= 0, "once is enough: {}", again.bytes_current);
    let (first, second) = ues.split_at_mut(1);
    says(&mut world, &mut first[0], &mut second[0], "afterwar");
    world.subtract_all(1..=members);
}

#[test]
fn what_is_under_way_is_kept_however_long_it_takes() {
    let mut world = World::calm();
    let psk = key(1);
    let mut alice = world.member(1, 1, Some(&psk));
    let mut bob = world.member(1, 2, Some(&psk));
    let whole = alice.send("slowly01", "slowly01", b"what takes its time");
    let (beginning, end) = whole.split_at(whole.len() - 20);
    alice.send_raw(&mut world, beginning);
    world.settle();
    world.pass(10);
    alice.send_raw(&mut world, end);
    world.settle();
    bob.read(&mut world);
    assert_eq!(bob.bodies(), [b"what takes its time".to_vec()]);
    world.subtract_all([1, 2]);
}
