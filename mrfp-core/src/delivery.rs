//! The receiving side of the switch: a piece of a message goes into the egress of each member it is
//! for, as the continuation of the chunk that is open there or as a new one.

use mrfp_io::Key;
use mrfp_protocol::msrp::{Continuation, FailureReport};

use crate::config::{CHUNK_RECEPTION_TIMEOUT_NS, INTERRUPTIBLE_BYTES_MIN, LARGE_MESSAGE_BYTES_MIN};
use crate::connection::OpenChunk;
use crate::egress::Lane;
use crate::incoming::Incoming;
use crate::outstanding::Outstanding;
use crate::plane::Plane;
use crate::request::{EndLine, MESSAGE_LINES_BYTES_MAX, StartLine, message_id_line, message_lines};
use crate::room::{Destination, Passage, Rendition, Verdict};
use crate::termination::Termination;

/// In a Context of so many members a piece that ends a chunk is written once and copied to each.
const WHOLE_MEMBERS_MIN: usize = 4;

/// A piece of a message on its way to the receivers.
#[derive(Clone, Copy, Debug)]
struct Outbound<'a> {
    message: Key,
    /// The sending Termination.
    sender: Key,
    epoch: u64,
    destination: Destination,
    failure_report: FailureReport,
    lane: Lane,
    /// First byte of the piece in the message and how many there are, as its sender counts them.
    start: u64,
    bytes: usize,
    as_sent: Written<'a>,
    converted: Written<'a>,
    end: Option<Continuation>,
}

/// A piece of a message as a receiver gets it.
#[derive(Clone, Copy, Debug)]
struct Written<'a> {
    /// Message-ID and Byte-Range, as far as they are not in `whole`.
    message_lines: &'a [u8],
    /// Further lines up to Content-Type, each with its CRLF; empty where no body goes with it.
    lines: &'a [u8],
    front: &'a [u8],
    body: &'a [u8],
    /// All that stands behind `message_lines` up to the end-line, where it ends a chunk and lies in one
    /// piece; else empty.
    whole: &'a [u8],
}

/// A piece that has been queued for a receiver.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    /// It begins a request.
    as_request: bool,
    bytes: u64,
}

impl<'a> Written<'a> {
    /// Writes it once for all who begin with it, unless it lies in one piece.
    fn with_whole(self, memory: &'a mut Vec<u8>) -> Self {
        if self.lines.is_empty() || !self.whole.is_empty() {
            return self;
        }
        memory.clear();
        for part in [self.lines, b"\r\n", self.front, self.body] {
            memory.extend_from_slice(part);
        }
        Self { whole: memory, ..self }
    }
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
    /// Passes the next bytes of a message on to everybody it is for, to each as it takes them. An
    /// error where nobody gets them any more. `lines` are the header lines that go with a body.
    pub(crate) fn pass_on(
        &mut self,
        key: Key,
        passage: &Passage<'_>,
        lines: &[u8],
        end: Option<Continuation>,
    ) -> Result<(), u16> {
        let Some(message) = self.messages.get_mut(key) else { return Ok(()) };
        let size = passage.total.unwrap_or(0).max(passage.at);
        message.large |= size > LARGE_MESSAGE_BYTES_MIN;
        let Some(&route) = self.routes.get(key) else { return Ok(()) };
        let Some(termination) = self.terminations.get(message.sender) else { return Ok(()) };
        let Some(context) = self.contexts.get(termination.context) else { return Ok(()) };
        let mut wrapper = std::mem::take(&mut self.scratch.wrapper);
        let mut converted_lines = std::mem::take(&mut self.scratch.converted_lines);
        let conversion = context.convert(
            &mut self.scratch.verdicts,
            termination,
            &route,
            passage,
            lines,
            (&mut converted_lines, &mut wrapper),
        );
        let conversion = conversion.map(|rendition| (rendition, converted_lines.as_slice()));
        let passed_on =
            self.send_out(key, route.destination(), passage, (lines, b""), conversion, end);
        self.scratch.wrapper = wrapper;
        self.scratch.converted_lines = converted_lines;
        passed_on
    }

