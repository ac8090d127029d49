//! Key derivation (RFC 3830 section 4.1, RFC 6043 section 5.1).

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::codec::code_point;

/// Constants of the labels: groups of digits of e (RFC 3830 section 4.1.4, RFC 6043 section 5.1).
pub mod constant {
    /// TEK from TGK.
    pub const TEK: u32 = 0x2AD0_1C64;
    /// Authentication key from TGK.
    pub const TGK_AUTHENTICATION: u32 = 0x1B5C_7973;
    /// Encryption key from TGK.
    pub const TGK_ENCRYPTION: u32 = 0x1579_8CEF;
    /// Encryption key of messages.
    pub const ENCRYPTION: u32 = 0x1505_33E1;
    /// Authentication key of messages.
    pub const AUTHENTICATION: u32 = 0x2D22_AC75;
    /// Salt of messages.
    pub const SALT: u32 = 0x29B8_8916;
    /// Salt from TGK.
    pub const TGK_SALT: u32 = 0x39A2_C14B;
    /// MPKr' from MPKr.
    pub const FORKED_MPKR: u32 = 0x2B28_8856;
    /// TGK' from TGK.
    pub const FORKED_TGK: u32 = 0x1512_B54A;
    /// MPKi from MPK.
    pub const MPKI: u32 = 0x220E_99A2;
    /// MPKr from MPK.
    pub const MPKR: u32 = 0x1F4D_675B;
}

/// CS ID place of the label where no crypto session is meant.
const NO_CRYPTO_SESSION: u8 = 0xFF;
/// CSB ID place of the label where no bundle is meant.
pub(crate) const NO_CSB_ID: u32 = 0xFFFF_FFFF;
/// The input key is split into blocks of 256 bits, whatever the hash (RFC 3830 section 4.1.2).
const INPUT_BLOCK_BYTES: usize = 32;

/// Pseudo-random functions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prf {
    /// MIKEY-1, on HMAC-SHA-1 (RFC 3830 section 4.1.2).
    Mikey1,
    /// PRF-HMAC-SHA-256 (RFC 6043 section 6.1).
    HmacSha256,
}

impl Prf {
    /// By its code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            code_point::PRF_MIKEY_1 => Some(Self::Mikey1),
            code_point::PRF_HMAC_SHA_256 => Some(Self::HmacSha256),
            _ => None,
        }
    }

    /// Its code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Mikey1 => code_point::PRF_MIKEY_1,
            Self::HmacSha256 => code_point::PRF_HMAC_SHA_256,
        }
    }

    /// `output_bytes` bytes derived from `input_key` under `label`.
    #[must_use]
    pub fn derive(self, input_key: &[u8], label: &[u8], output_bytes: usize) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Mikey1 => derive::<Hmac<Sha1>>(input_key, label, output_bytes),
            Self::HmacSha256 => derive::<Hmac<Sha256>>(input_key, label, output_bytes),
        }
    }
}

fn derive<M: Mac + KeyInit + Clone>(
    input_key: &[u8],
    label: &[u8],
    output_bytes: usize,
) -> Zeroizing<Vec<u8>> {
    let mut output = Zeroizing::new(vec![0; output_bytes]);
    for block in input_key.chunks(INPUT_BLOCK_BYTES) {
        let hmac = <M as KeyInit>::new_from_slice(block).expect("HMAC takes keys of any length");
        let mut chain = hmac.clone();
        chain.update(label);
        let mut chained = chain.finalize().into_bytes();
        let mut filled = 0;
        while filled < output_bytes {
            let mut part = hmac.clone();
            part.update(&chained);
            part.update(label);
            let part = part.finalize().into_bytes();
            for (out, byte) in output[filled..].iter_mut().zip(&part) {
                *out ^= byte;
            }
            filled += part.len();
            let mut chain = hmac.clone();
            chain.update(&chained);
            chained = chain.finalize().into_bytes();
        }
    }
    output
}

/// A key with everything of its labels but the constant.
pub struct KeySource<'a> {
    prf: Prf,
    input_key: &'a [u8],
    label_tail: Vec<u8>,
}

impl<'a> KeySource<'a> {
    /// RFC 3830 messages and, with a CS ID, their TEKs: the RAND stands bare.
    #[must_use]
    pub fn rfc3830(
        prf: Prf,
        input_key: &'a [u8],
        crypto_session_id: Option<u8>,
        csb_id: u32,
        rand: &[u8],
    ) -> Self {
        let mut tail = tail(crypto_session_id.unwrap_or(NO_CRYPTO_SESSION), csb_id);
        tail.extend_from_slice(rand);
        Self { prf, input_key, label_tail: tail }
    }

