//! The conference event package against a model: under random joins, leaves, holds, nicknames and
//! losses, what a subscriber puts together from full and partial documents is at every version
//! exactly what is true.

mod roster;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control_api::mikey::NtpTime;
use control_api::mrfc::{
    Action, Answer, CallId, ChatPolicy, Content, DEPARTED_SHOWN_NS, Event, FocusConfig, Mrfc,
    MrfcConfig, Notice, Now, Realms, RoomPolicy, SecurityPolicy, ShardDescription, SubscribeAnswer,
    SubscriptionId,
};
use mrfp_core::mp::{Command, Event as Mp, ReleaseCause, ShardId, TerminationId};
use proptest::prelude::*;
use roster::{Roster, UserView, View};

const USERS: u8 = 6;
const SUBSCRIBERS: u64 = 3;
const ROOM: &str = "lobby";
const INTERVAL: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
enum Step {
    Join {
        user: u8,
    },
    Connect {
        at: u8,
    },
    Leave {
        at: u8,
    },
    Lose {
        at: u8,
        slow: bool,
    },
    Hold {
        at: u8,
        on: bool,
    },
    Nickname {
        at: u8,
        name: Option<String>,
    },
    Subscribe {
        subscriber: u64,
    },
    Refresh {
        subscriber: u64,
    },
    Unsubscribe {
        subscriber: u64,
    },
    /// A subscriber answers what it has been sent.
    Confirm {
        subscriber: u64,
    },
    Fail {
        subscriber: u64,
    },
    Wait {
        milliseconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..8u8;
    let subscriber = || 0..SUBSCRIBERS;
    prop_oneof![
        6 => (0..USERS).prop_map(|user| Step::Join { user }),
        6 => at().prop_map(|at| Step::Connect { at }),
        3 => at().prop_map(|at| Step::Leave { at }),
        2 => (at(), any::<bool>()).prop_map(|(at, slow)| Step::Lose { at, slow }),
        4 => (at(), any::<bool>()).prop_map(|(at, on)| Step::Hold { at, on }),
        3 => (at(), prop::option::of("[a-z<&\"]{1,8}"))
            .prop_map(|(at, name)| Step::Nickname { at, name }),
        3 => subscriber().prop_map(|subscriber| Step::Subscribe { subscriber }),
        1 => subscriber().prop_map(|subscriber| Step::Refresh { subscriber }),
        1 => subscriber().prop_map(|subscriber| Step::Unsubscribe { subscriber }),
        6 => subscriber().prop_map(|subscriber| Step::Confirm { subscriber }),
        1 => subscriber().prop_map(|subscriber| Step::Fail { subscriber }),
        6 => (0..2000u64).prop_map(|milliseconds| Step::Wait { milliseconds }),
    ]
}

/// A member as the test knows it.
#[derive(Clone, Debug)]
struct Member {
    user: u8,
    termination: TerminationId,
    bound: bool,
    held: bool,
    nickname: Option<String>,
}

/// A member that has left.
#[derive(Clone, Debug)]
struct Departed {
    user: u8,
    call: u64,
    nickname: Option<String>,
    method: &'static str,
    until_ns: u64,
}

/// A subscriber as the test knows it.
#[derive(Default)]
struct Subscriber {
    id: Option<SubscriptionId>,
    roster: Roster,
    unconfirmed: u32,
    /// Moments it was told of changes.
    partials_ns: Vec<u64>,
}

struct World {
    mrfc: Mrfc,
    now_ns: u64,
    last_id: u64,
    members: BTreeMap<u64, Member>,
    departed: Vec<Departed>,
    subscribers: Vec<Subscriber>,
    termination_answers: Vec<TerminationId>,
}

impl World {
    fn new() -> Self {
        let shard =
            ShardDescription { id: ShardId(0), address: "203.0.113.5:2855".parse().unwrap() };
        let config = MrfcConfig {
            shards: vec![shard],
            rooms: RoomPolicy {
                open: true,
                names: BTreeSet::new(),
                chat: ChatPolicy::default(),
                exceptions: BTreeMap::new(),
            },
            calls_max: 100,
            user_calls_max: 100,
            security: SecurityPolicy::PlainAllowed,
            domains: BTreeSet::new(),
            cema: true,
            realms: Realms::default(),
            certificate: None,
            recovery: Duration::ZERO,
            focus: FocusConfig {
                notify_interval: INTERVAL,
                operators: (0..SUBSCRIBERS).map(operator).collect(),
                ..FocusConfig::default()
            },
        };
        Self {
            mrfc: Mrfc::new(config, None),
            now_ns: 1,
            last_id: 0,
            members: BTreeMap::new(),
            departed: Vec::new(),
            subscribers: (0..SUBSCRIBERS).map(|_| Subscriber::default()).collect(),
            termination_answers: Vec::new(),
        }
    }

