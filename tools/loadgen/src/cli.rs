//! The command line.

mod bfcp;
mod border;
mod spread;
mod wire;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::expectation::Ledger;
use crate::media::message::{CHUNK_BODY_BYTES, FILE_CHUNK_BODY_BYTES, STAMP_BYTES, TextSizes};
use crate::media::{FileTraffic, Stall, Traffic};
use crate::scenario::{Churn, ROOM_MEMBERS_MAX, Rooms, Scenario};
use crate::security::KmsOptions;

pub use self::bfcp::BfcpRun;
pub use self::border::{E2aeRun, FaxRun, ThroughBorder};
pub use self::spread::{Share, Sources, Spread};
pub use self::wire::{BulkRun, GatewayRun, PlaneRun, RawRun, RelayRun, RelayUri, WireOptions};

/// A fleet of UEs that takes a media node to its limit and checks every message it delivers.
#[derive(Parser, Debug)]
#[command(name = "mrf-load", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a scenario against a node.
    #[command(subcommand, after_help = EXAMPLES)]
    Run(Scenarios),
    /// Make one report of several generators that ran at the same time.
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(Merge),
}

/// Options of `merge`.
#[derive(Args, Clone, Debug)]
pub struct Merge {
    /// Files of --json, one of each generator.
    #[arg(required = true)]
    pub reports: Vec<PathBuf>,

    /// Writes the merged report to a file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

const MERGE_EXAMPLES: &str = "\
On one machine `run … --processes 2` does all of this. Example: two generators on processors of
their own, one of which measures the node:
    taskset -c 2 mrf-load run relay --target 'msrp://127.0.0.1:2855;tcp' --json a.json \\
        --node-pid $(pidof mrf) &
    taskset -c 3 mrf-load run relay --target 'msrp://127.0.0.1:2855;tcp' --json b.json
    wait; mrf-load merge a.json b.json --json both.json

Counts and rates add up; percentiles are those of all messages together.";

/// What is run.
#[derive(Subcommand, Debug)]
pub enum Scenarios {
    /// Everybody talks in a chat room (SIP, MSRP, RFC 7701).
    #[command(after_help = EXAMPLES)]
    Chat(Box<Run>),
    /// Rooms of two, closed loop, eight messages on their way: is every pair served alike?
    Pairs(Box<Run>),
    /// As `pairs`, but nobody speaks, not even to bind, before everybody is connected; then all do
    /// in the same moment.
    Burst(Box<Run>),
    /// Rooms of two, ten chat messages a second; the first of each room sends files as well, one
    /// after the other, on the same connection.
    FileAndChat(Box<Run>),
    /// Rooms of two, fifty chat messages a second. After --duration the receiver of the first room
    /// stops reading for --stall while its sender pushes one file.
    StalledReceiver(Box<Run>),
    /// Whole calls, one after the other, as many as --concurrency at a time: INVITE, MIKEY, TLS,
    /// the first message and its 200, BYE. Each is alone in a room of its own.
    #[command(after_help = EXAMPLES)]
    Calls(Box<Run>),
    /// Content in chunks of 16 KiB. Through the node (`sip:`): rooms of two, the first of each
    /// pushes files, --window chunks of them unanswered. Through whoever forwards bytes
    /// (`tcp://`): a stream, written to --target and read at --sink.
    #[command(after_help = BULK_EXAMPLES)]
    Bulk(Box<BulkRun>),
    /// Pairs through a relay of RFC 4976, any: AUTH, Use-Path, and what it forwards. No SIP.
    #[command(after_help = WIRE_EXAMPLES)]
    Relay(Box<RelayRun>),
    /// Pairs through whoever joins two connections and answers SENDs. No SIP, no AUTH.
    #[command(after_help = WIRE_EXAMPLES)]
    Raw(Box<RawRun>),
    /// Calls through a border (IMS-ALG with IMS-AGW), between UEs that protect their messages up to the
    /// access edge (TLS, certificates known by fingerprint) and peers in the core that do not. The
    /// generator is both.
    #[command(after_help = E2AE_EXAMPLES)]
    E2ae(Box<E2aeRun>),
    /// Fax at its real pace (T.38, UDPTL), between UEs that protect it (DTLS) and peers in the core that do
    /// not: through a border (`sip:`), or through a gateway alone (--points). The generator is both.
    #[command(after_help = FAX_EXAMPLES)]
    Fax(Box<FaxRun>),
    /// Pairs through a gateway: one end over TLS on its access side, with certificates that both know by
    /// their fingerprints, the other over TCP on its core side. No SIP.
    #[command(after_help = GATEWAY_EXAMPLES)]
    Gateway(Box<GatewayRun>),
    /// TLS-PSK connections to a server of it, idle or handshake after handshake. No SIP.
    #[command(after_help = WIRE_EXAMPLES)]
    Plane(Box<PlaneRun>),
    /// Floors (BFCP, RFC 8855): requested, granted, given back, again and again. In rooms that are
    /// called (`sip:`), with a second m-line and a key of its own for it; or of a server that is
    /// connected to directly (`tcp://`), conference and user by number.
    #[command(after_help = BFCP_EXAMPLES)]
    Bfcp(Box<BfcpRun>),
    /// Anything else is a scenario file: `run FILE.toml [--json FILE]`.
    #[command(external_subcommand)]
    File(Vec<String>),
}

const BULK_EXAMPLES: &str = "\
Examples:
  One protected pair through the node, 128 chunks unanswered:
    mrf-load run bulk --target sip:bulk@127.0.0.1:5060 --sessions 2 --window 128 --security psk \\
        --warmup 1s --node-pid $(pidof mrf)

