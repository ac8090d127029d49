//! The relay's part of the configuration, and the names it has to look up: a shard waits for nobody,
//! so it asks here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mrfp_core::mp::ResolutionId;
use mrfp_core::{RelayConfig, RelayLimits, RelayUser};
use mrfp_protocol::msrp::auth::Credentials;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::config::{Config, Secret};

/// The relay of the media plane; `None` without users.
pub(super) fn config(config: &Config) -> Option<RelayConfig> {
    let relay = &config.relay;
    if !relay.is_on() {
        return None;
    }
    if relay.allow_plain_auth {
        tracing::warn!(
            "relay.allow_plain_auth: the relay takes AUTH in the clear and hands out msrp URIs, \
             which RFC 4976 forbids; fit for laboratories only"
        );
    }
    let users = relay.users.iter().filter_map(|user| {
        let (sha256, md5) = (user.sha256.as_ref(), user.md5.as_ref());
        let hashes = (sha256.map(Secret::expose), md5.map(Secret::expose));
        // The check of the configuration made sure that they have their lengths.
        let credentials = Credentials::from_hashes(hashes.0, hashes.1)?;
        Some(RelayUser { name: user.name.clone(), credentials })
    });
    Some(RelayConfig {
        listen: relay.listen,
        host: relay.host.clone(),
        own_port_first: relay.own_port_first,
        realm: relay.realm.clone(),
        users: users.collect(),
        expires_default_seconds: relay.expires_default_seconds,
        expires_min_seconds: relay.expires_min_seconds,
        expires_max_seconds: relay.expires_max_seconds,
        allow_plain: relay.allow_plain_auth,
        allow_local_targets: relay.allow_local_targets,
        limits: RelayLimits {
            registrations_max: relay.registrations_per_shard_max as usize,
            registrations_per_user_max: relay.registrations_per_user_max as usize,
            connections_per_user_max: relay.connections_per_user_max as usize,
            outbound_max: relay.outbound_per_shard_max as usize,
            ..RelayLimits::default()
        },
    })
}

/// Looks names up beside the control loop, a bounded number at a time, and remembers what it found
/// for a while.
pub(super) struct Resolver {
    /// The relay's own name and address: URIs of other shards lead there.
    own: (String, IpAddr),
    known: HashMap<(String, u16), Known>,
    lookups: JoinSet<Found>,
    /// Answers that needed no look-up.
    ready: Vec<Resolved>,
}

/// An answer for a shard.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Index of the shard.
    pub(super) shard: usize,
    pub(super) id: ResolutionId,
    pub(super) addresses: Vec<SocketAddr>,
}

struct Known {
    addresses: Vec<SocketAddr>,
    until: Instant,
}

struct Found {
    name: (String, u16),
    resolved: Resolved,
}

impl Resolver {
    pub(super) fn new(config: &Config) -> Self {
        let listen = config.relay.listen.ip();
        let own = match config.media.advertised {
            Some(advertised) => advertised,
            None if listen.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            None => listen,
        };
        Self {
            own: (config.relay.host.to_ascii_lowercase(), own),
            known: HashMap::new(),
            lookups: JoinSet::new(),
            ready: Vec::new(),
        }
    }

    /// Begins to look a name up. What cannot be begun is answered at once with nothing, and becomes a
    /// REPORT to whoever has sent the message.
    pub(super) fn ask(&mut self, shard: usize, id: ResolutionId, host: String, port: Option<u16>) {
        let port = port.unwrap_or(DEFAULT_PORT);
        let answer = |addresses| Resolved { shard, id, addresses };
        if host == self.own.0 {
            return self.ready.push(answer(vec![SocketAddr::new(self.own.1, port)]));
        }
        let name = (host, port);
        if let Some(known) = self.known.get(&name).filter(|known| known.until > Instant::now()) {
            return self.ready.push(answer(known.addresses.clone()));
        }
        if self.lookups.len() >= LOOKUPS_MAX {
            tracing::warn!(LOOKUPS_MAX, "too many names are being looked up for the relay");
            return self.ready.push(answer(Vec::new()));
        }
        self.lookups.spawn(async move {
            let found = timeout(LOOKUP_TIMEOUT, lookup_host((name.0.as_str(), name.1))).await;
            let addresses = found.ok().and_then(Result::ok).into_iter().flatten().collect();
            Found { name, resolved: Resolved { shard, id, addresses } }
        });
    }

    /// An answer that is there already.
    pub(super) fn poll(&mut self) -> Option<Resolved> {
        if let Some(resolved) = self.ready.pop() {
            return Some(resolved);
        }
        let found = self.lookups.try_join_next()?.ok()?;
        Some(self.remember(found))
    }

    /// Waits for an answer, for ever where nothing was asked.
    pub(super) async fn next(&mut self) -> Resolved {
        loop {
            match self.lookups.join_next().await {
                Some(Ok(found)) => return self.remember(found),
                // A look-up does not panic, and nobody cancels one; the shard has a timer anyway.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn remember(&mut self, found: Found) -> Resolved {
        let Found { name, resolved } = found;
        if self.known.len() >= NAMES_KNOWN_MAX {
            let now = Instant::now();
            self.known.retain(|_, known| known.until > now);
        }
        if self.known.len() < NAMES_KNOWN_MAX && !resolved.addresses.is_empty() {
            let known =
                Known { addresses: resolved.addresses.clone(), until: Instant::now() + LIFETIME };
            self.known.insert(name, known);
        }
        resolved
    }
}

/// The port of a URI without one (RFC 4976 section 8).
const DEFAULT_PORT: u16 = 2855;
/// Names looked up at a time: each occupies a thread for as long as the name server takes.
const LOOKUPS_MAX: usize = 64;
/// Within the time a shard gives a connection to come up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Names remembered, some 100 bytes each.
const NAMES_KNOWN_MAX: usize = 4096;
/// The system's resolver does not tell how long an answer is good for; a minute follows a move soon
/// enough, and connections are kept for much longer.
const LIFETIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_own_name_and_addresses_need_no_name_server() {
        let mut config = Config::default();
        config.relay.host = "Relay.Example".to_owned();
        config.relay.listen = "192.0.2.1:2800".parse().unwrap();
        let mut resolver = Resolver::new(&config);
        let id = ResolutionId::default();
        resolver.ask(1, id, "relay.example".to_owned(), Some(2802));
        let resolved = resolver.poll().unwrap();
        assert_eq!((resolved.shard, resolved.id), (1, id));
        assert_eq!(resolved.addresses, ["192.0.2.1:2802".parse().unwrap()]);
        assert!(resolver.poll().is_none());
    }

    #[tokio::test]
    async fn what_was_found_is_remembered_and_what_was_not_is_not() {
        let mut resolver = Resolver::new(&Config::default());
        let id = ResolutionId::default();
        resolver.ask(0, id, "127.0.0.1".to_owned(), None);
        let resolved = resolver.next().await;
        assert_eq!(resolved.addresses, ["127.0.0.1:2855".parse().unwrap()]);
        resolver.ask(0, id, "127.0.0.1".to_owned(), None);
        assert_eq!(resolver.poll().unwrap().addresses, resolved.addresses);
        resolver.ask(0, id, "no.such.name.invalid".to_owned(), None);
        assert_eq!(resolver.next().await.addresses, []);
        assert_eq!(resolver.known.len(), 1);
    }
}
