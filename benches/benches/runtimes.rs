//! The runtime shoot-out: the same echo on the node's ring, on tokio-uring and on glommio.
//!
//! `cargo bench --bench runtimes` serves each of them on the last core this process may use and talks to
//! it from the first one: so many connections, each with so many messages of 300 bytes on their way.
//! The generator saturates its core, so the figure is the CPU time of the server's process per echo, not
//! the echoes per second. Runs are interleaved; the table shows the median with the least and the most.
//! `-- --seconds N --runs N` to take longer; `cargo xtask perf --runtimes` records it. A line on standard
//! error tells what each run has shown.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use mrfp_io::{
    Completion, Core, Driver, Errno, Key, Listen, Operation, Ring, RingConfig, SendBuffer,
    SendBufferClass, SendBuffers, SendBuffersConfig, Socket, Token, available_cores, monotonic_ns,
    pin_current_thread, raise_descriptor_limit,
};
use tokio_uring::buf::BoundedBuf;

/// A chat message with its head.
const MESSAGE_BYTES: usize = 300;
/// What one read of a connection takes.
const READ_BYTES: usize = 8 * 1024;
/// Connections, and messages of each that are on their way.
const LOADS: [(usize, usize); 4] = [(100, 1), (1000, 1), (5000, 1), (200, 8)];
const BUFFERS: SendBuffersConfig = SendBuffersConfig {
    small_size_bytes: 4 * 1024,
    small_count_max: 65_536,
    large_size_bytes: 16 * 1024,
    large_count_max: 65_536,
};
const LISTEN: Listen = Listen { backlog: 4096, reuse_port: false };
/// Completions handled before what they produced is sent, as on the node.
const COMPLETIONS_PER_TURN_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runtime {
    MrfpIo,
    TokioUring,
    Glommio,
}

impl Runtime {
    const ALL: [Self; 3] = [Self::MrfpIo, Self::TokioUring, Self::Glommio];

    fn name(self) -> &'static str {
        match self {
            Self::MrfpIo => "mrfp-io",
            Self::TokioUring => "tokio-uring",
            Self::Glommio => "glommio",
        }
    }

    fn serve(self, core: Core) -> io::Result<()> {
        match self {
            Self::MrfpIo => serve_mrfp_io(),
            Self::TokioUring => serve_tokio_uring(),
            Self::Glommio => serve_glommio(core),
        }
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let cores = available_cores();
    let (Some(&first), Some(&last)) = (cores.first(), cores.last()) else {
        return Err(io::Error::other("no cores to run on"));
    };
    raise_descriptor_limit()?;
    if let Some(name) = value("--serve") {
        let runtime = Runtime::ALL.into_iter().find(|runtime| runtime.name() == name);
        return serve(runtime.ok_or(io::ErrorKind::InvalidInput)?, last);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        // Asked to run tests: there are none.
        return Ok(());
    }
    let number = |name, default| value(name).and_then(|it| it.parse().ok()).unwrap_or(default);
    let (seconds, runs) = (number("--seconds", 2), number("--runs", 3));
    if !pin_current_thread(first) {
        return Err(io::Error::other("cannot pin the generator"));
    }
    compare(seconds, usize::try_from(runs).unwrap_or(1).max(1))
}

fn serve(runtime: Runtime, core: Core) -> io::Result<()> {
    if !pin_current_thread(core) {
        return Err(io::Error::other("cannot pin the server"));
    }
    runtime.serve(core)
}

fn compare(seconds: u64, runs: usize) -> io::Result<()> {
    println!("| connections x in flight | {} |", Runtime::ALL.map(Runtime::name).join(" | "));
    println!("|---|---|---|---|");
    for (connections, in_flight) in LOADS {
        let mut figures = Runtime::ALL.map(|_| Vec::new());
        for _ in 0..runs {
            for (runtime, figures) in Runtime::ALL.into_iter().zip(&mut figures) {
                let microseconds = measure(runtime, connections, in_flight, seconds)?;
                eprintln!("run {} {connections} {in_flight} {microseconds:.4}", runtime.name());
                figures.push(microseconds);
            }
        }
        let cells = figures.map(|mut figures| {
            figures.sort_by(f64::total_cmp);
            let (least, most) = (figures[0], figures[runs - 1]);
            format!("{:.2} ({least:.2} to {most:.2})", figures[runs / 2])
        });
        println!("| {connections} x {in_flight} | {} |", cells.join(" | "));
    }
    println!(
        "\nMicroseconds of CPU of the server per echo of {MESSAGE_BYTES} bytes: median of {runs}"
    );
    println!("interleaved runs of {seconds} s (least to most).");
    Ok(())
}

