//! The seam between a shard and whatever moves its bytes.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::{SendBuffer, Token};

/// A socket of one driver. Opaque; meaningless to another driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Socket(pub(crate) u32);

/// An error number of the kernel (`ECONNRESET`, `ENOBUFS`, …).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// The buffer ring was empty (`ENOBUFS`): arm the receive again.
    pub const NO_BUFFERS: Self = Self(libc::ENOBUFS);
    /// The operation was cancelled (`ECANCELED`).
    pub const CANCELED: Self = Self(libc::ECANCELED);
}

/// How to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// Connections the kernel may hold before they are accepted.
    pub backlog: i32,
    /// Several listeners may share the address (`SO_REUSEPORT`).
    pub reuse_port: bool,
}

/// A connection that has just been accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceptedSocket {
    /// The connection.
    pub socket: Socket,
    /// Who connected.
    pub peer: SocketAddr,
}

/// Names one received run of bytes inside the driver's buffer ring. Must go back with
/// [`Driver::recv_release`] in the turn that delivered it; reading is [`Driver::recv_bytes`].
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub struct RecvBuffer {
    pub(crate) id: u16,
    /// One of those for bulk.
    pub(crate) is_large: bool,
    /// Where the run begins; before it lies where it came from, if that is told.
    pub(crate) start: u16,
    pub(crate) length: u32,
}

impl RecvBuffer {
    /// Whether more is likely to follow at once: it is a part of a file rather than of a conversation.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        self.is_large
    }
}

/// What [`Driver::splice`] has taken from one stream.
#[derive(PartialEq, Eq, Debug)]
pub struct Spliced<'a> {
    /// Bytes the other stream has got; with none left over, and none of these, nothing had come.
    pub passed: usize,
    /// What follows them, and did not fit: to be sent before anything else.
    pub rest: &'a [u8],
}

/// What has happened. One `match` in the shard handles them all.
#[derive(Debug)]
pub enum Completion {
    /// A listener accepted. `more` false: the multishot ended (also with a good result, when the
    /// completion queue was full), arm it again; after `EMFILE` not before a socket has closed.
    Accept {
        /// The token it was started with.
        token: Token,
        /// The connection, or why there is none.
        result: Result<AcceptedSocket, Errno>,
        /// Whether the operation stays armed.
        more: bool,
    },
    /// An outgoing connection is up, or is not.
    Connect {
        /// The token it was started with.
        token: Token,
        /// Nothing, or why it is not up.
        result: Result<(), Errno>,
    },
    /// Bytes arrived, of a datagram socket one datagram. `Ok(None)`: the peer has closed its direction,
    /// which no peer of a datagram socket can. `more` false: the multishot
    /// ended (also on `ENOBUFS` and `ECANCELED`), arm it again if the connection goes on. One busy
    /// connection can use up the buffers of a turn: arm again first who has waited longest.
    Recv {
        /// The token it was started with.
        token: Token,
        /// The bytes, end of stream, or why there are none.
        result: Result<Option<RecvBuffer>, Errno>,
        /// Whether the operation stays armed.
        more: bool,
    },
    /// What [`Driver::await_readable`] has waited for, or why it does so no more.
    Readable {
        /// The token it was started with.
        token: Token,
        /// Nothing, or `ECANCELED`. How a stream has ended is for whoever receives from it.
        result: Result<(), Errno>,
    },
    /// The kernel has taken `result` bytes of `buffer`, which comes back here. A short count is
    /// possible only after an error condition, and of the buffers that were to follow nothing has been
    /// taken then: the caller advances each and sends the rest, in the same order. A datagram is taken
    /// whole, also where the network then loses it.
    Send {
        /// The token it was started with.
        token: Token,
        /// How many bytes were taken, or why none.
        result: Result<usize, Errno>,
        /// The buffer, back from the kernel.
        buffer: SendBuffer,
    },
    /// The descriptor is gone. Always the last completion of a socket.
    Close {
        /// The token it was started with.
        token: Token,
    },
    /// Another thread has put something into a queue of this shard.
    Doorbell,
}

/// Moves bytes for one shard. Single-threaded; built on the thread that uses it.
///
/// Rules of use, asserted by both implementations: one token for all sends of a socket; no operation
/// on a socket after [`Driver::close`]; a socket is closed only when its recv, connect
/// and send have completed (call [`Driver::shutdown`] to make them).
///
/// A datagram socket is one that [`Driver::bind_datagram`] has made. It has no connection that could end
/// or break: an ICMP error is ignored, and so is a datagram without a byte in it or with more than
/// fit into a receive buffer; none of them ends a receive.
pub trait Driver {
    /// Monotonic time, in nanoseconds from an arbitrary origin, as it was when the current turn
    /// began (refreshed by [`Driver::wait`]).
    fn now_ns(&self) -> u64;

