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
mod watch;

/// Seeds of an ordinary run: a few seconds.
const SEEDS: u64 = 120;

#[test]
fn every_byte_of_a_room_arrives_once_or_the_sender_knows() {
    for_each_seed("every_byte_of_a_room_arrives_once_or_the_sender_knows", conference::run);
}

/// Runs the seeds that the environment asks for; says how to replay those that fail.
fn for_each_seed(test: &str, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse().expect(name));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let failed: Vec<u64> =
        seeds.filter(|&seed| std::panic::catch_unwind(|| run(seed)).is_err()).collect();
    for seed in &failed {
        eprintln!("replay with: SEED={seed} cargo test -p mrfp-core --test model {test}");
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
}
