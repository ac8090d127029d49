//! The sockets of a ring and what each has in flight.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use socket2::{Domain, Protocol, SockAddr, Type};

use crate::SendBuffer;
use crate::driver::{Errno, Listen, Socket};
use crate::token::{Key, Operation, Token};

/// Buffers that one operation sends together: 64 KiB of four full TLS records, or the small buffers of
/// a chatty turn. A segment carries no more than 64 KiB through the kernel.
const SENT_TOGETHER_MAX: usize = 8;

/// A descriptor and the operations that name it. At most one of accept, connect and recv is in
/// flight at a time, and one that sends.
pub(super) struct OpenSocket {
    /// `None` once the close has been started.
    descriptor: Option<socket2::Socket>,
    pub(super) reading: Option<(Operation, Token)>,
    pub(super) receiving: Receiving,
    pub(super) sending: Option<Sending>,
    pub(super) closing: Option<Token>,
    /// The kernel reads it when it takes the connect from the submission queue.
    pub(super) connect_address: Option<Box<SockAddr>>,
    /// Where the datagram in flight goes, on a socket without a peer.
    pub(super) destination: Option<Box<SockAddr>>,
}

impl OpenSocket {
    pub(super) fn new(descriptor: socket2::Socket) -> Self {
        Self {
            descriptor: Some(descriptor),
            reading: None,
            receiving: Receiving::Ordinary { full: 0 },
            sending: None,
            closing: None,
            connect_address: None,
            destination: None,
        }
    }

    pub(super) fn datagram(descriptor: socket2::Socket) -> Self {
        let receiving = Receiving::Datagrams { cancelled: false, from_anybody: false };
        Self { receiving, ..Self::new(descriptor) }
    }

    pub(super) fn is_datagram(&self) -> bool {
        matches!(self.receiving, Receiving::Datagrams { .. })
    }

    /// Panics after close.
    pub(super) fn descriptor(&self) -> &socket2::Socket {
        self.descriptor.as_ref().expect("operation after close")
    }

    /// Panics after close.
    pub(super) fn raw_descriptor(&self) -> RawFd {
        self.descriptor().as_raw_fd()
    }

    /// Passes the descriptor on to the close that is about to be queued.
    pub(super) fn take_descriptor(&mut self) -> RawFd {
        let descriptor = self.descriptor.take().expect("closed twice");
        descriptor.into_raw_fd()
    }
}

/// Into what a socket receives. A conversation does best with one operation that goes on and a small
/// buffer for each burst; of a file more comes at once, and what lies in one piece is opened and cut in
/// place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    /// Into ordinary buffers, by one operation that goes on. The last so many were full.
    Ordinary { full: u8 },
    /// The same, but it has been cancelled: large ones follow.
    Leaving,
    /// Into a large buffer, by an operation for each, so that nobody has more than one in a turn.
    Large,
    /// Datagrams, into ordinary buffers. What ends the operation is reported only if somebody wants it
    /// to end.
    Datagrams { cancelled: bool, from_anybody: bool },
}

/// Ordinary buffers in a row that are full where a file comes: more than a turn's messages of people.
const FULL_BUFFERS_MIN: u8 = 4;

impl Receiving {
    /// What follows a completion. `full_bytes`: the size of an ordinary buffer.
    pub(super) fn next(self, result: Result<u32, Errno>, full_bytes: u32, more: bool) -> Self {
        match (self, result) {
            (Self::Ordinary { full }, Ok(length)) if length >= full_bytes => {
                match (full + 1 >= FULL_BUFFERS_MIN, more) {
                    (true, true) => Self::Leaving,
                    (true, false) => Self::Large,
                    (false, _) => Self::Ordinary { full: full + 1 },
                }
            }
            (Self::Ordinary { .. }, Ok(_)) => Self::Ordinary { full: 0 },
            (Self::Leaving, _) if !more => Self::Large,
            (Self::Large, Ok(length)) if length < full_bytes => Self::Ordinary { full: 0 },
            // Others have them all.
            (Self::Large, Err(Errno::NO_BUFFERS)) => Self::Ordinary { full: 0 },
            (Self::Ordinary { .. } | Self::Leaving | Self::Large | Self::Datagrams { .. }, _) => {
                self
            }
        }
    }
}

/// The sends of a socket that are not complete, in order.
pub(super) struct Sending {
    pub(super) token: Token,
    pub(super) first: SendBuffer,
    /// Those behind the first, where there are any.
    pub(super) more: Option<Box<MoreSends>>,
    /// So many of them the kernel has; none before the next wait.
    pub(super) submitted: usize,
}

/// The second and further sends of a socket, and what the kernel reads to find them all.
pub(super) struct MoreSends {
    pub(super) buffers: VecDeque<SendBuffer>,
    header: libc::msghdr,
    parts: [libc::iovec; SENT_TOGETHER_MAX],
}

impl Sending {
    pub(super) fn new(token: Token, first: SendBuffer) -> Self {
        Self { token, first, more: None, submitted: 0 }
    }

