//! Calls with a BFCP stream beside their messages (RFC 8856), against a scripted shard and a KMS.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::{
    Initiator, NtpTime, Parameters, PreSharedKey, Responder, ResponderConfig, TicketProtectionKey,
    UriPattern,
};
use control_api::mrfc::{
    Action, Administration, Answer, CallId, ChatPolicy, DialPolicies, DialPolicy, DialRequest,
    DialSecurity, Event, FloorsPolicy, FocusConfig, InitiatorConfig, KMS_TIMEOUT_NS, MemberState,
    Mrfc, MrfcConfig, Now, Realms, RoomFloor, RoomPolicy, SHARD_TIMEOUT_NS, SecurityPolicy,
    ShardDescription, TicketSource,
};
use control_api::sdp::Fingerprint;
use mrfp_core::Psk;
use mrfp_core::floor::{ConferencePolicy, FloorOrder, FloorPolicy, ThirdPartyRequests};
use mrfp_core::mp::{
    Command, Event as Mp, FloorTransport, ModifyFloorControl, Refusal, ReleaseCause,
    ReplaceFloorControl, ReserveAndConfigure, ReserveFloorControl, Security, Setup, ShardId,
    Switching, TerminationId, TerminationStatistics, TlsRole,
};

const ALICE: &str = "sip:alice@example.com";
const BOB: &str = "sip:bob@example.com";
const ROOM: &str = "sip:tea@conference.example";
const KMS: &str = "sip:kms@example.com";
const SHARD: ShardId = ShardId(0);
const CALL: CallId = CallId(7);

const FLOOR: &str = "m=application 9 TCP/BFCP *\r\na=setup:active\r\na=connection:new\r\n\
    a=floorctrl:c-only\r\na=bfcpver:1\r\n";

struct Bench {
    mrfc: Mrfc,
    kms: Kms,
    /// Bob's, who is called.
    callee: Responder,
    ticket_key: TicketProtectionKey,
    drawn: u64,
    now_ns: u64,
}

/// Numbers that never repeat, in place of random ones.
fn draw(drawn: &mut u64, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        *drawn += 1;
        let mixed = drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mixed.to_be_bytes()[..chunk.len()]);
    }
}

fn now(monotonic_ns: u64) -> Now {
    Now { monotonic_ns, ntp: NtpTime::from_unix(Duration::from_secs(1_700_000_000)) }
}

