//! The decoder on CSB updates, Error messages and the exchanges of RFC 3830: with keys it verifies them,
//! and tells the TEK.

mod mikey_world;

use control_api::inspect::{Keys, MikeyOptions, Purpose, mikey};
use control_api::mikey::codec::code_point::KEY_TGK;
use control_api::mikey::codec::{
    self, CsIdMap, DataType, Header, Identity, Kemac, KeyData, KeyValidity, MacAlgorithm, Message,
    Payload, SrtpSession, TicketFlags, Timestamp, Verification,
};
use control_api::mikey::derivation::{KeySource, Prf, constant};
use control_api::mikey::protection::{self, Encryption};
use control_api::mikey::{Error, Parameters};
use mikey_world::{World, now, seconds_later, tpk, usual_flags};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is told of these messages, one after the other.
fn told(messages: &[&[u8]], keys: &[(Purpose, Vec<u8>)]) -> (bool, String) {
    let mut given = Keys::default();
    for (purpose, key) in keys {
        given.add_hex(*purpose, &hex(key)).expect("hex");
    }
    let options =
        MikeyOptions { keys: &given, tls: &[241], show_secrets: true, json: false, colour: false };
    let named = |(index, message): (usize, &&[u8])| (format!("{index}"), hex(message).into_bytes());
    let inputs: Vec<_> = messages.iter().enumerate().map(named).collect();
    let mut out = Vec::new();
    let well = mikey(&inputs, &options, &mut out).expect("messages");
    (well, String::from_utf8(out).expect("text"))
}

