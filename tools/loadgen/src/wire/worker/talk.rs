//! What pairs say, and what they hear.

use super::{Shared, Worker, floors};
use crate::expectation::Violation;
use crate::media::channel::Failure;
use crate::wire::Work;
use crate::wire::auth::Step;
use crate::wire::end::{Address, End, Heard};
use crate::wire::link::{CARRY_BYTES_MAX, Link, Stage};

/// Messages an end may have open in the open loop; past it the schedule slips and is reported.
const OPEN_MESSAGES_MAX: u32 = 10_000;

impl Worker {
    /// Makes the pairs and says when each of their ends begins.
    pub(super) fn begin_talk(&mut self) {
        let Self { links, shared, .. } = self;
        let now = shared.now();
        let pairs = match &shared.plan.work {
            Work::Relay { .. } => pairs_by_relay(links),
            Work::Raw | Work::Gateway(_) => neighbours(links),
            Work::Floors(floors) if !floors.idle => Vec::new(),
            Work::Idle | Work::Handshakes | Work::Bulk { .. } | Work::Floors(_) | Work::Fax(_) => {
                return;
            }
        };
        let nonce = getrandom::u32().unwrap_or(now as u32);
        for (one, other) in pairs {
            let paths = shared.plan.paths(shared.first, one, other, links);
            let (to_path, from_path) = paths;
            let nonce_of = |index: u32| nonce.wrapping_add(index);
            for (index, partner, to_path, from_path) in
                [(one, other, &to_path.0, &from_path.0), (other, one, &to_path.1, &from_path.1)]
            {
                let address = Address {
                    nonce: nonce_of(index),
                    to_path,
                    from_path,
                    body_bytes: shared.plan.traffic.body_bytes,
                };
                let end = End::new(partner, &address, nonce_of(partner));
                links[index as usize].end = Some(Box::new(end));
            }
        }
        let talks = |link: &Link| {
            link.end.is_some() || link.participant.is_some() && link.stage == Stage::Ready
        };
        let talkers: Vec<u32> =
            (0..links.len() as u32).filter(|index| talks(&links[*index as usize])).collect();
        let traffic = &shared.plan.traffic;
        // Spread, so that ends are not in step: over the interval, or over the time of the ramp.
        let span = traffic.interval_ns.unwrap_or(traffic.ramp_ns);
        for (place, index) in (0_u64..).zip(&talkers) {
            let due = now + span.saturating_mul(place) / talkers.len() as u64;
            links[*index as usize].due_ns = due;
            links[*index as usize].begun_ns = 0;
            shared.due.push_back((due, *index));
        }
    }

    /// Sends what is due, and what the window has room for.
    pub(super) fn talk(&mut self) {
        self.release_floors();
        let Self { links, shared, .. } = self;
        if !shared.phase.has_traffic() {
            while shared.ready.pop().is_some() {}
            return;
        }
        if !shared.due.is_empty() {
            let now = shared.now();
            while let Some((due, index)) =
                shared.due.front().copied().filter(|(due, _)| *due <= now)
            {
                shared.due.pop_front();
                shared.ready.insert(index);
                if let Some(interval) = shared.plan.traffic.interval_ns {
                    shared.due.push_back((due + interval, index));
                }
            }
        }
        // Ends that become ready meanwhile do so by completions, so this comes to an end.
        let mut failed = Vec::new();
        while let Some(index) = shared.ready.pop() {
            if let Err(failure) = say_more(&mut links[index as usize], shared, index) {
                failed.push((index, failure));
            }
        }
        for (index, failure) in failed {
            self.settle(index, Err(failure));
        }
    }

    /// Hears plain text.
    pub(super) fn hear(
        links: &mut [Link],
        shared: &mut Shared,
        index: u32,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let link = &mut links[index as usize];
        if link.plain_carry.is_empty() {
            let taken = hear_whole(links, shared, index, bytes)?;
            links[index as usize].plain_carry.extend_from_slice(&bytes[taken..]);
        } else {
            let mut carry = std::mem::take(&mut link.plain_carry);
            carry.extend_from_slice(bytes);
            let taken = hear_whole(links, shared, index, &carry)?;
            carry.drain(..taken);
            links[index as usize].plain_carry = carry;
        }
        if links[index as usize].plain_carry.len() > CARRY_BYTES_MAX {
            return Err(Failure::Malformed("no end of a message".to_owned()));
        }
        Ok(())
    }
}

fn hear_whole(
    links: &mut [Link],
    shared: &mut Shared,
    index: u32,
    bytes: &[u8],
) -> Result<usize, Failure> {
    if matches!(shared.plan.work, Work::Floors(_)) {
        return floors::hear(links, shared, index, bytes);
    }
    let link = &mut links[index as usize];
    if link.stage == Stage::Introducing {
        return authorise(link, shared, index, bytes);
    }
    let Some(end) = &mut link.end else {
        return Err(Failure::Malformed("a word before anybody has spoken".to_owned()));
    };
    let mut heard = std::mem::take(&mut shared.heard);
    let mut outcome = Ok(());
    let (channel, pool) = (&mut link.channel, &mut shared.pool);
    let mut reply = |answer: &[u8]| {
        if outcome.is_ok() {
            outcome = channel.append(answer, pool);
        }
    };
    let taken = end.hear(bytes, &mut reply, &mut heard);
    if !heard.is_empty() {
        let now = shared.now();
        for said in heard.drain(..) {
            book(links, shared, index, said, now);
        }
    }
    shared.heard = heard;
    outcome?;
    taken.map_err(Failure::Malformed)
}

