//! What happens to the shard's sockets in a turn.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::{BufferState, ConnectAnswer, PeerId, Simulator};
use crate::SendBuffer;
use crate::driver::{AcceptedSocket, Completion, Errno, RecvBuffer, Socket, Spliced};
use crate::token::{Operation, Token};

/// Receive completions of one socket in one turn, at most.
pub(super) const RECVS_PER_TURN_MAX: usize = 4;

/// Longest piece of a receive that is cut at random: short, so that heads and records are hit.
const SPLIT_BYTES_MAX: usize = 300;

/// Most that goes from one peer to another at once.
const SPLICED_BYTES_MAX: usize = 64 * 1024;

pub(super) struct SimulatedSocket {
    pub(super) kind: Kind,
    pub(super) reading: Option<Reading>,
    /// In order.
    pub(super) sending: VecDeque<Sending>,
    pub(super) closing: Option<Token>,
    close_ready: bool,
}

pub(super) enum Kind {
    Listener {
        address: SocketAddr,
        backlog: VecDeque<PeerId>,
    },
    Connecting {
        address: SocketAddr,
    },
    Stream {
        peer: PeerId,
    },
    Datagram {
        local: SocketAddr,
        /// Who it takes datagrams from.
        from: Senders,
        /// What has come, and where from.
        incoming: VecDeque<(SocketAddr, Vec<u8>)>,
    },
    /// A connection that never came about.
    Dead,
}

/// Who is heard by a datagram socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Senders {
    None,
    /// Who it is connected to.
    One(SocketAddr),
    Anybody,
}

impl Kind {
    pub(super) fn datagram(local: SocketAddr) -> Self {
        Self::Datagram { local, from: Senders::None, incoming: VecDeque::new() }
    }

    /// Whether there is somebody to send to and to receive from.
    pub(super) fn is_connected(&self) -> bool {
        match self {
            Self::Stream { .. } => true,
            Self::Datagram { from, .. } => *from != Senders::None,
            Self::Listener { .. } | Self::Connecting { .. } | Self::Dead => false,
        }
    }
}

/// An accept, connect or recv in flight.
pub(super) struct Reading {
    pub(super) operation: Operation,
    pub(super) token: Token,
    pub(super) cancelled: bool,
    /// The last completion waits to be delivered.
    pub(super) ended: bool,
}

pub(super) struct Sending {
    pub(super) token: Token,
    /// `None`: the completion waits to be delivered.
    pub(super) buffer: Option<SendBuffer>,
    pub(super) taken_bytes: usize,
}

impl SimulatedSocket {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, reading: None, sending: VecDeque::new(), closing: None, close_ready: false }
    }
}

impl Simulator {
    /// Lets every socket make what progress it can and lines the completions up.
    pub(super) fn step(&mut self) {
        self.step_late_datagrams();
        let ids: Vec<u32> = self.sockets.keys().copied().collect();
        let mut completions = BTreeMap::new();
        for id in ids {
            let mut of_socket = VecDeque::new();
            self.step_reading(id, &mut of_socket);
            self.step_sending(id, &mut of_socket);
            self.step_closing(id, &mut of_socket);
            if !of_socket.is_empty() {
                completions.insert(id, of_socket);
            }
        }
        self.line_up(completions);
    }

    /// Order is kept within a socket, not between sockets.
    fn line_up(&mut self, mut completions: BTreeMap<u32, VecDeque<Completion>>) {
        while !completions.is_empty() {
            let position = match self.config.faults.shuffle_completions {
                true => self.random.below(completions.len()),
                false => 0,
            };
            let Some((&id, of_socket)) = completions.iter_mut().nth(position) else {
                return;
            };
            self.ready.extend(of_socket.pop_front().map(|first| (id, first)));
            if of_socket.is_empty() {
                completions.remove(&id);
            }
        }
    }

    /// Whether a step could complete something on this socket, chance permitting.
    pub(super) fn could_complete(&self, id: u32) -> bool {
        let socket = &self.sockets[&id];
        let reading = socket.reading.as_ref().filter(|reading| !reading.ended);
        let could_read = reading.is_some_and(|reading| {
            reading.cancelled
                || match &socket.kind {
                    Kind::Listener { backlog, .. } => !backlog.is_empty(),
                    Kind::Connecting { address } => self.answer(*address) != ConnectAnswer::Silence,
                    Kind::Stream { peer } => self.peers[peer.0].has_something_to_read(),
                    Kind::Datagram { incoming, .. } => !incoming.is_empty(),
                    Kind::Dead => true,
                }
        });
        let sends = socket.sending.iter().any(|sending| sending.buffer.is_some());
        let could_send = match &socket.kind {
            Kind::Stream { peer } if sends => {
                self.peers[peer.0].send_error().is_some() || self.peers[peer.0].window_bytes > 0
            }
            Kind::Datagram { .. } => sends,
            _ => false,
        };
        could_read || could_send || (socket.closing.is_some() && !socket.close_ready)
    }

