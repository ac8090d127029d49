//! Transaction and message identifiers made here.

use std::fmt;

/// Shortest `ident` (RFC 4975 section 9): transaction identifiers and Message-IDs.
pub const IDENT_BYTES_MIN: usize = 4;
/// Longest `ident` (RFC 4975 section 9).
pub const IDENT_BYTES_MAX: usize = 32;

/// Longest Message-ID that is accepted. The grammar wants an `ident`, and clients send UUIDs in braces
/// (38 characters) or as URNs (45) nevertheless.
pub const MESSAGE_ID_BYTES_MAX: usize = 64;

/// Whether `text` is taken for a Message-ID: visible characters, of which an `ident` is made, too.
pub fn is_message_id(text: &[u8]) -> bool {
    (1..=MESSAGE_ID_BYTES_MAX).contains(&text.len())
        // Without a branch for each.
        && text.iter().fold(true, |all, byte| all & byte.is_ascii_graphic())
}

/// Whether `text` is an `ident`: ALPHANUM and 3 to 31 of ALPHANUM . - + % =
pub fn is_ident(text: &[u8]) -> bool {
    split_ident(text).is_some_and(|(_, rest)| rest.is_empty())
}

/// The `ident` at the front as far as its characters go, and what follows it.
#[inline]
pub(super) fn split_ident(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = text.first()?;
    let end = text.iter().position(|&byte| !IDENT_CHARACTERS[usize::from(byte)]);
    let (ident, rest) = text.split_at(end.unwrap_or(text.len()));
    let fits = (IDENT_BYTES_MIN..=IDENT_BYTES_MAX).contains(&ident.len());
    (fits && first.is_ascii_alphanumeric()).then_some((ident, rest))
}

/// A transaction identifier: 13 characters that carry 64 bits.
///
/// RFC 4975 section 7.1 wants the end-line absent from the body. With 64 bits that nobody else can
/// foretell (the caller draws them from a keyed hash or a generator) a body cannot be aimed at the
/// identifier, so bodies are not scanned before they are sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId([u8; Self::BYTES]);

impl TransactionId {
    /// Length of the text.
    pub const BYTES: usize = 13;

    /// The text of 64 bits; different bits, different text.
    pub fn from_u64(bits: u64) -> Self {
        let mut rest = bits;
        // Nothing is longer than a word here, so nothing of the arithmetic is.
        Self(std::array::from_fn(|_| {
            let character = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
            character
        }))
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

/// A Message-ID: 26 characters that carry 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId([u8; Self::BYTES]);

impl MessageId {
    /// Length of the text.
    pub const BYTES: usize = 26;

    /// The text of 128 bits; different bits, different text.
    pub fn from_u128(bits: u128) -> Self {
        Self(base32(bits))
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransactionId({})", self.0.escape_ascii())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({})", self.0.escape_ascii())
    }
}

/// Letters and digits only, so that every character may stand first in an ident.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Five bits a character, lowest first.
fn base32<const N: usize>(bits: u128) -> [u8; N] {
    let mut rest = bits;
    let text = std::array::from_fn(|_| {
        let character = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
        character
    });
    assert_eq!(rest, 0);
    text
}

static IDENT_CHARACTERS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        table[byte] = character.is_ascii_alphanumeric()
            || matches!(character, b'.' | b'-' | b'+' | b'%' | b'=');
        byte += 1;
    }
    table
};