    /// What is true now.
    fn truth(&self) -> View {
        let mut view = View::default();
        let mut present = BTreeSet::new();
        let mut nicknames: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
        let endpoint = |user: u8, call: u64| format!("{};endpoint={call}", entity(user));
        for (call, member) in &self.members {
            present.insert(member.user);
            let user = view.users.entry(entity(member.user)).or_default();
            let status = match (member.bound, member.held) {
                (false, _) => "pending",
                (true, false) => "connected",
                (true, true) => "on-hold",
            };
            let direction = if member.held { "inactive" } else { "sendrecv" };
            let facts = (status.to_owned(), None, Some(direction.to_owned()));
            user.endpoints.insert(endpoint(member.user, *call), facts);
            if let Some(name) = &member.nickname {
                nicknames.entry(entity(member.user)).or_default().insert(*call, name.clone());
            }
        }
        for gone in self.departed.iter().filter(|gone| gone.until_ns > self.now_ns) {
            let user = view.users.entry(entity(gone.user)).or_default();
            let facts = ("disconnected".to_owned(), Some(gone.method.to_owned()), None);
            user.endpoints.insert(endpoint(gone.user, gone.call), facts);
            if let Some(name) = &gone.nickname {
                nicknames.entry(entity(gone.user)).or_default().insert(gone.call, name.clone());
            }
        }
        for (user, names) in nicknames {
            let first = names.into_values().next();
            view.users.get_mut(&user).expect("it has an endpoint").nickname = first;
        }
        view.user_count = present.len();
        view
    }

    fn now(&self) -> Now {
        Now { monotonic_ns: self.now_ns, ntp: NtpTime(0) }
    }

    fn event(&mut self, event: Event) {
        let mut count = self.last_id.to_be_bytes().into_iter().cycle();
        let mut random = |bytes: &mut [u8]| bytes.fill_with(|| count.next().expect("endless"));
        let now = self.now();
        self.mrfc.handle(now, &mut random, event);
        self.drain();
    }

    fn mp(&mut self, event: Mp) {
        self.event(Event::Mp { shard: ShardId(0), event });
    }

    fn drain(&mut self) {
        while let Some(action) = self.mrfc.poll_action() {
            match action {
                Action::AnswerSubscribe { subscription, answer } => {
                    if !matches!(answer, SubscribeAnswer::Granted { .. }) {
                        // Nobody is in the room.
                        assert!(self.members.is_empty(), "{answer:?}");
                        self.forget(subscription);
                    }
                }
                Action::Notify { subscription, notice } => self.notified(subscription, notice),
                Action::Command { command: Command::ReserveAndConfigure(reserve), .. } => {
                    self.termination_answers.push(reserve.termination);
                }
                Action::Answer { answer: Answer::Refused { status, .. }, .. } => {
                    panic!("refused with {status}");
                }
                Action::Command { .. } | Action::Answer { .. } | Action::HangUp { .. } => {}
                other => panic!("{other:?} has no place here"),
            }
        }
    }

    fn subscriber(&mut self, id: SubscriptionId) -> &mut Subscriber {
        self.subscribers.iter_mut().find(|s| s.id == Some(id)).expect("a subscriber")
    }

    fn forget(&mut self, id: SubscriptionId) {
        *self.subscriber(id) = Subscriber::default();
        if self.subscribers.iter().all(|s| s.id.is_none()) {
            self.departed.clear();
        }
    }

