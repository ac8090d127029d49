//! What all associations of a node have in common, and what one has of its own.

use std::sync::LazyLock;

use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslVersion,
};
use openssl::x509::X509;

use super::super::profile::{FFDHE2048_PRIME, ProfileError};
use super::super::{CertificateError, Fingerprint};
use super::cookie::COOKIE_BYTES;

/// What associations have in common. A clone shares it.
#[derive(Clone)]
pub struct Profile {
    pub(super) context: SslContext,
}

/// The certificate of one association, self-signed as a rule, and its key. A clone shares them.
#[derive(Clone)]
pub struct Credentials {
    pub(super) certificate: X509,
    pub(super) key: PKey<Private>,
}

impl Profile {
    /// Most wanted first. RFC 7345 section 4.1 mandates AES-128-GCM with ECDHE_RSA, which is to be preferred,
    /// and with DHE_RSA; which of them serve depends on whose key the certificate of the server is for.
    pub const SUITES: [&str; 7] = [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "DHE-RSA-AES128-GCM-SHA256",
    ];

    /// DTLS 1.2, suites with forward secrecy and an AEAD.
    pub fn new() -> Result<Self, ProfileError> {
        Self::with_suites(&Self::SUITES.map(str::to_owned))
    }

    /// The same with these suites of them, most wanted first.
    pub fn with_suites(suites: &[String]) -> Result<Self, ProfileError> {
        if let Some(name) = suites.iter().find(|name| !Self::SUITES.contains(&name.as_str())) {
            let valid = Self::SUITES.join(", ");
            return Err(ProfileError(format!("unknown DTLS suite {name}; valid are {valid}")));
        }
        if suites.is_empty() {
            return Err(ProfileError("there is no DTLS suite to offer".to_owned()));
        }
        let context = build_context(&suites.join(":"))
            .map_err(|error| ProfileError(format!("OpenSSL refuses DTLS: {error}")))?;
        Ok(Self { context })
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Profile(DTLS 1.2)")
    }
}

impl Credentials {
    /// Of a certificate and its key (PKCS #8 or SEC1), both DER.
    pub fn from_der(certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let certificate = X509::from_der(certificate).map_err(|_| CertificateError::Certificate)?;
        let key = PKey::private_key_from_der(key)
            .map_err(|error| CertificateError::Key(error.to_string()))?;
        Self::new(certificate, key)
    }

    /// The same of texts (PEM).
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let certificate = X509::from_pem(certificate).map_err(|_| CertificateError::Certificate)?;
        let key = PKey::private_key_from_pem(key)
            .map_err(|error| CertificateError::Key(error.to_string()))?;
        Self::new(certificate, key)
    }

    fn new(certificate: X509, key: PKey<Private>) -> Result<Self, CertificateError> {
        let public = certificate.public_key().map_err(|_| CertificateError::Certificate)?;
        if !public.public_eq(&key) {
            return Err(CertificateError::KeyMismatch);
        }
        Ok(Self { certificate, key })
    }

    /// What the certificate is known by in SDP.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate.to_der().unwrap_or_default())
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(key redacted)")
    }
}

/// Where OpenSSL's callbacks find the cookie that a server's handshake begins with.
pub(super) static COOKIE_INDEX: LazyLock<Index<Ssl, [u8; COOKIE_BYTES]>> =
    LazyLock::new(|| Ssl::new_ex_index().expect("OpenSSL gives out an index at startup"));

fn build_context(suites: &str) -> Result<SslContext, ErrorStack> {
    let mut builder = SslContextBuilder::new(SslMethod::dtls())?;
    // 112 bits, and so RSA keys of 2048 (RFC 9325 section 4.5).
    builder.set_security_level(2);
    builder.set_options(
        SslOptions::NO_TICKET
            | SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_SESSION_RESUMPTION_ON_RENEGOTIATION
            | SslOptions::CIPHER_SERVER_PREFERENCE
            | SslOptions::NO_QUERY_MTU
            | SslOptions::COOKIE_EXCHANGE,
    );
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    builder.set_groups_list("X25519:P-256:P-384")?;
    builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_max_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_cipher_list(suites)?;
    let prime = BigNum::from_hex_str(FFDHE2048_PRIME)?;
    builder.set_tmp_dh(&*Dh::from_pqg(prime, None, BigNum::from_u32(2)?)?)?;
    // The address has been proven before OpenSSL hears of it.
    builder.set_cookie_generate_cb(|ssl, out| {
        let (Some(cookie), Some(place)) = (ssl.ex_data(*COOKIE_INDEX), out.get_mut(..COOKIE_BYTES))
        else {
            return Ok(0);
        };
        place.copy_from_slice(cookie);
        Ok(COOKIE_BYTES)
    });
    builder.set_cookie_verify_cb(|ssl, cookie| {
        ssl.ex_data(*COOKIE_INDEX).is_some_and(|expected| expected == cookie)
    });
    Ok(builder.build())
}
