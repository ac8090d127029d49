//! The limit: a relay on the node's own ring that neither parses nor encrypts.
//!
//! `bare --listen 127.0.0.1:0` prints `bare ready ADDRESS` and moves messages between connections, in
//! the order of accept: the first and the second, the third and the fourth. What it does for one
//! message is the pattern the node serves (SEND in, 200 out, SEND out, 200 in) by the same system
//! calls: the first SEND and the first 200 of a connection are read, which tells how long each is and
//! where its transaction identifier lies, and from then on everything is at fixed offsets. A SEND goes
//! on unchanged, its sender gets a canned 200 with the identifier patched in, a 200 is swallowed. So
//! what the node costs beyond this is what it does for the protocol.
//!
//! A message that is not like the first of its kind ends the pair with a line on stderr: a wrong
//! figure is worse than none.
//!
//! `--threads N` is N of them in one process, each with a port, a ring and a core of its own, as the
//! node has shards: `bare ready ADDRESS ADDRESS`. A pair belongs to the thread it connects to.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use clap::Parser;
use mrfp_io::{
    AcceptedSocket, Completion, Driver, Errno, Key, Listen, Operation, RecvBuffer, Ring,
    RingConfig, SendBuffer, SendBufferClass, SendBuffers, SendBuffersConfig, Socket, Token,
    available_cores, pin_current_thread, raise_descriptor_limit,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As the node listens.
const LISTEN: Listen = Listen { backlog: 4096, reuse_port: false };
/// Completions handled before what they produced is sent, as on the node.
const COMPLETIONS_PER_TURN_MAX: usize = 1024;
/// The node's two sizes, less the room it leaves for sealing.
const BUFFERS: SendBuffersConfig = SendBuffersConfig {
    small_size_bytes: 2 * 1024,
    small_count_max: 32_768,
    large_size_bytes: 16 * 1024,
    large_count_max: 32_768,
};
/// A first message longer than this, or without an end, is none.
const FIRST_BYTES_MAX: usize = 64 * 1024;
/// A connection with more than this to send has stopped reading. The generator's window is far below.
const OUTPUT_BUFFERS_MAX: usize = 256;

#[derive(Parser)]
#[command(about = "The limit: a relay on the node's ring that neither parses nor encrypts")]
struct Arguments {
    /// Where to listen; port 0 picks one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Core to run on
    #[arg(long, conflicts_with = "threads")]
    core: Option<usize>,
    /// Threads, each on a core of its own where there are several
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
}

fn main() -> io::Result<()> {
    let Arguments { listen, core, threads } = Arguments::parse();
    let cores = available_cores();
    let core_of = |number: u32| match core {
        Some(id) => cores.iter().find(|core| core.id == id).copied(),
        None => cores.get(number as usize).copied().filter(|_| threads > 1),
    };
    let must_pin = core.is_some() || threads > 1;
    raise_descriptor_limit()?;
    let started: Vec<_> = (0..threads)
        .map(|number| {
            let (ready, address) = mpsc::channel();
            let core = core_of(number);
            let thread = thread::spawn(move || {
                if must_pin && !core.is_some_and(pin_current_thread) {
                    return Err(io::Error::other("there is no such core, or it is not ours"));
                }
                let mut relay = Relay::new(listen)?;
                // Whoever is not there to be told has printed nothing and ends.
                let _ = ready.send(relay.address);
                loop {
                    relay.turn()?;
                }
            });
            (address, thread)
        })
        .collect();
    let mut said = "bare ready".to_owned();
    let mut running = Vec::new();
    for (address, thread) in started {
        match address.recv() {
            Ok(address) => said.push_str(&format!(" {address}")),
            Err(_) => return end_of(thread),
        }
        running.push(thread);
    }
    println!("{said}");
    io::stdout().flush()?;
    running.into_iter().try_for_each(end_of)
}

/// What a thread that never ends by itself has ended with.
fn end_of(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

struct Relay {
    driver: Ring,
    listener: Socket,
    address: SocketAddr,
    /// By key. A slot is free again when its socket is closed, after which no completion comes.
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    /// The connection whose partner has not come yet. What it says waits in the kernel.
    waiting: Option<u32>,
    dirty: Vec<u32>,
    pool: SendBuffers,
}

struct Connection {
    socket: Socket,
    partner: Option<u32>,
    patterns: Patterns,
    /// The beginning of a message.
    carry: Vec<u8>,
    output: VecDeque<SendBuffer>,
    sending: bool,
    receiving: bool,
    ending: bool,
    dirty: bool,
}

#[derive(Default)]
struct Patterns {
    send: Option<Pattern>,
    ok: Option<Pattern>,
    /// A 200 to the first SEND, for all of them.
    answer: Vec<u8>,
}

/// What all messages of a kind have in common.
#[derive(Clone, Copy)]
struct Pattern {
    length: usize,
    id_length: usize,
}

/// The next message of a run of bytes.
enum Next {
    Send(Pattern),
    Ok(Pattern),
    Incomplete,
}

impl Relay {
    fn new(listen: SocketAddr) -> io::Result<Self> {
        let mut driver = Ring::new(RingConfig::default())?;
        let (listener, address) = driver.listen(listen, LISTEN, accept_token())?;
        Ok(Self {
            driver,
            listener,
            address,
            connections: Vec::new(),
            free: Vec::new(),
            waiting: None,
            dirty: Vec::new(),
            pool: SendBuffers::new(BUFFERS),
        })
    }

    /// Completions, and those that have come meanwhile, as on the node; then one send per connection
    /// that has something to say, then the wait.
    fn turn(&mut self) -> io::Result<()> {
        let mut work_left = self.drain_completions();
        if !work_left {
            self.driver.look()?;
            work_left = self.drain_completions();
        }
        while let Some(index) = self.dirty.pop() {
            self.attend(index);
        }
        self.driver.wait(work_left.then_some(0))
    }

    /// Says whether there may be more.
    fn drain_completions(&mut self) -> bool {
        for _ in 0..COMPLETIONS_PER_TURN_MAX {
            let Some(completion) = self.driver.next_completion() else { return false };
            match completion {
                Completion::Accept { result, more, .. } => self.accepted(result, more),
                Completion::Recv { token, result, more } => {
                    self.received(token.key().index, result, more);
                }
                Completion::Send { token, result, buffer } => {
                    self.sent(token.key().index, result, buffer);
                }
                Completion::Close { token } => {
                    let index = token.key().index;
                    self.connections[index as usize] = None;
                    self.free.push(index);
                }
                Completion::Connect { .. } | Completion::Readable { .. } | Completion::Doorbell => {
                }
            }
        }
        true
    }

    fn accepted(&mut self, result: Result<AcceptedSocket, Errno>, more: bool) {
        if !more {
            self.driver.accept(self.listener, accept_token());
        }
        let Ok(AcceptedSocket { socket, .. }) = result else { return };
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() as u32 - 1
        });
        let partner = self.waiting.take();
        match partner {
            Some(partner) => {
                self.connection(partner).partner = Some(index);
                self.mark(partner);
            }
            None => self.waiting = Some(index),
        }
        self.connections[index as usize] = Some(Connection {
            socket,
            partner,
            patterns: Patterns::default(),
            carry: Vec::new(),
            output: VecDeque::new(),
            sending: false,
            receiving: false,
            ending: false,
            dirty: false,
        });
        if partner.is_some() {
            self.mark(index);
        }
    }

    fn received(&mut self, index: u32, result: Result<Option<RecvBuffer>, Errno>, more: bool) {
        let connection = self.connection(index);
        connection.receiving = more;
        let ending = connection.ending;
        if !more {
            self.mark(index);
        }
        match result {
            Ok(Some(buffer)) => {
                if !ending && let Err(reason) = self.take(index, &buffer) {
                    eprintln!("bare: {reason}; the pair ends");
                    self.end(index);
                }
                self.driver.recv_release(buffer);
            }
            Ok(None) => self.end(index),
            Err(Errno::NO_BUFFERS | Errno::CANCELED) => {}
            Err(errno) => self.fail(index, "recv", errno),
        }
    }

    /// Moves what has arrived.
    fn take(&mut self, index: u32, buffer: &RecvBuffer) -> Result<(), &'static str> {
        let bytes = &*self.driver.recv_bytes(buffer);
        let connection = open(&mut self.connections, index);
        let partner = connection.partner.expect("nothing is received without one");
        if connection.carry.is_empty() {
            let taken = relay(&mut self.connections, &mut self.pool, (index, partner), bytes)?;
            open(&mut self.connections, index).carry.extend_from_slice(&bytes[taken..]);
        } else {
            let mut carry = std::mem::take(&mut connection.carry);
            carry.extend_from_slice(bytes);
            let taken = relay(&mut self.connections, &mut self.pool, (index, partner), &carry)?;
            carry.drain(..taken);
            open(&mut self.connections, index).carry = carry;
        }
        for touched in [index, partner] {
            if !open(&mut self.connections, touched).output.is_empty() {
                self.mark(touched);
            }
        }
        Ok(())
    }

    fn sent(&mut self, index: u32, result: Result<usize, Errno>, mut buffer: SendBuffer) {
        let connection = open(&mut self.connections, index);
        match result {
            Ok(count) => {
                buffer.advance(count);
                if !buffer.bytes().is_empty() && !connection.ending {
                    let token = token(Operation::Send, index);
                    return self.driver.send(connection.socket, buffer, token);
                }
            }
            Err(errno) => self.fail(index, "send", errno),
        }
        self.pool.put(buffer);
        self.connection(index).sending = false;
        self.mark(index);
    }

    fn attend(&mut self, index: u32) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        connection.dirty = false;
        if connection.ending {
            if !connection.receiving && !connection.sending {
                connection.sending = true;
                for buffer in connection.output.drain(..) {
                    self.pool.put(buffer);
                }
                self.driver.close(connection.socket, token(Operation::Close, index));
            }
            return;
        }
        if !connection.sending
            && let Some(buffer) = connection.output.pop_front()
        {
            connection.sending = true;
            self.driver.send(connection.socket, buffer, token(Operation::Send, index));
        }
        if !connection.receiving {
            connection.receiving = true;
            self.driver.recv(connection.socket, token(Operation::Recv, index));
        }
    }

    /// The kernel reports an error. That a peer is gone is none.
    fn fail(&mut self, index: u32, operation: &str, errno: Errno) {
        let error = io::Error::from_raw_os_error(errno.0);
        let gone = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        if !gone && !self.connection(index).ending {
            eprintln!("bare: {operation}: {error}; the pair ends");
        }
        self.end(index);
    }

    /// Ends both connections of a pair.
    fn end(&mut self, index: u32) {
        let partner = self.connection(index).partner.take();
        for index in [Some(index), partner].into_iter().flatten() {
            let connection = open(&mut self.connections, index);
            connection.partner = None;
            if !connection.ending {
                connection.ending = true;
                self.driver.shutdown(connection.socket);
            }
            self.mark(index);
        }
    }

    fn mark(&mut self, index: u32) {
        let connection = open(&mut self.connections, index);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(index);
        }
    }

    fn connection(&mut self, index: u32) -> &mut Connection {
        open(&mut self.connections, index)
    }
}

