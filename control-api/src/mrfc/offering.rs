//! Sessions that begin with an offer of ours: calls that the focus makes (RFC 4579 section 5.5), and
//! INVITEs without an offer, whose 200 carries ours and whose ACK the answer (RFC 3261 section
//! 13.2.1).

use mrfp_core::Psk;
use mrfp_core::mp::{self, Direction};

use super::call::{Agreed, Bearer, Call, Offered, Reservation, Stage};
use super::conference_state::{Disconnection, Joining};
use super::config::SHARD_TIMEOUT_NS;
use super::counters::{HangUpCause, count};
use super::engine::{Now, Turn, random_sdp_session_id};
use super::floor_session::{FloorChange, FloorSession};
use super::media_plane::SDP_VERSION_FIRST;
use super::offers::{Change, Negotiation, Purpose};
use super::timers::Timer;
use super::{Action, Answer, CallId, Mrfc};
use crate::mikey::Established;
use crate::sdp::{AnswerError, Answered, KeyManagement, Offering};

impl Mrfc {
    /// The shard listens: our offer goes out.
    pub(super) fn offer(&mut self, turn: &mut Turn<'_>, id: CallId, mut call: Call) {
        let floor = self.local_floor(&call).map(Box::new);
        let label = floor.as_ref().and_then(|_| self.message_label(&call.room)).map(str::to_owned);
        let Stage::AwaitReserved(reservation) = call.stage else {
            unreachable!("the shard has reserved");
        };
        let Reservation { session_id, keys, address, .. } = *reservation;
        let transfer = keys.into_transfer();
        let offering = Offering {
            sdp_session_id: random_sdp_session_id(turn.random),
            address: address.expect("the shard has answered"),
            msrp_session_id: session_id,
            key_management: transfer.as_ref().map(|transfer| transfer.message().to_owned()),
            capabilities: self.config.rooms.chat(&call.room).capabilities_offered(),
            direction: Direction::SendRecv,
            cema: self.config.cema,
            file: None,
            label,
            floor,
        };
        let description = offering.description();
        let sdp = description.to_bytes(SDP_VERSION_FIRST);
        let offered = Offered { offering, description, transfer, alerting: false };
        call.stage = Stage::AwaitAnswer(Box::new(offered));
        match call.joining {
            Joining::DialedIn => {
                self.counters.calls_accepted += 1;
                self.answer(id, Answer::Accepted { sdp });
            }
            Joining::DialedOut => {
                self.counters.calls_dialled += 1;
                let deadline_ns = turn.now.monotonic_ns + DIAL_TIMEOUT_NS;
                self.timers.set(Timer::Call(id), deadline_ns);
                self.actions.push_back(Action::Dial {
                    call: id,
                    target: call.target.clone().unwrap_or_else(|| call.caller.uri.clone()),
                    room: call.room.clone(),
                    uri: self.rooms.get(&call.room).expect("a call's room exists").uri.clone(),
                    referred_by: call.referred_by.clone(),
                    sdp,
                });
            }
        }
        self.keep(id, call);
    }

    /// It rings at whom we call.
    pub(super) fn ringing(&mut self, id: CallId) {
        let Some(mut call) = self.calls.remove(&id) else {
            return;
        };
        if let Stage::AwaitAnswer(offered) = &mut call.stage {
            offered.alerting = true;
        }
        self.keep(id, call);
        self.refer_progress(id, 180);
    }

