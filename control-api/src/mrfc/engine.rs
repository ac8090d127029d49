//! The machine: one handler per event, transitions by value.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mrfp_core::mp;

use super::admission::Refusal;
use super::call::{Agreed, Call, Reservation, Stage};
use super::config::{KMS_TIMEOUT_NS, MrfcConfig, SHARD_TIMEOUT_NS};
use super::counters::{HangUpCause, MrfcCounters, count};
use super::keys::{self, KeyFailure};
use super::offers::{Negotiation, OwnEnd};
use super::rooms::{Rooms, Shards};
use super::timers::{Timer, Timers};
use super::{Action, Answer, CallId, Event, ResolveId};
use crate::mikey::uri::normalise;
use crate::mikey::{NtpTime, Responder};

/// The MRFC: events in, actions out. After every `handle` and `handle_timeout`, poll actions until
/// there are none.
pub struct Mrfc {
    pub(super) config: MrfcConfig,
    pub(super) calls: BTreeMap<CallId, Call>,
    pub(super) rooms: Rooms,
    pub(super) shards: Shards,
    responder: Option<Responder>,
    pub(super) counters: MrfcCounters,
    /// By normalised URI, so that another spelling is not another user.
    pub(super) user_calls: BTreeMap<String, usize>,
    pub(super) by_termination: BTreeMap<mp::TerminationId, CallId>,
    pub(super) by_resolve: BTreeMap<ResolveId, CallId>,
    /// Terminations whose call is gone and whose `Subtracted` is due.
    pub(super) subtracting: BTreeMap<mp::TerminationId, mp::ShardId>,
    pub(super) timers: Timers,
    pub(super) actions: VecDeque<Action>,
    last_id: u64,
    pub(super) shutdown: Shutdown,
}

/// The time, read once per turn by whoever drives the MRFC.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back.
    pub monotonic_ns: u64,
    /// Wall clock.
    pub ntp: NtpTime,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shutdown {
    No,
    Draining,
    Drained,
}

/// What a handler needs from outside.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) random: &'a mut dyn FnMut(&mut [u8]),
}

/// What the KMS is to be asked, and what goes on with its answer.
struct Question {
    pending: Box<keys::Pending>,
    message: Vec<u8>,
}

impl Mrfc {
    /// An MRFC without calls. Without a responder every `a=key-mgmt` is refused.
    #[must_use]
    pub fn new(config: MrfcConfig, responder: Option<Responder>) -> Self {
        Self {
            shards: Shards::new(&config.shards),
            config,
            responder,
            calls: BTreeMap::new(),
            rooms: Rooms::default(),
            counters: MrfcCounters::default(),
            user_calls: BTreeMap::new(),
            by_termination: BTreeMap::new(),
            by_resolve: BTreeMap::new(),
            subtracting: BTreeMap::new(),
            timers: Timers::default(),
            actions: VecDeque::new(),
            last_id: 0,
            shutdown: Shutdown::No,
        }
    }

    /// Takes an event in. `random` is the node's source of key material and session-ids.
    pub fn handle(&mut self, now: Now, random: &mut dyn FnMut(&mut [u8]), event: Event) {
        let mut turn = Turn { now, random };
        match event {
            Event::Invite { call, room, from, to, offer } => {
                self.counters.calls_invited += 1;
                if let Err(refusal) = self.invite(&mut turn, call, room, from, &to, offer) {
                    self.refuse(call, refusal);
                }
            }
            Event::Reinvite { call, offer } => self.reinvite(&turn, call, offer.as_deref()),
            Event::Ended { call } => self.ended(&turn, call),
            Event::Mp { shard, event } => self.media_plane(&mut turn, shard, event),
            Event::Resolved { resolve, response } => {
                self.resolved(&mut turn, resolve, response.as_deref());
            }
            Event::Shutdown => self.shut_down(&turn),
        }
        self.check_drained();
    }

