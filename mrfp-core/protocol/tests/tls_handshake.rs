//! How handshakes succeed and fail, in memory.

mod tls_common;

use mrfp_protocol::tls::{
    Handshake, HandshakeError, IDENTITY_BYTES_MAX, Profile, ProfileConfig, Progress, Psk,
};
use proptest::prelude::*;
use tls_common::{End, IDENTITY, TLS13, all_suites, open_all, profile, psk, run, seal};

const TLS12: &str = "PSK-AES128-GCM-SHA256";

fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        let (record, rest) = bytes.split_at(length);
        records.push(record.to_vec());
        bytes = rest;
    }
    records
}

/// Everything a server did with a client of the right key: course, error, bytes of each flight.
fn course_with(suite: &str, key: Option<Psk>) -> (String, Option<HandshakeError>, Vec<Vec<u8>>) {
    let profile = profile(suite);
    let mut client = End::client(&profile);
    let mut server = End::server(&profile, key);
    let mut flights = Vec::new();
    client.work();
    for _ in 0..5 {
        server.input.append(&mut client.output);
        server.work();
        flights.push(server.output.clone());
        client.input.append(&mut server.output);
        client.work();
    }
    assert!(client.session.is_none());
    assert!(client.error.is_some());
    (server.course, server.error, flights)
}

#[test]
fn an_unknown_identity_looks_exactly_like_a_wrong_key() {
    for suite in all_suites() {
        let wrong = Psk::new(vec![0x33; 32]).unwrap();
        let (wrong_course, wrong_error, wrong_flights) = course_with(suite, Some(wrong));
        let (course, error, flights) = course_with(suite, None);
        assert_eq!(wrong_error, Some(HandshakeError::Authentication), "{suite}");
        assert_eq!(error, wrong_error, "{suite}");
        assert_eq!(course, wrong_course, "{suite}");
        assert_eq!(flights.len(), wrong_flights.len());
        for (flight, wrong_flight) in flights.iter().zip(&wrong_flights) {
            let shape = |bytes: &[u8]| -> Vec<(u8, usize)> {
                records(bytes).iter().map(|record| (record[0], record.len())).collect()
            };
            assert_eq!(shape(flight), shape(wrong_flight), "{suite}");
            let alerts = |bytes: &[u8]| -> Vec<Vec<u8>> {
                records(bytes).into_iter().filter(|record| record[0] == 21).collect()
            };
            assert_eq!(alerts(flight), alerts(wrong_flight), "{suite}");
        }
        let alert = flights.iter().flat_map(|flight| records(flight)).next_back().unwrap();
        assert_eq!(alert[0], 21, "{suite}: the last thing sent is an alert");
    }
}

#[test]
fn the_client_hears_of_a_wrong_key_by_an_alert() {
    // bad_record_mac; decrypt_error, for which older OpenSSL sends illegal_parameter.
    for (suite, alerts) in [(TLS12, [20, 20]), (TLS13, [51, 47])] {
        let profile = profile(suite);
        let mut client = End::client(&profile);
        let mut server = End::server(&profile, None);
        run(&mut client, &mut server);
        let Some(HandshakeError::AlertReceived(alert)) = client.error else {
            panic!("{suite}: {:?}", client.error);
        };
        assert!(alerts.contains(&alert), "{suite}: {alert}");
    }
}

#[test]
fn works_when_every_byte_arrives_alone() {
    for suite in all_suites() {
        let profile = profile(suite);
        let mut client = End::client(&profile);
        let mut server = End::server(&profile, Some(psk()));
        client.work();
        for _ in 0..5 {
            for byte in std::mem::take(&mut client.output) {
                server.input.push(byte);
                server.work();
            }
            for byte in std::mem::take(&mut server.output) {
                client.input.push(byte);
                client.work();
            }
        }
        assert_eq!((client.error, server.error), (None, None), "{suite}");
        let record = seal(&mut client.session.unwrap(), b"data").unwrap();
        assert_eq!(open_all(&mut server.session.unwrap(), record).unwrap(), b"data");
    }
}

