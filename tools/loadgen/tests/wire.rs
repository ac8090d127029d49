//! Runs without SIP: against a small target in this process, against the node's own relay, and
//! against programs that know nothing of either.

mod programs;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use clap::Parser as _;
use control_api::config::{Certificate, Config, RelayUser, Secret, Shards};
use control_api::node::{Node, Stopped};
use loadgen::Outcome;
use loadgen::cli::Cli;
use loadgen::expectation::Violation;
use loadgen::wire::WireReport;
use mrfp_protocol::msrp::auth::{Algorithm, Credentials};
use mrfp_protocol::msrp::{Framer, Method, Start};
use programs::{Program, find, free_address, wait_until};

fn run(scenario: &str, target: &str, options: &[&str]) -> WireReport {
    let short = ["--duration", "500ms", "--warmup", "100ms", "--drain-timeout", "1s"];
    let mut line = vec!["mrf-load", "run", scenario, "--target", target];
    line.extend(short);
    line.extend(options);
    match loadgen::run(Cli::parse_from(&line).command, &[]).unwrap() {
        Outcome::Wire(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn assert_good(report: &WireReport, connections: u64) {
    assert!(report.passed, "{}", report.to_text());
    let figures = &report.figures;
    assert_eq!(figures.sessions, Some(connections));
    assert!(figures.messages > Some(10), "{}", report.to_text());
    assert!(figures.latency_us.unwrap().p50 > 0.0);
    let fairness = figures.fairness.unwrap();
    assert_eq!(fairness.silent_pairs, 0);
    assert!(fairness.slowest_pair_mean_us >= fairness.median_pair_mean_us);
    assert_eq!(report.delivery_latency.count > 0, report.answer_latency.count > 0);
}

/// What the joiner does wrong with the tenth message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Repeat,
    Damage,
    Refuse,
    Unanswered,
    Close,
}

/// Joins the first connection with the second: a SEND is answered and goes on unchanged.
fn joiner(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let count = Arc::new(Mutex::new(0));
        loop {
            let (one, other) = (listener.accept().unwrap().0, listener.accept().unwrap().0);
            let one = Arc::new(Mutex::new(one));
            let other = Arc::new(Mutex::new(other));
            for (own, partner) in [(&one, &other), (&other, &one)] {
                let stream = own.lock().unwrap().try_clone().unwrap();
                stream.set_nodelay(true).unwrap();
                let (own, partner) = (Arc::clone(own), Arc::clone(partner));
                let count = Arc::clone(&count);
                std::thread::spawn(move || join(stream, &own, &partner, &count, fault));
            }
        }
    });
    address
}

fn join(
    mut stream: TcpStream,
    own: &Mutex<TcpStream>,
    partner: &Mutex<TcpStream>,
    count: &Mutex<u32>,
    fault: Fault,
) {
    let (mut framer, mut input, mut chunk) = (Framer::default(), Vec::new(), vec![0; 65536]);
    let mut message: Vec<u8> = Vec::new();
    let mut answer = String::new();
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(length) => input.extend_from_slice(&chunk[..length]),
        }
        let mut at = 0;
        while let Some(piece) = framer.next(&input[at..]).unwrap() {
            message.extend_from_slice(&input[at..at + piece.consumed]);
            at += piece.consumed;
            if let Some(head) = &piece.head {
                answer = match head.start {
                    Start::Request(Method::Send) => {
                        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                        format!(
                            "MSRP {0} 200 OK\r\nTo-Path: {1}\r\nFrom-Path: {2}\r\n-------{0}$\r\n",
                            text(head.transaction_id),
                            text(head.from_path.0),
                            text(head.to_path.0)
                        )
                    }
                    _ => String::new(),
                };
            }
            if piece.end.is_some() {
                let mut message = std::mem::take(&mut message);
                if answer.is_empty() {
                    continue;
                }
                let tenth = {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    *count == 10
                };
                let fault = if tenth { fault } else { Fault::None };
                if fault == Fault::Close {
                    return stream.shutdown(std::net::Shutdown::Both).unwrap();
                }
                if fault == Fault::Refuse {
                    answer = answer.replace("200 OK", "413 Too Large");
                }
                if fault == Fault::Damage {
                    let at = message.len() - 40;
                    message[at] ^= 1;
                }
                if fault != Fault::Unanswered {
                    let _ = own.lock().unwrap().write_all(answer.as_bytes());
                }
                let times = match fault {
                    Fault::Lose => 0,
                    Fault::Repeat => 2,
                    _ => 1,
                };
                for _ in 0..times {
                    let _ = partner.lock().unwrap().write_all(&message);
                }
            }
            if at == input.len() {
                break;
            }
        }
        input.drain(..at);
    }
}

