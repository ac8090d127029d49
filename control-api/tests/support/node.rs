//! A whole node in a process of its own, as an operator runs it: its memory can be looked at.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::program::wait_until;

/// A node that is killed when the test ends, however it ends.
pub(crate) struct Node {
    child: Child,
    /// SIP over UDP.
    pub(crate) sip_udp: SocketAddr,
    /// SIP over TCP.
    pub(crate) sip_tcp: SocketAddr,
    /// The one shard.
    pub(crate) media: SocketAddr,
    /// The relay, where it is on.
    pub(crate) relay: Option<SocketAddr>,
    http: SocketAddr,
}

impl Node {
    /// One shard, everything on ports of the kernel's choice, and these settings: pairs of section
    /// and line.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let config = config(settings);
        // The usual soft limit of a login shell or a service, whatever this process has.
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -Sn 1024; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_mrf")])
            .args(["serve", "--config", config.path().to_str().expect("text")])
            .env("RUST_LOG", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("readable");
        let value = |prefix: &str| -> SocketAddr {
            let words = line.trim().split([' ', ',']);
            let found = words.map(|word| word.trim_start_matches("sip="));
            let value = found.into_iter().find_map(|word| word.strip_prefix(prefix));
            value.unwrap_or_else(|| panic!("no {prefix} in {line:?}")).parse().expect("an address")
        };
        Self {
            sip_udp: value("udp:"),
            sip_tcp: value("tcp:"),
            media: value("media="),
            relay: line.contains(" relay=").then(|| value("relay=")),
            http: value("http="),
            child,
        }
    }

    /// A metric, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        assert!(text.contains(&format!("# TYPE {name} ")), "no metric {name} in:\n{text}");
        let values = text
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            // OpenMetrics: the sample of a counter has this suffix.
            .map(|rest| rest.strip_prefix("_total").unwrap_or(rest))
            .filter(|rest| rest.starts_with([' ', '{']))
            .filter_map(|rest| rest.rsplit(' ').next());
        values.map(|value| value.parse::<u64>().expect("a number")).sum()
    }

    /// What the admin listener answers, head and all.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).expect("connects");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    /// The scrape, as text.
    pub(crate) fn metrics(&self) -> String {
        let answer = self.get("/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer
    }

    /// Waits until a metric has that value.
    pub(crate) fn await_metric(&self, name: &str, expected: u64) {
        wait_until(
            || self.metric(name) == expected,
            || format!("{name} to be {expected}, it is {}", self.metric(name)),
        );
    }

    /// Waits until nothing is left of any call.
    pub(crate) fn await_empty(&self) {
        for gauge in [
            "mrf_calls",
            "mrf_rooms",
            "mrf_sip_dialogs",
            "mrf_contexts",
            "mrf_terminations",
            "mrf_connections",
            "mrf_send_buffers_outstanding",
            "mrf_carry_buffers_outstanding",
        ] {
            self.await_metric(gauge, 0);
        }
    }

    /// Resident memory of the node, bytes (proc(5), second field of `statm`, in pages of 4 KiB).
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let statm = fs::read_to_string(path).expect("it runs");
        let pages: u64 = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("two");
        pages * 4096
    }

    /// Soft and hard limit on the node's descriptors.
    pub(crate) fn descriptor_limits(&self) -> (String, String) {
        let path = format!("/proc/{}/limits", self.child.id());
        let limits = fs::read_to_string(path).expect("it runs");
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let mut words = line.expect("Linux").split_whitespace().map(str::to_owned);
        (words.next().expect("soft"), words.next().expect("hard"))
    }

    /// Most memory that was ever resident, bytes.
    pub(crate) fn resident_bytes_peak(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1024
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(settings: &[(&str, &str)]) -> tempfile::NamedTempFile {
    let any = "listen = \"127.0.0.1:0\"";
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        // What a test sees must not depend on how fast the machine is.
        (
            "sip",
            vec![
                "udp = \"127.0.0.1:0\"",
                "tcp = \"127.0.0.1:0\"",
                "queue_delay_max_milliseconds = 0",
            ],
        ),
        ("media", vec!["port = 0", "shards = 1", "pin = false"]),
        ("http", vec![any]),
        ("kms", vec![any]),
    ]);
    for (section, line) in settings {
        sections.entry(section).or_default().push(line);
    }
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for (section, lines) in sections {
        writeln!(file, "[{section}]\n{}\n", lines.join("\n")).expect("written");
    }
    file
}
