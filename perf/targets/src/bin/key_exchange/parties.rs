//! The parties of a ticket transfer with algorithms of 128 bits, and messages that are to be answered.

#[path = "../../../../../control-api/tests/mikey_world/mod.rs"]
mod mikey_world;

use std::time::Duration;

use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::codec::TicketFlags;
use control_api::mikey::{
    GrantedTicket, HeldTicketKey, Initiator, NtpTime, Parameters, Responder, TicketMaker,
    TicketWish, UriPattern,
};
pub(crate) use mikey_world::{ALICE, KMS_URI, ROOM, counting_random, tpk};
use mikey_world::{alice_key, kms_config, responder_config};

/// A message, and when it was made.
pub(crate) type Made = (Vec<u8>, NtpTime);

/// A clock that moves a millisecond with every call: the responder forgets the oldest ones, as it
/// does in life, and no two calls of one sender look alike.
pub(crate) fn ticking() -> impl FnMut() -> NtpTime {
    let mut since_epoch = Duration::from_secs(1_790_000_000);
    move || {
        since_epoch += Duration::from_millis(1);
        NtpTime::from_unix(since_epoch)
    }
}

pub(crate) fn kms() -> Kms {
    // The clock of a measurement runs far.
    let ticket_lifetime = Duration::from_secs(1_000_000);
    Kms::new(KmsConfig { ticket_lifetime, ..kms_config(parameters()) })
}

/// Every ticket is opened every time, though all calls have the same one.
pub(crate) fn parameters() -> Parameters {
    Parameters {
        ticket_lifetime: Duration::from_secs(1_000_000),
        resolved_tickets_max: 0,
        ..Parameters::default()
    }
}

pub(crate) fn responder() -> Responder {
    Responder::new(responder_config(parameters()))
}

/// A responder that has the key of alice's tickets.
pub(crate) fn opening_responder() -> Responder {
    let mut opening = responder();
    let maker = TicketMaker::Initiators(vec![UriPattern::Exact(ALICE.to_owned())]);
    opening.hold_ticket_key(HeldTicketKey { key: tpk(), maker });
    opening
}

/// TRANSFER_INITs. `local`: the responder may open the ticket itself.
pub(crate) fn calls(local: bool) -> impl FnMut() -> Made {
    let (parameters, key) = (parameters(), tpk());
    let (mut random, mut now) = (counting_random(), ticking());
    let responders = [ROOM];
    let mut wish = TicketWish::new(KMS_URI, ALICE, &responders);
    if local {
        wish.flags = wish.flags.without(TicketFlags::RESOLVE_MANDATORY);
    }
    let ticket =
        GrantedTicket::make_as_wished(&parameters, &wish, &key, now(), &mut random).expect("made");
    move || {
        let at = now();
        let random = &mut random;
        let (_, transfer_init) =
            Initiator::with_granted_ticket(&parameters, &ticket, ROOM, at, random).expect("a call");
        (transfer_init, at)
    }
}

/// REQUEST_INITs.
pub(crate) fn requests() -> impl FnMut() -> Made {
    let (parameters, key) = (parameters(), alice_key());
    let (mut random, mut now) = (counting_random(), ticking());
    move || {
        let at = now();
        let random = &mut random;
        let asked = Initiator::request_ticket(&parameters, ALICE, ROOM, KMS_URI, &key, at, random);
        (asked.expect("a request").1, at)
    }
}

/// RESOLVE_INITs.
pub(crate) fn resolves() -> impl FnMut() -> Made {
    let (mut call, mut responder, mut random) = (calls(false), responder(), counting_random());
    move || {
        let (transfer_init, at) = call();
        let begun = responder.begin(&transfer_init, "mikey", at, &mut random);
        (begun.expect("acceptable").1, at)
    }
}
