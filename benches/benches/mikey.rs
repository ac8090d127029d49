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

fn now() -> NtpTime {
    NtpTime::from_unix(Duration::from_secs(1_790_000_000))
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

/// The responder's replay cache must not fill up while it is measured.
fn parameters() -> Parameters {
    Parameters { replay_cache_entries_max: usize::MAX, ..Parameters::default() }
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
        parameters: parameters(),
    })
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

fn exchange(c: &mut Criterion) {
    let mut group = c.benchmark_group("mikey");
    let (parameters, key) = (parameters(), ticket_protection_key());
    let mut random = counting_random();
    let mut call = || {
        Initiator::with_own_ticket(&parameters, ALICE, ROOM, KMS_URI, &key, now(), &mut random)
            .expect("a call")
    };
    group.bench_function("initiator: TRANSFER_INIT", |b| b.iter(&mut call));

    let (mut kms, mut responder) = (kms(), responder());
    let mut random = counting_random();
    group.bench_function("responder and KMS: TRANSFER_INIT to TRANSFER_RESP", |b| {
        b.iter_batched(
            || call().1,
            |transfer_init| {
                let (pending, resolve_init) = responder
                    .begin(&transfer_init, "mikey", now(), &mut random)
                    .expect("acceptable");
                let resolve_resp = kms.handle(&resolve_init, now(), &mut random);
                pending.finish(&mut responder, &resolve_resp, now(), &mut random).expect("resolved")
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
