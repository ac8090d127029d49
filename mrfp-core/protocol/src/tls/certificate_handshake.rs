//! The handshake with certificates: rustls, driven in memory one record at a time. It takes no record
//! behind its own, so no application data ever lie in its buffers; at the end it hands over its keys.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CipherSuite, ClientConnection, Connection, ConnectionTrafficSecrets,
    ExtractedSecrets, KeyLog, ProtocolVersion, ServerConnection,
};

use super::Session;
use super::announced::AnnouncedProfile;
use super::certificate::{
    Announced, Certificates, Identity, PeerCertificate, announced_client, announced_server,
    server_name,
};
use super::fingerprint::Fingerprint;
use super::handshake::{CertificateFault, HandshakeError, Progress, front_record};
use super::keys::{DirectionKeys, Role, TrafficKeys, TrafficSecrets};
use super::record::RecordLayer;
use super::suite::{Suite, Version, suite_by_name};

/// A handshake with certificates, under way.
pub(super) struct CertificateHandshake {
    /// Gone when the handshake is complete.
    connection: Option<Connection>,
    secrets: Arc<SecretLog>,
    /// Server role: to judge what the client presents.
    certificates: Option<Certificates>,
    peer_certificate: Option<PeerCertificate>,
    /// The peer is known by fingerprints, whatever the names in its certificate.
    by_fingerprint: bool,
}

impl CertificateHandshake {
    /// We answer, and both ends are known by fingerprint.
    pub(super) fn announced_server(
        profile: &AnnouncedProfile,
        identity: &Identity,
        fingerprints: &[Fingerprint],
    ) -> Result<Self, HandshakeError> {
        let secrets = Arc::<SecretLog>::default();
        let made = announced_server(profile, identity, fingerprints).and_then(|mut config| {
            config.key_log = Arc::clone(&secrets) as _;
            ServerConnection::new(Arc::new(config))
        });
        let connection = made.map_err(|error| reason_of(&error))?;
        Ok(Self { by_fingerprint: true, ..Self::new(connection.into(), secrets, None) })
    }

    /// We begin, and both ends are known by fingerprint.
    pub(super) fn announced_client(
        profile: &AnnouncedProfile,
        identity: &Identity,
        fingerprints: &[Fingerprint],
    ) -> Result<Self, HandshakeError> {
        let secrets = Arc::<SecretLog>::default();
        // The name of an address is never sent, and nobody compares it.
        let nobody = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let made = announced_client(profile, identity, fingerprints).and_then(|mut config| {
            config.key_log = Arc::clone(&secrets) as _;
            ClientConnection::new(Arc::new(config), nobody)
        });
        let connection = made.map_err(|error| reason_of(&error))?;
        Ok(Self { by_fingerprint: true, ..Self::new(connection.into(), secrets, None) })
    }

    /// We answer.
    pub(super) fn server(certificates: &Certificates) -> Result<Self, HandshakeError> {
        let secrets = Arc::<SecretLog>::default();
        let mut config = (*certificates.server).clone();
        config.key_log = Arc::clone(&secrets) as _;
        let connection =
            ServerConnection::new(Arc::new(config)).map_err(|error| reason_of(&error))?;
        Ok(Self::new(connection.into(), secrets, Some(certificates.clone())))
    }

    /// We begin. Without fingerprints the name counts.
    pub(super) fn client(
        certificates: &Certificates,
        host: &str,
        fingerprints: &[Fingerprint],
    ) -> Result<Self, HandshakeError> {
        let name = server_name(host).ok_or(HandshakeError::ServerName)?;
        let secrets = Arc::<SecretLog>::default();
        let mut config = (*certificates.client).clone();
        config.key_log = Arc::clone(&secrets) as _;
        if !fingerprints.is_empty() {
            let announced = Announced(fingerprints.to_vec());
            config.dangerous().set_certificate_verifier(Arc::new(announced));
        }
        let connection =
            ClientConnection::new(Arc::new(config), name).map_err(|error| reason_of(&error))?;
        let by_fingerprint = !fingerprints.is_empty();
        Ok(Self { by_fingerprint, ..Self::new(connection.into(), secrets, None) })
    }

    fn new(
        connection: Connection,
        secrets: Arc<SecretLog>,
        certificates: Option<Certificates>,
    ) -> Self {
        Self {
            connection: Some(connection),
            secrets,
            certificates,
            peer_certificate: None,
            by_fingerprint: false,
        }
    }

    /// See [`Handshake::advance`](super::Handshake::advance).
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(usize, Progress), HandshakeError> {
        // A client has its ClientHello ready from the beginning.
        let connection = self.connection.as_mut().ok_or(HandshakeError::Other)?;
        write_out(connection, output)?;
        let mut consumed = 0;
        while let Some(record) = front_record(&input[consumed..])? {
            consumed += record.len();
            if self.step(record, output)? {
                return Ok((consumed, Progress::Done(self.take_session()?)));
            }
        }
        Ok((consumed, Progress::NeedInput))
    }

    /// Lets rustls work on one record. True: the handshake is complete.
    fn step(&mut self, mut record: &[u8], output: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        let connection = self.connection.as_mut().ok_or(HandshakeError::Other)?;
        while !record.is_empty() {
            // Its buffer takes no more only if what is in it makes no message.
            if connection.read_tls(&mut record).map_err(|_| HandshakeError::Malformed)? == 0 {
                return Err(HandshakeError::Malformed);
            }
        }
        let result = connection.process_new_packets();
        // After an error that is the alert.
        write_out(connection, output)?;
        result.map_err(|error| match reason_of(&error) {
            HandshakeError::Certificate(CertificateFault::NameMismatch) if self.by_fingerprint => {
                HandshakeError::Certificate(CertificateFault::Fingerprint)
            }
            reason => reason,
        })?;
        Ok(!connection.is_handshaking())
    }

