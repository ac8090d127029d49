//! The responder of a ticket transfer: checks TRANSFER_INIT, opens its ticket where it can or has it
//! resolved, and answers with TRANSFER_RESP (RFC 6043 section 4.2.2).

use super::codec::code_point::{EXTENSION_SDP_IDS, ROLE_INITIATOR, ROLE_KMS, ROLE_RESPONDER};
use super::codec::{self, CryptoSession, DataType, Message, TicketFlags, TicketPolicy};
use super::error::{Error, PolicyProblem, transfer_error};
use super::exchange::{
    check_ticket, only_session, parse_expected, required_rand, required_timestamp, required_uri,
    uri_of,
};
use super::forking::{check_forked_keys, check_initiator_data, is_forked};
use super::replay::{ReceivedMessage, ReplayCache, checked_message_time};
use super::resolve::{Pending, ResolvedTickets};
use super::ticket::{self, TicketContent};
use super::transfer::Transfer;
use super::uri::normalise;
use super::{NtpTime, Parameters, PreSharedKey, Random, Suite, TicketProtectionKey, UriPattern};

/// What a responder has to know.
#[derive(Clone, Debug)]
pub struct ResponderConfig {
    /// URIs that are ours: rooms by host, others exactly.
    pub accepted: Vec<UriPattern>,
    /// URI to answer and resolve as, instead of the one that was called (which then names a group
    /// this one belongs to).
    pub answer_as: Option<String>,
    /// Our KMS.
    pub kms_uri: String,
    /// Key shared with it.
    pub kms_key: PreSharedKey,
    /// What to send and to accept.
    pub parameters: Parameters,
}

/// A ticket protection key the responder shares, so that it opens tickets itself.
#[derive(Clone, Debug)]
pub struct HeldTicketKey {
    /// The key.
    pub key: TicketProtectionKey,
    /// Who makes tickets with it.
    pub maker: TicketMaker,
}

/// Who shares a ticket protection key with a responder.
#[derive(Clone, Debug)]
pub enum TicketMaker {
    /// The KMS, which vouches for the initiator (mode 2).
    Kms,
    /// Initiators, and as whom they may call (mode 4).
    Initiators(Vec<UriPattern>),
}

/// Answers ticket transfers. It remembers authenticated messages against replay.
pub struct Responder {
    pub(super) config: ResponderConfig,
    pub(super) replay_cache: ReplayCache,
    pub(super) resolved: ResolvedTickets,
    held: Vec<HeldTicketKey>,
}

impl Responder {
    /// A responder that has seen nothing yet.
    #[must_use]
    pub fn new(config: ResponderConfig) -> Self {
        let parameters = &config.parameters;
        let replay_cache =
            ReplayCache::new(parameters.clock_skew_max, parameters.replay_cache_entries_max)
                .with_counter_senders(parameters.counter_senders_max);
        let resolved = ResolvedTickets::new(parameters.resolved_tickets_max);
        Self { config, replay_cache, resolved, held: Vec::new() }
    }

    /// Tickets under this key need no KMS.
    pub fn hold_ticket_key(&mut self, held: HeldTicketKey) {
        self.held.push(held);
    }

    /// Checks TRANSFER_INIT as far as it can be without its keys, early and without the KMS
    /// (RFC 6043 section 4.2.2.2), and makes the RESOLVE_INIT to send to the KMS: [`Responder::check`]
    /// and [`Responder::ask`] in one, for a responder that opens no tickets itself.
    ///
    /// # Errors
    /// As those two.
    pub fn begin(
        &mut self,
        transfer_init: &[u8],
        offered_protocols: &str,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Pending, Vec<u8>), Error> {
        let transfer = self.check(transfer_init, offered_protocols, now)?;
        self.ask(transfer, now, random)
    }

