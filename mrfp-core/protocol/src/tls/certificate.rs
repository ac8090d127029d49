//! Certificates: ours, those of peers, and who may vouch for them.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, InconsistentKeys, RootCertStore,
    ServerConfig, SignatureScheme, SupportedCipherSuite,
};
use zeroize::Zeroizing;

use super::announced::{AnnouncedProfile, CertificateKey};
use super::certificate_handshake::suite_of;
use super::dtls::Credentials;
use super::fingerprint::Fingerprint;

/// What TLS with certificates needs to know.
#[derive(Clone, Debug)]
pub struct CertificateConfig {
    /// What we show to clients, and to servers that ask.
    pub identity: Identity,
    /// Who may vouch for peers.
    pub authorities: Authorities,
}

/// Our certificate with its chain, and its key; that a second time as it was read, for whoever has no use
/// for rustls's.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>, Arc<Zeroizing<Vec<u8>>>);

/// Certificate authorities whose word we take.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<RootCertStore>);

/// Why certificates or a key cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CertificateError {
    /// There is no `CERTIFICATE` section.
    NoCertificate,
    /// There is no section with a private key.
    NoKey,
    /// The text is not PEM.
    Pem(String),
    /// A certificate is not X.509.
    Certificate,
    /// The key is of a kind we cannot use: RSA, ECDSA (P-256, P-384) and Ed25519 are known.
    Key(String),
    /// The key is not the one of the first certificate.
    KeyMismatch,
}

impl Identity {
    /// Reads a chain (our own certificate first, the root may be left out) and the key, which may be
    /// PKCS #8, PKCS #1 or SEC1.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = certificates_from_pem(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => CertificateError::NoKey,
            error => CertificateError::Pem(error.to_string()),
        })?;
        for certificate in &chain {
            ParsedCertificate::try_from(certificate).map_err(|_| CertificateError::Certificate)?;
        }
        let bytes = Zeroizing::new(key.secret_der().to_vec());
        match CertifiedKey::from_der(chain, key, &PROVIDER) {
            Ok(key) => Ok(Self(Arc::new(key), Arc::new(bytes))),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(CertificateError::KeyMismatch)
            }
            Err(error) => Err(CertificateError::Key(error.to_string())),
        }
    }

    /// A new key and a certificate that it has signed itself: what a media stream is protected with whose
    /// SDP carries the fingerprint (RFC 8122 section 5). Names and times mean nothing in it; a
    /// peer that looks at them all the same finds it valid.
    pub fn self_signed() -> Result<Self, CertificateError> {
        Self::self_signed_with(&CertificateKey::EcdsaP256)
    }

    /// The same for a kind of key, or for one key.
    pub fn self_signed_with(key: &CertificateKey) -> Result<Self, CertificateError> {
        match key {
            CertificateKey::EcdsaP256 => {
                let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
                Self::signed_by(&key.map_err(|error| CertificateError::Key(error.to_string()))?)
            }
            CertificateKey::Rsa2048(key) => Self::signed_by(key),
        }
    }

    fn signed_by(key: &rcgen::KeyPair) -> Result<Self, CertificateError> {
        let refused = |error: rcgen::Error| CertificateError::Key(error.to_string());
        let mut parameters = rcgen::CertificateParams::default();
        let mut serial = [0; SERIAL_BYTES];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| CertificateError::Key(NO_RANDOM.into()))?;
        // Positive, and none of its bytes is left out (RFC 5280 section 4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;
        parameters.serial_number = Some(serial.to_vec().into());
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "media");
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2049, 12, 31);
        let certificate = parameters.self_signed(key).map_err(refused)?;
        let bytes = Zeroizing::new(key.serialize_der());
        let key = PrivateKeyDer::Pkcs8(bytes.as_slice().into());
        let key = key.clone_key();
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], key, &PROVIDER)
            .map_err(|error| CertificateError::Key(error.to_string()))?;
        Ok(Self(Arc::new(key), Arc::new(bytes)))
    }

    /// The same certificate and key for DTLS.
    pub fn for_datagrams(&self) -> Result<Credentials, CertificateError> {
        let certificate = self.0.end_entity_cert().map_err(|_| CertificateError::NoCertificate)?;
        Credentials::from_der(certificate, &self.1)
    }

    /// Whether the certificate carries this name (DNS name or IP address).
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        self.0.end_entity_cert().is_ok_and(|certificate| carries_name(certificate, host))
    }
}

impl Identity {
    /// What the certificate is known by in SDP.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.end_entity_cert().map_or(&[], |certificate| certificate))
    }
}

/// Half as many as are allowed, and enough never to come twice.
const SERIAL_BYTES: usize = 10;
const NO_RANDOM: &str = "no randomness can be had";

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} certificates, key redacted)", self.0.cert.len())
    }
}

impl Authorities {
    /// Those of the web, as Mozilla lists them.
    #[must_use]
    pub fn web() -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Self(Arc::new(roots))
    }

    /// The certificates of this text and no others.
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates_from_pem(text)? {
            roots.add(certificate).map_err(|_| CertificateError::Certificate)?;
        }
        Ok(Self(Arc::new(roots)))
    }

    /// These and the others.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        Arc::make_mut(&mut self.0).extend(others.0.roots.iter().cloned());
        self
    }
}

impl std::fmt::Display for CertificateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("no certificate in it"),
            Self::NoKey => f.write_str("no private key in it"),
            Self::Pem(error) => write!(f, "not PEM: {error}"),
            Self::Certificate => f.write_str("a certificate in it is not X.509"),
            Self::Key(error) => write!(f, "the private key cannot be used: {error}"),
            Self::KeyMismatch => f.write_str("the private key belongs to another certificate"),
        }
    }
}

