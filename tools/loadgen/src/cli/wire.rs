//! Options of the scenarios without SIP.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mrfp_protocol::tls::Identity;
use zeroize::Zeroizing;

use super::{Recording, Share, Spread, THREADS_MAX, WINDOW_MAX, parse_duration, parse_rate};
use crate::wire::plan::{
    BODY_BYTES, Gateway, Keys, Plan, Point, Protection, Traffic, User, Work, own_identity,
};

/// What all scenarios without SIP have in common.
#[derive(Args, Clone, Debug)]
pub struct WireOptions {
    /// Closed loop: each end keeps so many messages on their way; one is over when its 200 has come
    /// and its partner has got it [default: 8].
    #[arg(long, value_name = "W", conflicts_with = "message_rate",
        value_parser = clap::value_parser!(u32).range(1..=WINDOW_MAX))]
    pub window: Option<u32>,

    /// Open loop: messages per second of each end, whatever the target does. Latency counts from
    /// the moment a message was due. The ends are not in step.
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub message_rate: Option<f64>,

    /// Bytes of a message's body.
    #[arg(long, value_name = "BYTES", default_value = "200", value_parser = parse_body_size)]
    pub message_size: usize,

    /// How long it is measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,

    /// How long there is traffic before it is measured; the pairs begin one after the other within
    /// the first half of it.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,

    /// How long what is on its way is awaited at the end; what comes later counts as lost.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Media threads, each pinned to a processor of its own (from the last one downwards).
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX))]
    pub threads: u32,

    /// Nobody speaks before everybody is connected; then all do in the same moment.
    #[arg(long)]
    pub burst: bool,

    /// Who makes the load, and from where.
    #[command(flatten)]
    pub spread: Spread,

    /// What is on record, and whose processor time is.
    #[command(flatten)]
    pub recording: Recording,
}

/// `run relay`.
#[derive(Args, Clone, Debug)]
pub struct RelayRun {
    /// URI of the relay, as its clients know it: `msrp://HOST:PORT;tcp`, or `msrps://…` for TLS.
    #[arg(long, value_name = "MSRP-URI", value_parser = parse_relay)]
    pub target: RelayUri,

    /// Pairs: twice as many connections, both ends send.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=PAIRS_MAX))]
    pub pairs: u32,

    /// User of the relay, for one that asks.
    #[arg(long, value_name = "NAME", requires = "relay_password_file")]
    pub relay_user: Option<String>,

    /// File with the user's password in its first line.
    #[arg(long, value_name = "FILE", requires = "relay_user")]
    pub relay_password_file: Option<PathBuf>,

    /// Certificates (PEM) of those who may vouch for the relay [default: the authorities of the web].
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// The only suite to offer, by OpenSSL name: `TLS_AES_256_GCM_SHA384`. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,

    /// The rest.
    #[command(flatten)]
    pub wire: WireOptions,
}

/// `run raw`.
#[derive(Args, Clone, Debug)]
pub struct RawRun {
    /// Who joins the first connection with the second, the third with the fourth: `tcp://HOST:PORT`.
    /// Several, with commas: each pair connects to one of them, in turn.
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true,
        value_parser = parse_tcp)]
    pub target: Vec<SocketAddr>,

    /// Pairs: twice as many connections, both ends send.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=PAIRS_MAX))]
    pub pairs: u32,

    /// The rest.
    #[command(flatten)]
    pub wire: WireOptions,
}

/// `run gateway`.
#[derive(Args, Clone, Debug)]
pub struct GatewayRun {
    /// Where the gateway is: a line for each pair, in turn, with the address on its access side, the one
    /// on its core side (`-`: it connects to --sink) and the fingerprint of its certificate on the access
    /// side (`sha-256 4A:AD:…`; none: TCP without TLS).
    #[arg(long, value_name = "FILE")]
    pub points: PathBuf,

    /// Where we listen for what the gateway connects to on its core side, `HOST:PORT` or a port of
    /// 127.0.0.1.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub sink: Option<SocketAddr>,

