//! Attributes (RFC 8855 section 5.2): borrowed from the message, read one by one.

use super::AttributeType;
use super::header::WORD_BYTES;

/// An attribute as it stands in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attribute<'a> {
    /// Whoever does not know the type may not ignore it. Without meaning on the types of RFC 8855.
    pub mandatory: bool,
    /// What it says.
    pub value: Value<'a>,
    /// Bytes from the beginning of the payload that was parsed, or of the group it is in.
    pub offset: usize,
}

/// What an attribute says. Texts are UTF-8 if the sender keeps to RFC 8855; nobody has checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// BENEFICIARY-ID: a user.
    BeneficiaryId(u16),
    /// FLOOR-ID.
    FloorId(u16),
    /// FLOOR-REQUEST-ID.
    FloorRequestId(u16),
    /// PRIORITY: 3 bits, see [`Priority::understood`](super::Priority::understood).
    Priority(u8),
    /// REQUEST-STATUS.
    RequestStatus {
        /// Code of a [`RequestStatus`](super::RequestStatus).
        status: u8,
        /// From 1, 0 where there is none.
        queue_position: u8,
    },
    /// ERROR-CODE.
    ErrorCode {
        /// Code of an [`ErrorCode`](super::ErrorCode).
        code: u8,
        /// With code 4 the types that were not known, each shifted left by one.
        details: &'a [u8],
    },
    /// ERROR-INFO.
    ErrorInfo(&'a [u8]),
    /// PARTICIPANT-PROVIDED-INFO.
    ParticipantProvidedInfo(&'a [u8]),
    /// STATUS-INFO.
    StatusInfo(&'a [u8]),
    /// SUPPORTED-ATTRIBUTES: types, each shifted left by one.
    SupportedAttributes(&'a [u8]),
    /// SUPPORTED-PRIMITIVES: their codes.
    SupportedPrimitives(&'a [u8]),
    /// USER-DISPLAY-NAME.
    UserDisplayName(&'a [u8]),
    /// USER-URI.
    UserUri(&'a [u8]),
    /// One of the groups.
    Grouped(Group, Attributes<'a>),
    /// A type RFC 8855 does not know.
    Unknown {
        /// 7 bits.
        attribute_type: u8,
        /// What follows type and length.
        contents: &'a [u8],
    },
}

/// A group, with the identifier in its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// BENEFICIARY-INFORMATION of a user.
    BeneficiaryInformation(u16),
    /// FLOOR-REQUEST-INFORMATION of a floor request.
    FloorRequestInformation(u16),
    /// REQUESTED-BY-INFORMATION of a user.
    RequestedByInformation(u16),
    /// FLOOR-REQUEST-STATUS of a floor.
    FloorRequestStatus(u16),
    /// OVERALL-REQUEST-STATUS of a floor request.
    OverallRequestStatus(u16),
}

/// Attributes in their order. Made by [`Payload::parse`], which has seen that all is well with
/// them; so reading them cannot fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    offset: usize,
}

/// The attributes of a message, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload<'a> {
    /// The outer ones.
    pub attributes: Attributes<'a>,
    /// Types nobody knows, although they have the M bit. Those inside of groups count, too.
    pub unknown_mandatory: UnknownAttributes,
}

/// A set of attribute types.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct UnknownAttributes(u128);

/// The attributes break the format: Error 10 (RFC 8855 section 6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Byte of the payload at which the attribute begins that is broken.
    pub offset: usize,
    /// What is wrong with it.
    pub reason: MalformedReason,
}

/// What can be wrong with an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MalformedReason {
    /// Fewer bytes are left than an attribute has at least.
    Truncated,
    /// Its length does not even cover its header, or is not that of its type.
    Length,
    /// It ends beyond the payload, or the group it is in.
    Overrun,
    /// Groups in groups, deeper than RFC 8855 has them.
    Depth,
}

/// Type and length.
const ATTRIBUTE_HEADER_BYTES: usize = 2;
/// The same with the identifier that groups begin with.
pub(super) const GROUP_HEADER_BYTES: usize = 4;
/// FLOOR-REQUEST-INFORMATION with OVERALL-REQUEST-STATUS in it with REQUEST-STATUS in that; one
/// more for an extension.
const DEPTH_MAX: usize = 4;

impl<'a> Payload<'a> {
    /// Checks what follows the header of a message, groups included.
    ///
    /// # Errors
    /// The first attribute that breaks the format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut unknown_mandatory = UnknownAttributes::default();
        check(bytes, 0, DEPTH_MAX, &mut unknown_mandatory)?;
        Ok(Self { attributes: Attributes { bytes, offset: 0 }, unknown_mandatory })
    }
}

fn check(
    bytes: &[u8],
    offset: usize,
    depth_left: usize,
    unknown: &mut UnknownAttributes,
) -> Result<(), Malformed> {
    let mut at = 0;
    while at < bytes.len() {
        let broken = |reason| Malformed { offset: offset + at, reason };
        let (attribute, next) = read(bytes, at).map_err(broken)?;
        match attribute.value {
            Value::Grouped(_, inner) => {
                let depth_left = depth_left.checked_sub(1);
                let depth_left = depth_left.ok_or(broken(MalformedReason::Depth))?;
                check(inner.bytes, offset + inner.offset, depth_left, unknown)?;
            }
            Value::Unknown { attribute_type, .. } if attribute.mandatory => {
                unknown.insert(attribute_type);
            }
            _ => {}
        }
        at = next;
    }
    Ok(())
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let (mut attribute, next) = read(self.bytes, 0).ok()?;
        attribute.offset = self.offset;
        self.bytes = &self.bytes[next..];
        self.offset += next;
        Some(attribute)
    }
}

