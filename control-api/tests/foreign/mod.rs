//! MSRP clients that others wrote, each in a process of its own and driven by lines of text.
//!
//! A script of ours (beside this file) stands between a library and these lines. It says:
//!
//! | line | meaning |
//! |---|---|
//! | `path URI...` | its path for the SDP, once it is ready; behind a relay the relay's URIs come first |
//! | `refused WHY` | it could not get that far |
//! | `connected` | its session is bound |
//! | `sent ID` | a message is under way |
//! | `response ID STATUS` | the answer to the last chunk of a message, or to `nickname` |
//! | `report ID STATUS` | a REPORT arrived |
//! | `message ID TYPE BASE64` | a whole message arrived |
//! | `aborted ID` | a message was given up |
//! | `closed` | the connection is gone |
//!
//! and takes `connect URI...` or `accept URI...` with the other's path (the latter of clients behind a
//! relay: the other one begins), `send TYPE BASE64 [report]`, `nickname NAME` and `quit`.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod kamailio;

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::NamedTempFile;

use crate::support::node::Node;
use crate::support::program::{PATIENCE, say_skipped};
use crate::support::random::Random;
use crate::support::sip::{Call, Transport};

/// A library and what it can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library {
    pub(crate) name: &'static str,
    /// Where it comes from; no Debian package, hence not required.
    origin: &'static str,
    interpreter: &'static str,
    script: &'static str,
    /// Bodies of any bytes, not of text alone.
    pub(crate) binary: bool,
    /// Tells the status of the answers to its SENDs.
    pub(crate) tells_responses: bool,
    /// Tells of REPORTs.
    pub(crate) tells_reports: bool,
    /// Sends NICKNAME (RFC 7701).
    pub(crate) nickname: bool,
    /// Writes paths of more than one URI, as its peer's relay needs them.
    pub(crate) paths: bool,
}

/// AG Projects' client library, the one of Blink.
pub(crate) const MSRPLIB: Library = Library {
    name: "msrplib",
    origin: "the package python3-msrplib of ag-projects.com, for python3 or MRF_FOREIGN_PYTHON",
    interpreter: "python3",
    script: "msrplib_client.py",
    binary: true,
    tells_responses: true,
    tells_reports: true,
    nickname: true,
    paths: true,
};

/// The MSRP Java stack.
pub(crate) const MSRP_JAVA: Library = Library {
    name: "msrp-java",
    origin: "net.msrp:msrp of MSRP-OSS and slf4j, on the CLASSPATH of java 17",
    interpreter: "java",
    script: "MsrpJavaClient.java",
    binary: true,
    tells_responses: false,
    tells_reports: true,
    nickname: true,
    paths: false,
};

/// The one on npm.
pub(crate) const MSRP_NODE_LIB: Library = Library {
    name: "msrp-node-lib",
    origin: "the npm package msrp-node-lib, on the NODE_PATH of node",
    interpreter: "node",
    script: "msrp_node_lib_client.js",
    binary: false,
    tells_responses: true,
    tells_reports: false,
    nickname: false,
    paths: true,
};

impl Library {
    /// Those that are here. Of the others it is said loudly that they are not.
    pub(crate) fn present() -> Vec<Self> {
        let all = [MSRPLIB, MSRP_JAVA, MSRP_NODE_LIB];
        all.into_iter().filter(|library| library.is_present()).collect()
    }

    /// Whether it is here; if not, that is said loudly.
    pub(crate) fn is_present(&self) -> bool {
        let output = self.command(&["--probe"]).output();
        let ready = output.is_ok_and(|output| output.stdout.starts_with(b"ready"));
        if !ready {
            say_skipped(&format!("no {}: install {}", self.name, self.origin));
        }
        ready
    }

    /// A large body of what the library can carry, with its type.
    pub(crate) fn large_body(&self, length: usize) -> (&'static str, Vec<u8>) {
        let mut body = Random(4975).bytes(length);
        if self.binary {
            return ("application/octet-stream", body);
        }
        for byte in &mut body {
            *byte = b' ' + *byte % 95;
        }
        ("text/plain", body)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let python =
            std::env::var_os("MRF_FOREIGN_PYTHON").filter(|_| self.interpreter == "python3");
        let script =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(self.script);
        let mut command = Command::new(python.unwrap_or_else(|| self.interpreter.into()));
        command.arg(script).args(arguments).stderr(Stdio::null());
        command
    }
}

