//! Runs rounds, and turns what they showed into the lines of the table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::peers::{EMPTY_PSS_FILE, Running, Stage, Subject, fill};
use super::plan::{Case, Entry, Rate, Round, Value};
use super::process::{Process, check_interrupt, is_interrupted};
use super::remarks;
use super::results::{CaseRecord, Measure, RunRecord, Spread, figure};
use super::saturation::{Saturation, Search, keeps_up};
use super::statistics::Summary;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) repetitions: u32,
    /// Of traffic, in one run.
    pub(crate) run_seconds: f64,
}

/// Runs them all. What fails is recorded as such and does not keep the rest from running.
pub(crate) fn run(stage: &Stage, rounds: &[Round], extent: Extent) -> BTreeMap<String, CaseRecord> {
    let mut progress = Progress::new(rounds, extent);
    let mut records = BTreeMap::new();
    for round in rounds {
        let mut cases: Vec<_> = round.cases.iter().map(|case| Turn::new(case, extent)).collect();
        for turn in &mut cases {
            turn.prepare(stage, &mut progress);
        }
        share_rates(&mut cases);
        for repetition in 1..=extent.repetitions {
            for turn in &mut cases {
                if is_interrupted() {
                    break;
                }
                progress.begin(turn.case, repetition);
                let record = turn.run(stage, repetition);
                progress.end(&record);
                turn.record.runs.push(record);
            }
        }
        records.extend(cases.into_iter().map(|turn| (turn.case.name.to_owned(), turn.record)));
    }
    records
}

/// Where one case is to have the rate of another.
fn share_rates(turns: &mut [Turn]) {
    let found: Vec<_> = turns.iter().map(|turn| (turn.case.name, turn.rate)).collect();
    for turn in turns {
        let Some(Rate::Of(name)) = turn.case.rate else { continue };
        turn.rate = found.iter().find(|(other, _)| *other == name).and_then(|(_, rate)| *rate);
        if turn.rate.is_none() && turn.hopeless.is_none() {
            turn.hopeless = Some(format!("{name} has no rate"));
        }
    }
}

/// One case on its way through the repetitions.
struct Turn<'a> {
    case: &'a Case,
    extent: Extent,
    record: CaseRecord,
    /// Messages per second and sender that are due in the open loop.
    rate: Option<f64>,
    /// Why there is no use in starting it.
    hopeless: Option<String>,
}

impl<'a> Turn<'a> {
    fn new(case: &'a Case, extent: Extent) -> Self {
        let record = CaseRecord { subject: case.subject.name(), ..CaseRecord::default() };
        Self { case, extent, record, rate: None, hopeless: case.subject.missing() }
    }

    /// Finds the rate of the open loop, where that is the subject's own affair.
    fn prepare(&mut self, stage: &Stage, progress: &mut Progress) {
        let Some(Rate::HalfOfSaturation { closed, senders }) = &self.case.rate else { return };
        if self.hopeless.is_some() || is_interrupted() {
            return;
        }
        progress.say(&format!("{}: what it can carry", self.case.subject.name()));
        match self.saturate(stage, closed, *senders) {
            Ok(saturation) => {
                let rate = saturation.messages_per_second;
                progress.say(&format!("    {rate:.0} messages per second ({})", saturation.limit));
                self.rate = Some(rate / 2.0 / f64::from(*senders));
                self.record.saturation = Some(saturation);
            }
            Err(error) => {
                self.rate = None;
                self.hopeless = Some(format!("no saturation found: {error}"));
            }
        }
    }

    fn saturate(
        &mut self,
        stage: &Stage,
        closed: &str,
        senders: u32,
    ) -> Result<Saturation, String> {
        let report = self.measure(stage, closed, "closed")?;
        failure(&report).map_or(Ok(()), Err)?;
        let first = figure(&report["figures"], "messages_per_second");
        let mut search = Search::from(first.ok_or("no message came through")?);
        while let Some(rate) = search.next() {
            self.rate = Some(rate / f64::from(senders));
            let report = self.measure(stage, &self.case.load, "saturation");
            check_interrupt()?;
            search.tried(report.and_then(|report| {
                failure(&report).map_or(Ok(()), Err)?;
                keeps_up(&report["figures"], rate, senders)
            }));
        }
        search.found()
    }

    fn run(&mut self, stage: &Stage, repetition: u32) -> RunRecord {
        let outcome = match &self.hopeless {
            Some(why) => Err(why.clone()),
            None => self.measure(stage, &self.case.load, &format!("{repetition}")),
        };
        match outcome {
            Err(failure) => RunRecord {
                repetition,
                figures: Json::Null,
                failure: Some(failure),
                warnings: Vec::new(),
            },
            Ok(report) => RunRecord {
                repetition,
                failure: failure(&report).filter(|_| !self.case.counts_when_failed),
                warnings: warnings(&report),
                figures: report["figures"].clone(),
            },
        }
    }

