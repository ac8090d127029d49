//! TLS with certificates against OpenSSL's and GnuTLS's own programs, in both roles.

#[path = "../../mrfp-core/protocol/tests/tls_common/authority.rs"]
mod authority;
#[path = "support/program.rs"]
mod program;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};

use authority::{Authority, Issued};
use mrfp_protocol::tls::{
    Authorities, CertificateConfig, CertificateFault, Handshake, HandshakeError, Identity, Opened,
    PeerCertificate, Profile, ProfileConfig, Progress, SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES,
    Session,
};
use program::{PATIENCE, Program, find, wait_until};
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;

const HOST: &str = "relay.example.com";

/// An authority, a certificate of it for [`HOST`], and both on disk.
struct Certificates {
    authority: Authority,
    issued: Issued,
    directory: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let authority = Authority::new("test authority");
        // OpenSSL insists on the purpose where we are its client.
        let issued = authority.issue_with(&[HOST], |params| {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        });
        let directory = tempfile::tempdir().expect("writable");
        let certificates = Self { authority, issued, directory };
        certificates.write("authority.pem", &certificates.authority.pem);
        certificates.write("chain.pem", &certificates.issued.chain);
        certificates.write("key.pem", &certificates.issued.key);
        certificates.write("other.pem", &Authority::new("other authority").pem);
        certificates
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("writable");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn profile(&self) -> Profile {
        let identity = Identity::from_pem(self.issued.chain.as_bytes(), self.issued.key.as_bytes());
        let authorities = Authorities::from_pem(self.authority.pem.as_bytes());
        let config = CertificateConfig {
            identity: identity.expect("just made"),
            authorities: authorities.expect("just made"),
        };
        let profile = Profile::new(&ProfileConfig::default()).expect("the default");
        profile.with_certificates(&config).expect("a good certificate")
    }
}

/// Our end on a socket.
struct Ours {
    stream: TcpStream,
    session: Session,
    input: Vec<u8>,
    peer: Option<PeerCertificate>,
}

impl Ours {
    fn establish(mut stream: TcpStream, mut handshake: Handshake) -> Result<Self, HandshakeError> {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let (mut input, mut output) = (Vec::new(), Vec::new());
        loop {
            let result = handshake.advance(&input, &mut output);
            let _ = stream.write_all(&std::mem::take(&mut output));
            let (consumed, progress) = result?;
            input.drain(..consumed);
            match progress {
                Progress::NeedInput => read(&mut stream, &mut input),
                Progress::NeedPsk => panic!("no key is in play"),
                Progress::Done(session) => {
                    let peer = handshake.take_peer_certificate();
                    return Ok(Self { stream, session, input, peer });
                }
            }
        }
    }

    /// The next data; `None` when the peer has closed.
    fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.open() {
                Opened::NeedInput => read(&mut self.stream, &mut self.input),
                Opened::Data { plaintext, consumed } => {
                    let data = self.input[plaintext].to_vec();
                    self.input.drain(..consumed);
                    return Some(data);
                }
                Opened::Handled { consumed } => drop(self.input.drain(..consumed)),
                Opened::CloseNotify { .. } => return None,
            }
        }
    }

    /// The next record is one of TLS's own.
    fn handle_record(&mut self) {
        loop {
            match self.open() {
                Opened::NeedInput => read(&mut self.stream, &mut self.input),
                Opened::Handled { consumed } => return drop(self.input.drain(..consumed)),
                other @ (Opened::Data { .. } | Opened::CloseNotify { .. }) => {
                    panic!("{other:?} instead of a key update")
                }
            }
        }
    }

    fn open(&mut self) -> Opened {
        let opened = self.session.open(&mut self.input).expect("a sound record");
        let _ = self.stream.write_all(&self.session.pending_output());
        opened
    }

    fn send(&mut self, plaintext: &[u8]) {
        let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + plaintext.len();
        let mut memory = vec![0; range.end + SEAL_TAILROOM_BYTES];
        memory[range.clone()].copy_from_slice(plaintext);
        let record = self.session.seal(&mut memory, range).expect("room");
        self.stream.write_all(&memory[record]).expect("the peer reads");
    }

    /// Answers every line in capitals until the peer closes.
    fn answer(mut self) -> Self {
        while let Some(data) = self.receive() {
            self.send(&data.to_ascii_uppercase());
        }
        let close = self.session.close_notify();
        let _ = self.stream.write_all(&close);
        self
    }
}

