//! Sessions on connections: which connection carries which Termination, how a session comes onto a
//! connection and how it leaves it. In the clear and with certificates a connection may carry several
//! (RFC 4975 section 5.4); a pre-shared key serves exactly one (TS 23.333 5.20).

use std::net::SocketAddr;

use mrfp_io::Key;
use mrfp_protocol::msrp::{Head, Uri};

use crate::connection::{Connection, Life, Spoken, Transport};
use crate::incoming::Incoming;
use crate::mp::{Event, ReleaseCause};
use crate::plane::{Ending, Plane};
use crate::termination::{Protection, Stage, Termination};

impl Plane {
    /// The Termination a request on this connection is for; binds it now where this is its first
    /// request and no key has bound it (RFC 4975 sections 5.4 and 7.3).
    pub(crate) fn session(&mut self, key: Key, head: &Head<'_>) -> Result<Key, u16> {
        if let Some(session) = self.session_as_announced(key, head) {
            return Ok(session);
        }
        let Some(session) = self.session_named(key, head.to_path.first()) else {
            return self.bind_named(key, head);
        };
        let termination = self.terminations.get(session).ok_or(481u16)?;
        if concerns(head, termination) { Ok(session) } else { Err(481) }
    }

    /// The first session of this connection, where both paths are to the letter what was announced for
    /// it: as nearly always.
    fn session_as_announced(&self, key: Key, head: &Head<'_>) -> Option<Key> {
        let connection = self.connections.get(key)?;
        let first = *connection.sessions.first()?;
        let termination = self.terminations.get(first)?;
        (connection.life == Life::Open
            && head.to_path.0 == termination.local_uri()
            && head.from_path.0 == termination.remote_first())
        .then_some(first)
    }

    /// The session of this connection whose URI of ours this is.
    pub(crate) fn session_named(&self, key: Key, uri: &[u8]) -> Option<Key> {
        let connection =
            self.connections.get(key).filter(|connection| connection.life == Life::Open)?;
        let first = *connection.sessions.first()?;
        if self.terminations.get(first).is_some_and(|termination| termination.local_uri() == uri) {
            return Some(first);
        }
        let session = self.session_by_id(Uri::parse(uri).ok()?.session_id)?;
        let termination = self.terminations.get(session)?;
        (connection.sessions.contains(&session)
            && termination.stage == Stage::Bound
            && termination.is_addressed_by(uri))
        .then_some(session)
    }

    /// The session with that session-id.
    pub(crate) fn session_by_id(&self, session_id: &[u8]) -> Option<Key> {
        self.by_session_id.get(&self.terminations, session_id)
    }

    /// The session a client with that identity may claim, with its first key or its next one.
    pub(crate) fn session_by_identity(&self, identity: &[u8]) -> Option<Key> {
        let first = self.by_identity.get(&self.terminations, identity);
        first.or_else(|| self.rekeyings.named(identity))
    }

    fn bind_named(&mut self, key: Key, head: &Head<'_>) -> Result<Key, u16> {
        let connection = self.connections.get(key).ok_or(481u16)?;
        let origin = connection.origin();
        let own_port_of = origin.and_then(|origin| origin.own_port_of);
        let session_id = Uri::parse(head.to_path.first()).map_err(|_| 400u16)?.session_id;
        let session = self.session_by_id(session_id).ok_or(481u16)?;
        let termination = self.terminations.get(session).ok_or(481u16)?;
        // Plain text is never accepted where TLS was asked for, nor anything on a port that is not
        // the Termination's, and what cannot be had is not there.
        let by_its_port = match own_port_of {
            Some(own) => own == session,
            None => termination.own_port.is_none(),
        };
        let as_asked = match &termination.protection {
            Protection::Plain => matches!(connection.transport, Transport::Plain),
            Protection::TlsCertificate { fingerprints } => {
                let shown = origin.and_then(|origin| origin.peer_certificate.as_ref());
                let known = shown.is_some_and(|shown| shown.is_known_by(fingerprints));
                self.is_certified(connection) && (known || fingerprints.is_empty())
            }
            // A key is what binds.
            Protection::TlsPsk(_) => false,
        };
        if !as_asked || !by_its_port || !concerns(head, termination) {
            return Err(481);
        }
        if !termination.awaits_connection() {
            return Err(506);
        }
        self.bind(key, session);
        Ok(session)
    }

