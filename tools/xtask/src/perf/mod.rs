//! The node beside its peers: same generator, same traffic, same cores, in turn.

use std::process::ExitCode;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: &Options) -> ExitCode {
    ExitCode::FAILURE
}
