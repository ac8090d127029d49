//! The driver of production: one io_uring, its receive buffers, its sockets.

mod datagrams;
mod kernel;
mod recv_buffers;
mod sockets;
mod splice;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};
use socket2::SockAddr;

use crate::doorbell::DoorbellReceiver;
use crate::driver::{
    AcceptedSocket, Completion, Driver, Errno, Listen, RecvBuffer, Socket, Spliced,
};
use crate::token::{Operation, Token};
use crate::{SendBuffer, clock};
use datagrams::{DatagramHeader, Received};
use kernel::{Kernel, Patience};
use recv_buffers::RecvBuffers;
use sockets::{MoreSends, OpenSocket, Receiving, Sending, Sockets, from_user_data, user_data};
use splice::Pipe;

/// Names no socket: the operation belongs to the ring itself.
const NO_SOCKET: Socket = Socket(u32::MAX);

/// Sizes of one ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingConfig {
    /// Operations that can be started before the kernel is entered; a power of two. More are
    /// possible, at a system call for each run of this many.
    pub submission_entries: u32,
    /// Completions the kernel can deliver in one turn; a power of two. More wait in the kernel.
    pub completion_entries: u32,
    /// Receive buffers; a power of two, at most 32,768.
    pub recv_buffer_count: u16,
    /// Bytes of one receive buffer, and so the most that one completion brings but for bulk.
    pub recv_buffer_size_bytes: u32,
    /// Receive buffers for bulk; a power of two. Whoever finds none receives as everybody does.
    pub recv_large_buffer_count: u16,
    /// Bytes of each of those. More of a stream comes at once and lies in one piece.
    pub recv_large_buffer_size_bytes: u32,
    /// Sockets that memory is set aside for at the start; more are possible.
    pub sockets_expected: usize,
}

impl Default for RingConfig {
    /// 16 MiB of receive memory: each of 2048 connections may speak in one turn. 8 KiB take four
    /// MSRP chunks (RFC 4975 section 7.1.1: 2048 bytes) and half a full TLS record. A large buffer
    /// takes four such records, as many as leave together; all of them are 1 MiB, which stays in a
    /// processor's cache.
    fn default() -> Self {
        Self {
            submission_entries: 4096,
            completion_entries: 16_384,
            recv_buffer_count: 2048,
            recv_buffer_size_bytes: 8192,
            recv_large_buffer_count: 16,
            recv_large_buffer_size_bytes: 64 * 1024,
            sockets_expected: 4096,
        }
    }
}

/// A [`Driver`] on io_uring. It stays on the thread that built it.
///
/// Sockets are plain descriptors, not direct ones. Per-source limits need the peer's address; a
/// multishot accept brings none, and `getpeername` needs a plain descriptor. Moving it into the
/// ring's own table after that would cost an operation at each end of a connection's life to save
/// one lookup per operation, in a table of descriptors that the kernel reads without a lock.
// Fields drop in this order: the ring before the memory that it uses.
pub struct Ring {
    kernel: Kernel,
    recv_buffers: RecvBuffers,
    recv_large_buffers: RecvBuffers,
    sockets: Sockets,
    /// What the kernel is told of the form in which it brings a datagram with its source.
    datagram_header: Box<DatagramHeader>,
    /// Accepts, connects and recvs in flight, for [`Driver::cancel`].
    socket_by_token: HashMap<Token, Socket>,
    /// Sockets with sends that the next wait submits.
    to_send: Vec<Socket>,
    /// Sends that have completed together with one that has been reported.
    sent: VecDeque<Completion>,
    /// Boxes that serve again.
    #[allow(clippy::vec_box, reason = "the kernel may know where it lies")]
    spare: Vec<Box<MoreSends>>,
    /// Made when it is first needed.
    pipe: Option<Pipe>,
    doorbell: Option<DoorbellReceiver>,
    doorbell_rang: bool,
    now_ns: u64,
}