fn read(stream: &mut TcpStream, input: &mut Vec<u8>) {
    let mut buffer = [0; 16 * 1024];
    let length = stream.read(&mut buffer).expect("the peer says something");
    assert_ne!(length, 0, "the peer hung up in the middle");
    input.extend_from_slice(&buffer[..length]);
}

/// Our server, for one client: what became of it.
fn serve(certificates: &Certificates) -> (SocketAddr, JoinHandle<Result<Ours, HandshakeError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound");
    let handshake = Handshake::server(&certificates.profile()).expect("a profile");
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody connects");
        Ours::establish(stream, handshake).map(Ours::answer)
    });
    (address, served)
}

fn s_client(openssl: &Path, to: SocketAddr, authority: &Path) -> Command {
    let mut command = Command::new(openssl);
    command.args(["s_client", "-connect", &to.to_string(), "-servername", HOST]);
    command.args(["-verify_hostname", HOST, "-verify_return_error", "-CAfile"]).arg(authority);
    command
}

/// What is typed to have OpenSSL's programs update their keys (`K`: and ask for new ones of ours),
/// each time followed by something said with the new ones.
const UPDATES: [(&[u8], &str); 3] =
    [(b"K\n", "after one"), (b"k\n", "after two"), (b"K\n", "after three")];

/// Version and suite as OpenSSL's options.
const SUITES: [[&str; 3]; 6] = [
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
    ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
];

#[test]
fn openssl_s_client_is_served_with_every_suite() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let certificates = Certificates::new();
    for suite in SUITES {
        let (address, served) = serve(&certificates);
        let mut command = s_client(&openssl, address, &certificates.path("authority.pem"));
        let mut client = Program::start(command.args(suite));
        client.await_output("Verify return code: 0 (ok)");
        client.write(b"first words\n");
        client.await_output("FIRST WORDS");
        if suite[0] == "-tls1_3" {
            for (updates, (command, words)) in (1..).zip(UPDATES) {
                client.write(command);
                // It reads what is typed together as one command.
                wait_until(
                    || client.output().matches("KEYUPDATE\n").count() == updates,
                    || format!("an update: {}", client.output()),
                );
                client.write(format!("{words}\n").as_bytes());
                client.await_output(&words.to_uppercase());
            }
        }
        client.write(b"Q\n");
        assert!(client.await_end(PATIENCE).success());
        let ours = served.join().expect("served").expect("established");
        assert!(ours.session.suite() == suite[2], "{:?}", ours.session);
        assert!(ours.peer.is_none());
    }
}

#[test]
fn a_relay_that_is_openssl_proves_its_name() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let certificates = Certificates::new();
    let relay = certificates.authority.issue(&["next.example.com"]);
    certificates.write("relay.pem", &relay.chain);
    certificates.write("relay-key.pem", &relay.key);
    for version in ["-tls1_2", "-tls1_3"] {
        let (address, served) = serve(&certificates);
        let mut command = s_client(&openssl, address, &certificates.path("authority.pem"));
        command.arg(version).arg("-cert").arg(certificates.path("relay.pem"));
        let mut client =
            Program::start(command.arg("-key").arg(certificates.path("relay-key.pem")));
        client.write(b"first words\n");
        client.await_output("FIRST WORDS");
        client.write(b"Q\n");
        client.await_end(PATIENCE);
        let peer = served.join().expect("served").expect("established").peer;
        let peer = peer.expect("it has shown its certificate");
        assert!(peer.proves("next.example.com"));
        assert!(!peer.proves(HOST));
    }
}

#[test]
fn a_client_that_does_not_trust_us_says_why() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let certificates = Certificates::new();
    let (address, served) = serve(&certificates);
    let mut command = s_client(&openssl, address, &certificates.path("other.pem"));
    let mut client = Program::start(&mut command);
    client.await_end(PATIENCE);
    // unknown_ca
    assert_eq!(served.join().expect("served").err(), Some(HandshakeError::AlertReceived(48)));
}

