//! Cuts a TCP byte stream into SIP messages (RFC 3261 section 18.3). Sans-IO.

use super::wire::{self, Message, Name};

/// The largest message taken, header and body.
pub const MESSAGE_SIZE_MAX: usize = 64 * 1024;

/// The largest header section taken; what comes after must be a body of known length.
pub const HEADER_SIZE_MAX: usize = 32 * 1024;
const _: () = assert!(HEADER_SIZE_MAX < MESSAGE_SIZE_MAX);

/// The bytes received and not yet framed.
#[derive(Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Where the search for the end of the header goes on: bytes are looked at once.
    searched: usize,
    /// The length of the message whose header is complete: a header is scanned once.
    expected: Option<usize>,
}

/// What the bytes begin with.
#[derive(PartialEq, Eq, Debug)]
pub enum Frame {
    /// A whole message; take it with [`Framer::take`].
    Message {
        /// Its length in bytes.
        length: usize,
    },
    /// A keep-alive to be answered with one CRLF (RFC 5626 section 3.5.1).
    Ping,
    /// More bytes are needed.
    Incomplete,
    /// Where the next message begins can not be known: answer what there is, then close.
    Lost {
        /// The length of what can be judged.
        length: usize,
    },
}

impl Framer {
    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether no message has begun: the sender is between messages.
    pub fn is_idle(&self) -> bool {
        self.buffer.iter().all(|byte| b"\r\n".contains(byte))
    }

    /// Frames the next message.
    #[must_use]
    pub fn poll(&mut self) -> Frame {
        if let Some(length) = self.expected {
            return self.whole(length);
        }
        if self.searched == 0 {
            // Line ends before a start line are ignored (RFC 3261 section 7.5), two of them ask
            // for an answer.
            if self.buffer.starts_with(b"\r\n\r\n") {
                self.drop_front(4);
                return Frame::Ping;
            }
            if self.buffer.starts_with(b"\r\n") && self.buffer.len() > 2 && self.buffer[2] != b'\r'
            {
                self.drop_front(2);
            }
            if b"\r\n\r\n".starts_with(self.buffer.as_slice()) {
                return Frame::Incomplete;
            }
        }
        let from = self.searched.saturating_sub(3);
        let Some(at) = wire::find(&self.buffer[from..], b"\r\n\r\n") else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > HEADER_SIZE_MAX {
                Frame::Lost { length: self.buffer.len() }
            } else {
                Frame::Incomplete
            };
        };
        let header = from + at + 4;
        let body = body_length(&self.buffer[..header]);
        match body.and_then(|body| header.checked_add(body)) {
            Some(length) if header <= HEADER_SIZE_MAX && length <= MESSAGE_SIZE_MAX => {
                self.expected = Some(length);
                self.whole(length)
            }
            Some(_) | None => Frame::Lost { length: header },
        }
    }

    fn whole(&self, length: usize) -> Frame {
        if self.buffer.len() < length { Frame::Incomplete } else { Frame::Message { length } }
    }

    /// The first `length` bytes, as [`Framer::poll`] gave it.
    pub fn peek(&self, length: usize) -> &[u8] {
        &self.buffer[..length]
    }

    /// Forgets the first `length` bytes.
    pub fn take(&mut self, length: usize) {
        self.drop_front(length);
    }

    fn drop_front(&mut self, length: usize) {
        self.buffer.drain(..length);
        self.searched = 0;
        self.expected = None;
    }
}

/// The one Content-Length of a header section; without it the stream can not be followed.
fn body_length(header: &[u8]) -> Option<usize> {
    let message = Message::scan(header);
    let mut values = message.all(Name::ContentLength);
    match (values.next(), values.next()) {
        (Some(value), None) => wire::decimal(value, u64::from(u32::MAX))
            .and_then(|length| usize::try_from(length).ok()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nl: 4\r\n\r\nbody";
    const SECOND: &[u8] = b"BYE sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";

    fn drain(framer: &mut Framer, messages: &mut Vec<Vec<u8>>) {
        loop {
            match framer.poll() {
                Frame::Message { length } => {
                    messages.push(framer.peek(length).to_vec());
                    framer.take(length);
                }
                Frame::Incomplete => return,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn frames_two_messages_whatever_the_segments() {
        let stream = [b"\r\n", FIRST, SECOND].concat();
        for cut in 0..=stream.len() {
            let mut framer = Framer::default();
            let mut messages = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                framer.push(part);
                drain(&mut framer, &mut messages);
            }
            assert_eq!(messages, [FIRST, SECOND], "cut at {cut}");
            assert!(framer.is_idle());
        }
    }

    #[test]
    fn answers_a_double_line_end() {
        let mut framer = Framer::default();
        framer.push(b"\r\n\r");
        assert_eq!(framer.poll(), Frame::Incomplete);
        framer.push(b"\n");
        assert_eq!(framer.poll(), Frame::Ping);
        assert_eq!(framer.poll(), Frame::Incomplete);
    }

    #[test]
    fn gives_up_without_one_usable_content_length() {
        for lengths in ["", "l: -1\r\n", "l: 1\r\nl: 1\r\n", "l: 70000\r\n", "l: x\r\n"] {
            let mut framer = Framer::default();
            framer.push(format!("OPTIONS sip:a SIP/2.0\r\n{lengths}\r\n").as_bytes());
            assert!(matches!(framer.poll(), Frame::Lost { .. }), "{lengths:?}");
        }
    }

    #[test]
    fn gives_up_on_an_endless_header() {
        let mut framer = Framer::default();
        framer.push(&vec![b'a'; HEADER_SIZE_MAX + 1]);
        assert!(matches!(framer.poll(), Frame::Lost { .. }));
    }
}