impl Ring {
    /// A ring without a doorbell.
    ///
    /// # Errors
    ///
    /// Those of the kernel when io_uring or the memory is refused; [`crate::probe`] explains them.
    pub fn new(config: RingConfig) -> io::Result<Self> {
        assert!(config.recv_large_buffer_size_bytes >= config.recv_buffer_size_bytes);
        let recv_buffers =
            RecvBuffers::new(0, config.recv_buffer_count, config.recv_buffer_size_bytes)?;
        let recv_large_buffers = RecvBuffers::new(
            1,
            config.recv_large_buffer_count,
            config.recv_large_buffer_size_bytes,
        )?;
        let kernel = Kernel::new(config.submission_entries, config.completion_entries)?;
        recv_buffers.register(kernel.submitter())?;
        recv_large_buffers.register(kernel.submitter())?;
        Ok(Self {
            kernel,
            recv_buffers,
            recv_large_buffers,
            sockets: Sockets::with_capacity(config.sockets_expected),
            datagram_header: Box::default(),
            socket_by_token: HashMap::with_capacity(config.sockets_expected),
            to_send: Vec::new(),
            sent: VecDeque::new(),
            spare: Vec::new(),
            pipe: None,
            doorbell: None,
            doorbell_rang: false,
            now_ns: clock::monotonic_ns(),
        })
    }

    /// A ring that reports the bell as [`Completion::Doorbell`].
    ///
    /// # Errors
    ///
    /// As [`Ring::new`].
    pub fn with_doorbell(config: RingConfig, doorbell: DoorbellReceiver) -> io::Result<Self> {
        let mut ring = Self::new(config)?;
        ring.doorbell = Some(doorbell);
        ring.poll_doorbell();
        Ok(ring)
    }

    fn connect_socket(
        &mut self,
        socket: socket2::Socket,
        address: SocketAddr,
        token: Token,
    ) -> Socket {
        let mut open = OpenSocket::new(socket);
        let address = Box::new(SockAddr::from(address));
        let descriptor = Fd(open.raw_descriptor());
        let entry = opcode::Connect::new(descriptor, address.as_ptr().cast(), address.len());
        open.connect_address = Some(address);
        let socket = self.sockets.insert(open);
        // SAFETY: the boxed address stays in the socket's slot until the connect has completed.
        unsafe { self.start_reading(Operation::Connect, socket, token, entry.build()) };
        socket
    }

    /// Sockets that are not closed yet, listeners included.
    #[must_use]
    pub fn sockets_open(&self) -> usize {
        self.sockets.open_count()
    }

    /// Edge-triggered: the counter of the eventfd is never read.
    fn poll_doorbell(&mut self) {
        let Some(doorbell) = &self.doorbell else {
            return;
        };
        let poll = opcode::PollAdd::new(Fd(doorbell.as_raw_fd()), libc::POLLIN as u32).multi(true);
        let entry = poll.build().user_data(user_data(Operation::Doorbell, NO_SOCKET));
        // SAFETY: a poll names no memory.
        unsafe { self.kernel.push(entry) };
    }

    /// Starts an accept, connect or recv.
    ///
    /// # Safety
    ///
    /// As [`Kernel::push`].
    unsafe fn start_reading(
        &mut self,
        operation: Operation,
        socket: Socket,
        token: Token,
        entry: squeue::Entry,
    ) {
        let open = self.sockets.get_mut(socket);
        assert!(open.closing.is_none());
        assert!(open.reading.is_none());
        open.reading = Some((operation, token));
        assert!(self.socket_by_token.insert(token, socket).is_none());
        // SAFETY: handed on to the caller.
        unsafe {
            self.kernel.push(entry.user_data(user_data(operation, socket)));
        }
    }

    /// The token of an accept, connect or recv that has completed; ends it unless more follows.
    fn reading_token(&mut self, operation: Operation, socket: Socket, more: bool) -> Token {
        let open = self.sockets.get_mut(socket);
        let (started, token) = open.reading.expect("a completion of something started");
        assert_eq!(started, operation);
        if !more {
            open.reading = None;
            open.connect_address = None;
            assert_eq!(self.socket_by_token.remove(&token), Some(socket));
        }
        token
    }

