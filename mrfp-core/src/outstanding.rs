//! Requests of ours that wait for their answer (RFC 4975 section 7.1.1), and what becomes of a
//! message when the answer is an error, or none comes.

use std::collections::VecDeque;

use mrfp_io::Key;
use mrfp_protocol::msrp::{FailureReport, Head, TransactionId};

use crate::config::{OUTSTANDING_PARTIAL_MAX, TRANSACTION_TIMEOUT_NS};
use crate::connection::{Connection, Life, OpenChunk};
use crate::egress::{Left, Position};
use crate::incoming::Incoming;
use crate::mp::ReleaseCause;
use crate::plane::{Ending, Plane};
use crate::termination::Stage;

/// Entries of queue memory a quiet connection keeps.
const QUEUE_CAPACITY_KEPT: usize = 8;

/// A SEND that is on its way to a receiver, or there and unanswered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outstanding {
    pub(crate) transaction: TransactionId,
    /// The receiving Termination.
    pub(crate) receiver: Key,
    pub(crate) message: Key,
    /// First byte of the message in it, 1-based.
    pub(crate) start: u64,
    /// The byte behind the last one.
    pub(crate) next: u64,
    /// Failure-Report: partial. The receiver answers errors only, so silence means nothing.
    pub(crate) partial: bool,
    /// Where its last byte lies in its lane of the connection; `None` while it is open.
    end: Option<Position>,
    /// When the kernel had taken it all.
    left_ns: Option<u64>,
}

/// The unanswered requests of one connection, in the order they were sent.
#[derive(Default, Debug)]
pub(crate) struct OutstandingRequests {
    queue: VecDeque<Outstanding>,
}

/// A part of a message one receiver has not got: from `start` to before `next`.
#[derive(Clone, Copy, Debug)]
struct Undelivered {
    message: Key,
    receiver: Key,
    start: u64,
    next: u64,
}

impl OutstandingRequests {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the answer to one of them is yet to come.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.queue.iter().any(|request| !request.partial)
    }

    /// The request whose end has not been queued; it is the last.
    fn open(&mut self) -> Option<&mut Outstanding> {
        self.queue.back_mut().filter(|last| last.end.is_none())
    }

    /// More of the body of the open request has been queued.
    pub(crate) fn extend(&mut self, bytes: usize) {
        if let Some(open) = self.open() {
            open.next = open.next.saturating_add(bytes as u64);
        }
    }

    /// The open request ends at `position`.
    pub(crate) fn close(&mut self, position: Position) {
        if let Some(open) = self.open() {
            open.end = Some(position);
        }
    }

    /// Takes out the request that is answered. Answers come in the order of the requests.
    fn take(&mut self, transaction_id: &[u8]) -> Option<Outstanding> {
        let at = self.queue.iter().position(|o| o.transaction.as_bytes() == transaction_id)?;
        self.queue.remove(at)
    }

    /// Takes out everything else of a message that one receiver was to get.
    fn take_rest(&mut self, undelivered: &mut Undelivered) -> u32 {
        let before = self.queue.len();
        self.queue.retain(|other| {
            let same =
                other.message == undelivered.message && other.receiver == undelivered.receiver;
            if same {
                undelivered.start = undelivered.start.min(other.start);
                undelivered.next = undelivered.next.max(other.next);
            }
            !same
        });
        (before - self.queue.len()) as u32
    }

    /// Notes what has left by now.
    fn note_left(&mut self, left: Left, now_ns: u64) {
        for request in &mut self.queue {
            if request.end.is_some_and(|end| left.reaches(end)) {
                request.left_ns.get_or_insert(now_ns);
            }
        }
    }

    /// The next request whose time is over; what is large leaves later than what overtakes it.
    fn take_overdue(&mut self, now_ns: u64) -> Option<Outstanding> {
        let at = self.queue.iter().position(|request| {
            request.left_ns.is_some_and(|left_ns| now_ns - left_ns >= TRANSACTION_TIMEOUT_NS)
        })?;
        self.queue.remove(at)
    }

    /// Gives back the memory a burst has left behind, once it is over.
    pub(crate) fn shrink(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > QUEUE_CAPACITY_KEPT {
            self.queue = VecDeque::new();
        }
    }
}

impl Outstanding {
    /// A request whose head and first bytes have been queued; all of it, where it has an end.
    pub(crate) fn new(
        transaction: TransactionId,
        receiver: Key,
        message: Key,
        start: u64,
        bytes: usize,
        end: Option<Position>,
    ) -> Self {
        let next = start.saturating_add(bytes as u64);
        Self { transaction, receiver, message, start, next, partial: false, end, left_ns: None }
    }
}

