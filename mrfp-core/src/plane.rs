//! Everything of a shard that needs no driver: the tables, the pools and what happens to them. The
//! shard feeds it received bytes and commands and afterwards attends to the connections it marked.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use mrfp_io::{Key, SendBuffers, SendBuffersConfig};
use mrfp_protocol::tls::Profile;

use crate::carry::CarryBuffers;
use crate::config::{
    Limits, MESSAGES_MAX, SEND_BUFFER_LARGE_SIZE_BYTES, SEND_BUFFER_SMALL_SIZE_BYTES,
};
use crate::connection::{Connection, Life};
use crate::context::Context;
use crate::floor_control::FloorControls;
use crate::gateway::Gateway;
use crate::identifiers::Identifiers;
use crate::incoming::Incoming;
use crate::message::{Message, Routes};
use crate::metrics::ShardMetrics;
use crate::mp::{ContextId, Event, REALMS_MAX, ReleaseCause, TerminationId, Traffic};
use crate::rekeying::Rekeyings;
use crate::relay::Relay;
use crate::room::Verdict;
use crate::table::{Index, Table};
use crate::termination::{Stage, Termination};

/// The state of one shard.
pub(crate) struct Plane {
    pub(crate) limits: Limits,
    pub(crate) profile: Profile,
    /// Where peers reach the shard's port.
    pub(crate) address: SocketAddr,
    /// The turn's one clock reading.
    pub(crate) now_ns: u64,
    pub(crate) connections: Table<Connection>,
    pub(crate) terminations: Table<Termination>,
    pub(crate) contexts: Table<Context>,
    pub(crate) messages: Table<Message>,
    pub(crate) routes: Routes,
    pub(crate) termination_by_id: Index<Termination, TerminationId>,
    pub(crate) context_by_id: Index<Context, ContextId>,
    /// TLS-PSK binds by the identity the client names.
    pub(crate) by_identity: Index<Termination, [u8]>,
    /// Everything else binds by the session-id of the first request's To-Path.
    pub(crate) by_session_id: Index<Termination, [u8]>,
    /// Sessions that change their key.
    pub(crate) rekeyings: Rekeyings,
    /// The newest connection of ours to an address, for further sessions with the same peer.
    pub(crate) connected_to: HashMap<SocketAddr, Key>,
    unbound: usize,
    unbound_by_source: HashMap<IpAddr, usize>,
    pub(crate) send_buffers: SendBuffers,
    pub(crate) carry_buffers: CarryBuffers,
    /// Connections to attend to at the end of the turn.
    pub(crate) dirty: Vec<Key>,
    /// Connections whose egress is above its limit.
    pub(crate) lagging: Vec<Key>,
    /// Connections that missed something because the pool was exhausted: dropped before anything
    /// more is sent to them.
    pub(crate) unserved: Vec<Key>,
    /// Connections not read from until the pool has buffers to spare.
    pub(crate) pressed: Vec<Key>,
    /// Flights of handshakes this turn has answered.
    pub(crate) handshake_flights: u32,
    /// Copies of messages this turn has made.
    pub(crate) copies: u32,
    /// Bytes that have passed inside the kernel in this turn.
    pub(crate) spliced_bytes: usize,
    /// For the controller, in order.
    pub(crate) events: VecDeque<Event>,
    pub(crate) metrics: ShardMetrics,
    /// What the Terminations of each realm have carried.
    pub(crate) realms: Box<[Traffic]>,
    pub(crate) identifiers: Identifiers,
    pub(crate) floors: FloorControls,
    /// The relay, where there is one.
    pub(crate) relay: Option<Box<Relay>>,
    pub(crate) gateway: Gateway,
    pub(crate) scratch: Scratch,
}

