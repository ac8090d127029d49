//! A small node on standard sockets: SIP over UDP or TCP, an MSRP switch with faults on demand.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use mrfp_protocol::msrp::{Framer, Start};

/// What the switch does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Forgets the tenth message for one member.
    Lose,
    /// Delivers the tenth message twice.
    Repeat,
    /// Delivers the tenth message after the eleventh.
    Swap,
    /// Changes a byte of the tenth message.
    Damage,
    /// Answers the tenth message with 413.
    Refuse,
    /// Closes the connection on the tenth message.
    Close,
    /// Splits every message in two chunks.
    Split,
}

#[derive(Default)]
struct Switch {
    /// By session-id of the node's URI: (room, UE's URI, connection).
    members: BTreeMap<String, Member>,
    messages: u32,
    chunks: u32,
    held: Option<Vec<u8>>,
}

struct Member {
    room: String,
    path: String,
    stream: TcpStream,
}

/// Starts the switch and returns its address.
pub(crate) fn start_switch(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let switch = Arc::new(Mutex::new(Switch::default()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, switch) = (stream.unwrap(), Arc::clone(&switch));
            thread::spawn(move || serve(stream, &switch, fault));
        }
    });
    address
}

/// The node's URI of one session; the room is part of the session-id.
pub(crate) fn node_path(switch: SocketAddr, room: &str, number: u32) -> String {
    format!("msrp://{switch}/{room}.{number};tcp")
}

fn serve(mut stream: TcpStream, switch: &Mutex<Switch>, fault: Fault) {
    stream.set_nodelay(true).unwrap();
    let mut framer = Framer::default();
    let (mut input, mut chunk) = (Vec::new(), vec![0; 65536]);
    let mut open: Option<Request> = None;
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => input.extend_from_slice(&chunk[..count]),
        }
        let mut at = 0;
        while let Some(piece) = framer.next(&input[at..]).unwrap() {
            at += piece.consumed;
            if let Some(head) = &piece.head {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                open = matches!(head.start, Start::Request(_)).then(|| Request {
                    transaction_id: text(head.transaction_id),
                    to_path: text(head.to_path.0),
                    from_path: text(head.from_path.0),
                    message_id: text(head.message_id.unwrap_or(b"")),
                    has_body: head.content_type.is_some(),
                    range: head.byte_range.map_or((1, None), |range| (range.start, range.total)),
                    body: Vec::new(),
                });
            }
            if let Some(request) = &mut open {
                request.body.extend_from_slice(piece.body);
            }
            if let Some(end) = piece.end
                && let Some(request) = open.take()
                && !route(&request, end.as_byte(), &stream, switch, fault)
            {
                return;
            }
            if at == input.len() {
                break;
            }
        }
        input.drain(..at);
    }
}

struct Request {
    transaction_id: String,
    to_path: String,
    from_path: String,
    message_id: String,
    has_body: bool,
    range: (u64, Option<u64>),
    body: Vec<u8>,
}

fn route(
    request: &Request,
    flag: u8,
    stream: &TcpStream,
    switch: &Mutex<Switch>,
    fault: Fault,
) -> bool {
    let mut switch = switch.lock().unwrap();
    let session = session_of(&request.to_path);
    let tenth = request.has_body && {
        switch.messages += 1;
        switch.messages == 10
    };
    if !request.has_body {
        let room = session.split('.').next().unwrap().to_owned();
        let stream = stream.try_clone().unwrap();
        let path = request.from_path.clone();
        switch.members.insert(session.clone(), Member { room, path, stream });
    }
    if tenth && fault == Fault::Close {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        return false;
    }
    let status = if tenth && fault == Fault::Refuse { "413 Too Large" } else { "200 OK" };
    let response = format!(
        "MSRP {0} {status}\r\nTo-Path: {1}\r\nFrom-Path: {2}\r\n-------{0}$\r\n",
        request.transaction_id, request.from_path, request.to_path
    );
    let mut own = stream;
    let _ = own.write_all(response.as_bytes());
    if !request.has_body {
        return true;
    }
    let room = switch.members[&session].room.clone();
    let mut lose = tenth && fault == Fault::Lose;
    let (messages, held) = (switch.messages, switch.held.take());
    switch.chunks += 1;
    let chunk_number = switch.chunks;
    let mut hold = None;
    for (other, member) in &mut switch.members {
        if *other == session || member.room != room || std::mem::take(&mut lose) {
            continue;
        }
        let bytes = forwarded(request, flag, other, member, chunk_number, tenth, fault);
        match fault {
            Fault::Swap if tenth => {
                hold = Some(bytes);
                break;
            }
            Fault::Swap if messages == 11 => {
                let _ = member.stream.write_all(&bytes);
                let _ = member.stream.write_all(held.as_deref().unwrap_or(b""));
            }
            Fault::Repeat if tenth => {
                let _ = member.stream.write_all(&bytes);
                let _ = member.stream.write_all(&bytes);
            }
            _ => {
                let _ = member.stream.write_all(&bytes);
            }
        }
    }
    switch.held = hold;
    true
}

