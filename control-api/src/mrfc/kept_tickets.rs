//! Tickets of the KMS that led to a session and may be used again (RFC 6043 section 5.3): the next call
//! to the same user needs no new one.

use std::collections::HashMap;
use std::fmt;

use super::keys::Parties;
use crate::mikey::codec::TicketFlags;
use crate::mikey::codec::code_point::ROLE_END;
use crate::mikey::{GrantedTicket, NtpTime, Parameters};

/// Tickets by the parties they are for. One that is in use is not among them, so that one which leads
/// to no session is not used a second time.
#[derive(Default)]
pub(super) struct KeptTickets(HashMap<Names, GrantedTicket>);

/// Who calls whom.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Names {
    caller: String,
    called: String,
}

impl From<&Parties<'_>> for Names {
    fn from(parties: &Parties<'_>) -> Self {
        Self { caller: parties.caller.to_owned(), called: parties.called.to_owned() }
    }
}

impl Names {
    pub(super) fn called(&self) -> &str {
        &self.called
    }
}

impl KeptTickets {
    /// A ticket that is good for another while.
    pub(super) fn take(
        &mut self,
        parties: &Parties<'_>,
        parameters: &Parameters,
        now: NtpTime,
    ) -> Option<GrantedTicket> {
        let ticket = self.0.remove(&Names::from(parties))?;
        is_good(&ticket, parameters, now).then_some(ticket)
    }

    /// Keeps a ticket that has led to a session. Of `kept_max`, none makes room before it has expired.
    pub(super) fn keep(
        &mut self,
        names: Names,
        ticket: GrantedTicket,
        kept_max: usize,
        parameters: &Parameters,
        now: NtpTime,
    ) {
        let reusable = ticket.ticket().policy.flags.has(TicketFlags::REUSABLE);
        if !reusable || !is_good(&ticket, parameters, now) {
            return;
        }
        if self.0.len() >= kept_max {
            self.0.retain(|_, kept| is_good(kept, parameters, now));
        }
        if self.0.len() < kept_max {
            self.0.insert(names, ticket);
        }
    }
}

/// It does not end before a clock that is ahead of ours says so. One without an end is the KMS's to
/// judge every time.
fn is_good(ticket: &GrantedTicket, parameters: &Parameters, now: NtpTime) -> bool {
    let end = ticket.ticket().policy.time(ROLE_END).and_then(NtpTime::from_timestamp);
    end.is_some_and(|end| now.after(parameters.clock_skew_max).is_before(end))
}

impl fmt::Debug for KeptTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeptTickets({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mikey::{TicketProtectionKey, TicketWish};

    fn at(seconds: u64) -> NtpTime {
        NtpTime::from_unix(Duration::from_secs(1_700_000_000 + seconds))
    }

    /// A ticket of an hour.
    fn ticket(
        called: &str,
        made: NtpTime,
        flags: impl FnOnce(TicketFlags) -> TicketFlags,
    ) -> GrantedTicket {
        let key = TicketProtectionKey { identity: b"key".to_vec(), key: vec![1; 16].into() };
        let responders = [called];
        let mut wish = TicketWish::new("sip:kms@example.com", "sip:tea@example.com", &responders);
        wish.flags = flags(wish.flags);
        let mut random = |bytes: &mut [u8]| bytes.fill(7);
        GrantedTicket::make_as_wished(&Parameters::default(), &wish, &key, made, &mut random)
            .expect("a ticket")
    }

    fn names(called: &str) -> Parties<'_> {
        Parties { caller: "sip:tea@example.com", called }
    }

    fn keep(kept: &mut KeptTickets, called: &str, now: NtpTime) {
        let (names, ticket) = (Names::from(&names(called)), ticket(called, now, |flags| flags));
        kept.keep(names, ticket, 2, &Parameters::default(), now);
    }

    fn takes(kept: &mut KeptTickets, called: &str, now: NtpTime) -> bool {
        kept.take(&names(called), &Parameters::default(), now).is_some()
    }

    #[test]
    fn a_ticket_is_taken_by_one_call_at_a_time_and_for_whom_it_is() {
        let mut kept = KeptTickets::default();
        keep(&mut kept, "sip:bob@example.com", at(0));
        assert!(!takes(&mut kept, "sip:carol@example.com", at(1)));
        assert!(takes(&mut kept, "sip:bob@example.com", at(1)));
        assert!(!takes(&mut kept, "sip:bob@example.com", at(1)), "it has to prove good again");
    }

    #[test]
    fn a_ticket_that_may_not_be_used_again_is_not_kept() {
        let mut kept = KeptTickets::default();
        let once =
            ticket("sip:bob@example.com", at(0), |flags| flags.without(TicketFlags::REUSABLE));
        let names = Names::from(&names("sip:bob@example.com"));
        kept.keep(names, once, 2, &Parameters::default(), at(0));
        assert!(!takes(&mut kept, "sip:bob@example.com", at(1)));
    }

    #[test]
    fn a_ticket_ends_before_a_clock_that_is_ahead_says_so() {
        let mut kept = KeptTickets::default();
        keep(&mut kept, "sip:bob@example.com", at(0));
        keep(&mut kept, "sip:carol@example.com", at(0));
        assert!(takes(&mut kept, "sip:bob@example.com", at(3539)));
        assert!(!takes(&mut kept, "sip:carol@example.com", at(3540)));
    }

    #[test]
    fn none_makes_room_before_it_has_expired() {
        let mut kept = KeptTickets::default();
        keep(&mut kept, "sip:bob@example.com", at(0));
        keep(&mut kept, "sip:carol@example.com", at(0));
        keep(&mut kept, "sip:dave@example.com", at(1));
        assert!(!takes(&mut kept, "sip:dave@example.com", at(1)));
        keep(&mut kept, "sip:dave@example.com", at(3600));
        assert_eq!(kept.0.len(), 1);
        assert!(takes(&mut kept, "sip:dave@example.com", at(3601)));
    }
}
