//! What keys show: whether MACs are right, what KEMACs hold, which TEK a transfer yields.

use zeroize::Zeroizing;

use super::keys::{Key, Keys, MessageProtection, SessionKey, ranked, told};
use super::names;
use super::reading::{Candidate, Reading, find_keys, find_mac, without_mac};
use super::rfc3830;
use super::update::Established;
use super::walk::{Seen, Seens, TicketSeen};
use crate::mikey::codec::KeyData;
use crate::mikey::codec::code_point::{
    KEY_MPK, ROLE_INITIATOR, ROLE_KMS, ROLE_PRE_SHARED_KEY, ROLE_RESPONDER,
};
use crate::mikey::derivation::{KeySource, Prf, constant};

/// Something that was found out, or could not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) outcome: Outcome,
    pub(super) subject: String,
    pub(super) detail: String,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// A check that holds, or what it yields.
    Right,
    /// None of the keys, under none of the readings.
    Wrong,
    /// Nothing to check it with.
    Unknown,
}

/// The messages of one exchange after another: later ones need what was found in earlier ones.
pub(super) struct Conversation<'k> {
    pub(super) keys: &'k Keys,
    pub(super) show_secrets: bool,
    pub(super) initial: Vec<Initial>,
    pub(super) protections: Vec<MessageProtection>,
    pub(super) session_keys: Vec<SessionKey>,
    pub(super) established: Vec<Established>,
}

/// A message that asks for a response.
pub(super) struct Initial {
    pub(super) data_type: u8,
    pub(super) csb_id: u32,
    pub(super) bytes: Vec<u8>,
    pub(super) time: Option<u64>,
    pub(super) initiator_rand: Vec<u8>,
    pub(super) responder_rand: Vec<u8>,
    /// RAND of RFC 3830.
    pub(super) rand: Vec<u8>,
    /// Data of its identities, in their order.
    pub(super) identities: Vec<Vec<u8>>,
    /// D to O of its ticket.
    pub(super) flags: u32,
    /// PRF of its ticket.
    pub(super) ticket_prf: u8,
    /// Where the Initiator Data of its ticket is.
    pub(super) initiator_data: std::ops::Range<usize>,
}

impl<'k> Conversation<'k> {
    pub(super) fn new(keys: &'k Keys, show_secrets: bool) -> Self {
        let given = |key: &Key| MessageProtection {
            name: key.name.clone(),
            initiator: key.key.clone(),
            responder: None,
            forked: None,
        };
        let protections = keys.message_protection.iter().map(given).collect();
        Self {
            keys,
            show_secrets,
            initial: Vec::new(),
            protections,
            session_keys: Vec::new(),
            established: Vec::new(),
        }
    }

