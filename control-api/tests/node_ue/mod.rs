//! A phone for tests of a whole node: SIP over UDP, MIKEY-TICKET, TLS-PSK, and no mercy.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod callee;
pub(crate) mod floors;
pub(crate) mod member;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_api::config::{Config, Shards};
use control_api::mikey::{Initiator, NtpTime, Parameters, TicketProtectionKey};
use control_api::node::{Node, Stopped};
use mrfp_protocol::tls::{
    Handshake, Opened, Profile, ProfileConfig, Progress, Psk, SEAL_HEADROOM_BYTES,
    SEAL_TAILROOM_BYTES, Session,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout_at};

use crate::support::http::{request, request_json};

/// Far beyond what a loaded machine needs; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The ticket protection key of the embedded defaults.
pub(crate) const TICKET_KEY: &[u8] = b"MRF tickets: dev";

/// A node on ports of the kernel's choice.
pub(crate) fn config() -> Config {
    config_on(Ipv4Addr::LOCALHOST.into())
}

pub(crate) fn config_on(address: IpAddr) -> Config {
    let any = SocketAddr::new(address, 0);
    let mut config = Config::default();
    config.sip.udp = any;
    config.sip.tcp = any;
    // What a test sees must not depend on how fast the machine is.
    config.sip.queue_delay_max_milliseconds = 0;
    config.http.listen = any;
    config.kms.listen = any;
    config.media.listen = address;
    config.media.port = 0;
    config.media.shards = Shards::Count(1);
    config.media.pin = false;
    config
}

/// An offer of plain MSRP.
pub(crate) fn plain_offer() -> Vec<u8> {
    offer("TCP/MSRP", "msrp", "")
}

/// An offer of protected MSRP with this MIKEY message.
pub(crate) fn protected_offer(transfer_init: &[u8]) -> Vec<u8> {
    let key_management = format!("a=key-mgmt:mikey {}\r\n", STANDARD.encode(transfer_init));
    offer("TCP/TLS/MSRP", "msrps", &key_management)
}

fn offer(protocol: &str, scheme: &str, extra: &str) -> Vec<u8> {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=message 9 {protocol} *\r\na=accept-types:message/cpim\r\n\
         a=accept-wrapped-types:*\r\na=setup:active\r\n\
         a=path:{scheme}://127.0.0.1:9/phoneSession1;tcp\r\n{extra}"
    )
    .into_bytes()
}

/// A phone with one call at a time.
pub(crate) struct Phone {
    pub(crate) socket: UdpSocket,
    pub(crate) node: SocketAddr,
    /// From URI.
    pub(crate) from: String,
    /// Request-URI.
    pub(crate) to: String,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    /// Parameters of To once there is a dialog.
    pub(crate) to_tag: String,
}

impl Phone {
    pub(crate) async fn new(node: SocketAddr) -> Self {
        let any = SocketAddr::new(node.ip(), 0);
        let socket = UdpSocket::bind(any).await.expect("binds");
        let call_id = format!("call-{}", socket.local_addr().expect("bound").port());
        Self {
            socket,
            node,
            from: "sip:alice@example.com".to_owned(),
            to: format!("sip:lobby@{node}"),
            call_id,
            cseq: 1,
            to_tag: String::new(),
        }
    }

    /// A request with an empty body, or one of SDP.
    pub(crate) fn message(&self, method: &str, body: &[u8]) -> Vec<u8> {
        let local = self.socket.local_addr().expect("bound");
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        // The ACK of a refusal and a CANCEL belong to the INVITE's transaction.
        let branch = if self.to_tag.is_empty() || method == "CANCEL" {
            format!("{}-{}", self.call_id, self.cseq)
        } else {
            format!("{}-{}-{method}", self.call_id, self.cseq)
        };
        let head = format!(
            "{method} {to} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{branch}\r\n\
             Max-Forwards: 70\r\nFrom: <{from}>;tag=a1\r\nTo: <{to}>{tag}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:phone@{local}>\r\n\
             {content_type}Content-Length: {length}\r\n\r\n",
            to = self.to,
            from = self.from,
            tag = self.to_tag,
            call_id = self.call_id,
            cseq = self.cseq,
            length = body.len(),
        );
        [head.as_bytes(), body].concat()
    }

    pub(crate) async fn send(&self, method: &str, body: &[u8]) {
        let message = self.message(method, body);
        self.socket.send_to(&message, self.node).await.expect("sent");
    }

    /// The next message that begins with `start`; others are passed over.
    pub(crate) async fn receive(&self, start: &str) -> String {
        let mut buffer = vec![0; 65_536];
        let deadline = Instant::now() + PATIENCE;
        loop {
            let received = timeout_at(deadline, self.socket.recv(&mut buffer)).await;
            let length =
                received.unwrap_or_else(|_| panic!("{start:?} in time")).expect("received");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with(start) {
                return text;
            }
        }
    }

