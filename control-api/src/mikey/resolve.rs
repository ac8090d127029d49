//! The responder's question to the KMS (RFC 6043 section 4.2.3), and the memory of its answers.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use super::codec::code_point::{ROLE_KMS, ROLE_RESPONDER};
use super::codec::{self, DataType, Payload, Ticket, TicketFlags, Timestamp};
use super::derivation::KeySource;
use super::error::Error;
use super::exchange::{check_response, parse_response, required_rand, required_timestamp, uri_of};
use super::forking::check_forked_keys;
use super::protection::{ResponseTimes, open_response_keys, verify};
use super::replay::checked_time;
use super::request::{Ask, Asked, Credentials, starts_with_mpk};
use super::responder::{Responder, ResponderConfig};
use super::ticket::{MessageProtectionKeys, TicketContent, take_message_protection_key};
use super::transfer::Transfer;
use super::{Established, NtpTime, Random};

/// A ticket transfer that awaits the KMS.
pub struct Pending {
    transfer: Transfer,
    asked: Asked,
    time: NtpTime,
}

impl Responder {
    /// Makes the RESOLVE_INIT_PSK to send to the KMS. Draws CSB ID and RANDRr of the resolve exchange,
    /// in this order.
    ///
    /// # Errors
    /// [`Error::KeyLength`] where our own key is unusable, [`Error::IdentityTooLong`].
    pub fn ask(
        &self,
        transfer: Transfer,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Pending, Vec<u8>), Error> {
        let credentials = Credentials::PreShared(&self.config.kms_key);
        self.ask_with(credentials, transfer, now, random)
    }

    /// Makes a RESOLVE_INIT with these credentials, in the suite of the transfer: long keys must not
    /// travel under short ones (RFC 6043 section 12.1).
    ///
    /// # Errors
    /// As [`Responder::ask`], and [`Error::Certificate`].
    pub fn ask_with(
        &self,
        credentials: Credentials<'_>,
        transfer: Transfer,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Pending, Vec<u8>), Error> {
        let ticket = transfer.message.ticket().expect("it was checked");
        let ask = Ask {
            parameters: &self.config.parameters,
            data_types: [DataType::ResolveInitPsk, DataType::ResolveInitPk],
            role: ROLE_RESPONDER,
            uri: &transfer.asked_as,
            kms: &self.config.kms_uri,
            subject: Payload::Ticket(Box::new(ticket.clone())),
            suite: transfer.suite,
        };
        let asked = ask.seal(credentials, now, random)?;
        let message = asked.message.clone();
        Ok((Pending { transfer, asked, time: now }, message))
    }
}

impl Pending {
    /// URI of who calls, authenticated only once [`Pending::finish`] succeeds.
    #[must_use]
    pub fn initiator(&self) -> &str {
        &self.transfer.initiator
    }

    /// URI that was called.
    #[must_use]
    pub fn requested(&self) -> &str {
        self.transfer.requested()
    }

