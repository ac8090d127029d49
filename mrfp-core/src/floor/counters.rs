//! What is counted.

/// Numbers since the shard began.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorCounters {
    /// Messages received, by code of their primitive; 0 counts those that are not known.
    pub received: [u64; 18],
    /// Messages sent, by code of their primitive. A message to many counts for each, one that is
    /// repeated counts once.
    pub sent: [u64; 18],
    /// Errors sent, by their code.
    pub errors: [u64; 15],
    /// Floors granted, by how long the request had waited: each up to the bound of the same place
    /// in [`WAIT_BOUNDS_NS`], the last beyond them all.
    pub waits: [u64; WAIT_BOUNDS_NS.len() + 1],
    /// All these waits together.
    pub waits_sum_ns: u64,
    /// Datagrams repeated since nobody acknowledged them.
    pub retransmissions: u64,
}

/// Upper bounds of the waits that are counted together.
pub const WAIT_BOUNDS_NS: [u64; 8] = {
    const MS: u64 = 1_000_000;
    [MS, 10 * MS, 100 * MS, 1_000 * MS, 5_000 * MS, 20_000 * MS, 60_000 * MS, 300_000 * MS]
};

impl Default for FloorCounters {
    fn default() -> Self {
        Self {
            received: [0; 18],
            sent: [0; 18],
            errors: [0; 15],
            waits: [0; WAIT_BOUNDS_NS.len() + 1],
            waits_sum_ns: 0,
            retransmissions: 0,
        }
    }
}

/// How many numbers there are in all.
pub(crate) const FLOOR_COUNTERS: usize = size_of::<FloorCounters>() / size_of::<u64>();

impl FloorCounters {
    /// All numbers, for publication.
    pub(crate) fn to_words(&self) -> [u64; FLOOR_COUNTERS] {
        let mut words = [0; FLOOR_COUNTERS];
        let single = [self.waits_sum_ns, self.retransmissions];
        let all: [&[u64]; 5] = [&self.received, &self.sent, &self.errors, &self.waits, &single];
        let numbers = all.into_iter().flatten();
        words.iter_mut().zip(numbers).for_each(|(word, number)| *word = *number);
        words
    }

    /// The inverse of [`to_words`](Self::to_words).
    pub(crate) fn from_words(words: [u64; FLOOR_COUNTERS]) -> Self {
        let mut numbers = words.into_iter();
        let mut next = || numbers.next().unwrap_or_default();
        Self {
            received: std::array::from_fn(|_| next()),
            sent: std::array::from_fn(|_| next()),
            errors: std::array::from_fn(|_| next()),
            waits: std::array::from_fn(|_| next()),
            waits_sum_ns: next(),
            retransmissions: next(),
        }
    }

    pub(super) fn count_wait(&mut self, wait_ns: u64) {
        let bucket = WAIT_BOUNDS_NS.partition_point(|bound_ns| *bound_ns < wait_ns);
        self.waits[bucket] += 1;
        self.waits_sum_ns += wait_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_survives_publication() {
        let words = std::array::from_fn(|index| index as u64 + 1);
        assert_eq!(FloorCounters::from_words(words).to_words(), words);
    }
}
