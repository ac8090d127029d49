//! Relays under names of their own, with certificates of one authority, and what connects to them.
#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../../../mrfp-core/protocol/tests/tls_common/authority.rs"]
mod authority;

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;

use authority::Authority;
use mrfp_protocol::msrp::auth::{Algorithm, Authorization, Credentials, response_proof};
use mrfp_protocol::msrp::{Continuation, Framer, Start};
use mrfp_protocol::tls::{
    Authorities, CertificateConfig, Handshake, Identity, Profile, ProfileConfig,
};
use sha2::{Digest, Sha256};

use crate::support::node::Node;
use crate::support::wire::Wire;

pub(crate) const ALICE: &str = "msrps://alice.invalid:9892/98cjs;tcp";

/// A node that relays, and the authority everybody trusts.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("writable");
        Self { authority: Authority::new("test authority"), directory }
    }

    /// A relay under this name, which leads to loopback.
    pub(crate) fn relay(&self, host: &str) -> Node {
        self.relay_with(host, "allow_plain_auth = false")
    }

    /// The same with a setting of its own.
    pub(crate) fn relay_with(&self, host: &str, setting: &str) -> Node {
        let path = |name: &str| self.directory.path().join(format!("{host}-{name}"));
        let issued = self.authority.issue(&[host]);
        for (name, text) in [
            ("chain.pem", &issued.chain),
            ("key.pem", &issued.key),
            ("authority.pem", &self.authority.pem),
        ] {
            fs::write(path(name), text).expect("writable");
        }
        let credentials = Credentials::derive(b"alice", host.as_bytes(), b"secret");
        let hash = |algorithm| credentials.ha1(algorithm).expect("both are there");
        Node::start(&[
            ("tls.certificate", &format!("chain = {:?}", path("chain.pem"))),
            ("tls.certificate", &format!("key = {:?}", path("key.pem"))),
            ("tls.certificate", &format!("authorities = [{:?}]", path("authority.pem"))),
            ("tls.certificate", "web_authorities = false"),
            ("relay", "listen = \"127.0.0.1:0\""),
            ("relay", "own_port_first = 0"),
            ("relay", setting),
            ("relay", "allow_local_targets = true"),
            ("relay", &format!("host = \"{host}\"")),
            ("relay", &format!("realm = \"{host}\"")),
            ("[relay.user]", "name = \"alice\""),
            ("[relay.user]", &format!("sha256 = \"{}\"", *hash(Algorithm::Sha256))),
            ("[relay.user]", &format!("md5 = \"{}\"", *hash(Algorithm::Md5))),
        ])
    }

    /// What somebody of this name is.
    pub(crate) fn profile(&self, name: &str) -> Profile {
        let issued = self.authority.issue(&[name]);
        let identity = Identity::from_pem(issued.chain.as_bytes(), issued.key.as_bytes());
        let config = CertificateConfig {
            identity: identity.expect("just made"),
            authorities: Authorities::from_pem(self.authority.pem.as_bytes()).expect("just made"),
        };
        let profile = Profile::new(&ProfileConfig::default()).expect("the default");
        profile.with_certificates(&config).expect("good")
    }

    /// Connects to a relay's port and checks that it is the relay.
    pub(crate) fn connect(&self, address: SocketAddr, host: &str) -> Peer {
        let handshake = Handshake::certificate_client(&self.profile("client.invalid"), host);
        let wire = Wire::connect_with(address, Some(handshake.expect("a name")));
        Peer::new(wire.expect("secured"))
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) start: String,
    pub(crate) transaction: String,
    pub(crate) to: String,
    pub(crate) from: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) flag: char,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// One end of a connection with a relay.
pub(crate) struct Peer {
    pub(crate) wire: Wire,
    framer: Framer,
    unparsed: Vec<u8>,
    current: Option<Message>,
    received: VecDeque<Message>,
}

