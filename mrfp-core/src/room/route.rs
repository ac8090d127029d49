//! Where a message goes. Decided once, where it begins, and the same for all of its chunks: what
//! comes later has no CPIM head to decide by (RFC 7701 section 6.1).

use mrfp_io::Key;
use mrfp_protocol::cpim::{self, ContentClass, Wrapper};
use mrfp_protocol::msrp;

use super::rendition::Form;
use super::{Participant, Room};
use crate::mp::CpimPolicy;

/// Header lines of a content that are kept of a message in progress: a Content-Type with its
/// parameters, and usually all there are.
const CONTENT_LINES_BYTES_MAX: usize = 160;
const CONTENT_TYPE: &[u8] = b"Content-Type: ";

/// For whom a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Audience {
    /// Everybody else in the Context.
    Everybody,
    /// Whoever is found under that URI.
    Address(Key),
}

/// What must be known of a message to pick its receivers and to count it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination {
    pub(crate) audience: Audience,
    pub(crate) class: ContentClass,
}

/// Where a message goes, and what must be known of its beginning to pass on the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) audience: Audience,
    pub(crate) class: ContentClass,
    /// Which of its URIs the sender has used.
    pub(super) name: u8,
    /// How its sender wrote it.
    pub(super) form: Form,
    /// Length of the wrapper: the sender's, or the one it is given. 0: it is never converted.
    pub(super) head_bytes: u16,
    pub(super) content: ContentLines,
    /// Its size as first announced.
    pub(crate) total: Option<u64>,
}

/// Header lines of a content, Content-Type last.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContentLines {
    bytes: [u8; CONTENT_LINES_BYTES_MAX],
    /// Where the value of Content-Type begins.
    media_type: u8,
    length: u8,
}

impl Route {
    /// Passes to everybody else as it comes.
    pub(crate) fn transparent(class: ContentClass) -> Self {
        Self {
            audience: Audience::Everybody,
            class,
            name: 0,
            form: Form::Bare,
            head_bytes: 0,
            content: ContentLines::EMPTY,
            total: None,
        }
    }

    /// As much of it as a message needs that is passed on whole, as it was sent.
    pub(crate) fn destination(&self) -> Destination {
        Destination { audience: self.audience, class: self.class }
    }

    /// Bytes at the beginning that have been checked, and are passed on once.
    pub(crate) fn checked_bytes(&self) -> u64 {
        match self.form {
            Form::Wrapped => u64::from(self.head_bytes),
            Form::Bare => 0,
        }
    }
}

impl Destination {
    /// Everybody else.
    pub(crate) fn everybody(class: ContentClass) -> Self {
        Self { audience: Audience::Everybody, class }
    }

    /// Whether a session that is found under its URI gets it. A disposition notification is not
    /// something anybody shows, so it needs no client that can show it as private.
    pub(crate) fn reaches(&self, private_messages: bool) -> bool {
        private_messages || self.class == ContentClass::Imdn
    }
}

/// What looks like chat in a session that was negotiated for a file is that file.
pub(crate) fn in_session(class: ContentClass, file_transfer: bool) -> ContentClass {
    if file_transfer && class == ContentClass::Chat { ContentClass::File } else { class }
}

impl Room {
    /// Where a message with this CPIM head of `head_bytes` bytes goes; otherwise the status to
    /// refuse it with (RFC 7701 sections 6.1 to 6.3).
    pub(super) fn route(
        &mut self,
        sender: Key,
        participant: &Participant,
        head: &cpim::Head<'_>,
        head_bytes: usize,
    ) -> Result<Route, u16> {
        let from = head.from.ok_or(403u16)?;
        let name = participant.name(from.uri, &mut self.normal).ok_or(403u16)?;
        let to = head.first_to.ok_or(404u16)?;
        if head.to_count > 1 {
            return Err(403);
        }
        let class = ContentClass::of_wrapped(head);
        // RFC 2045 section 5.2: content without a type is text.
        let content_type = head.content_type.unwrap_or(b"text/plain");
        if self.wrapped_types.as_ref().is_some_and(|types| !types.takes(class, content_type)) {
            return Err(415);
        }
        let mut route = Route {
            audience: Audience::Everybody,
            class,
            name: name.min(usize::from(u8::MAX)) as u8,
            form: Form::Wrapped,
            head_bytes: u16::try_from(head_bytes).map_err(|_| 400u16)?,
            content: ContentLines::new(content_type, content_lines(head.content_headers))
                .ok_or(415u16)?,
            total: None,
        };
        if !self.is_named(to.uri) {
            route.audience = Audience::Address(self.private(sender, &route, to.uri)?);
        }
        Ok(route)
    }

