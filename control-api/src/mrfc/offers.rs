//! What an offer leads to: the first one to a negotiation, later ones to a change of it.

use std::net::SocketAddr;

use mrfp_core::mp::{self, CpimPolicy, Direction, Remote, Setup};
use sdp_types::Time;

use super::ResolveId;
use super::admission::Refusal;
use super::config::{ChatPolicy, MrfcConfig};
use super::floor_session::FloorChange;
use super::keying::Asked;
use super::rekeying::Update;
use crate::sdp::{
    Answered, Capabilities, Chatroom, FileTransfer, Fingerprint, FloorDescription,
    KeyManagementLevel, LocalDescription, LocalMedia, LocalMessage, MediaLine, MessageDescription,
    Offer, OfferedSetup, Offering, Unservable, reversed,
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
    /// Our answer has `a=msrp-cema`.
    cema: bool,
    /// Of our certificate, where it protects the session.
    fingerprint: Option<Fingerprint>,
    /// What we say of ourselves.
    capabilities: Capabilities,
    /// The key is that of a TRANSFER_INIT of ours.
    keyed_by_us: bool,
    /// sess-version of the peer's last offer, if it has made one.
    version: Option<u64>,
    /// The BFCP stream it has, and where, should the room have floors; for whoever takes it.
    pub(super) floor: Option<(usize, Box<FloorDescription>)>,
}

/// What a session is to become.
#[derive(Debug)]
pub(super) struct Change {
    /// In force once the shard has agreed.
    pub(super) negotiation: Negotiation,
    /// Its answer.
    pub(super) description: LocalDescription,
    pub(super) purpose: Purpose,
    /// A new session is to carry it.
    pub(super) replacement: Option<Replacement>,
    /// It is to go on with a new key.
    pub(super) update: Option<Box<Update>>,
    /// What is to become of the BFCP stream.
    pub(super) floor: Option<FloorChange>,
    /// What the KMS is asked before all that.
    pub(super) asked: Option<(ResolveId, Asked)>,
}

impl Change {
    /// A change of a session that goes on with its key, or is only told something.
    pub(super) fn to(
        negotiation: Negotiation,
        description: LocalDescription,
        purpose: Purpose,
    ) -> Self {
        Self {
            negotiation,
            description,
            purpose,
            replacement: None,
            update: None,
            floor: None,
            asked: None,
        }
    }
}

/// How far a new session is that takes the place of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Replacement {
    /// The shard is asked for it, under this session-id.
    Asked(String),
    /// The old session is no more.
    Done,
}

