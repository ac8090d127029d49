//! UEs whose TLS is not ours, in a conference: OpenSSL's and GnuTLS's own command line clients, and small
//! ones on mbedTLS, Botan and Erlang's ssl.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};

use support::msrp::Paths;
use support::node::Node;
use support::program::{Compiled, PATIENCE, Program, compiled, find, skip};
use support::sip::{Call, Transport};
use support::ue::Ue;
use support::wire::Credential;

/// How a client is started: program, where to, as whom, with which key (hex), which suite.
type Client = fn(&Path, SocketAddr, &str, &str, &str) -> Command;

fn s_client(program: &Path, to: SocketAddr, identity: &str, key: &str, suite: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["s_client", "-connect", &to.to_string(), "-psk_identity", identity]);
    command.args(["-psk", key, "-tls1_2", "-cipher", suite, "-quiet"]);
    command
}

fn gnutls_cli(program: &Path, to: SocketAddr, identity: &str, key: &str, suite: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--port", &to.port().to_string(), "--pskusername", identity]);
    command.args(["--pskkey", key, "--priority", suite, &to.ip().to_string()]);
    command
}

/// A client of ours on a foreign library: all of them take their words in the same order.
fn small_client(program: &Path, to: SocketAddr, identity: &str, key: &str, suite: &str) -> Command {
    let mut command = Command::new(program);
    command.args([&to.ip().to_string(), &to.port().to_string(), identity, key, suite]);
    command
}

fn mbedtls() -> Option<Compiled> {
    let libraries = ["-lmbedtls", "-lmbedx509", "-lmbedcrypto"];
    compiled("mbedtls_psk_client.c", "/usr/include/mbedtls/ssl.h", "libmbedtls-dev", &libraries)
}

fn botan() -> Option<Compiled> {
    let options = ["-std=c++17", "-I/usr/include/botan-2", "-lbotan-2"];
    let header = "/usr/include/botan-2/botan/tls_client.h";
    compiled("botan_psk_client.cpp", header, "libbotan-2-dev", &options)
}

/// Its script, where there is an Erlang with TLS.
fn erlang() -> Option<PathBuf> {
    find("escript", "erlang-base")?;
    let found = std::fs::read_dir("/usr/lib/erlang/lib").ok().is_some_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("ssl-"))
        })
    });
    if !found {
        skip("Erlang's ssl not found, install the Debian package erlang-ssl");
        return None;
    }
    let script = "tests/foreign/erlang_psk_client.escript";
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
}

fn escript(program: &Path, to: SocketAddr, identity: &str, key: &str, suite: &str) -> Command {
    let mut command = Command::new("escript");
    command.arg(program);
    command.args([&to.ip().to_string(), &to.port().to_string(), identity, key, suite]);
    command
}

const MBEDTLS_SUITES: [&str; 4] = [
    "TLS-ECDHE-PSK-WITH-CHACHA20-POLY1305-SHA256",
    "TLS-PSK-WITH-AES-128-GCM-SHA256",
    "TLS-PSK-WITH-AES-256-GCM-SHA384",
    "TLS-PSK-WITH-CHACHA20-POLY1305-SHA256",
];

const BOTAN_SUITES: [&str; 4] =
    ["ECDHE_PSK:ChaCha20Poly1305", "PSK:AES-128/GCM", "PSK:AES-256/GCM", "PSK:ChaCha20Poly1305"];

/// Its ssl knows no PSK suite with ChaCha20.
const ERLANG_SUITES: [&str; 2] = ["PSK-AES128-GCM-SHA256", "PSK-AES256-GCM-SHA384"];

const S_CLIENT_SUITES: [&str; 4] = [
    "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-GCM-SHA256",
    "PSK-AES256-GCM-SHA384",
    "PSK-CHACHA20-POLY1305",
];

/// No ECDHE-PSK: gnutls-cli 3.7 crashes while it prints such a session, with any server.
const GNUTLS_PRIORITIES: [&str; 3] = [
    "NONE:+VERS-TLS1.2:+PSK:+AES-128-GCM:+AEAD:+COMP-NULL:+SIGN-ALL:+GROUP-ALL",
    "NONE:+VERS-TLS1.2:+PSK:+AES-256-GCM:+AEAD:+COMP-NULL:+SIGN-ALL:+GROUP-ALL",
    "NONE:+VERS-TLS1.2:+PSK:+CHACHA20-POLY1305:+AEAD:+COMP-NULL:+SIGN-ALL:+GROUP-ALL",
];

