//! Local overload control, in the words of RFC 6357: the monitor is how long messages wait until they are
//! taken, the actuator a 503 to new calls. What is under way goes on.
//!
//! As with CoDel (RFC 8289) it is not the length of the queue that counts but the time spent in it, and
//! not a burst but a queue that stands: only when no message has waited less than half of what is
//! allowed for a whole interval are new calls refused, and of them those alone that have waited longer
//! than allowed. So a call is taken whenever there is time for it, the wait stays close to the limit
//! however many ask, and who is refused is a matter of when he asks and not of who he is.
//!
//! A buffer too small for the wait that is allowed loses messages, also those of calls under way. So where
//! it has overflowed the limit is half of what it takes to work off a full one. It also overflows where so
//! many ask that there is not even time to refuse them all; they would all have waited too long, so some are
//! taken nevertheless. Sans-IO.

use std::time::Duration;

use tokio::time::Instant;

/// Watches how long messages wait.
#[derive(Debug)]
pub(super) struct OverloadControl {
    /// How long a new call may have waited while the queue stands; zero: as long as it likes.
    delay_max: Duration,
    /// A queue stands that has been long for this long.
    interval: Duration,
    /// Since when no message has waited less than half of `delay_max`.
    long_since: Option<Instant>,
    /// When the last message was taken, and how long it had waited.
    last: Option<(Instant, Duration)>,
    /// When the buffer was last seen to overflow, and half of how long messages wait in a full one.
    overflow: Option<(Instant, Duration)>,
    /// Messages since then that had waited too long.
    too_long: u32,
}

impl OverloadControl {
    pub(super) fn new(delay_max: Duration, interval: Duration) -> Self {
        Self { delay_max, interval, long_since: None, last: None, overflow: None, too_long: 0 }
    }

    /// A message received at `received` is taken. True: if it asks for a new call, that is to be
    /// refused.
    pub(super) fn take(&mut self, received: Instant, now: Instant) -> bool {
        let waited = now.saturating_duration_since(received);
        let last = self.last.replace((now, waited));
        if self.delay_max.is_zero() {
            return false;
        }
        let half_full = self.half_full(now);
        let limit = half_full.map_or(self.delay_max, |half| half.min(self.delay_max));
        // It came after all before it were taken: nothing stands, we were just held up.
        let alone = last.is_none_or(|(taken, _)| received > taken);
        if alone || waited < limit / 2 {
            self.long_since = None;
        }
        if waited < limit / 2 {
            return false;
        }
        let long_since = *self.long_since.get_or_insert(now);
        if waited <= limit || now - long_since < self.interval {
            return false;
        }
        self.too_long = if half_full.is_some() { self.too_long.wrapping_add(1) } else { 1 };
        !self.too_long.is_multiple_of(TAKEN_ONE_IN)
    }

    /// Messages were lost for want of room before one received at `received` that is taken now.
    pub(super) fn overflowed(&mut self, received: Instant, now: Instant) {
        self.overflow = Some((now, now.saturating_duration_since(received) / 2));
    }

    /// Where the buffer overflows: how long messages wait in half of it.
    fn half_full(&self, now: Instant) -> Option<Duration> {
        let recent = self.overflow.filter(|(at, _)| now.saturating_duration_since(*at) < OVERFLOW);
        recent.map(|(_, half)| half)
    }

    /// How long messages wait at present: what the last one has waited, unless that is long ago.
    pub(super) fn delay(&self, now: Instant) -> Duration {
        let recent = self.last.filter(|(taken, _)| now.saturating_duration_since(*taken) < PRESENT);
        recent.map_or(Duration::ZERO, |(_, waited)| waited)
    }
}

/// What was is the present for so long: scrapes are seconds apart, and messages on a busy node are not.
const PRESENT: Duration = Duration::from_secs(1);

/// A buffer that has overflowed is as small as ever, but whether it takes as long is not known for ever.
const OVERFLOW: Duration = Duration::from_secs(10);

