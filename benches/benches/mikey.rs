//! MIKEY-TICKET: what a protected call costs before its first byte of media, and what the KMS does for
//! it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::{
    GrantedTicket, HeldTicketKey, Initiator, NtpTime, Parameters, PreSharedKey, Responder,
    ResponderConfig, TicketMaker, TicketProtectionKey, TicketWish, UriPattern,
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use zeroize::Zeroizing;

const ALICE: &str = "sip:alice@example.com";
const ROOM: &str = "sip:room@127.0.0.1";
const KMS_URI: &str = "sip:kms@example.com";

/// A clock that moves a millisecond with every call: the responder forgets the oldest ones, as it
/// does in life, and no two calls of one sender look alike.
fn ticking() -> impl FnMut() -> NtpTime {
    let mut since_epoch = Duration::from_secs(1_790_000_000);
    move || {
        since_epoch += Duration::from_millis(1);
        NtpTime::from_unix(since_epoch)
    }
}

/// Bytes that differ from call to call, the same in every run.
fn counting_random() -> impl FnMut(&mut [u8]) {
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

fn ticket_protection_key() -> TicketProtectionKey {
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

fn kms() -> Kms {
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
fn parameters() -> Parameters {
    Parameters {
        ticket_lifetime: Duration::from_secs(1_000_000),
        resolved_tickets_max: 0,
        ..Parameters::default()
    }
}

fn responder() -> Responder {
    Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Host("127.0.0.1".to_owned())],
        answer_as: None,
        kms_uri: KMS_URI.to_owned(),
        kms_key: node_key(),
        parameters: parameters(),
    })
}

fn initiator(c: &mut Criterion) {
    let mut group = c.benchmark_group("mikey");
    let (parameters, key) = (parameters(), ticket_protection_key());
    let (mut random, mut now) = (counting_random(), ticking());
    group.bench_function("initiator: ticket made and TRANSFER_INIT", |b| {
        b.iter(|| {
            let at = now();
            Initiator::with_own_ticket(&parameters, ALICE, ROOM, KMS_URI, &key, at, &mut random)
                .expect("a call")
        });
    });
    group.finish();
}

/// A call that is to be answered.
fn call(wish: &TicketWish<'_>) -> impl FnMut() -> (Vec<u8>, NtpTime) + use<> {
    let (parameters, key) = (parameters(), ticket_protection_key());
    let (mut random, mut now) = (counting_random(), ticking());
    let ticket =
        GrantedTicket::make_as_wished(&parameters, wish, &key, now(), &mut random).expect("made");
    move || {
        let at = now();
        let random = &mut random;
        let (_, transfer_init) =
            Initiator::with_granted_ticket(&parameters, &ticket, ROOM, at, random).expect("a call");
        (transfer_init, at)
    }
}

fn answers(c: &mut Criterion) {
    let mut group = c.benchmark_group("mikey");
    let responders = [ROOM];
    let usual = TicketWish::new(KMS_URI, ALICE, &responders);
    let resolve = control_api::mikey::codec::TicketFlags::RESOLVE_MANDATORY;
    let local = TicketWish { flags: usual.flags.without(resolve), ..usual };

    // What is measured may be run several times over: the calls go on, they do not begin again.
    let (mut calls, mut random) = (call(&local), counting_random());
    let mut opening = responder();
    let maker = TicketMaker::Initiators(vec![UriPattern::Exact(ALICE.to_owned())]);
    opening.hold_ticket_key(HeldTicketKey { key: ticket_protection_key(), maker });
    group.bench_function("responder: TRANSFER_INIT verified and answered", |b| {
        b.iter_batched(
            &mut calls,
            |(transfer_init, at)| {
                let transfer = opening.check(&transfer_init, "mikey", at).expect("acceptable");
                let content = opening.open(&transfer).expect("ours").expect("its key is held");
                transfer.finish(&mut opening, content, at, &mut random).expect("answered")
            },
            BatchSize::SmallInput,
        );
    });

    let (kms, mut near, mut calls) = (kms(), responder(), call(&usual));
    group.bench_function("responder and KMS in one process: answered", |b| {
        b.iter_batched(
            &mut calls,
            |(transfer_init, at)| {
                let transfer = near.check(&transfer_init, "mikey", at).expect("acceptable");
                let (ticket, asked_as) = transfer.question();
                let content = kms
                    .resolve_here(ticket, asked_as, near.key_identity(), at, &mut random)
                    .expect("resolved");
                transfer.finish(&mut near, content, at, &mut random).expect("answered")
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn tickets(c: &mut Criterion) {
    let mut group = c.benchmark_group("mikey");
    let (mut kms, parameters, key) = (kms(), parameters(), alice_key());
    let (mut random, mut now) = (counting_random(), ticking());
    let mut asking = counting_random();
    group.bench_function("KMS: ticket issued", |b| {
        b.iter_batched(
            || {
                let at = now();
                let random = &mut asking;
                let (_, request) =
                    Initiator::request_ticket(&parameters, ALICE, ROOM, KMS_URI, &key, at, random)
                        .expect("a request");
                (request, at)
            },
            |(request, at)| kms.try_handle(&request, at, &mut random).expect("granted"),
            BatchSize::SmallInput,
        );
    });

    let responders = [ROOM];
    let mut call = call(&TicketWish::new(KMS_URI, ALICE, &responders));
    let mut responder = responder();
    group.bench_function("KMS: ticket resolved", |b| {
        b.iter_batched(
            || {
                let (transfer_init, at) = call();
                let random = &mut asking;
                let begun = responder.begin(&transfer_init, "mikey", at, random);
                (begun.expect("acceptable").1, at)
            },
            |(resolve, at)| kms.try_handle(&resolve, at, &mut random).expect("resolved"),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = short(); targets = initiator, answers, tickets }
criterion_main!(benches);
