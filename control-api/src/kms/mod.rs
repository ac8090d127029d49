//! Key management service: issues and resolves tickets (RFC 6043 section 4.1).
//!
//! Sans-IO. It answers REQUEST_INIT with a MIKEY base ticket, protected by a key of its own (mode 1)
//! or by one that it shares with the responder (mode 2), and RESOLVE_INIT for such tickets and for
//! those that initiators made with a ticket protection key it knows (mode 3). Both messages come with
//! a pre-shared key or with a certificate.

mod access;
mod grant;

mod audit;
mod binding;
mod client;
mod own_keys;
mod rate;
mod service;
mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::mikey::codec::code_point::{KEY_MPK, ROLE_INITIATOR, ROLE_KMS, ROLE_RESPONDER};
use crate::mikey::codec::{
    self, DataType, KeyData, Message, Payload, Ticket, TicketFlags, TicketPolicy,
};
use crate::mikey::derivation::{KeySource, Prf};
use crate::mikey::error::{PolicyProblem, authentic_error_message, error_payloads};
use crate::mikey::exchange::{
    RAND_BYTES, check_contents, check_ticket, idr, kms_header, random_bytes, required_uri,
    response_timestamp, uri_of,
};
use crate::mikey::forking::{check_forked_keys, check_initiator_data, fork, verify_initiator_data};
use crate::mikey::protection::{seal, seal_keys};
use crate::mikey::replay::ReplayCache;
use crate::mikey::request::rands_by_role;
use crate::mikey::ticket::{self, TicketContent};
use crate::mikey::uri::normalise;
use crate::mikey::{
    Authorities, Error, KeyPair, NtpTime, Parameters, PreSharedKey, Random, TicketProtectionKey,
    UriPattern, error_message,
};

use access::Authenticated;
pub use binding::{Exchange, HttpBinding};
pub use client::{AskError, ClientConfig, KmsClient};
use grant::Granted;
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
    /// Protect the tickets we issue, where the operator has not given us keys for that.
    own_keys: OwnKeys,
    /// The operator's, the one for new tickets first.
    issuing_keys: Vec<TicketProtectionKey>,
    shared_keys: Vec<SharedTicketKey>,
    public_key_service: Option<PublicKeyService>,
}

/// Who resolves and issues tickets in the same process. A KMS that is elsewhere is asked by messages
/// instead.
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
        random: Random<'_>,
    ) -> Result<TicketContent, Error>;

    /// See [`Kms::try_handle`]: a ticket request of this process.
    ///
    /// # Errors
    /// What is wrong with the request.
    fn request_here(
        &self,
        message: &[u8],
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Vec<u8>, Error>;
}

/// A ticket protection key that the KMS shares with responders, who open tickets themselves (mode 2).
/// Whoever has it could make tickets with it, so those who share it trust each other.
#[derive(Clone, Debug)]
pub struct SharedTicketKey {
    /// The key.
    pub key: TicketProtectionKey,
    /// Everybody who has it.
    pub responders: Vec<UriPattern>,
}

impl SharedTicketKey {
    /// Whether all whom a ticket is for have the key.
    fn is_for(&self, policy: &TicketPolicy) -> bool {
        policy.responders().all(|responder| {
            uri_of(responder)
                .is_ok_and(|uri| self.responders.iter().any(|pattern| pattern.matches(uri)))
        })
    }
}

/// What the KMS says to a request.
struct Answer {
    response: Vec<u8>,
    /// Policy of the ticket in it, where it is a REQUEST_RESP.
    issued: Option<TicketPolicy>,
}

/// Why there is no such answer.
struct Refusal {
    error: Error,
    /// The Error message, where it is authenticated.
    message: Option<Vec<u8>>,
}

impl Refusal {
    fn unauthenticated(error: Error) -> Self {
        Self { error, message: None }
    }

    /// The Error message about this request; empty where none is due.
    fn message(self, request: &[u8], now: NtpTime) -> Vec<u8> {
        self.message.or_else(|| error_message(request, &self.error, now)).unwrap_or_default()
    }
}

