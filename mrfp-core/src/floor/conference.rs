//! A conference and its floors: who holds them and who waits for them.

use mrfp_io::Key;
use mrfp_protocol::bfcp::{Priority, RequestStatus};

use super::policy::{ConferencePolicy, FloorOrder, FloorPolicy};
use super::request::{Request, RequestState};
use super::timers::NEVER;

/// A conference.
#[derive(Debug)]
pub(super) struct Conference {
    pub(super) conference_id: u32,
    pub(super) policy: ConferencePolicy,
    /// By place, which never changes; looked up by [`floor`](Self::floor).
    pub(super) floors: Vec<Floor>,
    /// By user ID.
    users: Vec<(u16, Key)>,
    /// Ongoing requests by their ID.
    requests: Vec<(u16, Key)>,
    last_request_id: u16,
    /// Floors that may have room for somebody who waits, by place.
    pub(super) freed: u64,
}

/// A floor.
#[derive(Debug)]
pub(super) struct Floor {
    pub(super) floor_id: u16,
    pub(super) policy: FloorPolicy,
    pub(super) chair: Option<u16>,
    /// In the order in which it was granted.
    pub(super) holders: Vec<Holder>,
    /// In the order of their stages, within these in the order in which they are served.
    pub(super) waiting: Vec<Waiting>,
    /// It is in the list of those that have changed.
    pub(super) listed: bool,
    /// See [`Timers`](super::timers::Timers).
    pub(super) armed_ns: u64,
}

/// A request that holds a floor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) request: Key,
    pub(super) since_ns: u64,
}

/// A request that waits for a floor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) request: Key,
    pub(super) stage: Stage,
    pub(super) priority: Priority,
}

/// What a request waits for at one floor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// The chair has granted it; its other floors, or its beneficiary, are not ready yet.
    Approved,
    /// In the queue.
    Accepted,
    /// The chair has to decide.
    Pending,
}

impl Conference {
    pub(super) fn new(conference_id: u32, policy: ConferencePolicy) -> Self {
        Self {
            conference_id,
            policy,
            floors: Vec::new(),
            users: Vec::new(),
            requests: Vec::new(),
            last_request_id: 0,
            freed: 0,
        }
    }

    /// The place of a floor.
    pub(super) fn floor(&self, floor_id: u16) -> Option<usize> {
        self.floors.iter().position(|floor| floor.floor_id == floor_id)
    }

    pub(super) fn user(&self, user_id: u16) -> Option<Key> {
        let at = self.users.binary_search_by_key(&user_id, |(id, _)| *id).ok()?;
        Some(self.users[at].1)
    }

    /// Its members.
    pub(super) fn users(&self) -> impl Iterator<Item = Key> + '_ {
        self.users.iter().map(|(_, member)| *member)
    }

    pub(super) fn add_user(&mut self, user_id: u16, member: Key) {
        let at = self.users.binary_search_by_key(&user_id, |(id, _)| *id);
        self.users.insert(at.expect_err("nobody has that ID"), (user_id, member));
    }

    pub(super) fn remove_user(&mut self, user_id: u16) {
        self.users.retain(|(id, _)| *id != user_id);
    }

    pub(super) fn request(&self, request_id: u16) -> Option<Key> {
        let at = self.requests.binary_search_by_key(&request_id, |(id, _)| *id).ok()?;
        Some(self.requests[at].1)
    }

    /// Names a request: one after the other, so that an ID is not soon used again. 0 is not used;
    /// there are far fewer requests than IDs.
    pub(super) fn add_request(&mut self, request: Key) -> u16 {
        loop {
            self.last_request_id = self.last_request_id.wrapping_add(1).max(1);
            let id = self.last_request_id;
            if let Err(at) = self.requests.binary_search_by_key(&id, |(id, _)| *id) {
                self.requests.insert(at, (id, request));
                return id;
            }
        }
    }

    pub(super) fn remove_request(&mut self, request_id: u16) {
        let at = self.requests.binary_search_by_key(&request_id, |(id, _)| *id);
        self.requests.remove(at.expect("it is ongoing"));
    }

    /// How a request stands with one of its floors, and its queue position there.
    pub(super) fn standing(
        &self,
        request: &Request,
        key: Key,
        floor: usize,
    ) -> (RequestStatus, u8) {
        match request.state {
            RequestState::Granted => (RequestStatus::Granted, 0),
            RequestState::Ended(status) => (status, 0),
            RequestState::Waiting => self.floors[floor].standing(key),
        }
    }

    /// How it stands as a whole: as with the floor that it is furthest from.
    pub(super) fn overall(&self, request: &Request, key: Key) -> (RequestStatus, u8) {
        match request.state {
            RequestState::Granted => (RequestStatus::Granted, 0),
            RequestState::Ended(status) => (status, 0),
            RequestState::Waiting => {
                let mut position_max = 0;
                for floor in request.floors() {
                    let (status, position) = self.floors[floor].standing(key);
                    if status == RequestStatus::Pending {
                        return (status, 0);
                    }
                    position_max = position.max(position_max);
                }
                (RequestStatus::Accepted, position_max)
            }
        }
    }
}

impl Floor {
    pub(super) fn new(floor_id: u16, policy: FloorPolicy) -> Self {
        Self {
            floor_id,
            policy,
            chair: None,
            holders: Vec::new(),
            waiting: Vec::new(),
            listed: false,
            armed_ns: NEVER,
        }
    }

    /// Ongoing requests for it.
    pub(super) fn request_count(&self) -> usize {
        self.holders.len() + self.waiting.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.holders.len() >= usize::from(self.policy.holders_max)
    }

    /// How far a request that waits is; `None` where it does not wait here.
    pub(super) fn stage(&self, request: Key) -> Option<Stage> {
        self.waiting.iter().find(|waiting| waiting.request == request).map(|it| it.stage)
    }

    /// Puts a request where its stage and the order of this floor want it. `position` is where a
    /// chair wants an accepted one in the queue, from 1; 0 leaves that to the floor.
    pub(super) fn enqueue(&mut self, waiting: Waiting, position: u8) {
        let stage_begins = self.waiting.partition_point(|other| other.stage < waiting.stage);
        let stage_ends = self.waiting.partition_point(|other| other.stage <= waiting.stage);
        let mut at = stage_ends;
        if waiting.stage == Stage::Accepted {
            if position > 0 {
                at = stage_ends.min(stage_begins + usize::from(position) - 1);
            } else if self.policy.order == FloorOrder::Priority {
                let queue = &self.waiting[stage_begins..stage_ends];
                let later = queue.iter().position(|other| other.priority < waiting.priority);
                at = later.map_or(stage_ends, |place| stage_begins + place);
            }
        }
        self.waiting.insert(at, waiting);
    }

    /// Takes a request out of its stage.
    pub(super) fn dequeue(&mut self, request: Key) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.request == request)?;
        Some(self.waiting.remove(at))
    }

    fn standing(&self, request: Key) -> (RequestStatus, u8) {
        let mut position = 0;
        for waiting in &self.waiting {
            position += u8::from(waiting.stage == Stage::Accepted);
            if waiting.request == request {
                return match waiting.stage {
                    Stage::Approved => (RequestStatus::Granted, 0),
                    Stage::Accepted => (RequestStatus::Accepted, position),
                    Stage::Pending => (RequestStatus::Pending, 0),
                };
            }
        }
        unreachable!("it waits for all of its floors");
    }
}
