//! Two nodes and a KMS that stands alone, each a process of its own as an operator runs them: Wireshark
//! reads along with the TEK, a KMS that is killed leaves a clear failure and no more, and another stands
//! in for it.

mod kms_files;
mod node_ue;
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use control_api::config::{DEVELOPMENT_KEY, DEVELOPMENT_KEY_ID};
use control_api::mikey::{Initiator, Parameters, PreSharedKey};
use kms_files::Files;
use node_ue::callee::{Callee, ask_kms, body, key_management, keyed_answer, respond};
use node_ue::member::{Member, cpim, message};
use node_ue::{
    Phone, Protected, TICKET_KEY, assert_becomes_empty, authority, binding_send, dial, line, now,
    protected_offer, status, transfer_init,
};
use support::http::request;
use support::mrf::Mrf;
use support::program::{PATIENCE, find, wait_until};
use support::tshark::{capture, finished_streams, read};
use tokio::time::{sleep, timeout};

/// Protects the tickets that the KMSs issue.
const ISSUING_KEY: &str = "5c8f2b7d9a1e4c3f6b0d8e7a2c5f9b14";
const TEXT: &str = "a text nobody else has written 0815";

impl Files {
    /// A KMS that listens for HTTPS.
    fn start_kms(&self, port: u16) -> Mrf {
        let (chain, key) = (self.path("chain"), self.path("key"));
        let certificate = format!(
            "[kms.certificate]\nchain = \"{}\"\nkey = \"{}\"\n",
            chain.display(),
            key.display()
        );
        start_kms(port, &certificate)
    }

    /// A node that asks this one, and whose calls MIKEY keys with its tickets.
    fn start_node(&self, kms: u16) -> Mrf {
        let authority = self.path("authority");
        Mrf::start("serve", &node_config(&authority, &[format!("https://localhost:{kms}")]))
    }
}

fn start_kms(port: u16, more: &str) -> Mrf {
    let config = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[kms]\nlisten = \"127.0.0.1:{port}\"\n{more}\
         [[kms.issuing_key]]\nid = \"issuing-1\"\nkey = \"{ISSUING_KEY}\"\n"
    );
    Mrf::start("kms", &config)
}

fn node_config(authority: &Path, servers: &[String]) -> String {
    let any = "\"127.0.0.1:0\"";
    let server = |url: &String| format!("[[kms.server]]\nurl = \"{url}\"\n");
    let servers: String = servers.iter().map(server).collect();
    // Without forward secrecy the key is all that is needed to read along.
    format!(
        "[sip]\nudp = {any}\ntcp = {any}\n[media]\nport = 0\nshards = 1\npin = false\n\
         [http]\nlisten = {any}\n[tls]\nsuites = [\"PSK-AES128-GCM-SHA256\"]\n\
         [conference]\ndial_security = \"mikey\"\n\
         [kms]\nmode = \"remote\"\n[kms.client]\nauthorities = [\"{}\"]\n\
         response_timeout_milliseconds = 4000\ntimeout_milliseconds = 4900\n{servers}",
        authority.display()
    )
}

