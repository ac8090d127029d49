//! What `plane`, `floors` and `gateway` have in common: shards without signalling, for a load generator that knows
//! every key.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mrfp_core::metrics::ShardMetrics;
use mrfp_core::mp::{Command, Event, Security};
use mrfp_core::{Config, GatewayConfig, Limits, Mrfp, Port, Psk, ShardConfig};
use mrfp_io::DoorbellReceiver;
use mrfp_protocol::tls::ProfileConfig;
use sha2::{Digest, Sha256};

/// Shards, seen from the controller.
#[derive(Debug)]
pub struct Shards {
    ports: Vec<Port>,
    /// Commands a shard's queue had no room for.
    waiting: Vec<VecDeque<Command>>,
    /// Nobody sleeps on it.
    _bell: DoorbellReceiver,
}

impl Shards {
    /// Starts `count` of them for so many connections and Terminations in all; the first listens on
    /// `listen`, the next ones on the ports behind it (port 0: any). `suites` are those of TLS 1.2, most
    /// wanted first; none: the usual ones. An error says what could not be had.
    pub fn start(
        listen: SocketAddr,
        count: u16,
        sessions: usize,
        suites: &[String],
        gateway: Option<GatewayConfig>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let (bell, receiver) = mrfp_io::doorbell()?;
        let config = Config { gateway, ..config(listen, count, sessions, suites) };
        let ports = Mrfp::start(&config, &bell)?;
        let waiting = ports.iter().map(|_| VecDeque::new()).collect();
        Ok(Self { ports, waiting, _bell: receiver })
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ports.len()
    }

    /// Gives a command, as soon as there is room for it.
    pub fn send(&mut self, shard: usize, command: Command) {
        self.waiting[shard].push_back(command);
    }

    /// Hands on what there is room for, and takes the next event. An error: a shard has ended.
    pub fn serve(&mut self) -> Result<Option<Event>, String> {
        for (number, (port, waiting)) in self.ports.iter_mut().zip(&mut self.waiting).enumerate() {
            if port.is_finished() {
                return Err(format!("shard {number} has ended"));
            }
            while let Some(command) = waiting.pop_front() {
                if let Err(command) = port.send(command) {
                    waiting.push_front(command);
                    break;
                }
            }
            if let Some(event) = port.receive() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Tells whoever has started this, and waits for the line, where the shards listen.
    pub fn announce(&self, name: &str) -> io::Result<()> {
        let addresses: Vec<_> = self.ports.iter().map(Port::address).collect();
        self.announce_at(name, &addresses)
    }

    /// The same where peers are to come elsewhere.
    pub fn announce_at(&self, name: &str, addresses: &[SocketAddr]) -> io::Result<()> {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        println!("{name} ready {}", addresses.join(" "));
        io::stdout().flush()
    }

    /// Prints the counters that are not zero.
    pub fn report(&self, name: &str) {
        for port in &self.ports {
            let metrics = port.metrics().read();
            println!("{name} shard {}:", port.shard().0);
            for ((name, ..), value) in ShardMetrics::DESCRIPTIONS.iter().zip(metrics.values()) {
                if value != 0 {
                    println!("  {name} {value}");
                }
            }
        }
    }
}

/// Writes how many bytes of memory (proportional set size, proc(5): what is shared is divided among
/// those who share it) this process takes.
pub fn write_pss(file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes: u64 = line.ok_or("no Pss")?.trim().trim_end_matches(" kB").parse()?;
    Ok(std::fs::write(file, (kilobytes * 1024).to_string())?)
}

/// Number `index` is known to its peer by the identity `perf-{index:08}` and the key SHA-256 of
/// `perf-key-{index:08}`.
#[must_use]
pub fn numbered_key(index: u32) -> Security {
    let key = Sha256::digest(format!("perf-key-{index:08}"));
    let psk = Psk::new(key.to_vec()).expect("32 bytes make a key");
    Security::TlsPsk { identity: format!("perf-{index:08}").into_bytes(), psk }
}

fn config(listen: SocketAddr, count: u16, sessions: usize, suites: &[String]) -> Config {
    let shards = (0..count)
        .map(|number| {
            let mut listen = listen;
            if listen.port() != 0 {
                listen.set_port(listen.port() + number);
            }
            ShardConfig { core: None, listen, advertise: None }
        })
        .collect();
    let defaults = Limits::default();
    let connections = defaults.connections_max.max(sessions);
    let limits = Limits {
        connections_max: connections,
        terminations_max: defaults.terminations_max.max(sessions),
        // All the load comes from one address, and at once.
        connections_unbound_max: connections,
        connections_unbound_per_source_max: connections,
        // A key waits for its handshake as long as the measurement takes.
        establishment_timeout_ns: FOR_EVER_NS,
        ..defaults
    };
    let mut profile = ProfileConfig::default();
    if !suites.is_empty() {
        profile.suites = suites.to_vec();
    }
    Config { shards, limits, profile, certificate: None, relay: None, gateway: None }
}

/// How often the events of the shards are looked at: what has come in between is handled at once.
pub const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// First reservations under way at a time: a few, so that no memory of theirs passes for that of
/// sessions afterwards.
pub const ASKED_MAX: u32 = 256;
/// Half of what the clock can count.
const FOR_EVER_NS: u64 = u64::MAX / 2;
