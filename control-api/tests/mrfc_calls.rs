//! Whole calls against a scripted shard: events in, actions out.

use std::collections::BTreeSet;
use std::time::Duration;

use control_api::mikey::NtpTime;
use control_api::mrfc::{
    Action, Answer, CallId, Caller, ChatPolicy, Event, FocusConfig, HangUpCause, MemberState, Mrfc,
    MrfcConfig, Network, Now, Realms, RoomPolicy, SHARD_TIMEOUT_NS, SUBTRACT_TIMEOUT_NS,
    SecurityPolicy, ShardDescription,
};
use mrfp_core::mp::{
    Command, CpimPolicy, Direction, Event as Mp, Refusal, ReleaseCause, ReserveAndConfigure,
    Security, Setup, ShardId, Switching, TerminationId, TerminationStatistics,
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
    o=- 36311929895191428 1 IN IP4 203.0.113.5\r\n\
    s=-\r\n\
    c=IN IP4 203.0.113.5\r\n\
    t=0 0\r\n\
    m=message 2855 TCP/MSRP *\r\n\
    a=setup:passive\r\n\
    a=accept-types:message/cpim\r\n\
    a=accept-wrapped-types:*\r\n\
    a=path:msrp://203.0.113.5:2855/AQIDBAUGBwgJCgsMDQ4P;tcp\r\n\
    a=sendrecv\r\n\
    a=msrp-cema\r\n\
    a=chatroom:nickname private-messages\r\n";

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
                chat: ChatPolicy { members_max: 3, ..ChatPolicy::default() },
                ..RoomPolicy::default()
            },
            calls_max: 5,
            user_calls_max: 2,
            security: SecurityPolicy::PlainAllowed,
            domains: BTreeSet::new(),
            cema: true,
            certificate: None,
            realms: Realms::default(),
            recovery: Duration::ZERO,
            focus: FocusConfig::default(),
        };
        adjust(&mut config);
        Self { mrfc: Mrfc::new(config, None), now_ns: 1 }
    }

    fn now(&self) -> Now {
        Now { monotonic_ns: self.now_ns, ntp: NtpTime(0) }
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
        self.mrfc.handle_timeout(now, &mut |_| ());
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.mrfc.poll_action()).collect()
    }

    fn invite(&mut self, call: u64, room: &str, from: &str, offer: Option<&str>) -> Vec<Action> {
        self.event(Event::Invite {
            call: CallId(call),
            room: room.to_owned(),
            from: from.into(),
            to: format!("sip:{room}@conference.example"),
            offer: offer.map(|text| text.as_bytes().to_vec()),
        })
    }

    fn reinvite(&mut self, call: u64, offer: &str) -> Vec<Action> {
        let offer = Some(offer.as_bytes().to_vec());
        self.event(Event::Reinvite { call: CallId(call), offer })
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
        let actions = self.mp(shard, Mp::Reserved { termination, address });
        assert!(accepted(actions).starts_with("v=0"));
        (shard, termination)
    }

    fn subtracted(&mut self, shard: ShardId, termination: TerminationId) -> Vec<Action> {
        let statistics = TerminationStatistics { messages_received: 7, ..Default::default() };
        self.mp(shard, Mp::Subtracted { termination, statistics })
    }
}

fn shard(id: u16, address: &str) -> ShardDescription {
    ShardDescription { id: ShardId(id), address: address.parse().unwrap() }
}

fn only(actions: Vec<Action>) -> Action {
    let mut actions = actions.into_iter();
    let first = actions.next().expect("an action");
    assert!(actions.next().is_none());
    first
}

fn reservation(actions: Vec<Action>) -> (ShardId, ReserveAndConfigure) {
    match only(actions) {
        Action::Command { shard, command: Command::ReserveAndConfigure(reserve) } => {
            (shard, *reserve)
        }
        other => panic!("{other:?}"),
    }
}

fn subtraction(action: &Action) -> (ShardId, TerminationId) {
    match action {
        Action::Command { shard, command: Command::Subtract { termination } } => {
            (*shard, *termination)
        }
        other => panic!("{other:?}"),
    }
}

