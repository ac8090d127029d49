//! Fuzzing: builds the targets of `tools/fuzz` with coverage, and runs them in turn.
//!
//! On the stable compiler: what libFuzzer needs of it are passes of LLVM, which it has.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::cargo::{self, Result, text_of, workspace};

/// What to fuzz.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Options {
    /// Targets (all of them, if none is named)
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// When it is over, keep in tools/fuzz/corpus what is needed for the same coverage
    #[arg(long)]
    minimise: bool,
    /// Print the names of the targets
    #[arg(long)]
    list: bool,
}

const HELP: &str = "\
Needs g++ (Debian package g++). What is found on the way lies in target/fuzz/work and is gone on with the
next time; an input that fails goes to target/fuzz/failures and is named. Put it into tools/fuzz/corpus:
the ordinary tests replay what is there.

Exit status: 0 if nothing failed, 1 if something did.";

/// What of LLVM's coverage libFuzzer goes by.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// An input that takes longer is a finding.
const TIMEOUT_SECONDS: u32 = 20;
/// Inputs of the corpus that is committed are no longer than that.
const KEPT_BYTES_MAX: usize = 4096;

pub(crate) fn run(options: &Options) -> ExitCode {
    match fuzz(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing failed.
fn fuzz(options: &Options) -> Result<bool> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let directory = target.unwrap_or_else(|| workspace().join("target")).join("fuzz");
    let program = build(&directory)?;
    let listed = text_of(Command::new(&program).env("MRF_FUZZ_LIST", "1"))?;
    let all: Vec<&str> = listed.lines().collect();
    if options.list {
        print!("{listed}");
        return Ok(true);
    }
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(&name.as_str())) {
        return Err(format!("there is no target {unknown}, but {}", all.join(", ")));
    }
    let wanted: Vec<&str> = match options.targets.is_empty() {
        true => all,
        false => options.targets.iter().map(String::as_str).collect(),
    };
    let mut outcomes = Vec::new();
    for (index, name) in wanted.iter().enumerate() {
        eprintln!("== {name} ({} of {}), {} s", index + 1, wanted.len(), options.seconds);
        let target = Target { program: &program, name, directory: &directory };
        let outcome = target.fuzz(options.seconds)?;
        if options.minimise && !outcome.failed {
            target.minimise()?;
        }
        outcomes.push((*name, outcome));
    }
    print!("{}", table(&outcomes));
    Ok(outcomes.iter().all(|(_, outcome)| !outcome.failed))
}

/// In a directory of its own: everything is built with coverage there.
fn build(directory: &Path) -> Result<PathBuf> {
    let host = text_of(Command::new("rustc").arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("rustc does not say what it builds for")?;
    let mut command = cargo::command();
    command.env("RUSTFLAGS", COVERAGE.join(" ")).env("CARGO_TARGET_DIR", directory);
    command.args(["build", "--package", "fuzz", "--features", "engine", "--profile", "fuzz"]);
    // Named, so that build scripts and macros are spared the coverage.
    command.args(["--target", host]);
    cargo::executable(&mut command)
}

struct Target<'a> {
    program: &'a Path,
    name: &'a str,
    directory: &'a Path,
}

/// What became of a target.
#[derive(Clone, Default, PartialEq, Debug)]
struct Outcome {
    executions: u64,
    /// Edges of the program that were taken.
    edges: u64,
    /// Edges by how often, and comparisons.
    features: u64,
    seconds: f64,
    failed: bool,
}

