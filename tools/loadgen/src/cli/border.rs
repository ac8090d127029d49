//! The command line of calls through a border.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mrfp_protocol::tls::Identity;
use mrfp_protocol::tls::dtls::{self, Credentials};

use super::wire::{parse_address, read, read_points};
use super::{
    Recording, Share, THREADS_MAX, Target, WireOptions, parse_duration, parse_rate, parse_target,
};
use crate::border::messages::{CERTIFICATES_MAX, identities};
use crate::border::{Direction, address_towards};
use crate::wire::plan::{Fax, Gateway, Plan, Protection, Traffic, Work};

/// Whom the calls go through, and how.
#[derive(Args, Clone, Debug)]
pub struct ThroughBorder {
    /// The border on its access side, and whom the UEs call there: NAME-0, NAME-1, …
    #[arg(long, value_name = "SIP-URI", value_parser = parse_target)]
    pub target: Target,

    /// Where the border sends what goes to the core, `HOST:PORT` or a port of 127.0.0.1: we listen there,
    /// as its next hop.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub core: SocketAddr,

    /// Calls, each between a UE and a core peer.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub sessions: u32,

    /// Calls set up, and later torn down, per second.
    #[arg(long, value_name = "N/s", default_value = "100/s", value_parser = parse_rate)]
    pub rate: f64,

    /// Who calls: the UEs; their peers, for which the UEs register first; or both in turn.
    #[arg(long, value_enum, default_value_t = Direction::Originating)]
    pub direction: Direction,
}

/// `run e2ae`.
#[derive(Args, Clone, Debug)]
pub struct E2aeRun {
    /// Whom the calls go through.
    #[command(flatten)]
    pub border: ThroughBorder,

    /// UEs and peers know CEMA (RFC 6714), so the border may leave paths as they are.
    #[arg(long)]
    pub cema: bool,

    /// The only TLS suite to offer, by OpenSSL name: `TLS_AES_128_GCM_SHA256`. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,

    /// The rest.
    #[command(flatten)]
    pub wire: WireOptions,
}

/// `run fax`, of either kind.
#[derive(Args, Clone, Debug)]
pub struct FaxRun {
    /// The border on its access side, and whom the UEs call there: NAME-0, NAME-1, …
    #[arg(long, value_name = "SIP-URI", value_parser = parse_target, requires = "core",
        required_unless_present = "points")]
    pub target: Option<Target>,

    /// Where the border sends what goes to the core, `HOST:PORT` or a port of 127.0.0.1: we listen there,
    /// as its next hop.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub core: Option<SocketAddr>,

    /// A gateway that is reached without SIP: a line for each session, with the address on its access side,
    /// the one on its core side and the fingerprint of its certificate on the access side (`sha-256
    /// 4A:AD:…`; none: UDP without DTLS).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "core", "direction", "rate"])]
    pub points: Option<PathBuf>,

    /// Certificate (PEM) of the ends on the access side, with --points [default: one that is made for the
    /// run].
    #[arg(long, value_name = "FILE", requires_all = ["key", "points"])]
    pub certificate: Option<PathBuf>,

    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,

    /// Sessions, each between a UE and a core peer. Of one half the UE sends the image, of the other its
    /// peer.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub sessions: u32,

    /// Calls set up, and later torn down, per second.
    #[arg(long, value_name = "N/s", default_value = "100/s", value_parser = parse_rate)]
    pub rate: f64,

    /// Who calls: the UEs; their peers, for which the UEs register first; or both in turn.
    #[arg(long, value_enum, default_value_t = Direction::Originating)]
    pub direction: Direction,

    /// Bits of image per second.
    #[arg(long, value_name = "BITS", default_value_t = 33_600,
        value_parser = clap::value_parser!(u32).range(2_400..=33_600))]
    pub bit_rate: u32,

    /// Time between two packets of image.
    #[arg(long, value_name = "TIME", default_value = "40ms", value_parser = parse_packet_time)]
    pub packet: Duration,

    /// Of how many packets before it each has a copy (t38UDPRedundancy).
    #[arg(long, value_name = "N", default_value_t = 2,
        value_parser = clap::value_parser!(u8).range(0..=3))]
    pub redundancy: u8,

    /// How long it is measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,

    /// How long there is traffic before it is measured.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,

    /// How long what is on its way is awaited at the end; what comes later counts as lost.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Media threads, each pinned to a processor of its own (from the last one downwards).
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX))]
    pub threads: u32,

    /// What is on record, and whose processor time is.
    #[command(flatten)]
    pub recording: Recording,
}

