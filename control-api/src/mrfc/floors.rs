//! Floor control in calls (TS 23.333 clause 5.20.4): a BFCP stream beside the message stream, in its own
//! Termination of the same Context.
//!
//! The message stream comes first in every exchange, and the floor stream before the answer. It never
//! ends a call: one that the shard has no place for is answered with port 0, and one that does not come up
//! or is lost waits for the client's next offer, while the server keeps its user's requests and floors
//! (RFC 8856 section 7.1). A key that fails is another matter: then the offer is refused.

use std::net::SocketAddr;

use mrfp_core::mp;

use super::admission::Refusal;
use super::call::{Call, Stage};
use super::conference_state::Joining;
use super::config::{FloorsPolicy, SHARD_TIMEOUT_NS};
use super::counters::{HangUpCause, count};
use super::engine::{Now, Turn};
use super::floor_session::{
    FloorAsked, FloorChange, FloorPlace, FloorSession, describe, describe_none,
};
use super::keying::{Keying, Question, SessionKeys};
use super::keys::Parties;
use super::offers::Negotiation;
use super::timers::Timer;
use super::{Action, CallId, Mrfc};
use crate::sdp::{
    ConnectionReuse, FloorDescription, KeyManagement, LocalDescription, LocalFloor, Unservable,
};

impl Mrfc {
    /// The floor stream that a call begins with: the one offered, or one to offer.
    pub(super) fn first_floor(
        &self,
        room: &str,
        negotiation: Option<&mut Negotiation>,
        secure: bool,
    ) -> Option<Box<FloorSession>> {
        let floor = match negotiation {
            Some(negotiation) => {
                let (index, peer) = negotiation.floor.take()?;
                if peer.is_unproved() {
                    return None;
                }
                FloorSession::offered(index, peer, &self.config)
            }
            None => {
                self.config.rooms.chat(room).floors.as_ref()?;
                FloorSession::offering(1, secure)
            }
        };
        Some(Box::new(floor))
    }

    /// How the floor stream comes to its key, once the message stream has its own.
    pub(super) fn key_first_floor(
        &mut self,
        turn: &mut Turn<'_>,
        call: &mut Call,
    ) -> Result<Keying, Refusal> {
        if let (Stage::AwaitReserved(reservation), Joining::DialedOut) =
            (&mut call.stage, call.joining)
        {
            let keys = reservation.keys.take_floor();
            let keyless = matches!(keys, SessionKeys::None);
            if keyless && call.floor.as_ref().is_some_and(|floor| floor.is_secure()) {
                // The ticket was good for one stream.
                self.counters.floor_streams_refused += 1;
                call.floor = None;
            }
            return Ok(Keying::Ready(keys));
        }
        let peer = call.floor.as_ref().and_then(|floor| floor.peer.as_deref());
        self.key_floor(turn, call, peer)
    }

    fn key_floor(
        &mut self,
        turn: &mut Turn<'_>,
        call: &Call,
        peer: Option<&FloorDescription>,
    ) -> Result<Keying, Refusal> {
        let parties = Parties { caller: &call.caller.uri, called: &call.called };
        let offered = peer.and_then(|peer| peer.key_management.as_ref());
        self.respond(turn, &parties, offered)
    }

