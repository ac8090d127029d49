//! The COMMON-HEADER (RFC 8855 section 5.1), and messages cut from a stream by it.

use super::Primitive;

/// What a message travels on; its version follows from that (RFC 8855 section 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP, with TLS or without: version 1, neither responder flag nor fragments.
    Reliable,
    /// UDP, with DTLS or without: version 2.
    Unreliable,
}

/// The header every message and every fragment begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// 1 or 2, if all is well; 3 bits.
    pub version: u8,
    /// It answers a request. Only on an unreliable transport.
    pub responder: bool,
    /// What is here is a part of a message. Only on an unreliable transport.
    pub fragment: Option<Fragment>,
    /// Code of the primitive; [`Primitive::from_code`] knows those of RFC 8855.
    pub primitive: u8,
    /// Length of the whole message behind the header, in units of 4 bytes.
    pub payload_words: u16,
    /// The conference.
    pub conference_id: u32,
    /// Ties a response to its request; 0 on notifications over a reliable transport.
    pub transaction_id: u16,
    /// The participant the message is from or for.
    pub user_id: u16,
}

/// Where a fragment belongs, in units of 4 bytes behind the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Begins there.
    pub offset_words: u16,
    /// Is that long.
    pub length_words: u16,
}

/// Length of the header of a message that is whole.
pub const HEADER_BYTES: usize = 12;
/// Length of the header of a fragment.
pub const FRAGMENT_HEADER_BYTES: usize = 16;
/// What lengths are counted in.
pub(super) const WORD_BYTES: usize = 4;
/// The longest message the payload length can express.
pub const MESSAGE_BYTES_MAX: usize = HEADER_BYTES + u16::MAX as usize * WORD_BYTES;

const RESPONDER: u8 = 0x10;
const FRAGMENT: u8 = 0x08;

impl Transport {
    /// The only version that is spoken on it.
    #[must_use]
    pub fn version(self) -> u8 {
        match self {
            Self::Reliable => 1,
            Self::Unreliable => 2,
        }
    }
}

impl Header {
    /// The header of a message that is whole. Its payload length is filled in by the writer.
    #[must_use]
    pub fn new(
        transport: Transport,
        primitive: Primitive,
        conference_id: u32,
        transaction_id: u16,
        user_id: u16,
    ) -> Self {
        Self {
            version: transport.version(),
            responder: false,
            fragment: None,
            primitive: primitive.code(),
            payload_words: 0,
            conference_id,
            transaction_id,
            user_id,
        }
    }

    /// The header of what answers a message with this header: it has its conference, transaction and
    /// user (RFC 8855 section 8.2).
    #[must_use]
    pub fn response(&self, transport: Transport, primitive: Primitive) -> Self {
        let (conference_id, user_id) = (self.conference_id, self.user_id);
        let responder = transport == Transport::Unreliable;
        let header = Self::new(transport, primitive, conference_id, self.transaction_id, user_id);
        Self { responder, ..header }
    }

    /// Reads a header; `None` where there are not bytes enough for one.
    ///
    /// RFC 8855 section 5.1: the flags have no meaning on a reliable transport and are ignored, so
    /// its headers are always of the short kind.
    #[must_use]
    pub fn parse(bytes: &[u8], transport: Transport) -> Option<Self> {
        let (start, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let unreliable = transport == Transport::Unreliable;
        let fragment = if unreliable && start[0] & FRAGMENT != 0 {
            let [a, b, c, d] = *rest.first_chunk::<4>()?;
            Some(Fragment {
                offset_words: u16::from_be_bytes([a, b]),
                length_words: u16::from_be_bytes([c, d]),
            })
        } else {
            None
        };
        Some(Self {
            version: start[0] >> 5,
            responder: unreliable && start[0] & RESPONDER != 0,
            fragment,
            primitive: start[1],
            payload_words: u16::from_be_bytes([start[2], start[3]]),
            conference_id: u32::from_be_bytes([start[4], start[5], start[6], start[7]]),
            transaction_id: u16::from_be_bytes([start[8], start[9]]),
            user_id: u16::from_be_bytes([start[10], start[11]]),
        })
    }

    /// Writes the header and returns its length; `None` where it does not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let flags = if self.responder { RESPONDER } else { 0 };
        let fragment = if self.fragment.is_some() { FRAGMENT } else { 0 };
        let start = out.get_mut(..self.bytes())?;
        start[0] = self.version << 5 | flags | fragment;
        start[1] = self.primitive;
        start[2..4].copy_from_slice(&self.payload_words.to_be_bytes());
        start[4..8].copy_from_slice(&self.conference_id.to_be_bytes());
        start[8..10].copy_from_slice(&self.transaction_id.to_be_bytes());
        start[10..12].copy_from_slice(&self.user_id.to_be_bytes());
        if let Some(fragment) = self.fragment {
            start[12..14].copy_from_slice(&fragment.offset_words.to_be_bytes());
            start[14..16].copy_from_slice(&fragment.length_words.to_be_bytes());
        }
        Some(self.bytes())
    }

    /// Its length on the wire.
    #[must_use]
    pub fn bytes(&self) -> usize {
        if self.fragment.is_some() { FRAGMENT_HEADER_BYTES } else { HEADER_BYTES }
    }

    /// The bytes that should follow the header: of the message, or of the fragment.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        let words = self.fragment.map_or(self.payload_words, |fragment| fragment.length_words);
        usize::from(words) * WORD_BYTES
    }

    /// What follows the header in `bytes`, which begin with it; `None` where that is not as long
    /// as the header says. A server answers that with Error 13 (RFC 8855 section 5.1).
    #[must_use]
    pub fn content<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let content = bytes.get(self.bytes()..)?;
        (content.len() == self.content_bytes()).then_some(content)
    }
}

/// Cuts messages from a stream. It holds nothing: what is incomplete stays with the caller.
#[derive(Clone, Copy, Debug)]
pub struct Framer {
    message_bytes_max: usize,
}

/// A message is longer than is taken. Where the next begins is nothing to wait for: a server
/// answers with Error 13 and closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong {
    /// Its header.
    pub header: Header,
}

impl Framer {
    /// For messages of at most so many bytes, headers included.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        assert!(message_bytes_max >= HEADER_BYTES);
        Self { message_bytes_max }
    }

    /// The first message in `bytes`, whole; `None` while there is none.
    ///
    /// # Errors
    /// It is too long.
    pub fn next<'a>(&self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, TooLong> {
        let Some(header) = Header::parse(bytes, Transport::Reliable) else { return Ok(None) };
        let length = HEADER_BYTES + header.content_bytes();
        if length > self.message_bytes_max {
            return Err(TooLong { header });
        }
        Ok(bytes.get(..length))
    }
}