/// Waits until the rooms of a node say this so many times.
async fn wait_for(http: SocketAddr, words: &str, times: usize) {
    let seen = async {
        loop {
            let rooms = request(http, "GET", "/api/v1/rooms").await.text();
            if rooms.matches(words).count() == times {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(node_ue::PATIENCE, seen).await.unwrap_or_else(|_| panic!("{words} in time"));
}

async fn has_metric(http: SocketAddr, line: &str) -> bool {
    let metrics = request(http, "GET", "/metrics").await.text();
    metrics.lines().any(|metric| metric == line)
}

/// Waits until a node has counted this.
async fn await_metric(http: SocketAddr, line: &str) {
    let counted = async {
        while !has_metric(http, line).await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(node_ue::PATIENCE, counted).await.unwrap_or_else(|_| panic!("{line} in time"));
}

/// Two rooms of two nodes, with somebody in each.
struct Rooms {
    tea: String,
    lobby: String,
    alice: Member,
    bob: Member,
}

impl Rooms {
    async fn new(caller: &Mrf, called: &Mrf) -> Self {
        let (caller, called) = (caller.address("udp"), called.address("udp"));
        let (tea, lobby) = (format!("sip:tea@{caller}"), format!("sip:lobby@{called}"));
        // Each room knows the other one as a participant, and lets nobody else speak on that session.
        let alice = Member::call(caller, &tea, Some(&tea)).await;
        let bob = Member::call(called, &lobby, Some(&lobby)).await;
        Self { tea, lobby, alice, bob }
    }

    async fn talk(&mut self) {
        self.alice.say("message/cpim", &cpim(&self.tea, &self.lobby, TEXT)).await;
        self.bob.hear(TEXT).await;
        self.bob.say("message/cpim", &cpim(&self.lobby, &self.tea, "an answer")).await;
        self.alice.hear("an answer").await;
    }
}

#[tokio::test]
async fn tshark_reads_with_the_tek_what_one_node_says_to_another() {
    let Some(tshark) = find("tshark", "tshark") else { return };
    let files = Files::new();
    let kms = files.start_kms(0);
    let port = kms.address("kms").port();
    let mut caller = files.start_node(port);
    let called = files.start_node(port);
    let (media, sip) = (called.address("media").port(), called.address("udp").port());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("call.pcapng");
    let filter = format!("tcp port {media} or udp port {sip}");
    let Some(mut capturing) = capture(&tshark, &filter, &file) else { return };

    let mut rooms = Rooms::new(&caller, &called).await;
    dial(caller.address("http"), &rooms.lobby).await;
    for node in [&caller, &called] {
        wait_for(node.address("http"), "\"state\":\"connected\"", 2).await;
        wait_for(node.address("http"), "\"security\":\"tls-psk\"", 1).await;
    }
    rooms.talk().await;
    let Rooms { alice, bob, .. } = rooms;
    alice.leave().await;
    bob.leave().await;
    // Ends the call between the rooms.
    caller.signal("TERM");
    assert_eq!(caller.program.await_end(PATIENCE).code(), Some(0), "{}", caller.program.output());
    assert_becomes_empty(called.address("http")).await;
    wait_until(|| finished_streams(&tshark, &file) == 2, || "the file to be complete".to_owned());
    capturing.interrupt();
    assert!(capturing.await_end(PATIENCE).success(), "{}", capturing.output());

    // The KMS knows what is in the ticket, and so does whoever has its key: the decoder finds the
    // exchange in the capture and derives the TEK.
    let tek = derived_key(&file, &["--ticket-key", ISSUING_KEY]).expect("a TEK");
    assert_eq!(derived_key(&file, &["--ticket-key", &"00".repeat(16)]), None);
    let follow = |key: &str| {
        let psk = format!("tls.psk:{key}");
        // Bob's connection, in the clear, was there before.
        let arguments = ["-o", &psk, "-q", "-z", "follow,tls,ascii,1"];
        read(&tshark, &file, media, "tls", &arguments)
    };
    let chat = follow(&tek);
    for text in [TEXT, "an answer"] {
        assert!(chat.contains(&format!("\r\n\r\n{text}\r\n-------")), "not decrypted:\n{chat}");
    }
    let sealed = follow(&"00".repeat(16));
    assert!(!sealed.contains(TEXT), "readable without the key:\n{sealed}");
    let flaws = ["-Y", "_ws.malformed && tcp.stream == 1", "-V"];
    assert_eq!(read(&tshark, &file, media, "tls", &flaws), "");
    for process in [&kms, &called] {
        assert!(!process.program.output().contains(&tek), "the key was logged");
    }
}

/// The TEK that `mrf inspect` derives from a capture with these keys.
fn derived_key(file: &Path, keys: &[&str]) -> Option<String> {
    let mut inspect = Command::new(env!("CARGO_BIN_EXE_mrf"));
    inspect.args(["inspect", "mikey", "--show-secrets"]).args(keys).arg(file);
    let told = String::from_utf8(inspect.output().expect("runs").stdout).expect("text");
    let (_, tek) = told.split_once("TEK of CS 1: ")?;
    tek.split(';').next().map(str::to_owned)
}

#[tokio::test]
async fn a_kms_that_is_killed_in_the_middle_fails_the_call_and_nothing_else() {
    let files = Files::new();
    let mut kms = files.start_kms(0);
    let port = kms.address("kms").port();
    let (caller, called) = (files.start_node(port), files.start_node(port));
    let (http, called_http) = (caller.address("http"), called.address("http"));
    let mut rooms = Rooms::new(&caller, &called).await;

    // A ticket is asked for, and one is to be resolved, and the KMS does not come to it.
    kms.signal("STOP");
    dial(http, &rooms.lobby).await;
    let phone = Phone::new(called.address("udp")).await;
    let (_, init) = transfer_init(&phone.from, &phone.to, TICKET_KEY);
    phone.send("INVITE", &protected_offer(&init)).await;
    for http in [http, called_http] {
        wait_for(http, "\"state\":\"awaiting-keys\"", 1).await;
    }
    kms.signal("KILL");
    assert!(!kms.program.await_end(PATIENCE).success());
    let answer = phone.answer().await;
    assert_eq!(status(&answer), 504, "{answer}");
    assert!(answer.contains("The KMS does not answer"), "{answer}");
    await_metric(http, "mrf_dials_failed_total{status=\"504\"} 1").await;
    for process in [&caller, &called] {
        await_metric(process.address("http"), "mrf_kms_timeouts_total 1").await;
        process.program.await_output("the KMS does not answer");
        // Whoever was there is there.
        wait_for(process.address("http"), "\"state\":", 1).await;
    }

    // It is back, and nobody has to be told.
    let _kms = files.start_kms(port);
    let connected = async {
        loop {
            dial(http, &rooms.lobby).await;
            while !has_failed_or_stands(http).await {
                sleep(Duration::from_millis(10)).await;
            }
            let members = request(http, "GET", "/api/v1/rooms").await.text();
            if members.matches("\"state\":\"connected\"").count() == 2 {
                return;
            }
        }
    };
    timeout(node_ue::PATIENCE, connected).await.expect("the KMS is found again");
    wait_for(called_http, "\"state\":\"connected\"", 2).await;
    rooms.talk().await;
    caller.program.await_output("the KMS answers again");
}

/// The call of a node came to an end, or to a session.
async fn has_failed_or_stands(http: SocketAddr) -> bool {
    let rooms = request(http, "GET", "/api/v1/rooms").await.text();
    rooms.matches("\"state\":").count() == rooms.matches("\"state\":\"connected\"").count()
}

#[tokio::test]
async fn the_second_kms_resolves_what_the_first_has_issued() {
    let (mut first, second) = (start_kms(0, ""), start_kms(0, ""));
    let servers = [&first, &second].map(|kms| format!("http://{}", kms.address("kms")));
    let node = Mrf::start("serve", &node_config(Path::new(""), &servers).replace("[\"\"]", "[]"));
    let (sip, http) = (node.address("udp"), node.address("http"));
    let lobby = format!("sip:lobby@{sip}");
    let mut carol = Member::call(sip, &lobby, Some("sip:carol@example.com")).await;

    // Tickets of the first: alice's for the room, and the node's for bob.
    let alice = "sip:alice@example.com";
    let parameters = Parameters::default();
    let key = PreSharedKey {
        identity: DEVELOPMENT_KEY_ID.as_bytes().to_vec(),
        key: DEVELOPMENT_KEY.to_vec().into(),
    };
    let mut random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("random bytes");
    let asked = Initiator::request_ticket(
        &parameters,
        alice,
        &lobby,
        "sip:kms@localhost",
        &key,
        now(),
        &mut random,
    );
    let (pending, request_init) = asked.expect("a request");
    let granted = ask_kms(first.address("kms"), "ticketrequest", &request_init).await;
    let ticket = pending.finish(&granted, now()).expect("granted");
    let bob = Callee::new(sip).await;
    dial(http, &bob.uri()).await;
    let invite = bob.receive("INVITE ").await;
    let resolved = "mrf_kms_requests_total{message=\"request_init_psk\",outcome=\"answered\"} 2";
    await_metric(first.address("http"), resolved).await;

    first.signal("KILL");
    assert!(!first.program.await_end(PATIENCE).success());

    // Bob has his resolved by the second.
    let (transfer_resp, keys) = respond(second.address("kms"), &bob.uri(), body(&invite)).await;
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    bob.respond(&invite, "200 OK", &keyed_answer("active", nowhere, &transfer_resp)).await;
    bob.receive("ACK ").await;
    let identity = keys.psk_identity.as_bytes();
    let mut media = Protected::connect(authority(body(&invite)), identity, &keys.psk).await;
    let room = line(body(&invite), "a=path:");
    let own = "msrps://127.0.0.1:9/calleeSession1;tcp";
    media.send(&message("from0bob", room, own, "text/plain", "hello")).await;
    media.receive("MSRP from0bob 200").await;

    // The node has alice's resolved by the second, once it has tried the first.
    let mut phone = Phone::new(sip).await;
    lobby.clone_into(&mut phone.to);
    let made = Initiator::with_granted_ticket(&parameters, &ticket, &lobby, now(), &mut random);
    let (initiator, init) = made.expect("a call");
    let answer = phone.invite(&protected_offer(&init)).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let keys = initiator.finish(&key_management(&answer), now()).expect("TRANSFER_RESP");
    let identity = keys.psk_identity.as_bytes();
    let mut media = Protected::connect(authority(&answer), identity, &keys.psk).await;
    media.send(&binding_send(&answer)).await;
    media.receive("200 OK").await;
    carol.say("message/cpim", &cpim("sip:carol@example.com", &lobby, TEXT)).await;
    media.receive(TEXT).await;
    let resolved = "mrf_kms_requests_total{message=\"resolve_init_psk\",outcome=\"answered\"} 2";
    assert!(has_metric(second.address("http"), resolved).await);
    node.program.await_output("the KMS does not answer");
}
