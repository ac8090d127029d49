//! A fleet of UEs that takes a media node to its limit and checks what it delivers.
//!
//! - [`scenario`]: who calls which room and what they say there.
//! - [`signalling`]: SIP, all calls over one socket; the offer and the answer.
//! - [`security`]: the key of a protected session.
//! - [`media`]: pinned threads, each with its own ring: connections, TLS, MSRP.
//! - [`expectation`]: the oracle that finds what was lost, doubled, or out of order.
//! - [`fleet`]: one run from the first INVITE to the last BYE.
//! - [`report`], [`display`]: what it has shown, after and meanwhile.
#![forbid(unsafe_code)]

pub mod cli;
pub mod display;
pub mod expectation;
pub mod fleet;
pub mod media;
pub mod report;
pub mod scenario;
pub mod security;
pub mod signalling;

use std::io;

/// Why there is no report.
#[derive(Debug)]
pub enum Error {
    /// The command line makes no sense.
    Usage(String),
    /// The machine refused, or SIP's transport broke.
    Io(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Runs what the command line says, and writes the JSON file where one is asked for.
pub fn run(options: &cli::Run) -> Result<report::Report, Error> {
    let scenario = options.to_scenario().map_err(Error::Usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(fleet::run(options, &scenario))?;
    if let Some(path) = &options.json {
        let mut json = serde_json::to_string_pretty(&report).map_err(io::Error::other)?;
        json.push('\n');
        std::fs::write(path, json)?;
    }
    Ok(report)
}