    /// Initial messages (RFC 6043 section 5.1.2).
    #[must_use]
    pub fn initial_message(
        prf: Prf,
        input_key: &'a [u8],
        csb_id: u32,
        initiator_rand: &[u8],
        responder_rand: &[u8],
    ) -> Self {
        let tail = tail_with_rands(NO_CRYPTO_SESSION, csb_id, 1, &[initiator_rand, responder_rand]);
        Self { prf, input_key, label_tail: tail }
    }

    /// Response messages (RFC 6043 section 5.1.2).
    #[must_use]
    pub fn response_message(
        prf: Prf,
        input_key: &'a [u8],
        csb_id: u32,
        initiator_rand: &[u8],
        responder_rand: &[u8],
    ) -> Self {
        let tail = tail_with_rands(NO_CRYPTO_SESSION, csb_id, 2, &[initiator_rand, responder_rand]);
        Self { prf, input_key, label_tail: tail }
    }

    /// Keys of a crypto session from a TGK (RFC 6043 section 5.1.3). A RAND that the ticket policy
    /// leaves out is empty.
    #[must_use]
    pub fn crypto_session(
        prf: Prf,
        tgk: &'a [u8],
        crypto_session_id: u8,
        initiator_rand: &[u8],
        responder_rand: &[u8],
    ) -> Self {
        let rands = [initiator_rand, responder_rand];
        let tail = tail_with_rands(crypto_session_id, NO_CSB_ID, 3, &rands);
        Self { prf, input_key: tgk, label_tail: tail }
    }

    /// A key of the ticket as one responder gets it (RFC 6043 section 5.1.1): `identity` is the data
    /// of its IDRr.
    #[must_use]
    pub fn forking(prf: Prf, key: &'a [u8], identity: &[u8], kms_rand: &[u8]) -> Self {
        let length = u16::try_from(identity.len()).expect("an identity has a 16-bit length");
        let mut tail = tail(NO_CRYPTO_SESSION, NO_CSB_ID);
        tail.push(0);
        tail.extend_from_slice(&length.to_be_bytes());
        tail.extend_from_slice(identity);
        tail.push(u8::try_from(kms_rand.len()).expect("a RAND has an 8-bit length"));
        tail.extend_from_slice(kms_rand);
        Self { prf, input_key: key, label_tail: tail }
    }

    /// The key of Vr in Initiator Data (RFC 6043 section 6.10).
    #[must_use]
    pub fn initiator_proof(prf: Prf, mpkr: &'a [u8]) -> Self {
        let tail = tail_with_rands(NO_CRYPTO_SESSION, NO_CSB_ID, 4, &[]);
        Self { prf, input_key: mpkr, label_tail: tail }
    }

    /// Keys that protect a base ticket (RFC 6043 appendix A.2.1).
    #[must_use]
    pub fn ticket(prf: Prf, ticket_protection_key: &'a [u8], rand: &[u8]) -> Self {
        let tail = tail_with_rands(NO_CRYPTO_SESSION, NO_CSB_ID, 5, &[rand]);
        Self { prf, input_key: ticket_protection_key, label_tail: tail }
    }

    /// MPKi and MPKr from the MPK of a base ticket (RFC 6043 appendix A.2.2).
    #[must_use]
    pub fn message_protection(prf: Prf, mpk: &'a [u8], rand: &[u8]) -> Self {
        let tail = tail_with_rands(NO_CRYPTO_SESSION, NO_CSB_ID, 6, &[rand]);
        Self { prf, input_key: mpk, label_tail: tail }
    }

    pub(crate) fn prf(&self) -> Prf {
        self.prf
    }

    /// The key that `constant` names.
    #[must_use]
    pub fn derive(&self, constant: u32, output_bytes: usize) -> Zeroizing<Vec<u8>> {
        let mut label = Vec::with_capacity(4 + self.label_tail.len());
        label.extend_from_slice(&constant.to_be_bytes());
        label.extend_from_slice(&self.label_tail);
        self.prf.derive(self.input_key, &label, output_bytes)
    }
}

fn tail(crypto_session_id: u8, csb_id: u32) -> Vec<u8> {
    let mut tail = vec![crypto_session_id];
    tail.extend_from_slice(&csb_id.to_be_bytes());
    tail
}

/// RANDs enter with an 8-bit length, also where they are absent.
fn tail_with_rands(crypto_session_id: u8, csb_id: u32, use_code: u8, rands: &[&[u8]]) -> Vec<u8> {
    let mut tail = tail(crypto_session_id, csb_id);
    tail.push(use_code);
    for rand in rands {
        tail.push(u8::try_from(rand.len()).expect("a RAND has an 8-bit length on the wire"));
        tail.extend_from_slice(rand);
    }
    tail
}
