//! Start line and headers (RFC 4975 section 9).

use super::MalformedReason as Reason;
use super::id::split_ident;
use super::uri::any_pair;
use super::{ByteRange, Path, is_message_id};

/// Start line and headers, borrowed from the input.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// Transaction identifier, 4 to 32 characters.
    pub transaction_id: &'a [u8],
    /// What kind of message.
    pub start: Start<'a>,
    /// To-Path, leftmost first, as received (URIs separated by one space).
    pub to_path: Path<'a>,
    /// From-Path.
    pub from_path: Path<'a>,
    /// Message-ID.
    pub message_id: Option<&'a [u8]>,
    /// Byte-Range.
    pub byte_range: Option<ByteRange>,
    /// Success-Report: yes.
    pub success_report: bool,
    /// Failure-Report.
    pub failure_report: FailureReport,
    /// Status of a REPORT.
    pub status: Option<Status<'a>>,
    /// Content-Type; present exactly when a body may follow.
    pub content_type: Option<&'a [u8]>,
    /// Every header line after From-Path, as received, each with its CRLF.
    pub header_lines: &'a [u8],
}

/// The values of To-Path and From-Path.
#[derive(Clone, Copy, Debug)]
pub struct Paths<'a> {
    /// To-Path, one that could stand in a head.
    pub to: &'a [u8],
    /// From-Path, likewise.
    pub from: &'a [u8],
}

/// Request or response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start<'a> {
    /// A request.
    Request(Method<'a>),
    /// A response: status code and comment.
    Response(u16, &'a [u8]),
}

/// Request methods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method<'a> {
    /// RFC 4975.
    Send,
    /// RFC 4975.
    Report,
    /// RFC 4976.
    Auth,
    /// RFC 7701.
    Nickname,
    /// Anything else: answered 501.
    Unknown(&'a [u8]),
}

/// Failure-Report (RFC 4975 section 7.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FailureReport {
    /// Answer every request.
    #[default]
    Yes,
    /// Answer errors only.
    Partial,
    /// Never answer.
    No,
}

/// `Status: 000 code comment` of a REPORT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status<'a> {
    /// Namespace, `000`.
    pub namespace: u16,
    /// Code.
    pub code: u16,
    /// Comment, may be empty.
    pub comment: &'a [u8],
}

/// What a head ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tail {
    /// An empty line: a body follows.
    Body,
    /// The end-line: there is no body.
    EndLine,
}

/// Where a complete head ends.
pub(super) struct HeadEnd {
    pub(super) tail: Tail,
    /// End of the last header line.
    pub(super) headers: usize,
    /// End of the empty line or the end-line.
    pub(super) total: usize,
}

/// What all end-lines begin with.
pub(super) const HYPHENS: &[u8] = b"-------";

impl<'a> Head<'a> {
    /// One that says nothing, to be read into.
    pub(super) const NOTHING: Self = Self {
        transaction_id: b"",
        start: Start::Response(0, b""),
        to_path: Path(b""),
        from_path: Path(b""),
        message_id: None,
        byte_range: None,
        success_report: false,
        failure_report: FailureReport::Yes,
        status: None,
        content_type: None,
        header_lines: b"",
    };

    /// Reads the head at the front of `bytes`, line by line, into one that says nothing, where it
    /// stays: it is too large to be handed on for every message. `Ok(None)`: it is not complete.
    #[inline]
    pub(super) fn read(
        &mut self,
        bytes: &'a [u8],
        usual: Option<Paths<'_>>,
    ) -> Result<Option<HeadEnd>, Reason> {
        let mut lines = Lines { bytes, at: 0 };
        self.read_lines(&mut lines, usual).map_err(|reason| lines.first_reason(reason))
    }

