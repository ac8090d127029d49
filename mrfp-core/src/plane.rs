//! Everything of a shard that needs no driver: the tables, the pools and what happens to them. The
//! shard feeds it received bytes and commands and afterwards attends to the connections it marked.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use mrfp_io::{Key, SendBuffers, SendBuffersConfig};
use mrfp_protocol::tls::Profile;

use crate::carry::CarryBuffers;
use crate::config::{Limits, SEND_BUFFER_LARGE_SIZE_BYTES, SEND_BUFFER_SMALL_SIZE_BYTES};
use crate::connection::{Connection, Life};
use crate::context::Context;
use crate::identifiers::Identifiers;
use crate::incoming::Incoming;
use crate::metrics::ShardMetrics;
use crate::mp::{ContextId, Event, ReleaseCause, TerminationId};
use crate::table::Table;
use crate::termination::{Protection, Stage, Termination};

/// The state of one shard.
pub(crate) struct Plane {
    pub(crate) limits: Limits,
    pub(crate) profile: Profile,
    /// The turn's one clock reading.
    pub(crate) now_ns: u64,
    pub(crate) connections: Table<Connection>,
    pub(crate) terminations: Table<Termination>,
    pub(crate) contexts: Table<Context>,
    pub(crate) termination_by_id: HashMap<TerminationId, Key>,
    pub(crate) context_by_id: HashMap<ContextId, Key>,
    /// TLS-PSK binds by the identity the client names.
    pub(crate) by_identity: HashMap<Vec<u8>, Key>,
    /// Everything else binds by the session-id of the first request's To-Path.
    pub(crate) by_session_id: HashMap<Vec<u8>, Key>,
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
    /// For the controller, in order.
    pub(crate) events: VecDeque<Event>,
    pub(crate) metrics: ShardMetrics,
    pub(crate) identifiers: Identifiers,
    pub(crate) scratch: Scratch,
}

