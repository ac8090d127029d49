//! A CPIM head for content that has none, or has another.

use crate::msrp::write::Writer;

/// What goes in front of the content. The values come from messages and URIs that were read, so
/// they hold no line ends.
#[derive(Clone, Copy, Debug)]
pub struct Wrapper<'a> {
    /// URI of the sender, without angle brackets.
    pub from: &'a [u8],
    /// URI of the recipient, without angle brackets.
    pub to: &'a [u8],
    /// When it was sent (RFC 3339).
    pub date_time: Option<&'a [u8]>,
    /// More message header lines, each complete with its CRLF; maybe none.
    pub extra_header_lines: &'a [u8],
    /// The content's own header lines likewise, Content-Type among them; none where there is no
    /// content.
    pub content_header_lines: &'a [u8],
}

impl<'a> Wrapper<'a> {
    /// Writes both header blocks, the content comes next; `None` where they do not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        self.parts().try_for_each(|part| writer.put(part))?;
        Some(writer.len())
    }

    /// Appends what [`write`](Self::write) writes.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.parts().for_each(|part| out.extend_from_slice(part));
    }

    /// The length of what [`write`](Self::write) writes.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    fn parts(&self) -> impl Iterator<Item = &'a [u8]> {
        let date_time: [&[u8]; 3] = match self.date_time {
            Some(date_time) => [b"DateTime: ", date_time, b"\r\n"],
            None => [b"", b"", b""],
        };
        let addresses: [&[u8]; 5] = [b"From: <", self.from, b">\r\nTo: <", self.to, b">\r\n"];
        let rest: [&[u8]; 4] =
            [self.extra_header_lines, b"\r\n", self.content_header_lines, b"\r\n"];
        addresses.into_iter().chain(date_time).chain(rest)
    }
}
