//! The cipher suites we know: what a handshake may negotiate and how its records are protected.

use aws_lc_rs::{aead, hkdf, hmac};

/// One cipher suite, TLS 1.2 or TLS 1.3.
pub(super) struct Suite {
    /// OpenSSL's name for it.
    pub(super) name: &'static str,
    /// As IANA has assigned it.
    pub(super) number: u16,
    pub(super) version: Version,
    pub(super) protection: Protection,
    /// The PRF's (TLS 1.2) or HKDF's (TLS 1.3) hash.
    pub(super) hash: Hash,
    pub(super) exchange: KeyExchange,
}

/// What a handshake of TLS 1.2 agrees on its keys with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyExchange {
    /// The pre-shared key alone.
    Psk,
    /// Finite-field Diffie-Hellman with it.
    DhePsk,
    /// Diffie-Hellman on an elliptic curve with it.
    EcdhePsk,
    /// A suite of certificates, or one of TLS 1.3, which leaves this to extensions.
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hash {
    Sha256,
    Sha384,
}

impl Hash {
    pub(super) fn hmac_algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
        }
    }

    pub(super) fn hkdf_algorithm(self) -> hkdf::Algorithm {
        match self {
            Self::Sha256 => hkdf::HKDF_SHA256,
            Self::Sha384 => hkdf::HKDF_SHA384,
        }
    }

    /// Bytes of its output, and of a TLS 1.3 secret made with it.
    pub(super) const fn output_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }
}

/// Who carries the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protection {
    /// Our record layer.
    Aead(Aead),
    /// OpenSSL: MAC-then-encrypt or encrypt-then-MAC with CBC.
    Cbc,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aead {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Aead {
    pub(super) fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    pub(super) const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    pub(super) const fn is_gcm(self) -> bool {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => true,
            Self::ChaCha20Poly1305 => false,
        }
    }

    /// Bytes of the implicit nonce part in the TLS 1.2 key block (RFC 5288 section 3, RFC 7905
    /// section 2).
    pub(super) const fn tls12_fixed_iv_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 4,
            Self::ChaCha20Poly1305 => 12,
        }
    }

    /// AES-GCM sends eight nonce bytes in each TLS 1.2 record, ChaCha20-Poly1305 none.
    pub(super) const fn tls12_explicit_nonce_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 8,
            Self::ChaCha20Poly1305 => 0,
        }
    }
}

impl std::fmt::Debug for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Finds a suite by OpenSSL name.
pub(super) fn suite_by_name(name: &str) -> Option<&'static Suite> {
    let suites = TLS12_SUITES.iter().chain(&TLS13_SUITES).chain(&CERTIFICATE_SUITES);
    suites.into_iter().find(|suite| suite.name == name)
}

const fn tls12(
    number: u16,
    name: &'static str,
    protection: Protection,
    hash: Hash,
    exchange: KeyExchange,
) -> Suite {
    Suite { name, number, version: Version::Tls12, protection, hash, exchange }
}

const fn tls13(number: u16, name: &'static str, aead: Aead, hash: Hash) -> Suite {
    let protection = Protection::Aead(aead);
    Suite { name, number, version: Version::Tls13, protection, hash, exchange: OTHER }
}

const AES_128_GCM: Protection = Protection::Aead(Aead::Aes128Gcm);
const AES_256_GCM: Protection = Protection::Aead(Aead::Aes256Gcm);
const CHACHA20: Protection = Protection::Aead(Aead::ChaCha20Poly1305);
const CBC: Protection = Protection::Cbc;
const PSK: KeyExchange = KeyExchange::Psk;
const DHE: KeyExchange = KeyExchange::DhePsk;
const ECDHE: KeyExchange = KeyExchange::EcdhePsk;
const OTHER: KeyExchange = KeyExchange::Other;
const SHA256: Hash = Hash::Sha256;
const SHA384: Hash = Hash::Sha384;

