//! Making and opening MIKEY base tickets (RFC 6043 appendix A).

use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::codec::code_point::{
    KEY_MPK, ROLE_END, ROLE_INITIATOR, ROLE_KMS, ROLE_PRE_SHARED_KEY, ROLE_RESPONDER, ROLE_START,
};
use super::codec::{
    self, BaseTicket, Identity, KeyData, KeyValidity, MacAlgorithm, Payload, Ticket, TicketFlags,
    TicketPolicy, Timestamp, Verification,
};
use super::derivation::{KeySource, NO_CSB_ID, Prf, constant};
use super::error::{Error, PolicyProblem};
use super::exchange::{
    RAND_BYTES, check_key_length, idr, random_bytes, random_key, timestamp_payload,
};
use super::protection::{mac, open_keys, seal_keys};
use super::request::TicketWish;
use super::uri::bounded;
use super::{NtpTime, Parameters, Random, Suite, TicketProtectionKey};

/// SPI of the MPK in tickets we make; RFC 6043 section 6.2.1 wants one on every key.
const SPI_MPK: [u8; 4] = [0, 0, 0, 1];
/// SPI of the TGK in tickets we make.
const SPI_TGK: [u8; 4] = [0, 0, 0, 2];

/// Flags of tickets whose keys are resolved by the KMS and used with both sides' freshness.
pub(crate) const FLAGS_BASE: TicketFlags = TicketFlags::RESOLVE_MANDATORY
    .with(TicketFlags::TRANSFER_RESPONSE)
    .with(TicketFlags::RESPONDER_RAND)
    .with(TicketFlags::INITIATOR_RAND)
    .with(TicketFlags::REUSABLE)
    .with(TicketFlags::PLAIN_INITIATOR)
    .with(TicketFlags::PLAIN_RESPONDER);
/// Most keys in a ticket we make: several sessions' worth.
pub(crate) const SESSION_KEYS_MAX: usize = 16;
/// Longest salt of a key: that of AES-CM has 14 bytes. With the longest keys and names a KEMAC of 16 has
/// some 10 KiB.
const SALT_BYTES_MAX: usize = 64;
/// Most bytes of identities in the policy of a ticket we make: it has to fit into the messages it
/// travels in, of at most 64 KiB, beside its keys.
const POLICY_IDENTITY_BYTES_MAX: usize = 16 * 1024;

/// Policy of a ticket valid from `now`.
pub(crate) fn policy(
    parameters: &Parameters,
    wish: &TicketWish<'_>,
    now: NtpTime,
) -> Result<TicketPolicy, Error> {
    let mut policy = TicketPolicy {
        ticket_type: parameters.ticket_type,
        subtype: parameters.ticket_subtype,
        version: parameters.ticket_version,
        prf: parameters.suite.prf().code(),
        flags: wish.flags,
        payloads: vec![
            idr(ROLE_KMS, parameters.identity(bounded(wish.kms)?)),
            idr(ROLE_INITIATOR, parameters.identity(bounded(wish.initiator)?)),
        ],
    };
    policy.payloads.extend(validity(now, parameters.ticket_lifetime));
    for responder in wish.responders {
        policy.payloads.push(idr(ROLE_RESPONDER, parameters.identity(bounded(responder)?)));
    }
    Ok(policy)
}

/// TRs and TRe.
pub(crate) fn validity(now: NtpTime, lifetime: Duration) -> [Payload; 2] {
    let time =
        |role, at: NtpTime| Payload::Tr { role, timestamp: Timestamp::NtpUtc32(at.seconds()) };
    [time(ROLE_START, now), time(ROLE_END, now.after(lifetime))]
}

/// The keys inside a ticket.
#[derive(Clone, Debug)]
pub struct TicketContent {
    /// MPKi and MPKr of this ticket.
    pub message_protection: MessageProtectionKeys,
    /// TGKs, GTGKs and TEKs.
    pub session_keys: Vec<KeyData>,
    /// As whom the KMS has authorised the responder, which answers under that name.
    pub responder: Option<String>,
    /// RANDRkms, where the keys are forked.
    pub kms_rand: Option<Vec<u8>>,
}

/// MPKi protects TRANSFER_INIT, MPKr (with key forking) TRANSFER_RESP.
#[derive(Clone)]
pub struct MessageProtectionKeys {
    /// SPI of the MPK both come from.
    pub spi: Vec<u8>,
    /// The initiator's.
    pub initiator: Zeroizing<Vec<u8>>,
    /// The responder's: in a ticket MPKr, once the keys are forked MPKr'.
    pub responder: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for MessageProtectionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MessageProtectionKeys(redacted)")
    }
}

