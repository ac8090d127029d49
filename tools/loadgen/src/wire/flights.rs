//! What one end has sent and is not over: the oracle of a pair.

use std::collections::VecDeque;

use crate::expectation::Violation;

/// The messages of one end, in the order they were sent.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// Sequence number of the front.
    base: u32,
    queue: VecDeque<Flight>,
    /// Not over.
    open: u32,
    /// The one that the other end is to see next.
    next_delivery: u32,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    due_ns: u64,
    sent_ns: u64,
    answered: bool,
    delivered: bool,
}

/// A message came to the other end, or was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Booked {
    /// When it was due.
    pub(super) due_ns: u64,
    /// When it was sent.
    pub(super) sent_ns: u64,
    /// It is over: answered 200, and with the other end.
    pub(super) over: bool,
}

impl Flights {
    /// Books a message and returns its sequence number.
    pub(super) fn sent(&mut self, due_ns: u64, sent_ns: u64) -> u32 {
        let sequence = self.base.wrapping_add(self.queue.len() as u32);
        self.queue.push_back(Flight { due_ns, sent_ns, answered: false, delivered: false });
        self.open += 1;
        sequence
    }

    pub(super) fn answered(&mut self, sequence: u32) -> Result<Booked, Violation> {
        let flight = self.find(sequence).ok_or(Violation::UnexpectedResponse)?;
        if std::mem::replace(&mut flight.answered, true) {
            return Err(Violation::UnexpectedResponse);
        }
        let flight = *flight;
        Ok(self.booked(flight))
    }

    pub(super) fn delivered(&mut self, sequence: u32) -> Result<Booked, Violation> {
        if sequence.wrapping_sub(self.base) as i32 >= self.queue.len() as i32 {
            return Err(Violation::Foreign);
        }
        let late = (sequence.wrapping_sub(self.next_delivery) as i32) < 0;
        let flight = self.find(sequence).ok_or(Violation::Duplicated)?;
        if std::mem::replace(&mut flight.delivered, true) {
            return Err(Violation::Duplicated);
        }
        let flight = *flight;
        let booked = self.booked(flight);
        if late {
            return Err(Violation::Reordered);
        }
        self.next_delivery = sequence.wrapping_add(1);
        Ok(booked)
    }

    /// Messages that are not over.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// Messages that never came, and SENDs that were never answered.
    pub(super) fn debts(&self) -> (u64, u64) {
        let lost = self.queue.iter().filter(|flight| !flight.delivered).count();
        let unanswered = self.queue.iter().filter(|flight| !flight.answered).count();
        (lost as u64, unanswered as u64)
    }

    fn find(&mut self, sequence: u32) -> Option<&mut Flight> {
        self.queue.get_mut(sequence.wrapping_sub(self.base) as usize)
    }

    fn booked(&mut self, flight: Flight) -> Booked {
        let over = flight.answered && flight.delivered;
        if over {
            self.open -= 1;
            while self.queue.front().is_some_and(|front| front.answered && front.delivered) {
                self.queue.pop_front();
                self.base = self.base.wrapping_add(1);
            }
        }
        Booked { due_ns: flight.due_ns, sent_ns: flight.sent_ns, over }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_over_when_answered_and_delivered_whichever_comes_first() {
        let mut flights = Flights::default();
        assert_eq!(flights.sent(1, 2), 0);
        assert_eq!(flights.sent(3, 4), 1);
        assert_eq!(flights.answered(0), Ok(Booked { due_ns: 1, sent_ns: 2, over: false }));
        assert!(flights.delivered(0).unwrap().over);
        assert!(!flights.delivered(1).unwrap().over);
        assert_eq!(flights.open(), 1);
        assert_eq!(flights.debts(), (0, 1));
        assert!(flights.answered(1).unwrap().over);
        assert_eq!((flights.open(), flights.debts()), (0, (0, 0)));
    }

    #[test]
    fn every_fault_has_its_name() {
        let mut flights = Flights::default();
        for _ in 0..4 {
            flights.sent(0, 0);
        }
        assert_eq!(flights.delivered(4), Err(Violation::Foreign));
        flights.delivered(0).unwrap();
        assert_eq!(flights.delivered(0), Err(Violation::Duplicated));
        flights.answered(0).unwrap();
        assert_eq!(flights.delivered(0), Err(Violation::Duplicated));
        assert_eq!(flights.answered(0), Err(Violation::UnexpectedResponse));
        assert_eq!(flights.answered(9), Err(Violation::UnexpectedResponse));
        flights.delivered(2).unwrap();
        assert_eq!(flights.delivered(1), Err(Violation::Reordered));
        assert_eq!(flights.debts(), (1, 3));
    }
}