  haproxy, which listens on 9000 and forwards to 9001, where we listen:
    mrf-load run bulk --target tcp://127.0.0.1:9000 --sink 127.0.0.1:9001 --pairs 1 \\
        --node-pid $(pidof haproxy | tr ' ' ,)

Every byte is compared with what was sent. What counts is content: bodies, not heads.";

const BFCP_EXAMPLES: &str = "\
Examples, with a node whose rooms have floors:
  Five rooms of ten, everybody with two keys of MIKEY-TICKET, one for MSRP and one for BFCP:
    mrf-load run bfcp --target sip:room@127.0.0.1:5060 --sessions 50 --room-size 10 --security psk \\
        --duration 10s --node-pid $(pidof mrf)

Examples, for a server at 127.0.0.1:4000 whose conferences are 1, 2, …, each with users 1 to 10:
  What a primitive costs it: 1,000 conferences with 8 floors, 8 requests of each participant under
  way (one for each floor), each floor given back as soon as it is held:
    mrf-load run bfcp --target tcp://127.0.0.1:4000 --sessions 10000 --room-size 10 --floors 8 \\
        --window 8 --warmup 1s --duration 10s --node-pid PID

  The same over TLS-PSK; participant n, from 0, has the identity perf-{n:08} and as key the SHA-256
  of perf-key-{n:08}:
    mrf-load run bfcp --target tcp://127.0.0.1:4000 --sessions 10000 --floors 8 --window 8 \\
        --security psk --node-pid PID

  How long one waits for a floor that is asked for 20 times a second and held for 20 ms:
    mrf-load run bfcp --target tcp://127.0.0.1:4000 --sessions 100 --message-rate 2 --hold 20ms