fn raw(fault: Fault, options: &[&str]) -> WireReport {
    run("raw", &format!("tcp://{}", joiner(fault)), options)
}

#[test]
fn raw_pairs_hear_each_other() {
    let report = raw(Fault::None, &["--pairs", "5", "--window", "4"]);
    assert_good(&report, 10);
    assert_eq!(report.config.window, Some(4));
    // Nothing is due in the closed loop.
    assert!(report.figures.send_lateness_us.is_none());
}

#[test]
fn pairs_are_dealt_out_to_several_targets() {
    let targets = [joiner(Fault::None), joiner(Fault::None)];
    let target = format!("tcp://{},tcp://{}", targets[0], targets[1]);
    let report = run("raw", &target, &["--pairs", "5", "--window", "2"]);
    assert_good(&report, 10);
    assert_eq!(report.config.target, format!("{},{}", targets[0], targets[1]));
}

#[test]
fn raw_pairs_on_two_threads_are_paired_in_the_order_they_were_accepted() {
    let options = ["--pairs", "8", "--window", "1", "--threads", "2", "--message-size", "3000"];
    assert_good(&raw(Fault::None, &options), 16);
}

#[test]
fn the_open_loop_sends_what_was_asked_for_from_many_addresses() {
    let source = "127.0.1.1-127.0.1.3";
    let options = ["--pairs", "5", "--message-rate", "40", "--source", source];
    let report = raw(Fault::None, &options);
    assert_good(&report, 10);
    // 10 ends, 40 messages a second each; how many of them fall into the window is a matter of when
    // it begins.
    let expected = 400.0 * report.figures.seconds;
    let sent = report.schedule_slip.count as f64;
    assert!((sent - expected).abs() <= 0.25 * expected, "{sent} of {expected}");
    // It is part of the latency, which counts from when a message was due.
    let (late, latency) = (report.figures.send_lateness_us, report.figures.latency_us);
    assert!(late.unwrap().p50 <= latency.unwrap().p50);
}

#[test]
fn a_burst_is_answered_and_its_first_answers_are_measured() {
    let report = raw(Fault::None, &["--pairs", "20", "--burst", "--window", "1"]);
    assert_good(&report, 40);
    assert_eq!(report.first_answer_latency.count, 40);
}

#[test]
fn each_fault_of_a_raw_target_is_named() {
    for (fault, violations) in [
        (Fault::Lose, &[(Violation::Lost, 1)][..]),
        (Fault::Repeat, &[(Violation::Duplicated, 1)]),
        (Fault::Damage, &[(Violation::Corrupted, 1), (Violation::Lost, 1)]),
        (Fault::Refuse, &[(Violation::SendRefused, 1), (Violation::SendUnanswered, 1)]),
        (Fault::Unanswered, &[(Violation::SendUnanswered, 1)]),
    ] {
        let report = raw(fault, &["--pairs", "2"]);
        assert!(!report.passed);
        let found: Vec<_> = report.violations.counts.clone().into_iter().collect();
        let mut expected = violations.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "{}", report.to_text());
    }
    let report = raw(Fault::Close, &["--pairs", "2"]);
    let closed = report.violations.counts.get(&Violation::UnexpectedClose);
    assert!(closed.is_some(), "{}", report.to_text());
}

#[test]
fn nobody_there_is_told() {
    let report = run("raw", &format!("tcp://{}", free_address()), &["--pairs", "2"]);
    assert!(!report.passed);
    assert_eq!(report.violations.counts.get(&Violation::ConnectFailed), Some(&4));
    assert_eq!(report.violations.counts.get(&Violation::NothingExchanged), Some(&1));
}

