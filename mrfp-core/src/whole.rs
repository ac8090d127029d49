//! A message that lies whole in what was received, as nearly all do that people write. It goes to
//! everybody as it was sent, and nothing has to be kept of it until more of it comes. Whatever needs
//! more thought than that takes the way through `switch`.

use mrfp_io::Key;
use mrfp_protocol::msrp::{ByteRange, Continuation, Head, Piece};

use crate::config::{INTERRUPTIBLE_BYTES_MIN, LARGE_MESSAGE_BYTES_MIN, MESSAGES_IN_PROGRESS_MAX};
use crate::context::Context;
use crate::incoming::Identifier;
use crate::message::Message;
use crate::plane::Plane;
use crate::request::kept_lines;
use crate::room::{Destination, Passage, class, in_session};
use crate::switch::BUFFERS_PER_MEMBER_MIN;
use crate::termination::Termination;

/// A message that may be passed on at once.
struct Whole {
    destination: Destination,
    context_key: Key,
    end_to_end: bool,
    size_bytes_max: u64,
    epoch: u64,
    id: Identifier,
}

impl Plane {
    /// Passes a message on, answers it and closes it. False: nothing has been done, as there is more
    /// to it.
    pub(crate) fn pass_whole(
        &mut self,
        key: Key,
        session: Key,
        head: &Head<'_>,
        piece: &Piece<'_>,
    ) -> bool {
        let Some(whole) = self.whole(key, session, head, piece) else { return false };
        let Whole { destination, context_key, end_to_end, size_bytes_max, epoch, id } = whole;
        let bytes = piece.body.len() as u64;
        let message = Message {
            next: bytes + 1,
            total: Some(bytes),
            received_ns: self.now_ns,
            size_bytes_max,
            ..Message::new(session, id, head.failure_report, epoch)
        };
        let Ok(message) = self.messages.insert(message) else { return false };
        if let Some(sender) = self.terminations.get_mut(session) {
            sender.statistics.messages_received += 1;
            sender.statistics.bytes_received += bytes;
        }
        self.count_received(session, |received| {
            received.count_sends(destination.class, 1);
            received.bytes += bytes;
        });
        let mut memory = std::mem::take(&mut self.scratch.lines);
        let lines = match unchanged(head, piece) {
            Some(unchanged) => (unchanged, unchanged),
            None => (kept_lines(head.header_lines, end_to_end, &mut memory), &b""[..]),
        };
        let passage = Passage { at: 1, front: b"", body: piece.body, total: Some(bytes) };
        let passed_on = self.pass_as_sent(message, destination, &passage, lines, piece.end);
        self.scratch.lines = memory;
        self.hold_back(key, context_key);
        let status = passed_on.err().unwrap_or(200);
        self.answer_request(key, session, head.transaction_id, head.failure_report, status);
        if passed_on.is_ok() && head.success_report && !end_to_end {
            self.report(message, 1, bytes, Some(bytes), 200);
        }
        self.end_message(message);
        true
    }

    /// What is to be known of the message that a piece is the whole of.
    fn whole(&self, key: Key, session: Key, head: &Head<'_>, piece: &Piece<'_>) -> Option<Whole> {
        let id = head.message_id?;
        let bytes = piece.body.len() as u64;
        let announced = head.byte_range.and_then(|range| range.total);
        let is_whole = piece.end == Some(Continuation::Last)
            && head.content_type.is_some()
            && head.byte_range.is_none_or(|range| range.start == 1)
            && announced.is_none_or(|total| total == bytes)
            && (1..=LARGE_MESSAGE_BYTES_MIN).contains(&bytes);
        if !is_whole {
            return None;
        }
        let connection = self.connections.get(self.home(key))?;
        let others = connection.messages.len();
        if others >= MESSAGES_IN_PROGRESS_MAX
            || (others > 0 && self.known_message(key, session, id).is_some())
        {
            return None;
        }
        let termination = self.terminations.get(session).filter(|sender| sender.may_send())?;
        let context = self.contexts.get(termination.context)?;
        let size_bytes_max = self.size_bytes_max(context, session);
        if bytes > size_bytes_max
            || self.send_buffers.available() < BUFFERS_PER_MEMBER_MIN * context.members.len()
        {
            return None;
        }
        self.acceptable(context, session, head).ok()?;
        Some(Whole {
            destination: destination(context, termination, head, piece)?,
            context_key: termination.context,
            end_to_end: context.is_end_to_end(),
            size_bytes_max,
            epoch: context.epoch,
            id: Identifier::new(id)?,
        })
    }
}

/// From the Byte-Range line to the end of the body, where that is what we would write: the usual lines
/// in the usual order and no other, and a range that says what is there. So nothing has to be made of it
/// but the Message-ID.
fn unchanged<'a>(head: &Head<'_>, piece: &Piece<'a>) -> Option<&'a [u8]> {
    let bytes = piece.body.len();
    let range = ByteRange { start: 1, end: Some(bytes as u64), total: Some(bytes as u64) };
    if head.byte_range != Some(range) || bytes > INTERRUPTIBLE_BYTES_MIN {
        return None;
    }
    let lines = piece.after_paths.strip_prefix(b"Message-ID: ")?.get(head.message_id?.len()..)?;
    let unchanged = lines.strip_prefix(b"\r\n")?;
    let value = unchanged.strip_prefix(b"Byte-Range: ")?;
    let line_end = memchr::memchr(b'\n', value)?;
    // Which is the last line, wherever it stands.
    value[line_end + 1..].starts_with(b"Content-Type: ").then_some(unchanged)
}

/// Where a whole message goes, if that can be told without reading its CPIM head.
fn destination(
    context: &Context,
    sender: &Termination,
    head: &Head<'_>,
    piece: &Piece<'_>,
) -> Option<Destination> {
    let destination = match (&context.room, &sender.participant) {
        (Some(room), Some(participant)) => {
            let is_cpim = head.content_type.is_some_and(mrfp_protocol::cpim::is_cpim);
            if !is_cpim {
                return None;
            }
            room.known_destination(participant, piece.body)?
        }
        (Some(_), None) => return None,
        (None, _) => Destination::everybody(class(head, piece)),
    };
    let class = in_session(destination.class, sender.file_transfer);
    Some(Destination { class, ..destination })
}
