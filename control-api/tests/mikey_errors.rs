//! MIKEY Error messages: who may believe them, and what they say beside a number.

mod mikey_certificates;
mod mikey_world;

use control_api::mikey::codec::{self, CsIdMap, DataType, Message, Payload};
use control_api::mikey::request::request_ticket;
use control_api::mikey::{
    Bundle, Credentials, Error, Initiator, Parameters, PendingRequest, Suite, TicketWish,
};
use mikey_certificates::{Certified, certified};
use mikey_world::{ALICE, KMS_URI, ROOM, World, alice_key, now, seconds_later, tpk, usual_flags};

const EVE: &str = "sip:eve@example.com";

/// Alice asks for a ticket in somebody's name.
fn asked(world: &mut World, initiator: &str) -> (PendingRequest, Vec<u8>) {
    let own = alice_key();
    let World { parameters, random, .. } = world;
    Initiator::request_ticket(parameters, initiator, ROOM, KMS_URI, &own, now(), random)
        .expect("a request")
}

fn parsed(bytes: &[u8]) -> Message {
    let message = codec::parse(bytes).expect("ours");
    assert_eq!(message.header.data_type, DataType::Error);
    message.check_contents().expect("an Error as it should be");
    message
}

#[test]
fn who_proved_who_they_are_get_an_error_that_is_proof_itself() {
    for suite in [Suite::S128, Suite::S256] {
        let mut world = World::with_suite(suite);
        let (pending, request) = asked(&mut world, EVE);
        let World { kms, random, .. } = &mut world;
        let answer = kms.handle(&request, now(), random);
        assert!(parsed(&answer).verification().is_none(), "she may not act as Eve: no such user");
        let refused = Error::Refused { number: 7, authentic: false };
        assert_eq!(pending.finish(&answer, now()).err(), Some(refused));

        // Authentic, and not granted.
        let mut world = World::with_suite(suite);
        let responders: Vec<String> =
            (0..20).map(|index| format!("sip:{}{index}@127.0.0.1", "r".repeat(1000))).collect();
        let all: Vec<&str> = responders.iter().map(String::as_str).collect();
        let wish = TicketWish::new(KMS_URI, ALICE, &all);
        let own = alice_key();
        for spoil in [None, Some(1), Some(24)] {
            let World { parameters, random, kms, .. } = &mut world;
            let credentials = Credentials::PreShared(&own);
            let (pending, request) =
                request_ticket(parameters, &wish, credentials, now(), random).expect("a request");
            let mut answer = kms.handle(&request, now(), random);
            assert!(parsed(&answer).verification().is_some());
            let mut expected = Error::Refused { number: 15, authentic: true };
            if let Some(from_end) = spoil {
                let at = answer.len() - from_end;
                answer[at] ^= 1;
                expected = Error::WrongMac(DataType::Error);
            }
            let refusal = pending.finish(&answer, now()).err();
            assert_eq!(refusal, Some(expected), "{spoil:?}");
        }
    }
}

#[test]
fn an_error_without_its_mac_is_a_hint() {
    let mut world = World::plain();
    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    let (_, init) = world.call(&ticket);
    let World { responder, random, kms, .. } = &mut world;
    let (pending, request) = responder.begin(&init, "mikey", now(), random).expect("acceptable");
    // By then the ticket has expired, and not the request: the KMS of another clock.
    let mut message = codec::parse(&request).expect("ours");
    for payload in &mut message.payloads {
        if let Payload::Ticket(ticket) = payload {
            ticket.data[40] ^= 1;
        }
    }
    let changed = codec::encode(&message);
    let answer = kms.handle(&changed, now(), random);
    assert!(parsed(&answer).verification().is_none(), "the request is not authentic any more");
    let refusal = pending.finish(responder, &answer, now(), random).err();
    assert_eq!(refusal, Some(Error::Refused { number: 0, authentic: false }));
}

#[test]
fn what_the_kms_cannot_open_it_says_so_with_a_mac() {
    let mut world = World::plain();
    let mut key = tpk();
    key.key = vec![9; 32].into();
    let ticket = world.made(usual_flags(), &[], &key).expect("made");
    let (_, init) = world.call(&ticket);
    let World { responder, random, kms, .. } = &mut world;
    let (pending, request) = responder.begin(&init, "mikey", now(), random).expect("acceptable");
    let answer = kms.handle(&request, now(), random);
    let refusal = pending.finish(responder, &answer, now(), random).err();
    assert_eq!(refusal, Some(Error::Refused { number: 0, authentic: true }));
}

