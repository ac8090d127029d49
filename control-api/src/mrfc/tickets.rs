//! The door to MIKEY-TICKET for calls of ours: from a ticket to TRANSFER_INIT, and from its answer to
//! the key (TS 23.333 clause 5.20.2, the MRFC as session initiator).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::{KeyFailure, Parties};
use crate::mikey::uri::normalise;
use crate::mikey::{
    Established, GrantedTicket, Initiator, NtpTime, Parameters, PendingRequest, PreSharedKey,
    Random, TicketProtectionKey, UriPattern,
};

/// What the MRFC has to know as initiator.
#[derive(Clone, Debug)]
pub struct InitiatorConfig {
    /// Our KMS.
    pub kms_uri: String,
    /// Key shared with it, by which tickets are asked for.
    pub kms_key: PreSharedKey,
    /// Key that protects tickets we make ourselves; without it the KMS makes all of them.
    pub ticket_key: Option<TicketProtectionKey>,
    /// Members of the groups that can be called, by the group's URI.
    pub groups: BTreeMap<String, Vec<UriPattern>>,
    /// What to send and to accept.
    pub parameters: Parameters,
}

/// A ticket that the KMS is asked for.
pub(super) struct PendingTicket {
    request: PendingRequest,
    called: String,
}

/// A TRANSFER_INIT of ours and what its answer is checked with.
pub(super) struct Transfer {
    initiator: Initiator,
    /// TRANSFER_INIT for the offer, base64.
    message: String,
}

impl InitiatorConfig {
    /// Asks the KMS for a ticket (mode 1): REQUEST_INIT.
    pub(super) fn request(
        &self,
        parties: &Parties<'_>,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(PendingTicket, Vec<u8>), KeyFailure> {
        let Parties { caller, called } = *parties;
        let asked = Initiator::request_ticket(
            &self.parameters,
            caller,
            called,
            &self.kms_uri,
            &self.kms_key,
            now,
            random,
        );
        let (request, message) = asked.map_err(KeyFailure::Mikey)?;
        Ok((PendingTicket { request, called: called.to_owned() }, message))
    }

    /// Makes a ticket (mode 3) and TRANSFER_INIT with it.
    pub(super) fn make(
        &self,
        parties: &Parties<'_>,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Transfer, KeyFailure> {
        let key = self.ticket_key.as_ref().expect("the policy was checked");
        let Parties { caller, called } = *parties;
        let made = Initiator::with_own_ticket(
            &self.parameters,
            caller,
            called,
            &self.kms_uri,
            key,
            now,
            random,
        );
        self.transfer(made.map_err(KeyFailure::Mikey)?, called)
    }

    /// Takes the ticket out of the KMS's answer and makes TRANSFER_INIT with it.
    pub(super) fn granted(
        &self,
        pending: PendingTicket,
        response: &[u8],
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Transfer, KeyFailure> {
        let PendingTicket { request, called } = pending;
        let ticket: GrantedTicket = request.finish(response, now).map_err(KeyFailure::Mikey)?;
        let made = Initiator::with_granted_ticket(&self.parameters, &ticket, &called, now, random);
        self.transfer(made.map_err(KeyFailure::Mikey)?, &called)
    }

    /// Whoever is called may answer, and where that is a group each of its members.
    fn transfer(
        &self,
        (mut initiator, message): (Initiator, Vec<u8>),
        called: &str,
    ) -> Result<Transfer, KeyFailure> {
        let called = normalise(called);
        let named = self.groups.iter().filter(|(group, _)| normalise(group) == called);
        for member in named.flat_map(|(_, members)| members) {
            initiator.accept_responder(member.clone());
        }
        Ok(Transfer { initiator, message: STANDARD.encode(message) })
    }
}

impl Transfer {
    /// TRANSFER_INIT, base64.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// What the TLS client will call itself.
    pub(super) fn psk_identity(&self) -> Vec<u8> {
        self.initiator.psk_identity().into_bytes()
    }

    /// Checks TRANSFER_RESP and who sent it, and derives the key.
    pub(super) fn finish(
        self,
        transfer_response: &[u8],
        now: NtpTime,
    ) -> Result<Established, KeyFailure> {
        self.initiator.finish(transfer_response, now).map_err(KeyFailure::Mikey)
    }
}

impl fmt::Debug for PendingTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingTicket(redacted)")
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transfer(redacted)")
    }
}
