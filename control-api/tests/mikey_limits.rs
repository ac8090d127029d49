//! Wishes that would not fit into a ticket: its lengths have 16 bits, and who asks is not to be trusted
//! with them.

mod mikey_world;

use control_api::mikey::error::PolicyProblem;
use control_api::mikey::request::request_ticket;
use control_api::mikey::{Credentials, Error, TicketWish, codec};
use mikey_world::{ALICE, KMS_URI, ROOM, World, alice_key, now, session_key, tpk, usual_flags};
use zeroize::Zeroizing;

/// What the KMS says to a wish that is in order otherwise.
fn asked(wish: &TicketWish<'_>) -> Option<Error> {
    let mut world = World::plain();
    let World { parameters, random, kms, .. } = &mut world;
    let own = alice_key();
    let credentials = Credentials::PreShared(&own);
    let (_, request) =
        request_ticket(parameters, wish, credentials, now(), random).expect("a request");
    assert!(request.len() <= codec::MESSAGE_BYTES_MAX, "it is no message otherwise");
    kms.try_handle(&request, now(), random).err()
}

#[test]
fn responders_that_would_not_fit_are_refused() {
    let uris: Vec<String> =
        (0..40).map(|index| format!("sip:{}{index:02}@127.0.0.1", "r".repeat(1000))).collect();
    let all: Vec<&str> = uris.iter().map(String::as_str).collect();
    let wish = TicketWish::new(KMS_URI, ALICE, &all);
    let too_long = Error::UnacceptablePolicy(PolicyProblem::TooLong);
    assert_eq!(asked(&wish), Some(too_long.clone()));
    assert_eq!(too_long.mikey_error_number(), 15);
    assert_eq!(asked(&TicketWish::new(KMS_URI, ALICE, &all[..15])), None, "fifteen fit");

    // Nor are they put into a ticket of one's own.
    let World { parameters, mut random, .. } = World::plain();
    let made = control_api::mikey::GrantedTicket::make_as_wished(
        &parameters,
        &wish,
        &tpk(),
        now(),
        &mut random,
    );
    assert_eq!(made.err(), Some(too_long));
}

#[test]
fn a_salt_that_would_not_fit_is_refused() {
    let with_salt = |bytes: usize| {
        let mut key = session_key(1, 16, &[4]);
        key.salt = Some(Zeroizing::new(vec![0; bytes]));
        asked(&TicketWish { session_keys: &[key], ..TicketWish::new(KMS_URI, ALICE, &[ROOM]) })
    };
    let refused = Error::UnacceptablePolicy(PolicyProblem::SessionKeys);
    for bytes in [65, 65_000] {
        assert_eq!(with_salt(bytes), Some(refused.clone()), "{bytes}");
    }
    assert_eq!(with_salt(64), None);
}

#[test]
fn the_largest_wish_that_is_granted_makes_a_ticket_that_can_be_used() {
    let uris: Vec<String> =
        (0..14).map(|index| format!("sip:{}{index:02}@127.0.0.1", "r".repeat(1000))).collect();
    let all: Vec<&str> = uris.iter().map(String::as_str).chain([ROOM]).collect();
    let keys: Vec<_> = (0..16_u8)
        .map(|index| {
            let mut key = session_key(1, 16, &[index; 255]);
            key.salt = Some(Zeroizing::new(vec![0; 64]));
            key
        })
        .collect();
    let mut world = World::plain();
    let wish = TicketWish {
        session_keys: &keys,
        flags: usual_flags(),
        ..TicketWish::new(KMS_URI, ALICE, &all)
    };
    let own = alice_key();
    let World { parameters, random, kms, .. } = &mut world;
    let (pending, request) =
        request_ticket(parameters, &wish, Credentials::PreShared(&own), now(), random)
            .expect("a request");
    let response = kms.try_handle(&request, now(), random).expect("granted");
    let ticket = pending.finish(&response, now()).expect("a ticket");
    world.transfer(&ticket);
}