#[test]
fn a_target_that_passes_nothing_on_has_not_passed() {
    // It takes connections and reads; the first message is never over.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let report = run("raw", &target, &["--pairs", "1", "--window", "1"]);
    assert!(!report.passed);
    assert_eq!(report.figures.sessions, Some(2));
    let example = &report.violations.examples[&Violation::NothingExchanged][0];
    assert!(example.contains("not one message passed"), "{example}");
}

struct Certificates {
    directory: PathBuf,
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Certificates {
    /// A certificate for localhost that vouches for itself.
    fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Tests share this directory, whether as threads or as processes.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let issued = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(directory.join("chain.pem"), issued.cert.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// Runs against the relay of a node in this process, with `options` of the run.
fn through_own_relay(secure: bool, options: &[&str]) -> WireReport {
    through_relay_with_password(secure, "secret\n", options)
}

fn through_relay_with_password(secure: bool, password: &str, options: &[&str]) -> WireReport {
    let files = Certificates::new("own-relay");
    std::fs::write(files.directory.join("password"), password).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let credentials = Credentials::derive(b"load", b"localhost", b"secret");
    let hash = |algorithm| {
        let digits = credentials.ha1(algorithm).unwrap();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        Some(Secret::from_bytes((0..digits.len()).step_by(2).map(byte).collect()))
    };
    let mut config = Config::default();
    config.sip.udp = any;
    config.sip.tcp = any;
    config.http.listen = any;
    config.kms.listen = any;
    config.media.port = 0;
    config.media.shards = Shards::Count(1);
    config.media.pin = false;
    config.tls.certificate = Some(Certificate {
        chain: files.directory.join("chain.pem"),
        key: files.directory.join("key.pem"),
        authorities: Vec::new(),
        web_authorities: true,
    });
    config.relay.listen = any;
    config.relay.own_port_first = 0;
    config.relay.allow_plain_auth = true;
    config.relay.connections_per_user_max = 1000;
    config.relay.registrations_per_user_max = 1000;
    config.relay.users = vec![RelayUser {
        name: "load".to_owned(),
        sha256: hash(Algorithm::Sha256),
        md5: hash(Algorithm::Md5),
    }];
    let (started, node) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let node = Node::start(config).await.expect("starts");
            started.send((node.addresses().clone(), node.stop_token())).unwrap();
            node.wait().await
        })
    });
    let (addresses, stop) = node.recv().unwrap();
    let port = addresses.relay.expect("there are users").port();
    let scheme = if secure { "msrps" } else { "msrp" };
    let (ca, password) = (files.path("chain.pem"), files.path("password"));
    let mut all = vec!["--relay-user", "load", "--relay-password-file", &password, "--ca", &ca];
    all.extend(options);
    let report = run("relay", &format!("{scheme}://localhost:{port};tcp"), &all);
    stop.cancel();
    assert_eq!(thread.join().unwrap(), Stopped::Drained);
    report
}

#[test]
fn pairs_pass_our_own_relay_in_the_clear() {
    let report = through_own_relay(false, &["--pairs", "10", "--window", "8"]);
    assert_good(&report, 20);
    assert_eq!(report.config.suite, None);
}

#[test]
fn pairs_pass_our_own_relay_over_tls_with_the_suite_that_was_asked_for() {
    for suite in ["TLS_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"] {
        let options = ["--pairs", "10", "--window", "8", "--suite", suite];
        let report = through_own_relay(true, &options);
        assert_good(&report, 20);
        assert_eq!(report.config.suite.as_deref(), Some(suite));
    }
}

#[test]
fn large_messages_pass_our_own_relay() {
    let options = ["--pairs", "3", "--window", "4", "--message-size", "30000"];
    assert_good(&through_own_relay(false, &options), 6);
}

#[test]
fn a_burst_of_auths_is_measured() {
    let report = through_own_relay(false, &["--pairs", "20", "--burst"]);
    assert_good(&report, 40);
    assert_eq!(report.first_answer_latency.count, 40);
}

#[test]
fn a_wrong_password_is_named_and_the_run_ends() {
    let report = through_relay_with_password(false, "guess\n", &["--pairs", "1"]);
    assert!(!report.passed);
    let found: Vec<_> = report.violations.counts.into_iter().collect();
    assert_eq!(found, [(Violation::AuthRefused, 2), (Violation::NothingExchanged, 1)]);
    assert_eq!(report.figures.sessions, Some(0));
}

