//! Section `[conference]`: what the focus of a conference does besides taking calls.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Section `[conference]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conference {
    /// User part of the factory URI (RFC 4579 section 3.5): a call to it makes a new room with a
    /// name nobody can guess.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factory: Option<String>,
    /// Rooms at a time.
    pub rooms_max: u32,
    /// Who may subscribe to a conference.
    pub subscribers: Subscribers,
    /// Who may have the focus call others and throw them out (REFER).
    pub referrers: Referrers,
    /// Where calls of the focus go, host and port as numbers, UDP or (where they are large) TCP.
    /// Without it only callees whose URI has a numeric host are reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_proxy: Option<SocketAddr>,
    /// Calls of the focus that may be unanswered at a time.
    pub dials_max: u32,
    /// URIs of users that may do in every room what its members may do.
    pub operators: Vec<String>,
    /// Subscriptions of the node at a time.
    pub subscriptions_max: u32,
    /// Subscriptions to one room at a time.
    pub subscriptions_per_room_max: u32,
    /// The shortest subscription that is taken.
    pub subscription_seconds_min: u32,
    /// The longest subscription; a longer one is shortened to it.
    pub subscription_seconds_max: u32,
    /// A subscriber is told of changes this often at most; what happens in between is gathered.
    pub notify_interval_milliseconds: u64,
}

/// `conference.subscribers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subscribers {
    /// Members of the room and operators.
    Members,
    /// Everybody.
    Anyone,
}

/// `conference.referrers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Referrers {
    /// Members of the room and operators.
    Members,
    /// Operators only.
    Operators,
}

impl Default for Conference {
    fn default() -> Self {
        Self {
            factory: None,
            rooms_max: 10_000,
            subscribers: Subscribers::Members,
            referrers: Referrers::Members,
            outbound_proxy: None,
            dials_max: 1000,
            operators: Vec::new(),
            subscriptions_max: 100_000,
            subscriptions_per_room_max: 4096,
            subscription_seconds_min: 60,
            subscription_seconds_max: 86_400,
            notify_interval_milliseconds: 500,
        }
    }
}
