//! Who gets a floor, and who has to give it back.

use mrfp_io::Key;
use mrfp_protocol::bfcp::RequestStatus;

use super::FloorServer;
use super::conference::{Conference, Floor, Holder, Stage};
use super::member::Presence;
use super::output::{HolderChange, Output};
use super::request::{Request, RequestState, Tell};
use super::timers::Waiter;

/// Why a floor is taken away, for people (STATUS-INFO).
pub(super) mod note {
    pub(in super::super) const HOLDING_TIME: &[u8] = b"the holding time is over";
    pub(in super::super) const GRANTED_TO_ANOTHER: &[u8] = b"granted to somebody else";
    pub(in super::super) const FEWER_HOLDERS: &[u8] = b"fewer may hold this floor now";
    pub(in super::super) const CONNECTION_LOST: &[u8] = b"the connection was lost";
    pub(in super::super) const LEFT: &[u8] = b"the participant has left";
    pub(in super::super) const BY_CONTROL: &[u8] = b"by the operator";
}

impl FloorServer {
    /// Grants a request that waits for nothing any more: a chair has decided about none of its floors
    /// against it, its beneficiary is there, and each floor has room or was granted by its chair,
    /// who then takes it from whoever has held it longest (RFC 8855 section 4.2).
    pub(super) fn try_grant(&mut self, key: Key, now_ns: u64, out: &mut impl Output) -> bool {
        let request = &self.requests[key];
        let (conference_key, floors) = (request.conference, request.floors());
        if let Some(member) = self.members.get(request.beneficiary.member)
            && let Presence::Lost { .. } = member.presence
        {
            return false;
        }
        let conference = &self.conferences[conference_key];
        let waits_at = |floor| is_full_for(&conference.floors[floor], key);
        if request.undecided > 0 || floors.clone().any(waits_at) {
            return false;
        }
        for floor in floors.clone() {
            while self.conferences[conference_key].floors[floor].is_full() {
                let oldest = self.conferences[conference_key].floors[floor].holders[0].request;
                let revoked = RequestState::Ended(RequestStatus::Revoked);
                self.requests[oldest].set_note(note::GRANTED_TO_ANOTHER);
                self.end(oldest, revoked, Tell::ALL, out);
            }
        }
        for floor in floors {
            let place = &mut self.conferences[conference_key].floors[floor];
            place.dequeue(key).expect("it waited");
            place.holders.push(Holder { request: key, since_ns: now_ns });
            self.floor_changed(conference_key, floor);
            self.arm_floor(conference_key, floor);
            self.tell_holder(conference_key, key, floor, true, out);
        }
        let request = &mut self.requests[key];
        request.state = RequestState::Granted;
        self.counters.count_wait(now_ns.saturating_sub(request.asked_ns));
        true
    }

    /// Ends a request: it leaves its floors, and whoever is concerned will be told. What it leaves
    /// is not given to others until [`settle`](Self::settle).
    pub(super) fn end(&mut self, key: Key, ended: RequestState, tell: Tell, out: &mut impl Output) {
        assert!(matches!(ended, RequestState::Ended(_)));
        let request = &mut self.requests[key];
        let granted = match request.state {
            RequestState::Waiting => false,
            RequestState::Granted => true,
            RequestState::Ended(_) => unreachable!("it ends once"),
        };
        request.state = ended;
        let (conference_key, floors) = (request.conference, request.floors());
        let (request_id, beneficiary) = (request.request_id, request.beneficiary);
        let parties = [Some(beneficiary), request.requested_by];
        let conference = &mut self.conferences[conference_key];
        conference.remove_request(request_id);
        for floor in floors.clone() {
            let place = &mut conference.floors[floor];
            if granted {
                place.holders.retain(|holder| holder.request != key);
                conference.freed |= 1 << floor;
            } else {
                place.dequeue(key).expect("it waited");
            }
        }
        for party in parties.into_iter().flatten() {
            if let Some(member) = self.members.get_mut(party.member) {
                member.requests.retain(|own| *own != key);
            }
        }
        for floor in floors {
            self.floor_changed(conference_key, floor);
            if granted {
                self.tell_holder(conference_key, key, floor, false, out);
            }
        }
        self.request_changed(key, tell);
    }

