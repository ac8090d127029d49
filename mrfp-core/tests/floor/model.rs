//! Users, chairs, operators, clocks and losses by chance; after every step the floors are as they
//! must be, and when all is quiet everybody knows it.

use std::collections::{BTreeMap, BTreeSet};

use mrfp_core::floor::{
    ConferencePolicy, FloorLimits, FloorOrder, FloorPolicy, FloorServer, FloorView, Received,
    RequestView, ThirdPartyRequests,
};
use mrfp_protocol::bfcp::{Group, Header, Payload, Primitive, RequestStatus, Transport, Value};

use crate::random::Random;
use crate::seeds;
use crate::world::{CONFERENCE, GRACE_NS, SECOND_NS, TCP, UDP, World, termination, user};

/// Seeds of an ordinary run: some seconds.
const SEEDS: u64 = 300;
const STEPS: usize = 250;
/// Its policy never changes and it has no chair: its queue is the order of requests.
const PLAIN_FLOOR: u16 = 1;
const FLOORS: u16 = 4;
const USERS: u16 = 8;

#[test]
fn floors_are_held_as_they_must_be_whatever_happens() {
    let test = "--test floor model::floors_are_held_as_they_must_be_whatever_happens";
    seeds::for_each_seed(SEEDS, test, |seed| Model::new(seed).run());
}

/// A request for a floor as somebody knows it: ID, status, position, user.
type Known = (u16, u8, u8, u16);

/// What a client knows.
#[derive(Default)]
struct Client {
    connected: bool,
    /// Has lost its connection, and loses all else then.
    lost_until_ns: Option<u64>,
    subscribed: BTreeSet<u16>,
    told: BTreeMap<u16, Vec<Known>>,
}

