//! Whole calls against a scripted shard: events in, actions out.

use std::collections::BTreeSet;
use std::time::Duration;

use control_api::mikey::NtpTime;
use control_api::mrfc::{
    Action, Answer, CallId, Event, HangUpCause, MemberState, Mrfc, MrfcConfig, Now, RoomPolicy,
    SHARD_TIMEOUT_NS, SUBTRACT_TIMEOUT_NS, SecurityPolicy, ShardDescription,
};
use mrfp_core::mp::{
    Command, Direction, Event as Mp, Refusal, ReleaseCause, ReserveAndConfigure, Security, Setup,
    ShardId, TerminationId, TerminationStatistics,
};

const OFFER: &str = "v=0\r\n\
    o=alice 3902 1 IN IP4 198.51.100.10\r\n\
    s=-\r\n\
    c=IN IP4 198.51.100.10\r\n\
    t=0 0\r\n\
    m=message 40210 TCP/MSRP *\r\n\
    a=setup:actpass\r\n\
    a=accept-types:message/cpim text/plain\r\n\
    a=accept-wrapped-types:text/plain\r\n\
    a=path:msrp://198.51.100.10:40210/q7Fz0K2m9XbA4cD1;tcp\r\n";

const ANSWER: &str = "v=0\r\n\
    o=mrfc 36311929895191428 1 IN IP4 203.0.113.5\r\n\
    s=-\r\n\
    c=IN IP4 203.0.113.5\r\n\
    t=0 0\r\n\
    m=message 2855 TCP/MSRP *\r\n\
    a=setup:passive\r\n\
    a=accept-types:message/cpim *\r\n\
    a=accept-wrapped-types:*\r\n\
    a=path:msrp://203.0.113.5:2855/AQIDBAUGBwgJCgsMDQ4P;tcp\r\n\
    a=sendrecv\r\n\
    a=msrp-cema\r\n";

struct Bench {
    mrfc: Mrfc,
    now_ns: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(adjust: impl FnOnce(&mut MrfcConfig)) -> Self {
        let mut config = MrfcConfig {
            shards: vec![shard(0, "203.0.113.5:2855"), shard(1, "203.0.113.5:2856")],
            rooms: RoomPolicy {
                open: true,
                names: BTreeSet::new(),
            },
            room_members_max: 3,
            calls_max: 5,
            user_calls_max: 2,
            security: SecurityPolicy::PlainAllowed,
            domains: BTreeSet::new(),
            message_bytes_max: None,
        };
        adjust(&mut config);
        Self {
            mrfc: Mrfc::new(config, None),
            now_ns: 1,
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic_ns: self.now_ns,
            ntp: NtpTime(0),
        }
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let now = self.now();
        let mut counting = |bytes: &mut [u8]| {
            for (byte, value) in bytes.iter_mut().zip(1..) {
                *byte = value;
            }
        };
        self.mrfc.handle(now, &mut counting, event);
        self.actions()
    }

    fn wait(&mut self, ns: u64) -> Vec<Action> {
        self.now_ns += ns;
        let now = self.now();
        self.mrfc.handle_timeout(now);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.mrfc.poll_action()).collect()
    }

    fn invite(&mut self, call: u64, room: &str, from: &str, offer: Option<&str>) -> Vec<Action> {
        self.event(Event::Invite {
            call: CallId(call),
            room: room.to_owned(),
            from: from.to_owned(),
            to: format!("sip:{room}@conference.example"),
            offer: offer.map(|text| text.as_bytes().to_vec()),
        })
    }

    fn reinvite(&mut self, call: u64, offer: &str) -> Vec<Action> {
        let offer = Some(offer.as_bytes().to_vec());
        self.event(Event::Reinvite {
            call: CallId(call),
            offer,
        })
    }

    fn mp(&mut self, shard: ShardId, event: Mp) -> Vec<Action> {
        self.event(Event::Mp { shard, event })
    }

    /// A call up to its 200.
    fn establish(&mut self, call: u64, room: &str, from: &str) -> (ShardId, TerminationId) {
        let actions = self.invite(call, room, from, Some(OFFER));
        let (shard, reserve) = reservation(actions);
        let termination = reserve.termination;
        let address = "203.0.113.5:2855".parse().unwrap();
        let actions = self.mp(
            shard,
            Mp::Reserved {
                termination,
                address,
            },
        );
        assert!(accepted(actions).starts_with("v=0"));
        (shard, termination)
    }

    fn subtracted(&mut self, shard: ShardId, termination: TerminationId) -> Vec<Action> {
        let statistics = TerminationStatistics {
            messages_received: 7,
            ..Default::default()
        };
        self.mp(
            shard,
            Mp::Subtracted {
                termination,
                statistics,
            },
        )
    }
}

