//! What the control plane asks for.

use mrfp_io::Key;
use mrfp_protocol::bfcp::{Header, Primitive, Priority, RequestStatus, Transport};

use super::conference::{Conference, Floor, Stage};
use super::granting::note;
use super::member::Member;
use super::notify::send_datagrams;
use super::output::Output;
use super::policy::{
    ConferencePolicy, FLOORS_PER_CONFERENCE_MAX, FloorOrder, FloorPolicy, NAME_BYTES_MAX, Refusal,
    User,
};
use super::request::{RequestState, Tell};
use super::requests::Floors;
use super::{FloorServer, Participant, compose};

/// A floor as the control plane sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorView {
    /// `a=floorid`.
    pub floor_id: u16,
    /// Its rules.
    pub policy: FloorPolicy,
    /// User ID of its chair.
    pub chair: Option<u16>,
    /// Requests that hold it, in the order in which they were granted, and those that wait, in the
    /// order in which they are served.
    pub requests: Vec<RequestView>,
}

/// A request as the control plane sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestView {
    /// FLOOR-REQUEST-ID.
    pub request_id: u16,
    /// Who is to have the floor.
    pub user_id: u16,
    /// Who asked, where that is another user.
    pub requested_by: Option<u16>,
    /// It holds the floor now.
    pub holds: bool,
    /// How it stands with this floor. One that a chair has granted and that waits for other floors is
    /// Granted here and does not hold it yet.
    pub status: RequestStatus,
    /// From 1 where it is accepted, else 0.
    pub queue_position: u8,
    /// As it was asked for.
    pub priority: Option<Priority>,
    /// Holds the floor since then; waits since then.
    pub since_ns: u64,
}

impl FloorServer {
    /// A conference that is to have floors.
    ///
    /// # Errors
    /// The identifier is in use, or there are too many.
    pub fn open_conference(
        &mut self,
        conference_id: u32,
        policy: ConferencePolicy,
    ) -> Result<(), Refusal> {
        if self.conference_by_id.contains_key(&conference_id) {
            return Err(Refusal::InUse);
        }
        let conference = Conference::new(conference_id, policy);
        let key = self.conferences.insert(conference).map_err(|_| Refusal::Exhausted)?;
        self.conference_by_id.insert(conference_id, key);
        Ok(())
    }

    /// The conference is over: its users are removed, nobody is told of a floor any more.
    pub fn close_conference(&mut self, conference_id: u32, now_ns: u64, out: &mut impl Output) {
        let Some(&key) = self.conference_by_id.get(&conference_id) else { return };
        let members: Vec<_> = self.conferences[key].users().collect();
        let ends = (RequestStatus::Revoked, RequestStatus::Denied);
        for &member in &members {
            self.end_all_of(member, ends, note::LEFT, out);
        }
        // Nobody gets what the others leave.
        self.conferences[key].freed = 0;
        for member in members {
            self.remove_user(Participant(member), now_ns, out);
        }
        // What is told of the last changes finds nobody any more, and is forgotten.
        self.flush(now_ns, out);
        self.conference_by_id.remove(&conference_id);
        self.conferences.discard(key);
    }

    /// One more floor.
    ///
    /// # Errors
    /// There is no such conference, it has that floor or too many, or the policy lets nobody hold it.
    pub fn add_floor(
        &mut self,
        conference_id: u32,
        floor_id: u16,
        policy: FloorPolicy,
    ) -> Result<(), Refusal> {
        check_policy(&policy)?;
        let key = *self.conference_by_id.get(&conference_id).ok_or(Refusal::Unknown)?;
        let conference = &mut self.conferences[key];
        if conference.floor(floor_id).is_some() {
            return Err(Refusal::InUse);
        }
        if conference.floors.len() == FLOORS_PER_CONFERENCE_MAX {
            return Err(Refusal::Exhausted);
        }
        conference.floors.push(Floor::new(floor_id, policy));
        Ok(())
    }

    /// A user that may ask for floors, over the connection that will be its own.
    ///
    /// # Errors
    /// There is no such conference, it has that user, or there are too many.
    pub fn add_user(&mut self, conference_id: u32, user: User) -> Result<Participant, Refusal> {
        let conference = *self.conference_by_id.get(&conference_id).ok_or(Refusal::Unknown)?;
        let user_id = user.user_id;
        if self.conferences[conference].user(user_id).is_some() {
            return Err(Refusal::InUse);
        }
        let told = |name: String| if name.len() > NAME_BYTES_MAX { String::new() } else { name };
        let (display_name, uri) = (told(user.display_name), told(user.uri));
        let user = User { display_name, uri, ..user };
        let member = Member::new(conference, user);
        let key = self.members.insert(member).map_err(|_| Refusal::Exhausted)?;
        self.conferences[conference].add_user(user_id, key);
        Ok(Participant(key))
    }

