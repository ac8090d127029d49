//! Responses built from the raw bytes of a request, for what the SIP stack never sees.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::wire::{self, Message, Name};

/// Builds a response to `message`; `None` where its top Via is unusable. `extra` holds complete
/// header lines.
pub(super) fn build(
    message: &Message<'_>,
    status: u16,
    reason: &str,
    extra: &str,
    source: SocketAddr,
) -> Option<Vec<u8>> {
    let mut response = Vec::with_capacity(512);
    write!(response, "SIP/2.0 {status} {reason}\r\n").ok()?;
    let mut top = true;
    for value in message.all(Name::Via) {
        response.extend_from_slice(b"Via: ");
        if top {
            write_top_via(&mut response, value, source);
            top = false;
        } else {
            write_unfolded(&mut response, value);
        }
        response.extend_from_slice(b"\r\n");
    }
    if top {
        return None;
    }
    for (name, label) in
        [(Name::From, "From"), (Name::To, "To"), (Name::CallId, "Call-ID"), (Name::CSeq, "CSeq")]
    {
        let Some(value) = message.first(name) else {
            continue;
        };
        write!(response, "{label}: ").ok()?;
        write_unfolded(&mut response, value);
        if name == Name::To && !wire::has_tag(value) {
            write!(response, ";tag={:016x}", stateless_tag(message)).ok()?;
        }
        response.extend_from_slice(b"\r\n");
    }
    response.extend_from_slice(extra.as_bytes());
    response.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    Some(response)
}

/// The same tag for the same request: a retransmission must get the same answer (RFC 3261
/// section 8.2.7).
fn stateless_tag(message: &Message<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for name in [Name::CallId, Name::From, Name::Via] {
        message.first(name).hash(&mut hasher);
    }
    hasher.finish()
}

fn write_unfolded(response: &mut Vec<u8>, value: &[u8]) {
    response.extend(value.iter().filter(|byte| !b"\r\n".contains(byte)));
}

/// The top Via with `received` where sent-by is not the source (RFC 3261 section 18.2.1) and
/// `rport` filled in where it was asked for (RFC 3581 section 4).
fn write_top_via(response: &mut Vec<u8>, value: &[u8], source: SocketAddr) {
    let Some(via) = TopVia::parse(value) else {
        return write_unfolded(response, value);
    };
    let differs = std::str::from_utf8(via.host)
        .ok()
        .and_then(|host| host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok())
        != Some(source.ip());
    let at = via.rport_end.unwrap_or(via.end);
    write_unfolded(response, &value[..at]);
    if via.rport_end.is_some() {
        response.extend_from_slice(format!("={}", source.port()).as_bytes());
    }
    write_unfolded(response, &value[at..via.end]);
    if (differs || via.rport_end.is_some()) && !via.has_received {
        response.extend_from_slice(format!(";received={}", source.ip()).as_bytes());
    }
    write_unfolded(response, &value[via.end..]);
}

/// The first value of a Via field, taken apart.
pub(super) struct TopVia<'a> {
    /// Host of sent-by, an IPv6 address with its brackets.
    host: &'a [u8],
    /// Where this value ends in the field: at a comma or the end.
    end: usize,
    /// Just behind an `rport` parameter without a value.
    rport_end: Option<usize>,
    has_received: bool,
}

impl<'a> TopVia<'a> {
    /// Reads `SIP / 2.0 / transport LWS sent-by *( ; parameter )`.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let end = wire::unquoted_position(value, b',')?.unwrap_or(value.len());
        let mut parameters = value[..end].split(|&byte| byte == b';');
        let sent = parameters.next()?;
        let mut slashes = sent.splitn(3, |&byte| byte == b'/');
        let (protocol, version) = (wire::trim(slashes.next()?), wire::trim(slashes.next()?));
        if !protocol.eq_ignore_ascii_case(b"SIP") || version != b"2.0" {
            return None;
        }
        let rest = wire::trim(slashes.next()?);
        let gap = rest.iter().position(u8::is_ascii_whitespace)?;
        if !wire::is_token(&rest[..gap]) {
            return None;
        }
        let host = host_port(wire::trim(&rest[gap..]))?;
        let mut via = Self { host, end, rport_end: None, has_received: false };
        let mut at = sent.len();
        for parameter in parameters {
            let begin = at + 1;
            at = begin + parameter.len();
            let name = wire::trim(parameter.split(|&byte| byte == b'=').next()?);
            if !wire::is_token(name) {
                return None;
            }
            if name.eq_ignore_ascii_case(b"rport") && !parameter.contains(&b'=') {
                via.rport_end = Some(begin + parameter.trim_ascii_end().len());
            }
            via.has_received |= name.eq_ignore_ascii_case(b"received");
        }
        Some(via)
    }
}

/// The host of `host [ ":" port ]`; `None` where one of them is malformed. White space around the
/// colon is allowed (it is in a Via; a Request-URI has none left here).
pub(super) fn host_port(bytes: &[u8]) -> Option<&[u8]> {
    let host_end = if bytes.first() == Some(&b'[') {
        bytes.iter().position(|&byte| byte == b']')? + 1
    } else {
        bytes.iter().position(|&byte| byte == b':').unwrap_or(bytes.len())
    };
    let host = wire::trim(&bytes[..host_end]);
    let host_is_well_formed = match host {
        [b'[', address @ .., b']'] => {
            // RFC 5118 section 4.3 asks to accept what the old ABNF allowed (three colons), so
            // this looks at the characters, not at the address.
            !address.is_empty()
                && address.iter().all(|&byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
        }
        name => {
            !name.is_empty()
                && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    if !host_is_well_formed {
        return None;
    }
    let rest = wire::trim(&bytes[host_end..]);
    match rest {
        [] => Some(host),
        [b':', port @ ..] => wire::decimal(wire::trim(port), 65_535).map(|_| host),
        _ => None,
    }
}
