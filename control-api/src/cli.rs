//! The command line of `mrf`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A media node for conferences over MSRP: SIP in front, media on pinned threads behind.
#[derive(Clone, PartialEq, Eq, Debug, Parser)]
#[command(
    name = "mrf",
    version,
    about = "A media node for conferences over MSRP (TCP, TLS-PSK with MIKEY-TICKET)",
    after_help = SHORT_HELP,
    after_long_help = LONG_HELP
)]
pub struct Cli {
    /// What to do; without a word the node is started with the embedded defaults.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `mrf` can do.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum Command {
    /// Start the node and run until SIGTERM or SIGINT.
    #[command(after_help = SERVE_HELP)]
    Serve {
        /// Configuration file (TOML); without it the embedded defaults: everything on loopback.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Start a key management service alone, and run until SIGTERM or SIGINT.
    #[command(after_help = KMS_HELP)]
    Kms {
        /// Configuration file (TOML), of which kms, mikey and http count; without it the
        /// embedded defaults.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Read a configuration file and say whether the node would take it, or which line is wrong.
    Check {
        /// Configuration file (TOML).
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Read a password from stdin and print the [[relay.user]] entry that takes its place.
    Credential {
        /// Name of the user.
        #[arg(value_name = "USER")]
        user: String,
        /// Realm of the relay, as in the configuration.
        #[arg(value_name = "REALM")]
        realm: String,
    },
    /// Say what the node makes of a piece of protocol.
    #[command(subcommand)]
    Inspect(Inspect),
}

/// What `mrf inspect` can read.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum Inspect {
    /// An SDP offer: what is understood of it, and what an INVITE with it would be answered; or what the
    /// border makes of it.
    #[command(after_help = SDP_HELP)]
    Sdp(InspectSdp),
    /// MIKEY messages: every field; with keys, whether the MACs are right and what the TEK is.
    #[command(after_help = MIKEY_HELP)]
    Mikey(InspectMikey),
    /// BFCP messages: every field, and whether the node would take them.
    #[command(after_help = BFCP_HELP)]
    Bfcp {
        /// JSON for programs.
        #[arg(long)]
        json: bool,
        /// Files with messages; without one standard input.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// A stream of MSRP: its messages one by one, and the first that is malformed.
    Msrp {
        /// File with what one side sent; without it standard input.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// What `mrf inspect sdp` is told.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct InspectSdp {
    /// Configuration file (TOML); without it the embedded defaults.
    #[arg(long, value_name = "FILE", conflicts_with = "border")]
    pub config: Option<PathBuf>,
    /// The room that is called.
    #[arg(long, value_name = "NAME", default_value = "room", conflicts_with = "border")]
    pub room: String,
    /// Not a room is called: the offer passes a border of this role.
    #[arg(long, value_enum, value_name = "ROLE")]
    pub border: Option<InspectBorder>,
    /// The side that offers [default: access, or own].
    #[arg(long, value_enum, value_name = "SIDE", requires = "border")]
    pub from: Option<InspectSide>,
    /// File with the answer to the offer, which passes the border the other way.
    #[arg(long, value_name = "FILE", requires = "border")]
    pub answer: Option<PathBuf>,
    /// What the registration of the UE has agreed: msrp-tls, bfcp-tls, udptl-dtls.
    #[arg(long, value_enum, value_name = "MECHANISM", value_delimiter = ',', requires = "border")]
    pub mediasec: Vec<InspectMediasec>,
    /// As border.rcs_compat = true: MSRP is protected without a registration that says so.
    #[arg(long, requires = "border")]
    pub rcs_compat: bool,
    /// UEs are where their SDP says, and not behind a NAT.
    #[arg(long, requires = "border")]
    pub no_nat: bool,
    /// Paths are never left to CEMA.
    #[arg(long, requires = "border")]
    pub no_cema: bool,
    /// Our address on the side that offers, with the port of the first m-line [default: 203.0.113.1:30001
    /// for access and foreign, 192.0.2.1:40001 for core and own].
    #[arg(long, value_name = "ADDRESS:PORT", requires = "border")]
    pub offerer_end: Option<SocketAddr>,
    /// The same on the side that answers.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "border")]
    pub answerer_end: Option<SocketAddr>,
    /// Fingerprint of our certificate, as in a=fingerprint [default: sha-256
    /// 00:11:22:...].
    #[arg(long, value_name = "HASH XX:XX:...", requires = "border")]
    pub fingerprint: Option<String>,
    /// File with the offer; without it standard input.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What a border is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum InspectBorder {
    /// Between an access network and the core (TS 23.334).
    ImsAlg,
    /// Between the own network and another one (TS 29.162).
    Ibcf,
}

/// A side of a border.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum InspectSide {
    /// Where the UEs are.
    Access,
    /// The network that serves them.
    Core,
    /// The own network.
    Own,
    /// Another one.
    Foreign,
}

/// A mechanism of media security (`mediasec`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum InspectMediasec {
    /// MSRP over TLS.
    MsrpTls,
    /// BFCP over TLS.
    BfcpTls,
    /// UDPTL over DTLS.
    UdptlDtls,
}

/// What `mrf inspect mikey` is told.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct InspectMikey {
    /// Configuration file (TOML) whose keys of the KMS are tried.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File with keys to try (TOML): psk, ticket_key and mpk, each a list of keys in hex.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Key shared with the KMS, hex (anybody on this machine can see it here).
    #[arg(long, value_name = "HEX")]
    pub psk: Vec<String>,
    /// Ticket protection key, hex.
    #[arg(long, value_name = "HEX")]
    pub ticket_key: Vec<String>,
    /// MPKi of a transfer, hex.
    #[arg(long, value_name = "HEX")]
    pub mpk: Vec<String>,
    /// Print keys, too: without it only their lengths are told.
    #[arg(long)]
    pub show_secrets: bool,
    /// JSON for programs.
    #[arg(long)]
    pub json: bool,
    /// Files with messages; without one standard input.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

impl Cli {
    /// The command, with the default filled in.
    #[must_use]
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Serve { config: None })
    }
}

