//! The four modes of RFC 6043, and what the flags of a ticket change.

mod mikey_world;

use control_api::kms::{Kms, KmsConfig, SharedTicketKey};
use control_api::mikey::codec::code_point::{
    ENCRYPTION_AES_KW_128, KEY_GTGK, KEY_GTGK_SALT, KEY_TEK, KEY_TEK_SALT, KEY_TGK, KEY_TGK_SALT,
    ROLE_INITIATOR, ROLE_KMS,
};
use control_api::mikey::codec::{self, CsIdMap, Payload, TicketFlags, Timestamp};
use control_api::mikey::derivation::{KeySource, Prf, constant};
use control_api::mikey::error::PolicyProblem;
use control_api::mikey::{
    Error, GrantedTicket, NtpTime, Parameters, Responder, ResponderConfig, Suite, TicketMaker,
    TransferOptions, UriPattern,
};
use mikey_world::{
    ALICE, KMS_URI, ROOM, World, assert_same_key, node_key, now, resealed, room_tpk, seconds_later,
    session_key, tpk, usual_flags,
};
use openssl::aes::{AesKey, wrap_key};

const SUITES: [Suite; 2] = [Suite::S128, Suite::S256];

fn local_flags() -> TicketFlags {
    usual_flags().without(TicketFlags::RESOLVE_MANDATORY)
}

fn forking_flags() -> TicketFlags {
    usual_flags().with(TicketFlags::KEY_FORKING)
}

fn alice_calls() -> TicketMaker {
    TicketMaker::Initiators(vec![UriPattern::Exact(ALICE.to_owned())])
}

#[test]
fn mode_1_and_mode_3_give_both_sides_the_same_key() {
    for suite in SUITES {
        let mut world = World::with_suite(suite);
        let granted = world.granted(usual_flags(), &[]).expect("granted");
        assert!(granted.ticket().policy.flags.has(TicketFlags::MADE_BY_KMS));
        assert_eq!(world.transfer(&granted).len(), suite.key_bytes());
        let made = world.made(usual_flags(), &[], &tpk()).expect("made");
        assert!(!made.ticket().policy.flags.has(TicketFlags::MADE_BY_KMS));
        assert_eq!(world.transfer(&made).len(), suite.key_bytes());
    }
}

#[test]
fn in_mode_2_the_responder_opens_the_kms_s_ticket_itself() {
    for suite in SUITES {
        let mut world = World::with_suite(suite);
        world.kms_shares_key();
        world.room_holds_key(TicketMaker::Kms);
        let ticket = world.granted(local_flags(), &[]).expect("granted");
        let flags = ticket.ticket().policy.flags;
        assert!(!flags.has(TicketFlags::RESOLVE_MANDATORY));
        assert!(!flags.has(TicketFlags::CHANGED_BY_KMS));
        let (initiator, transfer_init) = world.call(&ticket);
        let (answered, transfer_resp) = world.answer_alone(&transfer_init).expect("answered");
        assert_same_key(&initiator.finish(&transfer_resp, now()).expect("established"), &answered);
    }
}

#[test]
fn a_ticket_of_mode_2_may_be_resolved_by_the_kms_all_the_same() {
    let mut world = World::plain();
    world.kms_shares_key();
    let ticket = world.granted(local_flags(), &[]).expect("granted");
    world.transfer(&ticket);
}

#[test]
fn whoever_shares_a_key_with_the_kms_makes_no_tickets_for_others_with_it() {
    let mut world = World::plain();
    let responders = vec![UriPattern::Exact("sip:other@127.0.0.1".to_owned())];
    world.kms.share_ticket_key(SharedTicketKey { key: room_tpk(), responders });
    // The other one makes a ticket as a KMS would, in alice's name, for the room.
    let mut forger = World::plain();
    forger.kms_shares_key();
    let forged = forger.granted(local_flags(), &[]).expect("made");
    let identity = world.responder.key_identity().to_vec();
    let random = &mut world.random;
    let refused = world.kms.resolve_here(forged.ticket(), ROOM, &identity, now(), random).err();
    assert_eq!(refused, Some(Error::UnacceptablePolicy(PolicyProblem::Maker)));
}

