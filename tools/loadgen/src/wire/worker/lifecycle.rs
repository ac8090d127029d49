//! Links from their beginning to their end.

use std::sync::atomic::Ordering;

use mrfp_io::{AcceptedSocket, Driver as _, Errno, Key, Operation, RecvBuffer, SendBuffer, Token};

use super::{BEGIN_TIMEOUT_NS, BEGINNING_MAX, GOODBYE_TIMEOUT_NS, Shared, Worker};
use crate::expectation::Violation;
use crate::media::channel::{Channel, Failure, Opened, describe, joined};
use crate::wire::auth::Registration;
use crate::wire::link::{Link, Stage};
use crate::wire::participant::{Participant, Place};
use crate::wire::plan::is_access;
use crate::wire::{Phase, Work};

impl Worker {
    /// Begins what may begin.
    pub(super) fn begin_links(&mut self) {
        let shared = &self.shared;
        let may = match shared.plan.work {
            Work::Handshakes => shared.phase.has_traffic(),
            Work::Relay { .. }
            | Work::Raw
            | Work::Idle
            | Work::Bulk { .. }
            | Work::Floors(_)
            | Work::Gateway(_)
            | Work::Fax(_) => shared.phase == Phase::SettingUp,
        };
        if !may {
            return;
        }
        self.take_arrivals();
        let shared = &self.shared;
        let in_order = shared.plan.is_in_order();
        if in_order && shared.control.turn.load(Ordering::Acquire) != shared.thread {
            return;
        }
        // Who is accepted next to whom makes the pairs of a raw target.
        let beginning_max = match shared.plan.work {
            Work::Raw => 1,
            Work::Gateway(_) if in_order && shared.beginning > 0 => 0,
            Work::Gateway(_) if in_order => 2,
            Work::Handshakes => u32::MAX,
            Work::Relay { .. }
            | Work::Idle
            | Work::Bulk { .. }
            | Work::Floors(_)
            | Work::Gateway(_)
            | Work::Fax(_) => BEGINNING_MAX,
        };
        while self.shared.beginning < beginning_max {
            let Some(index) = self.shared.waiting.pop_front() else { break };
            if self.shared.plan.work == Work::Handshakes {
                // The target may need a moment to take a key again: the longest unused one.
                let identity = self.shared.identities.pop_front();
                self.links[index as usize].identity = identity.unwrap_or(self.shared.first + index);
            } else {
                self.links[index as usize].identity = self.shared.first + index;
            }
            match self.shared.plan.sink() {
                Some(_) if !is_access(index) => self.expect(index),
                _ => self.begin(index),
            }
        }
        if in_order && self.shared.waiting.is_empty() && self.shared.beginning == 0 {
            self.shared.control.turn.store(self.shared.thread + 1, Ordering::Release);
        }
    }

    /// Lets in whom a call has brought.
    fn take_arrivals(&mut self) {
        while let Ok(arrival) = self.shared.arrivals.try_recv() {
            let index = arrival.link - self.shared.first;
            let link = &mut self.links[index as usize];
            link.invitation = arrival.invitation;
            if link.invitation.is_some() {
                self.shared.waiting.push_back(index);
            } else {
                // What was wrong with the call is booked there.
                link.stage = Stage::Closed;
                self.shared.counts.failed += 1;
            }
        }
    }

    fn begin(&mut self, index: u32) {
        let now = self.shared.now();
        let link = &mut self.links[index as usize];
        let token = token(Operation::Connect, index, link);
        let plan = &self.shared.plan;
        let number = self.shared.first + index;
        let invitation = link.invitation.as_ref();
        let target = invitation.map_or_else(|| plan.target(number), |it| it.address);
        let outcome = match plan.source(number) {
            None => self.driver.connect(target, token),
            Some(source) => self.driver.connect_from(source, target, token),
        };
        match outcome {
            Ok(socket) => {
                link.socket = Some(socket);
                link.stage = Stage::Connecting;
                link.begun_ns = now;
                link.deadline_ns = now + BEGIN_TIMEOUT_NS;
                self.shared.beginning += 1;
            }
            Err(error) => {
                link.stage = Stage::Closed;
                self.shared.counts.failed += 1;
                self.shared.violation(index, Violation::ConnectFailed, &error.to_string());
            }
        }
    }