    /// Takes note that time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.expired(now.monotonic_ns) {
            match timer {
                Timer::Call(call) => self.call_timed_out(now, call),
                Timer::Subtract(termination) => {
                    // The shard is past help; what it holds is not ours to count any more.
                    self.counters.shard_timeouts += 1;
                    let shard = self.subtracting.remove(&termination);
                    self.shards.remove_termination(shard.expect("a timer has its Termination"));
                }
            }
        }
        self.check_drained();
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`], on the monotonic clock in nanoseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next_ns()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &MrfcCounters {
        &self.counters
    }

    /// Calls in progress, the unanswered ones included.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// No call, no room, no Termination, nothing asked and unanswered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let empty = self.calls.is_empty() && self.subtracting.is_empty();
        if empty {
            assert!(self.rooms.is_empty());
            assert!(self.user_calls.is_empty());
            assert!(self.by_termination.is_empty());
            assert!(self.by_resolve.is_empty());
            assert!(self.timers.next_ns().is_none());
        }
        empty
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown != Shutdown::No
    }

    pub(super) fn user_calls(&self, from: &str) -> usize {
        self.user_calls.get(&normalise(from)).copied().unwrap_or(0)
    }

    fn invite(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        room: String,
        from: String,
        to: &str,
        offer: Option<Vec<u8>>,
    ) -> Result<(), Refusal> {
        assert!(!self.calls.contains_key(&id), "a CallId names one call");
        self.check_admission(&room, &from, to)?;
        let negotiation = Negotiation::begin(offer.as_deref(), &self.config, &room)?;
        let place = self.rooms.find(&room);
        let place =
            place.or_else(|| Some((mp::ContextId(self.last_id + 1), self.shards.choose()?)));
        let (context, shard) = place.ok_or_else(|| Refusal::unavailable("No media plane"))?;
        let asked = self.ask_kms(turn, to, &negotiation)?;

        self.last_id += 2;
        let termination = mp::TerminationId(self.last_id);
        self.rooms.join(&room, context, shard, id);
        self.shards.add_termination(shard);
        *self.user_calls.entry(normalise(&from)).or_insert(0) += 1;
        self.by_termination.insert(termination, id);
        let since_ns = turn.now.monotonic_ns;
        let to = to.to_owned();
        let call = |stage| Call {
            room,
            from,
            to,
            since_ns,
            context,
            termination,
            shard,
            negotiation,
            stage,
        };
        match asked {
            Some(Question { pending, message }) => {
                let resolve = ResolveId(termination.0);
                self.by_resolve.insert(resolve, id);
                self.timers.set(Timer::Call(id), since_ns + KMS_TIMEOUT_NS);
                self.calls.insert(id, call(Stage::AwaitKms { resolve, pending }));
                self.actions.push_back(Action::Resolve { resolve, message });
            }
            None => {
                let reservation = Reservation {
                    session_id: random_session_id(turn.random),
                    keys: None,
                    own_port: false,
                };
                self.reserve(turn.now, id, call(Stage::AwaitReserved(Box::new(reservation))));
            }
        }
        Ok(())
    }

    /// Starts MIKEY-TICKET where the chosen m-line asks for it.
    fn ask_kms(
        &mut self,
        turn: &mut Turn<'_>,
        called: &str,
        negotiation: &Negotiation,
    ) -> Result<Option<Question>, Refusal> {
        let Some(offered) = &negotiation.message.key_management else {
            return Ok(None);
        };
        let Some(responder) = &mut self.responder else {
            return Err(Refusal::with_text(488, "No key management here"));
        };
        match keys::begin(responder, offered, called, turn.now.ntp, turn.random) {
            Ok((pending, message)) => Ok(Some(Question { pending: Box::new(pending), message })),
            Err(failure) => Err(self.key_failure(&failure)),
        }
    }

    /// Sends the reservation that `call.stage` holds.
    fn reserve(&mut self, now: Now, id: CallId, call: Call) {
        let Stage::AwaitReserved(reservation) = &call.stage else {
            unreachable!("only a reservation is sent");
        };
        let message = &call.negotiation.message;
        // Key management on an m-line in the clear is refused with the offer.
        assert!(message.secure || reservation.keys.is_none());
        // A Termination that is to have a key is never reserved without it.
        assert_eq!(message.key_management.is_some(), reservation.keys.is_some());
        let security = match &reservation.keys {
            Some(keys) => {
                mp::Security::TlsPsk { identity: keys.identity.clone(), psk: keys.psk.clone() }
            }
            None if message.secure => {
                mp::Security::TlsCertificate { fingerprints: message.fingerprints.clone() }
            }
            None => mp::Security::Plain,
        };
        let command = mp::Command::ReserveAndConfigure(Box::new(mp::ReserveAndConfigure {
            context: call.context,
            switching: self.config.rooms.chat(&call.room).switching(vec![call.to.clone()]),
            termination: call.termination,
            security,
            setup: call.negotiation.setup(),
            session_id: reservation.session_id.clone(),
            remote_path: Some(message.path.clone()),
            member: mp::Member {
                uris: vec![call.from.clone()],
                private_messages: message.private_messages(),
                muted: false,
            },
            realm: mp::RealmId::default(),
            file_transfer: message.file.is_some(),
            accept_types: message.accept_types.clone(),
            accept_wrapped_types: message.accept_wrapped_types.clone(),
            direction: message.direction,
            max_size_bytes: message.max_size_bytes,
            own_port: reservation.own_port,
        }));
        self.actions.push_back(Action::Command { shard: call.shard, command });
        self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
        self.calls.insert(id, call);
    }

    fn resolved(&mut self, turn: &mut Turn<'_>, resolve: ResolveId, response: Option<&[u8]>) {
        // The call may have ended, or the answer may come after its time.
        let Some(id) = self.by_resolve.remove(&resolve) else {
            return;
        };
        let mut call = self.calls.remove(&id).expect("a question belongs to a call");
        self.timers.clear(Timer::Call(id));
        let Stage::AwaitKms { pending, .. } = call.stage else {
            unreachable!("only this stage asks the KMS");
        };
        let responder = self.responder.as_mut().expect("it asked");
        let outcome = response.map(|response| {
            pending.finish(responder, response, &call.from, turn.now.ntp, turn.random)
        });
        let refusal = match outcome {
            Some(Ok(keys)) => {
                let session_id = random_session_id(turn.random);
                let keys = Some(keys);
                let reservation = Reservation { session_id, keys, own_port: false };
                call.stage = Stage::AwaitReserved(Box::new(reservation));
                self.reserve(turn.now, id, call);
                return;
            }
            Some(Err(failure)) => self.key_failure(&failure),
            None => self.kms_silent(),
        };
        self.refuse(id, refusal);
        self.forget(id, &call.room, &call.from, call.termination);
        self.shards.remove_termination(call.shard);
    }

    /// RFC 4567 section 5.2: the answerer that cannot accept the key management rejects with 488.
    fn key_failure(&mut self, failure: &KeyFailure) -> Refusal {
        count(&mut self.counters.mikey_failures, failure.name());
        match failure {
            KeyFailure::Mikey(_) => Refusal::with_text(488, "Key management failed"),
            KeyFailure::OtherCaller => Refusal::with_text(403, "The key is not the caller's"),
            KeyFailure::OtherRoom => Refusal::with_text(488, "The ticket is for another room"),
        }
    }

    /// RFC 3261 section 21.5.5: 504 is for a server that we asked and that did not answer. The
    /// offer is not to blame, so it is no 488, and the same INVITE may succeed later.
    pub(super) fn kms_silent(&mut self) -> Refusal {
        self.counters.kms_timeouts += 1;
        Refusal::with_text(504, "The KMS does not answer")
    }

    fn media_plane(&mut self, turn: &mut Turn<'_>, shard: mp::ShardId, event: mp::Event) {
        match event {
            mp::Event::Reserved { termination, address } => {
                if let Some((id, call)) = self.take(shard, termination) {
                    self.reserved(turn, id, call, address);
                }
            }
            mp::Event::Refused { termination, reason } => {
                if let Some((id, call)) = self.take(shard, termination) {
                    self.refused_by_shard(turn, id, call, reason);
                }
            }
            mp::Event::Modified { termination } => {
                if let Some((id, call)) = self.take(shard, termination) {
                    self.modified(id, call);
                }
            }
            mp::Event::Subtracted { termination, statistics } => {
                if self.subtracting.get(&termination) == Some(&shard) {
                    self.subtracting.remove(&termination);
                    self.timers.clear(Timer::Subtract(termination));
                    self.shards.remove_termination(shard);
                    self.counters.subtracted(statistics);
                }
            }
            mp::Event::Bound { termination } => {
                if let Some((id, mut call)) = self.take(shard, termination) {
                    match &mut call.stage {
                        Stage::Established(agreed) | Stage::AwaitModified(agreed, _) => {
                            agreed.bound = true;
                        }
                        Stage::AwaitKms { .. } | Stage::AwaitReserved(_) => (),
                    }
                    self.calls.insert(id, call);
                }
            }
            mp::Event::BearerReleased { termination, cause } => {
                if let Some((id, call)) = self.take(shard, termination) {
                    let refusal = Refusal::with_text(500, "The media connection failed");
                    self.end(turn.now, id, call, &refusal, HangUpCause::Bearer(cause));
                }
            }
            mp::Event::NicknameChanged { .. } | mp::Event::Audited { .. } => {}
            mp::Event::Stopped => self.shard_stopped(turn.now, shard),
        }
    }

    /// The call of a Termination, taken out; the shard may speak of one that is gone already.
    fn take(
        &mut self,
        shard: mp::ShardId,
        termination: mp::TerminationId,
    ) -> Option<(CallId, Call)> {
        let id = *self.by_termination.get(&termination)?;
        if self.calls[&id].shard != shard {
            return None;
        }
        let call = self.calls.remove(&id).expect("just seen");
        Some((id, call))
    }

    fn reserved(&mut self, turn: &mut Turn<'_>, id: CallId, mut call: Call, address: SocketAddr) {
        let Stage::AwaitReserved(reservation) = call.stage else {
            self.calls.insert(id, call);
            return;
        };
        self.timers.clear(Timer::Call(id));
        let mut address = address;
        if address.ip().is_unspecified() {
            address.set_ip(self.shards.description(call.shard).address.ip());
        }
        let Reservation { session_id, keys, .. } = *reservation;
        let description = call.negotiation.answer(OwnEnd {
            sdp_session_id: random_sdp_session_id(turn.random),
            address,
            msrp_session_id: session_id,
            transfer_response: keys.map(|keys| keys.transfer_response),
        });
        let sdp = description.to_bytes(SDP_VERSION_FIRST);
        call.stage = Stage::Established(Box::new(Agreed {
            description,
            version: SDP_VERSION_FIRST,
            bound: false,
        }));
        self.counters.calls_accepted += 1;
        self.answer(id, Answer::Accepted { sdp });
        self.calls.insert(id, call);
    }

    fn refused_by_shard(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        mut call: Call,
        reason: mp::Refusal,
    ) {
        let refusal = match reason {
            mp::Refusal::ContextFull => Refusal::with_text(486, "The room is full"),
            mp::Refusal::TerminationsExhausted => Refusal::unavailable("Too many sessions"),
            mp::Refusal::Transport => Refusal::unavailable("No media connection"),
            mp::Refusal::Stopping => Refusal::unavailable("Shutting down"),
            mp::Refusal::IdentityInUse => Refusal::unavailable("The key is in use"),
            mp::Refusal::TerminationId => Refusal::with_text(500, "Media plane error"),
        };
        match call.stage {
            Stage::AwaitReserved(mut reservation)
                if reason == mp::Refusal::IdentityInUse && !reservation.own_port =>
            {
                // Two callers may have chosen the same psk_identity. On a port of its own the
                // port is the binding, and any identity is accepted for it.
                reservation.own_port = true;
                reservation.session_id = random_session_id(turn.random);
                call.stage = Stage::AwaitReserved(reservation);
                self.reserve(turn.now, id, call);
            }
            Stage::AwaitReserved(_) => {
                // Nothing is left on the shard, so there is nothing to subtract.
                self.refuse(id, refusal);
                self.forget(id, &call.room, &call.from, call.termination);
                self.shards.remove_termination(call.shard);
            }
            Stage::AwaitModified(agreed, _) => {
                self.timers.clear(Timer::Call(id));
                call.stage = Stage::Established(agreed);
                self.refuse_reinvite(id, refusal);
                self.calls.insert(id, call);
            }
            stage @ (Stage::AwaitKms { .. } | Stage::Established(_)) => {
                call.stage = stage;
                self.calls.insert(id, call);
            }
        }
    }
}

/// 120 bits in characters that a URI takes as they are (RFC 4975 section 14.1 asks for 80).
fn random_session_id(random: &mut dyn FnMut(&mut [u8])) -> String {
    let mut bytes = [0; 15];
    random(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Globally unique (RFC 8866 section 5.2); 63 bits, as some peers read it as a signed number.
fn random_sdp_session_id(random: &mut dyn FnMut(&mut [u8])) -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    u64::from_be_bytes(bytes) >> 1
}

/// sess-version of a first answer.
const SDP_VERSION_FIRST: u64 = 1;
