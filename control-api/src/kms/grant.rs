//! What ticket is granted to whom (RFC 6043 sections 4.2.1.5 and 6.10).

use super::Kms;
use crate::mikey::codec::code_point::{
    ENCRYPTION_NULL, ROLE_END, ROLE_INITIATOR, ROLE_KMS, ROLE_START,
};
use crate::mikey::codec::{
    self, KeyData, MacAlgorithm, Payload, TicketFlags, TicketPolicy, Timestamp,
};
use crate::mikey::error::PolicyProblem;
use crate::mikey::exchange::idr;
use crate::mikey::ticket::{SESSION_KEYS_MAX, wished_keys};
use crate::mikey::{Error, NtpTime, Suite};

/// A ticket we are willing to issue.
pub(super) struct Granted {
    pub(super) policy: TicketPolicy,
    /// Of what kind its session keys are to be.
    pub(super) session_keys: Vec<KeyData>,
    /// Which of the shared keys protects it, where its responders open it themselves.
    pub(super) shared: Option<usize>,
}

impl Kms {
    /// The policy we are willing to grant, K set where it is not the wished one.
    pub(super) fn grant(
        &self,
        wished: &TicketPolicy,
        initiator: &str,
        suite: Suite,
        now: NtpTime,
    ) -> Result<Granted, Error> {
        let parameters = &self.config.parameters;
        if !parameters.accepted_ticket_types.contains(&wished.ticket_type) {
            return Err(Error::UnsupportedTicketType(wished.ticket_type));
        }
        // K has no meaning in a wish (RFC 6043 section 6.10).
        let mut flags =
            wished.flags.without(TicketFlags::CHANGED_BY_KMS).with(TicketFlags::MADE_BY_KMS);
        if let Some(contradiction) = flags.contradiction() {
            return Err(Error::UnacceptablePolicy(PolicyProblem::Contradiction(contradiction)));
        }
        if wished.responders().next().is_none() {
            return Err(Error::MissingPayload("TP IDRr"));
        }
        let owner = wished.identity(ROLE_INITIATOR).map(|identity| identity.data.as_slice());
        if owner.is_some_and(|owner| owner != initiator.as_bytes()) {
            return Err(Error::InitiatorMismatch);
        }
        // Without E the responder opens the ticket itself, if it has a key of ours (mode 2).
        let mandatory = flags.has(TicketFlags::RESOLVE_MANDATORY);
        let shared = if mandatory { None } else { self.key_shared_with(wished) };
        if shared.is_none() {
            flags = flags.with(TicketFlags::RESOLVE_MANDATORY);
        }
        // The ticket's own keys are of the suite of the request, so that none are mixed (RFC 6043
        // section 12.1).
        let mut policy = TicketPolicy {
            ticket_type: wished.ticket_type,
            subtype: parameters.ticket_subtype,
            version: parameters.ticket_version,
            prf: suite.prf().code(),
            flags,
            payloads: vec![
                idr(ROLE_KMS, parameters.identity(&self.config.uri)),
                idr(ROLE_INITIATOR, parameters.identity(initiator)),
            ],
        };
        policy.payloads.extend(self.granted_validity(wished, now));
        let lasting = |payload: &&Payload| match payload {
            Payload::Idr { role, .. } => !matches!(*role, ROLE_KMS | ROLE_INITIATOR),
            Payload::Tr { role, .. } => !matches!(*role, ROLE_START | ROLE_END),
            // A KEMAC only wishes for keys and must not be granted; others are unexpected.
            _ => false,
        };
        policy.payloads.extend(wished.payloads.iter().filter(lasting).cloned());
        let session_keys = granted_keys(wished, suite)?;
        let asked = wished.payloads.iter().filter(|payload| !matches!(payload, Payload::Kemac(_)));
        let changed = !policy.payloads.iter().eq(asked)
            || policy.prf != wished.prf
            || flags != wished.flags.with(TicketFlags::MADE_BY_KMS);
        if changed {
            policy.flags = policy.flags.with(TicketFlags::CHANGED_BY_KMS);
        }
        Ok(Granted { policy, session_keys, shared })
    }

    /// The key that everybody has whom the ticket is for.
    fn key_shared_with(&self, wished: &TicketPolicy) -> Option<usize> {
        self.shared_keys.iter().position(|shared| shared.is_for(wished))
    }

    fn granted_validity(&self, wished: &TicketPolicy, now: NtpTime) -> [Payload; 2] {
        let limit = now.after(self.config.ticket_lifetime);
        let time = |role, fallback: NtpTime| {
            wished.time(role).and_then(NtpTime::from_timestamp).unwrap_or(fallback)
        };
        let end = time(ROLE_END, limit);
        let end = if limit.is_before(end) { limit } else { end };
        let payload =
            |role, at: NtpTime| Payload::Tr { role, timestamp: Timestamp::NtpUtc32(at.seconds()) };
        [payload(ROLE_START, time(ROLE_START, now)), payload(ROLE_END, end)]
    }
}

/// The keys that are wished for; one TGK where the wish is silent.
fn granted_keys(wished: &TicketPolicy, suite: Suite) -> Result<Vec<KeyData>, Error> {
    let kemac = wished.payloads.iter().find_map(|payload| match payload {
        Payload::Kemac(kemac) => Some(kemac),
        _ => None,
    });
    let Some(kemac) = kemac else {
        return Ok(wished_keys(suite));
    };
    if kemac.encryption != ENCRYPTION_NULL {
        return Err(Error::UnsupportedEncryption(kemac.encryption));
    }
    if kemac.mac_algorithm != MacAlgorithm::Null {
        return Err(Error::UnsupportedMac(kemac.mac_algorithm as u8));
    }
    let keys = codec::parse_key_data(&kemac.encrypted).map_err(Error::MalformedKeys)?;
    if keys.is_empty() || keys.len() > SESSION_KEYS_MAX {
        return Err(Error::UnacceptablePolicy(PolicyProblem::SessionKeys));
    }
    Ok(keys)
}
