//! A B2BUA between two sides of loopback, with a border that marks what goes through it, and user agents that
//! say what they are told.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control_api::border::b2bua::{B2buaConfig, B2buaHandle, NextHop, SideConfig, Transport, start};
use control_api::border::{Action, BorderCallId, Event, Leg, Party, Refusal, SideRole};
use control_api::sip::SipConfig;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Far longer than anything takes: only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for a message on loopback that must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// Every party has an address of its own, so that one of the other side shows wherever it is.
pub(crate) const UE_HOST: &str = "127.0.11.1";
pub(crate) const ACCESS_HOST: &str = "127.0.11.2";
pub(crate) const CORE_HOST: &str = "127.0.12.2";
pub(crate) const NETWORK_HOST: &str = "127.0.12.1";

pub(crate) const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
pub(crate) const ANSWER: &str = "v=0\r\no=- 2 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

/// What the border hears, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    Begun { caller: Party, callee: Party },
    Rerouted(Party),
    Offer(Leg),
    Answer,
    Withdrawn,
    Ended,
}

pub(crate) struct World {
    pub(crate) b2bua: Arc<B2buaHandle>,
    pub(crate) heard: mpsc::UnboundedReceiver<(BorderCallId, Heard)>,
    /// An access UE.
    pub(crate) ue: Ua,
    /// The first next hop of the core.
    pub(crate) network: Ua,
    /// The second.
    pub(crate) spare: Ua,
}

/// What the border refuses.
#[derive(Clone, Copy, Default)]
pub(crate) struct Refuses {
    pub(crate) offers: bool,
    pub(crate) answers: bool,
}

fn address(host: &str) -> SocketAddr {
    format!("{host}:0").parse().expect("an address")
}

