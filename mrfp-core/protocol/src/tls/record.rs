//! The record layer: AEAD records in place, on keys taken over from a finished handshake.

use std::ops::Range;

use aws_lc_rs::aead;

use super::keys::{Role, TrafficKeys};
use super::numbers::{
    ALERT_CLOSE_NOTIFY, ALERT_NO_RENEGOTIATION, ALERT_USER_CANCELED, CONTENT_ALERT,
    CONTENT_APPLICATION_DATA, CONTENT_HANDSHAKE, LEVEL_WARNING, MESSAGE_CLIENT_HELLO,
    MESSAGE_HELLO_REQUEST, MESSAGE_KEY_UPDATE, MESSAGE_NEW_SESSION_TICKET,
};
use super::suite::{Aead, Protection, Version};
use super::{Opened, PLAINTEXT_BYTES_MAX, RecordError, SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES};

/// An established AEAD session.
pub(super) struct RecordLayer {
    keys: TrafficKeys,
    aead: Aead,
    /// Made from `keys` when it is needed, and dropped where it has not been for long.
    expanded: Option<Box<Expanded>>,
    /// What we owe the peer; sealed only when it is fetched, so that the order of calls is the
    /// order on the wire.
    owed: Owed,
    /// Bytes of a handshake message under way that we do not act upon.
    skip_bytes: u32,
    /// Records in a row without data (empty, alerts, tickets, key updates).
    idle_records: u16,
    /// Renegotiations the peer tried.
    renegotiations: u16,
    /// The peer has sent close_notify; what follows is ignored (RFC 8446 section 6.1).
    read_closed: bool,
}

/// What an idle session costs: the raw keys and a few counters. Nothing of OpenSSL's is left of the
/// handshake, and no buffer is held between two records.
const RECORD_LAYER_SIZE_MAX: usize = 128;
const _: () = assert!(size_of::<RecordLayer>() <= RECORD_LAYER_SIZE_MAX);

/// The key schedules of both directions, by far the largest part of a session. To make them anew takes
/// less time than to open a short record. AWS-LC clears all memory it gives back, these among it.
struct Expanded {
    read: aead::LessSafeKey,
    write: aead::LessSafeKey,
}

impl Expanded {
    fn new(keys: &TrafficKeys, aead: Aead) -> Box<Self> {
        let read = keys.read.expand(aead, keys.suite);
        let write = keys.write.expand(aead, keys.suite);
        Box::new(Self { read, write })
    }
}

/// Records of our own that wait to be sealed.
#[derive(Default)]
struct Owed {
    key_update: bool,
    no_renegotiation: u16,
}

impl RecordLayer {
    pub(super) fn new(keys: TrafficKeys) -> Self {
        let Protection::Aead(aead) = keys.suite.protection else {
            unreachable!("only AEAD keys are ever taken over");
        };
        Self {
            aead,
            expanded: Some(Expanded::new(&keys, aead)),
            keys,
            owed: Owed::default(),
            skip_bytes: 0,
            idle_records: 0,
            renegotiations: 0,
            read_closed: false,
        }
    }

    /// The raw keys, unless something is under way that they do not describe.
    pub(super) fn into_traffic_keys(self: Box<Self>) -> Result<TrafficKeys, Box<Self>> {
        let owes = self.owed.key_update || self.owed.no_renegotiation != 0;
        if owes || self.skip_bytes != 0 || self.read_closed {
            return Err(self);
        }
        // A copy, since what is moved out of the box would stay behind in it.
        Ok(self.keys.duplicate())
    }

    /// Keeps the raw keys alone; the next record, in either direction, expands them again.
    pub(super) fn rest(&mut self) {
        self.expanded = None;
    }

