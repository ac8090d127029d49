//! A handshake, driven in memory one record at a time: with a pre-shared key (our own engine as server
//! and for the suites it has, OpenSSL otherwise) or with certificates (rustls), whichever the client
//! asks for.

use super::announced::AnnouncedProfile;
use super::certificate::{Identity, PeerCertificate};
use super::certificate_handshake::CertificateHandshake;
use super::client_hello::{Front, front};
use super::psk_handshake::PskHandshake;
use super::psk12::Psk12Handshake;
use super::{Fingerprint, Profile, Psk, RECORD_BYTES_MAX, Session};

/// A handshake in progress, driven in memory.
pub struct Handshake {
    engine: Engine,
    with_certificates: bool,
    /// What a client has presented.
    peer_certificate: Option<PeerCertificate>,
}

/// Who performs it.
enum Engine {
    /// Server role: what the client wants is not known yet.
    Undecided(Profile),
    /// Server role, TLS 1.2 and one of our suites.
    Psk12(Box<Psk12Handshake>),
    /// Whatever else there is with a pre-shared key.
    Psk(Box<PskHandshake>),
    Certificate(Box<CertificateHandshake>),
    /// The session was handed out, or the handshake failed.
    Over,
}

/// Where a handshake stands after [`Handshake::advance`].
#[derive(Debug)]
pub enum Progress {
    /// Everything given was consumed (whole records), or what is left must be seen together with
    /// more: come back with the rest and more bytes.
    NeedInput,
    /// Server role: the client has named itself; look the identity up and call
    /// [`Handshake::provide_psk`], then `advance` again (with the rest of the input).
    NeedPsk,
    /// Done. The session carries data from the next byte of the input on.
    Done(Session),
}

/// The handshake failed. What was appended to `output` (an alert) is to be sent before closing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer's Finished (or binder) does not fit our key: wrong key or unknown identity.
    Authentication,
    /// The peer's certificate is not good.
    Certificate(CertificateFault),
    /// What we were to connect to has no name a certificate could carry.
    ServerName,
    /// No certificates are configured.
    NotConfigured,
    /// No suite or version in common.
    NoCommonParameters,
    /// The peer sent a fatal alert.
    AlertReceived(u8),
    /// The bytes are no handshake.
    Malformed,
    /// The TLS library refused for another reason.
    Other,
}

/// What is wrong with the certificate of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CertificateFault {
    /// None was presented.
    Missing,
    /// No authority we trust has issued it.
    UnknownIssuer,
    /// It is for other names than the one we connected to.
    NameMismatch,
    /// It is another one than was announced.
    Fingerprint,
    /// Its time is over.
    Expired,
    /// Its time has not begun.
    NotYetValid,
    /// It is not made for this use.
    Purpose,
    /// A signature in it or by its key is wrong.
    Signature,
    /// It cannot be read, or uses what we do not know.
    Unusable,
}

impl Handshake {
    /// We answer: with a pre-shared key or, if one is configured and the client does not ask for a
    /// key, with our certificate.
    pub fn server(profile: &Profile) -> Result<Self, HandshakeError> {
        Ok(Self::new(Engine::Undecided(profile.clone())))
    }

    /// We begin; the first `advance` (with no input) writes the ClientHello. The identity has at
    /// most [`IDENTITY_BYTES_MAX`] bytes and no NUL, else [`HandshakeError::Other`].
    pub fn client(profile: &Profile, identity: &[u8], psk: &Psk) -> Result<Self, HandshakeError> {
        Ok(Self::new(Engine::Psk(Box::new(PskHandshake::client(profile, identity, psk)?))))
    }

    /// We begin, and the server is to show a certificate for `host`: a DNS name or an IP address
    /// (an IPv6 address may stand in brackets, as in a URI). If it asks for ours, it gets it.
    pub fn certificate_client(profile: &Profile, host: &str) -> Result<Self, HandshakeError> {
        let certificates = profile.certificates.as_ref().ok_or(HandshakeError::NotConfigured)?;
        let handshake = CertificateHandshake::client(certificates, host, &[])?;
        Ok(Self::new(Engine::Certificate(Box::new(handshake))))
    }

