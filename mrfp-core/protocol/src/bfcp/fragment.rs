//! Messages in several datagrams (RFC 8855 section 6.2.3), on their way out and in.

use super::header::{FRAGMENT_HEADER_BYTES, Fragment, HEADER_BYTES, Header, Transport, WORD_BYTES};

/// A message cut to datagrams. One that fits stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct Fragments<'a> {
    message: &'a [u8],
    header: Header,
    content_bytes_max: usize,
    /// What has been handed out, without headers; `None` when that is everything.
    next: Option<usize>,
}

impl<'a> Fragments<'a> {
    /// Cuts a message that a [`Writer`](super::Writer) has made.
    ///
    /// # Panics
    /// `datagram_bytes_max` leaves no room for a word behind the header; the message is none.
    #[must_use]
    pub fn new(message: &'a [u8], datagram_bytes_max: usize) -> Self {
        assert!(datagram_bytes_max >= FRAGMENT_HEADER_BYTES + WORD_BYTES);
        let header = Header::parse(message, Transport::Unreliable).expect("a message");
        assert!(header.fragment.is_none());
        assert_eq!(message.len(), HEADER_BYTES + header.content_bytes());
        let whole = message.len() <= datagram_bytes_max;
        let content = datagram_bytes_max - FRAGMENT_HEADER_BYTES;
        let content = if whole { message.len() } else { content / WORD_BYTES * WORD_BYTES };
        Self { message, header, content_bytes_max: content, next: Some(0) }
    }

    /// Writes the next datagram and returns its length; `None` after the last one.
    ///
    /// # Panics
    /// `out` is shorter than a datagram may be.
    #[must_use]
    pub fn next(&mut self, out: &mut [u8]) -> Option<usize> {
        let at = self.next?;
        if self.content_bytes_max == self.message.len() {
            self.next = None;
            out[..self.message.len()].copy_from_slice(self.message);
            return Some(self.message.len());
        }
        let content = &self.message[HEADER_BYTES..];
        let end = content.len().min(at + self.content_bytes_max);
        self.next = (end < content.len()).then_some(end);
        let words = |bytes: usize| (bytes / WORD_BYTES) as u16;
        let fragment = Fragment { offset_words: words(at), length_words: words(end - at) };
        let header = Header { fragment: Some(fragment), ..self.header };
        let start = header.write(out).expect("room for the header");
        out[start..start + end - at].copy_from_slice(&content[at..end]);
        Some(start + end - at)
    }
}

/// Puts one message together from its fragments, in whatever order they come.
#[derive(Clone, Default, Debug)]
pub struct Reassembly {
    /// The header as that of a whole message, and the payload.
    message: Vec<u8>,
    header: Option<Header>,
    /// A bit for every word that is there.
    present: Vec<u64>,
    words_missing: usize,
}

/// A fragment lies beyond the payload, contradicts an earlier one, or the message is too long. The
/// message is given up; a server answers with Error 13 (RFC 8855 section 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inconsistent;

impl Reassembly {
    /// Takes a fragment; the message if it is whole now. A fragment of another message gives up
    /// the one that was begun: a peer has one request under way at a time.
    ///
    /// # Errors
    /// See [`Inconsistent`].
    pub fn take(
        &mut self,
        header: &Header,
        content: &[u8],
        message_bytes_max: usize,
    ) -> Result<Option<&[u8]>, Inconsistent> {
        let added = self.add(header, content, message_bytes_max);
        if added != Ok(false) {
            self.header = None;
        }
        added.map(|complete| complete.then_some(self.message.as_slice()))
    }

    /// Whether it has a part of a message.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.header.is_some()
    }

    /// Gives up what has come so far.
    pub fn give_up(&mut self) {
        self.header = None;
    }

    fn add(
        &mut self,
        header: &Header,
        content: &[u8],
        message_bytes_max: usize,
    ) -> Result<bool, Inconsistent> {
        let fragment = header.fragment.ok_or(Inconsistent)?;
        let whole = Header { fragment: None, ..*header };
        if self.header != Some(whole) {
            self.begin(whole, message_bytes_max)?;
        }
        let first = usize::from(fragment.offset_words);
        let words = usize::from(fragment.length_words);
        let place = HEADER_BYTES + first * WORD_BYTES;
        let place = self.message.get_mut(place..place + words * WORD_BYTES).ok_or(Inconsistent)?;
        if place.len() != content.len() {
            return Err(Inconsistent);
        }
        let (place, _) = place.as_chunks_mut::<WORD_BYTES>();
        let (content, _) = content.as_chunks::<WORD_BYTES>();
        for (index, (place, word)) in place.iter_mut().zip(content).enumerate() {
            let (slot, bit) = ((first + index) / 64, 1 << ((first + index) % 64));
            if self.present[slot] & bit == 0 {
                self.present[slot] |= bit;
                self.words_missing -= 1;
                *place = *word;
            } else if place != word {
                return Err(Inconsistent);
            }
        }
        Ok(self.words_missing == 0)
    }

    fn begin(&mut self, whole: Header, message_bytes_max: usize) -> Result<(), Inconsistent> {
        let length = HEADER_BYTES + whole.content_bytes();
        if length > message_bytes_max {
            return Err(Inconsistent);
        }
        self.words_missing = usize::from(whole.payload_words);
        self.message.clear();
        self.message.resize(length, 0);
        whole.write(&mut self.message).expect("as long as a header at least");
        self.present.clear();
        self.present.resize(self.words_missing.div_ceil(64), 0);
        self.header = Some(whole);
        Ok(())
    }
}
