//! Encryption and authentication of messages and tickets (RFC 3830 section 4.2, RFC 6043
//! section 5.5).

use aes::{Aes128, Aes256};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::codec::{self, DataType, KeyData, MacAlgorithm, Message, Payload, Verification};
use super::codec::{Kemac, Timestamp, code_point};
use super::derivation::{KeySource, Prf, constant};
use super::error::Error;
use super::exchange::check_key_length;
use super::parameters::Parameters;

/// Salt of AES-CM: 112 bits (RFC 3830 section 4.2.3).
const SALT_BYTES: usize = 14;

/// Salt of AES key wrap: 64 bits (RFC 3830 section 4.2.3).
const KEY_WRAP_SALT_BYTES: usize = 8;
/// Key of AES key wrap.
const KEY_WRAP_KEY_BYTES: usize = 16;

/// Algorithms that belong together: RFC 6043 section 12.1 forbids mixing strengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// MIKEY-1, AES-CM-128, HMAC-SHA-1-160.
    S128,
    /// PRF-HMAC-SHA-256, AES-CM-256, HMAC-SHA-256-256.
    S256,
}

impl Suite {
    /// The PRF.
    #[must_use]
    pub fn prf(self) -> Prf {
        match self {
            Self::S128 => Prf::Mikey1,
            Self::S256 => Prf::HmacSha256,
        }
    }

    /// The MAC of V.
    #[must_use]
    pub fn mac_algorithm(self) -> MacAlgorithm {
        match self {
            Self::S128 => MacAlgorithm::HmacSha1,
            Self::S256 => MacAlgorithm::HmacSha256,
        }
    }

    /// The encryption of KEMAC.
    #[must_use]
    pub fn encryption(self) -> Encryption {
        match self {
            Self::S128 => Encryption::AesCm128,
            Self::S256 => Encryption::AesCm256,
        }
    }

    /// Length of the keys we generate.
    #[must_use]
    pub fn key_bytes(self) -> usize {
        match self {
            Self::S128 => 16,
            Self::S256 => 32,
        }
    }

    /// The suite this PRF belongs to.
    pub(crate) fn of_prf(prf: Prf) -> Self {
        match prf {
            Prf::Mikey1 => Self::S128,
            Prf::HmacSha256 => Self::S256,
        }
    }

    /// The suite of a received message, by its PRF and the MAC of its V.
    pub(crate) fn of(prf: u8, algorithm: MacAlgorithm, accepted: &[Self]) -> Result<Self, Error> {
        let prf_known = Prf::from_code(prf).ok_or(Error::UnsupportedPrf(prf))?;
        let suite = Self::of_prf(prf_known);
        if !accepted.contains(&suite) {
            return Err(Error::UnsupportedPrf(prf));
        }
        if algorithm != suite.mac_algorithm() {
            return Err(Error::UnsupportedMac(algorithm as u8));
        }
        Ok(suite)
    }
}

/// Encryption algorithms of KEMAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// AES-CM with a 128-bit key.
    AesCm128,
    /// AES-CM with a 256-bit key.
    AesCm256,
}

impl Encryption {
    /// By its code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            code_point::ENCRYPTION_AES_CM_128 => Some(Self::AesCm128),
            code_point::ENCRYPTION_AES_CM_256 => Some(Self::AesCm256),
            _ => None,
        }
    }

    /// Its code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::AesCm128 => code_point::ENCRYPTION_AES_CM_128,
            Self::AesCm256 => code_point::ENCRYPTION_AES_CM_256,
        }
    }

    fn key_bytes(self) -> usize {
        match self {
            Self::AesCm128 => 16,
            Self::AesCm256 => 32,
        }
    }
}

/// Encrypts or decrypts in place: with a counter mode they are the same.
///
/// `csb_id` and `timestamp` make the IV (RFC 3830 section 4.2.3).
pub fn apply_aes_cm(
    keys: &KeySource<'_>,
    encryption: Encryption,
    csb_id: u32,
    timestamp: u64,
    data: &mut [u8],
) {
    let key = keys.derive(constant::ENCRYPTION, encryption.key_bytes());
    let salt = keys.derive(constant::SALT, SALT_BYTES);
    let iv = aes_cm_iv(&salt, csb_id, timestamp);
    match encryption {
        Encryption::AesCm128 => Ctr128BE::<Aes128>::new_from_slices(&key, &iv)
            .expect("the key was derived at this length")
            .apply_keystream(data),
        Encryption::AesCm256 => Ctr128BE::<Aes256>::new_from_slices(&key, &iv)
            .expect("the key was derived at this length")
            .apply_keystream(data),
    }
}