    pub(super) fn suite(&self) -> &'static str {
        self.keys.suite.name
    }

    pub(super) fn open(&mut self, input: &mut [u8]) -> Result<Opened, RecordError> {
        if self.read_closed {
            let consumed = input.len();
            return Ok(Opened::CloseNotify { consumed });
        }
        let Some(consumed) = self.whole_record(input)? else {
            return Ok(Opened::NeedInput);
        };
        let (content_type, plaintext) = self.decrypt(&mut input[..consumed])?;
        if plaintext.len() > PLAINTEXT_BYTES_MAX {
            return Err(RecordError::RecordOverflow);
        }
        if content_type == CONTENT_APPLICATION_DATA && !plaintext.is_empty() {
            self.idle_records = 0;
        } else {
            self.idle_records += 1;
            if self.idle_records > IDLE_RECORDS_MAX {
                return Err(RecordError::UnexpectedMessage);
            }
        }
        if self.skip_bytes != 0 && content_type != CONTENT_HANDSHAKE {
            // RFC 8446 section 5.1: other records must not come between the fragments.
            return Err(RecordError::UnexpectedMessage);
        }
        match content_type {
            CONTENT_APPLICATION_DATA => Ok(Opened::Data { plaintext, consumed }),
            CONTENT_ALERT => self.receive_alert(&input[plaintext], consumed),
            CONTENT_HANDSHAKE => {
                self.receive_handshake(&input[plaintext])?;
                Ok(Opened::Handled { consumed })
            }
            _ => Err(RecordError::UnexpectedMessage),
        }
    }

    /// Checks the header at the front; the length of the record if all of it is there.
    fn whole_record(&self, input: &[u8]) -> Result<Option<usize>, RecordError> {
        let &[content_type, major, minor, high, low, ..] = input else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (plausible, expansion_max) = match self.keys.suite.version {
            Version::Tls12 => (
                matches!(
                    content_type,
                    CONTENT_ALERT | CONTENT_HANDSHAKE | CONTENT_APPLICATION_DATA
                ),
                TLS12_EXPANSION_BYTES_MAX,
            ),
            // A ChangeCipherSpec is legal only before the peer's Finished (RFC 8446 section 5).
            Version::Tls13 => (content_type == CONTENT_APPLICATION_DATA, TLS13_EXPANSION_BYTES_MAX),
        };
        if !plausible || (major, minor) != (3, 3) {
            return Err(RecordError::UnexpectedMessage);
        }
        if length > PLAINTEXT_BYTES_MAX + expansion_max {
            return Err(RecordError::RecordOverflow);
        }
        Ok(Some(HEADER_BYTES + length).filter(|&record| record <= input.len()))
    }

    /// Opens one whole record: its content type and where its plaintext lies.
    pub(super) fn decrypt(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), RecordError> {
        let expanded = self.expanded.get_or_insert_with(|| Expanded::new(&self.keys, self.aead));
        let keys = &mut self.keys.read;
        if keys.sequence >= SEQUENCE_MAX {
            return Err(RecordError::KeysExhausted);
        }
        let header: [u8; HEADER_BYTES] = std::array::from_fn(|at| record[at]);
        let start = match self.keys.suite.version {
            Version::Tls12 => HEADER_BYTES + self.aead.tls12_explicit_nonce_bytes(),
            Version::Tls13 => HEADER_BYTES,
        };
        let Some(plaintext_bytes) = record.len().checked_sub(start + TAG_BYTES) else {
            return Err(RecordError::BadRecordMac);
        };
        let (nonce, additional) = match self.keys.suite.version {
            Version::Tls12 => {
                let nonce = if start == HEADER_BYTES {
                    sequence_nonce(&keys.iv, keys.sequence)
                } else {
                    let mut nonce = keys.iv;
                    nonce[4..].copy_from_slice(&record[HEADER_BYTES..start]);
                    nonce
                };
                let additional = tls12_additional_data(keys.sequence, header[0], plaintext_bytes);
                (nonce, additional)
            }
            Version::Tls13 => {
                (sequence_nonce(&keys.iv, keys.sequence), AdditionalData::tls13(header))
            }
        };
        // With its tag in one slice the plaintext would be moved afterwards, to where it is.
        let (sealed, tag) = record[start..].split_at_mut(plaintext_bytes);
        let opened = expanded
            .read
            .open_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(additional.as_ref()),
                tag,
                sealed,
            )
            .map_err(|_| RecordError::BadRecordMac)?;
        keys.sequence += 1;
        match self.keys.suite.version {
            Version::Tls12 => Ok((header[0], start..start + plaintext_bytes)),
            Version::Tls13 => {
                // RFC 8446 section 5.4: padding counts.
                if plaintext_bytes > PLAINTEXT_BYTES_MAX + 1 {
                    return Err(RecordError::RecordOverflow);
                }
                // RFC 8446 section 5.4: the last byte that is not zero is the content type.
                let Some(at) = opened.iter().rposition(|&byte| byte != 0) else {
                    return Err(RecordError::UnexpectedMessage);
                };
                Ok((opened[at], start..start + at))
            }
        }
    }

    fn receive_alert(&mut self, alert: &[u8], consumed: usize) -> Result<Opened, RecordError> {
        let &[level, description] = alert else {
            return Err(RecordError::UnexpectedMessage);
        };
        match description {
            ALERT_CLOSE_NOTIFY => {
                self.read_closed = true;
                Ok(Opened::CloseNotify { consumed })
            }
            ALERT_USER_CANCELED => Ok(Opened::Handled { consumed }),
            _ => match (self.keys.suite.version, level) {
                (Version::Tls12, LEVEL_WARNING) => Ok(Opened::Handled { consumed }),
                // RFC 8446 section 6: every other alert is fatal whatever its level says.
                _ => Err(RecordError::AlertReceived(description)),
            },
        }
    }

    /// Handshake messages after the handshake.
    fn receive_handshake(&mut self, mut bytes: &[u8]) -> Result<(), RecordError> {
        if bytes.is_empty() {
            // RFC 8446 section 5.1: no zero-length fragments of handshake messages.
            return Err(RecordError::UnexpectedMessage);
        }
        let skipped = (self.skip_bytes as usize).min(bytes.len());
        self.skip_bytes -= skipped as u32;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            let &[message_type, high, middle, low, ref rest @ ..] = bytes else {
                return Err(RecordError::UnexpectedMessage);
            };
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > MESSAGE_BYTES_MAX {
                return Err(RecordError::UnexpectedMessage);
            }
            let present = length.min(rest.len());
            let (body, after) = rest.split_at(present);
            match (self.keys.suite.version, self.keys.role, message_type) {
                (Version::Tls12, Role::Client, MESSAGE_HELLO_REQUEST) if length == 0 => {
                    self.refuse_renegotiation()?;
                }
                (Version::Tls12, Role::Server, MESSAGE_CLIENT_HELLO) => {
                    self.refuse_renegotiation()?;
                }
                // We keep no tickets: there is no resumption here.
                (Version::Tls13, Role::Client, MESSAGE_NEW_SESSION_TICKET) => {}
                (Version::Tls13, _, MESSAGE_KEY_UPDATE) => {
                    // RFC 8446 section 5.1: a key change ends its record.
                    let (&[requested @ 0..=1], true) = (body, after.is_empty()) else {
                        return Err(RecordError::UnexpectedMessage);
                    };
                    self.receive_key_update(requested == 1);
                }
                _ => return Err(RecordError::UnexpectedMessage),
            }
            self.skip_bytes = (length - present) as u32;
            bytes = after;
        }
        Ok(())
    }

    /// RFC 5246 section 7.2.2: no_renegotiation is always a warning, and the session goes on.
    fn refuse_renegotiation(&mut self) -> Result<(), RecordError> {
        self.renegotiations += 1;
        if self.renegotiations > RENEGOTIATIONS_MAX {
            return Err(RecordError::UnexpectedMessage);
        }
        self.owed.no_renegotiation += 1;
        Ok(())
    }

    fn receive_key_update(&mut self, requested: bool) {
        self.keys.read.update(self.keys.suite.hash);
        self.expanded = None;
        if requested {
            self.owed.key_update = true;
        }
    }

    pub(super) fn seal(
        &mut self,
        memory: &mut [u8],
        plaintext: Range<usize>,
    ) -> Result<Range<usize>, RecordError> {
        assert!(plaintext.len() <= PLAINTEXT_BYTES_MAX);
        assert!(plaintext.start >= SEAL_HEADROOM_BYTES);
        assert!(memory.len() - plaintext.end >= SEAL_TAILROOM_BYTES);
        if self.keys.write.sequence >= SEQUENCE_MAX {
            return Err(RecordError::KeysExhausted);
        }
        if self.aead.is_gcm() && self.keys.blocks_written >= BLOCKS_MAX {
            match self.keys.suite.version {
                Version::Tls12 => return Err(RecordError::KeysExhausted),
                Version::Tls13 => self.owed.key_update = true,
            }
        }
        if self.owed.key_update {
            return Ok(self.seal_behind_key_update(memory, plaintext));
        }
        Ok(self.encrypt(CONTENT_APPLICATION_DATA, memory, plaintext))
    }

    /// A KeyUpdate must precede the next data (RFC 8446 section 4.6.3). It goes before them into
    /// the same memory: the data move back to make room.
    fn seal_behind_key_update(
        &mut self,
        memory: &mut [u8],
        plaintext: Range<usize>,
    ) -> Range<usize> {
        let start = plaintext.start - SEAL_HEADROOM_BYTES;
        let data_start = start + KEY_UPDATE_RECORD_BYTES + HEADER_BYTES;
        let length = plaintext.len();
        memory.copy_within(plaintext, data_start);
        let message_start = start + HEADER_BYTES;
        memory[message_start..message_start + KEY_UPDATE_NOT_REQUESTED.len()]
            .copy_from_slice(&KEY_UPDATE_NOT_REQUESTED);
        let message = message_start..message_start + KEY_UPDATE_NOT_REQUESTED.len();
        let update = self.encrypt(CONTENT_HANDSHAKE, memory, message);
        assert_eq!(update, start..start + KEY_UPDATE_RECORD_BYTES);
        self.advance_write_keys();
        let data = self.encrypt(CONTENT_APPLICATION_DATA, memory, data_start..data_start + length);
        assert_eq!(data.start, update.end);
        start..data.end
    }

    fn advance_write_keys(&mut self) {
        self.keys.write.update(self.keys.suite.hash);
        self.keys.blocks_written = 0;
        self.expanded = None;
        self.owed.key_update = false;
    }

    /// Seals one record in place; the caller has seen to the limits.
    fn encrypt(
        &mut self,
        content_type: u8,
        memory: &mut [u8],
        plain: Range<usize>,
    ) -> Range<usize> {
        let expanded = self.expanded.get_or_insert_with(|| Expanded::new(&self.keys, self.aead));
        let keys = &mut self.keys.write;
        let (nonce, record, plain_end, additional) = match self.keys.suite.version {
            Version::Tls12 => {
                let explicit_bytes = self.aead.tls12_explicit_nonce_bytes();
                let start = plain.start - HEADER_BYTES - explicit_bytes;
                let record = start..plain.end + TAG_BYTES;
                let nonce = if explicit_bytes == 0 {
                    sequence_nonce(&keys.iv, keys.sequence)
                } else {
                    let nonce = counted_nonce(&keys.iv, keys.sequence);
                    memory[start + HEADER_BYTES..plain.start].copy_from_slice(&nonce[4..]);
                    nonce
                };
                let additional = tls12_additional_data(keys.sequence, content_type, plain.len());
                (nonce, record, plain.end, additional)
            }
            Version::Tls13 => {
                memory[plain.end] = content_type;
                let plain_end = plain.end + 1;
                let record = plain.start - HEADER_BYTES..plain_end + TAG_BYTES;
                let header = header(CONTENT_APPLICATION_DATA, record.len() - HEADER_BYTES);
                let nonce = sequence_nonce(&keys.iv, keys.sequence);
                (nonce, record, plain_end, AdditionalData::tls13(header))
            }
        };
        let outer_type = match self.keys.suite.version {
            Version::Tls12 => content_type,
            Version::Tls13 => CONTENT_APPLICATION_DATA,
        };
        memory[record.start..record.start + HEADER_BYTES]
            .copy_from_slice(&header(outer_type, record.len() - HEADER_BYTES));
        let (plaintext, tag) =
            memory[plain.start..record.end].split_at_mut(plain_end - plain.start);
        expanded
            .write
            .seal_in_place_scatter(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(additional.as_ref()),
                plaintext,
                &[],
                tag,
            )
            .expect("a record is far below the cipher's limit");
        keys.sequence += 1;
        self.keys.blocks_written += (plain.len() / BLOCK_BYTES) as u64 + 2;
        record
    }

    pub(super) fn pending_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        if self.owed.key_update {
            output.extend(self.seal_small(CONTENT_HANDSHAKE, &KEY_UPDATE_NOT_REQUESTED));
            self.advance_write_keys();
        }
        for _ in 0..std::mem::take(&mut self.owed.no_renegotiation) {
            output.extend(self.seal_small(CONTENT_ALERT, &[LEVEL_WARNING, ALERT_NO_RENEGOTIATION]));
        }
        output
    }

    pub(super) fn alert(&mut self, level: u8, description: u8) -> Vec<u8> {
        self.seal_small(CONTENT_ALERT, &[level, description])
    }

    /// Seals one record of a few bytes.
    pub(super) fn seal_small(&mut self, content_type: u8, plaintext: &[u8]) -> Vec<u8> {
        let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + plaintext.len();
        let mut memory = vec![0; range.end + SEAL_TAILROOM_BYTES];
        memory[range.clone()].copy_from_slice(plaintext);
        let record = self.encrypt(content_type, &mut memory, range);
        memory.truncate(record.end);
        memory.drain(..record.start);
        memory
    }
}

