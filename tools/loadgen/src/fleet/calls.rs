//! What becomes of each call.

use std::time::Instant;

use super::{Fleet, Phase, SessionState};
use crate::cli::{Run, Target};
use crate::expectation::Violation;
use crate::media::Thread;
use crate::media::worker::{Command, Connect, Event as MediaEvent};
use crate::scenario::Scenario;
use crate::security::Protection;
use crate::signalling::{Event as CallEvent, Invite, place_of, sdp};
use crate::wire::{Invitation, Stream};

impl Fleet<'_> {
    pub(super) fn call(&mut self, number: u32, now: Instant) {
        let session = &mut self.sessions[number as usize];
        let from = self.scenario.ue_uri(number);
        let to = self.scenario.room_uri(self.options, session.place.room);
        let (mut transfer_init, mut floor_init) = (None, None);
        if let Some(credential) = &self.credential {
            let floors = self.lobby.is_some().then(|| credential.begin(&from, &to)).transpose();
            match credential.begin(&from, &to).and_then(|messages| Ok((messages, floors?))) {
                Ok(((exchange, message), floors)) => {
                    session.exchange = Some(exchange);
                    transfer_init = Some(message);
                    (session.floor_exchange, floor_init) = floors.unzip();
                }
                Err(error) => {
                    session.state = SessionState::Over;
                    self.violations.add(Violation::AnswerUnusable, || {
                        format!("session {number}: own key exchange: {error}")
                    });
                    self.over += 1;
                    return self.settle(number);
                }
            }
        }
        let secure = self.profile.is_some();
        let session_id = session_id();
        let local_ip = self.transport.local_address(number).ip();
        session.local_path = sdp::local_path(local_ip, &session_id, secure);
        session.state = SessionState::Called;
        session.invited = now;
        let sdp = if self.lobby.is_some() {
            let inits = transfer_init.as_deref().zip(floor_init.as_deref());
            sdp::offer_with_floors(local_ip, &session_id, secure, inits)
        } else {
            sdp::offer(local_ip, &session_id, secure, transfer_init.as_deref())
        };
        self.calls.attempted += 1;
        self.agents.invite(number, Invite { from, to, sdp }, now);
    }

    pub(super) fn call_event(&mut self, event: CallEvent, now: Instant) {
        match event {
            CallEvent::Answered { call, sdp } => self.answered(call, &sdp, now),
            // Of a fleet everybody is needed; calls without end may be more than there is room for.
            CallEvent::Refused { call, shed: true, .. } if self.scenario.churn.is_some() => {
                self.calls.shed += 1;
                self.call_over(call);
                self.settle(call);
            }
            CallEvent::Refused { call, status, warning, .. } => {
                *self.calls.refused_by_status.entry(status).or_default() += 1;
                self.violations.add(Violation::CallRefused, || {
                    let room = self.sessions[call as usize].place.room;
                    let to = self.scenario.room_uri(self.options, room);
                    let warning = if warning.is_empty() { "" } else { &format!(", {warning}") };
                    format!("session {call}: {to} answered {status}{warning}")
                });
                self.call_over(call);
                self.settle(call);
            }
            CallEvent::Unanswered { call } => {
                self.violations.add(Violation::CallUnanswered, || {
                    format!("session {call}: no final answer to INVITE")
                });
                self.call_over(call);
                self.settle(call);
            }
            CallEvent::HungUp { call, reason } => {
                self.violations.add(Violation::HungUp, || {
                    format!("session {call}: BYE from the node, Reason: {reason}")
                });
                self.thread(call).command(Command::Close { session: call });
                self.left(call);
                self.call_over(call);
                self.settle(call);
            }
            CallEvent::Ended { call, status } => {
                let cancelled = status == 487;
                if (200..300).contains(&status) {
                    self.calls.ended += 1;
                    if let Some(ended) = self.sessions[call as usize].ended {
                        let latency = (now - ended).as_nanos() as u64;
                        self.ending_latency.saturating_record(latency);
                    }
                } else if !cancelled {
                    self.violations.add(Violation::ByeRefused, || {
                        format!("session {call}: BYE answered {status}")
                    });
                }
                self.thread(call).command(Command::Close { session: call });
                self.left(call);
                self.call_over(call);
            }
            CallEvent::EndUnanswered { call } => {
                self.violations.add(Violation::ByeUnanswered, || {
                    format!("session {call}: no answer to BYE or CANCEL")
                });
                self.thread(call).command(Command::Close { session: call });
                self.call_over(call);
            }
        }
    }

    pub(super) fn answered(&mut self, call: u32, sdp: &[u8], now: Instant) {
        let secure = self.profile.is_some();
        let session = &mut self.sessions[call as usize];
        self.calls.answered += 1;
        let latency = (now - session.invited).as_nanos() as u64;
        self.setup_latency.saturating_record(latency);
        let answer = match sdp::answer(sdp, secure) {
            Ok(answer) => answer,
            Err(error) => return self.unusable(call, &format!("{error:?}")),
        };
        let protection = match (session.exchange.take(), &answer.transfer_response) {
            (Some(exchange), Some(response)) => match exchange.finish(response) {
                Ok((identity, psk)) => Protection::Psk(identity, psk),
                Err(error) => return self.unusable(call, &error),
            },
            (Some(_), None) => return self.unusable(call, "a key exchange without an answer"),
            (None, _) if secure => {
                Protection::Certificate(answer.fingerprint.into_iter().collect())
            }
            (None, _) => Protection::Plain,
        };
        if matches!(&protection, Protection::Certificate(fingerprints) if fingerprints.is_empty()) {
            return self.unusable(call, "no a=fingerprint");
        }
        if self.lobby.is_some()
            && let Err(why) = self.announce(call, sdp)
        {
            return self.unusable(call, &format!("floor control: {why}"));
        }
        let session = &self.sessions[call as usize];
        let connect = Connect {
            session: call,
            room: session.place.room,
            address: answer.address,
            source: place_of(call, self.sources.len()).map(|place| self.sources[place]),
            remote_path: answer.path,
            local_path: session.local_path.clone(),
            from: self.scenario.ue_uri(call),
            to: self.scenario.room_uri(self.options, session.place.room),
            protection,
        };
        self.thread(call).command(Command::Connect(Box::new(connect)));
    }

    /// Lets the participant of a call in, where its answer says.
    fn announce(&mut self, call: u32, sdp: &[u8]) -> Result<(), String> {
        let session = &mut self.sessions[call as usize];
        let answer = sdp::floor_answer(sdp, self.profile.is_some());
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let psk = match (session.floor_exchange.take(), &answer.transfer_response) {
            (Some(exchange), Some(response)) => Some(exchange.finish(response)?),
            (Some(_), None) => return Err("a key exchange without an answer".to_owned()),
            (None, _) => None,
        };
        session.announced = true;
        if let Some(lobby) = &self.lobby {
            lobby.admit(
                call,
                Invitation {
                    address: answer.address,
                    psk,
                    fingerprint: None,
                    stream: Stream::Floors {
                        conference_id: answer.conference_id,
                        user_id: answer.user_id,
                        floor_ids: answer.floor_ids,
                    },
                },
            );
        }
        Ok(())
    }

    pub(super) fn unusable(&mut self, call: u32, why: &str) {
        self.violations.add(Violation::AnswerUnusable, || format!("session {call}: {why}"));
        self.settle(call);
    }

    pub(super) fn media_event(&mut self, thread: u32, event: MediaEvent) {
        let now = Instant::now();
        match event {
            MediaEvent::Bound { session } => {
                let invited = self.sessions[session as usize].invited;
                let latency = (now - invited).as_nanos() as u64;
                self.bound_latency.saturating_record(latency);
                self.calls.bound += 1;
                self.sessions[session as usize].present = true;
                self.present += 1;
                self.settle(session);
            }
            // Booked by the thread; its call is ended with the others.
            MediaEvent::Failed { session } => {
                self.left(session);
                self.settle(session);
            }
            MediaEvent::Drained => {
                self.drained += 1;
                if self.drained as usize == self.threads.len() && self.phase == Phase::Draining {
                    self.enter(Phase::Ending, now);
                }
            }
            MediaEvent::Finished(report) => {
                self.violations.add(Violation::UnexpectedClose, || {
                    format!("media thread {thread} ended on its own")
                });
                self.media_reports.push(*report);
            }
        }
    }

    pub(super) fn thread(&self, session: u32) -> &Thread {
        &self.threads[self.sessions[session as usize].place.thread as usize]
    }

    pub(super) fn call_over(&mut self, call: u32) {
        let session = &mut self.sessions[call as usize];
        if session.state != SessionState::Over {
            session.state = SessionState::Over;
            self.over += 1;
        }
    }

    /// The session's media is gone.
    fn left(&mut self, session: u32) {
        if std::mem::take(&mut self.sessions[session as usize].present) {
            self.present -= 1;
        }
    }

    /// It is decided whether the session takes part.
    pub(super) fn settle(&mut self, number: u32) {
        let session = &mut self.sessions[number as usize];
        if !std::mem::replace(&mut session.settled, true) {
            self.settled += 1;
        }
        if !std::mem::replace(&mut session.announced, true)
            && let Some(lobby) = &self.lobby
        {
            lobby.dismiss(number);
        }
        if self.scenario.churn.is_some() {
            self.hang_up(number, Instant::now());
        }
    }
}

impl Scenario {
    fn ue_uri(&self, session: u32) -> String {
        format!("sip:ue-{}@{UE_DOMAIN}", self.first_session + session)
    }

    fn room_uri(&self, options: &Run, room: u32) -> String {
        let Target { user, host_port, .. } = &options.target;
        format!("sip:{user}-{}@{host_port}", self.first_room + room)
    }
}

/// RFC 2606: nobody's domain.
const UE_DOMAIN: &str = "load.example";

/// 128 bits: RFC 4975 section 14.1 asks for 80.
fn session_id() -> String {
    let (high, low) = (getrandom::u64(), getrandom::u64());
    format!("{:016x}{:016x}", high.unwrap_or(0), low.unwrap_or(0))
}
