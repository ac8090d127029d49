//! The node beside its peers: same generator, same traffic, same cores, in turn. The method, and what
//! may be concluded from it, is in perf/README.md.

mod goal;
mod machine;
mod measures;
mod peers;
mod plan;
mod process;
mod remarks;
mod report;
mod results;
mod runner;
mod runtimes;
mod saturation;
mod statistics;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use self::machine::Processors;
use self::peers::{Binaries, Stage, Subject};
use self::plan::{Entry, Round};
use self::results::{Measure, Results};
use self::runner::Extent;
use crate::cargo::workspace;

/// What to measure.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Options {
    /// Shorter runs and three repetitions: to look at, not to publish
    #[arg(long)]
    quick: bool,
    /// Only these: `P1`, `P2-psk`, … (`P2`: all its parts)
    #[arg(long, value_name = "P1,P5", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each program runs, in turn with those it is compared with [default: 5; --quick: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    repetitions: Option<u32>,
    /// Where the results go
    #[arg(long, value_name = "DIR", default_value = "perf/results")]
    results: PathBuf,
    /// Keep what the programs said and their configurations, and say where
    #[arg(long)]
    keep_logs: bool,
    /// Take mrf, mrf-load, bare, plane, floors, gateway, records and key_exchange from there instead of building them
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Measure nothing: make table and page again of a recorded run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "quick", "repetitions"])]
    render: Option<PathBuf>,
    /// Put the table into README.md, too
    #[arg(long)]
    publish: bool,
    /// Measure the runtimes instead: the same echo on mrfp-io, tokio-uring and glommio
    #[arg(long, conflicts_with_all = ["only", "render", "publish", "binaries", "keep_logs"])]
    runtimes: bool,
}

const HELP: &str = "\
Measures nothing that is not there: a program that is missing is named with its Debian package, and what
needs it is left out. Installs nothing. Close everything else that computes; a run takes some ten minutes,
a quick one three or four.

First looks:
    cargo xtask perf --quick --only P1      one line, half a minute, needs kamailio
    cargo xtask perf --quick                all of them, three or four minutes
    cargo xtask perf --runtimes --quick     what carries the node beside what else could
Peers: apt-get install kamailio kamailio-tls-modules stunnel4 haproxy openssl

Writes DATE-COMMIT.json, .md and .html, and copies of them as latest.*; with --only the selection is in the
name and latest.* stays as it is.

Exit status: 0 if everything asked for was measured (whether or not the goals are met), 1 if not.";

