//! The wire formats of the media plane as pure state machines: no sockets, no clock, no randomness
//! of their own. Bytes go in, events and bytes come out.
#![forbid(unsafe_code)]

pub mod bfcp;
pub mod cpim;
pub mod msrp;
pub mod tls;
pub mod udptl;
pub mod user_uri;
