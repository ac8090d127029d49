//! A crypto session bundle after its keys were transferred, and how either side renews them: the
//! CSB update (RFC 6043 section 5.2), a TRANSFER_INIT without a ticket.
//!
//! Who may supply session keys (flags L and M) sends a fresh TGK. Otherwise the session goes on as
//! the next crypto session of the bundle, whose TEK is another one of the same TGK.

use std::fmt;

use zeroize::Zeroizing;

use mrfp_core::Psk;

use super::codec::code_point::{EXTENSION_SDP_IDS, KEY_TGK, ROLE_INITIATOR, ROLE_RESPONDER};
use super::codec::{
    self, CryptoSession, CsIdMap, DataType, Header, KeyData, KeyValidity, Message, Payload,
    TicketFlags, Timestamp,
};
use super::derivation::KeySource;
use super::error::{Error, PolicyProblem, transfer_error};
use super::exchange::{
    SessionRands, check_response, idr, only_session, parse_expected, parse_response, random_bytes,
    random_key, required_timestamp, session_key, traffic_key,
};
use super::initiator::{offered_policy, sdp_ids};
use super::protection::{open_keys, seal, seal_keys, verify};
use super::replay::checked_time;
use super::{NtpTime, Parameters, Random, Suite};

/// Who one was in the transfer that set the bundle up; it stays so whoever begins an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Initiator,
    Responder,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    fn role(self) -> u8 {
        match self {
            Self::Initiator => ROLE_INITIATOR,
            Self::Responder => ROLE_RESPONDER,
        }
    }

    /// The flag that lets this side supply session keys.
    fn keys_flag(self) -> TicketFlags {
        match self {
            Self::Initiator => TicketFlags::INITIATOR_KEYS,
            Self::Responder => TicketFlags::RESPONDER_KEYS,
        }
    }
}

/// What a CSB update begins with. It knows all keys of its session; they are zeroised with it.
#[derive(Clone)]
pub struct Bundle {
    pub(super) side: Side,
    pub(super) suite: Suite,
    pub(super) csb_id: u32,
    pub(super) flags: TicketFlags,
    /// MPKi or MPKr': what protected the last message of the transfer.
    pub(super) protection: Zeroizing<Vec<u8>>,
    pub(super) initiator_rand: Vec<u8>,
    pub(super) responder_rand: Vec<u8>,
    pub(super) initiator: String,
    pub(super) responder: String,
    pub(super) session: CryptoSession,
    pub(super) session_keys: Vec<KeyData>,
    /// T of the last message. Each message has a later one: it makes the IV, and is the protection
    /// against replay within a bundle.
    pub(super) last_time: NtpTime,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("csb_id", &self.csb_id).finish_non_exhaustive()
    }
}

/// A key for TLS, and what the client calls itself with it.
#[derive(Clone, Debug)]
pub struct TrafficKey {
    /// The TEK.
    pub psk: Psk,
    /// Its TLS identity.
    pub psk_identity: String,
}

/// An update of ours that awaits its answer.
#[derive(Debug)]
pub struct PendingUpdate {
    /// The bundle as it will be.
    renewed: Bundle,
    message: Vec<u8>,
}

/// Which key a session goes on with.
struct Renewal {
    session: CryptoSession,
    session_keys: Vec<KeyData>,
}