    /// Passes a whole message on to everybody as it was sent; `unchanged` as for
    /// [`send_out`](Self::send_out).
    pub(crate) fn pass_as_sent(
        &mut self,
        key: Key,
        destination: Destination,
        passage: &Passage<'_>,
        (lines, unchanged): (&[u8], &[u8]),
        end: Option<Continuation>,
    ) -> Result<(), u16> {
        self.scratch.verdicts.clear();
        self.send_out(key, destination, passage, (lines, unchanged), None, end)
    }

    /// Writes the lines of a piece once for all, and delivers it: to those who do not take it as it was
    /// sent in its `conversion`, with the header lines that go with that. `unchanged`: where a whole
    /// message goes on as it came from its Byte-Range line to the end of its body, those bytes; else
    /// empty.
    fn send_out(
        &mut self,
        key: Key,
        destination: Destination,
        passage: &Passage<'_>,
        (lines, unchanged): (&[u8], &[u8]),
        conversion: Option<(Rendition<'_>, &[u8])>,
        end: Option<Continuation>,
    ) -> Result<(), u16> {
        let Some(message) = self.messages.get(key) else { return Ok(()) };
        let Some(termination) = self.terminations.get(message.sender) else { return Ok(()) };
        let context_key = termination.context;
        let Some(context) = self.contexts.get(context_key) else { return Ok(()) };
        let (own, hashed);
        let id = match context.is_end_to_end() {
            true => {
                own = message.id;
                own.as_bytes()
            }
            false => {
                hashed = self.identifiers.message(termination.id, message.id.as_bytes());
                hashed.as_bytes()
            }
        };
        let mut memory = [0; MESSAGE_LINES_BYTES_MAX];
        let as_sent = match unchanged {
            [] => written(&mut memory, id, passage.as_sent(), lines, end),
            whole => Written {
                message_lines: message_id_line(&mut memory, id),
                lines,
                front: b"",
                body: passage.body,
                whole,
            },
        };
        let mut memory_of_converted;
        let converted = match conversion {
            Some((rendition, lines)) => {
                memory_of_converted = [0; MESSAGE_LINES_BYTES_MAX];
                written(&mut memory_of_converted, id, rendition, lines, end)
            }
            None => as_sent,
        };
        let outbound = Outbound {
            message: key,
            sender: message.sender,
            epoch: message.epoch,
            destination,
            failure_report: message.failure_report,
            lane: if message.large { Lane::Large } else { Lane::First },
            start: passage.at,
            bytes: passage.bytes_len(),
            as_sent,
            converted,
            end,
        };
        let reached = self.deliver(context_key, &outbound);
        self.count_recipients(key, context_key, reached)
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
            let verdicts = &self.scratch.verdicts;
            let too_large = verdicts.iter().any(|verdict| verdict.is_by_size());
            message.status = if too_large { 413 } else { 408 };
            context.statistics_mut().messages_undelivered += 1;
        }
        Err(message.status)
    }

    /// Copies a piece to every member of the Context it is for; says to how many.
    fn deliver(&mut self, context_key: Key, outbound: &Outbound<'_>) -> u32 {
        let mut memory = std::mem::take(&mut self.scratch.whole);
        let [of_sent, of_converted] = &mut memory;
        let members = self.contexts.get(context_key).map_or(0, |context| context.members.len());
        let reached = if members >= WHOLE_MEMBERS_MIN && outbound.end.is_some() {
            let as_sent = outbound.as_sent.with_whole(of_sent);
            let converted = match self.scratch.verdicts.contains(&Verdict::Converted) {
                true => outbound.converted.with_whole(of_converted),
                false => as_sent,
            };
            self.deliver_to_all(context_key, &Outbound { as_sent, converted, ..*outbound })
        } else {
            self.deliver_to_all(context_key, outbound)
        };
        self.scratch.whole = memory;
        reached
    }

