//! The program as its user meets it: exit codes, what goes where, what is on record.

#[allow(dead_code, reason = "only a good node is needed here")]
mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use support::{CallFault, Fault, start_sip_udp, start_switch};

fn mrf_load(options: &[&str]) -> Command {
    let sip = start_sip_udp(start_switch(Fault::None), CallFault::None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrf-load"));
    command.args(["run", "chat", "--target", &format!("sip:room@{sip}")]).args(options);
    command.args(["--sessions", "3"]);
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_good_run_exits_with_0_and_is_on_record_without_its_key() {
    let path = format!("{}/good-run.json", env!("CARGO_TARGET_TMPDIR"));
    let key = "somebody:000102030405060708090a0b0c0d0e0f";
    let own_process = std::process::id().to_string();
    let options = &["--duration", "1500ms", "--window", "2", "--json", &path, "--commit", "abc"];
    let output =
        mrf_load(options).args(["--kms-tpk", key, "--node-pid", &own_process]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("PASSED"));
    assert!(stdout(&output).contains("node CPU us per message: "));
    assert!(stderr(&output).contains("3/3 calls up, talking"), "{}", stderr(&output));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("000102030405"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["passed"], true);
    assert_eq!(json["commit"], "abc");
    assert!(json["machine"]["processors"].as_u64().unwrap() > 0);
    assert_ne!(json["machine"]["kernel"], "unknown");
    assert!(json["cpu"]["node_us_per_message"].as_f64().unwrap() > 0.0);
    assert!(json["delivery_latency"]["p99_us"].as_f64().unwrap() > 0.0);
    assert!(json["command_line"].as_array().unwrap().iter().any(|word| word == "--window"));
}

#[test]
fn what_cannot_work_is_refused_before_the_first_call() {
    let no_process = u32::MAX.to_string();
    for (options, code, words) in [
        (["--node-pid", no_process.as_str()], 2, "no such process"),
        (["--json", "/nonexistent/run.json"], 1, "/nonexistent/run.json"),
        (["--rooms", "none"], 2, "--rooms"),
    ] {
        let output = mrf_load(&options).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{options:?}");
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_interrupt_ends_the_calls_and_reports() {
    let mut run = mrf_load(&["--duration", "1h"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(run.stderr.take().unwrap()).lines();
    assert!(progress.any(|line| line.unwrap().contains("talking")));
    let process = run.id().to_string();
    assert!(Command::new("kill").args(["-INT", &process]).status().unwrap().success());
    assert!(progress.any(|line| line.unwrap().contains("interrupted")));
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("3 ended by BYE"), "{}", stdout(&output));
    assert!(stdout(&output).contains("INTERRUPTED"));
}