/// The keys a ticket is to contain: their type, length and name, the key itself being ignored. One
/// TGK where nothing else is asked for (RFC 6043 section 4.2.1.5).
pub(crate) fn wished_keys(suite: Suite) -> Vec<KeyData> {
    vec![KeyData {
        key_type: codec::code_point::KEY_TGK,
        key: Zeroizing::new(vec![0; suite.key_bytes()]),
        salt: None,
        validity: KeyValidity::Spi(SPI_TGK.to_vec()),
    }]
}

/// Makes a base ticket with a fresh MPK and fresh session keys of the kind of `wished`. Draws RAND,
/// MPK, session keys, in this order.
pub(crate) fn make(
    policy: TicketPolicy,
    parameters: &Parameters,
    suite: Suite,
    wished: &[KeyData],
    ticket_protection_key: &TicketProtectionKey,
    now: NtpTime,
    random: Random<'_>,
) -> Result<(Ticket, TicketContent), Error> {
    check_policy_length(&policy)?;
    let key_bytes = suite.key_bytes();
    let tpk = &ticket_protection_key.key;
    // RFC 6043 section 12.1: the RAND is as long as the longest of TPK and MPK.
    let rand_bytes = RAND_BYTES.max(key_bytes).max(tpk.len());
    check_key_length(tpk)?;
    let rand = random_bytes(random, rand_bytes);
    let mpk = random_key(random, key_bytes);
    let session_keys = fresh_keys(suite, wished, random)?;
    let prf = suite.prf();
    let source = KeySource::ticket(prf, tpk, &rand);
    let mut inside = vec![KeyData {
        key_type: KEY_MPK,
        key: mpk.clone(),
        salt: None,
        validity: mpk_validity(parameters, &SPI_MPK),
    }];
    inside.extend(session_keys.iter().cloned());
    let kemac = seal_keys(&inside, &source, suite.encryption(), NO_CSB_ID, now.0);
    let algorithm = suite.mac_algorithm();
    let message_protection = message_protection(prf, &mpk, &rand, SPI_MPK.to_vec());
    let mut base = BaseTicket {
        header: Vec::new(),
        payloads: vec![
            timestamp_payload(now),
            Payload::Rand(rand),
            Payload::Kemac(kemac),
            idr(ROLE_PRE_SHARED_KEY, Identity::bytes(&ticket_protection_key.identity)),
            Payload::Verification(Verification { algorithm, mac: vec![0; algorithm.mac_bytes()] }),
        ],
    };
    let mut ticket =
        Ticket { policy, data: codec::encode_base_ticket(&base), initiator_data: Vec::new() };
    let mac = ticket_mac(&ticket, &source, algorithm);
    let last = base.payloads.len() - 1;
    base.payloads[last] = Payload::Verification(Verification { algorithm, mac });
    ticket.data = codec::encode_base_ticket(&base);
    Ok((
        ticket,
        TicketContent { message_protection, session_keys, responder: None, kms_rand: None },
    ))
}

/// RFC 6043 section 6.2.1 wants an SPI on every key, though nothing ever names an MPK by it.
pub(crate) fn mpk_validity(parameters: &Parameters, spi: &[u8]) -> KeyValidity {
    if parameters.spi_on_message_protection_keys {
        KeyValidity::Spi(spi.to_vec())
    } else {
        KeyValidity::Null
    }
}

/// What a wish says goes into the ticket, and every length on the way there has 16 bits.
fn check_policy_length(policy: &TicketPolicy) -> Result<(), Error> {
    let bytes = |payload: &Payload| match payload {
        Payload::Idr { identity, .. } => identity.data.len(),
        _ => 0,
    };
    if policy.payloads.iter().map(bytes).sum::<usize>() > POLICY_IDENTITY_BYTES_MAX {
        return Err(Error::UnacceptablePolicy(PolicyProblem::TooLong));
    }
    Ok(())
}

