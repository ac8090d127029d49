//! What the shards tell.

use mrfp_core::mp::{self, ReleaseCause, ShardId, TerminationId};

use super::call::{Call, PointState};
use super::config::RECOVERY_MIN;
use super::counters::count;
use super::ending::ReleaseReason;
use super::engine::{Timer, Turn};
use super::{Border, BorderCallId};

impl Border {
    pub(super) fn media_plane(&mut self, turn: &mut Turn<'_>, shard: ShardId, event: mp::Event) {
        match event {
            mp::Event::ConnectionPointReserved { termination, address, fingerprint } => {
                let Some((id, mut call)) = self.take(shard, termination) else { return };
                if let Some((_, point, _)) = call.point_mut(termination) {
                    point.address = Some(address);
                    point.fingerprint = fingerprint;
                }
                self.shard_answered(turn, id, &mut call, termination);
                self.calls.insert(id, call);
            }
            mp::Event::Modified { termination } => {
                let Some((id, mut call)) = self.take(shard, termination) else { return };
                self.shard_answered(turn, id, &mut call, termination);
                self.calls.insert(id, call);
            }
            mp::Event::Refused { termination, reason } => {
                let Some((id, mut call)) = self.take(shard, termination) else { return };
                if call.awaiting.contains(&termination) {
                    let is_new = call
                        .point_mut(termination)
                        .is_some_and(|(_, point, _)| point.address.is_none());
                    if is_new {
                        // Nothing is left on the shard, so there is nothing to subtract.
                        self.forget_termination(shard, termination);
                    }
                    self.shard_refused(turn, id, &mut call, reason);
                }
                self.calls.insert(id, call);
            }
            mp::Event::Subtracted { termination, statistics } => {
                let due = self.subtracting.get(&termination);
                let Some((_, side)) = due.filter(|(on, _)| *on == shard).copied() else { return };
                self.subtracting.remove(&termination);
                self.timers.clear(Timer::Subtract(termination));
                self.shards.remove_termination(shard);
                let carried = self.counters.carried.entry(side).or_default();
                carried.bytes_received += statistics.bytes_received;
                carried.bytes_sent += statistics.bytes_sent;
            }
            mp::Event::Bound { termination } => {
                let Some((id, mut call)) = self.take(shard, termination) else { return };
                if let Some((leg, point, profile)) = call.point_mut(termination) {
                    point.state = PointState::Established;
                    let side = call.party(leg).side;
                    count(&mut self.counters.bearers_established, (side, profile));
                }
                self.calls.insert(id, call);
            }
            mp::Event::BearerReleased { termination, cause } => {
                let Some((id, mut call)) = self.take(shard, termination) else { return };
                self.bearer_released(turn, id, &mut call, termination, cause);
                self.calls.insert(id, call);
            }
            mp::Event::Stopped => self.shard_stopped(turn, shard),
            // Of conferences and of the relay.
            mp::Event::Reserved { .. }
            | mp::Event::Rekeyed { .. }
            | mp::Event::RekeyingFailed { .. }
            | mp::Event::NicknameChanged { .. }
            | mp::Event::Floors { .. }
            | mp::Event::FloorChanged { .. }
            | mp::Event::Audited { .. }
            | mp::Event::Resolve { .. } => {}
        }
    }

    /// The call of a Termination, taken out; the shard may speak of one that is gone already.
    fn take(&mut self, shard: ShardId, termination: TerminationId) -> Option<(BorderCallId, Call)> {
        let id = *self.by_termination.get(&termination)?;
        if self.calls[&id].shard != Some(shard) {
            return None;
        }
        Some((id, self.calls.remove(&id).expect("just seen")))
    }

    /// A bearer did not come up, or is gone. Whoever has closed its connection is about to hang up, and who
    /// has lost it may ask for another; anything else ends the call.
    fn bearer_released(
        &mut self,
        turn: &mut Turn<'_>,
        id: BorderCallId,
        call: &mut Call,
        termination: TerminationId,
        cause: ReleaseCause,
    ) {
        let Some((leg, point, profile)) = call.point_mut(termination) else { return };
        let was_established = point.state == PointState::Established;
        point.state = PointState::Lost;
        let side = call.party(leg).side;
        count(&mut self.counters.bearers_released, (side, profile, cause));
        // RFC 4145 section 4.1, RFC 3264 section 8.4. The next exchange begins it anew.
        if !was_established && call.agreed.is_on_hold(termination) {
            return;
        }
        let may_come_back = was_established
            && matches!(cause, ReleaseCause::PeerClosed | ReleaseCause::ConnectionLost);
        if !may_come_back {
            return self.release(turn, id, call, ReleaseReason::Bearer(side, cause));
        }
        if call.lost.is_none() {
            call.lost = Some((side, cause));
            self.await_recovery(turn, id);
        }
    }

    /// Gives a call whose bearer is lost time for its end or for a new offer.
    pub(super) fn await_recovery(&mut self, turn: &Turn<'_>, id: BorderCallId) {
        let patience = self.config.recovery.max(RECOVERY_MIN).as_nanos();
        let patience = u64::try_from(patience).unwrap_or(u64::MAX);
        self.timers.set(Timer::Recovery(id), turn.now_ns.saturating_add(patience));
    }
}
