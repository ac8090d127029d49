//! What the operator decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::dialling::DialPolicies;
use super::realms::Realms;
use crate::sdp::{Fingerprint, FloorMedia, OfferRules};
use mrfp_core::floor::{ConferencePolicy, FloorPolicy};
use mrfp_core::mp::{ChatRoomPolicy, CpimPolicy, Floor, FloorControl, ShardId, Switching};

/// Configuration of an MRFC.
#[derive(Clone, Debug)]
pub struct MrfcConfig {
    /// The shards to spread rooms over.
    pub shards: Vec<ShardDescription>,
    /// Which rooms there are.
    pub rooms: RoomPolicy,
    /// Calls of the node at a time; the next gets 503 with Retry-After.
    pub calls_max: usize,
    /// Calls of one caller URI at a time; the next gets 403.
    pub user_calls_max: usize,
    /// Which transports are admitted.
    pub security: SecurityPolicy,
    /// Hosts of called URIs that are ours, in lower case; others get 404 (RFC 3261 section
    /// 21.4.5). Empty: all are.
    pub domains: BTreeSet<String>,
    /// Take part in connection establishment for media anchoring (RFC 6714).
    pub cema: bool,
    /// The certificate of the shards, if they have one: TCP/TLS/MSRP is served without key
    /// management, too.
    pub certificate: Option<Fingerprint>,
    /// Networks whose traffic is counted on its own.
    pub realms: Realms,
    /// How long a member whose connection was lost may take to re-create its session (RFC 4975
    /// section 5.4); zero: its call ends at once.
    pub recovery: Duration,
    /// What the conference focus does besides taking calls.
    pub focus: FocusConfig,
}

/// What the conference focus does besides taking calls (RFC 4579).
#[derive(Clone, Debug)]
pub struct FocusConfig {
    /// User part of the factory URI: a call to it makes a new room. `None`: there is none.
    pub factory: Option<String>,
    /// Hosts, with port, of our Contacts.
    pub contact_hosts: Vec<String>,
    /// Rooms at a time; a call that would make another gets 503 with Retry-After.
    pub rooms_max: usize,
    /// Who may subscribe to a conference.
    pub subscribers: SubscriptionPolicy,
    /// Who may have the focus call others and throw them out.
    pub referrers: ReferPolicy,
    /// Calls of the focus that may be unanswered at a time; a further REFER gets 503.
    pub dials_max: usize,
    /// How the calls of the focus are protected.
    pub dialling: DialPolicies,
    /// Normalised URIs of users that may do in every room what its members may do.
    pub operators: BTreeSet<String>,
    /// Subscriptions of the node at a time; the next gets 503 with Retry-After.
    pub subscriptions_max: usize,
    /// Subscriptions to one room at a time; the next gets 480.
    pub room_subscriptions_max: usize,
    /// The shortest subscription taken; a shorter one gets 423 (RFC 6665 section 4.2.1.1).
    pub subscription_expires_min: Duration,
    /// The longest subscription; a longer one is shortened to it.
    pub subscription_expires_max: Duration,
    /// A subscriber is told of changes this often at most.
    pub notify_interval: Duration,
    /// How long a session has a key of MIKEY before it gets another; zero: for as long as it lasts.
    pub rekeying_interval: Duration,
}

/// Who may subscribe to a conference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubscriptionPolicy {
    /// Whoever is in it (RFC 4575 section 3.5 recommends that much), and the operators.
    Members,
    /// Everybody.
    Anyone,
}

/// Who may have the focus call others and throw them out (RFC 4579 section 5.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReferPolicy {
    /// Whoever is in the conference, and the operators.
    Members,
    /// Operators only.
    Operators,
}

