//! The calls of a UE: SIP over UDP or TCP, an MSRP offer, MIKEY-TICKET where it is to be secure.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control_api::config::{DEVELOPMENT_TICKET_KEY, DEVELOPMENT_TICKET_KEY_ID};
use control_api::mikey::{Initiator, NtpTime, Parameters, TicketProtectionKey};
use control_api::sdp::{
    MessageSessionAnswer, MessageSessionOffer, OfferedSetup, offer_for_message_session,
    parse_answer,
};
use mrfp_core::mp::Direction;
use zeroize::Zeroizing;

use super::msrp::Paths;
use super::node::Node;
use super::program::PATIENCE;
use super::wire::Credential;

/// What carries the signalling.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// An answered call.
pub(crate) struct Call {
    link: Link,
    name: String,
    room: String,
    call_id: String,
    to_tag: String,
    cseq: u32,
    /// The text of its description.
    pub(crate) description: String,
    /// What the node answered.
    pub(crate) answer: MessageSessionAnswer,
    /// What keys the media.
    pub(crate) credential: Option<Credential>,
    /// The two ends of the MSRP session, as we write them.
    pub(crate) paths: Paths,
}

impl Call {
    /// INVITE, 200, ACK. The UE is the one to connect.
    pub(crate) fn place(
        node: &Node,
        transport: Transport,
        room: &str,
        name: &str,
        secure: bool,
    ) -> Self {
        Self::offer(node, transport, room, name, secure, (OfferedSetup::Active, NOWHERE))
    }

    /// The same by a UE that listens for its media there: the node is the one to connect.
    pub(crate) fn place_listening(
        node: &Node,
        room: &str,
        name: &str,
        secure: bool,
        listen: SocketAddr,
    ) -> Self {
        Self::offer(node, Transport::Tcp, room, name, secure, (OfferedSetup::Passive, listen))
    }

    /// TCP/TLS/MSRP without a key: with certificates.
    pub(crate) fn place_certified(node: &Node, room: &str, name: &str) -> Self {
        let role = (OfferedSetup::Active, NOWHERE);
        Self::offer_with(node, Transport::Tcp, room, name, true, None, role)
    }

    fn offer(
        node: &Node,
        transport: Transport,
        room: &str,
        name: &str,
        secure: bool,
        role: (OfferedSetup, SocketAddr),
    ) -> Self {
        let initiator = secure.then(|| initiate(name, room));
        Self::offer_with(node, transport, room, name, secure, initiator, role)
    }

    fn offer_with(
        node: &Node,
        transport: Transport,
        room: &str,
        name: &str,
        secure: bool,
        initiator: Option<(Initiator, Vec<u8>)>,
        (setup, address): (OfferedSetup, SocketAddr),
    ) -> Self {
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let session = format!("ue{number}x{}", std::process::id());
        let offer = offer_for_message_session(&MessageSessionOffer {
            session_id: 1,
            session_version: 1,
            address,
            msrp_session_id: &session,
            secure,
            setup,
            // These members say what they say without a wrapper, and hear it so.
            accept_types: "text/plain *",
            accept_wrapped_types: "*",
            max_size_bytes: None,
            direction: Direction::SendRecv,
            cema: false,
            chatroom: None,
            mikey: initiator.as_ref().map(|(_, message)| message.as_slice()),
        });
        let scheme = if secure { "msrps" } else { "msrp" };
        let from = format!("{scheme}://{address}/{session};tcp");
        let mut call = Self::place_offering(node, transport, room, name, &from, &offer);
        call.credential = initiator.map(|(initiator, _)| {
            let response = call.answer.mikey.as_deref().expect("TRANSFER_RESP");
            let established = initiator.finish(response, ntp_now()).expect("keys");
            Credential { identity: established.psk_identity, psk: established.psk }
        });
        call
    }

    /// INVITE with any offer, 200, ACK; `from` is the path in it.
    pub(crate) fn place_offering(
        node: &Node,
        transport: Transport,
        room: &str,
        name: &str,
        from: &str,
        offer: &[u8],
    ) -> Self {
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let mut link = Link::connect(node, transport);
        let call_id = format!("call{number}x{}@test", std::process::id());
        let request = Request { name, room, call_id: &call_id, to_tag: None, cseq: 1 };
        let ok = link.ask(&request.text(&link, "INVITE", offer));
        assert_eq!(ok.status(), 200, "{}", ok.head);
        let to_tag = ok.to_tag().to_owned();
        let request = Request { to_tag: Some(&to_tag), ..request };
        link.send(&request.text(&link, "ACK", b""));
        let answer = parse_answer(&ok.body).expect("an answer");
        let paths = Paths { to: answer.path.clone(), from: from.to_owned() };
        let (name, room) = (name.to_owned(), room.to_owned());
        let description = String::from_utf8(ok.body).expect("text");
        let credential = None;
        Self { link, name, room, call_id, to_tag, cseq: 1, description, answer, credential, paths }
    }

    /// Where the media goes.
    pub(crate) fn media(&self) -> SocketAddr {
        self.answer.connect_to.expect("an address")
    }

    /// BYE, 200.
    pub(crate) fn hang_up(&mut self) {
        self.cseq += 1;
        let request = Request {
            name: &self.name,
            room: &self.room,
            call_id: &self.call_id,
            to_tag: Some(&self.to_tag),
            cseq: self.cseq,
        };
        let bye = request.text(&self.link, "BYE", b"");
        let ok = self.link.ask(&bye);
        assert_eq!(ok.status(), 200, "{}", ok.head);
    }

