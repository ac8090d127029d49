//! A whole node with a certificate: configured, checked, and shown to members of a conference.

#[path = "../../mrfp-core/protocol/tests/tls_common/authority.rs"]
mod authority;
mod support;

use std::fs;
use std::process::Command;

use authority::Authority;
use control_api::config::Config;
use mrfp_protocol::tls::{
    Authorities, CertificateConfig, CertificateFault, Fingerprint, Handshake, HandshakeError,
    Identity, Profile, ProfileConfig,
};
use support::node::Node;
use support::program::{Program, find};
use support::sip::{Call, Transport};
use support::ue::Ue;
use support::wire::Wire;
use tempfile::TempDir;

/// The node is reached by address.
const HOST: &str = "127.0.0.1";

/// An authority, and the files of a node it has certified.
struct Files {
    authority: Authority,
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        Self::of("test authority")
    }

    fn of(authority: &str) -> Self {
        let authority = Authority::new(authority);
        let issued = authority.issue(&[HOST]);
        let directory = tempfile::tempdir().expect("writable");
        let files = Self { authority, directory };
        files.write("chain.pem", &issued.chain);
        files.write("key.pem", &issued.key);
        files.write("authority.pem", &files.authority.pem);
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).expect("writable");
    }

    fn setting(&self, setting: &str, file: &str) -> String {
        format!("{setting} = {:?}", self.directory.path().join(file))
    }

    /// A configuration in which the lines stand in this order, with these changes.
    fn config(&self, change: impl FnOnce(&mut [String; 4])) -> String {
        let mut lines = [
            self.setting("chain", "chain.pem"),
            self.setting("key", "key.pem"),
            format!("authorities = [{:?}]", self.directory.path().join("authority.pem")),
            "web_authorities = false".to_owned(),
        ];
        change(&mut lines);
        format!("[tls.certificate]\n{}\n", lines.join("\n"))
    }

    /// The certificate of the node.
    fn identity(&self) -> Identity {
        let read = |name| fs::read(self.directory.path().join(name)).expect("readable");
        Identity::from_pem(&read("chain.pem"), &read("key.pem")).expect("just made")
    }

    fn start(&self) -> Node {
        let (chain, key) = (self.setting("chain", "chain.pem"), self.setting("key", "key.pem"));
        Node::start(&[("tls.certificate", &chain), ("tls.certificate", &key)])
    }

    /// What a UE is that trusts the authority.
    fn ue(&self) -> Profile {
        let issued = self.authority.issue(&["ue.example.com"]);
        let identity = Identity::from_pem(issued.chain.as_bytes(), issued.key.as_bytes());
        let authorities = Authorities::from_pem(self.authority.pem.as_bytes());
        let config = CertificateConfig {
            identity: identity.expect("just made"),
            authorities: authorities.expect("just made"),
        };
        let profile = Profile::new(&ProfileConfig::default()).expect("the default");
        profile.with_certificates(&config).expect("good")
    }
}

#[test]
fn plain_keys_and_certificates_meet_in_one_room_on_one_port() {
    let files = Files::new();
    let node = files.start();
    let mut ues = [
        Ue::join(&node, "mixed", "plain", false),
        Ue::join(&node, "mixed", "keyed", true),
        Ue::join_certified(&node, "mixed", "certified", &files.ue(), HOST),
    ];
    for ue in &ues {
        assert_eq!(ue.call.media(), node.media);
    }
    // RFC 4975 section 14.4: whoever is shown a certificate can tell by the SDP that it is ours.
    let shown = files.identity();
    let fingerprints = ues.each_ref().map(|ue| ue.call.answer.fingerprint.clone());
    let expected = shown.fingerprint().to_string();
    assert_eq!(fingerprints, [None, None, Some(expected)]);
    for sender in 0..ues.len() {
        let text = format!("from {sender}");
        ues[sender].say(&text);
        for (receiver, ue) in ues.iter_mut().enumerate() {
            if receiver != sender {
                // In a wrapper, for whoever takes one.
                let heard = ue.hear();
                assert!(heard.ends_with(&text), "{sender} to {receiver}: {heard}");
            }
        }
    }
    let rooms = node.get("/api/v1/rooms");
    for security in ["none", "tls-psk", "tls-certificate"] {
        assert!(rooms.contains(&format!("\"security\":\"{security}\"")), "{rooms}");
    }
    for ue in &mut ues {
        ue.call.hang_up();
    }
    node.await_empty();
    node.await_metric("mrf_handshakes_completed", 2);
}

