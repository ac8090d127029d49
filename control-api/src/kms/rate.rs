//! How often somebody may ask.

use std::collections::BTreeMap;
use std::time::Duration;

/// Token buckets by user. Only authenticated requests take from them, so nobody can use up what
/// belongs to another, and there are no more of them than users.
#[derive(Default, Debug)]
pub(super) struct RateLimiter {
    buckets: BTreeMap<Vec<u8>, Bucket>,
}

/// A second's worth of requests at most, filled evenly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Duration,
}

impl RateLimiter {
    /// How long the user has to wait, where it has asked too often. `now` is a monotonic clock.
    pub(super) fn wait(&self, user: &[u8], per_second_max: u32, now: Duration) -> Option<Duration> {
        self.buckets.get(user).and_then(|bucket| bucket.wait(per_second_max, now))
    }

    /// Counts a request of this user.
    pub(super) fn take(&mut self, user: &[u8], per_second_max: u32, now: Duration) {
        if let Some(bucket) = self.buckets.get_mut(user) {
            bucket.take(per_second_max, now);
        } else {
            let mut bucket = Bucket::full(per_second_max, now);
            bucket.take(per_second_max, now);
            self.buckets.insert(user.to_vec(), bucket);
        }
    }
}

impl Bucket {
    pub(super) fn full(per_second_max: u32, now: Duration) -> Self {
        Self { tokens: f64::from(per_second_max), filled: now }
    }

    /// How long until there is a token; `None`: there is one.
    pub(super) fn wait(&self, per_second_max: u32, now: Duration) -> Option<Duration> {
        let missing = 1.0 - self.tokens_at(per_second_max, now);
        (missing > 0.0).then(|| Duration::from_secs_f64(missing / f64::from(per_second_max)))
    }

    pub(super) fn take(&mut self, per_second_max: u32, now: Duration) {
        self.tokens = (self.tokens_at(per_second_max, now) - 1.0).max(0.0);
        self.filled = now;
    }

    fn tokens_at(&self, per_second_max: u32, now: Duration) -> f64 {
        let rate = f64::from(per_second_max);
        let since = now.saturating_sub(self.filled).as_secs_f64();
        (self.tokens + since * rate).min(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_waits_for_its_own_requests_only() {
        let mut limiter = RateLimiter::default();
        let start = Duration::from_secs(100);
        for _ in 0..10 {
            assert_eq!(limiter.wait(b"a", 10, start), None);
            limiter.take(b"a", 10, start);
        }
        let wait = limiter.wait(b"a", 10, start).expect("used up");
        assert_eq!(wait.as_millis(), 100);
        assert_eq!(limiter.wait(b"b", 10, start), None);
        assert_eq!(limiter.wait(b"a", 10, start + wait), None);
        // However long it was silent, a second's worth is all there is.
        let later = start + Duration::from_secs(3600);
        for _ in 0..10 {
            assert_eq!(limiter.wait(b"a", 10, later), None);
            limiter.take(b"a", 10, later);
        }
        assert!(limiter.wait(b"a", 10, later).is_some());
    }
}
