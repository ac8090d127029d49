//! Pairs through gateways: ones in this process, and stunnel before haproxy, which do the same.

mod programs;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser as _;
use loadgen::cli::Cli;
use loadgen::expectation::Violation;
use loadgen::wire::WireReport;
use loadgen::{Error, Outcome};
use mrfp_protocol::tls::{Fingerprint, Identity};
use programs::{Program, find, free_address, wait_until};

/// Certificates, configurations, points; gone with the test.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Files {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gateway-{}-{number}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// A certificate that vouches for itself, with its key; what it is known by.
    fn certificate(&self, name: &str) -> (String, String, Fingerprint) {
        let issued = rcgen::generate_simple_self_signed(vec![format!("{name}.invalid")]).unwrap();
        let (chain, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
        let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let chain = self.write(&format!("{name}.pem"), &chain);
        (chain, self.write(&format!("{name}-key.pem"), &key), identity.fingerprint())
    }
}

fn try_run(points: &str, options: &[&str]) -> Result<Outcome, Error> {
    let short = ["--duration", "500ms", "--warmup", "100ms", "--drain-timeout", "1s"];
    let mut line = vec!["mrf-load", "run", "gateway", "--points", points];
    line.extend(short);
    line.extend(options);
    loadgen::run(Cli::parse_from(&line).command, &[])
}

