//! The header blocks of a CPIM message (RFC 3862 sections 2 to 4).

use std::sync::LazyLock;

use memchr::memmem;

use super::Address;
use super::address::closing_quote;

/// Message headers and content headers, borrowed.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// From.
    pub from: Option<Address<'a>>,
    /// The first To.
    pub first_to: Option<Address<'a>>,
    /// Number of To headers; [`to`](Self::to) names them.
    pub to_count: usize,
    /// DateTime, as received.
    pub date_time: Option<&'a [u8]>,
    /// The first Subject, in whatever language.
    pub subject: Option<&'a [u8]>,
    /// Content-Type of the content.
    pub content_type: Option<&'a [u8]>,
    /// Content-Disposition of the content (`notification` marks an IMDN, RFC 5438 section 7.1.2).
    pub content_disposition: Option<&'a [u8]>,
    /// The message header lines, as received, each with its CRLF.
    pub message_headers: &'a [u8],
    /// The content header lines likewise; where both kinds came in one block these are the
    /// same lines.
    pub content_headers: &'a [u8],
    cpim_prefix: Option<&'a [u8]>,
    imdn_prefix: Option<&'a [u8]>,
}

/// The head violates the grammar. The message is answered 400 and dropped, the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Longer than [`HEAD_BYTES_MAX`].
    HeadTooLong,
    /// A line ends without CR, or has a control character inside.
    LineEnd,
    /// A header line is not `name: value`, or a name that means something is spelled in other case.
    Header,
    /// From.
    From,
    /// To.
    To,
    /// A header that may stand once stands twice.
    Duplicate,
    /// NS: not the grammar, or a second prefix for one namespace.
    Namespace,
}

/// Both header blocks with the empty lines that end them. It has to be in one piece to be routed
/// by, so it is a part of the first chunk.
pub const HEAD_BYTES_MAX: usize = 4 * 1024;

const CPIM_NAMESPACE: &[u8] = b"urn:ietf:params:cpim-headers:";
const IMDN_NAMESPACE: &[u8] = b"urn:ietf:params:imdn";

impl<'a> Head<'a> {
    /// Reads the head at the beginning of a message and says where its content begins. `Ok(None)`:
    /// the head is not complete.
    ///
    /// RFC 3862 section 2 has an empty line between message headers and content headers; RFC 4975
    /// section 11.4 shows them in one block, and so do clients. Both are read.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        let incomplete =
            if bytes.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(Malformed::HeadTooLong) };
        let Some((message_headers, content_start)) = block(window) else {
            return incomplete;
        };
        let mut head = Self {
            from: None,
            first_to: None,
            to_count: 0,
            date_time: None,
            subject: None,
            content_type: None,
            content_disposition: None,
            message_headers,
            content_headers: message_headers,
            cpim_prefix: None,
            imdn_prefix: None,
        };
        let mut one_block = false;
        for line in lines(message_headers) {
            let (name, value) = split_header(line?)?;
            if is_content_header(name) {
                one_block = true;
                head.add_content_header(name, value)?;
            } else {
                head.add_message_header(name, value)?;
            }
        }
        if one_block {
            return Ok(Some((head, content_start)));
        }
        let Some((content_headers, length)) = block(&window[content_start..]) else {
            return incomplete;
        };
        head.content_headers = content_headers;
        for line in lines(content_headers) {
            let (name, value) = split_header(line?)?;
            head.add_content_header(name, value)?;
        }
        Ok(Some((head, content_start + length)))
    }

    /// The To headers in their order.
    pub fn to(&self) -> impl Iterator<Item = Address<'a>> {
        self.values(b"To").filter_map(Address::parse)
    }

    /// The cc headers in their order; those that are no addresses are passed over.
    pub fn cc(&self) -> impl Iterator<Item = Address<'a>> {
        self.values(b"cc").filter_map(Address::parse)
    }

    /// What the message insists on being understood (RFC 3862 section 3.5), as received.
    pub fn require(&self) -> impl Iterator<Item = &'a [u8]> {
        self.values(b"Require")
            .flat_map(|list| list.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.is_empty())
    }

    /// Declared prefixes and their namespaces, in the order of the NS headers; an empty prefix
    /// declares the default.
    pub fn namespaces(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.values(b"NS").filter_map(parse_namespace)
    }

    /// Values of the message headers of that exact name in the namespace of RFC 3862.
    pub fn values(&self, name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.values_under(self.cpim_prefix, name, true)
    }

    /// Value of a header of RFC 5438 (`Message-ID`, `Disposition-Notification`), whatever prefix
    /// its namespace has here.
    pub fn imdn(&self, name: &'static [u8]) -> Option<&'a [u8]> {
        self.imdn_prefix?;
        self.values_under(self.imdn_prefix, name, false).next()
    }

    fn values_under(
        &self,
        prefix: Option<&'a [u8]>,
        name: &'static [u8],
        unprefixed: bool,
    ) -> impl Iterator<Item = &'a [u8]> {
        lines(self.message_headers).filter_map(move |line| {
            let (found, value) = split_header(line.ok()?).ok()?;
            let same = match split_prefix(found) {
                (None, local) => unprefixed && local == name,
                (found_prefix, local) => found_prefix == prefix && local == name,
            };
            same.then_some(value)
        })
    }

    /// A change of the default namespace does not hide From and To: who reads the message without
    /// minding namespaces must not see a sender that was not checked.
    fn add_message_header(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), Malformed> {
        let name = match split_prefix(name) {
            (None, local) => local,
            (prefix, local) if prefix == self.cpim_prefix => local,
            (Some(_), _) => return Ok(()),
        };
        match name {
            b"From" => once(&mut self.from, Address::parse(value).ok_or(Malformed::From)?),
            b"To" => {
                let to = Address::parse(value).ok_or(Malformed::To)?;
                self.first_to.get_or_insert(to);
                self.to_count += 1;
                Ok(())
            }
            b"DateTime" => once(&mut self.date_time, value),
            b"Subject" => {
                self.subject = self.subject.or(Some(value));
                Ok(())
            }
            b"NS" => self.declare(value),
            //= RFC 3862 section 4: names are case-sensitive. A `FROM` that some reader may take
            //= for the sender is refused for the same reason as a second From.
            other if other.eq_ignore_ascii_case(b"From") => Err(Malformed::Header),
            other if other.eq_ignore_ascii_case(b"To") => Err(Malformed::Header),
            _ => Ok(()),
        }
    }

    fn declare(&mut self, value: &'a [u8]) -> Result<(), Malformed> {
        let (prefix, namespace) = parse_namespace(value).ok_or(Malformed::Namespace)?;
        let slot = match namespace {
            _ if prefix.is_empty() => return Ok(()),
            CPIM_NAMESPACE => &mut self.cpim_prefix,
            IMDN_NAMESPACE => &mut self.imdn_prefix,
            _ => return Ok(()),
        };
        if slot.is_some() {
            return Err(Malformed::Namespace);
        }
        //= RFC 3862 section 3.4: a declaration precedes any use of the prefix.
        for (name, earlier) in lines(self.message_headers).flatten().flat_map(split_header) {
            if std::ptr::eq(earlier, value) {
                break;
            }
            if split_prefix(name).0 == Some(prefix) {
                return Err(Malformed::Namespace);
            }
        }
        *slot = Some(prefix);
        Ok(())
    }

    fn add_content_header(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
        if name.eq_ignore_ascii_case(b"content-type") {
            return once(&mut self.content_type, value);
        }
        if name.eq_ignore_ascii_case(b"content-disposition") {
            return once(&mut self.content_disposition, value);
        }
        Ok(())
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    if slot.is_some() {
        return Err(Malformed::Duplicate);
    }
    *slot = Some(value);
    Ok(())
}

