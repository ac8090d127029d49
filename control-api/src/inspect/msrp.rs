//! A stream of MSRP, message by message.

use std::borrow::Cow;
use std::io::{self, Write};

use mrfp_protocol::cpim;
use mrfp_protocol::msrp::{
    Continuation, FailureReport, Framer, Head, Malformed, MalformedReason, Method, Piece, Start,
};

use super::shown;

/// Writes what the node reads in `input`. `false`: it does not like some of it.
///
/// # Errors
/// Those of `out`.
pub fn msrp(input: &[u8], out: &mut impl Write) -> io::Result<bool> {
    let bare = !input.contains(&b'\r') && input.contains(&b'\n');
    if bare {
        writeln!(out, "note: every line ends in LF alone; read as if it were CRLF")?;
    }
    let input = if bare { with_carriage_returns(input) } else { Cow::Borrowed(input) };
    let mut framer = Framer::default();
    let mut message = Message::default();
    let mut sound = true;
    let mut at = 0;
    while at < input.len() {
        let piece = match framer.next(&input[at..]) {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(malformed) => {
                write_malformed(out, &input, at, &malformed)?;
                return Ok(false);
            }
        };
        let Piece { head, body, end, consumed, after_paths: _ } = piece;
        if let Some(head) = head {
            message = Message { number: message.number + 1, ..Message::default() };
            // Only the first chunk of a message has the head of its wrapper.
            message.is_cpim = head.content_type.is_some_and(is_cpim)
                && head.byte_range.is_none_or(|range| range.start == 1);
            writeln!(out, "{}. byte {at}, line {}", message.number, line_of(&input, at))?;
            sound &= write_head(out, &head)?;
        }
        message.take(body);
        at += consumed;
        if let Some(end) = end {
            sound &= message.write_end(out, end)?;
        }
    }
    let left = input.len() - at;
    if left > 0 || message.is_open {
        writeln!(out, "incomplete: {left} byte(s) from byte {at} on wait for more")?;
        sound = false;
    }
    if message.number == 0 && sound {
        writeln!(out, "nothing to read")?;
        sound = false;
    }
    Ok(sound)
}

/// What has been seen of one message.
#[derive(Default)]
struct Message {
    number: usize,
    is_open: bool,
    is_cpim: bool,
    body_bytes: usize,
    /// As much of the body as the head of a CPIM wrapper may take.
    beginning: Vec<u8>,
}

impl Message {
    fn take(&mut self, body: &[u8]) {
        self.is_open = true;
        self.body_bytes += body.len();
        if self.is_cpim {
            let room = cpim::HEAD_BYTES_MAX.saturating_sub(self.beginning.len());
            self.beginning.extend_from_slice(&body[..body.len().min(room)]);
        }
    }

    fn write_end(&mut self, out: &mut impl Write, end: Continuation) -> io::Result<bool> {
        self.is_open = false;
        let said = match end {
            Continuation::Last => "$, the last chunk",
            Continuation::More => "+, more follows",
            Continuation::Abort => "#, given up",
        };
        writeln!(out, "   body            {} byte(s), ended with {said}", self.body_bytes)?;
        if !self.is_cpim || self.body_bytes == 0 {
            return Ok(true);
        }
        match cpim::Head::parse(&self.beginning) {
            Ok(Some((head, bytes))) => {
                writeln!(out, "   CPIM            head of {bytes} byte(s)")?;
                if let Some(from) = &head.from {
                    writeln!(out, "     From          {}", shown(from.uri))?;
                }
                for to in head.to() {
                    writeln!(out, "     To            {}", shown(to.uri))?;
                }
                if let Some(content_type) = head.content_type {
                    writeln!(out, "     Content-Type  {}", shown(content_type))?;
                }
                Ok(true)
            }
            Ok(None) => {
                writeln!(out, "   CPIM            the head does not end in this chunk")?;
                Ok(false)
            }
            Err(malformed) => {
                writeln!(out, "   CPIM            malformed: {malformed:?}")?;
                Ok(false)
            }
        }
    }
}