    fn on_accept(&mut self, socket: Socket, entry: &cqueue::Entry) -> Completion {
        let more = cqueue::more(entry.flags());
        let token = self.reading_token(Operation::Accept, socket, more);
        let result = kernel_result(entry).and_then(|descriptor| {
            // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
            let connection = socket2::Socket::from(descriptor);
            // Fails when the peer has reset already; the descriptor closes with this scope.
            let peer = connection
                .peer_addr()
                .and_then(|address| sockets::internet_address(&address))
                .map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::ENOTCONN)))?;
            let socket = self.sockets.insert(OpenSocket::new(connection));
            Ok(AcceptedSocket { socket, peer })
        });
        Completion::Accept { token, result, more }
    }

    fn on_recv(&mut self, socket: Socket, entry: &cqueue::Entry) -> Option<Completion> {
        let more = cqueue::more(entry.flags());
        let token = self.reading_token(Operation::Recv, socket, more);
        let id = cqueue::buffer_select(entry.flags());
        let result = kernel_result(entry);
        let receiving = self.sockets.get_mut(socket).receiving;
        if let Receiving::Datagrams { cancelled, from_anybody } = receiving {
            let received = Received { result, buffer: id, more, cancelled, from_anybody };
            return self.on_datagram(socket, token, &received);
        }
        let before = self.follow_bulk(socket, result, more);
        if before == Receiving::Leaving && !more && result == Err(Errno::CANCELED) {
            // Our doing, of which nobody else needs to know.
            self.recv(socket, token);
            return None;
        }
        let is_large = before == Receiving::Large;
        let buffers = self.lender(is_large);
        let result = result.map(|length| match (length, id) {
            (0, _) => None,
            (length, Some(id)) => {
                buffers.lend(id, length);
                Some(RecvBuffer { id, is_large, start: 0, length })
            }
            (_, None) => unreachable!("received bytes lie in a provided buffer"),
        });
        if let (Ok(None) | Err(_), Some(id)) = (&result, id) {
            buffers.provide(id);
        }
        Some(Completion::Recv { token, result, more })
    }

    /// Notes how much a receive has brought, and ends one that goes on where large buffers are to follow.
    /// Says how it was received.
    fn follow_bulk(&mut self, socket: Socket, result: Result<u32, Errno>, more: bool) -> Receiving {
        let full_bytes = self.recv_buffers.size_bytes();
        let open = self.sockets.get_mut(socket);
        let before = open.receiving;
        open.receiving = before.next(result, full_bytes, more);
        if before != Receiving::Leaving && open.receiving == Receiving::Leaving {
            self.cancel_operation(Operation::Recv, socket);
        }
        before
    }

    /// The completion of the first buffer that was submitted; those of the others wait in `sent`.
    fn on_send(&mut self, socket: Socket, entry: &cqueue::Entry) -> Completion {
        let open = self.sockets.get_mut(socket);
        let Sending { token, first, more, submitted } =
            open.sending.take().expect("a send is in flight");
        assert!(submitted > 0);
        let mut result = kernel_result(entry).map(|count| count as usize);
        if open.is_datagram() {
            assert_ne!(result, Err(Errno(libc::EDESTADDRREQ)), "not connected");
            // What the network refuses is lost, like anything else that it loses.
            result = Ok(first.bytes().len());
        }
        let mut left = result.unwrap_or(0);
        let mut completion = |buffer: SendBuffer| {
            let count = left.min(buffer.bytes().len());
            left -= count;
            Completion::Send { token, result: result.map(|_| count), buffer }
        };
        let reported = completion(first);
        if let Some(mut more) = more {
            self.sent.extend(more.buffers.drain(..submitted - 1).map(completion));
            match more.buffers.pop_front() {
                Some(first) => {
                    open.sending = Some(Sending { token, first, more: Some(more), submitted: 0 });
                    self.to_send.push(socket);
                }
                None => self.spare.push(more),
            }
        }
        reported
    }

    /// Submits what has been started: one operation per socket.
    fn start_sends(&mut self) {
        while let Some(socket) = self.to_send.pop() {
            let open = self.sockets.get_mut(socket);
            let descriptor = Fd(open.raw_descriptor());
            let is_datagram = open.is_datagram();
            let sending = open.sending.as_mut().expect("a send has been started");
            let destination = &mut open.destination;
            let entry = sending.submission(descriptor, is_datagram, destination);
            let entry = entry.user_data(user_data(Operation::Send, socket));
            // SAFETY: the buffers' heap memory, the boxed list of them and the boxed address stay in the
            // socket's slot, out of everybody's reach, until the completion takes them out.
            unsafe { self.kernel.push(entry) };
        }
    }

    fn cancel_operation(&mut self, operation: Operation, socket: Socket) {
        let target = CancelBuilder::user_data(user_data(operation, socket));
        let entry = opcode::AsyncCancel2::new(target)
            .build()
            .user_data(user_data(Operation::Cancel, NO_SOCKET));
        // SAFETY: a cancellation names no memory.
        unsafe { self.kernel.push(entry) };
    }

    fn completion(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let (operation, socket) = from_user_data(entry.user_data());
        match operation {
            Operation::Accept => Some(self.on_accept(socket, entry)),
            Operation::Connect => Some(Completion::Connect {
                token: self.reading_token(Operation::Connect, socket, false),
                result: kernel_result(entry).map(|_| ()),
            }),
            Operation::Recv => self.on_recv(socket, entry),
            Operation::Readable => Some(Completion::Readable {
                token: self.reading_token(Operation::Readable, socket, false),
                result: kernel_result(entry).map(|_| ()),
            }),
            Operation::Send => Some(self.on_send(socket, entry)),
            // What was cancelled reports for itself; what was not found has done so already.
            Operation::Cancel => None,
            Operation::Close => {
                let token = self.sockets.remove(socket).closing;
                Some(Completion::Close { token: token.expect("close was started") })
            }
            // The bell's state, read in `wait`, says whether it rang. This only ended the sleep.
            Operation::Doorbell => {
                if !cqueue::more(entry.flags()) {
                    self.poll_doorbell();
                }
                None
            }
        }
    }
}

