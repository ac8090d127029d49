//! A network in memory, in virtual time, in which a test plays the peers.
//!
//! A test drives a shard turn by turn and reaches the simulator between turns: peers connect,
//! send, stop reading, reset; [`Simulator::advance_ns`] lets time pass, nothing else does. All
//! that is left to chance (where a receive is split, which completion comes first or late) is
//! drawn from the seed: one seed, one run.

#![forbid(unsafe_code)]

mod datagrams;
mod network;
mod peers;
mod random;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::SendBuffer;
use crate::driver::{Completion, Driver, Errno, Listen, RecvBuffer, Socket, Spliced};
use crate::token::{Operation, Token};
pub use datagrams::DatagramFaults;
use datagrams::Datagrams;
use network::{Kind, Reading, Senders, Sending, SimulatedSocket};
use peers::Peer;
pub use peers::PeerId;
use random::Random;

/// How ill-behaved the network is. Rates are per mille of the opportunities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Cut received bytes at random places.
    pub split_receives: bool,
    /// Deliver the completions of different sockets in random order.
    pub shuffle_completions: bool,
    /// A send reports fewer bytes than it was given.
    pub short_sends_per_mille: u16,
    /// A receive ends with `ENOBUFS` although there are buffers.
    pub out_of_buffers_per_mille: u16,
    /// A multishot ends with a good result, as it does when the completion queue is full.
    pub ended_multishots_per_mille: u16,
    /// What could complete in this turn completes in a later one.
    pub delays_per_mille: u16,
}

impl Faults {
    /// None: everything completes whole, in order, in the next turn.
    pub const NONE: Self = Self {
        split_receives: false,
        shuffle_completions: false,
        short_sends_per_mille: 0,
        out_of_buffers_per_mille: 0,
        ended_multishots_per_mille: 0,
        delays_per_mille: 0,
    };

    /// All of them, often enough to meet each in a short test.
    pub const ALL: Self = Self {
        split_receives: true,
        shuffle_completions: true,
        short_sends_per_mille: 100,
        out_of_buffers_per_mille: 50,
        ended_multishots_per_mille: 50,
        delays_per_mille: 200,
    };
}

/// Shape of a simulator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimulatorConfig {
    /// What goes wrong.
    pub faults: Faults,
    /// Receive buffers; few, so that they do run out.
    pub recv_buffer_count: u16,
    /// Bytes of one receive buffer.
    pub recv_buffer_size_bytes: usize,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self { faults: Faults::ALL, recv_buffer_count: 64, recv_buffer_size_bytes: 8192 }
    }
}

/// What becomes of a connection that the shard starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectAnswer {
    /// A peer appears ([`Simulator::next_connected`]).
    Accept,
    /// `ECONNREFUSED`.
    Refuse,
    /// Nothing, until it is cancelled or shut down.
    Silence,
}

/// State of one receive buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BufferState {
    Free,
    /// Holds bytes whose completion has not been delivered.
    Filled,
    Lent {
        length: u32,
    },
}

/// A [`Driver`] without a kernel. It asserts the rules of use that the trait states.
pub struct Simulator {
    config: SimulatorConfig,
    random: Random,
    now_ns: u64,
    deadline_ns: Option<u64>,
    /// Never reused: a stale [`Socket`] is not in the map.
    sockets: BTreeMap<u32, SimulatedSocket>,
    sockets_made: u32,
    peers: Vec<Peer>,
    answers: BTreeMap<SocketAddr, ConnectAnswer>,
    connected: VecDeque<PeerId>,
    datagrams: Datagrams,
    recv_memory: Vec<u8>,
    recv_states: Vec<BufferState>,
    /// Where the datagrams in them came from.
    recv_sources: Vec<Option<SocketAddr>>,
    spliced: Vec<u8>,
    /// With the socket each belongs to.
    ready: VecDeque<(u32, Completion)>,
    doorbell_ringing: bool,
    /// Rung before the current turn began.
    doorbell_rang: bool,
    ports_given: u16,
}

