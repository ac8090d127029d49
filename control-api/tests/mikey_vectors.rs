//! The published test vectors: constants, PRFs, RFC 3830 keys, and one whole ticket transfer
//! (Scenario A) byte for byte.

use std::collections::BTreeMap;
use std::time::Duration;

use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::codec::{self, Message, Payload};
use control_api::mikey::derivation::{KeySource, Prf, constant};
use control_api::mikey::protection::{self, Encryption};
use control_api::mikey::{
    GrantedTicket, Initiator, NtpTime, Parameters, PreSharedKey, Responder, ResponderConfig,
    TicketProtectionKey, UriPattern, psk_identity, sdp_attribute,
};
use serde_json::Value;
use zeroize::Zeroizing;

const INITIATOR: &str = "sip:conference-factory@mrf.example.com";
const CALLED: &str = "sip:helpdesk@example.com";
const ANSWERING: &str = "sip:bob@example.com";
const KMS: &str = "sip:kms@kms.example.com";
const NO_CSB_ID: u32 = 0xffff_ffff;

const TICKET_TIME: NtpTime = NtpTime(0xee9a_1c2d_4000_0000);
const TRANSFER_INIT_TIME: NtpTime = NtpTime(0xee9a_1c30_0000_0000);
const RESOLVE_INIT_TIME: NtpTime = NtpTime(0xee9a_1c31_8000_0000);
const RESOLVE_RESP_TIME: NtpTime = NtpTime(0xee9a_1c32_0000_0000);
const TRANSFER_RESP_TIME: NtpTime = NtpTime(0xee9a_1c33_0000_0000);

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/mikey_vectors.json")).expect("the vectors are JSON")
}

fn unhex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0);
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A section of Scenario A.
struct Section(Value);

impl Section {
    fn new(name: &str) -> Self {
        Self(vectors()["scenario_A_mode3_128"][name].clone())
    }

    fn text(&self, name: &str) -> String {
        self.0[name].as_str().unwrap_or_else(|| panic!("{name} is there")).to_owned()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        unhex(&self.text(name))
    }

    fn csb_id(&self) -> u32 {
        u32::from_str_radix(&self.text("csb_id"), 16).expect("eight digits")
    }
}

/// Randomness that was written down beforehand.
fn script(parts: &[Vec<u8>]) -> impl FnMut(&mut [u8]) + use<> {
    let mut rest = parts.concat();
    move |out| {
        assert!(rest.len() >= out.len(), "the script is longer");
        out.copy_from_slice(&rest[..out.len()]);
        rest.drain(..out.len());
    }
}

fn no_random(_: &mut [u8]) {
    panic!("no randomness is needed here");
}

fn tpk() -> TicketProtectionKey {
    let key = Zeroizing::new(Section::new("ticket").bytes("tpk"));
    TicketProtectionKey { identity: b"tpk-1".to_vec(), key }
}

fn responder_key() -> PreSharedKey {
    let key = Zeroizing::new(Section::new("resolve").bytes("psk"));
    PreSharedKey { identity: b"psk-r".to_vec(), key }
}

fn kms() -> Kms {
    Kms::new(KmsConfig {
        uri: KMS.to_owned(),
        users: vec![responder_key()],
        ticket_protection_keys: vec![tpk()],
        ticket_lifetime: Duration::from_secs(3600),
        may_act_as: BTreeMap::from([
            (b"psk-r".to_vec(), vec![UriPattern::Exact(ANSWERING.to_owned())]),
            (b"tpk-1".to_vec(), vec![UriPattern::Exact(INITIATOR.to_owned())]),
        ]),
        groups: BTreeMap::from([(
            CALLED.to_owned(),
            vec![UriPattern::Exact(ANSWERING.to_owned())],
        )]),
        parameters: Parameters::default(),
    })
}

fn responder() -> Responder {
    Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Exact(CALLED.to_owned())],
        answer_as: Some(ANSWERING.to_owned()),
        kms_uri: KMS.to_owned(),
        kms_key: responder_key(),
        parameters: Parameters::default(),
    })
}

