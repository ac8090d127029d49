//! Deadlines, at most one per subject.

use std::collections::{BTreeMap, BTreeSet};

use mrfp_core::mp::{ContextId, TerminationId};

use super::{CallId, SubscriptionId};

/// What a deadline belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// The KMS or a shard owes this call an answer.
    Call(CallId),
    /// The connection of this call was lost, and its session may be re-created until then.
    Recovery(CallId),
    /// This call is to get another key.
    Rekeying(CallId),
    /// A shard owes `Subtracted`.
    Subtract(TerminationId),
    /// A room has changes to tell.
    Notify(ContextId),
    /// A subscription ends.
    Subscription(SubscriptionId),
}

/// All deadlines, soonest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(u64, Timer)>,
    deadlines_ns: BTreeMap<Timer, u64>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, deadline_ns: u64) {
        self.clear(timer);
        self.queue.insert((deadline_ns, timer));
        self.deadlines_ns.insert(timer, deadline_ns);
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(deadline_ns) = self.deadlines_ns.remove(&timer) {
            assert!(self.queue.remove(&(deadline_ns, timer)));
        }
    }

    pub(super) fn next_ns(&self) -> Option<u64> {
        self.queue.first().map(|(deadline_ns, _)| *deadline_ns)
    }

    /// Takes the next deadline that has come.
    pub(super) fn expired(&mut self, now_ns: u64) -> Option<Timer> {
        let (deadline_ns, timer) = *self.queue.first()?;
        if deadline_ns > now_ns {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}