impl Peer {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            wire,
            framer: Framer::default(),
            unparsed: Vec::new(),
            current: None,
            received: VecDeque::new(),
        }
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.write_all(bytes.as_ref()).expect("written");
    }

    /// The next message, whatever it is.
    pub(crate) fn next(&mut self) -> Message {
        loop {
            if let Some(message) = self.received.pop_front() {
                return message;
            }
            let length = self.wire.read(&mut self.unparsed).expect("readable");
            assert!(length > 0, "the relay has closed");
            self.parse();
        }
    }

    /// The next request that is not to be answered, or response; SENDs before it are answered.
    pub(crate) fn next_send(&mut self) -> Message {
        let message = self.next();
        assert_eq!(message.start, "SEND", "{message:?}");
        if !matches!(message.header("Failure-Report"), Some("no" | "partial")) {
            self.write(response(&message, "200 OK"));
        }
        message
    }

    /// The body of the next message, in however many chunks it comes.
    pub(crate) fn next_body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.next_send();
            body.extend(chunk.body);
            if chunk.flag == '$' {
                return body;
            }
        }
    }

    fn parse(&mut self) {
        let mut taken = 0;
        while let Some(piece) = self.framer.next(&self.unparsed[taken..]).expect("well-formed") {
            taken += piece.consumed;
            if let Some(head) = &piece.head {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.current = Some(Message {
                    start: match head.start {
                        Start::Request(method) => text(method.as_bytes()),
                        Start::Response(status, _) => status.to_string(),
                    },
                    transaction: text(head.transaction_id),
                    to: text(head.to_path.0),
                    from: text(head.from_path.0),
                    headers: text(head.header_lines).lines().map(str::to_owned).collect(),
                    ..Message::default()
                });
            }
            let current = self.current.as_mut().expect("a head comes first");
            current.body.extend_from_slice(piece.body);
            if let Some(end) = piece.end {
                let mut message = self.current.take().expect("just seen");
                message.flag = match end {
                    Continuation::Last => '$',
                    Continuation::More => '+',
                    Continuation::Abort => '#',
                };
                self.received.push_back(message);
            }
        }
        self.unparsed.drain(..taken);
    }
}

pub(crate) fn response(request: &Message, status: &str) -> String {
    let (transaction, from) = (&request.transaction, &request.to);
    let to = match request.start.as_str() {
        "SEND" => request.from.split(' ').next().expect("one"),
        _ => &request.from,
    };
    format!(
        "MSRP {transaction} {status}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
         -------{transaction}$\r\n"
    )
}

pub(crate) fn request(
    transaction: &str,
    method: &str,
    to: &str,
    from: &str,
    headers: &str,
) -> String {
    format!(
        "MSRP {transaction} {method}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{headers}\
         -------{transaction}$\r\n"
    )
}

pub(crate) fn chunk(
    transaction: &str,
    paths: &Paths,
    range: &str,
    body: &[u8],
    flag: char,
) -> Vec<u8> {
    let Paths { to, from, headers } = paths;
    let head = format!(
        "MSRP {transaction} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {transaction}\r\n\
         Byte-Range: {range}\r\n{headers}Content-Type: text/plain\r\n\r\n"
    );
    [head.as_bytes(), body, format!("\r\n-------{transaction}{flag}\r\n").as_bytes()].concat()
}

pub(crate) fn send(transaction: &str, paths: &Paths, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    chunk(transaction, paths, &format!("1-{length}/{length}"), body, '$')
}

pub(crate) struct Paths {
    pub(crate) to: String,
    pub(crate) from: String,
    pub(crate) headers: &'static str,
}

pub(crate) fn paths(to: &[&str], from: &str) -> Paths {
    Paths { to: to.join(" "), from: from.to_owned(), headers: "" }
}

fn parameter<'a>(header: &'a str, name: &str) -> &'a str {
    let start = header.find(&format!("{name}=\"")).expect(name) + name.len() + 2;
    header[start..].split('"').next().expect("quoted")
}

/// AUTH with a relay, maybe through others; the Use-Path.
pub(crate) fn authenticate(peer: &mut Peer, host: &str, to: &[&str]) -> Vec<String> {
    let path = to.join(" ");
    peer.write(request("auth1", "AUTH", &path, ALICE, ""));
    let challenge = peer.next();
    assert_eq!(challenge.start, "401", "{challenge:?}");
    let nonce = parameter(challenge.header("WWW-Authenticate").expect("one"), "nonce");
    let uri = to.last().expect("one");
    let hash = |text: String| -> String {
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let (ha1, ha2) = (hash(format!("alice:{host}:secret")), hash(format!("AUTH:{uri}")));
    let proof = hash(format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
    let value = format!(
        "Digest username=\"alice\", realm=\"{host}\", nonce=\"{nonce}\", qop=auth, nc=00000001, \
         cnonce=\"c0ffee\", response=\"{proof}\", algorithm=SHA-256"
    );
    peer.write(request("auth2", "AUTH", &path, ALICE, &format!("Authorization: {value}\r\n")));
    let granted = peer.next();
    assert_eq!(granted.start, "200", "{granted:?}");
    // The relay has proved that it knows the password, too.
    let given = Authorization::parse(value.as_bytes()).expect("good");
    let credentials = Credentials::derive(b"alice", host.as_bytes(), b"secret");
    let expected = response_proof(&credentials, &given, uri.as_bytes()).expect("both hashes");
    let info = granted.header("Authentication-Info").expect("one");
    assert_eq!(parameter(info, "rspauth"), expected.as_str());
    let path = granted.header("Use-Path").expect("one");
    path.split(' ').map(str::to_owned).collect()
}

pub(crate) fn port_of(uri: &str) -> u16 {
    let authority = uri.split('/').nth(2).expect("one");
    authority.rsplit(':').next().expect("one").parse().expect("a port")
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