/// A client that runs; it ends with the test.
pub(crate) struct Client {
    pub(crate) library: Library,
    /// Its own path, URIs apart by a blank.
    pub(crate) path: String,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    /// Lines that were passed over, in their order.
    waiting: VecDeque<String>,
    errors: NamedTempFile,
}

impl Client {
    /// Starts one with the arguments its script takes, and waits for its path.
    pub(crate) fn start(library: Library, arguments: &[&str]) -> Self {
        let mut client = Self::launch(library, arguments);
        client.path = client.next("path").join(" ");
        client
    }

    /// The same without waiting.
    pub(crate) fn launch(library: Library, arguments: &[&str]) -> Self {
        let errors = NamedTempFile::new().expect("a file");
        let mut child = library
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.reopen().expect("ours"))
            .spawn()
            .expect("it answered the probe");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines() {
                if line.map_or(true, |line| sender.send(line).is_err()) {
                    break;
                }
            }
        });
        let waiting = VecDeque::new();
        Self { library, path: String::new(), child, input, lines, waiting, errors }
    }

    /// Calls the room and connects; it says nothing of CPIM.
    pub(crate) fn join(library: Library, node: &Node, room: &str, name: &str) -> Member {
        Self::join_accepting(library, node, room, name, "*")
    }

    /// The same with these accept-types.
    pub(crate) fn join_accepting(
        library: Library,
        node: &Node,
        room: &str,
        name: &str,
        accept_types: &str,
    ) -> Member {
        let mut client = Self::start(library, &[]);
        let call = client.call(node, room, name, accept_types);
        client.tell(&format!("connect {}", call.answer.path));
        client.next("connected");
        Member { client, call }
    }

    /// Calls the room, with its path in the offer; it is the one to connect.
    fn call(&self, node: &Node, room: &str, name: &str, accept_types: &str) -> Call {
        let offer = offer(&self.path, accept_types);
        Call::place_offering(node, Transport::Tcp, room, name, &self.path, offer.as_bytes())
    }

    /// Types a line.
    pub(crate) fn tell(&mut self, line: &str) {
        let result = writeln!(self.input, "{line}").and_then(|()| self.input.flush());
        result.unwrap_or_else(|_| panic!("{} is gone: {}", self.library.name, self.errors()));
    }

    /// Sends a message and returns its Message-ID.
    pub(crate) fn send(&mut self, content_type: &str, body: &[u8]) -> String {
        self.tell(&format!("send {content_type} {}", STANDARD.encode(body)));
        self.next("sent").remove(0)
    }

    /// The same, asking for a success report.
    pub(crate) fn send_with_report(&mut self, content_type: &str, body: &[u8]) -> String {
        self.tell(&format!("send {content_type} {} report", STANDARD.encode(body)));
        self.next("sent").remove(0)
    }

    /// Waits for the 200 to a message, where the library tells.
    pub(crate) fn await_ok(&mut self, message_id: &str) {
        if self.library.tells_responses {
            assert_eq!(self.next("response"), [message_id, "200"], "{}", self.library.name);
        }
    }

    /// The next message: Content-Type and body.
    pub(crate) fn hear(&mut self) -> (String, Vec<u8>) {
        let words = self.next("message");
        let [_, content_type @ .., body] = &words[..] else { panic!("{words:?}") };
        (content_type.join(" "), STANDARD.decode(body).expect("base64"))
    }

    /// What follows the word on the next line that begins with it; others wait.
    pub(crate) fn next(&mut self, word: &str) -> Vec<String> {
        let follows = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            (words.next().as_deref() == Some(word)).then(|| words.collect())
        };
        if let Some(at) = self.waiting.iter().position(|line| follows(line).is_some()) {
            return self.waiting.remove(at).and_then(|line| follows(&line)).expect("it is there");
        }
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                let what = if error == RecvTimeoutError::Timeout { "is silent" } else { "ended" };
                let said: Vec<_> = self.waiting.iter().map(|line| shortened(line)).collect();
                let errors = self.errors();
                panic!("{} {what}, {word:?} expected; {said:?}\n{errors}", self.library.name)
            });
            match follows(&line) {
                Some(words) => return words,
                None => self.waiting.push_back(line),
            }
        }
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.errors.path()).unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client offers that connects itself.
pub(crate) fn offer(path: &str, accept_types: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=message 9 TCP/MSRP *\r\na=accept-types:{accept_types}\r\n\
         a=accept-wrapped-types:*\r\na=setup:active\r\na=path:{path}\r\n"
    )
}

/// A client in a room.
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) call: Call,
}

fn shortened(line: &str) -> String {
    line.chars().take(200).collect()
}
