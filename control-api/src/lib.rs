//! The MRFC: the control plane.
#![forbid(unsafe_code)]

pub mod border;
pub mod cli;
pub mod config;
mod deadlines;
pub mod http;
pub mod inspect;
pub mod kms;
pub mod mikey;
pub mod mrfc;
pub mod node;
mod random;
pub mod sdp;
pub mod sip;
pub mod systemd;
