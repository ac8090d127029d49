//! The MSRP switch: each SEND of a member goes to every other member of its Context as a request of
//! ours, piece by piece as it arrives, without waiting for the whole message.

use mrfp_io::Key;
use mrfp_protocol::msrp::{Continuation, FailureReport, Head, Method, Piece, Start};

use crate::carry::CarryBuffer;
use crate::connection::Life;
use crate::delivery::Outbound;
use crate::incoming::{Forward, Identifier, Incoming, Transaction};
use crate::plane::Plane;
use crate::request::{MESSAGE_LINES_BYTES_MAX, keep_lines, message_lines};

/// RFC 4975 section 7.1: a chunk longer than this has `*` as its range-end, so that it may be
/// interrupted.
const INTERRUPTIBLE_BYTES_MIN: usize = 2_048;
/// Send buffers that must be free per member before a message is begun: its head and body may start
/// in one and end in the next.
const BUFFERS_PER_MEMBER_MIN: usize = 2;

impl Plane {
    /// Takes one piece from the framer.
    pub(crate) fn piece(&mut self, key: Key, piece: &Piece<'_>) {
        if let Some(head) = &piece.head {
            let incoming = self.begin(key, head);
            let Some(connection) = self.connections.get_mut(key) else { return };
            connection.incoming = incoming;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        match (std::mem::replace(&mut connection.incoming, Incoming::Idle), piece.end) {
            (Incoming::Forward(forward), _) => self.forward(key, forward, piece),
            (Incoming::Empty(transaction), Some(_)) => self.answer(key, &transaction, 200),
            (Incoming::Refused(message), Some(Continuation::Last | Continuation::Abort)) => {
                self.close_message(key, message);
            }
            (waiting, None) => connection.incoming = waiting,
            (Incoming::Idle | Incoming::Discard | Incoming::Refused(_), Some(_)) => {}
        }
    }

    /// Decides from the head what happens to a message.
    fn begin(&mut self, key: Key, head: &Head<'_>) -> Incoming {
        let method = match head.start {
            Start::Request(method) => method,
            Start::Response(status, _) => {
                self.answered(key, status, head);
                return Incoming::Discard;
            }
        };
        match method {
            // RFC 4975 section 7.1.2: a REPORT is never answered.
            Method::Report => {
                self.reported(key, head);
                return Incoming::Discard;
            }
            Method::Send => self.metrics.messages_received += 1,
            Method::Auth | Method::Nickname | Method::Unknown(_) => {}
        }
        let refusal = match self.session(key, head) {
            Ok(session) => match self.accept(key, session, head, method) {
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

    /// A REPORT has come in. Between two parties it is for the other one; what the members of a
    /// conference report stays here (RFC 7701 section 6.3).
    fn reported(&mut self, key: Key, head: &Head<'_>) {
        self.metrics.reports_received += 1;
        let Some(session) = self.session_named(key, head.to_path.first()) else { return };
        let context = self.terminations.get(session).and_then(|t| self.contexts.get(t.context));
        let Some(context) = context.filter(|context| context.is_end_to_end()) else { return };
        let other = context.members.iter().copied().find(|&member| member != session);
        if let Some(other) = other {
            self.pass_report(other, head);
        }
    }

    /// What to do with a request of a bound member.
    fn accept(
        &mut self,
        key: Key,
        session: Key,
        head: &Head<'_>,
        method: Method<'_>,
    ) -> Result<Incoming, u16> {
        match method {
            Method::Send => {}
            // RFC 7701 section 7.4: nicknames are not on offer here.
            Method::Nickname => return Err(403),
            Method::Auth | Method::Unknown(_) | Method::Report => return Err(501),
        }
        let termination = self.terminations.get_mut(session).ok_or(481u16)?;
        termination.statistics.messages_received += 1;
        let transaction = Transaction {
            session,
            id: Identifier::new(head.transaction_id).ok_or(400u16)?,
            failure_report: head.failure_report,
        };
        if head.message_id.is_none() {
            return Err(400);
        }
        if head.content_type.is_none() {
            return Ok(Incoming::Empty(transaction));
        }
        if !termination.may_send() {
            return Err(403);
        }
        // What could not be copied to every member is better refused than begun.
        let context = self.contexts.get(termination.context).ok_or(481u16)?;
        let end_to_end = context.is_end_to_end();
        if self.send_buffers.available() < BUFFERS_PER_MEMBER_MIN * context.members.len() {
            return Err(413);
        }
        let message = self.open_message(key, session, head)?;
        let status = self.messages.get(message).map_or(413, |message| message.status);
        if status != 200 {
            self.answer(key, &transaction, status);
            return Ok(Incoming::Refused(message));
        }
        let start = head.byte_range.map_or(1, |range| range.start);
        let lines = &mut self.scratch.lines;
        lines.clear();
        keep_lines(head.header_lines, end_to_end, lines);
        Ok(Incoming::Forward(Forward {
            transaction,
            message,
            success_report: head.success_report && !end_to_end,
            start,
            next: start,
            total: head.byte_range.and_then(|range| range.total),
            lines: None,
        }))
    }

    /// Passes a piece of a SEND on to the other members.
    fn forward(&mut self, key: Key, mut forward: Forward, piece: &Piece<'_>) {
        let session = forward.transaction.session;
        let sender = self.terminations.get_mut(session);
        let context = sender.as_ref().and_then(|sender| self.contexts.get(sender.context));
        let message = self.messages.get_mut(forward.message);
        let (Some(sender), Some(context), Some(message)) = (sender, context, message) else {
            return self.give_back(forward.lines);
        };
        sender.statistics.bytes_received += piece.body.len() as u64;
        let (sender_id, context_key) = (sender.id, sender.context);
        let end_to_end = context.is_end_to_end();
        let hashed = self.identifiers.message(sender_id, message.id.as_bytes());
        let sent_id = message.id;
        let id = if end_to_end { sent_id.as_bytes() } else { hashed.as_bytes() };
        let mut memory = [0; MESSAGE_LINES_BYTES_MAX];
        let whole = piece.head.is_some() && piece.end == Some(Continuation::Last);
        let start = forward.next;
        let end =
            (whole && piece.body.len() <= INTERRUPTIBLE_BYTES_MIN).then(|| end_of(&forward, piece));
        let total = if whole { Some(end_of(&forward, piece)) } else { forward.total };
        let message_lines = message_lines(&mut memory, id, start, end, total);
        // A sender may announce to begin at 2^64 - 1.
        forward.next = forward.next.saturating_add(piece.body.len() as u64);
        message.next = forward.next;
        message.total = message.total.or(total);
        message.received_ns = self.now_ns;
        if !piece.body.is_empty() || piece.end.is_some() {
            let scratch_lines = std::mem::take(&mut self.scratch.lines);
            let lines = match &forward.lines {
                Some(kept) => kept.bytes(),
                None => scratch_lines.as_slice(),
            };
            let outbound = Outbound {
                message: forward.message,
                sender: session,
                epoch: message.epoch,
                addressee: message.addressee,
                failure_report: message.failure_report,
                start,
                message_lines,
                lines,
                body: piece.body,
                end: piece.end,
            };
            let reached = self.deliver(context_key, &outbound);
            self.scratch.lines = scratch_lines;
            self.hold_back(key, context_key);
            if let Err(status) = self.count_recipients(forward.message, context_key, reached) {
                return self.refuse_forward(key, forward, piece.end, status);
            }
        }
        match piece.end {
            Some(end) => self.finish(key, forward, end),
            None => self.keep_forward(key, forward),
        }
    }

    /// Whether a piece has reached somebody of those the message is for.
    fn count_recipients(&mut self, key: Key, context_key: Key, reached: u32) -> Result<(), u16> {
        let context = self.contexts.get_mut(context_key).ok_or(481u16)?;
        let Some(message) = self.messages.get_mut(key) else { return Ok(()) };
        let recipients = *message.recipients.get_or_insert(reached);
        let nobody = reached == 0 && (recipients > 0 || context.is_between_parties());
        if !nobody {
            return Ok(());
        }
        if message.status == 200 {
            message.status = 408;
            context.statistics.messages_undelivered += 1;
        }
        Err(message.status)
    }

    /// The body goes on in a later receive: keeps the lines its next chunk may need.
    fn keep_forward(&mut self, key: Key, mut forward: Forward) {
        if forward.lines.is_none() {
            let Some(mut kept) = self.carry_buffers.take() else {
                self.metrics.connections_refused += 1;
                self.abandon_message(key, forward.message, 413);
                return self.refuse_forward(key, forward, None, 413);
            };
            assert_eq!(kept.append(&self.scratch.lines), self.scratch.lines.len());
            forward.lines = Some(kept);
        }
        match self.connections.get_mut(key) {
            Some(connection) if connection.life == Life::Open => {
                connection.incoming = Incoming::Forward(forward);
            }
            Some(_) | None => self.give_back(forward.lines),
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
        self.give_back(forward.lines);
        match end {
            Some(Continuation::Last | Continuation::Abort) => {
                self.close_message(key, forward.message);
            }
            Some(Continuation::More) => {}
            None => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.incoming = Incoming::Refused(forward.message);
                }
            }
        }
    }

    /// A member may not send any more: what it is in the middle of goes no further.
    pub(crate) fn silence(&mut self, key: Key, session: Key) {
        self.give_up_messages(key, session);
        let Some(connection) = self.connections.get_mut(key) else { return };
        match std::mem::replace(&mut connection.incoming, Incoming::Idle) {
            Incoming::Forward(forward) if forward.transaction.session == session => {
                self.refuse_forward(key, forward, None, 403);
            }
            other => connection.incoming = other,
        }
    }

    /// A chunk has come to its end: every member has it queued (or was dropped for not keeping up,
    /// which the controller was told), so the 200 is true.
    fn finish(&mut self, key: Key, forward: Forward, end: Continuation) {
        self.answer(key, &forward.transaction, 200);
        if forward.success_report
            && end != Continuation::Abort
            && forward.next > forward.start
            && let Some(message) = self.messages.get(forward.message)
        {
            let id = message.id;
            let total =
                if end == Continuation::Last { Some(forward.next - 1) } else { forward.total };
            let session = forward.transaction.session;
            self.report(session, &id, forward.start, forward.next - 1, total, 200);
        }
        if end != Continuation::More {
            self.close_message(key, forward.message);
        }
        self.give_back(forward.lines);
    }

    fn give_back(&mut self, lines: Option<CarryBuffer>) {
        lines.into_iter().for_each(|buffer| self.carry_buffers.put(buffer));
    }
}

/// Last byte of a message that lies whole in one piece.
fn end_of(forward: &Forward, piece: &Piece<'_>) -> u64 {
    forward.next.saturating_add(piece.body.len() as u64).saturating_sub(1)
}