    /// The operation that sends as many as go together, of datagrams one. What it names lies in buffers
    /// and boxes that stay where they are while `self` lives.
    pub(super) fn submission(
        &mut self,
        descriptor: Fd,
        is_datagram: bool,
        destination: &mut Option<Box<SockAddr>>,
    ) -> squeue::Entry {
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        match &mut self.more {
            Some(more) if !is_datagram => {
                self.submitted = more.gather(&self.first);
                opcode::SendMsg::new(descriptor, &raw const more.header).flags(flags as u32).build()
            }
            Some(_) | None => {
                self.submitted = 1;
                let bytes = self.first.bytes();
                let send = opcode::Send::new(descriptor, bytes.as_ptr(), bytes.len() as u32);
                let send = match self.first.destination() {
                    Some(address) if is_datagram => {
                        let address = SockAddr::from(address);
                        let place = match destination {
                            // It seldom changes, and the box never moves.
                            Some(place) => {
                                **place = address;
                                place
                            }
                            None => destination.insert(Box::new(address)),
                        };
                        send.dest_addr(place.as_ptr().cast()).dest_addr_len(place.len())
                    }
                    Some(_) | None => send,
                };
                send.flags(flags).build()
            }
        }
    }
}

impl MoreSends {
    pub(super) fn new() -> Box<Self> {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Box::new(Self {
            buffers: VecDeque::with_capacity(SENT_TOGETHER_MAX),
            // SAFETY: integers and pointers that may be null.
            header: unsafe { std::mem::zeroed() },
            parts: [nothing; SENT_TOGETHER_MAX],
        })
    }

    /// Lists the first buffers for the kernel; says how many.
    fn gather(&mut self, first: &SendBuffer) -> usize {
        let mut count = 0;
        for (part, buffer) in self.parts.iter_mut().zip([first].into_iter().chain(&self.buffers)) {
            let bytes = buffer.bytes();
            *part =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            count += 1;
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = count as _;
        count
    }
}

struct Slot {
    generation: u8,
    open: Option<OpenSocket>,
}

/// Slab of sockets. A [`Socket`] is slot (24 bits) and generation (8 bits).
pub(super) struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Sockets {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    pub(super) fn insert(&mut self, open: OpenSocket) -> Socket {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len() as u32;
            assert!(index <= Key::INDEX_MAX);
            self.slots.push(Slot { generation: 0, open: None });
            index
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.open.is_none());
        slot.open = Some(open);
        Socket(u32::from(slot.generation) << 24 | index)
    }

    /// Panics if the socket has been closed.
    pub(super) fn get_mut(&mut self, socket: Socket) -> &mut OpenSocket {
        let slot = &mut self.slots[(socket.0 & Key::INDEX_MAX) as usize];
        assert_eq!(u32::from(slot.generation), socket.0 >> 24, "stale socket");
        slot.open.as_mut().expect("stale socket")
    }

    /// The same to look at.
    pub(super) fn get(&self, socket: Socket) -> &OpenSocket {
        let slot = &self.slots[(socket.0 & Key::INDEX_MAX) as usize];
        assert_eq!(u32::from(slot.generation), socket.0 >> 24, "stale socket");
        slot.open.as_ref().expect("stale socket")
    }

    pub(super) fn remove(&mut self, socket: Socket) -> OpenSocket {
        let index = socket.0 & Key::INDEX_MAX;
        let slot = &mut self.slots[index as usize];
        assert_eq!(u32::from(slot.generation), socket.0 >> 24, "stale socket");
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        slot.open.take().expect("stale socket")
    }

    pub(super) fn open_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// What the kernel carries for an operation on a socket. The shard's own token stays here, so
/// nothing a caller can make up decides which memory a completion belongs to.
pub(super) fn user_data(operation: Operation, socket: Socket) -> u64 {
    let key = Key { index: 0, generation: socket.0 };
    Token::new(operation, key).to_user_data()
}

/// The inverse of [`user_data`].
pub(super) fn from_user_data(user_data: u64) -> (Operation, Socket) {
    let token = Token::from_user_data(user_data);
    let operation = token.operation().expect("a word of our own making");
    (operation, Socket(token.key().generation))
}

/// A bound and listening TCP socket, and its address.
pub(super) fn listen(
    address: SocketAddr,
    listen: Listen,
) -> io::Result<(socket2::Socket, SocketAddr)> {
    let socket = tcp_socket(address)?;
    socket.set_reuse_address(true)?;
    if listen.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can both be listened on with one port number.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(listen.backlog)?;
    let bound = internet_address(&socket.local_addr()?)?;
    Ok((socket, bound))
}

/// Bytes the kernel takes beyond what the window of the peer lets leave. What waits longer waits with
/// the shard, where a short message can still overtake a long one.
const NOT_SENT_BYTES_MAX: u32 = 128 * 1024;

/// A TCP socket whose small messages leave at once and whose long ones do not pile up in the kernel;
/// accepted sockets inherit that from their listener.
pub(super) fn tcp_socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX)?;
    Ok(socket)
}

/// Breaks a TCP connection off: the peer gets a reset, and whatever waits on the socket an error. It is
/// done by connecting to nobody; closing with `SO_LINGER` would have to wait for those who wait.
pub(super) fn reset(socket: &socket2::Socket) {
    let nobody =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address is a whole one and outlives the call, which keeps nothing of it.
    let _ = unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, length) };
}

pub(super) fn internet_address(address: &SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
