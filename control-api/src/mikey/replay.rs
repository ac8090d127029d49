//! Replay protection (RFC 3830 section 5.4): a clock window, and a bounded memory of what was
//! authenticated inside it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::codec::Timestamp;
use super::error::Error;
use super::timestamp::to_ntp_span;
use super::{NtpTime, Parameters};

/// Enough of a SHA-256 that nobody finds two messages with the same.
const DIGEST_BYTES: usize = 16;

/// Memory of authenticated messages. It is bounded: nobody without a key puts anything into it, and
/// when it is full nothing more is accepted rather than something forgotten too early.
pub struct ReplayCache {
    clock_skew_max: Duration,
    entries_max: usize,
    /// The last counter of each sender that stamps with a counter.
    counters: HashMap<SenderDigest, u32>,
    counter_senders_max: usize,
    seen: HashSet<MessageDigest>,
    /// Oldest first, with the moment each was put in.
    order: VecDeque<(NtpTime, MessageDigest)>,
}

/// Names a message: who sent it, which bundle, when (RFC 6043 section 12.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageDigest([u8; DIGEST_BYTES]);

/// Names a sender.
type SenderDigest = [u8; DIGEST_BYTES];

/// When a message says it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageTime {
    /// By a clock, which agrees with ours within the skew.
    Clock(NtpTime),
    /// By a count of messages to us.
    Counter(u32),
}

/// What tells a message from every other.
pub(crate) struct ReceivedMessage {
    sender: SenderDigest,
    digest: MessageDigest,
    time: MessageTime,
}

impl ReceivedMessage {
    pub(crate) fn new(sender: &[u8], csb_id: u32, time: MessageTime) -> Self {
        let (at, sender_digest) = match time {
            MessageTime::Clock(at) => (at, [0; DIGEST_BYTES]),
            MessageTime::Counter(counter) => {
                (NtpTime(u64::from(counter)), MessageDigest::new(sender, 0, NtpTime(0)).0)
            }
        };
        Self { sender: sender_digest, digest: MessageDigest::new(sender, csb_id, at), time }
    }
}

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
        Self {
            clock_skew_max,
            entries_max,
            counters: HashMap::new(),
            counter_senders_max: 0,
            seen: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Also follows the counters of so many senders.
    #[must_use]
    pub fn with_counter_senders(self, counter_senders_max: usize) -> Self {
        Self { counter_senders_max, ..self }
    }

    /// Checks a message that is not authenticated yet and so is not remembered.
    ///
    /// # Errors
    /// [`Error::Replayed`].
    pub(crate) fn check_message(&self, message: &ReceivedMessage) -> Result<(), Error> {
        match message.time {
            MessageTime::Clock(_) => self.check(message.digest),
            // RFC 3830 section 5.4: a counter that has not grown is a replay.
            MessageTime::Counter(counter) => match self.counters.get(&message.sender) {
                Some(last) if counter <= *last => Err(Error::Replayed),
                _ => Ok(()),
            },
        }
    }

    /// Remembers a message that was just authenticated, `received` being our time.
    ///
    /// # Errors
    /// [`Error::Replayed`], [`Error::ReplayCacheFull`].
    pub(crate) fn insert_message(
        &mut self,
        message: &ReceivedMessage,
        received: NtpTime,
    ) -> Result<(), Error> {
        let MessageTime::Counter(counter) = message.time else {
            return self.insert(message.digest, received);
        };
        self.check_message(message)?;
        let known = self.counters.contains_key(&message.sender);
        if !known && self.counters.len() >= self.counter_senders_max {
            return Err(Error::ReplayCacheFull);
        }
        self.counters.insert(message.sender, counter);
        Ok(())
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

/// The time of an initial message: within the skew of ours, or a counter where those are taken.
pub(crate) fn checked_message_time(
    timestamp: Timestamp,
    now: NtpTime,
    parameters: &Parameters,
) -> Result<MessageTime, Error> {
    match timestamp {
        Timestamp::Counter(counter) if parameters.counter_senders_max > 0 => {
            Ok(MessageTime::Counter(counter))
        }
        _ => checked_time(timestamp, now, parameters.clock_skew_max).map(MessageTime::Clock),
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
