//! Requests to the KMS that are signed, with the key of their answer in an envelope.

mod mikey_certificates;
mod mikey_world;

use control_api::mikey::codec::{self, DataType, Payload};
use control_api::mikey::error::CertificateProblem;
use control_api::mikey::request::request_ticket;
use control_api::mikey::{
    Authorities, Credentials, Error, Established, GrantedTicket, KeyPair, Suite, TicketWish,
};
use mikey_certificates::{
    Certified, Issuer, NOT_AFTER, NOT_BEFORE, authority, certificate, certified, issue, key_pair,
    rsa_key,
};
use mikey_world::{
    ALICE, KMS_URI, ROOM, World, assert_same_key, now, seconds_later, tpk, usual_flags,
};

impl Certified {
    fn request(&mut self) -> (control_api::mikey::PendingRequest, Vec<u8>) {
        let credentials =
            Credentials::PublicKey { own: &self.alice, kms_certificate: &self.kms_certificate };
        let wish = TicketWish::new(KMS_URI, ALICE, &[ROOM]);
        let World { parameters, random, .. } = &mut self.world;
        request_ticket(parameters, &wish, credentials, now(), random).expect("a request")
    }

    fn refusal(&mut self, request: &[u8]) -> Error {
        let World { kms, random, .. } = &mut self.world;
        kms.try_handle(request, now(), random).expect_err("refused")
    }

    fn answer(&mut self, transfer_init: &[u8]) -> Result<(Established, Vec<u8>), Error> {
        let World { responder, kms, random, .. } = &mut self.world;
        let transfer = responder.check(transfer_init, "mikey", now())?;
        let credentials =
            Credentials::PublicKey { own: &self.room, kms_certificate: &self.kms_certificate };
        let (pending, resolve) = responder.ask_with(credentials, transfer, now(), random)?;
        assert_eq!(resolve[1], DataType::ResolveInitPk as u8);
        let resolved = kms.try_handle(&resolve, now(), random)?;
        pending.finish(responder, &resolved, now(), random)
    }
}

#[test]
fn tickets_are_requested_and_resolved_with_certificates() {
    for suite in [Suite::S128, Suite::S256] {
        let mut certified = certified(suite);
        let (pending, request) = certified.request();
        assert_eq!(request[1], DataType::RequestInitPk as u8);
        let World { kms, random, .. } = &mut certified.world;
        let response = kms.try_handle(&request, now(), random).expect("granted");
        let ticket: GrantedTicket = pending.finish(&response, now()).expect("a ticket");
        let (initiator, transfer_init) = certified.world.call(&ticket);
        let (answered, transfer_resp) = certified.answer(&transfer_init).expect("answered");
        assert_same_key(&initiator.finish(&transfer_resp, now()).expect("established"), &answered);

        // The two kinds of requests mix: a ticket of alice's making is resolved with a certificate.
        let made = certified.world.made(usual_flags(), &[], &tpk()).expect("made");
        let (_, transfer_init) = certified.world.call(&made);
        assert!(certified.answer(&transfer_init).is_ok());
    }
}

#[test]
fn what_was_signed_cannot_be_changed_or_sent_again() {
    let mut certified = certified(Suite::S128);
    let (_, request) = certified.request();
    for at in (0..request.len()).step_by(7).chain(request.len() - 4..request.len()) {
        let mut changed = request.clone();
        changed[at] ^= 1;
        certified.refusal(&changed);
    }
    let mut changed = request.clone();
    *changed.last_mut().expect("bytes") ^= 1;
    let refused = certified.refusal(&changed);
    assert_eq!(refused, Error::WrongSignature);
    assert_eq!(refused.mikey_error_number(), 0);

    let World { kms, random, .. } = &mut certified.world;
    assert!(kms.try_handle(&request, now(), random).is_ok(), "the unchanged one is good, once");
    assert_eq!(certified.refusal(&request), Error::Replayed);
}

