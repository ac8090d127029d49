//! Messages on their way out, into a buffer of the caller and without an allocation.

use super::attribute::{Attributes, GROUP_HEADER_BYTES, Group, UnknownAttributes, Value};
use super::header::{HEADER_BYTES, Header, MESSAGE_BYTES_MAX, Transport, WORD_BYTES};
use super::{ErrorCode, Primitive};

/// Writes one message, attribute by attribute. What does not fit is not begun, so that the message
/// is sound after an error, too.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
    /// Where the innermost group has to end, or the buffer.
    end: usize,
    /// That is because of a group.
    in_group: bool,
}

/// Something did not fit and was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overflow {
    /// The attribute, or a group it would be in, would be longer than its length field can say
    /// (RFC 8855 section 5.2): it goes into another group.
    Attribute,
    /// The buffer is too short, or the message too long.
    Message,
}

/// The largest length of a plain attribute.
const ATTRIBUTE_BYTES_MAX: usize = u8::MAX as usize;
/// The largest length of a group: what is in it is padded, so that it is a multiple of four.
pub const GROUP_BYTES_MAX: usize = ATTRIBUTE_BYTES_MAX / WORD_BYTES * WORD_BYTES;
/// The longest text of an attribute that stands in no group.
pub const TEXT_BYTES_MAX: usize = ATTRIBUTE_BYTES_MAX - 2;

impl<'a> Writer<'a> {
    /// Begins a message that is whole: a header with a fragment is written by
    /// [`Fragments`](super::Fragments).
    ///
    /// # Errors
    /// The buffer is shorter than the header.
    pub fn new(out: &'a mut [u8], header: &Header) -> Result<Self, Overflow> {
        assert!(header.fragment.is_none());
        let at = header.write(out).ok_or(Overflow::Message)?;
        let end = out.len().min(MESSAGE_BYTES_MAX);
        Ok(Self { out, at, end, in_group: false })
    }

    /// Writes an attribute. All that RFC 8855 defines have the M bit (they must be understood);
    /// groups bring what is in them.
    ///
    /// # Errors
    /// It does not fit.
    pub fn put(&mut self, value: &Value<'_>) -> Result<(), Overflow> {
        self.put_with(true, value)
    }

    /// The same with a choice about the M bit.
    ///
    /// # Errors
    /// It does not fit.
    pub fn put_with(&mut self, mandatory: bool, value: &Value<'_>) -> Result<(), Overflow> {
        let kind = value.type_code();
        match *value {
            Value::BeneficiaryId(id) | Value::FloorId(id) | Value::FloorRequestId(id) => {
                self.put_contents(kind, mandatory, &id.to_be_bytes(), &[])
            }
            Value::Priority(priority) => {
                self.put_contents(kind, mandatory, &[priority << 5, 0], &[])
            }
            Value::RequestStatus { status, queue_position } => {
                self.put_contents(kind, mandatory, &[status, queue_position], &[])
            }
            Value::ErrorCode { code, details } => {
                self.put_contents(kind, mandatory, &[code], details)
            }
            Value::ErrorInfo(bytes)
            | Value::ParticipantProvidedInfo(bytes)
            | Value::StatusInfo(bytes)
            | Value::SupportedAttributes(bytes)
            | Value::SupportedPrimitives(bytes)
            | Value::UserDisplayName(bytes)
            | Value::UserUri(bytes)
            | Value::Unknown { contents: bytes, .. } => {
                self.put_contents(kind, mandatory, bytes, &[])
            }
            Value::Grouped(group, attributes) => {
                self.put_group(mandatory, group, |writer| writer.put_all(attributes))
            }
        }
    }

    /// Writes a group with what `fill` puts into it; nothing of it where something does not fit
    /// and `fill` says so.
    ///
    /// # Errors
    /// Those of `fill`; its header does not fit.
    pub fn group(
        &mut self,
        group: Group,
        fill: impl FnOnce(&mut Self) -> Result<(), Overflow>,
    ) -> Result<(), Overflow> {
        self.put_group(true, group, fill)
    }

    /// Bytes that may follow in the group that is being written, or in the message.
    #[must_use]
    pub fn room(&self) -> usize {
        self.end - self.at
    }

    /// Ends the message and returns its length.
    #[must_use]
    pub fn finish(self) -> usize {
        let words = (self.at - HEADER_BYTES) / WORD_BYTES;
        let words = u16::try_from(words).expect("it ends before MESSAGE_BYTES_MAX");
        self.out[2..4].copy_from_slice(&words.to_be_bytes());
        self.at
    }

    fn put_all(&mut self, attributes: Attributes<'_>) -> Result<(), Overflow> {
        for attribute in attributes {
            self.put_with(attribute.mandatory, &attribute.value)?;
        }
        Ok(())
    }

    fn put_group(
        &mut self,
        mandatory: bool,
        group: Group,
        fill: impl FnOnce(&mut Self) -> Result<(), Overflow>,
    ) -> Result<(), Overflow> {
        let (start, end, in_group) = (self.at, self.end, self.in_group);
        let kind = group.attribute_type().code();
        self.put_contents(kind, mandatory, &group.id().to_be_bytes(), &[])?;
        if start + GROUP_BYTES_MAX < end {
            (self.end, self.in_group) = (start + GROUP_BYTES_MAX, true);
        }
        let filled = fill(self);
        (self.end, self.in_group) = (end, in_group);
        if filled.is_err() {
            self.at = start;
            return filled;
        }
        debug_assert!(self.at - start >= GROUP_HEADER_BYTES);
        self.out[start + 1] = (self.at - start) as u8;
        Ok(())
    }

    /// An attribute whose contents come in two parts, padded with zeros.
    fn put_contents(
        &mut self,
        kind: u8,
        mandatory: bool,
        first: &[u8],
        second: &[u8],
    ) -> Result<(), Overflow> {
        let length = 2 + first.len() + second.len();
        if length > ATTRIBUTE_BYTES_MAX {
            return Err(Overflow::Attribute);
        }
        let padded = length.next_multiple_of(WORD_BYTES);
        if padded > self.end - self.at {
            return Err(if self.in_group { Overflow::Attribute } else { Overflow::Message });
        }
        let out = &mut self.out[self.at..self.at + padded];
        out[0] = kind << 1 | u8::from(mandatory);
        out[1] = length as u8;
        let (place, padding) = out[2..].split_at_mut(first.len() + second.len());
        place[..first.len()].copy_from_slice(first);
        place[first.len()..].copy_from_slice(second);
        padding.fill(0);
        self.at += padded;
        Ok(())
    }
}

/// Writes an Error message and returns its length.
///
/// # Errors
/// The buffer is shorter than [`ERROR_BYTES_MAX`], or `info` longer than [`TEXT_BYTES_MAX`].
pub fn write_error(
    out: &mut [u8],
    request: &Header,
    transport: Transport,
    code: ErrorCode,
    unknown: UnknownAttributes,
    info: &str,
) -> Result<usize, Overflow> {
    let mut details = [0; UnknownAttributes::COUNT_MAX];
    let mut count = 0;
    for kind in unknown.types() {
        details[count] = kind << 1;
        count += 1;
    }
    let mut writer = Writer::new(out, &request.response(transport, Primitive::Error))?;
    writer.put(&Value::ErrorCode { code: code.code(), details: &details[..count] })?;
    if !info.is_empty() {
        writer.put(&Value::ErrorInfo(info.as_bytes()))?;
    }
    Ok(writer.finish())
}

/// A length no Error message exceeds.
pub const ERROR_BYTES_MAX: usize = HEADER_BYTES + 4 + UnknownAttributes::COUNT_MAX + 256;
