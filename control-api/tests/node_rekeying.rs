//! Keys that are renewed while a chat goes on, over real sockets: by the phone and by the node, the one
//! or the other TLS client, and between two nodes (RFC 6043 section 5.2; TS 23.333 clause 5.20.2).

mod node_ue;
mod support;

use std::time::Duration;

use control_api::mikey::{Bundle, Parameters, PendingUpdate};
use control_api::mrfc::TicketSource;
use control_api::node::Node;
use node_ue::callee::{Callee, body, key_management, keyed_answer, respond};
use node_ue::member::{Member, keyed, message};
use node_ue::{
    Phone, Protected, TICKET_KEY, assert_becomes_empty, authority, binding_send, config, line,
    metric, now, protected_offer, status, stop, transfer_init,
};
use support::http::{request, request_json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

const PHONE_PATH: &str = "msrps://127.0.0.1:9/phoneSession1;tcp";

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("random bytes");
}

fn begin(bundle: &Bundle) -> (PendingUpdate, Vec<u8>) {
    bundle.begin_update(&Parameters::default(), now(), &mut random).expect("an update")
}

/// The 200s to all requests with a body in what was received.
fn answers(received: &str) -> String {
    let requests = received.split("MSRP ").filter(|it| it.contains(" SEND\r\n"));
    let answer = |request: &str| {
        let id = request.split(' ').next().expect("an identifier");
        let (to, from) = (line(request, "From-Path:"), line(request, "To-Path:"));
        format!("MSRP {id} 200 OK\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n-------{id}$\r\n")
    };
    requests.map(answer).collect()
}

/// Hears something and answers it.
async fn hear(media: &mut Protected, wanted: &str) -> String {
    let mut heard = media.receive(wanted).await;
    if !heard.ends_with("$\r\n") {
        heard += &media.receive("$\r\n").await;
    }
    media.send(&answers(&heard)).await;
    heard
}

