//! What each kind of MIKEY message is made of, and that every one of them survives the codec.

use control_api::mikey::codec::code_point as code;
use control_api::mikey::codec::{
    self, ContentsProblem, CryptoSession, CsIdMap, DataType, FlagContradiction, Header, Identity,
    InitiatorProof, Kemac, KeyValidity, MacAlgorithm, Message, Payload, SecurityPolicy,
    SrtpSession, Ticket, TicketFlags, TicketPolicy, Timestamp, Verification,
};
use proptest::prelude::*;

fn t() -> Payload {
    Payload::Timestamp(Timestamp::NtpUtc(0xee9a_1c2d_4000_0000))
}

fn v() -> Payload {
    Payload::Verification(verification(7))
}

fn verification(fill: u8) -> Verification {
    Verification { algorithm: MacAlgorithm::HmacSha1, mac: vec![fill; 20] }
}

fn sign() -> Payload {
    Payload::Sign { signature_type: code::SIGNATURE_RSA_PSS, signature: vec![3; 256] }
}

fn pke() -> Payload {
    Payload::Pke { cache: 1, data: vec![4; 256] }
}

fn dh() -> Payload {
    Payload::DiffieHellman {
        group: 2,
        value: vec![5; 128],
        reserved: 0,
        validity: KeyValidity::Spi(vec![1, 2]),
    }
}

fn kemac() -> Payload {
    Payload::Kemac(Kemac {
        encryption: code::ENCRYPTION_AES_CM_128,
        encrypted: vec![9; 40],
        mac_algorithm: MacAlgorithm::Null,
        mac: Vec::new(),
    })
}

fn idr(role: u8) -> Payload {
    Payload::Idr { role, identity: Identity::uri("sip:somebody@example.com") }
}

fn randr(role: u8) -> Payload {
    Payload::Randr { role, rand: vec![6; 16] }
}

fn policy() -> TicketPolicy {
    TicketPolicy {
        ticket_type: 1,
        subtype: 1,
        version: 1,
        prf: 0,
        flags: TicketFlags::INITIATOR_RAND.with(TicketFlags::MADE_BY_KMS),
        payloads: vec![idr(code::ROLE_RESPONDER), idr(code::ROLE_RESPONDER)],
    }
}

fn ticket() -> Payload {
    Payload::Ticket(Box::new(Ticket {
        policy: policy(),
        data: vec![1, 2, 3],
        initiator_data: Vec::new(),
    }))
}

fn header(data_type: DataType) -> Header {
    let map = CsIdMap::Empty { count: 0 };
    Header { data_type, response_wanted: false, prf: 0, csb_id: 9, map }
}

/// Of each type the smallest message, then what else it may have.
fn samples(data_type: DataType) -> (Vec<Payload>, Vec<Payload>) {
    let (i, r, kms) = (code::ROLE_INITIATOR, code::ROLE_RESPONDER, code::ROLE_KMS);
    let id = || Payload::Id(Identity::uri("sip:a@example.com"));
    let cert = || Payload::Certificate { certificate_type: 0, data: vec![0x30; 9] };
    let chash = || Payload::CertificateHash { function: code::HASH_SHA_256, hash: vec![8; 32] };
    let rand = || Payload::Rand(vec![1; 16]);
    let psk = || idr(code::ROLE_PRE_SHARED_KEY);
    let sp = || {
        Payload::SecurityPolicy(SecurityPolicy {
            number: 0,
            protection_type: 241,
            parameters: Vec::new(),
        })
    };
    let tp = || Payload::TicketPolicy(policy());
    match data_type {
        DataType::PreShared => (vec![t(), kemac()], vec![rand(), id(), id(), sp()]),
        DataType::PreSharedVerification | DataType::PublicKeyVerification => {
            (vec![t(), v()], vec![id()])
        }
        DataType::PublicKey => {
            (vec![t(), pke(), sign()], vec![rand(), id(), cert(), sp(), kemac(), chash()])
        }
        DataType::DiffieHellmanInit => (vec![t(), sign()], vec![rand(), id(), cert(), sp(), dh()]),
        DataType::DiffieHellmanResp => (vec![t(), sign()], vec![id(), cert(), dh(), dh()]),
        DataType::Error => {
            let error = || Payload::Error { number: 1, reserved: 0 };
            (vec![t()], vec![error(), error(), sp(), v()])
        }
        DataType::DiffieHellmanHmacInit => (vec![t(), kemac()], vec![rand(), id(), sp(), dh()]),
        DataType::DiffieHellmanHmacResp => (vec![t(), kemac()], vec![id(), id(), dh(), dh()]),
        DataType::RsaReverseInit => (vec![t(), sign()], vec![rand(), id(), cert(), sp()]),
        DataType::RsaReverseResp => {
            (vec![t(), kemac(), pke(), sign()], vec![rand(), id(), cert(), sp()])
        }
        DataType::RequestInitPsk => (vec![t(), randr(i), tp(), v()], vec![idr(i), idr(kms), psk()]),
        DataType::RequestInitPk => (
            vec![t(), randr(i), tp(), pke(), sign()],
            vec![idr(i), cert(), cert(), idr(kms), chash()],
        ),
        DataType::RequestResp => (vec![t(), ticket(), kemac(), v()], vec![idr(kms)]),
        DataType::TransferInit => {
            (vec![t(), randr(i), ticket(), v()], vec![idr(i), idr(r), sp(), sp(), kemac()])
        }
        DataType::TransferResp => {
            (vec![t(), v()], vec![randr(r), idr(r), randr(kms), sp(), kemac()])
        }
        DataType::ResolveInitPsk => {
            (vec![t(), randr(r), ticket(), v()], vec![idr(r), idr(kms), psk()])
        }
        DataType::ResolveInitPk => {
            (vec![t(), randr(r), ticket(), pke(), sign()], vec![idr(r), cert(), idr(kms), chash()])
        }
        DataType::ResolveResp => (vec![t(), kemac(), v()], vec![idr(kms), idr(r), randr(kms)]),
    }
}

