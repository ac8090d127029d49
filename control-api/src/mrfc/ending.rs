//! Every way a call can end, and what is cleaned up behind it.

use mrfp_core::mp;

use super::admission::Refusal;
use super::call::{Call, Stage};
use super::conference_state::{Disconnection, Joining};
use super::config::SUBTRACT_TIMEOUT_NS;
use super::counters::{HangUpCause, count};
use super::engine::{Now, Shutdown, Turn};
use super::offers::Purpose;
use super::timers::Timer;
use super::{Action, Answer, CallId, Mrfc};
use crate::mikey::uri::normalise;

impl Mrfc {
    /// The party is gone: no answer, no hang-up.
    pub(super) fn ended(&mut self, turn: &Turn<'_>, id: CallId) {
        // It may have ended at both ends at once.
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        self.refer_progress(id, 487);
        match call.stage {
            Stage::AwaitKms { .. } | Stage::AwaitReserved(_) => {
                self.counters.calls_abandoned += 1;
            }
            Stage::AwaitAnswer(_) => self.counters.calls_ended += 1,
            Stage::Established(_) | Stage::AwaitModified(..) | Stage::Rekeying(..) => {
                self.counters.calls_ended += 1;
            }
        }
        self.release(turn.now, id, &call, Disconnection::Departed);
    }

    /// We end it: what is unanswered is answered with the refusal, what is answered is hung up.
    pub(super) fn end(
        &mut self,
        now: Now,
        id: CallId,
        call: Call,
        refusal: &Refusal,
        cause: HangUpCause,
    ) {
        match &call.stage {
            Stage::AwaitKms { .. } | Stage::AwaitReserved(_) => {
                self.refuse_or_report(id, call.joining, refusal.clone());
            }
            Stage::AwaitAnswer(_) => {
                self.refer_progress(id, refusal.status());
                self.hang_up(id, cause);
            }
            Stage::Established(_) | Stage::Rekeying(..) => self.hang_up(id, cause),
            Stage::AwaitModified(_, change) => {
                if change.purpose == Purpose::Reinvite {
                    self.refuse_reinvite(id, refusal.clone());
                }
                self.hang_up(id, cause);
            }
        }
        self.release(now, id, &call, cause.disconnection());
    }

    pub(super) fn call_timed_out(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let now = turn.now;
        let mut call = self.calls.remove(&id).expect("a timer has its call");
        if let Stage::Rekeying(agreed, rekeying) = call.stage {
            if rekeying.is_offered() {
                call.stage = Stage::Established(agreed);
                self.withdraw_key(&call);
                return self.rekeying_failed(turn, id, call, 408);
            }
            call.stage = Stage::Rekeying(agreed, rekeying);
        }
        if let Some(resolve) = call.stage.question()
            && call.is_answered()
        {
            // The session stays as it was.
            self.by_resolve.remove(&resolve);
            return self.change_resolved(turn, id, call, None);
        }
        let refusal = match call.stage {
            Stage::AwaitKms { .. } => self.kms_silent(),
            Stage::AwaitReserved(_) | Stage::AwaitModified(..) | Stage::Rekeying(..) => {
                self.counters.shard_timeouts += 1;
                Refusal::unavailable("The media plane does not answer")
            }
            // RFC 3261 section 21.4.9: whom we called did not answer in time.
            Stage::AwaitAnswer(_) => {
                let refusal = Refusal::of_status(408);
                return self.end(now, id, call, &refusal, HangUpCause::Unanswered);
            }
            Stage::Established(_) => unreachable!("nothing is awaited"),
        };
        // After a Modify that may or may not have been carried out nobody knows what the session
        // is, so it ends.
        self.end(now, id, call, &refusal, HangUpCause::ShardLost);
    }

