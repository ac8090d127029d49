//! Initiator, responder and KMS together, and everything they have to refuse.

mod mikey_world;

use std::time::Duration;

use control_api::kms::Kms;
use control_api::mikey::codec::code_point::{ROLE_INITIATOR, TICKET_3GPP_BASE};
use control_api::mikey::codec::{
    self, CsIdMap, DataType, FlagContradiction, MacAlgorithm, Message, ParseReason, Payload,
    TicketFlags,
};
use control_api::mikey::derivation::{KeySource, Prf, constant};
use control_api::mikey::error::PolicyProblem;
use control_api::mikey::protection::{self, Encryption};
use control_api::mikey::{
    Error, Established, GrantedTicket, Initiator, NtpTime, Parameters, Pending, Responder,
    ResponderConfig, Suite, TicketProtectionKey, UriPattern, error_message,
};
use mikey_world::{
    ALICE, BoxedRandom, KMS_URI, ROOM, alice_key, assert_same_key, counting_random, key,
    kms_config, node_key, now, responder_config, seconds_later, tpk,
};
use zeroize::Zeroizing;

/// The three parties and their randomness.
struct World {
    parameters: Parameters,
    responder: Responder,
    kms: Kms,
    random: BoxedRandom,
}

impl World {
    fn new(parameters: Parameters) -> Self {
        Self {
            responder: Responder::new(responder_config(parameters.clone())),
            kms: Kms::new(kms_config(parameters.clone())),
            parameters,
            random: Box::new(counting_random()),
        }
    }

    fn plain() -> Self {
        Self::new(Parameters::default())
    }

    fn call(&mut self) -> (Initiator, Vec<u8>) {
        self.call_to(ROOM)
    }

    fn call_to(&mut self, responder_uri: &str) -> (Initiator, Vec<u8>) {
        Initiator::with_own_ticket(
            &self.parameters,
            ALICE,
            responder_uri,
            KMS_URI,
            &tpk(),
            now(),
            &mut self.random,
        )
        .expect("a call")
    }

    fn begin(&mut self, transfer_init: &[u8]) -> Result<(Pending, Vec<u8>), Error> {
        self.begin_at(transfer_init, now())
    }

    fn begin_at(&mut self, message: &[u8], at: NtpTime) -> Result<(Pending, Vec<u8>), Error> {
        self.responder.begin(message, "mikey", at, &mut self.random)
    }

    fn answer(&mut self, transfer_init: &[u8]) -> Result<(Established, Vec<u8>), Error> {
        let (pending, resolve_init) = self.begin(transfer_init)?;
        let resolve_resp = self.kms.handle(&resolve_init, now(), &mut self.random);
        pending.finish(&mut self.responder, &resolve_resp, now(), &mut self.random)
    }

    /// What the responder says to a TRANSFER_INIT that was changed on its way.
    fn refusal(&mut self, change: impl FnOnce(&mut Message)) -> Error {
        let (_, transfer_init) = self.call();
        let mut message = codec::parse(&transfer_init).expect("our own message");
        change(&mut message);
        self.answer(&codec::encode(&message)).expect_err("it was changed")
    }
}

#[test]
fn mode_3_gives_both_sides_the_same_key() {
    let mut world = World::plain();
    let (initiator, transfer_init) = world.call();
    let identity = initiator.psk_identity();
    let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
    let established = initiator.finish(&transfer_resp, now()).expect("established");
    assert_same_key(&established, &answered);
    assert_eq!(established.psk_identity, identity);
    assert_eq!(established.psk.expose().len(), 16);
}

#[test]
fn suite_s256_gives_both_sides_the_same_key() {
    let mut world = World::new(Parameters { suite: Suite::S256, ..Parameters::default() });
    let (initiator, transfer_init) = world.call();
    let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
    let established = initiator.finish(&transfer_resp, now()).expect("established");
    assert_same_key(&established, &answered);
    assert_eq!(established.psk.expose().len(), 32);
}

