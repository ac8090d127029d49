//! What the controller asks of connection points, as far as no socket is concerned.

use std::net::SocketAddr;

use mrfp_io::Key;

use super::msrp::are_paths;
use super::point::{ConnectionPoint, SendingEnd, Stage};
use crate::mp::{
    Bearer, Establishment, Event, Refusal, RemoteConnectionPoint, ReserveConnectionPoint, Source,
    TerminationId, TlsRole,
};
use crate::plane::{Ending, Plane};

impl Plane {
    /// Whether a connection point can be made, before anything is made for it.
    pub(crate) fn check_connection_point_reserve(
        &self,
        reserve: &ReserveConnectionPoint,
    ) -> Result<(), Refusal> {
        let id = reserve.termination;
        let is_known = self.termination_by_id.get(&self.terminations, &id).is_some();
        if is_known || self.gateway.named(id).is_some() {
            return Err(Refusal::TerminationId);
        }
        if self.gateway.is_pair_full(reserve.context) {
            return Err(Refusal::ContextFull);
        }
        let is_mixed = self
            .gateway
            .bearer_in(reserve.context)
            .is_some_and(|bearer| bearer.is_datagrams() != reserve.bearer.is_datagrams());
        let cannot_be_spoken = reserve.bearer == Bearer::DtlsOverUdp && self.gateway.dtls.is_none();
        if is_mixed || cannot_be_spoken || self.gateway.interface(reserve.interface).is_none() {
            return Err(Refusal::Transport);
        }
        reserve.remote.as_ref().map_or(Ok(()), |remote| check_remote(reserve.bearer, remote))
    }

    /// Makes a connection point, whose port is there already: a listener where it is one of TCP.
    pub(crate) fn add_connection_point(
        &mut self,
        reserve: &ReserveConnectionPoint,
        listener: Option<Key>,
    ) -> Result<Key, Refusal> {
        let identity = if reserve.bearer.is_protected() {
            let Some(identity) = self.gateway.take_certificate() else {
                self.metrics.gateway_certificates_exhausted += 1;
                return Err(Refusal::CertificatesExhausted);
            };
            self.metrics.gateway_certificates_used += 1;
            Some(identity)
        } else {
            None
        };
        let mut point = ConnectionPoint::new(reserve, identity);
        point.listener = listener;
        let made = self.gateway.insert(reserve.context, point);
        *self.points_of(reserve.bearer) += u64::from(made.is_some());
        made.ok_or(Refusal::TerminationsExhausted)
    }

    /// A connection point that is not subtracted.
    pub(crate) fn living_point(&self, id: TerminationId) -> Result<Key, Refusal> {
        let key = self.gateway.named(id).ok_or(Refusal::TerminationId)?;
        let lives = |point: &&ConnectionPoint| point.stage < Stage::Subtracted;
        self.gateway.point(key).filter(lives).map(|_| key).ok_or(Refusal::TerminationId)
    }

    /// Takes over the peer's side, and begins what follows from it.
    pub(crate) fn configure_point(
        &mut self,
        key: Key,
        remote: RemoteConnectionPoint,
        afresh: bool,
    ) -> Result<(), Refusal> {
        let point = self.gateway.point_mut(key).ok_or(Refusal::TerminationId)?;
        check_remote(point.bearer, &remote)?;
        let is_new = point.remote.as_deref() != Some(&remote);
        point.remote = Some(Box::new(remote));
        if point.bearer.is_datagrams() {
            self.configure_datagrams(key, is_new, afresh);
            return Ok(());
        }
        match point.stage {
            Stage::Reserved => self.establish(key),
            Stage::Establishing if is_new || afresh => self.begin_anew(key),
            Stage::Up | Stage::Released if afresh => self.begin_anew(key),
            Stage::Establishing | Stage::Up | Stage::Released | Stage::Subtracted => {}
        }
        // It was ended with this side, so that nothing may have changed for its peer: without it this one
        // would come back to nobody.
        let other = self.gateway.other(key).filter(|_| afresh);
        if let Some(other) = other
            && self.gateway.point(other).is_some_and(|other| other.stage == Stage::Released)
        {
            self.begin_anew(other);
        }
        Ok(())
    }

    fn begin_anew(&mut self, key: Key) {
        self.give_up_connection(key);
        self.establish(key);
    }

    /// The connection a point has is not its own any more: what is queued leaves, then it ends.
    fn give_up_connection(&mut self, key: Key) {
        let Some(point) = self.gateway.point_mut(key) else { return };
        point.received_end = false;
        point.end = SendingEnd::No;
        if let Some(connection) = point.connection.take() {
            self.end(connection, Ending::Graceful);
            self.mark(connection);
        }
    }

    /// Subtracts a connection point; the event follows once its connection is gone. Returns its listener,
    /// which the shard must end.
    pub(crate) fn subtract_point(&mut self, key: Key) -> Option<Key> {
        let deadline_ns = self.now_ns + self.limits.drain_timeout_ns;
        let point = self.gateway.point_mut(key)?;
        if point.stage == Stage::Subtracted {
            return None;
        }
        let was_up = point.stage == Stage::Up;
        point.stage = Stage::Subtracted;
        if was_up {
            self.end_association(key);
        }
        let point = self.gateway.point_mut(key)?;
        let (listener, other) = (point.listener.take(), point.other);
        let (connection, early) = (point.connection, std::mem::take(&mut point.early));
        self.gateway.unlink(key);
        early.into_iter().for_each(|early| self.end(early, Ending::Abort));
        other.into_iter().for_each(|other| self.regulate(other));
        match connection {
            Some(connection) => {
                self.end(connection, Ending::Graceful);
                if let Some(connection) = self.connections.get_mut(connection) {
                    connection.deadline_ns = connection.deadline_ns.min(deadline_ns);
                }
            }
            None => self.finish_point(key),
        }
        listener
    }

    /// Takes a connection point back that could not be completed; nothing of it is left.
    pub(crate) fn unreserve_point(&mut self, key: Key) {
        let events = self.events.len();
        self.gateway.unlink(key);
        self.finish_point(key);
        self.events.truncate(events);
    }

    /// Takes a subtracted connection point off the tables once its connection is gone.
    pub(super) fn finish_point(&mut self, key: Key) {
        self.drop_passing(key);
        let Some(point) = self.gateway.remove(key) else { return };
        assert!(point.connection.is_none());
        *self.points_of(point.bearer) -= 1;
        if let Some(mut held) = point.held {
            held.discard(&mut self.send_buffers);
        }
        let statistics = point.statistics;
        self.events.push_back(Event::Subtracted { termination: point.id, statistics });
    }
}

/// Whether the peer's side is complete.
fn check_remote(bearer: Bearer, remote: &RemoteConnectionPoint) -> Result<(), Refusal> {
    let needs_address = match remote.establishment {
        Establishment::Incoming => false,
        Establishment::AtOnce | Establishment::WhenOtherComesIn => true,
    };
    let has_address = remote.address.is_some_and(|address: SocketAddr| address.port() != 0);
    let needs_address = match bearer {
        Bearer::Tcp | Bearer::TlsOverTcp => needs_address,
        Bearer::Udp => remote.source == Source::Address,
        Bearer::DtlsOverUdp => {
            remote.source == Source::Address || remote.tls_role == TlsRole::Client
        }
    };
    if (needs_address && !has_address)
        || (bearer.is_protected() && remote.fingerprints.is_empty())
        || remote.msrp.as_ref().is_some_and(|msrp| bearer.is_datagrams() || !are_paths(msrp))
    {
        return Err(Refusal::Transport);
    }
    Ok(())
}