    pub(super) fn listener(&self, wanted: SocketAddr) -> Option<u32> {
        let listens = |kind: &Kind| match kind {
            Kind::Listener { address, .. } => *address == wanted,
            Kind::Connecting { .. } | Kind::Stream { .. } | Kind::Datagram { .. } | Kind::Dead => {
                false
            }
        };
        let mut sockets = self.sockets.iter();
        let found = sockets.find(|(_, socket)| socket.closing.is_none() && listens(&socket.kind));
        found.map(|(&id, _)| id)
    }

    fn answer(&self, address: SocketAddr) -> ConnectAnswer {
        let answer = self.answers.get(&address).copied();
        answer.unwrap_or(ConnectAnswer::Refuse)
    }

    fn is_delayed(&mut self) -> bool {
        self.random.happens(self.config.faults.delays_per_mille)
    }

    fn step_closing(&mut self, id: u32, completions: &mut VecDeque<Completion>) {
        let socket = self.sockets.get_mut(&id).expect("stepped while live");
        if let Some(token) = socket.closing
            && !socket.close_ready
        {
            socket.close_ready = true;
            completions.push_back(Completion::Close { token });
        }
    }

    fn step_reading(&mut self, id: u32, completions: &mut VecDeque<Completion>) {
        let reading = self.sockets[&id].reading.as_ref();
        let Some(reading) = reading.filter(|reading| !reading.ended) else {
            return;
        };
        let (token, cancelled) = (reading.token, reading.cancelled);
        if self.is_delayed() {
            return;
        }
        let last = match reading_operation(&self.sockets[&id]) {
            Operation::Accept => self.step_accept(id, token, cancelled, completions),
            Operation::Connect => self.step_connect(id, token, cancelled),
            Operation::Recv => self.step_recv(id, token, cancelled, completions),
            Operation::Readable => self.step_readable(id, token, cancelled),
            Operation::Send | Operation::Cancel | Operation::Close | Operation::Doorbell => {
                unreachable!("not a reading operation")
            }
        };
        completions.extend(last);
        let faults = self.config.faults;
        if self.random.happens(faults.ended_multishots_per_mille) {
            end_multishot(completions);
        }
        let is_last = completions.back().is_some_and(|last| !has_more(last));
        if is_last {
            let socket = self.sockets.get_mut(&id).expect("stepped while live");
            socket.reading.as_mut().expect("was in flight").ended = true;
        }
    }

    fn step_accept(
        &mut self,
        id: u32,
        token: Token,
        cancelled: bool,
        completions: &mut VecDeque<Completion>,
    ) -> Option<Completion> {
        let ended = |errno| Completion::Accept { token, result: Err(Errno(errno)), more: false };
        loop {
            let waiting = match &mut self.sockets.get_mut(&id)?.kind {
                Kind::Listener { backlog, .. } => backlog.pop_front(),
                Kind::Connecting { .. }
                | Kind::Stream { .. }
                | Kind::Datagram { .. }
                | Kind::Dead => unreachable!("not a listener"),
            };
            let Some(peer) = waiting else {
                return cancelled.then(|| ended(libc::ECANCELED));
            };
            let socket = self.insert_socket(Kind::Stream { peer });
            self.peers[peer.0].accepted = true;
            completions.push_back(Completion::Accept {
                token,
                result: Ok(AcceptedSocket { socket, peer: self.peers[peer.0].address }),
                more: true,
            });
        }
    }

    fn step_connect(&mut self, id: u32, token: Token, cancelled: bool) -> Option<Completion> {
        let Kind::Connecting { address } = self.sockets[&id].kind else {
            unreachable!("not connecting");
        };
        let refused = |errno| (Kind::Dead, Err(Errno(errno)));
        let (kind, result) = match self.answer(address) {
            _ if cancelled => refused(libc::ECANCELED),
            ConnectAnswer::Silence => return None,
            ConnectAnswer::Refuse => refused(libc::ECONNREFUSED),
            ConnectAnswer::Accept => {
                let peer = self.insert_peer(address);
                self.peers[peer.0].accepted = true;
                self.connected.push_back(peer);
                (Kind::Stream { peer }, Ok(()))
            }
        };
        self.sockets.get_mut(&id)?.kind = kind;
        Some(Completion::Connect { token, result })
    }

