//! Section `[relay]`: the MSRP relay (RFC 4976). Without users there is none.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::check::{Check, Finding, Step, ensure};
use super::{Config, Secret};

/// Section `[relay]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// Listener that clients know, shared by all shards.
    pub listen: SocketAddr,
    /// First of the ports that shards have of their own; shard n listens on this + n, and the URIs
    /// it hands out name it. 0 lets the kernel choose for every shard.
    pub own_port_first: u16,
    /// Host name of the relay, in its URIs and its certificate.
    pub host: String,
    /// Realm of the challenge, and of the hashes below.
    pub realm: String,
    /// How long a URI is valid where the client does not say.
    pub expires_default_seconds: u32,
    /// The shortest a client may ask for; below it gets 423.
    pub expires_min_seconds: u32,
    /// The longest; above it gets 423.
    pub expires_max_seconds: u32,
    /// Take AUTH without TLS, too.
    pub allow_plain_auth: bool,
    /// Connect to loopback and link-local addresses on behalf of clients, too.
    pub allow_local_targets: bool,
    /// URIs handed out and valid, on one shard.
    pub registrations_per_shard_max: u32,
    /// The same for one user.
    pub registrations_per_user_max: u32,
    /// Connections on which one user is authenticated, on one shard.
    pub connections_per_user_max: u32,
    /// Connections one shard makes to other hosts.
    pub outbound_per_shard_max: u32,
    /// Who may use it.
    #[serde(rename = "user", skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<RelayUser>,
}

/// One `[[relay.user]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RelayUser {
    /// User name.
    pub name: String,
    /// SHA-256 of `name:realm:password`, hex.
    #[serde(default, skip_serializing)]
    pub sha256: Option<Secret>,
    /// MD5 of the same, hex, for clients that know no other.
    #[serde(default, skip_serializing)]
    pub md5: Option<Secret>,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2800)),
            own_port_first: 2801,
            host: "localhost".to_owned(),
            realm: "localhost".to_owned(),
            // What the example of RFC 4976 section 5.1 grants.
            expires_default_seconds: 1800,
            expires_min_seconds: 60,
            expires_max_seconds: 7200,
            allow_plain_auth: false,
            allow_local_targets: false,
            registrations_per_shard_max: 65_536,
            registrations_per_user_max: 64,
            connections_per_user_max: 16,
            outbound_per_shard_max: 4096,
            users: Vec::new(),
        }
    }
}

impl Relay {
    /// There is somebody who may use it.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.users.is_empty()
    }

    /// RFC 8866 and RFC 3986: a host, not a URI.
    fn has_sound_host(&self) -> bool {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-.:".contains(&b);
        !self.host.is_empty() && self.host.bytes().all(is_name)
    }
}

impl Config {
    pub(super) fn check_relay(&self) -> Check {
        let relay = &self.relay;
        ensure(
            relay.has_sound_host(),
            &["relay", "host"],
            || format!("{:?} is no host name", relay.host),
            || "write a name as in \"relay.example.com\"".to_owned(),
        )?;
        ensure(
            !relay.is_on() || relay.host != "localhost" || relay.listen.ip().is_loopback(),
            &["relay", "host"],
            || "peers elsewhere cannot connect to localhost".to_owned(),
            || "name the host under which peers reach this relay".to_owned(),
        )?;
        ensure(
            !relay.realm.is_empty()
                && !relay.realm.contains(|c: char| c.is_control() || c == '"' || c == '\\'),
            &["relay", "realm"],
            || format!("{:?} cannot stand between quotes", relay.realm),
            || "use a domain name of yours".to_owned(),
        )?;
        let (min, max) = (relay.expires_min_seconds, relay.expires_max_seconds);
        ensure(
            (1..=max).contains(&min),
            &["relay", "expires_min_seconds"],
            || format!("{min} seconds is outside 1 to {max}"),
            || "keep it between 1 and expires_max_seconds".to_owned(),
        )?;
        ensure(
            (min..=max).contains(&relay.expires_default_seconds),
            &["relay", "expires_default_seconds"],
            || format!("{} seconds is outside {min} to {max}", relay.expires_default_seconds),
            || "keep it between expires_min_seconds and expires_max_seconds".to_owned(),
        )?;
        let counts = [
            ("registrations_per_shard_max", relay.registrations_per_shard_max),
            ("registrations_per_user_max", relay.registrations_per_user_max),
            ("connections_per_user_max", relay.connections_per_user_max),
            ("outbound_per_shard_max", relay.outbound_per_shard_max),
        ];
        for (name, count) in counts {
            ensure(
                count >= 1,
                &["relay", name],
                || "0 is less than 1".to_owned(),
                || "use 1 or more".to_owned(),
            )?;
        }
        relay.users.iter().enumerate().try_for_each(|(index, user)| {
            let earlier = &relay.users[..index];
            check_user(user, index, earlier)
        })
    }
}

fn check_user(user: &RelayUser, index: usize, earlier: &[RelayUser]) -> Check {
    let finding = |name, message: String, remedy: &str| {
        let user = [Step::Name("relay"), Step::Name("user"), Step::Index(index)];
        let path = user.into_iter().chain([Step::Name(name)]).collect();
        Err(Finding { path, message, remedy: remedy.to_owned() })
    };
    if user.name.is_empty() || user.name.contains(|c: char| c.is_control() || c == '"' || c == ':')
    {
        let message = format!("{:?} cannot be a user name", user.name);
        return finding("name", message, "leave quotes and colons out");
    }
    if earlier.iter().any(|other| other.name == user.name) {
        let message = format!("a second user named {:?}", user.name);
        return finding("name", message, "give each user one entry");
    }
    if user.sha256.is_none() && user.md5.is_none() {
        let message = format!("{:?} has no credentials", user.name);
        return finding("name", message, REMEDY_HASH);
    }
    for (name, hash, size) in [("sha256", &user.sha256, 32), ("md5", &user.md5, 16)] {
        if hash.as_ref().is_some_and(|hash| hash.expose().len() != size) {
            let message = format!("{name} has {size} bytes, {} hex digits", 2 * size);
            return finding(name, message, REMEDY_HASH);
        }
    }
    Ok(())
}

const REMEDY_HASH: &str =
    "set sha256, md5 or both; see docs/mrf.toml for how they are made from a password";