/// RFC 5246 section 6.2.3.3 (13 bytes) or RFC 8446 section 5.2 (the header).
struct AdditionalData {
    bytes: [u8; 13],
    length: usize,
}

impl AdditionalData {
    fn tls13(header: [u8; HEADER_BYTES]) -> Self {
        let mut bytes = [0; 13];
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        Self { bytes, length: HEADER_BYTES }
    }
}

impl AsRef<[u8]> for AdditionalData {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn tls12_additional_data(sequence: u64, content_type: u8, length: usize) -> AdditionalData {
    let mut bytes = [0; 13];
    bytes[..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..].copy_from_slice(&header(content_type, length));
    AdditionalData { bytes, length: 13 }
}

fn header(content_type: u8, length: usize) -> [u8; HEADER_BYTES] {
    let length = u16::try_from(length).expect("a record's length fits its field");
    let [high, low] = length.to_be_bytes();
    [content_type, 3, 3, high, low]
}

/// RFC 7905 section 2 and RFC 8446 section 5.3: the sequence number XORed into the IV.
pub(super) fn sequence_nonce(iv: &[u8; 12], sequence: u64) -> [u8; 12] {
    let mut nonce = *iv;
    for (byte, part) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= part;
    }
    nonce
}

/// RFC 5288 section 3: salt and an explicit part that never repeats; here a counter.
pub(super) fn counted_nonce(iv: &[u8; 12], sequence: u64) -> [u8; 12] {
    let &[s0, s1, s2, s3, ref first @ ..] = iv;
    let explicit = u64::from_be_bytes(*first).wrapping_add(sequence);
    let mut nonce = [s0, s1, s2, s3, 0, 0, 0, 0, 0, 0, 0, 0];
    nonce[4..].copy_from_slice(&explicit.to_be_bytes());
    nonce
}