/// Panics where there is none: a completion belongs to a socket that is not closed.
fn open(connections: &mut [Option<Connection>], index: u32) -> &mut Connection {
    connections[index as usize].as_mut().expect("an open connection")
}

/// Moves the whole messages of a run of bytes; says how long they are together.
fn relay(
    connections: &mut [Option<Connection>],
    pool: &mut SendBuffers,
    (from, to): (u32, u32),
    bytes: &[u8],
) -> Result<usize, &'static str> {
    let [Some(from), Some(to)] =
        connections.get_disjoint_mut([from as usize, to as usize]).expect("two connections")
    else {
        unreachable!("both ends of a pair are open or none");
    };
    let mut taken = 0;
    loop {
        let rest = &bytes[taken..];
        match from.patterns.next(rest)? {
            Next::Send(pattern) => {
                append(&mut to.output, pool, &rest[..pattern.length])?;
                let answer = from.patterns.answer(&rest[ID_START..][..pattern.id_length]);
                append(&mut from.output, pool, answer)?;
                taken += pattern.length;
            }
            Next::Ok(pattern) => taken += pattern.length,
            Next::Incomplete => return Ok(taken),
        }
    }
}

/// Appends to the last buffer. What outgrows a small one moves to a large one, as two buffers are two
/// sends.
fn append(
    output: &mut VecDeque<SendBuffer>,
    pool: &mut SendBuffers,
    bytes: &[u8],
) -> Result<(), &'static str> {
    let mut rest = bytes;
    loop {
        if let Some(tail) = output.back_mut()
            && (tail.class() == SendBufferClass::Large || room(tail) >= rest.len())
        {
            rest = &rest[fill(tail, rest)..];
        }
        if rest.is_empty() {
            return Ok(());
        }
        let outgrown = output.back().is_some_and(|tail| tail.class() == SendBufferClass::Small);
        let small = if outgrown { output.pop_back() } else { None };
        let class = match small {
            None if rest.len() <= BUFFERS.small_size_bytes => SendBufferClass::Small,
            None | Some(_) => SendBufferClass::Large,
        };
        if output.len() == OUTPUT_BUFFERS_MAX {
            return Err("somebody does not read");
        }
        let mut buffer = pool.take(class, 0).ok_or("the pool of send buffers is exhausted")?;
        if let Some(small) = small {
            fill(&mut buffer, small.bytes());
            pool.put(small);
        }
        output.push_back(buffer);
    }
}

