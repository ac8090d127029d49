//! The messages of the server, from its state.

use mrfp_io::Key;
use mrfp_protocol::bfcp::{
    AttributeType, GROUP_BYTES_MAX, Group, HEADER_BYTES, Header, Overflow, Primitive, Transport,
    Value, Writer,
};

use super::conference::Conference;
use super::member::Member;
use super::policy::{FLOORS_PER_REQUEST_MAX, NAME_BYTES_MAX, REQUESTS_PER_FLOOR_MAX, User};
use super::request::{Party, Request};
use crate::table::Table;

/// What messages tell of.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) conference: &'a Conference,
    pub(super) members: &'a Table<Member>,
    pub(super) requests: &'a Table<Request>,
}

/// Headers of FLOOR-REQUEST-INFORMATION, OVERALL-REQUEST-STATUS and FLOOR-REQUEST-STATUS, and the
/// REQUEST-STATUS in the last two.
const INFORMATION_BYTES: usize = 4 + 8 + 8;
/// The longest text that fits, alone, beside these; longer ones of clients are not passed on.
pub(super) const TEXT_BYTES_MAX: usize = GROUP_BYTES_MAX - INFORMATION_BYTES - 2;
/// Groups one request takes at most: one for each text it has.
const GROUPS_PER_REQUEST_MAX: usize = 6;
/// A message that no message exceeds.
pub(super) const MESSAGE_BYTES_MAX: usize =
    HEADER_BYTES + 256 + REQUESTS_PER_FLOOR_MAX * GROUPS_PER_REQUEST_MAX * GROUP_BYTES_MAX;

/// What must be said of a request fits one group: its floors, and the numbers of two users.
const _: () = assert!(4 + 8 + FLOORS_PER_REQUEST_MAX * 8 + 4 + 4 + 4 <= GROUP_BYTES_MAX);
const _: () =
    assert!(INFORMATION_BYTES + 4 + (2 + NAME_BYTES_MAX).next_multiple_of(4) <= GROUP_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX <= mrfp_protocol::bfcp::MESSAGE_BYTES_MAX);

