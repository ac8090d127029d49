//! URIs handed out, and how they end.

use mrfp_io::Key;
use mrfp_protocol::msrp::{MessageId, Uri};

use super::Relay;
use super::config::PEERS_PER_REGISTRATION_MAX;
use super::path::same_host;
use crate::plane::Plane;

/// A URI of ours that leads to a client.
pub(crate) struct Registration {
    /// The URI, as in Use-Path.
    pub(super) uri: Vec<u8>,
    pub(super) session_id: MessageId,
    /// Whether its scheme is `msrps`.
    pub(super) secure: bool,
    pub(super) user: usize,
    /// The connection its AUTH came by: the only one it is valid on (RFC 4976 section 6.3).
    pub(super) client: Key,
    /// First URI of the From-Path of that AUTH: the next hop back towards the client.
    pub(super) client_uri: Vec<u8>,
    /// It came through another relay, which has proven who it is: the URI is valid on every
    /// connection with that relay (RFC 4976 section 6.3).
    pub(super) certified: bool,
    pub(super) expires_ns: u64,
    /// Where outside peers have come in, by their own URI: they may not be reachable otherwise.
    pub(super) peers: Vec<(Vec<u8>, Key)>,
    pub(super) routes: usize,
}

impl Registration {
    /// The connection by which the peer with this URI came in.
    pub(super) fn peer(&self, uri: &[u8]) -> Option<Key> {
        self.peers.iter().find(|(peer, _)| peer == uri).map(|&(_, key)| key)
    }
}

impl Relay {
    /// The valid registration that a URI names (RFC 4975 section 6.1).
    pub(super) fn named(&self, uri: &[u8], now_ns: u64) -> Option<Key> {
        let uri = Uri::parse(uri).ok()?;
        let key = *self.by_session_id.get(uri.session_id)?;
        let registration = self.registrations.get(key)?;
        let own = Uri::parse(&registration.uri).ok()?;
        (own.same_as(&uri) && registration.expires_ns > now_ns).then_some(key)
    }

    /// Whether a URI names the port of this shard, as only those handed out here do.
    pub(super) fn would_be(&self, uri: &[u8]) -> bool {
        Uri::parse(uri).is_ok_and(|uri| {
            uri.port == Some(self.port) && same_host(uri.host, self.config.host.as_bytes())
        })
    }

    /// Makes a URI and the registration behind it. `None`: the table is full.
    pub(super) fn register(
        &mut self,
        user: usize,
        client: Key,
        client_uri: &[u8],
        secure: bool,
        certified: bool,
        expires_ns: u64,
    ) -> Option<Key> {
        self.issued += 1;
        // RFC 4976 section 6.3 asks for 64 bits nobody can guess, RFC 4975 section 14.1 for 80.
        let session_id =
            MessageId::from_u128(self.keyed_hash([b"uri".as_slice(), &self.issued.to_le_bytes()]));
        let scheme: &[u8] = if secure { b"msrps" } else { b"msrp" };
        let uri = [
            scheme,
            b"://",
            self.config.host.as_bytes(),
            b":",
            self.port.to_string().as_bytes(),
            b"/",
            session_id.as_bytes(),
            b";tcp",
        ]
        .concat();
        let registration = Registration {
            uri,
            session_id,
            secure,
            user,
            client,
            client_uri: client_uri.to_vec(),
            certified,
            expires_ns,
            peers: Vec::new(),
            routes: 0,
        };
        let key = self.registrations.insert(registration).ok()?;
        self.by_session_id.insert(session_id.as_bytes().to_vec(), key);
        self.users.registered(user);
        Some(key)
    }

    /// Takes a registration off; its routes miss it from now on.
    pub(super) fn unregister(&mut self, key: Key) {
        let Some(registration) = self.registrations.remove(key) else { return };
        self.by_session_id.remove(registration.session_id.as_bytes());
        self.users.unregistered(registration.user);
    }
}

impl Plane {
    /// Remembers the connection an outside peer has come in by. The first one stays while it lives,
    /// so that nobody else who knows the URI can take its place.
    pub(super) fn remember_peer(&mut self, registration: Key, uri: &[u8], ingress: Key) {
        let Some(relay) = &mut self.relay else { return };
        let Some(registration) = relay.registrations.get_mut(registration) else { return };
        let connections = &self.connections;
        let lives = |key: Key| connections.get(key).is_some_and(|c| c.relay.is_some());
        registration.peers.retain(|&(_, key)| lives(key));
        if registration.peer(uri).is_none() && registration.peers.len() < PEERS_PER_REGISTRATION_MAX
        {
            registration.peers.push((uri.to_vec(), ingress));
        }
    }
}
