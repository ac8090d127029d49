//! The gateway in the kernel, between OpenSSL's own programs and plain sockets in the core, and between two
//! fax machines of libspandsp.

#[path = "foreign/line.rs"]
mod line;
#[path = "../../control-api/tests/support/program.rs"]
mod program;

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use line::Line;
use mrfp_core::mp::{
    Bearer, Command, ContextId, Establishment, Event, InterfaceId, RealmId, ReleaseCause,
    RemoteConnectionPoint, ReserveConnectionPoint, Source, TerminationId, TlsRole,
};
use mrfp_core::{
    Config, GatewayConfig, GatewayProfile, Interface, Limits, Mrfp, Port, ShardConfig,
};
use mrfp_io::{Doorbell, DoorbellReceiver, doorbell};
use mrfp_protocol::tls::{Fingerprint, Identity, ProfileConfig};
use program::{PATIENCE, Program, compiled, find, wait_until};
use tempfile::TempDir;

const ACCESS: u64 = 1;
const CORE: u64 = 2;
/// Kinds of keys as `openssl req -newkey` knows them.
const KEYS: [&[&str]; 2] = [&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], &["rsa:2048"]];

#[test]
fn s_client_talks_to_the_core() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    for key in KEYS {
        let ue = Ue::new(&openssl, key);
        let mut gateway = Gateway::start();
        let core = gateway.core();
        let remote = secured(TlsRole::Server, Source::Any, None, &ue);
        let access = gateway.reserve(ACCESS, Bearer::DtlsOverUdp, remote);
        let mut client = ue.s_client(access, true);
        gateway.await_bound(ACCESS);
        client.write(b"from the UE\n");
        assert_eq!(core.receive(), b"from the UE\n");
        core.send(b"from the core\n");
        client.await_output("from the core");
        client.write(b"Q\n");
        assert_eq!(gateway.await_released(ACCESS), ReleaseCause::PeerClosed, "{key:?}");
        gateway.stop();
    }
}

#[test]
fn s_server_is_talked_to() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    for key in KEYS {
        let ue = Ue::new(&openssl, key);
        let mut gateway = Gateway::start();
        let core = gateway.core();
        let (mut server, address) = ue.s_server();
        let remote = secured(TlsRole::Client, Source::Address, Some(address), &ue);
        gateway.reserve(ACCESS, Bearer::DtlsOverUdp, remote);
        gateway.await_bound(ACCESS);
        core.send(b"from the core\n");
        server.await_output("from the core");
        server.write(b"from the UE\n");
        assert_eq!(core.receive(), b"from the UE\n", "{key:?}");
        gateway.stop();
    }
}

#[test]
fn whose_certificate_was_not_announced_is_refused() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let (ue, other) = (Ue::new(&openssl, KEYS[0]), Ue::new(&openssl, KEYS[0]));
    let mut gateway = Gateway::start();
    let (server, address) = ue.s_server();
    let remote = secured(TlsRole::Client, Source::Address, Some(address), &other);
    gateway.reserve(ACCESS, Bearer::DtlsOverUdp, remote);
    gateway.core();
    assert_eq!(gateway.await_released(ACCESS), ReleaseCause::PeerNotAuthenticated);
    server.await_output("bad certificate");
    gateway.stop();
}

/// RFC 7345 section 4.1: the suites that everybody has are RSA's.
#[test]
fn who_knows_nothing_but_rsa_is_served_with_its_certificates() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let ue = Ue::new(&openssl, KEYS[1]);
    for suite in ["ECDHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256"] {
        let profile = GatewayProfile { rsa_certificates: true, ..GatewayProfile::default() };
        let mut gateway = Gateway::with(profile);
        let core = gateway.core();
        let remote = secured(TlsRole::Server, Source::Any, None, &ue);
        let access = gateway.reserve(ACCESS, Bearer::DtlsOverUdp, remote);
        let mut client = ue.s_client_of(access, true, &["-cipher", suite]);
        gateway.await_bound(ACCESS);
        client.write(b"from the UE\n");
        assert_eq!(core.receive(), b"from the UE\n", "{suite}");
        gateway.stop();
    }
}