#[test]
fn data_right_behind_the_handshake_are_left_in_the_input() {
    for suite in all_suites() {
        let profile = profile(suite);
        let mut client = End::client(&profile);
        let mut server = End::server(&profile, Some(psk()));
        // Run until one end is done, and let it send at once.
        client.work();
        loop {
            server.input.append(&mut client.output);
            if let Some(session) = &mut client.session {
                server.input.extend(seal(session, b"early bird").unwrap());
                server.work();
                let session = server.session.as_mut().unwrap();
                let left = std::mem::take(&mut server.input);
                assert_eq!(open_all(session, left).unwrap(), b"early bird", "{suite}");
                break;
            }
            server.work();
            client.input.append(&mut server.output);
            if let Some(session) = &mut server.session {
                client.input.extend(seal(session, b"early bird").unwrap());
                client.work();
                let session = client.session.as_mut().unwrap();
                let left = std::mem::take(&mut client.input);
                assert_eq!(open_all(session, left).unwrap(), b"early bird", "{suite}");
                break;
            }
            client.work();
        }
    }
}

/// Cuts every plaintext handshake record of a flight into records of `size` payload bytes; the
/// encrypted Finished stays whole.
fn refragment(flight: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encrypted = false;
    for record in records(flight) {
        if record[0] != 22 || encrypted {
            encrypted |= record[0] == 20;
            out.extend(record);
            continue;
        }
        for part in record[5..].chunks(size) {
            out.extend(&record[..3]);
            out.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            out.extend(part);
        }
    }
    out
}

#[test]
fn the_identity_is_found_in_messages_cut_over_many_records() {
    for suite in [TLS12, "ECDHE-PSK-CHACHA20-POLY1305", TLS13] {
        for size in [16, 21, 50] {
            let profile = profile(suite);
            let mut client = End::client(&profile);
            let mut server = End::server(&profile, Some(psk()));
            client.work();
            for _ in 0..5 {
                server.input = refragment(&std::mem::take(&mut client.output), size);
                server.work();
                client.input.append(&mut server.output);
                client.work();
            }
            assert_eq!((client.error, server.error), (None, None), "{suite}");
            assert!(server.session.is_some(), "{suite}");
        }
    }
}

#[test]
fn an_answer_is_asked_for_once_and_before_the_record_is_taken() {
    let profile = profile(TLS12);
    let mut client = End::client(&profile);
    let mut server = Handshake::server(&profile).unwrap();
    client.work();
    let hello = std::mem::take(&mut client.output);
    let mut output = Vec::new();
    let (consumed, progress) = server.advance(&hello, &mut output).unwrap();
    assert_eq!(consumed, hello.len());
    assert!(matches!(progress, Progress::NeedInput));
    assert!(server.identity().is_empty());
    client.input = std::mem::take(&mut output);
    client.work();
    let flight = std::mem::take(&mut client.output);
    for _ in 0..2 {
        // Asked again without an answer, it says the same and takes nothing.
        let (consumed, progress) = server.advance(&flight, &mut output).unwrap();
        assert_eq!(consumed, 0);
        assert!(matches!(progress, Progress::NeedPsk));
        assert_eq!(server.identity(), IDENTITY);
    }
    server.provide_psk(Some(&psk()));
    let (consumed, progress) = server.advance(&flight, &mut output).unwrap();
    assert_eq!(consumed, flight.len());
    assert!(matches!(progress, Progress::Done(_)));
}

#[test]
fn the_server_prefers_its_own_order() {
    let config = |suites: [&str; 2]| ProfileConfig {
        suites: suites.map(str::to_owned).to_vec(),
        tls13: false,
    };
    let (first, second) = (TLS12, "PSK-CHACHA20-POLY1305");
    let client_profile = Profile::new(&config([first, second])).unwrap();
    let server_profile = Profile::new(&config([second, first])).unwrap();
    let (client, _) = tls_common::establish(&client_profile, &server_profile);
    assert_eq!(client.suite(), second);
}

