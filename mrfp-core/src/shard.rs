//! One thread, one driver, one set of tables: the turn, and the one match on completions.

mod datagrams;
mod gateway;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mrfp_io::{
    AcceptedSocket, Completion, Consumer, Doorbell, Driver, Errno, Key, Listen, Operation,
    Producer, RecvBuffer, SendBuffer, Socket, Token,
};
use mrfp_protocol::tls::Profile;

use crate::config::{
    COMMANDS_PER_TURN_MAX, COMPLETIONS_PER_TURN_MAX, COPIES_PER_TURN_MAX,
    HANDSHAKE_FLIGHTS_PER_TURN_MAX, HOUSEKEEPING_INTERVAL_NS, Limits, SPLICED_BYTES_PER_TURN_MAX,
};
use crate::connection::{Connection, Life, Origin, Recv, Transport};
use crate::egress::Form;
use crate::gateway::{Gateway, GatewayParts};
use crate::metrics::PublishedMetrics;
use crate::mp::{
    Command, ConfigureConnectionPoint, Event, FloorTransport, Modify, ModifyFloorControl, NextKey,
    Refusal, Rekey, ReleaseCause, ReplaceFloorControl, ReplaceSession, ReserveAndConfigure,
    ReserveFloorControl, TerminationId, TlsRole,
};
use crate::plane::{Ending, Plane};
use crate::relay::{Link, PROBATION_NS, Relay, RelayConfig};
use crate::table::Table;
use crate::termination::{OwnPort, remote_address};

/// The kernel's queue of connections that are not accepted yet; it cuts to its own maximum.
const LISTEN_BACKLOG: i32 = 4_096;
/// Listeners of no Termination: the shared one, and the two of the relay.
const LISTENERS_SHARED_MAX: usize = 3;

/// What a shard is made of, beside its driver.
pub struct ShardParts {
    /// Limits and timers.
    pub limits: Limits,
    /// TLS suites and versions.
    pub profile: Profile,
    /// The shared media port.
    pub listen: SocketAddr,
    /// Address to announce instead of the one listened on.
    pub advertise: Option<IpAddr>,
    /// The relay, where there is one.
    pub relay: Option<RelayParts>,
    /// The gateway, where the node is one.
    pub gateway: Option<GatewayParts>,
    /// Random and secret in production, fixed in a simulation.
    pub seed: [u8; 32],
    /// Commands from the controller.
    pub commands: Consumer<Command>,
    /// Events to the controller.
    pub events: Producer<Event>,
    /// Wakes the controller after events.
    pub doorbell: Doorbell,
    /// Where counters are published.
    pub metrics: Arc<PublishedMetrics>,
}

/// What a shard's relay is made of.
#[derive(Clone, Debug)]
pub struct RelayParts {
    /// The relay of the node.
    pub config: RelayConfig,
    /// The port that is this shard's alone, port 0 picks one.
    pub own_listen: SocketAddr,
}

/// One shard.
pub struct Shard<D: Driver> {
    driver: D,
    plane: Plane,
    listeners: Table<Listener>,
    address: SocketAddr,
    relay_address: Option<SocketAddr>,
    advertise: Option<IpAddr>,
    commands: Consumer<Command>,
    events: Producer<Event>,
    doorbell: Doorbell,
    metrics: Arc<PublishedMetrics>,
    housekeeping_due_ns: u64,
    stopping: Stopping,
    work_left: bool,
}

struct Listener {
    socket: Socket,
    /// The Termination whose own port this is; `None` for the shared ports.
    termination: Option<Key>,
    /// The connection point of the gateway whose port this is.
    point: Option<Key>,
    /// Whether it is a port of the relay.
    relay: bool,
    accepting: bool,
    ending: bool,
}

