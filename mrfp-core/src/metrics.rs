//! Counters of a shard: plain integers on the shard, published for readers once per housekeeping
//! turn, so that counting costs an addition and no cache line is contended per message.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::floor::{FLOOR_COUNTERS, FloorCounters};
use crate::mp::{REALMS_MAX, RealmId, ReleaseCause, Statistics, Traffic};
use crate::statistics::COUNTERS;

macro_rules! shard_metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident,)+) => {
        /// The counters and gauges of one shard.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct ShardMetrics { $($(#[doc = $help])+ pub $name: u64,)+ }

        /// What readers on other threads see; at most one housekeeping turn old.
        #[derive(Default, Debug)]
        pub struct PublishedMetrics {
            $($name: AtomicU64,)+
            realms: PublishedRealms,
            floor_control: PublishedFloorControl,
        }

        impl PublishedMetrics {
            pub(crate) fn publish(&self, metrics: &ShardMetrics) {
                $(self.$name.store(metrics.$name, Ordering::Relaxed);)+
            }

            /// The newest published values.
            #[must_use]
            pub fn read(&self) -> ShardMetrics {
                ShardMetrics { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }

        impl ShardMetrics {
            /// Name, help text and kind of every metric, in the order of [`ShardMetrics::values`].
            pub const DESCRIPTIONS: &'static [(&'static str, &'static str, MetricKind)] =
                &[$((stringify!($name), concat!($($help),+), MetricKind::$kind),)+];

            /// The values, in the order of [`ShardMetrics::DESCRIPTIONS`].
            #[must_use]
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name,)+]
            }
        }
    };
}

/// The traffic of the realms, word by word, received before sent.
struct PublishedRealms(Box<[[[AtomicU64; COUNTERS]; 2]]>);

impl Default for PublishedRealms {
    fn default() -> Self {
        let zero = || std::array::from_fn(|_| AtomicU64::new(0));
        Self((0..REALMS_MAX).map(|_| [zero(), zero()]).collect())
    }
}

impl std::fmt::Debug for PublishedRealms {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("PublishedRealms").field(&self.0.len()).finish()
    }
}

/// What the floor control server has counted, word by word.
#[derive(Debug)]
struct PublishedFloorControl([AtomicU64; FLOOR_COUNTERS]);

