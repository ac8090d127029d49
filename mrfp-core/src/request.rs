//! The parts our own requests are written from. The serializer of the protocol crate writes whole
//! heads; here the same lines go to every member of a Context, so they are made once and copied.

use std::io::Write;

use mrfp_protocol::msrp::{Continuation, TransactionId};

/// Message-ID and Byte-Range lines of a request.
pub(crate) const MESSAGE_LINES_BYTES_MAX: usize = 192;

/// Message-ID and Byte-Range of a request of ours.
pub(crate) fn message_lines<'a>(
    memory: &'a mut [u8; MESSAGE_LINES_BYTES_MAX],
    id: &[u8],
    start: u64,
    end: Option<u64>,
    total: Option<u64>,
) -> &'a [u8] {
    let mut rest = memory.as_mut_slice();
    let mut write = |bytes: &[u8]| rest.write_all(bytes);
    let mut number = Decimal::default();
    let written = write(b"Message-ID: ")
        .and_then(|()| write(id))
        .and_then(|()| write(b"\r\nByte-Range: "))
        .and_then(|()| write(number.format(Some(start))))
        .and_then(|()| write(b"-"))
        .and_then(|()| write(number.format(end)))
        .and_then(|()| write(b"/"))
        .and_then(|()| write(number.format(total)))
        .and_then(|()| write(b"\r\n"));
    // Three numbers of 20 digits and the longest Message-ID fit.
    assert!(written.is_ok());
    let length = MESSAGE_LINES_BYTES_MAX - rest.len();
    &memory[..length]
}

/// Message-ID of a request of ours whose other lines are at hand.
pub(crate) fn message_id_line<'a>(
    memory: &'a mut [u8; MESSAGE_LINES_BYTES_MAX],
    id: &[u8],
) -> &'a [u8] {
    const NAME: &[u8] = b"Message-ID: ";
    let end = NAME.len() + id.len();
    memory[..NAME.len()].copy_from_slice(NAME);
    memory[NAME.len()..end].copy_from_slice(id);
    memory[end..end + 2].copy_from_slice(b"\r\n");
    &memory[..end + 2]
}

/// Decimal digits without a detour through `fmt`, which would cost more than all the rest of a
/// request's head.
#[derive(Default)]
pub(crate) struct Decimal {
    digits: [u8; 20],
}

impl Decimal {
    /// The number, or `*`.
    pub(crate) fn format(&mut self, number: Option<u64>) -> &[u8] {
        let Some(mut number) = number else { return b"*" };
        let mut position = self.digits.len();
        loop {
            position -= 1;
            self.digits[position] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &self.digits[position..];
            }
        }
    }
}

/// The start line of a SEND of ours.
pub(crate) struct StartLine([u8; 5 + TransactionId::BYTES + 7]);