fn assert_tells(text: &str, expected: &[&str]) {
    for part in expected {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn updates_of_either_side_are_verified_and_the_new_tek_told() {
    let all = usual_flags().with(TicketFlags::RESPONDER_KEYS);
    for flags in [usual_flags(), all, all.with(TicketFlags::KEY_FORKING)] {
        for from in [0, 1] {
            let mut world = World::plain();
            let ticket = world.made(flags, &[], &tpk()).expect("made");
            let (initiator, init) = world.call(&ticket);
            let (answered, response) = world.answer(&init).expect("answered");
            let established = initiator.finish(&response, now()).expect("established");
            let mut bundles = [established.bundle, answered.bundle];
            let (parameters, at) = (Parameters::default(), seconds_later(5));
            let begun = bundles[from].begin_update(&parameters, at, &mut world.random);
            let (_, update) = begun.expect("an update");
            let to = &mut bundles[1 - from];
            let (key, answer) =
                to.answer_update(&parameters, &update, "mikey", at).expect("answered");
            let given = [(Purpose::Ticket, tpk().key.to_vec())];
            let (well, text) = told(&[&init, &response, &update, &answer], &given);
            assert!(well, "{text}");
            let new = hex(key.psk.expose());
            assert_tells(
                &text,
                &[
                    "with the identities of initiator and responder of the transfer",
                    "with the whole update",
                    &new,
                    &key.psk_identity,
                ],
            );

            // Without the transfer nothing is known of the bundle.
            let (_, text) = told(&[&update], &given);
            assert_tells(&text, &["give the transfer that set it up before it"]);
            let mut changed = update.clone();
            *changed.last_mut().expect("bytes") ^= 1;
            let (well, text) = told(&[&init, &response, &changed], &given);
            assert!(!well, "{text}");

            // And an Error about it, under the same key.
            let error = Error::CryptoSessionCount(2);
            let refusal = bundles[1 - from].refuse_update(&parameters, &update, &error, at);
            let refusal = refusal.expect("an Error");
            let (well, text) = told(&[&init, &response, &update, &refusal], &given);
            assert!(well, "{text}");
            assert_tells(&text, &["reading: alone"]);
        }
    }
}

const PSK: [u8; 16] = [3; 16];
const RAND: [u8; 16] = [7; 16];
const CSB_ID: u32 = 0x0102_0304;

fn header(data_type: DataType, sessions: usize) -> Header {
    let session = SrtpSession { policy_number: 0, ssrc: 1, roll_over_counter: 0 };
    Header {
        data_type,
        response_wanted: true,
        prf: 0,
        csb_id: CSB_ID,
        map: CsIdMap::SrtpId(vec![session; sessions]),
    }
}

fn identity(uri: &str) -> Payload {
    Payload::Id(Identity { id_type: 1, data: uri.as_bytes().to_vec() })
}

/// I_MESSAGE as RFC 3830 section 3.1 has it.
fn i_message(tgk: &[u8]) -> Vec<u8> {
    let source = KeySource::rfc3830(Prf::Mikey1, &PSK, None, CSB_ID, &RAND);
    let key = KeyData {
        key_type: KEY_TGK,
        key: tgk.to_vec().into(),
        salt: None,
        validity: KeyValidity::Null,
    };
    let mut encrypted = codec::encode_key_data(&[key]).to_vec();
    protection::apply_aes_cm(&source, Encryption::AesCm128, CSB_ID, now().0, &mut encrypted);
    let message = Message {
        header: header(DataType::PreShared, 2),
        payloads: vec![
            Payload::Timestamp(Timestamp::NtpUtc(now().0)),
            Payload::Rand(RAND.to_vec()),
            identity("sip:alice@a"),
            identity("sip:bob@b"),
            Payload::Kemac(Kemac {
                encryption: 1,
                encrypted,
                mac_algorithm: MacAlgorithm::HmacSha1,
                mac: vec![0; 20],
            }),
        ],
    };
    let mut bytes = codec::encode(&message);
    let covered = bytes.len() - 20;
    let mac = protection::mac(&source, MacAlgorithm::HmacSha1, &[&bytes[..covered]]);
    bytes[covered..].copy_from_slice(&mac);
    bytes
}

/// R_MESSAGE of the same.
fn r_message() -> Vec<u8> {
    let source = KeySource::rfc3830(Prf::Mikey1, &PSK, None, CSB_ID, &RAND);
    let algorithm = MacAlgorithm::HmacSha1;
    let message = Message {
        header: Header { response_wanted: false, ..header(DataType::PreSharedVerification, 2) },
        payloads: vec![
            Payload::Timestamp(Timestamp::NtpUtc(now().0)),
            identity("sip:bob@b"),
            Payload::Verification(Verification { algorithm, mac: vec![0; 20] }),
        ],
    };
    let mut bytes = codec::encode(&message);
    let covered = bytes.len() - 20;
    let time = now().0.to_be_bytes();
    let parts = [&bytes[..covered], b"sip:alice@a", b"sip:bob@b", &time];
    let mac = protection::mac(&source, algorithm, &parts);
    bytes[covered..].copy_from_slice(&mac);
    bytes
}

#[test]
fn the_pre_shared_key_method_is_verified_and_its_teks_told() {
    let tgk = [9; 16];
    let (first, second) = (i_message(&tgk), r_message());
    let given = [(Purpose::User, PSK.to_vec())];
    let (well, text) = told(&[&first, &second], &given);
    assert!(well, "{text}");
    let tek = |id| {
        let source = KeySource::rfc3830(Prf::Mikey1, &tgk, Some(id), CSB_ID, &RAND);
        hex(&source.derive(constant::TEK, 16))
    };
    assert_tells(
        &text,
        &[
            "reading: the message up to the MAC",
            "reading: with the identities of both sides and T",
            &hex(&tgk),
            "TEK of CS 1",
            &tek(1),
            "TEK of CS 2",
            &tek(2),
        ],
    );
    for at in [first.len() - 1, 30] {
        let mut changed = first.clone();
        changed[at] ^= 1;
        let (well, text) = told(&[&changed], &given);
        assert!(!well, "byte {at}: {text}");
    }
    let (_, text) = told(&[&second], &given);
    assert_tells(&text, &["give that before it"]);
    let (well, text) = told(&[&first], &[(Purpose::User, vec![4; 16])]);
    assert!(!well, "{text}");
}
