//! A participant of floor control (RFC 8855): asks for floors, holds them, gives them back, and checks
//! every word of the server about it.

use mrfp_protocol::bfcp::{
    Attributes, ErrorCode, Framer, Group, HEADER_BYTES, Header, Payload, Primitive, RequestStatus,
    Transport, Value, Writer,
};

use super::lobby::{Invitation, Stream};
use super::plan::Floors;
use crate::expectation::Violation;

/// One user of one conference.
#[derive(Debug)]
pub(super) struct Participant {
    place: Place,
    /// What it asks for, one request each at a time.
    cycles: Vec<Cycle>,
    /// Those that are not over.
    open: u32,
    last_transaction_id: u16,
    /// Of its Hello, and of its FloorQuery, until they are answered.
    hello: Option<u16>,
    query: Option<u16>,
    framer: Framer,
    message: Vec<u8>,
    held_up: HeldUp,
}

/// Whether it would ask and has all its requests under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HeldUp {
    No,
    Yes,
    /// Until then: one of them was over.
    Until(u64),
}

/// Whose floors, and which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) conference_id: u32,
    pub(super) user_id: u16,
    pub(super) floor_ids: Vec<u16>,
    /// It is told who holds them.
    pub(super) subscribes: bool,
}

impl Place {
    /// The one a call has brought, with as many of its floors as are wanted.
    pub(super) fn of(invitation: &Invitation, floors: &Floors) -> Option<Self> {
        let Stream::Floors { conference_id, user_id, floor_ids } = &invitation.stream else {
            return None;
        };
        Some(Self {
            conference_id: *conference_id,
            user_id: *user_id,
            floor_ids: floor_ids.iter().take(floors.floors.into()).copied().collect(),
            subscribes: floors.subscribes,
        })
    }
}

/// From a FloorRequest to the answered FloorRelease.
#[derive(Clone, Copy, Debug)]
struct Cycle {
    /// Which of the floors.
    floor: usize,
    step: Step,
    transaction_id: u16,
    request_id: u16,
    due_ns: u64,
    /// When the primitive that is not answered was sent.
    sent_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Over, or not begun.
    Idle,
    /// FloorRequest is not answered.
    Requested,
    /// It is to be granted later.
    Queued,
    /// The floor is held.
    Held,
    /// FloorRelease is not answered.
    Released,
}

/// What the server said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Hello was answered.
    Welcome,
    /// A primitive was answered as it should.
    Answer {
        /// When it was sent; 0 for one that has no latency.
        sent_ns: u64,
    },
    /// A floor is held from now on.
    Granted {
        cycle: usize,
        /// Which of the floors.
        floor: usize,
        /// When it was due to be asked for.
        due_ns: u64,
    },
    /// A cycle has ended, with the floor given back unless a fault was told before.
    Over,
    /// A word about a floor it has subscribed to, or about a request that still waits.
    Told,
    /// What it should not have said.
    Fault(Violation, String),
}

/// Longest message of a server that is taken: a FloorStatus with as many requests as there may be.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// No primitive of ours is longer: a header and a query for 64 floors.
const REQUEST_BYTES_MAX: usize = HEADER_BYTES + 64 * 4;
/// Floors of a conference: a query for all of them fits.
pub(super) const FLOORS_MAX: u16 = 64;

impl Participant {
    /// One that has said nothing, with so many cycles at a time; they have the floors in turn.
    pub(super) fn new(place: Place, cycles: u32) -> Self {
        assert!((1..=usize::from(FLOORS_MAX)).contains(&place.floor_ids.len()));
        let cycle = |index: usize| Cycle {
            floor: index % place.floor_ids.len(),
            step: Step::Idle,
            transaction_id: 0,
            request_id: 0,
            due_ns: 0,
            sent_ns: 0,
        };
        Self {
            cycles: (0..cycles as usize).map(cycle).collect(),
            place,
            open: 0,
            last_transaction_id: 0,
            hello: None,
            query: None,
            framer: Framer::new(MESSAGE_BYTES_MAX),
            message: Vec::with_capacity(REQUEST_BYTES_MAX),
            held_up: HeldUp::No,
        }
    }

    /// Cycles that are not over.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// Primitives that were never answered, and requests that were never granted.
    pub(super) fn debts(&self) -> (u64, u64) {
        let count = |wanted: &[Step]| {
            self.cycles.iter().filter(|cycle| wanted.contains(&cycle.step)).count() as u64
        };
        (count(&[Step::Requested, Step::Released]), count(&[Step::Queued]))
    }

