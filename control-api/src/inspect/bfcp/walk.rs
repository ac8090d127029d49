//! A BFCP message field by field (RFC 8855 section 5). More lenient than the node's own parser,
//! which says yes or no: what was read before a mistake stays.

use mrfp_protocol::bfcp::{
    AttributeType, ErrorCode, HEADER_BYTES, Header, Malformed, MalformedReason, Payload, Primitive,
    Priority, RequestStatus, Transport,
};

use super::input::transport;
use crate::inspect::field::{Broken, Field, Walker, hex};
use crate::inspect::shown;

/// What was read of a message.
#[derive(Debug)]
pub(super) struct Walk {
    /// Every field, in the order of the bytes.
    pub(super) fields: Vec<Field>,
    /// Code of the primitive, if it came that far.
    pub(super) primitive: Option<u8>,
    /// Where it could not be read any further.
    pub(super) broken: Option<Broken>,
    /// What the node has against its format.
    pub(super) refusal: Option<String>,
}

/// Reads a message as far as it can be read.
pub(super) fn walk(bytes: &[u8]) -> Walk {
    let mut walker = Walker::new(bytes);
    walker.payload = "COMMON-HEADER";
    let mut fields = Vec::new();
    let broken = message(&mut walker, &mut fields, transport(bytes)).err();
    let primitive = bytes.get(1).filter(|_| bytes.len() >= HEADER_BYTES).copied();
    Walk { fields, primitive, broken, refusal: refusal(bytes) }
}

/// What a server would answer to its format.
fn refusal(bytes: &[u8]) -> Option<String> {
    let transport = transport(bytes);
    let error = |code: ErrorCode| Some(format!("Error {}, {}", code.code(), code.name()));
    let Some(header) = Header::parse(bytes, transport) else {
        return Some("not even a header".to_owned());
    };
    if header.version != transport.version() {
        return error(ErrorCode::UnsupportedVersion);
    }
    let Some(content) = header.content(bytes) else {
        return error(ErrorCode::IncorrectMessageLength);
    };
    if Primitive::from_code(header.primitive).is_none() {
        return error(ErrorCode::UnknownPrimitive);
    }
    if header.fragment.is_some() {
        return None;
    }
    match Payload::parse(content) {
        Err(Malformed { offset, reason }) => {
            let why = match reason {
                MalformedReason::Truncated => "too short for an attribute",
                MalformedReason::Length => "a length that its type never has",
                MalformedReason::Overrun => "it ends beyond what it is in",
                MalformedReason::Depth => "groups in groups, too deep",
            };
            let code = ErrorCode::UnableToParse;
            let at = HEADER_BYTES + offset;
            Some(format!("Error {}, {}: byte {at}: {why}", code.code(), code.name()))
        }
        Ok(payload) if !payload.unknown_mandatory.is_empty() => {
            error(ErrorCode::UnknownMandatoryAttribute)
        }
        Ok(_) => None,
    }
}

fn message(
    walker: &mut Walker<'_>,
    fields: &mut Vec<Field>,
    transport: Transport,
) -> Result<(), Broken> {
    let mut header = Field::group("COMMON-HEADER", 0);
    let read = read_header(walker, &mut header.children, transport);
    header.length = walker.at;
    fields.push(header);
    if read? {
        let length = walker.left();
        // Attributes may be cut anywhere: only the whole message has them.
        walker.data(fields, "part of the message", length)?;
        return Ok(());
    }
    attributes(walker, fields)
}

/// RFC 8855 section 5.1. Says whether what follows is a fragment.
fn read_header(
    walker: &mut Walker<'_>,
    out: &mut Vec<Field>,
    transport: Transport,
) -> Result<bool, Broken> {
    let unreliable = transport == Transport::Unreliable;
    let first = walker.number(out, "version, R, F", 1, |byte| {
        let (version, responder, fragment) = (byte >> 5, byte >> 4 & 1, byte >> 3 & 1);
        Some(match (version, unreliable) {
            (1, _) => "version 1, over a reliable transport".to_owned(),
            (2, _) => {
                let responder = if responder == 1 { "a response" } else { "a request" };
                let fragment = if fragment == 1 { "a fragment" } else { "whole" };
                format!("version 2, over an unreliable transport; {responder}, {fragment}")
            }
            _ => format!("unknown version {version}"),
        })
    })?;
    walker.code(out, "primitive", 1, |code| {
        u8::try_from(code).ok().and_then(Primitive::from_code).map(Primitive::name)
    })?;
    walker.number(out, "payload length", 2, |words| Some(format!("{} bytes", words * 4)))?;
    walker.number(out, "conference ID", 4, |_| None)?;
    walker.number(out, "transaction ID", 2, |id| {
        (id == 0).then(|| "a notification, part of no transaction".to_owned())
    })?;
    walker.number(out, "user ID", 2, |_| None)?;
    let is_fragment = unreliable && first & 0x08 != 0;
    if is_fragment {
        let bytes = |words: u64| Some(format!("{} bytes", words * 4));
        walker.number(out, "fragment offset", 2, bytes)?;
        walker.number(out, "fragment length", 2, bytes)?;
    }
    Ok(is_fragment)
}

/// RFC 8855 section 5.2.
fn attributes(walker: &mut Walker<'_>, out: &mut Vec<Field>) -> Result<(), Broken> {
    while walker.left() > 0 {
        let at = walker.at;
        let mut field = Field::group("attribute", at);
        let read = attribute(walker, &mut field);
        field.length = walker.at - at;
        out.push(field);
        read?;
    }
    Ok(())
}

