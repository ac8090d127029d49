//! HTTP: health, metrics and the API on one listener, the key management service on another.
//!
//! Both are small servers under attack-proof limits: so many connections, so many bytes of head
//! and body, so much time for each.

mod admin;
mod border;
mod floor_metrics;
mod floors;
mod kms;
mod kms_admin;
mod metrics;
mod process;
mod rooms;
mod server;
mod statistics;

use std::sync::Arc;

use mrfp_core::metrics::MetricKind;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::mrfc::{Administration, AdministrationError, CallId, DialSecurity};
pub use admin::{AdminServices, router as admin_router};
pub use floors::{
    FloorDetail, FloorQuery, FloorsDetail, FloorsError, PolicyDetail, RequestDetail, UserDetail,
};
pub(crate) use kms::{CONTENT_TYPE, MESSAGE_BYTES_MAX, is_mikey};
pub use kms::{KmsHandler, KmsResponse, router as kms_router};
pub use kms_admin::{KmsAdmin, Reload, router as kms_admin_router};
pub use server::{HttpServer, HttpServerConfig, TlsIdentity};
pub use statistics::{RealmStatistics, RoomStatistics};

/// What an HTTP handler asks of the loop that owns the calls.
#[derive(Debug)]
pub enum Query {
    /// The Contexts that exist.
    Contexts(oneshot::Sender<Vec<ContextView>>),
    /// The rooms that exist, or the one of that name.
    Rooms {
        /// Which; `None`: all.
        name: Option<String>,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<RoomDetail>>,
    },
    /// Something is to be done to a room.
    Administer {
        /// Which.
        room: String,
        /// What.
        administration: Administration,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<(), AdministrationError>>,
    },
    /// Somebody is to be called into a room.
    Dial {
        /// Which.
        room: String,
        /// Whom.
        target: String,
        /// How it is protected, where not as the configuration has it.
        security: Option<DialSecurity>,
        /// Where the call's name goes, or the SIP status that says why there is none.
        reply: oneshot::Sender<Result<CallId, u16>>,
    },
    /// What every realm has carried, and the length of the window in seconds.
    Realms(oneshot::Sender<(u64, Vec<RealmStatistics>)>),
    /// What a room has carried; `None`: there is no such room.
    RoomStatistics {
        /// Which.
        room: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Option<RoomStatistics>>,
    },
    /// Something about the floors of a room.
    Floors {
        /// Which.
        room: String,
        /// What.
        query: FloorQuery,
        /// Where the answer goes: how they are afterwards.
        reply: oneshot::Sender<Result<Box<FloorsDetail>, FloorsError>>,
    },
    /// The border; `None`: the node is none.
    Border(oneshot::Sender<Option<Box<BorderDetail>>>),
    /// The control plane's counters, by metric.
    Counters(oneshot::Sender<Vec<Family>>),
}

/// One way to the loop that owns the calls; bounded.
pub type Queries = mpsc::Sender<Query>;

/// A Context as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct ContextView {
    /// Identifier of the Context.
    pub context: u64,
    /// The room it is.
    pub room: String,
    /// The shard that carries it.
    pub shard: u16,
    /// Who is in it.
    pub members: Vec<MemberView>,
}

/// A room as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct RoomDetail {
    /// Its name.
    pub room: String,
    /// The conference URI.
    pub uri: String,
    /// Nobody may come in.
    pub locked: bool,
    /// Only who holds the floor for the messages may send them; `null` where the room has no floors.
    pub moderated: Option<bool>,
    /// Subscriptions to its event package.
    pub subscriptions: usize,
    /// Who is in it.
    pub members: Vec<MemberDetail>,
}

/// A member of a room as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct MemberDetail {
    /// Names it where something is to be done to it.
    pub call: u64,
    /// SIP URI of the member.
    pub uri: String,
    /// Its nickname.
    pub nickname: Option<String>,
    /// `awaiting-keys`, `reserving`, `calling`, `answered`, `connected`, `recovering` or
    /// `modifying`.
    pub state: &'static str,
    /// What it sends is not passed on.
    pub muted: bool,
    /// `a=userid` of its BFCP stream; `null` where it has none.
    pub floor_user: Option<u16>,
    /// `none`, `tls-psk` or `tls-certificate`.
    pub security: &'static str,
}

