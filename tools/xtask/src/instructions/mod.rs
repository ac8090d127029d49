//! Instruction counts of the hot paths under callgrind, against the committed baseline.
//!
//! Counts need no quiet machine: the same program gives the same count, to the instruction. What they
//! do depend on is named in the baseline ([`baseline::Environment`]); elsewhere nothing is judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

mod baseline;
mod callgrind;

use baseline::{Baseline, Environment};
use callgrind::Profile;

use crate::cargo::{self, Result, text_of, workspace};

/// What to count.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this case (may be repeated); `room-fanout-1000` and `room-fanout-1000-psk` are counted
    /// only by name
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Record what is counted as the new baseline
    #[arg(long)]
    update: bool,
    /// Print the functions that take most, without what they call
    #[arg(long)]
    profile: bool,
}

/// Functions printed by `--profile`.
const PROFILE_FUNCTIONS: usize = 15;
/// Relative to the root of the workspace.
const BASELINE: &str = "perf/instructions.json";

pub(crate) fn run(options: &Options) -> ExitCode {
    match count(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing has become worse.
fn count(options: &Options) -> Result<bool> {
    let valgrind = version_of("valgrind", "--version").map_err(|error| {
        format!("{error}; callgrind does the counting (Debian package valgrind)")
    })?;
    let program = build()?;
    let listed = text_of(Command::new(&program).arg("--list"))?;
    let all: Vec<&str> = listed.lines().collect();
    let wanted: Vec<&str> = match options.cases.is_empty() {
        true => all.clone(),
        false => options.cases.iter().map(String::as_str).collect(),
    };
    let mut counts = BTreeMap::new();
    let mut features = String::new();
    for case in wanted {
        let counted = run_case(&program, case)?;
        if options.profile {
            print_profile(case, &counted);
        }
        if all.contains(&case) {
            counts.insert(case.to_owned(), counted.instructions_per_message());
        } else {
            println!("{case}: {} instructions per message", counted.instructions_per_message());
        }
        features = counted.features;
    }
    let environment = Environment {
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        rustc: version_of("rustc", "--version")?,
        libc: version_of("getconf", "GNU_LIBC_VERSION")?,
        valgrind,
        features,
    };
    if counts.is_empty() {
        // None of these has a baseline.
        return Ok(true);
    }
    let measured = Baseline { environment, instructions_per_message: counts };
    let path = workspace().join(BASELINE);
    if options.update {
        let whole = options.cases.is_empty();
        let updated = if whole { measured } else { Baseline::read(&path)?.updated(measured)? };
        updated.write(&path)?;
        println!("{BASELINE} is updated");
        return Ok(true);
    }
    let report = Baseline::read(&path)?.compare(&measured);
    print!("{report}");
    Ok(!report.is_regression())
}

/// Builds the program as it is released; where it lies.
fn build() -> Result<PathBuf> {
    let mut command = cargo::command();
    command.args(["build", "--release", "--package", "benches", "--bin", "instructions"]);
    cargo::executable(&mut command)
}

/// One case, counted.
struct Counted {
    profile: Profile,
    messages: u64,
    features: String,
}

impl Counted {
    fn instructions_per_message(&self) -> u64 {
        self.profile.total() / self.messages
    }
}

fn run_case(program: &Path, case: &str) -> Result<Counted> {
    let directory = program.with_file_name("callgrind");
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let counts = directory.join(case);
    let mut command = Command::new("valgrind");
    command.args([
        "--quiet",
        "--tool=callgrind",
        // Counting is on in these, off in what lies between them and the network, and begins anew
        // after the warm-up.
        "--toggle-collect=instructions::counted::*",
        "--toggle-collect=<instructions::boundary::Boundary as *",
        "--zero-before=instructions::counted::from_here",
    ]);
    let mut file = std::ffi::OsString::from("--callgrind-out-file=");
    file.push(&counts);
    let said = text_of(command.arg(file).arg(program).arg(case))?;
    let value = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.ok_or_else(|| format!("the case {case} has not said its {name}"))
    };
    let messages = value("messages")?.parse().map_err(|error| format!("messages: {error}"))?;
    let features = value("features")?.to_owned();
    let text = std::fs::read_to_string(&counts)
        .map_err(|error| format!("{}: {error}", counts.display()))?;
    let profile = Profile::parse(&text);
    if profile.total() == 0 || messages == 0 {
        return Err(format!("nothing was counted in the case {case}"));
    }
    Ok(Counted { profile, messages, features })
}

fn print_profile(case: &str, counted: &Counted) {
    let total = counted.instructions_per_message();
    println!("{case}: {total} instructions per message, of which");
    for (function, instructions) in counted.profile.largest(PROFILE_FUNCTIONS) {
        let share = 100.0 * instructions as f64 / counted.profile.total() as f64;
        println!("{:>10} {share:>5.1} %  {function}", instructions / counted.messages);
    }
    println!();
}

fn version_of(program: &str, argument: &str) -> Result<String> {
    Ok(text_of(Command::new(program).arg(argument))?.trim().to_owned())
}