#[test]
fn a_suite_that_is_not_in_the_profile_is_not_spoken() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let ue = Ue::new(&openssl, KEYS[0]);
    let dtls_suites = vec!["ECDHE-ECDSA-AES256-GCM-SHA384".to_owned()];
    let mut gateway = Gateway::with(GatewayProfile { dtls_suites, ..GatewayProfile::default() });
    gateway.core();
    let remote = secured(TlsRole::Server, Source::Any, None, &ue);
    let access = gateway.reserve(ACCESS, Bearer::DtlsOverUdp, remote);
    let mut client = ue.s_client_of(access, true, &["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]);
    client.await_output("handshake failure");
    client.await_end(PATIENCE);
    let _client = ue.s_client(access, true);
    gateway.await_bound(ACCESS);
    gateway.stop();
}

#[test]
fn whoever_has_no_certificate_is_refused() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let ue = Ue::new(&openssl, KEYS[0]);
    let mut gateway = Gateway::start();
    gateway.core();
    let remote = secured(TlsRole::Server, Source::Any, None, &ue);
    let access = gateway.reserve(ACCESS, Bearer::DtlsOverUdp, remote);
    let mut client = ue.s_client(access, false);
    client.await_output("bad certificate");
    client.await_end(PATIENCE);
    // Nobody was kept out by that.
    let _client = ue.s_client(access, true);
    gateway.await_bound(ACCESS);
    gateway.stop();
}

