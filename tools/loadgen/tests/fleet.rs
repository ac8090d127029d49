//! Whole runs against a small node in this process: what holds is found to hold, and each fault is
//! found and named.

mod support;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use clap::Parser as _;
use loadgen::cli::Cli;
use loadgen::expectation::Violation;
use loadgen::report::Report;
use loadgen::{Error, Outcome};
use support::{CallFault, Fault, start_sip_tcp, start_sip_udp, start_switch};

fn run(fault: Fault, call_fault: CallFault, options: &[&str]) -> Report {
    let switch = start_switch(fault);
    let tcp = options.contains(&"tcp");
    let sip =
        if tcp { start_sip_tcp(switch, call_fault) } else { start_sip_udp(switch, call_fault) };
    run_against(sip, options).unwrap()
}

fn run_against(sip: SocketAddr, options: &[&str]) -> Result<Report, Error> {
    let target = format!("sip:room@{sip}");
    let mut line = vec!["mrf-load", "run", "chat", "--target", &target, "--rate", "1000/s"];
    line.extend(options);
    match loadgen::run(Cli::parse_from(&line).command, &[])? {
        Outcome::Calls(report) => Ok(*report),
        other => panic!("{other:?}"),
    }
}

const SHORT: &[&str] = &["--sessions", "3", "--duration", "500ms", "--window", "2"];

fn found(report: &Report, violation: Violation) -> u64 {
    report.violations.counts.get(&violation).copied().unwrap_or(0)
}

#[test]
fn a_good_node_passes() {
    let report = run(Fault::None, CallFault::None, SHORT);
    assert!(report.passed, "{}", report.to_text());
    assert_eq!(report.calls.bound, 3);
    assert_eq!(report.calls.ended, 3);
    assert!(report.messages.sent_total > 10);
    assert_eq!(report.messages.delivered_total, 2 * report.messages.sent_total);
    assert_eq!(report.delivery_latency.count, report.messages.delivered_total);
    assert_eq!(report.answer_latency.count, report.messages.sent_total);
}

#[test]
fn rooms_do_not_hear_each_other_and_threads_share_the_rooms() {
    let report = run(
        Fault::None,
        CallFault::None,
        &[
            "--sessions",
            "12",
            "--room-size",
            "2..4",
            "--threads",
            "2",
            "--message-rate",
            "50",
            "--duration",
            "500ms",
            "--transport",
            "tcp",
        ],
    );
    assert!(report.passed, "{}", report.to_text());
    assert_eq!(report.config.rooms, 4);
    assert!(report.messages.delivered_total >= report.messages.sent_total);
}

#[test]
fn large_messages_travel_in_chunks_both_ways() {
    let options =
        &["--sessions", "2", "--duration", "300ms", "--window", "3", "--message-size", "30000"];
    for fault in [Fault::None, Fault::Split] {
        let report = run(fault, CallFault::None, options);
        assert!(report.passed, "{}", report.to_text());
        assert!(report.messages.delivered_total > 0);
    }
}

#[test]
fn names_each_fault_of_the_switch() {
    for (fault, violation) in [
        (Fault::Repeat, Violation::Duplicated),
        (Fault::Damage, Violation::Corrupted),
        (Fault::Refuse, Violation::SendRefused),
        (Fault::Close, Violation::UnexpectedClose),
    ] {
        let report = run(fault, CallFault::None, &[SHORT, &["--drain-timeout", "1s"]].concat());
        assert!(!report.passed, "{fault:?}");
        assert!(found(&report, violation) > 0, "{fault:?}: {}", report.to_text());
    }
}

#[test]
fn names_a_lost_and_a_reordered_message() {
    let options =
        &["--sessions", "2", "--duration", "500ms", "--window", "20", "--drain-timeout", "1s"];
    let report = run(Fault::Lose, CallFault::None, options);
    assert_eq!(found(&report, Violation::Lost), 1, "{}", report.to_text());
    let report = run(Fault::Swap, CallFault::None, options);
    // The tenth and the eleventh message may be of different senders: then the tenth is lost.
    let named = found(&report, Violation::Reordered) + found(&report, Violation::Lost);
    assert!(named > 0, "{}", report.to_text());
}

#[test]
fn repeats_what_the_network_lost() {
    let report = run(Fault::None, CallFault::LoseFirst, SHORT);
    assert!(report.passed, "{}", report.to_text());
}

#[test]
fn counts_refused_calls_by_status_and_lets_the_others_talk() {
    let report = run(Fault::None, CallFault::Refuse, SHORT);
    assert!(!report.passed);
    assert_eq!(report.calls.refused_by_status.get(&486), Some(&1));
    assert_eq!(found(&report, Violation::CallRefused), 1);
    assert_eq!(report.violations.total(), 1, "{}", report.to_text());
    assert!(report.messages.delivered_total > 0);
}

#[test]
fn counts_refused_byes() {
    let report = run(Fault::None, CallFault::RefuseBye, SHORT);
    assert_eq!(found(&report, Violation::ByeRefused), 3, "{}", report.to_text());
}

#[test]
fn ends_soon_when_the_node_has_vanished() {
    let begun = Instant::now();
    let report = run(Fault::None, CallFault::Vanish, SHORT);
    assert_eq!(found(&report, Violation::ByeUnanswered), 3, "{}", report.to_text());
    assert_eq!(report.violations.total(), 3, "{}", report.to_text());
    assert!(begun.elapsed() < TRANSACTION_TIMEOUT);
}

#[test]
fn says_so_when_nobody_is_there() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, options, why) in [
        (free, &["--transport", "tcp"][..], "refused"),
        (udp_free, &[], "refused"),
        (silent.local_addr().unwrap(), &[], "no answer"),
    ] {
        let begun = Instant::now();
        let Err(Error::Io(error)) = run_against(address, options) else { panic!("no error") };
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains(why), "{text}");
        assert!(begun.elapsed() < TRANSACTION_TIMEOUT);
    }
}

/// RFC 3261 timers B and F: what a run would wait for that did not look.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(32);
