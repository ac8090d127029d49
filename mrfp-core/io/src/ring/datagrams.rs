//! Datagram sockets: how they are made, and what they receive.

use std::io;
use std::net::SocketAddr;

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
}

impl Ring {
    /// A datagram, or what ends the receive of datagrams. What is not to end it begins it again.
    pub(super) fn on_datagram(
        &mut self,
        socket: Socket,
        token: Token,
        received: &Received,
    ) -> Option<Completion> {
        let Received { result, buffer, more, cancelled } = *received;
        let length_max = self.recv_buffers.size_bytes();
        match (result, buffer) {
            (Ok(length), Some(id)) if (1..=length_max).contains(&length) => {
                self.recv_buffers.lend(id, length);
                let buffer = RecvBuffer { id, is_large: false, length };
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
