//! Every reading of an open question that can be set: what we send, and what we take all the same,
//! unless we are strict.

mod mikey_world;

use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::codec::code_point::{ID_BYTES, ROLE_INITIATOR, ROLE_RESPONDER};
use control_api::mikey::codec::{self, CsIdMap, DataType, Payload, TicketFlags, Timestamp};
use control_api::mikey::error::PolicyProblem;
use control_api::mikey::{
    Error, Established, GrantedTicket, IvTime, Parameters, PskIdentityForm, Responder,
    ResponderConfig, TransferOptions, UriPattern,
};
use mikey_world::{
    ALICE, KMS_URI, World, alice_key, assert_same_key, node_key, now, resealed, seconds_later, tpk,
    usual_flags,
};

fn strict() -> Parameters {
    Parameters { strict: true, ..Parameters::default() }
}

fn responder(parameters: Parameters) -> Responder {
    Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Host("127.0.0.1".to_owned())],
        answer_as: None,
        kms_uri: KMS_URI.to_owned(),
        kms_key: node_key(),
        parameters,
    })
}

fn kms(parameters: Parameters) -> Kms {
    Kms::new(KmsConfig {
        uri: KMS_URI.to_owned(),
        users: vec![node_key(), alice_key()],
        ticket_protection_keys: vec![tpk()],
        ticket_lifetime: std::time::Duration::from_secs(3600),
        may_act_as: [
            (b"tpk-alice".to_vec(), vec![UriPattern::Exact(ALICE.to_owned())]),
            (b"psk-alice".to_vec(), vec![UriPattern::Exact(ALICE.to_owned())]),
            (b"psk-node".to_vec(), vec![UriPattern::Host("127.0.0.1".to_owned())]),
        ]
        .into(),
        groups: [].into(),
        parameters,
    })
}

/// Each party with parameters of its own.
fn world(initiator: Parameters, at_responder: Parameters, at_kms: Parameters) -> World {
    let mut world = World::new(initiator);
    world.responder = responder(at_responder);
    world.kms = kms(at_kms);
    world
}

/// The peer reads it another way than we; ours takes it, and a strict one of ours does not.
fn initiator_differs(parameters: Parameters) -> World {
    world(parameters, Parameters::default(), Parameters::default())
}

fn forking() -> TicketFlags {
    usual_flags().with(TicketFlags::KEY_FORKING)
}

fn made(world: &mut World, flags: TicketFlags) -> GrantedTicket {
    world.made(flags, &[], &tpk()).expect("made")
}

/// The KMS answers a second after it was asked, so that the two times differ.
fn answer_late(world: &mut World, transfer_init: &[u8]) -> Result<(Established, Vec<u8>), Error> {
    let World { responder, kms, random, .. } = world;
    let (pending, resolve) = responder.begin(transfer_init, "mikey", now(), random)?;
    let resolved = kms.try_handle(&resolve, seconds_later(1), random)?;
    pending.finish(responder, &resolved, seconds_later(1), random)
}

#[test]
fn keys_of_responses_open_by_either_timestamp() {
    let initial = Parameters { response_iv_time: IvTime::Initial, ..Parameters::default() };
    let flags = usual_flags().with(TicketFlags::RESPONDER_KEYS);
    for at_kms in [Parameters::default(), initial.clone()] {
        let sending = Parameters { responder_session_keys: true, ..at_kms.clone() };
        let mut world = world(Parameters::default(), sending, at_kms);
        let ticket = made(&mut world, flags);
        let (initiator, transfer_init) = world.call(&ticket);
        let (answered, transfer_resp) = answer_late(&mut world, &transfer_init).expect("answered");
        let established = initiator.finish(&transfer_resp, now()).expect("established");
        assert_same_key(&established, &answered);
    }
    let mut world = world(Parameters::default(), strict(), initial);
    let ticket = made(&mut world, usual_flags());
    let (_, transfer_init) = world.call(&ticket);
    assert!(answer_late(&mut world, &transfer_init).is_err());
}

#[test]
fn identities_left_out_are_those_of_the_ticket() {
    for role in [ROLE_INITIATOR, ROLE_RESPONDER] {
        let mut world = World::plain();
        let ticket = made(&mut world, usual_flags());
        let (_, transfer_init) = world.call(&ticket);
        let shorter = resealed(&transfer_init, &tpk(), |message| {
            message.payloads.retain(
                |payload| !matches!(payload, Payload::Idr { role: its, .. } if *its == role),
            );
        });
        world.answer(&shorter).expect("it is known who is meant");
        world.responder = responder(strict());
        let name = if role == ROLE_INITIATOR { "IDRi" } else { "IDRr" };
        assert_eq!(world.answer(&shorter).err(), Some(Error::MissingPayload(name)));
    }
}

#[test]
fn the_mac_of_an_answer_may_or_may_not_cover_initiator_data() {
    let other = Parameters { response_covers_initiator_data: false, ..Parameters::default() };
    for at_initiator in [Parameters::default(), strict()] {
        let is_strict = at_initiator.strict;
        let mut world = world(at_initiator, other.clone(), Parameters::default());
        let ticket = made(&mut world, forking());
        let (initiator, transfer_init) = world.call(&ticket);
        let (_, transfer_resp) = world.answer(&transfer_init).expect("answered");
        let refused = initiator.finish(&transfer_resp, now()).err();
        let wrong_mac = Some(Error::WrongMac(DataType::TransferResp));
        assert_eq!(refused, if is_strict { wrong_mac } else { None });
    }
}

