//! A MIKEY message field by field (RFC 3830 section 6, RFC 6043 section 6). More lenient than the
//! node's own parser, which says yes or no: whatever has a length rule is shown, also where the node
//! would refuse it, and what was read before a mistake stays.

use std::ops::Range;

use super::names;
use super::payloads;
use crate::inspect::field::{Broken, Field, Walker};

/// What was read of a message.
#[derive(Debug)]
pub(super) struct Walk {
    /// Every field, in the order of the bytes.
    pub(super) fields: Vec<Field>,
    /// What checks need of them.
    pub(super) seen: Seen,
    /// What is wrong: the last one where the message could not be read to its end.
    pub(super) broken: Vec<Broken>,
}

/// What checks of MACs and keys need to know of a message.
#[derive(Default, Debug)]
pub(super) struct Seen {
    pub(super) data_type: u8,
    pub(super) prf: u8,
    pub(super) csb_id: u32,
    pub(super) sessions: Vec<Session>,
    pub(super) payloads: Seens,
}

/// One record of the CS ID map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Session {
    pub(super) id: u8,
    pub(super) protection_type: u8,
    pub(super) spi: Range<usize>,
}

/// The payloads of a message, or of the ticket inside it.
#[derive(Default, Debug)]
pub(super) struct Seens {
    /// The 64 bits of T that enter an IV.
    pub(super) time: Option<u64>,
    /// Role and data of the identities.
    pub(super) identities: Vec<(u8, Range<usize>)>,
    /// Role and value of the RANDs; 0: that of RFC 3830.
    pub(super) rands: Vec<(u8, Range<usize>)>,
    /// Algorithm and ciphertext.
    pub(super) kemac: Option<(u8, Range<usize>)>,
    /// Algorithm and MAC of V, the last of several.
    pub(super) verification: Option<(u8, Range<usize>)>,
    pub(super) signed: bool,
    pub(super) ticket: Option<Box<TicketSeen>>,
}

/// A TICKET payload.
#[derive(Debug)]
pub(super) struct TicketSeen {
    pub(super) prf: u8,
    /// D to O and the reserved bits, D the highest of 17.
    pub(super) flags: u32,
    /// From the ticket type on: what the MAC inside it begins with.
    pub(super) begin: usize,
    /// What is in its Ticket Data, where that has the layout of a base ticket.
    pub(super) content: Option<Seens>,
    /// Initiator Data with its length field.
    pub(super) initiator_data: Range<usize>,
}

/// What the reading of a message depends on beside its bytes.
#[derive(Clone, Copy)]
pub(super) struct Dialect<'a> {
    /// Protection types that stand for TLS.
    pub(super) tls: &'a [u8],
}

/// Longest message looked at: all length fields are 16 bits, and a message has one ticket.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Reads a message as far as it can be read.
pub(super) fn walk(bytes: &[u8], dialect: Dialect<'_>) -> Walk {
    let mut walk = Walk { fields: Vec::new(), seen: Seen::default(), broken: Vec::new() };
    let mut walker = Walker::new(bytes);
    if let Err(broken) = message(&mut walker, &mut walk, dialect) {
        walk.broken.push(broken);
    }
    walk
}

fn message(walker: &mut Walker<'_>, walk: &mut Walk, dialect: Dialect<'_>) -> Result<(), Broken> {
    let mut header = Field::group("HDR", 0);
    let first = read_header(walker, &mut header.children, &mut walk.seen, dialect);
    header.length = walker.at;
    walk.fields.push(header);
    let mut reader = payloads::Reader { dialect, broken: &mut walk.broken, nested: false };
    reader.chain(walker, first?, &mut walk.fields, &mut walk.seen.payloads)
}

