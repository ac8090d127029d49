//! Sessions that begin with an offer of ours: calls that the focus makes (RFC 4579 section 5.5), and
//! INVITEs without an offer, whose 200 carries ours and whose ACK the answer (RFC 3261 section
//! 13.2.1).

use std::net::SocketAddr;

use mrfp_core::mp::{self, Direction};

use super::call::{Agreed, Bearer, Call, Offered, Stage};
use super::conference_state::{Disconnection, Joining};
use super::config::SHARD_TIMEOUT_NS;
use super::counters::{HangUpCause, count};
use super::engine::{Now, Turn, random_sdp_session_id};
use super::media_plane::SDP_VERSION_FIRST;
use super::offers::{Change, Negotiation, Purpose};
use super::timers::Timer;
use super::{Action, Answer, CallId, Mrfc};
use crate::sdp::Offering;

impl Mrfc {
    /// The shard listens: our offer goes out.
    pub(super) fn offer(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        mut call: Call,
        address: SocketAddr,
    ) {
        let Stage::AwaitReserved(reservation) = call.stage else {
            unreachable!("the shard has reserved");
        };
        let offering = Offering {
            sdp_session_id: random_sdp_session_id(turn.random),
            address,
            msrp_session_id: reservation.session_id,
            capabilities: self.config.rooms.chat(&call.room).capabilities_offered(),
            direction: Direction::SendRecv,
            cema: self.config.cema,
            file: None,
        };
        let description = offering.description();
        let sdp = description.to_bytes(SDP_VERSION_FIRST);
        let offered = Offered { offering, description, alerting: false };
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
        let Stage::AwaitAnswer(offered) = call.stage else {
            // The ACK of an INVITE with an offer.
            return self.keep(id, call);
        };
        self.timers.clear(Timer::Call(id));
        match offered.offering.answered(sdp.unwrap_or_default()) {
            Ok(answered) => {
                let remote = mp::Remote {
                    path: answered.message.path.clone(),
                    setup: answered.setup,
                    capabilities: Some(mp::Capabilities {
                        accept_types: answered.message.accept_types.clone(),
                        accept_wrapped_types: answered.message.accept_wrapped_types.clone(),
                        max_size_bytes: answered.message.max_size_bytes,
                        private_messages: answered.message.private_messages(),
                    }),
                };
                let negotiation = Negotiation::answered(&offered.offering, answered);
                let modify = mp::Modify {
                    termination: call.termination,
                    direction: negotiation.message.direction,
                    muted: call.muted,
                    remote: Some(remote),
                    psk: None,
                };
                let command = mp::Command::Modify(Box::new(modify));
                self.actions.push_back(Action::Command { shard: call.shard, command });
                self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
                let agreed = Agreed {
                    description: offered.description.clone(),
                    version: SDP_VERSION_FIRST,
                    bearer: Bearer::Awaited,
                };
                call.negotiation = Some(negotiation.clone());
                let description = offered.description;
                let purpose = Purpose::Answer;
                let change = Change { negotiation, description, purpose, replacement: None };
                call.stage = Stage::AwaitModified(Box::new(agreed), Box::new(change));
                self.keep(id, call);
                self.refer_progress(id, 200);
            }
            Err(error) => {
                tracing::debug!(%error, "the answer leads to no session");
                call.stage = Stage::AwaitAnswer(offered);
                self.refer_progress(id, 488);
                self.end_answered(now, id, &call, HangUpCause::AnswerUnusable);
            }
        }
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
