//! Datagram sockets: how they are made, and what they receive.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use io_uring::types::RecvMsgOut;
use socket2::{Domain, Protocol, SockFilter, Type};

use super::Ring;
use super::sockets::internet_address;
use crate::driver::{Completion, Driver, Errno, RecvBuffer, Socket};
use crate::token::Token;

/// A bound UDP socket, and its address. It is deaf: what came before its peer is known would be
/// from anybody, and would lie in its queue when that is known.
pub(super) fn bind(address: SocketAddr) -> io::Result<(socket2::Socket, SocketAddr)> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.attach_filter(&[SockFilter::new(TAKE_NOTHING, 0, 0, 0)])?;
    socket.bind(&address.into())?;
    let bound = internet_address(&socket.local_addr()?)?;
    Ok((socket, bound))
}

/// The kernel takes datagrams of this peer from now on, and no others.
pub(super) fn connect(socket: &socket2::Socket, remote: SocketAddr) -> io::Result<()> {
    socket.connect(&remote.into())?;
    socket.detach_filter()
}

/// The instruction of a socket filter that returns: so many bytes of each datagram, here 0.
const TAKE_NOTHING: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// What a receive of datagrams has brought.
pub(super) struct Received {
    pub(super) result: Result<u32, Errno>,
    /// The buffer the kernel took for it.
    pub(super) buffer: Option<u16>,
    /// Whether the operation stays armed.
    pub(super) more: bool,
    /// Whether somebody wants it to end.
    pub(super) cancelled: bool,
    /// Whether its source lies before it.
    pub(super) from_anybody: bool,
}

/// The form of a datagram that lies behind its source.
pub(super) struct DatagramHeader(libc::msghdr);

/// A datagram in that form.
pub(super) struct Arrived {
    pub(super) source: Option<SocketAddr>,
    pub(super) is_cut: bool,
    length: usize,
}

/// Bytes before a datagram: the kernel's own header, and an address of either family.
const BYTES_BEFORE: usize = 16 + ADDRESS_BYTES;
const ADDRESS_BYTES: usize = size_of::<libc::sockaddr_in6>();

impl Default for DatagramHeader {
    fn default() -> Self {
        // SAFETY: integers and pointers that may be null.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = ADDRESS_BYTES as libc::socklen_t;
        Self(header)
    }
}

impl DatagramHeader {
    pub(super) fn as_ptr(&self) -> *const libc::msghdr {
        &raw const self.0
    }

    /// Reads what the kernel has brought. `None`: no datagram.
    pub(super) fn parse(&self, bytes: &[u8]) -> Option<Arrived> {
        let out = RecvMsgOut::parse(bytes, &self.0).ok()?;
        let length = out.payload_data().len();
        debug_assert_eq!(bytes.len() - length, BYTES_BEFORE);
        let is_cut = out.is_payload_truncated();
        Some(Arrived { source: source_of(out.name_data()), is_cut, length })
    }
}

/// The address in a `sockaddr_in` or `sockaddr_in6`.
fn source_of(name: &[u8]) -> Option<SocketAddr> {
    let (&family, rest) = name.split_first_chunk::<2>()?;
    let (&port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(port);
    match libc::c_int::from(u16::from_ne_bytes(family)) {
        libc::AF_INET => {
            let address = rest.first_chunk::<4>()?;
            Some(SocketAddr::from((Ipv4Addr::from(*address), port)))
        }
        libc::AF_INET6 => {
            let (&flow, rest) = rest.split_first_chunk::<4>()?;
            let (&address, rest) = rest.split_first_chunk::<16>()?;
            let scope = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
            let address = Ipv6Addr::from(address);
            let flow = u32::from_be_bytes(flow);
            Some(SocketAddrV6::new(address, port, flow, scope).into())
        }
        _ => None,
    }
}

impl Ring {
    /// A datagram, or what ends the receive of datagrams. What is not to end it begins it again.
    pub(super) fn on_datagram(
        &mut self,
        socket: Socket,
        token: Token,
        received: &Received,
    ) -> Option<Completion> {
        let Received { result, buffer, more, cancelled, from_anybody } = *received;
        let length_max = self.recv_buffers.size_bytes();
        match (result, buffer) {
            (Ok(length), Some(id)) if from_anybody && length <= length_max => {
                self.recv_buffers.lend(id, length);
                let arrived = self.datagram_header.parse(self.recv_buffers.bytes(id, length));
                if arrived.is_some_and(|it| it.length > 0 && !it.is_cut && it.source.is_some()) {
                    let start = BYTES_BEFORE as u16;
                    let buffer = RecvBuffer { id, is_large: false, start, length };
                    return Some(Completion::Recv { token, result: Ok(Some(buffer)), more });
                }
                self.recv_buffers.release(id);
            }
            (Ok(length), Some(id)) if (1..=length_max).contains(&length) => {
                self.recv_buffers.lend(id, length);
                let buffer = RecvBuffer { id, is_large: false, start: 0, length };
                return Some(Completion::Recv { token, result: Ok(Some(buffer)), more });
            }
            (_, Some(id)) => self.recv_buffers.provide(id),
            (_, None) => {}
        }
        if more {
            return None;
        }
        let ended = |errno| Some(Completion::Recv { token, result: Err(errno), more: false });
        match result {
            Err(Errno::NO_BUFFERS) => ended(Errno::NO_BUFFERS),
            _ if cancelled => ended(Errno::CANCELED),
            // Empty, too long, or an ICMP error.
            Ok(_) | Err(_) => {
                self.recv(socket, token);
                None
            }
        }
    }
}
