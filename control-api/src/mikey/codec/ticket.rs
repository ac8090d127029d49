//! Ticket policy, ticket and MIKEY base ticket (RFC 6043 section 6.10 and appendix A).

use super::code_point as code;
use super::fields::{Identity, Kemac, Timestamp, Verification};
use super::payload::{Payload, encode_chain, parse_chain};
use super::reader::{ParseError, ParseReason, Reader, put_vec16};
use super::{InitiatorData, PAYLOADS_MAX, TicketFlags};

/// What a ticket is good for. In TP what is wished, in TICKET what is granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TicketPolicy {
    /// 1 MIKEY base ticket, 2 3GPP base ticket.
    pub ticket_type: u16,
    /// 1 for the MIKEY base ticket.
    pub subtype: u8,
    /// 1 for the MIKEY base ticket.
    pub version: u8,
    /// PRF for key forking and for the ticket's own keys, 7 bits.
    pub prf: u8,
    /// D to O and the reserved bits.
    pub flags: TicketFlags,
    /// TP data.
    pub payloads: Vec<Payload>,
}

impl TicketPolicy {
    pub(super) fn parse(
        reader: &mut Reader<'_>,
        payloads_left: &mut usize,
    ) -> Result<Self, ParseError> {
        let ticket_type = reader.u16()?;
        let subtype = reader.u8()?;
        let version = reader.u8()?;
        let prf = reader.u8()?;
        let flags = TicketFlags::from_fields(prf, reader.u16()?);
        let length = reader.u16()?;
        let mut data = reader.nested(usize::from(length))?;
        let first = data.u8()?;
        if first == code::TP || first == code::TICKET {
            return Err(data.error(ParseReason::MisplacedPayload(first)));
        }
        let at_data = data.clone();
        let payloads = parse_chain(&mut data, first, payloads_left)?;
        let nested = |payload: &&Payload| matches!(payload.code(), code::TP | code::TICKET);
        if let Some(payload) = payloads.iter().find(nested) {
            return Err(at_data.error(ParseReason::MisplacedPayload(payload.code())));
        }
        Ok(Self { ticket_type, subtype, version, prf: prf >> 1, flags, payloads })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.prf < 0x80, "the PRF func has 7 bits");
        out.extend_from_slice(&self.ticket_type.to_be_bytes());
        out.extend_from_slice(&[self.subtype, self.version]);
        let (made_by_kms, flags) = self.flags.to_fields();
        out.push(self.prf << 1 | made_by_kms);
        out.extend_from_slice(&flags.to_be_bytes());
        let mut data = vec![self.payloads.first().map_or(code::LAST, Payload::code)];
        encode_chain(&mut data, &self.payloads, InitiatorData::Included);
        put_vec16(out, &data);
    }

    /// The identity in this role; the first where there are several.
    #[must_use]
    pub fn identity(&self, role: u8) -> Option<&Identity> {
        super::find_identity(&self.payloads, role)
    }

    /// Everybody who may have the ticket resolved.
    pub fn responders(&self) -> impl Iterator<Item = &Identity> {
        self.payloads.iter().filter_map(|payload| match payload {
            Payload::Idr { role: code::ROLE_RESPONDER, identity } => Some(identity),
            _ => None,
        })
    }

    /// The time in this role.
    #[must_use]
    pub fn time(&self, role: u8) -> Option<Timestamp> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload::Tr { role: its_role, timestamp } if *its_role == role => Some(*timestamp),
            _ => None,
        })
    }
}

/// A ticket: its policy in the open, its data for whoever resolves it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// What it is good for.
    pub policy: TicketPolicy,
    /// Ticket Data, opaque but to the KMS; see [`parse_base_ticket`].
    pub data: Vec<u8>,
    /// Initiator Data, empty without key forking.
    pub initiator_data: Vec<u8>,
}

impl Ticket {
    pub(super) fn parse(
        reader: &mut Reader<'_>,
        payloads_left: &mut usize,
    ) -> Result<Self, ParseError> {
        Ok(Self {
            policy: TicketPolicy::parse(reader, payloads_left)?,
            data: reader.vec16()?,
            initiator_data: reader.vec16()?,
        })
    }
}

pub(super) fn encode_ticket(out: &mut Vec<u8>, ticket: &Ticket, initiator_data: InitiatorData) {
    ticket.policy.encode(out);
    put_vec16(out, &ticket.data);
    match initiator_data {
        InitiatorData::Included => put_vec16(out, &ticket.initiator_data),
        InitiatorData::LeftOut => {}
    }
}

/// What the MAC inside a base ticket covers, the MAC itself still at the end: the TICKET payload
/// from its type on, without Initiator Data (RFC 6043 appendix A.1).
#[must_use]
pub fn encode_covered_ticket(ticket: &Ticket) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    encode_ticket(&mut out, ticket, InitiatorData::LeftOut);
    out
}

/// The Ticket Data of a MIKEY base ticket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseTicket {
    /// Content of THDR, usually empty.
    pub header: Vec<u8>,
    /// T, RAND, KEMAC, IDRpsk, V.
    pub payloads: Vec<Payload>,
}

impl BaseTicket {
    /// T.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        super::find_timestamp(&self.payloads)
    }

    /// RAND.
    #[must_use]
    pub fn rand(&self) -> Option<&[u8]> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload::Rand(rand) => Some(rand.as_slice()),
            _ => None,
        })
    }

    /// KEMAC.
    #[must_use]
    pub fn kemac(&self) -> Option<&Kemac> {
        super::find_kemac(&self.payloads)
    }

    /// IDRpsk, which names the ticket protection key.
    #[must_use]
    pub fn key_identity(&self) -> Option<&[u8]> {
        let identity = super::find_identity(&self.payloads, code::ROLE_PRE_SHARED_KEY);
        identity.map(|identity| identity.data.as_slice())
    }

    /// V, where it is the last payload.
    #[must_use]
    pub fn verification(&self) -> Option<&Verification> {
        super::last_verification(&self.payloads)
    }
}

/// Reads Ticket Data. It begins with THDR, which has no payload code.
///
/// # Errors
/// [`ParseError`], with offsets from the start of the Ticket Data.
pub fn parse_base_ticket(data: &[u8]) -> Result<BaseTicket, ParseError> {
    let mut reader = Reader::new(data);
    reader.enter("THDR");
    let first = reader.u8()?;
    let header = reader.vec16()?;
    let mut payloads_left = PAYLOADS_MAX;
    let payloads = parse_chain(&mut reader, first, &mut payloads_left)?;
    Ok(BaseTicket { header, payloads })
}

/// Writes Ticket Data.
#[must_use]
pub fn encode_base_ticket(ticket: &BaseTicket) -> Vec<u8> {
    let mut out = vec![ticket.payloads.first().map_or(code::LAST, Payload::code)];
    put_vec16(&mut out, &ticket.header);
    encode_chain(&mut out, &ticket.payloads, InitiatorData::Included);
    out
}