    /// The answer to our offer, in a 200 or in an ACK; the dialog stands, whatever it says.
    pub(super) fn answered(&mut self, now: Now, id: CallId, sdp: Option<&[u8]>) {
        let Some(mut call) = self.calls.remove(&id) else {
            return;
        };
        let Stage::AwaitAnswer(mut offered) = call.stage else {
            // The ACK of an INVITE with an offer.
            return self.keep(id, call);
        };
        self.timers.clear(Timer::Call(id));
        self.dials.remove(id);
        match self.take_answers(now, &mut call.floor, &mut offered, sdp.unwrap_or_default()) {
            Ok((answered, established, floor)) => {
                let (psk, bundle) = established.map(|it| (it.psk, Box::new(it.bundle))).unzip();
                call.bundle = bundle;
                let Offered { offering, description, .. } = *offered;
                let negotiation = Negotiation::answered(&offering, answered);
                let agreed = Agreed {
                    description: description.clone(),
                    version: SDP_VERSION_FIRST,
                    bearer: Bearer::Awaited,
                };
                call.negotiation = Some(negotiation.clone());
                let purpose = Purpose::Answer;
                let change = Change { floor, ..Change::to(negotiation, description, purpose) };
                call.stage = Stage::AwaitModified(Box::new(agreed), Box::new(change));
                self.configure(now, id, call, psk);
            }
            Err(cause) => {
                call.stage = Stage::AwaitAnswer(offered);
                self.refer_progress(id, 488);
                self.end_answered(now, id, &call, cause);
            }
        }
    }

    /// Reads the answer to an offer of ours, with what it makes of the floor stream.
    fn take_answers(
        &mut self,
        now: Now,
        floor: &mut Option<Box<FloorSession>>,
        offered: &mut Offered,
        sdp: &[u8],
    ) -> Result<(Answered, Option<Established>, Option<FloorChange>), HangUpCause> {
        let (mut answered, established) = self.take_answer(now, offered, sdp)?;
        let floor = self.take_floor_answer(now, floor, answered.floor.take())?;
        Ok((answered, established, floor))
    }

    /// Reads the answer to an offer of ours, and checks the responder before the key is used
    /// (TS 23.333 clause 5.20.2).
    fn take_answer(
        &mut self,
        now: Now,
        offered: &mut Offered,
        sdp: &[u8],
    ) -> Result<(Answered, Option<Established>), HangUpCause> {
        let answered = offered.offering.answered(sdp).map_err(|error| {
            tracing::debug!(%error, "the answer leads to no session");
            match error {
                AnswerError::KeyManagement => HangUpCause::KeyManagement,
                _ => HangUpCause::AnswerUnusable,
            }
        })?;
        let Some(mut transfer) = offered.transfer.take() else { return Ok((answered, None)) };
        let message = answered.message.key_management.as_ref().and_then(KeyManagement::mikey);
        let message = message.expect("an answer without MIKEY is not taken");
        let ticket = transfer.take_ticket();
        match transfer.finish(message, now.ntp) {
            Ok(established) => {
                self.keep_ticket(ticket, now.ntp);
                Ok((answered, Some(established)))
            }
            Err(failure) => Err(self.answer_failure(&failure)),
        }
    }

    /// Tells the shard of the peer's end, and of the key.
    fn configure(&mut self, now: Now, id: CallId, call: Call, psk: Option<Psk>) {
        let modify = mp::Modify {
            termination: call.termination,
            direction: call.agreed().message.direction,
            muted: call.muted,
            remote: Some(call.agreed().remote()),
            psk,
        };
        let command = mp::Command::Modify(Box::new(modify));
        self.actions.push_back(Action::Command { shard: call.shard, command });
        self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
        self.keep(id, call);
        self.refer_progress(id, 200);
    }

    /// Whom we called did not come, and why.
    pub(super) fn dial_failed(&mut self, now: Now, id: CallId, status: u16) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        count(&mut self.counters.dials_failed, status);
        let how = match status {
            486 | 600 => Disconnection::Busy,
            _ => Disconnection::Failed,
        };
        self.refer_progress(id, status);
        self.release(now, id, &call, how);
    }
}

/// How long we let it ring: less than the three minutes after which a proxy gives up (RFC 3261
/// section 16.6, timer C).
pub const DIAL_TIMEOUT_NS: u64 = 120_000_000_000;
