//! Public keys in exchanges with the KMS: REQUEST_INIT_PK and RESOLVE_INIT_PK are signed, and carry a
//! fresh key in an envelope for the KMS (RFC 3830 sections 3.2 and 4.2.5, RFC 6043 section 4.2.1.3).
//!
//! Certificates are X.509, keys RSA, which RFC 3830 makes mandatory. It leaves the hash of signatures
//! to the certificate; ours is SHA-256, as SHA-1 can be made to collide.

use std::fmt;

use openssl::encrypt::{Decrypter, Encrypter};
use openssl::hash::MessageDigest;
use openssl::pkey::{HasPublic, Id, PKey, PKeyRef, Private, Public};
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Signer, Verifier};
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509StoreContext};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::NtpTime;
use super::codec::code_point::{
    CERTIFICATE_X509, HASH_SHA_256, SIGNATURE_RSA_PKCS1, SIGNATURE_RSA_PSS,
};
use super::codec::{self, Message, Payload};
use super::error::{CertificateProblem, Error};
use super::uri::normalise;

/// Shortest RSA key taken: what public authorities sign since 2014.
const RSA_BITS_MIN: u32 = 2048;
/// Longest: its signature has to fit the 12 bits of a length in SIGN.
const RSA_BITS_MAX: u32 = 16 * 1024;
/// Most certificates of one message that are looked at: a chain of an enterprise has three or four.
const CHAIN_MAX: usize = 8;

/// Of a PSS signature: its salt is as long as it is.
const PSS_SALT_AS_SIGNED: i32 = -2;

/// A private key and the certificates that vouch for its public half, the own one first.
#[derive(Clone)]
pub struct KeyPair {
    certificates: Vec<Vec<u8>>,
    key: PKey<Private>,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({} certificates, redacted)", self.certificates.len())
    }
}

impl KeyPair {
    /// From PEM: the chain of certificates, and the key in PKCS #8 or PKCS #1.
    ///
    /// # Errors
    /// [`Error::Certificate`]: one of them cannot be read, or the key is not the certificate's.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, Error> {
        let malformed = |_| Error::Certificate(CertificateProblem::Malformed);
        let chain = X509::stack_from_pem(certificates).map_err(malformed)?;
        let key = PKey::private_key_from_pem(key).map_err(malformed)?;
        let own = chain.first().ok_or(Error::Certificate(CertificateProblem::Missing))?;
        let public = rsa_key(own)?;
        if !public.public_eq(&key) {
            return Err(Error::Certificate(CertificateProblem::Key));
        }
        let certificates = chain.iter().map(|certificate| certificate.to_der().map_err(malformed));
        Ok(Self { certificates: certificates.collect::<Result<_, _>>()?, key })
    }

    /// Our own certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificates[0]
    }

    /// The chain, each certificate in a payload of its own, ours first (RFC 6043 section 4.2.1.3).
    pub(super) fn certificate_payloads(&self) -> impl Iterator<Item = Payload> {
        self.certificates.iter().map(|certificate| Payload::Certificate {
            certificate_type: CERTIFICATE_X509,
            data: certificate.clone(),
        })
    }

    /// Appends SIGN to a message and encodes it. The signature covers the message up to itself and
    /// the identities (RFC 6043 section 5.5).
    pub(crate) fn sign(
        &self,
        mut message: Message,
        identities: &[&[u8]],
    ) -> Result<Vec<u8>, Error> {
        let unusable = |_| Error::Certificate(CertificateProblem::Key);
        let length = self.key.size();
        message.payloads.push(Payload::Sign {
            signature_type: SIGNATURE_RSA_PKCS1,
            signature: vec![0; length],
        });
        let mut bytes = codec::encode(&message);
        let signature_at = bytes.len() - length;
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).map_err(unusable)?;
        signer.update(&bytes[..signature_at]).map_err(unusable)?;
        for identity in identities {
            signer.update(identity).map_err(unusable)?;
        }
        let signature = signer.sign_to_vec().map_err(unusable)?;
        bytes[signature_at..].copy_from_slice(&signature);
        Ok(bytes)
    }

    /// Opens an envelope that was made for this key. Only for messages whose signature was verified:
    /// nobody else gets to try ciphertexts.
    pub(crate) fn open_envelope(&self, message: &Message) -> Result<Zeroizing<Vec<u8>>, Error> {
        let ours = Sha256::digest(self.certificate());
        if message.certificate_hash().is_some_and(|named| named != (HASH_SHA_256, &ours)) {
            return Err(Error::Envelope);
        }
        let envelope = message.envelope().ok_or(Error::MissingPayload("PKE"))?;
        let opened = |padding| {
            let mut decrypter = Decrypter::new(&self.key)?;
            decrypter.set_rsa_padding(padding)?;
            let mut key = Zeroizing::new(vec![0; decrypter.decrypt_len(envelope)?]);
            let length = decrypter.decrypt(envelope, &mut key)?;
            key.truncate(length);
            Ok::<_, openssl::error::ErrorStack>(key)
        };
        // RFC 3830 section 4.2.5: PKCS #1 version 1.5 is mandatory, OAEP recommended, and nothing in
        // the message says which. OAEP is certain of its answer, so it is tried first; the other
        // one gives random bytes where the envelope is wrong.
        opened(Padding::PKCS1_OAEP).or_else(|_| opened(Padding::PKCS1)).map_err(|_| Error::Envelope)
    }
}

