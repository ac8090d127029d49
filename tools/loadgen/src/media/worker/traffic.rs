//! What bound UEs say and hear.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use super::{BIND_TIMEOUT_NS, Event, Phase, Worker};
use crate::accounting::thread_cpu_ns;
use crate::expectation::{Ledger, Violation};
use crate::media::channel::Failure;
use crate::media::connection::{Heard, Stage};
use crate::media::message::{ChunkOf, FILE_BIT, Stamp, Transaction};

/// Messages a UE may have open in the open loop; past it the schedule slips and is reported.
const OPEN_MESSAGES_MAX: u32 = 10_000;

impl Worker {
    pub(super) fn start(&mut self) {
        if self.phase != Phase::SettingUp {
            return;
        }
        self.phase = Phase::Talking;
        self.thread_cpu_at_start = thread_cpu_ns();
        self.awake_work_ns = 0;
        let now = self.shared.now();
        self.schedule_stall(now);
        let total = self.connections.len().max(1) as u64;
        for room in &mut self.shared.rooms {
            let connections = &mut self.connections;
            room.members.retain(|index| {
                matches!(connections[*index as usize].stage, Stage::Bound | Stage::Silent)
            });
            for (member, index) in (0..).zip(&room.members) {
                connections[*index as usize].member = member;
            }
            room.ledger = Some(Ledger::new(room.members.len() as u32));
        }
        for index in 0..self.connections.len() as u32 {
            let connection = &mut self.connections[index as usize];
            if connection.stage == Stage::Silent {
                self.speak(index, now);
                continue;
            }
            if connection.stage != Stage::Bound {
                continue;
            }
            if connection.file.is_some() {
                self.shared.ready.insert(index);
            }
            match self.shared.traffic.interval_ns {
                None => self.shared.ready.insert(index),
                Some(interval) => {
                    // Spread over the first interval: UEs are not in step.
                    let phase = interval.saturating_mul(u64::from(index)) / total;
                    connection.next_intended_ns = now + phase;
                    self.shared.due.push(Reverse((now + phase, index)));
                }
            }
        }
    }

    /// Books what the node has just said on a connection.
    pub(super) fn heard(&mut self, index: u32) {
        if self.shared.heard.is_empty() {
            return;
        }
        let now = self.shared.now();
        let mut heard = std::mem::take(&mut self.shared.heard);
        for said in heard.drain(..) {
            match said {
                Heard::Silent => {
                    let connection = &mut self.connections[index as usize];
                    connection.bind_deadline_ns = u64::MAX;
                    let session = connection.session;
                    (self.shared.events)(Event::Bound { session });
                }
                Heard::Binding { status } => self.bound(index, status),
                Heard::Answer { transaction, status } => {
                    self.answered(index, transaction, status, now);
                }
                Heard::StrayAnswer => {
                    self.violation(index, Violation::UnexpectedResponse, "unknown transaction");
                }
                Heard::Message(stamp) => self.delivered(index, stamp, now),
                Heard::Corrupted => {
                    self.violation(index, Violation::Corrupted, "not what any UE sent");
                }
                Heard::Aborted => self.violation(index, Violation::Corrupted, "aborted (#)"),
            }
        }
        self.shared.heard = heard;
    }

    pub(super) fn bound(&mut self, index: u32, status: u16) {
        let connection = &mut self.connections[index as usize];
        if connection.stage != Stage::Binding {
            return self.violation(index, Violation::UnexpectedResponse, "second binding answer");
        }
        if status == 200 {
            connection.stage = Stage::Bound;
            let (session, room) = (connection.session, connection.room);
            if connection.waits {
                return self.joined(index, room);
            }
            return (self.shared.events)(Event::Bound { session });
        }
        let text = format!("binding SEND answered {status}");
        self.lose(index, Violation::NotBound, &text, None);
    }

    /// Everybody speaks, for the first time.
    fn speak(&mut self, index: u32, now: u64) {
        let connection = &mut self.connections[index as usize];
        connection.bind_deadline_ns = now + BIND_TIMEOUT_NS;
        connection.spoke_ns = now;
        let outcome = connection.speak(&mut self.shared.surroundings());
        self.shared.dirty.insert(index);
        if let Err(failure) = outcome {
            self.fail(index, &failure);
        }
    }

    /// One that spoke with all the others is bound. A room talks once all its members are.
    fn joined(&mut self, index: u32, room: u32) {
        let now = self.shared.now();
        let spoke_ns = self.connections[index as usize].spoke_ns;
        self.shared.first_answer_latency.saturating_record(now.saturating_sub(spoke_ns));
        let members = &self.shared.rooms[room as usize].members;
        let binding = |index: &u32| self.connections[*index as usize].stage < Stage::Bound;
        if !members.iter().any(binding) {
            members.iter().for_each(|&member| self.shared.ready.insert(member));
        }
    }

