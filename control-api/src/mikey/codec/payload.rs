//! Payloads and the chain they form (RFC 3830 section 6, RFC 6043 section 6).

use super::code_point as code;
use super::fields::{Identity, Kemac, SecurityPolicy, Timestamp, Verification};
use super::fields::{MacAlgorithm, encode_identity, parse_identity, put_mac};
use super::key_data::{KeyValidity, put_validity};
use super::reader::{ParseError, ParseReason, Reader, put_vec8, put_vec16};
use super::ticket::{self, Ticket, TicketPolicy};
use super::{InitiatorData, code_point};

/// One payload. The next-payload field follows from the chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// KEMAC.
    Kemac(Kemac),
    /// Envelope: C bits and 14-bit length are kept in `data`'s company.
    Pke {
        /// Cache policy, 2 bits.
        cache: u8,
        /// The encrypted envelope key.
        data: Vec<u8>,
    },
    /// A Diffie-Hellman value.
    DiffieHellman {
        /// The group, which fixes the length of the value.
        group: u8,
        /// The public value.
        value: Vec<u8>,
        /// Four bits, sent as 0, kept as received.
        reserved: u8,
        /// Validity of the key that is agreed on.
        validity: KeyValidity,
    },
    /// Signature, always last.
    Sign {
        /// Signature type, 4 bits.
        signature_type: u8,
        /// The signature.
        signature: Vec<u8>,
    },
    /// T.
    Timestamp(Timestamp),
    /// ID of RFC 3830.
    Id(Identity),
    /// Certificate.
    Certificate {
        /// Certificate type.
        certificate_type: u8,
        /// The certificate.
        data: Vec<u8>,
    },
    /// Certificate hash.
    CertificateHash {
        /// Hash function.
        function: u8,
        /// The hash.
        hash: Vec<u8>,
    },
    /// V.
    Verification(Verification),
    /// SP.
    SecurityPolicy(SecurityPolicy),
    /// RAND of RFC 3830.
    Rand(Vec<u8>),
    /// ERR.
    Error {
        /// Error number.
        number: u8,
        /// Sent as 0, kept as received.
        reserved: u16,
    },
    /// TR.
    Tr {
        /// What the time means.
        role: u8,
        /// When.
        timestamp: Timestamp,
    },
    /// IDR.
    Idr {
        /// Whose identity.
        role: u8,
        /// Which.
        identity: Identity,
    },
    /// RANDR.
    Randr {
        /// Whose RAND.
        role: u8,
        /// At most 255 bytes.
        rand: Vec<u8>,
    },
    /// TP.
    TicketPolicy(TicketPolicy),
    /// TICKET.
    Ticket(Box<Ticket>),
    /// General extension.
    GeneralExtension {
        /// Which extension.
        extension_type: u8,
        /// Its content.
        data: Vec<u8>,
    },
}

