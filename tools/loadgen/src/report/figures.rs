//! What only some scenarios show: fairness, files, a stalled receiver, the node's memory.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Percentiles, Report, show_us};

/// How alike the rooms were served while there was talk.
#[derive(Clone, Default, Debug, Serialize)]
pub struct FairnessReport {
    /// Rooms with somebody to talk to.
    pub rooms: usize,
    /// Rooms in which nothing was delivered.
    pub silent: usize,
    /// Deliveries per second in the slowest room.
    pub slowest_per_second: f64,
    /// In the median room.
    pub median_per_second: f64,
    /// Slowest by median; 0 where nothing was delivered.
    pub slowest_by_median: f64,
}

impl FairnessReport {
    /// Of the deliveries in each room.
    #[must_use]
    pub fn of(mut delivered: Vec<u64>, seconds: f64) -> Self {
        if delivered.is_empty() || seconds <= 0.0 {
            return Self::default();
        }
        delivered.sort_unstable();
        let (slowest, median) = (delivered[0] as f64, delivered[delivered.len() / 2] as f64);
        Self {
            rooms: delivered.len(),
            silent: delivered.iter().take_while(|count| **count == 0).count(),
            slowest_per_second: slowest / seconds,
            median_per_second: median / seconds,
            slowest_by_median: if median > 0.0 { slowest / median } else { 0.0 },
        }
    }

    /// Rooms in which nothing was delivered though most others talked.
    #[must_use]
    pub fn starved(&self) -> u64 {
        if self.median_per_second > 0.0 { self.silent as u64 } else { 0 }
    }
}

/// Files.
#[derive(Clone, Default, Debug, Serialize)]
pub struct FilesReport {
    /// Bytes of each.
    pub bytes: usize,
    /// Files that arrived, whole and byte-exact.
    pub delivered: u64,
    /// From the first chunk to the last byte.
    pub latency: Percentiles,
    /// Megabytes (10^6) per second of the median file.
    pub megabytes_per_second: f64,
}

impl FilesReport {
    /// Of a histogram of nanoseconds.
    #[must_use]
    pub fn of(bytes: usize, latency: &Histogram<u64>) -> Self {
        let latency = Percentiles::of_ns(latency);
        let rate = if latency.p50_us > 0.0 { bytes as f64 / latency.p50_us } else { 0.0 };
        Self { bytes, delivered: latency.count, latency, megabytes_per_second: rate }
    }
}

/// A receiver that stopped reading.
#[derive(Clone, Default, Debug, Serialize)]
pub struct StallReport {
    /// For so long.
    pub seconds: f64,
    /// Body bytes of the file that its sender got rid of meanwhile.
    pub sent_bytes: u64,
    /// Delivery latency of the other pairs before.
    pub before: Percentiles,
    /// And meanwhile.
    pub during: Percentiles,
}

/// Resident memory of the node from the beginning of the talk to the last delivery.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub struct MemoryReport {
    /// When the talk began, in KiB.
    pub begin_kib: u64,
    /// The most.
    pub max_kib: u64,
    /// When it was looked at last.
    pub end_kib: u64,
}

impl MemoryReport {
    /// The first look.
    #[must_use]
    pub fn begin(kib: u64) -> Self {
        Self { begin_kib: kib, max_kib: kib, end_kib: kib }
    }

    /// A further one.
    pub fn sample(&mut self, kib: u64) {
        self.max_kib = self.max_kib.max(kib);
        self.end_kib = kib;
    }
}

impl Report {
    pub(super) fn write_figures(&self, text: &mut String) {
        let fairness = &self.fairness;
        if fairness.rooms > 1 && self.config.window > 0 {
            let _ = writeln!(
                text,
                "  fairness    the slowest of {} rooms had {:.0} deliveries/s, the median one {:.0}: \
                 {:.2}",
                fairness.rooms,
                fairness.slowest_per_second,
                fairness.median_per_second,
                fairness.slowest_by_median
            );
        }
        if let Some(files) = &self.files {
            let _ = writeln!(
                text,
                "  files       {} of {:.1} MB delivered byte-exact, the median one in {} ({:.1} MB/s)",
                files.delivered,
                files.bytes as f64 / 1e6,
                show_us(files.latency.p50_us),
                files.megabytes_per_second
            );
        }
        if let Some(stall) = &self.stall {
            let _ = writeln!(
                text,
                "  stall       {:.1} s, in which the sender got rid of {:.1} MB; the other pairs' \
                 p50 was {} before and {} meanwhile, p99 {} and {}",
                stall.seconds,
                stall.sent_bytes as f64 / 1e6,
                show_us(stall.before.p50_us),
                show_us(stall.during.p50_us),
                show_us(stall.before.p99_us),
                show_us(stall.during.p99_us)
            );
        }
        if let Some(memory) = &self.node_memory {
            let _ = writeln!(
                text,
                "  node memory {:.1} MiB at first, {:.1} MiB at most, {:.1} MiB in the end",
                memory.begin_kib as f64 / 1024.0,
                memory.max_kib as f64 / 1024.0,
                memory.end_kib as f64 / 1024.0
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_in_which_nothing_is_heard_is_starved_only_where_others_are_heard() {
        let fairness = FairnessReport::of(vec![0, 10, 4], 2.0);
        assert_eq!((fairness.silent, fairness.starved()), (1, 1));
        assert!((fairness.median_per_second - 2.0).abs() < 1e-9);
        assert_eq!(FairnessReport::of(vec![0, 0], 2.0).starved(), 0);
        let fairness = FairnessReport::of(vec![8, 10, 6], 1.0);
        assert!((fairness.slowest_by_median - 0.75).abs() < 1e-9);
    }
}
