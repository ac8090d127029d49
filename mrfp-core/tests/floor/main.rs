//! The floor control server, spoken to in BFCP: what participants are answered and told, what the
//! control plane sees and decides, and what holds whatever anybody does.
//!
//! - [`world`]: a server, its users, and what was said to them, as text;
//! - [`requests`], [`chairs`], [`control`]: who gets a floor;
//! - [`refusals`]: every error, in the order of the checks;
//! - [`presence`]: connections lost and found again;
//! - [`datagrams`]: BFCP over UDP;
//! - [`texts`]: long names and reasons, split and never cut;
//! - [`model`]: chance, held against what must always be so;
//! - [`hostile`]: bytes nobody should send;
//! - [`memory`]: what it takes.
//!
//! `SEEDS=100000 cargo test -p mrfp-core --test floor model` takes a longer look, `SEED=42` replays one.

#![allow(unreachable_pub, reason = "a test binary is no library")]

mod chairs;
mod control;
mod datagrams;
mod hostile;
mod memory;
mod model;
mod presence;
#[path = "../model/random.rs"]
mod random;
mod refusals;
mod requests;
#[path = "../model/seeds.rs"]
mod seeds;
mod shown;
mod texts;
mod world;
