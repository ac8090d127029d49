//! Floors that mean something, over real sockets: one call with messages and BFCP, each under its own
//! key, and messages that pass for whoever holds the floor (TS 23.333 clause 5.20.4, RFC 8856).

mod node_ue;
mod support;

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_api::config::Config;
use control_api::mikey::{Established, Initiator};
use control_api::mrfc::TicketSource;
use control_api::node::Node;
use mrfp_protocol::bfcp::RequestStatus;
use mrfp_protocol::tls::Psk;
use node_ue::callee::{Callee, body, keyed_answer, respond};
use node_ue::floors::{Floors, Wire};
use node_ue::member::{Member, cpim, keyed, message};
use node_ue::{
    Phone, Protected, TICKET_KEY, assert_becomes_empty, authority, binding_send, config, dial,
    line, now, plain_offer, protected_offer, status, stop, transfer_init,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// The floor for the messages.
const FLOOR: u16 = 1;

const ALICE: &str = "sip:alice@example.com";

/// A node whose rooms are moderated.
fn moderated(mut config: Config) -> Config {
    config.rooms.floors = vec!["messages".to_owned()];
    config
}

/// An m-line of BFCP of a client that listens at `port`, or connects.
fn floor_line(protocol: &str, setup: &str, port: u16, key: &[u8]) -> String {
    let key_management = match key {
        [] => String::new(),
        key => format!("a=key-mgmt:mikey {}\r\n", STANDARD.encode(key)),
    };
    format!(
        "m=application {port} {protocol} *\r\na=setup:{setup}\r\na=connection:new\r\n\
         a=floorctrl:c-only\r\na=bfcpver:1\r\n{key_management}"
    )
}

/// What a description says of messages, and of floors.
fn parts(sdp: &str) -> (&str, &str) {
    sdp.split_at(sdp.find("m=application").expect("an m-line of BFCP"))
}

/// Where a floor control client connects to.
fn floor_address(sdp: &str) -> SocketAddr {
    let port = line(parts(sdp).1, "m=application ").split(' ').next().expect("a port");
    let host = line(sdp, "c=IN IP4 ");
    SocketAddr::new(host.parse().expect("an address"), port.parse().expect("a port"))
}

/// A member with two streams under two keys.
struct Speaker {
    phone: Phone,
    listener: TcpListener,
    answer: String,
    messages: Established,
    floors: Established,
    identities: [Vec<u8>; 2],
}

impl Speaker {
    /// Calls the lobby; for its floor stream it connects, or is connected to.
    async fn call(node: &Node, setup: &str) -> Self {
        let mut phone = Phone::new(node.addresses().sip_udp).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let (first, init) = transfer_init(&phone.from, &phone.to, TICKET_KEY);
        let (second, floor_init) = transfer_init(&phone.from, &phone.to, TICKET_KEY);
        let mut offer = protected_offer(&init);
        offer.extend(floor_line("TCP/TLS/BFCP", setup, port, &floor_init).into_bytes());
        let answer = phone.invite(&offer).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let (message_part, floor_part) = parts(&answer);
        assert_eq!(line(message_part, "a=label:"), "10");
        assert_eq!(line(floor_part, "a=floorid:"), "1 mstrm:10");
        assert_eq!(line(floor_part, "a=floorctrl:"), "s-only");
        let identities = [&first, &second].map(|it| it.psk_identity().into_bytes());
        let finish = |initiator: Initiator, part: &str| {
            let response = STANDARD.decode(line(part, "a=key-mgmt:mikey ")).expect("base64");
            initiator.finish(&response, now()).expect("it is for us")
        };
        let messages = finish(first, message_part);
        let floors = finish(second, floor_part);
        Self { messages, floors, phone, listener, identities, answer }
    }

    /// The connection for messages.
    async fn talk(&self, psk: &Psk) -> Option<Protected> {
        Protected::try_connect(authority(&self.answer), &self.identities[0], psk).await
    }

    /// The connection for floors: TLS client on it is the offerer, whoever connects (RFC 8856
    /// section 8).
    async fn ask(&self, setup: &str, psk: &Psk) -> Option<Protected> {
        let stream = match setup {
            "passive" => self.listener.accept().await.expect("the node connects").0,
            _ => TcpStream::connect(floor_address(&self.answer)).await.expect("connects"),
        };
        Protected::client_on(stream, &self.identities[1], psk).await
    }
}

/// Says something to a room over a protected session; the status of the answer.
async fn say(media: &mut Protected, path: &str, own: &str, said: &Said<'_>) -> String {
    let text = cpim(said.from, said.room, said.text);
    media.send(&message(said.id, path, own, "message/cpim", &text)).await;
    let start = format!("MSRP {} ", said.id);
    let heard = media.receive(&start).await;
    let (_, rest) = heard.rsplit_once(&start).expect("just seen");
    rest[..3].to_owned()
}

struct Said<'a> {
    id: &'a str,
    from: &'a str,
    room: &'a str,
    text: &'a str,
}