    /// Its first word: Hello, and FloorQuery where it subscribes.
    pub(super) fn greet(&mut self, out: &mut Vec<u8>) {
        self.hello = Some(self.write(Primitive::Hello, &[]));
        out.extend_from_slice(&self.message);
        if self.place.subscribes {
            let floors: Vec<_> =
                self.place.floor_ids.iter().map(|floor_id| Value::FloorId(*floor_id)).collect();
            self.query = Some(self.write(Primitive::FloorQuery, &floors));
            out.extend_from_slice(&self.message);
        }
    }

    /// One of its requests is over.
    pub(super) fn freed(&mut self, now_ns: u64) {
        if self.held_up == HeldUp::Yes {
            self.held_up = HeldUp::Until(now_ns);
        }
    }

    /// When it could ask for what was due then: for its own requests under way the server and other
    /// participants are to blame, not the generator. To be asked for once before each request.
    pub(super) fn askable_ns(&mut self, due_ns: u64) -> u64 {
        match std::mem::replace(&mut self.held_up, HeldUp::No) {
            HeldUp::Until(freed_ns) => freed_ns.max(due_ns),
            HeldUp::No | HeldUp::Yes => due_ns,
        }
    }

    /// FloorRequest of the next cycle that is over; `None`: all are under way.
    pub(super) fn request(&mut self, due_ns: u64, now_ns: u64) -> Option<&[u8]> {
        let Some(index) = self.cycles.iter().position(|cycle| cycle.step == Step::Idle) else {
            self.held_up = HeldUp::Yes;
            return None;
        };
        let floor_id = self.place.floor_ids[self.cycles[index].floor];
        let transaction_id = self.write(Primitive::FloorRequest, &[Value::FloorId(floor_id)]);
        let cycle = &mut self.cycles[index];
        (cycle.step, cycle.transaction_id) = (Step::Requested, transaction_id);
        (cycle.due_ns, cycle.sent_ns) = (due_ns, now_ns);
        self.open += 1;
        Some(&self.message)
    }

    /// FloorRelease of a cycle; `None` where its floor is not held any more.
    pub(super) fn release(&mut self, index: usize, now_ns: u64) -> Option<&[u8]> {
        let Cycle { step: Step::Held, request_id, .. } = self.cycles[index] else { return None };
        let request = [Value::FloorRequestId(request_id)];
        let transaction_id = self.write(Primitive::FloorRelease, &request);
        let cycle = &mut self.cycles[index];
        (cycle.step, cycle.transaction_id) = (Step::Released, transaction_id);
        cycle.sent_ns = now_ns;
        Some(&self.message)
    }

