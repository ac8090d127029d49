//! Ticket transfers: their MACs, forked keys, and the TEK that becomes the TLS pre-shared key.

use zeroize::Zeroizing;

use super::keys::{MessageProtection, SessionKey, told};
use super::proof::{Conversation, Finding, Initial, TRANSFER_INIT, check_mac, identity_of};
use super::reading::{Candidate, Reading, without_mac};
use super::update::Established;
use super::walk::{Seen, Session};
use crate::mikey::codec::code_point::{
    KEY_TEK, KEY_TEK_SALT, KEY_TGK, KEY_TGK_SALT, ROLE_INITIATOR, ROLE_KMS, ROLE_RESPONDER,
};
use crate::mikey::derivation::{KeySource, Prf, constant};
use crate::mikey::psk_identity;

impl Conversation<'_> {
    /// TRANSFER_INIT: the identities of both sides follow the message (RFC 6043 section 5.5).
    pub(super) fn check_transfer_init(
        &self,
        bytes: &[u8],
        seen: &Seen,
        findings: &mut Vec<Finding>,
    ) {
        let Some((algorithm, mac)) = &seen.payloads.verification else { return };
        let Some(prf) = Prf::from_code(seen.prf) else { return };
        let message = without_mac(bytes, mac);
        let left_out = seen.payloads.ticket.as_ref().map_or(0..0, |it| it.initiator_data.clone());
        let (before, after) = (&message[..left_out.start], &message[left_out.end..]);
        let identities =
            [ROLE_INITIATOR, ROLE_RESPONDER].map(|role| identity_of(bytes, &seen.payloads, role));
        let [initiator, responder] = identities;
        let readings = [
            Reading {
                name: "without the Initiator Data, identities of both sides",
                covered: vec![before, after, initiator, responder],
            },
            Reading {
                name: "with the Initiator Data, identities of both sides",
                covered: vec![message, initiator, responder],
            },
            Reading { name: "without Initiator Data and identities", covered: vec![before, after] },
            Reading { name: "with the Initiator Data, without identities", covered: vec![message] },
        ];
        let rand = |role| seen.payloads.rand(role).map_or(&[][..], |it| &bytes[it.clone()]);
        let (initiator_rand, csb_id) = (rand(ROLE_INITIATOR), seen.csb_id);
        let candidates = self.protections.iter().map(|its| Candidate {
            name: its.name.clone(),
            source: KeySource::initial_message(prf, &its.initiator, csb_id, initiator_rand, &[]),
        });
        let candidates: Vec<_> = candidates.collect();
        let expected = &bytes[mac.clone()];
        check_mac(&candidates, &readings, *algorithm, expected, NO_MPK, findings);
        let flags = seen.payloads.ticket.as_ref().map_or(0, |ticket| ticket.flags);
        if flags & FLAG_G != 0 && !self.session_keys.is_empty() {
            let why = "G is set, so TRANSFER_RESP with RANDRr is needed: give it behind this";
            findings.push(Finding::unknown("TEK", why));
            return;
        }
        let modifier = Modifier::default();
        self.tell_traffic_keys(bytes, seen, prf, flags, (initiator_rand, &[]), &modifier, findings);
    }

    /// TRANSFER_RESP: the whole TRANSFER_INIT follows the message.
    pub(super) fn check_transfer_response(
        &mut self,
        bytes: &[u8],
        seen: &Seen,
        findings: &mut Vec<Finding>,
    ) {
        let Some(initial) = self.initial_of(seen) else {
            let why = "its MAC covers TRANSFER_INIT, too: give that before it";
            return findings.push(Finding::unknown("MAC", why));
        };
        let Some((algorithm, mac)) = &seen.payloads.verification else { return };
        let Some(prf) = Prf::from_code(seen.prf) else { return };
        let rand = |role| seen.payloads.rand(role).map_or(&[][..], |it| &bytes[it.clone()]);
        let modifier = Modifier {
            prf: Prf::from_code(initial.ticket_prf),
            identity: identity_of(bytes, &seen.payloads, ROLE_RESPONDER),
            rand: (initial.flags & FLAG_I != 0).then(|| rand(ROLE_KMS)),
        };
        let responder_rand = rand(ROLE_RESPONDER);
        let keys = self.response_keys(initial, &modifier);
        let candidates: Vec<_> = keys
            .iter()
            .map(|(name, key)| Candidate {
                name: name.clone(),
                source: KeySource::response_message(
                    prf,
                    key,
                    seen.csb_id,
                    &initial.initiator_rand,
                    responder_rand,
                ),
            })
            .collect();
        let message = without_mac(bytes, mac);
        let left_out = initial.initiator_data.clone();
        let (before, after) = (&initial.bytes[..left_out.start], &initial.bytes[left_out.end..]);
        let readings = [
            Reading {
                name: "with the whole TRANSFER_INIT",
                covered: vec![message, &initial.bytes],
            },
            Reading {
                name: "with TRANSFER_INIT, its Initiator Data left out",
                covered: vec![message, before, after],
            },
        ];
        let expected = &bytes[mac.clone()];
        let found = check_mac(&candidates, &readings, *algorithm, expected, NO_MPK, findings);
        let rands = (&initial.initiator_rand[..], responder_rand);
        let flags = initial.flags;
        self.tell_traffic_keys(bytes, seen, prf, flags, rands, &modifier, findings);
        if let Some(found) = found {
            let responder = identity_of(bytes, &seen.payloads, ROLE_RESPONDER);
            let bundle = Established {
                csb_id: seen.csb_id,
                prf,
                flags,
                key: keys[found].clone(),
                initiator_rand: initial.initiator_rand.clone(),
                responder_rand: responder_rand.to_vec(),
                identities: [
                    initial.identities.first().cloned().unwrap_or_default(),
                    responder.to_vec(),
                ],
                session_keys: self.session_keys.iter().map(|key| modifier.applied(key)).collect(),
                update: None,
            };
            self.established.push(bundle);
        }
    }

    /// Keys that may protect TRANSFER_RESP: MPKr' with key forking, else MPKi.
    fn response_keys(
        &self,
        initial: &Initial,
        modifier: &Modifier<'_>,
    ) -> Vec<(String, Zeroizing<Vec<u8>>)> {
        assert_eq!(initial.data_type, TRANSFER_INIT);
        let key = |its: &MessageProtection| match (&its.forked, &its.responder, modifier.rand) {
            (Some(forked), _, Some(_)) => (format!("{} (MPKr')", its.name), forked.clone()),
            (None, Some(responder), Some(_)) => {
                let forked = modifier.fork(constant::FORKED_MPKR, responder);
                (format!("{} (MPKr forked)", its.name), forked)
            }
            _ => (its.name.clone(), its.initiator.clone()),
        };
        self.protections.iter().map(key).collect()
    }

    /// The TEK of each crypto session (RFC 6043 section 5.1.3), and what the TLS client calls it.
    #[expect(clippy::too_many_arguments, reason = "each of them enters the derivation")]
    fn tell_traffic_keys(
        &self,
        bytes: &[u8],
        seen: &Seen,
        prf: Prf,
        flags: u32,
        (initiator_rand, responder_rand): (&[u8], &[u8]),
        modifier: &Modifier<'_>,
        findings: &mut Vec<Finding>,
    ) {
        let rands = session_rands(flags, initiator_rand, responder_rand);
        for session in &seen.sessions {
            let Some(key) = self.key_of(session, bytes) else {
                if !self.session_keys.is_empty() {
                    let why = "no key has the SPI that the crypto session names";
                    findings.push(Finding::failed("TEK", why));
                }
                continue;
            };
            let (tek, how) = traffic_key(key, prf, session.id, rands, modifier);
            let subject = format!("TEK of CS {}", session.id);
            findings
                .push(Finding::told(subject, format!("{}; {how}", told(&tek, self.show_secrets))));
            let identity = psk_identity(seen.csb_id, session.id);
            findings.push(Finding::told("TLS-PSK identity".to_owned(), identity));
        }
    }

    /// By SPI, or the first where the session names none.
    fn key_of(&self, session: &Session, bytes: &[u8]) -> Option<&SessionKey> {
        let spi = &bytes[session.spi.clone()];
        let mut newest_first = self.session_keys.iter().rev();
        if spi.is_empty() {
            return self.session_keys.first();
        }
        newest_first.find(|key| key.data.spi() == Some(spi))
    }
}

