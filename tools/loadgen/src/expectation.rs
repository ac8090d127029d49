//! The oracle: what a room must have delivered, and what it did not.
//!
//! Every message must reach every other member exactly once, in the order its sender sent it, and
//! be answered with 200. The ledger of a room knows every message in flight, so that a loss, a
//! duplicate, a message out of order or one that nobody sent each has its own name.

mod files;
mod ledger;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use files::FileBook;
pub use ledger::{Answered, Debts, Delivered, Ledger};

/// What went wrong, by kind. Order and names are those of the report.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// The INVITE got a final answer other than 2xx.
    CallRefused,
    /// The INVITE got no final answer in time.
    CallUnanswered,
    /// The 200 to the INVITE cannot be used: no SDP, no path, a refused media line, a bad key.
    AnswerUnusable,
    /// No TCP connection to the address in the SDP answer.
    ConnectFailed,
    /// The TLS handshake failed.
    TlsHandshakeFailed,
    /// The relay did not give a URI to who asked for one.
    AuthRefused,
    /// The binding SEND was not answered with 200 in time.
    NotBound,
    /// A connection ended before its call did.
    UnexpectedClose,
    /// The node broke the grammar of MSRP, BFCP or TLS.
    Malformed,
    /// A SEND was answered with something else than 200.
    SendRefused,
    /// A SEND was never answered.
    SendUnanswered,
    /// A primitive about a floor was never answered.
    PrimitiveUnanswered,
    /// A floor that was asked for was refused or taken away, or a primitive answered with an Error.
    FloorRefused,
    /// A floor that was asked for was never granted.
    FloorNotGranted,
    /// More participants held a floor than may.
    FloorOverheld,
    /// A response to a request that is not open.
    UnexpectedResponse,
    /// Not one message, call or handshake of those the scenario counts took place.
    NothingExchanged,
    /// A pair was not heard of although the others talked.
    Starved,
    /// A message never reached a member.
    Lost,
    /// A message reached a member more than once.
    Duplicated,
    /// A message reached a member after a later one of the same sender.
    Reordered,
    /// A message arrived that is not what was sent: length, padding or stamp differ.
    Corrupted,
    /// A message arrived that no member of the room sent to the one who got it.
    Foreign,
    /// The generator's own pool of send buffers ran out for a connection.
    GeneratorExhausted,
    /// The node hung up before the end.
    HungUp,
    /// The BYE was refused.
    ByeRefused,
    /// The BYE got no answer in time.
    ByeUnanswered,
}

impl Violation {
    /// In words, for the report.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::CallRefused => "INVITE got a final answer other than 2xx",
            Self::CallUnanswered => "INVITE got no final answer",
            Self::AnswerUnusable => "200 to INVITE could not be used",
            Self::ConnectFailed => "no TCP connection to the address in the SDP answer",
            Self::TlsHandshakeFailed => "TLS handshake failed",
            Self::AuthRefused => "the relay gave no URI",
            Self::NotBound => "binding SEND was not answered 200 in time",
            Self::UnexpectedClose => "media connection ended before its call",
            Self::Malformed => "the node broke the grammar of MSRP, BFCP or TLS",
            Self::SendRefused => "SEND was answered other than 200",
            Self::SendUnanswered => "SEND was never answered",
            Self::PrimitiveUnanswered => "BFCP primitive was never answered",
            Self::FloorRefused => "floor was refused, or a primitive answered with an Error",
            Self::FloorNotGranted => "floor was never granted",
            Self::FloorOverheld => "floor was held by more than may",
            Self::UnexpectedResponse => "answer to a request that was not open",
            Self::NothingExchanged => "nothing was exchanged, so the run has shown nothing",
            Self::Starved => "room in which nothing was delivered while others talked",
            Self::Lost => "message never reached a member",
            Self::Duplicated => "message reached a member more than once",
            Self::Reordered => "message overtaken by a later one of its sender",
            Self::Corrupted => "message arrived changed",
            Self::Foreign => "message that nobody in the room sent",
            Self::GeneratorExhausted => "the generator ran out of send buffers",
            Self::HungUp => "the node sent BYE before the end",
            Self::ByeRefused => "BYE was refused",
            Self::ByeUnanswered => "BYE got no answer",
        }
    }
}

/// Violations counted by kind, the first few of each described.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Violations {
    /// How many of each kind.
    pub counts: BTreeMap<Violation, u64>,
    /// The first [`Violations::EXAMPLES_MAX`] of each kind, in words.
    pub examples: BTreeMap<Violation, Vec<String>>,
}

impl Violations {
    /// Examples kept of each kind: enough to see a pattern, few enough to read.
    pub const EXAMPLES_MAX: usize = 3;

    /// Counts one; `describe` is only called while examples are kept.
    pub fn add(&mut self, violation: Violation, describe: impl FnOnce() -> String) {
        self.add_many(violation, 1, describe);
    }

    /// Counts `count` of one kind with one description.
    pub fn add_many(
        &mut self,
        violation: Violation,
        count: u64,
        describe: impl FnOnce() -> String,
    ) {
        if count == 0 {
            return;
        }
        *self.counts.entry(violation).or_default() += count;
        let examples = self.examples.entry(violation).or_default();
        if examples.len() < Self::EXAMPLES_MAX {
            examples.push(describe());
        }
    }

    /// Adds what another part of the fleet found.
    pub fn merge(&mut self, other: Self) {
        for (violation, count) in other.counts {
            *self.counts.entry(violation).or_default() += count;
        }
        for (violation, found) in other.examples {
            let examples = self.examples.entry(violation).or_default();
            let room = Self::EXAMPLES_MAX.saturating_sub(examples.len());
            examples.extend(found.into_iter().take(room));
        }
    }

    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_first_examples_and_all_counts_when_merging() {
        let mut left = Violations::default();
        let mut right = Violations::default();
        for index in 0..5 {
            left.add(Violation::Lost, || format!("left {index}"));
            right.add(Violation::Lost, || format!("right {index}"));
        }
        right.add_many(Violation::Duplicated, 0, || unreachable!());
        left.merge(right);
        assert_eq!(left.total(), 10);
        assert_eq!(left.examples[&Violation::Lost], ["left 0", "left 1", "left 2"]);
    }
}
