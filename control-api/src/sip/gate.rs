//! The validity gate: looks at the raw bytes of every message before the SIP stack sees them and
//! answers or drops what RFC 3261 and RFC 4475 say must not be processed. The stack behind it is
//! lenient, so this is where 400, 405, 406, 415, 416, 420, 489, 501 and 505 come from. Sans-IO.

use std::net::SocketAddr;
use std::ops::Range;

use super::multipart;
use super::reply;
use super::wire::{self, Message, Name};
use crate::mrfc::CONFERENCE_INFO;

/// The methods we take, as the Allow header says it.
pub const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, SUBSCRIBE, REFER";

/// The event packages there are, as the Allow-Events header says it.
pub const ALLOW_EVENTS: &str = "conference";

/// The extensions we know, as the Supported header says it.
pub const SUPPORTED: &str = "timer, norefersub";

/// Methods that exist but that we do not take: 405, not 501 (RFC 3261 section 21.4.6).
const METHODS_REFUSED: [&[u8]; 6] =
    [b"REGISTER", b"INFO", b"MESSAGE", b"NOTIFY", b"PRACK", b"PUBLISH"];

/// The methods that are passed on: those the stack has a name for.
pub(crate) const METHODS_PASSED: [&[u8]; 14] = [
    b"INVITE",
    b"ACK",
    b"BYE",
    b"CANCEL",
    b"OPTIONS",
    b"PRACK",
    b"UPDATE",
    b"INFO",
    b"MESSAGE",
    b"REFER",
    b"NOTIFY",
    b"SUBSCRIBE",
    b"PUBLISH",
    b"REGISTER",
];

/// What a body may be, as the Accept header says it.
pub const ACCEPT: &str = "application/sdp, multipart/related, multipart/mixed";

/// CSeq numbers are less than 2**31 (RFC 3261 section 8.1.1.5).
const CSEQ_MAX: u64 = (1 << 31) - 1;

/// Max-Forwards is 0 to 255 (RFC 3261 section 20.22).
const MAX_FORWARDS_MAX: u64 = 255;

/// Expires is below 2**32 seconds (RFC 3261 section 20.19).
const EXPIRES_MAX: u64 = (1 << 32) - 1;

/// One header line (with folds) may be this long; RFC 4475 `longreq` stays below it.
const FIELD_SIZE_MAX: usize = 8 * 1024;

/// How the message came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// One datagram, one message.
    Udp,
    /// Framed by Content-Length (RFC 3261 section 18.3).
    Tcp,
}

/// What to do with a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Give it to the stack.
    Accept {
        /// Where the body is: Content-Length may be absent on UDP, and trailing bytes are not
        /// part of the message (RFC 3261 section 18.3). Of an INVITE and an UPDATE with a body of
        /// several parts: where the session description is.
        body: Range<usize>,
    },
    /// Drop it without an answer.
    Ignore(Ignored),
    /// Drop it and send this answer to where it came from.
    Reject {
        /// Status code.
        status: u16,
        /// Reason phrase: what is wrong, in a few words.
        reason: &'static str,
        /// The whole response.
        response: Vec<u8>,
    },
}

/// Why a message was dropped without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ignored {
    /// Line ends only: a keep-alive.
    KeepAlive,
    /// A malformed response; responses are never answered.
    Response,
    /// A malformed ACK; an ACK is never answered (RFC 3261 section 17).
    Ack,
    /// A request without a usable Via or without a start line: no way to answer.
    Unanswerable,
}

/// Judges one message.
pub fn check(bytes: &[u8], transport: Transport, source: SocketAddr) -> Verdict {
    check_scanned(&Message::scan(bytes), bytes, transport, source)
}

/// Judges one message that has been scanned.
pub fn check_scanned(
    message: &Message<'_>,
    bytes: &[u8],
    transport: Transport,
    source: SocketAddr,
) -> Verdict {
    judge(message, bytes, transport, source, check_request)
}

/// Judges one message that is for somebody else, and that we pass on if it is well-formed.
pub(crate) fn check_to_pass(
    message: &Message<'_>,
    bytes: &[u8],
    transport: Transport,
    source: SocketAddr,
) -> Verdict {
    judge(message, bytes, transport, source, check_request_to_pass)
}

