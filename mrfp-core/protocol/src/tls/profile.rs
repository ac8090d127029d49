//! What both ends are willing to speak, checked once and turned into an OpenSSL context.

use std::sync::{Arc, LazyLock};

use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef,
    SslSessionCacheMode, SslVersion,
};

use super::certificate::{CertificateConfig, Certificates};
use super::exchange::Exchange;
use super::suite::{KeyExchange, Suite, TLS12_SUITES, TLS13_SUITES};

/// What both ends are willing to speak.
#[derive(Clone, Debug)]
pub struct ProfileConfig {
    /// TLS 1.2 suites by OpenSSL name (`ECDHE-PSK-CHACHA20-POLY1305`), most wanted first. Empty:
    /// TLS 1.3 only.
    pub suites: Vec<String>,
    /// Offer and accept TLS 1.3 with an external PSK.
    pub tls13: bool,
}

impl Default for ProfileConfig {
    /// The AEAD suites, forward secrecy first; TLS 1.2 only, as TS 33.328 Annex H builds on
    /// RFC 4279.
    fn default() -> Self {
        Self { suites: DEFAULT_SUITES.map(str::to_owned).to_vec(), tls13: false }
    }
}

/// A checked configuration, made once per shard; every handshake starts from it. A clone shares it.
#[derive(Clone)]
pub struct Profile {
    pub(super) context: SslContext,
    /// Of TLS 1.2, most wanted first.
    pub(super) suites: Arc<[&'static Suite]>,
    pub(super) tls13: bool,
    /// For handshakes with certificates, if there are to be any.
    pub(super) certificates: Option<Certificates>,
}

/// The configuration names something OpenSSL does not have.
#[derive(Debug)]
pub struct ProfileError(pub String);

impl std::fmt::Display for ProfileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProfileError {}

impl Profile {
    /// Checks and prepares.
    pub fn new(config: &ProfileConfig) -> Result<Self, ProfileError> {
        let suites = known_suites(&config.suites)?;
        if suites.is_empty() && !config.tls13 {
            return Err(ProfileError(
                "no TLS 1.2 suite is configured and TLS 1.3 is off".to_owned(),
            ));
        }
        let context = build_context(&suites, config.tls13)
            .map_err(|error| ProfileError(format!("OpenSSL refuses the TLS profile: {error}")))?;
        Ok(Self { context, suites: suites.into(), tls13: config.tls13, certificates: None })
    }

    /// Serves and uses certificates beside pre-shared keys: TLS 1.2 and 1.3, whatever the
    /// configuration says about versions with keys.
    pub fn with_certificates(self, config: &CertificateConfig) -> Result<Self, ProfileError> {
        self.with_certificates_and_suites(config, &[])
    }

    /// The same with these suites alone, by OpenSSL name (`TLS_AES_128_GCM_SHA256`,
    /// `ECDHE-ECDSA-AES128-GCM-SHA256`); without any it is [`Profile::with_certificates`].
    pub fn with_certificates_and_suites(
        mut self,
        config: &CertificateConfig,
        suites: &[String],
    ) -> Result<Self, ProfileError> {
        let certificates = Certificates::new(config, suites)
            .map_err(|error| ProfileError(format!("rustls refuses the TLS profile: {error}")))?;
        self.certificates = Some(certificates);
        Ok(self)
    }

    /// Whether there may be handshakes with certificates.
    #[must_use]
    pub fn has_certificates(&self) -> bool {
        self.certificates.is_some()
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("tls13", &self.tls13)
            .field("certificates", &self.certificates.is_some())
            .finish_non_exhaustive()
    }
}

/// Where the key callbacks find the exchange they belong to.
pub(super) static EXCHANGE_INDEX: LazyLock<Index<Ssl, Exchange>> =
    LazyLock::new(|| Ssl::new_ex_index().expect("OpenSSL gives out an index at startup"));

fn known_suites(names: &[String]) -> Result<Vec<&'static Suite>, ProfileError> {
    let mut suites = Vec::new();
    let mut unknown = Vec::new();
    for name in names {
        match TLS12_SUITES.iter().find(|suite| suite.name == name) {
            Some(suite) => suites.push(suite),
            None => unknown.push(name.as_str()),
        }
    }
    if unknown.is_empty() {
        return Ok(suites);
    }
    let valid: Vec<&str> = TLS12_SUITES.iter().map(|suite| suite.name).collect();
    Err(ProfileError(format!(
        "unknown TLS-PSK suite {}; valid are {}",
        unknown.join(", "),
        valid.join(", ")
    )))
}

