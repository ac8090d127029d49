//! The recorded counts, and what has become of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A case may cost so much more before it counts as worse: the same source is inlined differently
/// when something else changes.
const TOLERANCE_PERCENT: u64 = 3;

/// What counts depend on beside the source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Environment {
    pub(super) target: String,
    pub(super) rustc: String,
    pub(super) libc: String,
    pub(super) valgrind: String,
    /// Of the processor, as valgrind presents it: libraries choose their code by them.
    pub(super) features: String,
}

/// Counts, and where they hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Baseline {
    pub(super) environment: Environment,
    pub(super) instructions_per_message: BTreeMap<String, u64>,
}

impl Baseline {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error} (--update writes it)", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
    }

    /// With some counts replaced, which must come from the same environment as the rest.
    pub(super) fn updated(mut self, measured: Self) -> Result<Self, String> {
        if self.environment != measured.environment {
            return Err("the baseline is from elsewhere: update all of its cases".to_owned());
        }
        self.instructions_per_message.extend(measured.instructions_per_message);
        Ok(self)
    }

    pub(super) fn compare(&self, measured: &Self) -> Report {
        let (ours, theirs) = (self.environment.fields(), measured.environment.fields());
        let differences = ours
            .into_iter()
            .zip(theirs)
            .filter(|((_, was), (_, is))| was != is)
            .map(|((name, was), (_, is))| format!("{name}: {was} there, {is} here"))
            .collect();
        let rows = measured.instructions_per_message.iter().map(|(case, &count)| Row {
            case: case.clone(),
            count,
            before: self.instructions_per_message.get(case).copied(),
        });
        Report { rows: rows.collect(), differences }
    }
}

impl Environment {
    fn fields(&self) -> [(&'static str, &str); 5] {
        let Self { target, rustc, libc, valgrind, features } = self;
        [
            ("target", target),
            ("rustc", rustc),
            ("libc", libc),
            ("valgrind", valgrind),
            ("features", features),
        ]
    }
}

/// A case beside its baseline.
#[derive(Debug)]
struct Row {
    case: String,
    count: u64,
    before: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    New,
    Same,
    Better,
    Worse,
}

impl Row {
    fn change_percent(&self) -> Option<f64> {
        self.before.map(|before| 100.0 * (self.count as f64 / before as f64 - 1.0))
    }

    fn verdict(&self) -> Verdict {
        let Some(before) = self.before else { return Verdict::New };
        if self.count * 100 > before * (100 + TOLERANCE_PERCENT) {
            Verdict::Worse
        } else if self.count * 100 < before * (100 - TOLERANCE_PERCENT) {
            Verdict::Better
        } else {
            Verdict::Same
        }
    }
}

/// All cases beside their baseline.
#[derive(Debug)]
pub(super) struct Report {
    rows: Vec<Row>,
    /// Where the baseline is from another environment: nothing is judged then.
    differences: Vec<String>,
}

impl Report {
    /// Whether a case has become worse, and nobody has recorded it.
    pub(super) fn is_regression(&self) -> bool {
        self.differences.is_empty() && self.has(Verdict::Worse)
    }

    fn has(&self, verdict: Verdict) -> bool {
        self.rows.iter().any(|row| row.verdict() == verdict)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>12} {:>12} {:>9}", "instructions/message", "now", "baseline", "")?;
        for row in &self.rows {
            write!(f, "{:<20} {:>12}", row.case, row.count)?;
            if let (Some(before), Some(change)) = (row.before, row.change_percent()) {
                write!(f, " {before:>12} {change:>+7.1} %")?;
            }
            writeln!(
                f,
                "{}",
                match row.verdict() {
                    Verdict::New => " not in the baseline",
                    Verdict::Same => "",
                    Verdict::Better => " better",
                    Verdict::Worse => " WORSE",
                }
            )?;
        }
        if !self.differences.is_empty() {
            writeln!(f, "\nNOTHING IS JUDGED: the baseline is from another environment:")?;
            return self.differences.iter().try_for_each(|line| writeln!(f, "  {line}"));
        }
        if self.has(Verdict::Worse) {
            writeln!(
                f,
                "\nmore than {TOLERANCE_PERCENT} % above the baseline; where that is the price of \
                 something, say so and record it: cargo xtask instructions --update"
            )?;
        } else if self.has(Verdict::Better) || self.has(Verdict::New) {
            writeln!(f, "\nto be recorded with: cargo xtask instructions --update")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(counts: &[(&str, u64)]) -> Baseline {
        Baseline {
            environment: Environment {
                target: "x86_64-linux".to_owned(),
                rustc: "rustc 1.95.0".to_owned(),
                libc: "glibc 2.36".to_owned(),
                valgrind: "valgrind-3.19.0".to_owned(),
                features: "avx2 aes".to_owned(),
            },
            instructions_per_message: counts
                .iter()
                .map(|(case, count)| ((*case).to_owned(), *count))
                .collect(),
        }
    }

    fn elsewhere(counts: &[(&str, u64)]) -> Baseline {
        let mut measured = baseline(counts);
        measured.environment.rustc = "rustc 1.96.0".to_owned();
        measured
    }

    #[test]
    fn three_percent_more_are_borne_and_no_more() {
        let before = baseline(&[("a", 1_000), ("b", 1_000)]);
        assert!(!before.compare(&baseline(&[("a", 1_030), ("b", 1_000)])).is_regression());
        let worse = before.compare(&baseline(&[("a", 1_031), ("b", 500)]));
        assert!(worse.is_regression());
        let text = worse.to_string();
        assert!(text.contains("WORSE") && text.contains("--update"), "{text}");
        assert!(text.contains("+3.1 %") && text.contains("-50.0 % better"), "{text}");
    }

    #[test]
    fn what_is_better_or_new_is_to_be_recorded() {
        let before = baseline(&[("a", 1_000)]);
        for counts in [[("a", 969)].as_slice(), &[("a", 1_000), ("b", 7)]] {
            let report = before.compare(&baseline(counts));
            assert!(!report.is_regression());
            assert!(report.to_string().contains("--update"), "{report}");
        }
        let same = before.compare(&baseline(&[("a", 970)]));
        assert!(!same.to_string().contains("--update"), "{same}");
    }

    #[test]
    fn elsewhere_nothing_is_judged_and_that_is_said() {
        let report = baseline(&[("a", 1_000)]).compare(&elsewhere(&[("a", 2_000)]));
        assert!(!report.is_regression());
        let text = report.to_string();
        assert!(text.contains("NOTHING IS JUDGED"), "{text}");
        assert!(text.contains("rustc: rustc 1.95.0 there, rustc 1.96.0 here"), "{text}");
    }

    #[test]
    fn some_cases_are_updated_only_where_the_others_come_from() {
        let before = baseline(&[("a", 1), ("b", 2)]);
        assert_eq!(
            before.clone().updated(baseline(&[("b", 3)])),
            Ok(baseline(&[("a", 1), ("b", 3)]))
        );
        assert!(before.updated(elsewhere(&[("b", 3)])).is_err());
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("baseline-{}.json", std::process::id()));
        let written = baseline(&[("a", 1), ("b", 2)]);
        written.write(&path).expect("written");
        let read = Baseline::read(&path);
        std::fs::remove_file(&path).expect("it was there");
        assert_eq!(read, Ok(written));
        assert!(Baseline::read(&path).is_err_and(|error| error.contains("--update")));
    }
}