  Memory of 10,000 silent participants:
    mrf-load run bfcp --target tcp://127.0.0.1:4000 --sessions 10000 --idle --node-pid PID

Words: a message is a primitive of a participant that was answered as it should (Hello, FloorRequest,
FloorRelease); a delivery is a floor that was granted. Latency counts from the moment a floor was due to
be asked for until it is granted, the wait for others included. --message-rate is floors asked for, per
second and participant, whatever the server does; nobody asks again for a floor it waits for, and what
is late for that counts from when it was due.

Exit status: 0 if every call came up and ended, every primitive was answered by the right status, for the right request and floor, every
floor asked for was granted, none to more than --holders, and there was at least one; 1 if not; 2 if the
command line is wrong.";

const E2AE_EXAMPLES: &str = "\
The border's configuration names us as next hop of its core side, and where it listens for UEs:
    [border]
    role = \"ims-alg\"
    [border.access]
    udp = \"127.0.0.1:5070\"
    tcp = \"127.0.0.1:5070\"
    media = \"127.0.0.1\"
    [border.core]
    udp = \"127.0.0.1:5080\"
    tcp = \"127.0.0.1:5080\"
    media = \"127.0.0.1\"
    next_hops = [\"sip:127.0.0.1:5090\"]

Examples, with that border:
  Ten UEs call peers in the core and chat, eight messages of each end on their way:
    mrf-load run e2ae --target sip:peer@127.0.0.1:5070 --core 127.0.0.1:5090 --node-pid $(pidof mrf)

  A thousand UEs, of which half register and are called, each end with two messages a second:
    mrf-load run e2ae --target sip:peer@127.0.0.1:5070 --core 5090 --sessions 1000 --rate 50/s \\
        --direction both --message-rate 2 --duration 30s --node-pid $(pidof mrf)

  Without CEMA (the default) the border changes the paths in every message; with it, it need not:
    mrf-load run e2ae --target sip:peer@127.0.0.1:5070 --core 5090 --cema

A UE offers TCP/TLS/MSRP with its certificate's fingerprint and a=3ge2ae:requested, or answers so; a peer
in the core knows TCP/MSRP alone. UEs that are called register first (Security-Client with mediasec); the
registrar they reach through the border is ours. Whoever is called answers at once, and both ends connect.
A message is a SEND that passes the border, and its 200 back; every byte is compared with what was sent.

Exit status: 0 if every call came up and ended, every connection came up, and every message was answered and
arrived exactly once, in order and unchanged, and there was at least one; 1 if not, or if the border is not
there; 2 if the command line is wrong.";

const FAX_EXAMPLES: &str = "\
Examples:
  Ten faxes at 33.6 kbit/s, a packet of 40 ms with copies of the two before it, through a border that
  listens for UEs on 5070 and has us as next hop of its core side (`mrf-load run e2ae --help` shows its
  configuration):
    mrf-load run fax --target sip:fax@127.0.0.1:5070 --core 127.0.0.1:5090 --node-pid $(pidof mrf)

  A hundred that come in from the core, in packets of 30 ms without copies:
    mrf-load run fax --target sip:fax@127.0.0.1:5070 --core 5090 --sessions 100 \\
        --direction terminating --packet 30ms --redundancy 0 --duration 60s

  5,000 at once through a gateway whose addresses and fingerprints are in a file:
    mrf-load run fax --points points --certificate ue.pem --key ue-key.pem --sessions 5000 --node-pid PID

A message is a packet that was sent, a delivery one that came; latency counts from the moment a packet was
due. Lost are packets that never came, late those that came after a later one; jitter is how much more or less
time than 40 ms lay between two that came. On this machine whatever is lost was lost by the border, or for
lack of time to read it. In place of an image there are numbers, so that every byte can be compared.

Exit status: 0 if every call came up and ended, every end came up, and every packet arrived once and
unchanged, and there was at least one; 1 if not, or if the border is not there; 2 if the command line is
wrong.";

const GATEWAY_EXAMPLES: &str = "\
Examples:
  What a message costs whoever takes TLS off it, here one listener that forwards all connections to our
  port 9002 (stunnel before haproxy, say), 10 pairs, 8 messages of each end on their way:
    echo 127.0.0.1:9000 - $(openssl x509 -in server.pem -noout -fingerprint -sha256 |
        sed 's/.*=/sha-256 /') > points
    mrf-load run gateway --points points --sink 9002 --certificate ue.pem --key ue-key.pem --pairs 10 \
        --window 8 --suite TLS_AES_128_GCM_SHA256 --node-pid STUNNEL,HAPROXY

  The same without TLS through haproxy alone:
    echo 127.0.0.1:9000 - > points
    mrf-load run gateway --points points --sink 9002 --node-pid HAPROXY

A message is a SEND that passes the gateway, and its 200 back; both ends send. Every byte is compared with
what was sent. With --sink the pairs come up one after the other.

Exit status: 0 if every connection came up and every message was answered and arrived exactly once, in
order and unchanged, and there was at least one; 1 if not; 2 if the command line is wrong.";

const WIRE_EXAMPLES: &str = "\
Examples:
  What a message costs a relay on this machine, 10 pairs, 8 messages of each end on their way:
    mrf-load run relay --target 'msrp://127.0.0.1:2855;tcp' --pairs 10 --window 8 \\
        --node-pid $(pidof kamailio | tr ' ' ,)

  The same over TLS with one suite, for a relay that wants to know its users:
    mrf-load run relay --target 'msrps://relay.example:2855;tcp' --ca ca.pem \\
        --suite TLS_AES_256_GCM_SHA384 --relay-user alice --relay-password-file secret

  Latency at 20,000 messages a second, counted from the moment each was due:
    mrf-load run relay --target 'msrp://127.0.0.1:2855;tcp' --pairs 200 --message-rate 50

  1,000 connections that all speak for the first time in one moment:
    mrf-load run relay --target 'msrp://127.0.0.1:2855;tcp' --pairs 500 --burst

  Memory of 15,000 idle TLS-PSK sessions; handshakes per second, 64 under way:
    mrf-load run plane --target tls-psk://127.0.0.1:4433 --idle --sessions 15000 --node-pid PID
    mrf-load run plane --target tls-psk://127.0.0.1:4433 --handshakes --concurrency 64 \\
        --suite PSK-AES128-GCM-SHA256 --node-pid PID

  The same pairs shared by two processes, each from two addresses of its own:
    mrf-load run relay --target 'msrp://127.0.0.1:2855;tcp' --pairs 200 --processes 2 \\
        --source 127.0.1.1-127.0.1.4 --node-pid PID

A message is a SEND in, its 200 out, a SEND out, its 200 in; it is over when its sender has the 200
and its receiver has the message. Every byte of every message is compared with what was sent. Figures
are of --duration, which begins when --warmup has passed; `figures` of --json has them, flat.

Exit status: 0 if every connection came up and every message was answered and arrived exactly once, in
order and unchanged, and there was at least one; 1 if not; 2 if the command line is wrong.";

/// What is on record, and whose processor time is.
#[derive(Args, Clone, Default, Debug)]
pub struct Recording {
    /// Writes all figures to a file, with the machine and the command line.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// What is measured, for the file of --json: a revision, a release.
    #[arg(long, value_name = "TEXT")]
    pub commit: Option<String>,

    /// Processes of the node (on this machine), each with all it has forked: their processor time
    /// (user and system) and memory are reported.
    #[arg(long, visible_alias = "node-pid-tree", value_name = "PID,…", value_delimiter = ',')]
    pub node_pid: Vec<u32>,
}

const EXAMPLES: &str = "\
A scenario file says what is run, phase by phase, and what is expected of it:
    mrf-load run tools/loadgen/scenarios/carrier.toml --json carrier.json

Examples, with a node started by `mrf` on this machine:
  Ten UEs in one room, a message a second each, for twenty seconds:
    mrf-load run chat --target sip:room@127.0.0.1:5060

  What a message costs the node: 10 pairs, both ends with 8 messages on their way (also with
  --window 1, with --sessions 400 for 200 pairs, with --security psk for protected ones):
    mrf-load run chat --target sip:pair@127.0.0.1:5060 --sessions 20 --room-size 2 \\
        --window 8 --node-pid $(pidof mrf)

  The same for 200 protected pairs, on record:
    mrf-load run chat --target sip:pair@127.0.0.1:5060 --sessions 400 --room-size 2 \\
        --window 1 --security psk --node-pid $(pidof mrf) \\
        --commit $(git rev-parse --short HEAD) --json pairs.json

  Rooms of 2 to 20, 5 messages a second per UE, short ones and ones that travel in chunks:
    mrf-load run chat --target sip:room@127.0.0.1:5060 --sessions 500 --room-size 2..20 \\
        --message-rate 5 --message-size 200,2000,20000

  A room of 1,000 in which ten speak, with eight messages of each unanswered:
    mrf-load run chat --target sip:room@127.0.0.1:5060 --sessions 1000 --rate 1000/s --senders 10 \\
        --window 8 --window-until answered --warmup 1s --node-pid $(pidof mrf)

  Whole calls, 64 at a time:
    mrf-load run calls --target sip:call@127.0.0.1:5060 --concurrency 64 --security psk \\
        --warmup 1s --duration 10s --node-pid $(pidof mrf)

  1,000 connections that all speak for the first time in the same moment:
    mrf-load run burst --target sip:burst@127.0.0.1:5060 --sessions 1000 --rate 500/s --security psk

  A file of 100 MiB after the other, and ten chat messages a second on the same connection:
    mrf-load run file-and-chat --target sip:file@127.0.0.1:5060 --sessions 2 --node-pid $(pidof mrf)

  20 pairs, beside one whose receiver stops reading for 10 s while 200 MB are pushed at it:
    mrf-load run stalled-receiver --target sip:stall@127.0.0.1:5060 --sessions 42 --duration 10s \\
        --node-pid $(pidof mrf)

  More load than one process makes: four of them, each with its share of the pairs and of 200
  addresses, from which its UEs call and connect; one report, and one exit status, for all:
    mrf-load run pairs --target sip:pair@127.0.0.1:5060 --sessions 2000 --rate 1000/s \\
        --processes 4 --source 127.0.1.1-127.0.1.200 --node-pid $(pidof mrf)

  More calls than the node can carry: what it sheds must be answered 503 with Retry-After, and what
  it takes must go through:
    mrf-load run calls --target sip:call@127.0.0.1:5060 --rate 20000/s --concurrency 2000 \\
        --source 127.0.1.1-127.0.1.16 --node-pid $(pidof mrf)

Words: a UE is one SIP call with one MSRP session; bound, its first SEND was answered; violation,
anything a correct node would not have done. `node CPU us per message` is the node's processor time
over the talk (set-up and teardown left out) by the messages sent; in a pair a message is a SEND
and its 200 on either side, and both ends send.

Progress goes to standard error, the report to standard output. Ctrl-C ends the run early, and ends
its calls.

Exit status: 0 if every call was set up and torn down and every message was answered and delivered
exactly once and in order, and there was at least one; 1 if not, if the run was interrupted, or if
the node is not there; 2 if the command line is wrong. With --processes: 0 only if it is 0 for each.";

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// What the UEs do.
    #[arg(skip)]
    pub scenario: ScenarioName,

    /// Whom to call: rooms are named after the user part, `room-0`, `room-1`, …
    #[arg(long, value_name = "SIP-URI", value_parser = parse_target)]
    pub target: Target,

    /// How many UEs.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=SESSIONS_MAX))]
    pub sessions: u32,

    /// Calls set up, and later torn down, per second [default: 100/s; calls: no limit].
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    pub rate: Option<f64>,

    /// Calls under way at a time, with `calls` [default: 64].
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..=WINDOW_MAX))]
    pub concurrency: Option<u32>,

    /// Traffic before it is measured: processor time and latencies count from then on.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub warmup: Duration,

    /// How many members of each room send, the first ones; the others listen [default: all].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub senders: Option<u32>,

    /// When a message leaves the window: when it was answered and everybody has got it, or when it
    /// was answered.
    #[arg(long, value_enum, default_value_t = WindowEnd::Delivered)]
    pub window_until: WindowEnd,

    /// How long the UEs talk once all are there: `20s`, `500ms`, `2m`.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub duration: Duration,

    /// How long deliveries are awaited after the last message; what comes later counts as lost.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// How sessions are protected.
    #[arg(long, value_enum, default_value_t = SecurityName::Plain)]
    pub security: SecurityName,

    /// Keys of protected sessions.
    #[command(flatten)]
    pub kms: KmsOptions,

    /// Rooms the UEs are spread over evenly [default: 1].
    #[arg(long, value_name = "N", conflicts_with = "room_size",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub rooms: Option<u32>,

    /// Members of a room, or `A..B`: rooms of A, A+1, … B members, again and again.
    #[arg(long, value_name = "A..B", value_parser = parse_room_size)]
    pub room_size: Option<Rooms>,

    /// Closed loop: each UE keeps so many messages on their way (not yet answered, or not yet
    /// delivered to everybody).
    #[arg(long, value_name = "W", conflicts_with = "message_rate",
        value_parser = clap::value_parser!(u32).range(1..=WINDOW_MAX))]
    pub window: Option<u32>,

    /// Open loop: messages per second of each UE, whatever the node does [default: 1]. Latency
    /// counts from the moment a message was due.
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub message_rate: Option<f64>,

    /// Bytes of a file: `100MiB`, `200MB`, `50000` [default: 100MiB; stalled-receiver: 200MB].
    #[arg(long, value_name = "SIZE", value_parser = parse_file_size)]
    pub file_size: Option<usize>,

    /// How long the stalled receiver reads nothing, once --duration has passed.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub stall: Duration,

    /// Bytes of a message's text (its CPIM wrapper comes on top). Several sizes, `50,200,9000`, are
    /// dealt out to the UEs in turn. Above 8 KiB a message travels in chunks.
    #[arg(long, value_name = "BYTES,…", value_delimiter = ',', default_value = "200",
        value_parser = parse_message_size)]
    pub message_size: Vec<usize>,

    /// Transport of SIP.
    #[arg(long, value_enum, default_value_t = TransportName::Udp)]
    pub transport: TransportName,

    /// Media threads, each pinned to a processor of its own (from the last one downwards).
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX))]
    pub threads: u32,

    /// Who makes the load, and from where.
    #[command(flatten)]
    pub spread: Spread,

    /// What is on record, and whose processor time is.
    #[command(flatten)]
    pub recording: Recording,
}

