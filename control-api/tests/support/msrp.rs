//! MSRP as a UE reads and writes it. Written apart from the product's codec, so that the two check
//! each other.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io;
use std::ops::Range;

use super::wire::Wire;

/// A message or chunk as received; what its body held went elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// First line and header lines.
    pub(crate) text: String,
    /// `$`, `+` or `#`.
    pub(crate) flag: u8,
}

impl Head {
    fn word(&self, index: usize) -> &str {
        self.text.split([' ', '\r']).nth(index).expect("three words at least")
    }

    pub(crate) fn transaction_id(&self) -> &str {
        self.word(1)
    }

    /// The method of a request, the status of a response.
    pub(crate) fn method(&self) -> &str {
        self.word(2)
    }

    pub(crate) fn is_send(&self) -> bool {
        self.method() == "SEND"
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> Option<u16> {
        self.word(2).parse().ok()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            (field == name).then_some(value)
        })
    }

    /// First byte of the chunk in its message, from 1.
    pub(crate) fn range_start(&self) -> u64 {
        let range = self.header("Byte-Range").unwrap_or("1-*/*");
        range.split('-').next().and_then(|start| start.parse().ok()).expect("a number")
    }
}

/// Cuts a stream into messages.
#[derive(Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// The next message. Its body goes to `sink` as it arrives.
    pub(crate) fn next(
        &mut self,
        wire: &mut Wire,
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Head> {
        let mut text = self.line(wire)?;
        let id = text.strip_prefix("MSRP ").and_then(|rest| rest.split([' ', '\r']).next());
        let id = id.unwrap_or_else(|| panic!("not MSRP: {text:?}")).to_owned();
        let end_line = format!("-------{id}");
        loop {
            let line = self.line(wire)?;
            if let Some(flag) = line.strip_prefix(&end_line) {
                return Ok(Head { text, flag: flag.as_bytes()[0] });
            }
            if line == "\r\n" {
                break;
            }
            text.push_str(&line);
        }
        let end_line = format!("\r\n{end_line}").into_bytes();
        loop {
            if let Some(at) = position(&self.buffer, &end_line)
                && self.buffer.len() >= at + end_line.len() + 3
            {
                sink(&self.buffer[..at]);
                let flag = self.buffer[at + end_line.len()];
                self.buffer.drain(..at + end_line.len() + 3);
                return Ok(Head { text, flag });
            }
            let safe = self.buffer.len().saturating_sub(end_line.len() + 3);
            sink(&self.buffer[..safe]);
            self.buffer.drain(..safe);
            self.more(wire)?;
        }
    }

    /// Reads until these bytes are there; nothing is taken out.
    pub(crate) fn await_bytes(&mut self, wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
        while position(&self.buffer, bytes).is_none() {
            self.more(wire)?;
        }
        Ok(())
    }

    /// One line with its CRLF.
    fn line(&mut self, wire: &mut Wire) -> io::Result<String> {
        loop {
            if let Some(at) = position(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.more(wire)?;
        }
    }

    fn more(&mut self, wire: &mut Wire) -> io::Result<()> {
        match wire.read(&mut self.buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Who writes to whom: the two paths.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) to: String,
    pub(crate) from: String,
}

impl Paths {
    /// Everything of a SEND before its body; without a length the range ends in `*`.
    pub(crate) fn send_head(&self, id: &str, length: Option<u64>) -> String {
        self.send_head_of(id, "text/plain", length)
    }

    /// The same for any type of body.
    pub(crate) fn send_head_of(&self, id: &str, content_type: &str, length: Option<u64>) -> String {
        let range = match length {
            Some(length) if length <= 2048 => format!("1-{length}/{length}"),
            Some(length) => format!("1-*/{length}"),
            None => "1-*/*".to_owned(),
        };
        format!(
            "MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: m{id}\r\n\
             Byte-Range: {range}\r\nContent-Type: {content_type}\r\n\r\n",
            self.to, self.from
        )
    }

    /// A whole SEND.
    pub(crate) fn send(&self, id: &str, body: &str) -> Vec<u8> {
        let head = self.send_head(id, Some(body.len() as u64));
        format!("{head}{body}\r\n-------{id}$\r\n").into_bytes()
    }

    /// One chunk of a message of that many bytes: the bytes in the range, counted from 0.
    pub(crate) fn chunk(
        &self,
        id: &str,
        message_id: &str,
        content_type: &str,
        range: Range<usize>,
        body: &[u8],
    ) -> Vec<u8> {
        let (first, last, total) = (range.start + 1, range.end, body.len());
        let flag = if last == total { '$' } else { '+' };
        let head = format!(
            "MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {message_id}\r\n\
             Byte-Range: {first}-{last}/{total}\r\nContent-Type: {content_type}\r\n\r\n",
            self.to, self.from
        );
        [head.as_bytes(), &body[range], format!("\r\n-------{id}{flag}\r\n").as_bytes()].concat()
    }

    /// A SEND without a body, with which an active UE binds its connection (RFC 4975 section 5.4).
    pub(crate) fn bind(&self, id: &str) -> Vec<u8> {
        format!(
            "MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: m{id}\r\n\
             -------{id}$\r\n",
            self.to, self.from
        )
        .into_bytes()
    }

    /// The 200 to a request; it goes to the last hop and no further (RFC 4976 section 6.1).
    pub(crate) fn ok(&self, id: &str) -> Vec<u8> {
        let hop = self.to.split(' ').next().unwrap_or_default();
        format!(
            "MSRP {id} 200 OK\r\nTo-Path: {hop}\r\nFrom-Path: {}\r\n-------{id}$\r\n",
            self.from
        )
        .into_bytes()
    }
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == needle[0]) {
        from += at;
        if haystack[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
    None
}