    /// Leaves it to the caller to look for a CR that no LF follows where a line is refused.
    #[inline]
    fn read_lines(
        &mut self,
        lines: &mut Lines<'a>,
        usual: Option<Paths<'_>>,
    ) -> Result<Option<HeadEnd>, Reason> {
        let Some(start_line) = lines.next()? else { return Ok(None) };
        (self.transaction_id, self.start) = parse_start(start_line)?;
        match usual.and_then(|usual| lines.take_paths(usual)) {
            Some((to_path, from_path)) => (self.to_path, self.from_path) = (to_path, from_path),
            None => {
                let Some(to_line) = lines.next()? else { return Ok(None) };
                self.to_path = parse_path(to_line, b"To-Path: ", Reason::ToPath)?;
                let Some(from_line) = lines.next()? else { return Ok(None) };
                self.from_path = parse_path(from_line, b"From-Path: ", Reason::FromPath)?;
            }
        }
        let mut seen = Seen::default();
        let first = lines.at;
        let (tail, last) = loop {
            let last = lines.at;
            let Some(line) = lines.next()? else { return Ok(None) };
            match line {
                [] => break (Tail::Body, last),
                [b'-', ..] if line.starts_with(HYPHENS) => {
                    if memchr::memchr(b'\r', line).is_some() {
                        return Err(Reason::LineEnd);
                    }
                    break (Tail::EndLine, last);
                }
                [_, ..] => self.add(line, &mut seen)?,
            }
        };
        self.header_lines = &lines.bytes[first..last];
        if !is_text(self.header_lines) {
            return Err(Reason::LineEnd);
        }
        match (tail, self.start, self.content_type) {
            (Tail::Body, Start::Response(..), _) => return Err(Reason::BodyInResponse),
            (Tail::Body, Start::Request(_), None) => return Err(Reason::BodyUnannounced),
            (Tail::EndLine, _, Some(_)) => return Err(Reason::BodyMissing),
            (Tail::Body, Start::Request(_), Some(_)) | (Tail::EndLine, _, None) => {}
        }
        Ok(Some(HeadEnd { tail, headers: last, total: lines.at }))
    }

    /// Takes a header line after From-Path.
    fn add(&mut self, line: &'a [u8], seen: &mut Seen) -> Result<(), Reason> {
        if self.content_type.is_some() {
            return Err(Reason::ContentTypeNotLast);
        }
        let (name, value) = Name::split_off(line)?;
        match name {
            Name::MessageId => {
                let id = is_message_id(value).then_some(value).ok_or(Reason::MessageId)?;
                once(&mut self.message_id, id)
            }
            Name::ByteRange => {
                let range = ByteRange::parse(value).ok_or(Reason::ByteRange)?;
                once(&mut self.byte_range, range)
            }
            Name::SuccessReport => {
                self.success_report = parse_success_report(value).ok_or(Reason::SuccessReport)?;
                first(&mut seen.success_report)
            }
            Name::FailureReport => {
                self.failure_report = parse_failure_report(value).ok_or(Reason::FailureReport)?;
                first(&mut seen.failure_report)
            }
            Name::Status => {
                let status = parse_status(value).ok_or(Reason::Status)?;
                once(&mut self.status, status)
            }
            Name::ContentType => {
                self.content_type =
                    Some(is_media_type(value).then_some(value).ok_or(Reason::ContentType)?);
                Ok(())
            }
            Name::Path => Err(Reason::Duplicate),
            Name::Other => Ok(()),
        }
    }

    /// Value of the first header of that name after From-Path, without regard to case.
    pub fn header(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.header_values(name).next()
    }

    /// Values of all headers of that name after From-Path.
    pub fn header_values(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut lines = Lines { bytes: self.header_lines, at: 0 };
        std::iter::from_fn(move || {
            while let Some(line) = lines.next().ok()? {
                let (found, value) = split_header(line).ok()?;
                if found.eq_ignore_ascii_case(name) {
                    return Some(value);
                }
            }
            None
        })
    }
}

impl<'a> Method<'a> {
    /// The method as it stands in a start line.
    pub fn as_bytes(&self) -> &'a [u8] {
        match *self {
            Self::Send => b"SEND",
            Self::Report => b"REPORT",
            Self::Auth => b"AUTH",
            Self::Nickname => b"NICKNAME",
            Self::Unknown(text) => text,
        }
    }
}

/// Which headers there have been of those that have a value without being there.
#[derive(Default)]
struct Seen {
    success_report: bool,
    failure_report: bool,
}

/// Headers by what they mean here.
#[derive(Clone, Copy)]
enum Name {
    MessageId,
    ByteRange,
    SuccessReport,
    FailureReport,
    Status,
    ContentType,
    /// To-Path or From-Path, which have had their turn.
    Path,
    Other,
}

