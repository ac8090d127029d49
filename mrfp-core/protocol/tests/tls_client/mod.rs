//! A client of TLS 1.2 with a pre-shared key that says whatever a test wants it to.
#![allow(dead_code, unreachable_pub)]

use aws_lc_rs::{aead, digest, hmac};
use mrfp_protocol::tls::{Handshake, HandshakeError, Profile, Progress, Psk, Session};

use super::tls_common::{IDENTITY, KEY, psk};

pub const ALERT: u8 = 21;
pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const HANDSHAKE: u8 = 22;
pub const APPLICATION_DATA: u8 = 23;
pub const CLIENT_HELLO: u8 = 1;
pub const CLIENT_KEY_EXCHANGE: u8 = 16;
pub const FINISHED: u8 = 20;

pub const PSK_AES_128_GCM: u16 = 0x00a8;
pub const EMS: (u16, &[u8]) = (23, &[]);

/// The fields of a ClientHello.
#[derive(Clone)]
pub struct Hello {
    pub version: u16,
    pub session_id: Vec<u8>,
    pub suites: Vec<u8>,
    pub compressions: Vec<u8>,
    pub extensions: Vec<(u16, Vec<u8>)>,
    /// Behind all that.
    pub trailer: Vec<u8>,
}

impl Hello {
    pub fn new(suites: &[u16], extensions: &[(u16, &[u8])]) -> Self {
        let extensions = extensions.iter().map(|&(number, body)| (number, body.to_vec()));
        Self {
            version: 0x0303,
            session_id: Vec::new(),
            suites: suites.iter().flat_map(|suite| suite.to_be_bytes()).collect(),
            compressions: vec![0],
            extensions: extensions.collect(),
            trailer: Vec::new(),
        }
    }

    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend(CLIENT_RANDOM);
        body.push(self.session_id.len() as u8);
        body.extend(&self.session_id);
        body.extend((self.suites.len() as u16).to_be_bytes());
        body.extend(&self.suites);
        body.push(self.compressions.len() as u8);
        body.extend(&self.compressions);
        if !self.extensions.is_empty() {
            let mut list = Vec::new();
            for (number, extension) in &self.extensions {
                list.extend(number.to_be_bytes());
                list.extend((extension.len() as u16).to_be_bytes());
                list.extend(extension);
            }
            body.extend((list.len() as u16).to_be_bytes());
            body.extend(list);
        }
        body.extend(&self.trailer);
        message(CLIENT_HELLO, &body)
    }
}

/// A client whose ClientHello has been answered.
pub struct Client {
    pub server: Handshake,
    /// The server's first flight, a record in the clear.
    pub flight: Vec<u8>,
    transcript: Vec<u8>,
    extended: bool,
    keys: Option<Keys>,
}

struct Keys {
    write: aead::LessSafeKey,
    salt: [u8; 4],
    verify_data: [u8; 12],
}

impl Client {
    /// Says hello; `None` where it is not our own engine that answers.
    pub fn greet(profile: &Profile, hello: &Hello) -> Option<Self> {
        let mut server = Handshake::server(profile).unwrap();
        let mut flight = Vec::new();
        let message = hello.message();
        server.advance(&record(HANDSHAKE, &message), &mut flight).ok()?;
        if format!("{server:?}") != "Handshake(PSK, TLS 1.2)" {
            return None;
        }
        let transcript = [&message, &flight[5..]].concat();
        let extended = hello.extensions.iter().any(|&(number, _)| number == EMS.0);
        Some(Self { server, flight, transcript, extended, keys: None })
    }

    /// The messages of the flight: type and body.
    pub fn messages(&self) -> Vec<(u8, Vec<u8>)> {
        let mut rest = &self.flight[5..];
        let mut messages = Vec::new();
        while let &[kind, 0, high, low, ref body @ ..] = rest {
            let (body, behind) = body.split_at(usize::from(u16::from_be_bytes([high, low])));
            messages.push((kind, body.to_vec()));
            rest = behind;
        }
        messages
    }

    /// Feeds the server, which knows one identity; an error comes with the alert that was sent.
    pub fn say(&mut self, bytes: &[u8]) -> Result<Option<Session>, (HandshakeError, Vec<u8>)> {
        let mut input = bytes;
        let mut output = Vec::new();
        loop {
            let (taken, progress) = match self.server.advance(input, &mut output) {
                Ok(advanced) => advanced,
                Err(error) => return Err((error, output)),
            };
            input = &input[taken..];
            match progress {
                Progress::NeedInput => return Ok(None),
                Progress::Done(session) => return Ok(Some(session)),
                Progress::NeedPsk => {
                    let known = self.server.identity() == IDENTITY;
                    let key: Option<Psk> = known.then(psk);
                    self.server.provide_psk(key.as_ref());
                }
            }
        }
    }

