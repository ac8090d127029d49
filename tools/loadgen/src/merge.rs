//! Several generators' reports made into one: of several processes, or machines, that ran at the same
//! time against the same target.
//!
//! Counts and rates add up, latencies are those of all messages together (each report has its
//! histogram), of what is a matter of the worst one the worst stands. `--node-pid` belongs to one of the
//! generators alone: it has measured the node for all of them.

use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::expectation::Violations;
use crate::media::worker::latency_histogram;
use crate::report::{BOUND_SHARE, FaxFigures, Figures, LatencyUs, PairFairness};

/// What several have shown together.
#[derive(Clone, Debug, Serialize)]
pub struct MergedReport {
    /// Every one passed.
    pub passed: bool,
    /// The files, or the processes.
    pub inputs: Vec<String>,
    /// Together.
    pub figures: Figures,
    /// Together: [value in nanoseconds, count].
    pub latency_histogram_ns: Buckets,
    /// Together.
    pub violations: Violations,
    /// Of each.
    pub warnings: Vec<String>,
}

/// A histogram as it stands in JSON: value and count, of those that were counted.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buckets(Vec<(u64, u64)>);

impl Buckets {
    /// All that is in a histogram.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let recorded = histogram.iter_recorded();
        Self(recorded.map(|it| (it.value_iterated_to(), it.count_at_value())).collect())
    }

    fn add_to(&self, histogram: &mut Histogram<u64>) {
        for (value, count) in &self.0 {
            histogram.saturating_record_n(*value, *count);
        }
    }
}

/// What of a report is needed.
#[derive(Deserialize)]
pub(crate) struct Input {
    passed: bool,
    figures: Figures,
    #[serde(default)]
    latency_histogram_ns: Buckets,
    violations: Violations,
    #[serde(default)]
    warnings: Vec<String>,
}

/// Merges the files of `--json`.
pub fn merge(files: &[PathBuf]) -> Result<MergedReport, Error> {
    let inputs: Vec<Input> = files.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
    let names = files.iter().map(|file| file.display().to_string()).collect();
    Ok(merge_inputs(names, &inputs))
}

/// Merges what was read already.
pub(crate) fn merge_inputs(names: Vec<String>, inputs: &[Input]) -> MergedReport {
    let mut histogram = latency_histogram();
    let mut violations = Violations::default();
    let mut warnings = Vec::new();
    for input in inputs {
        input.latency_histogram_ns.add_to(&mut histogram);
        violations.merge(input.violations.clone());
        warnings.extend(input.warnings.iter().cloned());
    }
    let measured = inputs.iter().filter(|input| input.figures.node_cpu_seconds.is_some()).count();
    if measured > 1 {
        warnings.push(format!(
            "{measured} of the reports have measured the node (--node-pid): its processor time is \
             counted {measured} times"
        ));
    }
    let all: Vec<&Figures> = inputs.iter().map(|input| &input.figures).collect();
    MergedReport {
        passed: inputs.iter().all(|input| input.passed),
        inputs: names,
        figures: figures(&all, &histogram),
        latency_histogram_ns: Buckets::of(&histogram),
        violations,
        warnings,
    }
}

fn read(file: &Path) -> Result<Input, Error> {
    let wrong =
        |error: &dyn std::fmt::Display| Error::Usage(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    serde_json::from_value(value)
        .map_err(|error| wrong(&format!("not a report of one run: {error}")))
}

fn figures(all: &[&Figures], histogram: &Histogram<u64>) -> Figures {
    let count = |of: fn(&Figures) -> Option<u64>| {
        let found: Vec<u64> = all.iter().filter_map(|it| of(it)).collect();
        (!found.is_empty()).then(|| found.iter().sum::<u64>())
    };
    let sum = |of: fn(&Figures) -> Option<f64>| {
        let found: Vec<f64> = all.iter().filter_map(|it| of(it)).collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>())
    };
    let most =
        |of: fn(&Figures) -> Option<f64>| all.iter().filter_map(|it| of(it)).max_by(f64::total_cmp);
    let by = |total: Option<f64>, count: Option<u64>| {
        let count = count.filter(|count| *count > 0)? as f64;
        Some(total? / count)
    };
    // What each generator has used, by its own share of the whole.
    let generator = |per: fn(&Figures) -> Option<f64>, of: fn(&Figures) -> Option<u64>| {
        let used = all.iter().filter_map(|it| Some(per(it)? * of(it)? as f64));
        by(Some(used.sum()), count(of)).filter(|us| *us > 0.0)
    };
    let node_us = sum(|it| it.node_cpu_seconds).map(|seconds| seconds * 1e6);
    let (messages, deliveries) = (count(|it| it.messages), count(|it| it.deliveries));
    let (handshakes, calls) = (count(|it| it.handshakes), count(|it| it.calls));
    let gbit = sum(|it| it.gbit_per_second.map(|rate| rate * it.seconds));
    let busy = most(|it| Some(it.generator_busy)).unwrap_or(0.0);
    let grown =
        all.iter().find_map(|it| Some(it.pss_end_bytes? as f64 - it.pss_before_bytes? as f64));
    Figures {
        seconds: most(|it| Some(it.seconds)).unwrap_or(0.0),
        sessions: count(|it| it.sessions),
        set_up_seconds: most(|it| it.set_up_seconds),
        messages,
        messages_per_second: sum(|it| it.messages_per_second),
        deliveries,
        node_cpu_seconds: sum(|it| it.node_cpu_seconds),
        node_cpu_us_per_message: by(node_us, messages),
        node_cpu_us_per_delivery: by(node_us, deliveries),
        deliveries_per_node_cpu_second: by(node_us, deliveries).map(|us| 1e6 / us),
        generator_cpu_us_per_message: generator(
            |it| it.generator_cpu_us_per_message,
            |it| it.messages,
        ),
        generator_busy: busy,
        generator_bound: busy > BOUND_SHARE,
        latency_us: LatencyUs::of_ns(histogram),
        send_lateness_us: all
            .iter()
            .filter_map(|it| it.send_lateness_us)
            .max_by(|one, other| one.p999.total_cmp(&other.p999)),
        fairness: fairness(all),
        pss_bytes_per_session: by(grown, count(|it| it.sessions)),
        pss_before_bytes: all.iter().find_map(|it| it.pss_before_bytes),
        pss_set_up_bytes: all.iter().find_map(|it| it.pss_set_up_bytes),
        pss_end_bytes: all.iter().find_map(|it| it.pss_end_bytes),
        fax: fax(all),
        handshakes,
        handshakes_per_second: sum(|it| it.handshakes_per_second),
        node_cpu_us_per_handshake: by(node_us, handshakes),
        generator_cpu_us_per_handshake: generator(
            |it| it.generator_cpu_us_per_handshake,
            |it| it.handshakes,
        ),
        gbit_per_second: sum(|it| it.gbit_per_second),
        node_gbit_per_cpu_second: gbit
            .zip(sum(|it| it.node_cpu_seconds))
            .filter(|(_, cpu)| *cpu > 0.0)
            .map(|(gbit, cpu)| gbit / cpu),
        calls,
        calls_per_second: sum(|it| it.calls_per_second),
        calls_shed: count(|it| it.calls_shed),
        node_cpu_us_per_call: by(node_us, calls),
        generator_cpu_us_per_call: generator(|it| it.generator_cpu_us_per_call, |it| it.calls),
    }
}