fn message(data_type: DataType, payloads: Vec<Payload>) -> Message {
    Message { header: header(data_type), payloads }
}

/// The smallest message with all that it may have before its last payload.
fn full(data_type: DataType) -> Message {
    let (mut payloads, optional) = samples(data_type);
    let at = payloads.len() - usize::from(data_type != DataType::Error);
    payloads.splice(at..at, optional);
    message(data_type, payloads)
}

#[test]
fn every_type_is_complete_with_and_without_what_is_optional() {
    for data_type in DataType::ALL {
        for message in [message(data_type, samples(data_type).0), full(data_type)] {
            assert_eq!(message.check_contents(), Ok(()), "{data_type}");
            assert_eq!(message.unexpected().count(), 0, "{data_type}");
            let bytes = codec::encode(&message);
            assert_eq!(bytes[1], data_type as u8);
            assert_eq!(codec::parse(&bytes), Ok(message), "{data_type}");
        }
    }
}

#[test]
fn every_payload_a_type_needs_is_missed() {
    for data_type in DataType::ALL {
        let (payloads, _) = samples(data_type);
        for left_out in 0..payloads.len() {
            let mut fewer = payloads.clone();
            let removed = fewer.remove(left_out);
            // Without a ticket it is a CSB update, which has no RAND.
            if data_type == DataType::TransferInit && removed.code() == code::TICKET {
                continue;
            }
            let error = message(data_type, fewer).check_contents().expect_err("incomplete");
            assert_eq!(error.problem, ContentsProblem::Missing, "{error}");
            assert_eq!(error.data_type, data_type);
        }
    }
}

#[test]
fn a_payload_too_many_is_wrong_in_rfc_3830_and_ignored_in_rfc_6043() {
    for data_type in DataType::ALL {
        let mut extended = full(data_type);
        let stranger = Payload::Tr { role: code::ROLE_START, timestamp: Timestamp::NtpUtc32(1) };
        extended.payloads.insert(1, stranger.clone());
        assert_eq!(extended.unexpected().collect::<Vec<_>>(), [&stranger]);
        let checked = extended.check_contents();
        if data_type as u8 > 10 || data_type == DataType::Error {
            assert_eq!(checked, Ok(()), "{data_type}");
        } else {
            let error = checked.expect_err("it has no TR");
            assert_eq!((error.payload, error.problem), ("TR", ContentsProblem::Unexpected));
        }
    }
}

#[test]
fn general_extensions_may_be_anywhere() {
    for data_type in DataType::ALL {
        let mut extended = full(data_type);
        let extension =
            Payload::GeneralExtension { extension_type: code::EXTENSION_SDP_IDS, data: vec![1] };
        extended.payloads.insert(0, extension);
        assert_eq!(extended.check_contents(), Ok(()), "{data_type}");
    }
}

#[test]
fn what_ends_a_message_ends_it() {
    let mut early = full(DataType::TransferResp);
    let last = early.payloads.pop().expect("V");
    early.payloads.insert(1, last);
    let error = early.check_contents().expect_err("V is not last");
    assert_eq!((error.payload, error.problem), ("V", ContentsProblem::Missing));
}