    /// Checks TRANSFER_INIT as far as it can be without its keys. The keys come from
    /// [`Responder::open`], from the KMS by [`Responder::ask`], or, as the KMS is in this process,
    /// from `Kms::resolve_here`: see [`Transfer::finish`].
    ///
    /// `offered_protocols` are the protocol identifiers of the offer's `a=key-mgmt` lines in their
    /// order, joined with `;`.
    ///
    /// # Errors
    /// The message is malformed, not for us, not fresh, or offers nothing we accept.
    pub fn check(
        &mut self,
        transfer_init: &[u8],
        offered_protocols: &str,
        now: NtpTime,
    ) -> Result<Transfer, Error> {
        let parameters = &self.config.parameters;
        let message = parse_expected(transfer_init, DataType::TransferInit, parameters)?;
        let verification = message.verification().ok_or(Error::MissingPayload("V"))?;
        let suite =
            Suite::of(message.header.prf, verification.algorithm, &parameters.accepted_suites)?;
        let policy = &message.ticket().ok_or(Error::MissingPayload("TICKET"))?.policy;
        let (initiator, requested) = parties(&message, policy, parameters)?;
        if !self.config.accepted.iter().any(|pattern| pattern.matches(&requested)) {
            return Err(Error::NotForUs(requested));
        }
        self.check_policy(&message, &initiator, now)?;
        let session = accepted_session(&message, parameters)?.clone();
        let announced = message.extension(EXTENSION_SDP_IDS);
        if announced.is_some_and(|announced| announced != offered_protocols.as_bytes()) {
            return Err(Error::ProtocolListMismatch);
        }
        let timestamp = required_timestamp(&message)?;
        let time = checked_message_time(timestamp, now, parameters)?;
        let received = ReceivedMessage::new(initiator.as_bytes(), message.header.csb_id, time);
        self.replay_cache.check_message(&received)?;
        let initiator_rand = required_rand(&message, ROLE_INITIATOR)?;
        let asked_as = self.config.answer_as.clone().unwrap_or_else(|| requested.clone());
        let transfer_init = transfer_init.to_vec();
        Ok(Transfer {
            transfer_init,
            message,
            suite,
            initiator,
            initiator_rand,
            requested,
            session,
            timestamp,
            received,
            asked_as,
        })
    }

    /// What is in the ticket, where no KMS is needed to tell: we hold its key (modes 2 and 4), or
    /// had it resolved before and it may be used again (RFC 6043 section 5.3).
    ///
    /// # Errors
    /// The ticket is not authentic, not for us, or of a maker that may not make it.
    pub fn open(&self, transfer: &Transfer) -> Result<Option<TicketContent>, Error> {
        let ticket = transfer.message.ticket().expect("it was checked");
        let policy = &ticket.policy;
        // With forked keys only the KMS can tell that the initiator has those of the ticket. Who has
        // not learns nothing from an answer, unless the session key is one of its own, or one that
        // is not forked and so every responder has.
        let unproven = |content: &TicketContent| {
            let own_key = transfer.message.kemac().is_some();
            policy.flags.has(TicketFlags::KEY_FORKING)
                && (own_key || !content.session_keys.iter().all(is_forked))
        };
        let resolved = self.resolved.find(ticket, &transfer.asked_as);
        if let Some(content) = resolved.filter(|content| !unproven(content)) {
            return Ok(Some(content));
        }
        if self.held.is_empty() || policy.flags.has(TicketFlags::RESOLVE_MANDATORY) {
            return Ok(None);
        }
        // Tickets of other makers are opaque to us.
        let Ok(data) = codec::parse_base_ticket(&ticket.data) else {
            return Ok(None);
        };
        let named =
            |held: &&HeldTicketKey| Some(held.key.identity.as_slice()) == data.key_identity();
        let Some(held) = self.held.iter().find(named) else {
            return Ok(None);
        };
        let parameters = &self.config.parameters;
        let (mut content, _) = ticket::open(ticket, parameters, |_| Some(&held.key))?;
        check_maker(&held.maker, policy, &transfer.initiator)?;
        let asked_as = normalise(&transfer.asked_as);
        let requested = normalise(&transfer.requested);
        let for_us = policy.responders().filter_map(|named| uri_of(named).ok()).any(|named| {
            let named = normalise(named);
            named == asked_as || named == requested
        });
        if !for_us {
            return Err(Error::ResponderNotInTicket(transfer.asked_as.clone()));
        }
        check_forked_keys(policy.flags, &content.session_keys)?;
        content.responder = Some(transfer.asked_as.clone());
        Ok(Some(content))
    }