impl Driver for Ring {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn listen(
        &mut self,
        address: SocketAddr,
        listen: Listen,
        token: Token,
    ) -> io::Result<(Socket, SocketAddr)> {
        let (listener, bound) = sockets::listen(address, listen)?;
        let socket = self.sockets.insert(OpenSocket::new(listener));
        self.accept(socket, token);
        Ok((socket, bound))
    }

    fn accept(&mut self, listener: Socket, token: Token) {
        let descriptor = Fd(self.sockets.get_mut(listener).raw_descriptor());
        let entry = opcode::AcceptMulti::new(descriptor).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: a multishot accept names no memory.
        unsafe { self.start_reading(Operation::Accept, listener, token, entry) };
    }

    fn bind_datagram(&mut self, address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        let (descriptor, bound) = datagrams::bind(address)?;
        Ok((self.sockets.insert(OpenSocket::datagram(descriptor)), bound))
    }

    fn connect_datagram(&mut self, socket: Socket, remote: SocketAddr) -> io::Result<()> {
        let open = self.sockets.get_mut(socket);
        assert!(open.is_datagram());
        datagrams::connect(open.descriptor(), remote)
    }

    fn open_datagram(&mut self, socket: Socket) -> io::Result<()> {
        let open = self.sockets.get_mut(socket);
        assert_eq!(open.receiving, Receiving::Datagrams { cancelled: false, from_anybody: false });
        open.receiving = Receiving::Datagrams { cancelled: false, from_anybody: true };
        open.descriptor().detach_filter()
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        Ok(self.connect_socket(sockets::tcp_socket(address)?, address, token))
    }

    fn connect_from(
        &mut self,
        source: IpAddr,
        address: SocketAddr,
        token: Token,
    ) -> io::Result<Socket> {
        let socket = sockets::tcp_socket(address)?;
        socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        Ok(self.connect_socket(socket, address, token))
    }

    fn recv(&mut self, socket: Socket, token: Token) {
        let open = self.sockets.get_mut(socket);
        let descriptor = Fd(open.raw_descriptor());
        let group = self.recv_buffers.group();
        let entry = match &mut open.receiving {
            Receiving::Datagrams { cancelled, from_anybody: true } => {
                *cancelled = false;
                opcode::RecvMsgMulti::new(descriptor, self.datagram_header.as_ptr(), group).build()
            }
            Receiving::Datagrams { cancelled, from_anybody: false } => {
                *cancelled = false;
                // The length is then that of the datagram, also where not all of it fits.
                opcode::RecvMulti::new(descriptor, group).flags(libc::MSG_TRUNC).build()
            }
            Receiving::Ordinary { .. } | Receiving::Leaving => {
                opcode::RecvMulti::new(descriptor, group).build()
            }
            Receiving::Large => {
                let length = self.recv_large_buffers.size_bytes();
                opcode::Recv::new(descriptor, std::ptr::null_mut(), length)
                    .buf_group(self.recv_large_buffers.group())
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            }
        };
        // SAFETY: the kernel fills buffers of a registered ring, which `RecvBuffers` keeps
        // valid and does not touch before they are lent. The boxed header of a receive with sources
        // lives as long as `self` and is never written.
        unsafe { self.start_reading(Operation::Recv, socket, token, entry) };
    }

