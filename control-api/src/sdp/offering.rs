//! Our side of an exchange that we begin: an offer for one MSRP session, and what the answer to it
//! leads to (RFC 3264, 4975, 6135, 6714).

use std::fmt;

use mrfp_core::mp::{Direction, Setup};
use sdp_types::Time;

use super::Warning;
use super::attributes::{KeyManagementLevel, OfferedSetup, reversed};
use super::cema::Anchoring;
use super::file::FileTransfer;
use super::floor::FloorDescription;
use super::local::{Capabilities, LocalDescription, LocalMedia, LocalMessage};
use super::local_floor::LocalFloor;
use super::message::{Half, MessageDescription, Unservable};
use super::offer::{SdpError, parse_session};

/// What an offer of ours is about.
#[derive(Clone, Debug)]
pub struct Offering {
    /// sess-id of the o-line, constant for the life of the call.
    pub sdp_session_id: u64,
    /// Where the shard listens for the peer.
    pub address: std::net::SocketAddr,
    /// Session-id part of our MSRP URI.
    pub msrp_session_id: String,
    /// What we take.
    pub capabilities: Capabilities,
    /// Direction as seen from our side.
    pub direction: Direction,
    /// `a=msrp-cema`, unless the operator has switched it off.
    pub cema: bool,
    /// The file to pass on.
    pub file: Option<FileTransfer>,
    /// The MIKEY message of `a=key-mgmt`, base64: the session is to be TCP/TLS/MSRP then.
    pub key_management: Option<String>,
    /// `a=label` of the session.
    pub label: Option<String>,
    /// A BFCP stream beside it, with a key of its own.
    pub floor: Option<Box<LocalFloor>>,
}

/// What an answer leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// The peer's end, its direction as seen from the peer.
    pub message: MessageDescription,
    /// Who connects, and where to.
    pub setup: Setup,
    /// The BFCP stream, or why there is none; `None` where none was offered.
    pub floor: Option<Result<Box<FloorDescription>, Unservable>>,
}

/// Why an answer leads to no session. RFC 3261 section 13.2.2.4: it is acknowledged, and then
/// a BYE follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerError {
    /// It is no session description, or its media line cannot be used.
    Sdp(SdpError),
    /// Port 0: the peer does not want the session.
    Declined,
    /// It has not exactly the m-lines that were offered (RFC 3264 section 6).
    MediaCount,
    /// It changed the transport.
    Transport,
    /// It has no MIKEY message in answer to ours.
    KeyManagement,
    /// Its direction does not fit the one offered (RFC 3264 section 6.1).
    Direction,
    /// Its path names our own URI.
    OwnUri,
    /// It takes no message that a conference has.
    AcceptTypes,
    /// It is about another file (RFC 5547 section 8.3).
    File,
    /// We are to connect to a domain name.
    DomainName,
    /// A middlebox that knows nothing of CEMA stands between (RFC 6714 section 4.2): the offer is to
    /// be made again, [`Offering::without_cema`].
    OfferAgain,
}

impl Offering {
    /// The description to send. We listen, so `a=setup:actpass` (RFC 6135 section 4.2.2).
    #[must_use]
    pub fn description(&self) -> LocalDescription {
        let message = LocalMessage {
            secure: self.key_management.is_some(),
            fingerprint: None,
            label: self.label.clone(),
            session_id: self.msrp_session_id.clone(),
            setup: OfferedSetup::ActPass,
            direction: self.direction,
            cema: self.cema,
            capabilities: self.capabilities.clone(),
            file: self.file.as_ref().map(FileTransfer::offer).unwrap_or_default(),
        };
        let mut media = vec![LocalMedia::Served(Box::new(message))];
        media.extend(self.floor.clone().map(LocalMedia::Floor));
        LocalDescription {
            session_id: self.sdp_session_id,
            address: self.address,
            times: vec![Time::new(0, 0)],
            // One message for each m-line it keys (RFC 4567 section 3.1).
            key_management: self
                .key_management
                .clone()
                .map(|message| (KeyManagementLevel::Media, message)),
            media,
        }
    }

    /// The same offer for a peer behind a middlebox that knows nothing of CEMA.
    #[must_use]
    pub fn without_cema(self) -> Self {
        Self { cema: false, ..self }
    }

    /// Reads and checks the answer.
    ///
    /// # Errors
    /// Says why there is no session, [`AnswerError::OfferAgain`] among it.
    pub fn answered(&self, text: &[u8]) -> Result<Answered, AnswerError> {
        self.answered_at(text, 0, 1 + usize::from(self.floor.is_some()))
    }

