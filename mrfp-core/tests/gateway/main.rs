//! The gateway on the simulated driver: two sides, and peers that speak TCP and real TLS to each.

#[path = "../common/mod.rs"]
mod common;
mod world;

mod iwf;
mod plain;
mod secured;