fn floors() -> FloorsPolicy {
    let floor = |floor_id, label: &str, governs_messages| RoomFloor {
        floor_id,
        label: label.to_owned(),
        policy: FloorPolicy {
            order: FloorOrder::FirstComeFirstServed,
            holders_max: 1,
            requests_per_user_max: 1,
            holding_max_ns: None,
        },
        governs_messages,
    };
    FloorsPolicy {
        conference: ConferencePolicy {
            grace_ns: 5_000_000_000,
            third_party_requests: ThirdPartyRequests::Nobody,
        },
        floors: vec![floor(1, "10", true), floor(2, "11", false)],
        moderated: true,
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(adjust: impl FnOnce(&mut MrfcConfig)) -> Self {
        let parameters = Parameters::default();
        let kms_key = |identity: &str, byte| PreSharedKey {
            identity: identity.as_bytes().to_vec(),
            key: vec![byte; 16].into(),
        };
        let ticket_key = TicketProtectionKey { identity: b"tpk".to_vec(), key: vec![9; 16].into() };
        let any = |identity: &str| (identity.as_bytes().to_vec(), vec![UriPattern::Any]);
        let kms = Kms::new(KmsConfig {
            uri: KMS.to_owned(),
            users: vec![kms_key("mrfc", 7), kms_key("ue", 8)],
            ticket_protection_keys: vec![ticket_key.clone()],
            ticket_lifetime: Duration::from_secs(3600),
            may_act_as: BTreeMap::from([any("mrfc"), any("ue"), any("tpk")]),
            groups: BTreeMap::new(),
            parameters: parameters.clone(),
        });
        let responder = Responder::new(ResponderConfig {
            accepted: vec![UriPattern::Host("conference.example".to_owned())],
            answer_as: None,
            kms_uri: KMS.to_owned(),
            kms_key: kms_key("mrfc", 7),
            parameters: parameters.clone(),
        });
        let callee = Responder::new(ResponderConfig {
            accepted: vec![UriPattern::Any],
            answer_as: Some(BOB.to_owned()),
            kms_uri: KMS.to_owned(),
            kms_key: kms_key("ue", 8),
            parameters: parameters.clone(),
        });
        let initiator = InitiatorConfig {
            kms_uri: KMS.to_owned(),
            kms_key: kms_key("mrfc", 7),
            certificate: None,
            ticket_key: Some(ticket_key.clone()),
            held_keys: Vec::new(),
            kept_tickets_max: 0,
            groups: BTreeMap::new(),
            parameters,
        };
        let policy = DialPolicy {
            security: DialSecurity::Mikey,
            ticket: TicketSource::Kms,
            ..DialPolicy::default()
        };
        let dialling = DialPolicies { default: policy, ..DialPolicies::default() };
        let chat = ChatPolicy { floors: Some(floors()), ..ChatPolicy::default() };
        let mut config = MrfcConfig {
            shards: vec![ShardDescription {
                id: SHARD,
                address: "203.0.113.5:2855".parse().unwrap(),
            }],
            rooms: RoomPolicy { open: true, chat, ..RoomPolicy::default() },
            calls_max: 5,
            user_calls_max: 5,
            security: SecurityPolicy::PlainAllowed,
            domains: BTreeSet::from(["conference.example".to_owned()]),
            cema: true,
            certificate: None,
            realms: Realms::default(),
            recovery: Duration::ZERO,
            focus: FocusConfig { dialling, ..FocusConfig::default() },
        };
        adjust(&mut config);
        let mrfc = Mrfc::new(config, Some(responder)).with_initiator(initiator);
        Self { mrfc, kms, callee, ticket_key, drawn: 0, now_ns: 1 }
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let drawn = &mut self.drawn;
        self.mrfc.handle(now(self.now_ns), &mut |bytes| draw(drawn, bytes), event);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.mrfc.poll_action()).collect()
    }

    fn wait(&mut self, ns: u64) -> Vec<Action> {
        self.now_ns += ns;
        let drawn = &mut self.drawn;
        self.mrfc.handle_timeout(now(self.now_ns), &mut |bytes| draw(drawn, bytes));
        self.actions()
    }

    fn invite_as(&mut self, call: CallId, from: &str, offer: Option<&str>) -> Vec<Action> {
        self.event(Event::Invite {
            call,
            room: "tea".to_owned(),
            from: from.into(),
            to: ROOM.to_owned(),
            offer: offer.map(|text| text.as_bytes().to_vec()),
        })
    }

    fn invite(&mut self, offer: &str) -> Vec<Action> {
        self.invite_as(CALL, ALICE, Some(offer))
    }

    fn reinvite(&mut self, offer: &str) -> Vec<Action> {
        let offer = Some(offer.as_bytes().to_vec());
        self.event(Event::Reinvite { call: CALL, offer })
    }

    fn mp(&mut self, event: Mp) -> Vec<Action> {
        self.event(Event::Mp { shard: SHARD, event })
    }

    fn reserved(&mut self, termination: TerminationId, port: u16) -> Vec<Action> {
        self.mp(Mp::Reserved { termination, address: ([203, 0, 113, 5], port).into() })
    }

    fn refused(&mut self, termination: TerminationId, reason: Refusal) -> Vec<Action> {
        self.mp(Mp::Refused { termination, reason })
    }

    /// A call with a floor stream in the clear, up to its 200; both Terminations and the answer.
    fn establish(&mut self) -> (TerminationId, TerminationId, String) {
        let message = reservation(self.invite(&offer(1, FLOOR))).termination;
        let floor = floor_reservation(self.reserved(message, 2855)).termination;
        let answer = accepted(self.reserved(floor, 2855));
        (message, floor, answer)
    }

    /// Ends the call; all it held has to come back.
    fn end(&mut self, terminations: &[TerminationId]) {
        let actions = self.event(Event::Ended { call: CALL });
        self.given_back(&actions, terminations);
    }

    fn given_back(&mut self, actions: &[Action], terminations: &[TerminationId]) {
        let subtracted: Vec<_> = actions.iter().filter_map(subtraction).collect();
        assert_eq!(subtracted, terminations, "{actions:?}");
        for &termination in terminations {
            let statistics = TerminationStatistics::default();
            assert!(self.mp(Mp::Subtracted { termination, statistics }).is_empty());
        }
        assert!(self.mrfc.is_empty());
        assert!(self.mrfc.shard_terminations().all(|(_, count)| count == 0));
    }

    /// TRANSFER_INIT of a caller's own ticket.
    fn transfer_init(&mut self) -> (Initiator, Vec<u8>) {
        let drawn = &mut self.drawn;
        let made = Initiator::with_own_ticket(
            &Parameters::default(),
            ALICE,
            ROOM,
            KMS,
            &self.ticket_key,
            now(1).ntp,
            &mut |bytes| draw(drawn, bytes),
        );
        made.unwrap()
    }

    fn ask_kms(&mut self, message: &[u8]) -> Vec<u8> {
        let drawn = &mut self.drawn;
        self.kms.handle(message, now(1).ntp, &mut |bytes| draw(drawn, bytes))
    }

    /// Has the KMS answer the one question there is.
    fn resolve(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let Action::Resolve { resolve, message } = only(actions) else { panic!("no question") };
        let response = Some(self.ask_kms(&message));
        self.event(Event::Resolved { resolve, response })
    }

    /// What somebody who is called answers to a TRANSFER_INIT, and its key.
    fn respond(&mut self, transfer_init: &[u8]) -> (Vec<u8>, Psk) {
        let drawn = &mut self.drawn;
        let mut random = |bytes: &mut [u8]| draw(drawn, bytes);
        let begun = self.callee.begin(transfer_init, "mikey", now(1).ntp, &mut random);
        let (pending, resolve_init) = begun.expect("a sound TRANSFER_INIT");
        let response = self.kms.handle(&resolve_init, now(1).ntp, &mut random);
        let finished = pending.finish(&mut self.callee, &response, now(1).ntp, &mut random);
        let (established, transfer_resp) = finished.expect("the ticket is good");
        (transfer_resp, established.psk)
    }

    /// Calls bob; both Terminations, and the offer he gets.
    fn dial(&mut self, security: DialSecurity) -> (TerminationId, ReserveFloorControl, String) {
        let drawn = &mut self.drawn;
        let request = DialRequest {
            room: "tea".to_owned(),
            call: CALL,
            target: BOB.to_owned(),
            security: Some(security),
        };
        let dialled = self.mrfc.dial(now(self.now_ns), &mut |bytes| draw(drawn, bytes), request);
        dialled.expect("it calls");
        let mut actions = self.actions();
        if security == DialSecurity::Mikey {
            // One ticket serves both streams.
            actions = self.resolve(actions);
        }
        let message = reservation(actions).termination;
        let floor = floor_reservation(self.reserved(message, 2855));
        let Action::Dial { sdp, .. } = only(self.reserved(floor.termination, 5070)) else {
            panic!("no call");
        };
        (message, floor, String::from_utf8(sdp).expect("text"))
    }

    fn answered(&mut self, answer: &str) -> Vec<Action> {
        self.event(Event::Answered { call: CALL, answer: Some(answer.as_bytes().to_vec()) })
    }
}