/// What the UEs do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum)]
pub enum ScenarioName {
    /// Everybody talks in a chat room (MSRP, RFC 7701).
    #[default]
    Chat,
    /// Rooms of two, closed loop, eight messages on their way: is every pair served alike?
    Pairs,
    /// As `pairs`, but nobody speaks, not even to bind, before everybody is connected; then all do
    /// in the same moment.
    Burst,
    /// Rooms of two, ten chat messages a second; the first of each room sends files as well, one
    /// after the other, on the same connection.
    FileAndChat,
    /// Rooms of two, fifty chat messages a second. After --duration the receiver of the first room
    /// stops reading for --stall while its sender pushes one file.
    StalledReceiver,
    /// Whole calls, one after the other.
    Calls,
    /// Rooms of two, full of files.
    Bulk,
    /// Rooms with floors, in which nobody talks.
    Bfcp,
}

/// When a message leaves the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum WindowEnd {
    /// Answered, and delivered to everybody.
    Delivered,
    /// Answered.
    Answered,
}

/// How sessions are protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum SecurityName {
    /// TCP/MSRP.
    Plain,
    /// TCP/TLS/MSRP with a key of MIKEY-TICKET.
    Psk,
    /// TCP/TLS/MSRP with the certificate that the node announces (a=fingerprint).
    Certificate,
}

