//! The MSRP relay (RFC 4976) on a simulated network.

mod auth;
mod cases;
mod failure;
mod paths;
mod pressure;
mod world;

#[path = "../common/mod.rs"]
mod common;
