//! The figures every kind of run has, under the same names.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Percentiles, show_us};

/// The figures of a run, flat, the same names for every scenario; what a scenario does not have is
/// null. Times are in microseconds where the name says `us`, else in seconds. *Node* is
/// everything that `--node-pid` names, with its children; *CPU* is user plus system time while it
/// was measured, that is after the warm-up and before the end of the traffic.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Seconds that were measured.
    pub seconds: f64,
    /// Sessions (calls, connections) that came up.
    pub sessions: Option<u64>,
    /// Seconds until they were.
    pub set_up_seconds: Option<f64>,
    /// Messages. Between two parties each is a SEND in, its 200 out, a SEND out, its 200 in; for `bfcp`
    /// a primitive of a participant that was answered.
    pub messages: Option<u64>,
    /// Messages by seconds.
    pub messages_per_second: Option<f64>,
    /// Arrivals of messages: in a room each arrives at all other members. For `bfcp` floors that were
    /// granted.
    pub deliveries: Option<u64>,
    /// CPU of the node.
    pub node_cpu_seconds: Option<f64>,
    /// CPU of the node by messages.
    pub node_cpu_us_per_message: Option<f64>,
    /// CPU of the node by deliveries.
    pub node_cpu_us_per_delivery: Option<f64>,
    /// Deliveries by CPU seconds of the node.
    pub deliveries_per_node_cpu_second: Option<f64>,
    /// CPU of the generator's process by messages.
    pub generator_cpu_us_per_message: Option<f64>,
    /// How busy the busiest media thread of the generator was, 0 to 1. Without SIP an open loop does
    /// not sleep; there it is the share of its time in which it had something to do.
    pub generator_busy: f64,
    /// It was more than 0.95: rates and latencies may be the generator's.
    pub generator_bound: bool,
    /// From the moment a message was due to its arrival; for `plane --handshakes` from the beginning
    /// of the connection to the end of the handshake; for `calls` from INVITE to the answered first
    /// message; for `bfcp` from the moment a floor was due to be asked for until it was granted.
    pub latency_us: Option<LatencyUs>,
    /// Open loop: from the moment a message was due to when the generator sent it. That is part of
    /// `latency_us`, and none of the target's.
    pub send_lateness_us: Option<LatencyUs>,
    /// How alike the pairs were served.
    pub fairness: Option<PairFairness>,
    /// What the node's memory (PSS) has grown by, from before the set-up to the end, by sessions.
    pub pss_bytes_per_session: Option<f64>,
    /// PSS of the node before the first session.
    pub pss_before_bytes: Option<u64>,
    /// When all were there, and the warm-up had passed.
    pub pss_set_up_bytes: Option<u64>,
    /// At the end of the measurement, all still there.
    pub pss_end_bytes: Option<u64>,
    /// Datagrams at the pace of a fax.
    pub fax: Option<FaxFigures>,
    /// Handshakes completed, TCP included.
    pub handshakes: Option<u64>,
    /// Handshakes by seconds.
    pub handshakes_per_second: Option<f64>,
    /// CPU of the node by handshakes.
    pub node_cpu_us_per_handshake: Option<f64>,
    /// CPU of the generator's process by handshakes.
    pub generator_cpu_us_per_handshake: Option<f64>,
    /// Content that arrived (of files through the node: that was answered with 200), in 10^9 bits, by
    /// seconds.
    pub gbit_per_second: Option<f64>,
    /// The same by CPU seconds of the node.
    pub node_gbit_per_cpu_second: Option<f64>,
    /// Whole calls, from INVITE to the answered BYE.
    pub calls: Option<u64>,
    /// Calls by seconds.
    pub calls_per_second: Option<f64>,
    /// Calls of the whole run that were refused with 503 and Retry-After.
    #[serde(default)]
    pub calls_shed: Option<u64>,
    /// CPU of the node by calls.
    pub node_cpu_us_per_call: Option<f64>,
    /// CPU of the generator's process by calls.
    pub generator_cpu_us_per_call: Option<f64>,
}

