//! A UE with a TLS of its own, none of ours: rustls as it is.
#![allow(unreachable_pub, reason = "as in the other worlds of these tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mrfp_io::PeerId;
use mrfp_protocol::tls::Identity;
use rcgen::{CertifiedKey, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::world::Gateway;

pub struct Stock {
    peer: PeerId,
    connection: ClientConnection,
    received: Vec<u8>,
    pub failure: Option<rustls::Error>,
}

impl Stock {
    pub fn identity() -> (Identity, CertifiedKey<KeyPair>) {
        let issued = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        let (chain, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
        (Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap(), issued)
    }

    pub fn without_certificate(gateway: &mut Gateway, address: SocketAddr) -> Self {
        let config = builder().with_no_client_auth();
        Self::connect(gateway, address, config)
    }

    pub fn with_certificate(
        gateway: &mut Gateway,
        address: SocketAddr,
        issued: &CertifiedKey<KeyPair>,
    ) -> Self {
        let chain = vec![issued.cert.der().clone()];
        let key = PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let config = builder().with_client_auth_cert(chain, key).unwrap();
        Self::connect(gateway, address, config)
    }

    fn connect(gateway: &mut Gateway, address: SocketAddr, config: ClientConfig) -> Self {
        let name = ServerName::from(address.ip());
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let peer = gateway.world.shard.driver_mut().peer_connect(address);
        Self { peer, connection, received: Vec::new(), failure: None }
    }

    /// Lets everything happen that can.
    pub fn work(&mut self, gateway: &mut Gateway) {
        for _ in 0..6 {
            self.flush(gateway);
            gateway.world.settle();
            let arrived = gateway.world.shard.driver_mut().peer_received(self.peer);
            let mut arrived = &arrived[..];
            while !arrived.is_empty() && self.failure.is_none() {
                self.connection.read_tls(&mut arrived).unwrap();
                self.failure = self.connection.process_new_packets().err();
            }
            match self.connection.reader().read_to_end(&mut self.received) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }

    pub fn update_keys(&mut self) {
        self.connection.refresh_traffic_keys().unwrap();
    }

    pub fn send(&mut self, gateway: &mut Gateway, bytes: &[u8]) {
        self.connection.writer().write_all(bytes).unwrap();
        self.flush(gateway);
    }

    pub fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    fn flush(&mut self, gateway: &mut Gateway) {
        let mut wire = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut wire).unwrap();
        }
        gateway.world.shard.driver_mut().peer_send(self.peer, &wire);
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// What the node shows is a matter of the other tests.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
