//! A user of a conference as the server knows it.

use mrfp_io::Key;

use super::association::Association;
use super::policy::{Channel, User};
use super::timers::NEVER;

/// A user, connected or not.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) conference: Key,
    pub(super) user: User,
    pub(super) presence: Presence,
    /// Ongoing requests that it asked for or is to benefit from.
    pub(super) requests: Vec<Key>,
    /// Floors it asked to be kept informed about, by place.
    pub(super) subscribed: u64,
    /// Floors whose state it has not been told, by place.
    pub(super) stale: u64,
    /// It is in the list of those who have something to be told.
    pub(super) listed: bool,
    /// See [`Timers`](super::timers::Timers).
    pub(super) armed_ns: u64,
    /// What UDP needs, while it is connected by that.
    pub(super) association: Option<Box<Association>>,
}

/// Whether a user is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    /// It has not been, or has said Goodbye. Somebody else may request floors for it.
    Away,
    /// It is.
    Connected(Channel),
    /// Its connection was lost.
    Lost {
        /// Its requests end then.
        until_ns: u64,
    },
}

impl Member {
    pub(super) fn new(conference: Key, user: User) -> Self {
        Self {
            conference,
            user,
            presence: Presence::Away,
            requests: Vec::new(),
            subscribed: 0,
            stale: 0,
            listed: false,
            armed_ns: NEVER,
            association: None,
        }
    }

    pub(super) fn channel(&self) -> Option<Channel> {
        match self.presence {
            Presence::Connected(channel) => Some(channel),
            Presence::Away | Presence::Lost { .. } => None,
        }
    }

    /// When something is next to be done about it.
    pub(super) fn deadline_ns(&self) -> u64 {
        match (self.presence, &self.association) {
            (Presence::Lost { until_ns }, _) => until_ns,
            (_, Some(association)) => association.deadline_ns(),
            (_, None) => NEVER,
        }
    }
}