fn authorise(
    link: &mut Link,
    shared: &mut Shared,
    index: u32,
    bytes: &[u8],
) -> Result<usize, Failure> {
    let Work::Relay { uri, user } = &shared.plan.work else { return Ok(bytes.len()) };
    let Some(registration) = &mut link.registration else { return Ok(bytes.len()) };
    let (taken, step) = registration.hear(bytes, uri, user.as_ref());
    if step != Step::Wait && link.begun_ns > 0 && shared.plan.burst {
        let latency = shared.now() - link.begun_ns;
        shared.figures.first_answer.saturating_record(latency);
        link.begun_ns = 0;
    }
    match step {
        Step::Wait => {}
        Step::Say(request) => link.channel.append(request.as_bytes(), &mut shared.pool)?,
        Step::Registered => {
            link.stage = Stage::Ready;
            link.deadline_ns = u64::MAX;
            shared.counts.up += 1;
        }
        Step::Refused(why) => {
            shared.violation(index, Violation::AuthRefused, &why);
            shared.counts.failed += 1;
            // Booked; how it ends is no further fault.
            link.released = true;
            return Err(Failure::CloseNotify);
        }
    }
    Ok(taken)
}

fn book(links: &mut [Link], shared: &mut Shared, index: u32, heard: Heard, now: u64) {
    let link = &mut links[index as usize];
    let Some(end) = &mut link.end else { return };
    let (sender, outcome) = match heard {
        Heard::Answer { sequence, status: 200 } => {
            let booked = end.flights.answered(sequence);
            if let Ok(booked) = &booked {
                let latency = now.saturating_sub(booked.sent_ns);
                if shared.is_measuring() {
                    shared.figures.answer.saturating_record(latency);
                }
                if shared.plan.burst && shared.plan.work == Work::Raw && link.begun_ns == 0 {
                    shared.figures.first_answer.saturating_record(latency);
                    link.begun_ns = now;
                }
            }
            (index, booked)
        }
        Heard::Message { sequence } => {
            let partner = end.partner;
            let Some(author) = &mut links[partner as usize].end else { return };
            let booked = author.flights.delivered(sequence);
            if let Ok(booked) = &booked {
                shared.counts.deliveries += 1;
                if shared.is_measuring() {
                    let latency = now.saturating_sub(booked.due_ns);
                    shared.figures.delivery.saturating_record(latency);
                    author.latency_ns += latency;
                    author.deliveries += 1;
                }
            }
            (partner, booked)
        }
        Heard::Answer { status, .. } => {
            return shared.violation(index, Violation::SendRefused, &format!("answered {status}"));
        }
        Heard::Stray => {
            return shared.violation(index, Violation::UnexpectedResponse, "unknown transaction");
        }
        Heard::Corrupted => {
            return shared.violation(index, Violation::Corrupted, "not what the partner sent");
        }
        Heard::Aborted => return shared.violation(index, Violation::Corrupted, "aborted (#)"),
        Heard::Report => {
            return shared.violation(index, Violation::Lost, "the target reports a failure");
        }
    };
    match outcome {
        Ok(booked) if booked.over => {
            shared.counts.messages += 1;
            if let Some(end) = links[sender as usize].end.as_mut().filter(|_| shared.is_measuring())
            {
                end.over += 1;
            }
            shared.ready.insert(sender);
        }
        Ok(_) => {}
        Err(violation) => shared.violation(index, violation, &format!("{heard:?}")),
    }
}

/// Sends what the window or the schedule asks for and the connection has room for.
fn say_more(link: &mut Link, shared: &mut Shared, index: u32) -> Result<(), Failure> {
    if link.stage != Stage::Ready {
        return Ok(());
    }
    if link.participant.is_some() {
        return floors::say_more(link, shared, index);
    }
    let Link { end: Some(end), channel, due_ns, .. } = link else { return Ok(()) };
    let traffic = &shared.plan.traffic;
    let now = shared.now();
    while *due_ns <= now && channel.egress.has_room() {
        let due = match traffic.interval_ns {
            None if end.flights.open() >= traffic.window => break,
            None => now,
            Some(_) if end.flights.open() >= OPEN_MESSAGES_MAX => break,
            Some(interval) => {
                let due = *due_ns;
                *due_ns += interval;
                if shared.is_measuring() {
                    shared.figures.slip.saturating_record((now - due).max(1));
                }
                due
            }
        };
        let sequence = end.flights.sent(due, now);
        channel.append(end.write_send(sequence), &mut shared.pool)?;
        shared.dirty.insert(index);
    }
    Ok(())
}

/// The first and the second, the third and the fourth: as they were accepted.
fn neighbours(links: &[Link]) -> Vec<(u32, u32)> {
    let is_up = |index: u32| links[index as usize].stage == Stage::Ready;
    let pairs = (0..links.len() as u32 / 2).map(|pair| (2 * pair, 2 * pair + 1));
    pairs.filter(|(one, other)| is_up(*one) && is_up(*other)).collect()
}

/// Those that were given URIs at the same place, so that a message passes it once; whoever is left
/// over is paired across.
fn pairs_by_relay(links: &[Link]) -> Vec<(u32, u32)> {
    let mut up: Vec<(&str, u32)> = (0_u32..)
        .zip(links)
        .filter(|(_, link)| link.stage == Stage::Ready)
        .filter_map(|(index, link)| Some((crate::wire::first_hop(link)?, index)))
        .collect();
    up.sort_unstable();
    up.chunks_exact(2).map(|pair| (pair[0].1, pair[1].1)).collect()
}
