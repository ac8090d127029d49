//! Wireshark's capture and dissectors.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::Path;
use std::process::Command;

use super::program::{Program, skip, wait_until};

/// Starts to capture on the loopback device what the filter lets through; `None` where that is not permitted.
pub(crate) fn capture(tshark: &Path, filter: &str, file: &Path) -> Option<Program> {
    let mut command = Command::new(tshark);
    command.args(["-i", "lo", "-f", filter, "-w"]).arg(file);
    let program = Program::start(&mut command);
    // The line "Capturing on" comes before the device is open, the file only afterwards.
    wait_until(
        || program.has_ended() || is_begun(file),
        || format!("the capture to begin: {}", program.output()),
    );
    if program.has_ended() {
        skip(&format!("tshark cannot capture on lo: {}", program.output()));
        return None;
    }
    Some(program)
}

fn is_begun(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.len() > 0)
}

/// Lets tshark read the capture, what the port carries decoded as that protocol.
pub(crate) fn read(
    tshark: &Path,
    file: &Path,
    port: u16,
    protocol: &str,
    arguments: &[&str],
) -> String {
    let output = Command::new(tshark)
        .arg("-r")
        .arg(file)
        .args(["-d", &format!("tcp.port=={port},{protocol}")])
        .args(arguments)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// TCP streams in the file that have ended from the node's side and the UE's.
pub(crate) fn finished_streams(tshark: &Path, file: &Path) -> usize {
    let arguments = ["-Y", "tcp.flags.fin == 1 || tcp.flags.reset == 1", "-T", "fields"];
    let output = Command::new(tshark)
        .arg("-r")
        .arg(file)
        .args(arguments)
        .args(["-e", "tcp.stream"])
        .output();
    let text = String::from_utf8(output.expect("runs").stdout).expect("text");
    text.lines().collect::<std::collections::BTreeSet<_>>().len()
}