    /// The target is to connect to us, as its other side was connected to.
    fn expect(&mut self, index: u32) {
        let now = self.shared.now();
        let [access, link] = &mut self.links[index as usize - 1..=index as usize] else { return };
        if access.stage >= Stage::Closing {
            link.stage = Stage::Closed;
            self.shared.counts.failed += 1;
            return;
        }
        link.stage = Stage::Expected;
        link.begun_ns = now;
        link.deadline_ns = now + BEGIN_TIMEOUT_NS;
        self.shared.beginning += 1;
        self.shared.expected = Some(index);
    }

    /// Somebody has connected to us: whoever is expected.
    pub(super) fn accepted(&mut self, result: Result<AcceptedSocket, Errno>, more: bool) {
        if let Some(listener) = self.shared.listener.filter(|_| !more) {
            self.driver.accept(listener, listening());
        }
        let Ok(AcceptedSocket { socket, .. }) = result else { return };
        let Some(index) = self.shared.expected.take() else {
            self.shared.figures.violations.add(Violation::Foreign, || {
                "a connection came in that belongs to nobody".to_owned()
            });
            let token = Token::new(Operation::Close, listening().key());
            return self.driver.close(socket, token);
        };
        let link = &mut self.links[index as usize];
        link.socket = Some(socket);
        link.stage = Stage::Securing;
        self.arm(index);
        let outcome = secured(&mut self.links, &mut self.shared, index);
        self.shared.dirty.insert(index);
        self.settle(index, outcome);
    }

    pub(super) fn connected(&mut self, token: Token, result: Result<(), Errno>) {
        let index = token.key().index;
        let link = &mut self.links[index as usize];
        if link.stage != Stage::Connecting {
            return self.try_free(index);
        }
        match result {
            Ok(()) => {
                link.stage = Stage::Securing;
                self.arm(index);
                let outcome = self.secure(index);
                self.shared.dirty.insert(index);
                self.settle(index, outcome);
            }
            Err(errno) => {
                // So that `close` does not cancel what has ended.
                link.stage = Stage::Securing;
                self.lose(index, Violation::ConnectFailed, &describe(errno));
            }
        }
    }

    fn secure(&mut self, index: u32) -> Result<(), Failure> {
        let Self { links, shared, .. } = self;
        let Link { identity, invitation, channel, .. } = &mut links[index as usize];
        let handshake = shared.plan.handshake(*identity, invitation.as_deref());
        *channel = Channel::new(handshake.map_err(Failure::Handshake)?);
        if channel.is_plain() {
            return secured(links, shared, index);
        }
        channel.begin(&mut shared.pool, &mut shared.scratch)
    }

    pub(super) fn received(
        &mut self,
        token: Token,
        result: Result<Option<RecvBuffer>, Errno>,
        more: bool,
    ) {
        let index = token.key().index;
        let link = &mut self.links[index as usize];
        link.recv_armed = more;
        let ending = link.stage >= Stage::Closing;
        match result {
            Ok(Some(buffer)) if ending => {
                self.driver.recv_release(buffer);
                if !more {
                    self.try_free(index);
                }
            }
            Ok(Some(buffer)) => {
                let Self { driver, links, shared } = self;
                let outcome = take(links, shared, index, driver.recv_bytes(&buffer));
                driver.recv_release(buffer);
                self.shared.dirty.insert(index);
                if !more {
                    self.shared.rearm.push(index);
                }
                self.settle(index, outcome);
            }
            Err(Errno::NO_BUFFERS) if !ending => self.shared.rearm.push(index),
            _ if ending => self.try_free(index),
            Ok(None) => self.peer_closed(index, "end of stream"),
            Err(errno) => self.peer_closed(index, &describe(errno)),
        }
    }

    pub(super) fn sent(&mut self, token: Token, result: Result<usize, Errno>, buffer: SendBuffer) {
        let index = token.key().index;
        let link = &mut self.links[index as usize];
        link.channel.egress.completed(buffer, result.unwrap_or(0), &mut self.shared.pool);
        if link.stage >= Stage::Closing {
            if result.is_err() {
                link.channel.egress.discard(&mut self.shared.pool);
            }
            self.shared.dirty.insert(index);
            return self.try_free(index);
        }
        match result {
            Ok(_) => {
                if !link.channel.egress.is_empty() {
                    self.shared.dirty.insert(index);
                }
                if link.end.is_some() || link.participant.is_some() {
                    self.shared.ready.insert(index);
                }
            }
            Err(errno) => self.peer_closed(index, &describe(errno)),
        }
    }

