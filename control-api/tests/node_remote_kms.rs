//! A node whose KMS is elsewhere: over TLS, with others in reserve, and when none is there.

mod kms_files;
mod node_ue;
mod support;

use std::net::SocketAddr;

use control_api::config::{
    Config, KmsCertificate, KmsMode, KmsServer, MikeyTicketKey, Secret, SharedWith, UriPattern,
};
use control_api::mikey::codec::TicketFlags;
use control_api::mikey::{GrantedTicket, Initiator, Parameters, TicketProtectionKey, TicketWish};
use control_api::node::{Node, StandaloneKms};
use kms_files::Files;
use node_ue::{
    Phone, TICKET_KEY, assert_becomes_empty, config, line, metric, now, protected_offer, status,
    stop, transfer_init,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

impl Files {
    async fn start_kms(&self, port: u16) -> (StandaloneKms, SocketAddr) {
        let mut config = config();
        config.kms.listen.set_port(port);
        config.kms.certificate =
            Some(KmsCertificate { chain: self.path("chain"), key: self.path("key") });
        let kms = StandaloneKms::start(config, None).await.expect("starts");
        let line = kms.ready_line();
        let address = line.split(' ').find_map(|word| word.strip_prefix("kms=")).expect("named");
        let address = address.parse().expect("an address");
        (kms, address)
    }

    fn node_config(&self, ports: &[u16]) -> Config {
        let mut config = config();
        config.kms.mode = KmsMode::Remote;
        config.kms.client.authorities = vec![self.path("authority")];
        config.kms.client.response_timeout_milliseconds = 300;
        config.kms.client.timeout_milliseconds = 1000;
        let url = |port| KmsServer { url: format!("https://localhost:{port}") };
        config.kms.servers = ports.iter().map(|port| url(*port)).collect();
        config
    }
}

async fn stop_kms(kms: StandaloneKms) {
    kms.stop_token().cancel();
    kms.wait().await;
}

/// The status of a protected call, which is hung up.
async fn call(node: &Node) -> u16 {
    call_with(node, |from, to| transfer_init(from, to, TICKET_KEY)).await
}

/// The same with another TRANSFER_INIT, made for who calls whom.
async fn call_with(
    node: &Node,
    transfer_init: impl FnOnce(&str, &str) -> (Initiator, Vec<u8>),
) -> u16 {
    let mut phone = Phone::new(node.addresses().sip_udp).await;
    let (initiator, init) = transfer_init(&phone.from, &phone.to);
    let answer = phone.invite(&protected_offer(&init)).await;
    let status = status(&answer);
    if status == 200 {
        let response = line(&answer, "a=key-mgmt:mikey ");
        let base64 = &base64::engine::general_purpose::STANDARD;
        let response = base64::Engine::decode(base64, response).expect("base64");
        initiator.finish(&response, now()).expect("TRANSFER_RESP");
        assert_eq!(node_ue::status(&phone.ask("BYE", b"").await), 200);
    }
    status
}

/// A port nobody listens on.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("bound").port()
}

#[tokio::test]
async fn tickets_are_resolved_over_https_and_the_next_kms_stands_in() {
    let files = Files::new();
    let (second, address) = files.start_kms(0).await;
    let config = files.node_config(&[free_port(), address.port()]);
    let node = Node::start(config).await.expect("starts");
    assert!(node.ready_line().contains(" kms=remote "), "{}", node.ready_line());
    for _ in 0..3 {
        assert_eq!(call(&node).await, 200);
    }
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
    stop_kms(second).await;
}

#[tokio::test]
async fn a_dead_kms_fails_the_call_clearly_and_is_found_again() {
    let files = Files::new();
    let (kms, address) = files.start_kms(0).await;
    let node = Node::start(files.node_config(&[address.port()])).await.expect("starts");
    let http = node.addresses().http;
    assert_eq!(call(&node).await, 200);
    stop_kms(kms).await;
    assert_eq!(call(&node).await, 504);
    assert_eq!(metric(http, "mrf_kms_timeouts_total").await, 1);
    assert_becomes_empty(http).await;
    let (kms, _) = files.start_kms(address.port()).await;
    assert_eq!(call(&node).await, 200);
    stop(node).await;
    stop_kms(kms).await;
}

