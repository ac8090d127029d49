//! What a run without SIP has shown.

use std::fmt::Write as _;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Plan;
use super::plan::{Fax, Floors, Gateway, Protection, Work};
use super::worker::WorkerFigures;
use crate::accounting::{Processes, Usage};
use crate::expectation::{Violation, Violations};
use crate::media::worker::latency_histogram;
use crate::merge::Buckets;
use crate::report::{
    FaxFigures, Figures, LatencyUs, Machine, PairFairness, Percentiles, command_line, show_us,
};

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct WireReport {
    /// Every expectation held.
    pub passed: bool,
    /// The user ended the run early.
    pub interrupted: bool,
    /// Where the generator ran.
    pub machine: Machine,
    /// `--commit`: what was measured.
    pub commit: Option<String>,
    /// How it was started.
    pub command_line: Vec<String>,
    /// What was asked for.
    pub config: WireConfigReport,
    /// The figures.
    pub figures: Figures,
    /// Of `latency_us`, for `mrf-load merge`: value in nanoseconds, count.
    pub latency_histogram_ns: Buckets,
    /// From the moment a message was due to its arrival; a request for a floor, until it is granted.
    pub delivery_latency: Percentiles,
    /// From a SEND to its 200, a primitive to its answer.
    pub answer_latency: Percentiles,
    /// From a link's first word to the first answer, with `--burst`.
    pub first_answer_latency: Percentiles,
    /// From the beginning of a connection to the end of its handshake.
    pub handshake_latency: Percentiles,
    /// How late the open loop was.
    pub schedule_slip: Percentiles,
    /// What did not hold.
    pub violations: Violations,
    /// Reasons to doubt the figures.
    pub warnings: Vec<String>,
}

/// The run's parameters.
#[derive(Clone, Debug, Serialize)]
pub struct WireConfigReport {
    /// `relay`, `raw`, `bulk`, `bfcp`, `bfcp --idle`, `plane --idle`, `plane --handshakes`,
    /// `gateway`, `e2ae`, `fax`, `fax --points`.
    pub scenario: String,
    /// Where to.
    pub target: String,
    /// `plain`, `certificate`, `psk`.
    pub security: String,
    /// The suite of the connections, with TLS.
    pub suite: Option<String>,
    /// Connections.
    pub connections: u32,
    /// Closed loop: the window.
    pub window: Option<u32>,
    /// Open loop: messages, or requests for floors, per second and end.
    pub message_rate_per_second: Option<f64>,
    /// Bytes of a message's body.
    pub message_bytes: usize,
    /// Seconds of measurement asked for.
    pub duration_seconds: f64,
    /// Media threads.
    pub threads: u32,
}

/// What the threads have counted.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counted {
    pub(super) up: u64,
    pub(super) failed: u64,
    pub(super) messages: u64,
    pub(super) deliveries: u64,
    pub(super) handshakes: u64,
    pub(super) bytes: u64,
}

/// What was used and counted between the two ends of the measurement.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) set_up_seconds: f64,
    pub(super) up: u64,
    pub(super) pss_before: Option<u64>,
    pub(super) pss_set_up: Option<u64>,
    pub(super) pss_end: Option<u64>,
    begun: Option<(Instant, Used, Counted)>,
    seconds: f64,
    node_ns: Option<u64>,
    generator_ns: u64,
    /// In that time.
    counted: Counted,
    /// In all.
    pub(super) total: Counted,
}

/// Processor time of the node and of the generator up to a moment. Reading it takes a millisecond or
/// two; done before counting, at the beginning as at the end, that cancels out.
pub(super) struct Used {
    node: Usage,
    generator: Usage,
}

impl Used {
    pub(super) fn of(node: &Processes) -> Self {
        let generator = Processes::new(vec![std::process::id()]);
        Self { node: node.usage(), generator: generator.usage() }
    }
}

impl Measured {
    pub(super) fn begin(&mut self, used: Used, counted: Counted) {
        self.begun = Some((Instant::now(), used, counted));
    }

