//! What the TLS tests share: two ends in memory.
#![allow(dead_code, unreachable_pub)]

pub mod authority;
pub mod certificates;

use mrfp_protocol::tls::{
    Handshake, HandshakeError, Opened, Profile, ProfileConfig, Progress, Psk, RecordError,
    SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES, Session,
};

pub const IDENTITY: &[u8] = b"alice@example.com";
pub const KEY: [u8; 32] = [0x5a; 32];

pub const AEAD_SUITES: [&str; 7] = [
    "ECDHE-PSK-CHACHA20-POLY1305",
    "DHE-PSK-AES128-GCM-SHA256",
    "DHE-PSK-AES256-GCM-SHA384",
    "DHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-GCM-SHA256",
    "PSK-AES256-GCM-SHA384",
    "PSK-CHACHA20-POLY1305",
];

pub const CBC_SUITES: [&str; 12] = [
    "ECDHE-PSK-AES128-CBC-SHA256",
    "ECDHE-PSK-AES256-CBC-SHA384",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "DHE-PSK-AES128-CBC-SHA256",
    "DHE-PSK-AES256-CBC-SHA384",
    "DHE-PSK-AES128-CBC-SHA",
    "DHE-PSK-AES256-CBC-SHA",
    "PSK-AES128-CBC-SHA256",
    "PSK-AES256-CBC-SHA384",
    "PSK-AES128-CBC-SHA",
    "PSK-AES256-CBC-SHA",
];

/// Not a suite of TLS 1.2: stands for TLS 1.3 alone.
pub const TLS13: &str = "TLS 1.3";

pub fn all_suites() -> impl Iterator<Item = &'static str> {
    AEAD_SUITES.into_iter().chain(CBC_SUITES).chain([TLS13])
}

pub fn profile(suite: &str) -> Profile {
    let config = if suite == TLS13 {
        ProfileConfig { suites: Vec::new(), tls13: true }
    } else {
        ProfileConfig { suites: vec![suite.to_owned()], tls13: false }
    };
    Profile::new(&config).unwrap()
}

pub fn psk() -> Psk {
    Psk::new(KEY.to_vec()).unwrap()
}

/// One end of a handshake in memory.
pub struct End {
    pub handshake: Handshake,
    /// What this server knows; ignored by a client.
    pub key: Option<Psk>,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    pub session: Option<Session>,
    pub error: Option<HandshakeError>,
    /// One letter per step, so that two courses can be compared.
    pub course: String,
}

impl End {
    pub fn server(profile: &Profile, key: Option<Psk>) -> Self {
        Self::new(Handshake::server(profile).unwrap(), key)
    }

    pub fn client(profile: &Profile) -> Self {
        let handshake = Handshake::client(profile, IDENTITY, &psk()).unwrap();
        Self::new(handshake, None)
    }

    pub fn new(handshake: Handshake, key: Option<Psk>) -> Self {
        Self {
            handshake,
            key,
            input: Vec::new(),
            output: Vec::new(),
            session: None,
            error: None,
            course: String::new(),
        }
    }

    pub fn is_over(&self) -> bool {
        self.session.is_some() || self.error.is_some()
    }

    /// Takes what lies in `input` as far as possible.
    pub fn work(&mut self) {
        while !self.is_over() {
            match self.handshake.advance(&self.input, &mut self.output) {
                Ok((consumed, progress)) => {
                    self.input.drain(..consumed);
                    match progress {
                        Progress::NeedInput => {
                            self.course.push('i');
                            return;
                        }
                        Progress::NeedPsk => {
                            self.course.push('k');
                            assert_eq!(self.handshake.identity(), IDENTITY);
                            self.handshake.provide_psk(self.key.as_ref());
                        }
                        Progress::Done(session) => {
                            self.course.push('d');
                            self.session = Some(session);
                        }
                    }
                }
                Err(error) => {
                    self.course.push('e');
                    self.error = Some(error);
                }
            }
        }
    }
}

/// Runs two ends against each other until neither moves.
pub fn run(client: &mut End, server: &mut End) {
    client.work();
    for _ in 0..20 {
        server.input.append(&mut client.output);
        server.work();
        client.input.append(&mut server.output);
        client.work();
    }
}

/// Two established sessions: client, server.
pub fn establish(client_profile: &Profile, server_profile: &Profile) -> (Session, Session) {
    let mut client = End::client(client_profile);
    let mut server = End::server(server_profile, Some(psk()));
    run(&mut client, &mut server);
    assert_eq!(client.error, None);
    assert_eq!(server.error, None);
    assert!(client.input.is_empty());
    assert!(server.input.is_empty());
    (client.session.unwrap(), server.session.unwrap())
}

pub fn seal(session: &mut Session, plaintext: &[u8]) -> Result<Vec<u8>, RecordError> {
    let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + plaintext.len();
    let mut memory = vec![0xee; range.end + SEAL_TAILROOM_BYTES];
    memory[range.clone()].copy_from_slice(plaintext);
    let record = session.seal(&mut memory, range)?;
    Ok(memory[record].to_vec())
}

/// Opens records until the input is used up; the data and what else was seen.
pub fn open_all(session: &mut Session, mut input: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    let mut data = Vec::new();
    while !input.is_empty() {
        let consumed = match session.open(&mut input)? {
            Opened::NeedInput => panic!("part of a record was left"),
            Opened::Data { plaintext, consumed } => {
                data.extend_from_slice(&input[plaintext]);
                consumed
            }
            Opened::Handled { consumed } | Opened::CloseNotify { consumed } => consumed,
        };
        input.drain(..consumed);
    }
    Ok(data)
}

pub fn transfer(from: &mut Session, to: &mut Session, plaintext: &[u8]) {
    let record = seal(from, plaintext).unwrap();
    assert_eq!(open_all(to, record).unwrap(), plaintext);
}