    /// A user has left the conference: what it holds is revoked, what it waits for is denied, and
    /// floors it chaired have no chair. Its connection is the shard's to close; over UDP it is
    /// sent a Goodbye (RFC 8855 section 6.2), once.
    pub fn remove_user(&mut self, participant: Participant, now_ns: u64, out: &mut impl Output) {
        let key = participant.0;
        let Some(member) = self.members.get(key) else { return };
        let (conference_key, user_id) = (member.conference, member.user.user_id);
        let (termination, channel) = (member.user.termination, member.channel());
        self.unsubscribe(key);
        let ends = (RequestStatus::Revoked, RequestStatus::Denied);
        self.end_all_of(key, ends, note::LEFT, out);
        if channel.is_some_and(|channel| channel.transport == Transport::Unreliable) {
            let conference_id = self.conferences[conference_key].conference_id;
            let association = self.members[key].association.as_mut();
            let id = association.expect("it is connected by UDP").next_transaction_id();
            let goodbye = Primitive::Goodbye;
            let header = Header::new(Transport::Unreliable, goodbye, conference_id, id, user_id);
            let length = compose::bare(&mut self.scratch, &header);
            self.counters.sent[usize::from(goodbye.code())] += 1;
            send_datagrams(termination, &self.scratch[..length], &mut self.datagram, out);
        }
        self.dissolve(key);
        // What it has asked for others stays; they have it, and may release it.
        for request in std::mem::take(&mut self.members[key].requests) {
            self.requests[request].requested_by = None;
        }
        let conference = &mut self.conferences[conference_key];
        conference.remove_user(user_id);
        for floor in &mut conference.floors {
            floor.chair = floor.chair.filter(|chair| *chair != user_id);
        }
        self.members.discard(key);
        self.settle(conference_key, now_ns, out);
    }

    /// The floors of a conference; `None` where there is no such conference.
    #[must_use]
    pub fn floors(&self, conference_id: u32) -> Option<Vec<FloorView>> {
        let conference = &self.conferences[*self.conference_by_id.get(&conference_id)?];
        let places = conference.floors.iter().enumerate();
        let view = |(place, floor): (usize, &Floor)| {
            let holding = floor.holders.iter().map(|it| (it.request, Some(it.since_ns)));
            let waiting = floor.waiting.iter().map(|it| (it.request, None));
            let requests = holding.chain(waiting).map(|(key, since_ns)| {
                let request = &self.requests[key];
                let (status, queue_position) = conference.standing(request, key, place);
                RequestView {
                    request_id: request.request_id,
                    user_id: request.beneficiary.user_id,
                    requested_by: request.requested_by.map(|party| party.user_id),
                    holds: since_ns.is_some(),
                    status,
                    queue_position,
                    priority: request.priority,
                    since_ns: since_ns.unwrap_or(request.asked_ns),
                }
            });
            FloorView {
                floor_id: floor.floor_id,
                policy: floor.policy.clone(),
                chair: floor.chair,
                requests: requests.collect(),
            }
        };
        Some(places.map(view).collect())
    }

    /// Whether a user holds a floor at this moment.
    #[must_use]
    pub fn holds(&self, conference_id: u32, floor_id: u16, user_id: u16) -> bool {
        let held = || {
            let conference = &self.conferences[*self.conference_by_id.get(&conference_id)?];
            let floor = &conference.floors[conference.floor(floor_id)?];
            let mut holders = floor.holders.iter();
            Some(holders.any(|it| self.requests[it.request].beneficiary.user_id == user_id))
        };
        held().unwrap_or(false)
    }

    /// Gives a floor to a user, as its chair would: a request of its that waits is granted, with
    /// the other floors it is for as soon as these are ready; without one it gets one. Who has held the floor
    /// longest makes way, if there is no room.
    ///
    /// # Errors
    /// There is no such conference, floor or user; there are too many requests.
    pub fn grant(
        &mut self,
        conference_id: u32,
        floor_id: u16,
        user_id: u16,
        now_ns: u64,
        out: &mut impl Output,
    ) -> Result<(), Refusal> {
        let (conference, floor, member) = self.place_of_user(conference_id, floor_id, user_id)?;
        if self.holds(conference_id, floor_id, user_id) {
            return Ok(());
        }
        let waiting = self.conferences[conference].floors[floor].waiting.iter();
        let mut waiting = waiting.map(|waiting| waiting.request);
        let own = waiting.find(|key| self.requests[*key].beneficiary.member == member);
        let key = match own {
            Some(key) => key,
            None => {
                let mut floors = Floors::default();
                floors.add(floor).expect("it is the first");
                let party = self.party(member);
                let room = self.check_limits(conference, &floors, party, None);
                room.map_err(|_| Refusal::Exhausted)?;
                let key = self.add_request(conference, &floors, party, None);
                self.requests[key].asked_ns = now_ns;
                self.enqueue(key, user_id);
                key
            }
        };
        self.advance(key, floor, Stage::Approved, 0);
        self.requests[key].set_note(note::BY_CONTROL);
        self.try_grant(key, now_ns, out);
        self.request_changed(key, Tell::ALL);
        self.settle(conference, now_ns, out);
        Ok(())
    }