impl FaxRun {
    /// The calls, if there are any.
    #[must_use]
    pub fn border(&self) -> Option<ThroughBorder> {
        let (target, core) = self.target.clone().zip(self.core)?;
        let (sessions, rate, direction) = (self.sessions, self.rate, self.direction);
        Some(ThroughBorder { target, core, sessions, rate, direction })
    }

    /// What its media come to. An error is the user's.
    pub fn plan(&self) -> Result<Plan, String> {
        let points = self.points.as_deref().map(read_points).transpose()?.unwrap_or_default();
        if points.iter().any(|point| point.core.is_none()) {
            return Err("--points: datagrams need an address on the core side".to_owned());
        }
        let targets: Vec<SocketAddr> = match &self.target {
            Some(target) => vec![target.address],
            None => points.iter().map(|point| point.access).collect(),
        };
        let towards = |peer| address_towards(peer).map_err(|error| format!("{peer}: {error}"));
        let core = match (self.core, points.first().and_then(|point| point.core)) {
            (Some(core), _) => core.ip(),
            (None, Some(peer)) => towards(peer)?,
            (None, None) => return Err("--points: there is no line".to_owned()),
        };
        let credentials = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (read(certificate, "--certificate")?, read(key, "--key")?);
                let credentials = Credentials::from_pem(&certificate, &key);
                vec![credentials.map_err(|error| format!("--certificate: {error}"))?]
            }
            _ => own_credentials(self.sessions)?,
        };
        let profile = dtls::Profile::new().map_err(|error| error.to_string())?;
        let bytes = f64::from(self.bit_rate) * self.packet.as_secs_f64() / 8.0;
        let links = 2 * self.sessions;
        Ok(Plan {
            work: Work::Fax(Fax {
                points,
                called: self.target.is_some(),
                access: towards(targets[0])?,
                core,
                redundancy: self.redundancy,
            }),
            targets,
            protection: Protection::Datagrams { profile, credentials },
            links,
            first_number: 0,
            share: Share::WHOLE,
            identities: links,
            threads: self.threads,
            traffic: Traffic {
                window: 1,
                interval_ns: Some(self.packet.as_nanos() as u64),
                body_bytes: bytes as usize,
                ramp_ns: 0,
            },
            warmup: self.warmup,
            duration: self.duration,
            drain_timeout: self.drain_timeout,
            burst: false,
            sources: Vec::new(),
        })
    }
}

/// Certificates of the fleet; more UEs than that share them.
fn own_credentials(sessions: u32) -> Result<Vec<Credentials>, String> {
    let own = || {
        let issued = rcgen::generate_simple_self_signed(vec!["mrf-load.invalid".to_owned()])
            .map_err(|error| error.to_string())?;
        let (certificate, key) = (issued.cert.der(), issued.signing_key.serialize_der());
        Credentials::from_der(certificate, &key).map_err(|error| error.to_string())
    };
    (0..sessions.min(CERTIFICATES_MAX)).map(|_| own()).collect()
}

/// What gateways and their ends do: 10 to 50 ms.
fn parse_packet_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    match time.as_millis() {
        10..=50 => Ok(time),
        _ => Err("a packet is of 10 to 50 ms".to_owned()),
    }
}

impl E2aeRun {
    /// What its media come to, and the certificates of the UEs. An error is the user's.
    pub fn plan(&self) -> Result<(Plan, Vec<Identity>), String> {
        let share = self.wire.spread.own();
        if self.wire.spread.to_start().is_some() || self.wire.spread.share.is_some() {
            return Err("--processes: there is one --core for the border to send to".to_owned());
        }
        let identities = identities(self.border.sessions);
        let protection = Protection::announced(identities.clone(), &self.suite)?;
        let work = Work::Gateway(Gateway { points: Vec::new(), sink: None, called: true });
        let targets = vec![self.border.target.address];
        let links = 0..2 * self.border.sessions;
        Ok((self.wire.plan(share, targets, work, protection, links)?, identities))
    }
}
