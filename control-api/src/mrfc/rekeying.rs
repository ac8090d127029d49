//! New keys for calls that stand: the CSB update of RFC 6043 section 5.2 in a re-INVITE, the peer's or
//! ours. The shard lets a connection under the new key take the place of the running one; until then,
//! and where none comes, the call goes on as it was.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mrfp_core::mp::{self, NextKey, Setup};

use super::administration::AdministrationError;
use super::admission::Refusal;
use super::call::{Agreed, Call, Stage};
use super::conference_state::Joining;
use super::config::SHARD_TIMEOUT_NS;
use super::counters::count;
use super::engine::{Now, Turn};
use super::keys::KeyFailure;
use super::offers::{Change, Negotiation, Purpose};
use super::timers::Timer;
use super::{Action, CallId, Mrfc};
use crate::mikey::{Bundle, Parameters, PendingUpdate, TrafficKey};
use crate::sdp::{Answered, KeyManagement, KeyManagementLevel, LocalDescription, Offering};

/// A new key that the peer has offered, until its offer is answered.
#[derive(Debug)]
pub(super) struct Update {
    /// What the next one begins with.
    pub(super) bundle: Box<Bundle>,
    key: TrafficKey,
    /// `a=key-mgmt` of the answer.
    pub(super) answer: Option<(KeyManagementLevel, String)>,
    /// The shard has taken it.
    pub(super) announced: bool,
}

/// A new key that we offer.
#[derive(Debug)]
pub(super) struct Rekeying {
    /// What the answer is held against.
    offering: Offering,
    /// sess-version of the offer.
    version: u64,
    step: Step,
}

/// How far it is.
#[derive(Debug)]
enum Step {
    /// The shard is told of its identity, as media may be faster than signalling.
    Announcing { pending: PendingUpdate, sdp: Vec<u8> },
    /// The re-INVITE is unanswered.
    Offered { pending: PendingUpdate },
    /// The shard is told of the key, and of how the peer has answered.
    Agreed { negotiation: Box<Negotiation> },
}

impl Rekeying {
    /// Whether the peer owes an answer.
    pub(super) fn is_offered(&self) -> bool {
        matches!(self.step, Step::Offered { .. })
    }
}

impl Mrfc {
    fn mikey_parameters(&self) -> Option<&Parameters> {
        let responder = self.responder.as_ref().map(|responder| responder.parameters());
        responder.or(self.initiator.as_ref().map(|initiator| &initiator.parameters))
    }

    /// Where a new offer brings another MIKEY message: the key that this leads to.
    pub(super) fn take_update(
        &mut self,
        turn: &Turn<'_>,
        call: &Call,
        next: Negotiation,
    ) -> Result<(Negotiation, Option<Box<Update>>), Refusal> {
        if !call.agreed().is_rekeyed_by(&next) {
            return Ok((next, None));
        }
        let offered = next.message.key_management.as_ref().expect("just seen");
        let (Some(bundle), Some(parameters), Some(message)) =
            (&call.bundle, self.mikey_parameters(), offered.mikey())
        else {
            return Err(Refusal::change("keys cannot change"));
        };
        let mut bundle = bundle.clone();
        let protocols = offered.offered_protocols();
        let (key, response) = bundle
            .answer_update(parameters, message, &protocols, turn.now.ntp)
            .map_err(|error| self.key_failure(&KeyFailure::Mikey(error)))?;
        if !call.is_bound() {
            // There is no connection yet that another could take the place of.
            return Err(Refusal::overlapping());
        }
        let answer = (!response.is_empty()).then(|| (offered.level, STANDARD.encode(response)));
        Ok((next, Some(Box::new(Update { bundle, key, answer, announced: false }))))
    }

    /// Tells the shard of the new key that `call.stage` holds.
    pub(super) fn announce_key(&mut self, now: Now, id: CallId, call: Call) {
        let Stage::AwaitModified(_, change) = &call.stage else {
            unreachable!("the caller made it so");
        };
        let update = change.update.as_ref().expect("the caller made it so");
        let key = agreed_key(update.key.clone(), change.negotiation.setup());
        self.tell_key(&call, key);
        self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
        self.keep(id, call);
    }

    fn tell_key(&mut self, call: &Call, key: NextKey) {
        let rekey = mp::Rekey { termination: call.termination, key };
        let command = mp::Command::Rekey(Box::new(rekey));
        self.actions.push_back(Action::Command { shard: call.shard, command });
    }

    /// What the shard knows of leads to nothing.
    pub(super) fn withdraw_key(&mut self, call: &Call) {
        self.tell_key(call, NextKey::Withdrawn);
    }

