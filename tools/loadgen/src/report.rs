//! What a run has shown: a table for people, JSON for machines.

mod figures;
mod shared;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

pub use self::figures::{FairnessReport, FilesReport, MemoryReport, StallReport};
pub use self::shared::{BOUND_SHARE, FaxFigures, Figures, LatencyUs, PairFairness};
pub(crate) use self::shared::{
    SLIP_US_MAX, bound_warning, figure_names, late_warning, slip_warning,
};
use crate::expectation::Violations;
use crate::merge::Buckets;

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Every expectation held.
    pub passed: bool,
    /// The user ended the run early.
    pub interrupted: bool,
    /// Where the generator ran.
    pub machine: Machine,
    /// `--commit`: what was measured.
    pub commit: Option<String>,
    /// How it was started, keys left out.
    pub command_line: Vec<String>,
    /// What was asked for.
    pub config: ConfigReport,
    /// The figures every kind of run has.
    pub figures: Figures,
    /// Of `latency_us`, for `mrf-load merge`: value in nanoseconds, count.
    pub latency_histogram_ns: Buckets,
    /// Calls.
    pub calls: CallsReport,
    /// Messages.
    pub messages: MessagesReport,
    /// From INVITE to 200.
    pub setup_latency: Percentiles,
    /// From INVITE to the answered binding SEND.
    pub bound_latency: Percentiles,
    /// From BYE to its answer, where calls follow each other.
    pub ending_latency: Percentiles,
    /// From the moment a message was due to each of its deliveries.
    pub delivery_latency: Percentiles,
    /// From a SEND to its 200.
    pub answer_latency: Percentiles,
    /// From the first word of a UE to its answer, where all speak at once.
    pub first_answer_latency: Percentiles,
    /// How alike the rooms were served.
    pub fairness: FairnessReport,
    /// Files, where they were sent.
    pub files: Option<FilesReport>,
    /// The stalled receiver, where there was one.
    pub stall: Option<StallReport>,
    /// Resident memory of the node, with `--node-pid`.
    pub node_memory: Option<MemoryReport>,
    /// How late the open loop was.
    pub schedule_slip: Percentiles,
    /// Processor time.
    pub cpu: CpuReport,
    /// What did not hold.
    pub violations: Violations,
    /// Reasons to doubt the figures.
    pub warnings: Vec<String>,
}

/// The machine a run was made on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of its processors, as the kernel names it.
    pub processor_model: String,
    /// Processors this process may use.
    pub processors: usize,
    /// Release of the kernel.
    pub kernel: String,
}

impl Machine {
    /// Asks the kernel; what it does not tell is `unknown`.
    #[must_use]
    pub fn of_this_process() -> Self {
        let unknown = || "unknown".to_owned();
        let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = about.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|line| line.split_once(':'));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        Self {
            processor_model: model.map_or_else(unknown, |(_, model)| model.trim().to_owned()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.map_or_else(|_| unknown(), |kernel| kernel.trim().to_owned()),
        }
    }
}

/// The words of a command line without the keys in them.
#[must_use]
pub fn command_line(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_key = false;
    let hide = |word: String| {
        let begins_key = word == TICKET_KEY_OPTION;
        let hidden = std::mem::replace(&mut is_key, begins_key);
        match word.split_once('=') {
            _ if hidden => "(hidden)".to_owned(),
            Some((TICKET_KEY_OPTION, _)) => format!("{TICKET_KEY_OPTION}=(hidden)"),
            _ => word,
        }
    };
    words.map(hide).collect()
}

const TICKET_KEY_OPTION: &str = "--kms-tpk";

/// The run's parameters.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigReport {
    /// What the UEs did.
    pub scenario: String,
    /// Request-URI without the room's number.
    pub target: String,
    /// `udp` or `tcp`.
    pub transport: String,
    /// `plain`, `psk` or `certificate`.
    pub security: String,
    /// UEs.
    pub sessions: u32,
    /// Rooms.
    pub rooms: u32,
    /// Calls per second asked for.
    pub rate_per_second: f64,
    /// Seconds of traffic asked for.
    pub duration_seconds: f64,
    /// Closed loop: the window; 0 in the open loop.
    pub window: u32,
    /// Open loop: messages per second and UE; 0 in the closed loop.
    pub message_rate_per_second: f64,
    /// Bytes of a text; several: session n uses the n-th, and round again.
    pub message_bytes: Vec<usize>,
    /// Media threads.
    pub threads: u32,
}

