//! The initiator of a ticket transfer: sends TRANSFER_INIT, checks TRANSFER_RESP (RFC 6043 section
//! 4.2.2).

use std::borrow::Cow;

use super::bundle::{Bundle, Side};
use super::codec::code_point::{EXTENSION_SDP_IDS, ROLE_INITIATOR, ROLE_KMS, ROLE_RESPONDER};
use super::codec::{
    self, CryptoSession, CsIdMap, DataType, Header, KeyData, Message, Payload, SecurityPolicy,
    Ticket, TicketFlags, Timestamp,
};
use super::derivation::KeySource;
use super::error::{Error, PolicyProblem};
use super::exchange::{
    RAND_BYTES, SessionRands, check_response, check_ticket, idr, only_session, parse_response,
    random_bytes, random_u32, required_rand, required_timestamp, required_uri, session_key,
    timestamp_payload, traffic_key,
};
use super::forking::{fork_session_keys, forked_mpkr, initiator_data};
use super::protection::{ResponseTimes, open_response_keys, seal, seal_keys, verify};
use super::replay::checked_time;
use super::request::{Credentials, GrantedTicket, PendingRequest, TicketWish, request_ticket};
use super::uri::bounded;
use super::{
    Established, NtpTime, Parameters, PreSharedKey, Random, Suite, TicketProtectionKey, UriPattern,
    sdp_attribute,
};

/// A ticket transfer that awaits TRANSFER_RESP.
pub struct Initiator {
    parameters: Parameters,
    suite: Suite,
    csb_id: u32,
    initiator_rand: Vec<u8>,
    transfer_init: Vec<u8>,
    time: NtpTime,
    called: String,
    session: CryptoSession,
    ticket: GrantedTicket,
    /// Transferred beside the ticket, and never forked.
    own_key: Option<KeyData>,
    accepted_responders: Vec<UriPattern>,
}

