//! Messages whose sender has the keys and breaks the rules all the same: what is wrong behind a MAC that
//! is right is refused with the documented error, and gives no key.

mod mikey_certificates;
mod mikey_plain;
mod mikey_world;

use control_api::mikey::codec::code_point::{
    KEY_MPK, ROLE_END, ROLE_INITIATOR, ROLE_KMS, ROLE_RESPONDER,
};
use control_api::mikey::codec::{
    self, CryptoSession, CsIdMap, DataType, FlagContradiction, Kemac, KeyData, Message, Payload,
    TicketFlags, TicketPolicy, Timestamp,
};
use control_api::mikey::error::{CertificateProblem, PolicyProblem};
use control_api::mikey::request::request_ticket;
use control_api::mikey::{
    Bundle, Credentials, Error, Initiator, NtpTime, Parameters, Suite, TicketWish,
};
use mikey_certificates::{Certified, certified};
use mikey_plain::{Way, changed};
use mikey_world::{
    ALICE, KMS_URI, ROOM, World, alice_key, node_key, now, seconds_later, session_key, tpk,
    usual_flags,
};

type Change = fn(&mut Message);
/// What is changed, the error it gives and its number.
type Case = (&'static str, Change, Error, u8);

const fn refused(problem: PolicyProblem) -> Error {
    Error::UnacceptablePolicy(problem)
}

fn early() -> NtpTime {
    NtpTime(now().0 - (61 << 32))
}

fn too_early() -> Error {
    Error::ClockSkew { received: early(), now: now() }
}

fn set_time(message: &mut Message, to: Timestamp) {
    for payload in &mut message.payloads {
        if let Payload::Timestamp(timestamp) = payload {
            *timestamp = to;
        }
    }
}

fn stale(message: &mut Message) {
    set_time(message, Timestamp::NtpUtc(early().0));
}

fn set_identity(message: &mut Message, wanted: u8, uri: &str) {
    for payload in &mut message.payloads {
        if let Payload::Idr { role, identity } = payload
            && *role == wanted
        {
            identity.data = uri.as_bytes().to_vec();
        }
    }
}

fn session(message: &mut Message) -> &mut CryptoSession {
    match &mut message.header.map {
        CsIdMap::GenericId(sessions) => &mut sessions[0],
        _ => panic!("GENERIC-ID"),
    }
}

fn two_sessions(message: &mut Message) {
    let second = session(message).clone();
    message.header.map = CsIdMap::GenericId(vec![second.clone(), second]);
}

fn not_tls(message: &mut Message) {
    session(message).protection_type = 0;
}

fn unknown_spi(message: &mut Message) {
    session(message).spi = vec![9, 9];
}

fn policy(message: &mut Message) -> &mut TicketPolicy {
    let policies = message.payloads.iter_mut().find_map(|payload| match payload {
        Payload::Ticket(ticket) => Some(&mut ticket.policy),
        Payload::TicketPolicy(policy) => Some(policy),
        _ => None,
    });
    policies.expect("a policy")
}

fn without_rand(message: &mut Message) {
    let flags = policy(message).flags;
    policy(message).flags =
        flags.without(TicketFlags::INITIATOR_RAND).without(TicketFlags::RESPONDER_RAND);
}

fn expired(message: &mut Message) {
    for payload in &mut policy(message).payloads {
        if let Payload::Tr { role: ROLE_END, timestamp } = payload {
            *timestamp = Timestamp::NtpUtc32(now().seconds() - 1);
        }
    }
}

fn kemac(message: &mut Message) -> &mut Kemac {
    let kemacs = message.payloads.iter_mut().find_map(|payload| match payload {
        Payload::Kemac(kemac) => Some(kemac),
        _ => None,
    });
    kemacs.expect("KEMAC")
}

/// Of a message in the plain form.
fn keys(message: &mut Message, change: impl FnOnce(&mut Vec<KeyData>)) {
    let kemac = kemac(message);
    let mut keys = codec::parse_key_data(&kemac.encrypted).expect("keys");
    change(&mut keys);
    kemac.encrypted = codec::encode_key_data(&keys).to_vec();
}

fn short_key(message: &mut Message) {
    keys(message, |keys| keys.last_mut().expect("a key").key = vec![1; 15].into());
}

fn without_mpk(message: &mut Message) {
    keys(message, |keys| keys.retain(|key| key.key_type != KEY_MPK));
}

fn without(message: &mut Message, unwanted: impl Fn(&Payload) -> bool) {
    message.payloads.retain(|payload| !unwanted(payload));
}

fn judge((name, _, error, number): &Case, refusal: Option<Error>) {
    assert_eq!(refusal.as_ref(), Some(error), "{name}");
    assert_eq!(error.mikey_error_number(), *number, "{name}");
}

/// Opened and sealed again without a change, a message is what it was: otherwise the cases below would be
/// refused for another reason than theirs.
fn assert_sealed_is_the_same(bytes: &[u8], turn: impl Fn(&mut Message, Way)) {
    assert_eq!(changed(bytes, turn, |_| {}), bytes);
}

fn call(world: &mut World, flags: TicketFlags) -> (Initiator, Vec<u8>) {
    let ticket = world.made(flags, &[], &tpk()).expect("made");
    world.call(&ticket)
}

#[test]
fn transfer_init() {
    let cases: [Case; 5] = [
        ("SPI without key", unknown_spi, Error::UnknownSessionKey, 12),
        (
            "IDRr that the ticket does not name",
            |message| {
                for payload in &mut policy(message).payloads {
                    if let Payload::Idr { role: ROLE_RESPONDER, identity } = payload {
                        identity.data = b"sip:kitchen@127.0.0.1".to_vec();
                    }
                }
            },
            Error::ResponderNotInTicket(ROOM.to_owned()),
            7,
        ),
        (
            "flag D, though the key is alice's",
            |message| {
                let flags = policy(message).flags;
                policy(message).flags = flags.with(TicketFlags::MADE_BY_KMS);
            },
            refused(PolicyProblem::Maker),
            15,
        ),
        (
            "subtype nobody knows",
            |message| policy(message).subtype = 2,
            refused(PolicyProblem::Version),
            15,
        ),
        (
            "KEMAC that flag L does not allow",
            |message| {
                let flags = policy(message).flags;
                let made_by_kms = flags.with(TicketFlags::MADE_BY_KMS);
                policy(message).flags = made_by_kms.without(TicketFlags::INITIATOR_KEYS);
                let sealed = codec::encode_key_data(&[session_key(0, 16, &[7])]).to_vec();
                message.payloads.insert(
                    message.payloads.len() - 1,
                    Payload::Kemac(Kemac {
                        encryption: 1,
                        encrypted: sealed,
                        mac_algorithm: codec::MacAlgorithm::Null,
                        mac: Vec::new(),
                    }),
                );
            },
            refused(PolicyProblem::TransferredKeys),
            15,
        ),
    ];
    for case in cases {
        let mut world = World::plain();
        let (_, init) = call(&mut world, usual_flags());
        assert_sealed_is_the_same(&init, mikey_plain::turn);
        let changed = changed(&init, mikey_plain::turn, case.1);
        judge(&case, world.answer(&changed).err());
    }
}

#[test]
fn transfer_resp() {
    let cases: [Case; 10] = [
        ("stale T", stale, too_early(), 1),
        ("COUNTER", |it| set_time(it, Timestamp::Counter(1)), Error::UnsupportedTimestamp, 1),
        ("two CS", two_sessions, Error::CryptoSessionCount(2), 9),
        ("prot type not TLS", not_tls, Error::ProtectionTypeNotAccepted(0), 9),
        ("SPI without key", unknown_spi, Error::UnknownSessionKey, 12),
        ("other CS ID", |it| session(it).id = 9, Error::ResponseMismatch, 12),
        (
            "wrong IDRr",
            |message| set_identity(message, ROLE_RESPONDER, "sip:kitchen@127.0.0.1"),
            Error::UnexpectedResponder("sip:kitchen@127.0.0.1".to_owned()),
            7,
        ),
        (
            "IDRr that is no URI",
            |message| set_identity(message, ROLE_RESPONDER, "\u{fffd}"),
            Error::UnexpectedResponder("\u{fffd}".to_owned()),
            7,
        ),
        (
            "KEMAC that flag M does not allow",
            |message| {
                let keys = codec::encode_key_data(&[session_key(0, 16, &[7])]).to_vec();
                message.payloads.insert(
                    1,
                    Payload::Kemac(Kemac {
                        encryption: 1,
                        encrypted: keys,
                        mac_algorithm: codec::MacAlgorithm::Null,
                        mac: Vec::new(),
                    }),
                );
            },
            refused(PolicyProblem::TransferredKeys),
            15,
        ),
        (
            "short RANDRr",
            |message| {
                for payload in &mut message.payloads {
                    if let Payload::Randr { rand, .. } = payload {
                        rand.truncate(15);
                    }
                }
            },
            Error::RandTooShort(15),
            12,
        ),
    ];
    for case in cases {
        let mut world = World::plain();
        let (initiator, init) = call(&mut world, usual_flags());
        let (_, response) = world.answer(&init).expect("answered");
        let turn = |it: &mut Message, way| mikey_plain::turn_transfer_resp(it, &init, true, way);
        assert_sealed_is_the_same(&response, turn);
        let changed = changed(&response, turn, case.1);
        judge(&case, initiator.finish(&changed, now()).err());
    }
}

#[test]
fn request_init() {
    let contradiction = refused(PolicyProblem::Contradiction(FlagContradiction::NoRand));
    let cases: [Case; 7] = [
        ("flag contradiction", without_rand, contradiction, 15),
        (
            "unknown ticket type",
            |message| policy(message).ticket_type = 9,
            Error::UnsupportedTicketType(9),
            14,
        ),
        (
            "another's IDRi",
            |message| {
                set_identity(message, ROLE_INITIATOR, "sip:eve@example.com");
            },
            Error::NotAuthorised("sip:eve@example.com".to_owned()),
            7,
        ),
        (
            "another's ticket",
            |message| {
                for payload in &mut policy(message).payloads {
                    if let Payload::Idr { role: 1, identity } = payload {
                        identity.data = b"sip:eve@example.com".to_vec();
                    }
                }
            },
            Error::InitiatorMismatch,
            7,
        ),
        (
            "for another KMS",
            |message| set_identity(message, ROLE_KMS, "sip:kms@b"),
            Error::OtherKms("sip:kms@b".to_owned()),
            7,
        ),
        (
            "a ticket for nobody",
            |message| {
                policy(message).payloads.retain(|payload| payload.role() != Some(ROLE_RESPONDER));
            },
            Error::MissingPayload("TP IDRr"),
            12,
        ),
        (
            "encrypted wishes",
            |message| {
                policy(message).payloads.push(Payload::Kemac(Kemac {
                    encryption: 1,
                    encrypted: vec![0; 30],
                    mac_algorithm: codec::MacAlgorithm::Null,
                    mac: Vec::new(),
                }));
            },
            Error::UnsupportedEncryption(1),
            4,
        ),
    ];
    for case in cases {
        let mut world = World::plain();
        let (_, request) = request(&mut world);
        assert_sealed_is_the_same(&request, mikey_plain::turn);
        let changed = changed(&request, mikey_plain::turn, case.1);
        let World { kms, random, .. } = &mut world;
        judge(&case, kms.try_handle(&changed, now(), random).err());
    }
}

fn request(world: &mut World) -> (control_api::mikey::PendingRequest, Vec<u8>) {
    let World { parameters, random, .. } = world;
    Initiator::request_ticket(parameters, ALICE, ROOM, KMS_URI, &alice_key(), now(), random)
        .expect("a request")
}

#[test]
fn request_resp() {
    let contradiction = refused(PolicyProblem::Contradiction(FlagContradiction::NoRand));
    let cases: [Case; 10] = [
        ("stale T", stale, too_early(), 1),
        ("expired TRe", expired, Error::TicketExpired, 15),
        ("flag contradiction", without_rand, contradiction, 15),
        (
            "unknown ticket type",
            |message| policy(message).ticket_type = 9,
            Error::UnsupportedTicketType(9),
            14,
        ),
        (
            "flag N not set",
            |message| {
                let flags = policy(message).flags;
                policy(message).flags = flags.without(TicketFlags::PLAIN_INITIATOR);
            },
            refused(PolicyProblem::AdditionalProcessing),
            15,
        ),
        (
            "another's ticket",
            |message| {
                for payload in &mut policy(message).payloads {
                    if let Payload::Idr { role: 1, identity } = payload {
                        identity.data = b"sip:eve@example.com".to_vec();
                    }
                }
            },
            Error::InitiatorMismatch,
            7,
        ),
        ("no MPKi", without_mpk, Error::MissingPayload("MPKi"), 12),
        ("short key", short_key, Error::KeyLength(15), 12),
        (
            "encryption of the other suite",
            |message| kemac(message).encryption = 3,
            Error::UnsupportedEncryption(3),
            4,
        ),
        (
            "flag I without MPKr",
            |message| {
                let flags = policy(message).flags;
                policy(message).flags = flags.with(TicketFlags::KEY_FORKING);
            },
            Error::MissingPayload("MPKr"),
            12,
        ),
    ];
    for case in cases {
        let mut world = World::plain();
        let (pending, request) = request(&mut world);
        let World { kms, random, .. } = &mut world;
        let response = kms.try_handle(&request, now(), random).expect("granted");
        let initial = codec::parse(&request).expect("ours");
        let key = alice_key().key;
        let turn = |message: &mut Message, way| {
            mikey_plain::turn_kms_resp(message, &initial, &key, &request, way);
        };
        assert_sealed_is_the_same(&response, turn);
        let changed = changed(&response, turn, case.1);
        judge(&case, pending.finish(&changed, now()).err());
    }
}

#[test]
fn resolve_init() {
    let cases: [Case; 6] = [
        ("expired TRe", expired, Error::TicketExpired, 15),
        (
            "another's IDRr",
            |message| set_identity(message, ROLE_RESPONDER, "sip:room@b"),
            Error::NotAuthorised("sip:room@b".to_owned()),
            7,
        ),
        (
            "IDRr that the ticket does not name",
            |message| set_identity(message, ROLE_RESPONDER, "sip:kitchen@127.0.0.1"),
            Error::ResponderNotInTicket("sip:kitchen@127.0.0.1".to_owned()),
            7,
        ),
        (
            "for another KMS",
            |message| set_identity(message, ROLE_KMS, "sip:kms@b"),
            Error::OtherKms("sip:kms@b".to_owned()),
            7,
        ),
        (
            "Initiator Data without flag I",
            |message| {
                for payload in &mut message.payloads {
                    if let Payload::Ticket(ticket) = payload {
                        ticket.initiator_data = vec![9, 0];
                    }
                }
            },
            refused(PolicyProblem::InitiatorData),
            15,
        ),
        (
            "unknown ticket type",
            |message| policy(message).ticket_type = 9,
            Error::UnsupportedTicketType(9),
            14,
        ),
    ];
    for case in cases {
        let mut world = World::plain();
        let (_, request) = resolve(&mut world, usual_flags());
        assert_sealed_is_the_same(&request, mikey_plain::turn);
        let changed = changed(&request, mikey_plain::turn, case.1);
        let World { kms, random, .. } = &mut world;
        judge(&case, kms.try_handle(&changed, now(), random).err());
    }
}

fn resolve(world: &mut World, flags: TicketFlags) -> (control_api::mikey::Pending, Vec<u8>) {
    let (_, init) = call(world, flags);
    let World { responder, random, .. } = world;
    responder.begin(&init, "mikey", now(), random).expect("acceptable")
}

#[test]
fn resolve_resp() {
    let forking = usual_flags().with(TicketFlags::KEY_FORKING);
    let cases: [(TicketFlags, Case); 8] = [
        (usual_flags(), ("stale T", stale, too_early(), 1)),
        (usual_flags(), ("no MPKi", without_mpk, Error::MissingPayload("MPKi"), 12)),
        (usual_flags(), ("short key", short_key, Error::KeyLength(15), 12)),
        (
            usual_flags(),
            (
                "another's MPKi",
                |message| keys(message, |keys| keys[0].key = vec![1; 16].into()),
                Error::WrongMac(DataType::TransferInit),
                0,
            ),
        ),
        (
            usual_flags(),
            (
                "no session key",
                |message| keys(message, |keys| keys.truncate(1)),
                Error::UnknownSessionKey,
                12,
            ),
        ),
        (
            forking,
            (
                "no MPKr'",
                |message| keys(message, |keys| drop(keys.remove(1))),
                Error::MissingPayload("MPKr'"),
                12,
            ),
        ),
        (
            forking,
            (
                "no RANDRkms",
                |message| without(message, |payload| matches!(payload, Payload::Randr { .. })),
                Error::MissingPayload("RANDRkms"),
                12,
            ),
        ),
        (
            forking,
            (
                "no IDRr",
                |message| without(message, |payload| payload.role() == Some(ROLE_RESPONDER)),
                Error::MissingPayload("IDRr"),
                12,
            ),
        ),
    ];
    for (flags, case) in cases {
        let mut world = World::plain();
        let (pending, request) = resolve(&mut world, flags);
        let World { kms, random, responder, .. } = &mut world;
        let response = kms.try_handle(&request, now(), random).expect("resolved");
        let initial = codec::parse(&request).expect("ours");
        let key = node_key().key;
        let turn = |message: &mut Message, way| {
            mikey_plain::turn_kms_resp(message, &initial, &key, &request, way);
        };
        assert_sealed_is_the_same(&response, turn);
        let changed = changed(&response, turn, case.1);
        judge(&case, pending.finish(responder, &changed, now(), random).err());
    }
}

/// A session that is up, and the messages that set it up.
struct Session {
    world: World,
    bundles: [Bundle; 2],
    transfer: [Vec<u8>; 2],
}

impl Session {
    fn new(flags: TicketFlags) -> Self {
        let mut world = World::plain();
        let (initiator, init) = call(&mut world, flags);
        let (answered, response) = world.answer(&init).expect("answered");
        let established = initiator.finish(&response, now()).expect("established");
        Self { world, bundles: [established.bundle, answered.bundle], transfer: [init, response] }
    }

    fn turn(&self, message: &mut Message, appended: &[&[u8]], way: Way) {
        let transfer = [self.transfer[0].as_slice(), &self.transfer[1]];
        mikey_plain::turn_update(message, transfer, appended, way);
    }
}

fn of_updates() -> [Case; 6] {
    [
        ("bad MAC", |_| {}, Error::WrongMac(DataType::TransferInit), 0),
        (
            "stale T",
            |message| set_time(message, Timestamp::NtpUtc(early().0)),
            Error::ClockSkew { received: early(), now: seconds_later(5) },
            1,
        ),
        ("T of the transfer", |it| set_time(it, Timestamp::NtpUtc(now().0)), Error::Replayed, 1),
        ("two CS", two_sessions, Error::CryptoSessionCount(2), 9),
        ("prot type not TLS", not_tls, Error::ProtectionTypeNotAccepted(0), 9),
        ("SPI without key", unknown_spi, Error::UnknownSessionKey, 12),
    ]
}

#[test]
fn csb_updates_of_either_side() {
    let identities = [ALICE.as_bytes(), ROOM.as_bytes()];
    let all = usual_flags().with(TicketFlags::INITIATOR_KEYS).with(TicketFlags::RESPONDER_KEYS);
    for (flags, from) in [(usual_flags(), 0), (usual_flags(), 1), (all, 0), (all, 1)] {
        for case in of_updates() {
            let mut session = Session::new(flags);
            let parameters = Parameters::default();
            let at = seconds_later(5);
            let random = &mut session.world.random;
            let begun = session.bundles[from].begin_update(&parameters, at, random);
            let (_, update) = begun.expect("an update");
            let turn = |message: &mut Message, way| session.turn(message, &identities, way);
            assert_sealed_is_the_same(&update, turn);
            let mut changed = changed(&update, turn, case.1);
            if case.0 == "bad MAC" {
                *changed.last_mut().expect("bytes") ^= 1;
            }
            let to = &mut session.bundles[1 - from];
            judge(&case, to.answer_update(&parameters, &changed, "mikey", at).err());
            to.answer_update(&parameters, &update, "mikey", at).expect("the unchanged one is good");
            let again = to.answer_update(&parameters, &update, "mikey", at).err();
            assert_eq!(again, Some(Error::Replayed));
        }
    }
}

#[test]
fn answers_to_csb_updates_of_either_side() {
    for from in [0, 1] {
        for mut case in of_updates() {
            if case.0 == "bad MAC" {
                case.2 = Error::WrongMac(DataType::TransferResp);
            }
            if case.0 == "prot type not TLS" || case.0 == "SPI without key" {
                case.2 = Error::ResponseMismatch;
                case.3 = 12;
            }
            let mut session = Session::new(usual_flags());
            let parameters = Parameters::default();
            let at = seconds_later(5);
            let random = &mut session.world.random;
            let begun = session.bundles[from].begin_update(&parameters, at, random);
            let (pending, update) = begun.expect("an update");
            let to = &mut session.bundles[1 - from];
            let (_, answer) =
                to.answer_update(&parameters, &update, "mikey", at).expect("answered");
            let turn = |message: &mut Message, way| session.turn(message, &[&update], way);
            assert_sealed_is_the_same(&answer, turn);
            let mut changed = changed(&answer, turn, case.1);
            if case.0 == "bad MAC" {
                *changed.last_mut().expect("bytes") ^= 1;
            }
            let bundle = &mut session.bundles[from];
            judge(&case, pending.finish(bundle, &parameters, &changed, at).err());
        }
    }
}

#[test]
fn keys_that_a_side_may_not_supply_are_refused_in_updates() {
    let identities = [ALICE.as_bytes(), ROOM.as_bytes()];
    let mut session = Session::new(usual_flags());
    let (parameters, at) = (Parameters::default(), seconds_later(5));
    // A ticket of alice's making has flag L, so it is the room that may not.
    let random = &mut session.world.random;
    let (_, update) = session.bundles[1].begin_update(&parameters, at, random).expect("an update");
    let turn = |message: &mut Message, way| session.turn(message, &identities, way);
    let changed = changed(&update, turn, |message| {
        let encrypted = codec::encode_key_data(&[session_key(0, 16, &[7])]).to_vec();
        let (mac_algorithm, mac) = (codec::MacAlgorithm::Null, Vec::new());
        let kemac = Kemac { encryption: 1, encrypted, mac_algorithm, mac };
        message.payloads.insert(1, Payload::Kemac(kemac));
    });
    let refusal = session.bundles[0].answer_update(&parameters, &changed, "mikey", at).err();
    assert_eq!(refusal, Some(refused(PolicyProblem::TransferredKeys)));
}

/// Whose signature and envelope are right, and something else is not.
#[test]
fn signed_requests() {
    let mut certified = certified(Suite::S128);
    let (_, init) = call(&mut certified.world, usual_flags());
    let Certified { world, alice, room, kms_certificate, alice_issued, room_issued, .. } =
        &mut certified;
    let World { parameters, random, responder, kms, .. } = world;
    let credentials = |own| Credentials::PublicKey { own, kms_certificate };
    let wish = TicketWish::new(KMS_URI, ALICE, &[ROOM]);
    let ask = request_ticket(parameters, &wish, credentials(alice), now(), random);
    let (_, request) = ask.expect("a request");
    let transfer = responder.check(&init, "mikey", now()).expect("acceptable");
    let ask = responder.ask_with(credentials(room), transfer, now(), random);
    let (_, resolve) = ask.expect("a request");
    let contradiction = refused(PolicyProblem::Contradiction(FlagContradiction::NoRand));
    let common: [Case; 4] = [
        ("stale T", stale, too_early(), 1),
        (
            "for another KMS",
            |it| set_identity(it, ROLE_KMS, "sip:b@b"),
            Error::OtherKms("sip:b@b".to_owned()),
            7,
        ),
        ("flag contradiction", without_rand, contradiction, 15),
        (
            "no envelope",
            |message| without(message, |payload| matches!(payload, Payload::Pke { .. })),
            Error::MissingPayload("PKE"),
            12,
        ),
    ];
    for (message, role, own) in
        [(&request, ROLE_INITIATOR, &*alice_issued), (&resolve, ROLE_RESPONDER, &*room_issued)]
    {
        let changed_by = |change: &dyn Fn(&mut Message)| {
            let mut message = codec::parse(message).expect("ours");
            change(&mut message);
            mikey_certificates::sign(&mut message, role, own);
            codec::encode(&message)
        };
        assert_eq!(&changed_by(&|_| {}), message, "a signature of this kind has no randomness");
        for (index, case) in common.iter().enumerate() {
            let changed = changed_by(&|message| {
                // Each has a bundle of its own, or all but the first would be replays.
                message.header.csb_id = 0x100 + index as u32;
                (case.1)(message);
            });
            judge(case, kms.try_handle(&changed, now(), random).err());
        }
        let other = changed_by(&|message| set_identity(message, role, "sip:eve@example.com"));
        let refusal = kms.try_handle(&other, now(), random).err();
        assert_eq!(refusal, Some(Error::Certificate(CertificateProblem::OtherIdentity)));
        let mut wrong = message.clone();
        *wrong.last_mut().expect("bytes") ^= 1;
        let refusal = kms.try_handle(&wrong, now(), random).err();
        assert_eq!(refusal, Some(Error::WrongSignature));
        kms.try_handle(message, now(), random).expect("the unchanged one is good, once");
        assert_eq!(kms.try_handle(message, now(), random).err(), Some(Error::Replayed));
    }
}
