//! As much of a SIP message (RFC 3261 section 7) as a caller needs: start line, headers, body.

use std::fmt::Write as _;

/// A received message, borrowed from the datagram or the stream.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Request or response.
    pub start: Start<'a>,
    /// What a request is for.
    request_uri: Option<&'a str>,
    /// All header lines, each with its CRLF.
    headers: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// The first line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start<'a> {
    /// A request and its method.
    Request(&'a str),
    /// A response and its status.
    Response(u16),
}

/// Longest head that is read.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest body that is read.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

impl<'a> Message<'a> {
    /// Parses one message that lies whole in `bytes`.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head_end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..head_end + 2]).ok()?;
        let (line, headers) = head.split_once("\r\n")?;
        let (start, request_uri) = match line.strip_prefix("SIP/2.0 ") {
            Some(rest) => (Start::Response(rest.get(..3)?.parse().ok()?), None),
            None => {
                let mut words = line.split(' ');
                let (method, uri) = (words.next()?, words.next()?);
                if words.next()? != "SIP/2.0" {
                    return None;
                }
                (Start::Request(method), Some(uri))
            }
        };
        let mut message = Self { start, request_uri, headers, body: &bytes[head_end + 4..] };
        if let Some(length) = message.header("Content-Length", Some("l")) {
            message.body = message.body.get(..length.parse().ok()?)?;
        }
        Some(message)
    }

    /// What a request is for.
    #[must_use]
    pub fn request_uri(&self) -> Option<&'a str> {
        self.request_uri
    }

    /// The tag of To, which a request has within a dialog.
    #[must_use]
    pub fn to_tag(&self) -> Option<&'a str> {
        let to = self.header("To", Some("t"))?;
        let parameters = to.rsplit_once('>').map_or(to, |(_, parameters)| parameters);
        parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("tag="))
    }

    /// Bytes of the message at the front of a stream (RFC 3261 section 18.3); `Ok(None)`: it is not
    /// whole yet. An error: the stream cannot be cut.
    pub fn length_in_stream(stream: &[u8]) -> Result<Option<usize>, NotSip> {
        let Some(head_end) = memchr::memmem::find(stream, b"\r\n\r\n") else {
            return if stream.len() > HEAD_BYTES_MAX { Err(NotSip) } else { Ok(None) };
        };
        let head = std::str::from_utf8(&stream[..head_end + 2]).map_err(|_| NotSip)?;
        let length = find_header(head, "Content-Length", Some("l")).ok_or(NotSip)?;
        let length: usize = length.parse().map_err(|_| NotSip)?;
        if length > BODY_BYTES_MAX {
            return Err(NotSip);
        }
        let whole = head_end + 4 + length;
        Ok((stream.len() >= whole).then_some(whole))
    }

    /// The first header of that name, by its long or compact form.
    #[must_use]
    pub fn header(&self, name: &str, compact: Option<&str>) -> Option<&'a str> {
        find_header(self.headers, name, compact)
    }

    /// Every value of a header that may be repeated, in order; commas are not split.
    pub fn header_values(
        &self,
        name: &'static str,
        compact: Option<&'static str>,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        header_lines(self.headers)
            .filter(move |(found, _)| is_name(found, name, compact))
            .map(|(_, value)| value)
    }
}

/// The bytes are no SIP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotSip;

/// The response to a request. `tag` is for a To that has none, `contact` the value of that header; a body is
/// SDP.
#[must_use]
pub fn response(
    request: &Message<'_>,
    status: &str,
    tag: Option<&str>,
    contact: Option<&str>,
    body: &[u8],
) -> Vec<u8> {
    let mut response = format!("SIP/2.0 {status}\r\n");
    for name in [("Via", Some("v")), ("Record-Route", None)] {
        for value in request.header_values(name.0, name.1) {
            let _ = write!(response, "{}: {value}\r\n", name.0);
        }
    }
    for (name, compact) in
        [("From", Some("f")), ("To", Some("t")), ("Call-ID", Some("i")), ("CSeq", None)]
    {
        if let Some(value) = request.header(name, compact) {
            let _ = write!(response, "{name}: {value}");
            if let Some(tag) = tag.filter(|_| name == "To" && request.to_tag().is_none()) {
                let _ = write!(response, ";tag={tag}");
            }
            response.push_str("\r\n");
        }
    }
    if let Some(contact) = contact {
        let _ = write!(response, "Contact: {contact}\r\n");
    }
    if !body.is_empty() {
        response.push_str("Content-Type: application/sdp\r\n");
    }
    let _ = write!(response, "Content-Length: {}\r\n\r\n", body.len());
    let mut response = response.into_bytes();
    response.extend_from_slice(body);
    response
}

/// The URI of a name-addr or addr-spec, without brackets and header parameters.
#[must_use]
pub fn uri_of(value: &str) -> &str {
    match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or(rest),
        None => value.split(';').next().unwrap_or(value).trim(),
    }
}

fn find_header<'a>(headers: &'a str, name: &str, compact: Option<&str>) -> Option<&'a str> {
    header_lines(headers).find(|(found, _)| is_name(found, name, compact)).map(|(_, value)| value)
}

fn is_name(found: &str, name: &str, compact: Option<&str>) -> bool {
    found.eq_ignore_ascii_case(name)
        || compact.is_some_and(|compact| found.eq_ignore_ascii_case(compact))
}

fn header_lines(headers: &str) -> impl Iterator<Item = (&str, &str)> {
    headers.split("\r\n").filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim_end(), value.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
        i: 7@x\r\nContact: \"N\" <sip:n@192.0.2.1:5060;transport=udp>;expires=1\r\n\
        Record-Route: <sip:a;lr>\r\nRecord-Route: <sip:b;lr>\r\nl: 4\r\n\r\nv=0\r";

    #[test]
    fn reads_a_response_with_compact_names() {
        let message = Message::parse(OK.as_bytes()).unwrap();
        assert_eq!(message.start, Start::Response(200));
        assert_eq!(message.header("Call-ID", Some("i")), Some("7@x"));
        assert_eq!(message.body, b"v=0\r");
        let contact = message.header("Contact", Some("m")).unwrap();
        assert_eq!(uri_of(contact), "sip:n@192.0.2.1:5060;transport=udp");
        let routes: Vec<_> = message.header_values("Record-Route", None).collect();
        assert_eq!(routes, ["<sip:a;lr>", "<sip:b;lr>"]);
    }

    #[test]
    fn waits_for_the_rest_of_a_stream_at_every_cut() {
        for cut in 0..OK.len() {
            assert_eq!(Message::length_in_stream(&OK.as_bytes()[..cut]), Ok(None));
            let _ = Message::parse(&OK.as_bytes()[..cut]);
        }
        let two = format!("{OK}{OK}");
        assert_eq!(Message::length_in_stream(two.as_bytes()), Ok(Some(OK.len())));
    }

    #[test]
    fn refuses_what_is_no_sip() {
        assert!(Message::parse(b"GET / HTTP/1.1\r\n\r\n").is_none());
        assert!(Message::parse(b"SIP/2.0 2\r\n\r\n").is_none());
        assert!(Message::parse(b"BYE sip:x SIP/2.0\r\nContent-Length: 9\r\n\r\n").is_none());
        assert!(Message::length_in_stream(b"BYE sip:x SIP/2.0\r\n\r\n").is_err());
    }
}