/// The lines up to the first empty one, and where what follows that begins.
fn block(bytes: &[u8]) -> Option<(&[u8], usize)> {
    if bytes.starts_with(b"\r\n") {
        return Some((&[], 2));
    }
    let end = EMPTY_LINE.find(bytes)?;
    Some((&bytes[..end + 2], end + 4))
}

/// The lines of a block, each without its CRLF.
fn lines(block: &[u8]) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)?;
        let (line, after) = rest.split_at(end + 1);
        rest = after;
        let Some(text) = line.strip_suffix(b"\r\n") else {
            return Some(Err(Malformed::LineEnd));
        };
        // Without a way out in the middle, so that many bytes are looked at in one step.
        let control = text
            .iter()
            .fold(false, |found, &byte| found | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f));
        Some(if control { Err(Malformed::LineEnd) } else { Ok(text) })
    })
}

/// Name and value of `Header-name ":" *( ";" Parameter ) SP Header-value` (RFC 3862 section 3.6);
/// of the parameters (languages) nothing is kept.
fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let colon = memchr::memchr(b':', line).ok_or(Malformed::Header)?;
    let name = &line[..colon];
    if name.is_empty() || !name.iter().all(|&byte| NAME_CHARACTERS[usize::from(byte)]) {
        return Err(Malformed::Header);
    }
    let mut rest = &line[colon + 1..];
    if rest.starts_with(b";") {
        rest = &rest[parameters_length(rest).ok_or(Malformed::Header)?..];
    }
    match rest.strip_prefix(b" ") {
        Some(value) => Ok((name, value.trim_ascii())),
        None => Err(Malformed::Header),
    }
}

/// Length up to the first space outside quotes.
fn parameters_length(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *text.get(at)? {
            b' ' => return Some(at),
            b'"' => at += closing_quote(&text[at + 1..])? + 2,
            _ => at += 1,
        }
    }
}

fn split_prefix(name: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match memchr::memchr(b'.', name) {
        Some(dot) => (Some(&name[..dot]), &name[dot + 1..]),
        None => (None, name),
    }
}

/// `[ Name-prefix ] "<" URI ">"`
fn parse_namespace(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let open = memchr::memchr(b'<', value)?;
    let uri = value[open + 1..].strip_suffix(b">")?;
    if uri.is_empty() || memchr::memchr2(b'<', b'>', uri).is_some() {
        return None;
    }
    Some((value[..open].trim_ascii(), uri))
}

fn is_content_header(name: &[u8]) -> bool {
    name.len() > 8 && name[..8].eq_ignore_ascii_case(b"content-")
}

/// Ends a block; searched for with a searcher that is built once.
static EMPTY_LINE: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(b"\r\n\r\n"));

/// Printable ASCII without the separators of RFC 3862 section 3.1.
static NAME_CHARACTERS: [bool; 256] = {
    let separators = b"()<>@,;:\\\"/[]?={}";
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = true;
        byte += 1;
    }
    let mut index = 0;
    while index < separators.len() {
        table[separators[index] as usize] = false;
        index += 1;
    }
    table
};
