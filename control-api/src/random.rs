//! The node's source of randomness: what the kernel gives, fetched for several uses at once.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize;

/// Fills the slice with bytes nobody else gets.
pub(crate) fn fill(bytes: &mut [u8]) {
    static RANDOM: Mutex<Random> = Mutex::new(Random::new());
    // Whoever panicked with the lock has at most given out fewer bytes than it wiped.
    RANDOM.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
}

/// Random bytes, each given out once.
struct Random {
    bytes: [u8; FETCHED_BYTES],
    /// Those before have been given out.
    used: usize,
}

impl Random {
    /// Nothing is fetched yet.
    const fn new() -> Self {
        Self { bytes: [0; FETCHED_BYTES], used: FETCHED_BYTES }
    }

    /// Fills the slice. Once the machine has booted the kernel always has randomness; to go on
    /// without would mean guessable keys.
    fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            if self.used == FETCHED_BYTES {
                getrandom::fill(&mut self.bytes).expect("the kernel has randomness");
                self.used = 0;
            }
            let length = out.len().min(FETCHED_BYTES - self.used);
            let (now, later) = out.split_at_mut(length);
            let given = &mut self.bytes[self.used..self.used + length];
            now.copy_from_slice(given);
            // What was given out is known to its user alone.
            given.zeroize();
            self.used += length;
            out = later;
        }
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// A call takes some 100 bytes; one system call for each piece of them costs more than the rest of it.
const FETCHED_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_every_byte_once() {
        let mut random = Random::new();
        let mut pieces = std::collections::BTreeSet::new();
        for _ in 0..FETCHED_BYTES {
            let mut piece = [0; 24];
            random.fill(&mut piece);
            assert!(pieces.insert(piece), "the same bytes twice");
        }
        let mut long = [0; 3 * FETCHED_BYTES];
        random.fill(&mut long);
        assert!(long.chunks_exact(16).all(|chunk| chunk != [0; 16]));
        assert!(random.bytes[..random.used].iter().all(|byte| *byte == 0));
    }
}
