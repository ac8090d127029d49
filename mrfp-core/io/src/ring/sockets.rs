//! The sockets of a ring and what each has in flight.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, Type};

use crate::SendBuffer;
use crate::driver::{Listen, Socket};
use crate::token::{Key, Operation, Token};

/// A descriptor and the operations that name it. At most one of accept, connect and recv is in
/// flight at a time, and one send.
pub(super) struct OpenSocket {
    /// `None` once the close has been started.
    descriptor: Option<socket2::Socket>,
    pub(super) reading: Option<(Operation, Token)>,
    pub(super) sending: Option<(Token, SendBuffer)>,
    pub(super) closing: Option<Token>,
    /// The kernel reads it when it takes the connect from the submission queue.
    pub(super) connect_address: Option<Box<SockAddr>>,
}

impl OpenSocket {
    pub(super) fn new(descriptor: socket2::Socket) -> Self {
        Self {
            descriptor: Some(descriptor),
            reading: None,
            sending: None,
            closing: None,
            connect_address: None,
        }
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

pub(super) fn internet_address(address: &SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