/// A ticket of alice's making for the lobby of a node; `resolved`: by the KMS.
fn ticket(node: &Node, id: &str, key: &[u8], resolved: bool) -> GrantedTicket {
    let lobby = format!("sip:lobby@{}", node.addresses().sip_udp);
    let responders = [lobby.as_str()];
    let mut wish = TicketWish::new("sip:kms@localhost", "sip:alice@example.com", &responders);
    if !resolved {
        wish.flags = wish.flags.without(TicketFlags::RESOLVE_MANDATORY);
    }
    let key = TicketProtectionKey { identity: id.as_bytes().to_vec(), key: key.to_vec().into() };
    let made =
        GrantedTicket::make_as_wished(&Parameters::default(), &wish, &key, now(), &mut random);
    made.expect("a ticket")
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("random bytes");
}

/// TRANSFER_INIT with a ticket there is.
fn with_ticket(ticket: &GrantedTicket, to: &str) -> (Initiator, Vec<u8>) {
    let parameters = Parameters::default();
    Initiator::with_granted_ticket(&parameters, ticket, to, now(), &mut random).expect("a call")
}

#[tokio::test]
async fn a_ticket_that_can_be_opened_here_needs_no_kms() {
    let files = Files::new();
    let (kms, address) = files.start_kms(0).await;
    let mut config = files.node_config(&[address.port()]);
    config.mikey.ticket_keys = vec![MikeyTicketKey {
        id: "alice's".to_owned(),
        key: Secret::from_bytes(vec![0x21; 16]),
        shared_with: SharedWith::Users,
        users: vec![UriPattern("sip:alice@example.com".to_owned())],
    }];
    let node = Node::start(config).await.expect("starts");
    let again = ticket(&node, "development-tpk", TICKET_KEY, true);
    assert_eq!(call_with(&node, |_, to| with_ticket(&again, to)).await, 200);
    stop_kms(kms).await;
    // One that was resolved before, and one whose key is here.
    assert_eq!(call_with(&node, |_, to| with_ticket(&again, to)).await, 200);
    let shared = ticket(&node, "alice's", &[0x21; 16], false);
    assert_eq!(call_with(&node, |_, to| with_ticket(&shared, to)).await, 200);
    // A key that is not the one of that name opens nothing, and nobody is asked about it.
    let forged = ticket(&node, "alice's", &[0x22; 16], false);
    let mut phone = Phone::new(node.addresses().sip_udp).await;
    let (_, init) = with_ticket(&forged, &phone.to);
    assert_eq!(status(&phone.invite(&protected_offer(&init)).await), 488);
    assert_eq!(metric(node.addresses().http, "mrf_kms_timeouts_total").await, 0);
    // Any other ticket does need the KMS.
    assert_eq!(call(&node).await, 504);
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
}

#[tokio::test]
async fn a_kms_that_falls_silent_in_the_middle_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let mut config = config();
    config.kms.mode = KmsMode::Remote;
    config.kms.client.response_timeout_milliseconds = 200;
    config.kms.client.connect_timeout_milliseconds = 200;
    config.kms.client.timeout_milliseconds = 800;
    config.kms.servers = vec![KmsServer { url: format!("http://127.0.0.1:{port}") }];
    let node = Node::start(config).await.expect("starts");
    let silent = tokio::spawn(async move {
        // Takes the question, then hangs up on the first and says nothing to the second.
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut head = [0; 64];
            let _ = stream.read(&mut head).await;
            if !kept.is_empty() {
                kept.push(Some(stream));
            } else {
                kept.push(None);
            }
        }
    });
    assert_eq!(call(&node).await, 504);
    assert_eq!(call(&node).await, 504);
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
    silent.abort();
}

#[tokio::test]
async fn a_kms_that_nobody_vouches_for_is_not_asked() {
    let files = Files::new();
    let others = Files::new();
    let (kms, address) = files.start_kms(0).await;
    let mut config = files.node_config(&[address.port()]);
    config.kms.client.authorities = vec![others.path("authority")];
    let node = Node::start(config).await.expect("starts");
    assert_eq!(call(&node).await, 504);
    stop(node).await;
    stop_kms(kms).await;
}
