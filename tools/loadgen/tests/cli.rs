//! The program as its user meets it: exit codes, what goes where, what is on record.

#[allow(dead_code, reason = "only a good node is needed here")]
mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use support::{CallFault, Fault, start_sip_udp, start_switch};

fn mrf_load(options: &[&str]) -> Command {
    let sip = start_sip_udp(start_switch(Fault::None), CallFault::None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrf-load"));
    command.args(["run", "chat", "--target", &format!("sip:room@{sip}")]).args(options);
    command.args(["--sessions", "3"]);
    command
}

/// One test at a time: children that others have started, and that end, would be missed where this
/// process is measured with its children.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_good_run_exits_with_0_and_is_on_record_without_its_key() {
    let _alone = alone();
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
    let _alone = alone();
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
    let _alone = alone();
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

/// A scenario file against a good node; what it says at the end, and its exit code.
fn run_script(name: &str, expect: &str) -> (String, Option<i32>, serde_json::Value) {
    let sip = start_sip_udp(start_switch(Fault::None), CallFault::None);
    let path = |end: &str| format!("{}/{name}.{end}", env!("CARGO_TARGET_TMPDIR"));
    let text = format!(
        "[defaults]\ntarget = \"sip:room@{sip}\"\nsessions = 3\nduration = \"300ms\"\n\
         [[phase]]\nname = \"ramp\"\nscenario = \"chat\"\n\
         ramp = {{ option = \"window\", from = 1, to = 2, steps = 2 }}\nexpect = [{expect}]\n\
         [[phase]]\nname = \"soak\"\nscenario = \"chat\"\nmessage-rate = 20\n"
    );
    std::fs::write(path("toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrf-load"));
    let output = command.args(["run", &path("toml"), "--json", &path("json")]).output().unwrap();
    let json = std::fs::read_to_string(path("json")).unwrap_or_default();
    let json = serde_json::from_str(&json).unwrap_or_default();
    (format!("{}{}", stdout(&output), stderr(&output)), output.status.code(), json)
}

#[test]
fn a_scenario_file_passes_only_if_every_expectation_held() {
    let _alone = alone();
    let good = "\"p50_us < 1000000\", \"lost = 0\", \"messages >= 10\"";
    let (text, code, json) = run_script("good", good);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("PASSED  ramp (window 2)"), "{text}");
    assert_eq!(json["phases"].as_array().unwrap().len(), 3);
    assert_eq!(json["phases"][0]["expectations"][1]["held"], true);
    assert!(json["phases"][2]["report"]["figures"]["messages"].as_u64() > Some(0));

    let (text, code, json) = run_script("bad", "\"p50_us < 1\", \"node_cpu_seconds < 9\"");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("BROKEN  p50_us < 1: "), "{text}");
    assert!(text.contains("node_cpu_seconds < 9: not measured"), "{text}");
    assert_eq!(json["passed"], false);

    let (text, code, _) = run_script("senseless", "\"speed < 1\"");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("speed"), "{text}");
}

#[test]
fn the_reports_of_two_generators_become_one() {
    let _alone = alone();
    let path = |name: &str| format!("{}/part-{name}.json", env!("CARGO_TARGET_TMPDIR"));
    let mut messages = 0;
    for name in ["a", "b"] {
        let output = mrf_load(&["--duration", "500ms", "--window", "1", "--json", &path(name)])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = std::fs::read_to_string(path(name)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        messages += json["figures"]["messages"].as_u64().unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrf-load"));
    command.args(["merge", &path("a"), &path("b"), "--json", &path("both")]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = std::fs::read_to_string(path("both")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["figures"]["messages"].as_u64(), Some(messages));
    assert!(json["figures"]["latency_us"]["p99"].as_f64().unwrap() > 0.0);
}

/// What a run with `--json FILE` has recorded.
fn recorded(command: &mut Command, name: &str) -> (Output, serde_json::Value) {
    let path = format!("{}/{name}.json", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&path);
    let output = command.args(["--json", &path]).output().unwrap();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    (output, serde_json::from_str(&text).unwrap_or_default())
}

#[test]
fn processes_share_rooms_and_addresses_and_make_one_report() {
    let _alone = alone();
    let sip = start_sip_udp(start_switch(Fault::None), CallFault::None);
    let own_process = std::process::id().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrf-load"));
    command.args(["run", "chat", "--target", &format!("sip:room@{sip}"), "--sessions", "9"]);
    command.args(["--rooms", "3", "--duration", "2500ms", "--window", "2", "--processes", "2"]);
    command.args(["--source", "127.0.3.1-127.0.3.4", "--node-pid", &own_process]);
    let (output, json) = recorded(&mut command, "processes");
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    // One in a room of its own would hear nobody; a room in two processes would hear strangers.
    assert_eq!(json["figures"]["sessions"], 9);
    assert_eq!(json["inputs"].as_array().unwrap().len(), 2);
    let messages = json["figures"]["messages"].as_f64().unwrap();
    assert!(messages > 0.0);
    // One of them has measured the node, for all.
    assert!(json["figures"]["node_cpu_us_per_message"].as_f64().unwrap() > 0.0);
    let doubts = json["warnings"].to_string();
    assert!(!doubts.contains("--node-pid"), "{doubts}");
    assert!(stderr(&output).contains("9/9 calls up, talking"), "{}", stderr(&output));
    assert!(stdout(&output).contains("2 reports together"), "{}", stdout(&output));
}

#[test]
fn one_process_that_fails_fails_the_run() {
    let _alone = alone();
    let sip = start_sip_udp(start_switch(Fault::None), CallFault::Refuse);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrf-load"));
    command.args(["run", "chat", "--target", &format!("sip:room@{sip}"), "--sessions", "4"]);
    command.args(["--rooms", "2", "--processes", "2", "--duration", "300ms"]);
    let (output, json) = recorded(&mut command, "processes-refused");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(json["passed"], false);
    assert_eq!(json["violations"]["counts"]["call_refused"], 1);
    assert_eq!(json["figures"]["sessions"], 3);
}

#[test]
fn what_cannot_be_shared_is_refused_before_anything_starts() {
    let _alone = alone();
    for (options, words) in [
        (&["--processes", "4"][..], "cannot share 3 rooms"),
        (&["--processes", "2", "--source", "127.0.3.1"], "cannot share 1 --source"),
    ] {
        let output = mrf_load(&["--room-size", "1"]).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let burst = ["run", "burst", "--target", "sip:a@127.0.0.1:1", "--processes", "2"];
    let output = Command::new(env!("CARGO_BIN_EXE_mrf-load")).args(burst).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("one process's"), "{}", stderr(&output));
}

#[test]
fn an_interrupt_of_several_processes_ends_the_calls_of_all() {
    let _alone = alone();
    let mut run = mrf_load(&["--duration", "1h", "--rooms", "3", "--processes", "3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(run.stderr.take().unwrap()).lines();
    assert!(progress.any(|line| line.unwrap().contains("3/3 calls up, talking")));
    let process = run.id().to_string();
    assert!(Command::new("kill").args(["-INT", &process]).status().unwrap().success());
    assert!(progress.any(|line| line.unwrap().contains("interrupted")));
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("3 reports together"), "{}", stdout(&output));
}
