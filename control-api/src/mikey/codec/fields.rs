//! What payloads carry (RFC 3830 section 6, RFC 6043 section 6).

use super::code_point as code;
use super::reader::{ParseError, ParseReason, Reader, put_vec16};

/// KEMAC: encrypted key data and a MAC of its own (NULL throughout RFC 6043).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kemac {
    /// Encryption algorithm.
    pub encryption: u8,
    /// Key data sub-payloads, encrypted.
    pub encrypted: Vec<u8>,
    /// MAC algorithm.
    pub mac_algorithm: MacAlgorithm,
    /// The MAC.
    pub mac: Vec<u8>,
}

/// V: the MAC of the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verification {
    /// MAC algorithm.
    pub algorithm: MacAlgorithm,
    /// The MAC.
    pub mac: Vec<u8>,
}

/// MAC algorithms, in V and KEMAC alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MacAlgorithm {
    /// None.
    Null = 0,
    /// HMAC-SHA-1-160.
    HmacSha1 = 1,
    /// HMAC-SHA-256-256.
    HmacSha256 = 2,
}

impl MacAlgorithm {
    /// Length of the MAC in bytes; also that of its key.
    #[must_use]
    pub fn mac_bytes(self) -> usize {
        match self {
            Self::Null => 0,
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
        }
    }

    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let at = reader.clone();
        match reader.u8()? {
            0 => Ok(Self::Null),
            1 => Ok(Self::HmacSha1),
            2 => Ok(Self::HmacSha256),
            unknown => Err(at.error(ParseReason::UnknownAlgorithm(unknown))),
        }
    }
}

/// An identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// NAI, URI or byte string.
    pub id_type: u8,
    /// The identity.
    pub data: Vec<u8>,
}

impl Identity {
    /// A URI.
    #[must_use]
    pub fn uri(uri: &str) -> Self {
        Self { id_type: code::ID_URI, data: uri.as_bytes().to_vec() }
    }

    /// A byte string.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        Self { id_type: code::ID_BYTES, data: bytes.to_vec() }
    }

    /// The URI, where this is one.
    #[must_use]
    pub fn as_uri(&self) -> Option<&str> {
        if self.id_type != code::ID_URI {
            return None;
        }
        std::str::from_utf8(&self.data).ok()
    }
}

/// A security policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecurityPolicy {
    /// Its name in the CS ID map.
    pub number: u8,
    /// Security protocol.
    pub protection_type: u8,
    /// Type, length, value triples, as they were.
    pub parameters: Vec<u8>,
}

/// A timestamp as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timestamp {
    /// NTP-UTC: seconds and fraction.
    NtpUtc(u64),
    /// NTP in local time.
    Ntp(u64),
    /// A counter.
    Counter(u32),
    /// NTP-UTC-32: seconds.
    NtpUtc32(u32),
}

impl Timestamp {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let at = reader.clone();
        match reader.u8()? {
            0 => reader.u64().map(Self::NtpUtc),
            1 => reader.u64().map(Self::Ntp),
            2 => reader.u32().map(Self::Counter),
            3 => reader.u32().map(Self::NtpUtc32),
            unknown => Err(at.error(ParseReason::UnknownTimestampType(unknown))),
        }
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::NtpUtc(value) => {
                out.push(0);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::Ntp(value) => {
                out.push(1);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::Counter(value) => {
                out.push(2);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::NtpUtc32(value) => {
                out.push(3);
                out.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    /// The 64 bits that enter an IV (RFC 3830 section 4.2.3, RFC 6043 section 6.4).
    #[must_use]
    pub fn to_bits(self) -> u64 {
        match self {
            Self::NtpUtc(value) | Self::Ntp(value) => value,
            Self::Counter(value) => u64::from(value),
            Self::NtpUtc32(value) => u64::from(value) << 32,
        }
    }
}

pub(super) fn parse_identity(reader: &mut Reader<'_>) -> Result<Identity, ParseError> {
    Ok(Identity { id_type: reader.u8()?, data: reader.vec16()? })
}

pub(super) fn encode_identity(out: &mut Vec<u8>, identity: &Identity) {
    out.push(identity.id_type);
    put_vec16(out, &identity.data);
}

pub(super) fn put_mac(out: &mut Vec<u8>, algorithm: MacAlgorithm, mac: &[u8]) {
    assert_eq!(mac.len(), algorithm.mac_bytes(), "the algorithm fixes the MAC's length");
    out.push(algorithm as u8);
    out.extend_from_slice(mac);
}
