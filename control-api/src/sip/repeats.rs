//! Requests that were answered without a transaction of the stack, for when they come again: a
//! repeated INVITE is no new call, one that was refused is refused again, and a repeated BYE gets its
//! 200 again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::mrfc::CallId;

/// Names one request: a keyed hash of what makes it one (RFC 3261 section 17.2.3), which nobody
/// outside can aim at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct RequestName(u64);

impl RequestName {
    /// As good as a random number, and the same for the same request.
    pub(crate) fn spread(self) -> u64 {
        self.0
    }
}

/// The requests of the last 64 * T1, some 60 bytes each.
#[derive(Default)]
pub(crate) struct Repeats {
    hashing: RandomState,
    calls: HashMap<RequestName, CallId>,
    /// Oldest first, with the moment no repetition is expected any more.
    forgotten_at: VecDeque<(Instant, RequestName)>,
}

impl Repeats {
    /// The name of a request that is the same when `identity` is.
    pub(crate) fn name(&self, identity: impl Hash) -> RequestName {
        RequestName(self.hashing.hash_one(identity))
    }

    /// The call a request was taken for.
    pub(crate) fn get(&self, name: RequestName) -> Option<CallId> {
        self.calls.get(&name).copied()
    }

    /// A request was taken.
    pub(crate) fn insert(&mut self, name: RequestName, call: CallId) {
        self.calls.insert(name, call);
    }

    /// It has its final answer, and none of its repetitions comes after `at`.
    pub(crate) fn forget_at(&mut self, name: RequestName, at: Instant) {
        self.forgotten_at.push_back((at, name));
    }

    /// From now on it is the stack's.
    pub(crate) fn forget(&mut self, name: RequestName) {
        self.calls.remove(&name);
    }

    /// Forgets those whose time has come.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((at, name)) = self.forgotten_at.front() {
            if *at > now {
                return;
            }
            self.calls.remove(name);
            self.forgotten_at.pop_front();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }
}

/// INVITEs refused without a transaction. What was repeated before the refusal was there is still on its
/// way for T4 (RFC 3261 section 17.1.2.2) and must not become a call that nobody waits for; who repeats
/// later has not heard of the refusal.
#[derive(Default)]
pub(crate) struct Shed {
    /// Since this generation began, and the one before.
    current: HashSet<RequestName>,
    previous: HashSet<RequestName>,
    begun: Option<Instant>,
    /// How long a name is remembered at least.
    lifetime: Duration,
}

impl Shed {
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self { lifetime, ..Self::default() }
    }

    /// Nothing was refused lately; may be false although that is so.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.previous.is_empty()
    }

    pub(crate) fn contains(&mut self, name: RequestName, now: Instant) -> bool {
        if self.is_empty() {
            return false;
        }
        self.turn(now);
        self.current.contains(&name) || self.previous.contains(&name)
    }

    pub(crate) fn insert(&mut self, name: RequestName, now: Instant) {
        self.turn(now);
        self.current.insert(name);
    }

    /// Begins a new generation when it is time, or when there are too many to wait for that.
    fn turn(&mut self, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let age = now.saturating_duration_since(begun);
        if age < self.lifetime && self.current.len() < SHED_NAMES_MAX {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if age >= self.lifetime * 2 {
            self.previous.clear();
        }
        self.begun = Some(now);
    }
}

/// Names of one generation: 13,000 refusals a second for T4. With more they are forgotten earlier, which
/// is no worse than a long way through the network. 1.2 MB for each of the two.
const SHED_NAMES_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(5);

    #[test]
    fn what_was_shed_is_known_for_its_lifetime_and_then_forgotten() {
        let mut shed = Shed::new(LIFETIME);
        let begin = Instant::now();
        let (early, late) = (RequestName(1), RequestName(2));
        assert!(!shed.contains(early, begin));
        shed.insert(early, begin);
        shed.insert(late, begin + LIFETIME - Duration::from_millis(1));
        assert!(shed.contains(early, begin + LIFETIME));
        assert!(shed.contains(late, begin + LIFETIME * 2 - Duration::from_millis(1)));
        assert!(!shed.contains(late, begin + LIFETIME * 2));
        assert!(!shed.contains(early, begin + LIFETIME * 2));
        // Both generations go at once where nothing came for long.
        shed.insert(early, begin + LIFETIME * 3);
        assert!(!shed.contains(early, begin + LIFETIME * 9));
        assert!(shed.is_empty());
    }

    #[test]
    fn a_flood_is_remembered_no_longer_than_there_is_room() {
        let mut shed = Shed::new(LIFETIME);
        let now = Instant::now();
        let count = 3 * SHED_NAMES_MAX as u64;
        for number in 0..count {
            shed.insert(RequestName(number), now);
        }
        assert!(shed.contains(RequestName(count - 1), now));
        assert!(!shed.contains(RequestName(0), now));
        assert!(shed.current.len() + shed.previous.len() <= 2 * SHED_NAMES_MAX);
    }
}