fn request(world: &mut World) -> (control_api::mikey::PendingRequest, Vec<u8>) {
    Initiator::request_ticket(
        &world.parameters,
        ALICE,
        ROOM,
        KMS_URI,
        &alice_key(),
        now(),
        &mut world.random,
    )
    .expect("a request")
}

fn granted(world: &mut World) -> GrantedTicket {
    let (pending, request_init) = request(world);
    let response = world.kms.handle(&request_init, now(), &mut world.random);
    pending.finish(&response, now()).expect("granted")
}

#[test]
fn mode_1_gives_both_sides_the_same_key() {
    let mut world = World::plain();
    let ticket = granted(&mut world);
    let flags = ticket.ticket().policy.flags;
    assert!(flags.has(TicketFlags::MADE_BY_KMS));
    assert!(!flags.has(TicketFlags::CHANGED_BY_KMS));
    let (initiator, transfer_init) =
        Initiator::with_granted_ticket(&world.parameters, &ticket, ROOM, now(), &mut world.random)
            .expect("a call");
    let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
    let established = initiator.finish(&transfer_resp, now()).expect("established");
    assert_same_key(&established, &answered);
}

#[test]
fn mode_1_with_suite_s256_gives_both_sides_the_same_key() {
    let mut world = World::new(Parameters { suite: Suite::S256, ..Parameters::default() });
    let ticket = granted(&mut world);
    let (initiator, transfer_init) =
        Initiator::with_granted_ticket(&world.parameters, &ticket, ROOM, now(), &mut world.random)
            .expect("a call");
    let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
    assert_same_key(&initiator.finish(&transfer_resp, now()).expect("established"), &answered);
}

#[test]
fn a_ticket_used_again_gives_another_key() {
    let mut world = World::plain();
    let ticket = granted(&mut world);
    let mut keys = Vec::new();
    for _ in 0..2 {
        let (_, transfer_init) = Initiator::with_granted_ticket(
            &world.parameters,
            &ticket,
            ROOM,
            now(),
            &mut world.random,
        )
        .expect("a call");
        keys.push(world.answer(&transfer_init).expect("answered").0.psk.expose().to_vec());
    }
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn kms_shortens_a_ticket_and_says_so() {
    let parameters =
        Parameters { ticket_lifetime: Duration::from_secs(7200), ..Parameters::default() };
    let mut world = World::new(parameters);
    let ticket = granted(&mut world);
    assert!(ticket.ticket().policy.flags.has(TicketFlags::CHANGED_BY_KMS));
    let late = seconds_later(3700);
    let refused =
        Initiator::with_granted_ticket(&world.parameters, &ticket, ROOM, late, &mut world.random);
    assert_eq!(refused.err(), Some(Error::TicketExpired));
}

#[test]
fn accepts_a_message_without_sdp_ids_and_with_3gpp_ticket_type() {
    let mut world = World::new(Parameters {
        send_sdp_ids: false,
        ticket_type: TICKET_3GPP_BASE,
        ..Parameters::default()
    });
    let (_, transfer_init) = world.call();
    assert!(world.answer(&transfer_init).is_ok());
}

/// Changes a TRANSFER_INIT of ours as its initiator could: with a good MAC.
fn changed_by_initiator(transfer_init: &[u8], change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = codec::parse(transfer_init).expect("our own message");
    change(&mut message);
    let ticket = codec::parse_base_ticket(&message.ticket().expect("TICKET").data);
    let ticket =
        Message { header: message.header.clone(), payloads: ticket.expect("ours").payloads };
    let rand = ticket.payloads.iter().find_map(|payload| match payload {
        Payload::Rand(rand) => Some(rand.clone()),
        _ => None,
    });
    let rand = rand.expect("RAND");
    let tpk = tpk();
    let source = KeySource::ticket(Prf::Mikey1, &tpk.key, &rand);
    let mut keys = ticket.kemac().expect("KEMAC").encrypted.clone();
    let time = ticket.timestamp().expect("T").to_bits();
    protection::apply_aes_cm(&source, Encryption::AesCm128, u32::MAX, time, &mut keys);
    let keys = codec::parse_key_data(&keys).expect("keys");
    let source = KeySource::message_protection(Prf::Mikey1, &keys[0].key, &rand);
    let mpki = source.derive(constant::MPKI, 16);
    let randri = message.rand(ROLE_INITIATOR).expect("RANDRi").to_vec();
    let csb_id = message.header.csb_id;
    let source = KeySource::initial_message(Prf::Mikey1, &mpki, csb_id, &randri, &[]);
    let covered = codec::encode_without_initiator_data(&message);
    let covered = &covered[..covered.len() - 20];
    let parts = [covered, ALICE.as_bytes(), ROOM.as_bytes()];
    let mac = protection::mac(&source, MacAlgorithm::HmacSha1, &parts);
    let mut bytes = codec::encode(&message);
    let mac_at = bytes.len() - mac.len();
    bytes[mac_at..].copy_from_slice(&mac);
    bytes
}

#[test]
fn a_session_without_policy_and_spi_is_answered_with_ours() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    let transfer_init = changed_by_initiator(&transfer_init, |message| {
        message.payloads.retain(|payload| !matches!(payload, Payload::SecurityPolicy(_)));
        if let CsIdMap::GenericId(sessions) = &mut message.header.map {
            sessions[0].policy_numbers.clear();
            sessions[0].spi.clear();
        }
    });
    let (_, transfer_resp) = world.answer(&transfer_init).expect("answered");
    let message = codec::parse(&transfer_resp).expect("an answer");
    let CsIdMap::GenericId(sessions) = &message.header.map else { panic!("GENERIC-ID") };
    assert_eq!(sessions[0].policy_numbers, [0]);
    assert_eq!(sessions[0].spi, [0, 0, 0, 2]);
    assert_eq!(message.security_policies().count(), 1);
}

