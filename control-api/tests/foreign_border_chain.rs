//! A call protected from end to end through two borders, an IMS-ALG and an IBCF, into a conference: what
//! TLS writes is the same on every hop, and the conference notices nothing.

mod border_ue;
mod node_ue;
mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use border_ue::{ibcf, ims_alg_over_tcp, media_address, side, side_over_tcp};
use control_api::border::SideRole;
use control_api::node::Node;
use node_ue::{
    Phone, Protected, TICKET_KEY, assert_becomes_empty, binding_send, line, now, protected_offer,
    status, stop, transfer_init,
};
use support::http::request;
use support::program::{PATIENCE, find, wait_until};
use support::tshark::{capture, finished_streams};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tls_writes_is_the_same_on_every_hop() {
    let Some(tshark) = find("tshark", "tshark") else { return };
    let conference = Node::start(node_ue::config()).await.expect("starts");
    // Nobody calls back.
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    let outer = Node::start(ibcf(nowhere, conference.addresses().sip_tcp)).await.expect("starts");
    let next = side_over_tcp(&outer, SideRole::Own);
    let inner = Node::start(ims_alg_over_tcp(next)).await.expect("starts");

    let mut phone = Phone::new(side(&inner, SideRole::Access)).await;
    phone.to = "sip:lobby@conference.example".to_owned();
    let (initiator, init) = transfer_init(&phone.from, &phone.to, TICKET_KEY);
    let mut offer = protected_offer(&init);
    // Paths stay, so that what is in TLS need not be changed (RFC 6714).
    offer.extend_from_slice(b"a=msrp-cema\r\n");
    let answer = phone.invite(&offer).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let response = STANDARD.decode(line(&answer, "a=key-mgmt:mikey ")).expect("base64");
    let keys = initiator.finish(&response, now()).expect("TRANSFER_RESP");
    let hops = [media_address(&answer), next_media(&inner).await, next_media(&outer).await];
    assert_eq!(hops.iter().collect::<BTreeSet<_>>().len(), 3, "{hops:?}");
    assert_eq!(hops[2], conference.addresses().media[0]);

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("hops.pcapng");
    let filter = hops.map(|hop| format!("tcp port {}", hop.port())).join(" or ");
    let Some(mut capture) = capture(&tshark, &filter, &file) else { return };
    let mut media = Protected::connect(hops[0], keys.psk_identity.as_bytes(), &keys.psk).await;
    media.send(&binding_send(&answer)).await;
    media.receive("MSRP abcd1234 200").await;
    let http = conference.addresses().http;
    let shown = request(http, "GET", "/api/v1/contexts").await.text();
    assert!(shown.contains("\"security\":\"tls-psk\""), "{shown}");
    assert!(shown.contains("\"uri\":\"sip:alice@example.com\""), "{shown}");
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    drop(media);
    wait_until(|| finished_streams(&tshark, &file) == 3, || "the file to be complete".to_owned());
    capture.interrupt();
    assert!(capture.await_end(PATIENCE).success(), "{}", capture.output());

    let [first, second, third] = hops.map(|hop| payload(&tshark, &file, hop));
    // Handshake, request and response were more than that.
    assert!(first.0.len() > 400 && first.1.len() > 200, "{} {}", first.0.len(), first.1.len());
    // A record of TLS 1.2.
    assert!(first.0.starts_with("1603"), "{}", first.0);
    for (sent, received) in [second, third] {
        assert_eq!(first.0, sent);
        // The conference says goodbye when the call has ended, and the borders may have closed by then.
        let goodbye = received.strip_prefix(&first.1).expect("what the phone has received");
        assert!(goodbye.is_empty() || goodbye.starts_with("1503"), "{goodbye}");
    }
    assert_becomes_empty(http).await;
    for node in [inner, outer, conference] {
        stop(node).await;
    }
}

/// Where the media of a border's only call goes on to.
async fn next_media(node: &Node) -> SocketAddr {
    let shown = request(node.addresses().http, "GET", "/api/v1/border/calls").await.text();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let stream = &shown["calls"][0]["streams"][0];
    assert_eq!(stream["profile"], "end-to-end", "{shown}");
    stream["callee"]["remote"].as_str().and_then(|it| it.parse().ok()).expect("an address")
}

/// What was sent to that address and what came back, in hex digits.
fn payload(tshark: &Path, file: &Path, address: SocketAddr) -> (String, String) {
    let sent = |direction: &str| {
        let filter = format!("{direction} == {} && tcp.len > 0", address.port());
        let filter = format!("{filter} && !tcp.analysis.retransmission");
        let mut command = Command::new(tshark);
        command.arg("-r").arg(file).args(["-Y", &filter, "-T", "fields", "-e", "tcp.payload"]);
        let output = command.output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").split_whitespace().collect::<String>()
    };
    (sent("tcp.dstport"), sent("tcp.srcport"))
}
