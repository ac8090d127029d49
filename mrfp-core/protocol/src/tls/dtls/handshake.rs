//! A handshake: OpenSSL, driven in memory a datagram at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openssl::ssl::{ErrorCode, Ssl, SslStream, SslVerifyMode};
use openssl::x509::X509Ref;
use zeroize::Zeroizing;

use super::super::keys::{Prf, Role, TrafficKeys, tls12_traffic_keys};
use super::super::numbers::{
    ALERT_BAD_CERTIFICATE, CONTENT_ALERT, CONTENT_CHANGE_CIPHER_SPEC, CONTENT_HANDSHAKE,
    LEVEL_FATAL,
};
use super::super::psk_handshake::{MASTER_SECRET_BYTES, reason_of};
use super::super::suite::{Protection, suite_by_name};
use super::super::{CertificateFault, Fingerprint, HandshakeError, ssl_reason};
use super::cookie::ProvenHello;
use super::datagram_stream::DatagramStream;
use super::profile::{COOKIE_INDEX, Credentials, Profile};
use super::record::Session;
use super::{HEADER_BYTES, Header, VERSION, numbered};

/// A handshake in progress.
pub struct Handshake {
    stream: SslStream<DatagramStream>,
    role: Role,
    fingerprints: Arc<[Fingerprint]>,
    /// The peer's certificate is another one than was announced.
    mismatch: Arc<AtomicBool>,
    /// What OpenSSL counts from 0 goes on from what the client has counted to.
    sequence_offset: u64,
    /// Of the next record in the clear.
    next_sequence: u64,
    /// The last protected record that has left: its sequence number and the explicit part of its nonce.
    last_protected: (u64, [u8; 8]),
}

/// Where a handshake stands.
#[derive(Debug)]
pub enum Progress {
    /// More datagrams, or more time.
    UnderWay,
    /// Done.
    Done(Box<Session>),
}

impl Handshake {
    /// We begin: the ClientHello leaves with the first [`Handshake::pass_time`]. The server's certificate must
    /// be the one that one of `fingerprints` stands for.
    pub fn client(
        profile: &Profile,
        credentials: &Credentials,
        fingerprints: &[Fingerprint],
    ) -> Result<Self, HandshakeError> {
        let mut ssl = Ssl::new(&profile.context).map_err(|_| HandshakeError::Other)?;
        ssl.set_connect_state();
        Self::new(ssl, Role::Client, credentials, fingerprints)
    }

    /// We answer somebody who has shown to be where he says. The first flight leaves with the first
    /// [`Handshake::pass_time`]. The client must have the certificate that one of `fingerprints` stands for.
    pub fn server(
        profile: &Profile,
        credentials: &Credentials,
        fingerprints: &[Fingerprint],
        hello: ProvenHello,
    ) -> Result<Self, HandshakeError> {
        let mut ssl = Ssl::new(&profile.context).map_err(|_| HandshakeError::Other)?;
        ssl.set_accept_state();
        ssl.set_ex_data(*COOKIE_INDEX, hello.cookie);
        let mut handshake = Self::new(ssl, Role::Server, credentials, fingerprints)?;
        // What OpenSSL asks for, the client has been asked for already.
        handshake.feed(hello.first);
        let answered = handshake.stream.do_handshake();
        let is_asking = answered.is_err_and(|error| error.code() == ErrorCode::WANT_READ);
        let asked = std::mem::take(&mut handshake.stream.get_mut().outbound);
        if !is_asking || asked.len() != 1 {
            return Err(HandshakeError::Malformed);
        }
        handshake.sequence_offset = hello.record_sequence - 1;
        handshake.feed(hello.second);
        Ok(handshake)
    }

