//! Reading configuration files: the example, and complaints that can be acted on.

use control_api::config::{Config, Cpim, Plain, PortMode, Shards};

const EXAMPLE: &str = include_str!("../../docs/mrf.toml");

fn problem(text: &str) -> String {
    match Config::parse("mrf.toml", text) {
        Ok(config) => panic!("taken: {config:?}"),
        Err(problem) => problem.to_string(),
    }
}

/// Replaces one setting of the example, which must be in it.
fn example_with(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from} is not in the example");
    EXAMPLE.replacen(from, to, 1)
}

#[test]
fn example_equals_the_embedded_defaults() {
    assert_eq!(Config::parse("mrf.toml", EXAMPLE).expect("valid"), Config::default());
}

#[test]
fn example_names_every_setting() {
    let example: toml::Table = toml::from_str(EXAMPLE).expect("valid");
    let defaults = toml::Table::try_from(Config::default()).expect("a table");
    for (section, settings) in &defaults {
        let shown = example[section].as_table().expect("a section");
        for name in settings.as_table().expect("a section").keys() {
            assert!(shown.contains_key(name), "{section}.{name} is missing from the example");
        }
    }
    assert!(EXAMPLE.contains("\n# advertised = "));
}

/// The example with its tables in comments made part of it, but for the certificate, whose files are
/// not there: the relay is one that does without.
fn example_with_every_table() -> String {
    let mut inside = false;
    let uncommented = EXAMPLE.lines().map(|line| {
        inside = line.starts_with("# [[") || (inside && line.starts_with("# "));
        if inside { &line[2..] } else { line }
    });
    let text = uncommented.collect::<Vec<_>>().join("\n");
    text.replace("allow_plain_auth = false", "allow_plain_auth = true")
}

#[test]
fn tables_in_the_comments_of_the_example_are_valid() {
    let config = Config::parse("mrf.toml", &example_with_every_table()).expect("valid");
    let [room] = config.room_exceptions.as_slice() else { panic!("one room is shown") };
    assert_eq!((room.name.as_str(), room.members_max), ("board", Some(20)));
    assert_eq!(room.cpim, Some(Cpim::Required));
    let [realm] = config.realms.as_slice() else { panic!("one realm is shown") };
    assert_eq!(realm.networks.len(), 2);
    let [user] = config.relay.users.as_slice() else { panic!("one user is shown") };
    assert!(user.name == "alice" && user.sha256.is_some() && user.md5.is_some());
    assert!(config.relay.is_on() && !Config::default().relay.is_on());
    // Every setting of a room is shown.
    let shown: toml::Table = toml::from_str(&example_with_every_table()).expect("valid");
    assert_eq!(shown["room"][0].as_table().map(toml::Table::len), Some(9));
}

#[test]
fn empty_file_is_the_defaults() {
    assert_eq!(Config::parse("empty", "").expect("valid"), Config::default());
}

#[test]
fn reads_every_kind_of_value() {
    let text = "[media]\nshards = 3\nport_mode = \"per-termination\"\nadvertised = \"::1\"\n\
                [security]\nplain = \"refuse\"\n[rooms]\nlist = [\"lobby\"]\n";
    let config = Config::parse("mrf.toml", text).expect("valid");
    assert_eq!(config.media.shards, Shards::Count(3));
    assert_eq!(config.media.port_mode, PortMode::PerTermination);
    assert_eq!(config.media.advertised, Some("::1".parse().expect("an address")));
    assert_eq!(config.security.plain, Plain::Refuse);
    assert_eq!(config.rooms.list, ["lobby"]);
}

#[test]
fn auto_leaves_one_core_to_the_control_plane() {
    assert_eq!(Shards::AUTO.count(1), 1);
    assert_eq!(Shards::AUTO.count(2), 1);
    assert_eq!(Shards::AUTO.count(8), 7);
    assert_eq!(Shards::Count(5).count(2), 5);
}

#[test]
fn names_line_and_column_of_an_unknown_setting_and_the_one_meant() {
    let told = problem("[sip]\nudb = \"127.0.0.1:5060\"\n");
    assert!(told.starts_with("mrf.toml:2:1: unknown field `udb`"), "{told}");
    assert!(told.contains("\n 2 | udb = \"127.0.0.1:5060\"\n   | ^^^\n"), "{told}");
    assert!(told.ends_with("remedy: did you mean `udp`?"), "{told}");
}

#[test]
fn names_the_place_of_a_wrong_type() {
    let told = problem("[media]\n\n  port = \"2855\"\n");
    assert!(told.starts_with("mrf.toml:3:10: invalid type: string"), "{told}");
}

#[test]
fn says_how_an_address_is_written() {
    let told = problem("[sip]\nudp = \"localhost\"\n");
    assert!(told.starts_with("mrf.toml:2:7: "), "{told}");
    assert!(told.contains("remedy: write address and port"), "{told}");
}