impl Listener {
    fn new(socket: Socket, relay: bool) -> Self {
        Self { socket, termination: None, point: None, relay, accepting: true, ending: false }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopping {
    No,
    Asked,
    Reported,
}

impl<D: Driver> Shard<D> {
    /// Listens on the shared port. Fails as `bind` and `listen` do.
    pub fn new(mut driver: D, parts: ShardParts) -> std::io::Result<Self> {
        // Beside the shared ones, one for each Termination and connection point with a port of its own.
        let own_ports_max = match parts.gateway {
            Some(_) => 2 * parts.limits.terminations_max,
            None => parts.limits.terminations_max,
        };
        let mut listeners = Table::new(LISTENERS_SHARED_MAX + own_ports_max);
        let key = Key { index: 0, generation: 0 };
        let options = Listen { backlog: LISTEN_BACKLOG, reuse_port: false };
        let token = Token::new(Operation::Accept, key);
        let (socket, address) = driver.listen(parts.listen, options, token)?;
        let listener = Listener::new(socket, false);
        assert!(listeners.insert(listener).is_ok_and(|made| made == key));
        let reached_at = advertised(parts.advertise, address);
        let mut plane = Plane::new(parts.limits, parts.profile, reached_at, parts.seed);
        if let Some(gateway) = parts.gateway {
            plane.gateway = Gateway::new(gateway, &parts.limits);
        }
        let mut relay_address = None;
        if let Some(relay) = parts.relay {
            let own = listen_relay(&mut driver, &mut listeners, relay.own_listen, false)?;
            let known = listen_relay(&mut driver, &mut listeners, relay.config.listen, true)?;
            let config = RelayConfig { listen: known, ..relay.config };
            relay_address = Some(known);
            plane.relay = Some(Box::new(Relay::new(config, own.port(), parts.seed)));
        }
        Ok(Self {
            driver,
            plane,
            listeners,
            address,
            relay_address,
            advertise: parts.advertise,
            commands: parts.commands,
            events: parts.events,
            doorbell: parts.doorbell,
            metrics: parts.metrics,
            housekeeping_due_ns: 0,
            stopping: Stopping::No,
            work_left: false,
        })
    }

    /// The shared port, as peers are to reach it.
    pub fn address(&self) -> SocketAddr {
        self.plane.address
    }

    /// The port clients of the relay know, where there is one, as peers are to reach it.
    pub fn relay_address(&self) -> Option<SocketAddr> {
        self.relay_address.map(|address| advertised(self.advertise, address))
    }

    /// The driver, for a simulation to play the peers.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Turns until a `Stop` has been carried out.
    pub fn run(&mut self) -> std::io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// One turn: commands, completions, timers, flush, wait. False: stopped.
    pub fn turn(&mut self) -> std::io::Result<bool> {
        self.plane.now_ns = self.driver.now_ns();
        self.plane.metrics.turns += 1;
        self.plane.handshake_flights = 0;
        self.plane.copies = 0;
        self.plane.spliced_bytes = 0;
        self.work_left = false;
        self.drain_commands();
        self.drain_completions();
        if !self.work_left {
            // What has come while those were handled goes out together with them: fewer, fuller sends.
            self.driver.look()?;
            self.drain_completions();
        }
        if self.plane.now_ns >= self.housekeeping_due_ns {
            self.housekeeping_due_ns = self.plane.now_ns + HOUSEKEEPING_INTERVAL_NS;
            self.plane.housekeeping();
            self.resume_accepting();
            self.plane.measure();
            self.metrics.publish(&self.plane.metrics);
            self.metrics.publish_realms(&self.plane.realms);
            self.plane.publish_floor_control(&self.metrics);
        }
        self.plane.tell_of_floors();
        self.plane.drop_unserved();
        self.plane.relieve();
        self.start_connects();
        self.start_gateway_connects();
        self.attend_dirty();
        self.report();
        if self.stopping == Stopping::Reported && self.plane.events.is_empty() {
            return Ok(false);
        }
        let floors_due_ns = self.plane.floors.next_deadline_ns().unwrap_or(u64::MAX);
        let due_ns = self.housekeeping_due_ns.min(floors_due_ns);
        let deadline_ns = if self.work_left { 0 } else { due_ns };
        self.driver.wait(Some(deadline_ns))?;
        Ok(true)
    }

    /// Control first, bounded; and only while its answers find room.
    fn drain_commands(&mut self) {
        for _ in 0..COMMANDS_PER_TURN_MAX {
            if !self.plane.events.is_empty() {
                return;
            }
            let Some(command) = self.commands.pop() else { return };
            self.command(command);
            self.report();
        }
        self.work_left = true;
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::ReserveAndConfigure(reserve) => {
                let termination = reserve.termination;
                let done = self.reserve(*reserve);
                self.plane.events.push_back(reserved(termination, done));
            }
            Command::Modify(modify) => {
                let termination = modify.termination;
                let done = self.modify(&modify);
                self.plane.events.push_back(modified(termination, done));
            }
            Command::ReplaceSession(replace) => {
                let termination = replace.termination;
                let done = self.replace_session(*replace);
                self.plane.events.push_back(reserved(termination, done));
            }
            Command::Rekey(rekey) => {
                let termination = rekey.termination;
                let done = self.rekey(&rekey);
                // Nobody waits for it, and it could be taken for the answer to what comes next.
                if !matches!(rekey.key, NextKey::Withdrawn) {
                    self.plane.events.push_back(modified(termination, done));
                }
            }
            Command::Subtract { termination } => {
                let listener = match self.plane.gateway.named(termination) {
                    Some(point) => self.plane.subtract_point(point),
                    None => self.plane.subtract(termination),
                };
                if let Some(listener) = listener {
                    self.end_listener(listener);
                }
            }
            Command::ReserveFloorControl(reserve) => {
                let termination = reserve.termination;
                let done = self.reserve_floor_control(*reserve);
                self.plane.events.push_back(reserved(termination, done));
            }
            Command::ModifyFloorControl(modify) => {
                let termination = modify.termination;
                let done = self.modify_floor_control(&modify);
                self.plane.events.push_back(modified(termination, done));
            }
            Command::ReplaceFloorControl(replace) => {
                let termination = replace.termination;
                let done = self.replace_floor_control(*replace);
                self.plane.events.push_back(reserved(termination, done));
            }
            Command::ReserveConnectionPoint(reserve) => {
                let termination = reserve.termination;
                let event = match self.reserve_connection_point(*reserve) {
                    Ok((address, fingerprint)) => {
                        Event::ConnectionPointReserved { termination, address, fingerprint }
                    }
                    Err(reason) => Event::Refused { termination, reason },
                };
                self.plane.events.push_back(event);
            }
            Command::ConfigureConnectionPoint(configure) => {
                let ConfigureConnectionPoint { termination, remote, afresh } = *configure;
                let point = self.plane.living_point(termination);
                let done = point.and_then(|it| self.plane.configure_point(it, remote, afresh));
                self.plane.events.push_back(modified(termination, done));
            }
            Command::Floors { context, action } => {
                let answer = self.plane.floors(context, *action);
                self.plane.events.push_back(Event::Floors { context, answer });
            }
            Command::Audit { context } => self.plane.audit(context),
            Command::Resolved { id, addresses } => self.plane.resolved(id, &addresses),
            Command::Stop => self.stop(),
        }
    }

    fn reserve(&mut self, reserve: ReserveAndConfigure) -> Result<SocketAddr, Refusal> {
        if self.stopping != Stopping::No {
            return Err(Refusal::Stopping);
        }
        let remote = remote_address(reserve.setup).filter(|_| reserve.remote_path.is_some());
        let own_port = reserve.own_port && remote.is_none();
        let own_port = if own_port { Some(self.listen_own()?) } else { None };
        let address = own_port.map_or(self.plane.address, |own| own.address);
        let made = self.plane.reserve(reserve, own_port);
        self.complete_reservation(made, own_port, remote)?;
        Ok(address)
    }

    /// What a Termination has got beside its place: a port of its own, a connection on its way. Where one
    /// of them cannot be had nothing is left.
    fn complete_reservation(
        &mut self,
        made: Result<Key, Refusal>,
        own_port: Option<OwnPort>,
        remote: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let key = match made {
            Ok(key) => key,
            Err(refusal) => {
                own_port.into_iter().for_each(|own| self.end_listener(own.listener));
                return Err(refusal);
            }
        };
        if let Some(listener) = own_port.and_then(|own| self.listeners.get_mut(own.listener)) {
            listener.termination = Some(key);
        }
        if let Some(remote) = remote {
            self.connect(key, remote).inspect_err(|_| self.plane.unreserve(key))?;
        }
        Ok(())
    }

    fn modify(&mut self, modify: &Modify) -> Result<(), Refusal> {
        let key = self.plane.modify(modify)?;
        let done = match modify.remote.as_ref().and_then(|remote| remote_address(remote.setup)) {
            // Who connects is decided once in the life of a connection.
            Some(remote) if self.plane.awaits_connection(key) => self.connect(key, remote),
            Some(_) | None => Ok(()),
        };
        if modify.remote.is_some() {
            self.plane.resume_early(key);
        }
        done
    }

    fn replace_session(&mut self, replace: ReplaceSession) -> Result<SocketAddr, Refusal> {
        if self.stopping != Stopping::No {
            return Err(Refusal::Stopping);
        }
        let remote = replace.remote.as_ref().and_then(|remote| remote_address(remote.setup));
        let (key, address) = self.plane.replace_session(replace)?;
        if let Some(remote) = remote {
            self.connect(key, remote).inspect_err(|_| self.plane.leave_context(key))?;
        }
        Ok(address)
    }

    fn rekey(&mut self, rekey: &Rekey) -> Result<(), Refusal> {
        let session = self.plane.rekey(rekey)?;
        let NextKey::Agreed { setup, .. } = &rekey.key else { return Ok(()) };
        match remote_address(*setup) {
            Some(remote) => {
                let made = self.open_connection(session, remote);
                let key = made.inspect_err(|_| self.plane.withdraw_key(session))?;
                self.plane.expect_rekeyed(session, key);
            }
            None => self.plane.resume_early(session),
        }
        Ok(())
    }

    fn reserve_floor_control(
        &mut self,
        reserve: ReserveFloorControl,
    ) -> Result<SocketAddr, Refusal> {
        if self.stopping != Stopping::No {
            return Err(Refusal::Stopping);
        }
        if let FloorTransport::Udp { remote } = reserve.stream.transport {
            return self.reserve_datagrams(reserve, remote);
        }
        let remote = floor_control_remote(reserve.stream.transport, reserve.unanswered);
        let own_port = reserve.own_port && remote.is_none();
        let own_port = if own_port { Some(self.listen_own()?) } else { None };
        let address = own_port.map_or(self.plane.address, |own| own.address);
        let made = self.plane.reserve_floor_control(reserve, own_port);
        self.complete_reservation(made, own_port, remote)?;
        Ok(address)
    }

    fn modify_floor_control(&mut self, modify: &ModifyFloorControl) -> Result<(), Refusal> {
        if let FloorTransport::Udp { .. } = modify.transport {
            return self.modify_datagrams(modify);
        }
        let key = self.plane.modify_floor_control(modify)?;
        let done = match floor_control_remote(modify.transport, false) {
            Some(remote) if self.plane.awaits_connection(key) => self.connect(key, remote),
            Some(_) | None => Ok(()),
        };
        self.plane.resume_early(key);
        done
    }

    fn replace_floor_control(
        &mut self,
        replace: ReplaceFloorControl,
    ) -> Result<SocketAddr, Refusal> {
        if self.stopping != Stopping::No {
            return Err(Refusal::Stopping);
        }
        if let FloorTransport::Udp { remote } = replace.stream.transport {
            return self.replace_datagrams(replace, remote);
        }
        let remote = floor_control_remote(replace.stream.transport, replace.unanswered);
        let wanted = replace.own_port && remote.is_none();
        let known = self.plane.own_port(replace.termination);
        let made = if wanted && known.is_none() { Some(self.listen_own()?) } else { None };
        let key = match self.plane.replace_floor_control(replace) {
            Ok(key) => key,
            Err(refusal) => {
                made.into_iter().for_each(|own| self.end_listener(own.listener));
                return Err(refusal);
            }
        };
        let own_port = if wanted { known.or(made) } else { None };
        known.filter(|_| !wanted).into_iter().for_each(|own| self.end_listener(own.listener));
        if let Some(listener) = own_port.and_then(|own| self.listeners.get_mut(own.listener)) {
            listener.termination = Some(key);
        }
        if let Some(termination) = self.plane.terminations.get_mut(key) {
            termination.own_port = own_port.map(Box::new);
        }
        if let Some(remote) = remote {
            self.connect(key, remote).inspect_err(|_| self.plane.leave_context(key))?;
        }
        Ok(own_port.map_or(self.plane.address, |own| own.address))
    }

    /// A port for one Termination: the port is the binding.
    fn listen_own(&mut self) -> Result<OwnPort, Refusal> {
        let key = self.listeners.vacant().ok_or(Refusal::Transport)?;
        let address = SocketAddr::new(self.address.ip(), 0);
        let options = Listen { backlog: 1, reuse_port: false };
        let token = Token::new(Operation::Accept, key);
        let (socket, address) = self.driver.listen(address, options, token).map_err(|error| {
            tracing::warn!(%error, "no port for a Termination of its own");
            Refusal::Transport
        })?;
        let listener = Listener::new(socket, false);
        assert!(self.listeners.insert(listener).is_ok_and(|made| made == key));
        Ok(OwnPort { listener: key, address: advertised(self.advertise, address) })
    }

    /// TS 23.333 5.20.2: as TCP client, the MRFP starts the connection when told to.
    fn connect(&mut self, termination_key: Key, remote: SocketAddr) -> Result<(), Refusal> {
        if let Some(key) = self.plane.reusable(termination_key, remote) {
            self.plane.bind(key, termination_key);
            self.plane.send_binding_request(key, termination_key);
            return Ok(());
        }
        let key = self.open_connection(termination_key, remote)?;
        if let Some(termination) = self.plane.terminations.get_mut(termination_key) {
            termination.connection = Some(key);
        }
        Ok(())
    }

    /// Begins a connection of ours that is to carry that session.
    fn open_connection(
        &mut self,
        termination_key: Key,
        remote: SocketAddr,
    ) -> Result<Key, Refusal> {
        let key = self.plane.connections.vacant().ok_or(Refusal::TerminationsExhausted)?;
        let token = Token::new(Operation::Connect, key);
        let socket = self.driver.connect(remote, token).map_err(|_| Refusal::Transport)?;
        let now_ns = self.plane.now_ns;
        let deadline_ns = now_ns + self.plane.limits.unbound_timeout_ns;
        let mut connection = Connection::new(socket, Life::Connecting, now_ns, deadline_ns);
        connection.sessions.push(termination_key);
        connection.origin_mut().connected_to = Some(remote);
        connection.connect_in_flight = true;
        assert!(self.plane.connections.insert(connection).is_ok_and(|made| made == key));
        let own = self.plane.terminations.get(termination_key);
        if own.is_some_and(|termination| !termination.is_for_floors()) {
            self.plane.connected_to.insert(remote, key);
        }
        Ok(key)
    }

    fn end_listener(&mut self, key: Key) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        if listener.ending {
            return;
        }
        listener.ending = true;
        if listener.accepting {
            self.driver.cancel(Token::new(Operation::Accept, key));
        } else {
            let socket = listener.socket;
            self.listeners.remove(key);
            self.driver.close(socket, Token::new(Operation::Close, LISTENER_CLOSED));
        }
    }

