//! A SIP message as it lies in the bytes: borrowed start line, header fields and body. It is the
//! one scan the gate, the framer and the raw responses share; it decides nothing.

/// More header fields than any real message has; bounds the work per message.
pub const HEADER_FIELDS_MAX: usize = 256;

/// The header fields the gate looks at (RFC 3261 section 7.3.3 gives the compact forms).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// Via, `v`.
    Via,
    /// From, `f`.
    From,
    /// To, `t`.
    To,
    /// Call-ID, `i`.
    CallId,
    /// CSeq.
    CSeq,
    /// Max-Forwards.
    MaxForwards,
    /// Contact, `m`.
    Contact,
    /// Content-Length, `l`.
    ContentLength,
    /// Content-Type, `c`.
    ContentType,
    /// Content-Encoding, `e`.
    ContentEncoding,
    /// Require.
    Require,
    /// Accept.
    Accept,
    /// Event, `o`.
    Event,
    /// Expires.
    Expires,
    /// Refer-To, `r`.
    ReferTo,
    /// Any other field.
    Other,
}

impl Name {
    fn of(name: &[u8]) -> Self {
        const NAMES: [(&[u8], &[u8], Name); 15] = [
            (b"via", b"v", Name::Via),
            (b"from", b"f", Name::From),
            (b"to", b"t", Name::To),
            (b"call-id", b"i", Name::CallId),
            (b"cseq", b"", Name::CSeq),
            (b"max-forwards", b"", Name::MaxForwards),
            (b"contact", b"m", Name::Contact),
            (b"content-length", b"l", Name::ContentLength),
            (b"content-type", b"c", Name::ContentType),
            (b"content-encoding", b"e", Name::ContentEncoding),
            (b"require", b"", Name::Require),
            (b"accept", b"", Name::Accept),
            (b"event", b"o", Name::Event),
            (b"expires", b"", Name::Expires),
            (b"refer-to", b"r", Name::ReferTo),
        ];
        NAMES
            .iter()
            .find(|(long, short, _)| {
                name.eq_ignore_ascii_case(long)
                    || (!short.is_empty() && name.eq_ignore_ascii_case(short))
            })
            .map_or(Self::Other, |(_, _, name)| *name)
    }
}

/// One header field; the value is trimmed and may still contain folds (CRLF and white space).
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Which.
    pub name: Name,
    /// Its value as received.
    pub value: &'a [u8],
}

/// A scanned message.
#[derive(Debug)]
pub struct Message<'a> {
    /// The start line without CRLF.
    pub start_line: &'a [u8],
    /// The fields in order.
    pub fields: Vec<Field<'a>>,
    /// Where the body begins; the length of the input where the empty line is missing.
    pub body_start: usize,
    /// What is wrong with the header section itself, if anything; the scan goes on so that an
    /// answer can still be built.
    pub defect: Option<Defect>,
}

/// What can be wrong with a header section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// No empty line ends it.
    Unterminated,
    /// A line without a colon, or whose field name is no token.
    FieldName,
    /// A CR or LF alone.
    BareLineEnd,
    /// More than [`HEADER_FIELDS_MAX`] fields.
    TooManyFields,
}

impl<'a> Message<'a> {
    /// Scans a message; never fails, the defects are noted.
    pub fn scan(bytes: &'a [u8]) -> Self {
        let (section, body_start, mut defect) = match find(bytes, b"\r\n\r\n") {
            Some(at) => (&bytes[..at], at + 4, None),
            None => (bytes, bytes.len(), Some(Defect::Unterminated)),
        };
        let mut fields = Vec::with_capacity(24);
        let mut note = |new: Defect| {
            if defect.is_none() {
                defect = Some(new);
            }
        };
        let (start_line, mut rest) = split_line(section);
        if has_bare_line_end(start_line) {
            note(Defect::BareLineEnd);
        }
        while !rest.is_empty() {
            let (line, after) = split_folded_line(rest);
            rest = after;
            if line.is_empty() {
                continue;
            }
            if fields.len() == HEADER_FIELDS_MAX {
                note(Defect::TooManyFields);
                break;
            }
            match field(line) {
                Ok(field) => fields.push(field),
                Err(new) => note(new),
            }
        }
        Self { start_line, fields, body_start, defect }
    }

    /// The method of a request.
    pub fn method(&self) -> &'a [u8] {
        self.start_line.split(|&byte| byte == b' ').next().unwrap_or_default()
    }

    /// The first field of that name.
    pub fn first(&self, name: Name) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// All fields of that name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.fields.iter().filter(move |field| field.name == name).map(|field| field.value)
    }

    /// How many fields of that name there are.
    pub fn count(&self, name: Name) -> usize {
        self.all(name).count()
    }
}

/// Splits off the first line; the line comes without its CRLF.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match find(bytes, b"\r\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[]),
    }
}