impl Target<'_> {
    fn committed(&self) -> PathBuf {
        workspace().join("tools/fuzz/corpus").join(self.name)
    }

    fn work(&self) -> PathBuf {
        self.directory.join("work").join(self.name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.env("MRF_FUZZ_TARGET", self.name).arg(format!("-timeout={TIMEOUT_SECONDS}"));
        command
    }

    fn fuzz(&self, seconds: u32) -> Result<Outcome> {
        let failures = self.directory.join("failures");
        let mut command = self.command();
        command.env("MRF_FUZZ_SEEDS", make(&self.work())?);
        command.arg(format!("-max_total_time={seconds}")).arg(format!(
            "-artifact_prefix={}/{}-",
            make(&failures)?.display(),
            self.name
        ));
        command.arg(self.work()).arg(make(&self.committed())?);
        let begun = Instant::now();
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        let mut outcome = Outcome::default();
        let mut shown = Instant::now();
        for line in
            child.stderr.take().into_iter().flat_map(|errors| BufReader::new(errors).lines())
        {
            // An input that fails may be printed, whatever it is.
            let Ok(line) = line else { continue };
            let is_progress = outcome.take(&line);
            if !is_progress {
                if is_of_interest(&line) {
                    eprintln!("{line}");
                }
            } else if shown.elapsed().as_millis() > 900 {
                shown = Instant::now();
                let (runs, edges) = (outcome.executions, outcome.edges);
                eprint!(
                    "\r{:>5.0} s {runs:>12} runs {edges:>7} edges",
                    begun.elapsed().as_secs_f64()
                );
                let _ = std::io::stderr().flush();
            }
        }
        eprintln!();
        let status = child.wait().map_err(|error| error.to_string())?;
        outcome.seconds = begun.elapsed().as_secs_f64();
        outcome.failed = !status.success();
        if outcome.failed {
            eprintln!("{} failed ({status}): see {}", self.name, failures.display());
        }
        Ok(outcome)
    }

    /// Replaces what is committed by the least that covers as much as it and all that was found.
    fn minimise(&self) -> Result<()> {
        let (committed, old) = (self.committed(), self.directory.join("old").join(self.name));
        if old.exists() {
            std::fs::remove_dir_all(&old).map_err(|error| error.to_string())?;
        }
        make(old.parent().unwrap_or(&old))?;
        std::fs::rename(&committed, &old).map_err(|error| error.to_string())?;
        let mut command = self.command();
        command.args(["-merge=1", &format!("-max_len={KEPT_BYTES_MAX}")]);
        text_of(command.arg(make(&committed)?).arg(&old).arg(self.work()))?;
        // What once failed stays, whatever it covers.
        for entry in std::fs::read_dir(&old).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            let name = path.file_name().unwrap_or_default();
            if name.to_string_lossy().starts_with(FAILED_ONCE) {
                std::fs::copy(&path, committed.join(name)).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

/// How the name of an input begins that once failed.
const FAILED_ONCE: &str = "failed-";

impl Outcome {
    /// Reads a line of libFuzzer's: `#1024 pulse cov: 517 ft: 2034 corp: 80/12Kb exec/s: 512 …`.
    fn take(&mut self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix('#') else { return false };
        let mut words = rest.split_ascii_whitespace();
        let Some(executions) = words.next().and_then(|word| word.parse().ok()) else {
            return false;
        };
        self.executions = executions;
        let words: Vec<&str> = words.collect();
        for pair in words.windows(2) {
            let value = pair[1].parse();
            match (pair[0], value) {
                ("cov:", Ok(edges)) => self.edges = edges,
                ("ft:", Ok(features)) => self.features = features,
                _ => {}
            }
        }
        true
    }
}

/// Of the lines that are no progress: what failed, and where.
fn is_of_interest(line: &str) -> bool {
    !(line.is_empty() || line.starts_with("INFO:") || line.starts_with("Done "))
}

fn make(directory: &Path) -> Result<&Path> {
    std::fs::create_dir_all(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory)
}

/// As tools/fuzz/README.md has it.
fn table(outcomes: &[(&str, Outcome)]) -> String {
    let mut text = "| target | executions | edges | features | seconds | failed |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for (name, outcome) in outcomes {
        let Outcome { executions, edges, features, seconds, failed } = outcome;
        let failed = if *failed { "yes" } else { "no" };
        text += &format!(
            "| {name} | {executions} | {edges} | {features} | {seconds:.0} | {failed} |\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_what_the_engine_says() {
        let mut outcome = Outcome::default();
        assert!(
            outcome.take("#1024\tpulse  cov: 517 ft: 2034 corp: 80/12Kb exec/s: 512 rss: 40Mb")
        );
        let expected = Outcome { executions: 1024, edges: 517, features: 2034, ..outcome.clone() };
        assert_eq!(outcome, expected);
        assert!(outcome.take("#4096 DONE cov: 600 ft: 2100 corp: 90/13Kb lim: 4096 exec/s: 600"));
        assert_eq!((outcome.executions, outcome.edges, outcome.features), (4096, 600, 2100));
        for other in ["INFO: Seed: 1", "", "#x", "thread '<unnamed>' panicked at a.rs:1:2:"] {
            assert!(!outcome.take(other), "{other}");
        }
    }

    #[test]
    fn what_failed_is_shown_and_chatter_is_not() {
        assert!(is_of_interest("thread '<unnamed>' panicked at a.rs:1:2:"));
        assert!(!is_of_interest("INFO: Loaded 1 PC tables"));
        let outcome = Outcome { executions: 5, failed: true, ..Outcome::default() };
        assert!(table(&[("codec", outcome)]).ends_with("| codec | 5 | 0 | 0 | 0 | yes |\n"));
    }
}