/// What has become of the packets of faxes, over the whole run.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct FaxFigures {
    /// Packets sent.
    pub sent: u64,
    /// Packets that came, each counted once.
    pub received: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Packets that came again.
    pub duplicated: u64,
    /// While it was measured: how much later or earlier after the one before a packet came than it was
    /// due.
    pub jitter_us: Option<LatencyUs>,
}

/// Percentiles of a latency.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct LatencyUs {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

impl LatencyUs {
    /// Of a histogram of nanoseconds; `None`: it is empty.
    #[must_use]
    pub fn of_ns(histogram: &Histogram<u64>) -> Option<Self> {
        let it = Percentiles::of_ns(histogram);
        (it.count > 0).then_some(Self {
            p50: it.p50_us,
            p90: it.p90_us,
            p99: it.p99_us,
            p999: it.p999_us,
            max: it.max_us,
        })
    }
}

/// How alike the pairs (rooms) were served.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct PairFairness {
    /// Messages of the slowest pair by those of the median one.
    pub slowest_by_median: f64,
    /// Mean latency of the pair with the largest.
    pub slowest_pair_mean_us: f64,
    /// Of the median pair.
    pub median_pair_mean_us: f64,
    /// Pairs without a single message.
    pub silent_pairs: u64,
    /// Messages of the median pair.
    pub median_messages: u64,
}

impl PairFairness {
    /// Of each pair's messages and mean latency in nanoseconds; `None`: there are no pairs.
    #[must_use]
    pub fn of(pairs: &[(u64, f64)]) -> Option<Self> {
        let mut messages: Vec<u64> = pairs.iter().map(|(messages, _)| *messages).collect();
        messages.sort_unstable();
        let mut means: Vec<f64> =
            pairs.iter().map(|(_, mean)| *mean).filter(|mean| *mean > 0.0).collect();
        means.sort_unstable_by(f64::total_cmp);
        let median = *messages.get(messages.len() / 2)?;
        let us = |ns: Option<&f64>| ns.map_or(0.0, |ns| ns / 1e3);
        Some(Self {
            slowest_by_median: if median > 0 { messages[0] as f64 / median as f64 } else { 0.0 },
            slowest_pair_mean_us: us(means.last()),
            median_pair_mean_us: us(means.get(means.len() / 2)),
            silent_pairs: messages.iter().take_while(|count| **count == 0).count() as u64,
            median_messages: median,
        })
    }
}

/// A thread busier than that waits for its processor, and rates and latencies are its own.
pub const BOUND_SHARE: f64 = 0.95;
/// Messages sent that late were not the load that was asked for.
pub(crate) const SLIP_US_MAX: f64 = 5_000.0;

pub(crate) fn bound_warning(busy: f64) -> String {
    format!(
        "THE GENERATOR IS THE BOTTLENECK: a media thread of it was busy {:.0} % of the time. Rates \
         and latencies are its own, not the target's (CPU per message still is); add --threads, or \
         ask for less",
        busy * 100.0
    )
}

/// More than half of the tail is the generator's own.
pub(crate) fn late_warning(figures: &Figures) -> Option<String> {
    let (late, latency) = (figures.send_lateness_us?.p999, figures.latency_us?.p999);
    (late > latency / 2.0).then(|| {
        format!(
            "THE GENERATOR ITSELF WAS LATE: one message in a thousand left {} or more after it was \
             due, and one in a thousand took {} or more in all: the tail is not the target's",
            show_us(late),
            show_us(latency)
        )
    })
}

pub(crate) fn slip_warning(slip: &Percentiles) -> String {
    format!(
        "1 % of the messages left {:.1} ms or more after they were due: the generator did not keep up",
        slip.p99_us / 1e3
    )
}

/// What an expectation can be about: the figures, and those of the fairness.
pub(crate) fn figure_names() -> Vec<String> {
    let names = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::Object(object)) => object.keys().cloned().collect(),
        _ => Vec::new(),
    };
    let mut all: Vec<String> = names(serde_json::to_value(Figures::default()));
    all.extend(names(serde_json::to_value(PairFairness::default())));
    all
}

