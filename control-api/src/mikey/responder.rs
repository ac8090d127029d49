//! The responder: has the ticket of a TRANSFER_INIT resolved and answers with TRANSFER_RESP
//! (RFC 6043 sections 4.2.2 and 4.2.3).

use zeroize::Zeroizing;

use super::codec::code_point::{
    EXTENSION_SDP_IDS, KEY_MPK, KEY_TEK, KEY_TGK, ROLE_INITIATOR, ROLE_KMS, ROLE_PRE_SHARED_KEY,
    ROLE_RESPONDER,
};
use super::codec::{
    CryptoSession, CsIdMap, DataType, Header, Identity, KeyData, Message, Payload, SecurityPolicy,
    Ticket, TicketFlags,
};
use super::derivation::KeySource;
use super::error::{Error, PolicyProblem};
use super::exchange::{
    RAND_BYTES, SessionRands, check_key_length, check_response, check_ticket, idr, kms_header,
    parse_expected, random_bytes, random_u32, required_rand, required_timestamp, required_uri,
    session_key, timestamp_payload, traffic_key,
};
use super::protection::{open_keys, seal, verify};
use super::replay::{MessageDigest, ReplayCache, checked_time};
use super::ticket::TicketContent;
use super::uri::{bounded, normalise};
use super::{
    Established, NtpTime, Parameters, PreSharedKey, Random, Suite, UriPattern, psk_identity,
};

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

/// Answers ticket transfers. It remembers authenticated messages against replay.
pub struct Responder {
    config: ResponderConfig,
    replay_cache: ReplayCache,
}

/// A ticket transfer that awaits the KMS.
pub struct Pending {
    transfer: Transfer,
    resolve: Resolve,
}

/// A ticket transfer whose ticket is to be resolved.
pub struct Transfer {
    transfer_init: Vec<u8>,
    message: Message,
    suite: Suite,
    initiator: String,
    initiator_rand: Vec<u8>,
    requested: String,
    session: CryptoSession,
    digest: MessageDigest,
    asked_as: String,
}

/// Our question to the KMS.
struct Resolve {
    suite: Suite,
    csb_id: u32,
    rand: Vec<u8>,
    message: Vec<u8>,
    time: NtpTime,
}

/// What the KMS answered.
struct Resolved {
    /// MPKi.
    message_protection: Zeroizing<Vec<u8>>,
    session_keys: Vec<KeyData>,
    responder: String,
}

impl Responder {
    /// A responder that has seen nothing yet.
    #[must_use]
    pub fn new(config: ResponderConfig) -> Self {
        let parameters = &config.parameters;
        let replay_cache =
            ReplayCache::new(parameters.clock_skew_max, parameters.replay_cache_entries_max);
        Self { config, replay_cache }
    }

    /// Checks TRANSFER_INIT as far as it can be without its keys, early and without the KMS
    /// (RFC 6043 section 4.2.2.2), and makes the RESOLVE_INIT to send to the KMS.
    ///
    /// `offered_protocols` are the protocol identifiers of the offer's `a=key-mgmt` lines in their
    /// order, joined with `;`. Draws CSB ID and RANDRr of the resolve exchange, in this order.
    ///
    /// # Errors
    /// The message is malformed, not for us, not fresh, or offers nothing we accept;
    /// [`Error::KeyLength`] where our own key is unusable.
    pub fn begin(
        &mut self,
        transfer_init: &[u8],
        offered_protocols: &str,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Pending, Vec<u8>), Error> {
        let transfer = self.check(transfer_init, offered_protocols, now)?;
        let resolve = self.resolve_init(&transfer, now, random)?;
        let resolve_init = resolve.message.clone();
        Ok((Pending { transfer, resolve }, resolve_init))
    }

