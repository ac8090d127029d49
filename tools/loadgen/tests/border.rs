//! Calls through a whole border: an IMS-ALG in this process, UEs and core peers of the generator.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;

use clap::Parser as _;
use control_api::border::SideRole;
use control_api::config::{Config, Shards};
use control_api::node::{Node, Stopped};
use loadgen::cli::Cli;
use loadgen::{BorderReport, Error, Outcome};
use tokio_util::sync::CancellationToken;

/// An IMS-ALG; it is drained when its test is over.
struct Border {
    access: SocketAddr,
    /// Its next hop: where the generator listens.
    core: SocketAddr,
    stop: CancellationToken,
    thread: JoinHandle<Stopped>,
}

impl Border {
    fn start() -> Self {
        let core = free_address();
        let side = |name: &str, next_hops: &str| {
            format!(
                "[border.{name}]\nudp = \"127.0.0.1:0\"\ntcp = \"127.0.0.1:0\"\nmedia = \"127.0.0.1\"\n\
                 next_hops = [{next_hops}]\nprobe_seconds = 3600\n"
            )
        };
        let text = format!(
            "[border]\nrole = \"ims-alg\"\ncertificates_ready = 16\n{}nat = \"latch\"\n{}",
            side("access", ""),
            side("core", &format!("\"sip:{core}\""))
        );
        let mut config = Config::parse("test", &text).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.sip.udp = any;
        config.sip.tcp = any;
        config.http.listen = any;
        config.kms.listen = any;
        config.media.port = 0;
        config.media.shards = Shards::Count(1);
        config.media.pin = false;
        let (started, node) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let node = Node::start(config).await.expect("starts");
                let sides = &node.addresses().border;
                let access = sides.iter().find(|(side, _)| *side == SideRole::Access);
                let access = access.expect("an IMS-ALG has one").1.udp;
                started.send((access, node.stop_token())).unwrap();
                node.wait().await
            })
        });
        let (access, stop) = node.recv().unwrap();
        Self { access, core, stop, thread }
    }

    fn run(self, scenario: &str, options: &[&str]) -> BorderReport {
        let target = format!("sip:peer@{}", self.access);
        let core = self.core.to_string();
        let report = run(scenario, &target, &core, options).unwrap();
        self.stop.cancel();
        assert_eq!(self.thread.join().unwrap(), Stopped::Drained);
        report
    }
}

fn run(scenario: &str, target: &str, core: &str, options: &[&str]) -> Result<BorderReport, Error> {
    let mut line = vec!["mrf-load", "run", scenario, "--target", target, "--core", core];
    line.extend(["--duration", "500ms", "--warmup", "100ms", "--drain-timeout", "2s"]);
    line.extend(options);
    loadgen::run(Cli::parse_from(&line).command, &[]).map(|outcome| match outcome {
        Outcome::Border(report) => *report,
        other => panic!("{other:?}"),
    })
}

/// For both transports. Whoever takes it before it is used spoils one test.
fn free_address() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = tcp.expect("a port");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

fn text(report: &BorderReport) -> String {
    report.calls.to_text() + &report.media.to_text()
}

fn assert_good(report: &BorderReport, calls: u32) {
    assert!(report.passed, "{}", text(report));
    let through = &report.calls;
    assert_eq!((through.attempted, through.answered, through.ended), (calls, calls, calls));
    assert_eq!(through.byes_passed_on, calls);
    assert_eq!(report.media.figures.sessions, Some(u64::from(2 * calls)));
}

#[test]
fn ues_that_call_chat_through_the_border_protected_up_to_the_access_edge() {
    for options in [&["--window", "4"][..], &["--message-rate", "50", "--cema"]] {
        let report = Border::start().run("e2ae", &[&["--sessions", "6"], options].concat());
        assert_good(&report, 6);
        let figures = &report.media.figures;
        assert!(figures.messages > Some(50), "{}", text(&report));
        assert_eq!(figures.fairness.unwrap().silent_pairs, 0);
        assert_eq!(report.media.config.security, "certificate");
        assert!(report.media.config.suite.is_some());
        assert_eq!(report.calls.registering, 0);
    }
}

#[test]
fn ues_that_have_registered_are_called() {
    let report = Border::start()
        .run("e2ae", &["--sessions", "6", "--direction", "terminating", "--window", "2"]);
    assert_good(&report, 6);
    assert_eq!((report.calls.registered, report.calls.registering), (6, 6));
    let report = Border::start().run("e2ae", &["--sessions", "6", "--direction", "both"]);
    assert_good(&report, 6);
}

#[test]
fn a_border_that_is_not_there_is_told() {
    let (target, core) = (format!("sip:peer@{}", free_address()), free_address().to_string());
    let error = run("e2ae", &target, &core, &["--sessions", "1"]).unwrap_err();
    let Error::Io(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains("nobody answers SIP"), "{error}");
}

#[test]
fn another_listener_at_the_core_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let core = taken.local_addr().unwrap().to_string();
    let error = run("e2ae", "sip:peer@127.0.0.1:9", &core, &[]).unwrap_err();
    let Error::Io(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains(&core), "{error}");
}
