//! Datagrams, and what becomes of them on their way.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::Simulator;
use super::network::{Kind, RECVS_PER_TURN_MAX, Senders};
use crate::driver::{Completion, Errno, RecvBuffer};
use crate::token::Token;

/// What the network does to datagrams, in both directions, per mille of them. Nothing, until
/// [`Simulator::set_datagram_faults`] is told.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct DatagramFaults {
    /// It never arrives.
    pub lost_per_mille: u16,
    /// It arrives twice.
    pub doubled_per_mille: u16,
    /// It arrives some turns later, behind others.
    pub late_per_mille: u16,
}

/// What is between the shard and its peers.
#[derive(Default)]
pub(super) struct Datagrams {
    faults: DatagramFaults,
    late: VecDeque<Datagram>,
    /// What peers have not looked at, by the address it was sent to.
    arrived: BTreeMap<SocketAddr, Vec<(SocketAddr, Vec<u8>)>>,
}

impl Datagrams {
    pub(super) fn are_on_their_way(&self) -> bool {
        !self.late.is_empty()
    }
}

#[derive(Clone)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// How likely what is late arrives in a turn.
const ARRIVES_PER_MILLE: u16 = 250;

impl Simulator {
    /// What goes wrong with datagrams from now on.
    pub fn set_datagram_faults(&mut self, faults: DatagramFaults) {
        self.datagrams.faults = faults;
    }

    /// A peer at `from` sends a datagram. Without a socket at `to` that is connected to it, it is lost.
    pub fn peer_send_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.carry(Datagram { from, to, bytes: bytes.to_vec() });
    }

    /// What a peer at `address` has received since it was last asked, and where it came from.
    pub fn peer_datagrams(&mut self, address: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        self.datagrams.arrived.remove(&address).unwrap_or_default()
    }

    pub(super) fn datagram_socket(&self, address: SocketAddr) -> Option<u32> {
        let is_bound = |kind: &Kind| match kind {
            Kind::Datagram { local, .. } => *local == address,
            Kind::Listener { .. } | Kind::Connecting { .. } | Kind::Stream { .. } | Kind::Dead => {
                false
            }
        };
        let mut sockets = self.sockets.iter();
        let found = sockets.find(|(_, socket)| socket.closing.is_none() && is_bound(&socket.kind));
        found.map(|(&id, _)| id)
    }

    fn carry(&mut self, datagram: Datagram) {
        let faults = self.datagrams.faults;
        if self.random.happens(faults.lost_per_mille) {
            return;
        }
        let double = self.random.happens(faults.doubled_per_mille).then(|| datagram.clone());
        for datagram in [datagram].into_iter().chain(double) {
            if self.random.happens(faults.late_per_mille) {
                self.datagrams.late.push_back(datagram);
            } else {
                self.arrive(datagram);
            }
        }
    }

    pub(super) fn step_late_datagrams(&mut self) {
        for _ in 0..self.datagrams.late.len() {
            let Some(datagram) = self.datagrams.late.pop_front() else { return };
            if self.random.happens(ARRIVES_PER_MILLE) {
                self.arrive(datagram);
            } else {
                self.datagrams.late.push_back(datagram);
            }
        }
    }

    fn arrive(&mut self, Datagram { from, to, bytes }: Datagram) {
        let Some(id) = self.datagram_socket(to) else {
            return self.datagrams.arrived.entry(to).or_default().push((from, bytes));
        };
        // What the driver ignores.
        let length_max = self.config.recv_buffer_size_bytes;
        if !(1..=length_max).contains(&bytes.len()) {
            return;
        }
        if let Some(Kind::Datagram { from: senders, incoming, .. }) =
            self.sockets.get_mut(&id).map(|socket| &mut socket.kind)
            && (*senders == Senders::Anybody || *senders == Senders::One(from))
        {
            incoming.push_back((from, bytes));
        }
    }

    fn incoming(&mut self, id: u32) -> &mut VecDeque<(SocketAddr, Vec<u8>)> {
        match self.sockets.get_mut(&id).map(|socket| &mut socket.kind) {
            Some(Kind::Datagram { incoming, .. }) => incoming,
            _ => unreachable!("a datagram socket"),
        }
    }

    /// Pushes datagrams; returns what ends the multishot, if anything does.
    pub(super) fn step_datagrams(
        &mut self,
        id: u32,
        token: Token,
        cancelled: bool,
        completions: &mut VecDeque<Completion>,
    ) -> Option<Completion> {
        let ended = |errno| Completion::Recv { token, result: Err(Errno(errno)), more: false };
        for _ in 0..RECVS_PER_TURN_MAX {
            let is_dry = self.incoming(id).is_empty();
            // Cancellation races arrival, as with streams.
            if is_dry || (cancelled && self.random.happens(500)) {
                break;
            }
            let Some(buffer) = self.take_buffer() else {
                return Some(ended(libc::ENOBUFS));
            };
            let (from, bytes) = self.incoming(id).pop_front()?;
            let start = buffer * self.config.recv_buffer_size_bytes;
            self.recv_memory[start..][..bytes.len()].copy_from_slice(&bytes);
            let tells =
                matches!(self.sockets[&id].kind, Kind::Datagram { from: Senders::Anybody, .. });
            self.recv_sources[buffer] = tells.then_some(from);
            let length = bytes.len() as u32;
            let buffer = RecvBuffer { id: buffer as u16, is_large: false, start: 0, length };
            completions.push_back(Completion::Recv { token, result: Ok(Some(buffer)), more: true });
        }
        cancelled.then(|| ended(libc::ECANCELED))
    }

    /// The next datagram of a socket leaves; one a turn, as on the ring.
    pub(super) fn send_datagram(&mut self, id: u32) -> Option<Completion> {
        let position = self.next_sending(id)?;
        let socket = self.sockets.get_mut(&id)?;
        let Kind::Datagram { local: from, from: senders, .. } = socket.kind else {
            unreachable!("a datagram socket");
        };
        let sending = &mut socket.sending[position];
        let (token, buffer) = (sending.token, sending.buffer.take()?);
        let to = match senders {
            Senders::One(peer) => peer,
            Senders::Anybody => buffer.destination().expect("addressed"),
            Senders::None => unreachable!("sends are for connected sockets"),
        };
        let bytes = buffer.bytes().to_vec();
        let result = Ok(bytes.len());
        self.carry(Datagram { from, to, bytes });
        Some(Completion::Send { token, result, buffer })
    }
}
