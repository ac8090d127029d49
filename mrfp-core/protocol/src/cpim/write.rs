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
    /// Content-Type of the content.
    pub content_type: &'a [u8],
}

impl Wrapper<'_> {
    /// Writes both header blocks, the content comes next; `None` where they do not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        writer.put(b"From: <")?;
        writer.put(self.from)?;
        writer.put(b">\r\nTo: <")?;
        writer.put(self.to)?;
        writer.put(b">\r\n")?;
        if let Some(date_time) = self.date_time {
            writer.put(b"DateTime: ")?;
            writer.put(date_time)?;
            writer.put(b"\r\n")?;
        }
        writer.put(self.extra_header_lines)?;
        writer.put(b"\r\nContent-Type: ")?;
        writer.put(self.content_type)?;
        writer.put(b"\r\n\r\n")?;
        Some(writer.len())
    }
}