    /// The same, and the certificate is the one that one of these stands for, whatever its names
    /// and issuer. Without any it is [`Handshake::certificate_client`].
    pub fn fingerprint_client(
        profile: &Profile,
        host: &str,
        fingerprints: &[Fingerprint],
    ) -> Result<Self, HandshakeError> {
        let certificates = profile.certificates.as_ref().ok_or(HandshakeError::NotConfigured)?;
        let handshake = CertificateHandshake::client(certificates, host, fingerprints)?;
        Ok(Self::new(Engine::Certificate(Box::new(handshake))))
    }

    /// We answer, and each end is known by the fingerprint of its certificate, ours being `identity`: the
    /// client is asked for one, and it is one of those that were announced or the handshake fails, before
    /// a byte of data has passed (RFC 8122 section 6.2).
    pub fn announced_server(
        profile: &AnnouncedProfile,
        identity: &Identity,
        fingerprints: &[Fingerprint],
    ) -> Result<Self, HandshakeError> {
        let handshake = CertificateHandshake::announced_server(profile, identity, fingerprints)?;
        Ok(Self::new(Engine::Certificate(Box::new(handshake))))
    }

    /// The same where we begin.
    pub fn announced_client(
        profile: &AnnouncedProfile,
        identity: &Identity,
        fingerprints: &[Fingerprint],
    ) -> Result<Self, HandshakeError> {
        let handshake = CertificateHandshake::announced_client(profile, identity, fingerprints)?;
        Ok(Self::new(Engine::Certificate(Box::new(handshake))))
    }

    fn new(engine: Engine) -> Self {
        let with_certificates = matches!(engine, Engine::Certificate(_));
        Self { engine, with_certificates, peer_certificate: None }
    }

    /// Takes whole records from the front of `input`, appends what must be sent to `output`.
    /// Returns how many bytes of `input` were taken (never part of a record, never a record after
    /// the one that completed the handshake) and where the handshake stands.
    ///
    /// # Panics
    /// If the handshake is over: completed or failed before.
    pub fn advance(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(usize, Progress), HandshakeError> {
        let result = self.advance_engine(input, output);
        match result {
            Ok((_, Progress::NeedInput | Progress::NeedPsk)) => {}
            Ok((_, Progress::Done(_))) | Err(_) => self.engine = Engine::Over,
        }
        result
    }

    fn advance_engine(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(usize, Progress), HandshakeError> {
        let mut consumed = 0;
        if let Engine::Undecided(profile) = &self.engine {
            let Some((engine, taken)) = decide(profile, input, output)? else {
                return Ok((0, Progress::NeedInput));
            };
            self.with_certificates = matches!(engine, Engine::Certificate(_));
            self.engine = engine;
            consumed = taken;
        }
        let input = &input[consumed..];
        let (taken, progress) = self.advance_decided(input, output)?;
        Ok((consumed + taken, progress))
    }

    fn advance_decided(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(usize, Progress), HandshakeError> {
        match &mut self.engine {
            Engine::Psk12(handshake) => handshake.advance(input, output),
            Engine::Psk(handshake) => handshake.advance(input, output),
            Engine::Certificate(handshake) => {
                let result = handshake.advance(input, output);
                self.peer_certificate = handshake.take_peer_certificate();
                result
            }
            Engine::Undecided(_) => unreachable!("decided before"),
            Engine::Over => panic!("the handshake is over"),
        }
    }

    /// The identity the client named, after [`Progress::NeedPsk`].
    #[must_use]
    pub fn identity(&self) -> &[u8] {
        match &self.engine {
            Engine::Psk12(handshake) => handshake.identity(),
            Engine::Psk(handshake) => handshake.identity(),
            Engine::Undecided(_) | Engine::Certificate(_) | Engine::Over => &[],
        }
    }

    /// Answers [`Progress::NeedPsk`]. `None`: unknown identity; the handshake goes on with a
    /// random key and fails exactly as it does for a wrong key.
    ///
    /// # Panics
    /// If nobody asked.
    pub fn provide_psk(&mut self, psk: Option<&Psk>) {
        match &mut self.engine {
            Engine::Psk12(handshake) => handshake.provide_psk(psk),
            Engine::Psk(handshake) => handshake.provide_psk(psk),
            Engine::Undecided(_) | Engine::Certificate(_) | Engine::Over => {
                panic!("nobody asked for a key")
            }
        }
    }

    /// Whether the handshake is one with certificates; known once it is complete. A client has then
    /// proved nothing, unless it presented one.
    #[must_use]
    pub fn is_with_certificates(&self) -> bool {
        self.with_certificates
    }

    /// Server role, after [`Progress::Done`]: the certificate the client presented, if it did.
    /// The client has proved to have its key, nothing else is checked yet.
    pub fn take_peer_certificate(&mut self) -> Option<PeerCertificate> {
        self.peer_certificate.take()
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.engine {
            Engine::Undecided(_) => "Handshake(undecided)",
            Engine::Psk12(_) => "Handshake(PSK, TLS 1.2)",
            Engine::Psk(_) => "Handshake(PSK)",
            Engine::Certificate(_) => "Handshake(certificate)",
            Engine::Over => "Handshake(over)",
        })
    }
}

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Authentication => "wrong pre-shared key or unknown identity",
            Self::Certificate(fault) => return fault.fmt(f),
            Self::ServerName => "the host to connect to is no DNS name and no IP address",
            Self::NotConfigured => "no certificates are configured",
            Self::NoCommonParameters => "no TLS version or suite in common",
            Self::AlertReceived(description) => {
                return write!(f, "the peer sent TLS alert {description}");
            }
            Self::Malformed => "malformed TLS handshake",
            Self::Other => "the TLS library refused",
        })
    }
}

