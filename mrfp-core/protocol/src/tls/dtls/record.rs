//! The record layer: a record to a datagram, in place, on keys taken over from a finished handshake.

use std::ops::Range;

use aws_lc_rs::aead;

use super::super::keys::TrafficKeys;
use super::super::numbers::{
    ALERT_CLOSE_NOTIFY, CONTENT_ALERT, CONTENT_APPLICATION_DATA, CONTENT_HANDSHAKE, LEVEL_FATAL,
    LEVEL_WARNING,
};
use super::super::record::{BLOCK_BYTES, BLOCKS_MAX, TAG_BYTES, counted_nonce, sequence_nonce};
use super::super::suite::Aead;
use super::replay::ReplayWindow;
use super::{HEADER_BYTES, Header, VERSION, numbered};

/// Bytes that must be free before the plaintext handed to [`Session::seal`].
pub const SEAL_HEADROOM_BYTES: usize = HEADER_BYTES + 8;
/// Bytes that must be free behind it.
pub const SEAL_TAILROOM_BYTES: usize = TAG_BYTES;

/// An established association: traffic keys, sequence numbers, and which have been seen.
pub struct Session {
    keys: TrafficKeys,
    aead: Aead,
    /// Made from `keys` when it is needed, and dropped where it has not been for long.
    expanded: Option<Box<Expanded>>,
    window: ReplayWindow,
    /// What the client has to have received, as long as nothing shows that it has.
    last_flight: Option<Box<LastFlight>>,
}

/// The key schedules of both directions, by far the largest part of a session.
struct Expanded {
    read: aead::LessSafeKey,
    write: aead::LessSafeKey,
}

/// The end of a handshake whose last word was ours.
struct LastFlight {
    datagrams: Vec<Vec<u8>>,
    /// How often it may leave again.
    repeats_left: u8,
}

/// What the record at the front of a datagram was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Application data, opened in place.
    Data(Range<usize>),
    /// The peer has closed the association.
    CloseNotify,
    /// The peer has broken it off, for the reason of this number.
    FatalAlert(u8),
    /// The peer has repeated the end of its handshake: what [`Session::last_flight`] has is to leave again.
    Repeated,
    /// Nothing of the peer's, or nothing new: it is passed over in silence (RFC 6347 section 4.1.2.7).
    Nothing,
}

/// The keys have protected as much as they may; the association has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeysExhausted;

impl Session {
    pub(super) fn new(keys: TrafficKeys, aead: Aead, last_flight: Vec<Vec<u8>>) -> Self {
        let last_flight = (!last_flight.is_empty())
            .then(|| Box::new(LastFlight { datagrams: last_flight, repeats_left: REPEATS_MAX }));
        Self { keys, aead, expanded: None, window: ReplayWindow::default(), last_flight }
    }

    /// Opens the record at the front of a datagram, or of what is left of one, in place. Says what it was and
    /// how many bytes it had; `None` where nothing is left that could be one.
    pub fn open(&mut self, datagram: &mut [u8]) -> Option<(Record, usize)> {
        let header = Header::parse(datagram)?;
        let consumed = HEADER_BYTES + header.length;
        let record = self.open_record(header, &mut datagram[..consumed]);
        Some((record.unwrap_or(Record::Nothing), consumed))
    }

    fn open_record(&mut self, header: Header, record: &mut [u8]) -> Option<Record> {
        // Records of the handshake, in the clear, prove nothing and change nothing.
        if header.version != VERSION
            || header.epoch != EPOCH
            || !self.window.is_new(header.sequence)
        {
            return None;
        }
        let plaintext = self.decrypt(header, record)?;
        self.window.note(header.sequence);
        match (header.content_type, &record[plaintext.clone()]) {
            (CONTENT_APPLICATION_DATA, data) => {
                self.last_flight = None;
                (!data.is_empty()).then_some(Record::Data(plaintext))
            }
            (CONTENT_ALERT, &[_, ALERT_CLOSE_NOTIFY]) => Some(Record::CloseNotify),
            (CONTENT_ALERT, &[LEVEL_FATAL, description]) => Some(Record::FatalAlert(description)),
            (CONTENT_HANDSHAKE, _) => {
                let flight = self.last_flight.as_mut()?;
                flight.repeats_left = flight.repeats_left.checked_sub(1)?;
                Some(Record::Repeated)
            }
            // Warnings; a renegotiation is not even refused.
            _ => None,
        }
    }

