//! The simulated network behind functions that callgrind can tell from the shard: called from what is
//! counted, each turns counting off while it runs, by
//! `--toggle-collect=<instructions::boundary::Boundary as *`. From elsewhere it would turn it on, so the
//! rest of this program calls the simulator itself.

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, SocketAddr};

use mrfp_io::{
    Completion, Driver, Errno, Listen, RecvBuffer, SendBuffer, Simulator, Socket, Spliced, Token,
};

pub(crate) struct Boundary(pub(crate) Simulator);

/// `black_box` keeps every call a call: a jump would leave no return to be seen.
impl Driver for Boundary {
    #[inline(never)]
    fn now_ns(&self) -> u64 {
        black_box(self.0.now_ns())
    }

    #[inline(never)]
    fn listen(
        &mut self,
        address: SocketAddr,
        listen: Listen,
        token: Token,
    ) -> io::Result<(Socket, SocketAddr)> {
        black_box(self.0.listen(address, listen, token))
    }

    #[inline(never)]
    fn accept(&mut self, listener: Socket, token: Token) {
        self.0.accept(listener, token);
        black_box(());
    }

    #[inline(never)]
    fn bind_datagram(&mut self, address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        black_box(self.0.bind_datagram(address))
    }

    #[inline(never)]
    fn connect_datagram(&mut self, socket: Socket, remote: SocketAddr) -> io::Result<()> {
        black_box(self.0.connect_datagram(socket, remote))
    }

    #[inline(never)]
    fn open_datagram(&mut self, socket: Socket) -> io::Result<()> {
        black_box(self.0.open_datagram(socket))
    }

    #[inline(never)]
    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        black_box(self.0.connect(address, token))
    }

    #[inline(never)]
    fn connect_from(
        &mut self,
        source: IpAddr,
        address: SocketAddr,
        token: Token,
    ) -> io::Result<Socket> {
        black_box(self.0.connect_from(source, address, token))
    }

    #[inline(never)]
    fn recv(&mut self, socket: Socket, token: Token) {
        self.0.recv(socket, token);
        black_box(());
    }

    #[inline(never)]
    fn await_readable(&mut self, socket: Socket, token: Token) {
        self.0.await_readable(socket, token);
        black_box(());
    }

    #[inline(never)]
    fn splice(&mut self, from: Socket, to: Socket) -> Result<Option<Spliced<'_>>, Errno> {
        black_box(self.0.splice(from, to))
    }

    #[inline(never)]
    fn cancel(&mut self, token: Token) {
        self.0.cancel(token);
        black_box(());
    }

    #[inline(never)]
    fn send(&mut self, socket: Socket, buffer: SendBuffer, token: Token) {
        self.0.send(socket, buffer, token);
        black_box(());
    }

    #[inline(never)]
    fn shutdown(&mut self, socket: Socket) {
        self.0.shutdown(socket);
        black_box(());
    }

    #[inline(never)]
    fn reset(&mut self, socket: Socket) {
        self.0.reset(socket);
        black_box(());
    }

    #[inline(never)]
    fn shutdown_write(&mut self, socket: Socket) {
        self.0.shutdown_write(socket);
        black_box(());
    }

    #[inline(never)]
    fn close(&mut self, socket: Socket, token: Token) {
        self.0.close(socket, token);
        black_box(());
    }

    #[inline(never)]
    fn next_completion(&mut self) -> Option<Completion> {
        black_box(self.0.next_completion())
    }

    #[inline(never)]
    fn recv_bytes(&mut self, buffer: &RecvBuffer) -> &mut [u8] {
        black_box(self.0.recv_bytes(buffer))
    }

    #[inline(never)]
    fn recv_source(&mut self, buffer: &RecvBuffer) -> Option<SocketAddr> {
        black_box(self.0.recv_source(buffer))
    }

    #[inline(never)]
    fn recv_release(&mut self, buffer: RecvBuffer) {
        self.0.recv_release(buffer);
        black_box(());
    }

    #[inline(never)]
    fn recv_buffers_free(&self) -> (usize, usize) {
        black_box(self.0.recv_buffers_free())
    }

    #[inline(never)]
    fn wait(&mut self, deadline_ns: Option<u64>) -> io::Result<()> {
        black_box(self.0.wait(deadline_ns))
    }
}
