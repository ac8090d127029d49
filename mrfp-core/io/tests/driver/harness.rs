//! A small user of a driver for the tests: notes what happens, sends when told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mrfp_io::{
    Completion, Driver, Errno, Key, Listen, Operation, SendBuffer, SendBufferClass, SendBuffers,
    SendBuffersConfig, Socket, Token,
};

/// Long enough that only a lost event reaches it.
const PATIENCE_NS: u64 = 20_000_000_000;

/// The same for a driver whose time stands still.
const TURNS_MAX: usize = 1_000_000;

pub(crate) fn key(index: u32) -> Key {
    Key { index, generation: 7 }
}

pub(crate) fn token(operation: Operation, index: u32) -> Token {
    Token::new(operation, key(index))
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) const LISTEN: Listen = Listen { backlog: 1024, reuse_port: false };

/// What the harness has noted about one connection.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    pub(crate) received: Vec<u8>,
    /// How much of it each completion has brought.
    pub(crate) runs: Vec<usize>,
    /// Where each came from, as far as that is told.
    pub(crate) sources: Vec<Option<SocketAddr>>,
    pub(crate) eof: bool,
    pub(crate) recv_error: Option<Errno>,
    pub(crate) recv_armed: bool,
    pub(crate) readable: Vec<Result<(), Errno>>,
    pub(crate) sends: Vec<Result<usize, Errno>>,
    pub(crate) sends_in_flight: usize,
    pub(crate) connected: Option<Result<(), Errno>>,
    pub(crate) closed: bool,
    pub(crate) out_of_buffers: usize,
}

impl Seen {
    /// What was received, by completion.
    pub(crate) fn datagrams(&self) -> Vec<&[u8]> {
        let mut rest = &self.received[..];
        let mut next = |length: &usize| {
            let (datagram, behind) = rest.split_at(*length);
            rest = behind;
            datagram
        };
        self.runs.iter().map(&mut next).collect()
    }
}

pub(crate) struct Harness<D> {
    pub(crate) driver: D,
    pub(crate) buffers: SendBuffers,
    pub(crate) seen: BTreeMap<u32, Seen>,
    pub(crate) sockets: BTreeMap<u32, Socket>,
    pub(crate) peers: BTreeMap<u32, SocketAddr>,
    pub(crate) doorbells: usize,
    pub(crate) accepts_ended: usize,
    next_index: u32,
    /// Arm a recv on every accepted connection.
    pub(crate) recv_on_accept: bool,
    /// Send again what a short count has left.
    pub(crate) resend: bool,
}

impl<D: Driver> Harness<D> {
    pub(crate) fn new(driver: D) -> Self {
        Self {
            driver,
            buffers: SendBuffers::new(SendBuffersConfig {
                small_size_bytes: 1024,
                small_count_max: 4096,
                large_size_bytes: 4 << 20,
                large_count_max: 64,
            }),
            seen: BTreeMap::new(),
            sockets: BTreeMap::new(),
            peers: BTreeMap::new(),
            doorbells: 0,
            accepts_ended: 0,
            next_index: 1,
            recv_on_accept: true,
            resend: false,
        }
    }

    /// Listens as index 0.
    pub(crate) fn listen(&mut self) -> SocketAddr {
        let token = token(Operation::Accept, 0);
        let (socket, address) = self.driver.listen(loopback(), LISTEN, token).unwrap();
        self.sockets.insert(0, socket);
        address
    }

    pub(crate) fn connect(&mut self, address: SocketAddr) -> u32 {
        let index = self.next_index;
        self.next_index += 1;
        let token = token(Operation::Connect, index);
        let socket = self.driver.connect(address, token).unwrap();
        self.sockets.insert(index, socket);
        self.seen.insert(index, Seen::default());
        index
    }

    /// A datagram socket and its address.
    pub(crate) fn bind(&mut self) -> (u32, SocketAddr) {
        let index = self.next_index;
        self.next_index += 1;
        let (socket, address) = self.driver.bind_datagram(loopback()).unwrap();
        self.sockets.insert(index, socket);
        self.seen.insert(index, Seen::default());
        (index, address)
    }

    pub(crate) fn arm_recv(&mut self, index: u32) {
        self.driver.recv(self.sockets[&index], token(Operation::Recv, index));
        self.seen.get_mut(&index).unwrap().recv_armed = true;
    }

    pub(crate) fn await_readable(&mut self, index: u32) {
        self.driver.await_readable(self.sockets[&index], token(Operation::Recv, index));
        self.seen.get_mut(&index).unwrap().recv_armed = true;
    }

    /// Splices once more has come, and sends what is left over. False: the end has come.
    pub(crate) fn splice(&mut self, from: u32, to: u32) -> Result<bool, Errno> {
        self.await_readable(from);
        self.run_until("readable", |harness| !harness.seen[&from].recv_armed);
        let (source, target) = (self.sockets[&from], self.sockets[&to]);
        let Some(spliced) = self.driver.splice(source, target)? else { return Ok(false) };
        let mut rest = spliced.rest.to_vec();
        while !rest.is_empty() {
            self.send(to, &rest);
            self.run_until("sent", |harness| harness.seen[&to].sends_in_flight == 0);
            let sent = self.seen.get_mut(&to).unwrap().sends.pop().unwrap()?;
            rest.drain(..sent);
        }
        Ok(true)
    }

