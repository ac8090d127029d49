//! Tasks of developers that are more than one command of cargo.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod cargo;
mod fuzz;
mod instructions;
mod perf;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of developers")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure the node beside its peers and write perf/results
    Perf(perf::Options),
    /// Count the instructions of the hot paths and compare them with the committed baseline
    Instructions(instructions::Options),
    /// Fuzz the parsers and state machines
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    match Cli::parse().task {
        Task::Perf(options) => perf::run(&options),
        Task::Instructions(options) => instructions::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
    }
}
