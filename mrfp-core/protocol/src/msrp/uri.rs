//! MSRP URIs (RFC 4975 sections 6 and 9) and lists of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A list of URIs separated by single spaces, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path<'a>(pub &'a [u8]);

impl<'a> Path<'a> {
    /// Text of the leftmost URI: the next hop of a To-Path, the previous hop of a From-Path.
    pub fn first(&self) -> &'a [u8] {
        match memchr::memchr(b' ', self.0) {
            Some(space) => &self.0[..space],
            None => self.0,
        }
    }

    /// Text of the rightmost URI: the far end.
    pub fn last(&self) -> &'a [u8] {
        match memchr::memrchr(b' ', self.0) {
            Some(space) => &self.0[space + 1..],
            None => self.0,
        }
    }

    /// Texts of the URIs from left to right.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = Some(self.0);
        std::iter::from_fn(move || {
            let text = rest?;
            let end = memchr::memchr(b' ', text);
            rest = end.map(|space| &text[space + 1..]);
            Some(&text[..end.unwrap_or(text.len())])
        })
    }

    /// Number of URIs.
    pub fn count(&self) -> usize {
        memchr::memchr_iter(b' ', self.0).count() + 1
    }

    /// The leftmost URI, read.
    pub fn first_uri(&self) -> Result<Uri<'a>, UriError> {
        Uri::parse(self.first())
    }

    /// The rightmost URI, read.
    pub fn last_uri(&self) -> Result<Uri<'a>, UriError> {
        Uri::parse(self.last())
    }

    /// Printable ASCII without a space at either end or two in a row.
    pub(super) fn is_list(&self) -> bool {
        let foreign = |byte: u8| byte.wrapping_sub(b' ') > b'~' - b' ';
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return false };
        *first != b' '
            && last.is_ascii_graphic()
            && !any_pair(self.0, |byte, next| foreign(byte) | ((byte == b' ') & (next == b' ')))
    }
}

/// Whether any byte is wrong, given the one behind it; the last one has none and is not looked at.
/// Without a branch for each, so that many are looked at in one step.
#[inline]
pub(super) fn any_pair(bytes: &[u8], wrong: impl Fn(u8, u8) -> bool) -> bool {
    /// What a step takes; then the last step takes again some of what the one before it had, rather
    /// than bytes one by one.
    const STEP: usize = 32;
    let any = |bytes: &[u8], next: &[u8]| {
        bytes.iter().zip(next).fold(false, |found, (&byte, &next)| found | wrong(byte, next))
    };
    let Some((_, next)) = bytes.split_first() else { return false };
    let (Some(last), Some(last_next)) =
        (bytes[..next.len()].last_chunk::<STEP>(), next.last_chunk::<STEP>())
    else {
        return any(bytes, next);
    };
    let whole = next.len() / STEP * STEP;
    any(&bytes[..whole], &next[..whole]) | any(last, last_next)
}

/// A parsed MSRP URI, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a> {
    /// The whole text.
    pub text: &'a [u8],
    /// `msrps`.
    pub secure: bool,
    /// Host without brackets.
    pub host: &'a [u8],
    /// Port, `None` where absent.
    pub port: Option<u16>,
    /// Session-id, empty where absent.
    pub session_id: &'a [u8],
    /// Transport parameter (`tcp`).
    pub transport: &'a [u8],
}

/// Which part of a URI is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UriError {
    /// Neither `msrp://` nor `msrps://`.
    Scheme,
    /// User information.
    UserInfo,
    /// Host: empty, a character that may not stand there, or no IPv6 address in brackets.
    Host,
    /// Port: not 1 to 65535.
    Port,
    /// Session-id: a `/` with nothing or with foreign characters behind.
    SessionId,
    /// Transport: absent or not alphanumeric.
    Transport,
    /// One of the parameters behind the transport.
    Parameter,
    /// The URI of an endpoint lacks its port.
    PortMissing,
    /// The URI of an endpoint lacks its session-id.
    SessionIdMissing,
}

impl<'a> Uri<'a> {
    /// Reads one URI (RFC 4975 section 9).
    pub fn parse(text: &'a [u8]) -> Result<Self, UriError> {
        let (secure, rest) = scheme(text)?;
        // No other part may hold an `@`, so one that is there ends the user information.
        let rest = match memchr::memchr(b'@', rest) {
            Some(at) => {
                check(&rest[..at], USER_INFO, UriError::UserInfo)?;
                &rest[at + 1..]
            }
            None => rest,
        };
        let (host, rest) = host(rest)?;
        let (port, rest) = port(rest)?;
        let semicolon = memchr::memchr(b';', rest).ok_or(match rest.first() {
            None | Some(b'/') => UriError::Transport,
            Some(_) => UriError::Host,
        })?;
        let session_id = match rest[..semicolon].split_first() {
            None => &[],
            Some((b'/', id)) if !id.is_empty() => {
                check(id, SESSION_ID, UriError::SessionId)?;
                id
            }
            Some((b'/', _)) => return Err(UriError::SessionId),
            Some(_) => return Err(UriError::Host),
        };
        let mut parameters = rest[semicolon + 1..].split(|&byte| byte == b';');
        let transport = parameters.next().unwrap_or_default();
        if transport.is_empty() {
            return Err(UriError::Transport);
        }
        check(transport, ALPHANUMERIC, UriError::Transport)?;
        for parameter in parameters {
            let mut sides = parameter.splitn(2, |&byte| byte == b'=');
            if sides.any(|side| side.is_empty() || check(side, TOKEN, UriError::Parameter).is_err())
            {
                return Err(UriError::Parameter);
            }
        }
        Ok(Self { text, secure, host, port, session_id, transport })
    }

