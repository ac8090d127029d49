//! The sockets of connection points.

use std::net::SocketAddr;

use mrfp_io::{Driver, Errno, Key, Listen, Operation, Spliced, Token};
use mrfp_protocol::tls::Fingerprint;

use super::{LISTENER_CLOSED, Listener, Shard, Stopping, advertised};
use crate::config::Interface;
use crate::connection::{Connection, Life, Recv};
use crate::mp::{Refusal, ReleaseCause, RemoteConnectionPoint, ReserveConnectionPoint};
use crate::plane::Ending;

/// Connections the kernel holds for a connection point before they are taken: one is wanted.
const POINT_BACKLOG: i32 = 2;

impl<D: Driver> Shard<D> {
    /// A connection point with a port of its own; where the peer is to connect to, and what our
    /// certificate is known by.
    pub(super) fn reserve_connection_point(
        &mut self,
        mut reserve: ReserveConnectionPoint,
    ) -> Result<(SocketAddr, Option<Fingerprint>), Refusal> {
        if self.stopping != Stopping::No {
            return Err(Refusal::Stopping);
        }
        self.plane.check_connection_point_reserve(&reserve)?;
        let remote = reserve.remote.take();
        let interface =
            self.plane.gateway.interface(reserve.interface).ok_or(Refusal::Transport)?;
        if reserve.bearer.is_datagrams() {
            return self.reserve_datagram_point(&reserve, remote, interface);
        }
        let (listener, address) = self.listen_on(interface)?;
        let made = self.plane.add_connection_point(&reserve, Some(listener));
        let key = made.inspect_err(|_| self.end_listener(listener))?;
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.point = Some(key);
        }
        if let Some(remote) = remote
            && let Err(refusal) = self.plane.configure_point(key, remote, false)
        {
            self.plane.unreserve_point(key);
            self.end_listener(listener);
            return Err(refusal);
        }
        let fingerprint = self.plane.gateway.point(key).and_then(|point| point.fingerprint());
        Ok((address, fingerprint))
    }

    /// One for datagrams: its port is a socket that hears anybody. Whose datagrams count is told by their source.
    fn reserve_datagram_point(
        &mut self,
        reserve: &ReserveConnectionPoint,
        remote: Option<RemoteConnectionPoint>,
        interface: Interface,
    ) -> Result<(SocketAddr, Option<Fingerprint>), Refusal> {
        if self.plane.connections.vacant().is_none() {
            return Err(Refusal::TerminationsExhausted);
        }
        let own = SocketAddr::new(interface.listen, 0);
        let no_port = |error: std::io::Error| {
            tracing::warn!(%error, "no UDP port for a connection point");
            Refusal::Transport
        };
        let (socket, address) = self.driver.bind_datagram(own).map_err(no_port)?;
        let made = self.driver.open_datagram(socket).map_err(no_port);
        let key = match made.and_then(|()| self.plane.add_connection_point(reserve, None)) {
            Ok(key) => key,
            Err(refusal) => {
                self.driver.close(socket, Token::new(Operation::Close, LISTENER_CLOSED));
                return Err(refusal);
            }
        };
        let connection = Connection::new(socket, Life::Open, self.plane.now_ns, u64::MAX);
        let inserted = self.plane.connections.insert(connection.of_datagram_point(key));
        let connection = inserted.unwrap_or_else(|_| unreachable!("there is room for it"));
        self.plane.mark(connection);
        if let Some(point) = self.plane.gateway.point_mut(key) {
            point.connection = Some(connection);
        }
        if let Some(remote) = remote {
            // Reserving has checked all that could be refused.
            self.plane.configure_point(key, remote, false)?;
        }
        let fingerprint = self.plane.gateway.point(key).and_then(|point| point.fingerprint());
        Ok((advertised(interface.advertise, address), fingerprint))
    }

    fn listen_on(&mut self, interface: Interface) -> Result<(Key, SocketAddr), Refusal> {
        let key = self.listeners.vacant().ok_or(Refusal::Transport)?;
        let options = Listen { backlog: POINT_BACKLOG, reuse_port: false };
        let token = Token::new(Operation::Accept, key);
        let own = SocketAddr::new(interface.listen, 0);
        let (socket, address) = self.driver.listen(own, options, token).map_err(|error| {
            tracing::warn!(%error, "no port for a connection point");
            Refusal::Transport
        })?;
        let listener = Listener::new(socket, false);
        assert!(self.listeners.insert(listener).is_ok_and(|made| made == key));
        Ok((key, advertised(interface.advertise, address)))
    }

    /// Starts the connections of connection points whose time has come.
    pub(super) fn start_gateway_connects(&mut self) {
        while let Some(point_key) = self.plane.gateway.next_to_connect() {
            if self.stopping != Stopping::No {
                // Nobody would end it any more.
                continue;
            }
            let Some(connect) = self.plane.connect_of_point(point_key) else { continue };
            let started = self.plane.connections.vacant().and_then(|key| {
                let token = Token::new(Operation::Connect, key);
                let own = connect.source;
                let started = match own.is_unspecified() {
                    true => self.driver.connect(connect.remote, token),
                    false => self.driver.connect_from(own, connect.remote, token),
                };
                let failed = |error: &_| tracing::debug!(%error, "no way to the peer");
                Some((key, started.inspect_err(failed).ok()?))
            });
            let Some((key, socket)) = started else {
                let cause = ReleaseCause::TcpEstablishmentFailure;
                self.plane.report_released(point_key, cause);
                continue;
            };
            let now_ns = self.plane.now_ns;
            let mut connection =
                Connection::new(socket, Life::Connecting, now_ns, connect.deadline_ns)
                    .of_gateway(point_key);
            connection.connect_in_flight = true;
            assert!(self.plane.connections.insert(connection).is_ok_and(|made| made == key));
            if let Some(point) = self.plane.gateway.point_mut(point_key) {
                point.connection = Some(key);
            }
        }
    }

    /// Waits for more of a file, once what has come of it has left.
    pub(super) fn await_bulk(&mut self, key: Key) {
        let taker = self.plane.taker_of_bulk(key);
        let Some(connection) = self.plane.connections.get_mut(key) else { return };
        let Some(taker) = taker else {
            connection.is_bulk = false;
            return self.plane.mark(key);
        };
        if self.plane.has_left(taker)
            && let Some(connection) = self.plane.connections.get_mut(key)
            && let Some(socket) = connection.socket
        {
            connection.recv = Recv::Awaited;
            self.driver.await_readable(socket, Token::new(Operation::Recv, key));
        }
    }

    /// More of a file has come, or its end.
    pub(super) fn readable(&mut self, key: Key, result: Result<(), Errno>) {
        let Some(connection) = self.plane.connections.get_mut(key) else { return };
        connection.recv = Recv::Idle;
        let (from, reads) = (connection.socket, result.is_ok() && connection.wants_recv());
        self.plane.mark(key);
        let taker = self.plane.taker_of_bulk(key).filter(|&it| reads && self.plane.has_left(it));
        let to = taker.and_then(|taker| Some((taker, self.plane.connections.get(taker)?.socket?)));
        let (Some(from), Some((taker, to))) = (from, to) else { return };
        match self.driver.splice(from, to) {
            Ok(Some(Spliced { passed, rest })) => {
                self.plane.gateway_spliced(key, taker, passed, rest);
            }
            Ok(None) => {
                self.receives_no_more(key);
                self.plane.received_end(key);
            }
            Err(_) => {
                self.receives_no_more(key);
                self.plane.release(key, ReleaseCause::ConnectionLost, Ending::Abort);
            }
        }
    }

    fn receives_no_more(&mut self, key: Key) {
        if let Some(connection) = self.plane.connections.get_mut(key) {
            connection.recv = Recv::Ended;
        }
    }
}
