//! Each message, each field of it changed: the error that is documented, its number on the wire, and
//! no key.

mod mikey_world;

use control_api::mikey::codec::code_point::{
    ROLE_END, ROLE_INITIATOR, ROLE_KMS, ROLE_PRE_SHARED_KEY, ROLE_RESPONDER, ROLE_START,
};
use control_api::mikey::codec::{
    self, CryptoSession, CsIdMap, DataType, FlagContradiction, MacAlgorithm, Message, ParseReason,
    Payload, TicketFlags, TicketPolicy, Timestamp,
};
use control_api::mikey::error::PolicyProblem;
use control_api::mikey::{Error, Initiator, NtpTime, Pending, PendingRequest, error_message};
use mikey_world::{ALICE, KMS_URI, ROOM, World, alice_key, now, seconds_later, tpk, usual_flags};

/// Numbers of ERR (RFC 3830 section 6.12, RFC 6043 section 6.9).
mod number {
    pub(super) const AUTHENTICATION: u8 = 0;
    pub(super) const TIMESTAMP: u8 = 1;
    pub(super) const PRF: u8 = 2;
    pub(super) const MAC: u8 = 3;
    pub(super) const IDENTITY: u8 = 7;
    pub(super) const SECURITY_POLICY: u8 = 9;
    pub(super) const DATA_TYPE: u8 = 11;
    pub(super) const UNSPECIFIED: u8 = 12;
    pub(super) const TICKET: u8 = 14;
    pub(super) const TICKET_POLICY: u8 = 15;
}

/// How a message is changed, which error that gives and by what number the sender hears of it.
struct Case {
    name: &'static str,
    change: Box<dyn Fn(&mut Message)>,
    error: Error,
    number: u8,
}

fn case(
    name: &'static str,
    error: Error,
    number: u8,
    change: impl Fn(&mut Message) + 'static,
) -> Case {
    Case { name, change: Box::new(change), error, number }
}

fn payload(message: &mut Message, wanted: impl Fn(&Payload) -> bool) -> &mut Payload {
    message.payloads.iter_mut().find(|payload| wanted(payload)).expect("it has one")
}

fn without(message: &mut Message, unwanted: impl Fn(&Payload) -> bool) {
    message.payloads.retain(|payload| !unwanted(payload));
}

fn is_rand(payload: &Payload) -> bool {
    matches!(payload, Payload::Randr { .. })
}

fn is_v(payload: &Payload) -> bool {
    matches!(payload, Payload::Verification(_))
}

fn is_kemac(payload: &Payload) -> bool {
    matches!(payload, Payload::Kemac(_))
}

fn is_identity(role: u8) -> impl Fn(&Payload) -> bool {
    move |payload| matches!(payload, Payload::Idr { role: its_role, .. } if *its_role == role)
}

fn set_identity(message: &mut Message, role: u8, uri: &str) {
    if let Payload::Idr { identity, .. } = payload(message, is_identity(role)) {
        identity.data = uri.as_bytes().to_vec();
    }
}

fn set_time(message: &mut Message, at: NtpTime) {
    let is_t = |payload: &Payload| matches!(payload, Payload::Timestamp(_));
    *payload(message, is_t) = Payload::Timestamp(Timestamp::NtpUtc(at.0));
}

fn set_mac(message: &mut Message, change: impl Fn(&mut codec::Verification)) {
    if let Payload::Verification(verification) = payload(message, is_v) {
        change(verification);
    }
}

fn policy(message: &mut Message) -> &mut TicketPolicy {
    let is_policy =
        |payload: &Payload| matches!(payload, Payload::Ticket(_) | Payload::TicketPolicy(_));
    match payload(message, is_policy) {
        Payload::Ticket(ticket) => &mut ticket.policy,
        Payload::TicketPolicy(policy) => policy,
        _ => unreachable!("one of the two"),
    }
}

fn set_ticket_time(message: &mut Message, wanted: u8, at: NtpTime) {
    for payload in &mut policy(message).payloads {
        if let Payload::Tr { role, timestamp } = payload
            && *role == wanted
        {
            *timestamp = Timestamp::NtpUtc32(at.seconds());
        }
    }
}

fn sessions(message: &mut Message) -> &mut Vec<CryptoSession> {
    match &mut message.header.map {
        CsIdMap::GenericId(sessions) => sessions,
        _ => panic!("GENERIC-ID"),
    }
}

fn skewed(seconds: u64) -> Error {
    Error::ClockSkew { received: seconds_later(seconds), now: now() }
}

fn early() -> NtpTime {
    NtpTime(now().0 - (61 << 32))
}

