//! What every SIP front of this node stands on: a UDP socket, a TCP listener and the transactions of the
//! stack behind them. What is done with a message that arrives is the front's affair.

use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rsipstack::EndpointBuilder;
use rsipstack::sip::{self, SipMessage};
use rsipstack::transaction::TransactionReceiver;
use rsipstack::transaction::endpoint::{EndpointInnerRef, EndpointOption};
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transport::transport_layer::TransportLayer;
use rsipstack::transport::{SipAddr, SipConnection};
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SipConfig;
use super::gate::{self, Ignored};
use super::metrics::SipMetrics;
use super::overload::OverloadControl;
use super::sending::Connections;
use super::way::{self, Arrival};

/// Who takes what a station receives.
pub(crate) trait Front: Deref<Target = Station> + Send + Sync + 'static {
    /// One message from a socket. What is returned goes back at once, past the stack.
    fn receive(
        self: &Arc<Self>,
        arrival: Arrival<'_>,
    ) -> impl Future<Output = Option<Reply>> + Send;
}

/// A response that goes back as it is.
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) to: SocketAddr,
}

/// The sockets and the stack.
pub(crate) struct Station {
    pub(crate) config: SipConfig,
    pub(crate) metrics: Arc<SipMetrics>,
    pub(crate) cancel: CancellationToken,
    pub(crate) endpoint: EndpointInnerRef,
    pub(crate) incoming: Mutex<TransactionReceiver>,
    pub(super) overload: Mutex<OverloadControl>,
    tasks: TaskTracker,
    pub(super) connections: Connections,
    /// The UDP socket as the stack has it; set when it is served.
    pub(crate) udp: OnceLock<SipConnection>,
    /// The same as it is.
    pub(super) socket: OnceLock<Arc<UdpSocket>>,
    /// `host:port` of our Contact, by transport.
    pub(crate) contact_udp: String,
    pub(crate) contact_tcp: String,
}

impl Station {
    pub(crate) fn new(
        config: SipConfig,
        udp: SocketAddr,
        tcp: SocketAddr,
        cancel: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let option = EndpointOption {
            t1: config.t1,
            t2: config.t1 * 8,
            t4: config.t1 * 10,
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
        Self {
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
            tasks,
            connections: Connections::default(),
            udp: OnceLock::new(),
            socket: OnceLock::new(),
        }
    }

    /// Runs a task until it ends or the front shuts down.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
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

    /// The gate let it pass, and the stack cannot read it.
    pub(crate) fn not_understood(&self, arrival: Arrival<'_>) -> Option<Reply> {
        self.metrics.stack_refused.increment();
        let refusal = gate::refuse(arrival.bytes, 400, "Bad Request", "", arrival.source);
        refusal.map(|bytes| Reply { bytes, to: arrival.source })
    }

    /// The kernel had no room for so many datagrams before one received at `received`.
    pub(super) fn overflowed(&self, received: Instant, dropped: u32) {
        self.metrics.datagrams_dropped.add(dropped.into());
        self.overload_control().overflowed(received, Instant::now());
    }

    /// What a 503 tells, in seconds: who is sent away together shall not come back together.
    pub(crate) fn retry_after_seconds(&self, spread: u64) -> u64 {
        let least = self.config.retry_after.as_secs();
        least + spread % least.max(1)
    }

    pub(crate) fn queue_delay(&self) -> Duration {
        self.overload_control().delay(Instant::now())
    }

    /// A message received at `received` is taken. True: if it asks for a new call, that is to be refused.
    pub(crate) fn has_waited_too_long(&self, received: Instant) -> bool {
        self.overload_control().take(received, Instant::now())
    }

    /// It is consistent at any moment, whoever panicked.
    fn overload_control(&self) -> MutexGuard<'_, OverloadControl> {
        self.overload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_ignored(&self, why: Ignored) {
        match why {
            Ignored::KeepAlive => {}
            Ignored::Response | Ignored::Ack => {
                self.metrics.messages.increment();
                self.metrics.dropped_malformed.increment();
            }
            Ignored::Unanswerable => {
                self.metrics.messages.increment();
                self.metrics.dropped_unanswerable.increment();
            }
        }
    }

    /// A request received before: its transaction answers it, whatever the load.
    pub(crate) fn is_known(&self, bytes: &[u8]) -> bool {
        let (open, finished) = (&self.endpoint.transactions, &self.endpoint.finished_transactions);
        // To make the key costs more than all the rest; most of the time there is nothing to find.
        if open.is_empty() && finished.is_empty() {
            return false;
        }
        let Ok(SipMessage::Request(request)) = SipMessage::try_from(bytes) else { return false };
        TransactionKey::from_request(&request, TransactionRole::Server)
            .is_ok_and(|key| open.contains_key(&key) || finished.contains_key(&key))
    }

    /// What the stack reads a message as; a request says where it came from.
    #[expect(clippy::result_large_err, reason = "it is what the stack says of what it cannot read")]
    pub(crate) fn read(&self, arrival: Arrival<'_>, body: &[u8]) -> rsipstack::Result<SipMessage> {
        let mut message = SipMessage::try_from(arrival.bytes)?;
        // Without a Content-Length the stack takes no body; the gate knows better.
        match &mut message {
            SipMessage::Request(request) => body.clone_into(&mut request.body),
            SipMessage::Response(response) => body.clone_into(&mut response.body),
        }
        if let SipMessage::Request(request) = &mut message {
            way::mark_source(request, arrival.source, arrival.stack_transport())?;
        }
        Ok(message)
    }

    /// Gives the stack what it has read.
    pub(crate) async fn give_to_stack(
        &self,
        arrival: Arrival<'_>,
        message: SipMessage,
    ) -> rsipstack::Result<()> {
        let from = SipAddr::new(arrival.stack_transport(), arrival.source.into());
        self.endpoint.on_received_message(message, arrival.connection.clone(), &from).await
    }
}

impl Arrival<'_> {
    fn stack_transport(&self) -> sip::Transport {
        match self.transport {
            gate::Transport::Udp => sip::Transport::Udp,
            gate::Transport::Tcp => sip::Transport::Tcp,
        }
    }
}
