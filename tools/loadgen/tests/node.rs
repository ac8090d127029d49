//! The generator against a whole node in this process: a thousand UEs are called in, talk, and go,
//! and nothing is lost and nothing stays behind.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser as _;
use control_api::config::{Certificate, Config, Creation, Shards};
use control_api::node::{Addresses, Node, Stopped};
use loadgen::Outcome;
use loadgen::cli::Cli;
use loadgen::expectation::Violation;
use loadgen::report::Report;

/// A node with a runtime and a thread of its own.
struct RunningNode {
    addresses: Addresses,
    stop: tokio_util::sync::CancellationToken,
    thread: JoinHandle<Stopped>,
}

const SHARDS: usize = 2;

fn config() -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.sip.udp = any;
    config.sip.tcp = any;
    // What a test sees must not depend on how fast the machine is.
    config.sip.queue_delay_max_milliseconds = 0;
    config.http.listen = any;
    config.kms.listen = any;
    config.media.port = 0;
    config.media.shards = Shards::Count(SHARDS as u16);
    config.media.pin = false;
    config
}

fn start(config: Config) -> RunningNode {
    // Both ends of every connection are in this process.
    mrfp_io::raise_descriptor_limit().unwrap();
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
    RunningNode { addresses, stop, thread }
}

impl RunningNode {
    fn load(&self, options: &[&str]) -> Report {
        self.run("chat", options)
    }

