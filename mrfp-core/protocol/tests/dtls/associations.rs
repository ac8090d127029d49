//! One of our ends, with whatever it has to say.

use std::net::SocketAddr;

use mrfp_protocol::tls::dtls::{
    Cookies, Credentials, Greeting, Handshake, Profile, Progress, Record, SEAL_HEADROOM_BYTES,
    SEAL_TAILROOM_BYTES, Session,
};
use mrfp_protocol::tls::{Fingerprint, HandshakeError};

/// An end of ours.
pub struct End {
    profile: Profile,
    credentials: Credentials,
    fingerprints: Vec<Fingerprint>,
    cookies: Cookies,
    pub handshake: Option<Handshake>,
    pub session: Option<Box<Session>>,
    pub error: Option<HandshakeError>,
    pub output: Vec<Vec<u8>>,
    /// Application data, and what else ended the association.
    pub received: Vec<Vec<u8>>,
    pub ended: Option<Record>,
    pub repeats: usize,
}

impl End {
    pub fn server(credentials: Credentials, fingerprints: &[Fingerprint]) -> Self {
        Self {
            profile: Profile::new().unwrap(),
            credentials,
            fingerprints: fingerprints.to_vec(),
            cookies: Cookies::new(),
            handshake: None,
            session: None,
            error: None,
            output: Vec::new(),
            received: Vec::new(),
            ended: None,
            repeats: 0,
        }
    }

    pub fn client(credentials: Credentials, fingerprints: &[Fingerprint]) -> Self {
        let mut end = Self::server(credentials, fingerprints);
        let handshake = Handshake::client(&end.profile, &end.credentials, fingerprints).unwrap();
        end.handshake = Some(handshake);
        end.pass_time();
        end
    }

    pub fn pass_time(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            let result = handshake.pass_time(&mut self.output);
            self.follow(result);
        }
    }

    /// Takes a datagram as a server or client does that has one peer.
    pub fn take(&mut self, mut datagram: Vec<u8>) {
        if let Some(session) = &mut self.session {
            let mut at = 0;
            while let Some((record, consumed)) = session.open(&mut datagram[at..]) {
                match record {
                    Record::Data(range) => {
                        self.received.push(datagram[at..][range].to_vec());
                    }
                    Record::Repeated => {
                        self.repeats += 1;
                        self.output.extend_from_slice(session.last_flight());
                    }
                    Record::Nothing => {}
                    ended @ (Record::CloseNotify | Record::FatalAlert(_)) => {
                        self.ended = Some(ended);
                    }
                }
                at += consumed;
            }
        } else if let Some(handshake) = &mut self.handshake {
            let result = handshake.advance(&datagram, &mut self.output);
            self.follow(result);
        } else if self.error.is_none() {
            match self.cookies.greet(source(), &datagram) {
                Greeting::Nothing => {}
                Greeting::Verify(answer) => self.output.push(answer),
                Greeting::Proven(hello) => {
                    let (profile, credentials) = (&self.profile, &self.credentials);
                    match Handshake::server(profile, credentials, &self.fingerprints, hello) {
                        Ok(handshake) => self.handshake = Some(handshake),
                        Err(error) => self.error = Some(error),
                    }
                    self.pass_time();
                }
            }
        }
    }

    fn follow(&mut self, result: Result<Progress, HandshakeError>) {
        match result {
            Ok(Progress::UnderWay) => return,
            Ok(Progress::Done(session)) => self.session = Some(session),
            Err(error) => self.error = Some(error),
        }
        self.handshake = None;
    }

    pub fn send(&mut self, data: &[u8]) {
        let record = self.seal(data);
        self.output.push(record);
    }

    pub fn seal(&mut self, data: &[u8]) -> Vec<u8> {
        seal(self.session.as_mut().expect("an association"), data)
    }

    pub fn take_output(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.output)
    }
}

pub fn seal(session: &mut Session, data: &[u8]) -> Vec<u8> {
    let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + data.len();
    let mut memory = vec![0; range.end + SEAL_TAILROOM_BYTES];
    memory[range.clone()].copy_from_slice(data);
    let record = session.seal(&mut memory, range).unwrap();
    memory[record].to_vec()
}

/// Carries what both have to say until nobody has anything more.
pub fn converse(one: &mut End, other: &mut End) {
    while !one.output.is_empty() || !other.output.is_empty() {
        one.take_output().into_iter().for_each(|datagram| other.take(datagram));
        other.take_output().into_iter().for_each(|datagram| one.take(datagram));
    }
}

/// Where whoever talks to a server is.
pub fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 4000))
}
