//! The sockets: one UDP socket, one TCP listener. What they receive goes through the gate
//! ([`Front::receive`]) and into the stack; what the stack sends comes back here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use rsipstack::sip;
use rsipstack::transport::channel::ChannelConnection;
use rsipstack::transport::udp::UdpConnection;
use rsipstack::transport::{SipAddr, SipConnection, TransportEvent};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::SipConfig;
use super::framer::{Frame, Framer};
use super::gate::Transport;
use super::received::{Datagram, Receiver, stamp};
use super::station::Front;
use super::way::Arrival;

/// The largest datagram there is.
const DATAGRAM_SIZE_MAX: usize = 64 * 1024;

/// Messages the stack may queue for one TCP connection whose peer does not read.
const CONNECTION_QUEUE_MAX: usize = 256;

/// A peer that is reachable over TCP answers in less; then UDP is tried, where that may be.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// One read from a TCP connection.
const READ_SIZE: usize = 16 * 1024;

/// After a failed accept (no descriptors left) the listener rests, or it would spin.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Both sockets of a station, bound.
pub(crate) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
    pub(crate) udp_address: SocketAddr,
    pub(crate) tcp_address: SocketAddr,
}

impl Sockets {
    pub(crate) async fn bind(config: &SipConfig) -> io::Result<Self> {
        let udp = bind_udp(config.udp, config.udp_receive_buffer_bytes)?;
        let tcp = TcpListener::bind(config.tcp).await?;
        let (udp_address, tcp_address) = (udp.local_addr()?, tcp.local_addr()?);
        Ok(Self { udp, tcp, udp_address, tcp_address })
    }

    /// Serves them, and the timers of the transactions.
    pub(crate) fn serve<F: Front>(self, front: &Arc<F>) {
        front.spawn(serve_udp(Arc::clone(front), Arc::new(self.udp)));
        front.spawn(serve_tcp(Arc::clone(front), self.tcp));
        let timed = Arc::clone(front);
        front.spawn(async move { timed.run_timers().await });
    }
}

