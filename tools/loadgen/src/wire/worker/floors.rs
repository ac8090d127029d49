//! What participants of floor control say, and what they hear.

use super::{Shared, Worker};
use crate::expectation::Violation;
use crate::media::channel::Failure;
use crate::wire::Work;
use crate::wire::link::{Link, Stage};
use crate::wire::participant::Heard;

/// A floor that somebody holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding {
    /// When it is to be given back.
    pub(super) until_ns: u64,
    index: u32,
    cycle: usize,
    /// Where its holders are counted.
    floor: usize,
}

impl Worker {
    /// Gives back what has been held long enough. It is never done at once: who is told in the same
    /// turn that he holds the same floor shows that too many do.
    pub(super) fn release_floors(&mut self) {
        let Self { links, shared, .. } = self;
        if shared.holding.is_empty() {
            return;
        }
        let now = shared.now();
        let mut failed = Vec::new();
        while let Some(holding) = shared.holding.front().copied() {
            if holding.until_ns > now {
                break;
            }
            shared.holding.pop_front();
            shared.holders[holding.floor] -= 1;
            if let Err(failure) = release(&mut links[holding.index as usize], shared, holding, now)
            {
                failed.push((holding.index, failure));
            }
        }
        for (index, failure) in failed {
            self.settle(index, Err(failure));
        }
    }
}

fn release(
    link: &mut Link,
    shared: &mut Shared,
    holding: Holding,
    now: u64,
) -> Result<(), Failure> {
    let Link { participant: Some(participant), channel, stage: Stage::Ready, .. } = link else {
        return Ok(());
    };
    // It may have been taken away.
    let Some(release) = participant.release(holding.cycle, now) else { return Ok(()) };
    channel.append(release, &mut shared.pool)?;
    shared.dirty.insert(holding.index);
    Ok(())
}

/// Hears plain text.
pub(super) fn hear(
    links: &mut [Link],
    shared: &mut Shared,
    index: u32,
    bytes: &[u8],
) -> Result<usize, Failure> {
    let Some(participant) = &mut links[index as usize].participant else { return Ok(bytes.len()) };
    let mut heard = std::mem::take(&mut shared.heard_of_floors);
    let taken = participant.hear(bytes, &mut heard);
    let now = shared.now();
    for said in heard.drain(..) {
        book(&mut links[index as usize], shared, index, said, now);
    }
    shared.heard_of_floors = heard;
    taken.map_err(Failure::Malformed)
}

fn book(link: &mut Link, shared: &mut Shared, index: u32, heard: Heard, now: u64) {
    match heard {
        Heard::Welcome => {
            if shared.plan.burst {
                shared.figures.first_answer.saturating_record(now - link.begun_ns);
            }
            link.stage = Stage::Ready;
            link.deadline_ns = u64::MAX;
            shared.counts.up += 1;
        }
        Heard::Answer { sent_ns } => {
            shared.counts.messages += 1;
            if sent_ns > 0 && shared.is_measuring() {
                shared.figures.answer.saturating_record(now.saturating_sub(sent_ns));
            }
        }
        Heard::Granted { cycle, floor, due_ns } => {
            shared.counts.deliveries += 1;
            if shared.is_measuring() {
                shared.figures.delivery.saturating_record(now.saturating_sub(due_ns));
            }
            hold(shared, index, cycle, floor, now);
        }
        Heard::Over => {
            if let Some(participant) = &mut link.participant {
                participant.freed(now);
            }
            shared.ready.insert(index);
        }
        Heard::Told => {}
        Heard::Fault(violation, text) => shared.violation(index, violation, &text),
    }
}

fn hold(shared: &mut Shared, index: u32, cycle: usize, floor: usize, now: u64) {
    let Work::Floors(floors) = &shared.plan.work else { return };
    let conference = (index / floors.users) as usize;
    let (floor_id, holders_max) = (floor + 1, floors.holders_max);
    let until_ns = now + floors.hold_ns;
    let floor = conference * usize::from(floors.floors) + floor;
    if shared.holders.len() <= floor {
        shared.holders.resize(floor + 1, 0);
    }
    shared.holders[floor] += 1;
    shared.holding.push_back(Holding { until_ns, index, cycle, floor });
    let holders = shared.holders[floor];
    if holders > u32::from(holders_max) {
        let text = format!("{holders} hold floor {floor_id} of its conference");
        shared.violation(index, Violation::FloorOverheld, &text);
    }
}

/// Asks for what the window or the schedule wants and the connection has room for.
pub(super) fn say_more(link: &mut Link, shared: &mut Shared, index: u32) -> Result<(), Failure> {
    let Link { participant: Some(participant), channel, due_ns, .. } = link else { return Ok(()) };
    let now = shared.now();
    while *due_ns <= now && channel.egress.has_room() {
        let interval = shared.plan.traffic.interval_ns;
        let due = if interval.is_some() { *due_ns } else { now };
        let askable_ns = participant.askable_ns(due);
        let Some(request) = participant.request(due, now) else { break };
        channel.append(request, &mut shared.pool)?;
        shared.dirty.insert(index);
        if let Some(interval) = interval {
            *due_ns += interval;
            if shared.is_measuring() {
                shared.figures.slip.saturating_record((now - askable_ns).max(1));
            }
        }
    }
    Ok(())
}