    fn notified(&mut self, id: SubscriptionId, notice: Notice) {
        let truth = self.truth();
        let now_ns = self.now_ns;
        let subscriber = self.subscriber(id);
        match notice {
            Notice::Active { content, .. } => {
                let body = text(content);
                assert!(subscriber.roster.take(&body));
                assert_eq!(subscriber.roster.view(), truth, "after {body}");
                if body.contains(" state=\"partial\" version") {
                    let tells = body.contains("<users ") || body.contains("<conference-state>");
                    assert!(tells, "nothing has changed: {body}");
                    assert_eq!(subscriber.unconfirmed, 0, "told more before it answered");
                    subscriber.partials_ns.push(now_ns);
                }
                subscriber.unconfirmed += 1;
            }
            Notice::Terminated { reason, content } => {
                let body = text(content.expect("a document"));
                let goes_on = subscriber.roster.take(&body);
                match reason {
                    "noresource" => {
                        assert!(!goes_on);
                        assert!(self.members.is_empty());
                    }
                    "timeout" => {
                        assert!(goes_on);
                        assert_eq!(self.subscriber(id).roster.view(), truth);
                    }
                    other => panic!("{other}"),
                }
                self.forget(id);
            }
        }
    }

    /// Shard and network have answered everything and every interval has passed: all know all.
    fn come_to_rest(&mut self) {
        self.wait(DEPARTED_SHOWN_NS);
        for _ in 0..4 {
            for subscriber in 0..SUBSCRIBERS {
                while self.confirm(subscriber) {}
            }
            self.wait(INTERVAL.as_nanos() as u64);
        }
        let truth = self.truth();
        for subscriber in self.subscribers.iter().filter(|s| s.id.is_some()) {
            assert_eq!(subscriber.roster.view(), truth, "a subscriber was left behind");
        }
    }

    fn wait(&mut self, ns: u64) {
        let until_ns = self.now_ns + ns;
        while let Some(due_ns) = self.mrfc.poll_timeout().filter(|due| *due <= until_ns) {
            self.now_ns = due_ns.max(self.now_ns);
            let now = self.now();
            self.mrfc.handle_timeout(now, &mut |_| ());
            self.drain();
        }
        self.now_ns = until_ns;
    }

    fn confirm(&mut self, subscriber: u64) -> bool {
        let subscriber = &mut self.subscribers[subscriber as usize];
        let Some(subscription) = subscriber.id.filter(|_| subscriber.unconfirmed > 0) else {
            return false;
        };
        subscriber.unconfirmed -= 1;
        self.event(Event::Notified { subscription, delivered: true });
        true
    }

    fn nth(&self, at: u8) -> Option<u64> {
        self.members.keys().copied().nth(usize::from(at) % self.members.len().max(1))
    }

    fn depart(&mut self, call: u64, method: &'static str) -> Member {
        let member = self.members.remove(&call).expect("a member");
        // The conference ends, or nobody is there to have seen it.
        if self.members.is_empty() || self.subscribers.iter().all(|s| s.id.is_none()) {
            self.departed.clear();
            return member;
        }
        self.departed.push(Departed {
            user: member.user,
            call,
            nickname: member.nickname.clone(),
            method,
            until_ns: self.now_ns + DEPARTED_SHOWN_NS,
        });
        member
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join { user } => self.join(user),
            Step::Connect { at } => {
                if let Some(call) = self.nth(at) {
                    let member = self.members.get_mut(&call).expect("a member");
                    member.bound = true;
                    let termination = member.termination;
                    self.mp(Mp::Bound { termination });
                }
            }
            Step::Leave { at } => {
                if let Some(call) = self.nth(at) {
                    self.depart(call, "departed");
                    self.event(Event::Ended { call: CallId(call) });
                }
            }
            Step::Lose { at, slow } => {
                if let Some(call) = self.nth(at) {
                    let (method, cause) = match slow {
                        true => ("booted", ReleaseCause::TooSlow),
                        false => ("failed", ReleaseCause::ConnectionLost),
                    };
                    let termination = self.depart(call, method).termination;
                    self.mp(Mp::BearerReleased { termination, cause });
                }
            }
            Step::Hold { at, on } => {
                if let Some(call) = self.nth(at) {
                    self.hold(call, on);
                }
            }
            Step::Nickname { at, name } => {
                if let Some(call) = self.nth(at) {
                    let member = self.members.get_mut(&call).expect("a member");
                    member.nickname.clone_from(&name);
                    let termination = member.termination;
                    self.mp(Mp::NicknameChanged { termination, nickname: name });
                }
            }
            Step::Subscribe { subscriber } => {
                if self.subscribers[subscriber as usize].id.is_none() {
                    self.last_id += 1;
                    let id = SubscriptionId(self.last_id);
                    self.subscribers[subscriber as usize].id = Some(id);
                    self.event(Event::Subscribe {
                        subscription: id,
                        room: ROOM.to_owned(),
                        from: operator(subscriber).as_str().into(),
                        within: None,
                        expires: None,
                    });
                }
            }
            Step::Refresh { subscriber } => {
                if let Some(subscription) = self.subscribers[subscriber as usize].id {
                    self.event(Event::Resubscribe { subscription, expires: None });
                }
            }
            Step::Unsubscribe { subscriber } => {
                if let Some(subscription) = self.subscribers[subscriber as usize].id {
                    let expires = Some(Duration::ZERO);
                    self.event(Event::Resubscribe { subscription, expires });
                }
            }
            Step::Confirm { subscriber } => {
                self.confirm(subscriber);
            }
            Step::Fail { subscriber } => {
                let known = &self.subscribers[subscriber as usize];
                if let Some(subscription) = known.id.filter(|_| known.unconfirmed > 0) {
                    self.forget(subscription);
                    self.event(Event::Notified { subscription, delivered: false });
                }
            }
            Step::Wait { milliseconds } => self.wait(milliseconds * 1_000_000),
        }
    }