#[test]
fn an_spi_that_is_not_in_the_ticket_is_refused() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    // 1 names the MPK, which is no session key.
    for spi in [vec![0, 0, 0, 1], vec![7]] {
        let transfer_init = changed_by_initiator(&transfer_init, |message| {
            message.header.csb_id ^= u32::from(spi[0]) + 1;
            if let CsIdMap::GenericId(sessions) = &mut message.header.map {
                sessions[0].spi = spi;
            }
        });
        assert_eq!(world.answer(&transfer_init).err(), Some(Error::UnknownSessionKey));
    }
}

#[test]
fn a_session_that_names_an_absent_policy_is_refused() {
    let mut world = World::plain();
    let refused = world.refusal(|message| {
        message.payloads.retain(|payload| !matches!(payload, Payload::SecurityPolicy(_)));
    });
    assert_eq!(refused, Error::UnknownSecurityPolicy(0));
}

#[test]
fn a_flipped_bit_anywhere_in_transfer_init_is_refused() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    for at in 0..transfer_init.len() {
        let mut changed = transfer_init.clone();
        changed[at] ^= 1;
        assert!(world.answer(&changed).is_err(), "byte {at}");
    }
    assert!(world.answer(&transfer_init).is_ok(), "the unchanged message is still good");
}

#[test]
fn a_flipped_bit_anywhere_in_resolve_init_is_refused() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    let (_, resolve_init) = world.begin(&transfer_init).expect("acceptable");
    for at in 0..resolve_init.len() {
        let mut changed = resolve_init.clone();
        changed[at] ^= 1;
        assert!(world.kms.try_handle(&changed, now(), &mut world.random).is_err(), "byte {at}");
    }
    assert!(world.kms.try_handle(&resolve_init, now(), &mut world.random).is_ok());
}

