//! The MRFP: the media plane of the node, thread per core.
//!
//! A *shard* ([`Shard`]) is one pinned thread with one ring and one set of pools; shards share
//! nothing. A Context (a conference) lives on one shard with all its Terminations, and the port in
//! the SDP is the shard's, so a connection arrives where its Context is and no data crosses cores.
//!
//! # A turn
//!
//! `shard` runs it: drain commands (bounded), match completions (bounded), look at timers, attend
//! to the connections that were touched (at most one send each, carrying all the turn has
//! produced), wait. Everything that needs no driver is in `plane` and the modules around it, so
//! the whole logic runs on a simulated driver in the tests of this crate.
//!
//! # A byte's way
//!
//! `receive`: the first byte tells TLS from MSRP; a handshake takes whole records until it yields
//! a session; records are opened in the receive buffer; the framer cuts pieces. `session`: whose
//! they are. `whole`: a SEND that is all there is passed on at once; `switch`: any other piece by piece; `delivery`: one copy per receiver into
//! its `egress`; `outstanding`: until it is answered. The shard seals what a turn has gathered as
//! one record when it sends it. What is incomplete waits in a `carry` buffer;
//! an idle connection owns none.
//!
//! `rekeying`: a session goes over to a connection under a new key.
//!
//! `relay` does the same between connections that belong to no Context (RFC 4976).
//! `gateway` passes bytes between the two connections of a Context of its own (TS 23.334).
//! [`floor`] decides who may speak (RFC 8855); `floor_control` is between it and the connections.
//!
//! # Control
//!
//! [`mp`] is the only door. [`Mrfp::start`] returns one [`Port`] per shard.
#![forbid(unsafe_code)]

mod answer;
mod back_pressure;
mod carry;
mod command;
mod config;
mod connection;
mod context;
mod delivery;
mod egress;
pub mod floor;
mod floor_control;
mod gateway;
mod housekeeping;
mod identifiers;
mod incoming;
mod message;
pub mod metrics;
pub mod mp;
mod outstanding;
mod plane;
mod port;
mod receive;
mod rekeying;
mod relay;
mod request;
mod room;
mod session;
mod shard;
mod statistics;
mod switch;
mod table;
mod termination;
mod whole;

pub use config::{Config, GatewayConfig, GatewayProfile, Interface, Limits, ShardConfig};
pub use gateway::{Certificates, GatewayParts};
pub use mrfp_protocol::tls::Psk;
pub use port::{Mrfp, Port, StartError};
pub use relay::{RelayConfig, RelayLimits, RelayUser};
pub use shard::{RelayParts, Shard, ShardParts};
