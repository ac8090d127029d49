//! MIKEY-TICKET (RFC 6043) on top of MIKEY (RFC 3830), as TS 33.328 uses it to key TLS-PSK.
//!
//! Sans-IO: bytes in, bytes out; time and randomness are arguments. An [`Initiator`] sends
//! TRANSFER_INIT in its SDP offer, a [`Responder`] has the ticket resolved by the KMS and answers
//! with TRANSFER_RESP; both end with the TEK of one crypto session, which is the TLS pre-shared
//! key (TS 23.333 clause 5.20.2).
//!
//! Key forking (flag I) is refused.

pub mod codec;
pub mod derivation;
pub mod error;
pub mod initiator;
pub mod protection;
pub mod replay;
pub mod responder;
pub mod sdp_attribute;
pub mod ticket;
pub mod timestamp;
pub mod uri;

pub(crate) mod exchange;

use std::fmt;
use std::time::Duration;

use mrfp_core::Psk;
use zeroize::Zeroizing;

pub use error::{Error, error_message};
pub use initiator::{GrantedTicket, Initiator, PendingRequest};
pub use protection::Suite;
pub use responder::{Pending, Responder, ResponderConfig};
pub use timestamp::NtpTime;
pub use uri::UriPattern;

/// Source of random bytes: fills the slice it is given.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// Everything an operator may have to set to match the peer. What 3GPP assigns in TS 33.328 and
/// IANA does not list has a field of its own here.
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
    /// Send the SDP IDs extension against bidding down (RFC 4567 section 4.1.4.1).
    pub send_sdp_ids: bool,
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
            ticket_type: codec::code_point::TICKET_MIKEY_BASE,
            ticket_subtype: 1,
            ticket_version: 1,
            accepted_ticket_types: vec![
                codec::code_point::TICKET_MIKEY_BASE,
                codec::code_point::TICKET_3GPP_BASE,
            ],
            suite: Suite::S128,
            accepted_suites: vec![Suite::S128, Suite::S256],
            ticket_lifetime: Duration::from_secs(3600),
            clock_skew_max: Duration::from_secs(60),
            // 8700 calls a second for two minutes; 40 MB when full.
            replay_cache_entries_max: 1 << 20,
            send_sdp_ids: true,
        }
    }
}

/// Key that protects tickets; shared by the KMS and an initiator that makes its own (mode 3).
#[derive(Clone)]
pub struct TicketProtectionKey {
    /// Names the key (IDRpsk in the ticket), a byte string.
    pub identity: Vec<u8>,
    /// 16 or 32 bytes.
    pub key: Zeroizing<Vec<u8>>,
}

/// Key shared with the KMS for ticket request and ticket resolve.
#[derive(Clone)]
pub struct PreSharedKey {
    /// Names the key (IDRpsk in the request), a byte string.
    pub identity: Vec<u8>,
    /// 16 or 32 bytes.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for TicketProtectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketProtectionKey({:?}, redacted)", self.identity.escape_ascii().to_string())
    }
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreSharedKey({:?}, redacted)", self.identity.escape_ascii().to_string())
    }
}

/// What both sides hold after a ticket transfer.
#[derive(Clone, Debug)]
pub struct Established {
    /// The TEK, as TLS pre-shared key.
    pub psk: Psk,
    /// TLS identity of that key, see [`psk_identity`].
    pub psk_identity: String,
    /// Authenticated URI of the other side, as it was sent.
    pub peer: String,
}

/// The TLS-PSK identity of a crypto session: CSB ID as eight lowercase hex digits, a dot, CS ID in
/// decimal.
#[must_use]
pub fn psk_identity(csb_id: u32, crypto_session_id: u8) -> String {
    format!("{csb_id:08x}.{crypto_session_id}")
}