/// Where the body of a request is that may be taken.
type CheckRequest = fn(&Message<'_>, &[u8], Transport) -> Result<Range<usize>, Refusal>;

fn judge(
    message: &Message<'_>,
    bytes: &[u8],
    transport: Transport,
    source: SocketAddr,
    check_request: CheckRequest,
) -> Verdict {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Verdict::Ignore(Ignored::KeepAlive);
    }
    if is_response(message.start_line) {
        return match check_response(message, bytes, transport) {
            Ok(body) => Verdict::Accept { body },
            Err(_) => Verdict::Ignore(Ignored::Response),
        };
    }
    match check_request(message, bytes, transport) {
        Ok(body) => Verdict::Accept { body },
        Err(_) if message.start_line.starts_with(b"ACK ") => Verdict::Ignore(Ignored::Ack),
        Err(refusal) => reject(message, &refusal, source),
    }
}

/// A response to a message the gate let pass and that cannot be processed for another reason
/// (overload, a form the stack does not understand). `None`: not answerable.
pub fn refuse(
    bytes: &[u8],
    status: u16,
    reason: &'static str,
    extra: &str,
    source: SocketAddr,
) -> Option<Vec<u8>> {
    let message = Message::scan(bytes);
    if is_response(message.start_line) || message.start_line.starts_with(b"ACK ") {
        return None;
    }
    reply::build(&message, status, reason, extra, source)
}

/// A status to answer with.
struct Refusal {
    status: u16,
    reason: &'static str,
    /// Further header lines, each with its CRLF.
    extra: String,
}

fn malformed(reason: &'static str) -> Refusal {
    Refusal { status: 400, reason, extra: String::new() }
}

fn reject(message: &Message<'_>, refusal: &Refusal, source: SocketAddr) -> Verdict {
    match reply::build(message, refusal.status, refusal.reason, &refusal.extra, source) {
        Some(response) => {
            Verdict::Reject { status: refusal.status, reason: refusal.reason, response }
        }
        None => Verdict::Ignore(Ignored::Unanswerable),
    }
}

fn is_response(start_line: &[u8]) -> bool {
    start_line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
}

fn check_response(
    message: &Message<'_>,
    bytes: &[u8],
    transport: Transport,
) -> Result<Range<usize>, Refusal> {
    //= RFC 3261 section 7.2: Status-Line = SIP-Version SP Status-Code SP Reason-Phrase CRLF
    let mut parts = message.start_line.splitn(3, |&byte| byte == b' ');
    let version = parts.next().unwrap_or_default();
    let code = parts.next().unwrap_or_default();
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        return Err(malformed("Bad SIP Version"));
    }
    if code.len() != 3 || wire::decimal(code, 699).is_none_or(|code| code < 100) {
        return Err(malformed("Bad Status Code"));
    }
    check_fields(message)?;
    check_cseq(message, None)?;
    check_body_length(message, bytes, transport)
}

fn check_request(
    message: &Message<'_>,
    bytes: &[u8],
    transport: Transport,
) -> Result<Range<usize>, Refusal> {
    let (line, uri, body) = check_syntax(message, bytes, transport)?;
    check_method(line.method)?;
    if uri == UriScheme::Foreign {
        return Err(Refusal {
            status: 416,
            reason: "Unsupported URI Scheme",
            extra: String::new(),
        });
    }
    if line.method != b"ACK" && line.method != b"CANCEL" {
        check_require(message)?;
    }
    if line.method == b"INVITE" || line.method == b"UPDATE" {
        let description = check_content(message, bytes, body)?;
        check_accept(message, &["application/sdp", "application/*", "*/*"])?;
        return Ok(description);
    }
    //= RFC 3515 section 2.4.1: a REFER request implicitly MUST contain exactly one Refer-To header
    if line.method == b"REFER" && message.count(Name::ReferTo) != 1 {
        return Err(malformed("Not One Refer-To"));
    }
    if line.method == b"SUBSCRIBE" {
        check_subscribe(message, body.is_empty())?;
    }
    Ok(body)
}

