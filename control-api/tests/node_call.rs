//! A whole node in this process: one call over SIP and MSRP, seen from every side.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use control_api::config::Config;
use control_api::node::{Node, Stopped};
use support::http::request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

fn config() -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.sip.udp = any;
    config.sip.tcp = any;
    config.http.listen = any;
    config.kms.listen = any;
    config.media.port = 0;
    config.media.shards = control_api::config::Shards::Count(2);
    config.media.pin = false;
    config
}

/// A phone with one call: just enough SIP for the happy path.
struct Phone {
    socket: UdpSocket,
    node: SocketAddr,
    local: SocketAddr,
}

impl Phone {
    async fn new(node: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let local = socket.local_addr().expect("bound");
        Self { socket, node, local }
    }

    async fn send(&self, method: &str, sequence: u32, to_tag: &str, body: &str) {
        let local = self.local;
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let message = format!(
            "{method} sip:lobby@{node} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{method}\
             \r\nMax-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=a1\r\n\
             To: <sip:lobby@{node}>{to_tag}\r\nCall-ID: call-{port}\r\n\
             CSeq: {sequence} {method}\r\nContact: <sip:alice@{local}>\r\n{content_type}\
             Content-Length: {length}\r\n\r\n{body}",
            node = self.node,
            port = local.port(),
            length = body.len(),
        );
        self.socket.send_to(message.as_bytes(), self.node).await.expect("sent");
    }

    /// The next message that begins with `start`; others (100 Trying) are passed over.
    async fn receive(&self, start: &str) -> String {
        let mut buffer = vec![0; 65_536];
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let received = tokio::time::timeout_at(deadline, self.socket.recv(&mut buffer));
            let length = received.await.expect("an answer in time").expect("received");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with(start) {
                return text;
            }
        }
    }
}

/// The value behind `prefix` on a line of its own.
fn line<'a>(text: &'a str, prefix: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(prefix)).expect("the line is there").trim()
}

async fn connect(path: &str, own: &str) -> TcpStream {
    let authority = path.split('/').nth(2).expect("an authority");
    let mut stream = TcpStream::connect(authority).await.expect("connects");
    let bind = format!(
        "MSRP abcd1234 SEND\r\nTo-Path: {path}\r\nFrom-Path: {own}\r\n\
                        Message-ID: message1\r\nByte-Range: 1-0/0\r\n-------abcd1234$\r\n"
    );
    stream.write_all(bind.as_bytes()).await.expect("sent");
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.expect("answered");
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("MSRP abcd1234 200"), "{answer}");
    stream
}

#[tokio::test]
async fn a_call_is_answered_shown_and_hung_up_when_the_node_stops() {
    let node = Node::start(config()).await.expect("starts");
    let addresses = node.addresses().clone();
    assert_eq!(addresses.media.len(), 2);
    let phone = Phone::new(addresses.sip_udp).await;
    let own = "msrp://127.0.0.1:9/aliceSession1;tcp";
    let offer = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=message 9 TCP/MSRP *\r\na=accept-types:*\r\na=setup:active\r\na=path:{own}\r\n"
    );
    phone.send("INVITE", 1, "", &offer).await;
    let answer = phone.receive("SIP/2.0 200").await;
    let to_tag = line(&answer, "To: ").split_once(';').expect("a tag").1.to_owned();
    phone.send("ACK", 1, &format!(";{to_tag}"), "").await;

    let stream = connect(line(&answer, "a=path:"), own).await;
    assert_eq!(request(addresses.http, "GET", "/readyz").await.status, 200);
    let shown = request(addresses.http, "GET", "/api/v1/contexts").await.text();
    assert!(shown.contains("\"room\":\"lobby\""), "{shown}");
    assert!(shown.contains("\"uri\":\"sip:alice@example.com\""), "{shown}");
    let metrics = request(addresses.http, "GET", "/metrics").await.text();
    assert!(metrics.contains("\nmrf_calls_accepted_total 1\n"), "{metrics}");
    assert!(metrics.contains("\nmrf_sip_invites_total 1\n"), "{metrics}");

    let stopping = tokio::spawn(node.stop());
    let bye = phone.receive("BYE ").await;
    let headers: Vec<_> = bye
        .lines()
        .filter(|line| {
            ["Via", "From", "To", "Call-ID", "CSeq"]
                .iter()
                .any(|name| line.starts_with(&format!("{name}:")))
        })
        .collect();
    let ok = format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", headers.join("\r\n"));
    phone.socket.send_to(ok.as_bytes(), phone.node).await.expect("sent");
    drop(stream);
    assert_eq!(stopping.await.expect("stops"), Stopped::Drained);
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let mut config = config();
    config.sip.tcp = taken.local_addr().expect("bound");
    let error = Node::start(config.clone()).await.expect_err("the port is in use");
    assert!(error.to_string().contains("sip.tcp"), "{error}");
    drop(taken);
    let node = Node::start(config).await.expect("starts now");
    assert_eq!(node.stop().await, Stopped::Drained);
}

/// Far beyond what a loaded machine needs; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
