//! Bytes written as text.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Whether there is nothing in it that no text has.
pub(super) fn is_text(text: &str) -> bool {
    !text.contains(|character: char| character.is_control() && !character.is_ascii_whitespace())
}

/// Hex (with blanks, colons or `0x`), else base64.
pub(super) fn decode_text(text: &str) -> Option<Vec<u8>> {
    let packed: String = text.split_whitespace().collect();
    let digits = packed.replace("0x", "").replace([':', ','], "");
    decode_hex(&digits).or_else(|| decode_base64(packed.as_bytes()))
}

fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let pairs = digits.as_bytes().chunks_exact(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Either alphabet, padded or not.
pub(super) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let standard: Vec<u8> = text
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => *byte,
        })
        .collect();
    let padding = DecodePaddingMode::Indifferent;
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding);
    let decoded = GeneralPurpose::new(&STANDARD, config).decode(standard).ok()?;
    (!decoded.is_empty()).then_some(decoded)
}
