//! Who is measured: how each program is started, and what it takes connections on.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::machine::Processors;
use super::process::{Process, find};

/// What is started for a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Subject {
    /// `mrf` with so many shards.
    Node { shards: u32 },
    /// The node's media plane without signalling, with so many Terminations that have a key.
    Plane { sessions: u32 },
    /// The media plane between two networks, without signalling: so many Contexts.
    Gateway { profile: Profile, contexts: u32 },
    /// Its floor control, also without signalling: 1,000 conferences of ten.
    Floors { secure: bool },
    /// The relay on mrfp-io that neither parses nor encrypts, on so many threads.
    Bare { threads: u32 },
    /// Kamailio's msrp module with one child.
    Kamailio { tls: bool },
    /// One thread that copies.
    Haproxy { splice: bool },
    /// stunnel, which takes off TLS with certificates on both sides, and behind it haproxy.
    StunnelHaproxy,
    /// haproxy alone, which takes off the same TLS.
    HaproxyTls,
    /// Two processes, TLS-PSK between them.
    Stunnel,
    /// OpenSSL's own server, one thread.
    OpensslServer,
    /// The key exchange, which needs no generator: it measures itself.
    KeyExchange,
    /// The cryptography of one message of it, and nothing else.
    Primitives,
}

/// What a Context of the gateway connects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Profile {
    /// TLS with TCP.
    E2ae,
    /// TCP with TCP.
    E2e,
    /// DTLS over UDP with UDP.
    T38,
}

/// It runs, until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) processes: Vec<Process>,
    /// By the words of the plan: `SIP`, `RELAY` of the node; `IN`, and `OUT` where a far end has to
    /// listen, of the others.
    pub(crate) addresses: BTreeMap<&'static str, SocketAddr>,
}

/// Our own programs, as cargo has built them.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    pub(crate) node: PathBuf,
    pub(crate) generator: PathBuf,
    pub(crate) bare: PathBuf,
    pub(crate) plane: PathBuf,
    pub(crate) floors: PathBuf,
    pub(crate) gateway: PathBuf,
    pub(crate) records: PathBuf,
    pub(crate) key_exchange: PathBuf,
}

/// What it takes to start any of them.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) binaries: Binaries,
    pub(crate) processors: Processors,
    /// Configurations, certificates, what the programs say.
    pub(crate) directory: PathBuf,
}

