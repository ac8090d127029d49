//! A fleet of UEs that takes a media node to its limit and checks what it delivers.
//!
//! - [`scenario`]: who calls which room and what they say there.
//! - [`signalling`]: SIP, all calls over one socket; the offer and the answer.
//! - [`security`]: the key of a protected session.
//! - [`media`]: pinned threads, each with its own ring: connections, TLS, MSRP.
//! - [`expectation`]: the oracle that finds what was lost, doubled, or out of order.
//! - [`fleet`]: one run from the first INVITE to the last BYE.
//! - [`border`]: calls through a border, of which the fleet is both ends.
//! - [`wire`]: the same without SIP, against whoever is reached directly.
//! - [`accounting`]: processor time and memory, the node's and our own.
//! - [`processes`]: several processes that share one load.
//! - [`script`]: scenario files, phase by phase; [`merge`]: the reports of several generators.
//! - [`report`], [`display`]: what it has shown, after and meanwhile.
#![forbid(unsafe_code)]

pub mod accounting;
pub mod border;
pub mod cli;
pub mod display;
pub mod expectation;
pub mod fleet;
pub mod media;
pub mod merge;
pub mod processes;
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
use self::cli::{ScenarioName, Scenarios, Share, Spread};

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
    /// Rooms with floors.
    Floors(Box<FloorsReport>),
    /// Through a border.
    Border(Box<BorderReport>),
    /// Without.
    Wire(Box<wire::WireReport>),
    /// A scenario file.
    Script(Box<script::ScriptReport>),
    /// Of several generators.
    Merged(Box<merge::MergedReport>),
    /// Of one of several processes, for the one that has started them.
    Share(serde_json::Value),
}

impl Outcome {
    /// Every expectation held.
    #[must_use]
    pub fn passed(&self) -> bool {
        match self {
            Self::Calls(report) => report.passed,
            Self::Floors(report) => report.passed,
            Self::Border(report) => report.passed,
            Self::Wire(report) => report.passed,
            Self::Script(report) => report.passed,
            Self::Merged(report) => report.passed,
            Self::Share(report) => report["passed"] == true,
        }
    }

    /// The table.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Calls(report) => report.to_text(),
            Self::Floors(report) => report.calls.to_text() + &report.floors.to_text(),
            Self::Border(report) => report.calls.to_text() + &report.media.to_text(),
            Self::Wire(report) => report.to_text(),
            Self::Script(report) => report.to_string(),
            Self::Merged(report) => report.to_text(),
            Self::Share(report) => report.to_string(),
        }
    }
}

/// Runs what the command line says, and writes the JSON file where one is asked for. `words` are those
/// the command was read from, for other processes to begin with.
pub fn run(command: cli::Command, words: &[String]) -> Result<Outcome, Error> {
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
        Scenarios::Chat(options) => run_calls(*options, ScenarioName::Chat, words),
        Scenarios::Pairs(options) => run_calls(*options, ScenarioName::Pairs, words),
        Scenarios::Burst(options) => run_calls(*options, ScenarioName::Burst, words),
        Scenarios::FileAndChat(options) => run_calls(*options, ScenarioName::FileAndChat, words),
        Scenarios::StalledReceiver(options) => {
            run_calls(*options, ScenarioName::StalledReceiver, words)
        }
        Scenarios::Calls(options) => run_calls(*options, ScenarioName::Calls, words),
        Scenarios::Bulk(options) if options.sink.is_none() && options.run.target.is_sip() => {
            run_calls(options.run, ScenarioName::Bulk, words)
        }
        Scenarios::Bulk(options) => {
            let cli::Run { spread, recording, .. } = &options.run;
            run_wire(spread, recording, words, |share| options.plan(share))
        }
        Scenarios::Bfcp(options) if options.run.target.is_sip() => run_floors(&options),
        Scenarios::Bfcp(options) => {
            let cli::Run { spread, recording, .. } = &options.run;
            run_wire(spread, recording, words, |share| options.plan(share))
        }
        Scenarios::Relay(options) => run_bare(&options.wire, words, |share| options.plan(share)),
        Scenarios::Raw(options) => run_bare(&options.wire, words, |share| options.plan(share)),
        Scenarios::E2ae(options) => run_e2ae(&options),
        Scenarios::Fax(options) => run_fax(&options),
        Scenarios::Gateway(options) => run_bare(&options.wire, words, |share| options.plan(share)),
        Scenarios::Plane(options) => run_bare(&options.wire, words, |share| options.plan(share)),
    }
}

