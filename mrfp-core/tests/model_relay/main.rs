//! The delivery contract of the relay, held against chance: clients of two relays that know each other
//! by address, a peer outside, a target that refuses and one that is silent, chunks of every size,
//! stalls, broken connections, also the one between the relays.
//!
//! `SEEDS=10000 cargo test -p mrfp-core --test model_relay` takes a longer look, `SEED=42` replays one.
#![allow(unreachable_pub, reason = "a test binary is no library")]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "shared with the model of a node")]
#[path = "../model/message.rs"]
mod message;
mod network;
mod oracle;
#[path = "../model/random.rs"]
mod random;
mod relays;
#[path = "../model/seeds.rs"]
mod seeds;
#[allow(dead_code, reason = "shared with the model of a node")]
#[path = "../model/watch.rs"]
mod watch;
#[allow(dead_code, reason = "the relay's own tests use all of it")]
#[path = "../relay/world.rs"]
mod world;

/// Seeds of an ordinary run: a few seconds.
const SEEDS: u64 = 60;

#[test]
fn every_byte_arrives_through_two_relays_or_the_sender_knows() {
    let test = "--test model_relay every_byte_arrives_through_two_relays_or_the_sender_knows";
    seeds::for_each_seed(SEEDS, test, relays::run);
}
