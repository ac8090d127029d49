//! Fields of a message with their places, and the cursor that reads them.

/// A field, or a group of fields.
#[derive(Debug)]
pub(super) struct Field {
    /// As the RFC that defines it calls it.
    pub(super) name: &'static str,
    /// Byte of the message it begins at.
    pub(super) offset: usize,
    /// Bytes it has, those of its children included.
    pub(super) length: usize,
    /// The value as a number, where it is one.
    pub(super) code: Option<u64>,
    /// The value as text, where it is no number.
    pub(super) text: Option<String>,
    /// What the value means.
    pub(super) meaning: Option<String>,
    /// What it consists of.
    pub(super) children: Vec<Self>,
}

/// Where reading ended before the message did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Broken {
    /// Byte of the message.
    pub(super) offset: usize,
    /// The payload or attribute that was being read.
    pub(super) payload: &'static str,
    /// What is wrong there.
    pub(super) why: String,
}

impl Field {
    pub(super) fn group(name: &'static str, offset: usize) -> Self {
        let children = Vec::new();
        Self { name, offset, length: 0, code: None, text: None, meaning: None, children }
    }

    pub(super) fn number(name: &'static str, offset: usize, length: usize, code: u64) -> Self {
        Self { length, code: Some(code), ..Self::group(name, offset) }
    }

    pub(super) fn data(name: &'static str, offset: usize, length: usize, text: String) -> Self {
        Self { length, text: Some(text), ..Self::group(name, offset) }
    }

    pub(super) fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = Some(meaning.into());
        self
    }
}

/// A cursor that puts down what it reads, so that nothing is lost where reading ends early.
pub(super) struct Walker<'a> {
    bytes: &'a [u8],
    /// The next byte.
    pub(super) at: usize,
    /// Where what may be read ends.
    end: usize,
    /// For complaints.
    pub(super) payload: &'static str,
}

impl<'a> Walker<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, end: bytes.len(), payload: "HDR" }
    }

    /// A cursor for `length` of the bytes that follow; this one goes on behind them.
    pub(super) fn inside(&mut self, length: usize) -> Result<Self, Broken> {
        let at = self.at;
        self.take(length)?;
        Ok(Self { bytes: self.bytes, at, end: at + length, payload: self.payload })
    }

    /// Bytes of the message, which this cursor has read or passed on.
    pub(super) fn slice(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        &self.bytes[range]
    }

    pub(super) fn left(&self) -> usize {
        self.end - self.at
    }

    pub(super) fn broken<T>(&self, at: usize, why: impl Into<String>) -> Result<T, Broken> {
        Err(Broken { offset: at, payload: self.payload, why: why.into() })
    }

    /// Bytes that are put down by the caller.
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let left = self.left();
        if length > left {
            let why = format!("{length} byte(s) should follow, {left} are left");
            return self.broken(self.at, why);
        }
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    /// A number of 1 to 8 bytes, with what it means.
    pub(super) fn number(
        &mut self,
        out: &mut Vec<Field>,
        name: &'static str,
        length: usize,
        meaning: impl FnOnce(u64) -> Option<String>,
    ) -> Result<u64, Broken> {
        let at = self.at;
        let value = self.take(length)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let mut field = Field::number(name, at, length, value);
        field.meaning = meaning(value);
        out.push(field);
        Ok(value)
    }

    /// A code point that a table names.
    pub(super) fn code(
        &mut self,
        out: &mut Vec<Field>,
        name: &'static str,
        length: usize,
        table: impl FnOnce(u64) -> Option<&'static str>,
    ) -> Result<u64, Broken> {
        self.number(out, name, length, |code| {
            Some(table(code).unwrap_or("unknown code point").to_owned())
        })
    }

    /// A length field of so many bytes, without a meaning beyond itself.
    pub(super) fn length(
        &mut self,
        out: &mut Vec<Field>,
        name: &'static str,
        bytes: usize,
    ) -> Result<usize, Broken> {
        let at = self.at;
        let value = self.number(out, name, bytes, |_| None)?;
        // At most 16 bits, so it fits.
        let value = usize::try_from(value).unwrap_or(usize::MAX);
        let left = self.left();
        if value > left {
            return self.broken(at, format!("{name} says {value}, but {left} byte(s) are left"));
        }
        Ok(value)
    }

    /// Bytes, shown in hex.
    pub(super) fn data(
        &mut self,
        out: &mut Vec<Field>,
        name: &'static str,
        length: usize,
    ) -> Result<&'a [u8], Broken> {
        let at = self.at;
        let bytes = self.take(length)?;
        out.push(Field::data(name, at, length, hex(bytes)));
        Ok(bytes)
    }
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
