//! The sockets of all calls: one, or one at each of our addresses.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::message::Message;
use super::place_of;

/// Carries SIP to the node and back.
pub struct Transport {
    sockets: Vec<Socket>,
    /// One of each socket.
    local_addresses: Vec<SocketAddr>,
    /// The socket that was looked at last.
    at: usize,
    peer: Peer,
}

/// What the other end has shown of itself.
#[derive(Default)]
struct Peer {
    /// At least one message came.
    heard: bool,
    /// Since when it refuses what we send, or the connection is gone, and why.
    gone: Option<(Instant, io::Error)>,
}

impl Peer {
    fn heard(&mut self) {
        self.heard = true;
        self.gone = None;
    }

    fn refused(&mut self, error: io::Error) {
        self.gone.get_or_insert_with(|| (Instant::now(), error));
    }
}

enum Socket {
    Udp {
        socket: UdpSocket,
        datagram: Vec<u8>,
    },
    Tcp {
        stream: TcpStream,
        /// What the next read may fill.
        chunk: Vec<u8>,
        /// What has arrived and is not handled.
        input: Vec<u8>,
        /// Bytes at the front of `input` that the last message took.
        handled: usize,
        /// What the kernel has not taken.
        unsent: Vec<u8>,
    },
    /// It will not come back.
    Broken,
}

/// Largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Output a node may leave unread before the connection counts as lost.
const UNSENT_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Transport {
    /// UDP sockets that speak to the node only, one at each of `sources`, or one where the kernel
    /// chooses.
    pub async fn udp(node: SocketAddr, sources: &[IpAddr]) -> io::Result<Self> {
        let mut this = Self::new();
        for source in own(node, sources) {
            let socket = UdpSocket::bind(source).await?;
            socket.connect(node).await?;
            this.local_addresses.push(socket.local_addr()?);
            this.sockets.push(Socket::Udp { socket, datagram: vec![0; DATAGRAM_BYTES_MAX] });
        }
        Ok(this)
    }

    /// TCP connections to the node, likewise.
    pub async fn tcp(node: SocketAddr, sources: &[IpAddr]) -> io::Result<Self> {
        let mut this = Self::new();
        for source in own(node, sources) {
            let socket = if node.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind(source)?;
            let stream = socket.connect(node).await?;
            stream.set_nodelay(true)?;
            this.local_addresses.push(stream.local_addr()?);
            this.sockets.push(Socket::Tcp {
                stream,
                chunk: vec![0; DATAGRAM_BYTES_MAX],
                input: Vec::new(),
                handled: 0,
                unsent: Vec::new(),
            });
        }
        Ok(this)
    }

    fn new() -> Self {
        Self { sockets: Vec::new(), local_addresses: Vec::new(), at: 0, peer: Peer::default() }
    }

    /// Our ends.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.local_addresses
    }

    /// Our end of a call.
    #[must_use]
    pub fn local_address(&self, call: u32) -> SocketAddr {
        self.local_addresses[place_of(call, self.local_addresses.len()).unwrap_or(0)]
    }

    /// Whether the node has ever said anything.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.peer.heard
    }

    /// Since when nothing but refusals came (UDP) or a connection is gone (TCP), and why.
    #[must_use]
    pub fn gone(&self) -> Option<&(Instant, io::Error)> {
        self.peer.gone.as_ref()
    }

    /// Sends one message from one of our ends, or queues what the kernel does not take yet. What
    /// cannot be sent is lost: transactions notice, and [`Transport::gone`] tells.
    pub fn send(&mut self, place: u32, message: &[u8]) {
        let socket = &mut self.sockets[place as usize];
        if let Err(error) = socket.try_send(message, &mut self.peer) {
            self.peer.refused(error);
            *socket = Socket::Broken;
        }
    }

    /// Another message that is there already, and where: one wake brings many datagrams.
    pub fn try_receive(&mut self) -> Option<(u32, &[u8])> {
        for step in 0..self.sockets.len() {
            let at = (self.at + step) % self.sockets.len();
            let Socket::Udp { socket, datagram } = &mut self.sockets[at] else { continue };
            if let Ok(length) = socket.try_recv(datagram) {
                self.at = at;
                return Some((at as u32, self.sockets[at].message(length)));
            }
        }
        None
    }

    /// The next message, and where it came; may be dropped at any await without loss. Never returns
    /// once the connections are gone.
    pub async fn receive(&mut self) -> (u32, &[u8]) {
        let length = poll_fn(|context| self.poll_any(context)).await;
        (self.at as u32, self.sockets[self.at].message(length))
    }

    /// Length of a message of the socket at `self.at`.
    fn poll_any(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        for _ in 0..self.sockets.len() {
            self.at = (self.at + 1) % self.sockets.len();
            let socket = &mut self.sockets[self.at];
            match socket.poll_receive(context, &mut self.peer) {
                Poll::Ready(Ok(length)) => {
                    self.peer.heard();
                    return Poll::Ready(length);
                }
                Poll::Ready(Err(error)) => {
                    self.peer.refused(error);
                    *socket = Socket::Broken;
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

impl Socket {
    fn try_send(&mut self, message: &[u8], peer: &mut Peer) -> io::Result<()> {
        match self {
            Self::Udp { socket, .. } => match socket.try_send(message) {
                // A datagram that was not sent is one that was lost: the transaction repeats it.
                // Refused: the answer to an earlier one; the transaction times out.
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    peer.refused(error);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Self::Tcp { stream, unsent, .. } => {
                unsent.extend_from_slice(message);
                match stream.try_write(unsent) {
                    Ok(count) => {
                        unsent.drain(..count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                if unsent.len() > UNSENT_BYTES_MAX {
                    return Err(io::Error::from(io::ErrorKind::OutOfMemory));
                }
                Ok(())
            }
            Self::Broken => Ok(()),
        }
    }

    /// Length of the next message, which [`Socket::message`] is.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        peer: &mut Peer,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Udp { socket, datagram } => loop {
                let mut buffer = ReadBuf::new(datagram);
                match ready!(socket.poll_recv(context, &mut buffer)) {
                    Ok(()) => return Poll::Ready(Ok(buffer.filled().len())),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        peer.refused(error);
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
            Self::Tcp { stream, chunk, input, handled, unsent } => {
                input.drain(..std::mem::take(handled));
                while !unsent.is_empty() {
                    let Poll::Ready(count) = Pin::new(&mut *stream).poll_write(context, unsent)
                    else {
                        break;
                    };
                    unsent.drain(..count?);
                }
                loop {
                    // Keep-alives (RFC 5626 section 3.5.1) and CRLF before a start line.
                    let blank = input.iter().take_while(|byte| b"\r\n".contains(byte)).count();
                    input.drain(..blank);
                    let length = Message::length_in_stream(input)
                        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                    if let Some(length) = length {
                        *handled = length;
                        return Poll::Ready(Ok(length));
                    }
                    let mut buffer = ReadBuf::new(chunk);
                    ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
                    if buffer.filled().is_empty() {
                        let what = "the node closed the connection";
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            what,
                        )));
                    }
                    input.extend_from_slice(buffer.filled());
                }
            }
            Self::Broken => Poll::Pending,
        }
    }

    fn message(&self, length: usize) -> &[u8] {
        match self {
            Self::Udp { datagram, .. } => &datagram[..length],
            Self::Tcp { input, .. } => &input[..length],
            Self::Broken => &[],
        }
    }
}

/// Our ends towards the node: where we are wanted, or where the kernel would send from.
fn own(node: SocketAddr, sources: &[IpAddr]) -> Vec<SocketAddr> {
    let any: IpAddr = match node {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let sources = if sources.is_empty() { &[any][..] } else { sources };
    sources.iter().map(|source| (*source, 0).into()).collect()
}
