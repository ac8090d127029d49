//! Profiles with certificates, and a stock rustls end that keeps its own record layer.

use std::io::{Read, Write};
use std::sync::Arc;

use mrfp_protocol::tls::{
    Authorities, CertificateConfig, Handshake, Identity, Profile, ProfileConfig,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig};
use rustls::{ServerConnection, SupportedCipherSuite, SupportedProtocolVersion};

use super::End;
pub use super::authority::{Authority, Issued};

pub const HOST: &str = "relay.example.com";

impl Authority {
    pub fn authorities(&self) -> Authorities {
        Authorities::from_pem(self.pem.as_bytes()).unwrap()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }
}

impl Issued {
    pub fn identity(&self) -> Identity {
        Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        (chain.collect::<Result<_, _>>().unwrap(), key)
    }
}

/// A profile that shows `issued` and trusts `authority`, PSK as configured.
pub fn profile_with(psk: &ProfileConfig, issued: &Issued, authority: &Authority) -> Profile {
    let certificates =
        CertificateConfig { identity: issued.identity(), authorities: authority.authorities() };
    Profile::new(psk).unwrap().with_certificates(&certificates).unwrap()
}

/// The same with the PSK defaults.
pub fn profile(issued: &Issued, authority: &Authority) -> Profile {
    profile_with(&ProfileConfig::default(), issued, authority)
}

/// A profile for [`HOST`], and its authority.
pub fn host_profile() -> (Profile, Authority) {
    let authority = Authority::new("test authority");
    let profile = profile(&authority.issue(&[HOST]), &authority);
    (profile, authority)
}

pub fn client(profile: &Profile, host: &str) -> End {
    End::new(Handshake::certificate_client(profile, host).unwrap(), None)
}

/// A stock end.
pub struct Stock(pub Connection);

pub struct StockConfig {
    pub versions: Vec<&'static SupportedProtocolVersion>,
    pub suites: Vec<SupportedCipherSuite>,
    /// What it shows to a server that asks (client role), or shows (server role).
    pub identity: Option<Issued>,
}

impl Default for StockConfig {
    fn default() -> Self {
        Self {
            versions: rustls::ALL_VERSIONS.to_vec(),
            suites: rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES.to_vec(),
            identity: None,
        }
    }
}

impl StockConfig {
    fn provider(&self) -> Arc<CryptoProvider> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Arc::new(CryptoProvider { cipher_suites: self.suites.clone(), ..provider })
    }

    pub fn client(self, authority: &Authority) -> Stock {
        let builder = ClientConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(authority.roots());
        let config = match &self.identity {
            Some(issued) => {
                let (chain, key) = issued.parts();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let name = HOST.try_into().unwrap();
        Stock(ClientConnection::new(Arc::new(config), name).unwrap().into())
    }

    pub fn server(self) -> Stock {
        let (chain, key) = self.identity.as_ref().unwrap().parts();
        let mut config = ServerConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.send_half_rtt_data = true;
        Stock(ServerConnection::new(Arc::new(config)).unwrap().into())
    }
}

impl Stock {
    /// Takes all of `input`; what it wants to send.
    pub fn turn(&mut self, mut input: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut result = Ok(());
        while !input.is_empty() && result.is_ok() {
            self.0.read_tls(&mut input).unwrap();
            result = self.0.process_new_packets().map(|_| ());
        }
        let mut output = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut output).unwrap();
        }
        result.map(|()| output)
    }

    pub fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.0.writer().write_all(plaintext).unwrap();
        self.turn(&[]).unwrap()
    }

    pub fn open(&mut self, records: &[u8], length: usize) -> Vec<u8> {
        let mut plaintext = vec![0; length];
        let output = self.turn(records).unwrap();
        assert!(output.is_empty());
        self.0.reader().read_exact(&mut plaintext).unwrap();
        plaintext
    }

    /// Runs the handshake; both must complete it.
    pub fn shake(&mut self, ours: &mut End) {
        for _ in 0..10 {
            ours.work();
            let input = std::mem::take(&mut ours.output);
            ours.input.extend(self.turn(&input).unwrap());
        }
        assert_eq!(ours.error, None);
        assert!(ours.session.is_some());
        assert!(!self.0.is_handshaking());
    }
}
