//! Floor control on a shard (TS 23.333 clause 5.20.4): the floor control server between the
//! Terminations for BFCP and the rooms whose floors it gives.
//!
//! `commands.rs` carries out what the controller says, `binding.rs` finds a user and its connection
//! for each other, `receive.rs` hands messages to the server, `datagrams.rs` does so where they come by
//! UDP, `moderation.rs` lets those be heard who hold the floor. The server is in [`floor`](crate::floor) and knows nothing of all that.
//!
//! A Termination for BFCP lives like any other, but is no member among whom messages are switched.
//! When its connection is lost its user stays, with requests and floors, for the grace of the
//! conference. RFC 8855 has no keep-alive: a connection may be silent for as long as it likes, and
//! only a message that does not come to its end is waited for no longer than `idle_timeout_ns`.

mod binding;
mod commands;
mod datagrams;
mod moderation;
mod receive;

use std::collections::{HashMap, VecDeque};

use mrfp_io::{Key, SendBuffers};

use crate::back_pressure::are_scarce;
use crate::connection::{Connection, Life};
use crate::floor::{FloorServer, HolderChange, Output};
use crate::metrics::PublishedMetrics;
use crate::mp::ReleaseCause;
use crate::plane::{Ending, Plane};
use crate::table::Table;
use crate::termination::{Stage, Termination};

pub(crate) use moderation::RoomFloors;

/// The floors of a shard. Without conferences that have some, next to nothing.
#[derive(Default)]
pub(crate) struct FloorControls {
    /// Made for the first conference, and kept.
    pub(crate) server: Option<Box<FloorServer>>,
    /// Contexts by `a=confid`.
    contexts: HashMap<u32, Key>,
    /// What has changed hands, until it is acted upon.
    changes: VecDeque<HolderChange>,
    /// Connections whose egress has just exceeded its limit.
    overfull: Vec<Key>,
    /// Terminations whose association the server has ended.
    closed: Vec<Key>,
    /// Some were not told of floors for want of buffers.
    held_back: bool,
    /// The server may have something to tell at the end of the turn.
    untold: bool,
}

impl FloorControls {
    /// When the server next has something to do; 0: at once.
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        match self.untold {
            true => Some(0),
            false => self.server.as_ref()?.next_deadline_ns(),
        }
    }
}

/// A participant has this many times the egress limit of a connection before it is dropped at once:
/// what it asks for in one receive, and does not read, must not fill the pool.
const EGRESS_LIMITS_MAX: usize = 2;

/// What the server says, on its way to connections.
pub(crate) struct Outlet<'a> {
    connections: &'a mut Table<Connection>,
    terminations: &'a mut Table<Termination>,
    send_buffers: &'a mut SendBuffers,
    dirty: &'a mut Vec<Key>,
    unserved: &'a mut Vec<Key>,
    copies: &'a mut u32,
    egress_bytes_max: usize,
    changes: &'a mut VecDeque<HolderChange>,
    overfull: &'a mut Vec<Key>,
    closed: &'a mut Vec<Key>,
    held_back: &'a mut bool,
}

impl Output for Outlet<'_> {
    fn send(&mut self, termination: Key, bytes: &[u8]) {
        let bound = self.terminations.get_mut(termination).filter(|it| it.stage == Stage::Bound);
        let Some(termination) = bound else { return };
        let Some(key) = termination.connection else { return };
        let connection = self.connections.get_mut(key).filter(|it| it.life == Life::Open);
        let Some(connection) = connection else { return };
        *self.copies += 1;
        if connection.is_of_datagrams() {
            // Without a buffer it is lost, as it might be on its way: what matters is repeated.
            if connection.egress.append_wire(self.send_buffers, bytes).is_ok() {
                count_sent(termination, bytes);
                mark(connection, key, self.dirty);
            }
            return;
        }
        let before = connection.egress.bytes();
        if before > EGRESS_LIMITS_MAX * self.egress_bytes_max
            || connection.append(self.send_buffers, &[bytes]).is_err()
        {
            // It is dropped before anything more is sent to it.
            if self.unserved.last() != Some(&key) {
                self.unserved.push(key);
            }
            return;
        }
        count_sent(termination, bytes);
        if before <= self.egress_bytes_max && connection.egress.bytes() > self.egress_bytes_max {
            self.overfull.push(key);
        }
        mark(connection, key, self.dirty);
    }

    /// What changes for many, and often, is no reason to drop who reads it slowly, nor to take the
    /// buffers that others need.
    fn takes(&mut self, termination: Key) -> bool {
        if are_scarce(self.send_buffers) {
            *self.held_back = true;
            return false;
        }
        let connection = self.terminations.get(termination).and_then(|it| it.connection);
        let connection = connection.and_then(|key| self.connections.get(key));
        connection.is_none_or(|it| it.egress.bytes() <= self.egress_bytes_max)
    }

    fn holder_changed(&mut self, change: HolderChange) {
        self.changes.push_back(change);
    }

    fn close(&mut self, termination: Key) {
        self.closed.push(termination);
    }
}

