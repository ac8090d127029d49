//! What the code points of the IANA MIKEY registries mean (RFC 3830 section 6 and its successors).

/// Name of a code point, `None` where this table has none.
pub(super) type Name = Option<&'static str>;

pub(super) fn data_type(code: u64) -> Name {
    pick(code, DATA_TYPES)
}

pub(super) fn payload(code: u64) -> Name {
    pick(code, PAYLOADS)
}

pub(super) fn prf(code: u64) -> Name {
    pick(code, &["MIKEY-1 (HMAC-SHA-1)", "PRF-HMAC-SHA-256"])
}

pub(super) fn map_type(code: u64) -> Name {
    pick(code, &["SRTP-ID", "Empty map", "GENERIC-ID"])
}

pub(super) fn encryption(code: u64) -> Name {
    pick(code, &["NULL", "AES-CM-128", "AES-KW-128", "AES-CM-256"])
}

pub(super) fn mac(code: u64) -> Name {
    pick(code, &["NULL", "HMAC-SHA-1-160", "HMAC-SHA-256-256"])
}

pub(super) fn hash(code: u64) -> Name {
    pick(code, &["SHA-1", "MD5", "SHA-256"])
}

pub(super) fn timestamp_type(code: u64) -> Name {
    pick(code, &["NTP-UTC", "NTP", "COUNTER", "NTP-UTC-32"])
}

pub(super) fn time_role(code: u64) -> Name {
    pick(code, &["", "TRi, time of issue", "TRs, start", "TRe, end", "TRr, rekeying interval"])
}

pub(super) fn id_type(code: u64) -> Name {
    pick(code, &["NAI", "URI", "byte string"])
}

pub(super) fn id_role(code: u64) -> Name {
    pick(code, ID_ROLES)
}

pub(super) fn rand_role(code: u64) -> Name {
    pick(code, &["", "RANDRi", "RANDRr", "RANDRkms"])
}

pub(super) fn certificate_type(code: u64) -> Name {
    pick(code, &["X.509v3", "X.509v3 URL", "X.509v3 for signatures", "X.509v3 for encryption"])
}

pub(super) fn signature_type(code: u64) -> Name {
    pick(code, &["RSA PKCS#1 v1.5", "RSA-PSS", "ECCSI"])
}

pub(super) fn envelope_cache(code: u64) -> Name {
    pick(code, &["no cache", "cache", "cache for this CSB"])
}

pub(super) fn key_type(code: u64) -> Name {
    pick(code, &["TGK", "TGK+SALT", "TEK", "TEK+SALT", "GTGK", "GTGK+SALT", "MPK", "K_PR"])
}

pub(super) fn extension(code: u64) -> Name {
    pick(code, EXTENSIONS)
}

pub(super) fn error(code: u64) -> Name {
    pick(code, ERRORS)
}

pub(super) fn ticket_type(code: u64) -> Name {
    match code {
        1 => Some("MIKEY base ticket"),
        2 => Some("3GPP base ticket"),
        61_440..=65_534 => Some("private use"),
        _ => None,
    }
}

/// IANA has registered no value for TLS; `tls` are those that are taken for it here.
pub(super) fn protection_type(code: u64, tls: &[u8]) -> Name {
    if tls.iter().any(|its| u64::from(*its) == code) {
        return Some("TLS, as configured");
    }
    match code {
        0 => Some("SRTP"),
        1 => Some("TESLA"),
        241..=255 => Some("private use, not configured as TLS"),
        _ => Some("unassigned, not configured as TLS"),
    }
}

/// Letter, mask in the 17 bits from D on, and meaning (RFC 6043 section 6.10).
pub(super) const FLAGS: &[(&str, u32, &str)] = &[
    ("D", 1 << 16, "made by the KMS, not by the initiator"),
    ("E", 1 << 15, "the responder must have it resolved"),
    ("F", 1 << 14, "TRANSFER_RESP is sent"),
    ("G", 1 << 13, "the responder generates RANDRr"),
    ("H", 1 << 12, "RANDRi enters key derivation"),
    ("I", 1 << 11, "keys are forked per responder"),
    ("J", 1 << 10, "may be used again"),
    ("K", 1 << 9, "the KMS changed what was asked for"),
    ("L", 1 << 8, "the initiator may send session keys"),
    ("M", 1 << 7, "the responder may send session keys"),
    ("N", 1 << 6, "a plain initiator of RFC 6043 can use it"),
    ("O", 1 << 5, "a plain responder of RFC 6043 can process it"),
];

