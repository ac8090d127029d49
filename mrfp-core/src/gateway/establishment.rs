//! How a connection comes to its connection point: it comes in by its port, or is made for it ("state-aware
//! TCP handling", TS 23.334 clause 5.11.2.2.1), and TLS follows where it ends here.

use std::net::{IpAddr, SocketAddr};

use mrfp_io::Key;
use mrfp_protocol::tls::{AnnouncedProfile, Handshake, HandshakeError};

use super::point::{ConnectionPoint, SendingEnd, Stage};
use crate::connection::{Connection, Life, Transport};
use crate::mp::{Establishment, Event, ReleaseCause, RemoteConnectionPoint, Source, TlsRole};
use crate::plane::{Ending, Plane};

/// Connections that may wait at a connection point beside the one that it has, or for the answer.
const EARLY_MAX: usize = 4;

/// What it takes to start the connection of a connection point.
pub(crate) struct Connect {
    /// Our own address.
    pub(crate) source: IpAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) deadline_ns: u64,
}

impl Plane {
    /// The peer's side has become known, and there is no connection, or one that came early.
    pub(super) fn establish(&mut self, key: Key) {
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let Some(point) = self.gateway.point_mut(key) else { return };
        point.stage = Stage::Establishing;
        point.deadline_ns = deadline_ns;
        let establishment = point.establishment();
        self.claim_early(key);
        match establishment {
            Some(Establishment::AtOnce) => self.gateway.to_connect.push(key),
            Some(Establishment::WhenOtherComesIn) if self.other_has_come(key) => {
                self.gateway.to_connect.push(key);
            }
            Some(Establishment::WhenOtherComesIn | Establishment::Incoming) | None => {}
        }
    }

    /// Takes the first of those that have come early that may be the one that is awaited.
    pub(super) fn claim_early(&mut self, key: Key) {
        while let Some(point) = self.gateway.point_mut(key)
            && point.awaits_connection()
            && !point.early.is_empty()
        {
            let early = point.early.remove(0);
            self.claim_bearer(early, key);
        }
    }

    /// Whether there is a TCP connection on the other side.
    fn other_has_come(&self, key: Key) -> bool {
        let other = self.gateway.other(key).and_then(|other| self.gateway.point(other));
        let connection = other
            .filter(|other| matches!(other.stage, Stage::Establishing | Stage::Up))
            .and_then(|other| self.connections.get(other.connection?));
        connection.is_some_and(Connection::is_alive)
    }

    /// What a connection takes that is to be started. `None`: there is nothing to start (any more).
    pub(crate) fn connect_of_point(&self, key: Key) -> Option<Connect> {
        let point = self.gateway.point(key).filter(|point| point.awaits_connection())?;
        let remote = point.remote.as_ref()?.address?;
        let source = self.gateway.interface(point.interface)?.listen;
        Some(Connect { source, remote, deadline_ns: point.deadline_ns })
    }

    /// A connection has come in by the port of a connection point. Where none is awaited it may be for a
    /// new association whose answer is still to come, or be the peer's where a stranger's was faster: a few
    /// are kept as they are for as long as any may be that nobody has vouched for, and until those before
    /// them have had their turn. Nothing of them is read, so nothing is lost.
    pub(crate) fn bearer_came_in(&mut self, key: Key, point_key: Key) {
        match self.gateway.point_mut(point_key) {
            Some(point) if point.awaits_connection() => self.claim_bearer(key, point_key),
            Some(point) if point.early.len() < EARLY_MAX && point.stage < Stage::Subtracted => {
                point.early.push(key);
                self.await_turn(point_key);
            }
            Some(_) | None => {
                self.metrics.connections_refused += 1;
                self.end(key, Ending::Abort);
            }
        }
    }

    /// Whoever waits for its turn behind a handshake may wait for its end.
    fn await_turn(&mut self, key: Key) {
        let Some(point) = self.gateway.point(key) else { return };
        let Some(first) = point.connection.and_then(|it| self.connections.get(it)) else { return };
        if first.life != Life::Unbound {
            return;
        }
        let deadline_ns = first.deadline_ns + self.limits.unbound_timeout_ns;
        for &early in &point.early {
            if let Some(early) = self.connections.get_mut(early) {
                early.deadline_ns = deadline_ns;
            }
        }
    }

    /// Takes a connection that has come in for the one that is awaited, if it may be.
    fn claim_bearer(&mut self, key: Key, point_key: Key) {
        let Some(connection) = self.connections.get(key).filter(|it| it.is_alive()) else { return };
        let source = connection.origin().and_then(|origin| origin.unbound_source);
        let is_awaited = self.gateway.point(point_key).is_some_and(|point| {
            point.awaits_connection()
                && point.establishment() == Some(Establishment::Incoming)
                && point.remote.as_ref().zip(source).is_some_and(|(it, from)| admits(it, from))
        });
        if !is_awaited {
            self.metrics.connections_refused += 1;
            return self.end(key, Ending::Abort);
        }
        if let Some(point) = self.gateway.point_mut(point_key) {
            point.connection = Some(key);
        }
        self.begin_bearer(key, point_key);
    }