/// What may be different in a transfer.
#[derive(Clone, Default, Debug)]
pub struct TransferOptions {
    /// A session key instead of those in the ticket, which has to allow it (flag L). It needs an SPI.
    pub session_key: Option<KeyData>,
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
        let responders = [responder_uri];
        let wish = TicketWish::new(kms_uri, initiator_uri, &responders);
        request_ticket(parameters, &wish, Credentials::PreShared(kms_key), now, random)
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
        let options = TransferOptions::default();
        Self::begin(parameters, ticket, responder_uri, options, now, random)
    }

    /// Makes TRANSFER_INIT as [`Initiator::with_granted_ticket`] does, with options.
    ///
    /// # Errors
    /// As there, and [`PolicyProblem::TransferredKeys`] where the ticket forbids a key of our own.
    ///
    /// # Panics
    /// As there.
    pub fn begin(
        parameters: &Parameters,
        ticket: &GrantedTicket,
        responder_uri: &str,
        options: TransferOptions,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Self, Vec<u8>), Error> {
        check_ticket(&ticket.ticket, parameters, now)?;
        let flags = ticket.ticket.policy.flags;
        let suite = parameters.suite;
        let csb_id = random_u32(random);
        let mpki = ticket.message_protection.clone();
        let rand_bytes = RAND_BYTES.max(mpki.len());
        let initiator_rand = random_bytes(random, initiator_rand_bytes(flags, rand_bytes));
        let source = KeySource::initial_message(suite.prf(), &mpki, csb_id, &initiator_rand, &[]);
        let (mut kemac, mut own_key) = (None, None);
        if let Some(key) = options.session_key {
            if !flags.has(TicketFlags::INITIATOR_KEYS) || key.spi().is_none() {
                return Err(Error::UnacceptablePolicy(PolicyProblem::TransferredKeys));
            }
            let keys = std::slice::from_ref(&key);
            kemac = Some(seal_keys(keys, &source, suite.encryption(), csb_id, now.0));
            own_key = Some(key);
        }
        let key = match &own_key {
            Some(own) => own,
            None => session_key(&ticket.session_keys, &[])?,
        };
        let session = offered_session(parameters, key);
        ticket.take_for_transfer()?;
        let header = Header {
            data_type: DataType::TransferInit,
            // RFC 6043 section 4.2.2.1: V agrees with F.
            response_wanted: parameters.send_response_wanted
                && flags.has(TicketFlags::TRANSFER_RESPONSE),
            prf: suite.prf().code(),
            csb_id,
            map: CsIdMap::GenericId(vec![session.clone()]),
        };
        let identities = [ticket.initiator_uri.as_str(), bounded(responder_uri)?];
        let mut payloads =
            transfer_payloads(parameters, &ticket.ticket, identities, &initiator_rand, now);
        payloads.extend(kemac.map(Payload::Kemac));
        let message = Message { header, payloads };
        let algorithm = suite.mac_algorithm();
        let mut transfer_init = seal(message, &source, algorithm, &identities.map(str::as_bytes));
        if flags.has(TicketFlags::KEY_FORKING) {
            transfer_init = with_initiator_data(&transfer_init, ticket, parameters)?;
        }
        let initiator = Self {
            parameters: parameters.clone(),
            suite,
            csb_id,
            initiator_rand,
            transfer_init: transfer_init.clone(),
            time: now,
            called: responder_uri.to_owned(),
            session,
            ticket: ticket.clone(),
            own_key,
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
        let form = self.parameters.psk_identity_form;
        form.identity(self.csb_id, self.parameters.crypto_session_id)
    }

    /// The key of a transfer that is not answered (flag F not set).
    ///
    /// # Errors
    /// [`Error::MissingPayload`] where an answer is due.
    pub fn finish_unanswered(self) -> Result<Established, Error> {
        let flags = self.ticket.ticket.policy.flags;
        if flags.has(TicketFlags::TRANSFER_RESPONSE) {
            return Err(Error::MissingPayload("TRANSFER_RESP"));
        }
        let session = self.session.clone();
        let protection = self.ticket.message_protection.clone();
        let mut keys = self.ticket.session_keys.clone();
        keys.extend(self.own_key.clone());
        let (peer, time) = (self.called.clone(), self.time);
        self.established(session, keys, protection, Vec::new(), peer, time)
    }

    /// Checks TRANSFER_RESP and derives the key.
    ///
    /// # Errors
    /// The response is malformed, not authentic, not to our message, or from somebody else than
    /// was called.
    pub fn finish(self, transfer_resp: &[u8], now: NtpTime) -> Result<Established, Error> {
        let parameters = &self.parameters;
        let (prf, mpki) = (self.suite.prf(), &self.ticket.message_protection);
        let called = KeySource::initial_message(prf, mpki, self.csb_id, &self.initiator_rand, &[]);
        let message = parse_response(transfer_resp, DataType::TransferResp, parameters, &called)?;
        check_response(&message.header, self.csb_id, self.suite.prf())?;
        let flags = self.ticket.ticket.policy.flags;
        let responder_rand = if flags.has(TicketFlags::RESPONDER_RAND) {
            required_rand(&message, ROLE_RESPONDER)?
        } else {
            Vec::new()
        };
        let peer = match message.identity(ROLE_RESPONDER) {
            None if !parameters.strict && !flags.has(TicketFlags::KEY_FORKING) => &self.called,
            identity => required_uri(identity, "IDRr")?,
        };
        let mut keys = self.ticket.session_keys.clone();
        let protection = if flags.has(TicketFlags::KEY_FORKING) {
            let kms_rand = required_rand(&message, ROLE_KMS)?;
            let prf = self.ticket_prf()?;
            let mpkr = self.ticket.responder_protection.as_ref();
            let mpkr = mpkr.ok_or(Error::MissingPayload("MPKr"))?;
            fork_session_keys(prf, &mut keys, peer, &kms_rand);
            forked_mpkr(prf, mpkr, peer, &kms_rand)
        } else {
            self.ticket.message_protection.clone()
        };
        keys.extend(self.own_key.clone());
        let (prf, csb_id) = (self.suite.prf(), self.csb_id);
        let rands = [self.initiator_rand.as_slice(), &responder_rand];
        let source = KeySource::response_message(prf, &protection, csb_id, rands[0], rands[1]);
        self.verify_response(&message, transfer_resp, &source)?;
        let timestamp = required_timestamp(&message)?;
        let time = checked_time(timestamp, now, parameters.clock_skew_max)?;
        if !self.accepted_responders.iter().any(|pattern| pattern.matches(peer)) {
            return Err(Error::UnexpectedResponder(peer.to_owned()));
        }
        if let Some(kemac) = message.kemac() {
            if !flags.has(TicketFlags::RESPONDER_KEYS) {
                return Err(Error::UnacceptablePolicy(PolicyProblem::TransferredKeys));
            }
            let initial = Timestamp::NtpUtc(self.time.0);
            let times = ResponseTimes { response: timestamp, initial, parameters };
            let not_empty = |keys: &[KeyData]| !keys.is_empty();
            keys.extend(open_response_keys(kemac, &source, self.suite, csb_id, times, not_empty)?);
        }
        let session = self.accepted_session(&message.header.map)?.clone();
        let peer = peer.to_owned();
        self.established(session, keys, protection, responder_rand, peer, time)
    }

    /// The PRF of forking is the ticket's (RFC 6043 section 5.1.1).
    fn ticket_prf(&self) -> Result<super::derivation::Prf, Error> {
        let code = self.ticket.ticket.policy.prf;
        super::derivation::Prf::from_code(code).ok_or(Error::UnsupportedPrf(code))
    }

    /// RFC 6043 section 5.5 appends the whole TRANSFER_INIT. Whether with the Initiator Data, which
    /// its own MAC leaves out, is not said.
    fn verify_response(
        &self,
        message: &Message,
        bytes: &[u8],
        source: &KeySource<'_>,
    ) -> Result<(), Error> {
        let parameters = &self.parameters;
        let covers = parameters.response_covers_initiator_data;
        let verified =
            verify(message, bytes, source, &[&covered_init(&self.transfer_init, covers)?]);
        let forked = self.ticket.ticket.policy.flags.has(TicketFlags::KEY_FORKING);
        if verified.is_ok() || parameters.strict || !forked {
            return verified;
        }
        verify(message, bytes, source, &[&covered_init(&self.transfer_init, !covers)?])
    }

    fn established(
        self,
        session: CryptoSession,
        session_keys: Vec<KeyData>,
        protection: zeroize::Zeroizing<Vec<u8>>,
        responder_rand: Vec<u8>,
        peer: String,
        last_time: NtpTime,
    ) -> Result<Established, Error> {
        let parameters = &self.parameters;
        let flags = self.ticket.ticket.policy.flags;
        let key = session_key(&session_keys, &session.spi)?;
        let rands = SessionRands::new(flags, &self.initiator_rand, &responder_rand);
        let psk = traffic_key(key, self.suite.prf(), session.id, &rands, parameters)?;
        let psk_identity = parameters.psk_identity_form.identity(self.csb_id, session.id);
        let bundle = Bundle {
            side: Side::Initiator,
            suite: self.suite,
            csb_id: self.csb_id,
            flags,
            protection,
            initiator_rand: self.initiator_rand,
            responder_rand,
            initiator: self.ticket.initiator_uri,
            responder: peer.clone(),
            session,
            session_keys,
            last_time,
        };
        Ok(Established { psk, psk_identity, peer, bundle })
    }

    fn accepted_session<'a>(&self, map: &'a CsIdMap) -> Result<&'a CryptoSession, Error> {
        let session = only_session(map)?;
        if session.id != self.session.id {
            return Err(Error::ResponseMismatch);
        }
        if session.protection_type != self.session.protection_type {
            return Err(Error::ProtectionTypeNotAccepted(session.protection_type));
        }
        // RFC 6043 section 6.1.1: exactly one policy in the response, and a key that has a name.
        if self.parameters.strict && (session.policy_numbers.len() != 1 || session.spi.is_empty()) {
            return Err(Error::ResponseMismatch);
        }
        Ok(session)
    }
}

