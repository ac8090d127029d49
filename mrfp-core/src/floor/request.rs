//! A floor request (RFC 8855 section 4.1).

use mrfp_io::Key;
use mrfp_protocol::bfcp::{Priority, RequestStatus};

use super::policy::FLOORS_PER_REQUEST_MAX;

/// One request, for one floor or several. Where it stands with each floor is known to the floor.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) request_id: u16,
    pub(super) conference: Key,
    /// Who is to have the floors.
    pub(super) beneficiary: Party,
    /// Who asked, where that is somebody else; `None` also where the control plane did.
    pub(super) requested_by: Option<Party>,
    /// As it was asked for.
    pub(super) priority: Option<Priority>,
    pub(super) state: RequestState,
    floors: [u8; FLOORS_PER_REQUEST_MAX],
    floor_count: u8,
    /// Of these, those whose chair has to decide.
    pub(super) undecided: u8,
    /// PARTICIPANT-PROVIDED-INFO.
    pub(super) info: Vec<u8>,
    /// STATUS-INFO: a word on how it came to be as it is.
    pub(super) note: Vec<u8>,
    pub(super) asked_ns: u64,
    /// Who has to be told of its state.
    pub(super) tell: Tell,
    /// It is in the list of those that have changed.
    pub(super) listed: bool,
    /// Associations that wait to tell of it.
    pub(super) notices: u32,
}

/// A user of the conference, who may leave before the request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Party {
    pub(super) user_id: u16,
    pub(super) member: Key,
}

/// How far a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RequestState {
    /// For a chair, or in queues.
    Waiting,
    /// It holds its floors.
    Granted,
    /// It is over: Denied, Cancelled, Released or Revoked.
    Ended(RequestStatus),
}

/// Who has to be told.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Tell {
    pub(super) beneficiary: bool,
    pub(super) requested_by: bool,
}

impl Tell {
    pub(super) const ALL: Self = Self { beneficiary: true, requested_by: true };

    /// Everybody but whoever gets an answer.
    pub(super) fn but(request: &Request, answered: Key) -> Self {
        Self {
            beneficiary: request.beneficiary.member != answered,
            requested_by: request.requested_by.is_some_and(|party| party.member != answered),
        }
    }
}

impl Default for Request {
    fn default() -> Self {
        let nobody = Key { index: 0, generation: 0 };
        Self {
            request_id: 0,
            conference: nobody,
            beneficiary: Party { user_id: 0, member: nobody },
            requested_by: None,
            priority: None,
            state: RequestState::Waiting,
            floors: [0; FLOORS_PER_REQUEST_MAX],
            floor_count: 0,
            undecided: 0,
            info: Vec::new(),
            note: Vec::new(),
            asked_ns: 0,
            tell: Tell::default(),
            listed: false,
            notices: 0,
        }
    }
}

impl Request {
    /// Its floors, by their place in the conference.
    pub(super) fn floors(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let floors = self.floors;
        (0..usize::from(self.floor_count)).map(move |index| usize::from(floors[index]))
    }

    pub(super) fn has_floor(&self, floor: usize) -> bool {
        self.floors().any(|own| own == floor)
    }

    pub(super) fn set_floors(&mut self, floors: &[u8]) {
        self.floors[..floors.len()].copy_from_slice(floors);
        self.floor_count = floors.len() as u8;
    }

    /// Whether that member asked for it or is to have its floors.
    pub(super) fn is_of(&self, member: Key) -> bool {
        self.beneficiary.member == member
            || self.requested_by.is_some_and(|party| party.member == member)
    }

    /// Ready for another, its memory kept.
    pub(super) fn clear(&mut self) {
        let mut info = std::mem::take(&mut self.info);
        let mut note = std::mem::take(&mut self.note);
        info.clear();
        note.clear();
        *self = Self { info, note, ..Self::default() };
    }

    pub(super) fn set_note(&mut self, note: &[u8]) {
        self.note.clear();
        self.note.extend_from_slice(note);
    }
}
