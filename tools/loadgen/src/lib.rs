//! A fleet of UEs that takes a media node to its limit and checks what it delivers.
#![forbid(unsafe_code)]

pub mod expectation;
pub mod media;
pub mod signalling;
