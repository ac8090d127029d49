//! Certificates that nobody vouches for.

use mrfp_protocol::tls::Fingerprint;
use mrfp_protocol::tls::dtls::Credentials;
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};

/// A certificate and its key, as OpenSSL has them.
#[derive(Clone)]
pub struct Certified {
    pub certificate: X509,
    pub key: PKey<Private>,
}

impl Certified {
    pub fn ecdsa() -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        Self::of(PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap())
    }

    pub fn rsa() -> Self {
        Self::of(PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap())
    }

    fn of(key: PKey<Private>) -> Self {
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", "someone").unwrap();
        let name = name.build();
        let mut serial = BigNum::new().unwrap();
        serial.rand(100, MsbOption::MAYBE_ZERO, false).unwrap();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Self { certificate: builder.build(), key }
    }

    pub fn credentials(&self) -> Credentials {
        let key = self.key.private_key_to_pkcs8().unwrap();
        Credentials::from_der(&self.certificate.to_der().unwrap(), &key).unwrap()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate.to_der().unwrap())
    }

    /// In SDP, by a hash of that name.
    pub fn fingerprint_by(&self, name: &str, hash: MessageDigest) -> Fingerprint {
        let digest = self.certificate.digest(hash).unwrap();
        let digits: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Fingerprint::parse(&format!("{name} {}", digits.join(":"))).unwrap()
    }
}