/// Transport of SIP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TransportName {
    /// One UDP socket for all calls.
    Udp,
    /// One TCP connection for all calls.
    Tcp,
}

/// Whom to call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// User part.
    pub user: String,
    /// Host and port as given.
    pub host_port: String,
    /// Where SIP goes.
    pub address: SocketAddr,
}

/// 2^20 connections are past what one machine's ports to one address allow.
const SESSIONS_MAX: i64 = 1 << 20;
/// A run of calls ends there at the latest: what numbers them has room for that many.
const CALLS_MAX: u32 = 4_000_000;
/// What a chunk of bulk carries.
const BULK_CHUNK_BODY_BYTES: usize = 16 * 1024;
/// Past it the window measures memory.
const WINDOW_MAX: i64 = 10_000;
/// A generator with more should be several.
const THREADS_MAX: i64 = 256;
/// Its figures fit everywhere; nobody waits for a longer one.
const FILE_BYTES_MAX: usize = 16_000_000_000;
/// Whole messages are compared with that much text; also one bit per chunk in the ledger.
const MESSAGE_BYTES_MAX: usize = (Ledger::CHUNKS_MAX as usize - 1) * CHUNK_BODY_BYTES;

impl Run {
    /// The scenario of one process, with its defaults filled in. An error is the user's.
    pub fn to_scenario(&self, share: Share) -> Result<Scenario, String> {
        if !self.target.is_sip() {
            return Err("--target must be a SIP URI: sip:ROOM@HOST:PORT".to_owned());
        }
        let usual = self.scenario.usual();
        let (window, message_rate) = match (self.window, self.message_rate) {
            (None, None) => (usual.window, usual.message_rate),
            given => given,
        };
        let interval_ns = message_rate.map(|rate| (1e9 / rate) as u64);
        let rooms = match (self.rooms, self.room_size) {
            (_, Some(rooms)) => rooms,
            (Some(rooms), None) => Rooms::Count(rooms),
            (None, None) => usual.rooms,
        };
        let stall = (self.scenario == ScenarioName::StalledReceiver)
            .then_some(Stall { after: self.duration, duration: self.stall });
        if stall.is_some() && rooms.sizes(self.sessions).first() != Some(&2) {
            return Err("the first room must have two members: one stalls, one sends".to_owned());
        }
        let mut room_sizes = rooms.sizes(self.sessions);
        let largest = room_sizes.iter().copied().max().unwrap_or(0);
        if largest > ROOM_MEMBERS_MAX {
            return Err(format!(
                "a room would have {largest} members, more than {ROOM_MEMBERS_MAX}: \
                 use --rooms or --room-size"
            ));
        }
        let churns = self.scenario == ScenarioName::Calls;
        let bulk = self.scenario == ScenarioName::Bulk;
        if stall.is_some() || self.scenario == ScenarioName::Burst {
            share.whole("what happens in one moment is one process's")?;
        }
        let concurrency = share.of_some(self.concurrency.unwrap_or(64), "calls under way")?;
        let (mut first_room, mut first_session) =
            (share.index * CALLS_MAX, share.index * CALLS_MAX);
        if !churns {
            let own = share.of_some(room_sizes.len() as u32, "rooms, which are not divided")?;
            first_room = own.start;
            first_session = room_sizes[..own.start as usize].iter().sum();
            room_sizes = room_sizes[own.start as usize..own.end as usize].to_vec();
        }
        let rate = self.rate.unwrap_or(if churns { 1e6 } else { 100.0 });
        // What has no window of messages has one of chunks.
        let chunks_open_max = window.filter(|_| bulk).map(|chunks| chunks as usize);
        let window = window.filter(|_| !bulk && !churns);
        Ok(Scenario {
            sessions: if churns { CALLS_MAX } else { room_sizes.iter().sum() },
            rate_per_second: share.of_rate(rate),
            warmup: self.warmup,
            churn: churns.then_some(Churn { concurrency: concurrency.len() as u32 }),
            duration: self.duration + stall.map_or(Duration::ZERO, |stall| stall.duration),
            traffic: Traffic {
                interval_ns,
                window: window.unwrap_or(0),
                over_when_answered: self.window_until == WindowEnd::Answered,
                senders: self.senders.unwrap_or(u32::MAX),
                speaks_once: churns,
                texts: TextSizes::new(self.message_size.clone()),
                drain_timeout: self.drain_timeout,
                files: usual.files.map(|files| FileTraffic {
                    bytes: self.file_size.unwrap_or(files.bytes),
                    chunks_open_max: chunks_open_max.unwrap_or(files.chunks_open_max),
                    ..files
                }),
                stall,
                burst: self.scenario == ScenarioName::Burst,
            },
            threads: self.threads,
            room_sizes,
            first_room,
            first_session,
        })
    }
}

