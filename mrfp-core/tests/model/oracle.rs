//! What every receiver must hold in the end, and what every sender must have been told.

use mrfp_core::mp::ReleaseCause;
use mrfp_protocol::msrp::FailureReport;

use crate::conference::Conference;
use crate::message::{Ending, Message};
use crate::party::{Answering, Party};
use crate::watch::Arrived;

/// Panics where the contract does not hold.
pub fn judge(conference: &Conference) {
    for (index, party) in conference.parties.iter().enumerate() {
        judge_release(conference, party);
        let mut owners = Vec::new();
        for (id, arrived) in &party.watch.messages {
            owners.extend(judge_arrived(conference, index, id, arrived));
        }
        owners.sort_unstable();
        let count = owners.len();
        owners.dedup();
        assert_eq!(owners.len(), count, "party {index} has a message twice");
        if let Some((id, body)) = party.ue.incomplete().and_then(|it| party.watch.overhear(it)) {
            let arrived = Arrived { body, ..Arrived::default() };
            judge_arrived(conference, index, &id, &arrived);
        }
    }
    for (number, message) in conference.messages.iter().enumerate() {
        let case = Case::new(conference, number, message);
        case.judge_answers();
        case.judge_reports();
        for receiver in &case.receivers {
            case.judge_delivery(receiver);
        }
    }
}

/// Nobody is dropped without a reason of its own.
fn judge_release(conference: &Conference, party: &Party) {
    let termination = party.termination;
    if party.bound == u64::MAX {
        return;
    }
    match party.released {
        None => {
            let gone = party.ended || party.renounced && party.responses.is_empty();
            assert!(!gone || party.kicked, "{termination} is gone, and the controller not told");
        }
        Some(ReleaseCause::PeerClosed | ReleaseCause::ConnectionLost) => {
            assert!(party.ended || party.renounced, "{termination} has not closed");
        }
        Some(ReleaseCause::TooSlow) => {
            assert!(party.stalled || party.ended || conference.tight, "{termination} was not slow");
        }
        Some(other) => panic!("{termination} released: {other:?}"),
    }
}

/// Whatever arrived is the beginning of one message of another member of the room, or all of it. The
/// message, where that much arrived.
fn judge_arrived(
    conference: &Conference,
    receiver: usize,
    id: &str,
    arrived: &Arrived,
) -> Option<usize> {
    let party = &conference.parties[receiver];
    let mut owners = conference.messages.iter().enumerate().filter(|(_, message)| {
        message.sender != receiver
            && conference.parties[message.sender].context == party.context
            && message.body.starts_with(&arrived.body)
    });
    let (number, message) = owners.next().unwrap_or_else(|| {
        panic!("party {receiver}: {id} is of nobody, or altered: {} bytes", arrived.body.len())
    });
    if arrived.body.len() < message.tag_end {
        return None;
    }
    let sender = &conference.parties[message.sender];
    let what = format!("message {number} at party {receiver}");
    assert!(arrived.body.len() <= message.cut(), "{what}: more than was sent");
    assert_eq!(id == message.id, party.between_two, "{what}: {id}");
    let wanted = arrived.failure_report.unwrap_or(message.failure_report);
    assert_eq!(wanted, message.failure_report, "{what}: another Failure-Report");
    match arrived.end {
        Some('$') => {
            assert_eq!(arrived.body.len(), message.body.len(), "{what}: short, and called whole");
            assert!(message.is_sent_whole(), "{what}: ends before its sender ended it");
        }
        Some(_) => {
            let given_up = message.ending == Ending::Aborted
                || message.is_unfinished()
                || !sender.is_steady()
                || !party.is_steady()
                || sender.mute.overlap(message.began, u64::MAX)
                || party.deaf.overlap(message.began, u64::MAX)
                || party.declined.contains(id)
                || party.answering == Answering::Never
                || message.is_refused()
                || conference.tight;
            assert!(given_up, "{what}: given up for no reason: {message:?}");
        }
        // Whoever is held between two chunks, or declines there, waits for nothing more.
        None if party.is_steady()
            && !party.deaf.overlap(message.began, u64::MAX)
            && !party.declined.contains(id)
            && party.answering != Answering::Never =>
        {
            panic!("{what}: stays open");
        }
        None => {}
    }
    Some(number)
}

