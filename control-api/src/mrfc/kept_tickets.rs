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