impl Figures {
    /// For people.
    pub fn write(&self, text: &mut String) {
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(text, "  {name:<34}{value}");
            }
        };
        let with = |value: Option<f64>, unit: &str| value.map(|value| format!("{value:.2} {unit}"));
        let rate = |value: Option<f64>| value.map(|value| format!("{value:.0} /s"));
        line("measured", Some(format!("{:.2} s", self.seconds)));
        line("messages", self.messages.filter(|it| *it > 0).map(|it| it.to_string()));
        line("messages per second", rate(self.messages_per_second));
        line("deliveries", self.deliveries.filter(|it| *it > 0).map(|it| it.to_string()));
        if let Some(fax) = &self.fax {
            let FaxFigures { sent, received, lost, reordered, duplicated, .. } = fax;
            let text = format!(
                "{sent} sent, {received} came, {lost} lost, {reordered} late, {duplicated} doubled"
            );
            line("packets", Some(text));
            if let Some(jitter) = &fax.jitter_us {
                let [p50, p99, max] = [jitter.p50, jitter.p99, jitter.max].map(show_us);
                line("jitter", Some(format!("p50 {p50}, p99 {p99}, max {max}")));
            }
        }
        line("handshakes per second", rate(self.handshakes_per_second));
        line("calls per second", rate(self.calls_per_second));
        line("calls shed", self.calls_shed.map(|it| it.to_string()));
        line("content", with(self.gbit_per_second, "Gbit/s"));
        line("node CPU per message", with(self.node_cpu_us_per_message, "us"));
        line("node CPU per delivery", with(self.node_cpu_us_per_delivery, "us"));
        line("deliveries per node CPU second", rate(self.deliveries_per_node_cpu_second));
        line("node CPU per handshake", with(self.node_cpu_us_per_handshake, "us"));
        line("node CPU per call", with(self.node_cpu_us_per_call, "us"));
        line("content per node CPU second", with(self.node_gbit_per_cpu_second, "Gbit"));
        line("node memory (PSS) per session", with(self.pss_bytes_per_session, "bytes"));
        line("generator CPU per message", with(self.generator_cpu_us_per_message, "us"));
        line("generator CPU per handshake", with(self.generator_cpu_us_per_handshake, "us"));
        line("generator CPU per call", with(self.generator_cpu_us_per_call, "us"));
        line("generator's busiest thread", Some(format!("{:.0} %", self.generator_busy * 100.0)));
        if let Some(fairness) = &self.fairness {
            line(
                "slowest pair by the median one",
                Some(format!(
                    "{:.2} of its messages; mean latency {} and {}",
                    fairness.slowest_by_median,
                    show_us(fairness.slowest_pair_mean_us),
                    show_us(fairness.median_pair_mean_us)
                )),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_pair_and_a_slow_one_are_told() {
        let pairs = [(10, 3e3), (12, 2e3), (0, 0.0), (11, 9e3)];
        let fairness = PairFairness::of(&pairs).unwrap();
        assert_eq!((fairness.silent_pairs, fairness.median_messages), (1, 11));
        assert!(fairness.slowest_by_median < 1e-9);
        assert!((fairness.slowest_pair_mean_us - 9.0).abs() < 1e-9);
        assert!((fairness.median_pair_mean_us - 3.0).abs() < 1e-9);
        assert!(PairFairness::of(&[]).is_none());
    }

    #[test]
    fn a_tail_that_is_mostly_the_generators_is_told() {
        let of = |p999: f64| Some(LatencyUs { p999, ..LatencyUs::default() });
        let figures = |late, latency| Figures {
            send_lateness_us: of(late),
            latency_us: of(latency),
            ..Figures::default()
        };
        assert!(late_warning(&figures(501.0, 1_000.0)).unwrap().contains("GENERATOR"));
        assert_eq!(late_warning(&figures(499.0, 1_000.0)), None);
        assert_eq!(late_warning(&Figures::default()), None);
    }

    #[test]
    fn what_a_run_does_not_have_is_null_in_its_json() {
        let json = serde_json::to_value(Figures::default()).unwrap();
        assert!(json["messages"].is_null());
        assert_eq!(json["generator_bound"], false);
        let names = figure_names();
        for name in ["messages_per_second", "slowest_pair_mean_us", "node_cpu_us_per_call"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }
}
