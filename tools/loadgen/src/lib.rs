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

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

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
    check_process(options)?;
    check_descriptors(options)?;
    // Opened before the run, so that its figures are not lost to a wrong name.
    let json = options.json.as_deref().map(create).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(fleet::run(options, &scenario))?;
    if let Some(mut file) = json {
        file.set_len(0)?;
        serde_json::to_writer_pretty(&mut file, &report).map_err(io::Error::other)?;
        file.write_all(b"\n")?;
    }
    Ok(report)
}

fn create(path: &Path) -> io::Result<File> {
    // Not truncated yet: a run that cannot begin leaves the figures of the last one.
    let file = File::options().write(true).create(true).truncate(false).open(path);
    file.map_err(|error| {
        io::Error::new(error.kind(), format!("--json {}: {error}", path.display()))
    })
}

/// The node's processor time can be read.
fn check_process(options: &cli::Run) -> Result<(), Error> {
    match options.node_pid {
        Some(process) if media::cpu_ticks(&format!("/proc/{process}/stat")).is_none() => {
            Err(Error::Usage(format!("--node-pid {process}: no such process on this machine")))
        }
        _ => Ok(()),
    }
}

/// There is a descriptor for every UE.
fn check_descriptors(options: &cli::Run) -> Result<(), Error> {
    let descriptors_max = mrfp_io::raise_descriptor_limit()?;
    let needed = u64::from(options.sessions) + OTHER_DESCRIPTORS;
    if needed > descriptors_max {
        return Err(Error::Usage(format!(
            "{} UEs need {needed} descriptors and this process may open {descriptors_max}: raise \
             `ulimit -n` or spread the UEs over several generators",
            options.sessions
        )));
    }
    Ok(())
}

/// Standard streams, rings, doorbells, files; ample.
const OTHER_DESCRIPTORS: u64 = 64;