impl Default for FocusConfig {
    fn default() -> Self {
        Self {
            factory: None,
            contact_hosts: Vec::new(),
            rooms_max: 10_000,
            subscribers: SubscriptionPolicy::Members,
            referrers: ReferPolicy::Members,
            dials_max: 1_000,
            dialling: DialPolicies::default(),
            operators: BTreeSet::new(),
            // Some 200 bytes each here and a dialog of some 2 KB in front.
            subscriptions_max: 100_000,
            // Every member of the largest room, twice.
            room_subscriptions_max: 4_096,
            subscription_expires_min: Duration::from_secs(60),
            subscription_expires_max: Duration::from_secs(24 * 3600),
            // RFC 4575 section 3.9 recommends 5 s; a chat room's roster wants to be livelier, and
            // a subscriber that does not answer is not sent more meanwhile.
            notify_interval: Duration::from_millis(500),
            rekeying_interval: Duration::ZERO,
        }
    }
}

/// One shard as the MRFC knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardDescription {
    /// Its name.
    pub id: ShardId,
    /// The address peers reach it at; its IP stands in where the shard reports an unspecified one.
    pub address: SocketAddr,
}

/// Which rooms there are.
#[derive(Clone, Debug, Default)]
pub struct RoomPolicy {
    /// Any valid name makes a room.
    pub open: bool,
    /// Rooms that exist for whoever calls them.
    pub names: BTreeSet<String>,
    /// What goes in a room.
    pub chat: ChatPolicy,
    /// What goes in rooms that differ from it.
    pub exceptions: BTreeMap<String, ChatPolicy>,
}

/// What goes in one room (RFC 7701 section 4.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatPolicy {
    /// Members at a time; the next gets 486.
    pub members_max: usize,
    /// Members may take a nickname.
    pub nicknames: bool,
    /// Nicknames nobody may take.
    pub nicknames_reserved: Vec<String>,
    /// Members may write to one another.
    pub private_messages: bool,
    /// What becomes of a message without a CPIM wrapper, and of a caller who knows none.
    pub cpim: CpimPolicy,
    /// What such a caller may send (`a=accept-types`), one space between entries.
    pub accept_types: String,
    /// What may be in a wrapper (`a=accept-wrapped-types`), one space between entries.
    pub accept_wrapped_types: String,
    /// Largest message (`a=max-size`); `None` names no limit.
    pub message_bytes_max: Option<u64>,
    /// Its floors, where it has any.
    pub floors: Option<FloorsPolicy>,
}

/// The floors of one room (RFC 8856).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorsPolicy {
    /// What holds for the conference.
    pub conference: ConferencePolicy,
    /// Its floors: at least one, at most [`FLOORS_PER_CONFERENCE_MAX`]; none with the number or the label
    /// of another, and at most one that is for the messages.
    ///
    /// [`FLOORS_PER_CONFERENCE_MAX`]: mrfp_core::floor::FLOORS_PER_CONFERENCE_MAX
    pub floors: Vec<RoomFloor>,
    /// Only who holds the floor that is for the messages may send them; from the start, as the
    /// operator may change it.
    pub moderated: bool,
}

/// A floor and what it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomFloor {
    /// `a=floorid`.
    pub floor_id: u16,
    /// `a=label` of the media it is for, which is a token (RFC 4574).
    pub label: String,
    /// By which rules it is given.
    pub policy: FloorPolicy,
    /// It is for the messages of the room; else for media that somebody else mixes, who is told of every
    /// change.
    pub governs_messages: bool,
}

impl FloorsPolicy {
    /// The floors as a shard is told of them.
    #[must_use]
    pub fn control(&self, conference_id: u32) -> FloorControl {
        let floor = |floor: &RoomFloor| Floor {
            floor_id: floor.floor_id,
            policy: floor.policy.clone(),
            governs_messages: floor.governs_messages,
            reported: !floor.governs_messages,
        };
        FloorControl {
            conference_id,
            policy: self.conference.clone(),
            floors: self.floors.iter().map(floor).collect(),
            moderated: self.moderated,
        }
    }

