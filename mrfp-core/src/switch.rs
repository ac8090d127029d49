//! The MSRP switch: each SEND of a member goes to every other member of its Context as a request of
//! ours, piece by piece as it arrives, without waiting for the whole message.

use mrfp_io::Key;
use mrfp_protocol::msrp::{Continuation, FailureReport, Head, MessageId, Method, Piece, Start};

use crate::config::MESSAGES_IN_PROGRESS_MAX;
use crate::connection::{Life, OpenChunk};
use crate::incoming::{Forward, Identifier, Incoming, MessageInProgress, Transaction};
use crate::mp::ReleaseCause;
use crate::plane::{Ending, Plane};
use crate::request::{EndLine, MESSAGE_LINES_BYTES_MAX, keep_lines, message_lines};

/// RFC 4975 section 7.1: a chunk longer than this has `*` as its range-end, so that it may be
/// interrupted.
const INTERRUPTIBLE_BYTES_MIN: usize = 2_048;
/// Send buffers that must be free per member before a message is begun: its head and body may start
/// in one and end in the next.
const BUFFERS_PER_MEMBER_MIN: usize = 2;

/// A piece of a message on its way to the receivers.
#[derive(Debug)]
struct Outbound<'a> {
    message: MessageId,
    epoch: u64,
    /// Message-ID and Byte-Range.
    message_lines: &'a [u8],
    /// Further lines up to Content-Type, each with its CRLF; empty where no body goes with it.
    lines: &'a [u8],
    body: &'a [u8],
    end: Option<Continuation>,
}

impl Outbound<'_> {
    fn is_last(&self) -> bool {
        match self.end {
            Some(Continuation::Last | Continuation::Abort) => true,
            Some(Continuation::More) | None => false,
        }
    }
}

