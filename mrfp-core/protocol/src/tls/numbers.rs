//! The numbers of TLS that more than one of its parts reads or writes (RFC 5246 appendix A, RFC 8446
//! appendix B).

pub(super) const CONTENT_CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const CONTENT_ALERT: u8 = 21;
pub(super) const CONTENT_HANDSHAKE: u8 = 22;
pub(super) const CONTENT_APPLICATION_DATA: u8 = 23;

pub(super) const MESSAGE_HELLO_REQUEST: u8 = 0;
pub(super) const MESSAGE_CLIENT_HELLO: u8 = 1;
pub(super) const MESSAGE_SERVER_HELLO: u8 = 2;
pub(super) const MESSAGE_NEW_SESSION_TICKET: u8 = 4;
pub(super) const MESSAGE_SERVER_KEY_EXCHANGE: u8 = 12;
pub(super) const MESSAGE_SERVER_HELLO_DONE: u8 = 14;
pub(super) const MESSAGE_CLIENT_KEY_EXCHANGE: u8 = 16;
pub(super) const MESSAGE_FINISHED: u8 = 20;
pub(super) const MESSAGE_KEY_UPDATE: u8 = 24;

pub(super) const LEVEL_WARNING: u8 = 1;
pub(super) const LEVEL_FATAL: u8 = 2;

pub(super) const ALERT_CLOSE_NOTIFY: u8 = 0;
pub(super) const ALERT_UNEXPECTED_MESSAGE: u8 = 10;
pub(super) const ALERT_BAD_RECORD_MAC: u8 = 20;
pub(super) const ALERT_RECORD_OVERFLOW: u8 = 22;
pub(super) const ALERT_BAD_CERTIFICATE: u8 = 42;
pub(super) const ALERT_ILLEGAL_PARAMETER: u8 = 47;
pub(super) const ALERT_DECODE_ERROR: u8 = 50;
pub(super) const ALERT_DECRYPT_ERROR: u8 = 51;
pub(super) const ALERT_PROTOCOL_VERSION: u8 = 70;
pub(super) const ALERT_INTERNAL_ERROR: u8 = 80;
pub(super) const ALERT_USER_CANCELED: u8 = 90;
pub(super) const ALERT_NO_RENEGOTIATION: u8 = 100;