#[test]
fn a_flipped_bit_anywhere_in_resolve_resp_is_refused() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    let (_, resolve_init) = world.begin(&transfer_init).expect("acceptable");
    let length = world.kms.handle(&resolve_init, now(), &mut world.random).len();
    for at in 0..length {
        let (pending, resolve_init) = world.begin(&transfer_init).expect("acceptable");
        let mut changed = world.kms.handle(&resolve_init, now(), &mut world.random);
        assert_eq!(changed.len(), length);
        changed[at] ^= 1;
        let finished = pending.finish(&mut world.responder, &changed, now(), &mut world.random);
        assert!(finished.is_err(), "byte {at}");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_transfer_resp_is_refused() {
    let mut world = World::plain();
    let ticket = granted(&mut world);
    let length = {
        let (_, transfer_init) = world.call();
        world.answer(&transfer_init).expect("answered").1.len()
    };
    for at in 0..length {
        let (initiator, transfer_init) = Initiator::with_granted_ticket(
            &world.parameters,
            &ticket,
            ROOM,
            now(),
            &mut world.random,
        )
        .expect("a call");
        let (_, mut changed) = world.answer(&transfer_init).expect("answered");
        changed[at] ^= 1;
        assert!(initiator.finish(&changed, now()).is_err(), "byte {at}");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_request_resp_is_refused() {
    let mut world = World::plain();
    let (_, request_init) = request(&mut world);
    let length = world.kms.handle(&request_init, now(), &mut world.random).len();
    for at in 0..length {
        let (pending, request_init) = request(&mut world);
        let mut changed = world.kms.handle(&request_init, now(), &mut world.random);
        changed[at] ^= 1;
        assert!(pending.finish(&changed, now()).is_err(), "byte {at}");
    }
}

#[test]
fn wrong_mac_is_named() {
    let mut world = World::plain();
    let (_, mut transfer_init) = world.call();
    *transfer_init.last_mut().expect("bytes") ^= 1;
    let refused = world.answer(&transfer_init).expect_err("refused");
    assert_eq!(refused, Error::WrongMac(DataType::TransferInit));
    assert_eq!(refused.mikey_error_number(), 0);
}

#[test]
fn a_forged_ticket_is_refused_by_the_kms() {
    let mut world = World::plain();
    let forged = TicketProtectionKey { identity: b"tpk-alice".to_vec(), key: key(9) };
    let (_, transfer_init) = Initiator::with_own_ticket(
        &world.parameters,
        ALICE,
        ROOM,
        KMS_URI,
        &forged,
        now(),
        &mut world.random,
    )
    .expect("a call");
    let (pending, resolve_init) = world.begin(&transfer_init).expect("looks good so far");
    let refused = world.kms.try_handle(&resolve_init, now(), &mut world.random);
    assert_eq!(refused, Err(Error::WrongTicketMac));
    // The KMS has authenticated that request and says no to it a second time as a replay.
    let answer = world.kms.handle(&resolve_init, now(), &mut world.random);
    let refused = pending.finish(&mut world.responder, &answer, now(), &mut world.random);
    assert_eq!(refused.err(), Some(Error::Refused { number: 1, authentic: false }));
}

#[test]
fn a_ticket_in_somebody_elses_name_is_refused_by_the_kms() {
    let mut world = World::plain();
    let (_, transfer_init) = Initiator::with_own_ticket(
        &world.parameters,
        "sip:mallory@example.com",
        ROOM,
        KMS_URI,
        &tpk(),
        now(),
        &mut world.random,
    )
    .expect("a call");
    let (_, resolve_init) = world.begin(&transfer_init).expect("looks good so far");
    let refused = world.kms.try_handle(&resolve_init, now(), &mut world.random);
    assert_eq!(refused, Err(Error::NotAuthorised("sip:mallory@example.com".to_owned())));
}

#[test]
fn a_replayed_transfer_init_is_refused_before_the_kms_is_asked() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    world.answer(&transfer_init).expect("answered");
    assert_eq!(world.begin(&transfer_init).err(), Some(Error::Replayed));
}

#[test]
fn of_two_copies_in_flight_one_is_refused() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    let (first, first_init) = world.begin(&transfer_init).expect("acceptable");
    let (second, second_init) = world.begin(&transfer_init).expect("not known as replay yet");
    let first_resp = world.kms.handle(&first_init, now(), &mut world.random);
    let second_resp = world.kms.handle(&second_init, now(), &mut world.random);
    assert!(first.finish(&mut world.responder, &first_resp, now(), &mut world.random).is_ok());
    let refused = second.finish(&mut world.responder, &second_resp, now(), &mut world.random);
    assert_eq!(refused.err(), Some(Error::Replayed));
}

#[test]
fn a_message_that_was_not_authentic_is_not_remembered() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    let mut forged = transfer_init.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    assert!(world.answer(&forged).is_err());
    assert!(world.answer(&transfer_init).is_ok());
}