    /// The floors as a description tells of them.
    pub(super) fn media(&self) -> Vec<FloorMedia> {
        let media = |floor: &RoomFloor| FloorMedia {
            floor_id: floor.floor_id,
            labels: vec![floor.label.clone()],
        };
        self.floors.iter().map(media).collect()
    }

    /// `a=label` of the message stream.
    pub(super) fn message_label(&self) -> Option<&str> {
        let floor = self.floors.iter().find(|floor| floor.governs_messages)?;
        Some(&floor.label)
    }
}

impl MrfcConfig {
    /// What an offer has to be like to be answered in this room.
    #[must_use]
    pub fn offer_rules(&self, room: &str) -> OfferRules {
        let policy = self.rooms.chat(room);
        OfferRules {
            protection_required: self.security == SecurityPolicy::TlsRequired,
            certificate: self.certificate.is_some(),
            cpim_required: policy.cpim == CpimPolicy::Required,
            cema: self.cema,
            message_bytes_max: policy.message_bytes_max,
        }
    }
}

impl ChatPolicy {
    /// How the Context of such a room switches; `uris` are those its members call it by, `floors` what it
    /// has of them.
    #[must_use]
    pub fn switching(&self, uris: Vec<String>, floors: Option<FloorControl>) -> Switching {
        Switching::ChatRoom(Box::new(ChatRoomPolicy {
            uris,
            nicknames: self.nicknames,
            nicknames_reserved: self.nicknames_reserved.clone(),
            private_messages: self.private_messages,
            cpim: self.cpim,
            accept_types: self.accept_types.clone(),
            accept_wrapped_types: self.accept_wrapped_types.clone(),
            message_bytes_max: self.message_bytes_max,
            floors: floors.map(Box::new),
        }))
    }
}

impl Default for ChatPolicy {
    /// Everything is allowed, and nobody is kept out.
    fn default() -> Self {
        Self {
            members_max: 2048,
            nicknames: true,
            nicknames_reserved: Vec::new(),
            private_messages: true,
            cpim: CpimPolicy::Wrap,
            accept_types: "text/plain *".to_owned(),
            accept_wrapped_types: "*".to_owned(),
            message_bytes_max: None,
            floors: None,
        }
    }
}

/// Which transports are admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecurityPolicy {
    /// TCP/MSRP as well as TCP/TLS/MSRP.
    PlainAllowed,
    /// TCP/TLS/MSRP only.
    TlsRequired,
}

impl RoomPolicy {
    /// A caller may enter a room of this name.
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        let valid = !name.is_empty()
            && name.len() <= ROOM_NAME_SIZE_MAX
            && !name.chars().any(char::is_control);
        valid && (self.open || self.names.contains(name))
    }

    /// What goes in the room of this name.
    #[must_use]
    pub fn chat(&self, name: &str) -> &ChatPolicy {
        self.exceptions.get(name).unwrap_or(&self.chat)
    }
}

/// Bytes of a room's name; it is kept once per member and shown to operators.
pub const ROOM_NAME_SIZE_MAX: usize = 128;

/// How long the KMS may take. The caller's UE is ringing meanwhile and holds its INVITE
/// transaction for 32 s (RFC 3261 timer B).
pub const KMS_TIMEOUT_NS: u64 = 5_000_000_000;

/// How long a shard may take over ReserveAndConfigure or Modify: microseconds in health, so that
/// five seconds mean it is lost.
pub const SHARD_TIMEOUT_NS: u64 = 5_000_000_000;

/// How long a Subtract may take: it waits for the peer to let the connection close.
pub const SUBTRACT_TIMEOUT_NS: u64 = 30_000_000_000;

/// What a caller is told to wait when the node is full or a shard does not answer.
pub const RETRY_AFTER: Duration = Duration::from_secs(10);

// Two streams, each with its key and with a second try on a port of its own.
const _: () = assert!(2 * (KMS_TIMEOUT_NS + 2 * SHARD_TIMEOUT_NS) < 32_000_000_000);
