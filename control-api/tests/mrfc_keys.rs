//! Protected calls: a UE with a ticket of its own, the MRFC as responder, a KMS between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::{
    Initiator, NtpTime, Parameters, PreSharedKey, Responder, ResponderConfig, TicketProtectionKey,
    UriPattern,
};
use control_api::mrfc::{
    Action, Answer, CallId, ChatPolicy, Event, FocusConfig, KMS_TIMEOUT_NS, Mrfc, MrfcConfig, Now,
    Realms, ResolveId, RoomPolicy, SecurityPolicy, ShardDescription,
};
use control_api::sdp::{
    MessageSessionOffer, OfferedSetup, offer_for_message_session, parse_answer,
};
use mrfp_core::mp::{
    Command, Direction, Event as Mp, ReserveAndConfigure, Security, ShardId, TerminationStatistics,
};

const ALICE: &str = "sip:alice@example.com";
const ROOM: &str = "sip:tea@conference.example";
const KMS: &str = "sip:kms@example.com";

struct Bench {
    mrfc: Mrfc,
    kms: Kms,
    ticket_key: TicketProtectionKey,
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

impl Bench {
    fn new() -> Self {
        let parameters = Parameters::default();
        let kms_key = PreSharedKey { identity: b"mrfc".to_vec(), key: vec![7; 16].into() };
        let ticket_key = TicketProtectionKey { identity: b"ue".to_vec(), key: vec![9; 16].into() };
        let kms = Kms::new(KmsConfig {
            uri: KMS.to_owned(),
            users: vec![kms_key.clone()],
            ticket_protection_keys: vec![ticket_key.clone()],
            ticket_lifetime: Duration::from_secs(3600),
            may_act_as: BTreeMap::from([
                (b"mrfc".to_vec(), vec![UriPattern::Any]),
                (b"ue".to_vec(), vec![UriPattern::Any]),
            ]),
            groups: BTreeMap::new(),
            parameters: parameters.clone(),
        });
        let responder = Responder::new(ResponderConfig {
            accepted: vec![UriPattern::Host("conference.example".to_owned())],
            answer_as: None,
            kms_uri: KMS.to_owned(),
            kms_key,
            parameters,
        });
        let config = MrfcConfig {
            shards: vec![ShardDescription {
                id: ShardId(0),
                address: "203.0.113.5:2855".parse().unwrap(),
            }],
            rooms: RoomPolicy {
                open: true,
                chat: ChatPolicy { members_max: 3, ..ChatPolicy::default() },
                ..RoomPolicy::default()
            },
            calls_max: 5,
            user_calls_max: 2,
            security: SecurityPolicy::TlsRequired,
            domains: BTreeSet::new(),
            cema: true,
            certificate: None,
            realms: Realms::default(),
            recovery: Duration::ZERO,
            focus: FocusConfig::default(),
        };
        Self { mrfc: Mrfc::new(config, Some(responder)), kms, ticket_key, drawn: 0 }
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let drawn = &mut self.drawn;
        self.mrfc.handle(now(1), &mut |bytes| draw(drawn, bytes), event);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.mrfc.poll_action()).collect()
    }

    fn offer(&mut self) -> (Initiator, Vec<u8>) {
        let drawn = &mut self.drawn;
        let (initiator, transfer_init) = Initiator::with_own_ticket(
            &Parameters::default(),
            ALICE,
            ROOM,
            KMS,
            &self.ticket_key,
            now(1).ntp,
            &mut |bytes| draw(drawn, bytes),
        )
        .unwrap();
        (initiator, offer_with(&transfer_init))
    }

    fn invite(&mut self, from: &str, offer: &[u8]) -> Vec<Action> {
        self.event(Event::Invite {
            call: CallId(1),
            room: "tea".to_owned(),
            from: from.into(),
            to: ROOM.to_owned(),
            offer: Some(offer.to_vec()),
        })
    }

    fn ask_kms(&mut self, message: &[u8]) -> Vec<u8> {
        let drawn = &mut self.drawn;
        self.kms.handle(message, now(1).ntp, &mut |bytes| draw(drawn, bytes))
    }
}

fn offer_with(transfer_init: &[u8]) -> Vec<u8> {
    offer_for_message_session(&MessageSessionOffer {
        session_id: 1,
        session_version: 1,
        address: "198.51.100.10:40210".parse().unwrap(),
        msrp_session_id: "q7Fz0K2m9XbA4cD1",
        secure: true,
        setup: OfferedSetup::ActPass,
        accept_types: "message/cpim",
        accept_wrapped_types: "text/plain",
        max_size_bytes: None,
        direction: Direction::SendRecv,
        cema: true,
        chatroom: None,
        mikey: Some(transfer_init),
    })
}

fn only(actions: Vec<Action>) -> Action {
    assert_eq!(actions.len(), 1, "{actions:?}");
    actions.into_iter().next().unwrap()
}

fn question(actions: Vec<Action>) -> (ResolveId, Vec<u8>) {
    match only(actions) {
        Action::Resolve { resolve, message } => (resolve, message),
        other => panic!("{other:?}"),
    }
}

fn reservation(actions: Vec<Action>) -> ReserveAndConfigure {
    match only(actions) {
        Action::Command { command: Command::ReserveAndConfigure(reserve), .. } => *reserve,
        other => panic!("{other:?}"),
    }
}

