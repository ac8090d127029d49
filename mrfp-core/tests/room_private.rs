//! Private messages (RFC 7701 section 6.2), and who can be reached by them.

mod common;
mod room_support;

use common::{Ue, World};
use mrfp_core::mp::{ChatRoomPolicy, Command, Direction, Modify, TerminationId};
use room_support::{
    Client, ROOM, audit, chunk, client, cpim, heard, join, plain_client, policy, say, send_cpim,
    three, typed_cpim, uri, wrapping,
};

fn whisper(world: &mut World, ue: &mut Ue, id: &str, from: &str, to: &str) -> Vec<u16> {
    let message = send_cpim(ue, id, &cpim(from, to, "psst"));
    say(world, ue, &message)
}

#[test]
fn a_private_message_reaches_its_addressee_alone() {
    let (mut world, mut alice, mut bob, mut carol) = three(&policy());
    let status = whisper(&mut world, &mut alice, "m1", &uri("alice"), "SIP:bob@EXAMPLE.com;gr=1");
    assert_eq!(status, [200]);
    let expected = cpim(&uri("alice"), "SIP:bob@EXAMPLE.com;gr=1", "psst");
    assert_eq!(heard(&mut world, &mut bob), [expected], "not a byte of it is changed");
    assert!(heard(&mut world, &mut carol).is_empty());
    assert!(heard(&mut world, &mut alice).is_empty());
    world.subtract_all([1, 2, 3]);
}

#[test]
fn it_reaches_every_device_of_its_addressee_and_no_newcomer_gets_its_tail() {
    let (mut world, mut alice, mut bob, mut carol) = three(&policy());
    let mut with_number = client("bob");
    with_number.uris.push("tel:+12015550123".into());
    let mut tablet = join(&mut world, 4, &policy(), with_number);
    let body = cpim(&uri("alice"), &uri("bob"), "hello");
    let total = body.len();
    let (first, second) = body.split_at(total - 3);
    let range = format!("1-{}/{total}", total - 3);
    let message = chunk(&alice, "message1", &range, "message/cpim", first, '+');
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    let mut phone = join(&mut world, 5, &policy(), client("bob"));
    let range = format!("{}-{total}/{total}", total - 2);
    let message = chunk(&alice, "message1", &range, "message/cpim", second, '$');
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    assert_eq!(heard(&mut world, &mut bob), std::slice::from_ref(&body));
    assert_eq!(heard(&mut world, &mut tablet), [body]);
    assert!(heard(&mut world, &mut phone).is_empty());
    assert!(heard(&mut world, &mut carol).is_empty());
    // A further name of one of the devices.
    assert_eq!(whisper(&mut world, &mut alice, "m2", &uri("alice"), "tel:+1-201-555-0123"), [200]);
    let counts = [&mut bob, &mut tablet, &mut phone].map(|ue| heard(&mut world, ue).len());
    assert_eq!(counts, [0, 1, 0]);
    // Bob writes to himself: his other devices get it.
    assert_eq!(whisper(&mut world, &mut bob, "m3", &uri("bob"), &uri("bob")), [200]);
    let counts = [&mut bob, &mut tablet, &mut phone].map(|ue| heard(&mut world, ue).len());
    assert_eq!(counts, [0, 1, 1]);
    world.subtract_all([1, 2, 3, 4, 5]);
}

#[test]
fn what_cannot_reach_anybody_is_refused_with_the_reason() {
    let (mut world, mut alice, mut bob, _carol) = three(&policy());
    let unaware = Client { private_messages: false, ..client("dave") };
    let mut dave = join(&mut world, 4, &policy(), unaware);
    let from = uri("alice");
    assert_eq!(whisper(&mut world, &mut alice, "m1", &from, &uri("nobody")), [404]);
    assert_eq!(whisper(&mut world, &mut alice, "m2", &from, &uri("alice")), [404], "herself");
    assert_eq!(whisper(&mut world, &mut alice, "m3", &from, &uri("dave")), [428]);
    // Who knows nothing of RFC 7701 takes part all the same.
    let message = send_cpim(&alice, "m4", &cpim(&from, ROOM, "hello"));
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    assert_eq!(heard(&mut world, &mut dave).len(), 1);
    let hold = |direction| {
        Command::Modify(Box::new(Modify {
            termination: TerminationId(2),
            direction,
            muted: false,
            remote: None,
            psk: None,
        }))
    };
    world.command(hold(Direction::Inactive));
    assert_eq!(whisper(&mut world, &mut alice, "m5", &from, &uri("bob")), [403]);
    world.command(hold(Direction::SendRecv));
    heard(&mut world, &mut bob);
    assert_eq!(whisper(&mut world, &mut alice, "m6", &from, &uri("bob")), [200]);
    bob.read(&mut world);
    assert_eq!(bob.bodies().len(), 1);
    bob.answer(&mut world, 200);
    world.command(Command::Subtract { termination: TerminationId(2) });
    assert_eq!(whisper(&mut world, &mut alice, "m7", &from, &uri("bob")), [404], "gone");
    assert_eq!(audit(&mut world).messages_undelivered, 0, "refused, not lost");
    world.subtract_all([1, 3, 4]);
}

