//! Scenario files: runs one after the other, each with what is expected of it.
//!
//! ```toml
//! [defaults]                          # options of every phase, by their names on the command line
//! target = "sip:room@127.0.0.1:5060"
//!
//! [[phase]]
//! name = "ramp"                       # three runs: 10, 55 and 100 messages a second and UE
//! scenario = "chat"
//! sessions = 100
//! duration = "5s"
//! ramp = { option = "message-rate", from = 10, to = 100, steps = 3 }
//! expect = ["p99_us <= 1000", "lost = 0"]
//! ```
//!
//! An option that is `true` is given without a value; a list is one value, with commas. An
//! expectation compares a figure (as it is called in `figures` of --json), a percentile of
//! `latency_us` or `fairness` (`p999_us`, `slowest_by_median`), a kind of violation, or `violations`,
//! their sum, with a number. A phase fails as well when the run by itself would have.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use clap::Parser as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{Cli, Command};
use crate::{Error, Outcome};

/// A scenario file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    #[serde(default)]
    defaults: BTreeMap<String, toml::Value>,
    phase: Vec<Phase>,
}

#[derive(Debug, Deserialize)]
struct Phase {
    name: String,
    scenario: String,
    #[serde(default)]
    expect: Vec<String>,
    ramp: Option<Ramp>,
    #[serde(flatten)]
    options: BTreeMap<String, toml::Value>,
}

/// The phase is run once for each of `steps` values of an option.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ramp {
    option: String,
    from: f64,
    to: f64,
    steps: u32,
}

/// What the phases have shown.
#[derive(Debug, Serialize)]
pub struct ScriptReport {
    /// Every run passed, and every expectation held.
    pub passed: bool,
    /// In order.
    pub phases: Vec<PhaseReport>,
}

/// What one has.
#[derive(Debug, Serialize)]
pub struct PhaseReport {
    /// Its name; a step of a ramp has the value behind it.
    pub name: String,
    /// The run passed, and every expectation held.
    pub passed: bool,
    /// What was expected.
    pub expectations: Vec<Verdict>,
    /// All figures of the run.
    pub report: Value,
    /// The run's own table.
    #[serde(skip)]
    text: String,
}

/// An expectation and what became of it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// As the file has it.
    pub expectation: String,
    /// What was measured; absent: nothing was.
    pub value: Option<f64>,
    /// It held.
    pub held: bool,
}

/// `NAME OP NUMBER`.
#[derive(Clone, PartialEq, Debug)]
struct Expectation {
    text: String,
    name: String,
    comparison: Comparison,
    number: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    AtMost,
    AtLeast,
    Below,
    Above,
    Equal,
}

/// Its name, and the option in which it differs from the others of a ramp.
type PhaseRun = (String, Option<(String, toml::Value)>);

/// One run, ready.
struct Step {
    name: String,
    command: Command,
    /// What it was read from.
    words: Vec<String>,
    expectations: Vec<Expectation>,
}

/// Runs a file. Nothing is run unless all of it makes sense.
pub fn run(file: &Path) -> Result<ScriptReport, Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::Usage(format!("{}: {error}", file.display())))?;
    let steps =
        steps(&text).map_err(|error| Error::Usage(format!("{}: {error}", file.display())))?;
    let mut report = ScriptReport { passed: true, phases: Vec::new() };
    for step in steps {
        eprintln!("phase {}", step.name);
        let outcome = crate::run(step.command, &step.words)?;
        let phase = judge(step.name, &step.expectations, &outcome);
        report.passed &= phase.passed;
        report.phases.push(phase);
    }
    Ok(report)
}

