//! What an operator may have to set to match the peer.

use std::time::Duration;

use super::codec::{Identity, Timestamp, code_point};
use super::protection::Suite;
use super::psk_identity;

/// Everything an operator may have to set to match the peer. What 3GPP assigns in TS 33.328 and
/// IANA does not list has a field of its own here, and so has each place where RFC 6043 can be read
/// in two ways; `docs/mikey.md` lists them.
///
/// What we send follows the fields. What we receive may follow another reading, unless `strict`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// MIKEY protection type "TLS" (TS 33.328 annex H.3) in what we send.
    pub protection_type_tls: u8,
    /// Protection types taken for "TLS" in what we receive.
    pub accepted_protection_types_tls: Vec<u8>,
    /// CS ID of the one crypto session we offer.
    pub crypto_session_id: u8,
    /// Number of the security policy we offer.
    pub security_policy_number: u8,
    /// Content of that policy: type, length, value triples; at most 1 KiB.
    pub security_policy_parameters: Vec<u8>,
    /// TLS identity of the keys.
    pub psk_identity_form: PskIdentityForm,
    /// ID type of the identities we send (RFC 3830 section 6.7).
    pub identity_type: u8,
    /// Length of the TEK, which is the TLS pre-shared key; that of its TGK where not set.
    pub traffic_key_bytes: Option<usize>,
    /// Ticket type of tickets we make or ask for (RFC 6043 section 6.10).
    pub ticket_type: u16,
    /// Their subtype.
    pub ticket_subtype: u8,
    /// Their version.
    pub ticket_version: u8,
    /// Ticket types taken; the responder and the KMS treat all of them alike.
    pub accepted_ticket_types: Vec<u16>,
    /// Algorithms of the exchanges we begin and the tickets we make.
    pub suite: Suite,
    /// Algorithms taken in what we receive.
    pub accepted_suites: Vec<Suite>,
    /// Validity of tickets we make or ask for; the KMS may shorten it.
    pub ticket_lifetime: Duration,
    /// How far the peer's clock may be off ours (RFC 3830 section 5.4).
    pub clock_skew_max: Duration,
    /// Most messages remembered against replay, each for twice the skew. Full means that nothing
    /// more is accepted.
    pub replay_cache_entries_max: usize,
    /// Senders whose COUNTER timestamps are followed, each for ever; 0 takes no such timestamps.
    pub counter_senders_max: usize,
    /// Most resolved tickets a responder remembers, for those that may be used again (flag J); 0
    /// has every ticket resolved every time.
    pub resolved_tickets_max: usize,
    /// Send the SDP IDs extension against bidding down (RFC 4567 section 4.1.4.1).
    pub send_sdp_ids: bool,
    /// Refuse tickets without TRANSFER_RESP (flag F): an SDP answer has to carry one.
    pub transfer_response_required: bool,
    /// As responder, choose the session key where the ticket allows it (flag M).
    pub responder_session_keys: bool,
    /// The timestamp that enters the IV of KEMAC in responses.
    pub response_iv_time: IvTime,
    /// Whether the MAC of TRANSFER_RESP covers the Initiator Data in TRANSFER_INIT.
    pub response_covers_initiator_data: bool,
    /// Next-payload field of Vi in Initiator Data: 9, as Vr follows, or 0, as in TRANSFER_INIT.
    pub initiator_proof_next: u8,
    /// The V flag of REQUEST_INIT, RESOLVE_INIT and, with flag F, TRANSFER_INIT.
    pub send_response_wanted: bool,
    /// Give MPKs an SPI.
    pub spi_on_message_protection_keys: bool,
    /// Take only what is sent as we would send it: no other reading, no omitted identity, no
    /// payload that the message does not list.
    pub strict: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            // Private range: IANA has registered no protection type for TLS.
            protection_type_tls: 241,
            accepted_protection_types_tls: vec![241],
            crypto_session_id: 1,
            security_policy_number: 0,
            security_policy_parameters: Vec::new(),
            psk_identity_form: PskIdentityForm::CsbIdAndCsId,
            identity_type: code_point::ID_URI,
            traffic_key_bytes: None,
            ticket_type: code_point::TICKET_MIKEY_BASE,
            ticket_subtype: 1,
            ticket_version: 1,
            accepted_ticket_types: vec![
                code_point::TICKET_MIKEY_BASE,
                code_point::TICKET_3GPP_BASE,
            ],
            suite: Suite::S128,
            accepted_suites: vec![Suite::S128, Suite::S256],
            ticket_lifetime: Duration::from_secs(3600),
            clock_skew_max: Duration::from_secs(60),
            // 8700 calls a second for two minutes; 40 MB when full.
            replay_cache_entries_max: 1 << 20,
            // A counter is of use between two that know each other, and we seldom know who calls.
            counter_senders_max: 0,
            // Some 500 bytes each. Callers with a ticket for many calls are regular ones.
            resolved_tickets_max: 1024,
            send_sdp_ids: true,
            transfer_response_required: true,
            responder_session_keys: false,
            response_iv_time: IvTime::Response,
            response_covers_initiator_data: true,
            initiator_proof_next: code_point::V,
            send_response_wanted: true,
            spi_on_message_protection_keys: true,
            strict: false,
        }
    }
}

impl Parameters {
    /// An identity as we send it.
    #[must_use]
    pub(crate) fn identity(&self, uri: &str) -> Identity {
        Identity { id_type: self.identity_type, data: uri.as_bytes().to_vec() }
    }
}

/// What the TLS client calls itself: TS 33.328 annex H has a rule that is not public.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PskIdentityForm {
    /// See [`psk_identity`].
    CsbIdAndCsId,
    /// CSB ID as eight lowercase hex digits.
    CsbId,
}

impl PskIdentityForm {
    /// The identity of the key of this crypto session.
    #[must_use]
    pub fn identity(self, csb_id: u32, crypto_session_id: u8) -> String {
        match self {
            Self::CsbIdAndCsId => psk_identity(csb_id, crypto_session_id),
            Self::CsbId => format!("{csb_id:08x}"),
        }
    }
}

/// Whose timestamp enters the IV of a KEMAC in a response. RFC 3830 section 4.2.3 says the
/// initiator's, which responses of RFC 6043 do not repeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IvTime {
    /// T of the response itself.
    Response,
    /// T of the message it answers.
    Initial,
}

impl IvTime {
    pub(crate) fn choose(self, response: Timestamp, initial: Timestamp) -> Timestamp {
        match self {
            Self::Response => response,
            Self::Initial => initial,
        }
    }
}