fn count_sent(termination: &mut Termination, bytes: &[u8]) {
    termination.statistics.messages_sent += 1;
    termination.statistics.bytes_sent += bytes.len() as u64;
}

fn mark(connection: &mut Connection, key: Key, dirty: &mut Vec<Key>) {
    if !connection.dirty {
        connection.dirty = true;
        dirty.push(key);
    }
}

impl Plane {
    /// Says something to the server, where there is one, and does what follows from it.
    fn with_floor_server<R>(
        &mut self,
        call: impl FnOnce(&mut FloorServer, u64, &mut Outlet<'_>) -> R,
    ) -> Option<R> {
        self.floors.untold = true;
        // An association that ends by what its user says ends by a Goodbye.
        self.call_floor_server(ReleaseCause::PeerClosed, call)
    }

    fn call_floor_server<R>(
        &mut self,
        closed_for: ReleaseCause,
        call: impl FnOnce(&mut FloorServer, u64, &mut Outlet<'_>) -> R,
    ) -> Option<R> {
        let FloorControls { server, changes, overfull, closed, held_back, .. } = &mut self.floors;
        let mut outlet = Outlet {
            connections: &mut self.connections,
            terminations: &mut self.terminations,
            send_buffers: &mut self.send_buffers,
            dirty: &mut self.dirty,
            unserved: &mut self.unserved,
            copies: &mut self.copies,
            egress_bytes_max: self.limits.egress_bytes_max,
            changes,
            overfull,
            closed,
            held_back,
        };
        let result = call(server.as_mut()?, self.now_ns, &mut outlet);
        // Nothing of a message has come in meanwhile: that is the moment of the change.
        while let Some(change) = self.floors.changes.pop_front() {
            self.holder_changed(change);
        }
        while let Some(key) = self.floors.overfull.pop() {
            self.check_egress(key);
        }
        while let Some(session) = self.floors.closed.pop() {
            self.release_session(session, closed_for, Ending::Graceful);
        }
        Some(result)
    }

    /// Who was held back for want of buffers is told how the floors are.
    pub(crate) fn resume_telling_of_floors(&mut self) {
        if std::mem::take(&mut self.floors.held_back) {
            self.with_floor_server(|server, _, _| server.all_caught_up());
        }
    }

    /// The participant of a connection takes again what it is told.
    pub(crate) fn floor_control_caught_up(&mut self, session: Key) {
        if let Some(participant) = self.participant(session) {
            self.with_floor_server(|server, _, _| server.caught_up(participant));
        }
    }

    /// What the server has counted, for readers on other threads.
    pub(crate) fn publish_floor_control(&self, metrics: &PublishedMetrics) {
        if let Some(server) = &self.floors.server {
            metrics.publish_floor_control(server.counters());
        }
    }

    /// Does what is due, and tells participants of what has changed in this turn.
    pub(crate) fn tell_of_floors(&mut self) {
        let Some(deadline_ns) = self.floors.next_deadline_ns() else { return };
        if deadline_ns > self.now_ns {
            return;
        }
        self.floors.untold = false;
        // One that ends otherwise ends because nothing was acknowledged any more.
        self.call_floor_server(ReleaseCause::ConnectionLost, |server, now_ns, out| {
            server.expire(now_ns, out);
        });
    }
}