    fn await_readable(&mut self, socket: Socket, token: Token) {
        let open = self.sockets.get_mut(socket);
        assert!(!open.is_datagram());
        let events = libc::POLLIN | libc::POLLRDHUP;
        let entry = opcode::PollAdd::new(Fd(open.raw_descriptor()), events as u32).build();
        // SAFETY: a poll names no memory.
        unsafe { self.start_reading(Operation::Readable, socket, token, entry) };
    }

    fn splice(&mut self, from: Socket, to: Socket) -> Result<Option<Spliced<'_>>, Errno> {
        let source = self.sockets.get_mut(from);
        assert!(source.reading.is_none() && !source.is_datagram());
        let target = self.sockets.get_mut(to);
        assert!(target.sending.is_none() && !target.is_datagram());
        let pipe = match &mut self.pipe {
            Some(pipe) => pipe,
            none => none.insert(Pipe::new().map_err(errno)?),
        };
        let (source, target) = (self.sockets.get(from), self.sockets.get(to));
        pipe.splice(source.descriptor(), target.descriptor()).map_err(errno)
    }

    fn cancel(&mut self, token: Token) {
        let Some(&socket) = self.socket_by_token.get(&token) else {
            return;
        };
        let open = self.sockets.get_mut(socket);
        let (operation, _) = open.reading.expect("tokens in the map are in flight");
        // Whoever cancels learns the end of it.
        match &mut open.receiving {
            Receiving::Leaving => open.receiving = Receiving::Ordinary { full: 0 },
            Receiving::Datagrams { cancelled, .. } => *cancelled = true,
            Receiving::Ordinary { .. } | Receiving::Large => {}
        }
        self.cancel_operation(operation, socket);
    }

    fn send(&mut self, socket: Socket, buffer: SendBuffer, token: Token) {
        assert!(!buffer.bytes().is_empty());
        let open = self.sockets.get_mut(socket);
        assert!(open.closing.is_none());
        match &mut open.sending {
            None => {
                open.sending = Some(Sending::new(token, buffer));
                self.to_send.push(socket);
            }
            Some(sending) => {
                assert_eq!(sending.token, token, "one token for all sends");
                let spare = || self.spare.pop().unwrap_or_else(MoreSends::new);
                sending.more.get_or_insert_with(spare).buffers.push_back(buffer);
            }
        }
    }

    fn shutdown(&mut self, socket: Socket) {
        let open = self.sockets.get_mut(socket);
        match open.reading {
            Some((Operation::Accept | Operation::Connect, token)) => self.cancel(token),
            Some((_, token)) if open.is_datagram() => self.cancel(token),
            None if open.is_datagram() => {}
            _ => self.shutdown_now(socket, Shutdown::Both),
        }
    }

    fn reset(&mut self, socket: Socket) {
        let open = self.sockets.get_mut(socket);
        assert!(!open.is_datagram());
        match open.reading {
            Some((Operation::Accept | Operation::Connect, token)) => self.cancel(token),
            _ => {
                sockets::reset(open.descriptor());
                // Where the kernel would not, and for what has not reached it yet.
                self.shutdown_now(socket, Shutdown::Both);
            }
        }
    }

    fn shutdown_write(&mut self, socket: Socket) {
        assert!(!self.sockets.get_mut(socket).is_datagram());
        self.shutdown_now(socket, Shutdown::Write);
    }

    fn close(&mut self, socket: Socket, token: Token) {
        let open = self.sockets.get_mut(socket);
        assert!(open.closing.is_none());
        assert!(open.reading.is_none());
        assert!(open.sending.is_none());
        open.closing = Some(token);
        let entry = opcode::Close::new(Fd(open.take_descriptor()))
            .build()
            .user_data(user_data(Operation::Close, socket));
        // SAFETY: a close names no memory.
        unsafe { self.kernel.push(entry) };
    }

    fn next_completion(&mut self) -> Option<Completion> {
        if std::mem::take(&mut self.doorbell_rang) {
            return Some(Completion::Doorbell);
        }
        if let Some(completion) = self.sent.pop_front() {
            return Some(completion);
        }
        while let Some(entry) = self.kernel.pop() {
            if let Some(completion) = self.completion(&entry) {
                return Some(completion);
            }
        }
        None
    }

    fn recv_bytes(&mut self, buffer: &RecvBuffer) -> &mut [u8] {
        let start = usize::from(buffer.start);
        &mut self.lender(buffer.is_large).bytes(buffer.id, buffer.length)[start..]
    }

    fn recv_source(&mut self, buffer: &RecvBuffer) -> Option<SocketAddr> {
        if buffer.start == 0 {
            return None;
        }
        let bytes = self.recv_buffers.bytes(buffer.id, buffer.length);
        self.datagram_header.parse(bytes).and_then(|arrived| arrived.source)
    }

    fn recv_release(&mut self, buffer: RecvBuffer) {
        self.lender(buffer.is_large).release(buffer.id);
    }

    /// Counts as free what the kernel has filled but [`Driver::next_completion`] not delivered, and
    /// leaves out those for bulk.
    fn recv_buffers_free(&self) -> (usize, usize) {
        let count = self.recv_buffers.count();
        (count - self.recv_buffers.lent_count(), count)
    }

    fn look(&mut self) -> io::Result<()> {
        self.kernel.submit_and_wait(Patience::NONE)
    }

    fn wait(&mut self, deadline_ns: Option<u64>) -> io::Result<()> {
        assert_eq!(self.recv_buffers.lent_count(), 0, "release before wait");
        assert_eq!(self.recv_large_buffers.lent_count(), 0, "release before wait");
        self.start_sends();
        let mut patience = patience(deadline_ns);
        if let Some(doorbell) = &self.doorbell
            && patience.want > 0
            && !doorbell.arm()
        {
            patience = Patience::NONE;
        }
        let entered = self.kernel.submit_and_wait(patience);
        if let Some(doorbell) = &self.doorbell {
            self.doorbell_rang |= doorbell.disarm();
        }
        self.now_ns = clock::monotonic_ns();
        entered
    }
}

