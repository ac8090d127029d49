//! Connections of the relay's own: one to each place, shared by everything that goes there.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use mrfp_io::Key;
use mrfp_protocol::msrp::Uri;
use mrfp_protocol::tls::{Handshake, PeerCertificate};

use super::Link;
use super::config::{DEFAULT_PORT, OUTBOUND_TIMEOUT_NS};
use super::link::{Incoming, Target};
use crate::connection::{Connection, Life, Transport};
use crate::mp::{Event, ReleaseCause, ResolutionId};
use crate::plane::{Ending, Plane};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

impl Plane {
    /// The connection to the place a URI names, begun where there is none. `Err`: with what to refuse
    /// the request.
    pub(super) fn outbound(&mut self, uri: &[u8]) -> Result<Key, u16> {
        let uri = Uri::parse(uri).map_err(|_| 400u16)?;
        if !uri.transport.eq_ignore_ascii_case(b"tcp") {
            return Err(403);
        }
        let host = std::str::from_utf8(uri.host).map_err(|_| 400u16)?.to_ascii_lowercase();
        let target = Target { secure: uri.secure, host, port: uri.port.unwrap_or(DEFAULT_PORT) };
        let relay = self.relay.as_ref().ok_or(481u16)?;
        if let Some(&key) = relay.outbound.get(&target)
            && self.is_linked(key)
        {
            return Ok(key);
        }
        if relay.outbound.len() >= relay.config.limits.outbound_max {
            self.evict_outbound();
        }
        let relay = self.relay.as_mut().ok_or(481u16)?;
        let full = relay.outbound.len() >= relay.config.limits.outbound_max;
        let deadline_ns = self.now_ns + OUTBOUND_TIMEOUT_NS;
        let mut connection = Connection::unconnected(self.now_ns, deadline_ns);
        let mut link = Link::outbound(target.clone());
        let ip = uri.host_ip();
        if let Some(ip) = ip {
            if !is_allowed(ip, relay.config.allow_local_targets) {
                self.metrics.relay_refused_target += 1;
                return Err(403);
            }
            link.addresses.push_back(SocketAddr::new(ip, target.port));
        }
        connection.relay = Some(Box::new(link));
        let made = if full { Err(connection) } else { self.connections.insert(connection) };
        let Ok(key) = made else {
            self.metrics.relay_refused_limit += 1;
            return Err(403);
        };
        if ip.is_some() {
            relay.to_connect.push(key);
        } else {
            let (host, port) = (target.host.clone(), uri.port);
            let secure = target.secure;
            self.events.push_back(Event::Resolve {
                id: ResolutionId::new(key),
                host,
                port,
                secure,
            });
        }
        relay.outbound.insert(target, key);
        Ok(key)
    }

    /// A name has been looked up, with this result; nothing found: an empty one.
    pub(crate) fn resolved(&mut self, id: ResolutionId, addresses: &[SocketAddr]) {
        let key = id.key();
        let Some(relay) = &mut self.relay else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        let waits = connection.life == Life::Connecting && connection.socket.is_none();
        let Some(link) = connection.relay.as_deref_mut().filter(|_| waits) else { return };
        let local = relay.config.allow_local_targets;
        let allowed = addresses.iter().copied().filter(|address| is_allowed(address.ip(), local));
        link.addresses = allowed.take(ADDRESSES_MAX).collect::<VecDeque<_>>();
        if link.addresses.is_empty() {
            self.metrics.relay_refused_target += u64::from(!addresses.is_empty());
            let cause = ReleaseCause::TcpEstablishmentFailure;
            return self.release(key, cause, Ending::Abort);
        }
        relay.to_connect.push(key);
    }

    /// A connection of ours is up.
    pub(crate) fn relay_connected(&mut self, key: Key) {
        let Some(link) = self.link(key) else { return };
        let Some(target) = link.target.clone() else { return };
        if target.secure {
            //= RFC 4976 section 9.2: the certificate must be for the host of the URI.
            let started = Handshake::certificate_client(&self.profile, &target.host);
            return self.begin_handshake(key, started);
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.transport = Transport::Plain;
        }
        self.relay_open(key);
        self.mark(key);
    }

    /// A TLS handshake is complete: as server with what a client has shown, if it has.
    pub(crate) fn relay_secured(&mut self, key: Key, certificate: Option<PeerCertificate>) {
        let Some(link) = self.link_mut(key) else { return };
        link.certificate = certificate;
        if link.target.is_some() {
            self.relay_open(key);
        }
        self.mark(key);
    }

    /// A connection of the relay ends: what depended on it is told.
    pub(crate) fn relay_ended(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(mut link) = connection.relay.take() else { return };
        let left = connection.egress.left();
        if let Some(relay) = &mut self.relay {
            for registration in link.registrations.drain(..) {
                // What another relay's certificate vouches for does not hang on one connection.
                if relay.registrations.get(registration).is_some_and(|r| !r.certified) {
                    relay.unregister(registration);
                }
            }
            if let Some(user) = link.user {
                relay.users.disconnected(user);
            }
            if let Some(target) = &link.target
                && relay.outbound.get(target) == Some(&key)
            {
                relay.outbound.remove(target);
            }
        }
        if let Incoming::Forward(mut forward) = std::mem::take(&mut link.incoming) {
            self.abort_forwarding(&mut forward);
        }
        while let Some(sent) = link.outstanding.pop() {
            // Where only errors are answered, silence about what has left means that it arrived.
            if sent.answer_expected || !left.reaches(sent.mark) {
                self.relay_undelivered(&sent, 408);
            }
        }
        while let Some(pending) = link.pending.pop_front() {
            self.answer_pending(&pending, 408);
        }
        self.relay_release_feeders(key, &mut link.feeders);
    }

    /// RFC 4976 section 6.5: short of connections, the one idle for longest makes way.
    fn evict_outbound(&mut self) {
        let Some(relay) = &self.relay else { return };
        let idle = relay.outbound.values().filter_map(|&key| {
            let connection = self.connections.get(key)?;
            let link = connection.relay.as_deref()?;
            let busy = link.outstanding.len() > 0
                || !link.pending.is_empty()
                || connection.life != Life::Open
                || connection.egress.bytes() > 0
                || connection.outgoing.is_some()
                || !matches!(link.incoming, Incoming::Idle);
            (!busy).then_some((connection.received_ns.max(connection.sent_ns), key))
        });
        if let Some((_, key)) = idle.min_by_key(|&(used_ns, _)| used_ns) {
            self.release(key, ReleaseCause::Idle, Ending::Graceful);
        }
    }
}

/// Whether a client may have us connect there.
fn is_allowed(ip: IpAddr, local: bool) -> bool {
    let ip = ip.to_canonical();
    let is_local = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    let is_host = !ip.is_unspecified()
        && !ip.is_multicast()
        && !matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    is_host && (local || !is_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_do_not_reach_what_is_local_to_the_node() {
        let allowed = |text: &str, local| is_allowed(text.parse().unwrap(), local);
        for address in
            ["127.0.0.1", "127.9.9.9", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1"]
        {
            assert!(!allowed(address, false), "{address}");
            assert!(allowed(address, true), "{address}");
        }
        for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            assert!(!allowed(address, true), "{address}");
        }
        for address in ["192.0.2.1", "10.0.0.1", "2001:db8::1"] {
            assert!(allowed(address, false), "{address}");
        }
    }
}
