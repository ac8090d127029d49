//! CPIM: reading the head a message is routed by, writing one.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mrfp_protocol::cpim::{Head, Wrapper};

const ONE_BLOCK: &[u8] = b"From: <sip:alice@example.com>\r\n\
    To: <sip:room@example.com>\r\n\
    DateTime: 2026-05-15T15:02:31-03:00\r\n\
    Content-Type: text/plain\r\n\
    \r\n\
    hello";

const WITH_IMDN: &[u8] = b"From: Alice <sip:alice@example.com>\r\n\
    To: Room <sip:room@example.com>\r\n\
    NS: imdn <urn:ietf:params:imdn>\r\n\
    imdn.Message-ID: 34jk324j\r\n\
    imdn.Disposition-Notification: positive-delivery, display\r\n\
    DateTime: 2026-05-15T15:02:31-03:00\r\n\
    \r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    \r\n\
    hello";

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("cpim head");
    for (name, text) in [("one block", ONE_BLOCK), ("two blocks with IMDN", WITH_IMDN)] {
        assert!(Head::parse(text).is_ok_and(|head| head.is_some()));
        group.bench_function(name, |b| {
            b.iter(|| Head::parse(black_box(text)).map(|head| head.map(|(_, content)| content)));
        });
    }
    group.finish();
}

fn write(c: &mut Criterion) {
    let wrapper = Wrapper {
        from: b"sip:alice@example.com",
        to: b"sip:room@example.com",
        date_time: Some(b"2026-05-15T15:02:31-03:00"),
        extra_header_lines: b"",
        content_header_lines: b"Content-Type: text/plain\r\n",
    };
    let mut out = [0; 512];
    c.bench_function("cpim write", |b| {
        b.iter(|| black_box(&wrapper).write(black_box(&mut out)));
    });
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = short(); targets = read, write }
criterion_main!(benches);
