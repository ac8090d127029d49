//! The MRFC: the control plane.
#![forbid(unsafe_code)]

pub mod kms;
pub mod mikey;
pub mod mrfc;
pub mod sdp;
pub mod sip;