    /// Stops accepting and ends every connection.
    fn stop(&mut self) {
        self.stopping = Stopping::Asked;
        let listeners: Vec<Key> = self.listeners.keys().collect();
        listeners.into_iter().for_each(|key| self.end_listener(key));
        let connections: Vec<Key> = self.plane.connections.keys().collect();
        for key in connections {
            self.plane.release(key, ReleaseCause::PeerClosed, Ending::Graceful);
            self.plane.mark(key);
        }
    }

    /// The one match on completions.
    fn drain_completions(&mut self) {
        for _ in 0..COMPLETIONS_PER_TURN_MAX {
            if self.plane.handshake_flights >= HANDSHAKE_FLIGHTS_PER_TURN_MAX
                || self.plane.copies >= COPIES_PER_TURN_MAX
                || self.plane.spliced_bytes >= SPLICED_BYTES_PER_TURN_MAX
            {
                break;
            }
            let Some(completion) = self.driver.next_completion() else { return };
            match completion {
                Completion::Accept { token, result, more } => {
                    self.accepted(token.key(), result, more);
                }
                Completion::Connect { token, result } => self.connected(token.key(), result),
                Completion::Recv { token, result, more } => {
                    self.received(token.key(), result, more);
                }
                Completion::Readable { token, result } => self.readable(token.key(), result),
                Completion::Send { token, result, buffer } => {
                    self.sent(token, result, buffer);
                }
                Completion::Close { token } => self.plane.closed(token.key()),
                Completion::Doorbell => {}
            }
        }
        self.work_left = true;
    }