fn side(role: SideRole, host: &str) -> SideConfig {
    let (udp, tcp) = (address(host), address(host));
    let sip = SipConfig { udp, tcp, t1: Duration::from_millis(100), ..SipConfig::default() };
    SideConfig { sip, probe_interval: Duration::ZERO, ..SideConfig::new(role) }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}, Refuses::default()).await
    }

    pub(crate) async fn start_with(
        change: impl FnOnce(&mut B2buaConfig),
        refuses: Refuses,
    ) -> Self {
        let (network, spare) = (Ua::bind(NETWORK_HOST).await, Ua::bind(NETWORK_HOST).await);
        let next_hops =
            [&network, &spare].map(|ua| NextHop { address: ua.local(), transport: Transport::Udp });
        let core = SideConfig { next_hops: next_hops.into(), ..side(SideRole::Core, CORE_HOST) };
        let sides = [side(SideRole::Access, ACCESS_HOST), core];
        let mut config = B2buaConfig { sides, ..B2buaConfig::default() };
        change(&mut config);
        let (events, received) = mpsc::channel(64);
        let b2bua = Arc::new(start(config, events).await.expect("loopback can be bound"));
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(be_border(Arc::clone(&b2bua), received, tell, refuses));
        let mut ue = Ua::bind(UE_HOST).await;
        ue.peer = b2bua.addresses(SideRole::Access).expect("configured").udp;
        Self { b2bua, heard, ue, network, spare }
    }

    /// The next that the border hears.
    pub(crate) async fn heard(&mut self) -> (BorderCallId, Heard) {
        timeout(PATIENCE, self.heard.recv()).await.expect("in time").expect("runs")
    }

    /// Until it hears that.
    pub(crate) async fn hears(&mut self, wanted: &Heard) -> BorderCallId {
        loop {
            let (call, heard) = self.heard().await;
            if heard == *wanted {
                return call;
            }
        }
    }

    /// Waits until nothing is left of any call.
    pub(crate) async fn await_empty(&self) {
        let until = Instant::now() + PATIENCE;
        let roles = [SideRole::Access, SideRole::Core];
        loop {
            let transactions = roles.map(|role| self.b2bua.transactions(role));
            let left = (self.b2bua.calls(), transactions, self.b2bua.metrics().requests_open.get());
            if left == (0, [0, 0], 0) {
                return;
            }
            assert!(Instant::now() < until, "calls, transactions, requests: {left:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// INVITE with an offer, 200 with an answer, ACK; what the network got, and what the UE got.
    pub(crate) async fn establish(&mut self, call: &mut Dialog) -> (Received, Received) {
        self.ue.send(&call.request("INVITE", "", OFFER)).await;
        let invite = self.network.request("INVITE").await;
        self.network.reply(&invite, "200 OK", "net", "", ANSWER).await;
        let ok = self.ue.response(200).await;
        call.remote_tag = Some(ok.to_tag().to_owned());
        call.target = ok.contact_uri();
        self.ue.send(&call.request("ACK", "", "")).await;
        self.network.request("ACK").await;
        (invite, ok)
    }
}

/// Marks descriptions with what they were taken for.
async fn be_border(
    b2bua: Arc<B2buaHandle>,
    mut events: mpsc::Receiver<Event>,
    tell: mpsc::UnboundedSender<(BorderCallId, Heard)>,
    refuses: Refuses,
) {
    let refusal = || Refusal {
        status: 488,
        warning: Some((399, "not with us".to_owned())),
        retry_after: None,
    };
    while let Some(event) = events.recv().await {
        let (call, heard) = match event {
            Event::Begun { call, caller, callee } => (call, Heard::Begun { caller, callee }),
            Event::Rerouted { call, callee } => (call, Heard::Rerouted(callee)),
            Event::Offer { call, exchange, from, mut sdp } => {
                sdp.extend_from_slice(format!("a=offered:{from:?} {}\r\n", exchange.0).as_bytes());
                let outcome = if refuses.offers { Err(refusal()) } else { Ok(sdp) };
                b2bua.act(Action::Offer { call, exchange, outcome });
                (call, Heard::Offer(from))
            }
            Event::Answer { call, exchange, mut sdp } => {
                sdp.extend_from_slice(format!("a=answered:{}\r\n", exchange.0).as_bytes());
                let outcome = if refuses.answers { Err(refusal()) } else { Ok(sdp) };
                b2bua.act(Action::Answer { call, exchange, outcome });
                (call, Heard::Answer)
            }
            Event::Withdrawn { call, .. } => (call, Heard::Withdrawn),
            Event::Ended { call } => (call, Heard::Ended),
            Event::Mp { .. } | Event::Shutdown => unreachable!("not of the front"),
        };
        let _ = tell.send((call, heard));
    }
}

/// A socket that speaks SIP.
pub(crate) struct Ua {
    socket: UdpSocket,
    /// Where requests go.
    pub(crate) peer: SocketAddr,
    /// What came while something else was waited for.
    kept: Vec<Received>,
}

impl Ua {
    pub(crate) async fn bind(host: &str) -> Self {
        let socket = UdpSocket::bind(address(host)).await.expect("loopback");
        let peer = socket.local_addr().expect("bound");
        Self { socket, peer, kept: Vec::new() }
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    pub(crate) async fn send(&self, message: &str) {
        self.socket.send_to(message.as_bytes(), self.peer).await.expect("sends");
    }

    pub(crate) async fn send_bytes(&self, message: &[u8]) {
        self.socket.send_to(message, self.peer).await.expect("sends");
    }

    pub(crate) async fn receive_within(&mut self, patience: Duration) -> Option<Received> {
        let mut buffer = vec![0; 65_536];
        let received = timeout(patience, self.socket.recv_from(&mut buffer)).await.ok()?;
        let (length, source) = received.expect("receives");
        Some(Received::new(&buffer[..length], source))
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Received) -> bool) -> Received {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let received = self.receive_within(left).await;
            let received = received.unwrap_or_else(|| panic!("no {what}, but {:#?}", self.kept));
            if wanted(&received) {
                return received;
            }
            self.kept.push(received);
        }
    }

    /// The next request of that method; others are kept for later.
    pub(crate) async fn request(&mut self, method: &str) -> Received {
        let line = format!("{method} ");
        self.until(method, |it| it.head.starts_with(&line)).await
    }

    /// The next response with that status; others are kept for later.
    pub(crate) async fn response(&mut self, status: u16) -> Received {
        self.until(&status.to_string(), |it| it.status() == status).await
    }

    /// The next response to that method with that status.
    pub(crate) async fn response_to(&mut self, method: &str, status: u16) -> Received {
        let wanted = |it: &Received| {
            it.status() == status && it.header("CSeq").is_some_and(|cseq| cseq.ends_with(method))
        };
        self.until(&format!("{status} to {method}"), wanted).await
    }

    /// Nothing of that kind comes any more.
    pub(crate) async fn gets_no(&mut self, start: &str) {
        while let Some(received) = self.receive_within(SILENCE).await {
            self.kept.push(received);
        }
        let found = self.kept.iter().find(|it| it.head.starts_with(start));
        assert!(found.is_none(), "{found:#?}");
    }

    /// Answers a request; further headers are whole lines.
    pub(crate) async fn reply(
        &self,
        request: &Received,
        status: &str,
        tag: &str,
        headers: &str,
        body: &str,
    ) {
        let mut reply = format!("SIP/2.0 {status}\r\n");
        for via in request.all("Via") {
            reply.push_str(&format!("Via: {via}\r\n"));
        }
        for name in ["From", "To", "Call-ID", "CSeq"] {
            let mut value = request.header(name).expect("mandatory").to_owned();
            if name == "To" && !value.contains(";tag=") && !tag.is_empty() {
                value.push_str(&format!(";tag={tag}"));
            }
            reply.push_str(&format!("{name}: {value}\r\n"));
        }
        let contact = !headers.contains("Contact:") && !status.starts_with('4');
        if contact {
            reply.push_str(&format!("Contact: <sip:peer@{}>\r\n", self.local()));
        }
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        reply.push_str(&format!("{headers}{content}Content-Length: {}\r\n\r\n{body}", body.len()));
        self.socket.send_to(reply.as_bytes(), request.source).await.expect("sends");
    }
}

/// A message that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) source: SocketAddr,
}

