//! How a user and its connection find each other, and how they part. TCP and TLS have roles of their
//! own: whoever has made the first offer is the TLS client, whoever connects (RFC 8856 section 8).

use mrfp_io::Key;
use mrfp_protocol::bfcp::Transport as Carrier;

use crate::connection::{Claim, Connection, Life, Spoken, Transport};
use crate::floor::Channel;
use crate::mp::{Event, ReleaseCause, TlsRole};
use crate::plane::{Ending, Plane};
use crate::termination::{Protection, Stage, Termination};

/// What becomes of a connection whose peer says who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ClaimByName {
    /// It is that user's.
    Bound,
    /// The answer to our offer is still to come: so long the message waits.
    Waits,
    /// It is not that user's.
    Refused,
}

impl Plane {
    /// A connection has been accepted. By a port whose TLS client we are it is ours to begin. One at a
    /// time may keep us busy there: nobody can say yet which of two is the peer.
    pub(crate) fn greet(&mut self, key: Key) {
        let origin = self.connections.get(key).and_then(Connection::origin);
        let Some(session) = origin.and_then(|origin| origin.own_port_of) else { return };
        let Some(termination) = self.terminations.get(session) else { return };
        if termination.tls_role(false) != Some(TlsRole::Client) {
            return;
        }
        let is_alive = |early: Key| self.connections.get(early).is_some_and(Connection::is_alive);
        let awaited = termination.awaits_connection() || termination.awaits_answer();
        if !awaited || termination.early.is_some_and(is_alive) {
            self.metrics.connections_refused += 1;
            return self.release(key, ReleaseCause::TlsEstablishmentFailure, Ending::Abort);
        }
        let awaits_answer = termination.awaits_answer();
        if let Some(termination) = self.terminations.get_mut(session) {
            termination.early = Some(key);
        }
        if !awaits_answer {
            self.begin_as_client(key, session);
        }
    }

    /// On a connection that was accepted: sends our ClientHello.
    pub(crate) fn begin_as_client(&mut self, key: Key, session: Key) {
        let Some(termination) = self.terminations.get(session) else { return };
        let session_number = termination.session_number;
        let has_key = match &termination.protection {
            Protection::TlsPsk(_) => termination.psk().is_some(),
            Protection::TlsCertificate { .. } => true,
            Protection::Plain => false,
        };
        if !has_key || !termination.awaits_connection() {
            return self.release(key, ReleaseCause::TlsEstablishmentFailure, Ending::Abort);
        }
        if let Some(connection) = self.connections.get_mut(key) {
            let claim = Claim { termination: session, session_number };
            connection.origin_mut().claimed = Some(claim);
        }
        self.start_handshake(key, session);
    }

    /// Binds a connection to a user: it is there.
    pub(crate) fn bind_floor_control(&mut self, key: Key, session: Key) {
        let Some(termination) = self.terminations.get_mut(session) else { return };
        assert_eq!(termination.stage, Stage::Reserved);
        assert!(termination.connection.is_none_or(|own| own == key));
        termination.stage = Stage::Bound;
        termination.connection = Some(key);
        let early = termination.early.take().filter(|&early| early != key);
        let participant = termination.floor_seat().map(|seat| seat.participant);
        self.events.push_back(Event::Bound { termination: termination.id });
        self.forget_credentials(session);
        if let Some(early) = early {
            self.release(early, ReleaseCause::TlsEstablishmentFailure, Ending::Graceful);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.spoken = Spoken::Bfcp;
        connection.life = Life::Open;
        connection.deadline_ns = u64::MAX;
        if !connection.sessions.contains(&session) {
            connection.sessions.push(session);
        }
        let channel = channel(connection);
        let source = connection.settle();
        self.settle_unbound(source);
        if let Some(participant) = participant {
            self.with_floor_server(|server, _, _| server.connect(participant, channel));
        }
    }

    /// The connection of a user is gone, or was never there: nothing can be bound to it. The user
    /// stays, and its grace begins.
    pub(crate) fn leave_floor_control(&mut self, session: Key) {
        let Some(termination) = self.terminations.get_mut(session) else { return };
        let was_bound = termination.stage == Stage::Bound;
        termination.stage = termination.stage.max(Stage::Released);
        let early = termination.early.take();
        let participant = termination.floor_seat().map(|seat| seat.participant);
        self.forget_credentials(session);
        if let Some(early) = early {
            self.release(early, ReleaseCause::TlsEstablishmentFailure, Ending::Graceful);
        }
        if let Some(participant) = participant.filter(|_| was_bound) {
            self.with_floor_server(|server, now_ns, _| server.disconnect(participant, now_ns));
        }
    }

    /// What becomes of an unbound connection on which a user is named, in the clear or over TLS with
    /// certificates. With a key the key binds.
    pub(super) fn claim_by_name(&mut self, key: Key, session: Key) -> ClaimByName {
        match self.claim_by_datagram(key, session) {
            Some(true) => return ClaimByName::Bound,
            Some(false) => return ClaimByName::Refused,
            None if !self.is_secured_for(key, session) => return ClaimByName::Refused,
            None => {}
        }
        let is_alive = |early: Key| self.connections.get(early).is_some_and(Connection::is_alive);
        let Some(termination) = self.terminations.get_mut(session) else {
            return ClaimByName::Refused;
        };
        if termination.awaits_connection() {
            return ClaimByName::Bound;
        }
        let others = termination.early.filter(|&early| early != key && is_alive(early));
        if termination.stage > Stage::Reserved || termination.knows_remote() || others.is_some() {
            return ClaimByName::Refused;
        }
        termination.early = Some(key);
        ClaimByName::Waits
    }

    /// Whether a connection that nobody has bound is as a user is to come.
    fn is_secured_for(&self, key: Key, session: Key) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let Some(termination) = self.terminations.get(session) else { return false };
        let origin = connection.origin();
        let by_its_port = match origin.and_then(|origin| origin.own_port_of) {
            Some(own) => own == session,
            None => termination.own_port.is_none(),
        };
        let as_asked = match &termination.protection {
            Protection::Plain => matches!(connection.transport, Transport::Plain),
            Protection::TlsCertificate { fingerprints } => {
                let shown = origin.and_then(|origin| origin.peer_certificate.as_ref());
                let known = shown.is_some_and(|shown| shown.is_known_by(fingerprints));
                matches!(connection.transport, Transport::Tls(_))
                    && termination.tls_role(false) == Some(TlsRole::Server)
                    && (known || fingerprints.is_empty())
            }
            Protection::TlsPsk(_) => false,
        };
        as_asked && by_its_port && connection.sessions.is_empty()
    }

    /// The Termination a connection is known to be for before anything is said on it: as TCP client
    /// the one it was made for, else the one whose port it came in by.
    pub(crate) fn foreseen(&self, connection: &Connection) -> Option<&Termination> {
        let own_port_of = connection.origin().and_then(|origin| origin.own_port_of);
        self.terminations.get(connection.only_session().or(own_port_of)?)
    }
}

/// How a user is connected.
pub(super) fn channel(connection: &Connection) -> Channel {
    let secured = matches!(connection.transport, Transport::Tls(_));
    let by_datagrams = connection.is_of_datagrams();
    let transport = if by_datagrams { Carrier::Unreliable } else { Carrier::Reliable };
    Channel { transport, secured }
}
