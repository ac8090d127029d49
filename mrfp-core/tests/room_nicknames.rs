//! Nicknames (RFC 7701 section 7).

mod common;
mod room_support;

use common::{Ue, World};
use mrfp_core::mp::{ChatRoomPolicy, Command, Event, TerminationId};
use room_support::{Client, client, join, policy, say, three};

fn request(ue: &Ue, lines: &str) -> Vec<u8> {
    let (to, from) = (&ue.remote_uri, &ue.local_uri);
    format!(
        "MSRP nick0001 NICKNAME\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{lines}-------nick0001$\r\n"
    )
    .into_bytes()
}

/// Asks for a nickname: the status, and what the controller was told.
fn ask(world: &mut World, ue: &mut Ue, name: &str) -> (u16, Option<Option<String>>) {
    let message = request(ue, &format!("Use-Nickname: \"{name}\"\r\n"));
    world.seen.clear();
    let statuses = say(world, ue, &message);
    assert_eq!(statuses.len(), 1);
    let told = world.seen.iter().find_map(|event| match event {
        Event::NicknameChanged { termination, nickname } => {
            assert_eq!(*termination, ue.termination);
            Some(nickname.clone())
        }
        _ => None,
    });
    (statuses[0], told)
}

fn granted(name: &str) -> (u16, Option<Option<String>>) {
    (200, Some(Some(name.into())))
}

#[test]
fn a_nickname_belongs_to_one_user_however_it_is_written() {
    let (mut world, mut alice, mut bob, _carol) = three(&policy());
    assert_eq!(ask(&mut world, &mut alice, "Alice the great"), granted("Alice the great"));
    for same in ["Alice the great", "alice THE great", " Alice  the\u{a0}great "] {
        assert_eq!(ask(&mut world, &mut bob, same), (425, None), "{same}");
    }
    assert_eq!(ask(&mut world, &mut bob, "Bob \\\"the\\\" \\\\"), granted("Bob \"the\" \\"));
    assert_eq!(ask(&mut world, &mut alice, "Bob \\\"the\\\" \\\\"), (425, None));
    // RFC 7701 section 7.2: what failed changes nothing.
    assert_eq!(ask(&mut world, &mut bob, "Alice the Great"), (425, None));
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_nickname_laid_down_changed_or_left_behind_is_free() {
    let (mut world, mut alice, mut bob, mut carol) = three(&policy());
    assert_eq!(ask(&mut world, &mut alice, "First"), granted("First"));
    assert_eq!(ask(&mut world, &mut alice, "Second"), granted("Second"));
    assert_eq!(ask(&mut world, &mut bob, "First"), granted("First"));
    assert_eq!(ask(&mut world, &mut alice, ""), (200, Some(None)));
    assert_eq!(ask(&mut world, &mut carol, "Second"), granted("Second"));
    world.command(Command::Subtract { termination: TerminationId(2) });
    assert_eq!(ask(&mut world, &mut alice, "First"), granted("First"));
    world.shard.driver_mut().peer_reset(carol.peer);
    world.settle();
    assert_eq!(ask(&mut world, &mut alice, "Second"), granted("Second"));
    world.subtract_all([1, 3]);
}

#[test]
fn the_devices_of_one_user_may_share_a_nickname() {
    let (mut world, mut alice, mut bob, _carol) = three(&policy());
    let mut tablet = join(&mut world, 4, &policy(), client("alice"));
    assert_eq!(ask(&mut world, &mut alice, "Ally"), granted("Ally"));
    assert_eq!(ask(&mut world, &mut tablet, "ally"), granted("ally"));
    world.command(Command::Subtract { termination: TerminationId(1) });
    assert_eq!(ask(&mut world, &mut bob, "Ally"), (425, None), "one device still goes by it");
    assert_eq!(ask(&mut world, &mut tablet, ""), (200, Some(None)));
    assert_eq!(ask(&mut world, &mut bob, "Ally"), granted("Ally"));
    world.subtract_all([2, 3, 4]);
}

#[test]
fn what_nobody_may_be_called_is_refused() {
    let (mut world, mut alice, _bob, _carol) = three(&policy());
    for (name, status) in [
        ("ROOM", 425),
        (" admin ", 425),
        (" ", 424),
        ("a\u{200b}b", 424),
        ("a\\b", 424),
        (&"x".repeat(1_024), 424),
        (&"x".repeat(1_023), 200),
    ] {
        assert_eq!(ask(&mut world, &mut alice, name).0, status, "{name:?}");
    }
    for (lines, status) in [
        ("", 400),
        ("Use-Nickname: Alice\r\n", 424),
        ("Use-Nickname: \"a\"\r\nUse-Nickname: \"b\"\r\n", 424),
        // RFC 7701 section 7.1: there is no Failure-Report in it, so none silences the answer.
        ("Failure-Report: no\r\nUse-Nickname: \"c\"\r\n", 200),
    ] {
        let message = request(&alice, lines);
        assert_eq!(say(&mut world, &mut alice, &message), [status], "{lines}");
    }
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_room_may_have_none_and_the_muted_change_none() {
    let formal = ChatRoomPolicy { nicknames: false, ..policy() };
    let (mut world, mut alice, _bob, _carol) = three(&formal);
    assert_eq!(ask(&mut world, &mut alice, "Alice"), (403, None));
    world.subtract_all([1, 2, 3]);
    let mut world = World::calm();
    let muted = Client { muted: true, ..client("alice") };
    let mut alice = join(&mut world, 1, &policy(), muted);
    assert_eq!(ask(&mut world, &mut alice, "Alice"), (403, None));
    world.subtract_all([1]);
}

#[test]
fn the_nameless_do_not_share_a_nickname() {
    let mut world = World::calm();
    let nameless =
        || Client { uris: vec!["sip:anonymous@anonymous.invalid".into()], ..client("x") };
    let mut one = join(&mut world, 1, &policy(), nameless());
    let mut two = join(&mut world, 2, &policy(), nameless());
    assert_eq!(ask(&mut world, &mut one, "Masked"), granted("Masked"));
    assert_eq!(ask(&mut world, &mut one, "MASKED"), granted("MASKED"), "the same session");
    assert_eq!(ask(&mut world, &mut two, "Masked"), (425, None));
    world.subtract_all([1, 2]);
}