    /// Checks what can be checked of a message that was read to its end.
    pub(super) fn examine(&mut self, bytes: &[u8], seen: &Seen) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(ticket) = &seen.payloads.ticket {
            self.open_ticket(bytes, ticket, &mut findings);
        }
        // A MAC covers what stands before it, and V ends every message that has one (RFC 6043 section 4).
        let verification = seen.payloads.verification.as_ref();
        if verification.is_some_and(|(_, mac)| mac.end != bytes.len()) {
            findings.push(Finding::failed("MAC", "payloads follow V, which it does not cover"));
            return findings;
        }
        let is_update = seen.data_type == TRANSFER_INIT && seen.payloads.ticket.is_none();
        match seen.data_type {
            rfc3830::PRE_SHARED
            | rfc3830::PUBLIC_KEY
            | rfc3830::DH_HMAC_INIT
            | rfc3830::DH_HMAC_RESP => self.check_kemac(bytes, seen, &mut findings),
            rfc3830::PRE_SHARED_VERIFICATION | rfc3830::PUBLIC_KEY_VERIFICATION => {
                self.check_verification(bytes, seen, &mut findings);
            }
            rfc3830::ERROR => self.check_error(bytes, seen, &mut findings),
            TRANSFER_INIT if is_update => self.check_update(bytes, seen, &mut findings),
            TRANSFER_RESP if self.is_updated(seen.csb_id) => {
                self.check_update_response(bytes, seen, &mut findings);
            }
            REQUEST_INIT_PSK => self.check_request(bytes, seen, ROLE_INITIATOR, &mut findings),
            RESOLVE_INIT_PSK => self.check_request(bytes, seen, ROLE_RESPONDER, &mut findings),
            REQUEST_RESP | RESOLVE_RESP => self.check_kms_response(bytes, seen, &mut findings),
            TRANSFER_INIT => self.check_transfer_init(bytes, seen, &mut findings),
            TRANSFER_RESP => self.check_transfer_response(bytes, seen, &mut findings),
            _ => {}
        }
        if seen.payloads.signed {
            findings.push(Finding::unknown("signature", "signatures are not verified here"));
        }
        if INITIAL.contains(&seen.data_type) && !is_update {
            self.initial.push(Initial::of(bytes, seen));
        }
        findings
    }

    /// The initial message a response of this type belongs to.
    pub(super) fn initial_of(&self, seen: &Seen) -> Option<&Initial> {
        let wanted = match seen.data_type {
            REQUEST_RESP => REQUEST_INIT_PSK,
            RESOLVE_RESP => RESOLVE_INIT_PSK,
            rfc3830::PRE_SHARED_VERIFICATION => rfc3830::PRE_SHARED,
            rfc3830::PUBLIC_KEY_VERIFICATION => rfc3830::PUBLIC_KEY,
            rfc3830::DH_HMAC_RESP => rfc3830::DH_HMAC_INIT,
            _ => TRANSFER_INIT,
        };
        let mut earlier = self.initial.iter().rev();
        earlier.find(|initial| initial.data_type == wanted && initial.csb_id == seen.csb_id)
    }

    /// The MAC in a base ticket, and the keys in it (RFC 6043 appendix A).
    fn open_ticket(&mut self, bytes: &[u8], ticket: &TicketSeen, findings: &mut Vec<Finding>) {
        const SUBJECT: &str = "ticket MAC";
        let Some(content) = &ticket.content else {
            let why = "the layout of its Ticket Data is not known";
            return findings.push(Finding::unknown(SUBJECT, why));
        };
        let Some((algorithm, mac)) = &content.verification else {
            return findings.push(Finding::unknown(SUBJECT, "there is no V in it"));
        };
        let Some(prf) = Prf::from_code(ticket.prf) else {
            return findings.push(Finding::unknown(SUBJECT, "its PRF is not known"));
        };
        let identity = content.identity(ROLE_PRE_SHARED_KEY).map(|range| &bytes[range.clone()]);
        let rand = content.rand(0).map_or(&[][..], |range| &bytes[range.clone()]);
        let keys = ranked(&self.keys.tickets, identity);
        if keys.is_empty() {
            let key = identity.map_or("unnamed".to_owned(), |id| id.escape_ascii().to_string());
            let why = format!("no ticket key given (it names the key {key:?})");
            return findings.push(Finding::unknown(SUBJECT, why));
        }
        let candidate = |key: &&'k Key| Candidate {
            name: key.name.clone(),
            source: KeySource::ticket(prf, &key.key, rand),
        };
        let candidates: Vec<_> = keys.iter().map(candidate).collect();
        let covered = &bytes[ticket.begin..mac.start];
        let readings = [
            Reading { name: "from the ticket type to the MAC", covered: vec![covered] },
            Reading {
                name: "with the next payload byte before the ticket type",
                covered: vec![&bytes[ticket.begin - 1..mac.start]],
            },
            Reading {
                name: "with the Initiator Data",
                covered: vec![covered, &bytes[ticket.initiator_data.clone()]],
            },
        ];
        let Some((key, reading)) =
            find_mac(&candidates, &readings, *algorithm, &bytes[mac.clone()])
        else {
            return findings.push(Finding::wrong(SUBJECT, candidates.len()));
        };
        let key = &candidates[key];
        findings.push(Finding::right(SUBJECT, &key.name, readings[reading].name));
        let (Some((encryption, encrypted)), Some(time)) = (&content.kemac, content.time) else {
            return;
        };
        let encrypted = &bytes[encrypted.clone()];
        match find_keys(&key.source, *encryption, NO_CSB_ID, &[time], encrypted) {
            Ok((keys, _)) => self.take_ticket_keys(prf, rand, keys, findings),
            Err(why) => findings.push(Finding::failed("ticket KEMAC", &why)),
        }
    }

    /// MPKi and MPKr come from the MPK of the ticket (RFC 6043 appendix A.2.2).
    fn take_ticket_keys(
        &mut self,
        prf: Prf,
        rand: &[u8],
        keys: Vec<KeyData>,
        findings: &mut Vec<Finding>,
    ) {
        self.tell_keys("ticket KEMAC", &keys, findings);
        for key in keys {
            if key.key_type != KEY_MPK {
                self.session_keys.push(SessionKey { data: key, forked: false });
                continue;
            }
            let source = KeySource::message_protection(prf, &key.key, rand);
            let length = key.key.len();
            self.protections.push(MessageProtection {
                name: "the MPK of the ticket".to_owned(),
                initiator: source.derive(constant::MPKI, length),
                responder: Some(source.derive(constant::MPKR, length)),
                forked: None,
            });
        }
    }

    /// REQUEST_INIT_PSK and RESOLVE_INIT_PSK: the identities of sender and KMS follow the message.
    fn check_request(&self, bytes: &[u8], seen: &Seen, role: u8, findings: &mut Vec<Finding>) {
        let identity = |role| identity_of(bytes, &seen.payloads, role);
        let sender = identity(role);
        let kms = identity(ROLE_KMS);
        let Some((algorithm, mac)) = &seen.payloads.verification else { return };
        let message = without_mac(bytes, mac);
        let readings = [
            Reading {
                name: "with the identities of sender and KMS",
                covered: vec![message, sender, kms],
            },
            Reading { name: "without identities", covered: vec![message] },
        ];
        let initial = Initial::of(bytes, seen);
        let candidates = self.user_candidates(bytes, seen, &initial, false);
        check_mac(
            &candidates,
            &readings,
            *algorithm,
            &bytes[mac.clone()],
            "no psk given",
            findings,
        );
    }

    /// REQUEST_RESP and RESOLVE_RESP: the whole request follows the message.
    fn check_kms_response(&mut self, bytes: &[u8], seen: &Seen, findings: &mut Vec<Finding>) {
        let Some(initial) = self.initial_of(seen) else {
            let why = "its MAC covers the request, too: give that before it";
            return findings.push(Finding::unknown("MAC", why));
        };
        let Some((algorithm, mac)) = &seen.payloads.verification else { return };
        let candidates = self.user_candidates(bytes, seen, initial, true);
        let covered = vec![without_mac(bytes, mac), &initial.bytes[..]];
        let readings = [Reading { name: "with the whole request", covered }];
        let expected = &bytes[mac.clone()];
        let found =
            check_mac(&candidates, &readings, *algorithm, expected, "no psk given", findings);
        let (Some(found), Some((encryption, encrypted))) = (found, &seen.payloads.kemac) else {
            return;
        };
        let times: Vec<u64> = seen.payloads.time.into_iter().chain(initial.time).collect();
        let encrypted = &bytes[encrypted.clone()];
        let source = &candidates[found].source;
        match find_keys(source, *encryption, seen.csb_id, &times, encrypted) {
            Ok((keys, time)) => {
                let reading = ["T of the response", "T of the request"][time.min(1)];
                findings.push(Finding::right(
                    "KEMAC",
                    "the same key",
                    &format!("IV from {reading}"),
                ));
                self.take_kms_keys(keys, seen.data_type == RESOLVE_RESP, findings);
            }
            Err(why) => findings.push(Finding::failed("KEMAC", &why)),
        }
    }

    /// Position tells MPKi from MPKr (RFC 6043 section 4.2.1); a resolve answer has it forked.
    fn take_kms_keys(&mut self, keys: Vec<KeyData>, forked: bool, findings: &mut Vec<Finding>) {
        self.tell_keys("KEMAC", &keys, findings);
        let mut protection: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for key in keys {
            match key.key_type {
                KEY_MPK => protection.push(key.key.clone()),
                _ => self.session_keys.push(SessionKey { data: key, forked }),
            }
        }
        let mut protection = protection.into_iter();
        if let Some(initiator) = protection.next() {
            let responder = protection.next();
            self.protections.push(MessageProtection {
                name: "MPKi from the KMS".to_owned(),
                initiator,
                responder: responder.clone().filter(|_| !forked),
                forked: responder.filter(|_| forked),
            });
        }
    }

    fn user_candidates(
        &self,
        bytes: &[u8],
        seen: &Seen,
        initial: &Initial,
        response: bool,
    ) -> Vec<Candidate<'k>> {
        let Some(prf) = Prf::from_code(seen.prf) else { return Vec::new() };
        let rands = (&initial.initiator_rand, &initial.responder_rand);
        let identity = seen.payloads.identity(ROLE_PRE_SHARED_KEY);
        let identity = identity.map(|range| &bytes[range.clone()]);
        let source =
            if response { KeySource::response_message } else { KeySource::initial_message };
        let candidate = |key: &'k Key| Candidate {
            name: key.name.clone(),
            source: source(prf, &key.key, seen.csb_id, rands.0, rands.1),
        };
        ranked(&self.keys.users, identity).into_iter().map(candidate).collect()
    }

    pub(super) fn tell_keys(&self, subject: &str, keys: &[KeyData], findings: &mut Vec<Finding>) {
        for key in keys {
            let name = names::key_type(u64::from(key.key_type)).unwrap_or("key of unknown type");
            let spi = key.spi().map_or("without SPI".to_owned(), |spi| {
                format!("SPI {}", crate::inspect::field::hex(spi))
            });
            let detail = format!("{name}, {spi}: {}", told(&key.key, self.show_secrets));
            let subject = subject.to_owned();
            findings.push(Finding { outcome: Outcome::Right, subject, detail });
        }
    }
}

