//! What passes between the two connections of a Context, and who waits for whom: one side is read from
//! while the other takes what comes.

use mrfp_io::Key;

use super::point::Stage;
use crate::connection::{Life, Transport};
use crate::egress::{Lane, PoolExhausted};
use crate::mp::ReleaseCause;
use crate::plane::{Ending, Plane};

impl Plane {
    /// Media that have arrived at a connection point.
    pub(crate) fn gateway_bytes(&mut self, key: Key, point_key: Key, bytes: &[u8]) {
        let Some(point) = self.gateway.point(point_key) else { return };
        if point.stage != Stage::Up || point.connection != Some(key) {
            return;
        }
        self.count_came_in(point_key, bytes.len() as u64);
        self.gateway_pass(point_key, bytes);
        if self.is_pressed() {
            self.press(key);
        }
    }

    /// Passes on what has come in at `source`; it leaves at the end of the turn. Where the other side is not
    /// up it is held: no more than was on its way when reading stopped.
    fn gateway_pass(&mut self, source: Key, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let Some(taker) = self.open_bearer_of_other(source) else {
            return self.gateway_hold(source, bytes);
        };
        let passed = self.pass(source, taker, bytes);
        self.passed(source, taker, passed);
    }

    fn gateway_hold(&mut self, source: Key, bytes: &[u8]) {
        let Some(point) = self.gateway.points.get_mut(source) else { return };
        let held = point.held.get_or_insert_default();
        if held.append_to(Lane::First, &mut self.send_buffers, &[bytes]).is_err()
            && let Some(key) = point.connection
        {
            self.release(key, ReleaseCause::TooSlow, Ending::Abort);
        }
    }

    /// The other side of `source` is up: it gets what was held for it.
    pub(super) fn gateway_pass_held(&mut self, source: Key) {
        let held = self.gateway.point_mut(source).and_then(|point| point.held.take());
        let Some(mut held) = held.filter(|held| !held.is_empty()) else { return };
        let Some(taker) = self.open_bearer_of_other(source) else { return };
        let mut passed = Ok(held.bytes());
        if self.is_interworking(source) {
            passed = Ok(0);
            while let (Ok(count), Some((buffer, _))) = (passed, held.next()) {
                passed = self.pass(source, taker, buffer.bytes()).map(|more| count + more);
                held.lost(&buffer);
                self.send_buffers.put(buffer);
            }
            held.discard(&mut self.send_buffers);
        } else if let Some(connection) = self.connections.get_mut(taker) {
            connection.egress.adopt(*held);
        }
        self.passed(source, taker, passed);
    }

    /// So much has been queued for the taker, or there were no buffers for it.
    fn passed(&mut self, source: Key, taker: Key, count: Result<usize, PoolExhausted>) {
        let Ok(count) = count else {
            // A hole in the stream would be worse than its end.
            return self.release(taker, ReleaseCause::TooSlow, Ending::Abort);
        };
        self.count_passed_on(source, count as u64);
        self.mark(taker);
        self.check_egress(taker);
    }

    pub(super) fn count_came_in(&mut self, key: Key, count: u64) {
        self.metrics.gateway_bytes_received += count;
        let Some(point) = self.gateway.point_mut(key) else { return };
        point.statistics.bytes_received += count;
        self.realms[usize::from(point.realm.0)].received.bytes += count;
    }

    pub(super) fn count_passed_on(&mut self, source: Key, count: u64) {
        self.metrics.gateway_bytes_sent += count;
        let other = self.gateway.other(source);
        let Some(other) = other.and_then(|other| self.gateway.point_mut(other)) else { return };
        other.statistics.bytes_sent += count;
        self.realms[usize::from(other.realm.0)].sent.bytes += count;
    }

    /// The connection of the other side, where that carries media.
    pub(super) fn open_bearer_of_other(&self, key: Key) -> Option<Key> {
        let other = self.gateway.point(self.gateway.other(key)?)?;
        let connection = other.connection.filter(|_| other.stage == Stage::Up)?;
        let is_open = self.connections.get(connection).is_some_and(|it| it.life == Life::Open);
        is_open.then_some(connection)
    }

    /// The egress of a connection has grown: beyond the limit the other side is read from no more.
    pub(crate) fn gateway_check_egress(&mut self, key: Key, point_key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.egress.bytes() <= self.limits.egress_bytes_max
            || connection.lagging_since_ns.is_some()
        {
            return;
        }
        connection.lagging_since_ns = Some(self.now_ns);
        self.lagging.push(key);
        self.metrics.recv_paused += 1;
        self.regulate_other(point_key);
    }

    /// Brings reading from the other side in line with what this side takes.
    pub(crate) fn regulate_other(&mut self, key: Key) {
        if let Some(other) = self.gateway.other(key) {
            self.regulate(other);
        }
    }

    /// Brings reading from a side in line with what the other one takes. Until its handshake is over what
    /// it says is for us.
    pub(super) fn regulate(&mut self, key: Key) {
        let taker = self.open_bearer_of_other(key).and_then(|other| self.connections.get(other));
        let is_taken = taker.is_some_and(|other| other.lagging_since_ns.is_none());
        let connection = self.gateway.point(key).and_then(|point| point.connection);
        let Some(connection_key) = connection else { return };
        let Some(connection) = self.connections.get_mut(connection_key) else { return };
        if connection.life >= Life::Draining {
            return;
        }
        let reads = match connection.transport {
            Transport::Unknown => false,
            Transport::Handshaking(_) => true,
            Transport::Plain | Transport::Tls(_) => is_taken,
            // What is not taken is lost.
            Transport::Datagrams => true,
        };
        connection.paused = u32::from(!reads);
        self.mark(connection_key);
    }
}