fn build_context(suites: &[&'static Suite], tls13: bool) -> Result<SslContext, ErrorStack> {
    let mut builder = SslContextBuilder::new(SslMethod::tls())?;
    // Level 1 (80 bits) admits the PSK suites without forward secrecy and SHA-1 as a MAC; the list
    // of suites itself is our policy.
    builder.set_security_level(1);
    builder.set_options(
        SslOptions::NO_TICKET
            | SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::CIPHER_SERVER_PREFERENCE
            | SslOptions::NO_SESSION_RESUMPTION_ON_RENEGOTIATION,
    );
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    let lowest = if suites.is_empty() { SslVersion::TLS1_3 } else { SslVersion::TLS1_2 };
    let highest = if tls13 { SslVersion::TLS1_3 } else { SslVersion::TLS1_2 };
    // TS 33.210 clause 6.2: secp256r1 mandatory, secp384r1 recommended. Named, since OpenSSL's own
    // list puts an ML-KEM share of 1.2 kB into every TLS 1.3 hello.
    builder.set_groups_list("X25519:P-256:P-384")?;
    builder.set_min_proto_version(Some(lowest))?;
    builder.set_max_proto_version(Some(highest))?;
    if !suites.is_empty() {
        let names: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
        builder.set_cipher_list(&names.join(":"))?;
    }
    if suites.iter().any(|suite| suite.exchange == KeyExchange::DhePsk) {
        let prime = BigNum::from_hex_str(FFDHE2048_PRIME)?;
        let generator = BigNum::from_u32(2)?;
        let parameters = Dh::from_pqg(prime, None, generator)?;
        builder.set_tmp_dh(&parameters)?;
    }
    if tls13 {
        let names: Vec<&str> = TLS13_SUITES.iter().map(|suite| suite.name).collect();
        builder.set_ciphersuites(&names.join(":"))?;
        builder.set_num_tickets(0)?;
        // OpenSSL has no other way to hand the traffic secrets out.
        builder.set_keylog_callback(|ssl: &SslRef, line: &str| {
            if let Some(exchange) = ssl.ex_data(*EXCHANGE_INDEX) {
                exchange.record_secret(line);
            }
        });
    }
    builder.set_psk_server_callback(|ssl, identity, key| match ssl.ex_data(*EXCHANGE_INDEX) {
        Some(exchange) => exchange.server_key(identity, key),
        None => Ok(0),
    });
    builder.set_psk_client_callback(|ssl, _hint, identity, key| {
        match ssl.ex_data(*EXCHANGE_INDEX) {
            Some(exchange) => Ok(exchange.client_key(identity, key)),
            None => Ok(0),
        }
    });
    Ok(builder.build())
}

const DEFAULT_SUITES: [&str; 4] = [
    "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-GCM-SHA256",
    "PSK-AES256-GCM-SHA384",
    "PSK-CHACHA20-POLY1305",
];

/// RFC 7919 appendix A.1; its generator is 2. Fixed, so that no start has to search for a prime.
pub(super) const FFDHE2048_PRIME: &str = "\
    FFFFFFFFFFFFFFFFADF85458A2BB4A9AAFDC5620273D3CF1D8B9C583CE2D3695A9E13641146433FBCC939DCE249B3EF9\
    7D2FE363630C75D8F681B202AEC4617AD3DF1ED5D5FD65612433F51F5F066ED0856365553DED1AF3B557135E7F57C935\
    984F0C70E0E68B77E2A689DAF3EFE8721DF158A136ADE73530ACCA4F483A797ABC0AB182B324FB61D108A94BB2C8E3FB\
    B96ADAB760D7F4681D4F42A3DE394DF4AE56EDE76372BB190B07A7C8EE0A6D709E02FCE1CDF7E2ECC03404CD28342F61\
    9172FE9CE98583FF8E4F1232EEF28183C3FE3B1B4C6FAD733BB5FCBC2EC22005C58EF1837D1683B2C6F34A26C1B2EFFA\
    886B423861285C97FFFFFFFFFFFFFFFF";