/// What the KMS needs to serve those that have certificates.
pub struct PublicKeyService {
    /// Ours.
    pub own: KeyPair,
    /// Who may vouch for those of users. A user may act as whom the certificate names.
    pub authorities: Authorities,
}

impl Kms {
    /// A KMS that has seen nothing yet.
    #[must_use]
    pub fn new(mut config: KmsConfig) -> Self {
        let users = std::mem::take(&mut config.users);
        let ticket_protection_keys = std::mem::take(&mut config.ticket_protection_keys);
        let parameters = &config.parameters;
        let replay_cache =
            ReplayCache::new(parameters.clock_skew_max, parameters.replay_cache_entries_max)
                .with_counter_senders(parameters.counter_senders_max);
        Self {
            config,
            users: users.into_iter().map(|user| (user.identity.clone(), user)).collect(),
            ticket_protection_keys: ticket_protection_keys
                .into_iter()
                .map(|key| (key.identity.clone(), key))
                .collect(),
            replay_cache,
            own_keys: OwnKeys::default(),
            issuing_keys: Vec::new(),
            shared_keys: Vec::new(),
            public_key_service: None,
        }
    }

    /// Protects the tickets we issue with the first of these, and opens those of all of them, in place
    /// of keys that we make ourselves: KMSs that have the same resolve one another's tickets.
    pub fn issue_with(&mut self, keys: Vec<TicketProtectionKey>) {
        self.issuing_keys = keys;
    }

    /// Issues tickets that these responders open themselves, to whoever asks for such (mode 2).
    pub fn share_ticket_key(&mut self, shared: SharedTicketKey) {
        self.shared_keys.push(shared);
    }

    /// Also serves those that have certificates.
    pub fn serve_certificates(&mut self, service: PublicKeyService) {
        self.public_key_service = Some(service);
    }

    /// Answers a message: the response, or a MIKEY Error message. Empty where no answer is due: the
    /// message is an Error itself, or no MIKEY message.
    #[must_use]
    pub fn handle(&mut self, message: &[u8], now: NtpTime, random: Random<'_>) -> Vec<u8> {
        let answered = match codec::parse(message) {
            Ok(parsed) => self.answer(parsed, message, now, random),
            Err(error) => Err(Refusal::unauthenticated(error.into())),
        };
        match answered {
            Ok(answer) => answer.response,
            Err(refusal) => refusal.message(message, now),
        }
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
        match self.answer(codec::parse(bytes)?, bytes, now, random) {
            Ok(answer) => Ok(answer.response),
            Err(refusal) => Err(refusal.error),
        }
    }

