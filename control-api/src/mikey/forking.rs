//! Key forking (RFC 6043 sections 5.1.1 and 6.10): of one ticket each responder gets keys of its own,
//! and the initiator proves that it holds the keys they are made from.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Parameters;
use super::codec::code_point::{KEY_TGK, KEY_TGK_SALT};
use super::codec::{InitiatorProof, KeyData, Ticket, TicketFlags, Verification};
use super::derivation::{KeySource, Prf, constant};
use super::error::{Error, PolicyProblem};
use super::protection::mac;
use super::ticket::TicketContent;

/// The keys of a ticket as this responder gets them. TEKs and GTGKs are everybody's.
pub(crate) fn fork(
    content: TicketContent,
    prf: Prf,
    responder: String,
    kms_rand: Vec<u8>,
) -> TicketContent {
    let TicketContent { mut message_protection, mut session_keys, .. } = content;
    message_protection.responder =
        forked_mpkr(prf, &message_protection.responder, &responder, &kms_rand);
    fork_session_keys(prf, &mut session_keys, &responder, &kms_rand);
    let (responder, kms_rand) = (Some(responder), Some(kms_rand));
    TicketContent { message_protection, session_keys, responder, kms_rand }
}

/// MPKr'.
pub(crate) fn forked_mpkr(
    prf: Prf,
    mpkr: &[u8],
    responder: &str,
    kms_rand: &[u8],
) -> Zeroizing<Vec<u8>> {
    KeySource::forking(prf, mpkr, responder.as_bytes(), kms_rand)
        .derive(constant::FORKED_MPKR, mpkr.len())
}

/// Whether each responder gets another key in its place.
pub(crate) fn is_forked(key: &KeyData) -> bool {
    matches!(key.key_type, KEY_TGK | KEY_TGK_SALT)
}

/// Every TGK becomes TGK'.
pub(crate) fn fork_session_keys(
    prf: Prf,
    session_keys: &mut [KeyData],
    responder: &str,
    kms_rand: &[u8],
) {
    for key in session_keys {
        if is_forked(key) {
            key.key = KeySource::forking(prf, &key.key, responder.as_bytes(), kms_rand)
                .derive(constant::FORKED_TGK, key.key.len());
        }
    }
}

/// Initiator Data for a TRANSFER_INIT with this V.
pub(crate) fn initiator_data(
    prf: Prf,
    mpkr: &[u8],
    transfer: &Verification,
    parameters: &Parameters,
) -> Vec<u8> {
    let algorithm = transfer.algorithm;
    let mut proof = InitiatorProof {
        transfer: transfer.clone(),
        transfer_next: parameters.initiator_proof_next,
        proof: Verification { algorithm, mac: vec![0; algorithm.mac_bytes()] },
    };
    let covered = proof.encode();
    let covered = &covered[..covered.len() - algorithm.mac_bytes()];
    proof.proof.mac = mac(&KeySource::initiator_proof(prf, mpkr), algorithm, &[covered]);
    proof.encode()
}

/// The KMS's check that the initiator holds the keys of the ticket (RFC 6043 section 4.2.3.4).
pub(crate) fn verify_initiator_data(ticket: &Ticket, prf: Prf, mpkr: &[u8]) -> Result<(), Error> {
    let InitiatorProof { transfer, proof, .. } = InitiatorProof::parse(&ticket.initiator_data)?;
    if proof.algorithm != transfer.algorithm || proof.mac.is_empty() {
        return Err(Error::UnsupportedMac(proof.algorithm as u8));
    }
    let covered = &ticket.initiator_data[..ticket.initiator_data.len() - proof.mac.len()];
    let source = KeySource::initiator_proof(prf, mpkr);
    let expected = mac(&source, proof.algorithm, &[covered]);
    if bool::from(expected.ct_eq(&proof.mac)) { Ok(()) } else { Err(Error::WrongInitiatorProof) }
}

/// The responder's check that the proof is for this very TRANSFER_INIT (RFC 6043 section 4.2.3.6).
pub(crate) fn check_proves(ticket: &Ticket, verification: &Verification) -> Result<(), Error> {
    if !ticket.policy.flags.has(TicketFlags::KEY_FORKING) {
        return Ok(());
    }
    let InitiatorProof { transfer, .. } = InitiatorProof::parse(&ticket.initiator_data)?;
    let same = transfer.algorithm == verification.algorithm
        && bool::from(transfer.mac.ct_eq(&verification.mac));
    if same { Ok(()) } else { Err(Error::WrongInitiatorProof) }
}

/// Initiator Data is there exactly where keys are forked (RFC 6043 section 6.10).
pub(crate) fn check_initiator_data(ticket: &Ticket, parameters: &Parameters) -> Result<(), Error> {
    let forked = ticket.policy.flags.has(TicketFlags::KEY_FORKING);
    if !forked && !ticket.initiator_data.is_empty() {
        return Err(Error::UnacceptablePolicy(PolicyProblem::InitiatorData));
    }
    if !forked {
        return Ok(());
    }
    if ticket.initiator_data.is_empty() {
        return Err(Error::MissingPayload("Initiator Data"));
    }
    let proof = InitiatorProof::parse(&ticket.initiator_data)?;
    if parameters.strict && proof.transfer_next != parameters.initiator_proof_next {
        return Err(Error::UnexpectedPayload("Vi"));
    }
    Ok(())
}

/// A forked TGK has its modifier in TRANSFER_RESP, so there must be one (RFC 6043 section 6.10).
pub(crate) fn check_forked_keys(flags: TicketFlags, keys: &[KeyData]) -> Result<(), Error> {
    let forked = flags.has(TicketFlags::KEY_FORKING) && keys.iter().any(is_forked);
    if forked && !flags.has(TicketFlags::TRANSFER_RESPONSE) {
        return Err(Error::UnacceptablePolicy(PolicyProblem::ForkedWithoutResponse));
    }
    Ok(())
}
