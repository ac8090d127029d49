//! What the sides of the exchanges have in common.

use std::time::Duration;

use zeroize::Zeroizing;

use mrfp_core::Psk;

use super::codec::code_point::{ID_URI, KEMAC, KEY_MPK, KEY_TEK, KEY_TEK_SALT, ROLE_END};
use super::codec::code_point::{ROLE_INITIATOR, ROLE_RESPONDER, ROLE_START};
use super::codec::{
    self, CryptoSession, CsIdMap, DataType, Header, Identity, KeyData, Message, Payload,
};
use super::codec::{Ticket, TicketFlags, Timestamp};
use super::derivation::{KeySource, Prf, constant};
use super::error::{Error, PolicyProblem};
use super::protection::verify;
use super::{NtpTime, Parameters, Random};

/// RFC 6043 section 12.1: RANDs of at least 128 bits.
pub(crate) const RAND_BYTES: usize = 16;
/// Error number where an Error message has none.
const ERROR_UNSPECIFIED: u8 = 12;

pub(crate) fn random_bytes(random: Random<'_>, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random(&mut bytes);
    bytes
}

pub(crate) fn random_key(random: Random<'_>, length: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(random_bytes(random, length))
}

pub(crate) fn random_u32(random: Random<'_>) -> u32 {
    let mut bytes = [0; 4];
    random(&mut bytes);
    u32::from_be_bytes(bytes)
}

/// RFC 6043 section 12.1: no key shorter than 128 bits. The upper bound is that of a TLS pre-shared
/// key (RFC 4279 section 5.3).
pub(crate) fn check_key_length(key: &[u8]) -> Result<(), Error> {
    if (16..=64).contains(&key.len()) { Ok(()) } else { Err(Error::KeyLength(key.len())) }
}

/// A message of the type the exchange expects; an Error message becomes [`Error::Refused`]. Where it has
/// a MAC, that is one under `errors`, the key of the message it is about (RFC 6043 section 5.4).
pub(crate) fn parse_response(
    bytes: &[u8],
    expected: DataType,
    parameters: &Parameters,
    errors: &KeySource<'_>,
) -> Result<Message, Error> {
    match parse_expected(bytes, expected, parameters) {
        Err(Error::Refused { number, .. }) => {
            let message = codec::parse(bytes)?;
            let authentic = message.verification().is_some();
            if authentic {
                verify(&message, bytes, errors, &[])?;
            }
            Err(Error::Refused { number, authentic })
        }
        parsed => parsed,
    }
}

/// A message of the type the exchange expects; an Error message becomes [`Error::Refused`].
pub(crate) fn parse_expected(
    bytes: &[u8],
    expected: DataType,
    parameters: &Parameters,
) -> Result<Message, Error> {
    let message = codec::parse(bytes)?;
    if message.header.data_type == expected {
        check_contents(&message, parameters)?;
        return Ok(message);
    }
    if message.header.data_type == DataType::Error {
        let number = message.error_number().unwrap_or(ERROR_UNSPECIFIED);
        return Err(Error::Refused { number, authentic: false });
    }
    Err(Error::UnexpectedMessage(message.header.data_type))
}

/// The payloads are those of the message; unexpected ones are ignored unless we are strict.
pub(crate) fn check_contents(message: &Message, parameters: &Parameters) -> Result<(), Error> {
    message.check_contents()?;
    match message.unexpected().next() {
        Some(payload) if parameters.strict => Err(Error::UnexpectedPayload(payload.name())),
        _ => Ok(()),
    }
}

/// Header of an exchange with the KMS: no crypto sessions, empty map (RFC 6043 section 4.2.1.1).
pub(crate) fn kms_header(data_type: DataType, prf: Prf, csb_id: u32, initial: bool) -> Header {
    Header {
        data_type,
        response_wanted: initial,
        prf: prf.code(),
        csb_id,
        map: CsIdMap::Empty { count: 0 },
    }
}

pub(crate) fn timestamp_payload(now: NtpTime) -> Payload {
    Payload::Timestamp(Timestamp::NtpUtc(now.0))
}

/// T of a response: fresh, but a counter is repeated (RFC 6043 section 4.2.1.5).
pub(crate) fn response_timestamp(initial: Timestamp, now: NtpTime) -> Timestamp {
    match initial {
        Timestamp::Counter(_) => initial,
        Timestamp::NtpUtc(_) | Timestamp::Ntp(_) | Timestamp::NtpUtc32(_) => {
            Timestamp::NtpUtc(now.0)
        }
    }
}

pub(crate) fn idr(role: u8, identity: Identity) -> Payload {
    Payload::Idr { role, identity }
}

pub(crate) fn required_timestamp(message: &Message) -> Result<Timestamp, Error> {
    message.timestamp().ok_or(Error::MissingPayload("T"))
}

pub(crate) fn required_rand(message: &Message, role: u8) -> Result<Vec<u8>, Error> {
    let name = match role {
        ROLE_INITIATOR => "RANDRi",
        ROLE_RESPONDER => "RANDRr",
        _ => "RANDRkms",
    };
    let rand = message.rand(role).ok_or(Error::MissingPayload(name))?;
    if rand.len() < RAND_BYTES {
        return Err(Error::RandTooShort(rand.len()));
    }
    Ok(rand.to_vec())
}

pub(crate) fn required_uri<'a>(
    identity: Option<&'a Identity>,
    name: &'static str,
) -> Result<&'a str, Error> {
    uri_of(identity.ok_or(Error::MissingPayload(name))?)
}