fn bind_udp(address: SocketAddr, receive_buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel caps it at net.core.rmem_max without an error; the operator reads it below.
    socket.set_recv_buffer_size(receive_buffer_bytes)?;
    // Linux reports twice what it gives.
    let given = socket.recv_buffer_size()? / 2;
    if given < receive_buffer_bytes {
        tracing::warn!(given, wanted = receive_buffer_bytes, "net.core.rmem_max is too small");
    }
    stamp(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

async fn serve_udp<F: Front>(front: Arc<F>, socket: Arc<UdpSocket>) {
    let connection = match UdpConnection::from_socket(socket.clone(), None, None).await {
        Ok(connection) => SipConnection::Udp(connection),
        Err(error) => {
            tracing::error!(%error, "the SIP stack does not take the UDP socket");
            return;
        }
    };
    let _ = front.udp.set(connection.clone());
    let _ = front.socket.set(Arc::clone(&socket));
    let mut buffer = vec![0; DATAGRAM_SIZE_MAX];
    let mut receiver = Receiver::new();
    loop {
        let Datagram { length, source, received, dropped } =
            match receiver.datagram(&socket, &mut buffer).await {
                Ok(datagram) => datagram,
                // An ICMP error of an earlier send; the socket is fine.
                Err(error) => {
                    tracing::debug!(%error, "UDP receive");
                    continue;
                }
            };
        if dropped > 0 {
            front.overflowed(received, dropped);
        }
        let arrival = Arrival {
            bytes: &buffer[..length],
            transport: Transport::Udp,
            source,
            received,
            connection: &connection,
            stream: None,
        };
        if let Some(reply) = front.receive(arrival).await {
            // To the source, whatever host the Via names: a forged one must not aim us at others.
            if let Err(error) = socket.send_to(&reply.bytes, reply.to).await {
                tracing::debug!(%error, "UDP send");
            }
        }
    }
}

async fn serve_tcp<F: Front>(front: Arc<F>, listener: TcpListener) {
    loop {
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "TCP accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connections_max = i64::try_from(front.config.connections_max).unwrap_or(i64::MAX);
        if front.metrics.connections_active.get() >= connections_max {
            front.metrics.connections_refused.increment();
            continue;
        }
        front.metrics.connections_active.add(1);
        let served = serve_connection(Arc::clone(&front), stream, source);
        front.spawn(served);
    }
}

/// Takes the connection off the gauge however its task ends.
struct Counted<F: Front>(Arc<F>);

impl<F: Front> Drop for Counted<F> {
    fn drop(&mut self) {
        self.0.metrics.connections_active.add(-1);
    }
}

async fn serve_connection<F: Front>(front: Arc<F>, stream: TcpStream, source: SocketAddr) {
    let counted = Counted(Arc::clone(&front));
    if let Some((_, reading)) = open(&front, stream, source).await {
        reading.await;
    }
    drop(counted);
}

/// Opens a connection of ours and serves it; `None` where that fails, takes too long, or there
/// are too many connections.
pub(super) async fn connect<F: Front>(
    front: &Arc<F>,
    address: SocketAddr,
) -> Option<SipConnection> {
    let connections_max = i64::try_from(front.config.connections_max).unwrap_or(i64::MAX);
    if front.metrics.connections_active.get() >= connections_max {
        front.metrics.connections_refused.increment();
        return None;
    }
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.ok()?.ok()?;
    front.metrics.connections_active.add(1);
    let counted = Counted(Arc::clone(front));
    let (connection, reading) = open(front, stream, address).await?;
    front.spawn(async move {
        reading.await;
        drop(counted);
    });
    Some(connection)
}

/// Makes a connection of a stream; it lives as long as the future that reads it. Boxed, as what is
/// read may make us connect.
async fn open<F: Front>(
    front: &Arc<F>,
    stream: TcpStream,
    source: SocketAddr,
) -> Option<(SipConnection, Pin<Box<dyn Future<Output = ()> + Send>>)> {
    // Without it a 200 waits for the ACK of the 100.
    let _ = stream.set_nodelay(true);
    stamp(&stream);
    let (reader, writer) = stream.into_split();
    let writer = Arc::new(Mutex::new(writer));
    let (outgoing, queued) = mpsc::channel(CONNECTION_QUEUE_MAX);
    // The stack's side of the connection: it never reads there, we call it with each message.
    let (_, incoming) = mpsc::unbounded_channel();
    let address = SipAddr::new(sip::Transport::Tcp, source.into());
    let closed = front.cancel.child_token();
    let channel = ChannelConnection::create_connection_bounded(
        incoming,
        outgoing,
        address,
        Some(closed.clone()),
    );
    let connection = SipConnection::Channel(channel.await.ok()?);
    let write_timeout = front.config.tcp_message_timeout;
    let (responses, answered) = mpsc::channel(CONNECTION_QUEUE_MAX);
    let queues = Queues { queued, answered };
    let written = write_queued(queues, Arc::clone(&writer), closed.clone(), write_timeout);
    front.spawn(written);
    let reads = Connection { front: Arc::clone(front), reader, writer, responses, source, closed };
    Some((connection.clone(), reads.read_until_closed(connection)))
}

/// What is to be written to a connection.
struct Queues {
    /// From the stack.
    queued: mpsc::Receiver<TransportEvent>,
    /// Responses past the stack.
    answered: mpsc::Receiver<Vec<u8>>,
}

/// Writes what is queued; a peer that does not read loses the connection.
async fn write_queued(
    mut queues: Queues,
    writer: Arc<Mutex<OwnedWriteHalf>>,
    closed: CancellationToken,
    write_timeout: std::time::Duration,
) {
    loop {
        let bytes = tokio::select! {
            () = closed.cancelled() => return,
            Some(response) = queues.answered.recv() => response,
            event = queues.queued.recv() => match event {
                Some(TransportEvent::Incoming(message, _, _)) => message.to_bytes(),
                Some(TransportEvent::New(_) | TransportEvent::Closed(_)) | None => return,
            },
        };
        let write = async { writer.lock().await.write_all(&bytes).await };
        if !matches!(timeout(write_timeout, write).await, Ok(Ok(()))) {
            closed.cancel();
            return;
        }
    }
}

struct Connection<F> {
    front: Arc<F>,
    reader: OwnedReadHalf,
    writer: Arc<Mutex<OwnedWriteHalf>>,
    responses: mpsc::Sender<Vec<u8>>,
    source: SocketAddr,
    closed: CancellationToken,
}

impl<F: Front> Connection<F> {
    fn read_until_closed(
        mut self,
        connection: SipConnection,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            self.read(connection).await;
            self.closed.cancel();
            self.front.metrics.connections_closed.increment();
        })
    }

    /// Reads until the peer closes, the framing is lost, or a time limit passes.
    async fn read(&mut self, connection: SipConnection) {
        let mut framer = Framer::default();
        let mut buffer = vec![0; READ_SIZE];
        let mut receiver = Receiver::new();
        let front = Arc::clone(&self.front);
        let config = &front.config;
        // Until it has said something, a connection is one of those that fill the limit.
        let mut deadline = Instant::now() + config.tcp_message_timeout;
        loop {
            let idle = framer.is_idle();
            let read = receiver.bytes(self.reader.as_ref(), &mut buffer);
            let read = tokio::select! {
                () = self.closed.cancelled() => return,
                read = tokio::time::timeout_at(deadline, read) => read,
            };
            let Ok(Ok((length @ 1.., received))) = read else { return };
            framer.push(&buffer[..length]);
            match self.drain(&mut framer, received, &connection).await {
                // The limit runs from a message's first byte, or a byte a second would do.
                Drained::Open { progress } => {
                    let now = Instant::now();
                    if framer.is_idle() {
                        deadline = now + config.tcp_idle_timeout;
                    } else if idle || progress {
                        deadline = now + config.tcp_message_timeout;
                    }
                }
                Drained::Close => return,
            }
        }
    }

    async fn drain(
        &self,
        framer: &mut Framer,
        received: Instant,
        connection: &SipConnection,
    ) -> Drained {
        let mut progress = false;
        loop {
            let (reply, lost) = match framer.poll() {
                Frame::Incomplete => return Drained::Open { progress },
                Frame::Ping => (Some(b"\r\n".to_vec()), false),
                Frame::Message { length } => {
                    let reply = self.judge(framer.peek(length), received, connection).await;
                    framer.take(length);
                    (reply, false)
                }
                Frame::Lost { length } => {
                    (self.judge(framer.peek(length), received, connection).await, true)
                }
            };
            progress = true;
            if let Some(reply) = reply {
                let write = async { self.writer.lock().await.write_all(&reply).await };
                let written = timeout(self.front.config.tcp_message_timeout, write).await;
                if !matches!(written, Ok(Ok(()))) {
                    return Drained::Close;
                }
            }
            if lost {
                return Drained::Close;
            }
        }
    }

    async fn judge(
        &self,
        message: &[u8],
        received: Instant,
        connection: &SipConnection,
    ) -> Option<Vec<u8>> {
        let arrival = Arrival {
            bytes: message,
            transport: Transport::Tcp,
            source: self.source,
            received,
            connection,
            stream: Some(&self.responses),
        };
        self.front.receive(arrival).await.map(|reply| reply.bytes)
    }
}

enum Drained {
    /// Go on reading.
    Open {
        /// At least one frame was complete.
        progress: bool,
    },
    Close,
}