impl Plane {
    /// Takes one piece from the framer.
    pub(crate) fn piece(&mut self, key: Key, piece: &Piece<'_>) {
        if let Some(head) = &piece.head {
            let incoming = self.begin(key, head);
            let Some(connection) = self.connections.get_mut(key) else { return };
            connection.incoming = incoming;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        match std::mem::replace(&mut connection.incoming, Incoming::Idle) {
            Incoming::Forward(forward) => self.forward(key, forward, piece),
            Incoming::Empty(transaction) => match piece.end {
                Some(_) => self.answer(key, &transaction, 200),
                None => connection.incoming = Incoming::Empty(transaction),
            },
            Incoming::Discard => {
                if piece.end.is_none() {
                    connection.incoming = Incoming::Discard;
                }
            }
            Incoming::Idle => {}
        }
    }

    /// Decides from the head what happens to a message.
    fn begin(&mut self, key: Key, head: &Head<'_>) -> Incoming {
        let method = match head.start {
            Start::Request(method) => method,
            Start::Response(status, _) => {
                if status != 200 {
                    self.refused_by_receiver(key, status, head);
                }
                return Incoming::Discard;
            }
        };
        match method {
            // RFC 4975 section 7.1.2: a REPORT is never answered.
            Method::Report => return Incoming::Discard,
            Method::Send => self.metrics.messages_received += 1,
            Method::Auth | Method::Nickname | Method::Unknown(_) => {}
        }
        let refusal = match self.session(key, head) {
            Ok(termination_key) => match self.accept(termination_key, head, method) {
                Ok(incoming) => return incoming,
                Err(status) => status,
            },
            Err(status) => status,
        };
        if head.failure_report != FailureReport::No {
            // RFC 4975 section 7.2: to the previous hop for a SEND, all the way back for others.
            let to = match method {
                Method::Send => head.from_path.first(),
                Method::Report | Method::Auth | Method::Nickname | Method::Unknown(_) => {
                    head.from_path.0
                }
            };
            self.respond(key, head.transaction_id, refusal, to, head.to_path.first());
        }
        Incoming::Discard
    }

    /// A receiver does not take what it is being sent.
    fn refused_by_receiver(&mut self, key: Key, status: u16, head: &Head<'_>) {
        self.metrics.responses_error_received += 1;
        let Some(session) = self.session_named(key, head.to_path.first()) else { return };
        // RFC 4975 section 5.4: the session is gone at the other end, or not to be had here.
        if matches!(status, 481 | 506) {
            return self.release_session(session, ReleaseCause::PeerClosed, Ending::Graceful);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        // RFC 4975 section 7.1: what is under way ends with `#` and goes no further.
        let Some(open) = connection.outgoing else { return };
        if open.transaction.as_bytes() == head.transaction_id {
            connection.declined = Some((open.receiver, open.message));
            self.close_chunk(key);
        }
    }

    /// What to do with a request of a bound member.
    fn accept(
        &mut self,
        termination_key: Key,
        head: &Head<'_>,
        method: Method<'_>,
    ) -> Result<Incoming, u16> {
        match method {
            Method::Send => {}
            // RFC 7701 section 7.4: nicknames are not on offer here.
            Method::Nickname => return Err(403),
            Method::Auth | Method::Unknown(_) | Method::Report => return Err(501),
        }
        let termination = self.terminations.get_mut(termination_key).ok_or(481u16)?;
        termination.statistics.messages_received += 1;
        let transaction = Transaction {
            session: termination_key,
            id: Identifier::new(head.transaction_id).ok_or(400u16)?,
            failure_report: head.failure_report,
        };
        let message_id = head.message_id.and_then(Identifier::new).ok_or(400u16)?;
        if head.content_type.is_none() {
            return Ok(Incoming::Empty(transaction));
        }
        if !termination.may_send() {
            return Err(403);
        }
        // What could not be copied to every member is better refused than begun.
        let members = self.contexts.get(termination.context).map_or(0, |c| c.members.len());
        if self.send_buffers.available() < BUFFERS_PER_MEMBER_MIN * members {
            return Err(413);
        }
        let start = head.byte_range.map_or(1, |range| range.start);
        let lines = &mut self.scratch.lines;
        lines.clear();
        keep_lines(head.header_lines, lines);
        Ok(Incoming::Forward(Forward {
            transaction,
            message_id,
            success_report: head.success_report,
            start,
            next: start,
            total: head.byte_range.and_then(|range| range.total),
            lines: None,
        }))
    }

    /// Passes a piece of a SEND on to the other members.
    fn forward(&mut self, key: Key, mut forward: Forward, piece: &Piece<'_>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let termination_key = forward.transaction.session;
        let Some(termination) = self.terminations.get_mut(termination_key) else { return };
        termination.statistics.bytes_received += piece.body.len() as u64;
        let Some(context) = self.contexts.get(termination.context) else { return };
        let context_key = termination.context;
        let id = self.identifiers.message(termination.id, forward.message_id.as_bytes());
        let position = connection.messages.iter().position(|message| message.id == id);
        let epoch = position.map_or(context.epoch, |at| connection.messages[at].epoch);
        let mut memory = [0; MESSAGE_LINES_BYTES_MAX];
        let whole = piece.head.is_some() && piece.end == Some(Continuation::Last);
        let end =
            (whole && piece.body.len() <= INTERRUPTIBLE_BYTES_MIN).then(|| end_of(&forward, piece));
        let total = if whole { Some(end_of(&forward, piece)) } else { forward.total };
        let message_lines = message_lines(&mut memory, id.as_bytes(), forward.next, end, total);
        // A sender may announce to begin at 2^64 - 1.
        forward.next = forward.next.saturating_add(piece.body.len() as u64);
        let in_progress = MessageInProgress {
            sender: termination_key,
            id,
            epoch,
            next: forward.next,
            total: forward.total,
        };
        match (piece.end, position) {
            (None | Some(Continuation::More), Some(at)) => connection.messages[at] = in_progress,
            (None | Some(Continuation::More), None) => {
                if connection.messages.len() == MESSAGES_IN_PROGRESS_MAX {
                    return self.refuse_forward(key, forward, piece.end, 413);
                }
                connection.messages.push(in_progress);
            }
            (Some(Continuation::Last | Continuation::Abort), Some(at)) => {
                connection.messages.swap_remove(at);
            }
            (Some(Continuation::Last | Continuation::Abort), None) => {}
        }
        if !piece.body.is_empty() || piece.end.is_some() {
            let scratch_lines = std::mem::take(&mut self.scratch.lines);
            let lines = match &forward.lines {
                Some(kept) => kept.bytes(),
                None => scratch_lines.as_slice(),
            };
            let outbound = Outbound {
                message: id,
                epoch,
                message_lines,
                lines,
                body: piece.body,
                end: piece.end,
            };
            self.deliver(context_key, termination_key, &outbound);
            self.scratch.lines = scratch_lines;
            self.hold_back(key, context_key);
        }
        match piece.end {
            Some(end) => self.finish(key, forward, end),
            None => self.keep_forward(key, forward),
        }
    }

    /// The body goes on in a later receive: keeps the lines its next chunk may need.
    fn keep_forward(&mut self, key: Key, mut forward: Forward) {
        if forward.lines.is_none() {
            let Some(mut kept) = self.carry_buffers.take() else {
                self.metrics.connections_refused += 1;
                self.give_up_messages(key, forward.transaction.session);
                return self.refuse_forward(key, forward, None, 413);
            };
            assert_eq!(kept.append(&self.scratch.lines), self.scratch.lines.len());
            forward.lines = Some(kept);
        }
        match self.connections.get_mut(key) {
            Some(connection) if connection.life == Life::Open => {
                connection.incoming = Incoming::Forward(forward);
            }
            Some(_) | None => {
                forward.lines.into_iter().for_each(|buffer| self.carry_buffers.put(buffer));
            }
        }
    }

    /// Answers a SEND before its end and passes over what is still to come of it.
    pub(crate) fn refuse_forward(
        &mut self,
        key: Key,
        forward: Forward,
        end: Option<Continuation>,
        status: u16,
    ) {
        self.answer(key, &forward.transaction, status);
        forward.lines.into_iter().for_each(|buffer| self.carry_buffers.put(buffer));
        if end.is_none()
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.incoming = Incoming::Discard;
        }
    }

    /// A member may not send any more: what it is in the middle of goes no further.
    pub(crate) fn silence(&mut self, key: Key, termination_key: Key) {
        self.give_up_messages(key, termination_key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        match std::mem::replace(&mut connection.incoming, Incoming::Idle) {
            Incoming::Forward(forward) if forward.transaction.session == termination_key => {
                self.refuse_forward(key, forward, None, 403);
            }
            other => connection.incoming = other,
        }
    }

    /// Gives up the chunk that is open towards a member.
    pub(crate) fn close_chunk(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(open) = connection.outgoing.take() else { return };
        let end_line = EndLine::new(&open.transaction, Some(Continuation::Abort), true);
        if connection.egress.append(&mut self.send_buffers, &[end_line.bytes()]).is_err() {
            self.unserved.push(key);
        }
        self.mark(key);
    }

    /// A chunk has come to its end: every member has it queued (or was dropped for not keeping up,
    /// which the controller was told), so the 200 is true.
    fn finish(&mut self, key: Key, forward: Forward, end: Continuation) {
        self.answer(key, &forward.transaction, 200);
        if forward.success_report && end != Continuation::Abort && forward.next > forward.start {
            let total =
                if end == Continuation::Last { Some(forward.next - 1) } else { forward.total };
            self.report_success(key, &forward, total);
        }
        forward.lines.into_iter().for_each(|buffer| self.carry_buffers.put(buffer));
    }

    /// Copies a piece to every other member of the Context that was there when the message began.
    fn deliver(&mut self, context_key: Key, sender: Key, outbound: &Outbound<'_>) {
        let mut index = 0;
        while let Some(&member) =
            self.contexts.get(context_key).and_then(|context| context.members.get(index))
        {
            index += 1;
            if member == sender {
                continue;
            }
            let Some(termination) = self.terminations.get_mut(member) else { continue };
            if !termination.receives(outbound.epoch) {
                continue;
            }
            let Some(key) = termination.connection else { continue };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            termination.statistics.bytes_sent += outbound.body.len() as u64;
            if connection.declined == Some((member, outbound.message)) {
                connection.declined = connection.declined.filter(|_| !outbound.is_last());
                continue;
            }
            let open = connection.outgoing.take();
            let continues = open
                .is_some_and(|open| open.receiver == member && open.message == outbound.message);
            // Each receiver gets a transaction identifier of its own: a receiver in league with the
            // sender must not learn how the chunks of the others end.
            let own = match open {
                Some(open) if continues => open.transaction,
                Some(_) | None => self.identifiers.transaction(),
            };
            let end_line =
                EndLine::new(&own, outbound.end, !outbound.lines.is_empty() || continues);
            let queued = if continues {
                let parts: &[&[u8]] = &[outbound.body, end_line.bytes()];
                connection.egress.append(&mut self.send_buffers, parts)
            } else {
                self.metrics.messages_sent += 1;
                termination.statistics.messages_sent += 1;
                let interrupt = EndLine::interrupt(open.as_ref());
                let blank: &[u8] = if outbound.lines.is_empty() { b"" } else { b"\r\n" };
                let parts: &[&[u8]] = &[
                    interrupt.bytes(),
                    b"MSRP ",
                    own.as_bytes(),
                    b" SEND\r\n",
                    &termination.request_paths,
                    outbound.message_lines,
                    outbound.lines,
                    blank,
                    outbound.body,
                    end_line.bytes(),
                ];
                connection.egress.append(&mut self.send_buffers, parts)
            };
            if queued.is_err() {
                self.unserved.push(key);
                continue;
            }
            if outbound.end.is_none() {
                connection.outgoing = Some(OpenChunk {
                    receiver: member,
                    message: outbound.message,
                    transaction: own,
                });
            }
            self.mark(key);
            self.check_egress(key);
        }
    }

    /// Reads nothing more from a sender while somebody lags in its Context.
    fn hold_back(&mut self, key: Key, context_key: Key) {
        if self.contexts.get(context_key).is_some_and(|context| context.lagging > 0) {
            self.pause(key, context_key);
        }
        if self.is_pressed() {
            self.press(key);
        }
    }

    /// The sender will not finish its messages: the receivers learn that with `#`.
    pub(crate) fn give_up_messages(&mut self, key: Key, termination_key: Key) {
        let Some(termination) = self.terminations.get(termination_key) else { return };
        let context_key = termination.context;
        let mut index = 0;
        while let Some(connection) = self.connections.get_mut(key) {
            let Some(message) = connection.messages.get(index) else { return };
            if message.sender != termination_key {
                index += 1;
                continue;
            }
            let message = connection.messages.swap_remove(index);
            self.give_up_message(context_key, termination_key, &message);
        }
    }

    fn give_up_message(&mut self, context_key: Key, sender: Key, message: &MessageInProgress) {
        let mut memory = [0; MESSAGE_LINES_BYTES_MAX];
        let message_lines =
            message_lines(&mut memory, message.id.as_bytes(), message.next, None, message.total);
        let outbound = Outbound {
            message: message.id,
            epoch: message.epoch,
            message_lines,
            lines: b"",
            body: b"",
            end: Some(Continuation::Abort),
        };
        self.deliver(context_key, sender, &outbound);
    }
}

/// Last byte of a message that lies whole in one piece.
fn end_of(forward: &Forward, piece: &Piece<'_>) -> u64 {
    forward.next.saturating_add(piece.body.len() as u64).saturating_sub(1)
}
