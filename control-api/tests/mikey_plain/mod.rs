//! The plain form of MIKEY messages: keys in KEMACs unencrypted, MACs of no matter. Sealing a message
//! does what its sender would do with the keys of the parties ([`crate::mikey_world`]); what cannot be
//! sealed, because something that is needed is not there, stays as it is.
#![allow(dead_code, unused_imports, reason = "each user needs a part of it")]

mod responses;

use control_api::mikey::codec::code_point::{
    KEY_MPK, ROLE_INITIATOR, ROLE_KMS, ROLE_PRE_SHARED_KEY, ROLE_RESPONDER,
};
use control_api::mikey::codec::{
    self, DataType, InitiatorProof, Kemac, Message, Payload, Ticket, TicketFlags, Verification,
};
use control_api::mikey::derivation::{KeySource, Prf, constant};
use control_api::mikey::protection::{self, Encryption};
use control_api::mikey::{PreSharedKey, TicketProtectionKey};
use zeroize::Zeroizing;

use crate::mikey_world;

pub(crate) use responses::{turn_kms_resp, turn_transfer_resp, turn_update};

/// CSB ID of the IV where no bundle is meant (RFC 6043 appendix A.2.1).
const NO_CSB_ID: u32 = u32::MAX;

/// Which way a message is turned: encryption is the same in both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Seal,
    /// Into the plain form.
    Open,
}

/// The keys of the parties.
pub(crate) struct Keys {
    pub(crate) users: Vec<PreSharedKey>,
    pub(crate) tickets: Vec<TicketProtectionKey>,
}

impl Keys {
    /// Those of [`mikey_world`].
    pub(crate) fn of_the_world() -> Self {
        Self {
            users: vec![mikey_world::alice_key(), mikey_world::node_key()],
            tickets: vec![mikey_world::tpk(), mikey_world::room_tpk()],
        }
    }
}

/// MPKi and MPKr.
pub(crate) struct MessageProtection {
    pub(crate) initiator: Zeroizing<Vec<u8>>,
    pub(crate) responder: Zeroizing<Vec<u8>>,
}

/// Turns a TRANSFER_INIT, REQUEST_INIT_PSK or RESOLVE_INIT_PSK with all that is in it. Others stay as
/// they are: a response needs [`turn_with`].
pub(crate) fn turn(message: &mut Message, way: Way) {
    turn_by(message, &Keys::of_the_world(), way);
}

/// The same with these keys.
pub(crate) fn turn_by(message: &mut Message, keys: &Keys, way: Way) {
    let protection = turn_ticket_by(message, keys, way);
    match message.header.data_type {
        DataType::TransferInit => {
            let Some(protection) = protection else { return };
            turn_transfer_init(message, &protection, way);
        }
        DataType::RequestInitPsk => turn_request(message, ROLE_INITIATOR, keys, way),
        DataType::ResolveInitPsk => turn_request(message, ROLE_RESPONDER, keys, way),
        _ => {}
    }
}

/// Changes a message as its sender could: what is in it is opened before and sealed again.
pub(crate) fn changed(
    bytes: &[u8],
    turn: impl Fn(&mut Message, Way),
    change: impl FnOnce(&mut Message),
) -> Vec<u8> {
    let mut message = codec::parse(bytes).expect("our own message");
    turn(&mut message, Way::Open);
    change(&mut message);
    turn(&mut message, Way::Seal);
    codec::encode(&message)
}

/// Turns a message under a known key; `appended` is what its MAC covers beyond it.
pub(crate) fn turn_with(
    message: &mut Message,
    source: &KeySource<'_>,
    appended: &[&[u8]],
    way: Way,
) {
    let csb_id = message.header.csb_id;
    let time = message.timestamp();
    let kemac = message.payloads.iter_mut().find_map(|payload| match payload {
        Payload::Kemac(kemac) => Some(kemac),
        _ => None,
    });
    if let (Some(kemac), Some(time)) = (kemac, time) {
        turn_keys(kemac, source, csb_id, time.to_bits());
    }
    if way == Way::Open {
        return;
    }
    let Some(algorithm) = message.verification().map(|verification| verification.algorithm) else {
        return;
    };
    let covered = if message.header.data_type == DataType::TransferInit {
        codec::encode_without_initiator_data(message)
    } else {
        codec::encode(message)
    };
    let covered = &covered[..covered.len() - algorithm.mac_bytes()];
    let parts: Vec<&[u8]> = [covered].into_iter().chain(appended.iter().copied()).collect();
    set_mac(&mut message.payloads, protection::mac(source, algorithm, &parts));
}

/// Data of the identity in a role; empty where it is not there.
pub(crate) fn identity(message: &Message, role: u8) -> Vec<u8> {
    let outer = message.identity(role);
    let policy = message.ticket().and_then(|ticket| ticket.policy.identity(role));
    outer.or(policy).map(|identity| identity.data.clone()).unwrap_or_default()
}

fn turn_transfer_init(message: &mut Message, protection: &MessageProtection, way: Way) {
    let Some(prf) = Prf::from_code(message.header.prf) else { return };
    let rand = rand_of(message, ROLE_INITIATOR);
    let key = &protection.initiator;
    let source = KeySource::initial_message(prf, key, message.header.csb_id, &rand, &[]);
    let [initiator, responder] =
        [ROLE_INITIATOR, ROLE_RESPONDER].map(|role| identity(message, role));
    turn_with(message, &source, &[&initiator, &responder], way);
    if way == Way::Seal {
        prove(message, protection);
    }
}

