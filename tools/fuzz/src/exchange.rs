//! The state machines of the key exchange. Each input is one message in the plain form behind options;
//! whoever is to get it is in the middle of an exchange that repeats in every run.

use control_api::mikey::codec::code_point::{KEY_MPK, ROLE_INITIATOR, ROLE_PRE_SHARED_KEY};
use control_api::mikey::codec::{self, DataType, Message, TicketFlags};
use control_api::mikey::request::request_ticket;
use control_api::mikey::{
    Bundle, Credentials, Error, Initiator, Parameters, Pending, PendingRequest, PendingUpdate,
    Suite, TicketMaker, TicketWish, UriPattern, error_message,
};

use crate::mikey_plain::{self as plain, Way};
use crate::mikey_world::{
    ALICE, KMS_URI, ROOM, World, alice_key, node_key, now, seconds_later, tpk, usual_flags,
};

/// Before the message: how the parties are set up, and which exchange they are in.
pub(crate) const OPTION_BYTES: usize = 2;

/// The first option byte.
pub(crate) mod party {
    /// The message is sent as it is: nothing in it is sealed.
    pub(crate) const RAW: u8 = 1;
    pub(crate) const STRICT: u8 = 2;
    /// The responder holds a ticket key, shared with initiators.
    pub(crate) const HOLDS_KEY: u8 = 4;
    /// The KMS and the responder share a ticket key.
    pub(crate) const KMS_SHARES_KEY: u8 = 8;
    pub(crate) const COUNTERS: u8 = 16;
    pub(crate) const RESPONDER_KEYS: u8 = 32;
    pub(crate) const UNANSWERED: u8 = 64;
    pub(crate) const OTHER_READINGS: u8 = 128;
}

/// The second: what exchange has begun.
pub(crate) mod begun {
    pub(crate) const SUITE_256: u8 = 1;
    pub(crate) const FORKING: u8 = 2;
    pub(crate) const INITIATOR_KEYS: u8 = 4;
    pub(crate) const RESPONDER_KEYS: u8 = 8;
    /// A resolve exchange and not a request.
    pub(crate) const RESOLVE: u8 = 16;
    /// The responder, and not the initiator, gets the update.
    pub(crate) const AT_RESPONDER: u8 = 32;
}

/// An input taken apart.
pub(crate) struct Input<'a> {
    pub(crate) party: u8,
    pub(crate) begun: u8,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn of(input: &'a [u8]) -> Option<Self> {
        let (options, bytes) = input.split_at_checked(OPTION_BYTES)?;
        Some(Self { party: options[0], begun: options[1], bytes })
    }

    fn is_raw(&self) -> bool {
        self.party & party::RAW != 0
    }

    pub(crate) fn world(&self) -> World {
        let is = |bit| self.party & bit != 0;
        let mut parameters = Parameters {
            strict: is(party::STRICT),
            counter_senders_max: if is(party::COUNTERS) { 2 } else { 0 },
            responder_session_keys: is(party::RESPONDER_KEYS),
            transfer_response_required: !is(party::UNANSWERED),
            ..Parameters::default()
        };
        if is(party::OTHER_READINGS) {
            parameters.response_covers_initiator_data = false;
            parameters.response_iv_time = control_api::mikey::IvTime::Initial;
            parameters.initiator_proof_next = 0;
        }
        if self.begun & begun::SUITE_256 != 0 {
            parameters.suite = Suite::S256;
        }
        let mut world = World::new(parameters);
        if is(party::KMS_SHARES_KEY) {
            world.kms_shares_key();
            world.room_holds_key(TicketMaker::Kms);
        } else if is(party::HOLDS_KEY) {
            let alice = vec![UriPattern::Exact(ALICE.to_owned())];
            world.room_holds_key(TicketMaker::Initiators(alice));
        }
        world
    }

    pub(crate) fn flags(&self) -> TicketFlags {
        let mut flags = usual_flags();
        for (bit, flag) in [
            (begun::FORKING, TicketFlags::KEY_FORKING),
            (begun::INITIATOR_KEYS, TicketFlags::INITIATOR_KEYS),
            (begun::RESPONDER_KEYS, TicketFlags::RESPONDER_KEYS),
        ] {
            if self.begun & bit != 0 {
                flags = flags.with(flag);
            }
        }
        flags
    }

    /// Whether the MAC of TRANSFER_RESP covers the Initiator Data.
    pub(crate) fn covers(&self) -> bool {
        self.party & party::OTHER_READINGS == 0
    }

    /// The message as it is sent.
    fn sealed(&self, seal: impl FnOnce(&mut Message)) -> Vec<u8> {
        if !self.is_raw()
            && let Ok(mut message) = codec::parse(self.bytes)
        {
            seal(&mut message);
            return codec::encode(&message);
        }
        self.bytes.to_vec()
    }
}

