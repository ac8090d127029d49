//! Participants of floor control that are not ours: libre over TCP, over TLS-PSK that stunnel speaks for
//! it, and over UDP, at a shard without signalling.

#[path = "support/program.rs"]
mod program;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use mrfp_core::floor::{ConferencePolicy, FloorOrder, FloorPolicy, ThirdPartyRequests};
use mrfp_core::mp::{
    ChatRoomPolicy, Command as Mp, ContextId, CpimPolicy, Direction, Event, Floor, FloorAction,
    FloorControl, FloorStream, FloorTransport, Member, RealmId, ReserveAndConfigure,
    ReserveFloorControl, Security, Setup, Switching, TerminationId, TlsRole,
};
use mrfp_core::{Config, Limits, Mrfp, Port, Psk, ShardConfig};
use mrfp_protocol::bfcp::{HEADER_BYTES, Header, Primitive, Transport, Value, Writer};
use mrfp_protocol::tls::ProfileConfig;
use program::{Compiled, PATIENCE, Program, compiled, find, wait_until};

const CONFERENCE: u32 = 4321;
const CONTEXT: ContextId = ContextId(1);
/// What the server says of a floor the control plane has taken away.
const BY_CONTROL: &str = "by the operator";
const IDENTITY: &str = "al";
const KEY: [u8; 16] = *b"sixteen bytes...";

/// A shard with one conference: floors 1 and 2, and whoever was reserved.
struct Shard {
    port: Port,
    terminations: u64,
}

impl Shard {
    fn start() -> Self {
        let (bell, _) = mrfp_io::doorbell().expect("a descriptor");
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = Config {
            shards: vec![ShardConfig { core: None, listen, advertise: None }],
            limits: Limits::default(),
            profile: ProfileConfig::default(),
            certificate: None,
            relay: None,
            gateway: None,
        };
        let port = Mrfp::start(&config, &bell).expect("it starts").remove(0);
        let mut shard = Self { port, terminations: 0 };
        let termination = shard.next_termination();
        shard.reserve(Mp::ReserveAndConfigure(Box::new(room(termination))));
        shard
    }

    fn next_termination(&mut self) -> TerminationId {
        self.terminations += 1;
        TerminationId(self.terminations)
    }

    /// A user of the conference; says where it is to connect.
    fn user(
        &mut self,
        user_id: u16,
        display_name: &str,
        transport: FloorTransport,
        security: Security,
    ) -> SocketAddr {
        let termination = self.next_termination();
        self.reserve(Mp::ReserveFloorControl(Box::new(ReserveFloorControl {
            context: CONTEXT,
            termination,
            stream: FloorStream { transport, security, tls_role: TlsRole::Server },
            unanswered: false,
            user_id,
            display_name: display_name.to_owned(),
            uri: format!("sip:{display_name}@example.com"),
            speaks_by: None,
            realm: RealmId::default(),
            own_port: matches!(transport, FloorTransport::Udp { .. }),
        })))
    }

    fn reserve(&mut self, command: Mp) -> SocketAddr {
        match self.ask(command) {
            Event::Reserved { address, .. } => address,
            event => panic!("{event:?}"),
        }
    }

    fn act(&mut self, action: FloorAction) {
        let answer = self.ask(Mp::Floors { context: CONTEXT, action: Box::new(action) });
        assert!(matches!(answer, Event::Floors { answer: Ok(_), .. }), "{answer:?}");
    }

    /// Gives a command and waits for its answer.
    fn ask(&mut self, command: Mp) -> Event {
        self.port.send(command).expect("room in the queue");
        let mut answer = None;
        wait_until(
            || {
                while let Some(event) = self.port.receive() {
                    if !matches!(event, Event::Bound { .. } | Event::BearerReleased { .. }) {
                        answer = Some(event);
                    }
                }
                answer.is_some()
            },
            || "the answer of the shard".to_owned(),
        );
        answer.expect("waited for")
    }
}

