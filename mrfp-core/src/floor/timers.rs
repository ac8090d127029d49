//! What is due when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mrfp_io::Key;

/// A heap of deadlines. Whoever waits keeps the time of its only entry that counts (`armed_ns`), so an
/// entry that was overtaken by an earlier one is recognised when it comes up. A later deadline
/// takes no entry of its own: the earlier one comes up, finds nothing due and is renewed.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(u64, Waiter)>>);

/// Who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiter {
    /// A floor, for the end of a holding time.
    Floor {
        /// Of this conference.
        conference: Key,
        /// By its place.
        floor: usize,
    },
    /// A member, for whatever is next with it.
    Member(Key),
}

/// Nothing is armed.
pub(super) const NEVER: u64 = u64::MAX;

impl Timers {
    /// Sees to it that the waiter comes up at `deadline_ns` or before.
    pub(super) fn arm(&mut self, armed_ns: &mut u64, deadline_ns: u64, waiter: Waiter) {
        if deadline_ns < *armed_ns {
            *armed_ns = deadline_ns;
            self.0.push(Reverse((deadline_ns, waiter)));
        }
    }

    /// Who is due, with the time it was armed for.
    pub(super) fn due(&mut self, now_ns: u64) -> Option<(u64, Waiter)> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }

    /// When the next one is due.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((at_ns, _))| *at_ns)
    }
}

/// Of two that are due at the same time it does not matter which comes first.
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Waiter {
    fn order(self) -> (u32, u32, usize) {
        match self {
            Self::Floor { conference, floor } => (conference.index, conference.generation, floor),
            Self::Member(member) => (member.index, member.generation, usize::MAX),
        }
    }
}