/// Every TLS 1.2 PSK suite that may be configured, AEAD first. No RSA-PSK, no NULL, RC4,
/// 3DES (TS 33.210 clause 6.2).
pub(super) static TLS12_SUITES: [Suite; 19] = [
    tls12(0xccac, "ECDHE-PSK-CHACHA20-POLY1305", CHACHA20, SHA256, ECDHE),
    tls12(0x00aa, "DHE-PSK-AES128-GCM-SHA256", AES_128_GCM, SHA256, DHE),
    tls12(0x00ab, "DHE-PSK-AES256-GCM-SHA384", AES_256_GCM, SHA384, DHE),
    tls12(0xccad, "DHE-PSK-CHACHA20-POLY1305", CHACHA20, SHA256, DHE),
    tls12(0x00a8, "PSK-AES128-GCM-SHA256", AES_128_GCM, SHA256, PSK),
    tls12(0x00a9, "PSK-AES256-GCM-SHA384", AES_256_GCM, SHA384, PSK),
    tls12(0xccab, "PSK-CHACHA20-POLY1305", CHACHA20, SHA256, PSK),
    tls12(0xc037, "ECDHE-PSK-AES128-CBC-SHA256", CBC, SHA256, ECDHE),
    tls12(0xc038, "ECDHE-PSK-AES256-CBC-SHA384", CBC, SHA384, ECDHE),
    tls12(0xc035, "ECDHE-PSK-AES128-CBC-SHA", CBC, SHA256, ECDHE),
    tls12(0xc036, "ECDHE-PSK-AES256-CBC-SHA", CBC, SHA256, ECDHE),
    tls12(0x00b2, "DHE-PSK-AES128-CBC-SHA256", CBC, SHA256, DHE),
    tls12(0x00b3, "DHE-PSK-AES256-CBC-SHA384", CBC, SHA384, DHE),
    tls12(0x0090, "DHE-PSK-AES128-CBC-SHA", CBC, SHA256, DHE),
    tls12(0x0091, "DHE-PSK-AES256-CBC-SHA", CBC, SHA256, DHE),
    tls12(0x00ae, "PSK-AES128-CBC-SHA256", CBC, SHA256, PSK),
    tls12(0x00af, "PSK-AES256-CBC-SHA384", CBC, SHA384, PSK),
    // RFC 4279's floor, mandatory in the older releases of the 3GPP profile.
    tls12(0x008c, "PSK-AES128-CBC-SHA", CBC, SHA256, PSK),
    tls12(0x008d, "PSK-AES256-CBC-SHA", CBC, SHA256, PSK),
];

/// The TLS 1.3 suites an external PSK of hash SHA-256 may use (RFC 8446 section 4.2.11).
pub(super) static TLS13_SUITES: [Suite; 2] = [
    tls13(0x1301, "TLS_AES_128_GCM_SHA256", Aead::Aes128Gcm, SHA256),
    tls13(0x1303, "TLS_CHACHA20_POLY1305_SHA256", Aead::ChaCha20Poly1305, SHA256),
];

/// What is negotiated with certificates beside the TLS 1.3 suites above (RFC 9325 section 4.2:
/// forward secrecy and AEAD). The TLS_RSA_WITH_AES_128_CBC_SHA of RFC 4976 section 9.2 has neither
/// and is not among them.
static CERTIFICATE_SUITES: [Suite; 8] = [
    tls13(0x1302, "TLS_AES_256_GCM_SHA384", Aead::Aes256Gcm, SHA384),
    tls12(0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256", AES_128_GCM, SHA256, OTHER),
    tls12(0xc02c, "ECDHE-ECDSA-AES256-GCM-SHA384", AES_256_GCM, SHA384, OTHER),
    tls12(0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305", CHACHA20, SHA256, OTHER),
    tls12(0xc02f, "ECDHE-RSA-AES128-GCM-SHA256", AES_128_GCM, SHA256, OTHER),
    tls12(0xc030, "ECDHE-RSA-AES256-GCM-SHA384", AES_256_GCM, SHA384, OTHER),
    tls12(0xcca8, "ECDHE-RSA-CHACHA20-POLY1305", CHACHA20, SHA256, OTHER),
    // DTLS alone has it (RFC 7345 section 4.1).
    tls12(0x009e, "DHE-RSA-AES128-GCM-SHA256", AES_128_GCM, SHA256, OTHER),
];

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ssl::{Ssl, SslContextBuilder, SslMethod};

    #[test]
    fn the_numbers_are_the_ones_openssl_knows_the_suites_by() {
        let context = SslContextBuilder::new(SslMethod::tls()).unwrap().build();
        let ssl = Ssl::new(&context).unwrap();
        for suite in &TLS12_SUITES {
            let lists = ssl.bytes_to_cipher_list(&suite.number.to_be_bytes(), false).unwrap();
            assert_eq!(lists.suites.get(0).map(|cipher| cipher.name()), Some(suite.name));
        }
    }
}
