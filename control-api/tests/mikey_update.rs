//! CSB updates: both sides of a session renew its key, whoever begins.

mod mikey_world;

use control_api::mikey::codec::{self, CsIdMap, DataType, TicketFlags};
use control_api::mikey::{Bundle, Error, Parameters, Suite, TrafficKey};
use mikey_world::{World, now, seconds_later, tpk, usual_flags};

/// A session that is up: the bundles of initiator and responder, and its key.
struct Session {
    world: World,
    initiator: Bundle,
    responder: Bundle,
    key: Vec<u8>,
}

fn session(flags: TicketFlags, parameters: Parameters) -> Session {
    let mut world = World::new(parameters);
    let ticket = if flags.has(TicketFlags::INITIATOR_KEYS) {
        world.made(flags, &[], &tpk()).expect("made")
    } else {
        world.granted(flags, &[]).expect("granted")
    };
    let (initiator, transfer_init) = world.call(&ticket);
    let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
    let established = if transfer_resp.is_empty() {
        initiator.finish_unanswered().expect("established")
    } else {
        initiator.finish(&transfer_resp, now()).expect("established")
    };
    let key = mikey_world::assert_same_key(&established, &answered);
    Session { world, initiator: established.bundle, responder: answered.bundle, key }
}

fn plain(flags: TicketFlags) -> Session {
    session(flags, Parameters::default())
}

/// Both sides have the same key and call it the same.
fn same(ours: &TrafficKey, theirs: &TrafficKey) -> Vec<u8> {
    assert_eq!(ours.psk.expose(), theirs.psk.expose());
    assert_eq!(ours.psk_identity, theirs.psk_identity);
    ours.psk.expose().to_vec()
}

impl Session {
    fn renew(&mut self, by_initiator: bool, at: u64) -> Vec<u8> {
        let Self { world, initiator, responder, .. } = self;
        let (one, other) =
            if by_initiator { (initiator, responder) } else { (responder, initiator) };
        let parameters = &world.parameters;
        let at = seconds_later(at);
        let (pending, update) =
            one.begin_update(parameters, at, &mut world.random).expect("an update");
        let (theirs, answer) =
            other.answer_update(parameters, &update, "mikey", at).expect("answered");
        let ours = pending.finish(one, parameters, &answer, at).expect("renewed");
        same(&ours, &theirs)
    }

    fn update(&mut self) -> Vec<u8> {
        let parameters = &self.world.parameters;
        let random = &mut self.world.random;
        self.initiator.begin_update(parameters, seconds_later(5), random).expect("an update").1
    }

    fn answer(&mut self, update: &[u8]) -> Result<(TrafficKey, Vec<u8>), Error> {
        let at = seconds_later(5);
        self.responder.answer_update(&self.world.parameters, update, "mikey", at)
    }
}

#[test]
fn either_side_renews_the_key_again_and_again() {
    let forking = TicketFlags::KEY_FORKING;
    let flags = usual_flags().with(TicketFlags::INITIATOR_KEYS);
    let all = flags.with(TicketFlags::RESPONDER_KEYS);
    for flags in [usual_flags(), flags, all, usual_flags().with(forking), all.with(forking)] {
        for suite in [Suite::S128, Suite::S256] {
            let mut session = session(flags, Parameters { suite, ..Parameters::default() });
            let mut keys = vec![session.key.clone()];
            for (by_initiator, at) in [(true, 10), (false, 20), (false, 20), (true, 20)] {
                keys.push(session.renew(by_initiator, at));
            }
            for (index, key) in keys.iter().enumerate() {
                assert_eq!(key.len(), suite.key_bytes());
                assert!(!keys[..index].contains(key), "key {index} is not new");
            }
        }
    }
}

#[test]
fn whoever_may_supply_keys_sends_one_and_others_take_the_next_session() {
    let mut supplied = plain(usual_flags().with(TicketFlags::INITIATOR_KEYS));
    let update = codec::parse(&supplied.update()).expect("ours");
    assert!(update.is_csb_update());
    assert!(update.header.response_wanted);
    assert!(update.kemac().is_some());
    let CsIdMap::GenericId(sessions) = &update.header.map else { panic!("GENERIC-ID") };
    assert_eq!(sessions[0].id, 1);

    let mut derived = plain(usual_flags());
    let update = codec::parse(&derived.update()).expect("ours");
    assert!(update.kemac().is_none());
    let CsIdMap::GenericId(sessions) = &update.header.map else { panic!("GENERIC-ID") };
    assert_eq!(sessions[0].id, 2);
    assert_eq!(update.header.data_type, DataType::TransferInit);
}

