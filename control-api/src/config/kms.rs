//! The key management service: ours, or that of others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::check::{Check, Finding, Step, ensure};
use super::{
    Config, DEVELOPMENT_KEY, DEVELOPMENT_KEY_ID, DEVELOPMENT_TICKET_KEY, DEVELOPMENT_TICKET_KEY_ID,
    KmsIssuingKey, KmsKey, KmsSharedTicketKey, KmsSignedRequests, Secret, UriPattern,
};
use crate::kms::HttpBinding;
use crate::mrfc::KMS_TIMEOUT_NS;

/// Section `[kms]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kms {
    /// Where the KMS is.
    pub mode: KmsMode,
    /// Listener of our KMS.
    pub listen: SocketAddr,
    /// The KMS's own URI, the IDRkms of its messages.
    pub uri: String,
    /// Our key with the KMS, by its `id` among the users: we resolve tickets with it.
    pub resolver: String,
    /// Request-URI of the KMS's messages, without scheme and host: see [`HttpBinding::parse`].
    pub target: String,
    /// What `{type}` is for a ticket request.
    pub type_request: String,
    /// What `{type}` is for a ticket resolve.
    pub type_resolve: String,
    /// Listen beyond loopback, or ask beyond it, without TLS.
    pub allow_plain: bool,
    /// Longest validity of a ticket we issue.
    pub ticket_lifetime_seconds: u64,
    /// How long one key of ours protects the tickets we issue before the next one does.
    pub ticket_key_rotation_seconds: u64,
    /// Requests over HTTP of one user in a second; 429 beyond.
    pub requests_per_user_per_second_max: u32,
    /// Which tickets get a line of audit in the log.
    pub audit: KmsAudit,
    /// What a restart must not forget; without it everything is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_directory: Option<PathBuf>,
    /// TLS of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<KmsCertificate>,
    /// How others are asked.
    pub client: KmsClientSettings,
    /// Who is asked, the one wanted most first.
    #[serde(rename = "server", skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<KmsServer>,
    /// Keys of those who ask the KMS for tickets or have them resolved.
    #[serde(rename = "user")]
    pub users: Vec<KmsKey>,
    /// Keys of those who make their tickets themselves (ticket protection keys).
    #[serde(rename = "ticket_key")]
    pub ticket_keys: Vec<KmsKey>,
    /// Keys that protect the tickets we issue, the one that makes new ones first; without them the KMS
    /// makes its own.
    #[serde(rename = "issuing_key", skip_serializing_if = "Vec::is_empty")]
    pub issuing_keys: Vec<KmsIssuingKey>,
    /// Keys of tickets that we issue and their responders open.
    #[serde(rename = "shared_ticket_key", skip_serializing_if = "Vec::is_empty")]
    pub shared_ticket_keys: Vec<KmsSharedTicketKey>,
    /// Whether users with certificates are served, and whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_requests: Option<KmsSignedRequests>,
    /// Groups that tickets may name as responder.
    #[serde(rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<KmsGroup>,
}

/// `kms.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KmsMode {
    /// In the node.
    Embedded,
    /// Asked over HTTP.
    Remote,
}

/// `kms.audit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KmsAudit {
    /// Those that others ask for over HTTP.
    Requests,
    /// Also those that the node has resolved for its own calls.
    All,
}

/// Section `[kms.certificate]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KmsCertificate {
    /// PEM file: our own certificate first, then those that lead to its authority.
    pub chain: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
}

/// Section `[kms.client]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct KmsClientSettings {
    /// PEM files with certificates of authorities to trust.
    pub authorities: Vec<PathBuf>,
    /// For the TCP connection.
    pub connect_timeout_milliseconds: u64,
    /// From there to the end of the answer, the TLS handshake of a new connection included.
    pub response_timeout_milliseconds: u64,
    /// For everything together, other servers included.
    pub timeout_milliseconds: u64,
    /// Connections to all servers at a time.
    pub connections_max: usize,
}

/// One `[[kms.server]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KmsServer {
    /// Scheme, host and port.
    pub url: String,
}

/// One `[[kms.group]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KmsGroup {
    /// What tickets call it.
    pub uri: String,
    /// Who belongs to it.
    pub members: Vec<UriPattern>,
}

