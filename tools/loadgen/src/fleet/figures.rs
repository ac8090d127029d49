//! What a run has measured.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;

use super::{Fleet, Phase, latency_histogram};
use crate::cli::Run;
use crate::display::Figures;
use crate::expectation::Violation;
use crate::media::{Thread, cpu_ticks, resident_kib};
use crate::report::{
    ConfigReport, CpuReport, FairnessReport, FilesReport, Machine, MemoryReport, MessagesReport,
    Percentiles, Report, StallReport, command_line,
};
use crate::scenario::Scenario;

/// What is measured while there is traffic.
#[derive(Default)]
pub(super) struct Steady {
    pub(super) begun: Option<Instant>,
    pub(super) seconds: f64,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) generator_ticks: u64,
    pub(super) node_ticks: Option<u64>,
    pub(super) node_memory: Option<MemoryReport>,
    sampled: Option<Instant>,
}

/// How often the node's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);
/// Linux shows processor time in hundredths of a second on every architecture (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// A thread busier than that waits for its processor, and latencies are its own.
const BUSY_SHARE_MAX: f64 = 0.85;
/// Messages sent that late were not the load that was asked for.
const SLIP_US_MAX: f64 = 5_000.0;

impl Fleet<'_> {
    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures {
            phase: match self.phase {
                Phase::SettingUp => "setting up",
                Phase::Talking => "talking",
                Phase::Draining => "draining",
                Phase::Ending => "ending",
                Phase::Over => "over",
            },
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
        busiest_ticks: u64,
    ) -> Report {
        let mut delivery = latency_histogram();
        let mut answer = latency_histogram();
        let mut first_answer = latency_histogram();
        let mut slip = latency_histogram();
        let (mut unstalled, mut stalled) = (latency_histogram(), latency_histogram());
        let mut file = latency_histogram();
        let mut stalled_bytes = 0;
        let mut delivered_by_room = Vec::new();
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
        }
        let traffic = &self.scenario.traffic;
        if traffic.stall.is_some() {
            // Nobody chats in the first room.
            delivered_by_room.retain(|delivered| *delivered > 0);
        }
        let fairness = FairnessReport::of(delivered_by_room, self.steady.seconds);
        let starved = if traffic.interval_ns.is_none() { fairness.starved() } else { 0 };
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
        let cpu = steady.cpu(busiest_ticks);
        let schedule_slip = Percentiles::of_ns(&slip);
        let mut warnings = warnings(self.options, &cpu, &schedule_slip, &messages);
        if self.calls.bound == 0 {
            warnings.push("no call came up, so nobody talked".to_owned());
        }
        Report {
            passed: self.violations.total() == 0 && !self.interrupted,
            interrupted: self.interrupted,
            machine: Machine::of_this_process(),
            commit: self.options.commit.clone(),
            command_line: command_line(std::env::args()),
            config: config_report(self.options, self.scenario),
            calls: self.calls,
            messages,
            setup_latency: Percentiles::of_ns(&self.setup_latency),
            bound_latency: Percentiles::of_ns(&self.bound_latency),
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
    pub(super) fn begin(&mut self, node_pid: Option<u32>, now: Instant) {
        self.begun = Some(now);
        self.node_memory = node_pid.and_then(resident_kib).map(MemoryReport::begin);
        self.generator_ticks = cpu_ticks("/proc/self/stat").unwrap_or(0);
        self.node_ticks = node_ticks(node_pid);
    }

    /// Looks at the node's memory ten times a second.
    pub(super) fn sample_memory(&mut self, node_pid: Option<u32>) {
        let now = Instant::now();
        if self.sampled.is_some_and(|sampled| now < sampled + MEMORY_INTERVAL) {
            return;
        }
        self.sampled = Some(now);
        if let (Some(memory), Some(kib)) = (&mut self.node_memory, node_pid.and_then(resident_kib))
        {
            memory.sample(kib);
        }
    }

    pub(super) fn end(&mut self, node_pid: Option<u32>, threads: &[Thread], now: Instant) {
        let Some(begun) = self.begun else { return };
        self.seconds = (now - begun).as_secs_f64();
        let generator = cpu_ticks("/proc/self/stat").unwrap_or(0);
        self.generator_ticks = generator.saturating_sub(self.generator_ticks);
        self.node_ticks = node_ticks(node_pid)
            .zip(self.node_ticks)
            .map(|(after, before)| after.saturating_sub(before));
        for thread in threads {
            self.sent += thread.progress.messages.load(Ordering::Relaxed);
            self.delivered += thread.progress.deliveries.load(Ordering::Relaxed);
        }
    }

    pub(super) fn cpu(&self, busiest_ticks: u64) -> CpuReport {
        if self.seconds <= 0.0 {
            return CpuReport::default();
        }
        let processors = |ticks: u64| ticks as f64 / TICKS_PER_SECOND / self.seconds;
        let node_us = self.node_ticks.map(|ticks| ticks as f64 / TICKS_PER_SECOND * 1e6);
        let per = |count: u64| node_us.filter(|_| count > 0).map(|us| us / count as f64);
        CpuReport {
            generator_processors: processors(self.generator_ticks),
            busiest_media_thread: processors(busiest_ticks),
            node_processors: self.node_ticks.map(processors),
            node_us_per_message: per(self.sent),
            node_us_per_delivery: per(self.delivered),
        }
    }
}

fn node_ticks(node_pid: Option<u32>) -> Option<u64> {
    cpu_ticks(&format!("/proc/{}/stat", node_pid?))
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
        rooms: scenario.rooms.sizes(scenario.sessions).len() as u32,
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
    if let (Some(process), None, true) =
        (options.node_pid, cpu.node_processors, messages.seconds > 0.0)
    {
        warnings.push(format!("process {process} (--node-pid) ended: no figures of it"));
    }
    if cpu.busiest_media_thread > BUSY_SHARE_MAX {
        warnings.push(format!(
            "a media thread of the generator was busy {:.0} % of the time: the generator may be \
             the bottleneck, add --threads or another machine",
            cpu.busiest_media_thread * 100.0
        ));
    }
    if slip.p99_us > SLIP_US_MAX {
        warnings.push(format!(
            "1 % of the messages left {:.1} ms or more after they were due: the generator did not \
             keep up",
            slip.p99_us / 1e3
        ));
    }
    warnings
}