/// One message, its sender, and those it was for.
struct Case<'a> {
    number: usize,
    message: &'a Message,
    sender: &'a Party,
    receivers: Vec<Receiver<'a>>,
    /// Buffers were scarce.
    tight: bool,
    /// The sender was on hold at some time.
    mute: bool,
}

/// Another member of the room.
struct Receiver<'a> {
    index: usize,
    party: &'a Party,
    /// What it holds of the message.
    arrived: Option<&'a Arrived>,
    held: usize,
    /// It has answered a part of it with an error.
    declined: bool,
    /// It was there when the message began, stayed, and was never on hold.
    present: bool,
}

impl<'a> Case<'a> {
    fn new(conference: &'a Conference, number: usize, message: &'a Message) -> Self {
        let sender = &conference.parties[message.sender];
        let others =
            conference.parties.iter().enumerate().filter(|&(index, party)| {
                index != message.sender && party.context == sender.context
            });
        let receiver = |(index, party): (usize, &'a Party)| {
            let mut arrived = party.watch.messages.iter().filter(|(_, arrived)| {
                arrived.body.len() >= message.tag_end && message.body.starts_with(&arrived.body)
            });
            let (id, arrived) = arrived.next().unzip();
            Receiver {
                index,
                party,
                arrived,
                held: arrived.map_or(0, |arrived| arrived.body.len()),
                declined: id.is_some_and(|id| party.declined.contains(id))
                    // Too little of it has come to know it.
                    || id.is_none() && !party.declined.is_empty(),
                present: party.bound < message.began
                    && party.is_steady()
                    && !party.deaf.overlap(message.began, u64::MAX),
            }
        };
        Self {
            number,
            message,
            sender,
            receivers: others.map(receiver).collect(),
            tight: conference.tight,
            mute: sender.mute.overlap(message.began, u64::MAX),
        }
    }

