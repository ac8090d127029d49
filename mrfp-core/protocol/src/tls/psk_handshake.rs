//! The PSK handshake: OpenSSL, driven in memory one record at a time.

use openssl::ssl::{self, ErrorCode, Ssl, SslStream, SslVerifyMode, SslVersion};
use zeroize::Zeroizing;

use super::exchange::{Credential, Exchange, dummy_key};
use super::handshake::{HandshakeError, IDENTITY_BYTES_MAX, Progress, front_record};
use super::keys::{Prf, Role, TrafficKeys, tls12_traffic_keys};
use super::memory_stream::MemoryStream;
use super::openssl_session::OpenSslSession;
use super::profile::{EXCHANGE_INDEX, Profile};
use super::psk::IdentityScanner;
use super::record::RecordLayer;
use super::suite::{Aead, Protection, Suite, Version, suite_by_name};
use super::{Psk, Session, ssl_reason};

/// A handshake with a pre-shared key, under way.
pub(super) struct PskHandshake {
    /// Gone once a session that stays inside OpenSSL has been handed out.
    stream: Option<SslStream<MemoryStream>>,
    role: Role,
    stage: Stage,
    scanner: IdentityScanner,
    /// What the client named itself, once it has.
    identity: Option<Vec<u8>>,
    /// The first bytes of the last record we sent: the explicit nonce of our Finished.
    last_sent_nonce: [u8; 8],
}

/// What the next record is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Client role: the ClientHello is not written yet.
    Start,
    /// Records go to OpenSSL, after a look at them in the server role.
    Reading,
    /// The record at the front of the input waits for its key.
    AwaitingPsk,
    /// That record may go to OpenSSL now.
    PskProvided,
}

impl PskHandshake {
    /// We answer.
    pub(super) fn server(profile: &Profile) -> Result<Self, HandshakeError> {
        let mut ssl = Ssl::new(&profile.context).map_err(|_| HandshakeError::Other)?;
        Exchange::attach(&mut ssl, None);
        ssl.set_accept_state();
        Self::new(profile, ssl, Role::Server, Stage::Reading)
    }

    /// We begin.
    pub(super) fn client(
        profile: &Profile,
        identity: &[u8],
        psk: &Psk,
    ) -> Result<Self, HandshakeError> {
        if identity.len() > IDENTITY_BYTES_MAX || identity.contains(&0) {
            return Err(HandshakeError::Other);
        }
        let mut ssl = Ssl::new(&profile.context).map_err(|_| HandshakeError::Other)?;
        let credential = Credential { identity: identity.to_vec(), key: psk.clone() };
        Exchange::attach(&mut ssl, Some(credential));
        // A TLS 1.3 server could answer with a certificate instead of our key: no certificate is
        // trusted, so that fails.
        ssl.set_verify(SslVerifyMode::PEER);
        ssl.set_connect_state();
        Self::new(profile, ssl, Role::Client, Stage::Start)
    }

    fn new(profile: &Profile, ssl: Ssl, role: Role, stage: Stage) -> Result<Self, HandshakeError> {
        let stream =
            SslStream::new(ssl, MemoryStream::default()).map_err(|_| HandshakeError::Other)?;
        Ok(Self {
            stream: Some(stream),
            role,
            stage,
            scanner: IdentityScanner::new(profile.tls13),
            identity: None,
            last_sent_nonce: [0; 8],
        })
    }

