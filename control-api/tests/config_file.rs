//! Reading configuration files: the example, and complaints that can be acted on.

use control_api::config::{Config, Plain, PortMode, Shards};

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
    let debug = format!("{:?}", Config::default());
    assert!(debug.contains("Secret(redacted)"));
    assert!(!debug.contains("77, 82, 70"));
}

#[test]
fn complains_about_text_that_is_not_ascii_without_losing_the_column() {
    let told = problem("[rooms]\nlist = [\"gar\u{e7}on\", \"a b\"]\n");
    assert!(told.starts_with("mrf.toml:2:19: \"a b\" is not the user part"), "{told}");
}
