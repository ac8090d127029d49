//! Who used how much of the machine: processor time and memory, of this process and of the node's.
//!
//! Processor time is user plus system time in nanoseconds, from `/proc/PID/task/*/schedstat`. A
//! thread that ends takes its figure with it; then the clock ticks of `/proc/PID/stat`, which
//! remember it, stand in for its process. What a process waited for goes to its children, so
//! processes that end during a measurement are missing from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Processes, each with all it has forked.
#[derive(Clone, Default, Debug)]
pub struct Processes(Vec<u32>);

/// What they had used at one moment.
#[derive(Clone, Default, Debug)]
pub struct Usage(BTreeMap<u32, ProcessUsage>);

#[derive(Clone, Default, Debug)]
struct ProcessUsage {
    by_thread_ns: BTreeMap<u32, u64>,
    ticks: u64,
}

/// Linux shows processor time in hundredths of a second on every architecture (USER_HZ).
const NS_PER_TICK: u64 = 10_000_000;

impl Processes {
    /// Those processes and all they have forked.
    #[must_use]
    pub fn new(pids: Vec<u32>) -> Self {
        Self(pids)
    }

    /// Nobody's figures are wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first that was named.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.0.first().copied()
    }

    /// One that is not there.
    #[must_use]
    pub fn missing(&self) -> Option<u32> {
        self.0.iter().copied().find(|pid| process_usage(*pid).is_none())
    }

    /// What they have used so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let usage = |pid| Some((pid, process_usage(pid)?));
        Usage(self.with_children().into_iter().filter_map(usage).collect())
    }

    /// Proportional set size of all, in bytes (`Pss` of smaps_rollup, proc(5)).
    #[must_use]
    pub fn pss_bytes(&self) -> Option<u64> {
        let of = |pid: u32| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        if self.is_empty() {
            return None;
        }
        self.with_children().into_iter().map(of).sum()
    }

    fn with_children(&self) -> BTreeSet<u32> {
        let mut family: BTreeSet<u32> = self.0.iter().copied().collect();
        if family.is_empty() {
            return family;
        }
        let parents: Vec<(u32, u32)> = all_processes().collect();
        loop {
            let before = family.len();
            for (pid, parent) in &parents {
                if family.contains(parent) {
                    family.insert(*pid);
                }
            }
            if family.len() == before {
                return family;
            }
        }
    }
}

impl Usage {
    /// Nanoseconds used since an earlier moment; `None`: a process of that moment is gone.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<u64> {
        if earlier.0.is_empty() {
            return None;
        }
        let nothing = ProcessUsage::default();
        for pid in earlier.0.keys() {
            self.0.get(pid)?;
        }
        let used = self.0.iter().map(|(pid, now)| {
            let before = earlier.0.get(pid).unwrap_or(&nothing);
            now.since(before)
        });
        Some(used.sum())
    }
}

impl ProcessUsage {
    fn since(&self, earlier: &Self) -> u64 {
        let all_there =
            earlier.by_thread_ns.keys().all(|thread| self.by_thread_ns.contains_key(thread));
        if !all_there || self.by_thread_ns.is_empty() {
            return (self.ticks - earlier.ticks.min(self.ticks)) * NS_PER_TICK;
        }
        let used = |(thread, ns): (&u32, &u64)| {
            ns.saturating_sub(earlier.by_thread_ns.get(thread).copied().unwrap_or(0))
        };
        self.by_thread_ns.iter().map(used).sum()
    }
}

/// Nanoseconds the calling thread has used.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| first_number(&text))
        .or_else(|| Some(ticks("/proc/thread-self/stat")? * NS_PER_TICK))
        .unwrap_or(0)
}

fn process_usage(pid: u32) -> Option<ProcessUsage> {
    let ticks = ticks(&format!("/proc/{pid}/stat"))?;
    let mut by_thread_ns = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let thread = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let schedstat = fs::read_to_string(entry.path().join("schedstat")).ok();
        let ns = schedstat.and_then(|text| first_number(&text));
        if let (Some(thread), Some(ns)) = (thread, ns) {
            by_thread_ns.insert(thread, ns);
        }
    }
    Some(ProcessUsage { by_thread_ns, ticks })
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// utime + stime of a `stat` file (proc(5), fields 14 and 15).
fn ticks(path: &str) -> Option<u64> {
    let stat = fs::read_to_string(path).ok()?;
    let mut fields = fields_after_name(&stat)?.skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Every process and its parent.
fn all_processes() -> impl Iterator<Item = (u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = fields_after_name(&stat)?.nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
}

/// The fields from the third one on: the second may contain anything, parentheses included; the
/// last one ends it.
fn fields_after_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat[stat.rfind(')')? + 1..].split_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use super::*;

    fn burn(duration: Duration) {
        let begun = thread_cpu_ns();
        let patience = Instant::now();
        while thread_cpu_ns() < begun + duration.as_nanos() as u64 {
            assert!(patience.elapsed() < Duration::from_secs(60));
            std::hint::black_box((0..10_000_u64).sum::<u64>());
        }
    }

    /// A child that another test of this process starts and ends counts as one of ours that has gone.
    static CHILDREN: Mutex<()> = Mutex::new(());

    #[test]
    fn what_all_threads_of_a_process_burn_is_counted() {
        let _no_children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let own = Processes::new(vec![std::process::id()]);
        let (burnt, done) = std::sync::mpsc::channel();
        let (leave, wait) = std::sync::mpsc::channel::<()>();
        let before = own.usage();
        let other = std::thread::spawn(move || {
            burn(Duration::from_millis(60));
            burnt.send(()).unwrap();
            let _ = wait.recv();
        });
        burn(Duration::from_millis(40));
        done.recv().unwrap();
        let used = own.usage().since(&before).unwrap();
        // Other tests of this process may run beside, so there is no upper bound.
        assert!(used >= 95_000_000, "{used}");
        leave.send(()).unwrap();
        other.join().unwrap();
    }

    #[test]
    fn a_thread_that_has_ended_is_still_counted() {
        let earlier =
            ProcessUsage { by_thread_ns: BTreeMap::from([(1, 5_000_000), (2, 0)]), ticks: 3 };
        let later = ProcessUsage { by_thread_ns: BTreeMap::from([(1, 6_000_000)]), ticks: 10 };
        assert_eq!(later.since(&earlier), 7 * NS_PER_TICK);
    }

    #[test]
    fn children_count_and_a_process_that_has_gone_is_said() {
        let _children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let own = Processes::new(vec![std::process::id()]);
        assert!(own.with_children().contains(&child.id()));
        let only = Processes::new(vec![child.id()]);
        assert_eq!(only.missing(), None);
        assert!(only.pss_bytes().unwrap() > 0);
        let before = only.usage();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(only.usage().since(&before), None);
        assert_eq!(only.missing(), Some(child.id()));
    }
}
