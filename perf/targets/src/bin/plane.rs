//! The media plane without signalling: Terminations with keys that the load generator knows, for what
//! is measured of handshakes and of idle sessions alone.
//!
//! Session `i` is known to its peer by the identity `perf-{i:08}` and the key SHA-256 of
//! `perf-key-{i:08}`; two of them share a Context, `2n` and `2n + 1`. Whenever the connection of one is
//! gone it gets a new session with the same identity and key (Mp: ReplaceSession), so handshakes can go
//! on for ever.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mrfp_core::metrics::ShardMetrics;
use mrfp_core::mp::{
    Command, ContextId, Direction, Event, Member, RealmId, Remote, ReplaceSession,
    ReserveAndConfigure, Security, Setup, Switching, TerminationId,
};
use mrfp_core::{Config, Limits, Mrfp, Port, Psk, ShardConfig};
use mrfp_protocol::tls::ProfileConfig;
use sha2::{Digest, Sha256};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The media plane without signalling.
#[derive(Parser)]
struct Options {
    /// Where the first shard listens; the next ones have the ports behind it (port 0: any).
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Terminations with a pre-shared key each.
    #[arg(long, default_value_t = 1_000)]
    sessions: u32,
    /// Shards; rooms go to them in turn.
    #[arg(long, default_value_t = 1)]
    shards: u16,
    /// TLS 1.2 suites by OpenSSL name, most wanted first. May be given several times, or with commas.
    #[arg(long, value_delimiter = ',')]
    suite: Vec<String>,
    /// Where to write how many bytes of memory (proportional set size) it takes before a session is
    /// reserved.
    #[arg(long)]
    empty_pss_file: Option<PathBuf>,
    /// Prints the counters every so many seconds.
    #[arg(long)]
    report: Option<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plane: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let (bell, _receiver) = mrfp_io::doorbell()?;
    let ports = Mrfp::start(&config(options), &bell)?;
    if let Some(file) = &options.empty_pss_file {
        std::fs::write(file, proportional_set_size()?.to_string())?;
    }
    let mut plane = Plane::new(ports, options.sessions);
    let mut ready = false;
    let mut reported = Instant::now();
    loop {
        plane.serve()?;
        if !ready && plane.reserved == options.sessions {
            ready = true;
            let addresses: Vec<String> =
                plane.ports.iter().map(|port| port.address().to_string()).collect();
            // Whoever has started this waits for the line.
            println!("plane ready {}", addresses.join(" "));
            std::io::stdout().flush()?;
        }
        if let Some(seconds) = options.report
            && reported.elapsed() >= Duration::from_secs(seconds)
        {
            reported = Instant::now();
            plane.report();
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Bytes of this process, memory it shares divided among those who share it (proc(5)).
fn proportional_set_size() -> Result<u64, Box<dyn std::error::Error>> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes: u64 = line.ok_or("no Pss")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

fn config(options: &Options) -> Config {
    let sessions = options.sessions as usize;
    let shards = (0..options.shards)
        .map(|number| {
            let mut listen = options.listen;
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
    if !options.suite.is_empty() {
        profile.suites.clone_from(&options.suite);
    }
    Config { shards, limits, profile, certificate: None, relay: None }
}

/// The controller: keeps a session reserved under every identity.
struct Plane {
    ports: Vec<Port>,
    /// Commands a shard's queue had no room for.
    waiting: Vec<VecDeque<Command>>,
    /// Sessions each Termination has had.
    generations: Vec<u32>,
    sessions: u32,
    /// First reservations asked for, and answered.
    asked: u32,
    reserved: u32,
}

impl Plane {
    fn new(ports: Vec<Port>, sessions: u32) -> Self {
        let waiting = ports.iter().map(|_| VecDeque::new()).collect();
        let generations = vec![0; sessions as usize];
        Self { ports, waiting, generations, sessions, asked: 0, reserved: 0 }
    }

    fn send(&mut self, index: u32, command: Command) {
        let shard = (index / 2) as usize % self.ports.len();
        self.waiting[shard].push_back(command);
    }

    /// Takes what the shards have told and hands them what they have room for.
    fn serve(&mut self) -> Result<(), String> {
        // A few at a time, so that no memory of theirs passes for that of sessions afterwards.
        while self.asked < self.sessions && self.asked - self.reserved < ASKED_MAX {
            self.send(self.asked, reserve(self.asked));
            self.asked += 1;
        }
        for shard in 0..self.ports.len() {
            if self.ports[shard].is_finished() {
                return Err(format!("shard {shard} has ended"));
            }
            while let Some(event) = self.ports[shard].receive() {
                self.event(event)?;
            }
            while let Some(command) = self.waiting[shard].pop_front() {
                if let Err(command) = self.ports[shard].send(command) {
                    self.waiting[shard].push_front(command);
                    break;
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Reserved { termination, .. } => {
                if self.generations[termination.0 as usize] == 0 {
                    self.reserved += 1;
                }
            }
            Event::BearerReleased { termination, .. } => {
                let generation = &mut self.generations[termination.0 as usize];
                *generation += 1;
                let (index, generation) = (termination.0 as u32, *generation);
                self.send(index, replace(index, generation));
            }
            Event::Refused { termination, reason } => {
                return Err(format!("session {} was refused: {reason:?}", termination.0));
            }
            Event::Bound { .. }
            | Event::Rekeyed { .. }
            | Event::RekeyingFailed { .. }
            | Event::Modified { .. }
            | Event::Subtracted { .. }
            | Event::NicknameChanged { .. }
            | Event::Audited { .. }
            | Event::Resolve { .. }
            | Event::Floors { .. }
            | Event::FloorChanged { .. }
            | Event::Stopped => {}
        }
        Ok(())
    }

    fn report(&self) {
        for port in &self.ports {
            let metrics = port.metrics().read();
            println!("plane shard {}:", port.shard().0);
            for ((name, ..), value) in ShardMetrics::DESCRIPTIONS.iter().zip(metrics.values()) {
                if value != 0 {
                    println!("  {name} {value}");
                }
            }
        }
    }
}

fn reserve(index: u32) -> Command {
    Command::ReserveAndConfigure(Box::new(ReserveAndConfigure {
        context: ContextId(u64::from(index / 2)),
        switching: Switching::TwoParty,
        termination: TerminationId(u64::from(index)),
        security: security(index),
        setup: Setup::Passive,
        session_id: session_id(index, 0),
        remote_path: Some(remote_path(index)),
        member: Member::default(),
        realm: RealmId::default(),
        file_transfer: false,
        accept_types: "*".to_owned(),
        accept_wrapped_types: String::new(),
        direction: Direction::SendRecv,
        max_size_bytes: None,
        own_port: false,
    }))
}

fn replace(index: u32, generation: u32) -> Command {
    let path = remote_path(index);
    Command::ReplaceSession(Box::new(ReplaceSession {
        termination: TerminationId(u64::from(index)),
        security: security(index),
        session_id: session_id(index, generation),
        remote: Some(Remote { path, setup: Setup::Passive, capabilities: None }),
    }))
}

fn security(index: u32) -> Security {
    let key = Sha256::digest(format!("perf-key-{index:08}"));
    let psk = Psk::new(key.to_vec()).expect("32 bytes make a key");
    Security::TlsPsk { identity: format!("perf-{index:08}").into_bytes(), psk }
}

/// The session-id in our URI. As long as those of the node (RFC 4975 section 14.1), but no secret:
/// the generator has to know it.
fn session_id(index: u32, generation: u32) -> String {
    format!("perf-{index:08}-{generation:08}")
}

/// What a peer's SDP would name.
fn remote_path(index: u32) -> String {
    format!("msrps://127.0.0.1:9/perf-{index:08};tcp")
}

/// How often the events of the shards are looked at: what has come in between is handled at once.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// First reservations under way at a time.
const ASKED_MAX: u32 = 256;
/// Half of what the clock can count.
const FOR_EVER_NS: u64 = u64::MAX / 2;