    /// Pairs: an end on each side of the gateway, both send.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=PAIRS_MAX))]
    pub pairs: u32,

    /// Certificate (PEM) of the ends on the access side [default: one that is made for the run].
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,

    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,

    /// The only suite to offer, by OpenSSL name: `TLS_AES_128_GCM_SHA256`. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,

    /// The rest.
    #[command(flatten)]
    pub wire: WireOptions,
}

/// `run bulk`, of either kind.
#[derive(Args, Clone, Debug)]
pub struct BulkRun {
    /// Where we listen for what the target forwards, `HOST:PORT` or a port of 127.0.0.1; makes
    /// --target a `tcp://HOST:PORT`.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub sink: Option<SocketAddr>,

    /// Connections through a `tcp://` target.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub pairs: u32,

    /// The rest. A `tcp://` target makes use of --duration, --warmup, --drain-timeout and what is
    /// on record.
    #[command(flatten)]
    pub run: super::Run,
}

/// `run plane`.
#[derive(Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("mode").required(true).args(["idle", "handshakes"])))]
pub struct PlaneRun {
    /// A TLS-PSK server: `tls-psk://HOST:PORT`.
    #[arg(long, value_name = "URL", value_parser = parse_tls_psk)]
    pub target: SocketAddr,

    /// Connections that are set up and stay idle for --duration.
    #[arg(long)]
    pub idle: bool,

    /// Connect, handshake, close_notify, close, and again, for --duration.
    #[arg(long)]
    pub handshakes: bool,

    /// Identities: `perf-00000000`, … Their keys are the SHA-256 of `perf-key-00000000`, …
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=2 * PAIRS_MAX))]
    pub sessions: u32,

    /// Connections under way at a time, with --handshakes; one identity is used by one at a time
    /// [default: 32].
    #[arg(long, value_name = "C", requires = "handshakes",
        value_parser = clap::value_parser!(u32).range(1..=2 * PAIRS_MAX))]
    pub concurrency: Option<u32>,

    /// The identity of all connections, for a server that knows one.
    #[arg(long, value_name = "NAME", requires = "psk_key_file")]
    pub psk_identity: Option<String>,

    /// File with its key in hex digits.
    #[arg(long, value_name = "FILE", requires = "psk_identity")]
    pub psk_key_file: Option<PathBuf>,

    /// The only suite to offer, by OpenSSL name: `PSK-AES128-GCM-SHA256`. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,

    /// The rest.
    #[command(flatten)]
    pub wire: WireOptions,
}

/// A relay's URI, and where it leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayUri {
    /// As it was given.
    pub uri: String,
    /// `msrps`.
    pub secure: bool,
    /// Whom the certificate is to name.
    pub host: String,
    /// Where to connect.
    pub address: SocketAddr,
}

/// Twice as many connections are past what one machine's ports to one address allow.
const PAIRS_MAX: i64 = 1 << 19;
/// RFC 4975 section 6: what a URI without a port means.
const MSRP_PORT: u16 = 2855;

impl WireOptions {
    /// `links` are the numbers of this process's connections.
    pub(super) fn plan(
        &self,
        share: Share,
        targets: Vec<SocketAddr>,
        work: Work,
        protection: Protection,
        links: Range<u32>,
    ) -> Result<Plan, String> {
        if self.burst {
            share.whole("what happens in one moment is one process's")?;
        }
        let interval_ns = self.message_rate.map(|rate| (1e9 / rate) as u64);
        Ok(Plan {
            targets,
            work,
            protection,
            first_number: links.start,
            links: links.len() as u32,
            identities: links.len() as u32,
            share,
            threads: self.threads,
            traffic: Traffic {
                window: self.window.unwrap_or(8),
                interval_ns,
                body_bytes: self.message_size,
                ramp_ns: if self.burst { 0 } else { self.warmup.as_nanos() as u64 / 2 },
            },
            warmup: self.warmup,
            duration: self.duration,
            drain_timeout: self.drain_timeout,
            burst: self.burst,
            sources: self.spread.sources(share)?,
        })
    }
}