impl Binaries {
    /// Where each of them is.
    pub(crate) fn of(find: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, String> {
        let find = |name: &str| {
            find(name).filter(|path| path.is_file()).ok_or_else(|| format!("there is no {name}"))
        };
        Ok(Self {
            node: find("mrf")?,
            generator: find("mrf-load")?,
            bare: find("bare")?,
            plane: find("plane")?,
            floors: find("floors")?,
            gateway: find("gateway")?,
            records: find("records")?,
            key_exchange: find("key_exchange")?,
        })
    }
}

impl Subject {
    /// For people.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Node { shards: 1 } => "mrf".to_owned(),
            Self::Node { shards } => format!("mrf, {shards} shards"),
            Self::Plane { .. } => "mrf media plane".to_owned(),
            Self::Gateway { .. } => "mrf gateway".to_owned(),
            Self::Floors { secure: false } => "mrf floor control".to_owned(),
            Self::Floors { secure: true } => "mrf floor control, TLS-PSK".to_owned(),
            Self::Bare { threads: 1 } => "bare".to_owned(),
            Self::Bare { threads } => format!("bare, {threads} threads"),
            Self::Kamailio { tls: false } => "Kamailio".to_owned(),
            Self::Kamailio { tls: true } => "Kamailio TLS".to_owned(),
            Self::Haproxy { splice: false } => "haproxy".to_owned(),
            Self::Haproxy { splice: true } => "haproxy splice".to_owned(),
            Self::StunnelHaproxy => "stunnel and haproxy".to_owned(),
            Self::HaproxyTls => "haproxy TLS".to_owned(),
            Self::Stunnel => "stunnel, two hops".to_owned(),
            Self::OpensslServer => "openssl s_server".to_owned(),
            Self::KeyExchange => "mrf key exchange".to_owned(),
            Self::Primitives => "HMAC-SHA-1 and AES".to_owned(),
        }
    }

    /// Whether it is its own generator.
    pub(crate) fn measures_itself(self) -> bool {
        matches!(self, Self::KeyExchange | Self::Primitives)
    }

    /// Says which Debian package brings what is not there.
    pub(crate) fn missing(self) -> Option<String> {
        let has_tls = || MODULES.iter().any(|path| Path::new(path).join("tls.so").is_file());
        self.missing_if(|program| find(program).is_some(), has_tls)
    }

    fn missing_if(
        self,
        is_there: impl Fn(&str) -> bool,
        has_tls: impl Fn() -> bool,
    ) -> Option<String> {
        let mut programs = self.programs().iter();
        if let Some((program, package)) = programs.find(|(program, _)| !is_there(program)) {
            return Some(format!("{program} is missing: install the Debian package {package}"));
        }
        (self == Self::Kamailio { tls: true } && !has_tls()).then(|| {
            "Kamailio's tls module is missing: install the Debian package kamailio-tls-modules"
                .to_owned()
        })
    }

    /// The first line of what each of its programs says of its version.
    pub(crate) fn version(self) -> Option<String> {
        let versions = self.programs().iter().map(|(program, _)| Self::version_of(program));
        let versions: Vec<String> = versions.collect::<Option<_>>()?;
        Some(versions.join("; ")).filter(|said| !said.is_empty())
    }

    fn version_of(program: &str) -> Option<String> {
        let option = match program {
            "stunnel" => "-version",
            "openssl" => "version",
            _ => "-v",
        };
        let output = Command::new(find(program)?).arg(option).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let line = said.lines().find(|line| line.chars().any(|digit| digit.is_ascii_digit()))?;
        Some(line.trim().to_owned())
    }

    /// What it needs that is not ours, and who brings it.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Node { .. }
            | Self::Plane { .. }
            | Self::Gateway { .. }
            | Self::Floors { .. }
            | Self::Bare { .. }
            | Self::KeyExchange
            | Self::Primitives => &[],
            Self::Kamailio { .. } => &[("kamailio", "kamailio")],
            Self::Haproxy { .. } | Self::HaproxyTls => &[("haproxy", "haproxy")],
            Self::StunnelHaproxy => &[("stunnel", "stunnel4"), ("haproxy", "haproxy")],
            Self::Stunnel => &[("stunnel", "stunnel4")],
            Self::OpensslServer => &[("openssl", "openssl")],
        }
    }

    /// Starts it and waits until it can be used.
    pub(crate) fn start(self, stage: &Stage) -> Result<Running, String> {
        match self {
            Self::Node { shards } => stage.node(shards),
            Self::Plane { sessions } => stage.target(
                "plane ready",
                &stage.binaries.plane,
                &[
                    "--listen",
                    "127.0.0.1:0",
                    "--sessions",
                    &sessions.to_string(),
                    "--empty-pss-file",
                    &stage.path(EMPTY_PSS_FILE).display().to_string(),
                ],
                &stage.processors.node,
            ),
            Self::Gateway { profile, contexts } => stage.gateway(profile, contexts),
            Self::Floors { secure } => stage.floors(secure),
            Self::Bare { threads } => stage.target(
                "bare ready",
                &stage.binaries.bare,
                &["--listen", "127.0.0.1:0", "--threads", &threads.to_string()],
                stage.processors_of(threads),
            ),
            Self::Kamailio { tls } => stage.kamailio(tls),
            Self::Haproxy { splice } => stage.haproxy(splice),
            Self::StunnelHaproxy => stage.stunnel_haproxy(),
            Self::HaproxyTls => stage.haproxy_tls(),
            Self::Stunnel => stage.stunnel(),
            Self::OpensslServer => stage.openssl_server(),
            Self::KeyExchange | Self::Primitives => {
                Ok(Running { processes: Vec::new(), addresses: BTreeMap::new() })
            }
        }
    }
}

impl Running {
    /// Of every process of it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().flat_map(Process::pids).collect()
    }

    fn one(process: Process, address: SocketAddr) -> Self {
        Self { processes: vec![process], addresses: BTreeMap::from([("IN", address)]) }
    }
}

