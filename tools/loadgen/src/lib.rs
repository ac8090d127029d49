//! A fleet of UEs that takes a media node to its limit and checks what it delivers.
//!
//! - [`scenario`]: who calls which room and what they say there.
//! - [`signalling`]: SIP, all calls over one socket; the offer and the answer.
//! - [`security`]: the key of a protected session.
//! - [`media`]: pinned threads, each with its own ring: connections, TLS, MSRP.
//! - [`expectation`]: the oracle that finds what was lost, doubled, or out of order.
//! - [`fleet`]: one run from the first INVITE to the last BYE.
//! - [`wire`]: the same without SIP, against whoever is reached directly.
//! - [`accounting`]: processor time and memory, the node's and our own.
//! - [`script`]: scenario files, phase by phase; [`merge`]: the reports of several generators.
//! - [`report`], [`display`]: what it has shown, after and meanwhile.
#![forbid(unsafe_code)]

pub mod accounting;
pub mod cli;
pub mod display;
pub mod expectation;
pub mod fleet;
pub mod media;
pub mod merge;
pub mod report;
pub mod scenario;
pub mod script;
pub mod security;
pub mod signalling;
pub mod wire;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use self::accounting::Processes;
use self::cli::{ScenarioName, Scenarios};

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

/// What a run has shown.
#[derive(Debug)]
pub enum Outcome {
    /// With SIP.
    Calls(Box<report::Report>),
    /// Without.
    Wire(Box<wire::WireReport>),
    /// A scenario file.
    Script(Box<script::ScriptReport>),
    /// Of several generators.
    Merged(Box<merge::MergedReport>),
}

impl Outcome {
    /// Every expectation held.
    #[must_use]
    pub fn passed(&self) -> bool {
        match self {
            Self::Calls(report) => report.passed,
            Self::Wire(report) => report.passed,
            Self::Script(report) => report.passed,
            Self::Merged(report) => report.passed,
        }
    }

    /// The table.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Calls(report) => report.to_text(),
            Self::Wire(report) => report.to_text(),
            Self::Script(report) => report.to_string(),
            Self::Merged(report) => report.to_text(),
        }
    }
}

/// Runs what the command line says, and writes the JSON file where one is asked for.
pub fn run(command: cli::Command) -> Result<Outcome, Error> {
    let scenario = match command {
        cli::Command::Run(scenario) => scenario,
        cli::Command::Merge(options) => {
            let report = merge::merge(&options.reports)?;
            Record::of(options.json.as_deref())?.write(&report)?;
            return Ok(Outcome::Merged(Box::new(report)));
        }
    };
    match scenario {
        Scenarios::File(words) => run_file(&words),
        Scenarios::Chat(options) => run_calls(*options, ScenarioName::Chat),
        Scenarios::Pairs(options) => run_calls(*options, ScenarioName::Pairs),
        Scenarios::Burst(options) => run_calls(*options, ScenarioName::Burst),
        Scenarios::FileAndChat(options) => run_calls(*options, ScenarioName::FileAndChat),
        Scenarios::StalledReceiver(options) => run_calls(*options, ScenarioName::StalledReceiver),
        Scenarios::Calls(options) => run_calls(*options, ScenarioName::Calls),
        Scenarios::Bulk(options) => match options.plan().map_err(Error::Usage)? {
            Some(plan) => run_wire(plan, &options.run.recording),
            None => run_calls(options.run, ScenarioName::Bulk),
        },
        Scenarios::Relay(options) => {
            run_wire(options.plan().map_err(Error::Usage)?, &options.wire.recording)
        }
        Scenarios::Raw(options) => run_wire(options.plan(), &options.wire.recording),
        Scenarios::Plane(options) => {
            run_wire(options.plan().map_err(Error::Usage)?, &options.wire.recording)
        }
    }
}

fn run_calls(mut options: cli::Run, scenario: ScenarioName) -> Result<Outcome, Error> {
    options.scenario = scenario;
    let scenario = options.to_scenario().map_err(Error::Usage)?;
    let connections = scenario.churn.map_or(options.sessions, |churn| 4 * churn.concurrency);
    check_descriptors(connections)?;
    let record = Record::open(&options.recording)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(fleet::run(&options, &scenario))?;
    record.write(&report)?;
    Ok(Outcome::Calls(Box::new(report)))
}

/// `run FILE.toml [--json FILE]`.
fn run_file(words: &[String]) -> Result<Outcome, Error> {
    let (file, json) = match words {
        [file] => (file, None),
        [file, option, json] if option == "--json" => (file, Some(Path::new(json))),
        _ => {
            let what = words.first().map_or("", String::as_str);
            return Err(Error::Usage(format!(
                "{what}: neither a scenario nor `FILE.toml [--json FILE]`"
            )));
        }
    };
    if !file.ends_with(".toml") {
        return Err(Error::Usage(format!("{file}: there is no such scenario")));
    }
    let record = Record::of(json)?;
    let report = script::run(Path::new(file))?;
    record.write(&report)?;
    Ok(Outcome::Script(Box::new(report)))
}

fn run_wire(plan: wire::Plan, recording: &cli::Recording) -> Result<Outcome, Error> {
    check_descriptors(plan.links)?;
    let record = Record::open(recording)?;
    let mut report = wire::run(plan, &record.node)?;
    report.commit.clone_from(&recording.commit);
    record.write(&report)?;
    Ok(Outcome::Wire(Box::new(report)))
}

/// Where a run is recorded, and whose figures.
struct Record {
    json: Option<File>,
    node: Processes,
}

impl Record {
    /// Opened before the run, so that its figures are not lost to a wrong name.
    fn open(recording: &cli::Recording) -> Result<Self, Error> {
        let node = Processes::new(recording.node_pid.clone());
        if let Some(pid) = node.missing() {
            return Err(Error::Usage(format!("--node-pid {pid}: no such process on this machine")));
        }
        Ok(Self { json: recording.json.as_deref().map(create).transpose()?, node })
    }

    /// Only a file.
    fn of(json: Option<&Path>) -> Result<Self, Error> {
        Ok(Self { json: json.map(create).transpose()?, node: Processes::default() })
    }

    fn write(self, report: &impl serde::Serialize) -> Result<(), Error> {
        let Some(mut file) = self.json else { return Ok(()) };
        file.set_len(0)?;
        serde_json::to_writer_pretty(&mut file, report).map_err(io::Error::other)?;
        Ok(file.write_all(b"\n")?)
    }
}

fn create(path: &Path) -> io::Result<File> {
    // Not truncated yet: a run that cannot begin leaves the figures of the last one.
    let file = File::options().write(true).create(true).truncate(false).open(path);
    file.map_err(|error| {
        io::Error::new(error.kind(), format!("--json {}: {error}", path.display()))
    })
}

/// There is a descriptor for every connection.
fn check_descriptors(connections: u32) -> Result<(), Error> {
    let descriptors_max = mrfp_io::raise_descriptor_limit()?;
    let needed = u64::from(connections) + OTHER_DESCRIPTORS;
    if needed > descriptors_max {
        return Err(Error::Usage(format!(
            "{connections} connections need {needed} descriptors and this process may open \
             {descriptors_max}: raise `ulimit -n` or spread them over several generators"
        )));
    }
    Ok(())
}

/// Standard streams, rings, doorbells, files; ample.
const OTHER_DESCRIPTORS: u64 = 64;
