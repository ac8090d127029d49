//! What follows the stamp: the same for the whole fleet, so that a receiver can compare it.

use std::ops::Range;

use super::{FILE_BIT, STAMP_BYTES, Stamp};

/// What a message carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A chat message.
    Text,
    /// A file.
    File,
}

impl Content {
    /// MIME type, inside the CPIM wrapper.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::File => "application/octet-stream",
        }
    }
}

/// How long the UEs' texts are: session n writes texts of the n-th size, and round again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TextSizes(Vec<usize>);

impl TextSizes {
    /// Sizes in bytes: at least one, none below [`STAMP_BYTES`].
    #[must_use]
    pub fn new(sizes: Vec<usize>) -> Self {
        assert!(!sizes.is_empty());
        assert!(sizes.iter().all(|bytes| *bytes >= STAMP_BYTES));
        Self(sizes)
    }

    /// All of them.
    #[must_use]
    pub fn bytes(&self) -> &[usize] {
        &self.0
    }

    /// Bytes of a text of that session.
    #[must_use]
    pub fn of(&self, session: u32) -> usize {
        self.0[session as usize % self.0.len()]
    }
}

/// The fleet's texts and files behind their stamps.
#[derive(Debug)]
pub struct Contents {
    sizes: TextSizes,
    /// Of the longest text; the others end earlier.
    text: Vec<u8>,
    /// Bytes of a file, stamp included.
    file_bytes: usize,
    /// What files repeat: any byte may occur, and so do line ends and hyphens.
    block: Vec<u8>,
}

/// A prime, so that no power of two moves a file onto itself.
const BLOCK_BYTES: usize = 65_521;

impl Contents {
    /// For texts of those sizes, and files of that many bytes.
    #[must_use]
    pub fn new(sizes: TextSizes, file_bytes: usize) -> Self {
        let longest = sizes.bytes().iter().copied().max().unwrap_or(STAMP_BYTES);
        let text = (b'a'..=b'z').cycle().take(longest - STAMP_BYTES).collect();
        // Knuth's multiplicative congruence; its high bits are even.
        let mut word = 7_u64;
        let next = || {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (word >> 56) as u8
        };
        let mut block: Vec<u8> = std::iter::repeat_with(next).take(BLOCK_BYTES).collect();
        block[1_000..1_009].copy_from_slice(b"\r\n-------");
        Self { sizes, text, file_bytes, block }
    }

    /// Appends a stretch of a content, counted from behind its stamp.
    pub fn write(&self, content: Content, range: Range<usize>, out: &mut Vec<u8>) {
        match content {
            Content::Text => out.extend_from_slice(&self.text[range]),
            Content::File => self.pieces(range).for_each(|piece| out.extend_from_slice(piece)),
        }
    }

    /// Whether `fragment` is what stands there, counted from behind the stamp.
    #[must_use]
    pub fn matches(&self, stamp: Stamp, at: usize, fragment: &[u8]) -> bool {
        let Some(end) = at.checked_add(fragment.len()) else { return false };
        if stamp.sequence & FILE_BIT == 0 {
            return self.text.get(at..end) == Some(fragment);
        }
        let mut rest = fragment;
        self.pieces(at..end).all(|piece| {
            let (first, after) = rest.split_at(piece.len());
            rest = after;
            first == piece
        })
    }

    /// Bytes behind the stamp of a whole message.
    #[must_use]
    pub fn length_of(&self, stamp: Stamp) -> usize {
        let whole = match stamp.sequence & FILE_BIT {
            0 => self.sizes.of(stamp.session),
            _ => self.file_bytes,
        };
        whole.saturating_sub(STAMP_BYTES)
    }

    /// A stretch of a file, block by block.
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let from = at % BLOCK_BYTES;
            let to = BLOCK_BYTES.min(from + (range.end - at));
            at += to - from;
            (to > from).then(|| &self.block[from..to])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_one_that_lacks_moves_or_changes_a_byte() {
        let contents = Contents::new(TextSizes::new(vec![100]), 200_000);
        let stamp = Stamp { session: 0, sequence: FILE_BIT, intended_ns: 0 };
        let mut file = Vec::new();
        contents.write(Content::File, 0..200_000, &mut file);
        assert_eq!(file.len(), 200_000);
        assert!(contents.matches(stamp, 0, &file));
        assert!(contents.matches(stamp, 131_000, &file[131_000..140_000]));
        assert!(!contents.matches(stamp, 131_001, &file[131_000..140_000]));
        file[70_000] ^= 1;
        assert!(!contents.matches(stamp, 65_536, &file[65_536..80_000]));
    }
}
