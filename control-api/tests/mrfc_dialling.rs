//! Calls of the focus that MIKEY keys: the MRFC as initiator, a UE as responder, a KMS between them
//! (TS 23.333 clause 5.20.2).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::{
    NtpTime, Parameters, PreSharedKey, Responder, ResponderConfig, TicketProtectionKey, UriPattern,
};
use control_api::mrfc::{
    Action, CallId, DialPolicies, DialPolicy, DialRequest, DialSecurity, Event, FocusConfig,
    HangUpCause, InitiatorConfig, KMS_TIMEOUT_NS, Mrfc, MrfcConfig, Network, Now, Realms,
    ResolveId, RoomPolicy, SecurityPolicy, ShardDescription, TicketSource,
};
use mrfp_core::Psk;
use mrfp_core::mp::{
    Command, Direction, Event as Mp, Modify, RealmId, Refusal, Security, Setup, ShardId,
    TerminationId, TerminationStatistics,
};

const ROOM: &str = "sip:tea@conference.example";
const BOB: &str = "sip:bob@example.com";
const TEAM: &str = "sip:team@example.com";
const KMS: &str = "sip:kms@example.com";
const SHARD: ShardId = ShardId(0);
const CALL: CallId = CallId(7);

struct Bench {
    mrfc: Mrfc,
    kms: Kms,
    drawn: u64,
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

fn kms_key(identity: &str, byte: u8) -> PreSharedKey {
    PreSharedKey { identity: identity.as_bytes().to_vec(), key: vec![byte; 16].into() }
}

fn team() -> BTreeMap<String, Vec<UriPattern>> {
    BTreeMap::from([(TEAM.to_owned(), vec![UriPattern::Exact(BOB.to_owned())])])
}

impl Bench {
    fn new(ticket: TicketSource) -> Self {
        let policy = DialPolicy { security: DialSecurity::Mikey, ticket, ..DialPolicy::default() };
        Self::with(DialPolicies { default: policy, ..DialPolicies::default() })
    }

    fn with(dialling: DialPolicies) -> Self {
        let parameters = Parameters::default();
        let ticket_key = TicketProtectionKey { identity: b"tpk".to_vec(), key: vec![9; 16].into() };
        let any = |identity: &str| (identity.as_bytes().to_vec(), vec![UriPattern::Any]);
        let kms = Kms::new(KmsConfig {
            uri: KMS.to_owned(),
            users: vec![kms_key("mrfc", 7), kms_key("ue", 8)],
            ticket_protection_keys: vec![ticket_key.clone()],
            ticket_lifetime: Duration::from_secs(3600),
            may_act_as: BTreeMap::from([any("mrfc"), any("ue"), any("tpk")]),
            groups: team(),
            parameters: parameters.clone(),
        });
        let initiator = InitiatorConfig {
            kms_uri: KMS.to_owned(),
            kms_key: kms_key("mrfc", 7),
            certificate: None,
            ticket_key: Some(ticket_key),
            held_keys: Vec::new(),
            kept_tickets_max: 0,
            groups: team(),
            parameters,
        };
        let network = Network::new("192.0.2.0".parse().unwrap(), 24).unwrap();
        let config = MrfcConfig {
            shards: vec![ShardDescription {
                id: SHARD,
                address: "203.0.113.5:2855".parse().unwrap(),
            }],
            rooms: RoomPolicy { open: true, ..RoomPolicy::default() },
            calls_max: 5,
            user_calls_max: 2,
            security: SecurityPolicy::PlainAllowed,
            domains: BTreeSet::from(["conference.example".to_owned()]),
            cema: true,
            certificate: None,
            realms: Realms::new([("lab".to_owned(), vec![network])]),
            recovery: Duration::ZERO,
            focus: FocusConfig { dialling, dials_max: 2, ..FocusConfig::default() },
        };
        let mrfc = Mrfc::new(config, None).with_initiator(initiator);
        Self { mrfc, kms, drawn: 0 }
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let drawn = &mut self.drawn;
        self.mrfc.handle(now(1), &mut |bytes| draw(drawn, bytes), event);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.mrfc.poll_action()).collect()
    }