impl Attributes<'_> {
    /// No attributes: what a group begins with that is being written.
    #[must_use]
    pub fn none() -> Self {
        Self { bytes: &[], offset: 0 }
    }
}

/// The attribute at `at`, and where the next one begins.
fn read(bytes: &[u8], at: usize) -> Result<(Attribute<'_>, usize), MalformedReason> {
    let rest = bytes.get(at..).unwrap_or_default();
    let [kind, length, ..] = *rest else { return Err(MalformedReason::Truncated) };
    let length = usize::from(length);
    if length < ATTRIBUTE_HEADER_BYTES {
        return Err(MalformedReason::Length);
    }
    let next = at + length.next_multiple_of(WORD_BYTES);
    if next > bytes.len() {
        return Err(MalformedReason::Overrun);
    }
    let contents = &rest[ATTRIBUTE_HEADER_BYTES..length];
    let value = value(kind >> 1, contents, at).ok_or(MalformedReason::Length)?;
    Ok((Attribute { mandatory: kind & 1 != 0, value, offset: at }, next))
}

/// `None`: that type is never that long.
fn value(attribute_type: u8, contents: &[u8], at: usize) -> Option<Value<'_>> {
    let Some(known) = AttributeType::from_code(attribute_type) else {
        return Some(Value::Unknown { attribute_type, contents });
    };
    Some(match known {
        AttributeType::BeneficiaryId => Value::BeneficiaryId(number(contents)?),
        AttributeType::FloorId => Value::FloorId(number(contents)?),
        AttributeType::FloorRequestId => Value::FloorRequestId(number(contents)?),
        AttributeType::Priority => {
            let [first, _] = *contents else { return None };
            Value::Priority(first >> 5)
        }
        AttributeType::RequestStatus => {
            let [status, queue_position] = *contents else { return None };
            Value::RequestStatus { status, queue_position }
        }
        AttributeType::ErrorCode => {
            let (code, details) = contents.split_first()?;
            Value::ErrorCode { code: *code, details }
        }
        AttributeType::ErrorInfo => Value::ErrorInfo(contents),
        AttributeType::ParticipantProvidedInfo => Value::ParticipantProvidedInfo(contents),
        AttributeType::StatusInfo => Value::StatusInfo(contents),
        AttributeType::SupportedAttributes => Value::SupportedAttributes(contents),
        AttributeType::SupportedPrimitives => Value::SupportedPrimitives(contents),
        AttributeType::UserDisplayName => Value::UserDisplayName(contents),
        AttributeType::UserUri => Value::UserUri(contents),
        AttributeType::BeneficiaryInformation => {
            grouped(Group::BeneficiaryInformation, contents, at)?
        }
        AttributeType::FloorRequestInformation => {
            grouped(Group::FloorRequestInformation, contents, at)?
        }
        AttributeType::RequestedByInformation => {
            grouped(Group::RequestedByInformation, contents, at)?
        }
        AttributeType::FloorRequestStatus => grouped(Group::FloorRequestStatus, contents, at)?,
        AttributeType::OverallRequestStatus => grouped(Group::OverallRequestStatus, contents, at)?,
    })
}