/// An image on its way from the UE to the core and from the core to the UE, over lines that lose one datagram in
/// a hundred and let others overtake.
#[test]
fn a_fax_arrives_as_it_was_sent() {
    let options = ["-lspandsp", "-ltiff"];
    let header = "/usr/include/spandsp/t38_terminal.h";
    let Some(machine) = compiled("fax_machine.c", header, "libspandsp-dev", &options) else {
        return;
    };
    let directory = tempfile::tempdir().expect("writable");
    let original = directory.path().join("original.tif");
    let run = |verb: &str, file: &Path| {
        let output = Process::new(&machine.program).arg(verb).arg(file).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    run("draw", &original);
    let expected = run("dump", &original);
    assert_eq!(expected.lines().count(), 400);
    for from_ue in [true, false] {
        let copy = directory.path().join(format!("copy-{from_ue}.tif"));
        let fax = |verb: &str, file: &Path, line: &Line| {
            let mut command = Process::new(&machine.program);
            command.arg(verb).arg(file).arg(line.port().to_string());
            Program::start(&mut command)
        };
        let mut gateway = Gateway::start();
        let core = gateway.core();
        let identity = Identity::self_signed().expect("made");
        let known = RemoteConnectionPoint {
            fingerprints: vec![identity.fingerprint()],
            ..remote(Source::Any, None)
        };
        let access = gateway.reserve(ACCESS, Bearer::DtlsOverUdp, known);
        let announced = gateway.fingerprint(ACCESS);
        let ue = Line::secured(access, &identity, &announced);
        gateway.await_bound(ACCESS);
        let core = Line::plain(core.0);
        let (caller, called) = if from_ue { (&ue, &core) } else { (&core, &ue) };
        let answering = fax("answer", &copy, called);
        let calling = fax("call", &original, caller);
        calling.await_output("RESULT 0");
        answering.await_output("RESULT 0");
        assert_eq!(run("dump", &copy), expected);
        // The answering machine says little.
        assert!(caller.lost() > 0);
        drop(ue.end());
        tshark_knows(&core.end());
        gateway.stop();
    }
}

/// What has come out of the gateway in the clear is T.38, and nothing of it is malformed.
fn tshark_knows(datagrams: &[Vec<u8>]) {
    let (Some(tshark), Some(text2pcap)) =
        (find("tshark", "tshark"), find("text2pcap", "wireshark-common"))
    else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let (text, file) = (directory.path().join("hex"), directory.path().join("pcap"));
    let mut dump = String::new();
    for datagram in datagrams {
        dump.push_str("000000");
        datagram.iter().for_each(|byte| dump.push_str(&format!(" {byte:02x}")));
        dump.push('\n');
    }
    std::fs::write(&text, dump).expect("written");
    let mut converted = Process::new(text2pcap);
    converted.args(["-q", "-u", "40000,6004"]).arg(&text).arg(&file);
    assert!(converted.status().expect("runs").success());
    let read = |arguments: &[&str]| {
        let mut command = Process::new(&tshark);
        command.arg("-r").arg(&file).args(["-d", "udp.port==6004,t38"]).args(arguments);
        let output = command.output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let seen = read(&["-Y", "t38", "-T", "fields", "-e", "t38.seq_number"]);
    let number = |it: &Vec<u8>| u16::from_be_bytes([it[0], it[1]]).to_string();
    let expected: Vec<_> = datagrams.iter().map(number).collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    assert!(expected.len() > 10, "{}", expected.len());
    let faults = read(&["-Y", "_ws.malformed", "-T", "fields", "-e", "_ws.expert.message"]);
    // Its reassembly says so of frames whose beginning the lines have lost or delayed.
    let is_of_lines = |fault: &str| fault.starts_with("[RECEIVED END OF FRAGMENT W/OUT");
    assert!(faults.lines().all(is_of_lines), "{faults}");
}

/// A UE that is a program: its self-signed certificate and its key.
struct Ue<'a> {
    openssl: &'a Path,
    directory: TempDir,
}

impl<'a> Ue<'a> {
    fn new(openssl: &'a Path, key: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("writable");
        let ue = Self { openssl, directory };
        let mut request = Process::new(openssl);
        request.args(["req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=ue", "-newkey"]);
        request.args(key);
        request.arg("-keyout").arg(ue.path("key.pem")).arg("-out").arg(ue.path("cert.pem"));
        let made = request.output().expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        ue
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What `openssl` finds, as an SDP would say it.
    fn fingerprint(&self) -> Fingerprint {
        let mut command = Process::new(self.openssl);
        command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]);
        let output = command.arg(self.path("cert.pem")).output().expect("openssl runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let (_, digits) = text.trim().split_once('=').expect("a fingerprint");
        Fingerprint::parse(&format!("sha-256 {digits}")).expect("a good one")
    }

    fn s_client(&self, address: SocketAddr, with_certificate: bool) -> Program {
        self.s_client_of(address, with_certificate, &[])
    }

    fn s_client_of(
        &self,
        address: SocketAddr,
        with_certificate: bool,
        options: &[&str],
    ) -> Program {
        let mut command = Process::new(self.openssl);
        command.args(["s_client", "-dtls1_2", "-connect", &address.to_string()]).args(options);
        if with_certificate {
            command.arg("-cert").arg(self.path("cert.pem")).arg("-key").arg(self.path("key.pem"));
        }
        Program::start(&mut command)
    }

    /// One that asks for a certificate, and where it listens. Over UDP it does not say which port it
    /// was given.
    fn s_server(&self) -> (Program, SocketAddr) {
        let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.expect("a free port");
        let mut command = Process::new(self.openssl);
        command.args(["s_server", "-dtls1_2", "-Verify", "1", "-accept", &address.to_string()]);
        command.arg("-cert").arg(self.path("cert.pem")).arg("-key").arg(self.path("key.pem"));
        let server = Program::start(&mut command);
        server.await_output("ACCEPT");
        (server, address)
    }
}

/// A fax machine in the core, in the clear.
struct Core(UdpSocket);

impl Core {
    fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).expect("sent");
    }

    fn receive(&self) -> Vec<u8> {
        let mut memory = [0; 2048];
        let length = self.0.recv(&mut memory).expect("a datagram");
        memory[..length].to_vec()
    }
}

/// A gateway with one shard, and its controller.
struct Gateway {
    ports: Vec<Port>,
    seen: Vec<Event>,
    _bell: (Doorbell, DoorbellReceiver),
}

impl Gateway {
    fn start() -> Self {
        Self::with(GatewayProfile::default())
    }