#[test]
fn a_second_identity_in_a_role_is_too_many() {
    let mut message = full(DataType::TransferInit);
    message.payloads.insert(1, idr(code::ROLE_RESPONDER));
    let error = message.check_contents().expect_err("two IDRr");
    assert_eq!((error.payload, error.problem), ("IDRr", ContentsProblem::Repeated));
    assert_eq!(error.to_string(), "TRANSFER_INIT has more than one IDRr");
}

#[test]
fn every_prefix_of_every_type_is_refused() {
    for data_type in DataType::ALL {
        let bytes = codec::encode(&full(data_type));
        for length in 0..bytes.len() {
            assert!(codec::parse(&bytes[..length]).is_err(), "{data_type}, {length} bytes");
        }
    }
}

#[test]
fn a_changed_byte_gives_a_message_that_encodes_as_it_came_or_none() {
    for data_type in DataType::ALL {
        let bytes = codec::encode(&full(data_type));
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)] {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Ok(message) = codec::parse(&changed) {
                    assert_eq!(codec::encode(&message), changed, "{data_type}, byte {at}");
                    let _ = message.check_contents();
                }
            }
        }
    }
}

#[test]
fn a_message_of_many_small_payloads_is_refused_before_it_costs_anything() {
    // A chain of general extensions, four bytes each: as many as fit.
    let mut bytes = codec::encode(&message(DataType::TransferInit, Vec::new()));
    bytes[2] = code::GENERAL_EXTENSION;
    while bytes.len() + 4 <= codec::MESSAGE_BYTES_MAX {
        bytes.extend_from_slice(&[code::GENERAL_EXTENSION, 0, 0, 0]);
    }
    let error = codec::parse(&bytes).expect_err("too many");
    assert_eq!(error.offset, 10 + 4 * codec::PAYLOADS_MAX);
}

#[test]
fn every_contradiction_of_flags_has_a_name() {
    use FlagContradiction as Contradiction;
    let good = TicketFlags::MADE_BY_KMS
        .with(TicketFlags::RESOLVE_MANDATORY)
        .with(TicketFlags::TRANSFER_RESPONSE)
        .with(TicketFlags::RESPONDER_RAND)
        .with(TicketFlags::INITIATOR_RAND)
        .with(TicketFlags::KEY_FORKING)
        .with(TicketFlags::RESPONDER_KEYS);
    assert_eq!(good.contradiction(), None);
    let no_response = good.without(TicketFlags::TRANSFER_RESPONSE);
    let rands = TicketFlags::RESPONDER_RAND.with(TicketFlags::INITIATOR_RAND);
    for (flags, contradiction) in [
        (good.without(TicketFlags::MADE_BY_KMS), Contradiction::OwnWithoutInitiatorKeys),
        (no_response, Contradiction::RandWithoutResponse),
        (good.without(rands), Contradiction::NoRand),
        (good.without(TicketFlags::RESOLVE_MANDATORY), Contradiction::ForkingWithoutResolve),
        (
            good.without(TicketFlags::MADE_BY_KMS)
                .with(TicketFlags::INITIATOR_KEYS)
                .with(TicketFlags::CHANGED_BY_KMS),
            Contradiction::ChangedByNobody,
        ),
        (no_response.without(TicketFlags::RESPONDER_RAND), Contradiction::KeysWithoutResponse),
    ] {
        assert_eq!(flags.contradiction(), Some(contradiction), "{contradiction}");
    }
}

#[test]
fn initiator_data_is_read_whatever_its_first_payload_says_of_the_next() {
    let (transfer, proof) = (verification(1), verification(2));
    let mut bytes = Vec::new();
    // An identical copy of the last payload of a message says that nothing follows.
    for transfer_next in [code::V, code::LAST] {
        let (transfer, proof) = (transfer.clone(), proof.clone());
        let proof = InitiatorProof { transfer, transfer_next, proof };
        bytes = proof.encode();
        assert_eq!(bytes[..2], [code::V, transfer_next]);
        assert_eq!(InitiatorProof::parse(&bytes), Ok(proof));
    }
    for length in 0..bytes.len() {
        assert!(InitiatorProof::parse(&bytes[..length]).is_err(), "{length} bytes");
    }
    bytes.extend_from_slice(&[0, 1]);
    bytes.extend_from_slice(&[3; 20]);
    assert!(InitiatorProof::parse(&bytes).is_err(), "three of them");
}

#[test]
fn codec_needs_nothing_of_the_rest_of_the_crate() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/mikey/codec");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).expect("the codec") {
        let text = std::fs::read_to_string(entry.expect("a file").path()).expect("a source file");
        assert!(!text.contains("crate::") && !text.contains("super::super"));
        assert!(!text.contains("mrfp_"));
        files += 1;
    }
    assert!(files > 5);
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