impl Simulator {
    /// Every fault, drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_config(seed, SimulatorConfig::default())
    }

    /// No faults: for tests about something else.
    #[must_use]
    pub fn without_faults() -> Self {
        let config = SimulatorConfig { faults: Faults::NONE, ..SimulatorConfig::default() };
        Self::with_config(0, config)
    }

    /// As `config` says.
    #[must_use]
    pub fn with_config(seed: u64, config: SimulatorConfig) -> Self {
        let count = usize::from(config.recv_buffer_count);
        Self {
            config,
            random: Random::new(seed),
            now_ns: 1_000_000_000,
            deadline_ns: None,
            sockets: BTreeMap::new(),
            sockets_made: 0,
            peers: Vec::new(),
            answers: BTreeMap::new(),
            connected: VecDeque::new(),
            datagrams: Datagrams::default(),
            recv_memory: vec![0; count * config.recv_buffer_size_bytes],
            recv_states: vec![BufferState::Free; count],
            recv_sources: vec![None; count],
            spliced: Vec::new(),
            ready: VecDeque::new(),
            doorbell_ringing: false,
            doorbell_rang: false,
            ports_given: 0,
        }
    }

    /// Lets time pass.
    pub fn advance_ns(&mut self, duration_ns: u64) {
        self.now_ns += duration_ns;
    }

    /// Lets time pass until the deadline of the last [`Driver::wait`], the shard's next timer.
    /// `false` if it had none.
    pub fn advance_to_deadline(&mut self) -> bool {
        let Some(deadline_ns) = self.deadline_ns else {
            return false;
        };
        self.now_ns = self.now_ns.max(deadline_ns);
        true
    }

    /// Rings the shard's doorbell: [`Completion::Doorbell`] comes in the next turn.
    pub fn ring_doorbell(&mut self) {
        self.doorbell_ringing = true;
    }

    /// Whether another turn would bring nothing, as long as no peer acts.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let could_complete = self.sockets.keys().any(|&id| self.could_complete(id));
        let doorbell = self.doorbell_ringing || self.doorbell_rang;
        self.ready.is_empty() && !doorbell && !could_complete && !self.datagrams.are_on_their_way()
    }

    /// Sockets of the shard that are not closed yet, listeners included.
    #[must_use]
    pub fn sockets_open(&self) -> usize {
        self.sockets.len()
    }

    /// Decides the outcome of connections to `address`; without it they are refused.
    pub fn answer_connects(&mut self, address: SocketAddr, answer: ConnectAnswer) {
        self.answers.insert(address, answer);
    }

    /// A port where none is asked for.
    fn give_port(&mut self, address: &mut SocketAddr) {
        if address.port() == 0 {
            self.ports_given += 1;
            address.set_port(49_151 + self.ports_given);
        }
    }

    fn socket(&mut self, socket: Socket) -> &mut SimulatedSocket {
        let socket = self.sockets.get_mut(&socket.0).expect("a live socket");
        assert!(socket.closing.is_none(), "operation after close");
        socket
    }

    fn insert_socket(&mut self, kind: Kind) -> Socket {
        let id = self.sockets_made;
        self.sockets_made += 1;
        self.sockets.insert(id, SimulatedSocket::new(kind));
        Socket(id)
    }

    fn start_reading(&mut self, operation: Operation, socket: Socket, token: Token) {
        let taken = |other: &SimulatedSocket| other.reading.as_ref().map(|it| it.token);
        assert!(!self.sockets.values().any(|it| taken(it) == Some(token)), "token in use");
        let socket = self.socket(socket);
        assert!(socket.reading.is_none(), "one reading operation at a time");
        socket.reading = Some(Reading { operation, token, cancelled: false, ended: false });
    }

    /// Takes what a delivered completion ended off its socket.
    fn settle(&mut self, id: u32, completion: &Completion) {
        let socket = self.sockets.get_mut(&id).expect("closed by Close only");
        match completion {
            Completion::Accept { more, .. } | Completion::Recv { more, .. } => {
                if !more {
                    socket.reading = None;
                }
                if let Completion::Recv { result: Ok(Some(buffer)), .. } = completion {
                    let state = &mut self.recv_states[usize::from(buffer.id)];
                    assert!(*state == BufferState::Filled);
                    *state = BufferState::Lent { length: buffer.length };
                }
            }
            Completion::Connect { .. } | Completion::Readable { .. } => socket.reading = None,
            Completion::Send { .. } => {
                let sent = socket.sending.pop_front().expect("was in flight");
                assert!(sent.buffer.is_none());
            }
            Completion::Close { .. } => {
                self.sockets.remove(&id);
            }
            Completion::Doorbell => unreachable!("belongs to no socket"),
        }
    }

    fn lent_count(&self) -> usize {
        let lent = |state: &&BufferState| matches!(state, BufferState::Lent { .. });
        self.recv_states.iter().filter(lent).count()
    }
}