#[test]
fn a_kms_that_shares_no_key_with_the_responder_makes_its_resolving_mandatory() {
    let mut world = World::plain();
    let ticket = world.granted(local_flags(), &[]).expect("granted");
    let flags = ticket.ticket().policy.flags;
    assert!(flags.has(TicketFlags::RESOLVE_MANDATORY.with(TicketFlags::CHANGED_BY_KMS)));
    world.transfer(&ticket);
}

#[test]
fn in_mode_4_there_is_no_kms() {
    for suite in SUITES {
        let mut world = World::with_suite(suite);
        world.room_holds_key(alice_calls());
        let ticket = world.made(local_flags(), &[], &room_tpk()).expect("made");
        let (initiator, transfer_init) = world.call(&ticket);
        let (answered, transfer_resp) = world.answer_alone(&transfer_init).expect("answered");
        assert_same_key(&initiator.finish(&transfer_resp, now()).expect("established"), &answered);
    }
}

#[test]
fn in_mode_4_nobody_calls_in_anothers_name() {
    let mut world = World::plain();
    world.room_holds_key(TicketMaker::Initiators(vec![UriPattern::Exact("sip:bob@x".to_owned())]));
    let ticket = world.made(local_flags(), &[], &room_tpk()).expect("made");
    let (_, transfer_init) = world.call(&ticket);
    let refused = world.answer(&transfer_init).err();
    assert_eq!(refused, Some(Error::NotAuthorised(ALICE.to_owned())));
}

#[test]
fn a_ticket_that_lies_about_its_maker_is_refused() {
    let mut world = World::plain();
    world.room_holds_key(TicketMaker::Kms);
    let ticket = world.made(local_flags(), &[], &room_tpk()).expect("made");
    let (_, transfer_init) = world.call(&ticket);
    let refused = world.answer(&transfer_init).err();
    assert_eq!(refused, Some(Error::UnacceptablePolicy(PolicyProblem::Maker)));
}

#[test]
fn a_ticket_under_a_key_that_is_held_has_to_name_its_holder() {
    let mut world = World::plain();
    world.responder = Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Any],
        answer_as: Some("sip:other@127.0.0.1".to_owned()),
        kms_uri: KMS_URI.to_owned(),
        kms_key: node_key(),
        parameters: Parameters::default(),
    });
    world.room_holds_key(alice_calls());
    let ticket = world.made(local_flags(), &[], &room_tpk()).expect("made");
    let (_, transfer_init) = world.call(&ticket);
    let changed = resealed(&transfer_init, &room_tpk(), |message| {
        for payload in &mut message.payloads {
            if let Payload::Idr { role: 2, identity } = payload {
                identity.data = b"sip:elsewhere@127.0.0.1".to_vec();
            }
        }
    });
    let refused = world.answer(&changed).err();
    assert_eq!(refused, Some(Error::ResponderNotInTicket("sip:other@127.0.0.1".to_owned())));
    // Called as the room, which the ticket names; it answers as another.
    assert!(world.answer_alone(&transfer_init).is_ok());
}

#[test]
fn a_key_that_is_held_does_not_replace_a_mandatory_resolve() {
    let mut world = World::plain();
    world.room_holds_key(alice_calls());
    let ticket = world.made(usual_flags(), &[], &room_tpk()).expect("made");
    let (_, transfer_init) = world.call(&ticket);
    let transfer = world.responder.check(&transfer_init, "mikey", now()).expect("acceptable");
    assert!(world.responder.open(&transfer).expect("no refusal").is_none());
}

#[test]
fn a_ticket_under_a_wrong_key_of_a_good_name_is_refused() {
    let mut world = World::plain();
    world.room_holds_key(alice_calls());
    let mut forged = room_tpk();
    forged.key = mikey_world::key(99);
    let ticket = world.made(local_flags(), &[], &forged).expect("made");
    let (_, transfer_init) = world.call(&ticket);
    assert_eq!(world.answer(&transfer_init).err(), Some(Error::WrongTicketMac));
}