fn timestamps() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        any::<u64>().prop_map(Timestamp::NtpUtc),
        any::<u64>().prop_map(Timestamp::Ntp),
        any::<u32>().prop_map(Timestamp::Counter),
        any::<u32>().prop_map(Timestamp::NtpUtc32),
    ]
}

fn identities() -> impl Strategy<Value = Identity> {
    (any::<u8>(), bytes(40)).prop_map(|(id_type, data)| Identity { id_type, data })
}

const MAC_ALGORITHMS: [MacAlgorithm; 3] =
    [MacAlgorithm::Null, MacAlgorithm::HmacSha1, MacAlgorithm::HmacSha256];

fn verifications() -> impl Strategy<Value = Verification> {
    (prop::sample::select(&MAC_ALGORITHMS[..]), any::<u8>()).prop_map(|(algorithm, fill)| {
        Verification { algorithm, mac: vec![fill; algorithm.mac_bytes()] }
    })
}

/// Payloads that may repeat: what may not is drawn by the samples of the types.
fn payloads() -> impl Strategy<Value = Payload> {
    prop_oneof![
        identities().prop_map(Payload::Id),
        (any::<u8>(), bytes(60))
            .prop_map(|(certificate_type, data)| Payload::Certificate { certificate_type, data }),
        (any::<u8>(), any::<u8>(), bytes(30)).prop_map(|(number, protection_type, parameters)| {
            Payload::SecurityPolicy(SecurityPolicy { number, protection_type, parameters })
        }),
        (any::<u8>(), any::<u16>())
            .prop_map(|(number, reserved)| Payload::Error { number, reserved }),
        identities().prop_map(|identity| Payload::Idr { role: code::ROLE_APPLICATION, identity }),
        (any::<u8>(), bytes(30))
            .prop_map(|(extension_type, data)| Payload::GeneralExtension { extension_type, data }),
        (0_u8..16, 0_u8..3, bytes(9), bytes(9)).prop_map(|(reserved, group, from, to)| {
            Payload::DiffieHellman {
                group,
                value: vec![group; [192, 96, 128][usize::from(group)]],
                reserved,
                validity: KeyValidity::Interval(from, to),
            }
        }),
    ]
}

fn maps() -> impl Strategy<Value = CsIdMap> {
    let srtp = (any::<u8>(), any::<u32>(), any::<u32>()).prop_map(|(policy_number, ssrc, roc)| {
        SrtpSession { policy_number, ssrc, roll_over_counter: roc }
    });
    let generic = (any::<[u8; 2]>(), any::<bool>(), bytes(128), bytes(20), bytes(20)).prop_map(
        |([id, protection_type], session_data_extended, policies, session_data, spi)| {
            let policy_numbers = policies.into_iter().take(127).collect();
            CryptoSession {
                id,
                protection_type,
                session_data_extended,
                policy_numbers,
                session_data,
                spi,
            }
        },
    );
    prop_oneof![
        any::<u8>().prop_map(|count| CsIdMap::Empty { count }),
        prop::collection::vec(srtp, 0..5).prop_map(CsIdMap::SrtpId),
        prop::collection::vec(generic, 0..4).prop_map(CsIdMap::GenericId),
    ]
}

prop_compose! {
    fn messages()(
        data_type in prop::sample::select(&DataType::ALL[..]),
        response_wanted in any::<bool>(),
        prf in 0_u8..128,
        csb_id in any::<u32>(),
        map in maps(),
        time in timestamps(),
        repeated in prop::collection::vec(payloads(), 0..12),
        last in verifications(),
    ) -> Message {
        let mut all = vec![Payload::Timestamp(time)];
        all.extend(repeated);
        all.push(Payload::Verification(last));
        Message { header: Header { data_type, response_wanted, prf, csb_id, map }, payloads: all }
    }
}

proptest! {
    #[test]
    fn what_is_built_is_read_as_it_was(message in messages()) {
        let bytes = codec::encode(&message);
        prop_assert_eq!(codec::parse(&bytes), Ok(message));
    }

    #[test]
    fn no_prefix_of_what_is_built_is_a_message(message in messages(), cut in any::<prop::sample::Index>()) {
        let bytes = codec::encode(&message);
        prop_assert!(codec::parse(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn mutations_are_read_back_or_refused(
        message in messages(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = codec::encode(&message);
        for (place, value) in places {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(message) = codec::parse(&bytes) {
            prop_assert_eq!(codec::encode(&message), bytes);
        }
    }

    #[test]
    fn initiator_data_never_panics(data in bytes(80)) {
        let _ = InitiatorProof::parse(&data);
    }
}