/// What a scenario does where the command line does not say.
struct Usual {
    window: Option<u32>,
    message_rate: Option<f64>,
    rooms: Rooms,
    files: Option<FileTraffic>,
}

impl ScenarioName {
    fn usual(self) -> Usual {
        let pairs = Rooms::Sizes { min: 2, max: 2 };
        let rate =
            |rate| Usual { window: None, message_rate: Some(rate), rooms: pairs, files: None };
        match self {
            Self::Chat => Usual { rooms: Rooms::Count(1), ..rate(1.0) },
            Self::Pairs | Self::Burst => Usual { window: Some(8), message_rate: None, ..rate(0.0) },
            Self::FileAndChat => Usual {
                // A mebibyte: a chat message of the same UE has no more than that before it.
                files: Some(FileTraffic {
                    bytes: 100 << 20,
                    chunks_open_max: 32,
                    chunk_bytes: FILE_CHUNK_BODY_BYTES,
                }),
                ..rate(10.0)
            },
            Self::StalledReceiver => Usual {
                // Nothing but TCP is to hold the sender back.
                files: Some(FileTraffic {
                    bytes: 200_000_000,
                    chunks_open_max: usize::MAX,
                    chunk_bytes: FILE_CHUNK_BODY_BYTES,
                }),
                ..rate(50.0)
            },
            Self::Calls | Self::Bfcp => {
                Usual { rooms: Rooms::Count(1), message_rate: None, ..rate(0.0) }
            }
            Self::Bulk => Usual {
                files: Some(FileTraffic {
                    bytes: 64 << 20,
                    chunks_open_max: 128,
                    chunk_bytes: BULK_CHUNK_BODY_BYTES,
                }),
                message_rate: None,
                ..rate(0.0)
            },
        }
    }
}