    /// Waits for the node's BYE, answers it and returns its head.
    pub(crate) fn await_bye(&mut self) -> String {
        loop {
            let message = self.link.receive(PATIENCE).expect("reads").expect("a BYE comes");
            if message.head.starts_with("BYE ") {
                self.link.send(&message.ok());
                return message.head;
            }
        }
    }
}

/// TRANSFER_INIT with a ticket of the UE's own making (mode 3).
fn initiate(name: &str, room: &str) -> (Initiator, Vec<u8>) {
    let key = TicketProtectionKey {
        identity: DEVELOPMENT_TICKET_KEY_ID.as_bytes().to_vec(),
        key: Zeroizing::new(DEVELOPMENT_TICKET_KEY.to_vec()),
    };
    Initiator::with_own_ticket(
        &Parameters::default(),
        &caller_uri(name),
        &room_uri(room),
        "sip:kms@localhost",
        &key,
        ntp_now(),
        &mut |bytes| getrandom::fill(bytes).expect("the kernel has randomness"),
    )
    .expect("short names")
}

fn ntp_now() -> NtpTime {
    NtpTime::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"))
}

fn caller_uri(name: &str) -> String {
    format!("sip:{name}@ue.example")
}

fn room_uri(room: &str) -> String {
    format!("sip:{room}@conference.example")
}

/// Where an active UE says its media is; nobody listens there.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

static CALLS: AtomicU32 = AtomicU32::new(1);

#[derive(Clone, Copy)]
struct Request<'a> {
    name: &'a str,
    room: &'a str,
    call_id: &'a str,
    to_tag: Option<&'a str>,
    cseq: u32,
}

impl Request<'_> {
    fn text(&self, link: &Link, method: &str, body: &[u8]) -> Vec<u8> {
        let (caller, room) = (caller_uri(self.name), room_uri(self.room));
        let (transport, local) = (link.name(), link.local());
        let to_tag = self.to_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let (call_id, cseq, length) = (self.call_id, self.cseq, body.len());
        let head = format!(
            "{method} {room} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {local};branch=z9hG4bK{method}{cseq}{call_id};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <{caller}>;tag=ue\r\n\
             To: <{room}>{to_tag}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <sip:{}@{local};transport={}>\r\n\
             {content_type}Content-Length: {length}\r\n\r\n",
            self.name,
            transport.to_ascii_lowercase(),
        );
        [head.as_bytes(), body].concat()
    }
}

/// A received message.
#[derive(Debug)]
struct Received {
    head: String,
    body: Vec<u8>,
}

impl Received {
    /// The message at the front and its length, once it is whole.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut message = Self { head, body: Vec::new() };
        let length = message.header("Content-Length").map_or(0, |text| text.parse().expect("n"));
        message.body = bytes.get(end..end + length)?.to_vec();
        Some((message, end + length))
    }

    /// 0 for a request.
    fn status(&self) -> u16 {
        let status = self.head.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
        status.map_or(0, |status| status.parse().expect("a number"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn to_tag(&self) -> &str {
        self.header("To").and_then(|to| to.split_once(";tag=")).expect("a To tag").1
    }

    /// The 200 to a request of the node.
    fn ok(&self) -> Vec<u8> {
        let mut reply = "SIP/2.0 200 OK\r\n".to_owned();
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            reply.push_str(&format!("{name}: {}\r\n", self.header(name).expect("mandatory")));
        }
        reply.push_str("Content-Length: 0\r\n\r\n");
        reply.into_bytes()
    }
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

impl Link {
    fn connect(node: &Node, transport: Transport) -> Self {
        match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
                socket.connect(node.sip_udp).expect("connects");
                Self::Udp(socket)
            }
            Transport::Tcp => {
                let stream = TcpStream::connect(node.sip_tcp).expect("connects");
                Self::Tcp(stream, Vec::new())
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Udp(_) => "UDP",
            Self::Tcp(..) => "TCP",
        }
    }

    fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp(stream, _) => stream.local_addr(),
        }
        .expect("bound")
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => assert_eq!(socket.send(bytes).expect("sends"), bytes.len()),
            Self::Tcp(stream, _) => stream.write_all(bytes).expect("sends"),
        }
    }

    /// Sends a request, again and again over UDP, until its final response is there.
    fn ask(&mut self, request: &[u8]) -> Received {
        let deadline = Instant::now() + PATIENCE;
        let mut answered = false;
        self.send(request);
        loop {
            assert!(Instant::now() < deadline, "no final response");
            match self.receive(T1).expect("reads") {
                Some(message) if message.status() >= 200 => return message,
                Some(message) => answered |= message.status() > 0,
                None if !answered && matches!(self, Self::Udp(_)) => self.send(request),
                None => {}
            }
        }
    }

    /// The next message; `None` after `patience`.
    fn receive(&mut self, patience: Duration) -> io::Result<Option<Received>> {
        let mut memory = vec![0; 65_536];
        match self {
            Self::Udp(socket) => {
                socket.set_read_timeout(Some(patience))?;
                let Some(length) = in_time(socket.recv(&mut memory))? else { return Ok(None) };
                Ok(Received::parse(&memory[..length]).map(|(message, _)| message))
            }
            Self::Tcp(stream, buffer) => loop {
                if let Some((message, length)) = Received::parse(buffer) {
                    buffer.drain(..length);
                    return Ok(Some(message));
                }
                stream.set_read_timeout(Some(patience))?;
                match in_time(stream.read(&mut memory))? {
                    None => return Ok(None),
                    Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Some(length) => buffer.extend_from_slice(&memory[..length]),
                }
            },
        }
    }
}

fn in_time(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// RFC 3261 section 17.1.1.1.
const T1: Duration = Duration::from_millis(500);