    /// The final response to the request sent last; provisional ones are passed over.
    pub(crate) async fn answer(&self) -> String {
        loop {
            let response = self.receive("SIP/2.0 ").await;
            let own = response.contains(&format!("\r\nCSeq: {} ", self.cseq));
            if own && !response.starts_with("SIP/2.0 1") {
                return response;
            }
        }
    }

    /// INVITE and its final response, acknowledged whatever it is.
    pub(crate) async fn invite(&mut self, offer: &[u8]) -> String {
        self.send("INVITE", offer).await;
        let answer = self.answer().await;
        if status(&answer) == 200 {
            self.to_tag = to_tag(&answer);
            self.send("ACK", b"").await;
        } else {
            let tagless = std::mem::replace(&mut self.to_tag, to_tag(&answer));
            let ack = self.message("ACK", b"");
            self.to_tag = tagless;
            // Same branch as the INVITE (RFC 3261 section 17.1.1.3).
            let ack = String::from_utf8(ack).expect("text").replace("-ACK\r\n", "\r\n");
            self.socket.send_to(ack.as_bytes(), self.node).await.expect("sent");
        }
        answer
    }

    /// A new offer in the dialog and its final response.
    pub(crate) async fn reinvite(&mut self, offer: &[u8]) -> String {
        self.cseq += 1;
        self.invite(offer).await
    }

    /// A request in the dialog and its final response.
    pub(crate) async fn ask(&mut self, method: &str, body: &[u8]) -> String {
        self.cseq += 1;
        self.send(method, body).await;
        self.answer().await
    }

    /// 200 to a request of the node.
    pub(crate) async fn accept(&self, request: &str) {
        let names = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let headers: Vec<_> = request
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .collect();
        let ok = format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", headers.join("\r\n"));
        self.socket.send_to(ok.as_bytes(), self.node).await.expect("sent");
    }
}

pub(crate) fn status(response: &str) -> u16 {
    let code = response.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no response: {response}"))
}

/// The value behind `prefix` on a line of its own.
pub(crate) fn line<'a>(text: &'a str, prefix: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(prefix));
    value.unwrap_or_else(|| panic!("no {prefix:?} in {text}")).trim()
}

fn to_tag(response: &str) -> String {
    let to = line(response, "To: ");
    to.split_once(">;").map_or_else(String::new, |(_, tag)| format!(";{tag}"))
}

/// One metric of the node.
pub(crate) async fn metric(http: SocketAddr, name: &str) -> u64 {
    let metrics = request(http, "GET", "/metrics").await.text();
    let mut lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let value = lines.find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name || key.split('{').next() == Some(name)).then_some(value)
    });
    value.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().expect("a number")
}

