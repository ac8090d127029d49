//! What goes over the wire, read by Wireshark's dissectors: with the MIKEY-derived TEK as TLS-PSK
//! key a chat can be read, without it nobody can, and nothing is malformed.

mod node_ue;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use node_ue::callee::{Callee, body, keyed_answer, respond};
use node_ue::{Protected, assert_becomes_empty, authority, line, stop};
use support::http::request_json;
use support::node::Node;
use support::program::{PATIENCE, find, wait_until};
use support::tshark::{capture, finished_streams, read};
use support::ue::Ue;

const TEXT: &str = "a text nobody else has written 4711";

#[test]
fn tshark_decrypts_a_chat_with_the_mikey_derived_key_and_finds_nothing_malformed() {
    let Some(tshark) = find("tshark", "tshark") else { return };
    // Without forward secrecy: the key is all that is needed to read along.
    let node = Node::start(&[("tls", "suites = [\"PSK-AES128-GCM-SHA256\"]")]);
    let port = node.media.port();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("chat.pcapng");
    let Some(mut capture) = capture(&tshark, &format!("tcp port {port}"), &file) else { return };
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

#[tokio::test]
async fn tshark_decrypts_what_is_said_to_a_user_that_was_called() {
    let Some(tshark) = find("tshark", "tshark") else { return };
    let mut settings = node_ue::config();
    settings.tls.suites = vec!["PSK-AES128-GCM-SHA256".to_owned()];
    let node = control_api::node::Node::start(settings).await.expect("starts");
    let (sip, http) = (node.addresses().sip_udp, node.addresses().http);
    let port = node.addresses().media[0].port();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("called.pcapng");
    let Some(mut capture) = capture(&tshark, &format!("tcp port {port}"), &file) else { return };

    let bob = Callee::new(sip).await;
    let wish = format!("{{\"uri\":\"{}\",\"security\":\"mikey\"}}", bob.uri());
    assert_eq!(request_json(http, "/api/v1/rooms/tea/calls", &wish).await.status, 202);
    let invite = bob.receive("INVITE ").await;
    let (transfer_resp, keys) =
        respond(node.addresses().kms.expect("embedded"), &bob.uri(), body(&invite)).await;
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    let answer = keyed_answer("active", nowhere, &transfer_resp);
    bob.respond(&invite, "200 OK", &answer).await;
    bob.receive("ACK ").await;
    let (room, identity) = (line(body(&invite), "a=path:"), keys.psk_identity.as_bytes());
    let mut media = Protected::connect(authority(body(&invite)), identity, &keys.psk).await;
    let own = "msrps://127.0.0.1:9/calleeSession1;tcp";
    let said = format!(
        "MSRP from0bob SEND\r\nTo-Path: {room}\r\nFrom-Path: {own}\r\nMessage-ID: m1\r\n\
         Byte-Range: 1-{length}/{length}\r\nContent-Type: text/plain\r\n\r\n{TEXT}\r\n\
         -------from0bob$\r\n",
        length = TEXT.len()
    );
    media.send(&said).await;
    media.receive("MSRP from0bob 200").await;
    drop(media);
    let bye = bob.receive("BYE ").await;
    bob.respond(&bye, "200 OK", "").await;
    assert_becomes_empty(http).await;
    stop(node).await;
    wait_until(|| finished_streams(&tshark, &file) == 1, || "the file to be complete".to_owned());
    capture.interrupt();
    assert!(capture.await_end(PATIENCE).success(), "{}", capture.output());

    let key: String = keys.psk.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let follow = |key: &str| {
        let psk = format!("tls.psk:{key}");
        let arguments = ["-o", &psk, "-q", "-z", "follow,tls,ascii,0"];
        read(&tshark, &file, port, "tls", &arguments)
    };
    let chat = follow(&key);
    assert!(chat.contains(&format!("\r\n\r\n{TEXT}\r\n-------")), "not decrypted:\n{chat}");
    let sealed = follow(&"00".repeat(16));
    assert!(!sealed.contains(TEXT), "readable without the key:\n{sealed}");
    let flaws = read(&tshark, &file, port, "tls", &["-Y", "_ws.malformed", "-V"]);
    assert_eq!(flaws, "");
}

#[test]
fn tshark_finds_nothing_malformed_in_what_a_room_says() {
    let Some(tshark) = find("tshark", "tshark") else { return };
    let node = Node::start(&[]);
    let port = node.media.port();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("room.pcapng");
    let Some(mut capture) = capture(&tshark, &format!("tcp port {port}"), &file) else { return };
    let mut bob = Ue::join(&node, "watched", "bob", false);
    let mut carol = Ue::join(&node, "watched", "carol", false);
    let mut alice = Ue::join(&node, "watched", "alice", false);
    let paths = alice.call.paths.clone();

    // Chunks.
    let body = "0123456789".repeat(1000);
    alice.say_in_chunks("text/plain", body.as_bytes(), 3000);
    assert_eq!(bob.hear_all(body.len()), body.as_bytes());

    // A message that makes room for another's, and ends.
    let mut half = paths.send_head("half0001", Some(20_000)).into_bytes();
    half.extend([b'x'; 10_000]);
    alice.wire.write_all(&half).expect("sends");
    bob.await_bytes(b"xxx");
    carol.say("me first");
    alice.wire.write_all(&[b'y'; 10_000]).expect("sends");
    alice.wire.write_all(b"\r\n-------half0001$\r\n").expect("sends");
    assert_eq!(alice.await_status("half0001").expect("an answer"), 200);
    let mut flags = Vec::new();
    while flags.iter().filter(|flag| **flag == b'$').count() < 2 {
        flags.push(bob.hear_chunk().expect("a chunk").0.flag);
    }
    assert!(flags.contains(&b'+'), "nobody made room: {flags:?}");

    // One that is given up.
    let aborted = format!("{}begun\r\n-------gone0001#\r\n", paths.send_head("gone0001", None));
    alice.wire.write_all(aborted.as_bytes()).expect("sends");
    assert_eq!(alice.await_status("gone0001").expect("an answer"), 200);

    // A success report, a nickname, and what is refused.
    let asking = String::from_utf8(paths.send("asks0001", "well?")).expect("text");
    let asking = asking.replace("Byte-Range", "Success-Report: yes\r\nByte-Range");
    alice.wire.write_all(asking.as_bytes()).expect("sends");
    assert_eq!(alice.await_status("asks0001").expect("an answer"), 200);
    alice.await_request("REPORT");
    let elsewhere = paths.to.replace(";tcp", "x;tcp");
    for (id, method, to, header, status) in [
        ("nick0001", "NICKNAME", &paths.to, "Use-Nickname: \"Ali\"", 200),
        ("nick0002", "NICKNAME", &paths.to, "Use-Nickname: Ali", 424),
        ("odd00001", "ODDITY", &paths.to, "Message-ID: modd00001", 501),
        ("lost0001", "SEND", &elsewhere, "Message-ID: mlost0001", 481),
    ] {
        let request = format!(
            "MSRP {id} {method}\r\nTo-Path: {to}\r\nFrom-Path: {}\r\n{header}\r\n\
             -------{id}$\r\n",
            paths.from
        );
        alice.wire.write_all(request.as_bytes()).expect("sends");
        assert_eq!(alice.await_status(id).expect("an answer"), status, "{id}");
    }
    for ue in [&mut alice, &mut bob, &mut carol] {
        ue.call.hang_up();
    }
    node.await_metric("mrf_connections", 0);
    wait_until(|| finished_streams(&tshark, &file) == 3, || "the file to be complete".to_owned());
    capture.interrupt();
    assert!(capture.await_end(PATIENCE).success(), "{}", capture.output());

    let Some(each) = a_packet_each(&tshark, &file, port, 3) else { return };
    let as_msrp = |filter: &str, field: &str| {
        read(&tshark, &each, port, "msrp", &["-Y", filter, "-T", "fields", "-e", field])
    };
    let flaws = "_ws.malformed || _ws.expert.severity >= \"Warning\"";
    assert_eq!(as_msrp(flaws, "_ws.expert.message"), "");
    assert_eq!(as_msrp("!(msrp.to.path && msrp.from.path && msrp.end.line)", "tcp.payload"), "");
    for (field, values) in [
        ("msrp.cnt.flg", &["$", "+", "#"][..]),
        ("msrp.method", &["SEND", "REPORT"]),
        ("msrp.status.code", &["200", "424", "481", "501"]),
        ("msrp.status", &["000 200 OK"]),
    ] {
        let seen = as_msrp(field, field);
        assert!(values.iter().all(|value| seen.lines().any(|seen| seen == *value)), "{seen}");
    }
}

/// The dissector reads the first message of a packet and takes the rest for its body. This makes
/// another capture of what the port has said on so many streams, every message in a packet of its own.
fn a_packet_each(tshark: &Path, file: &Path, port: u16, streams: usize) -> Option<PathBuf> {
    let text2pcap = find("text2pcap", "wireshark-common")?;
    let mut dump = String::new();
    for stream in 0..streams {
        let follow = format!("follow,tcp,raw,{stream}");
        let text = read(tshark, file, port, "msrp", &["-q", "-z", &follow]);
        // Hexadecimal; what the second of the two nodes says is indented.
        let nodes: Vec<_> = text.lines().filter(|line| line.starts_with("Node ")).collect();
        let is_second = nodes[1].ends_with(&format!(":{port}"));
        let lines = text.lines().filter(|line| line.starts_with('\t') == is_second);
        let hexadecimal: String =
            lines.map(str::trim).filter(|line| is_hexadecimal(line)).collect();
        for message in messages(&hexadecimal) {
            dump.push_str("0000");
            for byte in message.as_bytes().chunks(2) {
                dump.extend([' ', char::from(byte[0]), char::from(byte[1])]);
            }
            dump.push('\n');
        }
    }
    let (text, each) = (file.with_extension("txt"), file.with_extension("each.pcapng"));
    fs::write(&text, dump).expect("written");
    let ports = format!("{port},9");
    let output = Command::new(text2pcap).args(["-T", &ports]).args([&text, &each]).output();
    let output = output.expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(each)
}

fn is_hexadecimal(line: &str) -> bool {
    !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Cuts a stream behind every end-line; all in hexadecimal.
fn messages(mut stream: &str) -> Vec<&str> {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        let id = stream.strip_prefix(MSRP).expect("MSRP and a blank");
        let id = &id[..id.find("20").expect("a blank")];
        let end_line = format!("0d0a{}{id}", "2d".repeat(7));
        let end = stream.find(&end_line).expect("an end-line") + end_line.len() + "240d0a".len();
        let (message, rest) = stream.split_at(end);
        messages.push(message);
        stream = rest;
    }
    messages
}

/// "MSRP " in hexadecimal.
const MSRP: &str = "4d53525020";