fn attribute(walker: &mut Walker<'_>, field: &mut Field) -> Result<(), Broken> {
    let start = walker.at;
    walker.payload = "an attribute";
    let out = &mut field.children;
    let mut known = None;
    walker.number(out, "type, M", 1, |byte| {
        let (code, mandatory) = ((byte >> 1) as u8, byte & 1);
        known = AttributeType::from_code(code);
        let name = known.map_or("unknown type", AttributeType::name);
        Some(match known {
            Some(_) => format!("{name} ({code}), M {mandatory}"),
            None if mandatory == 1 => format!("unknown type {code}, M 1: to be refused"),
            None => format!("unknown type {code}, M 0: to be ignored"),
        })
    })?;
    field.name = known.map_or("attribute", AttributeType::name);
    walker.payload = field.name;
    let length = walker.number(out, "length", 1, |_| None)?;
    let Some(contents) = usize::try_from(length).ok().and_then(|length| length.checked_sub(2))
    else {
        return walker.broken(start, format!("length {length} does not cover its own header"));
    };
    let mut inside = walker.inside(contents)?;
    let read = contents_of(&mut inside, known, out);
    // What a group has no room for is in its bytes all the same.
    let padding = (contents + 2).next_multiple_of(4) - (contents + 2);
    read?;
    if padding > 0 {
        walker.data(out, "padding", padding)?;
    }
    Ok(())
}

fn contents_of(
    walker: &mut Walker<'_>,
    known: Option<AttributeType>,
    out: &mut Vec<Field>,
) -> Result<(), Broken> {
    let Some(known) = known else {
        let length = walker.left();
        walker.data(out, "contents", length)?;
        return Ok(());
    };
    match known {
        AttributeType::BeneficiaryId => number(walker, out, "user ID"),
        AttributeType::FloorId => number(walker, out, "floor ID"),
        AttributeType::FloorRequestId => number(walker, out, "floor request ID"),
        AttributeType::Priority => {
            walker.number(out, "priority", 1, |byte| {
                let code = (byte >> 5) as u8;
                Some(format!("{code} {}", Priority::understood(code).name()))
            })?;
            walker.number(out, "reserved", 1, |_| None)?;
            end(walker)
        }
        AttributeType::RequestStatus => {
            walker.code(out, "request status", 1, |code| {
                let status = u8::try_from(code).ok().and_then(RequestStatus::from_code);
                status.map(RequestStatus::name)
            })?;
            walker.number(out, "queue position", 1, |position| {
                (position == 0).then(|| "none".to_owned())
            })?;
            end(walker)
        }
        AttributeType::ErrorCode => error_code(walker, out),
        AttributeType::SupportedAttributes => {
            list(walker, out, "attribute", |code| type_name(code >> 1))
        }
        AttributeType::SupportedPrimitives => {
            list(walker, out, "primitive", |code| Primitive::from_code(code).map(Primitive::name))
        }
        AttributeType::ErrorInfo
        | AttributeType::ParticipantProvidedInfo
        | AttributeType::StatusInfo
        | AttributeType::UserDisplayName
        | AttributeType::UserUri => {
            let (at, length) = (walker.at, walker.left());
            let bytes = walker.take(length)?;
            let text = match std::str::from_utf8(bytes) {
                Ok(_) => format!("\"{}\"", shown(bytes)),
                Err(_) => hex(bytes),
            };
            out.push(Field::data("text", at, length, text));
            Ok(())
        }
        AttributeType::BeneficiaryInformation | AttributeType::RequestedByInformation => {
            group(walker, out, "user ID")
        }
        AttributeType::FloorRequestInformation | AttributeType::OverallRequestStatus => {
            group(walker, out, "floor request ID")
        }
        AttributeType::FloorRequestStatus => group(walker, out, "floor ID"),
    }
}

fn number(walker: &mut Walker<'_>, out: &mut Vec<Field>, name: &'static str) -> Result<(), Broken> {
    walker.number(out, name, 2, |_| None)?;
    end(walker)
}

fn group(walker: &mut Walker<'_>, out: &mut Vec<Field>, name: &'static str) -> Result<(), Broken> {
    walker.number(out, name, 2, |_| None)?;
    attributes(walker, out)
}

/// RFC 8855 section 5.2.6: with code 4 the types that are not known, with others nothing that is
/// defined.
fn error_code(walker: &mut Walker<'_>, out: &mut Vec<Field>) -> Result<(), Broken> {
    let name =
        |code: u64| u8::try_from(code).ok().and_then(ErrorCode::from_code).map(ErrorCode::name);
    let code = walker.code(out, "error code", 1, name)?;
    if code == u64::from(ErrorCode::UnknownMandatoryAttribute.code()) {
        return list(walker, out, "unknown attribute", |code| type_name(code >> 1));
    }
    let length = walker.left();
    if length > 0 {
        walker.data(out, "details", length)?;
    }
    Ok(())
}

/// A byte for each of something.
fn list(
    walker: &mut Walker<'_>,
    out: &mut Vec<Field>,
    name: &'static str,
    table: impl Fn(u8) -> Option<&'static str>,
) -> Result<(), Broken> {
    while walker.left() > 0 {
        walker.code(out, name, 1, |code| u8::try_from(code).ok().and_then(&table))?;
    }
    Ok(())
}

fn type_name(code: u8) -> Option<&'static str> {
    AttributeType::from_code(code).map(AttributeType::name)
}

/// An attribute of fixed length ends here.
fn end(walker: &Walker<'_>) -> Result<(), Broken> {
    match walker.left() {
        0 => Ok(()),
        left => walker.broken(walker.at, format!("{left} byte(s) more than its type has")),
    }
}
