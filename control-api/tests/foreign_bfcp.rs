//! BFCP as others read and write it: libre's codec in both versions and both directions, and
//! Wireshark's dissector, which knows version 1.

#[path = "support/program.rs"]
mod program;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use mrfp_core::floor::{
    Channel, ConferencePolicy, FloorLimits, FloorOrder, FloorPolicy, FloorServer, HolderChange,
    Output, Participant, ThirdPartyRequests, User,
};
use mrfp_io::Key;
use mrfp_protocol::bfcp::{
    Attributes, Group, Header, Payload, Primitive, RequestStatus, Transport, Value, Writer,
};
use program::{Compiled, compiled, find};

const CONFERENCE: u32 = 4321;
const TRANSPORTS: [Transport; 2] = [Transport::Reliable, Transport::Unreliable];

fn libre() -> Option<Compiled> {
    let options = ["-DHAVE_INTTYPES_H", "-I/usr/include/re", "-lre"];
    compiled("bfcp_codec.c", "/usr/include/re/re_bfcp.h", "libre-dev", &options)
}

fn run(command: &mut Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // It answers while it reads.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// A message as the program around libre tells of it.
fn told(bytes: &[u8]) -> String {
    let transport = if bytes[0] >> 5 == 2 { TRANSPORTS[1] } else { TRANSPORTS[0] };
    let header = Header::parse(bytes, transport).expect("a header");
    let payload = Payload::parse(header.content(bytes).expect("whole")).expect("sound");
    let Header { version, responder, primitive, conference_id, transaction_id, user_id, .. } =
        header;
    let responder = u8::from(responder);
    let ids = format!("{conference_id} {transaction_id} {user_id}");
    let attributes = told_attributes(payload.attributes);
    format!("{version} {responder} {primitive} {ids}:{attributes} left 0")
}

fn told_attributes(attributes: Attributes<'_>) -> String {
    let list = |codes: &[u8], shift: u8| {
        codes.iter().map(|code| format!("/{}", code >> shift)).collect::<String>()
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let told = attributes.map(|attribute| {
        let value = match attribute.value {
            Value::BeneficiaryId(id) | Value::FloorId(id) | Value::FloorRequestId(id) => {
                id.to_string()
            }
            Value::Priority(code) => code.to_string(),
            Value::RequestStatus { status, queue_position } => format!("{status}/{queue_position}"),
            Value::ErrorCode { code, details } => format!("{code}{}", list(details, 0)),
            Value::SupportedAttributes(types) => list(types, 1),
            Value::SupportedPrimitives(codes) => list(codes, 0),
            Value::ErrorInfo(bytes)
            | Value::ParticipantProvidedInfo(bytes)
            | Value::StatusInfo(bytes)
            | Value::UserDisplayName(bytes)
            | Value::UserUri(bytes) => text(bytes),
            Value::Grouped(group, inner) => format!("{}({})", group.id(), told_attributes(inner)),
            Value::Unknown { .. } => panic!("{attribute:?}"),
        };
        format!(" {}={value}", attribute.value.type_code())
    });
    told.collect()
}

/// Every attribute in a message of every primitive.
fn messages(transport: Transport) -> Vec<Vec<u8>> {
    let primitives = Primitive::ALL.iter().filter(|primitive| {
        transport == Transport::Unreliable || primitive.code() <= Primitive::Error.code()
    });
    let message = |primitive: &Primitive| {
        let header = Header::new(transport, *primitive, CONFERENCE, 7, 1234);
        let responder = transport == Transport::Unreliable && primitive.code().is_multiple_of(2);
        let mut out = vec![0; 1024];
        let mut writer = Writer::new(&mut out, &Header { responder, ..header }).expect("it fits");
        fill(&mut writer).expect("it fits");
        let length = writer.finish();
        out.truncate(length);
        out
    };
    primitives.map(message).collect()
}

fn fill(writer: &mut Writer<'_>) -> Result<(), mrfp_protocol::bfcp::Overflow> {
    let status = Value::RequestStatus { status: 2, queue_position: 3 };
    let all: Vec<u8> = (1..=17).collect();
    for value in [
        Value::FloorId(543),
        Value::FloorId(544),
        Value::BeneficiaryId(99),
        Value::FloorRequestId(789),
        Value::Priority(4),
        Value::ErrorCode { code: 4, details: &[80, 82, 84] },
        Value::ErrorInfo(b"in words"),
        Value::ParticipantProvidedInfo("à propos".as_bytes()),
        Value::SupportedPrimitives(&all),
        Value::SupportedAttributes(&[2, 4, 36]),
    ] {
        writer.put(&value)?;
    }
    writer.group(Group::BeneficiaryInformation(99), |writer| {
        writer.put(&Value::UserDisplayName(b"Bob"))?;
        writer.put(&Value::UserUri(b"sip:bob@example.com"))
    })?;
    writer.group(Group::FloorRequestInformation(789), |writer| {
        writer.group(Group::OverallRequestStatus(789), |writer| {
            writer.put(&status)?;
            writer.put(&Value::StatusInfo(b"soon"))
        })?;
        for floor in [543, 544] {
            writer.group(Group::FloorRequestStatus(floor), |writer| writer.put(&status))?;
        }
        writer.group(Group::BeneficiaryInformation(99), |_| Ok(()))?;
        writer.group(Group::RequestedByInformation(1234), |writer| {
            writer.put(&Value::UserDisplayName(b"Al"))
        })?;
        writer.put(&Value::Priority(2))?;
        writer.put(&Value::ParticipantProvidedInfo(b"a reason"))
    })
}

/// What the server says in the course of a small conference.
#[derive(Default)]
struct Said(Vec<Vec<u8>>);

impl Output for Said {
    fn send(&mut self, _: Key, bytes: &[u8]) {
        self.0.push(bytes.to_vec());
    }

    fn holder_changed(&mut self, _: HolderChange) {}

    fn close(&mut self, _: Key) {}
}

struct Conference {
    server: FloorServer,
    participants: [Participant; 2],
    transport: Transport,
    said: Said,
    transaction_id: u16,
}

impl Conference {
    fn new(transport: Transport) -> Self {
        let mut server = FloorServer::new(FloorLimits::default());
        let third_party_requests = ThirdPartyRequests::Everybody;
        let rules = ConferencePolicy { grace_ns: 1, third_party_requests };
        server.open_conference(CONFERENCE, rules).expect("room");
        let order = FloorOrder::Chair;
        let rules =
            FloorPolicy { order, holders_max: 1, requests_per_user_max: 9, holding_max_ns: None };
        server.add_floor(CONFERENCE, 1, rules.clone()).expect("room");
        server.add_floor(CONFERENCE, 2, rules).expect("room");
        let participants = [1, 2].map(|user_id| {
            let user = User {
                user_id,
                display_name: format!("User {user_id}"),
                uri: format!("sip:user{user_id}@example.com"),
                secured: false,
                termination: Key { index: u32::from(user_id), generation: 0 },
            };
            let participant = server.add_user(CONFERENCE, user).expect("room");
            server.connect(participant, Channel { transport, secured: false });
            participant
        });
        server.set_chair(CONFERENCE, 1, Some(2)).expect("both are there");
        Self { server, participants, transport, said: Said::default(), transaction_id: 0 }
    }

    fn say(
        &mut self,
        user_id: u16,
        primitive: Primitive,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<(), mrfp_protocol::bfcp::Overflow>,
    ) {
        self.transaction_id += 1;
        let id = self.transaction_id;
        let header = Header::new(self.transport, primitive, CONFERENCE, id, user_id);
        let mut out = [0; 512];
        let mut writer = Writer::new(&mut out, &header).expect("it fits");
        fill(&mut writer).expect("it fits");
        let length = writer.finish();
        let participant = self.participants[usize::from(user_id) - 1];
        let _ = self.server.receive(participant, &out[..length], 0, &mut self.said);
        self.server.flush(0, &mut self.said);
    }
}

/// Everything a server can say, as it says it.
fn said_by_the_server(transport: Transport) -> Vec<Vec<u8>> {
    let mut conference = Conference::new(transport);
    conference.say(1, Primitive::Hello, |_| Ok(()));
    conference.say(1, Primitive::FloorQuery, |writer| {
        writer.put(&Value::FloorId(1))?;
        writer.put(&Value::FloorId(2))
    });
    conference.say(1, Primitive::FloorRequest, |writer| {
        writer.put(&Value::FloorId(1))?;
        writer.put(&Value::FloorId(2))?;
        writer.put(&Value::BeneficiaryId(2))?;
        writer.put(&Value::ParticipantProvidedInfo(b"to speak"))?;
        writer.put(&Value::Priority(4))
    });
    conference.say(2, Primitive::ChairAction, |writer| {
        writer.group(Group::FloorRequestInformation(1), |writer| {
            writer.group(Group::FloorRequestStatus(1), |writer| {
                let status = RequestStatus::Denied.code();
                writer.put(&Value::RequestStatus { status, queue_position: 0 })?;
                writer.put(&Value::StatusInfo(b"not now"))
            })
        })
    });
    conference.say(1, Primitive::FloorRequest, |writer| writer.put(&Value::FloorId(1)));
    conference.say(2, Primitive::UserQuery, |writer| writer.put(&Value::BeneficiaryId(1)));
    conference.say(1, Primitive::FloorRelease, |writer| writer.put(&Value::FloorRequestId(2)));
    conference.say(1, Primitive::FloorRelease, |writer| writer.put(&Value::FloorRequestId(2)));
    let unknown = Value::Unknown { attribute_type: 99, contents: &[0, 0] };
    conference.say(1, Primitive::Hello, |writer| writer.put(&unknown));
    conference.say(1, Primitive::FloorQuery, |_| Ok(()));
    if transport == Transport::Unreliable {
        conference.say(1, Primitive::Goodbye, |_| Ok(()));
    }
    let primitives: Vec<u8> = conference.said.0.iter().map(|bytes| bytes[1]).collect();
    for code in [4, 6, 8, 10, 12, 13] {
        assert!(primitives.contains(&code), "{code} of {primitives:?}");
    }
    conference.said.0
}

#[test]
fn libre_reads_what_we_write() {
    let Some(libre) = libre() else { return };
    for transport in TRANSPORTS {
        let messages = [messages(transport), said_by_the_server(transport)].concat();
        let lines: String = messages.iter().map(|bytes| hex(bytes) + "\n").collect();
        let told_by_libre = run(Command::new(&libre.program).arg("decode"), &lines);
        let expected: Vec<String> = messages.iter().map(|bytes| told(bytes)).collect();
        assert_eq!(told_by_libre.lines().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn we_read_what_libre_writes() {
    let Some(libre) = libre() else { return };
    let written = run(Command::new(&libre.program).arg("encode"), "");
    assert_eq!(written.lines().count(), 2 * Primitive::ALL.len());
    let told_by_libre = run(Command::new(&libre.program).arg("decode"), &written);
    for (line, expected) in written.lines().zip(told_by_libre.lines()) {
        let bytes = unhex(line);
        assert_eq!(told(&bytes), expected);
        assert!(expected.contains(" 16=1234( 12=Al)") && expected.contains(" 6=4/80/82"));
    }
}

/// A capture of one TCP connection (no link layer, checksums left out), a message a segment.
fn capture(messages: &[Vec<u8>], port: u16) -> Vec<u8> {
    let mut capture = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65535, LINKTYPE_RAW] {
        capture.extend(word.to_ne_bytes());
    }
    // The version is two halves of a word, in this machine's order.
    capture[4..8].copy_from_slice(&[2u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat());
    let mut sequence = 1u32;
    for message in messages {
        let length = u32::try_from(40 + message.len()).expect("a packet");
        for word in [0, 0, length, length] {
            capture.extend(u32::to_ne_bytes(word));
        }
        let total = u16::try_from(length).expect("a packet").to_be_bytes();
        capture.extend([0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0]);
        capture.extend([127, 0, 0, 1, 127, 0, 0, 1]);
        capture.extend([port.to_be_bytes(), 40_000u16.to_be_bytes()].concat());
        capture.extend([sequence.to_be_bytes(), 1u32.to_be_bytes()].concat());
        capture.extend([0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        capture.extend(message);
        sequence += length - 40;
    }
    capture
}

/// Packets begin with their IP header.
const LINKTYPE_RAW: u32 = 101;

#[test]
fn tshark_finds_nothing_malformed_in_what_we_write() {
    let Some(tshark) = find("tshark", "tshark") else { return };
    let messages =
        [messages(Transport::Reliable), said_by_the_server(Transport::Reliable)].concat();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("bfcp.pcap");
    std::fs::write(&file, capture(&messages, 2856)).expect("written");
    let read = |arguments: &[&str]| {
        let mut command = Command::new(&tshark);
        command.arg("-r").arg(&file).args(["-d", "tcp.port==2856,bfcp"]).args(arguments);
        run(&mut command, "")
    };
    let fields = ["-Y", "bfcp", "-T", "fields", "-e", "bfcp.primitive", "-e", "bfcp.user_id"];
    let seen = read(&fields);
    let expected: Vec<String> = messages
        .iter()
        .map(|bytes| format!("{}\t{}", bytes[1], u16::from_be_bytes([bytes[10], bytes[11]])))
        .collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    assert_eq!(read(&["-Y", "_ws.malformed || _ws.expert.severity == error", "-V"]), "");
    // It would have noticed.
    let mut broken = messages[0].clone();
    broken[13] = 1;
    std::fs::write(&file, capture(&[broken], 2856)).expect("written");
    assert_ne!(read(&["-Y", "_ws.malformed || _ws.expert.severity == error"]), "");
}
