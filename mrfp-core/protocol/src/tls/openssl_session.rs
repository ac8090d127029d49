//! Sessions whose records stay with OpenSSL: the CBC suites of RFC 4279. Correct, not fast.

use std::ops::Range;

use openssl::ssl::{self, ErrorCode, ShutdownState, SslStream};

use super::memory_stream::MemoryStream;
use super::record::HEADER_BYTES;
use super::suite::Suite;
use super::{
    Opened, PLAINTEXT_BYTES_MAX, RECORD_BYTES_MAX, RecordError, SEAL_HEADROOM_BYTES,
    SEAL_TAILROOM_BYTES, ssl_reason,
};

/// An established session inside OpenSSL.
pub(super) struct OpenSslSession {
    stream: SslStream<MemoryStream>,
    suite: &'static Suite,
    /// Records in a row without data.
    idle_records: u16,
    /// OpenSSL reported an error and will do nothing more.
    broken: bool,
}

impl OpenSslSession {
    pub(super) fn new(stream: SslStream<MemoryStream>, suite: &'static Suite) -> Self {
        Self { stream, suite, idle_records: 0, broken: false }
    }

    pub(super) fn suite(&self) -> &'static str {
        self.suite.name
    }

    pub(super) fn open(&mut self, input: &mut [u8]) -> Result<Opened, RecordError> {
        let &mut [content_type, major, minor, high, low, ..] = input else {
            return Ok(Opened::NeedInput);
        };
        let consumed = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        if !(20..=23).contains(&content_type) || (major, minor) != (3, 3) {
            return Err(RecordError::UnexpectedMessage);
        }
        if consumed > RECORD_BYTES_MAX {
            return Err(RecordError::RecordOverflow);
        }
        let Some(record) = input.get_mut(..consumed) else {
            return Ok(Opened::NeedInput);
        };
        if self.broken {
            return Err(RecordError::Other);
        }
        self.stream.get_mut().feed(record);
        // The plaintext is shorter than its record, so one read takes all of it.
        let result = self.stream.ssl_read(record);
        self.stream.get_mut().release();
        match result {
            Ok(length) => {
                self.idle_records = 0;
                Ok(Opened::Data { plaintext: 0..length, consumed })
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => {
                self.idle_records += 1;
                if self.idle_records > IDLE_RECORDS_MAX {
                    return Err(RecordError::UnexpectedMessage);
                }
                Ok(Opened::Handled { consumed })
            }
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                Ok(Opened::CloseNotify { consumed })
            }
            Err(error) => {
                self.broken = true;
                Err(reason_of(&error))
            }
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
        if self.broken {
            return Err(RecordError::Other);
        }
        let start = plaintext.start - SEAL_HEADROOM_BYTES;
        let written = self.stream.ssl_write(&memory[plaintext.clone()]);
        if written.ok() != Some(plaintext.len()) {
            self.broken = true;
            return Err(RecordError::Other);
        }
        // A warning OpenSSL sealed before and nobody fetched goes first: its number is lower.
        let outbound = std::mem::take(&mut self.stream.get_mut().outbound);
        if outbound.len() > SEAL_HEADROOM_BYTES + plaintext.len() + SEAL_TAILROOM_BYTES {
            self.broken = true;
            return Err(RecordError::Other);
        }
        memory[start..start + outbound.len()].copy_from_slice(&outbound);
        self.stream.get_mut().release();
        Ok(start..start + outbound.len())
    }

    pub(super) fn pending_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.stream.get_mut().outbound)
    }

    pub(super) fn close_notify(&mut self) -> Vec<u8> {
        if !self.stream.get_shutdown().contains(ShutdownState::SENT) {
            // The result only says whether the peer has closed too.
            let _ = self.stream.shutdown();
        }
        self.pending_output()
    }
}

fn reason_of(error: &ssl::Error) -> RecordError {
    let reason = ssl_reason::ssl_reason(error);
    match reason {
        ssl_reason::DECRYPTION_FAILED_OR_BAD_RECORD_MAC | ssl_reason::LENGTH_TOO_SHORT => {
            RecordError::BadRecordMac
        }
        ssl_reason::DATA_LENGTH_TOO_LONG
        | ssl_reason::ENCRYPTED_LENGTH_TOO_LONG
        | ssl_reason::PACKET_LENGTH_TOO_LONG => RecordError::RecordOverflow,
        ssl_reason::UNEXPECTED_MESSAGE | ssl_reason::UNEXPECTED_RECORD => {
            RecordError::UnexpectedMessage
        }
        _ => ssl_reason::received_alert(reason)
            .map_or(RecordError::Other, RecordError::AlertReceived),
    }
}

/// Records without data a peer may send in a row; more is a flood.
const IDLE_RECORDS_MAX: u16 = 32;
