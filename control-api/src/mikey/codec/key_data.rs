//! Key data sub-payloads: the plaintext of a KEMAC (RFC 3830 section 6.13, RFC 6043 section 6.2).

use std::fmt;

use zeroize::Zeroizing;

use super::PAYLOADS_MAX;
use super::code_point as code;
use super::reader::{ParseError, ParseReason, Reader, put_vec8, put_vec16};

/// One key. Zeroised on drop, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyData {
    /// TGK, TEK, MPK, …: 4 bits.
    pub key_type: u8,
    /// The key.
    pub key: Zeroizing<Vec<u8>>,
    /// The salt, exactly where the type says so.
    pub salt: Option<Zeroizing<Vec<u8>>>,
    /// When or by what name the key is used.
    pub validity: KeyValidity,
}

impl fmt::Debug for KeyData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyData")
            .field("key_type", &self.key_type)
            .field("key", &"redacted")
            .field("validity", &self.validity)
            .finish()
    }
}

/// KV data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyValidity {
    /// No restriction.
    Null,
    /// The key's name.
    Spi(Vec<u8>),
    /// From, to.
    Interval(Vec<u8>, Vec<u8>),
}

impl KeyValidity {
    /// By its type; `None` where that is unknown.
    pub(super) fn parse(reader: &mut Reader<'_>, code: u8) -> Result<Option<Self>, ParseError> {
        Ok(Some(match code {
            0 => Self::Null,
            1 => Self::Spi(reader.vec8()?),
            2 => Self::Interval(reader.vec8()?, reader.vec8()?),
            _ => return Ok(None),
        }))
    }

    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Spi(_) => 1,
            Self::Interval(..) => 2,
        }
    }
}

/// Writes what follows the type.
pub(super) fn put_validity(out: &mut Vec<u8>, validity: &KeyValidity) {
    match validity {
        KeyValidity::Null => {}
        KeyValidity::Spi(spi) => put_vec8(out, spi),
        KeyValidity::Interval(from, to) => {
            put_vec8(out, from);
            put_vec8(out, to);
        }
    }
}

impl KeyData {
    /// The SPI, where the key has one.
    #[must_use]
    pub fn spi(&self) -> Option<&[u8]> {
        match &self.validity {
            KeyValidity::Spi(spi) => Some(spi),
            KeyValidity::Null | KeyValidity::Interval(..) => None,
        }
    }
}

/// Reads the plaintext of a KEMAC.
///
/// # Errors
/// [`ParseError`], with offsets from the start of the plaintext.
pub fn parse_key_data(plaintext: &[u8]) -> Result<Vec<KeyData>, ParseError> {
    let mut reader = Reader::new(plaintext);
    reader.enter("Key data");
    let mut keys = Vec::new();
    if reader.is_empty() {
        return Ok(keys);
    }
    loop {
        if keys.len() == PAYLOADS_MAX {
            return Err(reader.error(ParseReason::TooManyPayloads));
        }
        let at = reader.clone();
        let next = reader.u8()?;
        keys.push(parse_key(&mut reader)?);
        match next {
            code::LAST => break,
            code::KEY_DATA => {}
            unknown => return Err(at.error(ParseReason::MisplacedPayload(unknown))),
        }
    }
    reader.finish()?;
    Ok(keys)
}

fn parse_key(reader: &mut Reader<'_>) -> Result<KeyData, ParseError> {
    let at_type = reader.clone();
    let types = reader.u8()?;
    let key_type = types >> 4;
    if key_type > code::KEY_MPK {
        return Err(at_type.error(ParseReason::UnknownKeyType(types)));
    }
    let key = Zeroizing::new(reader.vec16()?);
    let salt = if has_salt(key_type) { Some(Zeroizing::new(reader.vec16()?)) } else { None };
    let validity = KeyValidity::parse(reader, types & 0x0f)?
        .ok_or_else(|| at_type.error(ParseReason::UnknownKeyType(types)))?;
    Ok(KeyData { key_type, key, salt, validity })
}

/// Writes the plaintext of a KEMAC.
#[must_use]
pub fn encode_key_data(keys: &[KeyData]) -> Zeroizing<Vec<u8>> {
    // Room for everything at once: a vector that grows leaves copies of keys behind.
    let bytes_max = keys.iter().map(key_bytes_max).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(bytes_max));
    for (index, key) in keys.iter().enumerate() {
        out.push(if index + 1 < keys.len() { code::KEY_DATA } else { code::LAST });
        out.push(key.key_type << 4 | key.validity.code());
        put_vec16(&mut out, &key.key);
        assert_eq!(key.salt.is_some(), has_salt(key.key_type), "the type says whether");
        if let Some(salt) = &key.salt {
            put_vec16(&mut out, salt);
        }
        put_validity(&mut out, &key.validity);
    }
    assert!(out.len() <= bytes_max);
    out
}

fn key_bytes_max(key: &KeyData) -> usize {
    /// Next payload, types, three 16-bit or 8-bit length fields.
    const OVERHEAD_BYTES: usize = 8;
    let validity = match &key.validity {
        KeyValidity::Null => 0,
        KeyValidity::Spi(spi) => spi.len(),
        KeyValidity::Interval(from, to) => from.len() + to.len(),
    };
    OVERHEAD_BYTES + key.key.len() + key.salt.as_ref().map_or(0, |salt| salt.len()) + validity
}

fn has_salt(key_type: u8) -> bool {
    matches!(key_type, code::KEY_TGK_SALT | code::KEY_TEK_SALT | code::KEY_GTGK_SALT)
}
