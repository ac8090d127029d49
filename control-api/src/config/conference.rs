//! Section `[conference]`: what the focus of a conference does besides taking calls.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::check::{Check, Finding, Step, ensure};
use super::{Config, MikeyTicketKey, Realm, SharedWith};
use crate::mrfc::{DialPolicy, DialSecurity, TicketOpener, TicketSource};

/// Section `[conference]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conference {
    /// User part of the factory URI (RFC 4579 section 3.5): a call to it makes a new room with a
    /// name nobody can guess.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factory: Option<String>,
    /// Rooms at a time.
    pub rooms_max: u32,
    /// Who may subscribe to a conference.
    pub subscribers: Subscribers,
    /// Who may have the focus call others and throw them out (REFER).
    pub referrers: Referrers,
    /// Where calls of the focus go, host and port as numbers, UDP or (where they are large) TCP.
    /// Without it only callees whose URI has a numeric host are reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_proxy: Option<SocketAddr>,
    /// Calls of the focus that may be unanswered at a time.
    pub dials_max: u32,
    /// How calls of the focus are protected, unless their realm or whoever asks for one says
    /// otherwise.
    pub dial_security: DialSecurity,
    /// Who makes the tickets of calls that MIKEY keys, unless their realm says otherwise.
    pub dial_ticket: TicketSource,
    /// Who opens the tickets of such calls, unless their realm says otherwise.
    pub dial_ticket_opened_by: TicketOpener,
    /// Each responder gets keys of its own, unless the realm of such a call says otherwise.
    pub dial_key_forking: bool,
    /// Tickets of the KMS that are kept for the next call to the same user.
    pub dial_tickets_kept_max: usize,
    /// Our ticket protection key, by its `id` among those of the KMS: it protects the tickets we make for
    /// the KMS to open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dial_ticket_key: Option<String>,
    /// URIs of users that may do in every room what its members may do.
    pub operators: Vec<String>,
    /// Subscriptions of the node at a time.
    pub subscriptions_max: u32,
    /// Subscriptions to one room at a time.
    pub subscriptions_per_room_max: u32,
    /// The shortest subscription that is taken.
    pub subscription_seconds_min: u32,
    /// The longest subscription; a longer one is shortened to it.
    pub subscription_seconds_max: u32,
    /// A subscriber is told of changes this often at most; what happens in between is gathered.
    pub notify_interval_milliseconds: u64,
}

/// `conference.subscribers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subscribers {
    /// Members of the room and operators.
    Members,
    /// Everybody.
    Anyone,
}

/// `conference.referrers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Referrers {
    /// Members of the room and operators.
    Members,
    /// Operators only.
    Operators,
}

impl Default for Conference {
    fn default() -> Self {
        Self {
            factory: None,
            rooms_max: 10_000,
            subscribers: Subscribers::Members,
            referrers: Referrers::Members,
            outbound_proxy: None,
            dials_max: 1000,
            dial_security: DialSecurity::Plain,
            dial_ticket: TicketSource::Kms,
            dial_ticket_opened_by: TicketOpener::Kms,
            dial_key_forking: false,
            dial_tickets_kept_max: 0,
            dial_ticket_key: None,
            operators: Vec::new(),
            subscriptions_max: 100_000,
            subscriptions_per_room_max: 4096,
            subscription_seconds_min: 60,
            subscription_seconds_max: 86_400,
            notify_interval_milliseconds: 500,
        }
    }
}

impl Config {
    pub(super) fn check_conference(&self) -> Check {
        let conference = &self.conference;
        ensure(
            conference.factory.as_deref() != Some(""),
            &["conference", "factory"],
            || "the factory has no name".to_owned(),
            || "name the user part of its URI, or leave the setting out".to_owned(),
        )?;
        ensure(
            conference.factory.as_ref().is_none_or(|name| !self.rooms.list.contains(name)),
            &["conference", "factory"],
            || "the factory has the name of a room".to_owned(),
            || "choose a name that is not in rooms.list".to_owned(),
        )?;
        // RFC 6665 section 4.2.1.1: a notifier may refuse nothing of an hour or more as too short.
        ensure(
            conference.subscription_seconds_min <= 3600,
            &["conference", "subscription_seconds_min"],
            || "a subscription of an hour must be taken".to_owned(),
            || "use at most 3600".to_owned(),
        )?;
        ensure(
            conference.subscription_seconds_min <= conference.subscription_seconds_max,
            &["conference", "subscription_seconds_max"],
            || "the longest subscription is shorter than the shortest".to_owned(),
            || "raise it to subscription_seconds_min".to_owned(),
        )?;
        self.check_dial_ticket_key()
    }

    /// Whoever makes tickets has a key to protect them with.
    fn check_dial_ticket_key(&self) -> Check {
        let key = &self.conference.dial_ticket_key;
        ensure(
            key.as_ref().is_none_or(|id| self.kms.ticket_keys.iter().any(|key| key.id == *id)),
            &["conference", "dial_ticket_key"],
            || format!("no [[kms.ticket_key]] has the id {:?}", key.as_deref().unwrap_or_default()),
            || "name the key that is to protect the tickets of the node".to_owned(),
        )?;
        let own = [Step::Name("conference")];
        self.check_dial_tickets(&own, self.dial_policy(None))?;
        self.realms.iter().enumerate().try_for_each(|(index, realm)| {
            let path = [Step::Name("realm"), Step::Index(index)];
            self.check_dial_tickets(&path, self.dial_policy(Some(realm)))
        })
    }

    /// How calls of the focus are protected, in a realm or elsewhere.
    pub(crate) fn dial_policy(&self, realm: Option<&Realm>) -> DialPolicy {
        let conference = &self.conference;
        let of = |realm: &Realm| DialPolicy {
            security: realm.dial_security.unwrap_or(conference.dial_security),
            ticket: realm.dial_ticket.unwrap_or(conference.dial_ticket),
            opener: realm.dial_ticket_opened_by.unwrap_or(conference.dial_ticket_opened_by),
            key_forking: realm.dial_key_forking.unwrap_or(conference.dial_key_forking),
        };
        realm.map(of).unwrap_or(DialPolicy {
            security: conference.dial_security,
            ticket: conference.dial_ticket,
            opener: conference.dial_ticket_opened_by,
            key_forking: conference.dial_key_forking,
        })
    }

    /// `path`: the table that the policy is of.
    fn check_dial_tickets(&self, path: &[Step], policy: DialPolicy) -> Check {
        let finding = |name, message: &str, remedy: &str| {
            let path = path.iter().copied().chain([Step::Name(name)]).collect();
            Err(Finding { path, message: message.to_owned(), remedy: remedy.to_owned() })
        };
        // RFC 6043 section 6.10: only the KMS can fork keys.
        if policy.key_forking && policy.opener == TicketOpener::Callee {
            let remedy = "set dial_ticket_opened_by to \"kms\"";
            return finding("dial_key_forking", "only the KMS can fork the keys", remedy);
        }
        let shared = |key: &MikeyTicketKey| key.shared_with == SharedWith::Users;
        let (has_key, remedy) = match policy.opener {
            TicketOpener::Kms => (
                self.conference.dial_ticket_key.is_some(),
                "set conference.dial_ticket_key to the id of a [[kms.ticket_key]]",
            ),
            TicketOpener::Callee => (
                self.mikey.ticket_keys.iter().any(shared),
                "add a [[mikey.ticket_key]] that is shared with \"users\"",
            ),
        };
        if policy.ticket == TicketSource::Own && !has_key {
            return finding("dial_ticket", "there is no key to make tickets with", remedy);
        }
        Ok(())
    }
}
