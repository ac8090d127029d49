//! Messages on their way out, into a buffer of the caller and without an allocation.

use super::{ByteRange, Continuation, FailureReport, IDENT_BYTES_MAX, Method};

/// Start line and headers of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Transaction identifier, 4 to 32 characters.
    pub transaction_id: &'a [u8],
    /// Method.
    pub method: Method<'a>,
    /// To-Path: URIs separated by one space.
    pub to_path: &'a [u8],
    /// From-Path.
    pub from_path: &'a [u8],
    /// Message-ID.
    pub message_id: Option<&'a [u8]>,
    /// Byte-Range.
    pub byte_range: Option<ByteRange>,
    /// Success-Report; absent means no.
    pub success_report: Option<bool>,
    /// Failure-Report; absent means yes.
    pub failure_report: Option<FailureReport>,
    /// More header lines, each complete with its CRLF; maybe none.
    pub extra_header_lines: &'a [u8],
    /// Content-Type; present where a body follows.
    pub content_type: Option<&'a [u8]>,
}

/// A REPORT (RFC 4975 section 7.1.2).
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Transaction identifier, 4 to 32 characters.
    pub transaction_id: &'a [u8],
    /// To-Path: the whole From-Path of the SEND.
    pub to_path: &'a [u8],
    /// From-Path: the own URI.
    pub from_path: &'a [u8],
    /// Message-ID of the SEND.
    pub message_id: &'a [u8],
    /// The bytes reported.
    pub byte_range: ByteRange,
    /// Status code, in namespace 000.
    pub status: u16,
}

/// Longest end-line, with the CRLF that ends the body before it.
pub const END_LINE_BYTES_MAX: usize = 2 + 7 + IDENT_BYTES_MAX + 1 + 2;

impl RequestHead<'_> {
    /// Writes the head and returns its length; `None` where it does not fit. With a Content-Type
    /// the empty line is written too and the body comes next, without one the end-line does.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        writer.put_start(self.transaction_id, self.method.as_bytes())?;
        writer.put_header(b"To-Path: ", self.to_path)?;
        writer.put_header(b"From-Path: ", self.from_path)?;
        if let Some(message_id) = self.message_id {
            writer.put_header(b"Message-ID: ", message_id)?;
        }
        if let Some(byte_range) = self.byte_range {
            writer.put_byte_range(byte_range)?;
        }
        match self.success_report {
            Some(true) => writer.put(b"Success-Report: yes\r\n")?,
            Some(false) => writer.put(b"Success-Report: no\r\n")?,
            None => {}
        }
        match self.failure_report {
            Some(FailureReport::Yes) => writer.put(b"Failure-Report: yes\r\n")?,
            Some(FailureReport::Partial) => writer.put(b"Failure-Report: partial\r\n")?,
            Some(FailureReport::No) => writer.put(b"Failure-Report: no\r\n")?,
            None => {}
        }
        writer.put(self.extra_header_lines)?;
        //= RFC 4975 section 7.1: Content-Type is the last header field, and a request without
        //= body has no extra CRLF between the headers and the end-line.
        if let Some(content_type) = self.content_type {
            writer.put_header(b"Content-Type: ", content_type)?;
            writer.put(b"\r\n")?;
        }
        Some(writer.len())
    }

    /// A length that [`write`](Self::write) does not exceed.
    pub fn bytes_max(&self) -> usize {
        /// Header names, separators and line ends, the values of the two report headers, and three
        /// numbers of up to 20 digits.
        const FIXED_BYTES_MAX: usize = 256;
        FIXED_BYTES_MAX
            + self.transaction_id.len()
            + self.method.as_bytes().len()
            + self.to_path.len()
            + self.from_path.len()
            + self.message_id.map_or(0, <[u8]>::len)
            + self.extra_header_lines.len()
            + self.content_type.map_or(0, <[u8]>::len)
    }
}

