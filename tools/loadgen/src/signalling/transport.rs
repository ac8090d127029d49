//! One socket for all calls.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};

use super::message::Message;

/// Carries SIP to the node and back.
pub struct Transport {
    kind: Kind,
    local_address: SocketAddr,
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
        })
    }

    /// Our end.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Sends one message, or queues what the kernel does not take yet.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match &mut self.kind {
            Kind::Udp { socket, .. } => match socket.try_send(message) {
                // A datagram that was not sent is one that was lost: the transaction repeats it.
                // Refused: the answer to an earlier one; the transaction times out.
                Ok(_) => Ok(()),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
                    ) =>
                {
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

    /// The next message; may be dropped at any await without loss.
    pub async fn receive(&mut self) -> io::Result<&[u8]> {
        match &mut self.kind {
            Kind::Udp { socket, datagram } => loop {
                match socket.recv(datagram).await {
                    Ok(length) => return Ok(&datagram[..length]),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error),
                }
            },
            Kind::Tcp { read, write, stream, handled, unsent } => {
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
                                return Err(io::ErrorKind::UnexpectedEof.into());
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
