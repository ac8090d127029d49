//! Instruction counts of the hot paths under callgrind, against the committed baseline.

use std::process::ExitCode;

/// What to count.
#[derive(clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: &Options) -> ExitCode {
    ExitCode::FAILURE
}