    fn accepted(&mut self, key: Key, result: Result<AcceptedSocket, Errno>, more: bool) {
        let Some(listener) = self.listeners.get_mut(key) else {
            if let Ok(accepted) = result {
                self.refuse_socket(accepted.socket);
            }
            return;
        };
        let by = Listener { ..*listener };
        let socket = by.socket;
        if !more {
            listener.accepting = false;
            if listener.ending {
                self.listeners.remove(key);
                self.driver.close(socket, Token::new(Operation::Close, LISTENER_CLOSED));
            } else if result.is_ok() {
                listener.accepting = true;
                self.driver.accept(socket, Token::new(Operation::Accept, key));
            }
            // Without descriptors every accept fails at once; it is armed again when the timers
            // are looked at.
        }
        if let Ok(accepted) = result {
            self.admit(accepted, &by);
        }
    }

    /// Arms the accepts that have failed.
    fn resume_accepting(&mut self) {
        for index in 0..self.listeners.slots() {
            let Some(key) = self.listeners.key_at(index) else { continue };
            let Some(listener) = self.listeners.get_mut(key) else { continue };
            if !listener.accepting && !listener.ending {
                listener.accepting = true;
                self.driver.accept(listener.socket, Token::new(Operation::Accept, key));
            }
        }
    }

