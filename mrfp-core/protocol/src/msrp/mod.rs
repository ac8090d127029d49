//! MSRP (RFC 4975): streaming framer, serializer, URIs.
//!
//! The walk of a message: [`Framer::next`] (`framer.rs`) has `head.rs` read start line and headers
//! into a borrowed [`Head`], in one pass where the head is whole and after a scan for its end where
//! it comes in parts; the framer then hands out the body as it comes and ends it at the end-line. `uri.rs` reads the URIs of a [`Path`], `range.rs` a Byte-Range,
//! `nickname.rs` a Use-Nickname.
//! The way out is `write.rs`: [`RequestHead`], [`write_end_line`], [`write_response`] and
//! [`Report`] put text into a buffer of the caller, with ids from `id.rs`.
//!
//! [`Interworking`] (`interworking.rs`) is between the two: messages go on with other paths.
//!
//! Bodies are never assembled: the framer hands out what is there.

pub mod auth;
mod framer;
mod head;
mod id;
mod interworking;
mod malformed;
mod nickname;
mod range;
mod uri;
pub(crate) mod write;

pub use framer::{Continuation, Framer, HEAD_BYTES_MAX, Piece};
pub use head::{FailureReport, Head, Method, Paths, Start, Status};
pub use id::{
    IDENT_BYTES_MAX, IDENT_BYTES_MIN, MESSAGE_ID_BYTES_MAX, MessageId, TransactionId, is_ident,
    is_message_id,
};
pub use interworking::{Interworking, Passage, Refusal, Step};
pub use malformed::{Malformed, MalformedAnswer, MalformedReason};
pub use nickname::{MalformedNickname, NICKNAME_BYTES_MAX, UseNickname};
pub use range::ByteRange;
pub use uri::{Path, Uri, UriError};
pub use write::{END_LINE_BYTES_MAX, Report, RequestHead, comment, write_end_line, write_response};