/// Waits until a counter of the node has this value.
async fn counted(node: &Node, name: &str, value: u64) {
    let reached = async {
        while metric(node.addresses().http, name).await != value {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(node_ue::PATIENCE, reached)
        .await
        .unwrap_or_else(|_| panic!("{name} in time"));
}

/// A phone that has called the lobby with a key of its own.
struct Caller {
    phone: Phone,
    media: Protected,
    bundle: Bundle,
    /// Where the node listens, and what its end is called.
    answer: String,
}

impl Caller {
    async fn join(node: &Node) -> Self {
        let mut phone = Phone::new(node.addresses().sip_udp).await;
        let (initiator, init) = transfer_init(&phone.from, &phone.to, TICKET_KEY);
        let answer = phone.invite(&protected_offer(&init)).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let keys = initiator.finish(&key_management(&answer), now()).expect("TRANSFER_RESP");
        let identity = keys.psk_identity.as_bytes();
        let mut media = Protected::connect(authority(&answer), identity, &keys.psk).await;
        media.send(&binding_send(&answer)).await;
        media.receive("MSRP abcd1234 200").await;
        Self { phone, media, bundle: keys.bundle, answer }
    }

    fn says(&self, id: &str, text: &str) -> String {
        let cpim = format!(
            "From: <{}>\r\nTo: <{}>\r\n\r\nContent-Type: text/plain\r\n\r\n{text}",
            self.phone.from, self.phone.to
        );
        message(id, line(&self.answer, "a=path:"), PHONE_PATH, "message/cpim", &cpim)
    }

    async fn say(&mut self, id: &str, text: &str) {
        let message = self.says(id, text);
        self.media.send(&message).await;
        self.media.receive(&format!("MSRP {id} 200")).await;
    }

    /// Agrees on another key and comes with it; the former connection.
    async fn renew(&mut self) -> Protected {
        let (pending, update) = begin(&self.bundle);
        let answer = self.phone.reinvite(&protected_offer(&update)).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert_eq!(line(&answer, "a=path:"), line(&self.answer, "a=path:"));
        let parameters = Parameters::default();
        let response = key_management(&answer);
        let key = pending.finish(&mut self.bundle, &parameters, &response, now());
        let key = key.expect("the response to the update");
        let identity = key.psk_identity.as_bytes();
        let next = Protected::connect(authority(&answer), identity, &key.psk).await;
        std::mem::replace(&mut self.media, next)
    }

    async fn leave(mut self) {
        assert_eq!(status(&self.phone.ask("BYE", b"").await), 200);
    }
}

async fn say(member: &mut Member, id: &str, text: &str) {
    let own = "msrp://127.0.0.1:9/phoneSession1;tcp";
    let message = message(id, &member.path, own, "text/plain", text);
    member.media.write_all(message.as_bytes()).await.expect("sent");
    member.hear(&format!("MSRP {id} 200")).await;
}

#[tokio::test]
async fn a_phone_renews_its_key_and_the_chat_goes_on() {
    let node = Node::start(config()).await.expect("starts");
    let mut bob = Member::join(&node, "lobby", Some("sip:bob@example.com")).await;
    let mut alice = Caller::join(&node).await;
    for round in 1..=2_u64 {
        alice.say("before01", "one").await;
        bob.hear("one").await;
        // Not answered before the session has moved.
        say(&mut bob, "frombob1", "two").await;
        let mut former = alice.renew().await;
        alice.media.send(&binding_send(&alice.answer)).await;
        counted(&node, "mrf_rekeyings_completed_total", round).await;
        say(&mut bob, "frombob2", "three").await;
        let heard = hear(&mut former, "two").await;
        assert!(!heard.contains("three"), "{heard}");
        let heard = hear(&mut alice.media, "three").await;
        assert!(!heard.contains("two"), "{heard}");
        assert_eq!(heard.matches("three").count(), 1, "{heard}");
        // A straggler is taken and answered where it came.
        former.send(&alice.says("before02", "four")).await;
        former.receive("MSRP before02 200").await;
        alice.say("after001", "five").await;
        let heard = bob.hear("five").await;
        assert_eq!((heard.matches("four").count(), heard.matches("five").count()), (1, 1));
        former.closed().await;
        alice.say("after002", "six").await;
        bob.hear("six").await;
    }
    counted(&node, "mrf_connections", 2).await;
    assert_eq!(metric(node.addresses().http, "mrf_rekeyings_taken_total").await, 2);
    alice.leave().await;
    bob.leave().await;
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
}

#[tokio::test]
async fn an_update_that_is_refused_leaves_the_running_session_as_it_is() {
    let mut settings = config();
    settings.timers.establishment_seconds = 1;
    let node = Node::start(settings).await.expect("starts");
    let mut bob = Member::join(&node, "lobby", Some("sip:bob@example.com")).await;
    let mut alice = Caller::join(&node).await;
    let (_, stale) = begin(&alice.bundle);
    let former = alice.renew().await;
    let mut changed = begin(&alice.bundle).1;
    *changed.last_mut().expect("a MAC") ^= 1;
    for update in [changed, stale] {
        let refusal = alice.phone.reinvite(&protected_offer(&update)).await;
        assert_eq!(status(&refusal), 488, "{refusal}");
        assert!(line(&refusal, "Warning:").contains("Key management failed"), "{refusal}");
        alice.say("after001", "still here").await;
        bob.hear("still here").await;
    }
    // One that is agreed on, and nobody comes.
    former.closed().await;
    let (_, update) = begin(&alice.bundle);
    let answer = alice.phone.reinvite(&protected_offer(&update)).await;
    assert_eq!(status(&answer), 200, "{answer}");
    counted(&node, "mrf_rekeyings_failed_total", 1).await;
    alice.say("after002", "with the old key").await;
    bob.hear("with the old key").await;
    alice.leave().await;
    bob.leave().await;
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
}

/// Has the node renew the key of a call; the status.
async fn rekey(node: &Node, room: &str, call: &str) -> u16 {
    let path = format!("/api/v1/rooms/{room}/members/{call}/rekey");
    request(node.addresses().http, "POST", &path).await.status
}

/// The number in `"call":N`, first behind `mark`.
fn call_behind<'a>(json: &'a str, mark: &str) -> &'a str {
    let behind = json.split_once(mark).expect("it is there").1;
    let number = behind.split("\"call\":").nth(1).expect("a call");
    number.split(|c: char| !c.is_ascii_digit()).next().expect("a number")
}

