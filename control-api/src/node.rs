//! The node: both planes wired together. A library, so that a test can run a whole one in its own
//! process on ports of the kernel's choice.
//!
//! Everything of the control plane lives on the tokio runtime that calls [`Node::start`], which may
//! have a single thread. One task (`control`) owns the MRFC, the shards' ports and the SIP front;
//! HTTP handlers put questions to it over a bounded queue. The shards have threads of their own.

mod control;
mod counters;
mod error;
mod relay;
pub(crate) mod settings;
mod statistics;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mrfp_core::{Mrfp, Port};
use mrfp_io::DoorbellReceiver;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::http::{
    AdminServices, HttpServer, HttpServerConfig, KmsResponse, Readiness, ReadinessState,
    admin_router, kms_router,
};
use crate::kms::Kms;
use crate::mikey::NtpTime;
use crate::mikey::Responder;
use crate::mrfc::Mrfc;
use crate::random;
use mrfp_protocol::tls::Fingerprint;

use control::Control;
pub use error::StartError;

/// A running node.
#[derive(Debug)]
pub struct Node {
    addresses: Addresses,
    stop: CancellationToken,
    control: JoinHandle<Stopped>,
}

/// Where a node listens, as bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// SIP over UDP.
    pub sip_udp: SocketAddr,
    /// SIP over TCP.
    pub sip_tcp: SocketAddr,
    /// MSRP, one per shard, as announced to peers.
    pub media: Vec<SocketAddr>,
    /// The relay, where there is one, as announced to its clients.
    pub relay: Option<SocketAddr>,
    /// Health, metrics, API.
    pub http: SocketAddr,
    /// The KMS.
    pub kms: SocketAddr,
}

/// How a node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Every call was ended and everything was given back.
    Drained,
    /// The time was up, or a shard did not stop: so many calls were cut off.
    CutOff {
        /// Calls that were left.
        calls: usize,
    },
}

