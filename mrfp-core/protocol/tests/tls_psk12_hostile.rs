//! Our own handshake as server, against a client that breaks the rules one at a time. The client is the
//! test's: it has the keys, so that what it says behind the ChangeCipherSpec is wrong only where it is
//! meant to be.

mod tls_client;
mod tls_common;

use mrfp_protocol::tls::{Handshake, HandshakeError, Profile, ProfileConfig};
use tls_client::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, CLIENT_HELLO, CLIENT_KEY_EXCHANGE, Client, EMS,
    FINISHED, HANDSHAKE, Hello, PSK_AES_128_GCM, keyed, message, record,
};
use tls_common::{IDENTITY, KEY, open_all, profile};

const PSK: &str = "PSK-AES128-GCM-SHA256";
const ECDHE: &str = "ECDHE-PSK-CHACHA20-POLY1305";
const ECDHE_PSK_CHACHA20: u16 = 0xccac;

const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const DECRYPT_ERROR: u8 = 51;
const PROTOCOL_VERSION: u8 = 70;

fn fatal(description: u8) -> Vec<u8> {
    record(ALERT, &[2, description])
}

fn psk_hello(extensions: &[(u16, &[u8])]) -> Hello {
    Hello::new(&[PSK_AES_128_GCM], extensions)
}

/// What becomes of a hello: the ServerHello behind its random, or the alert.
fn answer(profile: &Profile, input: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let mut server = Handshake::server(profile).unwrap();
    let mut output = Vec::new();
    match server.advance(input, &mut output) {
        Ok(_) => {
            let length = usize::from(u16::from_be_bytes([output[7], output[8]]));
            Ok(output[9 + 2 + 32..9 + length].to_vec())
        }
        Err(_) => Err(output),
    }
}

#[test]
fn a_hello_is_answered_with_what_it_offers_and_no_more() {
    let renegotiation = [0xff, 0x01, 0, 1, 0];
    let extended = [0, 23, 0, 0];
    let plain: Vec<u8> = vec![0, 0x00, 0xa8, 0];
    let with = |extensions: &[u8]| {
        let length = (extensions.len() as u16).to_be_bytes();
        [&plain[..], &length, extensions].concat()
    };
    let mut resuming = psk_hello(&[]);
    resuming.session_id = vec![7; 32];
    let cases = [
        ("no extensions at all", psk_hello(&[]), plain.clone()),
        ("a session to be resumed", resuming, plain.clone()),
        ("one unknown", psk_hello(&[(0xfafa, b"what")]), plain.clone()),
        ("a ticket", psk_hello(&[(35, &[])]), plain.clone()),
        ("encrypt_then_mac, which an AEAD has not", psk_hello(&[(22, &[])]), plain.clone()),
        ("the signalling suite", Hello::new(&[0x00ff, 0x00a8], &[]), with(&renegotiation)),
        ("renegotiation_info", psk_hello(&[(0xff01, &[0])]), with(&renegotiation)),
        ("extended_master_secret", psk_hello(&[EMS]), with(&extended)),
        (
            "both",
            psk_hello(&[EMS, (0xff01, &[0])]),
            with(&[&renegotiation[..], &extended].concat()),
        ),
        ("TLS 1.2 among other versions", psk_hello(&[(43, &[4, 3, 4, 3, 3])]), plain.clone()),
        ("a fallback to what is our highest", Hello::new(&[0x5600, 0x00a8], &[]), plain.clone()),
    ];
    for (what, hello, expected) in cases {
        let input = record(HANDSHAKE, &hello.message());
        assert_eq!(answer(&profile(PSK), &input), Ok(expected), "{what}");
        assert!(Client::greet(&profile(PSK), &hello).is_some(), "{what}: by our own engine");
    }
}

#[test]
fn a_hello_that_breaks_a_rule_is_refused() {
    let changed = |change: fn(&mut Hello)| {
        let mut hello = psk_hello(&[EMS]);
        change(&mut hello);
        hello
    };
    let cases = [
        ("no compression is none", changed(|it| it.compressions = vec![1]), None),
        ("no compressions", changed(|it| it.compressions.clear()), None),
        ("a session id too long", changed(|it| it.session_id = vec![7; 33]), Some(DECODE_ERROR)),
        ("half a suite", changed(|it| it.suites.push(0)), None),
        ("no suites", changed(|it| it.suites.clear()), None),
        ("a byte behind it", changed(|it| it.trailer = vec![0]), Some(DECODE_ERROR)),
        ("an extension twice", psk_hello(&[EMS, EMS]), None),
        ("half a group", psk_hello(&[(10, &[0, 3, 0, 29, 0])]), Some(DECODE_ERROR)),
        ("half a version", psk_hello(&[(43, &[3, 3, 3, 3])]), None),
        ("an extension longer than all", psk_hello(&[(10, &[0, 9, 0, 29])]), Some(DECODE_ERROR)),
        (
            "a renegotiation",
            psk_hello(&[(0xff01, &[12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])]),
            None,
        ),
        ("TLS 1.3 alone", psk_hello(&[(43, &[2, 3, 4])]), Some(PROTOCOL_VERSION)),
        ("TLS 1.1", changed(|it| it.version = 0x0302), Some(PROTOCOL_VERSION)),
        ("another suite", Hello::new(&[0x00a9], &[]), None),
    ];
    for (what, hello, expected) in cases {
        let alert = answer(&profile(PSK), &record(HANDSHAKE, &hello.message()));
        let Err(alert) = alert else { panic!("{what}: {alert:?}") };
        assert_eq!((alert.len(), alert[0], alert[5]), (7, ALERT, 2), "{what}: {alert:?}");
        assert!(expected.is_none_or(|expected| alert[6] == expected), "{what}: {alert:?}");
    }
}

