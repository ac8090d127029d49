//! The node's configuration: what an operator may set, the defaults that are embedded in the
//! binary, and how a file is read and checked.
//!
//! Reading is done in two steps so that every complaint can name a line: serde turns the file into
//! [`Config`] (unknown names and wrong types end here), then `check` applies the
//! rules between the values. `docs/mrf.toml` shows every setting with its default; a test keeps the
//! two equal.

mod border;
mod certificate;
mod check;
mod conference;
mod events;
mod floors;
mod kms;
mod kms_keys;
mod mikey;
mod problem;
mod realms;
mod relay;
mod rooms;
mod secret;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use border::{
    Border, BorderBandwidth, BorderEstablishment, BorderRole, BorderSide, BorderTls,
    CertificateKey, NextHop, OtherMedia,
};
pub use certificate::{Certificate, CertificateProblem};
pub use conference::{Conference, Referrers, Subscribers};
pub use events::Events;
pub(crate) use floors::MESSAGE_LABEL;
pub use floors::{Floor, Floors, Order, ThirdParties};
pub use kms::{Kms, KmsAudit, KmsCertificate, KmsClientSettings, KmsGroup, KmsMode, KmsServer};
pub use kms_keys::{KmsIssuingKey, KmsKey, KmsSharedTicketKey, KmsSignedRequests};
pub use mikey::{
    Hex, IvTime, Mikey, MikeyCertificate, MikeySuite, MikeyTicketKey, PskIdentity, SharedWith,
};
pub use problem::Problem;
pub use realms::Realm;
pub use relay::{Relay, RelayUser};
pub use rooms::{Cpim, Creation, Room, Rooms};
pub use secret::Secret;

/// The whole configuration. Every section and every setting may be left out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where calls come in.
    pub sip: Sip,
    /// Where media comes in, and on how many shards.
    pub media: Media,
    /// How media may be protected.
    pub tls: Tls,
    /// Whether it must be.
    pub security: Security,
    /// The conferences that can be called.
    pub rooms: Rooms,
    /// Those of them that differ from the rest.
    #[serde(rename = "room", skip_serializing_if = "Vec::is_empty")]
    pub room_exceptions: Vec<Room>,
    /// Floor control.
    pub floors: Floors,
    /// The floors that rooms may have.
    #[serde(rename = "floor", skip_serializing_if = "Vec::is_empty")]
    pub floor_list: Vec<Floor>,
    /// Networks whose traffic is counted on its own.
    #[serde(rename = "realm", skip_serializing_if = "Vec::is_empty")]
    pub realms: Vec<Realm>,
    /// The MSRP relay.
    pub relay: Relay,
    /// The MIKEY parameters that no public text fixes.
    pub mikey: Mikey,
    /// The embedded key management service and our credentials with it.
    pub kms: Kms,
    /// Health, metrics and the API.
    pub http: Http,
    /// How long things may take.
    pub timers: Timers,
    /// How many there may be.
    pub limits: Limits,
    /// What the focus of a conference does besides taking calls.
    pub conference: Conference,
    /// What an application is told.
    pub events: Events,
    /// IMS-ALG or IBCF, where the node is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub border: Option<Border>,
}

/// Section `[sip]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sip {
    /// UDP socket for SIP.
    pub udp: SocketAddr,
    /// TCP listener for SIP.
    pub tcp: SocketAddr,
    /// Host written into Contact, where it is not the address listened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_host: Option<String>,
    /// Hosts of called URIs that are ours; a call to another one gets 404. Empty: all are.
    pub domains: Vec<String>,
    /// TCP connections from SIP peers at a time.
    pub connections_max: usize,
    /// While SIP messages keep waiting to be taken, a new call that has waited longer than this gets
    /// 503; 0: none does.
    pub queue_delay_max_milliseconds: u64,
}

/// Section `[media]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// Address the shards listen on.
    pub listen: IpAddr,
    /// Port of shard 0; shard n listens on `port` + n. 0 lets the kernel choose for every shard.
    pub port: u16,
    /// Address written into SDP, where it is not the one listened on (address translation).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised: Option<IpAddr>,
    /// How many shards.
    pub shards: Shards,
    /// Pin each shard's thread to a core.
    pub pin: bool,
    /// How an SDP port leads to a Termination.
    pub port_mode: PortMode,
    /// Take part in connection establishment for media anchoring (RFC 6714).
    pub cema: bool,
}

