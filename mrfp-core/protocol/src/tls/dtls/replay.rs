//! Anti-replay (RFC 6347 section 4.1.2.6): which sequence numbers have been seen.

/// The window behind the highest sequence number seen. What is older than that is taken for a replay.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct ReplayWindow {
    /// Behind the highest number seen.
    next: u64,
    /// Bit n: `next - 1 - n` has been seen.
    seen: u128,
}

impl ReplayWindow {
    /// Whether a record with this number may be looked at.
    pub(super) fn is_new(&self, sequence: u64) -> bool {
        match self.next.checked_sub(sequence + 1) {
            None => true,
            Some(behind) => behind < BITS && self.seen >> behind & 1 == 0,
        }
    }

    /// A record with this number was authentic.
    pub(super) fn note(&mut self, sequence: u64) {
        match self.next.checked_sub(sequence + 1) {
            None => {
                let ahead = sequence + 1 - self.next;
                let kept = u32::try_from(ahead).ok().and_then(|ahead| self.seen.checked_shl(ahead));
                self.seen = kept.unwrap_or(0) | 1;
                self.next = sequence + 1;
            }
            Some(behind) if behind < BITS => self.seen |= 1 << behind,
            Some(_) => {}
        }
    }
}

/// Twice the 64 that RFC 6347 recommends: redundant packets of several streams of a fax may well come in
/// another order than they were sent in.
const BITS: u64 = u128::BITS as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_each_number_once_and_none_from_long_ago() {
        let mut window = ReplayWindow::default();
        for sequence in [0, 5, 3, 200, 73, 1 << 40, (1 << 40) - 127] {
            assert!(window.is_new(sequence), "{sequence}");
            window.note(sequence);
            assert!(!window.is_new(sequence), "{sequence}");
        }
        assert!(!window.is_new((1 << 40) - 128));
        assert!(!window.is_new(200));
        assert!(window.is_new((1 << 40) - 1));
        assert!(window.is_new((1 << 40) + 1));
    }

    #[test]
    fn agrees_with_a_list_of_all_that_was_seen() {
        let mut window = ReplayWindow::default();
        let (mut seen, mut highest) = (std::collections::HashSet::new(), 0_u64);
        let mut state = 7_u64;
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let sequence = (highest + (state >> 56)).saturating_sub(170);
            let is_new = !seen.contains(&sequence) && highest.saturating_sub(sequence) < 128;
            assert_eq!(window.is_new(sequence), is_new, "{sequence} at {highest}");
            if is_new {
                window.note(sequence);
                seen.insert(sequence);
                highest = highest.max(sequence);
            }
        }
        assert!(highest > 1000);
    }
}
