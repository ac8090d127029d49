//! The delivery contract, held against chance: members, messages, chunk sizes, and everything that may
//! befall them are drawn from a seed; a model knows what every receiver must hold in the end and what
//! every sender must have been told.
//!
//! - [`message`]: what a member says, cut into chunks;
//! - [`watch`]: what RFC 4975 demands of everything the node sends, and the messages put together;
//! - [`party`]: a member: what it sends, how it answers, what befalls it;
//! - [`conference`]: one run from its seed;
//! - [`oracle`]: the judgement.
//!
//! `SEEDS=10000 cargo test -p mrfp-core --test model` takes a longer look, `SEED=42` replays one.

#![allow(unreachable_pub, reason = "a test binary is no library")]

#[path = "../common/mod.rs"]
mod common;
mod conference;
mod message;
mod oracle;
mod party;
mod random;
mod seeds;
mod watch;

/// Seeds of an ordinary run: a few seconds.
const SEEDS: u64 = 80;

#[test]
fn every_byte_of_a_room_arrives_once_or_the_sender_knows() {
    let test = "--test model every_byte_of_a_room_arrives_once_or_the_sender_knows";
    seeds::for_each_seed(SEEDS, test, conference::run);
}
