//! The initiator: gets or makes a ticket, sends TRANSFER_INIT, checks TRANSFER_RESP (RFC 6043
//! sections 4.2.1 and 4.2.2).

use std::fmt;

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
use super::replay::checked_time;
use super::ticket::{self, FLAGS_BASE, FLAGS_OWN, Parties};
use super::uri::bounded;
use super::{
    Established, NtpTime, Parameters, PreSharedKey, Random, Suite, TicketProtectionKey, UriPattern,
    psk_identity, sdp_attribute,
};

/// A ticket transfer that awaits TRANSFER_RESP.
pub struct Initiator {
    parameters: Parameters,
    suite: Suite,
    csb_id: u32,
    initiator_rand: Vec<u8>,
    transfer_init: Vec<u8>,
    ticket: GrantedTicket,
    accepted_responders: Vec<UriPattern>,
}

/// A ticket and the keys in it. With flag J it may be used for several transfers.
#[derive(Clone)]
pub struct GrantedTicket {
    ticket: Ticket,
    initiator_uri: String,
    message_protection: Zeroizing<Vec<u8>>,
    session_keys: Vec<KeyData>,
}

impl fmt::Debug for GrantedTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantedTicket")
            .field("initiator_uri", &self.initiator_uri)
            .finish_non_exhaustive()
    }
}

impl GrantedTicket {
    /// Makes a base ticket (mode 3). Draws RAND, MPK and TGK, in this order.
    ///
    /// # Errors
    /// [`Error::IdentityTooLong`], [`Error::KeyLength`].
    pub fn make(
        parameters: &Parameters,
        initiator_uri: &str,
        responder_uri: &str,
        kms_uri: &str,
        tpk: &TicketProtectionKey,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Self, Error> {
        let parties = Parties {
            kms_uri: bounded(kms_uri)?,
            initiator_uri: bounded(initiator_uri)?,
            responder_uri: bounded(responder_uri)?,
        };
        let policy = ticket::policy(parameters, FLAGS_OWN, &parties, now);
        let (ticket, content) = ticket::make(policy, parameters.suite, tpk, now, random)?;
        Ok(Self {
            ticket,
            initiator_uri: initiator_uri.to_owned(),
            message_protection: content.message_protection.initiator,
            session_keys: content.session_keys,
        })
    }

    /// The ticket itself.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }
}

impl Initiator {
    /// Makes a ticket (mode 3) and TRANSFER_INIT with it.
    ///
    /// # Errors
    /// [`Error::IdentityTooLong`], [`Error::KeyLength`].
    pub fn with_own_ticket(
        parameters: &Parameters,
        initiator_uri: &str,
        responder_uri: &str,
        kms_uri: &str,
        tpk: &TicketProtectionKey,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Self, Vec<u8>), Error> {
        let ticket = GrantedTicket::make(
            parameters,
            initiator_uri,
            responder_uri,
            kms_uri,
            tpk,
            now,
            random,
        )?;
        Self::with_granted_ticket(parameters, &ticket, responder_uri, now, random)
    }

