//! What can go wrong, for the operator and for the peer.

use std::fmt;

use super::codec::{
    self, ContentsError, ContentsProblem, CsIdMap, DataType, FlagContradiction, Header, Message,
    ParseError, Payload, Timestamp,
};
use super::derivation::KeySource;
use super::initiator::offered_policy;
use super::protection::{Suite, seal};
use super::{NtpTime, Parameters};

/// Why an exchange failed. `Display` says what an operator can do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The peer sent bytes that are no MIKEY message.
    Malformed(ParseError),
    /// A KEMAC does not contain key data: wrong key, or a broken peer.
    MalformedKeys(ParseError),
    /// A message of another type than the exchange needs.
    UnexpectedMessage(DataType),
    /// The message lacks a payload the exchange needs.
    MissingPayload(&'static str),
    /// The message has a payload where none, or no second one, may be.
    UnexpectedPayload(&'static str),
    /// PRF unknown or not accepted here.
    UnsupportedPrf(u8),
    /// MAC algorithm unknown, NULL or not of the PRF's strength.
    UnsupportedMac(u8),
    /// Encryption algorithm unknown, NULL or not of the PRF's strength.
    UnsupportedEncryption(u8),
    /// A timestamp that is no time (COUNTER).
    UnsupportedTimestamp,
    /// Ticket type not accepted here.
    UnsupportedTicketType(u16),
    /// Ticket flags contradict each other or ask for what we do not do.
    UnacceptablePolicy(PolicyProblem),
    /// A crypto session for another protocol than TLS.
    ProtectionTypeNotAccepted(u8),
    /// Not exactly one crypto session.
    CryptoSessionCount(usize),
    /// The crypto session names a security policy that is not there.
    UnknownSecurityPolicy(u8),
    /// A RAND shorter than 16 bytes.
    RandTooShort(usize),
    /// The MAC is wrong: another key, or a changed message.
    WrongMac(DataType),
    /// The MAC of the ticket is wrong.
    WrongTicketMac,
    /// The Initiator Data of a ticket is not proof: whoever sends it does not have the ticket's keys.
    WrongInitiatorProof,
    /// Wrapped keys do not unwrap.
    WrongKeyWrap,
    /// The signature is wrong.
    WrongSignature,
    /// A certificate is not good.
    Certificate(CertificateProblem),
    /// The envelope is not for a key of ours.
    Envelope,
    /// The ticket may not be used again (flag J).
    TicketReused,
    /// A CSB update for another bundle, or with a key that was in use before.
    StaleUpdate,
    /// The peer's clock is too far off ours.
    ClockSkew {
        /// The time in the message.
        received: NtpTime,
        /// Ours.
        now: NtpTime,
    },
    /// The message was seen before.
    Replayed,
    /// No room to remember one more message.
    ReplayCacheFull,
    /// The ticket is not valid yet.
    TicketNotYetValid,
    /// The ticket is not valid any more.
    TicketExpired,
    /// An identity that is no URI.
    IdentityNotUri,
    /// An identity longer than [`super::uri::URI_BYTES_MAX`].
    IdentityTooLong(usize),
    /// TRANSFER_INIT is for somebody else.
    NotForUs(String),
    /// The ticket names another KMS.
    OtherKms(String),
    /// Initiator of message and ticket differ.
    InitiatorMismatch,
    /// The responder is not who was called.
    UnexpectedResponder(String),
    /// The list of key management protocols in SDP was changed on the way.
    ProtocolListMismatch,
    /// No key by that identity.
    UnknownKeyIdentity(String),
    /// That key's owner may not act as this URI.
    NotAuthorised(String),
    /// The ticket is not for this responder.
    ResponderNotInTicket(String),
    /// The response is not to our message.
    ResponseMismatch,
    /// No key by the SPI the crypto session names, or a key of an unusable type.
    UnknownSessionKey,
    /// A key of unusable length.
    KeyLength(usize),
    /// The peer answered with a MIKEY Error message.
    Refused {
        /// Error number, 12 (unspecified) where it gave none.
        number: u8,
        /// It has a MAC, which is right. Without one it is a hint that anybody may have given (RFC 3830
        /// section 5.1.2).
        authentic: bool,
    },
}

/// What is wrong with a ticket policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyProblem {
    /// The flags contradict each other.
    Contradiction(FlagContradiction),
    /// Flag D does not agree with whose key protects the ticket.
    Maker,
    /// Forked TGKs without TRANSFER_RESP (flag F), which carries what they are forked by.
    ForkedWithoutResponse,
    /// Session keys of a kind or length that cannot be, or without a name.
    SessionKeys,
    /// No TRANSFER_RESP wanted (flag F not set): the answer has to carry one.
    NoResponse,
    /// Initiator Data without key forking.
    InitiatorData,
    /// Session keys in the transfer against the flags L and M.
    TransferredKeys,
    /// O (or N) not set: the ticket type asks for more than RFC 6043.
    AdditionalProcessing,
    /// Unknown subtype or version.
    Version,
    /// More identities than a ticket we make has room for.
    TooLong,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CertificateProblem {
    /// The message has none.
    Missing,
    /// It cannot be read.
    Malformed,
    /// No authority of ours vouches for it, or not now.
    Untrusted,
    /// It does not name the identity that is claimed.
    OtherIdentity,
    /// Its key is no RSA key of 2048 bits or more.
    Key,
    /// The signature is of a type we do not verify.
    SignatureType,
}

impl Error {
    /// A name for counting, without what the peer put into it, so that a peer cannot make counters at
    /// will.
    #[must_use]
    pub fn name(&self) -> String {
        let name = format!("{self:?}");
        name.chars().take_while(char::is_ascii_alphanumeric).collect()
    }

    /// Error number of a MIKEY Error message about this (RFC 3830 section 6.12, RFC 6043
    /// section 6.9).
    #[must_use]
    pub fn mikey_error_number(&self) -> u8 {
        match self {
            Self::WrongMac(_)
            | Self::WrongTicketMac
            | Self::MalformedKeys(_)
            | Self::WrongInitiatorProof
            | Self::WrongKeyWrap
            | Self::WrongSignature
            | Self::Envelope
            | Self::UnknownKeyIdentity(_) => 0,
            Self::Certificate(_) => 8,
            Self::ClockSkew { .. } | Self::Replayed | Self::UnsupportedTimestamp => 1,
            Self::UnsupportedPrf(_) => 2,
            Self::UnsupportedMac(_) => 3,
            Self::UnsupportedEncryption(_) => 4,
            Self::IdentityNotUri
            | Self::IdentityTooLong(_)
            | Self::NotForUs(_)
            | Self::OtherKms(_)
            | Self::InitiatorMismatch
            | Self::UnexpectedResponder(_)
            | Self::NotAuthorised(_)
            | Self::ResponderNotInTicket(_) => 7,
            Self::ProtectionTypeNotAccepted(_)
            | Self::CryptoSessionCount(_)
            | Self::UnknownSecurityPolicy(_) => 9,
            Self::UnsupportedTicketType(_) => 14,
            Self::UnacceptablePolicy(_)
            | Self::TicketNotYetValid
            | Self::TicketExpired
            | Self::TicketReused => 15,
            Self::UnexpectedMessage(_) => 13,
            Self::Malformed(error) => match error.reason {
                codec::ParseReason::UnknownDataType(_) => 11,
                _ => 12,
            },
            Self::MissingPayload(_)
            | Self::UnexpectedPayload(_)
            | Self::RandTooShort(_)
            | Self::ReplayCacheFull
            | Self::ProtocolListMismatch
            | Self::ResponseMismatch
            | Self::UnknownSessionKey
            | Self::StaleUpdate
            | Self::KeyLength(_)
            | Self::Refused { .. } => 12,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed MIKEY message: {error}"),
            Self::MalformedKeys(error) => {
                write!(
                    f,
                    "decrypted key data makes no sense ({error}): do both ends share the key?"
                )
            }
            Self::UnexpectedMessage(data_type) => write!(f, "unexpected {data_type:?} message"),
            Self::MissingPayload(name) => write!(f, "the message lacks its {name} payload"),
            Self::UnexpectedPayload(name) => {
                write!(f, "the message has a {name} payload too many")
            }
            Self::UnsupportedPrf(code) => {
                write!(f, "PRF {code} is unknown or not accepted: see the accepted suites")
            }
            Self::UnsupportedMac(code) => {
                write!(f, "MAC algorithm {code} is unknown or does not belong to the PRF")
            }
            Self::UnsupportedEncryption(code) => {
                write!(f, "encryption {code} is unknown or does not belong to the PRF")
            }
            Self::UnsupportedTimestamp => f.write_str("COUNTER timestamps are not supported"),
            Self::UnsupportedTicketType(ticket_type) => {
                write!(f, "ticket type {ticket_type} is not accepted: see the accepted types")
            }
            Self::UnacceptablePolicy(problem) => write!(f, "ticket policy: {problem}"),
            Self::ProtectionTypeNotAccepted(code) => write!(
                f,
                "crypto session for protection type {code}: if the peer means TLS by it, add it to \
                 the accepted protection types"
            ),
            Self::CryptoSessionCount(count) => write!(f, "{count} crypto sessions, not one"),
            Self::UnknownSecurityPolicy(number) => {
                write!(f, "no security policy for TLS by the number {number}")
            }
            Self::RandTooShort(bytes) => write!(f, "RAND of {bytes} bytes, at least 16 needed"),
            Self::WrongMac(data_type) => {
                write!(f, "wrong MAC in {data_type:?}: do both ends share the key?")
            }
            Self::WrongTicketMac => {
                f.write_str("wrong MAC in the ticket: is the ticket protection key the same?")
            }
            Self::WrongInitiatorProof => {
                f.write_str("the Initiator Data does not prove that the initiator has the ticket")
            }
            Self::WrongKeyWrap => f.write_str("wrapped keys do not unwrap"),
            Self::WrongSignature => f.write_str("wrong signature: is it made with SHA-256?"),
            Self::Certificate(problem) => write!(f, "certificate: {problem}"),
            Self::Envelope => f.write_str("the envelope does not open with a key of ours"),
            Self::TicketReused => f.write_str("the ticket may be used only once (flag J)"),
            Self::StaleUpdate => f.write_str("the update brings no key that is new here"),
            Self::ClockSkew { received, now } => write!(
                f,
                "the message is from NTP second {}, our clock says {}: are both clocks \
                 synchronised?",
                received.seconds(),
                now.seconds()
            ),
            Self::Replayed => f.write_str("the message was received before"),
            Self::ReplayCacheFull => {
                f.write_str("the replay cache is full: raise its size or lower the clock skew")
            }
            Self::TicketNotYetValid => f.write_str("the ticket is not valid yet: check the clocks"),
            Self::TicketExpired => f.write_str("the ticket has expired"),
            Self::IdentityNotUri => f.write_str("an identity is not a URI"),
            Self::IdentityTooLong(bytes) => write!(f, "an identity of {bytes} bytes"),
            Self::NotForUs(uri) => {
                write!(f, "TRANSFER_INIT is for {uri}, which is not ours: check the domains")
            }
            Self::OtherKms(uri) => write!(f, "the ticket is from the KMS {uri}, not from ours"),
            Self::InitiatorMismatch => f.write_str("initiator of message and ticket differ"),
            Self::UnexpectedResponder(uri) => write!(f, "{uri} answered, who was not called"),
            Self::ProtocolListMismatch => {
                f.write_str("the key management protocols in SDP were changed on the way")
            }
            Self::UnknownKeyIdentity(identity) => write!(f, "no key by the identity {identity}"),
            Self::NotAuthorised(uri) => write!(f, "the key's owner may not act as {uri}"),
            Self::ResponderNotInTicket(uri) => write!(f, "the ticket is not for {uri}"),
            Self::ResponseMismatch => f.write_str("the response does not belong to our message"),
            Self::UnknownSessionKey => {
                f.write_str("the ticket holds no TGK or TEK by the SPI of the crypto session")
            }
            Self::KeyLength(bytes) => write!(f, "a key of {bytes} bytes: 16 to 64 are usable"),
            Self::Refused { number, authentic: true } => {
                write!(f, "the peer refused with MIKEY error {number}")
            }
            Self::Refused { number, authentic: false } => {
                write!(f, "somebody, presumably the peer, refused with MIKEY error {number}")
            }
        }
    }
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contradiction(contradiction) => {
                return write!(f, "its flags contradict each other: {contradiction}");
            }
            Self::Maker => "flag D does not agree with whose key protects the ticket",
            Self::ForkedWithoutResponse => "it forks TGKs (flag I) without TRANSFER_RESP (flag F)",
            Self::SessionKeys => "session keys of a kind, length or name that cannot be",
            Self::NoResponse => "it forbids the TRANSFER_RESP (flag F) the SDP answer carries",
            Self::InitiatorData => "Initiator Data without key forking",
            Self::TransferredKeys => "session keys in the transfer, which flags L and M forbid",
            Self::AdditionalProcessing => "it asks for more than RFC 6043 (flag N or O not set)",
            Self::Version => "unknown subtype or version of the ticket type",
            Self::TooLong => "longer than the tickets that are made here",
        })
    }
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is none in the message",
            Self::Malformed => "it cannot be read",
            Self::Untrusted => "no authority of ours vouches for it at this time",
            Self::OtherIdentity => "its subjectAltName does not have the identity claimed",
            Self::Key => "its key is no RSA key of 2048 bits or more",
            Self::SignatureType => "the signature is neither RSA PKCS #1 v1.5 nor RSA-PSS",
        })
    }
}

