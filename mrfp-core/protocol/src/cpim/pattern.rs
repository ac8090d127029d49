//! The head a client writes in front of every message, but for what changes from one to the next.

use std::ops::Range;

use super::HEAD_BYTES_MAX;

/// What a head looks like that says the same as one that has been read: from the same, to the same,
/// about the same kind of content, and well-formed. Times, numbers and sizes may differ.
///
/// Comparing costs a fraction of reading; nearly all messages of a client are like its last one.
#[derive(Clone, Default, Debug)]
pub struct Pattern {
    /// The head as it was read; empty where there is none.
    bytes: Vec<u8>,
    /// Where values lie in it that decide nothing.
    free: [Range<u16>; FREE_VALUES_MAX],
    free_count: usize,
}

/// Longest head that is kept.
const BYTES_MAX: usize = 1024;
/// Values that may differ; a head with more of them is like no other.
const FREE_VALUES_MAX: usize = 6;
/// Headers whose values change from message to message, and mean nothing to whoever passes it on.
const FREE: [&[u8]; 5] = [b"DateTime", b"Message-ID", b"Subject", b"Content-Length", b"Content-ID"];

impl Pattern {
    /// Keeps a head that [`Head::parse`](super::Head::parse) has read: all the bytes it said were
    /// head. False: it is too long to be kept.
    pub fn learn(&mut self, head: &[u8]) -> bool {
        self.bytes.clear();
        self.free_count = 0;
        if head.len() > BYTES_MAX {
            return false;
        }
        let mut line_start = 0;
        for line in head.split_inclusive(|&byte| byte == b'\n') {
            if let Some(value) = free_value(line) {
                let Some(free) = self.free.get_mut(self.free_count) else { return false };
                *free = (line_start + value.start) as u16..(line_start + value.end) as u16;
                self.free_count += 1;
            }
            line_start += line.len();
        }
        self.bytes.extend_from_slice(head);
        true
    }

    /// The length of the head at the beginning of a message, where it is like the one that was
    /// learnt. `None` says nothing: it may be incomplete, malformed, or just another.
    #[must_use]
    pub fn matches(&self, message: &[u8]) -> Option<usize> {
        if self.bytes.is_empty() {
            return None;
        }
        let (mut own, mut at) = (0, 0);
        for free in &self.free[..self.free_count] {
            let fixed = &self.bytes[own..usize::from(free.start)];
            let rest = message.get(at..)?.strip_prefix(fixed)?;
            let known = &self.bytes[usize::from(free.start)..usize::from(free.end)];
            // What stands behind it is compared next.
            let same = rest.starts_with(known) && rest.get(known.len()) == Some(&b'\r');
            at += fixed.len() + if same { known.len() } else { value_length(rest)? };
            own = usize::from(free.end);
        }
        let fixed = &self.bytes[own..];
        let length = at + fixed.len();
        (message.get(at..)?.starts_with(fixed) && length <= HEAD_BYTES_MAX).then_some(length)
    }
}

/// Where the value lies in a line, if it decides nothing.
fn free_value(line: &[u8]) -> Option<Range<usize>> {
    let text = line.strip_suffix(b"\r\n")?;
    let colon = text.iter().position(|&byte| byte == b':')?;
    let name = &text[..colon];
    let local = name.iter().position(|&byte| byte == b'.').map_or(name, |dot| &name[dot + 1..]);
    let is_free = FREE.iter().any(|free| free.eq_ignore_ascii_case(local));
    // With a parameter in between it is read with more care.
    (is_free && text.get(colon + 1) == Some(&b' ')).then(|| colon + 2..text.len())
}

/// Bytes up to the end of the line; `None` where something stands in it that no value may have.
fn value_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f)?;
    (bytes[end] == b'\r').then_some(end)
}
