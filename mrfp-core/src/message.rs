//! A message on its way through the node: from the head of its first chunk to the last answer of its
//! last recipient. Nothing of its body is kept.

use mrfp_io::Key;
use mrfp_protocol::msrp::{FailureReport, Head};

use crate::carry::CarryBuffer;
use crate::config::MESSAGES_IN_PROGRESS_MAX;
use crate::incoming::Identifier;
use crate::plane::Plane;
use crate::room::Route;

/// What must be known of a message to deliver its chunks alike, and to tell its sender if it cannot
/// be delivered.
#[derive(Debug)]
pub(crate) struct Message {
    /// The sending Termination.
    pub(crate) sender: Key,
    /// The Message-ID its sender gave it.
    pub(crate) id: Identifier,
    pub(crate) failure_report: FailureReport,
    /// Whose turn it was to receive when it began.
    pub(crate) epoch: u64,
    /// Its beginning, until there is a route.
    pub(crate) held: Option<CarryBuffer>,
    /// The success of a held beginning is to be reported once it has been passed on.
    pub(crate) held_success_report: bool,
    /// Next byte, for the chunk that gives it up.
    pub(crate) next: u64,
    /// It waits where others overtake it.
    pub(crate) large: bool,
    /// Its size, where the sender has told it.
    pub(crate) total: Option<u64>,
    /// More of it is to come from the sender.
    pub(crate) in_progress: bool,
    /// When something of it last came.
    pub(crate) received_ns: u64,
    /// How many it went to when it began; `None` before.
    pub(crate) recipients: Option<u32>,
    /// How many of those have not got it.
    pub(crate) failed: u32,
    /// Requests of ours that carry a part of it and wait for their answer.
    pub(crate) outstanding: u32,
    /// 200, or why none of its recipients got it.
    pub(crate) status: u16,
    /// How large it may become: `a=max-size` of the recipient between two parties, else of the room.
    pub(crate) size_bytes_max: u64,
}

impl Message {
    /// A message of which nothing has come.
    pub(crate) fn new(
        sender: Key,
        id: Identifier,
        failure_report: FailureReport,
        epoch: u64,
    ) -> Self {
        Self {
            sender,
            id,
            failure_report,
            epoch,
            held: None,
            held_success_report: false,
            next: 1,
            large: false,
            total: None,
            in_progress: true,
            received_ns: 0,
            recipients: None,
            failed: 0,
            outstanding: 0,
            status: 200,
            size_bytes_max: u64::MAX,
        }
    }
}

/// Who gets which message, once enough of it is there to tell: beside the messages themselves, as most
/// come whole and need no more than their destination. As many as have been needed at once.
#[derive(Default)]
pub(crate) struct Routes {
    /// By the index of the message's key; its generation tells whose it is.
    slots: Vec<Option<(u32, Route)>>,
}

impl Routes {
    /// That of a message, if it has one yet.
    pub(crate) fn get(&self, message: Key) -> Option<&Route> {
        let (generation, route) = self.slots.get(message.index as usize)?.as_ref()?;
        (*generation == message.generation).then_some(route)
    }

    /// Where a message goes is known.
    pub(crate) fn set(&mut self, message: Key, route: Route) {
        let index = message.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some((message.generation, route));
    }
}