fn judge(name: String, expectations: &[Expectation], outcome: &Outcome) -> PhaseReport {
    let report = match outcome {
        Outcome::Calls(report) => serde_json::to_value(report),
        Outcome::Floors(report) => serde_json::to_value(report),
        Outcome::Border(report) => serde_json::to_value(report),
        Outcome::Wire(report) => serde_json::to_value(report),
        Outcome::Script(report) => serde_json::to_value(report),
        Outcome::Merged(report) => serde_json::to_value(report),
        Outcome::Share(report) => Ok(report.clone()),
    };
    let report = report.unwrap_or_default();
    let expectations: Vec<Verdict> = expectations.iter().map(|it| it.judge(&report)).collect();
    let passed = outcome.passed() && expectations.iter().all(|verdict| verdict.held);
    PhaseReport { name, passed, expectations, report, text: outcome.to_text() }
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    let script: Script = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut steps = Vec::new();
    for phase in &script.phase {
        let expectations: Vec<Expectation> =
            phase.expect.iter().map(|text| Expectation::parse(text)).collect::<Result<_, _>>()?;
        for (name, ramp) in phase.runs()? {
            let mut options = script.defaults.clone();
            options.extend(phase.options.clone());
            options.extend(ramp);
            let (command, words) = command(&phase.scenario, &options)
                .map_err(|error| format!("phase {}: {error}", phase.name))?;
            steps.push(Step { name, command, words, expectations: expectations.clone() });
        }
    }
    Ok(steps)
}

impl Phase {
    /// Names and the option that differs.
    fn runs(&self) -> Result<Vec<PhaseRun>, String> {
        let Some(Ramp { option, from, to, steps }) = &self.ramp else {
            return Ok(vec![(self.name.clone(), None)]);
        };
        if !(2..=1000).contains(steps) {
            return Err(format!("phase {}: a ramp has 2 to 1000 steps", self.name));
        }
        let value = |step: u32| from + (to - from) * f64::from(step) / f64::from(steps - 1);
        let run = |step| {
            // Numbers of sessions are whole.
            let whole = from.fract() == 0.0 && to.fract() == 0.0;
            let value = if whole { value(step).round() } else { value(step) };
            let name = format!("{} ({option} {value})", self.name);
            (name, Some((option.clone(), toml::Value::String(value.to_string()))))
        };
        Ok((0..*steps).map(run).collect())
    }
}

fn command(
    scenario: &str,
    options: &BTreeMap<String, toml::Value>,
) -> Result<(Command, Vec<String>), String> {
    let mut line = vec!["mrf-load".to_owned(), "run".to_owned(), scenario.to_owned()];
    for (name, value) in options {
        match value {
            toml::Value::Boolean(true) => line.push(format!("--{name}")),
            toml::Value::Boolean(false) => {}
            value => line.push(format!("--{name}={}", words(value)?)),
        }
    }
    match Cli::try_parse_from(&line).map_err(|error| error.to_string())?.command {
        Command::Merge(_) | Command::Run(crate::cli::Scenarios::File(_)) => {
            Err(format!("{scenario}: a scenario file cannot run another one"))
        }
        command => Ok((command, line)),
    }
}

fn words(value: &toml::Value) -> Result<String, String> {
    Ok(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Array(list) => {
            list.iter().map(words).collect::<Result<Vec<_>, _>>()?.join(",")
        }
        toml::Value::Boolean(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => {
            return Err(format!("{value} is no value of an option"));
        }
    })
}

impl Expectation {
    fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [name, comparison, number] = words[..] else {
            return Err(format!("{text:?}: an expectation is NAME OP NUMBER, \"lost = 0\""));
        };
        let comparison = match comparison {
            "<=" => Comparison::AtMost,
            ">=" => Comparison::AtLeast,
            "<" => Comparison::Below,
            ">" => Comparison::Above,
            "=" | "==" => Comparison::Equal,
            other => return Err(format!("{text:?}: {other} is none of <= >= < > =")),
        };
        let number = number.parse().map_err(|_| format!("{text:?}: {number} is no number"))?;
        if !is_known(name) {
            return Err(format!("{text:?}: there is no figure and no violation {name}"));
        }
        Ok(Self { text: text.to_owned(), name: name.to_owned(), comparison, number })
    }

    fn judge(&self, report: &Value) -> Verdict {
        let value = find(report, &self.name);
        let held = value.is_some_and(|value| match self.comparison {
            Comparison::AtMost => value <= self.number,
            Comparison::AtLeast => value >= self.number,
            Comparison::Below => value < self.number,
            Comparison::Above => value > self.number,
            Comparison::Equal => (value - self.number).abs() < f64::EPSILON,
        });
        Verdict { expectation: self.text.clone(), value, held }
    }
}