#[test]
fn names_the_place_of_broken_toml() {
    let told = problem("[sip\nudp = 1\n");
    assert!(told.starts_with("mrf.toml:1:"), "{told}");
}

#[test]
fn names_the_place_where_a_rule_is_broken() {
    let cases = [
        ("members_max = 2048", "members_max = 1", "a room with fewer than 2"),
        ("shards = \"auto\"", "shards = 0", "0 shards"),
        ("prot_type_tls = 241", "prot_type_tls = 0", "SRTP"),
        ("idle_seconds = 3600", "idle_seconds = 0", "0 seconds is outside"),
        ("egress_bytes_max = 1048576", "egress_bytes_max = 10", "10 is less than"),
        (
            "listen = \"127.0.0.1:8088\"",
            "listen = \"127.0.0.1:8080\"",
            "same TCP port as http.listen",
        ),
        ("listen = \"127.0.0.1\"", "listen = \"0.0.0.0\"", "peers cannot connect to 0.0.0.0"),
        (
            "resolver = \"development-psk\"",
            "resolver = \"other\"",
            "no [[kms.user]] has the id \"other\"",
        ),
        ("\"PSK-CHACHA20-POLY1305\",", "\"NO-SUCH-SUITE\",", "unknown TLS-PSK suite NO-SUCH-SUITE"),
        ("accept_types = [\"text/plain\", \"*\"]", "accept_types = []", "nothing could be sent"),
        ("accept_wrapped_types = [\"*\"]", "accept_wrapped_types = [\"text\"]", "no media type"),
        (
            "accept_wrapped_types = [\"*\"]",
            "accept_wrapped_types = [\"Message/CPIM\"]",
            "message/cpim is always taken",
        ),
        ("nicknames_reserved = []", "nicknames_reserved = [\"\"]", "nobody's nickname"),
        ("realm = \"localhost\"", "realm = 'a\"b'", "cannot stand between quotes"),
        ("host = \"localhost\"", "host = \"sip:me\\\\@x\"", "no host name"),
        ("expires_min_seconds = 60", "expires_min_seconds = 0", "outside 1 to 7200"),
        (
            "expires_default_seconds = 1800",
            "expires_default_seconds = 7201",
            "7201 seconds is outside 60 to 7200",
        ),
        ("outbound_per_shard_max = 4096", "outbound_per_shard_max = 0", "0 is less than 1"),
    ];
    for (from, to, message) in cases {
        let text = example_with(from, to);
        let line = text[..text.find(to).expect("replaced")].matches('\n').count() + 1;
        let told = problem(&text);
        assert!(told.starts_with(&format!("mrf.toml:{line}:")), "{to}: {told}");
        assert!(told.contains(message), "{to}: {told}");
        assert!(told.contains("\nremedy: "), "{to}: {told}");
    }
}

/// The whole example, its tables included, with one setting replaced.
fn problem_with(from: &str, to: &str) -> String {
    let text = example_with_every_table();
    assert!(text.contains(from), "{from} is not in the example");
    let text = text.replacen(from, to, 1);
    let line = text[..text.find(to).expect("replaced")].matches('\n').count() + 1;
    let told = problem(&text);
    assert!(told.starts_with(&format!("mrf.toml:{line}:")), "{to}: {told}");
    assert!(told.contains("\nremedy: "), "{to}: {told}");
    told
}

#[test]
fn names_the_place_in_a_room_a_realm_or_a_user() {
    let hash = "sha256 = \"fa78921189f1174c220c43619cb2ed127ee2b28536d80dc2c8230fc054faf953\"";
    let cases = [
        ("name = \"board\"", "name = \"the board\"", "not the user part of a SIP URI"),
        ("members_max = 20\n", "members_max = 1\n", "a room with fewer than 2"),
        ("accept_types = [\"text/plain\"]", "accept_types = [\"a b/c\"]", "no media type"),
        ("\"chair\"", "\"\\u0007\"", "nobody's nickname"),
        ("name = \"access-east\"", "name = \"default\"", "a second realm named \"default\""),
        ("name = \"access-east\"", "name = \"east side\"", "cannot be the name of a realm"),
        ("networks = [\"10.16.0.0/12\", ", "networks = [\"10.16.0.1/12\", ", "is no network"),
        ("\"2001:db8:16::/48\"", "\"10.16.0.0/12\"", "10.16.0.0/12 is listed twice"),
        ("networks = [\"10.16.0.0/12\", \"2001:db8:16::/48\"]", "networks = []", "counts nothing"),
        ("name = \"alice\"", "name = \"al:ice\"", "cannot be a user name"),
        (hash, "sha256 = \"00ff\"", "sha256 has 32 bytes, 64 hex digits"),
        ("listen = \"127.0.0.1:2800\"", "listen = \"127.0.0.1:8080\"", "same TCP port as http"),
        ("own_port_first = 2801", "own_port_first = 2855", "same TCP port as media.port"),
    ];
    for (from, to, message) in cases {
        let told = problem_with(from, to);
        assert!(told.contains(message), "{to}: {told}");
    }
    let text = example_with_every_table()
        .replace("listen = \"127.0.0.1:2800\"", "listen = \"192.0.2.1:2800\"");
    assert!(problem(&text).contains("cannot connect to localhost"));
    let twice = format!("{}\n[[room]]\nname = \"board\"\n", example_with_every_table());
    assert!(problem(&twice).contains("a second [[room]] named \"board\""));
    let user = "[[relay.user]]\nname = \"bob\"\n";
    assert!(problem(user).contains("\"bob\" has no credentials"));
    let user = format!("{user}md5 = \"{}\"\n", "0f".repeat(16));
    assert!(problem(&format!("{user}{user}")).contains("a second user named \"bob\""));
}