/// Of messages that have waited too long while the buffer overflows. To refuse a call, its ACK included, costs
/// about a sixth of a call: so calls get about half of the time. Odd, as every second message may be an ACK.
const TAKEN_ONE_IN: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);
    const DELAY_MAX: Duration = Duration::from_millis(200);
    const INTERVAL: Duration = Duration::from_millis(100);

    /// A server that takes one message after the other, in made-up time.
    struct Queue {
        control: OverloadControl,
        now: Instant,
    }

    /// What became of calls that came at an even pace.
    #[derive(Default)]
    struct Outcome {
        taken: u32,
        shed: u32,
        /// The longest wait of those taken.
        waited: Duration,
    }

    impl Queue {
        fn new(delay_max: Duration) -> Self {
            let control = OverloadControl::new(delay_max, INTERVAL);
            Self { control, now: Instant::now() }
        }

        /// Calls at an even pace for `time`: each takes a millisecond, to refuse one a twentieth of that.
        fn offer(&mut self, calls_per_second: u32, time: Duration) -> Outcome {
            let mut outcome = Outcome::default();
            let (begin, pace) = (self.now, Duration::from_secs(1) / calls_per_second);
            let mut received = begin;
            while received < begin + time {
                self.now = self.now.max(received);
                if self.control.take(received, self.now) {
                    outcome.shed += 1;
                    self.now += MILLISECOND / 20;
                } else {
                    outcome.taken += 1;
                    outcome.waited = outcome.waited.max(self.now - received);
                    self.now += MILLISECOND;
                }
                received += pace;
            }
            outcome
        }
    }

    #[test]
    fn nothing_is_shed_below_capacity() {
        let mut queue = Queue::new(DELAY_MAX);
        let outcome = queue.offer(990, Duration::from_secs(10));
        assert_eq!((outcome.taken, outcome.shed), (9901, 0));
    }

    #[test]
    fn goodput_stays_and_the_wait_is_bounded_whatever_is_offered() {
        for (times, least) in [(2, 930), (4, 830), (10, 520)] {
            let mut queue = Queue::new(DELAY_MAX);
            // Until it is noticed the wait grows.
            queue.offer(1000 * times, Duration::from_secs(2));
            let outcome = queue.offer(1000 * times, Duration::from_secs(10));
            assert!(outcome.taken >= least * 10, "{} of {times} times", outcome.taken);
            assert!(outcome.waited <= DELAY_MAX, "{:?} at {times} times", outcome.waited);
            assert_eq!(outcome.taken + outcome.shed, 10_000 * times);
        }
    }

    #[test]
    fn shedding_ends_with_the_overload() {
        let mut queue = Queue::new(DELAY_MAX);
        assert!(queue.offer(3000, Duration::from_secs(3)).shed > 0);
        // 200 ms of work are left of the flood, and every second adds a tenth of one.
        queue.offer(900, Duration::from_secs(3));
        let outcome = queue.offer(900, Duration::from_secs(3));
        assert_eq!(outcome.shed, 0);
        assert_eq!(queue.control.delay(queue.now), Duration::ZERO);
    }

    #[test]
    fn a_burst_that_is_worked_off_within_the_interval_is_taken() {
        // So many at once; a queue that has been long for three times as long as usual stands.
        for (calls, shed) in [(390, false), (600, true)] {
            let mut queue = Queue::new(DELAY_MAX);
            queue.control.interval = INTERVAL * 3;
            let outcome = queue.offer(1_000_000, Duration::from_micros(calls));
            assert_eq!(outcome.shed > 0, shed, "{calls} at once");
            assert!(outcome.waited > DELAY_MAX);
        }
    }

    #[test]
    fn whoever_was_held_up_with_nothing_waiting_sheds_nothing() {
        let mut queue = Queue::new(DELAY_MAX);
        for _ in 0..100 {
            let received = queue.now + MILLISECOND;
            queue.now = received + DELAY_MAX * 2;
            assert!(!queue.control.take(received, queue.now));
        }
    }

    #[test]
    fn a_single_message_that_did_not_wait_shows_that_the_queue_does_not_stand() {
        let mut queue = Queue::new(DELAY_MAX);
        let begin = queue.now;
        let mut take = |waited, at| queue.control.take(begin + at - waited, begin + at);
        let waited = DELAY_MAX + MILLISECOND;
        // The first has nobody before it.
        assert!(!take(waited, 500 * MILLISECOND));
        assert!(!take(waited, 501 * MILLISECOND));
        assert!(take(waited, 601 * MILLISECOND));
        // Long enough for the queue to stand, not for a call to be refused.
        assert!(!take(DELAY_MAX / 2, 602 * MILLISECOND));
        assert!(take(waited, 603 * MILLISECOND));
        assert!(!take(DELAY_MAX / 2 - MILLISECOND, 604 * MILLISECOND));
        assert!(!take(waited, 605 * MILLISECOND));
    }

    #[test]
    fn a_buffer_that_overflows_lowers_the_limit_for_a_while() {
        let mut queue = Queue::new(DELAY_MAX);
        let full = DELAY_MAX / 4;
        let begin = queue.now;
        // Each came before the last one was taken: the queue stands.
        let take = |control: &mut OverloadControl, at: Duration| {
            control.take(begin + at - full, begin + at)
        };
        assert!(!take(&mut queue.control, full));
        assert!(!take(&mut queue.control, full + MILLISECOND));
        queue.control.overflowed(begin + MILLISECOND, begin + full + MILLISECOND);
        let mut at = full + MILLISECOND;
        let (mut shed_since, mut count) = (None, 0);
        while at < OVERFLOW * 2 {
            at += MILLISECOND;
            let shed = take(&mut queue.control, at);
            if shed && shed_since.is_none() {
                shed_since = Some(at);
                assert!(at >= INTERVAL && at < INTERVAL * 2, "{at:?}");
            }
            let over = at >= full + MILLISECOND + OVERFLOW;
            // Now and then one is taken.
            assert!(!shed || !over, "{at:?}");
            count += u32::from(shed);
        }
        assert!(shed_since.is_some());
        assert!((8_000..9_000).contains(&count), "{count}");
    }

    #[test]
    fn who_has_no_time_to_refuse_all_still_takes_calls() {
        const ROOM: usize = 1000;
        // A refusal takes a sixth of a call, and twenty times as many ask as there is time for.
        let (refusal, pace) = (MILLISECOND / 6, MILLISECOND / 20);
        let mut queue = Queue::new(DELAY_MAX);
        let begin = queue.now;
        let (mut buffer, mut next) = (std::collections::VecDeque::new(), begin);
        let (mut taken, mut lost) = (0, false);
        while queue.now < begin + Duration::from_secs(10) {
            while next <= queue.now {
                if buffer.len() < ROOM {
                    buffer.push_back((next, std::mem::take(&mut lost)));
                } else {
                    lost = true;
                }
                next += pace;
            }
            let Some((received, lost)) = buffer.pop_front() else {
                queue.now = next;
                continue;
            };
            if lost {
                queue.control.overflowed(received, queue.now);
            }
            let shed = queue.control.take(received, queue.now);
            taken += u32::from(!shed);
            queue.now += if shed { refusal } else { MILLISECOND };
        }
        assert!(taken > 4_000, "{taken} of 10,000 there is time for");
    }

    #[test]
    fn without_a_limit_nothing_is_shed() {
        let mut queue = Queue::new(Duration::ZERO);
        assert_eq!(queue.offer(10_000, Duration::from_secs(2)).shed, 0);
        assert!(queue.control.delay(queue.now) > Duration::from_secs(1));
    }
}