impl RelayRun {
    /// What it comes to for one process. An error is the user's.
    pub fn plan(&self, share: Share) -> Result<Plan, String> {
        let RelayUri { uri, secure, host, address } = &self.target;
        let user = match (&self.relay_user, &self.relay_password_file) {
            (Some(name), Some(file)) => {
                let text = read(file, "--relay-password-file")?;
                let text = Zeroizing::new(String::from_utf8_lossy(&text).into_owned());
                let password = text.lines().next().unwrap_or("").to_owned();
                Some(User { name: name.clone(), password: Zeroizing::new(password) })
            }
            _ => None,
        };
        let protection = if *secure {
            let authorities = self.ca.as_deref().map(|file| read(file, "--ca")).transpose()?;
            Protection::certificate(host, authorities.as_deref().map(Vec::as_slice), &self.suite)?
        } else {
            Protection::Plain
        };
        let work = Work::Relay { uri: uri.clone(), user };
        let pairs = share.of_some(self.pairs, "pairs")?;
        let links = 2 * pairs.start..2 * pairs.end;
        self.wire.plan(share, vec![*address], work, protection, links)
    }
}

impl RawRun {
    /// What it comes to for one process. An error is the user's.
    pub fn plan(&self, share: Share) -> Result<Plan, String> {
        share.whole("pairs are made of connections in the order of one process")?;
        self.wire.plan(share, self.target.clone(), Work::Raw, Protection::Plain, 0..2 * self.pairs)
    }
}

impl GatewayRun {
    /// What it comes to for one process. An error is the user's.
    pub fn plan(&self, share: Share) -> Result<Plan, String> {
        let points = read_points(&self.points)?;
        let connects = points.iter().all(|point| point.core.is_some());
        if !connects && self.sink.is_none() {
            return Err("without an address on the core side it takes a --sink".to_owned());
        }
        if self.sink.is_some() {
            share.whole("there is one --sink")?;
            if self.wire.threads > 1 {
                return Err("--threads: there is one --sink".to_owned());
            }
        }
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let (chain, key) = (read(certificate, "--certificate")?, read(key, "--key")?);
                Identity::from_pem(&chain, &key)
                    .map_err(|error| format!("--certificate: {error}"))?
            }
            _ => own_identity(),
        };
        let protection = match points.iter().any(|point| point.fingerprint.is_some()) {
            true => Protection::announced(vec![identity], &self.suite)?,
            false => Protection::Plain,
        };
        let targets = points.iter().map(|point| point.access).collect();
        let work = Work::Gateway(Gateway { points, sink: self.sink, called: false });
        let pairs = share.of_some(self.pairs, "pairs")?;
        self.wire.plan(share, targets, work, protection, 2 * pairs.start..2 * pairs.end)
    }
}

impl BulkRun {
    /// What it comes to without SIP. An error is the user's.
    pub fn plan(&self, share: Share) -> Result<Plan, String> {
        let Some(sink) = self.sink else {
            return Err("a tcp:// target needs --sink: where does it forward to?".to_owned());
        };
        if self.run.target.is_sip() {
            return Err("--sink is for a --target tcp://HOST:PORT".to_owned());
        }
        share.whole("there is one --sink")?;
        Ok(Plan {
            targets: vec![self.run.target.address],
            work: Work::Bulk { sink },
            protection: Protection::Plain,
            first_number: 0,
            links: self.pairs,
            identities: self.pairs,
            share,
            threads: 1,
            traffic: Traffic {
                window: 1,
                interval_ns: None,
                body_bytes: crate::wire::BULK_CHUNK_BYTES,
                ramp_ns: 0,
            },
            warmup: self.run.warmup,
            duration: self.run.duration,
            drain_timeout: self.run.drain_timeout,
            burst: false,
            sources: Vec::new(),
        })
    }
}

