//! The gateway on the simulated driver: two sides, and peers that speak TCP and real TLS to each.

#[path = "../common/mod.rs"]
mod common;
mod stock;
mod world;

mod bulk;
mod commands;
mod datagrams;
mod hostile;
mod iwf;
mod plain;
mod pressure;
mod secured;