#[test]
fn forked_keys_agree_on_both_sides() {
    for suite in SUITES {
        let mut world = World::with_suite(suite);
        let granted = world.granted(forking_flags(), &[]).expect("granted");
        assert_eq!(world.transfer(&granted).len(), suite.key_bytes());
        let made = world.made(forking_flags(), &[], &tpk()).expect("made");
        assert_eq!(world.transfer(&made).len(), suite.key_bytes());
    }
}

/// Two nodes that answer for the same room, each with its own exchange with the KMS.
#[test]
fn two_responders_of_one_forked_call_get_different_keys() {
    let mut world = World::plain();
    let ticket = world.made(forking_flags(), &[], &tpk()).expect("made");
    let (_, transfer_init) = world.call(&ticket);
    let mut keys = Vec::new();
    for _ in 0..2 {
        let transfer = world.responder.check(&transfer_init, "mikey", now()).expect("acceptable");
        let (pending, resolve) =
            world.responder.ask(transfer, now(), &mut world.random).expect("asked");
        let resolved = world.kms.handle(&resolve, now(), &mut world.random);
        let mut other = World::plain();
        let (answered, _) = pending
            .finish(&mut other.responder, &resolved, now(), &mut mikey_world::counting_random())
            .expect("answered");
        keys.push(answered.psk.expose().to_vec());
    }
    // The same RANDRr for both: only the forking makes the difference.
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn teks_and_gtgks_are_not_forked() {
    for key_type in [KEY_TEK, KEY_GTGK] {
        let mut world = World::plain();
        let wished = [session_key(key_type, 16, b"k")];
        let forked = world.made(forking_flags(), &wished, &tpk()).expect("made");
        let (_, transfer_init) = world.call(&forked);
        let contents: Vec<_> = (0..2)
            .map(|_| {
                let transfer =
                    world.responder.check(&transfer_init, "mikey", now()).expect("acceptable");
                let (ticket, asked_as) = transfer.question();
                let identity = world.responder.key_identity().to_vec();
                let random = &mut world.random;
                world
                    .kms
                    .resolve_here(ticket, asked_as, &identity, now(), random)
                    .expect("resolved")
            })
            .collect();
        assert!(contents[0].session_keys == contents[1].session_keys);
        assert_ne!(contents[0].kms_rand, contents[1].kms_rand);
        assert_ne!(
            contents[0].message_protection.responder,
            contents[1].message_protection.responder
        );
        world.transfer(&forked);
    }
}

#[test]
fn a_kms_in_the_process_forks_keys_as_well() {
    let mut world = World::plain();
    let ticket = world.made(forking_flags(), &[], &tpk()).expect("made");
    let (initiator, transfer_init) = world.call(&ticket);
    let transfer = world.responder.check(&transfer_init, "mikey", now()).expect("acceptable");
    let (question, asked_as) = transfer.question();
    let identity = world.responder.key_identity().to_vec();
    let random = &mut world.random;
    let content =
        world.kms.resolve_here(question, asked_as, &identity, now(), random).expect("resolved");
    let (answered, transfer_resp) =
        transfer.finish(&mut world.responder, content, now(), random).expect("answered");
    assert_same_key(&initiator.finish(&transfer_resp, now()).expect("established"), &answered);
}

fn with_initiator_data(transfer_init: &[u8], data: Vec<u8>) -> Vec<u8> {
    let mut message = codec::parse(transfer_init).expect("our own");
    for payload in &mut message.payloads {
        if let Payload::Ticket(ticket) = payload {
            ticket.initiator_data.clone_from(&data);
        }
    }
    codec::encode(&message)
}

#[test]
fn whoever_has_not_the_ticket_s_keys_cannot_use_it_with_key_forking() {
    let mut world = World::plain();
    let ticket = world.made(forking_flags(), &[], &tpk()).expect("made");
    let (_, transfer_init) = world.call(&ticket);
    let message = codec::parse(&transfer_init).expect("our own");
    let data = message.ticket().expect("TICKET").initiator_data.clone();

    // A proof that does not hold is found by the KMS.
    let mut forged = data.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    let refused = world.answer(&with_initiator_data(&transfer_init, forged)).err();
    assert_eq!(refused, Some(Error::WrongInitiatorProof));

    // A proof for another transfer is found by the responder.
    let (_, other_init) = world.call(&ticket);
    let refused = world.answer(&with_initiator_data(&other_init, data)).err();
    assert_eq!(refused, Some(Error::WrongInitiatorProof));
    assert_eq!(refused.expect("an error").mikey_error_number(), 0);

    let refused = world.answer(&with_initiator_data(&transfer_init, Vec::new())).err();
    assert_eq!(refused, Some(Error::MissingPayload("Initiator Data")));
    assert!(world.answer(&transfer_init).is_ok());
}

#[test]
fn initiator_data_without_key_forking_is_refused() {
    let mut world = World::plain();
    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    let (_, transfer_init) = world.call(&ticket);
    let refused = world.answer(&with_initiator_data(&transfer_init, vec![9, 0, 0])).err();
    assert_eq!(refused, Some(Error::UnacceptablePolicy(PolicyProblem::InitiatorData)));
}

#[test]
fn each_rand_enters_the_key_where_its_flag_says_so() {
    let rands = TicketFlags::RESPONDER_RAND.with(TicketFlags::INITIATOR_RAND);
    for set in [TicketFlags::RESPONDER_RAND, TicketFlags::INITIATOR_RAND, rands] {
        for suite in SUITES {
            let mut world = World::with_suite(suite);
            let flags = usual_flags().without(rands).with(set);
            let ticket = world.made(flags, &[], &tpk()).expect("made");
            assert_ne!(world.transfer(&ticket), world.transfer(&ticket), "fresh each time");
        }
    }
    let mut world = World::plain();
    let refused = world.made(usual_flags().without(rands), &[], &tpk()).err();
    assert!(matches!(refused, Some(Error::UnacceptablePolicy(PolicyProblem::Contradiction(_)))));
}

fn unanswered_flags() -> TicketFlags {
    usual_flags().without(TicketFlags::RESPONDER_RAND).without(TicketFlags::TRANSFER_RESPONSE)
}

#[test]
fn a_ticket_without_f_is_not_answered() {
    let mut world =
        World::new(Parameters { transfer_response_required: false, ..Parameters::default() });
    let ticket = world.made(unanswered_flags(), &[], &tpk()).expect("made");
    let (initiator, transfer_init) = world.call(&ticket);
    assert!(!codec::parse(&transfer_init).expect("our own").header.response_wanted);
    let (answered, response) = world.answer(&transfer_init).expect("taken");
    assert!(response.is_empty());
    assert_same_key(&initiator.finish_unanswered().expect("established"), &answered);

    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    let (initiator, _) = world.call(&ticket);
    let refused = initiator.finish_unanswered().err();
    assert_eq!(refused, Some(Error::MissingPayload("TRANSFER_RESP")));
}

#[test]
fn a_ticket_without_f_is_refused_where_sdp_needs_an_answer() {
    let mut world = World::plain();
    let ticket = world.made(unanswered_flags(), &[], &tpk()).expect("made");
    let refused = world.try_call(&ticket, TransferOptions::default()).err();
    assert_eq!(refused, Some(Error::UnacceptablePolicy(PolicyProblem::NoResponse)));
}

#[test]
fn a_forked_tgk_needs_an_answer_and_a_tek_does_not() {
    let mut world =
        World::new(Parameters { transfer_response_required: false, ..Parameters::default() });
    let flags = unanswered_flags().with(TicketFlags::KEY_FORKING);
    let refused = world.made(flags, &[], &tpk()).err();
    let problem = PolicyProblem::ForkedWithoutResponse;
    assert_eq!(refused, Some(Error::UnacceptablePolicy(problem)));
    let ticket = world.made(flags, &[session_key(KEY_TEK, 16, b"t")], &tpk()).expect("made");
    let (initiator, transfer_init) = world.call(&ticket);
    let (answered, _) = world.answer(&transfer_init).expect("taken");
    assert_same_key(&initiator.finish_unanswered().expect("established"), &answered);
}

#[test]
fn the_initiator_may_send_a_key_of_its_own_where_l_allows_it() {
    for forking in [false, true] {
        let mut world = World::plain();
        let flags = if forking { forking_flags() } else { usual_flags() };
        let ticket = world.made(flags, &[], &tpk()).expect("made");
        let own = session_key(KEY_TEK, 16, b"own");
        let options = TransferOptions { session_key: Some(own.clone()) };
        let (initiator, transfer_init) = world.try_call(&ticket, options).expect("a call");
        let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
        let established = initiator.finish(&transfer_resp, now()).expect("established");
        assert_eq!(assert_same_key(&established, &answered), *own.key);
    }
}

#[test]
fn keys_that_are_wrapped_are_unwrapped() {
    let mut world = World::plain();
    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    // With this name the key data are 24 bytes: the wrapping takes multiples of 8.
    let own = session_key(KEY_TEK, 16, b"own");
    let options = TransferOptions { session_key: Some(own.clone()) };
    let (_, transfer_init) = world.try_call(&ticket, options).expect("a call");
    let identity = world.responder.key_identity().to_vec();
    let random = &mut world.random;
    let content = world.kms.resolve_here(ticket.ticket(), ROOM, &identity, now(), random);
    let mpki = content.expect("resolved").message_protection.initiator;
    let wrapped = |flipped: u8| {
        resealed(&transfer_init, &tpk(), |message| {
            let rand = message.rand(ROLE_INITIATOR).expect("RANDRi");
            let csb_id = message.header.csb_id;
            let source = KeySource::initial_message(Prf::Mikey1, &mpki, csb_id, rand, &[]);
            let key = AesKey::new_encrypt(&source.derive(constant::ENCRYPTION, 16));
            let key = key.expect("a key of AES");
            let salt = source.derive(constant::SALT, 8).as_slice().try_into().expect("8 bytes");
            let plaintext = codec::encode_key_data(std::slice::from_ref(&own));
            let mut encrypted = vec![0; plaintext.len() + 8];
            wrap_key(&key, Some(salt), &mut encrypted, &plaintext).expect("wrapped");
            encrypted[3] ^= flipped;
            for payload in &mut message.payloads {
                if let Payload::Kemac(kemac) = payload {
                    kemac.encryption = ENCRYPTION_AES_KW_128;
                    kemac.encrypted.clone_from(&encrypted);
                }
            }
        })
    };
    let refused = world.answer(&wrapped(1)).err();
    assert_eq!(refused, Some(Error::WrongKeyWrap));
    let later = wrapped(0);
    let mut fresh = World::plain();
    let (answered, _) = fresh.answer(&later).expect("answered");
    assert_eq!(answered.psk.expose(), own.key.as_slice());
}

#[test]
fn a_key_beside_the_ticket_is_refused_where_l_forbids_it() {
    let mut world = World::plain();
    let ticket = world.granted(usual_flags(), &[]).expect("granted");
    let options = || TransferOptions { session_key: Some(session_key(KEY_TGK, 16, b"own")) };
    let forbidden = Some(Error::UnacceptablePolicy(PolicyProblem::TransferredKeys));
    assert_eq!(world.try_call(&ticket, options()).err(), forbidden);

    let made = world.made(usual_flags(), &[], &tpk()).expect("made");
    let (_, transfer_init) = world.try_call(&made, options()).expect("a call");
    let mut message = codec::parse(&transfer_init).expect("our own");
    let kemac = message.payloads.iter().find(|payload| matches!(payload, Payload::Kemac(_)));
    let kemac = kemac.expect("KEMAC").clone();
    let (_, transfer_init) = world.call(&ticket);
    message = codec::parse(&transfer_init).expect("our own");
    message.payloads.insert(1, kemac);
    assert_eq!(world.answer(&codec::encode(&message)).err(), forbidden);
}

#[test]
fn the_responder_may_choose_the_key_where_m_allows_it() {
    let parameters = Parameters { responder_session_keys: true, ..Parameters::default() };
    for forking in [false, true] {
        for suite in SUITES {
            let mut world = World::new(Parameters { suite, ..parameters.clone() });
            let flags = if forking { forking_flags() } else { usual_flags() };
            let flags = flags.with(TicketFlags::RESPONDER_KEYS);
            let ticket = world.made(flags, &[], &tpk()).expect("made");
            let (initiator, transfer_init) = world.call(&ticket);
            let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
            let response = codec::parse(&transfer_resp).expect("ours");
            assert!(response.kemac().is_some());
            let CsIdMap::GenericId(sessions) = &response.header.map else { panic!("GENERIC-ID") };
            assert_ne!(sessions[0].spi, [0, 0, 0, 2], "the ticket's own key");
            assert_same_key(
                &initiator.finish(&transfer_resp, now()).expect("established"),
                &answered,
            );
        }
    }
    // Without M it keeps to the ticket.
    let mut world = World::new(parameters);
    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    let (_, transfer_init) = world.call(&ticket);
    let (_, transfer_resp) = world.answer(&transfer_init).expect("answered");
    assert!(codec::parse(&transfer_resp).expect("ours").kemac().is_none());
}

#[test]
fn every_kind_of_session_key_can_be_in_a_ticket() {
    for key_type in [KEY_TGK, KEY_TGK_SALT, KEY_TEK, KEY_TEK_SALT, KEY_GTGK, KEY_GTGK_SALT] {
        let mut world = World::plain();
        let wished = [session_key(key_type, 16, b"first"), session_key(KEY_TGK, 16, b"second")];
        let granted = world.granted(usual_flags(), &wished).expect("granted");
        assert!(!granted.ticket().policy.flags.has(TicketFlags::CHANGED_BY_KMS));
        let policy = &granted.ticket().policy;
        assert!(!policy.payloads.iter().any(|payload| matches!(payload, Payload::Kemac(_))));
        let keys = [world.transfer(&granted), world.transfer(&granted)];
        let fixed = matches!(key_type, KEY_TEK | KEY_TEK_SALT);
        assert_eq!(keys[0] == keys[1], fixed, "a TEK is what it is, others are derived");
    }
}

#[test]
fn keys_that_cannot_be_are_not_granted() {
    let mut world = World::plain();
    let unusable = Some(Error::UnacceptablePolicy(PolicyProblem::SessionKeys));
    let too_long = [session_key(KEY_TGK, 32, b"k")];
    assert_eq!(world.granted(usual_flags(), &too_long).err(), unusable, "RFC 6043 section 12.1");
    let nameless = [session_key(KEY_TGK, 16, b"")];
    assert_eq!(world.granted(usual_flags(), &nameless).err(), unusable);
    let many = vec![session_key(KEY_TGK, 16, b"k"); 17];
    assert_eq!(world.granted(usual_flags(), &many).err(), unusable);
    let short = [session_key(KEY_TGK, 15, b"k")];
    assert_eq!(world.granted(usual_flags(), &short).err(), Some(Error::KeyLength(15)));
}

fn modifier(transfer_resp: &[u8]) -> Vec<u8> {
    let response = codec::parse(transfer_resp).expect("ours");
    response.rand(ROLE_KMS).expect("RANDRkms").to_vec()
}

#[test]
fn a_ticket_that_is_used_again_is_not_resolved_again_and_keeps_its_modifier() {
    let mut world = World::plain();
    let ticket = world.granted(forking_flags(), &[]).expect("granted");
    let mut modifiers = Vec::new();
    let mut keys = Vec::new();
    for round in 0..3 {
        let (initiator, transfer_init) = world.call(&ticket);
        let (answered, transfer_resp) = if round == 0 {
            world.answer(&transfer_init)
        } else {
            world.answer_alone(&transfer_init)
        }
        .expect("answered");
        modifiers.push(modifier(&transfer_resp));
        let established = initiator.finish(&transfer_resp, now()).expect("established");
        keys.push(assert_same_key(&established, &answered));
    }
    assert!(modifiers.iter().all(|modifier| *modifier == modifiers[0]));
    assert_ne!(keys[1], keys[2]);
}

#[test]
fn a_key_beside_a_forked_ticket_is_taken_only_once_the_kms_has_seen_the_proof() {
    let mut world = World::plain();
    let ticket = world.made(forking_flags(), &[], &tpk()).expect("made");
    world.transfer(&ticket);
    let options = TransferOptions { session_key: Some(session_key(KEY_TEK, 16, b"own")) };
    let (_, transfer_init) = world.try_call(&ticket, options).expect("a call");
    let transfer = world.responder.check(&transfer_init, "mikey", now()).expect("acceptable");
    assert!(world.responder.open(&transfer).expect("no refusal").is_none());
}

#[test]
fn a_key_that_every_responder_has_is_taken_only_once_the_kms_has_seen_the_proof() {
    for wished in [
        vec![session_key(KEY_TEK, 16, b"k")],
        vec![session_key(KEY_TGK, 16, b"t"), session_key(KEY_GTGK, 16, b"g")],
    ] {
        let mut world = World::plain();
        let ticket = world.made(forking_flags(), &wished, &tpk()).expect("made");
        world.transfer(&ticket);
        // Another responder of that ticket has MPKi and these keys, but not MPKr.
        let (_, transfer_init) = world.call(&ticket);
        let message = codec::parse(&transfer_init).expect("our own");
        let mut data = message.ticket().expect("TICKET").initiator_data.clone();
        *data.last_mut().expect("bytes") ^= 1;
        let refused = world.answer(&with_initiator_data(&transfer_init, data)).err();
        assert_eq!(refused, Some(Error::WrongInitiatorProof));
        world.answer(&transfer_init).expect("answered");
    }
}

#[test]
fn a_ticket_that_was_resolved_still_expires() {
    let mut world = World::plain();
    let ticket = world.granted(usual_flags(), &[]).expect("granted");
    let (_, transfer_init) = world.call(&ticket);
    world.answer(&transfer_init).expect("answered");
    let late = world.responder.check(&transfer_init, "mikey", seconds_later(3601)).err();
    assert_eq!(late, Some(Error::TicketExpired));
}

#[test]
fn resolved_tickets_are_remembered_to_a_limit_and_only_with_j() {
    let mut world = World::new(Parameters { resolved_tickets_max: 1, ..Parameters::default() });
    let remembered = |world: &mut World, ticket: &GrantedTicket| {
        let (_, transfer_init) = world.call(ticket);
        let transfer = world.responder.check(&transfer_init, "mikey", now()).expect("acceptable");
        world.responder.open(&transfer).expect("no refusal").is_some()
    };
    let first = world.granted(usual_flags(), &[]).expect("granted");
    world.transfer(&first);
    assert!(remembered(&mut world, &first));
    let second = world.granted(usual_flags(), &[]).expect("granted");
    world.transfer(&second);
    assert!(remembered(&mut world, &second));
    assert!(!remembered(&mut world, &first), "the oldest makes room");
}

#[test]
fn a_ticket_without_j_serves_one_transfer() {
    let mut world = World::plain();
    let flags = usual_flags().without(TicketFlags::REUSABLE);
    let ticket = world.granted(flags, &[]).expect("granted");
    world.transfer(&ticket);
    let again = world.try_call(&ticket.clone(), TransferOptions::default()).err();
    assert_eq!(again, Some(Error::TicketReused));
}

#[test]
fn a_ticket_for_a_group_is_answered_as_who_is_authorised() {
    let member = "sip:desk@127.0.0.1";
    let mut world = World::plain();
    let alice = vec![UriPattern::Exact(ALICE.to_owned())];
    world.kms = Kms::new(KmsConfig {
        uri: KMS_URI.to_owned(),
        users: vec![node_key()],
        ticket_protection_keys: vec![tpk()],
        ticket_lifetime: std::time::Duration::from_secs(3600),
        may_act_as: [
            (b"tpk-alice".to_vec(), alice),
            (b"psk-node".to_vec(), vec![UriPattern::Exact(member.to_owned())]),
        ]
        .into(),
        groups: [(ROOM.to_owned(), vec![UriPattern::Exact(member.to_owned())])].into(),
        parameters: Parameters::default(),
    });
    world.responder = Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Any],
        answer_as: Some(member.to_owned()),
        kms_uri: KMS_URI.to_owned(),
        kms_key: node_key(),
        parameters: Parameters::default(),
    });
    let ticket = world.made(forking_flags(), &[], &tpk()).expect("made");
    let (mut initiator, transfer_init) = world.call(&ticket);
    initiator.accept_responder(UriPattern::Exact(member.to_owned()));
    let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
    let established = initiator.finish(&transfer_resp, now()).expect("established");
    assert_eq!(established.peer, member);
    assert_eq!(established.psk.expose(), answered.psk.expose());
}

