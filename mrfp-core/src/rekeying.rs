//! A new key for a session that stands: a second connection under it beside the running one, and the
//! moment the session moves over (the CSB update of RFC 6043 section 5.2; TS 23.333 clause 5.20.2 has
//! one key serve one connection).
//!
//! The session stays what it is: its URIs, its place in the room, the messages it is in the middle of.
//! Until the new connection is secured nothing changes. Then all that is begun goes over the new one,
//! which is given none of it to send before everything on the former one has left and been answered:
//! two connections have no order between them. What the peer still sends on the former one is taken
//! and answered there, until it falls silent or the peer closes it.
//!
//! Few sessions are in the middle of this, so that all of it is kept beside the tables.

use std::collections::HashMap;

use mrfp_io::Key;
use mrfp_protocol::msrp::Continuation;
use mrfp_protocol::tls::Psk;

use crate::config::{FORMER_CONNECTION_NS, FORMER_QUIET_NS};
use crate::connection::{Claim, Connection, Life, Recv};
use crate::incoming::Incoming;
use crate::mp::{Event, NextKey, Refusal, Rekey, ReleaseCause};
use crate::plane::{Ending, Plane};
use crate::termination::{Credentials, Protection, Stage, Termination};

/// The sessions of a shard that change their key.
#[derive(Default)]
pub(crate) struct Rekeyings {
    /// By Termination.
    under_way: HashMap<Key, Rekeying>,
    /// Terminations by the identity that their next TLS client names, but for those with a port of
    /// their own.
    by_identity: HashMap<Box<[u8]>, Key>,
}

/// One of them: before it has moved, or after.
#[derive(Default)]
struct Rekeying {
    next: Option<Next>,
    former: Option<Former>,
}

/// The key that is to come into use.
struct Next {
    /// Zeroised once they have served.
    credentials: Credentials,
    /// Which of the Termination's keys, one after the other.
    number: u32,
    /// As client: the connection that is being made.
    connection: Option<Key>,
    /// A TLS client that was faster than the answer to our offer.
    early: Option<Key>,
    handshake_failed: bool,
    /// Until when a connection must be secured with it; not before an offer of ours is answered.
    deadline_ns: u64,
}

/// The connection a session has moved away from.
struct Former {
    connection: Key,
    /// All that we sent on it has left, and been answered.
    settled: bool,
    /// It is not kept longer than that.
    until_ns: u64,
}

impl Rekeyings {
    /// As nearly always.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    fn next(&self, session: Key) -> Option<&Next> {
        self.under_way.get(&session)?.next.as_ref()
    }

    fn next_mut(&mut self, session: Key) -> Option<&mut Next> {
        self.under_way.get_mut(&session)?.next.as_mut()
    }

    fn former(&self, session: Key) -> Option<&Former> {
        self.under_way.get(&session)?.former.as_ref()
    }

    /// The session whose next TLS client names that identity.
    pub(crate) fn named(&self, identity: &[u8]) -> Option<Key> {
        self.by_identity.get(identity).copied()
    }

    /// The next key of a session serves nobody (any more).
    fn take_next(&mut self, session: Key) -> Option<Next> {
        let next = self.under_way.get_mut(&session)?.next.take()?;
        if self.by_identity.get(next.credentials.identity()) == Some(&session) {
            self.by_identity.remove(next.credentials.identity());
        }
        self.forget_if_over(session);
        Some(next)
    }

    fn take_former(&mut self, session: Key) -> Option<Former> {
        let former = self.under_way.get_mut(&session)?.former.take()?;
        self.forget_if_over(session);
        Some(former)
    }

    fn forget_if_over(&mut self, session: Key) {
        let is_over = |it: &Rekeying| it.next.is_none() && it.former.is_none();
        if self.under_way.get(&session).is_some_and(is_over) {
            self.under_way.remove(&session);
        }
    }

    /// Where the place of whoever is faster than the answer to our offer is; `None` where no answer is
    /// awaited.
    pub(crate) fn early_place(&mut self, session: Key) -> Option<&mut Option<Key>> {
        let next = self.next_mut(session).filter(|next| !next.credentials.has_key())?;
        Some(&mut next.early)
    }

    pub(crate) fn take_early(&mut self, session: Key) -> Option<Key> {
        self.next_mut(session)?.early.take()
    }
}

