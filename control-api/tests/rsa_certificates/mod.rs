//! X.509 certificates with RSA keys, as MIKEY uses them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

/// A certificate with its key; it may vouch for others.
pub(crate) struct Issuer {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
    /// In seconds since 1970.
    pub(crate) validity: Range<i64>,
}

pub(crate) fn rsa_key(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).expect("a key")).expect("a key")
}

pub(crate) fn certificate(
    name: &str,
    uri: Option<&str>,
    key: &PKey<Private>,
    issuer: Option<&Issuer>,
    validity: &Range<i64>,
) -> X509 {
    let mut names = X509NameBuilder::new().expect("a name");
    names.append_entry_by_text("CN", name).expect("a name");
    let subject = names.build();
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("version 3");
    let serial = BigNum::from_u32(name.len() as u32 + 1).expect("a number");
    builder.set_serial_number(&serial.to_asn1_integer().expect("a number")).expect("a number");
    builder.set_subject_name(&subject).expect("a name");
    let issuer_name = issuer.map_or(&*subject, |issuer| issuer.certificate.subject_name());
    builder.set_issuer_name(issuer_name).expect("a name");
    builder.set_not_before(&Asn1Time::from_unix(validity.start).expect("a time")).expect("a time");
    builder.set_not_after(&Asn1Time::from_unix(validity.end).expect("a time")).expect("a time");
    builder.set_pubkey(key).expect("a key");
    match uri {
        Some(uri) => {
            let mut names = SubjectAlternativeName::new();
            let context = builder.x509v3_context(None, None);
            let names = names.uri(uri).build(&context).expect("a URI");
            builder.append_extension(names).expect("an extension");
        }
        None => {
            let authority = BasicConstraints::new().critical().ca().build().expect("an authority");
            builder.append_extension(authority).expect("an extension");
        }
    }
    let signing = issuer.map_or(key, |issuer| &issuer.key);
    builder.sign(signing, MessageDigest::sha256()).expect("signed");
    builder.build()
}

impl Issuer {
    /// Certificate and key in files of that name, PEM.
    #[allow(dead_code, reason = "not every test file needs files")]
    pub(crate) fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let paths = (folder.join(name), folder.join(format!("{name}-key")));
        std::fs::write(&paths.0, self.certificate.to_pem().expect("PEM")).expect("written");
        let key = self.key.private_key_to_pem_pkcs8().expect("PEM");
        std::fs::write(&paths.1, key).expect("written");
        paths
    }
}

/// One that vouches for itself.
pub(crate) fn authority_until(name: &str, validity: Range<i64>) -> Issuer {
    let key = rsa_key(2048);
    Issuer { certificate: certificate(name, None, &key, None, &validity), key, validity }
}

/// One that another vouches for, for as long as that is valid; with a URI it is a user's.
pub(crate) fn issue(name: &str, uri: Option<&str>, issuer: &Issuer) -> Issuer {
    let (key, validity) = (rsa_key(2048), issuer.validity.clone());
    Issuer { certificate: certificate(name, uri, &key, Some(issuer), &validity), key, validity }
}
