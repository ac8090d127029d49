//! The MSRP interworking function of the media plane (TR 29.828 clause 3): between two parties that
//! each know the other by different URIs it changes To-Path and From-Path of the messages on their way,
//! and nothing else of them. So transactions, chunks and reports of one party are those of the other.

use super::head::{FailureReport, Method, Start};
use super::uri::{Path, Uri, UriError};
use super::{Framer, Head, Malformed, Paths, Piece};

/// One direction. Fed with what has been received, it says what leaves on the other side, message after
/// message and piece by piece as they come. What it did not consume the caller presents again, with more
/// behind it.
#[derive(Debug)]
pub struct Interworking {
    expected: PathPair,
    given: PathPair,
    framer: Framer,
    /// The head of the message that is coming in has been passed on.
    is_passing: bool,
}

/// One step through the stream.
#[derive(Debug)]
pub struct Step<'a> {
    /// What becomes of these bytes.
    pub passage: Passage<'a>,
    /// Bytes of the input it took.
    pub consumed: usize,
}

/// What becomes of a piece of a message.
#[derive(Debug)]
pub enum Passage<'a> {
    /// A message begins; this leaves in its place.
    Begins([&'a [u8]; 7]),
    /// It goes on, as it came.
    GoesOn(&'a [u8]),
    /// Nothing leaves.
    Nothing,
    /// Nothing leaves, and who sent the request is told so.
    Refused(Refusal<'a>),
}

/// A request for somebody else, or from somebody else: 481 (RFC 4975 section 7.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal<'a> {
    /// Transaction identifier of the request.
    pub transaction_id: &'a [u8],
    /// To-Path of the response.
    pub to: &'a [u8],
    /// Its From-Path.
    pub from: &'a [u8],
}

#[derive(Debug)]
struct PathPair {
    to: Box<[u8]>,
    from: Box<[u8]>,
}

/// As much of a path as a message names.
#[derive(Clone, Copy)]
enum Extent {
    Whole,
    First,
}

impl Interworking {
    /// Messages that have the `expected` paths get those that are `given` in their place.
    ///
    /// # Errors
    ///
    /// Where one of them is no list of MSRP URIs.
    pub fn new(expected: Paths<'_>, given: Paths<'_>) -> Result<Self, UriError> {
        for path in [expected.to, expected.from, given.to, given.from] {
            Path(path).iter().try_for_each(|uri| Uri::parse(uri).map(drop))?;
        }
        Ok(Self {
            expected: PathPair::new(expected),
            given: PathPair::new(given),
            framer: Framer::default(),
            is_passing: false,
        })
    }

    /// Changes the paths from here on, for somebody else who gets what leaves: of the message that is coming
    /// in nothing more does.
    pub fn go_on_as(&mut self, other: Self) {
        *self = Self { framer: std::mem::take(&mut self.framer), ..other };
    }

    /// Whether what has left so far is whole messages, so that one of ours may stand behind it.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        !self.is_passing
    }

    /// The next step; `Ok(None)`: nothing can be said before more bytes come.
    ///
    /// # Errors
    ///
    /// As [`Framer::next`]: nothing of the message leaves, and what comes of it later is dropped.
    pub fn next<'a>(&'a mut self, input: &'a [u8]) -> Result<Option<Step<'a>>, Malformed> {
        let usual = Paths { to: &self.expected.to, from: &self.expected.from };
        let mut piece = Piece::default();
        if !self.framer.read(input, Some(usual), &mut piece)? {
            return Ok(None);
        }
        let Piece { head, end, consumed, .. } = piece;
        let bytes = &input[..consumed];
        let was_passing = self.is_passing;
        let Some(head) = head else {
            self.is_passing &= end.is_none();
            let passage = if was_passing { Passage::GoesOn(bytes) } else { Passage::Nothing };
            return Ok(Some(Step { passage, consumed }));
        };
        let extents = self.extents(&head);
        self.is_passing = extents.is_some() && end.is_none();
        let passage = match extents {
            Some((to, from)) => Passage::Begins(self.given.place(&head, bytes, to, from)),
            None => refused(&head),
        };
        Ok(Some(Step { passage, consumed }))
    }

    /// How much of the two paths a message names; `None` where it names others.
    fn extents(&self, head: &Head<'_>) -> Option<(Extent, Extent)> {
        // RFC 4975 section 7.2: a response to a SEND goes one hop, to the first URI of the request's
        // From-Path, and comes from the first of its To-Path. Only those to other methods have them
        // all; where a path is one URI the response is taken for one to a SEND, as most are.
        let extents: &[Extent] = match head.start {
            Start::Response(..) => &[Extent::First, Extent::Whole],
            Start::Request(_) => &[Extent::Whole],
        };
        let named = |path, expected| {
            extents.iter().copied().find(|extent| is_same(path, extent.of(expected)))
        };
        Some((named(head.to_path, &self.expected.to)?, named(head.from_path, &self.expected.from)?))
    }
}

impl PathPair {
    fn new(paths: Paths<'_>) -> Self {
        Self { to: paths.to.into(), from: paths.from.into() }
    }

    /// A message whose head lies in front of `bytes`, with these paths in the place of its own.
    fn place<'a>(
        &'a self,
        head: &Head<'a>,
        bytes: &'a [u8],
        to: Extent,
        from: Extent,
    ) -> [&'a [u8]; 7] {
        const TO: &[u8] = b"To-Path: ";
        const FROM: &[u8] = b"\r\nFrom-Path: ";
        const END: &[u8] = b"\r\n";
        // The framer has read these three lines, so that they are there and as long as this.
        let start_line = memchr::memchr(b'\n', bytes).map_or(0, |end| end + 1);
        let old = TO.len() + head.to_path.0.len() + FROM.len() + head.from_path.0.len() + END.len();
        let (to, from) = (to.of(&self.to), from.of(&self.from));
        [&bytes[..start_line], TO, to, FROM, from, END, &bytes[start_line + old..]]
    }
}

impl Extent {
    fn of(self, path: &[u8]) -> &[u8] {
        match self {
            Self::Whole => path,
            Self::First => Path(path).first(),
        }
    }
}

/// Whether a path names the expected URIs, in this order (RFC 4975 section 6.1).
fn is_same(path: Path<'_>, expected: &[u8]) -> bool {
    let expected = Path(expected);
    // Nearly always to the letter.
    path == expected
        || path.count() == expected.count()
            && path.iter().zip(expected.iter()).all(|(one, other)| {
                match (Uri::parse(one), Uri::parse(other)) {
                    (Ok(one), Ok(other)) => one.same_as(&other),
                    (Err(_), _) | (_, Err(_)) => false,
                }
            })
}

//= RFC 4975 section 7.1.1: no response where Failure-Report is "no"; section 7.2: none to a REPORT.
fn refused<'a>(head: &Head<'a>) -> Passage<'a> {
    match (head.start, head.failure_report) {
        (Start::Response(..) | Start::Request(Method::Report), _) | (_, FailureReport::No) => {
            Passage::Nothing
        }
        (Start::Request(_), FailureReport::Yes | FailureReport::Partial) => {
            Passage::Refused(Refusal {
                transaction_id: head.transaction_id,
                to: head.from_path.first(),
                from: head.to_path.first(),
            })
        }
    }
}