    /// Takes what is whole of `bytes` and says how much that was. An error is a message without an end.
    pub(super) fn hear(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let message = self.framer.next(&bytes[at..]);
            let message = message.map_err(|_| "a message longer than any".to_owned())?;
            let Some(message) = message else { return Ok(at) };
            at += message.len();
            if let Err((violation, text)) = self.hear_message(message, heard) {
                heard.push(Heard::Fault(violation, text));
            }
        }
    }

    fn hear_message(&mut self, message: &[u8], heard: &mut Vec<Heard>) -> Result<(), Fault> {
        let header = Header::parse(message, Transport::Reliable).expect("the framer has seen one");
        let content = header.content(message).expect("the framer has cut it there");
        let payload = Payload::parse(content).map_err(|error| malformed(&format!("{error:?}")))?;
        let ours = (self.place.conference_id, self.place.user_id);
        if header.version != 1 || (header.conference_id, header.user_id) != ours {
            return Err(malformed(&format!("not for us: {header:?}")));
        }
        let (transaction_id, attributes) = (header.transaction_id, payload.attributes);
        match Primitive::from_code(header.primitive) {
            Some(Primitive::HelloAck) => self.hear_hello(transaction_id, attributes, heard),
            Some(Primitive::FloorRequestStatus) => {
                self.hear_request_status(transaction_id, attributes, heard)
            }
            Some(Primitive::FloorStatus) => {
                self.hear_floor_status(transaction_id, attributes, heard)
            }
            Some(Primitive::Error) => self.hear_error(transaction_id, attributes, heard),
            other => Err(malformed(&format!("{other:?} to a participant"))),
        }
    }

    fn hear_hello(
        &mut self,
        transaction_id: u16,
        mut attributes: Attributes<'_>,
        heard: &mut Vec<Heard>,
    ) -> Result<(), Fault> {
        if self.hello.take_if(|hello| *hello == transaction_id).is_none() {
            return Err(stray(transaction_id));
        }
        let asks = attributes.any(|attribute| match attribute.value {
            Value::SupportedPrimitives(codes) => codes.contains(&Primitive::FloorRequest.code()),
            _ => false,
        });
        if !asks {
            return Err(malformed("HelloAck without FloorRequest among the primitives"));
        }
        heard.push(Heard::Answer { sent_ns: 0 });
        heard.push(Heard::Welcome);
        Ok(())
    }

    /// An answer, or what became of a request later (transaction 0).
    fn hear_request_status(
        &mut self,
        transaction_id: u16,
        attributes: Attributes<'_>,
        heard: &mut Vec<Heard>,
    ) -> Result<(), Fault> {
        let told = Told::read(attributes)?;
        let index = self.find(|cycle| match transaction_id {
            0 => cycle.request_id == told.request_id && cycle.step != Step::Requested,
            _ => cycle.transaction_id == transaction_id && cycle.is_asking(),
        });
        let Some(index) = index else { return Err(stray(transaction_id)) };
        let cycle = &mut self.cycles[index];
        let Cycle { floor, sent_ns, due_ns, .. } = *cycle;
        if told.floor_id != self.place.floor_ids[floor] {
            return Err(malformed(&format!("floor {} was not asked for", told.floor_id)));
        }
        match cycle.step {
            Step::Requested => cycle.request_id = told.request_id,
            _ if cycle.request_id != told.request_id => {
                return Err(malformed(&format!("request {} is another one's", told.request_id)));
            }
            _ => {}
        }
        if transaction_id != 0 {
            heard.push(Heard::Answer { sent_ns });
        }
        use RequestStatus::{Accepted, Granted, Pending, Released};
        match (cycle.step, told.status) {
            (Step::Requested | Step::Queued, Pending | Accepted) => {
                cycle.step = Step::Queued;
                heard.push(Heard::Told);
            }
            (Step::Requested | Step::Queued, Granted) => {
                cycle.step = Step::Held;
                heard.push(Heard::Granted { cycle: index, floor, due_ns });
            }
            (Step::Released, Released) if transaction_id != 0 => self.end(index, heard),
            (_, status) => {
                self.end(index, heard);
                return Err((Violation::FloorRefused, format!("{} by the server", status.name())));
            }
        }
        Ok(())
    }

    fn hear_floor_status(
        &mut self,
        transaction_id: u16,
        mut attributes: Attributes<'_>,
        heard: &mut Vec<Heard>,
    ) -> Result<(), Fault> {
        let floor_id = attributes.find_map(|attribute| match attribute.value {
            Value::FloorId(floor_id) => Some(floor_id),
            _ => None,
        });
        let known = floor_id.is_some_and(|floor_id| self.place.floor_ids.contains(&floor_id));
        if !self.place.subscribes || !known {
            return Err(malformed(&format!("FloorStatus of {floor_id:?}")));
        }
        if transaction_id != 0 {
            if self.query.take_if(|query| *query == transaction_id).is_none() {
                return Err(stray(transaction_id));
            }
            heard.push(Heard::Answer { sent_ns: 0 });
        }
        heard.push(Heard::Told);
        Ok(())
    }

    fn hear_error(
        &mut self,
        transaction_id: u16,
        mut attributes: Attributes<'_>,
        heard: &mut Vec<Heard>,
    ) -> Result<(), Fault> {
        let code = attributes.find_map(|attribute| match attribute.value {
            Value::ErrorCode { code, .. } => Some(code),
            _ => None,
        });
        let asking = self.find(|cycle| cycle.transaction_id == transaction_id && cycle.is_asking());
        if let Some(index) = asking {
            self.end(index, heard);
        }
        let name = code.and_then(ErrorCode::from_code).map_or("Error", ErrorCode::name);
        Err((Violation::FloorRefused, format!("{name} (transaction {transaction_id})")))
    }

    fn find(&self, is_it: impl Fn(&Cycle) -> bool) -> Option<usize> {
        self.cycles.iter().position(|cycle| cycle.step != Step::Idle && is_it(cycle))
    }

    fn end(&mut self, index: usize, heard: &mut Vec<Heard>) {
        self.cycles[index].step = Step::Idle;
        self.open -= 1;
        heard.push(Heard::Over);
    }

    /// Writes a primitive into `message` and returns its transaction ID.
    fn write(&mut self, primitive: Primitive, attributes: &[Value<'_>]) -> u16 {
        // 0 is the server's (RFC 8855 section 8.1). What is open is far less than the others.
        self.last_transaction_id = self.last_transaction_id.checked_add(1).unwrap_or(1);
        let Place { conference_id, user_id, .. } = self.place;
        let id = self.last_transaction_id;
        let header = Header::new(Transport::Reliable, primitive, conference_id, id, user_id);
        self.message.resize(REQUEST_BYTES_MAX, 0);
        let mut writer = Writer::new(&mut self.message, &header).expect("it is long enough");
        for attribute in attributes {
            writer.put(attribute).expect("it is long enough");
        }
        let length = writer.finish();
        self.message.truncate(length);
        id
    }
}