    /// Makes the REQUEST_INIT_PSK that asks the KMS for a ticket (mode 1).
    ///
    /// # Errors
    /// [`Error::IdentityTooLong`], [`Error::KeyLength`].
    pub fn request_ticket(
        parameters: &Parameters,
        initiator_uri: &str,
        responder_uri: &str,
        kms_uri: &str,
        kms_key: &PreSharedKey,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(PendingRequest, Vec<u8>), Error> {
        let parties = Parties {
            kms_uri: bounded(kms_uri)?,
            initiator_uri: bounded(initiator_uri)?,
            responder_uri: bounded(responder_uri)?,
        };
        check_key_length(&kms_key.key)?;
        let suite = parameters.suite;
        let csb_id = random_u32(random);
        let rand = random_bytes(random, RAND_BYTES.max(kms_key.key.len()));
        let flags = FLAGS_BASE.with(TicketFlags::MADE_BY_KMS);
        let policy = ticket::policy(parameters, flags, &parties, now);
        let message = Message {
            header: kms_header(DataType::RequestInitPsk, suite.prf(), csb_id, true),
            payloads: vec![
                timestamp_payload(now),
                Payload::Randr { role: ROLE_INITIATOR, rand: rand.clone() },
                idr(ROLE_INITIATOR, Identity::uri(initiator_uri)),
                idr(ROLE_KMS, Identity::uri(kms_uri)),
                Payload::TicketPolicy(policy),
                idr(ROLE_PRE_SHARED_KEY, Identity::bytes(&kms_key.identity)),
            ],
        };
        let source = KeySource::initial_message(suite.prf(), &kms_key.key, csb_id, &rand, &[]);
        let identities = [initiator_uri.as_bytes(), kms_uri.as_bytes()];
        let bytes = seal(message, &source, suite.mac_algorithm(), &identities);
        let pending = PendingRequest {
            parameters: parameters.clone(),
            csb_id,
            rand,
            kms_key: kms_key.clone(),
            request: bytes.clone(),
            initiator_uri: initiator_uri.to_owned(),
        };
        Ok((pending, bytes))
    }

    /// Makes TRANSFER_INIT with a ticket there is. Draws CSB ID and RANDRi, in this order.
    ///
    /// # Errors
    /// The ticket is not good (any more), [`Error::UnknownSessionKey`],
    /// [`Error::IdentityTooLong`].
    ///
    /// # Panics
    /// Where [`Parameters::security_policy_parameters`] are longer than 64 KiB.
    pub fn with_granted_ticket(
        parameters: &Parameters,
        ticket: &GrantedTicket,
        responder_uri: &str,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Self, Vec<u8>), Error> {
        check_ticket(&ticket.ticket, parameters, now)?;
        let spi = session_key(&ticket.session_keys, &[])?.spi().unwrap_or_default().to_vec();
        let suite = parameters.suite;
        let csb_id = random_u32(random);
        let initiator_rand = random_bytes(random, RAND_BYTES);
        let identities = [ticket.initiator_uri.as_str(), bounded(responder_uri)?];
        let header = Header {
            data_type: DataType::TransferInit,
            // RFC 6043 section 4.2.2.1: V agrees with F, which check_ticket has seen set.
            response_wanted: true,
            prf: suite.prf().code(),
            csb_id,
            map: CsIdMap::GenericId(vec![CryptoSession {
                id: parameters.crypto_session_id,
                protection_type: parameters.protection_type_tls,
                session_data_extended: false,
                policy_numbers: vec![parameters.security_policy_number],
                session_data: Vec::new(),
                spi,
            }]),
        };
        let payloads = transfer_payloads(parameters, ticket, identities, &initiator_rand, now);
        let message = Message { header, payloads };
        let source = KeySource::initial_message(
            suite.prf(),
            &ticket.message_protection,
            csb_id,
            &initiator_rand,
            &[],
        );
        let identities = identities.map(str::as_bytes);
        let transfer_init = seal(message, &source, suite.mac_algorithm(), &identities);
        let initiator = Self {
            parameters: parameters.clone(),
            suite,
            csb_id,
            initiator_rand,
            transfer_init: transfer_init.clone(),
            ticket: ticket.clone(),
            accepted_responders: vec![UriPattern::Exact(responder_uri.to_owned())],
        };
        Ok((initiator, transfer_init))
    }

    /// Also takes an answer from these, where a group was called.
    pub fn accept_responder(&mut self, pattern: UriPattern) {
        self.accepted_responders.push(pattern);
    }

    /// TLS identity of the key that is to come.
    #[must_use]
    pub fn psk_identity(&self) -> String {
        psk_identity(self.csb_id, self.parameters.crypto_session_id)
    }

    /// Checks TRANSFER_RESP and derives the key.
    ///
    /// # Errors
    /// The response is malformed, not authentic, not to our message, or from somebody else than
    /// was called.
    pub fn finish(self, transfer_resp: &[u8], now: NtpTime) -> Result<Established, Error> {
        let message = parse_expected(transfer_resp, DataType::TransferResp)?;
        check_response(&message.header, self.csb_id, self.suite.prf())?;
        let flags = self.ticket.ticket.policy.flags;
        let responder_rand = if flags.has(TicketFlags::RESPONDER_RAND) {
            required_rand(&message, ROLE_RESPONDER)?
        } else {
            Vec::new()
        };
        let source = KeySource::response_message(
            self.suite.prf(),
            &self.ticket.message_protection,
            self.csb_id,
            &self.initiator_rand,
            &responder_rand,
        );
        verify(&message, transfer_resp, &source, &[&self.transfer_init])?;
        checked_time(required_timestamp(&message)?, now, self.parameters.clock_skew_max)?;
        let peer = required_uri(message.identity(ROLE_RESPONDER), "IDRr")?;
        if !self.accepted_responders.iter().any(|pattern| pattern.matches(peer)) {
            return Err(Error::UnexpectedResponder(peer.to_owned()));
        }
        if message.kemac().is_some() {
            return Err(Error::UnacceptablePolicy(PolicyProblem::TransferredKeys));
        }
        let session = self.accepted_session(&message.header.map)?;
        let key = session_key(&self.ticket.session_keys, &session.spi)?;
        let rands = SessionRands::new(flags, &self.initiator_rand, &responder_rand);
        Ok(Established {
            psk: traffic_key(key, self.suite.prf(), session.id, &rands)?,
            psk_identity: psk_identity(self.csb_id, session.id),
            peer: peer.to_owned(),
        })
    }

    fn accepted_session<'a>(&self, map: &'a CsIdMap) -> Result<&'a CryptoSession, Error> {
        let CsIdMap::GenericId(sessions) = map else {
            return Err(Error::CryptoSessionCount(0));
        };
        let [session] = sessions.as_slice() else {
            return Err(Error::CryptoSessionCount(sessions.len()));
        };
        if session.id != self.parameters.crypto_session_id {
            return Err(Error::ResponseMismatch);
        }
        if session.protection_type != self.parameters.protection_type_tls {
            return Err(Error::ProtectionTypeNotAccepted(session.protection_type));
        }
        Ok(session)
    }
}

