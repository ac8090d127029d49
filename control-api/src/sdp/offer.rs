//! An SDP offer, read.

use sdp_types::{Attribute, ParserError, Session, Time};

use super::Warning;
use super::floor::FloorDescription;
use super::message::{Half, MessageDescription, OfferRules, Unservable};

/// An offer as far as it matters to this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// sess-version: whoever repeats it changes nothing (RFC 3264 section 8).
    pub version: u64,
    /// The t-lines; the answer repeats them (RFC 3264 section 6).
    pub times: Vec<Time>,
    /// One entry per m-line, in order; at least one.
    pub media: Vec<MediaDescription>,
}

/// One m-line of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaDescription {
    /// What the answer repeats of it.
    pub line: MediaLine,
    /// The MSRP session it describes, or why it gets port 0.
    pub message: Result<Box<MessageDescription>, Unservable>,
    /// The BFCP stream it describes, or why it gets port 0; `None` where it is about something else.
    pub floor: Option<Result<Box<FloorDescription>, Unservable>>,
}

/// The parts of an m-line that an answer repeats whether it serves it or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaLine {
    /// `message`, `audio`, …
    pub media: String,
    /// `TCP/MSRP`, `RTP/AVP`, …
    pub protocol: String,
    /// `*`, `0 8 101`, …
    pub format: String,
    /// `a=file-selector` and `a=file-transfer-id`, whatever they say (RFC 5547 section 8.3).
    pub file: Vec<Attribute>,
}

/// Why an offer cannot be read at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SdpError {
    /// Longer than [`SDP_SIZE_MAX`].
    TooLong,
    /// Not SDP; the line (counted from 1) where that shows, 0 where no line is to blame.
    Malformed {
        /// Which line.
        line: usize,
    },
    /// An m-line holds what is no printable ASCII.
    MediaLine,
    /// No m-line. A session without media is of no use to a conference.
    NoMedia,
    /// More than [`MEDIA_COUNT_MAX`] m-lines.
    TooManyMedia,
    /// An answer in which the message stream is absent or was refused.
    Refused(Unservable),
}

impl Offer {
    /// Reads an offer and judges its media. Lines may end in CRLF or LF, the last line in neither.
    ///
    /// # Errors
    /// The text is no session description, or exceeds a limit. Media that cannot be served are no
    /// error here: see [`Self::select`].
    pub fn parse(text: &[u8], rules: &OfferRules) -> Result<Self, SdpError> {
        let session = parse_session(text)?;
        let mut media = Vec::with_capacity(session.medias.len());
        for description in &session.medias {
            let line = MediaLine::parse(description).ok_or(SdpError::MediaLine)?;
            let message = MessageDescription::parse(&session, description, Half::Offer);
            let message = message.and_then(|message| {
                message.check_offer(rules)?;
                Ok(Box::new(message))
            });
            let floor = FloorDescription::is_one(description).then(|| {
                let floor = FloorDescription::parse(&session, description, Half::Offer)?;
                floor.check_offer(rules)?;
                Ok(Box::new(floor))
            });
            media.push(MediaDescription { line, message, floor });
        }
        let mut times = session.times;
        if times.is_empty() {
            times.push(Time::new(0, 0));
        }
        Ok(Self { version: session.origin.sess_version, times, media })
    }

    /// Index of the m-line to serve: the first conversation, else the first file.
    ///
    /// A conference switches one MSRP session per member: a second one would deliver everything
    /// twice (RFC 7701 section 5.2 joins a room with one session). So the others are refused, and
    /// whoever has several files to send sends each in a call of its own.
    ///
    /// # Errors
    /// None can be served; the reason of the first `message` line, else of the first line.
    pub fn select(&self) -> Result<usize, Unservable> {
        let served = |file: bool| {
            let is_such = |media: &MediaDescription| {
                media.message.as_ref().is_ok_and(|message| message.file.is_some() == file)
            };
            self.media.iter().position(is_such)
        };
        if let Some(index) = served(false).or_else(|| served(true)) {
            return Ok(index);
        }
        let is_message =
            |media: &&MediaDescription| media.line.media.eq_ignore_ascii_case("message");
        let blamed = self.media.iter().find(is_message).or(self.media.first());
        let reason = blamed.and_then(|media| media.message.as_ref().err());
        Err(reason.copied().unwrap_or(Unservable::Disabled))
    }

    /// Index of the BFCP stream to serve, where one can be: a member has one.
    #[must_use]
    pub fn select_floor(&self) -> Option<usize> {
        self.media.iter().position(|media| matches!(media.floor, Some(Ok(_))))
    }
}

impl SdpError {
    /// What a 488 says about it (RFC 3261 section 20.43).
    #[must_use]
    pub fn warning(self) -> Warning {
        let text = match self {
            Self::TooLong => "Session description too long".to_owned(),
            Self::Malformed { line } => format!("Session description malformed at line {line}"),
            Self::MediaLine => "Media line malformed".to_owned(),
            Self::NoMedia => return Unservable::Disabled.warning(),
            Self::TooManyMedia => "Too many media lines".to_owned(),
            Self::Refused(reason) => return reason.warning(),
        };
        (399, text)
    }
}

/// The lines taken apart, within limits, of a session with media.
pub(super) fn parse_session(text: &[u8]) -> Result<Session, SdpError> {
    let session = parse_text(text)?;
    if session.medias.is_empty() {
        return Err(SdpError::NoMedia);
    }
    Ok(session)
}

/// The lines taken apart, within limits.
pub(crate) fn parse_text(text: &[u8]) -> Result<Session, SdpError> {
    if text.len() > SDP_SIZE_MAX {
        return Err(SdpError::TooLong);
    }
    // Free text (s=, i=) may be in another charset (RFC 8866 section 6.10). It is of no interest
    // here, and whatever is of interest must be ASCII, which the replacement character is not.
    let text = String::from_utf8_lossy(text);
    // Before the parser, which would allocate for each of them.
    let media_count = text.lines().filter(|line| line.starts_with("m=")).count();
    if media_count > MEDIA_COUNT_MAX {
        return Err(SdpError::TooManyMedia);
    }
    Session::parse(text.as_bytes()).map_err(|error| SdpError::Malformed { line: line_of(&error) })
}

fn line_of(error: &ParserError) -> usize {
    match error {
        ParserError::InvalidLineFormat(line, _)
        | ParserError::InvalidFieldEncoding(line, _)
        | ParserError::InvalidFieldFormat(line, _)
        | ParserError::MissingField(line, _)
        | ParserError::FieldTrailingData(line, _)
        | ParserError::InvalidVersion(line, _)
        | ParserError::MultipleVersions(line)
        | ParserError::MultipleOrigins(line)
        | ParserError::MultipleSessionNames(line)
        | ParserError::MultipleSessionDescription(line)
        | ParserError::MultipleUris(line)
        | ParserError::MultipleConnections(line)
        | ParserError::MultipleTimeZones(line)
        | ParserError::MultipleMediaTitles(line)
        | ParserError::MultipleKeys(line)
        | ParserError::RepeatWithoutTime(line) => *line,
        // NoVersion, and what the crate deprecated or adds.
        _ => 0,
    }
}

/// Bytes of a session description: the most a SIP message over UDP could carry, and thirty times
/// what a UE sends.
pub const SDP_SIZE_MAX: usize = 64 * 1024;

/// m-lines of a session description. A telepresence UE offers about a dozen.
pub const MEDIA_COUNT_MAX: usize = 32;
