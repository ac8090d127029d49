//! Requests to the KMS that are signed. RSA keys cannot be made from a seed, so that inputs have place
//! holders for what depends on them: see [`OWN`], and an envelope is what is in it.

use std::sync::OnceLock;

use control_api::kms::PublicKeyService;
use control_api::mikey::codec::code_point::{ROLE_INITIATOR, ROLE_RESPONDER};
use control_api::mikey::codec::{self, DataType, Message, Payload};
use control_api::mikey::{Authorities, Error, KeyPair, Suite};
use openssl::encrypt::Encrypter;
use openssl::hash::{MessageDigest, hash};
use openssl::rsa::Padding;

use crate::exchange::Input;
use crate::mikey_certificates::{Issuer, authority, issue, key_pair};
use crate::mikey_plain as plain;
use crate::mikey_world::{ALICE, KMS_URI, ROOM, World, now};

/// Stands for the certificate of the sender.
pub(crate) const OWN: &[u8] = b"own";

struct Parties {
    root: Vec<u8>,
    kms: KeyPair,
    kms_issued: Issuer,
    alice: Issuer,
    room: Issuer,
}

fn parties() -> &'static Parties {
    static PARTIES: OnceLock<Parties> = OnceLock::new();
    PARTIES.get_or_init(|| {
        let root = authority("root");
        let kms_issued = issue("kms", Some(KMS_URI), &root);
        Parties {
            kms: key_pair(&kms_issued, &[]),
            kms_issued,
            alice: issue("alice", Some(ALICE), &root),
            room: issue("room", Some(ROOM), &root),
            root: root.certificate.to_pem().expect("PEM"),
        }
    })
}

/// The KMS gets a signed request, twice.
pub(crate) fn request(input: &[u8]) -> bool {
    let Some(input) = Input::of(input) else { return false };
    let Ok(mut message) = codec::parse(input.bytes) else { return false };
    let bytes =
        if sign(&mut message).is_some() { codec::encode(&message) } else { input.bytes.to_vec() };
    let mut world = input.world();
    let parties = parties();
    let authorities = Authorities::from_pem(&parties.root).expect("an authority");
    world.kms.serve_certificates(PublicKeyService { own: parties.kms.clone(), authorities });
    let World { kms, random, .. } = &mut world;
    match kms.try_handle(&bytes, now(), random) {
        Err(error) => error.to_string().is_empty(),
        Ok(response) => {
            codec::parse(&response).expect("our own").check_contents().expect("as it should be");
            assert_eq!(kms.try_handle(&bytes, now(), random).err(), Some(Error::Replayed));
            true
        }
    }
}

/// Does what the sender would.
fn sign(message: &mut Message) -> Option<()> {
    let (role, own) = match message.header.data_type {
        DataType::RequestInitPk => (ROLE_INITIATOR, &parties().alice),
        DataType::ResolveInitPk => (ROLE_RESPONDER, &parties().room),
        _ => return None,
    };
    plain::turn_ticket(message, plain::Way::Seal);
    let kms = &parties().kms_issued;
    for payload in &mut message.payloads {
        match payload {
            Payload::Certificate { data, .. } if data == OWN => {
                *data = own.certificate.to_der().expect("DER");
            }
            Payload::CertificateHash { function: 2, hash: of } if of.iter().all(|it| *it == 0) => {
                let der = kms.certificate.to_der().expect("DER");
                *of = hash(MessageDigest::sha256(), &der).expect("a hash").to_vec();
            }
            Payload::Pke { data, .. } => {
                let mut encrypter = Encrypter::new(&kms.key).expect("a key");
                encrypter.set_rsa_padding(Padding::PKCS1).expect("a padding");
                let mut sealed = vec![0; encrypter.encrypt_len(data).ok()?];
                let length = encrypter.encrypt(data, &mut sealed).ok()?;
                sealed.truncate(length);
                *data = sealed;
            }
            _ => {}
        }
    }
    crate::mikey_certificates::sign(message, role, own);
    Some(())
}

/// Both requests with place holders.
pub(crate) fn seeds() -> Vec<Message> {
    let certified = crate::mikey_certificates::certified(Suite::S128);
    let crate::mikey_certificates::Certified { mut world, alice, room, kms_certificate, .. } =
        certified;
    let credentials =
        |own| control_api::mikey::Credentials::PublicKey { own, kms_certificate: &kms_certificate };
    let wish = control_api::mikey::TicketWish::new(KMS_URI, ALICE, &[ROOM]);
    let (_, init) = crate::exchange::called(&mut world, crate::mikey_world::usual_flags());
    let World { parameters, random, responder, .. } = &mut world;
    let ask = control_api::mikey::request::request_ticket;
    let (_, request) = ask(parameters, &wish, credentials(&alice), now(), random).expect("asked");
    let transfer = responder.check(&init, "mikey", now()).expect("acceptable");
    let resolve = responder.ask_with(credentials(&room), transfer, now(), random);
    let (_, resolve) = resolve.expect("asked");
    let plain = |bytes: Vec<u8>| {
        let mut message = codec::parse(&bytes).expect("ours");
        plain::turn_ticket(&mut message, plain::Way::Open);
        let mut own = true;
        message.payloads.retain_mut(|payload| match payload {
            Payload::Certificate { data, .. } => {
                *data = OWN.to_vec();
                std::mem::take(&mut own)
            }
            Payload::CertificateHash { hash, .. } => {
                hash.fill(0);
                true
            }
            Payload::Pke { data, .. } => {
                *data = vec![9; 16];
                true
            }
            Payload::Sign { signature, .. } => {
                signature.clear();
                true
            }
            _ => true,
        });
        message
    };
    vec![plain(request), plain(resolve)]
}