impl Cycle {
    /// Something it said is not answered.
    fn is_asking(&self) -> bool {
        matches!(self.step, Step::Requested | Step::Released)
    }
}

type Fault = (Violation, String);

/// What a FloorRequestStatus says of a request for one floor.
struct Told {
    request_id: u16,
    floor_id: u16,
    status: RequestStatus,
}

impl Told {
    fn read(mut attributes: Attributes<'_>) -> Result<Self, Fault> {
        let information = attributes.find_map(|attribute| match attribute.value {
            Value::Grouped(Group::FloorRequestInformation(id), inner) => Some((id, inner)),
            _ => None,
        });
        let (request_id, inner) =
            information.ok_or_else(|| malformed("no FLOOR-REQUEST-INFORMATION"))?;
        let (mut status, mut floor_id) = (None, None);
        for attribute in inner {
            match attribute.value {
                Value::Grouped(Group::OverallRequestStatus(id), inner) if id == request_id => {
                    status = read_status(inner);
                }
                Value::Grouped(Group::FloorRequestStatus(id), _) => floor_id = Some(id),
                _ => {}
            }
        }
        let floor_id = floor_id.ok_or_else(|| malformed("no FLOOR-REQUEST-STATUS"))?;
        let status = status.ok_or_else(|| malformed("no REQUEST-STATUS of the request"))?;
        Ok(Self { request_id, floor_id, status })
    }
}

fn read_status(mut attributes: Attributes<'_>) -> Option<RequestStatus> {
    attributes.find_map(|attribute| match attribute.value {
        Value::RequestStatus { status, .. } => RequestStatus::from_code(status),
        _ => None,
    })
}

fn malformed(text: &str) -> Fault {
    (Violation::Malformed, format!("BFCP: {text}"))
}