    /// Offers the peer a new key for a call.
    ///
    /// # Errors
    /// The call has none that could be renewed, or is changing.
    pub(super) fn rekey(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
    ) -> Result<(), AdministrationError> {
        let mut call = self.calls.remove(&id).expect("the caller has seen it");
        let (identity, rekeying) = match self.offer_of_key(turn, &call) {
            Ok(offer) => offer,
            Err(error) => {
                self.calls.insert(id, call);
                return Err(error);
            }
        };
        let Stage::Established(agreed) = call.stage else {
            unreachable!("just seen");
        };
        call.stage = Stage::Rekeying(agreed, Box::new(rekeying));
        self.tell_key(&call, NextKey::Awaited { identity });
        self.timers.clear(Timer::Rekeying(id));
        self.timers.set(Timer::Call(id), turn.now.monotonic_ns + SHARD_TIMEOUT_NS);
        self.keep(id, call);
        Ok(())
    }

    /// The offer of a new key, and what the TLS client will call itself with it.
    fn offer_of_key(
        &self,
        turn: &mut Turn<'_>,
        call: &Call,
    ) -> Result<(Vec<u8>, Rekeying), AdministrationError> {
        let (Some(bundle), Some(parameters)) = (&call.bundle, self.mikey_parameters()) else {
            return Err(AdministrationError::NotKeyed);
        };
        let Stage::Established(agreed) = &call.stage else {
            return Err(AdministrationError::Busy);
        };
        let negotiation = call.agreed();
        // The session of a file lasts as long as that.
        if negotiation.message.file.is_some() {
            return Err(AdministrationError::NotKeyed);
        }
        if !call.is_bound() {
            return Err(AdministrationError::Busy);
        }
        // A bundle has 255 crypto sessions.
        let begun = bundle.begin_update(parameters, turn.now.ntp, turn.random);
        let (pending, message) = begun.map_err(|_| AdministrationError::NotKeyed)?;
        let identity = pending.psk_identity(parameters).into_bytes();
        let offering = offering(negotiation, agreed, STANDARD.encode(message));
        let version = agreed.version + 1;
        let mut description = description(negotiation, agreed, &offering);
        self.describe_floor_again(call, &mut description);
        let sdp = description.to_bytes(version);
        let step = Step::Announcing { pending, sdp };
        Ok((identity, Rekeying { offering, version, step }))
    }

    /// The shard has done what a new key of ours needed.
    pub(super) fn rekeying_modified(&mut self, now: Now, id: CallId, mut call: Call) {
        let Stage::Rekeying(mut agreed, rekeying) = call.stage else {
            unreachable!("the caller has seen it");
        };
        let Rekeying { offering, version, step } = *rekeying;
        match step {
            Step::Announcing { pending, sdp } => {
                self.timers.set(Timer::Call(id), now.monotonic_ns + REANSWER_TIMEOUT_NS);
                self.counters.rekeyings_offered += 1;
                self.actions.push_back(Action::Reinvite { call: id, sdp });
                let step = Step::Offered { pending };
                call.stage =
                    Stage::Rekeying(agreed, Box::new(Rekeying { offering, version, step }));
                self.keep(id, call);
            }
            Step::Agreed { negotiation } => {
                agreed.version = version;
                let description = agreed.description.clone();
                let change = Change::to(*negotiation, description, Purpose::Answer);
                call.stage = Stage::AwaitModified(agreed, Box::new(change));
                // Whatever else the answer says of the peer's end.
                self.modify(now, id, call);
            }
            step @ Step::Offered { .. } => {
                call.stage =
                    Stage::Rekeying(agreed, Box::new(Rekeying { offering, version, step }));
                self.keep(id, call);
            }
        }
    }

    /// The answer to a re-INVITE of ours, or the status of its refusal.
    pub(super) fn reanswered(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        answer: Result<Vec<u8>, u16>,
    ) {
        let Some(mut call) = self.calls.remove(&id) else {
            return;
        };
        let (agreed, rekeying) = match call.stage {
            Stage::Rekeying(agreed, rekeying) if rekeying.is_offered() => (agreed, *rekeying),
            stage => {
                // It comes after its time.
                call.stage = stage;
                return self.keep(id, call);
            }
        };
        let Rekeying { offering, version, step } = rekeying;
        let Step::Offered { pending } = step else { unreachable!("just seen") };
        call.stage = Stage::Established(agreed);
        let taken =
            answer.and_then(|sdp| self.take_reanswer(turn, &call, &offering, pending, &sdp));
        let (bundle, key, negotiation) = match taken {
            Ok(taken) => taken,
            Err(status) => {
                self.withdraw_key(&call);
                return self.rekeying_failed(turn, id, call, status);
            }
        };
        call.bundle = Some(bundle);
        self.tell_key(&call, agreed_key(key, negotiation.setup()));
        self.timers.set(Timer::Call(id), turn.now.monotonic_ns + SHARD_TIMEOUT_NS);
        let Stage::Established(agreed) = call.stage else { unreachable!("just made so") };
        let step = Step::Agreed { negotiation: Box::new(negotiation) };
        call.stage = Stage::Rekeying(agreed, Box::new(Rekeying { offering, version, step }));
        self.keep(id, call);
    }

