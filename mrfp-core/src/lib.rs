//! The MRFP: the media plane.
#![forbid(unsafe_code)]

pub mod metrics;
pub mod mp;

pub use mrfp_protocol::tls::Psk;