    pub(super) fn end(&mut self, used: &Used, counted: Counted) {
        let Some((begun, used_before, before)) = self.begun.take() else { return };
        self.seconds = begun.elapsed().as_secs_f64();
        self.node_ns = used.node.since(&used_before.node);
        self.generator_ns = used.generator.since(&used_before.generator).unwrap_or(0);
        self.counted = Counted {
            up: counted.up,
            failed: counted.failed,
            messages: counted.messages - before.messages,
            deliveries: counted.deliveries - before.deliveries,
            handshakes: counted.handshakes - before.handshakes,
            bytes: counted.bytes - before.bytes,
        };
    }
}

impl WireReport {
    pub(super) fn new(
        plan: &Plan,
        measured: Measured,
        threads: Vec<WorkerFigures>,
        interrupted: bool,
    ) -> Self {
        let mut violations = Violations::default();
        let [mut delivery, mut answer, mut first_answer, mut handshake, mut slip] =
            std::array::from_fn(|_| latency_histogram());
        let mut pairs = Vec::new();
        let (mut busiest, mut suite) = (0.0_f64, None);
        let (mut fax, mut jitter) = (None, latency_histogram());
        for thread in threads {
            violations.merge(thread.violations);
            // The target covers every value of the sources: all are bounded alike.
            let _ = delivery.add(&thread.delivery);
            let _ = answer.add(&thread.answer);
            let _ = first_answer.add(&thread.first_answer);
            let _ = handshake.add(&thread.handshake);
            let _ = slip.add(&thread.slip);
            pairs.extend(thread.pairs);
            if thread.measured_ns > 0 {
                busiest = busiest.max(thread.cpu_ns as f64 / thread.measured_ns as f64);
            }
            suite = suite.or(thread.suite);
            let _ = jitter.add(&thread.jitter);
            if let Some(counts) = thread.fax {
                let fax: &mut FaxFigures = fax.get_or_insert_default();
                fax.sent += counts.sent;
                fax.received += counts.received;
                fax.reordered += counts.reordered;
                fax.duplicated += counts.duplicated;
            }
        }
        let latency = if plan.work == Work::Handshakes { &handshake } else { &delivery };
        let mut figures = figures(plan, &measured, (latency, &slip), &pairs, busiest);
        figures.fax = fax.map(|fax| FaxFigures {
            lost: fax.sent.saturating_sub(fax.received),
            jitter_us: LatencyUs::of_ns(&jitter),
            ..fax
        });
        if let Some(fairness) = figures.fairness.as_ref().filter(|it| it.median_messages > 0) {
            violations.add_many(Violation::Starved, fairness.silent_pairs, || {
                format!("the median pair had {} messages", fairness.median_messages)
            });
        }
        let (exchanged, what) = match plan.work {
            Work::Relay { .. } | Work::Raw | Work::Gateway(_) => {
                (measured.total.messages, "message")
            }
            Work::Fax(_) => (measured.total.deliveries, "packet"),
            Work::Bulk { .. } => (measured.total.bytes, "byte"),
            Work::Floors(Floors { idle: true, .. }) => (measured.up, "connection"),
            Work::Floors(_) => (measured.total.deliveries, "floor"),
            Work::Idle => (measured.up, "connection"),
            Work::Handshakes => (measured.total.handshakes, "handshake"),
        };
        if exchanged == 0 && !interrupted {
            let up = measured.up;
            violations.add(Violation::NothingExchanged, || match plan.work {
                Work::Idle | Work::Handshakes => format!("not one {what} came up"),
                _ if up == 0 => format!("none of {} connections came up", plan.links),
                _ => format!(
                    "{up} connections came up, but not one {what} passed: --duration is shorter \
                     than the time to the first one, or the target passes nothing on"
                ),
            });
        }
        let schedule_slip = Percentiles::of_ns(&slip);
        let warnings = warnings(plan, &figures, &measured, &schedule_slip);
        Self {
            passed: violations.total() == 0 && !interrupted,
            interrupted,
            machine: Machine::of_this_process(),
            commit: None,
            command_line: command_line(std::env::args()),
            config: config_report(plan, suite),
            latency_histogram_ns: Buckets::of(latency),
            figures,
            delivery_latency: Percentiles::of_ns(&delivery),
            answer_latency: Percentiles::of_ns(&answer),
            first_answer_latency: Percentiles::of_ns(&first_answer),
            handshake_latency: Percentiles::of_ns(&handshake),
            schedule_slip,
            violations,
            warnings,
        }
    }

