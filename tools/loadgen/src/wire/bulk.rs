//! Bulk through whoever forwards bytes unchanged: MSRP in chunks of 16 KiB written to the target, and
//! read from a port of ours that it forwards to.
//!
//! What is written is one stream, the same on every connection; every byte that arrives is compared
//! with what stands at its place in the stream.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mrfp_io::{
    Completion, Driver as _, Errno, Key, Listen, Operation, RecvBuffer, Ring, RingConfig,
    SendBuffer, SendBufferClass, SendBuffers, SendBuffersConfig, Socket, Token,
};

use super::pattern::hex;
use super::worker::WorkerFigures;
use super::{Control, Phase, Plan, Progress};
use crate::accounting::thread_cpu_ns;
use crate::expectation::Violation;

/// The stream: SENDs of one size, numbered, with bodies that no power of two moves onto themselves.
pub(super) struct Stream {
    head: Vec<u8>,
    /// Where the number stands in the head, twice: transaction, Message-ID; and in the end-line.
    numbers: [Range<usize>; 3],
    end: Vec<u8>,
    /// Twice the block, so that a body is one stretch.
    block: Vec<u8>,
}

/// Body bytes of a chunk.
pub(super) const CHUNK_BODY_BYTES: usize = 16 * 1024;
/// A prime.
const BLOCK_BYTES: usize = 65_521;

