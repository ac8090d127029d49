//! MIKEY-TICKET (RFC 6043) on top of MIKEY (RFC 3830), as TS 33.328 uses it to key TLS-PSK.
//!
//! Sans-IO: bytes in, bytes out; time and randomness are arguments. An [`Initiator`] sends
//! TRANSFER_INIT in its SDP offer, a [`Responder`] has the ticket resolved by the KMS and answers
//! with TRANSFER_RESP; both end with the TEK of one crypto session, which is the TLS pre-shared
//! key (TS 23.333 clause 5.20.2).
//!
//! All four modes of RFC 6043 section 4.1.1: tickets of the KMS and of the initiator, opened by the
//! KMS or by a responder that holds their key. A [`Bundle`] renews the key of a session.

mod bundle;
pub mod codec;
pub mod derivation;
pub mod error;
pub(crate) mod forking;
pub mod initiator;
mod parameters;
pub mod protection;
pub mod public_key;
pub mod replay;
pub mod request;
pub mod resolve;
pub mod responder;
pub mod sdp_attribute;
pub mod ticket;
pub mod timestamp;
mod transfer;
pub mod uri;

pub(crate) mod exchange;

use std::fmt;

use mrfp_core::Psk;
use zeroize::Zeroizing;

pub use bundle::{Bundle, PendingUpdate, TrafficKey};
pub use error::{Error, error_message};
pub use initiator::{Initiator, TransferOptions};
pub use parameters::{IvTime, Parameters, PskIdentityForm};
pub use protection::Suite;
pub use public_key::{Authorities, KeyPair};
pub use request::{Credentials, GrantedTicket, PendingRequest, TicketWish};
pub use resolve::Pending;
pub use responder::{HeldTicketKey, Responder, ResponderConfig, TicketMaker};
pub use timestamp::NtpTime;
pub use transfer::Transfer;
pub use uri::UriPattern;

/// Source of random bytes: fills the slice it is given.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

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
    /// TLS identity of that key, see [`PskIdentityForm`].
    pub psk_identity: String,
    /// Authenticated URI of the other side, as it was sent.
    pub peer: String,
    /// What a later exchange of keys for this session begins with.
    pub bundle: Bundle,
}

/// The usual TLS-PSK identity of a crypto session: CSB ID as eight lowercase hex digits, a dot, CS ID in
/// decimal.
#[must_use]
pub fn psk_identity(csb_id: u32, crypto_session_id: u8) -> String {
    format!("{csb_id:08x}.{crypto_session_id}")
}
