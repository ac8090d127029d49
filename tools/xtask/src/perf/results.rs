//! What a run leaves behind: the file under perf/results, of which table and page are made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::goal::Goal;
use super::saturation::Saturation;
use super::statistics::Summary;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    /// What was measured: the revision, with `-dirty` where the tree had changes.
    pub(crate) commit: String,
    /// When it began, UTC.
    pub(crate) date: String,
    /// How it was started.
    pub(crate) command: String,
    pub(crate) repetitions: u32,
    /// Shorter runs, fewer repetitions: to look at, not to publish.
    pub(crate) quick: bool,
    /// How long everything took.
    pub(crate) seconds: f64,
    /// Versions of the programs measured against, or that they are missing.
    pub(crate) peers: BTreeMap<String, String>,
    /// By identifier: `P1`, `P2-psk`. A goal of several parts has an entry of its own (`P2`), which is
    /// the part that is farthest from its goal, and met only if all parts are.
    #[serde(with = "in_order")]
    pub(crate) measures: Vec<(String, Measure)>,
    /// Every run of the generator, by the case it belongs to.
    pub(crate) cases: BTreeMap<String, CaseRecord>,
}

/// Where a run was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor_model: String,
    pub(crate) processors: usize,
    pub(crate) kernel: String,
    pub(crate) memory_mib: u64,
    /// Processors of the node and its peers, as taskset takes them.
    pub(crate) node_processors: String,
    /// Those of the generator.
    pub(crate) generator_processors: String,
    /// Load average of the last minute as the run began; above some tenths the machine was busy.
    pub(crate) load_average: f64,
    /// One core's AES-128-GCM over 16 KiB (`openssl speed`), where OpenSSL is there.
    pub(crate) aes_128_gcm_gbit_per_second: Option<f64>,
    /// What our record layer makes of that on the same core, by size. Not in older runs.
    #[serde(default)]
    pub(crate) records: Vec<RecordSpeed>,
}

/// One TLS-PSK record, sealed by one end and opened by the other in place.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct RecordSpeed {
    /// Of plain text.
    pub(crate) bytes: u32,
    /// For both together.
    pub(crate) seal_and_open_ns: f64,
    /// Plain text that is sealed and opened: AES does its work twice for it.
    pub(crate) gbit_per_second: f64,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) title: String,
    /// What the figures tell, and what they do not.
    pub(crate) shows: String,
    /// Of `ours` and `anchor`.
    pub(crate) unit: String,
    /// Medians over the repetitions.
    pub(crate) ours: Option<f64>,
    pub(crate) anchor: Option<f64>,
    /// What it is compared with.
    pub(crate) anchor_name: Option<String>,
    /// Median of the repetitions' ratios.
    pub(crate) ratio: Option<f64>,
    /// `ours / anchor`, or the other way round where a share is asked for.
    pub(crate) ratio_is: String,
    pub(crate) goal: Goal,
    /// Absent where it could not be measured.
    pub(crate) met: Option<bool>,
    pub(crate) spread: Spread,
    /// Repeats it.
    pub(crate) command: String,
    /// Keys into `cases`.
    pub(crate) ours_case: String,
    pub(crate) anchor_case: Option<String>,
    /// Of a goal with several parts: which they are, this one being the worst.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<String>,
    /// Why there is no figure, or what makes it doubtful.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remarks: Vec<String>,
}

/// From the smallest to the largest of the repetitions.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) ours: Option<[f64; 2]>,
    pub(crate) anchor: Option<[f64; 2]>,
    pub(crate) ratio: Option<[f64; 2]>,
}

impl Spread {
    pub(crate) fn of(summary: Option<Summary>) -> Option<[f64; 2]> {
        summary.map(|summary| [summary.min, summary.max])
    }
}

/// One program under one load.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(crate) struct CaseRecord {
    pub(crate) subject: String,
    /// The generator's command line; ports differ from run to run.
    pub(crate) load: String,
    /// What the subject carries in the open loop, where that was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) saturation: Option<Saturation>,
    pub(crate) runs: Vec<RunRecord>,
}

/// One run of the generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) repetition: u32,
    /// As the generator gives them; `null` where the run failed.
    pub(crate) figures: Value,
    /// What went wrong; then the figures do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}

impl Results {
    pub(crate) fn measure(&self, identifier: &str) -> Option<&Measure> {
        self.measures.iter().find(|(name, _)| name == identifier).map(|(_, measure)| measure)
    }

    /// A figure of a case over its repetitions; `path` has dots: `latency_us.p99`.
    pub(crate) fn figure(&self, case: &str, path: &str) -> Option<Summary> {
        let runs = &self.cases.get(case)?.runs;
        let runs = runs.iter().filter(|run| run.failure.is_none());
        Summary::of(runs.filter_map(|run| figure(&run.figures, path)))
    }
}

/// A number deep inside, `latency_us.p99`.
pub(crate) fn figure(figures: &Value, path: &str) -> Option<f64> {
    path.split('.').try_fold(figures, |value, key| value.get(key))?.as_f64()
}

/// The number of a measure's goal: `P2-psk` is a part of 2, and 10 comes after it. What is not numbered with
/// the `P`s comes behind them, as it was planned.
pub(crate) fn goal_number(identifier: &str) -> u32 {
    let digits = identifier.strip_prefix('P').and_then(|rest| rest.split('-').next());
    digits.and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}

/// An object in JSON, in the order of the table.
mod in_order {
    use std::fmt;

    use serde::de::{MapAccess, Visitor};
    use serde::ser::SerializeMap as _;
    use serde::{Deserializer, Serializer};

    use super::Measure;

    pub(super) fn serialize<S: Serializer>(
        measures: &[(String, Measure)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(measures.len()))?;
        for (identifier, measure) in measures {
            map.serialize_entry(identifier, measure)?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, Measure)>, D::Error> {
        deserializer.deserialize_map(Measures)
    }

    struct Measures;

    impl<'de> Visitor<'de> for Measures {
        type Value = Vec<(String, Measure)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("measures by their names")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut measures = Vec::new();
            while let Some(entry) = map.next_entry()? {
                measures.push(entry);
            }
            Ok(measures)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_keep_their_order_in_json() {
        let results = crate::perf::report::tests::fixture();
        let names = |results: &Results| -> Vec<String> {
            results.measures.iter().map(|(name, _)| name.clone()).collect()
        };
        let json = serde_json::to_string(&results).unwrap();
        let again: Results = serde_json::from_str(&json).unwrap();
        assert_eq!(names(&again), names(&results));
        assert_eq!(names(&again)[0], "P1");
    }

    #[test]
    fn parts_belong_to_their_goal() {
        let numbers = ["P1", "P2-psk", "P11-1000", "P10", "G1", "MIKEY-issue"].map(goal_number);
        assert_eq!(numbers, [1, 2, 11, 10, u32::MAX, u32::MAX]);
    }

    #[test]
    fn figures_are_found_by_their_path() {
        let figures = serde_json::json!({"latency_us": {"p99": 12.5}, "messages": 3});
        assert_eq!(figure(&figures, "latency_us.p99"), Some(12.5));
        assert_eq!(figure(&figures, "messages"), Some(3.0));
        assert_eq!(figure(&figures, "latency_us.p50"), None);
        assert_eq!(figure(&figures, "latency_us"), None);
    }
}