    /// See [`Handshake::advance`](super::Handshake::advance).
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(usize, Progress), HandshakeError> {
        if self.stage == Stage::Start {
            self.stage = Stage::Reading;
            let complete = self.step(output)?;
            assert!(!complete, "no handshake completes before the peer spoke");
        }
        let mut consumed = 0;
        while let Some(record) = front_record(&input[consumed..])? {
            match self.stage {
                Stage::AwaitingPsk => return Ok((consumed, Progress::NeedPsk)),
                Stage::Reading if self.role == Role::Server => {
                    if self.names_new_identity(record)? {
                        self.stage = Stage::AwaitingPsk;
                        return Ok((consumed, Progress::NeedPsk));
                    }
                }
                Stage::Reading => {}
                Stage::PskProvided => self.stage = Stage::Reading,
                Stage::Start => unreachable!("handled before"),
            }
            self.stream_mut().get_mut().feed(record);
            consumed += record.len();
            if self.step(output)? {
                return Ok((consumed, Progress::Done(self.take_session()?)));
            }
        }
        Ok((consumed, Progress::NeedInput))
    }

    /// The identity the client named, after [`Progress::NeedPsk`].
    pub(super) fn identity(&self) -> &[u8] {
        self.identity.as_deref().unwrap_or_default()
    }

    /// See [`Handshake::provide_psk`](super::Handshake::provide_psk).
    pub(super) fn provide_psk(&mut self, psk: Option<&Psk>) {
        assert_eq!(self.stage, Stage::AwaitingPsk, "nobody asked for a key");
        self.stage = Stage::PskProvided;
        let key = match psk {
            Some(psk) => Ok(psk.clone()),
            None => dummy_key(),
        };
        // Without a credential the callback itself makes up a key.
        if let Ok(key) = key {
            let identity = self.identity().to_vec();
            self.exchange().set_credential(Credential { identity, key });
        }
    }

    fn stream(&self) -> &SslStream<MemoryStream> {
        self.stream.as_ref().expect("the session was not handed out")
    }

    fn stream_mut(&mut self) -> &mut SslStream<MemoryStream> {
        self.stream.as_mut().expect("the session was not handed out")
    }

    fn exchange(&self) -> &Exchange {
        self.stream().ssl().ex_data(*EXCHANGE_INDEX).expect("every handshake attaches its exchange")
    }

    /// Looks into a record before OpenSSL does. A second hello (after HelloRetryRequest) names the
    /// same identity again, whose key we have.
    fn names_new_identity(&mut self, record: &[u8]) -> Result<bool, HandshakeError> {
        match self.scanner.scan(record) {
            Ok(Some(identity)) if self.identity.as_ref() == Some(&identity) => Ok(false),
            Ok(Some(identity)) => {
                self.identity = Some(identity);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(_) => Err(HandshakeError::Malformed),
        }
    }

    /// Lets OpenSSL work on what it was fed. True: the handshake is complete.
    fn step(&mut self, output: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        let result = self.stream_mut().do_handshake();
        let outbound = &mut self.stream_mut().get_mut().outbound;
        let nonce = last_record_nonce(outbound);
        output.append(outbound);
        self.last_sent_nonce = nonce.unwrap_or(self.last_sent_nonce);
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.code() == ErrorCode::WANT_READ => Ok(false),
            Err(error) => Err(reason_of(&error)),
        }
    }

    /// Takes the keys over; the OpenSSL object goes, unless it must carry the records itself.
    fn take_session(&mut self) -> Result<Session, HandshakeError> {
        if !self.stream().get_ref().is_drained() {
            return Err(HandshakeError::Malformed);
        }
        let ssl = self.stream().ssl();
        let suite = ssl
            .current_cipher()
            .and_then(|cipher| suite_by_name(cipher.name()))
            .ok_or(HandshakeError::Other)?;
        let version = match ssl.version2() {
            Some(SslVersion::TLS1_2) => Version::Tls12,
            Some(SslVersion::TLS1_3) => Version::Tls13,
            _ => return Err(HandshakeError::Other),
        };
        if version != suite.version {
            return Err(HandshakeError::Other);
        }
        let keys = match (version, suite.protection) {
            (Version::Tls12, Protection::Aead(aead)) => self.tls12_keys(suite, aead)?,
            (Version::Tls13, Protection::Aead(_)) => self.tls13_keys(suite)?,
            (_, Protection::Cbc) => {
                let stream = self.stream.take().expect("the handshake was not over");
                return Ok(Session::from_openssl(OpenSslSession::new(stream, suite)));
            }
        };
        Ok(Session::from_record_layer(Box::new(RecordLayer::new(keys))))
    }