/// An offer of messages in the clear, and what else there is.
fn offer(version: u64, floor: &str) -> String {
    format!(
        "v=0\r\no=ue 1 {version} IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\n\
         m=message 40210 TCP/MSRP *\r\na=setup:actpass\r\na=accept-types:message/cpim\r\n\
         a=path:msrp://198.51.100.10:40210/q7Fz0K2m9XbA;tcp\r\n{floor}"
    )
}

fn key_line(message: &[u8]) -> String {
    format!("a=key-mgmt:mikey {}\r\n", STANDARD.encode(message))
}

/// The same with TLS and a key for each of both.
fn keyed_offer(version: u64, message: &[u8], floor: &[u8], setup: &str) -> String {
    let floor = FLOOR.replace("TCP/", "TCP/TLS/").replace("active", setup) + &key_line(floor);
    let plain = offer(version, "");
    plain.replace("TCP/MSRP", "TCP/TLS/MSRP").replace("msrp://", "msrps://")
        + &key_line(message)
        + &floor
}

fn only(actions: Vec<Action>) -> Action {
    assert_eq!(actions.len(), 1, "{actions:?}");
    actions.into_iter().next().unwrap()
}

fn reservation(actions: Vec<Action>) -> ReserveAndConfigure {
    match only(actions) {
        Action::Command { command: Command::ReserveAndConfigure(reserve), .. } => *reserve,
        other => panic!("{other:?}"),
    }
}

fn floor_reservation(actions: Vec<Action>) -> ReserveFloorControl {
    match only(actions) {
        Action::Command { command: Command::ReserveFloorControl(reserve), .. } => *reserve,
        other => panic!("{other:?}"),
    }
}

fn floor_replacement(actions: Vec<Action>) -> ReplaceFloorControl {
    match only(actions) {
        Action::Command { command: Command::ReplaceFloorControl(replace), .. } => *replace,
        other => panic!("{other:?}"),
    }
}

fn floor_modification(actions: Vec<Action>) -> ModifyFloorControl {
    match only(actions) {
        Action::Command { command: Command::ModifyFloorControl(modify), .. } => *modify,
        other => panic!("{other:?}"),
    }
}

fn accepted(actions: Vec<Action>) -> String {
    match only(actions) {
        Action::Answer { call: CALL, answer: Answer::Accepted { sdp } } => {
            String::from_utf8(sdp).expect("text")
        }
        other => panic!("{other:?}"),
    }
}

fn status(action: &Action) -> u16 {
    match action {
        Action::Answer { answer: Answer::Refused { status, .. }, .. } => *status,
        other => panic!("{other:?}"),
    }
}

fn subtraction(action: &Action) -> Option<TerminationId> {
    match action {
        Action::Command { command: Command::Subtract { termination }, .. } => Some(*termination),
        _ => None,
    }
}

/// What stands in a description from its m-line of BFCP on.
fn floor_lines(sdp: &str) -> &str {
    &sdp[sdp.find("m=application").expect("a line")..]
}

fn value<'a>(lines: &'a str, name: &str) -> &'a str {
    let value = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {lines}"))
}

fn mikey(lines: &str) -> Vec<u8> {
    let text = value(lines, "a=key-mgmt").strip_prefix("mikey ").expect("mikey");
    STANDARD.decode(text).expect("base64")
}

