//! Starting the shards, and the controller's end of each.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use mrfp_io::{
    Consumer, Doorbell, DoorbellReceiver, Producer, Ring, RingConfig, doorbell, pin_current_thread,
    queue,
};
use mrfp_protocol::tls::{
    AnnouncedProfile, CertificateConfig, CertificateKey, Profile, ProfileConfig, ProfileError, dtls,
};

use crate::config::{Config, GatewayProfile, Limits, QUEUE_CAPACITY, ShardConfig};
use crate::gateway::{CertificateMaker, GatewayParts};
use crate::metrics::PublishedMetrics;
use crate::mp::{Command, Event, ShardId};
use crate::relay::RelayConfig;
use crate::shard::{RelayParts, Shard, ShardParts};

/// The media plane of one node.
#[derive(Debug)]
pub struct Mrfp;

/// The controller's end of one shard.
#[derive(Debug)]
pub struct Port {
    shard: ShardId,
    address: SocketAddr,
    relay_address: Option<SocketAddr>,
    metrics: Arc<PublishedMetrics>,
    commands: Producer<Command>,
    events: Consumer<Event>,
    shard_bell: Doorbell,
    thread: JoinHandle<io::Result<()>>,
}

/// The media plane could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The TLS configuration names something that does not exist.
    Profile(ProfileError),
    /// The shard's ring could not be made.
    Ring(io::Error),
    /// The shard could not listen.
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// A thread, an event descriptor or randomness could not be had.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(error) => write!(f, "TLS configuration: {error}"),
            Self::Ring(error) => write!(f, "io_uring: {error}"),
            Self::Listen { address, error } => {
                write!(f, "cannot listen for media on {address}: {error}")
            }
            Self::System(error) => write!(f, "cannot start a shard: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Mrfp {
    /// Starts every shard of the configuration, each on its own thread, and returns once all of
    /// them listen. `controller_bell` wakes the controller after events; one bell serves all
    /// shards.
    ///
    /// # Errors
    ///
    /// The first shard that could not be started says why; those before it have been stopped.
    pub fn start(config: &Config, controller_bell: &Doorbell) -> Result<Vec<Port>, StartError> {
        let mut ports = Vec::with_capacity(config.shards.len());
        let mut relay = config.relay.clone();
        let mut gateways = gateways_parts(config)?.into_iter();
        for (shard, id) in config.shards.iter().zip(0..) {
            let parts = relay.as_ref().map(|relay| relay_parts(relay, id));
            let services = (parts, gateways.next());
            match start_shard(ShardId(id), *shard, config, services, controller_bell.clone()) {
                Ok(port) => {
                    // The first one picks the port all of them share.
                    if let (Some(relay), Some(address)) = (&mut relay, port.relay_address) {
                        relay.listen.set_port(address.port());
                    }
                    ports.push(port);
                }
                Err(error) => {
                    ports.into_iter().for_each(give_up);
                    return Err(error);
                }
            }
        }
        Ok(ports)
    }
}