pub(super) const HEADER_BYTES: usize = 5;
pub(super) const TAG_BYTES: usize = 16;
pub(super) const BLOCK_BYTES: usize = 16;

/// RFC 5246 section 6.2.3.
const TLS12_EXPANSION_BYTES_MAX: usize = 2048;
/// RFC 8446 section 5.2.
const TLS13_EXPANSION_BYTES_MAX: usize = 256;

/// Far below the 2^64 at which sequence numbers would repeat, and more than a connection lives to
/// see.
const SEQUENCE_MAX: u64 = 1 << 48;
/// RFC 8446 section 5.5 allows 2^24.5 full records, that is 2^34.5 blocks, per AES-GCM key; small
/// records count for what they are. ChaCha20-Poly1305 has no such limit. The reader needs no check:
/// the limit protects what the writer keeps secret.
pub(super) const BLOCKS_MAX: u64 = 1 << 34;
/// Records without data a peer may send in a row; more is a flood.
const IDLE_RECORDS_MAX: u16 = 32;
/// Renegotiations a peer may ask for in one session before it is cut off.
const RENEGOTIATIONS_MAX: u16 = 8;
/// Longest handshake message passed over: a ticket has at most 64 KiB and some fields
/// (RFC 8446 section 4.6.1).
const MESSAGE_BYTES_MAX: usize = 65 * 1024 + 512;

const KEY_UPDATE_NOT_REQUESTED: [u8; 5] = [MESSAGE_KEY_UPDATE, 0, 0, 1, 0];
const KEY_UPDATE_RECORD_BYTES: usize = HEADER_BYTES + 5 + 1 + TAG_BYTES;
// A KeyUpdate before the data must fit as well.
const _: () = assert!(
    KEY_UPDATE_RECORD_BYTES + HEADER_BYTES - SEAL_HEADROOM_BYTES + 1 + TAG_BYTES
        <= SEAL_TAILROOM_BYTES
);

#[cfg(test)]
mod tests;