impl Payload {
    /// The payload type code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Kemac(_) => code::KEMAC,
            Self::Pke { .. } => code::PKE,
            Self::DiffieHellman { .. } => code::DH,
            Self::Sign { .. } => code::SIGN,
            Self::Timestamp(_) => code::T,
            Self::Id(_) => code::ID,
            Self::Certificate { .. } => code::CERT,
            Self::CertificateHash { .. } => code::CHASH,
            Self::Verification(_) => code::V,
            Self::SecurityPolicy(_) => code::SP,
            Self::Rand(_) => code::RAND,
            Self::Error { .. } => code::ERR,
            Self::Tr { .. } => code::TR,
            Self::Idr { .. } => code::IDR,
            Self::Randr { .. } => code::RANDR,
            Self::TicketPolicy(_) => code::TP,
            Self::Ticket(_) => code::TICKET,
            Self::GeneralExtension { .. } => code::GENERAL_EXTENSION,
        }
    }

    /// What the RFCs call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name(self.code()).expect("every payload has a name")
    }

    /// The role, where payloads of this kind have one.
    #[must_use]
    pub fn role(&self) -> Option<u8> {
        match self {
            Self::Tr { role, .. } | Self::Idr { role, .. } | Self::Randr { role, .. } => {
                Some(*role)
            }
            _ => None,
        }
    }

    /// What may stand only once in a chain, as (code, role); `None` for what may repeat.
    fn singleton(&self) -> Option<(u8, u8)> {
        match self {
            Self::Kemac(_)
            | Self::Pke { .. }
            | Self::Sign { .. }
            | Self::Timestamp(_)
            | Self::CertificateHash { .. }
            | Self::Verification(_)
            | Self::Rand(_)
            | Self::TicketPolicy(_)
            | Self::Ticket(_) => Some((self.code(), 0)),
            Self::Tr { role, .. } | Self::Randr { role, .. } => Some((self.code(), *role)),
            // A ticket policy names several responders and applications.
            Self::Idr { role: code::ROLE_RESPONDER | code::ROLE_APPLICATION, .. } => None,
            Self::Idr { role, .. } => Some((self.code(), *role)),
            // A response of the Diffie-Hellman method carries both values (RFC 3830 section 3.3).
            Self::DiffieHellman { .. }
            | Self::Id(_)
            | Self::Certificate { .. }
            | Self::SecurityPolicy(_)
            | Self::Error { .. }
            | Self::GeneralExtension { .. } => None,
        }
    }

    pub(super) fn parse(
        payload_code: u8,
        reader: &mut Reader<'_>,
        payloads_left: &mut usize,
    ) -> Result<Self, ParseError> {
        Ok(match payload_code {
            code::KEMAC => {
                let encryption = reader.u8()?;
                let encrypted = reader.vec16()?;
                let mac_algorithm = MacAlgorithm::parse(reader)?;
                let mac = reader.take(mac_algorithm.mac_bytes())?.to_vec();
                Self::Kemac(Kemac { encryption, encrypted, mac_algorithm, mac })
            }
            code::PKE => {
                let field = reader.u16()?;
                let data = reader.take(usize::from(field & 0x3fff))?.to_vec();
                Self::Pke { cache: (field >> 14) as u8, data }
            }
            code::DH => parse_diffie_hellman(reader)?,
            code::SIGN => {
                let field = reader.u16()?;
                let signature = reader.take(usize::from(field & 0x0fff))?.to_vec();
                Self::Sign { signature_type: (field >> 12) as u8, signature }
            }
            code::T => Self::Timestamp(Timestamp::parse(reader)?),
            code::ID => Self::Id(parse_identity(reader)?),
            code::CERT => {
                Self::Certificate { certificate_type: reader.u8()?, data: reader.vec16()? }
            }
            code::CHASH => parse_certificate_hash(reader)?,
            code::V => {
                let algorithm = MacAlgorithm::parse(reader)?;
                let mac = reader.take(algorithm.mac_bytes())?.to_vec();
                Self::Verification(Verification { algorithm, mac })
            }
            code::SP => Self::SecurityPolicy(SecurityPolicy {
                number: reader.u8()?,
                protection_type: reader.u8()?,
                parameters: reader.vec16()?,
            }),
            code::RAND => Self::Rand(reader.vec8()?),
            code::ERR => Self::Error { number: reader.u8()?, reserved: reader.u16()? },
            code::TR => Self::Tr { role: reader.u8()?, timestamp: Timestamp::parse(reader)? },
            code::IDR => Self::Idr { role: reader.u8()?, identity: parse_identity(reader)? },
            code::RANDR => Self::Randr { role: reader.u8()?, rand: reader.vec8()? },
            code::TP => Self::TicketPolicy(TicketPolicy::parse(reader, payloads_left)?),
            code::TICKET => Self::Ticket(Box::new(Ticket::parse(reader, payloads_left)?)),
            code::GENERAL_EXTENSION => {
                Self::GeneralExtension { extension_type: reader.u8()?, data: reader.vec16()? }
            }
            // Unreachable through `parse_chain`, which knows the names first.
            unknown => return Err(reader.error(ParseReason::UnknownPayload(unknown))),
        })
    }

    fn encode(&self, out: &mut Vec<u8>, initiator_data: InitiatorData) {
        match self {
            Self::Kemac(kemac) => {
                out.push(kemac.encryption);
                put_vec16(out, &kemac.encrypted);
                put_mac(out, kemac.mac_algorithm, &kemac.mac);
            }
            Self::Pke { cache, data } => put_packed(out, *cache, 14, data),
            Self::DiffieHellman { group, value, reserved, validity } => {
                out.push(*group);
                out.extend_from_slice(value);
                out.push(*reserved << 4 | validity.code());
                put_validity(out, validity);
            }
            Self::Sign { signature_type, signature } => {
                put_packed(out, *signature_type, 12, signature);
            }
            Self::Timestamp(timestamp) => timestamp.encode(out),
            Self::Id(identity) => encode_identity(out, identity),
            Self::Certificate { certificate_type, data } => {
                out.push(*certificate_type);
                put_vec16(out, data);
            }
            Self::CertificateHash { function, hash } => {
                out.push(*function);
                out.extend_from_slice(hash);
            }
            Self::Verification(verification) => {
                put_mac(out, verification.algorithm, &verification.mac);
            }
            Self::SecurityPolicy(policy) => {
                out.extend_from_slice(&[policy.number, policy.protection_type]);
                put_vec16(out, &policy.parameters);
            }
            Self::Rand(rand) => put_vec8(out, rand),
            Self::Error { number, reserved } => {
                out.push(*number);
                out.extend_from_slice(&reserved.to_be_bytes());
            }
            Self::Tr { role, timestamp } => {
                out.push(*role);
                timestamp.encode(out);
            }
            Self::Idr { role, identity } => {
                out.push(*role);
                encode_identity(out, identity);
            }
            Self::Randr { role, rand } => {
                out.push(*role);
                put_vec8(out, rand);
            }
            Self::TicketPolicy(policy) => policy.encode(out),
            Self::Ticket(ticket) => ticket::encode_ticket(out, ticket, initiator_data),
            Self::GeneralExtension { extension_type, data } => {
                out.push(*extension_type);
                put_vec16(out, data);
            }
        }
    }
}

