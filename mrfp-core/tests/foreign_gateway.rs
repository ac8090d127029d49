//! The gateway in the kernel, between OpenSSL's own programs as UEs and plain sockets in the core.

#[path = "../../control-api/tests/support/program.rs"]
mod program;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use mrfp_core::mp::{
    Bearer, Command, ContextId, Establishment, Event, InterfaceId, RealmId, ReleaseCause,
    RemoteConnectionPoint, ReserveConnectionPoint, Source, TerminationId, TlsRole,
};
use mrfp_core::{
    Config, GatewayConfig, GatewayProfile, Interface, Limits, Mrfp, Port, ShardConfig,
};
use mrfp_io::{Doorbell, DoorbellReceiver, doorbell};
use mrfp_protocol::tls::{Fingerprint, ProfileConfig};
use program::{PATIENCE, Program, find, wait_until};
use tempfile::TempDir;

const ACCESS: u64 = 1;
const CORE: u64 = 2;
/// Kinds of keys as `openssl req -newkey` knows them.
const KEYS: [&str; 3] = ["ec:P-256", "rsa:2048", "ec:P-384"];
const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

#[test]
fn s_client_talks_to_the_core() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    for (version, key) in VERSIONS.into_iter().zip(KEYS) {
        let ue = Ue::new(&openssl, key);
        let mut gateway = Gateway::start();
        let (access, own) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, incoming(ue.announced()));
        let mut core = gateway.connected_core();
        let mut client = ue.s_client(access, version, true);
        gateway.await_bound(ACCESS);
        client.write(b"from the UE\n");
        assert_eq!(read_line(&mut core), "from the UE\n");
        core.write_all(b"from the core\n").unwrap();
        client.await_output("from the core");
        client.await_output("-----END CERTIFICATE-----");
        assert_eq!(ue.fingerprint_of(&client.output()), own.unwrap(), "{version} {key}");
        core.shutdown(std::net::Shutdown::Write).unwrap();
        client.await_end(PATIENCE);
        assert_eq!(gateway.await_released(CORE), ReleaseCause::PeerClosed);
        gateway.stop();
    }
}

#[test]
fn s_server_is_connected_to() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    for (version, key) in VERSIONS.into_iter().zip(KEYS) {
        let ue = Ue::new(&openssl, key);
        let mut gateway = Gateway::start();
        let (mut server, address) = ue.s_server(version);
        let remote = RemoteConnectionPoint {
            address: Some(address),
            establishment: Establishment::AtOnce,
            tls_role: TlsRole::Client,
            ..incoming(ue.announced())
        };
        gateway.reserve(ACCESS, Bearer::TlsOverTcp, remote);
        let mut core = gateway.connected_core();
        gateway.await_bound(ACCESS);
        core.write_all(b"from the core\n").unwrap();
        server.await_output("from the core");
        server.write(b"from the UE\n");
        assert_eq!(read_line(&mut core), "from the UE\n");
        // The operator of s_server says goodbye.
        server.write(b"Q\n");
        assert_eq!(gateway.await_released(ACCESS), ReleaseCause::PeerClosed, "{version} {key}");
        assert_eq!(core.read(&mut [0; 16]).unwrap(), 0, "TCP is released with TLS");
        gateway.stop();
    }
}

#[test]
fn openssl_is_known_by_every_hash() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let ue = Ue::new(&openssl, KEYS[0]);
    for hash in ["sha1", "sha256", "sha384", "sha512"] {
        let mut gateway = Gateway::start();
        let announced = vec![ue.fingerprint(hash)];
        let (access, _) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, incoming(announced));
        let _client = ue.s_client(access, "-tls1_3", true);
        gateway.await_bound(ACCESS);
        gateway.stop();
    }
}

#[test]
fn s_client_is_refused_whose_certificate_was_not_announced() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let (ue, other) = (Ue::new(&openssl, KEYS[0]), Ue::new(&openssl, KEYS[0]));
    for version in VERSIONS {
        let mut gateway = Gateway::start();
        let (access, _) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, incoming(other.announced()));
        let mut client = ue.s_client(access, version, true);
        assert_eq!(gateway.await_released(ACCESS), ReleaseCause::PeerNotAuthenticated);
        client.await_output("bad certificate");
        client.await_end(PATIENCE);
        gateway.stop();
    }
}

#[test]
fn s_server_is_refused_whose_certificate_was_not_announced() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let (ue, other) = (Ue::new(&openssl, KEYS[0]), Ue::new(&openssl, KEYS[0]));
    for version in VERSIONS {
        let mut gateway = Gateway::start();
        let (server, address) = ue.s_server(version);
        let remote = RemoteConnectionPoint {
            address: Some(address),
            establishment: Establishment::AtOnce,
            tls_role: TlsRole::Client,
            ..incoming(other.announced())
        };
        gateway.reserve(ACCESS, Bearer::TlsOverTcp, remote);
        assert_eq!(gateway.await_released(ACCESS), ReleaseCause::PeerNotAuthenticated);
        server.await_output("bad certificate");
        gateway.stop();
    }
}