impl Plane {
    /// Remembers a request that has been queued on a connection, as far as its sender wants to know
    /// of failures.
    pub(crate) fn expect_answer(
        &mut self,
        key: Key,
        mut request: Outstanding,
        failure_report: FailureReport,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match failure_report {
            FailureReport::No => return,
            FailureReport::Partial => request.partial = true,
            FailureReport::Yes => {}
        }
        let queue = &mut connection.outstanding.queue;
        let mut forgotten = None;
        if request.partial && queue.len() >= OUTSTANDING_PARTIAL_MAX {
            // No answer is the good one here: the oldest makes room.
            if !queue.front().is_some_and(|oldest| oldest.partial) {
                return;
            }
            forgotten = queue.pop_front();
        }
        queue.push_back(request);
        if let Some(message) = self.messages.get_mut(request.message) {
            message.outstanding += 1;
        }
        if let Some(forgotten) = forgotten {
            self.answered_well(forgotten.message);
        }
    }

    /// Takes the answer that nearly always comes next: 200 to the oldest request, with the paths of its
    /// session to the letter. Such a one need not be parsed, which would cost more than the request has.
    /// Says how long it is; `None`: nothing has been done, whatever stands there.
    pub(crate) fn answered_as_expected(&mut self, key: Key, bytes: &[u8]) -> Option<usize> {
        let connection = self.connections.get_mut(key)?;
        let oldest = connection.outstanding.queue.front()?;
        let termination = self.terminations.get(oldest.receiver)?;
        let is_bound = connection.life == Life::Open && termination.stage == Stage::Bound;
        if !is_bound || !connection.framer.is_between_messages() {
            return None;
        }
        let id = oldest.transaction.as_bytes();
        let rest = bytes.strip_prefix(b"MSRP ")?.strip_prefix(id)?.strip_prefix(b" 200")?;
        let rest = rest.strip_prefix(b" OK").unwrap_or(rest);
        let rest = rest
            .strip_prefix(b"\r\nTo-Path: ")?
            .strip_prefix(termination.local_uri())?
            .strip_prefix(b"\r\nFrom-Path: ")?
            .strip_prefix(termination.remote_first())?
            .strip_prefix(b"\r\n-------")?
            .strip_prefix(id)?
            .strip_prefix(b"$\r\n")?;
        let request = connection.outstanding.queue.pop_front()?;
        let session = request.receiver;
        self.count_received(session, |received| received.count_response(200));
        self.answered_well(request.message);
        self.relax(key);
        Some(bytes.len() - rest.len())
    }

    /// A response has come in: to one of our requests, or to none we know of.
    pub(crate) fn answered(&mut self, key: Key, status: u16, head: &Head<'_>) {
        if status != 200 {
            self.metrics.responses_error_received += 1;
        }
        let Some(session) = self.session_named(key, head.to_path.first()) else { return };
        self.count_received(session, |received| received.count_response(status));
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut request = connection.outstanding.take(head.transaction_id);
        let mut asked_on = key;
        if request.is_none()
            && let Some(other) = self.other_connection(session, key)
            && let Some(connection) = self.connections.get_mut(other)
        {
            request = connection.outstanding.take(head.transaction_id);
            asked_on = other;
        }
        let Some(connection) = self.connections.get(key) else { return };
        // A chunk whose answers nobody waits for may be open all the same.
        let open = connection.outgoing.filter(|open| {
            open.receiver == session && open.transaction.as_bytes() == head.transaction_id
        });
        match (status, request, open) {
            (200, Some(request), _) => self.answered_well(request.message),
            (200, None, _) => {}
            (_, Some(request), _) => self.fail(key, &request, status),
            (_, None, Some(open)) => self.decline(key, open.receiver, open.message),
            (_, None, None) => {}
        }
        // RFC 4975 section 5.4: the session is gone at the other end, or not to be had here.
        if matches!(status, 481 | 506) {
            self.release_session(session, ReleaseCause::PeerClosed, Ending::Graceful);
        }
        self.relax(asked_on);
    }

    fn answered_well(&mut self, message_key: Key) {
        if let Some(message) = self.messages.get_mut(message_key) {
            message.outstanding -= 1;
        }
        self.settle_message(message_key);
    }

