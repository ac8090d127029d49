//! The sockets of BFCP over UDP.

use std::net::SocketAddr;

use mrfp_io::{Driver, Key, Operation, Token};

use super::{LISTENER_CLOSED, Shard, advertised};
use crate::connection::{Connection, Life, Spoken, Transport};
use crate::mp::{
    FloorTransport, ModifyFloorControl, Refusal, ReplaceFloorControl, ReserveFloorControl,
    TerminationId,
};

impl<D: Driver> Shard<D> {
    /// A Termination with a socket of its own. `remote`: none while an offer of ours is unanswered.
    pub(super) fn reserve_datagrams(
        &mut self,
        reserve: ReserveFloorControl,
        remote: Option<SocketAddr>,
    ) -> Result<SocketAddr, Refusal> {
        let remote = expected(remote, reserve.unanswered)?;
        let key = self.plane.reserve_floor_control(reserve, None)?;
        let opened = self.open_datagrams(key, remote);
        opened.inspect_err(|_| self.plane.unreserve(key))
    }

    /// The answer to such an offer.
    pub(super) fn modify_datagrams(&mut self, modify: &ModifyFloorControl) -> Result<(), Refusal> {
        let FloorTransport::Udp { remote: Some(remote) } = modify.transport else {
            return Err(Refusal::Transport);
        };
        let session = self.plane.modify_floor_control(modify)?;
        let termination = self.plane.terminations.get(session);
        let key = termination.and_then(|it| it.connection).ok_or(Refusal::Transport)?;
        let now_ns = self.plane.now_ns;
        let connection = self.plane.connections.get_mut(key).ok_or(Refusal::Transport)?;
        let socket = connection.socket.ok_or(Refusal::Transport)?;
        self.driver.connect_datagram(socket, remote).map_err(|_| Refusal::Transport)?;
        connection.life = Life::Unbound;
        connection.deadline_ns = now_ns + self.plane.limits.establishment_timeout_ns;
        self.plane.mark(key);
        Ok(())
    }

    /// Another socket for a user that has a Termination.
    pub(super) fn replace_datagrams(
        &mut self,
        replace: ReplaceFloorControl,
        remote: Option<SocketAddr>,
    ) -> Result<SocketAddr, Refusal> {
        let remote = expected(remote, replace.unanswered)?;
        let listener = self.own_listener(replace.termination);
        let key = self.plane.replace_floor_control(replace)?;
        listener.into_iter().for_each(|listener| self.end_listener(listener));
        if let Some(termination) = self.plane.terminations.get_mut(key) {
            termination.own_port = None;
        }
        let opened = self.open_datagrams(key, remote);
        opened.inspect_err(|_| self.plane.leave_context(key))
    }

    fn own_listener(&self, termination: TerminationId) -> Option<Key> {
        self.plane.own_port(termination).map(|own| own.listener)
    }

    /// Opens a socket for a Termination, which has none; its address, as the peer is to reach it.
    fn open_datagrams(
        &mut self,
        session: Key,
        remote: Option<SocketAddr>,
    ) -> Result<SocketAddr, Refusal> {
        if self.plane.connections.vacant().is_none() {
            return Err(Refusal::TerminationsExhausted);
        }
        let own = SocketAddr::new(self.address.ip(), 0);
        let (socket, address) = self.driver.bind_datagram(own).map_err(|error| {
            tracing::warn!(%error, "no UDP port for a Termination");
            Refusal::Transport
        })?;
        let connected = remote.map(|remote| self.driver.connect_datagram(socket, remote));
        if let Some(Err(error)) = connected {
            tracing::debug!(%error, "no way to the peer");
            self.driver.close(socket, Token::new(Operation::Close, LISTENER_CLOSED));
            return Err(Refusal::Transport);
        }
        let now_ns = self.plane.now_ns;
        let (life, deadline_ns) = match remote {
            Some(_) => (Life::Unbound, now_ns + self.plane.limits.establishment_timeout_ns),
            None => (Life::Connecting, u64::MAX),
        };
        let mut connection = Connection::new(socket, life, now_ns, deadline_ns);
        connection.transport = Transport::Datagrams;
        connection.spoken = Spoken::Bfcp;
        connection.sessions.push(session);
        let inserted = self.plane.connections.insert(connection);
        let key = inserted.unwrap_or_else(|_| unreachable!("there is room for it"));
        if let Some(termination) = self.plane.terminations.get_mut(session) {
            termination.connection = Some(key);
        }
        self.plane.mark(key);
        Ok(advertised(self.advertise, address))
    }
}

/// The peer's address is there unless an offer of ours is unanswered.
fn expected(remote: Option<SocketAddr>, unanswered: bool) -> Result<Option<SocketAddr>, Refusal> {
    match (remote, unanswered) {
        (None, false) => Err(Refusal::Transport),
        (_, true) => Ok(None),
        (Some(_), false) => Ok(remote),
    }
}
