//! The parties of an exchange with certificates, of one authority.
#![allow(dead_code, reason = "each user needs a part of it")]

#[path = "../rsa_certificates/mod.rs"]
mod rsa_certificates;

use control_api::kms::PublicKeyService;
use control_api::mikey::codec::code_point::ROLE_KMS;
use control_api::mikey::codec::{self, Message, Payload};
use control_api::mikey::{Authorities, KeyPair, Suite};
use openssl::hash::MessageDigest;
use openssl::sign::Signer;

use crate::mikey_world::{ALICE, KMS_URI, ROOM, World};
use rsa_certificates::authority_until;
#[allow(unused_imports, reason = "each user needs a part of them")]
pub(crate) use rsa_certificates::{Issuer, certificate, issue, rsa_key};

/// Valid around the time of the tests, 1 790 000 000.
pub(crate) const NOT_BEFORE: i64 = 1_789_000_000;
pub(crate) const NOT_AFTER: i64 = 1_791_000_000;

pub(crate) fn authority(name: &str) -> Issuer {
    authority_until(name, NOT_BEFORE..NOT_AFTER)
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