impl Bundle {
    /// Begins an update: the TRANSFER_INIT to send. The bundle stays as it is until the answer has
    /// come; begin no second one before. Draws the SPI and the TGK where we may supply one.
    ///
    /// # Errors
    /// [`Error::UnknownSessionKey`] where there is no CS ID left.
    pub fn begin_update(
        &self,
        parameters: &Parameters,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(PendingUpdate, Vec<u8>), Error> {
        let mut renewed = self.clone();
        let time = self.next_time(now);
        let source = self.source();
        let mut kemac = None;
        if self.flags.has(self.side.keys_flag()) {
            let key = fresh_key(self.suite, &self.session_keys, random);
            let keys = std::slice::from_ref(&key);
            let encryption = self.suite.encryption();
            kemac = Some(seal_keys(keys, &source, encryption, self.csb_id, time.0));
            renewed.session.spi = key.spi().unwrap_or_default().to_vec();
            renewed.session_keys = vec![key];
        } else {
            let next = self.session.id.checked_add(1).ok_or(Error::UnknownSessionKey)?;
            renewed.session.id = next;
        }
        renewed.session.policy_numbers = vec![parameters.security_policy_number];
        renewed.last_time = time;
        let mut payloads = vec![Payload::Timestamp(Timestamp::NtpUtc(time.0))];
        for side in [self.side, self.side.other()] {
            payloads.push(idr(side.role(), parameters.identity(self.name_of(side))));
        }
        payloads.push(offered_policy(parameters));
        payloads.extend(kemac.map(Payload::Kemac));
        payloads.extend(sdp_ids(parameters));
        // The V flag says whether an answer is wanted, here as nowhere else (RFC 6043 section 6.1).
        let header = renewed.header(DataType::TransferInit, true);
        let message = Message { header, payloads };
        let message = seal(message, &source, self.suite.mac_algorithm(), &self.identities());
        Ok((PendingUpdate { renewed, message: message.clone() }, message))
    }

    /// Takes an update of the other side's: the new key, and the TRANSFER_RESP to answer with, empty
    /// where none is wanted. `offered_protocols` are those of its offer, as in
    /// [`super::Responder::begin`].
    ///
    /// # Errors
    /// The message is not authentic, not new, of another bundle, or brings no new key. The bundle
    /// stays as it was.
    pub fn answer_update(
        &mut self,
        parameters: &Parameters,
        update: &[u8],
        offered_protocols: &str,
        now: NtpTime,
    ) -> Result<(TrafficKey, Vec<u8>), Error> {
        let message = parse_expected(update, DataType::TransferInit, parameters)?;
        if !message.is_csb_update() {
            return Err(Error::UnexpectedPayload("TICKET"));
        }
        check_response(&message.header, self.csb_id, self.suite.prf())?;
        verify(&message, update, &self.source(), &self.identities())?;
        let announced = message.extension(EXTENSION_SDP_IDS);
        if announced.is_some_and(|announced| announced != offered_protocols.as_bytes()) {
            return Err(Error::ProtocolListMismatch);
        }
        let time = self.checked_time(&message, parameters, now)?;
        let Renewal { session, session_keys } =
            self.renewal(&message, self.side.other(), parameters)?;
        let mut renewed = Self { session, session_keys, last_time: time, ..self.clone() };
        let key = renewed.traffic_key(parameters)?;
        let mut answer = Vec::new();
        if message.header.response_wanted {
            let time = renewed.next_time(now);
            renewed.last_time = time;
            renewed.session.policy_numbers.truncate(1);
            let payloads = vec![
                Payload::Timestamp(Timestamp::NtpUtc(time.0)),
                idr(self.side.role(), parameters.identity(self.name_of(self.side))),
            ];
            let header = renewed.header(DataType::TransferResp, false);
            let algorithm = self.suite.mac_algorithm();
            answer = seal(Message { header, payloads }, &self.source(), algorithm, &[update]);
        }
        *self = renewed;
        Ok((key, answer))
    }

    /// The MIKEY Error message about an update that [`Bundle::answer_update`] refused, with the policies
    /// that would be taken where it is about those. It has a MAC where the update had a good one (RFC
    /// 6043 section 5.4). `None`: there is nothing to answer.
    #[must_use]
    pub fn refuse_update(
        &self,
        parameters: &Parameters,
        update: &[u8],
        error: &Error,
        now: NtpTime,
    ) -> Option<Vec<u8>> {
        let refusal = transfer_error(update, error, parameters, now)?;
        let source = self.source();
        let authentic = codec::parse(update).is_ok_and(|message| {
            message.header.csb_id == self.csb_id
                && verify(&message, update, &source, &self.identities()).is_ok()
        });
        if !authentic {
            return Some(codec::encode(&refusal));
        }
        Some(seal(refusal, &source, self.suite.mac_algorithm(), &[]))
    }

    /// What this message says the session goes on with; it must be new.
    fn renewal(
        &self,
        message: &Message,
        from: Side,
        parameters: &Parameters,
    ) -> Result<Renewal, Error> {
        let session = only_session(&message.header.map)?;
        if !parameters.accepted_protection_types_tls.contains(&session.protection_type) {
            return Err(Error::ProtectionTypeNotAccepted(session.protection_type));
        }
        let mut session_keys = self.session_keys.clone();
        let Some(kemac) = message.kemac() else {
            // Another TEK of keys that are in use already needs a CS ID that was not.
            if session.id <= self.session.id {
                return Err(Error::StaleUpdate);
            }
            session_key(&session_keys, &session.spi)?;
            return Ok(Renewal { session: session.clone(), session_keys });
        };
        if !self.flags.has(from.keys_flag()) {
            return Err(Error::UnacceptablePolicy(PolicyProblem::TransferredKeys));
        }
        let time = required_timestamp(message)?.to_bits();
        let keys = open_keys(kemac, &self.source(), self.suite, self.csb_id, time)?;
        if keys.iter().any(|key| session_keys.iter().any(|old| old.key == key.key)) {
            return Err(Error::StaleUpdate);
        }
        session_keys = keys;
        session_key(&session_keys, &session.spi)?;
        Ok(Renewal { session: session.clone(), session_keys })
    }

    fn traffic_key(&self, parameters: &Parameters) -> Result<TrafficKey, Error> {
        let key = session_key(&self.session_keys, &self.session.spi)?;
        let rands = SessionRands::new(self.flags, &self.initiator_rand, &self.responder_rand);
        let psk = traffic_key(key, self.suite.prf(), self.session.id, &rands, parameters)?;
        Ok(TrafficKey { psk, psk_identity: self.psk_identity(parameters) })
    }

    fn psk_identity(&self, parameters: &Parameters) -> String {
        parameters.psk_identity_form.identity(self.csb_id, self.session.id)
    }

    /// The keys that protected the last message of the transfer protect all that follow (RFC 6043
    /// section 5.2).
    fn source(&self) -> KeySource<'_> {
        let (prf, rands) = (self.suite.prf(), [&self.initiator_rand, &self.responder_rand]);
        if self.flags.has(TicketFlags::TRANSFER_RESPONSE) {
            KeySource::response_message(prf, &self.protection, self.csb_id, rands[0], rands[1])
        } else {
            KeySource::initial_message(prf, &self.protection, self.csb_id, rands[0], &[])
        }
    }