impl Default for Kms {
    fn default() -> Self {
        Self {
            mode: KmsMode::Embedded,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8088)),
            uri: "sip:kms@localhost".to_owned(),
            resolver: DEVELOPMENT_KEY_ID.to_owned(),
            target: "/keymanagement?requesttype={type}".to_owned(),
            type_request: "ticketrequest".to_owned(),
            type_resolve: "ticketresolve".to_owned(),
            allow_plain: false,
            ticket_lifetime_seconds: 3600,
            ticket_key_rotation_seconds: 86_400,
            requests_per_user_per_second_max: 1000,
            audit: KmsAudit::Requests,
            state_directory: None,
            certificate: None,
            client: KmsClientSettings::default(),
            servers: Vec::new(),
            users: vec![KmsKey::development(DEVELOPMENT_KEY_ID, DEVELOPMENT_KEY)],
            ticket_keys: vec![KmsKey::development(
                DEVELOPMENT_TICKET_KEY_ID,
                DEVELOPMENT_TICKET_KEY,
            )],
            issuing_keys: Vec::new(),
            shared_ticket_keys: Vec::new(),
            signed_requests: None,
            groups: Vec::new(),
        }
    }
}

impl Default for KmsClientSettings {
    fn default() -> Self {
        Self {
            authorities: Vec::new(),
            connect_timeout_milliseconds: 1000,
            response_timeout_milliseconds: 1000,
            timeout_milliseconds: 4000,
            connections_max: 64,
        }
    }
}

impl KmsKey {
    fn development(id: &str, key: [u8; 16]) -> Self {
        Self {
            id: id.to_owned(),
            key: Secret::from_bytes(key.to_vec()),
            may_act_as: vec![UriPattern("*".to_owned())],
            requests_per_second_max: None,
        }
    }
}

impl Kms {
    /// Where messages go.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub fn binding(&self) -> Result<HttpBinding, &'static str> {
        HttpBinding::parse(&self.target, &self.type_request, &self.type_resolve)
    }

    /// The listener's side of TLS; `None`: in the clear.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn server_tls(&self) -> Result<Option<Arc<rustls::ServerConfig>>, String> {
        let Some(KmsCertificate { chain, key }) = &self.certificate else { return Ok(None) };
        let certificates = certificates(chain)?;
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(certificates, key_der)
            });
        let mut config = config.map_err(|error| failed(key, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Arc::new(config)))
    }

    /// The client's side of TLS.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn client_tls(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        trusting(&self.client.authorities)
    }
}

