//! The machine: one handler per event.

use std::collections::{BTreeMap, VecDeque};

use mrfp_core::mp::{self, ShardId, TerminationId};

use super::call::{Call, Waiting};
use super::config::{BorderConfig, SUBTRACT_TIMEOUT_NS, WAITING_MAX};
use super::counters::{BorderCounters, count};
use super::ending::ReleaseReason;
use super::{Action, BorderCallId, Event, ExchangeId, Refusal, SideRole};
use crate::deadlines::Deadlines;
use crate::mrfc::Shards;

/// The media logic of the border: events in, actions out. After every `handle` and `handle_timeout`, poll
/// actions until there are none.
pub struct Border {
    pub(super) config: BorderConfig,
    pub(super) calls: BTreeMap<BorderCallId, Call>,
    pub(super) by_termination: BTreeMap<TerminationId, BorderCallId>,
    /// Terminations that no call has any more and whose `Subtracted` is due.
    pub(super) subtracting: BTreeMap<TerminationId, (ShardId, SideRole)>,
    pub(super) shards: Shards,
    pub(super) timers: Deadlines<Timer>,
    pub(super) actions: VecDeque<Action>,
    pub(super) counters: BorderCounters,
    pub(super) last_id: u64,
    shutdown: Shutdown,
}

/// What a deadline belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// A shard owes this call an answer.
    Shard(BorderCallId),
    /// A bearer of this call was closed or lost.
    Recovery(BorderCallId),
    /// A shard owes `Subtracted`.
    Subtract(TerminationId),
}

/// What a handler needs from outside.
pub(super) struct Turn<'a> {
    /// Nanoseconds of a clock that never goes back.
    pub(super) now_ns: u64,
    pub(super) random: &'a mut dyn FnMut(&mut [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shutdown {
    No,
    Draining,
    Drained,
}

impl Border {
    /// A border without calls.
    #[must_use]
    pub fn new(config: BorderConfig) -> Self {
        Self {
            shards: Shards::new(&config.shards),
            config,
            calls: BTreeMap::new(),
            by_termination: BTreeMap::new(),
            subtracting: BTreeMap::new(),
            timers: Deadlines::default(),
            actions: VecDeque::new(),
            counters: BorderCounters::default(),
            last_id: FIRST_ID,
            shutdown: Shutdown::No,
        }
    }

    /// Whether a Termination is one of a border, and not of a conference.
    #[must_use]
    pub fn owns(termination: TerminationId) -> bool {
        termination.0 >= FIRST_ID
    }

    /// Takes an event in. `random` is the node's source of what is not to be guessed.
    pub fn handle(&mut self, now_ns: u64, random: &mut dyn FnMut(&mut [u8]), event: Event) {
        let mut turn = Turn { now_ns, random };
        match event {
            Event::Begun { call, caller, callee } => {
                let not_admitted = match self.shutdown {
                    Shutdown::No => {
                        (self.calls.len() >= self.config.calls_max).then_some("Too many calls")
                    }
                    Shutdown::Draining | Shutdown::Drained => Some("Shutting down"),
                };
                count(&mut self.counters.calls, caller.side);
                let former = self.calls.insert(call, Call::new(caller, callee, not_admitted));
                assert!(former.is_none(), "a BorderCallId names one call");
            }
            Event::Rerouted { call, callee } => {
                if let Some(call) = self.calls.get_mut(&call) {
                    call.callee = callee;
                }
            }
            Event::Offer { call, exchange, from, sdp } => {
                self.exchanged(&mut turn, call, Waiting::Offer { exchange, from, sdp });
            }
            Event::Answer { call, exchange, sdp } => {
                self.exchanged(&mut turn, call, Waiting::Answer { exchange, sdp });
            }
            Event::Withdrawn { call, exchange } => {
                self.exchanged(&mut turn, call, Waiting::Withdrawn { exchange });
            }
            Event::Ended { call } => self.ended(&turn, call),
            Event::Mp { shard, event } => self.media_plane(&mut turn, shard, event),
            Event::Shutdown => self.shut_down(&turn),
        }
        self.check_drained();
    }

