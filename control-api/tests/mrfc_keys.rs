//! Protected calls: a UE with a ticket of its own, the MRFC as responder, a KMS between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::{
    Bundle, Initiator, NtpTime, Parameters, PendingUpdate, PreSharedKey, Responder,
    ResponderConfig, TicketProtectionKey, UriPattern,
};
use control_api::mrfc::{
    Action, Administration, AdministrationError, Answer, CallId, ChatPolicy, Event, FocusConfig,
    KMS_TIMEOUT_NS, MemberState, Mrfc, MrfcConfig, Now, REANSWER_TIMEOUT_NS, Realms, ResolveId,
    RoomPolicy, SecurityPolicy, ShardDescription,
};
use control_api::sdp::{
    MessageSessionOffer, OfferedSetup, offer_for_message_session, parse_answer,
};
use mrfp_core::Psk;
use mrfp_core::mp::{
    Command, Direction, Event as Mp, Modify, NextKey, Refusal, ReserveAndConfigure, Security,
    Setup, ShardId, TerminationId, TerminationStatistics,
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
        Self::with(FocusConfig::default())
    }

    fn with(focus: FocusConfig) -> Self {
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
            focus,
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
    description(transfer_init, OfferedSetup::ActPass, Direction::SendRecv)
}

fn description(mikey: &[u8], setup: OfferedSetup, direction: Direction) -> Vec<u8> {
    offer_for_message_session(&MessageSessionOffer {
        session_id: 1,
        session_version: 1,
        address: "198.51.100.10:40210".parse().unwrap(),
        msrp_session_id: "q7Fz0K2m9XbA4cD1",
        secure: true,
        setup,
        accept_types: "message/cpim",
        accept_wrapped_types: "text/plain",
        max_size_bytes: None,
        direction,
        cema: true,
        chatroom: None,
        mikey: Some(mikey),
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

/// A call that stands, keyed by the ticket of its caller.
struct Keyed {
    bench: Bench,
    /// The caller's end of the key management.
    bundle: Bundle,
    termination: TerminationId,
    /// The version of our description.
    version: u64,
}

impl Keyed {
    fn new(focus: FocusConfig) -> Self {
        let mut keyed = Self::unbound(focus);
        keyed.shard(Mp::Bound { termination: keyed.termination });
        keyed
    }

    fn unbound(focus: FocusConfig) -> Self {
        let mut bench = Bench::with(focus);
        let (initiator, offer) = bench.offer();
        let (resolve, message) = question(bench.invite(ALICE, &offer));
        let response = Some(bench.ask_kms(&message));
        let reserve = reservation(bench.event(Event::Resolved { resolve, response }));
        let termination = reserve.termination;
        let address = "203.0.113.5:2855".parse().unwrap();
        let reserved = Mp::Reserved { termination, address };
        let sdp = accepted(bench.event(Event::Mp { shard: ShardId(0), event: reserved }));
        let answer = parse_answer(&sdp).unwrap();
        let established = initiator.finish(&answer.mikey.unwrap(), now(1).ntp).unwrap();
        Self { bench, bundle: established.bundle, termination, version: version(&sdp) }
    }

    fn shard(&mut self, event: Mp) -> Vec<Action> {
        self.bench.event(Event::Mp { shard: ShardId(0), event })
    }

    fn modified(&mut self) -> Vec<Action> {
        self.shard(Mp::Modified { termination: self.termination })
    }

    fn reinvite(&mut self, offer: Vec<u8>) -> Vec<Action> {
        self.bench.event(Event::Reinvite { call: CallId(1), offer: Some(offer) })
    }

    /// The caller begins an update.
    fn update(&mut self) -> (PendingUpdate, Vec<u8>) {
        let drawn = &mut self.bench.drawn;
        let mut random = |bytes: &mut [u8]| draw(drawn, bytes);
        self.bundle.begin_update(&Parameters::default(), now(1).ntp, &mut random).unwrap()
    }

    /// The caller renews its key, and goes through with it.
    fn renew(&mut self, offer: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let (pending, message) = self.update();
        let (identity, psk, setup) = agreed(self.reinvite(offer(&message)));
        assert_eq!(setup, Setup::Passive);
        let mut actions = self.modified();
        if let [Action::Command { .. }] = actions.as_slice() {
            assert_eq!(modify(actions).direction, Direction::Inactive);
            actions = self.modified();
        }
        let sdp = accepted(actions);
        assert_eq!(version(&sdp), self.version + 1);
        self.version += 1;
        let response = parse_answer(&sdp).unwrap().mikey.expect("the response is in the answer");
        let parameters = Parameters::default();
        let key = pending.finish(&mut self.bundle, &parameters, &response, now(1).ntp).unwrap();
        assert_eq!((key.psk.expose(), key.psk_identity.as_bytes()), (psk.expose(), &identity[..]));
        message
    }

    fn rekey(&mut self) -> Result<Vec<Action>, AdministrationError> {
        let drawn = &mut self.bench.drawn;
        let mut random = |bytes: &mut [u8]| draw(drawn, bytes);
        let rekey = Administration::Rekey(CallId(1));
        self.bench.mrfc.administer(now(1), &mut random, "tea", rekey)?;
        Ok(self.bench.actions())
    }

    /// Has the MRFC offer a new key; its identity and the offer.
    fn offered(&mut self) -> (Vec<u8>, Vec<u8>) {
        let actions = self.rekey().expect("it can");
        self.announced(actions)
    }

    fn announced(&mut self, actions: Vec<Action>) -> (Vec<u8>, Vec<u8>) {
        let NextKey::Awaited { identity } = next_key(actions) else { panic!("a key at once") };
        match only(self.modified()) {
            Action::Reinvite { call: CallId(1), sdp } => (identity, sdp),
            other => panic!("{other:?}"),
        }
    }

    /// The caller's answer to an offer of ours, and the key.
    fn answer(&mut self, offer: &[u8], setup: OfferedSetup) -> (Vec<u8>, Psk) {
        let message = mikey(offer);
        let parameters = Parameters::default();
        let answered = self.bundle.answer_update(&parameters, &message, "mikey", now(1).ntp);
        let (key, response) = answered.expect("a sound update");
        (description(&response, setup, Direction::SendRecv), key.psk)
    }

    fn reanswered(&mut self, answer: Result<Vec<u8>, u16>) -> Vec<Action> {
        self.bench.event(Event::Reanswered { call: CallId(1), answer })
    }

    fn state(&self) -> MemberState {
        self.bench.mrfc.rooms().next().unwrap().members[0].state
    }

    /// The caller hangs up, and nothing stays behind.
    fn end(mut self) {
        assert_eq!(self.bench.event(Event::Ended { call: CallId(1) }).len(), 1);
        let statistics = TerminationStatistics::default();
        self.shard(Mp::Subtracted { termination: self.termination, statistics });
        assert!(self.bench.mrfc.is_empty());
    }
}

fn accepted(actions: Vec<Action>) -> Vec<u8> {
    match only(actions) {
        Action::Answer { answer: Answer::Accepted { sdp }, .. } => sdp,
        other => panic!("{other:?}"),
    }
}

fn next_key(actions: Vec<Action>) -> NextKey {
    match only(actions) {
        Action::Command { command: Command::Rekey(rekey), .. } => rekey.key,
        other => panic!("{other:?}"),
    }
}

fn agreed(actions: Vec<Action>) -> (Vec<u8>, Psk, Setup) {
    match next_key(actions) {
        NextKey::Agreed { identity, psk, setup } => (identity, psk, setup),
        other => panic!("{other:?}"),
    }
}

fn modify(actions: Vec<Action>) -> Modify {
    match only(actions) {
        Action::Command { command: Command::Modify(modify), .. } => *modify,
        other => panic!("{other:?}"),
    }
}

fn text(sdp: &[u8]) -> &str {
    std::str::from_utf8(sdp).unwrap()
}

/// sess-version of a description.
fn version(sdp: &[u8]) -> u64 {
    let origin = text(sdp).lines().find_map(|line| line.strip_prefix("o=")).unwrap();
    origin.split(' ').nth(2).unwrap().parse().unwrap()
}

fn mikey(sdp: &[u8]) -> Vec<u8> {
    let mut lines = text(sdp).lines();
    let message = lines.find_map(|line| line.strip_prefix("a=key-mgmt:mikey ")).unwrap();
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, message).unwrap()
}

#[test]
fn a_caller_renews_its_key_as_often_as_it_likes() {
    let mut keyed = Keyed::new(FocusConfig::default());
    let first = keyed.renew(offer_with);
    let second = keyed.renew(offer_with);
    assert_ne!(first, second);
    assert_eq!(keyed.bench.mrfc.counters().rekeyings_taken, 2);
    // A refresh repeats the last offer, and changes nothing.
    let again = accepted(keyed.reinvite(offer_with(&second)));
    assert_eq!(version(&again), keyed.version);
    keyed.shard(Mp::Rekeyed { termination: keyed.termination });
    assert_eq!(keyed.state(), MemberState::Connected);
    keyed.end();
}

#[test]
fn what_else_a_new_offer_changes_is_changed_with_the_key() {
    let mut keyed = Keyed::new(FocusConfig::default());
    keyed.renew(|message| description(message, OfferedSetup::Active, Direction::Inactive));
    keyed.end();
}

#[test]
fn as_client_the_node_is_told_where_to_connect() {
    let mut keyed = Keyed::new(FocusConfig::default());
    let (_, message) = keyed.update();
    let offer = description(&message, OfferedSetup::Passive, Direction::SendRecv);
    let (_, _, setup) = agreed(keyed.reinvite(offer));
    assert_eq!(setup, Setup::Active { remote: "198.51.100.10:40210".parse().unwrap() });
    keyed.end();
}

#[test]
fn an_update_that_is_no_good_is_refused_and_the_call_stays_as_it_was() {
    let mut keyed = Keyed::new(FocusConfig::default());
    let taken = keyed.renew(offer_with);
    keyed.renew(offer_with);
    let (_, good) = keyed.update();
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut other = good.clone();
    other[4] ^= 1;
    for (offer, what) in [
        (offer_with(&changed), "MAC"),
        (offer_with(&good[..good.len() / 2]), "cut"),
        (offer_with(&other), "another bundle"),
        (offer_with(&taken), "stale"),
    ] {
        let failures = keyed.bench.mrfc.counters().mikey_failures.values().sum::<u64>();
        assert_eq!(refused(keyed.reinvite(offer)), 488, "{what}");
        let counted = keyed.bench.mrfc.counters().mikey_failures.values().sum::<u64>();
        assert_eq!(counted, failures + 1, "{what}");
        assert_eq!(keyed.state(), MemberState::Connected);
    }
    agreed(keyed.reinvite(offer_with(&good)));
    keyed.end();
}

#[test]
fn an_update_that_comes_too_early_may_come_again() {
    let mut keyed = Keyed::unbound(FocusConfig::default());
    let (_, message) = keyed.update();
    assert_eq!(refused(keyed.reinvite(offer_with(&message))), 500);
    keyed.shard(Mp::Bound { termination: keyed.termination });
    agreed(keyed.reinvite(offer_with(&message)));
    // The shard has its hands full.
    let busy = Mp::Refused { termination: keyed.termination, reason: Refusal::Busy };
    assert_eq!(refused(keyed.shard(busy)), 500);
    agreed(keyed.reinvite(offer_with(&message)));
    accepted(keyed.modified());
    keyed.end();
}

#[test]
fn the_node_offers_a_new_key_at_the_operators_wish() {
    let mut keyed = Keyed::new(FocusConfig::default());
    for (setup, expected) in [
        (OfferedSetup::Active, Setup::Passive),
        (OfferedSetup::Passive, Setup::Active { remote: "198.51.100.10:40210".parse().unwrap() }),
    ] {
        let (identity, offer) = keyed.offered();
        assert!(text(&offer).contains("a=setup:actpass\r\n"), "{}", text(&offer));
        keyed.version += 1;
        assert_eq!(version(&offer), keyed.version);
        assert_eq!(keyed.state(), MemberState::Modifying);
        // Meanwhile there is no other change.
        assert_eq!(keyed.rekey().err(), Some(AdministrationError::Busy));
        assert_eq!(refused(keyed.reinvite(offer_with(b"any"))), 491);
        let (answer, psk) = keyed.answer(&offer, setup);
        let told = agreed(keyed.reanswered(Ok(answer)));
        assert_eq!((told.0, told.1.expose(), told.2), (identity, psk.expose(), expected));
        assert!(keyed.modified().is_empty());
        assert_eq!(keyed.state(), MemberState::Connected);
        keyed.shard(Mp::Rekeyed { termination: keyed.termination });
    }
    assert_eq!(keyed.bench.mrfc.counters().rekeyings_offered, 2);
    // The caller may still begin one.
    keyed.renew(offer_with);
    assert_eq!(keyed.bench.mrfc.poll_timeout(), None);
    keyed.end();
}

#[test]
fn a_new_key_that_is_not_agreed_on_is_withdrawn_and_the_call_goes_on() {
    let mut keyed = Keyed::new(FocusConfig::default());
    for (case, status) in [("refused", 403), ("MAC", 488), ("no key", 488), ("path", 488)] {
        let (_, offer) = keyed.offered();
        keyed.version += 1;
        let answer = match case {
            "refused" => Err(403),
            _ => {
                let mut caller = keyed.bundle.clone();
                std::mem::swap(&mut caller, &mut keyed.bundle);
                let (answer, _) = keyed.answer(&offer, OfferedSetup::Active);
                keyed.bundle = caller;
                let answer = text(&answer).to_owned();
                Ok(match case {
                    "MAC" => {
                        let mut response = mikey(answer.as_bytes());
                        *response.last_mut().unwrap() ^= 1;
                        description(&response, OfferedSetup::Active, Direction::SendRecv)
                    }
                    "no key" => {
                        let at = answer.find("a=key-mgmt").unwrap();
                        answer.as_bytes()[..at].to_vec()
                    }
                    _ => answer.replace("q7Fz0K2m9XbA4cD1", "another").into_bytes(),
                })
            }
        };
        let before = keyed.bench.mrfc.counters().rekeyings_refused.get(&status).copied();
        let withdrawn = next_key(keyed.reanswered(answer));
        assert!(matches!(withdrawn, NextKey::Withdrawn), "{case}: {withdrawn:?}");
        let counted = keyed.bench.mrfc.counters().rekeyings_refused[&status];
        assert_eq!(counted, before.unwrap_or(0) + 1, "{case}");
        assert!(keyed.modified().is_empty());
        assert_eq!(keyed.state(), MemberState::Connected);
    }
    // Nobody answers, and the answer that comes after its time is nobody's.
    let (_, offer) = keyed.offered();
    assert_eq!(keyed.bench.mrfc.poll_timeout(), Some(1 + REANSWER_TIMEOUT_NS));
    keyed.bench.mrfc.handle_timeout(now(1 + REANSWER_TIMEOUT_NS), &mut |_| ());
    assert!(matches!(next_key(keyed.bench.actions()), NextKey::Withdrawn));
    assert!(keyed.modified().is_empty());
    let (answer, _) = keyed.answer(&offer, OfferedSetup::Active);
    assert!(keyed.reanswered(Ok(answer)).is_empty());
    assert_eq!(keyed.state(), MemberState::Connected);
    keyed.end();
}

#[test]
fn of_two_offers_that_meet_ours_is_made_again() {
    let mut keyed = Keyed::new(FocusConfig::default());
    keyed.offered();
    assert!(matches!(next_key(keyed.reanswered(Err(491))), NextKey::Withdrawn));
    keyed.modified();
    let due_ns = keyed.bench.mrfc.poll_timeout().expect("it tries again");
    assert!(due_ns <= 2_000_000_001, "whoever was called waits no longer: {due_ns}");
    keyed.bench.mrfc.handle_timeout(now(due_ns), &mut |_| ());
    let actions = keyed.bench.actions();
    keyed.announced(actions);
    keyed.end();
}

#[test]
fn keys_are_renewed_by_the_clock_where_the_operator_wants_it() {
    let interval = Duration::from_secs(600);
    let focus = || FocusConfig { rekeying_interval: interval, ..FocusConfig::default() };
    assert_eq!(Keyed::unbound(focus()).bench.mrfc.poll_timeout(), None, "nothing stands yet");
    let mut keyed = Keyed::new(focus());
    let interval_ns = interval.as_nanos() as u64;
    for _ in 0..2 {
        assert_eq!(keyed.bench.mrfc.poll_timeout(), Some(1 + interval_ns));
        keyed.bench.mrfc.handle_timeout(now(1 + interval_ns), &mut |_| ());
        let actions = keyed.bench.actions();
        let (_, offer) = keyed.announced(actions);
        let (answer, _) = keyed.answer(&offer, OfferedSetup::Active);
        agreed(keyed.reanswered(Ok(answer)));
        keyed.modified();
        assert_eq!(keyed.bench.mrfc.poll_timeout(), None, "not before it is in use");
        keyed.shard(Mp::Rekeyed { termination: keyed.termination });
    }
    keyed.end();
}

#[test]
fn a_call_that_ends_while_its_key_is_renewed_leaves_nothing() {
    for steps in 0..3 {
        let mut keyed = Keyed::new(FocusConfig::default());
        keyed.rekey().expect("it can");
        if steps > 0 {
            keyed.modified();
        }
        if steps > 1 {
            keyed.reanswered(Err(403));
        }
        keyed.end();
    }
}
