//! CSB updates (RFC 6043 section 5.2), and Error messages with a MAC: under keys of what came before.

use zeroize::Zeroizing;

use super::keys::{SessionKey, told};
use super::proof::{Conversation, Finding, Initial, check_mac};
use super::reading::{Candidate, Reading, find_keys, without_mac};
use super::transfer::{Modifier, session_rands, traffic_key};
use super::walk::Seen;
use crate::mikey::derivation::{KeySource, Prf};
use crate::mikey::psk_identity;

/// A bundle as a transfer has left it.
pub(super) struct Established {
    pub(super) csb_id: u32,
    pub(super) prf: Prf,
    pub(super) flags: u32,
    /// Name and value of what protected the last message of the transfer, and protects the updates.
    pub(super) key: (String, Zeroizing<Vec<u8>>),
    pub(super) initiator_rand: Vec<u8>,
    pub(super) responder_rand: Vec<u8>,
    /// Of initiator and responder, which the MAC of an update covers in this order, whoever sends it.
    pub(super) identities: [Vec<u8>; 2],
    /// As the responder has them: forked, where they are.
    pub(super) session_keys: Vec<SessionKey>,
    /// The last TRANSFER_INIT that updated it.
    pub(super) update: Option<Vec<u8>>,
}

impl Established {
    fn candidates(&self) -> [Candidate<'_>; 1] {
        let (name, key) = &self.key;
        let rands = (&self.initiator_rand, &self.responder_rand);
        [Candidate {
            name: name.clone(),
            source: KeySource::response_message(self.prf, key, self.csb_id, rands.0, rands.1),
        }]
    }
}

impl Conversation<'_> {
    /// Whether there is a TRANSFER_INIT without a ticket that this message may answer.
    pub(super) fn is_updated(&self, csb_id: u32) -> bool {
        self.established.iter().any(|it| it.csb_id == csb_id && it.update.is_some())
    }

    /// A TRANSFER_INIT without a ticket: its MAC, its new key, and the TEK that is the next one.
    pub(super) fn check_update(&mut self, bytes: &[u8], seen: &Seen, findings: &mut Vec<Finding>) {
        let mut latest_first = self.established.iter_mut().rev();
        let Some(bundle) = latest_first.find(|it| it.csb_id == seen.csb_id) else {
            let why = "it updates a bundle: give the transfer that set it up before it";
            return findings.push(Finding::unknown("MAC", why));
        };
        let Some((algorithm, mac)) = &seen.payloads.verification else { return };
        let message = without_mac(bytes, mac);
        let [initiator, responder] = &bundle.identities;
        let readings = [
            Reading {
                name: "with the identities of initiator and responder of the transfer",
                covered: vec![message, initiator, responder],
            },
            Reading {
                name: "with the identities of who updates and who answers",
                covered: vec![message, responder, initiator],
            },
            Reading { name: "without identities", covered: vec![message] },
        ];
        let candidates = bundle.candidates();
        let expected = &bytes[mac.clone()];
        if check_mac(&candidates, &readings, *algorithm, expected, "", findings).is_none() {
            return;
        }
        let mut renewed = None;
        if let (Some((encryption, encrypted)), Some(time)) =
            (&seen.payloads.kemac, seen.payloads.time)
        {
            let encrypted = &bytes[encrypted.clone()];
            let source = &candidates[0].source;
            match find_keys(source, *encryption, seen.csb_id, &[time], encrypted) {
                // A TGK of an update is not forked (RFC 6043 section 5.2).
                Ok((keys, _)) => renewed = Some(keys),
                Err(why) => findings.push(Finding::failed("KEMAC", &why)),
            }
        }
        let show = self.show_secrets;
        if let Some(keys) = renewed {
            for data in &keys {
                let secret = told(&data.key, show);
                findings.push(Finding::told("new key".to_owned(), secret));
            }
            let key = |data| SessionKey { data, forked: true };
            bundle.session_keys = keys.into_iter().map(key).collect();
        }
        bundle.update = Some(bytes.to_vec());
        let rands = session_rands(bundle.flags, &bundle.initiator_rand, &bundle.responder_rand);
        for session in &seen.sessions {
            let spi = &bytes[session.spi.clone()];
            let mut newest_first = bundle.session_keys.iter().rev();
            let found = match spi {
                [] => bundle.session_keys.first(),
                spi => newest_first.find(|key| key.data.spi() == Some(spi)),
            };
            let Some(key) = found else {
                let why = "no key has the SPI that the crypto session names";
                findings.push(Finding::failed("TEK", why));
                continue;
            };
            let (tek, how) = traffic_key(key, bundle.prf, session.id, rands, &Modifier::default());
            let subject = format!("new TEK of CS {}", session.id);
            findings.push(Finding::told(subject, format!("{}; {how}", told(&tek, show))));
            let identity = psk_identity(seen.csb_id, session.id);
            findings.push(Finding::told("TLS-PSK identity".to_owned(), identity));
        }
    }

    /// The TRANSFER_RESP to an update: the update follows the message.
    pub(super) fn check_update_response(
        &self,
        bytes: &[u8],
        seen: &Seen,
        findings: &mut Vec<Finding>,
    ) {
        let mut latest_first = self.established.iter().rev();
        let found = latest_first.find(|it| it.csb_id == seen.csb_id);
        let Some((bundle, update)) = found.and_then(|it| Some((it, it.update.as_ref()?))) else {
            return;
        };
        let Some((algorithm, mac)) = &seen.payloads.verification else { return };
        let covered = vec![without_mac(bytes, mac), &update[..]];
        let readings = [Reading { name: "with the whole update", covered }];
        let expected = &bytes[mac.clone()];
        check_mac(&bundle.candidates(), &readings, *algorithm, expected, "", findings);
    }

    /// An Error message is under the key of the message it is about, and covers nothing else (RFC 6043
    /// section 5.4).
    pub(super) fn check_error(&self, bytes: &[u8], seen: &Seen, findings: &mut Vec<Finding>) {
        let Some((algorithm, mac)) = &seen.payloads.verification else {
            let why = "it has none, so that anybody may have sent it";
            return findings.push(Finding::unknown("MAC", why));
        };
        let mut candidates = Vec::new();
        let is_about = |it: &&Initial| it.csb_id == seen.csb_id;
        if let (Some(initial), Some(prf)) =
            (self.initial.iter().rev().find(is_about), Prf::from_code(seen.prf))
        {
            let rands = (&initial.initiator_rand, &initial.responder_rand);
            let source = |key| KeySource::initial_message(prf, key, seen.csb_id, rands.0, rands.1);
            let users = self.keys.users.iter();
            candidates.extend(
                users.map(|it| Candidate { name: it.name.clone(), source: source(&it.key) }),
            );
            let protections = self.protections.iter();
            candidates.extend(
                protections
                    .map(|it| Candidate { name: it.name.clone(), source: source(&it.initiator) }),
            );
        }
        let bundles = self.established.iter().filter(|it| it.csb_id == seen.csb_id);
        candidates.extend(bundles.flat_map(Established::candidates));
        let covered = vec![without_mac(bytes, mac)];
        let readings = [Reading { name: "alone", covered }];
        let without = "give the message it is about before it";
        let expected = &bytes[mac.clone()];
        check_mac(&candidates, &readings, *algorithm, expected, without, findings);
    }
}
