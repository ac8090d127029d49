//! The back-to-back user agent in front of the border (RFC 7092 section 3.2: it changes signalling and has
//! media changed). Two sides, each with sockets and next hops of its own; what comes in on one leaves by the
//! other as a request of ours. It reads no session description: [`Event`] takes it to the border and
//! [`Action`] brings what goes on.
//!
//! A call is a task (`call`), which owns its dialogs on both sides; `side` finds it by the tag of ours that
//! every message within a dialog has. `headers` is the one table of what crosses the border.

mod call;
mod dialogs;
mod headers;
mod mediasec;
mod metrics;
mod next_hops;
mod passing;
mod registering;
mod registrations;
mod side;
mod transactions;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Action, BorderCallId, Event, SideRole};
use crate::sip::transport::Sockets;
use crate::sip::{SipConfig, SipMetrics};
use call::Input;
pub use metrics::B2buaMetrics;
pub use next_hops::{NextHop, NextHopState, Transport};
use registrations::Registrations;
use side::Side;

/// How the B2BUA is set up.
#[derive(Clone, Debug)]
pub struct B2buaConfig {
    /// Of an IMS-ALG access and core, of an IBCF own and foreign.
    pub sides: [SideConfig; 2],
    /// Calls and subscriptions at once; one more gets 503.
    pub calls_max: usize,
    /// Contacts of UEs that are remembered; a REGISTER for one more gets 503.
    pub registrations_max: usize,
    /// The same of one address of record; one more gets 403.
    pub contacts_per_user_max: usize,
    /// How long a call may be unanswered; then it is cancelled and the caller gets 408 (RFC 3261 section
    /// 16.6, timer C: more than 3 minutes).
    pub unanswered_max: Duration,
}

/// One side of it.
#[derive(Clone, Debug)]
pub struct SideConfig {
    /// Which.
    pub role: SideRole,
    /// Sockets, limits and timers. `calls_max`, `outbound_proxy` and the intervals of session timers are
    /// not looked at: calls are counted for both sides together, next hops are below, and session timers
    /// are the affair of the ends.
    pub sip: SipConfig,
    /// Where requests that leave by this side go, in this order as long as they answer. None on an
    /// access side, where UEs are reached by their registration.
    pub next_hops: Vec<NextHop>,
    /// Part of the trust domain of RFC 3325: its P-Asserted-Identity is believed, and it is told what
    /// belongs to the network.
    pub trusted: bool,
    /// How often each next hop is asked with OPTIONS whether it lives; zero: never.
    pub probe_interval: Duration,
}

impl Default for B2buaConfig {
    fn default() -> Self {
        Self {
            sides: [SideConfig::new(SideRole::Access), SideConfig::new(SideRole::Core)],
            // Some 40 KB for each: two dialogs and their task.
            calls_max: 50_000,
            registrations_max: 100_000,
            contacts_per_user_max: 10,
            unanswered_max: Duration::from_secs(185),
        }
    }
}

impl SideConfig {
    /// A side without next hops, trusted as its role is.
    #[must_use]
    pub fn new(role: SideRole) -> Self {
        Self {
            role,
            sip: SipConfig::default(),
            next_hops: Vec::new(),
            trusted: matches!(role, SideRole::Core | SideRole::Own),
            probe_interval: Duration::from_secs(10),
        }
    }
}

/// A running B2BUA.
#[derive(Debug)]
pub struct B2buaHandle {
    shared: Arc<Shared>,
    sides: [Arc<Side>; 2],
    addresses: [Addresses; 2],
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// Where a side is bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// UDP.
    pub udp: SocketAddr,
    /// TCP.
    pub tcp: SocketAddr,
}

/// Binds the sockets of both sides and starts to serve them on the current tokio runtime.
///
/// # Errors
/// Binding failed.
pub async fn start(config: B2buaConfig, events: mpsc::Sender<Event>) -> io::Result<B2buaHandle> {
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let configs = config.sides.clone();
    let sockets = [Sockets::bind(&configs[0].sip).await?, Sockets::bind(&configs[1].sip).await?];
    let addresses = [0, 1].map(|side: usize| Addresses {
        udp: sockets[side].udp_address,
        tcp: sockets[side].tcp_address,
    });
    let shared = Arc::new(Shared {
        registrations: Mutex::new(Registrations::new(&config)),
        config,
        events,
        metrics: Arc::default(),
        calls: Mutex::default(),
        last_call: AtomicU64::new(0),
    });
    let [first, second] = configs;
    let side = |number: usize, config| {
        Arc::new(Side::new(number, config, &shared, addresses[number], &cancel, &tasks))
    };
    let sides = [side(0, first), side(1, second)];
    for (side, sockets) in sides.iter().zip(sockets) {
        let other = &sides[1 - side.number];
        side.join(other);
        sockets.serve(side);
        side.spawn(next_hops::probe(Arc::clone(side)));
    }
    let expiring = Arc::clone(&shared);
    sides[0].spawn(async move { expiring.forget_expired().await });
    Ok(B2buaHandle { shared, sides, addresses, cancel, tasks })
}