#[test]
fn a_hello_is_alone_in_its_records_and_they_are_none_too_long() {
    let hello = psk_hello(&[EMS]).message();
    let (front, rest) = hello.split_at(9);
    let cut = [record(HANDSHAKE, front), record(HANDSHAKE, rest)].concat();
    assert!(answer(&profile(PSK), &cut).is_ok());
    let twice = record(HANDSHAKE, &[&hello[..], &hello].concat());
    let overlong = {
        let mut hello = psk_hello(&[]);
        hello.extensions.push((0xfafa, vec![0; 16_340]));
        hello.message()
    };
    assert!(overlong.len() > 16 * 1024);
    for (what, input) in [
        ("two hellos in a record", twice),
        ("a record longer than any", record(HANDSHAKE, &overlong)),
    ] {
        assert!(answer(&profile(PSK), &input).is_err(), "{what}");
    }
}

#[test]
fn a_client_with_one_curve_has_forward_secrecy_with_it() {
    let suites = vec![ECDHE.to_owned(), PSK.to_owned()];
    let both = Profile::new(&ProfileConfig { suites, tls13: false }).unwrap();
    for (group, point_bytes) in [(29, 32), (23, 65), (24, 97)] {
        let hello = Hello::new(&[0x00a8, ECDHE_PSK_CHACHA20], &[(10, &[0, 2, 0, group])]);
        let client = Client::greet(&both, &hello).unwrap();
        let exchange = &client.messages()[1];
        assert_eq!(exchange.0, 12, "group {group}");
        assert_eq!(exchange.1[..6], [0, 0, 3, 0, group, point_bytes], "group {group}");
    }
}

#[test]
fn identities_of_any_bytes_up_to_the_longest_are_looked_up() {
    for identity in [&b""[..], b"a", &[0xff; 128], &[0; 256], "\u{7f}\u{e9}".as_bytes()] {
        let mut client = Client::greet(&profile(PSK), &psk_hello(&[])).unwrap();
        let exchange = client.exchange(identity, &KEY);
        let (_, progress) = client.server.advance(&exchange, &mut Vec::new()).unwrap();
        assert!(matches!(progress, mrfp_protocol::tls::Progress::NeedPsk));
        assert_eq!(client.server.identity(), identity);
    }
}

#[test]
fn a_key_exchange_that_breaks_a_rule_is_refused() {
    let exchange = |body: &[u8]| record(HANDSHAKE, &message(CLIENT_KEY_EXCHANGE, body));
    let long =
        |length: u16| exchange(&[&length.to_be_bytes()[..], &vec![b'a'; length.into()]].concat());
    let two = [message(CLIENT_KEY_EXCHANGE, &[0, 1, b'a']), vec![CLIENT_KEY_EXCHANGE]].concat();
    let cases = [
        ("nothing", exchange(&[]), DECODE_ERROR),
        ("half a length", exchange(&[0]), DECODE_ERROR),
        ("an identity that is not all there", exchange(&[0, 2, b'a']), DECODE_ERROR),
        ("a byte behind it", exchange(&[0, 1, b'a', 0]), DECODE_ERROR),
        ("an identity longer than any", long(257), DECODE_ERROR),
        ("one of the most bytes there can be", exchange(&[0xff; 400]), DECODE_ERROR),
        ("more in its record", record(HANDSHAKE, &two), UNEXPECTED_MESSAGE),
        ("an empty record", record(HANDSHAKE, &[]), UNEXPECTED_MESSAGE),
        ("another hello", record(HANDSHAKE, &psk_hello(&[]).message()), UNEXPECTED_MESSAGE),
        ("a certificate", record(HANDSHAKE, &message(11, &[0, 0, 0])), UNEXPECTED_MESSAGE),
        ("a Finished", record(HANDSHAKE, &message(FINISHED, &[0; 12])), UNEXPECTED_MESSAGE),
        ("early data", record(APPLICATION_DATA, b"MSRP"), UNEXPECTED_MESSAGE),
        ("an early change", record(CHANGE_CIPHER_SPEC, &[1]), UNEXPECTED_MESSAGE),
        ("half an alert", record(ALERT, &[1]), UNEXPECTED_MESSAGE),
        ("an empty alert", record(ALERT, &[]), UNEXPECTED_MESSAGE),
        ("a flood of warnings", record(ALERT, &[1, 41]).repeat(5), UNEXPECTED_MESSAGE),
        ("another version", vec![HANDSHAKE, 3, 2, 0, 1, 16], PROTOCOL_VERSION),
    ];
    for (what, bytes, alert) in cases {
        let mut client = Client::greet(&profile(PSK), &psk_hello(&[])).unwrap();
        let result = client.say(&bytes);
        let expected = (HandshakeError::Malformed, fatal(alert));
        assert_eq!(result.map(|it| it.is_some()), Err(expected), "{what}");
    }
}

