//! Where a request goes: decided once per path, then remembered.

use mrfp_io::Key;
use mrfp_protocol::msrp::{Head, Path, Uri};

use super::path::{same_authority, split_first};
use super::registration::Registration;
use crate::connection::Transport;
use crate::plane::Plane;
use crate::table::Table;

/// A path through the relay.
pub(crate) struct Route {
    /// Where its requests come in.
    pub(super) ingress: Key,
    /// Our URI that comes first in the To-Path: it must stay valid, and its limit counts.
    pub(super) registration: Key,
    /// Our last URI at the front of the To-Path, often the same: it must stay valid, too.
    pub(super) last: Key,
    /// Its key among the paths.
    pub(super) hash: u128,
    /// Where they leave. Made anew where it has ended.
    pub(super) egress: Key,
    /// Paths as received.
    pub(super) to_path: Box<[u8]>,
    pub(super) from_path: Box<[u8]>,
    /// What stands between the transaction identifier and the further header lines of a SEND that is
    /// passed on: see [`Route::lines`].
    pub(super) send_lines: Box<[u8]>,
    /// What stands between the transaction identifiers of the 200 to a SEND.
    pub(super) ok_lines: Box<[u8]>,
    /// To-Path and From-Path lines of what goes back to where the request came from originally.
    pub(super) lines_back: Box<[u8]>,
    /// URIs of ours at the front of the To-Path.
    pub(super) hops: usize,
    pub(super) used_ns: u64,
}

impl Route {
    /// The URI by which the previous hop knows us.
    pub(super) fn own_uri(&self) -> &[u8] {
        Path(&self.to_path).first()
    }

    /// To-Path and From-Path lines of what is passed on.
    pub(super) fn lines(&self) -> &[u8] {
        &self.send_lines[SEND.len()..]
    }

    /// Whether every URI of ours on the way is.
    pub(super) fn is_valid(&self, registrations: &Table<Registration>, now_ns: u64) -> bool {
        let valid = |key| registrations.get(key).is_some_and(|it| it.expires_ns > now_ns);
        valid(self.registration) && (self.last == self.registration || valid(self.last))
    }

    /// The previous hop.
    pub(super) fn previous(&self) -> &[u8] {
        Path(&self.from_path).first()
    }
}

/// What a To-Path comes to.
struct Way {
    registration: Key,
    hops: usize,
    /// The registration through which it leaves towards the network, or in towards its client.
    last: Key,
    towards: Towards,
}

#[derive(Clone, Copy)]
enum Towards {
    /// The client of the last registration.
    Client(Key),
    /// Whoever comes next.
    Network,
}

impl Plane {
    /// The route of a request, made where there is none yet. `Err`: with what to refuse it.
    pub(super) fn route(&mut self, ingress: Key, head: &Head<'_>) -> Result<Key, u16> {
        let last = self.link(ingress).and_then(|link| link.last_route);
        let key = match last.filter(|&key| self.is_route_of(key, head)) {
            Some(key) => key,
            None => self.find_or_make_route(ingress, head)?,
        };
        let now_ns = self.now_ns;
        let relay = self.relay.as_mut().ok_or(481u16)?;
        let route = relay.routes.get_mut(key).ok_or(481u16)?;
        if !route.is_valid(&relay.registrations, now_ns) {
            return Err(481);
        }
        route.used_ns = now_ns;
        let egress = route.egress;
        if !self.is_linked(egress) {
            let way = self.way(ingress, head)?;
            let egress = self.egress(&way, head)?;
            let relay = self.relay.as_mut().ok_or(481u16)?;
            relay.routes.get_mut(key).ok_or(481u16)?.egress = egress;
        }
        if let Some(link) = self.link_mut(ingress) {
            link.last_route = Some(key);
        }
        Ok(key)
    }

    fn is_route_of(&self, key: Key, head: &Head<'_>) -> bool {
        let route = self.relay.as_ref().and_then(|relay| relay.routes.get(key));
        route.is_some_and(|route| {
            *route.to_path == *head.to_path.0 && *route.from_path == *head.from_path.0
        })
    }

    /// Whether a connection can still be given something to pass on.
    pub(super) fn is_linked(&self, key: Key) -> bool {
        self.link(key).is_some()
    }

    fn find_or_make_route(&mut self, ingress: Key, head: &Head<'_>) -> Result<Key, u16> {
        let relay = self.relay.as_ref().ok_or(481u16)?;
        let hash = relay.keyed_hash([
            b"route".as_slice(),
            &ingress.index.to_le_bytes(),
            &ingress.generation.to_le_bytes(),
            head.to_path.0,
            head.from_path.0,
        ]);
        if let Some(&key) = relay.route_by_paths.get(&hash)
            && self.is_route_of(key, head)
        {
            return Ok(key);
        }
        let way = self.way(ingress, head)?;
        let egress = self.egress(&way, head)?;
        let now_ns = self.now_ns;
        let relay = self.relay.as_mut().ok_or(481u16)?;
        let limits = relay.config.limits;
        let registration = relay.registrations.get_mut(way.registration).ok_or(481u16)?;
        if registration.routes >= limits.routes_per_registration_max {
            self.metrics.relay_refused_limit += 1;
            return Err(403);
        }
        let (to, from) = (head.to_path.0, head.from_path.0);
        let (lines, lines_back) = path_lines(to, from, way.hops);
        let ok_lines = ok_lines(Path(to).first(), Path(from).first());
        let route = Route {
            ingress,
            registration: way.registration,
            last: way.last,
            hash,
            egress,
            to_path: to.into(),
            from_path: from.into(),
            send_lines: [SEND, &*lines].concat().into(),
            ok_lines,
            lines_back,
            hops: way.hops,
            used_ns: now_ns,
        };
        let Ok(key) = relay.routes.insert(route) else {
            self.metrics.relay_refused_limit += 1;
            return Err(403);
        };
        registration.routes += 1;
        relay.route_by_paths.insert(hash, key);
        if matches!(way.towards, Towards::Client(_)) && way.hops == 1 {
            self.remember_peer(way.last, head.from_path.first(), ingress);
        }
        Ok(key)
    }

