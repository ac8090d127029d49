//! Sessions created again after their connection was lost, through a whole node over real sockets
//! (RFC 4975 section 5.4).

mod node_ue;
mod support;

use control_api::node::Node;
use node_ue::{
    PATIENCE, Phone, assert_becomes_empty, authority, config, line, plain_offer, status, stop,
};
use support::http::request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// The media of a member.
struct Media {
    stream: TcpStream,
    text: String,
    own: String,
    peer: String,
}

impl Media {
    /// Connects to what the answer says and is bound.
    async fn connect(answer: &str, session: &str) -> Self {
        let stream = TcpStream::connect(authority(answer)).await.expect("connects");
        let own = format!("msrp://127.0.0.1:9/{session};tcp");
        let peer = line(answer, "a=path:").to_owned();
        let mut media = Self { stream, text: String::new(), own, peer };
        media.send("bind0001", "bind", "").await;
        media
    }

    /// Sends a message and waits for its 200.
    async fn send(&mut self, transaction: &str, message: &str, text: &str) {
        let body = match text.len() {
            0 => "Byte-Range: 1-0/0\r\n".to_owned(),
            length => {
                format!(
                    "Byte-Range: 1-{length}/{length}\r\nContent-Type: text/plain\r\n\r\n{text}\r\n"
                )
            }
        };
        let send = format!(
            "MSRP {transaction} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {message}\r\n\
             {body}-------{transaction}$\r\n",
            self.peer, self.own
        );
        self.stream.write_all(send.as_bytes()).await.expect("sent");
        self.receive(&format!("MSRP {transaction} 200")).await;
    }

    /// Reads until there is `wanted`, and takes everything up to it.
    async fn receive(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = self.text.find(wanted) {
                let rest = self.text.split_off(at + wanted.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let mut buffer = [0; 4096];
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            let length = read.expect("in time").expect("received");
            assert_ne!(length, 0, "{wanted:?}: {}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
}

fn offer(session: &str) -> String {
    let offer = String::from_utf8(plain_offer()).expect("text");
    offer.replace("phoneSession1", session).replace("message/cpim", "text/plain")
}

#[tokio::test]
async fn a_member_that_lost_its_connection_comes_back_and_sends_again() {
    let mut config = config();
    config.timers.recovery_seconds = 60;
    let node = Node::start(config).await.expect("starts");
    let http = node.addresses().http;
    let mut alice = Phone::new(node.addresses().sip_udp).await;
    let mut bob = Phone::new(node.addresses().sip_udp).await;
    bob.from = "sip:bob@example.com".to_owned();
    let first = alice.invite(offer("alice1").as_bytes()).await;
    let mut media = Media::connect(&first, "alice1").await;
    let answer = bob.invite(offer("bob1").as_bytes()).await;
    let mut other = Media::connect(&answer, "bob1").await;
    media.send("tran0001", "message1", "before").await;
    let heard = other.receive("before").await;
    let message_id = line(&heard, "Message-ID: ").to_owned();

    drop(media);
    let deadline = Instant::now() + PATIENCE;
    while !request(http, "GET", "/api/v1/contexts").await.text().contains("\"recovering\"") {
        assert!(Instant::now() < deadline, "the loss is not seen");
        sleep(std::time::Duration::from_millis(10)).await;
    }
    let second = alice.ask("INVITE", offer("alice2").as_bytes()).await;
    assert_eq!(status(&second), 200, "{second}");
    alice.send("ACK", b"").await;
    assert_ne!(line(&second, "a=path:"), line(&first, "a=path:"));
    let mut media = Media::connect(&second, "alice2").await;
    media.send("tran0002", "message1", "before").await;
    let again = other.receive("before").await;
    assert_eq!(line(&again, "Message-ID: "), message_id, "a duplicate can be told");
    other.send("tran0003", "message2", "welcome").await;
    media.receive("welcome").await;

    // It moves while the connection stands: the old one ends, the new one works.
    let third = alice.ask("INVITE", offer("alice3").as_bytes()).await;
    assert_eq!(status(&third), 200, "{third}");
    alice.send("ACK", b"").await;
    assert_ne!(line(&third, "a=path:"), line(&second, "a=path:"));
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, media.stream.read_to_end(&mut rest)).await;
    let _ = end.expect("the old connection ends");
    let mut media = Media::connect(&third, "alice3").await;
    other.send("tran0004", "message3", "still there").await;
    media.receive("still there").await;
    media.send("tran0005", "message4", "as ever").await;
    other.receive("as ever").await;

    for phone in [&mut alice, &mut bob] {
        assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    }
    assert_becomes_empty(http).await;
    stop(node).await;
}
