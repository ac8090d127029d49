//! When the kernel received what a socket gives: a queue is also what nobody has read yet.
//!
//! The kernel stamps what arrives (SO_TIMESTAMPNS, socket(7)), a datagram by itself, of a stream the
//! last segment read. Where it does not, the time of reading counts.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, SystemTime};

use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, RecvMsg, SockaddrLike, SockaddrStorage, recvmsg, setsockopt,
};
use nix::sys::time::TimeSpec;
use tokio::io::Interest;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

/// Has the kernel stamp what the socket receives.
pub(super) fn stamp(socket: &impl AsFd) {
    if let Err(error) = setsockopt(socket, ReceiveTimestampns, &true) {
        tracing::warn!(%error, "what waits in a socket does not count as waiting: no time stamps");
    }
}

/// Reads sockets that [`stamp`] was called for.
pub(super) struct Receiver {
    /// Room for the stamp.
    control: Vec<u8>,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self { control: nix::cmsg_space!(TimeSpec) }
    }

    /// The next datagram: its length, where it comes from, and when it was received.
    pub(super) async fn datagram(
        &mut self,
        socket: &UdpSocket,
        buffer: &mut [u8],
    ) -> io::Result<(usize, SocketAddr, Instant)> {
        let read = || {
            let mut buffers = [IoSliceMut::new(buffer)];
            let control = Some(&mut self.control[..]);
            let flags = MsgFlags::empty();
            let message =
                recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffers, control, flags)?;
            let source = message.address.as_ref().and_then(socket_address);
            let source = source.ok_or(io::ErrorKind::InvalidData)?;
            Ok((message.bytes, source, received(&message)))
        };
        socket.async_io(Interest::READABLE, read).await
    }

    /// What a stream has, at least one byte unless it has ended, and when the last of it was received.
    pub(super) async fn bytes(
        &mut self,
        stream: &TcpStream,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Instant)> {
        let read = || {
            let mut buffers = [IoSliceMut::new(buffer)];
            let control = Some(&mut self.control[..]);
            let flags = MsgFlags::empty();
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut buffers, control, flags)?;
            Ok((message.bytes, received(&message)))
        };
        stream.async_io(Interest::READABLE, read).await
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from(*address));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from(*address)))
}

/// The stamp is of the wall clock. Should that be set meanwhile, what was received before is off by as
/// much and what comes after is right.
fn received<S: SockaddrLike>(message: &RecvMsg<'_, '_, S>) -> Instant {
    let now = Instant::now();
    let stamp = message.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
            _ => None,
        })
    });
    let waited = stamp.and_then(|stamp| {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        wall.checked_sub(stamp)
    });
    waited.and_then(|waited| now.checked_sub(waited)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Long enough that a stamp cannot be mistaken for the time of reading.
    const LEFT_UNREAD: Duration = Duration::from_millis(100);
    const ATTEMPTS_MAX: usize = 100;

    #[tokio::test]
    async fn what_waits_in_a_socket_was_received_when_it_came() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (ours, theirs) =
            (UdpSocket::bind(any).await.unwrap(), UdpSocket::bind(any).await.unwrap());
        let listener = TcpListener::bind(any).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut stream, accepted) = (stream.unwrap(), accepted.unwrap().0);
        stamp(&ours);
        stamp(&accepted);
        let (mut receiver, mut buffer) = (Receiver::new(), [0; 64]);
        // The kernel begins to stamp for the first who asks, and not in that moment.
        for attempt in 0.. {
            let sent = Instant::now();
            theirs.send_to(b"datagram", ours.local_addr().unwrap()).await.unwrap();
            stream.write_all(b"bytes").await.unwrap();
            std::thread::sleep(LEFT_UNREAD);
            let (length, source, datagram) = receiver.datagram(&ours, &mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"datagram");
            assert_eq!(source, theirs.local_addr().unwrap());
            let (length, bytes) = receiver.bytes(&accepted, &mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"bytes");
            let came = |received: Instant| received.duration_since(sent) < LEFT_UNREAD / 2;
            if came(datagram) && came(bytes) {
                break;
            }
            assert!(attempt < ATTEMPTS_MAX, "{:?} {:?}", datagram - sent, bytes - sent);
        }
    }
}