fn fresh_keys(suite: Suite, wished: &[KeyData], random: Random<'_>) -> Result<Vec<KeyData>, Error> {
    if wished.is_empty() || wished.len() > SESSION_KEYS_MAX {
        return Err(Error::UnacceptablePolicy(PolicyProblem::SessionKeys));
    }
    let fresh = |wished: &KeyData| {
        check_key_length(&wished.key)?;
        // RFC 6043 section 12.1: keys above 128 bits need the 256-bit algorithms.
        let too_long = suite == Suite::S128 && wished.key.len() > suite.key_bytes()
            || wished.salt.as_ref().is_some_and(|salt| salt.len() > SALT_BYTES_MAX);
        if too_long || wished.key_type >= KEY_MPK || wished.spi().is_none_or(<[u8]>::is_empty) {
            return Err(Error::UnacceptablePolicy(PolicyProblem::SessionKeys));
        }
        Ok(KeyData {
            key_type: wished.key_type,
            key: random_key(random, wished.key.len()),
            salt: wished.salt.as_ref().map(|salt| random_key(random, salt.len())),
            validity: wished.validity.clone(),
        })
    };
    wished.iter().map(fresh).collect()
}

/// Opens a base ticket: checks its MAC and decrypts its keys. `find_key` gives the TPK by identity.
pub(crate) fn open<'a>(
    ticket: &Ticket,
    parameters: &Parameters,
    find_key: impl FnOnce(&[u8]) -> Option<&'a TicketProtectionKey>,
) -> Result<(TicketContent, &'a TicketProtectionKey), Error> {
    let policy = &ticket.policy;
    let kind = (policy.subtype, policy.version);
    let ours = (parameters.ticket_subtype, parameters.ticket_version);
    if kind != ours && (parameters.strict || kind != (1, 1)) {
        return Err(Error::UnacceptablePolicy(PolicyProblem::Version));
    }
    let data = codec::parse_base_ticket(&ticket.data)?;
    let identity = data.key_identity().ok_or(Error::MissingPayload("ticket IDRpsk"))?;
    let key = find_key(identity)
        .ok_or_else(|| Error::UnknownKeyIdentity(identity.escape_ascii().to_string()))?;
    let content = open_with(ticket, &data, key, parameters)?;
    Ok((content, key))
}

/// Opens a ticket whose key is known.
pub(crate) fn open_with(
    ticket: &Ticket,
    data: &BaseTicket,
    key: &TicketProtectionKey,
    parameters: &Parameters,
) -> Result<TicketContent, Error> {
    let missing = |name| Error::MissingPayload(name);
    let timestamp = data.timestamp().ok_or(missing("ticket T"))?;
    let rand = data.rand().ok_or(missing("ticket RAND"))?;
    let kemac = data.kemac().ok_or(missing("ticket KEMAC"))?;
    let verification = data.verification().ok_or(missing("ticket V"))?;
    let prf = ticket.policy.prf;
    let suite = Suite::of(prf, verification.algorithm, &parameters.accepted_suites)?;
    check_key_length(&key.key)?;
    let source = KeySource::ticket(suite.prf(), &key.key, rand);
    let expected = ticket_mac(ticket, &source, verification.algorithm);
    if !bool::from(expected.ct_eq(&verification.mac)) {
        return Err(Error::WrongTicketMac);
    }
    let mut keys = open_keys(kemac, &source, suite, NO_CSB_ID, timestamp.to_bits())?;
    let mpk = take_message_protection_key(&mut keys, parameters, "ticket MPK")?;
    let spi = mpk.spi().unwrap_or_default().to_vec();
    let message_protection = message_protection(suite.prf(), &mpk.key, rand, spi);
    Ok(TicketContent { message_protection, session_keys: keys, responder: None, kms_rand: None })
}

/// The MPK at the head of keys that are in order.
pub(crate) fn take_message_protection_key(
    keys: &mut Vec<KeyData>,
    parameters: &Parameters,
    name: &'static str,
) -> Result<KeyData, Error> {
    if keys.first().is_none_or(|first| first.key_type != KEY_MPK) {
        return Err(Error::MissingPayload(name));
    }
    let key = keys.remove(0);
    if parameters.strict && key.spi().is_none() {
        return Err(Error::UnacceptablePolicy(PolicyProblem::SessionKeys));
    }
    Ok(key)
}

fn message_protection(prf: Prf, mpk: &[u8], rand: &[u8], spi: Vec<u8>) -> MessageProtectionKeys {
    let source = KeySource::message_protection(prf, mpk, rand);
    MessageProtectionKeys {
        spi,
        initiator: source.derive(constant::MPKI, mpk.len()),
        responder: source.derive(constant::MPKR, mpk.len()),
    }
}

fn ticket_mac(ticket: &Ticket, source: &KeySource<'_>, algorithm: MacAlgorithm) -> Vec<u8> {
    let covered = codec::encode_covered_ticket(ticket);
    // V is last in Ticket Data, which is last in what is covered.
    mac(source, algorithm, &[&covered[..covered.len() - algorithm.mac_bytes()]])
}