    /// Answers `message`, which is what `bytes` say.
    fn answer(
        &mut self,
        message: Message,
        bytes: &[u8],
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Answer, Refusal> {
        let unauthenticated = Refusal::unauthenticated;
        check_contents(&message, &self.config.parameters).map_err(unauthenticated)?;
        let data_type = message.header.data_type;
        let role = match data_type {
            DataType::RequestInitPsk | DataType::RequestInitPk => ROLE_INITIATOR,
            DataType::ResolveInitPsk | DataType::ResolveInitPk => ROLE_RESPONDER,
            other => return Err(unauthenticated(Error::UnexpectedMessage(other))),
        };
        let request = self.authenticate(message, bytes, role, now).map_err(unauthenticated)?;
        let answered = match role {
            ROLE_INITIATOR => self.request(&request, now, random),
            _ => self.resolve(&request, now, random),
        };
        answered.map_err(|error| self.authentic_refusal(&request, error, now))
    }

    /// About a request that is authentic, and so is the Error message: a MAC under its key, or our
    /// signature where it has none (RFC 6043 section 5.4).
    fn authentic_refusal(
        &self,
        request: &Authenticated<'_>,
        error: Error,
        now: NtpTime,
    ) -> Refusal {
        let signed = request.message.verification().is_none();
        let message = match &self.public_key_service {
            Some(service) if signed => error_payloads(request.bytes, &error, now)
                .and_then(|message| service.own.sign(message, &[]).ok()),
            _ => {
                let [initiator, responder] = rands_by_role(request.role, &request.rand);
                let (prf, csb_id) = (request.suite.prf(), request.message.header.csb_id);
                let key = &request.key;
                let source = KeySource::initial_message(prf, key, csb_id, initiator, responder);
                authentic_error_message(request.bytes, &error, &source, now)
            }
        };
        Refusal { error, message }
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
    ) -> Result<Answer, Error> {
        let wished = request.message.ticket_policy().ok_or(Error::MissingPayload("TP"))?;
        let granted = self.grant(wished, &request.uri, request.suite, now)?;
        let key = match (granted.shared, self.issuing_keys.first()) {
            (Some(index), _) => &self.shared_keys[index].key,
            (None, Some(key)) => key,
            (None, None) => self.own_keys.newest(now, random),
        };
        let parameters = &self.config.parameters;
        let Granted { policy, session_keys, .. } = granted;
        let suite = request.suite;
        let (ticket, content) =
            ticket::make(policy, parameters, suite, &session_keys, key, now, random)?;
        check_forked_keys(ticket.policy.flags, &content.session_keys)?;
        let issued = Some(ticket.policy.clone());
        Ok(Answer { response: self.respond(request, Some(ticket), &content, now), issued })
    }

    /// Ticket resolve (RFC 6043 section 4.2.3).
    fn resolve(
        &self,
        request: &Authenticated<'_>,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Answer, Error> {
        let ticket = request.message.ticket().ok_or(Error::MissingPayload("TICKET"))?;
        let content = self.open(ticket, &request.uri, now)?;
        let content = self.forked(ticket, content, &request.uri, random)?;
        Ok(Answer { response: self.respond(request, None, &content, now), issued: None })
    }

    /// Resolves a ticket for a responder in this process, which needs no messages to be sealed and
    /// opened again. It acts with the key of that identity. Draws RANDRkms where keys are forked.
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
        random: Random<'_>,
    ) -> Result<TicketContent, Error> {
        if !self.users.contains_key(key_identity) {
            return Err(Error::UnknownKeyIdentity(key_identity.escape_ascii().to_string()));
        }
        self.check_may_act_as(key_identity, responder)?;
        let content = self.open(ticket, responder, now)?;
        self.forked(ticket, content, responder, random)
    }

    /// The keys as this responder gets them, and under which name: others at the same ticket get
    /// others (RFC 6043 section 4.2.3.5).
    fn forked(
        &self,
        ticket: &Ticket,
        mut content: TicketContent,
        responder: &str,
        random: Random<'_>,
    ) -> Result<TicketContent, Error> {
        if !ticket.policy.flags.has(TicketFlags::KEY_FORKING) {
            content.responder = Some(responder.to_owned());
            return Ok(content);
        }
        let prf = ticket.policy.prf;
        let prf = Prf::from_code(prf).ok_or(Error::UnsupportedPrf(prf))?;
        verify_initiator_data(ticket, prf, &content.message_protection.responder)?;
        check_forked_keys(ticket.policy.flags, &content.session_keys)?;
        // RFC 6043 section 12.1: as long as the longest MPKr or TGK.
        let longest = content.session_keys.iter().map(|key| key.key.len()).max();
        let rand_bytes = longest.unwrap_or(0).max(content.message_protection.responder.len());
        let kms_rand = random_bytes(random, rand_bytes.max(RAND_BYTES));
        Ok(fork(content, prf, responder.to_owned(), kms_rand))
    }

