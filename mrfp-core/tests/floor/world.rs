//! A server with one conference, its users, and what was said to them.

use std::collections::{BTreeMap, VecDeque};

use mrfp_core::floor::{
    Channel, ConferencePolicy, FloorLimits, FloorOrder, FloorPolicy, FloorServer, HolderChange,
    Output, Participant, Received, ThirdPartyRequests, User,
};
use mrfp_io::Key;
use mrfp_protocol::bfcp::{Group, Header, Primitive, RequestStatus, Transport, Value, Writer};

use crate::shown::shown;

pub const CONFERENCE: u32 = 4321;
pub const SECOND_NS: u64 = 1_000_000_000;
pub const GRACE_NS: u64 = 30 * SECOND_NS;

pub const TCP: Channel = Channel { transport: Transport::Reliable, secured: false };
pub const TLS: Channel = Channel { transport: Transport::Reliable, secured: true };
pub const UDP: Channel = Channel { transport: Transport::Unreliable, secured: false };

/// What the server has said.
#[derive(Default)]
pub struct Said {
    pub messages: VecDeque<(Key, Vec<u8>)>,
    pub changes: Vec<HolderChange>,
    pub closed: Vec<Key>,
}

impl Output for Said {
    fn send(&mut self, termination: Key, bytes: &[u8]) {
        self.messages.push_back((termination, bytes.to_vec()));
    }

    fn holder_changed(&mut self, change: HolderChange) {
        self.changes.push(change);
    }

    fn close(&mut self, termination: Key) {
        self.closed.push(termination);
    }
}

pub struct World {
    pub server: FloorServer,
    pub now_ns: u64,
    pub said: Said,
    pub users: BTreeMap<u16, (Participant, Channel)>,
    transaction_id: u16,
}

pub fn policy(order: FloorOrder) -> FloorPolicy {
    FloorPolicy { order, holders_max: 1, requests_per_user_max: 2, holding_max_ns: None }
}

pub fn termination(user_id: u16) -> Key {
    Key { index: u32::from(user_id), generation: 7 }
}

pub fn user(user_id: u16) -> User {
    User {
        user_id,
        display_name: String::new(),
        uri: String::new(),
        secured: false,
        termination: termination(user_id),
    }
}

impl World {
    /// With floors 1, 2 (first come, first served), 3 (by priority) and 4 (the chair's).
    pub fn new() -> Self {
        let mut server = FloorServer::new(FloorLimits::default());
        let conference = ConferencePolicy {
            grace_ns: GRACE_NS,
            third_party_requests: ThirdPartyRequests::Chairs,
        };
        server.open_conference(CONFERENCE, conference).unwrap();
        for (floor, order) in [
            (1, FloorOrder::FirstComeFirstServed),
            (2, FloorOrder::FirstComeFirstServed),
            (3, FloorOrder::Priority),
            (4, FloorOrder::Chair),
        ] {
            server.add_floor(CONFERENCE, floor, policy(order)).unwrap();
        }
        let (said, users) = (Said::default(), BTreeMap::new());
        Self { server, now_ns: SECOND_NS, said, users, transaction_id: 0 }
    }

    /// With these users, connected by TCP.
    pub fn with(users: &[u16]) -> Self {
        let mut world = Self::new();
        users.iter().for_each(|id| world.join(user(*id), TCP));
        world
    }

    pub fn join(&mut self, user: User, channel: Channel) {
        let id = user.user_id;
        let participant = self.server.add_user(CONFERENCE, user).unwrap();
        self.server.connect(participant, channel);
        self.users.insert(id, (participant, channel));
    }

    /// A floor of those who come first may be held for so long.
    pub fn limit_holding(&mut self, floor: u16, holding_max_ns: u64) {
        let order = FloorOrder::FirstComeFirstServed;
        let limited = FloorPolicy { holding_max_ns: Some(holding_max_ns), ..policy(order) };
        let (server, said) = (&mut self.server, &mut self.said);
        server.set_policy(CONFERENCE, floor, limited, self.now_ns, said).unwrap();
    }

    pub fn receive(&mut self, user_id: u16, bytes: &[u8]) -> Received {
        let (participant, _) = self.users[&user_id];
        self.server.receive(participant, bytes, self.now_ns, &mut self.said)
    }

