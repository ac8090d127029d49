//! The media plane without signalling: Terminations with keys that the load generator knows.

fn main() {}
