//! MSRP through a whole IMS-ALG, in the clear: whoever of the two parties knows CEMA (RFC 6714), chat, a
//! large file and the report of it arrive, with the paths that each of them knows.

mod border_ue;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use border_ue::{PATIENCE, Party, body, ims_alg, line, media_address, side};
use control_api::border::SideRole;
use control_api::node::{Node, Stopped};

/// What is sent in one message.
const FILE_BYTES: usize = 100 * 1024 * 1024;

fn sdp(name: &str, address: SocketAddr, setup: &str, cema: bool) -> String {
    let (ip, port) = (address.ip(), address.port());
    let cema = if cema { "a=msrp-cema\r\n" } else { "" };
    format!(
        "v=0\r\no={name} 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=message {port} TCP/MSRP *\r\na=accept-types:*\r\na=setup:{setup}\r\n{cema}\
         a=path:msrp://{ip}:{port}/{name}Session1;tcp\r\n"
    )
}

/// One end of an MSRP session.
struct Msrp {
    stream: TcpStream,
    input: Vec<u8>,
    own: String,
    other: String,
}

impl Msrp {
    fn new(stream: TcpStream, own_sdp: &str, other_sdp: &str) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let path = |sdp| line(sdp, "a=path:").to_owned();
        Self { stream, input: Vec::new(), own: path(own_sdp), other: path(other_sdp) }
    }

    fn request(&mut self, id: &str, method: &str, rest: &str) {
        let (to, from) = (&self.other, &self.own);
        let head = format!("MSRP {id} {method}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{rest}");
        self.stream.write_all(head.as_bytes()).expect("sent");
    }

    /// The head of the next message, whose paths are those that this end knows.
    fn head(&mut self, end: &str) -> String {
        while find(&self.input, end.as_bytes()).is_none() {
            self.fill();
        }
        let at = find(&self.input, end.as_bytes()).expect("just seen") + end.len();
        let head = String::from_utf8(self.input.drain(..at).collect()).expect("text");
        assert_eq!(line(&head, "To-Path:"), self.own, "{head}");
        assert_eq!(line(&head, "From-Path:"), self.other, "{head}");
        head
    }

    fn fill(&mut self) {
        let mut chunk = [0; 64 * 1024];
        let length = self.stream.read(&mut chunk).expect("readable");
        assert_ne!(length, 0, "it ended after {}", String::from_utf8_lossy(&self.input));
        self.input.extend_from_slice(&chunk[..length]);
    }

    /// Sends so many bytes in one message, and reads its response and its report.
    fn send(mut self, id: &str, bytes: usize) -> Self {
        let rest = format!(
            "Message-ID: {id}\r\nSuccess-Report: yes\r\nByte-Range: 1-*/{bytes}\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        self.request(id, "SEND", &rest);
        let piece = vec![b'x'; 64 * 1024];
        let mut left = bytes;
        while left > 0 {
            let length = left.min(piece.len());
            self.stream.write_all(&piece[..length]).expect("sent");
            left -= length;
        }
        self.stream.write_all(format!("\r\n-------{id}$\r\n").as_bytes()).expect("sent");
        // Either may come first.
        let heads = [self.head("$\r\n"), self.head("$\r\n")];
        let is_there = |text: &str| heads.iter().any(|head| head.starts_with(text));
        assert!(is_there(&format!("MSRP {id} 200")), "{heads:?}");
        assert!(is_there("MSRP report01 REPORT"), "{heads:?}");
        let report = heads.iter().find(|head| head.contains("REPORT")).expect("just seen");
        assert_eq!(line(report, "Message-ID:"), id);
        assert_eq!(line(report, "Byte-Range:"), format!("1-{bytes}/{bytes}"));
        self
    }

    /// Reads a message of so many bytes, answers and reports it.
    fn receive(&mut self, id: &str, bytes: usize) {
        let head = self.head("\r\n\r\n");
        assert!(head.starts_with(&format!("MSRP {id} SEND\r\n")), "{head}");
        let end = format!("\r\n-------{id}$\r\n");
        let mut left = bytes;
        while left > 0 {
            if self.input.is_empty() {
                self.fill();
            }
            let length = left.min(self.input.len());
            assert!(
                self.input[..length].iter().all(|byte| *byte == b'x'),
                "{left} bytes before the end"
            );
            self.input.drain(..length);
            left -= length;
        }
        while self.input.len() < end.len() {
            self.fill();
        }
        assert_eq!(self.input.drain(..end.len()).collect::<Vec<_>>(), end.as_bytes());
        self.request(id, "200 OK", &format!("-------{id}$\r\n"));
        let rest = format!(
            "Message-ID: {id}\r\nByte-Range: 1-{bytes}/{bytes}\r\nStatus: 000 200 OK\r\n\
             -------report01$\r\n"
        );
        self.request("report01", "REPORT", &rest);
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_file_and_reports_arrive_whoever_knows_cema() {
    for (ue_knows, peer_knows) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut peer = Party::new("peer").await;
        let mut config = ims_alg(peer.address());
        let border = config.border.as_mut().expect("it is one");
        border.access.as_mut().expect("a side").cema = ue_knows;
        border.core.as_mut().expect("a side").cema = peer_knows;
        let node = Node::start(config).await.expect("starts");
        let mut ue = Party::new("ue").await;
        ue.node = side(&node, SideRole::Access);
        peer.node = side(&node, SideRole::Core);

        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let core = listener.local_addr().expect("bound");
        let offer = sdp("ue", "127.0.0.1:9".parse().expect("an address"), "active", ue_knows);
        let answer = sdp("peer", core, "passive", peer_knows);
        ue.call("sip:peer@example.com", &offer).await;
        let invite = peer.called().await;
        let offered = body(&invite).to_owned();
        peer.respond(&invite, "200 OK", "", &answer).await;
        let answered = ue.accepted().await;
        peer.receive("ACK ").await;

        // Who knows CEMA goes where c= and m= lead, others by the path.
        let ours = media_address(&answered);
        let path = line(&answered, "a=path:").to_owned();
        if !ue_knows {
            let authority = path.split('/').nth(2).expect("an authority");
            assert_eq!(authority.parse::<SocketAddr>().expect("an address"), ours);
        }
        if ue_knows && peer_knows {
            assert_eq!(path, line(&answer, "a=path:"), "the path stays");
            assert_eq!(line(&offered, "a=path:"), line(&offer, "a=path:"));
        }
        let ue_media = Msrp::new(TcpStream::connect(ours).expect("connects"), &offer, &answered);
        let (stream, _) = listener.accept().expect("the gateway connects");
        let mut peer_media = Msrp::new(stream, &answer, &offered);
        let sending = thread::spawn(move || {
            let ue_media = ue_media.send("chat1234", 5);
            ue_media.send("file1234", FILE_BYTES)
        });
        peer_media.receive("chat1234", 5);
        peer_media.receive("file1234", FILE_BYTES);
        let mut ue_media = sending.join().expect("sent and reported");
        let replying = thread::spawn(move || peer_media.send("back1234", 5));
        ue_media.receive("back1234", 5);
        replying.join().expect("sent and reported");
        ue.hang_up().await;
        peer.hung_up().await;
        assert_eq!(node.stop().await, Stopped::Drained);
    }
}
