//! A whole IMS-ALG with OpenSSL's own programs as the media of UEs: protected up to the access edge, and in
//! the clear in the core.

mod border_ue;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
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

    /// DTLS client.
    fn dtls_client(&self, address: SocketAddr) -> Program {
        let mut command = Command::new(self.openssl);
        command.args(["s_client", "-dtls1_2", "-connect", &address.to_string()]);
        command.arg("-cert").arg(self.path("cert.pem")).arg("-key").arg(self.path("key.pem"));
        Program::start(&mut command)
    }

    /// DTLS server, and where it listens: over UDP it does not say which port it was given.
    fn dtls_server(&self) -> (Program, SocketAddr) {
        let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.expect("a free port");
        let mut command = Command::new(self.openssl);
        command.args(["s_server", "-dtls1_2", "-Verify", "1", "-accept", &address.to_string()]);
        command.arg("-cert").arg(self.path("cert.pem")).arg("-key").arg(self.path("key.pem"));
        let server = Program::start(&mut command);
        server.await_output("ACCEPT");
        (server, address)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint_by("sha256")
    }

    fn fingerprint_by(&self, hash: &str) -> String {
        let mut command = Command::new(self.openssl);
        command.args(["x509", "-noout", "-fingerprint", &format!("-{hash}"), "-in"]);
        let output = command.arg(self.path("cert.pem")).output().expect("runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let (_, digits) = text.trim().split_once('=').expect("a fingerprint");
        format!("sha-{} {digits}", &hash[3..])
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

/// What the UE agrees on at its registration.
const MECHANISMS: &str = "msrp-tls;mediasec, bfcp-tls;mediasec, udptl-dtls;mediasec";

/// What is carried over TCP.
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
        self.ue.register(&mut self.peer, MECHANISMS).await;
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

/// The description of a fax machine.
fn fax(port: u16, protocol: &str, security: &str) -> String {
    format!(
        "v=0\r\no=fax 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=image {port} {protocol} t38\r\na=T38FaxVersion:0\r\na=T38MaxBitRate:14400\r\n\
         a=T38FaxUdpEC:t38UDPRedundancy\r\n{security}"
    )
}

/// Datagrams from either end come out at the other.
fn fax_talks(ue: &mut Program, core: &UdpSocket, gateway: SocketAddr) {
    core.set_read_timeout(Some(PATIENCE)).expect("a socket");
    ue.write(b"from the UE\n");
    let mut datagram = [0; 2048];
    let length = core.recv(&mut datagram).expect("a datagram");
    assert_eq!(&datagram[..length], b"from the UE\n");
    core.send_to(b"from the core\n", gateway).expect("sent");
    ue.await_output("from the core");
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
    let wrong = one_bit_off(&right);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fax_of_a_ue_that_calls() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    for is_client in [true, false] {
        let media = Media::new(&openssl);
        let mut world = World::new().await;
        let core = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let core_port = core.local_addr().expect("bound").port();
        let server = (!is_client).then(|| media.dtls_server());
        let port = server.as_ref().map_or(9, |(_, address)| address.port());
        let setup = if is_client { "active" } else { "passive" };
        let security = format!("{}a=setup:{setup}\r\n{TLS_ID}", requested(&media));
        let offer = fax(port, "UDP/TLS/UDPTL", &security);
        let answer = fax(core_port, "udptl", "");
        let (offered, answered) = world.ue_calls(&offer, &answer).await;
        assert!(!offered.contains("setup") && !offered.contains("TLS"), "{offered}");
        assert!(answered.contains(" UDP/TLS/UDPTL t38\r\n"), "{answered}");
        assert!(
            answered.contains("a=fingerprint:") && answered.contains("a=tls-id:"),
            "{answered}"
        );
        let ours = if is_client { "a=setup:passive" } else { "a=setup:active" };
        assert!(answered.contains(ours), "{answered}");
        let mut ue = match server {
            Some((server, _)) => server,
            None => media.dtls_client(media_address(&answered)),
        };
        fax_talks(&mut ue, &core, media_address(&offered));
        world.ue.hang_up().await;
        world.peer.hung_up().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fax_to_a_ue() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    for is_client in [true, false] {
        let media = Media::new(&openssl);
        let mut world = World::new().await;
        let core = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let offer = fax(core.local_addr().expect("bound").port(), "udptl", "");
        let server = (!is_client).then(|| media.dtls_server());
        let port = server.as_ref().map_or(9, |(_, address)| address.port());
        let setup = if is_client { "active" } else { "passive" };
        let security = format!("{}a=setup:{setup}\r\n{TLS_ID}", announced(&media));
        let answer = fax(port, "UDP/TLS/UDPTL", &security);
        let (offered, answered) = world.ue_is_called(&offer, &answer).await;
        assert!(offered.contains(" UDP/TLS/UDPTL t38\r\n"), "{offered}");
        for inserted in ["a=3ge2ae:applied", "a=fingerprint:", "a=tls-id:", "a=setup:actpass"] {
            assert!(offered.contains(inserted), "{inserted}: {offered}");
        }
        assert!(!answered.contains("TLS") && !answered.contains("setup"), "{answered}");
        let mut ue = match server {
            Some((server, _)) => server,
            None => media.dtls_client(media_address(&offered)),
        };
        fax_talks(&mut ue, &core, media_address(&answered));
        world.peer.hang_up().await;
        world.ue.hung_up().await;
        world.stop().await;
    }
}

/// RFC 8122 section 5: of the fingerprints announced those of the strongest hash count, and one of them
/// has to be that of the certificate, which has to be shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ue_is_who_its_strongest_fingerprints_say() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let media = Media::new(&openssl);
    let by = |hash| media.fingerprint_by(hash);
    let cases = [
        (vec![by("sha1")], true, true),
        (vec![by("sha384")], true, true),
        (vec![by("sha512")], true, true),
        (vec![one_bit_off(&by("sha256")), by("sha256")], true, true),
        (vec![one_bit_off(&by("sha1")), by("sha512")], true, true),
        (vec![by("sha1"), one_bit_off(&by("sha256"))], true, false),
        (vec![by("sha256")], false, false),
    ];
    for (fingerprints, shows_certificate, is_known) in cases {
        let mut world = World::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let core = listener.local_addr().expect("bound");
        let own = "127.0.0.1:9".parse().expect("an address");
        let announced: String =
            fingerprints.iter().map(|it| format!("a=fingerprint:{it}\r\n")).collect();
        let security = format!("a=3ge2ae:requested\r\n{announced}");
        let offer = Kind::Bfcp.sdp("ue", own, "active", Some(&security));
        let answer = Kind::Bfcp.sdp("peer", core, "passive", None);
        let (offered, answered) = world.ue_calls(&offer, &answer).await;
        let mut ue = match shows_certificate {
            true => media.s_client(media_address(&answered)),
            false => {
                let address = media_address(&answered).to_string();
                let mut command = Command::new(&openssl);
                Program::start(command.args(["s_client", "-nocommands", "-connect", &address]))
            }
        };
        if is_known {
            let (mut peer, _) = listener.accept().expect("the gateway connects");
            let sdp = Exchange {
                from_ue: &offer,
                to_ue: &answered,
                from_peer: &answer,
                to_peer: &offered,
            };
            talk(Kind::Bfcp, &mut ue, &mut peer, &sdp);
            world.ue.hang_up().await;
        } else {
            let bye = world.ue.hung_up().await;
            let reason = line(&bye, "Reason:");
            assert!(reason.contains("certificate not as announced"), "{announced}: {reason}");
        }
        world.peer.hung_up().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_calls_next_hops_and_registrations() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let media = Media::new(&openssl);
    let mut world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let core = listener.local_addr().expect("bound");
    let own = "127.0.0.1:9".parse().expect("an address");
    let answer = Kind::Msrp.sdp("ue", own, "active", Some(&announced(&media)));
    let offer = Kind::Msrp.sdp("peer", core, "passive", None);
    let (offered, _) = world.ue_is_called(&offer, &answer).await;
    let _ue = media.s_client(media_address(&offered));
    let http = world.node.addresses().http;
    let shown = |path: &'static str| async move {
        let text = request(http, "GET", path).await.text();
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    let mut stream = serde_json::Value::Null;
    while stream["callee"]["state"] != "established" || stream["caller"]["state"] != "established" {
        let calls = shown("/api/v1/border/calls").await;
        let call = &calls["calls"][0];
        assert_eq!((&call["caller"], &call["callee"]), (&"core".into(), &"access".into()));
        assert_eq!(call["state"], "agreed");
        stream = call["streams"][0].clone();
        assert_eq!(stream["kind"], "msrp");
        assert_eq!(stream["profile"], "end-to-access-edge");
        assert_eq!(stream["callee"]["address"], media_address(&offered).to_string());
        assert_eq!(stream["caller"]["remote"], core.to_string());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let next_hops = shown("/api/v1/border/next-hops").await;
    let next_hop = &next_hops["next_hops"][0];
    assert_eq!(next_hop["address"], world.peer.address().to_string());
    assert_eq!((&next_hop["side"], &next_hop["alive"]), (&"core".into(), &true.into()));
    assert_eq!(shown("/api/v1/border/registrations").await["registrations"], 1);
    let metrics = world.metrics().await;
    for expected in [
        "mrf_border_calls 1\n",
        "mrf_border_connection_points 2\n",
        "mrf_border_registrations 1\n",
        "mrf_border_streams_total{profile=\"end-to-access-edge\"} 1\n",
        "mrf_border_bearers_established_total{side=\"access\",profile=\"end-to-access-edge\"} 1\n",
    ] {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
    let ready = world.node.ready_line();
    assert!(ready.contains(" access=udp:") && ready.contains(" core=udp:"), "{ready}");
    // The node is stopped while the call stands: both parties hear of it.
    let World { node, mut ue, mut peer } = world;
    let stopping = tokio::spawn(node.stop());
    for bye in [ue.hung_up().await, peer.hung_up().await] {
        assert_eq!(line(&bye, "Reason:"), "SIP;cause=503;text=\"shutting down\"");
    }
    assert_eq!(stopping.await.expect("ends"), Stopped::Drained);
}

/// The last digit of a fingerprint with its lowest bit turned.
fn one_bit_off(fingerprint: &str) -> String {
    let last = fingerprint.chars().last().expect("a digit");
    let digit = last.to_digit(16).expect("a digit") ^ 1;
    format!("{}{digit:X}", &fingerprint[..fingerprint.len() - 1])
}

const TLS_ID: &str = "a=tls-id:abc3de65cddef001be82\r\n";