fn credential(call: &Call) -> Credential {
    call.credential.clone().expect("a secure call")
}

/// Chats both ways with a member that is ours.
fn chats(client: Client, program: &Path, suites: &[&str]) {
    let node = Node::start(&[]);
    let mut bob = Ue::join(&node, "mixed", "bob", true);
    for suite in suites {
        let mut call = Call::place(&node, Transport::Tcp, "mixed", "alice", true);
        let Credential { identity, .. } = credential(&call);
        let key = credential(&call).hex();
        let mut alice = Program::start(&mut client(program, call.media(), &identity, &key, suite));
        alice.write(&call.paths.send("foreign1", "hello from elsewhere\n"));
        alice.await_output("MSRP foreign1 200 OK\r\n");
        assert_eq!(bob.hear(), "hello from elsewhere\n", "{suite}");
        bob.say("hello from here\n");
        alice.await_output("\r\n\r\nhello from here\n\r\n-------");
        assert!(alice.output().contains(&format!("To-Path: {}\r\n", call.paths.from)));
        call.hang_up();
        node.await_metric("mrf_terminations", 1);
    }
    node.await_metric("mrf_handshakes_completed", 1 + suites.len() as u64);
}

#[test]
fn openssl_s_client_chats_with_a_member() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    chats(s_client, &openssl, &S_CLIENT_SUITES);
}

#[test]
fn gnutls_cli_chats_with_a_member() {
    let Some(gnutls) = find("gnutls-cli", "gnutls-bin") else { return };
    chats(gnutls_cli, &gnutls, &GNUTLS_PRIORITIES);
}

#[test]
fn a_client_on_mbedtls_chats_with_a_member() {
    let Some(client) = mbedtls() else { return };
    chats(small_client, &client.program, &MBEDTLS_SUITES);
}

#[test]
fn a_client_on_botan_chats_with_a_member() {
    let Some(client) = botan() else { return };
    chats(small_client, &client.program, &BOTAN_SUITES);
}

#[test]
fn a_client_on_erlangs_ssl_chats_with_a_member() {
    let Some(client) = erlang() else { return };
    chats(escript, &client, &ERLANG_SUITES);
}

/// Relays one connection to the node and keeps what the node sends.
struct Tap {
    address: SocketAddr,
    received: JoinHandle<Vec<u8>>,
}

impl Tap {
    fn start(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let received = thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("somebody connects");
            let mut server = TcpStream::connect(node).expect("connects");
            server.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let mut upstream = server.try_clone().expect("cloned");
            let mut from_client = client.try_clone().expect("cloned");
            let up = thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut upstream);
                let _ = upstream.shutdown(Shutdown::Write);
            });
            let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(length @ 1..) = server.read(&mut buffer) {
                received.extend_from_slice(&buffer[..length]);
                let _ = client.write_all(&buffer[..length]);
            }
            let _ = client.shutdown(Shutdown::Both);
            up.join().expect("copied");
            received
        });
        Self { address, received }
    }

    /// What the node sent, record by record: type and length, and the alert it ended with.
    fn refusal(self) -> (Vec<(u8, usize)>, Vec<u8>) {
        let received = self.received.join().expect("relayed");
        let mut records = Vec::new();
        let mut rest = received.as_slice();
        let mut last: &[u8] = &[];
        while let &[kind, _, _, high, low, ..] = rest {
            let length = usize::from(u16::from_be_bytes([high, low]));
            records.push((kind, length));
            last = &rest[5..5 + length];
            rest = &rest[5 + length..];
        }
        assert_eq!(records.last(), Some(&(21, 2)), "no alert in the clear: {records:?}");
        (records, last.to_vec())
    }
}

