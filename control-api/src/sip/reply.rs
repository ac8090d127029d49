//! Responses built from the raw bytes of a request, for what the SIP stack never sees.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::wire::{self, Message, Name};

/// Builds a response to `message`; `None` where its top Via is unusable. `extra` holds complete
/// header lines.
pub(crate) fn build(
    message: &Message<'_>,
    status: u16,
    reason: &str,
    extra: &str,
    source: SocketAddr,
) -> Option<Vec<u8>> {
    let head = head(message, None, source)?;
    Some(response(status, reason, &head, extra, b""))
}

/// A whole response. `extra` holds complete header lines.
pub(super) fn response(
    status: u16,
    reason: &str,
    head: &[u8],
    extra: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut response = Vec::with_capacity(head.len() + extra.len() + body.len() + OVERHEAD_SIZE);
    // Writing to a vector does not fail.
    let _ = write!(response, "SIP/2.0 {status} {reason}\r\n");
    response.extend_from_slice(head);
    response.extend_from_slice(extra.as_bytes());
    let _ = write!(response, "Content-Length: {}\r\n\r\n", body.len());
    response.extend_from_slice(body);
    response
}

/// What every response to a request begins with (RFC 3261 section 8.2.6.2): Via, From, To with a tag,
/// Call-ID and CSeq. Without `to_tag` a To that has none gets one that is the same for the same
/// request. `None` where the top Via is unusable.
pub(super) fn head(
    message: &Message<'_>,
    to_tag: Option<&str>,
    source: SocketAddr,
) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_SIZE_USUAL);
    let mut top = true;
    for value in message.all(Name::Via) {
        head.extend_from_slice(b"Via: ");
        if top {
            write_top_via(&mut head, value, source);
            top = false;
        } else {
            write_unfolded(&mut head, value);
        }
        head.extend_from_slice(b"\r\n");
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
        head.extend_from_slice(label.as_bytes());
        head.extend_from_slice(b": ");
        write_unfolded(&mut head, value);
        if name == Name::To && !wire::has_tag(value) {
            head.extend_from_slice(b";tag=");
            match to_tag {
                Some(tag) => head.extend_from_slice(tag.as_bytes()),
                None => write!(head, "{:016x}", stateless_tag(message)).ok()?,
            }
        }
        head.extend_from_slice(b"\r\n");
    }
    Some(head)
}

/// What a request has in common with its repetitions and its CANCEL, and with nothing else (RFC 3261
/// section 17.2.3): besides branch and sent-by what a sender of RFC 2543 may have instead.
#[derive(Hash)]
pub(crate) struct Identity<'a> {
    branch: &'a [u8],
    host: &'a [u8],
    port: Option<u16>,
    call_id: &'a [u8],
    from_tag: Option<&'a [u8]>,
    cseq: u32,
}

impl<'a> Identity<'a> {
    /// `None` where the request cannot be answered.
    pub(crate) fn of(request: &Message<'a>) -> Option<Self> {
        let value = request.first(Name::Via)?;
        let via = TopVia::parse(value)?;
        Some(Self {
            branch: via.branch.unwrap_or(value),
            host: via.host,
            port: via.port,
            call_id: request.first(Name::CallId)?,
            from_tag: request.first(Name::From).and_then(wire::tag),
            cseq: wire::cseq(request.first(Name::CSeq)?)?,
        })
    }
}

/// Where the response to a request goes that came as a datagram: back to where it came from, at the
/// port it came from if `rport` asks for that (RFC 3581 section 4), else at the one its Via names
/// (RFC 3261 section 18.2.2).
pub(super) fn destination(message: &Message<'_>, source: SocketAddr) -> Option<SocketAddr> {
    let via = TopVia::parse(message.first(Name::Via)?)?;
    let port =
        if via.rport_end.is_some() { source.port() } else { via.port.unwrap_or(PORT_DEFAULT) };
    Some(SocketAddr::new(source.ip(), port))
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
    if value.contains(&b'\r') {
        response.extend(value.iter().filter(|byte| !b"\r\n".contains(byte)));
    } else {
        response.extend_from_slice(value);
    }
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
    //= RFC 3261 section 18.2.1: the server MUST add a "received" parameter
    // Whatever the sender says of where it is does not count.
    let received = via.received.clone().unwrap_or(via.end..via.end);
    for part in [0..received.start, received.end..via.end] {
        match via.rport_end.filter(|at| part.start < *at && *at <= part.end) {
            Some(at) => {
                write_unfolded(response, &value[part.start..at]);
                let _ = write!(response, "={}", source.port());
                write_unfolded(response, &value[at..part.end]);
            }
            None => write_unfolded(response, &value[part]),
        }
    }
    if differs || via.rport_end.is_some() {
        let _ = write!(response, ";received={}", source.ip());
    }
    write_unfolded(response, &value[via.end..]);
}

/// The first value of a Via field, taken apart.
pub(super) struct TopVia<'a> {
    /// Host of sent-by, an IPv6 address with its brackets.
    host: &'a [u8],
    /// Where this value ends in the field: at a comma or the end.
    end: usize,
    /// Port of sent-by.
    port: Option<u16>,
    /// The transaction, as whoever sent the request names it.
    branch: Option<&'a [u8]>,
    /// Just behind an `rport` parameter without a value.
    rport_end: Option<usize>,
    /// A `received` parameter with the semicolon before it.
    received: Option<Range<usize>>,
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
        let (host, port) = host_port(wire::trim(&rest[gap..]))?;
        let mut via = Self { host, port, branch: None, end, rport_end: None, received: None };
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
            if name.eq_ignore_ascii_case(b"branch") {
                via.branch = parameter.splitn(2, |&byte| byte == b'=').nth(1).map(wire::trim);
            }
            if name.eq_ignore_ascii_case(b"received") {
                via.received = Some(begin - 1..at);
            }
        }
        Some(via)
    }
}

/// The parts of `host [ ":" port ]`; `None` where one of them is malformed. White space around the
/// colon is allowed (it is in a Via; a Request-URI has none left here).
pub(super) fn host_port(bytes: &[u8]) -> Option<(&[u8], Option<u16>)> {
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
        [] => Some((host, None)),
        [b':', port @ ..] => {
            let port = wire::decimal(wire::trim(port), u64::from(u16::MAX))?;
            Some((host, u16::try_from(port).ok()))
        }
        _ => None,
    }
}

/// RFC 3261 section 19.1.2: the port of SIP where none is named.
const PORT_DEFAULT: u16 = 5060;
/// Five header lines of usual length.
const HEAD_SIZE_USUAL: usize = 512;
/// Status line and Content-Length.
const OVERHEAD_SIZE: usize = 64;