/// `media.shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected \"auto\" or a number of shards")]
pub enum Shards {
    /// One shard per core the process may use, less one for the control plane; at least one.
    Named(Auto),
    /// So many.
    Count(u16),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// Decided at start.
    Auto,
}

impl Shards {
    /// `auto`.
    pub const AUTO: Self = Self::Named(Auto::Auto);

    /// How many shards that is where the process may use `cores` cores.
    #[must_use]
    pub fn count(self, cores: usize) -> usize {
        match self {
            Self::Named(Auto::Auto) => cores.saturating_sub(1).clamp(1, SHARDS_MAX),
            Self::Count(count) => usize::from(count),
        }
    }
}

/// `media.port_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortMode {
    /// One port per shard for all; the first bytes of a connection name its Termination.
    Shared,
    /// A port for each Termination, as H.248 gateways do it.
    PerTermination,
}

/// Section `[tls]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// TLS 1.2 PSK suites by OpenSSL name, most wanted first.
    pub suites: Vec<String>,
    /// Take TLS 1.3 with an external PSK as well.
    pub tls13: bool,
    /// TLS with certificates, if there is to be any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// Section `[security]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// What becomes of an offer of plain TCP/MSRP, TCP/BFCP or UDP/BFCP.
    pub plain: Plain,
}

/// `security.plain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Plain {
    /// Taken.
    Allow,
    /// Refused: messages with 488, BFCP with port 0.
    Refuse,
}

/// A set of URIs: `*` is all, `*@host` those of a host, anything else the one URI.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct UriPattern(pub String);

/// Section `[http]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Listener of health, metrics, API and status page.
    pub listen: SocketAddr,
    /// Connections at a time, for this listener and for the KMS each. Scrapers and UEs fetching
    /// tickets need few; more than that is somebody's mistake.
    pub connections_max: usize,
    /// Length of the window in which traffic is shown beside that of the whole life.
    pub statistics_window_seconds: u64,
}

/// Section `[timers]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timers {
    /// What calls get to end after SIGTERM before the node leaves without them.
    pub shutdown_seconds: u64,
    /// From accept to the completed TLS handshake or, in the clear, the first request; a
    /// connection that is not bound by then is closed.
    pub unbound_seconds: u64,
    /// From the SDP answer to a bound connection; without one the call is ended.
    pub establishment_seconds: u64,
    /// How long a member whose connection was lost may take to re-create its session with a
    /// re-INVITE (RFC 4975 section 5.4); 0: its call ends with the connection.
    pub recovery_seconds: u64,
    /// How long a session keeps a key of MIKEY-TICKET before the node offers it another; 0: for as long
    /// as it lasts.
    pub rekeying_seconds: u64,
    /// A connection on which nothing arrives for this long is released, and its call with it.
    pub idle_seconds: u64,
    /// A connection whose kernel buffer takes nothing for this long is broken.
    pub send_stall_seconds: u64,
    /// How long a member that lags may hold up the others of its conference before it is dropped.
    pub slow_member_milliseconds: u64,
}

/// Section `[limits]`. Past a limit new work is refused with the protocol's own word and counted.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls at a time in the node.
    pub calls_max: u32,
    /// Calls of one caller URI at a time.
    pub calls_per_user_max: u32,
    /// Largest message a peer is told to send (`a=max-size`); 0 names no limit, as messages are
    /// switched while they arrive and cost no memory.
    pub message_bytes_max: u64,
    /// Terminations at a time on one shard: one per media stream of a call.
    pub terminations_per_shard_max: u32,
    /// Media connections at a time on one shard, bound or not. All shards together, SIP and HTTP
    /// must fit into the descriptors the process may open (`ulimit -n`).
    pub connections_per_shard_max: u32,
    /// Connections on one shard that named no Termination yet: they cost a handshake each, and
    /// nobody has vouched for them.
    pub unbound_per_shard_max: u32,
    /// The same for one source address, so that a single source cannot use them all up.
    pub unbound_per_source_max: u32,
    /// Bytes that wait for one receiver before its senders are paused. The bandwidth-delay
    /// product of a national path (100 Mbit/s at 80 ms) is 1 MB.
    pub egress_bytes_max: u32,
}

