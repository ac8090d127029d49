//! Which payloads each message is made of (RFC 3830 sections 3 and 5.1.2, RFC 4650, RFC 4738
//! section 3, RFC 6043 sections 4.2, 5.2 and 5.4).

use std::fmt;

use super::code_point as code;
use super::payload::{Payload, name};
use super::{DataType, Message};

/// A message that parses and is still not what its data type says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentsError {
    /// Which message.
    pub data_type: DataType,
    /// The payload it is about, by the RFC's name.
    pub payload: &'static str,
    /// What is wrong with it.
    pub problem: ContentsProblem,
}

/// What is wrong with a payload of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentsProblem {
    /// It has to be there, and in its place.
    Missing,
    /// It must not be there.
    Unexpected,
    /// It may be there once.
    Repeated,
}

impl fmt::Display for ContentsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data_type, payload, problem } = self;
        match problem {
            ContentsProblem::Missing => write!(f, "{data_type} lacks its {payload}"),
            ContentsProblem::Unexpected => write!(f, "{data_type} has no {payload}"),
            ContentsProblem::Repeated => write!(f, "{data_type} has more than one {payload}"),
        }
    }
}

impl std::error::Error for ContentsError {}

impl Message {
    /// Checks that every payload is there that the message needs, and none too often. Payloads that
    /// are known and not expected are ignored in messages of RFC 6043 (sections 4.2.1.4 to 4.2.3.6)
    /// and wrong in those of RFC 3830.
    ///
    /// # Errors
    /// [`ContentsError`] names the first payload that is wrong.
    pub fn check_contents(&self) -> Result<(), ContentsError> {
        let data_type = self.header.data_type;
        let fails = |payload, problem| Err(ContentsError { data_type, payload, problem });
        let contents = self.contents();
        for rule in contents.rules {
            let count = self.payloads.iter().filter(|payload| rule.matches(payload)).count();
            match rule.times {
                Times::Once if count == 0 => {
                    return fails(rule.name, ContentsProblem::Missing);
                }
                Times::Once | Times::AtMostOnce if count > 1 => {
                    return fails(rule.name, ContentsProblem::Repeated);
                }
                _ => {}
            }
        }
        let ends_otherwise = |last: &u8| self.payloads.last().map(Payload::code) != Some(*last);
        if let Some(last) = contents.last.filter(ends_otherwise) {
            return fails(name(last).expect("a payload of ours"), ContentsProblem::Missing);
        }
        match self.unexpected().next() {
            Some(payload) if !self.is_of_rfc6043() => {
                fails(payload.name(), ContentsProblem::Unexpected)
            }
            _ => Ok(()),
        }
    }

    /// Payloads that have no place in a message of this type. General extensions may be anywhere
    /// (RFC 3830 section 6.15).
    pub fn unexpected(&self) -> impl Iterator<Item = &Payload> {
        let contents = self.contents();
        self.payloads.iter().filter(move |payload| {
            payload.code() != code::GENERAL_EXTENSION
                && Some(payload.code()) != contents.last
                && !contents.rules.iter().any(|rule| rule.matches(payload))
        })
    }

    /// Whether this TRANSFER_INIT updates what an earlier one set up: it has no ticket (RFC 6043
    /// section 5.2).
    #[must_use]
    pub fn is_csb_update(&self) -> bool {
        self.header.data_type == DataType::TransferInit && self.ticket().is_none()
    }

    fn is_of_rfc6043(&self) -> bool {
        let of_ticket_exchanges = self.header.data_type as u8 >= DataType::RequestInitPsk as u8;
        of_ticket_exchanges || self.header.data_type == DataType::Error
    }

    fn contents(&self) -> Contents {
        match self.header.data_type {
            DataType::PreShared => PRE_SHARED,
            DataType::PreSharedVerification | DataType::PublicKeyVerification => VERIFICATION,
            DataType::PublicKey => PUBLIC_KEY,
            DataType::DiffieHellmanInit => DIFFIE_HELLMAN_INIT,
            DataType::DiffieHellmanResp => DIFFIE_HELLMAN_RESP,
            DataType::Error => ERROR,
            DataType::DiffieHellmanHmacInit => DIFFIE_HELLMAN_HMAC_INIT,
            DataType::DiffieHellmanHmacResp => DIFFIE_HELLMAN_HMAC_RESP,
            DataType::RsaReverseInit => RSA_REVERSE_INIT,
            DataType::RsaReverseResp => RSA_REVERSE_RESP,
            DataType::RequestInitPsk => REQUEST_INIT_PSK,
            DataType::RequestInitPk => REQUEST_INIT_PK,
            DataType::RequestResp => REQUEST_RESP,
            DataType::TransferInit if self.is_csb_update() => CSB_UPDATE_INIT,
            DataType::TransferInit => TRANSFER_INIT,
            DataType::TransferResp => TRANSFER_RESP,
            DataType::ResolveInitPsk => RESOLVE_INIT_PSK,
            DataType::ResolveInitPk => RESOLVE_INIT_PK,
            DataType::ResolveResp => RESOLVE_RESP,
        }
    }
}

/// The payloads of a message, and which one ends it.
#[derive(Clone, Copy)]
struct Contents {
    rules: &'static [Rule],
    last: Option<u8>,
}

/// How often a payload may be there.
#[derive(Clone, Copy)]
struct Rule {
    name: &'static str,
    code: u8,
    /// Of payloads that have a role.
    role: Option<u8>,
    times: Times,
}

#[derive(Clone, Copy)]
enum Times {
    Once,
    AtMostOnce,
    AnyNumber,
}

impl Rule {
    fn matches(&self, payload: &Payload) -> bool {
        payload.code() == self.code && (self.role.is_none() || payload.role() == self.role)
    }
}