impl Name {
    /// Parts a header line into what it means and its value.
    #[inline]
    fn split_off(line: &[u8]) -> Result<(Self, &[u8]), Reason> {
        // Names compare without regard to case, but nearly everybody writes them as the RFCs do: one
        // comparison recognises such a name and finds its end.
        let usual = match line.first() {
            Some(b'M') => line.strip_prefix(b"Message-ID: ").map(|value| (Self::MessageId, value)),
            Some(b'B') => line.strip_prefix(b"Byte-Range: ").map(|value| (Self::ByteRange, value)),
            Some(b'C') => {
                line.strip_prefix(b"Content-Type: ").map(|value| (Self::ContentType, value))
            }
            Some(b'F') => {
                line.strip_prefix(b"Failure-Report: ").map(|value| (Self::FailureReport, value))
            }
            Some(_) | None => None,
        };
        usual.map_or_else(|| Self::split_unusual(line), Ok)
    }

    fn split_unusual(line: &[u8]) -> Result<(Self, &[u8]), Reason> {
        let (text, value) = split_header(line)?;
        let is = |name: &[u8]| text.eq_ignore_ascii_case(name);
        // The length tells nearly all names apart before any character is compared.
        let name = match text.len() {
            10 if is(b"Message-ID") => Self::MessageId,
            10 if is(b"Byte-Range") => Self::ByteRange,
            14 if is(b"Success-Report") => Self::SuccessReport,
            14 if is(b"Failure-Report") => Self::FailureReport,
            6 if is(b"Status") => Self::Status,
            12 if is(b"Content-Type") => Self::ContentType,
            7 if is(b"To-Path") => Self::Path,
            9 if is(b"From-Path") => Self::Path,
            _ if is_name(text) => Self::Other,
            _ => return Err(Reason::Header),
        };
        Ok((name, value))
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Reason> {
    if slot.is_some() {
        return Err(Reason::Duplicate);
    }
    *slot = Some(value);
    Ok(())
}

fn first(seen: &mut bool) -> Result<(), Reason> {
    if std::mem::replace(seen, true) { Err(Reason::Duplicate) } else { Ok(()) }
}

/// `MSRP SP transact-id SP (method / status-code [SP comment])`, without the CRLF.
pub(super) fn parse_start(line: &[u8]) -> Result<(&[u8], Start<'_>), Reason> {
    let rest = line.strip_prefix(b"MSRP ").ok_or(Reason::StartLine)?;
    let (transaction_id, rest) = match split_ident(rest) {
        Some((ident, [b' ', rest @ ..])) => (ident, rest),
        Some(_) | None if memchr::memchr(b' ', rest).is_some() => {
            return Err(Reason::TransactionId);
        }
        Some(_) | None => return Err(Reason::StartLine),
    };
    let start = match rest {
        b"SEND" => Start::Request(Method::Send),
        b"REPORT" => Start::Request(Method::Report),
        b"AUTH" => Start::Request(Method::Auth),
        b"NICKNAME" => Start::Request(Method::Nickname),
        [first, ..] if first.is_ascii_digit() => {
            let (code, comment) = parse_code(rest).ok_or(Reason::StartLine)?;
            if !is_text(comment) {
                return Err(Reason::LineEnd);
            }
            Start::Response(code, comment)
        }
        [_, ..] if rest.iter().all(u8::is_ascii_uppercase) => Start::Request(Method::Unknown(rest)),
        _ => return Err(Reason::StartLine),
    };
    Ok((transaction_id, start))
}

/// `3DIGIT [SP comment]`
fn parse_code(text: &[u8]) -> Option<(u16, &[u8])> {
    let (code, rest) = text.split_at_checked(3)?;
    let mut number = 0;
    for digit in code {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u16::from(digit - b'0');
    }
    match rest {
        [] => Some((number, rest)),
        [b' ', comment @ ..] => Some((number, comment)),
        [_, ..] => None,
    }
}

/// `start`: the name with colon and space.
#[inline(always)]
fn parse_path<'a, const N: usize>(
    line: &'a [u8],
    start: &[u8; N],
    reason: Reason,
) -> Result<Path<'a>, Reason> {
    match line.split_first_chunk::<N>() {
        Some((found, value))
            if (found == start || found.eq_ignore_ascii_case(start)) && Path(value).is_list() =>
        {
            Ok(Path(value))
        }
        Some(_) | None => Err(reason),
    }
}

fn parse_success_report(value: &[u8]) -> Option<bool> {
    match value {
        text if text.eq_ignore_ascii_case(b"yes") => Some(true),
        text if text.eq_ignore_ascii_case(b"no") => Some(false),
        _ => None,
    }
}

