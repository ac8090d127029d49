//! The MSRP switch: each SEND of a member goes to every other member of its Context as a request of
//! ours, piece by piece as it arrives, without waiting for the whole message.

use mrfp_io::Key;
use mrfp_protocol::cpim::{ContentClass, accepts};
use mrfp_protocol::msrp::{ByteRange, Continuation, FailureReport, Head, Method, Piece, Start};

use crate::carry::CarryBuffer;
use crate::connection::Life;
use crate::context::Context;
use crate::incoming::{Forward, Identifier, Incoming, Transaction};
use crate::plane::Plane;
use crate::request::keep_lines;
use crate::room::{Opening, Passage, Route};
use crate::termination::Termination;

/// Send buffers that must be free per member before a message is begun: its head and body may start
/// in one and end in the next.
pub(crate) const BUFFERS_PER_MEMBER_MIN: usize = 2;

impl Plane {
    /// Takes one piece from the framer.
    pub(crate) fn piece(&mut self, key: Key, piece: &Piece<'_>) {
        let incoming = match (&piece.head, self.connections.get_mut(key)) {
            (Some(head), _) => self.begin(key, head, piece),
            (None, Some(waiting)) => std::mem::replace(&mut waiting.incoming, Incoming::Idle),
            (None, None) => return,
        };
        match (incoming, piece.end) {
            (Incoming::Forward(forward), _) => self.forward(key, forward, piece),
            (Incoming::Empty(transaction), Some(_)) => self.answer(key, &transaction, 200),
            (Incoming::Refused(message), Some(Continuation::Last | Continuation::Abort)) => {
                self.close_message(key, message);
            }
            (waiting, None) => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.incoming = waiting;
                }
            }
            (Incoming::Idle | Incoming::Discard | Incoming::Refused(_), Some(_)) => {}
        }
    }

    /// Decides from the head what happens to a message.
    fn begin(&mut self, key: Key, head: &Head<'_>, piece: &Piece<'_>) -> Incoming {
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
        let session = self.session(key, head);
        let decided = session.and_then(|session| match method {
            Method::Nickname => Err(self.nickname(session, head)),
            Method::Send if self.pass_whole(key, session, head, piece) => Ok(Incoming::Idle),
            _ => self.accept(key, session, head, method),
        });
        let status = match decided {
            Ok(incoming) => return incoming,
            Err(status) => status,
        };
        if let Ok(session) = session {
            self.count_request(session, head, method);
        }
        // RFC 7701 section 7.1: a NICKNAME has no Failure-Report to go by.
        if head.failure_report != FailureReport::No || method == Method::Nickname {
            // RFC 4975 section 7.2: to the previous hop for a SEND, all the way back for others.
            let to = match method {
                Method::Send => head.from_path.first(),
                Method::Report | Method::Auth | Method::Nickname | Method::Unknown(_) => {
                    head.from_path.0
                }
            };
            self.respond(key, session.ok(), head.transaction_id, status, to, head.to_path.first());
        }
        Incoming::Discard
    }

    /// Counts a request that is answered from its head.
    fn count_request(&mut self, session: Key, head: &Head<'_>, method: Method<'_>) {
        let has_body = head.content_type.is_some();
        let class = ContentClass::of_bare(head);
        self.count_received(session, |received| match method {
            Method::Send if has_body => received.count_sends(class, 1),
            Method::Send => received.send_empty += 1,
            Method::Report => received.reports += 1,
            Method::Nickname => received.nicknames += 1,
            Method::Auth => received.auths += 1,
            Method::Unknown(_) => received.others += 1,
        });
    }

    /// Counts a chunk that is taken, once its kind is known, or at its end.
    fn count_chunk(&mut self, forward: &mut Forward, at_end: bool) {
        let route = self.routes.get(forward.message);
        if forward.counted || (route.is_none() && !at_end) {
            return;
        }
        forward.counted = true;
        let class = route.map_or(ContentClass::Chat, |route| route.class);
        self.count_received(forward.transaction.session, |received| received.count_sends(class, 1));
    }

    /// A REPORT has come in. Between two parties it is for the other one; what the members of a
    /// conference report stays here (RFC 7701 section 6.3).
    fn reported(&mut self, key: Key, head: &Head<'_>) {
        self.metrics.reports_received += 1;
        let Some(session) = self.session_named(key, head.to_path.first()) else { return };
        self.count_received(session, |received| received.reports += 1);
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
            Method::Auth | Method::Nickname | Method::Unknown(_) | Method::Report => {
                return Err(501);
            }
        }
        let is_empty = head.content_type.is_none() && !self.continues_message(key, session, head);
        let termination = self.terminations.get_mut(session).ok_or(481u16)?;
        termination.statistics.messages_received += 1;
        let transaction = Transaction {
            session,
            id: Identifier::new(head.transaction_id).ok_or(400u16)?,
            failure_report: head.failure_report,
        };
        // Total and start of a Byte-Range need not agree with what comes, but with each other.
        let beyond = |range: ByteRange| {
            range.total.is_some_and(|total| range.start > total.saturating_add(1))
        };
        if head.message_id.is_none() || head.byte_range.is_some_and(beyond) {
            return Err(400);
        }
        if is_empty {
            self.count_received(session, |received| received.send_empty += 1);
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
        self.acceptable(context, session, head)?;
        let message = self.open_message(key, session, head)?;
        if self.is_received_beside(session, key, message) {
            // One of two chunks that come at once would be written into the other.
            return Err(413);
        }
        let total = head.byte_range.and_then(|range| range.total).unwrap_or(0);
        if self.messages.get(message).is_some_and(|message| total > message.size_bytes_max) {
            // A later chunk may be the first to say so: who has got a part must not wait for more.
            self.abandon_message(key, message, 413);
        }
        let status = self.messages.get(message).map_or(413, |message| message.status);
        if status != 200 {
            self.count_request(session, head, method);
            self.answer(key, &transaction, status);
            return Ok(Incoming::Refused(message));
        }
        let start = head.byte_range.map_or(1, |range| range.start);
        let lines = &mut self.scratch.lines;
        lines.clear();
        // A chunk without a body ends a message, if anything: the chunks before it have said the rest.
        if head.content_type.is_some() {
            keep_lines(head.header_lines, end_to_end, lines);
        }
        Ok(Incoming::Forward(Forward {
            transaction,
            message,
            success_report: head.success_report && !end_to_end,
            start,
            next: start,
            total: head.byte_range.and_then(|range| range.total),
            counted: false,
            lines: None,
        }))
    }

    /// Between two parties: whether the other one takes content like this (RFC 4975 section 8.6).
    /// In a room that is asked for each member.
    pub(crate) fn acceptable(
        &self,
        context: &Context,
        session: Key,
        head: &Head<'_>,
    ) -> Result<(), u16> {
        let Some(content_type) = head.content_type else { return Ok(()) };
        // RFC 4975 section 7.3.1: every endpoint takes these.
        let always = [&b"multipart/mixed"[..], b"multipart/alternative"];
        let takes = |other: &Termination| {
            always.iter().any(|always| accepts(always, content_type))
                || accepts(other.accept_types(), content_type)
        };
        if !context.is_between_parties() {
            return Ok(());
        }
        let mut others = self.others(context, session).peekable();
        if others.peek().is_some() && !others.any(takes) { Err(415) } else { Ok(()) }
    }

    /// The largest message the room passes on, or the other one takes (RFC 4975 section 8.7).
    pub(crate) fn size_bytes_max(&self, context: &Context, session: Key) -> u64 {
        if let Some(room) = &context.room {
            return room.message_bytes_max;
        }
        let max = self.others(context, session).map(|other| other.size_bytes_max).max();
        max.unwrap_or(u64::MAX)
    }

    fn others<'a>(
        &'a self,
        context: &'a Context,
        session: Key,
    ) -> impl Iterator<Item = &'a Termination> {
        let others = context.members.iter().filter(move |&&member| member != session);
        others.filter_map(|&member| self.terminations.get(member))
    }

    /// Passes a piece of a SEND on to those it is for.
    fn forward(&mut self, key: Key, mut forward: Forward, piece: &Piece<'_>) {
        let session = forward.transaction.session;
        let bytes = piece.body.len() as u64;
        if let Some(sender) = self.terminations.get_mut(session) {
            sender.statistics.bytes_received += bytes;
        }
        self.count_received(session, |received| received.bytes += bytes);
        let end = forward.next.saturating_add(bytes).saturating_sub(1);
        if self.messages.get(forward.message).is_some_and(|m| end > m.size_bytes_max) {
            self.abandon_message(key, forward.message, 413);
            return self.refuse_forward(key, forward, piece.end, 413);
        }
        let opening = self.route_message(&forward, piece);
        self.count_chunk(&mut forward, false);
        let taken = match opening {
            Opening::Open { taken } => taken,
            Opening::Held => {
                self.note_progress(&mut forward, piece);
                return match piece.end {
                    // Nobody has got it yet; its success is reported when somebody has.
                    Some(end) => {
                        if let Some(message) = self.messages.get_mut(forward.message) {
                            message.held_success_report |= forward.success_report;
                        }
                        forward.success_report = false;
                        self.finish(key, forward, end);
                    }
                    None => self.keep_forward(key, forward),
                };
            }
            Opening::Refused(status) => {
                if let Some(message) = self.messages.get_mut(forward.message) {
                    message.status = status;
                }
                return self.refuse_forward(key, forward, piece.end, status);
            }
        };
        let Some(message) = self.messages.get_mut(forward.message) else {
            return self.give_back(forward.lines);
        };
        let held = message.held.take();
        let held_success_report = held.is_some() && message.held_success_report;
        let begun = message.recipients.is_some();
        let checked_bytes = self.routes.get(forward.message).map_or(0, Route::checked_bytes);
        let mut at = if held.is_some() { 1 } else { forward.next };
        let mut body = &piece.body[taken..];
        if begun && at <= checked_bytes {
            // The head has been checked and passed on; nobody gets another in its place.
            let passed_on = body.len().min((checked_bytes + 1 - at) as usize);
            at += passed_on as u64;
            body = &body[passed_on..];
        }
        self.note_progress(&mut forward, piece);
        let front = held.as_ref().map_or(&b""[..], CarryBuffer::bytes);
        let last = piece.end == Some(Continuation::Last);
        let end = at.saturating_add((front.len() + body.len()) as u64).saturating_sub(1);
        let total = if last { Some(end) } else { forward.total };
        let passage = Passage { at, front, body, total };
        let mut passed_on = Ok(());
        if !passage.is_empty() || piece.end.is_some() {
            let scratch_lines = std::mem::take(&mut self.scratch.lines);
            let lines = match &forward.lines {
                Some(kept) => kept.bytes(),
                None => scratch_lines.as_slice(),
            };
            passed_on = self.pass_on(forward.message, &passage, lines, piece.end);
            self.scratch.lines = scratch_lines;
            if let Some(sender) = self.terminations.get(session) {
                self.hold_back(key, sender.context);
            }
        }
        self.give_back(held);
        if held_success_report && passed_on.is_ok() && forward.start > 1 {
            self.report(forward.message, 1, forward.start - 1, forward.total, 200);
        }
        match (passed_on, piece.end) {
            (Err(status), end) => self.refuse_forward(key, forward, end, status),
            (Ok(()), Some(end)) => self.finish(key, forward, end),
            (Ok(()), None) => self.keep_forward(key, forward),
        }
    }

    /// Another piece of a message has come.
    fn note_progress(&mut self, forward: &mut Forward, piece: &Piece<'_>) {
        // A sender may announce to begin at 2^64 - 1.
        forward.next = forward.next.saturating_add(piece.body.len() as u64);
        if let Some(message) = self.messages.get_mut(forward.message) {
            message.next = forward.next;
            let last = piece.end == Some(Continuation::Last);
            message.total = message.total.or(last.then(|| forward.next.saturating_sub(1)));
            message.received_ns = self.now_ns;
        }
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
        mut forward: Forward,
        end: Option<Continuation>,
        status: u16,
    ) {
        self.count_chunk(&mut forward, true);
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
        for key in [Some(key), self.former_connection(session)].into_iter().flatten() {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            match std::mem::replace(&mut connection.incoming, Incoming::Idle) {
                Incoming::Forward(forward) if forward.transaction.session == session => {
                    self.refuse_forward(key, forward, None, 403);
                }
                other => connection.incoming = other,
            }
        }
    }

    /// A chunk has come to its end: every member has it queued (or was dropped for not keeping up,
    /// which the controller was told), so the 200 is true.
    fn finish(&mut self, key: Key, mut forward: Forward, end: Continuation) {
        self.count_chunk(&mut forward, true);
        self.answer(key, &forward.transaction, 200);
        if forward.success_report && end != Continuation::Abort && forward.next > forward.start {
            let total =
                if end == Continuation::Last { Some(forward.next - 1) } else { forward.total };
            self.report(forward.message, forward.start, forward.next - 1, total, 200);
        }
        if end != Continuation::More {
            self.close_message(key, forward.message);
        }
        self.give_back(forward.lines);
    }

    pub(crate) fn give_back(&mut self, buffer: Option<CarryBuffer>) {
        buffer.into_iter().for_each(|buffer| self.carry_buffers.put(buffer));
    }
}
