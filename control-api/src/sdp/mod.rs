//! SDP offer/answer rules for MSRP (RFC 3264, 4145, 4975, 6135, 6714) and the key management
//! attribute (RFC 4567).
//!
//! `sdp-types` takes the lines apart; what they mean for an MSRP session is decided here.
//! [`Offer::parse`] yields, per m-line and in order, a description that can be served or the reason
//! why not; [`AnswerDescription`] writes the answer. [`offer_for_message_session`] and
//! [`parse_answer`] are the other side of the exchange: what a UE sends and reads.

mod answer;
mod attributes;
mod message;
mod offer;
mod ue;
mod uri;

pub use answer::{AnswerDescription, AnswerMedia, ServedMessage};
pub use attributes::{
    KEY_MANAGEMENT_COUNT_MAX, KEY_MANAGEMENT_SIZE_MAX, KeyManagement, KeyManagementEntry,
    KeyManagementLevel, OfferedSetup,
};
pub use message::{
    LIST_SIZE_MAX, MessageDescription, PATH_SIZE_MAX, PROTOCOL_PLAIN, PROTOCOL_TLS, Unservable,
};
pub use offer::{MEDIA_COUNT_MAX, MediaDescription, MediaLine, Offer, SDP_SIZE_MAX, SdpError};
pub use ue::{MessageSessionAnswer, MessageSessionOffer, offer_for_message_session, parse_answer};
pub use uri::{Host, MsrpUri};

/// A Warning header: code and text (RFC 3261 section 20.43).
pub type Warning = (u16, String);