/// What became of the calls.
#[derive(Clone, Default, Debug, Serialize)]
pub struct CallsReport {
    /// INVITEs begun.
    pub attempted: u32,
    /// Answered with 200.
    pub answered: u32,
    /// Media session bound.
    pub bound: u32,
    /// Torn down with an answered BYE.
    pub ended: u32,
    /// Calls of a run of calls that the node had no room or time for: 503 with Retry-After.
    pub shed: u32,
    /// Other final answers to INVITE, by status.
    pub refused_by_status: BTreeMap<u16, u32>,
    /// Seconds from the first INVITE to the last media session.
    pub setup_seconds: f64,
    /// Calls bound per second over that time.
    pub setups_per_second: f64,
}

/// What became of the messages.
#[derive(Clone, Default, Debug, Serialize)]
pub struct MessagesReport {
    /// Seconds of traffic.
    pub seconds: f64,
    /// Messages sent in that time.
    pub sent: u64,
    /// Deliveries in that time.
    pub delivered: u64,
    /// Messages sent over the whole run.
    pub sent_total: u64,
    /// Deliveries over the whole run, the draining included.
    pub delivered_total: u64,
    /// Messages per second of traffic.
    pub sent_per_second: f64,
    /// Deliveries per second of traffic.
    pub delivered_per_second: f64,
}

/// Who used how much processor time while there was traffic.
#[derive(Clone, Default, Debug, Serialize)]
pub struct CpuReport {
    /// The generator, in processors (1 = one busy).
    pub generator_processors: f64,
    /// The busiest media thread, 0 to 1.
    pub busiest_media_thread: f64,
    /// The node, in processors; absent without `--node-pid`.
    pub node_processors: Option<f64>,
    /// Node time per message sent, in microseconds.
    pub node_us_per_message: Option<f64>,
    /// Node time per delivery, in microseconds.
    pub node_us_per_delivery: Option<f64>,
}

/// A distribution, in microseconds.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Percentiles {
    /// Values.
    pub count: u64,
    /// Smallest.
    pub min_us: f64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Largest.
    pub max_us: f64,
}