fn refused(problem: PolicyProblem) -> Error {
    Error::UnacceptablePolicy(problem)
}

/// What any message that is protected by V gives.
fn common(data_type: DataType) -> Vec<Case> {
    let wrong_mac = move || Error::WrongMac(data_type);
    vec![
        case("bad MAC", wrong_mac(), number::AUTHENTICATION, |message| {
            set_mac(message, |verification| verification.mac[3] ^= 1);
        }),
        case("NULL MAC", Error::UnsupportedMac(0), number::MAC, |message| {
            set_mac(message, |verification| {
                verification.algorithm = MacAlgorithm::Null;
                verification.mac.clear();
            });
        }),
        case("MAC of the other suite", Error::UnsupportedMac(2), number::MAC, |message| {
            set_mac(message, |verification| {
                verification.algorithm = MacAlgorithm::HmacSha256;
                verification.mac = vec![0; 32];
            });
        }),
        case("no V", Error::MissingPayload("V"), number::UNSPECIFIED, |message| {
            without(message, is_v);
        }),
        case("V not last", Error::MissingPayload("V"), number::UNSPECIFIED, |message| {
            message.payloads.rotate_right(1);
        }),
        case("no T", Error::MissingPayload("T"), number::UNSPECIFIED, |message| {
            without(message, |payload| matches!(payload, Payload::Timestamp(_)));
        }),
    ]
}

/// What any message that begins an exchange gives.
fn initial(data_type: DataType) -> Vec<Case> {
    let mut cases = common(data_type);
    cases.extend([
        case("unknown PRF", Error::UnsupportedPrf(5), number::PRF, |message| {
            message.header.prf = 5;
        }),
        case("T in the future", skewed(61), number::TIMESTAMP, |message| {
            set_time(message, seconds_later(61));
        }),
        case(
            "stale T",
            Error::ClockSkew { received: early(), now: now() },
            number::TIMESTAMP,
            |message| set_time(message, early()),
        ),
        case("COUNTER", Error::UnsupportedTimestamp, number::TIMESTAMP, |message| {
            message.payloads[0] = Payload::Timestamp(Timestamp::Counter(1));
        }),
        case("short RAND", Error::RandTooShort(15), number::UNSPECIFIED, |message| {
            if let Payload::Randr { rand, .. } = payload(message, is_rand) {
                rand.truncate(15);
            }
        }),
    ]);
    cases
}

/// What a ticket or its policy gives, at whoever looks at it.
fn of_the_policy() -> Vec<Case> {
    let contradicts = |contradiction| refused(PolicyProblem::Contradiction(contradiction));
    let flags = |clear: TicketFlags, set: TicketFlags| {
        move |message: &mut Message| {
            let policy = policy(message);
            policy.flags = policy.flags.without(clear).with(set);
        }
    };
    let none = TicketFlags::REUSABLE.without(TicketFlags::REUSABLE);
    let rands = TicketFlags::INITIATOR_RAND.with(TicketFlags::RESPONDER_RAND);
    vec![
        case("unknown ticket type", Error::UnsupportedTicketType(9), number::TICKET, |message| {
            policy(message).ticket_type = 9;
        }),
        case(
            "G without F",
            contradicts(FlagContradiction::RandWithoutResponse),
            number::TICKET_POLICY,
            flags(TicketFlags::TRANSFER_RESPONSE, none),
        ),
        case(
            "neither G nor H",
            contradicts(FlagContradiction::NoRand),
            number::TICKET_POLICY,
            flags(rands, none),
        ),
        case(
            "I without E",
            contradicts(FlagContradiction::ForkingWithoutResolve),
            number::TICKET_POLICY,
            flags(TicketFlags::RESOLVE_MANDATORY, TicketFlags::KEY_FORKING),
        ),
        case(
            "M without F",
            contradicts(FlagContradiction::KeysWithoutResponse),
            number::TICKET_POLICY,
            flags(
                TicketFlags::TRANSFER_RESPONSE.with(TicketFlags::RESPONDER_RAND),
                TicketFlags::RESPONDER_KEYS,
            ),
        ),
    ]
}

