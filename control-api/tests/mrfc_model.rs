//! Random event sequences: nothing panics, every INVITE gets exactly one answer unless its caller
//! gave up first, and nothing is left at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control_api::mikey::NtpTime;
use control_api::mrfc::{
    Action, CallId, ChatPolicy, Event, FloorsPolicy, FocusConfig, Mrfc, MrfcConfig, Now, Realms,
    RoomFloor, RoomPolicy, SecurityPolicy, ShardDescription,
};
use mrfp_core::floor::{ConferencePolicy, FloorOrder, FloorPolicy, ThirdPartyRequests};
use mrfp_core::mp::{
    Command, Event as Mp, Refusal, ReleaseCause, ShardId, TerminationId, TerminationStatistics,
};
use proptest::prelude::*;

const OFFER: &str = "v=0\r\no=ue 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\n\
    t=0 0\r\nm=message 40210 TCP/MSRP *\r\na=setup:actpass\r\na=accept-types:*\r\n\
    a=path:msrp://198.51.100.10:40210/q7Fz0K2m9XbA;tcp\r\n";

/// Its second m-line; the version and what is to become of the stream are put in.
const FLOOR: &str = "m=application 9 TCP/BFCP *\r\na=setup:active\r\na=connection:new\r\n\
    a=floorctrl:c-only\r\na=bfcpver:1\r\n";

#[derive(Clone, Debug)]
enum Step {
    Invite { room: u8, broken: bool, floor: u8 },
    Reinvite { call: u64, hold: bool, path: u8, floor: u8 },
    Ended { call: u64 },
    ShardAnswers { refuse: bool },
    ShardReleases { termination: u64 },
    ShardStops { shard: u16 },
    Wait { seconds: u64 },
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3u8, prop::bool::weighted(0.2), 0..3u8)
            .prop_map(|(room, broken, floor)| Step::Invite { room, broken, floor }),
        4 => (0..20u64, any::<bool>(), 0..2u8, 0..3u8)
            .prop_map(|(call, hold, path, floor)| Step::Reinvite { call, hold, path, floor }),
        4 => (0..20u64).prop_map(|call| Step::Ended { call }),
        8 => prop::bool::weighted(0.2).prop_map(|refuse| Step::ShardAnswers { refuse }),
        2 => (0..40u64).prop_map(|termination| Step::ShardReleases { termination }),
        1 => (0..2u16).prop_map(|shard| Step::ShardStops { shard }),
        2 => (0..20u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Shutdown),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    Invite,
    Reinvite,
}

fn floors() -> FloorsPolicy {
    let policy = FloorPolicy {
        order: FloorOrder::FirstComeFirstServed,
        holders_max: 1,
        requests_per_user_max: 1,
        holding_max_ns: None,
    };
    let floor = RoomFloor { floor_id: 1, label: "10".to_owned(), policy, governs_messages: true };
    FloorsPolicy {
        conference: ConferencePolicy {
            grace_ns: 0,
            third_party_requests: ThirdPartyRequests::Nobody,
        },
        floors: vec![floor],
        moderated: true,
    }
}

/// An offer with a floor stream that ends, goes on or is a new one.
fn offer(version: u64, floor: u8) -> String {
    let line = match floor {
        0 => FLOOR.replace("application 9", "application 0"),
        1 => FLOOR.replace("connection:new", "connection:existing"),
        _ => FLOOR.to_owned(),
    };
    format!("{}{line}", OFFER.replace("o=ue 1 1", &format!("o=ue 1 {version}")))
}

/// What the world outside has seen so far.
struct World {
    mrfc: Mrfc,
    now_ns: u64,
    calls: u64,
    /// Answers that are due.
    due: BTreeMap<(CallId, Due), usize>,
    /// Calls answered 200 and neither ended nor hung up.
    answered: BTreeSet<CallId>,
    unanswered_commands: Vec<(ShardId, Command)>,
    stopped: BTreeSet<ShardId>,
    drained: usize,
    /// What the shards have, as far as they have answered.
    terminations: BTreeSet<TerminationId>,
    /// sess-version of the last offer.
    version: u64,
}