    fn dial(&mut self, target: &str) -> Vec<Action> {
        self.dial_as(CALL, target, None).expect("it calls");
        self.actions()
    }

    fn dial_as(
        &mut self,
        call: CallId,
        target: &str,
        security: Option<DialSecurity>,
    ) -> Result<(), u16> {
        let (room, target) = ("tea".to_owned(), target.to_owned());
        let request = DialRequest { room, call, target, security };
        let drawn = &mut self.drawn;
        self.mrfc.dial(now(1), &mut |bytes| draw(drawn, bytes), request)
    }

    /// Has the KMS answer what it is asked.
    fn ask_kms(&mut self, message: &[u8]) -> Vec<u8> {
        let drawn = &mut self.drawn;
        self.kms.handle(message, now(1).ntp, &mut |bytes| draw(drawn, bytes))
    }

    /// Calls somebody; what is reserved, and the offer.
    fn offer(&mut self, target: &str) -> (TerminationId, Vec<u8>, String) {
        let mut actions = self.dial(target);
        if let [Action::Resolve { .. }] = actions.as_slice() {
            let (resolve, message) = question(actions);
            let response = Some(self.ask_kms(&message));
            actions = self.event(Event::Resolved { resolve, response });
        }
        let (termination, identity) = reservation(actions);
        let offer = dialled(self.reserved(termination));
        (termination, identity, offer)
    }

    fn reserved(&mut self, termination: TerminationId) -> Vec<Action> {
        let address = "203.0.113.5:2855".parse().unwrap();
        self.event(Event::Mp { shard: SHARD, event: Mp::Reserved { termination, address } })
    }

    /// What a UE with this URI answers to the offer, and its key.
    fn responder(&mut self, uri: &str, offer: &str) -> (Vec<u8>, Psk) {
        let mut responder = Responder::new(ResponderConfig {
            accepted: vec![UriPattern::Any],
            answer_as: Some(uri.to_owned()),
            kms_uri: KMS.to_owned(),
            kms_key: kms_key("ue", 8),
            parameters: Parameters::default(),
        });
        let mut drawn = 1 << 40;
        let mut random = |bytes: &mut [u8]| draw(&mut drawn, bytes);
        let transfer_init = key_management(offer);
        let begun = responder.begin(&transfer_init, "mikey", now(1).ntp, &mut random);
        let (pending, resolve_init) = begun.expect("a sound TRANSFER_INIT");
        let response = self.ask_kms(&resolve_init);
        let finished = pending.finish(&mut responder, &response, now(1).ntp, &mut random);
        let (established, transfer_resp) = finished.expect("the ticket is good");
        (transfer_resp, established.psk)
    }

    fn answered(&mut self, answer: &str) -> Vec<Action> {
        self.event(Event::Answered { call: CALL, answer: Some(answer.as_bytes().to_vec()) })
    }

    fn subtracted(&mut self, termination: TerminationId) {
        let statistics = TerminationStatistics::default();
        let subtracted = Mp::Subtracted { termination, statistics };
        assert!(self.event(Event::Mp { shard: SHARD, event: subtracted }).is_empty());
        assert!(self.mrfc.is_empty());
    }
}

fn question(actions: Vec<Action>) -> (ResolveId, Vec<u8>) {
    match only(actions) {
        Action::Resolve { resolve, message } => (resolve, message),
        other => panic!("{other:?}"),
    }
}

fn only(actions: Vec<Action>) -> Action {
    assert_eq!(actions.len(), 1, "{actions:?}");
    actions.into_iter().next().unwrap()
}

