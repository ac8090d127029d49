//! A key from the configuration file.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Key bytes, written as hex in the file. Zeroised on drop, compared in constant time, never
/// printed.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes over.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Reads hex digits of either case.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        decode_hex(text).map(Self)
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is this key; takes as long for every key of the same length.
    #[must_use]
    pub fn equals(&self, other: &[u8]) -> bool {
        self.0.ct_eq(other).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.equals(&other.0)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // The complaint must not repeat what may be most of a key.
        Self::from_hex(&text)
            .ok_or_else(|| D::Error::custom("expected a key as an even number of hex digits"))
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.as_bytes().chunks_exact(2) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_hex_of_either_case() {
        assert_eq!(decode_hex("00fFa5"), Some(vec![0x00, 0xff, 0xa5]));
    }

    #[test]
    fn rejects_what_is_no_hex() {
        for text in ["0", "0g", "é0", "+1", " 1"] {
            assert_eq!(decode_hex(text), None, "{text:?}");
        }
    }

    #[test]
    fn never_prints_the_key() {
        assert_eq!(format!("{:?}", Secret::from_bytes(vec![1, 2, 3])), "Secret(redacted)");
    }
}