fn run(points: &str, options: &[&str]) -> WireReport {
    match try_run(points, options).unwrap() {
        Outcome::Wire(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn assert_good(report: &WireReport, connections: u64) {
    assert!(report.passed, "{}", report.to_text());
    assert_eq!(report.config.scenario, "gateway");
    let figures = &report.figures;
    assert_eq!(figures.sessions, Some(connections));
    assert!(figures.messages > Some(10), "{}", report.to_text());
    assert_eq!(figures.fairness.unwrap().silent_pairs, 0);
}

/// Copies both ways between a connection that comes in and one it makes, or the next that comes in; and
/// spoils the byte at some place on the way to the core side.
fn forwarder(core: Option<SocketAddr>, spoilt: Option<usize>) -> (SocketAddr, SocketAddr) {
    let [access, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = (access.local_addr().unwrap(), other.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in access.incoming() {
            let one = stream.unwrap();
            let two = match core {
                Some(core) => TcpStream::connect(core).unwrap(),
                None => other.accept().unwrap().0,
            };
            let back = (two.try_clone().unwrap(), one.try_clone().unwrap());
            std::thread::spawn(move || copy(one, two, spoilt));
            std::thread::spawn(move || copy(back.0, back.1, None));
        }
    });
    addresses
}

fn copy(mut from: TcpStream, mut to: TcpStream, spoilt: Option<usize>) {
    to.set_nodelay(true).unwrap();
    let (mut chunk, mut at) = (vec![0; 65536], 0);
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        if let Some(place) = spoilt.filter(|place| (at..at + length).contains(place)) {
            chunk[place - at] ^= 1;
        }
        at += length;
        if to.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_gateway_may_connect_to_the_core_side_or_be_connected_to() {
    let files = Files::new();
    let sink = free_address();
    let (access, _) = forwarder(Some(sink), None);
    let points = files.write("points", &format!("{access} -\n"));
    let sink = sink.to_string();
    let report = run(&points, &["--pairs", "5", "--window", "4", "--sink", &sink]);
    assert_good(&report, 10);
    assert_eq!(report.config.security, "plain");

    let lines: Vec<String> = (0..3)
        .map(|_| forwarder(None, None))
        .map(|(access, core)| format!("{access} {core}"))
        .collect();
    let points = files.write("points", &lines.join("\n"));
    assert_good(&run(&points, &["--pairs", "3", "--message-rate", "50"]), 6);
}

#[test]
fn a_byte_that_a_gateway_spoils_is_found() {
    let files = Files::new();
    let sink = free_address();
    // Within the body of the tenth message.
    let (access, _) = forwarder(Some(sink), Some(4_000));
    let points = files.write("points", &format!("{access} -\n"));
    let report = run(&points, &["--pairs", "1", "--window", "1", "--sink", &sink.to_string()]);
    assert!(!report.passed, "{}", report.to_text());
}

#[test]
fn a_gateway_that_does_not_connect_on_is_told_and_the_run_ends() {
    let files = Files::new();
    // It hangs up at once.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let access = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let points = files.write("points", &format!("{access} -"));
    let sink = free_address().to_string();
    let report = run(&points, &["--pairs", "2", "--sink", &sink]);
    assert!(!report.passed);
    assert_eq!(report.figures.sessions, Some(2), "{}", report.to_text());
    assert_eq!(report.violations.counts.get(&Violation::UnexpectedClose), Some(&2));
}

#[test]
fn points_that_make_no_sense_are_refused() {
    let files = Files::new();
    for (content, options) in [
        ("", &["--sink", "1"][..]),
        ("127.0.0.1:1 -", &[]),
        ("127.0.0.1:1 - sha-256 00", &["--sink", "1"]),
        ("127.0.0.1:1 -", &["--sink", "1", "--threads", "2"]),
    ] {
        let points = files.write("points", content);
        let refused = try_run(&points, options);
        assert!(matches!(refused, Err(Error::Usage(_))), "{content:?}: {refused:?}");
    }
}

/// stunnel, which takes off TLS and knows one client, before haproxy.
struct Chain {
    files: Files,
    programs: [Program; 2],
    access: SocketAddr,
    sink: String,
    server: Fingerprint,
    client: (String, String),
}

fn chain() -> Option<Chain> {
    let (stunnel, haproxy) = (find("stunnel", "stunnel4")?, find("haproxy", "haproxy")?);
    let files = Files::new();
    let (chain, key, server) = files.certificate("server");
    let (clients, client_key, _) = files.certificate("client");
    let [access, second, sink] = [(); 3].map(|()| free_address());
    let configuration = include_str!("../../../perf/peers/haproxy.cfg")
        .replace("@LISTEN@", &second.to_string())
        .replace("@FAR_END@", &sink.to_string())
        .replace("@SPLICE@", "");
    let file = files.write("haproxy.cfg", &configuration);
    let haproxy = Program::start(Command::new(haproxy).args(["-db", "-f", &file]));
    let configuration = include_str!("../../../perf/peers/stunnel-certificate.conf")
        .replace("@LISTEN@", &access.to_string())
        .replace("@SECOND@", &second.to_string())
        .replace("@CHAIN@", &chain)
        .replace("@KEY@", &key)
        .replace("@CLIENTS@", &clients);
    let file = files.write("stunnel.conf", &configuration);
    let stunnel = Program::start(Command::new(stunnel).arg(&file));
    // Whether it listens is asked of the kernel: a connection would be one too many for our sink.
    for address in [access, second] {
        wait_until("it listens", || TcpListener::bind(address).is_err());
    }
    let (programs, sink) = ([haproxy, stunnel], sink.to_string());
    Some(Chain { files, programs, access, sink, server, client: (clients, client_key) })
}

#[test]
fn pairs_pass_stunnel_and_haproxy_with_certificates_on_both_sides() {
    let Some(chain) = chain() else { return };
    let points = chain.files.write("points", &format!("{} - {}\n", chain.access, chain.server));
    let pids = chain.programs.each_ref().map(|program| program.pid().to_string()).join(",");
    let (certificate, key) = &chain.client;
    let suite = "TLS_AES_128_GCM_SHA256";
    let mut options = vec!["--pairs", "10", "--window", "8", "--sink", &chain.sink];
    options.extend(["--certificate", certificate, "--key", key]);
    options.extend(["--suite", suite, "--node-pid", &pids]);
    let report = run(&points, &options);
    assert_good(&report, 20);
    assert_eq!(report.config.suite.as_deref(), Some(suite));
    assert_eq!(report.config.security, "certificate");
    assert!(report.figures.node_cpu_us_per_message.unwrap() > 0.5, "{}", report.to_text());
}

#[test]
fn who_is_not_known_by_its_certificate_does_not_pass_stunnel() {
    let Some(chain) = chain() else { return };
    let points = chain.files.write("points", &format!("{} - {}\n", chain.access, chain.server));
    // One that is made for the run.
    let report = run(&points, &["--pairs", "2", "--sink", &chain.sink]);
    assert!(!report.passed, "{}", report.to_text());
    assert_eq!(report.violations.counts.get(&Violation::UnexpectedClose), Some(&2));
}

#[test]
fn a_certificate_that_was_not_announced_is_not_taken() {
    let Some(chain) = chain() else { return };
    let (certificate, key, other) = chain.files.certificate("other");
    let points = chain.files.write("points", &format!("{} - {other}\n", chain.access));
    let options = ["--pairs", "2", "--sink", &chain.sink, "--certificate", &certificate];
    let report = run(&points, &[&options[..], &["--key", &key]].concat());
    assert!(!report.passed, "{}", report.to_text());
    assert_eq!(report.violations.counts.get(&Violation::TlsHandshakeFailed), Some(&2));
}
