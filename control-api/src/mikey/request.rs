//! Getting a ticket: from the KMS (RFC 6043 section 4.2.1) or of the initiator's own making.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use super::codec::code_point::{
    ENCRYPTION_NULL, KEY_MPK, ROLE_INITIATOR, ROLE_KMS, ROLE_PRE_SHARED_KEY,
};
use super::codec::{
    self, DataType, Identity, Kemac, KeyData, MacAlgorithm, Message, Payload, Ticket, TicketFlags,
    Timestamp,
};
use super::derivation::KeySource;
use super::error::{Error, PolicyProblem};
use super::exchange::{
    RAND_BYTES, check_key_length, check_response, check_ticket, idr, kms_header, parse_response,
    random_bytes, random_key, random_u32, required_timestamp, timestamp_payload, uri_of,
};
use super::protection::{ResponseTimes, open_response_keys, seal, verify};
use super::public_key::{Authorities, KeyPair};
use super::replay::checked_time;
use super::ticket::{self, FLAGS_BASE, take_message_protection_key};
use super::{NtpTime, Parameters, PreSharedKey, Random, Suite, TicketProtectionKey};

/// A ticket and the keys in it. With flag J it may be used for several transfers.
#[derive(Clone)]
pub struct GrantedTicket {
    pub(super) ticket: Ticket,
    pub(super) initiator_uri: String,
    /// MPKi.
    pub(super) message_protection: Zeroizing<Vec<u8>>,
    /// MPKr before forking; only of use with flag I.
    pub(super) responder_protection: Option<Zeroizing<Vec<u8>>>,
    pub(super) session_keys: Vec<KeyData>,
    /// Whether a transfer has begun with it, shared by its copies: without flag J it is the only one.
    used: Arc<AtomicBool>,
}

impl fmt::Debug for GrantedTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantedTicket")
            .field("initiator_uri", &self.initiator_uri)
            .finish_non_exhaustive()
    }
}

/// What a ticket is to be good for.
#[derive(Clone, Copy, Debug)]
pub struct TicketWish<'a> {
    /// URI of the KMS that resolves it.
    pub kms: &'a str,
    /// Who will use it.
    pub initiator: &'a str,
    /// Who may have it resolved, at least one: parties or groups.
    pub responders: &'a [&'a str],
    /// Flags D to O; [`TicketWish::new`] has the usual ones.
    pub flags: TicketFlags,
    /// Type, length, salt length and SPI of the keys wanted, the keys themselves not being looked at.
    /// Empty for one TGK.
    pub session_keys: &'a [KeyData],
}

impl<'a> TicketWish<'a> {
    /// The usual ticket: resolved by the KMS, answered, fresh from both sides, to be used again.
    #[must_use]
    pub fn new(kms: &'a str, initiator: &'a str, responders: &'a [&'a str]) -> Self {
        Self { kms, initiator, responders, flags: FLAGS_BASE, session_keys: &[] }
    }
}

/// What proves to the KMS who asks.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// A key shared with it.
    PreShared(&'a PreSharedKey),
    /// A certificate; the envelope is for the KMS's own.
    PublicKey {
        /// Ours.
        own: &'a KeyPair,
        /// Certificate of the KMS, DER.
        kms_certificate: &'a [u8],
    },
}

impl GrantedTicket {
    /// Makes a base ticket for the KMS to resolve (mode 3). Draws RAND, MPK and TGK, in this order.
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
        let responders = [responder_uri];
        let wish = TicketWish::new(kms_uri, initiator_uri, &responders);
        Self::make_as_wished(parameters, &wish, tpk, now, random)
    }

    /// Makes a base ticket: with flag E for the KMS to resolve (mode 3), without it for a responder
    /// that shares `tpk` (mode 4). Flag D is taken away and L set, as the initiator makes it. Draws
    /// RAND, MPK and session keys, in this order.
    ///
    /// # Errors
    /// [`Error::IdentityTooLong`], [`Error::KeyLength`], or flags that contradict each other.
    pub fn make_as_wished(
        parameters: &Parameters,
        wish: &TicketWish<'_>,
        tpk: &TicketProtectionKey,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Self, Error> {
        let flags = wish.flags.without(TicketFlags::MADE_BY_KMS).with(TicketFlags::INITIATOR_KEYS);
        let policy = ticket::policy(parameters, &TicketWish { flags, ..*wish }, now)?;
        if let Some(contradiction) = flags.contradiction() {
            return Err(Error::UnacceptablePolicy(PolicyProblem::Contradiction(contradiction)));
        }
        let suite = parameters.suite;
        let usual = ticket::wished_keys(suite);
        let wished = if wish.session_keys.is_empty() { &usual } else { wish.session_keys };
        let (ticket, content) = ticket::make(policy, parameters, suite, wished, tpk, now, random)?;
        super::forking::check_forked_keys(flags, &content.session_keys)?;
        Ok(Self {
            ticket,
            initiator_uri: wish.initiator.to_owned(),
            message_protection: content.message_protection.initiator,
            responder_protection: Some(content.message_protection.responder),
            session_keys: content.session_keys,
            used: Arc::default(),
        })
    }

    /// RFC 6043 section 5.3: only flag J allows a second transfer.
    pub(super) fn take_for_transfer(&self) -> Result<(), Error> {
        let reusable = self.ticket.policy.flags.has(TicketFlags::REUSABLE);
        if self.used.swap(true, Ordering::Relaxed) && !reusable {
            return Err(Error::TicketReused);
        }
        Ok(())
    }

    /// The ticket itself.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }
}

