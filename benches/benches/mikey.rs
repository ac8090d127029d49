//! MIKEY-TICKET: what a protected call costs before its first byte of media, and what the KMS does for
//! it.
#![forbid(unsafe_code)]

#[path = "../../perf/targets/src/bin/key_exchange/parties.rs"]
mod parties;

use std::time::Duration;

use control_api::mikey::Initiator;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use parties::{
    ALICE, KMS_URI, ROOM, calls, counting_random, kms, opening_responder, parameters, requests,
    resolves, responder, ticking, tpk,
};

fn initiator(c: &mut Criterion) {
    let mut group = c.benchmark_group("mikey");
    let (parameters, key) = (parameters(), tpk());
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

fn answers(c: &mut Criterion) {
    let mut group = c.benchmark_group("mikey");
    // What is measured may be run several times over: the calls go on, they do not begin again.
    let (mut opening, mut call, mut random) = (opening_responder(), calls(true), counting_random());
    group.bench_function("responder: TRANSFER_INIT verified and answered", |b| {
        b.iter_batched(
            &mut call,
            |(transfer_init, at)| {
                let transfer = opening.check(&transfer_init, "mikey", at).expect("acceptable");
                let content = opening.open(&transfer).expect("ours").expect("its key is held");
                transfer.finish(&mut opening, content, at, &mut random).expect("answered")
            },
            BatchSize::SmallInput,
        );
    });

    let (kms, mut near, mut call) = (kms(), responder(), calls(false));
    group.bench_function("responder and KMS in one process: answered", |b| {
        b.iter_batched(
            &mut call,
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
    let (mut kms, mut random) = (kms(), counting_random());
    let (mut request, mut resolve) = (requests(), resolves());
    group.bench_function("KMS: ticket issued", |b| {
        b.iter_batched(
            &mut request,
            |(request, at)| kms.try_handle(&request, at, &mut random).expect("granted"),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("KMS: ticket resolved", |b| {
        b.iter_batched(
            &mut resolve,
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