/// Clean end: the node was stopped and every call ended, or the file or what was inspected is fine.
pub const EXIT_OK: u8 = 0;
/// The node could not start, or stopped with calls cut off; what was inspected would be refused.
pub const EXIT_FAILURE: u8 = 1;
/// The command line or the configuration is wrong (2 is also what the parser of options uses).
pub const EXIT_USAGE: u8 = 2;
/// Added to the number of a second signal, as a shell reports a death by that signal.
pub const EXIT_SIGNAL_BASE: u8 = 128;

const SHORT_HELP: &str = "Try it: start `mrf`, then in a second terminal `mrf-load --help`.\n\
    More, with every port and exit code: mrf --help";

const LONG_HELP: &str = "\
Examples:
  mrf                              start with the embedded defaults, on loopback only
  mrf serve --config mrf.toml      start with a file (docs/mrf.toml shows every setting)
  mrf kms --config kms.toml        a key management service alone
  mrf check mrf.toml               say OK, or which line is wrong and what to do
  RUST_LOG=debug mrf               more on stderr (error, warn, info, debug, trace)
  mrf credential alice example.com >> mrf.toml    a user of the relay; the password comes from stdin
  mrf inspect sdp offer.sdp        what is understood of an offer, and the answer to it
  mrf inspect sdp --border ims-alg offer.sdp      what a border makes of it, line by line
  mrf inspect msrp < trace         one side of an MSRP connection, message by message
  mrf inspect mikey call.sip       a key exchange, field by field; with keys, verified
  mrf inspect bfcp trace.hex       floor control messages, field by field
  curl http://127.0.0.1:8080/readyz    is it ready for calls?