    /// TCP stands: TLS follows, or media may pass.
    pub(crate) fn begin_bearer(&mut self, key: Key, point_key: Key) {
        let deadline_ns = self.now_ns + self.limits.unbound_timeout_ns;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(point) = self.gateway.point(point_key) else { return };
        connection.deadline_ns = deadline_ns;
        match begun(&self.gateway.tls, point) {
            Some(handshake) => self.begin_handshake(key, handshake),
            None => {
                connection.transport = Transport::Plain;
                self.bearer_up(key, point_key);
            }
        }
        self.await_turn(point_key);
        self.mark(key);
        self.regulate(point_key);
        self.trigger_other(point_key);
    }

    /// "Use an incoming TCP connection establishment request as a trigger."
    fn trigger_other(&mut self, key: Key) {
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let Some(other_key) = self.gateway.other(key) else { return };
        let Some(other) = self.gateway.point_mut(other_key) else { return };
        if other.awaits_connection()
            && other.establishment() == Some(Establishment::WhenOtherComesIn)
        {
            other.deadline_ns = deadline_ns;
            self.gateway.to_connect.push(other_key);
        }
    }

    /// The bearer carries media from here on: TCP stands, and the peer has proved to be the one that was
    /// announced where TLS ends here.
    pub(crate) fn bearer_up(&mut self, key: Key, point_key: Key) {
        let Some(point) = self.gateway.point_mut(point_key) else { return };
        if point.connection != Some(key) || point.stage != Stage::Establishing {
            return self.end(key, Ending::Abort);
        }
        point.stage = Stage::Up;
        self.events.push_back(Event::Bound { termination: point.id });
        self.metrics.gateway_bearers_established += 1;
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.life = Life::Open;
        connection.deadline_ns = u64::MAX;
        let source = connection.settle();
        self.settle_unbound(source);
        self.renew_passing(point_key);
        let Some(other_key) = self.gateway.other(point_key) else { return };
        self.gateway_pass_held(other_key);
        let Some(other) = self.gateway.point(other_key) else { return };
        match (other.received_end, other.stage) {
            // It has ended its direction meanwhile, or has gone altogether.
            (true, Stage::Up) => self.end_direction(point_key),
            (true, Stage::Released) => self.end_with_other(point_key, Ending::Graceful),
            (_, _) => {}
        }
        self.regulate(point_key);
        self.regulate(other_key);
    }

    /// Tells the controller that a bearer is gone, or did not come up; once.
    pub(crate) fn report_released(&mut self, key: Key, cause: ReleaseCause) {
        let Some(point) = self.gateway.point_mut(key) else { return };
        if !matches!(point.stage, Stage::Establishing | Stage::Up) {
            return;
        }
        point.stage = Stage::Released;
        self.events.push_back(Event::BearerReleased { termination: point.id, cause });
        self.metrics.count_release(cause);
        match cause {
            ReleaseCause::TcpEstablishmentFailure => self.metrics.gateway_failures_tcp += 1,
            ReleaseCause::TlsEstablishmentFailure => self.metrics.gateway_failures_tls += 1,
            ReleaseCause::PeerNotAuthenticated => {
                self.metrics.gateway_failures_authentication += 1;
            }
            ReleaseCause::PeerClosed
            | ReleaseCause::ConnectionLost
            | ReleaseCause::ProtocolViolation
            | ReleaseCause::TooSlow
            | ReleaseCause::Idle => {}
        }
    }

    /// Whether our direction towards the peer of a connection is to end now that everything has left; once.
    pub(crate) fn take_end_of_direction(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let Some(point) = connection.point().and_then(|key| self.gateway.point_mut(key)) else {
            return false;
        };
        let is_due = point.connection == Some(key)
            && point.end == SendingEnd::Due
            && matches!(connection.life, Life::Open | Life::Draining)
            && connection.egress.is_empty()
            && !connection.egress.is_in_flight();
        if is_due {
            point.end = SendingEnd::Sent;
        }
        is_due
    }
}

/// The handshake of a connection point where TLS ends here. Which side we are is not a matter of who has made
/// the connection (BFCP: RFC 8856 section 8).
fn begun(
    profile: &AnnouncedProfile,
    point: &ConnectionPoint,
) -> Option<Result<Handshake, HandshakeError>> {
    let (identity, remote) = (point.identity.as_ref()?, point.remote.as_ref()?);
    Some(match remote.tls_role {
        TlsRole::Server => Handshake::announced_server(profile, identity, &remote.fingerprints),
        TlsRole::Client => Handshake::announced_client(profile, identity, &remote.fingerprints),
    })
}

/// Whether the peer may come from there. The port it comes from is in no SDP (RFC 4145 section 4.1: an
/// active endpoint writes 9), so the address alone can tell.
fn admits(remote: &RemoteConnectionPoint, from: IpAddr) -> bool {
    let is_from = |host: IpAddr| host.to_canonical() == from.to_canonical();
    match remote.source {
        Source::Any => true,
        Source::Host(host) => is_from(host),
        Source::Address => remote.address.is_some_and(|address| is_from(address.ip())),
    }
}