    /// The key exchange under that identity, with that key agreed on.
    pub fn exchange(&mut self, identity: &[u8], key: &[u8]) -> Vec<u8> {
        let body = [&(identity.len() as u16).to_be_bytes(), identity].concat();
        let message = message(CLIENT_KEY_EXCHANGE, &body);
        self.transcript.extend(&message);
        self.derive(key);
        record(HANDSHAKE, &message)
    }

    fn derive(&mut self, key: &[u8]) {
        let server_random: [u8; 32] = self.flight[5 + 4 + 2..][..32].try_into().unwrap();
        let length = (key.len() as u16).to_be_bytes();
        let premaster = [&length, &*vec![0; key.len()], &length, key].concat();
        let hash = digest::digest(&digest::SHA256, &self.transcript);
        let mut master = [0; 48];
        if self.extended {
            prf(&premaster, b"extended master secret", hash.as_ref(), &mut master);
        } else {
            let seed = [CLIENT_RANDOM, server_random].concat();
            prf(&premaster, b"master secret", &seed, &mut master);
        }
        let mut block = [0; 40];
        prf(&master, b"key expansion", &[server_random, CLIENT_RANDOM].concat(), &mut block);
        let mut verify_data = [0; 12];
        prf(&master, b"client finished", hash.as_ref(), &mut verify_data);
        let write = aead::UnboundKey::new(&aead::AES_128_GCM, &block[..16]).unwrap();
        self.keys = Some(Keys {
            write: aead::LessSafeKey::new(write),
            salt: block[32..36].try_into().unwrap(),
            verify_data,
        });
    }

    /// Derives the keys so, whatever was agreed on.
    pub fn assume_extended(&mut self, extended: bool) {
        self.extended = extended;
    }

    /// What the Finished has to say.
    pub fn verify_data(&self) -> [u8; 12] {
        self.keys.as_ref().unwrap().verify_data
    }

    /// The Finished as it ought to be.
    pub fn finished(&self) -> Vec<u8> {
        self.sealed(0, HANDSHAKE, &message(FINISHED, &self.verify_data()))
    }

    /// A protected record.
    pub fn sealed(&self, sequence: u64, kind: u8, plaintext: &[u8]) -> Vec<u8> {
        let keys = self.keys.as_ref().unwrap();
        let explicit = sequence.to_be_bytes();
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&keys.salt);
        nonce[4..].copy_from_slice(&explicit);
        let length = (plaintext.len() as u16).to_be_bytes();
        let additional = [&explicit[..], &[kind, 3, 3], &length].concat();
        let mut sealed = plaintext.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        keys.write
            .seal_in_place_append_tag(nonce, aead::Aad::from(additional), &mut sealed)
            .unwrap();
        record(kind, &[&explicit[..], &sealed].concat())
    }
}

/// A client that has sent a good key exchange and its ChangeCipherSpec.
pub fn keyed(profile: &Profile, extensions: &[(u16, &[u8])]) -> Client {
    let hello = Hello::new(&[PSK_AES_128_GCM], extensions);
    let mut client = Client::greet(profile, &hello).unwrap();
    let exchange = client.exchange(IDENTITY, &KEY);
    assert!(client.say(&exchange).unwrap().is_none());
    assert!(client.say(&record(CHANGE_CIPHER_SPEC, &[1])).unwrap().is_none());
    client
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (body.len() as u32).to_be_bytes();
    [&[kind, high, middle, low], body].concat()
}

pub fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    [&[kind, 3, 3, high, low], payload].concat()
}

/// RFC 5246 section 5, with SHA-256.
fn prf(secret: &[u8], label: &[u8], seed: &[u8], out: &mut [u8]) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let seed = [label, seed].concat();
    let mut a = hmac::sign(&key, &seed);
    for chunk in out.chunks_mut(32) {
        let block = hmac::sign(&key, &[a.as_ref(), &seed].concat());
        chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        a = hmac::sign(&key, a.as_ref());
    }
}

const CLIENT_RANDOM: [u8; 32] = [0x11; 32];