/// A figure by its name.
fn find(report: &Value, name: &str) -> Option<f64> {
    let figures = &report["figures"];
    let counts = &report["violations"]["counts"];
    if name == "violations" {
        let counts = counts.as_object()?;
        return Some(counts.values().filter_map(Value::as_f64).sum());
    }
    if is_violation(name) {
        return Some(counts[name].as_f64().unwrap_or(0.0));
    }
    let percentile = name.strip_suffix("_us").and_then(|name| figures["latency_us"][name].as_f64());
    let direct = figures[name].as_f64();
    direct.or(percentile).or_else(|| figures["fairness"][name].as_f64())
}

fn is_violation(name: &str) -> bool {
    serde_json::from_value::<crate::expectation::Violation>(name.into()).is_ok()
}

fn is_known(name: &str) -> bool {
    let percentile = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].contains(&name);
    name == "violations"
        || percentile
        || is_violation(name)
        || crate::report::figure_names().iter().any(|known| known == name)
}

impl fmt::Display for ScriptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in &self.phases {
            writeln!(f, "\n== {} ==\n{}", phase.name, phase.text)?;
        }
        writeln!(f)?;
        for phase in &self.phases {
            let verdict = if phase.passed { "PASSED" } else { "FAILED" };
            writeln!(f, "{verdict}  {}", phase.name)?;
            for Verdict { expectation, value, held } in &phase.expectations {
                let mark = if *held { "held  " } else { "BROKEN" };
                match value {
                    Some(value) => writeln!(f, "    {mark}  {expectation}: {value:.2}")?,
                    None => writeln!(f, "    {mark}  {expectation}: not measured")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_expectations_and_refuses_what_is_none() {
        let expectation = Expectation::parse("p99_us <= 1000").unwrap();
        let report = serde_json::json!({"figures": {"latency_us": {"p99": 999.5}}});
        assert!(expectation.judge(&report).held);
        let report = serde_json::json!({"figures": {"latency_us": {"p99": 1000.5}}});
        assert!(!expectation.judge(&report).held);
        assert!(!expectation.judge(&serde_json::json!({"figures": {}})).held);
        for wrong in ["p99_us", "p99_us ~ 3", "p99_us < x", "speed < 3", "lost=0"] {
            assert!(Expectation::parse(wrong).is_err(), "{wrong}");
        }
        let none = serde_json::json!({"violations": {"counts": {"lost": 2}}});
        assert!(!Expectation::parse("lost = 0").unwrap().judge(&none).held);
        assert!(Expectation::parse("duplicated = 0").unwrap().judge(&none).held);
        assert!(Expectation::parse("violations = 2").unwrap().judge(&none).held);
    }

    #[test]
    fn a_ramp_is_a_run_for_each_step() {
        let text = r#"
            [defaults]
            target = "sip:room@127.0.0.1:5060"
            [[phase]]
            name = "ramp"
            scenario = "chat"
            message-size = [200, 2000]
            ramp = { option = "message-rate", from = 10, to = 100, steps = 3 }
            expect = ["lost = 0"]
            [[phase]]
            name = "soak"
            scenario = "pairs"
            duration = "1h"
        "#;
        let steps = steps(text).unwrap();
        let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
        let expected =
            ["ramp (message-rate 10)", "ramp (message-rate 55)", "ramp (message-rate 100)", "soak"];
        assert_eq!(names, expected);
        assert_eq!(steps[0].expectations.len(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_runs() {
        let head = "[defaults]\ntarget = \"sip:room@127.0.0.1:5060\"\n[[phase]]\nname = \"x\"\n";
        for wrong in [
            "scenario = \"nothing\"\n",
            "scenario = \"chat\"\nspeed = 3\n",
            "scenario = \"chat\"\nexpect = [\"speed < 3\"]\n",
            "scenario = \"chat\"\nramp = { option = \"rate\", from = 1, to = 2, steps = 1 }\n",
            "scenario = \"another.toml\"\n",
        ] {
            assert!(steps(&format!("{head}{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_example_makes_sense() {
        for text in
            [include_str!("../scenarios/carrier.toml"), include_str!("../scenarios/relay.toml")]
        {
            assert!(steps(text).unwrap().len() > 1);
        }
    }
}
