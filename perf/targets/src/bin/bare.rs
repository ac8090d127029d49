//! The limit: a relay on the node's own ring that neither parses nor encrypts.

fn main() {}