    /// One run of the generator against a fresh process.
    fn measure(&mut self, stage: &Stage, load: &str, suffix: &str) -> Result<Json, String> {
        check_interrupt()?;
        let running = self.case.subject.start(stage)?;
        let words = self.words(load, stage, &running);
        let report = stage.path(&format!("{}-{suffix}.json", self.case.name));
        let mut arguments = words.clone();
        arguments.extend(["--json".to_owned(), report.display().to_string()]);
        let (name, generator, processors) = if self.case.subject.measures_itself() {
            ("key_exchange", &stage.binaries.key_exchange, &stage.processors.node)
        } else {
            let pids: Vec<_> = running.pids().iter().map(u32::to_string).collect();
            arguments.extend(["--node-pid".to_owned(), pids.join(",")]);
            ("mrf-load", &stage.binaries.generator, &stage.processors.generator)
        };
        if load == self.case.load {
            self.record.load = format!("{name} {}", words.join(" "));
        }
        let log = stage.path(&format!("{}-{suffix}.load.log", self.case.name));
        let mut process = Process::start(generator, &arguments, processors, log)?;
        let limit = Duration::from_secs_f64(self.extent.run_seconds) + RUN_ALLOWANCE;
        let status = process.wait(limit)?;
        let mut report = read_report(&report).map_err(|error| {
            format!("{name} ended ({status}) without a report ({error}): {}", process.last_words())
        })?;
        if let Subject::Plane { .. } | Subject::Floors { .. } = self.case.subject {
            count_reservations(&mut report["figures"], &stage.path(EMPTY_PSS_FILE));
        }
        Ok(report)
    }

    fn words(&self, load: &str, stage: &Stage, running: &Running) -> Vec<String> {
        let milliseconds = |seconds: f64| format!("{}ms", (seconds * 1e3).round());
        let mut values = vec![
            ("TIME", milliseconds(self.extent.run_seconds)),
            ("WARMUP", milliseconds(self.extent.run_seconds / 4.0)),
            ("RATE", format!("{:.3}", self.rate.unwrap_or(1.0))),
            ("DIRECTORY", stage.directory.display().to_string()),
            ("SECONDS", format!("{:.1}", self.extent.run_seconds)),
        ];
        let addresses = running.addresses.iter();
        values.extend(addresses.map(|(name, address)| (*name, address.to_string())));
        load.split_whitespace().map(|word| fill(word, &values)).collect()
    }
}

/// The generator sees what connections cost; what was reserved for them before it came counts as well.
fn count_reservations(figures: &mut Json, empty_pss: &Path) {
    let empty = std::fs::read_to_string(empty_pss).ok().and_then(|text| text.parse::<f64>().ok());
    let (end, sessions) = (figure(figures, "pss_end_bytes"), figure(figures, "sessions"));
    if let (Some(empty), Some(end), Some(sessions)) = (empty, end, sessions)
        && sessions > 0.0
    {
        figures["pss_bytes_per_reserved_session"] = ((end - empty) / sessions).into();
    }
}

/// What the run shows of our line and the anchor's.
pub(crate) fn judge(
    entry: &Entry,
    cases: &BTreeMap<String, CaseRecord>,
    command: String,
) -> Measure {
    let ours = values(entry.value, cases.get(entry.ours));
    let anchor = values(entry.value, entry.anchor.and_then(|name| cases.get(name)));
    let ratios = ours.iter().filter_map(|(repetition, ours)| {
        let anchor = anchor.get(repetition)?;
        Some(if entry.is_share { anchor / ours } else { ours / anchor })
    });
    let ratio = Summary::of(ratios);
    let (ours, anchor) =
        (Summary::of(ours.values().copied()), Summary::of(anchor.values().copied()));
    let median = |summary: Option<Summary>| summary.map(|summary| summary.median);
    Measure {
        title: entry.title.to_owned(),
        shows: entry.shows.to_owned(),
        unit: entry.value.unit().to_owned(),
        ours: median(ours),
        anchor: median(anchor),
        anchor_name: entry.anchor.and_then(|name| Some(cases.get(name)?.subject.clone())),
        ratio: median(ratio),
        ratio_is: if entry.is_share { "anchor / ours" } else { "ours / anchor" }.to_owned(),
        goal: entry.goal.clone(),
        met: entry.goal.is_met(median(ours), median(ratio)),
        spread: Spread {
            ours: Spread::of(ours),
            anchor: Spread::of(anchor),
            ratio: Spread::of(ratio),
        },
        command,
        ours_case: entry.ours.to_owned(),
        anchor_case: entry.anchor.map(str::to_owned),
        parts: Vec::new(),
        remarks: remarks::of(entry, cases),
    }
}

