//! The parties of an exchange with certificates, of one authority.
#![allow(dead_code, reason = "each user needs a part of it")]

use control_api::kms::PublicKeyService;
use control_api::mikey::codec::code_point::ROLE_KMS;
use control_api::mikey::codec::{self, Message, Payload};
use control_api::mikey::{Authorities, KeyPair, Suite};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

use crate::mikey_world::{ALICE, KMS_URI, ROOM, World};

/// Valid around the time of the tests, 1 790 000 000.
const NOT_BEFORE: i64 = 1_789_000_000;
pub(crate) const NOT_AFTER: i64 = 1_791_000_000;

pub(crate) struct Issuer {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

pub(crate) fn rsa_key(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).expect("a key")).expect("a key")
}

pub(crate) fn certificate(
    name: &str,
    uri: Option<&str>,
    key: &PKey<Private>,
    issuer: Option<&Issuer>,
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
    builder.set_not_before(&Asn1Time::from_unix(NOT_BEFORE).expect("a time")).expect("a time");
    builder.set_not_after(&Asn1Time::from_unix(NOT_AFTER).expect("a time")).expect("a time");
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

pub(crate) fn authority(name: &str) -> Issuer {
    let key = rsa_key(2048);
    Issuer { certificate: certificate(name, None, &key, None), key }
}

pub(crate) fn issue(name: &str, uri: Option<&str>, issuer: &Issuer) -> Issuer {
    let key = rsa_key(2048);
    Issuer { certificate: certificate(name, uri, &key, Some(issuer)), key }
}

pub(crate) fn key_pair(own: &Issuer, chain: &[&Issuer]) -> KeyPair {
    let mut pem = own.certificate.to_pem().expect("PEM");
    for issuer in chain {
        pem.extend(issuer.certificate.to_pem().expect("PEM"));
    }
    let key = own.key.private_key_to_pem_pkcs8().expect("PEM");
    KeyPair::from_pem(&pem, &key).expect("they belong together")
}

/// The parties, all with certificates of one authority; alice's by way of another.
pub(crate) struct Certified {
    pub(crate) world: World,
    pub(crate) alice: KeyPair,
    pub(crate) alice_issued: Issuer,
    pub(crate) room: KeyPair,
    pub(crate) room_issued: Issuer,
    pub(crate) kms_certificate: Vec<u8>,
    pub(crate) root: Issuer,
}

pub(crate) fn certified(suite: Suite) -> Certified {
    let root = authority("root");
    let department = issue("department", None, &root);
    let alice = issue("alice", Some(ALICE), &department);
    let room = issue("room", Some(ROOM), &root);
    let kms = key_pair(&issue("kms", Some(KMS_URI), &root), &[]);
    let mut world = World::with_suite(suite);
    let kms_certificate = kms.certificate().to_vec();
    let authorities = Authorities::from_pem(&root.certificate.to_pem().expect("PEM"));
    let authorities = authorities.expect("an authority");
    world.kms.serve_certificates(PublicKeyService { own: kms, authorities });
    Certified {
        world,
        alice: key_pair(&alice, &[&department]),
        alice_issued: alice,
        room: key_pair(&room, &[]),
        room_issued: room,
        kms_certificate,
        root,
    }
}

/// Signs a request of whoever has this role anew, where SIGN is its last payload.
pub(crate) fn sign(message: &mut Message, role: u8, own: &Issuer) {
    let identities = [role, ROLE_KMS].map(|role| {
        message.identity(role).map(|identity| identity.data.clone()).unwrap_or_default()
    });
    let length = own.key.size();
    let Some(Payload::Sign { signature, .. }) = message.payloads.last_mut() else { return };
    *signature = vec![0; length];
    let bytes = codec::encode(message);
    let mut signer = Signer::new(MessageDigest::sha256(), &own.key).expect("a key");
    signer.update(&bytes[..bytes.len() - length]).expect("signed");
    for identity in &identities {
        signer.update(identity).expect("signed");
    }
    let signed = signer.sign_to_vec().expect("signed");
    if let Some(Payload::Sign { signature, .. }) = message.payloads.last_mut() {
        *signature = signed;
    }
}