    pub(super) fn answered(&mut self, index: u32, transaction: Transaction, status: u16, now: u64) {
        if transaction.sequence & FILE_BIT != 0 {
            return self.file_answered(index, transaction, status);
        }
        let connection = &self.connections[index as usize];
        let room = &mut self.shared.rooms[connection.room as usize];
        let Some(ledger) = &mut room.ledger else {
            return self.violation(index, Violation::UnexpectedResponse, "nothing was sent");
        };
        let outcome = ledger.answered(connection.member, transaction.sequence, transaction.chunk);
        match outcome {
            Ok(answered) => {
                let latency = now.saturating_sub(answered.sent_ns);
                self.shared.answer_latency.saturating_record(latency);
                if answered.complete || self.shared.traffic.over_when_answered {
                    self.shared.ready.insert(index);
                }
            }
            Err(violation) => self.violation(index, violation, "answered twice or never sent"),
        }
        if status != 200 {
            let text = format!("message {} answered {status}", transaction.sequence);
            self.violation(index, Violation::SendRefused, &text);
        }
        self.shared.progress.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn delivered(&mut self, index: u32, stamp: Stamp, now: u64) {
        let recipient = &self.connections[index as usize];
        let sender_index = self.by_session.get(stamp.session as usize).copied();
        let sender = sender_index
            .and_then(|sender| self.connections.get(sender as usize))
            .filter(|sender| sender.room == recipient.room);
        let room = &mut self.shared.rooms[recipient.room as usize];
        let (Some(sender), Some(ledger)) = (sender, &mut room.ledger) else {
            return self.violation(index, Violation::Foreign, "sender is not in the room");
        };
        if !ledger.is_present(sender.member) {
            return;
        }
        if stamp.sequence & FILE_BIT != 0 {
            return self.file_delivered(index, sender_index.unwrap_or(index), stamp, now);
        }
        room.delivered += u64::from(self.phase == Phase::Talking);
        match ledger.delivered(sender.member, recipient.member, stamp.sequence) {
            Ok(delivered) => {
                let latency = now.saturating_sub(delivered.intended_ns);
                self.shared.delivery_latency.saturating_record(latency);
                if self.phase == Phase::Talking {
                    room.latency_ns += latency;
                }
                match self.stall {
                    Some(stall) if stamp.intended_ns < stall.from_ns => {
                        self.shared.unstalled_latency.saturating_record(latency);
                    }
                    Some(stall) if stamp.intended_ns < stall.to_ns => {
                        self.shared.stalled_latency.saturating_record(latency);
                    }
                    Some(_) | None => {}
                }
                self.shared.recent.saturating_record(latency);
                if delivered.complete {
                    self.shared.ready.insert(sender_index.unwrap_or(index));
                }
                if delivered.intended_ns != stamp.intended_ns {
                    self.violation(index, Violation::Corrupted, "its stamp changed");
                }
            }
            Err(violation) => {
                let text = format!("message {} of session {}", stamp.sequence, stamp.session);
                self.violation(index, violation, &text);
            }
        }
        self.shared.progress.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends what the clock and the windows allow.
    pub(super) fn send_what_is_due(&mut self) {
        let now = self.shared.now();
        self.keep_stall(now);
        while let Some(Reverse((due, index))) = self.shared.due.peek().copied() {
            if due > now {
                break;
            }
            self.shared.due.pop();
            self.shared.slip.saturating_record(now - due);
            self.shared.ready.insert(index);
        }
        while let Some(index) = self.shared.ready.pop() {
            if let Err(failure) = self.pump(index, now) {
                self.fail(index, &failure);
            }
        }
    }

    /// Lets one UE send; what it may not send yet brings it back through `ready` or `due`.
    pub(super) fn pump(&mut self, index: u32, now: u64) -> Result<(), Failure> {
        let connection = &mut self.connections[index as usize];
        if connection.stage != Stage::Bound {
            return Ok(());
        }
        while self.connections[index as usize].channel.egress.has_room() {
            let connection = &mut self.connections[index as usize];
            if let Some(sending) = connection.sending {
                connection.send_chunk(sending, &mut self.shared.surroundings())?;
                self.shared.dirty.insert(index);
                continue;
            }
            if !self.begin_text(index, now) && !self.send_file_chunk(index, now)? {
                break;
            }
        }
        Ok(())
    }

    /// Begins the next message, where the clock or the window allows one.
    fn begin_text(&mut self, index: u32, now: u64) -> bool {
        let connection = &mut self.connections[index as usize];
        let Some(ledger) = &mut self.shared.rooms[connection.room as usize].ledger else {
            return false;
        };
        let in_stalled_pair = self.shared.traffic.stall.is_some() && connection.session < 2;
        let listens = connection.member >= self.shared.traffic.senders;
        if self.phase != Phase::Talking || in_stalled_pair || listens {
            return false;
        }
        let open = match self.shared.traffic.over_when_answered {
            true => ledger.unanswered(connection.member),
            false => ledger.open(connection.member),
        };
        let intended_ns = match self.shared.traffic.interval_ns {
            None if open >= self.shared.traffic.window => return false,
            None => now,
            Some(_) if connection.next_intended_ns > now => return false,
            Some(_) if ledger.open(connection.member) >= OPEN_MESSAGES_MAX => return false,
            Some(interval) => {
                let intended_ns = connection.next_intended_ns;
                connection.next_intended_ns += interval;
                let next = Reverse((connection.next_intended_ns, index));
                if connection.next_intended_ns > now {
                    self.shared.due.push(next);
                }
                intended_ns
            }
        };
        let chunks = connection.template.chunks();
        let sequence = ledger.sent(connection.member, intended_ns, now, chunks);
        connection.sending = Some(ChunkOf { sequence, chunk: 0, intended_ns });
        self.shared.progress.messages.fetch_add(1, Ordering::Relaxed);
        true
    }
}
