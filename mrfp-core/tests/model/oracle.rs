//! What every receiver must hold in the end, and what every sender must have been told.

use mrfp_core::mp::ReleaseCause;
use mrfp_protocol::msrp::FailureReport;

use crate::conference::Conference;
use crate::message::{Ending, Message, TAG_BYTES};
use crate::party::Party;
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
        judge_answers(conference, number, message);
        for index in 0..conference.parties.len() {
            judge_delivery(conference, number, message, index);
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
    if arrived.body.len() < TAG_BYTES {
        return None;
    }
    let sender = &conference.parties[message.sender];
    let what = format!("message {number} at party {receiver}");
    assert!(arrived.body.len() <= message.cut(), "{what}: more than was sent");
    match arrived.end {
        Some('$') => {
            assert_eq!(arrived.body.len(), message.body.len(), "{what}: short, and called whole");
            assert!(message.is_sent_whole(), "{what}: ends before its sender ended it");
        }
        Some(_) => {
            let given_up = message.ending == Ending::Aborted
                || !sender.is_steady()
                || sender.mute.overlap(message.began, u64::MAX)
                || party.deaf.overlap(message.began, u64::MAX)
                || party.declined.contains(id)
                || message.is_refused()
                || conference.tight;
            assert!(given_up, "{what}: given up for no reason");
        }
        // Whoever is held between two chunks, or declines there, waits for nothing more.
        None if party.is_steady()
            && !party.deaf.overlap(message.began, u64::MAX)
            && !party.declined.contains(id) =>
        {
            assert!(sender.is_steady(), "{what}: its sender is gone, and it stays open");
            assert!(!message.is_ended(), "{what}: stays open");
        }
        None => {}
    }
    Some(number)
}

/// Every request is answered as its Failure-Report asks, whoever is still there to hear it.
fn judge_answers(conference: &Conference, number: usize, message: &Message) {
    let sender = &conference.parties[message.sender];
    if !sender.is_steady() {
        return;
    }
    let refusable = conference.tight || sender.mute.overlap(message.began, u64::MAX);
    for chunk in message.chunks.iter().filter(|chunk| chunk.sent) {
        let what = format!("message {number}, {} ({})", chunk.transaction, message.id);
        let wanted = message.failure_report == FailureReport::Yes;
        assert!(!wanted || chunk.answers.len() == 1, "{what}: {:?}", chunk.answers);
        assert!(refusable || chunk.answers.iter().all(|&it| it == 200), "{what}: refused");
    }
    if refusable || message.is_refused() {
        return;
    }
    let mut reported = vec![false; message.body.len()];
    for report in message.reports.iter().filter(|report| report.code == 200) {
        reported[report.range.clone()].fill(true);
    }
    for chunk in message.chunks.iter().filter(|chunk| chunk.sent && chunk.flag != '#') {
        let all = reported[chunk.range.clone()].iter().all(|&it| it);
        assert!(!message.success_report || all, "message {number}: {chunk:?} is not reported");
    }
}

/// What was answered 200 has reached everybody who was there and stayed.
fn judge_delivery(conference: &Conference, number: usize, message: &Message, index: usize) {
    let sender = &conference.parties[message.sender];
    let receiver = &conference.parties[index];
    if index == message.sender
        || receiver.context != sender.context
        || receiver.bound >= message.began
        || !receiver.is_steady()
        || receiver.deaf.overlap(message.began, u64::MAX)
    {
        return;
    }
    let arrived: Vec<_> = receiver
        .watch
        .messages
        .iter()
        .filter(|(_, arrived)| {
            arrived.body.len() >= TAG_BYTES && message.body.starts_with(&arrived.body)
        })
        .collect();
    if arrived.iter().any(|(id, _)| receiver.declined.contains(*id)) {
        return;
    }
    let what = format!("message {number} for party {index}");
    let held = arrived.first().map_or(0, |(_, arrived)| arrived.body.len());
    let muted = sender.mute.overlap(message.began, u64::MAX);
    let taken = message.taken(sender.is_steady() && !conference.tight && !muted);
    // The beginning of a message does not tell whose it is; a few bytes more do.
    assert!(taken < TAG_BYTES || held >= taken, "{what}: {held} of the {taken} bytes taken over");
    if sender.is_steady() && !message.is_refused() && taken >= TAG_BYTES {
        let end = arrived.first().and_then(|(_, arrived)| arrived.end);
        let ended = message.is_ended() && (taken == message.cut());
        assert!(!ended || end.is_some(), "{what}: never ends");
        let whole = message.is_sent_whole() && !muted && !conference.tight;
        assert!(!whole || end == Some('$'), "{what}: {end:?} instead of its end");
    }
}

impl Message {
    fn is_refused(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.answers.iter().any(|&status| status != 200))
    }

    /// Its sender has ended it, one way or the other.
    fn is_ended(&self) -> bool {
        self.chunks.last().is_some_and(|chunk| chunk.sent && chunk.flag != '+')
    }

    fn is_sent_whole(&self) -> bool {
        self.chunks.last().is_some_and(|chunk| chunk.sent && chunk.flag == '$')
    }

    /// Bytes from its beginning that the node has taken responsibility for. `silent`: where no 200 is
    /// wanted, silence means the same.
    fn taken(&self, silent: bool) -> usize {
        let taken = self.chunks.iter().take_while(|chunk| match self.failure_report {
            FailureReport::Yes => chunk.answers == [200],
            FailureReport::Partial | FailureReport::No => {
                silent && chunk.sent && chunk.answers.is_empty()
            }
        });
        taken.last().map_or(0, |chunk| chunk.range.end)
    }
}