#[tokio::test]
async fn the_node_renews_the_key_of_whom_it_has_called() {
    let node = Node::start(keyed(TicketSource::Own)).await.expect("starts");
    let http = node.addresses().http;
    for setup in ["active", "early", "passive"] {
        let mut alice = Member::join(&node, "tea", None).await;
        let callee = Callee::new(node.addresses().sip_udp).await;
        let target = format!("{{\"uri\":\"{}\"}}", callee.uri());
        let calling = request_json(http, "/api/v1/rooms/tea/calls", &target).await.text();
        let call = call_behind(&calling, "{").to_owned();
        let invite = callee.receive("INVITE ").await;
        let kms = node.addresses().kms.expect("embedded");
        let (transfer_resp, keys) = respond(kms, &callee.uri(), body(&invite)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let listen = listener.local_addr().expect("bound");
        callee.respond(&invite, "200 OK", &keyed_answer("active", listen, &transfer_resp)).await;
        callee.receive("ACK ").await;
        let identity = keys.psk_identity.as_bytes();
        let mut former = Protected::connect(authority(body(&invite)), identity, &keys.psk).await;
        let own = format!("msrps://{listen}/calleeSession1;tcp");
        let room = line(body(&invite), "a=path:").to_owned();
        former.send(&message("bob00001", &room, &own, "text/plain", "one")).await;
        former.receive("MSRP bob00001 200").await;
        alice.hear("one").await;

        // Somebody in the clear has no key, and somebody else is not here.
        let rooms = request(http, "GET", "/api/v1/rooms/tea").await.text();
        let plain = call_behind(&rooms, "\"members\"");
        assert_eq!(rekey(&node, "tea", plain).await, 422, "{rooms}");
        assert_eq!(rekey(&node, "tea", "4711").await, 404);

        assert_eq!(rekey(&node, "tea", &call).await, 204);
        let reinvite = callee.receive("INVITE ").await;
        let offer = body(&reinvite);
        assert!(offer.contains("a=setup:actpass\r\n"), "{offer}");
        assert_eq!(line(offer, "a=path:"), room);
        assert_eq!(rekey(&node, "tea", &call).await, 409, "one is under way");
        let mut bundle = keys.bundle;
        let update = key_management(offer);
        let parameters = Parameters::default();
        let (key, response) =
            bundle.answer_update(&parameters, &update, "mikey", now()).expect("a sound update");
        let identity = key.psk_identity.as_bytes();
        let answer = keyed_answer(setup.replace("early", "active").as_str(), listen, &response);
        let answer = async {
            if setup == "early" {
                // The media is faster than the signalling.
                sleep(Duration::from_millis(50)).await;
            }
            callee.respond(&reinvite, "200 OK", &answer).await;
            let ack = callee.receive("ACK ").await;
            let number = line(&reinvite, "CSeq:").split(' ').next().expect("a number").to_owned();
            assert_eq!(line(&ack, "CSeq:"), format!("{number} ACK"));
        };
        let mut media = match setup {
            "passive" => {
                answer.await;
                let (media, named) =
                    Protected::accept(&listener, &key.psk).await.expect("the node connects");
                assert_eq!(named, identity);
                media
            }
            "early" => {
                let connect = Protected::connect(authority(offer), identity, &key.psk);
                tokio::join!(connect, answer).0
            }
            _ => {
                answer.await;
                Protected::connect(authority(offer), identity, &key.psk).await
            }
        };
        media.send(&message("bob00002", &room, &own, "text/plain", "two")).await;
        media.receive("MSRP bob00002 200").await;
        alice.hear("two").await;
        say(&mut alice, "alice001", "three").await;
        hear(&mut media, "three").await;
        former.closed().await;
        say(&mut alice, "alice002", "four").await;
        hear(&mut media, "four").await;
        counted(&node, "mrf_connections", 2).await;

        // Whoever is out of luck gets no new key, and keeps the one it has.
        assert_eq!(rekey(&node, "tea", &call).await, 204);
        let reinvite = callee.receive("INVITE ").await;
        callee.respond(&reinvite, "488 Not Acceptable Here", "").await;
        callee.receive("ACK ").await;
        say(&mut alice, "alice003", "five").await;
        hear(&mut media, "five").await;

        let kick = format!("/api/v1/rooms/tea/members/{call}/kick");
        assert_eq!(request(http, "POST", &kick).await.status, 204);
        let bye = callee.receive("BYE ").await;
        callee.respond(&bye, "200 OK", "").await;
        alice.leave().await;
        assert_becomes_empty(http).await;
    }
    assert_eq!(metric(http, "mrf_rekeyings_completed_total").await, 3);
    assert_eq!(metric(http, "mrf_rekeyings_refused_total").await, 3);
    stop(node).await;
}

/// Everything up to the last of the messages, each heard once and in order.
async fn hears_all(member: &mut Member, prefix: &str, count: usize) {
    let last = format!("{prefix} {:04}.", count - 1);
    let mut heard = Vec::new();
    let all = async {
        while !String::from_utf8_lossy(&heard).contains(&last) {
            assert_ne!(member.media.read_buf(&mut heard).await.expect("received"), 0);
        }
    };
    tokio::time::timeout(node_ue::PATIENCE, all).await.expect("the last in time");
    let text = String::from_utf8_lossy(&heard).into_owned();
    let numbers: Vec<usize> = text
        .split(&format!("{prefix} "))
        .skip(1)
        .map(|rest| rest.split('.').next().expect("a number").parse().expect("a number"))
        .collect();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

#[tokio::test]
async fn two_nodes_renew_the_key_between_them_and_every_message_comes_once() {
    let mut settings = keyed(TicketSource::Own);
    settings.timers.rekeying_seconds = 1;
    let caller = Node::start(settings).await.expect("starts");
    let called = Node::start(config()).await.expect("starts");
    let tea = format!("sip:tea@{}", caller.addresses().sip_udp);
    let lobby = format!("sip:lobby@{}", called.addresses().sip_udp);
    let mut alice = Member::join(&caller, "tea", Some(&tea)).await;
    let mut bob = Member::join(&called, "lobby", Some(&lobby)).await;
    let target = format!("{{\"uri\":\"{lobby}\"}}");
    let calling = request_json(caller.addresses().http, "/api/v1/rooms/tea/calls", &target).await;
    assert_eq!(calling.status, 202, "{}", calling.text());
    counted(&caller, "mrf_handshakes_completed_total", 1).await;
    counted(&called, "mrf_connections", 2).await;

    let cpim = |from: &str, to: &str, text: &str| {
        format!("From: <{from}>\r\nTo: <{to}>\r\n\r\nContent-Type: text/plain\r\n\r\n{text}")
    };
    let own = "msrp://127.0.0.1:9/phoneSession1;tcp";
    let mut count = 0;
    let (alice_path, bob_path) = (alice.path.clone(), bob.path.clone());
    let talk = async {
        // Over two moves, and a little longer.
        while metric(caller.addresses().http, "mrf_rekeyings_completed_total").await < 2
            || count % 50 != 0
        {
            let said = cpim(&tea, &lobby, &format!("alice {count:04}."));
            let said = message(&format!("al{count:06}"), &alice_path, own, "message/cpim", &said);
            alice.media.write_all(said.as_bytes()).await.expect("sent");
            let said = cpim(&lobby, &tea, &format!("bob {count:04}."));
            let said = message(&format!("bo{count:06}"), &bob_path, own, "message/cpim", &said);
            bob.media.write_all(said.as_bytes()).await.expect("sent");
            count += 1;
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(node_ue::PATIENCE, talk).await.expect("two keys in time");
    hears_all(&mut bob, "alice", count).await;
    hears_all(&mut alice, "bob", count).await;
    assert!(metric(called.addresses().http, "mrf_rekeyings_taken_total").await >= 2);
    for node in [&caller, &called] {
        assert_eq!(metric(node.addresses().http, "mrf_rekeyings_failed_total").await, 0);
        assert_eq!(metric(node.addresses().http, "mrf_transactions_timeout_total").await, 0);
    }
    alice.leave().await;
    bob.leave().await;
    assert_eq!(caller.stop().await, control_api::node::Stopped::Drained);
    assert_becomes_empty(called.addresses().http).await;
    stop(called).await;
}