fn transfer_payloads(
    parameters: &Parameters,
    ticket: &GrantedTicket,
    [initiator_uri, responder_uri]: [&str; 2],
    initiator_rand: &[u8],
    now: NtpTime,
) -> Vec<Payload> {
    let mut payloads = vec![
        timestamp_payload(now),
        Payload::Randr { role: ROLE_INITIATOR, rand: initiator_rand.to_vec() },
        idr(ROLE_INITIATOR, Identity::uri(initiator_uri)),
        idr(ROLE_RESPONDER, Identity::uri(responder_uri)),
        Payload::SecurityPolicy(SecurityPolicy {
            number: parameters.security_policy_number,
            protection_type: parameters.protection_type_tls,
            parameters: parameters.security_policy_parameters.clone(),
        }),
        Payload::Ticket(Box::new(ticket.ticket.clone())),
    ];
    if parameters.send_sdp_ids {
        payloads.push(Payload::GeneralExtension {
            extension_type: EXTENSION_SDP_IDS,
            data: sdp_attribute::PROTOCOL.as_bytes().to_vec(),
        });
    }
    payloads
}

/// A ticket request that awaits REQUEST_RESP.
pub struct PendingRequest {
    parameters: Parameters,
    csb_id: u32,
    rand: Vec<u8>,
    kms_key: PreSharedKey,
    request: Vec<u8>,
    initiator_uri: String,
}

impl PendingRequest {
    /// Checks REQUEST_RESP and takes the ticket out.
    ///
    /// # Errors
    /// The response is malformed, not authentic, a refusal, or grants what is not acceptable.
    pub fn finish(self, request_resp: &[u8], now: NtpTime) -> Result<GrantedTicket, Error> {
        let suite = self.parameters.suite;
        let message = parse_expected(request_resp, DataType::RequestResp)?;
        check_response(&message.header, self.csb_id, suite.prf())?;
        let source = KeySource::response_message(
            suite.prf(),
            &self.kms_key.key,
            self.csb_id,
            &self.rand,
            &[],
        );
        verify(&message, request_resp, &source, &[&self.request])?;
        let timestamp = required_timestamp(&message)?;
        checked_time(timestamp, now, self.parameters.clock_skew_max)?;
        let ticket = message.ticket().ok_or(Error::MissingPayload("TICKET"))?;
        check_ticket(ticket, &self.parameters, now)?;
        if !ticket.policy.flags.has(TicketFlags::PLAIN_INITIATOR) {
            return Err(Error::UnacceptablePolicy(PolicyProblem::AdditionalProcessing));
        }
        let kemac = message.kemac().ok_or(Error::MissingPayload("KEMAC"))?;
        let encryption = suite.encryption();
        let mut keys = open_keys(kemac, &source, encryption, self.csb_id, timestamp.to_bits())?;
        if keys.first().is_none_or(|first| first.key_type != KEY_MPK) {
            return Err(Error::MissingPayload("MPKi"));
        }
        let message_protection = keys.remove(0).key;
        keys.retain(|key| matches!(key.key_type, KEY_TGK | KEY_TEK));
        Ok(GrantedTicket {
            ticket: ticket.clone(),
            initiator_uri: self.initiator_uri,
            message_protection,
            session_keys: keys,
        })
    }
}
