//! The far ends, played by the test.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use super::Simulator;
use super::network::Kind;
use crate::driver::Errno;

/// A far end of one connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub(super) usize);

/// A peer, and the connection between it and the shard.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) accepted: bool,
    pub(super) to_shard: VecDeque<u8>,
    received: Vec<u8>,
    /// Bytes it takes before the shard's sends wait.
    pub(super) window_bytes: usize,
    /// It sends no more.
    shut_write: bool,
    /// It takes no more: the shard's sends fail.
    gone: bool,
    /// It has sent a reset that the shard has not seen.
    reset: bool,
    pub(super) shard_shut_write: bool,
    pub(super) shard_shut_read: bool,
    shard_closed: bool,
    shard_reset: bool,
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            accepted: false,
            to_shard: VecDeque::new(),
            received: Vec::new(),
            window_bytes: usize::MAX,
            shut_write: false,
            gone: false,
            reset: false,
            shard_shut_write: false,
            shard_shut_read: false,
            shard_closed: false,
            shard_reset: false,
        }
    }

    pub(super) fn has_something_to_read(&self) -> bool {
        self.reset || !self.to_shard.is_empty() || self.is_at_end()
    }

    /// Nothing will follow what lies in `to_shard`.
    pub(super) fn is_at_end(&self) -> bool {
        self.shut_write || self.shard_shut_read
    }

    /// Whether a reset is to be reported; once.
    pub(super) fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }

    /// Why the shard cannot send (any more).
    pub(super) fn send_error(&self) -> Option<Errno> {
        match (self.reset, self.gone || self.shard_shut_write) {
            (true, _) => Some(Errno(libc::ECONNRESET)),
            (false, true) => Some(Errno(libc::EPIPE)),
            (false, false) => None,
        }
    }

    pub(super) fn take_bytes(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        if self.window_bytes != usize::MAX {
            self.window_bytes -= bytes.len();
        }
    }

    /// The shard has closed. Bytes it has not read make that a reset (RFC 1122 4.2.2.13).
    pub(super) fn abandon(&mut self) {
        self.shard_closed = true;
        self.shard_reset |= !self.to_shard.is_empty() || !self.accepted;
    }

    /// The shard has broken the connection off.
    pub(super) fn break_off(&mut self) {
        self.shard_shut_write = true;
        self.shard_shut_read = true;
        self.shard_reset = true;
        self.to_shard.clear();
    }
}

impl Simulator {
    /// Whether the shard listens there.
    #[must_use]
    pub fn listens(&self, address: SocketAddr) -> bool {
        self.listener(address).is_some()
    }

    /// A peer connects, from an address of its own. Panics if nobody listens there.
    pub fn peer_connect(&mut self, listener: SocketAddr) -> PeerId {
        let number = self.peers.len() as u32;
        // TEST-NET-1 of RFC 5737 has room for 254 hosts; the ports for the rest.
        let host = Ipv4Addr::new(192, 0, 2, (1 + number % 254) as u8);
        let source = SocketAddr::from((host, (10_000 + number / 254) as u16));
        self.peer_connect_from(listener, source)
    }

    /// A peer connects from `source`. Panics if nobody listens at `listener`.
    pub fn peer_connect_from(&mut self, listener: SocketAddr, source: SocketAddr) -> PeerId {
        let id = self.listener(listener).expect("nobody listens there");
        let peer = self.insert_peer(source);
        match self.sockets.get_mut(&id).map(|socket| &mut socket.kind) {
            Some(Kind::Listener { backlog, .. }) => backlog.push_back(peer),
            _ => unreachable!("found as a listener"),
        }
        peer
    }

    /// The next peer that accepted a connection of the shard (see [`ConnectAnswer`]), in order.
    ///
    /// [`ConnectAnswer`]: super::ConnectAnswer
    pub fn next_connected(&mut self) -> Option<PeerId> {
        self.connected.pop_front()
    }

    /// The peer's own address: its source, or where the shard connected to.
    #[must_use]
    pub fn peer_address(&self, peer: PeerId) -> SocketAddr {
        self.peers[peer.0].address
    }

    /// The peer sends. Ignored, as TCP would, when the shard has closed.
    pub fn peer_send(&mut self, peer: PeerId, bytes: &[u8]) {
        let peer = &mut self.peers[peer.0];
        assert!(!peer.shut_write, "the peer has ended its direction");
        if !peer.shard_closed {
            peer.to_shard.extend(bytes);
        }
    }

    /// What the peer has received since it was last asked.
    pub fn peer_received(&mut self, peer: PeerId) -> Vec<u8> {
        std::mem::take(&mut self.peers[peer.0].received)
    }

    /// The peer takes `window_bytes` more bytes and then no more; `usize::MAX`: without end.
    pub fn peer_limit_window(&mut self, peer: PeerId, window_bytes: usize) {
        self.peers[peer.0].window_bytes = window_bytes;
    }

    /// The peer takes no more bytes; the shard's sends wait.
    pub fn peer_stop_reading(&mut self, peer: PeerId) {
        self.peer_limit_window(peer, 0);
    }

    /// The peer takes whatever comes.
    pub fn peer_resume_reading(&mut self, peer: PeerId) {
        self.peer_limit_window(peer, usize::MAX);
    }

    /// The peer ends its direction and goes on reading.
    pub fn peer_shutdown_write(&mut self, peer: PeerId) {
        self.peers[peer.0].shut_write = true;
    }

    /// The peer closes: the shard reads to the end of what was sent, and its sends fail.
    pub fn peer_close(&mut self, peer: PeerId) {
        let peer = &mut self.peers[peer.0];
        peer.shut_write = true;
        peer.gone = true;
    }

    /// The peer resets: what the shard has not read is lost.
    pub fn peer_reset(&mut self, peer: PeerId) {
        let peer = &mut self.peers[peer.0];
        peer.to_shard.clear();
        peer.shut_write = true;
        peer.gone = true;
        peer.reset = true;
    }

    /// Whether the peer has seen the end of the shard's direction.
    #[must_use]
    pub fn peer_saw_end(&self, peer: PeerId) -> bool {
        self.peers[peer.0].shard_shut_write || self.peers[peer.0].shard_closed
    }

    /// Whether the shard broke the connection off, or closed it without having read everything or without
    /// accepting it.
    #[must_use]
    pub fn peer_was_reset(&self, peer: PeerId) -> bool {
        self.peers[peer.0].shard_reset
    }

    pub(super) fn insert_peer(&mut self, address: SocketAddr) -> PeerId {
        self.peers.push(Peer::new(address));
        PeerId(self.peers.len() - 1)
    }
}