    fn admit(&mut self, accepted: AcceptedSocket, by: &Listener) {
        self.plane.metrics.connections_accepted += 1;
        let source = accepted.peer.ip();
        if self.stopping != Stopping::No || !self.plane.admit_unbound(source) {
            self.plane.metrics.connections_refused += 1;
            return self.refuse_socket(accepted.socket);
        }
        let now_ns = self.plane.now_ns;
        let timeout_ns = if by.relay { PROBATION_NS } else { self.plane.limits.unbound_timeout_ns };
        let deadline_ns = now_ns + timeout_ns;
        let mut connection = Connection::new(accepted.socket, Life::Unbound, now_ns, deadline_ns);
        connection.relay = by.relay.then(|| Box::new(Link::accepted()));
        let own_port_of = by.termination;
        let unbound_source = Some(source);
        *connection.origin_mut() = Origin { own_port_of, unbound_source, ..Origin::default() };
        if let Some(point) = by.point {
            connection = connection.of_gateway(point);
        }
        match self.plane.connections.insert(connection) {
            Ok(key) => {
                self.plane.mark(key);
                match by.point {
                    Some(point) => self.plane.bearer_came_in(key, point),
                    None => self.plane.greet(key),
                }
            }
            Err(_) => {
                self.plane.settle_unbound(Some(source));
                self.plane.metrics.connections_refused += 1;
                self.refuse_socket(accepted.socket);
            }
        }
    }