#[tokio::test]
async fn one_call_over_two_keys_and_messages_pass_for_the_holder_only() {
    for setup in ["active", "passive"] {
        let node = Node::start(moderated(config())).await.expect("starts");
        let mut bob = Member::join(&node, "lobby", Some("sip:bob@example.com")).await;
        let alice = Speaker::call(&node, setup).await;
        let mut media = alice.talk(&alice.messages.psk).await.expect("the handshake succeeds");
        media.send(&binding_send(&alice.answer)).await;
        media.receive("200 OK").await;
        let wire = alice.ask(setup, &alice.floors.psk).await.expect("the handshake succeeds");
        let mut floors = Floors::new(Wire::Protected(wire), &alice.answer);
        floors.hello().await;

        let path = line(&alice.answer, "a=path:").to_owned();
        let own = "msrps://127.0.0.1:9/phoneSession1;tcp";
        let room = alice.phone.to.clone();
        let said = |id, text| Said { id, from: ALICE, room: &room, text };
        assert_eq!(say(&mut media, &path, own, &said("before01", "too early")).await, "403");
        let granted = floors.request(FLOOR).await;
        assert_eq!(granted.status, RequestStatus::Granted);
        assert_eq!(say(&mut media, &path, own, &said("holding1", "my turn")).await, "200");
        let released = floors.release(granted.request_id).await;
        assert_eq!(released.status, RequestStatus::Released);
        assert_eq!(say(&mut media, &path, own, &said("after001", "too late")).await, "403");
        let again = floors.request(FLOOR).await;
        assert_eq!(again.status, RequestStatus::Granted);
        assert_eq!(say(&mut media, &path, own, &said("holding2", "the end")).await, "200");
        let heard = bob.hear("the end").await;
        assert!(heard.contains("my turn") && !heard.contains("too "), "{heard}");
        // Whoever has no floor stream holds no floor.
        bob.say("message/cpim", &cpim("sip:bob@example.com", &room, "hello")).await;
        bob.hear(" 403 ").await;

        let mut phone = alice.phone;
        assert_eq!(status(&phone.ask("BYE", b"").await), 200);
        bob.leave().await;
        assert_becomes_empty(node.addresses().http).await;
        stop(node).await;
    }
}

#[tokio::test]
async fn the_key_of_the_one_stream_opens_the_other_for_nobody() {
    let node = Node::start(moderated(config())).await.expect("starts");
    let alice = Speaker::call(&node, "active").await;
    let (messages, floors) = (&alice.messages.psk, &alice.floors.psk);
    assert!(alice.talk(floors).await.is_none());
    assert!(alice.ask("active", messages).await.is_none());
    // The right ones do.
    let opened = [alice.ask("active", floors).await, alice.talk(messages).await];
    assert!(opened.iter().all(Option::is_some));
    let mut phone = alice.phone;
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    drop(opened);
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
}

#[tokio::test]
async fn whoever_is_called_gets_floors_under_a_key_of_their_own_and_is_the_tls_server() {
    for setup in ["active", "passive"] {
        let node = Node::start(moderated(keyed(TicketSource::Kms))).await.expect("starts");
        let (udp, http) = (node.addresses().sip_udp, node.addresses().http);
        let kms = node.addresses().kms.expect("embedded");
        let mut alice = Member::join(&node, "tea", None).await;
        let bob = Callee::new(udp).await;
        dial(http, &bob.uri()).await;
        let invite = bob.receive("INVITE ").await;
        let offer = body(&invite);
        let (message_part, floor_part) = parts(offer);
        let (message_resp, messages) = respond(kms, &bob.uri(), message_part).await;
        let (floor_resp, keys) = respond(kms, &bob.uri(), floor_part).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let listen = listener.local_addr().expect("bound");
        let line_of_floors = floor_line("TCP/TLS/BFCP", setup, listen.port(), &floor_resp);
        let answer = keyed_answer("active", listen, &message_resp) + &line_of_floors;
        bob.respond(&invite, "200 OK", &answer).await;
        bob.receive("ACK ").await;
        let identity = messages.psk_identity.as_bytes();
        let mut media = Protected::connect(authority(offer), identity, &messages.psk).await;
        let path = line(offer, "a=path:");
        let own = format!("msrps://{listen}/calleeSession1;tcp");
        media.send(&message("bind0001", path, &own, "text/plain", "")).await;
        media.receive("MSRP bind0001 ").await;

        let stream = match setup {
            "passive" => listener.accept().await.expect("the node connects").0,
            _ => TcpStream::connect(floor_address(offer)).await.expect("connects"),
        };
        let (wire, named) = Protected::server_on(stream, &keys.psk).await.expect("a handshake");
        assert_eq!(named, keys.psk_identity.as_bytes());
        let mut floors = Floors::new(Wire::Protected(wire), floor_part);
        assert_eq!(floors.request(FLOOR).await.status, RequestStatus::Granted);
        let room = format!("sip:tea@{udp}");
        let uri = bob.uri();
        let said = Said { id: "holding1", from: &uri, room: &room, text: "my turn" };
        assert_eq!(say(&mut media, path, &own, &said).await, "200");
        alice.hear("my turn").await;
        alice.leave().await;
        stop(node).await;
    }
}