fn room(buffer: &SendBuffer) -> usize {
    buffer.capacity_bytes() - buffer.range().end
}

/// Appends what fits and says how much that was.
fn fill(buffer: &mut SendBuffer, bytes: &[u8]) -> usize {
    let count = bytes.len().min(room(buffer));
    let range = buffer.range();
    buffer.memory_mut()[range.end..range.end + count].copy_from_slice(&bytes[..count]);
    buffer.set_range(range.start..range.end + count);
    count
}

impl Patterns {
    fn next(&mut self, bytes: &[u8]) -> Result<Next, &'static str> {
        if let Some(pattern) = self.send
            && pattern.is_of(bytes, SEND)
        {
            return Ok(if pattern.is_whole(bytes)? {
                Next::Send(pattern)
            } else {
                Next::Incomplete
            });
        }
        if let Some(pattern) = self.ok
            && pattern.is_of(bytes, OK)
        {
            return Ok(if pattern.is_whole(bytes)? { Next::Ok(pattern) } else { Next::Incomplete });
        }
        self.learn(bytes)
    }

    /// Reads the first message of its kind.
    fn learn(&mut self, bytes: &[u8]) -> Result<Next, &'static str> {
        let Some(line_end) = find(bytes, b"\r\n") else { return incomplete(bytes) };
        let line = &bytes[..line_end];
        let kind = line
            .strip_prefix(b"MSRP ")
            .and_then(|line| Some(ID_START + find(line, b" ")?))
            .ok_or("something else than MSRP")?;
        let id = &line[ID_START..kind];
        let end_line = [END_LINE, id, LAST].concat();
        let Some(end) = find(bytes, &end_line) else { return incomplete(bytes) };
        let pattern = Pattern { length: end + end_line.len(), id_length: id.len() };
        if bytes[kind..].starts_with(SEND) && self.send.is_none() {
            let (to, from) = (path(bytes, b"\r\nTo-Path: ")?, path(bytes, b"\r\nFrom-Path: ")?);
            let head =
                [b"MSRP ", id, b" 200 OK\r\nTo-Path: ", from, b"\r\nFrom-Path: ", to].concat();
            self.answer = [&head, &end_line[..]].concat();
            self.send = Some(pattern);
            Ok(Next::Send(pattern))
        } else if bytes[kind..].starts_with(OK) && self.ok.is_none() {
            self.ok = Some(pattern);
            Ok(Next::Ok(pattern))
        } else {
            Err("a message that is not like the first one")
        }
    }

    /// The 200 to a SEND with this transaction identifier.
    fn answer(&mut self, id: &[u8]) -> &[u8] {
        let again = self.answer.len() - LAST.len() - id.len();
        self.answer[ID_START..ID_START + id.len()].copy_from_slice(id);
        self.answer[again..again + id.len()].copy_from_slice(id);
        &self.answer
    }
}

