//! The book of the files of one room: each UE has at most one on its way.

use std::collections::{BTreeMap, BTreeSet};

use super::{Debts, Violation};

/// Files on their way, by the member that sends them.
#[derive(Debug, Default)]
pub struct FileBook(BTreeMap<u32, File>);

#[derive(Debug)]
struct File {
    number: u32,
    begun_ns: u64,
    /// Its last chunk has been sent.
    sent: bool,
    /// Members that have not got it whole.
    outstanding: BTreeSet<u32>,
    /// Chunks that have not been answered.
    unanswered: BTreeSet<u32>,
}

impl FileBook {
    /// A member begins a file.
    pub fn begin(
        &mut self,
        sender: u32,
        number: u32,
        now_ns: u64,
        members: impl Iterator<Item = u32>,
    ) {
        let outstanding = members.filter(|member| *member != sender).collect();
        let unanswered = BTreeSet::new();
        let file = File { number, begun_ns: now_ns, sent: false, outstanding, unanswered };
        assert!(self.0.insert(sender, file).is_none());
    }

    /// Whether a file of this member is on its way.
    #[must_use]
    pub fn is_under_way(&self, sender: u32) -> bool {
        self.0.contains_key(&sender)
    }

    /// Chunks of this member that have not been answered.
    #[must_use]
    pub fn unanswered(&self, sender: u32) -> usize {
        self.0.get(&sender).map_or(0, |file| file.unanswered.len())
    }

    /// A chunk leaves.
    pub fn sent(&mut self, sender: u32, chunk: u32, last: bool) {
        if let Some(file) = self.0.get_mut(&sender) {
            file.unanswered.insert(chunk);
            file.sent = last;
        }
    }

    /// Books the answer to a chunk; `true` where the file is done with.
    pub fn answered(&mut self, sender: u32, number: u32, chunk: u32) -> Result<bool, Violation> {
        let file = self.0.get_mut(&sender).filter(|file| file.number == number);
        let known = file.is_some_and(|file| file.unanswered.remove(&chunk));
        if known { Ok(self.settle(sender)) } else { Err(Violation::UnexpectedResponse) }
    }

    /// Books that `recipient` has got a file whole: when it was begun, and whether it is done with.
    pub fn delivered(
        &mut self,
        sender: u32,
        recipient: u32,
        number: u32,
    ) -> Result<(u64, bool), Violation> {
        let file = self.0.get_mut(&sender).filter(|file| file.number == number && file.sent);
        let file = file.ok_or(Violation::Foreign)?;
        if !file.outstanding.remove(&recipient) {
            return Err(Violation::Duplicated);
        }
        let begun_ns = file.begun_ns;
        Ok((begun_ns, self.settle(sender)))
    }

    /// A member has left: nothing is owed to it, nor expected of it.
    pub fn left(&mut self, member: u32) {
        self.0.remove(&member);
        let senders: Vec<u32> = self.0.keys().copied().collect();
        for sender in senders {
            if let Some(file) = self.0.get_mut(&sender) {
                file.outstanding.remove(&member);
            }
            self.settle(sender);
        }
    }

    /// Nothing is owed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.0.is_empty()
    }

    /// Closes the book: what is still owed will not come.
    #[must_use]
    pub fn debts(&self) -> Debts {
        let sum = |count: fn(&File) -> usize| self.0.values().map(|file| count(file) as u64).sum();
        Debts {
            lost: sum(|file| file.outstanding.len()),
            unanswered: sum(|file| file.unanswered.len()),
        }
    }

    fn settle(&mut self, sender: u32) -> bool {
        let done = self.0.get(&sender).is_some_and(|file| {
            file.sent && file.outstanding.is_empty() && file.unanswered.is_empty()
        });
        if done {
            self.0.remove(&sender);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> FileBook {
        let mut book = FileBook::default();
        book.begin(0, 5, 77, 0..3);
        book.sent(0, 0, false);
        book.sent(0, 1, true);
        book
    }

    #[test]
    fn a_file_is_done_with_when_everybody_has_it_and_every_chunk_is_answered() {
        let mut book = book();
        assert_eq!(book.answered(0, 5, 0), Ok(false));
        assert_eq!(book.delivered(0, 1, 5), Ok((77, false)));
        assert_eq!(book.answered(0, 5, 1), Ok(false));
        assert_eq!(book.debts(), Debts { lost: 1, unanswered: 0 });
        assert_eq!(book.delivered(0, 2, 5), Ok((77, true)));
        assert!(book.is_settled());
    }

    #[test]
    fn what_comes_twice_or_was_never_sent_has_its_name() {
        let mut book = book();
        assert_eq!(book.answered(0, 5, 9), Err(Violation::UnexpectedResponse));
        assert_eq!(book.answered(1, 5, 0), Err(Violation::UnexpectedResponse));
        assert_eq!(book.delivered(0, 1, 4), Err(Violation::Foreign));
        assert!(book.delivered(0, 1, 5).is_ok());
        assert_eq!(book.delivered(0, 1, 5), Err(Violation::Duplicated));
        assert_eq!(book.debts(), Debts { lost: 1, unanswered: 2 });
    }

    #[test]
    fn whoever_leaves_is_owed_nothing() {
        let mut book = book();
        book.left(1);
        book.left(2);
        assert_eq!(book.debts(), Debts { lost: 0, unanswered: 2 });
        book.left(0);
        assert!(book.is_settled());
    }
}