#[test]
fn gnutls_cli_is_served_with_both_versions() {
    let Some(gnutls) = find("gnutls-cli", "gnutls-bin") else { return };
    let certificates = Certificates::new();
    for version in ["TLS1.2", "TLS1.3"] {
        let (address, served) = serve(&certificates);
        let mut command = Command::new(&gnutls);
        command.args(["--port", &address.port().to_string(), "--verify-hostname", HOST]);
        command.args(["--priority", &format!("NORMAL:-VERS-ALL:+VERS-{version}")]);
        command.arg("--x509cafile").arg(certificates.path("authority.pem"));
        command.args(["--inline-commands", &address.ip().to_string()]);
        let mut client = Program::start(&mut command);
        client.await_output("The certificate is trusted.");
        client.await_output("Handshake was completed");
        client.write(b"first words\n");
        client.await_output("FIRST WORDS");
        if version == "TLS1.3" {
            for (command, words) in [("^rekey^\n", "after one"), ("^rekey^\n", "after two")] {
                client.write(command.as_bytes());
                client.write(format!("{words}\n").as_bytes());
                client.await_output(&words.to_uppercase());
            }
        }
        drop(client);
        // Killed: it says no goodbye, and our end sees that.
        assert!(served.join().is_err());
    }
}

/// A server of OpenSSL's that writes what it hears to its output and sends what is typed.
fn s_server(
    openssl: &Path,
    certificates: &Certificates,
    arguments: &[&str],
) -> (Program, SocketAddr) {
    let mut command = Command::new(openssl);
    command.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"]).args(arguments);
    command.arg("-cert").arg(certificates.path("chain.pem"));
    command.arg("-key").arg(certificates.path("key.pem"));
    let program = Program::start(&mut command);
    let address = || {
        let output = program.output();
        output.lines().find_map(|line| line.strip_prefix("ACCEPT ")?.trim().parse().ok())
    };
    wait_until(|| address().is_some(), || format!("its address: {}", program.output()));
    let address = address().expect("just seen");
    (program, address)
}

fn connect(address: SocketAddr, profile: &Profile, host: &str) -> Result<Ours, HandshakeError> {
    let stream = TcpStream::connect(address).expect("it listens");
    Ours::establish(stream, Handshake::certificate_client(profile, host)?)
}

#[test]
fn we_are_a_client_of_openssl_s_server_with_every_suite() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let certificates = Certificates::new();
    let authority = certificates.path("authority.pem");
    let authority = authority.to_str().expect("text");
    for suite in SUITES {
        // It wants a certificate of ours, too.
        let mutual = ["-Verify", "1", "-verify_return_error", "-CAfile", authority];
        let arguments = [&suite[..], &mutual].concat();
        let (mut server, address) = s_server(&openssl, &certificates, &arguments);
        let mut ours = connect(address, &certificates.profile(), HOST).expect("established");
        assert_eq!(ours.session.suite(), suite[2]);
        if suite[0] == "-tls1_3" {
            // Two tickets that nobody will use.
            ours.handle_record();
            ours.handle_record();
        }
        ours.send(b"first words\n");
        server.await_output("first words");
        server.write(b"an answer\n");
        assert_eq!(ours.receive().expect("open"), b"an answer\n");
        if suite[0] == "-tls1_3" {
            for (command, words) in UPDATES {
                server.write(command);
                ours.handle_record();
                server.write(words.as_bytes());
                assert_eq!(ours.receive().expect("open"), words.as_bytes());
                ours.send(format!("heard {words}").as_bytes());
                server.await_output(&format!("heard {words}"));
            }
        }
        let close = ours.session.close_notify();
        ours.stream.write_all(&close).expect("it reads");
        assert!(server.await_end(PATIENCE).success());
        assert!(server.output().contains("CONNECTION CLOSED"), "{}", server.output());
        assert!(!server.output().contains("ERROR"), "{}", server.output());
    }
}

#[test]
fn we_refuse_an_openssl_s_server_that_is_not_the_one_we_want() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let certificates = Certificates::new();
    let profile = certificates.profile();
    let stranger = Certificates::new();
    let fault = |fault| Some(HandshakeError::Certificate(fault));
    for version in ["-tls1_2", "-tls1_3"] {
        let (server, address) = s_server(&openssl, &certificates, &[version]);
        let error = connect(address, &profile, "other.example.com").err();
        assert_eq!(error, fault(CertificateFault::NameMismatch));
        server.await_output("alert bad certificate");

        let (server, address) = s_server(&openssl, &stranger, &[version]);
        let error = connect(address, &profile, HOST).err();
        assert!(
            error == fault(CertificateFault::UnknownIssuer)
                || error == fault(CertificateFault::Signature)
        );
        server.await_output("alert");
    }
}
