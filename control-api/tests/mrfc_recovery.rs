//! Sessions that take the place of others (RFC 4975 section 5.4), against a scripted shard.

use std::collections::BTreeSet;
use std::time::Duration;

use control_api::mikey::NtpTime;
use control_api::mrfc::{
    Action, Answer, CallId, Content, Event, FocusConfig, MemberState, Mrfc, MrfcConfig, Notice,
    Now, Realms, RoomPolicy, SecurityPolicy, ShardDescription, SubscriptionId,
};
use mrfp_core::mp::{
    Command, Direction, Event as Mp, Refusal, ReleaseCause, ReplaceSession, Security, Setup,
    ShardId, TerminationId,
};

const OFFER: &str = "v=0\r\no=alice 3902 1 IN IP4 198.51.100.10\r\ns=-\r\n\
    c=IN IP4 198.51.100.10\r\nt=0 0\r\nm=message 40210 TCP/MSRP *\r\na=setup:active\r\n\
    a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\n\
    a=path:msrp://198.51.100.10:40210/firstfirst;tcp\r\n";

const RECOVERY: Duration = Duration::from_secs(20);

const SHARD: ShardId = ShardId(0);

/// One call, connected.
struct Bench {
    mrfc: Mrfc,
    now_ns: u64,
    random: u8,
    termination: TerminationId,
    answer: String,
}

impl Bench {
    fn new(recovery: Duration) -> Self {
        let address = "203.0.113.5:2855".parse().unwrap();
        let config = MrfcConfig {
            shards: vec![ShardDescription { id: SHARD, address }],
            rooms: RoomPolicy { open: true, ..RoomPolicy::default() },
            calls_max: 5,
            user_calls_max: 2,
            security: SecurityPolicy::PlainAllowed,
            domains: BTreeSet::new(),
            cema: true,
            certificate: None,
            realms: Realms::default(),
            recovery,
            focus: FocusConfig::default(),
        };
        let mrfc = Mrfc::new(config, None);
        let mut bench = Self {
            mrfc,
            now_ns: 1,
            random: 0,
            termination: TerminationId(0),
            answer: String::new(),
        };
        let actions = bench.event(Event::Invite {
            call: CallId(1),
            room: "tea".to_owned(),
            from: "sip:alice@example.com".into(),
            to: "sip:tea@conference.example".to_owned(),
            offer: Some(OFFER.into()),
        });
        let [Action::Command { command: Command::ReserveAndConfigure(reserve), .. }] = &actions[..]
        else {
            panic!("{actions:?}");
        };
        bench.termination = reserve.termination;
        bench.answer = accepted(bench.reserved());
        bench.mp(Mp::Bound { termination: bench.termination });
        assert_eq!(bench.state(), MemberState::Connected);
        bench
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let now = Now { monotonic_ns: self.now_ns, ntp: NtpTime(0) };
        let seed = &mut self.random;
        let mut random = |bytes: &mut [u8]| {
            *seed += 1;
            bytes.fill(*seed);
        };
        self.mrfc.handle(now, &mut random, event);
        std::iter::from_fn(|| self.mrfc.poll_action()).collect()
    }

    fn mp(&mut self, event: Mp) -> Vec<Action> {
        self.event(Event::Mp { shard: SHARD, event })
    }

    fn reserved(&mut self) -> Vec<Action> {
        let address = "203.0.113.5:2855".parse().unwrap();
        self.mp(Mp::Reserved { termination: self.termination, address })
    }

    fn lose(&mut self, cause: ReleaseCause) -> Vec<Action> {
        self.mp(Mp::BearerReleased { termination: self.termination, cause })
    }

    fn reinvite(&mut self, offer: &str) -> Vec<Action> {
        self.event(Event::Reinvite { call: CallId(1), offer: Some(offer.into()) })
    }

    fn wait(&mut self, duration: Duration) -> Vec<Action> {
        self.now_ns += duration.as_nanos() as u64;
        let now = Now { monotonic_ns: self.now_ns, ntp: NtpTime(0) };
        self.mrfc.handle_timeout(now, &mut |_| ());
        std::iter::from_fn(|| self.mrfc.poll_action()).collect()
    }

    fn state(&self) -> MemberState {
        self.mrfc.rooms().next().expect("a room").members[0].state
    }
}