/// Those that enter the TEK.
pub(super) fn session_rands<'a>(
    flags: u32,
    initiator_rand: &'a [u8],
    responder_rand: &'a [u8],
) -> (&'a [u8], &'a [u8]) {
    let when = |flag, rand| if flags & flag != 0 { rand } else { &[][..] };
    (when(FLAG_H, initiator_rand), when(FLAG_G, responder_rand))
}

pub(super) fn traffic_key(
    key: &SessionKey,
    prf: Prf,
    session_id: u8,
    (initiator_rand, responder_rand): (&[u8], &[u8]),
    modifier: &Modifier<'_>,
) -> (Zeroizing<Vec<u8>>, &'static str) {
    let data = &key.data;
    if matches!(data.key_type, KEY_TEK | KEY_TEK_SALT) {
        return (data.key.clone(), "as it is in the KEMAC");
    }
    let forks = modifier.forks(key);
    let tgk = if forks { modifier.fork(constant::FORKED_TGK, &data.key) } else { data.key.clone() };
    let source = KeySource::crypto_session(prf, &tgk, session_id, initiator_rand, responder_rand);
    let how = match (forks, initiator_rand.is_empty(), responder_rand.is_empty()) {
        (true, ..) => "from the TGK, forked here",
        (_, false, false) => "from the TGK with RANDRi (H) and RANDRr (G)",
        (_, false, true) => "from the TGK with RANDRi (H)",
        (_, true, false) => "from the TGK with RANDRr (G)",
        (_, true, true) => "from the TGK without RANDs",
    };
    (source.derive(constant::TEK, tgk.len()), how)
}

