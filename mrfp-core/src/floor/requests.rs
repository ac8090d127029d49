//! What participants ask: RFC 8855 sections 13.1 to 13.5.

use mrfp_io::Key;
use mrfp_protocol::bfcp::{ClientMessage, ErrorCode, FloorIds, Primitive, Priority, RequestStatus};

use super::FloorServer;
use super::association::Told;
use super::compose::{self, TEXT_BYTES_MAX, View};
use super::conference::{Stage, Waiting};
use super::granting::note;
use super::member::Presence;
use super::output::Output;
use super::policy::{
    FLOORS_PER_REQUEST_MAX, FloorOrder, REQUESTS_PER_FLOOR_MAX, ThirdPartyRequests,
};
use super::receive::{Asking, Refused};
use super::request::{Party, Request, RequestState, Tell};

/// Floors of a request, by their place in the conference.
#[derive(Default)]
pub(super) struct Floors {
    places: [u8; FLOORS_PER_REQUEST_MAX],
    count: usize,
}

impl Floors {
    pub(super) fn places(&self) -> &[u8] {
        &self.places[..self.count]
    }

    /// One floor more; one that is there already is no other.
    pub(super) fn add(&mut self, place: usize) -> Result<(), Refused> {
        if self.places().contains(&(place as u8)) {
            return Ok(());
        }
        if self.count == FLOORS_PER_REQUEST_MAX {
            let info = "too many floors in one request";
            return Err(Refused { code: ErrorCode::GenericError, info });
        }
        self.places[self.count] = place as u8;
        self.count += 1;
        Ok(())
    }
}

impl FloorServer {
    /// Section 13.1.
    pub(super) fn floor_request(
        &mut self,
        asking: &Asking,
        message: ClientMessage<'_>,
        out: &mut impl Output,
    ) -> Result<(), Refused> {
        let ClientMessage::FloorRequest { floors: ids, beneficiary, info, priority } = message
        else {
            unreachable!("it is one");
        };
        let floors = self.floors_of(asking.conference, ids)?;
        let asker = self.party(asking.member);
        let beneficiary = match beneficiary {
            Some(user_id) if user_id != asker.user_id => {
                self.third_party(asking, &floors, user_id)?
            }
            _ => asker,
        };
        let requested_by = (beneficiary != asker).then_some(asker);
        self.check_limits(asking.conference, &floors, beneficiary, requested_by)?;
        let key = self.add_request(asking.conference, &floors, beneficiary, requested_by);
        let request = &mut self.requests[key];
        request.priority = priority;
        request.asked_ns = asking.now_ns;
        // What is no text, or too long to be passed on, is of no use to anybody.
        if info.len() <= TEXT_BYTES_MAX && std::str::from_utf8(info).is_ok() {
            request.info.extend_from_slice(info);
        }
        self.enqueue(key, asker.user_id);
        self.try_grant(key, asking.now_ns, out);
        self.settle(asking.conference, asking.now_ns, out);
        self.request_changed(key, Tell::but(&self.requests[key], asking.member));
        self.respond_status(asking, key, out);
        Ok(())
    }

    /// Section 13.4.
    pub(super) fn floor_release(
        &mut self,
        asking: &Asking,
        request_id: u16,
        out: &mut impl Output,
    ) -> Result<(), Refused> {
        let key = self.request(asking, request_id)?;
        let request = &self.requests[key];
        if !request.is_of(asking.member) {
            return Err(ErrorCode::UnauthorizedOperation.into());
        }
        let status = match request.state {
            RequestState::Granted => RequestStatus::Released,
            RequestState::Waiting | RequestState::Ended(_) => RequestStatus::Cancelled,
        };
        let tell = Tell::but(request, asking.member);
        let repeated = self.is_telling(asking.member, Told::Request(key));
        let tell = if repeated { Tell::ALL } else { tell };
        self.end(key, RequestState::Ended(status), tell, out);
        // Answered before others profit: what they are told comes later.
        self.respond_status(asking, key, out);
        self.settle(asking.conference, asking.now_ns, out);
        Ok(())
    }