#[test]
fn a_ue_does_not_talk_to_a_node_that_is_another() {
    let files = Files::new();
    let node = files.start();
    for (profile, host, fault) in [
        (files.ue(), "conference.example", CertificateFault::NameMismatch),
        (Files::of("another authority").ue(), HOST, CertificateFault::UnknownIssuer),
    ] {
        let mut call = Call::place_certified(&node, "room", "alice");
        let handshake = Handshake::certificate_client(&profile, host).expect("a name");
        let error = Wire::connect_with(call.media(), Some(handshake)).err().expect("refused");
        let error = error.into_inner().expect("of the handshake");
        assert_eq!(error.downcast_ref(), Some(&HandshakeError::Certificate(fault)));
        call.hang_up();
    }
    node.await_empty();
}

/// A UE nobody vouches for: it announces `announced` and shows what `shown` has; the node's own
/// certificate it knows by the answer.
fn call_by_fingerprint(node: &Node, announced: &Identity, shown: &Profile) -> (Call, Wire) {
    let from = format!("msrps://127.0.0.1:9/fp{};tcp", announced.fingerprint().to_string().len());
    let offer = format!(
        "v=0\r\no=ue 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=message 9 TCP/TLS/MSRP *\r\na=setup:active\r\na=accept-types:text/plain\r\n\
         a=path:{from}\r\na=fingerprint:{}\r\n",
        announced.fingerprint()
    );
    let call =
        Call::place_offering(node, Transport::Tcp, "mixed", "alice", &from, offer.as_bytes());
    let lines = call.description.lines();
    let known: Vec<Fingerprint> = lines
        .filter_map(|line| line.strip_prefix("a=fingerprint:"))
        .map(|value| Fingerprint::parse(value).expect("readable"))
        .collect();
    assert_eq!(known.len(), 1, "{}", call.description);
    let handshake = Handshake::fingerprint_client(shown, "node.invalid", &known).expect("a name");
    let wire = Wire::connect_with(call.media(), Some(handshake)).expect("connects");
    (call, wire)
}

#[test]
fn ends_that_nobody_vouches_for_know_each_other_by_fingerprint() {
    let files = Files::new();
    let node = files.start();
    let mut bob = Ue::join(&node, "mixed", "bob", false);
    let nobody = Files::of("nobody");
    let issued = nobody.authority.issue(&["ue.example.com"]);
    let identity = Identity::from_pem(issued.chain.as_bytes(), issued.key.as_bytes());
    let identity = identity.expect("just made");
    let authorities = Authorities::from_pem(nobody.authority.pem.as_bytes()).expect("just made");
    let config = CertificateConfig { identity: identity.clone(), authorities };
    let own = Profile::new(&ProfileConfig::default()).expect("the default");
    let own = own.with_certificates(&config).expect("good");

    let (mut call, mut wire) = call_by_fingerprint(&node, &identity, &nobody.ue());
    wire.write_all(&call.paths.bind("bind0001")).expect("sends");
    let mut reader = support::msrp::Reader::default();
    let head = reader.next(&mut wire, &mut |_| {}).expect("an answer");
    assert_eq!(head.status(), Some(481), "another certificate than was announced");
    call.hang_up();

    let (call, wire) = call_by_fingerprint(&node, &identity, &own);
    let mut alice = Ue::bind(call, wire);
    alice.say("hello from nobody");
    assert!(bob.hear().ends_with("hello from nobody"));
    alice.call.hang_up();
    bob.call.hang_up();
    node.await_empty();
}