fn accepted(actions: Vec<Action>) -> String {
    match only(actions) {
        Action::Answer { answer: Answer::Accepted { sdp }, .. } => String::from_utf8(sdp).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn refused(action: &Action) -> (u16, Option<u16>, Option<Duration>) {
    match action {
        Action::Answer { answer: Answer::Refused { status, warning, retry_after }, .. } => {
            (*status, warning.as_ref().map(|(code, _)| *code), *retry_after)
        }
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
        reserve.remote_path.as_deref(),
        Some("msrp://198.51.100.10:40210/q7Fz0K2m9XbA4cD1;tcp")
    );
    assert_eq!(reserve.member.uris, ["sip:alice@example.com"]);
    assert_eq!(reserve.accept_types, "message/cpim text/plain");
    assert_eq!(reserve.accept_wrapped_types, "text/plain");
    assert_eq!(reserve.direction, Direction::SendRecv);
    assert!(!reserve.own_port);

    let termination = reserve.termination;
    let address = "203.0.113.5:2855".parse().unwrap();
    assert_eq!(accepted(bench.mp(shard, Mp::Reserved { termination, address })), ANSWER);
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

#[test]
fn the_shard_learns_the_rooms_policy_and_what_the_members_client_can() {
    let mut bench = Bench::with(|config| {
        config.rooms.chat.nicknames = false;
        config.rooms.chat.nicknames_reserved = vec!["admin".to_owned()];
        let lounge = ChatPolicy {
            cpim: CpimPolicy::Required,
            accept_types: "text/plain".to_owned(),
            accept_wrapped_types: "text/plain image/*".to_owned(),
            message_bytes_max: Some(65_536),
            ..ChatPolicy::default()
        };
        config.rooms.exceptions.insert("lounge".to_owned(), lounge);
    });
    let (_, plain) = reservation(bench.invite(1, "tea", "sip:alice@example.com", Some(OFFER)));
    let Switching::ChatRoom(policy) = plain.switching else { panic!("{:?}", plain.switching) };
    assert_eq!(policy.uris, ["sip:tea@conference.example"]);
    assert!(!policy.nicknames && policy.private_messages);
    assert_eq!(policy.nicknames_reserved, ["admin"]);
    assert_eq!(policy.cpim, CpimPolicy::Wrap);
    assert_eq!((&*policy.accept_types, &*policy.accept_wrapped_types), ("text/plain *", "*"));
    assert_eq!(policy.message_bytes_max, None);
    assert!(!plain.member.private_messages && !plain.file_transfer);

    let chatroom = format!("{OFFER}a=chatroom:nickname private-messages\r\n");
    let bob = bench.invite(2, "lounge", "sip:bob@example.com", Some(&chatroom));
    let (_, member) = reservation(bob);
    let Switching::ChatRoom(policy) = member.switching else { panic!("{:?}", member.switching) };
    assert_eq!(policy.cpim, CpimPolicy::Required);
    assert_eq!(policy.accept_types, "text/plain");
    assert_eq!(policy.accept_wrapped_types, "text/plain image/*");
    assert_eq!(policy.message_bytes_max, Some(65_536));
    assert!(policy.nicknames && member.member.private_messages);

    let text = OFFER.replace("message/cpim text/plain", "text/plain");
    let bare = bench.invite(3, "lounge", "sip:carol@example.com", Some(&text));
    assert_eq!(refused(&only(bare)), (488, Some(305), None));
}

#[test]
fn traffic_is_counted_in_the_realm_that_the_signalling_comes_from() {
    let network = Network::new("10.1.0.0".parse().unwrap(), 16).unwrap();
    let mut bench = Bench::with(|config| {
        config.realms = Realms::new([("access".to_owned(), vec![network])]);
    });
    for (call, source, realm) in [(1, Some("10.1.2.3"), 1), (2, Some("10.2.0.1"), 0), (3, None, 0)]
    {
        let from = format!("sip:{call}@example.com");
        let source = source.map(|source| source.parse().unwrap());
        let invite = Event::Invite {
            call: CallId(call),
            room: "tea".to_owned(),
            from: Caller { source, ..Caller::from(from.as_str()) },
            to: "sip:tea@conference.example".to_owned(),
            offer: Some(OFFER.into()),
        };
        let (_, reserve) = reservation(bench.event(invite));
        assert_eq!(reserve.realm.0, realm, "{source:?}");
    }
}

#[test]
fn a_client_without_cpim_is_told_that_it_may_send_bare_messages() {
    let mut bench = Bench::new();
    let text = OFFER.replace("message/cpim text/plain", "text/plain");
    let (shard, reserve) = reservation(bench.invite(1, "tea", "sip:a@example.com", Some(&text)));
    let address = "203.0.113.5:2855".parse().unwrap();
    let reserved = Mp::Reserved { termination: reserve.termination, address };
    let expected = ANSWER.replace("types:message/cpim", "types:text/plain *");
    assert_eq!(accepted(bench.mp(shard, reserved)), expected);
}

#[test]
fn a_file_is_answered_with_its_selector_and_identifier_and_no_chat_room() {
    let mut bench = Bench::new();
    let lines = "a=sendonly\r\n\
        a=file-selector:name:\"b c.jpg\" type:image/jpeg size:4092\r\n\
        a=file-transfer-id:Q6LMoGymJdh0IKIgD6wD0jkcfgva4xvE\r\n\
        a=file-disposition:render\r\n\
        a=file-range:1-4092\r\n";
    let offer = format!("{OFFER}{lines}");
    let (shard, reserve) = reservation(bench.invite(1, "tea", "sip:a@example.com", Some(&offer)));
    assert!(reserve.file_transfer);
    assert_eq!(reserve.direction, Direction::SendOnly);
    let address = "203.0.113.5:2855".parse().unwrap();
    let reserved = Mp::Reserved { termination: reserve.termination, address };
    let mirrored = lines.replace("a=sendonly\r\n", "").replace("a=file-disposition:render\r\n", "");
    let expected = ANSWER
        .replace("a=sendrecv", "a=recvonly")
        .replace("a=chatroom:nickname private-messages\r\n", &mirrored);
    assert_eq!(accepted(bench.mp(shard, reserved)), expected);

    // RFC 5547 figure 3: the same identifier, another file.
    let other = offer.replace("size:4092", "size:4093");
    assert_eq!(refused(&only(bench.reinvite(1, &other))), (488, Some(399), None));
    assert_eq!(refused(&only(bench.reinvite(1, OFFER))), (488, Some(399), None));
    // A new transfer on the same session, and a repetition: both change nothing on the shard.
    let next = other.replace("Q6LMoGymJdh0", "a-new-one");
    assert!(accepted(bench.reinvite(1, &next)).contains("a=file-transfer-id:a-new-one"));
    assert!(accepted(bench.reinvite(1, &next)).contains("a=file-transfer-id:a-new-one"));
}

#[test]
fn refusals_before_the_offer_leave_nothing_behind() {
    let rooms = |config: &mut MrfcConfig| {
        config.rooms =
            RoomPolicy { names: BTreeSet::from(["tea".to_owned()]), ..RoomPolicy::default() };
        config.domains = BTreeSet::from(["conference.example".to_owned()]);
    };
    let mut bench = Bench::with(rooms);
    let from = "sip:alice@example.com";
    assert_eq!(refused(&only(bench.invite(1, "coffee", from, Some(OFFER)))), (404, None, None));
    assert_eq!(refused(&only(bench.invite(2, "", from, Some(OFFER)))), (404, None, None));
    let other_domain = Event::Invite {
        call: CallId(4),
        room: "tea".to_owned(),
        from: from.into(),
        to: "sip:tea@elsewhere.example:5060;transport=tcp".to_owned(),
        offer: Some(OFFER.into()),
    };
    assert_eq!(refused(&only(bench.event(other_domain))), (404, None, None));
    assert!(bench.mrfc.is_empty());

    let mut bench = Bench::with(|config| config.shards.clear());
    assert_eq!(refused(&only(bench.invite(1, "tea", from, Some(OFFER)))).0, 503);
    let mut bench = Bench::with(|config| config.security = SecurityPolicy::TlsRequired);
    assert_eq!(refused(&only(bench.invite(1, "tea", from, Some(OFFER)))), (488, Some(302), None));
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().calls_refused[&488], 1);
}

#[test]
fn limits_per_user_room_and_node_are_kept() {
    let mut bench = Bench::new();
    bench.establish(1, "tea", "sip:a@example.com");
    bench.establish(2, "tea", "sip:a@example.com");
    let third = bench.invite(3, "tea", "sip:a@example.com", Some(OFFER));
    assert_eq!(refused(&only(third)).0, 403);
    // The same user (RFC 3261 section 19.1.4: scheme and host compare without regard to case).
    let again = bench.invite(3, "tea", "SIP:a@Example.COM", Some(OFFER));
    assert_eq!(refused(&only(again)).0, 403);
    bench.establish(4, "tea", "sip:b@example.com");
    let fourth = bench.invite(5, "tea", "sip:c@example.com", Some(OFFER));
    assert_eq!(refused(&only(fourth)).0, 486);
    bench.establish(6, "milk", "sip:c@example.com");
    bench.establish(7, "milk", "sip:d@example.com");
    let sixth = bench.invite(8, "milk", "sip:e@example.com", Some(OFFER));
    let (status, _, retry_after) = refused(&only(sixth));
    assert_eq!(status, 503);
    assert!(retry_after.is_some());
}

#[test]
fn a_room_stays_on_its_shard_and_rooms_spread() {
    let mut bench = Bench::new();
    let (tea, _) = bench.establish(1, "tea", "sip:a@example.com");
    let (tea_again, _) = bench.establish(2, "tea", "sip:b@example.com");
    let (milk, _) = bench.establish(3, "milk", "sip:c@example.com");
    assert_eq!((tea, tea_again, milk), (ShardId(0), ShardId(0), ShardId(1)));
    let contexts: Vec<_> = bench.mrfc.rooms().map(|room| room.context).collect();
    assert_ne!(contexts[0], contexts[1]);
    let loads: Vec<_> = bench.mrfc.shard_terminations().collect();
    assert_eq!(loads, [(ShardId(0), 2), (ShardId(1), 1)]);
}

#[test]
fn shard_refusals_become_answers_and_leave_nothing_behind() {
    let table = [
        (Refusal::TerminationsExhausted, 503),
        (Refusal::ContextFull, 486),
        (Refusal::TerminationId, 500),
        (Refusal::Transport, 503),
        (Refusal::Stopping, 503),
    ];
    for (reason, status) in table {
        let mut bench = Bench::new();
        let actions = bench.invite(1, "tea", "sip:a@example.com", Some(OFFER));
        let (shard, reserve) = reservation(actions);
        let termination = reserve.termination;
        let actions = bench.mp(shard, Mp::Refused { termination, reason });
        assert_eq!(refused(&only(actions)).0, status, "{reason:?}");
        assert!(bench.mrfc.is_empty());
        assert_eq!(bench.mrfc.shard_terminations().next(), Some((ShardId(0), 0)));
    }
}

#[test]
fn identity_in_use_is_tried_once_on_a_port_of_its_own() {
    let mut bench = Bench::new();
    let actions = bench.invite(1, "tea", "sip:a@example.com", Some(OFFER));
    let (shard, reserve) = reservation(actions);
    let termination = reserve.termination;
    let in_use = || Mp::Refused { termination, reason: Refusal::IdentityInUse };
    let (_, again) = reservation(bench.mp(shard, in_use()));
    assert!(again.own_port);
    assert_eq!(again.termination, termination);
    assert_eq!(refused(&only(bench.mp(shard, in_use()))).0, 503);
    assert!(bench.mrfc.is_empty());
}

#[test]
fn a_silent_shard_ends_the_call_and_the_wait_for_subtracted() {
    let mut bench = Bench::new();
    reservation(bench.invite(1, "tea", "sip:a@example.com", Some(OFFER)));
    assert!(bench.wait(SHARD_TIMEOUT_NS - 1).is_empty());
    let actions = bench.wait(1);
    assert_eq!(refused(&actions[0]).0, 503);
    subtraction(&actions[1]);
    assert!(bench.wait(SUBTRACT_TIMEOUT_NS).is_empty());
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().shard_timeouts, 2);
}

#[test]
fn caller_that_gives_up_gets_no_answer() {
    let mut bench = Bench::new();
    let actions = bench.invite(1, "tea", "sip:a@example.com", Some(OFFER));
    let (shard, reserve) = reservation(actions);
    let termination = reserve.termination;
    subtraction(&only(bench.event(Event::Ended { call: CallId(1) })));
    let address = "203.0.113.5:2855".parse().unwrap();
    assert!(bench.mp(shard, Mp::Reserved { termination, address }).is_empty());
    assert!(bench.subtracted(shard, termination).is_empty());
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().calls_abandoned, 1);
}

