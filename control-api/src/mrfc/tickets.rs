//! The door to MIKEY-TICKET for calls of ours: from a ticket to TRANSFER_INIT, and from its answer to
//! the key (TS 23.333 clause 5.20.2, the MRFC as session initiator).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::dialling::{DialPolicy, TicketOpener, TicketSource};
use super::kept_tickets::Names;
use super::keys::{KeyFailure, Parties};
use crate::mikey::codec::TicketFlags;
use crate::mikey::request::request_ticket;
use crate::mikey::uri::normalise;
use crate::mikey::{
    Credentials, Established, GrantedTicket, HeldTicketKey, Initiator, KeyPair, NtpTime,
    Parameters, PendingRequest, PreSharedKey, Random, TicketMaker, TicketProtectionKey, TicketWish,
    UriPattern,
};

/// What the MRFC has to know as initiator.
#[derive(Clone, Debug)]
pub struct InitiatorConfig {
    /// Our KMS.
    pub kms_uri: String,
    /// Key shared with it, by which tickets are asked for.
    pub kms_key: PreSharedKey,
    /// What we ask by instead, and have tickets resolved by.
    pub certificate: Option<Certified>,
    /// Key that protects tickets we make for the KMS to open; without it there are none.
    pub ticket_key: Option<TicketProtectionKey>,
    /// Keys we share with responders, for tickets that these open themselves.
    pub held_keys: Vec<HeldTicketKey>,
    /// Tickets of the KMS that are kept for the next call to the same user; 0: each call has its own.
    pub kept_tickets_max: usize,
    /// Members of the groups that can be called, by the group's URI.
    pub groups: BTreeMap<String, Vec<UriPattern>>,
    /// What to send and to accept.
    pub parameters: Parameters,
}

/// What we prove to the KMS by who we are, where that is no key shared with it.
#[derive(Clone, Debug)]
pub struct Certified {
    /// Our certificate and its key.
    pub own: KeyPair,
    /// Certificate of the KMS, DER.
    pub kms_certificate: Vec<u8>,
}

/// A ticket that the KMS is asked for.
pub(super) struct PendingTicket {
    request: PendingRequest,
    names: Names,
}

/// A TRANSFER_INIT of ours and what its answer is checked with.
pub(super) struct Transfer {
    initiator: Initiator,
    /// TRANSFER_INIT for the offer, base64.
    message: String,
    /// A ticket of the KMS that the next call may use, too.
    ticket: Option<(Names, GrantedTicket)>,
    /// Another TRANSFER_INIT with the same ticket, for the floor stream of the call.
    floor: Option<Box<Self>>,
}

impl Certified {
    /// For a request.
    #[must_use]
    pub fn credentials(&self) -> Credentials<'_> {
        Credentials::PublicKey { own: &self.own, kms_certificate: &self.kms_certificate }
    }
}

impl InitiatorConfig {
    /// Whether such calls can be made to this user.
    pub(super) fn can_call(&self, policy: &DialPolicy, called: &str) -> bool {
        policy.ticket == TicketSource::Kms || self.protecting_key(policy, called).is_some()
    }

    /// Our key for a ticket of our own making: the callee has it, or the KMS.
    fn protecting_key(&self, policy: &DialPolicy, called: &str) -> Option<&TicketProtectionKey> {
        let shared = |held: &&HeldTicketKey| match &held.maker {
            TicketMaker::Initiators(users) => users.iter().any(|user| user.matches(called)),
            TicketMaker::Kms => false,
        };
        match policy.opener {
            TicketOpener::Kms => self.ticket_key.as_ref(),
            TicketOpener::Callee => self.held_keys.iter().find(shared).map(|held| &held.key),
        }
    }

    /// Asks the KMS for a ticket (modes 1 and 2): REQUEST_INIT.
    pub(super) fn request(
        &self,
        policy: &DialPolicy,
        parties: &Parties<'_>,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(PendingTicket, Vec<u8>), KeyFailure> {
        let credentials = match &self.certificate {
            Some(certificate) => certificate.credentials(),
            None => Credentials::PreShared(&self.kms_key),
        };
        let called = [parties.called];
        let wish = self.wish(policy, parties, &called);
        let asked = request_ticket(&self.parameters, &wish, credentials, now, random);
        let (request, message) = asked.map_err(KeyFailure::Mikey)?;
        Ok((PendingTicket { request, names: Names::from(parties) }, message))
    }

