//! A new session in the place of one whose connection was lost, or whose peer has moved (RFC 4975
//! section 5.4).

use mrfp_core::mp::{self, ReleaseCause};

use super::admission::Refusal;
use super::call::{Bearer, Call, Stage};
use super::config::SHARD_TIMEOUT_NS;
use super::counters::HangUpCause;
use super::engine::{Now, Turn};
use super::offers::Replacement;
use super::timers::Timer;
use super::{Action, CallId, Mrfc};

impl Mrfc {
    /// The connection of a call is gone, or did not come up: the call goes with it, unless the peer
    /// may re-create its session.
    pub(super) fn bearer_released(
        &mut self,
        now: Now,
        id: CallId,
        mut call: Call,
        cause: ReleaseCause,
    ) {
        if !self.may_recover(&mut call, cause) {
            return self.end_lost(now, id, call, cause);
        }
        let agreed = call.stage.agreed_mut().expect("only what stood may recover");
        agreed.bearer = Bearer::Lost(cause);
        // The nickname is free with the session that had it.
        call.nickname = None;
        let recovery_ns = self.config.recovery.as_nanos() as u64;
        self.timers.set(Timer::Recovery(id), now.monotonic_ns + recovery_ns);
        self.keep(id, call);
    }

    /// It stood, nobody is to blame, and the peer has the means: the key of MIKEY-TICKET is wiped with
    /// the session it was for.
    fn may_recover(&self, call: &mut Call, cause: ReleaseCause) -> bool {
        let blameless = match cause {
            ReleaseCause::ConnectionLost | ReleaseCause::PeerClosed => true,
            ReleaseCause::TcpEstablishmentFailure
            | ReleaseCause::TlsEstablishmentFailure
            | ReleaseCause::PeerNotAuthenticated
            | ReleaseCause::ProtocolViolation
            | ReleaseCause::TooSlow
            | ReleaseCause::Idle => false,
        };
        let keyed = call.negotiation.as_ref().is_some_and(|it| it.message.key_management.is_some());
        let stood = call.stage.agreed_mut().is_some_and(|it| it.bearer == Bearer::Bound);
        blameless && stood && !keyed && !self.config.recovery.is_zero()
    }

    /// Nobody came for the session.
    pub(super) fn recovery_over(&mut self, now: Now, id: CallId) {
        let mut call = self.calls.remove(&id).expect("a timer has its call");
        let Some(Bearer::Lost(cause)) = call.stage.agreed_mut().map(|agreed| agreed.bearer) else {
            unreachable!("only a lost connection is waited for");
        };
        self.end_lost(now, id, call, cause);
    }

    fn end_lost(&mut self, now: Now, id: CallId, call: Call, cause: ReleaseCause) {
        let refusal = Refusal::with_text(500, "The media connection failed");
        self.end(now, id, call, &refusal, HangUpCause::Bearer(cause));
    }

    /// Asks the shard for the new session that `call.stage` holds.
    pub(super) fn replace_session(&mut self, now: Now, id: CallId, call: Call) {
        let Stage::AwaitModified(_, change) = &call.stage else {
            unreachable!("the caller made it so");
        };
        let Some(Replacement::Asked(session_id)) = &change.replacement else {
            unreachable!("the caller made it so");
        };
        let command = mp::Command::ReplaceSession(Box::new(mp::ReplaceSession {
            termination: call.termination,
            security: change.negotiation.unkeyed_security(),
            session_id: session_id.clone(),
            remote: Some(change.negotiation.remote()),
        }));
        self.actions.push_back(Action::Command { shard: call.shard, command });
        self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
        self.keep(id, call);
    }

    /// The new session is there; its connection is awaited like a first one.
    pub(super) fn session_replaced(&mut self, turn: &Turn<'_>, id: CallId, mut call: Call) {
        let Stage::AwaitModified(agreed, change) = &mut call.stage else {
            return self.keep(id, call);
        };
        if !matches!(change.replacement, Some(Replacement::Asked(_))) {
            return self.keep(id, call);
        }
        change.replacement = Some(Replacement::Done);
        agreed.bearer = Bearer::Awaited;
        self.timers.clear(Timer::Recovery(id));
        call.nickname = None;
        // Of what else has changed the direction is left to be told.
        let mut next = change.negotiation.clone();
        let before = call.negotiation.replace(next.clone()).expect("an answer has come");
        if before.message.direction == next.message.direction {
            return self.modified(turn.now, id, call);
        }
        next.message.direction = before.message.direction;
        call.negotiation = Some(next);
        self.modify(turn.now, id, call);
    }
}