fn stray(transaction_id: u16) -> Fault {
    (Violation::UnexpectedResponse, format!("transaction {transaction_id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn participant() -> Participant {
        let place =
            Place { conference_id: 7, user_id: 3, floor_ids: vec![1, 2], subscribes: false };
        Participant::new(place, 2)
    }

    fn status(
        transaction_id: u16,
        request_id: u16,
        floor_id: u16,
        status: RequestStatus,
    ) -> Vec<u8> {
        let primitive = Primitive::FloorRequestStatus;
        let header = Header::new(Transport::Reliable, primitive, 7, transaction_id, 3);
        let mut out = vec![0; 256];
        let mut writer = Writer::new(&mut out, &header).unwrap();
        let value = Value::RequestStatus { status: status.code(), queue_position: 0 };
        let written = writer.group(Group::FloorRequestInformation(request_id), |writer| {
            writer.group(Group::OverallRequestStatus(request_id), |writer| writer.put(&value))?;
            writer.group(Group::FloorRequestStatus(floor_id), |writer| writer.put(&value))
        });
        written.unwrap();
        let length = writer.finish();
        out.truncate(length);
        out
    }

    fn hear(participant: &mut Participant, bytes: &[u8]) -> Vec<Heard> {
        let mut heard = Vec::new();
        assert_eq!(participant.hear(bytes, &mut heard), Ok(bytes.len()));
        heard
    }

    #[test]
    fn what_waits_for_its_own_requests_is_not_late() {
        let mut participant = participant();
        for due_ns in [10, 20] {
            assert_eq!(participant.askable_ns(due_ns), due_ns);
            assert!(participant.request(due_ns, due_ns).is_some());
        }
        assert_eq!(participant.askable_ns(30), 30);
        assert!(participant.request(30, 35).is_none());
        participant.freed(90);
        participant.freed(95);
        assert_eq!(participant.askable_ns(30), 90);
        participant.freed(99);
        assert_eq!(participant.askable_ns(40), 40, "it was not held up");
    }

    fn faults(heard: &[Heard]) -> Vec<Violation> {
        let fault = |heard: &Heard| match heard {
            Heard::Fault(violation, _) => Some(*violation),
            _ => None,
        };
        heard.iter().filter_map(fault).collect()
    }

    #[test]
    fn a_cycle_goes_from_request_to_released_however_its_words_are_cut() {
        for cut in 0..200 {
            let mut participant = participant();
            let request = participant.request(5, 6).unwrap().to_vec();
            assert_eq!((request[1], request[9]), (1, 1));
            let granted = RequestStatus::Granted;
            let words =
                [status(1, 9, 1, RequestStatus::Accepted), status(0, 9, 1, granted)].concat();
            let cut = cut.min(words.len());
            let mut heard = Vec::new();
            let taken = participant.hear(&words[..cut], &mut heard).unwrap();
            let rest = participant.hear(&words[taken..], &mut heard).unwrap();
            assert_eq!(taken + rest, words.len());
            let expected = [
                Heard::Answer { sent_ns: 6 },
                Heard::Told,
                Heard::Granted { cycle: 0, floor: 0, due_ns: 5 },
            ];
            assert_eq!(heard, expected, "{cut}");
            let release = participant.release(0, 8).unwrap();
            assert_eq!((release[1], release[9]), (2, 2));
            assert!(participant.release(0, 8).is_none());
            let heard = hear(&mut participant, &status(2, 9, 1, RequestStatus::Released));
            assert_eq!(heard, [Heard::Answer { sent_ns: 8 }, Heard::Over]);
            assert_eq!((participant.open(), participant.debts()), (0, (0, 0)));
        }
    }

    #[test]
    fn cycles_have_the_floors_in_turn_and_are_no_more_than_asked_for() {
        let mut participant = participant();
        assert_eq!(participant.request(0, 0).unwrap()[15], 1);
        assert_eq!(participant.request(0, 0).unwrap()[15], 2);
        assert!(participant.request(0, 0).is_none());
        assert_eq!((participant.open(), participant.debts()), (2, (2, 0)));
    }

    #[test]
    fn what_is_said_wrongly_is_a_fault() {
        use RequestStatus::{Denied, Granted, Released};
        for (words, violation) in [
            (status(2, 9, 1, Granted), Violation::UnexpectedResponse),
            (status(0, 9, 1, Granted), Violation::UnexpectedResponse),
            (status(1, 9, 2, Granted), Violation::Malformed),
            (status(1, 9, 1, Denied), Violation::FloorRefused),
            (status(1, 9, 1, Released), Violation::FloorRefused),
        ] {
            let mut participant = participant();
            participant.request(0, 0).unwrap();
            assert_eq!(faults(&hear(&mut participant, &words)), [violation]);
        }
        let mut other = status(1, 9, 1, Granted);
        other[11] = 4;
        assert_eq!(faults(&hear(&mut participant(), &other)), [Violation::Malformed]);
        let mut granted = participant();
        granted.request(0, 0).unwrap();
        let twice = [status(1, 9, 1, Granted), status(0, 9, 1, Granted)].concat();
        assert_eq!(faults(&hear(&mut granted, &twice)), [Violation::FloorRefused]);
    }

    #[test]
    fn an_error_ends_the_cycle_it_answers() {
        let mut participant = participant();
        participant.request(0, 0).unwrap();
        let header = Header::new(Transport::Reliable, Primitive::Error, 7, 1, 3);
        let mut out = [0; 64];
        let mut writer = Writer::new(&mut out, &header).unwrap();
        writer.put(&Value::ErrorCode { code: 8, details: &[] }).unwrap();
        let length = writer.finish();
        let heard = hear(&mut participant, &out[..length]);
        assert_eq!(faults(&heard), [Violation::FloorRefused]);
        assert_eq!(participant.open(), 0);
    }
}