impl Stream {
    pub(super) fn new() -> Self {
        let path = "To-Path: msrp://sink.load.example:9/bulk;tcp\r\n\
                    From-Path: msrp://source.load.example:9/bulk;tcp\r\n";
        let mut head = b"MSRP bulk00000000 SEND\r\n".to_vec();
        head.extend_from_slice(path.as_bytes());
        head.extend_from_slice(b"Message-ID: bulk");
        let message_id = head.len()..head.len() + 8;
        head.extend_from_slice(
            format!(
                "00000000\r\nByte-Range: 1-*/{CHUNK_BODY_BYTES}\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        let end = b"\r\n-------bulk00000000$\r\n".to_vec();
        let mut word = 7_u64;
        let next = || {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (word >> 56) as u8
        };
        let block: Vec<u8> = std::iter::repeat_with(next).take(BLOCK_BYTES).collect();
        let block = [&block[..], &block[..]].concat();
        Self { head, numbers: [9..17, message_id, 13..21], end, block }
    }

    pub(super) fn chunk_bytes(&self) -> usize {
        self.head.len() + CHUNK_BODY_BYTES + self.end.len()
    }

    fn number(&mut self, chunk: u64) {
        let digits = hex::<8>(chunk);
        let [transaction, message_id, end] = self.numbers.clone();
        self.head[transaction].copy_from_slice(&digits);
        self.head[message_id].copy_from_slice(&digits);
        self.end[end].copy_from_slice(&digits);
    }

    fn parts(&mut self, chunk: u64) -> [&[u8]; 3] {
        self.number(chunk);
        let at = (chunk % BLOCK_BYTES as u64) as usize * CHUNK_BODY_BYTES % BLOCK_BYTES;
        [&self.head, &self.block[at..at + CHUNK_BODY_BYTES], &self.end]
    }

    /// Writes a chunk to the front of `out`.
    pub(super) fn write(&mut self, chunk: u64, out: &mut [u8]) -> usize {
        let mut at = 0;
        for part in self.parts(chunk) {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        at
    }

    /// Whether these bytes stand at `at` in the stream.
    pub(super) fn matches(&mut self, mut at: u64, mut bytes: &[u8]) -> bool {
        let chunk_bytes = self.chunk_bytes() as u64;
        while !bytes.is_empty() {
            let (chunk, mut offset) = (at / chunk_bytes, (at % chunk_bytes) as usize);
            for part in self.parts(chunk) {
                if offset >= part.len() {
                    offset -= part.len();
                    continue;
                }
                let expected = &part[offset..];
                let length = expected.len().min(bytes.len());
                let (here, rest) = bytes.split_at(length);
                if here != &expected[..length] {
                    return false;
                }
                at += length as u64;
                offset = 0;
                bytes = rest;
            }
        }
        true
    }
}

/// A thread with its writers and readers.
pub(super) struct Bulk {
    driver: Ring,
    plan: Arc<Plan>,
    control: Arc<Control>,
    progress: Arc<Progress>,
    links: Vec<Link>,
    pool: SendBuffers,
    stream: Stream,
    figures: WorkerFigures,
    rearm: Vec<u32>,
    sent: u64,
    received: u64,
    phase: Phase,
    cpu_begun: (u64, Instant),
}

struct Link {
    socket: Socket,
    role: Role,
}

enum Role {
    /// The next chunk.
    Writer { chunk: u64 },
    /// Bytes received.
    Reader { at: u64, broken: bool },
}

/// Chunks of one send.
const CHUNKS_PER_SEND: usize = 8;
const WAIT_NS_MAX: u64 = 2_000_000;
const COMPLETIONS_PER_TURN_MAX: usize = 256;

impl Bulk {
    /// What receives in large runs.
    pub(super) fn ring() -> RingConfig {
        RingConfig {
            recv_buffer_count: 64,
            recv_buffer_size_bytes: 256 * 1024,
            recv_large_buffer_size_bytes: 256 * 1024,
            ..RingConfig::default()
        }
    }

    pub(super) fn new(
        driver: Ring,
        plan: Arc<Plan>,
        control: Arc<Control>,
        progress: Arc<Progress>,
    ) -> Self {
        let stream = Stream::new();
        let links = plan.links as usize;
        let pool = SendBuffers::new(SendBuffersConfig {
            small_size_bytes: 1,
            small_count_max: 0,
            large_size_bytes: CHUNKS_PER_SEND * stream.chunk_bytes(),
            large_count_max: links,
        });
        Self {
            driver,
            plan,
            control,
            progress,
            links: Vec::new(),
            pool,
            stream,
            figures: WorkerFigures::new(),
            rearm: Vec::new(),
            sent: 0,
            received: 0,
            phase: Phase::SettingUp,
            cpu_begun: (0, Instant::now()),
        }
    }

    /// Works until the run is over; the sink listens first.
    pub(super) fn run(mut self, sink: SocketAddr) -> std::io::Result<WorkerFigures> {
        let listen = Listen { backlog: 1024, reuse_port: false };
        let (listener, _) = self.driver.listen(sink, listen, token(Operation::Accept, 0))?;
        for index in 0..self.plan.links {
            let token = token(Operation::Connect, index);
            let socket = match self.plan.source(index) {
                None => self.driver.connect(self.plan.target(index), token)?,
                Some(source) => self.driver.connect_from(source, self.plan.target(index), token)?,
            };
            self.links.push(Link { socket, role: Role::Writer { chunk: 0 } });
        }
        while self.phase != Phase::Ending {
            self.follow_phase();
            for index in std::mem::take(&mut self.rearm) {
                let link = &self.links[index as usize];
                self.driver.recv(link.socket, token(Operation::Recv, index));
            }
            for _ in 0..COMPLETIONS_PER_TURN_MAX {
                let Some(completion) = self.driver.next_completion() else { break };
                self.completion(completion, listener);
            }
            self.progress.bytes.store(self.received, Ordering::Relaxed);
            let drained = self.phase == Phase::Draining && self.received == self.sent;
            self.progress.drained.store(drained, Ordering::Release);
            let wait = if self.rearm.is_empty() { WAIT_NS_MAX } else { 0 };
            self.driver.wait(Some(self.driver.now_ns() + wait))?;
        }
        let missing = self.sent.saturating_sub(self.received);
        if missing > 0 {
            self.figures.violations.add(Violation::Lost, || format!("{missing} bytes never came"));
        }
        Ok(self.figures)
    }

    fn follow_phase(&mut self) {
        let wanted = self.control.phase();
        if wanted >= Phase::Talking && self.phase < Phase::Talking {
            for index in 0..self.plan.links {
                self.write(index);
            }
        }
        if wanted >= Phase::Measuring && self.phase < Phase::Measuring {
            self.cpu_begun = (thread_cpu_ns(), Instant::now());
        }
        if wanted >= Phase::Draining && self.phase < Phase::Draining {
            let (cpu, begun) = self.cpu_begun;
            self.figures.cpu_ns = thread_cpu_ns().saturating_sub(cpu);
            self.figures.measured_ns = begun.elapsed().as_nanos() as u64;
        }
        self.phase = wanted;
    }

    fn completion(&mut self, completion: Completion, listener: Socket) {
        match completion {
            Completion::Accept { result, more, .. } => {
                if let Ok(accepted) = result {
                    let index = self.links.len() as u32;
                    let role = Role::Reader { at: 0, broken: false };
                    self.links.push(Link { socket: accepted.socket, role });
                    self.driver.recv(accepted.socket, token(Operation::Recv, index));
                }
                if !more {
                    self.driver.accept(listener, token(Operation::Accept, 0));
                }
            }
            Completion::Connect { token: its, result } => {
                let counter = match result {
                    Ok(()) => &self.progress.up,
                    Err(errno) => {
                        self.violation(Violation::ConnectFailed, &describe(errno));
                        &self.progress.failed
                    }
                };
                counter.fetch_add(1, Ordering::Relaxed);
                if result.is_ok() {
                    // Whoever forwards may close; nothing else comes back.
                    let index = its.key().index;
                    let socket = self.links[index as usize].socket;
                    self.driver.recv(socket, token(Operation::Recv, index));
                }
            }
            Completion::Recv { token, result, more } => {
                self.received(token.key().index, result, more);
            }
            Completion::Send { token, result, buffer } => {
                self.sent(token.key().index, result, buffer);
            }
            Completion::Readable { .. } | Completion::Close { .. } | Completion::Doorbell => {}
        }
    }

    fn received(&mut self, index: u32, result: Result<Option<RecvBuffer>, Errno>, more: bool) {
        let ended = match result {
            Ok(Some(buffer)) => {
                let bytes = self.driver.recv_bytes(&buffer);
                if let Role::Reader { at, broken } = &mut self.links[index as usize].role {
                    if !*broken && !self.stream.matches(*at, bytes) {
                        *broken = true;
                        self.figures.violations.add(Violation::Corrupted, || {
                            format!("reader {index}: within {} bytes behind {at}", bytes.len())
                        });
                    }
                    *at += bytes.len() as u64;
                    self.received += bytes.len() as u64;
                }
                self.driver.recv_release(buffer);
                false
            }
            Ok(None) => true,
            Err(Errno::NO_BUFFERS) => false,
            Err(_) => true,
        };
        if ended && self.phase < Phase::Draining {
            self.violation(Violation::UnexpectedClose, &format!("connection {index}"));
        }
        if !more && !ended {
            self.rearm.push(index);
        }
    }

    fn write(&mut self, index: u32) {
        let Role::Writer { chunk } = &mut self.links[index as usize].role else { return };
        let Some(mut buffer) = self.pool.take(SendBufferClass::Large, 0) else { return };
        let mut at = 0;
        for _ in 0..CHUNKS_PER_SEND {
            at += self.stream.write(*chunk, &mut buffer.memory_mut()[at..]);
            *chunk += 1;
        }
        buffer.set_range(0..at);
        self.sent += at as u64;
        let socket = self.links[index as usize].socket;
        self.driver.send(socket, buffer, token(Operation::Send, index));
    }

    fn sent(&mut self, index: u32, result: Result<usize, Errno>, mut buffer: SendBuffer) {
        match result {
            Ok(count) => {
                buffer.advance(count);
                if !buffer.bytes().is_empty() {
                    let socket = self.links[index as usize].socket;
                    return self.driver.send(socket, buffer, token(Operation::Send, index));
                }
                self.pool.put(buffer);
                if self.phase < Phase::Draining {
                    self.write(index);
                }
            }
            Err(errno) => {
                self.pool.put(buffer);
                self.violation(Violation::UnexpectedClose, &describe(errno));
            }
        }
    }

    fn violation(&mut self, violation: Violation, text: &str) {
        self.figures.violations.add(violation, || text.to_owned());
    }
}

fn token(operation: Operation, index: u32) -> Token {
    Token::new(operation, Key { index, generation: 0 })
}

fn describe(errno: Errno) -> String {
    std::io::Error::from_raw_os_error(errno.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_the_stream_has_its_place() {
        let mut stream = Stream::new();
        let mut bytes = vec![0; 3 * stream.chunk_bytes()];
        let mut at = 0;
        for chunk in 0..3 {
            at += stream.write(chunk, &mut bytes[at..]);
        }
        assert_eq!(at, bytes.len());
        let mut from = 0;
        for length in [1, 100, 20_000, 7, 12_000, bytes.len() - 32_108] {
            assert!(stream.matches(from as u64, &bytes[from..from + length]), "{from}");
            from += length;
        }
        assert_eq!(from, bytes.len());
        assert!(!stream.matches(1, &bytes[..bytes.len() - 1]));
        assert!(!stream.matches(0, &bytes[stream.chunk_bytes()..]));
        bytes[20_000] ^= 1;
        assert!(!stream.matches(0, &bytes));
    }
}