impl StartLine {
    pub(crate) fn new(transaction: &TransactionId) -> Self {
        const ID: usize = 5;
        let mut line = *b"MSRP ............. SEND\r\n";
        line[ID..ID + TransactionId::BYTES].copy_from_slice(transaction.as_bytes());
        Self(line)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An end-line (with the CRLF that ends the body before it), or nothing.
pub(crate) struct EndLine {
    bytes: [u8; 2 + 7 + TransactionId::BYTES + 3],
    start: usize,
}

impl EndLine {
    pub(crate) fn new(
        transaction: &TransactionId,
        end: Option<Continuation>,
        has_body: bool,
    ) -> Self {
        const ID: usize = 2 + 7;
        let mut bytes = *b"\r\n-------.............?\r\n";
        bytes[ID..ID + TransactionId::BYTES].copy_from_slice(transaction.as_bytes());
        let start = match (end, has_body) {
            (Some(_), true) => 0,
            (Some(_), false) => 2,
            (None, _) => bytes.len(),
        };
        bytes[ID + TransactionId::BYTES] = end.map_or(0, Continuation::as_byte);
        Self { bytes, start }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// The header lines that go on to the receivers, as by [`keep_lines`]. Where they stand together, as
/// nearly always, they are not copied.
pub(crate) fn kept_lines<'a>(
    header_lines: &'a [u8],
    end_to_end: bool,
    memory: &'a mut Vec<u8>,
) -> &'a [u8] {
    let (mut start, mut end, mut at) = (0, 0, 0);
    while let Some(length) = memchr::memchr(b'\n', &header_lines[at..]) {
        let line_end = at + length + 1;
        if !is_set_by_us(&header_lines[at..line_end], end_to_end) {
            if start == end {
                start = at;
            } else if end < at {
                memory.clear();
                keep_lines(header_lines, end_to_end, memory);
                return memory;
            }
            end = line_end;
        }
        at = line_end;
    }
    &header_lines[start..end]
}

/// Keeps the header lines that go on to the receivers: all but the ones that are ours to set. What
/// the sender wants to know of failures goes on, so that nobody answers who is not asked to; of
/// successes only where the receivers themselves report them (`end_to_end`).
pub(crate) fn keep_lines(header_lines: &[u8], end_to_end: bool, kept: &mut Vec<u8>) {
    keep_lines_but(header_lines, kept, |line| is_set_by_us(line, end_to_end));
}

/// Keeps the header lines of a REPORT that goes on; it goes without its body, which tells a person
/// something at most (RFC 4975 section 7.1.2).
pub(crate) fn keep_report_lines(header_lines: &[u8], kept: &mut Vec<u8>) {
    keep_lines_but(header_lines, kept, |line| starts_with(line, b"content-"));
}

/// Keeps the header lines of a request that is relayed, but for the Byte-Range, which is ours to set: a
/// relay passes on what it does not know.
pub(crate) fn keep_relayed_lines(header_lines: &[u8], kept: &mut Vec<u8>) {
    keep_lines_but(header_lines, kept, |line| starts_with(line, b"byte-range:"));
}

fn keep_lines_but(header_lines: &[u8], kept: &mut Vec<u8>, is_dropped: impl Fn(&[u8]) -> bool) {
    let lines = header_lines.split_inclusive(|&byte| byte == b'\n');
    lines.filter(|line| !is_dropped(line)).for_each(|line| kept.extend_from_slice(line));
}

fn is_set_by_us(line: &[u8], end_to_end: bool) -> bool {
    match line.first() {
        // Nearly everybody writes the names as the RFC does.
        Some(b'M' | b'm') => line.starts_with(b"Message-ID:") || starts_with(line, b"message-id:"),
        Some(b'B' | b'b') => line.starts_with(b"Byte-Range:") || starts_with(line, b"byte-range:"),
        Some(b'S' | b's') => !end_to_end && starts_with(line, b"success-report:"),
        Some(_) | None => false,
    }
}

fn starts_with(line: &[u8], start: &[u8]) -> bool {
    line.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mrfp_protocol::msrp::{END_LINE_BYTES_MAX, MESSAGE_ID_BYTES_MAX, write_end_line};

    #[test]
    fn keeps_foreign_header_lines_and_drops_those_that_are_ours() {
        let mut kept = Vec::new();
        let lines = b"Message-ID: 1\r\nX-Tag: a\r\nBYTE-RANGE: 1-5/5\r\nSuccess-Report: yes\r\n\
            Failure-Report: no\r\nContent-Type: text/plain\r\n";
        keep_lines(lines, false, &mut kept);
        assert_eq!(kept, b"X-Tag: a\r\nFailure-Report: no\r\nContent-Type: text/plain\r\n");
        kept.clear();
        keep_lines(lines, true, &mut kept);
        assert!(kept.windows(19).any(|line| line == b"Success-Report: yes"));
    }

    #[test]
    fn lines_are_kept_the_same_with_and_without_a_copy() {
        let ours = ["Message-ID: 1\r\n", "bYTE-rANGE: 1-5/5\r\n", "Success-Report: yes\r\n"];
        let theirs = ["X-Tag: a\r\n", "Message-IDs: b\r\n", "Failure-Report: no\r\n"];
        let all: Vec<&str> = ours.into_iter().chain(theirs).collect();
        // Every choice of lines, from every one of them on.
        for choice in 0..1 << all.len() {
            for first in 0..all.len() {
                let order = (0..all.len()).map(|at| (at + first) % all.len());
                let lines: String =
                    order.filter(|at| choice & (1 << at) != 0).map(|at| all[at]).collect();
                for end_to_end in [false, true] {
                    let (mut copied, mut memory) = (Vec::new(), b"stale".to_vec());
                    keep_lines(lines.as_bytes(), end_to_end, &mut copied);
                    let kept = kept_lines(lines.as_bytes(), end_to_end, &mut memory);
                    assert_eq!(kept, copied, "{lines}");
                }
            }
        }
    }

    #[test]
    fn what_a_request_is_written_from_is_what_the_serializer_writes() {
        let transaction = TransactionId::from_u64(0x0123_4567_89ab_cdef);
        for end in [Continuation::Last, Continuation::More, Continuation::Abort] {
            for has_body in [false, true] {
                let mut memory = [0; END_LINE_BYTES_MAX];
                let id = transaction.as_bytes();
                let length = write_end_line(id, end, has_body, &mut memory).unwrap();
                let line = EndLine::new(&transaction, Some(end), has_body);
                assert_eq!(line.bytes(), &memory[..length]);
            }
        }
        assert_eq!(EndLine::new(&transaction, None, true).bytes(), b"");
        let id = std::str::from_utf8(transaction.as_bytes()).unwrap();
        let line = StartLine::new(&transaction);
        assert_eq!(line.bytes(), format!("MSRP {id} SEND\r\n").as_bytes());
    }

    #[test]
    fn message_lines_hold_the_largest_numbers() {
        let mut memory = [0; MESSAGE_LINES_BYTES_MAX];
        let id = [b'x'; MESSAGE_ID_BYTES_MAX];
        let max = Some(u64::MAX);
        let lines = message_lines(&mut memory, &id, u64::MAX, max, max).to_vec();
        let text = String::from_utf8(lines).unwrap();
        let max = u64::MAX;
        assert!(text.ends_with(&format!("Byte-Range: {max}-{max}/{max}\r\n")), "{text}");
    }
}