    /// What is in a ticket, if that responder may have it.
    fn open(&self, ticket: &Ticket, uri: &str, now: NtpTime) -> Result<TicketContent, Error> {
        let config = &self.config;
        check_ticket(ticket, &config.parameters, now)?;
        check_initiator_data(ticket, &config.parameters)?;
        let shared = |identity: &[u8]| {
            self.shared_keys.iter().find(|shared| shared.key.identity == identity)
        };
        let given = |identity: &[u8]| self.issuing_keys.iter().find(|key| key.identity == identity);
        let own = |identity: &[u8]| given(identity).or_else(|| self.own_keys.find(identity));
        let (content, key) = ticket::open(ticket, &config.parameters, |identity| {
            let ours = own(identity).or_else(|| shared(identity).map(|shared| &shared.key));
            ours.or_else(|| self.ticket_protection_keys.get(identity))
        })?;
        let shared = shared(&key.identity);
        // Responders who share a key could make tickets with it in anybody's name, so they are good
        // for these responders and for no others.
        if let Some(shared) = shared
            && !shared.is_for(&ticket.policy)
        {
            return Err(Error::UnacceptablePolicy(PolicyProblem::Maker));
        }
        let made_by_kms = own(&key.identity).is_some() || shared.is_some();
        if ticket.policy.flags.has(TicketFlags::MADE_BY_KMS) != made_by_kms {
            return Err(Error::UnacceptablePolicy(PolicyProblem::Maker));
        }
        if !made_by_kms {
            // Otherwise whoever makes tickets could call as anybody.
            let owner = required_uri(ticket.policy.identity(ROLE_INITIATOR), "ticket IDRi")?;
            self.check_may_act_as(&key.identity, owner)?;
        }
        let may_resolve = ticket.policy.responders().any(|responder| {
            uri_of(responder).is_ok_and(|named| self.is_or_belongs_to(uri, named))
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
        ticket: Option<Ticket>,
        content: &TicketContent,
        now: NtpTime,
    ) -> Vec<u8> {
        let suite = request.suite;
        let parameters = &self.config.parameters;
        let csb_id = request.message.header.csb_id;
        let [initiator_rand, responder_rand] = rands_by_role(request.role, &request.rand);
        let source = KeySource::response_message(
            suite.prf(),
            &request.key,
            csb_id,
            initiator_rand,
            responder_rand,
        );
        let timestamp = response_timestamp(request.timestamp, now);
        let time = parameters.response_iv_time.choose(timestamp, request.timestamp);
        // MPKr, or MPKr' once it is forked, only where the initiator or the responder has a use for
        // it (RFC 6043 sections 4.2.1.5 and 4.2.3.5).
        let protection = &content.message_protection;
        let forking = match &ticket {
            Some(ticket) => ticket.policy.flags.has(TicketFlags::KEY_FORKING),
            None => content.kms_rand.is_some(),
        };
        let mpk = |key: &Zeroizing<Vec<u8>>, spi: &[u8]| KeyData {
            key_type: KEY_MPK,
            key: key.clone(),
            salt: None,
            validity: ticket::mpk_validity(parameters, spi),
        };
        let mut keys = vec![mpk(&protection.initiator, &protection.spi)];
        keys.extend(forking.then(|| mpk(&protection.responder, &protection.spi)));
        keys.extend(content.session_keys.iter().cloned());
        let kemac = seal_keys(&keys, &source, suite.encryption(), csb_id, time.to_bits());
        let data_type = match ticket {
            Some(_) => DataType::RequestResp,
            None => DataType::ResolveResp,
        };
        let mut header = kms_header(data_type, suite.prf(), csb_id, false);
        header.map = request.message.header.map.clone();
        let mut payloads = vec![
            Payload::Timestamp(timestamp),
            idr(ROLE_KMS, parameters.identity(&self.config.uri)),
        ];
        payloads.extend(ticket.map(|ticket| Payload::Ticket(Box::new(ticket))));
        payloads.push(Payload::Kemac(kemac));
        let responder = content.responder.as_deref();
        payloads.extend(responder.map(|uri| idr(ROLE_RESPONDER, parameters.identity(uri))));
        let kms_rand = content.kms_rand.clone();
        payloads.extend(kms_rand.map(|rand| Payload::Randr { role: ROLE_KMS, rand }));
        let message = Message { header, payloads };
        seal(message, &source, suite.mac_algorithm(), &[request.bytes])
    }
}