/// Memory that is reused for every message.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Handshake flights and alerts.
    pub(crate) wire: Vec<u8>,
    /// Header lines that go on to the receivers.
    pub(crate) lines: Vec<u8>,
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
    pub(crate) fn new(limits: Limits, profile: Profile, seed: [u8; 32]) -> Self {
        Self {
            limits,
            profile,
            now_ns: 0,
            connections: Table::new(limits.connections_max),
            terminations: Table::new(limits.terminations_max),
            contexts: Table::new(limits.terminations_max),
            termination_by_id: HashMap::new(),
            context_by_id: HashMap::new(),
            by_identity: HashMap::new(),
            by_session_id: HashMap::new(),
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
            events: VecDeque::new(),
            metrics: ShardMetrics::default(),
            identifiers: Identifiers::new(seed),
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

    /// Binds a connection to its Termination: from here on it is a member of its Context.
    pub(crate) fn bind(&mut self, key: Key, termination_key: Key) {
        let Some(termination) = self.terminations.get_mut(termination_key) else { return };
        assert_eq!(termination.stage, Stage::Reserved);
        assert!(termination.connection.is_none_or(|own| own == key));
        let Some(context) = self.contexts.get_mut(termination.context) else { return };
        context.epoch += 1;
        context.members.push(termination_key);
        termination.joined_epoch = context.epoch;
        termination.stage = Stage::Bound;
        termination.connection = Some(key);
        termination.forget_psk();
        self.events.push_back(Event::Bound { termination: termination.id });
        if let Protection::TlsPsk { identity, .. } = &termination.protection
            && self.by_identity.get(identity.as_slice()) == Some(&termination_key)
        {
            // On a port of its own it never was on the list, and another may be under the name.
            self.by_identity.remove(identity.as_slice());
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.life = Life::Open;
        connection.termination = Some(termination_key);
        connection.deadline_ns = u64::MAX;
        let source = connection.unbound_source.take();
        self.settle_unbound(source);
    }

    /// Ends a connection because of `cause` and, where it carried a Termination, tells the
    /// controller.
    pub(crate) fn release(&mut self, key: Key, cause: ReleaseCause, ending: Ending) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.life >= Life::Draining {
            return;
        }
        match cause {
            ReleaseCause::TooSlow => self.metrics.drops_slow_member += 1,
            ReleaseCause::ProtocolViolation => self.metrics.drops_protocol_violation += 1,
            ReleaseCause::ConnectionLost => self.metrics.drops_connection_lost += 1,
            ReleaseCause::Idle => self.metrics.drops_idle += 1,
            ReleaseCause::TcpEstablishmentFailure
            | ReleaseCause::TlsEstablishmentFailure
            | ReleaseCause::PeerClosed => {}
        }
        let termination_key = connection.termination;
        if ending == Ending::Abort
            && let Some(connection) = self.connections.get_mut(key)
        {
            // First of all, so that what follows finds buffers.
            connection.egress.discard(&mut self.send_buffers);
        }
        if let Some(termination_key) = termination_key {
            self.leave_context(termination_key);
            if let Some(termination) = self.terminations.get_mut(termination_key)
                && termination.stage < Stage::Released
            {
                termination.stage = Stage::Released;
                self.events.push_back(Event::BearerReleased { termination: termination.id, cause });
            }
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
        connection.paused = false;
        connection.outgoing = None;
        connection.messages = Vec::new();
        connection.claimed = None;
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
        let source = connection.unbound_source.take();
        self.settle_unbound(source);
        self.mark(key);
    }

    /// The descriptor is gone: frees the slot and whatever waited for it.
    pub(crate) fn closed(&mut self, key: Key) {
        self.catch_up(key);
        let Some(mut connection) = self.connections.remove(key) else { return };
        assert!(connection.is_joined());
        connection.egress.discard(&mut self.send_buffers);
        let Some(termination_key) = connection.termination else { return };
        let Some(termination) = self.terminations.get_mut(termination_key) else { return };
        if termination.connection == Some(key) {
            termination.connection = None;
        }
        if termination.stage == Stage::Subtracted {
            self.finish_subtract(termination_key);
        }
    }

    /// A Termination is no member any more: its unfinished message is given up, nobody waits for
    /// it, nothing can be bound to it.
    pub(crate) fn leave_context(&mut self, termination_key: Key) {
        let Some(termination) = self.terminations.get_mut(termination_key) else { return };
        let was_bound = termination.stage == Stage::Bound;
        let context_key = termination.context;
        let connection_key = termination.connection;
        termination.forget_psk();
        if let Protection::TlsPsk { identity, .. } = &termination.protection
            && self.by_identity.get(identity.as_slice()) == Some(&termination_key)
        {
            self.by_identity.remove(identity.as_slice());
        }
        if self.by_session_id.get(termination.session_id.as_slice()) == Some(&termination_key) {
            self.by_session_id.remove(termination.session_id.as_slice());
        }
        if !was_bound {
            return;
        }
        if let Some(connection_key) = connection_key {
            self.give_up_messages(connection_key, termination_key);
            self.catch_up(connection_key);
        }
        let Some(context) = self.contexts.get_mut(context_key) else { return };
        context.members.retain(|&member| member != termination_key);
        if let Some(connection_key) = connection_key {
            context.paused.retain(|&paused| paused != connection_key);
        }
    }

    /// Takes a subtracted Termination off the tables once its connection is gone.
    pub(crate) fn finish_subtract(&mut self, termination_key: Key) {
        let Some(termination) = self.terminations.remove(termination_key) else { return };
        assert!(termination.connection.is_none());
        self.termination_by_id.remove(&termination.id);
        self.events.push_back(Event::Subtracted {
            termination: termination.id,
            statistics: termination.statistics,
        });
        let Some(context) = self.contexts.get_mut(termination.context) else { return };
        context.terminations -= 1;
        if context.terminations == 0 {
            self.context_by_id.remove(&context.id);
            self.contexts.remove(termination.context);
        }
    }

    /// The egress of a connection has grown: whoever feeds it is held back once it is too long.
    pub(crate) fn check_egress(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.egress.bytes() <= self.limits.egress_bytes_max
            || connection.lagging_since_ns.is_some()
        {
            return;
        }
        let context_key = self.context_of(key);
        let Some(context) = context_key.and_then(|key| self.contexts.get_mut(key)) else {
            // Nobody has vouched for it, and it reads no answers.
            return self.release(key, ReleaseCause::TooSlow, Ending::Abort);
        };
        context.lagging += 1;
        self.lagging.push(key);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.lagging_since_ns = Some(self.now_ns);
        }
    }

    /// The Context a connection talks into.
    pub(crate) fn context_of(&self, key: Key) -> Option<Key> {
        let termination_key = self.connections.get(key)?.termination?;
        self.terminations.get(termination_key).map(|termination| termination.context)
    }

    /// Reads nothing more from a connection until nobody lags in its Context.
    pub(crate) fn pause(&mut self, key: Key, context_key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.paused || connection.life != Life::Open {
            return;
        }
        let Some(context) = self.contexts.get_mut(context_key) else { return };
        connection.paused = true;
        context.paused.push(key);
        self.metrics.recv_paused += 1;
        self.mark(key);
    }

    /// The egress of a connection has shrunk: if it lagged and has caught up (or is ending), those
    /// that were held back go on.
    pub(crate) fn sent(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.egress.bytes() <= self.limits.egress_bytes_max / 2 {
            self.catch_up(key);
        }
    }

    fn catch_up(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.lagging_since_ns.take().is_none() {
            return;
        }
        self.lagging.retain(|&lagging| lagging != key);
        let context_key = self.context_of(key);
        let Some(context) = context_key.and_then(|key| self.contexts.get_mut(key)) else { return };
        context.lagging -= 1;
        if context.lagging > 0 {
            return;
        }
        let mut paused = std::mem::take(&mut context.paused);
        for &paused_key in &paused {
            if let Some(connection) = self.connections.get_mut(paused_key) {
                connection.paused = false;
            }
            self.mark(paused_key);
        }
        paused.clear();
        if let Some(context) = context_key.and_then(|key| self.contexts.get_mut(key)) {
            context.paused = paused;
        }
    }

    /// Drops the connections that missed something, before anything more is sent to them.
    pub(crate) fn drop_unserved(&mut self) {
        while let Some(key) = self.unserved.pop() {
            self.release(key, ReleaseCause::TooSlow, Ending::Abort);
        }
    }

    /// Whether so many buffers are out that senders must be held back.
    pub(crate) fn is_pressed(&self) -> bool {
        let (in_use, all) = self.send_buffers.large_in_use();
        in_use > all / 4 * 3
    }

    /// Reads nothing more from a connection until the pool has buffers to spare.
    pub(crate) fn press(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.pressed || connection.life != Life::Open {
            return;
        }
        connection.pressed = true;
        self.pressed.push(key);
        self.metrics.recv_paused += 1;
        self.mark(key);
    }

    /// Lets the senders go on once half of the pool is free.
    pub(crate) fn relieve(&mut self) {
        let (in_use, all) = self.send_buffers.large_in_use();
        if self.pressed.is_empty() || in_use > all / 2 {
            return;
        }
        while let Some(key) = self.pressed.pop() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.pressed = false;
            }
            self.mark(key);
        }
    }

    /// Gauges, for publication.
    pub(crate) fn measure(&mut self) {
        self.metrics.contexts = self.contexts.len() as u64;
        self.metrics.terminations = self.terminations.len() as u64;
        self.metrics.connections = self.connections.len() as u64;
        self.metrics.send_buffers_outstanding = self.send_buffers.outstanding() as u64;
        self.metrics.carry_buffers_outstanding = self.carry_buffers.outstanding() as u64;
    }
}

/// What counts as one source: an IPv4 address, or the /64 that an IPv6 host gets whole.
fn network_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}
