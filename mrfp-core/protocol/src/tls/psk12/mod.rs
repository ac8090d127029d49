//! The TLS 1.2 handshake with a pre-shared key, as its server (RFC 5246, RFC 4279, RFC 5489), for the
//! AEAD suites that need no certificate and no finite-field group. It does what OpenSSL does for them,
//! in an eighth of the time.
//!
//! It is a straight line: ClientHello (read by [`hello`], which decides whether this engine or OpenSSL
//! performs the handshake), the flight of ServerHello and ServerHelloDone, ClientKeyExchange with the
//! identity, ChangeCipherSpec, Finished, and ours. Nothing is renegotiated or resumed, no ticket is
//! given out.

mod hello;
mod schedule;

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey};
use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::client_hello::{HelloMessage, Reader};
use super::handshake::{HandshakeError, IDENTITY_BYTES_MAX, Progress, front_record};
use super::keys::Role;
use super::numbers::{
    ALERT_BAD_RECORD_MAC, ALERT_CLOSE_NOTIFY, ALERT_DECODE_ERROR, ALERT_DECRYPT_ERROR,
    ALERT_ILLEGAL_PARAMETER, ALERT_INTERNAL_ERROR, ALERT_PROTOCOL_VERSION,
    ALERT_UNEXPECTED_MESSAGE, CONTENT_ALERT, CONTENT_CHANGE_CIPHER_SPEC, CONTENT_HANDSHAKE,
    LEVEL_FATAL, LEVEL_WARNING, MESSAGE_CLIENT_KEY_EXCHANGE, MESSAGE_FINISHED,
};
use super::record::{HEADER_BYTES, RecordLayer};
use super::suite::{Aead, Suite};
use super::{Profile, Psk, RECORD_BYTES_MAX, Session};
use hello::{Group, Negotiated, RANDOM_BYTES};
use schedule::{MasterSecret, VERIFY_DATA_BYTES, VerifyData};

/// A handshake under way: the ClientHello is read and answered.
pub(super) struct Psk12Handshake {
    stage: Stage,
    suite: &'static Suite,
    aead: Aead,
    /// RFC 7627.
    extended_master_secret: bool,
    client_random: [u8; RANDOM_BYTES],
    server_random: [u8; RANDOM_BYTES],
    /// The key nobody knows, for an identity nobody has. Drawn in every handshake, so that whether it
    /// is used costs nothing that could be measured.
    dummy_key: Zeroizing<[u8; DUMMY_KEY_BYTES]>,
    ephemeral: Option<Ephemeral>,
    /// What was agreed on by Diffie-Hellman; empty with a plain key.
    agreed: Zeroizing<Vec<u8>>,
    identity: Vec<u8>,
    /// All handshake messages so far.
    transcript: digest::Context,
    /// The beginning of a handshake message that is not whole yet.
    partial: Vec<u8>,
    /// Bytes of the record that named the identity: read, and left to the caller until its key is
    /// here.
    read_ahead_bytes: usize,
    warnings: u8,
}

/// Our half of a Diffie-Hellman exchange.
struct Ephemeral {
    key: EphemeralPrivateKey,
    group: Group,
}

/// What the client has to say next.
enum Stage {
    ClientKeyExchange,
    /// Nothing, before its key has been looked up.
    Key,
    ChangeCipherSpec(Box<Keyed>),
    Finished(Box<Keyed>),
    /// Nothing: it is told why at the next opportunity.
    Broken,
}

/// What the key has given.
struct Keyed {
    records: Box<RecordLayer>,
    master_secret: MasterSecret,
    /// What the client's Finished must say.
    expected: VerifyData,
}

/// The handshake ends here. With an alert for the peer, unless that has sent one itself.
struct Fault {
    alert: Option<u8>,
    error: HandshakeError,
}

impl Fault {
    const fn malformed(alert: u8) -> Self {
        Self { alert: Some(alert), error: HandshakeError::Malformed }
    }

    const fn authentication(alert: u8) -> Self {
        Self { alert: Some(alert), error: HandshakeError::Authentication }
    }

    const INTERNAL: Self = Self { alert: Some(ALERT_INTERNAL_ERROR), error: HandshakeError::Other };
}