    /// RFC 4975 section 7.1.1: no answer within 30 seconds is a failure.
    pub(crate) fn expire_outstanding(&mut self, key: Key) {
        let now_ns = self.now_ns;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.outstanding.queue.is_empty() {
            return;
        }
        let left = connection.egress.left();
        connection.outstanding.note_left(left, now_ns);
        while let Some(request) = self
            .connections
            .get_mut(key)
            .and_then(|connection| connection.outstanding.take_overdue(now_ns))
        {
            if request.partial {
                self.answered_well(request.message);
            } else {
                self.metrics.transactions_timeout += 1;
                self.fail(key, &request, 408);
            }
        }
        self.relax(key);
    }

    /// A session has ended with requests unsent or unanswered: nobody can say whether they arrived.
    pub(crate) fn fail_session(&mut self, key: Key, session: Key) {
        while let Some(connection) = self.connections.get_mut(key) {
            let queue = &mut connection.outstanding.queue;
            let Some(at) = queue.iter().position(|request| request.receiver == session) else {
                return;
            };
            let Some(request) = queue.remove(at) else { return };
            self.fail(key, &request, 408);
        }
    }

    /// A connection is left in good order on which no answer is awaited: to what only an error would have
    /// answered, silence was the good one.
    pub(crate) fn take_silence_well(&mut self, key: Key) {
        let left = |connection: &mut Connection| connection.outstanding.queue.pop_front();
        while let Some(request) = self.connections.get_mut(key).and_then(left) {
            assert!(request.partial);
            self.answered_well(request.message);
        }
    }

    /// A receiver has not got a request of ours (which has been taken out), and will not get the
    /// rest of the message.
    fn fail(&mut self, key: Key, request: &Outstanding, status: u16) {
        let mut undelivered = Undelivered {
            message: request.message,
            receiver: request.receiver,
            start: request.start,
            next: request.next,
        };
        let mut requests = 1;
        for key in [Some(key), self.other_connection(request.receiver, key)].into_iter().flatten() {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            requests += connection.outstanding.take_rest(&mut undelivered);
        }
        self.decline(self.home(key), request.receiver, request.message);
        let Some(message) = self.messages.get_mut(request.message) else { return };
        message.outstanding -= requests;
        message.failed += 1;
        // Once for a message, as each recipient fails once; it may have been refused before.
        if message.recipients == Some(message.failed) {
            if message.status == 200 {
                message.status = status;
            }
            self.undelivered(&undelivered, status);
        }
        self.settle_message(request.message);
    }

    /// RFC 4975 section 7.1: what is under way ends with `#` and goes no further.
    pub(crate) fn decline(&mut self, key: Key, receiver: Key, message: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let is_open = |open: &OpenChunk| open.receiver == receiver && open.message == message;
        let open = connection.outgoing.as_ref().is_some_and(is_open);
        if self.messages.get(message).is_some_and(|message| message.in_progress) {
            connection.declined.retain(|&(_, declined)| {
                self.messages.get(declined).is_some_and(|message| message.in_progress)
            });
            if !connection.declined.contains(&(receiver, message)) {
                connection.declined.push((receiver, message));
            }
        }
        if open {
            self.close_chunk(key);
        }
    }

    /// None of its recipients has got a message. Its sender learns that: from the answer to the
    /// chunk it is sending, and for what has been answered with 200 from a REPORT.
    fn undelivered(&mut self, undelivered: &Undelivered, status: u16) {
        let Some(message) = self.messages.get(undelivered.message) else { return };
        let (sender, total) = (message.sender, message.total);
        let failure_report = message.failure_report;
        let Some(termination) = self.terminations.get(sender) else { return };
        let connection_key = termination.connection;
        if let Some(context) = self.contexts.get_mut(termination.context) {
            context.statistics_mut().messages_undelivered += 1;
        }
        let mut next = undelivered.next;
        let mut answered = false;
        for key in [connection_key, self.former_connection(sender)].into_iter().flatten() {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            let Incoming::Forward(forward) = &connection.incoming else { continue };
            if forward.message != undelivered.message {
                continue;
            }
            next = next.min(forward.start);
            if let Incoming::Forward(forward) =
                std::mem::replace(&mut connection.incoming, Incoming::Idle)
            {
                answered = true;
                self.refuse_forward(key, forward, None, status);
            }
        }
        let unreported = undelivered.start < next || !answered;
        if unreported && failure_report != FailureReport::No {
            // A range has at least one byte (RFC 4975 section 9). Where an empty end was refused, what
            // it was to complete has failed.
            let start = if next > undelivered.start { undelivered.start } else { 1 };
            self.report(undelivered.message, start, next.saturating_sub(1), total, status);
        }
    }
}
