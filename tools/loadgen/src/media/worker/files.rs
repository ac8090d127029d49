//! UEs that send files, and the one that stops reading.

use mrfp_io::{Driver as _, Key, Operation, Token};

use super::{Phase, Worker};
use crate::expectation::Violation;
use crate::media::channel::Failure;
use crate::media::connection::Stage;
use crate::media::message::{ChunkOf, FILE_BIT, Stamp, Transaction};

/// When the stalled receiver reads nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct StallTimes {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// Its connection, where it is one of this worker's.
    receiver: Option<u32>,
}

/// The sender and the receiver of the stalled pair.
const STALLED_SENDER: u32 = 0;
const STALLED_RECEIVER: u32 = 1;

impl Worker {
    pub(super) fn schedule_stall(&mut self, now: u64) {
        self.stall = self.shared.traffic.stall.map(|stall| {
            let from_ns = now + stall.after.as_nanos() as u64;
            let to_ns = from_ns + stall.duration.as_nanos() as u64;
            StallTimes { from_ns, to_ns, receiver: self.index(STALLED_RECEIVER) }
        });
    }

    /// Ends the reading of the stalled receiver, lets its sender begin, and lets it go on.
    pub(super) fn keep_stall(&mut self, now: u64) {
        let Some(StallTimes { from_ns, to_ns, receiver: Some(index) }) = self.stall else {
            return;
        };
        let connection = &mut self.connections[index as usize];
        let stalled = (from_ns..to_ns).contains(&now);
        if stalled == connection.stalled || connection.stage != Stage::Bound {
            return;
        }
        connection.stalled = stalled;
        if stalled {
            let key = Key { index, generation: 1 };
            self.driver.cancel(Token::new(Operation::Recv, key));
        } else {
            self.arm(index);
        }
        if let Some(sender) = self.index(STALLED_SENDER) {
            let file = self.connections[sender as usize].file.as_ref();
            let sent = file.and_then(|file| file.sending).map_or(0, |sending| sending.chunk);
            if !stalled {
                self.stalled_bytes = u64::from(sent) * self.file_chunk_bytes();
            }
            self.shared.ready.insert(sender);
        }
    }

    fn file_chunk_bytes(&self) -> u64 {
        self.shared.traffic.files.map_or(0, |files| files.chunk_bytes as u64)
    }

    /// Lets a UE go on with its file, or begin the next one. False: not now.
    pub(super) fn send_file_chunk(&mut self, index: u32, now: u64) -> Result<bool, Failure> {
        let Some(traffic) = self.shared.traffic.files else { return Ok(false) };
        let connection = &mut self.connections[index as usize];
        let Some(file) = &mut connection.file else { return Ok(false) };
        let room = &mut self.shared.rooms[connection.room as usize];
        let sending = match file.sending {
            Some(sending) => sending,
            None => {
                let begins = match self.stall {
                    Some(stall) => file.begun == 0 && now >= stall.from_ns,
                    None => true,
                };
                let busy = room.files.is_under_way(connection.member);
                if self.phase != Phase::Talking || busy || !begins {
                    return Ok(false);
                }
                let number = file.begun | FILE_BIT;
                file.begun += 1;
                let members = 0..room.members.len() as u32;
                let present =
                    members.filter(|it| room.ledger.as_ref().is_some_and(|l| l.is_present(*it)));
                room.files.begin(connection.member, number, now, present);
                ChunkOf { sequence: number, chunk: 0, intended_ns: now }
            }
        };
        file.sending = Some(sending);
        if room.files.unanswered(connection.member) >= traffic.chunks_open_max {
            return Ok(false);
        }
        let last = connection.send_file_chunk(sending, &mut self.shared.surroundings())?;
        let connection = &self.connections[index as usize];
        let room = &mut self.shared.rooms[connection.room as usize];
        room.files.sent(connection.member, sending.chunk, last);
        self.shared.dirty.insert(index);
        Ok(true)
    }

    pub(super) fn file_answered(&mut self, index: u32, transaction: Transaction, status: u16) {
        let connection = &self.connections[index as usize];
        let room = &mut self.shared.rooms[connection.room as usize];
        let member = connection.member;
        if let Err(violation) = room.files.answered(member, transaction.sequence, transaction.chunk)
        {
            self.violation(index, violation, "a chunk of a file answered twice or never sent");
        }
        if status != 200 {
            let text = format!("chunk {} of a file answered {status}", transaction.chunk);
            self.violation(index, Violation::SendRefused, &text);
        } else if self.phase == Phase::Talking
            && let Some(files) = self.shared.traffic.files
        {
            let before = transaction.chunk as usize * files.chunk_bytes;
            let bytes = files.bytes.saturating_sub(before).min(files.chunk_bytes);
            self.shared.file_bytes_taken += bytes as u64;
        }
        self.shared.ready.insert(index);
    }

    pub(super) fn file_delivered(&mut self, index: u32, sender: u32, stamp: Stamp, now: u64) {
        let recipient = self.connections[index as usize].member;
        let from = &self.connections[sender as usize];
        let room = &mut self.shared.rooms[from.room as usize];
        match room.files.delivered(from.member, recipient, stamp.sequence) {
            Ok((begun_ns, _)) => {
                self.shared.file_latency.saturating_record(now.saturating_sub(begun_ns));
                self.shared.ready.insert(sender);
            }
            Err(violation) => {
                self.violation(index, violation, "a file that was not to come");
            }
        }
    }
}
