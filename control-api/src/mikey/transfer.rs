//! A ticket transfer at the responder, from the keys of its ticket to TRANSFER_RESP (RFC 6043
//! sections 4.2.2.3 and 4.2.3.6).

use super::bundle::{Bundle, Side, fresh_key};
use super::codec::code_point::{ROLE_KMS, ROLE_RESPONDER};
use super::codec::{
    CryptoSession, CsIdMap, DataType, Header, KeyData, Message, Payload, SecurityPolicy, Ticket,
    TicketFlags, Timestamp,
};
use super::derivation::KeySource;
use super::error::Error;
use super::exchange::{
    RAND_BYTES, SessionRands, idr, random_bytes, response_timestamp, session_key, traffic_key,
};
use super::forking::{check_forked_keys, check_proves};
use super::initiator::covered_init;
use super::protection::{open_keys, seal, seal_keys, verify};
use super::replay::ReceivedMessage;
use super::responder::Responder;
use super::ticket::TicketContent;
use super::{Established, NtpTime, Parameters, Random, Suite};

/// A ticket transfer whose ticket is to be resolved.
pub struct Transfer {
    pub(super) transfer_init: Vec<u8>,
    pub(super) message: Message,
    pub(super) suite: Suite,
    pub(super) initiator: String,
    pub(super) initiator_rand: Vec<u8>,
    pub(super) requested: String,
    pub(super) session: CryptoSession,
    pub(super) timestamp: Timestamp,
    pub(super) received: ReceivedMessage,
    pub(super) asked_as: String,
}

