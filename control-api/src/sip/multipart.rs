//! Bodies of several parts (RFC 2046 section 5.1): a session description among others. IMS puts
//! XML beside it, a file offer its icon (RFC 5547 section 8.8).

use std::ops::Range;

use super::wire::{find, trim};

/// Where the session description lies in the body of a request with this Content-Type. `None`:
/// there is none, or there is something beside it that must not be passed over.
pub(super) fn session_description(content_type: &[u8], body: &[u8]) -> Option<Range<usize>> {
    let media_type = media_type(content_type);
    if media_type == b"application/sdp" {
        return Some(0..body.len());
    }
    let subtype = media_type.strip_prefix(b"multipart/")?;
    let boundary = parameter(content_type, b"boundary")?;
    if !(1..=BOUNDARY_SIZE_MAX).contains(&boundary.len()) {
        return None;
    }
    let parts = parts(body, boundary)?;
    let is_sdp = |part: &&Part<'_>| media_type_of(part) == b"application/sdp";
    let chosen = match subtype {
        // RFC 2387: the root is what counts, the rest belongs to it.
        b"related" => {
            let start = parameter(content_type, b"start");
            let is_root = |part: &&Part<'_>| {
                start.is_none_or(|start| part.header(b"content-id").is_some_and(|id| id == start))
            };
            parts.iter().find(is_root).filter(is_sdp)?
        }
        // RFC 2046 section 5.1.4: the last that is understood.
        b"alternative" => parts.iter().rfind(is_sdp)?,
        // RFC 2046 section 5.1.3: any other is as mixed. RFC 3261 section 20.11: a part that is
        // not understood may be passed over only where it says so.
        _ => {
            let (mut described, others): (Vec<_>, Vec<_>) = parts.iter().partition(is_sdp);
            let one = described.pop().filter(|_| described.is_empty())?;
            others.iter().all(|part| part.is_optional()).then_some(one)?
        }
    };
    chosen.is_plain().then(|| chosen.content.clone())
}

/// The same in a body that is passed on with all of its parts, whatever they are. `Err`: there is one that
/// cannot be taken out and put back, or more than one.
pub(crate) fn session_description_among(
    content_type: &[u8],
    body: &[u8],
) -> Result<Option<Range<usize>>, Unreadable> {
    let media_type = media_type(content_type);
    if media_type == b"application/sdp" {
        return Ok(Some(0..body.len()));
    }
    if !media_type.starts_with(b"multipart/") {
        return Ok(None);
    }
    let boundary = parameter(content_type, b"boundary").unwrap_or_default();
    if !(1..=BOUNDARY_SIZE_MAX).contains(&boundary.len()) {
        return Err(Unreadable);
    }
    let parts = parts(body, boundary).ok_or(Unreadable)?;
    if parts.iter().any(|part| media_type_of(part).starts_with(b"multipart/")) {
        return Err(Unreadable);
    }
    let mut described = parts.iter().filter(|part| media_type_of(part) == b"application/sdp");
    match (described.next(), described.next()) {
        (None, _) => Ok(None),
        (Some(part), None) if part.is_plain() => Ok(Some(part.content.clone())),
        _ => Err(Unreadable),
    }
}

/// A body whose session description cannot be told from the rest.
#[derive(Debug)]
pub(crate) struct Unreadable;

/// One part of a body.
struct Part<'a> {
    headers: &'a [u8],
    content: Range<usize>,
}

impl<'a> Part<'a> {
    fn header(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.headers.split(|byte| *byte == b'\n').find_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            trim(&line[..colon]).eq_ignore_ascii_case(name).then(|| trim(&line[colon + 1..]))
        })
    }

    fn is_optional(&self) -> bool {
        let disposition = self.header(b"content-disposition");
        let handling = disposition.and_then(|value| parameter(value, b"handling"));
        handling.is_some_and(|handling| handling.eq_ignore_ascii_case(b"optional"))
    }

    /// Its bytes are the description, nothing has to be decoded.
    fn is_plain(&self) -> bool {
        let encoding = self.header(b"content-transfer-encoding").unwrap_or(b"binary");
        [&b"7bit"[..], b"8bit", b"binary"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain))
    }
}

fn media_type_of(part: &Part<'_>) -> Vec<u8> {
    media_type(part.header(b"content-type").unwrap_or_default())
}

/// Type and subtype in lower case, without parameters and without the spaces that SIP allows around
/// the slash.
fn media_type(value: &[u8]) -> Vec<u8> {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
    let sides: Vec<&[u8]> = essence.split(|byte| *byte == b'/').map(trim).collect();
    sides.join(&b'/').to_ascii_lowercase()
}

/// The value of a parameter, quotes taken off.
fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut quoted = false;
    let parameters = value.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b';' && !quoted
    });
    parameters.skip(1).find_map(|parameter| {
        let equals = parameter.iter().position(|byte| *byte == b'=')?;
        let value = trim(&parameter[equals + 1..]);
        let value =
            value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        trim(&parameter[..equals]).eq_ignore_ascii_case(name).then_some(value)
    })
}