/// Where a goal has several parts: the one that is farthest from it, under the goal's own name.
pub(crate) fn join_parts(measures: &[(String, Measure)]) -> Vec<(String, Measure)> {
    let mut goals: BTreeMap<&str, Vec<(&String, &Measure)>> = BTreeMap::new();
    for (identifier, measure) in measures {
        if let Some((goal, _)) = identifier.split_once('-')
            && measure.goal.is_set()
        {
            goals.entry(goal).or_default().push((identifier, measure));
        }
    }
    let join = |(goal, parts): (&str, Vec<(&String, &Measure)>)| {
        // A part without a figure is the worst of all.
        let margin = |measure: &Measure| measure.goal.margin(measure.ours, measure.ratio);
        let worst = parts.iter().min_by(|(_, one), (_, other)| {
            margin(one).unwrap_or(-1.0).total_cmp(&margin(other).unwrap_or(-1.0))
        })?;
        let mut measure = worst.1.clone();
        let met: Vec<_> = parts.iter().map(|(_, part)| part.met).collect();
        measure.met = match () {
            () if met.contains(&Some(false)) => Some(false),
            () if met.contains(&None) => None,
            () => Some(true),
        };
        measure.parts = parts.iter().map(|(identifier, _)| (*identifier).clone()).collect();
        measure.command = format!("cargo xtask perf --only {goal}");
        Some((goal.to_owned(), measure))
    };
    goals.into_iter().filter_map(join).collect()
}

fn values(value: Value, record: Option<&CaseRecord>) -> BTreeMap<u32, f64> {
    let runs = record.map_or(&[][..], |record| &record.runs);
    let of = |run: &RunRecord| {
        let value = match value {
            Value::Figure(path, _) => figure(&run.figures, path)?,
            Value::PerSecond(path, _) => 1e6 / figure(&run.figures, path)?,
            Value::Quotient(above, below, _) => {
                figure(&run.figures, above)? / figure(&run.figures, below)?
            }
        };
        value.is_finite().then_some((run.repetition, value))
    };
    runs.iter().filter(|run| run.failure.is_none()).filter_map(of).collect()
}

/// The generator checks everything it sends; a run in which something was lost has no figures.
fn failure(report: &Json) -> Option<String> {
    if report["passed"].as_bool() == Some(true) {
        return None;
    }
    let counts = report["violations"]["counts"].as_object();
    let violations: Vec<_> =
        counts.into_iter().flatten().map(|(what, count)| format!("{count} {what}")).collect();
    Some(format!("expectations did not hold: {}", violations.join(", ")))
}

fn warnings(report: &Json) -> Vec<String> {
    let warnings = report["warnings"].as_array().into_iter().flatten();
    warnings.filter_map(|warning| warning.as_str().map(str::to_owned)).collect()
}

fn read_report(path: &PathBuf) -> Result<Json, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// Tells on standard error what is being done, and how long that will go on.
struct Progress {
    began: Instant,
    runs: u32,
    done: u32,
    repetitions: u32,
    /// What a run takes by the plan; what it really takes is known after the first.
    run_seconds: f64,
}

impl Progress {
    fn new(rounds: &[Round], extent: Extent) -> Self {
        let cases: usize = rounds.iter().map(|round| round.cases.len()).sum();
        let runs = cases as u32 * extent.repetitions;
        let run_seconds = extent.run_seconds + 1.0;
        Self { began: Instant::now(), runs, done: 0, repetitions: extent.repetitions, run_seconds }
    }

    fn begin(&self, case: &Case, repetition: u32) {
        let each = match self.done {
            0 => self.run_seconds,
            done => self.began.elapsed().as_secs_f64() / f64::from(done),
        };
        let left = f64::from(self.runs - self.done) * each;
        self.say(&format!(
            "[{}/{}] {} ({}), repetition {repetition} of {}, about {:.0}:{:02.0} left",
            self.done + 1,
            self.runs,
            case.name,
            case.subject.name(),
            self.repetitions,
            (left / 60.0).floor(),
            (left % 60.0).floor(),
        ));
    }

    fn end(&mut self, record: &RunRecord) {
        self.done += 1;
        if let Some(failure) = &record.failure {
            self.say(&format!("    failed: {failure}"));
        }
        for warning in &record.warnings {
            self.say(&format!("    warning: {warning}"));
        }
    }

    #[allow(clippy::unused_self, reason = "one place where progress is told")]
    fn say(&self, text: &str) {
        eprintln!("{text}");
    }
}