    /// Pushes runs of bytes; returns what ends the multishot, if anything does.
    fn step_recv(
        &mut self,
        id: u32,
        token: Token,
        cancelled: bool,
        completions: &mut VecDeque<Completion>,
    ) -> Option<Completion> {
        let peer = match self.sockets[&id].kind {
            Kind::Stream { peer } => peer,
            Kind::Datagram { .. } => return self.step_datagrams(id, token, cancelled, completions),
            Kind::Listener { .. } | Kind::Connecting { .. } | Kind::Dead => {
                unreachable!("not connected")
            }
        };
        let ended = |result| Completion::Recv { token, result, more: false };
        for _ in 0..RECVS_PER_TURN_MAX {
            if self.peers[peer.0].take_reset() {
                return Some(ended(Err(Errno(libc::ECONNRESET))));
            }
            // Cancellation races arrival: bytes may come first.
            if cancelled && (self.peers[peer.0].to_shard.is_empty() || self.random.happens(500)) {
                break;
            }
            if self.peers[peer.0].to_shard.is_empty() {
                return self.peers[peer.0].is_at_end().then(|| ended(Ok(None)));
            }
            let Some(buffer) = self.fill_buffer(peer) else {
                return Some(ended(Err(Errno(libc::ENOBUFS))));
            };
            completions.push_back(Completion::Recv { token, result: Ok(Some(buffer)), more: true });
        }
        cancelled.then(|| ended(Err(Errno(libc::ECANCELED))))
    }

    fn step_readable(&mut self, id: u32, token: Token, cancelled: bool) -> Option<Completion> {
        let Kind::Stream { peer } = self.sockets[&id].kind else { unreachable!("not a stream") };
        let result = match (self.peers[peer.0].has_something_to_read(), cancelled) {
            (false, false) => return None,
            (true, false) => Ok(()),
            (_, true) => Err(Errno::CANCELED),
        };
        Some(Completion::Readable { token, result })
    }