/// Who wants a session changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The party, and it waits for an answer.
    Reinvite,
    /// The operator wants the member (not) to be heard.
    Mute(bool),
    /// The answer to an offer of ours has come.
    Answer,
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
    pub(super) fn begin(
        offer: Option<&[u8]>,
        config: &MrfcConfig,
        room: &str,
    ) -> Result<Self, Refusal> {
        let text = offer.ok_or_else(Refusal::offer_missing)?;
        let offer = Offer::parse(text, &config.offer_rules(room));
        let offer = offer.map_err(|error| Refusal::offer(error.warning()))?;
        let index = offer.select().map_err(|reason| Refusal::offer(reason.warning()))?;
        Self::of(offer, index, config, room).map_err(|reason| Refusal::offer(reason.warning()))
    }

    /// Reads a later offer of the same call. What the media plane cannot change in a living
    /// Termination is refused, and the session stays as it was (RFC 3261 section 14.2).
    pub(super) fn again(
        &self,
        offer: Option<&[u8]>,
        config: &MrfcConfig,
        room: &str,
    ) -> Result<Self, Refusal> {
        let text = offer.ok_or_else(Refusal::offer_missing)?;
        let mut rules = config.offer_rules(room);
        // A key of our making stays while nobody offers another.
        rules.certificate |= self.keyed_by_us;
        let offer = Offer::parse(text, &rules);
        let offer = offer.map_err(|error| Refusal::offer(error.warning()))?;
        // RFC 3264 section 8: m-lines keep their place and are never taken away.
        if offer.media.len() < self.lines.len() {
            return Err(Refusal::change("m-lines were removed"));
        }
        let mut next = Self::of(offer, self.index, config, room)
            .map_err(|reason| Refusal::offer(reason.warning()))?;
        if self.keyed_by_us && next.message.key_management.is_none() {
            next.message.key_management = self.message.key_management.clone();
            next.fingerprint = None;
        }
        next.keyed_by_us = self.keyed_by_us;
        if self.is_replaced_by(&next) {
            self.check_replacement(&next)?;
            return Ok(next);
        }
        if self.is_rekeyed_by(&next) {
            // A key of its own wants a connection of its own (TS 23.333 clause 5.20.2), and so do
            // roles and addresses. From here on it is the peer's key.
            self.check_stream(&next)?;
            return Ok(Self { keyed_by_us: false, ..next });
        }
        self.check_change(&next)?;
        Ok(Self { active: self.active, ..next })
    }

    fn of(offer: Offer, index: usize, config: &MrfcConfig, room: &str) -> Result<Self, Unservable> {
        let chat = config.rooms.chat(room);
        let floor = chat.floors.as_ref().and_then(|_| offer.select_floor());
        let floor = floor.and_then(|index| Some((index, offer.media[index].floor.clone()?.ok()?)));
        let Offer { version, times, media } = offer;
        let message = media[index].message.clone()?;
        Ok(Self {
            active: message.setup == OfferedSetup::Passive,
            cema: config.cema && message.answer_with_cema(),
            fingerprint: (message.secure && message.key_management.is_none())
                .then(|| config.certificate.clone())
                .flatten(),
            capabilities: chat.capabilities_towards(&message),
            keyed_by_us: false,
            version: Some(version),
            floor,
            message: *message,
            index,
            lines: media.into_iter().map(|description| description.line).collect(),
            times,
        })
    }

    /// An offer of ours that was answered.
    pub(super) fn answered(offering: &Offering, answered: Answered) -> Self {
        let Answered { message, setup, .. } = answered;
        Self {
            active: setup != Setup::Passive,
            cema: offering.cema,
            fingerprint: None,
            capabilities: offering.capabilities.clone(),
            lines: std::iter::once(MediaLine::message(message.secure))
                .chain(offering.floor.as_ref().map(|floor| MediaLine::floor(floor.protocol)))
                .collect(),
            keyed_by_us: offering.key_management.is_some(),
            version: None,
            floor: None,
            message,
            index: 0,
            times: vec![Time::new(0, 0)],
        }
    }

    /// Another path of the peer is another session on another connection (RFC 4975 sections 5.4
    /// and 8.4): whatever has it is not who is bound to the old one.
    pub(super) fn is_replaced_by(&self, next: &Self) -> bool {
        self.message.path != next.message.path
    }

    /// Another MIKEY message asks for another key (RFC 4567 section 3.1.3); a refresh repeats the one that
    /// was there.
    pub(super) fn is_rekeyed_by(&self, next: &Self) -> bool {
        self.message.key_management != next.message.key_management
            && self.message.key_management.is_some()
            && next.message.key_management.is_some()
    }

    /// The offer is the last one over again (RFC 3264 section 8).
    pub(super) fn is_repeated_by(&self, next: &Self) -> bool {
        self.version.is_some() && self.version == next.version
    }

    /// The same with the peer's end as it has answered an offer of a new key. The key stays what the
    /// peer has offered, if it has: that is what it repeats.
    pub(super) fn reanswered(&self, answered: Answered) -> Self {
        let Answered { mut message, setup, .. } = answered;
        message.key_management = self.message.key_management.clone();
        Self { active: setup != Setup::Passive, message, ..self.clone() }
    }

    /// Our end of the m-line that is served.
    pub(super) fn served_in<'a>(&self, description: &'a LocalDescription) -> &'a LocalMessage {
        let LocalMedia::Served(served) = &description.media[self.index] else {
            unreachable!("the chosen m-line is served");
        };
        served
    }

    /// Which m-line is served, and of how many.
    pub(super) fn place(&self) -> (usize, usize) {
        (self.index, self.lines.len())
    }

    /// What a new session in the place of this one may not differ in: its connection is a new one,
    /// so that roles, addresses and certificates are negotiated anew.
    fn check_replacement(&self, next: &Self) -> Result<(), Refusal> {
        // A new connection needs a new key, as the old one is wiped with its session.
        if next.message.key_management.is_some() {
            return Err(Refusal::change("keys cannot change"));
        }
        self.check_stream(next)
    }

    fn check_change(&self, next: &Self) -> Result<(), Refusal> {
        let (old, new) = (&self.message, &next.message);
        if old.fingerprints != new.fingerprints {
            return Err(Refusal::change("the certificate cannot change"));
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
        if self.active && old.connect_to(self.cema) != new.connect_to(next.cema) {
            return Err(Refusal::change("the connection cannot move"));
        }
        self.check_stream(next)
    }

    /// What stays for the life of a call.
    fn check_stream(&self, next: &Self) -> Result<(), Refusal> {
        let (old, new) = (&self.message, &next.message);
        if old.secure != new.secure || old.key_management.is_some() != new.key_management.is_some()
        {
            return Err(Refusal::change("the transport cannot change"));
        }
        match (&old.file, &new.file) {
            (Some(before), Some(after)) if before.contradicts(after) => {
                return Err(Refusal::change("another file under the same file-transfer-id"));
            }
            (Some(_), None) | (None, Some(_)) => {
                return Err(Refusal::change("a conversation is not a file transfer"));
            }
            (Some(_), Some(_)) | (None, None) => (),
        }
        Ok(())
    }

    /// Our role. We connect only where the offerer will not (RFC 6135 section 4.2.2 prefers
    /// passive for whoever is reachable).
    pub(super) fn setup(&self) -> Setup {
        if !self.active {
            return Setup::Passive;
        }
        let remote = self.message.connect_to(self.cema);
        Setup::Active { remote: remote.expect("an offer without an address is not served") }
    }

    /// The answer.
    pub(super) fn answer(&self, own: OwnEnd) -> LocalDescription {
        let mut media: Vec<LocalMedia> =
            self.lines.iter().cloned().map(LocalMedia::Refused).collect();
        media[self.index] = self.served(own.msrp_session_id);
        let level = self.message.key_management.as_ref().map(|offered| offered.level);
        LocalDescription {
            session_id: own.sdp_session_id,
            address: own.address,
            times: self.times.clone(),
            key_management: own
                .transfer_response
                .map(|message| (level.unwrap_or(KeyManagementLevel::Media), message)),
            media,
        }
    }

    /// The answer to a later offer: our end stays as `before` has it, except that a new session has
    /// a name of its own.
    pub(super) fn answer_again(
        &self,
        before: &LocalDescription,
        session_id: Option<&str>,
    ) -> LocalDescription {
        let mut media: Vec<LocalMedia> =
            self.lines.iter().cloned().map(LocalMedia::Refused).collect();
        let served = self.served_in(before);
        media[self.index] = self.served(session_id.unwrap_or(&served.session_id).to_owned());
        LocalDescription {
            times: self.times.clone(),
            media,
            // TRANSFER_RESP answers an offer; our TRANSFER_INIT was one.
            key_management: before.key_management.clone().filter(|_| !self.keyed_by_us),
            ..before.clone()
        }
    }

    fn served(&self, session_id: String) -> LocalMedia {
        let setup = if self.active { OfferedSetup::Active } else { OfferedSetup::Passive };
        LocalMedia::Served(Box::new(LocalMessage {
            secure: self.message.secure,
            label: None,
            session_id,
            setup,
            direction: reversed(self.message.direction),
            cema: self.cema,
            fingerprint: self.fingerprint.clone(),
            capabilities: self.capabilities.clone(),
            file: self.message.file.as_ref().map(FileTransfer::answer).unwrap_or_default(),
        }))
    }

    /// What the shard has to be told of the change to `next`, if anything.
    pub(super) fn difference(&self, next: &Self) -> Option<(Direction, Option<Remote>)> {
        let (old, new) = (&self.message, &next.message);
        let capabilities = Some(taken_by(new)).filter(|taken| *taken != taken_by(old));
        let changed = capabilities.is_some() || old.direction != new.direction;
        let path = new.path.clone();
        let remote = capabilities.map(|taken| Remote {
            path,
            setup: self.setup(),
            capabilities: Some(taken),
        });
        changed.then_some((new.direction, remote))
    }

    /// The peer's end of a session that begins with this.
    pub(super) fn remote(&self) -> Remote {
        Remote {
            path: self.message.path.clone(),
            setup: self.setup(),
            capabilities: Some(taken_by(&self.message)),
        }
    }

    /// How a stream without key management is protected.
    pub(super) fn unkeyed_security(&self) -> mp::Security {
        if self.message.secure {
            let fingerprints = self.message.fingerprints.clone();
            mp::Security::TlsCertificate { fingerprints }
        } else {
            mp::Security::Plain
        }
    }
}

