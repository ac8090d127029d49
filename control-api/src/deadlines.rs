//! Deadlines, at most one per subject.

use std::collections::{BTreeMap, BTreeSet};

/// All deadlines, soonest first.
#[derive(Debug)]
pub(crate) struct Deadlines<T> {
    queue: BTreeSet<(u64, T)>,
    deadlines_ns: BTreeMap<T, u64>,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Self { queue: BTreeSet::new(), deadlines_ns: BTreeMap::new() }
    }
}

impl<T: Copy + Ord> Deadlines<T> {
    pub(crate) fn set(&mut self, subject: T, deadline_ns: u64) {
        self.clear(subject);
        self.queue.insert((deadline_ns, subject));
        self.deadlines_ns.insert(subject, deadline_ns);
    }

    pub(crate) fn clear(&mut self, subject: T) {
        if let Some(deadline_ns) = self.deadlines_ns.remove(&subject) {
            assert!(self.queue.remove(&(deadline_ns, subject)));
        }
    }

    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.queue.first().map(|(deadline_ns, _)| *deadline_ns)
    }

    /// Takes the next deadline that has come.
    pub(crate) fn expired(&mut self, now_ns: u64) -> Option<T> {
        let (deadline_ns, subject) = *self.queue.first()?;
        if deadline_ns > now_ns {
            return None;
        }
        self.clear(subject);
        Some(subject)
    }
}
