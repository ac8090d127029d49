//! DTLS 1.2 (RFC 6347) with certificates that both ends know by their fingerprints (RFC 8122), as UDPTL
//! uses it (RFC 7345). OpenSSL performs the handshake in memory, a datagram at a time; then its keys are
//! taken over, it is dropped, and our own record layer carries the data in place, a record to a datagram.
//!
//! As server: [`Cookies`] answers what comes from an address that has proven nothing yet, and keeps no
//! state for it; what it finds proven begins a [`Handshake`]. As client a [`Handshake`] begins by itself.
//! Both are fed datagrams and the passing of time, and end in a [`Session`].

mod cookie;
mod datagram_stream;
mod handshake;
mod profile;
mod record;
mod replay;

pub use cookie::{Cookies, Greeting, ProvenHello};
pub use handshake::{Handshake, Progress};
pub use profile::{Credentials, Profile};
pub use record::{KeysExhausted, Record, SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES, Session};

/// Type, version, epoch, sequence number, length (RFC 6347 section 4.1).
const HEADER_BYTES: usize = 13;
/// DTLS 1.2 (RFC 6347 section 4.1).
const VERSION: [u8; 2] = [0xfe, 0xfd];
/// What records of a first ClientHello and HelloVerifyRequest may say (RFC 6347 section 4.2.1).
const VERSION_OF_FIRST: [u8; 2] = [0xfe, 0xff];

/// The header of a record.
#[derive(Clone, Copy, Debug)]
struct Header {
    content_type: u8,
    version: [u8; 2],
    epoch: u16,
    /// 48 bits.
    sequence: u64,
    length: usize,
}

impl Header {
    /// That of the record at the front, if the record is there as a whole.
    fn parse(datagram: &[u8]) -> Option<Self> {
        let &[content_type, major, minor, e1, e0, s5, s4, s3, s2, s1, s0, high, low, ref rest @ ..] =
            datagram
        else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        (rest.len() >= length).then_some(Self {
            content_type,
            version: [major, minor],
            epoch: u16::from_be_bytes([e1, e0]),
            sequence: u64::from_be_bytes([0, 0, s5, s4, s3, s2, s1, s0]),
            length,
        })
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.content_type;
        bytes[1..3].copy_from_slice(&self.version);
        bytes[3..11].copy_from_slice(&numbered(self.epoch, self.sequence));
        let length = u16::try_from(self.length).expect("a record's length fits its field");
        bytes[11..].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}

/// Epoch and sequence number as one, as they stand in headers and go into nonces.
fn numbered(epoch: u16, sequence: u64) -> [u8; 8] {
    (u64::from(epoch) << 48 | sequence).to_be_bytes()
}
