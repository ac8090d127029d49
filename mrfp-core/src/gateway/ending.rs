//! How the end of one connection becomes that of the other. Between two sides of plain TCP each direction
//! ends on its own, as if there were no gateway. Where TLS ends here TCP is released as soon as TLS is (TS
//! 23.334 clause 5.11.2.2.1), on both sides, once what was on its way has left.

use mrfp_io::Key;
use mrfp_protocol::tls::RecordError;

use super::point::{SendingEnd, Stage};
use crate::connection::{Life, Recv};
use crate::mp::{Bearer, ReleaseCause};
use crate::plane::{Ending, Plane};

impl Plane {
    /// The peer of a connection has ended its direction of TCP.
    pub(crate) fn received_end(&mut self, key: Key) {
        let point = self.connections.get(key).and_then(|connection| connection.point());
        match point.filter(|&point| self.ends_by_directions(key, point)) {
            Some(point) => self.direction_ended(point),
            None => self.release(key, ReleaseCause::PeerClosed, Ending::Graceful),
        }
    }

    /// Whether each direction ends on its own.
    fn ends_by_directions(&self, key: Key, point_key: Key) -> bool {
        let Some(point) = self.gateway.point(point_key) else { return false };
        let other = point.other.and_then(|other| self.gateway.point(other));
        point.bearer == Bearer::Tcp
            && point.connection == Some(key)
            && point.stage == Stage::Up
            && other.is_some_and(|other| other.bearer == Bearer::Tcp && other.stage <= Stage::Up)
    }

    fn direction_ended(&mut self, key: Key) {
        let Some(point) = self.gateway.point_mut(key) else { return };
        point.received_end = true;
        let Some(other_key) = point.other else { return };
        let Some(other) = self.gateway.point(other_key) else { return };
        if !other.received_end {
            return self.end_direction(other_key);
        }
        for point in [key, other_key] {
            self.report_released(point, ReleaseCause::PeerClosed);
            self.end_bearer(point, Ending::Graceful);
        }
    }

    /// Nothing more is to be sent to the peer of a connection point; what is queued leaves first.
    pub(super) fn end_direction(&mut self, key: Key) {
        let Some(point) = self.gateway.point_mut(key) else { return };
        // Before it is up there is nothing to end.
        if point.stage == Stage::Up && point.end == SendingEnd::No {
            point.end = SendingEnd::Due;
            point.connection.into_iter().for_each(|connection| self.mark(connection));
        }
    }

    /// A connection of a connection point is over because of `cause`.
    pub(crate) fn release_bearer(
        &mut self,
        key: Key,
        point_key: Key,
        cause: ReleaseCause,
        ending: Ending,
    ) {
        let Some(point) = self.gateway.point_mut(point_key) else {
            return self.end(key, ending);
        };
        point.early.retain(|&early| early != key);
        if point.connection != Some(key) {
            return self.end(key, ending);
        }
        if point.stage == Stage::Establishing && !point.early.is_empty() {
            // It may have been a stranger, and one of those that wait be the peer.
            point.connection = None;
            self.end(key, ending);
            self.claim_early(point_key);
            if self.gateway.point(point_key).is_none_or(|point| point.connection.is_some()) {
                return;
            }
            return self.report_released(point_key, cause);
        }
        let was_up = point.stage == Stage::Up;
        point.received_end |= was_up && ending == Ending::Graceful;
        let other = point.other;
        if was_up {
            // Of datagrams, whose connection knows nothing of their DTLS.
            self.end_association(point_key);
        }
        self.report_released(point_key, cause);
        self.end(key, ending);
        if was_up && let Some(other) = other {
            self.end_with_other(other, ending);
        }
    }

    /// Why a bearer is gone whose records cannot be read on. In TLS 1.3 a client has begun to send when
    /// the server comes to refuse its certificate, so a first word that is an alert ends the establishment.
    pub(crate) fn cause_of_record_error(&self, key: Key, error: RecordError) -> ReleaseCause {
        let point = self.connections.get(key).and_then(|connection| connection.point());
        match (point.and_then(|point| self.gateway.point(point)), error) {
            (Some(point), RecordError::AlertReceived(_)) => match point.statistics.bytes_received {
                0 => ReleaseCause::TlsEstablishmentFailure,
                _ => ReleaseCause::ConnectionLost,
            },
            (_, _) => ReleaseCause::ProtocolViolation,
        }
    }

    /// The other side of a connection point has ended: so does this one, if it is up. The controller has
    /// been told of the other.
    pub(super) fn end_with_other(&mut self, key: Key, ending: Ending) {
        let Some(point) = self.gateway.point_mut(key) else { return };
        if point.stage == Stage::Up {
            point.stage = Stage::Released;
            self.end_association(key);
            self.end_bearer(key, ending);
        }
    }

    /// Ends the connection of a connection point. What is queued may take as long to leave as any sending
    /// may: it was received, and its sender has gone believing that it arrives.
    fn end_bearer(&mut self, key: Key, ending: Ending) {
        let Some(connection_key) = self.gateway.point(key).and_then(|it| it.connection) else {
            return;
        };
        self.end(connection_key, ending);
        let deadline_ns = self.now_ns + self.limits.send_stall_timeout_ns;
        if let Some(connection) = self.connections.get_mut(connection_key)
            && connection.life == Life::Draining
        {
            connection.deadline_ns = deadline_ns;
            // Datagrams have no direction that could end.
            if !connection.is_of_datagrams()
                && let Some(point) = self.gateway.point_mut(key)
                && point.end == SendingEnd::No
            {
                point.end = SendingEnd::Due;
            }
        }
    }

    /// Whether a peer that has been told the end is heard until it ends, too. It need not know yet that
    /// anything has, and what it says to a closed socket becomes a reset, which destroys what is on its way
    /// to it.
    pub(crate) fn awaits_end_of_peer(&self, key: Key) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let point = connection.point().and_then(|point| self.gateway.point(point));
        connection.life == Life::Draining
            && connection.recv != Recv::Ended
            && self.now_ns < connection.deadline_ns
            && point.is_some_and(|it| it.connection == Some(key) && it.end == SendingEnd::Sent)
    }

    /// A connection is ending: nothing is read for it any more.
    pub(crate) fn gateway_ended(&mut self, key: Key) {
        let point = self.connections.get(key).and_then(|connection| connection.point());
        if let Some(point) = point {
            self.regulate_other(point);
        }
    }

    /// The connection of a connection point is gone.
    pub(crate) fn bearer_closed(&mut self, key: Key, point_key: Key) {
        let Some(point) = self.gateway.point_mut(point_key) else { return };
        if point.connection != Some(key) {
            return;
        }
        point.connection = None;
        let is_subtracted = point.stage == Stage::Subtracted;
        self.drop_passing(point_key);
        if is_subtracted {
            self.finish_point(point_key);
        }
    }
}