fn of_transfer_init() -> Vec<Case> {
    let mut cases = initial(DataType::TransferInit);
    cases.extend(of_the_policy());
    let contradicts = |contradiction| refused(PolicyProblem::Contradiction(contradiction));
    cases.extend([
        case(
            "no L though of alice's making",
            contradicts(FlagContradiction::OwnWithoutInitiatorKeys),
            number::TICKET_POLICY,
            |message| {
                let policy = policy(message);
                policy.flags = policy.flags.without(TicketFlags::INITIATOR_KEYS);
            },
        ),
        case(
            "K though of alice's making",
            contradicts(FlagContradiction::ChangedByNobody),
            number::TICKET_POLICY,
            |message| {
                let policy = policy(message);
                policy.flags = policy.flags.with(TicketFlags::CHANGED_BY_KMS);
            },
        ),
        case(
            "more than RFC 6043",
            refused(PolicyProblem::AdditionalProcessing),
            number::TICKET_POLICY,
            |message| {
                let policy = policy(message);
                policy.flags = policy.flags.without(TicketFlags::PLAIN_RESPONDER);
            },
        ),
        case("expired TRe", Error::TicketExpired, number::TICKET_POLICY, |message| {
            set_ticket_time(message, ROLE_END, NtpTime(now().0 - (1 << 32)));
        }),
        case("TRs to come", Error::TicketNotYetValid, number::TICKET_POLICY, |message| {
            set_ticket_time(message, ROLE_START, seconds_later(61));
        }),
        case("wrong IDRr", Error::NotForUs("sip:a@b".to_owned()), number::IDENTITY, |message| {
            set_identity(message, ROLE_RESPONDER, "sip:a@b");
        }),
        case("another's IDRi", Error::InitiatorMismatch, number::IDENTITY, |message| {
            set_identity(message, ROLE_INITIATOR, "sip:mallory@example.com");
        }),
        case("IDRi that is no URI", Error::IdentityNotUri, number::IDENTITY, |message| {
            set_identity(message, ROLE_INITIATOR, "\u{7f}");
            if let Payload::Idr { identity, .. } = payload(message, is_identity(ROLE_INITIATOR)) {
                identity.id_type = 2;
            }
        }),
        case(
            "ticket of another KMS",
            Error::OtherKms("sip:kms@b".to_owned()),
            number::IDENTITY,
            |message| {
                for payload in &mut policy(message).payloads {
                    if let Payload::Idr { role: ROLE_KMS, identity } = payload {
                        identity.data = b"sip:kms@b".to_vec();
                    }
                }
            },
        ),
        case("no RANDRi", Error::MissingPayload("RANDRi"), number::UNSPECIFIED, |message| {
            without(message, is_rand);
        }),
        case("no TICKET", Error::MissingPayload("TICKET"), number::UNSPECIFIED, |message| {
            without(message, |payload| {
                matches!(payload, Payload::Ticket(_) | Payload::Randr { .. })
            });
        }),
        case("two CS", Error::CryptoSessionCount(2), number::SECURITY_POLICY, |message| {
            let second = sessions(message)[0].clone();
            sessions(message).push(second);
        }),
        case("no CS", Error::CryptoSessionCount(0), number::SECURITY_POLICY, |message| {
            sessions(message).clear();
        }),
        case("SRTP map", Error::CryptoSessionCount(0), number::SECURITY_POLICY, |message| {
            message.header.map = CsIdMap::SrtpId(Vec::new());
        }),
        case(
            "prot type not TLS",
            Error::ProtectionTypeNotAccepted(0),
            number::SECURITY_POLICY,
            |message| sessions(message)[0].protection_type = 0,
        ),
        case(
            "policy that is not there",
            Error::UnknownSecurityPolicy(3),
            number::SECURITY_POLICY,
            |message| sessions(message)[0].policy_numbers = vec![3],
        ),
        case(
            "another list of protocols",
            Error::ProtocolListMismatch,
            number::UNSPECIFIED,
            |message| {
                let is_list =
                    |payload: &Payload| matches!(payload, Payload::GeneralExtension { .. });
                if let Payload::GeneralExtension { data, .. } = payload(message, is_list) {
                    data.extend_from_slice(b";other");
                }
            },
        ),
    ]);
    cases
}

/// The message changed, and its sender told the number.
fn check(case: &Case, message: &[u8], judge: impl FnOnce(&[u8]) -> Option<Error>) {
    let mut changed = codec::parse(message).expect("our own message");
    (case.change)(&mut changed);
    let changed = codec::encode(&changed);
    let error = judge(&changed).unwrap_or_else(|| panic!("{}: it was accepted", case.name));
    assert_eq!(error, case.error, "{}", case.name);
    assert_eq!(error.mikey_error_number(), case.number, "{}", case.name);
    let answer = error_message(&changed, &error, now()).expect("no Error message itself");
    let answer = codec::parse(&answer).expect("ours");
    assert_eq!(answer.error_number(), Some(case.number), "{}", case.name);
    assert_eq!(answer.check_contents(), Ok(()), "{}", case.name);
}

