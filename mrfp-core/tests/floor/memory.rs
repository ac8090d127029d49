//! What users take while they are quiet, and what requests take once the server is warm.

use mrfp_core::floor::{
    ConferencePolicy, FloorLimits, FloorOrder, FloorPolicy, FloorServer, HolderChange, Output,
    Participant, ThirdPartyRequests, User,
};
use mrfp_io::Key;
use mrfp_protocol::bfcp::{Header, Primitive, Transport, Value, Writer};

use crate::world::{SECOND_NS, TCP, UDP, policy, user};

/// Counts, and keeps nothing but what is to be acknowledged.
#[derive(Default)]
struct Counter {
    messages: usize,
    changes: usize,
    /// The header of the last request of the server, by user.
    under_way: [Option<Header>; USERS_EACH as usize + 1],
}

impl Output for Counter {
    fn send(&mut self, to: Key, bytes: &[u8]) {
        self.messages += 1;
        let header = Header::parse(bytes, Transport::Unreliable).unwrap();
        if header.version == 2 && !header.responder {
            self.under_way[to.index as usize] = Some(header);
        }
    }

    fn holder_changed(&mut self, _: HolderChange) {
        self.changes += 1;
    }

    fn close(&mut self, _: Key) {
        panic!("nobody is lost");
    }
}

const CONFERENCES: u32 = 1_000;
const USERS_EACH: u16 = 10;
/// A tenth of what a participant may take altogether (1.5 kB) is left for names beyond these.
const BYTES_PER_USER_MAX: u64 = 600;

fn server(conferences: u32, users_each: u16) -> (FloorServer, Vec<Participant>) {
    // Addresses are reserved for as many as there may be.
    let users_max = conferences as usize * usize::from(users_each);
    let mut server = FloorServer::new(FloorLimits { users_max, ..FloorLimits::default() });
    let mut participants = Vec::new();
    for conference in 0..conferences {
        let grace_ns = 30 * SECOND_NS;
        let third_party_requests = ThirdPartyRequests::Chairs;
        let rules = ConferencePolicy { grace_ns, third_party_requests };
        server.open_conference(conference, rules).unwrap();
        for floor in 1..=3 {
            let rules = FloorPolicy {
                holding_max_ns: Some(60 * SECOND_NS),
                ..policy(FloorOrder::FirstComeFirstServed)
            };
            server.add_floor(conference, floor, rules).unwrap();
        }
        for id in 1..=users_each {
            let named = User {
                display_name: format!("User Number {id:05}"),
                uri: format!("sip:user{id:05}@conference{conference:05}.example.com"),
                ..user(id)
            };
            participants.push(server.add_user(conference, named).unwrap());
        }
    }
    (server, participants)
}

#[test]
fn ten_thousand_quiet_users_take_little() {
    let mut kept = None;
    let counted = allocation_counter::measure(|| {
        let (mut server, participants) = server(CONFERENCES, USERS_EACH);
        participants.iter().for_each(|participant| server.connect(*participant, TCP));
        server.flush(0, &mut Counter::default());
        kept = Some(server);
    });
    let users = u64::from(CONFERENCES) * u64::from(USERS_EACH);
    let each = u64::try_from(counted.bytes_current).unwrap() / users;
    assert!(each <= BYTES_PER_USER_MAX, "{each} bytes");
    drop(kept);
}