impl Percentiles {
    /// Of a histogram of nanoseconds.
    #[must_use]
    pub fn of_ns(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            min_us: histogram.min() as f64 / 1e3,
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

impl Report {
    /// The table.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_counts(&mut text);
        self.write_latencies(&mut text);
        self.write_cpu(&mut text);
        self.write_figures(&mut text);
        if self.figures.calls.is_some() || self.figures.gbit_per_second.is_some() {
            self.figures.write(&mut text);
        }
        self.write_verdict(&mut text);
        text
    }

    fn write_counts(&self, text: &mut String) {
        let config = &self.config;
        let calls = &self.calls;
        let sizes: Vec<_> = config.message_bytes.iter().map(usize::to_string).collect();
        let _ = writeln!(
            text,
            "\n{} in {}, {}, SIP over {}, texts of {} bytes, {}",
            plural(config.sessions, "UE"),
            plural(config.rooms, "room"),
            config.security,
            config.transport.to_uppercase(),
            sizes.join(", "),
            plural(config.threads, "media thread")
        );
        let _ = writeln!(
            text,
            "  calls       {} invited, {} answered 200, {} with media bound, {} ended by BYE; \
             {:.0} calls/s set up over {:.1} s",
            calls.attempted,
            calls.answered,
            calls.bound,
            calls.ended,
            calls.setups_per_second,
            calls.setup_seconds
        );
        if calls.shed > 0 {
            let _ = writeln!(text, "              {} shed (503 with Retry-After)", calls.shed);
        }
        for (status, count) in &calls.refused_by_status {
            let _ = writeln!(text, "              {count} refused with {status}");
        }
        let messages = &self.messages;
        if messages.sent_total == 0 {
            let _ = writeln!(text, "  messages    none was sent");
            return;
        }
        let _ = writeln!(
            text,
            "  messages    {} sent ({:.0}/s), {} delivered ({:.0}/s) in {:.1} s of talk; with those \
             on their way at its end {} and {}",
            messages.sent,
            messages.sent_per_second,
            messages.delivered,
            messages.delivered_per_second,
            messages.seconds,
            messages.sent_total,
            messages.delivered_total
        );
    }

    fn write_latencies(&self, text: &mut String) {
        if self.setup_latency.count == 0 {
            return;
        }
        let _ = writeln!(
            text,
            "\n  {:<18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "latency", "count", "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, percentiles) in [
            ("INVITE to 200", &self.setup_latency),
            ("INVITE to bound", &self.bound_latency),
            ("BYE to 200", &self.ending_latency),
            ("SEND to delivery", &self.delivery_latency),
            ("SEND to 200", &self.answer_latency),
            ("first word to 200", &self.first_answer_latency),
            ("schedule slip", &self.schedule_slip),
        ] {
            if percentiles.count == 0 {
                continue;
            }
            let _ = writeln!(
                text,
                "  {name:<18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
                percentiles.count,
                show_us(percentiles.p50_us),
                show_us(percentiles.p90_us),
                show_us(percentiles.p99_us),
                show_us(percentiles.p999_us),
                show_us(percentiles.max_us)
            );
        }
    }

    fn write_cpu(&self, text: &mut String) {
        let cpu = &self.cpu;
        if self.messages.seconds <= 0.0 {
            return;
        }
        let _ = writeln!(
            text,
            "\n  generator   {:.2} processors busy, its busiest media thread {:.0} %",
            cpu.generator_processors,
            cpu.busiest_media_thread * 100.0
        );
        let Some(processors) = cpu.node_processors else {
            return;
        };
        let _ = writeln!(text, "  node        {processors:.2} processors busy");
        if let (Some(per_message), Some(per_delivery)) =
            (cpu.node_us_per_message, cpu.node_us_per_delivery)
        {
            let messages = &self.messages;
            let copies = messages.delivered as f64 / messages.sent as f64;
            let _ = writeln!(
                text,
                "              node CPU us per message: {per_message:.2} (a SEND in and its 200 out, \
                 {copies:.2} SENDs out and their 200s in)\n\
                 \x20             node CPU us per delivery: {per_delivery:.2}",
            );
        }
    }

    fn write_verdict(&self, text: &mut String) {
        for warning in &self.warnings {
            let _ = writeln!(text, "  warning: {warning}");
        }
        if self.interrupted {
            let _ = writeln!(text, "\nINTERRUPTED by the user");
        }
        let promise = "every call came up and ended, every message arrived once and in order";
        self.violations.write_verdict(text, self.passed, promise);
    }
}

impl Violations {
    /// Says what was found, or that `promise` held.
    pub(crate) fn write_verdict(&self, text: &mut String, passed: bool, promise: &str) {
        if passed {
            let _ = writeln!(text, "\nPASSED: {promise}");
        }
        if self.total() == 0 {
            return;
        }
        let _ = writeln!(text, "\nFAILED: {}", plural(self.total(), "violation"));
        for (violation, count) in &self.counts {
            let _ = writeln!(text, "  {count:>9}  {}", violation.describe());
            for example in self.examples.get(violation).into_iter().flatten() {
                let _ = writeln!(text, "             {example}");
            }
        }
    }
}

fn plural(count: impl Into<u64>, what: &str) -> String {
    let count = count.into();
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Microseconds in the unit that suits them.
#[must_use]
pub fn show_us(microseconds: f64) -> String {
    if microseconds < 1e3 {
        format!("{microseconds:.0} us")
    } else if microseconds < 1e6 {
        format!("{:.2} ms", microseconds / 1e3)
    } else {
        format!("{:.2} s", microseconds / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expectation::Violation;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for value in 1..=1000 {
            histogram.record(value * 1000).unwrap();
        }
        let percentiles = Percentiles::of_ns(&histogram);
        assert_eq!(percentiles.count, 1000);
        assert!((percentiles.p50_us - 500.0).abs() < 2.0);
        assert!((percentiles.max_us - 1000.0).abs() < 2.0);
        assert_eq!(Percentiles::of_ns(&Histogram::<u64>::new(3).unwrap()).count, 0);
    }

    #[test]
    fn keys_are_hidden_in_either_spelling() {
        let words = ["mrf-load", "--kms-tpk", "id:00ff", "--json", "a", "--kms-tpk=id:00ff"];
        let hidden = command_line(words.into_iter().map(str::to_owned));
        let expected = ["mrf-load", "--kms-tpk", "(hidden)", "--json", "a", "--kms-tpk=(hidden)"];
        assert_eq!(hidden, expected);
    }

    #[test]
    fn violations_are_keyed_by_name_in_json() {
        let mut violations = Violations::default();
        violations.add(Violation::SendRefused, || "why".to_owned());
        let json = serde_json::to_value(&violations).unwrap();
        assert_eq!(json["counts"]["send_refused"], 1);
        assert_eq!(json["examples"]["send_refused"][0], "why");
    }
}