impl Psk12Handshake {
    /// Answers a ClientHello, if the suite that `profile` wants most of what it offers is one of ours.
    /// `None`: another engine has to look at it, also where it is broken.
    pub(super) fn answer(
        profile: &Profile,
        hello: &HelloMessage<'_>,
        output: &mut Vec<u8>,
    ) -> Option<Self> {
        let negotiated = Negotiated::from_hello(profile, hello)?;
        let random = SystemRandom::new();
        let mut drawn = Zeroizing::new([0; RANDOM_BYTES + DUMMY_KEY_BYTES]);
        random.fill(drawn.as_mut_slice()).ok()?;
        if profile.tls13 {
            drawn[RANDOM_BYTES - DOWNGRADE.len()..RANDOM_BYTES].copy_from_slice(&DOWNGRADE);
        }
        let (server_random, dummy_key) = drawn.split_at(RANDOM_BYTES);
        let ephemeral = match negotiated.group {
            Some(group) => {
                let key = EphemeralPrivateKey::generate(group.algorithm(), &random).ok()?;
                Some(Ephemeral { key, group })
            }
            None => None,
        };
        let mut handshake = Self {
            stage: Stage::ClientKeyExchange,
            suite: negotiated.suite,
            aead: negotiated.aead,
            extended_master_secret: negotiated.extended_master_secret,
            client_random: negotiated.client_random,
            server_random: server_random.try_into().ok()?,
            dummy_key: Zeroizing::new(dummy_key.try_into().ok()?),
            ephemeral,
            agreed: Zeroizing::default(),
            identity: Vec::new(),
            transcript: digest::Context::new(
                negotiated.suite.hash.hmac_algorithm().digest_algorithm(),
            ),
            partial: Vec::new(),
            read_ahead_bytes: 0,
            warnings: 0,
        };
        handshake.transcript.update(&hello.message);
        let public = match &handshake.ephemeral {
            Some(ephemeral) => Some((ephemeral.group, ephemeral.key.compute_public_key().ok()?)),
            None => None,
        };
        let public = public.as_ref().map(|(group, key)| (*group, key.as_ref()));
        let start = output.len();
        negotiated.write_flight(&handshake.server_random, public, output);
        handshake.transcript.update(&output[start + HEADER_BYTES..]);
        Some(handshake)
    }

    /// See [`Handshake::advance`](super::Handshake::advance).
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(usize, Progress), HandshakeError> {
        if let Stage::Key = self.stage {
            return Ok((0, Progress::NeedPsk));
        }
        let mut consumed = std::mem::take(&mut self.read_ahead_bytes).min(input.len());
        loop {
            let Some(record) = front_record(&input[consumed..])? else {
                return Ok((consumed, Progress::NeedInput));
            };
            consumed += record.len();
            match self.take(record, output) {
                Ok(None) if matches!(self.stage, Stage::Key) => {
                    self.read_ahead_bytes = record.len();
                    return Ok((consumed - record.len(), Progress::NeedPsk));
                }
                Ok(None) => {}
                Ok(Some(session)) => return Ok((consumed, Progress::Done(session))),
                Err(fault) => {
                    let alert =
                        fault.alert.map(|alert| [CONTENT_ALERT, 3, 3, 0, 2, LEVEL_FATAL, alert]);
                    output.extend(alert.into_iter().flatten());
                    return Err(fault.error);
                }
            }
        }
    }

    /// The identity the client named, after [`Progress::NeedPsk`].
    pub(super) fn identity(&self) -> &[u8] {
        &self.identity
    }

    /// See [`Handshake::provide_psk`](super::Handshake::provide_psk).
    pub(super) fn provide_psk(&mut self, psk: Option<&Psk>) {
        assert!(matches!(self.stage, Stage::Key), "nobody asked for a key");
        let key = psk.map_or(self.dummy_key.as_slice(), Psk::expose);
        let premaster = schedule::premaster_secret(&self.agreed, key);
        // RFC 7627 section 3: up to and including the ClientKeyExchange.
        let session_hash = self.transcript.clone().finish();
        let master_secret = if self.extended_master_secret {
            MasterSecret::extended(self.suite.hash, &premaster, session_hash.as_ref())
        } else {
            let randoms = [self.client_random, self.server_random];
            MasterSecret::plain(self.suite.hash, &premaster, &randoms)
        };
        let mut keys = master_secret.traffic_keys(
            self.suite,
            self.aead,
            Role::Server,
            &self.client_random,
            &self.server_random,
        );
        // They are to protect the Finished messages, too.
        (keys.read.sequence, keys.write.sequence, keys.blocks_written) = (0, 0, 0);
        let expected = master_secret.verify_data(b"client finished", session_hash.as_ref());
        let records = Box::new(RecordLayer::new(keys));
        self.stage = Stage::ChangeCipherSpec(Box::new(Keyed { records, master_secret, expected }));
    }