/// The conference, and in it a stream for messages to which nobody connects.
fn room(termination: TerminationId) -> ReserveAndConfigure {
    let policy = FloorPolicy {
        order: FloorOrder::FirstComeFirstServed,
        holders_max: 1,
        requests_per_user_max: 1,
        holding_max_ns: None,
    };
    let floor = |floor_id| Floor {
        floor_id,
        policy: policy.clone(),
        governs_messages: floor_id == 1,
        reported: false,
    };
    let floors = FloorControl {
        conference_id: CONFERENCE,
        policy: ConferencePolicy {
            grace_ns: 1_000_000_000,
            third_party_requests: ThirdPartyRequests::Nobody,
        },
        floors: vec![floor(1), floor(2)],
        moderated: true,
    };
    ReserveAndConfigure {
        context: CONTEXT,
        switching: Switching::ChatRoom(Box::new(ChatRoomPolicy {
            uris: Vec::new(),
            nicknames: false,
            nicknames_reserved: Vec::new(),
            private_messages: false,
            cpim: CpimPolicy::Required,
            accept_types: String::new(),
            accept_wrapped_types: String::new(),
            message_bytes_max: None,
            floors: Some(Box::new(floors)),
        })),
        termination,
        security: Security::Plain,
        setup: Setup::Passive,
        session_id: "a-session-nobody-guesses".to_owned(),
        remote_path: Some("msrp://127.0.0.1:9/nobody;tcp".to_owned()),
        member: Member::default(),
        realm: RealmId::default(),
        file_transfer: false,
        accept_types: "*".to_owned(),
        accept_wrapped_types: String::new(),
        direction: Direction::SendRecv,
        max_size_bytes: None,
        own_port: false,
    }
}

fn libre() -> Option<Compiled> {
    let options = ["-DHAVE_INTTYPES_H", "-I/usr/include/re", "-lre"];
    compiled("bfcp_participant.c", "/usr/include/re/re_bfcp.h", "libre-dev", &options)
}

/// Libre as user 1.
struct Participant {
    program: Program,
    /// Lines that were heard.
    heard: usize,
    /// Version and, of answers, the responder flag.
    version: u8,
    /// What the server has said, in hex.
    bytes: Vec<String>,
}

impl Participant {
    fn over_tcp(libre: &Compiled, address: SocketAddr) -> Self {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let program = Program::start(Command::new(&libre.program).args(["tcp", &ip, &port]));
        let mut participant = Self { program, heard: 0, version: 1, bytes: Vec::new() };
        assert_eq!(participant.line(), "connected");
        participant
    }

    /// Also says which port it has.
    fn over_udp(libre: &Compiled) -> (Self, u16) {
        let program = Program::start(Command::new(&libre.program).arg("udp"));
        let mut participant = Self { program, heard: 0, version: 2, bytes: Vec::new() };
        let line = participant.line();
        let port = line.strip_prefix("local ").and_then(|port| port.parse().ok());
        (participant, port.expect("its port"))
    }

    /// The next line, but for bytes.
    fn line(&mut self) -> String {
        loop {
            let at = self.heard;
            let whole = |output: &str| output.matches('\n').count() > at;
            wait_until(
                || whole(&self.program.output()),
                || format!("line {at} of:\n{}", self.program.output()),
            );
            self.heard += 1;
            let line = self.program.output().lines().nth(at).expect("it is there").to_owned();
            match line.strip_prefix("bytes ") {
                Some(bytes) => self.bytes.push(bytes.to_owned()),
                None => return line,
            }
        }
    }

    /// Makes a request and hears this answer: primitive, conference, user, attributes.
    fn ask(&mut self, request: &str, answer: &str) {
        let version = self.version;
        self.ask_in(version, request, answer);
    }

    fn ask_in(&mut self, version: u8, request: &str, answer: &str) {
        self.program.write(format!("{version} {request}\n").as_bytes());
        let responder = self.version - 1;
        let expected = format!("answer {} {responder} {answer}", self.version);
        assert_eq!(self.line(), expected, "{request}");
    }

    /// Hears that, unasked.
    fn is_told(&mut self, message: &str) {
        assert_eq!(self.line(), format!("told {} 0 {message}", self.version));
    }