#[test]
fn constants_are_the_published_ones() {
    let constants = [
        ("TEK", constant::TEK),
        ("TGK_AUTH", constant::TGK_AUTHENTICATION),
        ("TGK_ENC", constant::TGK_ENCRYPTION),
        ("ENC", constant::ENCRYPTION),
        ("AUTH", constant::AUTHENTICATION),
        ("SALT", constant::SALT),
        ("TGK_SALT", constant::TGK_SALT),
        ("MPKr_f", constant::FORKED_MPKR),
        ("TGK_f", constant::FORKED_TGK),
        ("MPKi", constant::MPKI),
        ("MPKr", constant::MPKR),
    ];
    let published = vectors()["constants"].clone();
    assert_eq!(published.as_object().map(serde_json::Map::len), Some(constants.len()));
    for (name, value) in constants {
        assert_eq!(published[name], format!("{value:08x}"), "{name}");
    }
}

#[test]
fn prfs_give_the_published_output() {
    let vectors = vectors();
    let cases = vectors["prf"].as_array().expect("a list");
    assert_eq!(cases.len(), 6);
    for case in cases {
        let text = |name: &str| case[name].as_str().expect("text");
        let bytes = case["outbits"].as_u64().expect("a number") as usize / 8;
        for (prf, expected) in [(Prf::Mikey1, "prf_mikey1"), (Prf::HmacSha256, "prf_hmac_sha256")] {
            let output = prf.derive(&unhex(text("inkey")), &unhex(text("label")), bytes);
            assert_eq!(hex(&output), text(expected));
        }
    }
}

#[test]
fn rfc_3830_keys_are_the_published_ones() {
    let vectors = vectors();
    let text = |name: &str| vectors["rfc3830_psk"][name].as_str().expect("text").to_owned();
    let (psk, tgk, rand) = (unhex(&text("psk")), unhex(&text("tgk")), unhex(&text("rand")));
    let csb_id = u32::from_str_radix(&text("csb_id"), 16).expect("eight digits");
    let message = KeySource::rfc3830(Prf::Mikey1, &psk, None, csb_id, &rand);
    assert_eq!(hex(&message.derive(constant::ENCRYPTION, 16)), text("encr_key"));
    assert_eq!(hex(&message.derive(constant::AUTHENTICATION, 20)), text("auth_key"));
    assert_eq!(hex(&message.derive(constant::SALT, 14)), text("salt_key"));
    let session = KeySource::rfc3830(Prf::Mikey1, &tgk, Some(1), csb_id, &rand);
    assert_eq!(hex(&session.derive(constant::TEK, 16)), text("tek"));
    assert_eq!(hex(&session.derive(constant::TGK_SALT, 14)), text("tgk_salt"));
}

#[test]
fn rfc_3830_message_of_rtsp_devices_round_trips() {
    let bytes = unhex(
        "0100050012345678010000cafebabe000000000b00e0000001800000000a10000102030405060708090a0b0c0d\
         0e0f010000001e00010101011002010103011404010e0501000701010801010a01010b010a0000002700210\
         01e000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d040000000100",
    );
    let message = codec::parse(&bytes).expect("a message");
    assert_eq!(codec::encode(&message), bytes);
    let keys = codec::parse_key_data(&message.kemac().expect("KEMAC").encrypted).expect("keys");
    assert_eq!(keys[0].key_type, 2);
    assert_eq!(keys[0].spi(), Some(&[0, 0, 0, 1][..]));
}

#[test]
fn ticket_keys_are_those_of_scenario_a() {
    let ticket = Section::new("ticket");
    let (tpk, rand, mpk) = (ticket.bytes("tpk"), ticket.bytes("rand"), ticket.bytes("mpk"));
    let source = KeySource::ticket(Prf::Mikey1, &tpk, &rand);
    assert_eq!(hex(&source.derive(constant::ENCRYPTION, 16)), ticket.text("encr_key"));
    assert_eq!(hex(&source.derive(constant::SALT, 14)), ticket.text("salt_key"));
    assert_eq!(hex(&source.derive(constant::AUTHENTICATION, 20)), ticket.text("auth_key"));
    let mut kemac = ticket.bytes("kemac_plain");
    protection::apply_aes_cm(&source, Encryption::AesCm128, NO_CSB_ID, TICKET_TIME.0, &mut kemac);
    assert_eq!(hex(&kemac), ticket.text("kemac_encr"));
    let mac_input = ticket.bytes("mac_input");
    let mac = protection::mac(&source, codec::MacAlgorithm::HmacSha1, &[&mac_input]);
    assert_eq!(hex(&mac), ticket.text("mac"));
    let source = KeySource::message_protection(Prf::Mikey1, &mpk, &rand);
    assert_eq!(hex(&source.derive(constant::MPKI, 16)), ticket.text("mpki"));
    assert_eq!(hex(&source.derive(constant::MPKR, 16)), ticket.text("mpkr"));
}