fn number(contents: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(contents.try_into().ok()?))
}

fn grouped(group: fn(u16) -> Group, contents: &[u8], at: usize) -> Option<Value<'_>> {
    let (id, bytes) = contents.split_first_chunk::<2>()?;
    let attributes = Attributes { bytes, offset: at + GROUP_HEADER_BYTES };
    Some(Value::Grouped(group(u16::from_be_bytes(*id)), attributes))
}

impl Value<'_> {
    /// Its type, without the M bit.
    #[must_use]
    pub fn type_code(&self) -> u8 {
        let known = match self {
            Self::BeneficiaryId(_) => AttributeType::BeneficiaryId,
            Self::FloorId(_) => AttributeType::FloorId,
            Self::FloorRequestId(_) => AttributeType::FloorRequestId,
            Self::Priority(_) => AttributeType::Priority,
            Self::RequestStatus { .. } => AttributeType::RequestStatus,
            Self::ErrorCode { .. } => AttributeType::ErrorCode,
            Self::ErrorInfo(_) => AttributeType::ErrorInfo,
            Self::ParticipantProvidedInfo(_) => AttributeType::ParticipantProvidedInfo,
            Self::StatusInfo(_) => AttributeType::StatusInfo,
            Self::SupportedAttributes(_) => AttributeType::SupportedAttributes,
            Self::SupportedPrimitives(_) => AttributeType::SupportedPrimitives,
            Self::UserDisplayName(_) => AttributeType::UserDisplayName,
            Self::UserUri(_) => AttributeType::UserUri,
            Self::Grouped(group, _) => group.attribute_type(),
            Self::Unknown { attribute_type, .. } => return *attribute_type,
        };
        known.code()
    }
}

impl Group {
    /// Its type.
    #[must_use]
    pub fn attribute_type(self) -> AttributeType {
        match self {
            Self::BeneficiaryInformation(_) => AttributeType::BeneficiaryInformation,
            Self::FloorRequestInformation(_) => AttributeType::FloorRequestInformation,
            Self::RequestedByInformation(_) => AttributeType::RequestedByInformation,
            Self::FloorRequestStatus(_) => AttributeType::FloorRequestStatus,
            Self::OverallRequestStatus(_) => AttributeType::OverallRequestStatus,
        }
    }

    /// The identifier in its header.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::BeneficiaryInformation(id)
            | Self::FloorRequestInformation(id)
            | Self::RequestedByInformation(id)
            | Self::FloorRequestStatus(id)
            | Self::OverallRequestStatus(id) => id,
        }
    }
}

impl UnknownAttributes {
    /// The most types there are.
    pub const COUNT_MAX: usize = 128;

    /// There are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The types, by number.
    pub fn types(self) -> impl Iterator<Item = u8> {
        (0..Self::COUNT_MAX as u8).filter(move |kind| self.0 >> kind & 1 != 0)
    }

    fn insert(&mut self, attribute_type: u8) {
        self.0 |= 1 << attribute_type;
    }
}