    /// All there is to say, and every answer.
    fn converse(&mut self, shard: &mut Shard, bob: &mut Bob) {
        let primitives = if self.version == 1 { 13 } else { 17 };
        let list = |count: u8| (1..=count).map(|code| format!("/{code}")).collect::<String>();
        let known = format!(" 11={} 10={}", list(primitives), list(18));
        self.ask("11 4321 1", &format!("12 4321 1:{known}"));

        let al = " 14=1( 12=al 13=sip:al@example.com)";
        let bobs = " 14=2( 12=bob 13=sip:bob@example.com)";
        self.ask("5 4321 1", &format!("6 4321 1:{al}"));
        self.ask("5 4321 1 1 2", &format!("6 4321 1:{bobs}"));
        self.ask("7 4321 1 2 1", "8 4321 1: 2=1");

        let request = |id: u16, floor: u16, status: &str, names: &str| {
            format!(" 15={id}( 18={id}( 5={status}) 17={floor}( 5={status}){names})")
        };
        self.ask("1 4321 1 2 1", &format!("4 4321 1:{}", request(1, 1, "3/0", "")));
        self.is_told(&format!("8 4321 1: 2=1{}", request(1, 1, "3/0", al)));
        self.ask("5 4321 1", &format!("6 4321 1:{al}{}", request(1, 1, "3/0", al)));
        self.ask("3 4321 1 3 1", &format!("4 4321 1:{}", request(1, 1, "3/0", "")));
        self.ask("1 4321 1 2 1", "13 4321 1: 6=8");
        self.ask("2 4321 1 3 1", &format!("4 4321 1:{}", request(1, 1, "6/0", "")));
        self.is_told("8 4321 1: 2=1");

        // Somebody else holds the other floor for a while; then it is taken away.
        bob.ask(Primitive::FloorRequest, &Value::FloorId(2));
        self.ask("1 4321 1 2 2", &format!("4 4321 1:{}", request(3, 2, "2/1", "")));
        bob.ask(Primitive::FloorRelease, &Value::FloorRequestId(2));
        self.is_told(&format!("4 4321 1:{}", request(3, 2, "3/0", "")));
        shard.act(FloorAction::Revoke { floor_id: 2, user_id: 1 });
        let revoked = format!(" 15=3( 18=3( 5=7/0 9={BY_CONTROL}) 17=2( 5=7/0))");
        self.is_told(&format!("4 4321 1:{revoked}"));

        self.ask("1 4321 1 2 9", "13 4321 1: 6=6");
        self.ask("3 4321 1 3 77", "13 4321 1: 6=7");
        self.ask("2 4321 1 3 3", "13 4321 1: 6=7");
        self.ask("1 99 1 2 1", "13 99 1: 6=1");
        self.ask("1 4321 77 2 1", "13 4321 77: 6=2");
        self.ask("1 4321 2 2 1", "13 4321 2: 6=5");
        self.ask("18 4321 1", "13 4321 1: 6=3");
        if self.version == 1 {
            self.ask("16 4321 1", "13 4321 1: 6=3");
            self.ask_in(2, "11 4321 1", "13 4321 1: 6=12");
        } else {
            self.ask("16 4321 1", "17 4321 1:");
        }
    }
}

/// Another one, of our own making.
struct Bob(TcpStream);

impl Bob {
    /// User 2 of the conference.
    fn join(shard: &mut Shard) -> Self {
        let passive = FloorTransport::Tcp(Setup::Passive);
        let address = shard.user(2, "bob", passive, Security::Plain);
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        Self(stream)
    }

    /// Makes a request about a floor that is free or its own, and waits for the answer.
    fn ask(&mut self, primitive: Primitive, attribute: &Value<'_>) {
        let mut out = [0; 64];
        let header = Header::new(Transport::Reliable, primitive, CONFERENCE, 1, 2);
        let mut writer = Writer::new(&mut out, &header).expect("it fits");
        writer.put(attribute).expect("it fits");
        let length = writer.finish();
        self.0.write_all(&out[..length]).expect("sent");
        let mut answer = [0; HEADER_BYTES];
        self.0.read_exact(&mut answer).expect("an answer");
        let header = Header::parse(&answer, Transport::Reliable).expect("a header");
        assert_eq!(header.primitive, Primitive::FloorRequestStatus.code());
        let mut content = vec![0; header.content_bytes()];
        self.0.read_exact(&mut content).expect("the rest of it");
    }
}