fn call(world: &mut World) -> (Initiator, Vec<u8>) {
    let ticket = world.made(usual_flags(), &[], &tpk()).expect("made");
    world.call(&ticket)
}

#[test]
fn changes_of_transfer_init_are_refused() {
    let mut world = World::plain();
    let (_, message) = call(&mut world);
    for case in of_transfer_init() {
        check(&case, &message, |changed| world.answer(changed).err());
    }
    world.answer(&message).expect("the unchanged one is good, once");
    assert_eq!(world.answer(&message).err(), Some(Error::Replayed));
    assert_eq!(Error::Replayed.mikey_error_number(), number::TIMESTAMP);
}

#[test]
fn an_spi_without_a_key_is_refused() {
    let mut world = World::plain();
    let (_, message) = call(&mut world);
    let changed =
        mikey_world::resealed(&message, &tpk(), |message| sessions(message)[0].spi = vec![9]);
    let refused = world.answer(&changed).expect_err("refused");
    assert_eq!(refused, Error::UnknownSessionKey);
    assert_eq!(refused.mikey_error_number(), number::UNSPECIFIED);
}

fn request(world: &mut World) -> (PendingRequest, Vec<u8>) {
    let World { parameters, random, .. } = world;
    Initiator::request_ticket(parameters, ALICE, ROOM, KMS_URI, &alice_key(), now(), random)
        .expect("a request")
}

fn of_the_kms(role: u8) -> Vec<Case> {
    let name = if role == ROLE_INITIATOR { "IDRi" } else { "IDRr" };
    vec![
        case("no identity", Error::MissingPayload(name), number::UNSPECIFIED, move |message| {
            without(message, is_identity(role));
        }),
        case(
            "unknown key",
            Error::UnknownKeyIdentity("nobody".to_owned()),
            number::AUTHENTICATION,
            |message| set_identity(message, ROLE_PRE_SHARED_KEY, "nobody"),
        ),
        case("no IDRpsk", Error::MissingPayload("IDRpsk"), number::UNSPECIFIED, |message| {
            without(message, is_identity(ROLE_PRE_SHARED_KEY));
        }),
    ]
}

#[test]
fn changes_of_request_init_are_refused() {
    let mut world = World::plain();
    let (_, message) = request(&mut world);
    let mut cases = initial(DataType::RequestInitPsk);
    cases.extend(of_the_kms(ROLE_INITIATOR));
    cases.push(case("no TP", Error::MissingPayload("TP"), number::UNSPECIFIED, |message| {
        without(message, |payload| matches!(payload, Payload::TicketPolicy(_)));
    }));
    for case in cases {
        let World { kms, random, .. } = &mut world;
        check(&case, &message, |changed| kms.try_handle(changed, now(), random).err());
    }
    let World { kms, random, .. } = &mut world;
    kms.try_handle(&message, now(), random).expect("the unchanged one is good, once");
    assert_eq!(kms.try_handle(&message, now(), random).err(), Some(Error::Replayed));
}

fn resolve(world: &mut World) -> (Pending, Vec<u8>) {
    let (_, transfer_init) = call(world);
    let World { responder, random, .. } = world;
    responder.begin(&transfer_init, "mikey", now(), random).expect("acceptable")
}

#[test]
fn changes_of_resolve_init_are_refused() {
    let mut world = World::plain();
    let (_, message) = resolve(&mut world);
    let mut cases = initial(DataType::ResolveInitPsk);
    cases.extend(of_the_kms(ROLE_RESPONDER));
    cases.push(case(
        "no TICKET",
        Error::MissingPayload("TICKET"),
        number::UNSPECIFIED,
        |message| {
            without(message, |payload| matches!(payload, Payload::Ticket(_)));
        },
    ));
    for case in cases {
        let World { kms, random, .. } = &mut world;
        check(&case, &message, |changed| kms.try_handle(changed, now(), random).err());
    }
    let World { kms, random, .. } = &mut world;
    kms.try_handle(&message, now(), random).expect("the unchanged one is good, once");
}

/// Responses are protected by keys of one exchange, so each case has its own.
#[test]
fn changes_of_request_resp_are_refused() {
    let mut cases = common(DataType::RequestResp);
    cases.extend(of_responses());
    cases.push(case(
        "no TICKET",
        Error::MissingPayload("TICKET"),
        number::UNSPECIFIED,
        |message| {
            without(message, |payload| matches!(payload, Payload::Ticket(_)));
        },
    ));
    for case in cases {
        let mut world = World::plain();
        let (pending, message) = request(&mut world);
        let World { kms, random, .. } = &mut world;
        let response = kms.try_handle(&message, now(), random).expect("granted");
        check(&case, &response, |changed| pending.finish(changed, now()).err());
    }
}