    fn deliver_to_all(&mut self, context_key: Key, outbound: &Outbound<'_>) -> u32 {
        let mut reached = 0;
        let (mut requests, mut bytes) = (0, 0);
        let mut index = 0;
        while let Some(recipient) = self
            .contexts
            .get(context_key)
            .and_then(|context| context.recipient(outbound.destination, index))
        {
            index += 1;
            let Some(member) = recipient.filter(|&member| member != outbound.sender) else {
                continue;
            };
            let receives = |member: &Termination| member.receives(outbound.epoch);
            let Some(termination) = self.terminations.get(member).filter(|&t| receives(t)) else {
                continue;
            };
            let verdict = self.scratch.verdicts.get(termination.acceptance as usize);
            let (written, end) = match verdict {
                None | Some(Verdict::AsSent) => (outbound.as_sent, outbound.end),
                Some(Verdict::Converted) => (outbound.converted, outbound.end),
                Some(Verdict::Overflow) => {
                    let nothing: &[u8] = b"";
                    let none = Written {
                        lines: nothing,
                        front: nothing,
                        body: nothing,
                        whole: nothing,
                        ..outbound.as_sent
                    };
                    self.skip(context_key);
                    let end = Some(Continuation::Abort);
                    let given_up = self.deliver_to(member, &none, end, outbound);
                    requests += given_up.map_or(0, |delivered| u64::from(delivered.as_request));
                    // Nor does it get what may come once more of what would have fitted.
                    let connection = self.terminations.get(member).and_then(|t| t.connection);
                    if let Some(key) = connection.filter(|_| !outbound.is_last()) {
                        self.decline(key, member, outbound.message);
                    }
                    continue;
                }
                Some(Verdict::Unacceptable | Verdict::TooLarge) => {
                    if outbound.start == 1 {
                        self.skip(context_key);
                    }
                    continue;
                }
                Some(Verdict::Overflown) => continue,
            };
            if let Some(delivered) = self.deliver_to(member, &written, end, outbound) {
                reached += 1;
                requests += u64::from(delivered.as_request);
                bytes += delivered.bytes;
            }
        }
        if let Some(context) = self.contexts.get_mut(context_key) {
            let sent = &mut context.statistics_mut().traffic.sent;
            sent.count_sends(outbound.destination.class, requests);
            sent.bytes += bytes;
        }
        reached
    }

    /// A member does not get a message because it does not take such.
    fn skip(&mut self, context_key: Key) {
        if let Some(context) = self.contexts.get_mut(context_key) {
            context.statistics_mut().messages_skipped += 1;
        }
    }