/// Wrong key, unknown identity, somebody else's identity: all refused alike, and the Terminations
/// are there for their owners afterwards.
fn refuses_all_others(client: Client, program: &Path, suite: &str) {
    let node = Node::start(&[]);
    let alice = Call::place(&node, Transport::Tcp, "private", "alice", true);
    let bob = Call::place(&node, Transport::Tcp, "private", "bob", true);
    let (of_alice, of_bob) = (credential(&alice), credential(&bob));
    let attempts = [
        (of_alice.identity.as_str(), "000102030405060708090a0b0c0d0e0f".to_owned()),
        ("00000000.1", of_alice.hex()),
        (of_bob.identity.as_str(), of_alice.hex()),
    ];
    let refusals = attempts.map(|(identity, key)| {
        let tap = Tap::start(node.media);
        let mut intruder = Program::start(&mut client(program, tap.address, identity, &key, suite));
        let status = intruder.await_end(PATIENCE);
        assert!(!status.success(), "{}", intruder.output());
        tap.refusal()
    });
    // Fatal, bad_record_mac: the Finished could not be opened (RFC 4279 section 2).
    assert_eq!(refusals[0].1, [2, 20]);
    assert_eq!(refusals[0], refusals[1], "an unknown identity can be told from a wrong key");
    assert_eq!(refusals[0], refusals[2]);
    node.await_metric("mrf_handshakes_failed_authentication", 3);
    let (mut alice, mut bob) = (Ue::connect(alice), Ue::connect(bob));
    alice.say("only we two");
    assert_eq!(bob.hear(), "only we two");
}

#[test]
fn openssl_s_client_without_the_right_key_is_refused_and_learns_nothing() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    refuses_all_others(s_client, &openssl, S_CLIENT_SUITES[1]);
}

#[test]
fn gnutls_cli_without_the_right_key_is_refused_and_learns_nothing() {
    let Some(gnutls) = find("gnutls-cli", "gnutls-bin") else { return };
    refuses_all_others(gnutls_cli, &gnutls, GNUTLS_PRIORITIES[0]);
}

#[test]
fn a_client_on_mbedtls_without_the_right_key_is_refused_and_learns_nothing() {
    let Some(client) = mbedtls() else { return };
    refuses_all_others(small_client, &client.program, MBEDTLS_SUITES[0]);
}

#[test]
fn plain_text_to_a_secure_termination_is_refused_and_reaches_nobody() {
    let node = Node::start(&[]);
    let mut bob = Ue::join(&node, "secure", "bob", true);
    let alice = Call::place(&node, Transport::Tcp, "secure", "alice", true);
    let plain_paths = Paths {
        to: alice.paths.to.replace("msrps:", "msrp:"),
        from: alice.paths.from.replace("msrps:", "msrp:"),
    };
    for paths in [&alice.paths, &plain_paths] {
        let mut stream = TcpStream::connect(node.media).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(&paths.send("plain001", "in the clear")).expect("sends");
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).expect("an answer or the end");
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.is_empty() || answer.starts_with("MSRP plain001 481"), "{answer}");
    }
    let mut alice = Ue::connect(alice);
    alice.say("sealed");
    assert_eq!(bob.hear(), "sealed", "the first thing that reaches him is what was sealed");
}

#[test]
fn renegotiation_by_openssl_s_client_is_refused_and_the_node_stays_up() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let node = Node::start(&[]);
    let mut bob = Ue::join(&node, "steady", "bob", true);
    let call = Call::place(&node, Transport::Tcp, "steady", "alice", true);
    let Credential { identity, .. } = credential(&call);
    let (key, suite) = (credential(&call).hex(), S_CLIENT_SUITES[1]);
    let mut command = Command::new(&openssl);
    command.args(["s_client", "-connect", &call.media().to_string(), "-tls1_2"]);
    // Without -quiet: only then it takes R for a command.
    command.args(["-psk_identity", &identity, "-psk", &key, "-cipher", suite]);
    let mut alice = Program::start(&mut command);
    alice.await_output("Secure Renegotiation IS supported");
    alice.await_output("Verify return code");
    alice.write(&call.paths.send("before01", "before"));
    alice.await_output("MSRP before01 200 OK\r\n");
    assert_eq!(bob.hear(), "before");
    alice.write(b"R\n");
    alice.await_output("RENEGOTIATING");
    // OpenSSL takes the no_renegotiation warning for the end.
    alice.await_end(PATIENCE);
    assert!(alice.output().contains("no renegotiation"), "{}", alice.output());
    // Her connection is gone, so her call is ended.
    node.await_metric("mrf_terminations", 1);
    node.await_metric("mrf_handshakes_completed", 2);
    let mut carol = Ue::join(&node, "steady", "carol", true);
    carol.say("still here");
    assert_eq!(bob.hear(), "still here");
}
