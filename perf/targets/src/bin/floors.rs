//! Floor control without signalling: conferences whose users the load generator knows by number, for what
//! is measured of primitives and of silent participants alone.
//!
//! Conference `c`, from 1, has the users 1 to `--users` and the floors 1 to `--floors`. Participant `i`, from
//! 0, is user `i % users + 1` of conference `i / users + 1`; with `--secure` its identity is `perf-{i:08}`, its key
//! the SHA-256 of `perf-key-{i:08}`. Over Mp a conference begins with the stream for its messages, so
//! each has one more Termination, to which nobody connects.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mrfp_core::floor::{ConferencePolicy, FloorOrder, FloorPolicy, ThirdPartyRequests};
use mrfp_core::mp::{
    ChatRoomPolicy, Command, ContextId, CpimPolicy, Direction, Event, Floor, FloorControl,
    FloorStream, FloorTransport, Member, RealmId, ReserveAndConfigure, ReserveFloorControl,
    Security, Setup, Switching, TerminationId, TlsRole,
};
use perf_targets::{ASKED_MAX, POLL_INTERVAL, Shards, numbered_key, write_pss};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Floor control without signalling.
#[derive(Clone, Parser)]
struct Options {
    /// Where the shard listens (port 0: any).
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Conferences.
    #[arg(long, default_value_t = 1_000)]
    conferences: u32,
    /// Users of each conference.
    #[arg(long, default_value_t = 10)]
    users: u16,
    /// Floors of each conference.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    floors: u16,
    /// How many may hold a floor at a time.
    #[arg(long, default_value_t = 1)]
    holders: u16,
    /// Requests of a user for a floor at a time.
    #[arg(long, default_value_t = 1)]
    requests: u16,
    /// Every participant has a pre-shared key.
    #[arg(long)]
    secure: bool,
    /// TLS 1.2 suites by OpenSSL name, most wanted first. May be given several times, or with commas.
    #[arg(long, value_delimiter = ',')]
    suite: Vec<String>,
    /// Where to write how many bytes of memory (proportional set size) it takes when there is one
    /// conference: what a shard takes once is no participant's.
    #[arg(long)]
    empty_pss_file: Option<PathBuf>,
    /// Prints the counters every so many seconds.
    #[arg(long)]
    report: Option<u64>,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floors: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let (empty_pss_file, report) = (options.empty_pss_file.clone(), options.report);
    let mut plane = Plane::start(options)?;
    let all = plane.wanted;
    plane.wanted = plane.per_conference();
    while plane.reserved < plane.wanted {
        plane.serve()?;
        std::thread::sleep(POLL_INTERVAL);
    }
    if let Some(file) = &empty_pss_file {
        write_pss(file)?;
    }
    plane.wanted = all;
    let mut ready = false;
    let mut reported = Instant::now();
    loop {
        plane.serve()?;
        if !ready && plane.reserved == plane.wanted {
            ready = true;
            plane.shards.announce("floors")?;
        }
        if let Some(seconds) = report
            && reported.elapsed() >= Duration::from_secs(seconds)
        {
            reported = Instant::now();
            plane.shards.report("floors");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The controller: reserves everybody.
struct Plane {
    options: Options,
    shards: Shards,
    /// Terminations: of each conference one for messages, then its users'.
    wanted: u32,
    /// Reservations asked for, and answered.
    asked: u32,
    reserved: u32,
}

impl Plane {
    fn start(options: Options) -> Result<Self, Box<dyn std::error::Error>> {
        let wanted = options.conferences * (u32::from(options.users) + 1);
        let shards = Shards::start(options.listen, 1, wanted as usize, &options.suite, None)?;
        Ok(Self { options, shards, wanted, asked: 0, reserved: 0 })
    }

    fn per_conference(&self) -> u32 {
        u32::from(self.options.users) + 1
    }

    fn serve(&mut self) -> Result<(), String> {
        while self.asked < self.wanted && self.asked - self.reserved < ASKED_MAX {
            self.shards.send(0, self.reserve(self.asked));
            self.asked += 1;
        }
        while let Some(event) = self.shards.serve()? {
            match event {
                Event::Reserved { .. } => self.reserved += 1,
                Event::Refused { termination, reason } => {
                    return Err(format!("Termination {} was refused: {reason:?}", termination.0));
                }
                // Who has left is not reserved anew: the next run begins with another process.
                _ => {}
            }
        }
        Ok(())
    }

    fn reserve(&self, number: u32) -> Command {
        let (conference, user) = (number / self.per_conference(), number % self.per_conference());
        let (context, termination) = (ContextId(conference.into()), TerminationId(number.into()));
        if user == 0 {
            return reserve_room(context, termination, self.floor_control(conference + 1));
        }
        let participant = conference * u32::from(self.options.users) + user - 1;
        Command::ReserveFloorControl(Box::new(ReserveFloorControl {
            context,
            termination,
            stream: FloorStream {
                transport: FloorTransport::Tcp(Setup::Passive),
                security: match self.options.secure {
                    true => numbered_key(participant),
                    false => Security::Plain,
                },
                tls_role: TlsRole::Server,
            },
            unanswered: false,
            user_id: user as u16,
            display_name: String::new(),
            uri: String::new(),
            speaks_by: None,
            realm: RealmId::default(),
            own_port: false,
        }))
    }

    fn floor_control(&self, conference_id: u32) -> FloorControl {
        let policy = FloorPolicy {
            order: FloorOrder::FirstComeFirstServed,
            holders_max: self.options.holders,
            requests_per_user_max: self.options.requests,
            holding_max_ns: None,
        };
        let floor = |floor_id| Floor {
            floor_id,
            policy: policy.clone(),
            governs_messages: floor_id == 1,
            reported: false,
        };
        FloorControl {
            conference_id,
            policy: ConferencePolicy {
                grace_ns: 0,
                third_party_requests: ThirdPartyRequests::Nobody,
            },
            floors: (1..=self.options.floors).map(floor).collect(),
            moderated: true,
        }
    }
}

fn reserve_room(context: ContextId, termination: TerminationId, floors: FloorControl) -> Command {
    let policy = ChatRoomPolicy {
        uris: Vec::new(),
        nicknames: false,
        nicknames_reserved: Vec::new(),
        private_messages: false,
        cpim: CpimPolicy::Required,
        accept_types: String::new(),
        accept_wrapped_types: String::new(),
        message_bytes_max: None,
        floors: Some(Box::new(floors)),
    };
    Command::ReserveAndConfigure(Box::new(ReserveAndConfigure {
        context,
        switching: Switching::ChatRoom(Box::new(policy)),
        termination,
        security: Security::Plain,
        setup: Setup::Passive,
        session_id: format!("perf-messages-{:08}", context.0),
        remote_path: Some(format!("msrp://127.0.0.1:9/perf-{:08};tcp", context.0)),
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
