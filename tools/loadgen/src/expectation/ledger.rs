//! The book of one room.

use std::collections::{BTreeSet, VecDeque};

use super::Violation;

/// What a delivery meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// When the message was meant to be sent, in nanoseconds of the media clock.
    pub intended_ns: u64,
    /// The message has now reached everyone and was answered: its place in the window is free.
    pub complete: bool,
}

/// What an answer meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered {
    /// When the message was handed to the connection, in nanoseconds of the media clock.
    pub sent_ns: u64,
    /// As in [`Delivered::complete`].
    pub complete: bool,
}

/// What a room still owed when it was closed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Debts {
    /// Deliveries that never came.
    pub lost: u64,
    /// SENDs that were never answered.
    pub unanswered: u64,
}

/// The book of one room. Members are numbered from 0.
#[derive(Debug)]
pub struct Ledger {
    senders: Vec<Sender>,
    /// `next[sender * members + recipient]`: the sequence number the recipient is to see next.
    next: Vec<u32>,
    /// Messages that were overtaken and have not come yet: (sender, recipient, sequence).
    overtaken: BTreeSet<(u32, u32, u32)>,
    present: Vec<bool>,
    present_count: u32,
}

/// The messages of one member.
#[derive(Debug, Default)]
struct Sender {
    /// Sequence number of the front of `flights`.
    base: u32,
    flights: VecDeque<Flight>,
    /// Flights that are not complete.
    open: u32,
    /// Flights with a chunk that is not answered.
    unanswered: u32,
}

/// One message on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    intended_ns: u64,
    sent_ns: u64,
    /// Members that have not got it.
    outstanding: u32,
    /// One bit for each chunk that has not been answered.
    unanswered: u64,
}

impl Flight {
    fn complete(&self) -> bool {
        self.unanswered == 0 && self.outstanding == 0
    }
}

impl Ledger {
    /// Overtaken messages that are remembered; past it a late one counts as a duplicate.
    pub const OVERTAKEN_MAX: usize = 100_000;

    /// A room in which all `members` are present.
    #[must_use]
    pub fn new(members: u32) -> Self {
        let count = members as usize;
        Self {
            senders: (0..count).map(|_| Sender::default()).collect(),
            next: vec![0; count * count],
            overtaken: BTreeSet::new(),
            present: vec![true; count],
            present_count: members,
        }
    }

    /// Chunks a message may have: one bit each in its flight.
    pub const CHUNKS_MAX: u32 = 64;

    /// Books a message of `sender` that travels in `chunks` SEND requests, and returns its sequence
    /// number.
    pub fn sent(&mut self, sender: u32, intended_ns: u64, sent_ns: u64, chunks: u32) -> u32 {
        assert!(self.present[sender as usize]);
        assert!((1..=Self::CHUNKS_MAX).contains(&chunks));
        let outstanding = self.present_count - 1;
        let from = &mut self.senders[sender as usize];
        let sequence = from.base.wrapping_add(from.flights.len() as u32);
        from.flights.push_back(Flight {
            intended_ns,
            sent_ns,
            outstanding,
            unanswered: u64::MAX >> (Self::CHUNKS_MAX - chunks),
        });
        from.open += 1;
        from.unanswered += 1;
        sequence
    }

    /// Books the 200 to one chunk of a message of `sender`.
    pub fn answered(
        &mut self,
        sender: u32,
        sequence: u32,
        chunk: u32,
    ) -> Result<Answered, Violation> {
        let from = self.senders.get_mut(sender as usize).ok_or(Violation::UnexpectedResponse)?;
        let flight = from.flight_mut(sequence).ok_or(Violation::UnexpectedResponse)?;
        let bit = 1_u64.checked_shl(chunk).unwrap_or(0);
        if flight.unanswered & bit == 0 {
            return Err(Violation::UnexpectedResponse);
        }
        flight.unanswered &= !bit;
        let sent_ns = flight.sent_ns;
        let complete = flight.complete();
        let answered = flight.unanswered == 0;
        from.unanswered -= u32::from(answered);
        from.settle(complete);
        Ok(Answered { sent_ns, complete })
    }

    /// Books that `recipient` got message `sequence` of `sender`.
    pub fn delivered(
        &mut self,
        sender: u32,
        recipient: u32,
        sequence: u32,
    ) -> Result<Delivered, Violation> {
        let members = self.senders.len();
        if sender as usize >= members || recipient as usize >= members || sender == recipient {
            return Err(Violation::Foreign);
        }
        let from = &mut self.senders[sender as usize];
        let sent_end = from.base.wrapping_add(from.flights.len() as u32);
        let next = &mut self.next[sender as usize * members + recipient as usize];
        if sequence >= sent_end {
            return Err(Violation::Foreign);
        }
        if sequence < *next {
            if !self.overtaken.remove(&(sender, recipient, sequence)) {
                return Err(Violation::Duplicated);
            }
            // It came, so it is not lost as well.
            self.settle_delivery(sender, sequence);
            return Err(Violation::Reordered);
        }
        for missing in *next..sequence {
            if self.overtaken.len() < Self::OVERTAKEN_MAX {
                self.overtaken.insert((sender, recipient, missing));
            }
        }
        *next = sequence + 1;
        self.settle_delivery(sender, sequence).ok_or(Violation::Foreign)
    }