/// `(S xor (0000 || CSB ID || T)) || 0000`.
fn aes_cm_iv(salt: &[u8], csb_id: u32, timestamp: u64) -> [u8; 16] {
    assert_eq!(salt.len(), SALT_BYTES);
    let mut iv = [0; 16];
    iv[2..6].copy_from_slice(&csb_id.to_be_bytes());
    iv[6..14].copy_from_slice(&timestamp.to_be_bytes());
    for (byte, salt) in iv.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    iv
}

/// The MAC over `parts` one after the other.
#[must_use]
pub fn mac(keys: &KeySource<'_>, algorithm: MacAlgorithm, parts: &[&[u8]]) -> Vec<u8> {
    let key = keys.derive(constant::AUTHENTICATION, algorithm.mac_bytes());
    match algorithm {
        MacAlgorithm::Null => Vec::new(),
        MacAlgorithm::HmacSha1 => hmac::<Hmac<Sha1>>(&key, parts),
        MacAlgorithm::HmacSha256 => hmac::<Hmac<Sha256>>(&key, parts),
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut hmac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().to_vec()
}

/// Appends V to a message and encodes it. `appended` is what the MAC covers beyond the message.
pub(crate) fn seal(
    mut message: Message,
    keys: &KeySource<'_>,
    algorithm: MacAlgorithm,
    appended: &[&[u8]],
) -> Vec<u8> {
    assert!(message.verification().is_none());
    let mac_bytes = algorithm.mac_bytes();
    message
        .payloads
        .push(Payload::Verification(Verification { algorithm, mac: vec![0; mac_bytes] }));
    let mut bytes = codec::encode(&message);
    let mac = message_mac(&message, &bytes, keys, algorithm, appended);
    let mac_at = bytes.len() - mac_bytes;
    bytes[mac_at..].copy_from_slice(&mac);
    bytes
}

/// Checks the MAC in V, which must be the last payload, in constant time.
pub(crate) fn verify(
    message: &Message,
    bytes: &[u8],
    keys: &KeySource<'_>,
    appended: &[&[u8]],
) -> Result<(), Error> {
    let verification = message.verification().ok_or(Error::MissingPayload("V"))?;
    // NULL is never one of them; and RFC 6043 section 12.1 forbids to mix strengths.
    if verification.algorithm != Suite::of_prf(keys.prf()).mac_algorithm() {
        return Err(Error::UnsupportedMac(verification.algorithm as u8));
    }
    let mac = message_mac(message, bytes, keys, verification.algorithm, appended);
    if bool::from(mac.ct_eq(&verification.mac)) {
        Ok(())
    } else {
        Err(Error::WrongMac(message.header.data_type))
    }
}

fn message_mac(
    message: &Message,
    bytes: &[u8],
    keys: &KeySource<'_>,
    algorithm: MacAlgorithm,
    appended: &[&[u8]],
) -> Vec<u8> {
    let covered;
    // RFC 6043 section 5.5: TRANSFER_INIT without the Initiator Data of its ticket.
    let covered = if message.header.data_type == DataType::TransferInit {
        covered = codec::encode_without_initiator_data(message);
        &covered[..covered.len() - algorithm.mac_bytes()]
    } else {
        &bytes[..bytes.len() - algorithm.mac_bytes()]
    };
    let mut parts = vec![covered];
    parts.extend_from_slice(appended);
    mac(keys, algorithm, &parts)
}

/// Makes a KEMAC without a MAC of its own.
pub(crate) fn seal_keys(
    key_data: &[KeyData],
    keys: &KeySource<'_>,
    encryption: Encryption,
    csb_id: u32,
    timestamp: u64,
) -> Kemac {
    let mut plaintext = codec::encode_key_data(key_data);
    apply_aes_cm(keys, encryption, csb_id, timestamp, &mut plaintext);
    Kemac {
        encryption: encryption.code(),
        encrypted: std::mem::take(&mut plaintext),
        mac_algorithm: MacAlgorithm::Null,
        mac: Vec::new(),
    }
}

/// Opens a KEMAC whose integrity the caller has checked.
///
/// # Errors
/// [`Error::UnsupportedEncryption`], [`Error::MalformedKeys`], [`Error::KeyLength`].
pub(crate) fn open_keys(
    kemac: &Kemac,
    keys: &KeySource<'_>,
    suite: Suite,
    csb_id: u32,
    timestamp: u64,
) -> Result<Vec<KeyData>, Error> {
    let encryption = suite.encryption();
    // A MAC in KEMAC would cover what V covers anyway; RFC 6043 has none.
    if kemac.mac_algorithm != MacAlgorithm::Null {
        return Err(Error::UnsupportedMac(kemac.mac_algorithm as u8));
    }
    let plaintext = match kemac.encryption {
        code if code == encryption.code() => {
            let mut plaintext = Zeroizing::new(kemac.encrypted.clone());
            apply_aes_cm(keys, encryption, csb_id, timestamp, &mut plaintext);
            plaintext
        }
        // RFC 6043 section 12.1: not beside 256-bit algorithms.
        code_point::ENCRYPTION_AES_KW_128 if suite == Suite::S128 => {
            unwrap_keys(keys, &kemac.encrypted)?
        }
        unknown => return Err(Error::UnsupportedEncryption(unknown)),
    };
    let key_data = codec::parse_key_data(&plaintext).map_err(Error::MalformedKeys)?;
    for key in &key_data {
        check_key_length(&key.key)?;
    }
    Ok(key_data)
}

/// Opens a KEMAC of a response, by whichever timestamp makes its IV. The plaintext, which `expected`
/// judges, tells: RFC 3830 makes the IV from the initiator's T, and RFC 6043 responses have another.
pub(crate) fn open_response_keys(
    kemac: &Kemac,
    keys: &KeySource<'_>,
    suite: Suite,
    csb_id: u32,
    times: ResponseTimes<'_>,
    expected: impl Fn(&[KeyData]) -> bool,
) -> Result<Vec<KeyData>, Error> {
    let ResponseTimes { response, initial, parameters } = times;
    let first = parameters.response_iv_time.choose(response, initial);
    let second = parameters.response_iv_time.choose(initial, response);
    let opened = open_keys(kemac, keys, suite, csb_id, first.to_bits());
    let good = |opened: &Result<Vec<KeyData>, Error>| {
        opened.as_ref().is_ok_and(|key_data| expected(key_data))
    };
    if parameters.strict || good(&opened) {
        return opened;
    }
    let other = open_keys(kemac, keys, suite, csb_id, second.to_bits());
    if good(&other) { other } else { opened }
}

/// What the IV of a KEMAC in a response may be made from.
#[derive(Clone, Copy)]
pub(crate) struct ResponseTimes<'a> {
    pub(crate) response: Timestamp,
    pub(crate) initial: Timestamp,
    pub(crate) parameters: &'a Parameters,
}

/// AES key wrap with the salt as its initial value (RFC 3830 section 4.2.3).
fn unwrap_keys(keys: &KeySource<'_>, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let key = keys.derive(constant::ENCRYPTION, KEY_WRAP_KEY_BYTES);
    let salt = keys.derive(constant::SALT, KEY_WRAP_SALT_BYTES);
    let failed = || Error::UnsupportedEncryption(code_point::ENCRYPTION_AES_KW_128);
    let iv: [u8; KEY_WRAP_SALT_BYTES] = salt.as_slice().try_into().expect("derived so long");
    let plaintext_bytes = wrapped.len().checked_sub(KEY_WRAP_SALT_BYTES).ok_or_else(failed)?;
    // The wrapping needs whole blocks of 64 bits, two at least.
    if plaintext_bytes < 16 || plaintext_bytes % 8 != 0 {
        return Err(failed());
    }
    let mut plaintext = Zeroizing::new(vec![0; plaintext_bytes]);
    let key = openssl::aes::AesKey::new_decrypt(&key).expect("16 bytes are a key of AES");
    openssl::aes::unwrap_key(&key, Some(iv), &mut plaintext, wrapped)
        .map_err(|_| Error::WrongKeyWrap)?;
    Ok(plaintext)
}