    /// Somebody was there, stayed and answered well: there is nothing to complain about.
    fn is_welcome(&self) -> bool {
        let well = |it: &Receiver<'_>| {
            it.present && !it.declined && it.party.answering != Answering::Never
        };
        self.receivers.iter().any(well)
            // What is said into an empty room is delivered to all there are.
            || !self.sender.between_two && self.receivers.is_empty()
    }

    /// Every request is answered as its Failure-Report asks, while its sender is there to hear it.
    fn judge_answers(&self) {
        let message = self.message;
        if !self.sender.is_steady() {
            return;
        }
        let refusable = self.tight || self.mute || !self.is_welcome() || message.is_unfinished();
        for chunk in message.chunks.iter().filter(|chunk| chunk.sent) {
            let what = format!("message {}, {} ({})", self.number, chunk.transaction, message.id);
            let wanted = message.failure_report == FailureReport::Yes;
            assert!(!wanted || chunk.answers.len() == 1, "{what}: {:?}", chunk.answers);
            let well = chunk.answers.iter().all(|&status| status == 200);
            assert!(refusable || well, "{what}: refused: {:?}", chunk.answers);
        }
        if refusable || message.is_refused() {
            return;
        }
        let reported = message.reported(|code| code == 200);
        if !message.has_whole_head() {
            let number = self.number;
            assert!(!reported.contains(&true), "message {number}: success of what nobody got");
            return;
        }
        for chunk in message.chunks.iter().filter(|chunk| chunk.sent && chunk.flag != '#') {
            let all = reported[chunk.range.clone()].iter().all(|&it| it);
            assert!(
                !message.success_report || all,
                "message {}: {chunk:?} unreported",
                self.number
            );
        }
    }

    /// Of what was taken over nothing is lost without the sender's being told.
    fn judge_reports(&self) {
        let message = self.message;
        let what = format!("message {} of party {}", self.number, message.sender);
        let complained = message.reports.iter().any(|report| report.code != 200);
        assert!(
            !complained || self.tight || self.mute || !self.is_welcome(),
            "{what}: {:?} though it was delivered",
            message.reports
        );
        let wants_to_know = message.failure_report != FailureReport::No && self.sender.is_steady();
        let reached: Vec<_> = self.receivers.iter().filter(|it| it.held > 0).collect();
        if !wants_to_know || !self.sender.between_two && reached.is_empty() {
            return;
        }
        let told = message.reported(|code| code != 200);
        let silent = !self.mute;
        // In a room the refusal of a later chunk says it as well, and whoever the controller puts on
        // hold in the middle of a message has not failed to get it.
        let held = self.receivers.iter().any(|it| it.party.deaf.overlap(message.began, u64::MAX));
        let knows = !self.sender.between_two && (message.is_refused() || held);
        for chunk in message.chunks.iter().filter(|chunk| message.is_taken(chunk, silent)) {
            // A few bytes do not tell whose they are, and what is given up is of no interest.
            let lost = chunk.flag != '#'
                && chunk.range.end >= message.tag_end
                && reached.iter().all(|it| it.held < chunk.range.end);
            let held = reached.iter().map(|it| it.held).max().unwrap_or(0);
            let missing = held.clamp(chunk.range.start, chunk.range.end)..chunk.range.end;
            let told = knows || told[missing].iter().all(|&it| it);
            assert!(!lost || told, "{what}: {chunk:?} is lost in silence: {message:?}");
        }
        // Where nobody says that it arrived, the sender learns it.
        let asked = message.failure_report == FailureReport::Yes;
        let nobody = self.receivers.iter().all(|it| {
            let ended = it.arrived.is_some_and(|arrived| arrived.end.is_some());
            it.present && ended && (it.declined || it.party.answering == Answering::Never)
        });
        let learns = complained || message.is_refused();
        assert!(!(asked && nobody) || learns, "{what}: nobody has accepted it: {message:?}");
    }

    /// What was taken over has reached everybody who was there and stayed.
    fn judge_delivery(&self, receiver: &Receiver<'_>) {
        let message = self.message;
        let never = receiver.party.answering == Answering::Never;
        if !receiver.present || receiver.declined || never && message.is_refused() {
            return;
        }
        let what = format!("message {} for party {}", self.number, receiver.index);
        let silent = self.sender.is_steady() && !self.tight && !self.mute;
        let taken = message.chunks.iter().take_while(|chunk| message.is_taken(chunk, silent));
        let taken = taken.last().map_or(0, |chunk| chunk.range.end);
        let held = receiver.held;
        // The beginning of a message does not tell whose it is.
        assert!(taken < message.tag_end || held >= taken, "{what}: {held} of {taken} bytes");
        let whole = message.is_sent_whole() && taken == message.body.len();
        if whole && self.sender.is_steady() && !self.mute && !self.tight {
            let end = receiver.arrived.and_then(|arrived| arrived.end);
            assert_eq!(end, Some('$'), "{what}: {:?}", message.chunks.last());
        }
    }
}

impl Message {
    fn is_refused(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.answers.iter().any(|&status| status != 200))
    }

    /// Its sender never came to its end.
    fn is_unfinished(&self) -> bool {
        self.ending == Ending::Unfinished || !self.is_said() || self.abandoned
    }

    fn is_sent_whole(&self) -> bool {
        self.chunks.last().is_some_and(|chunk| chunk.sent && chunk.flag == '$')
    }

    /// The node has taken responsibility for a chunk. `silent`: where no 200 is wanted, silence
    /// means the same.
    fn is_taken(&self, chunk: &crate::message::Chunk, silent: bool) -> bool {
        match self.failure_report {
            FailureReport::Yes => chunk.answers == [200],
            FailureReport::Partial | FailureReport::No => {
                silent && chunk.sent && chunk.answers.is_empty()
            }
        }
    }

    /// The bytes on which there is a REPORT of that kind.
    fn reported(&self, kind: impl Fn(u16) -> bool) -> Vec<bool> {
        let mut reported = vec![false; self.body.len()];
        for report in self.reports.iter().filter(|report| kind(report.code)) {
            reported[report.range.clone()].fill(true);
        }
        reported
    }
}
