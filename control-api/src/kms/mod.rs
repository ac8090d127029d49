//! Key management service: issues and resolves tickets (RFC 6043 section 4.1).
//!
//! Sans-IO. It answers REQUEST_INIT_PSK with a MIKEY base ticket protected by a key of its own
//! (mode 1), and RESOLVE_INIT_PSK for such tickets and for those that initiators made with a ticket
//! protection key it knows (mode 3).

mod audit;
mod binding;
mod client;
mod own_keys;
mod rate;
mod service;
mod state;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::mikey::codec::code_point::{
    KEY_MPK, ROLE_END, ROLE_INITIATOR, ROLE_KMS, ROLE_PRE_SHARED_KEY, ROLE_RESPONDER, ROLE_START,
};
use crate::mikey::codec::{
    self, DataType, Identity, KeyData, KeyValidity, Message, Payload, Ticket, TicketFlags,
    TicketPolicy, Timestamp,
};
use crate::mikey::derivation::KeySource;
use crate::mikey::error::PolicyProblem;
use crate::mikey::exchange::{
    check_key_length, check_ticket, idr, kms_header, required_rand, required_timestamp,
    required_uri, timestamp_payload,
};
use crate::mikey::protection::{seal, seal_keys, verify};
use crate::mikey::replay::{MessageDigest, ReplayCache, checked_time};
use crate::mikey::ticket::{self, TicketContent};
use crate::mikey::uri::normalise;
use crate::mikey::{
    Error, NtpTime, Parameters, PreSharedKey, Random, Suite, TicketProtectionKey, UriPattern,
    error_message,
};

pub use binding::{Exchange, HttpBinding};
pub use client::{AskError, ClientConfig, KmsClient};
use own_keys::OwnKeys;
pub use service::{KmsService, ServicePolicy};
pub use state::StateError;

/// Length of the KMS's own ticket protection key, enough for every suite.
const OWN_KEY_BYTES: usize = 32;
/// Length of the identity the KMS gives its own ticket protection key.
const OWN_KEY_IDENTITY_BYTES: usize = 8;

/// What a KMS has to know.
#[derive(Clone, Debug)]
pub struct KmsConfig {
    /// Our URI.
    pub uri: String,
    /// Keys shared with those who request and resolve tickets.
    pub users: Vec<PreSharedKey>,
    /// Keys shared with those who make their own tickets.
    pub ticket_protection_keys: Vec<TicketProtectionKey>,
    /// Longest validity of a ticket we issue.
    pub ticket_lifetime: Duration,
    /// As whom the owner of a key, named by the identity of the key, may act: request tickets,
    /// make them, resolve them. A key that is not here may not be used.
    pub may_act_as: BTreeMap<Vec<u8>, Vec<UriPattern>>,
    /// Members of the groups that tickets may name as responder, by the group's URI.
    pub groups: BTreeMap<String, Vec<UriPattern>>,
    /// What to send and to accept.
    pub parameters: Parameters,
}

/// The KMS. It remembers authenticated requests against replay.
pub struct Kms {
    config: KmsConfig,
    users: BTreeMap<Vec<u8>, PreSharedKey>,
    ticket_protection_keys: BTreeMap<Vec<u8>, TicketProtectionKey>,
    replay_cache: ReplayCache,
    /// Protect the tickets we issue.
    own_keys: OwnKeys,
}

/// Who resolves tickets for a responder in the same process. A KMS that is elsewhere is asked by
/// messages instead.
pub trait TicketResolver: Send + Sync {
    /// See [`Kms::resolve_here`].
    ///
    /// # Errors
    /// What RESOLVE_INIT would be refused for.
    fn resolve_here(
        &self,
        ticket: &Ticket,
        responder: &str,
        key_identity: &[u8],
        now: NtpTime,
    ) -> Result<TicketContent, Error>;
}

impl TicketResolver for Mutex<Kms> {
    fn resolve_here(
        &self,
        ticket: &Ticket,
        responder: &str,
        key_identity: &[u8],
        now: NtpTime,
    ) -> Result<TicketContent, Error> {
        // A panic inside would poison the lock; the state is only a replay cache, so go on.
        let kms = self.lock().unwrap_or_else(PoisonError::into_inner);
        kms.resolve_here(ticket, responder, key_identity, now)
    }
}