    /// Takes one record. A session: the handshake is complete.
    fn take(&mut self, record: &[u8], output: &mut Vec<u8>) -> Result<Option<Session>, Fault> {
        if record[2] != 3 {
            return Err(Fault::malformed(ALERT_PROTOCOL_VERSION));
        }
        let payload = &record[HEADER_BYTES..];
        match (std::mem::replace(&mut self.stage, Stage::Broken), record[0]) {
            (stage @ (Stage::ClientKeyExchange | Stage::ChangeCipherSpec(_)), CONTENT_ALERT) => {
                self.stage = stage;
                self.alert(payload)?;
            }
            (Stage::ClientKeyExchange, CONTENT_HANDSHAKE) => {
                self.stage = Stage::ClientKeyExchange;
                self.client_key_exchange(payload)?;
            }
            (Stage::ChangeCipherSpec(keyed), CONTENT_CHANGE_CIPHER_SPEC) if payload == [1] => {
                self.stage = Stage::Finished(keyed);
            }
            (Stage::Finished(keyed), content_type) => {
                return self.finished(keyed, record, content_type, output);
            }
            (Stage::Broken | Stage::Key, _) => return Err(Fault::INTERNAL),
            (Stage::ClientKeyExchange | Stage::ChangeCipherSpec(_), _) => {
                return Err(Fault::malformed(ALERT_UNEXPECTED_MESSAGE));
            }
        }
        Ok(None)
    }

    fn alert(&mut self, alert: &[u8]) -> Result<(), Fault> {
        let &[level, description] = alert else {
            return Err(Fault::malformed(ALERT_UNEXPECTED_MESSAGE));
        };
        self.warnings += 1;
        if (level, description == ALERT_CLOSE_NOTIFY) != (LEVEL_WARNING, false) {
            return Err(Fault { alert: None, error: HandshakeError::AlertReceived(description) });
        }
        if self.warnings > WARNINGS_MAX {
            return Err(Fault::malformed(ALERT_UNEXPECTED_MESSAGE));
        }
        Ok(())
    }

    /// The identity and, with Diffie-Hellman, the client's half (RFC 4279 section 2, RFC 5489
    /// section 2).
    fn client_key_exchange(&mut self, payload: &[u8]) -> Result<(), Fault> {
        if payload.is_empty() {
            // RFC 5246 section 6.2.1: no zero-length fragments of handshake messages.
            return Err(Fault::malformed(ALERT_UNEXPECTED_MESSAGE));
        }
        let gathered;
        let message = if self.partial.is_empty() {
            payload
        } else {
            self.partial.extend_from_slice(payload);
            gathered = std::mem::take(&mut self.partial);
            &gathered
        };
        if message[0] != MESSAGE_CLIENT_KEY_EXCHANGE {
            return Err(Fault::malformed(ALERT_UNEXPECTED_MESSAGE));
        }
        let &[_, high, middle, low, ref body @ ..] = message else {
            self.partial = message.to_vec();
            return Ok(());
        };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > CLIENT_KEY_EXCHANGE_BYTES_MAX {
            return Err(Fault::malformed(ALERT_DECODE_ERROR));
        }
        if body.len() < length {
            self.partial = message.to_vec();
            return Ok(());
        }
        if body.len() > length {
            // A ChangeCipherSpec must follow, and it is no handshake message.
            return Err(Fault::malformed(ALERT_UNEXPECTED_MESSAGE));
        }
        let mut reader = Reader(body);
        let identity = reader.vector16().filter(|identity| identity.len() <= IDENTITY_BYTES_MAX);
        let identity = identity.ok_or(Fault::malformed(ALERT_DECODE_ERROR))?;
        if let Some(ephemeral) = self.ephemeral.take() {
            let public = reader.vector8().ok_or(Fault::malformed(ALERT_DECODE_ERROR))?;
            let illegal = Fault::malformed(ALERT_ILLEGAL_PARAMETER);
            if !ephemeral.group.is_encoded(public) {
                return Err(illegal);
            }
            let public = UnparsedPublicKey::new(ephemeral.group.algorithm(), public);
            let agree = |secret: &[u8]| Ok(Zeroizing::new(secret.to_vec()));
            // A point that is not on the curve, or one that gives a zero (RFC 8422 section 5.11).
            self.agreed = agreement::agree_ephemeral(ephemeral.key, public, illegal, agree)?;
        }
        if !reader.0.is_empty() {
            return Err(Fault::malformed(ALERT_DECODE_ERROR));
        }
        self.identity = identity.to_vec();
        self.transcript.update(message);
        self.stage = Stage::Key;
        Ok(())
    }

