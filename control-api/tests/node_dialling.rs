//! Calls of the focus that MIKEY keys, over real sockets: by the operator and by REFER, ended in MSRP
//! over TLS-PSK or with a Reason (TS 23.333 clause 5.20.2).

mod node_ue;
mod support;

use std::net::SocketAddr;

use control_api::config::UriPattern;
use control_api::mikey::Established;
use control_api::mrfc::TicketSource;
use control_api::node::Node;
use mrfp_protocol::tls::Psk;
use node_ue::callee::{Callee, body, key_management, keyed_answer, refer, respond, wrong_key};
use node_ue::member::{Member, cpim, keyed, message};
use node_ue::{
    Protected, assert_becomes_empty, authority, config, dial, line, metric, status, stop,
};
use support::http::{Response, request, request_json};
use tokio::net::TcpListener;

/// `POST /api/v1/rooms/{room}/calls`.
async fn call(node: &Node, room: &str, callee: &str) -> Response {
    let path = format!("/api/v1/rooms/{room}/calls");
    request_json(node.addresses().http, &path, callee).await
}

/// A phone that the node has called.
struct Called {
    callee: Callee,
    invite: String,
    listener: TcpListener,
    transfer_resp: Vec<u8>,
    established: Established,
}

impl Called {
    /// Is called by the operator, and makes of the offer what there is to be made.
    async fn by(node: &Node) -> Self {
        let callee = Callee::new(node.addresses().sip_udp).await;
        dial(node.addresses().http, &callee.uri()).await;
        Self::with(callee, node).await
    }