/// Set-up of thousands of sessions and their end, beside the traffic itself.
const RUN_ALLOWANCE: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::perf::goal::Goal;

    fn record(subject: &str, values: &[Option<f64>]) -> CaseRecord {
        let run = |(index, value): (usize, &Option<f64>)| RunRecord {
            repetition: index as u32 + 1,
            // Figures of a run that failed must not count, even if there are some.
            figures: json!({"us": value.unwrap_or(1e9), "generator_bound": value.is_none()}),
            failure: value.is_none().then(|| "1 message_lost".to_owned()),
            warnings: Vec::new(),
        };
        let runs = values.iter().enumerate().map(run).collect();
        CaseRecord { subject: subject.to_owned(), runs, ..CaseRecord::default() }
    }

    fn entry(identifier: &'static str, goal: Goal) -> Entry {
        Entry::new(identifier, "", Value::Figure("us", "us")).between("ours", "anchor").judged(goal)
    }

    fn judged(identifier: &'static str, goal: Goal, ours: &[Option<f64>]) -> (String, Measure) {
        let anchor = record("Peer", &[Some(10.0), Some(20.0), Some(10.0)]);
        let cases = BTreeMap::from([
            ("ours".to_owned(), record("mrf", ours)),
            ("anchor".to_owned(), anchor),
        ]);
        (identifier.to_owned(), judge(&entry(identifier, goal), &cases, "command".to_owned()))
    }

    fn at_most(ratio: f64) -> Goal {
        Goal { ratio_max: Some(ratio), ..Goal::default() }
    }

    #[test]
    fn a_ratio_is_of_runs_of_the_same_repetition() {
        let (_, measure) = judged("P1", at_most(0.25), &[Some(2.0), Some(5.0), Some(3.0)]);
        assert_eq!((measure.ours, measure.anchor), (Some(3.0), Some(10.0)));
        assert_eq!(measure.ratio, Some(0.25));
        assert_eq!(measure.spread.ratio, Some([0.2, 0.3]));
        assert_eq!(measure.met, Some(true));
        assert_eq!(measure.anchor_name.as_deref(), Some("Peer"));
    }

    #[test]
    fn a_run_that_failed_has_no_figure_and_is_told_of() {
        let (_, measure) = judged("P1", at_most(0.25), &[Some(2.0), None, Some(3.0)]);
        assert_eq!(measure.ours, Some(2.5));
        assert_eq!(measure.spread.ratio, Some([0.2, 0.3]));
        assert!(measure.remarks[0].contains("1 of 3 runs failed: 1 message_lost"));
        let (_, measure) = judged("P1", at_most(0.25), &[None, None, None]);
        assert_eq!((measure.ours, measure.ratio, measure.met), (None, None, None));
    }

    #[test]
    fn a_case_has_the_rate_that_another_was_found_to_carry() {
        let round = crate::perf::measures::rounds()
            .iter()
            .find_map(|round| round.only(&["P10-bare".to_owned()]))
            .unwrap();
        let extent = Extent { repetitions: 1, run_seconds: 1.0 };
        let mut turns: Vec<_> = round.cases.iter().map(|case| Turn::new(case, extent)).collect();
        assert_eq!(turns.len(), 2);
        share_rates(&mut turns);
        assert!(turns[1].hopeless.as_deref().unwrap().contains("half-load has no rate"));
        (turns[0].rate, turns[1].hopeless) = (Some(7.0), None);
        share_rates(&mut turns);
        assert_eq!((turns[1].rate, &turns[1].hopeless), (Some(7.0), &None));
    }

    #[test]
    fn a_goal_is_met_if_all_its_parts_are() {
        let good = judged("P2-one", at_most(0.5), &[Some(2.0)]);
        let bad = judged("P2-two", at_most(0.1), &[Some(2.0)]);
        let missing = judged("P2-three", at_most(0.5), &[None]);
        let mut reported = judged("P2-four", Goal::default(), &[Some(2.0)]);
        reported.1.met = None;
        let join = |parts: &[&(String, Measure)]| {
            let parts: Vec<_> = parts.iter().map(|part| (*part).clone()).collect();
            join_parts(&parts).pop().unwrap()
        };
        let (identifier, joined) = join(&[&good, &bad, &reported]);
        assert_eq!((identifier.as_str(), joined.met), ("P2", Some(false)));
        assert_eq!(joined.goal, at_most(0.1));
        assert_eq!(joined.parts, ["P2-one", "P2-two"]);
        assert_eq!(join(&[&good, &reported]).1.met, Some(true));
        assert_eq!(join(&[&good, &missing]).1.met, None);
        assert!(join_parts(&[judged("P1", at_most(0.1), &[Some(2.0)])]).is_empty());
    }

    #[test]
    fn what_the_generator_found_wrong_is_a_failure() {
        assert_eq!(failure(&json!({"passed": true})), None);
        let report = json!({"passed": false, "violations": {"counts": {"message_lost": 3}}});
        assert!(failure(&report).unwrap().contains("3 message_lost"));
    }
}
