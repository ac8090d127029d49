//! A moderated room: only whoever holds the floor that is for the messages is heard.

use mrfp_io::Key;

use crate::floor::{HolderChange, Refusal};
use crate::mp::{Event, FloorControl, TerminationId};
use crate::plane::Plane;
use crate::termination::Stage;

/// What a room knows of its floors; who holds them the server knows.
pub(crate) struct RoomFloors {
    /// `a=confid`.
    pub(crate) conference_id: u32,
    /// Only who holds the floor for the messages may send them.
    pub(crate) moderated: bool,
    /// The floor that is for the messages.
    pub(crate) message_floor_id: Option<u16>,
    /// Floors whose changes the controller is told.
    reported: Box<[u16]>,
    /// By user ID.
    users: Vec<FloorUser>,
}

/// A user of the floors of a room.
#[derive(Clone, Copy)]
pub(super) struct FloorUser {
    pub(super) user_id: u16,
    /// Its Termination for BFCP.
    pub(super) termination: Key,
    /// The one whose messages pass while it holds the floor for them; nobody else's is the same.
    pub(super) speaks_by: Option<TerminationId>,
}

impl RoomFloors {
    pub(crate) fn new(control: &FloorControl) -> Self {
        let floors = control.floors.iter();
        let reported = floors.clone().filter(|floor| floor.reported).map(|floor| floor.floor_id);
        Self {
            conference_id: control.conference_id,
            moderated: control.moderated,
            message_floor_id: floors.clone().find(|it| it.governs_messages).map(|it| it.floor_id),
            reported: reported.collect(),
            users: Vec::new(),
        }
    }

    /// Users, and so Terminations that are no members.
    pub(crate) fn users_len(&self) -> usize {
        self.users.len()
    }

    pub(super) fn add_user(&mut self, user: FloorUser) {
        let at = self.users.partition_point(|other| other.user_id < user.user_id);
        self.users.insert(at, user);
    }

    pub(super) fn remove_user(&mut self, termination: Key) {
        self.users.retain(|user| user.termination != termination);
    }

    /// Who speaks by a Termination.
    pub(super) fn speaker(&self, termination: TerminationId) -> Option<u16> {
        let speaks = |user: &&FloorUser| user.speaks_by == Some(termination);
        self.users.iter().find(speaks).map(|user| user.user_id)
    }

    fn speaks_by(&self, user_id: u16) -> Option<TerminationId> {
        let at = self.users.binary_search_by_key(&user_id, |user| user.user_id).ok()?;
        self.users[at].speaks_by
    }

    /// The floor without which nobody is heard.
    fn floor_required(&self) -> Option<u16> {
        self.message_floor_id.filter(|_| self.moderated)
    }
}

impl Plane {
    /// A floor has changed hands.
    pub(super) fn holder_changed(&mut self, change: HolderChange) {
        let HolderChange { conference_id, floor_id, user_id, holds } = change;
        let Some(&context_key) = self.floors.contexts.get(&conference_id) else { return };
        let Some(context) = self.contexts.get(context_key).map(|context| context.id) else {
            return;
        };
        let Some(floors) = self.room_floors(context_key) else { return };
        let speaker = floors.speaks_by(user_id);
        let speaker = speaker.filter(|_| floors.floor_required() == Some(floor_id));
        if floors.reported.contains(&floor_id) {
            self.events.push_back(Event::FloorChanged { context, floor_id, user_id, holds });
        }
        let session = speaker.and_then(|id| self.termination_by_id.get(&self.terminations, &id));
        if let Some(session) = session
            && self.terminations.get(session).is_some_and(|it| it.context == context_key)
        {
            // Who releases one request and is granted the next has not been without it for a byte.
            let server = self.floors.server.as_ref();
            let holds = server.is_some_and(|it| it.holds(conference_id, floor_id, user_id));
            self.let_speak(session, holds);
        }
    }

    /// From now on only those are heard who hold the floor for the messages, or everybody is.
    pub(super) fn moderate(&mut self, context: Key, moderated: bool) -> Result<(), Refusal> {
        let floors = self.room_floors_mut(context).ok_or(Refusal::Unknown)?;
        if moderated && floors.message_floor_id.is_none() {
            return Err(Refusal::Unknown);
        }
        floors.moderated = moderated;
        let speakers = self.speakers(context);
        let members = self.contexts.get(context).map(|context| context.members.clone());
        for member in members.unwrap_or_default() {
            let Some(id) = self.terminations.get(member).map(|it| it.id) else { continue };
            self.let_speak(member, !moderated || speakers.contains(&id));
        }
        Ok(())
    }

    /// Whether a session is not heard for want of a floor.
    pub(crate) fn lacks_floor(&self, session: Key) -> bool {
        let Some(termination) = self.terminations.get(session) else { return false };
        let Some(floors) = self.room_floors(termination.context) else { return false };
        let Some(floor_id) = floors.floor_required() else { return false };
        let holds = |user_id| {
            let server = self.floors.server.as_ref();
            server.is_some_and(|it| it.holds(floors.conference_id, floor_id, user_id))
        };
        !floors.speaker(termination.id).is_some_and(holds)
    }

    /// The Terminations whose users hold the floor for the messages.
    fn speakers(&self, context: Key) -> Vec<TerminationId> {
        let Some(floors) = self.room_floors(context) else { return Vec::new() };
        let (Some(server), Some(floor_id)) = (&self.floors.server, floors.message_floor_id) else {
            return Vec::new();
        };
        let holds = |user_id| server.holds(floors.conference_id, floor_id, user_id);
        let speakers = floors.users.iter().filter(|user| user.speaks_by.is_some());
        speakers.filter(|user| holds(user.user_id)).filter_map(|user| user.speaks_by).collect()
    }

    /// A session is heard from now on, or what it is in the middle of is cut.
    fn let_speak(&mut self, session: Key, holds: bool) {
        let Some(termination) = self.terminations.get_mut(session) else { return };
        let sent = termination.may_send();
        termination.lacks_floor = !holds;
        let falls_silent = sent && !termination.may_send() && termination.stage == Stage::Bound;
        if falls_silent && let Some(connection) = termination.connection {
            self.silence(connection, session);
        }
    }
}