    fn header(&self, data_type: DataType, response_wanted: bool) -> Header {
        Header {
            data_type,
            response_wanted,
            prf: self.suite.prf().code(),
            csb_id: self.csb_id,
            map: CsIdMap::GenericId(vec![self.session.clone()]),
        }
    }

    fn name_of(&self, side: Side) -> &str {
        match side {
            Side::Initiator => &self.initiator,
            Side::Responder => &self.responder,
        }
    }

    /// Whoever begins, the initiator's identity comes first in the MAC.
    fn identities(&self) -> [&[u8]; 2] {
        [self.initiator.as_bytes(), self.responder.as_bytes()]
    }

    /// Our time, later than that of every message before: two with one time would have one IV.
    fn next_time(&self, now: NtpTime) -> NtpTime {
        if self.last_time.is_before(now) { now } else { NtpTime(self.last_time.0.wrapping_add(1)) }
    }

    fn checked_time(
        &self,
        message: &Message,
        parameters: &Parameters,
        now: NtpTime,
    ) -> Result<NtpTime, Error> {
        let timestamp = required_timestamp(message)?;
        let time = checked_time(timestamp, now, parameters.clock_skew_max)?;
        if self.last_time.is_before(time) { Ok(time) } else { Err(Error::Replayed) }
    }
}

impl PendingUpdate {
    /// What the TLS client will call itself with the key that this leads to.
    #[must_use]
    pub fn psk_identity(&self, parameters: &Parameters) -> String {
        self.renewed.psk_identity(parameters)
    }

    /// Checks the answer; the bundle goes on with the new key.
    ///
    /// # Errors
    /// The answer is not authentic, not new, or not to this update. The bundle stays as it was.
    pub fn finish(
        self,
        bundle: &mut Bundle,
        parameters: &Parameters,
        answer: &[u8],
        now: NtpTime,
    ) -> Result<TrafficKey, Error> {
        let mut renewed = self.renewed;
        let source = renewed.source();
        let message = parse_response(answer, DataType::TransferResp, parameters, &source)?;
        check_response(&message.header, renewed.csb_id, renewed.suite.prf())?;
        verify(&message, answer, &renewed.source(), &[&self.message])?;
        renewed.last_time = renewed.checked_time(&message, parameters, now)?;
        if message.kemac().is_some() {
            return Err(Error::UnacceptablePolicy(PolicyProblem::TransferredKeys));
        }
        let session = only_session(&message.header.map)?;
        let ours = &renewed.session;
        if (session.id, session.protection_type) != (ours.id, ours.protection_type)
            || session.spi != ours.spi
        {
            return Err(Error::ResponseMismatch);
        }
        let key = renewed.traffic_key(parameters)?;
        *bundle = renewed;
        Ok(key)
    }
}

/// A TGK by a name that is not in use. It is not forked (RFC 6043 section 5.2).
pub(super) fn fresh_key(suite: Suite, known: &[KeyData], random: Random<'_>) -> KeyData {
    let mut spi = random_bytes(random, SPI_BYTES);
    while known.iter().any(|key| key.spi() == Some(&spi)) {
        spi[0] = spi[0].wrapping_add(1);
    }
    KeyData {
        key_type: KEY_TGK,
        key: random_key(random, suite.key_bytes()),
        salt: None,
        validity: KeyValidity::Spi(spi),
    }
}

/// Length of the names we give keys.
const SPI_BYTES: usize = 4;
