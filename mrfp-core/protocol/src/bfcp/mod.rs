//! BFCP (RFC 8855, and RFC 4582 as its version 1): messages in, borrowed; messages out, into a
//! buffer of the caller.
//!
//! The way in: over TCP [`Framer`] cuts messages from the stream, over UDP a datagram is one, or a
//! fragment for [`Reassembly`]. [`Header::parse`] reads the header, [`Header::content`] what follows
//! it, [`Payload::parse`] checks the attributes once, groups included; from then on reading them
//! ([`Attributes`], [`Value`]) cannot fail. [`ClientMessage`] is the grammar of what a server is
//! told. These are separate steps since a server answers what is wrong with each of them with an
//! error of its own: version (12), length (13), primitive (3), format (10), attributes (4).
//!
//! The way out: [`Writer`] puts attributes and groups and keeps both to the 255 bytes that their
//! length can express; what does not fit is refused whole and belongs into another group.
//! [`Fragments`] cuts a message to datagrams.
//!
//! The codes and their names are in `code.rs`, from one list each.

mod attribute;
mod client;
mod code;
mod fragment;
mod header;
mod write;

pub use attribute::{
    Attribute, Attributes, Group, Malformed, MalformedReason, Payload, UnknownAttributes, Value,
};
pub use client::{ClientMessage, ClientMessageError, FloorIds};
pub use code::{AttributeType, ErrorCode, Primitive, Priority, RequestStatus};
pub use fragment::{Fragments, Inconsistent, Reassembly};
pub use header::{
    FRAGMENT_HEADER_BYTES, Fragment, Framer, HEADER_BYTES, Header, MESSAGE_BYTES_MAX, TooLong,
    Transport,
};
pub use write::{ERROR_BYTES_MAX, GROUP_BYTES_MAX, Overflow, TEXT_BYTES_MAX, Writer, write_error};
