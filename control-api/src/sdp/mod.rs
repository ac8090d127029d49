//! SDP offer/answer rules for MSRP (RFC 3264, 4975, 5547, 6135, 6714, 7701), BFCP (RFC 8856) and the key
//! management attribute (RFC 4567).
//!
//! `sdp-types` takes the lines apart; what they mean for a session is decided here.
//! [`Offer::parse`] yields, per m-line and in order, a description that can be served or the reason
//! why not; [`LocalDescription`] writes our side. [`Offering`] is an exchange that we begin.
//! [`offer_for_message_session`] and [`parse_answer`] are what a UE sends and reads, and
//! [`offer_for_message_session_and_floors`] and [`parse_floor_answer`] where it wants floors, too.

mod attributes;
mod cema;
mod chatroom;
mod file;
mod floor;
mod local;
mod local_floor;
mod message;
mod offer;
mod offering;
mod ue;
mod uri;

pub use mrfp_protocol::tls::Fingerprint;

pub(crate) use attributes::fingerprints;
pub use attributes::{
    KEY_MANAGEMENT_COUNT_MAX, KEY_MANAGEMENT_SIZE_MAX, KeyManagement, KeyManagementEntry,
    KeyManagementLevel, OfferedSetup, reversed,
};
pub use chatroom::Chatroom;
pub use file::{FileRange, FileSelector, FileTransfer};
pub use floor::{ConnectionReuse, FloorDescription, FloorMedia, FloorProtocol, FloorRoles};
pub use local::{Capabilities, LocalDescription, LocalMedia, LocalMessage};
pub use local_floor::{FloorConference, LocalFloor};
pub use message::{
    LIST_SIZE_MAX, MessageDescription, OfferRules, PATH_SIZE_MAX, PROTOCOL_PLAIN, PROTOCOL_TLS,
    Unservable,
};
pub(crate) use offer::parse_text;
pub use offer::{MEDIA_COUNT_MAX, MediaDescription, MediaLine, Offer, SDP_SIZE_MAX, SdpError};
pub use offering::{AnswerError, Answered, Offering};
pub use ue::{
    FloorStreamAnswer, FloorStreamOffer, MessageSessionAnswer, MessageSessionOffer,
    offer_for_message_session, offer_for_message_session_and_floors, parse_answer,
    parse_floor_answer,
};
pub use uri::{Host, MsrpUri};

/// A Warning header: code and text (RFC 3261 section 20.43).
pub type Warning = (u16, String);
