//! The value of From, To and cc (RFC 3862 sections 4.1 to 4.3).

/// `[ Formal-name ] "<" URI ">"`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address<'a> {
    /// The formal name without the quotes around it (escapes inside are left), maybe empty.
    pub display_name: &'a [u8],
    /// The URI between the angle brackets.
    pub uri: &'a [u8],
}

impl<'a> Address<'a> {
    /// Reads a header value; `None` where it is not the grammar.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (display_name, rest) = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = closing_quote(quoted)?;
                (&quoted[..end], quoted[end + 1..].trim_ascii_start())
            }
            None => {
                let open = memchr::memchr(b'<', value)?;
                (value[..open].trim_ascii(), &value[open..])
            }
        };
        let uri = rest.trim_ascii_end().strip_prefix(b"<")?.strip_suffix(b">")?;
        let foreign = uri.iter().fold(false, |found, &byte| {
            found | (byte <= b' ') | (byte == b'<') | (byte == b'>') | (byte == 0x7f)
        });
        // A URI has a scheme.
        if foreign || memchr::memchr(b':', uri).is_none_or(|colon| colon == 0) {
            return None;
        }
        Some(Self { display_name, uri })
    }
}

/// Where the quote stands that ends a `String` (RFC 3862 section 3.6) whose first one is gone.
pub(super) fn closing_quote(quoted: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *quoted.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