#[test]
fn a_kms_without_certificates_says_so() {
    let mut certified = certified(Suite::S128);
    let (_, request) = certified.request();
    certified.world.kms = World::plain().kms;
    let refused = certified.refusal(&request);
    assert_eq!(refused, Error::UnexpectedMessage(DataType::RequestInitPk));
    assert_eq!(refused.mikey_error_number(), 13);
}

#[test]
fn certificates_that_prove_nothing_are_refused() {
    let mut certified = certified(Suite::S128);
    let root = authority("another root");
    let untrusted = key_pair(&issue("alice", Some(ALICE), &root), &[&root]);
    certified.alice = untrusted;
    let (_, request) = certified.request();
    let problem = |problem| Error::Certificate(problem);
    assert_eq!(certified.refusal(&request), problem(CertificateProblem::Untrusted));
    assert_eq!(certified.refusal(&request).mikey_error_number(), 8);

    let mallory = issue("mallory", Some("sip:mallory@example.com"), &certified.root);
    certified.alice = key_pair(&mallory, &[]);
    let (_, request) = certified.request();
    assert_eq!(certified.refusal(&request), problem(CertificateProblem::OtherIdentity));

    let good = issue("alice", Some(ALICE), &certified.root);
    certified.alice = key_pair(&good, &[]);
    let (_, request) = certified.request();
    let mut message = codec::parse(&request).expect("ours");
    message.payloads.retain(|payload| !matches!(payload, Payload::Certificate { .. }));
    assert_eq!(certified.refusal(&codec::encode(&message)), problem(CertificateProblem::Missing));
}

#[test]
fn a_certificate_counts_at_our_time_and_not_the_machine_s() {
    let mut certified = certified(Suite::S128);
    let late = (NOT_AFTER - 1_790_000_000 + 1) as u64;
    let credentials = Credentials::PublicKey {
        own: &certified.alice,
        kms_certificate: &certified.kms_certificate,
    };
    let wish = TicketWish::new(KMS_URI, ALICE, &[ROOM]);
    let World { parameters, random, kms, .. } = &mut certified.world;
    let at = seconds_later(late);
    let (_, request) =
        request_ticket(parameters, &wish, credentials, at, random).expect("a request");
    let refused = kms.try_handle(&request, at, random).err();
    assert_eq!(refused, Some(Error::Certificate(CertificateProblem::Untrusted)));
}

#[test]
fn an_envelope_for_another_does_not_open() {
    let mut certified = certified(Suite::S128);
    let other = key_pair(&issue("other", Some(KMS_URI), &certified.root), &[]);
    certified.kms_certificate = other.certificate().to_vec();
    let (_, request) = certified.request();
    assert_eq!(certified.refusal(&request), Error::Envelope);
}

#[test]
fn short_keys_and_keys_of_others_are_refused() {
    let root = authority("root");
    let key = rsa_key(1024);
    let validity = NOT_BEFORE..NOT_AFTER;
    let short = certificate("short", Some(ALICE), &key, Some(&root), &validity);
    let short = Issuer { certificate: short, key, validity };
    let pem = |issuer: &Issuer| issuer.certificate.to_pem().expect("PEM");
    let private = |issuer: &Issuer| issuer.key.private_key_to_pem_pkcs8().expect("PEM");
    let refused = |result: Result<KeyPair, Error>| result.expect_err("refused");
    let unusable = Error::Certificate(CertificateProblem::Key);
    assert_eq!(refused(KeyPair::from_pem(&pem(&short), &private(&short))), unusable);
    assert_eq!(refused(KeyPair::from_pem(&pem(&root), &private(&short))), unusable);
    let malformed = Error::Certificate(CertificateProblem::Malformed);
    assert_eq!(refused(KeyPair::from_pem(&pem(&root), b"no key")), malformed);
    let missing = Error::Certificate(CertificateProblem::Missing);
    assert_eq!(Authorities::from_pem(b"").err(), Some(missing));
}

#[test]
fn a_private_key_is_not_printed() {
    let pair = key_pair(&authority("root"), &[]);
    assert_eq!(format!("{pair:?}"), "KeyPair(1 certificates, redacted)");
}