#[test]
fn openssl_s_client_chats_with_a_member() {
    let Some(openssl) = find("openssl", "openssl") else { return };
    let files = Files::new();
    let node = files.start();
    let mut bob = Ue::join(&node, "mixed", "bob", true);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut call = Call::place_certified(&node, "mixed", "alice");
        let mut command = Command::new(&openssl);
        command.args(["s_client", "-connect", &call.media().to_string(), version, "-quiet"]);
        command.args(["-verify_ip", HOST, "-verify_return_error", "-CAfile"]);
        let mut alice = Program::start(command.arg(files.directory.path().join("authority.pem")));
        alice.write(&call.paths.send("foreign1", "hello from elsewhere\n"));
        alice.await_output("MSRP foreign1 200 OK\r\n");
        assert!(bob.hear().ends_with("hello from elsewhere\n"));
        bob.say("hello from here\n");
        alice.await_output("\r\n\r\nhello from here\n\r\n-------");
        call.hang_up();
        node.await_metric("mrf_terminations", 1);
    }
}

#[test]
fn the_configuration_names_the_line_of_a_file_that_is_no_good() {
    let files = Files::new();
    let other = files.authority.issue(&[HOST]);
    files.write("other-key.pem", &other.key);
    files.write("empty.pem", "");
    files.write("torn.pem", &other.chain[..other.chain.len() - 40]);
    Config::parse("mrf.toml", &files.config(|_| {})).expect("good as it is");

    let missing = |setting: &str| files.setting(setting, "missing.pem");
    let other_key = files.setting("key", "other-key.pem");
    let authority_at =
        |file: &str| format!("authorities = [{:?}]", files.directory.path().join(file));
    let cases = [
        (0, missing("chain"), "No such file"),
        (0, files.setting("chain", "empty.pem"), "no certificate in it"),
        (0, files.setting("chain", "key.pem"), "no certificate in it"),
        (0, files.setting("chain", "torn.pem"), "not PEM"),
        (1, missing("key"), "No such file"),
        (1, files.setting("key", "chain.pem"), "no private key in it"),
        (1, other_key, "the private key belongs to another certificate"),
        (2, authority_at("missing.pem"), "No such file"),
        (2, authority_at("empty.pem"), "no certificate in it"),
        (2, "authorities = []".to_owned(), "no certificate of anybody else"),
    ];
    for (line, text, message) in cases {
        let config = files.config(|lines| lines[line].clone_from(&text));
        let problem = Config::parse("mrf.toml", &config).expect_err(&text).to_string();
        assert!(problem.starts_with(&format!("mrf.toml:{}:", line + 2)), "{text}: {problem}");
        assert!(problem.contains(message), "{text}: {problem}");
        assert!(problem.contains("\nremedy: "), "{text}: {problem}");
        // Not a word of what may be a key.
        assert!(!problem.contains("BEGIN"), "{text}: {problem}");
    }
}

#[test]
fn a_relay_needs_a_certificate_for_its_name() {
    let files = Files::new();
    let hash = "fa78921189f1174c220c43619cb2ed127ee2b28536d80dc2c8230fc054faf953";
    let relay = |host: &str, more: &str| {
        format!(
            "[relay]\nhost = \"{host}\"\n{more}[[relay.user]]\nname = \"a\"\nsha256 = \"{hash}\"\n"
        )
    };
    let read = |text: &str| Config::parse("mrf.toml", text).map(|_| ()).map_err(|e| e.to_string());
    let without = read(&relay("relay.example.com", "")).expect_err("nobody could authenticate");
    assert!(without.starts_with("mrf.toml:2:"), "{without}");
    assert!(without.contains("a relay without a certificate"), "{without}");
    read(&relay("relay.example.com", "allow_plain_auth = true\n")).expect("a laboratory");
    let certified = files.config(|_| {});
    let other = read(&format!("{certified}{}", relay("relay.example.com", ""))).expect_err("name");
    assert!(other.starts_with("mrf.toml:2:"), "{other}");
    assert!(other.contains("not for relay.example.com, the host of the relay"), "{other}");
    read(&format!("{certified}{}", relay(HOST, ""))).expect("its name");
}

#[test]
fn the_example_shows_the_settings_of_a_certificate() {
    let example = include_str!("../../docs/mrf.toml");
    for line in [
        "# [tls.certificate]\n",
        "# chain = ",
        "# key = ",
        "# authorities = ",
        "# web_authorities = true\n",
    ] {
        assert!(example.contains(line), "{line}");
    }
}