fn reservation(actions: Vec<Action>) -> (TerminationId, Vec<u8>) {
    let Action::Command { command: Command::ReserveAndConfigure(reserve), .. } = only(actions)
    else {
        panic!("no reservation");
    };
    assert_eq!(reserve.remote_path, None);
    match reserve.security {
        Security::TlsPskAwaited { identity } => (reserve.termination, identity),
        other => panic!("{other:?}"),
    }
}

fn dialled(actions: Vec<Action>) -> String {
    match only(actions) {
        Action::Dial { call: CALL, sdp, uri, .. } => {
            assert_eq!(uri, ROOM);
            String::from_utf8(sdp).expect("text")
        }
        other => panic!("{other:?}"),
    }
}

fn modify(actions: Vec<Action>) -> Modify {
    match only(actions) {
        Action::Command { command: Command::Modify(modify), .. } => *modify,
        other => panic!("{other:?}"),
    }
}

/// What is done about an answer that is no good: BYE with that Reason, Subtract.
fn given_up(actions: &[Action], termination: TerminationId, text: &str) {
    let [
        Action::HangUp { call: CALL, reason },
        Action::Command { command: Command::Subtract { termination: subtracted }, .. },
    ] = actions
    else {
        panic!("{actions:?}");
    };
    assert!(reason.contains(text), "{reason}");
    assert_eq!(*subtracted, termination);
}

fn key_management(sdp: &str) -> Vec<u8> {
    let (_, media) = sdp.split_once("m=message").expect("a media line");
    let lines: Vec<_> =
        media.lines().filter_map(|line| line.strip_prefix("a=key-mgmt:mikey ")).collect();
    assert_eq!(lines.len(), 1, "{sdp}");
    STANDARD.decode(lines[0]).expect("base64")
}

fn answer(setup: &str, transfer_resp: &[u8]) -> String {
    format!(
        "v=0\r\no=- 2 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\n\
         m=message 4000 TCP/TLS/MSRP *\r\na=accept-types:message/cpim text/plain\r\n\
         a=setup:{setup}\r\na=path:msrps://198.51.100.10:4000/callee;tcp\r\n\
         a=key-mgmt:mikey {}\r\n",
        STANDARD.encode(transfer_resp)
    )
}

#[test]
fn both_ends_get_the_same_key_whoever_makes_the_ticket_and_whoever_connects() {
    let remote = "198.51.100.10:4000".parse().unwrap();
    for ticket in [TicketSource::Kms, TicketSource::Own] {
        for (setup, expected) in [("active", Setup::Passive), ("passive", Setup::Active { remote })]
        {
            let mut bench = Bench::new(ticket);
            let (termination, identity, offer) = bench.offer(BOB);
            assert!(offer.contains("m=message 2855 TCP/TLS/MSRP *\r\na=setup:actpass\r\n"));
            assert!(offer.contains("a=path:msrps://203.0.113.5:2855/"), "{offer}");
            assert_eq!(bench.mrfc.rooms().next().unwrap().uri, ROOM);
            let (transfer_resp, psk) = bench.responder(BOB, &offer);
            let modify = modify(bench.answered(&answer(setup, &transfer_resp)));
            assert_eq!(modify.termination, termination);
            assert_eq!(modify.remote.expect("the peer's end").setup, expected);
            assert_eq!(modify.psk.expect("a key").expose(), psk.expose());
            // CSB ID and CS ID, by which the TLS client is known.
            let csb_id = u32::from_be_bytes(key_management(&offer)[4..8].try_into().unwrap());
            assert_eq!(identity, format!("{csb_id:08x}.1").into_bytes());
            bench.event(Event::Mp { shard: SHARD, event: Mp::Modified { termination } });
            let members = bench.mrfc.rooms().next().unwrap().members;
            assert!(members[0].secure && members[0].keyed);
            bench.event(Event::Ended { call: CALL });
            bench.subtracted(termination);
        }
    }
}

