//! What a run has measured.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use hdrhistogram::Histogram;

use super::{Fleet, Phase, latency_histogram};
use crate::accounting::{Processes, Usage};
use crate::cli::Run;
use crate::display::Figures;
use crate::expectation::Violation;
use crate::media::{Progress, Thread, resident_kib};
use crate::merge::Buckets;
use crate::report::{
    BOUND_SHARE, ConfigReport, CpuReport, FairnessReport, FilesReport, LatencyUs, Machine,
    MemoryReport, MessagesReport, PairFairness, Percentiles, Report, SLIP_US_MAX, StallReport,
    bound_warning, command_line, late_warning, slip_warning,
};
use crate::scenario::Scenario;

/// What is measured while there is traffic.
#[derive(Default)]
pub(super) struct Steady {
    pub(super) begun: Option<Instant>,
    pub(super) seconds: f64,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    node: Processes,
    /// What the generator and the node had used at the beginning.
    usage: (Usage, Usage),
    generator_ns: u64,
    pub(super) node_ns: Option<u64>,
    /// Proportional set size of the node: before the first call, when all were up, at the end.
    pub(super) pss_before: Option<u64>,
    pub(super) pss_set_up: Option<u64>,
    pub(super) pss_end: Option<u64>,
    pub(super) node_memory: Option<MemoryReport>,
    sampled: Option<Instant>,
    /// Messages, deliveries and whole calls before it began; whole calls since.
    before: (u64, u64, u32),
    calls: u32,
}

/// How often the node's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

impl Fleet<'_> {
    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures {
            phase: Cow::Borrowed(match self.phase {
                Phase::SettingUp => "setting up",
                Phase::WarmingUp => "warming up",
                Phase::Talking => "talking",
                Phase::Draining => "draining",
                Phase::Ending => "ending",
                Phase::Over => "over",
            }),
            calls_up: self.present,
            calls_bound: self.calls.bound,
            violations: self.violations.total(),
            ..Figures::default()
        };
        for thread in &self.threads {
            let progress = &thread.progress;
            figures.messages += progress.messages.load(Ordering::Relaxed);
            figures.deliveries += progress.deliveries.load(Ordering::Relaxed);
            figures.violations += progress.violations.load(Ordering::Relaxed);
            let p50 = progress.recent_p50_ns.load(Ordering::Relaxed);
            let p99 = progress.recent_p99_ns.load(Ordering::Relaxed);
            figures.p50_ns = figures.p50_ns.max(p50);
            figures.p99_ns = figures.p99_ns.max(p99);
        }
        figures
    }

    pub(super) fn report(
        mut self,
        sent_total: u64,
        delivered_total: u64,
        busiest_ns: u64,
    ) -> Report {
        let mut delivery = latency_histogram();
        let mut answer = latency_histogram();
        let mut first_answer = latency_histogram();
        let mut slip = latency_histogram();
        let (mut unstalled, mut stalled) = (latency_histogram(), latency_histogram());
        let mut file = latency_histogram();
        let mut stalled_bytes = 0;
        let mut delivered_by_room = Vec::new();
        let mut pairs = Vec::new();
        let mut file_bytes_taken = 0;
        for report in self.media_reports {
            self.violations.merge(report.violations);
            // The target covers every value of the sources: both are bounded alike.
            let _ = delivery.add(&report.delivery_latency);
            let _ = answer.add(&report.answer_latency);
            let _ = first_answer.add(&report.first_answer_latency);
            let _ = slip.add(&report.slip);
            let _ = unstalled.add(&report.unstalled_latency);
            let _ = stalled.add(&report.stalled_latency);
            let _ = file.add(&report.file_latency);
            stalled_bytes += report.stalled_bytes;
            delivered_by_room.extend(report.delivered_by_room);
            pairs.extend(report.latency_by_room);
            file_bytes_taken += report.file_bytes_taken;
        }
        let traffic = &self.scenario.traffic;
        if traffic.stall.is_some() {
            // Nobody chats in the first room.
            delivered_by_room.retain(|delivered| *delivered > 0);
        }
        let fairness = FairnessReport::of(delivered_by_room, self.steady.seconds);
        // A pair that is full of a file has nothing else to say.
        let talks = traffic.window > 0 && self.scenario.churn.is_none();
        let starved = if traffic.interval_ns.is_none() && talks { fairness.starved() } else { 0 };
        self.violations.add_many(Violation::Starved, starved, || {
            format!("the median room had {:.0} deliveries/s", fairness.median_per_second)
        });
        let steady = &self.steady;
        let seconds = steady.seconds;
        let per_second = |count: u64| {
            if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
        };
        let messages = MessagesReport {
            seconds,
            sent: steady.sent,
            delivered: steady.delivered,
            sent_total,
            delivered_total,
            sent_per_second: per_second(steady.sent),
            delivered_per_second: per_second(steady.delivered),
        };
        let cpu = steady.cpu(busiest_ns);
        let schedule_slip = Percentiles::of_ns(&slip);
        let churns = self.scenario.churn.is_some();
        let latency = if churns { &self.bound_latency } else { &delivery };
        let mut figures = steady.shared_figures(
            self.calls.bound,
            self.calls.setup_seconds,
            busiest_ns,
            if churns { &[] } else { &pairs },
            (latency, &slip),
        );
        if churns {
            steady.add_calls(&mut figures);
            figures.calls_shed = Some(self.calls.shed.into());
        }
        if traffic.files.is_some() {
            let gbit = file_bytes_taken as f64 * 8.0 / 1e9;
            figures.gbit_per_second = (steady.seconds > 0.0).then(|| gbit / steady.seconds);
            figures.node_gbit_per_cpu_second =
                figures.node_cpu_seconds.filter(|it| *it > 0.0).map(|seconds| gbit / seconds);
        }
        let measures_node = !steady.node.is_empty();
        let mut warnings = warnings(self.options, measures_node, &cpu, &schedule_slip, &messages);
        warnings.extend(late_warning(&figures));
        let exchanged = if churns { self.calls.ended.into() } else { sent_total + file.len() };
        // Whether floors were granted is in a report of its own.
        if exchanged == 0 && !self.interrupted && self.lobby.is_none() {
            let (bound, attempted) = (self.calls.bound, self.calls.attempted);
            self.violations.add(Violation::NothingExchanged, || match bound {
                0 => format!("none of {attempted} calls came up, so nobody talked"),
                _ if churns => format!("{bound} calls came up, but none ended with an answered BYE"),
                _ => format!(
                    "{bound} calls came up, but no message was sent: --duration is shorter than the \
                     time to the first one, or all who could send had failed"
                ),
            });
        }
        Report {
            passed: self.violations.total() == 0 && !self.interrupted,
            interrupted: self.interrupted,
            machine: Machine::of_this_process(),
            commit: self.options.recording.commit.clone(),
            command_line: command_line(std::env::args()),
            config: config_report(self.options, self.scenario),
            figures,
            latency_histogram_ns: Buckets::of(latency),
            calls: self.calls,
            messages,
            setup_latency: Percentiles::of_ns(&self.setup_latency),
            bound_latency: Percentiles::of_ns(&self.bound_latency),
            ending_latency: Percentiles::of_ns(&self.ending_latency),
            delivery_latency: Percentiles::of_ns(&delivery),
            answer_latency: Percentiles::of_ns(&answer),
            first_answer_latency: Percentiles::of_ns(&first_answer),
            fairness,
            files: traffic.files.map(|files| FilesReport::of(files.bytes, &file)),
            stall: traffic.stall.map(|stall| StallReport {
                seconds: stall.duration.as_secs_f64(),
                sent_bytes: stalled_bytes,
                before: Percentiles::of_ns(&unstalled),
                during: Percentiles::of_ns(&stalled),
            }),
            node_memory: self.steady.node_memory,
            schedule_slip,
            cpu,
            violations: self.violations,
            warnings,
        }
    }
}