/// Runs.
pub(crate) fn run(options: &Options) -> ExitCode {
    let outcome = match &options.render {
        Some(recorded) => render(options, recorded),
        None if options.runtimes => runtimes::measure(options),
        None => measure(options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `Ok(false)`: something is without a figure.
fn measure(options: &Options) -> Result<bool, String> {
    let rounds = select(&options.only)?;
    let processors = Processors::of_this_process()
        .ok_or("node and generator need a processor each, and there is but one")?;
    let binaries = match &options.binaries {
        Some(directory) => Binaries::of(|name| Some(directory.join(name))),
        None => build(),
    }?;
    process::watch_for_signals().map_err(|error| error.to_string())?;
    let peers = say_what_is_missing(&rounds);
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let stage = Stage { binaries, processors, directory: directory.path().to_owned() };
    stage.prepare()?;
    let machine = machine::describe(&stage.processors, Some(&stage.binaries.records));
    if machine.load_average > 0.5 {
        eprintln!("the machine is busy (load average {})", machine.load_average);
    }
    let extent = Extent {
        repetitions: options.repetitions.unwrap_or(if options.quick { 3 } else { 5 }),
        run_seconds: if options.quick { 0.4 } else { 1.6 },
    };
    let (began, date) = (Instant::now(), SystemTime::now());
    let cases = runner::run(&stage, &rounds, extent);
    if options.keep_logs {
        eprintln!("logs and configurations: {}", directory.keep().display());
    }
    process::check_interrupt()?;
    let entries = rounds.iter().flat_map(|round| &round.entries);
    let results = Results {
        machine,
        commit: commit(),
        date: timestamp(date),
        command: command(options),
        repetitions: extent.repetitions,
        quick: options.quick,
        seconds: began.elapsed().as_secs_f64().round(),
        peers,
        measures: judge(entries, &cases),
        cases,
    };
    let recorded = write(options, &results)?;
    print!("{}", report::table(&results, &recorded.display().to_string()));
    if let Some(next) = next_step(&results) {
        eprintln!("{next}");
    }
    Ok(results.measures.iter().all(|(_, measure)| measure.ours.is_some()))
}

/// What is to be done where something is without a figure, its own or the one beside it.
fn next_step(results: &Results) -> Option<String> {
    let lacks = |measure: &Measure| {
        measure.ours.is_none() || measure.anchor_case.is_some() && measure.anchor.is_none()
    };
    let lacking: Vec<&str> = results
        .measures
        .iter()
        .filter(|(_, measure)| measure.parts.is_empty() && lacks(measure))
        .map(|(identifier, _)| identifier.as_str())
        .collect();
    let remedies: BTreeSet<&str> = results
        .peers
        .values()
        .filter_map(|said| Some(said.split_once("install the Debian package ")?.1))
        .collect();
    let packages: Vec<&str> = remedies.into_iter().collect();
    let first = match packages[..] {
        [] => "the remarks in the .md say why; --keep-logs keeps what the programs said".to_owned(),
        _ => format!("apt-get install {}", packages.join(" ")),
    };
    let lacking = Some(lacking.join(",")).filter(|all| !all.is_empty())?;
    Some(format!("without a figure: {lacking}. {first}; then cargo xtask perf --only {lacking}"))
}

/// The rounds that are left of all where only these are asked for.
fn select(only: &[String]) -> Result<Vec<Round>, String> {
    let all = measures::rounds();
    let known: BTreeSet<_> = all
        .iter()
        .flat_map(|round| &round.entries)
        .flat_map(|entry| [entry.identifier, entry.goal_identifier()])
        .collect();
    if let Some(name) = only.iter().find(|name| {
        !known.contains(name.to_uppercase().as_str()) && !known.contains(name.as_str())
    }) {
        let known: Vec<_> = known.into_iter().collect();
        return Err(format!("there is no {name}, but {}", known.join(", ")));
    }
    Ok(all.iter().filter_map(|round| round.only(only)).collect())
}

/// Our own programs, in release.
fn build() -> Result<Binaries, String> {
    eprintln!("building");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args(["build", "--release", "--message-format=json-render-diagnostics"])
        .args(["-p", "control-api", "-p", "loadgen", "-p", "perf-targets", "--bins"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err("cargo build failed".to_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let executables: BTreeMap<String, PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect();
    Binaries::of(|name| executables.get(name).cloned())
}

/// Of everything the rounds need: its version, or that it is missing.
fn say_what_is_missing(rounds: &[Round]) -> BTreeMap<String, String> {
    let subjects: BTreeSet<Subject> =
        rounds.iter().flat_map(|round| &round.cases).map(|case| case.subject).collect();
    let mut peers = BTreeMap::new();
    for subject in subjects {
        if let Some(missing) = subject.missing() {
            eprintln!("{missing}");
            peers.insert(subject.name(), missing);
        } else if let Some(version) = subject.version() {
            peers.insert(subject.name(), version);
        }
    }
    peers
}

fn judge<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    cases: &BTreeMap<String, results::CaseRecord>,
) -> Vec<(String, Measure)> {
    let mut measures: Vec<_> = entries
        .map(|entry| {
            let command = format!("cargo xtask perf --only {}", entry.identifier);
            (entry.identifier.to_owned(), runner::judge(entry, cases, command))
        })
        .collect();
    measures.extend(runner::join_parts(&measures));
    // A goal before its parts, and they as they were planned.
    measures.sort_by_key(|(identifier, measure)| {
        (results::goal_number(identifier), measure.parts.is_empty())
    });
    measures
}

/// The file, the table and the page; whole runs as the latest, too. Where the file is.
fn write(options: &Options, results: &Results) -> Result<PathBuf, String> {
    let directory = workspace().join(&options.results);
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let mut name = format!("{}-{}", &results.date[..10], results.commit);
    if !options.only.is_empty() {
        name = format!("{name}-{}", options.only.join("-"));
    }
    write_as(&directory.join(&name), results)?;
    if options.only.is_empty() {
        write_as(&directory.join("latest"), results)?;
    }
    eprintln!("written: {}.json, .md, .html", options.results.join(&name).display());
    let recorded = options.results.join(format!("{name}.json"));
    if options.publish {
        publish(results, &recorded)?;
    }
    Ok(recorded)
}

fn write_as(path: &Path, results: &Results) -> Result<(), String> {
    let json = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
    let recorded = path.with_extension("json");
    let recorded = recorded.file_name().unwrap_or_default().to_string_lossy();
    let files = [
        ("json", format!("{json}\n")),
        ("md", report::document(results, &recorded)),
        ("html", report::page(results)),
    ];
    for (extension, content) in files {
        let path = path.with_extension(extension);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// The table where everybody looks first.
fn publish(results: &Results, recorded: &Path) -> Result<(), String> {
    let path = workspace().join("README.md");
    let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let text = with_table(&text, &report::table(results, &recorded.display().to_string()))
        .ok_or("README.md has no place for the table")?;
    fs::write(&path, text).map_err(|error| error.to_string())
}

/// Table and page of a recorded run, beside it.
fn render(options: &Options, recorded: &Path) -> Result<bool, String> {
    let text =
        fs::read_to_string(recorded).map_err(|error| format!("{}: {error}", recorded.display()))?;
    let results: Results =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", recorded.display()))?;
    write_as(&recorded.with_extension(""), &results)?;
    if options.publish {
        publish(&results, recorded)?;
    }
    Ok(true)
}

/// The text with the table between its two marks.
fn with_table(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(TABLE_BEGINS)?;
    let (_, after) = rest.split_once(TABLE_ENDS)?;
    Some(format!("{before}{TABLE_BEGINS}\n{table}{TABLE_ENDS}{after}"))
}

/// What was measured; with changes that are in no revision it is said to be dirty.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(workspace()).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    };
    let Some(revision) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // What a run itself writes, and what is said about it, changes nothing that is measured.
    let measured =
        ["--", "mrfp-core", "control-api", "tools", "perf/targets", "perf/peers", "Cargo.lock"];
    let changes = git(&[&["status", "--porcelain"], &measured[..]].concat());
    match changes.as_deref() {
        Some("") => revision,
        _ => format!("{revision}-dirty"),
    }
}

fn command(options: &Options) -> String {
    let mut command = "cargo xtask perf".to_owned();
    if options.quick {
        command.push_str(" --quick");
    }
    if !options.only.is_empty() {
        command = format!("{command} --only {}", options.only.join(","));
    }
    if let Some(repetitions) = options.repetitions {
        command = format!("{command} --repetitions {repetitions}");
    }
    command
}

/// `2026-11-21T17:00:00Z`.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in years that begin in March, so that the
/// leap day is a year's last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

const TABLE_BEGINS: &str = "<!-- perf table: written by cargo xtask perf --publish -->";
const TABLE_ENDS: &str = "<!-- end of perf table -->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_276_800), "2026-11-21T16:00:00Z");
    }

    #[test]
    fn a_measure_that_is_not_there_is_refused_by_name() {
        let error = select(&["P99".to_owned()]).unwrap_err();
        assert!(error.contains("P99") && error.contains("P4"), "{error}");
    }

    #[test]
    fn what_lacks_a_figure_is_named_with_what_to_do_next() {
        let mut results = report::tests::fixture();
        let missing = "haproxy is missing: install the Debian package haproxy".to_owned();
        results.peers.insert("haproxy".to_owned(), missing);
        let next = next_step(&results).unwrap();
        assert!(next.contains("apt-get install haproxy"), "{next}");
        assert!(next.contains("--only") && next.contains("P9"), "{next}");
        assert!(!next.contains("P1,"), "{next}");
        results.peers.clear();
        assert!(next_step(&results).unwrap().contains("--keep-logs"));
        results.measures.clear();
        assert_eq!(next_step(&results), None);
    }

    #[test]
    fn the_table_goes_between_its_marks() {
        let text = format!("a\n{TABLE_BEGINS}\nold\n{TABLE_ENDS}\nb\n");
        let expected = format!("a\n{TABLE_BEGINS}\nnew\n{TABLE_ENDS}\nb\n");
        assert_eq!(with_table(&text, "new\n").unwrap(), expected);
        assert_eq!(with_table("no marks", "new"), None);
    }
}