#[test]
fn the_copy_in_initiator_data_may_say_that_nothing_follows() {
    let parameters = Parameters { initiator_proof_next: 0, ..Parameters::default() };
    let mut world = initiator_differs(parameters);
    let ticket = made(&mut world, forking());
    let (_, transfer_init) = world.call(&ticket);
    world.responder = responder(strict());
    assert_eq!(world.answer(&transfer_init).err(), Some(Error::UnexpectedPayload("Vi")));
    world.responder = responder(Parameters::default());
    world.answer(&transfer_init).expect("answered");
}

#[test]
fn the_v_flag_is_ignored() {
    let quiet = Parameters { send_response_wanted: false, ..strict() };
    let mut world = world(quiet, strict(), strict());
    let ticket = made(&mut world, usual_flags());
    let (_, transfer_init) = world.call(&ticket);
    assert!(!codec::parse(&transfer_init).expect("ours").header.response_wanted);
    let granted = world.granted(usual_flags(), &[]).expect("granted");
    world.transfer(&granted);
    world.answer(&transfer_init).expect("answered");
}

#[test]
fn mpks_may_be_without_a_name() {
    let nameless = Parameters { spi_on_message_protection_keys: false, ..Parameters::default() };
    let mut differing = world(nameless.clone(), Parameters::default(), nameless.clone());
    let ticket = differing.granted(forking(), &[]).expect("granted");
    differing.transfer(&ticket);
    let mut refusing = world(nameless, strict(), strict());
    let ticket = made(&mut refusing, usual_flags());
    let (_, transfer_init) = refusing.call(&ticket);
    let refused = refusing.answer(&transfer_init).err();
    assert_eq!(refused, Some(Error::UnacceptablePolicy(PolicyProblem::SessionKeys)));
}

#[test]
fn other_numbers_for_tls_are_taken_where_they_are_listed() {
    let other = Parameters {
        protection_type_tls: 2,
        accepted_protection_types_tls: vec![2],
        crypto_session_id: 7,
        security_policy_number: 3,
        security_policy_parameters: vec![1, 1, 9],
        ..Parameters::default()
    };
    let mut world = initiator_differs(other);
    let ticket = made(&mut world, usual_flags());
    let (initiator, transfer_init) = world.call(&ticket);
    let refused = world.answer(&transfer_init).err();
    assert_eq!(refused, Some(Error::ProtectionTypeNotAccepted(2)));
    world.responder = responder(Parameters {
        accepted_protection_types_tls: vec![241, 2],
        ..Parameters::default()
    });
    let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
    let established = initiator.finish(&transfer_resp, now()).expect("established");
    assert_same_key(&established, &answered);
    assert!(established.psk_identity.ends_with(".7"));
}

#[test]
fn a_session_without_a_policy_is_taken_unless_we_are_strict() {
    let mut world = World::plain();
    let ticket = made(&mut world, usual_flags());
    let (_, transfer_init) = world.call(&ticket);
    let bare = resealed(&transfer_init, &tpk(), |message| {
        message.payloads.retain(|payload| !matches!(payload, Payload::SecurityPolicy(_)));
        if let CsIdMap::GenericId(sessions) = &mut message.header.map {
            sessions[0].policy_numbers.clear();
        }
    });
    world.responder = responder(strict());
    assert_eq!(world.answer(&bare).err(), Some(Error::MissingPayload("SP")));
    world.responder = responder(Parameters::default());
    world.answer(&bare).expect("answered");
}

#[test]
fn a_payload_that_the_message_does_not_list_is_ignored_unless_we_are_strict() {
    let mut world = World::plain();
    let ticket = made(&mut world, usual_flags());
    let (_, transfer_init) = world.call(&ticket);
    let longer = resealed(&transfer_init, &tpk(), |message| {
        let timestamp = Timestamp::NtpUtc32(5);
        message.payloads.insert(1, Payload::Tr { role: 1, timestamp });
    });
    world.responder = responder(strict());
    assert_eq!(world.answer(&longer).err(), Some(Error::UnexpectedPayload("TR")));
    world.responder = responder(Parameters::default());
    world.answer(&longer).expect("answered");
}

#[test]
fn identities_of_another_type_are_taken_where_they_are_uris() {
    let mut world =
        initiator_differs(Parameters { identity_type: ID_BYTES, ..Parameters::default() });
    let ticket = made(&mut world, forking());
    world.transfer(&ticket);
    let granted = world.granted(usual_flags(), &[]).expect("granted");
    world.transfer(&granted);
}

#[test]
fn the_length_of_the_key_and_its_name_can_be_set() {
    let parameters = Parameters {
        traffic_key_bytes: Some(32),
        psk_identity_form: PskIdentityForm::CsbId,
        ..Parameters::default()
    };
    let mut world = World::new(parameters);
    let ticket = made(&mut world, usual_flags());
    let (initiator, transfer_init) = world.call(&ticket);
    let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
    let established = initiator.finish(&transfer_resp, now()).expect("established");
    assert_eq!(assert_same_key(&established, &answered).len(), 32);
    assert_eq!(established.psk_identity.len(), 8);
}

#[test]
fn a_strict_party_talks_to_itself() {
    for flags in [usual_flags(), forking()] {
        let mut world = World::new(strict());
        let granted = world.granted(flags, &[]).expect("granted");
        world.transfer(&granted);
        let ticket = made(&mut world, flags);
        world.transfer(&ticket);
        assert!(world.try_call(&ticket, TransferOptions::default()).is_ok());
    }
}