    /// Reads the URI of an endpoint, which carries port and session-id (RFC 4975 section 6).
    pub fn parse_endpoint(text: &'a [u8]) -> Result<Self, UriError> {
        let uri = Self::parse(text)?;
        if uri.port.is_none() {
            return Err(UriError::PortMissing);
        }
        if uri.session_id.is_empty() {
            return Err(UriError::SessionIdMissing);
        }
        Ok(uri)
    }

    /// Whether both name the same (RFC 4975 section 6.1). User information and parameters other
    /// than the transport do not count.
    pub fn same_as(&self, other: &Uri<'_>) -> bool {
        self.secure == other.secure
            && self.port == other.port
            && self.session_id == other.session_id
            && self.transport.eq_ignore_ascii_case(other.transport)
            && same_host(self.host, other.host)
    }

    /// The host as an address, where it is one.
    pub fn host_ip(&self) -> Option<IpAddr> {
        ip(self.host)
    }
}

fn scheme(text: &[u8]) -> Result<(bool, &[u8]), UriError> {
    let colon = memchr::memchr(b':', text).ok_or(UriError::Scheme)?;
    let secure = match &text[..colon] {
        name if name.eq_ignore_ascii_case(b"msrp") => false,
        name if name.eq_ignore_ascii_case(b"msrps") => true,
        _ => return Err(UriError::Scheme),
    };
    let rest = text[colon + 1..].strip_prefix(b"//").ok_or(UriError::Scheme)?;
    Ok((secure, rest))
}

/// The host without brackets, and what follows it.
fn host(text: &[u8]) -> Result<(&[u8], &[u8]), UriError> {
    if let Some(rest) = text.strip_prefix(b"[") {
        let end = memchr::memchr(b']', rest).ok_or(UriError::Host)?;
        let address = std::str::from_utf8(&rest[..end]).map_err(|_| UriError::Host)?;
        address.parse::<Ipv6Addr>().map_err(|_| UriError::Host)?;
        return Ok((&rest[..end], &rest[end + 1..]));
    }
    let end = memchr::memchr3(b':', b'/', b';', text).unwrap_or(text.len());
    if end == 0 {
        return Err(UriError::Host);
    }
    check(&text[..end], HOST, UriError::Host)?;
    Ok(text.split_at(end))
}

fn port(text: &[u8]) -> Result<(Option<u16>, &[u8]), UriError> {
    let Some(rest) = text.strip_prefix(b":") else {
        return Ok((None, text));
    };
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(end);
    let mut port = 0u16;
    for digit in digits {
        port = port
            .checked_mul(10)
            .and_then(|port| port.checked_add(u16::from(digit - b'0')))
            .ok_or(UriError::Port)?;
    }
    if port == 0 {
        return Err(UriError::Port);
    }
    match rest.first() {
        None | Some(b'/' | b';') => Ok((Some(port), rest)),
        Some(_) => Err(UriError::Port),
    }
}

fn same_host(one: &[u8], other: &[u8]) -> bool {
    if one.eq_ignore_ascii_case(other) {
        return true;
    }
    match (ip(one), ip(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => decoded(one).eq(decoded(other)),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn ip(host: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(host).ok()?;
    // A name may not hold a colon, so what holds one stood in brackets.
    if memchr::memchr(b':', host).is_some() {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// The bytes of a name in lower case, percent-encoding undone (RFC 4975 section 6.1, rule 2).
fn decoded(name: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', &rest[1..]),
            },
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        rest = after;
        Some(byte.to_ascii_lowercase())
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn check(text: &[u8], class: u8, error: UriError) -> Result<(), UriError> {
    let foreign = text.iter().any(|&byte| CLASSES[usize::from(byte)] & class == 0);
    if foreign { Err(error) } else { Ok(()) }
}

const ALPHANUMERIC: u8 = 1;
const SESSION_ID: u8 = 2;
const HOST: u8 = 4;
const USER_INFO: u8 = 8;
const TOKEN: u8 = 16;

/// Which character may stand where (RFC 4975 section 9, RFC 3986 section 3.2).
static CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        let alphanumeric = byte.is_ascii_alphanumeric();
        let unreserved = alphanumeric || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let sub_delimiter = matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        let mut class = 0;
        if alphanumeric {
            class |= ALPHANUMERIC;
        }
        if unreserved || matches!(byte, b'+' | b'=' | b'/') {
            class |= SESSION_ID;
        }
        if unreserved || byte == b'%' || (sub_delimiter && byte != b';') {
            class |= HOST;
        }
        if unreserved || sub_delimiter || matches!(byte, b'%' | b':') {
            class |= USER_INFO;
        }
        if matches!(byte, 0x21 | 0x23..=0x27 | 0x2a..=0x2b | 0x2d..=0x2e)
            || matches!(byte, 0x30..=0x39 | 0x41..=0x5a | 0x5e..=0x7e)
        {
            class |= TOKEN;
        }
        table[index] = class;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_every_byte_but_the_last_whatever_the_length() {
        for length in 0..100 {
            for at in 0..length {
                let mut bytes = vec![b'.'; length];
                bytes[at] = b'x';
                assert_eq!(any_pair(&bytes, |byte, _| byte == b'x'), at + 1 < length);
                assert_eq!(any_pair(&bytes, |_, next| next == b'x'), at > 0);
            }
        }
    }
}