/// An envelope and what says for whom it is.
pub(super) struct Envelope {
    pub(super) envelope: Payload,
    pub(super) certificate_hash: Payload,
}

/// Who may vouch for certificates.
pub struct Authorities {
    certificates: Vec<X509>,
}

/// Who has signed a message.
pub(crate) struct SignedBy {
    /// Names the certificate.
    pub(crate) fingerprint: [u8; 32],
}

impl Authorities {
    /// From PEM: their certificates.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn from_pem(certificates: &[u8]) -> Result<Self, Error> {
        match X509::stack_from_pem(certificates) {
            Ok(certificates) if !certificates.is_empty() => Ok(Self { certificates }),
            Ok(_) => Err(Error::Certificate(CertificateProblem::Missing)),
            Err(_) => Err(Error::Certificate(CertificateProblem::Malformed)),
        }
    }

    /// Whether a key can be put into an envelope for the owner of this certificate, DER.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn check_recipient(certificate: &[u8]) -> Result<(), Error> {
        let malformed = |_| Error::Certificate(CertificateProblem::Malformed);
        rsa_key(&X509::from_der(certificate).map_err(malformed)?).map(|_| ())
    }

    /// Puts a key into an envelope for the owner of a certificate.
    pub(super) fn encrypt_for(certificate: &[u8], key: &[u8]) -> Result<Envelope, Error> {
        let malformed = |_| Error::Certificate(CertificateProblem::Malformed);
        let public = rsa_key(&X509::from_der(certificate).map_err(malformed)?)?;
        let encrypted = || {
            let mut encrypter = Encrypter::new(&public)?;
            encrypter.set_rsa_padding(Padding::PKCS1)?;
            let mut data = vec![0; encrypter.encrypt_len(key)?];
            let length = encrypter.encrypt(key, &mut data)?;
            data.truncate(length);
            Ok::<_, openssl::error::ErrorStack>(data)
        };
        let data = encrypted().map_err(|_| Error::Certificate(CertificateProblem::Key))?;
        let hash = Sha256::digest(certificate).to_vec();
        Ok(Envelope {
            envelope: Payload::Pke { cache: 0, data },
            certificate_hash: Payload::CertificateHash { function: HASH_SHA_256, hash },
        })
    }

    /// Checks that the message is signed by the owner of a certificate that names `uri`, is vouched
    /// for and valid at this time.
    pub(crate) fn verify(
        &self,
        message: &Message,
        bytes: &[u8],
        uri: &str,
        identities: &[&[u8]],
        now: NtpTime,
    ) -> Result<SignedBy, Error> {
        let problem = |problem| Error::Certificate(problem);
        let mut chain = message.certificates().take(CHAIN_MAX).map(X509::from_der);
        let own = chain.next().ok_or(problem(CertificateProblem::Missing))?;
        let own = own.map_err(|_| problem(CertificateProblem::Malformed))?;
        let mut others = Stack::new().map_err(|_| problem(CertificateProblem::Malformed))?;
        for other in chain {
            let other = other.map_err(|_| problem(CertificateProblem::Malformed))?;
            others.push(other).map_err(|_| problem(CertificateProblem::Malformed))?;
        }
        let trusted = self.is_trusted(&own, &others, now);
        if !trusted.map_err(|_| problem(CertificateProblem::Untrusted))? {
            return Err(problem(CertificateProblem::Untrusted));
        }
        if !names(&own, uri) {
            return Err(problem(CertificateProblem::OtherIdentity));
        }
        let key = rsa_key(&own)?;
        verify_signature(&key, message, bytes, identities)?;
        let der = message.certificates().next().expect("it was read");
        Ok(SignedBy { fingerprint: Sha256::digest(der).into() })
    }

    fn is_trusted(
        &self,
        certificate: &X509,
        others: &Stack<X509>,
        now: NtpTime,
    ) -> Result<bool, openssl::error::ErrorStack> {
        let mut context = X509StoreContext::new()?;
        let store = self.store(now)?;
        context.init(&store, certificate, others, |context| context.verify_cert())
    }

    /// With our time: the library would take the machine's.
    fn store(&self, now: NtpTime) -> Result<X509Store, openssl::error::ErrorStack> {
        let mut parameters = X509VerifyParam::new()?;
        parameters.set_time(now.to_unix_seconds());
        let mut store = X509StoreBuilder::new()?;
        for certificate in &self.certificates {
            store.add_cert(certificate.clone())?;
        }
        store.set_param(&parameters)?;
        Ok(store.build())
    }
}