fn forwarded(
    request: &Request,
    flag: u8,
    other: &str,
    member: &Member,
    number: u32,
    damage: bool,
    fault: Fault,
) -> Vec<u8> {
    let own = request.to_path.replace(&session_of(&request.to_path), other);
    let mut body = request.body.clone();
    if damage && fault == Fault::Damage {
        *body.last_mut().unwrap() ^= 1;
    }
    let total = request.range.1.map_or("*".to_owned(), |total| total.to_string());
    let mut out = Vec::new();
    let middle = if fault == Fault::Split { body.len() / 2 } else { body.len() };
    let mut start = request.range.0;
    for (index, part) in [&body[..middle], &body[middle..]].into_iter().enumerate() {
        if part.is_empty() {
            continue;
        }
        let last = index == 1 || middle == body.len();
        let transaction = format!("fwd{number:08}{index}");
        out.extend_from_slice(
            format!(
                "MSRP {transaction} SEND\r\nTo-Path: {}\r\nFrom-Path: {own}\r\n\
                 Message-ID: {}\r\nByte-Range: {start}-*/{total}\r\n\
                 Content-Type: message/cpim\r\n\r\n",
                member.path, request.message_id
            )
            .as_bytes(),
        );
        out.extend_from_slice(part);
        let flag = if last { flag } else { b'+' };
        out.extend_from_slice(format!("\r\n-------{transaction}{}\r\n", flag as char).as_bytes());
        start += part.len() as u64;
    }
    out
}

fn session_of(path: &str) -> String {
    let end = path.rsplit('/').next().unwrap();
    end.split(';').next().unwrap().to_owned()
}

/// What the SIP side does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CallFault {
    /// Nothing.
    None,
    /// Loses the first copy of every request.
    LoseFirst,
    /// Refuses the third call with 486.
    Refuse,
    /// Refuses every BYE with 500.
    RefuseBye,
    /// Is gone when the first BYE comes.
    Vanish,
}

/// Starts a SIP side on UDP in front of a switch.
pub(crate) fn start_sip_udp(switch: SocketAddr, fault: CallFault) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut calls = Calls::new(switch, fault, address);
        let mut datagram = vec![0; 65536];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            if fault == CallFault::Vanish && datagram.starts_with(b"BYE ") {
                return;
            }
            if let Some(answer) = calls.answer(&String::from_utf8_lossy(&datagram[..length])) {
                let _ = socket.send_to(answer.as_bytes(), from);
            }
        }
    });
    address
}

/// Starts a SIP side on TCP in front of a switch.
pub(crate) fn start_sip_tcp(switch: SocketAddr, fault: CallFault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut calls = Calls::new(switch, fault, address);
        let (mut input, mut chunk) = (Vec::new(), vec![0; 65536]);
        while let Ok(count) = stream.read(&mut chunk) {
            if count == 0 {
                return;
            }
            input.extend_from_slice(&chunk[..count]);
            let whole = loadgen::signalling::message::Message::length_in_stream;
            while let Some(length) = whole(&input).unwrap() {
                let message: Vec<u8> = input.drain(..length).collect();
                if let Some(answer) = calls.answer(&String::from_utf8_lossy(&message)) {
                    let _ = stream.write_all(answer.as_bytes());
                }
            }
        }
    });
    address
}

struct Calls {
    switch: SocketAddr,
    fault: CallFault,
    address: SocketAddr,
    seen: BTreeMap<String, u32>,
    sessions: u32,
}

impl Calls {
    fn new(switch: SocketAddr, fault: CallFault, address: SocketAddr) -> Self {
        Self { switch, fault, address, seen: BTreeMap::new(), sessions: 0 }
    }

    fn answer(&mut self, message: &str) -> Option<String> {
        let header = |name: &str| {
            let line = message.lines().find(|line| line.starts_with(&format!("{name}: ")));
            line.map_or("", |line| line[name.len() + 2..].trim())
        };
        let method = message.split(' ').next()?;
        let key = format!("{method} {} {}", header("Call-ID"), header("CSeq"));
        let copies = self.seen.entry(key).or_default();
        *copies += 1;
        if method == "ACK" || (self.fault == CallFault::LoseFirst && *copies == 1) {
            return None;
        }
        let mut status = "200 OK";
        let mut body = String::new();
        match method {
            "INVITE" => {
                self.sessions += 1;
                if self.fault == CallFault::Refuse && self.sessions == 3 {
                    status = "486 Busy Here";
                } else {
                    let uri = message.split(' ').nth(1)?;
                    let room = uri.strip_prefix("sip:")?.split('@').next()?;
                    let path = node_path(self.switch, room, self.sessions);
                    let port = self.switch.port();
                    body = format!(
                        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                         m=message {port} TCP/MSRP *\r\na=setup:passive\r\na=path:{path}\r\n\
                         a=accept-types:message/cpim\r\n"
                    );
                }
            }
            _ if self.fault == CallFault::RefuseBye => status = "500 Server Internal Error",
            _ => {}
        }
        let (via, from, to) = (header("Via"), header("From"), header("To"));
        let to = if to.contains("tag=") { to.to_owned() } else { format!("{to};tag=node") };
        Some(format!(
            "SIP/2.0 {status}\r\nVia: {via}\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {}\r\n\
             CSeq: {}\r\nContact: <sip:node@{}>\r\nContent-Length: {}\r\n\r\n{body}",
            header("Call-ID"),
            header("CSeq"),
            self.address,
            body.len()
        ))
    }
}
