//! A moderated room: the messages of those who hold the floor for them are passed on, to the byte, and
//! nobody else's.

use mrfp_core::mp::*;

use crate::common::{Ue, World};
use crate::phone::*;
use crate::room_support::{ROOM, chunk, cpim, heard, say, send_cpim};

/// A moderated room with three members; the first two have BFCP.
fn moderated() -> (World, [Ue; 3], [Phone; 2]) {
    let mut world = World::calm();
    let ues = [1, 2, 3].map(|termination| member(&mut world, termination, true));
    let phones = [(11, 1), (12, 2)]
        .map(|(user_id, speaks_by)| participant(&mut world, user_id, Some(speaks_by)));
    (world, ues, phones)
}

fn text(ue: u64, content: &str) -> Vec<u8> {
    cpim(&format!("sip:ue{ue}@example.com"), ROOM, content)
}

/// Status of what a member says.
fn speak(world: &mut World, ue: &mut Ue, id: &str, body: &[u8]) -> Vec<u16> {
    let message = send_cpim(ue, id, body);
    say(world, ue, &message)
}

fn done(world: &mut World, termination: u64) {
    world.subtract_all([1, 2, 3, 11, 12].into_iter().filter(|it| *it != termination));
}

#[test]
fn only_who_holds_the_floor_is_heard() {
    let (mut world, mut ues, mut phones) = moderated();
    let [one, two, three] = &mut ues;
    for (ue, number) in [(&mut *one, 1), (two, 2), (three, 3)] {
        assert_eq!(speak(&mut world, ue, "before", &text(number, "before")), [403]);
    }
    phones[0].request(&mut world, MESSAGES);
    assert_eq!(speak(&mut world, one, "granted", &text(1, "granted")), [200]);
    assert_eq!(speak(&mut world, two, "waits", &text(2, "waits")), [403]);
    assert_eq!(speak(&mut world, three, "never", &text(3, "never")), [403]);
    phones[1].request(&mut world, MESSAGES);
    phones[0].release(&mut world, 1);
    assert_eq!(speak(&mut world, one, "released", &text(1, "released")), [403]);
    assert_eq!(speak(&mut world, two, "follows", &text(2, "follows")), [200]);
    assert_eq!(heard(&mut world, two), [text(1, "granted")]);
    assert_eq!(heard(&mut world, one), [text(2, "follows")]);
    assert_eq!(heard(&mut world, three), [text(1, "granted"), text(2, "follows")]);
    done(&mut world, 0);
}

#[test]
fn other_floors_let_nobody_be_heard() {
    let (mut world, [mut one, _, mut three], [mut phone, _]) = moderated();
    phone.request(&mut world, REPORTED);
    assert_eq!(speak(&mut world, &mut one, "other", &text(1, "other")), [403]);
    assert_eq!(heard(&mut world, &mut three), [b""; 0]);
    done(&mut world, 0);
}

#[test]
fn what_is_no_message_passes_without_a_floor() {
    let (mut world, [mut one, _, _], _phones) = moderated();
    let keep_alive = one.empty_send("alive001");
    assert_eq!(say(&mut world, &mut one, &keep_alive), [200]);
    let (to, from) = (&one.remote_uri, &one.local_uri);
    let nickname = format!(
        "MSRP nick0001 NICKNAME\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
         Use-Nickname: \"Rose\"\r\n-------nick0001$\r\n"
    );
    assert_eq!(say(&mut world, &mut one, nickname.as_bytes()), [200]);
    done(&mut world, 0);
}

#[test]
fn a_message_is_cut_where_its_sender_loses_the_floor() {
    let (mut world, [mut one, _, mut three], [mut first, _second]) = moderated();
    first.request(&mut world, MESSAGES);
    let body = text(1, &"x".repeat(5000));
    let whole = chunk(&one, "long", "1-*/*", "message/cpim", &body, '$');
    one.send_raw(&mut world, &whole[..2000]);
    world.settle();
    act(&mut world, FloorAction::Revoke { floor_id: MESSAGES, user_id: 11 }).unwrap();
    one.read(&mut world);
    assert_eq!(one.take_statuses(), [403], "at that moment, not at its end");
    one.send_raw(&mut world, &whole[2000..]);
    world.settle();
    three.read(&mut world);
    let (_, got, end) = three.messages().pop().expect("the beginning");
    assert_eq!(end, '#');
    assert!(got.len() < 2000 && body.starts_with(&got), "{} bytes", got.len());
    // Nothing of the rest, and no other message, after the cut.
    one.read(&mut world);
    assert_eq!(one.take_statuses(), [0; 0]);
    assert_eq!(speak(&mut world, &mut one, "after", &text(1, "after")), [403]);
    three.read(&mut world);
    assert_eq!(three.messages().len(), 1);
    done(&mut world, 0);
}

