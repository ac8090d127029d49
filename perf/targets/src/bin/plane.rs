//! The media plane without signalling: Terminations with keys that the load generator knows, for what
//! is measured of handshakes and of idle sessions alone.
//!
//! Session `i` is known to its peer by the identity `perf-{i:08}` and the key SHA-256 of
//! `perf-key-{i:08}`; two of them share a Context, `2n` and `2n + 1`. Whenever the connection of one is
//! gone it gets a new session with the same identity and key (Mp: ReplaceSession), so handshakes can go
//! on for ever.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mrfp_core::mp::{
    Command, ContextId, Direction, Event, Member, RealmId, Remote, ReplaceSession,
    ReserveAndConfigure, Setup, Switching, TerminationId,
};
use perf_targets::{ASKED_MAX, POLL_INTERVAL, Shards, numbered_key, write_pss};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The media plane without signalling.
#[derive(Parser)]
struct Options {
    /// Where the first shard listens; the next ones have the ports behind it (port 0: any).
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Terminations with a pre-shared key each.
    #[arg(long, default_value_t = 1_000)]
    sessions: u32,
    /// Shards; rooms go to them in turn.
    #[arg(long, default_value_t = 1)]
    shards: u16,
    /// TLS 1.2 suites by OpenSSL name, most wanted first. May be given several times, or with commas.
    #[arg(long, value_delimiter = ',')]
    suite: Vec<String>,
    /// Where to write how many bytes of memory (proportional set size) it takes before a session is
    /// reserved.
    #[arg(long)]
    empty_pss_file: Option<PathBuf>,
    /// Prints the counters every so many seconds.
    #[arg(long)]
    report: Option<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plane: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let sessions = options.sessions as usize;
    let shards = Shards::start(options.listen, options.shards, sessions, &options.suite, None)?;
    if let Some(file) = &options.empty_pss_file {
        write_pss(file)?;
    }
    let mut plane = Plane::new(shards, options.sessions);
    let mut ready = false;
    let mut reported = Instant::now();
    loop {
        plane.serve()?;
        if !ready && plane.reserved == options.sessions {
            ready = true;
            plane.shards.announce("plane")?;
        }
        if let Some(seconds) = options.report
            && reported.elapsed() >= Duration::from_secs(seconds)
        {
            reported = Instant::now();
            plane.shards.report("plane");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The controller: keeps a session reserved under every identity.
struct Plane {
    shards: Shards,
    /// Sessions each Termination has had.
    generations: Vec<u32>,
    sessions: u32,
    /// First reservations asked for, and answered.
    asked: u32,
    reserved: u32,
}

impl Plane {
    fn new(shards: Shards, sessions: u32) -> Self {
        let generations = vec![0; sessions as usize];
        Self { shards, generations, sessions, asked: 0, reserved: 0 }
    }

    fn send(&mut self, index: u32, command: Command) {
        let shard = (index / 2) as usize % self.shards.count();
        self.shards.send(shard, command);
    }

    /// Takes what the shards have told and hands them what they have room for.
    fn serve(&mut self) -> Result<(), String> {
        while self.asked < self.sessions && self.asked - self.reserved < ASKED_MAX {
            self.send(self.asked, reserve(self.asked));
            self.asked += 1;
        }
        while let Some(event) = self.shards.serve()? {
            self.event(event)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Reserved { termination, .. } => {
                if self.generations[termination.0 as usize] == 0 {
                    self.reserved += 1;
                }
            }
            Event::BearerReleased { termination, .. } => {
                let generation = &mut self.generations[termination.0 as usize];
                *generation += 1;
                let (index, generation) = (termination.0 as u32, *generation);
                self.send(index, replace(index, generation));
            }
            Event::Refused { termination, reason } => {
                return Err(format!("session {} was refused: {reason:?}", termination.0));
            }
            Event::Bound { .. }
            | Event::Rekeyed { .. }
            | Event::RekeyingFailed { .. }
            | Event::Modified { .. }
            | Event::Subtracted { .. }
            | Event::NicknameChanged { .. }
            | Event::Audited { .. }
            | Event::ConnectionPointReserved { .. }
            | Event::Resolve { .. }
            | Event::Floors { .. }
            | Event::FloorChanged { .. }
            | Event::Stopped => {}
        }
        Ok(())
    }
}

fn reserve(index: u32) -> Command {
    Command::ReserveAndConfigure(Box::new(ReserveAndConfigure {
        context: ContextId(u64::from(index / 2)),
        switching: Switching::TwoParty,
        termination: TerminationId(u64::from(index)),
        security: numbered_key(index),
        setup: Setup::Passive,
        session_id: session_id(index, 0),
        remote_path: Some(remote_path(index)),
        member: Member::default(),
        realm: RealmId::default(),
        file_transfer: false,
        accept_types: "*".to_owned(),
        accept_wrapped_types: String::new(),
        direction: Direction::SendRecv,
        max_size_bytes: None,
        own_port: false,
    }))
}

fn replace(index: u32, generation: u32) -> Command {
    let path = remote_path(index);
    Command::ReplaceSession(Box::new(ReplaceSession {
        termination: TerminationId(u64::from(index)),
        security: numbered_key(index),
        session_id: session_id(index, generation),
        remote: Some(Remote { path, setup: Setup::Passive, capabilities: None }),
    }))
}

/// The session-id in our URI. As long as those of the node (RFC 4975 section 14.1), but no secret:
/// the generator has to know it.
fn session_id(index: u32, generation: u32) -> String {
    format!("perf-{index:08}-{generation:08}")
}

/// What a peer's SDP would name.
fn remote_path(index: u32) -> String {
    format!("msrps://127.0.0.1:9/perf-{index:08};tcp")
}