impl Stage {
    /// Prepares the directory: a certificate for 127.0.0.1 as everybody shows it, the authority that
    /// vouches for it, a certificate of UEs, and the secrets the generator has to know.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        let files = certificates().map_err(|error| error.to_string())?;
        for (name, content) in files {
            self.write(name, &content)?;
        }
        self.write("password", PASSWORD)?;
        self.write("psk.hex", BULK_KEY)?;
        Ok(())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn node(&self, shards: u32) -> Result<Running, String> {
        let configuration = fill(
            include_str!("../../../../perf/peers/mrf.toml"),
            &[
                ("SHARDS", shards.to_string()),
                ("AUTHORITY", self.path("ca.pem").display().to_string()),
                ("CHAIN", self.path("chain.pem").display().to_string()),
                ("KEY", self.path("key.pem").display().to_string()),
            ],
        );
        let file = self.write("mrf.toml", &configuration)?;
        let arguments = words(&["serve", "--config", &file.display().to_string()]);
        let (node, log) = (&self.binaries.node, self.path("mrf.log"));
        let mut process = Process::start(node, &arguments, self.processors_of(shards), log)?;
        let line = process.await_line("mrf ready")?;
        let addresses = node_addresses(&line).ok_or_else(|| format!("cannot read {line:?}"))?;
        Ok(Running { processes: vec![process], addresses })
    }

    /// Of the node, or of bare, with so many threads.
    fn processors_of(&self, threads: u32) -> &str {
        if threads == 1 { &self.processors.node } else { &self.processors.two_shards }
    }

    /// One of perf/targets: it says where it listens.
    fn target(
        &self,
        sign: &str,
        program: &Path,
        arguments: &[&str],
        processors: &str,
    ) -> Result<Running, String> {
        let log = self.path("target.log");
        let mut process = Process::start(program, &words(arguments), processors, log)?;
        let line = process.await_line(sign)?;
        let addresses = target_addresses(&line[sign.len()..]);
        let addresses = addresses.ok_or_else(|| format!("cannot read {line:?}"))?;
        Ok(Running { processes: vec![process], addresses })
    }

    fn floors(&self, secure: bool) -> Result<Running, String> {
        let empty_pss_file = self.path(EMPTY_PSS_FILE).display().to_string();
        let mut arguments = vec!["--conferences", "1000", "--users", "10", "--floors", "8"];
        arguments.extend(["--suite", SUITE, "--empty-pss-file", &empty_pss_file]);
        arguments.extend(secure.then_some("--secure"));
        self.target("floors ready", &self.binaries.floors, &arguments, &self.processors.node)
    }

    fn gateway(&self, profile: Profile, contexts: u32) -> Result<Running, String> {
        let far_end = free_address()?;
        let contexts = contexts.to_string();
        let (points, core_peer) = (self.path(POINTS).display().to_string(), far_end.to_string());
        let fingerprint = self.read(CLIENT_FINGERPRINT)?;
        // Who sends datagrams is known when one comes.
        let is_datagrams = profile == Profile::T38;
        let profile = match profile {
            Profile::E2ae => "e2ae",
            Profile::E2e => "e2e",
            Profile::T38 => "t38",
        };
        let mut arguments = vec!["--profile", profile, "--contexts", &contexts];
        arguments.extend(["--points", &points, "--peer-fingerprint", &fingerprint]);
        if !is_datagrams {
            arguments.extend(["--core-peer", &core_peer]);
        }
        let (program, processors) = (&self.binaries.gateway, &self.processors.node);
        let mut running = self.target("gateway ready", program, &arguments, processors)?;
        running.addresses.insert("OUT", far_end);
        Ok(running)
    }

    /// Where the generator finds a gateway that has one address for all, and the certificate of the others.
    fn write_points(&self, address: SocketAddr) -> Result<(), String> {
        let fingerprint = self.read(SERVER_FINGERPRINT)?;
        self.write(POINTS, &format!("{address} - {fingerprint}\n")).map(|_| ())
    }

