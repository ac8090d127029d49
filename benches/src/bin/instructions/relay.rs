//! Clients of a relay (RFC 4976) that talk in pairs, each with a URI the relay has given it.

use mrfp_core::{RelayConfig, RelayLimits, RelayParts, RelayUser};
use mrfp_protocol::msrp::auth::Credentials;
use mrfp_protocol::tls::{Profile, ProfileConfig};
use sha2::{Digest as _, Sha256};

use crate::phone::Say;
use crate::world::World;

const KNOWN_PORT: &str = "127.0.0.1:2856";
const RELAY: &str = "msrp://relay.example;tcp";
const REALM: &str = "relay.example";
const PASSWORD: &str = "secret";

fn name(number: u64) -> String {
    format!("user{number}")
}

/// A relay that knows so many users.
pub(crate) fn world(users: usize) -> World {
    let user = |number: u64| RelayUser {
        name: name(number),
        credentials: Credentials::derive(
            name(number).as_bytes(),
            REALM.as_bytes(),
            PASSWORD.as_bytes(),
        ),
    };
    let config = RelayConfig {
        listen: KNOWN_PORT.parse().expect("an address"),
        host: REALM.to_owned(),
        own_port_first: 2900,
        realm: REALM.to_owned(),
        users: (0..users as u64).map(user).collect(),
        expires_default_seconds: 900,
        expires_min_seconds: 60,
        expires_max_seconds: 3_600,
        allow_plain: true,
        allow_local_targets: false,
        limits: RelayLimits::default(),
    };
    let own_listen = "127.0.0.1:2900".parse().expect("an address");
    let profile = Profile::new(&ProfileConfig::default()).expect("the default is known");
    World::with(profile, false, Some(RelayParts { config, own_listen }))
}

/// Connects and authenticates two clients per pair; the first of each talks to the second.
pub(crate) fn log_in(world: &mut World, pairs: usize) {
    for pair in 0..pairs {
        let through = [2 * pair, 2 * pair + 1].map(|at| authenticate(world, at));
        let listener = &world.phones[2 * pair + 1].local;
        let to = format!("{} {} {listener}", through[0], through[1]);
        let say = Say { content_type: "text/plain", wrapped: false, to: Some(to) };
        world.say(2 * pair as u64, say);
    }
}

/// AUTH twice, as a client does; the URI that leads to it.
fn authenticate(world: &mut World, at: usize) -> String {
    let number = at as u64;
    let local = format!("msrp://192.0.2.1:9/ue-{number};tcp");
    world.connect(number, KNOWN_PORT, (RELAY.to_owned(), local.clone()));
    let request = |id: &str, lines: &str| {
        format!(
            "MSRP {id} AUTH\r\nTo-Path: {RELAY}\r\nFrom-Path: {local}\r\n{lines}-------{id}$\r\n"
        )
    };
    let challenge = world.ask(at, &request("auth0001", ""));
    let nonce = parameter(&challenge, "nonce=\"", '"');
    let user = name(number);
    let ha1 = hash(&format!("{user}:{REALM}:{PASSWORD}"));
    let ha2 = hash(&format!("AUTH:{RELAY}"));
    let response = hash(&format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
    let authorization = format!(
        "Authorization: Digest username=\"{user}\", realm=\"{REALM}\", nonce=\"{nonce}\", \
         qop=auth, nc=00000001, cnonce=\"c0ffee\", response=\"{response}\", algorithm=SHA-256\r\n"
    );
    let granted = world.ask(at, &request("auth0002", &authorization));
    parameter(&granted, "Use-Path: ", '\r').to_owned()
}

fn parameter<'a>(text: &'a str, before: &str, end: char) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before} in {text}"));
    rest.split(end).next().unwrap_or_default()
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