/// A ticket request that awaits REQUEST_RESP.
pub struct PendingRequest {
    parameters: Parameters,
    csb_id: u32,
    rand: Vec<u8>,
    /// The key shared with the KMS, or the one in the envelope.
    key: Zeroizing<Vec<u8>>,
    request: Vec<u8>,
    time: NtpTime,
    initiator_uri: String,
}

/// Makes a REQUEST_INIT that asks the KMS for a ticket (modes 1 and 2). Draws CSB ID, RANDRi and, for
/// an envelope, its key.
///
/// # Errors
/// [`Error::IdentityTooLong`], [`Error::KeyLength`], [`Error::Certificate`].
pub fn request_ticket(
    parameters: &Parameters,
    wish: &TicketWish<'_>,
    credentials: Credentials<'_>,
    now: NtpTime,
    random: Random<'_>,
) -> Result<(PendingRequest, Vec<u8>), Error> {
    let suite = parameters.suite;
    let flags = wish.flags.with(TicketFlags::MADE_BY_KMS).without(TicketFlags::CHANGED_BY_KMS);
    let mut policy = ticket::policy(parameters, &TicketWish { flags, ..*wish }, now)?;
    if !wish.session_keys.is_empty() {
        policy.payloads.insert(KEMAC_POSITION, wished_kemac(wish.session_keys));
    }
    let ask = Ask {
        parameters,
        data_types: [DataType::RequestInitPsk, DataType::RequestInitPk],
        role: ROLE_INITIATOR,
        uri: wish.initiator,
        kms: wish.kms,
        subject: Payload::TicketPolicy(policy),
        suite,
    };
    let asked = ask.seal(credentials, now, random)?;
    let pending = PendingRequest {
        parameters: parameters.clone(),
        csb_id: asked.csb_id,
        rand: asked.rand,
        key: asked.key,
        request: asked.message.clone(),
        time: now,
        initiator_uri: wish.initiator.to_owned(),
    };
    Ok((pending, asked.message))
}

/// A question to the KMS: REQUEST_INIT or RESOLVE_INIT, which are built alike.
pub(super) struct Ask<'a> {
    pub(super) parameters: &'a Parameters,
    /// With a pre-shared key, with a public key.
    pub(super) data_types: [DataType; 2],
    pub(super) role: u8,
    pub(super) uri: &'a str,
    pub(super) kms: &'a str,
    /// TP or TICKET.
    pub(super) subject: Payload,
    pub(super) suite: Suite,
}

/// A question that was asked.
pub(super) struct Asked {
    pub(super) csb_id: u32,
    pub(super) rand: Vec<u8>,
    /// Protects the answer.
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) message: Vec<u8>,
}

impl Ask<'_> {
    pub(super) fn seal(
        self,
        credentials: Credentials<'_>,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Asked, Error> {
        let Self { parameters, data_types, role, uri, kms, subject, suite } = self;
        let csb_id = random_u32(random);
        let initial = parameters.send_response_wanted;
        let identities = [uri.as_bytes(), kms.as_bytes()];
        let mut payloads = vec![timestamp_payload(now)];
        let idri = idr(role, parameters.identity(super::uri::bounded(uri)?));
        let idrkms = idr(ROLE_KMS, parameters.identity(super::uri::bounded(kms)?));
        match credentials {
            Credentials::PreShared(psk) => {
                check_key_length(&psk.key)?;
                let rand = random_bytes(random, RAND_BYTES.max(psk.key.len()));
                payloads.push(Payload::Randr { role, rand: rand.clone() });
                payloads.extend([idri, idrkms, subject]);
                payloads.push(idr(ROLE_PRE_SHARED_KEY, Identity::bytes(&psk.identity)));
                let header = kms_header(data_types[0], suite.prf(), csb_id, initial);
                let rands = rands_by_role(role, &rand);
                let source =
                    KeySource::initial_message(suite.prf(), &psk.key, csb_id, rands[0], rands[1]);
                let message = Message { header, payloads };
                let message = seal(message, &source, suite.mac_algorithm(), &identities);
                Ok(Asked { csb_id, rand, key: psk.key.clone(), message })
            }
            Credentials::PublicKey { own, kms_certificate } => {
                let rand = random_bytes(random, RAND_BYTES.max(suite.key_bytes()));
                let key = random_key(random, suite.key_bytes());
                let to = Authorities::encrypt_for(kms_certificate, &key)?;
                payloads.push(Payload::Randr { role, rand: rand.clone() });
                payloads.push(idri);
                payloads.extend(own.certificate_payloads());
                payloads.extend([idrkms, subject, to.certificate_hash, to.envelope]);
                let header = kms_header(data_types[1], suite.prf(), csb_id, initial);
                let message = own.sign(Message { header, payloads }, &identities)?;
                Ok(Asked { csb_id, rand, key, message })
            }
        }
    }
}