/// What every request must be like, whoever it is for.
fn check_syntax<'a>(
    message: &Message<'a>,
    bytes: &[u8],
    transport: Transport,
) -> Result<(RequestLine<'a>, UriScheme, Range<usize>), Refusal> {
    let line = check_request_line(message.start_line)?;
    check_fields(message)?;
    check_cseq(message, Some(line.method))?;
    if let Some(value) = message.first(Name::MaxForwards) {
        // Who forwards nothing takes 0, too (RFC 3261 section 16.3 asks 483 of proxies only). Absent is
        // fine: RFC 2543 had it optional.
        wire::decimal(value, MAX_FORWARDS_MAX).ok_or(malformed("Bad Max-Forwards"))?;
    }
    let body = check_body_length(message, bytes, transport)?;
    let uri = check_uri(line.uri)?;
    Ok((line, uri, body))
}

/// A request that goes on to somebody else: what it asks for is for that one to judge.
fn check_request_to_pass(
    message: &Message<'_>,
    bytes: &[u8],
    transport: Transport,
) -> Result<Range<usize>, Refusal> {
    let (line, _, body) = check_syntax(message, bytes, transport)?;
    //= RFC 3261 section 25.1: TEXT-UTF8char = %x21-7E / UTF8-NONASCII
    // The stack would leave out what comes after it.
    if std::str::from_utf8(&bytes[..message.body_start]).is_err() {
        return Err(malformed("Header Not UTF-8"));
    }
    if !METHODS_PASSED.contains(&line.method) {
        let methods: Vec<_> = METHODS_PASSED.iter().map(|it| String::from_utf8_lossy(it)).collect();
        let extra = format!("Allow: {}\r\n", methods.join(", "));
        return Err(Refusal { status: 501, reason: "Not Implemented", extra });
    }
    //= RFC 3261 section 16.3: If the request contains a Max-Forwards header field with a field value
    //= of zero (0), the element MUST NOT forward the request.
    let spent = message.first(Name::MaxForwards).and_then(|it| wire::decimal(it, 0)).is_some();
    if spent && line.method != b"CANCEL" {
        return Err(Refusal { status: 483, reason: "Too Many Hops", extra: String::new() });
    }
    Ok(body)
}

struct RequestLine<'a> {
    method: &'a [u8],
    uri: &'a [u8],
}

fn check_request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    //= RFC 3261 section 7.1: Request-Line = Method SP Request-URI SP SIP-Version CRLF
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(uri), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("Malformed Request-Line"));
    };
    if !wire::is_token(method) {
        return Err(malformed("Malformed Method"));
    }
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        let other_version = version.get(..4).is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/"))
            && version[4..].iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        return Err(if other_version && version.len() > 4 {
            Refusal { status: 505, reason: "Version Not Supported", extra: String::new() }
        } else {
            malformed("Malformed SIP-Version")
        });
    }
    Ok(RequestLine { method, uri })
}

/// The header fields as such: the mandatory ones once, the others not doubled where they have one
/// value (RFC 3261 sections 8.1.1 and 7.3.1), quotes closed, Via readable.
fn check_fields(message: &Message<'_>) -> Result<(), Refusal> {
    match message.defect {
        None => {}
        Some(wire::Defect::Unterminated) => return Err(malformed("Missing End Of Header")),
        Some(wire::Defect::FieldName) => return Err(malformed("Malformed Header Field")),
        Some(wire::Defect::BareLineEnd) => return Err(malformed("Bare CR Or LF In Header")),
        Some(wire::Defect::TooManyFields) => return Err(malformed("Too Many Header Fields")),
    }
    if message.fields.iter().any(|field| field.value.len() > FIELD_SIZE_MAX) {
        return Err(malformed("Header Field Too Long"));
    }
    let mandatory: [(Name, &'static str, &'static str); 4] = [
        (Name::From, "Missing From", "Multiple From"),
        (Name::To, "Missing To", "Multiple To"),
        (Name::CallId, "Missing Call-ID", "Multiple Call-ID"),
        (Name::CSeq, "Missing CSeq", "Multiple CSeq"),
    ];
    for (name, missing, multiple) in mandatory {
        match message.count(name) {
            0 => return Err(malformed(missing)),
            1 => {}
            _ => return Err(malformed(multiple)),
        }
    }
    if message.first(Name::CallId).is_none_or(<[u8]>::is_empty) {
        return Err(malformed("Missing Call-ID"));
    }
    for (name, multiple) in [
        (Name::MaxForwards, "Multiple Max-Forwards"),
        (Name::ContentLength, "Multiple Content-Length"),
        (Name::ContentType, "Multiple Content-Type"),
    ] {
        if message.count(name) > 1 {
            return Err(malformed(multiple));
        }
    }
    for (name, reason) in [
        (Name::From, "Malformed From"),
        (Name::To, "Malformed To"),
        (Name::Contact, "Malformed Contact"),
    ] {
        let closed = |value: &[u8]| wire::unquoted_position(value, b',').is_some();
        if !message.all(name).all(|value| !value.is_empty() && closed(value)) {
            return Err(malformed(reason));
        }
    }
    let mut vias = message.all(Name::Via).peekable();
    if vias.peek().is_none() {
        return Err(malformed("Missing Via"));
    }
    if !vias.all(|value| reply::TopVia::parse(value).is_some()) {
        return Err(malformed("Malformed Via"));
    }
    Ok(())
}

