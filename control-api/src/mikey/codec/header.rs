//! The common header HDR and its CS ID map (RFC 3830 section 6.1, RFC 6043 section 6.1).

use super::DataType;
use super::code_point::{MAP_EMPTY, MAP_GENERIC_ID, MAP_SRTP_ID};
use super::reader::{ParseError, ParseReason, Reader, put_vec8, put_vec16};

/// The only version there is.
const VERSION: u8 = 1;
/// High bit of the PRF byte: a response is wanted. Of the policy count: S.
const HIGH_BIT: u8 = 0x80;

/// The common header. Its first-payload field follows from the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which message.
    pub data_type: DataType,
    /// The V flag. RFC 6043 contradicts itself on it; receivers ignore it.
    pub response_wanted: bool,
    /// PRF func, 7 bits.
    pub prf: u8,
    /// Names the crypto session bundle.
    pub csb_id: u32,
    /// The crypto sessions.
    pub map: CsIdMap,
}

/// CS ID map info. The number of records is the #CS field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CsIdMap {
    /// Records for SRTP; the CS ID is the position, from 1.
    SrtpId(Vec<SrtpSession>),
    /// No records; `count` is the #CS field as it was.
    Empty {
        /// #CS.
        count: u8,
    },
    /// Records of RFC 6043.
    GenericId(Vec<CryptoSession>),
}

/// One record of an SRTP-ID map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SrtpSession {
    /// Names an SP payload.
    pub policy_number: u8,
    /// SSRC.
    pub ssrc: u32,
    /// Roll-over counter.
    pub roll_over_counter: u32,
}

/// One record of a GENERIC-ID map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CryptoSession {
    /// CS ID.
    pub id: u8,
    /// Security protocol.
    pub protection_type: u8,
    /// The S flag: session data carries ROC and SEQ.
    pub session_data_extended: bool,
    /// Names of SP payloads, at most 127.
    pub policy_numbers: Vec<u8>,
    /// Defined for SRTP only.
    pub session_data: Vec<u8>,
    /// Names the key used first, empty where the responder is to choose.
    pub spi: Vec<u8>,
}

impl Header {
    /// The header and the type of the first payload.
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<(Self, u8), ParseError> {
        let at_version = reader.clone();
        let version = reader.u8()?;
        if version != VERSION {
            return Err(at_version.error(ParseReason::UnknownVersion(version)));
        }
        let at_data_type = reader.clone();
        let code = reader.u8()?;
        let data_type = DataType::from_code(code)
            .ok_or_else(|| at_data_type.error(ParseReason::UnknownDataType(code)))?;
        let first = reader.u8()?;
        let prf = reader.u8()?;
        let csb_id = reader.u32()?;
        let count = reader.u8()?;
        let at_map_type = reader.clone();
        let map = match reader.u8()? {
            MAP_SRTP_ID => {
                CsIdMap::SrtpId((0..count).map(|_| parse_srtp(reader)).collect::<Result<_, _>>()?)
            }
            MAP_EMPTY => CsIdMap::Empty { count },
            MAP_GENERIC_ID => CsIdMap::GenericId(
                (0..count).map(|_| parse_crypto_session(reader)).collect::<Result<_, _>>()?,
            ),
            unknown => return Err(at_map_type.error(ParseReason::UnknownMapType(unknown))),
        };
        let response_wanted = prf & HIGH_BIT != 0;
        let header = Self { data_type, response_wanted, prf: prf & !HIGH_BIT, csb_id, map };
        Ok((header, first))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, first: u8) {
        assert!(self.prf < HIGH_BIT, "the PRF func has 7 bits");
        out.push(VERSION);
        out.push(self.data_type as u8);
        out.push(first);
        out.push(self.prf | if self.response_wanted { HIGH_BIT } else { 0 });
        out.extend_from_slice(&self.csb_id.to_be_bytes());
        match &self.map {
            CsIdMap::SrtpId(sessions) => {
                out.extend_from_slice(&[session_count(sessions.len()), MAP_SRTP_ID]);
                for session in sessions {
                    out.push(session.policy_number);
                    out.extend_from_slice(&session.ssrc.to_be_bytes());
                    out.extend_from_slice(&session.roll_over_counter.to_be_bytes());
                }
            }
            CsIdMap::Empty { count } => out.extend_from_slice(&[*count, MAP_EMPTY]),
            CsIdMap::GenericId(sessions) => {
                out.extend_from_slice(&[session_count(sessions.len()), MAP_GENERIC_ID]);
                for session in sessions {
                    encode_crypto_session(out, session);
                }
            }
        }
    }
}

fn session_count(count: usize) -> u8 {
    u8::try_from(count).expect("#CS is 8 bits")
}

fn parse_srtp(reader: &mut Reader<'_>) -> Result<SrtpSession, ParseError> {
    Ok(SrtpSession {
        policy_number: reader.u8()?,
        ssrc: reader.u32()?,
        roll_over_counter: reader.u32()?,
    })
}

fn parse_crypto_session(reader: &mut Reader<'_>) -> Result<CryptoSession, ParseError> {
    let id = reader.u8()?;
    let protection_type = reader.u8()?;
    let policies = reader.u8()?;
    let policy_numbers = reader.take(usize::from(policies & !HIGH_BIT))?.to_vec();
    Ok(CryptoSession {
        id,
        protection_type,
        session_data_extended: policies & HIGH_BIT != 0,
        policy_numbers,
        session_data: reader.vec16()?,
        spi: reader.vec8()?,
    })
}

fn encode_crypto_session(out: &mut Vec<u8>, session: &CryptoSession) {
    let policies = u8::try_from(session.policy_numbers.len()).expect("at most 127 policies");
    assert!(policies < HIGH_BIT, "#P is 7 bits");
    out.push(session.id);
    out.push(session.protection_type);
    out.push(policies | if session.session_data_extended { HIGH_BIT } else { 0 });
    out.extend_from_slice(&session.policy_numbers);
    put_vec16(out, &session.session_data);
    put_vec8(out, &session.spi);
}
