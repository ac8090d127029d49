//! The media plane of a gateway without signalling: Contexts of two Terminations each, reserved over Mp
//! before anybody comes, for a load generator that is both ends of all of them.
//!
//! Both sides are 127.0.0.1. On the access side peers come to us, over TLS or DTLS with the certificate that
//! `--peer-fingerprint` stands for; on the core side they come to us as well, or we connect to `--core-peer`
//! when the other side's connection has come in. `--points` is a file with a line for each Context: its
//! address on the access side, that on the core side (`-` where we connect) and the fingerprint of its
//! certificate, where it has one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use mrfp_core::mp::{
    Bearer, Command, ContextId, Establishment, Event, InterfaceId, RealmId, RemoteConnectionPoint,
    ReserveConnectionPoint, Source, TerminationId, TlsRole,
};
use mrfp_core::{GatewayConfig, GatewayProfile, Interface};
use mrfp_protocol::tls::Fingerprint;
use perf_targets::{ASKED_MAX, POLL_INTERVAL, Shards};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The media plane of a gateway without signalling.
#[derive(Parser)]
struct Options {
    /// What the Contexts are for.
    #[arg(long, value_enum, default_value_t = Profile::E2ae)]
    profile: Profile,
    /// Contexts.
    #[arg(long, default_value_t = 10)]
    contexts: u32,
    /// `sha-256 4A:AD:…`: what the peers on the access side are known by.
    #[arg(long, value_name = "FINGERPRINT", value_parser = parse_fingerprint,
        required_if_eq_any([("profile", "e2ae"), ("profile", "t38")]))]
    peer_fingerprint: Option<Fingerprint>,
    /// Where all peers on the core side listen; without it they connect to us.
    #[arg(long, value_name = "ADDRESS")]
    core_peer: Option<SocketAddr>,
    /// Where to write on which addresses the Contexts are reached.
    #[arg(long, value_name = "FILE")]
    points: PathBuf,
    /// Prints the counters every so many seconds.
    #[arg(long)]
    report: Option<u64>,
}

/// What a Context connects.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Profile {
    /// TLS over TCP with TCP.
    E2ae,
    /// TCP with TCP.
    E2e,
    /// DTLS over UDP with UDP.
    T38,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let side = Interface { listen: IpAddr::V4(Ipv4Addr::LOCALHOST), advertise: None };
    let gateway = GatewayConfig {
        interfaces: vec![side, side],
        certificates_ready: options.contexts as usize,
        profile: GatewayProfile::default(),
    };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sessions = 2 * options.contexts as usize;
    let shards = Shards::start(any, 1, sessions, &[], Some(gateway))?;
    let mut plane = Plane::new(shards, options);
    let mut ready = false;
    let mut reported = Instant::now();
    loop {
        plane.serve()?;
        if !ready && plane.reserved == plane.wanted() {
            ready = true;
            std::fs::write(&plane.options.points, plane.points()?)?;
            let first = plane.access_address(0).ok_or("there is no Context")?;
            plane.shards.announce_at("gateway", &[first])?;
        }
        if let Some(seconds) = plane.options.report
            && reported.elapsed() >= Duration::from_secs(seconds)
        {
            reported = Instant::now();
            plane.shards.report("gateway");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The controller: reserves all Contexts. Termination `2n` is the access side of Context `n`, `2n + 1` its
/// core side.
struct Plane {
    options: Options,
    shards: Shards,
    /// By Termination.
    reservations: Vec<Option<(SocketAddr, Option<Fingerprint>)>>,
    /// Reservations asked for, and answered.
    asked: u32,
    reserved: u32,
}

impl Plane {
    fn new(shards: Shards, options: Options) -> Self {
        let reservations = vec![None; 2 * options.contexts as usize];
        Self { options, shards, reservations, asked: 0, reserved: 0 }
    }

    fn wanted(&self) -> u32 {
        2 * self.options.contexts
    }

    fn serve(&mut self) -> Result<(), String> {
        while self.asked < self.wanted() && self.asked - self.reserved < ASKED_MAX {
            let command = Command::ReserveConnectionPoint(Box::new(self.reserve(self.asked)));
            self.shards.send(0, command);
            self.asked += 1;
        }
        while let Some(event) = self.shards.serve()? {
            match event {
                Event::ConnectionPointReserved { termination, address, fingerprint } => {
                    self.reservations[termination.0 as usize] = Some((address, fingerprint));
                    self.reserved += 1;
                }
                Event::Refused { termination, reason } => {
                    return Err(format!("Termination {} was refused: {reason:?}", termination.0));
                }
                // Who has left is not reserved anew: the next run begins with another process. Why is
                // what whoever has started this wants to know when that was too early.
                Event::BearerReleased { termination, cause } => {
                    eprintln!("gateway: Termination {} was released: {cause:?}", termination.0);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn reserve(&self, number: u32) -> ReserveConnectionPoint {
        let is_access = number.is_multiple_of(2);
        let profile = self.options.profile;
        let bearer = match (profile, is_access) {
            (Profile::E2ae, true) => Bearer::TlsOverTcp,
            (Profile::E2ae, false) | (Profile::E2e, _) => Bearer::Tcp,
            (Profile::T38, true) => Bearer::DtlsOverUdp,
            (Profile::T38, false) => Bearer::Udp,
        };
        let core_peer = self.options.core_peer.filter(|_| !is_access);
        let fingerprints = match (&self.options.peer_fingerprint, bearer.is_protected()) {
            (Some(fingerprint), true) => vec![fingerprint.clone()],
            _ => Vec::new(),
        };
        let remote = RemoteConnectionPoint {
            address: core_peer,
            establishment: match core_peer {
                Some(_) => Establishment::WhenOtherComesIn,
                None => Establishment::Incoming,
            },
            tls_role: TlsRole::Server,
            fingerprints,
            source: Source::Any,
            msrp: None,
        };
        ReserveConnectionPoint {
            context: ContextId(u64::from(number / 2)),
            termination: TerminationId(u64::from(number)),
            realm: RealmId::default(),
            interface: InterfaceId(u16::from(!is_access)),
            bearer,
            remote: Some(remote),
        }
    }

    fn access_address(&self, context: usize) -> Option<SocketAddr> {
        self.reservations.get(2 * context)?.as_ref().map(|(address, _)| *address)
    }

    /// A line for each Context.
    fn points(&self) -> Result<String, &'static str> {
        let connects = self.options.core_peer.is_some();
        let mut lines = String::new();
        for pair in self.reservations.chunks_exact(2) {
            let [Some((access, fingerprint)), Some((core, _))] = pair else {
                return Err("a Termination without an address");
            };
            let core = if connects { "-".to_owned() } else { core.to_string() };
            let fingerprint = fingerprint.as_ref().map_or_else(String::new, ToString::to_string);
            lines.push_str(format!("{access} {core} {fingerprint}").trim_end());
            lines.push('\n');
        }
        Ok(lines)
    }
}

fn parse_fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(text).map_err(|_| "it must be of the form sha-256 4A:AD:…".to_owned())
}
