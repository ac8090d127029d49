//! Our own handshake as server, against clients that do what libraries do not: a client in memory is
//! OpenSSL, and what it says is cut, joined and changed on its way.

mod tls_common;

use mrfp_protocol::tls::{Handshake, HandshakeError, Profile, ProfileConfig, Progress, Session};
use tls_common::{End, IDENTITY, profile, psk, run, transfer};

const SUITES: [&str; 4] = [
    "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-GCM-SHA256",
    "PSK-AES256-GCM-SHA384",
    "PSK-CHACHA20-POLY1305",
];

/// A client's first and second flight, with the server that has answered the first.
struct Course {
    hello: Vec<u8>,
    second: Vec<u8>,
    client: End,
    server: Handshake,
}

impl Course {
    fn new(suite: &str) -> Self {
        let profile = profile(suite);
        let mut client = End::client(&profile);
        client.work();
        let hello = std::mem::take(&mut client.output);
        let mut server = Handshake::server(&profile).unwrap();
        let (taken, progress) = server.advance(&hello, &mut client.input).unwrap();
        assert_eq!(taken, hello.len());
        assert!(matches!(progress, Progress::NeedInput));
        assert_eq!(format!("{server:?}"), "Handshake(PSK, TLS 1.2)", "it is ours that is tested");
        client.work();
        let second = std::mem::take(&mut client.output);
        Self { hello, second, client, server }
    }
}

/// Feeds bytes as they come, answering for the key.
fn feed(
    server: &mut Handshake,
    mut input: &[u8],
    output: &mut Vec<u8>,
) -> Result<(usize, Option<Session>), HandshakeError> {
    let whole = input.len();
    loop {
        let (taken, progress) = server.advance(input, output)?;
        input = &input[taken..];
        match progress {
            Progress::NeedInput => return Ok((whole - input.len(), None)),
            Progress::NeedPsk => {
                let key = psk();
                let known = server.identity() == IDENTITY;
                server.provide_psk(known.then_some(&key));
            }
            Progress::Done(session) => return Ok((whole - input.len(), Some(session))),
        }
    }
}

/// The records of a flight: type and payload.
fn records(mut flight: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut records = Vec::new();
    while let &[kind, _, _, high, low, ref rest @ ..] = flight {
        let (payload, rest) = rest.split_at(usize::from(u16::from_be_bytes([high, low])));
        records.push((kind, payload.to_vec()));
        flight = rest;
    }
    records
}

fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    [&[kind, 3, 3, high, low], payload].concat()
}

#[test]
fn any_prefix_of_what_a_client_says_is_waited_on() {
    for suite in SUITES {
        let course = Course::new(suite);
        for length in 0..course.hello.len() {
            let mut server = Handshake::server(&profile(suite)).unwrap();
            let mut output = Vec::new();
            let (taken, session) = feed(&mut server, &course.hello[..length], &mut output).unwrap();
            assert_eq!((taken, session.is_none(), output.len()), (0, true, 0), "{suite} {length}");
        }
        for length in 0..course.second.len() {
            let mut course = Course::new(suite);
            let mut output = Vec::new();
            let (taken, session) =
                feed(&mut course.server, &course.second[..length], &mut output).unwrap();
            assert!(session.is_none() && output.is_empty(), "{suite} {length}");
            let rest = &course.second[taken..];
            let (_, session) = feed(&mut course.server, rest, &mut output).unwrap();
            assert!(session.is_some(), "{suite} {length}");
        }
    }
}

#[test]
fn messages_in_pieces_of_any_size_are_understood() {
    for suite in SUITES {
        for size in [1, 2, 3, 5, 20] {
            let mut course = Course::new(suite);
            let mut cut = Vec::new();
            for (index, (kind, payload)) in records(&course.second).into_iter().enumerate() {
                if index == 0 {
                    payload.chunks(size).for_each(|piece| cut.extend(record(kind, piece)));
                } else {
                    cut.extend(record(kind, &payload));
                }
            }
            let (_, session) = feed(&mut course.server, &cut, &mut course.client.input).unwrap();
            course.client.work();
            let mut ours = session.unwrap();
            let mut theirs = course.client.session.unwrap();
            transfer(&mut ours, &mut theirs, b"down");
            transfer(&mut theirs, &mut ours, b"up");
        }
    }
}

