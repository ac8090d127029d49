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
        let (start, rest) = number(text)?;
        let (end, rest) = number_or_star(rest.strip_prefix(b"-")?)?;
        let (total, rest) = number_or_star(rest.strip_prefix(b"/")?)?;
        if !rest.is_empty() {
            return None;
        }
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

/// A number or `*` at the front, and what follows it.
fn number_or_star(text: &[u8]) -> Option<(Option<u64>, &[u8])> {
    match text {
        [b'*', rest @ ..] => Some((None, rest)),
        digits => number(digits).map(|(number, rest)| (Some(number), rest)),
    }
}

/// The number at the front, and what follows it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    let mut digits = 0;
    while let Some(digit) = text.get(digits).map(|byte| byte.wrapping_sub(b'0'))
        && digit <= 9
    {
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
        digits += 1;
    }
    (digits > 0).then(|| (number, &text[digits..]))
}
