//! The load generator.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use loadgen::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    match loadgen::run(Cli::parse().command, &words) {
        Ok(outcome) => {
            print!("{}", outcome.to_text());
            if outcome.passed() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(loadgen::Error::Usage(text)) => {
            eprintln!("error: {text}\n\nFor more information, try '--help'.");
            ExitCode::from(2)
        }
        Err(loadgen::Error::Io(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}