    fn stunnel_haproxy(&self) -> Result<Running, String> {
        let mut running = self.haproxy(false)?;
        let address = free_address()?;
        let second = running.addresses["IN"];
        let configuration = fill(
            include_str!("../../../../perf/peers/stunnel-certificate.conf"),
            &[
                ("LISTEN", address.to_string()),
                ("SECOND", second.to_string()),
                ("CHAIN", self.path("chain.pem").display().to_string()),
                ("KEY", self.path("key.pem").display().to_string()),
                ("CLIENTS", self.path("client.pem").display().to_string()),
            ],
        );
        let file = self.write("stunnel-certificate.conf", &configuration)?;
        let file = file.display().to_string();
        let mut process = self.start("stunnel", &[&file], "stunnel-certificate.log")?;
        process.await_listening(address)?;
        running.processes.push(process);
        running.addresses.insert("IN", address);
        self.write_points(address)?;
        Ok(running)
    }

    fn haproxy_tls(&self) -> Result<Running, String> {
        let both = [self.read("chain.pem")?, self.read("key.pem")?].concat();
        let certificate = self.write("chain-and-key.pem", &both)?;
        let tls = format!(
            "ssl crt {} ca-file {} verify required no-tls-tickets",
            certificate.display(),
            self.path("client.pem").display()
        );
        let running = self.haproxy_with(&tls, "")?;
        self.write_points(running.addresses["IN"])?;
        Ok(running)
    }

    fn kamailio(&self, tls: bool) -> Result<Running, String> {
        let address = free_address()?;
        let tls_settings = fill(
            include_str!("../../../../perf/peers/kamailio-tls.cfg"),
            &[
                ("CHAIN", self.path("chain.pem").display().to_string()),
                ("KEY", self.path("key.pem").display().to_string()),
            ],
        );
        let configuration = fill(
            include_str!("../../../../perf/peers/kamailio.cfg"),
            &[
                ("TLS", if tls { tls_settings } else { String::new() }),
                ("PROTOCOL", if tls { "tls" } else { "tcp" }.to_owned()),
                ("SCHEME", if tls { "msrps" } else { "msrp" }.to_owned()),
                ("PORT", address.port().to_string()),
            ],
        );
        let file = self.write("kamailio.cfg", &configuration)?;
        let directory = self.directory.display().to_string();
        // No daemon, no names looked up; shared memory for thousands of connections with TLS.
        let file = file.display().to_string();
        let arguments = [
            "-DD", "-E", "-m", "1024", "-M", "16", "-f", &file, "-Y", &directory, "-w", &directory,
        ];
        let mut process = self.start("kamailio", &arguments, "kamailio.log")?;
        process.await_listening(address)?;
        Ok(Running::one(process, address))
    }

    fn haproxy(&self, splice: bool) -> Result<Running, String> {
        self.haproxy_with("", if splice { "option splice-auto" } else { "" })
    }

    fn haproxy_with(&self, tls: &str, splice: &str) -> Result<Running, String> {
        let (address, far_end) = (free_address()?, free_address()?);
        let configuration = fill(
            include_str!("../../../../perf/peers/haproxy.cfg"),
            &[
                ("LISTEN", format!("{address} {tls}").trim_end().to_owned()),
                ("FAR_END", far_end.to_string()),
                ("SPLICE", splice.to_owned()),
            ],
        );
        let file = self.write("haproxy.cfg", &configuration)?;
        let file = file.display().to_string();
        let mut process = self.start("haproxy", &["-db", "-f", &file], "haproxy.log")?;
        process.await_listening(address)?;
        let addresses = BTreeMap::from([("IN", address), ("OUT", far_end)]);
        Ok(Running { processes: vec![process], addresses })
    }

    fn stunnel(&self) -> Result<Running, String> {
        let (address, second, far_end) = (free_address()?, free_address()?, free_address()?);
        let secrets = self.write("stunnel.secrets", &format!("perf:{BULK_KEY}\n"))?;
        let mut processes = Vec::new();
        let hops = [
            ("stunnel-server", include_str!("../../../../perf/peers/stunnel-server.conf"), second),
            ("stunnel-client", include_str!("../../../../perf/peers/stunnel-client.conf"), address),
        ];
        for (name, template, listen) in hops {
            let configuration = fill(
                template,
                &[
                    ("LISTEN", listen.to_string()),
                    ("SECOND", second.to_string()),
                    ("FAR_END", far_end.to_string()),
                    ("SUITE", SUITE.to_owned()),
                    ("SECRETS", secrets.display().to_string()),
                ],
            );
            let file = self.write(&format!("{name}.conf"), &configuration)?;
            let file = file.display().to_string();
            let mut process = self.start("stunnel", &[&file], &format!("{name}.log"))?;
            process.await_listening(listen)?;
            processes.push(process);
        }
        Ok(Running { processes, addresses: BTreeMap::from([("IN", address), ("OUT", far_end)]) })
    }