    pub(super) fn closed(&mut self, token: Token) {
        let index = token.key().index;
        // One that belonged to nobody.
        let Some(link) = self.links.get_mut(index as usize) else { return };
        link.stage = Stage::Closed;
        let talking = self.shared.phase.has_traffic();
        if self.shared.plan.work == Work::Handshakes && talking {
            self.shared.identities.push_back(link.identity);
            link.renew();
            self.shared.waiting.push_back(index);
        }
    }

    pub(super) fn flush(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        let Some(socket) = link.socket else { return };
        if matches!(link.stage, Stage::Closed | Stage::Connecting) {
            return;
        }
        let token = token(Operation::Send, index, link);
        match link.channel.send_waiting(&mut self.driver, socket, token) {
            Ok(0) => self.try_free(index),
            Ok(_) => {}
            Err(failure) => self.settle(index, Err(failure)),
        }
    }

    /// What became of a step.
    pub(super) fn settle(&mut self, index: u32, outcome: Result<(), Failure>) {
        let Err(failure) = outcome else { return };
        let Some((violation, text)) = failure.verdict() else {
            return self.peer_closed(index, "close_notify");
        };
        self.lose(index, violation, &text);
    }

    fn peer_closed(&mut self, index: u32, how: &str) {
        if self.links[index as usize].released {
            return self.close(index);
        }
        self.lose(index, Violation::UnexpectedClose, how);
    }

    /// The link is lost through the target's (or the generator's) fault.
    pub(super) fn lose(&mut self, index: u32, violation: Violation, text: &str) {
        let link = &self.links[index as usize];
        if link.stage >= Stage::Closing {
            return;
        }
        if link.stage < Stage::Ready {
            self.shared.counts.failed += 1;
        }
        self.shared.violation(index, violation, text);
        self.close(index);
        // Nobody comes any more whose other side has gone.
        if let Some(index) = self.shared.expected.take_if(|expected| *expected == index + 1) {
            self.shared.counts.failed += 1;
            self.close(index);
        }
    }

    pub(super) fn close(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        if link.stage >= Stage::Closing || link.stage == Stage::Waiting {
            return;
        }
        if matches!(link.stage, Stage::Expected | Stage::Connecting | Stage::Securing) {
            self.shared.beginning -= 1;
        }
        if link.stage == Stage::Expected {
            link.stage = Stage::Closed;
            self.shared.expected = None;
            return;
        }
        let connecting = link.stage == Stage::Connecting;
        if !link.released {
            link.channel.end(None, &mut self.shared.pool);
        }
        link.stage = Stage::Closing;
        if connecting {
            return self.driver.cancel(token(Operation::Connect, index, link));
        }
        self.flush(index);
        self.try_free(index);
    }

    /// Frees the descriptor of a closing link once nothing of it is with the kernel.
    pub(super) fn try_free(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        if link.stage != Stage::Closing || link.channel.egress.in_flight() {
            return;
        }
        if !link.channel.egress.is_empty() {
            return self.shared.dirty.insert(index);
        }
        let Some(socket) = link.socket else { return };
        if link.recv_armed {
            return self.driver.shutdown(socket);
        }
        let token = token(Operation::Close, index, link);
        // No operation may follow; the completion makes it Closed.
        link.socket = None;
        self.driver.close(socket, token);
    }

    pub(super) fn arm(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        if let Some(socket) =
            link.socket.filter(|_| link.stage < Stage::Closing && !link.recv_armed)
        {
            link.recv_armed = true;
            let token = token(Operation::Recv, index, link);
            self.driver.recv(socket, token);
        }
    }

    /// Everybody is connected, and now speaks.
    pub(super) fn speak_up(&mut self) {
        let now = self.shared.now();
        for index in 0..self.links.len() as u32 {
            let link = &mut self.links[index as usize];
            if link.stage != Stage::Silent {
                continue;
            }
            self.shared.counts.up -= 1;
            link.deadline_ns = now + BEGIN_TIMEOUT_NS;
            link.begun_ns = now;
            let outcome = introduce(&mut self.links, &mut self.shared, index);
            self.shared.dirty.insert(index);
            self.settle(index, outcome);
        }
    }
}