/// A member of a Context as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct MemberView {
    /// SIP URI of the member.
    pub uri: String,
    /// `joining`, `connected` or `leaving`.
    pub state: &'static str,
    /// `none`, `tls-psk` or `tls-certificate`.
    pub security: &'static str,
}

/// The border as the API shows it.
#[derive(Clone, Debug)]
pub struct BorderDetail {
    /// The calls through it.
    pub calls: Vec<BorderCallDetail>,
    /// Where its requests go.
    pub next_hops: Vec<NextHopDetail>,
    /// Contacts of UEs that are registered through it.
    pub registrations: usize,
}

/// A call through the border as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct BorderCallDetail {
    /// Its name.
    pub call: u64,
    /// From which side it came.
    pub caller: &'static str,
    /// To which it went.
    pub callee: &'static str,
    /// The shard that carries its media; `null` where there is none yet.
    pub shard: Option<u16>,
    /// `begun`, `agreed`, `recovering` or `releasing`.
    pub state: &'static str,
    /// Its media.
    pub streams: Vec<BorderStreamDetail>,
}

/// A media stream of it.
#[derive(Clone, Debug, Serialize)]
pub struct BorderStreamDetail {
    /// The number of its m-line, from 0.
    pub line: usize,
    /// `msrp`, `bfcp` or `t38`.
    pub kind: &'static str,
    /// `end-to-access-edge`, `end-to-end` or `plain`.
    pub profile: &'static str,
    /// Its end towards the caller.
    pub caller: BorderPointDetail,
    /// Its end towards the callee.
    pub callee: BorderPointDetail,
}

/// One end of it.
#[derive(Clone, Debug, Serialize)]
pub struct BorderPointDetail {
    /// On which side.
    pub side: &'static str,
    /// Ours.
    pub address: Option<String>,
    /// The party's, as its SDP has it; `null` where it only ever comes to us.
    pub remote: Option<String>,
    /// `waiting`, `established` or `lost`.
    pub state: &'static str,
}

/// A next hop of the border as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct NextHopDetail {
    /// Of which side.
    pub side: &'static str,
    /// Its address.
    pub address: std::net::SocketAddr,
    /// `udp` or `tcp`.
    pub transport: &'static str,
    /// It answers, as far as is known.
    pub alive: bool,
    /// Requests that it has not answered, or with 503.
    pub failures: u64,
}

/// One metric family.
#[derive(Clone, Debug)]
pub struct Family {
    /// Name without `mrf_` and `_total`.
    pub name: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// One sample for each set of labels.
    pub samples: Vec<Sample>,
}

/// One value of a [`Family`].
#[derive(Clone, Debug)]
pub struct Sample {
    /// Label names and values; empty where the family has but one value.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

impl Family {
    /// A family with one value.
    #[must_use]
    pub fn single(name: &'static str, help: &'static str, kind: MetricKind, value: u64) -> Self {
        Self { name, help, kind, samples: vec![Sample { labels: Vec::new(), value }] }
    }
}

/// Whether the node takes calls; written by the control loop, read by `/readyz`.
#[derive(Default, Debug)]
pub struct Readiness(std::sync::atomic::AtomicU8);

/// The states of [`Readiness`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadinessState {
    /// Not everything listens yet.
    Starting,
    /// Calls are taken.
    Ready,
    /// A shard does not answer.
    ShardLost,
    /// The operator stops the node.
    Draining,
}

impl Readiness {
    /// A readiness that starts out as not ready.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Changes the state.
    pub fn set(&self, state: ReadinessState) {
        let value = match state {
            ReadinessState::Starting => 0,
            ReadinessState::Ready => 1,
            ReadinessState::ShardLost => 2,
            ReadinessState::Draining => 3,
        };
        self.0.store(value, std::sync::atomic::Ordering::Relaxed);
    }

    /// The state.
    #[must_use]
    pub fn get(&self) -> ReadinessState {
        match self.0.load(std::sync::atomic::Ordering::Relaxed) {
            1 => ReadinessState::Ready,
            2 => ReadinessState::ShardLost,
            3 => ReadinessState::Draining,
            _ => ReadinessState::Starting,
        }
    }
}