    /// The table.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let config = &self.config;
        let is_bfcp = config.scenario.starts_with("bfcp");
        let is_fax = self.figures.fax.is_some();
        let names = match (is_bfcp, is_fax) {
            (true, _) => ["due to Granted", "primitive to answer", "Hello to HelloAck"],
            (_, true) => ["due to arrival", "", ""],
            _ => ["SEND to delivery", "SEND to 200", "first word to 200"],
        };
        let _ = writeln!(
            text,
            "\n{} to {}: {} connections, {}{}{}, {} media thread(s)",
            config.scenario,
            config.target,
            config.connections,
            config.security,
            config.suite.as_ref().map_or_else(String::new, |suite| format!(" ({suite})")),
            if is_bfcp {
                String::new()
            } else {
                format!(", bodies of {} bytes", config.message_bytes)
            },
            config.threads
        );
        let _ = writeln!(
            text,
            "\n  {:<20}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "latency", "count", "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, it) in [
            (names[0], &self.delivery_latency),
            (names[1], &self.answer_latency),
            (names[2], &self.first_answer_latency),
            ("handshake", &self.handshake_latency),
            ("schedule slip", &self.schedule_slip),
        ] {
            if it.count > 0 {
                let [p50, p90, p99, p999, max] =
                    [it.p50_us, it.p90_us, it.p99_us, it.p999_us, it.max_us].map(show_us);
                let _ = writeln!(
                    text,
                    "  {name:<20}{:>11}{p50:>11}{p90:>11}{p99:>11}{p999:>11}{max:>11}",
                    it.count
                );
            }
        }
        text.push('\n');
        self.figures.write(&mut text);
        for warning in &self.warnings {
            let _ = writeln!(text, "  WARNING: {warning}");
        }
        if self.interrupted {
            text.push_str("\nINTERRUPTED by the user\n");
        }
        self.violations.write_verdict(
            &mut text,
            self.passed,
            match (is_bfcp, is_fax) {
                (true, _) => {
                    "every connection came up, every primitive was answered, no floor had too many holders"
                }
                (_, true) => "every end came up, every packet arrived once and unchanged",
                _ => {
                    "every connection came up, every message was answered and arrived once and in order"
                }
            },
        );
        text
    }
}

fn figures(
    plan: &Plan,
    measured: &Measured,
    (latency, slip): (&Histogram<u64>, &Histogram<u64>),
    pairs: &[(u64, f64)],
    busiest: f64,
) -> Figures {
    let Counted { messages, deliveries, handshakes, .. } = measured.counted;
    let seconds = measured.seconds;
    let per_second = |count: u64| (count > 0 && seconds > 0.0).then(|| count as f64 / seconds);
    let us_per = |ns: Option<u64>, count: u64| {
        ns.filter(|_| count > 0).map(|ns| ns as f64 / 1e3 / count as f64)
    };
    let counts_handshakes = plan.work == Work::Handshakes;
    let no_messages = counts_handshakes || matches!(plan.work, Work::Bulk { .. });
    let (messages, deliveries) = if no_messages { (0, 0) } else { (messages, deliveries) };
    let handshakes = if counts_handshakes { handshakes } else { 0 };
    // Of the stream the bodies count, as they do of a session.
    let stream = super::bulk::Stream::new();
    let share = super::bulk::CHUNK_BODY_BYTES as f64 / stream.chunk_bytes() as f64;
    let gbit = measured.counted.bytes as f64 * share * 8.0 / 1e9;
    let is_bulk = matches!(plan.work, Work::Bulk { .. });
    let node_seconds = measured.node_ns.filter(|ns| *ns > 0).map(|ns| ns as f64 / 1e9);
    let grown = measured.pss_end.zip(measured.pss_before).filter(|_| measured.up > 0);
    Figures {
        seconds,
        sessions: Some(measured.up),
        set_up_seconds: Some(measured.set_up_seconds),
        messages: Some(messages).filter(|_| !no_messages),
        messages_per_second: per_second(messages),
        deliveries: Some(deliveries).filter(|_| !no_messages),
        node_cpu_seconds: measured.node_ns.map(|ns| ns as f64 / 1e9),
        node_cpu_us_per_message: us_per(measured.node_ns, messages),
        node_cpu_us_per_delivery: us_per(measured.node_ns, deliveries),
        generator_cpu_us_per_message: us_per(Some(measured.generator_ns), messages),
        generator_busy: busiest,
        generator_bound: busiest > crate::report::BOUND_SHARE,
        latency_us: LatencyUs::of_ns(latency),
        send_lateness_us: LatencyUs::of_ns(slip),
        fairness: PairFairness::of(pairs),
        pss_bytes_per_session: grown
            .map(|(end, before)| (end as f64 - before as f64) / measured.up as f64),
        pss_before_bytes: measured.pss_before,
        pss_set_up_bytes: measured.pss_set_up,
        pss_end_bytes: measured.pss_end,
        handshakes: Some(handshakes).filter(|_| counts_handshakes),
        handshakes_per_second: per_second(handshakes),
        gbit_per_second: (is_bulk && seconds > 0.0).then(|| gbit / seconds),
        node_gbit_per_cpu_second: node_seconds.filter(|_| is_bulk).map(|cpu| gbit / cpu),
        node_cpu_us_per_handshake: us_per(measured.node_ns, handshakes),
        generator_cpu_us_per_handshake: us_per(Some(measured.generator_ns), handshakes),
        ..Figures::default()
    }
}

