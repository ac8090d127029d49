//! `a=key-mgmt` (RFC 4567 section 3.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Key management protocol identifier of MIKEY.
pub const PROTOCOL: &str = "mikey";

/// Value of `a=key-mgmt` for this message, without `a=key-mgmt:`.
#[must_use]
pub fn encode(message: &[u8]) -> String {
    format!("{PROTOCOL} {}", STANDARD.encode(message))
}

/// The message in the value of `a=key-mgmt`, with or without the space after the colon. `None`
/// where the value is of another protocol or no base64.
#[must_use]
pub fn decode(value: &str) -> Option<Vec<u8>> {
    let value = value.strip_prefix(' ').unwrap_or(value).trim_end();
    let (protocol, data) = value.split_once(' ')?;
    if protocol != PROTOCOL {
        return None;
    }
    STANDARD.decode(data.trim_start()).ok()
}
