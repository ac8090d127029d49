//! SIP at one side of a border: a UDP socket, and a TCP listener on the same port for what does not fit into
//! a datagram (RFC 3261 section 18.1.1). What we begin ourselves leaves by UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};

use crate::signalling::message::Message;

/// The sockets of one side.
pub(super) struct Endpoint {
    udp: Arc<UdpSocket>,
    address: SocketAddr,
    arrivals: mpsc::Receiver<(Vec<u8>, Reply)>,
}

/// The way back of a message.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// To where it came from.
    Datagram(SocketAddr),
    /// On its connection.
    Stream(mpsc::UnboundedSender<Vec<u8>>),
}

/// Messages that are here and not handled; beyond it UDP loses some, which transactions make up for.
const ARRIVALS_MAX: usize = 4096;
/// Largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// A border has one or two.
const CONNECTIONS_MAX: usize = 64;
/// Free ports that are tried until one is free for TCP as well.
const PORTS_TRIED_MAX: u32 = 16;

impl Endpoint {
    /// On one port for both transports; port 0 picks one.
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let mut tried = 0;
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind(address).await?;
            match TcpListener::bind(udp.local_addr()?).await {
                Ok(tcp) => break (Arc::new(udp), tcp),
                Err(error) if address.port() != 0 || tried == PORTS_TRIED_MAX => return Err(error),
                Err(_) => tried += 1,
            }
        };
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let address = udp.local_addr()?;
        tokio::spawn(receive_datagrams(Arc::clone(&udp), sender.clone()));
        tokio::spawn(accept(tcp, sender));
        Ok(Self { udp, address, arrivals })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request of ours. What cannot be sent is lost: transactions notice.
    pub(super) fn send(&self, message: &[u8], to: SocketAddr) {
        let _ = self.udp.try_send_to(message, to);
    }

    /// Answers.
    pub(super) fn reply(&self, message: Vec<u8>, reply: &Reply) {
        match reply {
            Reply::Datagram(to) => self.send(&message, *to),
            // Whoever has closed does not want it.
            Reply::Stream(writer) => drop(writer.send(message)),
        }
    }

    /// Another message that is there already.
    pub(super) fn try_receive(&mut self) -> Option<(Vec<u8>, Reply)> {
        self.arrivals.try_recv().ok()
    }

    /// The next message; may be dropped at any await without loss.
    pub(super) async fn receive(&mut self) -> Option<(Vec<u8>, Reply)> {
        self.arrivals.recv().await
    }
}

async fn receive_datagrams(socket: Arc<UdpSocket>, arrivals: mpsc::Sender<(Vec<u8>, Reply)>) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    while !arrivals.is_closed() {
        tokio::select! {
            () = arrivals.closed() => return,
            received = socket.recv_from(&mut datagram) => match received {
                Ok((length, from)) => {
                    let message = (datagram[..length].to_vec(), Reply::Datagram(from));
                    // One that does not fit is lost, as it would be in the kernel.
                    let _ = arrivals.try_send(message);
                }
                // An ICMP answer to something sent earlier: the transaction's affair.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            },
        }
    }
}

async fn accept(listener: TcpListener, arrivals: mpsc::Sender<(Vec<u8>, Reply)>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = arrivals.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, Arc::clone(&places).try_acquire_owned())
        else {
            continue;
        };
        let arrivals = arrivals.clone();
        tokio::spawn(async move {
            // However it ends, the other side begins another one.
            let _ = converse(stream, arrivals).await;
            drop(place);
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    arrivals: mpsc::Sender<(Vec<u8>, Reply)>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (writer, mut replies) = mpsc::unbounded_channel::<Vec<u8>>();
    let mut input = Vec::new();
    loop {
        tokio::select! {
            () = arrivals.closed() => return Ok(()),
            Some(reply) = replies.recv() => stream.write_all(&reply).await?,
            count = stream.read_buf(&mut input) => if count? == 0 { return Ok(()) },
        }
        loop {
            let blank = input.iter().take_while(|byte| b"\r\n".contains(byte)).count();
            input.drain(..blank);
            let length = Message::length_in_stream(&input)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            let Some(length) = length else { break };
            let message = input.drain(..length).collect();
            if arrivals.send((message, Reply::Stream(writer.clone()))).await.is_err() {
                return Ok(());
            }
        }
    }
}