#[test]
fn ports_of_shards_may_not_overlap() {
    let text = example_with_every_table().replace("shards = \"auto\"", "shards = 60");
    let told = problem(&text);
    assert!(told.contains("same TCP port as media.port"), "{told}");
    assert!(
        Config::parse("mrf.toml", &text.replace("own_port_first = 2801", "own_port_first = 0"))
            .is_ok()
    );
}

#[test]
fn refuses_the_development_credential_beyond_loopback() {
    let cases = [
        ("udp = \"127.0.0.1:5060\"", "udp = \"192.0.2.1:5060\""),
        ("tcp = \"127.0.0.1:5060\"", "tcp = \"[2001:db8::1]:5060\""),
        ("listen = \"127.0.0.1\"", "listen = \"192.0.2.1\""),
        ("listen = \"127.0.0.1:8088\"", "listen = \"192.0.2.1:8088\""),
    ];
    for (from, to) in cases {
        let told = problem(&example_with(from, to));
        assert!(told.contains("development credential"), "{to}: {told}");
        assert!(told.contains("openssl rand -hex 32"), "{to}: {told}");
    }
}

#[test]
fn takes_keys_of_its_own_beyond_loopback() {
    let text = example_with("udp = \"127.0.0.1:5060\"", "udp = \"192.0.2.1:5060\"")
        .replace("4d5246207265736f6c76653a20646576", &"5a".repeat(32))
        .replace("4d5246207469636b6574733a20646576", &"a5".repeat(16));
    let config = Config::parse("mrf.toml", &text).expect("valid");
    assert!(!config.has_development_credential());
}

#[test]
fn never_prints_a_key() {
    let short = problem(&example_with("4d5246207469636b6574733a20646576", "c0ffee"));
    assert!(short.contains("a key of 3 bytes"), "{short}");
    assert!(!short.contains("c0ffee"), "{short}");
    let broken = problem(&example_with("4d5246207469636b6574733a20646576", "c0ffeeg"));
    assert!(broken.contains("hex digits"), "{broken}");
    assert!(!broken.contains("c0ffee"), "{broken}");
    for line in ["md5 = \"c0ffee\"", "sha256 = \"c0ffee\"", "md5 = \"c0ffeeg\""] {
        let told = problem(&format!("[[relay.user]]\nname = \"bob\"\n{line}\n"));
        assert!(!told.contains("c0ffee"), "{told}");
    }
    let debug = format!("{:?}", Config::default());
    assert!(debug.contains("Secret(redacted)"));
    assert!(!debug.contains("77, 82, 70"));
}

#[test]
fn complains_about_text_that_is_not_ascii_without_losing_the_column() {
    let told = problem("[rooms]\nlist = [\"gar\u{e7}on\", \"a b\"]\n");
    assert!(told.starts_with("mrf.toml:2:19: \"a b\" is not the user part"), "{told}");
}

#[test]
fn calls_that_make_their_tickets_need_a_key_to_protect_them() {
    let parsed = |text: &str| Config::parse("mrf.toml", text);
    let own = "[conference]\ndial_security = \"mikey\"\ndial_ticket = \"own\"\n";
    let told = parsed(own).expect_err("no key").to_string();
    assert!(told.starts_with("mrf.toml:3:") && told.contains("no key to make tickets"), "{told}");
    let realm = "[[realm]]\nname = \"lab\"\nnetworks = [\"192.0.2.0/24\"]\ndial_ticket = \"own\"\n";
    let told = parsed(realm).expect_err("no key").to_string();
    assert!(told.starts_with("mrf.toml:4:") && told.contains("dial_ticket_key"), "{told}");
    let unknown = "[conference]\ndial_ticket_key = \"nobody's\"\n";
    let told = parsed(unknown).expect_err("no such key").to_string();
    assert!(told.starts_with("mrf.toml:2:") && told.contains("nobody's"), "{told}");
    let sound = format!("{own}dial_ticket_key = \"development-tpk\"\n{realm}");
    assert_eq!(parsed(&sound).expect("valid").realms[0].dial_security, None);
}