    async fn with(callee: Callee, node: &Node) -> Self {
        let invite = callee.receive("INVITE ").await;
        let (transfer_resp, established) =
            respond(node.addresses().kms.expect("embedded"), &callee.uri(), body(&invite)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        Self { callee, invite, listener, transfer_resp, established }
    }

    fn listen(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    fn offer(&self) -> &str {
        body(&self.invite)
    }

    async fn answer(&self, sdp: &str) {
        self.callee.respond(&self.invite, "200 OK", sdp).await;
        self.callee.receive("ACK ").await;
    }

    fn keyed_answer(&self, setup: &str) -> String {
        keyed_answer(setup, self.listen(), &self.transfer_resp)
    }

    async fn connect(&self, psk: &Psk) -> Option<Protected> {
        let identity = self.established.psk_identity.as_bytes();
        Protected::try_connect(authority(self.offer()), identity, psk).await
    }

    /// The node's BYE, answered; its Reason.
    async fn hung_up(&self) -> String {
        let bye = self.callee.receive("BYE ").await;
        self.callee.respond(&bye, "200 OK", "").await;
        line(&bye, "Reason:").to_owned()
    }

    /// Hangs up.
    async fn leave(&self) {
        let room = line(&self.invite, "Contact: <").split('>').next().expect("a URI").to_owned();
        let from = line(&self.invite, "From:").to_owned();
        let local = self.callee.uri();
        let bye = format!(
            "BYE {room} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKbye\r\nMax-Forwards: 70\r\n\
             From: <{local}>;tag=callee\r\nTo: {from}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\n\
             Content-Length: 0\r\n\r\n",
            local.rsplit('@').next().expect("an address"),
            line(&self.invite, "Call-ID:"),
        );
        self.callee.send(&bye).await;
        assert_eq!(status(&self.callee.receive("SIP/2.0 200").await), 200);
    }
}

#[tokio::test]
async fn whoever_makes_the_ticket_and_whoever_connects_a_user_is_called_over_tls() {
    for ticket in [TicketSource::Kms, TicketSource::Own] {
        for setup in ["active", "early", "passive"] {
            let mut settings = keyed(ticket);
            // The operator's list is what the media plane speaks.
            settings.tls.suites = vec!["PSK-AES256-GCM-SHA384".to_owned()];
            let node = Node::start(settings).await.expect("starts");
            let mut alice = Member::join(&node, "tea", None).await;
            let bob = Called::by(&node).await;
            let offer = bob.offer();
            assert!(offer.contains(" TCP/TLS/MSRP *\r\na=setup:actpass\r\n"), "{offer}");
            let room = format!("<sip:tea@{}>;", node.addresses().sip_udp);
            assert!(line(&bob.invite, "From:").starts_with(&room), "{}", bob.invite);
            let psk = &bob.established.psk;
            let mut media = match setup {
                "passive" => {
                    bob.answer(&bob.keyed_answer(setup)).await;
                    let (media, named) =
                        Protected::accept(&bob.listener, psk).await.expect("the node connects");
                    assert_eq!(named, bob.established.psk_identity.as_bytes());
                    media
                }
                "early" => {
                    // The media is faster than the signalling.
                    let answer = async {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        bob.answer(&bob.keyed_answer("active")).await;
                    };
                    let (media, ()) = tokio::join!(bob.connect(psk), answer);
                    media.expect("the node waits for the answer")
                }
                _ => {
                    bob.answer(&bob.keyed_answer(setup)).await;
                    bob.connect(psk).await.expect("the same key")
                }
            };
            assert_eq!(media.suite(), "PSK-AES256-GCM-SHA384");
            let (room, own) = (
                line(bob.offer(), "a=path:"),
                format!("msrps://{}/calleeSession1;tcp", bob.listen()),
            );
            media.send(&message("from0bob", room, &own, "text/plain", "hello alice")).await;
            media.receive("MSRP from0bob 200").await;
            assert!(alice.hear("hello alice").await.contains("message/cpim"));
            alice.say("text/plain", "hello bob").await;
            media.receive("hello bob").await;
            let rooms = request(node.addresses().http, "GET", "/api/v1/rooms").await.text();
            assert!(rooms.contains("\"security\":\"tls-psk\""), "{rooms}");
            bob.leave().await;
            alice.leave().await;
            assert_becomes_empty(node.addresses().http).await;
            stop(node).await;
        }
    }
}

#[tokio::test]
async fn one_node_calls_a_room_of_another_and_messages_go_both_ways() {
    let caller = Node::start(keyed(TicketSource::Own)).await.expect("starts");
    let called = Node::start(config()).await.expect("starts");
    let tea = format!("sip:tea@{}", caller.addresses().sip_udp);
    let lobby = format!("sip:lobby@{}", called.addresses().sip_udp);
    // Each room knows the other one as a participant, and lets nobody else speak on that session.
    let mut alice = Member::join(&caller, "tea", Some(&tea)).await;
    let mut bob = Member::join(&called, "lobby", Some(&lobby)).await;
    dial(caller.addresses().http, &lobby).await;
    for node in [&caller, &called] {
        let connected = async {
            while request(node.addresses().http, "GET", "/api/v1/rooms")
                .await
                .text()
                .matches("\"state\":\"connected\"")
                .count()
                < 2
            {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(node_ue::PATIENCE, connected).await.expect("both are connected");
        let rooms = request(node.addresses().http, "GET", "/api/v1/rooms").await.text();
        assert_eq!(rooms.matches("\"security\":\"tls-psk\"").count(), 1, "{rooms}");
    }
    alice.say("message/cpim", &cpim(&tea, &lobby, "from one room")).await;
    bob.hear("from one room").await;
    bob.say("message/cpim", &cpim(&lobby, &tea, "to the other")).await;
    alice.hear("to the other").await;
    alice.leave().await;
    bob.leave().await;
    // What is left is the call between the rooms.
    assert_eq!(caller.stop().await, control_api::node::Stopped::Drained);
    assert_becomes_empty(called.addresses().http).await;
    stop(called).await;
}

#[tokio::test]
async fn a_refer_leads_to_a_keyed_call_where_the_policy_says_so() {
    let node = Node::start(keyed(TicketSource::Kms)).await.expect("starts");
    let mut alice = Member::join(&node, "tea", None).await;
    let callee = Callee::new(node.addresses().sip_udp).await;
    let silent = "Refer-Sub: false\r\nRequire: norefersub\r\n";
    let target = format!("<{}>", callee.uri());
    assert_eq!(status(&refer(&mut alice.phone, &target, silent).await), 202);
    let bob = Called::with(callee, &node).await;
    assert_eq!(line(&bob.invite, "Referred-By:"), "<sip:alice@example.com>");
    bob.answer(&bob.keyed_answer("active")).await;
    let media = bob.connect(&bob.established.psk).await;
    assert!(media.is_some());
    bob.leave().await;
    alice.leave().await;
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
}

#[tokio::test]
async fn what_becomes_of_no_media_is_told_with_a_reason() {
    let mut settings = keyed(TicketSource::Own);
    // Long enough for whoever does come.
    settings.timers.establishment_seconds = 5;
    let node = Node::start(settings).await.expect("starts");
    let no_connection = "Q.850;cause=41;text=\"no MSRP connection\"";
    let no_handshake = "Q.850;cause=41;text=\"TLS handshake failed\"";

    // Nobody comes, and somebody with another key.
    let absent = Called::by(&node).await;
    absent.answer(&absent.keyed_answer("active")).await;
    let bob = Called::by(&node).await;
    bob.answer(&bob.keyed_answer("active")).await;
    assert!(bob.connect(&wrong_key()).await.is_none());
    assert_eq!(absent.hung_up().await, no_connection);
    assert_eq!(bob.hung_up().await, no_handshake);

    // Nobody listens.
    let bob = Called::by(&node).await;
    let answer = bob.keyed_answer("passive");
    let Called { callee, invite, listener, transfer_resp, established } = bob;
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    assert_ne!(listener.local_addr().expect("bound"), address);
    let bob = Called { callee, invite, listener, transfer_resp, established };
    bob.answer(&answer).await;
    assert_eq!(bob.hung_up().await, no_connection);

    // Somebody with another key listens.
    let bob = Called::by(&node).await;
    bob.answer(&bob.keyed_answer("passive")).await;
    assert!(Protected::accept(&bob.listener, &wrong_key()).await.is_none());
    assert_eq!(bob.hung_up().await, no_handshake);

    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
}

#[tokio::test]
async fn an_answer_that_keys_nothing_is_acknowledged_and_hung_up() {
    let node = Node::start(keyed(TicketSource::Own)).await.expect("starts");
    let failed = "SIP;cause=488;text=\"key management failed\"";
    type Spoil = fn(&Called) -> String;
    let answers: [(Spoil, &str); 4] = [
        (|bob| bob.keyed_answer("active").split("a=key-mgmt").next().unwrap().to_owned(), failed),
        (
            |bob| {
                let mut changed = bob.transfer_resp.clone();
                *changed.last_mut().unwrap() ^= 1;
                keyed_answer("active", bob.listen(), &changed)
            },
            failed,
        ),
        // TRANSFER_INIT come back.
        (|bob| keyed_answer("active", bob.listen(), &key_management(bob.offer())), failed),
        (
            |bob| {
                let answer = bob.keyed_answer("active").replace("TCP/TLS/MSRP", "TCP/MSRP");
                answer.replace("msrps:", "msrp:")
            },
            "SIP;cause=488;text=\"answer not acceptable\"",
        ),
    ];
    for (spoil, reason) in answers {
        let bob = Called::by(&node).await;
        bob.answer(&spoil(&bob)).await;
        assert_eq!(bob.hung_up().await, reason);
        // The key that was agreed on opens nothing.
        assert!(bob.connect(&bob.established.psk).await.is_none());
    }
    assert_becomes_empty(node.addresses().http).await;
    assert_eq!(metric(node.addresses().http, "mrf_calls_hung_up_total").await, 1);
    stop(node).await;
}

#[tokio::test]
async fn without_a_ticket_nobody_is_called() {
    let mut settings = keyed(TicketSource::Kms);
    settings.kms.users[0].may_act_as = vec![UriPattern("*@elsewhere.example".to_owned())];
    let node = Node::start(settings).await.expect("starts");
    let http = node.addresses().http;
    let bob = Callee::new(node.addresses().sip_udp).await;
    dial(node.addresses().http, &bob.uri()).await;
    assert_becomes_empty(http).await;
    let metrics = request(http, "GET", "/metrics").await.text();
    assert!(
        metrics.contains("mrf_mikey_failures_total{reason=\"NotAuthorised\"} 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("mrf_dials_failed_total{status=\"500\"} 1\n"), "{metrics}");

    // The operator may want it without, too.
    let plain = format!("{{\"uri\":\"{}\",\"security\":\"plain\"}}", bob.uri());
    let answer = call(&node, "tea", &plain).await;
    assert_eq!(answer.status, 202);
    let invite = bob.receive("INVITE ").await;
    assert!(body(&invite).contains(" TCP/MSRP *\r\n"), "{invite}");
    bob.respond(&invite, "486 Busy Here", "").await;
    bob.receive("ACK ").await;
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn what_the_operator_may_ask_for_is_checked() {
    let node = Node::start(config()).await.expect("starts");
    let room = node.addresses().sip_udp;
    for (place, callee, expected) in [
        ("tea", "{\"uri\":\"tel:+4930\"}".to_owned(), 400),
        ("tea", "{\"uri\":\"sip:bob@192.0.2.1\\r\\nEvil: yes\"}".to_owned(), 400),
        ("tea", "{\"uri\":\"sip:bob@192.0.2.1?Subject=x\"}".to_owned(), 400),
        ("tea", "{}".to_owned(), 422),
        ("tea", "{\"uri\":\"sip:bob@192.0.2.1\",\"security\":\"maybe\"}".to_owned(), 422),
        ("tea", "nonsense".to_owned(), 400),
        ("tea", format!("{{\"uri\":\"sip:tea@{room}\"}}"), 409),
        ("te%20a", "{\"uri\":\"sip:bob@192.0.2.1\"}".to_owned(), 404),
        // Tickets of its own making need a key, but by default the KMS makes them.
        ("tea", "{\"uri\":\"sip:bob@nowhere.example\",\"security\":\"mikey\"}".to_owned(), 202),
        ("tea", format!("{{\"uri\":\"sip:{}@192.0.2.1\"}}", "b".repeat(5000)), 413),
    ] {
        let answer = call(&node, place, &callee).await;
        assert_eq!(answer.status, expected, "{callee}: {}", answer.text());
    }
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
}