    /// What is sent and accepted.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.config.parameters
    }

    /// The MIKEY Error message about a TRANSFER_INIT that was refused, with the policies that would be
    /// taken where it is about those (RFC 6043 section 5.4). It is not authenticated: most of what is
    /// refused is refused before its keys are known. `None`: there is nothing to answer.
    #[must_use]
    pub fn refusal(&self, transfer_init: &[u8], error: &Error, now: NtpTime) -> Option<Vec<u8>> {
        let message = transfer_error(transfer_init, error, &self.config.parameters, now)?;
        Some(codec::encode(&message))
    }

    /// Names the key we share with the KMS.
    #[must_use]
    pub fn key_identity(&self) -> &[u8] {
        &self.config.kms_key.identity
    }

    fn check_policy(&self, message: &Message, initiator: &str, now: NtpTime) -> Result<(), Error> {
        let parameters = &self.config.parameters;
        let ticket = message.ticket().ok_or(Error::MissingPayload("TICKET"))?;
        check_ticket(ticket, parameters, now)?;
        check_initiator_data(ticket, parameters)?;
        let flags = ticket.policy.flags;
        if !flags.has(TicketFlags::PLAIN_RESPONDER) {
            return Err(Error::UnacceptablePolicy(PolicyProblem::AdditionalProcessing));
        }
        if message.kemac().is_some() && !flags.has(TicketFlags::INITIATOR_KEYS) {
            return Err(Error::UnacceptablePolicy(PolicyProblem::TransferredKeys));
        }
        if let Some(kms) = ticket.policy.identity(ROLE_KMS) {
            let kms = uri_of(kms)?;
            if normalise(kms) != normalise(&self.config.kms_uri) {
                return Err(Error::OtherKms(kms.to_owned()));
            }
        }
        // The ticket's IDRi is what the KMS vouches for (RFC 6043 section 4.2.3).
        let owner = required_uri(ticket.policy.identity(ROLE_INITIATOR), "ticket IDRi")?;
        if owner != initiator {
            return Err(Error::InitiatorMismatch);
        }
        Ok(())
    }
}

/// Flag D says who made the ticket, and the key's holders are known.
fn check_maker(maker: &TicketMaker, policy: &TicketPolicy, initiator: &str) -> Result<(), Error> {
    let by_kms = policy.flags.has(TicketFlags::MADE_BY_KMS);
    match maker {
        TicketMaker::Kms if by_kms => Ok(()),
        TicketMaker::Initiators(patterns) if !by_kms => {
            if patterns.iter().any(|pattern| pattern.matches(initiator)) {
                Ok(())
            } else {
                Err(Error::NotAuthorised(initiator.to_owned()))
            }
        }
        _ => Err(Error::UnacceptablePolicy(PolicyProblem::Maker)),
    }
}

/// Who calls and who is called. What the message leaves out, its ticket says (RFC 6043 section
/// 4.2.2.1 asks for both, but lets them be left out).
fn parties(
    message: &Message,
    policy: &TicketPolicy,
    parameters: &Parameters,
) -> Result<(String, String), Error> {
    let lenient = |identity| if parameters.strict { None } else { identity };
    let initiator =
        message.identity(ROLE_INITIATOR).or_else(|| lenient(policy.identity(ROLE_INITIATOR)));
    let mut responders = policy.responders();
    let only = responders.next().filter(|_| responders.next().is_none());
    let responder = message.identity(ROLE_RESPONDER).or_else(|| lenient(only));
    let initiator = required_uri(initiator, "IDRi")?.to_owned();
    Ok((initiator, required_uri(responder, "IDRr")?.to_owned()))
}

/// The one crypto session, for TLS (TS 23.333 clause 5.20.2).
fn accepted_session<'a>(
    message: &'a Message,
    parameters: &Parameters,
) -> Result<&'a CryptoSession, Error> {
    let session = only_session(&message.header.map)?;
    if !parameters.accepted_protection_types_tls.contains(&session.protection_type) {
        return Err(Error::ProtectionTypeNotAccepted(session.protection_type));
    }
    if parameters.strict && session.policy_numbers.is_empty() {
        return Err(Error::MissingPayload("SP"));
    }
    if let Some(number) = session.policy_numbers.first() {
        let known = message.security_policies().any(|policy| {
            policy.number == *number && policy.protection_type == session.protection_type
        });
        if !known {
            return Err(Error::UnknownSecurityPolicy(*number));
        }
    }
    Ok(session)
}
