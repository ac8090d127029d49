//! The node: both planes wired together. A library, so that a test can run a whole one in its own
//! process on ports of the kernel's choice.
//!
//! Everything of the control plane lives on the tokio runtime that calls [`Node::start`], which may
//! have a single thread. One task (`control`) owns the MRFC, the shards' ports and the SIP front;
//! HTTP handlers put questions to it over a bounded queue. The shards have threads of their own.

mod border;
mod control;
mod counters;
mod error;
mod floors;
mod kms;
mod relay;
pub(crate) mod settings;
mod statistics;
mod webhook;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mrfp_core::{Mrfp, Port};
use mrfp_io::DoorbellReceiver;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::border::b2bua;
use crate::border::{Border, SideRole};
use crate::config::{Config, KmsMode};
use crate::http::{
    AdminServices, HttpServer, HttpServerConfig, Readiness, ReadinessState, Reload, admin_router,
};
use crate::kms::KmsClient;
use crate::mikey::NtpTime;
use crate::mrfc::Mrfc;
use mrfp_protocol::tls::Fingerprint;

use control::Control;
pub use error::StartError;
use kms::KmsFront;
pub use kms::StandaloneKms;

/// A running node.
#[derive(Debug)]
pub struct Node {
    addresses: Addresses,
    stop: CancellationToken,
    control: JoinHandle<Stopped>,
    kms: Option<KmsFront>,
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
    /// The sides of the border, where the node is one.
    pub border: Vec<(SideRole, b2bua::Addresses)>,
    /// Health, metrics, API.
    pub http: SocketAddr,
    /// The KMS, where it is in the node.
    pub kms: Option<SocketAddr>,
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
        Self::start_from(config, None).await
    }

    /// Starts a node as [`Node::start`] does; `file` is where its configuration comes from, to be
    /// read again on demand.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_from(config: Config, file: Option<PathBuf>) -> Result<Self, StartError> {
        // First, as it knows best what is wrong and what helps.
        mrfp_io::probe().map_err(StartError::Ring)?;
        let readiness = Readiness::new();
        let (bell, bell_receiver) = mrfp_io::doorbell().map_err(StartError::System)?;
        let bell_receiver = watch(bell_receiver).map_err(StartError::System)?;
        let media = settings::media(&config).map_err(StartError::Certificate)?;
        let certificate = media.certificate.as_ref();
        let certificate = certificate.map(|shown| shown.identity.fingerprint());
        let ports = Mrfp::start(&media, &bell).map_err(StartError::Media)?;
        let (kms, client) = match config.kms.mode {
            KmsMode::Embedded => match KmsFront::start(&config, file).await {
                Ok(front) => (Some(front), None),
                Err(error) => return Err(give_up(error, ports).await),
            },
            KmsMode::Remote => match kms::client(&config) {
                Ok(client) => (None, Some(client)),
                Err(error) => return Err(give_up(error, ports).await),
            },
        };
        let parts = StartParts { certificate, ports, bell: bell_receiver, kms, client };
        match Self::start_control(&config, &readiness, parts).await {
            Ok(node) => {
                readiness.set(ReadinessState::Ready);
                Ok(node)
            }
            Err((error, ports)) => Err(give_up(error, ports).await),
        }
    }

    async fn start_control(
        config: &Config,
        readiness: &Arc<Readiness>,
        parts: StartParts,
    ) -> Result<Self, (StartError, Vec<Port>)> {
        let StartParts { certificate, ports, bell, kms, client } = parts;
        let (queries, asked) = mpsc::channel(QUERIES_MAX);
        let services = AdminServices {
            readiness: Arc::clone(readiness),
            shards: ports.iter().map(|port| (port.shard(), port.metrics())).collect(),
            queries,
            kms: kms.as_ref().map(|kms| (Arc::clone(&kms.service), Arc::clone(&kms.reload))),
        };
        let http = HttpServerConfig::new(config.http.listen, config.http.connections_max);
        let http = match HttpServer::start(http, admin_router(services)).await {
            Ok(server) => server,
            Err(error) => return Err((StartError::http(config, error), ports)),
        };
        // SIP comes last: a call that arrives finds everything else in place.
        let (sip_events, events) = mpsc::channel(SIP_EVENTS_MAX);
        let sip = match crate::sip::start(settings::sip(config), sip_events).await {
            Ok(sip) => sip,
            Err(error) => return Err((StartError::sip(config, error), ports)),
        };
        let initiator = match settings::initiator(config) {
            Ok(initiator) => initiator,
            Err(why) => return Err((StartError::Kms(why), ports)),
        };
        let border = match start_border(config, &ports).await {
            Ok(border) => border,
            Err(error) => return Err((error, ports)),
        };
        let addresses = Addresses {
            border: border.iter().flat_map(border::BorderFront::addresses).collect(),
            sip_udp: sip.udp_address(),
            sip_tcp: sip.tcp_address(),
            media: ports.iter().map(Port::address).collect(),
            relay: ports.first().and_then(Port::relay_address),
            http: http.address(),
            kms: kms.as_ref().map(|kms| kms.server.address()),
        };
        let webhook = match webhook::Webhook::start(&config.events) {
            Ok(webhook) => webhook,
            Err(why) => return Err((StartError::Events(why), ports)),
        };
        let floors = floors::FloorControl::new(ports.len(), webhook);
        let responder = settings::responder(config);
        let mut mrfc_config = settings::mrfc(config, &ports, certificate);
        mrfc_config.focus.contact_hosts = sip.contact_hosts();
        let realm_names = mrfc_config.realms.names().to_vec();
        let mut mrfc = Mrfc::new(mrfc_config, Some(responder)).with_initiator(initiator);
        if let Some(kms) = &kms {
            mrfc = mrfc.with_kms(Arc::clone(&kms.service) as _);
        }
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
            floors,
            border,
            stop: stop.clone(),
            server: http,
            questions: kms::Questions::new(client),
            own_ports: settings::own_ports(config),
            shutdown_timeout: config.shutdown_timeout(),
        };
        let control = tokio::spawn(Control::new(parts).run());
        Ok(Self { addresses, stop, control, kms })
    }

    /// Where the node listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The line that scripts wait for: `mrf ready` and every address.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let Addresses { sip_udp, sip_tcp, media, relay, border, http, kms } = &self.addresses;
        let media: Vec<_> = media.iter().map(SocketAddr::to_string).collect();
        let relay = relay.map_or_else(String::new, |relay| format!(" relay={relay}"));
        let border: String = border
            .iter()
            .map(|(side, it)| format!(" {}=udp:{},tcp:{}", side.name(), it.udp, it.tcp))
            .collect();
        let kms = kms.map_or_else(|| "remote".to_owned(), |kms| kms.to_string());
        format!(
            "mrf ready sip=udp:{sip_udp},tcp:{sip_tcp} media={}{relay}{border} http={http} kms={kms} shards={}",
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
        let stopped = match self.control.await {
            Ok(stopped) => stopped,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        if let Some(kms) = self.kms {
            kms.stop().await;
        }
        stopped
    }

    /// What reads the configuration of the KMS again, where it is in the node.
    #[must_use]
    pub fn reload(&self) -> Option<Reload> {
        self.kms.as_ref().map(|kms| Arc::clone(&kms.reload))
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

/// What was started before the control plane.
struct StartParts {
    certificate: Option<Fingerprint>,
    ports: Vec<Port>,
    bell: AsyncFd<DoorbellReceiver>,
    kms: Option<KmsFront>,
    client: Option<KmsClient>,
}

/// Starts the B2BUA with the media logic behind it, where the node is a border.
async fn start_border(
    config: &Config,
    ports: &[Port],
) -> Result<Option<border::BorderFront>, StartError> {
    let Some((media, signalling)) = settings::border(config, ports) else { return Ok(None) };
    let (sender, events) = mpsc::channel(SIP_EVENTS_MAX);
    let b2bua = b2bua::start(signalling, sender).await.map_err(StartError::Border)?;
    let sides = media.sides.map(|side| side.role);
    Ok(Some(border::BorderFront::new(Border::new(media), b2bua, events, sides)))
}

/// Stops the shards of a node that does not start. The first error is the one to tell.
async fn give_up(error: StartError, ports: Vec<Port>) -> StartError {
    let _ = control::stop_shards(ports).await;
    error
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
