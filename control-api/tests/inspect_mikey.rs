//! `mrf inspect mikey` on the messages of a whole exchange (RFC 6043 mode 3), whose keys are known.

use std::fs;
use std::process::Command;

use control_api::inspect::{Keys, MikeyOptions, Purpose, mikey};
use serde_json::Value;

/// The exchange, its messages and keys in hex.
fn scenario() -> Value {
    let vectors: Value =
        serde_json::from_str(include_str!("data/mikey_vectors.json")).expect("JSON");
    vectors["scenario_A_mode3_128"].clone()
}

fn text<'a>(scenario: &'a Value, group: &str, name: &str) -> &'a str {
    scenario[group][name].as_str().expect("there")
}

/// The four messages in their order, a line of hex each.
fn conversation(scenario: &Value) -> String {
    let messages = [
        ("transfer_init", "TRANSFER_INIT"),
        ("resolve", "RESOLVE_INIT_PSK"),
        ("resolve", "RESOLVE_RESP"),
        ("transfer_resp", "TRANSFER_RESP"),
    ];
    messages.map(|(group, name)| text(scenario, group, name)).join("\n")
}

fn keys(given: &[(Purpose, &str)]) -> Keys {
    let mut keys = Keys::default();
    for (purpose, key) in given {
        keys.add_hex(*purpose, key).expect("hex");
    }
    keys
}

/// Whether all is well, and what was told.
fn told(input: &[u8], keys: &Keys, show_secrets: bool, json: bool) -> (bool, String) {
    let options = MikeyOptions { keys, tls: &[241], show_secrets, json, colour: false };
    let mut out = Vec::new();
    let inputs = [("trace".to_owned(), input.to_vec())];
    let well = mikey(&inputs, &options, &mut out).expect("a message");
    (well, String::from_utf8(out).expect("text"))
}

fn assert_tells(text: &str, expected: &[&str]) {
    for line in expected {
        assert!(text.contains(line), "{line:?} is missing from:\n{text}");
    }
}

#[test]
fn tells_every_field_with_its_place() {
    let scenario = scenario();
    let init = text(&scenario, "transfer_init", "TRANSFER_INIT");
    let (well, told) = told(init.as_bytes(), &Keys::default(), false, false);
    assert!(well, "{told}");
    let told: String = told.split_inclusive('\n').map(|line| squeeze(line) + "\n").collect();
    assert_tells(
        &told,
        &[
            "1. TRANSFER_INIT (14), ",
            "\n0 1 version 1\n",
            "\n1 1 data type 14 TRANSFER_INIT\n",
            "\n3 1 V flag, PRF func 128 V 1, MIKEY-1 (HMAC-SHA-1)\n",
            "\n4 4 CSB ID 1432778632 55667788\n",
            "prot type 241 TLS, as configured\n",
            "\n21 1 next payload 15 RANDR\n",
            "RAND 9d258ae6207d4490a9dbc0dc8723fa37\n",
            "ID role 1 IDRi, initiator\n",
            "ID data \"sip:helpdesk@example.com\"\n",
            "ticket type 1 MIKEY base ticket\n",
            "D 0 not: made by the KMS, not by the initiator\n",
            "G 1 the responder generates RANDRr\n",
            "ID data \"tpk-1\"\n",
            "data \"mikey\"\n",
            "parsed the node's parser takes it\n",
            "no keys were given",
        ],
    );
}

/// With single blanks.
fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn places_are_those_of_the_bytes() {
    let scenario = scenario();
    let hex = text(&scenario, "transfer_init", "TRANSFER_INIT");
    let (_, told) = told(hex.as_bytes(), &Keys::default(), false, true);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let message = &told["messages"][0];
    let mut end = 0;
    let mut leaves = 0;
    // Fields stand side by side, and what has a value in hex has the bytes of its place.
    visit(message["fields"].as_array().expect("a list"), &mut |field| {
        let at = |name: &str| usize::try_from(field[name].as_u64().expect("a number")).expect("it");
        let (offset, length) = (at("offset"), at("length"));
        assert!(offset + length >= end, "{field}");
        assert!(offset <= end, "a gap before {field}");
        end = offset + length;
        leaves += 1;
        if field["name"] == "RAND" || field["name"] == "encr data" {
            assert_eq!(field["value"], hex[2 * offset..2 * end], "{field}");
        }
    });
    assert_eq!(end, hex.len() / 2);
    assert!(leaves > 80, "{leaves}");
}