impl Pattern {
    /// Whether a message is of this kind, as far as it has come.
    fn is_of(self, bytes: &[u8], kind: &[u8]) -> bool {
        let start = ID_START + self.id_length;
        bytes.get(start..start + kind.len()).is_some_and(|found| found == kind)
    }

    /// Whether a message is whole; an error where it does not end as it should.
    fn is_whole(self, bytes: &[u8]) -> Result<bool, &'static str> {
        let Some(message) = bytes.get(..self.length) else { return Ok(false) };
        let id = &message[ID_START..ID_START + self.id_length];
        let (rest, last) = message.split_at(self.length - LAST.len());
        let (rest, again) = rest.split_at(rest.len() - id.len());
        if last == LAST && again == id && rest.ends_with(END_LINE) {
            return Ok(true);
        }
        Err("a message that is not like the first one")
    }
}

fn incomplete(bytes: &[u8]) -> Result<Next, &'static str> {
    if bytes.len() > FIRST_BYTES_MAX {
        Err("a message without an end")
    } else {
        Ok(Next::Incomplete)
    }
}

/// The first URI of a path.
fn path<'a>(bytes: &'a [u8], name: &[u8]) -> Result<&'a [u8], &'static str> {
    let start = find(bytes, name).ok_or("a SEND without paths")? + name.len();
    let rest = &bytes[start..];
    let end = rest.iter().position(|byte| matches!(byte, b' ' | b'\r'));
    end.map(|end| &rest[..end]).ok_or("a SEND without paths")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The listener's; there is only one.
fn accept_token() -> Token {
    token(Operation::Accept, Key::INDEX_MAX)
}

fn token(operation: Operation, index: u32) -> Token {
    Token::new(operation, Key { index, generation: 0 })
}

/// Behind `MSRP `.
const ID_START: usize = 5;
const SEND: &[u8] = b" SEND\r\n";
const OK: &[u8] = b" 200";
/// What is before and behind the transaction identifier in the end-line.
const END_LINE: &[u8] = b"\r\n-------";
const LAST: &[u8] = b"$\r\n";