#[test]
fn changes_of_resolve_resp_are_refused() {
    let mut cases = common(DataType::ResolveResp);
    cases.extend(of_responses());
    for case in cases {
        let mut world = World::plain();
        let (pending, message) = resolve(&mut world);
        let World { kms, random, responder, .. } = &mut world;
        let response = kms.try_handle(&message, now(), random).expect("resolved");
        check(&case, &response, |changed| pending.finish(responder, changed, now(), random).err());
    }
}

#[test]
fn changes_of_transfer_resp_are_refused() {
    let mut cases = common(DataType::TransferResp);
    cases.push(case("other CSB ID", Error::ResponseMismatch, number::UNSPECIFIED, |message| {
        message.header.csb_id ^= 1;
    }));
    cases.push(case(
        "no RANDRr",
        Error::MissingPayload("RANDRr"),
        number::UNSPECIFIED,
        |message| {
            without(message, is_rand);
        },
    ));
    cases.push(case(
        "another responder",
        Error::WrongMac(DataType::TransferResp),
        number::AUTHENTICATION,
        |message| set_identity(message, ROLE_RESPONDER, "sip:other@127.0.0.1"),
    ));
    for case in cases {
        let mut world = World::plain();
        let (initiator, message) = call(&mut world);
        let (_, response) = world.answer(&message).expect("answered");
        check(&case, &response, |changed| initiator.finish(changed, now()).err());
    }
}

fn of_responses() -> Vec<Case> {
    vec![
        case("no KEMAC", Error::MissingPayload("KEMAC"), number::UNSPECIFIED, |message| {
            without(message, is_kemac);
        }),
        case("other CSB ID", Error::ResponseMismatch, number::UNSPECIFIED, |message| {
            message.header.csb_id ^= 1;
        }),
        case("other PRF", Error::ResponseMismatch, number::UNSPECIFIED, |message| {
            message.header.prf = 1;
        }),
    ]
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let mut world = World::plain();
    let (_, message) = call(&mut world);
    for (at, value, reason, number) in [
        (0, 2, ParseReason::UnknownVersion(2), number::UNSPECIFIED),
        (1, 26, ParseReason::UnknownDataType(26), number::DATA_TYPE),
        (2, 18, ParseReason::UnknownPayload(18), number::UNSPECIFIED),
        (9, 3, ParseReason::UnknownMapType(3), number::UNSPECIFIED),
    ] {
        let mut changed = message.clone();
        changed[at] = value;
        let refused = world.answer(&changed).expect_err("refused");
        let Error::Malformed(error) = &refused else { panic!("{refused}") };
        assert_eq!((error.offset, error.reason), (reason_offset(at), reason));
        assert_eq!(refused.mikey_error_number(), number);
    }
}

/// An unknown payload is named where it stands, behind HDR and its map.
fn reason_offset(changed: usize) -> usize {
    if changed == 2 { 21 } else { changed }
}

#[test]
fn messages_of_another_exchange_are_refused() {
    let mut world = World::plain();
    let (_, request) = request(&mut world);
    let refused = world.answer(&request).err();
    assert_eq!(refused, Some(Error::UnexpectedMessage(DataType::RequestInitPsk)));
    let (initiator, message) = call(&mut world);
    let World { kms, random, .. } = &mut world;
    let refused = kms.try_handle(&message, now(), random).err();
    assert_eq!(refused, Some(Error::UnexpectedMessage(DataType::TransferInit)));
    let refused = initiator.finish(&message, now()).expect_err("refused");
    assert_eq!(refused, Error::UnexpectedMessage(DataType::TransferInit));
    assert_eq!(refused.mikey_error_number(), 13);
}

#[test]
fn no_error_answers_an_error() {
    let mut world = World::plain();
    let (initiator, message) = call(&mut world);
    let error = error_message(&message, &Error::TicketExpired, now()).expect("an answer");
    assert_eq!(error_message(&error, &Error::Replayed, now()), None);
    let World { kms, random, .. } = &mut world;
    assert!(kms.handle(&error, now(), random).is_empty());
    let refused = Error::Refused { number: number::TICKET_POLICY, authentic: false };
    assert_eq!(world.answer(&error).err(), Some(refused.clone()));
    assert_eq!(initiator.finish(&error, now()).err(), Some(refused));
}