/// Makes Initiator Data prove what it should (RFC 6043 section 6.10).
fn prove(message: &mut Message, protection: &MessageProtection) {
    let Some(transfer) = message.verification().cloned() else { return };
    let Some(ticket) = ticket_of(message) else { return };
    let Some(prf) = Prf::from_code(ticket.policy.prf) else { return };
    if !ticket.policy.flags.has(TicketFlags::KEY_FORKING) {
        return;
    }
    let Ok(proof) = InitiatorProof::parse(&ticket.initiator_data) else { return };
    let algorithm = proof.proof.algorithm;
    let mut proof = InitiatorProof { transfer, ..proof };
    let covered = proof.encode();
    let covered = &covered[..covered.len() - algorithm.mac_bytes()];
    let source = KeySource::initiator_proof(prf, &protection.responder);
    proof.proof.mac = protection::mac(&source, algorithm, &[covered]);
    ticket.initiator_data = proof.encode();
}

fn turn_request(message: &mut Message, role: u8, keys: &Keys, way: Way) {
    let Some(named) = message.identity(ROLE_PRE_SHARED_KEY) else { return };
    let Some(key) = keys.users.iter().find(|key| key.identity == named.data) else { return };
    let Some(prf) = Prf::from_code(message.header.prf) else { return };
    let rand = rand_of(message, role);
    let (initiator, responder) = rands_by_role(role, &rand);
    let csb_id = message.header.csb_id;
    let source = KeySource::initial_message(prf, &key.key, csb_id, initiator, responder);
    let identities = [role, ROLE_KMS].map(|role| {
        message.identity(role).map(|identity| identity.data.clone()).unwrap_or_default()
    });
    turn_with(message, &source, &[&identities[0], &identities[1]], way);
}

/// RANDRi and RANDRr of an exchange with the KMS, which has one of them.
pub(crate) fn rands_by_role(role: u8, rand: &[u8]) -> (&[u8], &[u8]) {
    if role == ROLE_INITIATOR { (rand, &[]) } else { (&[], rand) }
}

/// RAND of a role, or none.
pub(crate) fn rand_of(message: &Message, role: u8) -> Vec<u8> {
    message.rand(role).unwrap_or_default().to_vec()
}

pub(crate) fn ticket_of(message: &mut Message) -> Option<&mut Ticket> {
    message.payloads.iter_mut().find_map(|payload| match payload {
        Payload::Ticket(ticket) => Some(&mut **ticket),
        _ => None,
    })
}

/// Turns the base ticket in a message, and says what protects messages with it.
pub(crate) fn turn_ticket(message: &mut Message, way: Way) -> Option<MessageProtection> {
    turn_ticket_by(message, &Keys::of_the_world(), way)
}

fn turn_ticket_by(message: &mut Message, keys: &Keys, way: Way) -> Option<MessageProtection> {
    let ticket = ticket_of(message)?;
    let mut base = codec::parse_base_ticket(&ticket.data).ok()?;
    let prf = Prf::from_code(ticket.policy.prf)?;
    let rand = base.rand()?.to_vec();
    let time = base.timestamp()?.to_bits();
    let named = base.key_identity()?;
    let key = keys.tickets.iter().find(|key| key.identity == named)?;
    let source = KeySource::ticket(prf, &key.key, &rand);
    let algorithm = base.verification()?.algorithm;
    let kemac = base.payloads.iter_mut().find_map(|payload| match payload {
        Payload::Kemac(kemac) => Some(kemac),
        _ => None,
    })?;
    let sealed = kemac.encrypted.clone();
    turn_keys(kemac, &source, NO_CSB_ID, time);
    let plain = if way == Way::Seal { &sealed } else { &kemac.encrypted };
    let mpk = codec::parse_key_data(plain).ok();
    let mpk = mpk.and_then(|keys| keys.into_iter().find(|key| key.key_type == KEY_MPK));
    ticket.data = codec::encode_base_ticket(&base);
    if way == Way::Seal {
        let covered = codec::encode_covered_ticket(ticket);
        let covered = &covered[..covered.len() - algorithm.mac_bytes()];
        set_mac(&mut base.payloads, protection::mac(&source, algorithm, &[covered]));
        ticket.data = codec::encode_base_ticket(&base);
    }
    let mpk = mpk?;
    let source = KeySource::message_protection(prf, &mpk.key, &rand);
    let (initiator, responder) = (constant::MPKI, constant::MPKR);
    let [initiator, responder] = [initiator, responder].map(|of| source.derive(of, mpk.key.len()));
    Some(MessageProtection { initiator, responder })
}

fn turn_keys(kemac: &mut Kemac, source: &KeySource<'_>, csb_id: u32, time: u64) {
    if let Some(encryption) = Encryption::from_code(kemac.encryption) {
        protection::apply_aes_cm(source, encryption, csb_id, time, &mut kemac.encrypted);
    }
}

fn set_mac(payloads: &mut [Payload], mac: Vec<u8>) {
    if let Some(Payload::Verification(verification)) = payloads.last_mut() {
        assert_eq!(verification.mac.len(), mac.len());
        *verification = Verification { mac, ..verification.clone() };
    }
}