/// Has a node call somebody into the room "tea".
pub(crate) async fn dial(http: SocketAddr, uri: &str) {
    let wish = format!("{{\"uri\":\"{uri}\"}}");
    let answer = request_json(http, "/api/v1/rooms/tea/calls", &wish).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// Waits until the node holds nothing of any call.
pub(crate) async fn assert_becomes_empty(http: SocketAddr) {
    const GAUGES: [&str; 5] =
        ["mrf_calls", "mrf_rooms", "mrf_sip_dialogs", "mrf_contexts", "mrf_terminations"];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut held = Vec::new();
        for gauge in GAUGES {
            held.push(metric(http, gauge).await);
        }
        if held.iter().all(|&held| held == 0) {
            return;
        }
        assert!(Instant::now() < deadline, "{GAUGES:?} are {held:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Stops a node that has nothing left to wait for.
pub(crate) async fn stop(node: Node) {
    assert_eq!(node.stop().await, Stopped::Drained);
}

/// TRANSFER_INIT with a ticket of the phone's own making.
pub(crate) fn transfer_init(from: &str, to: &str, key: &[u8]) -> (Initiator, Vec<u8>) {
    let key =
        TicketProtectionKey { identity: b"development-tpk".to_vec(), key: key.to_vec().into() };
    let mut random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("random bytes");
    let parameters = Parameters::default();
    Initiator::with_own_ticket(&parameters, from, to, "sip:kms@localhost", &key, now(), &mut random)
        .expect("a message")
}

pub(crate) fn now() -> NtpTime {
    NtpTime::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"))
}

/// The authority of the MSRP URI that the answer names.
pub(crate) fn authority(answer: &str) -> SocketAddr {
    let path = line(answer, "a=path:");
    path.split('/').nth(2).and_then(|text| text.parse().ok()).expect("an authority")
}

/// An MSRP connection under TLS-PSK.
pub(crate) struct Protected {
    stream: TcpStream,
    session: Session,
    input: Vec<u8>,
}

impl Protected {
    /// Connects and completes the handshake.
    pub(crate) async fn connect(address: SocketAddr, identity: &[u8], psk: &Psk) -> Self {
        Self::try_connect(address, identity, psk).await.expect("the handshake succeeds")
    }

    /// The same, where it may fail.
    pub(crate) async fn try_connect(
        address: SocketAddr,
        identity: &[u8],
        psk: &Psk,
    ) -> Option<Self> {
        let stream = TcpStream::connect(address).await.expect("connects");
        Self::client_on(stream, identity, psk).await
    }

    /// Is TLS client on a connection that is there, whoever has made it.
    pub(crate) async fn client_on(stream: TcpStream, identity: &[u8], psk: &Psk) -> Option<Self> {
        let profile = Profile::new(&ProfileConfig::default()).expect("a profile");
        let handshake = Handshake::client(&profile, identity, psk).expect("a handshake");
        Self::shake(stream, handshake, psk).await.map(|(session, _)| session)
    }

    /// The same as TLS server; with the identity that the node named.
    pub(crate) async fn server_on(stream: TcpStream, psk: &Psk) -> Option<(Self, Vec<u8>)> {
        let profile = Profile::new(&ProfileConfig::default()).expect("a profile");
        Self::shake(stream, Handshake::server(&profile).expect("a handshake"), psk).await
    }

    /// Takes the node's connection and is TLS server on it; the session, and the identity it named.
    pub(crate) async fn accept(listener: &TcpListener, psk: &Psk) -> Option<(Self, Vec<u8>)> {
        let (stream, _) = listener.accept().await.expect("accepted");
        Self::server_on(stream, psk).await
    }

    async fn shake(
        mut stream: TcpStream,
        mut handshake: Handshake,
        psk: &Psk,
    ) -> Option<(Self, Vec<u8>)> {
        let (mut input, mut output, mut identity) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let result = handshake.advance(&input, &mut output);
            stream.write_all(&output).await.ok()?;
            output.clear();
            let (consumed, progress) = result.ok()?;
            input.drain(..consumed);
            match progress {
                Progress::Done(session) => {
                    return Some((Self { stream, session, input }, identity));
                }
                Progress::NeedInput => {
                    if stream.read_buf(&mut input).await.ok()? == 0 {
                        return None;
                    }
                }
                Progress::NeedPsk => {
                    identity = handshake.identity().to_vec();
                    handshake.provide_psk(Some(psk));
                }
            }
        }
    }

    /// What protects it, by OpenSSL name.
    pub(crate) fn suite(&self) -> &'static str {
        self.session.suite()
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + bytes.len();
        let mut memory = vec![0; range.end + SEAL_TAILROOM_BYTES];
        memory[range.clone()].copy_from_slice(bytes);
        let record = self.session.seal(&mut memory, range).expect("sealed");
        self.stream.write_all(&memory[record]).await.expect("sent");
    }

    /// Reads until the node closes the connection.
    pub(crate) async fn closed(mut self) {
        let end = async {
            while self.stream.read_buf(&mut self.input).await.is_ok_and(|bytes| bytes > 0) {}
        };
        timeout_at(Instant::now() + PATIENCE, end).await.expect("closed in time");
    }

    /// Reads what comes next, and adds it to `bytes`.
    pub(crate) async fn receive_bytes(&mut self, bytes: &mut Vec<u8>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Opened::Data { plaintext, consumed } =
                self.session.open(&mut self.input).expect("a record")
            {
                bytes.extend_from_slice(&self.input[plaintext]);
                self.input.drain(..consumed);
                return;
            }
            let read = timeout_at(deadline, self.stream.read_buf(&mut self.input)).await;
            assert_ne!(read.expect("data in time").expect("received"), 0, "the connection ended");
        }
    }

    /// Reads until the text received contains `wanted`.
    pub(crate) async fn receive(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut text = String::new();
        loop {
            while let Opened::Data { plaintext, consumed } =
                self.session.open(&mut self.input).expect("a record")
            {
                text.push_str(&String::from_utf8_lossy(&self.input[plaintext]));
                self.input.drain(..consumed);
            }
            if text.contains(wanted) {
                return text;
            }
            let read = timeout_at(deadline, self.stream.read_buf(&mut self.input)).await;
            assert_ne!(read.expect("data in time").expect("received"), 0, "{wanted:?}: {text}");
        }
    }
}

/// The first request on an MSRP connection (RFC 4975 section 5.4).
pub(crate) fn binding_send(answer: &str) -> String {
    let path = line(answer, "a=path:");
    let scheme = path.split(':').next().expect("a scheme");
    format!(
        "MSRP abcd1234 SEND\r\nTo-Path: {path}\r\n\
         From-Path: {scheme}://127.0.0.1:9/phoneSession1;tcp\r\n\
         Message-ID: message1\r\nByte-Range: 1-0/0\r\n-------abcd1234$\r\n"
    )
}
