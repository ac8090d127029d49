//! What BFCP over UDP takes for each participant (RFC 8855 sections 6.2 and 8.3).

use std::collections::VecDeque;

use mrfp_io::Key;
use mrfp_protocol::bfcp::Reassembly;

use super::timers::NEVER;

/// An association with one participant.
#[derive(Debug)]
pub(super) struct Association {
    last_transaction_id: u16,
    /// The request of ours that is under way.
    outstanding: Option<Outstanding>,
    /// The answer to the participant's last request.
    answered: Option<Answered>,
    /// Requests whose state it is to be told.
    pub(super) notices: VecDeque<Key>,
    pub(super) reassembly: Reassembly,
    /// T2 of the message that is being put together.
    reassembly_until_ns: u64,
    round_trip: RoundTrip,
}

/// What a request of ours tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// A floor request.
    Request(Key),
    /// A floor, by place.
    Floor(usize),
}

#[derive(Debug)]
struct Outstanding {
    told: Told,
    transaction_id: u16,
    message: Vec<u8>,
    sent_ns: u64,
    retransmissions: u32,
    timeout_ns: u64,
    due_ns: u64,
}

#[derive(Debug)]
struct Answered {
    transaction_id: u16,
    message: Vec<u8>,
    until_ns: u64,
}

/// RFC 6298, with the granularity and the floor of RFC 8855 section 8.3.1.
#[derive(Debug)]
struct RoundTrip {
    smoothed_ns: Option<u64>,
    variation_ns: u64,
    timeout_ns: u64,
}

/// What is to be done when a deadline of an association has passed.
#[derive(Debug)]
pub(super) enum Due<'a> {
    /// Nothing, or only memory was given back.
    Nothing,
    /// This has to be sent once more.
    Retransmit(&'a [u8]),
    /// The participant does not acknowledge: the connection is broken.
    Broken,
}

/// How a request compares with those that came before.
#[derive(Debug)]
pub(super) enum Novelty<'a> {
    /// It is the next one.
    New,
    /// It was answered with this.
    Repeated(&'a [u8]),
    /// It was late on its way: an answer would be to nobody.
    Late,
}

/// RFC 8855 section 8.3.3.
const T1_INITIAL_NS: u64 = 500_000_000;
/// RFC 8855 section 8.3.3: T1 * 2^4 * 1.25.
const T2_NS: u64 = T1_INITIAL_NS * 16 * 5 / 4;
/// RFC 8855 section 8.3.1: clock granularity.
const GRANULARITY_NS: u64 = 100_000_000;
/// RFC 8855 section 8.3.1: a transaction has failed after three.
const RETRANSMISSIONS_MAX: u32 = 3;
/// Nothing is learnt from a participant that needs longer: T2 of its side is over by then.
const TIMEOUT_MAX_NS: u64 = 4_000_000_000;
/// Transaction IDs that count as having been used: far fewer than half of them all, so that a
/// client which does not count upwards is mostly served all the same.
const TRANSACTIONS_REMEMBERED: u16 = 64;
/// Requests to be told about while one is not acknowledged; beyond that the participant is lost.
pub(super) const NOTICES_MAX: usize = 64;

impl Default for Association {
    fn default() -> Self {
        Self {
            last_transaction_id: 0,
            outstanding: None,
            answered: None,
            notices: VecDeque::new(),
            reassembly: Reassembly::default(),
            reassembly_until_ns: 0,
            round_trip: RoundTrip { smoothed_ns: None, variation_ns: 0, timeout_ns: T1_INITIAL_NS },
        }
    }
}

impl Association {
    /// Whether a request of ours waits to be acknowledged.
    pub(super) fn is_busy(&self) -> bool {
        self.outstanding.is_some()
    }

