//! What the shards tell.

use std::net::SocketAddr;

use mrfp_core::mp;

use super::admission::Refusal;
use super::call::{Agreed, Call, Reservation, Stage};
use super::counters::HangUpCause;
use super::engine::{Turn, random_sdp_session_id, random_session_id};
use super::offers::{OwnEnd, Purpose, Replacement};
use super::timers::Timer;
use super::{Answer, CallId, Mrfc};

impl Mrfc {
    pub(super) fn media_plane(
        &mut self,
        turn: &mut Turn<'_>,
        shard: mp::ShardId,
        event: mp::Event,
    ) {
        let about = termination_of(&event);
        if let Some((id, call)) = about.and_then(|about| self.take_of_floor(shard, about)) {
            return self.floor_event(turn, id, call, event);
        }
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
                    self.modified(turn.now, id, call);
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
                    call.stage.set_bound();
                    self.schedule_rekeying(turn.now, id, &call);
                    self.keep(id, call);
                }
            }
            mp::Event::Rekeyed { termination }
            | mp::Event::RekeyingFailed { termination, cause: _ } => {
                // With one key or the other the call goes on.
                if let Some((id, call)) = self.take(shard, termination) {
                    self.schedule_rekeying(turn.now, id, &call);
                    self.keep(id, call);
                }
            }
            mp::Event::BearerReleased { termination, cause } => {
                if let Some((id, call)) = self.take(shard, termination) {
                    self.bearer_released(turn.now, id, call, cause);
                }
            }
            mp::Event::NicknameChanged { termination, nickname } => {
                if let Some((id, mut call)) = self.take(shard, termination) {
                    call.nickname = nickname;
                    self.keep(id, call);
                }
            }
            mp::Event::Audited { .. }
            | mp::Event::Floors { .. }
            | mp::Event::FloorChanged { .. } => {}
            // Names are no business of calls; whoever owns the shards answers.
            mp::Event::Resolve { .. } => {}
            // Of the border.
            mp::Event::ConnectionPointReserved { .. } => {}
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

    /// The call whose floor stream a Termination is, taken out.
    fn take_of_floor(
        &mut self,
        shard: mp::ShardId,
        termination: mp::TerminationId,
    ) -> Option<(CallId, Call)> {
        let id = self.by_termination.get(&termination)?;
        let is_message = self.calls[id].termination == termination;
        if is_message { None } else { self.take(shard, termination) }
    }

    fn reserved(&mut self, turn: &mut Turn<'_>, id: CallId, mut call: Call, address: SocketAddr) {
        if !matches!(call.stage, Stage::AwaitReserved(_)) {
            return self.session_replaced(turn, id, call);
        }
        self.timers.clear(Timer::Call(id));
        let mut address = address;
        if address.ip().is_unspecified() {
            address.set_ip(self.shards.description(call.shard).address.ip());
        }
        let Stage::AwaitReserved(reservation) = &mut call.stage else {
            unreachable!("just seen");
        };
        reservation.address = Some(address);
        if call.floor.is_some() {
            if self.ask_for_floor(turn.now, id, &mut call) {
                return self.keep(id, call);
            }
            self.refuse_floor(turn.now, &mut call);
        }
        self.streams_reserved(turn, id, call);
    }

    /// All is there that the call needs: the answer goes out, or our offer.
    pub(super) fn streams_reserved(&mut self, turn: &mut Turn<'_>, id: CallId, mut call: Call) {
        self.timers.clear(Timer::Call(id));
        let Some(negotiation) = &call.negotiation else {
            return self.offer(turn, id, call);
        };
        let Stage::AwaitReserved(reservation) = call.stage else {
            unreachable!("the caller has seen it");
        };
        let Reservation { session_id, keys, address, bearer, .. } = *reservation;
        let address = address.expect("the shard has answered");
        let keys = keys.into_agreed().map(|keys| *keys);
        let (transfer_response, bundle) =
            keys.map(|keys| (keys.transfer_response, keys.bundle)).unzip();
        call.bundle = bundle;
        let mut description = negotiation.answer(OwnEnd {
            sdp_session_id: random_sdp_session_id(turn.random),
            address,
            msrp_session_id: session_id,
            transfer_response,
        });
        self.describe_floor(&call.room, call.floor.as_deref(), &mut description);
        let sdp = description.to_bytes(SDP_VERSION_FIRST);
        call.stage = Stage::Established(Box::new(Agreed {
            description,
            version: SDP_VERSION_FIRST,
            bearer,
        }));
        self.counters.calls_accepted += 1;
        self.answer(id, Answer::Accepted { sdp });
        self.keep(id, call);
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
            mp::Refusal::CertificatesExhausted => Refusal::unavailable("No certificate ready"),
            mp::Refusal::Transport => Refusal::unavailable("No media connection"),
            mp::Refusal::Stopping => Refusal::unavailable("Shutting down"),
            mp::Refusal::IdentityInUse => Refusal::unavailable("The key is in use"),
            mp::Refusal::Busy => Refusal::overlapping(),
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
                self.abandon(id, &call, refusal);
            }
            Stage::AwaitModified(agreed, change) => {
                self.timers.clear(Timer::Call(id));
                call.stage = Stage::Established(agreed);
                match change.purpose {
                    Purpose::Reinvite => {
                        self.refuse_reinvite(id, refusal.clone());
                        if change.update.as_ref().is_some_and(|update| update.announced) {
                            self.withdraw_key(&call);
                        }
                        if change.replacement == Some(Replacement::Done) {
                            // The session that was is no more, and the new one is not as agreed.
                            let cause = HangUpCause::ShardLost;
                            return self.end(turn.now, id, call, &refusal, cause);
                        }
                    }
                    Purpose::Mute(_) => {}
                    Purpose::Answer => {
                        return self.end(turn.now, id, call, &refusal, HangUpCause::AnswerUnusable);
                    }
                }
                self.keep(id, call);
            }
            Stage::Rekeying(agreed, _) => {
                call.stage = Stage::Established(agreed);
                self.rekeying_failed(turn, id, call, refusal.status());
            }
            stage @ (Stage::AwaitKms { .. } | Stage::AwaitAnswer(_) | Stage::Established(_)) => {
                call.stage = stage;
                self.keep(id, call);
            }
        }
    }
}

/// What an event is about, where that may be a floor stream.
fn termination_of(event: &mp::Event) -> Option<mp::TerminationId> {
    match event {
        mp::Event::Reserved { termination, .. }
        | mp::Event::Refused { termination, .. }
        | mp::Event::Modified { termination }
        | mp::Event::Bound { termination }
        | mp::Event::BearerReleased { termination, .. } => Some(*termination),
        _ => None,
    }
}

/// sess-version of a first description.
pub(super) const SDP_VERSION_FIRST: u64 = 1;
