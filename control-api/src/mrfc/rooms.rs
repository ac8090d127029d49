//! Rooms.

use std::collections::{BTreeMap, BTreeSet};

use mrfp_core::mp::{ContextId, ShardId};

use super::config::RoomFloor;
use super::{CallId, Mrfc};

/// Rooms by name. A room exists while it has a member.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    rooms: BTreeMap<String, Room>,
    by_context: BTreeMap<ContextId, String>,
    conference_ids: BTreeSet<u32>,
}

#[derive(Debug)]
pub(super) struct Room {
    pub(super) context: ContextId,
    pub(super) shard: ShardId,
    /// The conference URI.
    pub(super) uri: String,
    /// Nobody may come in.
    pub(super) locked: bool,
    /// Whether it is moderated, where that is not as it was at first.
    pub(super) moderated: Option<bool>,
    pub(super) members: BTreeSet<CallId>,
    floors: Option<RoomFloors>,
}

/// The numbers that the floor control of a room has given out.
#[derive(Debug)]
struct RoomFloors {
    conference_id: u32,
    user_ids: BTreeSet<u16>,
    user_id_last: u16,
}

/// Where a call goes: the room it finds or makes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) context: ContextId,
    pub(super) shard: ShardId,
    /// The conference URI, should the room have to be made.
    pub(super) uri: String,
}

/// A room as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomView<'a> {
    /// Its name.
    pub name: &'a str,
    /// The conference URI.
    pub uri: &'a str,
    /// Nobody may come in.
    pub locked: bool,
    /// Only who holds the floor for the messages may send them; `None` where the room has no floors.
    pub moderated: Option<bool>,
    /// Its floors.
    pub floors: &'a [RoomFloor],
    /// Subscriptions to its event package.
    pub subscriptions: usize,
    /// Its Context.
    pub context: ContextId,
    /// Where that is.
    pub shard: ShardId,
    /// `a=confid`, where it has floors.
    pub conference_id: Option<u32>,
    /// Who is in it, in the order of the calls.
    pub members: Vec<MemberView<'a>>,
}

/// A member of a room as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberView<'a> {
    /// The call.
    pub call: CallId,
    /// The caller.
    pub uri: &'a str,
    /// Its nickname (RFC 7701).
    pub nickname: Option<&'a str>,
    /// What it sends is not passed on.
    pub muted: bool,
    /// `a=userid` of its BFCP stream, where the shard has one.
    pub floor_user: Option<u16>,
    /// How far the call is.
    pub state: MemberState,
    /// TLS.
    pub secure: bool,
    /// With a key of MIKEY, not with certificates.
    pub keyed: bool,
    /// Monotonic time of the INVITE, nanoseconds.
    pub since_ns: u64,
}

/// How far a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberState {
    /// The KMS is asked.
    AwaitingKeys,
    /// The shard is asked.
    Reserving,
    /// An offer of ours is unanswered.
    Calling,
    /// Answered, no connection yet.
    Answered,
    /// Connected.
    Connected,
    /// The connection was lost; the call waits for a new session.
    Recovering,
    /// A re-INVITE is being carried out.
    Modifying,
}

impl RoomView<'_> {
    /// A floor, by its number.
    #[must_use]
    pub fn floor(&self, floor_id: u16) -> Option<&RoomFloor> {
        self.floors.iter().find(|floor| floor.floor_id == floor_id)
    }
}

