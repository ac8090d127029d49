//! CPIM (RFC 3862): as much of the head as switching messages needs.
//!
//! `head.rs` reads the two header blocks in front of the content: [`Head::parse`] borrows them and
//! says where the content begins. `address.rs` reads the value of From and To, `write.rs` puts a
//! head in front of content that had none, `content.rs` tells what kind of content it is.
//! `pattern.rs` recognises a head that says what the last one said.

mod address;
mod content;
mod head;
mod pattern;
mod write;

pub use address::Address;
pub use content::{ContentClass, accepts, is_cpim};
pub use head::{HEAD_BYTES_MAX, Head, Malformed};
pub use pattern::Pattern;
pub use write::Wrapper;
