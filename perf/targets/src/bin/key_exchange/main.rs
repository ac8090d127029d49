//! What the key exchange does with a core: messages answered, one after the other, in a second of
//! processor time. One kind in a run, so that runs of several kinds can alternate.
#![forbid(unsafe_code)]

mod parties;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use control_api::mikey::codec::MacAlgorithm;
use control_api::mikey::derivation::{KeySource, Prf};
use control_api::mikey::protection::{self, Encryption};
use mimalloc::MiMalloc;
use parties::{Made, calls, counting_random, kms, opening_responder, requests, resolves};
use rustix::time::{ClockId, clock_gettime};

/// What `mrf` has.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Parser)]
struct Cli {
    #[arg(long)]
    what: What,
    /// How long, in seconds of processor time
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Where the figures go, as `mrf-load` writes them
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// TRANSFER_INIT parsed, its ticket opened, verified and answered
    Transfer,
    /// REQUEST_INIT_PSK answered with a ticket
    Issue,
    /// RESOLVE_INIT_PSK answered with the keys in a ticket
    Resolve,
    /// The least cryptography of a message: its keys derived, one MAC, one KEMAC
    Primitives,
}

/// Of each run; the best of these counts, as whatever disturbs only takes time.
const ROUNDS: u32 = 10;
/// Messages made before they are answered, so that making them is not measured.
const BATCH: usize = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let round = Duration::from_secs_f64(cli.seconds / f64::from(ROUNDS));
    let per_second = match cli.what {
        What::Transfer => transfers(round),
        What::Issue => at_the_kms(requests(), round),
        What::Resolve => at_the_kms(resolves(), round),
        What::Primitives => primitives(round),
    };
    println!("{per_second:.0} per second");
    let report = format!("{{\"passed\":true,\"figures\":{{\"per_second\":{per_second:.1}}}}}\n");
    match cli.json.map(|path| std::fs::write(path, report)) {
        None | Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("key_exchange: {error}");
            ExitCode::FAILURE
        }
    }
}

fn transfers(round: Duration) -> f64 {
    let (mut responder, mut random) = (opening_responder(), counting_random());
    best(calls(true), round, |(transfer_init, at)| {
        let transfer = responder.check(transfer_init, "mikey", *at).expect("acceptable");
        let content = responder.open(&transfer).expect("ours").expect("its key is held");
        let (_, response) =
            transfer.finish(&mut responder, content, *at, &mut random).expect("answered");
        assert!(!response.is_empty());
    })
}

fn at_the_kms(make: impl FnMut() -> Made, round: Duration) -> f64 {
    let (mut kms, mut random) = (kms(), counting_random());
    best(make, round, |(request, at)| {
        let response = kms.try_handle(request, *at, &mut random).expect("answered");
        assert!(!response.is_empty());
    })
}

/// Of a message of the size of a TRANSFER_INIT.
fn primitives(round: Duration) -> f64 {
    let make = || (vec![7; 400], control_api::mikey::NtpTime(1));
    let key = [3; 16];
    best(make, round, |(message, at)| {
        let source = KeySource::initial_message(Prf::Mikey1, &key, at.0 as u32, &[5; 16], &[]);
        let mac = protection::mac(&source, MacAlgorithm::HmacSha1, &[message]);
        let mut keys = [9; 64];
        protection::apply_aes_cm(&source, Encryption::AesCm128, 1, at.0, &mut keys);
        assert!(std::hint::black_box(mac).len() + std::hint::black_box(keys).len() == 84);
    })
}

/// The most that were done in a second of one of the rounds.
fn best(mut make: impl FnMut() -> Made, round: Duration, mut answer: impl FnMut(&Made)) -> f64 {
    let mut best = 0.0_f64;
    for _ in 0..ROUNDS {
        let (mut spent, mut done) = (Duration::ZERO, 0_usize);
        while spent < round {
            let batch: Vec<Made> = (0..BATCH).map(|_| make()).collect();
            let begun = processor_time();
            batch.iter().for_each(&mut answer);
            spent += processor_time() - begun;
            done += BATCH;
        }
        best = best.max(done as f64 / spent.as_secs_f64());
    }
    best
}

/// Of this thread: what others do meanwhile is not counted.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