/// What one flag demands of another: (flags, set or not, then), and how to say it.
pub(super) const FLAG_RULES: &[(u32, bool, u32, &str)] = &[
    (1 << 16, false, 1 << 8, "without D, L must be set"),
    (1 << 13, true, 1 << 14, "G needs F"),
    (1 << 13, false, 1 << 12, "without G, H must be set"),
    (1 << 11, true, 1 << 15, "I needs E"),
    (1 << 9, true, 1 << 16, "K needs D"),
    (1 << 7, true, 1 << 14, "M needs F"),
];

fn pick(code: u64, names: &[&'static str]) -> Name {
    let name = usize::try_from(code).ok().and_then(|index| names.get(index)).copied();
    name.filter(|name| !name.is_empty())
}

const DATA_TYPES: &[&str] = &[
    "Pre-shared (I_MESSAGE)",
    "Pre-shared verification (R_MESSAGE)",
    "Public key (I_MESSAGE)",
    "Public key verification (R_MESSAGE)",
    "Diffie-Hellman initiator",
    "Diffie-Hellman responder",
    "Error",
    "DHHMAC initiator",
    "DHHMAC responder",
    "RSA-R I_MESSAGE",
    "RSA-R R_MESSAGE",
    "REQUEST_INIT_PSK",
    "REQUEST_INIT_PK",
    "REQUEST_RESP",
    "TRANSFER_INIT",
    "TRANSFER_RESP",
    "RESOLVE_INIT_PSK",
    "RESOLVE_INIT_PK",
    "RESOLVE_RESP",
    "REQUEST_KEY_PSK (IBAKE)",
    "REQUEST_KEY_PKE (IBAKE)",
    "REQUEST_KEY_RESP (IBAKE)",
    "I_MESSAGE_1 (IBAKE)",
    "R_MESSAGE_1 (IBAKE)",
    "I_MESSAGE_2 (IBAKE)",
    "R_MESSAGE_2 (IBAKE)",
    "SAKKE I_MESSAGE",
];

const PAYLOADS: &[&str] = &[
    "Last payload",
    "KEMAC",
    "PKE",
    "DH",
    "SIGN",
    "T",
    "ID",
    "CERT",
    "CHASH",
    "V",
    "SP",
    "RAND",
    "ERR",
    "TR",
    "IDR",
    "RANDR",
    "TP",
    "TICKET",
    "",
    "",
    "Key data",
    "General Extension",
    "IBAKE",
    "ESK",
    "SK",
    "ECCPT",
    "SAKKE",
];

const ID_ROLES: &[&str] = &[
    "",
    "IDRi, initiator",
    "IDRr, responder",
    "IDRkms, key management service",
    "IDRpsk, names a pre-shared key",
    "IDRapp, application",
    "IDRkmsi, KMS of the initiator",
    "IDRkmsr, KMS of the responder",
    "hashed identity (3GPP)",
    "hashed identity (3GPP)",
];

const EXTENSIONS: &[&str] = &[
    "Vendor ID",
    "SDP IDs",
    "TESLA I-Key",
    "Key ID",
    "CSB_ID",
    "OMA BCAST",
    "SAKKE-to-self",
    "3GPP key parameters",
];

const ERRORS: &[&str] = &[
    "authentication failure",
    "invalid timestamp",
    "invalid PRF function",
    "invalid MAC algorithm",
    "invalid encryption algorithm",
    "invalid hash function",
    "invalid DH group",
    "invalid ID",
    "invalid certificate",
    "invalid security policy",
    "invalid security policy parameters",
    "invalid data type",
    "unspecified error",
    "unsupported message type",
    "invalid ticket: ticket type not supported",
    "invalid ticket policy parameters",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_codes() {
        assert_eq!(data_type(14), Some("TRANSFER_INIT"));
        assert_eq!(data_type(26), Some("SAKKE I_MESSAGE"));
        assert_eq!(payload(17), Some("TICKET"));
        assert_eq!(payload(18), None);
        assert_eq!(payload(21), Some("General Extension"));
        assert_eq!(id_role(4), Some("IDRpsk, names a pre-shared key"));
        assert_eq!(error(15), Some("invalid ticket policy parameters"));
        assert_eq!(time_role(0), None);
    }
}
