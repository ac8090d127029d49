//! MSRP (RFC 4975): streaming framer, serializer, URIs.
//!
//! Bodies are never assembled: the framer hands out what is there.

use std::ops::Range;

/// Cuts a byte stream into pieces of MSRP messages. Holds a few dozen bytes between calls; what it
/// did not consume the caller presents again, with more behind it.
#[derive(Debug, Default)]
pub struct Framer {}

/// One step through the stream. A short message that lies whole in the input is one piece with
/// `head`, `body` and `end`; a long one is many.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Present where a message begins.
    pub head: Option<Head<'a>>,
    /// The next bytes of the body, maybe none.
    pub body: &'a [u8],
    /// Present where the message ends.
    pub end: Option<Continuation>,
    /// Bytes of the input this piece took.
    pub consumed: usize,
}

/// The flag of an end-line (RFC 4975 section 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuation {
    /// `$`: last chunk of the message.
    Last,
    /// `+`: more chunks follow.
    More,
    /// `#`: the sender gives the message up.
    Abort,
}

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

/// `start-end/total`, 1-based; `None` stands for `*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    /// First byte, 1-based.
    pub start: u64,
    /// Last byte as announced (advisory).
    pub end: Option<u64>,
    /// Size of the whole message.
    pub total: Option<u64>,
}

/// A list of URIs separated by single spaces, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path<'a>(pub &'a [u8]);

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

/// The bytes violate the grammar. The connection is beyond repair; where `answer` is present a 400
/// can still be sent first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// What is wrong.
    pub reason: MalformedReason,
    /// Ranges of the input with what a 400 needs.
    pub answer: Option<MalformedAnswer>,
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
}

impl Framer {
    /// The next piece; `Ok(None)`: nothing can be said before more bytes come. A head longer than
    /// [`HEAD_BYTES_MAX`] is malformed.
    pub fn next<'a>(&mut self, _input: &'a [u8]) -> Result<Option<Piece<'a>>, Malformed> {
        Ok(None)
    }
}

/// Longest start line plus headers that is accepted.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