/// Reads payloads until one says it is the last; nothing may follow it.
pub(super) fn parse_chain(
    reader: &mut Reader<'_>,
    first: u8,
    payloads_left: &mut usize,
) -> Result<Vec<Payload>, ParseError> {
    let mut payloads = Vec::new();
    let mut seen: Vec<(u8, u8)> = Vec::new();
    let mut next = first;
    while next != code_point::LAST {
        let payload_code = next;
        let Some(name) = name(payload_code) else {
            return Err(reader.error(ParseReason::UnknownPayload(payload_code)));
        };
        reader.enter(name);
        let at_payload = reader.clone();
        let Some(left) = payloads_left.checked_sub(1) else {
            return Err(at_payload.error(ParseReason::TooManyPayloads));
        };
        *payloads_left = left;
        // RFC 3830 section 6.5: SIGN has no next-payload byte, it is always the last.
        next = if payload_code == code::SIGN { code_point::LAST } else { reader.u8()? };
        let payload = Payload::parse(payload_code, reader, payloads_left)?;
        if let Some(key) = payload.singleton() {
            if seen.contains(&key) {
                return Err(at_payload.error(ParseReason::DuplicatePayload(payload_code)));
            }
            seen.push(key);
        }
        payloads.push(payload);
    }
    reader.finish()?;
    Ok(payloads)
}

/// Writes payloads, each with the type of the one behind it.
pub(super) fn encode_chain(out: &mut Vec<u8>, payloads: &[Payload], initiator_data: InitiatorData) {
    for (index, payload) in payloads.iter().enumerate() {
        let next = payloads.get(index + 1).map_or(code_point::LAST, Payload::code);
        if matches!(payload, Payload::Sign { .. }) {
            assert_eq!(next, code_point::LAST, "SIGN is the last payload");
        } else {
            out.push(next);
        }
        payload.encode(out, initiator_data);
    }
}

/// What the RFCs call this payload, where its length rule is known.
pub(super) fn name(payload_code: u8) -> Option<&'static str> {
    Some(match payload_code {
        code::KEMAC => "KEMAC",
        code::PKE => "PKE",
        code::DH => "DH",
        code::SIGN => "SIGN",
        code::T => "T",
        code::ID => "ID",
        code::CERT => "CERT",
        code::CHASH => "CHASH",
        code::V => "V",
        code::SP => "SP",
        code::RAND => "RAND",
        code::ERR => "ERR",
        code::TR => "TR",
        code::IDR => "IDR",
        code::RANDR => "RANDR",
        code::TP => "TP",
        code::TICKET => "TICKET",
        code::GENERAL_EXTENSION => "General Extension",
        _ => return None,
    })
}

/// RFC 3830 section 6.4: the group fixes the length of the value.
fn parse_diffie_hellman(reader: &mut Reader<'_>) -> Result<Payload, ParseError> {
    let at = reader.clone();
    let group = reader.u8()?;
    let length = match group {
        0 => 192, // OAKLEY 5
        1 => 96,  // OAKLEY 1
        2 => 128, // OAKLEY 2
        unknown => return Err(at.error(ParseReason::UnknownAlgorithm(unknown))),
    };
    let value = reader.take(length)?.to_vec();
    let at_validity = reader.clone();
    let types = reader.u8()?;
    let validity = KeyValidity::parse(reader, types & 0x0f)?
        .ok_or_else(|| at_validity.error(ParseReason::UnknownKeyType(types)))?;
    Ok(Payload::DiffieHellman { group, value, reserved: types >> 4, validity })
}

fn parse_certificate_hash(reader: &mut Reader<'_>) -> Result<Payload, ParseError> {
    let at = reader.clone();
    let function = reader.u8()?;
    let length = match function {
        0 => 20, // SHA-1
        1 => 16, // MD5
        2 => 32, // SHA-256
        unknown => return Err(at.error(ParseReason::UnknownAlgorithm(unknown))),
    };
    Ok(Payload::CertificateHash { function, hash: reader.take(length)?.to_vec() })
}

/// A 16-bit field: `high` above `length_bits` bits of length, then the data.
fn put_packed(out: &mut Vec<u8>, high: u8, length_bits: u32, data: &[u8]) {
    assert!(data.len() < 1 << length_bits, "the length field is {length_bits} bits");
    let field = u16::from(high) << length_bits | data.len() as u16;
    out.extend_from_slice(&field.to_be_bytes());
    out.extend_from_slice(data);
}