fn run_calls(
    mut options: cli::Run,
    scenario: ScenarioName,
    words: &[String],
) -> Result<Outcome, Error> {
    options.scenario = scenario;
    if let Some(count) = options.spread.to_start() {
        let sessions = |share| {
            options.spread.sources(share)?;
            Ok(options.to_scenario(share)?.sessions)
        };
        return run_processes(count, words, &options.recording, sessions);
    }
    let share = options.spread.own();
    let scenario = options.to_scenario(share).map_err(Error::Usage)?;
    let connections = scenario.churn.map_or(scenario.sessions, |churn| 4 * churn.concurrency);
    let sources = options.spread.sources(share).map_err(Error::Usage)?;
    check_descriptors(connections + sources.len() as u32)?;
    let record = Record::open(&options.recording, options.spread.share)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(fleet::run(&options, &scenario, sources, &record.node))?;
    record.finish(report, |report| Outcome::Calls(Box::new(report)))
}

/// What rooms with floors have shown.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FloorsReport {
    /// Every expectation held.
    pub passed: bool,
    /// Of the calls.
    pub calls: report::Report,
    /// Of what their participants have asked for.
    pub floors: wire::WireReport,
}

/// Calls, and floors in them.
fn run_floors(options: &cli::BfcpRun) -> Result<Outcome, Error> {
    let calls = options.calls().map_err(Error::Usage)?;
    if calls.spread.to_start().is_some() || calls.spread.share.is_some() {
        return Err(Error::Usage("--processes: calls with floors are one process's".to_owned()));
    }
    let share = calls.spread.own();
    let scenario = calls.to_scenario(share).map_err(Error::Usage)?;
    let plan = options.plan(share).map_err(Error::Usage)?;
    let sources = calls.spread.sources(share).map_err(Error::Usage)?;
    check_descriptors(2 * scenario.sessions + sources.len() as u32)?;
    let record = Record::open(&calls.recording, calls.spread.share)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = fleet::run_with_floors(&calls, &scenario, sources, &record.node, plan);
    let (calls, floors) = runtime.block_on(run)?;
    let passed = calls.passed && floors.passed;
    let report = FloorsReport { passed, calls, floors };
    record.finish(report, |report| Outcome::Floors(Box::new(report)))
}

/// What calls through a border have shown.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BorderReport {
    /// Every expectation held.
    pub passed: bool,
    /// Of the calls.
    pub calls: border::report::CallsThrough,
    /// Of what they carried.
    pub media: wire::WireReport,
}