    /// The same for an offer in which the session is one of `count` m-lines.
    ///
    /// # Errors
    /// As [`Self::answered`].
    pub fn answered_at(
        &self,
        text: &[u8],
        index: usize,
        count: usize,
    ) -> Result<Answered, AnswerError> {
        let session = parse_session(text).map_err(AnswerError::Sdp)?;
        let media = session.medias.get(index).filter(|_| session.medias.len() == count);
        let media = media.ok_or(AnswerError::MediaCount)?;
        if media.port == 0 {
            return Err(AnswerError::Declined);
        }
        let message = MessageDescription::parse(&session, media, Half::Answer)
            .map_err(|reason| AnswerError::Sdp(SdpError::Refused(reason)))?;
        self.check(&message)?;
        let setup = self.setup(&message)?;
        let floor = self.floor.as_ref().map(|offered| {
            let media = session.medias.last().expect("it is the last m-line of the offer");
            let floor = FloorDescription::parse(&session, media, Half::Answer)?;
            floor.check_answer(offered.protocol)?;
            Ok(Box::new(floor))
        });
        Ok(Answered { message, setup, floor })
    }

    fn check(&self, message: &MessageDescription) -> Result<(), AnswerError> {
        if message.secure != self.key_management.is_some() {
            return Err(AnswerError::Transport);
        }
        let answers_key = message.key_management.as_ref().is_some_and(|it| it.mikey().is_some());
        if self.key_management.is_some() && !answers_key {
            return Err(AnswerError::KeyManagement);
        }
        if !answers(self.direction, message.direction) {
            return Err(AnswerError::Direction);
        }
        let is_own = |host: std::net::SocketAddr, id: &str| {
            host == self.address && id == self.msrp_session_id
        };
        // RFC 4975 section 8.2: each side chooses a URI of its own.
        let uris = message.uris.iter();
        if uris
            .filter_map(|uri| Some((uri.address()?, &uri.session_id)))
            .any(|(a, id)| is_own(a, id))
        {
            return Err(AnswerError::OwnUri);
        }
        match (&self.file, &message.file) {
            (Some(offered), Some(answered)) => {
                let same = offered.transfer_id == answered.transfer_id
                    && offered.range == answered.range
                    && offered.selector.agrees(&answered.selector);
                if !same {
                    return Err(AnswerError::File);
                }
            }
            // A peer that knows nothing of RFC 5547 answers without, and gets the file as a message.
            (Some(_), None) => (),
            (None, Some(_)) => return Err(AnswerError::File),
            (None, None) if !message.takes_conference_messages() => {
                return Err(AnswerError::AcceptTypes);
            }
            (None, None) => (),
        }
        Ok(())
    }

    fn setup(&self, message: &MessageDescription) -> Result<Setup, AnswerError> {
        let anchoring = message.anchoring(self.cema);
        if anchoring == Anchoring::OfferAgain {
            return Err(AnswerError::OfferAgain);
        }
        if message.setup == OfferedSetup::Active {
            return Ok(Setup::Passive);
        }
        let remote = message.connect_to(anchoring == Anchoring::ConnectionLine);
        remote.map(|remote| Setup::Active { remote }).ok_or(AnswerError::DomainName)
    }
}

impl AnswerError {
    /// What the BYE's Reason says about it.
    #[must_use]
    pub fn warning(self) -> Warning {
        let text = match self {
            Self::Sdp(error) => return error.warning(),
            Self::Declined => return Unservable::Disabled.warning(),
            Self::MediaCount => "The answer has other media lines than the offer",
            Self::Transport => return Unservable::TransportProtocol.warning(),
            Self::KeyManagement => return Unservable::KeyManagementMissing.warning(),
            Self::Direction => "The direction answered was not offered",
            Self::OwnUri => "The answer names the offerer's own URI",
            Self::AcceptTypes => return Unservable::AcceptTypes.warning(),
            Self::File => "The answer is about another file",
            Self::DomainName => return Unservable::DomainName.warning(),
            Self::OfferAgain => return Unservable::AddressMismatch.warning(),
        };
        (399, text.to_owned())
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.warning().1)
    }
}

impl std::error::Error for AnswerError {}

/// RFC 3264 section 6.1: an answer may restrict what was offered, never widen it.
fn answers(offered: Direction, answered: Direction) -> bool {
    match offered {
        Direction::SendRecv => true,
        Direction::SendOnly | Direction::RecvOnly => {
            answered == reversed(offered) || answered == Direction::Inactive
        }
        Direction::Inactive => answered == Direction::Inactive,
    }
}