fn write_head(out: &mut impl Write, head: &Head<'_>) -> io::Result<bool> {
    let id = shown(head.transaction_id);
    let mut known = true;
    match head.start {
        Start::Response(code, comment) => {
            writeln!(out, "   response        {code} {} to {id}", shown(comment))?;
        }
        Start::Request(method) => {
            writeln!(out, "   request         {} {id}", shown(method.as_bytes()))?;
            if let Method::Unknown(_) = method {
                writeln!(out, "                   unknown: the node answers 501")?;
                known = false;
            }
        }
    }
    for (name, path) in [("To-Path", head.to_path), ("From-Path", head.from_path)] {
        for uri in path.iter() {
            writeln!(out, "   {name:15} {}", shown(uri))?;
        }
    }
    if let Some(id) = head.message_id {
        writeln!(out, "   Message-ID      {}", shown(id))?;
    }
    if let Some(range) = head.byte_range {
        let number = |number: Option<u64>| number.map_or("*".to_owned(), |n| n.to_string());
        let (end, total) = (number(range.end), number(range.total));
        writeln!(out, "   Byte-Range      {}-{end}/{total}", range.start)?;
    }
    if let Some(status) = head.status {
        let comment = shown(status.comment);
        writeln!(out, "   Status          {:03} {:03} {comment}", status.namespace, status.code)?;
    }
    if let Start::Request(Method::Send) = head.start {
        let success = if head.success_report { "yes" } else { "no" };
        let failure = match head.failure_report {
            FailureReport::Yes => "yes",
            FailureReport::Partial => "partial: errors are answered, 200 is not",
            FailureReport::No => "no: nothing is answered",
        };
        writeln!(out, "   Success-Report  {success}\n   Failure-Report  {failure}")?;
    }
    if let Some(content_type) = head.content_type {
        writeln!(out, "   Content-Type    {}", shown(content_type))?;
    }
    Ok(known)
}

fn write_malformed(
    out: &mut impl Write,
    input: &[u8],
    at: usize,
    malformed: &Malformed,
) -> io::Result<()> {
    let line = line_of(input, at);
    writeln!(out, "malformed: the message at byte {at}, line {line}: {}", why(malformed.reason))?;
    let answer = if malformed.answer.is_some() { "answers 400 and closes" } else { "closes" };
    writeln!(out, "           the node {answer} the connection")
}

/// Counted from 1.
fn line_of(input: &[u8], at: usize) -> usize {
    input[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn with_carriage_returns(input: &[u8]) -> Cow<'static, [u8]> {
    let mut text = Vec::with_capacity(input.len() + input.len() / 16);
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                text.extend_from_slice(line);
                text.extend_from_slice(b"\r\n");
            }
            None => text.extend_from_slice(line),
        }
    }
    Cow::Owned(text)
}

fn is_cpim(content_type: &[u8]) -> bool {
    let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
    content_type[..end].trim_ascii().eq_ignore_ascii_case(b"message/cpim")
}

fn why(reason: MalformedReason) -> &'static str {
    match reason {
        MalformedReason::StartLine => "no start line of MSRP",
        MalformedReason::TransactionId => "the transaction identifier",
        MalformedReason::LineEnd => "a line that does not end in CRLF, or a control character",
        MalformedReason::Header => "a header that is not `Name: value`",
        MalformedReason::ToPath => "To-Path: first header, a list of MSRP URIs",
        MalformedReason::FromPath => "From-Path: second header, a list of MSRP URIs",
        MalformedReason::Duplicate => "a header that may stand once stands twice",
        MalformedReason::MessageId => "Message-ID",
        MalformedReason::ByteRange => "Byte-Range",
        MalformedReason::SuccessReport => "Success-Report",
        MalformedReason::FailureReport => "Failure-Report",
        MalformedReason::Status => "Status",
        MalformedReason::ContentType => "Content-Type",
        MalformedReason::ContentTypeNotLast => "a header behind Content-Type, which is the last",
        MalformedReason::BodyMissing => "a Content-Type and no body",
        MalformedReason::BodyUnannounced => "a body and no Content-Type",
        MalformedReason::BodyInResponse => "a response with a body",
        MalformedReason::EndLine => "the end-line",
        MalformedReason::HeadTooLong => "start line and headers are too long",
        _ => "it breaks the grammar",
    }
}