/// A client that takes what these authorities have certified.
pub(super) fn trusting(authorities: &[PathBuf]) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for path in authorities {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| failed(path, &error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| failed(path, &error))?;
    let certificates: Result<Vec<_>, _> = read.collect();
    let certificates = certificates.map_err(|error| failed(path, &error))?;
    if certificates.is_empty() {
        return Err(format!("{}: no certificate in it", path.display()));
    }
    Ok(certificates)
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

impl Config {
    /// The rules of section `[kms]` beside those of its keys.
    pub(super) fn check_kms_service(&self) -> Check {
        let kms = &self.kms;
        kms.binding().map_err(|reason| Finding {
            path: vec![Step::Name("kms"), Step::Name("target")],
            message: reason.to_owned(),
            remedy: "write it like \"/keymanagement?requesttype={type}\"".to_owned(),
        })?;
        for (name, seconds) in [
            ("ticket_lifetime_seconds", kms.ticket_lifetime_seconds),
            ("ticket_key_rotation_seconds", kms.ticket_key_rotation_seconds),
        ] {
            ensure(
                (60..=SECONDS_MAX).contains(&seconds),
                &["kms", name],
                || format!("{seconds} seconds is outside 60 to {SECONDS_MAX}"),
                || "a ticket lives for minutes to days, a key for hours to weeks".to_owned(),
            )?;
        }
        ensure(
            kms.requests_per_user_per_second_max > 0
                && kms.users.iter().all(|user| user.requests_per_second_max != Some(0)),
            &["kms", "requests_per_user_per_second_max"],
            || "a user without requests".to_owned(),
            || "allow 1 or more; take the user out who is to have none".to_owned(),
        )?;
        match kms.mode {
            KmsMode::Embedded => self.check_kms_listener(),
            KmsMode::Remote => self.check_kms_servers(),
        }
    }

    fn check_kms_listener(&self) -> Check {
        let kms = &self.kms;
        ensure(
            kms.certificate.is_some() || kms.allow_plain || kms.listen.ip().is_loopback(),
            &["kms", "listen"],
            || format!("{} is beyond loopback, and there is no TLS", kms.listen.ip()),
            || {
                "set kms.certificate; or kms.allow_plain = true, where the way to the KMS is \
                 protected by other means"
                    .to_owned()
            },
        )?;
        kms.server_tls().map(|_| ()).map_err(|message| Finding {
            path: vec![Step::Name("kms"), Step::Name("certificate")],
            message,
            remedy: "name PEM files this user may read: the chain, our own certificate first, and \
                     the private key of that one"
                .to_owned(),
        })
    }

    fn check_kms_servers(&self) -> Check {
        let kms = &self.kms;
        ensure(
            !kms.servers.is_empty(),
            &["kms", "mode"],
            || "a KMS elsewhere, but none is named".to_owned(),
            || "add [[kms.server]] with its url".to_owned(),
        )?;
        for (index, server) in kms.servers.iter().enumerate() {
            let problem = server_problem(server, kms.allow_plain);
            if let Some((message, remedy)) = problem {
                let path = [Step::Name("kms"), Step::Name("server"), Step::Index(index)];
                return Err(Finding {
                    path: path.into_iter().chain([Step::Name("url")]).collect(),
                    message: message.to_owned(),
                    remedy: remedy.to_owned(),
                });
            }
        }
        let secure = kms.servers.iter().any(|server| server.url.starts_with("https:"));
        ensure(
            !secure || !kms.client.authorities.is_empty(),
            &["kms", "client", "authorities"],
            || "no certificate of a KMS would be taken".to_owned(),
            || "name PEM files with the certificates of its authority".to_owned(),
        )?;
        let client = &kms.client;
        let timeouts = [
            client.connect_timeout_milliseconds,
            client.response_timeout_milliseconds,
            client.timeout_milliseconds,
        ];
        ensure(
            timeouts.into_iter().all(|timeout| (1..=TIMEOUT_MILLISECONDS_MAX).contains(&timeout)),
            &["kms", "client", "timeout_milliseconds"],
            || format!("a timeout is outside 1 to {TIMEOUT_MILLISECONDS_MAX} milliseconds"),
            || "the call that waits for the KMS is given up after 5 seconds".to_owned(),
        )?;
        ensure(
            client.connections_max > 0,
            &["kms", "client", "connections_max"],
            || "without connections no KMS can be asked".to_owned(),
            || "use 1 or more".to_owned(),
        )?;
        kms.client_tls().map(|_| ()).map_err(|message| Finding {
            path: ["kms", "client", "authorities"].map(Step::Name).to_vec(),
            message,
            remedy: "name PEM files with certificates of authorities".to_owned(),
        })
    }
}

/// What is wrong with a server, and what to do about it.
fn server_problem(server: &KmsServer, allow_plain: bool) -> Option<(&'static str, &'static str)> {
    const FORM: &str = "write it like \"https://kms.example.com:8443\"";
    let Ok(uri) = server.url.parse::<axum::http::Uri>() else {
        return Some(("no URL", FORM));
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Some(("path and query are kms.target for every server", FORM));
    }
    let host = uri.host().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => None,
        Some("http") if loopback || allow_plain => None,
        Some("http") => Some((
            "a KMS beyond loopback without TLS",
            "use https; or kms.allow_plain = true, where the way is protected by other means",
        )),
        _ => Some(("neither http nor https", FORM)),
    }
}

/// A month.
const SECONDS_MAX: u64 = 31 * 86_400;
/// Just below what the MRFC waits for.
const TIMEOUT_MILLISECONDS_MAX: u64 = 4_900;
const _: () = assert!(TIMEOUT_MILLISECONDS_MAX * 1_000_000 < KMS_TIMEOUT_NS);
