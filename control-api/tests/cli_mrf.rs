//! The built binary, run as an operator runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

/// Everything on ports of the kernel's choice.
const ANY_PORTS: &str = "[sip]\nudp = \"127.0.0.1:0\"\ntcp = \"127.0.0.1:0\"\n\
    [media]\nport = 0\nshards = 1\n[http]\nlisten = \"127.0.0.1:0\"\n\
    [kms]\nlisten = \"127.0.0.1:0\"\n";

fn mrf(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mrf")).args(arguments).output().expect("runs")
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("text")
}

/// A node that is killed when the test ends, however it ends.
struct Running {
    child: Child,
    ready_line: String,
}

impl Running {
    fn start(config: &str) -> Self {
        Self::start_with(config, "info")
    }

    fn start_with(config: &str, log_level: &str) -> Self {
        let config = file(config);
        let mut child = Command::new(env!("CARGO_BIN_EXE_mrf"))
            .args(["serve", "--config", path(&config)])
            .env("RUST_LOG", log_level)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut ready_line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut ready_line).expect("readable");
        Self { child, ready_line }
    }

    /// The value of `name=` in the ready line.
    fn value(&self, name: &str) -> &str {
        let prefix = format!("{name}=");
        let value = self.ready_line.split_whitespace().find_map(|word| word.strip_prefix(&prefix));
        value.unwrap_or_else(|| panic!("no {name} in {:?}", self.ready_line))
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.value(name).parse().expect("an address")
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("runs");
        assert!(status.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

#[test]
fn help_teaches_ports_signals_exit_codes_and_the_load_generator() {
    let output = mrf(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    for expected in [
        "mrf serve --config mrf.toml",
        "mrf check mrf.toml",
        "5060 udp+tcp",
        "2855 tcp",
        "8080 tcp",
        "8088 tcp",
        "mrf-load",
        "mrf ready",
        "SIGTERM",
        "130, 143",
        "RUST_LOG",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing from:\n{text}");
    }
}

#[test]
fn wrong_options_exit_with_2() {
    assert_eq!(mrf(&["serve", "--no-such-option"]).status.code(), Some(2));
    assert_eq!(mrf(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn check_says_ok_with_a_summary() {
    let file = file(include_str!("../../docs/mrf.toml"));
    let output = mrf(&["check", path(&file)]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with(&format!("{}: OK\n", path(&file))), "{text}");
    assert!(text.contains("udp 127.0.0.1:5060"), "{text}");
    assert!(!text.contains("4d5246"), "a key is shown: {text}");
}

#[test]
fn check_warns_of_credentials_that_everybody_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let user = "[relay]\nallow_plain_auth = true\n";
    let user = format!("{user}[[relay.user]]\nname = \"bob\"\nmd5 = \"{}\"\n", "0f".repeat(16));
    for (text, mode, warned) in
        [(user.as_str(), 0o644, true), (user.as_str(), 0o640, false), ("", 0o644, false)]
    {
        let file = file(text);
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(file.path(), permissions).expect("ours");
        let output = mrf(&["check", path(&file)]);
        assert_eq!(output.status.code(), Some(0));
        let told = String::from_utf8(output.stderr).expect("text");
        assert_eq!(told.contains("everybody may read it"), warned, "{mode:o} {told}");
        let told = String::from_utf8(output.stdout).expect("text");
        let relay = if text.is_empty() {
            "relay    off"
        } else {
            "relay    127.0.0.1:2800 as localhost, 1 user(s), also in the clear"
        };
        assert!(told.contains(relay), "{told}");
        assert!(!told.contains("0f0f"), "{told}");
    }
}

#[test]
fn check_names_the_line_that_is_wrong() {
    let file = file("[rooms]\nmembers_max = 1\n");
    let output = mrf(&["check", path(&file)]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.starts_with(&format!("{}:2:15: ", path(&file))), "{text}");
    assert!(text.contains("\n 2 | members_max = 1\n"), "{text}");
    assert!(text.contains("\nremedy: "), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    for arguments in [&["check", "/no/such/file"][..], &["serve", "--config", "/no/such/file"]] {
        let output = mrf(arguments);
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(text.starts_with("/no/such/file: cannot be read: "), "{text}");
    }
}

#[test]
fn ready_line_names_addresses_that_all_listen() {
    let node = Running::start(ANY_PORTS);
    assert!(node.ready_line.starts_with("mrf ready sip=udp:127.0.0.1:"), "{}", node.ready_line);
    let sip_tcp = node.value("sip").split(",tcp:").nth(1).expect("tcp").parse().expect("address");
    for address in [sip_tcp, node.address("media"), node.address("http"), node.address("kms")] {
        TcpStream::connect::<SocketAddr>(address).expect("listens");
    }
    assert!(get(node.address("http"), "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(get(node.address("http"), "/metrics").contains("\nmrf_calls 0\n"));
}

#[test]
fn sigterm_and_sigint_stop_it_with_0() {
    for signal in ["TERM", "INT"] {
        let mut node = Running::start(ANY_PORTS);
        node.signal(signal);
        assert_eq!(node.exit_code(), Some(0), "{signal}");
    }
}

#[test]
fn a_port_in_use_is_named_with_its_setting_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("bound");
    for (section, setting) in [("[http]", "http.listen"), ("[kms]", "kms.listen")] {
        let other = ANY_PORTS.replace(
            &format!("{section}\nlisten = \"127.0.0.1:0\""),
            &format!("{section}\nlisten = \"{address}\""),
        );
        assert_complains(&other, address, setting);
    }
    let sip = ANY_PORTS.replace("tcp = \"127.0.0.1:0\"", &format!("tcp = \"{address}\""));
    assert_complains(&sip, address, "sip.tcp");
    let media = ANY_PORTS.replace("port = 0", &format!("port = {}", address.port()));
    assert_complains(&media, address, "media.port");
}

fn assert_complains(config: &str, address: SocketAddr, setting: &str) {
    let config = file(config);
    let output = mrf(&["serve", "--config", path(&config)]);
    assert_eq!(output.status.code(), Some(1), "{setting}");
    assert!(output.stdout.is_empty(), "{setting}");
    let text = String::from_utf8(output.stderr).expect("text");
    let complaints: Vec<_> = text.lines().filter(|line| line.starts_with("mrf: ")).collect();
    assert_eq!(complaints.len(), 1, "{text}");
    assert!(complaints[0].contains(&address.to_string()), "{text}");
    assert!(complaints[0].contains("in use"), "{text}");
    assert!(complaints[0].contains(setting), "{text}");
}

#[test]
fn logs_go_to_stderr_and_follow_rust_log() {
    for (level, warns) in [("warn", true), ("error", false)] {
        let mut node = Running::start_with(ANY_PORTS, level);
        node.signal("TERM");
        assert_eq!(node.exit_code(), Some(0));
        let mut log = String::new();
        let mut stderr = node.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("text");
        assert_eq!(log.contains("development credential"), warns, "{level}: {log}");
    }
}

#[test]
fn takes_all_the_descriptors_it_may_have() {
    let config = file(ANY_PORTS);
    // What a login shell gives is too few for a node; `exec` keeps the process.
    let script = format!(
        "ulimit -Sn 256 && exec '{}' serve --config '{}'",
        env!("CARGO_BIN_EXE_mrf"),
        path(&config)
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let mut ready_line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut ready_line).expect("readable");
    let node = Running { child, ready_line };
    assert!(node.ready_line.starts_with("mrf ready "), "{}", node.ready_line);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.child.id()));
    let limits = limits.expect("the process lives");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
}

#[test]
fn a_credential_takes_the_place_of_a_password_read_from_stdin() {
    let run = |user: &str, password: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mrf"))
            .args(["credential", user, "localhost"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        // A user that cannot be is refused before anything is read.
        let _ = child.stdin.take().expect("piped").write_all(password.as_bytes());
        child.wait_with_output().expect("ends")
    };
    for password in ["correct horse battery staple", "correct horse battery staple\r\n"] {
        let output = run("alice", password);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).expect("text");
        // As `printf '%s' 'alice:localhost:correct horse battery staple' | sha256sum` has it.
        assert_eq!(
            text,
            "[[relay.user]]\nname = \"alice\"\n\
             sha256 = \"fa78921189f1174c220c43619cb2ed127ee2b28536d80dc2c8230fc054faf953\"\n\
             md5 = \"5fef2e7c9a651340b1033def905a6fcc\"\n"
        );
        let file = file(&format!("[relay]\nallow_plain_auth = true\n{text}"));
        assert_eq!(mrf(&["check", path(&file)]).status.code(), Some(0));
    }
    for (user, password) in [("alice", ""), ("alice", "\n"), ("a:b", "secret"), ("a\"b", "secret")]
    {
        let output = run(user, password);
        assert_eq!(output.status.code(), Some(2), "{user:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}