#[test]
fn lost_bearer_hangs_up_with_a_reason() {
    let mut bench = Bench::new();
    let (shard, termination) = bench.establish(1, "tea", "sip:a@example.com");
    let cause = ReleaseCause::ConnectionLost;
    let actions = bench.mp(shard, Mp::BearerReleased { termination, cause });
    assert_eq!(hung_up(&actions[0]), "Q.850;cause=41;text=\"media lost\"");
    assert_eq!(subtraction(&actions[1]), (shard, termination));
    assert!(bench.event(Event::Ended { call: CallId(1) }).is_empty());
    assert!(bench.reinvite(1, OFFER).iter().all(|action| refused(action).0 == 481));
    bench.subtracted(shard, termination);
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().calls_hung_up[&HangUpCause::Bearer(cause)], 1);
}

#[test]
fn a_stopped_shard_takes_its_calls_along_and_gets_no_new_ones() {
    let mut bench = Bench::new();
    let (shard, _) = bench.establish(1, "tea", "sip:a@example.com");
    assert_eq!(shard, ShardId(0));
    hung_up(&only(bench.mp(shard, Mp::Stopped)));
    assert!(bench.mrfc.is_empty());
    let (shard, _) = bench.establish(2, "tea", "sip:a@example.com");
    assert_eq!(shard, ShardId(1));
}