impl Driver for Simulator {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn listen(
        &mut self,
        mut address: SocketAddr,
        listen: Listen,
        token: Token,
    ) -> io::Result<(Socket, SocketAddr)> {
        self.give_port(&mut address);
        if !listen.reuse_port && self.listener(address).is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = self.insert_socket(Kind::Listener { address, backlog: VecDeque::new() });
        self.accept(socket, token);
        Ok((socket, address))
    }

    fn accept(&mut self, listener: Socket, token: Token) {
        let kind = &self.socket(listener).kind;
        assert!(matches!(kind, Kind::Listener { .. }));
        self.start_reading(Operation::Accept, listener, token);
    }

    fn bind_datagram(&mut self, mut address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        self.give_port(&mut address);
        if self.datagram_socket(address).is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = self.insert_socket(Kind::datagram(address));
        Ok((socket, address))
    }

    fn connect_datagram(&mut self, socket: Socket, remote: SocketAddr) -> io::Result<()> {
        let Kind::Datagram { from, .. } = &mut self.socket(socket).kind else {
            panic!("no datagram socket");
        };
        assert_eq!(*from, Senders::None, "connected once");
        *from = Senders::One(remote);
        Ok(())
    }

    fn open_datagram(&mut self, socket: Socket) -> io::Result<()> {
        let Kind::Datagram { from, .. } = &mut self.socket(socket).kind else {
            panic!("no datagram socket");
        };
        assert_eq!(*from, Senders::None, "opened once");
        *from = Senders::Anybody;
        Ok(())
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        let socket = self.insert_socket(Kind::Connecting { address });
        self.start_reading(Operation::Connect, socket, token);
        Ok(socket)
    }

    fn connect_from(
        &mut self,
        _source: IpAddr,
        address: SocketAddr,
        token: Token,
    ) -> io::Result<Socket> {
        self.connect(address, token)
    }

    fn recv(&mut self, socket: Socket, token: Token) {
        assert!(self.socket(socket).kind.is_connected(), "not connected");
        self.start_reading(Operation::Recv, socket, token);
    }

    fn await_readable(&mut self, socket: Socket, token: Token) {
        assert!(matches!(self.socket(socket).kind, Kind::Stream { .. }), "not connected");
        self.start_reading(Operation::Readable, socket, token);
    }