    /// There is no word for "full" before a protocol is spoken: the connection is closed.
    fn refuse_socket(&mut self, socket: Socket) {
        self.driver.shutdown(socket);
        self.driver.close(socket, Token::new(Operation::Close, LISTENER_CLOSED));
    }

    fn connected(&mut self, key: Key, result: Result<(), Errno>) {
        let Some(connection) = self.plane.connections.get_mut(key) else { return };
        connection.connect_in_flight = false;
        self.plane.mark(key);
        let Some(connection) = self.plane.connections.get_mut(key) else { return };
        if connection.life != Life::Connecting {
            return;
        }
        if result.is_err() {
            if let Some(link) = connection.relay.as_deref_mut()
                && !link.addresses.is_empty()
                && let Some(socket) = connection.socket.take()
            {
                self.driver.close(socket, Token::new(Operation::Close, LISTENER_CLOSED));
                return self.start_connect(key);
            }
            let cause = ReleaseCause::TcpEstablishmentFailure;
            return self.plane.release(key, cause, Ending::Abort);
        }
        connection.life = Life::Unbound;
        if let Some(point) = connection.point() {
            return self.plane.begin_bearer(key, point);
        }
        if connection.relay.is_some() {
            return self.plane.relay_connected(key);
        }
        let Some(termination_key) = connection.only_session() else { return };
        let termination = self.plane.terminations.get(termination_key);
        match termination.and_then(|termination| termination.tls_role(true)) {
            Some(TlsRole::Client) => self.plane.start_handshake(key, termination_key),
            // The ClientHello is the peer's to send.
            Some(TlsRole::Server) => {}
            None => {
                if let Some(connection) = self.plane.connections.get_mut(key) {
                    connection.transport = Transport::Plain;
                }
                self.plane.bind(key, termination_key);
                self.plane.send_binding_request(key, termination_key);
            }
        }
    }

    /// Starts the connections the relay has asked for.
    fn start_connects(&mut self) {
        while let Some(key) = self.plane.relay.as_mut().and_then(|relay| relay.to_connect.pop()) {
            self.start_connect(key);
        }
    }

    /// Tries the next address of a connection of the relay.
    fn start_connect(&mut self, key: Key) {
        while let Some(connection) = self.plane.connections.get_mut(key)
            && connection.life == Life::Connecting
            && let Some(link) = connection.relay.as_deref_mut()
        {
            let Some(address) = link.addresses.pop_front() else {
                let cause = ReleaseCause::TcpEstablishmentFailure;
                return self.plane.release(key, cause, Ending::Abort);
            };
            if let Ok(socket) = self.driver.connect(address, Token::new(Operation::Connect, key)) {
                connection.socket = Some(socket);
                connection.connect_in_flight = true;
                return;
            }
        }
    }

