//! Reading configuration files: the example, and complaints that can be acted on.

mod rsa_certificates;

use control_api::config::{Config, Cpim, Order, Plain, PortMode, Room, Shards};
use rsa_certificates::{authority_until, issue};

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
    let floors = config.floors_of(room);
    let shown: Vec<_> = floors.iter().map(|it| (it.number, it.label.as_deref())).collect();
    assert_eq!(shown, [(1, None), (2, Some("camera"))]);
    // Every setting of a room is shown.
    let shown: toml::Table = toml::from_str(&example_with_every_table()).expect("valid");
    assert_eq!(shown["room"][0].as_table().map(toml::Table::len), Some(11));
}

/// The border of the example, which is all in comments and comes last.
fn example_border() -> String {
    let (_, border) = EXAMPLE.split_once("# [border]\n").expect("it is shown");
    let lines = border.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
    format!("[border]\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_border_of_the_example_is_valid_and_shows_every_setting_with_its_default() {
    let text = example_border();
    let shown = Config::parse("mrf.toml", &text).expect("valid").border.expect("there is one");
    assert_eq!(Config::default().border, None);
    let least = "[border]\nrole = \"ims-alg\"\n\
        [border.access]\nudp = \"127.0.0.1:5070\"\ntcp = \"127.0.0.1:5070\"\nmedia = \"127.0.0.1\"\n\
        [border.core]\nudp = \"127.0.0.1:5080\"\ntcp = \"127.0.0.1:5080\"\nmedia = \"127.0.0.1\"\n\
        next_hops = [\"sip:192.0.2.1\"]\n";
    let least = Config::parse("mrf.toml", least).expect("valid").border.expect("there is one");
    let mut expected = shown.clone();
    // What has no default, or another one than an access side would have.
    expected.access = least.access.clone();
    expected.core = least.core.clone();
    assert_eq!(expected, least);
    let table: toml::Table = toml::from_str(&text).expect("valid");
    let defaults = toml::Table::try_from(&least).expect("a table");
    let border = table["border"].as_table().expect("a table");
    for name in defaults.keys() {
        assert!(border.contains_key(name), "border.{name} is missing from the example");
    }
    let side = toml::Table::try_from(least.core.expect("there is one")).expect("a table");
    for name in side.keys() {
        let access = border["access"].as_table().expect("a table");
        assert!(access.contains_key(name) || *name == "realm", "a side's {name} is missing");
    }
}

#[test]
fn names_what_is_wrong_with_a_border() {
    let cases = [
        ("role = \"ims-alg\"", "role = \"ibcf\"", "has a side \"own\""),
        ("next_hops = [\"sip:192.0.2.1:5060;transport=tcp\"]", "", "have nowhere to go"),
        ("\"sip:192.0.2.1:5060;transport=tcp\"", "\"192.0.2.1\"", "is not as in"),
        ("realm = \"default\"", "realm = \"lab\"", "there is no realm \"lab\""),
        ("calls_max = 20000", "calls_max = 0", "0 is less than 1"),
        ("probe_seconds = 10", "probe_seconds = 0", "outside 1 to a day"),
        ("media = \"127.0.0.1\"\nnext", "media = \"0.0.0.0\"\nnext", "peers cannot connect"),
        (
            "tcp = \"127.0.0.1:5080\"",
            "tcp = \"127.0.0.1:5070\"",
            "same TCP port as border.access.tcp",
        ),
        ("msrp_payload_bytes = 1000", "msrp_payload_bytes = 0", "outside 1 to 16384"),
    ];
    for (from, to, expected) in cases {
        let text = example_border();
        assert!(text.contains(from), "{from} is not in the example");
        let told = problem(&text.replacen(from, to, 1));
        assert!(told.contains(expected), "{told}");
        assert!(told.contains("remedy: "), "{told}");
    }
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

#[test]
fn names_the_place_of_a_value_of_mikey_that_cannot_be() {
    let cases = [
        (
            "security_policy_parameters = \"\"",
            "security_policy_parameters = \"000\"",
            "hexadecimal",
        ),
        ("security_policy_parameters = \"\"", "security_policy_parameters = \"0002ff\"", "triples"),
        ("psk_identity = \"csb-id.cs-id\"", "psk_identity = \"csb\"", "unknown variant `csb`"),
        ("# traffic_key_bytes = 32", "traffic_key_bytes = 8", "no length of a pre-shared key"),
        ("ticket_type = 1", "ticket_type = 3", "ticket type 3, which we make"),
        ("suites_accepted = [\"aes-128\", \"aes-256\"]", "suites_accepted = []", "we use"),
        ("ticket_lifetime_seconds = 3600", "ticket_lifetime_seconds = 5", "outside 60 to"),
        ("clock_skew_seconds = 60", "clock_skew_seconds = 0", "outside 1 to 86400"),
        ("replay_cache_entries_max = 1048576", "replay_cache_entries_max = 0", "memory of replays"),
        ("initiator_proof_next = 9", "initiator_proof_next = 2", "payload 2 cannot follow Vi"),
    ];
    for (from, to, message) in cases {
        let text = example_with(from, to);
        let told = problem(&text);
        assert!(told.contains(message), "{to}: {told}");
        // What excludes each other is told at one of the two.
        let line = text[..text.find(to).expect("replaced")].matches('\n').count() + 1;
        let at_it = told.starts_with(&format!("mrf.toml:{line}:"));
        assert!(at_it || to == "ticket_type = 3", "{to}: {told}");
    }
}

#[test]
fn names_the_place_of_a_ticket_key_that_cannot_be() {
    let key = |table: &str, id: &str, more: &str| {
        format!("[[{table}]]\nid = \"{id}\"\nkey = \"{}\"\n{more}", "0f".repeat(16))
    };
    let shared = |with: &str| format!("shared_with = \"{with}\"\n");
    let responders = "responders = [\"*\"]\n";
    let acts_as = "may_act_as = [\"*\"]\n";
    let cases = [
        (key("mikey.ticket_key", "a", &shared("users")), 4, "a key of nobody"),
        (
            key("mikey.ticket_key", "a", &format!("{}users = [\"*\"]\n", shared("kms"))),
            5,
            "vouches for everybody",
        ),
        (key("mikey.ticket_key", "a", ""), 1, "missing field `shared_with`"),
        (key("mikey.ticket_key", "a", &shared("kms")).repeat(2), 6, "a second key named \"a\""),
        (
            key("kms.issuing_key", "a", "") + &key("kms.shared_ticket_key", "a", responders),
            5,
            "a second key named \"a\"",
        ),
        // One name for two would give each what the other may do.
        (
            format!("[kms]\nresolver = \"a\"\n{}", key("kms.user", "a", acts_as))
                + &key("kms.ticket_key", "a", acts_as),
            8,
            "a second key named \"a\"",
        ),
        (key("kms.issuing_key", "a", "").replace(&"0f".repeat(16), "0f0f"), 3, "a key of 2 bytes"),
        (key("kms.shared_ticket_key", "a", "responders = []\n"), 4, "a key nobody may use"),
        (
            "[mikey.certificate]\nchain = \"a\"\nkey = \"b\"\nkms = \"c\"\n".to_owned(),
            1,
            "the KMS in the node is not asked by messages",
        ),
        (
            "[kms.signed_requests]\nchain = \"/nowhere\"\nkey = \"b\"\nauthorities = []\n"
                .to_owned(),
            2,
            "/nowhere: No such file",
        ),
        (
            "[conference]\ndial_key_forking = true\ndial_ticket_opened_by = \"callee\"\n"
                .to_owned(),
            2,
            "only the KMS can fork",
        ),
        (
            "[conference]\ndial_ticket = \"own\"\ndial_ticket_opened_by = \"callee\"\n".to_owned(),
            2,
            "no key to make tickets with",
        ),
    ];
    for (text, line, message) in cases {
        let told = problem(&text);
        assert!(told.starts_with(&format!("mrf.toml:{line}:")), "{text}: {told}");
        assert!(told.contains(message), "{text}: {told}");
        assert!(!told.contains("0f0f"), "{told}");
    }
    let own = key("mikey.ticket_key", "a", &format!("{}users = [\"*\"]\n", shared("users")));
    let callee = "[conference]\ndial_ticket = \"own\"\ndial_ticket_opened_by = \"callee\"\n";
    assert!(Config::parse("mrf.toml", &format!("{callee}{own}")).is_ok());
}

#[test]
fn a_node_with_a_certificate_needs_no_key_and_its_files_are_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = authority_until("root", 1_700_000_000..1_900_000_000);
    root.write(folder.path(), "root");
    issue("node", Some("sip:tea@a.example"), &root).write(folder.path(), "node");
    issue("kms", Some("sip:kms@localhost"), &root).write(folder.path(), "kms");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let node = |chain: &str, key: &str, kms: &str| {
        format!(
            "[sip]\nudp = \"192.0.2.1:5060\"\n[kms]\nmode = \"remote\"\nuser = []\n\
             [[kms.server]]\nurl = \"http://127.0.0.1:8088\"\n[mikey.certificate]\n\
             chain = \"{}\"\nkey = \"{}\"\nkms = \"{}\"\n",
            path(chain),
            path(key),
            path(kms)
        )
    };
    let sound = Config::parse("mrf.toml", &node("node", "node-key", "kms"));
    assert!(!sound.expect("valid").has_development_credential());
    for (text, line, message) in [
        (node("nobody", "node-key", "kms"), 9, "nobody: No such file"),
        (node("node", "kms-key", "kms"), 9, "/node: "),
        (node("node", "node-key", "kms-key"), 11, "no certificate in it"),
    ] {
        let told = problem(&text);
        assert!(told.starts_with(&format!("mrf.toml:{line}:")) && told.contains(message), "{told}");
    }
    let without = node("node", "node-key", "kms");
    let told = problem(without.split("[mikey.certificate]").next().expect("the rest"));
    assert!(told.contains("no [[kms.user]] has the id"), "{told}");
    let kms = |authorities: &str| {
        format!(
            "[kms.signed_requests]\nchain = \"{}\"\nkey = \"{}\"\nauthorities = [{authorities}]\n",
            path("kms"),
            path("kms-key")
        )
    };
    assert!(Config::parse("kms.toml", &kms(&format!("\"{}\"", path("root")))).is_ok());
    assert!(problem(&kms("")).starts_with("mrf.toml:4:"));
    assert!(problem(&kms(&format!("\"{}\"", path("kms-key")))).starts_with("mrf.toml:4:"));
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
fn refuses_the_development_credential_wherever_it_is_used() {
    let beyond = "[sip]\nudp = \"192.0.2.1:5060\"\n";
    let own = |table: &str, id: &str| {
        let key = "5a".repeat(16);
        format!("[[{table}]]\nid = \"{id}\"\nkey = \"{key}\"\nmay_act_as = [\"*\"]\n")
    };
    let known = |table: &str, more: &str| {
        let key = "4d5246207265736f6c76653a20646576";
        format!("[[{table}]]\nid = \"known\"\nkey = \"{key}\"\n{more}")
    };
    let keys = format!(
        "[kms]\nresolver = \"own\"\n{}{}",
        own("kms.user", "own"),
        own("kms.ticket_key", "tickets")
    );
    assert!(Config::parse("mrf.toml", &format!("{beyond}{keys}")).is_ok());
    for key in [
        known("mikey.ticket_key", "shared_with = \"kms\"\n"),
        known("kms.issuing_key", ""),
        known("kms.shared_ticket_key", "responders = [\"*\"]\n"),
    ] {
        assert!(
            problem(&format!("{beyond}{keys}{key}")).contains("development credential"),
            "{key}"
        );
    }
    let remote = "mode = \"remote\"\n[[kms.server]]\nurl = \"http://127.0.0.1:8088\"\n";
    let keys = format!("[kms]\nresolver = \"own\"\n{remote}{}", own("kms.user", "own"));
    assert!(Config::parse("mrf.toml", &format!("{beyond}{keys}")).is_ok());
    let makes = "[conference]\ndial_ticket = \"own\"\ndial_ticket_key = \"development-tpk\"\n";
    assert!(problem(&format!("{beyond}{makes}{keys}")).contains("development credential"));
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

#[test]
fn one_line_gives_every_room_a_floor_for_its_messages() {
    let parsed = |text: &str| Config::parse("mrf.toml", text).expect("valid");
    assert!(Config::default().floors_of(&Room::default()).is_empty());
    let config = parsed("[rooms]\nfloors = [\"messages\"]\n");
    let [floor] = config.floors_of(&Room::default()).try_into().expect("one");
    let control_api::config::Floor { number, label, order, holders_max, .. } = floor;
    assert_eq!((number, label, order, holders_max), (1, None, Order::FirstComeFirstServed, 1));
    assert!(config.rooms.moderated);
    // The list is what counts where it has the same name; a room may have none.
    let config = parsed(
        "[rooms]\nfloors = [\"messages\"]\n[[floor]]\nname = \"messages\"\nnumber = 7\n\
         order = \"priority\"\n[[room]]\nname = \"free\"\nfloors = []\n",
    );
    let [floor] = config.floors_of(&Room::default()).try_into().expect("one");
    assert_eq!((floor.number, floor.order), (7, Order::Priority));
    assert!(config.floors_of(&config.room_exceptions[0]).is_empty());
}

#[test]
fn examples_of_the_floors_are_valid() {
    let guide = include_str!("../../docs/bfcp.md");
    let examples = guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next());
    let examples: Vec<_> = examples.map(|example| example.expect("an end")).collect();
    let [simple, rich] = examples[..] else { panic!("{examples:?}") };
    let config = Config::parse("docs/bfcp.md", simple).expect("valid");
    assert_eq!(config.floors_of(&Room::default()).len(), 1);
    // The file with the authorities is not there: in the clear it needs none.
    let rich = rich.replace("https:", "http:");
    let kept = rich.lines().filter(|line| !line.starts_with("authorities"));
    let config = Config::parse("docs/bfcp.md", &kept.collect::<Vec<_>>().join("\n"));
    let config = config.expect("valid");
    assert_eq!(config.floors_of(&config.room_exceptions[0]).len(), 2);
    assert!(config.events.webhook.is_some());
}

#[test]
fn names_the_place_in_the_floors_and_the_events() {
    let floor = |more: &str| format!("[[floor]]\nname = \"camera\"\nnumber = 1\n{more}");
    let room = |floors: &str| format!("[[room]]\nname = \"board\"\nfloors = {floors}\n");
    let cases = [
        ("[floors]\ngrace_seconds = 90000\n".to_owned(), 2, "more than a day"),
        ("[floors]\nrequests_per_user_max = 65\n".to_owned(), 2, "65 cannot be had"),
        ("[floors]\nrequests_per_shard_max = 0\n".to_owned(), 2, "0 cannot be had"),
        ("[floors]\ndatagram_bytes_max = 9000\n".to_owned(), 2, "9000 cannot be had"),
        ("[floors]\nthird_party_requests = \"chair\"\n".to_owned(), 2, "did you mean `chairs`?"),
        (floor("").replace("camera", ""), 2, "without a name"),
        (floor("label = \"a\"\n").repeat(2), 6, "a second [[floor]] named \"camera\""),
        (floor("").replace('1', "0"), 3, "number of no floor"),
        (floor("label = \"a b\"\n"), 4, "\"a b\" cannot be the label"),
        (floor("label = \"10\"\n"), 4, "\"10\" cannot be the label"),
        (floor("holders_max = 0\n"), 4, "nobody may hold"),
        (floor("requests_per_user_max = 0\n"), 4, "0 cannot be had"),
        (floor("holding_seconds_max = 0\n"), 4, "0 is outside 1 to 86400"),
        (floor("order = \"fifo\"\n"), 4, "unknown variant `fifo`"),
        ("[rooms]\nfloors = [\"massages\"]\n".to_owned(), 2, "no [[floor]] is named \"massages\""),
        (room("[\"messages\", \"messages\"]"), 3, "have the same number"),
        (room("[\"messages\", \"camera\"]") + &floor("label = \"c\"\n"), 3, "the same number"),
        (
            room("[\"messages\", \"camera\"]") + &floor("").replace('1', "2"),
            3,
            "are for the same medium",
        ),
        (room("[]") + "moderated = true\n", 4, "nobody could say anything"),
        ("[events]\nwebhook = \"app.example.com\"\n".to_owned(), 2, "no URL of HTTP"),
        ("[events]\nwebhook = \"https://app.example.com\"\n".to_owned(), 2, "no certificate"),
        ("[events]\nwaiting_max = 0\n".to_owned(), 2, "nothing would ever be told"),
        ("[events]\ntimeout_milliseconds = 0\n".to_owned(), 2, "outside 1 to 60000"),
        ("[events]\nage_seconds_max = 0\n".to_owned(), 2, "outside 1 to 86400"),
        ("[events]\nauthorities = [\"/nowhere\"]\n".to_owned(), 2, "/nowhere: I/O error"),
    ];
    for (text, line, message) in cases {
        let told = problem(&text);
        assert!(told.starts_with(&format!("mrf.toml:{line}:")), "{text}: {told}");
        assert!(told.contains(message), "{text}: {told}");
        assert!(told.contains("\nremedy: "), "{text}: {told}");
    }
}
