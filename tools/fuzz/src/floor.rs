//! The floor control server. An input is a script: what users send, what gets lost, what time passes
//! and what the control plane decides. After every step the floors are as they must be.

mod seeds;

use std::collections::{BTreeMap, BTreeSet};

use mrfp_core::floor::{
    Channel, ConferencePolicy, FloorLimits, FloorOrder, FloorPolicy, FloorServer, FloorView,
    HolderChange, Output, Participant, Received, RequestView, ThirdPartyRequests, User,
};
use mrfp_io::Key;
use mrfp_protocol::bfcp::{
    Fragments, Header, Payload, Primitive, RequestStatus, TooLong, Transport,
};

pub(crate) use seeds::seeds;

/// Those of the vectors.
const CONFERENCE: u32 = 4321;
const FLOORS: [u16; 4] = [543, 2, 3, 4];
const USERS: [u16; 6] = [1234, 2, 357, 4, 5, 6];
/// Small, so that much is cut.
const DATAGRAM_BYTES_MAX: usize = 120;
const STEPS_MAX: usize = 300;
const SECOND_NS: u64 = 1_000_000_000;
const GRACE_NS: u64 = 30 * SECOND_NS;

/// What a step is; four bits of its first byte. The others say whose it is.
mod step {
    /// Its bytes, as they are.
    pub(super) const RAW: u8 = 0;
    /// A primitive and its attributes, in a message.
    pub(super) const MESSAGE: u8 = 1;
    /// The same in fragments, the last of them first.
    pub(super) const FRAGMENTS: u8 = 2;
    /// What the user has sent last, once more.
    pub(super) const AGAIN: u8 = 3;
    pub(super) const FLUSH: u8 = 4;
    /// So many tenths of a second.
    pub(super) const PASS: u8 = 5;
    pub(super) const ACKNOWLEDGE: u8 = 6;
    /// The user loses its connection, or finds it again.
    pub(super) const CONNECTION: u8 = 7;
    /// It leaves, or comes back.
    pub(super) const MEMBERSHIP: u8 = 8;
    /// The control plane: bytes say which floor, and what.
    pub(super) const GRANT: u8 = 9;
    pub(super) const REVOKE: u8 = 10;
    pub(super) const CHAIR: u8 = 11;
    pub(super) const POLICY: u8 = 12;
    pub(super) const IDENTIFY: u8 = 13;
    pub(super) const TOO_LONG: u8 = 14;
    /// A message that says to be somebody else's: whose, then as with `MESSAGE`.
    pub(super) const FORGED: u8 = 15;
}

