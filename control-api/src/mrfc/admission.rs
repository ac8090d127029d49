//! Who is let in, and how a refusal reads.

use std::time::Duration;

use super::config::RETRY_AFTER;
use super::{Answer, Mrfc};
use crate::sdp::Warning;

/// A refusal before it is addressed to a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    status: u16,
    warning: Option<Warning>,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn of_status(status: u16) -> Self {
        Self { status, warning: None, retry_after: None }
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn with_text(status: u16, text: &str) -> Self {
        Self { status, warning: Some((399, text.to_owned())), retry_after: None }
    }

    /// 503: not now.
    pub(super) fn unavailable(text: &str) -> Self {
        Self { retry_after: Some(RETRY_AFTER), ..Self::with_text(503, text) }
    }

    /// 488 over what the offer says.
    pub(super) fn offer(warning: Warning) -> Self {
        Self { status: 488, warning: Some(warning), retry_after: None }
    }

    /// 488: we make no offer here.
    pub(super) fn offer_missing() -> Self {
        Self::with_text(488, "An INVITE must carry an offer")
    }

    /// 488 to a re-INVITE that asks for more than can be changed.
    pub(super) fn change(text: &str) -> Self {
        Self::with_text(488, text)
    }

    /// RFC 3261 section 14.2: a re-INVITE before the answer to the last one gets 500 with a
    /// Retry-After between 0 and 10 seconds.
    pub(super) fn overlapping() -> Self {
        let retry_after = Some(Duration::from_secs(1));
        Self { retry_after, ..Self::with_text(500, "Another INVITE is in progress") }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused {
            status: refusal.status,
            warning: refusal.warning,
            retry_after: refusal.retry_after,
        }
    }
}

impl Mrfc {
    /// Everything that can refuse a call before its offer is read.
    pub(super) fn check_admission(
        &self,
        room: &str,
        makes_room: bool,
        from: &str,
        to: &str,
    ) -> Result<(), Refusal> {
        if self.is_shutting_down() {
            return Err(Refusal::unavailable("Shutting down"));
        }
        let domains = &self.config.domains;
        // RFC 3261 section 21.4.5: 404 also for a domain that is not ours.
        if !domains.is_empty() && !domains.contains(&host_of(to)) {
            return Err(Refusal::of_status(404));
        }
        let existing = self.rooms.get(room);
        // A room the factory has made is known to those who are in it and whom they tell.
        if existing.is_none() && !makes_room && !self.config.rooms.admits(room) {
            return Err(Refusal::of_status(404));
        }
        if existing.is_some_and(|room| room.locked) {
            return Err(Refusal::with_text(403, "The room is locked"));
        }
        if existing.is_none() && self.rooms.len() >= self.config.focus.rooms_max {
            return Err(Refusal::unavailable("Too many rooms"));
        }
        if self.user_calls(from) >= self.config.user_calls_max {
            return Err(Refusal::with_text(403, "Too many calls of this user"));
        }
        if self.calls.len() >= self.config.calls_max {
            return Err(Refusal::unavailable("Too many calls"));
        }
        if self.rooms.members(room) >= self.config.rooms.chat(room).members_max {
            return Err(Refusal::with_text(486, "The room is full"));
        }
        Ok(())
    }
}

/// Host of a SIP URI, in lower case, without port and parameters.
pub(super) fn host_of(uri: &str) -> String {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let host_port = rest.rsplit_once('@').map_or(rest, |(_, host_port)| host_port);
    let host_port = host_port.split([';', '?', '>']).next().unwrap_or_default();
    let host = match host_port.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host_port.split(':').next().unwrap_or_default(),
    };
    host.to_ascii_lowercase()
}