    /// Section 13.2.
    pub(super) fn floor_request_query(
        &mut self,
        asking: &Asking,
        request_id: u16,
        out: &mut impl Output,
    ) -> Result<(), Refused> {
        let key = self.request(asking, request_id)?;
        self.respond_status(asking, key, out);
        if self.is_telling(asking.member, Told::Request(key)) {
            self.request_changed(key, Tell::ALL);
        }
        Ok(())
    }

    /// Section 13.3.
    pub(super) fn user_query(
        &mut self,
        asking: &Asking,
        beneficiary: Option<u16>,
        out: &mut impl Output,
    ) -> Result<(), Refused> {
        let Self { conferences, members, requests, scratch, .. } = self;
        let conference = &conferences[asking.conference];
        let about = match beneficiary {
            None => asking.member,
            Some(user_id) => conference.user(user_id).ok_or(ErrorCode::UserDoesNotExist)?,
        };
        let header = asking.response(Primitive::UserStatus);
        let view = View { conference, members, requests };
        let length = view.user_status(scratch, &header, &members[about]);
        self.respond(asking, length, out);
        Ok(())
    }

    /// Section 13.5. What is subscribed to is what the last query names.
    pub(super) fn floor_query(
        &mut self,
        asking: &Asking,
        ids: FloorIds<'_>,
        out: &mut impl Output,
    ) -> Result<(), Refused> {
        let conference = &self.conferences[asking.conference];
        let mut wanted = 0u64;
        let mut first = None;
        for id in ids {
            let floor = conference.floor(id).ok_or(ErrorCode::InvalidFloorId)?;
            first = first.or(Some(floor));
            wanted |= 1 << floor;
        }
        self.subscribe(asking.member, wanted);
        let Self { conferences, members, requests, scratch, .. } = self;
        let conference = &conferences[asking.conference];
        let header = asking.response(Primitive::FloorStatus);
        let length = View { conference, members, requests }.floor_status(scratch, &header, first);
        let told = first.filter(|first| !self.is_telling(asking.member, Told::Floor(*first)));
        let member = &mut self.members[asking.member];
        member.stale |= wanted;
        member.stale &= !told.map_or(0, |first| 1 << first);
        self.member_behind(asking.member);
        self.respond(asking, length, out);
        Ok(())
    }

    /// RFC 8855 section 6.2: the participant gives up whatever it has.
    pub(super) fn goodbye(&mut self, asking: &Asking, out: &mut impl Output) {
        let length = compose::bare(&mut self.scratch, &asking.response(Primitive::GoodbyeAck));
        self.respond(asking, length, out);
        let ends = (RequestStatus::Released, RequestStatus::Cancelled);
        self.end_all_of(asking.member, ends, note::LEFT, out);
        self.unsubscribe(asking.member);
        self.dissolve(asking.member);
        let member = &mut self.members[asking.member];
        member.presence = Presence::Away;
        let termination = member.user.termination;
        out.close(termination);
        self.settle(asking.conference, asking.now_ns, out);
    }

    /// Makes a request that has not been put to its floors yet.
    pub(super) fn add_request(
        &mut self,
        conference: Key,
        floors: &Floors,
        beneficiary: Party,
        requested_by: Option<Party>,
    ) -> Key {
        let mut request = self.spare_requests.pop().unwrap_or_default();
        request.conference = conference;
        request.beneficiary = beneficiary;
        request.requested_by = requested_by;
        request.set_floors(floors.places());
        let key = self.requests.insert(request).expect("there is room");
        self.requests[key].request_id = self.conferences[conference].add_request(key);
        self.members[beneficiary.member].requests.push(key);
        if let Some(party) = requested_by {
            self.members[party.member].requests.push(key);
        }
        key
    }

    /// Puts a request to its floors: to the chair, unless the chair itself asks, or into the queue.
    pub(super) fn enqueue(&mut self, key: Key, asker: u16) {
        let request = &mut self.requests[key];
        let (conference, floors) = (request.conference, request.floors());
        let priority = request.priority.unwrap_or(Priority::Normal);
        for floor in floors {
            let place = &mut self.conferences[conference].floors[floor];
            let decided = place.policy.order != FloorOrder::Chair || place.chair == Some(asker);
            let stage = if decided { Stage::Accepted } else { Stage::Pending };
            request.undecided += u8::from(!decided);
            place.enqueue(Waiting { request: key, stage, priority }, 0);
        }
        for floor in self.requests[key].floors() {
            self.floor_changed(conference, floor);
        }
    }