/// What key forking mixes in (RFC 6043 section 5.1.1).
#[derive(Default)]
pub(super) struct Modifier<'a> {
    prf: Option<Prf>,
    /// Data of the IDRr of the response.
    identity: &'a [u8],
    /// RANDRkms; `None` without forking.
    rand: Option<&'a [u8]>,
}

impl Modifier<'_> {
    /// A GTGK is a group's and never forked.
    fn forks(&self, key: &SessionKey) -> bool {
        let is_tgk = matches!(key.data.key_type, KEY_TGK | KEY_TGK_SALT);
        is_tgk && self.rand.is_some() && !key.forked
    }

    /// The key as the responder has it.
    fn applied(&self, key: &SessionKey) -> SessionKey {
        let mut data = key.data.clone();
        if self.forks(key) {
            data.key = self.fork(constant::FORKED_TGK, &data.key);
        }
        SessionKey { data, forked: true }
    }

    /// With the PRF of the ticket policy, not that of the message (RFC 6043 section 5.1.1).
    fn fork(&self, constant: u32, key: &[u8]) -> Zeroizing<Vec<u8>> {
        let rand = self.rand.unwrap_or_default();
        let mut label = constant.to_be_bytes().to_vec();
        // No crypto session, no bundle, use code 0.
        label.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0]);
        // Both come from fields with lengths of these widths.
        label.extend_from_slice(&(self.identity.len() as u16).to_be_bytes());
        label.extend_from_slice(self.identity);
        label.push(rand.len() as u8);
        label.extend_from_slice(rand);
        self.prf.unwrap_or(Prf::Mikey1).derive(key, &label, key.len())
    }
}

const NO_MPK: &str =
    "the key is in the ticket: give its ticket key, the exchange with the KMS, or mpk";
const FLAG_G: u32 = 1 << 13;
const FLAG_H: u32 = 1 << 12;
const FLAG_I: u32 = 1 << 11;