/// A script in which anybody was told anything but an error.
pub(crate) fn server(script: &[u8]) -> bool {
    let mut world = World::new();
    let mut rest = script;
    for _ in 0..STEPS_MAX {
        let [what, length, behind @ ..] = rest else { break };
        let (bytes, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        world.step(what & 15, usize::from(what >> 4) % USERS.len(), bytes);
        world.look();
    }
    world.end();
    world.is_answered
}

/// What the server says.
#[derive(Default)]
struct Said {
    messages: Vec<(usize, Vec<u8>)>,
    changes: Vec<HolderChange>,
    closed: Vec<usize>,
}

impl Output for Said {
    fn send(&mut self, termination: Key, bytes: &[u8]) {
        self.messages.push((termination.index as usize, bytes.to_vec()));
    }

    fn holder_changed(&mut self, change: HolderChange) {
        self.changes.push(change);
    }

    fn close(&mut self, termination: Key) {
        self.closed.push(termination.index as usize);
    }
}

/// One of [`USERS`], as its Termination knows it.
#[derive(Default)]
struct Client {
    /// `None`: it has left.
    participant: Option<Participant>,
    is_connected: bool,
    /// Its connection was lost, its grace is not over.
    lost_until_ns: Option<u64>,
    transaction_id: u16,
    sent_last: Vec<u8>,
    unacknowledged: Vec<Header>,
}

struct World {
    server: FloorServer,
    now_ns: u64,
    said: Said,
    clients: Vec<Client>,
    /// Floors held, by the changes that were told.
    held: BTreeSet<(u16, u16)>,
    granted: BTreeSet<u16>,
    over: BTreeSet<u16>,
    ongoing: BTreeSet<u16>,
    is_answered: bool,
}

/// Every second user comes by UDP.
fn transport(place: usize) -> Transport {
    if place % 2 == 0 { Transport::Reliable } else { Transport::Unreliable }
}

fn channel(place: usize) -> Channel {
    Channel { transport: transport(place), secured: false }
}

impl World {
    fn new() -> Self {
        let limits =
            FloorLimits { datagram_bytes_max: DATAGRAM_BYTES_MAX, ..FloorLimits::default() };
        let mut server = FloorServer::new(limits);
        let third_party_requests = ThirdPartyRequests::Everybody;
        let policy = ConferencePolicy { grace_ns: GRACE_NS, third_party_requests };
        server.open_conference(CONFERENCE, policy).expect("the first one");
        let orders = [FloorOrder::FirstComeFirstServed, FloorOrder::Priority, FloorOrder::Chair];
        for (floor, order) in FLOORS.into_iter().zip(orders.into_iter().cycle()) {
            let (holders_max, requests_per_user_max) = (1, 2);
            let policy =
                FloorPolicy { order, holders_max, requests_per_user_max, holding_max_ns: None };
            server.add_floor(CONFERENCE, floor, policy).expect("a floor");
        }
        let mut world = Self {
            server,
            now_ns: SECOND_NS,
            said: Said::default(),
            clients: USERS.iter().map(|_| Client::default()).collect(),
            held: BTreeSet::new(),
            granted: BTreeSet::new(),
            over: BTreeSet::new(),
            ongoing: BTreeSet::new(),
            is_answered: false,
        };
        (0..USERS.len()).for_each(|place| world.join(place));
        world
    }

    fn step(&mut self, what: u8, place: usize, bytes: &[u8]) {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        let floor = FLOORS[usize::from(byte(0)) % FLOORS.len()];
        let (now_ns, user) = (self.now_ns, USERS[place]);
        match what {
            step::RAW => self.send(place, bytes.to_vec()),
            step::MESSAGE => {
                let message = self.message(place, user, bytes);
                self.send(place, message);
            }
            step::FRAGMENTS => self.send_in_fragments(place, bytes),
            step::AGAIN => {
                let message = self.clients[place].sent_last.clone();
                self.receive(place, &message);
            }
            step::FLUSH => self.flush(),
            step::PASS => self.pass(u64::from(byte(0)) * SECOND_NS / 10),
            step::ACKNOWLEDGE => self.acknowledge(place),
            step::CONNECTION if self.clients[place].is_connected => self.disconnect(place),
            step::CONNECTION => self.connect(place),
            step::MEMBERSHIP if self.clients[place].participant.is_some() => self.leave(place),
            step::MEMBERSHIP => self.join(place),
            step::GRANT => {
                // Refused to whoever has left, or has as many requests as it may have.
                let _ = self.server.grant(CONFERENCE, floor, user, now_ns, &mut self.said);
            }
            step::REVOKE => {
                let revoked = self.server.revoke(CONFERENCE, floor, user, now_ns, &mut self.said);
                assert_eq!(revoked.is_ok(), self.clients[place].participant.is_some());
            }
            step::CHAIR => {
                let chair = (byte(1) % 2 == 0).then_some(user);
                let set = self.server.set_chair(CONFERENCE, floor, chair);
                assert!(set.is_ok() || self.clients[place].participant.is_none());
            }
            step::POLICY => self.set_policy(floor, [byte(1), byte(2), byte(3)]),
            step::IDENTIFY => self.identify(place, bytes),
            step::TOO_LONG => self.too_long(place, bytes),
            step::FORGED => {
                let other = USERS[usize::from(byte(0)) % USERS.len()];
                let message = self.message(place, other, bytes.get(1..).unwrap_or_default());
                self.send(place, message);
            }
            _ => unreachable!("four bits"),
        }
        self.take_in();
    }

    /// Whole words of attributes behind the primitive; what is no word is left out.
    fn message(&mut self, place: usize, user: u16, bytes: &[u8]) -> Vec<u8> {
        let (primitive, content) = bytes.split_first().unwrap_or((&0, &[]));
        let content = &content[..content.len() / 4 * 4];
        let client = &mut self.clients[place];
        client.transaction_id = client.transaction_id.wrapping_add(1).max(1);
        let id = client.transaction_id;
        let hello = Header::new(transport(place), Primitive::Hello, CONFERENCE, id, user);
        let payload_words = (content.len() / 4) as u16;
        let header = Header { primitive: *primitive, payload_words, ..hello };
        let mut message = vec![0; header.bytes()];
        header.write(&mut message).expect("room for a header");
        message.extend_from_slice(content);
        message
    }

    fn send(&mut self, place: usize, message: Vec<u8>) {
        self.receive(place, &message);
        self.clients[place].sent_last = message;
    }

    fn send_in_fragments(&mut self, place: usize, bytes: &[u8]) {
        let message = self.message(place, USERS[place], bytes);
        if transport(place) == Transport::Reliable {
            return self.send(place, message);
        }
        let mut fragments = Fragments::new(&message, 40);
        let mut datagrams = Vec::new();
        let mut out = [0; 40];
        while let Some(length) = fragments.next(&mut out) {
            datagrams.push(out[..length].to_vec());
        }
        for datagram in datagrams.into_iter().rev() {
            self.send(place, datagram);
        }
    }

    fn receive(&mut self, place: usize, message: &[u8]) {
        let Client { participant: Some(participant), is_connected: true, .. } = self.clients[place]
        else {
            return;
        };
        self.take_in();
        let received = self.server.receive(participant, message, self.now_ns, &mut self.said);
        let by_stream = transport(place) == Transport::Reliable;
        let answers = self.said.messages.iter().filter(|(to, _)| *to == place).count();
        assert!(!by_stream || answers <= 1, "one answer to one request");
        match received {
            Received::GoOn => {}
            Received::Close if by_stream => {
                self.server.disconnect(participant, self.now_ns);
                self.take_in();
                self.lost(place);
            }
            Received::Close => {
                assert_eq!(std::mem::take(&mut self.said.closed), [place], "it said Goodbye");
                self.clients[place].is_connected = false;
            }
        }
    }

    fn identify(&mut self, place: usize, bytes: &[u8]) {
        let mut reply = Vec::new();
        let found = self.server.identify(bytes, channel(place), &mut reply);
        assert!(found.is_none() || reply.is_empty());
        let Some(found) = found else {
            return assert!(reply.is_empty() || reply[1] == Primitive::Error.code());
        };
        let header = Header::parse(bytes, transport(place)).expect("it was read");
        let is_it = |client: &Client| client.participant == Some(found);
        let owner = self.clients.iter().position(is_it).expect("a user that has joined");
        assert_eq!(header.user_id, USERS[owner]);
        let moves = transport(place) == Transport::Unreliable;
        assert!(moves || !self.clients[owner].is_connected, "a user has one connection");
    }

    fn too_long(&mut self, place: usize, bytes: &[u8]) {
        let Client { participant: Some(participant), is_connected: true, .. } = self.clients[place]
        else {
            return;
        };
        let Some(header) = Header::parse(bytes, Transport::Reliable) else { return };
        if transport(place) == Transport::Reliable {
            let too_long = TooLong { header };
            self.server.receive_too_long(participant, &too_long, self.now_ns, &mut self.said);
            self.take_in();
            self.disconnect(place);
        }
    }

    fn flush(&mut self) {
        self.server.flush(self.now_ns, &mut self.said);
        self.take_in();
        self.nobody_waits_for_a_free_floor();
    }

    fn pass(&mut self, duration_ns: u64) {
        let end_ns = self.now_ns + duration_ns;
        while let Some(due_ns) = self.server.next_deadline_ns().filter(|due_ns| *due_ns <= end_ns) {
            self.now_ns = self.now_ns.max(due_ns);
            self.server.expire(self.now_ns, &mut self.said);
            self.take_in();
            let next_ns = self.server.next_deadline_ns();
            assert!(next_ns.is_none_or(|next_ns| next_ns > self.now_ns), "what is due is done");
        }
        self.now_ns = end_ns;
        for client in &mut self.clients {
            client.lost_until_ns = client.lost_until_ns.filter(|until_ns| *until_ns > end_ns);
        }
    }

    fn acknowledge(&mut self, place: usize) {
        for header in std::mem::take(&mut self.clients[place].unacknowledged) {
            let primitive = match Primitive::from_code(header.primitive) {
                Some(Primitive::FloorStatus) => Primitive::FloorStatusAck,
                Some(Primitive::FloorRequestStatus) => Primitive::FloorRequestStatusAck,
                Some(Primitive::Goodbye) => Primitive::GoodbyeAck,
                other => panic!("{other:?} is no request of a server"),
            };
            let mut acknowledgement = [0; 12];
            let answer = header.response(Transport::Unreliable, primitive);
            answer.write(&mut acknowledgement).expect("room for a header");
            self.receive(place, &acknowledgement);
        }
    }

    fn set_policy(&mut self, floor: u16, [order, holders, holding]: [u8; 3]) {
        let order = match order % 3 {
            0 => FloorOrder::FirstComeFirstServed,
            1 => FloorOrder::Priority,
            _ => FloorOrder::Chair,
        };
        let policy = FloorPolicy {
            order,
            holders_max: u16::from(holders % 4),
            requests_per_user_max: 1 + u16::from(holders / 64),
            holding_max_ns: (holding > 0).then(|| u64::from(holding) * SECOND_NS),
        };
        let is_sound = policy.holders_max > 0;
        let set = self.server.set_policy(CONFERENCE, floor, policy, self.now_ns, &mut self.said);
        assert_eq!(set.is_ok(), is_sound);
    }

    fn join(&mut self, place: usize) {
        let termination = Key { index: place as u32, generation: 1 };
        let user = User {
            user_id: USERS[place],
            display_name: "Somebody".to_owned(),
            uri: "sip:somebody@example.com".to_owned(),
            secured: false,
            termination,
        };
        let participant = self.server.add_user(CONFERENCE, user).expect("room for a user");
        self.clients[place] = Client { participant: Some(participant), ..Client::default() };
        self.connect(place);
    }

    fn leave(&mut self, place: usize) {
        let participant = self.clients[place].participant.expect("it has joined");
        self.server.remove_user(participant, self.now_ns, &mut self.said);
        self.take_in();
        self.clients[place] = Client::default();
    }

    fn connect(&mut self, place: usize) {
        let client = &mut self.clients[place];
        let Some(participant) = client.participant else { return };
        self.server.connect(participant, channel(place));
        client.is_connected = true;
        client.lost_until_ns = None;
        client.unacknowledged.clear();
        client.transaction_id = 0;
    }

    fn disconnect(&mut self, place: usize) {
        let participant = self.clients[place].participant.expect("it is connected");
        self.server.disconnect(participant, self.now_ns);
        self.lost(place);
    }

    fn lost(&mut self, place: usize) {
        self.clients[place].is_connected = false;
        self.clients[place].lost_until_ns = Some(self.now_ns + GRACE_NS);
    }

    /// What was said: sound, to somebody who is there, and the truth.
    fn take_in(&mut self) {
        for (place, message) in std::mem::take(&mut self.said.messages) {
            let transport = transport(place);
            let header = Header::parse(&message, transport).expect("a header");
            assert_eq!(header.version, transport.version());
            let content = header.content(&message).expect("whole");
            let primitive = Primitive::from_code(header.primitive).expect("a primitive");
            if header.fragment.is_none() {
                let payload = Payload::parse(content).expect("sound");
                assert!(payload.unknown_mandatory.is_empty());
            }
            assert!(transport == Transport::Reliable || message.len() <= DATAGRAM_BYTES_MAX);
            if primitive == Primitive::Error {
                continue;
            }
            // That is said to whoever leaves.
            self.is_answered |= primitive != Primitive::Goodbye;
            assert_eq!((header.conference_id, header.user_id), (CONFERENCE, USERS[place]));
            let client = &mut self.clients[place];
            let is_farewell = primitive == Primitive::Goodbye || header.responder;
            assert!(client.is_connected || is_farewell, "{primitive:?} to nobody");
            if transport == Transport::Unreliable && !header.responder {
                client.unacknowledged.push(header);
            }
        }
        for place in std::mem::take(&mut self.said.closed) {
            assert_eq!(transport(place), Transport::Unreliable);
            self.lost(place);
        }
        for change in std::mem::take(&mut self.said.changes) {
            let holding = (change.floor_id, change.user_id);
            let is_news = match change.holds {
                true => self.held.insert(holding),
                false => self.held.remove(&holding),
            };
            assert!(is_news, "told twice: {change:?}");
        }
    }

    fn floors(&self) -> Vec<FloorView> {
        self.server.floors(CONFERENCE).expect("it is open")
    }

    /// What must hold at every moment.
    fn look(&mut self) {
        let floors = self.floors();
        let mut held = BTreeSet::new();
        let mut all: BTreeMap<u16, Vec<&RequestView>> = BTreeMap::new();
        for floor in &floors {
            let holders = floor.requests.iter().filter(|request| request.holds);
            assert!(holders.clone().count() <= floor.policy.holders_max.into(), "too many holders");
            held.extend(holders.map(|request| (floor.floor_id, request.user_id)));
            let accepted = |request: &&RequestView| request.status == RequestStatus::Accepted;
            let queue = floor.requests.iter().filter(accepted);
            let positions = queue.map(|request| usize::from(request.queue_position));
            assert!(positions.clone().eq(1..=positions.count()), "dense and in order");
            for request in &floor.requests {
                all.entry(request.request_id).or_default().push(request);
            }
        }
        assert_eq!(held, self.held, "changes tell the truth");
        for floor in FLOORS {
            for user in USERS {
                let holds = self.server.holds(CONFERENCE, floor, user);
                assert_eq!(holds, held.contains(&(floor, user)));
            }
        }
        for (id, places) in &all {
            assert!(!self.over.contains(id), "what is over does not come back");
            assert!(places.iter().all(|it| it.holds == places[0].holds), "all floors or none");
            if places[0].holds {
                self.granted.insert(*id);
            } else {
                assert!(!self.granted.contains(id), "granted once");
            }
        }
        let ongoing: BTreeSet<u16> = all.keys().copied().collect();
        self.over.extend(self.ongoing.difference(&ongoing));
        self.ongoing = ongoing;
    }

    fn nobody_waits_for_a_free_floor(&self) {
        let floors = self.floors();
        let has_room = |floor: &FloorView| {
            let holders = floor.requests.iter().filter(|request| request.holds).count();
            holders < floor.policy.holders_max.into()
        };
        for id in &self.ongoing {
            let places = floors.iter().filter_map(|floor| {
                let request = floor.requests.iter().find(|it| it.request_id == *id)?;
                Some((has_room(floor), request))
            });
            let places: Vec<_> = places.collect();
            let Some((_, any)) = places.first() else { continue };
            let is_ready = places.iter().all(|(has_room, request)| {
                *has_room && !request.holds && request.status != RequestStatus::Pending
            });
            let user = USERS.iter().position(|user| *user == any.user_id).expect("a user");
            let is_away = self.clients[user].lost_until_ns.is_some();
            assert!(!is_ready || is_away, "#{id} waits for nothing: {floors:?}");
        }
    }

    /// Everybody leaves, and nothing is left.
    fn end(&mut self) {
        for place in 0..USERS.len() {
            if self.clients[place].participant.is_some() {
                self.leave(place);
            }
        }
        self.flush();
        self.look();
        assert!(self.held.is_empty() && self.ongoing.is_empty());
        self.server.close_conference(CONFERENCE, self.now_ns, &mut self.said);
        let shown = format!("{:?}", self.server);
        assert_eq!(shown, "FloorServer { conferences: 0, users: 0, requests: 0, .. }");
    }
}