#[test]
fn the_default_is_aead_with_forward_secrecy_first() {
    let profile = Profile::new(&ProfileConfig::default()).unwrap();
    let (client, server) = tls_common::establish(&profile, &profile);
    assert_eq!(client.suite(), "ECDHE-PSK-CHACHA20-POLY1305");
    assert_eq!(server.suite(), "ECDHE-PSK-CHACHA20-POLY1305");
}

#[test]
fn both_versions_together_agree_on_the_highest() {
    let both = Profile::new(&ProfileConfig { tls13: true, ..ProfileConfig::default() }).unwrap();
    let (client, _) = tls_common::establish(&both, &both);
    assert_eq!(client.suite(), "TLS_AES_128_GCM_SHA256");
    let (client, _) = tls_common::establish(&profile(TLS12), &both);
    assert_eq!(client.suite(), TLS12);
    let (client, _) = tls_common::establish(&both, &profile(TLS12));
    assert_eq!(client.suite(), TLS12);
}

#[test]
fn nothing_in_common_is_said_so() {
    for (client_suite, server_suite) in
        [(TLS12, "PSK-CHACHA20-POLY1305"), (TLS12, TLS13), (TLS13, TLS12)]
    {
        let mut client = End::client(&profile(client_suite));
        let mut server = End::server(&profile(server_suite), Some(psk()));
        run(&mut client, &mut server);
        assert_eq!(server.error, Some(HandshakeError::NoCommonParameters));
        assert!(matches!(client.error, Some(HandshakeError::AlertReceived(40 | 70))));
    }
}

#[test]
fn names_unknown_suites_and_the_valid_ones() {
    let config = ProfileConfig {
        suites: vec![TLS12.to_owned(), "PSK-ROT13".to_owned(), "NULL".to_owned()],
        tls13: false,
    };
    let message = Profile::new(&config).unwrap_err().to_string();
    assert!(message.contains("PSK-ROT13, NULL; valid are"), "{message}");
    assert!(message.contains("ECDHE-PSK-CHACHA20-POLY1305"), "{message}");
}

#[test]
fn refuses_a_profile_that_speaks_nothing() {
    let config = ProfileConfig { suites: Vec::new(), tls13: false };
    assert!(Profile::new(&config).is_err());
}

#[test]
fn secure_renegotiation_is_indicated_and_answered() {
    let profile = profile(TLS12);
    let mut client = End::client(&profile);
    let mut server = End::server(&profile, Some(psk()));
    client.work();
    let scsv = client.output.windows(2).any(|pair| pair == [0x00, 0xff]);
    let empty_extension = [0xff, 0x01, 0x00, 0x01, 0x00];
    let extension = client.output.windows(5).any(|five| five == empty_extension);
    assert!(scsv || extension, "RFC 5746 section 3.4");
    server.input.append(&mut client.output);
    server.work();
    let answered = server.output.windows(5).any(|five| five == empty_extension);
    assert!(answered, "RFC 5746 section 3.6");
}

#[test]
fn no_ticket_and_no_session_is_offered_or_given() {
    let profile = profile(TLS12);
    let mut client = End::client(&profile);
    let mut server = End::server(&profile, Some(psk()));
    client.work();
    let hello = &client.output;
    let session_id_bytes = hello[5 + 4 + 2 + 32];
    assert_eq!(session_id_bytes, 0);
    let ticket_extension = [0x00, 0x23, 0x00, 0x00];
    assert!(!hello.windows(4).any(|four| four == ticket_extension));
    server.input.append(&mut client.output);
    server.work();
    assert_eq!(server.output[5 + 4 + 2 + 32], 0);
}

#[test]
fn the_longest_identity_and_key_work() {
    for suite in [TLS12, TLS13] {
        let profile = profile(suite);
        let identity = vec![b'i'; IDENTITY_BYTES_MAX];
        let key = Psk::new(vec![7; 64]).unwrap();
        let handshake = Handshake::client(&profile, &identity, &key).unwrap();
        let mut client = End::new(handshake, None);
        let mut server = Handshake::server(&profile).unwrap();
        let mut done = false;
        client.work();
        let mut input = Vec::new();
        while !done {
            input.append(&mut client.output);
            let (consumed, progress) = server.advance(&input, &mut client.input).unwrap();
            input.drain(..consumed);
            match progress {
                Progress::NeedInput => client.work(),
                Progress::NeedPsk => {
                    assert_eq!(server.identity(), identity);
                    server.provide_psk(Some(&key));
                }
                Progress::Done(_) => done = true,
            }
        }
        client.work();
        assert!(client.session.is_some());
    }
}