fn message(
    transport: Transport,
    out: &mut [u8],
    ids: (u16, u16),
    primitive: Primitive,
    values: &[Value<'_>],
) -> usize {
    let header = Header::new(transport, primitive, 0, ids.0, ids.1);
    let mut writer = Writer::new(out, &header).unwrap();
    values.iter().for_each(|value| writer.put(value).unwrap());
    writer.finish()
}

/// Every user asks for a floor, most wait, all are told, and everybody gives it back.
struct Rounds {
    server: FloorServer,
    participants: Vec<Participant>,
    transport: Transport,
    transaction_id: u16,
    request_id: u16,
    now_ns: u64,
    said: Counter,
}

impl Rounds {
    fn new(channel: mrfp_core::floor::Channel) -> Self {
        let (mut server, participants) = server(1, USERS_EACH);
        participants.iter().for_each(|participant| server.connect(*participant, channel));
        let transport = channel.transport;
        let said = Counter::default();
        let mut rounds = Self {
            server,
            participants,
            transport,
            transaction_id: 0,
            request_id: 0,
            now_ns: 0,
            said,
        };
        rounds.say(0, Primitive::FloorQuery, &[Value::FloorId(1), Value::FloorId(2)]);
        rounds
    }

    fn say(&mut self, user: usize, primitive: Primitive, values: &[Value<'_>]) {
        self.transaction_id = self.transaction_id.wrapping_add(1).max(1);
        let mut out = [0; 512];
        let ids = (self.transaction_id, user as u16 + 1);
        let length = message(self.transport, &mut out, ids, primitive, values);
        let participant = self.participants[user];
        let _ = self.server.receive(participant, &out[..length], self.now_ns, &mut self.said);
        if self.transport == Transport::Unreliable {
            self.server.flush(self.now_ns, &mut self.said);
        }
    }

    /// Over UDP: acknowledges whatever is under way.
    fn acknowledge(&mut self) {
        for user in 0..self.participants.len() {
            while let Some(header) = self.said.under_way[user + 1].take() {
                let ack = header.response(self.transport, Primitive::FloorStatusAck);
                let mut bytes = [0; 12];
                ack.write(&mut bytes).unwrap();
                let participant = self.participants[user];
                let _ = self.server.receive(participant, &bytes, self.now_ns, &mut self.said);
                self.server.flush(self.now_ns, &mut self.said);
            }
        }
    }

    fn round(&mut self) {
        self.now_ns += SECOND_NS / 100;
        let first = self.request_id;
        for user in 0..self.participants.len() {
            let info = Value::ParticipantProvidedInfo(b"a word");
            self.say(user, Primitive::FloorRequest, &[Value::FloorId(1), info]);
            self.request_id = self.request_id.wrapping_add(1).max(1);
        }
        self.server.flush(self.now_ns, &mut self.said);
        self.server.expire(self.now_ns, &mut self.said);
        let mut id = first;
        for user in 0..self.participants.len() {
            id = id.wrapping_add(1).max(1);
            self.say(user, Primitive::FloorRequestQuery, &[Value::FloorRequestId(id)]);
            self.say(user, Primitive::UserQuery, &[]);
            self.say(user, Primitive::FloorRelease, &[Value::FloorRequestId(id)]);
            self.server.flush(self.now_ns, &mut self.said);
        }
    }
}

#[test]
fn a_warm_server_allocates_nothing() {
    let mut rounds = Rounds::new(TCP);
    (0..300).for_each(|_| rounds.round());
    let (messages, changes) = (rounds.said.messages, rounds.said.changes);
    let counted = allocation_counter::measure(|| (0..1000).for_each(|_| rounds.round()));
    assert_eq!(counted.count_total, 0);
    let users = usize::from(USERS_EACH);
    assert_eq!(rounds.said.changes - changes, 1000 * 2 * users, "every request was granted");
    assert!(rounds.said.messages - messages >= 1000 * 5 * users);
    assert_eq!(rounds.server.counters().errors, [0; 15]);
}

#[test]
fn a_warm_server_allocates_nothing_over_udp() {
    let mut rounds = Rounds::new(UDP);
    (0..300).for_each(|_| {
        rounds.round();
        rounds.acknowledge();
    });
    let counted = allocation_counter::measure(|| {
        for _ in 0..300 {
            rounds.round();
            rounds.acknowledge();
        }
    });
    assert_eq!(counted.count_total, 0);
    assert!(rounds.server.counters().sent[8] > 300, "floors were told of");
    assert_eq!(rounds.server.counters().retransmissions, 0);
    assert_eq!(rounds.server.counters().errors, [0; 15]);
}