impl Default for Sip {
    fn default() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5060));
        Self {
            udp: address,
            tcp: address,
            contact_host: None,
            domains: Vec::new(),
            connections_max: 1024,
            queue_delay_max_milliseconds: 100,
        }
    }
}

impl Default for Media {
    fn default() -> Self {
        Self {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 2855,
            advertised: None,
            shards: Shards::AUTO,
            pin: true,
            port_mode: PortMode::Shared,
            cema: true,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        let suites = mrfp_protocol::tls::ProfileConfig::default();
        Self { suites: suites.suites, tls13: suites.tls13, certificate: None }
    }
}

impl Default for Security {
    fn default() -> Self {
        Self { plain: Plain::Allow }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            connections_max: 128,
            statistics_window_seconds: 300,
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            shutdown_seconds: 10,
            unbound_seconds: 5,
            establishment_seconds: 32,
            recovery_seconds: 0,
            rekeying_seconds: 0,
            idle_seconds: 3600,
            send_stall_seconds: 60,
            slow_member_milliseconds: 200,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_max: 100_000,
            calls_per_user_max: 100_000,
            message_bytes_max: 0,
            terminations_per_shard_max: 16_384,
            connections_per_shard_max: 16_384,
            unbound_per_shard_max: 8192,
            unbound_per_source_max: 6144,
            egress_bytes_max: 1024 * 1024,
        }
    }
}

/// Shards one node may have: one per core of the largest servers sold, and few enough that the
/// consecutive media ports stay a range a firewall rule can name.
pub const SHARDS_MAX: usize = 512;

/// Name of the development key that the embedded configuration shares with the load generator.
pub const DEVELOPMENT_KEY_ID: &str = "development-psk";
/// The development key: public, therefore refused wherever the node listens beyond loopback.
pub const DEVELOPMENT_KEY: [u8; 16] = *b"MRF resolve: dev";
/// Name of the development ticket protection key.
pub const DEVELOPMENT_TICKET_KEY_ID: &str = "development-tpk";
/// The development ticket protection key: as public as the other.
pub const DEVELOPMENT_TICKET_KEY: [u8; 16] = *b"MRF tickets: dev";

/// S_IROTH: everybody may read the file.
const OTHERS_READ: u32 = 0o004;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Says what is wrong, where, and what to do about it.
    pub fn load(path: &Path) -> Result<Self, Problem> {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|error| Problem::unreadable(&name, &error))?;
        Self::parse(&name, &text)
    }

    /// Reads and checks the text of a file; `name` is what complaints call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        let config: Self =
            toml::from_str(text).map_err(|error| Problem::from_toml(name, text, &error))?;
        config.check().map_err(|finding| Problem::from_finding(name, text, finding))?;
        Ok(config)
    }

    /// Whether others than its owner may read a file that holds credentials of the operator's own.
    /// `false` also where that cannot be found out.
    #[must_use]
    pub fn is_exposed(&self, path: &Path) -> bool {
        let own_keys = self
            .node_secrets()
            .chain(self.kms_secrets())
            .any(|key| !key.equals(&DEVELOPMENT_KEY) && !key.equals(&DEVELOPMENT_TICKET_KEY));
        let readable = std::fs::metadata(path).is_ok_and(|file| file.mode() & OTHERS_READ != 0);
        readable && (own_keys || self.relay.is_on())
    }

    /// How long calls may take to end after a signal.
    #[must_use]
    pub fn shutdown_timeout(&self) -> Duration {
        Duration::from_secs(self.timers.shutdown_seconds)
    }

    /// Whether a key that everybody knows is in use.
    #[must_use]
    pub fn has_development_credential(&self) -> bool {
        let is_known =
            |key: &Secret| key.equals(&DEVELOPMENT_KEY) || key.equals(&DEVELOPMENT_TICKET_KEY);
        // A node that asks a KMS elsewhere, and makes no tickets for it, has no use for those.
        let own_kms = self.kms.mode == KmsMode::Embedded;
        let used = own_kms || self.conference.dial_ticket_key.is_some();
        self.node_secrets().any(is_known) || (used && self.kms_secrets().any(is_known))
    }
}
