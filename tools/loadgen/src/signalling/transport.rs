//! One socket for all calls.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};

use super::message::Message;

/// Carries SIP to the node and back.
pub struct Transport {
    kind: Kind,
    local_address: SocketAddr,
    peer: Peer,
}

/// What the other end has shown of itself.
#[derive(Default)]
struct Peer {
    /// At least one message came.
    heard: bool,
    /// Since when it refuses what we send, or the connection is gone, and why.
    gone: Option<(Instant, io::Error)>,
    /// The connection will not come back.
    broken: bool,
}

impl Peer {
    fn heard(&mut self) {
        self.heard = true;
        self.gone = None;
    }

    fn refused(&mut self, error: io::Error) {
        self.gone.get_or_insert_with(|| (Instant::now(), error));
    }

    fn broken(&mut self, error: io::Error) {
        self.refused(error);
        self.broken = true;
    }
}

enum Kind {
    Udp {
        socket: UdpSocket,
        datagram: Vec<u8>,
    },
    Tcp {
        read: OwnedReadHalf,
        write: OwnedWriteHalf,
        /// What has arrived and is not handled.
        stream: Vec<u8>,
        /// Bytes at the front of `stream` that the last message took.
        handled: usize,
        /// What the kernel has not taken.
        unsent: Vec<u8>,
    },
}

/// Largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Output a node may leave unread before the connection counts as lost.
const UNSENT_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Transport {
    /// A UDP socket that speaks to the node only.
    pub async fn udp(node: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match node {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(node).await?;
        Ok(Self {
            local_address: socket.local_addr()?,
            kind: Kind::Udp { socket, datagram: vec![0; DATAGRAM_BYTES_MAX] },
            peer: Peer::default(),
        })
    }

    /// A TCP connection to the node.
    pub async fn tcp(node: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(node).await?;
        stream.set_nodelay(true)?;
        let local_address = stream.local_addr()?;
        let (read, write) = stream.into_split();
        Ok(Self {
            local_address,
            kind: Kind::Tcp {
                read,
                write,
                stream: Vec::with_capacity(DATAGRAM_BYTES_MAX),
                handled: 0,
                unsent: Vec::new(),
            },
            peer: Peer::default(),
        })
    }

    /// Our end.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Whether the node has ever said anything.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.peer.heard
    }

    /// Since when nothing but refusals came (UDP) or the connection is gone (TCP), and why.
    #[must_use]
    pub fn gone(&self) -> Option<&(Instant, io::Error)> {
        self.peer.gone.as_ref()
    }

    /// Sends one message, or queues what the kernel does not take yet. What cannot be sent is
    /// lost: transactions notice, and [`Transport::gone`] tells.
    pub fn send(&mut self, message: &[u8]) {
        if self.peer.broken {
            return;
        }
        let outcome = self.try_send(message);
        if let Err(error) = outcome {
            self.peer.broken(error);
        }
    }

    fn try_send(&mut self, message: &[u8]) -> io::Result<()> {
        match &mut self.kind {
            Kind::Udp { socket, .. } => match socket.try_send(message) {
                // A datagram that was not sent is one that was lost: the transaction repeats it.
                // Refused: the answer to an earlier one; the transaction times out.
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.peer.refused(error);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Kind::Tcp { write, unsent, .. } => {
                unsent.extend_from_slice(message);
                match write.try_write(unsent) {
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
        }
    }

    /// Another message that is there already: one wake brings many datagrams.
    pub fn try_receive(&mut self) -> Option<&[u8]> {
        let Kind::Udp { socket, datagram } = &mut self.kind else { return None };
        match socket.try_recv(datagram) {
            Ok(length) => Some(&datagram[..length]),
            Err(_) => None,
        }
    }

    /// The next message; may be dropped at any await without loss. Never returns once the
    /// connection is gone.
    pub async fn receive(&mut self) -> &[u8] {
        if self.peer.broken {
            return std::future::pending().await;
        }
        let peer = &mut self.peer;
        match self.kind.receive(peer).await {
            Ok(message) => {
                peer.heard();
                message
            }
            Err(error) => {
                peer.broken(error);
                std::future::pending().await
            }
        }
    }
}

impl Kind {
    async fn receive(&mut self, peer: &mut Peer) -> io::Result<&[u8]> {
        match self {
            Self::Udp { socket, datagram } => loop {
                match socket.recv(datagram).await {
                    Ok(length) => return Ok(&datagram[..length]),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        peer.refused(error);
                    }
                    Err(error) => return Err(error),
                }
            },
            Self::Tcp { read, write, stream, handled, unsent } => {
                stream.drain(..std::mem::take(handled));
                loop {
                    // Keep-alives (RFC 5626 section 3.5.1) and CRLF before a start line.
                    let blank = stream.iter().take_while(|byte| b"\r\n".contains(byte)).count();
                    stream.drain(..blank);
                    let length = Message::length_in_stream(stream)
                        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                    if let Some(length) = length {
                        *handled = length;
                        return Ok(&stream[..length]);
                    }
                    tokio::select! {
                        count = read.read_buf(stream) => {
                            if count? == 0 {
                                return Err(io::Error::new(
                                    io::ErrorKind::UnexpectedEof,
                                    "the node closed the connection",
                                ));
                            }
                        }
                        written = write.write(unsent), if !unsent.is_empty() => {
                            unsent.drain(..written?);
                        }
                    }
                }
            }
        }
    }
}