impl std::error::Error for Error {}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        Self::Malformed(error)
    }
}

impl From<ContentsError> for Error {
    fn from(error: ContentsError) -> Self {
        match error.problem {
            ContentsProblem::Missing => Self::MissingPayload(error.payload),
            ContentsProblem::Unexpected | ContentsProblem::Repeated => {
                Self::UnexpectedPayload(error.payload)
            }
        }
    }
}

/// The MIKEY Error message to send about `error` to who sent `request`, unauthenticated (RFC 6043
/// section 5.4). `None` where `request` is itself an Error or no MIKEY message at all.
#[must_use]
pub fn error_message(request: &[u8], error: &Error, now: NtpTime) -> Option<Vec<u8>> {
    error_payloads(request, error, now).map(|message| codec::encode(&message))
}

/// The same about a TRANSFER_INIT, with what would be taken where it is about security policies.
pub(super) fn transfer_error(
    request: &[u8],
    error: &Error,
    parameters: &Parameters,
    now: NtpTime,
) -> Option<Message> {
    let mut message = error_payloads(request, error, now)?;
    if error.mikey_error_number() == NUMBER_SECURITY_POLICY {
        message.payloads.push(offered_policy(parameters));
    }
    Some(message)
}

/// Protected by the key of the message it is about (RFC 6043 section 5.4), which was authentic: an answer
/// to what was not would only cost us.
pub(crate) fn authentic_error_message(
    request: &[u8],
    error: &Error,
    source: &KeySource<'_>,
    now: NtpTime,
) -> Option<Vec<u8>> {
    let message = error_payloads(request, error, now)?;
    Some(seal(message, source, Suite::of_prf(source.prf()).mac_algorithm(), &[]))
}

pub(crate) fn error_payloads(request: &[u8], error: &Error, now: NtpTime) -> Option<Message> {
    let (prf, csb_id) = match codec::parse(request) {
        Ok(message) if message.header.data_type == DataType::Error => return None,
        Ok(message) => (message.header.prf, message.header.csb_id),
        // Malformed behind a header that can be read.
        Err(_) => match request {
            [1, data_type, _, prf, a, b, c, d, ..] if *data_type != DataType::Error as u8 => {
                (prf & 0x7f, u32::from_be_bytes([*a, *b, *c, *d]))
            }
            _ => return None,
        },
    };
    Some(Message {
        header: Header {
            data_type: DataType::Error,
            response_wanted: false,
            prf,
            csb_id,
            map: CsIdMap::Empty { count: 0 },
        },
        payloads: vec![
            Payload::Timestamp(Timestamp::NtpUtc(now.0)),
            Payload::Error { number: error.mikey_error_number(), reserved: 0 },
        ],
    })
}

const NUMBER_SECURITY_POLICY: u8 = 9;