#[test]
fn an_error_about_a_signed_request_is_signed() {
    let Certified { mut world, alice, kms_certificate, .. } = certified(Suite::S128);
    let World { parameters, random, kms, .. } = &mut world;
    let credentials = Credentials::PublicKey { own: &alice, kms_certificate: &kms_certificate };
    let responders: Vec<String> =
        (0..20).map(|index| format!("sip:{}{index}@127.0.0.1", "r".repeat(1000))).collect();
    let all: Vec<&str> = responders.iter().map(String::as_str).collect();
    let wish = TicketWish::new(KMS_URI, ALICE, &all);
    let (_, request) =
        request_ticket(parameters, &wish, credentials, now(), random).expect("a request");
    let answer = kms.handle(&request, now(), random);
    let message = parsed(&answer);
    assert_eq!(message.error_number(), Some(15));
    let (signature_type, signature) = message.signature().expect("SIGN");
    assert_eq!(signature_type, 0);
    let certificate = openssl::x509::X509::from_der(&kms_certificate).expect("a certificate");
    let key = certificate.public_key().expect("a key");
    let digest = openssl::hash::MessageDigest::sha256();
    let mut verifier = openssl::sign::Verifier::new(digest, &key).expect("a verifier");
    verifier.update(&answer[..answer.len() - signature.len()]).expect("bytes");
    assert!(verifier.verify(signature).expect("a signature"));
}

fn policies(message: &Message) -> Vec<(u8, u8)> {
    message.security_policies().map(|policy| (policy.number, policy.protection_type)).collect()
}

#[test]
fn an_error_about_policies_says_which_would_be_taken() {
    let mut world = World::plain();
    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    let (_, init) = world.call(&ticket);
    let mut message = codec::parse(&init).expect("ours");
    let CsIdMap::GenericId(sessions) = &mut message.header.map else { panic!("GENERIC-ID") };
    sessions[0].protection_type = 0;
    let changed = codec::encode(&message);
    let error = world.answer(&changed).expect_err("refused");
    let refusal = world.responder.refusal(&changed, &error, now()).expect("an Error");
    let parsed_refusal = parsed(&refusal);
    assert_eq!(parsed_refusal.error_number(), Some(9));
    assert_eq!(policies(&parsed_refusal), [(0, 241)]);
    assert_eq!(parsed_refusal.header.csb_id, message.header.csb_id);

    let other = world.responder.refusal(&init, &Error::TicketExpired, now()).expect("an Error");
    assert!(policies(&parsed(&other)).is_empty());
    assert_eq!(world.responder.refusal(&refusal, &error, now()), None, "no Error for an Error");
}

fn session() -> (World, [Bundle; 2]) {
    let mut world = World::plain();
    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    let (initiator, init) = world.call(&ticket);
    let (answered, response) = world.answer(&init).expect("answered");
    let established = initiator.finish(&response, now()).expect("established");
    (world, [established.bundle, answered.bundle])
}

#[test]
fn who_refuses_an_update_proves_it_where_the_update_was_proof() {
    let at = seconds_later(5);
    let parameters = Parameters::default();
    for from in [0, 1] {
        let (mut world, mut bundles) = session();
        let begun = bundles[from].begin_update(&parameters, at, &mut world.random);
        let (pending, update) = begun.expect("an update");
        let refusing = Parameters {
            accepted_protection_types_tls: vec![242],
            protection_type_tls: 242,
            ..Parameters::default()
        };
        let to = &mut bundles[1 - from];
        let error = to.answer_update(&refusing, &update, "mikey", at).expect_err("refused");
        assert_eq!(error, Error::ProtectionTypeNotAccepted(241));
        let refusal = to.refuse_update(&refusing, &update, &error, at).expect("an Error");
        assert_eq!(policies(&parsed(&refusal)), [(0, 242)]);
        assert_eq!(to.refuse_update(&refusing, &refusal, &error, at), None);
        let told = pending.finish(&mut bundles[from], &parameters, &refusal, at).err();
        assert_eq!(told, Some(Error::Refused { number: 9, authentic: true }));

        let mut changed = update.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        let to = &mut bundles[1 - from];
        let error = to.answer_update(&parameters, &changed, "mikey", at).expect_err("refused");
        let refusal = to.refuse_update(&parameters, &changed, &error, at).expect("an Error");
        assert!(parsed(&refusal).verification().is_none());
        // It goes on as before.
        assert!(to.answer_update(&parameters, &update, "mikey", at).is_ok());
    }
}
