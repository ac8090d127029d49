//! The user agent: what its parts share. Requests from the stack become events (`incoming`,
//! `invite`, `in_dialog`), actions become responses and requests (`outgoing`).

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SipConfig;
use super::dialog::Table;
use super::metrics::Gauge;
use super::station::Station;
use crate::mrfc::Event;

/// The state every task shares.
pub(super) struct Agent {
    station: Station,
    pub(super) table: Mutex<Table>,
    pub(super) events: mpsc::Sender<Event>,
    /// BYEs and NOTIFYs without a final response.
    pub(super) requests_open: Gauge,
}

impl Deref for Agent {
    type Target = Station;

    fn deref(&self) -> &Station {
        &self.station
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Agent").field("contact", &self.contact_udp).finish_non_exhaustive()
    }
}

impl Agent {
    pub(super) fn new(
        config: SipConfig,
        events: mpsc::Sender<Event>,
        udp: SocketAddr,
        tcp: SocketAddr,
        cancel: CancellationToken,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let t4 = config.t1 * 10;
        Arc::new(Self {
            station: Station::new(config, udp, tcp, cancel, tasks),
            table: Mutex::new(Table::new(t4)),
            events,
            requests_open: Gauge::default(),
        })
    }

    /// A panic with the lock held left at most one call inconsistent: the others go on.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn send(&self, event: Event) {
        // The MRFC's side is gone only while the node goes down.
        if self.events.send(event).await.is_err() {
            tracing::debug!("no MRFC takes the event");
        }
    }
}
