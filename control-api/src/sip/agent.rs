//! The user agent: what its parts share. Requests from the stack become events (`incoming`,
//! `invite`, `in_dialog`), actions become responses and requests (`outgoing`).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rsipstack::EndpointBuilder;
use rsipstack::transaction::TransactionReceiver;
use rsipstack::transaction::endpoint::{EndpointInnerRef, EndpointOption};
use rsipstack::transport::SipConnection;
use rsipstack::transport::transport_layer::TransportLayer;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SipConfig;
use super::dialog::Table;
use super::metrics::{Gauge, SipMetrics};
use super::overload::OverloadControl;
use super::sending::Connections;
use crate::mrfc::Event;

/// The state every task shares.
pub(super) struct Agent {
    pub(super) config: SipConfig,
    pub(super) metrics: Arc<SipMetrics>,
    pub(super) cancel: CancellationToken,
    pub(super) endpoint: EndpointInnerRef,
    pub(super) incoming: Mutex<TransactionReceiver>,
    pub(super) table: Mutex<Table>,
    pub(super) overload: Mutex<OverloadControl>,
    pub(super) events: mpsc::Sender<Event>,
    tasks: TaskTracker,
    /// BYEs and NOTIFYs without a final response.
    pub(super) requests_open: Gauge,
    pub(super) connections: Connections,
    /// The UDP socket as the stack has it; set when it is served.
    pub(super) udp: OnceLock<SipConnection>,
    /// The same as it is.
    pub(super) socket: OnceLock<Arc<UdpSocket>>,
    /// `host:port` of our Contact, by transport.
    pub(super) contact_udp: String,
    pub(super) contact_tcp: String,
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
        let option = EndpointOption {
            t1: config.t1,
            t2: config.t1 * 8,
            t4,
            t1x64: config.t1 * 64,
            // The ACK of a 2xx is ours: the stack would look for another way to the callee.
            auto_ack_2xx: false,
            ..EndpointOption::default()
        };
        let endpoint = EndpointBuilder::new()
            .with_user_agent(&config.user_agent)
            .with_transport_layer(TransportLayer::new(cancel.clone()))
            .with_cancel_token(cancel.clone())
            .with_option(option)
            .build();
        let incoming = endpoint.incoming_transactions().expect("a new endpoint has its receiver");
        let contact = |bound: SocketAddr| match &config.contact_host {
            Some(host) => format!("{host}:{}", bound.port()),
            None => SipConnection::resolve_bind_address(bound).to_string(),
        };
        Arc::new(Self {
            contact_udp: contact(udp),
            contact_tcp: contact(tcp),
            overload: Mutex::new(OverloadControl::new(
                config.queue_delay_max,
                config.queue_delay_interval,
            )),
            config,
            metrics: Arc::default(),
            cancel,
            endpoint: endpoint.inner,
            incoming: Mutex::new(incoming),
            table: Mutex::new(Table::new(t4)),
            events,
            tasks,
            requests_open: Gauge::default(),
            connections: Connections::default(),
            udp: OnceLock::new(),
            socket: OnceLock::new(),
        })
    }

    /// Runs a task until it ends or the front shuts down.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        // Some 5 KB; an async block that captures a future and then awaits it holds it twice.
        let task = Box::pin(task);
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
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