impl Node {
    /// Starts a node; returns once everything listens. Must be called on a tokio runtime with I/O
    /// and time enabled.
    ///
    /// # Errors
    /// Says which part could not be started, why, and what to do about it.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // First, as it knows best what is wrong and what helps.
        mrfp_io::probe().map_err(StartError::Ring)?;
        let readiness = Readiness::new();
        let (bell, bell_receiver) = mrfp_io::doorbell().map_err(StartError::System)?;
        let bell_receiver = watch(bell_receiver).map_err(StartError::System)?;
        let media = settings::media(&config).map_err(StartError::Certificate)?;
        let certificate = media.certificate.as_ref();
        let certificate = certificate.map(|shown| shown.identity.fingerprint());
        let ports = Mrfp::start(&media, &bell).map_err(StartError::Media)?;
        match Self::start_control(&config, &readiness, certificate, ports, bell_receiver).await {
            Ok(node) => {
                readiness.set(ReadinessState::Ready);
                Ok(node)
            }
            Err((error, ports)) => {
                // The first error is the one to tell.
                let _ = control::stop_shards(ports).await;
                Err(error)
            }
        }
    }

    async fn start_control(
        config: &Config,
        readiness: &Arc<Readiness>,
        certificate: Option<Fingerprint>,
        ports: Vec<Port>,
        bell: AsyncFd<DoorbellReceiver>,
    ) -> Result<Self, (StartError, Vec<Port>)> {
        let kms = Arc::new(Mutex::new(Kms::new(settings::kms(config))));
        let (queries, asked) = mpsc::channel(QUERIES_MAX);
        let services = AdminServices {
            readiness: Arc::clone(readiness),
            shards: ports.iter().map(|port| (port.shard(), port.metrics())).collect(),
            queries,
        };
        let http = HttpServerConfig::new(config.http.listen, config.http.connections_max);
        let http = match HttpServer::start(http, admin_router(services)).await {
            Ok(server) => server,
            Err(error) => return Err((StartError::http(config, error), ports)),
        };
        let kms_http = HttpServerConfig::new(config.kms.listen, config.http.connections_max);
        let kms_http = match HttpServer::start(kms_http, kms_router(handler(&kms))).await {
            Ok(server) => server,
            Err(error) => return Err((StartError::kms(config, error), ports)),
        };
        // SIP comes last: a call that arrives finds everything else in place.
        let (sip_events, events) = mpsc::channel(SIP_EVENTS_MAX);
        let sip = match crate::sip::start(settings::sip(config), sip_events).await {
            Ok(sip) => sip,
            Err(error) => return Err((StartError::sip(config, error), ports)),
        };
        let addresses = Addresses {
            sip_udp: sip.udp_address(),
            sip_tcp: sip.tcp_address(),
            media: ports.iter().map(Port::address).collect(),
            relay: ports.first().and_then(Port::relay_address),
            http: http.address(),
            kms: kms_http.address(),
        };
        let responder = Responder::new(settings::responder(config));
        let mut mrfc_config = settings::mrfc(config, &ports, certificate);
        mrfc_config.focus.contact_hosts = sip.contact_hosts();
        let realm_names = mrfc_config.realms.names().to_vec();
        let mrfc = Mrfc::new(mrfc_config, Some(responder))
            .with_kms(kms)
            .with_initiator(settings::initiator(config));
        let stop = CancellationToken::new();
        let parts = control::Parts {
            mrfc,
            ports,
            bell,
            sip,
            sip_events: events,
            queries: asked,
            readiness: Arc::clone(readiness),
            resolver: relay::Resolver::new(config),
            windows: statistics::Windows::new(
                Duration::from_secs(config.http.statistics_window_seconds),
                realm_names,
            ),
            stop: stop.clone(),
            servers: [http, kms_http],
            own_ports: settings::own_ports(config),
            shutdown_timeout: config.shutdown_timeout(),
        };
        let control = tokio::spawn(Control::new(parts).run());
        Ok(Self { addresses, stop, control })
    }

    /// Where the node listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The line that scripts wait for: `mrf ready` and every address.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let Addresses { sip_udp, sip_tcp, media, relay, http, kms } = &self.addresses;
        let media: Vec<_> = media.iter().map(SocketAddr::to_string).collect();
        let relay = relay.map_or_else(String::new, |relay| format!(" relay={relay}"));
        format!(
            "mrf ready sip=udp:{sip_udp},tcp:{sip_tcp} media={}{relay} http={http} kms={kms} shards={}",
            media.join(","),
            media.len()
        )
    }

    /// Something that asks the node to stop, for whoever watches for signals.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until the node has stopped.
    pub async fn wait(self) -> Stopped {
        match self.control.await {
            Ok(stopped) => stopped,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Hangs every call up, stops, and waits for the end.
    pub async fn stop(self) -> Stopped {
        self.stop.cancel();
        self.wait().await
    }
}

/// The shards' bell as something to wait for.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe function; a DoorbellReceiver keeps its descriptor"
)]
fn watch(bell: DoorbellReceiver) -> io::Result<AsyncFd<DoorbellReceiver>> {
    AsyncFd::with_interest(bell, Interest::READABLE)
}

/// The KMS behind its HTTP binding.
fn handler(kms: &Arc<Mutex<Kms>>) -> crate::http::KmsHandler {
    let kms = Arc::clone(kms);
    Arc::new(move |message| match ask_kms(&kms, message) {
        Some(response) => KmsResponse::Message(response),
        None => KmsResponse::Malformed,
    })
}

/// One question to the KMS; `None` where no answer is due.
fn ask_kms(kms: &Mutex<Kms>, message: &[u8]) -> Option<Vec<u8>> {
    // A panic inside would poison the lock; the state is only a replay cache, so go on.
    let mut kms = kms.lock().unwrap_or_else(PoisonError::into_inner);
    let response = kms.handle(message, ntp_now(), &mut random::fill);
    (!response.is_empty()).then_some(response)
}

fn ntp_now() -> NtpTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    NtpTime::from_unix(since_epoch)
}

/// Calls' events that may wait for the control loop: what arrives in some 50 ms at full load. When
/// it is full the SIP front sheds new calls with 503.
const SIP_EVENTS_MAX: usize = 1024;
/// HTTP questions that may wait; more are answered 503.
const QUERIES_MAX: usize = 64;
