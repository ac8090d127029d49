//! What is measured: programs under loads, in rounds whose runs alternate, and what is made of them.

use super::goal::Goal;
use super::peers::Subject;

/// Cases that alternate: every repetition runs each of them once, so that whatever else the machine
/// does at a time meets them all.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) cases: Vec<Case>,
    pub(crate) entries: Vec<Entry>,
}

/// One program under one load.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) subject: Subject,
    /// Words for the generator. `@SIP@`, `@RELAY@`, `@IN@`, `@OUT@` are the subject's addresses,
    /// `@DIRECTORY@` is where keys and certificates are, `@TIME@` and `@WARMUP@` are how long a run
    /// lasts, `@SECONDS@` the same as a number, `@RATE@` is what `rate` says, per sender.
    pub(crate) load: String,
    pub(crate) rate: Option<Rate>,
    /// A run in which messages were lost has figures all the same, as the loss is what is looked for.
    pub(crate) counts_when_failed: bool,
}

/// How many messages per second are due of an open loop.
#[derive(Clone, Debug)]
pub(crate) enum Rate {
    /// Half of what the subject was found to carry, before everything else.
    HalfOfSaturation {
        /// A closed loop with one message of each sender under way: the search begins at its rate.
        closed: String,
        /// Among how many senders a rate is divided.
        senders: u32,
    },
    /// That of this case of the round.
    Of(&'static str),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `P1`, or `P2-psk` where a goal has several parts.
    pub(crate) identifier: &'static str,
    pub(crate) title: &'static str,
    pub(crate) shows: &'static str,
    pub(crate) value: Value,
    /// Name of a case of the round.
    pub(crate) ours: &'static str,
    pub(crate) anchor: Option<&'static str>,
    /// The ratio is the anchor's figure by ours: a share of the limit.
    pub(crate) is_share: bool,
    pub(crate) goal: Goal,
}

/// Which of the generator's figures, and its unit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    /// As it is; a path with dots.
    Figure(&'static str, &'static str),
    /// Microseconds each as events per second of one core.
    PerSecond(&'static str, &'static str),
    /// One by the other.
    Quotient(&'static str, &'static str, &'static str),
}

impl Value {
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Figure(_, unit) | Self::PerSecond(_, unit) | Self::Quotient(_, _, unit) => unit,
        }
    }
}

impl Entry {
    /// A line that has no figures yet.
    pub(crate) fn new(identifier: &'static str, title: &'static str, value: Value) -> Self {
        Self {
            identifier,
            title,
            shows: "",
            value,
            ours: "",
            anchor: None,
            is_share: false,
            goal: Goal { text: "(reported)".to_owned(), ..Goal::default() },
        }
    }

    /// Nobody beside it.
    pub(crate) fn alone(self, ours: &'static str) -> Self {
        Self { ours, ..self }
    }

    /// The ratio is ours by the anchor's.
    pub(crate) fn between(self, ours: &'static str, anchor: &'static str) -> Self {
        Self { ours, anchor: Some(anchor), ..self }
    }

    /// The ratio is the anchor's by ours.
    pub(crate) fn share(self, ours: &'static str, anchor: &'static str) -> Self {
        Self { is_share: true, ..self.between(ours, anchor) }
    }

    pub(crate) fn judged(self, goal: Goal) -> Self {
        Self { goal, ..self }
    }

    pub(crate) fn shows(self, shows: &'static str) -> Self {
        Self { shows, ..self }
    }

    /// `P2` of `P2-psk`.
    pub(crate) fn goal_identifier(&self) -> &'static str {
        self.identifier.split('-').next().unwrap_or(self.identifier)
    }
}

impl Round {
    /// What is left of it where only these are asked for: `P2` means all its parts.
    pub(crate) fn only(&self, wanted: &[String]) -> Option<Self> {
        let is_wanted = |entry: &&Entry| {
            wanted.is_empty()
                || wanted.iter().any(|name| {
                    name.eq_ignore_ascii_case(entry.identifier)
                        || name.eq_ignore_ascii_case(entry.goal_identifier())
                })
        };
        let entries: Vec<_> = self.entries.iter().filter(is_wanted).cloned().collect();
        let is_entered = |case: &&Case| {
            entries.iter().any(|entry| entry.ours == case.name || entry.anchor == Some(case.name))
        };
        let entered: Vec<_> = self.cases.iter().filter(is_entered).collect();
        let gives_rate = |case: &Case| {
            entered.iter().any(|it| matches!(it.rate, Some(Rate::Of(name)) if name == case.name))
        };
        let is_used = |case: &&Case| is_entered(case) || gives_rate(case);
        let cases = self.cases.iter().filter(is_used).cloned().collect();
        (!entries.is_empty()).then_some(Self { cases, entries })
    }
}