    /// A member has left (its connection is gone): what it has not got is not owed any more, and
    /// what it sent need not arrive.
    pub fn left(&mut self, member: u32) {
        let index = member as usize;
        if !std::mem::replace(&mut self.present[index], false) {
            return;
        }
        self.present_count -= 1;
        let members = self.senders.len();
        for (number, from) in self.senders.iter_mut().enumerate() {
            if number == index {
                from.base = from.base.wrapping_add(from.flights.len() as u32);
                from.flights.clear();
                from.open = 0;
                from.unanswered = 0;
                continue;
            }
            let next = self.next[number * members + index];
            let base = from.base;
            let mut completed = 0;
            for (offset, flight) in from.flights.iter_mut().enumerate() {
                let sequence = base.wrapping_add(offset as u32);
                let overtaken = self.overtaken.contains(&(number as u32, member, sequence));
                if (sequence >= next || overtaken) && flight.outstanding > 0 {
                    flight.outstanding -= 1;
                    completed += u32::from(flight.complete());
                }
            }
            from.open -= completed;
            from.trim();
        }
    }

    /// Messages of `sender` that are not complete.
    #[must_use]
    pub fn open(&self, sender: u32) -> u32 {
        self.senders[sender as usize].open
    }

    /// Messages of `sender` that are not answered.
    #[must_use]
    pub fn unanswered(&self, sender: u32) -> u32 {
        self.senders[sender as usize].unanswered
    }

    /// Nothing is owed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.senders.iter().all(|sender| sender.open == 0)
    }

    /// Whether the member still counts.
    #[must_use]
    pub fn is_present(&self, member: u32) -> bool {
        self.present[member as usize]
    }

    /// Closes the book: what is still owed will not come.
    #[must_use]
    pub fn debts(&self) -> Debts {
        let mut debts = Debts::default();
        for flight in self.senders.iter().flat_map(|sender| &sender.flights) {
            debts.lost += u64::from(flight.outstanding);
            debts.unanswered += u64::from(flight.unanswered.count_ones());
        }
        debts
    }

    fn settle_delivery(&mut self, sender: u32, sequence: u32) -> Option<Delivered> {
        let from = &mut self.senders[sender as usize];
        let flight = from.flight_mut(sequence)?;
        flight.outstanding = flight.outstanding.checked_sub(1)?;
        let intended_ns = flight.intended_ns;
        let complete = flight.complete();
        from.settle(complete);
        Some(Delivered { intended_ns, complete })
    }
}

impl Sender {
    fn flight_mut(&mut self, sequence: u32) -> Option<&mut Flight> {
        let offset = sequence.checked_sub(self.base)?;
        self.flights.get_mut(offset as usize)
    }

    fn settle(&mut self, complete: bool) {
        if complete {
            self.open -= 1;
            self.trim();
        }
    }