/// A request that passed authentication.
struct Authenticated<'a> {
    message: Message,
    bytes: &'a [u8],
    user: PreSharedKey,
    suite: Suite,
    uri: String,
    initiator_rand: Vec<u8>,
    responder_rand: Vec<u8>,
}

impl Kms {
    /// A KMS that has seen nothing yet.
    #[must_use]
    pub fn new(mut config: KmsConfig) -> Self {
        let users = std::mem::take(&mut config.users);
        let ticket_protection_keys = std::mem::take(&mut config.ticket_protection_keys);
        let parameters = &config.parameters;
        let replay_cache =
            ReplayCache::new(parameters.clock_skew_max, parameters.replay_cache_entries_max);
        Self {
            config,
            users: users.into_iter().map(|user| (user.identity.clone(), user)).collect(),
            ticket_protection_keys: ticket_protection_keys
                .into_iter()
                .map(|key| (key.identity.clone(), key))
                .collect(),
            replay_cache,
            own_keys: OwnKeys::default(),
        }
    }

    /// Answers a message: the response, or a MIKEY Error message. Empty where no answer is due: the
    /// message is an Error itself, or no MIKEY message.
    #[must_use]
    pub fn handle(&mut self, message: &[u8], now: NtpTime, random: Random<'_>) -> Vec<u8> {
        self.try_handle(message, now, random)
            .unwrap_or_else(|error| error_message(message, &error, now).unwrap_or_default())
    }

    /// Like [`Kms::handle`], with the reason where it is an Error message.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn try_handle(
        &mut self,
        bytes: &[u8],
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Vec<u8>, Error> {
        let message = codec::parse(bytes)?;
        match message.header.data_type {
            DataType::RequestInitPsk => {
                let request = self.authenticate(message, bytes, ROLE_INITIATOR, now)?;
                self.request(&request, now, random)
            }
            DataType::ResolveInitPsk => {
                let request = self.authenticate(message, bytes, ROLE_RESPONDER, now)?;
                self.resolve(&request, now)
            }
            other => Err(Error::UnexpectedMessage(other)),
        }
    }

