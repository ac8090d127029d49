//! A whole IMS-ALG with OpenSSL's own programs as the media of UEs: protected up to the access edge, and in
//! the clear in the core.

mod border_ue;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use border_ue::{Party, ims_alg, line, media_address, side};
use control_api::border::SideRole;
use control_api::node::{Node, Stopped};
use support::http::request;
use support::program::{PATIENCE, Program, find, wait_until};
use tempfile::TempDir;

/// A UE's certificate and the program that uses it.
struct Media<'a> {
    openssl: &'a Path,
    directory: TempDir,
}

impl<'a> Media<'a> {
    fn new(openssl: &'a Path) -> Self {
        let media = Self { openssl, directory: tempfile::tempdir().expect("writable") };
        let mut command = Command::new(openssl);
        command.args(["req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=ue", "-newkey", "ec"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-keyout"]).arg(media.path("key.pem"));
        let made = command.arg("-out").arg(media.path("cert.pem")).output().expect("runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        media
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn fingerprint(&self) -> String {
        let mut command = Command::new(self.openssl);
        command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]);
        let output = command.arg(self.path("cert.pem")).output().expect("runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let (_, digits) = text.trim().split_once('=').expect("a fingerprint");
        format!("sha-256 {digits}")
    }

    /// TLS client: it connects.
    fn s_client(&self, address: SocketAddr) -> Program {
        let mut command = Command::new(self.openssl);
        command.args(["s_client", "-nocommands", "-connect", &address.to_string()]);
        command.arg("-cert").arg(self.path("cert.pem")).arg("-key").arg(self.path("key.pem"));
        Program::start(&mut command)
    }

    /// TLS server, and where it listens.
    fn s_server(&self) -> (Program, SocketAddr) {
        let mut command = Command::new(self.openssl);
        command.args(["s_server", "-accept", "127.0.0.1:0", "-Verify", "1", "-cert"]);
        command.arg(self.path("cert.pem")).arg("-key").arg(self.path("key.pem"));
        let server = Program::start(&mut command);
        let address = |output: &str| {
            let line = output.lines().find_map(|line| line.strip_prefix("ACCEPT "))?;
            line.trim().parse().ok()
        };
        wait_until(|| address(&server.output()).is_some(), || server.output());
        let address = address(&server.output()).expect("just seen");
        (server, address)
    }
}

/// What is carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Msrp,
    Bfcp,
}

impl Kind {
    fn sdp(self, name: &str, address: SocketAddr, setup: &str, security: Option<&str>) -> String {
        let (tls, scheme) = if security.is_some() { ("TLS/", "msrps") } else { ("", "msrp") };
        let (ip, port) = (address.ip(), address.port());
        let media = match self {
            Self::Msrp => format!(
                "m=message {port} TCP/{tls}MSRP *\r\na=accept-types:*\r\na=msrp-cema\r\n\
                 a=path:{scheme}://{ip}:{port}/{name}Session1;tcp\r\n"
            ),
            Self::Bfcp => format!(
                "m=application {port} TCP/{tls}BFCP *\r\na=connection:new\r\n\
                 a=floorctrl:c-s\r\na=bfcpver:1\r\n"
            ),
        };
        let security = security.unwrap_or_default();
        format!(
            "v=0\r\no={name} 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n{media}\
             a=setup:{setup}\r\n{security}"
        )
    }
}

/// A call through a node, both ends of its media up.
struct World {
    node: Node,
    ue: Party,
    peer: Party,
}

impl World {
    async fn new() -> Self {
        let mut peer = Party::new("peer").await;
        let node = Node::start(ims_alg(peer.address())).await.expect("starts");
        let mut ue = Party::new("ue").await;
        ue.node = side(&node, SideRole::Access);
        peer.node = side(&node, SideRole::Core);
        Self { node, ue, peer }
    }

    /// The UE calls with this offer and the peer takes it with that answer; what each of them was sent.
    async fn ue_calls(&mut self, offer: &str, answer: &str) -> (String, String) {
        self.ue.call("sip:peer@example.com", offer).await;
        let invite = self.peer.called().await;
        let offered = border_ue::body(&invite).to_owned();
        self.peer.respond(&invite, "200 OK", "", answer).await;
        let answered = self.ue.accepted().await;
        self.peer.receive("ACK ").await;
        (offered, answered)
    }

    async fn ue_is_called(&mut self, offer: &str, answer: &str) -> (String, String) {
        self.ue.register(&mut self.peer, "msrp-tls;mediasec, bfcp-tls;mediasec").await;
        self.peer.call_registered(&self.ue, offer).await;
        let invite = self.ue.called().await;
        let offered = border_ue::body(&invite).to_owned();
        self.ue.respond(&invite, "200 OK", "", answer).await;
        let answered = self.peer.accepted().await;
        self.ue.receive("ACK ").await;
        (offered, answered)
    }

    async fn metrics(&self) -> String {
        request(self.node.addresses().http, "GET", "/metrics").await.text()
    }

    async fn stop(self) {
        assert_eq!(self.node.stop().await, Stopped::Drained);
    }
}

/// What either end says comes out at the other: a message, with the paths that its receiver knows.
fn talk(kind: Kind, ue: &mut Program, peer: &mut TcpStream, sdp: &Exchange<'_>) {
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
    if kind == Kind::Bfcp {
        ue.write(b"from the UE\n");
        assert_eq!(read_until(peer, "\n"), "from the UE\n");
        peer.write_all(b"from the core\n").expect("writable");
        return ue.await_output("from the core");
    }
    ue.write(
        message("ueua1234", line(sdp.to_ue, "a=path:"), line(sdp.from_ue, "a=path:")).as_bytes(),
    );
    let (to, from) = (line(sdp.from_peer, "a=path:"), line(sdp.to_peer, "a=path:"));
    assert_eq!(read_until(peer, "-------ueua1234$\r\n"), message("ueua1234", to, from));
    let (to, from) = (line(sdp.to_peer, "a=path:"), line(sdp.from_peer, "a=path:"));
    peer.write_all(message("core1234", to, from).as_bytes()).expect("writable");
    ue.await_output("-------core1234$");
    let received = message("core1234", line(sdp.from_ue, "a=path:"), line(sdp.to_ue, "a=path:"));
    assert!(ue.output().contains(&received), "{}", ue.output());
}

/// What each party has said and was told.
struct Exchange<'a> {
    from_ue: &'a str,
    to_ue: &'a str,
    from_peer: &'a str,
    to_peer: &'a str,
}

fn message(id: &str, to: &str, from: &str) -> String {
    format!(
        "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {id}\r\n\
         Byte-Range: 1-5/5\r\nContent-Type: text/plain\r\n\r\nhello\r\n-------{id}$\r\n"
    )
}

fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut received = Vec::new();
    let mut byte = [0];
    while !received.ends_with(end.as_bytes()) {
        let read = stream.read(&mut byte).expect("readable");
        assert_eq!(read, 1, "it ended after {}", String::from_utf8_lossy(&received));
        received.push(byte[0]);
    }
    String::from_utf8(received).expect("text")
}

