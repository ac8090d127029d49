//! `mrf kms`, run as an operator runs it and asked by a foreign client over HTTPS.

#[path = "../../mrfp-core/protocol/tests/tls_common/authority.rs"]
mod authority;
#[path = "support/program.rs"]
mod program;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use authority::Authority;
use control_api::mikey::codec::{self, DataType};
use control_api::mikey::{GrantedTicket, Initiator, NtpTime, Parameters, PreSharedKey};
use program::{PATIENCE, Program, find};
use zeroize::Zeroizing;

const ALICE: &str = "sip:alice@example.com";
const ROOM: &str = "sip:room@example.com";
const KMS_URI: &str = "sip:kms@example.com";

fn now() -> NtpTime {
    NtpTime::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).expect("later"))
}

fn random(out: &mut [u8]) {
    getrandom::fill(out).expect("the kernel has randomness");
}

/// A folder with certificate, state and configuration of a KMS.
struct Place {
    folder: tempfile::TempDir,
    curl: PathBuf,
}

impl Place {
    /// `None`: there is no foreign client.
    fn new() -> Option<Self> {
        let curl = find("curl", "curl")?;
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("Authority of the KMS");
        let issued = authority.issue(&["localhost"]);
        let place = Self { folder, curl };
        place.write("chain.pem", &issued.chain);
        place.write("key.pem", &issued.key);
        place.write("authority.pem", &authority.pem);
        place.write_config("alice");
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn write_config(&self, user: &str) {
        let folder = self.folder.path().display();
        let text = format!(
            "[http]\nlisten = \"127.0.0.1:0\"\n[kms]\nlisten = \"127.0.0.1:0\"\n\
             uri = \"{KMS_URI}\"\nresolver = \"{user}\"\ntarget = \"/kms/mikey?type={{type}}\"\n\
             state_directory = \"{folder}/state\"\n\
             [kms.certificate]\nchain = \"{folder}/chain.pem\"\nkey = \"{folder}/key.pem\"\n\
             [[kms.user]]\nid = \"{user}\"\nkey = \"{}\"\nmay_act_as = [\"*\"]\n",
            "03".repeat(16)
        );
        self.write("kms.toml", &text);
    }

    fn start(&self) -> Kms {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mrf"));
        command.args(["kms", "--config"]).arg(self.path("kms.toml")).env("RUST_LOG", "info");
        let program = Program::start(&mut command);
        program.await_output("mrf ready kms=");
        let output = program.output();
        let line = output.lines().find(|line| line.starts_with("mrf ready")).expect("there");
        let port = |name: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(name)).expect("named");
            value.rsplit(':').next().expect("a port").to_owned()
        };
        Kms { port: port("kms="), http: port("http="), program }
    }

    /// Posts a message as a program that is not ours does it; status and body.
    fn post(&self, kms: &Kms, kind: &str, message: &[u8]) -> (String, Vec<u8>) {
        let (request, response) = (self.path("request"), self.path("response"));
        fs::write(&request, message).expect("written");
        let _ = fs::remove_file(&response);
        let url = format!("https://localhost:{}/kms/mikey?type={kind}", kms.port);
        let status = self.run_curl(
            Command::new(&self.curl)
                .args(["--cacert", text(&self.path("authority.pem"))])
                .args(["-H", "Content-Type: application/mikey"])
                .args(["--data-binary", &format!("@{}", request.display())])
                .args(["-o", text(&response), "-w", "%{http_code} %{content_type}"])
                .arg(url),
        );
        (status, fs::read(&response).unwrap_or_default())
    }

    fn run_curl(&self, command: &mut Command) -> String {
        let command = command.args(["-sS", "--max-time", "20", "--resolve"]);
        let output = command.arg("localhost:1:127.0.0.1").stdin(Stdio::null()).output();
        String::from_utf8(output.expect("runs").stdout).expect("text")
    }

    fn granted(&self, kms: &Kms) -> (GrantedTicket, Vec<u8>) {
        let (parameters, at) = (Parameters::default(), now());
        let alice = PreSharedKey { identity: b"alice".to_vec(), key: Zeroizing::new(vec![3; 16]) };
        let asked =
            Initiator::request_ticket(&parameters, ALICE, ROOM, KMS_URI, &alice, at, &mut random);
        let (pending, message) = asked.expect("a request");
        let (status, body) = self.post(kms, "ticketrequest", &message);
        assert_eq!(status, "200 application/mikey", "{}", kms.program.output());
        (pending.finish(&body, now()).expect("granted"), message)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A KMS that runs.
struct Kms {
    program: Program,
    port: String,
    http: String,
}

impl Kms {
    fn signal(&self, name: &str) {
        let id = self.program.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(status.success());
    }
}

#[test]
fn a_foreign_client_gets_a_ticket_and_a_kill_forgets_nothing() {
    let Some(place) = Place::new() else { return };
    let mut kms = place.start();
    let (ticket, message) = place.granted(&kms);
    kms.program.await_output("outcome=\"issued\"");
    let line = kms.program.output();
    let line = line.lines().find(|line| line.contains("issued")).expect("there").to_owned();
    for part in ["audit", "alice", ALICE, ROOM, "GMT"] {
        assert!(line.contains(part), "{part} is missing from {line}");
    }
    kms.signal("KILL");
    assert_eq!(kms.program.await_end(PATIENCE).signal(), Some(9));

    let mut kms = place.start();
    let (status, body) = place.post(&kms, "ticketrequest", &message);
    assert_eq!(status, "200 application/mikey");
    let answer = codec::parse(&body).expect("a message");
    assert_eq!(answer.header.data_type, DataType::Error, "a replay is refused");
    // What came before the crash is refused up to two seconds later than the last of it.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let (status, body) = resolve(&place, &kms, &ticket);
        assert_eq!(status, "200 application/mikey");
        if codec::parse(&body).expect("a message").header.data_type == DataType::ResolveResp {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{}", kms.program.output());
        std::thread::sleep(Duration::from_millis(200));
    }
    let metrics = place
        .run_curl(Command::new(&place.curl).arg(format!("http://127.0.0.1:{}/metrics", kms.http)));
    let counted = "mrf_kms_requests_total{message=\"resolve_init_psk\",outcome=\"answered\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    kms.signal("TERM");
    assert_eq!(kms.program.await_end(PATIENCE).code(), Some(0), "{}", kms.program.output());
}

/// Has a ticket resolved, as the responder it is for.
fn resolve(place: &Place, kms: &Kms, ticket: &GrantedTicket) -> (String, Vec<u8>) {
    let key = || PreSharedKey { identity: b"alice".to_vec(), key: Zeroizing::new(vec![3; 16]) };
    let parameters = Parameters::default();
    let made =
        Initiator::with_granted_ticket(&parameters, ticket, ROOM, now(), &mut random).expect("one");
    let config = control_api::mikey::ResponderConfig {
        accepted: vec![control_api::mikey::UriPattern::Any],
        answer_as: None,
        kms_uri: KMS_URI.to_owned(),
        kms_key: key(),
        parameters,
    };
    let mut responder = control_api::mikey::Responder::new(config);
    let begun = responder.begin(&made.1, "mikey", now(), &mut random);
    place.post(kms, "ticketresolve", &begun.expect("begun").1)
}

#[test]
fn a_hangup_takes_over_users_and_a_wrong_file_changes_nothing() {
    let Some(place) = Place::new() else { return };
    let kms = place.start();
    place.granted(&kms);
    let reload = || {
        let url = format!("http://127.0.0.1:{}/api/v1/kms/reload", kms.http);
        place.run_curl(
            Command::new(&place.curl).args(["-X", "POST", "-w", " %{http_code}"]).arg(url),
        )
    };
    place.write("kms.toml", "[kms]\nlisten = 5\n");
    let told = reload();
    assert!(told.ends_with(" 409") && told.contains("kms.toml:2"), "{told}");
    kms.signal("HUP");
    kms.program.await_output("not reloaded");
    place.granted(&kms);
    place.write_config("bob");
    kms.signal("HUP");
    kms.program.await_output("the configuration of the KMS was reloaded");
    let (parameters, at) = (Parameters::default(), now());
    let alice = PreSharedKey { identity: b"alice".to_vec(), key: Zeroizing::new(vec![3; 16]) };
    let asked =
        Initiator::request_ticket(&parameters, ALICE, ROOM, KMS_URI, &alice, at, &mut random);
    let (_, body) = place.post(&kms, "ticketrequest", &asked.expect("a request").1);
    let answer = codec::parse(&body).expect("a message");
    assert_eq!(answer.header.data_type, DataType::Error, "alice is a user no more");
    let told = reload();
    assert!(told.contains("only a restart takes over: kms.resolver"), "{told}");
}

#[test]
fn check_refuses_a_listener_in_the_clear_beyond_loopback() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kms.toml");
    let key = |table: &str, id: &str| {
        format!(
            "[[kms.{table}]]\nid = \"{id}\"\nkey = \"{}\"\nmay_act_as = [\"*\"]\n",
            "07".repeat(32)
        )
    };
    let config = |extra: &str| {
        let keys = format!("{}{}", key("user", "own"), key("ticket_key", "tickets"));
        format!("[kms]\nlisten = \"192.0.2.1:8088\"\nresolver = \"own\"\n{extra}{keys}")
    };
    let check = |text: &str| {
        fs::write(&file, text).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mrf"));
        let output = command.arg("check").arg(&file).output().expect("runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, told) = check(&config(""));
    assert_eq!(code, Some(2));
    assert!(told.contains("192.0.2.1 is beyond loopback, and there is no TLS"), "{told}");
    assert!(told.contains("kms.allow_plain = true"), "{told}");
    assert_eq!(check(&config("allow_plain = true\n")).0, Some(0));
    let remote = |url: &str| {
        let server = format!("mode = \"remote\"\n[[kms.server]]\nurl = \"{url}\"\n");
        check(&config(&server))
    };
    assert!(remote("http://192.0.2.1:80").1.contains("a KMS beyond loopback without TLS"));
    assert!(remote("https://192.0.2.1").1.contains("no certificate of a KMS would be taken"));
    assert!(remote("https://kms.example/path").1.contains("path and query are kms.target"));
    assert!(remote("ftp://kms.example").1.contains("neither http nor https"));
    assert_eq!(remote("http://[::1]:8088").0, Some(0));
}
