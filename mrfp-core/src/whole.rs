//! A message that lies whole in what was received, as nearly all do that people write. It goes to
//! everybody as it was sent, and nothing has to be kept of it until more of it comes. Whatever needs
//! more thought than that takes the way through `switch`.

use mrfp_io::Key;
use mrfp_protocol::msrp::{Continuation, Head, Piece};

use crate::config::{LARGE_MESSAGE_BYTES_MIN, MESSAGES_IN_PROGRESS_MAX};
use crate::context::Context;
use crate::incoming::Identifier;
use crate::message::Message;
use crate::plane::Plane;
use crate::request::kept_lines;
use crate::room::{Passage, Route, class};
use crate::switch::BUFFERS_PER_MEMBER_MIN;
use crate::termination::Termination;

/// A message that may be passed on at once.
struct Whole {
    route: Route,
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
        let Whole { route, context_key, end_to_end, size_bytes_max, epoch, id } = whole;
        let bytes = piece.body.len() as u64;
        let message = Message {
            route: Some(route),
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
            received.count_sends(route.class, 1);
            received.bytes += bytes;
        });
        let mut memory = std::mem::take(&mut self.scratch.lines);
        let lines = kept_lines(head.header_lines, end_to_end, &mut memory);
        let passage = Passage { at: 1, front: b"", body: piece.body, total: Some(bytes) };
        let passed_on = self.pass_as_sent(message, &route, &passage, lines, piece.end);
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
        let mut route = route(context, termination, head, piece)?;
        route.total = announced;
        Some(Whole {
            route,
            context_key: termination.context,
            end_to_end: context.is_end_to_end(),
            size_bytes_max,
            epoch: context.epoch,
            id: Identifier::new(id)?,
        })
    }
}

/// Where a whole message goes, if that can be told without reading its CPIM head.
fn route(
    context: &Context,
    sender: &Termination,
    head: &Head<'_>,
    piece: &Piece<'_>,
) -> Option<Route> {
    let mut route = match (&context.room, &sender.participant) {
        (Some(room), Some(participant)) => {
            let is_cpim = head.content_type.is_some_and(mrfp_protocol::cpim::is_cpim);
            if !is_cpim {
                return None;
            }
            room.known_route(participant, piece.body)?
        }
        (Some(_), None) => return None,
        (None, _) => Route::transparent(class(head, piece)),
    };
    route.note_file_transfer(sender.file_transfer);
    Some(route)
}