/// Kamailio as a relay without digest, as the documentation of its msrp module has it.
fn kamailio(tls: Option<&Certificates>) -> Option<(Program, SocketAddr)> {
    let kamailio = find("kamailio", "kamailio")?;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(if tls.is_some() {
        "kamailio-tls"
    } else {
        "kamailio"
    });
    std::fs::create_dir_all(&directory).unwrap();
    let address = free_address();
    let settings = tls.map_or_else(String::new, |files| {
        format!(
            "enable_tls=yes\nloadmodule \"tls.so\"\nmodparam(\"tls\", \"certificate\", \"{}\")\n\
             modparam(\"tls\", \"private_key\", \"{}\")\n\
             modparam(\"tls\", \"verify_certificate\", 0)\n\
             modparam(\"tls\", \"tls_method\", \"TLSv1.2+\")\n",
            files.path("chain.pem"),
            files.path("key.pem")
        )
    });
    let configuration = include_str!("programs/kamailio.cfg")
        .replace("PROTOCOL", if tls.is_some() { "tls" } else { "tcp" })
        .replace("SCHEME", if tls.is_some() { "msrps" } else { "msrp" })
        .replace("PORT", &address.port().to_string())
        // Two that shake hands at once crash in the memory of OpenSSL 3 that they share.
        .replace("CHILDREN", if tls.is_some() { "1" } else { "2" })
        .replace("# SETTINGS", &settings);
    let file = directory.join("kamailio.cfg");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new(kamailio);
    command.args(["-DD", "-E", "-m", "64", "-M", "8", "-f"]).arg(&file);
    for option in ["-Y", "-w"] {
        command.arg(option).arg(&directory);
    }
    let program = Program::start(&mut command);
    wait_until("Kamailio listens", || TcpStream::connect(address).is_ok());
    Some((program, address))
}

#[test]
fn pairs_pass_kamailio() {
    let Some((program, address)) = kamailio(None) else { return };
    let target = format!("msrp://127.0.0.1:{};tcp", address.port());
    let pid = program.pid().to_string();
    let options = ["--pairs", "10", "--window", "8", "--node-pid", &pid];
    let report = run("relay", &target, &options);
    assert_good(&report, 20);
    // Its children do the work.
    assert!(report.figures.node_cpu_us_per_message.unwrap() > 1.0, "{}", report.to_text());
}

#[test]
fn pairs_pass_kamailio_over_tls() {
    let files = Certificates::new("kamailio-certificate");
    let Some((_program, address)) = kamailio(Some(&files)) else { return };
    let target = format!("msrps://127.0.0.1:{};tcp", address.port());
    let suite = "TLS_AES_256_GCM_SHA384";
    let ca = files.path("chain.pem");
    let options = ["--pairs", "5", "--window", "2", "--ca", &ca, "--suite", suite];
    let report = run("relay", &target, &options);
    assert_good(&report, 10);
    assert_eq!(report.config.suite.as_deref(), Some(suite));
}

fn openssl_server() -> Option<(Program, SocketAddr, String)> {
    let openssl = find("openssl", "openssl")?;
    let address = free_address();
    let key = "00112233445566778899aabbccddeeff";
    let mut command = Command::new(openssl);
    command.args(["s_server", "-quiet", "-nocert", "-tls1_2", "-psk_identity", "load"]);
    command.args(["-psk", key, "-cipher", "PSK-AES128-GCM-SHA256"]);
    command.args(["-accept", &address.to_string()]);
    let program = Program::start(&mut command);
    wait_until("s_server listens", || TcpStream::connect(address).is_ok());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("key-{}", address.port()));
    std::fs::write(&file, key).unwrap();
    Some((program, address, file.display().to_string()))
}

#[test]
fn handshakes_with_openssl_are_counted() {
    let Some((program, address, key)) = openssl_server() else { return };
    let (target, pid) = (format!("tls-psk://{address}"), program.pid().to_string());
    let report = run(
        "plane",
        &target,
        &[
            "--handshakes",
            "--psk-identity",
            "load",
            "--psk-key-file",
            &key,
            "--suite",
            "PSK-AES128-GCM-SHA256",
            "--concurrency",
            "4",
            "--node-pid",
            &pid,
        ],
    );
    assert!(report.passed, "{}", report.to_text());
    let figures = &report.figures;
    assert!(figures.handshakes > Some(20), "{}", report.to_text());
    assert!(figures.node_cpu_us_per_handshake.unwrap() > 1.0);
    assert!(figures.latency_us.unwrap().p50 > 0.0);
    assert_eq!(report.config.suite.as_deref(), Some("PSK-AES128-GCM-SHA256"));
}

