//! What goes over the wire, read by Wireshark's dissectors: with the MIKEY-derived TEK as TLS-PSK
//! key a chat can be read, without it nobody can, and nothing is malformed.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::node::Node;
use support::program::{PATIENCE, Program, find, skip, wait_until};
use support::ue::Ue;

const TEXT: &str = "a text nobody else has written 4711";

/// Starts to capture one TCP port on the loopback device; `None` where that is not permitted.
fn capture(tshark: &Path, port: u16, file: &Path) -> Option<Program> {
    let mut command = Command::new(tshark);
    command.args(["-i", "lo", "-f", &format!("tcp port {port}"), "-w"]).arg(file);
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
fn read(tshark: &Path, file: &Path, port: u16, protocol: &str, arguments: &[&str]) -> String {
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

#[test]
fn tshark_decrypts_a_chat_with_the_mikey_derived_key_and_finds_nothing_malformed() {
    let Some(tshark) = find("tshark", "tshark") else { return };
    // Without forward secrecy: the key is all that is needed to read along.
    let node = Node::start(&[("tls", "suites = [\"PSK-AES128-GCM-SHA256\"]")]);
    let port = node.media.port();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("chat.pcapng");
    let Some(mut capture) = capture(&tshark, port, &file) else { return };
    let mut bob = Ue::join(&node, "watched", "bob", false);
    let mut alice = Ue::join(&node, "watched", "alice", true);
    assert_eq!(alice.wire.suite(), "PSK-AES128-GCM-SHA256");
    let key = alice.call.credential.as_ref().expect("secure").hex();
    alice.say(TEXT);
    assert_eq!(bob.hear(), TEXT);
    bob.say("an answer");
    assert_eq!(alice.hear(), "an answer");
    alice.call.hang_up();
    bob.call.hang_up();
    node.await_metric("mrf_connections", 0);
    // Both connections' ends are in the file, so everything before them is.
    wait_until(|| finished_streams(&tshark, &file) == 2, || "the file to be complete".to_owned());
    capture.interrupt();
    assert!(capture.await_end(PATIENCE).success(), "{}", capture.output());

    // Bob's connection is stream 0, in the clear; Alice's is stream 1.
    let as_tls = |key: &str, arguments: &[&str]| {
        let psk = format!("tls.psk:{key}");
        read(&tshark, &file, port, "tls", &[&["-o", &psk], arguments].concat())
    };
    let chat = as_tls(&key, &["-q", "-z", "follow,tls,ascii,1"]);
    assert!(chat.contains(&format!("\r\n\r\n{TEXT}\r\n-------")), "not decrypted:\n{chat}");
    assert!(chat.contains("\r\n\r\nan answer\r\n-------"), "not decrypted:\n{chat}");
    let sealed = as_tls(&"00".repeat(16), &["-q", "-z", "follow,tls,ascii,1"]);
    assert!(!sealed.contains(TEXT), "readable without the key:\n{sealed}");
    let hello = as_tls(&key, &["-Y", "tls.handshake.type == 2", "-V"]);
    assert!(hello.contains("TLS_PSK_WITH_AES_128_GCM_SHA256"), "{hello}");
    assert_eq!(as_tls(&key, &["-Y", "tcp.stream == 1 && _ws.malformed", "-V"]), "");
    assert_eq!(as_tls(&key, &["-Y", "tcp.stream == 1 && tls.alert_message.level == 2"]), "");

    let as_msrp = |arguments: &[&str]| read(&tshark, &file, port, "msrp", arguments);
    let fields = ["-T", "fields", "-e", "msrp.method"];
    let sends = as_msrp(&[&["-Y", "tcp.stream == 0 && msrp.method"], &fields[..]].concat());
    assert!(sends.lines().filter(|method| *method == "SEND").count() >= 2, "{sends}");
    assert_eq!(as_msrp(&["-Y", "tcp.stream == 0 && _ws.malformed", "-V"]), "");
}

/// TCP streams in the file that have ended from the node's side and the UE's.
fn finished_streams(tshark: &Path, file: &Path) -> usize {
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
