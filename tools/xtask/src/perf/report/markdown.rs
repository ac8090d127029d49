//! The table, for the README and for the file beside the figures.

use std::fmt::Write as _;

use super::{goals, show, show_range};
use crate::perf::results::{Measure, RecordSpeed, Results};

/// One line per goal; the figures link to `recorded`, a run's file as seen from where the table
/// will stand.
pub(crate) fn table(results: &Results, recorded: &str) -> String {
    let mut text = String::from(
        "| # | measure | ours | beside it | ratio (spread) | goal | met | repeat it |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (goal, parts) in goals(results) {
        let column = |cell: &dyn Fn(&Measure) -> String| {
            parts.iter().map(|(_, measure)| cell(measure)).collect::<Vec<_>>().join("<br>")
        };
        let _ = writeln!(
            text,
            "| {goal} | {} | {} | {} | {} | {} | {} | `cargo xtask perf --only {goal}` |",
            column(&|measure| measure.title.clone()),
            column(&|measure| format!("[{}]({recorded})", ours(measure))),
            column(&anchor),
            column(&ratio),
            column(&|measure| measure.goal.text.clone()),
            column(&|measure| verdict(measure).to_owned()),
        );
    }
    text
}

/// The file beside the figures.
pub(crate) fn document(results: &Results, recorded: &str) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "# Performance of commit {}, {}\n\n{} x {}, {} MiB, Linux {}; load average {:.2} as it began. \
         Node and peers on processor {}, generator on {}. {} repetitions in turn, medians; \
         {:.0} s in all, by `{}`.{}\n\n",
        results.commit,
        results.date,
        machine.processors,
        machine.processor_model,
        machine.memory_mib,
        machine.kernel,
        machine.load_average,
        machine.node_processors,
        machine.generator_processors,
        results.repetitions,
        results.seconds,
        results.command,
        if results.quick { " **Quick: shorter runs, to look at, not to publish.**" } else { "" },
    );
    text.push_str(&table(results, recorded));
    text.push_str("\n## What each line shows\n\n");
    for (_, parts) in goals(results) {
        for (identifier, measure) in parts {
            let _ = writeln!(text, "- **{identifier}** {}", measure.shows);
            for remark in &measure.remarks {
                let _ = writeln!(text, "  - {remark}");
            }
        }
    }
    text.push_str("\n## Programs\n\n");
    for (name, version) in &results.peers {
        let _ = writeln!(text, "- {name}: {version}");
    }
    if let Some(speed) = machine.aes_128_gcm_gbit_per_second {
        let _ = writeln!(text, "- AES-128-GCM of one core, 16 KiB at a time: {speed:.1} Gbit/s");
    }
    for limit in limits(&machine.records) {
        let _ = writeln!(text, "- {limit}");
    }
    text
}

/// What our record layer does, a line for each size.
pub(super) fn limits(records: &[RecordSpeed]) -> impl Iterator<Item = String> {
    records.iter().map(|record| {
        format!(
            "our record layer, {} bytes sealed and opened in place (AES-128-GCM twice): {} ns, \
             {} Gbit/s",
            record.bytes,
            show(record.seal_and_open_ns),
            show(record.gbit_per_second)
        )
    })
}

pub(super) fn ours(measure: &Measure) -> String {
    measure.ours.map_or_else(
        || "not measured".to_owned(),
        |ours| format!("{} {}", show(ours), measure.unit),
    )
}

pub(super) fn anchor(measure: &Measure) -> String {
    match (&measure.anchor_name, measure.anchor) {
        (Some(name), Some(anchor)) => format!("{} {} ({name})", show(anchor), measure.unit),
        (Some(name), None) => format!("not measured ({name})"),
        (None, _) => "-".to_owned(),
    }
}

pub(super) fn ratio(measure: &Measure) -> String {
    match (measure.ratio, show_range(measure.spread.ratio), show_range(measure.spread.ours)) {
        (Some(ratio), Some(spread), _) => format!("{} ({spread})", show(ratio)),
        (_, _, Some(spread)) => format!("({spread})"),
        _ => "-".to_owned(),
    }
}

pub(super) fn verdict(measure: &Measure) -> &'static str {
    match measure.met {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::report::tests::fixture;

    #[test]
    fn every_goal_has_a_line_with_its_figures_and_its_command() {
        let table = table(&fixture(), "perf/results/run.json");
        let line = |goal: &str| {
            let beginning = format!("| {goal} |");
            table
                .lines()
                .find(|line| line.starts_with(&beginning))
                .unwrap_or_else(|| panic!("{goal}"))
        };
        let p1 = line("P1");
        assert!(p1.contains("[2.00 us](perf/results/run.json)"), "{p1}");
        assert!(p1.contains("16.0 us (Kamailio)") && p1.contains("0.125 (0.120 to 0.130)"), "{p1}");
        assert!(p1.contains("| yes |") && p1.contains("`cargo xtask perf --only P1`"), "{p1}");
        assert!(line("P2").contains("yes<br>**no**"));
        assert!(line("P9").contains("not measured"));
        let columns = |line: &str| line.matches(" | ").count();
        assert!(table.lines().skip(2).all(|line| columns(line) == 7), "{table}");
    }

    #[test]
    fn what_was_not_measured_is_said_to_be_so_and_why() {
        let document = document(&fixture(), "run.json");
        assert!(document.contains("haproxy is missing: install the Debian package haproxy"));
        assert!(document.contains("Quick"));
    }
}
