//! What arrives is compared with what was sent.

use super::{Contents, STAMP_BYTES, STAMP_MARK, Stamp, parse_hex};

/// A message on its way in: finds the stamp behind the CPIM and MIME heads and compares the
/// what follows it, fragment by fragment.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Body bytes seen.
    received: usize,
    /// The beginning of a body whose first fragment did not reach the end of the stamp.
    beginning: Vec<u8>,
    found: Option<Found>,
    corrupted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    stamp: Stamp,
    content_start: usize,
}

impl Inspection {
    /// A stamp lies within that many bytes of the body: our own heads are a few hundred.
    const BEGINNING_BYTES_MAX: usize = 4096;

    /// Body bytes seen.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        self.received
    }

    /// Looks at the next bytes of the body.
    pub fn feed(&mut self, fragment: &[u8], contents: &Contents) {
        let start = self.received;
        self.received += fragment.len();
        if let Some(found) = self.found {
            return self.compare(found.stamp, fragment, start - found.content_start, contents);
        }
        if self.beginning.is_empty() {
            self.look(fragment, contents);
        }
        if self.found.is_some() {
            return;
        }
        let room = Self::BEGINNING_BYTES_MAX - self.beginning.len();
        let (kept, rest) = fragment.split_at(fragment.len().min(room));
        self.beginning.extend_from_slice(kept);
        let beginning = std::mem::take(&mut self.beginning);
        self.look(&beginning, contents);
        match self.found {
            Some(found) => {
                self.compare(found.stamp, rest, beginning.len() - found.content_start, contents);
            }
            None => self.beginning = beginning,
        }
    }

    /// The message is over: what it was, or `None` where it is not one of ours as it was sent.
    #[must_use]
    pub fn finish(&self, contents: &Contents) -> Option<Stamp> {
        let found = self.found?;
        let whole = self.received == found.content_start + contents.length_of(found.stamp);
        (whole && !self.corrupted).then_some(found.stamp)
    }

    fn look(&mut self, beginning: &[u8], contents: &Contents) {
        let Some((stamp, content_start)) = find_stamp(beginning) else {
            return;
        };
        self.found = Some(Found { stamp, content_start });
        self.compare(stamp, &beginning[content_start..], 0, contents);
    }

    fn compare(&mut self, stamp: Stamp, fragment: &[u8], at: usize, contents: &Contents) {
        self.corrupted |= !contents.matches(stamp, at, fragment);
    }
}

/// The stamp in a CPIM body and where it ends.
fn find_stamp(body: &[u8]) -> Option<(Stamp, usize)> {
    let mime = memchr::memmem::find(body, b"\r\n\r\n")? + 4;
    let text = mime + memchr::memmem::find(&body[mime..], b"\r\n\r\n")? + 4;
    let stamp = body.get(text..text + STAMP_BYTES)?;
    if !stamp.starts_with(STAMP_MARK) {
        return None;
    }
    let stamp = Stamp {
        session: parse_hex(&stamp[9..17])? as u32,
        sequence: parse_hex(&stamp[18..26])? as u32,
        intended_ns: parse_hex(&stamp[27..43])?,
    };
    Some((stamp, text + STAMP_BYTES))
}