    fn received(&mut self, key: Key, result: Result<Option<RecvBuffer>, Errno>, more: bool) {
        // The flags come before the result: on success and on error.
        if let Some(connection) = self.plane.connections.get_mut(key) {
            let ended = match &result {
                Ok(None) => true,
                Ok(Some(_)) => false,
                Err(errno) => !matches!(*errno, Errno::NO_BUFFERS | Errno::CANCELED),
            };
            if ended || connection.recv == Recv::Ended {
                connection.recv = Recv::Ended;
            } else if !more {
                connection.recv = Recv::Idle;
            }
            self.plane.mark(key);
        }
        match result {
            Ok(Some(buffer)) => {
                let source = self.driver.recv_source(&buffer);
                let bytes = self.driver.recv_bytes(&buffer);
                match source {
                    Some(source) => self.plane.gateway_datagram(key, source, bytes),
                    None => self.plane.receive(key, bytes),
                }
                if buffer.is_bulk() {
                    self.plane.gateway_bulk(key);
                }
                self.driver.recv_release(buffer);
            }
            Ok(None) => self.plane.received_end(key),
            Err(Errno::NO_BUFFERS) => self.plane.metrics.recv_buffers_exhausted += 1,
            Err(Errno::CANCELED) => {}
            Err(_) => self.plane.release(key, ReleaseCause::ConnectionLost, Ending::Abort),
        }
    }

    fn sent(&mut self, token: Token, result: Result<usize, Errno>, mut buffer: SendBuffer) {
        let key = token.key();
        let Some(connection) = self.plane.connections.get_mut(key) else {
            return self.plane.send_buffers.put(buffer);
        };
        connection.sent_ns = self.plane.now_ns;
        if let Ok(count) = result {
            self.plane.metrics.bytes_sent += count as u64;
            buffer.advance(count);
            if !buffer.bytes().is_empty()
                && connection.life < Life::Terminating
                && let Some(socket) = connection.socket
            {
                return self.driver.send(socket, buffer, token);
            }
        }
        if buffer.bytes().is_empty() {
            connection.egress.sent(&buffer);
            connection.rest_after_handshake();
        } else {
            connection.egress.lost(&buffer);
        }
        self.plane.send_buffers.put(buffer);
        self.plane.gateway_has_left(key);
        self.plane.relax(key);
        self.plane.mark(key);
        if result.is_err() {
            self.plane.release(key, ReleaseCause::ConnectionLost, Ending::Abort);
            self.plane.end(key, Ending::Abort);
        }
    }

    /// Brings the driver in line with what the turn has decided for each connection it touched.
    fn attend_dirty(&mut self) {
        let mut index = 0;
        while let Some(&key) = self.plane.dirty.get(index) {
            index += 1;
            if let Some(connection) = self.plane.connections.get_mut(key) {
                connection.dirty = false;
            }
            self.attend(key);
        }
        self.plane.dirty.clear();
    }

    fn attend(&mut self, key: Key) {
        self.flush(key);
        if self.plane.take_end_of_direction(key)
            && let Some(socket) = self.plane.connections.get(key).and_then(|it| it.socket)
        {
            self.driver.shutdown_write(socket);
        }
        let awaits_end = self.stopping == Stopping::No && self.plane.awaits_end_of_peer(key);
        let Some(connection) = self.plane.connections.get_mut(key) else { return };
        match (connection.recv, connection.wants_recv()) {
            (Recv::Idle, true) if connection.is_bulk => self.await_bulk(key),
            (Recv::Idle, true) => {
                if let Some(socket) = connection.socket {
                    connection.recv = Recv::Armed;
                    self.driver.recv(socket, Token::new(Operation::Recv, key));
                }
            }
            (Recv::Armed | Recv::Awaited, false) if connection.life <= Life::Open => {
                connection.recv = Recv::Cancelling;
                self.driver.cancel(Token::new(Operation::Recv, key));
            }
            (Recv::Idle | Recv::Armed | Recv::Awaited | Recv::Cancelling | Recv::Ended, _) => {}
        }
        let Some(connection) = self.plane.connections.get_mut(key) else { return };
        let has_drained = connection.life == Life::Draining
            && connection.egress.is_empty()
            && !connection.egress.is_in_flight();
        // Through a gateway an end of stream would say that everything has come.
        let breaks_off =
            !has_drained && connection.point().is_some() && !connection.is_of_datagrams();
        if has_drained && awaits_end {
            return;
        }
        if has_drained || connection.life == Life::Terminating {
            connection.life = Life::Joining;
            match connection.socket {
                Some(socket) if breaks_off => self.driver.reset(socket),
                Some(socket) => self.driver.shutdown(socket),
                None => {}
            }
            if connection.connect_in_flight {
                self.driver.cancel(Token::new(Operation::Connect, key));
            }
        }
        if connection.life == Life::Joining && connection.is_joined() {
            connection.life = Life::Closing;
            match connection.socket {
                Some(socket) => self.driver.close(socket, Token::new(Operation::Close, key)),
                None => self.plane.closed(key),
            }
        }
    }