#[test]
fn only_who_was_called_may_answer_or_a_member_of_the_group_that_was() {
    // The ticket lets the whole team resolve it; who answers is another question.
    let mut bench = Bench::new(TicketSource::Own);
    let (termination, _, offer) = bench.offer(TEAM);
    let (transfer_resp, _) = bench.responder(BOB, &offer);
    assert!(modify(bench.answered(&answer("active", &transfer_resp))).psk.is_some());
    bench.event(Event::Ended { call: CALL });
    bench.subtracted(termination);

    let mut bench = Bench::new(TicketSource::Own);
    let (termination, _, offer) = bench.offer(BOB);
    // Mallory has bob's key with the KMS, but answers under a name of its own.
    let (transfer_resp, _) = bench.responder(BOB, &offer);
    let position = transfer_resp.windows(BOB.len()).position(|at| at == BOB.as_bytes()).unwrap();
    let mut forged = transfer_resp;
    forged[position + 4..position + 7].copy_from_slice(b"eve");
    given_up(&bench.answered(&answer("active", &forged)), termination, "key management failed");
    bench.subtracted(termination);
}

#[test]
fn somebody_else_than_was_called_is_hung_up_on() {
    let mut bench = Bench::new(TicketSource::Own);
    // Of the same team, so that the KMS lets it have the ticket; but bob was called.
    let (termination, _, offer) = bench.offer(BOB);
    let mut others = BTreeMap::new();
    others.insert(BOB.to_owned(), vec![UriPattern::Exact("sip:eve@example.com".to_owned())]);
    let any = |identity: &str| (identity.as_bytes().to_vec(), vec![UriPattern::Any]);
    bench.kms = Kms::new(KmsConfig {
        uri: KMS.to_owned(),
        users: vec![kms_key("ue", 8)],
        ticket_protection_keys: vec![TicketProtectionKey {
            identity: b"tpk".to_vec(),
            key: vec![9; 16].into(),
        }],
        ticket_lifetime: Duration::from_secs(3600),
        may_act_as: BTreeMap::from([any("ue"), any("tpk")]),
        groups: others,
        parameters: Parameters::default(),
    });
    let (transfer_resp, _) = bench.responder("sip:eve@example.com", &offer);
    let actions = bench.answered(&answer("active", &transfer_resp));
    given_up(&actions, termination, "SIP;cause=403;text=\"another user answered\"");
    let counters = bench.mrfc.counters();
    assert_eq!(counters.mikey_failures["UnexpectedResponder"], 1);
    assert_eq!(counters.calls_hung_up[&HangUpCause::UnexpectedResponder], 1);
    bench.subtracted(termination);
}

#[test]
fn an_answer_without_a_good_key_ends_the_call() {
    type Spoil = fn(&str, &[u8]) -> String;
    let spoilt: [(Spoil, &str, HangUpCause); 7] = [
        (
            |sound, _| sound.split("a=key-mgmt").next().unwrap().to_owned(),
            "key management failed",
            HangUpCause::KeyManagement,
        ),
        (
            |sound, _| sound.replace("TCP/TLS/MSRP", "TCP/MSRP").replace("msrps:", "msrp:"),
            "answer not acceptable",
            HangUpCause::AnswerUnusable,
        ),
        (
            |_, response| {
                let mut wrong_mac = response.to_vec();
                *wrong_mac.last_mut().unwrap() ^= 1;
                answer("active", &wrong_mac)
            },
            "key management failed",
            HangUpCause::KeyManagement,
        ),
        (
            |_, response| answer("active", &response[..response.len() - 3]),
            "key management failed",
            HangUpCause::KeyManagement,
        ),
        (|_, _| answer("active", &[0]), "key management failed", HangUpCause::KeyManagement),
        (|_, _| String::new(), "answer not acceptable", HangUpCause::AnswerUnusable),
        (
            |_, response| {
                let mut other_bundle = response.to_vec();
                other_bundle[4] ^= 1;
                answer("active", &other_bundle)
            },
            "key management failed",
            HangUpCause::KeyManagement,
        ),
    ];
    for (index, (spoil, text, cause)) in spoilt.into_iter().enumerate() {
        let mut bench = Bench::new(TicketSource::Own);
        let (termination, _, offer) = bench.offer(BOB);
        let (transfer_resp, _) = bench.responder(BOB, &offer);
        let sound = answer("active", &transfer_resp);
        let actions = bench.answered(&spoil(&sound, &transfer_resp));
        given_up(&actions, termination, text);
        assert_eq!(bench.mrfc.counters().calls_hung_up[&cause], 1, "{index}");
        bench.subtracted(termination);
    }
}