#[test]
fn message_keys_are_those_of_scenario_a() {
    let init = Section::new("transfer_init");
    let (mpki, randri) = (init.bytes("mpki"), init.bytes("randri"));
    let source = KeySource::initial_message(Prf::Mikey1, &mpki, init.csb_id(), &randri, &[]);
    assert_eq!(hex(&source.derive(constant::AUTHENTICATION, 20)), init.text("auth_key"));

    let response = Section::new("transfer_resp");
    let randrr = response.bytes("randrr");
    let source = KeySource::response_message(Prf::Mikey1, &mpki, init.csb_id(), &randri, &randrr);
    assert_eq!(hex(&source.derive(constant::AUTHENTICATION, 20)), response.text("auth_key"));

    let resolve = Section::new("resolve");
    let (psk, rand) = (resolve.bytes("psk"), resolve.bytes("randrr"));
    let source = KeySource::initial_message(Prf::Mikey1, &psk, resolve.csb_id(), &[], &rand);
    assert_eq!(hex(&source.derive(constant::AUTHENTICATION, 20)), resolve.text("init_auth"));
    let source = KeySource::response_message(Prf::Mikey1, &psk, resolve.csb_id(), &[], &rand);
    assert_eq!(hex(&source.derive(constant::ENCRYPTION, 16)), resolve.text("resp_encr"));
    assert_eq!(hex(&source.derive(constant::SALT, 14)), resolve.text("resp_salt"));
    assert_eq!(hex(&source.derive(constant::AUTHENTICATION, 20)), resolve.text("resp_auth"));

    let tgk = Section::new("ticket").bytes("tgk");
    let source = KeySource::crypto_session(Prf::Mikey1, &tgk, 1, &randri, &randrr);
    assert_eq!(hex(&source.derive(constant::TEK, 16)), Section::new("tek").text("tek"));
}

#[test]
fn every_message_of_scenario_a_round_trips() {
    for (section, name) in [
        ("transfer_init", "TRANSFER_INIT"),
        ("resolve", "RESOLVE_INIT_PSK"),
        ("resolve", "RESOLVE_RESP"),
        ("transfer_resp", "TRANSFER_RESP"),
    ] {
        let bytes = Section::new(section).bytes(name);
        let message = codec::parse(&bytes).expect(name);
        assert_eq!(hex(&codec::encode(&message)), hex(&bytes), "{name}");
    }
    let plaintext = Section::new("ticket").bytes("kemac_plain");
    let keys = codec::parse_key_data(&plaintext).expect("key data");
    assert_eq!(codec::encode_key_data(&keys).as_slice(), plaintext);
}

#[test]
fn mac_of_transfer_init_covers_what_scenario_a_says() {
    let init = Section::new("transfer_init");
    let message = codec::parse(&init.bytes("TRANSFER_INIT")).expect("a message");
    let covered = codec::encode_without_initiator_data(&message);
    let mut covered = covered[..covered.len() - 20].to_vec();
    covered.extend_from_slice(INITIATOR.as_bytes());
    covered.extend_from_slice(CALLED.as_bytes());
    assert_eq!(hex(&covered), init.text("mac_input"));
}

#[test]
fn ticket_of_scenario_a_round_trips() {
    let init = Section::new("transfer_init");
    let message = codec::parse(&init.bytes("TRANSFER_INIT")).expect("a message");
    let ticket = message.ticket().expect("TICKET");
    assert_eq!(hex(&ticket.data), Section::new("ticket").text("ticket_data"));
    let base = codec::parse_base_ticket(&ticket.data).expect("a base ticket");
    assert_eq!(codec::encode_base_ticket(&base), ticket.data);
    assert_eq!(ticket.policy.flags.contradiction(), None);
}

#[test]
fn sdp_attributes_are_those_of_scenario_a() {
    for (section, name) in [("transfer_init", "TRANSFER_INIT"), ("transfer_resp", "TRANSFER_RESP")]
    {
        let section = Section::new(section);
        let line = format!("a=key-mgmt:{}", sdp_attribute::encode(&section.bytes(name)));
        assert_eq!(line, section.text("sdp"));
        let value = line.strip_prefix("a=key-mgmt:").expect("the attribute");
        assert_eq!(sdp_attribute::decode(value), Some(section.bytes(name)));
    }
}