fn requested(media: &Media<'_>) -> String {
    format!("a=3ge2ae:requested\r\na=fingerprint:{}\r\n", media.fingerprint())
}

fn announced(media: &Media<'_>) -> String {
    format!("a=fingerprint:{}\r\n", media.fingerprint())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ue_that_calls_and_connects() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    for kind in [Kind::Msrp, Kind::Bfcp] {
        let media = Media::new(&openssl);
        let mut world = World::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let core = listener.local_addr().expect("bound");
        // As active it listens nowhere.
        let own = "127.0.0.1:9".parse().expect("an address");
        // BFCP: whoever has offered is client of TLS, and so is the active party of MSRP.
        let offer = kind.sdp("ue", own, "active", Some(&requested(&media)));
        let answer = kind.sdp("peer", core, "passive", None);
        let (offered, answered) = world.ue_calls(&offer, &answer).await;
        assert!(!offered.contains("TLS") && !offered.contains("fingerprint"), "{offered}");
        assert!(
            answered.contains("TCP/TLS/") && answered.contains("a=setup:passive"),
            "{answered}"
        );
        let mut ue = media.s_client(media_address(&answered));
        let (mut peer, _) = listener.accept().expect("the gateway connects");
        let sdp =
            Exchange { from_ue: &offer, to_ue: &answered, from_peer: &answer, to_peer: &offered };
        talk(kind, &mut ue, &mut peer, &sdp);
        world.ue.hang_up().await;
        world.peer.hung_up().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ue_that_calls_and_is_connected_to() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let media = Media::new(&openssl);
    let mut world = World::new().await;
    let (mut server, address) = media.s_server();
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let own = "127.0.0.1:9".parse().expect("an address");
    let offer = Kind::Msrp.sdp("ue", address, "passive", Some(&requested(&media)));
    let answer = Kind::Msrp.sdp("peer", own, "active", None);
    let (offered, answered) = world.ue_calls(&offer, &answer).await;
    assert!(answered.contains("a=setup:active"), "{answered}");
    drop(listener);
    let mut peer = TcpStream::connect(media_address(&offered)).expect("the gateway listens");
    let sdp = Exchange { from_ue: &offer, to_ue: &answered, from_peer: &answer, to_peer: &offered };
    talk(Kind::Msrp, &mut server, &mut peer, &sdp);
    world.peer.hang_up().await;
    world.ue.hung_up().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ue_that_is_called() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let own = "127.0.0.1:9".parse().expect("an address");
    for kind in [Kind::Msrp, Kind::Bfcp] {
        // MSRP: the UE connects as TLS client. BFCP: it has answered, so it is TLS server, and it listens.
        let media = Media::new(&openssl);
        let mut world = World::new().await;
        let server = (kind == Kind::Bfcp).then(|| media.s_server());
        let (address, setup) =
            server.as_ref().map_or((own, "active"), |(_, address)| (*address, "passive"));
        let offer = kind.sdp("peer", own, "actpass", None);
        let answer = kind.sdp("ue", address, setup, Some(&announced(&media)));
        let (offered, answered) = world.ue_is_called(&offer, &answer).await;
        assert!(offered.contains("TCP/TLS/") && offered.contains("a=3ge2ae:applied"), "{offered}");
        assert!(offered.contains("a=fingerprint:sha-256 "), "{offered}");
        assert!(!answered.contains("TLS") && !answered.contains("fingerprint"), "{answered}");
        let mut program = match server {
            Some((server, _)) => server,
            None => media.s_client(media_address(&offered)),
        };
        // Who can do both is made to connect.
        let mut peer = TcpStream::connect(media_address(&answered)).expect("the gateway listens");
        let sdp =
            Exchange { from_ue: &answer, to_ue: &offered, from_peer: &offer, to_peer: &answered };
        talk(kind, &mut program, &mut peer, &sdp);
        world.peer.hang_up().await;
        world.ue.hung_up().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fingerprint_one_bit_off_ends_the_call_with_the_reason_on_both_legs() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let media = Media::new(&openssl);
    let mut world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let core = listener.local_addr().expect("bound");
    let right = media.fingerprint();
    let last = right.chars().last().expect("a digit");
    let digit = last.to_digit(16).expect("a digit") ^ 1;
    let wrong = format!("{}{digit:X}", &right[..right.len() - 1]);
    let own = "127.0.0.1:9".parse().expect("an address");
    let security = requested(&media).replace(&right, &wrong);
    let offer = Kind::Msrp.sdp("ue", own, "active", Some(&security));
    let answer = Kind::Msrp.sdp("peer", core, "passive", None);
    let (_, answered) = world.ue_calls(&offer, &answer).await;
    let ue = media.s_client(media_address(&answered));
    let reason = "Q.850;cause=41;text=\"certificate not as announced (access side)\"";
    let (bye_ue, bye_peer) = (world.ue.hung_up().await, world.peer.hung_up().await);
    assert_eq!(line(&bye_ue, "Reason:"), reason);
    assert_eq!(line(&bye_peer, "Reason:"), reason);
    ue.await_output("alert");
    let metrics = world.metrics().await;
    let expected = "mrf_border_bearers_released_total{side=\"access\",profile=\"end-to-access-edge\",\
        cause=\"peer-not-authenticated\"} 1\n";
    assert!(metrics.contains(expected), "{metrics}");
    assert!(
        metrics.contains("mrf_border_calls_released_total{reason=\"peer-not-authenticated\"} 1\n"),
        "{metrics}"
    );
    world.stop().await;
}