impl Ring {
    /// Whose a received run's memory is.
    fn lender(&mut self, is_large: bool) -> &mut RecvBuffers {
        if is_large { &mut self.recv_large_buffers } else { &mut self.recv_buffers }
    }

    /// A system call of its own: io_uring hands every shutdown to a worker thread. What was
    /// queued on the socket before goes to the kernel before.
    fn shutdown_now(&mut self, socket: Socket, how: Shutdown) {
        let open = self.sockets.get_mut(socket);
        if open.sending.is_some() {
            self.start_sends();
            // An error will come back from the next `wait`.
            let _ = self.kernel.submit();
        }
        // Not connected (any more): there is nothing to shut down.
        let _ = self.sockets.get_mut(socket).descriptor().shutdown(how);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.kernel.drain().is_ok() {
            for buffers in [&self.recv_buffers, &self.recv_large_buffers] {
                let _ = self.kernel.submitter().unregister_buf_ring(buffers.group());
            }
            return;
        }
        // The kernel still holds addresses of ours: better lost than reused.
        self.recv_buffers.leak();
        self.recv_large_buffers.leak();
        std::mem::forget(std::mem::replace(&mut self.sockets, Sockets::with_capacity(0)));
        std::mem::forget(std::mem::take(&mut self.datagram_header));
    }
}

/// How long the turn may sleep.
fn patience(deadline_ns: Option<u64>) -> Patience {
    match deadline_ns.map(|it| it.saturating_sub(clock::monotonic_ns())) {
        None => Patience { want: 1, timeout: None },
        Some(0) => Patience::NONE,
        Some(left_ns) => Patience { want: 1, timeout: Some(Duration::from_nanos(left_ns)) },
    }
}

/// The number of an error of the kernel's.
fn errno(error: io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The count or descriptor of a completion, or its error.
fn kernel_result(entry: &cqueue::Entry) -> Result<u32, Errno> {
    u32::try_from(entry.result()).map_err(|_| Errno(-entry.result()))
}
