//! What has lasted too long.

use mrfp_io::Key;

use super::config::ROUTE_IDLE_NS;
use super::link::Incoming;
use super::route::Route;
use crate::config::{HOUSEKEEPING_SLICES, TRANSACTION_TIMEOUT_NS};
use crate::plane::Plane;

impl Plane {
    /// One slice of the relay's tables.
    pub(crate) fn relay_housekeeping(&mut self, slice: u32) {
        let Some(relay) = &self.relay else { return };
        let (registrations, routes) = (relay.registrations.slots(), relay.routes.slots());
        for index in (slice..registrations).step_by(HOUSEKEEPING_SLICES as usize) {
            self.check_registration(index);
        }
        for index in (slice..routes).step_by(HOUSEKEEPING_SLICES as usize) {
            self.check_route(index);
        }
    }

    fn check_registration(&mut self, index: u32) {
        let Some(relay) = &mut self.relay else { return };
        let Some(key) = relay.registrations.key_at(index) else { return };
        let Some(registration) = relay.registrations.get(key) else { return };
        if registration.expires_ns > self.now_ns {
            return;
        }
        let client = registration.client;
        self.metrics.relay_registrations_expired += 1;
        relay.unregister(key);
        if let Some(link) = self.link_mut(client) {
            link.registrations.retain(|&other| other != key);
        }
    }

    /// A route goes with its connection or its URI, or when nobody has used it for long. What was
    /// sent over it may still have to be reported for the time of a transaction.
    fn check_route(&mut self, index: u32) {
        let Some(relay) = &self.relay else { return };
        let Some(key) = relay.routes.key_at(index) else { return };
        let Some(route) = relay.routes.get(key) else { return };
        let idle_ns = self.now_ns - route.used_ns;
        let orphaned = !route.is_valid(&relay.registrations, self.now_ns);
        let unused =
            idle_ns >= ROUTE_IDLE_NS || (orphaned && idle_ns >= 2 * TRANSACTION_TIMEOUT_NS);
        if !self.is_linked(route.ingress) || (unused && !self.is_busy(key, route)) {
            self.remove_route(key);
        }
    }

    /// Whether something is on its way through a route, or unanswered.
    fn is_busy(&self, key: Key, route: &Route) -> bool {
        let comes_in = self.link(route.ingress).is_some_and(
            |link| matches!(&link.incoming, Incoming::Forward(forward) if forward.route == key),
        );
        comes_in || self.link(route.egress).is_some_and(|link| link.awaits_answer(key))
    }

    /// The timers of one connection.
    pub(crate) fn relay_check_connection(&mut self, key: Key) {
        let now_ns = self.now_ns;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let left = connection.egress.left();
        let open = connection.outgoing.map(|open| open.transaction);
        let Some(link) = connection.relay.as_deref_mut() else { return };
        link.outstanding.start_timers(left, open, now_ns + TRANSACTION_TIMEOUT_NS);
        while let Some(link) = self.link_mut(key)
            && let Some(sent) = link.outstanding.expired(now_ns)
        {
            if sent.answer_expected {
                self.metrics.relay_transactions_timeout += 1;
                self.relay_undelivered(&sent, 408);
            }
        }
        while let Some(link) = self.link_mut(key)
            && link.pending.front().is_some_and(|pending| pending.deadline_ns <= now_ns)
            && let Some(pending) = link.pending.pop_front()
        {
            self.metrics.relay_transactions_timeout += 1;
            self.answer_pending(&pending, 408);
        }
        if let Some(link) = self.link_mut(key) {
            link.outstanding.shrink();
        }
        self.relay_drained(key);
    }

    /// Gauges, for publication.
    pub(crate) fn relay_measure(&mut self) {
        let Some(relay) = &self.relay else { return };
        self.metrics.relay_registrations = relay.registrations.len() as u64;
        self.metrics.relay_routes = relay.routes.len() as u64;
        self.metrics.relay_connections_outbound = relay.outbound.len() as u64;
    }
}