    /// Its thread has ended, and with it every Termination it had.
    pub(super) fn shard_stopped(&mut self, now: Now, shard: mp::ShardId) {
        self.shards.set_lost(shard);
        let on_it = self.calls.iter().filter(|(_, call)| call.shard == shard);
        let on_it: Vec<CallId> = on_it.map(|(id, _)| *id).collect();
        let refusal = Refusal::unavailable("The media plane stopped");
        for id in on_it {
            let call = self.calls.remove(&id).expect("just seen");
            self.end(now, id, call, &refusal, HangUpCause::ShardLost);
        }
        let gone = self.subtracting.iter().filter(|(_, on)| **on == shard);
        let gone: Vec<mp::TerminationId> = gone.map(|(termination, _)| *termination).collect();
        for termination in gone {
            self.subtracting.remove(&termination);
            self.timers.clear(Timer::Subtract(termination));
            self.shards.remove_termination(shard);
        }
        // Those commands would reach nobody.
        self.actions
            .retain(|action| !matches!(action, Action::Command { shard: to, .. } if *to == shard));
    }

    pub(super) fn shut_down(&mut self, turn: &Turn<'_>) {
        if self.shutdown != Shutdown::No {
            return;
        }
        self.shutdown = Shutdown::Draining;
        let refusal = Refusal::unavailable("Shutting down");
        while let Some((id, call)) = self.calls.pop_first() {
            self.end(turn.now, id, call, &refusal, HangUpCause::Shutdown);
        }
    }

    pub(super) fn check_drained(&mut self) {
        if self.shutdown == Shutdown::Draining && self.is_empty() {
            self.shutdown = Shutdown::Drained;
            self.actions.push_back(Action::Drained);
        }
    }

    /// A call that the shard has no place for.
    pub(super) fn refuse_or_report(&mut self, id: CallId, joining: Joining, refusal: Refusal) {
        match joining {
            Joining::DialedIn => self.refuse(id, refusal),
            Joining::DialedOut => {
                count(&mut self.counters.dials_failed, refusal.status());
                self.refer_progress(id, refusal.status());
            }
        }
    }

    /// Hangs a call up whose answer is no use.
    pub(super) fn end_answered(&mut self, now: Now, id: CallId, call: &Call, cause: HangUpCause) {
        self.hang_up(id, cause);
        self.release(now, id, call, cause.disconnection());
    }

    /// Refuses an INVITE.
    pub(super) fn refuse(&mut self, id: CallId, refusal: Refusal) {
        count(&mut self.counters.calls_refused, refusal.status());
        self.answer(id, refusal.into());
    }

    pub(super) fn answer(&mut self, call: CallId, answer: Answer) {
        self.actions.push_back(Action::Answer { call, answer });
    }

    fn hang_up(&mut self, call: CallId, cause: HangUpCause) {
        count(&mut self.counters.calls_hung_up, cause);
        self.actions.push_back(Action::HangUp { call, reason: cause.reason().to_owned() });
    }

    /// Gives back what a call holds; its Termination lingers until the shard says `Subtracted`.
    pub(super) fn release(&mut self, now: Now, id: CallId, call: &Call, how: Disconnection) {
        if let Some(resolve) = call.stage.question() {
            self.by_resolve.remove(&resolve);
        }
        self.give_back_floor(now, call);
        self.forget(id, &call.room, &call.caller.uri, call.termination);
        self.departed(id, call, how);
        if !call.stage.has_termination() {
            self.shards.remove_termination(call.shard);
            return;
        }
        self.subtract(now, call.shard, call.termination);
    }

    /// Has a shard give a Termination back.
    pub(super) fn subtract(
        &mut self,
        now: Now,
        shard: mp::ShardId,
        termination: mp::TerminationId,
    ) {
        let command = mp::Command::Subtract { termination };
        self.actions.push_back(Action::Command { shard, command });
        self.subtracting.insert(termination, shard);
        let deadline_ns = now.monotonic_ns + SUBTRACT_TIMEOUT_NS;
        self.timers.set(Timer::Subtract(termination), deadline_ns);
    }

    /// Takes a call out of every index.
    pub(super) fn forget(
        &mut self,
        id: CallId,
        room: &str,
        from: &str,
        termination: mp::TerminationId,
    ) {
        self.timers.clear(Timer::Call(id));
        self.timers.clear(Timer::Recovery(id));
        self.timers.clear(Timer::Rekeying(id));
        self.dials.remove(id);
        if let Some(context) = self.rooms.leave(room, id) {
            self.conference_ended(context);
        }
        self.by_termination.remove(&termination);
        let user = normalise(from);
        let calls = self.user_calls.get_mut(&user).expect("counted at admission");
        *calls -= 1;
        if *calls == 0 {
            self.user_calls.remove(&user);
        }
    }
}