    /// Whether the request of ours that is under way tells of this: repeated, it may arrive after
    /// an answer that knows better.
    pub(super) fn is_telling(&self, told: Told) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.told == told)
    }

    /// The identifier of our next transaction: never 0, and growing but for the wrap.
    pub(super) fn next_transaction_id(&mut self) -> u16 {
        self.last_transaction_id = self.last_transaction_id.wrapping_add(1).max(1);
        self.last_transaction_id
    }

    /// A request of ours is on its way. `message` is empty, for its memory.
    pub(super) fn begin(
        &mut self,
        (told, transaction_id): (Told, u16),
        bytes: &[u8],
        message: Vec<u8>,
        now_ns: u64,
    ) {
        assert!(self.outstanding.is_none());
        let timeout_ns = self.round_trip.timeout_ns;
        self.outstanding = Some(Outstanding {
            told,
            transaction_id,
            message: filled(message, bytes),
            sent_ns: now_ns,
            retransmissions: 0,
            timeout_ns,
            due_ns: now_ns + timeout_ns,
        });
    }

    /// The participant acknowledges: gives back the memory of what it acknowledges, if that is
    /// under way.
    pub(super) fn acknowledge(&mut self, transaction_id: u16, now_ns: u64) -> Option<Vec<u8>> {
        let outstanding =
            self.outstanding.take_if(|outstanding| outstanding.transaction_id == transaction_id)?;
        // RFC 8855 section 8.3.1: nobody knows which of several transmissions was answered.
        if outstanding.retransmissions == 0 {
            self.round_trip.learn(now_ns.saturating_sub(outstanding.sent_ns));
        } else {
            self.round_trip.timeout_ns = outstanding.timeout_ns.min(TIMEOUT_MAX_NS);
        }
        Some(outstanding.message)
    }

    /// Whether a request of the participant is a new one.
    pub(super) fn novelty(&self, transaction_id: u16) -> Novelty<'_> {
        let Some(answered) = &self.answered else { return Novelty::New };
        match answered.transaction_id.wrapping_sub(transaction_id) {
            0 => Novelty::Repeated(&answered.message),
            1..TRANSACTIONS_REMEMBERED => Novelty::Late,
            _ => Novelty::New,
        }
    }

    /// A request of the participant has been answered. Gives back the memory of the answer before.
    pub(super) fn answer(
        &mut self,
        transaction_id: u16,
        bytes: &[u8],
        message: Vec<u8>,
        now_ns: u64,
    ) -> Option<Vec<u8>> {
        let message = filled(message, bytes);
        let answered = Answered { transaction_id, message, until_ns: now_ns + T2_NS };
        self.answered.replace(answered).map(|earlier| earlier.message)
    }

    /// The first fragment of a message has come.
    pub(super) fn reassembly_begins(&mut self, now_ns: u64) {
        self.reassembly_until_ns = now_ns + T2_NS;
    }

    pub(super) fn deadline_ns(&self) -> u64 {
        let outstanding = self.outstanding.as_ref().map_or(NEVER, |it| it.due_ns);
        let answered = self.answered.as_ref().map_or(NEVER, |it| it.until_ns);
        let begun = self.reassembly.is_begun();
        let reassembly = if begun { self.reassembly_until_ns } else { NEVER };
        outstanding.min(answered).min(reassembly)
    }

    /// Does what is due. Memory goes to `spare`.
    pub(super) fn expire(&mut self, now_ns: u64, spare: &mut SpareMemory) -> Due<'_> {
        if let Some(answered) = self.answered.take_if(|answered| answered.until_ns <= now_ns) {
            spare.give(answered.message);
        }
        if self.reassembly.is_begun() && self.reassembly_until_ns <= now_ns {
            self.reassembly = Reassembly::default();
        }
        match &mut self.outstanding {
            Some(outstanding) if outstanding.due_ns <= now_ns => {
                if outstanding.retransmissions == RETRANSMISSIONS_MAX {
                    return Due::Broken;
                }
                outstanding.retransmissions += 1;
                outstanding.timeout_ns *= 2;
                outstanding.due_ns = now_ns + outstanding.timeout_ns;
                Due::Retransmit(&outstanding.message)
            }
            _ => Due::Nothing,
        }
    }

    /// Gives all memory back.
    pub(super) fn dissolve(self, spare: &mut SpareMemory) {
        let outstanding = self.outstanding.map(|outstanding| outstanding.message);
        let answered = self.answered.map(|answered| answered.message);
        outstanding.into_iter().chain(answered).for_each(|memory| spare.give(memory));
    }
}

impl RoundTrip {
    fn learn(&mut self, sample_ns: u64) {
        let (smoothed_ns, variation_ns) = match self.smoothed_ns {
            None => (sample_ns, sample_ns / 2),
            Some(smoothed_ns) => {
                let difference_ns = smoothed_ns.abs_diff(sample_ns);
                let variation_ns = (3 * self.variation_ns + difference_ns) / 4;
                ((7 * smoothed_ns + sample_ns) / 8, variation_ns)
            }
        };
        (self.smoothed_ns, self.variation_ns) = (Some(smoothed_ns), variation_ns);
        let timeout_ns = smoothed_ns + GRANULARITY_NS.max(4 * variation_ns);
        self.timeout_ns = timeout_ns.clamp(T1_INITIAL_NS, TIMEOUT_MAX_NS);
    }
}

/// Memory of messages that were kept to be repeated, for those that come after them.
#[derive(Default, Debug)]
pub(super) struct SpareMemory(Vec<Vec<u8>>);

/// Larger memory is not kept: a FloorStatus of a large queue is rare.
const SPARE_BYTES_MAX: usize = 4096;
/// Nor more than the crowd of a moment needs.
const SPARE_COUNT_MAX: usize = 1024;

impl SpareMemory {
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    pub(super) fn give(&mut self, memory: Vec<u8>) {
        if memory.capacity() <= SPARE_BYTES_MAX && self.0.len() < SPARE_COUNT_MAX {
            self.0.push(memory);
        }
    }
}

fn filled(mut memory: Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    memory.clear();
    memory.extend_from_slice(bytes);
    memory
}
