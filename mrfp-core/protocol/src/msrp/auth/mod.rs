//! HTTP Digest for the AUTH method (RFC 4976 section 9.1, RFC 7616), the server's side: challenges
//! with stateless nonces, checking of the Authorization header, the Authentication-Info of a 200.
//!
//! No sockets, no clock, no randomness: time and secrets are arguments.
//!
//! # What is offered and taken
//!
//! - One challenge per algorithm the stored credentials serve, SHA-256 before MD5, each in a
//!   WWW-Authenticate header of its own. The grammar of RFC 4976 section 7 knows one challenge per
//!   header and says nothing about a second header; RFC 7616 section 3.7 wants one header each, the
//!   preferred first. Clients of the field get along: who keeps the last header of a name sees MD5,
//!   who keeps the first and ignores `algorithm` answers with MD5 and without an `algorithm`, which
//!   means MD5. An operator whose clients trip over a second challenge stores MD5 hashes only.
//! - `qop="auth"` always, auth-int and the `-sess` algorithms never (RFC 4976 section 9.1).
//! - `opaque` always: RFC 7616 leaves it optional, but there are clients that cannot do without.
//! - Authorization with `uri` (RFC 7616) or without (RFC 4976): the digest covers the rightmost URI
//!   of the To-Path, and a `uri` that names another is refused.

mod authorization;
mod credentials;
mod digest;
mod headers;
mod nonce;

pub use authorization::{Authorization, AuthorizationError};
pub use credentials::{Algorithm, Credentials};
pub use digest::{Proof, is_valid, response_proof};
pub use headers::{authentication_info, challenge};
pub use nonce::{NonceCount, NonceState, Nonces};
