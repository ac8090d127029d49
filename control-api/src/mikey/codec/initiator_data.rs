//! Initiator Data of a ticket: proof that whoever sends TRANSFER_INIT has the ticket's own keys
//! (RFC 6043 section 6.10).

use super::PAYLOADS_MAX;
use super::code_point as code;
use super::fields::{Verification, put_mac};
use super::payload::{Payload, name};
use super::reader::{ParseError, ParseReason, Reader};

/// The two verification payloads of Initiator Data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitiatorProof {
    /// Vi: V of the TRANSFER_INIT once more.
    pub transfer: Verification,
    /// Next-payload field of Vi: V, or none as in the payload it is a copy of.
    pub transfer_next: u8,
    /// Vr: a MAC over all before it.
    pub proof: Verification,
}

impl InitiatorProof {
    /// Reads Initiator Data. Vi, being a copy of a last payload, may say that nothing follows it.
    /// Payloads beside the two are ignored.
    ///
    /// # Errors
    /// [`ParseError`], with offsets from the start of the Initiator Data.
    pub fn parse(data: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(data);
        reader.enter("Initiator Data");
        let mut next = reader.u8()?;
        let mut payloads_left = PAYLOADS_MAX;
        let mut found = Vec::new();
        while next != code::LAST || !reader.is_empty() {
            let payload_code = if next == code::LAST { code::V } else { next };
            let known = name(payload_code).filter(|_| payload_code != code::SIGN);
            let Some(name) = known else {
                return Err(reader.error(ParseReason::UnknownPayload(payload_code)));
            };
            reader.enter(name);
            let Some(left) = payloads_left.checked_sub(1) else {
                return Err(reader.error(ParseReason::TooManyPayloads));
            };
            payloads_left = left;
            next = reader.u8()?;
            if let Payload::Verification(verification) =
                Payload::parse(payload_code, &mut reader, &mut payloads_left)?
            {
                found.push((next, verification));
            }
        }
        match <[(u8, Verification); 2]>::try_from(found) {
            Ok([(transfer_next, transfer), (_, proof)]) => {
                Ok(Self { transfer, transfer_next, proof })
            }
            Err(found) if found.len() < 2 => Err(reader.error(ParseReason::Truncated)),
            Err(_) => Err(reader.error(ParseReason::DuplicatePayload(code::V))),
        }
    }

    /// Writes Initiator Data, the MAC of Vr at its end.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![code::V, self.transfer_next];
        put_mac(&mut out, self.transfer.algorithm, &self.transfer.mac);
        out.push(code::LAST);
        put_mac(&mut out, self.proof.algorithm, &self.proof.mac);
        out
    }
}