impl std::error::Error for HandshakeError {}

impl std::fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "the peer presented no certificate",
            Self::UnknownIssuer => "the certificate of the peer has no trusted issuer",
            Self::NameMismatch => "the certificate of the peer is for another name",
            Self::Fingerprint => "the certificate of the peer is not the one announced",
            Self::Expired => "the certificate of the peer has expired",
            Self::NotYetValid => "the certificate of the peer is not valid yet",
            Self::Purpose => "the certificate of the peer is for another purpose",
            Self::Signature => "a signature in the certificate of the peer or by its key is wrong",
            Self::Unusable => "the certificate of the peer cannot be used",
        })
    }
}

/// Who is to perform a handshake, and how many bytes of the input that engine has taken already.
/// `None`: the ClientHello is not whole yet.
fn decide(
    profile: &Profile,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<Option<(Engine, usize)>, HandshakeError> {
    let hello = match front(input) {
        Front::NeedInput => return Ok(None),
        Front::Hello(hello) => Some(hello),
        Front::Other => None,
    };
    let wants_psk = hello.as_ref().is_some_and(|hello| hello.wants_psk(profile.tls13));
    if let Some(hello) = &hello
        && wants_psk
        && let Some(handshake) = Psk12Handshake::answer(profile, hello, output)
    {
        return Ok(Some((Engine::Psk12(Box::new(handshake)), hello.consumed)));
    }
    let engine = match &profile.certificates {
        Some(certificates) if !wants_psk => {
            Engine::Certificate(Box::new(CertificateHandshake::server(certificates)?))
        }
        // Whatever is broken is OpenSSL's to refuse.
        Some(_) | None => Engine::Psk(Box::new(PskHandshake::server(profile)?)),
    };
    Ok(Some((engine, 0)))
}

/// The whole record at the front, if there is one. Bytes that cannot be TLS are refused at once
/// rather than awaited.
pub(super) fn front_record(input: &[u8]) -> Result<Option<&[u8]>, HandshakeError> {
    if let Some(&content_type) = input.first()
        && !(20..=23).contains(&content_type)
    {
        return Err(HandshakeError::Malformed);
    }
    let &[_, major, _, high, low, ..] = input else {
        return Ok(None);
    };
    let length = 5 + usize::from(u16::from_be_bytes([high, low]));
    if major != 3 || length > RECORD_BYTES_MAX {
        return Err(HandshakeError::Malformed);
    }
    Ok(input.get(..length))
}

/// OpenSSL's `PSK_MAX_IDENTITY_LEN`; RFC 4279 section 5.3 demands 128.
pub const IDENTITY_BYTES_MAX: usize = 256;