Ports (defaults; each can be changed):
  5060 udp+tcp   SIP. Call sip:ROOM@127.0.0.1 with an offer of TCP/MSRP or TCP/TLS/MSRP.
  2855 tcp ...   MSRP and BFCP, one port per shard from here on; SDP names the one to connect to.
                 BFCP over UDP has a port of the kernel's choice for each participant.
  2800 tcp       MSRP relay, where there are users; from 2801 on one more port per shard.
  8080 tcp       HTTP: /healthz /readyz /metrics /api/v1/contexts /api/v1/rooms, and a status page at /.
  8088 tcp       KMS: POST /keymanagement?requesttype=ticketrequest|ticketresolve.

When everything listens, one line that begins with `mrf ready` goes to stdout and names every
address; logs go to stderr.

Load: `mrf-load` plays a fleet of phones (SIP, MIKEY, TLS-PSK, MSRP) against this node. Both know
the same development credential, so that encrypted calls work out of the box; with that credential
the node refuses to listen beyond loopback.

Floors (who may write): set rooms.floors in the configuration; docs/bfcp.md begins with that.

Signals: SIGHUP: users, groups, keys and policies of the KMS are read again.
SIGTERM or SIGINT once: no new calls, BYE to every party, then exit. Twice: exit at once.

Exit codes:
  0          stopped as asked, every call ended; or the file is fine
  1          the node could not start (one line says why), or calls had to be cut off at the end;
             or what was inspected would be refused
  2          the command line or the configuration is wrong
  130, 143   a second SIGINT or SIGTERM";

const SDP_HELP: &str = "\
Without --border: the offer calls a room of the conference.

With --border: each line as it came and as it goes on, where that is not the same, with the clause that
asks for it; before that the profile of every m-line and what carries it on both sides. With --answer
also the way back, and how the connections of both sides come about.

  mrf inspect sdp --border ims-alg offer.sdp                 a UE calls
  mrf inspect sdp --border ims-alg --from core --mediasec msrp-tls offer.sdp
                                                             a UE is called that has agreed on TLS for MSRP
  mrf inspect sdp --border ims-alg --answer answer.sdp offer.sdp
  mrf inspect sdp --border ibcf --from foreign offer.sdp     another network calls

Lines: two blanks, as it was; '-', as it came; '+', as it goes on. docs/border.md says more.

Exit code 1: it would be refused.";

const MIKEY_HELP: &str = "\
The input may be base64, hex, an SDP body, a SIP message, an HTTP message of the KMS, the message
itself, or a capture file whose packets are not cut. Later messages are checked with what earlier
ones tell, so give a whole exchange in its order: INVITE and 200, or request and response.

  mrf inspect mikey call.sip                    every field, with its offset
  mrf inspect mikey --config mrf.toml call.sip  MACs verified with the keys of the KMS
  tcpdump -r trace.pcap -A | mrf inspect mikey --key-file keys.toml --json

Exit code 1: a message is broken, or a MAC is wrong with every key.";

const BFCP_HELP: &str = "\
The input may be hex or base64, a packet a line or one message on several lines, or the payload of a
connection itself. Version 1 is read as over TCP, version 2 as over UDP, where a message is one
datagram or a fragment.

  tshark -r trace.pcap -Y bfcp -T fields -e tcp.payload -e udp.payload | mrf inspect bfcp

Exit code 1: the node would refuse the format of a message.";

const KMS_HELP: &str = "The line that begins with `mrf ready` names both addresses: that of the KMS \
    and that of health, metrics and reload (POST /api/v1/kms/reload). SIGHUP reads the configuration \
    again. How to run one: docs/kms.md";

const SERVE_HELP: &str = "The line that begins with `mrf ready` names every address. \
    Ports and exit codes: mrf --help";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn serves_where_nothing_is_said() {
        let cli = Cli::parse_from(["mrf"]);
        assert_eq!(cli.command(), Command::Serve { config: None });
    }
}