    /// What a later offer makes of the floor stream, and what the KMS is to be asked about that.
    pub(super) fn take_floor_change(
        &mut self,
        turn: &mut Turn<'_>,
        call: &mut Call,
        next: &mut Negotiation,
    ) -> Result<(Option<FloorChange>, Option<Question>), Refusal> {
        let repeated = call.agreed().is_repeated_by(next);
        let (index, peer) = match (&mut call.floor, next.floor.take()) {
            (None, None) => return Ok((None, None)),
            // It was refused, and nothing has changed.
            (None, Some(_)) if repeated => return Ok((None, None)),
            (Some(_), None) => return Ok((Some(FloorChange::End), None)),
            (Some(floor), Some((index, peer)))
                if floor.index == index && floor.goes_on(&peer, repeated) =>
            {
                if peer.connection == ConnectionReuse::Existing || !repeated {
                    floor.connection = ConnectionReuse::Existing;
                }
                return Ok((None, None));
            }
            (_, Some(offered)) => offered,
        };
        let certificate_missing = peer.needs_certificate() && self.config.certificate.is_none();
        if certificate_missing || peer.is_unproved() {
            return Ok((call.floor.is_some().then_some(FloorChange::End), None));
        }
        let keying = self.key_floor(turn, call, Some(&peer))?;
        let mut floor = FloorSession::offered(index, peer, &self.config);
        let asked = match keying {
            Keying::Ready(keys) => {
                floor.set_keys(keys);
                None
            }
            Keying::Ask { asked, message } => Some((asked, message)),
        };
        Ok((Some(FloorChange::Renewed(Box::new(floor))), asked))
    }

    /// What the answer to an offer of ours makes of the floor stream.
    pub(super) fn take_floor_answer(
        &mut self,
        now: Now,
        floor: &mut Option<Box<FloorSession>>,
        answered: Option<Result<Box<FloorDescription>, Unservable>>,
    ) -> Result<Option<FloorChange>, HangUpCause> {
        let (Some(floor), Some(answered)) = (floor, answered) else { return Ok(None) };
        let peer = match answered {
            Ok(peer) => peer,
            Err(reason) => {
                tracing::debug!(?reason, "the answer leads to no floor stream");
                return Ok(Some(FloorChange::End));
            }
        };
        let SessionKeys::Offered(transfer) = floor.keys.take() else {
            return Ok(Some(FloorChange::Answered { peer, psk: None }));
        };
        let response = peer.key_management.as_ref().and_then(KeyManagement::mikey);
        let established = transfer.finish(response.ok_or(HangUpCause::KeyManagement)?, now.ntp);
        let established = established.map_err(|failure| self.answer_failure(&failure))?;
        Ok(Some(FloorChange::Answered { peer, psk: Some(established.psk) }))
    }

    /// Carries out what is to become of the floor stream of a call that is changing.
    pub(super) fn change_floor(&mut self, now: Now, id: CallId, mut call: Call, to: FloorChange) {
        match to {
            FloorChange::End => self.subtract_floor(now, &mut call),
            FloorChange::Renewed(mut floor) => {
                let before = call.floor.as_ref().filter(|before| before.index == floor.index);
                floor.place = before.and_then(|before| before.place);
                if floor.place.is_none() {
                    self.subtract_floor(now, &mut call);
                }
                call.floor = Some(floor);
                if self.ask_for_floor(now, id, &mut call) {
                    return self.keep(id, call);
                }
                self.refuse_floor(now, &mut call);
            }
            FloorChange::Answered { peer, psk } => {
                let floor = call.floor.as_mut().expect("it was offered");
                floor.peer = Some(peer);
                floor.asked = Some(FloorAsked::Modify);
                let place = floor.place.as_ref().expect("the shard has it");
                let modify = mp::ModifyFloorControl {
                    termination: place.termination,
                    transport: floor.transport(),
                    psk,
                };
                let command = mp::Command::ModifyFloorControl(Box::new(modify));
                self.actions.push_back(Action::Command { shard: call.shard, command });
                self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
                return self.keep(id, call);
            }
        }
        self.modified(now, id, call);
    }