impl Received {
    fn new(bytes: &[u8], source: SocketAddr) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("a message");
        Self { head: head.to_owned(), body: body.to_owned(), source }
    }

    /// 0 for a request.
    pub(crate) fn status(&self) -> u16 {
        let status = self.head.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
        status.map_or(0, |status| status.parse().expect("a number"))
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, it)| it.trim()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub(crate) fn to_tag(&self) -> &str {
        self.header("To").and_then(|to| to.split_once(";tag=")).expect("a To tag").1
    }

    pub(crate) fn sender_tag(&self) -> &str {
        self.header("From").and_then(|from| from.split_once(";tag=")).expect("a From tag").1
    }

    pub(crate) fn contact_uri(&self) -> String {
        let contact = self.header("Contact").expect("a Contact");
        contact.split(['<', '>']).nth(1).expect("brackets").to_owned()
    }

    pub(crate) fn text(&self) -> String {
        format!("{}\r\n\r\n{}", self.head, self.body)
    }
}

/// One end of a dialog.
#[derive(Clone)]
pub(crate) struct Dialog {
    pub(crate) local: SocketAddr,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) from: String,
    pub(crate) local_tag: String,
    pub(crate) to: String,
    pub(crate) remote_tag: Option<String>,
    pub(crate) target: String,
    branch: u32,
}

impl Dialog {
    /// Of a call of a UE to somebody in the network.
    pub(crate) fn new(ue: &Ua, call_id: &str) -> Self {
        Self {
            local: ue.local(),
            call_id: format!("{call_id}@{UE_HOST}"),
            cseq: 0,
            from: format!("\"Alice\" <sip:alice@{}>", ue.local()),
            local_tag: "ue-tag".to_owned(),
            to: "<sip:bob@ims.example>".to_owned(),
            remote_tag: None,
            target: "sip:bob@ims.example".to_owned(),
            branch: 0,
        }
    }

    /// The callee's end of it, by the INVITE it got and the tag it answered with.
    pub(crate) fn of_callee(ua: &Ua, invite: &Received, tag: &str) -> Self {
        let without_tag = |value: &str| value.split(";tag=").next().expect("some").to_owned();
        Self {
            local: ua.local(),
            call_id: invite.header("Call-ID").expect("mandatory").to_owned(),
            cseq: 100,
            from: without_tag(invite.header("To").expect("mandatory")),
            local_tag: tag.to_owned(),
            to: without_tag(invite.header("From").expect("mandatory")),
            remote_tag: Some(invite.sender_tag().to_owned()),
            target: invite.contact_uri(),
            branch: 0,
        }
    }

    /// The next request; ACK and CANCEL have the number of the one before, and CANCEL its branch.
    pub(crate) fn request(&mut self, method: &str, headers: &str, body: &str) -> String {
        if !matches!(method, "ACK" | "CANCEL") {
            self.cseq += 1;
        }
        if method != "CANCEL" {
            self.branch += 1;
        }
        let tag = self.remote_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let tag = if method == "CANCEL" { String::new() } else { tag };
        let content = if body.is_empty() || headers.contains("Content-Type:") {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        let forwards = if headers.contains("Max-Forwards:") { "" } else { "Max-Forwards: 70\r\n" };
        format!(
            "{method} {} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bK{}x{}x{};rport\r\n\
             {forwards}From: {};tag={}\r\nTo: {}{tag}\r\nCall-ID: {}\r\nCSeq: {} {method}\r\n\
             Contact: <sip:alice@{local}>;+sip.instance=\"<urn:x>\"\r\n\
             {headers}{content}Content-Length: {}\r\n\r\n{body}",
            self.target,
            self.branch,
            self.local_tag,
            self.call_id.split('@').next().unwrap_or_default(),
            self.from,
            self.local_tag,
            self.to,
            self.call_id,
            self.cseq,
            body.len(),
            local = self.local,
        )
    }
}
