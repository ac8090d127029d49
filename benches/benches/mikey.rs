//! MIKEY-TICKET, mode 3: what a protected call costs before its first byte of media.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use control_api::kms::{Kms, KmsConfig};
use control_api::mikey::{
    Initiator, NtpTime, Parameters, PreSharedKey, Responder, ResponderConfig, TicketProtectionKey,
    UriPattern,
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

fn node_key() -> PreSharedKey {
    PreSharedKey { identity: b"psk-node".to_vec(), key: Zeroizing::new(vec![2; 16]) }
}

fn kms() -> Kms {
    let alice = vec![UriPattern::Exact(ALICE.to_owned())];
    let node = vec![UriPattern::Host("127.0.0.1".to_owned())];
    Kms::new(KmsConfig {
        uri: KMS_URI.to_owned(),
        users: vec![node_key()],
        ticket_protection_keys: vec![ticket_protection_key()],
        ticket_lifetime: Duration::from_secs(3600),
        may_act_as: BTreeMap::from([(b"tpk-alice".to_vec(), alice), (b"psk-node".to_vec(), node)]),
        groups: BTreeMap::new(),
        parameters: Parameters::default(),
    })
}

fn responder() -> Responder {
    Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Host("127.0.0.1".to_owned())],
        answer_as: None,
        kms_uri: KMS_URI.to_owned(),
        kms_key: node_key(),
        parameters: Parameters::default(),
    })
}

fn exchange(c: &mut Criterion) {
    let mut group = c.benchmark_group("mikey");
    let (parameters, key) = (Parameters::default(), ticket_protection_key());
    let (mut random, mut now) = (counting_random(), ticking());
    let mut call = || {
        let at = now();
        let (_, transfer_init) =
            Initiator::with_own_ticket(&parameters, ALICE, ROOM, KMS_URI, &key, at, &mut random)
                .expect("a call");
        (transfer_init, at)
    };
    group.bench_function("initiator: TRANSFER_INIT", |b| b.iter(&mut call));

    let (mut kms, mut responder) = (kms(), responder());
    let mut random = counting_random();
    group.bench_function("responder and KMS: TRANSFER_INIT to TRANSFER_RESP", |b| {
        b.iter_batched(
            &mut call,
            |(transfer_init, at)| {
                let (pending, resolve_init) =
                    responder.begin(&transfer_init, "mikey", at, &mut random).expect("acceptable");
                let resolve_resp = kms.handle(&resolve_init, at, &mut random);
                pending.finish(&mut responder, &resolve_resp, at, &mut random).expect("resolved")
            },
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

criterion_group! { name = benches; config = short(); targets = exchange }
criterion_main!(benches);
