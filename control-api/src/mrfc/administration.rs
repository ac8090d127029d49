//! What an operator does to a room and its members.

use mrfp_core::mp;

use super::admission::Refusal;
use super::call::Stage;
use super::config::SHARD_TIMEOUT_NS;
use super::counters::HangUpCause;
use super::engine::{Now, Turn};
use super::offers::{Change, Purpose};
use super::timers::Timer;
use super::{Action, CallId, Mrfc};

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Administration {
    /// A member is thrown out.
    Kick(CallId),
    /// What a member sends is passed on no more, or again.
    Mute {
        /// Which.
        call: CallId,
        /// No more.
        muted: bool,
    },
    /// The session of a member gets another key.
    Rekey(CallId),
    /// Nobody may come in, or everybody again.
    Lock(bool),
}

/// Why it is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdministrationError {
    /// There is no such room, or the call is not in it.
    NotFound,
    /// The member's session is changing just now; the same may succeed in a moment.
    Busy,
    /// The session has no key of MIKEY that could be renewed.
    NotKeyed,
}

impl Mrfc {
    /// Does something to a room. `random` as for [`Self::handle`].
    ///
    /// # Errors
    /// It is not there, or cannot be changed now.
    pub fn administer(
        &mut self,
        now: Now,
        random: &mut dyn FnMut(&mut [u8]),
        room: &str,
        administration: Administration,
    ) -> Result<(), AdministrationError> {
        let outcome = match administration {
            Administration::Kick(call) => self.kick(now, room, call),
            Administration::Mute { call, muted } => self.mute(now, room, call, muted),
            Administration::Rekey(call) => self.in_room(room, call).and_then(|()| {
                let mut turn = Turn { now, random };
                self.rekey(&mut turn, call)
            }),
            Administration::Lock(locked) => self.lock(room, locked),
        };
        self.settle(now);
        self.check_drained();
        outcome
    }

    fn in_room(&self, room: &str, id: CallId) -> Result<(), AdministrationError> {
        let call = self.calls.get(&id).filter(|call| call.room == room);
        call.map(|_| ()).ok_or(AdministrationError::NotFound)
    }

    fn kick(&mut self, now: Now, room: &str, id: CallId) -> Result<(), AdministrationError> {
        self.in_room(room, id)?;
        let call = self.calls.remove(&id).expect("just seen");
        let refusal = Refusal::with_text(403, "Thrown out by the operator");
        self.end(now, id, call, &refusal, HangUpCause::Kicked);
        Ok(())
    }

    fn mute(
        &mut self,
        now: Now,
        room: &str,
        id: CallId,
        muted: bool,
    ) -> Result<(), AdministrationError> {
        self.in_room(room, id)?;
        let mut call = self.calls.remove(&id).expect("just seen");
        let Stage::Established(agreed) = call.stage else {
            self.calls.insert(id, call);
            return Err(AdministrationError::Busy);
        };
        if call.muted == muted {
            call.stage = Stage::Established(agreed);
            self.calls.insert(id, call);
            return Ok(());
        }
        let negotiation = call.negotiation.clone().expect("an answer has come");
        let modify = mp::Modify {
            termination: call.termination,
            direction: negotiation.message.direction,
            muted,
            remote: None,
            psk: None,
        };
        let command = mp::Command::Modify(Box::new(modify));
        self.actions.push_back(Action::Command { shard: call.shard, command });
        self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
        let description = agreed.description.clone();
        let change = Change::to(negotiation, description, Purpose::Mute(muted));
        call.stage = Stage::AwaitModified(agreed, Box::new(change));
        self.calls.insert(id, call);
        Ok(())
    }

    fn lock(&mut self, room: &str, locked: bool) -> Result<(), AdministrationError> {
        let room = self.rooms.get_mut(room).ok_or(AdministrationError::NotFound)?;
        room.locked = locked;
        let context = room.context;
        self.room_locked(context, locked);
        Ok(())
    }
}