/// The common header (RFC 3830 section 6.1); returns the type of the first payload.
fn read_header(
    walker: &mut Walker<'_>,
    out: &mut Vec<Field>,
    seen: &mut Seen,
    dialect: Dialect<'_>,
) -> Result<u8, Broken> {
    let at = walker.at;
    let version = walker.number(out, "version", 1, |_| None)?;
    if version != 1 {
        return walker.broken(at, format!("MIKEY has version 1, this says {version}"));
    }
    seen.data_type = byte(walker.code(out, "data type", 1, names::data_type)?);
    let first = walker.code(out, "next payload", 1, names::payload)?;
    let prf = walker.number(out, "V flag, PRF func", 1, |byte| {
        let prf = names::prf(byte & 0x7f).unwrap_or("unknown PRF");
        Some(format!("V {}, {prf}", byte >> 7))
    })?;
    seen.prf = byte(prf & 0x7f);
    let csb_id = walker.number(out, "CSB ID", 4, |csb_id| Some(format!("{csb_id:08x}")))?;
    seen.csb_id = u32::try_from(csb_id).unwrap_or_default();
    let count = walker.number(out, "#CS", 1, |count| Some(format!("{count} crypto session(s)")))?;
    let at = walker.at;
    let map_type = walker.code(out, "CS ID map type", 1, names::map_type)?;
    for index in 0..count {
        let mut session = Field::group("crypto session", walker.at);
        let read = match map_type {
            0 => read_srtp_session(walker, &mut session.children, index, seen),
            1 => break,
            2 => read_generic_session(walker, &mut session.children, seen, dialect),
            _ => return walker.broken(at, "a CS ID map type without a known length"),
        };
        session.length = walker.at - session.offset;
        out.push(session);
        read?;
    }
    Ok(byte(first))
}

fn read_srtp_session(
    walker: &mut Walker<'_>,
    out: &mut Vec<Field>,
    index: u64,
    seen: &mut Seen,
) -> Result<(), Broken> {
    walker.number(out, "policy no", 1, |_| None)?;
    walker.number(out, "SSRC", 4, |ssrc| Some(format!("{ssrc:08x}")))?;
    walker.number(out, "ROC", 4, |_| None)?;
    // The CS ID is the position, from 1 (RFC 3830 section 6.1.1).
    let id = u8::try_from(index + 1).unwrap_or(u8::MAX);
    seen.sessions.push(Session { id, protection_type: 0, spi: 0..0 });
    Ok(())
}

/// RFC 6043 section 6.1.1.
fn read_generic_session(
    walker: &mut Walker<'_>,
    out: &mut Vec<Field>,
    seen: &mut Seen,
    dialect: Dialect<'_>,
) -> Result<(), Broken> {
    let id = byte(walker.number(out, "CS ID", 1, |_| None)?);
    let name = |code| names::protection_type(code, dialect.tls);
    let protection_type = byte(walker.code(out, "prot type", 1, name)?);
    let policies = walker.number(out, "S, #P", 1, |byte| {
        Some(format!("S {}, {} policies", byte >> 7, byte & 0x7f))
    })?;
    for _ in 0..policies & 0x7f {
        walker.number(out, "policy no", 1, |_| None)?;
    }
    let length = walker.length(out, "session data length", 2)?;
    walker.data(out, "session data", length)?;
    let length = walker.length(out, "SPI length", 1)?;
    let at = walker.at;
    walker.data(out, "SPI", length)?;
    seen.sessions.push(Session { id, protection_type, spi: at..at + length });
    Ok(())
}

/// The low byte of what was read from one.
pub(super) fn byte(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

impl Seens {
    /// Data of the identity in a role.
    pub(super) fn identity(&self, role: u8) -> Option<&Range<usize>> {
        self.identities.iter().find(|(its, _)| *its == role).map(|(_, data)| data)
    }

    /// Value of the RAND in a role.
    pub(super) fn rand(&self, role: u8) -> Option<&Range<usize>> {
        self.rands.iter().find(|(its, _)| *its == role).map(|(_, data)| data)
    }
}
