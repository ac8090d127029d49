//! What chairs decide: RFC 8855 sections 11 and 13.6.

use mrfp_io::Key;
use mrfp_protocol::bfcp::{Attributes, ErrorCode, Group, Primitive, RequestStatus, Value};

use super::FloorServer;
use super::compose::{self, TEXT_BYTES_MAX};
use super::conference::{Stage, Waiting};
use super::output::Output;
use super::receive::{Asking, Refused};
use super::request::{RequestState, Tell};

/// What a chair says of one floor of a request.
#[derive(Clone, Copy)]
struct Decision {
    floor: usize,
    status: RequestStatus,
    /// Where in the queue, from 1; 0 leaves it to the server.
    queue_position: u8,
}

/// What stands in OVERALL-REQUEST-STATUS or FLOOR-REQUEST-STATUS.
#[derive(Clone, Copy, Default)]
struct Said<'a> {
    status: Option<(u8, u8)>,
    note: &'a [u8],
}

impl FloorServer {
    /// Section 13.6: all that is said is carried out, or nothing.
    pub(super) fn chair_action(
        &mut self,
        asking: &Asking,
        request_id: u16,
        information: Attributes<'_>,
        out: &mut impl Output,
    ) -> Result<(), Refused> {
        let key = self.conferences[asking.conference].request(request_id);
        let key = key.ok_or(ErrorCode::FloorRequestIdDoesNotExist)?;
        let overall = overall(information);
        let mut note = overall.note;
        let mut some = false;
        for (floor_id, said) in floors(information) {
            self.decision(asking, key, floor_id, said, overall)?;
            note = if note.is_empty() { said.note } else { note };
            some = true;
        }
        if !some {
            return Err(ErrorCode::UnableToParse.into());
        }
        if !note.is_empty() && note.len() <= TEXT_BYTES_MAX && std::str::from_utf8(note).is_ok() {
            self.requests[key].set_note(note);
        }
        let length = compose::bare(&mut self.scratch, &asking.response(Primitive::ChairActionAck));
        self.respond(asking, length, out);
        for (floor_id, said) in floors(information) {
            let ended = matches!(self.requests[key].state, RequestState::Ended(_));
            if let Ok(decision) = self.decision(asking, key, floor_id, said, overall)
                && !ended
            {
                self.decide(key, decision, out);
            }
        }
        if self.requests[key].state == RequestState::Waiting {
            self.try_grant(key, asking.now_ns, out);
            self.request_changed(key, Tell::ALL);
        }
        self.settle(asking.conference, asking.now_ns, out);
        Ok(())
    }

    /// What is said of a floor, if this chair may say it and it is possible.
    fn decision(
        &self,
        asking: &Asking,
        key: Key,
        floor_id: u16,
        said: Said<'_>,
        overall: Said<'_>,
    ) -> Result<Decision, Refused> {
        let conference = &self.conferences[asking.conference];
        let request = &self.requests[key];
        let floor = conference.floor(floor_id).filter(|floor| request.has_floor(*floor));
        let floor = floor.ok_or(ErrorCode::InvalidFloorId)?;
        if conference.floors[floor].chair != Some(asking.header.user_id) {
            return Err(ErrorCode::UnauthorizedOperation.into());
        }
        let (status, queue_position) =
            said.status.or(overall.status).ok_or(ErrorCode::UnableToParse)?;
        let granted = request.state == RequestState::Granted;
        let impossible = |info| Refused { code: ErrorCode::GenericError, info };
        let status = RequestStatus::from_code(status);
        //= RFC 8855 section 11.1: Revoked is for what was granted, Denied for anything else.
        match status {
            Some(RequestStatus::Granted) => {}
            Some(RequestStatus::Accepted | RequestStatus::Denied) if !granted => {}
            Some(RequestStatus::Revoked) if granted => {}
            Some(RequestStatus::Accepted | RequestStatus::Denied) => {
                return Err(impossible("the request is granted: it can only be revoked"));
            }
            Some(RequestStatus::Revoked) => {
                return Err(impossible("the request is not granted: it can only be denied"));
            }
            _ => return Err(impossible("a chair accepts, grants, denies or revokes")),
        }
        let status = status.expect("it is one of these");
        Ok(Decision { floor, status, queue_position })
    }

    fn decide(&mut self, key: Key, decision: Decision, out: &mut impl Output) {
        let Decision { floor, status, queue_position } = decision;
        let stage = match status {
            RequestStatus::Denied | RequestStatus::Revoked => {
                self.end(key, RequestState::Ended(status), Tell::ALL, out);
                return;
            }
            RequestStatus::Granted => Stage::Approved,
            _ => Stage::Accepted,
        };
        self.advance(key, floor, stage, queue_position);
    }

    /// Puts a request that waits for a floor into another stage, or elsewhere in the queue.
    pub(super) fn advance(&mut self, key: Key, floor: usize, stage: Stage, position: u8) {
        let conference = self.requests[key].conference;
        let place = &mut self.conferences[conference].floors[floor];
        // One that is granted does not wait, and stays.
        if let Some(waiting) = place.dequeue(key) {
            self.requests[key].undecided -= u8::from(waiting.stage == Stage::Pending);
            place.enqueue(Waiting { stage, ..waiting }, position);
            self.floor_changed(conference, floor);
        }
    }
}

fn overall(information: Attributes<'_>) -> Said<'_> {
    let mut groups = information.filter_map(|attribute| match attribute.value {
        Value::Grouped(Group::OverallRequestStatus(_), inner) => Some(said(inner)),
        _ => None,
    });
    groups.next().unwrap_or_default()
}

fn floors(information: Attributes<'_>) -> impl Iterator<Item = (u16, Said<'_>)> {
    information.filter_map(|attribute| match attribute.value {
        Value::Grouped(Group::FloorRequestStatus(floor_id), inner) => Some((floor_id, said(inner))),
        _ => None,
    })
}

fn said(attributes: Attributes<'_>) -> Said<'_> {
    let mut said = Said::default();
    for attribute in attributes {
        match attribute.value {
            Value::RequestStatus { status, queue_position } => {
                said.status = said.status.or(Some((status, queue_position)));
            }
            Value::StatusInfo(note) if said.note.is_empty() => said.note = note,
            _ => {}
        }
    }
    said
}
