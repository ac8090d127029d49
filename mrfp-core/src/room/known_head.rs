//! The CPIM head a participant wrote last, and where it led. Clients put the same head in front of
//! one message after the other, and what is like the last one goes where that went, unread.

use mrfp_protocol::cpim::Pattern;

use super::{Audience, Destination, Participant, Room, Route};

/// What is remembered of a message that went to everybody as it was sent.
#[derive(Debug)]
pub(super) struct KnownHead {
    pattern: Pattern,
    destination: Destination,
    /// Which acceptances were asked.
    acceptances_version: u64,
    /// The largest such message that everybody takes.
    size_bytes_max: u64,
}

impl Room {
    /// Where a whole message goes that is like the participant's last one: to everybody, and
    /// everybody takes it as it was sent.
    pub(crate) fn known_destination(
        &self,
        participant: &Participant,
        message: &[u8],
    ) -> Option<Destination> {
        let known = participant.known_head.as_deref()?;
        if known.acceptances_version != self.acceptances_version
            || message.len() as u64 > known.size_bytes_max
        {
            return None;
        }
        known.pattern.matches(message)?;
        Some(known.destination)
    }

    /// Remembers where a message went that begins with `head`. A private one does not count: whom
    /// it reaches has to be asked each time.
    pub(super) fn learn(&self, participant: &mut Participant, head: &[u8], route: &Route) {
        let size_bytes_max = match route.audience {
            Audience::Everybody => self.taken_as_sent(route),
            Audience::Address(_) => None,
        };
        let Some(size_bytes_max) = size_bytes_max else {
            return participant.known_head = None;
        };
        let known = participant.known_head.get_or_insert_with(|| {
            let (pattern, destination) = (Pattern::default(), route.destination());
            Box::new(KnownHead { pattern, destination, acceptances_version: 0, size_bytes_max: 0 })
        });
        known.destination = route.destination();
        known.acceptances_version = self.acceptances_version;
        known.size_bytes_max = size_bytes_max;
        known.pattern.learn(head);
    }
}