    fn new(
        mut ssl: Ssl,
        role: Role,
        credentials: &Credentials,
        fingerprints: &[Fingerprint],
    ) -> Result<Self, HandshakeError> {
        let fingerprints: Arc<[Fingerprint]> = fingerprints.into();
        let mismatch = Arc::<AtomicBool>::default();
        let (announced, verdict) = (Arc::clone(&fingerprints), Arc::clone(&mismatch));
        // That the peer has the key is OpenSSL's to check. Nobody vouches for the certificate, and its
        // names and dates mean nothing (RFC 8122 section 6.2); both ends must have one (section 6.2).
        let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        ssl.set_verify_callback(mode, move |_, chain| {
            let is_announced = chain.error_depth() != 0
                || chain
                    .current_cert()
                    .is_some_and(|certificate| is_one_of(&announced, certificate));
            if !is_announced {
                verdict.store(true, Ordering::Relaxed);
            }
            is_announced
        });
        ssl.set_certificate(&credentials.certificate)
            .and_then(|()| ssl.set_private_key(&credentials.key))
            .and_then(|()| ssl.set_mtu(MTU_BYTES))
            .map_err(|_| HandshakeError::Other)?;
        let stream =
            SslStream::new(ssl, DatagramStream::default()).map_err(|_| HandshakeError::Other)?;
        Ok(Self {
            stream,
            role,
            fingerprints,
            mismatch,
            sequence_offset: 0,
            next_sequence: 0,
            last_protected: (0, [0; 8]),
        })
    }

    /// Takes a datagram from the peer; what is to go back there is appended to `output`, a datagram each.
    /// After an error it is an alert, if anything, and the handshake is over.
    pub fn advance(
        &mut self,
        datagram: &[u8],
        output: &mut Vec<Vec<u8>>,
    ) -> Result<Progress, HandshakeError> {
        let records = of_handshake(datagram);
        // OpenSSL takes an empty datagram for an end.
        if !records.is_empty() {
            self.feed(records);
        }
        self.step(output)
    }

    /// To be called first, and then about once a second: what the peer should have answered by now leaves
    /// once more, when its time has come (RFC 6347 section 4.2.4.1: after a second, then twice that, …).
    pub fn pass_time(&mut self, output: &mut Vec<Vec<u8>>) -> Result<Progress, HandshakeError> {
        self.step(output)
    }

    fn feed(&mut self, datagram: Vec<u8>) {
        self.stream.get_mut().inbound = Some(datagram);
    }