fn check_cseq(message: &Message<'_>, method: Option<&[u8]>) -> Result<(), Refusal> {
    let value = message.first(Name::CSeq).unwrap_or_default();
    let mut parts = value.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty());
    let (Some(number), Some(cseq_method), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(malformed("Malformed CSeq"));
    };
    wire::decimal(number, CSEQ_MAX).ok_or(malformed("Bad CSeq Number"))?;
    //= RFC 3261 section 8.1.1.5: The method MUST match that of the request.
    if method.is_some_and(|method| method != cseq_method) {
        return Err(malformed("CSeq Method Mismatch"));
    }
    if !wire::is_token(cseq_method) {
        return Err(malformed("Malformed CSeq"));
    }
    Ok(())
}

fn check_body_length(
    message: &Message<'_>,
    bytes: &[u8],
    transport: Transport,
) -> Result<Range<usize>, Refusal> {
    let available = bytes.len() - message.body_start;
    let length = match (message.first(Name::ContentLength), transport) {
        (Some(value), _) => wire::decimal(value, u64::from(u32::MAX))
            .and_then(|length| usize::try_from(length).ok())
            .ok_or(malformed("Bad Content-Length"))?,
        (None, Transport::Udp) => available,
        //= RFC 3261 section 20.14: If a stream-based protocol (such as TCP) is used as
        //= transport, then the header field MUST be used.
        (None, Transport::Tcp) => return Err(malformed("Missing Content-Length")),
    };
    if length > available {
        return Err(malformed("Content-Length Exceeds Message"));
    }
    Ok(message.body_start..message.body_start + length)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UriScheme {
    Sip,
    Foreign,
}

/// Enough of the Request-URI to know whether it can be ours: scheme, host, port, escapes.
fn check_uri(uri: &[u8]) -> Result<UriScheme, Refusal> {
    let bad = || malformed("Malformed Request-URI");
    let colon = uri.iter().position(|&byte| byte == b':').ok_or_else(bad)?;
    let scheme = &uri[..colon];
    let scheme_is_well_formed = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !scheme_is_well_formed {
        return Err(bad());
    }
    if !scheme.eq_ignore_ascii_case(b"sip") && !scheme.eq_ignore_ascii_case(b"sips") {
        return Ok(UriScheme::Foreign);
    }
    let rest = &uri[colon + 1..];
    if rest.iter().any(|&byte| byte <= b' ' || byte == 0x7f || b"<>\"".contains(&byte)) {
        return Err(bad());
    }
    let escapes_are_well_formed = rest.iter().enumerate().all(|(at, &byte)| {
        byte != b'%'
            || rest.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if !escapes_are_well_formed {
        return Err(bad());
    }
    // The user part may contain `?` and `;` unescaped, so the host begins after the last `@`.
    let (user, host) = match rest.iter().rposition(|&byte| byte == b'@') {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    };
    if user.is_some_and(<[u8]>::is_empty) {
        return Err(bad());
    }
    //= RFC 3261 section 19.1.1: headers are not allowed in a Request-URI.
    if host.contains(&b'?') {
        return Err(bad());
    }
    let host = host.split(|&byte| byte == b';').next().unwrap_or_default();
    if reply::host_port(host).is_none() {
        return Err(bad());
    }
    Ok(UriScheme::Sip)
}

fn check_method(method: &[u8]) -> Result<(), Refusal> {
    let taken = ALLOW.as_bytes().split(|&byte| byte == b',').any(|m| wire::trim(m) == method);
    if taken {
        return Ok(());
    }
    let extra = format!("Allow: {ALLOW}\r\n");
    Err(if METHODS_REFUSED.contains(&method) {
        Refusal { status: 405, reason: "Method Not Allowed", extra }
    } else {
        Refusal { status: 501, reason: "Not Implemented", extra }
    })
}

fn check_require(message: &Message<'_>) -> Result<(), Refusal> {
    let mut unsupported = String::new();
    for value in message.all(Name::Require) {
        for tag in value.split(|&byte| byte == b',').map(wire::trim) {
            let known = [&b"timer"[..], b"norefersub"];
            if tag.is_empty() || known.iter().any(|known| tag.eq_ignore_ascii_case(known)) {
                continue;
            }
            if !wire::is_token(tag) {
                return Err(malformed("Malformed Require"));
            }
            if !unsupported.is_empty() {
                unsupported.push_str(", ");
            }
            unsupported.extend(tag.iter().map(|&byte| char::from(byte)));
        }
    }
    if unsupported.is_empty() {
        return Ok(());
    }
    let extra = format!("Unsupported: {unsupported}\r\n");
    Err(Refusal { status: 420, reason: "Bad Extension", extra })
}

/// Where the session description is, alone or among others.
fn check_content(
    message: &Message<'_>,
    bytes: &[u8],
    body: Range<usize>,
) -> Result<Range<usize>, Refusal> {
    if body.is_empty() {
        return Ok(body);
    }
    let unsupported = |extra: &str| Refusal {
        status: 415,
        reason: "Unsupported Media Type",
        extra: extra.to_owned(),
    };
    let encoded = message
        .all(Name::ContentEncoding)
        .any(|value| !value.is_empty() && !value.eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(unsupported("Accept-Encoding: identity\r\n"));
    }
    let content_type = message.first(Name::ContentType).unwrap_or_default();
    let described = multipart::session_description(content_type, &bytes[body.clone()]);
    let described = described.ok_or_else(|| unsupported(&format!("Accept: {ACCEPT}\r\n")))?;
    Ok(body.start + described.start..body.start + described.end)
}

/// RFC 6665 section 4.2.1.1: a package that is not known, or none, gets 489; RFC 4575 section 3.4
/// names the one type there is. Filters (section 3.2) are not defined, so no body is.
fn check_subscribe(message: &Message<'_>, body_is_empty: bool) -> Result<(), Refusal> {
    if message.count(Name::Event) > 1 {
        return Err(malformed("Multiple Event"));
    }
    let event = message.first(Name::Event).unwrap_or_default();
    let package = wire::trim(event.split(|&byte| byte == b';').next().unwrap_or_default());
    // What a REFER has begun may be refreshed and ended, but not begun otherwise.
    let within = message.first(Name::To).is_some_and(wire::has_tag);
    let referred = within && package.eq_ignore_ascii_case(b"refer");
    if !referred && !package.eq_ignore_ascii_case(b"conference") {
        let extra = format!("Allow-Events: {ALLOW_EVENTS}\r\n");
        return Err(Refusal { status: 489, reason: "Bad Event", extra });
    }
    if message.count(Name::Expires) > 1 {
        return Err(malformed("Multiple Expires"));
    }
    if message.first(Name::Expires).is_some_and(|value| wire::decimal(value, EXPIRES_MAX).is_none())
    {
        return Err(malformed("Bad Expires"));
    }
    if !body_is_empty {
        let extra = "Accept:\r\n".to_owned();
        return Err(Refusal { status: 415, reason: "Unsupported Media Type", extra });
    }
    if referred {
        return check_accept(message, &["message/sipfrag", "message/*", "*/*"]);
    }
    check_accept(message, &[CONFERENCE_INFO, "application/*", "*/*"])
}

/// A peer that does not take what we answer or notify with gets 406 (RFC 4475 section 3.3.15).
fn check_accept(message: &Message<'_>, ours: &[&str]) -> Result<(), Refusal> {
    let mut ranges = message
        .all(Name::Accept)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(|range| wire::trim(range.split(|&byte| byte == b';').next().unwrap_or_default()))
        .peekable();
    let taken = |range: &[u8]| ours.iter().any(|own| range.eq_ignore_ascii_case(own.as_bytes()));
    if ranges.peek().is_none() || ranges.any(taken) {
        return Ok(());
    }
    Err(Refusal { status: 406, reason: "Not Acceptable", extra: String::new() })
}