    /// Asks the shard for the floor stream of a call, or for another connection of it. Where the
    /// conference has no number left for a user the call goes without: `false`.
    pub(super) fn ask_for_floor(&mut self, now: Now, id: CallId, call: &mut Call) -> bool {
        let Some(floor) = &mut call.floor else { return false };
        let command = match floor.place {
            Some(place) => {
                floor.asked = Some(FloorAsked::Replace);
                mp::Command::ReplaceFloorControl(Box::new(mp::ReplaceFloorControl {
                    termination: place.termination,
                    stream: floor.stream(),
                    unanswered: floor.peer.is_none(),
                    own_port: floor.own_port,
                }))
            }
            None => {
                let Some(user_id) = self.rooms.take_floor_user(&call.room) else {
                    return false;
                };
                self.last_id += 1;
                let termination = mp::TerminationId(self.last_id);
                floor.place = Some(FloorPlace { termination, user_id, address: None });
                floor.asked = Some(FloorAsked::Reserve);
                self.shards.add_termination(call.shard);
                self.by_termination.insert(termination, id);
                self.reservation_of_floor(call)
            }
        };
        self.actions.push_back(Action::Command { shard: call.shard, command });
        self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
        true
    }

    fn reservation_of_floor(&self, call: &Call) -> mp::Command {
        let floor = call.floor.as_ref().expect("the caller has it");
        let place = floor.place.as_ref().expect("the caller made it so");
        let shown = call.caller.display_name.clone().filter(|_| !call.caller.anonymous);
        mp::Command::ReserveFloorControl(Box::new(mp::ReserveFloorControl {
            context: call.context,
            termination: place.termination,
            stream: floor.stream(),
            unanswered: floor.peer.is_none(),
            user_id: place.user_id,
            display_name: shown.unwrap_or_default(),
            uri: call.entity.clone(),
            speaks_by: Some(call.termination),
            realm: self.realm(&call.caller),
            own_port: floor.own_port,
        }))
    }

    /// What a shard tells of a floor stream.
    pub(super) fn floor_event(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        call: Call,
        event: mp::Event,
    ) {
        match event {
            mp::Event::Reserved { address, .. } => self.floor_reserved(turn, id, call, address),
            mp::Event::Refused { reason, .. } => self.floor_refused(turn, id, call, reason),
            mp::Event::Modified { .. } => self.floor_settled(turn, id, call),
            mp::Event::BearerReleased { cause, .. } => {
                tracing::debug!(?cause, "a floor stream is lost");
                count(&mut self.counters.floor_streams_lost, cause);
                self.keep(id, call);
            }
            _ => self.keep(id, call),
        }
    }

    fn floor_reserved(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        mut call: Call,
        mut address: SocketAddr,
    ) {
        if address.ip().is_unspecified() {
            address.set_ip(self.shards.description(call.shard).address.ip());
        }
        let floor = call.floor.as_mut().expect("the event is about it");
        floor.forget_key();
        floor.place.as_mut().expect("it was asked for").address = Some(address);
        if floor.asked == Some(FloorAsked::Reserve) {
            self.counters.floor_streams_reserved += 1;
        }
        self.floor_settled(turn, id, call);
    }

    /// The shard has done what it was asked.
    fn floor_settled(&mut self, turn: &mut Turn<'_>, id: CallId, mut call: Call) {
        match call.floor.as_mut().and_then(|floor| floor.asked.take()) {
            Some(_) => self.go_on(turn, id, call),
            None => self.keep(id, call),
        }
    }

    /// What has waited for the floor stream goes on.
    fn go_on(&mut self, turn: &mut Turn<'_>, id: CallId, call: Call) {
        match call.stage {
            Stage::AwaitReserved(_) => self.streams_reserved(turn, id, call),
            Stage::AwaitModified(..) => self.modified(turn.now, id, call),
            Stage::AwaitKms { .. }
            | Stage::AwaitAnswer(_)
            | Stage::Established(_)
            | Stage::Rekeying(..) => self.keep(id, call),
        }
    }

