//! The parties of a ticket transfer with algorithms of 128 bits, and messages that are to be answered.

use std::collections::BTreeMap;
use std::time::Duration;

use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::codec::TicketFlags;
use control_api::mikey::{
    GrantedTicket, HeldTicketKey, Initiator, NtpTime, Parameters, PreSharedKey, Responder,
    ResponderConfig, TicketMaker, TicketProtectionKey, TicketWish, UriPattern,
};
use zeroize::Zeroizing;

pub(crate) const ALICE: &str = "sip:alice@example.com";
pub(crate) const ROOM: &str = "sip:room@127.0.0.1";
pub(crate) const KMS_URI: &str = "sip:kms@example.com";

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

/// Bytes that differ from call to call, the same in every run.
pub(crate) fn counting_random() -> impl FnMut(&mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |out| {
        for byte in out {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 24) as u8;
        }
    }
}

pub(crate) fn ticket_protection_key() -> TicketProtectionKey {
    TicketProtectionKey { identity: b"tpk-alice".to_vec(), key: Zeroizing::new(vec![1; 16]) }
}

fn pre_shared_key(identity: &str, fill: u8) -> PreSharedKey {
    PreSharedKey { identity: identity.as_bytes().to_vec(), key: Zeroizing::new(vec![fill; 16]) }
}

fn node_key() -> PreSharedKey {
    pre_shared_key("psk-node", 2)
}

fn alice_key() -> PreSharedKey {
    pre_shared_key("psk-alice", 3)
}

pub(crate) fn kms() -> Kms {
    let alice = || vec![UriPattern::Exact(ALICE.to_owned())];
    let node = vec![UriPattern::Host("127.0.0.1".to_owned())];
    Kms::new(KmsConfig {
        uri: KMS_URI.to_owned(),
        users: vec![node_key(), alice_key()],
        ticket_protection_keys: vec![ticket_protection_key()],
        // The clock of a measurement runs far.
        ticket_lifetime: Duration::from_secs(1_000_000),
        may_act_as: BTreeMap::from([
            (b"tpk-alice".to_vec(), alice()),
            (b"psk-alice".to_vec(), alice()),
            (b"psk-node".to_vec(), node),
        ]),
        groups: BTreeMap::new(),
        parameters: parameters(),
    })
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
    Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Host("127.0.0.1".to_owned())],
        answer_as: None,
        kms_uri: KMS_URI.to_owned(),
        kms_key: node_key(),
        parameters: parameters(),
    })
}

/// A responder that has the key of alice's tickets.
pub(crate) fn opening_responder() -> Responder {
    let mut opening = responder();
    let maker = TicketMaker::Initiators(vec![UriPattern::Exact(ALICE.to_owned())]);
    opening.hold_ticket_key(HeldTicketKey { key: ticket_protection_key(), maker });
    opening
}

/// TRANSFER_INITs. `local`: the responder may open the ticket itself.
pub(crate) fn calls(local: bool) -> impl FnMut() -> Made {
    let (parameters, key) = (parameters(), ticket_protection_key());
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