#[test]
fn a_kms_that_grants_nothing_or_says_nothing_leaves_nothing() {
    // Silence, and an answer after its time.
    let mut bench = Bench::new(TicketSource::Kms);
    let (resolve, message) = question(bench.dial(BOB));
    assert_eq!(bench.mrfc.poll_timeout(), Some(1 + KMS_TIMEOUT_NS));
    bench.mrfc.handle_timeout(now(1 + KMS_TIMEOUT_NS), &mut |_| ());
    assert!(bench.actions().is_empty());
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().kms_timeouts, 1);
    assert_eq!(bench.mrfc.counters().dials_failed[&504], 1);
    let response = Some(bench.ask_kms(&message));
    assert!(bench.event(Event::Resolved { resolve, response }).is_empty());

    // Nobody to ask.
    let (resolve, _) = question(bench.dial(BOB));
    assert!(bench.event(Event::Resolved { resolve, response: None }).is_empty());
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().dials_failed[&504], 2);

    // A refusal, and an answer that somebody has changed.
    let (resolve, mut request) = question(bench.dial(BOB));
    *request.last_mut().unwrap() ^= 1;
    let refused = Some(bench.ask_kms(&request));
    assert!(bench.event(Event::Resolved { resolve, response: refused }).is_empty());
    let (resolve, message) = question(bench.dial(BOB));
    let mut changed = bench.ask_kms(&message);
    *changed.last_mut().unwrap() ^= 1;
    assert!(bench.event(Event::Resolved { resolve, response: Some(changed) }).is_empty());
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().dials_failed[&500], 2);
    assert_eq!(bench.mrfc.counters().mikey_failures.values().sum::<u64>(), 2);

    // Given up meanwhile.
    let (resolve, message) = question(bench.dial(BOB));
    assert!(bench.event(Event::Ended { call: CALL }).is_empty());
    assert!(bench.mrfc.is_empty());
    let response = Some(bench.ask_kms(&message));
    assert!(bench.event(Event::Resolved { resolve, response }).is_empty());
}

#[test]
fn who_is_not_reached_or_has_no_port_leaves_nothing() {
    let mut bench = Bench::new(TicketSource::Own);
    let (termination, _, _) = bench.offer(BOB);
    let actions = bench.event(Event::DialFailed { call: CALL, status: 488 });
    assert!(matches!(
        actions.as_slice(),
        [Action::Command { command: Command::Subtract { .. }, .. }]
    ));
    bench.subtracted(termination);

    // An identity that is taken gets a port of its own; then there is none.
    let (termination, first) = reservation(bench.dial(BOB));
    let refused = |reason| Mp::Refused { termination, reason };
    let event = refused(Refusal::IdentityInUse);
    let Action::Command { command: Command::ReserveAndConfigure(again), .. } =
        only(bench.event(Event::Mp { shard: SHARD, event }))
    else {
        panic!("no second attempt");
    };
    assert!(again.own_port);
    assert!(matches!(&again.security, Security::TlsPskAwaited { identity } if *identity == first));
    let event = refused(Refusal::Transport);
    assert!(bench.event(Event::Mp { shard: SHARD, event }).is_empty());
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().dials_failed[&503], 1);
}