#[test]
fn a_session_that_was_not_answered_is_renewed_all_the_same() {
    let flags = usual_flags()
        .without(TicketFlags::RESPONDER_RAND)
        .without(TicketFlags::TRANSFER_RESPONSE)
        .with(TicketFlags::INITIATOR_KEYS);
    let parameters = Parameters { transfer_response_required: false, ..Parameters::default() };
    let mut session = session(flags, parameters);
    let first = session.renew(true, 10);
    assert_ne!(first, session.key);
    assert_ne!(session.renew(false, 10), first);
}

#[test]
fn an_update_is_taken_once() {
    let mut session = plain(usual_flags());
    let update = session.update();
    session.answer(&update).expect("answered");
    assert_eq!(session.answer(&update).err(), Some(Error::Replayed));
}

#[test]
fn an_update_that_was_changed_is_refused_and_changes_nothing() {
    for flags in [usual_flags(), usual_flags().with(TicketFlags::INITIATOR_KEYS)] {
        let mut session = plain(flags);
        let update = session.update();
        for at in 0..update.len() {
            let mut changed = update.clone();
            changed[at] ^= 1;
            assert!(session.answer(&changed).is_err(), "byte {at}");
        }
        session.answer(&update).expect("the unchanged one is still good");
    }
}

#[test]
fn an_answer_that_was_changed_is_refused_and_changes_nothing() {
    let mut session = plain(usual_flags());
    let at = seconds_later(5);
    let parameters = session.world.parameters.clone();
    let begin = |session: &mut Session| {
        session.initiator.begin_update(&parameters, at, &mut session.world.random)
    };
    let (pending, update) = begin(&mut session).expect("an update");
    let (_, answer) = session.answer(&update).expect("answered");
    for byte in 0..answer.len() {
        let mut changed = answer.clone();
        changed[byte] ^= 1;
        let (pending, again) = begin(&mut session).expect("an update");
        assert_eq!(again, update, "nothing of it is random");
        let refused = pending.finish(&mut session.initiator, &parameters, &changed, at);
        assert!(refused.is_err(), "byte {byte}");
    }
    assert!(pending.finish(&mut session.initiator, &parameters, &answer, at).is_ok());
}

#[test]
fn an_update_of_another_bundle_is_refused() {
    let mut session = plain(usual_flags());
    let mut other = plain(usual_flags().with(TicketFlags::INITIATOR_KEYS));
    let update = other.update();
    assert_eq!(session.answer(&update).err(), Some(Error::ResponseMismatch));
}

#[test]
fn an_update_out_of_time_is_refused() {
    let mut session = plain(usual_flags());
    let update = session.update();
    let late = seconds_later(66);
    let parameters = session.world.parameters.clone();
    let refused = session.responder.answer_update(&parameters, &update, "mikey", late).err();
    assert!(matches!(refused, Some(Error::ClockSkew { .. })));
    let refused =
        session.responder.answer_update(&parameters, &update, "other;mikey", seconds_later(5));
    assert_eq!(refused.err(), Some(Error::ProtocolListMismatch));
}

#[test]
fn a_transfer_with_a_ticket_is_no_update() {
    let mut session = plain(usual_flags());
    let ticket = session.world.granted(usual_flags(), &[]).expect("granted");
    let (_, transfer_init) = session.world.call(&ticket);
    assert_eq!(session.answer(&transfer_init).err(), Some(Error::UnexpectedPayload("TICKET")));
}

#[test]
fn an_update_is_no_transfer() {
    let mut session = plain(usual_flags());
    let update = session.update();
    let refused = session.world.answer(&update).err();
    assert_eq!(refused, Some(Error::MissingPayload("TICKET")));
}

#[test]
fn clocks_that_differ_do_not_stop_updates() {
    // The responder is behind: its update still has a later time than all before.
    let mut session = plain(usual_flags());
    let first = session.renew(true, 30);
    let second = session.renew(false, 0);
    assert_ne!(first, second);
}

#[test]
fn crypto_sessions_run_out_after_the_last_number() {
    let parameters = Parameters { crypto_session_id: 255, ..Parameters::default() };
    let session = session(usual_flags(), parameters);
    let mut random = mikey_world::counting_random();
    let refused = session.initiator.begin_update(&session.world.parameters, now(), &mut random);
    assert_eq!(refused.err(), Some(Error::UnknownSessionKey));
}

#[test]
fn a_bundle_is_not_printed() {
    let session = plain(usual_flags());
    assert_eq!(format!("{:?}", session.initiator).matches('[').count(), 0);
}