impl Target {
    /// It is called; else it is connected to.
    #[must_use]
    pub fn is_sip(&self) -> bool {
        !self.user.is_empty()
    }
}

fn parse_target(text: &str) -> Result<Target, String> {
    if let Some(host_port) = text.strip_prefix("tcp://") {
        let address = wire::parse_tcp(text)?;
        return Ok(Target { user: String::new(), host_port: host_port.to_owned(), address });
    }
    let rest = text.strip_prefix("sip:").ok_or("not a SIP URI: it must begin with sip:")?;
    let rest = rest.split([';', '?']).next().unwrap_or(rest);
    let (user, host_port) =
        rest.split_once('@').ok_or("the URI has no user part: sip:ROOM@HOST:PORT")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if user.is_empty() || !user.bytes().all(plain) {
        return Err("the room's name may have letters, digits and - _ . +".to_owned());
    }
    let has_port = host_port
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && !port.ends_with(']'));
    let resolvable = if has_port { host_port.to_owned() } else { format!("{host_port}:5060") };
    let address = resolvable
        .to_socket_addrs()
        .map_err(|error| format!("{host_port}: {error}"))?
        .next()
        .ok_or_else(|| format!("{host_port}: no address"))?;
    Ok(Target { user: user.to_owned(), host_port: host_port.to_owned(), address })
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if (1e-3..=1e6).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number per second from 0.001 to 1000000, e.g. 50 or 50/s".to_owned()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)];
    for (unit, seconds) in units {
        let number = text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok());
        if let Some(number) = number.filter(|number| (0.0..=1e6).contains(number)) {
            return Ok(Duration::from_secs_f64(number * seconds));
        }
    }
    Err("a duration is a number with ms, s, m or h, e.g. 20s".to_owned())
}