#[tokio::test]
async fn a_floor_that_is_asked_for_in_datagrams_means_as_much() {
    let node = Node::start(moderated(config())).await.expect("starts");
    let mut bob = Member::join(&node, "lobby", Some("sip:bob@example.com")).await;
    let mut phone = Phone::new(node.addresses().sip_udp).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let port = socket.local_addr().expect("bound").port();
    let line_of_floors =
        format!("m=application {port} UDP/BFCP *\r\na=floorctrl:c-only\r\na=bfcpver:2\r\n");
    let offer = [plain_offer(), line_of_floors.into_bytes()].concat();
    let answer = phone.invite(&offer).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(line(parts(&answer).1, "a=bfcpver:"), "2");
    let mut media = TcpStream::connect(authority(&answer)).await.expect("connects");
    media.write_all(binding_send(&answer).as_bytes()).await.expect("sent");
    socket.connect(floor_address(&answer)).await.expect("an address");
    let mut floors = Floors::new(Wire::Datagrams(socket), &answer);
    floors.hello().await;
    assert_eq!(floors.request(FLOOR).await.status, RequestStatus::Granted);
    let text = cpim(ALICE, &phone.to, "my turn");
    let own = "msrp://127.0.0.1:9/phoneSession1;tcp";
    let said = message("holding1", line(&answer, "a=path:"), own, "message/cpim", &text);
    media.write_all(said.as_bytes()).await.expect("sent");
    bob.hear("my turn").await;
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    bob.leave().await;
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
}

#[tokio::test]
async fn a_floor_outlives_its_connection_until_the_client_is_back() {
    let node = Node::start(moderated(config())).await.expect("starts");
    let mut bob = Member::join(&node, "lobby", Some("sip:bob@example.com")).await;
    let mut phone = Phone::new(node.addresses().sip_udp).await;
    let offer = [plain_offer(), floor_line("TCP/BFCP", "active", 9, &[]).into_bytes()].concat();
    let answer = phone.invite(&offer).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let mut media = TcpStream::connect(authority(&answer)).await.expect("connects");
    media.write_all(binding_send(&answer).as_bytes()).await.expect("sent");
    let stream = TcpStream::connect(floor_address(&answer)).await.expect("connects");
    let mut floors = Floors::new(Wire::Plain(stream), &answer);
    let granted = floors.request(FLOOR).await;
    assert_eq!(granted.status, RequestStatus::Granted);
    drop(floors);

    // RFC 8856 section 7.1: the client makes a new offer.
    let offer = String::from_utf8(offer).expect("text").replace("o=- 1 1 ", "o=- 1 2 ");
    let answer = phone.reinvite(offer.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(line(parts(&answer).1, "a=connection:"), "new");
    let stream = TcpStream::connect(floor_address(&answer)).await.expect("connects");
    let mut floors = Floors::new(Wire::Plain(stream), &answer);
    floors.send(mrfp_protocol::bfcp::Primitive::Hello, &[]).await;
    // What it had is told anew.
    assert_eq!(floors.told().await, granted);
    let text = cpim(ALICE, &phone.to, "still mine");
    let path = line(&answer, "a=path:");
    let own = "msrp://127.0.0.1:9/phoneSession1;tcp";
    let said = message("holding1", path, own, "message/cpim", &text);
    media.write_all(said.as_bytes()).await.expect("sent");
    bob.hear("still mine").await;

    // A line with port 0 ends the stream, and with it what its user held.
    let ending = offer.replace("application 9", "application 0").replace("- 1 2 ", "- 1 3 ");
    let answer = phone.reinvite(ending.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(parts(&answer).1.starts_with("m=application 0 TCP/BFCP *"), "{answer}");
    let said = message("after001", path, own, "message/cpim", &text);
    media.write_all(said.as_bytes()).await.expect("sent");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("MSRP after001 403") {
        assert_ne!(media.read_buf(&mut heard).await.expect("received"), 0, "it ended");
    }
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    bob.leave().await;
    assert_becomes_empty(node.addresses().http).await;
    stop(node).await;
}