impl Plane {
    /// The message a chunk belongs to: one that is in progress in this session, or a new one. The
    /// error is the status to answer.
    pub(crate) fn open_message(
        &mut self,
        key: Key,
        session: Key,
        head: &Head<'_>,
    ) -> Result<Key, u16> {
        let id = head.message_id.and_then(Identifier::new).ok_or(400u16)?;
        let termination = self.terminations.get(session).ok_or(481u16)?;
        let context = self.contexts.get(termination.context).ok_or(481u16)?;
        let epoch = context.epoch;
        let size_bytes_max = self.size_bytes_max(context, session);
        let known = self.known_message(key, session, id.as_bytes());
        let start = head.byte_range.map_or(1, |range| range.start);
        match known {
            // What has failed may be begun anew; its rest would be a tail without a beginning.
            Some(failed) if start == 1 && self.is_failed(failed) => self.close_message(key, failed),
            Some(known) => return Ok(known),
            None if start > 1 => return Err(413),
            None => {}
        }
        let key = self.home(key);
        let connection = self.connections.get_mut(key).ok_or(481u16)?;
        if connection.messages.len() >= MESSAGES_IN_PROGRESS_MAX {
            // What nobody takes any more need not be remembered for the sake of others.
            let failed = connection
                .messages
                .iter()
                .position(|&message| self.messages.get(message).is_none_or(|m| m.status != 200));
            let failed = connection.messages.swap_remove(failed.ok_or(413u16)?);
            self.end_message(failed);
        }
        let message = Message {
            next: start,
            total: head.byte_range.and_then(|range| range.total),
            received_ns: self.now_ns,
            size_bytes_max,
            ..Message::new(session, id, head.failure_report, epoch)
        };
        let message = self.messages.insert(message).map_err(|_| 413u16)?;
        let connection = self.connections.get_mut(key).ok_or(481u16)?;
        connection.messages.push(message);
        Ok(message)
    }

    /// Whether a chunk without a body goes on with a message: it may end one (RFC 4975 section 7.1),
    /// and otherwise is a message of its own that nobody needs.
    pub(crate) fn continues_message(&self, key: Key, session: Key, head: &Head<'_>) -> bool {
        let start = head.byte_range.map_or(1, |range| range.start);
        head.message_id
            .and_then(|id| self.known_message(key, session, id))
            .is_some_and(|known| start > 1 || !self.is_failed(known))
    }

    /// The message of that Message-ID that is in progress in a session.
    pub(crate) fn known_message(&self, key: Key, session: Key, id: &[u8]) -> Option<Key> {
        let key = self.home(key);
        let mut messages = self.connections.get(key)?.messages.iter().copied();
        messages.find(|&message| {
            self.messages
                .get(message)
                .is_some_and(|message| message.sender == session && message.id.as_bytes() == id)
        })
    }

    fn is_failed(&self, key: Key) -> bool {
        self.messages.get(key).is_none_or(|message| message.status != 200)
    }

    /// Nothing more of a message is to come.
    pub(crate) fn close_message(&mut self, key: Key, message: Key) {
        let key = self.home(key);
        if let Some(connection) = self.connections.get_mut(key)
            && let Some(at) = connection.messages.iter().position(|&open| open == message)
        {
            connection.messages.swap_remove(at);
        }
        self.end_message(message);
    }

    pub(crate) fn end_message(&mut self, key: Key) {
        if let Some(message) = self.messages.get_mut(key) {
            message.in_progress = false;
        }
        self.settle_message(key);
    }

    /// Forgets a message of which nothing is to come and nothing is unanswered.
    pub(crate) fn settle_message(&mut self, key: Key) {
        if let Some(message) = self.messages.get_mut(key)
            && !message.in_progress
            && message.outstanding == 0
        {
            let held = message.held.take();
            self.messages.discard(key);
            self.give_back(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use mrfp_protocol::cpim::ContentClass;

    use super::*;

    #[test]
    fn a_message_has_no_route_of_the_one_before_it_in_its_slot() {
        let mut routes = Routes::default();
        let message = |index, generation| Key { index, generation };
        assert!(routes.get(message(3, 0)).is_none());
        routes.set(message(3, 0), Route::transparent(ContentClass::Imdn));
        assert!(routes.get(message(3, 0)).is_some_and(|it| it.class == ContentClass::Imdn));
        assert!(routes.get(message(2, 0)).is_none());
        assert!(routes.get(message(3, 1)).is_none());
        routes.set(message(3, 1), Route::transparent(ContentClass::Chat));
        assert!(routes.get(message(3, 1)).is_some_and(|it| it.class == ContentClass::Chat));
        assert!(routes.get(message(3, 0)).is_none());
    }
}