/// Memory that is reused for every message.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Handshake flights and alerts.
    pub(crate) wire: Vec<u8>,
    /// Header lines that go on to the receivers.
    pub(crate) lines: Vec<u8>,
    /// The same for receivers who get a message with or without its CPIM wrapper, unlike its sender.
    pub(crate) converted_lines: Vec<u8>,
    /// The CPIM wrapper of a message that came without.
    pub(crate) wrapper: Vec<u8>,
    /// A piece that ends a chunk, written once for all who get it: as it was sent, and converted.
    pub(crate) whole: [Vec<u8>; 2],
    /// What becomes of a piece, for every acceptance of a room.
    pub(crate) verdicts: Vec<Verdict>,
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// What is queued still leaves, then TLS says goodbye, then TCP.
    Graceful,
    /// At once.
    Abort,
}

impl Plane {
    pub(crate) fn new(
        limits: Limits,
        profile: Profile,
        address: SocketAddr,
        seed: [u8; 32],
    ) -> Self {
        Self {
            limits,
            profile,
            address,
            now_ns: 0,
            connections: Table::reserved(limits.connections_max),
            terminations: Table::reserved(limits.terminations_max),
            contexts: Table::reserved(limits.terminations_max),
            messages: Table::reserved(MESSAGES_MAX),
            routes: Routes::default(),
            termination_by_id: Index::reserved(limits.terminations_max, |it: &Termination| &it.id),
            context_by_id: Index::reserved(limits.terminations_max, |it: &Context| &it.id),
            by_identity: Index::reserved(limits.terminations_max, Termination::identity),
            by_session_id: Index::reserved(limits.terminations_max, Termination::session_id),
            rekeyings: Rekeyings::default(),
            connected_to: HashMap::new(),
            unbound: 0,
            unbound_by_source: HashMap::new(),
            send_buffers: SendBuffers::new(SendBuffersConfig {
                small_size_bytes: SEND_BUFFER_SMALL_SIZE_BYTES,
                small_count_max: limits.send_buffers_small_max,
                large_size_bytes: SEND_BUFFER_LARGE_SIZE_BYTES,
                large_count_max: limits.send_buffers_large_max,
            }),
            carry_buffers: CarryBuffers::new(limits.carry_buffers_max),
            dirty: Vec::new(),
            lagging: Vec::new(),
            unserved: Vec::new(),
            pressed: Vec::new(),
            handshake_flights: 0,
            copies: 0,
            spliced_bytes: 0,
            events: VecDeque::new(),
            metrics: ShardMetrics::default(),
            realms: vec![Traffic::default(); REALMS_MAX].into(),
            identifiers: Identifiers::new(seed),
            floors: FloorControls::default(),
            relay: None,
            gateway: Gateway::none(),
            scratch: Scratch::default(),
        }
    }

    /// Puts a connection on the list the shard attends to at the end of the turn.
    pub(crate) fn mark(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Whether a connection from `source` may be taken on, and if so counts it as unbound.
    pub(crate) fn admit_unbound(&mut self, source: IpAddr) -> bool {
        let source = network_of(source);
        let of_source = self.unbound_by_source.get(&source).copied().unwrap_or(0);
        if self.unbound >= self.limits.connections_unbound_max
            || of_source >= self.limits.connections_unbound_per_source_max
        {
            return false;
        }
        self.unbound_by_source.insert(source, of_source + 1);
        self.unbound += 1;
        true
    }

    /// The connection is bound, or gone: it no longer counts as unbound.
    pub(crate) fn settle_unbound(&mut self, source: Option<IpAddr>) {
        let Some(source) = source.map(network_of) else { return };
        self.unbound -= 1;
        let Some(of_source) = self.unbound_by_source.get_mut(&source) else { return };
        *of_source -= 1;
        if *of_source == 0 {
            self.unbound_by_source.remove(&source);
        }
    }

    /// Ends a connection because of `cause`, and with it every session it carries; the controller is
    /// told.
    pub(crate) fn release(&mut self, key: Key, cause: ReleaseCause, ending: Ending) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.life >= Life::Draining {
            return;
        }
        if let Some(point) = connection.point() {
            return self.release_bearer(key, point, cause, ending);
        }
        if let Some(session) = self.session_beside(key) {
            return self.release_beside(key, session, cause, ending);
        }
        self.metrics.count_release(cause);
        if ending == Ending::Abort
            && let Some(connection) = self.connections.get_mut(key)
        {
            // First of all, so that what follows finds buffers.
            connection.egress.discard(&mut self.send_buffers);
        }
        let mut index = 0;
        while let Some(&session) =
            self.connections.get(key).and_then(|connection| connection.sessions.get(index))
        {
            index += 1;
            self.lose_session(session, cause);
        }
        self.end(key, ending);
    }