    fn tls12_keys(&self, suite: &'static Suite, aead: Aead) -> Result<TrafficKeys, HandshakeError> {
        let ssl = self.stream().ssl();
        let session = ssl.session().ok_or(HandshakeError::Other)?;
        let mut master_secret = Zeroizing::new([0; MASTER_SECRET_BYTES]);
        if session.master_key(master_secret.as_mut()) != MASTER_SECRET_BYTES {
            return Err(HandshakeError::Other);
        }
        let (mut client_random, mut server_random) = ([0; 32], [0; 32]);
        if ssl.client_random(&mut client_random) != 32
            || ssl.server_random(&mut server_random) != 32
        {
            return Err(HandshakeError::Other);
        }
        let mut keys = tls12_traffic_keys(
            &Prf::new(suite.hash, master_secret.as_ref()),
            suite,
            aead,
            self.role,
            &client_random,
            &server_random,
        );
        if aead.tls12_explicit_nonce_bytes() != 0 {
            // OpenSSL begins at a random explicit nonce and counts up. Going on from there keeps
            // nonces unique with certainty, not only with high probability.
            keys.write.iv[4..].copy_from_slice(&self.last_sent_nonce);
        }
        Ok(keys)
    }

    fn tls13_keys(&self, suite: &'static Suite) -> Result<TrafficKeys, HandshakeError> {
        // Not "reused" would mean: authenticated by something other than our key.
        if !self.stream().ssl().session_reused() {
            return Err(HandshakeError::Authentication);
        }
        let secrets = self.exchange().take_secrets();
        secrets.traffic_keys(suite, self.role).ok_or(HandshakeError::Other)
    }
}

impl std::fmt::Debug for PskHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PskHandshake")
            .field("role", &self.role)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// The first eight payload bytes of the last record in `records`.
fn last_record_nonce(mut records: &[u8]) -> Option<[u8; 8]> {
    let mut last = None;
    while let &[_, _, _, high, low, ..] = records {
        let length = 5 + usize::from(u16::from_be_bytes([high, low]));
        let (record, rest) = records.split_at_checked(length)?;
        last = record.get(5..13);
        records = rest;
    }
    last?.try_into().ok()
}

pub(super) fn reason_of(error: &ssl::Error) -> HandshakeError {
    let reason = ssl_reason::ssl_reason(error);
    match reason {
        ssl_reason::DECRYPTION_FAILED_OR_BAD_RECORD_MAC
        | ssl_reason::DIGEST_CHECK_FAILED
        | ssl_reason::BINDER_DOES_NOT_VERIFY => HandshakeError::Authentication,
        ssl_reason::NO_SHARED_CIPHER
        | ssl_reason::NO_SUITABLE_GROUPS
        | ssl_reason::NO_SUITABLE_KEY_SHARE
        | ssl_reason::NO_SUITABLE_SIGNATURE_ALGORITHM
        | ssl_reason::UNSUPPORTED_PROTOCOL
        | ssl_reason::UNSUPPORTED_SSL_VERSION
        | ssl_reason::VERSION_TOO_HIGH
        | ssl_reason::VERSION_TOO_LOW
        | ssl_reason::WRONG_SSL_VERSION => HandshakeError::NoCommonParameters,
        ssl_reason::LENGTH_MISMATCH
        | ssl_reason::LENGTH_TOO_SHORT
        | ssl_reason::UNEXPECTED_MESSAGE
        | ssl_reason::WRONG_VERSION_NUMBER => HandshakeError::Malformed,
        _ => ssl_reason::received_alert(reason)
            .map_or(HandshakeError::Other, HandshakeError::AlertReceived),
    }
}

pub(super) const MASTER_SECRET_BYTES: usize = 48;