    fn run(&self, scenario: &str, options: &[&str]) -> Report {
        let target = format!("sip:room@{}", self.addresses.sip_udp);
        let mut line = vec!["mrf-load", "run", scenario, "--target", &target, "--rate", "500/s"];
        line.extend(options);
        match loadgen::run(Cli::parse_from(&line).command, &[]).unwrap() {
            Outcome::Calls(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    /// Body of a 200 to GET.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.addresses.http).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        body.to_owned()
    }

    /// The values of a shard metric, one per shard.
    fn metric(&self, name: &str) -> Vec<u64> {
        let metrics = self.get("/metrics");
        let start = format!("mrf_{name}{{");
        let values = metrics.lines().filter(|line| line.starts_with(&start));
        let values: Vec<u64> =
            values.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
        assert_eq!(values.len(), SHARDS, "{name}: {metrics}");
        values
    }

    /// After all calls have ended: every shard took part and none keeps anything. Then stops the
    /// node.
    fn assert_clean_and_stop(self) {
        for name in [
            "terminations",
            "contexts",
            "connections",
            "send_buffers_outstanding",
            "carry_buffers_outstanding",
        ] {
            let deadline = Instant::now() + PATIENCE;
            // Shards publish their figures once per housekeeping turn.
            while self.metric(name) != [0; SHARDS] {
                assert!(Instant::now() < deadline, "{name}: {:?}", self.metric(name));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        assert_eq!(self.get("/api/v1/contexts").trim(), r#"{"contexts":[]}"#);
        let accepted = self.metric("connections_accepted_total");
        assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
        self.stop();
    }

    fn stop(self) {
        self.stop.cancel();
        assert_eq!(self.thread.join().unwrap(), Stopped::Drained);
    }
}

/// Far beyond what a loaded machine needs; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn assert_everything_held(report: &Report, sessions: u32) {
    assert!(report.passed, "{}", report.to_text());
    assert_eq!(report.calls.attempted, sessions);
    assert_eq!(report.calls.bound, sessions);
    assert_eq!(report.calls.ended, sessions);
    assert!(report.messages.sent_total > 0);
    assert!(report.messages.delivered_total >= report.messages.sent_total);
    assert_eq!(report.delivery_latency.count, report.messages.delivered_total);
}

/// A thousand UEs in rooms of 2 to 50.
fn chat(more: &[&str]) {
    let node = start(config());
    let options = &[
        "--sessions",
        "1000",
        "--room-size",
        "2..50",
        "--message-rate",
        "0.4",
        "--duration",
        "5s",
        "--drain-timeout",
        "30s",
    ];
    let report = node.load(&[options, more].concat());
    assert_everything_held(&report, 1000);
    node.assert_clean_and_stop();
}

#[test]
fn a_thousand_ues_chat_in_the_clear() {
    chat(&["--security", "plain"]);
}

#[test]
fn a_thousand_ues_chat_under_their_own_keys() {
    chat(&["--security", "psk"]);
}

#[test]
fn small_and_chunked_messages_share_rooms() {
    for security in ["plain", "psk"] {
        let node = start(config());
        let report = node.load(&[
            "--security",
            security,
            "--sessions",
            "100",
            "--room-size",
            "2..10",
            "--message-size",
            "50,200,2000,9000,30000",
            "--message-rate",
            "2",
            "--duration",
            "3s",
            "--drain-timeout",
            "30s",
        ]);
        assert_everything_held(&report, 100);
        node.assert_clean_and_stop();
    }
}

#[test]
fn pairs_keep_eight_protected_messages_on_their_way() {
    let node = start(config());
    let report = node.load(&[
        "--security",
        "psk",
        "--sessions",
        "40",
        "--room-size",
        "2",
        "--window",
        "8",
        "--duration",
        "2s",
        "--drain-timeout",
        "30s",
    ]);
    assert_everything_held(&report, 40);
    assert_eq!(report.messages.delivered_total, report.messages.sent_total);
    node.assert_clean_and_stop();
}

#[test]
fn pairs_are_compared() {
    let node = start(config());
    let report =
        node.run("pairs", &["--sessions", "20", "--duration", "1s", "--drain-timeout", "30s"]);
    assert_everything_held(&report, 20);
    assert_eq!(report.config.window, 8);
    let fairness = &report.fairness;
    assert_eq!((fairness.rooms, fairness.silent), (10, 0), "{}", report.to_text());
    assert!(fairness.slowest_by_median > 0.0);
    assert!(fairness.slowest_by_median <= 1.0);
    node.assert_clean_and_stop();
}

#[test]
fn everybody_speaks_for_the_first_time_in_one_moment() {
    for security in ["plain", "psk"] {
        let node = start(config());
        let report = node.run(
            "burst",
            &[
                "--security",
                security,
                "--sessions",
                "100",
                "--duration",
                "1s",
                "--drain-timeout",
                "30s",
            ],
        );
        assert_everything_held(&report, 100);
        assert_eq!(report.first_answer_latency.count, 100);
        assert_eq!((report.fairness.rooms, report.fairness.silent), (50, 0));
        node.assert_clean_and_stop();
    }
}

#[test]
fn who_is_called_into_rooms_asks_for_their_floors() {
    for security in ["plain", "psk"] {
        let mut config = config();
        config.rooms.floors = vec!["messages".to_owned()];
        let node = start(config);
        let target = format!("sip:room@{}", node.addresses.sip_udp);
        let line = ["mrf-load", "run", "bfcp", "--target", &target, "--sessions", "40"];
        let more = ["--room-size", "5", "--rate", "200/s", "--security", security];
        let times = ["--duration", "1s", "--warmup", "200ms", "--threads", "2"];
        let line = line.iter().chain(&more).chain(&times);
        let outcome = loadgen::run(Cli::parse_from(line).command, &[]).unwrap();
        let Outcome::Floors(report) = &outcome else { panic!("another report") };
        assert!(outcome.passed(), "{}", outcome.to_text());
        assert_eq!((report.calls.calls.bound, report.calls.calls.ended), (40, 40));
        assert_eq!(report.floors.figures.sessions, Some(40));
        assert!(report.floors.figures.deliveries > Some(40), "{}", outcome.to_text());
        assert_eq!(report.floors.config.suite.is_some(), security == "psk");
        node.assert_clean_and_stop();
    }
}

#[test]
fn rooms_without_floors_give_none() {
    let node = start(config());
    let target = format!("sip:room@{}", node.addresses.sip_udp);
    let line = ["mrf-load", "run", "bfcp", "--target", &target, "--sessions", "2"];
    let line = line.iter().chain(&["--room-size", "2", "--duration", "100ms"]);
    let outcome = loadgen::run(Cli::parse_from(line).command, &[]).unwrap();
    let Outcome::Floors(report) = &outcome else { panic!("another report") };
    assert!(!outcome.passed());
    let unusable = report.calls.violations.counts.get(&Violation::AnswerUnusable);
    assert_eq!(unusable, Some(&2), "{}", outcome.to_text());
    node.stop();
}

#[test]
fn files_and_chat_share_a_connection() {
    for security in ["plain", "psk"] {
        let node = start(config());
        let report = node.run(
            "file-and-chat",
            &[
                "--security",
                security,
                "--sessions",
                "4",
                "--duration",
                "1s",
                "--file-size",
                "3MiB",
                "--drain-timeout",
                "60s",
            ],
        );
        assert_everything_held(&report, 4);
        let files = report.files.as_ref().unwrap();
        assert!(files.delivered >= 2, "{}", report.to_text());
        assert_eq!(files.bytes, 3 << 20);
        node.assert_clean_and_stop();
    }
}

#[test]
fn what_is_pushed_at_a_stalled_receiver_arrives_when_it_reads_again() {
    for security in ["plain", "psk"] {
        let node = start(config());
        let report = node.run(
            "stalled-receiver",
            &[
                "--security",
                security,
                "--sessions",
                "8",
                "--duration",
                "1s",
                "--stall",
                "2s",
                "--file-size",
                "40MB",
                "--drain-timeout",
                "60s",
                "--node-pid",
                &std::process::id().to_string(),
            ],
        );
        assert_everything_held(&report, 8);
        let stall = report.stall.as_ref().unwrap();
        assert!(stall.before.count > 0);
        assert!(stall.during.count > 0);
        // The node and two kernels take some; the rest waits with its sender.
        assert!(stall.sent_bytes > 0, "{}", report.to_text());
        assert!(stall.sent_bytes < 40_000_000, "{}", report.to_text());
        assert_eq!(report.files.as_ref().unwrap().delivered, 1);
        assert!(report.node_memory.unwrap().max_kib > 0);
        node.assert_clean_and_stop();
    }
}

#[test]
fn refusals_are_counted_by_code() {
    let mut config = config();
    config.rooms.creation = Creation::Closed;
    config.rooms.list = vec!["room-0".to_owned()];
    config.rooms.members_max = 3;
    let node = start(config);
    let report = node.load(&["--sessions", "8", "--rooms", "2", "--duration", "500ms"]);
    assert!(!report.passed);
    // Room 0 is full with three of its four; room 1 does not exist.
    let refused: Vec<_> = report.calls.refused_by_status.into_iter().collect();
    assert_eq!(refused, [(404, 4), (486, 1)]);
    assert_eq!(report.calls.ended, 3);
    assert_eq!(report.violations.total(), 5);
    node.stop();
}

#[test]
fn calls_past_the_limit_are_counted_as_503() {
    let mut config = config();
    config.limits.calls_max = 2;
    let node = start(config);
    let report = node.load(&["--sessions", "5", "--duration", "500ms"]);
    let refused: Vec<_> = report.calls.refused_by_status.into_iter().collect();
    assert_eq!(refused, [(503, 3)]);
    assert_eq!(report.calls.ended, 2);
    node.stop();
}

#[test]
fn calls_that_are_shed_are_no_failures_where_calls_never_end() {
    let mut config = config();
    config.limits.calls_max = 2;
    let node = start(config);
    let options = ["--concurrency", "8", "--duration", "500ms"];
    let report = node.run("calls", &options);
    assert!(report.passed, "{}", report.to_text());
    assert!(report.calls.shed > 0, "{}", report.to_text());
    assert_eq!(report.figures.calls_shed, Some(report.calls.shed.into()));
    assert_eq!(report.calls.refused_by_status.get(&503), None);
    assert_eq!(report.calls.answered + report.calls.shed, report.calls.attempted);
    assert!(report.calls.ended > 0);
    assert!(report.to_text().contains("shed (503 with Retry-After)"));
    node.stop();
}

#[test]
fn a_wrong_key_is_named() {
    let node = start(config());
    let wrong = "development-tpk:00000000000000000000000000000000";
    let report = node.load(&["--sessions", "3", "--security", "psk", "--kms-tpk", wrong]);
    let refused: Vec<_> = report.calls.refused_by_status.into_iter().collect();
    assert_eq!(refused, [(488, 3)]);
    let example = &report.violations.examples[&Violation::CallRefused][0];
    assert!(example.contains("Key management failed"), "{example}");
    let example = &report.violations.examples[&Violation::NothingExchanged][0];
    assert!(example.contains("none of 3 calls came up"), "{example}");
    node.stop();
}

#[test]
fn a_node_that_stops_ends_the_run_early() {
    let node = start(config());
    let stop = node.stop.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        stop.cancel();
    });
    let report = node.load(&["--sessions", "4", "--duration", "1h"]);
    assert_eq!(report.calls.bound, 4);
    assert_eq!(report.violations.counts.get(&Violation::HungUp), Some(&4), "{}", report.to_text());
    stopper.join().unwrap();
    node.stop();
}

#[test]
fn whole_calls_follow_each_other_and_are_counted() {
    for security in ["plain", "psk"] {
        let node = start(config());
        let options = [
            "--concurrency",
            "8",
            "--duration",
            "1s",
            "--warmup",
            "1s",
            "--security",
            security,
            "--node-pid",
            &std::process::id().to_string(),
        ];
        let report = node.run("calls", &options);
        assert!(report.passed, "{}", report.to_text());
        let figures = &report.figures;
        assert!(figures.calls > Some(8), "{}", report.to_text());
        assert!(figures.node_cpu_us_per_call.unwrap() > 1.0);
        assert!(figures.latency_us.unwrap().p50 > 0.0);
        assert_eq!(report.calls.bound, report.calls.attempted);
        assert_eq!(report.calls.ended, report.calls.attempted);
        // Those of the warm-up are not among them.
        assert!(report.ending_latency.count >= figures.calls.unwrap());
        assert!(report.ending_latency.count < report.calls.ended.into());
        node.assert_clean_and_stop();
    }
}

#[test]
fn only_the_first_members_send_and_a_warm_up_does_not_count() {
    let node = start(config());
    let options = [
        "--sessions",
        "10",
        "--senders",
        "2",
        "--window",
        "4",
        "--window-until",
        "answered",
        "--warmup",
        "300ms",
        "--duration",
        "700ms",
    ];
    let report = node.load(&options);
    assert_everything_held_but_counts(&report, 10);
    // Each is delivered to the nine others, whoever has sent it.
    assert_eq!(report.messages.delivered_total, 9 * report.messages.sent_total);
    assert!(report.figures.messages.unwrap() < report.messages.sent_total);
    assert!(report.figures.seconds >= 0.7);
    node.stop();
}

fn assert_everything_held_but_counts(report: &Report, sessions: u32) {
    assert!(report.passed, "{}", report.to_text());
    assert_eq!(report.calls.ended, sessions);
}

#[test]
fn bulk_arrives_whole_through_the_node() {
    for security in ["plain", "psk"] {
        let node = start(config());
        let options = [
            "--sessions",
            "2",
            "--window",
            "32",
            "--file-size",
            "1MiB",
            "--duration",
            "1s",
            "--security",
            security,
        ];
        let report = node.run("bulk", &options);
        assert!(report.passed, "{}", report.to_text());
        let figures = &report.figures;
        assert!(figures.gbit_per_second.unwrap() > 0.0, "{}", report.to_text());
        assert!(report.files.as_ref().unwrap().delivered > 0);
        node.stop();
    }
}

#[test]
fn sessions_are_secured_by_the_certificate_that_the_node_announces() {
    let name = format!("node-certificate-{}", std::process::id());
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&directory).unwrap();
    let issued = rcgen::generate_simple_self_signed(vec!["node.invalid".to_owned()]).unwrap();
    let (chain, key) = (directory.join("chain.pem"), directory.join("key.pem"));
    std::fs::write(&chain, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    let mut config = config();
    config.tls.certificate =
        Some(Certificate { chain, key, authorities: Vec::new(), web_authorities: true });
    let node = start(config);
    let talk = ["--sessions", "6", "--rooms", "2", "--window", "4", "--duration", "500ms"];
    let options = [&talk[..], &["--security", "certificate"]].concat();
    let report = node.load(&options);
    assert_everything_held(&report, 6);
    node.assert_clean_and_stop();
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn ues_call_and_connect_from_addresses_of_their_own() {
    for transport in ["udp", "tcp"] {
        let node = start(config());
        let target = match transport {
            "udp" => node.addresses.sip_udp,
            _ => node.addresses.sip_tcp,
        };
        let target = format!("sip:room@{target}");
        let options = ["--sessions", "6", "--rooms", "3", "--duration", "500ms", "--window", "2"];
        let mut line = vec!["mrf-load", "run", "chat", "--target", &target];
        line.extend(options);
        line.extend(["--transport", transport, "--source", "127.0.4.1-127.0.4.3"]);
        let report = match loadgen::run(Cli::parse_from(&line).command, &[]).unwrap() {
            Outcome::Calls(report) => *report,
            other => panic!("{other:?}"),
        };
        assert_everything_held(&report, 6);
        node.stop();
    }
}
