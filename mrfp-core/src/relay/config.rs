//! What the relay is told at start, and its limits, each with its reason and its answer.

use std::net::SocketAddr;

use mrfp_protocol::msrp::auth::Credentials;

/// The relay of a node. Without users nothing can be relayed.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// The port clients know (2855 by RFC 4975 section 15.4), shared by all shards. Port 0 picks one.
    pub listen: SocketAddr,
    /// The relay's host name: in Use-Path, where RFC 4976 section 4.2 wants a fully qualified name,
    /// and in the certificate.
    pub host: String,
    /// First of the ports that shards have of their own, one each, in order; 0 picks free ones.
    pub own_port_first: u16,
    /// Realm of the challenge. Neither quotes nor backslashes.
    pub realm: String,
    /// Who may use it.
    pub users: Vec<RelayUser>,
    /// How long a URI is valid where the client does not say.
    pub expires_default_seconds: u32,
    /// Shortest validity a client may ask for; 423 below.
    pub expires_min_seconds: u32,
    /// Longest; 423 above.
    pub expires_max_seconds: u32,
    /// Take AUTH in the clear, too, and hand out `msrp` URIs for it. RFC 4976 section 5.1 forbids
    /// it: for laboratories.
    pub allow_plain: bool,
    /// Connect to loopback and link-local addresses on behalf of clients, too. Off, as what listens
    /// there often trusts everybody who can.
    pub allow_local_targets: bool,
    /// Limits of one shard.
    pub limits: RelayLimits,
}

/// Somebody who may use the relay.
#[derive(Clone, Debug)]
pub struct RelayUser {
    /// Name, as it stands between the quotes of the Authorization header.
    pub name: String,
    /// Hashes of the password in the relay's realm.
    pub credentials: Credentials,
}

/// Limits of one shard's relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayLimits {
    /// URIs handed out and valid. 403 beyond.
    pub registrations_max: usize,
    /// The same for one user: a handful of sessions on a handful of devices. 403 beyond.
    pub registrations_per_user_max: usize,
    /// Connections on which one user is authenticated. 403 beyond.
    pub connections_per_user_max: usize,
    /// Connections the relay makes. Past it the one idle for longest makes way, and 403 where none
    /// is idle.
    pub outbound_max: usize,
    /// Paths remembered, some 800 bytes each. 403 beyond.
    pub routes_max: usize,
    /// The same for one URI handed out: a session needs two. 403 beyond.
    pub routes_per_registration_max: usize,
    /// SENDs passed on and not answered, per connection; who feeds it is held back beyond.
    pub outstanding_max: usize,
    /// Other requests passed on and not answered, per connection. 413 beyond.
    pub requests_pending_max: usize,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            registrations_max: 65_536,
            registrations_per_user_max: 64,
            connections_per_user_max: 16,
            outbound_max: 4_096,
            routes_max: 131_072,
            routes_per_registration_max: 64,
            outstanding_max: 4_096,
            requests_pending_max: 64,
        }
    }
}

/// RFC 4976 section 6.1: how long a connection may be without a successful request.
pub(crate) const PROBATION_NS: u64 = 30_000_000_000;
/// RFC 4976 sections 6.1 and 6.3: so many requests without credentials that are right, or for URIs
/// that are not there, end a connection that has nothing better to show.
pub(super) const FAILURES_MAX: u8 = 5;
/// How long resolving, connecting and the TLS handshake of a connection of ours may take together:
/// within the transaction timer of those who wait for it.
pub(super) const OUTBOUND_TIMEOUT_NS: u64 = 15_000_000_000;
/// The longest that a connection which takes nothing at all, or takes too little while others wait
/// for the connection that feeds it, may hold anybody back: RFC 4976 section 3 wants a hop to take no
/// longer.
pub(super) const HOLD_MAX_NS: u64 = 30_000_000_000;
/// RFC 4976 section 5.4: a path nobody has used for so long is forgotten.
pub(super) const ROUTE_IDLE_NS: u64 = 300_000_000_000;
/// A connection that has fed two others within this time counts as shared.
pub(super) const SHARED_NS: u64 = 60_000_000_000;
/// Validity of a nonce; with an older one the client is told `stale=true`.
pub(super) const NONCE_LIFETIME_SECONDS: u64 = 1_800;
/// Connections an outside peer of one URI may have come in by and be found again.
pub(super) const PEERS_PER_REGISTRATION_MAX: usize = 8;
/// The port of a URI without one (RFC 4976 section 8).
pub(super) const DEFAULT_PORT: u16 = 2_855;
