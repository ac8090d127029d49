//! Timers. Looked at a slice of the tables at a time, so that no turn pays for all of them.

use crate::config::{EGRESS_QUIET_NS, HOUSEKEEPING_SLICES};
use crate::connection::{Life, Spoken, Transport};
use crate::mp::ReleaseCause;
use crate::plane::{Ending, Plane};

impl Plane {
    /// One slice of the timers, and every lagging member.
    pub(crate) fn housekeeping(&mut self) {
        self.drop_slow_members();
        let slice = (self.metrics.housekeepings % u64::from(HOUSEKEEPING_SLICES)) as u32;
        self.metrics.housekeepings += 1;
        for index in (slice..self.connections.slots()).step_by(HOUSEKEEPING_SLICES as usize) {
            self.check_connection(index);
        }
        for index in (slice..self.terminations.slots()).step_by(HOUSEKEEPING_SLICES as usize) {
            self.check_termination(index);
        }
        for index in (slice..self.gateway.slots()).step_by(HOUSEKEEPING_SLICES as usize) {
            self.check_connection_point(index);
        }
        self.relay_housekeeping(slice);
    }

    fn check_connection(&mut self, index: u32) {
        let Some(key) = self.connections.key_at(index) else { return };
        self.relay_check_connection(key);
        self.expire_outstanding(key);
        self.give_up_abandoned(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if self.now_ns - connection.sent_ns >= EGRESS_QUIET_NS {
            if self.now_ns - connection.received_ns >= EGRESS_QUIET_NS {
                connection.rest();
            }
            if !connection.is_resting() {
                connection.egress.shrink();
                connection.outstanding.shrink();
            }
            for &session in connection.sessions.iter() {
                let termination = self.terminations.get_mut(session);
                let participant = termination.and_then(|it| it.participant.as_mut());
                participant.into_iter().for_each(|participant| participant.forget_head());
            }
        }
        let overdue = self.now_ns >= connection.deadline_ns;
        let stalled = connection.egress.is_in_flight()
            && self.now_ns - connection.sent_ns >= self.limits.send_stall_timeout_ns;
        // Floors may be held in silence: BFCP has no keep-alive.
        let may_be_silent = connection.spoken == Spoken::Bfcp && connection.is_between_messages();
        // Through a gateway bytes may go one way for long.
        let last_ns = match connection.point() {
            Some(_) => connection.received_ns.max(connection.sent_ns),
            None => connection.received_ns,
        };
        // And datagrams make no connection that could be gone.
        let may_be_silent =
            may_be_silent || (connection.is_of_datagrams() && connection.point().is_some());
        let idle = self.now_ns - last_ns >= self.limits.idle_timeout_ns && !may_be_silent;
        match connection.life {
            Life::Connecting if overdue => {
                self.release(key, ReleaseCause::TcpEstablishmentFailure, Ending::Abort);
            }
            Life::Unbound if overdue => {
                let cause = match connection.transport {
                    Transport::Handshaking(_) => {
                        self.metrics.handshakes_timeout += 1;
                        ReleaseCause::TlsEstablishmentFailure
                    }
                    // As TCP client and TLS server: the ClientHello has not come.
                    Transport::Unknown if !connection.sessions.is_empty() => {
                        self.metrics.handshakes_timeout += 1;
                        ReleaseCause::TlsEstablishmentFailure
                    }
                    Transport::Unknown
                    | Transport::Plain
                    | Transport::Tls(_)
                    | Transport::Datagrams => {
                        self.metrics.connections_unbound_timeout += 1;
                        ReleaseCause::TcpEstablishmentFailure
                    }
                };
                self.release(key, cause, Ending::Abort);
            }
            Life::Open if stalled => {
                self.release(key, ReleaseCause::TooSlow, Ending::Abort);
            }
            Life::Open if idle && connection.paused == 0 && !connection.pressed => {
                self.release(key, ReleaseCause::Idle, Ending::Graceful);
            }
            // Nothing is left but the end of the peer, which is waited for no more.
            Life::Draining
                if overdue && connection.egress.is_empty() && !connection.egress.is_in_flight() =>
            {
                self.mark(key);
            }
            Life::Draining if overdue => self.end(key, Ending::Abort),
            Life::Connecting
            | Life::Unbound
            | Life::Open
            | Life::Draining
            | Life::Terminating
            | Life::Joining
            | Life::Closing => {}
        }
    }

    fn check_termination(&mut self, index: u32) {
        let Some(key) = self.terminations.key_at(index) else { return };
        self.check_rekeying(key);
        let Some(termination) = self.terminations.get(key) else { return };
        if termination.awaits_connection() && self.now_ns >= termination.establishment_deadline_ns {
            let cause = if termination.handshake_failed {
                ReleaseCause::TlsEstablishmentFailure
            } else {
                ReleaseCause::TcpEstablishmentFailure
            };
            self.lose_session(key, cause);
        }
    }
}