#[test]
fn an_identity_openssl_cannot_carry_is_refused_at_once() {
    let profile = profile(TLS12);
    for identity in [vec![b'i'; IDENTITY_BYTES_MAX + 1], b"nul\0inside".to_vec()] {
        let result = Handshake::client(&profile, &identity, &psk());
        assert_eq!(result.err(), Some(HandshakeError::Other));
    }
}

#[test]
fn a_nul_in_the_identity_does_not_pass_for_its_first_half() {
    let profile = profile(TLS12);
    let mut client = End::client(&profile);
    let mut server = Handshake::server(&profile).unwrap();
    let mut output = Vec::new();
    client.work();
    server.advance(&client.output, &mut output).unwrap();
    client.output.clear();
    client.input = output.clone();
    client.work();
    let mut flight = std::mem::take(&mut client.output);
    // The at sign of the identity becomes a NUL, at which OpenSSL's string ends.
    let at = flight.iter().position(|&byte| byte == b'@').unwrap();
    flight[at] = 0;
    let (_, progress) = server.advance(&flight, &mut output).unwrap();
    assert!(matches!(progress, Progress::NeedPsk));
    assert_eq!(server.identity(), b"alice\0example.com");
    server.provide_psk(Some(&psk()));
    let result = server.advance(&flight, &mut output);
    assert_eq!(result.err(), Some(HandshakeError::Authentication));
}

#[test]
fn bytes_that_are_no_tls_are_refused_at_once() {
    for bytes in [&b"MSRP d93kswow SEND\r\n"[..], b"\x20", b"GET / HTTP/1.1\r\n"] {
        let mut server = Handshake::server(&profile(TLS12)).unwrap();
        let result = server.advance(bytes, &mut Vec::new());
        assert_eq!(result.err(), Some(HandshakeError::Malformed));
    }
    let mut server = Handshake::server(&profile(TLS12)).unwrap();
    let result = server.advance(&[22, 3, 1, 0xff, 0xff], &mut Vec::new());
    assert_eq!(result.err(), Some(HandshakeError::Malformed));
}

#[test]
fn keys_have_16_to_64_bytes_and_are_not_printed() {
    assert!(Psk::new(vec![1; 15]).is_none());
    assert!(Psk::new(vec![1; 65]).is_none());
    assert_eq!(format!("{:?}", psk()), "Psk(redacted)");
}

/// Drives a server over whatever the input holds.
fn drive(server: &mut Handshake, input: &[u8]) {
    let mut output = Vec::new();
    let mut at = 0;
    loop {
        match server.advance(&input[at..], &mut output) {
            Ok((consumed, Progress::NeedPsk)) => {
                at += consumed;
                server.provide_psk(None);
            }
            Ok((consumed, Progress::NeedInput)) => {
                assert!(at + consumed <= input.len());
                return;
            }
            Ok((_, Progress::Done(_))) => panic!("nobody knew a key"),
            Err(_) => return,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_never_panics_a_handshake(
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        content_type in 18u8..26,
        suite in prop::sample::select(vec![TLS12, TLS13]),
    ) {
        let mut input = vec![content_type, 3, 1];
        input.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        input.extend(&payload);
        drive(&mut Handshake::server(&profile(suite)).unwrap(), &input);
    }

    #[test]
    fn a_changed_client_flight_never_panics_a_handshake(
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        suite in prop::sample::select(vec![TLS12, "ECDHE-PSK-AES128-CBC-SHA256", TLS13]),
    ) {
        let profile = profile(suite);
        let mut client = End::client(&profile);
        client.work();
        let at_index = at.index(client.output.len());
        client.output[at_index] = value;
        drive(&mut Handshake::server(&profile).unwrap(), &client.output);
    }
}