/// Tries every key under every reading; tells the outcome, and which key it was.
pub(super) fn check_mac(
    candidates: &[Candidate<'_>],
    readings: &[Reading<'_>],
    algorithm: u8,
    expected: &[u8],
    without: &str,
    findings: &mut Vec<Finding>,
) -> Option<usize> {
    if candidates.is_empty() {
        findings.push(Finding::unknown("MAC", without));
        return None;
    }
    let Some((key, reading)) = find_mac(candidates, readings, algorithm, expected) else {
        findings.push(Finding::wrong("MAC", candidates.len()));
        return None;
    };
    findings.push(Finding::right("MAC", &candidates[key].name, readings[reading].name));
    Some(key)
}

pub(super) fn identity_of<'a>(bytes: &'a [u8], seen: &Seens, role: u8) -> &'a [u8] {
    seen.identity(role).map_or(&[][..], |range| &bytes[range.clone()])
}

impl Initial {
    pub(super) fn of(bytes: &[u8], seen: &Seen) -> Self {
        let payloads = &seen.payloads;
        let rand = |role| payloads.rand(role).map_or(Vec::new(), |it| bytes[it.clone()].to_vec());
        let ticket = payloads.ticket.as_ref();
        Self {
            data_type: seen.data_type,
            csb_id: seen.csb_id,
            bytes: bytes.to_vec(),
            time: payloads.time,
            initiator_rand: rand(ROLE_INITIATOR),
            responder_rand: rand(ROLE_RESPONDER),
            rand: rand(0),
            identities: payloads
                .identities
                .iter()
                .map(|(_, it)| bytes[it.clone()].to_vec())
                .collect(),
            flags: ticket.map_or(0, |ticket| ticket.flags),
            ticket_prf: ticket.map_or(0, |ticket| ticket.prf),
            initiator_data: ticket.map_or(0..0, |ticket| ticket.initiator_data.clone()),
        }
    }
}