impl Report<'_> {
    /// Writes the whole REPORT and returns its length; `None` where it does not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        writer.put_start(self.transaction_id, b"REPORT")?;
        writer.put_header(b"To-Path: ", self.to_path)?;
        writer.put_header(b"From-Path: ", self.from_path)?;
        writer.put_header(b"Message-ID: ", self.message_id)?;
        writer.put_byte_range(self.byte_range)?;
        writer.put(b"Status: 000 ")?;
        writer.put_status(self.status)?;
        writer.put_end_line(self.transaction_id, Continuation::Last)?;
        Some(writer.len())
    }
}

/// Writes the end-line, behind a body with the CRLF that parts them; `None` where it does not fit.
pub fn write_end_line(
    transaction_id: &[u8],
    continuation: Continuation,
    has_body: bool,
    out: &mut [u8],
) -> Option<usize> {
    let mut writer = Writer::new(out);
    if has_body {
        writer.put(b"\r\n")?;
    }
    writer.put_end_line(transaction_id, continuation)?;
    Some(writer.len())
}

/// Writes a whole response and returns its length; `None` where it does not fit. `to_path_first`:
/// for a SEND the first URI of its From-Path, for other methods the whole From-Path (RFC 4975
/// section 7.2, RFC 4976 section 5.1). `from`: the own URI.
pub fn write_response(
    transaction_id: &[u8],
    status: u16,
    to_path_first: &[u8],
    from: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    let mut writer = Writer::new(out);
    writer.put(b"MSRP ")?;
    writer.put(transaction_id)?;
    writer.put(b" ")?;
    writer.put_status(status)?;
    writer.put_header(b"To-Path: ", to_path_first)?;
    writer.put_header(b"From-Path: ", from)?;
    writer.put_end_line(transaction_id, Continuation::Last)?;
    Some(writer.len())
}

/// The comment that goes with a status code (RFC 4975 section 10, RFC 4976 section 10.2, RFC 7701
/// section 12), empty for codes that those do not define.
pub fn comment(status: u16) -> &'static [u8] {
    match status {
        200 => b"OK",
        400 => b"Bad Request",
        401 => b"Unauthorized",
        403 => b"Forbidden",
        404 => b"Not Found",
        408 => b"Timeout",
        413 => b"Stop Sending",
        415 => b"Unsupported Media Type",
        423 => b"Interval Out of Bounds",
        424 => b"Malformed Nickname",
        425 => b"Nickname Reserved or In Use",
        428 => b"Private Messages Not Supported",
        481 => b"No Such Session",
        501 => b"Unknown Method",
        506 => b"Session Already Bound",
        _ => b"",
    }
}

/// Appends to a buffer of fixed size; `None` says that it is full.
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn put(&mut self, text: &[u8]) -> Option<()> {
        let end = self.len + text.len();
        self.out.get_mut(self.len..end)?.copy_from_slice(text);
        self.len = end;
        Some(())
    }

    pub(super) fn put_number(&mut self, number: u64) -> Option<()> {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return self.put(&digits[start..]);
            }
        }
    }

    fn put_start(&mut self, transaction_id: &[u8], method: &[u8]) -> Option<()> {
        self.put(b"MSRP ")?;
        self.put(transaction_id)?;
        self.put(b" ")?;
        self.put(method)?;
        self.put(b"\r\n")
    }

    fn put_header(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        self.put(name)?;
        self.put(value)?;
        self.put(b"\r\n")
    }

    fn put_byte_range(&mut self, byte_range: ByteRange) -> Option<()> {
        self.put(b"Byte-Range: ")?;
        byte_range.put(self)?;
        self.put(b"\r\n")
    }

    /// `code [SP comment] CRLF`
    fn put_status(&mut self, status: u16) -> Option<()> {
        self.put_number(u64::from(status))?;
        let comment = comment(status);
        if !comment.is_empty() {
            self.put(b" ")?;
            self.put(comment)?;
        }
        self.put(b"\r\n")
    }

    fn put_end_line(&mut self, transaction_id: &[u8], continuation: Continuation) -> Option<()> {
        self.put(b"-------")?;
        self.put(transaction_id)?;
        self.put(&[continuation.as_byte(), b'\r', b'\n'])
    }
}