impl Plane {
    /// Gives a session a next key, or takes it back. Its key.
    pub(crate) fn rekey(&mut self, rekey: &Rekey) -> Result<Key, Refusal> {
        let session = self.living(rekey.termination)?;
        let (identity, psk) = match &rekey.key {
            NextKey::Withdrawn => {
                self.withdraw_key(session);
                return Ok(session);
            }
            NextKey::Awaited { identity } => (identity, None),
            NextKey::Agreed { identity, psk, .. } => (identity, Some(psk)),
        };
        let termination = self.terminations.get(session).ok_or(Refusal::TerminationId)?;
        let (is_by_key, by_identity) = (termination.is_by_key(), termination.own_port.is_none());
        if termination.stage != Stage::Bound || self.rekeyings.former(session).is_some() {
            return Err(Refusal::Busy);
        }
        if !is_by_key {
            return Err(Refusal::Transport);
        }
        if psk.is_some_and(|psk| self.complete_key(session, identity, psk)) {
            return Ok(session);
        }
        let taken = self.session_by_identity(identity).is_some_and(|other| other != session);
        if by_identity && taken {
            return Err(Refusal::IdentityInUse);
        }
        self.withdraw_key(session);
        let termination = self.terminations.get_mut(session).ok_or(Refusal::TerminationId)?;
        termination.session_number = termination.session_number.wrapping_add(1);
        let deadline_ns = match psk {
            Some(_) => self.now_ns + self.limits.establishment_timeout_ns,
            None => u64::MAX,
        };
        let next = Next {
            credentials: Credentials::new(identity, psk),
            number: termination.session_number,
            connection: None,
            early: None,
            handshake_failed: false,
            deadline_ns,
        };
        self.rekeyings.under_way.entry(session).or_default().next = Some(next);
        if by_identity {
            self.rekeyings.by_identity.insert(identity.as_slice().into(), session);
        }
        Ok(session)
    }

    /// The key has come that an offer of ours has announced. False: none was.
    fn complete_key(&mut self, session: Key, identity: &[u8], psk: &Psk) -> bool {
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let next = self.rekeyings.next_mut(session);
        let announced = |next: &&mut Next| {
            !next.credentials.has_key() && next.credentials.identity() == identity
        };
        let Some(next) = next.filter(announced) else { return false };
        next.credentials = Credentials::new(identity, Some(psk));
        next.deadline_ns = deadline_ns;
        true
    }

    /// As client: the connection that is being made for the next key of a session.
    pub(crate) fn expect_rekeyed(&mut self, session: Key, connection: Key) {
        if let Some(next) = self.rekeyings.next_mut(session) {
            next.connection = Some(connection);
        }
    }

    /// What a TLS client has to know that claims a session which has a next key.
    pub(crate) fn next_claim(&self, session: Key) -> Option<(Claim, Psk)> {
        let next = self.rekeyings.next(session).filter(|next| next.connection.is_none())?;
        let claim = Claim { termination: session, session_number: next.number };
        Some((claim, next.credentials.psk()?))
    }

    /// As TLS client with the next key of a session: what it calls itself, and the key.
    pub(crate) fn next_credentials(&self, session: Key, connection: Key) -> Option<&Credentials> {
        let next = self.rekeyings.next(session)?;
        (next.connection == Some(connection)).then_some(&next.credentials)
    }

    /// Whether a claim is to the next key of its session.
    pub(crate) fn claims_next(&self, claim: Claim) -> bool {
        let next = self.rekeyings.next(claim.termination);
        next.is_some_and(|next| next.number == claim.session_number && next.connection.is_none())
    }

    /// A handshake under the next key of a session has failed; the peer may still come.
    pub(crate) fn next_handshake_failed(&mut self, claim: Claim) {
        if let Some(next) = self.rekeyings.next_mut(claim.termination) {
            next.handshake_failed |= next.number == claim.session_number;
        }
    }

    /// The session that a connection is beside: one that is about to take its session over, or one its
    /// session has left.
    pub(crate) fn session_beside(&self, key: Key) -> Option<Key> {
        if self.rekeyings.is_empty() {
            return None;
        }
        let session = self.connections.get(key)?.only_session()?;
        let termination = self.terminations.get(session)?;
        let is_beside = termination.stage == Stage::Bound && termination.connection != Some(key);
        is_beside.then_some(session)
    }

    /// The connection a session has left, as long as it is there.
    pub(crate) fn former_connection(&self, session: Key) -> Option<Key> {
        if self.rekeyings.is_empty() {
            return None;
        }
        self.rekeyings.former(session).map(|former| former.connection)
    }

    /// The other one of the two connections of a session that has moved.
    pub(crate) fn other_connection(&self, session: Key, key: Key) -> Option<Key> {
        let former = self.former_connection(session)?;
        let current = self.terminations.get(session)?.connection;
        if former == key { current } else { Some(former) }
    }

