//! Timers. Looked at a slice of the tables at a time, so that no turn pays for all of them.

use mrfp_io::Key;

use crate::config::{
    EGRESS_QUIET_NS, HOUSEKEEPING_SLICES, PRESSED_STALL_NS, SLOW_MEMBER_GRACE_FACTOR,
};
use crate::connection::{Life, Transport};
use crate::mp::{Event, ReleaseCause};
use crate::plane::{Ending, Plane};
use crate::termination::Stage;

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
    }

    /// In a conference of more than two a member may hold up the others for a moment only; between
    /// two parties the slower one sets the pace, as long as there is memory to wait in.
    fn drop_slow_members(&mut self) {
        let pressed = self.is_pressed();
        let mut lagging = std::mem::take(&mut self.lagging);
        for &key in &lagging {
            if self.is_too_slow(key, pressed) {
                self.release(key, ReleaseCause::TooSlow, Ending::Abort);
            }
        }
        // Whoever has caught up meanwhile, or was dropped, lags no more.
        lagging.retain(|&key| {
            self.connections
                .get(key)
                .is_some_and(|connection| connection.lagging_since_ns.is_some())
        });
        lagging.append(&mut self.lagging);
        self.lagging = lagging;
    }

    /// Judged by what the peer takes, not by how busy we are: a send that is under way for long
    /// means that the peer does not read.
    fn is_too_slow(&self, key: Key, pressed: bool) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let Some(since_ns) = connection.lagging_since_ns else { return false };
        let lagged_ns = self.now_ns - since_ns;
        let stalled_ns =
            if connection.egress.is_in_flight() { self.now_ns - connection.sent_ns } else { 0 };
        if pressed && stalled_ns >= PRESSED_STALL_NS {
            return true;
        }
        let grace_ns = self.limits.slow_member_grace_ns;
        let members = self
            .context_of(key)
            .and_then(|context_key| self.contexts.get(context_key))
            .map_or(0, |context| context.members.len());
        members > 2
            && lagged_ns >= grace_ns
            && (stalled_ns >= grace_ns || lagged_ns >= SLOW_MEMBER_GRACE_FACTOR * grace_ns)
    }

    fn check_connection(&mut self, index: u32) {
        let Some(key) = self.connections.key_at(index) else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if self.now_ns - connection.sent_ns >= EGRESS_QUIET_NS {
            connection.egress.shrink();
        }
        let overdue = self.now_ns >= connection.deadline_ns;
        let stalled = connection.egress.is_in_flight()
            && self.now_ns - connection.sent_ns >= self.limits.send_stall_timeout_ns;
        let idle = self.now_ns - connection.received_ns >= self.limits.idle_timeout_ns;
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
                    Transport::Unknown | Transport::Plain | Transport::Tls(_) => {
                        self.metrics.connections_unbound_timeout += 1;
                        ReleaseCause::TcpEstablishmentFailure
                    }
                };
                self.release(key, cause, Ending::Abort);
            }
            Life::Open if stalled => {
                self.release(key, ReleaseCause::TooSlow, Ending::Abort);
            }
            Life::Open if idle && !connection.paused && !connection.pressed => {
                self.release(key, ReleaseCause::Idle, Ending::Graceful);
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
        let Some(termination) = self.terminations.get_mut(key) else { return };
        if termination.stage == Stage::Reserved
            && termination.connection.is_none()
            && self.now_ns >= termination.establishment_deadline_ns
        {
            let termination_id = termination.id;
            self.leave_context(key);
            if let Some(termination) = self.terminations.get_mut(key) {
                termination.stage = Stage::Released;
            }
            self.events.push_back(Event::BearerReleased {
                termination: termination_id,
                cause: ReleaseCause::TcpEstablishmentFailure,
            });
        }
    }
}