    /// Whether there is room for one more request, everywhere: Error 8.
    pub(super) fn check_limits(
        &self,
        conference: Key,
        floors: &Floors,
        beneficiary: Party,
        requested_by: Option<Party>,
    ) -> Result<(), Refused> {
        let too_many = || Err(ErrorCode::MaximumRequestsReached.into());
        if self.requests.vacant().is_none() {
            return too_many();
        }
        for party in [Some(beneficiary), requested_by].into_iter().flatten() {
            if self.members[party.member].requests.len() >= self.limits.requests_per_user_max {
                return too_many();
            }
        }
        let own = &self.members[beneficiary.member].requests;
        for &floor in floors.places() {
            let floor = usize::from(floor);
            let place = &self.conferences[conference].floors[floor];
            let of_user = own.iter().filter(|key| {
                let request: &Request = &self.requests[**key];
                request.beneficiary == beneficiary && request.has_floor(floor)
            });
            let user_max = usize::from(place.policy.requests_per_user_max);
            if place.request_count() >= REQUESTS_PER_FLOOR_MAX || of_user.count() >= user_max {
                return too_many();
            }
        }
        Ok(())
    }

    /// What a floor query names from now on.
    pub(super) fn subscribe(&mut self, key: Key, wanted: u64) {
        let chaired = self.chaired(key);
        let member = &mut self.members[key];
        member.subscribed = wanted;
        member.stale &= wanted | chaired;
    }

    /// Whether a member is, over UDP, being told of something, so that it has to be told again when
    /// it is answered something newer meanwhile.
    fn is_telling(&self, key: Key, told: Told) -> bool {
        let association = self.members[key].association.as_ref();
        association.is_some_and(|association| association.is_telling(told))
    }

    /// Floors a member is the chair of, by place.
    pub(super) fn chaired(&self, key: Key) -> u64 {
        let member = &self.members[key];
        let floors = self.conferences[member.conference].floors.iter().enumerate();
        let chaired = floors.filter(|(_, floor)| floor.chair == Some(member.user.user_id));
        chaired.fold(0, |mask, (place, _)| mask | 1 << place)
    }

    pub(super) fn unsubscribe(&mut self, key: Key) {
        self.subscribe(key, 0);
    }

    pub(super) fn party(&self, member: Key) -> Party {
        Party { user_id: self.members[member].user.user_id, member }
    }

    fn respond_status(&mut self, asking: &Asking, key: Key, out: &mut impl Output) {
        let Self { conferences, members, requests, scratch, .. } = self;
        let conference = &conferences[asking.conference];
        let header = asking.response(Primitive::FloorRequestStatus);
        let view = View { conference, members, requests };
        let length = view.floor_request_status(scratch, &header, key);
        self.respond(asking, length, out);
    }

    fn request(&self, asking: &Asking, request_id: u16) -> Result<Key, Refused> {
        let key = self.conferences[asking.conference].request(request_id);
        Ok(key.ok_or(ErrorCode::FloorRequestIdDoesNotExist)?)
    }

    fn floors_of(&self, conference: Key, ids: FloorIds<'_>) -> Result<Floors, Refused> {
        let conference = &self.conferences[conference];
        let mut floors = Floors::default();
        for id in ids {
            floors.add(conference.floor(id).ok_or(ErrorCode::InvalidFloorId)?)?;
        }
        Ok(floors)
    }

    /// The beneficiary, if the asker may ask for others.
    fn third_party(
        &self,
        asking: &Asking,
        floors: &Floors,
        user_id: u16,
    ) -> Result<Party, Refused> {
        let conference = &self.conferences[asking.conference];
        let asker = Some(asking.header.user_id);
        let chairs = |floor: &u8| conference.floors[usize::from(*floor)].chair == asker;
        let allowed = match conference.policy.third_party_requests {
            ThirdPartyRequests::Nobody => false,
            ThirdPartyRequests::Chairs => floors.places().iter().all(chairs),
            ThirdPartyRequests::Everybody => true,
        };
        if !allowed {
            return Err(ErrorCode::UnauthorizedOperation.into());
        }
        let member = conference.user(user_id).ok_or(ErrorCode::UserDoesNotExist)?;
        Ok(Party { user_id, member })
    }
}