/// Messages through a border.
fn run_e2ae(options: &cli::E2aeRun) -> Result<Outcome, Error> {
    let (plan, identities) = options.plan().map_err(Error::Usage)?;
    check_descriptors(plan.links)?;
    let recording = &options.wire.recording;
    let record = Record::open(recording, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = border::run_e2ae(options, plan, &identities, &record.node);
    let (calls, mut media) = runtime.block_on(run)?;
    media.commit.clone_from(&recording.commit);
    finish_border(record, calls, media)
}

/// Faxes, through a border or a gateway alone.
fn run_fax(options: &cli::FaxRun) -> Result<Outcome, Error> {
    let plan = options.plan().map_err(Error::Usage)?;
    check_descriptors(plan.links)?;
    let record = Record::open(&options.recording, None)?;
    let commit = &options.recording.commit;
    let Some(through) = options.border() else {
        let mut report = wire::run(plan, &record.node)?;
        report.commit.clone_from(commit);
        return record.finish(report, |report| Outcome::Wire(Box::new(report)));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = border::run_fax(&through, options.bit_rate, plan, &record.node);
    let (calls, mut media) = runtime.block_on(run)?;
    media.commit.clone_from(commit);
    finish_border(record, calls, media)
}

fn finish_border(
    record: Record,
    calls: border::report::CallsThrough,
    media: wire::WireReport,
) -> Result<Outcome, Error> {
    let report = BorderReport { passed: calls.passed && media.passed, calls, media };
    record.finish(report, |report| Outcome::Border(Box::new(report)))
}

/// Without SIP.
fn run_bare(
    options: &cli::WireOptions,
    words: &[String],
    plan: impl Fn(Share) -> Result<wire::Plan, String>,
) -> Result<Outcome, Error> {
    run_wire(&options.spread, &options.recording, words, plan)
}

fn run_wire(
    spread: &Spread,
    recording: &cli::Recording,
    words: &[String],
    plan: impl Fn(Share) -> Result<wire::Plan, String>,
) -> Result<Outcome, Error> {
    if let Some(count) = spread.to_start() {
        return run_processes(count, words, recording, |share| Ok(plan(share)?.links));
    }
    let plan = plan(spread.own()).map_err(Error::Usage)?;
    check_descriptors(plan.links)?;
    let record = Record::open(recording, spread.share)?;
    let mut report = wire::run(plan, &record.node)?;
    report.commit.clone_from(&recording.commit);
    record.finish(report, |report| Outcome::Wire(Box::new(report)))
}

/// Starts nothing unless every share makes sense; `sessions` are those of one.
fn run_processes(
    count: u32,
    words: &[String],
    recording: &cli::Recording,
    sessions: impl Fn(Share) -> Result<u32, String>,
) -> Result<Outcome, Error> {
    let shares = (0..count).map(|index| sessions(Share { index, count }));
    let sessions = shares.sum::<Result<u32, String>>().map_err(Error::Usage)?;
    let record = Record::open(recording, None)?;
    let report = processes::run(words, count, sessions)?;
    record.finish(report, |report| Outcome::Merged(Box::new(report)))
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

/// Where a run is recorded, and whose figures.
struct Record {
    json: Option<File>,
    node: Processes,
    /// The report is for the process that has started this one.
    is_share: bool,
}

impl Record {
    /// Opened before the run, so that its figures are not lost to a wrong name.
    fn open(recording: &cli::Recording, share: Option<Share>) -> Result<Self, Error> {
        // One of several processes measures the node, for all of them.
        let is_share = share.is_some();
        let measures = share.is_none_or(|share| share.index == 0);
        let node = if measures { recording.node_pid.clone() } else { Vec::new() };
        let node = Processes::new(node);
        if let Some(pid) = node.missing() {
            return Err(Error::Usage(format!("--node-pid {pid}: no such process on this machine")));
        }
        let json = recording.json.as_deref().filter(|_| !is_share);
        if is_share {
            processes::obey()?;
        }
        Ok(Self { json: json.map(create).transpose()?, node, is_share })
    }

    /// Only a file.
    fn of(json: Option<&Path>) -> Result<Self, Error> {
        let json = json.map(create).transpose()?;
        Ok(Self { json, node: Processes::default(), is_share: false })
    }

    fn finish<T: serde::Serialize>(
        self,
        report: T,
        outcome: impl FnOnce(T) -> Outcome,
    ) -> Result<Outcome, Error> {
        if self.is_share {
            return Ok(Outcome::Share(serde_json::to_value(&report).map_err(io::Error::other)?));
        }
        self.write(&report)?;
        Ok(outcome(report))
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