    /// Makes a ticket (modes 3 and 4) and TRANSFER_INIT with it.
    pub(super) fn make(
        &self,
        policy: &DialPolicy,
        parties: &Parties<'_>,
        floors: bool,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Transfer, KeyFailure> {
        let key = self.protecting_key(policy, parties.called).expect("the policy was checked");
        let called = [parties.called];
        let wish = self.wish(policy, parties, &called);
        let made = GrantedTicket::make_as_wished(&self.parameters, &wish, key, now, &mut *random);
        self.transfers(&made.map_err(KeyFailure::Mikey)?, parties.called, floors, now, random)
    }

    /// Takes the ticket out of the KMS's answer and makes TRANSFER_INIT with it.
    pub(super) fn granted(
        &self,
        pending: PendingTicket,
        response: &[u8],
        floors: bool,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Transfer, KeyFailure> {
        let PendingTicket { request, names } = pending;
        let ticket = request.finish(response, now).map_err(KeyFailure::Mikey)?;
        self.with_granted(names, ticket, floors, now, random)
    }

    /// Makes TRANSFER_INIT with a ticket of the KMS, a new one or one that was used before.
    pub(super) fn with_granted(
        &self,
        names: Names,
        ticket: GrantedTicket,
        floors: bool,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Transfer, KeyFailure> {
        let transfer = self.transfers(&ticket, names.called(), floors, now, random)?;
        Ok(Transfer { ticket: (self.kept_tickets_max > 0).then_some((names, ticket)), ..transfer })
    }

    fn wish<'a>(
        &'a self,
        policy: &DialPolicy,
        parties: &Parties<'a>,
        called: &'a [&'a str],
    ) -> TicketWish<'a> {
        let mut wish = TicketWish::new(&self.kms_uri, parties.caller, called);
        if policy.opener == TicketOpener::Callee {
            wish.flags = wish.flags.without(TicketFlags::RESOLVE_MANDATORY);
        }
        if policy.key_forking {
            wish.flags = wish.flags.with(TicketFlags::KEY_FORKING);
        }
        wish
    }

    /// TRANSFER_INIT for the messages of a call, and with `floors` one for its floor stream, if the ticket
    /// may be used again (RFC 6043 section 5.3); each has a RAND of its own, and so another key.
    fn transfers(
        &self,
        ticket: &GrantedTicket,
        called: &str,
        floors: bool,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Transfer, KeyFailure> {
        let mut transfer = self.transfer(ticket, called, now, &mut *random)?;
        if floors && ticket.ticket().policy.flags.has(TicketFlags::REUSABLE) {
            transfer.floor = Some(Box::new(self.transfer(ticket, called, now, random)?));
        }
        Ok(transfer)
    }

    /// TRANSFER_INIT. Whoever is called may answer, and where that is a group each of its members.
    fn transfer(
        &self,
        ticket: &GrantedTicket,
        called: &str,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Transfer, KeyFailure> {
        let made = Initiator::with_granted_ticket(&self.parameters, ticket, called, now, random);
        let (mut initiator, message) = made.map_err(KeyFailure::Mikey)?;
        let called = normalise(called);
        let named = self.groups.iter().filter(|(group, _)| normalise(group) == called);
        for member in named.flat_map(|(_, members)| members) {
            initiator.accept_responder(member.clone());
        }
        Ok(Transfer { initiator, message: STANDARD.encode(message), ticket: None, floor: None })
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

    /// The ticket, where the next call may use it once this one is answered.
    pub(super) fn take_ticket(&mut self) -> Option<(Names, GrantedTicket)> {
        self.ticket.take()
    }

    /// That of the floor stream.
    pub(super) fn take_floor(&mut self) -> Option<Box<Self>> {
        self.floor.take()
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
