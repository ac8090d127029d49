//! Requests that were answered without a transaction of the stack, for when they come again: a
//! repeated INVITE is no new call, and a repeated BYE gets its 200 again.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};

use tokio::time::Instant;

use crate::mrfc::CallId;

/// Names one request: a keyed hash of what makes it one (RFC 3261 section 17.2.3), which nobody
/// outside can aim at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct RequestName(u64);

/// The requests of the last 64 * T1, some 60 bytes each.
#[derive(Default)]
pub(super) struct Repeats {
    hashing: RandomState,
    calls: HashMap<RequestName, CallId>,
    /// Oldest first, with the moment no repetition is expected any more.
    forgotten_at: VecDeque<(Instant, RequestName)>,
}

impl Repeats {
    /// The name of a request that is the same when `identity` is.
    pub(super) fn name(&self, identity: impl Hash) -> RequestName {
        RequestName(self.hashing.hash_one(identity))
    }

    /// The call a request was taken for.
    pub(super) fn get(&self, name: RequestName) -> Option<CallId> {
        self.calls.get(&name).copied()
    }

    /// A request was taken.
    pub(super) fn insert(&mut self, name: RequestName, call: CallId) {
        self.calls.insert(name, call);
    }

    /// It has its final answer, and none of its repetitions comes after `at`.
    pub(super) fn forget_at(&mut self, name: RequestName, at: Instant) {
        self.forgotten_at.push_back((at, name));
    }

    /// From now on it is the stack's.
    pub(super) fn forget(&mut self, name: RequestName) {
        self.calls.remove(&name);
    }

    /// Forgets those whose time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, name)) = self.forgotten_at.front() {
            if *at > now {
                return;
            }
            self.calls.remove(name);
            self.forgotten_at.pop_front();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }
}
