//! User agents on both sides of a border: SIP over UDP, as little as a call takes.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use control_api::border::SideRole;
use control_api::border::b2bua::Addresses;
use control_api::config::{Config, Shards};
use control_api::node::Node;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Far beyond what a loaded machine needs; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An IMS-ALG on ports of the kernel's choice, whose core is that next hop.
pub(crate) fn ims_alg(core: SocketAddr) -> Config {
    ims_alg_to(&format!("\"sip:{core}\""))
}

/// The same with a next hop over TCP.
pub(crate) fn ims_alg_over_tcp(core: SocketAddr) -> Config {
    ims_alg_to(&format!("\"sip:{core};transport=tcp\""))
}

fn ims_alg_to(core: &str) -> Config {
    border("ims-alg", ["access", "core"], ["", core], "nat = \"latch\"\n")
}

/// An IBCF between two next hops over TCP.
pub(crate) fn ibcf(own: SocketAddr, foreign: SocketAddr) -> Config {
    let next_hops = [own, foreign].map(|address| format!("\"sip:{address};transport=tcp\""));
    border("ibcf", ["own", "foreign"], [&next_hops[0], &next_hops[1]], "")
}

fn border(role: &str, sides: [&str; 2], next_hops: [&str; 2], of_first: &str) -> Config {
    let side = |index: usize| {
        let (name, next_hops) = (sides[index], next_hops[index]);
        format!(
            "[border.{name}]\nudp = \"127.0.0.1:0\"\ntcp = \"127.0.0.1:0\"\nmedia = \"127.0.0.1\"\n\
             next_hops = [{next_hops}]\nprobe_seconds = 3600\n"
        )
    };
    let text = format!(
        "[border]\nrole = \"{role}\"\ncertificates_ready = 8\n{}{of_first}{}",
        side(0),
        side(1)
    );
    let mut config = Config::parse("test", &text).expect("valid");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.sip.udp = any;
    config.sip.tcp = any;
    // What a test sees must not depend on how fast the machine is.
    config.sip.queue_delay_max_milliseconds = 0;
    config.http.listen = any;
    config.kms.listen = any;
    config.media.port = 0;
    config.media.shards = Shards::Count(1);
    config.media.pin = false;
    config
}

/// Where a side takes SIP over UDP.
pub(crate) fn side(node: &Node, role: SideRole) -> SocketAddr {
    addresses(node, role).udp
}

/// The same over TCP.
pub(crate) fn side_over_tcp(node: &Node, role: SideRole) -> SocketAddr {
    addresses(node, role).tcp
}

fn addresses(node: &Node, role: SideRole) -> Addresses {
    let sides = &node.addresses().border;
    sides.iter().find(|(side, _)| *side == role).expect("a side of this node").1
}

/// A party with one call.
pub(crate) struct Party {
    socket: UdpSocket,
    /// Its URI.
    pub(crate) uri: String,
    /// Where what it sends goes: to the node.
    pub(crate) node: SocketAddr,
    /// Its header in requests of the call: From or To, with its tag.
    own: String,
    /// The other party's.
    other: String,
    /// Where requests within the call are addressed to.
    target: String,
    call_id: String,
    cseq: u32,
}