    /// Takes note that time has passed. `random` as for [`Self::handle`].
    pub fn handle_timeout(&mut self, now_ns: u64, random: &mut dyn FnMut(&mut [u8])) {
        let mut turn = Turn { now_ns, random };
        while let Some(timer) = self.timers.expired(now_ns) {
            match timer {
                Timer::Shard(id) => {
                    self.counters.shard_timeouts += 1;
                    self.shard_silent(&mut turn, id);
                }
                Timer::Recovery(id) => self.recovery_over(&turn, id),
                Timer::Subtract(termination) => {
                    // The shard is past help; what it holds is not ours to count any more.
                    self.counters.shard_timeouts += 1;
                    let (shard, _) =
                        self.subtracting.remove(&termination).expect("a timer has its Termination");
                    self.shards.remove_termination(shard);
                }
            }
        }
        self.check_drained();
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`], on the monotonic clock in nanoseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next_ns()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &BorderCounters {
        &self.counters
    }

    /// Calls in progress, the unanswered ones included.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Terminations on the shards, those included that are being subtracted.
    #[must_use]
    pub fn terminations(&self) -> usize {
        self.by_termination.len() + self.subtracting.len()
    }

    /// No call, no Termination, nothing asked and unanswered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let empty = self.calls.is_empty() && self.subtracting.is_empty();
        if empty {
            assert!(self.by_termination.is_empty());
            assert!(self.timers.next_ns().is_none());
            assert!(self.shards.terminations().all(|(_, count)| count == 0));
        }
        empty
    }

    /// An offer, an answer or their withdrawal: at once, or after the shard has answered.
    fn exchanged(&mut self, turn: &mut Turn<'_>, id: BorderCallId, event: Waiting) {
        let Some(mut call) = self.calls.remove(&id) else {
            return self.refuse_waiting(id, event, &Refusal::unknown());
        };
        if call.releasing {
            self.refuse_waiting(id, event, &Refusal::unknown());
        } else if call.waiting.len() >= WAITING_MAX && !matches!(event, Waiting::Withdrawn { .. }) {
            self.refuse_waiting(id, event, &Refusal::unavailable("Too much at once"));
        } else {
            call.waiting.push_back(event);
            self.take_waiting(turn, id, &mut call);
        }
        self.calls.insert(id, call);
    }

    /// Takes what waits, as long as the shard owes nothing.
    pub(super) fn take_waiting(&mut self, turn: &mut Turn<'_>, id: BorderCallId, call: &mut Call) {
        while call.awaiting.is_empty() && !call.releasing {
            let Some(event) = call.waiting.pop_front() else { return };
            match event {
                Waiting::Offer { exchange, from, sdp } => {
                    self.offered(turn, id, call, exchange, from, &sdp);
                }
                Waiting::Answer { exchange, sdp } => self.answered(turn, id, call, exchange, &sdp),
                Waiting::Withdrawn { exchange } => self.withdrawn(turn, id, call, exchange),
            }
        }
    }

    pub(super) fn refuse_waiting(&mut self, id: BorderCallId, event: Waiting, why: &Refusal) {
        match event {
            Waiting::Offer { exchange, .. } => self.refuse_offer(id, exchange, why.clone()),
            Waiting::Answer { exchange, .. } => self.refuse_answer(id, exchange, why.clone()),
            Waiting::Withdrawn { .. } => {}
        }
    }

    pub(super) fn refuse_offer(
        &mut self,
        call: BorderCallId,
        exchange: ExchangeId,
        refusal: Refusal,
    ) {
        count(&mut self.counters.refused, refusal.status);
        self.actions.push_back(Action::Offer { call, exchange, outcome: Err(refusal) });
    }

    pub(super) fn refuse_answer(
        &mut self,
        call: BorderCallId,
        exchange: ExchangeId,
        refusal: Refusal,
    ) {
        count(&mut self.counters.refused, refusal.status);
        self.actions.push_back(Action::Answer { call, exchange, outcome: Err(refusal) });
    }

    pub(super) fn command(&mut self, shard: ShardId, command: mp::Command) {
        self.actions.push_back(Action::Command { shard, command });
    }

    /// Gives a Termination back to its shard.
    pub(super) fn subtract(
        &mut self,
        now_ns: u64,
        shard: ShardId,
        side: SideRole,
        termination: TerminationId,
    ) {
        self.by_termination.remove(&termination);
        self.subtracting.insert(termination, (shard, side));
        self.timers.set(Timer::Subtract(termination), now_ns + SUBTRACT_TIMEOUT_NS);
        self.command(shard, mp::Command::Subtract { termination });
    }

    fn shut_down(&mut self, turn: &Turn<'_>) {
        if self.shutdown != Shutdown::No {
            return;
        }
        self.shutdown = Shutdown::Draining;
        let calls: Vec<BorderCallId> = self.calls.keys().copied().collect();
        for id in calls {
            let mut call = self.calls.remove(&id).expect("just seen");
            self.release(turn, id, &mut call, ReleaseReason::Shutdown);
            self.calls.insert(id, call);
        }
    }

    fn check_drained(&mut self) {
        if self.shutdown == Shutdown::Draining && self.is_empty() {
            self.shutdown = Shutdown::Drained;
            self.actions.push_back(Action::Drained);
        }
    }
}

/// A name that was not given before.
pub(super) fn next_id(last: &mut u64) -> u64 {
    *last += 1;
    *last
}

/// Names of the border's Contexts and Terminations begin where those of conferences never come.
const FIRST_ID: u64 = 1 << 63;