#[test]
fn a_full_replay_cache_refuses_until_the_window_has_passed() {
    let parameters = Parameters { replay_cache_entries_max: 1, ..Parameters::default() };
    let mut world = World::plain();
    world.responder = Responder::new(responder_config(parameters));
    let (_, first) = world.call();
    world.answer(&first).expect("answered");
    let (_, second) = world.call();
    assert_eq!(world.answer(&second).err(), Some(Error::ReplayCacheFull));

    let later = seconds_later(121);
    let ticket = granted(&mut world);
    let (_, third) =
        Initiator::with_granted_ticket(&world.parameters, &ticket, ROOM, later, &mut world.random)
            .expect("a call");
    let (pending, resolve_init) = world.begin_at(&third, later).expect("acceptable");
    let resolve_resp = world.kms.handle(&resolve_init, later, &mut world.random);
    assert!(pending.finish(&mut world.responder, &resolve_resp, later, &mut world.random).is_ok());
}

#[test]
fn a_resolve_init_is_answered_once() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    let (_, resolve_init) = world.begin(&transfer_init).expect("acceptable");
    assert!(world.kms.try_handle(&resolve_init, now(), &mut world.random).is_ok());
    let again = world.kms.try_handle(&resolve_init, now(), &mut world.random);
    assert_eq!(again, Err(Error::Replayed));
}

#[test]
fn clocks_too_far_apart_are_refused_on_both_sides_of_the_window() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    assert!(world.begin_at(&transfer_init, seconds_later(60)).is_ok());
    let refused = world.begin_at(&transfer_init, seconds_later(61)).err().expect("too old");
    assert!(matches!(refused, Error::ClockSkew { .. }));
    assert_eq!(refused.mikey_error_number(), 1);

    let ticket = granted(&mut world);
    let (_, early) = Initiator::with_granted_ticket(
        &world.parameters,
        &ticket,
        ROOM,
        seconds_later(61),
        &mut world.random,
    )
    .expect("a call");
    assert!(matches!(world.begin(&early).err(), Some(Error::ClockSkew { .. })));
}

#[test]
fn a_ticket_may_start_as_much_ahead_of_our_clock_as_clocks_may_differ() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    let before = |seconds: u64| NtpTime::from_unix(Duration::from_secs(1_790_000_000 - seconds));
    assert!(world.begin_at(&transfer_init, before(60)).is_ok());
    let refused = world.begin_at(&transfer_init, before(61)).err();
    assert_eq!(refused, Some(Error::TicketNotYetValid));
}

#[test]
fn keys_too_short_to_be_safe_are_refused() {
    let mut world = World::plain();
    let mut config = responder_config(Parameters::default());
    config.kms_key.key = Zeroizing::new(vec![0; 15]);
    world.responder = Responder::new(config);
    let (_, transfer_init) = world.call();
    assert_eq!(world.begin(&transfer_init).err(), Some(Error::KeyLength(15)));
}

#[test]
fn an_expired_ticket_is_refused_without_the_kms() {
    let parameters =
        Parameters { ticket_lifetime: Duration::from_secs(10), ..Parameters::default() };
    let mut world = World::new(parameters);
    let (_, transfer_init) = world.call();
    assert!(world.begin_at(&transfer_init, seconds_later(10)).is_ok());
    let refused = world.begin_at(&transfer_init, seconds_later(11));
    assert_eq!(refused.err(), Some(Error::TicketExpired));
}