#[test]
fn a_room_may_have_none() {
    let quiet = ChatRoomPolicy { private_messages: false, ..policy() };
    let (mut world, mut alice, mut bob, _carol) = three(&quiet);
    assert_eq!(whisper(&mut world, &mut alice, "m1", &uri("alice"), &uri("bob")), [403]);
    assert!(heard(&mut world, &mut bob).is_empty());
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_disposition_notification_goes_where_its_to_says() {
    let quiet = ChatRoomPolicy { private_messages: false, ..policy() };
    let mut world = World::calm();
    let unaware = Client { private_messages: false, ..client("alice") };
    let mut alice = join(&mut world, 1, &quiet, unaware);
    let mut bob = join(&mut world, 2, &quiet, client("bob"));
    let mut carol = join(&mut world, 3, &quiet, client("carol"));
    let body = typed_cpim(&uri("bob"), &uri("alice"), "message/imdn+xml", b"<imdn/>");
    let message = send_cpim(&bob, "m1", &body);
    assert_eq!(say(&mut world, &mut bob, &message), [200]);
    assert_eq!(heard(&mut world, &mut alice), [body]);
    assert!(heard(&mut world, &mut carol).is_empty());
    world.subtract_all([1, 2, 3]);
}

#[test]
fn an_anonymous_participant_is_found_under_that_name_alone() {
    let mut world = World::calm();
    let anonymous = "sip:anonymous-7f3a@anonymous.invalid";
    let masked = Client { uris: vec![anonymous.into()], ..client("alice") };
    let mut alice = join(&mut world, 1, &policy(), masked);
    let mut bob = join(&mut world, 2, &policy(), client("bob"));
    assert_eq!(whisper(&mut world, &mut bob, "m1", &uri("bob"), anonymous), [200]);
    assert_eq!(heard(&mut world, &mut alice).len(), 1);
    assert_eq!(whisper(&mut world, &mut bob, "m2", &uri("bob"), &uri("alice")), [404]);
    assert_eq!(whisper(&mut world, &mut alice, "m3", &uri("alice"), &uri("bob")), [403]);
    assert_eq!(whisper(&mut world, &mut alice, "m4", anonymous, &uri("bob")), [200]);
    assert!(!String::from_utf8_lossy(&heard(&mut world, &mut bob)[0]).contains("alice"));
    // The name that may be anybody's finds nobody.
    let nameless =
        || Client { uris: vec!["sip:anonymous@anonymous.invalid".into()], ..client("x") };
    let mut one = join(&mut world, 3, &policy(), nameless());
    let mut two = join(&mut world, 4, &policy(), nameless());
    let to = "sip:anonymous@anonymous.invalid";
    assert_eq!(whisper(&mut world, &mut bob, "m5", &uri("bob"), to), [404]);
    assert!(heard(&mut world, &mut one).is_empty());
    assert!(heard(&mut world, &mut two).is_empty());
    world.subtract_all([1, 2, 3, 4]);
}

#[test]
fn who_cannot_show_a_wrapper_is_sent_no_private_message() {
    let mut world = World::calm();
    let mut alice = join(&mut world, 1, &wrapping(), client("alice"));
    let pretender = Client { private_messages: true, ..plain_client("bob") };
    let mut bob = join(&mut world, 2, &wrapping(), pretender);
    assert_eq!(whisper(&mut world, &mut alice, "m1", &uri("alice"), &uri("bob")), [428]);
    assert!(heard(&mut world, &mut bob).is_empty());
    world.subtract_all([1, 2]);
}

#[test]
fn what_becomes_of_a_private_message_is_reported_in_a_wrapper() {
    let (mut world, mut alice, mut bob, _carol) = three(&policy());
    let wrapped =
        |to: &str| format!("From: <{}>\r\nTo: <{to}>\r\n\r\n\r\n", uri("alice")).into_bytes();
    let reports = |world: &mut World, alice: &mut Ue| {
        alice.read(world);
        let is_report = |m: &&common::Received| m.method.as_deref() == Some("Report");
        let all: Vec<_> = alice.received.iter().filter(is_report).cloned().collect();
        alice.received.clear();
        all
    };
    // A success, which the room answers itself.
    let text =
        String::from_utf8(send_cpim(&alice, "m1", &cpim(&uri("alice"), &uri("bob"), "psst")));
    let message = text
        .unwrap()
        .replace("Content-Type: message/cpim", "Success-Report: yes\r\nContent-Type: message/cpim");
    assert_eq!(say(&mut world, &mut alice, message.as_bytes()), [200]);
    let got = reports(&mut world, &mut alice);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].report_status, Some(200));
    assert_eq!(got[0].content_type.as_deref(), Some("message/cpim"));
    assert_eq!(got[0].body, wrapped(&uri("bob")));
    bob.read(&mut world);
    bob.answer(&mut world, 200);
    // An error of the only recipient.
    assert_eq!(whisper(&mut world, &mut alice, "m2", &uri("alice"), &uri("bob")), [200]);
    bob.read(&mut world);
    bob.answer(&mut world, 413);
    let got = reports(&mut world, &mut alice);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].report_status, got[0].message_id.as_deref()), (Some(413), Some("m2")));
    assert_eq!(got[0].body, wrapped(&uri("bob")));
    // The recipient vanishes before it has answered.
    assert_eq!(whisper(&mut world, &mut alice, "m3", &uri("alice"), &uri("bob")), [200]);
    world.shard.driver_mut().peer_reset(bob.peer);
    world.settle();
    let got = reports(&mut world, &mut alice);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].report_status, got[0].message_id.as_deref()), (Some(408), Some("m3")));
    assert_eq!(got[0].body, wrapped(&uri("bob")));
    assert_eq!(audit(&mut world).messages_undelivered, 2);
    world.subtract_all([1, 2, 3]);
}
