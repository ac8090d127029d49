//! BFCP over UDP (RFC 8855 section 6.2): a Termination has a socket, and so a port, of its own, which the
//! kernel connects to the address of the peer's SDP. That socket is its connection. What the network
//! loses is repeated by whoever has a request under way; ICMP is ignored.

use mrfp_io::Key;

use crate::config::EVENTS_WAITING_MAX;
use crate::connection::Life;
use crate::plane::Plane;
use crate::termination::Stage;

/// Datagrams that may wait to be sent when another request is taken: one leaves in a turn, and a client
/// has one request under way (RFC 8855 section 8), so that only who keeps to no rules has so many.
/// Beyond that, as while the shard is short of buffers or the controller behind, what it sends is lost like
/// anything that comes faster than it is read, and asked again.
const DATAGRAMS_WAITING_MAX: usize = 64;

impl Plane {
    /// A datagram from the peer.
    pub(crate) fn floor_datagram(&mut self, key: Key, datagram: &[u8]) {
        let Some(connection) = self.connections.get(key) else { return };
        let is_too_fast = connection.egress.queued_buffers() >= DATAGRAMS_WAITING_MAX;
        if is_too_fast || self.is_pressed() || self.events.len() > EVENTS_WAITING_MAX {
            return;
        }
        match connection.only_session() {
            Some(session) if connection.life == Life::Open => {
                self.floor_message(key, session, datagram);
            }
            // Nothing waits: before the answer to our offer the socket hears nobody.
            Some(_) | None => drop(self.floor_stranger(key, datagram)),
        }
    }

    /// Whether a user who is named by datagrams, or who is to come by them, is so by its own socket;
    /// `None`: by no datagrams.
    pub(super) fn claim_by_datagram(&self, key: Key, session: Key) -> Option<bool> {
        let is_by_datagrams = self.connections.get(key)?.is_of_datagrams();
        if !is_by_datagrams && self.awaits_datagram_peer(session).is_none() {
            return None;
        }
        let termination = self.terminations.get(session)?;
        Some(termination.stage == Stage::Reserved && termination.connection == Some(key))
    }

    /// Whether the socket of a Termination still waits to learn its peer; `None`: it has no such socket.
    pub(super) fn awaits_datagram_peer(&self, session: Key) -> Option<bool> {
        let connection = self.connections.get(self.terminations.get(session)?.connection?)?;
        connection.is_of_datagrams().then_some(connection.life == Life::Connecting)
    }

    /// Answers whoever is not bound yet. False: its connection is none of datagrams.
    pub(super) fn reply_by_datagram(&mut self, key: Key, reply: &[u8]) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        if !connection.is_of_datagrams() {
            return false;
        }
        // Without a buffer it is lost, and asked for again.
        let _ = connection.egress.append_wire(&mut self.send_buffers, reply);
        self.mark(key);
        true
    }
}
