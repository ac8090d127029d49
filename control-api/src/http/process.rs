//! What the kernel says of this process, for `/metrics`.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One reading of the kernel's accounts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct ProcessAccounts {
    /// User and system time of all threads.
    pub(super) cpu_seconds: f64,
    /// Resident memory.
    pub(super) resident_bytes: u64,
    /// Descriptors in use.
    pub(super) open_descriptors: u64,
}

impl ProcessAccounts {
    /// Reads them; `None` where `/proc` is not there.
    pub(super) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let (user_ticks, system_ticks, resident_pages) = parse_stat(&stat)?;
        let open_descriptors = fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self {
            cpu_seconds: (user_ticks + system_ticks) as f64 / TICKS_PER_SECOND,
            resident_bytes: resident_bytes().unwrap_or(resident_pages * PAGE_BYTES),
            open_descriptors: u64::try_from(open_descriptors).ok()?,
        })
    }
}

/// Seconds since the epoch, now.
pub(super) fn epoch_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Fields 14, 15 and 24 of proc(5) `/proc/pid/stat`. The second field is the name in parentheses
/// and may hold anything, so counting starts behind the last parenthesis.
fn parse_stat(stat: &str) -> Option<(u64, u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user_ticks = fields.nth(11)?.parse().ok()?;
    let system_ticks = fields.next()?.parse().ok()?;
    let resident_pages = fields.nth(8)?.parse().ok()?;
    Some((user_ticks, system_ticks, resident_pages))
}

/// `VmRSS` in kilobytes, which does not depend on the page size.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// `USER_HZ`: 100 on every architecture Linux has today; it is part of the kernel's ABI.
const TICKS_PER_SECOND: f64 = 100.0;
/// Only where `/proc/self/status` lacks VmRSS.
const PAGE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0 99 1000 77 1 2";
        assert_eq!(parse_stat(stat), Some((250, 50, 77)));
    }

    #[test]
    fn reads_this_process() {
        let accounts = ProcessAccounts::read().expect("/proc is mounted");
        assert!(accounts.resident_bytes > 100_000);
        assert!(accounts.open_descriptors >= 3);
    }
}
