//! Trying keys, and the readings of what RFC 6043 leaves open, on a MAC or a ciphertext.

use std::ops::Range;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::mikey::codec::{KeyData, MacAlgorithm, code_point, parse_key_data};
use crate::mikey::derivation::KeySource;
use crate::mikey::protection::{Encryption, apply_aes_cm, mac};

/// One way to understand what a MAC covers. The first of several is the one this node sends.
pub(super) struct Reading<'a> {
    pub(super) name: &'static str,
    pub(super) covered: Vec<&'a [u8]>,
}

/// A key to try, already with its label.
pub(super) struct Candidate<'k> {
    pub(super) name: String,
    pub(super) source: KeySource<'k>,
}

/// Which key and which reading make a MAC right, by their places.
pub(super) fn find_mac(
    candidates: &[Candidate<'_>],
    readings: &[Reading<'_>],
    algorithm: u8,
    expected: &[u8],
) -> Option<(usize, usize)> {
    let algorithm = match algorithm {
        1 => MacAlgorithm::HmacSha1,
        2 => MacAlgorithm::HmacSha256,
        _ => return None,
    };
    for (reading_at, reading) in readings.iter().enumerate() {
        for (candidate_at, candidate) in candidates.iter().enumerate() {
            let computed = mac(&candidate.source, algorithm, &reading.covered);
            if bool::from(computed.ct_eq(expected)) {
                return Some((candidate_at, reading_at));
            }
        }
    }
    None
}

/// Keys in a KEMAC, under the first of the times that makes sense, with that one's place.
///
/// # Errors
/// Why there are none.
pub(super) fn find_keys(
    source: &KeySource<'_>,
    encryption: u8,
    csb_id: u32,
    times: &[u64],
    encrypted: &[u8],
) -> Result<(Vec<KeyData>, usize), String> {
    let algorithm = match encryption {
        code_point::ENCRYPTION_NULL => None,
        code => Some(Encryption::from_code(code).ok_or("no decryption for that algorithm here")?),
    };
    let mut problem = "the time that makes the IV is not known".to_owned();
    for (at, time) in times.iter().enumerate() {
        let mut plaintext = Zeroizing::new(encrypted.to_vec());
        if let Some(algorithm) = algorithm {
            apply_aes_cm(source, algorithm, csb_id, *time, &mut plaintext);
        }
        match parse_key_data(&plaintext) {
            Ok(keys) if !keys.is_empty() => return Ok((keys, at)),
            Ok(_) => problem = "there is no key in it".to_owned(),
            Err(error) => problem = format!("the plaintext makes no sense ({error})"),
        }
    }
    Err(problem)
}

/// A message without its MAC, which is its end.
pub(super) fn without_mac<'a>(bytes: &'a [u8], mac: &Range<usize>) -> &'a [u8] {
    &bytes[..mac.start]
}
