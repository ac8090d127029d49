//! A connection that lags holds back the connections that feed it, and only those.

use mrfp_io::Key;

use super::config::{HOLD_MAX_NS, SHARED_NS};
use crate::config::PRESSED_STALL_NS;
use crate::mp::ReleaseCause;
use crate::plane::{Ending, Plane};

impl Plane {
    /// `ingress` has fed `egress`: it is held back where that lags.
    pub(super) fn relay_fed(&mut self, ingress: Key, egress: Key) {
        self.relay_check_egress(egress);
        let now_ns = self.now_ns;
        if ingress != egress
            && let Some(link) = self.link_mut(ingress)
            && link.last_egress != Some(egress)
        {
            if link.last_egress.is_some() {
                link.shared_until_ns = now_ns + SHARED_NS;
            }
            link.last_egress = Some(egress);
        }
        let lags = self.connections.get(egress).is_some_and(|c| c.lagging_since_ns.is_some());
        if lags {
            self.relay_hold(ingress, egress);
        }
        if self.is_pressed() {
            self.press(ingress);
        }
    }

    /// The egress of a connection has grown.
    pub(crate) fn relay_check_egress(&mut self, key: Key) {
        let outstanding_max =
            self.relay.as_ref().map_or(0, |relay| relay.config.limits.outstanding_max);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(link) = connection.relay.as_deref() else { return };
        let full = connection.egress.bytes() > self.limits.egress_bytes_max
            || link.outstanding.len() >= outstanding_max;
        if full && connection.lagging_since_ns.is_none() {
            connection.lagging_since_ns = Some(self.now_ns);
            self.lagging.push(key);
        }
    }

    /// Reads nothing more from `ingress` until `egress` has caught up.
    fn relay_hold(&mut self, ingress: Key, egress: Key) {
        let Some(link) = self.link_mut(egress) else { return };
        if link.feeders.contains(&ingress) {
            return;
        }
        link.feeders.push(ingress);
        let Some(connection) = self.connections.get_mut(ingress) else { return };
        connection.paused += 1;
        self.metrics.recv_paused += 1;
        self.mark(ingress);
    }

    /// Something has left, or has been answered: if enough has, those that were held back go on.
    pub(crate) fn relay_drained(&mut self, key: Key) {
        let outstanding_max =
            self.relay.as_ref().map_or(0, |relay| relay.config.limits.outstanding_max);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let queued_bytes = connection.egress.bytes();
        let Some(link) = connection.relay.as_deref_mut() else { return };
        if connection.lagging_since_ns.is_none()
            || queued_bytes > self.limits.egress_bytes_max / 2
            || link.outstanding.len() > outstanding_max / 2
        {
            return;
        }
        connection.lagging_since_ns = None;
        let mut feeders = std::mem::take(&mut link.feeders);
        self.lagging.retain(|&lagging| lagging != key);
        self.relay_release_feeders(key, &mut feeders);
        if let Some(link) = self.link_mut(key) {
            link.feeders = feeders;
        }
    }

    pub(super) fn relay_release_feeders(&mut self, key: Key, feeders: &mut Vec<Key>) {
        for feeder in feeders.drain(..) {
            let Some(connection) = self.connections.get_mut(feeder) else { continue };
            // What is ending waits for nobody any more.
            if connection.relay.is_some() && feeder != key {
                connection.paused -= 1;
                self.mark(feeder);
            } else if feeder == key {
                connection.paused = connection.paused.saturating_sub(1);
                self.mark(feeder);
            }
        }
    }

    /// A connection that takes nothing is given up after the time of a transaction, and at once when
    /// buffers are short; one that takes too little, where others wait behind what is for it.
    pub(crate) fn relay_drop_if_slow(&mut self, key: Key, pressed: bool) {
        let Some(connection) = self.connections.get(key) else { return };
        let Some(since_ns) = connection.lagging_since_ns else { return };
        let Some(link) = connection.relay.as_deref() else { return };
        let stalled_ns =
            if connection.egress.is_in_flight() { self.now_ns - connection.sent_ns } else { 0 };
        let others_wait = || {
            link.feeders.iter().any(|&feeder| {
                feeder != key
                    && self.link(feeder).is_some_and(|link| link.shared_until_ns > self.now_ns)
            })
        };
        let given_up = (pressed && stalled_ns >= PRESSED_STALL_NS)
            || stalled_ns >= HOLD_MAX_NS
            || (self.now_ns - since_ns >= HOLD_MAX_NS && others_wait());
        if given_up {
            self.release(key, ReleaseCause::TooSlow, Ending::Abort);
        }
    }
}
