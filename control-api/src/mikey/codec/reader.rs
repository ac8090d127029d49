//! Reading bounded bytes, remembering where in the message they are.

use std::fmt;

/// Why a message could not be parsed: which payload, at which byte of the message, what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// The payload that was being read.
    pub payload: &'static str,
    /// Byte offset from the start of what was given to the parser.
    pub offset: usize,
    /// What is wrong there.
    pub reason: ParseReason,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseReason {
    /// The bytes end inside a field.
    Truncated,
    /// Bytes follow the payload that says it is the last.
    TrailingBytes,
    /// Longer than [`super::MESSAGE_BYTES_MAX`].
    MessageTooLong,
    /// More than [`super::PAYLOADS_MAX`] payloads, nested ones included.
    TooManyPayloads,
    /// Not version 1.
    UnknownVersion(u8),
    /// A data type this implementation has no length rules for.
    UnknownDataType(u8),
    /// A payload type without a known length rule: it cannot be skipped.
    UnknownPayload(u8),
    /// A payload that exists but must not stand here.
    MisplacedPayload(u8),
    /// A second payload where only one may be.
    DuplicatePayload(u8),
    /// A CS ID map type without a known length rule.
    UnknownMapType(u8),
    /// A timestamp type without a known length.
    UnknownTimestampType(u8),
    /// A MAC or hash algorithm without a known length.
    UnknownAlgorithm(u8),
    /// A key data type or key validity type without a known layout.
    UnknownKeyType(u8),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: ", self.payload, self.offset)?;
        match self.reason {
            ParseReason::Truncated => f.write_str("the message ends inside this field"),
            ParseReason::TrailingBytes => f.write_str("bytes follow the last payload"),
            ParseReason::MessageTooLong => f.write_str("the message is longer than 64 KiB"),
            ParseReason::TooManyPayloads => f.write_str("more than 64 payloads"),
            ParseReason::UnknownVersion(version) => write!(f, "MIKEY version {version}, not 1"),
            ParseReason::UnknownDataType(code) => write!(f, "unknown data type {code}"),
            ParseReason::UnknownPayload(code) => write!(f, "unknown payload type {code}"),
            ParseReason::MisplacedPayload(code) => {
                write!(f, "payload type {code} not allowed here")
            }
            ParseReason::DuplicatePayload(code) => write!(f, "second payload of type {code}"),
            ParseReason::UnknownMapType(code) => write!(f, "unknown CS ID map type {code}"),
            ParseReason::UnknownTimestampType(code) => write!(f, "unknown timestamp type {code}"),
            ParseReason::UnknownAlgorithm(code) => write!(f, "unknown algorithm {code}"),
            ParseReason::UnknownKeyType(code) => write!(f, "unknown key data type {code:#04x}"),
        }
    }
}

impl std::error::Error for ParseError {}

/// A cursor over part of a message.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Offset of `bytes[0]` in the message, for error reports.
    base: usize,
    payload: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, base: 0, payload: "HDR" }
    }

    pub(super) fn enter(&mut self, payload: &'static str) {
        self.payload = payload;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn error(&self, reason: ParseReason) -> ParseError {
        ParseError { payload: self.payload, offset: self.base, reason }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], ParseError> {
        let Some((head, tail)) = self.bytes.split_at_checked(length) else {
            return Err(self.error(ParseReason::Truncated));
        };
        self.bytes = tail;
        self.base += length;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ParseError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, ParseError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Result<u32, ParseError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn u64(&mut self) -> Result<u64, ParseError> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Bytes behind an 8-bit length.
    pub(super) fn vec8(&mut self) -> Result<Vec<u8>, ParseError> {
        let length = self.u8()?;
        Ok(self.take(usize::from(length))?.to_vec())
    }

    /// Bytes behind a 16-bit length.
    pub(super) fn vec16(&mut self) -> Result<Vec<u8>, ParseError> {
        let length = self.u16()?;
        Ok(self.take(usize::from(length))?.to_vec())
    }

    /// A reader of its own for the next `length` bytes.
    pub(super) fn nested(&mut self, length: usize) -> Result<Self, ParseError> {
        let base = self.base;
        Ok(Self { bytes: self.take(length)?, base, payload: self.payload })
    }

    pub(super) fn finish(&self) -> Result<(), ParseError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.error(ParseReason::TrailingBytes)) }
    }
}

/// Appends bytes behind an 8-bit length.
pub(super) fn put_vec8(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("an 8-bit length field, checked where it was made"));
    out.extend_from_slice(bytes);
}

/// Appends bytes behind a 16-bit length.
pub(super) fn put_vec16(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("a 16-bit length field, checked where made");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}