    /// Takes the keys over; rustls goes.
    fn take_session(&mut self) -> Result<Session, HandshakeError> {
        let connection = self.connection.take().ok_or(HandshakeError::Other)?;
        let suite = connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite_of(suite.suite()))
            .ok_or(HandshakeError::Other)?;
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => Version::Tls12,
            Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
            Some(_) | None => return Err(HandshakeError::Other),
        };
        if version != suite.version {
            return Err(HandshakeError::Other);
        }
        if let Some(certificates) = &self.certificates {
            let chain = connection.peer_certificates().unwrap_or_default();
            self.peer_certificate = certificates.judge(chain);
        }
        let role = match &connection {
            Connection::Client(_) => Role::Client,
            Connection::Server(_) => Role::Server,
        };
        let secrets = connection.dangerous_extract_secrets().map_err(|_| HandshakeError::Other)?;
        let keys = match version {
            Version::Tls12 => tls12_keys(suite, role, &secrets)?,
            Version::Tls13 => self.tls13_keys(suite, role, &secrets)?,
        };
        Ok(Session::from_record_layer(Box::new(RecordLayer::new(keys))))
    }

    /// The traffic secrets, and not only the keys made from them: key updates start from there.
    fn tls13_keys(
        &self,
        suite: &'static Suite,
        role: Role,
        extracted: &ExtractedSecrets,
    ) -> Result<TrafficKeys, HandshakeError> {
        let secrets = self.secrets.take();
        let keys = secrets.traffic_keys(suite, role).ok_or(HandshakeError::Other)?;
        // Both must be what rustls would go on with: the same generation, at its first record.
        for (ours, (sequence, theirs)) in
            [(&keys.read, &extracted.rx), (&keys.write, &extracted.tx)]
        {
            if ours.sequence != *sequence || ours.iv != parts(theirs)?.1 {
                return Err(HandshakeError::Other);
            }
        }
        Ok(keys)
    }

    /// What the client presented; known once the handshake is complete.
    pub(super) fn take_peer_certificate(&mut self) -> Option<PeerCertificate> {
        self.peer_certificate.take()
    }
}

fn tls12_keys(
    suite: &'static Suite,
    role: Role,
    extracted: &ExtractedSecrets,
) -> Result<TrafficKeys, HandshakeError> {
    let direction = |(sequence, secrets): &(u64, ConnectionTrafficSecrets)| {
        // rustls XORs the sequence number into the explicit nonce and we count it up: they agree
        // where one record, the Finished, has been sent.
        if *sequence != 1 {
            return Err(HandshakeError::Other);
        }
        let (key, iv) = parts(secrets)?;
        Ok(DirectionKeys::tls12(key, iv))
    };
    let (read, write) = (direction(&extracted.rx)?, direction(&extracted.tx)?);
    Ok(TrafficKeys::of_directions(suite, role, read, write))
}

/// Key and IV.
fn parts(secrets: &ConnectionTrafficSecrets) -> Result<(&[u8], &[u8]), HandshakeError> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key.as_ref(), iv.as_ref())),
        _ => Err(HandshakeError::Other),
    }
}

fn write_out(connection: &mut Connection, output: &mut Vec<u8>) -> Result<(), HandshakeError> {
    while connection.wants_write() {
        connection.write_tls(output).map_err(|_| HandshakeError::Other)?;
    }
    Ok(())
}

/// rustls hands the TLS 1.3 traffic secrets out by its key log only. One log per handshake, since
/// the log is part of the configuration.
#[derive(Default)]
struct SecretLog(Mutex<TrafficSecrets>);

impl SecretLog {
    fn take(&self) -> TrafficSecrets {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl KeyLog for SecretLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).record(label, secret);
    }

    fn will_log(&self, label: &str) -> bool {
        TrafficSecrets::wants(label)
    }
}

impl std::fmt::Debug for SecretLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretLog(redacted)")
    }
}

pub(super) fn suite_of(suite: CipherSuite) -> Option<&'static Suite> {
    let name = match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    };
    suite_by_name(name)
}

fn reason_of(error: &rustls::Error) -> HandshakeError {
    match error {
        rustls::Error::InvalidCertificate(error) => HandshakeError::Certificate(fault_of(error)),
        rustls::Error::NoCertificatesPresented => {
            HandshakeError::Certificate(CertificateFault::Missing)
        }
        rustls::Error::PeerIncompatible(_) => HandshakeError::NoCommonParameters,
        rustls::Error::AlertReceived(description) => {
            HandshakeError::AlertReceived(alert_number(*description))
        }
        rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. }
        | rustls::Error::InvalidMessage(_)
        | rustls::Error::PeerMisbehaved(_)
        | rustls::Error::DecryptError
        | rustls::Error::PeerSentOversizedRecord => HandshakeError::Malformed,
        _ => HandshakeError::Other,
    }
}

fn fault_of(error: &rustls::CertificateError) -> CertificateFault {
    use rustls::CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => CertificateFault::Expired,
        E::NotValidYet | E::NotValidYetContext { .. } => CertificateFault::NotYetValid,
        E::UnknownIssuer => CertificateFault::UnknownIssuer,
        E::NotValidForName | E::NotValidForNameContext { .. } => CertificateFault::NameMismatch,
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => CertificateFault::Purpose,
        E::BadSignature => CertificateFault::Signature,
        _ => CertificateFault::Unusable,
    }
}

fn alert_number(description: AlertDescription) -> u8 {
    u8::from(description)
}