#[test]
fn a_message_that_began_without_the_floor_is_not_heard_in_the_middle() {
    let (mut world, [mut one, _, mut three], [mut first, _second]) = moderated();
    let body = text(1, &"x".repeat(5000));
    let whole = chunk(&one, "long", "1-*/*", "message/cpim", &body, '$');
    one.send_raw(&mut world, &whole[..2000]);
    world.settle();
    first.request(&mut world, MESSAGES);
    one.send_raw(&mut world, &whole[2000..]);
    world.settle();
    one.read(&mut world);
    assert_eq!(one.take_statuses(), [403]);
    assert_eq!(speak(&mut world, &mut one, "next", &text(1, "next")), [200]);
    assert_eq!(heard(&mut world, &mut three), [text(1, "next")]);
    done(&mut world, 0);
}

#[test]
fn chunks_of_a_message_end_with_the_floor() {
    let (mut world, [mut one, _, mut three], [mut first, _second]) = moderated();
    first.request(&mut world, MESSAGES);
    let body = text(1, &"x".repeat(200));
    let (front, back) = body.split_at(150);
    let begins = format!("1-150/{}", body.len());
    let begins = chunk(&one, "long", &begins, "message/cpim", front, '+');
    assert_eq!(say(&mut world, &mut one, &begins), [200]);
    first.release(&mut world, 1);
    let ends = format!("151-{0}/{0}", body.len());
    let ends = chunk(&one, "long", &ends, "message/cpim", back, '$');
    assert_eq!(say(&mut world, &mut one, &ends), [403]);
    three.read(&mut world);
    assert_eq!(three.messages(), [(three.messages()[0].0.clone(), front.to_vec(), '#')]);
    done(&mut world, 0);
}

#[test]
fn a_room_may_be_moderated_and_opened_again_while_it_runs() {
    let (mut world, [mut one, mut two, mut three], [mut first, _second]) = moderated();
    let open = act(&mut world, FloorAction::Moderate(false)).unwrap();
    assert!(!open.moderated);
    assert_eq!(open.message_floor_id, Some(MESSAGES));
    for (ue, number) in [(&mut one, 1), (&mut two, 2), (&mut three, 3)] {
        assert_eq!(speak(&mut world, ue, "open", &text(number, "open")), [200]);
    }
    first.request(&mut world, MESSAGES);
    assert_eq!(speak(&mut world, &mut two, "still", &text(2, "still")), [200]);
    // Who is in the middle of something is cut, but for who holds the floor.
    let body = text(1, &"x".repeat(3000));
    let [of_one, of_two] = [(&one, 1), (&two, 2)].map(|(ue, number)| {
        let body = text(number, &"x".repeat(3000));
        chunk(ue, "long", "1-*/*", "message/cpim", &body, '$')
    });
    one.send_raw(&mut world, &of_one[..1500]);
    two.send_raw(&mut world, &of_two[..1500]);
    world.settle();
    assert!(act(&mut world, FloorAction::Moderate(true)).unwrap().moderated);
    one.send_raw(&mut world, &of_one[1500..]);
    two.send_raw(&mut world, &of_two[1500..]);
    world.settle();
    one.read(&mut world);
    two.read(&mut world);
    assert_eq!(one.take_statuses().pop(), Some(200));
    assert_eq!(two.take_statuses().pop(), Some(403));
    three.read(&mut world);
    let ends: Vec<char> = three.messages().iter().rev().take(2).map(|it| it.2).collect();
    assert!(ends.contains(&'$') && ends.contains(&'#'), "{ends:?}");
    assert!(three.bodies().contains(&body));
    done(&mut world, 0);
}

#[test]
fn who_leaves_or_is_lost_for_good_is_not_heard_any_more() {
    let (mut world, [mut one, mut two, _], [mut first, mut second]) = moderated();
    first.request(&mut world, MESSAGES);
    second.request(&mut world, MESSAGES);
    // A lost connection is no lost floor, until the grace is over.
    world.shard.driver_mut().peer_reset(first.peer);
    world.settle();
    assert_eq!(released(&world, 11), Some(ReleaseCause::ConnectionLost));
    assert_eq!(speak(&mut world, &mut one, "lost", &text(1, "lost")), [200]);
    world.pass(GRACE_SECONDS - 1);
    assert_eq!(speak(&mut world, &mut two, "notyet", &text(2, "not yet")), [403]);
    world.pass(2);
    assert_eq!(speak(&mut world, &mut one, "gone", &text(1, "gone")), [403]);
    assert_eq!(speak(&mut world, &mut two, "now", &text(2, "now")), [200]);
    world.command(Command::Subtract { termination: TerminationId(12) });
    assert_eq!(speak(&mut world, &mut two, "left", &text(2, "left")), [403]);
    done(&mut world, 12);
}

#[test]
fn whoever_joins_later_is_heard_if_its_user_has_the_floor() {
    let (mut world, _ues, _phones) = moderated();
    let mut early = participant(&mut world, 14, Some(4));
    early.request(&mut world, MESSAGES);
    let mut four = member(&mut world, 4, true);
    assert_eq!(speak(&mut world, &mut four, "here", &text(4, "here")), [200]);
    let mut five = member(&mut world, 5, true);
    assert_eq!(speak(&mut world, &mut five, "there", &text(5, "there")), [403]);
    world.subtract_all([1, 2, 3, 4, 5, 11, 12, 14]);
}
