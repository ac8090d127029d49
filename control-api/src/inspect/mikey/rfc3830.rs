//! Messages of RFC 3830 and RFC 4650, whose MACs are made with a pre-shared key or the key of an
//! envelope; either is given as `psk`.

use super::keys::told;
use super::proof::{Conversation, Finding, Initial, check_mac};
use super::reading::{Candidate, Reading, find_keys, without_mac};
use super::walk::Seen;
use crate::mikey::codec::KeyData;
use crate::mikey::codec::code_point::{KEY_MPK, KEY_TEK, KEY_TEK_SALT};
use crate::mikey::derivation::{KeySource, Prf, constant};

impl Conversation<'_> {
    /// A message that ends with KEMAC (types 0, 7 and 8) or holds one (type 2). `initial`: whose RAND
    /// and CSB ID the keys are made from, this message itself where it begins the exchange.
    pub(super) fn check_kemac(&self, bytes: &[u8], seen: &Seen, findings: &mut Vec<Finding>) {
        let own = Initial::of(bytes, seen);
        let initial = if seen.data_type == DH_HMAC_RESP {
            let Some(initial) = self.initial_of(seen) else {
                let why =
                    "its keys are made with the RAND of the first message: give that before it";
                return findings.push(Finding::unknown("MAC", why));
            };
            initial
        } else {
            &own
        };
        let Some((encryption, encrypted)) = &seen.payloads.kemac else { return };
        // Behind the encrypted keys: the algorithm, then the MAC itself.
        let Some((algorithm, mac)) = bytes[encrypted.end..].split_first() else { return };
        let mac = encrypted.end + 1..encrypted.end + 1 + mac_bytes(*algorithm).min(mac.len());
        let candidates = self.rfc3830_candidates(seen, initial);
        let message = without_mac(bytes, &mac);
        // With an envelope it is the KEMAC alone that has a MAC: the signature covers the rest (RFC
        // 3830 section 5.2.2).
        let begin = encrypted.start - KEMAC_HEAD_BYTES;
        let readings = [
            Reading { name: "the message up to the MAC", covered: vec![message] },
            Reading { name: "the KEMAC payload alone", covered: vec![&message[begin..]] },
        ];
        let expected = &bytes[mac];
        let found = check_mac(&candidates, &readings, *algorithm, expected, NO_KEY, findings);
        let (Some(found), Some(time)) = (found, initial.time) else { return };
        let encrypted = &bytes[encrypted.clone()];
        if encrypted.is_empty() {
            let why = "the TGK is agreed on by Diffie-Hellman, and only the two know it";
            return findings.push(Finding::unknown("TEK", why));
        }
        let source = &candidates[found].source;
        match find_keys(source, *encryption, seen.csb_id, &[time], encrypted) {
            Ok((keys, _)) => {
                self.tell_keys("KEMAC", &keys, findings);
                self.tell_rfc3830_traffic_keys(&keys, seen, initial, findings);
            }
            Err(why) => findings.push(Finding::failed("KEMAC", &why)),
        }
    }

    /// A verification message (types 1 and 3): identities and T of the exchange follow it (RFC 3830
    /// section 5.2.4).
    pub(super) fn check_verification(
        &self,
        bytes: &[u8],
        seen: &Seen,
        findings: &mut Vec<Finding>,
    ) {
        let Some(initial) = self.initial_of(seen) else {
            let why =
                "its MAC covers identities and T of the first message, too: give that before it";
            return findings.push(Finding::unknown("MAC", why));
        };
        let Some((algorithm, mac)) = &seen.payloads.verification else { return };
        let message = without_mac(bytes, mac);
        let identity = |at: usize| initial.identities.get(at).map_or(&[][..], Vec::as_slice);
        let time = initial.time.unwrap_or_default().to_be_bytes();
        let own = seen.payloads.identities.first().map_or(&[][..], |(_, it)| &bytes[it.clone()]);
        let readings = [
            Reading {
                name: "with the identities of both sides and T",
                covered: vec![message, identity(0), identity(1), &time],
            },
            Reading {
                name: "with the identities of both sides, the second from this message, and T",
                covered: vec![message, identity(0), own, &time],
            },
            Reading { name: "with T", covered: vec![message, &time] },
            Reading { name: "alone", covered: vec![message] },
        ];
        let candidates = self.rfc3830_candidates(seen, initial);
        let expected = &bytes[mac.clone()];
        check_mac(&candidates, &readings, *algorithm, expected, NO_KEY, findings);
    }

    fn rfc3830_candidates<'a>(&'a self, seen: &Seen, initial: &Initial) -> Vec<Candidate<'a>> {
        let Some(prf) = Prf::from_code(seen.prf) else { return Vec::new() };
        let rand = &initial.rand;
        let candidate = |key: &'a super::keys::Key| Candidate {
            name: key.name.clone(),
            source: KeySource::rfc3830(prf, &key.key, None, seen.csb_id, rand),
        };
        self.keys.users.iter().map(candidate).collect()
    }

    /// The TEK of every crypto session (RFC 3830 section 4.1.3): 128 bits, as SRTP has it by default.
    fn tell_rfc3830_traffic_keys(
        &self,
        keys: &[KeyData],
        seen: &Seen,
        initial: &Initial,
        findings: &mut Vec<Finding>,
    ) {
        let Some(prf) = Prf::from_code(seen.prf) else { return };
        let Some(key) = keys.iter().find(|key| key.key_type < KEY_MPK) else { return };
        for session in &seen.sessions {
            let subject = format!("TEK of CS {}", session.id);
            if matches!(key.key_type, KEY_TEK | KEY_TEK_SALT) {
                let detail = told(&key.key, self.show_secrets);
                findings.push(Finding::told(subject, format!("{detail}; as it is in the KEMAC")));
                continue;
            }
            let (id, csb_id) = (Some(session.id), seen.csb_id);
            let source = KeySource::rfc3830(prf, &key.key, id, csb_id, &initial.rand);
            let tek = source.derive(constant::TEK, SRTP_KEY_BYTES);
            let detail = told(&tek, self.show_secrets);
            findings.push(Finding::told(subject, format!("{detail}; from the TGK, 128 bits")));
        }
    }
}

fn mac_bytes(algorithm: u8) -> usize {
    match algorithm {
        1 => 20,
        2 => 32,
        _ => 0,
    }
}

const NO_KEY: &str = "no psk given (nor, as one, the key of the envelope)";
/// Next payload, algorithm, length.
const KEMAC_HEAD_BYTES: usize = 4;
const SRTP_KEY_BYTES: usize = 16;
pub(super) const PRE_SHARED: u8 = 0;
pub(super) const PRE_SHARED_VERIFICATION: u8 = 1;
pub(super) const PUBLIC_KEY: u8 = 2;
pub(super) const PUBLIC_KEY_VERIFICATION: u8 = 3;
pub(super) const ERROR: u8 = 6;
pub(super) const DH_HMAC_INIT: u8 = 7;
pub(super) const DH_HMAC_RESP: u8 = 8;