    fn decrypt(&mut self, header: Header, record: &mut [u8]) -> Option<Range<usize>> {
        let start = HEADER_BYTES + self.aead.tls12_explicit_nonce_bytes();
        let plaintext_bytes = record.len().checked_sub(start + TAG_BYTES)?;
        let number = numbered(EPOCH, header.sequence);
        let nonce = if start == HEADER_BYTES {
            sequence_nonce(&self.keys.read.iv, u64::from_be_bytes(number))
        } else {
            let mut nonce = self.keys.read.iv;
            nonce[4..].copy_from_slice(&record[HEADER_BYTES..start]);
            nonce
        };
        let additional = additional_data(number, header.content_type, plaintext_bytes);
        let (sealed, tag) = record[start..].split_at_mut(plaintext_bytes);
        self.expanded()
            .read
            .open_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(additional),
                tag,
                sealed,
            )
            .ok()?;
        Some(start..start + plaintext_bytes)
    }

    fn expanded(&mut self) -> &mut Expanded {
        let Self { keys, aead, expanded, .. } = self;
        expanded.get_or_insert_with(|| {
            let read = keys.read.expand(*aead, keys.suite);
            let write = keys.write.expand(*aead, keys.suite);
            Box::new(Expanded { read, write })
        })
    }

    /// Seals `memory[plaintext]` in place as one record, and returns where it lies. Needs
    /// [`SEAL_HEADROOM_BYTES`] before and [`SEAL_TAILROOM_BYTES`] behind.
    ///
    /// # Panics
    /// If the plaintext is longer than a datagram or has too little room around it.
    pub fn seal(
        &mut self,
        memory: &mut [u8],
        plaintext: Range<usize>,
    ) -> Result<Range<usize>, KeysExhausted> {
        let is_worn = self.aead.is_gcm() && self.keys.blocks_written >= BLOCKS_MAX;
        if is_worn || self.keys.write.sequence >= SEQUENCE_MAX {
            return Err(KeysExhausted);
        }
        Ok(self.encrypt(CONTENT_APPLICATION_DATA, memory, plaintext))
    }

    fn encrypt(
        &mut self,
        content_type: u8,
        memory: &mut [u8],
        plain: Range<usize>,
    ) -> Range<usize> {
        let explicit_bytes = self.aead.tls12_explicit_nonce_bytes();
        let body = plain.start - explicit_bytes;
        let record = body - HEADER_BYTES..plain.end + TAG_BYTES;
        let sequence = self.keys.write.sequence;
        let length = record.end - body;
        let header = Header { content_type, version: VERSION, epoch: EPOCH, sequence, length };
        memory[record.start..body].copy_from_slice(&header.to_bytes());
        let number = numbered(EPOCH, sequence);
        let nonce = if explicit_bytes == 0 {
            sequence_nonce(&self.keys.write.iv, u64::from_be_bytes(number))
        } else {
            let nonce = counted_nonce(&self.keys.write.iv, sequence);
            memory[body..plain.start].copy_from_slice(&nonce[4..]);
            nonce
        };
        let additional = additional_data(number, content_type, plain.len());
        let (plaintext, tag) = memory[plain.start..record.end].split_at_mut(plain.len());
        self.expanded()
            .write
            .seal_in_place_scatter(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(additional),
                plaintext,
                &[],
                tag,
            )
            .expect("a datagram is far below the cipher's limit");
        self.keys.write.sequence += 1;
        self.keys.blocks_written += (plain.len() / BLOCK_BYTES) as u64 + 2;
        record
    }

    /// A sealed close_notify, to be sent last.
    pub fn close_notify(&mut self) -> Vec<u8> {
        let plain = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + 2;
        let mut memory = vec![0; plain.end + SEAL_TAILROOM_BYTES];
        memory[plain.clone()].copy_from_slice(&[LEVEL_WARNING, ALERT_CLOSE_NOTIFY]);
        let record = self.encrypt(CONTENT_ALERT, &mut memory, plain);
        memory.truncate(record.end);
        memory.drain(..record.start);
        memory
    }

    /// The end of our side of the handshake, a datagram each, as long as the peer may not have received it.
    #[must_use]
    pub fn last_flight(&self) -> &[Vec<u8>] {
        self.last_flight.as_ref().map_or(&[], |flight| &flight.datagrams)
    }

    /// For an association nothing has been said in for a while: keeps the raw keys alone. The next record
    /// takes a microsecond more.
    pub fn rest(&mut self) {
        self.expanded = None;
    }

    /// The suite by OpenSSL name.
    #[must_use]
    pub fn suite(&self) -> &'static str {
        self.keys.suite.name
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, redacted)", self.suite())
    }
}

/// RFC 5246 section 6.2.3.3, where the sequence number includes the epoch (RFC 6347 section 4.1.2.1).
fn additional_data(number: [u8; 8], content_type: u8, length: usize) -> [u8; 13] {
    let mut bytes = [0; 13];
    bytes[..8].copy_from_slice(&number);
    bytes[8] = content_type;
    bytes[9..11].copy_from_slice(&VERSION);
    let length = u16::try_from(length).expect("a record's length fits its field");
    bytes[11..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// That of the first keys; as nothing is ever negotiated again, of the last ones, too.
const EPOCH: u16 = 1;
/// Sequence numbers have 48 bits, and must not begin anew (RFC 6347 section 4.1).
const SEQUENCE_MAX: u64 = (1 << 48) - 1;
/// How often the last flight leaves again: as often as a client asks in more than a minute.
const REPEATS_MAX: u8 = 8;