/// Counts add up; of the jitter the worst.
fn fax(all: &[&Figures]) -> Option<FaxFigures> {
    all.iter().filter_map(|it| it.fax).reduce(|one, other| FaxFigures {
        sent: one.sent + other.sent,
        received: one.received + other.received,
        lost: one.lost + other.lost,
        reordered: one.reordered + other.reordered,
        duplicated: one.duplicated + other.duplicated,
        jitter_us: [one.jitter_us, other.jitter_us]
            .into_iter()
            .flatten()
            .max_by(|one, other| one.p999.total_cmp(&other.p999)),
    })
}

/// The worst of each; the medians are those of the report with the slowest pair.
fn fairness(all: &[&Figures]) -> Option<PairFairness> {
    let each: Vec<PairFairness> = all.iter().filter_map(|it| it.fairness).collect();
    let worst = each
        .iter()
        .max_by(|one, other| one.slowest_pair_mean_us.total_cmp(&other.slowest_pair_mean_us))?;
    let least = each.iter().map(|it| it.slowest_by_median).min_by(f64::total_cmp)?;
    let silent_pairs = each.iter().map(|it| it.silent_pairs).sum();
    Some(PairFairness { slowest_by_median: least, silent_pairs, ..*worst })
}

impl MergedReport {
    /// The table.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("\n{} reports together\n\n", self.inputs.len());
        self.figures.write(&mut text);
        for warning in &self.warnings {
            text.push_str(&format!("  WARNING: {warning}\n"));
        }
        self.violations.write_verdict(&mut text, self.passed, "every one of them passed");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(latencies_us: &[u64], node: bool) -> Value {
        let mut histogram = latency_histogram();
        for latency in latencies_us {
            histogram.record(latency * 1000).unwrap();
        }
        let messages = latencies_us.len() as u64;
        let figures = Figures {
            seconds: 2.0,
            messages: Some(messages),
            messages_per_second: Some(messages as f64 / 2.0),
            node_cpu_seconds: node.then_some(0.001),
            generator_cpu_us_per_message: Some(messages as f64),
            latency_us: LatencyUs::of_ns(&histogram),
            ..Figures::default()
        };
        serde_json::json!({
            "passed": true,
            "figures": figures,
            "latency_histogram_ns": Buckets::of(&histogram),
            "violations": Violations::default(),
            "config": {"anything": 1},
        })
    }

    #[test]
    fn percentiles_are_those_of_all_messages_and_not_means_of_percentiles() {
        let directory = tempfile();
        let files: Vec<PathBuf> = [report(&[10; 90], true), report(&[1000; 10], false)]
            .iter()
            .enumerate()
            .map(|(number, report)| {
                let file = directory.join(format!("{number}.json"));
                std::fs::write(&file, report.to_string()).unwrap();
                file
            })
            .collect();
        let merged = merge(&files).unwrap();
        let latency = merged.figures.latency_us.unwrap();
        assert!((latency.p50 - 10.0).abs() < 0.1, "{latency:?}");
        assert!((latency.p99 - 1000.0).abs() < 2.0, "{latency:?}");
        assert_eq!(merged.figures.messages, Some(100));
        assert!((merged.figures.messages_per_second.unwrap() - 50.0).abs() < 1e-9);
        assert!((merged.figures.node_cpu_us_per_message.unwrap() - 10.0).abs() < 1e-9);
        // 90 messages at 90 us and 10 at 10 us.
        let generator = merged.figures.generator_cpu_us_per_message.unwrap();
        assert!((generator - 82.0).abs() < 1e-9, "{generator}");
        assert!(merged.passed);
        assert!(merged.warnings.is_empty());
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn tempfile() -> PathBuf {
        let name = format!("mrf-load-merge-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }
}
