//! The beginning of a message: where its route is decided. A CPIM head that has not arrived whole is
//! held until it has, over receives, pieces and chunks; nothing of the message is passed on before.

use mrfp_io::Key;
use mrfp_protocol::cpim::{self, ContentClass, HEAD_BYTES_MAX};
use mrfp_protocol::msrp::{self, Continuation, Piece};

use super::{Audience, Passage, Route, Verdict, in_session};
use crate::carry::CarryBuffer;
use crate::config::CARRY_BUFFER_SIZE_BYTES;
use crate::incoming::Forward;
use crate::plane::Plane;

const _: () = assert!(CARRY_BUFFER_SIZE_BYTES >= HEAD_BYTES_MAX);

/// What becomes of the beginning of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opening {
    /// It has a route and is passed on, with what was held of it.
    Open {
        /// Bytes of this piece that are with those that were held.
        taken: usize,
    },
    /// Its head is not whole; this piece is held with it.
    Held,
    /// It is refused with this status.
    Refused(u16),
}

impl Plane {
    /// Decides where a message goes, unless that has been decided.
    pub(crate) fn route_message(&mut self, forward: &Forward, piece: &Piece<'_>) -> Opening {
        let Some(message) = self.messages.get_mut(forward.message) else {
            return Opening::Refused(413);
        };
        if self.routes.get(forward.message).is_some() {
            return Opening::Open { taken: 0 };
        }
        let Some(termination) = self.terminations.get(message.sender) else {
            return Opening::Refused(481);
        };
        let file_transfer = termination.file_transfer;
        let held = message.held.take();
        let opened = if termination.participant.is_none() {
            let class = piece.head.as_ref().map_or(ContentClass::Chat, |head| class(head, piece));
            Ok(Some((Route::transparent(class), None, 0)))
        } else {
            self.route_in_room(forward, held, piece)
        };
        let (mut route, held, taken) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return Opening::Held,
            Err(status) => return Opening::Refused(status),
        };
        route.class = in_session(route.class, file_transfer);
        route.total = forward.total;
        let found = self.find_taker(forward, &route, held.as_ref(), &piece.body[taken..], piece);
        match (found, self.messages.get_mut(forward.message)) {
            (Ok(()), Some(message)) => {
                message.held = held;
                self.routes.set(forward.message, route);
                Opening::Open { taken }
            }
            (found, _) => {
                self.give_back(held);
                Opening::Refused(found.err().unwrap_or(413))
            }
        }
    }

    /// The route of a message in a room, all that was held of it, and how much of this piece is part
    /// of that. `Ok(None)`: its head is not whole.
    fn route_in_room(
        &mut self,
        forward: &Forward,
        held: Option<CarryBuffer>,
        piece: &Piece<'_>,
    ) -> Result<Option<(Route, Option<CarryBuffer>, usize)>, u16> {
        let session = forward.transaction.session;
        let is_cpim = |head: &msrp::Head<'_>| head.content_type.is_some_and(cpim::is_cpim);
        if held.is_none() && !piece.head.as_ref().is_some_and(is_cpim) {
            let route = self.route_bare(forward, piece)?;
            return Ok(Some((route, None, 0)));
        }
        let Some(mut held) = self.continue_held(held, forward.next)? else {
            return match self.route_wrapped(session, piece.body)? {
                Some(route) => Ok(Some((route, None, 0))),
                None => self.hold(forward, None, piece),
            };
        };
        let taken = piece.body.len().min(HEAD_BYTES_MAX - held.len());
        assert_eq!(held.append(&piece.body[..taken]), taken);
        match self.route_wrapped(session, held.bytes()) {
            Ok(Some(route)) => Ok(Some((route, Some(held), taken))),
            Ok(None) => self.hold(forward, Some(held), piece),
            Err(status) => {
                self.carry_buffers.put(held);
                Err(status)
            }
        }
    }

    fn route_bare(&mut self, forward: &Forward, piece: &Piece<'_>) -> Result<Route, u16> {
        // The beginning is not known any more, so neither is who was to get it: what is asked for
        // is that the sender stop, it may begin anew (RFC 4975 section 10.5).
        if forward.next != 1 {
            return Err(413);
        }
        let head = piece.head.as_ref().ok_or(400u16)?;
        let termination = self.terminations.get(forward.transaction.session).ok_or(481u16)?;
        let context = self.contexts.get(termination.context).ok_or(481u16)?;
        match (&context.room, &termination.participant) {
            (Some(room), Some(participant)) => room.route_bare(participant, head),
            (_, _) => Err(403),
        }
    }

    /// What of a held beginning comes before byte `next`, where the message goes on.
    fn continue_held(
        &mut self,
        held: Option<CarryBuffer>,
        next: u64,
    ) -> Result<Option<CarryBuffer>, u16> {
        match held {
            None if next == 1 => Ok(None),
            Some(mut buffer) if next <= buffer.len() as u64 + 1 => {
                buffer.truncate((next - 1) as usize);
                Ok(Some(buffer))
            }
            // Without its beginning there is nothing to decide by, as above.
            missing => {
                self.give_back(missing);
                Err(413)
            }
        }
    }

    /// Where a message goes that begins with these bytes; `Ok(None)`: its head is not whole.
    fn route_wrapped(&mut self, session: Key, bytes: &[u8]) -> Result<Option<Route>, u16> {
        let Some((head, head_bytes)) = cpim::Head::parse(bytes).map_err(|_| 400u16)? else {
            return Ok(None);
        };
        let termination = self.terminations.get_mut(session).ok_or(481u16)?;
        let context = self.contexts.get_mut(termination.context).ok_or(481u16)?;
        match (&mut context.room, &mut termination.participant) {
            (Some(room), Some(participant)) => {
                let route = room.route(session, participant, &head, head_bytes)?;
                room.learn(participant, &bytes[..head_bytes], &route);
                Ok(Some(route))
            }
            (_, _) => Err(403),
        }
    }

    /// Keeps the beginning of a message until its head is whole. `held` includes the piece.
    fn hold<T>(
        &mut self,
        forward: &Forward,
        held: Option<CarryBuffer>,
        piece: &Piece<'_>,
    ) -> Result<Option<T>, u16> {
        match piece.end {
            Some(Continuation::More) | None => {}
            Some(end) => {
                self.give_back(held);
                // If that was all, there was no head in it.
                return if end == Continuation::Last { Err(400) } else { Ok(None) };
            }
        }
        let buffer = held.or_else(|| {
            let mut buffer = self.carry_buffers.take()?;
            assert_eq!(buffer.append(piece.body), piece.body.len());
            Some(buffer)
        });
        match (self.messages.get_mut(forward.message), buffer) {
            (Some(message), Some(buffer)) => {
                message.held = Some(buffer);
                Ok(None)
            }
            (_, buffer) => {
                self.give_back(buffer);
                Err(413)
            }
        }
    }

    /// Whether anybody who is to get a message takes it, otherwise what to refuse it with. A message
    /// to everybody that nobody is there to hear is delivered to all there are.
    fn find_taker(
        &mut self,
        forward: &Forward,
        route: &Route,
        held: Option<&CarryBuffer>,
        body: &[u8],
        piece: &Piece<'_>,
    ) -> Result<(), u16> {
        let sender = forward.transaction.session;
        let termination = self.terminations.get(sender).ok_or(481u16)?;
        let context = self.contexts.get(termination.context).ok_or(481u16)?;
        let Some(room) = &context.room else { return Ok(()) };
        let front = held.map_or(&b""[..], CarryBuffer::bytes);
        let last = piece.end == Some(Continuation::Last);
        let total = if last { Some((front.len() + body.len()) as u64) } else { route.total };
        let passage = Passage { at: 1, front, body, total };
        room.judge(route, &passage, &mut self.scratch.verdicts);
        let mut refusal = match route.audience {
            Audience::Everybody => Ok(()),
            // Its addressee is there, but on hold.
            Audience::Address(_) => Err(403),
        };
        let mut index = 0;
        while let Some(recipient) = context.recipient(route.destination(), index) {
            index += 1;
            let Some(session) = recipient.filter(|&session| session != sender) else { continue };
            let Some(termination) = self.terminations.get(session) else { continue };
            if !termination.receives(context.epoch) {
                continue;
            }
            match self.scratch.verdicts[termination.acceptance as usize] {
                Verdict::AsSent | Verdict::Converted => return Ok(()),
                Verdict::Unacceptable => refusal = Err(415),
                Verdict::TooLarge | Verdict::Overflow | Verdict::Overflown => refusal = Err(413),
            }
        }
        refusal
    }
}

/// The kind of a message between two parties, as far as its beginning tells.
pub(crate) fn class(head: &msrp::Head<'_>, piece: &Piece<'_>) -> ContentClass {
    if head.content_type.is_some_and(cpim::is_cpim) {
        return ContentClass::of_unread(piece.body);
    }
    ContentClass::of_bare(head)
}
