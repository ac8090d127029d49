//! Making and opening MIKEY base tickets (RFC 6043 appendix A).

use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::codec::code_point::{
    KEY_MPK, ROLE_END, ROLE_INITIATOR, ROLE_KMS, ROLE_PRE_SHARED_KEY, ROLE_RESPONDER, ROLE_START,
};
use super::codec::{
    self, BaseTicket, Identity, KeyData, KeyValidity, MacAlgorithm, Message, Payload, Ticket,
    TicketFlags, TicketPolicy, Timestamp, Verification,
};
use super::derivation::{KeySource, NO_CSB_ID, Prf, constant};
use super::error::{Error, PolicyProblem};
use super::exchange::{
    RAND_BYTES, check_key_length, idr, random_bytes, random_key, timestamp_payload,
};
use super::protection::{Encryption, mac, open_keys, seal_keys};
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
/// Flags of tickets an initiator makes itself: without D, L must be set.
pub(crate) const FLAGS_OWN: TicketFlags = FLAGS_BASE.with(TicketFlags::INITIATOR_KEYS);

/// Who a ticket is for.
pub(crate) struct Parties<'a> {
    pub(crate) kms_uri: &'a str,
    pub(crate) initiator_uri: &'a str,
    pub(crate) responder_uri: &'a str,
}

/// Policy of a ticket valid from `now`.
pub(crate) fn policy(
    parameters: &Parameters,
    flags: TicketFlags,
    parties: &Parties<'_>,
    now: NtpTime,
) -> TicketPolicy {
    let mut policy = TicketPolicy {
        ticket_type: parameters.ticket_type,
        subtype: parameters.ticket_subtype,
        version: parameters.ticket_version,
        prf: parameters.suite.prf().code(),
        flags,
        payloads: vec![
            idr(ROLE_KMS, Identity::uri(parties.kms_uri)),
            idr(ROLE_INITIATOR, Identity::uri(parties.initiator_uri)),
        ],
    };
    policy.payloads.extend(validity(now, parameters.ticket_lifetime));
    policy.payloads.push(idr(ROLE_RESPONDER, Identity::uri(parties.responder_uri)));
    policy
}

/// TRs and TRe.
pub(crate) fn validity(now: NtpTime, lifetime: Duration) -> [Payload; 2] {
    let time =
        |role, at: NtpTime| Payload::Tr { role, timestamp: Timestamp::NtpUtc32(at.seconds()) };
    [time(ROLE_START, now), time(ROLE_END, now.after(lifetime))]
}

/// The keys inside a ticket.
#[derive(Debug)]
pub struct TicketContent {
    /// MPKi and MPKr of this ticket.
    pub message_protection: MessageProtectionKeys,
    /// TGKs and TEKs.
    pub session_keys: Vec<KeyData>,
}

/// MPKi protects TRANSFER_INIT, MPKr (with key forking) TRANSFER_RESP.
pub struct MessageProtectionKeys {
    /// SPI of the MPK both come from.
    pub spi: Vec<u8>,
    /// The initiator's.
    pub initiator: Zeroizing<Vec<u8>>,
    /// The responder's, before forking.
    pub responder: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for MessageProtectionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MessageProtectionKeys(redacted)")
    }
}

/// Makes a base ticket with a fresh MPK and one fresh TGK. Draws RAND, MPK, TGK, in this order.
pub(crate) fn make(
    policy: TicketPolicy,
    suite: Suite,
    ticket_protection_key: &TicketProtectionKey,
    now: NtpTime,
    random: Random<'_>,
) -> Result<(Ticket, TicketContent), Error> {
    let key_bytes = suite.key_bytes();
    let tpk = &ticket_protection_key.key;
    // RFC 6043 section 12.1: the RAND is as long as the longest of TPK and MPK.
    let rand_bytes = RAND_BYTES.max(key_bytes).max(tpk.len());
    check_key_length(tpk)?;
    let rand = random_bytes(random, rand_bytes);
    let mpk = random_key(random, key_bytes);
    let session_keys = vec![KeyData {
        key_type: codec::code_point::KEY_TGK,
        key: random_key(random, key_bytes),
        salt: None,
        validity: KeyValidity::Spi(SPI_TGK.to_vec()),
    }];
    let prf = suite.prf();
    let source = KeySource::ticket(prf, tpk, &rand);
    let mut inside = vec![KeyData {
        key_type: KEY_MPK,
        key: mpk.clone(),
        salt: None,
        validity: KeyValidity::Spi(SPI_MPK.to_vec()),
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
    Ok((ticket, TicketContent { message_protection, session_keys }))
}

/// Opens a base ticket: checks its MAC and decrypts its keys. `find_key` gives the TPK by identity.
pub(crate) fn open<'a>(
    ticket: &Ticket,
    accepted_suites: &[Suite],
    find_key: impl FnOnce(&[u8]) -> Option<&'a TicketProtectionKey>,
) -> Result<(TicketContent, &'a TicketProtectionKey), Error> {
    let policy = &ticket.policy;
    if policy.subtype != 1 || policy.version != 1 {
        return Err(Error::UnacceptablePolicy(PolicyProblem::Version));
    }
    let data = codec::parse_base_ticket(&ticket.data)?;
    let missing = |name| Error::MissingPayload(name);
    // The accessors of a message serve: Ticket Data is the same kind of chain.
    let chain = Message {
        header: super::exchange::kms_header(
            codec::DataType::ResolveInitPsk,
            Prf::Mikey1,
            NO_CSB_ID,
            false,
        ),
        payloads: data.payloads,
    };
    let timestamp = chain.timestamp().ok_or(missing("ticket T"))?;
    let rand = chain
        .payloads
        .iter()
        .find_map(|payload| match payload {
            Payload::Rand(rand) => Some(rand.as_slice()),
            _ => None,
        })
        .ok_or(missing("ticket RAND"))?;
    let kemac = chain.kemac().ok_or(missing("ticket KEMAC"))?;
    let verification = chain.verification().ok_or(missing("ticket V"))?;
    let suite = Suite::of(policy.prf, verification.algorithm, accepted_suites)?;
    let identity = &chain.identity(ROLE_PRE_SHARED_KEY).ok_or(missing("ticket IDRpsk"))?.data;
    let key = find_key(identity)
        .ok_or_else(|| Error::UnknownKeyIdentity(identity.escape_ascii().to_string()))?;
    check_key_length(&key.key)?;
    let source = KeySource::ticket(suite.prf(), &key.key, rand);
    let expected = ticket_mac(ticket, &source, verification.algorithm);
    if !bool::from(expected.ct_eq(&verification.mac)) {
        return Err(Error::WrongTicketMac);
    }
    let encryption: Encryption = suite.encryption();
    let mut keys = open_keys(kemac, &source, encryption, NO_CSB_ID, timestamp.to_bits())?;
    if keys.first().is_none_or(|first| first.key_type != KEY_MPK) {
        return Err(missing("ticket MPK"));
    }
    let mpk = keys.remove(0);
    let spi = mpk.spi().unwrap_or_default().to_vec();
    let message_protection = message_protection(suite.prf(), &mpk.key, rand, spi);
    Ok((TicketContent { message_protection, session_keys: keys }, key))
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
