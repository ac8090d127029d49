//! The media side of the fleet: pinned threads, each with its own ring and the UEs of some rooms.

pub mod connection;
pub mod egress;
pub mod message;
pub mod worker;

use std::sync::atomic::AtomicU64;

use hdrhistogram::Histogram;

use crate::expectation::Violations;

/// What the UEs do once they are bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Open loop: time between two messages of a session, in nanoseconds. `None`: closed loop.
    pub interval_ns: Option<u64>,
    /// Closed loop: messages of a session that are not yet answered and delivered everywhere.
    pub window: u32,
    /// Bytes of a message's text.
    pub message_bytes: usize,
}

/// Figures of one media thread while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Messages sent.
    pub messages: AtomicU64,
    /// Messages received.
    pub deliveries: AtomicU64,
    /// SENDs answered.
    pub answers: AtomicU64,
    /// Violations found.
    pub violations: AtomicU64,
    /// Median delivery latency of the last second, in nanoseconds.
    pub recent_p50_ns: AtomicU64,
    /// 99th percentile of the same.
    pub recent_p99_ns: AtomicU64,
    /// When those two were computed, in nanoseconds of the media clock.
    pub recent_at_ns: AtomicU64,
    /// Processor time of the thread while there was traffic, in clock ticks.
    pub thread_cpu_ticks: AtomicU64,
}

/// What a media thread has measured.
#[derive(Debug)]
pub struct WorkerReport {
    /// What went wrong.
    pub violations: Violations,
    /// From the intended sending of a message to each of its deliveries, in nanoseconds.
    pub delivery_latency: Histogram<u64>,
    /// From the sending of a SEND to its response, in nanoseconds.
    pub answer_latency: Histogram<u64>,
    /// How late the open loop was, in nanoseconds.
    pub slip: Histogram<u64>,
}

/// utime + stime of a `/proc/.../stat` file, in clock ticks (proc(5), fields 14 and 15).
#[must_use]
pub fn cpu_ticks(stat_path: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(stat_path).ok()?;
    // The second field may contain anything, parentheses included; the last one ends it.
    let fields = &stat[stat.rfind(')')? + 1..];
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
