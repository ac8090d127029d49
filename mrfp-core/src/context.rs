//! A conference: the members among whom messages are switched.

use mrfp_io::Key;

use crate::mp::{ContextId, ContextStatistics, Switching};
use crate::room::{Audience, Destination, Room};

/// A Context as its shard holds it.
pub(crate) struct Context {
    pub(crate) id: ContextId,
    /// Terminations reserved for it, bound or not: it ends with the last.
    pub(crate) terminations: usize,
    /// The bound ones, in the order of joining: among them messages are switched.
    pub(crate) members: Vec<Key>,
    /// Grows with every bound member: a message belongs to the members that were there when it
    /// began, so that nobody gets the end of a message without its beginning.
    pub(crate) epoch: u64,
    /// Members whose egress is above its limit.
    pub(crate) lagging: u32,
    /// Connections paused until nobody lags.
    pub(crate) paused: Vec<Key>,
    /// Where it is a chat room: its rules.
    pub(crate) room: Option<Box<Room>>,
    /// What it has carried; `None` before it has carried anything.
    statistics: Option<Box<ContextStatistics>>,
}

impl Context {
    pub(crate) fn new(id: ContextId, switching: Switching) -> Self {
        let room = match switching {
            Switching::TwoParty => None,
            Switching::ChatRoom(policy) => Some(Box::new(Room::new(*policy))),
        };
        Self {
            id,
            terminations: 0,
            members: Vec::new(),
            epoch: 0,
            lagging: 0,
            paused: Vec::new(),
            room,
            statistics: None,
        }
    }

    /// What it has carried.
    pub(crate) fn statistics(&self) -> ContextStatistics {
        self.statistics.as_deref().copied().unwrap_or_default()
    }

    /// The same, to be added to.
    pub(crate) fn statistics_mut(&mut self) -> &mut ContextStatistics {
        self.statistics.get_or_insert_default()
    }

    /// Whether messages keep their Message-ID, and the receivers report to the senders. With more
    /// than two parties identifiers could collide, and who reports could not be told.
    pub(crate) fn is_end_to_end(&self) -> bool {
        self.is_between_parties() && self.terminations <= 2
    }

    /// Terminations whose messages are switched, bound or not.
    pub(crate) fn message_terminations(&self) -> usize {
        let floors = self.room.as_ref().and_then(|room| room.floors.as_ref());
        self.terminations - floors.map_or(0, |floors| floors.users_len())
    }

    /// Whether somebody must hear a message: one said into an empty room is not lost.
    pub(crate) fn is_between_parties(&self) -> bool {
        self.room.is_none()
    }

    /// The session a message goes to that comes at `index` among those it may go to, `Some(None)`
    /// where it does not after all.
    pub(crate) fn recipient(&self, destination: Destination, index: usize) -> Option<Option<Key>> {
        match (&self.room, destination.audience) {
            (Some(room), Audience::Address(address)) => {
                let found = room.sessions(address).get(index)?;
                Some(destination.reaches(found.private_messages).then_some(found.session))
            }
            (_, Audience::Everybody) | (None, _) => self.members.get(index).map(|&key| Some(key)),
        }
    }
}
