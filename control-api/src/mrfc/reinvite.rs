//! Changing a session that stands.

use mrfp_core::mp;

use super::admission::Refusal;
use super::call::{Agreed, Call, Stage};
use super::config::SHARD_TIMEOUT_NS;
use super::counters::count;
use super::engine::{Now, Turn, random_session_id};
use super::offers::{Change, Purpose, Replacement};
use super::timers::Timer;
use super::{Action, Answer, CallId, Mrfc};

impl Mrfc {
    pub(super) fn reinvite(&mut self, turn: &mut Turn<'_>, id: CallId, offer: Option<&[u8]>) {
        // We may have hung up while the re-INVITE was on its way.
        let Some(mut call) = self.calls.remove(&id) else {
            return self.refuse_reinvite(id, Refusal::of_status(481));
        };
        if !matches!(call.stage, Stage::Established(_)) {
            let refusal = match call.stage {
                // RFC 3261 section 14.2: an INVITE of our own is under way.
                Stage::Rekeying(..) => Refusal::of_status(491),
                _ => Refusal::overlapping(),
            };
            self.refuse_reinvite(id, refusal);
            return self.keep(id, call);
        }
        let again = call.agreed().again(offer, &self.config, &call.room);
        let again = again.and_then(|next| self.take_update(turn, &call, next));
        let again = again.and_then(|(mut next, update)| {
            let (floor, ask) = self.take_floor_change(turn, &mut call, &mut next)?;
            Ok((next, update, floor, ask))
        });
        let Stage::Established(agreed) = call.stage else {
            unreachable!("just seen");
        };
        match again {
            Ok((negotiation, update, floor, ask)) => {
                let replaced = call
                    .negotiation
                    .as_ref()
                    .is_some_and(|before| before.is_replaced_by(&negotiation));
                let session_id = replaced.then(|| random_session_id(turn.random));
                let mut description =
                    negotiation.answer_again(&agreed.description, session_id.as_deref());
                if let Some(update) = &update {
                    description.key_management = update.answer.clone();
                }
                let purpose = Purpose::Reinvite;
                let replacement = session_id.map(Replacement::Asked);
                let change = Change::to(negotiation, description, purpose);
                let change = Change { replacement, update, floor, ..change };
                call.stage = Stage::AwaitModified(agreed, Box::new(change));
                self.begin_change(turn, id, call, ask);
            }
            Err(refusal) => {
                self.refuse_reinvite(id, refusal);
                call.stage = Stage::Established(agreed);
                self.keep(id, call);
            }
        }
    }

    /// Carries out the change that `call.stage` holds.
    pub(super) fn change(&mut self, now: Now, id: CallId, call: Call) {
        let Stage::AwaitModified(_, change) = &call.stage else {
            unreachable!("the caller made it so");
        };
        if change.replacement.is_some() {
            self.replace_session(now, id, call);
        } else if change.update.is_some() {
            self.announce_key(now, id, call);
        } else {
            self.modify(now, id, call);
        }
    }

    /// Asks the shard where the change concerns it, else agrees at once.
    pub(super) fn modify(&mut self, now: Now, id: CallId, call: Call) {
        let Stage::AwaitModified(_, change) = &call.stage else {
            unreachable!("the caller made it so");
        };
        let Some((direction, remote)) = call.agreed().difference(&change.negotiation) else {
            return self.modified(now, id, call);
        };
        let termination = call.termination;
        let modify = mp::Modify { termination, direction, muted: call.muted, remote, psk: None };
        let command = mp::Command::Modify(Box::new(modify));
        self.actions.push_back(Action::Command { shard: call.shard, command });
        self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
        self.keep(id, call);
    }

    pub(super) fn modified(&mut self, now: Now, id: CallId, mut call: Call) {
        if matches!(call.stage, Stage::Rekeying(..)) {
            return self.rekeying_modified(now, id, call);
        }
        let Stage::AwaitModified(mut agreed, mut change) = call.stage else {
            self.keep(id, call);
            return;
        };
        if let Some(update) = change.update.as_mut().filter(|update| !update.announced) {
            // Of what else has changed the shard is told now.
            update.announced = true;
            call.stage = Stage::AwaitModified(agreed, change);
            return self.modify(now, id, call);
        }
        if let Some(floor) = change.floor.take() {
            call.stage = Stage::AwaitModified(agreed, change);
            return self.change_floor(now, id, call, floor);
        }
        self.timers.clear(Timer::Call(id));
        let Change { negotiation, mut description, purpose, update, .. } = *change;
        match purpose {
            Purpose::Reinvite => {}
            Purpose::Mute(muted) => {
                call.muted = muted;
                call.stage = Stage::Established(agreed);
                return self.keep(id, call);
            }
            Purpose::Answer => {
                let description = &mut agreed.description;
                self.describe_floor(&call.room, call.floor.as_deref(), description);
                call.negotiation = Some(negotiation);
                call.stage = Stage::Established(agreed);
                return self.keep(id, call);
            }
        }
        if let Some(update) = update {
            call.bundle = Some(update.bundle);
            self.counters.rekeyings_taken += 1;
        }
        self.describe_floor(&call.room, call.floor.as_deref(), &mut description);
        let version = next_version(&agreed, description != agreed.description);
        let sdp = description.to_bytes(version);
        agreed.description = description;
        agreed.version = version;
        call.negotiation = Some(negotiation);
        call.stage = Stage::Established(agreed);
        self.counters.reinvites_accepted += 1;
        self.answer(id, Answer::Accepted { sdp });
        self.keep(id, call);
    }

    pub(super) fn refuse_reinvite(&mut self, id: CallId, refusal: Refusal) {
        count(&mut self.counters.reinvites_refused, refusal.status());
        self.answer(id, refusal.into());
    }
}

/// RFC 3264 section 8: the version goes up by one if the description changed, else it stays.
fn next_version(agreed: &Agreed, changed: bool) -> u64 {
    agreed.version + u64::from(changed)
}