    fn splice(&mut self, from: Socket, to: Socket) -> Result<Option<Spliced<'_>>, Errno> {
        self.splice_streams(from, to)
    }

    fn cancel(&mut self, token: Token) {
        for socket in self.sockets.values_mut() {
            if let Some(reading) = &mut socket.reading
                && reading.token == token
            {
                reading.cancelled = true;
            }
        }
    }

    fn send(&mut self, socket: Socket, buffer: SendBuffer, token: Token) {
        assert!(!buffer.bytes().is_empty());
        let socket = self.socket(socket);
        assert!(socket.kind.is_connected(), "not connected");
        assert!(socket.sending.iter().all(|other| other.token == token), "one token for all sends");
        socket.sending.push_back(Sending { token, buffer: Some(buffer), taken_bytes: 0 });
    }

    fn shutdown(&mut self, socket: Socket) {
        self.flush_before_shutdown(socket);
        let shut = self.socket(socket);
        match (&shut.kind, &mut shut.reading) {
            (Kind::Stream { peer }, _) => {
                let peer = *peer;
                self.peers[peer.0].shard_shut_write = true;
                self.peers[peer.0].shard_shut_read = true;
            }
            (
                Kind::Connecting { .. } | Kind::Listener { .. } | Kind::Datagram { .. },
                Some(reading),
            ) => reading.cancelled = true,
            (Kind::Connecting { .. } | Kind::Listener { .. } | Kind::Datagram { .. }, None)
            | (Kind::Dead, _) => {}
        }
    }

    fn reset(&mut self, socket: Socket) {
        let broken = self.socket(socket);
        match broken.kind {
            Kind::Stream { peer } => self.peers[peer.0].break_off(),
            Kind::Datagram { .. } => panic!("a datagram socket has no connection"),
            Kind::Connecting { .. } | Kind::Listener { .. } | Kind::Dead => self.shutdown(socket),
        }
    }

    fn shutdown_write(&mut self, socket: Socket) {
        self.flush_before_shutdown(socket);
        match self.socket(socket).kind {
            Kind::Stream { peer } => self.peers[peer.0].shard_shut_write = true,
            Kind::Datagram { .. } => panic!("a datagram socket has no end"),
            Kind::Listener { .. } | Kind::Connecting { .. } | Kind::Dead => {}
        }
    }

    fn close(&mut self, socket: Socket, token: Token) {
        let closing = self.socket(socket);
        assert!(closing.reading.is_none(), "close while reading");
        assert!(closing.sending.is_empty(), "close while sending");
        closing.closing = Some(token);
        self.abandon_peers(socket);
    }

    fn next_completion(&mut self) -> Option<Completion> {
        if std::mem::take(&mut self.doorbell_rang) {
            return Some(Completion::Doorbell);
        }
        let (id, completion) = self.ready.pop_front()?;
        self.settle(id, &completion);
        Some(completion)
    }

    fn recv_bytes(&mut self, buffer: &RecvBuffer) -> &mut [u8] {
        let length = buffer.length;
        assert!(self.recv_states[usize::from(buffer.id)] == BufferState::Lent { length });
        let start = usize::from(buffer.id) * self.config.recv_buffer_size_bytes;
        &mut self.recv_memory[start..][..length as usize]
    }

    fn recv_source(&mut self, buffer: &RecvBuffer) -> Option<SocketAddr> {
        self.recv_sources[usize::from(buffer.id)]
    }

    fn recv_release(&mut self, buffer: RecvBuffer) {
        // What outlives its turn is caught red-handed.
        self.recv_bytes(&buffer).fill(0xdb);
        self.recv_states[usize::from(buffer.id)] = BufferState::Free;
        self.recv_sources[usize::from(buffer.id)] = None;
    }

    fn recv_buffers_free(&self) -> (usize, usize) {
        let count = self.recv_states.len();
        (count - self.lent_count(), count)
    }

    /// Returns at once; time passes only by [`Simulator::advance_ns`].
    fn wait(&mut self, deadline_ns: Option<u64>) -> io::Result<()> {
        assert_eq!(self.lent_count(), 0, "release before wait");
        self.deadline_ns = deadline_ns;
        self.doorbell_rang |= std::mem::take(&mut self.doorbell_ringing);
        self.step();
        Ok(())
    }
}