    /// At most one operation per connection: everything the turn has gathered goes out together.
    fn flush(&mut self, key: Key) {
        let behind_former = self.plane.is_behind_former(key);
        let Some(connection) = self.plane.connections.get_mut(key) else { return };
        if !matches!(connection.life, Life::Unbound | Life::Open | Life::Draining) {
            return;
        }
        if connection.life == Life::Draining
            && connection.egress.is_empty()
            && !connection.close_notify_queued
            && let Transport::Tls(session) = &mut connection.transport
        {
            connection.close_notify_queued = true;
            let alert = session.close_notify();
            // Without a buffer for it the connection just ends.
            let _ = connection.egress.append_wire(&mut self.plane.send_buffers, &alert);
        }
        if connection.is_resting() {
            return;
        }
        let Some(socket) = connection.socket else { return };
        // What is in flight leaves first, and then what has gathered meanwhile.
        if connection.egress.is_in_flight() {
            return;
        }
        // Plaintext waits for the session it is to be sealed in.
        let takes_plaintext = !behind_former
            && !matches!(connection.transport, Transport::Unknown | Transport::Handshaking(_));
        while (takes_plaintext || connection.egress.next_form() == Some(Form::Wire))
            && let Some((mut buffer, form)) = connection.egress.next()
        {
            if form == Form::Plaintext
                && let Transport::Tls(session) = &mut connection.transport
            {
                let plaintext = buffer.range();
                match session.seal(buffer.memory_mut(), plaintext) {
                    Ok(record) => buffer.set_range(record),
                    Err(error) => {
                        connection.egress.lost(&buffer);
                        self.plane.send_buffers.put(buffer);
                        return self.plane.record_failed(key, error);
                    }
                }
            }
            connection.sent_ns = self.plane.now_ns;
            self.driver.send(socket, buffer, Token::new(Operation::Send, key));
        }
    }

    /// Hands events to the controller, in order, as far as its queue takes them.
    fn report(&mut self) {
        if self.stopping == Stopping::Asked
            && self.plane.connections.len() == 0
            && self.listeners.len() == 0
        {
            self.stopping = Stopping::Reported;
            self.plane.events.push_back(Event::Stopped);
            self.plane.measure();
            self.metrics.publish(&self.plane.metrics);
            self.metrics.publish_realms(&self.plane.realms);
            self.plane.publish_floor_control(&self.metrics);
        }
        let mut reported = false;
        while let Some(event) = self.plane.events.pop_front() {
            if let Err(event) = self.events.push(event) {
                self.plane.events.push_front(event);
                break;
            }
            reported = true;
        }
        if reported {
            self.doorbell.ring();
        }
    }
}

/// An address of ours as peers are to reach it.
fn advertised(advertise: Option<IpAddr>, mut address: SocketAddr) -> SocketAddr {
    if let Some(ip) = advertise {
        address.set_ip(ip);
    }
    address
}

/// The answer to a command that makes a Termination reachable.
fn reserved(termination: TerminationId, done: Result<SocketAddr, Refusal>) -> Event {
    match done {
        Ok(address) => Event::Reserved { termination, address },
        Err(reason) => Event::Refused { termination, reason },
    }
}

/// The answer to a command that changes one.
fn modified(termination: TerminationId, done: Result<(), Refusal>) -> Event {
    match done {
        Ok(()) => Event::Modified { termination },
        Err(reason) => Event::Refused { termination, reason },
    }
}

/// Where we connect for BFCP, if we do.
fn floor_control_remote(transport: FloorTransport, unanswered: bool) -> Option<SocketAddr> {
    match transport {
        FloorTransport::Tcp(setup) if !unanswered => remote_address(setup),
        FloorTransport::Tcp(_) | FloorTransport::Udp { .. } => None,
    }
}

/// A listener of the relay. The port all shards share is shared by the kernel.
fn listen_relay<D: Driver>(
    driver: &mut D,
    listeners: &mut Table<Listener>,
    address: SocketAddr,
    reuse_port: bool,
) -> std::io::Result<SocketAddr> {
    let key = listeners.vacant().unwrap_or_else(|| unreachable!("the first few of many"));
    let options = Listen { backlog: LISTEN_BACKLOG, reuse_port };
    let token = Token::new(Operation::Accept, key);
    let (socket, address) = driver.listen(address, options, token)?;
    assert!(listeners.insert(Listener::new(socket, true)).is_ok_and(|made| made == key));
    Ok(address)
}

/// No connection: closes of listeners and of refused sockets interest nobody.
const LISTENER_CLOSED: Key = Key { index: Key::INDEX_MAX, generation: 0 };