impl Default for PublishedFloorControl {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl PublishedMetrics {
    /// Publishes what the floor control server has counted.
    pub(crate) fn publish_floor_control(&self, counters: &FloorCounters) {
        for (cell, word) in self.floor_control.0.iter().zip(counters.to_words()) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// The newest published counters of the floor control server; all 0 where there are no floors.
    #[must_use]
    pub fn floor_control(&self) -> FloorCounters {
        let words = &self.floor_control.0;
        FloorCounters::from_words(std::array::from_fn(|at| words[at].load(Ordering::Relaxed)))
    }

    /// Publishes the traffic of the realms that have had any.
    pub(crate) fn publish_realms(&self, realms: &[Traffic]) {
        let unused = Traffic::default();
        for (published, traffic) in self.realms.0.iter().zip(realms) {
            if *traffic == unused {
                continue;
            }
            let words = [traffic.received.to_words(), traffic.sent.to_words()];
            for (cell, word) in published.iter().flatten().zip(words.as_flattened()) {
                cell.store(*word, Ordering::Relaxed);
            }
        }
    }

    /// The newest published traffic of a realm since the start of the node.
    #[must_use]
    pub fn realm(&self, realm: RealmId) -> Traffic {
        let read = |words: &[AtomicU64; COUNTERS]| {
            Statistics::from_words(std::array::from_fn(|at| words[at].load(Ordering::Relaxed)))
        };
        match self.realms.0.get(usize::from(realm.0)) {
            Some([received, sent]) => Traffic { received: read(received), sent: read(sent) },
            None => Traffic::default(),
        }
    }
}

impl ShardMetrics {
    /// Counts why a connection or a session ended.
    pub(crate) fn count_release(&mut self, cause: ReleaseCause) {
        match cause {
            ReleaseCause::TooSlow => self.drops_slow_member += 1,
            ReleaseCause::ProtocolViolation => self.drops_protocol_violation += 1,
            ReleaseCause::ConnectionLost => self.drops_connection_lost += 1,
            ReleaseCause::Idle => self.drops_idle += 1,
            ReleaseCause::TcpEstablishmentFailure
            | ReleaseCause::TlsEstablishmentFailure
            | ReleaseCause::PeerNotAuthenticated
            | ReleaseCause::PeerClosed => {}
        }
    }
}

/// How a metric behaves over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

shard_metrics! {
    /// Contexts that exist.
    contexts: Gauge,
    /// Terminations that exist.
    terminations: Gauge,
    /// TCP connections that exist, bound or not.
    connections: Gauge,
    /// Connections accepted.
    connections_accepted: Counter,
    /// Connections refused or closed because a limit was reached.
    connections_refused: Counter,
    /// Connections closed because they did not bind in time.
    connections_unbound_timeout: Counter,
    /// TLS handshakes completed.
    handshakes_completed: Counter,
    /// TLS handshakes that failed on the key or the identity.
    handshakes_failed_authentication: Counter,
    /// TLS handshakes that failed otherwise.
    handshakes_failed_other: Counter,
    /// TLS handshakes that did not complete in time.
    handshakes_timeout: Counter,
    /// Sessions that have moved to a connection under a new key.
    rekeyings_completed: Counter,
    /// New keys of sessions that led to no connection.
    rekeyings_failed: Counter,
    /// MSRP SEND requests received.
    messages_received: Counter,
    /// MSRP messages received that violate the grammar.
    messages_malformed: Counter,
    /// MSRP SEND requests sent.
    messages_sent: Counter,
    /// MSRP REPORT requests received.
    reports_received: Counter,
    /// MSRP REPORT requests sent.
    reports_sent: Counter,
    /// Messages given up because their next chunk did not come.
    messages_abandoned: Counter,
    /// Requests of ours that were not answered in time.
    transactions_timeout: Counter,
    /// MSRP responses received that are not 200.
    responses_error_received: Counter,
    /// MSRP responses other than 200 sent.
    responses_error_sent: Counter,
    /// Bytes received on media connections, as on the wire.
    bytes_received: Counter,
    /// Bytes sent on media connections, as on the wire.
    bytes_sent: Counter,
    /// Members dropped because they did not keep up.
    drops_slow_member: Counter,
    /// Connections closed because the peer violated a protocol.
    drops_protocol_violation: Counter,
    /// Connections that broke.
    drops_connection_lost: Counter,
    /// Connections closed because nothing was received for too long.
    drops_idle: Counter,
    /// Times the receive buffers were exhausted.
    recv_buffers_exhausted: Counter,
    /// Times a sender was paused because a receiver lagged.
    recv_paused: Counter,
    /// Messages in progress, or with an answer outstanding.
    messages_known: Gauge,
    /// Conferences with floors.
    floor_conferences: Gauge,
    /// Users of floors, connected or not.
    floor_users: Gauge,
    /// Send buffers in use.
    send_buffers_outstanding: Gauge,
    /// Carry buffers in use.
    carry_buffers_outstanding: Gauge,
    /// URIs the relay has handed out and that are valid.
    relay_registrations: Gauge,
    /// Paths the relay remembers.
    relay_routes: Gauge,
    /// Connections the relay has made.
    relay_connections_outbound: Gauge,
    /// AUTH requests received.
    relay_auths_received: Counter,
    /// AUTH requests answered with a URI.
    relay_auths_accepted: Counter,
    /// AUTH requests answered with a challenge.
    relay_auths_challenged: Counter,
    /// AUTH requests refused.
    relay_auths_refused: Counter,
    /// URIs that ran out.
    relay_registrations_expired: Counter,
    /// Requests the relay has passed on.
    relay_requests_forwarded: Counter,
    /// REPORTs the relay has made for what could not be delivered.
    relay_reports_sent: Counter,
    /// Requests passed on that nobody answered in time.
    relay_transactions_timeout: Counter,
    /// Requests refused because their path leads through no URI handed out.
    relay_refused_path: Counter,
    /// Requests refused because a limit of the relay was reached.
    relay_refused_limit: Counter,
    /// Requests refused because they lead where clients may not have the relay connect.
    relay_refused_target: Counter,
    /// Connection points of the gateway with TCP.
    gateway_points_tcp: Gauge,
    /// Connection points of the gateway with TLS that ends there.
    gateway_points_tls: Gauge,
    /// Connection points of the gateway with UDP.
    gateway_points_udp: Gauge,
    /// Connection points of the gateway with DTLS that ends there.
    gateway_points_dtls: Gauge,
    /// Bearers of the gateway that came up.
    gateway_bearers_established: Counter,
    /// Bearers of the gateway that did not come up for want of a TCP connection.
    gateway_failures_tcp: Counter,
    /// Bearers of the gateway that did not come up because the TLS handshake failed.
    gateway_failures_tls: Counter,
    /// Bearers of the gateway whose peer has not shown the certificate that was announced.
    gateway_failures_authentication: Counter,
    /// Bytes of media the gateway has received.
    gateway_bytes_received: Counter,
    /// Bytes of media the gateway has passed on.
    gateway_bytes_sent: Counter,
    /// Those of them that have passed inside the kernel.
    gateway_bytes_spliced: Counter,
    /// Datagrams the gateway has passed on.
    gateway_datagrams_passed: Counter,
    /// Datagrams of a peer that the gateway could not pass on: the other side was not there yet, or too much
    /// waited for it.
    gateway_datagrams_dropped: Counter,
    /// Certificates given to connection points.
    gateway_certificates_used: Counter,
    /// Connection points refused because no certificate was ready.
    gateway_certificates_exhausted: Counter,
    /// Looks at the timers.
    housekeepings: Counter,
    /// Turns of the shard.
    turns: Counter,
}