    fn join(&mut self, user: u8) {
        self.last_id += 1;
        let call = self.last_id;
        self.event(Event::Invite {
            call: CallId(call),
            room: ROOM.to_owned(),
            from: entity(user).as_str().into(),
            to: format!("sip:{ROOM}@conference.example"),
            offer: Some(offer("sendrecv")),
        });
        let termination = self.termination_answers.pop().expect("a reservation");
        let member = Member { user, termination, bound: false, held: false, nickname: None };
        self.members.insert(call, member);
        let address = "203.0.113.5:2855".parse().unwrap();
        self.mp(Mp::Reserved { termination, address });
    }

    fn hold(&mut self, call: u64, on: bool) {
        let direction = if on { "inactive" } else { "sendrecv" };
        let offer = Some(offer(direction));
        let changes = self.members[&call].held != on;
        let termination = self.members[&call].termination;
        self.event(Event::Reinvite { call: CallId(call), offer });
        if changes {
            self.members.get_mut(&call).expect("a member").held = on;
            self.mp(Mp::Modified { termination });
        }
    }
}

fn text(content: Content) -> String {
    match content {
        Content::ConferenceInfo(document) => String::from_utf8(document).expect("UTF-8"),
        Content::Status(status) => panic!("{status} is for who refers"),
    }
}

fn entity(user: u8) -> String {
    format!("sip:user{user}@example.com")
}

fn operator(subscriber: u64) -> String {
    format!("sip:operator{subscriber}@example.com")
}

fn offer(direction: &str) -> Vec<u8> {
    format!(
        "v=0\r\no=ue 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\n\
         m=message 40210 TCP/MSRP *\r\na=setup:actpass\r\na=accept-types:*\r\na={direction}\r\n\
         a=path:msrp://198.51.100.10:40210/q7Fz0K2m9XbA;tcp\r\n"
    )
    .into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_subscriber_knows_the_truth_at_every_version(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.come_to_rest();
        for subscriber in &world.subscribers {
            for pair in subscriber.partials_ns.windows(2) {
                prop_assert!(pair[1] - pair[0] >= INTERVAL.as_nanos() as u64, "told too often");
            }
        }
    }
}

#[test]
fn a_storm_of_joins_is_told_in_a_few_documents() {
    let mut world = World::new();
    world.join(0);
    world.step(Step::Subscribe { subscriber: 0 });
    world.confirm(0);
    for user in 1..100 {
        world.join(user);
        world.confirm(0);
        world.wait(10_000_000);
    }
    world.come_to_rest();
    // 99 joins in 990 ms: at the first, and twice after an interval.
    assert_eq!(world.subscribers[0].partials_ns.len(), 3);
    let view = world.subscribers[0].roster.view();
    assert_eq!(view.users.len(), 100);
    let pending = |user: &UserView| user.endpoints.values().all(|(status, ..)| status == "pending");
    assert!(view.users.values().all(pending));
}