#[test]
fn refresh_repeats_the_answer_and_hold_raises_its_version() {
    let mut bench = Bench::new();
    let (shard, termination) = bench.establish(1, "tea", "sip:a@example.com");
    assert_eq!(accepted(bench.reinvite(1, OFFER)), ANSWER);

    let hold = format!("{OFFER}a=sendonly\r\n");
    match only(bench.reinvite(1, &hold)) {
        Action::Command { command: Command::Modify(modify), .. } => {
            assert_eq!(modify.termination, termination);
            assert_eq!(modify.direction, Direction::SendOnly);
            assert_eq!(modify.remote, None);
        }
        other => panic!("{other:?}"),
    }
    // RFC 3261 section 14.2: one at a time.
    assert_eq!(refused(&only(bench.reinvite(1, OFFER))).0, 500);
    let held = accepted(bench.mp(shard, Mp::Modified { termination }));
    assert!(held.contains(" 2 IN IP4 "));
    assert!(held.contains("a=recvonly\r\n"));

    let moved = OFFER.replace("q7Fz0K2m9XbA4cD1", "movedmovedmoved1");
    match only(bench.reinvite(1, &moved)) {
        Action::Command { command: Command::ReplaceSession(replace), .. } => {
            assert!(replace.remote.unwrap().path.contains("/movedmovedmoved1;"));
        }
        other => panic!("{other:?}"),
    }
    let reason = Refusal::Transport;
    assert_eq!(refused(&only(bench.mp(shard, Mp::Refused { termination, reason }))).0, 503);
    // Refused, so the session on hold is what a refresh finds.
    assert_eq!(accepted(bench.reinvite(1, &hold)), held);
}