/// What TRANSFER_RESP is made of.
struct Answer<'a> {
    content: &'a TicketContent,
    responder: &'a str,
    responder_rand: &'a [u8],
    session: CryptoSession,
    /// A session key of our own.
    own_key: Option<&'a KeyData>,
    now: NtpTime,
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
        (self.ticket(), &self.asked_as)
    }

    fn ticket(&self) -> &Ticket {
        self.message.ticket().expect("it was checked")
    }

    fn flags(&self) -> TicketFlags {
        self.ticket().policy.flags
    }

    /// Takes what is in the ticket, checks the MAC of TRANSFER_INIT with it, derives the key and makes
    /// TRANSFER_RESP, which is empty where the ticket wants none (flag F not set). Draws RANDRr, and
    /// SPI and TGK where the session key is to be ours.
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
        let flags = self.flags();
        check_forked_keys(flags, &content.session_keys)?;
        self.authenticate(&content)?;
        responder.replay_cache.insert_message(&self.received, now)?;
        responder.resolved.insert(self.ticket(), &self.asked_as, &content);
        let parameters = &responder.config.parameters;

        let responder_rand = if flags.has(TicketFlags::RESPONDER_RAND) {
            random_bytes(random, RAND_BYTES)
        } else {
            Vec::new()
        };
        let mut keys = content.session_keys.clone();
        keys.extend(self.transferred_keys(&content)?);
        let mut session = self.session.clone();
        let supplies = parameters.responder_session_keys && flags.has(TicketFlags::RESPONDER_KEYS);
        let own_key = supplies.then(|| fresh_key(self.suite, &keys, random));
        if let Some(own) = &own_key {
            session.spi = own.spi().unwrap_or_default().to_vec();
            keys.push(own.clone());
        }
        let key = session_key(&keys, &session.spi)?;
        session.spi = key.spi().unwrap_or_default().to_vec();
        let rands = SessionRands::new(flags, &self.initiator_rand, &responder_rand);
        let psk = traffic_key(key, self.suite.prf(), session.id, &rands, parameters)?;
        let responder_uri = content.responder.as_ref().unwrap_or(&self.asked_as);
        let answer = Answer {
            content: &content,
            responder: responder_uri,
            responder_rand: &responder_rand,
            session: session.clone(),
            own_key: own_key.as_ref(),
            now,
        };
        let response = if flags.has(TicketFlags::TRANSFER_RESPONSE) {
            self.response(parameters, answer)?
        } else {
            Vec::new()
        };
        let csb_id = self.message.header.csb_id;
        let bundle = Bundle {
            side: Side::Responder,
            suite: self.suite,
            csb_id,
            flags,
            protection: protection(flags, &content).to_vec().into(),
            initiator_rand: self.initiator_rand,
            responder_rand,
            initiator: self.initiator.clone(),
            responder: responder_uri.clone(),
            session: session.clone(),
            session_keys: keys,
            last_time: now,
        };
        let psk_identity = parameters.psk_identity_form.identity(csb_id, session.id);
        let established = Established { psk, psk_identity, peer: self.initiator, bundle };
        Ok((established, response))
    }

    fn authenticate(&self, content: &TicketContent) -> Result<(), Error> {
        let source = self.initial_keys(content);
        let identities = [self.initiator.as_bytes(), self.requested.as_bytes()];
        verify(&self.message, &self.transfer_init, &source, &identities)?;
        let verification = self.message.verification().ok_or(Error::MissingPayload("V"))?;
        check_proves(self.ticket(), verification)
    }

    fn initial_keys<'a>(&self, content: &'a TicketContent) -> KeySource<'a> {
        let mpki = &content.message_protection.initiator;
        let csb_id = self.message.header.csb_id;
        KeySource::initial_message(self.suite.prf(), mpki, csb_id, &self.initiator_rand, &[])
    }

    /// Session keys beside the ticket; flag L was checked. They are not forked.
    fn transferred_keys(&self, content: &TicketContent) -> Result<Vec<KeyData>, Error> {
        let Some(kemac) = self.message.kemac() else {
            return Ok(Vec::new());
        };
        let csb_id = self.message.header.csb_id;
        open_keys(kemac, &self.initial_keys(content), self.suite, csb_id, self.timestamp.to_bits())
    }

    fn response(&self, parameters: &Parameters, answer: Answer<'_>) -> Result<Vec<u8>, Error> {
        let Answer { content, responder, responder_rand, mut session, own_key, now } = answer;
        let (prf, csb_id) = (self.suite.prf(), self.message.header.csb_id);
        let key = protection(self.flags(), content);
        let source =
            KeySource::response_message(prf, key, csb_id, &self.initiator_rand, responder_rand);
        let timestamp = response_timestamp(self.timestamp, now);
        let mut payloads = vec![Payload::Timestamp(timestamp)];
        if !responder_rand.is_empty() {
            let rand = responder_rand.to_vec();
            payloads.push(Payload::Randr { role: ROLE_RESPONDER, rand });
        }
        payloads.push(idr(ROLE_RESPONDER, parameters.identity(responder)));
        if let Some(rand) = content.kms_rand.clone() {
            payloads.push(Payload::Randr { role: ROLE_KMS, rand });
        }
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
        if let Some(own) = own_key {
            let keys = std::slice::from_ref(own);
            let time = parameters.response_iv_time.choose(timestamp, self.timestamp);
            let encryption = self.suite.encryption();
            let kemac = seal_keys(keys, &source, encryption, csb_id, time.to_bits());
            payloads.push(Payload::Kemac(kemac));
        }
        let header = Header {
            data_type: DataType::TransferResp,
            response_wanted: false,
            prf: self.message.header.prf,
            csb_id,
            map: CsIdMap::GenericId(vec![session]),
        };
        let covered = covered_init(&self.transfer_init, parameters.response_covers_initiator_data)?;
        let message = Message { header, payloads };
        Ok(seal(message, &source, self.suite.mac_algorithm(), &[&covered]))
    }
}

/// TRANSFER_RESP is protected by MPKr' where keys are forked, by MPKi otherwise.
fn protection(flags: TicketFlags, content: &TicketContent) -> &[u8] {
    if flags.has(TicketFlags::KEY_FORKING) {
        &content.message_protection.responder
    } else {
        &content.message_protection.initiator
    }
}