impl World {
    fn new() -> Self {
        let shard =
            |id| ShardDescription { id: ShardId(id), address: "203.0.113.5:2855".parse().unwrap() };
        let mrfc = Mrfc::new(
            MrfcConfig {
                shards: vec![shard(0), shard(1)],
                rooms: RoomPolicy {
                    open: true,
                    chat: ChatPolicy {
                        members_max: 3,
                        floors: Some(floors()),
                        ..ChatPolicy::default()
                    },
                    ..RoomPolicy::default()
                },
                calls_max: 6,
                user_calls_max: 100,
                security: SecurityPolicy::PlainAllowed,
                domains: BTreeSet::new(),
                cema: true,
                certificate: None,
                realms: Realms::default(),
                recovery: Duration::from_secs(5),
                focus: FocusConfig::default(),
            },
            None,
        );
        Self {
            mrfc,
            now_ns: 0,
            calls: 0,
            due: BTreeMap::new(),
            answered: BTreeSet::new(),
            unanswered_commands: Vec::new(),
            stopped: BTreeSet::new(),
            drained: 0,
            terminations: BTreeSet::new(),
            version: 1,
        }
    }

    fn event(&mut self, event: Event) {
        let now = Now { monotonic_ns: self.now_ns, ntp: NtpTime(0) };
        self.mrfc.handle(now, &mut |bytes| bytes.fill(1), event);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.mrfc.poll_action() {
            match action {
                Action::Answer { call, answer } => {
                    let accepted = matches!(answer, control_api::mrfc::Answer::Accepted { .. });
                    let invite = self.due.remove(&(call, Due::Invite));
                    if invite.is_some() {
                        if accepted {
                            self.answered.insert(call);
                        }
                    } else {
                        let due = self.due.get_mut(&(call, Due::Reinvite)).expect("due");
                        *due = due.checked_sub(1).expect("one answer each");
                    }
                }
                Action::HangUp { call, .. } => assert!(self.answered.remove(&call)),
                Action::Command { shard, command } => {
                    assert!(!self.stopped.contains(&shard));
                    self.unanswered_commands.push((shard, command));
                }
                Action::Resolve { .. } => panic!("nobody offered a key"),
                Action::Drained => self.drained += 1,
                other => unreachable!("nobody asks for {other:?}"),
            }
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Invite { room, broken, floor } => {
                let call = CallId(self.calls);
                self.calls += 1;
                self.due.insert((call, Due::Invite), 1);
                let offer = if broken { b"v=0\r\nm=\xff".to_vec() } else { offer(1, floor).into() };
                self.event(Event::Invite {
                    call,
                    room: format!("room{room}"),
                    from: "sip:a@example.com".into(),
                    to: format!("sip:room{room}@example.com"),
                    offer: Some(offer),
                });
            }
            Step::Reinvite { call, hold, path, floor } if self.answered.contains(&CallId(call)) => {
                let call = CallId(call);
                *self.due.entry((call, Due::Reinvite)).or_insert(0) += 1;
                let direction = if hold { "a=inactive\r\nm=app" } else { "m=app" };
                self.version += 1;
                let offer = offer(self.version, floor).replacen("m=app", direction, 1);
                let offer = offer.replace("K2m9", &format!("K2m{path}"));
                let offer = Some(offer.into_bytes());
                self.event(Event::Reinvite { call, offer });
            }
            Step::Reinvite { .. } => (),
            Step::Ended { call } => {
                self.answered.remove(&CallId(call));
                self.due.remove(&(CallId(call), Due::Invite));
                self.due.remove(&(CallId(call), Due::Reinvite));
                self.event(Event::Ended { call: CallId(call) });
            }
            Step::ShardAnswers { refuse } => self.shard_answers(refuse),
            Step::ShardReleases { termination } => {
                let event = Mp::BearerReleased {
                    termination: TerminationId(termination),
                    cause: ReleaseCause::PeerClosed,
                };
                self.event(Event::Mp { shard: ShardId(0), event });
            }
            Step::ShardStops { shard } => {
                let shard = ShardId(shard);
                self.stopped.insert(shard);
                self.unanswered_commands.retain(|(to, _)| *to != shard);
                self.event(Event::Mp { shard, event: Mp::Stopped });
            }
            Step::Wait { seconds } => {
                self.now_ns += seconds * 1_000_000_000;
                let now = Now { monotonic_ns: self.now_ns, ntp: NtpTime(0) };
                self.mrfc.handle_timeout(now, &mut |_| ());
                self.drain();
            }
            Step::Shutdown => self.event(Event::Shutdown),
        }
    }

