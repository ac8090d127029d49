//! TLS: the handshake as server, and the records of a session.

use std::sync::OnceLock;

use mrfp_protocol::tls::{
    Handshake, Opened, Profile, ProfileConfig, Progress, Psk, SEAL_HEADROOM_BYTES,
    SEAL_TAILROOM_BYTES, Session,
};

const IDENTITY: &[u8] = b"55667788.1";

fn psk() -> Psk {
    Psk::new(vec![7; 16]).expect("long enough")
}

fn profile() -> &'static Profile {
    static PROFILE: OnceLock<Profile> = OnceLock::new();
    PROFILE.get_or_init(|| {
        let suites = vec!["PSK-AES128-GCM-SHA256".to_owned()];
        Profile::new(&ProfileConfig { suites, tls13: true }).expect("a profile")
    })
}

/// A stranger's bytes, in two pieces; the first byte says where they are cut. They are answered until
/// they fail, and never taken for a session.
pub(crate) fn handshake(bytes: &[u8]) -> bool {
    let Some((&cut, bytes)) = bytes.split_first() else { return false };
    let mut server = Handshake::server(profile()).expect("a server");
    let mut output = Vec::new();
    let cut = usize::from(cut).min(bytes.len());
    let mut at = 0;
    for end in [cut, bytes.len()] {
        loop {
            match server.advance(&bytes[at..end], &mut output) {
                Ok((consumed, progress)) => {
                    assert!(consumed <= end - at);
                    at += consumed;
                    match progress {
                        Progress::NeedInput => break,
                        Progress::NeedPsk => server.provide_psk(Some(&psk())),
                        Progress::Done(_) => panic!("nobody can know the server's random"),
                    }
                }
                Err(_) => return false,
            }
        }
    }
    !output.is_empty()
}

/// The ClientHello of our own client.
pub(crate) fn client_hello() -> Vec<u8> {
    let mut client = Handshake::client(profile(), IDENTITY, &psk()).expect("a client");
    let mut hello = Vec::new();
    client.advance(&[], &mut hello).expect("it begins");
    hello
}

/// Two ends of a session.
fn sessions() -> (Session, Session) {
    let mut client = Handshake::client(profile(), IDENTITY, &psk()).expect("a client");
    let mut server = Handshake::server(profile()).expect("a server");
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let (mut client_session, mut server_session) = (None, None);
    while client_session.is_none() || server_session.is_none() {
        if client_session.is_none() {
            let (consumed, progress) = client.advance(&to_client, &mut to_server).expect("goes on");
            to_client.drain(..consumed);
            if let Progress::Done(session) = progress {
                client_session = Some(session);
            }
        }
        if server_session.is_none() {
            let (consumed, progress) = server.advance(&to_server, &mut to_client).expect("goes on");
            to_server.drain(..consumed);
            match progress {
                Progress::NeedInput => {}
                Progress::NeedPsk => server.provide_psk(Some(&psk())),
                Progress::Done(session) => server_session = Some(session),
            }
        }
    }
    (client_session.expect("done"), server_session.expect("done"))
}

/// Steps of a session: each is a byte, and what it says of what follows. Genuine records arrive whole;
/// the others end the session, or are none of its business.
pub(crate) fn record(bytes: &[u8]) -> bool {
    let mut is_data = false;
    let (mut client, mut server) = sessions();
    let mut rest = bytes;
    while let [step, length, behind @ ..] = rest {
        let (piece, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let genuine = step & 1 == 0;
        let mut input = if genuine { sealed(&mut client, piece) } else { piece.to_vec() };
        match step >> 1 & 3 {
            0 if genuine && !input.is_empty() => {
                let at = usize::from(step >> 3) % input.len();
                input[at] ^= 1;
            }
            1 => server.rest(),
            _ => {}
        }
        while !input.is_empty() {
            match server.open(&mut input) {
                Ok(Opened::NeedInput) => break,
                Ok(Opened::Data { plaintext, consumed }) => {
                    assert!(genuine, "a record that nobody sealed");
                    assert_eq!(&input[plaintext], piece);
                    is_data = true;
                    input.drain(..consumed);
                }
                Ok(Opened::Handled { consumed } | Opened::CloseNotify { consumed }) => {
                    assert!(consumed > 0);
                    input.drain(..consumed);
                }
                Err(error) => {
                    let _ = server.fatal_alert(error);
                    return is_data;
                }
            }
        }
        let _ = server.pending_output();
    }
    is_data
}

fn sealed(session: &mut Session, plaintext: &[u8]) -> Vec<u8> {
    let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + plaintext.len();
    let mut memory = vec![0; range.end + SEAL_TAILROOM_BYTES];
    memory[range.clone()].copy_from_slice(plaintext);
    let record = session.seal(&mut memory, range).expect("a fresh session");
    memory[record].to_vec()
}