struct Model {
    world: World,
    random: Random,
    clients: BTreeMap<u16, Client>,
    chairs: BTreeMap<u16, u16>,
    /// Floors held, by the changes that were told.
    held: BTreeSet<(u16, u16)>,
    /// Requests that were granted, and those that are over.
    granted: BTreeSet<u16>,
    over: BTreeSet<u16>,
    ongoing: BTreeSet<u16>,
    quiet: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut world = World::new();
        world.server = FloorServer::new(FloorLimits::default());
        let third_party_requests = random.pick(&[
            ThirdPartyRequests::Nobody,
            ThirdPartyRequests::Chairs,
            ThirdPartyRequests::Everybody,
        ]);
        let rules = ConferencePolicy { grace_ns: GRACE_NS, third_party_requests };
        world.server.open_conference(CONFERENCE, rules).unwrap();
        for floor in 1..=FLOORS {
            let mut policy = any_policy(&mut random);
            if floor == PLAIN_FLOOR {
                policy.order = FloorOrder::FirstComeFirstServed;
            }
            world.server.add_floor(CONFERENCE, floor, policy).unwrap();
        }
        let mut model = Self {
            world,
            random,
            clients: BTreeMap::new(),
            chairs: BTreeMap::new(),
            held: BTreeSet::new(),
            granted: BTreeSet::new(),
            over: BTreeSet::new(),
            ongoing: BTreeSet::new(),
            quiet: false,
        };
        (1..=USERS).for_each(|id| model.join(id));
        model
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.look();
            if self.random.once_in(3) {
                self.turn_ends();
                self.look();
                self.nobody_waits_for_a_free_floor();
            }
            if self.random.once_in(25) {
                self.all_is_quiet();
            }
        }
        let ids: Vec<u16> = self.clients.keys().copied().collect();
        ids.into_iter().for_each(|id| self.leave(id));
        self.turn_ends();
        self.look();
        assert!(self.held.is_empty() && self.ongoing.is_empty());
        let shown = format!("{:?}", self.world.server);
        assert_eq!(shown, "FloorServer { conferences: 1, users: 0, requests: 0, .. }");
    }

    fn step(&mut self) {
        let id = self.random.below(USERS.into()) as u16 + 1;
        let floor = self.random.below(FLOORS.into()) as u16 + 1;
        match self.random.below(24) {
            0..=6 => self.request(id),
            7..=10 => self.release(id),
            11 => self.query(id),
            12..=15 => self.act(),
            16 => self.disconnect(id),
            17 | 18 => self.connect(id),
            19 => match self.clients.contains_key(&id) {
                true => self.leave(id),
                false => self.join(id),
            },
            20 => self.operate(floor, id),
            21 => self.change_rules(floor, id),
            22 => {
                let duration_ns = self.random.pick(&[SECOND_NS / 10, SECOND_NS, 12 * SECOND_NS]);
                self.pass(duration_ns);
            }
            _ => self.say_goodbye(id),
        }
    }

    fn floors(&self) -> Vec<FloorView> {
        self.world.server.floors(CONFERENCE).expect("it is open")
    }

    fn any_request(&mut self) -> u16 {
        let ongoing: Vec<u16> = self.ongoing.iter().copied().collect();
        if ongoing.is_empty() || self.random.once_in(20) { 999 } else { self.random.pick(&ongoing) }
    }

    fn is_connected(&self, id: u16) -> bool {
        self.clients.get(&id).is_some_and(|client| client.connected)
    }

    fn join(&mut self, id: u16) {
        let channel = if self.random.once_in(3) { UDP } else { TCP };
        self.world.join(user(id), channel);
        self.clients.insert(id, Client { connected: true, ..Client::default() });
    }

    fn leave(&mut self, id: u16) {
        let (participant, _) = self.world.users[&id];
        self.world.server.remove_user(participant, self.world.now_ns, &mut self.world.said);
        self.take_in();
        self.world.users.remove(&id);
        self.clients.remove(&id);
        self.chairs.retain(|_, chair| *chair != id);
    }

    fn connect(&mut self, id: u16) {
        if !self.clients.contains_key(&id) || self.is_connected(id) {
            return;
        }
        let (participant, channel) = self.world.users[&id];
        self.world.server.connect(participant, channel);
        let client = self.clients.get_mut(&id).expect("it is one");
        client.connected = true;
        client.lost_until_ns = None;
        client.told.clear();
    }

    fn disconnect(&mut self, id: u16) {
        if self.is_connected(id) {
            let (participant, _) = self.world.users[&id];
            self.world.server.disconnect(participant, self.world.now_ns);
            self.lost(id);
        }
    }

    fn lost(&mut self, id: u16) {
        let client = self.clients.get_mut(&id).expect("it is one");
        client.connected = false;
        client.lost_until_ns = Some(self.world.now_ns + GRACE_NS);
    }

    fn say_goodbye(&mut self, id: u16) {
        if !self.is_connected(id) || self.world.users[&id].1 != UDP || !self.random.once_in(3) {
            return;
        }
        let message = self.world.message(id, Primitive::Goodbye, &[]);
        assert_eq!(self.world.receive(id, &message), Received::Close);
        assert_eq!(std::mem::take(&mut self.world.said.closed), [termination(id)]);
        let client = self.clients.get_mut(&id).expect("it is one");
        client.connected = false;
        client.subscribed.clear();
        self.take_in();
    }

    /// Sends a request; over UDP it may be lost, and so may its answer, which is then asked for again.
    fn ask(&mut self, id: u16, message: &[u8]) {
        if !self.is_connected(id) {
            return;
        }
        self.take_in();
        let unreliable = self.world.users[&id].1 == UDP;
        if unreliable && self.random.once_in(5) {
            return;
        }
        assert_eq!(self.world.receive(id, message), Received::GoOn);
        let answer = self.world.taken(id);
        assert_eq!(answer.len(), 1, "one answer");
        if unreliable && self.random.once_in(5) {
            let _ = self.world.receive(id, message);
            assert_eq!(self.world.taken(id), answer, "the same again");
        }
        self.told(id, &answer[0]);
        self.take_in();
    }

    fn request(&mut self, id: u16) {
        if !self.is_connected(id) {
            return;
        }
        let mut values = Vec::new();
        for _ in 0..=self.random.below(2) {
            values.push(Value::FloorId(self.random.below(FLOORS.into()) as u16 + 1));
        }
        if self.random.once_in(8) {
            values.push(Value::BeneficiaryId(self.random.below(USERS.into()) as u16 + 1));
        }
        if self.random.once_in(2) {
            values.push(Value::Priority(self.random.below(5) as u8));
        }
        let message = self.world.message(id, Primitive::FloorRequest, &values);
        self.ask(id, &message);
    }

    fn release(&mut self, id: u16) {
        if self.is_connected(id) {
            let request = Value::FloorRequestId(self.any_request());
            let message = self.world.message(id, Primitive::FloorRelease, &[request]);
            self.ask(id, &message);
        }
    }

    fn query(&mut self, id: u16) {
        if !self.is_connected(id) {
            return;
        }
        let floors: Vec<u16> = (1..=FLOORS).filter(|_| self.random.once_in(2)).collect();
        let values: Vec<Value<'_>> = floors.iter().map(|floor| Value::FloorId(*floor)).collect();
        let message = self.world.message(id, Primitive::FloorQuery, &values);
        let before = self.world.server.counters().received[7];
        self.ask(id, &message);
        // Unless it was lost.
        if self.world.server.counters().received[7] > before {
            let client = self.clients.get_mut(&id).expect("it is one");
            client.subscribed = floors.into_iter().collect();
        }
    }

    fn act(&mut self) {
        let chairs: Vec<(u16, u16)> = self.chairs.iter().map(|(floor, id)| (*floor, *id)).collect();
        if chairs.is_empty() {
            return;
        }
        let (floor, chair) = self.random.pick(&chairs);
        if !self.is_connected(chair) {
            return;
        }
        let here = self.floors()[usize::from(floor) - 1].requests.clone();
        let request =
            if here.is_empty() { 999 } else { here[self.random.below(here.len())].request_id };
        let status = self.random.pick(&[
            RequestStatus::Granted,
            RequestStatus::Granted,
            RequestStatus::Accepted,
            RequestStatus::Denied,
            RequestStatus::Revoked,
        ]);
        let position = self.random.below(4) as u8;
        let message = self.world.action_message(chair, request, &[(floor, status, position)]);
        self.ask(chair, &message);
    }

    fn operate(&mut self, floor: u16, id: u16) {
        let World { server, now_ns, said, .. } = &mut self.world;
        let done = match self.random.once_in(2) {
            true => server.grant(CONFERENCE, floor, id, *now_ns, said),
            false => server.revoke(CONFERENCE, floor, id, *now_ns, said),
        };
        assert_eq!(done.is_err(), !self.clients.contains_key(&id));
        self.take_in();
    }

    fn change_rules(&mut self, floor: u16, id: u16) {
        if floor == PLAIN_FLOOR {
            return;
        }
        if self.random.once_in(2) {
            let policy = any_policy(&mut self.random);
            let World { server, now_ns, said, .. } = &mut self.world;
            server.set_policy(CONFERENCE, floor, policy, *now_ns, said).unwrap();
        } else if self.clients.contains_key(&id) {
            let chair = (!self.random.once_in(4)).then_some(id);
            self.world.server.set_chair(CONFERENCE, floor, chair).unwrap();
            match chair {
                Some(chair) => self.chairs.insert(floor, chair),
                None => self.chairs.remove(&floor),
            };
        }
        self.take_in();
    }

    fn pass(&mut self, duration_ns: u64) {
        let end_ns = self.world.now_ns + duration_ns;
        let due = |world: &World| world.server.next_deadline_ns().filter(|at_ns| *at_ns <= end_ns);
        while let Some(due_ns) = due(&self.world) {
            self.world.now_ns = self.world.now_ns.max(due_ns);
            self.world.server.expire(self.world.now_ns, &mut self.world.said);
            self.take_in();
        }
        self.world.now_ns = end_ns;
        for client in self.clients.values_mut() {
            if client.lost_until_ns.is_some_and(|until_ns| until_ns <= end_ns) {
                client.lost_until_ns = None;
                client.subscribed.clear();
            }
        }
    }

    fn turn_ends(&mut self) {
        self.world.server.flush(self.world.now_ns, &mut self.world.said);
        self.take_in();
    }

    /// Takes in what was said to whomever, acknowledges it over UDP, and loses some of both.
    fn take_in(&mut self) {
        while let Some((to, bytes)) = self.world.said.messages.pop_front() {
            let id = to.index as u16;
            assert!(
                self.is_connected(id)
                    || bytes[1] == Primitive::Goodbye.code()
                    || bytes[0] & 0x10 != 0
            );
            if bytes[0] & 0x10 == 0 && self.world.users[&id].1 == UDP {
                if !self.quiet && self.random.once_in(4) {
                    continue;
                }
                self.told(id, &bytes);
                if self.quiet || !self.random.once_in(4) {
                    self.acknowledge(id, &bytes);
                }
            } else {
                self.told(id, &bytes);
            }
        }
        for closed in std::mem::take(&mut self.world.said.closed) {
            self.lost(closed.index as u16);
        }
        for change in std::mem::take(&mut self.world.said.changes) {
            let holding = (change.floor_id, change.user_id);
            let news = match change.holds {
                true => self.held.insert(holding),
                false => self.held.remove(&holding),
            };
            assert!(news, "told twice: {change:?}");
        }
    }

    fn acknowledge(&mut self, id: u16, message: &[u8]) {
        let header = Header::parse(message, Transport::Unreliable).unwrap();
        let primitive = match Primitive::from_code(header.primitive) {
            Some(Primitive::FloorStatus) => Primitive::FloorStatusAck,
            Some(Primitive::FloorRequestStatus) => Primitive::FloorRequestStatusAck,
            Some(Primitive::Goodbye) => return,
            other => panic!("{other:?}"),
        };
        let mut bytes = [0; 12];
        header.response(Transport::Unreliable, primitive).write(&mut bytes).unwrap();
        let _ = self.world.receive(id, &bytes);
    }

    /// What a client makes of a message.
    fn told(&mut self, id: u16, bytes: &[u8]) {
        let transport = self.world.users[&id].1.transport;
        let header = Header::parse(bytes, transport).unwrap();
        let payload = Payload::parse(header.content(bytes).unwrap()).unwrap();
        if header.primitive != Primitive::FloorStatus.code() {
            return;
        }
        let mut attributes = payload.attributes;
        let Some(first) = attributes.next() else { return };
        let Value::FloorId(floor) = first.value else { panic!("{first:?}") };
        let known = attributes.map(|attribute| known(floor, &attribute.value)).collect();
        self.clients.get_mut(&id).expect("it is one").told.insert(floor, known);
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
            let queue: Vec<_> = floor.requests.iter().filter(accepted).collect();
            let positions = queue.iter().map(|request| usize::from(request.queue_position));
            assert!(positions.eq(1..=queue.len()), "dense and in order");
            if floor.floor_id == PLAIN_FLOOR {
                assert!(queue.is_sorted_by_key(|request| request.request_id), "first come");
            }
            for request in &floor.requests {
                all.entry(request.request_id).or_default().push(request);
            }
        }
        assert_eq!(held, self.held, "changes tell the truth");
        for (floor, user) in (1..=FLOORS).flat_map(|floor| (1..=USERS).map(move |id| (floor, id))) {
            let holds = self.world.server.holds(CONFERENCE, floor, user);
            assert_eq!(holds, held.contains(&(floor, user)));
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

    fn nobody_waits_for_a_free_floor(&mut self) {
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
            let (_, any) = places[0];
            let ready = places.iter().all(|(has_room, request)| {
                *has_room && !request.holds && request.status != RequestStatus::Pending
            });
            let beneficiary = self.clients.get(&any.user_id);
            let away = beneficiary.is_none_or(|client| client.lost_until_ns.is_some());
            assert!(!ready || away, "#{id} waits for nothing: {floors:?}");
        }
    }

    /// Everything that was under way arrives; then whoever is subscribed knows the truth.
    fn all_is_quiet(&mut self) {
        self.quiet = true;
        self.turn_ends();
        // Repetitions, until nothing is under way: the third one comes at most 32 s after the second.
        self.pass(33 * SECOND_NS);
        for _ in 0..64 {
            self.turn_ends();
        }
        self.quiet = false;
        self.look();
        for floor in self.floors() {
            let truth: Vec<Known> = floor
                .requests
                .iter()
                .map(|it| (it.request_id, it.status.code(), it.queue_position, it.user_id))
                .collect();
            for (id, client) in self.clients.iter().filter(|(_, client)| client.connected) {
                let chairs = self.chairs.get(&floor.floor_id) == Some(id);
                if chairs || client.subscribed.contains(&floor.floor_id) {
                    let told = client.told.get(&floor.floor_id);
                    assert_eq!(
                        told,
                        Some(&truth),
                        "user {id}, floor {} {:?}",
                        floor.floor_id,
                        self.world.users[id]
                    );
                }
            }
        }
    }
}

fn any_policy(random: &mut Random) -> FloorPolicy {
    FloorPolicy {
        order: random.pick(&[
            FloorOrder::FirstComeFirstServed,
            FloorOrder::Priority,
            FloorOrder::Chair,
        ]),
        holders_max: random.pick(&[1, 1, 2, 3]),
        requests_per_user_max: random.pick(&[1, 2, 5]),
        holding_max_ns: random.pick(&[None, None, Some(5 * SECOND_NS), Some(40 * SECOND_NS)]),
    }
}

fn known(floor: u16, value: &Value<'_>) -> Known {
    let Value::Grouped(Group::FloorRequestInformation(id), inner) = *value else {
        panic!("{value:?}");
    };
    let (mut status, mut user) = (None, None);
    for attribute in inner {
        match attribute.value {
            Value::Grouped(Group::FloorRequestStatus(of), mut inner) if of == floor => {
                status = inner.next().map(|attribute| attribute.value);
            }
            Value::Grouped(Group::BeneficiaryInformation(id), _) => user = Some(id),
            _ => {}
        }
    }
    let Some(Value::RequestStatus { status, queue_position }) = status else {
        panic!("no status of floor {floor}");
    };
    (id, status, queue_position, user.expect("a beneficiary"))
}