    /// What comes, and what of it the other peer takes, is a matter of its window and of chance.
    pub(super) fn splice_streams(
        &mut self,
        from: Socket,
        to: Socket,
    ) -> Result<Option<Spliced<'_>>, Errno> {
        assert!(self.socket(from).reading.is_none(), "splice while reading");
        assert!(self.socket(to).sending.is_empty(), "splice while sending");
        let (Kind::Stream { peer: from }, Kind::Stream { peer: to }) =
            (&self.sockets[&from.0].kind, &self.sockets[&to.0].kind)
        else {
            panic!("not connected");
        };
        let (from, to) = (*from, *to);
        let source = &mut self.peers[from.0];
        if source.take_reset() {
            return Err(Errno(libc::ECONNRESET));
        }
        if source.to_shard.is_empty() && source.is_at_end() {
            return Ok(None);
        }
        let mut length = source.to_shard.len().min(SPLICED_BYTES_MAX);
        if self.config.faults.split_receives && length > 0 {
            length = 1 + self.random.below(length);
        }
        self.spliced.clear();
        self.spliced.extend(self.peers[from.0].to_shard.drain(..length));
        let target = &self.peers[to.0];
        let mut passed = match target.send_error() {
            Some(_) => 0,
            None => length.min(target.window_bytes),
        };
        if self.random.happens(self.config.faults.short_sends_per_mille) && passed > 0 {
            passed = self.random.below(passed);
        }
        self.peers[to.0].take_bytes(&self.spliced[..passed]);
        Ok(Some(Spliced { passed, rest: &self.spliced[passed..] }))
    }

    fn fill_buffer(&mut self, peer: PeerId) -> Option<RecvBuffer> {
        let id = self.take_buffer()?;
        let size_bytes = self.config.recv_buffer_size_bytes;
        let pending = &mut self.peers[peer.0].to_shard;
        let mut length = pending.len().min(size_bytes);
        if self.config.faults.split_receives {
            length = 1 + self.random.below(length.min(SPLIT_BYTES_MAX));
        }
        let memory = &mut self.recv_memory[id * size_bytes..][..length];
        for (to, from) in memory.iter_mut().zip(pending.drain(..length)) {
            *to = from;
        }
        // More follows at once.
        let is_large = self.peers[peer.0].to_shard.len() > size_bytes;
        Some(RecvBuffer { id: id as u16, is_large, start: 0, length: length as u32 })
    }

    /// A receive buffer to be filled; chance may have none.
    pub(super) fn take_buffer(&mut self) -> Option<usize> {
        if self.random.happens(self.config.faults.out_of_buffers_per_mille) {
            return None;
        }
        let id = self.recv_states.iter().position(|it| *it == BufferState::Free)?;
        self.recv_states[id] = BufferState::Filled;
        Some(id)
    }

    fn step_sending(&mut self, id: u32, completions: &mut VecDeque<Completion>) {
        if self.next_sending(id).is_none() || self.is_delayed() {
            return;
        }
        if let Kind::Datagram { .. } = self.sockets[&id].kind {
            return completions.extend(self.send_datagram(id));
        }
        let is_short = self.random.happens(self.config.faults.short_sends_per_mille);
        let mut cut = false;
        while let Some(position) = self.next_sending(id) {
            let error = if cut { None } else { self.move_sent_bytes(id, position, is_short) };
            let socket = self.sockets.get_mut(&id).expect("stepped while live");
            let sending = &mut socket.sending[position];
            let wanted_bytes = sending.buffer.as_ref().map_or(0, |it| it.bytes().len());
            let result = match error {
                // Behind a short count nothing is taken.
                _ if cut => Ok(0),
                _ if sending.taken_bytes == wanted_bytes => Ok(wanted_bytes),
                // As MSG_WAITALL does: what was taken before the error counts.
                Some(_) if sending.taken_bytes > 0 => Ok(sending.taken_bytes),
                Some(error) => Err(error),
                None if is_short && sending.taken_bytes > 0 => Ok(sending.taken_bytes),
                None => return,
            };
            cut |= matches!(result, Ok(count) if count < wanted_bytes);
            completions.extend(sending.buffer.take().map(|buffer| Completion::Send {
                token: sending.token,
                result,
                buffer,
            }));
        }
    }

    /// The first send whose completion is still to come.
    pub(super) fn next_sending(&self, id: u32) -> Option<usize> {
        self.sockets[&id].sending.iter().position(|sending| sending.buffer.is_some())
    }

    /// Moves what the peer's window takes. The error is what the rest meets.
    fn move_sent_bytes(&mut self, id: u32, position: usize, is_short: bool) -> Option<Errno> {
        let socket = self.sockets.get_mut(&id)?;
        let Kind::Stream { peer } = socket.kind else {
            return Some(Errno(libc::ENOTCONN));
        };
        let peer = &mut self.peers[peer.0];
        if let Some(error) = peer.send_error() {
            return Some(error);
        }
        let sending = &mut socket.sending[position];
        let left = &sending.buffer.as_ref()?.bytes()[sending.taken_bytes..];
        let mut count = left.len().min(peer.window_bytes);
        if is_short && count > 1 {
            count = 1 + self.random.below(count - 1);
        }
        peer.take_bytes(&left[..count]);
        sending.taken_bytes += count;
        None
    }

    /// What was sent before a shutdown is on its way before it, as far as the window allows.
    pub(super) fn flush_before_shutdown(&mut self, socket: Socket) {
        for position in 0..self.socket(socket).sending.len() {
            self.move_sent_bytes(socket.0, position, false);
        }
    }

    /// Tells the peers of a socket that it goes away.
    pub(super) fn abandon_peers(&mut self, socket: Socket) {
        let Some(socket) = self.sockets.get_mut(&socket.0) else {
            return;
        };
        match &mut socket.kind {
            Kind::Stream { peer } => self.peers[peer.0].abandon(),
            Kind::Listener { backlog, .. } => {
                for peer in backlog.drain(..) {
                    self.peers[peer.0].abandon();
                }
            }
            Kind::Connecting { .. } | Kind::Datagram { .. } | Kind::Dead => {}
        }
    }
}

/// The last result, a good one, is also the end.
fn end_multishot(completions: &mut VecDeque<Completion>) {
    if let Some(Completion::Accept { more, .. } | Completion::Recv { more, .. }) =
        completions.back_mut()
    {
        *more = false;
    }
}

fn has_more(completion: &Completion) -> bool {
    match completion {
        Completion::Accept { more, .. } | Completion::Recv { more, .. } => *more,
        Completion::Connect { .. }
        | Completion::Readable { .. }
        | Completion::Send { .. }
        | Completion::Close { .. }
        | Completion::Doorbell => false,
    }
}

fn reading_operation(socket: &SimulatedSocket) -> Operation {
    let reading = socket.reading.as_ref().expect("checked by the caller");
    reading.operation
}