fn psk(security: &Security) -> (&[u8], &Psk) {
    match security {
        Security::TlsPsk { identity, psk } => (identity, psk),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_answer_has_both_streams_and_the_shard_has_both_terminations() {
    let mut bench = Bench::new();
    let reserve = reservation(bench.invite(&offer(1, FLOOR)));
    let Switching::ChatRoom(room) = &reserve.switching else { panic!("{reserve:?}") };
    let control = room.floors.as_deref().expect("floors");
    assert_ne!(control.conference_id, 0);
    assert!(control.moderated && control.floors[0].governs_messages && control.floors[1].reported);
    let floor = floor_reservation(bench.reserved(reserve.termination, 2855));
    assert_eq!(floor.context, reserve.context);
    assert_ne!(floor.termination, reserve.termination);
    assert_eq!(floor.speaks_by, Some(reserve.termination));
    assert_eq!((floor.user_id, &*floor.uri), (1, ALICE));
    assert!(!floor.unanswered && !floor.own_port);
    assert_eq!(floor.stream.transport, FloorTransport::Tcp(Setup::Passive));
    assert_eq!(floor.stream.tls_role, TlsRole::Server);
    assert!(matches!(floor.stream.security, Security::Plain));
    let answer = accepted(bench.reserved(floor.termination, 2855));
    assert!(answer.contains("a=sendrecv\r\na=label:10\r\n"), "{answer}");
    let expected = format!(
        "m=application 2855 TCP/BFCP *\r\na=setup:passive\r\na=connection:new\r\n\
         a=floorctrl:s-only\r\na=confid:{}\r\na=userid:1\r\na=floorid:1 mstrm:10\r\n\
         a=floorid:2 mstrm:11\r\na=bfcpver:1\r\n",
        control.conference_id
    );
    assert_eq!(floor_lines(&answer), expected);
    {
        let room = bench.mrfc.rooms().next().expect("a room");
        assert_eq!(room.conference_id, Some(control.conference_id));
        assert_eq!(room.members[0].floor_user, Some(1));
    }

    // Another user of the same conference.
    let bob = reservation(bench.invite_as(CallId(8), BOB, Some(&offer(1, FLOOR))));
    let other = floor_reservation(bench.reserved(bob.termination, 2855));
    assert_eq!((other.context, other.user_id), (floor.context, 2));
    let actions = bench.event(Event::Ended { call: CallId(8) });
    assert_eq!(actions.iter().filter_map(subtraction).count(), 2);
    for termination in [bob.termination, other.termination] {
        bench.mp(Mp::Subtracted { termination, statistics: TerminationStatistics::default() });
    }

    // What becomes of its connection ends no call.
    bench.mp(Mp::Bound { termination: floor.termination });
    for cause in [ReleaseCause::PeerClosed, ReleaseCause::TcpEstablishmentFailure] {
        assert!(bench.mp(Mp::BearerReleased { termination: floor.termination, cause }).is_empty());
        assert_eq!(bench.mrfc.counters().floor_streams_lost[&cause], 1);
    }
    assert_eq!(bench.mrfc.counters().floor_streams_reserved, 1);
    bench.end(&[floor.termination, reserve.termination]);
}

#[test]
fn whoever_will_not_connect_is_connected_to_and_datagrams_have_a_port_of_their_own() {
    let remote = "198.51.100.10:40211".parse().unwrap();
    let passive = FLOOR.replace("active", "passive").replace(" 9 ", " 40211 ");
    let udp = "m=application 40211 UDP/BFCP *\r\na=floorctrl:c-only\r\na=bfcpver:2\r\n";
    for (line, transport, own_port, expected) in [
        (&*passive, FloorTransport::Tcp(Setup::Active { remote }), false, "m=application 9 TCP/"),
        (udp, FloorTransport::Udp { remote: Some(remote) }, true, "m=application 5070 UDP/"),
    ] {
        let mut bench = Bench::new();
        let message = reservation(bench.invite(&offer(1, line))).termination;
        let floor = floor_reservation(bench.reserved(message, 2855));
        assert_eq!((floor.stream.transport, floor.own_port), (transport, own_port));
        let answer = accepted(bench.reserved(floor.termination, 5070));
        assert!(floor_lines(&answer).starts_with(expected), "{answer}");
        bench.end(&[floor.termination, message]);
    }
}

#[test]
fn a_line_that_cannot_be_served_gets_port_0_and_the_messages_go_on() {
    let server = FLOOR.replace("c-only", "s-only");
    for line in [&*server, &FLOOR.replace("TCP/", "UDP/TLS/"), &FLOOR.replace("ver:1", "ver:2")] {
        let mut bench = Bench::new();
        let message = reservation(bench.invite(&offer(1, line))).termination;
        let answer = accepted(bench.reserved(message, 2855));
        assert!(floor_lines(&answer).starts_with("m=application 0 "), "{answer}");
        assert!(!answer.contains("a=label") && !answer.contains("confid"), "{answer}");
        bench.end(&[message]);
    }
    // A second stream of the same member.
    let mut bench = Bench::new();
    let message = reservation(bench.invite(&offer(1, &format!("{FLOOR}{FLOOR}")))).termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    let answer = accepted(bench.reserved(floor, 2855));
    assert_eq!(answer.matches("m=application 0 TCP/BFCP *").count(), 1, "{answer}");
    bench.end(&[floor, message]);
    // A room without floors.
    let mut bench = Bench::with(|config| config.rooms.chat.floors = None);
    let message = reservation(bench.invite(&offer(1, FLOOR))).termination;
    let answer = accepted(bench.reserved(message, 2855));
    assert_eq!(floor_lines(&answer), "m=application 0 TCP/BFCP *\r\n");
    bench.end(&[message]);
}

#[test]
fn a_shard_that_refuses_the_floor_stream_refuses_no_call() {
    let mut bench = Bench::new();
    let message = reservation(bench.invite(&offer(1, FLOOR))).termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    let answer = accepted(bench.refused(floor, Refusal::TerminationsExhausted));
    assert_eq!(floor_lines(&answer), "m=application 0 TCP/BFCP *\r\n");
    assert_eq!(bench.mrfc.counters().floor_streams_refused, 1);
    bench.end(&[message]);

    // An identity that is in use is no reason: a port of its own tells as well who comes.
    let message = reservation(bench.invite(&offer(1, FLOOR))).termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    let again = floor_reservation(bench.refused(floor, Refusal::IdentityInUse));
    assert!(again.own_port);
    let answer = accepted(bench.reserved(again.termination, 5070));
    assert!(floor_lines(&answer).starts_with("m=application 5070 "), "{answer}");
    bench.end(&[again.termination, message]);
}

#[test]
fn a_call_that_ends_early_leaves_nothing_of_either_stream() {
    let mut bench = Bench::new();
    // Given up while the shard is asked for the second.
    let message = reservation(bench.invite(&offer(1, FLOOR))).termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    bench.end(&[floor, message]);
    // The shard does not answer.
    let message = reservation(bench.invite(&offer(1, FLOOR))).termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    let actions = bench.wait(SHARD_TIMEOUT_NS);
    assert_eq!(status(&actions[0]), 503);
    bench.given_back(&actions, &[floor, message]);
    // It stops: nobody is left to give anything back.
    let (..) = bench.establish();
    let actions = bench.mp(Mp::Stopped);
    assert!(matches!(*actions, [Action::HangUp { .. }]), "{actions:?}");
    assert!(bench.mrfc.is_empty());
}

#[test]
fn each_stream_has_its_own_key() {
    for (setup, transport) in [
        ("active", FloorTransport::Tcp(Setup::Passive)),
        (
            "passive",
            FloorTransport::Tcp(Setup::Active { remote: "198.51.100.10:9".parse().unwrap() }),
        ),
    ] {
        let mut bench = Bench::new();
        let (messages, first) = bench.transfer_init();
        let (floors, second) = bench.transfer_init();
        let asked = bench.invite(&keyed_offer(1, &first, &second, setup));
        let asked = bench.resolve(asked);
        let reserve = reservation(bench.resolve(asked));
        let floor = floor_reservation(bench.reserved(reserve.termination, 2855));
        // Whoever connects: the offerer is TLS client (RFC 8856 section 8).
        assert_eq!((floor.stream.transport, floor.stream.tls_role), (transport, TlsRole::Server));
        let answer = accepted(bench.reserved(floor.termination, 2855));
        let (message_lines, _) = answer.split_once("m=application").expect("two");
        let ends = [
            (messages, &reserve.security, message_lines),
            (floors, &floor.stream.security, floor_lines(&answer)),
        ];
        let mut keys = Vec::new();
        for (initiator, security, lines) in ends {
            let (identity, key) = psk(security);
            assert_eq!(initiator.psk_identity().as_bytes(), identity);
            let established = initiator.finish(&mikey(lines), now(1).ntp).expect("it is for us");
            assert_eq!(established.psk.expose(), key.expose());
            keys.push(key.expose().to_vec());
        }
        assert_ne!(keys[0], keys[1]);
        bench.end(&[floor.termination, reserve.termination]);
    }
}

#[test]
fn a_key_that_fails_on_either_line_refuses_the_call() {
    let mut bench = Bench::new();
    let (_, first) = bench.transfer_init();
    let (_, second) = bench.transfer_init();
    let mut broken = second;
    *broken.last_mut().unwrap() ^= 1;
    // The floor stream's, found out with the answer of the KMS.
    let asked = bench.invite(&keyed_offer(1, &first, &broken, "active"));
    let asked = bench.resolve(asked);
    let refused = bench.resolve(asked);
    assert_eq!(status(&only(refused)), 488);
    assert!(bench.mrfc.is_empty());
    // One that was used for the other.
    let (_, first) = bench.transfer_init();
    let asked = bench.invite(&keyed_offer(1, &first, &first, "active"));
    let mut outcome = bench.resolve(asked);
    if let [Action::Resolve { .. }] = &*outcome {
        outcome = bench.resolve(outcome);
    }
    assert_eq!(status(&only(outcome)), 488);
    assert!(bench.mrfc.is_empty());
    // A KMS that falls silent.
    let (_, first) = bench.transfer_init();
    let (_, second) = bench.transfer_init();
    let asked = bench.invite(&keyed_offer(1, &first, &second, "active"));
    assert!(matches!(*bench.resolve(asked), [Action::Resolve { .. }]));
    assert_eq!(status(&only(bench.wait(KMS_TIMEOUT_NS))), 504);
    assert!(bench.mrfc.is_empty());
    // A caller who gives up meanwhile.
    let (_, first) = bench.transfer_init();
    let (_, second) = bench.transfer_init();
    let asked = bench.invite(&keyed_offer(1, &first, &second, "active"));
    assert!(matches!(*bench.resolve(asked), [Action::Resolve { .. }]));
    assert!(bench.event(Event::Ended { call: CALL }).is_empty());
    assert!(bench.mrfc.is_empty());
}

#[test]
fn a_later_offer_leaves_replaces_ends_or_adds_the_floor_stream() {
    let mut bench = Bench::new();
    let (message, floor, first) = bench.establish();
    // A session refresh: the same description, to the letter.
    let answer = accepted(bench.reinvite(&offer(1, FLOOR)));
    assert_eq!(answer, first);
    // Something else changes, the connection stays.
    let existing = FLOOR.replace("connection:new", "connection:existing");
    let answer = accepted(bench.reinvite(&offer(2, &existing)));
    assert_eq!(
        floor_lines(&answer),
        floor_lines(&first).replace("connection:new", "connection:existing")
    );
    // It was lost, and there is to be another (RFC 8856 section 7.1). The user is who it was.
    bench.mp(Mp::BearerReleased { termination: floor, cause: ReleaseCause::ConnectionLost });
    let replace = floor_replacement(bench.reinvite(&offer(3, FLOOR)));
    assert_eq!(replace.termination, floor);
    assert_eq!(replace.stream.transport, FloorTransport::Tcp(Setup::Passive));
    let answer = accepted(bench.reserved(floor, 2855));
    assert_eq!(floor_lines(&answer), floor_lines(&first));
    // It ends.
    let mut actions = bench.reinvite(&offer(4, &FLOOR.replace(" 9 ", " 0 ")));
    assert_eq!(subtraction(&actions.remove(0)), Some(floor));
    let answer = accepted(actions);
    assert_eq!(floor_lines(&answer), "m=application 0 TCP/BFCP *\r\n");
    bench.mp(Mp::Subtracted { termination: floor, statistics: TerminationStatistics::default() });
    // And there is another one, of another user.
    let reserve = floor_reservation(bench.reinvite(&offer(5, FLOOR)));
    assert_eq!((reserve.user_id, reserve.speaks_by), (2, Some(message)));
    let answer = accepted(bench.reserved(reserve.termination, 2855));
    assert_eq!(value(floor_lines(&answer), "a=userid"), "2");
    assert_eq!(value(&answer, "a=confid"), value(&first, "a=confid"));
    bench.end(&[reserve.termination, message]);
}

#[test]
fn a_shard_that_refuses_another_connection_ends_the_floor_stream_and_not_the_call() {
    let mut bench = Bench::new();
    let (message, floor, _) = bench.establish();
    assert_eq!(floor_replacement(bench.reinvite(&offer(2, FLOOR))).termination, floor);
    let mut actions = bench.refused(floor, Refusal::Transport);
    assert_eq!(subtraction(&actions.remove(0)), Some(floor));
    assert_eq!(floor_lines(&accepted(actions)), "m=application 0 TCP/BFCP *\r\n");
    bench.mp(Mp::Subtracted { termination: floor, statistics: TerminationStatistics::default() });
    bench.end(&[message]);
}

#[test]
fn another_connection_under_tls_has_another_key() {
    let mut bench = Bench::new();
    let (_, first) = bench.transfer_init();
    let (_, second) = bench.transfer_init();
    let asked = bench.invite(&keyed_offer(1, &first, &second, "active"));
    let asked = bench.resolve(asked);
    let message = reservation(bench.resolve(asked)).termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    let answer = accepted(bench.reserved(floor, 2855));
    // The key that is known asks for nothing.
    let again = accepted(bench.reinvite(&keyed_offer(2, &first, &second, "active")));
    assert_eq!(value(floor_lines(&again), "a=connection"), "existing");
    assert_eq!(value(floor_lines(&again), "a=userid"), value(floor_lines(&answer), "a=userid"));
    // A silent KMS leaves all as it was.
    let (_, third) = bench.transfer_init();
    let asked = bench.reinvite(&keyed_offer(3, &first, &third, "active"));
    assert!(matches!(*asked, [Action::Resolve { .. }]));
    assert_eq!(status(&only(bench.wait(KMS_TIMEOUT_NS))), 504);
    // A ticket that cannot be resolved likewise.
    let mut broken = third;
    *broken.last_mut().unwrap() ^= 1;
    let asked = bench.reinvite(&keyed_offer(4, &first, &broken, "active"));
    assert_eq!(status(&only(bench.resolve(asked))), 488);
    // A good one is the key of the new connection.
    let (initiator, fourth) = bench.transfer_init();
    let asked = bench.reinvite(&keyed_offer(5, &first, &fourth, "active"));
    let replace = floor_replacement(bench.resolve(asked));
    let (identity, key) = psk(&replace.stream.security);
    assert_eq!((replace.termination, identity), (floor, initiator.psk_identity().as_bytes()));
    let answer = accepted(bench.reserved(floor, 2855));
    let established = initiator.finish(&mikey(floor_lines(&answer)), now(1).ntp).expect("ours");
    assert_eq!(established.psk.expose(), key.expose());
    // Whoever leaves while the KMS is asked leaves nothing.
    let (_, fifth) = bench.transfer_init();
    let asked = bench.reinvite(&keyed_offer(6, &first, &fifth, "active"));
    assert!(matches!(*asked, [Action::Resolve { .. }]));
    bench.end(&[floor, message]);
}

#[test]
fn a_certificate_does_for_a_key_where_the_node_has_one() {
    let certificate = Fingerprint::of(b"certificate");
    let mut bench = Bench::with(|config| config.certificate = Some(certificate.clone()));
    let theirs = format!("a=fingerprint:{}\r\n", Fingerprint::of(b"alice"));
    let line = FLOOR.replace("TCP/", "TCP/TLS/") + &theirs;
    let message = reservation(bench.invite(&offer(1, &line))).termination;
    let floor = floor_reservation(bench.reserved(message, 2855));
    let Security::TlsCertificate { fingerprints } = &floor.stream.security else {
        panic!("{floor:?}");
    };
    assert_eq!(*fingerprints, [Fingerprint::of(b"alice")]);
    let answer = accepted(bench.reserved(floor.termination, 2855));
    assert_eq!(value(floor_lines(&answer), "a=fingerprint"), certificate.to_string());
    bench.end(&[floor.termination, message]);
}

#[test]
fn an_offer_of_a_new_key_for_the_messages_leaves_the_floors_alone() {
    let mut bench = Bench::new();
    let (_, first) = bench.transfer_init();
    let (_, second) = bench.transfer_init();
    let asked = bench.invite(&keyed_offer(1, &first, &second, "active"));
    let asked = bench.resolve(asked);
    let message = reservation(bench.resolve(asked)).termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    let answer = accepted(bench.reserved(floor, 2855));
    bench.mp(Mp::Bound { termination: message });
    let drawn = &mut bench.drawn;
    let rekey = Administration::Rekey(CALL);
    let begun = bench.mrfc.administer(now(1), &mut |bytes| draw(drawn, bytes), "tea", rekey);
    assert_eq!(begun, Ok(()));
    assert_eq!(bench.actions().len(), 1);
    let Action::Reinvite { sdp, .. } = only(bench.mp(Mp::Modified { termination: message })) else {
        panic!("no offer");
    };
    let offer = String::from_utf8(sdp).expect("text");
    // TRANSFER_RESP answers an offer, so it is in none.
    let lines = floor_lines(&answer).replace("connection:new", "connection:existing");
    let (lines, _) = lines.split_once("a=key-mgmt").expect("a key");
    assert_eq!(floor_lines(&offer), lines);
    assert!(offer.contains("a=label:10\r\n"), "{offer}");
    bench.end(&[floor, message]);
}

/// Bob's answer to an offer of ours.
fn bobs_answer(keys: Option<(&[u8], &[u8])>, setup: &str) -> String {
    let text = match keys {
        Some((message, floor)) => keyed_offer(1, message, floor, setup),
        None => offer(1, &FLOOR.replace("active", setup)),
    };
    text.replace("actpass", "active").replace(" 9 ", " 40211 ")
}

#[test]
fn a_call_of_ours_offers_both_streams_each_with_its_key() {
    let remote = "198.51.100.10:40211".parse().unwrap();
    for (setup, expected) in [("active", Setup::Passive), ("passive", Setup::Active { remote })] {
        let mut bench = Bench::new();
        let (message, floor, offer) = bench.dial(DialSecurity::Mikey);
        assert!(floor.unanswered);
        // The peer may be the one that connects, and in TLS we speak first.
        assert!(floor.own_port);
        assert_eq!(floor.stream.tls_role, TlsRole::Client);
        let (message_lines, _) = offer.split_once("m=application").expect("two");
        let lines = floor_lines(&offer);
        assert!(lines.starts_with("m=application 5070 TCP/TLS/BFCP *\r\na=setup:actpass\r\n"));
        assert_eq!(value(lines, "a=floorctrl"), "s-only");
        let (first, second) = (mikey(message_lines), mikey(lines));
        assert_ne!(first, second);
        let Security::TlsPskAwaited { identity } = &floor.stream.security else { panic!() };
        let csb_id = u32::from_be_bytes(second[4..8].try_into().unwrap());
        assert_eq!(*identity, format!("{csb_id:08x}.1").into_bytes());

        let (first, _) = bench.respond(&first);
        let (second, key) = bench.respond(&second);
        let actions = bench.answered(&bobs_answer(Some((&first, &second)), setup));
        let Action::Command { command: Command::Modify(modify), .. } = only(actions) else {
            panic!("no Modify");
        };
        assert_ne!(modify.psk.expect("a key").expose(), key.expose());
        let modify = floor_modification(bench.mp(Mp::Modified { termination: message }));
        assert_eq!(modify.termination, floor.termination);
        assert_eq!(modify.transport, FloorTransport::Tcp(expected));
        assert_eq!(modify.psk.expect("a key").expose(), key.expose());
        assert!(bench.mp(Mp::Modified { termination: floor.termination }).is_empty());
        bench.end(&[floor.termination, message]);
    }
}

#[test]
fn whoever_is_called_may_refuse_the_floors_and_keep_the_messages() {
    let mut bench = Bench::new();
    let (message, floor, offer) = bench.dial(DialSecurity::Plain);
    assert!(!floor.own_port && matches!(floor.stream.security, Security::Plain));
    assert!(floor_lines(&offer).starts_with("m=application 5070 TCP/BFCP *\r\n"), "{offer}");
    let refusing = bobs_answer(None, "active").replace("application 40211", "application 0");
    assert_eq!(bench.answered(&refusing).len(), 1);
    let actions = bench.mp(Mp::Modified { termination: message });
    assert_eq!(subtraction(&only(actions)), Some(floor.termination));
    let statistics = TerminationStatistics::default();
    bench.mp(Mp::Subtracted { termination: floor.termination, statistics });
    bench.end(&[message]);

    // A shard without a place for it: then it is not offered.
    let drawn = &mut bench.drawn;
    let request = DialRequest {
        room: "tea".to_owned(),
        call: CALL,
        target: BOB.to_owned(),
        security: Some(DialSecurity::Plain),
    };
    bench.mrfc.dial(now(1), &mut |bytes| draw(drawn, bytes), request).expect("it calls");
    let message = reservation(bench.actions()).termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    let Action::Dial { sdp, .. } = only(bench.refused(floor, Refusal::Transport)) else { panic!() };
    let sdp = String::from_utf8(sdp).expect("text");
    assert!(!sdp.contains("m=application") && !sdp.contains("a=label"), "{sdp}");
    bench.end(&[message]);
}

#[test]
fn a_floor_stream_keyed_wrongly_ends_a_call_of_ours() {
    for swapped in [false, true] {
        let mut bench = Bench::new();
        let (message, floor, offer) = bench.dial(DialSecurity::Mikey);
        let (message_lines, _) = offer.split_once("m=application").expect("two");
        let (first, _) = bench.respond(&mikey(message_lines));
        let answer = if swapped {
            let (second, _) = bench.respond(&mikey(floor_lines(&offer)));
            bobs_answer(Some((&second, &first)), "active")
        } else {
            let answer = bobs_answer(Some((&first, &first)), "active");
            let (kept, _) = answer.rsplit_once("a=key-mgmt").expect("two keys");
            kept.to_owned()
        };
        let actions = bench.answered(&answer);
        let Action::HangUp { reason, .. } = &actions[0] else { panic!("{actions:?}") };
        assert!(reason.contains("key management failed"), "{reason}");
        bench.given_back(&actions, &[floor.termination, message]);
    }
}

#[test]
fn an_invite_without_an_offer_is_offered_floors_too() {
    let mut bench = Bench::new();
    let message = reservation(bench.invite_as(CALL, ALICE, None)).termination;
    let floor = floor_reservation(bench.reserved(message, 2855));
    assert!(floor.unanswered);
    let offer = accepted(bench.reserved(floor.termination, 2855));
    assert!(floor_lines(&offer).starts_with("m=application 2855 TCP/BFCP *\r\na=setup:actpass"));
    assert_eq!(bench.answered(&bobs_answer(None, "active")).len(), 1);
    let modify = floor_modification(bench.mp(Mp::Modified { termination: message }));
    assert_eq!(modify.transport, FloorTransport::Tcp(Setup::Passive));
    // The shard has lost its place meanwhile: the messages go on.
    let actions = bench.refused(floor.termination, Refusal::Transport);
    assert_eq!(subtraction(&only(actions)), Some(floor.termination));
    let statistics = TerminationStatistics::default();
    bench.mp(Mp::Subtracted { termination: floor.termination, statistics });
    bench.end(&[message]);
}

#[test]
fn a_tls_line_with_neither_key_nor_fingerprint_is_no_floor_stream() {
    // Its numbers are known to all members: any of them could come in the place of the user.
    let certificate = Fingerprint::of(b"certificate");
    let mut bench = Bench::with(|config| config.certificate = Some(certificate));
    let unproved = FLOOR.replace("TCP/", "TCP/TLS/");
    let message = reservation(bench.invite(&offer(1, &unproved))).termination;
    let answer = accepted(bench.reserved(message, 2855));
    assert_eq!(floor_lines(&answer), "m=application 0 TCP/TLS/BFCP *\r\n");
    // With a fingerprint it is one, and it does not go on without.
    let proved = unproved.clone() + &format!("a=fingerprint:{}\r\n", Fingerprint::of(b"alice"));
    let floor = floor_reservation(bench.reinvite(&offer(2, &proved))).termination;
    accepted(bench.reserved(floor, 2855));
    let mut actions = bench.reinvite(&offer(3, &unproved));
    assert_eq!(subtraction(&actions.remove(0)), Some(floor));
    assert_eq!(floor_lines(&accepted(actions)), "m=application 0 TCP/TLS/BFCP *\r\n");
    bench.mp(Mp::Subtracted { termination: floor, statistics: TerminationStatistics::default() });
    bench.end(&[message]);
}

#[test]
fn one_transfer_init_keys_no_second_stream() {
    let mut bench = Bench::new();
    let (_, only_one) = bench.transfer_init();
    let asked = bench.invite(&keyed_offer(1, &only_one, &only_one, "active"));
    assert_eq!(status(&only(bench.resolve(asked))), 488);
    assert!(bench.mrfc.is_empty());
    assert!(bench.mrfc.shard_terminations().all(|(_, count)| count == 0));
    // Nor does that of the messages key a floor stream that comes later.
    let (_, first) = bench.transfer_init();
    let (_, second) = bench.transfer_init();
    let asked = bench.invite(&keyed_offer(1, &first, &second, "active"));
    let asked = bench.resolve(asked);
    let message = reservation(bench.resolve(asked)).termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    accepted(bench.reserved(floor, 2855));
    let refused = bench.reinvite(&keyed_offer(2, &first, &first, "active"));
    assert_eq!(status(&only(refused)), 488);
    bench.end(&[floor, message]);
}

#[test]
fn a_room_stays_as_moderated_as_it_was_made_when_its_context_begins_anew() {
    let mut bench = Bench::new();
    let moderated = |reserve: &ReserveAndConfigure| {
        let Switching::ChatRoom(room) = &reserve.switching else { panic!("{reserve:?}") };
        room.floors.as_deref().expect("floors").moderated
    };
    let first = reservation(bench.invite(&offer(1, "")));
    assert!(moderated(&first));
    bench.mrfc.set_moderated(first.context, false);
    // Should the first leave now, the shard makes the Context for the second one.
    let second = reservation(bench.invite_as(CallId(8), BOB, Some(&offer(1, ""))));
    assert_eq!(second.context, first.context);
    assert!(!moderated(&second));
    let actions = bench.event(Event::Ended { call: CallId(8) });
    assert_eq!(actions.iter().filter_map(subtraction).count(), 1);
    let statistics = TerminationStatistics::default();
    bench.mp(Mp::Subtracted { termination: second.termination, statistics });
    bench.end(&[first.termination]);
}

#[test]
fn a_connection_of_ours_that_is_faster_than_the_floor_stream_is_there() {
    let mut bench = Bench::new();
    let waits = offer(1, FLOOR).replace("a=setup:actpass", "a=setup:passive");
    let message = reservation(bench.invite(&waits));
    assert!(matches!(message.setup, Setup::Active { .. }));
    let message = message.termination;
    let floor = floor_reservation(bench.reserved(message, 2855)).termination;
    assert!(bench.mp(Mp::Bound { termination: message }).is_empty());
    accepted(bench.reserved(floor, 2855));
    let state = bench.mrfc.rooms().next().expect("a room").members[0].state;
    assert_eq!(state, MemberState::Connected);
    bench.end(&[floor, message]);
}
