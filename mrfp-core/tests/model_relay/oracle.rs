//! What the receivers must hold, and what the senders must have been told.

use mrfp_protocol::msrp::FailureReport;

use crate::message::{Chunk, Message};
use crate::relays::{Party, Relays, Target, serial};
use crate::watch::Arrived;

/// Panics where the contract does not hold.
pub fn judge(relays: &Relays) {
    for (index, party) in relays.parties.iter().enumerate() {
        for (id, arrived) in &party.watch.messages {
            let message = &relays.messages[serial(id)];
            let what = format!("{id} at party {index}");
            assert!(relays.is_for(serial(id), index), "{what}: not for it");
            assert!(message.body.starts_with(&arrived.body), "{what}: altered");
            assert!(arrived.body.len() <= message.cut(), "{what}: more than was sent");
            let whole = arrived.end != Some('$') || arrived.body.len() == message.body.len();
            assert!(whole, "{what}: short, and called whole");
            let wanted = arrived.failure_report.unwrap_or(message.failure_report);
            assert_eq!(wanted, message.failure_report, "{what}: another Failure-Report");
        }
    }
    for (number, message) in relays.messages.iter().enumerate() {
        relays.judge_message(number, message);
    }
}

impl Relays {
    fn is_for(&self, number: usize, index: usize) -> bool {
        match self.targets[number] {
            Target::Client(client) => client == index,
            Target::Outside => self.parties[index].through.is_none(),
            Target::Dead | Target::Silent => false,
        }
    }

    /// Those who may have got a message, with what they hold of it.
    fn receivers(&self, number: usize) -> Vec<(&Party, Option<&Arrived>)> {
        let parties = self.parties.iter().enumerate();
        let receivers = parties.filter(|&(index, _)| self.is_for(number, index));
        let id = &self.messages[number].id;
        receivers.map(|(_, party)| (party, party.watch.messages.get(id))).collect()
    }

    fn judge_message(&self, number: usize, message: &Message) {
        let sender = &self.parties[message.sender];
        if sender.ended {
            return;
        }
        let what = || format!("{message:?} for {:?}", self.targets[number]);
        let receivers = self.receivers(number);
        let held = receivers.iter().filter_map(|(_, arrived)| arrived.map(|it| it.body.len()));
        let held = held.max().unwrap_or(0);
        // Nothing has gone wrong for anybody.
        let welcome = !self.tight
            && !self.network.cut
            && !receivers.is_empty()
            && receivers.iter().all(|(party, _)| {
                !party.ended && !party.silent && !party.declined.contains(&message.id)
            });
        // Answers wait behind what their client itself says to somebody who cannot be reached, and
        // behind whoever waits for that.
        let prompt = !self.targets.contains(&Target::Silent);
        let told = message.reported(|code| code != 200);
        for chunk in message.chunks.iter().filter(|chunk| chunk.sent) {
            if message.failure_report == FailureReport::Yes {
                assert_eq!(chunk.answers.len(), 1, "{}: {chunk:?}", what());
            }
            let refused = chunk.answers.iter().any(|&status| status != 200);
            assert!(!welcome || !refused, "{}: refused", what());
            let lost = held < chunk.range.end;
            assert!(!welcome || !lost, "{}: {held} bytes arrived", what());
            // Nobody can say what of a broken connection arrived, where no answer is the good one.
            // A REPORT may be on the connection that breaks, too: nobody answers it.
            let gone = receivers.iter().any(|(party, _)| party.ended);
            let partial = message.failure_report == FailureReport::Partial;
            let cut = self.network.cut;
            let unknowable = cut && gone || partial && (cut || gone);
            let wants_to_know =
                message.failure_report != FailureReport::No && !unknowable && !is_abort(chunk);
            // Where a connection on the way has broken, or a chunk was refused, the end of a message
            // may have arrived without what the sender was told is missing.
            let refuses = |party: &Party| party.declined.contains(&message.id);
            let refused_there = receivers.iter().any(|(party, _)| refuses(party));
            let broken = self.network.cut || gone || refused_there;
            let hole = broken && message.reports.iter().any(|it| it.code != 200);
            // The peer outside has been reached anew, and there the rest has no beginning.
            let anew = receivers.len() > 1;
            let missing = held.clamp(chunk.range.start, chunk.range.end)..chunk.range.end;
            let reported = told[missing].iter().all(|&it| it);
            let knows = refused || reported || hole || anew || message.is_refused();
            assert!(!wants_to_know || !lost || knows, "{}: {chunk:?} lost in silence", what());
        }
        if !welcome {
            return;
        }
        let content = message.reports.iter().all(|it| it.code == 200);
        assert!(content || !prompt, "{}: a complaint", what());
        let reported = message.reported(|code| code == 200);
        for chunk in message.chunks.iter().filter(|chunk| chunk.sent && !is_abort(chunk)) {
            let all = reported[chunk.range.clone()].iter().all(|&it| it);
            assert!(!message.success_report || all, "{}: unreported", what());
        }
    }
}

fn is_abort(chunk: &Chunk) -> bool {
    chunk.flag == '#'
}

impl Message {
    fn is_refused(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.answers.iter().any(|&status| status != 200))
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