#[test]
fn the_kms_refuses_an_expired_ticket_too() {
    let parameters =
        Parameters { ticket_lifetime: Duration::from_secs(10), ..Parameters::default() };
    let mut world = World::new(parameters);
    let (_, transfer_init) = world.call();
    let (_, resolve_init) = world.begin(&transfer_init).expect("acceptable");
    let refused = world.kms.try_handle(&resolve_init, seconds_later(11), &mut world.random);
    assert_eq!(refused, Err(Error::TicketExpired));
}

#[test]
fn a_call_for_another_domain_is_refused() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call_to("sip:room@elsewhere.example.com");
    let refused = world.begin(&transfer_init).err();
    assert_eq!(refused, Some(Error::NotForUs("sip:room@elsewhere.example.com".to_owned())));
}

#[test]
fn a_responder_the_ticket_does_not_name_gets_no_keys() {
    let mut world = World::plain();
    world.responder = Responder::new(ResponderConfig {
        answer_as: Some("sip:other@127.0.0.1".to_owned()),
        ..responder_config(Parameters::default())
    });
    let (_, transfer_init) = world.call();
    let (_, resolve_init) = world.begin(&transfer_init).expect("acceptable");
    let refused = world.kms.try_handle(&resolve_init, now(), &mut world.random);
    assert_eq!(refused, Err(Error::ResponderNotInTicket("sip:other@127.0.0.1".to_owned())));
}

#[test]
fn a_responder_may_not_resolve_in_anothers_name() {
    let mut world = World::plain();
    let bob = "sip:bob@example.com";
    world.responder = Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Any],
        ..responder_config(Parameters::default())
    });
    let (_, transfer_init) = world.call_to(bob);
    let (_, resolve_init) = world.begin(&transfer_init).expect("acceptable");
    let refused = world.kms.try_handle(&resolve_init, now(), &mut world.random);
    assert_eq!(refused, Err(Error::NotAuthorised(bob.to_owned())));
}

#[test]
fn an_initiator_refuses_an_answer_from_somebody_it_did_not_call() {
    let mut world = World::plain();
    let other = "sip:other@127.0.0.1";
    let parameters = Parameters::default();
    let mut config = kms_config(parameters.clone());
    config.groups.insert(ROOM.to_owned(), vec![UriPattern::Exact(other.to_owned())]);
    world.kms = Kms::new(config);
    world.responder = Responder::new(ResponderConfig {
        answer_as: Some(other.to_owned()),
        ..responder_config(parameters)
    });
    let (initiator, transfer_init) = world.call();
    let (_, transfer_resp) = world.answer(&transfer_init).expect("answered");
    let refused = initiator.finish(&transfer_resp, now()).err();
    assert_eq!(refused, Some(Error::UnexpectedResponder(other.to_owned())));
}

#[test]
fn an_unknown_ticket_protection_key_is_named() {
    let mut world = World::plain();
    let mut config = kms_config(Parameters::default());
    config.ticket_protection_keys.clear();
    world.kms = Kms::new(config);
    let (_, transfer_init) = world.call();
    let (_, resolve_init) = world.begin(&transfer_init).expect("acceptable");
    let refused = world.kms.try_handle(&resolve_init, now(), &mut world.random);
    assert_eq!(refused, Err(Error::UnknownKeyIdentity("tpk-alice".to_owned())));
}

#[test]
fn an_unknown_user_is_refused_by_the_kms() {
    let mut world = World::plain();
    let mut config = kms_config(Parameters::default());
    config.users.clear();
    world.kms = Kms::new(config);
    let (pending, request_init) = request(&mut world);
    let response = world.kms.handle(&request_init, now(), &mut world.random);
    assert_eq!(
        pending.finish(&response, now()).err(),
        Some(Error::Refused { number: 0, authentic: false })
    );
}

