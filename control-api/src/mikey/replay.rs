//! Replay protection (RFC 3830 section 5.4): a clock window, and a bounded memory of what was
//! authenticated inside it.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::NtpTime;
use super::codec::Timestamp;
use super::error::Error;
use super::timestamp::to_ntp_span;

/// Enough of a SHA-256 that nobody finds two messages with the same.
const DIGEST_BYTES: usize = 16;

/// Memory of authenticated messages.
pub struct ReplayCache {
    clock_skew_max: Duration,
    entries_max: usize,
    seen: HashSet<MessageDigest>,
    /// Oldest first, with the moment each was put in.
    order: VecDeque<(NtpTime, MessageDigest)>,
}

/// Names a message: who sent it, which bundle, when (RFC 6043 section 12.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageDigest([u8; DIGEST_BYTES]);

impl MessageDigest {
    /// Of the initial message `{sender, CSB ID, T}`.
    #[must_use]
    pub fn new(sender: &[u8], csb_id: u32, time: NtpTime) -> Self {
        let mut hash = Sha256::new();
        hash.update(csb_id.to_be_bytes());
        hash.update(time.0.to_be_bytes());
        hash.update(sender);
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&hash.finalize()[..DIGEST_BYTES]);
        Self(digest)
    }
}

impl ReplayCache {
    /// An empty memory.
    #[must_use]
    pub fn new(clock_skew_max: Duration, entries_max: usize) -> Self {
        Self { clock_skew_max, entries_max, seen: HashSet::new(), order: VecDeque::new() }
    }

    /// Checks a message that is not authenticated yet and so is not remembered.
    ///
    /// # Errors
    /// [`Error::Replayed`].
    pub fn check(&self, digest: MessageDigest) -> Result<(), Error> {
        if self.seen.contains(&digest) { Err(Error::Replayed) } else { Ok(()) }
    }

    /// Remembers a message that was just authenticated, `received` being our time.
    ///
    /// # Errors
    /// [`Error::Replayed`], [`Error::ReplayCacheFull`].
    pub fn insert(&mut self, digest: MessageDigest, received: NtpTime) -> Result<(), Error> {
        // A message from a clock that is ahead by the skew leaves the window after twice the skew.
        let kept = to_ntp_span(self.clock_skew_max.saturating_mul(2));
        while let Some((at, oldest)) = self.order.front() {
            if received.order().saturating_sub(at.order()) <= kept {
                break;
            }
            self.seen.remove(oldest);
            self.order.pop_front();
        }
        self.check(digest)?;
        if self.order.len() >= self.entries_max {
            return Err(Error::ReplayCacheFull);
        }
        self.seen.insert(digest);
        self.order.push_back((received, digest));
        Ok(())
    }
}

/// The time of a message, which must be within the skew of ours.
pub(crate) fn checked_time(
    timestamp: Timestamp,
    now: NtpTime,
    clock_skew_max: Duration,
) -> Result<NtpTime, Error> {
    let received = NtpTime::from_timestamp(timestamp).ok_or(Error::UnsupportedTimestamp)?;
    if !received.is_within(clock_skew_max, now) {
        return Err(Error::ClockSkew { received, now });
    }
    Ok(received)
}
