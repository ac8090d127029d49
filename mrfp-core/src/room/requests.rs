//! What a room does for the switch: participants that come and go, and the requests that are for the
//! room itself.

use mrfp_io::Key;
use mrfp_protocol::msrp::Head;

use super::Nickname;
use crate::mp::Event;
use crate::plane::Plane;

impl Plane {
    /// A bound Termination takes part in its room.
    pub(crate) fn join_room(&mut self, session: Key) {
        let Some(termination) = self.terminations.get_mut(session) else { return };
        let Some(context) = self.contexts.get_mut(termination.context) else { return };
        if let (Some(room), Some(participant)) = (&mut context.room, &termination.participant) {
            termination.acceptance = room.join(session, participant);
        }
    }

    /// It takes part no more; its nickname is free.
    pub(crate) fn leave_room(&mut self, session: Key) {
        let Some(termination) = self.terminations.get_mut(session) else { return };
        let Some(context) = self.contexts.get_mut(termination.context) else { return };
        if let (Some(room), Some(participant)) = (&mut context.room, &mut termination.participant) {
            room.leave(session, participant, termination.acceptance);
        }
    }

    /// RFC 7701 section 7: takes, changes or lays down a nickname. The status to answer with.
    pub(crate) fn nickname(&mut self, session: Key, head: &Head<'_>) -> u16 {
        let Some(termination) = self.terminations.get_mut(session) else { return 481 };
        let Some(context) = self.contexts.get_mut(termination.context) else { return 481 };
        let (Some(room), Some(participant)) = (&mut context.room, &mut termination.participant)
        else {
            return 403;
        };
        // Everybody would hear it.
        if termination.muted {
            return 403;
        }
        match room.nickname(participant, head) {
            Ok(nickname) => {
                let nickname = nickname.map(Nickname::into_shown);
                let termination = termination.id;
                self.events.push_back(Event::NicknameChanged { termination, nickname });
                200
            }
            Err(status) => status,
        }
    }

    /// RFC 7701 section 6.2: what a REPORT to the author of a private message carries.
    pub(crate) fn wrap_report(&self, key: Key, out: &mut Vec<u8>) {
        let Some(message) = self.messages.get(key) else { return };
        let Some(termination) = self.terminations.get(message.sender) else { return };
        let Some(context) = self.contexts.get(termination.context) else { return };
        if let (Some(room), Some(participant), Some(route)) =
            (&context.room, &termination.participant, self.routes.get(key))
            && let Some(wrapper) = room.report_wrapper(participant, route)
        {
            wrapper.append_to(out);
        }
    }
}