fn parse_room_size(text: &str) -> Result<Rooms, String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let max = max.strip_prefix('=').unwrap_or(max);
    match (min.parse(), max.parse()) {
        (Ok(min), Ok(max)) if 1 <= min && min <= max && max <= ROOM_MEMBERS_MAX => {
            Ok(Rooms::Sizes { min, max })
        }
        _ => Err(format!("a room size is N or A..B, from 1 to {ROOM_MEMBERS_MAX}")),
    }
}

fn parse_file_size(text: &str) -> Result<usize, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("kB", 1_000), ("MB", 1_000_000), ("", 1)];
    for (unit, bytes) in units {
        let number = text.strip_suffix(unit).and_then(|number| number.parse::<usize>().ok());
        if let Some(size) = number.and_then(|number| number.checked_mul(bytes))
            && (STAMP_BYTES..=FILE_BYTES_MAX).contains(&size)
        {
            return Ok(size);
        }
    }
    Err("a file size is a number with kB, KiB, MB or MiB, e.g. 100MiB; up to 16 GB".to_owned())
}

fn parse_message_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (STAMP_BYTES..=MESSAGE_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("a message has {STAMP_BYTES} to {MESSAGE_BYTES_MAX} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn run(options: &[&str]) -> Result<Run, clap::Error> {
        let mut line = vec!["mrf-load", "run", "chat", "--target", "sip:room@127.0.0.1:5060"];
        line.extend(options);
        match Cli::try_parse_from(line)?.command {
            Command::Run(Scenarios::Chat(run)) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn fills_in_defaults() {
        let run = run(&[]).unwrap();
        assert_eq!(run.target.user, "room");
        assert_eq!(run.target.address, "127.0.0.1:5060".parse().unwrap());
        let scenario = run.to_scenario(Share::WHOLE).unwrap();
        assert_eq!(scenario.sessions, 10);
        assert_eq!(scenario.room_sizes, [10]);
        assert_eq!(scenario.traffic.interval_ns, Some(1_000_000_000));
        assert_eq!(scenario.duration, Duration::from_secs(20));
    }

    #[test]
    fn reads_times_rates_and_sizes() {
        let run = run(&[
            "--duration",
            "1500ms",
            "--rate",
            "2.5/s",
            "--room-size",
            "2..20",
            "--window",
            "8",
        ])
        .unwrap();
        assert_eq!(run.duration, Duration::from_millis(1500));
        assert!((run.rate.unwrap() - 2.5).abs() < 1e-9);
        assert_eq!(run.room_size, Some(Rooms::Sizes { min: 2, max: 20 }));
        assert_eq!(run.to_scenario(Share::WHOLE).unwrap().traffic.interval_ns, None);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for options in [
            &["--sessions", "0"][..],
            &["--rate", "0"],
            &["--duration", "-1s"],
            &["--duration", "soon"],
            &["--room-size", "5..2"],
            &["--message-size", "10"],
            &["--message-size", "200,10"],
            &["--message-size", ","],
            &["--window", "2", "--message-rate", "2"],
            &["--rooms", "2", "--room-size", "2"],
        ] {
            assert!(run(options).is_err(), "{options:?}");
        }
        assert!(parse_target("room@127.0.0.1").is_err());
        assert!(parse_target("sip:127.0.0.1").is_err());
        assert!(parse_target("sip:a b@127.0.0.1").is_err());
        assert!(run(&["--sessions", "5000"]).unwrap().to_scenario(Share::WHOLE).is_err());
    }
}
