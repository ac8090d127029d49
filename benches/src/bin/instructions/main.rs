//! Runs one case for callgrind to count: `instructions CASE`. Whatever a case has to make first and
//! whatever its peers do is left out of the count (see [`counted`]); it says how much was done.
//!
//! `cargo xtask instructions` runs all of them and compares them with the committed baseline.

use std::process::ExitCode;

mod boundary;
mod codecs;
mod counted;
mod phone;
mod relay;
mod world;

use phone::Say;
use world::{Talk, World};

/// Messages of one case, or deliveries of one message to one member where a room has many.
const MESSAGES: usize = 10_000;
const PAIRS: usize = 10;
/// Only its own speed, and no other's: what most phones have in hardware.
const AES: &str = "PSK-AES128-GCM-SHA256";
/// What the node prefers.
const CHACHA: &str = "ECDHE-PSK-CHACHA20-POLY1305";

type Case = (&'static str, fn() -> usize);

/// Each returns how many messages it has passed on.
const CASES: &[Case] = &[
    ("pair-plain", || pairs(None, Talk::Transparent)),
    ("pair-psk", || pairs(Some(AES), Talk::Transparent)),
    ("pair-psk-chacha", || pairs(Some(CHACHA), Talk::Transparent)),
    ("pair-cpim", || pairs(None, Talk::Wrapped)),
    ("room-fanout", || room(None, 100)),
    ("room-fanout-psk", || room(Some(AES), 100)),
    ("relay-plain", relayed_pairs),
    ("framer", codecs::cut),
    ("cpim-head", codecs::read_heads),
    ("record-open-seal", codecs::seal_and_open),
];

/// Not in the baseline, as they take long; for whoever works on them.
const LARGE_CASES: &[Case] = &[
    ("room-fanout-1000", || room(None, 1_000)),
    ("room-fanout-1000-psk", || room(Some(AES), 1_000)),
];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1);
    if wanted.as_deref() == Some("--list") {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let mut cases = CASES.iter().chain(LARGE_CASES);
    let Some((_, run)) = cases.find(|(name, _)| wanted.as_deref() == Some(*name)) else {
        eprintln!("usage: instructions --list | CASE");
        return ExitCode::FAILURE;
    };
    println!("features {}", features());
    println!("messages {}", run());
    ExitCode::SUCCESS
}

/// What decides which of their variants libraries choose, as this process sees it: valgrind shows a
/// processor of its own.
fn features() -> String {
    macro_rules! detect {
        ($($name:tt)*) => {{
            let mut found = Vec::new();
            $(if std::arch::is_x86_feature_detected!($name) {
                found.push($name);
            })*
            found.join(" ")
        }};
    }
    #[cfg(target_arch = "x86_64")]
    return detect!("sse4.2" "avx" "avx2" "avx512f" "bmi2" "aes" "pclmulqdq" "vaes" "sha");
    #[cfg(not(target_arch = "x86_64"))]
    return std::env::consts::ARCH.to_owned();
}

/// Pairs in which one party talks and the other answers, each in a Context of its own.
fn pairs(suite: Option<&str>, talk: Talk) -> usize {
    let mut world = World::new(suite);
    for pair in 0..PAIRS as u64 {
        let (sender, receiver) = (2 * pair + 1, 2 * pair + 2);
        world.join(pair, sender, talk);
        world.join(pair, receiver, talk);
        world.say(sender, Say::pair(talk));
    }
    world.measure(MESSAGES / PAIRS);
    MESSAGES
}

/// One member talks, the others listen.
fn room(suite: Option<&str>, listeners: usize) -> usize {
    let mut world = World::new(suite);
    for number in 0..=listeners as u64 {
        world.join(0, number + 1, Talk::Wrapped);
    }
    world.say(1, Say::pair(Talk::Wrapped));
    let messages = MESSAGES.max(40 * listeners) / listeners;
    world.measure(messages);
    messages * listeners
}

/// The same between clients of a relay, each with a URI of its own.
fn relayed_pairs() -> usize {
    let mut world = relay::world(2 * PAIRS);
    relay::log_in(&mut world, PAIRS);
    world.measure(MESSAGES / PAIRS);
    MESSAGES
}