#[test]
fn reinvite_says_anew_what_the_member_takes() {
    let mut bench = Bench::new();
    let (shard, termination) = bench.establish(1, "tea", "sip:a@example.com");
    let next = OFFER.replace("message/cpim text/plain", "text/plain");
    let next = format!("{next}a=max-size:9000\r\na=chatroom:private-messages\r\n");
    let Action::Command { command: Command::Modify(modify), .. } = only(bench.reinvite(1, &next))
    else {
        panic!("the shard is not asked");
    };
    let remote = modify.remote.expect("changed");
    assert_eq!(remote.path, "msrp://198.51.100.10:40210/q7Fz0K2m9XbA4cD1;tcp");
    let taken = remote.capabilities.expect("changed");
    assert_eq!((taken.accept_types.as_str(), taken.max_size_bytes), ("text/plain", Some(9000)));
    assert!(taken.private_messages);
    // The wrapper is not asked of it any more.
    let answer = accepted(bench.mp(shard, Mp::Modified { termination }));
    assert!(answer.contains("a=accept-types:text/plain *\r\n"), "{answer}");
}

#[test]
fn reinvite_that_cannot_be_carried_out_leaves_the_session_as_it_was() {
    let mut bench = Bench::new();
    bench.establish(1, "tea", "sip:a@example.com");
    let offers = [
        OFFER.replace("setup:actpass", "setup:passive"),
        OFFER.replace("m=message 40210", "m=message 0"),
        OFFER.replace("message/cpim text/plain", "image/png"),
        "v=0\r\ngarbage".to_owned(),
    ];
    for offer in offers {
        assert_eq!(refused(&only(bench.reinvite(1, &offer))).0, 488, "{offer}");
        assert_eq!(accepted(bench.reinvite(1, OFFER)), ANSWER);
    }
    let more = format!("{OFFER}m=audio 4000 RTP/AVP 0\r\n");
    let answer = accepted(bench.reinvite(1, &more));
    assert!(answer.ends_with("m=audio 0 RTP/AVP 0\r\n"));
    assert!(answer.contains(" 2 IN IP4 "));
}