    /// Gives what has become free to those who wait, in their order.
    pub(super) fn settle(&mut self, conference_key: Key, now_ns: u64, out: &mut impl Output) {
        loop {
            let freed = &mut self.conferences[conference_key].freed;
            if *freed == 0 {
                return;
            }
            let floor = freed.trailing_zeros() as usize;
            *freed &= *freed - 1;
            let mut at = 0;
            loop {
                let place = &self.conferences[conference_key].floors[floor];
                let Some(waiting) = place.waiting.get(at) else { break };
                let served = match waiting.stage {
                    Stage::Approved => true,
                    Stage::Accepted => !place.is_full(),
                    Stage::Pending => false,
                };
                if !served {
                    break;
                }
                let key = waiting.request;
                if self.try_grant(key, now_ns, out) {
                    self.request_changed(key, Tell::ALL);
                    // It may have taken places of others away, from the queue nobody but itself.
                } else {
                    at += 1;
                }
            }
        }
    }

    /// Tries every request of a member that waits.
    pub(super) fn grant_waiting_of(&mut self, member: Key, now_ns: u64, out: &mut impl Output) {
        let mut at = 0;
        while let Some(&key) = self.members.get(member).and_then(|it| it.requests.get(at)) {
            if self.requests[key].state == RequestState::Waiting && self.try_grant(key, now_ns, out)
            {
                self.request_changed(key, Tell::ALL);
            }
            at += 1;
        }
        if let Some(member) = self.members.get(member) {
            self.settle(member.conference, now_ns, out);
        }
    }

    /// Ends all requests whose floors a member holds or would get: `granted` says how those end
    /// that it holds, `waiting` the others.
    pub(super) fn end_all_of(
        &mut self,
        member: Key,
        (granted, waiting): (RequestStatus, RequestStatus),
        note: &[u8],
        out: &mut impl Output,
    ) {
        let mut at = 0;
        while let Some(&key) = self.members.get(member).and_then(|it| it.requests.get(at)) {
            let request = &mut self.requests[key];
            if request.beneficiary.member != member {
                at += 1;
                continue;
            }
            request.set_note(note);
            let status = if request.state == RequestState::Granted { granted } else { waiting };
            self.end(key, RequestState::Ended(status), Tell::ALL, out);
        }
    }

    /// Takes a floor from those who have held it too long.
    pub(super) fn expire_floor(
        &mut self,
        conference_key: Key,
        floor: usize,
        now_ns: u64,
        out: &mut impl Output,
    ) {
        loop {
            let place = &self.conferences[conference_key].floors[floor];
            let Some(holding_max_ns) = place.policy.holding_max_ns else { break };
            let Some(oldest) = place.holders.first() else { break };
            if oldest.since_ns.saturating_add(holding_max_ns) > now_ns {
                break;
            }
            let key = oldest.request;
            self.requests[key].set_note(note::HOLDING_TIME);
            self.end(key, RequestState::Ended(RequestStatus::Revoked), Tell::ALL, out);
        }
        self.settle(conference_key, now_ns, out);
        self.arm_floor(conference_key, floor);
    }

    /// Sees to it that a floor comes up when its oldest holder has had it long enough.
    pub(super) fn arm_floor(&mut self, conference: Key, floor: usize) {
        let place = &mut self.conferences[conference].floors[floor];
        if let (Some(holding_max_ns), Some(oldest)) =
            (place.policy.holding_max_ns, place.holders.first())
        {
            let deadline_ns = oldest.since_ns.saturating_add(holding_max_ns);
            let waiter = Waiter::Floor { conference, floor };
            self.timers.arm(&mut place.armed_ns, deadline_ns, waiter);
        }
    }

    fn tell_holder(
        &self,
        conference: Key,
        request: Key,
        floor: usize,
        holds: bool,
        out: &mut impl Output,
    ) {
        let conference = &self.conferences[conference];
        let user_id = self.requests[request].beneficiary.user_id;
        let (conference_id, floor_id) =
            (conference.conference_id, conference.floors[floor].floor_id);
        // One user may hold a floor by several requests.
        if !self.holds_by_another(conference, request, floor) {
            out.holder_changed(HolderChange { conference_id, floor_id, user_id, holds });
        }
    }

    fn holds_by_another(&self, conference: &Conference, request: Key, floor: usize) -> bool {
        let user_id = self.requests[request].beneficiary.user_id;
        conference.floors[floor].holders.iter().any(|holder| {
            let other: &Request = &self.requests[holder.request];
            holder.request != request && other.beneficiary.user_id == user_id
        })
    }
}

/// Whether a request that waits for a floor has to wait until there is room.
fn is_full_for(floor: &Floor, request: Key) -> bool {
    floor.is_full() && floor.stage(request) != Some(Stage::Approved)
}