#[test]
fn a_point_that_is_none_is_refused() {
    let mut off_curve = [5; 65];
    off_curve[0] = 4;
    // The generator, so that the form alone is wrong.
    let x = [0x6b17_d1f2_e12c_4247_f8bc_e6e5_63a4_40f2, 0x7703_7d81_2deb_33a0_f4a1_3945_d898_c296];
    let compressed = [&[3][..], x.map(u128::to_be_bytes).as_flattened()].concat();
    let cases: [(&str, u8, &[u8], u8); 8] = [
        ("zero", 29, &[0; 32], ILLEGAL_PARAMETER),
        ("a short one", 29, &[9; 31], ILLEGAL_PARAMETER),
        ("an empty one", 29, &[], ILLEGAL_PARAMETER),
        ("of another group", 29, &off_curve, ILLEGAL_PARAMETER),
        ("off the curve", 23, &off_curve, ILLEGAL_PARAMETER),
        ("at infinity", 23, &[0], ILLEGAL_PARAMETER),
        ("compressed", 23, &compressed, ILLEGAL_PARAMETER),
        ("off the larger curve", 24, &off_curve, ILLEGAL_PARAMETER),
    ];
    for (what, group, point, alert) in cases {
        let hello = Hello::new(&[ECDHE_PSK_CHACHA20], &[(10, &[0, 2, 0, group])]);
        let mut client = Client::greet(&profile(ECDHE), &hello).unwrap();
        let body = [&[0, 1, b'a', point.len() as u8], point].concat();
        let result = client.say(&record(HANDSHAKE, &message(CLIENT_KEY_EXCHANGE, &body)));
        let expected = (HandshakeError::Malformed, fatal(alert));
        assert_eq!(result.map(|it| it.is_some()), Err(expected), "{what}");
    }
    let hello = Hello::new(&[ECDHE_PSK_CHACHA20], &[(10, &[0, 2, 0, 29])]);
    let mut client = Client::greet(&profile(ECDHE), &hello).unwrap();
    let result = client.say(&record(HANDSHAKE, &message(CLIENT_KEY_EXCHANGE, &[0, 1, b'a'])));
    assert_eq!(result.unwrap_err().1, fatal(DECODE_ERROR), "no point at all");
}

#[test]
fn a_change_that_says_anything_but_one_is_refused() {
    for payload in [&[][..], &[2], &[1, 1], &[0]] {
        let mut client = Client::greet(&profile(PSK), &psk_hello(&[])).unwrap();
        let exchange = client.exchange(IDENTITY, &KEY);
        assert!(client.say(&exchange).unwrap().is_none());
        let error = client.say(&record(CHANGE_CIPHER_SPEC, payload)).unwrap_err();
        assert_eq!(error.1, fatal(UNEXPECTED_MESSAGE), "{payload:?}");
    }
}