#[test]
fn passive_offer_makes_us_connect_to_the_path() {
    let mut bench = Bench::new();
    let offer = OFFER.replace("actpass", "passive");
    let actions = bench.invite(1, "tea", "sip:a@example.com", Some(&offer));
    let (shard, reserve) = reservation(actions);
    let remote = "198.51.100.10:40210".parse().unwrap();
    assert_eq!(reserve.setup, Setup::Active { remote });
    let termination = reserve.termination;
    // The shard listens on every address; the SDP names the one peers know.
    let address = "0.0.0.0:2855".parse().unwrap();
    let answer = accepted(bench.mp(shard, Mp::Reserved { termination, address }));
    assert!(answer.contains("a=setup:active\r\n"));
    assert!(answer.contains("c=IN IP4 203.0.113.5\r\n"));
}

#[test]
fn shutdown_refuses_hangs_up_and_reports_drained_once() {
    let mut bench = Bench::new();
    let (shard, first) = bench.establish(1, "tea", "sip:a@example.com");
    let actions = bench.invite(2, "tea", "sip:b@example.com", Some(OFFER));
    let (_, reserve) = reservation(actions);
    let actions = bench.event(Event::Shutdown);
    assert_eq!(actions.len(), 4);
    hung_up(&actions[0]);
    subtraction(&actions[1]);
    assert_eq!(refused(&actions[2]).0, 503);
    subtraction(&actions[3]);
    assert_eq!(refused(&only(bench.invite(3, "tea", "sip:c@x", Some(OFFER)))).0, 503);
    assert!(bench.subtracted(shard, first).is_empty());
    let drained = bench.subtracted(shard, reserve.termination);
    assert!(matches!(only(drained), Action::Drained));
    assert!(bench.event(Event::Shutdown).is_empty());
}