    /// Takes a floor from a user, or ends its waiting for it: every request of its for that floor
    /// ends, with all floors it is for.
    ///
    /// # Errors
    /// There is no such conference, floor or user.
    pub fn revoke(
        &mut self,
        conference_id: u32,
        floor_id: u16,
        user_id: u16,
        now_ns: u64,
        out: &mut impl Output,
    ) -> Result<(), Refusal> {
        let (conference, floor, member) = self.place_of_user(conference_id, floor_id, user_id)?;
        let mut at = 0;
        while let Some(&key) = self.members[member].requests.get(at) {
            let request = &mut self.requests[key];
            if request.beneficiary.member != member || !request.has_floor(floor) {
                at += 1;
                continue;
            }
            request.set_note(note::BY_CONTROL);
            let status = match request.state {
                RequestState::Granted => RequestStatus::Revoked,
                RequestState::Waiting | RequestState::Ended(_) => RequestStatus::Denied,
            };
            self.end(key, RequestState::Ended(status), Tell::ALL, out);
        }
        self.settle(conference, now_ns, out);
        Ok(())
    }

    /// Who decides about a floor from now on. It is subscribed to the floor for as long.
    ///
    /// # Errors
    /// There is no such conference, floor or user.
    pub fn set_chair(
        &mut self,
        conference_id: u32,
        floor_id: u16,
        chair: Option<u16>,
    ) -> Result<(), Refusal> {
        let (conference, floor) = self.place(conference_id, floor_id)?;
        let user = |user_id| self.conferences[conference].user(user_id).ok_or(Refusal::Unknown);
        let member = chair.map(user).transpose()?;
        self.conferences[conference].floors[floor].chair = chair;
        if let Some(member) = member {
            self.members[member].stale |= 1 << floor;
            self.member_behind(member);
        }
        Ok(())
    }

    /// By which rules a floor is given from now on. Where fewer may hold it than do, it is revoked
    /// from those who got it last; where no chair decides any more, who waits for one waits in the
    /// queue. What a user has asked for stays, even if it is more than it might ask for now.
    ///
    /// # Errors
    /// There is no such conference or floor, or the policy lets nobody hold it.
    pub fn set_policy(
        &mut self,
        conference_id: u32,
        floor_id: u16,
        policy: FloorPolicy,
        now_ns: u64,
        out: &mut impl Output,
    ) -> Result<(), Refusal> {
        check_policy(&policy)?;
        let (conference, floor) = self.place(conference_id, floor_id)?;
        let place = &mut self.conferences[conference].floors[floor];
        let holders_max = usize::from(policy.holders_max);
        let undecided = policy.order != FloorOrder::Chair;
        place.policy = policy;
        loop {
            let holders = &self.conferences[conference].floors[floor].holders;
            let Some(last) = holders.last().filter(|_| holders.len() > holders_max) else { break };
            let key = last.request;
            self.requests[key].set_note(note::FEWER_HOLDERS);
            self.end(key, RequestState::Ended(RequestStatus::Revoked), Tell::ALL, out);
        }
        if undecided {
            self.accept_pending(conference, floor);
        }
        self.conferences[conference].freed |= 1 << floor;
        self.settle(conference, now_ns, out);
        self.arm_floor(conference, floor);
        Ok(())
    }

    fn accept_pending(&mut self, conference: Key, floor: usize) {
        loop {
            let waiting = &self.conferences[conference].floors[floor].waiting;
            let Some(pending) = waiting.iter().find(|it| it.stage == Stage::Pending) else {
                return;
            };
            let key = pending.request;
            self.advance(key, floor, Stage::Accepted, 0);
            self.request_changed(key, Tell::ALL);
        }
    }

    fn place_of_user(
        &self,
        conference_id: u32,
        floor_id: u16,
        user_id: u16,
    ) -> Result<(Key, usize, Key), Refusal> {
        let (conference, floor) = self.place(conference_id, floor_id)?;
        let member = self.conferences[conference].user(user_id).ok_or(Refusal::Unknown)?;
        Ok((conference, floor, member))
    }

    fn place(&self, conference_id: u32, floor_id: u16) -> Result<(Key, usize), Refusal> {
        let key = *self.conference_by_id.get(&conference_id).ok_or(Refusal::Unknown)?;
        let floor = self.conferences[key].floor(floor_id).ok_or(Refusal::Unknown)?;
        Ok((key, floor))
    }
}

fn check_policy(policy: &FloorPolicy) -> Result<(), Refusal> {
    let sensible = policy.holders_max > 0 && policy.requests_per_user_max > 0;
    if sensible { Ok(()) } else { Err(Refusal::Policy) }
}