    /// Binds, listens and arms a multishot accept. Port 0 picks one; the bound address returns.
    fn listen(
        &mut self,
        address: SocketAddr,
        listen: Listen,
        token: Token,
    ) -> io::Result<(Socket, SocketAddr)>;

    /// Arms the multishot accept of a listener again.
    fn accept(&mut self, listener: Socket, token: Token);

    /// A datagram socket (UDP). Port 0 picks one; the bound address returns. Nothing is armed, and what
    /// arrives before [`Driver::connect_datagram`] is lost.
    fn bind_datagram(&mut self, address: SocketAddr) -> io::Result<(Socket, SocketAddr)>;

    /// The peer of a datagram socket, once: from now on datagrams are taken from there and from nowhere
    /// else, and sent there. Before that nothing is to be sent or received.
    fn connect_datagram(&mut self, socket: Socket, remote: SocketAddr) -> io::Result<()>;

    /// A datagram socket takes what comes from anybody from now on, tells where it came from
    /// ([`Driver::recv_source`]), and sends each buffer where that says ([`SendBuffer::set_destination`]). It
    /// is never connected.
    fn open_datagram(&mut self, socket: Socket) -> io::Result<()>;

    /// Starts an outgoing connection; [`Completion::Connect`] follows.
    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket>;

    /// The same from an address of the host's own; the kernel picks the port. Fails where it is none.
    fn connect_from(
        &mut self,
        source: IpAddr,
        address: SocketAddr,
        token: Token,
    ) -> io::Result<Socket>;

    /// Arms a multishot receive.
    fn recv(&mut self, socket: Socket, token: Token);

    /// Waits once until a stream has something to be received: bytes, its end, or an error. It stands in the
    /// place of a receive.
    fn await_readable(&mut self, socket: Socket, token: Token);

    /// Moves what has come on one stream to another inside the kernel, some of it and without waiting. No
    /// receive is in flight from the one, and no send to the other. `Ok(None)`: the peer has closed its
    /// direction. An error is one of receiving; that nothing can be sent any more shows when the rest is.
    fn splice(&mut self, from: Socket, to: Socket) -> Result<Option<Spliced<'_>>, Errno>;

    /// Ends the multishot accept, recv, wait or the connect that was started with `token`: its last
    /// completion (`more` false, `ECANCELED`, or what raced it) follows.
    fn cancel(&mut self, token: Token);

    /// Sends the whole buffer ([`SendBuffer::bytes`]); it comes back with the completion. What is
    /// started on a socket before the next wait leaves together, in order, and each buffer has its
    /// own completion; what is started while it is in flight leaves after it. To a datagram socket each
    /// buffer is one datagram, and they leave one after the other, a turn for each.
    fn send(&mut self, socket: Socket, buffer: SendBuffer, token: Token);

    /// Ends both directions, so that everything in flight completes soon. An accept or a connect
    /// ends as by [`Driver::cancel`], and so does the receive of a datagram socket, whose sends still leave.
    fn shutdown(&mut self, socket: Socket);

    /// The same at once and by force: what is in flight is lost, and the peer sees a reset. Not for
    /// datagram sockets.
    fn reset(&mut self, socket: Socket);

    /// Ends our direction only (the peer sees EOF, its bytes still arrive). Not for datagram sockets.
    fn shutdown_write(&mut self, socket: Socket);

    /// Frees the descriptor; [`Completion::Close`] follows.
    fn close(&mut self, socket: Socket, token: Token);

    /// The next thing that has happened, until none is left in this turn.
    fn next_completion(&mut self) -> Option<Completion>;

    /// Brings what has come since the last wait, to be taken by [`Driver::next_completion`]. Sends that
    /// were started stay for the wait. Nothing to do where time stands still within a turn.
    fn look(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The bytes of a received run, writable for decryption in place.
    fn recv_bytes(&mut self, buffer: &RecvBuffer) -> &mut [u8];

    /// Where a datagram came from, on a socket that takes them from anybody.
    fn recv_source(&mut self, buffer: &RecvBuffer) -> Option<SocketAddr>;

    /// Gives a received run's memory back to the kernel.
    fn recv_release(&mut self, buffer: RecvBuffer);

    /// Receive buffers that lie with the kernel, waiting for bytes, of how many there are.
    fn recv_buffers_free(&self) -> (usize, usize);

    /// Submits what was started and waits until something completes or `deadline_ns` has come.
    /// A deadline that has passed submits and returns at once.
    fn wait(&mut self, deadline_ns: Option<u64>) -> io::Result<()>;
}