fn parse_failure_report(value: &[u8]) -> Option<FailureReport> {
    match value {
        text if text.eq_ignore_ascii_case(b"yes") => Some(FailureReport::Yes),
        text if text.eq_ignore_ascii_case(b"no") => Some(FailureReport::No),
        text if text.eq_ignore_ascii_case(b"partial") => Some(FailureReport::Partial),
        _ => None,
    }
}

fn parse_status(value: &[u8]) -> Option<Status<'_>> {
    let (namespace, rest) = parse_code(value)?;
    let (code, comment) = parse_code(rest)?;
    Some(Status { namespace, code, comment })
}

/// `type "/" subtype`, parameters behind a semicolon are left to whoever reads the body.
fn is_media_type(value: &[u8]) -> bool {
    let slash_or_end = value.iter().position(|byte| matches!(byte, b'/' | b';'));
    match slash_or_end.map(|at| value.split_at(at)) {
        Some(([first, ..], [b'/', subtype, ..])) => *first > b' ' && *subtype != b';',
        Some(_) | None => false,
    }
}

/// Whether a head may hold this: line ends apart, no control character but HTAB (RFC 4975 section 9,
/// utf8text), and CR nowhere but before LF. One pass over all lines costs less than one over each. Of
/// the start line only a comment is left to look at, and paths allow fewer characters anyway.
fn is_text(bytes: &[u8]) -> bool {
    let wrong = |byte: u8, next: u8| {
        let end = (byte == b'\n') | ((byte == b'\r') & (next == b'\n'));
        ((byte < b' ') & (byte != b'\t') & !end) | (byte == 0x7f)
    };
    bytes.last().is_none_or(|&last| !wrong(last, b' ')) && !any_pair(bytes, wrong)
}

/// Goes from line to line. Looks for line ends only: that no other CR stands in a line has to be
/// checked for all of them at once ([`is_text`]) or, where one is refused, afterwards.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The lines of both paths, where they are to the letter those: then nothing is left to be checked
    /// of them.
    #[inline(always)]
    fn take_paths(&mut self, usual: Paths<'_>) -> Option<(Path<'a>, Path<'a>)> {
        let (to_bytes, from_bytes) = (usual.to.len(), usual.from.len());
        let rest = self.bytes[self.at..].strip_prefix(b"To-Path: ")?;
        let (to, rest) = rest.split_at_checked(to_bytes)?;
        let rest = rest.strip_prefix(b"\r\nFrom-Path: ")?;
        let (from, rest) = rest.split_at_checked(from_bytes)?;
        let rest = rest.strip_prefix(b"\r\n")?;
        if to != usual.to || from != usual.from {
            return None;
        }
        self.at = self.bytes.len() - rest.len();
        Some((Path(to), Path(from)))
    }

    /// The next line without its CRLF, `None` where its end has not come.
    #[inline(always)]
    fn next(&mut self) -> Result<Option<&'a [u8]>, Reason> {
        let rest = &self.bytes[self.at..];
        let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(None) };
        self.at += end + 1;
        match rest[..end].split_last() {
            Some((b'\r', line)) => Ok(Some(line)),
            Some(_) | None => Err(Reason::LineEnd),
        }
    }

    /// Why the head is refused whose last line read was found wrong for this reason: CR and LF stand
    /// together or not at all, and the first line that is wrong decides.
    #[cold]
    fn first_reason(&self, reason: Reason) -> Reason {
        let read = &self.bytes[..self.at];
        let alone = |at: usize| read.get(at + 1) != Some(&b'\n');
        if memchr::memchr_iter(b'\r', read).any(alone) { Reason::LineEnd } else { reason }
    }
}

/// Name and value of `hname ":" SP hval`; whether an unknown name is one, [`is_name`] says.
fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    // Names are short: a loop is done before a vector is loaded.
    let colon = line.iter().position(|&byte| byte == b':').ok_or(Reason::Header)?;
    let name = &line[..colon];
    match &line[colon + 1..] {
        [b' ', value @ ..] => Ok((name, value)),
        _ => Err(Reason::Header),
    }
}

/// Begins with a letter; a folded line begins with white space and so has no name.
fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_alphabetic) && name.iter().all(u8::is_ascii_graphic)
}
