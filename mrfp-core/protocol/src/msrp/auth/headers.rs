//! The header lines a relay writes.

use std::fmt::Write;

use super::{Algorithm, Authorization, Credentials, response_proof};

/// Appends a WWW-Authenticate line per algorithm, the preferred first (see the module for why there
/// may be two), each complete with its CRLF. `realm` must hold neither quotes nor backslashes.
pub fn challenge(
    lines: &mut String,
    realm: &str,
    nonce: &str,
    stale: bool,
    algorithms: &[Algorithm],
) {
    for algorithm in algorithms {
        let name = algorithm.name();
        let stale = if stale { ", stale=true" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(
            lines,
            "WWW-Authenticate: Digest realm=\"{realm}\", qop=\"auth\", nonce=\"{nonce}\", \
             opaque=\"{OPAQUE}\", algorithm={name}{stale}\r\n"
        );
    }
}

/// Means nothing to us; clients that cannot do without it give it back.
const OPAQUE: &str = "6d737270";

/// Appends the Authentication-Info line of a 200 (RFC 4976 section 9.1: with rspauth, cnonce, nc
/// and qop) and its CRLF. `uri`: as the client used it in its own digest.
pub fn authentication_info(
    lines: &mut String,
    credentials: &Credentials,
    authorization: &Authorization<'_>,
    uri: &[u8],
    next_nonce: &str,
) {
    let proof = response_proof(credentials, authorization, uri);
    let proof = proof.as_ref().map_or("", |proof| proof.as_str());
    // Header lines are printable ASCII or UTF-8 (RFC 4975 section 9), and a client that is neither
    // sees its own cnonce changed and knows that it was wrong.
    let cnonce = String::from_utf8_lossy(authorization.cnonce);
    let nonce_count = authorization.nonce_count;
    // Writing to a String cannot fail.
    let _ = write!(
        lines,
        "Authentication-Info: nextnonce=\"{next_nonce}\", qop=auth, rspauth=\"{proof}\", \
         cnonce=\"{cnonce}\", nc={nonce_count:08x}\r\n"
    );
}
