//! Use-Nickname (RFC 7701 section 7.1).

use std::borrow::Cow;

use super::Head;

/// Longest nickname in octets (RFC 7701 section 7.1), escapes undone.
pub const NICKNAME_BYTES_MAX: usize = 1023;

/// The value of a Use-Nickname header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UseNickname<'a> {
    /// The participant wants to be known by this, escapes undone.
    Take(Cow<'a, str>),
    /// The participant wants no nickname any more (RFC 7701 section 7.3).
    Remove,
}

/// The value is not the grammar, not UTF-8, too long, or there are several: answered 424.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedNickname;

impl<'a> UseNickname<'a> {
    /// The nickname a request asks for; `Ok(None)` where it asks for none.
    pub fn of(head: &Head<'a>) -> Result<Option<Self>, MalformedNickname> {
        let mut values = head.header_values(b"Use-Nickname");
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(MalformedNickname);
        }
        Self::parse(value).map(Some)
    }

    /// Reads a header value.
    ///
    /// ```text
    /// nickname = DQUOTE 1*1023(qdtext / qd-esc) DQUOTE
    /// qdtext   = SP / HTAB / %x21 / %x23-5B / %x5D-7E / UTF8-NONASCII
    /// qd-esc   = (BACKSLASH BACKSLASH) / (BACKSLASH DQUOTE)
    /// ```
    pub fn parse(value: &'a [u8]) -> Result<Self, MalformedNickname> {
        let quoted = value
            .trim_ascii()
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""))
            .ok_or(MalformedNickname)?;
        let text = std::str::from_utf8(quoted).map_err(|_| MalformedNickname)?;
        let unescaped = unescape(text)?;
        match unescaped.len() {
            0 => Ok(Self::Remove),
            1..=NICKNAME_BYTES_MAX => Ok(Self::Take(unescaped)),
            _ => Err(MalformedNickname),
        }
    }
}

fn unescape(text: &str) -> Result<Cow<'_, str>, MalformedNickname> {
    let is_plain = |character| match character {
        '"' | '\\' => false,
        '\t' => true,
        other => !other.is_ascii_control(),
    };
    if text.chars().all(is_plain) {
        return Ok(Cow::Borrowed(text));
    }
    let mut unescaped = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | '"')) => unescaped.push(escaped),
                Some(_) | None => return Err(MalformedNickname),
            },
            plain if is_plain(plain) => unescaped.push(plain),
            _ => return Err(MalformedNickname),
        }
    }
    Ok(Cow::Owned(unescaped))
}