    /// RFC 4976 section 6.4: the first URI must be one we have handed out, and the request must come
    /// from the client that has it or go to it. Where the next URI is ours, too, both clients are on
    /// this shard and the second hop is made on the spot.
    fn way(&self, ingress: Key, head: &Head<'_>) -> Result<Way, u16> {
        let relay = self.relay.as_ref().ok_or(481u16)?;
        // An `msrps` URI is not to be reached in the clear, but for peers that have nothing else and
        // to which a client had us connect (RFC 4976 section 9.2, Note).
        let plain = self.connections.get(ingress).is_none_or(|connection| {
            matches!(connection.transport, Transport::Plain)
                && connection.relay.as_ref().is_none_or(|link| link.target.is_none())
        });
        let mut rest = head.to_path.0;
        let mut first_registration = None;
        for hops in 1.. {
            let (first, after) = split_first(rest);
            let Some(key) = relay.named(first, self.now_ns) else {
                // Beyond our last URI, going out.
                let Some((registration, last)) = first_registration else { return Err(481) };
                // Or once ours: it leads to nobody but this relay.
                if relay.would_be(first) {
                    return Err(481);
                }
                return Ok(Way { registration, hops: hops - 1, last, towards: Towards::Network });
            };
            let registration = relay.registrations.get(key).ok_or(481u16)?;
            if hops == 1 && registration.secure && plain {
                return Err(403);
            }
            let after = after.ok_or(481u16)?;
            let (first_key, _) = *first_registration.get_or_insert((key, key));
            if hops == 1 && self.is_client(ingress, registration) {
                rest = after;
                first_registration = Some((first_key, key));
                continue;
            }
            let (next, _) = split_first(after);
            let next = Uri::parse(next).map_err(|_| 400u16)?;
            let back = Uri::parse(&registration.client_uri).map_err(|_| 481u16)?;
            if !same_authority(&next, &back) {
                return Err(481);
            }
            let towards = if registration.certified && !self.is_linked(registration.client) {
                Towards::Network
            } else {
                Towards::Client(registration.client)
            };
            return Ok(Way { registration: first_key, hops, last: key, towards });
        }
        Err(481)
    }

    /// Whether a connection leads to the client that has a URI, or to the relay it has behind it.
    fn is_client(&self, ingress: Key, registration: &Registration) -> bool {
        registration.client == ingress
            || (registration.certified
                && self.link(ingress).is_some_and(|link| link.is_proven(&registration.client_uri)))
    }

    /// The connection on which a request leaves.
    fn egress(&mut self, way: &Way, head: &Head<'_>) -> Result<Key, u16> {
        let next = head.to_path.iter().nth(way.hops).ok_or(481u16)?;
        match way.towards {
            Towards::Client(key) if self.is_linked(key) => Ok(key),
            Towards::Client(_) => Err(481),
            Towards::Network => {
                let relay = self.relay.as_ref().ok_or(481u16)?;
                let peer = relay.registrations.get(way.last).and_then(|last| last.peer(next));
                match peer.filter(|&peer| self.is_linked(peer)) {
                    Some(peer) => Ok(peer),
                    None => self.outbound(next),
                }
            }
        }
    }

    /// Forgets a route.
    pub(super) fn remove_route(&mut self, key: Key) {
        let Some(relay) = &mut self.relay else { return };
        let Some(route) = relay.routes.remove(key) else { return };
        relay.route_by_paths.remove(&route.hash);
        if let Some(registration) = relay.registrations.get_mut(route.registration) {
            registration.routes -= 1;
        }
    }
}

/// The path lines of a route, forwards and back: our URIs change sides one by one (RFC 4976 section
/// 6.4.1).
fn path_lines(to: &[u8], from: &[u8], hops: usize) -> (Box<[u8]>, Box<[u8]>) {
    let mut rest = to;
    let mut own: Vec<&[u8]> = Vec::with_capacity(hops);
    for _ in 0..hops {
        let (first, after) = split_first(rest);
        own.push(first);
        rest = after.unwrap_or_default();
    }
    let mut lines = [b"To-Path: ", rest, b"\r\nFrom-Path: "].concat();
    for uri in own.iter().rev() {
        lines.extend_from_slice(uri);
        lines.push(b' ');
    }
    lines.extend_from_slice(from);
    lines.extend_from_slice(b"\r\n");
    let first = own.first().copied().unwrap_or_default();
    let back = [b"To-Path: ", from, b"\r\nFrom-Path: ", first, b"\r\n"].concat();
    (lines.into(), back.into())
}

/// Of a 200, all but the transaction identifiers (RFC 4975 section 7.2).
fn ok_lines(own: &[u8], previous: &[u8]) -> Box<[u8]> {
    let (to, from) = (b" 200 OK\r\nTo-Path: ", b"\r\nFrom-Path: ");
    [to, previous, from, own, b"\r\n-------"].concat().into()
}

const SEND: &[u8] = b" SEND\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_uris_move_from_the_to_path_to_the_front_of_the_from_path() {
        let (lines, back) = path_lines(b"R1 R2 B", b"P A", 2);
        assert_eq!(&*lines, b"To-Path: B\r\nFrom-Path: R2 R1 P A\r\n");
        assert_eq!(&*back, b"To-Path: P A\r\nFrom-Path: R1\r\n");
    }
}
