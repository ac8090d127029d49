//! What all messages of a kind have in common: the bytes of one, and where they differ.

use std::ops::Range;

/// A message with holes. It recognises messages that differ from it in the holes alone, and writes
/// such messages, either without parsing.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    sample: Vec<u8>,
    /// In order, without overlap.
    holes: Vec<Range<usize>>,
}

impl Pattern {
    pub(super) fn new(sample: Vec<u8>, holes: Vec<Range<usize>>) -> Self {
        assert!(holes.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert!(holes.last().is_none_or(|hole| hole.end <= sample.len()));
        Self { sample, holes }
    }

    pub(super) fn length(&self) -> usize {
        self.sample.len()
    }

    /// The bytes, as they were filled in last.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.sample
    }

    /// Whether such a message stands, whole, at the front of the input.
    pub(super) fn matches(&self, input: &[u8]) -> bool {
        let Some(input) = input.get(..self.sample.len()) else { return false };
        let mut at = 0;
        for hole in &self.holes {
            if input[at..hole.start] != self.sample[at..hole.start] {
                return false;
            }
            at = hole.end;
        }
        input[at..] == self.sample[at..]
    }

    /// What a message that matches has in a hole.
    pub(super) fn hole<'a>(&self, number: usize, input: &'a [u8]) -> &'a [u8] {
        &input[self.holes[number].clone()]
    }

    /// Fills a hole.
    pub(super) fn fill(&mut self, number: usize, value: &[u8]) {
        self.sample[self.holes[number].clone()].copy_from_slice(value);
    }
}

/// Low digits of a number, in hex.
pub(super) fn hex<const DIGITS: usize>(mut value: u64) -> [u8; DIGITS] {
    let mut out = [0; DIGITS];
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
    out
}

/// Its inverse, up to 16 digits.
pub(super) fn from_hex(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_what_differs_in_the_holes_alone() {
        let mut pattern = Pattern::new(b"MSRP aaaa 200 aaaa$".to_vec(), vec![5..9, 14..18]);
        assert!(pattern.matches(b"MSRP 1234 200 5678$ and more"));
        assert_eq!(pattern.hole(1, b"MSRP 1234 200 5678$"), b"5678");
        for other in ["MSRP 1234 201 1234$", "MSRP 1234 200 1234+", "MSRP 1234 200 1234"] {
            assert!(!pattern.matches(other.as_bytes()), "{other}");
        }
        pattern.fill(0, b"bbbb");
        assert_eq!(pattern.bytes(), b"MSRP bbbb 200 aaaa$");
        assert_eq!(pattern.length(), 19);
    }

    #[test]
    fn hex_goes_both_ways() {
        assert_eq!(&hex::<8>(0xbad_cafe), b"0badcafe");
        assert_eq!(from_hex(b"0badcafe"), Some(0xbad_cafe));
        assert_eq!(from_hex(b"0BADCAFE"), None);
    }
}