    /// The connection that knows what the session of a connection is in the middle of: that one itself,
    /// unless the session has moved.
    pub(crate) fn home(&self, key: Key) -> Key {
        let session = self.session_beside(key).and_then(|session| self.terminations.get(session));
        session.and_then(|session| session.connection).unwrap_or(key)
    }

    /// Whether another chunk of a message is coming in on the other connection of its session.
    pub(crate) fn is_received_beside(&self, session: Key, key: Key, message: Key) -> bool {
        let other = self.other_connection(session, key).and_then(|key| self.connections.get(key));
        other.is_some_and(|other| {
            matches!(&other.incoming, Incoming::Forward(forward) if forward.message == message)
        })
    }

    /// A connection is secured with the next key of a session: the session moves to it.
    pub(crate) fn move_over(&mut self, key: Key, session: Key) {
        let Some(next) = self.rekeyings.take_next(session) else { return };
        if let Some(early) = next.early.filter(|&early| early != key) {
            self.release(early, ReleaseCause::TlsEstablishmentFailure, Ending::Graceful);
        }
        let Some(termination) = self.terminations.get_mut(session) else { return };
        let Some(former_key) = termination.connection.replace(key) else { return };
        self.events.push_back(Event::Rekeyed { termination: termination.id });
        self.metrics.rekeyings_completed += 1;
        let Some(former) = self.connections.get_mut(former_key) else { return };
        // What is open goes on as a chunk of its own over there.
        if former.end_chunk(&mut self.send_buffers, Continuation::More).is_err() {
            self.unserved.push(former_key);
        }
        let (mut messages, mut declined) = (Vec::new(), Vec::new());
        if !former.is_resting() {
            messages = std::mem::take(&mut former.messages);
            declined = std::mem::take(&mut former.declined);
        }
        self.mark(former_key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.life = Life::Open;
        connection.deadline_ns = u64::MAX;
        if !connection.sessions.contains(&session) {
            connection.sessions.push(session);
        }
        connection.messages.append(&mut messages);
        connection.declined.append(&mut declined);
        let source = connection.settle();
        self.settle_unbound(source);
        let until_ns = self.now_ns + FORMER_CONNECTION_NS;
        let former = Former { connection: former_key, settled: false, until_ns };
        self.rekeyings.under_way.entry(session).or_default().former = Some(former);
        self.settle_former(former_key);
    }

    /// Whether a connection must not send yet: what its session has sent on the former one comes first.
    pub(crate) fn is_behind_former(&self, key: Key) -> bool {
        if self.rekeyings.is_empty() {
            return false;
        }
        let session = self.connections.get(key).and_then(Connection::only_session);
        let former = session.and_then(|session| self.rekeyings.former(session));
        former.is_some_and(|former| former.connection != key && !former.settled)
    }

    /// Something has left a connection, or was answered: where that was the last of what its session
    /// had sent on it, the session goes on over the new one.
    pub(crate) fn settle_former(&mut self, key: Key) {
        let Some(session) = self.session_beside(key) else { return };
        if self.owes(key) {
            return;
        }
        let rekeying = self.rekeyings.under_way.get_mut(&session);
        let former = rekeying.and_then(|rekeying| rekeying.former.as_mut());
        let Some(former) = former.filter(|former| former.connection == key && !former.settled)
        else {
            return;
        };
        former.settled = true;
        if let Some(current) = self.terminations.get(session).and_then(|it| it.connection) {
            self.mark(current);
        }
    }

    /// Whether something has not left a connection, or not been answered on it.
    fn owes(&self, key: Key) -> bool {
        self.connections.get(key).is_some_and(|connection| {
            !connection.egress.is_empty()
                || connection.egress.is_in_flight()
                || connection.outstanding.awaits_answer()
        })
    }

    /// A connection beside that of its session is over.
    pub(crate) fn release_beside(
        &mut self,
        key: Key,
        session: Key,
        cause: ReleaseCause,
        ending: Ending,
    ) {
        if self.former_connection(session) != Some(key) {
            self.fail_rekeying(session, cause, ending);
        } else if self.owes(key) {
            // Nobody can say what of it has arrived, and a receiver gets every byte up to some point.
            self.metrics.count_release(cause);
            self.lose_session(session, cause);
            self.detach(session, Ending::Graceful);
        } else {
            if ending == Ending::Graceful {
                self.take_silence_well(key);
            }
            self.part_from_former(session, ending);
        }
        // However its session has taken it.
        self.end(key, ending);
    }

    /// The next key of a session has led to nothing; the session stays with the one it has.
    fn fail_rekeying(&mut self, session: Key, cause: ReleaseCause, ending: Ending) {
        let Some(next) = self.rekeyings.take_next(session) else { return };
        self.metrics.rekeyings_failed += 1;
        if let Some(termination) = self.terminations.get(session).map(|it| it.id) {
            self.events.push_back(Event::RekeyingFailed { termination, cause });
        }
        self.discard_next(session, &next, ending);
    }

    /// The next key of a session is not to be used.
    pub(crate) fn withdraw_key(&mut self, session: Key) {
        if let Some(next) = self.rekeyings.take_next(session) {
            self.discard_next(session, &next, Ending::Graceful);
        }
    }

    fn discard_next(&mut self, session: Key, next: &Next, ending: Ending) {
        if let Some(early) = next.early {
            self.release(early, ReleaseCause::TlsEstablishmentFailure, Ending::Graceful);
        }
        let Some(key) = next.connection else { return };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.sessions.remove(session);
        }
        self.end(key, ending);
    }