/// TRANSFER_INIT of Scenario A, made by our initiator.
fn scenario_initiator() -> (Initiator, Vec<u8>) {
    let ticket = Section::new("ticket");
    let init = Section::new("transfer_init");
    let parameters = Parameters::default();
    let mut random = script(&[ticket.bytes("rand"), ticket.bytes("mpk"), ticket.bytes("tgk")]);
    let granted =
        GrantedTicket::make(&parameters, INITIATOR, CALLED, KMS, &tpk(), TICKET_TIME, &mut random)
            .expect("a ticket");
    assert_eq!(hex(&granted.ticket().data), ticket.text("ticket_data"));
    let mut random = script(&[init.bytes("csb_id"), init.bytes("randri")]);
    Initiator::with_granted_ticket(&parameters, &granted, CALLED, TRANSFER_INIT_TIME, &mut random)
        .expect("a transfer")
}

#[test]
fn initiator_sends_the_transfer_init_of_scenario_a() {
    let (_, transfer_init) = scenario_initiator();
    assert_eq!(hex(&transfer_init), Section::new("transfer_init").text("TRANSFER_INIT"));
}

#[test]
fn initiator_takes_the_transfer_resp_of_scenario_a() {
    let (mut initiator, _) = scenario_initiator();
    initiator.accept_responder(UriPattern::Exact(ANSWERING.to_owned()));
    let response = Section::new("transfer_resp").bytes("TRANSFER_RESP");
    let established = initiator.finish(&response, TRANSFER_RESP_TIME).expect("established");
    assert_eq!(hex(established.psk.expose()), Section::new("tek").text("tek"));
    assert_eq!(established.peer, ANSWERING);
}

#[test]
fn responder_and_kms_send_the_messages_of_scenario_a() {
    let init = Section::new("transfer_init");
    let resolve = Section::new("resolve");
    let response = Section::new("transfer_resp");
    let mut responder = responder();
    let mut random = script(&[resolve.bytes("csb_id"), resolve.bytes("randrr")]);
    let (pending, resolve_init) = responder
        .begin(&init.bytes("TRANSFER_INIT"), "mikey", RESOLVE_INIT_TIME, &mut random)
        .expect("acceptable");
    assert_eq!(pending.initiator(), INITIATOR);
    assert_eq!(pending.requested(), CALLED);
    assert_eq!(hex(&resolve_init), resolve.text("RESOLVE_INIT_PSK"));

    let resolve_resp =
        kms().try_handle(&resolve_init, RESOLVE_RESP_TIME, &mut no_random).expect("resolved");
    assert_eq!(hex(&resolve_resp), resolve.text("RESOLVE_RESP"));

    let mut random = script(&[response.bytes("randrr")]);
    let (established, transfer_resp) = pending
        .finish(&mut responder, &resolve_resp, TRANSFER_RESP_TIME, &mut random)
        .expect("established");
    assert_eq!(hex(&transfer_resp), response.text("TRANSFER_RESP"));
    assert_eq!(hex(established.psk.expose()), Section::new("tek").text("tek"));
    assert_eq!(hex(established.psk.expose()), Section::new("tls").text("psk"));
    assert_eq!(established.psk_identity, "55667788.1");
    assert_eq!(established.psk_identity, psk_identity(0x5566_7788, 1));
    assert_eq!(established.peer, INITIATOR);
}

#[test]
fn kemac_of_resolve_resp_opens_to_the_keys_of_scenario_a() {
    let resolve = Section::new("resolve");
    let message: Message = codec::parse(&resolve.bytes("RESOLVE_RESP")).expect("a message");
    let (psk, rand) = (resolve.bytes("psk"), resolve.bytes("randrr"));
    let source = KeySource::response_message(Prf::Mikey1, &psk, resolve.csb_id(), &[], &rand);
    let mut keys = message.kemac().expect("KEMAC").encrypted.clone();
    let time = message.payloads.iter().find_map(|payload| match payload {
        Payload::Timestamp(timestamp) => Some(timestamp.to_bits()),
        _ => None,
    });
    let time = time.expect("T");
    protection::apply_aes_cm(&source, Encryption::AesCm128, resolve.csb_id(), time, &mut keys);
    assert_eq!(hex(&keys), resolve.text("kemac_plain"));
}