/// The link can carry MSRP, or BFCP.
fn secured(links: &mut [Link], shared: &mut Shared, index: u32) -> Result<(), Failure> {
    let now = shared.now();
    let link = &mut links[index as usize];
    shared.beginning -= 1;
    link.deadline_ns = u64::MAX;
    if let Some(suite) = link.channel.suite() {
        let latency = now - link.begun_ns;
        shared.figures.handshake.saturating_record(latency);
        shared.figures.suite = Some(suite);
        shared.counts.handshakes += 1;
    }
    match shared.plan.work {
        Work::Handshakes => {
            link.stage = Stage::Ready;
            link.channel.end(None, &mut shared.pool);
            link.released = true;
            link.deadline_ns = now + GOODBYE_TIMEOUT_NS;
            Ok(())
        }
        Work::Relay { .. } | Work::Floors(_) if shared.plan.burst => {
            link.stage = Stage::Silent;
            shared.counts.up += 1;
            Ok(())
        }
        Work::Relay { .. } | Work::Floors(_) => {
            link.deadline_ns = now + BEGIN_TIMEOUT_NS;
            introduce(links, shared, index)
        }
        Work::Raw | Work::Idle | Work::Bulk { .. } | Work::Gateway(_) | Work::Fax(_) => {
            link.stage = Stage::Ready;
            shared.counts.up += 1;
            Ok(())
        }
    }
}

/// Says AUTH, or Hello.
fn introduce(links: &mut [Link], shared: &mut Shared, index: u32) -> Result<(), Failure> {
    let link = &mut links[index as usize];
    link.stage = Stage::Introducing;
    let number = shared.first + index;
    match &shared.plan.work {
        Work::Relay { uri, .. } => {
            let mut registration = Registration::new(shared.plan.own_uri(number));
            let request = registration.begin(uri);
            link.registration = Some(Box::new(registration));
            link.channel.append(request.as_bytes(), &mut shared.pool)
        }
        Work::Floors(floors) => {
            let brought = link.invitation.as_deref().and_then(|it| Place::of(it, floors));
            let place = brought.unwrap_or_else(|| shared.plan.place(floors, number));
            let mut participant = Participant::new(place, shared.plan.cycles(floors));
            shared.scratch.clear();
            participant.greet(&mut shared.scratch);
            link.participant = Some(Box::new(participant));
            link.channel.append(&shared.scratch, &mut shared.pool)
        }
        Work::Raw
        | Work::Bulk { .. }
        | Work::Idle
        | Work::Handshakes
        | Work::Gateway(_)
        | Work::Fax(_) => Ok(()),
    }
}

/// Takes what has arrived.
fn take(
    links: &mut [Link],
    shared: &mut Shared,
    index: u32,
    bytes: &mut [u8],
) -> Result<(), Failure> {
    let channel = &mut links[index as usize].channel;
    if channel.is_plain() {
        return Worker::hear(links, shared, index, bytes);
    }
    let mut carry = channel.take_carry();
    let input = joined(&mut carry, bytes);
    let taken = take_sealed(links, shared, index, input)?;
    links[index as usize].channel.keep(&input[taken..])
}

fn take_sealed(
    links: &mut [Link],
    shared: &mut Shared,
    index: u32,
    input: &mut [u8],
) -> Result<usize, Failure> {
    let mut at = 0;
    loop {
        let channel = &mut links[index as usize].channel;
        match channel.open(input, &mut at, &mut shared.pool, &mut shared.scratch)? {
            Opened::NeedInput => return Ok(at),
            Opened::Secured => secured(links, shared, index)?,
            Opened::Text(range) => Worker::hear(links, shared, index, &input[range])?,
        }
    }
}

/// What is the listener's and no link's.
pub(super) fn listening() -> Token {
    Token::new(Operation::Accept, Key { index: Key::INDEX_MAX, generation: 0 })
}

fn token(operation: Operation, index: u32, link: &Link) -> Token {
    Token::new(operation, Key { index, generation: link.generation })
}