#[test]
fn a_changed_byte_never_completes_a_handshake_and_never_panics() {
    for suite in SUITES {
        let length = Course::new(suite).second.len();
        for at in 0..length {
            for change in [0x01, 0x80, 0xff] {
                let mut course = Course::new(suite);
                course.second[at] ^= change;
                let mut output = Vec::new();
                let result = feed(&mut course.server, &course.second, &mut output);
                assert!(!matches!(result, Ok((_, Some(_)))), "{suite}: byte {at} ^ {change}");
            }
        }
    }
}

#[test]
fn a_changed_hello_never_panics_and_never_completes() {
    let suite = SUITES[0];
    let hello = Course::new(suite).hello;
    // The minor version of the first record says nothing, and nothing is made of it.
    for at in (0..hello.len()).filter(|&at| at != 2) {
        for change in [0x01, 0xff] {
            let profile = profile(suite);
            let mut client = End::client(&profile);
            client.work();
            client.output[at] ^= change;
            let mut server = End::server(&profile, Some(psk()));
            run(&mut client, &mut server);
            assert!(server.session.is_none(), "byte {at} ^ {change}");
        }
    }
}

#[test]
fn messages_out_of_their_order_are_refused() {
    let parts = records(&Course::new(SUITES[1]).second);
    assert_eq!(parts.len(), 3);
    for order in [[1, 0, 2], [0, 2, 1], [0, 0, 1], [1, 1, 1]] {
        let mut course = Course::new(SUITES[1]);
        let parts = records(&course.second);
        let flight: Vec<u8> =
            order.iter().flat_map(|&at| record(parts[at].0, &parts[at].1)).collect();
        let mut output = Vec::new();
        let error = feed(&mut course.server, &flight, &mut output).unwrap_err();
        assert_eq!(error, HandshakeError::Malformed, "{order:?}");
        // A fatal alert: unexpected_message.
        assert_eq!(output, [21, 3, 3, 0, 2, 2, 10], "{order:?}");
    }
}

#[test]
fn a_key_exchange_longer_than_any_is_refused_before_it_has_come() {
    let mut course = Course::new(SUITES[1]);
    let mut output = Vec::new();
    let error = feed(&mut course.server, &record(22, &[16, 0, 2, 0]), &mut output).unwrap_err();
    assert_eq!(error, HandshakeError::Malformed);
    assert_eq!(output, [21, 3, 3, 0, 2, 2, 50]);
}

#[test]
fn other_suites_and_versions_are_left_to_openssl() {
    let mixed = |suites: &[&str], tls13| {
        let suites = suites.iter().map(|&suite| suite.to_owned()).collect();
        Profile::new(&ProfileConfig { suites, tls13 }).unwrap()
    };
    let ours = "Handshake(PSK, TLS 1.2)";
    let openssl = "Handshake(PSK)";
    let cases = [
        (mixed(&["DHE-PSK-AES128-GCM-SHA256", SUITES[1]], false), openssl),
        (mixed(&[SUITES[1], "DHE-PSK-AES128-GCM-SHA256"], false), ours),
        (mixed(&["PSK-AES128-CBC-SHA"], false), openssl),
        (mixed(&[SUITES[1]], true), openssl),
    ];
    for (profile, engine) in cases {
        let mut client = End::client(&profile);
        client.work();
        let mut server = Handshake::server(&profile).unwrap();
        server.advance(&client.output, &mut Vec::new()).unwrap();
        assert_eq!(format!("{server:?}"), engine);
    }
}

#[test]
fn a_client_of_tls12_is_told_of_a_server_that_has_tls13() {
    let suites = vec![SUITES[1].to_owned()];
    let both = Profile::new(&ProfileConfig { suites, tls13: true }).unwrap();
    let mut client = End::client(&profile(SUITES[1]));
    client.work();
    let mut server = Handshake::server(&both).unwrap();
    let mut output = Vec::new();
    server.advance(&client.output, &mut output).unwrap();
    // Record header, message header, version, then the random.
    assert_eq!(&output[5 + 4 + 2 + 24..][..8], b"DOWNGRD\x01");
}