fn accepted(actions: Vec<Action>) -> String {
    match &actions[..] {
        [Action::Answer { answer: Answer::Accepted { sdp }, .. }] => {
            String::from_utf8(sdp.clone()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn replacement(mut actions: Vec<Action>) -> ReplaceSession {
    match actions.pop() {
        Some(Action::Command { command: Command::ReplaceSession(replace), .. })
            if actions.is_empty() =>
        {
            *replace
        }
        other => panic!("{other:?}"),
    }
}

fn is_hung_up(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::HangUp { .. }))
}

fn path(sdp: &str) -> &str {
    sdp.lines().find_map(|line| line.strip_prefix("a=path:")).expect("a path")
}

#[test]
fn a_lost_session_is_created_again() {
    for cause in [ReleaseCause::ConnectionLost, ReleaseCause::PeerClosed] {
        let mut bench = Bench::new(RECOVERY);
        assert!(bench.lose(cause).is_empty());
        assert_eq!(bench.state(), MemberState::Recovering);
        // A refresh changes nothing and stops no clock.
        assert_eq!(accepted(bench.reinvite(OFFER)), bench.answer);
        assert_eq!(bench.state(), MemberState::Recovering);

        // The role of a new connection is negotiated anew, like all else.
        let next = OFFER.replace("firstfirst", "second").replace("setup:active", "setup:passive");
        let replace = replacement(bench.reinvite(&next));
        assert_eq!(replace.termination, bench.termination);
        assert!(matches!(replace.security, Security::Plain));
        let remote = replace.remote.expect("known");
        assert_eq!(remote.path, "msrp://198.51.100.10:40210/second;tcp");
        assert_eq!(remote.setup, Setup::Active { remote: "198.51.100.10:40210".parse().unwrap() });
        let answer = accepted(bench.reserved());
        assert!(path(&answer).contains(&format!("/{};", replace.session_id)), "{answer}");
        assert_ne!(path(&answer), path(&bench.answer));
        assert!(answer.contains("a=setup:active\r\n"), "{answer}");
        assert!(answer.contains(" 2 IN IP4 "), "{answer}");
        assert_eq!(bench.state(), MemberState::Answered);
        bench.mp(Mp::Bound { termination: bench.termination });
        assert_eq!(bench.state(), MemberState::Connected);
        assert!(bench.wait(2 * RECOVERY).is_empty(), "nothing is waited for any more");
    }
}

#[test]
fn whoever_does_not_come_back_in_time_is_hung_up() {
    let mut bench = Bench::new(RECOVERY);
    assert!(bench.lose(ReleaseCause::ConnectionLost).is_empty());
    assert!(bench.wait(RECOVERY - Duration::from_nanos(1)).is_empty());
    let next = OFFER.replace("firstfirst", "second");
    replacement(bench.reinvite(&next));
    // Refused, so nothing has changed.
    let reason = Refusal::IdentityInUse;
    bench.mp(Mp::Refused { termination: bench.termination, reason });
    assert_eq!(bench.state(), MemberState::Recovering);
    assert!(is_hung_up(&bench.wait(Duration::from_nanos(1))));
}

#[test]
fn only_a_connection_that_stood_and_was_lost_is_waited_for() {
    for cause in [ReleaseCause::TooSlow, ReleaseCause::ProtocolViolation, ReleaseCause::Idle] {
        assert!(is_hung_up(&Bench::new(RECOVERY).lose(cause)), "{cause:?}");
    }
    assert!(is_hung_up(&Bench::new(Duration::ZERO).lose(ReleaseCause::ConnectionLost)));
    // The new connection has to come in the time of any other.
    let mut bench = Bench::new(RECOVERY);
    bench.lose(ReleaseCause::ConnectionLost);
    bench.reinvite(&OFFER.replace("firstfirst", "second"));
    bench.reserved();
    assert!(is_hung_up(&bench.lose(ReleaseCause::TcpEstablishmentFailure)));
}

#[test]
fn a_peer_that_moves_gets_a_new_session_and_its_new_direction() {
    let mut bench = Bench::new(Duration::ZERO);
    let next = format!("{}a=sendonly\r\n", OFFER.replace("firstfirst", "second"));
    let replace = replacement(bench.reinvite(&next));
    let actions = bench.reserved();
    let [Action::Command { command: Command::Modify(modify), .. }] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!((modify.direction, &modify.remote), (Direction::SendOnly, &None));
    let answer = accepted(bench.mp(Mp::Modified { termination: bench.termination }));
    assert!(answer.contains("a=recvonly\r\n"), "{answer}");
    assert!(path(&answer).contains(&replace.session_id), "{answer}");
    // From now on that is the session.
    assert_eq!(accepted(bench.reinvite(&next)), answer);
}

#[test]
fn the_others_see_it_as_pending() {
    let mut bench = Bench::new(RECOVERY);
    let id = SubscriptionId(7);
    bench.event(Event::Subscribe {
        subscription: id,
        room: "tea".to_owned(),
        from: "sip:alice@example.com".into(),
        within: None,
        expires: None,
    });
    bench.event(Event::Notified { subscription: id, delivered: true });
    bench.wait(Duration::from_secs(1));
    let mut actions = bench.lose(ReleaseCause::PeerClosed);
    actions.extend(bench.wait(Duration::from_secs(1)));
    let told = actions.iter().any(|action| match action {
        Action::Notify {
            notice: Notice::Active { content: Content::ConferenceInfo(document), .. },
            ..
        } => String::from_utf8_lossy(document).contains("<status>pending</status>"),
        _ => false,
    });
    assert!(told, "{actions:?}");
}