    fn shard_answers(&mut self, refuse: bool) {
        if self.unanswered_commands.is_empty() {
            return;
        }
        let (shard, command) = self.unanswered_commands.remove(0);
        let address = "203.0.113.5:2855".parse().unwrap();
        let event = match command {
            Command::ReserveAndConfigure(reserve) if refuse => {
                Mp::Refused { termination: reserve.termination, reason: Refusal::IdentityInUse }
            }
            Command::ReserveAndConfigure(reserve) => {
                Mp::Reserved { termination: reserve.termination, address }
            }
            Command::Modify(modify) if refuse => {
                Mp::Refused { termination: modify.termination, reason: Refusal::Transport }
            }
            Command::Modify(modify) => Mp::Modified { termination: modify.termination },
            Command::Rekey(_) => unreachable!("nobody has a key"),
            Command::ReplaceSession(replace) if refuse => {
                Mp::Refused { termination: replace.termination, reason: Refusal::IdentityInUse }
            }
            Command::ReplaceSession(replace) => {
                Mp::Reserved { termination: replace.termination, address }
            }
            Command::Subtract { termination } => {
                Mp::Subtracted { termination, statistics: TerminationStatistics::default() }
            }
            Command::ReserveFloorControl(reserve) if refuse => {
                Mp::Refused { termination: reserve.termination, reason: Refusal::IdentityInUse }
            }
            Command::ReserveFloorControl(reserve) => {
                Mp::Reserved { termination: reserve.termination, address }
            }
            Command::ReplaceFloorControl(replace) if refuse => {
                Mp::Refused { termination: replace.termination, reason: Refusal::Transport }
            }
            Command::ReplaceFloorControl(replace) => {
                Mp::Reserved { termination: replace.termination, address }
            }
            Command::ModifyFloorControl(_) => unreachable!("nobody is called"),
            Command::Floors { .. } => unreachable!("nobody asks"),
            Command::ReserveConnectionPoint(_) | Command::ConfigureConnectionPoint(_) => {
                unreachable!("the MRFC is no gateway")
            }
            Command::Audit { context } => Mp::Audited { context, statistics: None },
            Command::Resolved { .. } => unreachable!("the MRFC has nothing to do with names"),
            Command::Stop => Mp::Stopped,
        };
        match &event {
            Mp::Reserved { termination, .. } => _ = self.terminations.insert(*termination),
            Mp::Subtracted { termination, .. } => _ = self.terminations.remove(termination),
            _ => {}
        }
        self.event(Event::Mp { shard, event });
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_invite_is_answered_once_and_nothing_is_left(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            assert_eq!(world.mrfc.shard_terminations().count(), 2);
            let members: usize = world.mrfc.rooms().map(|room| room.members.len()).sum();
            assert_eq!(members, world.mrfc.calls());
            let _ = world.mrfc.is_empty();
        }
        world.take(&Step::Shutdown);
        while !world.unanswered_commands.is_empty() {
            world.shard_answers(false);
        }
        assert!(world.mrfc.is_empty());
        let stopped = !world.stopped.is_empty();
        assert!(stopped || world.terminations.is_empty(), "left: {:?}", world.terminations);
        assert_eq!(world.drained, 1);
        assert!(world.answered.is_empty());
        assert!(world.due.values().all(|due| *due == 0));
        assert!(world.due.keys().all(|(_, due)| *due == Due::Reinvite));
        assert!(world.mrfc.shard_terminations().all(|(_, terminations)| terminations == 0));
        assert!(world.mrfc.poll_timeout().is_none());
    }
}