fn visit<'a>(fields: &'a [Value], leaf: &mut impl FnMut(&'a Value)) {
    for field in fields {
        match field["fields"].as_array() {
            Some(children) => visit(children, leaf),
            None => leaf(field),
        }
    }
}

#[test]
fn verifies_and_derives_with_the_key_of_the_ticket() {
    let scenario = scenario();
    let keys = keys(&[(Purpose::Ticket, text(&scenario, "ticket", "tpk"))]);
    let input = conversation(&scenario);
    let (well, shown) = told(input.as_bytes(), &keys, true, false);
    assert!(well, "{shown}");
    let tek = text(&scenario, "tek", "tek");
    let mpk = text(&scenario, "ticket", "mpk");
    assert_tells(
        &shown,
        &[
            "ticket MAC: right with ticket key 1 of the command line; reading: from the ticket type",
            &format!("ticket KEMAC: MPK, SPI 00000001: {mpk}"),
            "MAC: right with the MPK of the ticket; reading: without the Initiator Data",
            "unknown TEK: G is set, so TRANSFER_RESP with RANDRr is needed",
            "MAC: no psk given",
            "MAC: right with the MPK of the ticket; reading: with the whole TRANSFER_INIT",
            &format!("TEK of CS 1: {tek}; from the TGK with RANDRi (H) and RANDRr (G)"),
            "TLS-PSK identity: 55667788.1",
        ],
    );
    let (_, hidden) = told(input.as_bytes(), &keys, false, false);
    assert!(hidden.contains("TEK of CS 1: 16 byte(s), hidden"), "{hidden}");
    for secret in [tek, mpk, text(&scenario, "ticket", "tgk"), text(&scenario, "ticket", "tpk")] {
        assert!(!hidden.contains(secret), "{secret} in:\n{hidden}");
    }
}

#[test]
fn verifies_the_exchange_with_the_kms_and_derives_from_it() {
    let scenario = scenario();
    let keys = keys(&[(Purpose::User, text(&scenario, "resolve", "psk"))]);
    let (well, told) = told(conversation(&scenario).as_bytes(), &keys, true, false);
    assert!(well, "{told}");
    assert_tells(
        &told,
        &[
            "MAC: right with psk 1 of the command line; reading: with the identities of sender",
            "MAC: right with psk 1 of the command line; reading: with the whole request",
            "KEMAC: right with the same key; reading: IV from T of the response",
            "MAC: right with MPKi from the KMS; reading: with the whole TRANSFER_INIT",
            &format!("TEK of CS 1: {}", text(&scenario, "tek", "tek")),
        ],
    );
}

#[test]
fn says_that_a_mac_is_wrong() {
    let scenario = scenario();
    let keys = keys(&[
        (Purpose::Ticket, "00112233445566778899aabbccddeeff"),
        (Purpose::MessageProtection, text(&scenario, "transfer_init", "mpki")),
    ]);
    let init = text(&scenario, "transfer_init", "TRANSFER_INIT");
    let (well, shown) = told(init.as_bytes(), &keys, false, false);
    assert!(!well);
    assert_tells(
        &shown,
        &["WRONG   ticket MAC: wrong with each of 1 key(s)", "MAC: right with mpk 1"],
    );
    let last = init.len() - 1;
    let flipped = format!("{}{}", &init[..last], if init.ends_with('0') { '1' } else { '0' });
    let (well, shown) = told(flipped.as_bytes(), &keys, false, false);
    assert!(!well);
    assert_tells(&shown, &["WRONG   MAC: wrong with each of 1 key(s), under every reading"]);
}

#[test]
fn every_prefix_is_told_up_to_where_it_ends() {
    let scenario = scenario();
    let hex = text(&scenario, "transfer_init", "TRANSFER_INIT");
    for length in 2..hex.len() / 2 {
        let (well, told) = told(&hex.as_bytes()[..2 * length], &Keys::default(), false, true);
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let message = &told["messages"][0];
        assert!(!well, "{length}");
        let broken = message["broken"].as_array().expect("a list").last().expect("broken");
        let offset = broken["offset"].as_u64().expect("a number");
        assert!(usize::try_from(offset).expect("small") <= length, "{length}: {broken}");
        assert!(message["refused"].is_string(), "{length}");
    }
}

