//! The runtimes beside each other: what `cargo bench --bench runtimes` shows, on record.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde::Serialize;

use super::machine::Processors;
use super::results::Machine;
use super::statistics::Summary;
use super::{Options, commit, machine, timestamp};
use crate::cargo::workspace;

/// A whole comparison.
#[derive(Serialize)]
struct Comparison {
    machine: Machine,
    commit: String,
    date: String,
    /// Repeats it.
    command: String,
    /// In the order they were made: interleaved.
    runs: Vec<Run>,
}

/// One server under one load.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Run {
    runtime: String,
    connections: u32,
    /// Messages of each that are on their way.
    in_flight: u32,
    /// Of the server.
    cpu_us_per_echo: f64,
}

/// Runs it, and writes DATE-COMMIT-runtimes.json and .md.
pub(super) fn measure(options: &Options) -> Result<bool, String> {
    let processors = Processors::of_this_process()
        .ok_or("server and generator need a processor each, and there is but one")?;
    let repetitions = options.repetitions.unwrap_or(if options.quick { 3 } else { 5 });
    let seconds = if options.quick { 1 } else { 2 };
    let mut command = "cargo xtask perf --runtimes".to_owned();
    if options.quick {
        command.push_str(" --quick");
    }
    if let Some(repetitions) = options.repetitions {
        let _ = write!(command, " --repetitions {repetitions}");
    }
    eprintln!("building the servers, then {repetitions} runs of each under each load");
    let (machine, date) = (machine::describe(&processors, None), timestamp(SystemTime::now()));
    let runs = run(seconds, repetitions)?;
    let comparison = Comparison { machine, commit: commit(), date, command, runs };
    let directory = workspace().join(&options.results);
    let name = format!("{}-{}-runtimes", &comparison.date[..10], comparison.commit);
    let json = serde_json::to_string_pretty(&comparison).map_err(|error| error.to_string())?;
    let table = comparison.document();
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    for (extension, content) in [("json", format!("{json}\n")), ("md", table.clone())] {
        let path = directory.join(format!("{name}.{extension}"));
        std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    eprintln!("written: {}.json, .md", options.results.join(&name).display());
    print!("{table}");
    Ok(true)
}

/// The benchmark tells each run on standard error, among what cargo says.
fn run(seconds: u32, repetitions: u32) -> Result<Vec<Run>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        .current_dir(workspace())
        .args(["bench", "-p", "benches", "--bench", "runtimes", "--"])
        .args(["--seconds", &seconds.to_string(), "--runs", &repetitions.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo: {error}"))?;
    let mut runs = Vec::new();
    for line in child.stderr.take().into_iter().flat_map(|errors| BufReader::new(errors).lines()) {
        let line = line.map_err(|error| error.to_string())?;
        eprintln!("{line}");
        runs.extend(parse(&line));
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match runs.is_empty() || !status.success() {
        true => Err(format!("cargo bench --bench runtimes failed ({status})")),
        false => Ok(runs),
    }
}

/// `run RUNTIME CONNECTIONS IN_FLIGHT MICROSECONDS`.
fn parse(line: &str) -> Option<Run> {
    let words: Vec<_> = line.strip_prefix("run ")?.split(' ').collect();
    let [runtime, connections, in_flight, microseconds] = words[..] else { return None };
    Some(Run {
        runtime: runtime.to_owned(),
        connections: connections.parse().ok()?,
        in_flight: in_flight.parse().ok()?,
        cpu_us_per_echo: microseconds.parse().ok()?,
    })
}

impl Comparison {
    fn document(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "# The same echo on three runtimes, commit {}, {}\n\n{} x {}, Linux {}; load average {:.2} \
             as it began. Microseconds of CPU of the server for each echo of 300 bytes: median of the \
             interleaved runs (least to most). By `{}`.\n\n",
            self.commit,
            self.date,
            machine.processors,
            machine.processor_model,
            machine.kernel,
            machine.load_average,
            self.command
        );
        let mut runtimes: Vec<&str> = Vec::new();
        let mut loads: Vec<(u32, u32)> = Vec::new();
        for run in &self.runs {
            if !runtimes.contains(&run.runtime.as_str()) {
                runtimes.push(&run.runtime);
            }
            if !loads.contains(&(run.connections, run.in_flight)) {
                loads.push((run.connections, run.in_flight));
            }
        }
        let _ = writeln!(text, "| connections x in flight | {} |", runtimes.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(runtimes.len()));
        for load in loads {
            let cells: Vec<_> = runtimes.iter().map(|runtime| self.cell(runtime, load)).collect();
            let _ = writeln!(text, "| {} x {} | {} |", load.0, load.1, cells.join(" | "));
        }
        text
    }

    fn cell(&self, runtime: &str, load: (u32, u32)) -> String {
        let runs = self.runs.iter();
        let runs =
            runs.filter(|it| it.runtime == runtime && (it.connections, it.in_flight) == load);
        match Summary::of(runs.map(|it| it.cpu_us_per_echo)) {
            Some(it) => format!("{:.2} ({:.2} to {:.2})", it.median, it.min, it.max),
            None => "-".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_told_from_what_cargo_says() {
        let run = parse("run tokio-uring 200 8 3.2500").unwrap();
        assert_eq!((run.runtime.as_str(), run.connections, run.in_flight), ("tokio-uring", 200, 8));
        assert!((run.cpu_us_per_echo - 3.25).abs() < 1e-9);
        for other in ["   Compiling benches v0.1.0", "run it again", "run a b c d", ""] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_load_and_a_column_for_each_runtime() {
        let fixture = crate::perf::report::tests::fixture();
        let lines =
            ["run one 100 1 4.0", "run other 100 1 6.0", "run one 100 1 2.0", "run one 9 8 1.0"];
        let comparison = Comparison {
            machine: fixture.machine,
            commit: "abc".to_owned(),
            date: "2026-11-21T00:00:00Z".to_owned(),
            command: "command".to_owned(),
            runs: lines.into_iter().filter_map(parse).collect(),
        };
        let text = comparison.document();
        assert!(
            text.contains("| connections x in flight | one | other |\n|---|---|---|\n"),
            "{text}"
        );
        assert!(text.contains("| 100 x 1 | 3.00 (2.00 to 4.00) | 6.00 (6.00 to 6.00) |"), "{text}");
        assert!(text.contains("| 9 x 8 | 1.00 (1.00 to 1.00) | - |"), "{text}");
    }
}
