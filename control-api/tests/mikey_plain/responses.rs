//! Responses and CSB updates, which need what came before them.

use control_api::mikey::codec::code_point::{ROLE_INITIATOR, ROLE_KMS, ROLE_RESPONDER};
use control_api::mikey::codec::{self, DataType, Message, TicketFlags};
use control_api::mikey::derivation::{KeySource, Prf, constant};
use zeroize::Zeroizing;

use super::{MessageProtection, Way, identity, rand_of, rands_by_role, turn_ticket, turn_with};

/// What protects the messages of a transfer with a ticket of alice's.
fn protection_of(transfer_init: &[u8]) -> MessageProtection {
    let mut message = codec::parse(transfer_init).expect("ours");
    turn_ticket(&mut message, Way::Open).expect("her ticket")
}

/// The key of the response, MPKr' where keys are forked.
fn response_key(
    protection: &MessageProtection,
    flags: TicketFlags,
    prf: Prf,
    response: &Message,
) -> Zeroizing<Vec<u8>> {
    if !flags.has(TicketFlags::KEY_FORKING) {
        return protection.initiator.clone();
    }
    let mpkr = &protection.responder;
    let identity = identity(response, ROLE_RESPONDER);
    let rand = rand_of(response, ROLE_KMS);
    KeySource::forking(prf, mpkr, &identity, &rand).derive(constant::FORKED_MPKR, mpkr.len())
}

/// Turns the response to this TRANSFER_INIT; `covers`: its MAC covers the Initiator Data of that.
pub(crate) fn turn_transfer_resp(
    message: &mut Message,
    transfer_init: &[u8],
    covers: bool,
    way: Way,
) {
    let protection = protection_of(transfer_init);
    let initial = codec::parse(transfer_init).expect("ours");
    let covered = if covers {
        transfer_init.to_vec()
    } else {
        codec::encode_without_initiator_data(&initial)
    };
    let policy = &initial.ticket().expect("it has one").policy;
    let prf = Prf::from_code(policy.prf).expect("ours");
    let key = response_key(&protection, policy.flags, prf, message);
    let initiator_rand = rand_of(&initial, ROLE_INITIATOR);
    let responder_rand = rand_of(message, ROLE_RESPONDER);
    let csb_id = message.header.csb_id;
    let source = KeySource::response_message(prf, &key, csb_id, &initiator_rand, &responder_rand);
    turn_with(message, &source, &[&covered], way);
}

/// Turns the response to this request under this key.
pub(crate) fn turn_kms_resp(
    message: &mut Message,
    request: &Message,
    key: &[u8],
    request_bytes: &[u8],
    way: Way,
) {
    let Some(prf) = Prf::from_code(message.header.prf) else { return };
    let is_request = request.header.data_type == DataType::RequestInitPsk;
    let role = if is_request { ROLE_INITIATOR } else { ROLE_RESPONDER };
    let rand = rand_of(request, role);
    let (initiator, responder) = rands_by_role(role, &rand);
    let csb_id = message.header.csb_id;
    let source = KeySource::response_message(prf, key, csb_id, initiator, responder);
    turn_with(message, &source, &[request_bytes], way);
}

/// Turns an update, or the answer to one, of a session that these two messages set up.
pub(crate) fn turn_update(
    message: &mut Message,
    [transfer_init, transfer_resp]: [&[u8]; 2],
    appended: &[&[u8]],
    way: Way,
) {
    let protection = protection_of(transfer_init);
    let initial = codec::parse(transfer_init).expect("ours");
    let response = codec::parse(transfer_resp).expect("ours");
    let policy = &initial.ticket().expect("it has one").policy;
    let prf = Prf::from_code(policy.prf).expect("ours");
    let key = response_key(&protection, policy.flags, prf, &response);
    let initiator = rand_of(&initial, ROLE_INITIATOR);
    let responder = rand_of(&response, ROLE_RESPONDER);
    let csb_id = initial.header.csb_id;
    let source = KeySource::response_message(prf, &key, csb_id, &initiator, &responder);
    turn_with(message, &source, appended, way);
}