#[test]
fn the_profile_says_which_versions_and_suites_are_spoken() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let ue = Ue::new(&openssl, KEYS[0]);
    for (suite, spoken, other) in [
        ("TLS_CHACHA20_POLY1305_SHA256", "-tls1_3", "-tls1_2"),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", "-tls1_2", "-tls1_3"),
    ] {
        let profile =
            GatewayProfile { tls_suites: vec![suite.to_owned()], ..GatewayProfile::default() };
        for (version, is_spoken) in [(spoken, true), (other, false)] {
            let mut gateway = Gateway::with(profile.clone());
            let (access, _) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, incoming(ue.announced()));
            let client = ue.s_client(access, version, true);
            match is_spoken {
                true => {
                    gateway.await_bound(ACCESS);
                    client.await_output(&format!("Cipher is {suite}"));
                }
                false => {
                    let cause = gateway.await_released(ACCESS);
                    assert_eq!(cause, ReleaseCause::TlsEstablishmentFailure, "{version}");
                }
            }
            gateway.stop();
        }
    }
}

#[test]
fn s_client_is_refused_without_a_certificate() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let ue = Ue::new(&openssl, KEYS[0]);
    for version in VERSIONS {
        let mut gateway = Gateway::start();
        let (access, _) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, incoming(ue.announced()));
        let mut client = ue.s_client(access, version, false);
        assert_eq!(gateway.await_released(ACCESS), ReleaseCause::PeerNotAuthenticated);
        client.await_end(PATIENCE);
        gateway.stop();
    }
}

/// A UE that is a program: its self-signed certificate and its key.
struct Ue<'a> {
    openssl: &'a Path,
    directory: TempDir,
}

impl<'a> Ue<'a> {
    fn new(openssl: &'a Path, key: &str) -> Self {
        let directory = tempfile::tempdir().expect("writable");
        let ue = Self { openssl, directory };
        let mut request = Process::new(openssl);
        request.args(["req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=ue", "-newkey"]);
        match key.split_once(':') {
            Some(("ec", curve)) => {
                request.args(["ec", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")])
            }
            _ => request.arg(key),
        };
        request.arg("-keyout").arg(ue.path("key.pem")).arg("-out").arg(ue.path("cert.pem"));
        let made = request.output().expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        ue
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn announced(&self) -> Vec<Fingerprint> {
        vec![self.fingerprint("sha256")]
    }

    /// What `openssl` finds, as an SDP would say it.
    fn fingerprint(&self, hash: &str) -> Fingerprint {
        let mut command = Process::new(self.openssl);
        command.args(["x509", "-noout", "-fingerprint", &format!("-{hash}"), "-in"]);
        let output = command.arg(self.path("cert.pem")).output().expect("openssl runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let (_, digits) = text.trim().split_once('=').expect("a fingerprint");
        Fingerprint::parse(&format!("sha-{} {digits}", &hash[3..])).expect("a good one")
    }

    /// That of the certificate in what `s_client` has said.
    fn fingerprint_of(&self, output: &str) -> Fingerprint {
        let begin = output.find("-----BEGIN CERTIFICATE-----").expect("a certificate");
        let end = output.find("-----END CERTIFICATE-----").expect("its end");
        let shown = Self { openssl: self.openssl, directory: tempfile::tempdir().unwrap() };
        let pem = format!("{}-----END CERTIFICATE-----\n", &output[begin..end]);
        std::fs::write(shown.path("cert.pem"), pem).expect("writable");
        shown.fingerprint("sha256")
    }

    fn s_client(&self, address: SocketAddr, version: &str, with_certificate: bool) -> Program {
        let mut command = Process::new(self.openssl);
        command.args(["s_client", version, "-nocommands", "-connect", &address.to_string()]);
        if with_certificate {
            command.arg("-cert").arg(self.path("cert.pem")).arg("-key").arg(self.path("key.pem"));
        }
        Program::start(&mut command)
    }

    /// One that asks for a certificate, and where it listens.
    fn s_server(&self, version: &str) -> (Program, SocketAddr) {
        let mut command = Process::new(self.openssl);
        command.args(["s_server", version, "-accept", "127.0.0.1:0", "-Verify", "1", "-cert"]);
        command.arg(self.path("cert.pem")).arg("-key").arg(self.path("key.pem"));
        let server = Program::start(&mut command);
        let address = |output: &str| {
            let line = output.lines().find_map(|line| line.strip_prefix("ACCEPT "))?;
            line.trim().parse().ok()
        };
        wait_until(|| address(&server.output()).is_some(), || server.output());
        let listens_at = address(&server.output()).expect("just seen");
        (server, listens_at)
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
    ) -> (SocketAddr, Option<Fingerprint>) {
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
            Event::ConnectionPointReserved { termination: id, address, fingerprint } => {
                (id.0 == termination).then(|| (*address, fingerprint.clone()))
            }
            Event::Refused { reason, .. } => panic!("{reason:?}"),
            _ => None,
        })
    }

    /// The peer in the core, which has connected.
    fn connected_core(&mut self) -> TcpStream {
        let (address, _) = self.reserve(CORE, Bearer::Tcp, incoming(Vec::new()));
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        self.await_bound(CORE);
        stream
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

fn incoming(fingerprints: Vec<Fingerprint>) -> RemoteConnectionPoint {
    RemoteConnectionPoint {
        address: None,
        establishment: Establishment::Incoming,
        tls_role: TlsRole::Server,
        fingerprints,
        source: Source::Any,
        msrp: None,
    }
}

fn read_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text")
}