/// What holds of every refusal: it can be told, counted and answered, and no Error is answered. Returns
/// that the message was not taken.
fn refused(message: &[u8], error: &Error) -> bool {
    let _ = error.to_string();
    assert!(!error.name().is_empty());
    let Some(answer) = error_message(message, error, now()) else { return false };
    assert_ne!(message.get(1), Some(&(DataType::Error as u8)), "an Error is not answered");
    let answer = codec::parse(&answer).expect("our own");
    assert_eq!(answer.header.data_type, DataType::Error);
    answer.check_contents().expect("an Error as it should be");
    assert_eq!(answer.error_number(), Some(error.mikey_error_number()));
    false
}

/// A responder gets a TRANSFER_INIT, twice.
pub(crate) fn transfer_init(input: &[u8]) -> bool {
    let Some(input) = Input::of(input) else { return false };
    let mut world = input.world();
    let bytes = input.sealed(|message| plain::turn(message, Way::Seal));
    let (established, response) = match world.answer(&bytes) {
        Ok(answered) => answered,
        Err(error) => return refused(&bytes, &error),
    };
    assert!(!established.psk.expose().is_empty());
    let message = codec::parse(&bytes).expect("it was accepted");
    let ticket = message.ticket().expect("it was accepted");
    let owner = ticket.policy.identity(ROLE_INITIATOR).expect("somebody's");
    assert_eq!(owner.data, established.peer.as_bytes());
    assert_eq!(response.is_empty(), !ticket.policy.flags.has(TicketFlags::TRANSFER_RESPONSE));
    if !response.is_empty() {
        let response = codec::parse(&response).expect("our own");
        response.check_contents().expect("a TRANSFER_RESP as it should be");
        assert_eq!(response.header.csb_id, message.header.csb_id);
    }
    assert_eq!(world.answer(&bytes).err(), Some(Error::Replayed));
    true
}

/// Alice calls with a ticket of her own.
pub(crate) fn called(world: &mut World, flags: TicketFlags) -> (Initiator, Vec<u8>) {
    let ticket = world.made(flags, &[], &tpk()).expect("made");
    world.call(&ticket)
}

/// An initiator gets the answer to its TRANSFER_INIT.
pub(crate) fn transfer_resp(input: &[u8]) -> bool {
    let Some(input) = Input::of(input) else { return false };
    let mut world = input.world();
    let (initiator, init) = called(&mut world, input.flags());
    let bytes = input
        .sealed(|message| plain::turn_transfer_resp(message, &init, input.covers(), Way::Seal));
    match initiator.finish(&bytes, now()) {
        Ok(established) => {
            assert_eq!(established.peer, ROOM);
            true
        }
        Err(error) => refused(&bytes, &error),
    }
}

/// The KMS gets a message, twice.
pub(crate) fn kms(input: &[u8]) -> bool {
    let Some(input) = Input::of(input) else { return false };
    let mut world = input.world();
    let bytes = input.sealed(|message| plain::turn(message, Way::Seal));
    let World { kms, random, .. } = &mut world;
    let response = match kms.try_handle(&bytes, now(), random) {
        Ok(response) => response,
        Err(error) => return refused(&bytes, &error),
    };
    // With the other reading another time makes the IV.
    if input.covers() {
        check_kms_response(&bytes, &response);
    }
    assert_eq!(kms.try_handle(&bytes, now(), random).err(), Some(Error::Replayed));
    true
}

/// The response can be opened with the key of the request, and there are keys in it.
fn check_kms_response(request: &[u8], response: &[u8]) {
    let request_message = codec::parse(request).expect("it was accepted");
    let mut message = codec::parse(response).expect("our own");
    message.check_contents().expect("a response as it should be");
    let named = request_message.identity(ROLE_PRE_SHARED_KEY).expect("it was accepted");
    let keys = [alice_key(), node_key()];
    let key = keys.iter().find(|key| key.identity == named.data).expect("it was accepted");
    plain::turn_kms_resp(&mut message, &request_message, &key.key, request, Way::Open);
    let kemac = message.kemac().expect("it was checked");
    let keys = codec::parse_key_data(&kemac.encrypted).expect("keys");
    assert_eq!(keys[0].key_type, KEY_MPK);
}

/// Alice asks for a ticket.
pub(crate) fn asked(world: &mut World, flags: TicketFlags) -> (PendingRequest, Vec<u8>) {
    let own = alice_key();
    let wish = TicketWish { flags, ..TicketWish::new(KMS_URI, ALICE, &[ROOM]) };
    let World { parameters, random, .. } = world;
    let credentials = Credentials::PreShared(&own);
    request_ticket(parameters, &wish, credentials, now(), random).expect("a request")
}

