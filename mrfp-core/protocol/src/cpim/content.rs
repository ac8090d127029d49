//! What kind of content a message carries.

use super::{HEAD_BYTES_MAX, Head};
use crate::msrp;

/// Kinds of messages an operator tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentClass {
    /// Something somebody has said.
    Chat,
    /// That somebody is typing (RFC 3994).
    IsComposing,
    /// That something was delivered or read (RFC 5438).
    Imdn,
    /// A file.
    File,
}

impl ContentClass {
    /// The kind, from Content-Type and Content-Disposition of the innermost content.
    ///
    /// A file is what its sender calls an attachment (RFC 2183 section 2.2), and what is neither
    /// text nor structured text: images, sound, archives. `text/html` is chat, and so are the
    /// `+xml` and `+json` types that clients have for places, votes and the like.
    #[must_use]
    pub fn of(content_type: &[u8], content_disposition: Option<&[u8]>) -> Self {
        let media_type = essence(content_type);
        let is = |name: &[u8]| media_type.eq_ignore_ascii_case(name);
        // The first is what RFC 3994 registers, the second what its drafts had.
        if is(b"application/im-iscomposing+xml") || is(b"application/im-iscomposing") {
            return Self::IsComposing;
        }
        if is(b"message/imdn+xml") {
            return Self::Imdn;
        }
        let disposition = content_disposition.map_or(&b""[..], essence);
        if disposition.eq_ignore_ascii_case(b"attachment") {
            return Self::File;
        }
        let starts = |with: &[u8]| starts_with(media_type, with);
        let ends = |with: &[u8]| {
            media_type
                .len()
                .checked_sub(with.len())
                .is_some_and(|start| media_type[start..].eq_ignore_ascii_case(with))
        };
        let is_text = starts(b"text/") || starts(b"message/") || starts(b"multipart/");
        let is_structured = starts(b"application/")
            && (ends(b"+xml") || ends(b"+json") || ends(b"/xml") || ends(b"/json"));
        if is_text || is_structured { Self::Chat } else { Self::File }
    }

    /// The kind of what a CPIM message wraps; content without a type is text (RFC 2045 section 5.2).
    #[must_use]
    pub fn of_wrapped(head: &Head<'_>) -> Self {
        Self::of(head.content_type.unwrap_or(b"text/plain"), head.content_disposition)
    }

    /// The same from the beginning of a message that is passed on unread: a look at the header lines
    /// that are there, whatever else they say.
    #[must_use]
    pub fn of_unread(message: &[u8]) -> Self {
        let (mut content_type, mut content_disposition) = (None, None);
        let mut rest = &message[..message.len().min(HEAD_BYTES_MAX)];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if let Some(value) = value_of(line, b"content-type:") {
                content_type = Some(value);
            } else if let Some(value) = value_of(line, b"content-disposition:") {
                content_disposition = Some(value);
            } else if content_type.is_some() && line == b"\r" {
                break;
            }
        }
        Self::of(content_type.unwrap_or(b"text/plain"), content_disposition)
    }

    /// The kind of a SEND whose body is not a container.
    #[must_use]
    pub fn of_bare(head: &msrp::Head<'_>) -> Self {
        Self::of(head.content_type.unwrap_or(b"text/plain"), head.header(b"Content-Disposition"))
    }
}

/// Whether a Content-Type is `message/cpim`.
#[must_use]
pub fn is_cpim(content_type: &[u8]) -> bool {
    // Nearly everybody writes it like that.
    content_type == b"message/cpim" || essence(content_type).eq_ignore_ascii_case(b"message/cpim")
}

/// Whether a list of accept-types (or accept-wrapped-types) has room for a Content-Type: by its
/// name, as `type/*`, or as `*` (RFC 4975 section 8.6). Parameters do not count.
#[must_use]
pub fn accepts(list: &[u8], content_type: &[u8]) -> bool {
    let media_type = essence(content_type);
    let entries = list.split(|&byte| byte == b' ').filter(|entry| !entry.is_empty());
    entries.map(essence).any(|entry| match entry.strip_suffix(b"*") {
        Some(b"") => true,
        Some(start) if start.ends_with(b"/") => starts_with(media_type, start),
        Some(_) | None => entry.eq_ignore_ascii_case(media_type),
    })
}

/// The value of a header line of that name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    starts_with(line, name).then(|| line[name.len()..].trim_ascii())
}

/// A value without its parameters.
fn essence(value: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value[..end].trim_ascii()
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
}
