//! Byte-Range (RFC 4975 section 7.1.1).

use super::write::Writer;

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

impl ByteRange {
    /// Reads the value of a Byte-Range header. `None`: not the grammar, a number beyond 64 bits, a
    /// start of 0, or an end before the byte that precedes the start (`1-0/0` is an empty body).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&byte| byte == b'-')?;
        let slash = dash + text[dash..].iter().position(|&byte| byte == b'/')?;
        let start = number(&text[..dash])?;
        let end = number_or_star(&text[dash + 1..slash])?;
        let total = number_or_star(&text[slash + 1..])?;
        if start == 0 {
            return None;
        }
        if end.is_some_and(|end| end < start - 1) {
            return None;
        }
        Some(Self { start, end, total })
    }

    /// Writes the value, `None` where it does not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        self.put(&mut writer)?;
        Some(writer.len())
    }

    pub(super) fn put(&self, writer: &mut Writer<'_>) -> Option<()> {
        writer.put_number(self.start)?;
        writer.put(b"-")?;
        put_number_or_star(writer, self.end)?;
        writer.put(b"/")?;
        put_number_or_star(writer, self.total)
    }
}

fn put_number_or_star(writer: &mut Writer<'_>, number: Option<u64>) -> Option<()> {
    match number {
        Some(number) => writer.put_number(number),
        None => writer.put(b"*"),
    }
}

fn number_or_star(text: &[u8]) -> Option<Option<u64>> {
    match text {
        b"*" => Some(None),
        digits => number(digits).map(Some),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(number)
}
