//! OpenSSL's reason codes, as far as they decide what we report.

use openssl::ssl;

/// The first reason OpenSSL's TLS library gave (`openssl/sslerr.h`), 0 if none. Reasons of its
/// cipher library stand before it and say less.
pub(super) fn ssl_reason(error: &ssl::Error) -> i32 {
    error
        .ssl_error()
        .and_then(|stack| stack.errors().iter().find(|error| error.library_code() == ERR_LIB_SSL))
        .map_or(0, openssl::error::Error::reason_code)
}

/// The alert behind a reason: OpenSSL adds the description of a received alert to 1000.
pub(super) fn received_alert(reason: i32) -> Option<u8> {
    u8::try_from(reason.checked_sub(ALERT_REASON_OFFSET)?).ok()
}

const ERR_LIB_SSL: i32 = 20;
const ALERT_REASON_OFFSET: i32 = 1000;

pub(super) const DATA_LENGTH_TOO_LONG: i32 = 146;
pub(super) const DIGEST_CHECK_FAILED: i32 = 149;
pub(super) const ENCRYPTED_LENGTH_TOO_LONG: i32 = 150;
pub(super) const BINDER_DOES_NOT_VERIFY: i32 = 253;
pub(super) const DECRYPTION_FAILED_OR_BAD_RECORD_MAC: i32 = 281;
pub(super) const LENGTH_MISMATCH: i32 = 159;
pub(super) const LENGTH_TOO_SHORT: i32 = 160;
pub(super) const NO_SHARED_CIPHER: i32 = 193;
pub(super) const NO_SUITABLE_GROUPS: i32 = 295;
pub(super) const NO_SUITABLE_KEY_SHARE: i32 = 101;
pub(super) const NO_SUITABLE_SIGNATURE_ALGORITHM: i32 = 118;
pub(super) const PACKET_LENGTH_TOO_LONG: i32 = 198;
pub(super) const PEER_DID_NOT_RETURN_A_CERTIFICATE: i32 = 199;
pub(super) const UNEXPECTED_MESSAGE: i32 = 244;
pub(super) const UNEXPECTED_RECORD: i32 = 245;
pub(super) const UNSUPPORTED_PROTOCOL: i32 = 258;
pub(super) const UNSUPPORTED_SSL_VERSION: i32 = 259;
pub(super) const VERSION_TOO_HIGH: i32 = 166;
pub(super) const VERSION_TOO_LOW: i32 = 396;
pub(super) const WRONG_SSL_VERSION: i32 = 266;
pub(super) const WRONG_VERSION_NUMBER: i32 = 267;