impl std::error::Error for CertificateError {}

/// A certificate a client has shown and whose key it has.
pub struct PeerCertificate {
    certificate: CertificateDer<'static>,
    trusted: bool,
}

impl PeerCertificate {
    /// Whether an authority of ours vouches for it, it is in its time, and it carries this name
    /// (DNS name or IP address): what RFC 4976 section 6.3 asks of a relay that connects to us.
    #[must_use]
    pub fn proves(&self, host: &str) -> bool {
        self.trusted && carries_name(&self.certificate, host)
    }

    /// Whether it is the one that one of these stands for, whoever vouches for it.
    #[must_use]
    pub fn is_known_by(&self, fingerprints: &[Fingerprint]) -> bool {
        Fingerprint::any_is_of(fingerprints, &self.certificate)
    }
}

impl std::fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerCertificate").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

/// A checked [`CertificateConfig`]. A clone shares it.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    authorities: Arc<RootCertStore>,
    /// Judges what clients have presented.
    for_clients: Arc<dyn ClientCertVerifier>,
}

impl Certificates {
    /// Of the suites we have, those with one of these names; without any all of them.
    pub(super) fn new(
        config: &CertificateConfig,
        suites: &[String],
    ) -> Result<Self, rustls::Error> {
        let identity = Arc::new(SingleCertAndKey::from(Arc::clone(&config.identity.0)));
        let authorities = &config.authorities.0;
        let mut provider = Arc::clone(&PROVIDER);
        if !suites.is_empty() {
            let is_wanted = |suite: &SupportedCipherSuite| {
                suite_of(suite.suite())
                    .is_some_and(|suite| suites.iter().any(|name| name == suite.name))
            };
            Arc::make_mut(&mut provider).cipher_suites.retain(is_wanted);
        }

        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyClient(
                provider.signature_verification_algorithms,
            )))
            .with_cert_resolver(Arc::clone(&identity) as _);
        // There is no resumption: a session is as long as its connection, and those are long.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.enable_secret_extraction = true;

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(authorities))
            .with_client_cert_resolver(identity);
        client.resumption = Resumption::disabled();
        client.enable_secret_extraction = true;

        let for_clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities), provider)
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
            authorities: Arc::clone(authorities),
            for_clients,
        })
    }

    /// Looks at what a client has presented, its own certificate first.
    pub(super) fn judge(&self, chain: &[CertificateDer<'static>]) -> Option<PeerCertificate> {
        let (certificate, intermediates) = chain.split_first()?;
        let trusted = self.is_trusted(certificate, intermediates, UnixTime::now());
        Some(PeerCertificate { certificate: certificate.clone(), trusted })
    }

    /// Whether an authority vouches for a certificate: as a client's or as a server's. A relay that
    /// connects is both, and public authorities certify servers only.
    fn is_trusted(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        if self.for_clients.verify_client_cert(certificate, intermediates, now).is_ok() {
            return true;
        }
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        ParsedCertificate::try_from(certificate).is_ok_and(|certificate| {
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.authorities,
                intermediates,
                now,
                algorithms,
            )
            .is_ok()
        })
    }
}

/// Asks every client for a certificate and takes any or none (RFC 4976 sections 6.1 and 9.2: a relay
/// has one, and what other clients present is ignored). That the client has the key is checked here,
/// the rest when somebody relies on it.
#[derive(Debug)]
struct AnyClient(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        ParsedCertificate::try_from(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// What a stream is protected with whose ends know each other by fingerprint alone (RFC 8122 section 5), as
/// server: whoever has no certificate, or another one, is refused within the handshake.
pub(super) fn announced_server(
    profile: &AnnouncedProfile,
    identity: &Identity,
    fingerprints: &[Fingerprint],
) -> Result<ServerConfig, rustls::Error> {
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&profile.0))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(Announced(fingerprints.to_vec())))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.0))));
    server.ignore_client_order = true;
    // A ticket would let a peer into another stream.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.enable_secret_extraction = true;
    Ok(server)
}

/// The same as client.
pub(super) fn announced_client(
    profile: &AnnouncedProfile,
    identity: &Identity,
    fingerprints: &[Fingerprint],
) -> Result<ClientConfig, rustls::Error> {
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&profile.0))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Announced(fingerprints.to_vec())))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.0))));
    client.resumption = Resumption::disabled();
    client.enable_secret_extraction = true;
    Ok(client)
}

/// Takes the certificate that was announced and no other (RFC 4975 section 14.4, RFC 8122 section 5).
#[derive(Debug)]
pub(super) struct Announced(pub(super) Vec<Fingerprint>);

impl Announced {
    fn verify(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if Fingerprint::any_is_of(&self.0, certificate) {
            Ok(())
        } else {
            // Of the reasons there are the one that tells the peer `bad_certificate`, which RFC 8122 section
            // 6.2 asks for.
            Err(rustls::CertificateError::NotValidForName.into())
        }
    }
}

impl ClientCertVerifier for Announced {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Announced {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates_from_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error: pem::Error| CertificateError::Pem(error.to_string()))?;
    if certificates.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(certificates) }
}

fn carries_name(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Some(name) = server_name(host) else { return false };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

/// The name a certificate for this host carries. An IPv6 address may stand in brackets.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare).ok().map(|name| name.to_owned())
}

/// AWS-LC, as everywhere: its suites are the AEAD ones with forward secrecy.
pub(super) static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