    fn deliver_to(
        &mut self,
        member: Key,
        written: &Written<'_>,
        end: Option<Continuation>,
        outbound: &Outbound<'_>,
    ) -> Option<Delivered> {
        let termination = self.terminations.get_mut(member)?;
        let key = termination.connection?;
        let connection = self.connections.get_mut(key)?;
        let declined = (member, outbound.message);
        if let Some(at) = connection.declined.iter().position(|&other| other == declined) {
            if outbound.is_last() {
                connection.declined.swap_remove(at);
            }
            return None;
        }
        let open = connection
            .outgoing
            .filter(|open| open.receiver == member && open.message == outbound.message);
        let length = written.front.len() + written.body.len();
        let bytes = open.map_or(0, |open| open.bytes) + length;
        let makes_room = || connection.egress.chunk_makes_room(outbound.lane, bytes);
        let end = end.or_else(|| makes_room().then_some(Continuation::More));
        // Each receiver gets a transaction identifier of its own: a receiver in league with the
        // sender must not learn how the chunks of the others end.
        let own = open.map_or_else(|| self.identifiers.transaction(), |open| open.transaction);
        let has_body = !written.lines.is_empty() || open.is_some();
        let lane = open.map_or(outbound.lane, |open| open.lane);
        let end_line = EndLine::new(&own, end, has_body);
        let queued = if open.is_some() {
            let parts: &[&[u8]] = &[written.front, written.body, end_line.bytes()];
            connection.egress.extend(lane, &mut self.send_buffers, parts)
        } else {
            let (start_line, paths) = (StartLine::new(&own), termination.request_paths());
            let blank: &[u8] = if written.lines.is_empty() { b"" } else { b"\r\n" };
            let parts: &[&[u8]] = match end {
                Some(_) if !written.whole.is_empty() => &[
                    start_line.bytes(),
                    paths,
                    written.message_lines,
                    written.whole,
                    end_line.bytes(),
                ],
                Some(_) | None => &[
                    start_line.bytes(),
                    paths,
                    written.message_lines,
                    written.lines,
                    blank,
                    written.front,
                    written.body,
                    end_line.bytes(),
                ],
            };
            connection.append_to(lane, &mut self.send_buffers, parts)
        };
        if queued.is_err() {
            self.unserved.push(key);
            return None;
        }
        if open.is_none() {
            self.metrics.messages_sent += 1;
            termination.statistics.messages_sent += 1;
        }
        termination.statistics.bytes_sent += length as u64;
        let of_realm = &mut self.realms[usize::from(termination.realm.0)].sent;
        of_realm.count_sends(outbound.destination.class, u64::from(open.is_none()));
        of_realm.bytes += length as u64;
        self.copies += 1;
        let (receiver, message) = (member, outbound.message);
        connection.outgoing = match end {
            None => Some(OpenChunk { receiver, message, transaction: own, lane, bytes }),
            Some(_) => None,
        };
        let position = end.map(|_| connection.egress.position(lane));
        if open.is_some() {
            connection.outstanding.extend(outbound.bytes);
            if let Some(position) = position {
                connection.outstanding.close(position);
            }
        } else if has_body || end == Some(Continuation::Last) {
            // An end without a body completes a message, so it matters whether it is taken.
            let (start, bytes) = (outbound.start, outbound.bytes);
            let request = Outstanding::new(own, member, outbound.message, start, bytes, position);
            self.expect_answer(key, request, outbound.failure_report);
        }
        self.mark(key);
        self.check_egress(key);
        Some(Delivered { as_request: open.is_none(), bytes: length as u64 })
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
        if connection.end_chunk(&mut self.send_buffers, Continuation::Abort).is_err() {
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
        let Some(message) = self.messages.get_mut(key) else { return };
        if message.status != 200 || message.recipients.is_none() {
            return;
        }
        // The answers to this are of no interest; those to what went before are.
        let failure_report = std::mem::replace(&mut message.failure_report, FailureReport::No);
        let passage = Passage { at: message.next, front: b"", body: b"", total: message.total };
        // Nobody is left to be told how far that came.
        let _ = self.pass_on(key, &passage, b"", Some(Continuation::Abort));
        if let Some(message) = self.messages.get_mut(key) {
            message.failure_report = failure_report;
        }
    }
}

/// A piece of a message with its lines, as it goes to a receiver.
fn written<'a>(
    memory: &'a mut [u8; MESSAGE_LINES_BYTES_MAX],
    id: &[u8],
    rendition: Rendition<'a>,
    lines: &'a [u8],
    end: Option<Continuation>,
) -> Written<'a> {
    let uninterrupted =
        end == Some(Continuation::Last) && rendition.bytes_len() <= INTERRUPTIBLE_BYTES_MIN as u64;
    let range_end = uninterrupted.then(|| rendition.end());
    let message_lines = message_lines(memory, id, rendition.start, range_end, rendition.total);
    Written { message_lines, lines, front: rendition.front, body: rendition.body, whole: b"" }
}