    fn openssl_server(&self) -> Result<Running, String> {
        let address = free_address()?;
        let accept = address.to_string();
        let arguments = [
            "s_server",
            "-quiet",
            "-nocert",
            "-tls1_2",
            "-no_ticket",
            "-no_cache",
            "-cipher",
            SUITE,
            "-psk_identity",
            "perf",
            "-psk",
            BULK_KEY,
            "-accept",
            &accept,
        ];
        let mut process = self.start("openssl", &arguments, "openssl.log")?;
        process.await_listening(address)?;
        Ok(Running::one(process, address))
    }

    fn start(&self, program: &str, arguments: &[&str], log: &str) -> Result<Process, String> {
        let path = find(program).ok_or_else(|| format!("{program} is missing"))?;
        Process::start(&path, &words(arguments), &self.processors.node, self.path(log))
    }

    fn read(&self, name: &str) -> Result<String, String> {
        let path = self.path(name);
        let text = fs::read_to_string(&path);
        text.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Readable by nobody else: some of it is keys, be it of an hour.
    fn write(&self, name: &str, content: &str) -> Result<PathBuf, String> {
        let path = self.path(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(content.as_bytes()));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

/// ca.pem vouches for chain.pem, whose key is key.pem; nobody vouches for client.pem.
fn certificates() -> Result<[(&'static str, String); 7], rcgen::Error> {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let client_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let client = CertificateParams::new(vec!["ue.invalid".to_owned()])?.self_signed(&client_key)?;
    Ok([
        ("ca.pem", authority.pem()),
        ("chain.pem", certificate.pem()),
        ("key.pem", key.serialize_pem()),
        (SERVER_FINGERPRINT, fingerprint(certificate.der())),
        ("client.pem", client.pem()),
        ("client-key.pem", client_key.serialize_pem()),
        (CLIENT_FINGERPRINT, fingerprint(client.der())),
    ])
}

/// What SDP calls a certificate (RFC 8122 section 5).
fn fingerprint(certificate: &[u8]) -> String {
    let digest = Sha256::digest(certificate);
    let digits: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("sha-256 {}", digits.join(":"))
}

/// Of one of perf/targets; with two threads it has two.
fn target_addresses(line: &str) -> Option<BTreeMap<&'static str, SocketAddr>> {
    let addresses: Option<Vec<_>> = line.split_whitespace().map(|it| it.parse().ok()).collect();
    let addresses: BTreeMap<_, _> = ["IN", "IN2"].into_iter().zip(addresses?).collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// Of the line that begins with `mrf ready`.
fn node_addresses(line: &str) -> Option<BTreeMap<&'static str, SocketAddr>> {
    let value =
        |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    Some(BTreeMap::from([
        ("SIP", value("sip")?.split(',').next()?.strip_prefix("udp:")?.parse().ok()?),
        ("RELAY", value("relay")?.parse().ok()?),
    ]))
}

/// Puts values in the place of `@WORDS@`; the first may bring words of its own.
pub(crate) fn fill(template: &str, values: &[(&str, String)]) -> String {
    values
        .iter()
        .fold(template.to_owned(), |text, (word, value)| text.replace(&format!("@{word}@"), value))
}

/// Their configurations need a number. Whoever takes it before they do spoils one run, which is
/// said.
fn free_address() -> Result<SocketAddr, String> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    free.map_err(|error| format!("no free port: {error}"))
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|word| (*word).to_owned()).collect()
}

/// Suite of what is compared with stunnel and s_server.
const SUITE: &str = "PSK-AES128-GCM-SHA256";
/// Where `plane` and `floors` say what they take before there are sessions.
pub(crate) const EMPTY_PSS_FILE: &str = "plane-empty.pss";
/// Where the generator finds the sides of a gateway.
const POINTS: &str = "points";
/// What chain.pem and client.pem are known by.
const SERVER_FINGERPRINT: &str = "chain.fingerprint";
const CLIENT_FINGERPRINT: &str = "client.fingerprint";
/// Of alice in perf/peers/mrf.toml.
const PASSWORD: &str = "correct horse battery staple";
/// A key for an hour on loopback.
const BULK_KEY: &str = "00112233445566778899aabbccddeeff";
/// Where Debian has Kamailio's modules.
const MODULES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/kamailio/modules", "/usr/lib/aarch64-linux-gnu/kamailio/modules"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_the_node_listens() {
        let line = "mrf ready sip=udp:127.0.0.1:1,tcp:127.0.0.1:2 media=127.0.0.1:3,127.0.0.1:4 \
                    relay=127.0.0.1:5 http=127.0.0.1:6 kms=127.0.0.1:7 shards=2";
        let addresses = node_addresses(line).unwrap();
        let ports: Vec<_> = addresses.values().map(SocketAddr::port).collect();
        assert_eq!(ports, [5, 1]);
        assert_eq!(node_addresses("mrf ready sip=udp:127.0.0.1:1"), None);
    }

    #[test]
    fn reads_where_each_thread_of_a_target_listens() {
        let addresses = target_addresses(" 127.0.0.1:1 127.0.0.1:2").unwrap();
        let ports: Vec<_> = addresses.values().map(SocketAddr::port).collect();
        assert_eq!(ports, [1, 2]);
        assert_eq!(target_addresses(" 127.0.0.1:1").unwrap().len(), 1);
        assert_eq!(target_addresses(""), None);
        assert_eq!(target_addresses(" somewhere"), None);
    }

    #[test]
    fn every_word_of_a_template_is_filled() {
        let filled = fill("@A@ @B@ @A@", &[("A", "@B@".to_owned()), ("B", "b".to_owned())]);
        assert_eq!(filled, "b b b");
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let kamailio = Subject::Kamailio { tls: true };
        let missing = |has_program, has_tls| kamailio.missing_if(|_| has_program, || has_tls);
        assert!(missing(false, false).unwrap().ends_with("Debian package kamailio"));
        assert!(missing(true, false).unwrap().ends_with("Debian package kamailio-tls-modules"));
        assert_eq!(missing(true, true), None);
        let both = Subject::StunnelHaproxy.missing_if(|program| program != "haproxy", || true);
        assert!(both.unwrap().ends_with("Debian package haproxy"));
        assert!(Subject::Stunnel.missing_if(|_| false, || true).unwrap().contains("stunnel4"));
        assert_eq!(Subject::Bare { threads: 1 }.missing_if(|_| false, || false), None);
    }

    /// With the configurations as they are; of those that are not here it is said so.
    #[test]
    fn every_peer_starts_and_listens() {
        let Some(processors) = Processors::of_this_process() else { return };
        let directory = tempfile::tempdir().unwrap();
        let none = PathBuf::from("/nonexistent");
        let binaries = Binaries {
            node: none.clone(),
            generator: none.clone(),
            bare: none.clone(),
            plane: none.clone(),
            floors: none.clone(),
            gateway: none.clone(),
            records: none.clone(),
            key_exchange: none,
        };
        let stage = Stage { binaries, processors, directory: directory.path().to_owned() };
        stage.prepare().unwrap();
        for peer in [
            Subject::Kamailio { tls: false },
            Subject::Kamailio { tls: true },
            Subject::Haproxy { splice: false },
            Subject::Haproxy { splice: true },
            Subject::HaproxyTls,
            Subject::StunnelHaproxy,
            Subject::Stunnel,
            Subject::OpensslServer,
        ] {
            if let Some(missing) = peer.missing() {
                eprintln!("SKIPPED: {missing}");
                continue;
            }
            let running = peer.start(&stage).unwrap();
            assert!(!running.pids().is_empty(), "{}", peer.name());
            assert!(peer.version().is_some(), "{}", peer.name());
            let address = running.addresses["IN"];
            std::net::TcpStream::connect(address)
                .unwrap_or_else(|e| panic!("{}: {e}", peer.name()));
        }
    }
}