    fn step(&mut self, output: &mut Vec<Vec<u8>>) -> Result<Progress, HandshakeError> {
        let result = self.stream.do_handshake();
        let mut flight = std::mem::take(&mut self.stream.get_mut().outbound);
        let error = match result {
            Ok(()) => None,
            Err(error) if error.code() == ErrorCode::WANT_READ => {
                flight.iter_mut().for_each(|datagram| self.number(datagram));
                output.append(&mut flight);
                return Ok(Progress::UnderWay);
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            let reason = ssl_reason::ssl_reason(&error);
            let is_missing = reason == ssl_reason::PEER_DID_NOT_RETURN_A_CERTIFICATE;
            let fault = if is_missing {
                CertificateFault::Missing
            } else if self.mismatch.load(Ordering::Relaxed) {
                CertificateFault::Fingerprint
            } else {
                flight.iter_mut().for_each(|datagram| self.number(datagram));
                output.append(&mut flight);
                return Err(reason_of(&error));
            };
            // OpenSSL would say unknown_ca or handshake_failure; RFC 8122 section 6.2 has a word for it.
            output.push(self.bad_certificate());
            return Err(HandshakeError::Certificate(fault));
        }
        flight.iter_mut().for_each(|datagram| self.number(datagram));
        output.extend(flight.iter().cloned());
        let last_flight = match self.role {
            // The client does not know yet that it has arrived.
            Role::Server => flight,
            Role::Client => Vec::new(),
        };
        self.session(last_flight).map(|session| Progress::Done(Box::new(session)))
    }

    /// Counts the records of a datagram on its way out, and gives those in the clear their numbers.
    fn number(&mut self, datagram: &mut [u8]) {
        let mut at = 0;
        while let Some(header) = Header::parse(&datagram[at..]) {
            let body = at + HEADER_BYTES;
            if header.epoch == 0 {
                let sequence = header.sequence + self.sequence_offset;
                datagram[at + 3..at + 11].copy_from_slice(&numbered(0, sequence));
                self.next_sequence = self.next_sequence.max(sequence + 1);
            } else {
                let mut nonce = [0; 8];
                let explicit = header.length.min(nonce.len());
                nonce[..explicit].copy_from_slice(&datagram[body..body + explicit]);
                self.last_protected = (header.sequence, nonce);
            }
            at = body + header.length;
        }
    }

    fn bad_certificate(&self) -> Vec<u8> {
        let header = Header {
            content_type: CONTENT_ALERT,
            version: VERSION,
            epoch: 0,
            sequence: self.next_sequence,
            length: 2,
        };
        [&header.to_bytes()[..], &[LEVEL_FATAL, ALERT_BAD_CERTIFICATE]].concat()
    }

    /// Takes the keys over.
    fn session(&self, last_flight: Vec<Vec<u8>>) -> Result<Session, HandshakeError> {
        let ssl = self.stream.ssl();
        let is_announced = ssl
            .peer_certificate()
            .is_some_and(|certificate| is_one_of(&self.fingerprints, &certificate));
        if !is_announced {
            return Err(HandshakeError::Certificate(CertificateFault::Fingerprint));
        }
        let suite = ssl
            .current_cipher()
            .and_then(|cipher| suite_by_name(cipher.name()))
            .ok_or(HandshakeError::Other)?;
        let Protection::Aead(aead) = suite.protection else { return Err(HandshakeError::Other) };
        let session = ssl.session().ok_or(HandshakeError::Other)?;
        let mut master_secret = Zeroizing::new([0; MASTER_SECRET_BYTES]);
        let (mut client_random, mut server_random) = ([0; 32], [0; 32]);
        if session.master_key(master_secret.as_mut()) != MASTER_SECRET_BYTES
            || ssl.client_random(&mut client_random) != 32
            || ssl.server_random(&mut server_random) != 32
        {
            return Err(HandshakeError::Other);
        }
        let prf = Prf::new(suite.hash, master_secret.as_ref());
        let mut keys: TrafficKeys =
            tls12_traffic_keys(&prf, suite, aead, self.role, &client_random, &server_random);
        let (sequence, nonce) = self.last_protected;
        keys.write.sequence = sequence + 1;
        if aead.tls12_explicit_nonce_bytes() != 0 {
            // OpenSSL begins at a random explicit nonce and counts up, repeated flights included. Going
            // on from there keeps nonces unique with certainty.
            let first = u64::from_be_bytes(nonce).wrapping_sub(sequence);
            keys.write.iv[4..].copy_from_slice(&first.to_be_bytes());
        }
        Ok(Session::new(keys, aead, last_flight))
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("role", &self.role).finish_non_exhaustive()
    }
}

/// The records of a datagram that OpenSSL is to see. It ends a handshake over what has no place in one, and
/// in the clear anybody may have sent that (RFC 6347 section 4.1.2.7).
fn of_handshake(datagram: &[u8]) -> Vec<u8> {
    let mut records = Vec::with_capacity(datagram.len());
    let mut rest = datagram;
    while let Some(header) = Header::parse(rest) {
        let (record, behind) = rest.split_at(HEADER_BYTES + header.length);
        let has_place = matches!(
            header.content_type,
            CONTENT_CHANGE_CIPHER_SPEC | CONTENT_ALERT | CONTENT_HANDSHAKE
        );
        if header.epoch != 0 || (has_place && header.length > 0) {
            records.extend_from_slice(record);
        }
        rest = behind;
    }
    records
}

fn is_one_of(fingerprints: &[Fingerprint], certificate: &X509Ref) -> bool {
    certificate.to_der().is_ok_and(|der| Fingerprint::any_is_of(fingerprints, &der))
}

/// What a datagram of a handshake has at most: fits the smallest path of IPv6 (1,280 bytes), headers
/// included.
const MTU_BYTES: u32 = 1200;