#[test]
fn the_realm_of_the_callee_decides_unless_the_operator_does() {
    let secured = DialPolicy {
        security: DialSecurity::Mikey,
        ticket: TicketSource::Own,
        ..DialPolicy::default()
    };
    let mut bench = Bench::with(DialPolicies {
        realms: BTreeMap::from([(RealmId(1), secured)]),
        ..DialPolicies::default()
    });
    let mut number = 0;
    let mut protection = |target: &str, wanted| {
        number += 1;
        bench.dial_as(CallId(number), target, wanted).expect("it calls");
        match only(bench.actions()) {
            Action::Command { command: Command::ReserveAndConfigure(reserve), .. } => {
                bench.event(Event::Ended { call: CallId(number) });
                let keyed = matches!(reserve.security, Security::TlsPskAwaited { .. });
                (keyed, reserve.realm)
            }
            other => panic!("{other:?}"),
        }
    };
    let (lab, elsewhere) = ("sip:bob@192.0.2.9:5060;transport=tcp", "sip:bob@198.51.100.1");
    assert_eq!(protection(lab, None), (true, RealmId(1)));
    assert_eq!(protection(elsewhere, None), (false, RealmId(0)));
    assert_eq!(protection(lab, Some(DialSecurity::Plain)), (false, RealmId(1)));
    // By default the KMS makes the ticket.
    bench.dial_as(CALL, elsewhere, Some(DialSecurity::Mikey)).expect("it calls");
    question(bench.actions());
}

#[test]
fn what_cannot_be_called_is_refused_at_once() {
    let mut bench = Bench::new(TicketSource::Own);
    assert_eq!(bench.dial_as(CALL, ROOM, None), Err(482));
    let odd = DialRequest {
        room: "no name".to_owned(),
        call: CALL,
        target: BOB.to_owned(),
        security: None,
    };
    assert_eq!(bench.mrfc.dial(now(1), &mut |_| {}, odd), Err(404));
    assert!(bench.mrfc.is_empty());
    bench.dial_as(CallId(1), BOB, None).expect("it calls");
    assert_eq!(bench.dial_as(CallId(2), "sip:BOB@example.com", None), Ok(()));
    assert_eq!(bench.dial_as(CallId(3), "sip:carol@example.com", None), Err(503), "dials_max");
    assert_eq!(bench.dial_as(CallId(3), "sip:bob@EXAMPLE.com;lr", None), Err(486));
}

#[test]
fn the_peer_may_hold_and_resume_without_another_key_but_not_offer_one() {
    let mut bench = Bench::new(TicketSource::Own);
    let (termination, _, offer) = bench.offer(BOB);
    let (transfer_resp, _) = bench.responder(BOB, &offer);
    let sound = answer("active", &transfer_resp);
    bench.answered(&sound);
    bench.event(Event::Mp { shard: SHARD, event: Mp::Modified { termination } });
    let plain = sound.split("a=key-mgmt").next().unwrap();
    for (text, direction) in [
        (format!("{plain}a=inactive\r\n"), Direction::Inactive),
        (sound.clone(), Direction::SendRecv),
    ] {
        let offer = Some(text.into_bytes());
        let modify = modify(bench.event(Event::Reinvite { call: CALL, offer }));
        assert!(modify.direction == direction && modify.psk.is_none());
        let event = Mp::Modified { termination };
        match only(bench.event(Event::Mp { shard: SHARD, event })) {
            Action::Answer { answer: control_api::mrfc::Answer::Accepted { sdp }, .. } => {
                let sdp = String::from_utf8(sdp).expect("text");
                assert!(sdp.contains("TCP/TLS/MSRP") && !sdp.contains("key-mgmt"), "{sdp}");
            }
            other => panic!("{other:?}"),
        }
    }
    let offer = Some(answer("active", &[1, 2, 3]).into_bytes());
    match only(bench.event(Event::Reinvite { call: CALL, offer })) {
        Action::Answer {
            answer: control_api::mrfc::Answer::Refused { status: 488, .. }, ..
        } => {}
        other => panic!("{other:?}"),
    }
    bench.event(Event::Ended { call: CALL });
    bench.subtracted(termination);
}