    fn trim(&mut self) {
        while self.flights.front().is_some_and(Flight::complete) {
            self.flights.pop_front();
            self.base = self.base.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::expectation::Violations;

    /// Sends `count` messages from member 0 of a room and answers them.
    fn room_with_messages(members: u32, count: u32) -> Ledger {
        let mut ledger = Ledger::new(members);
        for expected in 0..count {
            let sequence = ledger.sent(0, u64::from(expected), u64::from(expected), 1);
            assert_eq!(sequence, expected);
            ledger.answered(0, sequence, 0).unwrap();
        }
        ledger
    }

    #[test]
    fn settles_when_everyone_got_everything_once() {
        let mut ledger = room_with_messages(3, 2);
        assert!(!ledger.is_settled());
        assert!(!ledger.delivered(0, 1, 0).unwrap().complete);
        assert!(ledger.delivered(0, 2, 0).unwrap().complete);
        ledger.delivered(0, 1, 1).unwrap();
        let last = ledger.delivered(0, 2, 1).unwrap();
        assert_eq!(last, Delivered { intended_ns: 1, complete: true });
        assert!(ledger.is_settled());
        assert_eq!(ledger.debts(), Debts::default());
    }

    #[test]
    fn names_a_loss() {
        let mut ledger = room_with_messages(3, 2);
        ledger.delivered(0, 1, 0).unwrap();
        ledger.delivered(0, 1, 1).unwrap();
        ledger.delivered(0, 2, 1).unwrap();
        let debts = ledger.debts();
        assert_eq!(debts.lost, 1);
        assert_eq!(debts.unanswered, 0);
    }

    #[test]
    fn names_a_duplicate_while_and_after_the_flight_is_open() {
        let mut ledger = room_with_messages(3, 1);
        ledger.delivered(0, 1, 0).unwrap();
        assert_eq!(ledger.delivered(0, 1, 0), Err(Violation::Duplicated));
        ledger.delivered(0, 2, 0).unwrap();
        assert_eq!(ledger.delivered(0, 2, 0), Err(Violation::Duplicated));
        assert_eq!(ledger.debts(), Debts::default());
    }

    #[test]
    fn names_a_reordering_and_does_not_count_it_as_lost() {
        let mut ledger = room_with_messages(2, 3);
        ledger.delivered(0, 1, 1).unwrap();
        assert_eq!(ledger.delivered(0, 1, 0), Err(Violation::Reordered));
        assert_eq!(ledger.delivered(0, 1, 0), Err(Violation::Duplicated));
        ledger.delivered(0, 1, 2).unwrap();
        assert!(ledger.is_settled());
    }

    #[test]
    fn names_what_nobody_sent_and_an_echo() {
        let mut ledger = room_with_messages(2, 1);
        assert_eq!(ledger.delivered(0, 1, 7), Err(Violation::Foreign));
        assert_eq!(ledger.delivered(0, 0, 0), Err(Violation::Foreign));
        assert_eq!(ledger.delivered(9, 1, 0), Err(Violation::Foreign));
        assert_eq!(ledger.delivered(0, 9, 0), Err(Violation::Foreign));
    }

    #[test]
    fn names_answers_that_are_missing_or_too_many() {
        let mut ledger = Ledger::new(2);
        let first = ledger.sent(0, 0, 5, 1);
        let second = ledger.sent(0, 0, 6, 2);
        assert_eq!(ledger.unanswered(0), 2);
        assert_eq!(ledger.answered(0, first, 0).unwrap().sent_ns, 5);
        assert_eq!(ledger.answered(0, first, 0), Err(Violation::UnexpectedResponse));
        assert_eq!(ledger.answered(0, 9, 0), Err(Violation::UnexpectedResponse));
        assert!(!ledger.answered(0, second, 1).unwrap().complete);
        assert_eq!(ledger.unanswered(0), 1);
        ledger.delivered(0, 1, first).unwrap();
        ledger.delivered(0, 1, second).unwrap();
        assert_eq!(ledger.debts(), Debts { lost: 0, unanswered: 1 });
    }

    #[test]
    fn owes_nothing_to_a_member_that_left() {
        let mut ledger = room_with_messages(3, 2);
        ledger.delivered(0, 1, 0).unwrap();
        ledger.delivered(0, 2, 0).unwrap();
        ledger.delivered(0, 1, 1).unwrap();
        ledger.left(2);
        assert!(ledger.is_settled());
        let sequence = ledger.sent(0, 0, 0, 1);
        ledger.answered(0, sequence, 0).unwrap();
        assert!(ledger.delivered(0, 1, sequence).unwrap().complete);
        assert!(ledger.is_settled());
    }

    /// A fault that is put into an otherwise correct stream of deliveries.
    #[derive(Clone, Copy, Debug)]
    enum Fault {
        None,
        Drop,
        Repeat,
        Swap,
    }

    proptest! {
        #[test]
        fn finds_exactly_the_fault_that_was_made(
            members in 2_u32..5,
            count in 2_u32..20,
            at in 0_usize..1000,
            fault in prop_oneof![
                Just(Fault::None), Just(Fault::Drop), Just(Fault::Repeat), Just(Fault::Swap)
            ],
        ) {
            let mut ledger = room_with_messages(members, count);
            let mut stream: Vec<(u32, u32)> = (1..members)
                .flat_map(|recipient| (0..count).map(move |sequence| (recipient, sequence)))
                .collect();
            let mut at = at % stream.len();
            match fault {
                Fault::None => {}
                Fault::Drop => { stream.remove(at); }
                Fault::Repeat => {
                    let again = stream[at];
                    stream.push(again);
                }
                Fault::Swap => {
                    // Within one recipient's run.
                    if (at + 1).is_multiple_of(count as usize) { at -= 1; }
                    stream.swap(at, at + 1);
                }
            }
            let mut found = Violations::default();
            for (recipient, sequence) in stream {
                if let Err(violation) = ledger.delivered(0, recipient, sequence) {
                    found.add(violation, String::new);
                }
            }
            found.add_many(Violation::Lost, ledger.debts().lost, String::new);
            let expected = match fault {
                Fault::None => None,
                Fault::Drop => Some(Violation::Lost),
                Fault::Repeat => Some(Violation::Duplicated),
                Fault::Swap => Some(Violation::Reordered),
            };
            prop_assert_eq!(found.total(), u64::from(expected.is_some()));
            if let Some(expected) = expected {
                prop_assert_eq!(found.counts.get(&expected), Some(&1));
            }
        }
    }
}