    /// Whose private message it is (RFC 7701 section 6.2).
    fn private(&mut self, sender: Key, route: &Route, to: &[u8]) -> Result<Key, u16> {
        let key = self.address(to).ok_or(404u16)?;
        let address = self.addresses.get(key).ok_or(404u16)?;
        let mut others = address.sessions.iter().filter(|found| found.session != sender).peekable();
        if others.peek().is_none() {
            return Err(404);
        }
        if !self.private_messages && !route.destination().reaches(false) {
            return Err(403);
        }
        match others.any(|found| route.destination().reaches(found.private_messages)) {
            true => Ok(key),
            false => Err(428),
        }
    }

    /// Where a message without a CPIM head goes: to everybody, or nowhere.
    pub(super) fn route_bare(
        &self,
        participant: &Participant,
        head: &msrp::Head<'_>,
    ) -> Result<Route, u16> {
        match self.cpim {
            //= RFC 7701 section 6.3: without a Message/CPIM wrapper it is rejected with 415.
            CpimPolicy::Required => return Err(415),
            CpimPolicy::Wrap => {}
        }
        let content_type = head.content_type.ok_or(415u16)?;
        let class = ContentClass::of_bare(head);
        if self.types.as_ref().is_some_and(|types| !types.takes(class, content_type)) {
            return Err(415);
        }
        let mut route = Route {
            form: Form::Bare,
            content: ContentLines::new(content_type, content_lines(head.header_lines))
                .ok_or(415u16)?,
            ..Route::transparent(class)
        };
        route.head_bytes = match self.wrapper(participant, &route) {
            Some(wrapper) => u16::try_from(wrapper.bytes_len()).map_err(|_| 413u16)?,
            None => 0,
        };
        Ok(route)
    }

    /// What goes in front of a message that has no wrapper; `None` where the room has no name to
    /// write into it.
    pub(super) fn wrapper<'a>(
        &'a self,
        participant: &'a Participant,
        route: &'a Route,
    ) -> Option<Wrapper<'a>> {
        Some(Wrapper {
            from: participant.uri(0),
            to: &self.uris.first()?.text,
            date_time: None,
            extra_header_lines: b"",
            content_header_lines: route.content.as_bytes(),
        })
    }

    /// RFC 7701 section 6.2: what a REPORT to the author of a private message is wrapped in. `None`
    /// for other messages, and where the addressee is not there any more.
    pub(crate) fn report_wrapper<'a>(
        &'a self,
        participant: &'a Participant,
        route: &Route,
    ) -> Option<Wrapper<'a>> {
        let Audience::Address(key) = route.audience else { return None };
        Some(Wrapper {
            from: participant.uri(usize::from(route.name)),
            to: &self.addresses.get(key)?.uri.text,
            date_time: None,
            extra_header_lines: b"",
            content_header_lines: b"",
        })
    }
}

impl ContentLines {
    const EMPTY: Self = Self { bytes: [0; CONTENT_LINES_BYTES_MAX], media_type: 0, length: 0 };

    /// Keeps all lines where they fit, otherwise the type, if need be without its parameters.
    fn new<'a>(
        content_type: &'a [u8],
        lines: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Option<Self> {
        let bare = content_type.split(|&byte| byte == b';').next().unwrap_or_default();
        let none: [&[u8]; 0] = [];
        Self::of(content_type, lines)
            .or_else(|| Self::of(content_type, none.into_iter()))
            .or_else(|| Self::of(bare.trim_ascii(), none.into_iter()))
    }

    fn of<'a>(content_type: &'a [u8], lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut kept = Self::EMPTY;
        for line in lines {
            kept.append(line)?;
        }
        kept.append(CONTENT_TYPE)?;
        kept.media_type = kept.length;
        kept.append(content_type)?;
        kept.append(b"\r\n")?;
        Some(kept)
    }

    fn append(&mut self, text: &[u8]) -> Option<()> {
        let start = usize::from(self.length);
        self.bytes.get_mut(start..start + text.len())?.copy_from_slice(text);
        self.length += text.len() as u8;
        Some(())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The value of Content-Type.
    pub(super) fn media_type(&self) -> &[u8] {
        self.as_bytes().get(usize::from(self.media_type)..).unwrap_or_default().trim_ascii_end()
    }
}

/// The lines that describe a content, but for its type.
fn content_lines(lines: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    lines
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| is_content_line(line) && !starts_with(line, b"content-type:"))
}

/// Whether a header line describes the content (RFC 2045 section 3).
pub(super) fn is_content_line(line: &[u8]) -> bool {
    starts_with(line, b"content-")
}

fn starts_with(line: &[u8], start: &[u8]) -> bool {
    line.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
}