/// Microseconds of CPU per echo.
fn measure(
    runtime: Runtime,
    connections: usize,
    in_flight: usize,
    seconds: u64,
) -> io::Result<f64> {
    let server = Server::start(runtime)?;
    let mut echo = Echo::new()?;
    for _ in 0..connections {
        echo.connect(server.address)?;
    }
    let messages = vec![b'x'; MESSAGE_BYTES * in_flight];
    for index in 0..connections {
        echo.append(index, &messages);
    }
    echo.run_until(monotonic_ns() + 500_000_000)?;
    let (cpu_ns, bytes) = (server.cpu_ns()?, echo.received_bytes);
    echo.run_until(monotonic_ns() + seconds * 1_000_000_000)?;
    let cpu_ns = server.cpu_ns()? - cpu_ns;
    let echoes = (echo.received_bytes - bytes) / MESSAGE_BYTES as u64;
    Ok(cpu_ns as f64 / echoes as f64 / 1000.0)
}

/// A server in a process of its own.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(runtime: Runtime) -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--serve", runtime.name()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = &mut process.stdout {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(|_| {
            io::Error::other(format!("{} did not say where it listens", runtime.name()))
        })?;
        Ok(Self { process, address })
    }

    /// Processor time of all its threads.
    fn cpu_ns(&self) -> io::Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let times = std::fs::read_to_string(task?.path().join("schedstat"))?;
            sum += times.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0);
        }
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn say_where(address: SocketAddr) -> io::Result<()> {
    println!("{address}");
    io::stdout().flush()
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn serve_mrfp_io() -> io::Result<()> {
    let mut echo = Echo::new()?;
    let (listener, address) = echo.driver.listen(loopback(), LISTEN, accept_token())?;
    echo.listener = Some(listener);
    say_where(address)?;
    echo.run_until(u64::MAX)
}

fn serve_tokio_uring() -> io::Result<()> {
    let mut builder = tokio_uring::builder();
    builder.entries(4096);
    builder.start(async {
        let listener = tokio_uring::net::TcpListener::bind(loopback())?;
        say_where(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio_uring::spawn(async move {
                let mut buffer = vec![0; READ_BYTES];
                loop {
                    let (read, bytes) = stream.read(buffer).await;
                    let Ok(count @ 1..) = read else { return };
                    let (written, bytes) = stream.write_all(bytes.slice(..count)).await;
                    if written.is_err() {
                        return;
                    }
                    buffer = bytes.into_inner();
                }
            });
        }
    })
}

fn serve_glommio(core: Core) -> io::Result<()> {
    let placement = glommio::Placement::Fixed(core.id);
    let executor = glommio::LocalExecutorBuilder::new(placement)
        .ring_depth(4096)
        .make()
        .map_err(|error| io::Error::other(error.to_string()))?;
    executor.run(async {
        let listener = glommio::net::TcpListener::bind(loopback())?;
        say_where(listener.local_addr()?)?;
        loop {
            let mut stream = listener.accept().await?;
            stream.set_nodelay(true)?;
            glommio::spawn_local(async move {
                let mut buffer = vec![0; READ_BYTES];
                loop {
                    let Ok(count @ 1..) = stream.read(&mut buffer).await else { return };
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            })
            .detach();
        }
    })
}

/// Gives back what it receives, on the node's ring: the server, and the generator once it has begun.
struct Echo {
    driver: Ring,
    listener: Option<Socket>,
    connections: Vec<Connection>,
    dirty: Vec<usize>,
    pool: SendBuffers,
    received_bytes: u64,
}

struct Connection {
    socket: Socket,
    output: VecDeque<SendBuffer>,
    sending: bool,
    receiving: bool,
    dirty: bool,
}

impl Echo {
    fn new() -> io::Result<Self> {
        Ok(Self {
            driver: Ring::new(RingConfig::default())?,
            listener: None,
            connections: Vec::new(),
            dirty: Vec::new(),
            pool: SendBuffers::new(BUFFERS),
            received_bytes: 0,
        })
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<()> {
        let socket =
            self.driver.connect(address, token(Operation::Connect, self.connections.len()))?;
        loop {
            self.driver.wait(None)?;
            while let Some(completion) = self.driver.next_completion() {
                if let Completion::Connect { result, .. } = completion {
                    result.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
                    self.insert(socket);
                    return Ok(());
                }
            }
        }
    }

    fn insert(&mut self, socket: Socket) {
        let connection = Connection {
            socket,
            output: VecDeque::new(),
            sending: false,
            receiving: false,
            dirty: false,
        };
        self.connections.push(connection);
        self.mark(self.connections.len() - 1);
    }

    fn run_until(&mut self, end_ns: u64) -> io::Result<()> {
        while self.driver.now_ns() < end_ns {
            let mut work_left = true;
            for _ in 0..COMPLETIONS_PER_TURN_MAX {
                let Some(completion) = self.driver.next_completion() else {
                    work_left = false;
                    break;
                };
                self.handle(completion)?;
            }
            while let Some(index) = self.dirty.pop() {
                self.attend(index);
            }
            self.driver.wait(Some(if work_left { 0 } else { end_ns }))?;
        }
        Ok(())
    }

    fn handle(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Accept { result, more, .. } => {
                if let (false, Some(listener)) = (more, self.listener) {
                    self.driver.accept(listener, accept_token());
                }
                if let Ok(accepted) = result {
                    self.insert(accepted.socket);
                }
            }
            Completion::Recv { token, result, more } => {
                let index = token.key().index as usize;
                self.connections[index].receiving = more;
                match result {
                    Ok(Some(buffer)) => {
                        let bytes = self.driver.recv_bytes(&buffer);
                        self.received_bytes += bytes.len() as u64;
                        append(&mut self.connections[index].output, &mut self.pool, bytes);
                        self.driver.recv_release(buffer);
                    }
                    // The end of a run: the process ends as well.
                    Ok(None) => self.connections[index].receiving = true,
                    Err(Errno::NO_BUFFERS) => {}
                    Err(errno) => {
                        let error = io::Error::from_raw_os_error(errno.0);
                        if error.kind() != io::ErrorKind::ConnectionReset {
                            return Err(error);
                        }
                        self.connections[index].receiving = true;
                    }
                }
                self.mark(index);
            }
            Completion::Send { token, result, mut buffer } => {
                let index = token.key().index as usize;
                let count = result.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
                buffer.advance(count);
                if !buffer.bytes().is_empty() {
                    self.driver.send(self.connections[index].socket, buffer, token);
                    return Ok(());
                }
                self.pool.put(buffer);
                self.connections[index].sending = false;
                self.mark(index);
            }
            Completion::Connect { .. }
            | Completion::Readable { .. }
            | Completion::Close { .. }
            | Completion::Doorbell => {}
        }
        Ok(())
    }

    fn attend(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.dirty = false;
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

    fn append(&mut self, index: usize, bytes: &[u8]) {
        append(&mut self.connections[index].output, &mut self.pool, bytes);
        self.mark(index);
    }

    fn mark(&mut self, index: usize) {
        if !std::mem::replace(&mut self.connections[index].dirty, true) {
            self.dirty.push(index);
        }
    }
}

fn append(output: &mut VecDeque<SendBuffer>, pool: &mut SendBuffers, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Some(tail) = output.back_mut() {
            let range = tail.range();
            let count = rest.len().min(tail.capacity_bytes() - range.end);
            tail.memory_mut()[range.end..range.end + count].copy_from_slice(&rest[..count]);
            tail.set_range(range.start..range.end + count);
            rest = &rest[count..];
            if rest.is_empty() {
                return;
            }
        }
        let class = if rest.len() <= BUFFERS.small_size_bytes {
            SendBufferClass::Small
        } else {
            SendBufferClass::Large
        };
        output.push_back(pool.take(class, 0).expect("more buffers than the load fills"));
    }
}

fn token(operation: Operation, index: usize) -> Token {
    Token::new(operation, Key { index: index as u32, generation: 0 })
}

/// The listener's; there is only one.
fn accept_token() -> Token {
    token(Operation::Accept, Key::INDEX_MAX as usize)
}