#[test]
fn a_ticket_request_in_anothers_name_is_refused() {
    let mut world = World::plain();
    let mut config = kms_config(Parameters::default());
    config.may_act_as.remove(&b"psk-alice"[..]);
    world.kms = Kms::new(config);
    let (_, request_init) = request(&mut world);
    let refused = world.kms.try_handle(&request_init, now(), &mut world.random);
    assert_eq!(refused, Err(Error::NotAuthorised(ALICE.to_owned())));
}

#[test]
fn a_crypto_session_for_another_protocol_is_refused() {
    let mut world = World::plain();
    let (_, transfer_init) = {
        world.parameters.protection_type_tls = 0;
        world.call()
    };
    assert_eq!(world.begin(&transfer_init).err(), Some(Error::ProtectionTypeNotAccepted(0)));
}

#[test]
fn more_or_less_than_one_crypto_session_is_refused() {
    let mut world = World::plain();
    let two = world.refusal(|message| {
        if let CsIdMap::GenericId(sessions) = &mut message.header.map {
            sessions.push(sessions[0].clone());
        }
    });
    assert_eq!(two, Error::CryptoSessionCount(2));
    let none = world.refusal(|message| message.header.map = CsIdMap::GenericId(Vec::new()));
    assert_eq!(none, Error::CryptoSessionCount(0));
    let empty = world.refusal(|message| message.header.map = CsIdMap::Empty { count: 1 });
    assert_eq!(empty, Error::CryptoSessionCount(0));
}

/// Sets flags in the ticket.
fn with_flags(set: TicketFlags, cleared: TicketFlags) -> impl FnOnce(&mut Message) {
    move |message| {
        for payload in &mut message.payloads {
            if let Payload::Ticket(ticket) = payload {
                ticket.policy.flags = ticket.policy.flags.with(set).without(cleared);
            }
        }
    }
}

#[test]
fn key_forking_without_its_proof_is_refused_before_the_kms_is_asked() {
    let mut world = World::plain();
    let none = TicketFlags::KEY_FORKING.without(TicketFlags::KEY_FORKING);
    let (_, transfer_init) = world.call();
    let mut message = codec::parse(&transfer_init).expect("our own message");
    with_flags(TicketFlags::KEY_FORKING, none)(&mut message);
    let refused = world.begin(&codec::encode(&message)).err();
    assert_eq!(refused, Some(Error::MissingPayload("Initiator Data")));
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let mut world = World::plain();
    let none = TicketFlags::KEY_FORKING.without(TicketFlags::KEY_FORKING);
    let refused = world.refusal(with_flags(none, TicketFlags::TRANSFER_RESPONSE));
    let contradiction = FlagContradiction::RandWithoutResponse;
    assert_eq!(refused, Error::UnacceptablePolicy(PolicyProblem::Contradiction(contradiction)));
}

#[test]
fn a_ticket_type_that_is_not_accepted_is_refused() {
    let mut world = World::plain();
    world.responder = Responder::new(responder_config(Parameters {
        accepted_ticket_types: vec![TICKET_3GPP_BASE],
        ..Parameters::default()
    }));
    let (_, transfer_init) = world.call();
    let refused = world.begin(&transfer_init).err().expect("refused");
    assert_eq!(refused, Error::UnsupportedTicketType(1));
    assert_eq!(refused.mikey_error_number(), 14);
}

#[test]
fn a_changed_list_of_protocols_is_refused() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    let refused = world.responder.begin(&transfer_init, "other;mikey", now(), &mut world.random);
    assert_eq!(refused.err(), Some(Error::ProtocolListMismatch));
}

#[test]
fn missing_payloads_are_named() {
    let mut world = World::plain();
    let refused = world.refusal(|message| {
        message
            .payloads
            .retain(|payload| !matches!(payload, Payload::Randr { role: ROLE_INITIATOR, .. }));
    });
    assert_eq!(refused, Error::MissingPayload("RANDRi"));
    let refused = world.refusal(|message| {
        message.payloads.retain(|payload| !matches!(payload, Payload::Ticket(_)));
    });
    assert_eq!(refused, Error::MissingPayload("TICKET"));
}