/// The parts between the delimiters. `None`: a delimiter or the end of a head is missing, or there
/// are too many parts.
fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Option<Vec<Part<'a>>> {
    let delimiter = [b"\r\n--", boundary].concat();
    // The line end before the first delimiter may be the one that ends the head of the request.
    let mut at = match body.strip_prefix(&delimiter[2..]) {
        Some(_) => delimiter.len() - 2,
        None => find(body, &delimiter)? + delimiter.len(),
    };
    let mut parts = Vec::new();
    while !body[at..].starts_with(b"--") {
        if parts.len() == PARTS_MAX {
            return None;
        }
        // Blanks may pad the line of a delimiter.
        let line = find(&body[at..], b"\r\n")?;
        if !trim(&body[at..at + line]).is_empty() {
            return None;
        }
        let end = at + line + find(&body[at + line..], &delimiter)?;
        // The line end before a head may be the one that ends it, too.
        let head = at + line + find(&body[at + line..end], b"\r\n\r\n")?;
        let headers = body.get(at + line + 2..head).unwrap_or_default();
        parts.push(Part { headers, content: head + 4..end });
        at = end + delimiter.len();
    }
    Some(parts)
}

/// RFC 2046 section 5.1.1.
const BOUNDARY_SIZE_MAX: usize = 70;

/// A description, an icon and what IMS adds: more is nobody's request.
const PARTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1";

    fn found<'a>(content_type: &str, body: &'a str) -> Option<&'a str> {
        session_description(content_type.as_bytes(), body.as_bytes()).map(|range| &body[range])
    }

    fn part(headers: &str, content: &str) -> String {
        format!("--cut\r\n{headers}\r\n\r\n{content}\r\n")
    }

    #[test]
    fn finds_the_description_wherever_it_may_stand() {
        let sdp = part("Content-Type: application/sdp", SDP);
        let icon = part("Content-Type: image/jpeg\r\nContent-ID: <id2@alice>", "\u{1}\r\n\u{2}");
        let named = part("content-type:Application / SDP\r\nContent-ID: <root@alice>", SDP);
        let optional = part("Content-Type: a/b\r\nContent-Disposition: x;handling=optional", "y");
        let required = part("Content-Type: a/b\r\nContent-Disposition: x;handling=required", "y");
        let encoded =
            part("Content-Type: application/sdp\r\nContent-Transfer-Encoding: base64", "");
        let end = "--cut--\r\n";
        let some = Some(SDP);
        let related = "multipart/related; type=\"application/sdp\"; boundary=cut";
        let start = "multipart/related;start=\"<root@alice>\";boundary=\"cut\"";
        let table = [
            ("application/sdp;charset=x", SDP.to_owned(), some),
            ("text/plain", SDP.to_owned(), None),
            (related, format!("{sdp}{icon}{end}"), some),
            (related, format!("{icon}{sdp}{end}"), None),
            (start, format!("{icon}{named}{end}"), some),
            (start, format!("{sdp}{icon}{end}"), None),
            ("multipart/mixed;boundary=cut", format!("{optional}{sdp}{end}"), some),
            ("Multipart/Mixed;boundary=cut", format!("\r\n{sdp}{optional}{end}"), some),
            ("multipart/mixed;boundary=cut", format!("preamble\r\n{sdp}--cut--"), some),
            ("multipart/other;boundary=cut", format!("{sdp}{end}"), some),
            ("multipart/mixed;boundary=cut", format!("{required}{sdp}{end}"), None),
            ("multipart/mixed;boundary=cut", format!("{icon}{sdp}{end}"), None),
            ("multipart/mixed;boundary=cut", format!("{sdp}{sdp}{end}"), None),
            ("multipart/mixed;boundary=cut", format!("{encoded}{end}"), None),
            ("multipart/mixed;boundary=cut", format!("{optional}{end}"), None),
            ("multipart/alternative;boundary=cut", format!("{icon}{sdp}{icon}{end}"), some),
            // Delimiters padded with blanks, and what only looks like one.
            ("multipart/mixed;boundary=cut", sdp.replace("--cut", "--cut \t") + end, some),
            ("multipart/mixed;boundary=cut", sdp.replace("--cut", "--cutter") + end, None),
            ("multipart/mixed;boundary=cut", sdp.clone(), None),
            ("multipart/mixed;boundary=cut", end.to_owned(), None),
            ("multipart/mixed;boundary=cut", format!("{}{end}", optional.repeat(17)), None),
            ("multipart/mixed;boundary=", format!("{sdp}{end}"), None),
            ("multipart/mixed", format!("{sdp}{end}"), None),
        ];
        for (content_type, body, expected) in table {
            assert_eq!(found(content_type, &body), expected, "{content_type}\n{body}");
        }
    }

    #[test]
    fn never_panics_on_a_body_that_is_cut_off_or_changed() {
        let body = part("Content-Type: application/sdp", SDP)
            + &part("Content-Type: a/b\r\nContent-Disposition: x;handling=optional", "y")
            + "--cut--";
        let content_type = b"multipart/mixed;boundary=cut";
        for end in 0..body.len() {
            assert_eq!(session_description(content_type, &body.as_bytes()[..end]), None);
        }
        for at in 0..body.len() {
            for byte in [0, b'\r', b'\n', b'-', b':', b'"', 0xff] {
                let mut changed = body.clone().into_bytes();
                changed[at] = byte;
                let _ = session_description(content_type, &changed);
            }
        }
    }
}