    /// Whether a connection is one of TLS with certificates. One with a key is bound by it and so
    /// has its session.
    fn is_certified(&self, connection: &Connection) -> bool {
        matches!(connection.transport, Transport::Tls(_))
            && connection.sessions.first().is_none_or(|&session| {
                self.terminations.get(session).is_some_and(|termination| {
                    matches!(termination.protection, Protection::TlsCertificate { .. })
                })
            })
    }

    /// As client: an open connection of ours that leads where this Termination's peer is. Only
    /// connections we have made count: whoever connected to us may claim any address in its path.
    pub(crate) fn reusable(&self, session: Key, remote: SocketAddr) -> Option<Key> {
        let key = *self.connected_to.get(&remote)?;
        let connection = self.connections.get(key)?;
        let termination = self.terminations.get(session)?;
        let peer = Uri::parse(termination.remote_first()).ok()?;
        // RFC 6714 section 6.3: where a middlebox stands in between, its address tells nothing.
        let leads_there = peer.host_ip() == Some(remote.ip()) && peer.port == Some(remote.port());
        (connection.life == Life::Open
            && matches!(connection.transport, Transport::Plain)
            && matches!(termination.protection, Protection::Plain)
            && leads_there)
            .then_some(key)
    }

    /// Binds a connection to a Termination: from here on it is a member of its Context, or with BFCP
    /// a participant of its conference.
    pub(crate) fn bind(&mut self, key: Key, session: Key) {
        let Some(termination) = self.terminations.get_mut(session) else { return };
        if termination.is_for_floors() {
            return self.bind_floor_control(key, session);
        }
        assert_eq!(termination.stage, Stage::Reserved);
        assert!(termination.connection.is_none_or(|own| own == key));
        let context_key = termination.context;
        let Some(context) = self.contexts.get_mut(context_key) else { return };
        context.epoch += 1;
        if context.members.is_empty() {
            // Most calls are between two.
            context.members.reserve_exact(2);
        }
        context.members.push(session);
        termination.joined_epoch = context.epoch;
        termination.stage = Stage::Bound;
        termination.connection = Some(key);
        self.events.push_back(Event::Bound { termination: termination.id });
        self.forget_credentials(session);
        self.join_room(session);
        let lacks_floor = self.lacks_floor(session);
        if let Some(termination) = self.terminations.get_mut(session) {
            termination.lacks_floor = lacks_floor;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.spoken = Spoken::Msrp;
        connection.life = Life::Open;
        connection.deadline_ns = u64::MAX;
        if !connection.sessions.contains(&session) {
            connection.sessions.push(session);
        }
        if connection.lagging_since_ns.is_some()
            && let Some(context) = self.contexts.get_mut(context_key)
        {
            context.lagging += 1;
        }
        let source = connection.settle();
        self.settle_unbound(source);
    }

    /// Drops (and thereby zeroises) the key of a session; nobody is to come under its identity any more.
    pub(crate) fn forget_credentials(&mut self, session: Key) {
        // On a port of its own it never was on the list.
        self.by_identity.remove(&self.terminations, session);
        if let Some(termination) = self.terminations.get_mut(session) {
            termination.forget_credentials();
        }
    }

    /// A Termination is no member any more: its unfinished messages are given up, nobody waits for
    /// it, nothing can be bound to it. Its connection is left as it is.
    pub(crate) fn leave_context(&mut self, session: Key) {
        let Some(termination) = self.terminations.get(session) else { return };
        if termination.is_for_floors() {
            return self.leave_floor_control(session);
        }
        let was_bound = termination.stage == Stage::Bound;
        let context_key = termination.context;
        let connection_key = termination.connection;
        let early = self.terminations.get_mut(session).and_then(|it| it.early.take());
        self.forget_credentials(session);
        self.by_session_id.remove(&self.terminations, session);
        self.end_rekeying(session);
        if let Some(early) = early {
            // What it waited for does not come.
            self.release(early, ReleaseCause::TlsEstablishmentFailure, Ending::Graceful);
        }
        if was_bound && let Some(connection_key) = connection_key {
            self.give_up_messages(connection_key, session);
        }
        if let Some(context) = self.contexts.get_mut(context_key) {
            context.members.retain(|&member| member != session);
        }
        if was_bound && let Some(connection_key) = connection_key {
            self.settle_back_pressure(connection_key, session, context_key);
        }
        if let Some(termination) = self.terminations.get_mut(session) {
            termination.stage = termination.stage.max(Stage::Released);
        }
        if was_bound && let Some(connection_key) = connection_key {
            self.fail_session(connection_key, session);
            // Last, as the reports on what it did not get still name it.
            self.leave_room(session);
        }
    }

    /// Ends one session because of `cause` and tells the controller; the connection goes on for the
    /// others it carries, and ends with the last.
    pub(crate) fn release_session(&mut self, session: Key, cause: ReleaseCause, ending: Ending) {
        if self.lose_session(session, cause) {
            self.metrics.count_release(cause);
            self.detach(session, ending);
        }
    }

    /// A session is over, and the controller is told. False: it was over before.
    pub(crate) fn lose_session(&mut self, session: Key, cause: ReleaseCause) -> bool {
        let Some(termination) = self.terminations.get(session) else { return false };
        if termination.stage >= Stage::Released {
            return false;
        }
        self.events.push_back(Event::BearerReleased { termination: termination.id, cause });
        if cause == ReleaseCause::TooSlow
            && let Some(context) = self.contexts.get_mut(termination.context)
        {
            context.statistics_mut().members_dropped += 1;
        }
        self.leave_context(session);
        true
    }

    /// Takes a session that is over off its connection; the last one ends it.
    pub(crate) fn detach(&mut self, session: Key, ending: Ending) {
        let connection_key = self.terminations.get(session).and_then(|t| t.connection);
        let Some(key) = connection_key else { return };
        let Some(connection) = self.connections.get(key) else { return };
        let live = |other: &Key| {
            self.terminations.get(*other).is_some_and(|other| other.stage < Stage::Released)
        };
        if !connection.sessions.iter().any(live) || connection.life >= Life::Draining {
            return self.end(key, ending);
        }
        if connection.outgoing.is_some_and(|open| open.receiver == session) {
            self.close_chunk(key);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        // First of all: what is answered now must not wait for anybody in the Context it has left.
        connection.sessions.remove(session);
        connection.declined.retain(|&(receiver, _)| receiver != session);
        match std::mem::replace(&mut connection.incoming, Incoming::Idle) {
            Incoming::Forward(forward) if forward.transaction.session == session => {
                self.refuse_forward(key, forward, None, 481);
            }
            Incoming::Empty(transaction) if transaction.session == session => {
                connection.incoming = Incoming::Discard;
                self.answer(key, &transaction, 481);
            }
            other => connection.incoming = other,
        }
        if let Some(termination) = self.terminations.get_mut(session) {
            termination.connection = None;
        }
    }

    /// Takes a subtracted Termination off the tables once its connection is gone.
    pub(crate) fn finish_subtract(&mut self, session: Key) {
        self.remove_floor_user(session);
        self.termination_by_id.remove(&self.terminations, session);
        let Some(termination) = self.terminations.remove(session) else { return };
        assert!(termination.connection.is_none());
        self.events.push_back(Event::Subtracted {
            termination: termination.id,
            statistics: termination.statistics,
        });
        let Some(context) = self.contexts.get_mut(termination.context) else { return };
        context.terminations -= 1;
        self.drop_context_if_empty(termination.context);
    }
}

/// Whether a request is for this session and from its peer.
fn concerns(head: &Head<'_>, termination: &Termination) -> bool {
    head.to_path.count() == 1
        && termination.is_addressed_by(head.to_path.first())
        && is_peer(head, termination.remote_first())
}

/// RFC 4975 section 5.4: the From-Path must be the path the peer announced.
fn is_peer(head: &Head<'_>, remote_first: &[u8]) -> bool {
    let from_first = head.from_path.first();
    from_first == remote_first
        || matches!(
            (Uri::parse(from_first), Uri::parse(remote_first)),
            (Ok(from), Ok(remote)) if from.same_as(&remote)
        )
}
