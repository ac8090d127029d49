//! Calls by SIPp, which knows nothing of this node but RFC 3261.

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use support::node::Node;
use support::program::{Program, find};

const CALLS: u64 = 1000;
/// SIPp gives up by itself some time before.
const CALLS_PATIENCE: Duration = Duration::from_secs(90);

/// A thousand calls over one transport (SIPp's name for it): none fails, nothing is left.
fn sets_up_and_tears_down(transport: &str, address: fn(&Node) -> SocketAddr) {
    let Some(sipp) = find("sipp", "sip-tester") else { return };
    let node = Node::start(&[]);
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sipp_msrp_call.xml");
    let mut command = Command::new(sipp);
    command.args([&address(&node).to_string(), "-sf", scenario, "-t", transport]);
    command.args(["-i", "127.0.0.1", "-m", &CALLS.to_string(), "-r", "200", "-l", "200"]);
    command.args(["-nostdin", "-timeout", "60s", "-timeout_error"]);
    let directory = tempfile::tempdir().expect("a directory");
    let mut program = Program::start(command.current_dir(directory.path()));
    let status = program.await_end(CALLS_PATIENCE);
    let output = program.output();
    // SIPp's exit status is 0 only if every call went through its scenario to the end.
    assert!(status.success(), "{status}: {output}");
    node.await_empty();
    assert_eq!(node.metric("mrf_calls_accepted"), CALLS);
    assert_eq!(node.metric("mrf_calls_ended"), CALLS);
    assert_eq!(node.metric("mrf_terminations_subtracted"), CALLS);
    assert_eq!(node.metric("mrf_calls_refused"), 0);
    assert_eq!(node.metric("mrf_sip_acks_missing"), 0);
}

#[test]
fn sipp_sets_up_and_tears_down_a_thousand_calls_over_udp() {
    sets_up_and_tears_down("u1", |node| node.sip_udp);
}

#[test]
fn sipp_sets_up_and_tears_down_a_thousand_calls_over_tcp() {
    sets_up_and_tears_down("t1", |node| node.sip_tcp);
}