fn stamped(transfer_init: &[u8], timestamp: Timestamp) -> Vec<u8> {
    resealed(transfer_init, &tpk(), |message| {
        message.payloads[0] = Payload::Timestamp(timestamp);
    })
}

#[test]
fn every_timestamp_of_a_clock_is_taken() {
    let mut world = World::plain();
    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    for timestamp in
        [Timestamp::NtpUtc(now().0), Timestamp::Ntp(now().0), Timestamp::NtpUtc32(now().seconds())]
    {
        let (_, transfer_init) = world.call(&ticket);
        assert!(world.answer(&stamped(&transfer_init, timestamp)).is_ok(), "{timestamp:?}");
        let old = match timestamp {
            Timestamp::NtpUtc32(seconds) => Timestamp::NtpUtc32(seconds - 61),
            _ => Timestamp::Ntp(now().0 - (61 << 32)),
        };
        let refused = world.answer(&stamped(&transfer_init, old)).err();
        assert!(matches!(refused, Some(Error::ClockSkew { .. })), "{timestamp:?}");
    }
}

#[test]
fn counters_are_taken_where_configured_and_only_grow() {
    let mut world = World::plain();
    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    let counter = |world: &mut World, count| {
        let (_, transfer_init) = world.call(&ticket);
        world.answer(&stamped(&transfer_init, Timestamp::Counter(count)))
    };
    assert_eq!(counter(&mut world, 1).err(), Some(Error::UnsupportedTimestamp));

    world.responder = Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Any],
        answer_as: None,
        kms_uri: KMS_URI.to_owned(),
        kms_key: node_key(),
        parameters: Parameters { counter_senders_max: 1, ..Parameters::default() },
    });
    let (_, transfer_resp) = counter(&mut world, 5).expect("answered");
    let response = codec::parse(&transfer_resp).expect("ours");
    assert_eq!(response.timestamp(), Some(Timestamp::Counter(5)), "repeated in the answer");
    assert_eq!(counter(&mut world, 5).err(), Some(Error::Replayed));
    assert_eq!(counter(&mut world, 4).err(), Some(Error::Replayed));
    assert!(counter(&mut world, 6).is_ok());
}

#[test]
fn ntp_seconds_go_on_after_2036() {
    let eve = NtpTime(u64::from(u32::MAX) << 32);
    let after = eve.after(std::time::Duration::from_secs(2));
    assert_eq!(after.seconds(), 1);
    assert!(eve.is_before(after));
    assert_eq!(after.to_unix_seconds() - eve.to_unix_seconds(), 2);
    assert_eq!(now().to_unix_seconds(), 1_790_000_000);
    let stamp = NtpTime::from_timestamp(Timestamp::NtpUtc32(1)).expect("a time");
    assert!(stamp.is_within(std::time::Duration::from_secs(3), eve));
}
