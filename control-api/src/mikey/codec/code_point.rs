//! Code points of the IANA MIKEY registries that this implementation names.

/// Next payload: there is none.
pub const LAST: u8 = 0;
/// KEMAC.
pub const KEMAC: u8 = 1;
/// Envelope (PKE).
pub const PKE: u8 = 2;
/// Diffie-Hellman value.
pub const DH: u8 = 3;
/// Signature; always the last payload and without a next-payload byte.
pub const SIGN: u8 = 4;
/// Timestamp.
pub const T: u8 = 5;
/// Identity of RFC 3830.
pub const ID: u8 = 6;
/// Certificate.
pub const CERT: u8 = 7;
/// Certificate hash.
pub const CHASH: u8 = 8;
/// Verification message.
pub const V: u8 = 9;
/// Security policy.
pub const SP: u8 = 10;
/// RAND of RFC 3830.
pub const RAND: u8 = 11;
/// Error.
pub const ERR: u8 = 12;
/// Timestamp with a role (RFC 6043 section 6.5).
pub const TR: u8 = 13;
/// Identity with a role (RFC 6043 section 6.6).
pub const IDR: u8 = 14;
/// RAND with a role (RFC 6043 section 6.8).
pub const RANDR: u8 = 15;
/// Ticket policy.
pub const TP: u8 = 16;
/// Ticket.
pub const TICKET: u8 = 17;
/// Key data, only inside a KEMAC.
pub const KEY_DATA: u8 = 20;
/// General extension.
pub const GENERAL_EXTENSION: u8 = 21;

/// CS ID map type: SRTP-ID.
pub const MAP_SRTP_ID: u8 = 0;
/// CS ID map type: empty map (RFC 4563).
pub const MAP_EMPTY: u8 = 1;
/// CS ID map type: GENERIC-ID (RFC 6043 section 6.1.1).
pub const MAP_GENERIC_ID: u8 = 2;

/// PRF func: MIKEY-1, HMAC-SHA-1.
pub const PRF_MIKEY_1: u8 = 0;
/// PRF func: PRF-HMAC-SHA-256.
pub const PRF_HMAC_SHA_256: u8 = 1;

/// Encryption: none.
pub const ENCRYPTION_NULL: u8 = 0;
/// Encryption: AES-CM with a 128-bit key.
pub const ENCRYPTION_AES_CM_128: u8 = 1;
/// Encryption: AES key wrap with a 128-bit key.
pub const ENCRYPTION_AES_KW_128: u8 = 2;
/// Encryption: AES-CM with a 256-bit key.
pub const ENCRYPTION_AES_CM_256: u8 = 3;

/// TR role: time of issue.
pub const ROLE_ISSUED: u8 = 1;
/// TR role: start of validity.
pub const ROLE_START: u8 = 2;
/// TR role: end of validity.
pub const ROLE_END: u8 = 3;

/// TR role: longest time between two rekeyings.
pub const ROLE_REKEYING: u8 = 4;

/// ID type: NAI.
pub const ID_NAI: u8 = 0;
/// ID type: URI.
pub const ID_URI: u8 = 1;
/// ID type: byte string.
pub const ID_BYTES: u8 = 2;

/// IDR role: initiator.
pub const ROLE_INITIATOR: u8 = 1;
/// IDR role: responder.
pub const ROLE_RESPONDER: u8 = 2;
/// IDR and RANDR role: the KMS.
pub const ROLE_KMS: u8 = 3;
/// IDR role: names a pre-shared key.
pub const ROLE_PRE_SHARED_KEY: u8 = 4;
/// IDR role: an application.
pub const ROLE_APPLICATION: u8 = 5;

/// Key data type: TGK.
pub const KEY_TGK: u8 = 0;
/// Key data type: TGK with salt.
pub const KEY_TGK_SALT: u8 = 1;
/// Key data type: TEK.
pub const KEY_TEK: u8 = 2;
/// Key data type: TEK with salt.
pub const KEY_TEK_SALT: u8 = 3;
/// Key data type: GTGK.
pub const KEY_GTGK: u8 = 4;
/// Key data type: GTGK with salt.
pub const KEY_GTGK_SALT: u8 = 5;
/// Key data type: MPK.
pub const KEY_MPK: u8 = 6;

/// Certificate type: X.509v3.
pub const CERTIFICATE_X509: u8 = 0;
/// Signature type: RSA, PKCS #1 version 1.5.
pub const SIGNATURE_RSA_PKCS1: u8 = 0;
/// Signature type: RSA-PSS.
pub const SIGNATURE_RSA_PSS: u8 = 1;
/// Hash function: SHA-256.
pub const HASH_SHA_256: u8 = 2;

/// General extension: the protocol list offered in SDP (RFC 4567 section 4.1).
pub const EXTENSION_SDP_IDS: u8 = 1;

/// Ticket type: MIKEY base ticket.
pub const TICKET_MIKEY_BASE: u16 = 1;
/// Ticket type: 3GPP base ticket.
pub const TICKET_3GPP_BASE: u16 = 2;
