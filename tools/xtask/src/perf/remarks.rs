//! Why a line of the table has no figure, and what makes one doubtful.

use std::collections::BTreeMap;

use super::plan::Entry;
use super::results::{CaseRecord, RunRecord, figure};
use super::saturation::Saturation;

/// What failed, and what the generator warned of, once each.
pub(crate) fn of(entry: &Entry, cases: &BTreeMap<String, CaseRecord>) -> Vec<String> {
    let mut remarks = Vec::new();
    for name in [Some(entry.ours), entry.anchor].into_iter().flatten() {
        let Some(record) = cases.get(name) else { continue };
        if let Some(Saturation { messages_per_second, limit }) = &record.saturation {
            remarks.push(format!(
                "{}: carries {messages_per_second:.0} messages per second; above that, {limit}",
                record.subject
            ));
        }
        let failures = record.runs.iter().filter_map(|run| run.failure.as_ref());
        let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
        failures.for_each(|failure| *counts.entry(failure).or_default() += 1);
        for (failure, count) in counts {
            let runs = record.runs.len();
            remarks.push(format!("{}: {count} of {runs} runs failed: {failure}", record.subject));
        }
        generator(record, &mut remarks);
    }
    remarks
}

/// Where figures are the generator's rather than the program's.
fn generator(record: &CaseRecord, remarks: &mut Vec<String>) {
    let is_bound = |run: &&RunRecord| run.figures["generator_bound"].as_bool() == Some(true);
    let is_late = |run: &&RunRecord| {
        let late = figure(&run.figures, "send_lateness_us.p999");
        late.zip(figure(&run.figures, "latency_us.p999"))
            .is_some_and(|(late, latency)| late > latency / 2.0)
    };
    let runs = record.runs.len();
    for (what, count) in [
        ("the generator was the bottleneck", record.runs.iter().filter(is_bound).count()),
        (
            "the generator's own lateness was most of p99.9",
            record.runs.iter().filter(is_late).count(),
        ),
    ] {
        if count > 0 {
            remarks.push(format!("{}: {what} in {count} of {runs} runs", record.subject));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::perf::plan::Value;

    #[test]
    fn a_tail_of_the_generators_own_and_what_was_carried_are_told() {
        let run = |(repetition, late): (u32, f64)| RunRecord {
            repetition,
            figures: json!({"send_lateness_us": {"p999": late}, "latency_us": {"p999": 1_000.0}}),
            failure: None,
            warnings: Vec::new(),
        };
        let limit = "the generator is the bottleneck".to_owned();
        let record = CaseRecord {
            subject: "mrf".to_owned(),
            saturation: Some(Saturation { messages_per_second: 5e4, limit }),
            runs: [(1, 600.0), (2, 400.0)].map(run).to_vec(),
            ..CaseRecord::default()
        };
        let cases = BTreeMap::from([("ours".to_owned(), record)]);
        let entry = Entry::new("P10", "", Value::Figure("latency_us.p999", "us")).alone("ours");
        let remarks = of(&entry, &cases);
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks[0].contains("50000 messages per second; above that, the generator"));
        assert!(remarks[1].contains("most of p99.9 in 1 of 2 runs"));
    }
}