impl Party {
    pub(crate) async fn new(name: &str) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let local = socket.local_addr().expect("bound");
        let uri = format!("sip:{name}@example.com");
        Self {
            socket,
            own: format!("<{uri}>;tag={name}"),
            uri,
            node: local,
            other: String::new(),
            target: String::new(),
            call_id: format!("{name}-{}", local.port()),
            cseq: 0,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    async fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.node).await.expect("sent");
    }

    /// A request of its own.
    pub(crate) async fn request(&mut self, method: &str, headers: &str, body: &str) {
        if method != "ACK" {
            self.cseq += 1;
        }
        let (local, cseq, own) = (self.address(), self.cseq, &self.own);
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{method}{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: {own}\r\nTo: {other}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:{local}>\r\n{headers}{content_type}\
             Content-Length: {length}\r\n\r\n{body}",
            target = self.target,
            other = self.other,
            call_id = self.call_id,
            length = body.len(),
        );
        self.send(&text).await;
    }

    /// The next message that begins so; others are passed over.
    pub(crate) async fn receive(&mut self, start: &str) -> String {
        let mut buffer = vec![0; 65_536];
        let next = async {
            loop {
                let (length, from) = self.socket.recv_from(&mut buffer).await.expect("received");
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.starts_with(start) {
                    return (text, from);
                }
                let refused = ["SIP/2.0 4", "SIP/2.0 5", "SIP/2.0 6"];
                assert!(!refused.iter().any(|refused| text.starts_with(refused)), "{text}");
            }
        };
        let (text, from) = timeout(PATIENCE, next)
            .await
            .unwrap_or_else(|_| panic!("{start:?} in time: {}", self.uri));
        self.node = from;
        text
    }

    /// Answers a request.
    pub(crate) async fn respond(&self, request: &str, status: &str, headers: &str, body: &str) {
        let names = ["Via:", "From:", "Call-ID:", "CSeq:"];
        let kept: Vec<_> = request
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .collect();
        let to = line(request, "To:");
        let tag = self.own.split_once(';').expect("a tag").1;
        let to = if to.contains(";tag=") { to.to_owned() } else { format!("{to};{tag}") };
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "SIP/2.0 {status}\r\n{}\r\nTo: {to}\r\nContact: <sip:{}>\r\n{headers}{content_type}\
             Content-Length: {}\r\n\r\n{body}",
            kept.join("\r\n"),
            self.address(),
            body.len(),
        );
        self.send(&text).await;
    }

    /// INVITE; the answer is awaited with [`Self::accepted`].
    pub(crate) async fn call(&mut self, uri: &str, sdp: &str) {
        self.target = uri.to_owned();
        self.other = format!("<{uri}>");
        self.request("INVITE", "", sdp).await;
    }

    /// The 200 to its INVITE, acknowledged; the SDP of it.
    pub(crate) async fn accepted(&mut self) -> String {
        let ok = self.receive("SIP/2.0 200").await;
        self.other = line(&ok, "To:").to_owned();
        self.target = in_brackets(line(&ok, "Contact:")).to_owned();
        self.request("ACK", "", "").await;
        body(&ok).to_owned()
    }

    /// Its INVITE; the call is its from now on.
    pub(crate) async fn called(&mut self) -> String {
        let invite = self.receive("INVITE ").await;
        self.other = line(&invite, "From:").to_owned();
        self.target = in_brackets(line(&invite, "Contact:")).to_owned();
        self.call_id = line(&invite, "Call-ID:").to_owned();
        let tag = self.own.split_once(';').expect("a tag").1;
        self.own = format!("{};{tag}", line(&invite, "To:"));
        invite
    }

    /// BYE and the answer to it.
    pub(crate) async fn hang_up(&mut self) {
        self.request("BYE", "", "").await;
        self.receive("SIP/2.0 200").await;
    }

    /// The BYE of the other party, answered.
    pub(crate) async fn hung_up(&mut self) -> String {
        let bye = self.receive("BYE ").await;
        self.respond(&bye, "200 OK", "", "").await;
        bye
    }

    /// Registers through the node, with what is agreed of media security.
    pub(crate) async fn register(&mut self, registrar: &mut Party, mechanisms: &str) {
        self.target = "sip:example.com".to_owned();
        self.other = format!("<{}>", self.uri);
        let headers = format!(
            "Security-Client: {mechanisms}\r\nRequire: mediasec\r\nProxy-Require: mediasec\r\n\
             Expires: 3600\r\n"
        );
        let headers = if mechanisms.is_empty() { "Expires: 3600\r\n" } else { &headers };
        self.request("REGISTER", headers, "").await;
        let register = registrar.receive("REGISTER ").await;
        let contact = format!("Contact: {}", line(&register, "Contact:"));
        let expires = if contact.contains("expires=") { "" } else { ";expires=3600" };
        let text = format!("{contact}{expires}\r\n");
        registrar.respond_bare(&register, "200 OK", &text).await;
        self.receive("SIP/2.0 200").await;
        // Calls come to what the registrar knows.
        registrar.target = in_brackets(line(&contact, "Contact:")).to_owned();
    }

    async fn respond_bare(&self, request: &str, status: &str, headers: &str) {
        let names = ["Via:", "From:", "Call-ID:", "CSeq:"];
        let kept: Vec<_> = request
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .collect();
        let to = line(request, "To:");
        let text = format!(
            "SIP/2.0 {status}\r\n{}\r\nTo: {to};tag=registrar\r\n{headers}Content-Length: 0\r\n\r\n",
            kept.join("\r\n"),
        );
        self.send(&text).await;
    }

    /// Calls the UE that has registered with it.
    pub(crate) async fn call_registered(&mut self, ue: &Party, sdp: &str) {
        self.other = format!("<{}>", ue.uri);
        self.request("INVITE", "", sdp).await;
    }
}

/// The value behind `prefix` on a line of its own.
pub(crate) fn line<'a>(text: &'a str, prefix: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(prefix));
    value.unwrap_or_else(|| panic!("no {prefix:?} in {text}")).trim()
}

/// The body of a message.
pub(crate) fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").expect("a body").1
}

/// Where `c=` and `m=` say that media is.
pub(crate) fn media_address(sdp: &str) -> SocketAddr {
    let host = line(sdp, "c=IN IP4 ");
    let port = line(sdp, "m=").split(' ').nth(1).expect("a port");
    format!("{host}:{port}").parse().expect("an address")
}

fn in_brackets(value: &str) -> &str {
    value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).expect("a URI").0
}
