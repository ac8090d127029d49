//! What an offer leads to: the first one to a negotiation, later ones to a change of it.

use std::net::SocketAddr;

use mrfp_core::mp::{Direction, Setup};
use sdp_types::Time;

use super::admission::Refusal;
use super::config::{MrfcConfig, SecurityPolicy};
use crate::sdp::{
    AnswerDescription, AnswerMedia, KeyManagementLevel, MediaLine, MessageDescription, Offer,
    OfferedSetup, ServedMessage, Unservable,
};

/// An offer with one m-line chosen to be served.
#[derive(Clone, Debug)]
pub(super) struct Negotiation {
    pub(super) message: MessageDescription,
    /// We connect: decided with the first offer, for the life of the connection.
    active: bool,
    index: usize,
    lines: Vec<MediaLine>,
    times: Vec<Time>,
    message_bytes_max: Option<u64>,
}

/// What a session is to become.
#[derive(Debug)]
pub(super) struct Change {
    /// In force once the shard has agreed.
    pub(super) negotiation: Negotiation,
    /// Its answer.
    pub(super) description: AnswerDescription,
    pub(super) purpose: Purpose,
}

/// Who wants a session changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The party, and it waits for an answer.
    Reinvite,
    /// The operator wants the member (not) to be heard.
    Mute(bool),
}

/// What only we can say about our end.
pub(super) struct OwnEnd {
    pub(super) sdp_session_id: u64,
    pub(super) address: SocketAddr,
    pub(super) msrp_session_id: String,
    pub(super) transfer_response: Option<String>,
}

impl Negotiation {
    /// Reads the first offer of a call.
    ///
    /// An INVITE without one is refused: RFC 3261 section 13.2.1 would have us offer in the 200,
    /// and the answer would come in the ACK, which has no way to say no.
    pub(super) fn begin(offer: Option<&[u8]>, config: &MrfcConfig) -> Result<Self, Refusal> {
        let text = offer.ok_or_else(Refusal::offer_missing)?;
        let offer = Offer::parse(text).map_err(|error| Refusal::offer(error.warning()))?;
        let protection_required = config.security == SecurityPolicy::PskRequired;
        let index =
            offer.select(protection_required).map_err(|reason| Refusal::offer(reason.warning()))?;
        Self::of(offer, index, config).map_err(|reason| Refusal::offer(reason.warning()))
    }

    /// Reads a later offer of the same call. What the media plane cannot change in a living
    /// Termination is refused, and the session stays as it was (RFC 3261 section 14.2).
    pub(super) fn again(&self, offer: Option<&[u8]>, config: &MrfcConfig) -> Result<Self, Refusal> {
        let text = offer.ok_or_else(Refusal::offer_missing)?;
        let offer = Offer::parse(text).map_err(|error| Refusal::offer(error.warning()))?;
        // RFC 3264 section 8: m-lines keep their place and are never taken away.
        if offer.media.len() < self.lines.len() {
            return Err(Refusal::change("m-lines were removed"));
        }
        let next = Self::of(offer, self.index, config)
            .map_err(|reason| Refusal::offer(reason.warning()))?;
        self.check_change(&next)?;
        Ok(Self { active: self.active, ..next })
    }

    fn of(offer: Offer, index: usize, config: &MrfcConfig) -> Result<Self, Unservable> {
        let Offer { times, media } = offer;
        let message = media[index].message.clone()?;
        Ok(Self {
            active: message.setup == OfferedSetup::Passive,
            message: *message,
            index,
            lines: media.into_iter().map(|description| description.line).collect(),
            times,
            message_bytes_max: config.message_bytes_max,
        })
    }

    fn check_change(&self, next: &Self) -> Result<(), Refusal> {
        let (old, new) = (&self.message, &next.message);
        if old.secure != new.secure {
            return Err(Refusal::change("the transport cannot change"));
        }
        // A new TRANSFER_INIT asks for new keys, and so for a new connection (RFC 4567 section
        // 3.1.3); a refresh repeats the old one.
        if old.key_management != new.key_management {
            return Err(Refusal::change("keys cannot change"));
        }
        let unchanged_types = old.accept_types == new.accept_types
            && old.accept_wrapped_types == new.accept_wrapped_types
            && old.max_size_bytes == new.max_size_bytes;
        if !unchanged_types {
            return Err(Refusal::change("accepted types cannot change"));
        }
        let role_possible = match new.setup {
            OfferedSetup::Active => !self.active,
            OfferedSetup::Passive => self.active,
            OfferedSetup::ActPass => true,
        };
        // RFC 4145 section 4: the roles of a connection that stays are those it was made with.
        if !role_possible {
            return Err(Refusal::change("the setup role cannot change"));
        }
        if self.active && old.connect_to() != new.connect_to() {
            return Err(Refusal::change("the connection cannot move"));
        }
        Ok(())
    }

    /// Our role. We connect only where the offerer will not (RFC 6135 section 4.2.2 prefers
    /// passive for whoever is reachable).
    pub(super) fn setup(&self) -> Setup {
        if !self.active {
            return Setup::Passive;
        }
        let remote = self.message.connect_to();
        Setup::Active { remote: remote.expect("an offer without an address is not served") }
    }

    /// The answer.
    pub(super) fn answer(&self, own: OwnEnd) -> AnswerDescription {
        let mut media: Vec<AnswerMedia> =
            self.lines.iter().cloned().map(AnswerMedia::Refused).collect();
        media[self.index] = AnswerMedia::Served(self.served(own.msrp_session_id));
        let level = self.message.key_management.as_ref().map(|offered| offered.level);
        AnswerDescription {
            session_id: own.sdp_session_id,
            address: own.address,
            times: self.times.clone(),
            key_management: own
                .transfer_response
                .map(|message| (level.unwrap_or(KeyManagementLevel::Media), message)),
            media,
        }
    }

    /// The answer to a later offer: our end stays as `before` has it.
    pub(super) fn answer_again(&self, before: &AnswerDescription) -> AnswerDescription {
        let mut media: Vec<AnswerMedia> =
            self.lines.iter().cloned().map(AnswerMedia::Refused).collect();
        let AnswerMedia::Served(served) = &before.media[self.index] else {
            unreachable!("the chosen m-line is served");
        };
        media[self.index] = AnswerMedia::Served(self.served(served.session_id.clone()));
        AnswerDescription { times: self.times.clone(), media, ..before.clone() }
    }

    fn served(&self, session_id: String) -> ServedMessage {
        ServedMessage {
            secure: self.message.secure,
            session_id,
            active: self.active,
            offered_direction: self.message.direction,
            cema: self.message.answer_with_cema(),
            max_size_bytes: self.message_bytes_max,
        }
    }

    /// What the shard has to be told of the change to `next`, if anything.
    pub(super) fn difference(&self, next: &Self) -> Option<(Direction, Option<String>)> {
        let path_changed = self.message.path != next.message.path;
        let remote_path = path_changed.then(|| next.message.path.clone());
        let changed = path_changed || self.message.direction != next.message.direction;
        changed.then_some((next.message.direction, remote_path))
    }
}
