//! The codecs alone.

use std::hint::black_box;

use mrfp_protocol::msrp::Framer;
use mrfp_protocol::tls::{
    Handshake, Profile, ProfileConfig, Progress, Psk, SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES,
    Session,
};

use crate::phone::{TEXT_BYTES, WINDOW};
use crate::{AES, MESSAGES, counted};

/// Segments of eight SENDs, cut.
pub(crate) fn cut() -> usize {
    let text = "x".repeat(TEXT_BYTES);
    let segment: String = (0..WINDOW)
        .map(|n| {
            let id = format!("5eed0001{n:08x}00000000");
            format!(
                "MSRP {id} SEND\r\nTo-Path: msrp://127.0.0.1:2855/session-0000000000000001;tcp\r\n\
                 From-Path: msrp://192.0.2.1:9/ue-1;tcp\r\nMessage-ID: 5eed0001{n:08x}\r\n\
                 Byte-Range: 1-{TEXT_BYTES}/{TEXT_BYTES}\r\nContent-Type: text/plain\r\n\r\n\
                 {text}\r\n-------{id}$\r\n"
            )
        })
        .collect();
    let mut framer = Framer::default();
    repeat(WINDOW, || counted::cut(&mut framer, black_box(segment.as_bytes())))
}

/// CPIM heads as the load generator writes them.
pub(crate) fn read_heads() -> usize {
    let head = "From: <sip:user1@example.com>\r\nTo: <sip:room@example.com>\r\n\
                DateTime: 2026-01-01T00:00:00Z\r\n\r\n\
                Content-Type: text/plain; charset=utf-8\r\n\r\n";
    let body = [head, &"x".repeat(TEXT_BYTES)].concat();
    repeat(1, || {
        assert_eq!(counted::read_head(black_box(body.as_bytes())), head.len());
        1
    })
}

/// Records of one kibibyte, sealed and opened again.
pub(crate) fn seal_and_open() -> usize {
    const BYTES: usize = 1024;
    let (mut client, mut server) = handshake();
    let mut memory = vec![b'x'; SEAL_HEADROOM_BYTES + BYTES + SEAL_TAILROOM_BYTES];
    let plaintext = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + BYTES;
    repeat(1, || {
        let opened =
            counted::seal_and_open(&mut client, &mut server, &mut memory, plaintext.clone());
        assert_eq!(opened, BYTES);
        1
    })
}

/// Runs until all is done; `each` says how much it has done, the same every time.
fn repeat(at_once: usize, mut each: impl FnMut() -> usize) -> usize {
    for _ in 0..16 {
        assert_eq!(each(), at_once);
    }
    counted::from_here();
    for _ in 0..MESSAGES / at_once {
        assert_eq!(each(), at_once);
    }
    MESSAGES / at_once * at_once
}

/// Between two ends in memory: client, server.
fn handshake() -> (Session, Session) {
    let config = ProfileConfig { suites: vec![AES.to_owned()], tls13: false };
    let profile = Profile::new(&config).expect("a suite OpenSSL has");
    let psk = Psk::new(vec![0x5a; 16]).expect("long enough");
    let mut client = Handshake::client(&profile, b"0a1b2c3d.1", &psk).expect("a client");
    let mut server = Handshake::server(&profile).expect("a server");
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let (mut client_session, mut server_session) = (None, None);
    loop {
        if client_session.is_none() {
            client_session = advance(&mut client, &mut to_client, &mut to_server, &psk);
        }
        if server_session.is_none() {
            server_session = advance(&mut server, &mut to_server, &mut to_client, &psk);
        }
        if let (Some(_), Some(_)) = (&client_session, &server_session) {
            return client_session.zip(server_session).expect("both are there");
        }
    }
}

fn advance(
    end: &mut Handshake,
    input: &mut Vec<u8>,
    output: &mut Vec<u8>,
    psk: &Psk,
) -> Option<Session> {
    loop {
        let (consumed, progress) = end.advance(input, output).expect("both ends agree");
        input.drain(..consumed);
        match progress {
            Progress::NeedInput => return None,
            Progress::NeedPsk => end.provide_psk(Some(psk)),
            Progress::Done(session) => return Some(session),
        }
    }
}