impl Finding {
    pub(super) fn right(subject: &str, key: &str, reading: &str) -> Self {
        let detail = format!("right with {key}; reading: {reading}");
        Self { outcome: Outcome::Right, subject: subject.to_owned(), detail }
    }

    pub(super) fn told(subject: String, detail: String) -> Self {
        Self { outcome: Outcome::Right, subject, detail }
    }

    pub(super) fn wrong(subject: &str, keys: usize) -> Self {
        Self::failed(subject, &format!("wrong with each of {keys} key(s), under every reading"))
    }

    pub(super) fn failed(subject: &str, why: &str) -> Self {
        let (subject, detail) = (subject.to_owned(), why.to_owned());
        Self { outcome: Outcome::Wrong, subject, detail }
    }

    pub(super) fn unknown(subject: &str, why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, subject: subject.to_owned(), detail: why.into() }
    }
}

/// What others answer.
const INITIAL: [u8; 6] = [
    rfc3830::PRE_SHARED,
    rfc3830::PUBLIC_KEY,
    rfc3830::DH_HMAC_INIT,
    REQUEST_INIT_PSK,
    RESOLVE_INIT_PSK,
    TRANSFER_INIT,
];
pub(super) const REQUEST_INIT_PSK: u8 = 11;
pub(super) const REQUEST_RESP: u8 = 13;
pub(super) const TRANSFER_INIT: u8 = 14;
pub(super) const TRANSFER_RESP: u8 = 15;
pub(super) const RESOLVE_INIT_PSK: u8 = 16;
pub(super) const RESOLVE_RESP: u8 = 18;
/// CSB ID of an IV where no bundle is meant (RFC 6043 appendix A.2.1).
const NO_CSB_ID: u32 = 0xFFFF_FFFF;