#[test]
fn the_first_protected_record_is_the_finished_or_the_end() {
    type Say = fn(&Client) -> Vec<u8>;
    let cases: [(&str, Say, u8); 13] = [
        ("another change", |_| record(CHANGE_CIPHER_SPEC, &[1]), BAD_RECORD_MAC),
        (
            "in the clear",
            |it| record(HANDSHAKE, &message(FINISHED, &it.verify_data())),
            BAD_RECORD_MAC,
        ),
        ("an empty record", |_| record(HANDSHAKE, &[]), BAD_RECORD_MAC),
        (
            "the second number",
            |it| it.sealed(1, HANDSHAKE, &message(FINISHED, &it.verify_data())),
            BAD_RECORD_MAC,
        ),
        ("data", |it| it.sealed(0, APPLICATION_DATA, b"MSRP"), UNEXPECTED_MESSAGE),
        ("a protected change", |it| it.sealed(0, CHANGE_CIPHER_SPEC, &[1]), UNEXPECTED_MESSAGE),
        ("an empty protected one", |it| it.sealed(0, HANDSHAKE, &[]), UNEXPECTED_MESSAGE),
        ("half an alert", |it| it.sealed(0, ALERT, &[1]), UNEXPECTED_MESSAGE),
        (
            "another hello",
            |it| it.sealed(0, HANDSHAKE, &message(CLIENT_HELLO, &[0; 12])),
            UNEXPECTED_MESSAGE,
        ),
        ("zeros", |it| it.sealed(0, HANDSHAKE, &message(FINISHED, &[0; 12])), DECRYPT_ERROR),
        (
            "the last bit",
            |it| {
                let mut verify_data = it.verify_data();
                verify_data[11] ^= 1;
                it.sealed(0, HANDSHAKE, &message(FINISHED, &verify_data))
            },
            DECRYPT_ERROR,
        ),
        (
            "a short one",
            |it| {
                let short = [message(FINISHED, &it.verify_data()[..11]), vec![0]].concat();
                it.sealed(0, HANDSHAKE, &short)
            },
            DECODE_ERROR,
        ),
        (
            "a long one",
            |it| {
                let long = [&it.verify_data()[..], &[0]].concat();
                it.sealed(0, HANDSHAKE, &message(FINISHED, &long))
            },
            UNEXPECTED_MESSAGE,
        ),
    ];
    for extensions in [&[][..], &[EMS]] {
        for (what, say, alert) in &cases {
            let mut client = keyed(&profile(PSK), extensions);
            let error = client.say(&say(&client)).map(|it| it.is_some()).unwrap_err();
            assert_eq!(error.1, fatal(*alert), "{what}");
        }
    }
}

#[test]
fn a_finished_may_come_in_pieces_and_data_behind_it_are_the_session_s() {
    for extensions in [&[][..], &[EMS]] {
        let mut client = keyed(&profile(PSK), extensions);
        let finished = message(FINISHED, &client.verify_data());
        let pieces = [
            client.sealed(0, HANDSHAKE, &finished[..3]),
            client.sealed(1, HANDSHAKE, &finished[3..]),
        ];
        assert!(client.say(&pieces[0]).unwrap().is_none());
        let mut session = client.say(&pieces[1]).unwrap().unwrap();
        let data = client.sealed(2, APPLICATION_DATA, b"MSRP");
        assert_eq!(open_all(&mut session, data).unwrap(), b"MSRP");
    }
}

#[test]
fn an_extended_master_secret_that_was_agreed_on_must_be_used() {
    for (agreed, used) in [(true, false), (false, true), (true, true)] {
        let both: &[(u16, &[u8])] = &[EMS];
        let mut client = Client::greet(&profile(PSK), &psk_hello(&both[..agreed.into()])).unwrap();
        client.assume_extended(used);
        let exchange = client.exchange(IDENTITY, &KEY);
        assert!(client.say(&exchange).unwrap().is_none());
        assert!(client.say(&record(CHANGE_CIPHER_SPEC, &[1])).unwrap().is_none());
        let finished = client.finished();
        let result = client.say(&finished);
        if agreed == used {
            assert!(result.unwrap().is_some());
        } else {
            let expected = (HandshakeError::Authentication, fatal(BAD_RECORD_MAC));
            assert_eq!(result.unwrap_err(), expected);
        }
    }
}

#[test]
fn a_wrong_key_and_an_identity_nobody_has_get_the_same_answer() {
    for (identity, key) in [(IDENTITY, [0; 32]), (b"nobody", KEY), (b"", KEY)] {
        let mut client = Client::greet(&profile(PSK), &psk_hello(&[EMS])).unwrap();
        let exchange = client.exchange(identity, &key);
        assert!(client.say(&exchange).unwrap().is_none());
        assert!(client.say(&record(CHANGE_CIPHER_SPEC, &[1])).unwrap().is_none());
        let finished = client.finished();
        let error = client.say(&finished).unwrap_err();
        assert_eq!(error, (HandshakeError::Authentication, fatal(BAD_RECORD_MAC)));
    }
}

#[test]
fn an_alert_of_the_client_ends_the_handshake_without_another() {
    for alert in [[1, 0], [2, 40], [2, 0], [3, 80]] {
        let mut client = Client::greet(&profile(PSK), &psk_hello(&[])).unwrap();
        let error = client.say(&record(ALERT, &alert)).unwrap_err();
        assert_eq!(error, (HandshakeError::AlertReceived(alert[1]), Vec::new()));
        let mut client = keyed(&profile(PSK), &[EMS]);
        let sealed = client.sealed(0, ALERT, &alert);
        let error = client.say(&sealed).unwrap_err();
        assert_eq!(error, (HandshakeError::AlertReceived(alert[1]), Vec::new()));
    }
}
