//! The MSRP relay (RFC 4976).
//!
//! A client authenticates with AUTH and is given a URI of ours (Use-Path): a *registration*. What
//! comes in for that URI goes to the client's connection, what the client sends through it goes
//! wherever the To-Path says, and nothing else is relayed. The URI names this shard's own relay
//! port, so whatever is for it arrives where its client is, and no message crosses shards.
//!
//! # The walk of a relayed message
//!
//! `piece`: a head is looked at. AUTH for us goes to `auth`; a response is matched with what was
//! sent (`response`); every other request needs a `route`: ingress, To-Path and From-Path decide
//! once where it goes and what its path lines become, and the result is kept. `whole` passes a SEND
//! on that has come in one piece, `forward` the pieces of all others as they come, under transaction
//! identifiers of ours, each SEND noted in `outstanding` until its answer: an entry in a queue, no
//! allocation. What fails later becomes a REPORT (`report`). `outbound` makes and shares the connections to other hosts, `pressure` holds back
//! whoever feeds a connection that lags, `timers` ends what has lasted too long.

mod auth;
mod config;
mod forward;
mod link;
mod outbound;
mod outstanding;
mod path;
mod piece;
mod pressure;
mod registration;
mod report;
mod response;
mod route;
mod timers;
mod whole;

use std::collections::HashMap;
use std::hash::Hasher;

use mrfp_io::Key;
use mrfp_protocol::msrp::auth::Nonces;
use siphasher::sip128::{Hasher128, SipHasher24};

pub(crate) use config::PROBATION_NS;
pub use config::{RelayConfig, RelayLimits, RelayUser};
pub(crate) use link::Link;

use crate::table::Table;
use auth::Users;
use config::{FAILURES_MAX, NONCE_LIFETIME_SECONDS};
use link::Target;
use registration::Registration;
use route::Route;

/// What a shard's relay knows beside its connections.
pub(crate) struct Relay {
    config: RelayConfig,
    /// The shard's own relay port, named in Use-Path.
    port: u16,
    users: Users,
    nonces: Nonces,
    secret: (u64, u64),
    /// URIs made so far.
    issued: u64,
    /// Chunks that have come in so far.
    chunks: u64,
    registrations: Table<Registration>,
    by_session_id: HashMap<Vec<u8>, Key>,
    routes: Table<Route>,
    route_by_paths: HashMap<u128, Key>,
    /// Connections of ours, by where they lead.
    outbound: HashMap<Target, Key>,
    /// Connections of ours that have an address and no socket yet; the shard starts them.
    pub(crate) to_connect: Vec<Key>,
}

impl Relay {
    /// `port`: of the listener that is this shard's alone. `seed`: random and secret.
    pub(crate) fn new(config: RelayConfig, port: u16, seed: [u8; 32]) -> Self {
        let mut derived = [[0; 32]; 2];
        for (key, purpose) in derived.iter_mut().zip(0u8..) {
            for (half, bytes) in key.chunks_exact_mut(16).enumerate() {
                let mut hasher = SipHasher24::new_with_key(
                    seed.first_chunk().unwrap_or_else(|| unreachable!("32 bytes hold 16")),
                );
                hasher.write(&seed[16..]);
                hasher.write(&[purpose, half as u8]);
                bytes.copy_from_slice(&hasher.finish128().as_u128().to_le_bytes());
            }
        }
        let [nonce_key, secret] = derived;
        let word = |at: usize| secret[at..at + 8].iter().fold(0, |w, &b| w << 8 | u64::from(b));
        Self {
            users: Users::new(&config),
            nonces: Nonces::new(nonce_key, NONCE_LIFETIME_SECONDS),
            secret: (word(0), word(8)),
            issued: 0,
            chunks: 0,
            registrations: Table::new(config.limits.registrations_max),
            by_session_id: HashMap::new(),
            routes: Table::new(config.limits.routes_max),
            route_by_paths: HashMap::new(),
            outbound: HashMap::new(),
            to_connect: Vec::new(),
            config,
            port,
        }
    }

    /// Hash of the parts under a key nobody else knows.
    fn keyed_hash<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
        let mut hasher = SipHasher24::new_with_keys(self.secret.0, self.secret.1);
        for part in parts {
            hasher.write(part);
            // No URI holds a control character.
            hasher.write(b"\n");
        }
        hasher.finish128().as_u128()
    }
}