    /// The client's first protected record: it has the key, or it has not.
    fn finished(
        &mut self,
        mut keyed: Box<Keyed>,
        record: &[u8],
        content_type: u8,
        output: &mut Vec<u8>,
    ) -> Result<Option<Session>, Fault> {
        let mut memory = [0; FINISHED_RECORD_BYTES_MAX];
        let Some(memory) = memory.get_mut(..record.len()) else {
            return Err(Fault::malformed(ALERT_UNEXPECTED_MESSAGE));
        };
        memory.copy_from_slice(record);
        // With the wrong key this fails, and for an identity nobody has no key is right.
        let (_, plaintext) = keyed
            .records
            .decrypt(memory)
            .map_err(|_| Fault::authentication(ALERT_BAD_RECORD_MAC))?;
        let plaintext = &memory[plaintext];
        match content_type {
            CONTENT_HANDSHAKE if !plaintext.is_empty() => {}
            CONTENT_ALERT if plaintext.len() == 2 => {
                let error = HandshakeError::AlertReceived(plaintext[1]);
                return Err(Fault { alert: None, error });
            }
            _ => return Err(Fault::malformed(ALERT_UNEXPECTED_MESSAGE)),
        }
        self.partial.extend_from_slice(plaintext);
        if self.partial.len() < FINISHED_BYTES {
            self.stage = Stage::Finished(keyed);
            return Ok(None);
        }
        let &[MESSAGE_FINISHED, 0, 0, length, ref verify_data @ ..] = self.partial.as_slice()
        else {
            return Err(Fault::malformed(ALERT_UNEXPECTED_MESSAGE));
        };
        if usize::from(length) != VERIFY_DATA_BYTES || verify_data.len() != VERIFY_DATA_BYTES {
            return Err(Fault::malformed(ALERT_DECODE_ERROR));
        }
        if !bool::from(verify_data.ct_eq(keyed.expected.as_slice())) {
            return Err(Fault::authentication(ALERT_DECRYPT_ERROR));
        }
        self.transcript.update(&self.partial);
        let transcript_hash = self.transcript.clone().finish();
        let verify_data =
            keyed.master_secret.verify_data(b"server finished", transcript_hash.as_ref());
        let mut message = [0; FINISHED_BYTES];
        message[..4].copy_from_slice(&[MESSAGE_FINISHED, 0, 0, VERIFY_DATA_BYTES as u8]);
        message[4..].copy_from_slice(verify_data.as_slice());
        output.extend_from_slice(&[CONTENT_CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]);
        output.extend_from_slice(&keyed.records.seal_small(CONTENT_HANDSHAKE, &message));
        Ok(Some(Session::from_record_layer(keyed.records)))
    }
}

impl std::fmt::Debug for Psk12Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Psk12Handshake({})", self.suite.name)
    }
}

/// As long as the TEKs MIKEY derives at most, so that a dummy key costs what a real one costs.
const DUMMY_KEY_BYTES: usize = 32;
/// RFC 8446 section 4.1.3: a server that has TLS 1.3 and negotiates TLS 1.2 says so in its random.
const DOWNGRADE: [u8; 8] = *b"DOWNGRD\x01";
/// Warnings a client may have during a handshake; more is a flood.
const WARNINGS_MAX: u8 = 4;
/// The longest identity and a point of P-384, each with its length.
const CLIENT_KEY_EXCHANGE_BYTES_MAX: usize = 2 + IDENTITY_BYTES_MAX + 1 + 97;
/// Handshake header and verify_data.
const FINISHED_BYTES: usize = 4 + VERIFY_DATA_BYTES;
/// Header, explicit nonce, message, tag.
const FINISHED_RECORD_BYTES_MAX: usize = HEADER_BYTES + 8 + FINISHED_BYTES + 16;
const _: () = assert!(FINISHED_RECORD_BYTES_MAX < RECORD_BYTES_MAX);
