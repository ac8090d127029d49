//! Telling whoever is concerned how things are: states, not steps, at the end of a turn.

use mrfp_io::Key;
use mrfp_protocol::bfcp::{Fragments, Header, Primitive, RequestStatus, Transport};

use super::association::{Association, Due, NOTICES_MAX, Told};
use super::compose::View;
use super::granting::note;
use super::member::{Member, Presence};
use super::output::Output;
use super::request::{RequestState, Tell};
use super::timers::{NEVER, Waiter};
use super::{FloorServer, Participant};

impl FloorServer {
    /// Tells of everything that has changed since the last time. To be called at the end of a turn.
    pub fn flush(&mut self, now_ns: u64, out: &mut impl Output) {
        while let Some(key) = self.resumed.pop() {
            self.grant_waiting_of(key, now_ns, out);
        }
        while let Some((conference, floor)) = self.changed_floors.pop() {
            self.tell_subscribers(conference, floor, out);
        }
        while let Some(key) = self.changed_requests.pop() {
            self.tell_parties(key, out);
        }
        while let Some(key) = self.behind.pop() {
            self.tell_member(key, now_ns, out);
        }
    }

    /// The stream of a participant takes again what is to be told of floors.
    pub fn caught_up(&mut self, participant: Participant) {
        if self.members.get(participant.0).is_some_and(|member| member.stale != 0) {
            self.member_behind(participant.0);
        }
    }

    /// So do those of all participants.
    pub fn all_caught_up(&mut self) {
        for index in 0..self.members.slots() {
            if let Some(key) = self.members.key_at(index) {
                self.caught_up(Participant(key));
            }
        }
    }

    /// Does what is due, and tells of it. To be called when
    /// [`next_deadline_ns`](Self::next_deadline_ns) has passed; earlier does no harm.
    pub fn expire(&mut self, now_ns: u64, out: &mut impl Output) {
        while let Some((armed_ns, waiter)) = self.timers.due(now_ns) {
            match waiter {
                Waiter::Floor { conference, floor } => {
                    let place = self.conferences.get_mut(conference);
                    let Some(place) = place.and_then(|it| it.floors.get_mut(floor)) else {
                        continue;
                    };
                    if place.armed_ns == armed_ns {
                        place.armed_ns = NEVER;
                        self.expire_floor(conference, floor, now_ns, out);
                    }
                }
                Waiter::Member(key) => {
                    let Some(member) = self.members.get_mut(key) else { continue };
                    if member.armed_ns == armed_ns {
                        member.armed_ns = NEVER;
                        self.expire_member(key, now_ns, out);
                        self.arm_member(key);
                    }
                }
            }
        }
        self.flush(now_ns, out);
    }