    /// Takes the KMS's answer, checks the MAC of TRANSFER_INIT with it, derives the key and makes
    /// TRANSFER_RESP. Draws RANDRr.
    ///
    /// # Errors
    /// The KMS refused, its answer is not authentic, or TRANSFER_INIT is not authentic or a
    /// replay.
    pub fn finish(
        self,
        responder: &mut Responder,
        resolve_resp: &[u8],
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<(Established, Vec<u8>), Error> {
        let content = self.open_response(&responder.config, resolve_resp, now)?;
        self.transfer.finish(responder, content, now, random)
    }

    fn open_response(
        &self,
        config: &ResponderConfig,
        resolve_resp: &[u8],
        now: NtpTime,
    ) -> Result<TicketContent, Error> {
        let Asked { csb_id, rand, key, message: resolve_init } = &self.asked;
        let parameters = &config.parameters;
        let suite = self.transfer.suite;
        let asked = KeySource::initial_message(suite.prf(), key, *csb_id, &[], rand);
        let message = parse_response(resolve_resp, DataType::ResolveResp, parameters, &asked)?;
        check_response(&message.header, *csb_id, suite.prf())?;
        let source = KeySource::response_message(suite.prf(), key, *csb_id, &[], rand);
        verify(&message, resolve_resp, &source, &[resolve_init])?;
        let timestamp = required_timestamp(&message)?;
        checked_time(timestamp, now, parameters.clock_skew_max)?;
        let kemac = message.kemac().ok_or(Error::MissingPayload("KEMAC"))?;
        let initial = Timestamp::NtpUtc(self.time.0);
        let times = ResponseTimes { response: timestamp, initial, parameters };
        let mut keys = open_response_keys(kemac, &source, suite, *csb_id, times, starts_with_mpk)?;
        let mpki = take_message_protection_key(&mut keys, parameters, "MPKi")?;
        let responder = message.identity(ROLE_RESPONDER).map(uri_of).transpose()?;
        let ticket = self.transfer.message.ticket().expect("it was checked");
        let (mut mpkr, mut kms_rand) = (mpki.key.clone(), None);
        if ticket.policy.flags.has(TicketFlags::KEY_FORKING) {
            mpkr = take_message_protection_key(&mut keys, parameters, "MPKr'")?.key;
            kms_rand = Some(required_rand(&message, ROLE_KMS)?);
            responder.ok_or(Error::MissingPayload("IDRr"))?;
        }
        check_forked_keys(ticket.policy.flags, &keys)?;
        Ok(TicketContent {
            message_protection: MessageProtectionKeys {
                spi: mpki.spi().unwrap_or_default().to_vec(),
                initiator: mpki.key,
                responder: mpkr,
            },
            session_keys: keys,
            responder: responder.map(str::to_owned),
            kms_rand,
        })
    }
}

/// Tickets that were resolved and may be used again: the KMS need not be asked twice, and the modifier
/// of forked keys stays the same (RFC 6043 section 5.3). The oldest make room.
pub(super) struct ResolvedTickets {
    entries_max: usize,
    found: HashMap<TicketDigest, TicketContent>,
    order: VecDeque<TicketDigest>,
}

type TicketDigest = [u8; 32];

impl ResolvedTickets {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries_max, found: HashMap::new(), order: VecDeque::new() }
    }

    /// What the KMS said is in the ticket. Whether it has expired was checked before: its policy is
    /// part of what it is found by.
    pub(super) fn find(&self, ticket: &Ticket, asked_as: &str) -> Option<TicketContent> {
        if self.found.is_empty() || !ticket.policy.flags.has(TicketFlags::REUSABLE) {
            return None;
        }
        self.found.get(&digest(ticket, asked_as)).cloned()
    }

    /// Remembers a ticket whose transfer was authentic.
    pub(super) fn insert(&mut self, ticket: &Ticket, asked_as: &str, content: &TicketContent) {
        // One without an end would be good for ever, whatever the KMS thinks of its owner by then.
        let ends = ticket.policy.time(codec::code_point::ROLE_END).is_some();
        if self.entries_max == 0 || !ends || !ticket.policy.flags.has(TicketFlags::REUSABLE) {
            return;
        }
        let digest = digest(ticket, asked_as);
        if self.found.contains_key(&digest) {
            return;
        }
        if self.order.len() >= self.entries_max {
            let oldest = self.order.pop_front().expect("it is full");
            self.found.remove(&oldest);
        }
        self.found.insert(digest, content.clone());
        self.order.push_back(digest);
    }
}

/// The whole ticket but its Initiator Data, which are another's in every transfer.
fn digest(ticket: &Ticket, asked_as: &str) -> TicketDigest {
    let mut hash = Sha256::new();
    hash.update(codec::encode_covered_ticket(ticket));
    hash.update(asked_as.as_bytes());
    hash.finalize().into()
}
