//! When the kernel received what a socket gives, and what it had no room for: a queue is also what nobody
//! has read yet.
//!
//! The kernel stamps what arrives (SO_TIMESTAMPNS, socket(7)), a datagram by itself, of a stream the
//! last segment read. Where it does not, the time of reading counts. It also counts what it has dropped
//! (SO_RXQ_OVFL).

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, SystemTime};

use nix::sys::socket::sockopt::{ReceiveTimestampns, RxqOvfl};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, RecvMsg, SockaddrLike, SockaddrStorage, recvmsg, setsockopt,
};
use nix::sys::time::TimeSpec;
use tokio::io::Interest;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

/// Has the kernel stamp what the socket receives.
pub(super) fn stamp(socket: &impl AsFd) {
    let set = setsockopt(socket, ReceiveTimestampns, &true);
    if let Err(error) = set.and_then(|()| setsockopt(socket, RxqOvfl, &1)) {
        tracing::warn!(%error, "what waits in a socket does not count as waiting");
    }
}

/// A datagram that was read.
pub(super) struct Datagram {
    pub(super) length: usize,
    pub(super) source: SocketAddr,
    pub(super) received: Instant,
    /// How many were dropped for want of room since the one read before it was received.
    pub(super) dropped: u32,
}

/// Reads sockets that [`stamp`] was called for.
pub(super) struct Receiver {
    /// Room for the stamp and the count.
    control: Vec<u8>,
    /// Datagrams dropped so far; the kernel's count, which wraps.
    dropped: u32,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self { control: nix::cmsg_space!(TimeSpec, u32), dropped: 0 }
    }

    /// The next datagram.
    pub(super) async fn datagram(
        &mut self,
        socket: &UdpSocket,
        buffer: &mut [u8],
    ) -> io::Result<Datagram> {
        let read = || {
            let mut buffers = [IoSliceMut::new(buffer)];
            let control = Some(&mut self.control[..]);
            let flags = MsgFlags::empty();
            let message =
                recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffers, control, flags)?;
            let source = message.address.as_ref().and_then(socket_address);
            let source = source.ok_or(io::ErrorKind::InvalidData)?;
            let (received, total) = told(&message);
            // Nothing is told until something is dropped.
            let total = total.unwrap_or(self.dropped);
            let dropped = total.wrapping_sub(self.dropped);
            self.dropped = total;
            Ok(Datagram { length: message.bytes, source, received, dropped })
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
            Ok((message.bytes, told(&message).0))
        };
        stream.async_io(Interest::READABLE, read).await
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from(*address));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from(*address)))
}

/// When the message was received, and how many were dropped before it.
///
/// The stamp is of the wall clock. Should that be set meanwhile, what was received before is off by as
/// much and what comes after is right.
fn told<S: SockaddrLike>(message: &RecvMsg<'_, '_, S>) -> (Instant, Option<u32>) {
    let (mut waited, mut dropped) = (None, None);
    for message in message.cmsgs().into_iter().flatten() {
        match message {
            ControlMessageOwned::ScmTimestampns(stamp) => {
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
                waited = wall.and_then(|wall| wall.checked_sub(Duration::from(stamp)));
            }
            ControlMessageOwned::RxqOvfl(total) => dropped = Some(total),
            _ => {}
        }
    }
    let now = Instant::now();
    (waited.and_then(|waited| now.checked_sub(waited)).unwrap_or(now), dropped)
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
            let datagram = receiver.datagram(&ours, &mut buffer).await.unwrap();
            assert_eq!(&buffer[..datagram.length], b"datagram");
            assert_eq!(datagram.source, theirs.local_addr().unwrap());
            assert_eq!(datagram.dropped, 0);
            let datagram = datagram.received;
            let (length, bytes) = receiver.bytes(&accepted, &mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"bytes");
            let came = |received: Instant| received.duration_since(sent) < LEFT_UNREAD / 2;
            if came(datagram) && came(bytes) {
                break;
            }
            assert!(attempt < ATTEMPTS_MAX, "{:?} {:?}", datagram - sent, bytes - sent);
        }
    }

    #[tokio::test]
    async fn what_found_no_room_in_the_socket_is_counted() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (ours, theirs) =
            (UdpSocket::bind(any).await.unwrap(), UdpSocket::bind(any).await.unwrap());
        stamp(&ours);
        socket2::SockRef::from(&ours).set_recv_buffer_size(4096).unwrap();
        let (mut receiver, mut buffer) = (Receiver::new(), [0; 2048]);
        let (mut read, mut dropped) = (0, 0);
        for _ in 0..2 {
            for _ in 0..SENT {
                theirs.send_to(&[0; 1024], ours.local_addr().unwrap()).await.unwrap();
            }
            // What is told comes with the first that found room again.
            while let Ok(datagram) =
                tokio::time::timeout(LEFT_UNREAD, receiver.datagram(&ours, &mut buffer)).await
            {
                read += 1;
                dropped += datagram.unwrap().dropped;
            }
        }
        assert!(dropped > 0 && read + dropped <= 2 * SENT, "{dropped} of {} and {read}", 2 * SENT);
    }

    const SENT: u32 = 64;
}