fn shard(id: u16, address: &str) -> ShardDescription {
    ShardDescription {
        id: ShardId(id),
        address: address.parse().unwrap(),
    }
}

fn only(actions: Vec<Action>) -> Action {
    let mut actions = actions.into_iter();
    let first = actions.next().expect("an action");
    assert!(actions.next().is_none());
    first
}

fn reservation(actions: Vec<Action>) -> (ShardId, ReserveAndConfigure) {
    match only(actions) {
        Action::Command {
            shard,
            command: Command::ReserveAndConfigure(reserve),
        } => (shard, *reserve),
        other => panic!("{other:?}"),
    }
}

fn subtraction(action: &Action) -> (ShardId, TerminationId) {
    match action {
        Action::Command {
            shard,
            command: Command::Subtract { termination },
        } => (*shard, *termination),
        other => panic!("{other:?}"),
    }
}

fn accepted(actions: Vec<Action>) -> String {
    match only(actions) {
        Action::Answer {
            answer: Answer::Accepted { sdp },
            ..
        } => String::from_utf8(sdp).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn refused(action: &Action) -> (u16, Option<u16>, Option<Duration>) {
    match action {
        Action::Answer {
            answer:
                Answer::Refused {
                    status,
                    warning,
                    retry_after,
                },
            ..
        } => (
            *status,
            warning.as_ref().map(|(code, _)| *code),
            *retry_after,
        ),
        other => panic!("{other:?}"),
    }
}

fn hung_up(action: &Action) -> &str {
    match action {
        Action::HangUp { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_call_goes_from_invite_to_subtracted() {
    let mut bench = Bench::new();
    let (shard, reserve) =
        reservation(bench.invite(1, "tea", "sip:alice@example.com", Some(OFFER)));
    assert_eq!(shard, ShardId(0));
    assert!(matches!(reserve.security, Security::Plain));
    assert_eq!(reserve.setup, Setup::Passive);
    assert_eq!(reserve.session_id, "AQIDBAUGBwgJCgsMDQ4P");
    assert_eq!(
        reserve.remote_path,
        "msrp://198.51.100.10:40210/q7Fz0K2m9XbA4cD1;tcp"
    );
    assert_eq!(reserve.member, "sip:alice@example.com");
    assert_eq!(reserve.accept_types, "message/cpim text/plain");
    assert_eq!(reserve.accept_wrapped_types, "text/plain");
    assert_eq!(reserve.direction, Direction::SendRecv);
    assert!(!reserve.own_port);

    let termination = reserve.termination;
    let address = "203.0.113.5:2855".parse().unwrap();
    assert_eq!(
        accepted(bench.mp(
            shard,
            Mp::Reserved {
                termination,
                address
            }
        )),
        ANSWER
    );
    assert!(bench.mp(shard, Mp::Bound { termination }).is_empty());
    let room = bench.mrfc.rooms().next().unwrap();
    assert_eq!(room.name, "tea");
    assert_eq!(room.members[0].state, MemberState::Connected);
    assert_eq!(room.members[0].uri, "sip:alice@example.com");

    let actions = bench.event(Event::Ended { call: CallId(1) });
    assert_eq!(subtraction(&only(actions)), (shard, termination));
    assert!(!bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.rooms().count(), 0);
    assert!(bench.subtracted(shard, termination).is_empty());
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().carried.messages_received, 7);
    assert_eq!(bench.mrfc.counters().calls_ended, 1);
}
