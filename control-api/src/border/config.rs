//! What the operator decides about the media of a border.

use std::time::Duration;

use mrfp_core::mp::{InterfaceId, RealmId};
use serde::{Deserialize, Serialize};

use super::SideRole;
use super::sdp::Rules;
use crate::mrfc::ShardDescription;

/// Configuration of a border.
#[derive(Clone, Debug)]
pub struct BorderConfig {
    /// The shards to spread calls over.
    pub shards: Vec<ShardDescription>,
    /// Its two sides.
    pub sides: [Side; 2],
    /// Calls at a time; the next gets 503 with Retry-After.
    pub calls_max: usize,
    /// What is done to descriptions.
    pub rules: Rules,
    /// How long a call whose bearer was closed or lost waits for its end or for a new offer.
    pub recovery: Duration,
}

/// The media of one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    /// Which.
    pub role: SideRole,
    /// On which of the node's addresses it is reached.
    pub interface: InterfaceId,
    /// Where its traffic is counted.
    pub realm: RealmId,
    /// From where it may come.
    pub nat: Nat,
    /// Its parties know CEMA (RFC 6714), unless they show that they do not.
    pub cema: bool,
}

/// From where media of a side may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Nat {
    /// Peers may be behind a NAT: whoever proves to be the one announced is taken from wherever it comes,
    /// others from the host that their signalling comes from.
    Latch,
    /// Only from the host that the signalling comes from.
    Host,
    /// Only from the address in the SDP.
    #[default]
    Off,
}

impl BorderConfig {
    pub(super) fn side(&self, role: SideRole) -> &Side {
        let side = self.sides.iter().find(|side| side.role == role);
        side.expect("a party is on a side of this border")
    }
}

/// A shard answers within microseconds in health, so that five seconds mean it is lost.
pub(super) const SHARD_TIMEOUT_NS: u64 = 5_000_000_000;
/// Over a Subtract it may wait for a peer to let the connection close.
pub(super) const SUBTRACT_TIMEOUT_NS: u64 = 30_000_000_000;
/// What a caller is told to wait when the border is full or a shard does not answer.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);
/// A party closes its connection and hangs up: the BYE may be behind by two retransmissions.
pub(super) const RECOVERY_MIN: Duration = Duration::from_secs(2);
/// Offers and answers of one call that may wait for a shard: a fork's branches answer at once, and few
/// of them do.
pub(super) const WAITING_MAX: usize = 16;
/// Streams of one call through us, each of which takes two ports and, where it is protected, a certificate
/// of those that are ready for all: a chat, its floors and a few files.
pub(super) const STREAMS_MAX: usize = 8;
