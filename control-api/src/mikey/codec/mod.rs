//! The bytes of MIKEY messages (RFC 3830 section 6, RFC 6043 section 6) as typed values.
//!
//! `encode(&parse(bytes)?) == bytes` for everything that parses: reserved bits and unknown code
//! points are kept, so MACs may be computed over an encoded message. Whether a message has the
//! payloads its type asks for is a question of its own: [`Message::check_contents`].
//!
//! Nothing here needs anything of the rest of this crate.

pub mod code_point;
mod contents;
mod data_type;
mod fields;
mod flags;
mod header;
mod initiator_data;
mod key_data;
mod payload;
mod reader;
mod ticket;

pub use contents::{ContentsError, ContentsProblem};
pub use data_type::DataType;
pub use fields::{Identity, Kemac, MacAlgorithm, SecurityPolicy, Timestamp, Verification};
pub use flags::{FlagContradiction, TicketFlags};
pub use header::{CryptoSession, CsIdMap, Header, SrtpSession};
pub use initiator_data::InitiatorProof;
pub use key_data::{KeyData, KeyValidity, encode_key_data, parse_key_data};
pub use payload::Payload;
pub use reader::{ParseError, ParseReason};
pub use ticket::{BaseTicket, Ticket, TicketPolicy, encode_base_ticket};
pub use ticket::{encode_covered_ticket, parse_base_ticket};

use payload::{encode_chain, parse_chain};
use reader::Reader;

/// Longest message taken. Every length field is 16 bits; a longer message cannot be honest.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most payloads of one message, those inside a ticket policy included. RFC 6043 needs about 15.
pub const PAYLOADS_MAX: usize = 64;

/// A MIKEY message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The common header.
    pub header: Header,
    /// What follows it, in order.
    pub payloads: Vec<Payload>,
}

/// Reads a message.
///
/// # Errors
/// [`ParseError`] names the payload and the offset of what is wrong.
pub fn parse(bytes: &[u8]) -> Result<Message, ParseError> {
    let mut reader = Reader::new(bytes);
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(reader.error(ParseReason::MessageTooLong));
    }
    let (header, first) = Header::parse(&mut reader)?;
    let mut payloads_left = PAYLOADS_MAX;
    let payloads = parse_chain(&mut reader, first, &mut payloads_left)?;
    Ok(Message { header, payloads })
}

/// Writes a message.
///
/// # Panics
/// Where a field is longer than its length field can say; who builds a message bounds its fields.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    encode_message(message, InitiatorData::Included)
}

/// Writes a TRANSFER_INIT without the Initiator Data of its ticket and its length, as the MAC of
/// V covers it (RFC 6043 section 5.5).
#[must_use]
pub fn encode_without_initiator_data(message: &Message) -> Vec<u8> {
    encode_message(message, InitiatorData::LeftOut)
}

/// Whether the Initiator Data of a ticket is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InitiatorData {
    Included,
    LeftOut,
}

fn encode_message(message: &Message, initiator_data: InitiatorData) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let first = message.payloads.first().map_or(code_point::LAST, Payload::code);
    message.header.encode(&mut out, first);
    encode_chain(&mut out, &message.payloads, initiator_data);
    out
}

impl Message {
    /// The T payload.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        find_timestamp(&self.payloads)
    }

    /// The identity in this role.
    #[must_use]
    pub fn identity(&self, role: u8) -> Option<&Identity> {
        find_identity(&self.payloads, role)
    }

    /// The RAND in this role.
    #[must_use]
    pub fn rand(&self, role: u8) -> Option<&[u8]> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload::Randr { role: its_role, rand } if *its_role == role => Some(rand.as_slice()),
            _ => None,
        })
    }

    /// The TICKET payload.
    #[must_use]
    pub fn ticket(&self) -> Option<&Ticket> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload::Ticket(ticket) => Some(&**ticket),
            _ => None,
        })
    }

    /// The TP payload.
    #[must_use]
    pub fn ticket_policy(&self) -> Option<&TicketPolicy> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload::TicketPolicy(policy) => Some(policy),
            _ => None,
        })
    }

    /// The KEMAC payload.
    #[must_use]
    pub fn kemac(&self) -> Option<&Kemac> {
        find_kemac(&self.payloads)
    }

    /// The encrypted envelope key.
    #[must_use]
    pub fn envelope(&self) -> Option<&[u8]> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload::Pke { data, .. } => Some(data.as_slice()),
            _ => None,
        })
    }

    /// X.509 certificates, the sender's own first.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.payloads.iter().filter_map(|payload| match payload {
            Payload::Certificate { certificate_type: code_point::CERTIFICATE_X509, data } => {
                Some(data.as_slice())
            }
            _ => None,
        })
    }

    /// Function and hash of the certificate whose key the envelope is for.
    #[must_use]
    pub fn certificate_hash(&self) -> Option<(u8, &[u8])> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload::CertificateHash { function, hash } => Some((*function, hash.as_slice())),
            _ => None,
        })
    }

    /// Type of the signature and the signature, where it is the last payload.
    #[must_use]
    pub fn signature(&self) -> Option<(u8, &[u8])> {
        match self.payloads.last() {
            Some(Payload::Sign { signature_type, signature }) => Some((*signature_type, signature)),
            _ => None,
        }
    }

    /// The security policies.
    pub fn security_policies(&self) -> impl Iterator<Item = &SecurityPolicy> {
        self.payloads.iter().filter_map(|payload| match payload {
            Payload::SecurityPolicy(policy) => Some(policy),
            _ => None,
        })
    }

    /// Content of the general extension of this type.
    #[must_use]
    pub fn extension(&self, extension_type: u8) -> Option<&[u8]> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload::GeneralExtension { extension_type: its_type, data }
                if *its_type == extension_type =>
            {
                Some(data.as_slice())
            }
            _ => None,
        })
    }

    /// The error number, where this is an Error message that has one.
    #[must_use]
    pub fn error_number(&self) -> Option<u8> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload::Error { number, .. } => Some(*number),
            _ => None,
        })
    }

    /// V, where it is the last payload.
    #[must_use]
    pub fn verification(&self) -> Option<&Verification> {
        last_verification(&self.payloads)
    }
}

fn find_timestamp(payloads: &[Payload]) -> Option<Timestamp> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Timestamp(timestamp) => Some(*timestamp),
        _ => None,
    })
}

fn find_kemac(payloads: &[Payload]) -> Option<&Kemac> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Kemac(kemac) => Some(kemac),
        _ => None,
    })
}

fn last_verification(payloads: &[Payload]) -> Option<&Verification> {
    match payloads.last() {
        Some(Payload::Verification(verification)) => Some(verification),
        _ => None,
    }
}

fn find_identity(payloads: &[Payload], role: u8) -> Option<&Identity> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Idr { role: its_role, identity } if *its_role == role => Some(identity),
        _ => None,
    })
}