impl Steady {
    /// Before the first call.
    pub(super) fn of(node: &Processes) -> Self {
        Self { pss_before: node.pss_bytes(), node: node.clone(), ..Self::default() }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    pub(super) fn begin(&mut self, threads: &[Thread], calls: u32) {
        self.node_memory = self.resident_kib().map(MemoryReport::begin);
        self.pss_set_up = self.node.pss_bytes();
        self.usage = (own().usage(), self.node.usage());
        self.begun = Some(Instant::now());
        self.before =
            (counted(threads, |it| &it.messages), counted(threads, |it| &it.deliveries), calls);
    }

    /// Looks at the node's memory ten times a second.
    pub(super) fn sample_memory(&mut self) {
        let now = Instant::now();
        if self.sampled.is_some_and(|sampled| now < sampled + MEMORY_INTERVAL) {
            return;
        }
        self.sampled = Some(now);
        let resident = self.resident_kib();
        if let (Some(memory), Some(kib)) = (&mut self.node_memory, resident) {
            memory.sample(kib);
        }
    }

    pub(super) fn end(&mut self, threads: &[Thread], calls: u32, now: Instant) {
        let Some(begun) = self.begun else { return };
        self.seconds = (now - begun).as_secs_f64();
        self.generator_ns = own().usage().since(&self.usage.0).unwrap_or(0);
        self.node_ns = self.node.usage().since(&self.usage.1);
        self.pss_end = self.node.pss_bytes();
        let (messages, deliveries, calls_before) = self.before;
        self.sent = counted(threads, |it| &it.messages) - messages;
        self.delivered = counted(threads, |it| &it.deliveries) - deliveries;
        self.calls = calls - calls_before;
    }

    pub(super) fn cpu(&self, busiest_ns: u64) -> CpuReport {
        if self.seconds <= 0.0 {
            return CpuReport::default();
        }
        let processors = |ns: u64| ns as f64 / 1e9 / self.seconds;
        let per = |count: u64| {
            self.node_ns.filter(|_| count > 0).map(|ns| ns as f64 / 1e3 / count as f64)
        };
        CpuReport {
            generator_processors: processors(self.generator_ns),
            busiest_media_thread: processors(busiest_ns),
            node_processors: self.node_ns.map(processors),
            node_us_per_message: per(self.sent),
            node_us_per_delivery: per(self.delivered),
        }
    }

    /// The figures under the names every kind of run has.
    pub(super) fn shared_figures(
        &self,
        sessions: u32,
        set_up_seconds: f64,
        busiest_ns: u64,
        pairs: &[(u64, f64)],
        (latency, slip): (&Histogram<u64>, &Histogram<u64>),
    ) -> crate::report::Figures {
        let cpu = self.cpu(busiest_ns);
        let per_second = |count: u64| (self.seconds > 0.0).then(|| count as f64 / self.seconds);
        let grown = self.pss_end.zip(self.pss_before).filter(|_| sessions > 0);
        crate::report::Figures {
            seconds: self.seconds,
            sessions: Some(sessions.into()),
            set_up_seconds: Some(set_up_seconds),
            messages: Some(self.sent),
            messages_per_second: per_second(self.sent),
            deliveries: Some(self.delivered),
            node_cpu_seconds: self.node_ns.map(|ns| ns as f64 / 1e9),
            node_cpu_us_per_message: cpu.node_us_per_message,
            node_cpu_us_per_delivery: cpu.node_us_per_delivery,
            deliveries_per_node_cpu_second: cpu.node_us_per_delivery.map(|us| 1e6 / us),
            generator_cpu_us_per_message: (self.sent > 0)
                .then(|| self.generator_ns as f64 / 1e3 / self.sent as f64),
            generator_busy: cpu.busiest_media_thread,
            generator_bound: cpu.busiest_media_thread > BOUND_SHARE,
            latency_us: LatencyUs::of_ns(latency),
            send_lateness_us: LatencyUs::of_ns(slip),
            fairness: PairFairness::of(pairs),
            pss_bytes_per_session: grown
                .map(|(end, before)| (end as f64 - before as f64) / f64::from(sessions)),
            pss_before_bytes: self.pss_before,
            pss_set_up_bytes: self.pss_set_up,
            pss_end_bytes: self.pss_end,
            ..crate::report::Figures::default()
        }
    }

    /// Of whole calls there are no messages worth counting.
    fn add_calls(&self, figures: &mut crate::report::Figures) {
        let per_call = |ns: Option<u64>| {
            ns.filter(|_| self.calls > 0).map(|ns| ns as f64 / 1e3 / f64::from(self.calls))
        };
        figures.messages = None;
        figures.messages_per_second = None;
        figures.deliveries = None;
        figures.calls = Some(self.calls.into());
        figures.calls_per_second =
            (self.seconds > 0.0).then(|| f64::from(self.calls) / self.seconds);
        figures.node_cpu_us_per_call = per_call(self.node_ns);
        figures.generator_cpu_us_per_call = per_call(Some(self.generator_ns));
    }

    fn resident_kib(&self) -> Option<u64> {
        self.node.first().and_then(resident_kib)
    }
}

fn counted(threads: &[Thread], figure: impl Fn(&Progress) -> &AtomicU64) -> u64 {
    threads.iter().map(|thread| figure(&thread.progress).load(Ordering::Relaxed)).sum()
}

fn own() -> Processes {
    Processes::new(vec![std::process::id()])
}

fn config_report(options: &Run, scenario: &Scenario) -> ConfigReport {
    let interval_ns = scenario.traffic.interval_ns;
    ConfigReport {
        scenario: options
            .scenario
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned()),
        target: format!("sip:{}@{}", options.target.user, options.target.host_port),
        transport: format!("{:?}", options.transport).to_lowercase(),
        security: format!("{:?}", options.security).to_lowercase(),
        sessions: scenario.sessions,
        rooms: scenario.room_sizes.len() as u32,
        rate_per_second: scenario.rate_per_second,
        duration_seconds: scenario.duration.as_secs_f64(),
        window: scenario.traffic.window,
        message_rate_per_second: interval_ns.map_or(0.0, |interval| 1e9 / interval as f64),
        message_bytes: scenario.traffic.texts.bytes().to_vec(),
        threads: scenario.threads,
    }
}

fn warnings(
    options: &Run,
    measures_node: bool,
    cpu: &CpuReport,
    slip: &Percentiles,
    messages: &MessagesReport,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let processors = Machine::of_this_process().processors;
    if options.threads as usize > processors {
        warnings.push(format!(
            "{} media threads share {processors} processors: --threads is too high",
            options.threads
        ));
    }
    if measures_node && cpu.node_processors.is_none() && messages.seconds > 0.0 {
        warnings.push("a process of --node-pid ended: no figures of it".to_owned());
    }
    if cpu.busiest_media_thread > BOUND_SHARE {
        warnings.push(bound_warning(cpu.busiest_media_thread));
    }
    if slip.p99_us > SLIP_US_MAX {
        warnings.push(slip_warning(slip));
    }
    warnings
}