#[test]
fn a_wrong_key_is_named() {
    let Some((_program, address, key)) = openssl_server() else { return };
    std::fs::write(format!("{key}-wrong"), "00").unwrap();
    let (target, wrong) = (format!("tls-psk://{address}"), format!("{key}-wrong"));
    let options =
        ["--handshakes", "--psk-identity", "load", "--psk-key-file", &wrong, "--concurrency", "1"];
    let report = run("plane", &target, &options);
    assert!(!report.passed);
    let kinds: Vec<_> = report.violations.counts.keys().copied().collect();
    let expected = [Violation::TlsHandshakeFailed, Violation::NothingExchanged];
    assert_eq!(kinds, expected, "{}", report.to_text());
    assert_eq!(report.figures.handshakes, Some(0));
}

/// Copies from one connection to another, and spoils the byte at some place.
fn forwarder(sink: SocketAddr, spoilt: Option<u64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut from = stream.unwrap();
            let mut to = TcpStream::connect(sink).unwrap();
            std::thread::spawn(move || {
                let (mut chunk, mut at) = (vec![0; 65536], 0_u64);
                while let Ok(length) = from.read(&mut chunk) {
                    if length == 0 {
                        return;
                    }
                    if let Some(place) = spoilt.filter(|it| (at..at + length as u64).contains(it)) {
                        chunk[(place - at) as usize] ^= 1;
                    }
                    at += length as u64;
                    if to.write_all(&chunk[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_stream_is_compared_byte_by_byte_behind_a_forwarder() {
    for spoilt in [None, Some(1_000_000)] {
        let sink = free_address();
        let target = format!("tcp://{}", forwarder(sink, spoilt));
        let report = run("bulk", &target, &["--sink", &sink.to_string(), "--pairs", "2"]);
        assert!(report.figures.gbit_per_second.unwrap() > 0.0, "{}", report.to_text());
        let corrupted = report.violations.counts.get(&Violation::Corrupted);
        match spoilt {
            None => assert!(report.passed, "{}", report.to_text()),
            Some(_) => assert_eq!(corrupted, Some(&2), "{}", report.to_text()),
        }
    }
}

/// The program itself, as it starts copies of itself; what it has recorded.
fn run_in_two_processes(name: &str, words: &[&str]) -> serde_json::Value {
    let path = format!("{}/{name}.json", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&path);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrf-load"));
    command.arg("run").args(words).args(["--duration", "500ms", "--warmup", "100ms"]);
    let output = command.args(["--processes", "2", "--json", &path]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

#[test]
fn processes_share_the_pairs_of_a_relay() {
    let Some((_program, address)) = kamailio(None) else { return };
    let target = format!("msrp://127.0.0.1:{};tcp", address.port());
    let words = ["relay", "--target", &target, "--pairs", "5", "--source", "127.0.5.1-127.0.5.2"];
    let json = run_in_two_processes("relay-processes", &words);
    assert_eq!(json["figures"]["sessions"], 10);
    assert!(json["figures"]["messages"].as_u64() > Some(10));
}

#[test]
fn processes_share_handshakes() {
    let Some((program, address, key)) = openssl_server() else { return };
    let (target, pid) = (format!("tls-psk://{address}"), program.pid().to_string());
    let words = ["plane", "--target", &target, "--handshakes", "--psk-identity", "load"];
    let more = ["--psk-key-file", &key, "--concurrency", "4", "--node-pid", &pid];
    let suite = ["--suite", "PSK-AES128-GCM-SHA256"];
    let json = run_in_two_processes("plane-processes", &[&words[..], &more, &suite].concat());
    assert!(json["figures"]["handshakes"].as_u64() > Some(20));
    assert!(json["figures"]["node_cpu_us_per_handshake"].as_f64().unwrap() > 1.0);
}