    /// Ends the connection that a session has left.
    fn part_from_former(&mut self, session: Key, ending: Ending) {
        let Some(key) = self.former_connection(session) else { return };
        self.give_up_cut_message(key);
        self.fail_session(key, session);
        self.rekeyings.take_former(session);
        if let Some(context_key) = self.terminations.get(session).map(|it| it.context) {
            self.settle_back_pressure(key, session, context_key);
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.sessions.remove(session);
        }
        self.end(key, ending);
    }

    /// The rest of a chunk that is coming in does not come any more. What the peer sends of its message
    /// over the other connection would be written into the chunk the receivers have open.
    fn give_up_cut_message(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key).filter(|it| !it.is_resting()) else {
            return;
        };
        if let Incoming::Forward(forward) = &connection.incoming {
            self.abandon_message(key, forward.message, 408);
        }
    }

    /// Whether a connection must be read whoever lags in its Context: the answers on it are what its
    /// session, and thereby every laggard there, waits for.
    pub(crate) fn is_waited_for(&self, key: Key, context_key: Key) -> bool {
        if self.rekeyings.is_empty() {
            return false;
        }
        let former = self.session_beside(key).and_then(|session| self.rekeyings.former(session));
        let Some(context) = self.contexts.get(context_key) else { return false };
        former.is_some_and(|former| former.connection == key && !former.settled)
            && context.members.iter().all(|&member| self.lags_behind_former_at_most(member))
    }

    fn lags_behind_former_at_most(&self, session: Key) -> bool {
        let current = self.terminations.get(session).and_then(|it| it.connection);
        [current, self.former_connection(session)].into_iter().flatten().all(|key| {
            self.connections.get(key).is_none_or(|it| it.lagging_since_ns.is_none())
                || self.is_behind_former(key)
        })
    }

    /// A session is over: neither its next key nor its former connection is of any use.
    pub(crate) fn end_rekeying(&mut self, session: Key) {
        if self.rekeyings.is_empty() {
            return;
        }
        self.withdraw_key(session);
        self.part_from_former(session, Ending::Graceful);
    }

    /// Timers of a session that changes its key.
    pub(crate) fn check_rekeying(&mut self, session: Key) {
        let Some(rekeying) = self.rekeyings.under_way.get(&session) else { return };
        if let Some(next) = &rekeying.next
            && self.now_ns >= next.deadline_ns
        {
            let cause = if next.handshake_failed {
                ReleaseCause::TlsEstablishmentFailure
            } else {
                ReleaseCause::TcpEstablishmentFailure
            };
            return self.fail_rekeying(session, cause, Ending::Graceful);
        }
        let Some(former) = &rekeying.former else { return };
        let key = former.connection;
        // A peer that is held back is not silent: what it has sent lies unread.
        let quiet = self.connections.get(key).is_none_or(|connection| {
            self.now_ns - connection.received_ns >= FORMER_QUIET_NS
                && connection.is_between_messages()
                && connection.wants_recv()
                && connection.recv == Recv::Armed
        });
        if self.now_ns >= former.until_ns {
            self.release_beside(key, session, ReleaseCause::TooSlow, Ending::Graceful);
        } else if quiet && former.settled && !self.owes(key) {
            self.take_silence_well(key);
            self.part_from_former(session, Ending::Graceful);
        }
    }
}

impl Termination {
    /// Whether its connection is one with a pre-shared key.
    fn is_by_key(&self) -> bool {
        matches!(self.protection, Protection::TlsPsk(_))
    }
}
