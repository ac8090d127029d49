//! What clients say to a server, primitive by primitive (RFC 8855 section 5.3).

use super::attribute::{Attribute, Attributes, Group, Payload, Value};
use super::{Primitive, Priority};

/// A message of a client. What may stand in it once and stands in it more often counts as it
/// stands first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientMessage<'a> {
    /// Section 5.3.1.
    FloorRequest {
        /// The floors it wants, all or none; at least one.
        floors: FloorIds<'a>,
        /// Who is to have them; whoever asks, where nobody is named.
        beneficiary: Option<u16>,
        /// Why, for people; empty where absent.
        info: &'a [u8],
        /// How urgent, where it was said.
        priority: Option<Priority>,
    },
    /// Section 5.3.2.
    FloorRelease {
        /// Which request.
        request: u16,
    },
    /// Section 5.3.3.
    FloorRequestQuery {
        /// Which request.
        request: u16,
    },
    /// Section 5.3.5.
    UserQuery {
        /// About whom; whoever asks, where nobody is named.
        beneficiary: Option<u16>,
    },
    /// Section 5.3.7.
    FloorQuery {
        /// About which floors; none ends the subscription.
        floors: FloorIds<'a>,
    },
    /// Section 5.3.9.
    ChairAction {
        /// Which request.
        request: u16,
        /// What FLOOR-REQUEST-INFORMATION says about it.
        information: Attributes<'a>,
    },
    /// Section 5.3.11.
    Hello,
    /// Section 5.3.14, in response to a server.
    FloorRequestStatusAck,
    /// Section 5.3.15, in response to a server.
    FloorStatusAck,
    /// Section 5.3.16.
    Goodbye,
    /// Section 5.3.17, in response to a server.
    GoodbyeAck,
}

/// Why a message of a client cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientMessageError {
    /// It is one that servers send: Error 3.
    NotForServers,
    /// An attribute is missing that must be there: Error 10.
    Incomplete,
}

/// The floors a message names, in its order; none twice where the sender is sane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FloorIds<'a>(Attributes<'a>);

impl Iterator for FloorIds<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.0.find_map(|attribute| match attribute.value {
            Value::FloorId(id) => Some(id),
            _ => None,
        })
    }
}

impl<'a> ClientMessage<'a> {
    /// Reads what the attributes of a message say.
    ///
    /// # Errors
    /// See [`ClientMessageError`].
    pub fn read(primitive: Primitive, payload: &Payload<'a>) -> Result<Self, ClientMessageError> {
        let fields = Fields::of(payload.attributes);
        let request = || fields.request.ok_or(ClientMessageError::Incomplete);
        let floors = FloorIds(payload.attributes);
        Ok(match primitive {
            Primitive::FloorRequest => {
                floors.clone().next().ok_or(ClientMessageError::Incomplete)?;
                let Fields { beneficiary, info, priority, .. } = fields;
                Self::FloorRequest { floors, beneficiary, info, priority }
            }
            Primitive::FloorRelease => Self::FloorRelease { request: request()? },
            Primitive::FloorRequestQuery => Self::FloorRequestQuery { request: request()? },
            Primitive::UserQuery => Self::UserQuery { beneficiary: fields.beneficiary },
            Primitive::FloorQuery => Self::FloorQuery { floors },
            Primitive::ChairAction => {
                let (request, information) =
                    fields.information.ok_or(ClientMessageError::Incomplete)?;
                Self::ChairAction { request, information }
            }
            Primitive::Hello => Self::Hello,
            Primitive::FloorRequestStatusAck => Self::FloorRequestStatusAck,
            Primitive::FloorStatusAck => Self::FloorStatusAck,
            Primitive::Goodbye => Self::Goodbye,
            Primitive::GoodbyeAck => Self::GoodbyeAck,
            Primitive::FloorRequestStatus
            | Primitive::UserStatus
            | Primitive::FloorStatus
            | Primitive::ChairActionAck
            | Primitive::HelloAck
            | Primitive::Error => return Err(ClientMessageError::NotForServers),
        })
    }
}

/// What stands in messages of clients, the first of each.
#[derive(Default)]
struct Fields<'a> {
    request: Option<u16>,
    beneficiary: Option<u16>,
    info: &'a [u8],
    priority: Option<Priority>,
    information: Option<(u16, Attributes<'a>)>,
}

impl<'a> Fields<'a> {
    fn of(attributes: Attributes<'a>) -> Self {
        let mut fields = Self::default();
        for Attribute { value, .. } in attributes {
            match value {
                Value::FloorRequestId(id) => fields.request = fields.request.or(Some(id)),
                Value::BeneficiaryId(id) => fields.beneficiary = fields.beneficiary.or(Some(id)),
                Value::Priority(code) => {
                    let priority = Priority::understood(code);
                    fields.priority = fields.priority.or(Some(priority));
                }
                Value::ParticipantProvidedInfo(info) if fields.info.is_empty() => {
                    fields.info = info;
                }
                Value::Grouped(Group::FloorRequestInformation(id), inner) => {
                    fields.information = fields.information.or(Some((id, inner)));
                }
                _ => {}
            }
        }
        fields
    }
}