fn rsa_key(certificate: &X509) -> Result<PKey<Public>, Error> {
    let unusable = || Error::Certificate(CertificateProblem::Key);
    let key = certificate.public_key().map_err(|_| unusable())?;
    let usable = key.id() == Id::RSA && (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&key.bits());
    if usable { Ok(key) } else { Err(unusable()) }
}

/// Whether the subjectAltName has this URI.
fn names(certificate: &X509, uri: &str) -> bool {
    let uri = normalise(uri);
    let names = certificate.subject_alt_names();
    names.is_some_and(|names| {
        names.iter().filter_map(|name| name.uri()).any(|named| normalise(named) == uri)
    })
}

fn verify_signature<K: HasPublic>(
    key: &PKeyRef<K>,
    message: &Message,
    bytes: &[u8],
    identities: &[&[u8]],
) -> Result<(), Error> {
    let (signature_type, signature) = message.signature().ok_or(Error::MissingPayload("SIGN"))?;
    let padding = match signature_type {
        SIGNATURE_RSA_PKCS1 => Padding::PKCS1,
        SIGNATURE_RSA_PSS => Padding::PKCS1_PSS,
        _ => return Err(Error::Certificate(CertificateProblem::SignatureType)),
    };
    let covered = &bytes[..bytes.len() - signature.len()];
    let verified = || {
        let mut verifier = Verifier::new(MessageDigest::sha256(), key)?;
        verifier.set_rsa_padding(padding)?;
        if padding == Padding::PKCS1_PSS {
            verifier.set_rsa_pss_saltlen(RsaPssSaltlen::custom(PSS_SALT_AS_SIGNED))?;
        }
        verifier.update(covered)?;
        for identity in identities {
            verifier.update(identity)?;
        }
        verifier.verify(signature)
    };
    match verified() {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Error::WrongSignature),
    }
}
