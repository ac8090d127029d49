//! The built binary with a call in it: signals, and what its log says.

mod node_ue;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use node_ue::{
    Phone, Protected, TICKET_KEY, authority, binding_send, line, now, plain_offer, protected_offer,
    status, transfer_init,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SHUTDOWN_SECONDS: u64 = 5;

/// A node that is killed when the test ends, however it ends.
struct Running {
    child: Child,
    sip: SocketAddr,
    _config: tempfile::NamedTempFile,
}

impl Running {
    fn start(log: Option<&str>) -> Self {
        let mut config = tempfile::NamedTempFile::new().expect("a file");
        write!(
            config,
            "[sip]\nudp = \"127.0.0.1:0\"\ntcp = \"127.0.0.1:0\"\n[media]\nport = 0\nshards = 1\n\
             pin = false\n[http]\nlisten = \"127.0.0.1:0\"\n[kms]\nlisten = \"127.0.0.1:0\"\n\
             [timers]\nshutdown_seconds = {SHUTDOWN_SECONDS}\n"
        )
        .expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mrf"));
        command.arg("serve").arg("--config").arg(config.path()).env_remove("RUST_LOG");
        if let Some(log) = log {
            command.env("RUST_LOG", log);
        }
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut ready).expect("readable");
        let sip = ready.split("udp:").nth(1).and_then(|rest| rest.split(',').next());
        let sip = sip.expect("an address").parse().expect("an address");
        Self { child, sip, _config: config }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("runs");
        assert!(status.success());
    }

    /// Reads the log while the node runs: a full pipe would stop it.
    fn log(&mut self) -> std::thread::JoinHandle<String> {
        let mut stderr = self.child.stderr.take().expect("piped");
        std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).expect("text");
            log
        })
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A call with media whose phone does nothing by itself.
async fn call(node: &Running) -> (Phone, TcpStream) {
    let mut phone = Phone::new(node.sip).await;
    let answer = phone.invite(&plain_offer()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let mut media = TcpStream::connect(authority(&answer)).await.expect("connects");
    media.write_all(binding_send(&answer).as_bytes()).await.expect("sent");
    (phone, media)
}

#[tokio::test]
async fn sigterm_takes_no_calls_hangs_up_and_ends_with_0_though_nobody_answers() {
    let mut node = Running::start(None);
    let (phone, _media) = call(&node).await;
    let late = Phone::new(node.sip).await;
    let begun = Instant::now();
    node.signal("TERM");
    let bye = phone.receive("BYE ").await;
    assert_eq!(line(&bye, "Reason: "), "SIP;cause=503;text=\"shutting down\"");
    late.send("INVITE", &plain_offer()).await;
    let answer = late.answer().await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    assert_eq!(node.exit_code(), Some(0));
    // Three seconds of grace, and as many for a loaded machine.
    assert!(begun.elapsed() < Duration::from_secs(SHUTDOWN_SECONDS + 6));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut node = Running::start(None);
        let (phone, _media) = call(&node).await;
        node.signal(signal);
        // It waits for the answer, which does not come.
        phone.receive("BYE ").await;
        node.signal(signal);
        assert_eq!(node.exit_code(), Some(code), "{signal}");
    }
}

#[tokio::test]
async fn the_log_is_quiet_unless_asked() {
    let mut node = Running::start(None);
    let log = node.log();
    let (mut phone, media) = call(&node).await;
    let garbage = b"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKx\r\n\r\n";
    phone.socket.send_to(garbage, node.sip).await.expect("sent");
    phone.receive("SIP/2.0 400").await;
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    drop(media);
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
    let log = log.join().expect("a log");
    assert!(!log.contains("SIP/2.0"), "a message is in the log: {log}");
    assert!(!log.contains("alice"), "a caller is in the log: {log}");
    assert!(log.lines().count() <= 4, "{log}");
}

#[test]
fn a_log_filter_that_cannot_be_read_is_named() {
    let mut node = Running::start(Some("mrf=loud"));
    let log = node.log();
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
    let log = log.join().expect("a log");
    assert!(log.contains("RUST_LOG"), "{log}");
}

/// Every way bytes may have been printed.
fn spellings(secret: &[u8]) -> Vec<String> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimal: Vec<_> = secret.iter().map(u8::to_string).collect();
    vec![
        hex.to_ascii_uppercase(),
        hex,
        decimal.join(", "),
        STANDARD.encode(secret).trim_end_matches('=').to_owned(),
        secret.escape_ascii().to_string(),
    ]
}

#[tokio::test]
async fn no_secret_reaches_the_log_at_any_level() {
    let mut node = Running::start(Some("trace"));
    let log = node.log();
    let mut phone = Phone::new(node.sip).await;
    let (initiator, init) = transfer_init(&phone.from, &phone.to, TICKET_KEY);
    let answer = phone.invite(&protected_offer(&init)).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let response = STANDARD.decode(line(&answer, "a=key-mgmt:mikey ")).expect("base64");
    let keys = initiator.finish(&response, now()).expect("TRANSFER_RESP");
    let identity = keys.psk_identity.as_bytes();
    let mut media = Protected::connect(authority(&answer), identity, &keys.psk).await;
    media.send(&binding_send(&answer)).await;
    media.receive("MSRP abcd1234 200").await;
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    drop(media);
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
    let log = log.join().expect("a log");
    assert!(log.contains("TRACE"), "the level had no effect");
    let secrets: [(&str, &[u8]); 3] = [
        ("ticket protection key", TICKET_KEY),
        ("key with the KMS", b"MRF resolve: dev"),
        ("TEK", keys.psk.expose()),
    ];
    for (name, secret) in secrets {
        for spelling in spellings(secret) {
            assert!(!log.contains(&spelling), "the {name} is in the log");
        }
    }
}
