//! The receiving side of the switch: a piece of a message goes into the egress of each member it is
//! for, as the continuation of the chunk that is open there or as a new one.

use mrfp_io::Key;
use mrfp_protocol::msrp::{Continuation, FailureReport};

use crate::config::CHUNK_RECEPTION_TIMEOUT_NS;
use crate::connection::OpenChunk;
use crate::incoming::Incoming;
use crate::outstanding::Outstanding;
use crate::plane::Plane;
use crate::request::{EndLine, MESSAGE_LINES_BYTES_MAX, message_lines};

/// A piece of a message on its way to the receivers.
#[derive(Debug)]
pub(crate) struct Outbound<'a> {
    pub(crate) message: Key,
    /// The sending Termination.
    pub(crate) sender: Key,
    pub(crate) epoch: u64,
    /// The one member it is for; `None`: all the others.
    pub(crate) addressee: Option<Key>,
    pub(crate) failure_report: FailureReport,
    /// First byte of the piece in the message, 1-based.
    pub(crate) start: u64,
    /// Message-ID and Byte-Range.
    pub(crate) message_lines: &'a [u8],
    /// Further lines up to Content-Type, each with its CRLF; empty where no body goes with it.
    pub(crate) lines: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) end: Option<Continuation>,
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
    /// Copies a piece to every member of the Context it is for; says to how many.
    pub(crate) fn deliver(&mut self, context_key: Key, outbound: &Outbound<'_>) -> u32 {
        let mut reached = 0;
        let mut index = 0;
        while let Some(&member) =
            self.contexts.get(context_key).and_then(|context| context.members.get(index))
        {
            index += 1;
            let is_for_it = member != outbound.sender
                && outbound.addressee.is_none_or(|addressee| addressee == member)
                && self.terminations.get(member).is_some_and(|t| t.receives(outbound.epoch));
            if is_for_it && self.deliver_to(member, outbound) {
                reached += 1;
            }
        }
        reached
    }

    fn deliver_to(&mut self, member: Key, outbound: &Outbound<'_>) -> bool {
        let Some(termination) = self.terminations.get_mut(member) else { return false };
        let Some(key) = termination.connection else { return false };
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let declined = (member, outbound.message);
        if let Some(at) = connection.declined.iter().position(|&other| other == declined) {
            if outbound.is_last() {
                connection.declined.swap_remove(at);
            }
            return false;
        }
        let open = connection
            .outgoing
            .filter(|open| open.receiver == member && open.message == outbound.message);
        let interrupt = if open.is_some() { EndLine::none() } else { connection.interrupt() };
        // Each receiver gets a transaction identifier of its own: a receiver in league with the
        // sender must not learn how the chunks of the others end.
        let own = open.map_or_else(|| self.identifiers.transaction(), |open| open.transaction);
        let has_body = !outbound.lines.is_empty() || open.is_some();
        let end_line = EndLine::new(&own, outbound.end, has_body);
        let queued = if open.is_some() {
            let parts: &[&[u8]] = &[outbound.body, end_line.bytes()];
            connection.egress.append(&mut self.send_buffers, parts)
        } else {
            self.metrics.messages_sent += 1;
            termination.statistics.messages_sent += 1;
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
            return false;
        }
        termination.statistics.bytes_sent += outbound.body.len() as u64;
        connection.outgoing = match outbound.end {
            None => {
                Some(OpenChunk { receiver: member, message: outbound.message, transaction: own })
            }
            Some(_) => None,
        };
        if open.is_none() && has_body {
            let request = Outstanding::new(own, member, outbound.message, outbound.start);
            self.expect_answer(key, request, outbound.failure_report);
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.outstanding.extend(outbound.body.len());
            if outbound.end.is_some() {
                connection.outstanding.close(connection.egress.position());
            }
        }
        self.mark(key);
        self.check_egress(key);
        true
    }

    /// Reads nothing more from a sender while somebody lags in its Context.
    pub(crate) fn hold_back(&mut self, key: Key, context_key: Key) {
        if self.contexts.get(context_key).is_some_and(|context| context.lagging > 0) {
            self.pause(key, context_key);
        }
        if self.is_pressed() {
            self.press(key);
        }
    }

    /// Gives up the chunk that is open towards a receiver.
    pub(crate) fn close_chunk(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.outgoing.is_none() {
            return;
        }
        let end_line = connection.end_chunk(Continuation::Abort);
        if connection.egress.append(&mut self.send_buffers, &[end_line.bytes()]).is_err() {
            self.unserved.push(key);
        }
        self.mark(key);
    }

    /// The sender will not finish its messages: the receivers learn that with `#`.
    pub(crate) fn give_up_messages(&mut self, key: Key, session: Key) {
        let mut index = 0;
        while let Some(connection) = self.connections.get(key) {
            let Some(&message) = connection.messages.get(index) else { return };
            if self.messages.get(message).is_some_and(|message| message.sender != session) {
                index += 1;
                continue;
            }
            self.give_up_message(message);
            self.close_message(key, message);
        }
    }

    /// RFC 7701 section 6.1: messages whose next chunk does not come are given up, so that nobody
    /// waits for them and no memory is held.
    pub(crate) fn give_up_abandoned(&mut self, key: Key) {
        let now_ns = self.now_ns;
        let mut index = 0;
        while let Some(connection) = self.connections.get(key) {
            let Some(&message_key) = connection.messages.get(index) else { return };
            index += 1;
            let abandoned = self
                .messages
                .get(message_key)
                .is_none_or(|message| now_ns - message.received_ns >= CHUNK_RECEPTION_TIMEOUT_NS);
            let held_back = connection.paused > 0 || connection.pressed;
            if abandoned && !held_back {
                self.metrics.messages_abandoned += 1;
                self.abandon_message(key, message_key, 408);
                index -= 1;
                self.close_message(key, message_key);
            }
        }
    }

    /// Gives a message up in the middle: its receivers learn it with `#`, and whatever more comes
    /// of it is answered with `status`.
    pub(crate) fn abandon_message(&mut self, key: Key, message_key: Key, status: u16) {
        self.give_up_message(message_key);
        if let Some(message) = self.messages.get_mut(message_key) {
            message.status = status;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        match std::mem::replace(&mut connection.incoming, Incoming::Idle) {
            Incoming::Forward(forward) if forward.message == message_key => {
                self.refuse_forward(key, forward, None, status);
            }
            other => connection.incoming = other,
        }
    }

    fn give_up_message(&mut self, key: Key) {
        let Some(message) = self.messages.get(key) else { return };
        let Some(termination) = self.terminations.get(message.sender) else { return };
        let context_key = termination.context;
        let Some(context) = self.contexts.get(context_key) else { return };
        let (end_to_end, sent_id) = (context.is_end_to_end(), message.id);
        let hashed = self.identifiers.message(termination.id, sent_id.as_bytes());
        let id = if end_to_end { sent_id.as_bytes() } else { hashed.as_bytes() };
        let mut memory = [0; MESSAGE_LINES_BYTES_MAX];
        let message_lines = message_lines(&mut memory, id, message.next, None, message.total);
        let outbound = Outbound {
            message: key,
            sender: message.sender,
            epoch: message.epoch,
            addressee: message.addressee,
            failure_report: FailureReport::No,
            start: message.next,
            message_lines,
            lines: b"",
            body: b"",
            end: Some(Continuation::Abort),
        };
        if message.status == 200 && message.recipients.is_some() {
            self.deliver(context_key, &outbound);
        }
    }
}