    fn with(profile: GatewayProfile) -> Self {
        let loopback = Interface { listen: "127.0.0.1".parse().unwrap(), advertise: None };
        let config = Config {
            shards: vec![ShardConfig {
                core: None,
                listen: "127.0.0.1:0".parse().unwrap(),
                advertise: None,
            }],
            limits: Limits { recv_buffers: 64, ..Limits::default() },
            profile: ProfileConfig::default(),
            certificate: None,
            relay: None,
            gateway: Some(GatewayConfig {
                interfaces: vec![loopback, loopback],
                certificates_ready: 4,
                profile,
            }),
        };
        let bell = doorbell().expect("a descriptor");
        let ports = Mrfp::start(&config, &bell.0).expect("a ring");
        Self { ports, seen: Vec::new(), _bell: bell }
    }

    fn reserve(
        &mut self,
        termination: u64,
        bearer: Bearer,
        remote: RemoteConnectionPoint,
    ) -> SocketAddr {
        let reserve = ReserveConnectionPoint {
            context: ContextId(1),
            termination: TerminationId(termination),
            realm: RealmId::default(),
            interface: InterfaceId(termination as u16 - 1),
            bearer,
            remote: Some(remote),
        };
        self.ports[0].send(Command::ReserveConnectionPoint(Box::new(reserve))).expect("room");
        self.wait_for("the reservation", |event| match event {
            Event::ConnectionPointReserved { termination: id, address, .. } => {
                (id.0 == termination).then_some(*address)
            }
            Event::Refused { reason, .. } => panic!("{reason:?}"),
            _ => None,
        })
    }

    /// Of the certificate of a connection point.
    fn fingerprint(&mut self, termination: u64) -> Fingerprint {
        self.wait_for("the fingerprint", |event| match event {
            Event::ConnectionPointReserved { termination: id, fingerprint, .. } => {
                fingerprint.clone().filter(|_| id.0 == termination)
            }
            _ => None,
        })
    }

    fn core(&mut self) -> Core {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        let own = socket.local_addr().expect("an address");
        let address = self.reserve(CORE, Bearer::Udp, remote(Source::Address, Some(own)));
        socket.connect(address).expect("an address");
        Core(socket)
    }

    fn await_bound(&mut self, termination: u64) {
        self.wait_for("the bearer", |event| match event {
            Event::Bound { termination: id } => (id.0 == termination).then_some(()),
            Event::BearerReleased { cause, .. } => panic!("{cause:?}"),
            _ => None,
        });
    }

    fn await_released(&mut self, termination: u64) -> ReleaseCause {
        self.wait_for("the end of the bearer", |event| match event {
            Event::BearerReleased { termination: id, cause } => {
                (id.0 == termination).then_some(*cause)
            }
            _ => None,
        })
    }

    fn wait_for<T>(&mut self, what: &str, found: impl Fn(&Event) -> Option<T>) -> T {
        let (port, seen) = (&mut self.ports[0], &mut self.seen);
        let mut result = None;
        wait_until(
            || {
                seen.extend(std::iter::from_fn(|| port.receive()));
                result = seen.iter().find_map(&found);
                result.is_some()
            },
            || what.to_owned(),
        );
        result.expect("waited for")
    }

    /// Everything is given back.
    fn stop(mut self) {
        for termination in [ACCESS, CORE].map(TerminationId) {
            self.ports[0].send(Command::Subtract { termination }).expect("room");
            self.wait_for("the subtraction", |event| {
                matches!(event, Event::Subtracted { termination: id, .. } if *id == termination)
                    .then_some(())
            });
        }
        self.ports[0].send(Command::Stop).expect("room");
        self.wait_for("the end", |event| matches!(event, Event::Stopped).then_some(()));
        self.ports.into_iter().for_each(|port| port.join().expect("no failure"));
    }
}

fn remote(source: Source, address: Option<SocketAddr>) -> RemoteConnectionPoint {
    RemoteConnectionPoint {
        address,
        establishment: Establishment::Incoming,
        tls_role: TlsRole::Server,
        fingerprints: Vec::new(),
        source,
        msrp: None,
    }
}

fn secured(
    tls_role: TlsRole,
    source: Source,
    address: Option<SocketAddr>,
    ue: &Ue<'_>,
) -> RemoteConnectionPoint {
    RemoteConnectionPoint {
        tls_role,
        fingerprints: vec![ue.fingerprint()],
        ..remote(source, address)
    }
}