#[test]
fn names_the_payload_that_is_wrong_and_shows_what_came_before() {
    let scenario = scenario();
    let hex = text(&scenario, "transfer_init", "TRANSFER_INIT");
    // The RANDR behind T announces a payload nobody knows.
    let at = 2 * 31;
    assert_eq!(&hex[at..at + 2], "0e");
    let broken = format!("{}7f{}", &hex[..at], &hex[at + 2..]);
    let (well, told) = told(broken.as_bytes(), &Keys::default(), false, false);
    assert!(!well);
    assert_tells(
        &told,
        &[
            "9d258ae6207d4490a9dbc0dc8723fa37",
            "broken at byte 50 in RANDR: payload type 127 is unknown, so its length is, too",
            "refused the node's parser refuses it: ",
        ],
    );
}

#[test]
fn reads_a_call_from_its_sip_messages_with_keys_from_files() {
    let scenario = scenario();
    let folder = tempfile::tempdir().expect("a folder");
    let sip = format!(
        "INVITE sip:helpdesk@example.com SIP/2.0\r\nContent-Type: application/sdp\r\n\r\n{}\r\n\
         SIP/2.0 200 OK\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n{}\r\n",
        text(&scenario, "transfer_init", "sdp"),
        text(&scenario, "transfer_resp", "sdp"),
    );
    let trace = folder.path().join("call.sip");
    fs::write(&trace, sip).expect("written");
    let key_file = folder.path().join("keys.toml");
    let key = text(&scenario, "ticket", "tpk");
    fs::write(&key_file, format!("ticket_key = [\"{key}\"]\n")).expect("written");
    let run = |key_file: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mrf"));
        command.args(["inspect", "mikey", "--key-file"]).arg(key_file).arg(&trace);
        let output = command.output().expect("runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, told, _) = run(&key_file);
    assert_eq!(code, Some(0), "{told}");
    assert_tells(
        &told,
        &["a=key-mgmt in line 4)", "2. TRANSFER_RESP (15)", "TEK of CS 1: 16 byte(s)"],
    );
    assert!(!told.contains('\u{1b}'), "no colours into a pipe");
    fs::write(&key_file, format!("ticket_keys = [\"{key}\"]\n")).expect("written");
    let (code, _, complaint) = run(&key_file);
    assert_eq!(code, Some(2));
    assert!(complaint.contains("ticket_keys") && !complaint.contains(key), "{complaint}");
}

#[test]
fn no_changed_byte_makes_it_fail() {
    let scenario = scenario();
    let keys = keys(&[
        (Purpose::Ticket, text(&scenario, "ticket", "tpk")),
        (Purpose::User, text(&scenario, "resolve", "psk")),
    ]);
    let options =
        MikeyOptions { keys: &keys, tls: &[241], show_secrets: true, json: false, colour: true };
    let messages: Vec<Vec<u8>> = conversation(&scenario).lines().map(bytes).collect();
    for changed in 0..messages.len() {
        for at in 0..messages[changed].len() {
            for value in [0x01, 0xff] {
                let mut bytes = messages[changed].clone();
                if bytes[at] == value {
                    continue;
                }
                bytes[at] = value;
                // Behind the message it may belong to.
                let before = (changed > 0).then(|| messages[0].clone());
                let inputs = before.into_iter().chain([bytes]);
                let inputs: Vec<_> = inputs.map(|bytes| ("x".to_owned(), hex(&bytes))).collect();
                let mut out = Vec::new();
                mikey(&inputs, &options, &mut out).expect("told");
                // Whatever a peer sends, each line ends in what was shown of it.
                assert!(out.ends_with(b"\n"), "{changed} {at} {value}");
            }
        }
    }
}

#[test]
fn a_mac_that_is_not_at_the_end_covers_nothing() {
    // TRANSFER_INIT for no session: header, V, then a TICKET with nothing in it.
    let mac = "00".repeat(20);
    let init = format!("010e0980aabbccdd0001 1101{mac} 00000101010000000000 00000000");
    let keys = keys(&[(Purpose::MessageProtection, "00112233445566778899aabbccddeeff")]);
    let (well, told) = told(init.as_bytes(), &keys, false, false);
    assert!(!well, "{told}");
    assert_tells(&told, &["WRONG   MAC: payloads follow V"]);
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}