    /// Checks TRANSFER_INIT as [`Responder::begin`] does, for a ticket that is not resolved by
    /// messages, as the KMS is in this process: see [`Transfer::finish`].
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
        let message = parse_expected(transfer_init, DataType::TransferInit)?;
        let verification = message.verification().ok_or(Error::MissingPayload("V"))?;
        let suite =
            Suite::of(message.header.prf, verification.algorithm, &parameters.accepted_suites)?;
        let initiator = required_uri(message.identity(ROLE_INITIATOR), "IDRi")?.to_owned();
        let requested = required_uri(message.identity(ROLE_RESPONDER), "IDRr")?.to_owned();
        if !self.config.accepted.iter().any(|pattern| pattern.matches(&requested)) {
            return Err(Error::NotForUs(requested));
        }
        self.check_policy(&message, &initiator, now)?;
        let session = accepted_session(&message, parameters)?.clone();
        let announced = message.extension(EXTENSION_SDP_IDS);
        if announced.is_some_and(|announced| announced != offered_protocols.as_bytes()) {
            return Err(Error::ProtocolListMismatch);
        }
        let time = checked_time(required_timestamp(&message)?, now, parameters.clock_skew_max)?;
        let digest = MessageDigest::new(initiator.as_bytes(), message.header.csb_id, time);
        self.replay_cache.check(digest)?;
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
            digest,
            asked_as,
        })
    }

    /// Names the key we share with the KMS.
    #[must_use]
    pub fn key_identity(&self) -> &[u8] {
        &self.config.kms_key.identity
    }

    fn check_policy(&self, message: &Message, initiator: &str, now: NtpTime) -> Result<(), Error> {
        let ticket = message.ticket().ok_or(Error::MissingPayload("TICKET"))?;
        check_ticket(ticket, &self.config.parameters, now)?;
        if !ticket.policy.flags.has(TicketFlags::PLAIN_RESPONDER) {
            return Err(Error::UnacceptablePolicy(PolicyProblem::AdditionalProcessing));
        }
        if message.kemac().is_some() {
            return Err(Error::UnacceptablePolicy(PolicyProblem::TransferredKeys));
        }
        if let Some(kms) = ticket.policy.identity(ROLE_KMS) {
            let kms = kms.as_uri().ok_or(Error::IdentityNotUri)?;
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

    /// In the suite of the transfer: long keys must not travel under short ones (RFC 6043
    /// section 12.1).
    fn resolve_init(
        &self,
        transfer: &Transfer,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Resolve, Error> {
        let Transfer { message: transfer_init, suite, asked_as, .. } = transfer;
        let (suite, asked_as) = (*suite, asked_as.clone());
        let config = &self.config;
        let key = &config.kms_key.key;
        check_key_length(key)?;
        let csb_id = random_u32(random);
        let rand = random_bytes(random, RAND_BYTES.max(key.len()));
        let ticket = transfer_init.ticket().ok_or(Error::MissingPayload("TICKET"))?;
        let message = Message {
            header: kms_header(DataType::ResolveInitPsk, suite.prf(), csb_id, true),
            payloads: vec![
                timestamp_payload(now),
                Payload::Randr { role: ROLE_RESPONDER, rand: rand.clone() },
                idr(ROLE_RESPONDER, Identity::uri(bounded(&asked_as)?)),
                idr(ROLE_KMS, Identity::uri(bounded(&config.kms_uri)?)),
                Payload::Ticket(Box::new(ticket.clone())),
                idr(ROLE_PRE_SHARED_KEY, Identity::bytes(&config.kms_key.identity)),
            ],
        };
        let source = KeySource::initial_message(suite.prf(), key, csb_id, &[], &rand);
        let identities = [asked_as.as_bytes(), config.kms_uri.as_bytes()];
        let message = seal(message, &source, suite.mac_algorithm(), &identities);
        Ok(Resolve { suite, csb_id, rand, message, time: now })
    }
}

impl Pending {
    /// URI of who calls, authenticated only once [`Pending::finish`] succeeds.
    #[must_use]
    pub fn initiator(&self) -> &str {
        &self.transfer.initiator
    }

    /// URI that was called.
    #[must_use]
    pub fn requested(&self) -> &str {
        self.transfer.requested()
    }

    /// Takes the KMS's answer, checks the MAC of TRANSFER_INIT with it, derives the key and makes
    /// TRANSFER_RESP. Draws RANDRr.
    ///
    /// # Errors
    /// The KMS refused, its answer is not authentic, or TRANSFER_INIT is not authentic or a
    /// replay.
    pub fn finish(
        self,
        responder: &mut Responder,
        resolve_resp: &[u8],
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Established, Vec<u8>), Error> {
        let resolved = self.open_response(&responder.config, resolve_resp, now)?;
        self.transfer.establish(responder, &resolved, now, random)
    }

    fn open_response(
        &self,
        config: &ResponderConfig,
        resolve_resp: &[u8],
        now: NtpTime,
    ) -> Result<Resolved, Error> {
        let resolve = &self.resolve;
        let suite = resolve.suite;
        let message = parse_expected(resolve_resp, DataType::ResolveResp)?;
        check_response(&message.header, resolve.csb_id, suite.prf())?;
        let key = &config.kms_key.key;
        let source =
            KeySource::response_message(suite.prf(), key, resolve.csb_id, &[], &resolve.rand);
        verify(&message, resolve_resp, &source, &[&resolve.message])?;
        let timestamp = required_timestamp(&message)?;
        checked_time(timestamp, now, config.parameters.clock_skew_max)?;
        let kemac = message.kemac().ok_or(Error::MissingPayload("KEMAC"))?;
        let open = |time| open_keys(kemac, &source, suite.encryption(), resolve.csb_id, time);
        let starts_with_mpk =
            |keys: &Vec<KeyData>| keys.first().is_some_and(|first| first.key_type == KEY_MPK);
        // RFC 3830 makes the IV from the initiator's T, which RFC 6043 responses do not repeat. The
        // response's own T is the likelier reading; the plaintext tells.
        let mut keys = open(timestamp.to_bits())
            .ok()
            .filter(starts_with_mpk)
            .map_or_else(|| open(resolve.time.0), Ok)?;
        if !starts_with_mpk(&keys) {
            return Err(Error::MissingPayload("MPKi"));
        }
        let message_protection = keys.remove(0).key;
        keys.retain(|key| matches!(key.key_type, KEY_TGK | KEY_TEK));
        let responder = match message.identity(ROLE_RESPONDER) {
            Some(identity) => identity.as_uri().ok_or(Error::IdentityNotUri)?.to_owned(),
            None => self.transfer.asked_as.clone(),
        };
        Ok(Resolved { message_protection, session_keys: keys, responder })
    }
}

impl Transfer {
    /// URI that was called.
    #[must_use]
    pub fn requested(&self) -> &str {
        &self.requested
    }

    /// The ticket, and as whom we have it resolved.
    #[must_use]
    pub fn question(&self) -> (&Ticket, &str) {
        let ticket = self.message.ticket().expect("it was checked");
        (ticket, &self.asked_as)
    }

    /// Takes what is in the ticket, checks the MAC of TRANSFER_INIT with it, derives the key and makes
    /// TRANSFER_RESP. Draws RANDRr.
    ///
    /// # Errors
    /// TRANSFER_INIT is not authentic or a replay.
    pub fn finish(
        self,
        responder: &mut Responder,
        content: TicketContent,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Established, Vec<u8>), Error> {
        let mut session_keys = content.session_keys;
        session_keys.retain(|key| matches!(key.key_type, KEY_TGK | KEY_TEK));
        let message_protection = content.message_protection.initiator;
        let responder_uri = self.asked_as.clone();
        let resolved = Resolved { message_protection, session_keys, responder: responder_uri };
        self.establish(responder, &resolved, now, random)
    }

    fn establish(
        self,
        responder: &mut Responder,
        resolved: &Resolved,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Established, Vec<u8>), Error> {
        let mpki = &resolved.message_protection;
        let csb_id = self.message.header.csb_id;
        let prf = self.suite.prf();
        let source = KeySource::initial_message(prf, mpki, csb_id, &self.initiator_rand, &[]);
        let identities = [self.initiator.as_bytes(), self.requested.as_bytes()];
        verify(&self.message, &self.transfer_init, &source, &identities)?;
        responder.replay_cache.insert(self.digest, now)?;

        let flags = self.message.ticket().map(|ticket| ticket.policy.flags);
        let flags = flags.expect("it was checked");
        let responder_rand = if flags.has(TicketFlags::RESPONDER_RAND) {
            random_bytes(random, RAND_BYTES)
        } else {
            Vec::new()
        };
        let key = session_key(&resolved.session_keys, &self.session.spi)?;
        let rands = SessionRands::new(flags, &self.initiator_rand, &responder_rand);
        let established = Established {
            psk: traffic_key(key, prf, self.session.id, &rands)?,
            psk_identity: psk_identity(csb_id, self.session.id),
            peer: self.initiator.clone(),
        };
        let parameters = &responder.config.parameters;
        let message = self.response(parameters, &resolved.responder, &responder_rand, key, now);
        let source =
            KeySource::response_message(prf, mpki, csb_id, &self.initiator_rand, &responder_rand);
        let algorithm = self.suite.mac_algorithm();
        Ok((established, seal(message, &source, algorithm, &[&self.transfer_init])))
    }

    fn response(
        &self,
        parameters: &Parameters,
        responder_uri: &str,
        responder_rand: &[u8],
        key: &KeyData,
        now: NtpTime,
    ) -> Message {
        let mut session = self.session.clone();
        session.spi = key.spi().unwrap_or_default().to_vec();
        let mut payloads = vec![timestamp_payload(now)];
        if !responder_rand.is_empty() {
            let rand = responder_rand.to_vec();
            payloads.push(Payload::Randr { role: ROLE_RESPONDER, rand });
        }
        payloads.push(idr(ROLE_RESPONDER, Identity::uri(responder_uri)));
        // RFC 6043 section 6.1.1: exactly one policy in the response, ours where none was offered.
        session.policy_numbers.truncate(1);
        if session.policy_numbers.is_empty() {
            session.policy_numbers.push(parameters.security_policy_number);
            payloads.push(Payload::SecurityPolicy(SecurityPolicy {
                number: parameters.security_policy_number,
                protection_type: session.protection_type,
                parameters: parameters.security_policy_parameters.clone(),
            }));
        }
        Message {
            header: Header {
                data_type: DataType::TransferResp,
                response_wanted: false,
                prf: self.message.header.prf,
                csb_id: self.message.header.csb_id,
                map: CsIdMap::GenericId(vec![session]),
            },
            payloads,
        }
    }
}

/// The one crypto session, for TLS (TS 23.333 clause 5.20.2).
fn accepted_session<'a>(
    message: &'a Message,
    parameters: &Parameters,
) -> Result<&'a CryptoSession, Error> {
    let CsIdMap::GenericId(sessions) = &message.header.map else {
        return Err(Error::CryptoSessionCount(0));
    };
    let [session] = sessions.as_slice() else {
        return Err(Error::CryptoSessionCount(sessions.len()));
    };
    if !parameters.accepted_protection_types_tls.contains(&session.protection_type) {
        return Err(Error::ProtectionTypeNotAccepted(session.protection_type));
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
