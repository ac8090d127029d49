//! Bulk between two sides of plain TCP, which nobody looks at: it passes inside the kernel, for a half of what
//! it costs to receive and send it. A connection goes over to it with the first part of a file and back when
//! less comes, so that a conversation is as quick as ever. What the other side does not take at once goes
//! through its egress, and until that has left there is nothing more to move; so who waits for whom, and how
//! either side ends, is what it is for all bytes.

use mrfp_io::Key;

use super::msrp::Passing;
use super::point::{ConnectionPoint, Stage};
use crate::connection::{Connection, Life};
use crate::mp::Bearer;
use crate::plane::Plane;

/// Less than this at once is no bulk (any more): an ordinary receive takes it in two.
const BULK_BYTES_MIN: usize = 16 * 1024;

impl Plane {
    /// A part of a file has come on a connection: what follows is to stay in the kernel where it may.
    pub(crate) fn gateway_bulk(&mut self, key: Key) {
        let is_bulk = self.taker_of_bulk(key).is_some();
        if let Some(connection) = self.connections.get_mut(key) {
            connection.is_bulk = is_bulk;
        }
    }

    /// The connection that what comes on this one goes to as it is.
    pub(crate) fn taker_of_bulk(&self, key: Key) -> Option<Key> {
        let connection = self.connections.get(key).filter(|it| it.life == Life::Open)?;
        let point_key = connection.point()?;
        let point = self.gateway.point(point_key)?;
        let other = self.gateway.point(point.other?)?;
        let is_plain = |point: &ConnectionPoint| point.bearer == Bearer::Tcp;
        let is_passed_as_it_is = is_plain(point)
            && is_plain(other)
            && matches!(point.passing, Passing::Bytes)
            && point.stage == Stage::Up
            && point.connection == Some(key);
        if is_passed_as_it_is { self.open_bearer_of_other(point_key) } else { None }
    }

    /// Whether everything that was queued on a connection has left.
    pub(crate) fn has_left(&self, key: Key) -> bool {
        let has_left = |it: &Connection| it.egress.is_empty() && !it.egress.is_in_flight();
        self.connections.get(key).is_some_and(has_left)
    }

    /// Something has left a connection: bulk that waits for that may go on.
    pub(crate) fn gateway_has_left(&mut self, key: Key) {
        let point = self.connections.get(key).and_then(Connection::point);
        let other = point.and_then(|point| self.gateway.point(self.gateway.other(point)?));
        if let Some(source) = other.and_then(|other| other.connection)
            && self.connections.get(source).is_some_and(|source| source.is_bulk)
        {
            self.mark(source);
        }
    }

    /// So much has passed from one connection to the other inside the kernel, and `rest` follows it.
    pub(crate) fn gateway_spliced(&mut self, key: Key, taker: Key, passed: usize, rest: &[u8]) {
        let count = passed + rest.len();
        self.metrics.bytes_received += count as u64;
        self.metrics.bytes_sent += passed as u64;
        self.metrics.gateway_bytes_spliced += passed as u64;
        self.spliced_bytes += count;
        let now_ns = self.now_ns;
        if let Some(taker) = self.connections.get_mut(taker).filter(|_| passed > 0) {
            taker.sent_ns = now_ns;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.received_ns = now_ns;
        connection.is_bulk = count >= BULK_BYTES_MIN;
        let Some(point) = connection.point() else { return };
        self.count_came_in(point, passed as u64);
        self.count_passed_on(point, passed as u64);
        self.gateway_bytes(key, point, rest);
    }
}