/// TRANSFER_INIT as the MAC of the response covers it.
pub(super) fn covered_init(
    transfer_init: &[u8],
    with_initiator_data: bool,
) -> Result<Cow<'_, [u8]>, Error> {
    if with_initiator_data {
        return Ok(Cow::Borrowed(transfer_init));
    }
    Ok(Cow::Owned(codec::encode_without_initiator_data(&codec::parse(transfer_init)?)))
}

/// RANDRi: where there is no RANDRr it alone has to be as long as the longest key (RFC 6043 section
/// 12.1); otherwise both together are.
fn initiator_rand_bytes(flags: TicketFlags, longest: usize) -> usize {
    if flags.has(TicketFlags::RESPONDER_RAND) { RAND_BYTES } else { longest }
}

fn offered_session(parameters: &Parameters, key: &KeyData) -> CryptoSession {
    CryptoSession {
        id: parameters.crypto_session_id,
        protection_type: parameters.protection_type_tls,
        session_data_extended: false,
        policy_numbers: vec![parameters.security_policy_number],
        session_data: Vec::new(),
        spi: key.spi().unwrap_or_default().to_vec(),
    }
}

/// Puts the Initiator Data into a sealed TRANSFER_INIT; its MAC does not cover them.
fn with_initiator_data(
    transfer_init: &[u8],
    granted: &GrantedTicket,
    parameters: &Parameters,
) -> Result<Vec<u8>, Error> {
    let mut message = codec::parse(transfer_init)?;
    let code = granted.ticket.policy.prf;
    let prf = super::derivation::Prf::from_code(code).ok_or(Error::UnsupportedPrf(code))?;
    let mpkr = granted.responder_protection.as_ref().ok_or(Error::MissingPayload("MPKr"))?;
    let verification = message.verification().expect("it is sealed").clone();
    let data = initiator_data(prf, mpkr, &verification, parameters);
    for payload in &mut message.payloads {
        if let Payload::Ticket(ticket) = payload {
            ticket.initiator_data = data;
            break;
        }
    }
    Ok(codec::encode(&message))
}

