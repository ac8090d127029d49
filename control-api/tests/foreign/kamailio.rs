//! Kamailio as an MSRP relay (RFC 4976), configured the way its msrp module documents.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::msrp::Reader;
use crate::support::program::{PATIENCE, Program, find, skip, wait_until};
use crate::support::wire::Wire;

/// A relay that runs; it ends, with the processes it has forked, when the test does.
pub(crate) struct Kamailio {
    program: Program,
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    directory: TempDir,
}

impl Kamailio {
    /// Starts one. `None`: it is not there, which was said loudly.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("tcp", "msrp", "")
    }

    /// The same over TLS, with these PEM files of a certificate and its key.
    pub(crate) fn start_secure(certificate: &Path, key: &Path) -> Option<Self> {
        // Debian has the module in a package of its own.
        if !MODULES.iter().any(|directory| Path::new(directory).join("tls.so").is_file()) {
            skip("no tls module of Kamailio: install the Debian package kamailio-tls-modules");
            return None;
        }
        let settings = format!(
            "enable_tls=yes\nloadmodule \"tls.so\"\nmodparam(\"tls\", \"certificate\", {certificate:?})\n\
             modparam(\"tls\", \"private_key\", {key:?})\nmodparam(\"tls\", \"verify_certificate\", 0)\n\
             modparam(\"tls\", \"tls_method\", \"TLSv1.2+\")\n"
        );
        Self::start_with("tls", "msrps", &settings)
    }

    fn start_with(protocol: &str, scheme: &'static str, settings: &str) -> Option<Self> {
        let kamailio = find("kamailio", "kamailio")?;
        let directory = tempfile::tempdir().expect("a directory");
        // Its configuration needs a number. Whoever takes it before Kamailio does spoils this test
        // alone.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let address = free.expect("a free port");
        let file = directory.path().join("kamailio.cfg");
        let configuration = CONFIGURATION
            .replace("PROTOCOL", protocol)
            .replace("SCHEME", scheme)
            .replace("PORT", &address.port().to_string())
            .replace("# SETTINGS", settings);
        fs::write(&file, configuration).expect("written");
        let mut command = Command::new(kamailio);
        // No daemon, no names looked up, little memory; what it writes goes to the directory.
        command.args(["-DD", "-E", "-m", "32", "-M", "4", "-f"]).arg(&file);
        for option in ["-Y", "-w"] {
            command.arg(option).arg(directory.path());
        }
        let program = Program::start(&mut command);
        wait_until(
            || program.has_ended() || TcpStream::connect(address).is_ok(),
            || format!("Kamailio to listen: {}", program.output()),
        );
        assert!(!program.has_ended(), "{}", program.output());
        Some(Self { program, address, scheme, directory })
    }

    /// The URI that AUTH goes to.
    pub(crate) fn uri(&self) -> String {
        format!("{}://localhost:{};tcp", self.scheme, self.address.port())
    }

    /// Gets the client with this URI one here, over its connection: Use-Path.
    pub(crate) fn authorise(&self, wire: &mut Wire, client: &str) -> String {
        let auth = format!(
            "MSRP auth0001 AUTH\r\nTo-Path: {}\r\nFrom-Path: {client}\r\n-------auth0001$\r\n",
            self.uri()
        );
        wire.write_all(auth.as_bytes()).expect("sends");
        let answer = Reader::default().next(wire, &mut |_| {}).expect("an answer");
        assert_eq!(answer.status(), Some(200), "{}", answer.text);
        answer.header("Use-Path").expect("a path").to_owned()
    }

    /// Everything it has said.
    pub(crate) fn log(&self) -> String {
        self.program.output()
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // Only asked, and waited for, does it end the processes it has forked. Nothing here may
        // panic: a test may be doing so.
        if !self.program.has_ended() {
            self.program.interrupt();
            let deadline = Instant::now() + PATIENCE;
            while !self.program.has_ended() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Where Debian has Kamailio's modules, for the architectures it is likely to run on.
const MODULES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/kamailio/modules", "/usr/lib/aarch64-linux-gnu/kamailio/modules"];

/// The example in the module's documentation without digest (it is framing and paths that are looked
/// at), made fit for paths in which Kamailio is the only relay: what comes from the client itself goes
/// to the next URI, what comes from elsewhere to the client. A 200 goes out before the frame goes on,
/// as documented.
const CONFIGURATION: &str = r#"#!KAMAILIO
debug=2
log_stderror=yes
children=1
tcp_children=2
disable_sctp=yes
tcp_accept_no_cl=yes
tcp_connection_lifetime=600
auto_aliases=no
listen=PROTOCOL:127.0.0.1:PORT
# SETTINGS

loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "cfgutils.so"
loadmodule "htable.so"
loadmodule "msrp.so"
modparam("htable", "htable", "client=>size=8;autoexpire=600;")

request_route {
    exit;
}

event_route[msrp:frame-in] {
    msrp_reply_flags("1");
    if (msrp_is_reply()) {
        msrp_relay();
        exit;
    }
    if ($msrp(method) == "AUTH") {
        if ($msrp(nexthops) > 0) {
            msrp_relay();
            exit;
        }
        $var(session) = "s" + $pp + "x" + $RANDOM + "x" + $RANDOM;
        $sht(client=>$var(session)::address) = $msrp(srcaddr);
        $sht(client=>$var(session)::socket) = $msrp(srcsock);
        msrp_reply("200", "OK",
            "Use-Path: SCHEME://localhost:PORT/$var(session);tcp\r\nExpires: 600\r\n");
        exit;
    }
    if ($msrp(method) != "SEND" && $msrp(method) != "REPORT" && $msrp(method) != "NICKNAME") {
        msrp_reply("501", "Request-method-not-understood");
        exit;
    }
    $var(session) = $msrp(sessid);
    if ($sht(client=>$var(session)::address) == $null) {
        msrp_reply("481", "Session-does-not-exist");
        exit;
    }
    if ($msrp(method) == "SEND") {
        msrp_reply("200", "OK");
    }
    if ($sht(client=>$var(session)::address) != $msrp(srcaddr)) {
        msrp_relay_flags("1");
        msrp_set_dst("$sht(client=>$var(session)::address)",
            "$sht(client=>$var(session)::socket)");
    } else {
        # It looks names up in the DNS alone.
        $var(next) = $(msrp(nexthop){re.subst,/localhost/127.0.0.1/});
        msrp_set_dst("$var(next)", "PROTOCOL:127.0.0.1:PORT");
    }
    msrp_relay();
}
"#;
