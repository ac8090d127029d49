//! Every way a call can end, and what is cleaned up behind it.

use std::time::Duration;

use mrfp_core::mp::{ReleaseCause, ShardId, TerminationId};

use super::call::{Call, Stream};
use super::config::RETRY_AFTER;
use super::counters::count;
use super::engine::{Timer, Turn};
use super::exchange::{Agreed, Exchange};
use super::{Action, Border, BorderCallId, Leg, Refusal, SideRole};

/// Why the border releases a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReleaseReason {
    /// A bearer did not come up or is gone.
    Bearer(SideRole, ReleaseCause),
    /// The shard stopped or does not answer.
    ShardLost,
    /// The shard could not carry out what was agreed.
    ShardRefused,
    /// A change was refused by the parties after it had been carried out.
    StreamReplaced,
    /// The operator stops the node.
    Shutdown,
}

impl ReleaseReason {
    /// What it is counted under.
    fn name(self) -> &'static str {
        match self {
            Self::Bearer(_, cause) => release_name(cause),
            Self::ShardLost => "shard-lost",
            Self::ShardRefused => "shard-refused",
            Self::StreamReplaced => "stream-replaced",
            Self::Shutdown => "shutdown",
        }
    }

    /// Value of a Reason header (RFC 3326); the cause values are those of Q.850.
    fn header(self) -> String {
        let (cause, text) = match self {
            Self::Bearer(side, cause) => {
                let (number, text) = match cause {
                    ReleaseCause::TcpEstablishmentFailure => (41, "no TCP connection"),
                    ReleaseCause::TlsEstablishmentFailure => (41, "TLS handshake failed"),
                    ReleaseCause::PeerNotAuthenticated => (41, "certificate not as announced"),
                    ReleaseCause::PeerClosed => (16, "media connection closed"),
                    ReleaseCause::ConnectionLost => (41, "media connection lost"),
                    ReleaseCause::ProtocolViolation => (111, "protocol violation"),
                    ReleaseCause::TooSlow => (42, "receiver too slow"),
                    ReleaseCause::Idle => (102, "media idle"),
                };
                (number, format!("{text} ({} side)", side.name()))
            }
            Self::ShardLost => (38, "media plane lost".to_owned()),
            Self::ShardRefused => (47, "media plane refused".to_owned()),
            Self::StreamReplaced => (47, "media cannot be as before".to_owned()),
            Self::Shutdown => return "SIP;cause=503;text=\"shutting down\"".to_owned(),
        };
        format!("Q.850;cause={cause};text=\"{text}\"")
    }
}

/// Its name in metrics.
#[must_use]
pub fn release_name(cause: ReleaseCause) -> &'static str {
    match cause {
        ReleaseCause::TcpEstablishmentFailure => "tcp-establishment-failure",
        ReleaseCause::TlsEstablishmentFailure => "tls-establishment-failure",
        ReleaseCause::PeerNotAuthenticated => "peer-not-authenticated",
        ReleaseCause::PeerClosed => "peer-closed",
        ReleaseCause::ConnectionLost => "connection-lost",
        ReleaseCause::ProtocolViolation => "protocol-violation",
        ReleaseCause::TooSlow => "too-slow",
        ReleaseCause::Idle => "idle",
    }
}

impl Refusal {
    pub(super) fn with_text(status: u16, text: &str) -> Self {
        Self { status, warning: Some((399, text.to_owned())), retry_after: None }
    }

    /// 503: not now.
    pub(super) fn unavailable(text: &str) -> Self {
        Self { retry_after: Some(RETRY_AFTER), ..Self::with_text(503, text) }
    }

    /// RFC 3261 section 14.2: another offer before the answer to the last.
    pub(super) fn overlapping() -> Self {
        let retry_after = Some(Duration::from_secs(1));
        Self { retry_after, ..Self::with_text(500, "Another offer is unanswered") }
    }

    /// The call is gone, or the exchange is.
    pub(super) fn unknown() -> Self {
        Self::with_text(481, "The session is over")
    }
}

