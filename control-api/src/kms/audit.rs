//! Who got which keys: one line for each ticket issued or resolved, without any secret.
//!
//! These lines go to the log under the target `audit`, and are the one place where URIs are logged
//! above DEBUG: to say who is what they are for.

use std::time::{Duration, UNIX_EPOCH};

use crate::mikey::codec::code_point::{
    ROLE_END, ROLE_INITIATOR, ROLE_PRE_SHARED_KEY, ROLE_RESPONDER, ROLE_START,
};
use crate::mikey::codec::{self, DataType, Identity, Message, TicketPolicy};
use crate::mikey::{Error, NtpTime};

/// What a request is about, as far as it says itself.
#[derive(Debug)]
pub(super) struct Subject {
    /// Which message, as metrics name it.
    pub(super) message: &'static str,
    /// Names the key of whoever asks: IDRpsk, or the URI where a certificate is used.
    pub(super) user: Vec<u8>,
    /// T.
    pub(super) time: Option<NtpTime>,
    /// As whom it asks.
    party: String,
    /// Of the ticket that is to be resolved.
    policy: Option<TicketPolicy>,
}

impl Subject {
    pub(super) fn of(message: &Message) -> Self {
        let (name, role) = match message.header.data_type {
            DataType::RequestInitPsk => ("request_init_psk", ROLE_INITIATOR),
            DataType::RequestInitPk => ("request_init_pk", ROLE_INITIATOR),
            DataType::ResolveInitPsk => ("resolve_init_psk", ROLE_RESPONDER),
            DataType::ResolveInitPk => ("resolve_init_pk", ROLE_RESPONDER),
            _ => ("other", ROLE_INITIATOR),
        };
        let party = message.identity(role);
        let user = message.identity(ROLE_PRE_SHARED_KEY).or(party);
        Self {
            message: name,
            user: user.map_or_else(Vec::new, |user| user.data.clone()),
            time: message.timestamp().and_then(NtpTime::from_timestamp),
            party: party.map_or_else(String::new, text),
            policy: message.ticket().map(|ticket| ticket.policy.clone()),
        }
    }

    /// It got what it asked for: the ticket with this policy, or what is in its own.
    pub(super) fn tell_answered(&self, issued: Option<&TicketPolicy>) {
        let (outcome, policy) = match issued {
            Some(policy) => ("issued", Some(policy)),
            None => ("resolved", self.policy.as_ref()),
        };
        let user = self.user.escape_ascii();
        let Some(policy) = policy else {
            return tracing::info!(target: TARGET, outcome, %user, party = ?self.party);
        };
        tell_ticket(outcome, &user.to_string(), &self.party, policy);
    }

    /// It did not.
    pub(super) fn tell_refused(&self, error: &Error) {
        let user = self.user.escape_ascii();
        let (message, party) = (self.message, &self.party);
        tracing::info!(target: TARGET, outcome = "refused", message, %user, ?party, %error);
    }
}

/// A ticket was issued or resolved.
pub(super) fn tell_ticket(outcome: &str, user: &str, party: &str, policy: &TicketPolicy) {
    let initiator = policy.identity(ROLE_INITIATOR).map_or_else(String::new, text);
    let responders: Vec<String> = policy.responders().take(RESPONDERS_MAX).map(text).collect();
    let time = |role| policy.time(role).and_then(NtpTime::from_timestamp).map(date);
    let (from, until) = (time(ROLE_START), time(ROLE_END));
    let made_by_kms = policy.flags.has(codec::TicketFlags::MADE_BY_KMS);
    tracing::info!(
        target: TARGET,
        outcome,
        user,
        ?party,
        ?initiator,
        ?responders,
        from = from.as_deref().unwrap_or("-"),
        until = until.as_deref().unwrap_or("-"),
        made_by_kms,
    );
}

/// Whatever characters it has: Debug escapes them where it is written.
fn text(identity: &Identity) -> String {
    let data = &identity.data[..identity.data.len().min(IDENTITY_BYTES_MAX)];
    String::from_utf8_lossy(data).into_owned()
}

fn date(time: NtpTime) -> String {
    let unix = u64::try_from(time.to_unix_seconds()).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix))
}

const TARGET: &str = "audit";
/// A line is to stay one; a ticket may name dozens.
const RESPONDERS_MAX: usize = 8;
/// URIs of people are far shorter.
const IDENTITY_BYTES_MAX: usize = 256;
