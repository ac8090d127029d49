//! BFCP on a shard: how participants come to their floors, and what those mean for the messages of a
//! room.
#![allow(unreachable_pub, reason = "one binary of several modules")]

mod actions;
#[path = "../../protocol/tests/tls_common/authority.rs"]
mod authority;
mod certificate;
mod chance;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod datagrams;
mod hostile;
mod keys;
mod moderation;
mod phone;
mod plain;
mod presence;
mod pressure;
mod ring;
#[path = "../room_support/mod.rs"]
mod room_support;
#[path = "../floor/shown.rs"]
mod shown;