/// RANDRi and RANDRr, of which exchanges with the KMS have one.
pub(crate) fn rands_by_role(role: u8, rand: &[u8]) -> [&[u8]; 2] {
    if role == ROLE_INITIATOR { [rand, &[]] } else { [&[], rand] }
}

/// Behind IDRkms, IDRi, TRs and TRe (RFC 6043 section 6.10).
const KEMAC_POSITION: usize = 4;

/// What keys are wanted: NULL encryption, keys of zeros.
fn wished_kemac(wished: &[KeyData]) -> Payload {
    let zeros = |length| Zeroizing::new(vec![0; length]);
    let keys: Vec<KeyData> = wished
        .iter()
        .map(|key| KeyData {
            key: zeros(key.key.len()),
            salt: key.salt.as_ref().map(|salt| zeros(salt.len())),
            ..key.clone()
        })
        .collect();
    Payload::Kemac(Kemac {
        encryption: ENCRYPTION_NULL,
        encrypted: codec::encode_key_data(&keys).to_vec(),
        mac_algorithm: MacAlgorithm::Null,
        mac: Vec::new(),
    })
}

impl PendingRequest {
    /// Checks REQUEST_RESP and takes the ticket out.
    ///
    /// # Errors
    /// The response is malformed, not authentic, a refusal, or grants what is not acceptable.
    pub fn finish(self, request_resp: &[u8], now: NtpTime) -> Result<GrantedTicket, Error> {
        let parameters = &self.parameters;
        let suite = parameters.suite;
        let (prf, csb_id) = (suite.prf(), self.csb_id);
        let asked = KeySource::initial_message(prf, &self.key, csb_id, &self.rand, &[]);
        let message = parse_response(request_resp, DataType::RequestResp, parameters, &asked)?;
        check_response(&message.header, self.csb_id, suite.prf())?;
        let source =
            KeySource::response_message(suite.prf(), &self.key, self.csb_id, &self.rand, &[]);
        verify(&message, request_resp, &source, &[&self.request])?;
        let timestamp = required_timestamp(&message)?;
        checked_time(timestamp, now, parameters.clock_skew_max)?;
        let ticket = message.ticket().ok_or(Error::MissingPayload("TICKET"))?;
        check_ticket(ticket, parameters, now)?;
        let flags = ticket.policy.flags;
        if !flags.has(TicketFlags::PLAIN_INITIATOR) {
            return Err(Error::UnacceptablePolicy(PolicyProblem::AdditionalProcessing));
        }
        let owner = ticket.policy.identity(ROLE_INITIATOR).map(uri_of).transpose()?;
        if owner.is_some_and(|owner| owner != self.initiator_uri) {
            return Err(Error::InitiatorMismatch);
        }
        let kemac = message.kemac().ok_or(Error::MissingPayload("KEMAC"))?;
        let initial = Timestamp::NtpUtc(self.time.0);
        let times = ResponseTimes { response: timestamp, initial, parameters };
        let mut keys =
            open_response_keys(kemac, &source, suite, self.csb_id, times, starts_with_mpk)?;
        let message_protection = take_message_protection_key(&mut keys, parameters, "MPKi")?.key;
        let responder_protection = if flags.has(TicketFlags::KEY_FORKING) {
            Some(take_message_protection_key(&mut keys, parameters, "MPKr")?.key)
        } else {
            None
        };
        super::forking::check_forked_keys(flags, &keys)?;
        Ok(GrantedTicket {
            ticket: ticket.clone(),
            initiator_uri: self.initiator_uri,
            message_protection,
            responder_protection,
            session_keys: keys,
            used: Arc::default(),
        })
    }
}

/// What a KEMAC of the KMS opens to, if it was opened rightly.
pub(super) fn starts_with_mpk(keys: &[KeyData]) -> bool {
    keys.first().is_some_and(|first| first.key_type == KEY_MPK)
}