#[test]
fn every_truncation_is_refused_by_every_party() {
    let mut world = World::plain();
    let (pending_request, request_init) = request(&mut world);
    let (initiator, transfer_init) = world.call();
    let (pending, resolve_init) = world.begin(&transfer_init).expect("acceptable");
    for length in 0..transfer_init.len() {
        assert!(world.begin(&transfer_init[..length]).is_err());
    }
    for message in [&request_init, &resolve_init] {
        for length in 0..message.len() {
            let part = &message[..length];
            assert!(world.kms.try_handle(part, now(), &mut world.random).is_err());
        }
    }
    let request_resp = world.kms.handle(&request_init, now(), &mut world.random);
    for length in 0..request_resp.len() {
        assert!(codec::parse(&request_resp[..length]).is_err());
    }
    assert!(pending_request.finish(&request_resp, now()).is_ok());
    let resolve_resp = world.kms.handle(&resolve_init, now(), &mut world.random);
    let (_, transfer_resp) = pending
        .finish(&mut world.responder, &resolve_resp, now(), &mut world.random)
        .expect("answered");
    for length in 0..transfer_resp.len() {
        assert!(codec::parse(&transfer_resp[..length]).is_err());
    }
    assert!(initiator.finish(&transfer_resp, now()).is_ok());
}

#[test]
fn an_error_message_repeats_the_csb_id_and_never_answers_an_error() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    let bytes = error_message(&transfer_init, &Error::TicketExpired, now()).expect("an answer");
    let message = codec::parse(&bytes).expect("a message");
    assert_eq!(message.header.data_type, DataType::Error);
    assert_eq!(message.header.csb_id.to_be_bytes(), transfer_init[4..8]);
    assert_eq!(message.error_number(), Some(15));
    assert_eq!(error_message(&bytes, &Error::TicketExpired, now()), None);
    assert_eq!(world.kms.handle(&bytes, now(), &mut world.random), Vec::<u8>::new());
    let short = error_message(&transfer_init[..20], &Error::Replayed, now()).expect("an answer");
    assert_eq!(short[4..8], transfer_init[4..8]);
}

#[test]
fn an_error_instead_of_a_transfer_resp_is_named() {
    let mut world = World::plain();
    let (initiator, transfer_init) = world.call();
    let error = error_message(&transfer_init, &Error::TicketExpired, now()).expect("an answer");
    assert_eq!(
        initiator.finish(&error, now()).err(),
        Some(Error::Refused { number: 15, authentic: false })
    );
}

#[test]
fn an_answer_to_another_call_is_refused() {
    let mut world = World::plain();
    let (_, first_init) = world.call();
    let (second, _) = world.call();
    let (_, first_resp) = world.answer(&first_init).expect("answered");
    assert_eq!(second.finish(&first_resp, now()).err(), Some(Error::ResponseMismatch));
}

#[test]
fn parse_errors_name_payload_and_offset() {
    let mut world = World::plain();
    let (_, transfer_init) = world.call();
    // HDR of 10 bytes, one GENERIC-ID record of 11, next payload and type of T.
    let error = codec::parse(&transfer_init[..30]).expect_err("truncated");
    assert_eq!((error.payload, error.offset), ("T", 23));
    assert_eq!(error.reason, ParseReason::Truncated);
    assert!(Error::Malformed(error).to_string().contains("T at byte 23"));
}

#[test]
fn secrets_are_not_printed() {
    let mut world = World::plain();
    let ticket = granted(&mut world);
    let printed = format!("{:?} {:?} {ticket:?}", tpk(), node_key());
    assert!(printed.contains("redacted"));
    assert!(!printed.contains("[1, 1, 1"));
    assert!(!printed.contains("[2, 2, 2"));
    assert!(!printed.contains("Zeroizing"), "the keys of a ticket are shown: {printed}");
}
