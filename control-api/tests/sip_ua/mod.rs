//! A tiny SIP user agent for the tests: sends what it is told, reads what comes.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use control_api::mrfc::{Action, Answer, CallId, Event};
use control_api::sip::{SipConfig, SipHandle, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far longer than anything takes: only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for a message on loopback that must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

pub(crate) const OFFER: &[u8] = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
pub(crate) const ANSWER: &[u8] = b"v=0\r\no=- 2 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";

pub(crate) fn config() -> SipConfig {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    SipConfig { udp: any, tcp: any, ..SipConfig::default() }
}

/// The node under test and the MRFC's side of it.
pub(crate) struct Node {
    pub(crate) sip: SipHandle,
    pub(crate) events: mpsc::Receiver<Event>,
}

impl Node {
    pub(crate) async fn start(config: SipConfig) -> Self {
        let (sender, events) = mpsc::channel(1024);
        let sip = start(config, sender).await.expect("loopback can be bound");
        Self { sip, events }
    }

    pub(crate) async fn event(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("an event comes").expect("node lives")
    }

    pub(crate) async fn invited(&mut self) -> (CallId, Option<Vec<u8>>) {
        match self.event().await {
            Event::Invite { call, offer, .. } => (call, offer),
            other => panic!("not an Invite: {other:?}"),
        }
    }

    pub(crate) async fn ended(&mut self) -> CallId {
        match self.event().await {
            Event::Ended { call } => call,
            other => panic!("not Ended: {other:?}"),
        }
    }

    pub(crate) fn accept(&self, call: CallId) {
        let answer = Answer::Accepted { sdp: ANSWER.to_vec() };
        self.sip.act(Action::Answer { call, answer });
    }

    pub(crate) fn assert_no_event(&mut self) {
        assert!(self.events.try_recv().is_err());
    }
}

/// A received message.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    fn new(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a header end") + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        Self { head, body: bytes[end..].to_vec() }
    }

    pub(crate) fn status(&self) -> u16 {
        let mut parts = self.head.split(' ');
        assert_eq!(parts.next(), Some("SIP/2.0"), "{}", self.head);
        parts.next().unwrap().parse().unwrap()
    }

    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn to_tag(&self) -> &str {
        self.header("To").unwrap().split_once(";tag=").expect("a To tag").1
    }

    /// The 200 to a request of the node.
    pub(crate) fn ok(&self) -> Vec<u8> {
        let mut reply = "SIP/2.0 200 OK\r\n".to_owned();
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            reply.push_str(&format!("{name}: {}\r\n", self.header(name).unwrap()));
        }
        reply.push_str("Content-Length: 0\r\n\r\n");
        reply.into_bytes()
    }
}

/// Either transport.
pub(crate) enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

impl Link {
    pub(crate) async fn udp(node: &Node) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(node.sip.udp_address()).await.unwrap();
        Self::Udp(socket)
    }

    pub(crate) async fn tcp(node: &Node) -> Self {
        Self::Tcp(TcpStream::connect(node.sip.tcp_address()).await.unwrap(), Vec::new())
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Udp(_) => "UDP",
            Self::Tcp(..) => "TCP",
        }
    }

    pub(crate) fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local_addr().unwrap(),
            Self::Tcp(stream, _) => stream.local_addr().unwrap(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => {
                socket.send(bytes).await.unwrap();
            }
            Self::Tcp(stream, _) => stream.write_all(bytes).await.unwrap(),
        }
    }

    /// Sends without giving anybody else a turn, on a link that is known to be ready.
    pub(crate) fn send_now(&self, bytes: &[u8]) {
        let sent = match self {
            Self::Udp(socket) => socket.try_send(bytes),
            Self::Tcp(stream, _) => stream.try_write(bytes),
        };
        assert_eq!(sent.expect("ready"), bytes.len());
    }

    /// The next message, `None` after `patience` or at the end of the stream.
    pub(crate) async fn receive_within(&mut self, patience: Duration) -> Option<Received> {
        match self {
            Self::Udp(socket) => {
                let mut buffer = vec![0; 65_536];
                let length = timeout(patience, socket.recv(&mut buffer)).await.ok()?.unwrap();
                Some(Received::new(&buffer[..length]))
            }
            Self::Tcp(stream, buffer) => timeout(patience, async {
                loop {
                    while buffer.starts_with(b"\r\n") {
                        buffer.drain(..2);
                    }
                    if let Some(length) = framed(buffer) {
                        let message = Received::new(&buffer[..length]);
                        buffer.drain(..length);
                        return Some(message);
                    }
                    if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                        return None;
                    }
                }
            })
            .await
            .ok()?,
        }
    }

    pub(crate) async fn receive(&mut self) -> Received {
        self.receive_within(PATIENCE).await.expect("a message comes")
    }

    /// The next final response, whatever its status.
    pub(crate) async fn receive_final(&mut self) -> Received {
        loop {
            let message = self.receive().await;
            if message.status() >= 200 {
                return message;
            }
        }
    }

    /// The next response with that status; others are skipped.
    pub(crate) async fn response(&mut self, status: u16) -> Received {
        loop {
            let message = self.receive().await;
            if message.head.starts_with("SIP/2.0") && message.status() == status {
                return message;
            }
        }
    }
}

fn framed(buffer: &[u8]) -> Option<usize> {
    let end = buffer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let length = end + length.trim().parse::<usize>().unwrap();
    (buffer.len() >= length).then_some(length)
}

/// One call of the test UA.
pub(crate) struct Caller {
    pub(crate) link: Link,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) to_tag: Option<String>,
    /// Further header lines of every request.
    pub(crate) extra: String,
}

impl Caller {
    pub(crate) fn new(link: Link, call_id: &str) -> Self {
        Self { link, call_id: call_id.to_owned(), cseq: 1, to_tag: None, extra: String::new() }
    }

    pub(crate) fn request(&self, method: &str, branch: &str, body: &[u8]) -> Vec<u8> {
        let to_tag = self.to_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let local = self.link.local();
        let transport = self.link.name();
        let head = format!(
            "{method} sip:room%201@node.example SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {local};branch=z9hG4bK{branch};rport\r\n\
             Max-Forwards: 70\r\n\
             From: \"Alice\" <sip:alice@example.com>;tag=a-tag\r\n\
             To: <sip:room%201@node.example>{to_tag}\r\n\
             Call-ID: {}\r\n\
             CSeq: {} {method}\r\n\
             Contact: <sip:alice@{local}>\r\n\
             {}{content_type}Content-Length: {}\r\n\r\n",
            self.call_id,
            self.cseq,
            self.extra,
            body.len(),
        );
        [head.as_bytes(), body].concat()
    }

    pub(crate) async fn send(&mut self, method: &str, branch: &str, body: &[u8]) {
        let request = self.request(method, branch, body);
        self.link.send(&request).await;
    }

    /// INVITE, 200, ACK.
    pub(crate) async fn establish(&mut self, node: &mut Node) -> CallId {
        self.send("INVITE", "invite", OFFER).await;
        let (call, offer) = node.invited().await;
        assert_eq!(offer.as_deref(), Some(OFFER));
        node.accept(call);
        let ok = self.link.response(200).await;
        self.to_tag = Some(ok.to_tag().to_owned());
        self.send("ACK", "ack", b"").await;
        call
    }

    /// BYE, 200.
    pub(crate) async fn hang_up(&mut self, node: &mut Node, call: CallId) {
        self.cseq += 1;
        self.send("BYE", &format!("bye{}", self.cseq), b"").await;
        self.link.response(200).await;
        assert_eq!(node.ended().await, call);
    }
}
