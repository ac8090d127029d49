//! The state of a conference as its event package tells it (RFC 4575 section 5), with the point in
//! its history at which each part last changed: whoever has seen everything up to one point can be
//! told exactly what came after it.

use std::collections::BTreeMap;

use mrfp_core::mp::Direction;

use super::CallId;

/// One conference.
#[derive(Debug)]
pub(super) struct ConferenceState {
    /// The conference URI.
    pub(super) uri: String,
    /// The room's name, for people.
    pub(super) display_text: String,
    /// How many endpoints may be in it.
    pub(super) user_count_max: usize,
    users: BTreeMap<String, Tracked>,
    /// Users that are gone, with the point they went at.
    removed: BTreeMap<String, u64>,
    summary: Summary,
    summary_changed: u64,
    point: u64,
}

/// The element `conference-state`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    /// Users with at least one endpoint in the conference.
    pub(super) user_count: usize,
    /// Nobody may come in.
    pub(super) locked: bool,
}

/// A user and when it last changed.
#[derive(Debug)]
struct Tracked {
    user: User,
    changed: u64,
}

/// A user with all its endpoints; never without one.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct User {
    pub(super) endpoints: BTreeMap<CallId, Endpoint>,
}

/// One signalling session of a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Endpoint {
    pub(super) display_text: Option<String>,
    pub(super) nickname: Option<String>,
    pub(super) role: &'static str,
    pub(super) status: Status,
    pub(super) joining: Joining,
    /// Who asked the focus to call it.
    pub(super) referred_by: Option<String>,
    /// Of the message stream, as the endpoint sees it; `None` until it is agreed.
    pub(super) direction: Option<Direction>,
}

/// RFC 4575 section 5.7.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// We are calling it.
    DialingOut,
    /// It rings.
    Alerting,
    /// Answered, its media connection does not stand yet.
    Pending,
    /// In the conference.
    Connected,
    /// In the conference and neither sending nor receiving.
    OnHold,
    /// In the conference, but what it sends is not passed on.
    MutedViaFocus,
    /// Gone.
    Disconnected(Disconnection),
}

/// RFC 4575 section 5.7.6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Disconnection {
    /// It left.
    Departed,
    /// The focus threw it out.
    Booted,
    /// Something broke.
    Failed,
    /// It was called and was busy.
    Busy,
}

/// RFC 4575 section 5.7.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Joining {
    /// It called.
    DialedIn,
    /// It was called.
    DialedOut,
}

/// What changed after a point, in the order of the document.
pub(super) struct Changes<'a> {
    pub(super) summary: Option<Summary>,
    /// `None`: the user is gone.
    pub(super) users: Vec<(&'a str, Option<&'a User>)>,
}

impl Status {
    /// Has joined and not left.
    fn is_present(self) -> bool {
        match self {
            Self::Pending | Self::Connected | Self::OnHold | Self::MutedViaFocus => true,
            Self::DialingOut | Self::Alerting | Self::Disconnected(_) => false,
        }
    }
}

impl User {
    pub(super) fn is_present(&self) -> bool {
        self.endpoints.values().any(|endpoint| endpoint.status.is_present())
    }
}

impl ConferenceState {
    pub(super) fn new(uri: String, display_text: String, user_count_max: usize) -> Self {
        Self {
            uri,
            display_text,
            user_count_max,
            users: BTreeMap::new(),
            removed: BTreeMap::new(),
            summary: Summary { user_count: 0, locked: false },
            summary_changed: 0,
            point: 0,
        }
    }

    /// How far its history has come; it grows with every change.
    pub(super) fn point(&self) -> u64 {
        self.point
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary
    }

    pub(super) fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users.iter().map(|(entity, tracked)| (entity.as_str(), &tracked.user))
    }

    /// A user of that entity is in the conference.
    pub(super) fn is_present(&self, entity: &str) -> bool {
        self.users.get(entity).is_some_and(|tracked| tracked.user.is_present())
    }

    /// Adds an endpoint or brings it up to date.
    pub(super) fn set(&mut self, entity: &str, id: CallId, endpoint: Endpoint) {
        let known = self.users.get(entity).and_then(|tracked| tracked.user.endpoints.get(&id));
        if known == Some(&endpoint) {
            return;
        }
        self.point += 1;
        self.removed.remove(entity);
        let tracked = self
            .users
            .entry(entity.to_owned())
            .or_insert_with(|| Tracked { user: User::default(), changed: 0 });
        let before = tracked.user.is_present();
        tracked.user.endpoints.insert(id, endpoint);
        tracked.changed = self.point;
        let after = tracked.user.is_present();
        self.count(before, after);
    }

    /// An endpoint has left; it is still shown, with the way it went. False where it was not shown.
    pub(super) fn disconnect(&mut self, entity: &str, id: CallId, how: Disconnection) -> bool {
        let known = self.users.get(entity).and_then(|tracked| tracked.user.endpoints.get(&id));
        let Some(endpoint) = known else {
            return false;
        };
        let status = Status::Disconnected(how);
        self.set(entity, id, Endpoint { status, direction: None, ..endpoint.clone() });
        true
    }

    /// Shows an endpoint no more.
    pub(super) fn remove(&mut self, entity: &str, id: CallId) {
        let Some(tracked) = self.users.get_mut(entity) else {
            return;
        };
        let before = tracked.user.is_present();
        if tracked.user.endpoints.remove(&id).is_none() {
            return;
        }
        self.point += 1;
        tracked.changed = self.point;
        let after = tracked.user.is_present();
        if tracked.user.endpoints.is_empty() {
            self.users.remove(entity);
            self.removed.insert(entity.to_owned(), self.point);
        }
        self.count(before, after);
    }

    pub(super) fn set_locked(&mut self, locked: bool) {
        if self.summary.locked != locked {
            self.summary.locked = locked;
            self.point += 1;
            self.summary_changed = self.point;
        }
    }

    /// What somebody who knows everything up to `seen` has to be told. Nobody may ask for less
    /// than was last pruned.
    pub(super) fn changes_after(&self, seen: u64) -> Changes<'_> {
        let changed = self.users.iter().filter(|(_, tracked)| tracked.changed > seen);
        let changed = changed.map(|(entity, tracked)| (entity.as_str(), Some(&tracked.user)));
        let removed = self.removed.iter().filter(|(_, at)| **at > seen);
        let removed = removed.map(|(entity, _)| (entity.as_str(), None));
        Changes {
            summary: (self.summary_changed > seen).then_some(self.summary),
            users: changed.chain(removed).collect(),
        }
    }

    /// Everybody has seen what happened up to that point.
    pub(super) fn prune(&mut self, seen_by_all: u64) {
        self.removed.retain(|_, at| *at > seen_by_all);
    }

    fn count(&mut self, before: bool, after: bool) {
        match (before, after) {
            (false, true) => self.summary.user_count += 1,
            (true, false) => self.summary.user_count -= 1,
            (true, true) | (false, false) => return,
        }
        self.summary_changed = self.point;
    }
}
