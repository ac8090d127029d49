//! What is spoken where each end is known by the fingerprint of its certificate, and the keys that such
//! certificates are for.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use super::certificate::{CertificateError, PROVIDER};
use super::certificate_handshake::suite_of;
use super::profile::ProfileError;

/// The TLS of streams whose ends announce their certificates in SDP ("locally provisioned TLS profile
/// parameters", TS 23.334 clause 5.11.2.2.1). A clone shares it.
#[derive(Clone, Debug)]
pub struct AnnouncedProfile(pub(super) Arc<CryptoProvider>);

impl AnnouncedProfile {
    /// Every suite there is, most wanted first: TLS 1.3 and 1.2, forward secrecy and an AEAD.
    pub const SUITES: [&str; 9] = [
        "TLS_AES_256_GCM_SHA384",
        "TLS_AES_128_GCM_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ];

    /// Suites by OpenSSL name (`TLS_AES_128_GCM_SHA256`, `ECDHE-ECDSA-AES128-GCM-SHA256`), most wanted first.
    /// A version of TLS is spoken if it has one of them.
    pub fn new(suites: &[String]) -> Result<Self, ProfileError> {
        let known = &PROVIDER.cipher_suites;
        let named = |name: &str| {
            let of_name = |it: &&rustls::SupportedCipherSuite| {
                suite_of(it.suite()).is_some_and(|suite| suite.name == name)
            };
            known.iter().find(of_name).copied()
        };
        let mut provider = CryptoProvider::clone(&PROVIDER);
        provider.cipher_suites.clear();
        for name in suites {
            let suite = named(name).ok_or_else(|| {
                let valid = Self::SUITES.join(", ");
                ProfileError(format!("unknown TLS suite {name}; valid are {valid}"))
            })?;
            provider.cipher_suites.push(suite);
        }
        if provider.cipher_suites.is_empty() {
            return Err(ProfileError("there is no TLS suite to offer".to_owned()));
        }
        Ok(Self(Arc::new(provider)))
    }
}

impl Default for AnnouncedProfile {
    /// With [`AnnouncedProfile::SUITES`].
    fn default() -> Self {
        Self(Arc::clone(&PROVIDER))
    }
}

/// What certificates are made for.
#[derive(Debug)]
pub enum CertificateKey {
    /// Each certificate has a new key on the curve P-256.
    EcdsaP256,
    /// All certificates have this RSA key of 2,048 bits: a new one for each would take a tenth of a second.
    Rsa2048(Box<rcgen::KeyPair>),
}

impl CertificateKey {
    /// A new RSA key.
    pub fn rsa_2048() -> Result<Self, CertificateError> {
        let made =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        made.map(|key| Self::Rsa2048(Box::new(key)))
            .map_err(|error| CertificateError::Key(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_every_suite_by_its_name() {
        let all = AnnouncedProfile::new(&AnnouncedProfile::SUITES.map(str::to_owned));
        let suites = |profile: &AnnouncedProfile| profile.0.cipher_suites.clone();
        assert_eq!(suites(&all.unwrap()), suites(&AnnouncedProfile::default()));
        for unusable in [&["AES128-SHA".to_owned()][..], &[]] {
            assert!(AnnouncedProfile::new(unusable).is_err(), "{unusable:?}");
        }
    }
}