impl B2buaHandle {
    /// Does what the border wants of a call; never blocks. For one that has ended it does nothing. Actions
    /// that are not for us are returned.
    pub fn act(&self, action: Action) -> Option<Action> {
        let call = match &action {
            Action::Offer { call, .. }
            | Action::Answer { call, .. }
            | Action::Release { call, .. } => *call,
            Action::Command { .. } | Action::Drained => return Some(action),
        };
        if let Some(inbox) = self.shared.calls().get(&call) {
            // A call whose task is just ending needs nothing any more.
            let _ = inbox.send(Input::Border(action));
        }
        None
    }

    /// Where the side is bound; `None` for a role that is not configured.
    pub fn addresses(&self, role: SideRole) -> Option<Addresses> {
        self.side(role).map(|side| self.addresses[side.number])
    }

    /// The next hops of a side and whether they live.
    pub fn next_hops(&self, role: SideRole) -> Vec<NextHopState> {
        self.side(role).map(|side| side.next_hops.states()).unwrap_or_default()
    }

    /// What is counted for both sides together.
    pub fn metrics(&self) -> Arc<B2buaMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// What the sockets of a side count.
    pub fn sip_metrics(&self, role: SideRole) -> Option<Arc<SipMetrics>> {
        self.side(role).map(|side| Arc::clone(&side.metrics))
    }

    /// Calls and subscriptions under way.
    pub fn calls(&self) -> usize {
        self.shared.calls().len()
    }

    /// Contacts of UEs that are registered.
    pub fn registrations(&self) -> usize {
        self.shared.registrations().len()
    }

    /// Transactions of a side that are not over yet.
    pub fn transactions(&self, role: SideRole) -> usize {
        self.side(role).map_or(0, |side| side.endpoint.transactions.len())
    }

    /// How long messages of the slower side wait at present between the kernel and us.
    pub fn queue_delay(&self) -> Duration {
        self.sides.iter().map(|side| side.queue_delay()).max().unwrap_or_default()
    }

    /// Closes the sockets and every connection. The border releases its calls first; BYEs still unanswered
    /// get T1 * 4 to be.
    pub async fn shutdown(self) {
        let longest = self.sides.iter().map(|side| side.config.t1 * 4).max().unwrap_or_default();
        let until = tokio::time::Instant::now() + longest;
        while (self.calls() > 0 || self.shared.metrics.requests_open.get() > 0)
            && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(SHUTDOWN_POLL).await;
        }
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn side(&self, role: SideRole) -> Option<&Arc<Side>> {
        self.sides.iter().find(|side| side.role == role)
    }
}

/// What both sides and all calls share.
pub(crate) struct Shared {
    config: B2buaConfig,
    events: mpsc::Sender<Event>,
    metrics: Arc<B2buaMetrics>,
    calls: Mutex<HashMap<BorderCallId, mpsc::UnboundedSender<Input>>>,
    registrations: Mutex<Registrations>,
    last_call: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// Every entry is consistent by itself, whoever panicked.
    fn calls(&self) -> MutexGuard<'_, HashMap<BorderCallId, mpsc::UnboundedSender<Input>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_call(&self) -> BorderCallId {
        BorderCallId(self.last_call.fetch_add(1, Ordering::Relaxed) + 1)
    }

    async fn forget_expired(&self) {
        loop {
            tokio::time::sleep(EXPIRY_SWEEP_INTERVAL).await;
            let forgotten = self.registrations().expire(tokio::time::Instant::now());
            self.metrics.registrations_expired.add(forgotten as u64);
        }
    }
}

/// Registrations last minutes.
const EXPIRY_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

const SHUTDOWN_POLL: Duration = Duration::from_millis(10);