/// The room asks for what is in a ticket of alice's.
pub(crate) fn resolving(world: &mut World, flags: TicketFlags) -> (Pending, Vec<u8>) {
    let (_, init) = called(world, flags);
    let World { responder, random, .. } = world;
    responder.begin(&init, "mikey", now(), random).expect("acceptable")
}

/// Somebody gets an answer of the KMS.
pub(crate) fn kms_resp(input: &[u8]) -> bool {
    let Some(input) = Input::of(input) else { return false };
    let mut world = input.world();
    let seal = |request: &[u8], key: &[u8]| {
        input.sealed(|message| {
            plain::turn_ticket(message, Way::Seal);
            let initial = codec::parse(request).expect("ours");
            plain::turn_kms_resp(message, &initial, key, request, Way::Seal);
        })
    };
    if input.begun & begun::RESOLVE != 0 {
        let (pending, request) = resolving(&mut world, input.flags());
        let bytes = seal(&request, &node_key().key);
        let World { responder, random, .. } = &mut world;
        return match pending.finish(responder, &bytes, now(), random) {
            Ok(_) => true,
            Err(error) => refused(&bytes, &error),
        };
    }
    let (pending, request) = asked(&mut world, input.flags());
    let bytes = seal(&request, &alice_key().key);
    match pending.finish(&bytes, now()) {
        Err(error) => refused(&bytes, &error),
        // What the ticket says of itself was checked, so it is good for a call, or is said not to be.
        Ok(ticket) => {
            let _ = world.try_call(&ticket, control_api::mikey::TransferOptions::default());
            true
        }
    }
}

/// A session that is up.
pub(crate) struct Session {
    pub(crate) world: World,
    pub(crate) initiator: Bundle,
    pub(crate) responder: Bundle,
    transfer_init: Vec<u8>,
    transfer_resp: Vec<u8>,
}

impl Session {
    pub(crate) fn new(mut world: World, flags: TicketFlags) -> Self {
        let (initiator, transfer_init) = called(&mut world, flags);
        let (answered, transfer_resp) = world.answer(&transfer_init).expect("answered");
        let established = initiator.finish(&transfer_resp, now()).expect("established");
        Self {
            world,
            initiator: established.bundle,
            responder: answered.bundle,
            transfer_init,
            transfer_resp,
        }
    }

    /// The bundle that gets a message, and the other one.
    pub(crate) fn side(&mut self, at_responder: bool) -> &mut Bundle {
        if at_responder { &mut self.responder } else { &mut self.initiator }
    }

    /// Turns an update or the answer to one.
    pub(crate) fn turn(&self, message: &mut Message, appended: &[&[u8]], way: Way) {
        let transfer = [self.transfer_init.as_slice(), &self.transfer_resp];
        plain::turn_update(message, transfer, appended, way);
    }

    pub(crate) fn begin(&mut self, at_responder: bool) -> (PendingUpdate, Vec<u8>) {
        let at = seconds_later(5);
        let Self { world, initiator, responder, .. } = self;
        let begins = if at_responder { responder } else { initiator };
        let World { parameters, random, .. } = world;
        begins.begin_update(parameters, at, random).expect("an update")
    }
}

/// One side of a session gets an update of the other, or the answer to its own.
pub(crate) fn update(input: &[u8]) -> bool {
    let Some(input) = Input::of(input) else { return false };
    // The session is set up without what makes the parties refuse one another.
    let peaceful = Input { party: input.party & party::STRICT, ..input };
    let mut session = Session::new(peaceful.world(), input.flags());
    let parameters = session.world.parameters.clone();
    let at_responder = input.begun & begun::AT_RESPONDER != 0;
    let at = seconds_later(5);
    let is_answer = input.bytes.get(1) == Some(&(DataType::TransferResp as u8));
    if is_answer {
        let (pending, update) = session.begin(at_responder);
        let bytes = input.sealed(|message| session.turn(message, &[&update], Way::Seal));
        let result = pending.finish(session.side(at_responder), &parameters, &bytes, at);
        return match result {
            Ok(_) => true,
            Err(error) => refused(&bytes, &error),
        };
    }
    let identities = [ALICE.as_bytes(), ROOM.as_bytes()];
    let bytes = input.sealed(|message| session.turn(message, &identities, Way::Seal));
    let bundle = session.side(at_responder);
    match bundle.answer_update(&parameters, &bytes, "mikey", at) {
        Err(error) => refused(&bytes, &error),
        Ok((key, answer)) => {
            assert!(!key.psk.expose().is_empty());
            if !answer.is_empty() {
                codec::parse(&answer).expect("our own").check_contents().expect("as it should be");
            }
            let again = bundle.answer_update(&parameters, &bytes, "mikey", at);
            assert_eq!(again.err(), Some(Error::Replayed));
            true
        }
    }
}
