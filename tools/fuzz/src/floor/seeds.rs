//! Scripts to begin with.

use mrfp_protocol::bfcp::{Group, Header, Primitive, RequestStatus, Transport, Value, Writer};

use super::{CONFERENCE, FLOORS, USERS, step};
use crate::bfcp;

/// A script, step by step.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn then(mut self, what: u8, place: u8, bytes: &[u8]) -> Self {
        self.0.extend([place << 4 | what, bytes.len() as u8]);
        self.0.extend_from_slice(bytes);
        self
    }

    fn say(self, place: u8, primitive: Primitive, values: &[Value<'_>]) -> Self {
        self.then(step::MESSAGE, place, &content(primitive, values))
    }

    fn flush(self) -> Self {
        self.then(step::FLUSH, 0, &[])
    }
}

/// A primitive and its attributes.
fn content(primitive: Primitive, values: &[Value<'_>]) -> Vec<u8> {
    let header = Header::new(Transport::Reliable, primitive, CONFERENCE, 1, 1);
    let mut out = vec![0; 1024];
    let mut writer = Writer::new(&mut out, &header).expect("room for a header");
    values.iter().for_each(|value| writer.put(value).expect("it fits"));
    let length = writer.finish();
    [&[primitive.code()], &out[header.bytes()..length]].concat()
}

/// What a chair decides about a request for the floor of chairs.
fn action(request: u16, status: RequestStatus, queue_position: u8) -> Vec<u8> {
    let primitive = Primitive::ChairAction;
    let header = Header::new(Transport::Reliable, primitive, CONFERENCE, 1, 1);
    let mut out = vec![0; 1024];
    let mut writer = Writer::new(&mut out, &header).expect("room for a header");
    let filled = writer.group(Group::FloorRequestInformation(request), |writer| {
        writer.group(Group::FloorRequestStatus(CHAIRED), |writer| {
            writer.put(&Value::RequestStatus { status: status.code(), queue_position })
        })
    });
    filled.expect("it fits");
    let length = writer.finish();
    [&[primitive.code()], &out[header.bytes()..length]].concat()
}

const PLAIN: u16 = FLOORS[0];
const BY_PRIORITY: u16 = FLOORS[1];
const CHAIRED: u16 = FLOORS[2];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let wanted = |floor: u16| [Value::FloorId(floor)];
    let of = |request: u16| [Value::FloorRequestId(request)];
    // Each vector by somebody it could be from.
    let mut vectors = Script::default();
    for (name, bytes) in bfcp::vectors() {
        vectors = match name.contains("udp") {
            false => vectors.then(step::RAW, 0, &bytes).then(step::RAW, 2, &bytes).flush(),
            true => vectors.then(step::MESSAGE, 1, &[&bytes[1..2], &bytes[12..]].concat()),
        };
    }
    // Requests pass from one to the next; repetitions, and those who only look on.
    let mut queue = Script::default();
    for place in 0..6 {
        queue = queue.say(place, Primitive::FloorQuery, &[wanted(PLAIN), wanted(CHAIRED)].concat());
        queue = queue.say(place, Primitive::FloorRequest, &wanted(PLAIN)).flush();
    }
    for place in 0..6 {
        queue = queue.then(step::ACKNOWLEDGE, 1, &[]).then(step::ACKNOWLEDGE, 3, &[]);
        queue = queue.say(place, Primitive::FloorRelease, &of(u16::from(place) + 1)).flush();
        queue = queue.then(step::AGAIN, place, &[]).flush();
        queue = queue.say(place, Primitive::UserQuery, &[]);
    }
    // A chair, and what it may do.
    let mut chaired = Script::default().then(step::CHAIR, 2, &[2, 0]);
    for place in [0, 1, 3, 4] {
        chaired = chaired.say(place, Primitive::FloorRequest, &wanted(CHAIRED)).flush();
    }
    for (request, status, position) in [
        (1, RequestStatus::Accepted, 1),
        (2, RequestStatus::Granted, 0),
        (3, RequestStatus::Denied, 0),
        (4, RequestStatus::Accepted, 1),
        (2, RequestStatus::Revoked, 0),
    ] {
        chaired = chaired.then(step::MESSAGE, 2, &action(request, status, position)).flush();
        chaired = chaired.say(0, Primitive::FloorRequestQuery, &of(request));
    }
    // Several floors at once, for others, with priorities and long texts.
    let text = "so much to say ".repeat(10);
    let several = [
        Value::FloorId(PLAIN),
        Value::FloorId(BY_PRIORITY),
        Value::BeneficiaryId(USERS[4]),
        Value::ParticipantProvidedInfo(text.as_bytes()),
        Value::Priority(4),
    ];
    let mut texts = Script::default();
    for place in [0, 1, 3, 5] {
        texts = texts.say(place, Primitive::FloorQuery, &wanted(BY_PRIORITY));
        texts = texts.then(step::FRAGMENTS, place, &content(Primitive::FloorRequest, &several));
        texts = texts.say(place, Primitive::FloorRequest, &wanted(BY_PRIORITY)).flush();
        texts = texts.then(step::ACKNOWLEDGE, 5, &[]).then(step::PASS, 0, &[7]);
    }
    // Connections come and go, time passes, and the control plane decides.
    let mut losses = Script::default().then(step::POLICY, 0, &[0, 0, 2, 20]);
    for place in 0..6 {
        losses = losses.say(place, Primitive::FloorRequest, &wanted(PLAIN));
        losses = losses.then(step::CONNECTION, place, &[]).flush().then(step::PASS, 0, &[100]);
        losses = losses.then(step::GRANT, 5 - place, &[place]).flush();
        losses = losses.then(step::CONNECTION, place, &[]).flush();
        losses = losses.then(step::REVOKE, place, &[5 - place]).then(step::PASS, 0, &[250]);
        losses = losses.then(step::MEMBERSHIP, place, &[]).flush().then(step::PASS, 0, &[200]);
        losses = losses.then(step::MEMBERSHIP, place, &[]);
    }
    // Goodbyes, and those who are not who they say.
    let hello = bfcp::vectors().into_iter().find(|(name, _)| *name == "Hello_udp");
    let (_, hello) = hello.expect("one of them");
    let strangers = Script::default()
        .say(1, Primitive::FloorRequest, &wanted(PLAIN))
        .say(1, Primitive::Goodbye, &[])
        .then(step::IDENTIFY, 1, &hello)
        .then(step::CONNECTION, 1, &[])
        .say(1, Primitive::Hello, &[])
        .then(step::FORGED, 1, &[&[0], &content(Primitive::Hello, &[])[..]].concat())
        .then(step::TOO_LONG, 0, &hello)
        .then(step::MEMBERSHIP, 3, &[])
        .flush();
    [vectors, queue, chaired, texts, losses, strangers].map(|script| script.0).to_vec()
}
