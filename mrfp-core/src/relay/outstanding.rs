//! The SENDs that have been passed on over one connection and not been answered yet.

use std::collections::VecDeque;

use mrfp_io::Key;
use mrfp_protocol::msrp::TransactionId;

use crate::egress::{Left, Position};
use crate::incoming::Identifier;

/// Entries of queue memory a quiet connection keeps.
const CAPACITY_KEPT: usize = 16;

/// One SEND of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) transaction: TransactionId,
    pub(super) route: Key,
    /// Number of the chunk it is (a part of), as that came in.
    pub(super) chunk: u64,
    pub(super) message_id: Identifier,
    /// First byte, 1-based.
    pub(super) start: u64,
    /// The byte after the last one.
    pub(super) next: u64,
    pub(super) total: Option<u64>,
    /// RFC 4976 section 6.4.1: a timer runs for `yes`; for `partial` only errors are answered.
    pub(super) answer_expected: bool,
    /// Where its last byte lies in its lane of the connection.
    pub(super) mark: Position,
    /// Until when it must be answered; set once it has left.
    pub(super) deadline_ns: Option<u64>,
}

/// In the order they were sent, which is the order in which answers usually come.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    queue: VecDeque<Sent>,
}

impl Outstanding {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Remembers one more. Of a SEND whose success nobody answers the end is never known: above `max`
    /// the oldest one that has left makes way for it.
    pub(super) fn push(&mut self, sent: Sent, max: usize, left: Left) {
        if self.queue.len() >= max
            && self
                .queue
                .front()
                .is_some_and(|sent| !sent.answer_expected && left.reaches(sent.mark))
        {
            self.queue.pop_front();
        }
        self.queue.push_back(sent);
    }

    /// More of a SEND has been queued.
    pub(super) fn extend(&mut self, transaction: &TransactionId, next: u64, mark: Position) {
        let newest_first = self.queue.iter_mut().rev();
        if let Some(sent) = { newest_first }.find(|sent| sent.transaction == *transaction) {
            (sent.next, sent.mark) = (next, mark);
        }
    }

    /// Whether a SEND of that route is among them.
    pub(super) fn holds(&self, route: Key) -> bool {
        self.queue.iter().any(|sent| sent.route == route)
    }

    /// Takes the SEND with that transaction identifier off.
    pub(super) fn answered(&mut self, transaction: &[u8]) -> Option<Sent> {
        let at = self.queue.iter().position(|sent| sent.transaction.as_bytes() == transaction)?;
        self.queue.remove(at)
    }

    /// Takes the oldest off.
    pub(super) fn pop(&mut self) -> Option<Sent> {
        self.queue.pop_front()
    }

    /// Starts the timers of what has left; the chunk `open` has not ended yet.
    pub(super) fn start_timers(
        &mut self,
        left: Left,
        open: Option<TransactionId>,
        deadline_ns: u64,
    ) {
        for sent in &mut self.queue {
            if sent.deadline_ns.is_none()
                && left.reaches(sent.mark)
                && Some(sent.transaction) != open
            {
                sent.deadline_ns = Some(deadline_ns);
            }
        }
    }

    /// Takes a SEND off whose time is over.
    pub(super) fn expired(&mut self, now_ns: u64) -> Option<Sent> {
        let is_over = |sent: &Sent| sent.deadline_ns.is_some_and(|deadline| deadline <= now_ns);
        let at = self.queue.iter().position(is_over)?;
        self.queue.remove(at)
    }

    /// Gives back the memory a burst has left behind.
    pub(super) fn shrink(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > CAPACITY_KEPT {
            self.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Lane;

    fn sent(number: u64, mark: u64) -> Sent {
        Sent {
            transaction: TransactionId::from_u64(number),
            route: Key { index: 0, generation: 0 },
            chunk: number,
            message_id: Identifier::new(b"message").unwrap(),
            start: 1,
            next: 1,
            total: None,
            answer_expected: true,
            mark: at(mark),
            deadline_ns: None,
        }
    }

    fn at(bytes: u64) -> Position {
        Position { lane: Lane::First, bytes }
    }

    fn left(first: u64) -> Left {
        Left { first, large: 0 }
    }

    #[test]
    fn a_timer_starts_when_the_last_byte_has_left_and_the_chunk_has_ended() {
        let mut outstanding = Outstanding::default();
        for (number, mark) in [(1, 100), (2, 200), (3, 300)] {
            outstanding.push(sent(number, mark), usize::MAX, left(0));
        }
        outstanding.start_timers(left(250), Some(TransactionId::from_u64(2)), 30);
        assert_eq!(outstanding.expired(29).map(|sent| sent.transaction), None);
        let first = outstanding.expired(30).map(|sent| sent.transaction);
        assert_eq!(first, Some(TransactionId::from_u64(1)));
        assert!(outstanding.expired(1_000).is_none());
        outstanding.extend(&TransactionId::from_u64(2), 500, at(400));
        outstanding.start_timers(left(399), None, 60);
        let third = outstanding.expired(60).map(|sent| sent.transaction);
        assert_eq!(third, Some(TransactionId::from_u64(3)));
        outstanding.start_timers(left(400), None, 90);
        assert_eq!(outstanding.expired(90).map(|sent| sent.next), Some(500));
    }

    #[test]
    fn answers_may_come_out_of_order_and_only_once() {
        let mut outstanding = Outstanding::default();
        (1..=3).for_each(|number| outstanding.push(sent(number, 0), usize::MAX, left(0)));
        let second = TransactionId::from_u64(2);
        assert!(outstanding.answered(second.as_bytes()).is_some());
        assert!(outstanding.answered(second.as_bytes()).is_none());
        assert!(outstanding.answered(b"other").is_none());
        assert_eq!(outstanding.len(), 2);
        assert_eq!(
            outstanding.pop().map(|sent| sent.transaction),
            Some(TransactionId::from_u64(1))
        );
    }
}