    /// Ends a connection; the controller is told nothing.
    pub(crate) fn end(&mut self, key: Key, ending: Ending) {
        self.catch_up(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.life >= Life::Terminating
            || (connection.life == Life::Draining && ending == Ending::Graceful)
        {
            return;
        }
        connection.paused = 0;
        connection.outgoing = None;
        connection.messages = Vec::new();
        connection.declined = Vec::new();
        for carry in [connection.carry_record.take(), connection.carry_message.take()] {
            carry.into_iter().for_each(|buffer| self.carry_buffers.put(buffer));
        }
        if let Incoming::Forward(forward) =
            std::mem::replace(&mut connection.incoming, Incoming::Discard)
        {
            forward.lines.into_iter().for_each(|buffer| self.carry_buffers.put(buffer));
        }
        match (ending, connection.life) {
            (Ending::Graceful, Life::Unbound | Life::Open) => {
                connection.life = Life::Draining;
                connection.deadline_ns = self.now_ns + self.limits.drain_timeout_ns;
            }
            (Ending::Graceful | Ending::Abort, _) => {
                connection.egress.discard(&mut self.send_buffers);
                connection.life = Life::Terminating;
                connection.deadline_ns = u64::MAX;
            }
        }
        let source = connection.settle();
        self.settle_unbound(source);
        self.mark(key);
        self.relay_ended(key);
        self.gateway_ended(key);
    }

    /// The descriptor is gone: frees the slot and whatever waited for it.
    pub(crate) fn closed(&mut self, key: Key) {
        self.catch_up(key);
        let Some(mut connection) = self.connections.remove(key) else { return };
        assert!(connection.is_joined());
        connection.egress.discard(&mut self.send_buffers);
        if let Some(remote) = connection.origin().and_then(|origin| origin.connected_to)
            && self.connected_to.get(&remote) == Some(&key)
        {
            self.connected_to.remove(&remote);
        }
        if let Some(point) = connection.point() {
            return self.bearer_closed(key, point);
        }
        for &session in connection.sessions.iter() {
            let Some(termination) = self.terminations.get_mut(session) else { continue };
            if termination.connection == Some(key) {
                termination.connection = None;
            }
            if termination.stage == Stage::Subtracted {
                self.finish_subtract(session);
            }
        }
    }

    /// Gauges, for publication.
    pub(crate) fn measure(&mut self) {
        self.metrics.contexts = self.contexts.len() as u64;
        self.metrics.terminations = self.terminations.len() as u64;
        self.metrics.connections = self.connections.len() as u64;
        self.relay_measure();
        if let Some(floors) = &self.floors.server {
            self.metrics.floor_conferences = floors.conferences() as u64;
            self.metrics.floor_users = floors.users() as u64;
        }
        self.metrics.messages_known = self.messages.len() as u64;
        self.metrics.send_buffers_outstanding = self.send_buffers.outstanding() as u64;
        self.metrics.carry_buffers_outstanding = self.carry_buffers.outstanding() as u64;
    }
}

/// What counts as one source: an IPv4 address, or the /64 that an IPv6 host gets whole.
pub(crate) fn network_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}