    /// The shard has no place for the floor stream: the call goes on without.
    fn floor_refused(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        mut call: Call,
        reason: mp::Refusal,
    ) {
        let floor = call.floor.as_mut().expect("the event is about it");
        let Some(asked) = floor.asked.take() else { return self.keep(id, call) };
        if asked == FloorAsked::Reserve {
            // Nothing is left of it there.
            let place = floor.place.take().expect("it was asked for");
            self.by_termination.remove(&place.termination);
            self.shards.remove_termination(call.shard);
            self.rooms.free_floor_user(&call.room, place.user_id);
        }
        // As with a message stream: on a port of its own any identity is accepted.
        let elsewhere = reason == mp::Refusal::IdentityInUse && !floor.own_port;
        floor.own_port |= elsewhere;
        if elsewhere && asked != FloorAsked::Modify && self.ask_for_floor(turn.now, id, &mut call) {
            return self.keep(id, call);
        }
        tracing::debug!(?reason, "the shard has no place for a floor stream");
        self.refuse_floor(turn.now, &mut call);
        self.go_on(turn, id, call);
    }

    /// The floor stream is answered with port 0.
    pub(super) fn refuse_floor(&mut self, now: Now, call: &mut Call) {
        self.counters.floor_streams_refused += 1;
        self.subtract_floor(now, call);
    }

    /// A call goes on without its floor stream.
    fn subtract_floor(&mut self, now: Now, call: &mut Call) {
        self.give_back_floor(now, call);
        call.floor = None;
    }

    /// Gives back what the floor stream of a call holds, as with the call itself.
    pub(super) fn give_back_floor(&mut self, now: Now, call: &Call) {
        let Some(place) = call.floor.as_ref().and_then(|floor| floor.place) else { return };
        self.rooms.free_floor_user(&call.room, place.user_id);
        self.by_termination.remove(&place.termination);
        self.subtract(now, call.shard, place.termination);
    }

    /// Our line for the floor stream of a call; `None` where it has none.
    pub(super) fn local_floor(&self, call: &Call) -> Option<LocalFloor> {
        let (policy, conference_id) = self.floors(&call.room)?;
        Some(call.floor.as_ref()?.local(policy, conference_id))
    }

    /// Puts the floor stream of a call into our description of the call, or takes it out.
    pub(super) fn describe_floor(
        &self,
        room: &str,
        floor: Option<&FloorSession>,
        description: &mut LocalDescription,
    ) {
        let (Some(floor), Some((policy, conference_id))) = (floor, self.floors(room)) else {
            return describe_none(description);
        };
        let line = floor.local(policy, conference_id);
        describe(description, floor.index, line, policy.message_label());
    }

    /// The same in an offer of ours that is about other things.
    pub(super) fn describe_floor_again(&self, call: &Call, description: &mut LocalDescription) {
        let floors = self.floors(&call.room);
        let (Some(floor), Some((policy, conference_id))) = (&call.floor, floors) else { return };
        let line = floor.local_again(policy, conference_id);
        describe(description, floor.index, line, policy.message_label());
    }

    /// `a=label` of the messages of a room, where a floor is for them.
    pub(super) fn message_label(&self, room: &str) -> Option<&str> {
        self.config.rooms.chat(room).floors.as_ref()?.message_label()
    }

    /// The floors of a room, and the number of its conference.
    fn floors(&self, room: &str) -> Option<(&FloorsPolicy, u32)> {
        let policy = self.config.rooms.chat(room).floors.as_ref()?;
        Some((policy, self.rooms.get(room)?.conference_id()?))
    }

    /// The floors of a room as its shard is told of them. The shard may make the room's Context more than
    /// once, where whoever it was made for leaves while others are on their way in.
    pub(super) fn floor_control(&self, room: &str) -> Option<mp::FloorControl> {
        let (policy, conference_id) = self.floors(room)?;
        let control = policy.control(conference_id);
        let moderated = self.rooms.get(room)?.moderated.unwrap_or(control.moderated);
        Some(mp::FloorControl { moderated, ..control })
    }

    /// Gives the conference of a room its number, where it has floors and none yet.
    pub(super) fn open_floors(&mut self, turn: &mut Turn<'_>, room: &str) {
        if self.config.rooms.chat(room).floors.is_some() {
            let mut number = [0; 4];
            (turn.random)(&mut number);
            self.rooms.open_floors(room, u32::from_be_bytes(number));
        }
    }
}