    /// When [`expire`](Self::expire) has something to do; `None` while there is nothing to wait for.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.timers.next_ns()
    }

    /// A floor is not as subscribers know it.
    pub(super) fn floor_changed(&mut self, conference: Key, floor: usize) {
        let place = &mut self.conferences[conference].floors[floor];
        if !std::mem::replace(&mut place.listed, true) {
            self.changed_floors.push((conference, floor));
        }
    }

    /// A request is not as those know it who are to be told.
    pub(super) fn request_changed(&mut self, key: Key, tell: Tell) {
        let request = &mut self.requests[key];
        request.tell.beneficiary |= tell.beneficiary;
        request.tell.requested_by |= tell.requested_by;
        if !std::mem::replace(&mut request.listed, true) {
            self.changed_requests.push(key);
        }
    }

    /// A member has something to be told.
    pub(super) fn member_behind(&mut self, key: Key) {
        if let Some(member) = self.members.get_mut(key)
            && !std::mem::replace(&mut member.listed, true)
        {
            self.behind.push(key);
        }
    }

    /// Sees to it that a member comes up in time.
    pub(super) fn arm_member(&mut self, key: Key) {
        if let Some(member) = self.members.get_mut(key) {
            let deadline_ns = member.deadline_ns();
            self.timers.arm(&mut member.armed_ns, deadline_ns, Waiter::Member(key));
        }
    }

    /// One FloorStatus for all subscribers that have a stream and read it; for the others it is
    /// remembered that there is something to tell.
    fn tell_subscribers(&mut self, conference_key: Key, floor: usize, out: &mut impl Output) {
        let Self { conferences, members, requests, scratch, counters, behind, .. } = self;
        let Some(conference) = conferences.get_mut(conference_key) else { return };
        conference.floors[floor].listed = false;
        let conference = &*conference;
        let chair = conference.floors[floor].chair;
        let mut length = None;
        for key in conference.users() {
            let member = members.get(key).expect("who leaves is no user");
            if member.subscribed >> floor & 1 == 0 && chair != Some(member.user.user_id) {
                continue;
            }
            let Some(channel) = member.channel() else { continue };
            let by_datagrams = channel.transport == Transport::Unreliable;
            if by_datagrams || !out.takes(member.user.termination) {
                let member = members.get_mut(key).expect("it was there");
                member.stale |= 1 << floor;
                if by_datagrams && !std::mem::replace(&mut member.listed, true) {
                    behind.push(key);
                }
                continue;
            }
            let header = notification(conference.conference_id, member, Primitive::FloorStatus);
            let length = *length.get_or_insert_with(|| {
                let view = View { conference, members, requests };
                view.floor_status(scratch, &header, Some(floor))
            });
            // The message is the same for all but for whom it is to.
            scratch[10..12].copy_from_slice(&header.user_id.to_be_bytes());
            counters.sent[usize::from(header.primitive)] += 1;
            out.send(member.user.termination, &scratch[..length]);
        }
    }

    /// Tells beneficiary and requester how a request is. One that is over is forgotten when
    /// everybody has been told.
    fn tell_parties(&mut self, key: Key, out: &mut impl Output) {
        let Some(request) = self.requests.get_mut(key) else { return };
        request.listed = false;
        let tell = std::mem::take(&mut request.tell);
        let beneficiary = tell.beneficiary.then_some(request.beneficiary);
        let requested_by = request.requested_by.filter(|_| tell.requested_by);
        for party in [beneficiary, requested_by].into_iter().flatten() {
            let Some(member) = self.members.get_mut(party.member) else { continue };
            match (member.presence, &mut member.association) {
                (Presence::Connected(_), None) => {
                    self.send_told(party.member, Told::Request(key), out);
                }
                (Presence::Connected(_), Some(association)) => {
                    if !association.notices.contains(&key) {
                        association.notices.push_back(key);
                        self.requests[key].notices += 1;
                    }
                    self.member_behind(party.member);
                }
                // What is ongoing when it comes back it is told then.
                (Presence::Away | Presence::Lost { .. }, _) => {}
            }
        }
        self.forget_ended(key);
    }

    /// Frees a request that is over and that nobody is waiting to hear of.
    fn forget_ended(&mut self, key: Key) {
        let Some(request) = self.requests.get(key) else { return };
        let over = matches!(request.state, RequestState::Ended(_));
        if over && !request.listed && request.notices == 0 {
            let mut request = self.requests.remove(key).expect("it is there");
            if self.spare_requests.len() < SPARE_REQUESTS_MAX {
                request.clear();
                self.spare_requests.push(request);
            }
        }
    }

    /// Tells a member of the floors it has not heard of; over UDP of one thing at a time.
    fn tell_member(&mut self, key: Key, now_ns: u64, out: &mut impl Output) {
        let Some(member) = self.members.get_mut(key) else { return };
        member.listed = false;
        let Some(channel) = member.channel() else { return };
        match channel.transport {
            Transport::Reliable => {
                let termination = member.user.termination;
                while self.members[key].stale != 0 && out.takes(termination) {
                    if let Some(floor) = take_lowest(&mut self.members[key].stale) {
                        self.send_told(key, Told::Floor(floor), out);
                    }
                }
            }
            Transport::Unreliable => self.begin_transaction(key, now_ns, out),
        }
    }

    /// Over a stream: how something is now.
    fn send_told(&mut self, to: Key, told: Told, out: &mut impl Output) {
        let length = self.write_told(to, told, 0);
        out.send(self.members[to].user.termination, &self.scratch[..length]);
    }

    /// Writes how something is now, and counts that as sent.
    fn write_told(&mut self, to: Key, told: Told, transaction_id: u16) -> usize {
        let Self { conferences, members, requests, scratch, counters, .. } = self;
        let member = &members[to];
        let conference = &conferences[member.conference];
        let view = View { conference, members, requests };
        let primitive = match told {
            Told::Request(_) => Primitive::FloorRequestStatus,
            Told::Floor(_) => Primitive::FloorStatus,
        };
        counters.sent[usize::from(primitive.code())] += 1;
        let header = notification(conference.conference_id, member, primitive);
        let header = Header { transaction_id, ..header };
        match told {
            Told::Request(request) => view.floor_request_status(scratch, &header, request),
            Told::Floor(floor) => view.floor_status(scratch, &header, Some(floor)),
        }
    }

    /// Over UDP: sends the next notification as a request of ours, if none is under way.
    fn begin_transaction(&mut self, to: Key, now_ns: u64, out: &mut impl Output) {
        let member = &mut self.members[to];
        let association = member.association.as_mut().expect("it is connected by UDP");
        if association.is_busy() {
            return;
        }
        if association.notices.len() > NOTICES_MAX {
            self.lose(to, now_ns, out);
            return;
        }
        let told = if let Some(request) = association.notices.pop_front() {
            Told::Request(request)
        } else if let Some(floor) = take_lowest(&mut member.stale) {
            Told::Floor(floor)
        } else {
            return;
        };
        let transaction_id = association.next_transaction_id();
        let length = self.write_told(to, told, transaction_id);
        let memory = self.spare_memory.take();
        let member = &mut self.members[to];
        let association = member.association.as_mut().expect("it is connected by UDP");
        association.begin((told, transaction_id), &self.scratch[..length], memory, now_ns);
        let termination = member.user.termination;
        send_datagrams(termination, &self.scratch[..length], &mut self.datagram, out);
        if let Told::Request(request) = told {
            self.requests[request].notices -= 1;
            self.forget_ended(request);
        }
        self.arm_member(to);
    }

    /// Over UDP: a participant has acknowledged a request of ours; the next one may go.
    pub(super) fn acknowledged(&mut self, key: Key, transaction_id: u16, now_ns: u64) {
        let association = self.members[key].association.as_mut();
        let memory = association.and_then(|it| it.acknowledge(transaction_id, now_ns));
        if let Some(memory) = memory {
            self.spare_memory.give(memory);
            self.member_behind(key);
        }
    }

    fn expire_member(&mut self, key: Key, now_ns: u64, out: &mut impl Output) {
        let Self { members, spare_memory, datagram, counters, .. } = self;
        let Some(member) = members.get_mut(key) else { return };
        match member.presence {
            Presence::Lost { until_ns } if until_ns <= now_ns => self.grace_ends(key, now_ns, out),
            Presence::Lost { .. } | Presence::Away => {}
            Presence::Connected(_) => {
                let Some(association) = &mut member.association else { return };
                match association.expire(now_ns, spare_memory) {
                    Due::Nothing => {}
                    Due::Retransmit(message) => {
                        counters.retransmissions += 1;
                        send_datagrams(member.user.termination, message, datagram, out);
                    }
                    Due::Broken => self.lose(key, now_ns, out),
                }
            }
        }
    }

    /// Over UDP: the connection is broken (RFC 8855 section 8.3.1).
    fn lose(&mut self, key: Key, now_ns: u64, out: &mut impl Output) {
        let termination = self.members[key].user.termination;
        self.lost(key, now_ns);
        out.close(termination);
    }

    /// Who was lost has not come back: it keeps nothing.
    fn grace_ends(&mut self, key: Key, now_ns: u64, out: &mut impl Output) {
        let ends = (RequestStatus::Revoked, RequestStatus::Denied);
        self.end_all_of(key, ends, note::CONNECTION_LOST, out);
        self.unsubscribe(key);
        let member = &mut self.members[key];
        member.presence = Presence::Away;
        let conference = member.conference;
        self.settle(conference, now_ns, out);
    }

    /// The connection of a member is gone; its grace begins, if it has anything to lose.
    pub(super) fn lost(&mut self, key: Key, now_ns: u64) {
        let Some(member) = self.members.get_mut(key) else { return };
        if member.channel().is_none() {
            return;
        }
        let grace_ns = self.conferences[member.conference].policy.grace_ns;
        member.presence = Presence::Lost { until_ns: now_ns.saturating_add(grace_ns) };
        member.stale = 0;
        self.dissolve(key);
        self.arm_member(key);
    }

    /// Gives up what UDP needed for a member.
    pub(super) fn dissolve(&mut self, key: Key) {
        let Some(association) = self.members[key].association.take() else { return };
        let mut association: Association = *association;
        while let Some(request) = association.notices.pop_front() {
            self.requests[request].notices -= 1;
            self.forget_ended(request);
        }
        association.dissolve(&mut self.spare_memory);
    }
}

/// Memory that is kept for requests to come: less than a megabyte with the longest texts.
const SPARE_REQUESTS_MAX: usize = 1024;

/// RFC 8855 section 8.2: the transaction ID is 0 over a reliable transport.
fn notification(conference_id: u32, member: &Member, primitive: Primitive) -> Header {
    let transport = member.channel().map_or(Transport::Reliable, |channel| channel.transport);
    Header::new(transport, primitive, conference_id, 0, member.user.user_id)
}

/// Sends a message over UDP, in fragments if it must be.
pub(super) fn send_datagrams(
    termination: Key,
    message: &[u8],
    datagram: &mut [u8],
    out: &mut impl Output,
) {
    let mut fragments = Fragments::new(message, datagram.len());
    while let Some(length) = fragments.next(datagram) {
        out.send(termination, &datagram[..length]);
    }
}

/// The place of the lowest bit, which is cleared.
fn take_lowest(mask: &mut u64) -> Option<usize> {
    if *mask == 0 {
        return None;
    }
    let lowest = mask.trailing_zeros() as usize;
    *mask &= *mask - 1;
    Some(lowest)
}
