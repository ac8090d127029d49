//! What a peer can get wrong, and what a 400 needs to say so.

use std::ops::Range;

use super::head::parse_start;
use super::uri::{Path, Uri};
use super::{Method, Start};

/// The bytes violate the grammar. Where `answer` is present a 400 can be sent; without `consumed` the
/// connection is beyond repair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// What is wrong.
    pub reason: MalformedReason,
    /// Ranges of the input with what a 400 needs; absent where they could not be read or where
    /// the message must not be answered (responses, REPORTs, Failure-Report: no).
    pub answer: Option<MalformedAnswer>,
    /// Bytes of the input the head took, where the message it begins can be skipped to its end-line.
    pub consumed: Option<usize>,
}

/// Where the parts of a 400 lie in the input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MalformedAnswer {
    /// Transaction identifier.
    pub transaction_id: Range<usize>,
    /// First URI of the From-Path.
    pub from_first: Range<usize>,
    /// First URI of the To-Path.
    pub to_first: Range<usize>,
}

/// Why a message is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MalformedReason {
    /// The start line.
    StartLine,
    /// The transaction identifier is not 4 to 32 characters of the ident alphabet.
    TransactionId,
    /// A line ends without CR, or has a control character inside.
    LineEnd,
    /// A header line is not `name: value`, or is folded.
    Header,
    /// To-Path is not the first header, or holds no list of URIs.
    ToPath,
    /// From-Path is not the second header, or holds no list of URIs.
    FromPath,
    /// A header that may stand once stands twice.
    Duplicate,
    /// Message-ID.
    MessageId,
    /// Byte-Range.
    ByteRange,
    /// Success-Report.
    SuccessReport,
    /// Failure-Report.
    FailureReport,
    /// Status.
    Status,
    /// Content-Type is no media type.
    ContentType,
    /// A header follows Content-Type.
    ContentTypeNotLast,
    /// Content-Type without a body.
    BodyMissing,
    /// A body without Content-Type.
    BodyUnannounced,
    /// A response with a body.
    BodyInResponse,
    /// The end-line of a message without body.
    EndLine,
    /// Start line and headers exceed [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX).
    HeadTooLong,
}

impl Malformed {
    /// `bytes`: the head as far as it was read, from the first byte of the input on.
    pub(super) fn new(reason: MalformedReason, bytes: &[u8]) -> Self {
        Self { reason, answer: MalformedAnswer::find(bytes), consumed: None }
    }
}

impl MalformedAnswer {
    fn find(bytes: &[u8]) -> Option<Self> {
        let mut lines = Lines { bytes, at: 0 };
        let start_line = lines.next()?;
        let (transaction_id, start) = parse_start(&bytes[start_line]).ok()?;
        match start {
            //= RFC 4975 section 7.2: a REPORT is never answered, nor is a response.
            Start::Response(..) | Start::Request(Method::Report) => return None,
            Start::Request(_) => {}
        }
        let transaction_id_start = b"MSRP ".len();
        let (mut to, mut from) = (None, None);
        for line in lines {
            let text = &bytes[line.clone()];
            if let Some(path) = value(text, b"to-path") {
                to = to.or(first_uri(text, path, line.start));
            } else if let Some(path) = value(text, b"from-path") {
                from = from.or(first_uri(text, path, line.start));
            } else if value(text, b"failure-report").is_some_and(|v| v.eq_ignore_ascii_case(b"no"))
            {
                return None;
            }
        }
        Some(Self {
            transaction_id: transaction_id_start..transaction_id_start + transaction_id.len(),
            from_first: from?,
            to_first: to?,
        })
    }
}

/// The complete lines, each without its line end.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        let end = start + memchr::memchr(b'\n', self.bytes.get(start..)?)?;
        self.at = end + 1;
        let end = if end > start && self.bytes[end - 1] == b'\r' { end - 1 } else { end };
        Some(start..end)
    }
}

fn value<'a>(line: &'a [u8], name_lower: &[u8]) -> Option<&'a [u8]> {
    let (name, rest) = line.split_at_checked(name_lower.len())?;
    if !name.eq_ignore_ascii_case(name_lower) {
        return None;
    }
    rest.strip_prefix(b": ")
}

fn first_uri(line: &[u8], path: &[u8], line_start: usize) -> Option<Range<usize>> {
    let first = Path(path).first();
    Uri::parse(first).ok()?;
    let start = line_start + (line.len() - path.len());
    Some(start..start + first.len())
}