/// User 1 is the one that libre is.
fn conference(security: Security) -> (Shard, SocketAddr) {
    let mut shard = Shard::start();
    let address = shard.user(1, "al", FloorTransport::Tcp(Setup::Passive), security);
    (shard, address)
}

fn psk() -> Security {
    let psk = Psk::new(KEY.to_vec()).expect("a key");
    Security::TlsPsk { identity: IDENTITY.into(), psk }
}

#[test]
fn libre_over_tcp_is_answered_in_version_1_as_the_law_says() {
    let Some(libre) = libre() else { return };
    let (mut shard, address) = conference(Security::Plain);
    let mut participant = Participant::over_tcp(&libre, address);
    let mut bob = Bob::join(&mut shard);
    participant.converse(&mut shard, &mut bob);
    tshark_finds_nothing_malformed(&participant.bytes);
}

#[test]
fn libre_behind_stunnel_is_answered_over_tls_psk() {
    let (Some(libre), Some(stunnel)) = (libre(), find("stunnel", "stunnel4")) else { return };
    let (mut shard, address) = conference(psk());
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name);
    let hex = KEY.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    std::fs::write(file("psk"), format!("{IDENTITY}:{hex}\n")).expect("written");
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let near = free.expect("a free port");
    let config = format!(
        "foreground = yes\ndebug = notice\npid =\n[bfcp]\nclient = yes\naccept = {near}\n\
         connect = {address}\nciphers = PSK\nsslVersion = TLSv1.2\nPSKsecrets = {}\n",
        file("psk").display()
    );
    std::fs::write(file("conf"), config).expect("written");
    let tunnel = Program::start(Command::new(stunnel).arg(file("conf")));
    tunnel.await_output("Configuration successful");
    let mut participant = Participant::over_tcp(&libre, near);
    let mut bob = Bob::join(&mut shard);
    participant.converse(&mut shard, &mut bob);
}

#[test]
fn libre_in_the_clear_is_told_to_use_tls_where_tls_was_agreed() {
    let Some(libre) = libre() else { return };
    let (_shard, address) = conference(psk());
    let mut participant = Participant::over_tcp(&libre, address);
    participant.ask("11 4321 1", "13 4321 1: 6=9");
}

#[test]
fn libre_over_udp_is_answered_in_version_2_as_the_law_says() {
    let Some(libre) = libre() else { return };
    let mut shard = Shard::start();
    let (mut participant, port) = Participant::over_udp(&libre);
    let remote = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let address = shard.user(1, "al", FloorTransport::Udp { remote }, Security::Plain);
    let line = format!("{} {}\n", address.ip(), address.port());
    participant.program.write(line.as_bytes());
    let mut bob = Bob::join(&mut shard);
    participant.converse(&mut shard, &mut bob);
}

/// As one TCP connection, a message a segment.
fn tshark_finds_nothing_malformed(messages: &[String]) {
    let (Some(tshark), Some(text2pcap)) =
        (find("tshark", "tshark"), find("text2pcap", "wireshark-common"))
    else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let (text, file) = (directory.path().join("hex"), directory.path().join("pcap"));
    let mut dump = String::new();
    for message in messages {
        dump.push_str("000000");
        for at in (0..message.len()).step_by(2) {
            let _ = write!(dump, " {}", &message[at..at + 2]);
        }
        dump.push('\n');
    }
    std::fs::write(&text, dump).expect("written");
    let mut converted = Command::new(text2pcap);
    converted.args(["-q", "-T", "2856,40000"]).arg(&text).arg(&file);
    assert!(converted.status().expect("runs").success());
    let read = |arguments: &[&str]| {
        let mut command = Command::new(&tshark);
        command.arg("-r").arg(&file).args(["-d", "tcp.port==2856,bfcp"]).args(arguments);
        let output = command.output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let seen = read(&["-Y", "bfcp", "-T", "fields", "-e", "bfcp.primitive"]);
    let primitive = |message: &String| u8::from_str_radix(&message[2..4], 16).expect("hex");
    let expected: Vec<String> = messages.iter().map(|it| primitive(it).to_string()).collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    assert_eq!(read(&["-Y", "_ws.malformed || _ws.expert.severity == error", "-V"]), "");
}
