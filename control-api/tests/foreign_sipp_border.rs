//! SIPp at both ends of the B2BUA: it knows nothing of this node but RFC 3261 and what builds on it.

mod border_world;
mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use border_world::{ACCESS_HOST, CORE_HOST, NETWORK_HOST, Refuses, UE_HOST, World};
use control_api::border::SideRole;
use control_api::border::b2bua::{NextHop, Transport};
use support::program::{Program, find, wait_until};
use support::tshark::capture;

const CALLS: u64 = 200;
/// SIPp gives up by itself some time before.
const CALLS_PATIENCE: Duration = Duration::from_secs(90);

/// SIPp with a scenario of ours.
fn sipp(program: &Path, scenario: &str, transport: Transport, host: &str, port: u16) -> Command {
    let file = format!("{}/tests/data/{scenario}.xml", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(program);
    let transport = match transport {
        Transport::Udp => "u1",
        Transport::Tcp => "t1",
    };
    command.args(["-sf", &file, "-t", transport, "-i", host, "-p", &port.to_string()]);
    command.args(["-m", &CALLS.to_string(), "-nostdin", "-timeout", "60s", "-timeout_error"]);
    command
}

/// A port that nobody has on that host, over both transports.
fn free_port(host: &str) -> u16 {
    loop {
        let tcp = std::net::TcpListener::bind((host, 0)).expect("loopback");
        let port = tcp.local_addr().expect("bound").port();
        if std::net::UdpSocket::bind((host, port)).is_ok() {
            return port;
        }
    }
}

/// All calls of a scenario, each with the other end that belongs to it: none fails, nothing is left.
async fn goes_through(caller: &str, callee: &str, transport: Transport) -> Option<World> {
    let program = find("sipp", "sip-tester")?;
    let directory = tempfile::tempdir().expect("a directory");
    let port = free_port(NETWORK_HOST);
    let mut command = sipp(&program, callee, transport, NETWORK_HOST, port);
    let mut called = Program::start(command.current_dir(directory.path()));
    let is_bound = || match transport {
        Transport::Udp => std::net::UdpSocket::bind((NETWORK_HOST, port)).is_err(),
        Transport::Tcp => std::net::TcpStream::connect((NETWORK_HOST, port)).is_ok(),
    };
    wait_until(|| called.has_ended() || is_bound(), || format!("SIPp: {}", called.output()));
    let next_hop =
        NextHop { address: format!("{NETWORK_HOST}:{port}").parse().expect("one"), transport };
    let world = World::start_with(
        |config| {
            config.sides[1].next_hops = vec![next_hop];
            for side in &mut config.sides {
                side.sip.t1 = Duration::from_millis(500);
            }
        },
        Refuses::default(),
    )
    .await;
    let access = world.b2bua.addresses(SideRole::Access).expect("configured");
    let access = match transport {
        Transport::Udp => access.udp,
        Transport::Tcp => access.tcp,
    };
    let mut command = sipp(&program, caller, transport, UE_HOST, free_port(UE_HOST));
    command.args([&access.to_string(), "-r", "50", "-l", "50"]);
    let mut calling = Program::start(command.current_dir(directory.path()));
    let status = calling.await_end(CALLS_PATIENCE);
    // SIPp's exit status is 0 only if every call went through its scenario to the end.
    assert!(status.success(), "{status}: {}\n{}", calling.output(), called.output());
    let status = called.await_end(CALLS_PATIENCE);
    assert!(status.success(), "{status}: {}", called.output());
    assert_eq!(world.b2bua.metrics().calls.get(), CALLS);
    Some(world)
}

/// What becomes of the transactions is a matter of their timers; the calls are over.
async fn no_call_is_left(world: &World) {
    let until = Instant::now() + CALLS_PATIENCE;
    while world.b2bua.calls() > 0 {
        assert!(Instant::now() < until, "{} calls left", world.b2bua.calls());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sipp_calls_sipp_with_early_media_and_changes_over_udp() {
    let through = goes_through("sipp_border_caller", "sipp_border_callee", Transport::Udp).await;
    let Some(world) = through else { return };
    assert_eq!(world.b2bua.metrics().calls_answered.get(), CALLS);
    assert_eq!(world.b2bua.metrics().acks_missing.get(), 0);
    no_call_is_left(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sipp_calls_sipp_with_early_media_and_changes_over_tcp() {
    let through = goes_through("sipp_border_caller", "sipp_border_callee", Transport::Tcp).await;
    let Some(world) = through else { return };
    assert_eq!(world.b2bua.metrics().calls_answered.get(), CALLS);
    assert_eq!(world.b2bua.metrics().acks_missing.get(), 0);
    no_call_is_left(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sipp_cancels_what_rings_at_sipp() {
    let through =
        goes_through("sipp_border_cancelling", "sipp_border_cancelled", Transport::Udp).await;
    let Some(world) = through else { return };
    assert_eq!(world.b2bua.metrics().calls_cancelled.get(), CALLS);
    no_call_is_left(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sipp_is_sent_elsewhere_by_sipp() {
    let through =
        goes_through("sipp_border_redirected", "sipp_border_redirecting", Transport::Udp).await;
    let Some(world) = through else { return };
    assert_eq!(world.b2bua.metrics().calls_refused.get(), CALLS);
    no_call_is_left(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tshark_finds_nothing_malformed_on_either_side() {
    let Some(tshark) = find("tshark", "tshark") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("border.pcapng");
    // Ours alone: this test's calls and those of the tests beside it, all of which are to be well-formed.
    let filter = format!("udp and (host {ACCESS_HOST} or host {CORE_HOST})");
    let Some(capture) = capture(&tshark, &filter, &file) else { return };
    let through = goes_through("sipp_border_caller", "sipp_border_callee", Transport::Udp).await;
    if through.is_none() {
        return;
    }
    // An unfinished file is read as far as it goes.
    let read = |filter: &str| {
        let output = Command::new(&tshark).arg("-r").arg(&file).args(["-Y", filter]).output();
        String::from_utf8_lossy(&output.expect("runs").stdout).into_owned()
    };
    let byes = || read("sip.Method == \"BYE\"").lines().count();
    wait_until(|| byes() >= 2 * CALLS as usize, || format!("all calls in the file: {}", byes()));
    capture.interrupt();
    assert_eq!(read("sip && (_ws.malformed || _ws.expert.severity == error)"), "");
}