    /// Checks who sent the request, that it is fresh, and that they may act as who they say.
    fn authenticate<'a>(
        &mut self,
        message: Message,
        bytes: &'a [u8],
        role: u8,
        now: NtpTime,
    ) -> Result<Authenticated<'a>, Error> {
        let parameters = &self.config.parameters;
        let verification = message.verification().ok_or(Error::MissingPayload("V"))?;
        let suite =
            Suite::of(message.header.prf, verification.algorithm, &parameters.accepted_suites)?;
        let time = checked_time(required_timestamp(&message)?, now, parameters.clock_skew_max)?;
        let identity =
            message.identity(ROLE_PRE_SHARED_KEY).ok_or(Error::MissingPayload("IDRpsk"))?;
        let user = self
            .users
            .get(&identity.data)
            .ok_or_else(|| Error::UnknownKeyIdentity(identity.data.escape_ascii().to_string()))?
            .clone();
        let name = if role == ROLE_INITIATOR { "IDRi" } else { "IDRr" };
        let uri = required_uri(message.identity(role), name)?.to_owned();
        let kms_uri = match message.identity(ROLE_KMS) {
            Some(identity) => identity.as_uri().ok_or(Error::IdentityNotUri)?.to_owned(),
            None => self.config.uri.clone(),
        };
        let rand = required_rand(&message, role)?;
        let (initiator_rand, responder_rand) =
            if role == ROLE_INITIATOR { (rand, Vec::new()) } else { (Vec::new(), rand) };
        let csb_id = message.header.csb_id;
        check_key_length(&user.key)?;
        let source = KeySource::initial_message(
            suite.prf(),
            &user.key,
            csb_id,
            &initiator_rand,
            &responder_rand,
        );
        verify(&message, bytes, &source, &[uri.as_bytes(), kms_uri.as_bytes()])?;
        self.replay_cache.insert(MessageDigest::new(&user.identity, csb_id, time), now)?;
        if normalise(&kms_uri) != normalise(&self.config.uri) {
            return Err(Error::OtherKms(kms_uri));
        }
        self.check_may_act_as(&user.identity, &uri)?;
        Ok(Authenticated { message, bytes, user, suite, uri, initiator_rand, responder_rand })
    }

    fn check_may_act_as(&self, key_identity: &[u8], uri: &str) -> Result<(), Error> {
        let patterns = self.config.may_act_as.get(key_identity).map_or(&[][..], Vec::as_slice);
        if patterns.iter().any(|pattern| pattern.matches(uri)) {
            Ok(())
        } else {
            Err(Error::NotAuthorised(uri.to_owned()))
        }
    }

    /// Ticket request (RFC 6043 section 4.2.1).
    fn request(
        &mut self,
        request: &Authenticated<'_>,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Vec<u8>, Error> {
        let wished = request.message.ticket_policy().ok_or(Error::MissingPayload("TP"))?;
        let policy = self.grant(wished, &request.uri, now)?;
        let own_key = self.own_keys.newest(now, random);
        let (ticket, content) = ticket::make(policy, request.suite, own_key, now, random)?;
        Ok(self.respond(request, DataType::RequestResp, Some(ticket), &content, now))
    }

    /// The policy we are willing to grant, K set where it is not the wished one.
    fn grant(
        &self,
        wished: &TicketPolicy,
        initiator: &str,
        now: NtpTime,
    ) -> Result<TicketPolicy, Error> {
        let parameters = &self.config.parameters;
        let refuse = |problem| Err(Error::UnacceptablePolicy(problem));
        if !parameters.accepted_ticket_types.contains(&wished.ticket_type) {
            return Err(Error::UnsupportedTicketType(wished.ticket_type));
        }
        // K has no meaning in a wish (RFC 6043 section 6.10).
        let flags =
            wished.flags.without(TicketFlags::CHANGED_BY_KMS).with(TicketFlags::MADE_BY_KMS);
        if !flags.is_consistent() {
            return refuse(PolicyProblem::Inconsistent);
        }
        if flags.has(TicketFlags::KEY_FORKING) {
            return refuse(PolicyProblem::KeyForking);
        }
        if wished.responders().next().is_none() {
            return Err(Error::MissingPayload("TP IDRr"));
        }
        let owner = wished.identity(ROLE_INITIATOR).map(|identity| identity.data.as_slice());
        if owner.is_some_and(|owner| owner != initiator.as_bytes()) {
            return Err(Error::InitiatorMismatch);
        }
        let mut policy = TicketPolicy {
            ticket_type: wished.ticket_type,
            subtype: 1,
            version: 1,
            prf: wished.prf,
            flags,
            payloads: vec![
                idr(ROLE_KMS, Identity::uri(&self.config.uri)),
                idr(ROLE_INITIATOR, Identity::uri(initiator)),
            ],
        };
        policy.payloads.extend(self.granted_validity(wished, now));
        let lasting = |payload: &&Payload| match payload {
            Payload::Idr { role, .. } => !matches!(*role, ROLE_KMS | ROLE_INITIATOR),
            Payload::Tr { role, .. } => !matches!(*role, ROLE_START | ROLE_END),
            // A KEMAC only wishes for keys and must not be granted; others are unexpected.
            _ => false,
        };
        policy.payloads.extend(wished.payloads.iter().filter(lasting).cloned());
        if policy.payloads != wished.payloads {
            policy.flags = policy.flags.with(TicketFlags::CHANGED_BY_KMS);
        }
        Ok(policy)
    }

    fn granted_validity(&self, wished: &TicketPolicy, now: NtpTime) -> [Payload; 2] {
        let limit = now.after(self.config.ticket_lifetime);
        let time = |role, fallback: NtpTime| {
            wished.time(role).and_then(NtpTime::from_timestamp).unwrap_or(fallback)
        };
        let end = time(ROLE_END, limit);
        let end = if limit.is_before(end) { limit } else { end };
        let payload =
            |role, at: NtpTime| Payload::Tr { role, timestamp: Timestamp::NtpUtc32(at.seconds()) };
        [payload(ROLE_START, time(ROLE_START, now)), payload(ROLE_END, end)]
    }

    /// Ticket resolve (RFC 6043 section 4.2.3).
    fn resolve(&self, request: &Authenticated<'_>, now: NtpTime) -> Result<Vec<u8>, Error> {
        let ticket = request.message.ticket().ok_or(Error::MissingPayload("TICKET"))?;
        let content = self.open(ticket, &request.uri, now)?;
        Ok(self.respond(request, DataType::ResolveResp, None, &content, now))
    }

    /// Resolves a ticket for a responder in this process, which needs no messages to be sealed and
    /// opened again. It acts with the key of that identity.
    ///
    /// # Errors
    /// What RESOLVE_INIT would be refused for: the key is not known or its owner may not act as
    /// `responder`, the ticket is not valid, not authentic, or not for it.
    pub fn resolve_here(
        &self,
        ticket: &Ticket,
        responder: &str,
        key_identity: &[u8],
        now: NtpTime,
    ) -> Result<TicketContent, Error> {
        if !self.users.contains_key(key_identity) {
            return Err(Error::UnknownKeyIdentity(key_identity.escape_ascii().to_string()));
        }
        self.check_may_act_as(key_identity, responder)?;
        self.open(ticket, responder, now)
    }

    /// What is in a ticket, if that responder may have it.
    fn open(&self, ticket: &Ticket, uri: &str, now: NtpTime) -> Result<TicketContent, Error> {
        let config = &self.config;
        check_ticket(ticket, &config.parameters, now)?;

        let (content, key) =
            ticket::open(ticket, &config.parameters.accepted_suites, |identity| {
                let own = self.own_keys.find(identity);
                own.or_else(|| self.ticket_protection_keys.get(identity))
            })?;
        let made_by_kms = self.own_keys.find(&key.identity).is_some();
        if ticket.policy.flags.has(TicketFlags::MADE_BY_KMS) != made_by_kms {
            return Err(Error::UnacceptablePolicy(PolicyProblem::Inconsistent));
        }
        if !made_by_kms {
            // Otherwise whoever makes tickets could call as anybody.
            let owner = required_uri(ticket.policy.identity(ROLE_INITIATOR), "ticket IDRi")?;
            self.check_may_act_as(&key.identity, owner)?;
        }
        let may_resolve = ticket.policy.responders().any(|responder| {
            responder.as_uri().is_some_and(|named| self.is_or_belongs_to(uri, named))
        });
        if !may_resolve {
            return Err(Error::ResponderNotInTicket(uri.to_owned()));
        }
        Ok(content)
    }

    fn is_or_belongs_to(&self, uri: &str, named: &str) -> bool {
        if normalise(uri) == normalise(named) {
            return true;
        }
        let members = self.config.groups.get(named).map_or(&[][..], Vec::as_slice);
        members.iter().any(|member| member.matches(uri))
    }

    /// REQUEST_RESP (with the ticket) or RESOLVE_RESP.
    fn respond(
        &self,
        request: &Authenticated<'_>,
        data_type: DataType,
        ticket: Option<Ticket>,
        content: &TicketContent,
        now: NtpTime,
    ) -> Vec<u8> {
        let suite = request.suite;
        let csb_id = request.message.header.csb_id;
        let source = KeySource::response_message(
            suite.prf(),
            &request.user.key,
            csb_id,
            &request.initiator_rand,
            &request.responder_rand,
        );
        let mut keys = vec![KeyData {
            key_type: KEY_MPK,
            key: content.message_protection.initiator.clone(),
            salt: None,
            validity: KeyValidity::Spi(content.message_protection.spi.clone()),
        }];
        keys.extend(content.session_keys.iter().cloned());
        let kemac = seal_keys(&keys, &source, suite.encryption(), csb_id, now.0);
        let mut header = kms_header(data_type, suite.prf(), csb_id, false);
        header.map = request.message.header.map.clone();
        let mut payloads =
            vec![timestamp_payload(now), idr(ROLE_KMS, Identity::uri(&self.config.uri))];
        payloads.extend(ticket.map(|ticket| Payload::Ticket(Box::new(ticket))));
        payloads.push(Payload::Kemac(kemac));
        if data_type == DataType::ResolveResp {
            payloads.push(idr(ROLE_RESPONDER, Identity::uri(&request.uri)));
        }
        let message = Message { header, payloads };
        seal(message, &source, suite.mac_algorithm(), &[request.bytes])
    }
}