impl Rooms {
    /// Members of a room, 0 where there is none of that name.
    pub(super) fn members(&self, name: &str) -> usize {
        self.rooms.get(name).map_or(0, |room| room.members.len())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Room> {
        self.rooms.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Room> {
        self.rooms.get_mut(name)
    }

    /// The room a Context is, and its name.
    pub(super) fn of_context(&self, context: ContextId) -> Option<(&str, &Room)> {
        let name = self.by_context.get(&context)?;
        Some((name, &self.rooms[name]))
    }

    fn of_context_mut(&mut self, context: ContextId) -> Option<&mut Room> {
        self.rooms.get_mut(self.by_context.get(&context)?)
    }

    /// The calls in a room, none where it does not exist.
    pub(super) fn calls(&self, name: &str) -> impl Iterator<Item = CallId> {
        self.rooms.get(name).into_iter().flat_map(|room| room.members.iter().copied())
    }

    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Adds a member, and the room with its first.
    pub(super) fn join(&mut self, name: &str, place: &Place, call: CallId) {
        let room = self.rooms.entry(name.to_owned()).or_insert_with(|| Room {
            context: place.context,
            shard: place.shard,
            uri: place.uri.clone(),
            locked: false,
            moderated: None,
            members: BTreeSet::new(),
            floors: None,
        });
        assert_eq!(room.context, place.context);
        assert_eq!(room.shard, place.shard);
        assert!(room.members.insert(call));
        self.by_context.insert(place.context, name.to_owned());
    }

    /// Takes a member out, and the room with its last; the Context of a room that is gone.
    pub(super) fn leave(&mut self, name: &str, call: CallId) -> Option<ContextId> {
        let room = self.rooms.get_mut(name).expect("a call's room exists");
        assert!(room.members.remove(&call));
        if !room.members.is_empty() {
            return None;
        }
        let context = room.context;
        if let Some(conference_id) = room.conference_id() {
            self.conference_ids.remove(&conference_id);
        }
        self.rooms.remove(name);
        self.by_context.remove(&context);
        Some(context)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.conference_ids.is_empty()
    }

    /// Gives a room's conference its number, which is no other's: the first that is free from `drawn`
    /// on. There are far fewer rooms than numbers.
    pub(super) fn open_floors(&mut self, name: &str, drawn: u32) {
        let room = self.rooms.get_mut(name).expect("a call's room exists");
        if room.floors.is_some() {
            return;
        }
        let mut conference_id = drawn.max(1);
        while !self.conference_ids.insert(conference_id) {
            conference_id = conference_id.wrapping_add(1).max(1);
        }
        let floors = RoomFloors { conference_id, user_ids: BTreeSet::new(), user_id_last: 0 };
        room.floors = Some(floors);
    }

    /// A number for another user of a room's floors: the next one, as those that were given back are best
    /// not met again soon. `None`: all are taken.
    pub(super) fn take_floor_user(&mut self, name: &str) -> Option<u16> {
        let floors = self.rooms.get_mut(name)?.floors.as_mut()?;
        if floors.user_ids.len() == usize::from(u16::MAX) {
            return None;
        }
        loop {
            let user_id = floors.user_id_next();
            if floors.user_ids.insert(user_id) {
                return Some(user_id);
            }
        }
    }

    pub(super) fn free_floor_user(&mut self, name: &str, user_id: u16) {
        let room = self.rooms.get_mut(name).expect("a call's room exists");
        let floors = room.floors.as_mut().expect("it has given a number");
        assert!(floors.user_ids.remove(&user_id));
    }
}

impl Room {
    /// `a=confid`, where the room has floors.
    pub(super) fn conference_id(&self) -> Option<u32> {
        self.floors.as_ref().map(|floors| floors.conference_id)
    }
}

impl RoomFloors {
    fn user_id_next(&mut self) -> u16 {
        self.user_id_last = self.user_id_last.wrapping_add(1).max(1);
        self.user_id_last
    }
}

impl Mrfc {
    /// The rooms there are, by name.
    pub fn rooms(&self) -> impl Iterator<Item = RoomView<'_>> {
        self.rooms.rooms.iter().map(|(name, room)| self.view(name, room))
    }

    /// The room of that name.
    #[must_use]
    pub fn room(&self, name: &str) -> Option<RoomView<'_>> {
        let (name, room) = self.rooms.rooms.get_key_value(name)?;
        Some(self.view(name, room))
    }

    /// The room a Context is.
    #[must_use]
    pub fn room_of(&self, context: ContextId) -> Option<RoomView<'_>> {
        let (name, room) = self.rooms.of_context(context)?;
        Some(self.view(name, room))
    }

    fn view<'a>(&'a self, name: &'a str, room: &'a Room) -> RoomView<'a> {
        let policy = self.config.rooms.chat(name).floors.as_ref();
        RoomView {
            name,
            uri: &room.uri,
            locked: room.locked,
            moderated: policy.map(|policy| room.moderated.unwrap_or(policy.moderated)),
            floors: policy.map_or(&[], |policy| &policy.floors),
            subscriptions: self.subscriptions.of_room(room.context),
            context: room.context,
            shard: room.shard,
            conference_id: room.conference_id(),
            members: room.members.iter().map(|call| self.calls[call].view(*call)).collect(),
        }
    }

    /// A shard has told whether a room is moderated.
    pub fn set_moderated(&mut self, context: ContextId, moderated: bool) {
        if let Some(room) = self.rooms.of_context_mut(context) {
            room.moderated = Some(moderated);
        }
    }

    /// How many rooms there are; unlike counting [`Self::rooms`] it looks at none of them.
    #[must_use]
    pub fn rooms_count(&self) -> usize {
        self.rooms.rooms.len()
    }

    /// Terminations per shard, those included that are being subtracted.
    pub fn shard_terminations(&self) -> impl Iterator<Item = (ShardId, usize)> {
        self.shards.terminations()
    }
}