/// What the author of an offer takes, in the terms of the shard.
fn taken_by(message: &MessageDescription) -> mp::Capabilities {
    mp::Capabilities {
        accept_types: message.accept_types.clone(),
        accept_wrapped_types: message.accept_wrapped_types.clone(),
        max_size_bytes: message.max_size_bytes,
        private_messages: message.private_messages(),
    }
}

impl ChatPolicy {
    /// What we say of ourselves to the author of an offer.
    fn capabilities_towards(&self, message: &MessageDescription) -> Capabilities {
        let mut capabilities = self.capabilities();
        // RFC 7701 section 5.2: the one value message/cpim. A client that does not know it gets
        // the room without its wrappers, and must be told that it may send so, too.
        if !message.lists_cpim() {
            capabilities.accept_types.clone_from(&self.accept_types);
        }
        // RFC 5547 section 8.7: the session of a file carries that file, and no conversation.
        if message.file.is_some() {
            capabilities.chatroom = None;
        }
        capabilities
    }

    /// What an offer of ours says. Where bare messages are taken it says so after message/cpim,
    /// as the peer's client is not known yet.
    #[must_use]
    pub fn capabilities_offered(&self) -> Capabilities {
        let mut capabilities = self.capabilities();
        if self.cpim == CpimPolicy::Wrap {
            capabilities.accept_types = format!("{CPIM} {}", self.accept_types);
        }
        capabilities
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            accept_types: CPIM.to_owned(),
            accept_wrapped_types: self.accept_wrapped_types.clone(),
            max_size_bytes: self.message_bytes_max,
            chatroom: Some(Chatroom {
                nicknames: self.nicknames,
                private_messages: self.private_messages,
            }),
        }
    }
}

/// RFC 3862.
const CPIM: &str = "message/cpim";
