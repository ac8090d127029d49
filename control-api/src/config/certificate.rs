//! The node's certificate, and whose certificates of others it takes.

use std::path::{Path, PathBuf};

use mrfp_protocol::tls::{Authorities, CertificateConfig, CertificateError, Identity};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Config;
use super::check::{Check, Finding, Step, ensure};

/// Section `[tls.certificate]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file: the node's own certificate first, then those that lead to its authority.
    pub chain: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
    /// PEM files with certificates of authorities to trust.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<PathBuf>,
    /// Trust the authorities of the web (Mozilla's list) as well.
    #[serde(default = "web_authorities")]
    pub web_authorities: bool,
}

const fn web_authorities() -> bool {
    true
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// Which setting is wrong, and how.
    pub fn load(&self) -> Result<CertificateConfig, CertificateProblem> {
        let chain = read(&self.chain).map_err(|reason| CertificateProblem::chain(self, reason))?;
        let key = read(&self.key).map_err(|reason| CertificateProblem::key(self, reason))?;
        let identity = Identity::from_pem(&chain, &key).map_err(|error| match error {
            CertificateError::NoCertificate | CertificateError::Certificate => {
                CertificateProblem::chain(self, error.to_string())
            }
            CertificateError::Pem(_) if Authorities::from_pem(&chain).is_err() => {
                CertificateProblem::chain(self, error.to_string())
            }
            CertificateError::Pem(_)
            | CertificateError::NoKey
            | CertificateError::Key(_)
            | CertificateError::KeyMismatch => CertificateProblem::key(self, error.to_string()),
        })?;
        Ok(CertificateConfig { identity, authorities: self.load_authorities()? })
    }

    fn load_authorities(&self) -> Result<Authorities, CertificateProblem> {
        let mut all = self.web_authorities.then(Authorities::web);
        for (index, path) in self.authorities.iter().enumerate() {
            let authorities = read(path)
                .and_then(|text| Authorities::from_pem(&text).map_err(|error| error.to_string()))
                .map_err(|reason| CertificateProblem::authority(path, index, &reason))?;
            all = Some(match all {
                Some(others) => others.and(&authorities),
                None => authorities,
            });
        }
        all.ok_or_else(|| CertificateProblem {
            setting: "authorities",
            index: None,
            message: "no certificate of anybody else would be taken".to_owned(),
        })
    }
}

impl Config {
    pub(super) fn check_certificate(&self) -> Check {
        let Some(certificate) = &self.tls.certificate else {
            return ensure(
                !self.relay.is_on() || self.relay.allow_plain_auth,
                &["relay", "host"],
                || "a relay without a certificate: nobody could authenticate".to_owned(),
                || "set tls.certificate: AUTH needs TLS (RFC 4976 section 9.2)".to_owned(),
            );
        };
        let loaded = certificate.load().map_err(|problem| {
            let mut path = vec![Step::Name("tls"), Step::Name("certificate")];
            path.push(Step::Name(problem.setting));
            path.extend(problem.index.map(Step::Index));
            let remedy = problem.remedy().to_owned();
            Finding { path, message: problem.message, remedy }
        })?;
        ensure(
            !self.relay.is_on() || loaded.identity.is_for(&self.relay.host),
            &["tls", "certificate", "chain"],
            || format!("the certificate is not for {}, the host of the relay", self.relay.host),
            || "have relay.host among its names, or change relay.host".to_owned(),
        )
    }
}

/// Why a certificate cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateProblem {
    setting: &'static str,
    index: Option<usize>,
    message: String,
}

impl CertificateProblem {
    fn chain(certificate: &Certificate, reason: String) -> Self {
        Self::of("chain", None, &certificate.chain, &reason)
    }

    fn key(certificate: &Certificate, reason: String) -> Self {
        Self::of("key", None, &certificate.key, &reason)
    }

    fn authority(path: &Path, index: usize, reason: &str) -> Self {
        Self::of("authorities", Some(index), path, reason)
    }

    fn of(setting: &'static str, index: Option<usize>, path: &Path, reason: &str) -> Self {
        Self { setting, index, message: format!("{}: {reason}", path.display()) }
    }

    fn remedy(&self) -> &'static str {
        match self.setting {
            "chain" => "name a PEM file this user may read, the node's own certificate first",
            "key" => "name the PEM file with the private key of the first certificate of the chain",
            _ => "name PEM files with certificates of authorities, or set web_authorities = true",
        }
    }
}

impl std::fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tls.certificate.{}: {}; {}", self.setting, self.message, self.remedy())
    }
}

impl std::error::Error for CertificateProblem {}

/// What may be a key does not stay behind in memory.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| error.to_string())
}