fn refused(actions: Vec<Action>) -> u16 {
    match only(actions) {
        Action::Answer { answer: Answer::Refused { status, .. }, .. } => status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_ends_get_the_same_key_and_a_refresh_keeps_it() {
    let mut bench = Bench::new();
    let (initiator, offer) = bench.offer();
    let identity = initiator.psk_identity();
    let (resolve, message) = question(bench.invite(ALICE, &offer));
    let response = Some(bench.ask_kms(&message));
    let reserve = reservation(bench.event(Event::Resolved { resolve, response }));
    let Security::TlsPsk { identity: reserved_identity, psk } = &reserve.security else {
        panic!("a plain Termination for a protected session");
    };
    assert_eq!(*reserved_identity, identity.into_bytes());
    let termination = reserve.termination;
    let address = "203.0.113.5:2855".parse().unwrap();
    let reserved = Mp::Reserved { termination, address };
    let actions = bench.event(Event::Mp { shard: ShardId(0), event: reserved });
    let Action::Answer { answer: Answer::Accepted { sdp }, .. } = only(actions) else {
        panic!("refused");
    };
    let answer = parse_answer(&sdp).unwrap();
    assert!(answer.secure);
    assert!(answer.path.starts_with("msrps://203.0.113.5:2855/"));
    let established = initiator.finish(&answer.mikey.unwrap(), now(1).ntp).unwrap();
    assert_eq!(established.psk.expose(), psk.expose());
    assert!(bench.mrfc.rooms().next().unwrap().members[0].secure);

    let refresh = Event::Reinvite { call: CallId(1), offer: Some(offer) };
    match only(bench.event(refresh)) {
        Action::Answer { answer: Answer::Accepted { sdp: again }, .. } => assert_eq!(again, sdp),
        other => panic!("{other:?}"),
    }
    let (_, rekeying) = bench.offer();
    let rekeying = Event::Reinvite { call: CallId(1), offer: Some(rekeying) };
    assert_eq!(refused(bench.event(rekeying)), 488);

    assert_eq!(bench.event(Event::Ended { call: CallId(1) }).len(), 1);
    let statistics = TerminationStatistics::default();
    let subtracted = Mp::Subtracted { termination, statistics };
    bench.event(Event::Mp { shard: ShardId(0), event: subtracted });
    assert!(bench.mrfc.is_empty());
}

#[test]
fn broken_key_management_is_refused() {
    let mut bench = Bench::new();
    assert_eq!(refused(bench.invite(ALICE, &offer_with(&[1, 2, 3]))), 488);
    let (_, offer) = bench.offer();
    let (resolve, message) = question(bench.invite(ALICE, &offer));
    let mut response = bench.ask_kms(&message);
    *response.last_mut().unwrap() ^= 1;
    let response = Some(response);
    assert_eq!(refused(bench.event(Event::Resolved { resolve, response })), 488);
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().mikey_failures.values().sum::<u64>(), 2);
}

#[test]
fn somebody_elses_key_does_not_open_a_session() {
    let mut bench = Bench::new();
    let (_, offer) = bench.offer();
    let (resolve, message) = question(bench.invite("sip:mallory@example.com", &offer));
    let response = Some(bench.ask_kms(&message));
    assert_eq!(refused(bench.event(Event::Resolved { resolve, response })), 403);
    assert!(bench.mrfc.is_empty());
    assert_eq!(bench.mrfc.counters().mikey_failures["OtherCaller"], 1);
}

#[test]
fn a_ticket_for_another_room_opens_no_session() {
    let mut world = Bench::new();
    let (_, offer) = world.offer();
    let actions = world.event(Event::Invite {
        call: CallId(1),
        room: "coffee".to_owned(),
        from: ALICE.into(),
        to: ROOM.replace("tea", "coffee"),
        offer: Some(offer),
    });
    assert_eq!(refused(actions), 488);
    assert!(world.mrfc.is_empty());
}

#[test]
fn silent_kms_is_504_and_its_late_answer_is_ignored() {
    let mut bench = Bench::new();
    let (_, offer) = bench.offer();
    let (resolve, message) = question(bench.invite(ALICE, &offer));
    assert_eq!(bench.mrfc.poll_timeout(), Some(1 + KMS_TIMEOUT_NS));
    bench.mrfc.handle_timeout(now(1 + KMS_TIMEOUT_NS), &mut |_| ());
    assert_eq!(refused(bench.actions()), 504);
    assert!(bench.mrfc.is_empty());
    let response = Some(bench.ask_kms(&message));
    assert!(bench.event(Event::Resolved { resolve, response }).is_empty());
    assert_eq!(bench.mrfc.counters().kms_timeouts, 1);
}

#[test]
fn caller_that_gives_up_while_the_kms_is_asked_leaves_nothing() {
    let mut bench = Bench::new();
    let (_, offer) = bench.offer();
    let (resolve, message) = question(bench.invite(ALICE, &offer));
    assert!(bench.event(Event::Ended { call: CallId(1) }).is_empty());
    assert!(bench.mrfc.is_empty());
    let response = Some(bench.ask_kms(&message));
    assert!(bench.event(Event::Resolved { resolve, response }).is_empty());
}