const fn one(name: &'static str, code: u8) -> Rule {
    Rule { name, code, role: None, times: Times::Once }
}

const fn maybe(name: &'static str, code: u8) -> Rule {
    Rule { name, code, role: None, times: Times::AtMostOnce }
}

const fn any(name: &'static str, code: u8) -> Rule {
    Rule { name, code, role: None, times: Times::AnyNumber }
}

const fn idr(name: &'static str, role: u8) -> Rule {
    Rule { name, code: code::IDR, role: Some(role), times: Times::AtMostOnce }
}

const fn randr(name: &'static str, role: u8, times: Times) -> Rule {
    Rule { name, code: code::RANDR, role: Some(role), times }
}

const T: Rule = one("T", code::T);
// A CSB update repeats no RAND (RFC 3830 section 4.5), and nothing in the message says that it is one.
const RAND: Rule = maybe("RAND", code::RAND);
const IDS: Rule = any("ID", code::ID);
const CERTS: Rule = any("CERT", code::CERT);
const SPS: Rule = any("SP", code::SP);
const CHASH: Rule = maybe("CHASH", code::CHASH);
const KEMAC: Rule = one("KEMAC", code::KEMAC);
const MAYBE_KEMAC: Rule = maybe("KEMAC", code::KEMAC);
const PKE: Rule = one("PKE", code::PKE);
const TP: Rule = one("TP", code::TP);
const TICKET: Rule = one("TICKET", code::TICKET);
const IDRI: Rule = idr("IDRi", code::ROLE_INITIATOR);
const IDRR: Rule = idr("IDRr", code::ROLE_RESPONDER);
const IDRKMS: Rule = idr("IDRkms", code::ROLE_KMS);
const IDRPSK: Rule = idr("IDRpsk", code::ROLE_PRE_SHARED_KEY);
const RANDRI: Rule = randr("RANDRi", code::ROLE_INITIATOR, Times::Once);
const RANDRR: Rule = randr("RANDRr", code::ROLE_RESPONDER, Times::Once);
const MAYBE_RANDRR: Rule = randr("RANDRr", code::ROLE_RESPONDER, Times::AtMostOnce);
const MAYBE_RANDRKMS: Rule = randr("RANDRkms", code::ROLE_KMS, Times::AtMostOnce);

const fn ends_with(last: u8, rules: &'static [Rule]) -> Contents {
    Contents { rules, last: Some(last) }
}

const PRE_SHARED: Contents = ends_with(code::KEMAC, &[T, RAND, IDS, SPS, KEMAC]);
const VERIFICATION: Contents = ends_with(code::V, &[T, IDS]);
const PUBLIC_KEY: Contents =
    ends_with(code::SIGN, &[T, RAND, IDS, CERTS, SPS, MAYBE_KEMAC, CHASH, PKE]);
// The values may be missing in an update (RFC 3830 section 4.5).
const DIFFIE_HELLMAN_INIT: Contents =
    ends_with(code::SIGN, &[T, RAND, IDS, CERTS, SPS, maybe("DHi", code::DH)]);
const DIFFIE_HELLMAN_RESP: Contents = ends_with(code::SIGN, &[T, IDS, CERTS, any("DH", code::DH)]);
const DIFFIE_HELLMAN_HMAC_INIT: Contents =
    ends_with(code::KEMAC, &[T, RAND, IDS, SPS, maybe("DHi", code::DH), KEMAC]);
const DIFFIE_HELLMAN_HMAC_RESP: Contents =
    ends_with(code::KEMAC, &[T, IDS, any("DH", code::DH), KEMAC]);
const RSA_REVERSE_INIT: Contents = ends_with(code::SIGN, &[T, RAND, IDS, CERTS, SPS]);
const RSA_REVERSE_RESP: Contents = ends_with(code::SIGN, &[T, RAND, IDS, CERTS, SPS, KEMAC, PKE]);
const ERROR: Contents = Contents {
    rules: &[T, any("ERR", code::ERR), SPS, maybe("V", code::V), maybe("SIGN", code::SIGN)],
    last: None,
};
const REQUEST_INIT_PSK: Contents = ends_with(code::V, &[T, RANDRI, IDRI, IDRKMS, TP, IDRPSK]);
const REQUEST_INIT_PK: Contents =
    ends_with(code::SIGN, &[T, RANDRI, IDRI, CERTS, IDRKMS, TP, CHASH, PKE]);
const REQUEST_RESP: Contents = ends_with(code::V, &[T, IDRKMS, TICKET, KEMAC]);
const TRANSFER_INIT: Contents =
    ends_with(code::V, &[T, RANDRI, IDRI, IDRR, SPS, TICKET, MAYBE_KEMAC]);
const CSB_UPDATE_INIT: Contents = ends_with(code::V, &[T, IDRI, IDRR, SPS, MAYBE_KEMAC]);
// In a CSB update that the responder began the answer names the initiator.
const TRANSFER_RESP: Contents =
    ends_with(code::V, &[T, MAYBE_RANDRR, IDRI, IDRR, MAYBE_RANDRKMS, SPS, MAYBE_KEMAC]);
const RESOLVE_INIT_PSK: Contents = ends_with(code::V, &[T, RANDRR, IDRR, IDRKMS, TICKET, IDRPSK]);
const RESOLVE_INIT_PK: Contents =
    ends_with(code::SIGN, &[T, RANDRR, IDRR, CERTS, IDRKMS, TICKET, CHASH, PKE]);
const RESOLVE_RESP: Contents = ends_with(code::V, &[T, IDRKMS, KEMAC, IDRR, MAYBE_RANDRKMS]);