impl View<'_> {
    /// FloorRequestStatus. RFC 8855 section 5.3.4 lets it have one FLOOR-REQUEST-INFORMATION only:
    /// texts that do not fit are left to FloorStatus and UserStatus.
    pub(super) fn floor_request_status(&self, out: &mut [u8], header: &Header, key: Key) -> usize {
        write(out, header, |writer| {
            let request = self.requests.get(key).expect("it is told of");
            let named = request.requested_by.is_some();
            self.put_information(writer, key, request, named, Extent::One)
        })
    }

    /// FloorStatus: a floor and all requests for it, those that hold it first. Without a floor it
    /// confirms that a subscription has ended (RFC 8855 section 13.5.1).
    pub(super) fn floor_status(
        &self,
        out: &mut [u8],
        header: &Header,
        floor: Option<usize>,
    ) -> usize {
        write(out, header, |writer| {
            let Some(floor) = floor else { return Ok(()) };
            let floor = &self.conference.floors[floor];
            writer.put(&Value::FloorId(floor.floor_id))?;
            let holding = floor.holders.iter().map(|holder| holder.request);
            let waiting = floor.waiting.iter().map(|waiting| waiting.request);
            for key in holding.chain(waiting) {
                let request = self.requests.get(key).expect("it is ongoing");
                self.put_information(writer, key, request, true, Extent::All)?;
            }
            Ok(())
        })
    }

    /// UserStatus: a user and all its requests.
    pub(super) fn user_status(&self, out: &mut [u8], header: &Header, member: &Member) -> usize {
        write(out, header, |writer| {
            let mut names = Names::of(&member.user);
            names.put(writer, Group::BeneficiaryInformation(member.user.user_id), 0)?;
            for key in &member.requests {
                let request = self.requests.get(*key).expect("it is ongoing");
                self.put_information(writer, *key, request, true, Extent::All)?;
            }
            Ok(())
        })
    }

    /// FLOOR-REQUEST-INFORMATION. Where the texts do not fit one group they go into further
    /// ones of the same request, each whole.
    fn put_information(
        &self,
        writer: &mut Writer<'_>,
        key: Key,
        request: &Request,
        named: bool,
        extent: Extent,
    ) -> Result<(), Overflow> {
        let mut left = Left::of(self, request, named);
        let mut first = true;
        while first || (extent == Extent::All && !left.is_empty()) {
            writer.group(Group::FloorRequestInformation(request.request_id), |writer| {
                self.put_statuses(writer, key, request, first, &mut left)?;
                left.put(writer, request, first)
            })?;
            first = false;
        }
        Ok(())
    }

    /// The status as a whole and for each floor; of floors only one where a group goes on with what
    /// an earlier one began.
    fn put_statuses(
        &self,
        writer: &mut Writer<'_>,
        key: Key,
        request: &Request,
        first: bool,
        left: &mut Left<'_>,
    ) -> Result<(), Overflow> {
        let overall = status(self.conference.overall(request, key));
        let group = Group::OverallRequestStatus(request.request_id);
        // Beside the note there must be room for the floors.
        let floors = if first { request.floors().count() } else { 1 };
        let room = GROUP_BYTES_MAX - INFORMATION_BYTES - 8 * (floors - 1) - MUST_FOLLOW_BYTES;
        let note = left.note.take_if(|note| {
            let bytes = (2 + note.len()).next_multiple_of(4);
            bytes <= room || !first
        });
        writer.group(group, |writer| {
            writer.put(&overall)?;
            note.map_or(Ok(()), |note| writer.put(&Value::StatusInfo(note)))
        })?;
        for floor in request.floors().take(floors) {
            let floor_id = self.conference.floors[floor].floor_id;
            let status = status(self.conference.standing(request, key, floor));
            writer.group(Group::FloorRequestStatus(floor_id), |writer| writer.put(&status))?;
        }
        Ok(())
    }
}

/// How many groups a request may take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    One,
    All,
}

/// The numbers of two users and a priority, which go into the first group whatever else does.
const MUST_FOLLOW_BYTES: usize = 4 + 4 + 4;

/// What has not been said of a request.
struct Left<'a> {
    note: Option<&'a [u8]>,
    beneficiary: Option<Names<'a>>,
    requested_by: Option<Names<'a>>,
    info: Option<&'a [u8]>,
}

impl<'a> Left<'a> {
    fn of(view: &View<'a>, request: &'a Request, named: bool) -> Self {
        let names = |party: Party| Names::of_party(view.members, party);
        let text = |text: &'a [u8]| (!text.is_empty()).then_some(text);
        Self {
            note: text(&request.note),
            beneficiary: named.then(|| names(request.beneficiary)),
            requested_by: request.requested_by.map(names),
            info: text(&request.info),
        }
    }

    fn is_empty(&self) -> bool {
        let said = |names: &Option<Names<'_>>| names.as_ref().is_none_or(Names::is_empty);
        let users = said(&self.beneficiary) && said(&self.requested_by);
        self.note.is_none() && self.info.is_none() && users
    }

    /// Writes what still fits this group, in the order of RFC 8855 section 5.2.15.
    fn put(
        &mut self,
        writer: &mut Writer<'_>,
        request: &Request,
        first: bool,
    ) -> Result<(), Overflow> {
        let priority = request.priority.filter(|_| first);
        let beneficiary = Group::BeneficiaryInformation(request.beneficiary.user_id);
        let asked = request.requested_by.map_or(0, |party| party.user_id);
        let requested_by = Group::RequestedByInformation(asked);
        // However long the names are, what must follow has its place.
        let reserve = if first { MUST_FOLLOW_BYTES - 4 } else { 0 };
        for (names, group, reserve) in [
            (&mut self.beneficiary, beneficiary, reserve),
            (&mut self.requested_by, requested_by, reserve / 2),
        ] {
            if let Some(names) = names.as_mut().filter(|names| first || !names.is_empty()) {
                match names.put(writer, group, reserve) {
                    Err(Overflow::Attribute) if !first => {}
                    put => put?,
                }
            }
        }
        if let Some(priority) = priority {
            writer.put(&Value::Priority(priority.code()))?;
        }
        if let Some(info) = self.info {
            match writer.put(&Value::ParticipantProvidedInfo(info)) {
                Ok(()) => self.info = None,
                Err(Overflow::Attribute) => {}
                Err(Overflow::Message) => return Err(Overflow::Message),
            }
        }
        Ok(())
    }
}