impl Border {
    /// The front says that it is over.
    pub(super) fn ended(&mut self, turn: &Turn<'_>, id: BorderCallId) {
        // It may have ended at both ends at once.
        let Some(mut call) = self.calls.remove(&id) else { return };
        self.give_back(turn, id, &mut call);
        self.counters.calls_ended += 1;
    }

    /// We end it: what is unanswered is refused, both legs are released.
    pub(super) fn release(
        &mut self,
        turn: &Turn<'_>,
        id: BorderCallId,
        call: &mut Call,
        reason: ReleaseReason,
    ) {
        if call.releasing {
            return;
        }
        call.releasing = true;
        let refusal = Refusal::unavailable(match reason {
            ReleaseReason::Shutdown => "Shutting down",
            ReleaseReason::ShardLost => "The media plane is lost",
            ReleaseReason::ShardRefused => "The media plane refused",
            ReleaseReason::StreamReplaced => "The media cannot be as before",
            ReleaseReason::Bearer(..) => "The media connection is lost",
        });
        self.refuse_due(id, call, &refusal);
        while let Some(event) = call.waiting.pop_front() {
            self.refuse_waiting(id, event, &refusal);
        }
        self.give_back(turn, id, call);
        count(&mut self.counters.calls_released, reason.name());
        self.actions.push_back(Action::Release { call: id, reason: reason.header() });
    }

    /// Gives back whatever a call has on its shard.
    fn give_back(&mut self, turn: &Turn<'_>, id: BorderCallId, call: &mut Call) {
        self.timers.clear(Timer::Shard(id));
        self.timers.clear(Timer::Recovery(id));
        call.awaiting.clear();
        let streams: Vec<Stream> = call.all_streams().cloned().collect();
        for stream in &streams {
            self.give_back_stream(turn, call, stream);
        }
        call.agreed = Agreed::default();
        call.exchange = None;
    }

    pub(super) fn give_back_stream(&mut self, turn: &Turn<'_>, call: &Call, stream: &Stream) {
        for leg in [Leg::Caller, Leg::Callee] {
            let termination = stream.point(leg).termination;
            // What the shard has refused is not there.
            if self.by_termination.contains_key(&termination) {
                let shard = call.shard.expect("a call with streams has its shard");
                self.subtract(turn.now_ns, shard, call.party(leg).side, termination);
            }
        }
    }

    /// A Termination that the shard has not made, or has no more.
    pub(super) fn forget_termination(&mut self, shard: ShardId, termination: TerminationId) {
        if self.by_termination.remove(&termination).is_some() {
            self.shards.remove_termination(shard);
        }
    }

    /// Nobody hung up and nobody asked for another bearer; an offer that does has its own time.
    pub(super) fn recovery_over(&mut self, turn: &Turn<'_>, id: BorderCallId) {
        if self.calls[&id].exchange.as_ref().is_some_and(Exchange::is_under_way) {
            return self.await_recovery(turn, id);
        }
        let mut call = self.calls.remove(&id).expect("a timer has its call");
        let lost = call.lost.take();
        if let Some((side, cause)) = lost {
            self.release(turn, id, &mut call, ReleaseReason::Bearer(side, cause));
        }
        self.calls.insert(id, call);
    }

    /// Its thread has ended, and with it every Termination it had.
    pub(super) fn shard_stopped(&mut self, turn: &Turn<'_>, shard: ShardId) {
        self.shards.set_lost(shard);
        let on_it = self.calls.iter().filter(|(_, call)| call.shard == Some(shard));
        let on_it: Vec<BorderCallId> = on_it.map(|(id, _)| *id).collect();
        for id in on_it {
            let mut call = self.calls.remove(&id).expect("just seen");
            self.release(turn, id, &mut call, ReleaseReason::ShardLost);
            self.calls.insert(id, call);
        }
        let gone = self.subtracting.iter().filter(|(_, (on, _))| *on == shard);
        let gone: Vec<TerminationId> = gone.map(|(termination, _)| *termination).collect();
        for termination in gone {
            self.subtracting.remove(&termination);
            self.timers.clear(Timer::Subtract(termination));
            self.shards.remove_termination(shard);
        }
        // Those commands would reach nobody.
        self.actions
            .retain(|action| !matches!(action, Action::Command { shard: to, .. } if *to == shard));
    }
}