impl Port {
    /// Which shard this is.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Its shared media port, as peers reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port clients of the relay know, where there is one, as peers reach it.
    #[must_use]
    pub fn relay_address(&self) -> Option<SocketAddr> {
        self.relay_address
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<PublishedMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Gives the shard a command. `Err` gives it back: the queue is full, try again after the
    /// shard's next events.
    pub fn send(&mut self, command: Command) -> Result<(), Command> {
        self.commands.push(command)?;
        self.shard_bell.ring();
        Ok(())
    }

    /// The shard's next event.
    pub fn receive(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Whether the shard's thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the shard's thread, after `Stop`.
    ///
    /// # Errors
    ///
    /// What ended the shard before it was told to.
    pub fn join(self) -> io::Result<()> {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn relay_parts(config: &RelayConfig, shard: u16) -> RelayParts {
    let mut own_listen = config.listen;
    // 0 stays 0: any free port.
    own_listen.set_port(match config.own_port_first {
        0 => 0,
        first => first.saturating_add(shard),
    });
    RelayParts { config: config.clone(), own_listen }
}

/// One for each shard, where the node is a gateway.
fn gateways_parts(config: &Config) -> Result<Vec<GatewayParts>, StartError> {
    let Some(gateway) = &config.gateway else { return Ok(Vec::new()) };
    let GatewayProfile { tls_suites, dtls_suites, rsa_certificates } = &gateway.profile;
    let tls = AnnouncedProfile::new(tls_suites).map_err(StartError::Profile)?;
    let dtls = dtls::Profile::with_suites(dtls_suites).map_err(StartError::Profile)?;
    let key = match rsa_certificates {
        true => CertificateKey::rsa_2048(),
        false => Ok(CertificateKey::EcdsaP256),
    };
    let key = key.map_err(|error| StartError::System(io::Error::other(error)))?;
    let made = CertificateMaker::start(config.shards.len(), gateway.certificates_ready, key);
    let made = made.map_err(StartError::System)?;
    let of_shard = |certificates| GatewayParts {
        interfaces: gateway.interfaces.clone(),
        certificates,
        tls: tls.clone(),
        dtls: dtls.clone(),
    };
    Ok(made.into_iter().map(of_shard).collect())
}

/// Stops a shard that has only just started.
fn give_up(mut port: Port) {
    if port.send(Command::Stop).is_ok() {
        // It has carried nothing; how it ended does not matter any more.
        let _ = port.join();
    }
}

fn start_shard(
    id: ShardId,
    shard: ShardConfig,
    config: &Config,
    (relay, gateway): (Option<RelayParts>, Option<GatewayParts>),
    controller_bell: Doorbell,
) -> Result<Port, StartError> {
    let (commands, shard_commands) = queue(QUEUE_CAPACITY);
    let (shard_events, events) = queue(QUEUE_CAPACITY);
    let (shard_bell, shard_bell_receiver) = doorbell().map_err(StartError::System)?;
    let metrics = Arc::new(PublishedMetrics::default());
    let (started, starting) = mpsc::sync_channel(1);
    let seat = Seat {
        shard,
        limits: config.limits,
        profile: config.profile.clone(),
        certificate: config.certificate.clone(),
        relay,
        gateway,
        commands: shard_commands,
        events: shard_events,
        controller_bell,
        shard_bell_receiver,
        metrics: Arc::clone(&metrics),
    };
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", id.0))
        .spawn(move || match seat.shard() {
            Ok(mut shard) => {
                let reported = started.send(Ok((shard.address(), shard.relay_address())));
                drop(started);
                if reported.is_ok() { shard.run() } else { Ok(()) }
            }
            Err(error) => {
                // Nobody listening means that the start was given up.
                let _ = started.send(Err(error));
                Ok(())
            }
        })
        .map_err(StartError::System)?;
    let (address, relay_address) = starting
        .recv()
        .unwrap_or_else(|_| Err(StartError::System(io::ErrorKind::BrokenPipe.into())))?;
    Ok(Port { shard: id, address, relay_address, metrics, commands, events, shard_bell, thread })
}

/// What a shard's thread takes with it: ring and tables are built on the thread that uses them.
struct Seat {
    shard: ShardConfig,
    limits: Limits,
    profile: ProfileConfig,
    certificate: Option<CertificateConfig>,
    relay: Option<RelayParts>,
    gateway: Option<GatewayParts>,
    commands: Consumer<Command>,
    events: Producer<Event>,
    controller_bell: Doorbell,
    shard_bell_receiver: DoorbellReceiver,
    metrics: Arc<PublishedMetrics>,
}

impl Seat {
    fn shard(self) -> Result<Shard<Ring>, StartError> {
        if let Some(core) = self.shard.core
            && !pin_current_thread(core)
        {
            tracing::warn!(?core, "cannot pin the shard to its core");
        }
        let ring_config = RingConfig {
            recv_buffer_count: self.limits.recv_buffers,
            recv_buffer_size_bytes: self.limits.recv_buffer_size_bytes as u32,
            ..RingConfig::default()
        };
        let ring =
            Ring::with_doorbell(ring_config, self.shard_bell_receiver).map_err(StartError::Ring)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| StartError::System(io::Error::other(error)))?;
        let mut profile = Profile::new(&self.profile).map_err(StartError::Profile)?;
        if let Some(certificate) = &self.certificate {
            profile = profile.with_certificates(certificate).map_err(StartError::Profile)?;
        }
        let parts = ShardParts {
            limits: self.limits,
            profile,
            listen: self.shard.listen,
            advertise: self.shard.advertise,
            relay: self.relay,
            gateway: self.gateway,
            seed,
            commands: self.commands,
            events: self.events,
            doorbell: self.controller_bell,
            metrics: self.metrics,
        };
        let address = parts.listen;
        Shard::new(ring, parts).map_err(|error| StartError::Listen { address, error })
    }
}