/// What is still to be said of a user.
struct Names<'a> {
    display_name: &'a str,
    uri: &'a str,
}

impl<'a> Names<'a> {
    fn of(user: &'a User) -> Self {
        Self { display_name: &user.display_name, uri: &user.uri }
    }

    /// Of one who has left only the number is known.
    fn of_party(members: &'a Table<Member>, party: Party) -> Self {
        let nobody = Self { display_name: "", uri: "" };
        members.get(party.member).map_or(nobody, |member| Self::of(&member.user))
    }

    fn is_empty(&self) -> bool {
        self.display_name.is_empty() && self.uri.is_empty()
    }

    /// Writes the user with as much of its names as fits: both, or one of them, or only the number.
    /// `reserve` bytes are left behind it.
    fn put(
        &mut self,
        writer: &mut Writer<'_>,
        group: Group,
        reserve: usize,
    ) -> Result<(), Overflow> {
        for (name, uri) in [(true, true), (true, false), (false, true), (false, false)] {
            let put = writer.group(group, |writer| {
                if name && !self.display_name.is_empty() {
                    writer.put(&Value::UserDisplayName(self.display_name.as_bytes()))?;
                }
                if uri && !self.uri.is_empty() {
                    writer.put(&Value::UserUri(self.uri.as_bytes()))?;
                }
                if writer.room() < reserve { Err(Overflow::Attribute) } else { Ok(()) }
            });
            match put {
                Ok(()) => {
                    self.display_name = if name { "" } else { self.display_name };
                    self.uri = if uri { "" } else { self.uri };
                    return Ok(());
                }
                Err(Overflow::Attribute) => {}
                Err(Overflow::Message) => return Err(Overflow::Message),
            }
        }
        Err(Overflow::Attribute)
    }
}

/// HelloAck: version 1 has no primitives to acknowledge or to say goodbye with.
pub(super) fn hello_ack(out: &mut [u8], header: &Header, transport: Transport) -> usize {
    let mut primitives = [0; Primitive::ALL.len()];
    let mut attributes = [0; AttributeType::ALL.len()];
    for (place, primitive) in primitives.iter_mut().zip(Primitive::ALL) {
        *place = primitive.code();
    }
    for (place, attribute) in attributes.iter_mut().zip(AttributeType::ALL) {
        *place = attribute.code() << 1;
    }
    let count = match transport {
        Transport::Reliable => usize::from(Primitive::Error.code()),
        Transport::Unreliable => primitives.len(),
    };
    write(out, header, |writer| {
        writer.put(&Value::SupportedPrimitives(&primitives[..count]))?;
        writer.put(&Value::SupportedAttributes(&attributes))
    })
}

/// A message that is only a header.
pub(super) fn bare(out: &mut [u8], header: &Header) -> usize {
    write(out, header, |_| Ok(()))
}

fn write(
    out: &mut [u8],
    header: &Header,
    fill: impl FnOnce(&mut Writer<'_>) -> Result<(), Overflow>,
) -> usize {
    let mut writer = Writer::new(out, header).expect("room for a header");
    fill(&mut writer).expect("what must be said fits; what need not is left out");
    writer.finish()
}

fn status((status, queue_position): (mrfp_protocol::bfcp::RequestStatus, u8)) -> Value<'static> {
    Value::RequestStatus { status: status.code(), queue_position }
}