    /// Sends a datagram.
    pub(crate) fn send_to(&mut self, index: u32, bytes: &[u8], to: SocketAddr) {
        let mut buffer = self.buffers.take(SendBufferClass::Small, 0).unwrap();
        buffer.memory_mut()[..bytes.len()].copy_from_slice(bytes);
        buffer.set_range(0..bytes.len());
        buffer.set_destination(to);
        self.send_buffer(index, buffer);
    }

    pub(crate) fn send(&mut self, index: u32, bytes: &[u8]) {
        let class =
            if bytes.len() <= 1024 { SendBufferClass::Small } else { SendBufferClass::Large };
        let mut buffer = self.buffers.take(class, 0).unwrap();
        buffer.memory_mut()[..bytes.len()].copy_from_slice(bytes);
        buffer.set_range(0..bytes.len());
        self.send_buffer(index, buffer);
    }

    fn send_buffer(&mut self, index: u32, buffer: SendBuffer) {
        self.driver.send(self.sockets[&index], buffer, token(Operation::Send, index));
        self.seen.get_mut(&index).unwrap().sends_in_flight += 1;
    }

    pub(crate) fn close(&mut self, index: u32) {
        self.driver.close(self.sockets[&index], token(Operation::Close, index));
    }

    /// Turns until `done`; panics when nothing happens for long.
    pub(crate) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let mut turns = 0;
        let start_ns = self.driver.now_ns();
        while !done(self) {
            turns += 1;
            assert!(
                turns < TURNS_MAX && self.driver.now_ns() - start_ns < PATIENCE_NS,
                "waited in vain: {what}; connections: {}",
                self.seen.len()
            );
            self.turn(Duration::from_millis(50));
        }
    }

    pub(crate) fn turn(&mut self, patience: Duration) {
        let deadline_ns = mrfp_io::monotonic_ns() + patience.as_nanos() as u64;
        self.driver.wait(Some(deadline_ns)).unwrap();
        self.drain();
    }

    pub(crate) fn drain(&mut self) {
        while let Some(completion) = self.driver.next_completion() {
            self.handle(completion);
        }
    }

    fn handle(&mut self, completion: Completion) {
        match completion {
            Completion::Accept { token, result, more } => {
                if let Ok(accepted) = result {
                    let index = self.next_index;
                    self.next_index += 1;
                    self.sockets.insert(index, accepted.socket);
                    self.peers.insert(index, accepted.peer);
                    self.seen.insert(index, Seen::default());
                    if self.recv_on_accept {
                        self.arm_recv(index);
                    }
                }
                match result {
                    Err(Errno(libc::ECANCELED)) => self.accepts_ended += 1,
                    // A full completion queue ends a multishot.
                    _ if !more => self.driver.accept(self.sockets[&0], token),
                    _ => {}
                }
            }
            Completion::Connect { token, result } => {
                self.seen.get_mut(&token.key().index).unwrap().connected = Some(result);
            }
            Completion::Recv { token, result, more } => {
                assert_eq!(token.operation(), Some(Operation::Recv));
                assert_eq!(token.key().generation, 7);
                let seen = self.seen.get_mut(&token.key().index).unwrap();
                seen.recv_armed = more;
                match result {
                    Ok(Some(buffer)) => {
                        seen.sources.push(self.driver.recv_source(&buffer));
                        let bytes = self.driver.recv_bytes(&buffer);
                        seen.runs.push(bytes.len());
                        seen.received.extend_from_slice(bytes);
                        self.driver.recv_release(buffer);
                    }
                    Ok(None) => seen.eof = true,
                    Err(Errno(libc::ENOBUFS)) => seen.out_of_buffers += 1,
                    Err(error) => seen.recv_error = Some(error),
                }
            }
            Completion::Readable { token, result } => {
                assert_eq!(token.operation(), Some(Operation::Recv));
                let seen = self.seen.get_mut(&token.key().index).unwrap();
                seen.recv_armed = false;
                seen.readable.push(result);
            }
            Completion::Send { token, result, mut buffer } => {
                let seen = self.seen.get_mut(&token.key().index).unwrap();
                seen.sends.push(result);
                seen.sends_in_flight -= 1;
                match result {
                    Ok(count) if self.resend && count < buffer.bytes().len() => {
                        buffer.advance(count);
                        self.send_buffer(token.key().index, buffer);
                    }
                    _ => self.buffers.put(buffer),
                }
            }
            Completion::Close { token } => {
                if let Some(seen) = self.seen.get_mut(&token.key().index) {
                    seen.closed = true;
                }
                self.sockets.remove(&token.key().index);
            }
            Completion::Doorbell => self.doorbells += 1,
        }
    }

    /// Ends every connection and the listener, and checks that everything came back.
    pub(crate) fn finish(mut self) -> D {
        if self.sockets.contains_key(&0) {
            self.driver.cancel(token(Operation::Accept, 0));
            self.run_until("accept ends", |harness| harness.accepts_ended > 0);
            self.close(0);
        }
        let indices: Vec<u32> = self.sockets.keys().copied().filter(|&i| i != 0).collect();
        for &index in &indices {
            self.driver.shutdown(self.sockets[&index]);
        }
        self.run_until("everything in flight ends", |harness| {
            indices.iter().all(|index| {
                let seen = &harness.seen[index];
                !seen.recv_armed && seen.sends_in_flight == 0
            })
        });
        for &index in &indices {
            self.close(index);
        }
        self.run_until("every socket closes", |harness| harness.sockets.is_empty());
        assert_eq!(self.buffers.outstanding(), 0);
        let (free, count) = self.driver.recv_buffers_free();
        assert_eq!(free, count);
        self.driver
    }
}