/// Splits off one header field with its continuation lines (RFC 3261 section 7.3.1).
fn split_folded_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    loop {
        let Some(at) = find(&bytes[end..], b"\r\n") else {
            return (bytes, &[]);
        };
        let next = end + at + 2;
        match bytes.get(next) {
            Some(b' ' | b'\t') => end = next,
            Some(_) | None => return (&bytes[..next - 2], &bytes[next..]),
        }
    }
}

fn field(line: &[u8]) -> Result<Field<'_>, Defect> {
    if has_bare_line_end(line) {
        return Err(Defect::BareLineEnd);
    }
    let colon = line.iter().position(|&byte| byte == b':').ok_or(Defect::FieldName)?;
    let name = trim(&line[..colon]);
    if !is_token(name) {
        return Err(Defect::FieldName);
    }
    Ok(Field { name: Name::of(name), value: trim(&line[colon + 1..]) })
}

/// A CR or LF that is not part of a CRLF followed by white space (a fold).
fn has_bare_line_end(line: &[u8]) -> bool {
    let mut index = 0;
    while index < line.len() {
        match line[index] {
            b'\n' => return true,
            b'\r' if line.get(index + 1) == Some(&b'\n') => index += 2,
            b'\r' => return true,
            _ => index += 1,
        }
    }
    false
}

/// Where `needle` first begins in `bytes`.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&byte| byte == first) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// Without linear white space at both ends.
pub fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

/// A non-empty `token` (RFC 3261 section 25.1).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte))
}

/// Decimal digits only, at most `max`.
pub fn decimal(bytes: &[u8], max: u64) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 19 || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = bytes.iter().fold(0u64, |value, &digit| value * 10 + u64::from(digit - b'0'));
    (value <= max).then_some(value)
}

/// The positions of `wanted` outside quoted strings and angle brackets, or `None` where a quoted
/// string does not end.
pub fn unquoted_position(bytes: &[u8], wanted: u8) -> Option<Option<usize>> {
    let mut quoted = false;
    let mut bracketed = false;
    let mut found = None;
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        match byte {
            b'\\' if quoted => index += 1,
            b'"' if !bracketed => quoted = !quoted,
            _ if quoted => {}
            _ if byte == wanted && !bracketed && found.is_none() => found = Some(index),
            b'<' => bracketed = true,
            b'>' => bracketed = false,
            _ => {}
        }
        index += 1;
    }
    (!quoted).then_some(found)
}

/// Whether a From or To value carries a `tag` parameter.
pub fn has_tag(value: &[u8]) -> bool {
    tag(value).is_some()
}

/// The `tag` parameter of a From or To value; empty where it has no value.
pub fn tag(value: &[u8]) -> Option<&[u8]> {
    let after = value.iter().rposition(|&byte| byte == b'>').map_or(0, |at| at + 1);
    value[after..].split(|&byte| byte == b';').skip(1).find_map(|parameter| {
        let mut parts = parameter.splitn(2, |&byte| byte == b'=');
        let name = trim(parts.next().unwrap_or_default());
        name.eq_ignore_ascii_case(b"tag").then(|| trim(parts.next().unwrap_or_default()))
    })
}

/// The number of a CSeq value.
pub fn cseq(value: &[u8]) -> Option<u32> {
    let number = value.split(u8::is_ascii_whitespace).next()?;
    decimal(number, u64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_belong_to_their_field() {
        let message =
            Message::scan(b"OPTIONS sip:a SIP/2.0\r\nTo :\r\n <sip:a@b>\r\nv: x\r\n\r\nbody");
        assert_eq!(message.first(Name::To), Some(&b"<sip:a@b>"[..]));
        assert_eq!(message.first(Name::Via), Some(&b"x"[..]));
        assert_eq!(message.defect, None);
        assert_eq!(message.body_start, message_length(b"body"));
    }

    fn message_length(body: &[u8]) -> usize {
        b"OPTIONS sip:a SIP/2.0\r\nTo :\r\n <sip:a@b>\r\nv: x\r\n\r\nbody".len() - body.len()
    }

    #[test]
    fn notes_a_bare_line_feed() {
        let message = Message::scan(b"OPTIONS sip:a SIP/2.0\r\nTo: a\nFrom: b\r\n\r\n");
        assert_eq!(message.defect, Some(Defect::BareLineEnd));
    }

    #[test]
    fn finds_a_tag_only_outside_the_uri() {
        assert!(has_tag(b"<sip:a@b;x=y>;tag=1"));
        assert!(has_tag(b"sip:a@b ; tag = 1"));
        assert!(!has_tag(b"<sip:a@b;tag=1>"));
        assert!(!has_tag(b"sip:a@b"));
    }

    #[test]
    fn decimal_refuses_signs_and_overflow() {
        assert_eq!(decimal(b"255", 255), Some(255));
        assert_eq!(decimal(b"256", 255), None);
        assert_eq!(decimal(b"-1", 255), None);
        assert_eq!(decimal(b"36893488147419103232", u64::MAX), None);
    }
}