fn transfer_payloads(
    parameters: &Parameters,
    ticket: &Ticket,
    [initiator_uri, responder_uri]: [&str; 2],
    initiator_rand: &[u8],
    now: NtpTime,
) -> Vec<Payload> {
    let mut payloads = vec![
        timestamp_payload(now),
        Payload::Randr { role: ROLE_INITIATOR, rand: initiator_rand.to_vec() },
        idr(ROLE_INITIATOR, parameters.identity(initiator_uri)),
        idr(ROLE_RESPONDER, parameters.identity(responder_uri)),
        offered_policy(parameters),
        Payload::Ticket(Box::new(ticket.clone())),
    ];
    payloads.extend(sdp_ids(parameters));
    payloads
}

/// The security policy we offer.
pub(super) fn offered_policy(parameters: &Parameters) -> Payload {
    Payload::SecurityPolicy(SecurityPolicy {
        number: parameters.security_policy_number,
        protection_type: parameters.protection_type_tls,
        parameters: parameters.security_policy_parameters.clone(),
    })
}

/// The list of key management protocols we offer (RFC 4567 section 4.1.4.1).
pub(super) fn sdp_ids(parameters: &Parameters) -> Option<Payload> {
    parameters.send_sdp_ids.then(|| Payload::GeneralExtension {
        extension_type: EXTENSION_SDP_IDS,
        data: sdp_attribute::PROTOCOL.as_bytes().to_vec(),
    })
}