/// The URI an identity is. Its type does not matter where its bytes are one: TS 33.328 has a rule for
/// the type that is not public.
pub(crate) fn uri_of(identity: &Identity) -> Result<&str, Error> {
    let text = str::from_utf8(&identity.data).map_err(|_| Error::IdentityNotUri)?;
    if identity.id_type == ID_URI || text.contains(':') {
        Ok(text)
    } else {
        Err(Error::IdentityNotUri)
    }
}

/// Whether the response belongs to the message it claims to answer.
pub(crate) fn check_response(response: &Header, csb_id: u32, prf: Prf) -> Result<(), Error> {
    if response.csb_id != csb_id || response.prf != prf.code() {
        return Err(Error::ResponseMismatch);
    }
    Ok(())
}

/// The one crypto session of a transfer (TS 23.333 clause 5.20.2).
pub(crate) fn only_session(map: &CsIdMap) -> Result<&CryptoSession, Error> {
    let CsIdMap::GenericId(sessions) = map else {
        return Err(Error::CryptoSessionCount(0));
    };
    let [session] = sessions.as_slice() else {
        return Err(Error::CryptoSessionCount(sessions.len()));
    };
    Ok(session)
}

/// What every party checks in a ticket's policy before it does any work on it.
pub(crate) fn check_ticket(
    ticket: &Ticket,
    parameters: &Parameters,
    now: NtpTime,
) -> Result<(), Error> {
    let policy = &ticket.policy;
    let refuse = |problem| Err(Error::UnacceptablePolicy(problem));
    if !parameters.accepted_ticket_types.contains(&policy.ticket_type) {
        return Err(Error::UnsupportedTicketType(policy.ticket_type));
    }
    if let Some(contradiction) = policy.flags.contradiction() {
        return refuse(PolicyProblem::Contradiction(contradiction));
    }
    let response = policy.flags.has(TicketFlags::TRANSFER_RESPONSE);
    if parameters.transfer_response_required && !response {
        return refuse(PolicyProblem::NoResponse);
    }
    // RFC 6043 section 6.10: it only tells what keys are wished for.
    if parameters.strict && policy.payloads.iter().any(|payload| payload.code() == KEMAC) {
        return refuse(PolicyProblem::SessionKeys);
    }
    check_validity(ticket, parameters.clock_skew_max, now)
}

fn check_validity(ticket: &Ticket, clock_skew_max: Duration, now: NtpTime) -> Result<(), Error> {
    let time = |role| match ticket.policy.time(role) {
        None => Ok(None),
        Some(timestamp) => {
            NtpTime::from_timestamp(timestamp).map(Some).ok_or(Error::UnsupportedTimestamp)
        }
    };
    // An omitted limit does not limit (RFC 6043 section 6.10). A ticket starts when its maker's
    // clock says so, which may be ahead of ours.
    if time(ROLE_START)?.is_some_and(|start| now.after(clock_skew_max).is_before(start)) {
        return Err(Error::TicketNotYetValid);
    }
    if time(ROLE_END)?.is_some_and(|end| end.is_before(now)) {
        return Err(Error::TicketExpired);
    }
    Ok(())
}

/// RANDs that enter the TEK, by the flags G and H; empty where they do not.
pub(crate) struct SessionRands<'a> {
    pub(crate) initiator: &'a [u8],
    pub(crate) responder: &'a [u8],
}

impl<'a> SessionRands<'a> {
    pub(crate) fn new(flags: TicketFlags, initiator: &'a [u8], responder: &'a [u8]) -> Self {
        let when = |flag, rand| if flags.has(flag) { rand } else { &[][..] };
        Self {
            initiator: when(TicketFlags::INITIATOR_RAND, initiator),
            responder: when(TicketFlags::RESPONDER_RAND, responder),
        }
    }
}

/// The key a crypto session starts with: by SPI, or the first where the session names none. Of several
/// with one SPI it is the last, as keys of the transfer come behind those of the ticket.
pub(crate) fn session_key<'a>(keys: &'a [KeyData], spi: &[u8]) -> Result<&'a KeyData, Error> {
    let usable = |key: &&KeyData| key.key_type < KEY_MPK;
    if !spi.is_empty() {
        let named = keys.iter().filter(usable).rfind(|key| key.spi() == Some(spi));
        return named.ok_or(Error::UnknownSessionKey);
    }
    keys.iter().find(usable).ok_or(Error::UnknownSessionKey)
}

/// The TEK of a crypto session: derived from a TGK or GTGK, or given as it is. It is the TLS
/// pre-shared key (TS 23.333 clause 5.20.2).
pub(crate) fn traffic_key(
    key: &KeyData,
    prf: Prf,
    crypto_session_id: u8,
    rands: &SessionRands<'_>,
    parameters: &Parameters,
) -> Result<Psk, Error> {
    let too_odd = || Error::KeyLength(key.key.len());
    if matches!(key.key_type, KEY_TEK | KEY_TEK_SALT) {
        return Psk::new(key.key.to_vec()).ok_or_else(too_odd);
    }
    let source = KeySource::crypto_session(
        prf,
        &key.key,
        crypto_session_id,
        rands.initiator,
        rands.responder,
    );
    let bytes = parameters.traffic_key_bytes.unwrap_or(key.key.len());
    let mut tek = source.derive(constant::TEK, bytes);
    Psk::new(std::mem::take(&mut tek)).ok_or_else(too_odd)
}