    pub fn message(&mut self, user_id: u16, primitive: Primitive, values: &[Value<'_>]) -> Vec<u8> {
        self.transaction_id += 1;
        let transport = self.users[&user_id].1.transport;
        let header = Header::new(transport, primitive, CONFERENCE, self.transaction_id, user_id);
        let mut out = vec![0; 4096];
        let mut writer = Writer::new(&mut out, &header).unwrap();
        values.iter().for_each(|value| writer.put(value).unwrap());
        let length = writer.finish();
        out.truncate(length);
        out
    }

    /// What a user is answered. Nobody is told of anything yet. Its transaction ID is left out.
    pub fn ask(&mut self, user_id: u16, primitive: Primitive, values: &[Value<'_>]) -> String {
        assert!(self.said.messages.is_empty(), "told, but not looked at");
        let message = self.message(user_id, primitive, values);
        assert_eq!(self.receive(user_id, &message), Received::GoOn);
        let mut answers = self.heard(user_id);
        assert_eq!(answers.len(), 1, "one answer to one request: {answers:?}");
        let id = self.transaction_id.to_string();
        answers.remove(0).replacen(&format!(" {id}"), "", 1)
    }

    pub fn request(&mut self, user_id: u16, floors: &[u16]) -> String {
        let floors: Vec<Value<'_>> = floors.iter().map(|floor| Value::FloorId(*floor)).collect();
        self.ask(user_id, Primitive::FloorRequest, &floors)
    }

    pub fn release(&mut self, user_id: u16, request: u16) -> String {
        self.ask(user_id, Primitive::FloorRelease, &[Value::FloorRequestId(request)])
    }

    pub fn query(&mut self, user_id: u16, floors: &[u16]) -> String {
        let floors: Vec<Value<'_>> = floors.iter().map(|floor| Value::FloorId(*floor)).collect();
        self.ask(user_id, Primitive::FloorQuery, &floors)
    }

    /// A chair's action: status and position for each floor.
    pub fn action_message(
        &mut self,
        chair: u16,
        request: u16,
        floors: &[(u16, RequestStatus, u8)],
    ) -> Vec<u8> {
        self.transaction_id += 1;
        let (primitive, id) = (Primitive::ChairAction, self.transaction_id);
        let header = Header::new(self.users[&chair].1.transport, primitive, CONFERENCE, id, chair);
        let mut out = vec![0; 512];
        let mut writer = Writer::new(&mut out, &header).unwrap();
        let filled = writer.group(Group::FloorRequestInformation(request), |writer| {
            floors.iter().try_for_each(|(floor, status, queue_position)| {
                writer.group(Group::FloorRequestStatus(*floor), |writer| {
                    let (status, queue_position) = (status.code(), *queue_position);
                    writer.put(&Value::RequestStatus { status, queue_position })
                })
            })
        });
        filled.unwrap();
        let length = writer.finish();
        out.truncate(length);
        out
    }

    pub fn act(&mut self, chair: u16, request: u16, floors: &[(u16, RequestStatus, u8)]) -> String {
        let message = self.action_message(chair, request, floors);
        assert_eq!(self.receive(chair, &message), Received::GoOn);
        let mut answers = self.heard(chair);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0).replacen(&format!(" {}", self.transaction_id), "", 1)
    }

    /// What was said to a user and not looked at, in order; what was said to others stays.
    pub fn heard(&mut self, user_id: u16) -> Vec<String> {
        let transport = self.users[&user_id].1.transport;
        self.taken(user_id).iter().map(|bytes| shown(bytes, transport)).collect()
    }

    pub fn taken(&mut self, user_id: u16) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        self.said.messages.retain(|(to, bytes)| {
            let own = *to == termination(user_id);
            if own {
                taken.push(bytes.clone());
            }
            !own
        });
        taken
    }

    /// What users are told at the end of a turn: `1< FloorStatus 0: …`, by user.
    pub fn told(&mut self) -> Vec<String> {
        self.server.flush(self.now_ns, &mut self.said);
        let users: Vec<u16> = self.users.keys().copied().collect();
        let told = users.into_iter().flat_map(|user_id| {
            self.heard(user_id).into_iter().map(move |text| format!("{user_id}< {text}"))
        });
        let told: Vec<String> = told.collect();
        assert!(self.said.messages.is_empty(), "to nobody");
        told
    }

    /// Time passes, deadline by deadline.
    pub fn pass(&mut self, duration_ns: u64) {
        let end_ns = self.now_ns + duration_ns;
        while let Some(due_ns) = self.server.next_deadline_ns().filter(|due_ns| *due_ns <= end_ns) {
            self.now_ns = self.now_ns.max(due_ns);
            self.server.expire(self.now_ns, &mut self.said);
            let next_ns = self.server.next_deadline_ns();
            assert!(next_ns.is_none_or(|next_ns| next_ns > self.now_ns), "what is due is done");
        }
        self.now_ns = end_ns;
    }

    /// Changes of holders since the last look: `+user/floor` and `-user/floor`.
    pub fn changes(&mut self) -> String {
        let changes = std::mem::take(&mut self.said.changes);
        let each = changes.iter().map(|change| {
            assert_eq!(change.conference_id, CONFERENCE);
            let sign = if change.holds { '+' } else { '-' };
            format!("{sign}{}/{}", change.user_id, change.floor_id)
        });
        each.collect::<Vec<_>>().join(" ")
    }
}