    /// Reads and checks an answer; where it is no good the session stays as it was, and 488 is what the
    /// peer would have got for it.
    fn take_reanswer(
        &mut self,
        turn: &Turn<'_>,
        call: &Call,
        offering: &Offering,
        pending: PendingUpdate,
        sdp: &[u8],
    ) -> Result<(Box<Bundle>, TrafficKey, Negotiation), u16> {
        let before = call.agreed();
        let (index, count) = before.place();
        let answered = offering.answered_at(sdp, index, count).map_err(|error| {
            tracing::debug!(%error, "the answer leads to no new key");
            488_u16
        })?;
        // Another path would be another session.
        if answered.message.path != before.message.path {
            return Err(488);
        }
        let Answered { message, .. } = &answered;
        let response = message.key_management.as_ref().and_then(KeyManagement::mikey);
        let response = response.expect("an answer without MIKEY is not taken");
        let mut bundle = call.bundle.clone().expect("it has begun the update");
        let parameters = self.mikey_parameters().expect("they have begun the update");
        let finished = pending.finish(&mut bundle, parameters, response, turn.now.ntp);
        let key = finished.map_err(|error| self.key_failure(&KeyFailure::Mikey(error)).status())?;
        Ok((bundle, key, before.reanswered(answered)))
    }

    /// A new key of ours has come to nothing. The call goes on, and tries again when it is time.
    pub(super) fn rekeying_failed(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        call: Call,
        status: u16,
    ) {
        self.timers.clear(Timer::Call(id));
        count(&mut self.counters.rekeyings_refused, status);
        if status == 491 {
            // RFC 3261 section 14.1: of two that meet each other neither goes on at once, and whoever
            // has made the call waits longer.
            let mut random = [0];
            (turn.random)(&mut random);
            let units = match call.joining {
                Joining::DialedOut => 210 + u64::from(random[0]) * 190 / 255,
                Joining::DialedIn => u64::from(random[0]) * 200 / 255,
            };
            let due_ns = turn.now.monotonic_ns + units * GLARE_UNIT_NS;
            self.timers.set(Timer::Rekeying(id), due_ns);
        } else {
            self.schedule_rekeying(turn.now, id, &call);
        }
        self.keep(id, call);
    }

    /// Notes when a session is to get its next key, where the operator wants that.
    pub(super) fn schedule_rekeying(&mut self, now: Now, id: CallId, call: &Call) {
        let interval_ns = self.config.focus.rekeying_interval.as_nanos() as u64;
        if interval_ns > 0 && call.bundle.is_some() {
            self.timers.set(Timer::Rekeying(id), now.monotonic_ns + interval_ns);
        }
    }

    /// It is time for the next key of a call.
    pub(super) fn rekeying_due(&mut self, turn: &mut Turn<'_>, id: CallId) {
        if self.rekey(turn, id) == Err(AdministrationError::Busy) {
            // It is changing otherwise; that takes a moment.
            let due_ns = turn.now.monotonic_ns + REKEYING_RETRY_NS;
            self.timers.set(Timer::Rekeying(id), due_ns);
        }
    }
}

fn agreed_key(key: TrafficKey, setup: Setup) -> NextKey {
    NextKey::Agreed { identity: key.psk_identity.into_bytes(), psk: key.psk, setup }
}

/// What a session as it is offers with a new key.
fn offering(negotiation: &Negotiation, agreed: &Agreed, message: String) -> Offering {
    let served = negotiation.served_in(&agreed.description);
    Offering {
        sdp_session_id: agreed.description.session_id,
        address: agreed.description.address,
        msrp_session_id: served.session_id.clone(),
        capabilities: served.capabilities.clone(),
        direction: served.direction,
        cema: served.cema,
        file: None,
        label: served.label.clone(),
        floor: None,
        key_management: Some(message),
    }
}

/// The same as a description with all m-lines there are (RFC 3264 section 8).
fn description(
    negotiation: &Negotiation,
    agreed: &Agreed,
    offering: &Offering,
) -> LocalDescription {
    let mut description = offering.description();
    let (index, _) = negotiation.place();
    let served = description.media.pop().expect("it is for one session");
    description.media = agreed.description.media.clone();
    description.media[index] = served;
    description.times = agreed.description.times.clone();
    description
}

/// How long the answer to a re-INVITE may take: a little longer than the front waits for it (RFC 3261
/// section 17.1.1.2, timer B).
pub const REANSWER_TIMEOUT_NS: u64 = 40_000_000_000;

/// RFC 3261 section 14.1: the waiting time has units of 10 ms.
const GLARE_UNIT_NS: u64 = 10_000_000;

/// When a session is looked at again that was changing when it was to get another key.
const REKEYING_RETRY_NS: u64 = 1_000_000_000;