impl PlaneRun {
    /// What it comes to for one process. An error is the user's.
    pub fn plan(&self, share: Share) -> Result<Plan, String> {
        let keys = match (&self.psk_identity, &self.psk_key_file) {
            (Some(identity), Some(file)) => {
                let text = read(file, "--psk-key-file")?;
                let key = crate::security::parse_hex(text.trim_ascii());
                let key = key
                    .filter(|key| !key.is_empty())
                    .ok_or_else(|| format!("--psk-key-file {}: not hex digits", file.display()))?;
                Keys::One { identity: identity.clone(), key }
            }
            _ => Keys::Numbered,
        };
        let protection = Protection::psk(keys, &self.suite)?;
        let keys = share.of_some(self.sessions, "sessions")?;
        if self.idle {
            return self.wire.plan(share, vec![self.target], Work::Idle, protection, keys);
        }
        let slots = self.concurrency.unwrap_or(32);
        if self.psk_identity.is_none() && slots > self.sessions {
            return Err("--concurrency is more than the --sessions that have a key".to_owned());
        }
        let slots = share.of_some(slots, "connections under way")?;
        let plan = self.wire.plan(share, vec![self.target], Work::Handshakes, protection, slots)?;
        let identities = (keys.len() as u32).max(plan.links);
        Ok(Plan { first_number: keys.start, identities, ..plan })
    }
}

/// A line for each session.
pub(super) fn read_points(file: &Path) -> Result<Vec<Point>, String> {
    let text = read(file, "--points")?;
    let points: Result<Vec<Point>, String> =
        String::from_utf8_lossy(&text).lines().map(Point::parse).collect();
    let points = points.map_err(|error| format!("--points {}: {error}", file.display()))?;
    if points.is_empty() {
        return Err(format!("--points {}: there is no line", file.display()));
    }
    Ok(points)
}

pub(super) fn read(file: &Path, option: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = std::fs::read(file);
    bytes.map(Zeroizing::new).map_err(|error| format!("{option} {}: {error}", file.display()))
}

fn parse_relay(text: &str) -> Result<RelayUri, String> {
    let (secure, rest) = match (text.strip_prefix("msrp://"), text.strip_prefix("msrps://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        (None, None) => return Err("it must begin with msrp:// or msrps://".to_owned()),
    };
    let host_port = rest.strip_suffix(";tcp").ok_or("it must end with ;tcp")?;
    let host = match host_port.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => host_port,
    };
    let address = if host == host_port {
        resolve(&format!("{host_port}:{MSRP_PORT}"))?
    } else {
        resolve(host_port)?
    };
    Ok(RelayUri { uri: text.to_owned(), secure, host: host.to_owned(), address })
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) => resolve(text),
    }
}

pub(super) fn parse_tcp(text: &str) -> Result<SocketAddr, String> {
    resolve(text.strip_prefix("tcp://").ok_or("it must begin with tcp://")?)
}

fn parse_tls_psk(text: &str) -> Result<SocketAddr, String> {
    resolve(text.strip_prefix("tls-psk://").ok_or("it must begin with tls-psk://")?)
}

fn resolve(host_port: &str) -> Result<SocketAddr, String> {
    let mut found =
        host_port.to_socket_addrs().map_err(|error| format!("{host_port}: {error}"))?.peekable();
    let first = found.peek().copied();
    // A name that is both is usually served on the older one.
    found.find(SocketAddr::is_ipv4).or(first).ok_or_else(|| format!("{host_port}: no address"))
}

fn parse_body_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if BODY_BYTES.contains(&bytes) => Ok(bytes),
        _ => Err(format!("a body has {} to {} bytes", BODY_BYTES.start(), BODY_BYTES.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_a_relay_is() {
        let relay = parse_relay("msrps://127.0.0.1:9892;tcp").unwrap();
        assert!(relay.secure);
        assert_eq!((relay.host.as_str(), relay.address.port()), ("127.0.0.1", 9892));
        assert_eq!(parse_relay("msrp://127.0.0.1;tcp").unwrap().address.port(), 2855);
        for wrong in ["127.0.0.1:1;tcp", "msrp://127.0.0.1:1", "sip:127.0.0.1:1;tcp"] {
            assert!(parse_relay(wrong).is_err(), "{wrong}");
        }
    }
}