fn config_report(plan: &Plan, suite: Option<&str>) -> WireConfigReport {
    let traffic = &plan.traffic;
    WireConfigReport {
        scenario: match plan.work {
            Work::Relay { .. } => "relay",
            Work::Raw => "raw",
            Work::Bulk { .. } => "bulk",
            Work::Floors(Floors { idle: true, .. }) => "bfcp --idle",
            Work::Floors(_) => "bfcp",
            Work::Idle => "plane --idle",
            Work::Handshakes => "plane --handshakes",
            Work::Gateway(Gateway { called: true, .. }) => "e2ae",
            Work::Gateway(_) => "gateway",
            Work::Fax(Fax { called: true, .. }) => "fax",
            Work::Fax(_) => "fax --points",
        }
        .to_owned(),
        target: match (&plan.work, &plan.targets[..]) {
            // Each pair has one.
            (Work::Gateway(_) | Work::Fax(_), [first, _, ..]) => {
                format!("{first} and {} more", plan.targets.len() - 1)
            }
            (_, all) => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        },
        security: match plan.protection {
            Protection::Plain => "plain",
            Protection::Certificate { .. }
            | Protection::Announced { .. }
            | Protection::Datagrams { .. } => "certificate",
            Protection::Psk { .. } => "psk",
        }
        .to_owned(),
        suite: suite.map(str::to_owned),
        connections: plan.links,
        window: traffic.interval_ns.is_none().then_some(traffic.window),
        message_rate_per_second: traffic.interval_ns.map(|interval| 1e9 / interval as f64),
        message_bytes: traffic.body_bytes,
        duration_seconds: plan.duration.as_secs_f64(),
        threads: plan.threads,
    }
}

fn warnings(
    plan: &Plan,
    figures: &Figures,
    measured: &Measured,
    slip: &Percentiles,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_idle = matches!(plan.work, Work::Idle | Work::Floors(Floors { idle: true, .. }));
    if figures.generator_bound && !is_idle {
        warnings.push(crate::report::bound_warning(figures.generator_busy));
    }
    warnings.extend(crate::report::late_warning(figures));
    if slip.p99_us > crate::report::SLIP_US_MAX {
        warnings.push(crate::report::slip_warning(slip));
    }
    if measured.pss_before.is_some() && measured.node_ns.is_none() {
        warnings.push("a process of --node-pid ended: no figures of it".to_owned());
    }
    if plan.threads as usize > Machine::of_this_process().processors {
        warnings.push("there are more --threads than processors".to_owned());
    }
    warnings
}
