//! MIKEY messages: every field with its place, what the node makes of them, and what keys show.

mod input;
mod keys;
mod names;
mod payloads;
mod proof;
mod reading;
mod render;
mod rfc3830;
mod transfer;
mod update;
mod walk;

use std::io::{self, Write};

use self::input::Found;
use self::proof::{Conversation, Finding, Outcome};
use self::walk::{Dialect, Walk};
use crate::mikey::codec;

pub use self::keys::{Keys, Purpose};

/// How messages are told.
pub struct MikeyOptions<'a> {
    /// Keys to try.
    pub keys: &'a Keys,
    /// Protection types that stand for TLS.
    pub tls: &'a [u8],
    /// Print keys, too.
    pub show_secrets: bool,
    /// For programs.
    pub json: bool,
    /// With the colours of a terminal.
    pub colour: bool,
}

/// Everything that is told of one message.
struct Told {
    found: Found,
    walk: Walk,
    /// What the node's parser has against it.
    refusal: Option<String>,
    findings: Vec<Finding>,
}

/// Writes what is in the messages of these inputs, each with its name. `false`: one of them is no
/// whole message, or a check failed.
///
/// # Errors
/// Those of `out`; an input without a message.
pub fn mikey(
    inputs: &[(String, Vec<u8>)],
    options: &MikeyOptions<'_>,
    out: &mut impl Write,
) -> io::Result<bool> {
    let mut conversation = Conversation::new(options.keys, options.show_secrets);
    let mut told = Vec::new();
    for (name, input) in inputs {
        let found = input::find(input, name).map_err(io::Error::other)?;
        told.extend(found.into_iter().map(|found| tell(found, options, &mut conversation)));
    }
    if options.json {
        render::json(&told, out)?;
    } else {
        render::text(&told, options, out)?;
    }
    Ok(told.iter().all(Told::is_well))
}

fn tell(found: Found, options: &MikeyOptions<'_>, conversation: &mut Conversation<'_>) -> Told {
    let walk = walk::walk(&found.bytes, Dialect { tls: options.tls });
    let refusal = codec::parse(&found.bytes).err().map(|error| error.to_string());
    // Of a message that cannot be read to its end nobody knows what its MAC would cover.
    let readable = walk.broken.is_empty() && !options.keys.is_empty();
    let findings =
        if readable { conversation.examine(&found.bytes, &walk.seen) } else { Vec::new() };
    Told { found, walk, refusal, findings }
}

impl Told {
    fn is_well(&self) -> bool {
        let wrong = |finding: &Finding| finding.outcome == Outcome::Wrong;
        self.walk.broken.is_empty() && !self.findings.iter().any(wrong)
    }
}
