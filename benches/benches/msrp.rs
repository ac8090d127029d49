//! MSRP: cutting a stream, writing a head, reading a URI.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mrfp_protocol::msrp::{
    ByteRange, Continuation, Framer, Method, Report, RequestHead, Uri, write_end_line,
    write_response,
};

const TO: &[u8] = b"msrp://192.0.2.1:2855/s7Yk2pQ9;tcp";
const FROM: &[u8] = b"msrp://192.0.2.7:9/a1;tcp";
const TRANSACTION: &[u8] = b"abcdefgh23456";
const MESSAGE_ID: &[u8] = b"abcdefgh";

fn head(body_bytes: u64) -> RequestHead<'static> {
    RequestHead {
        transaction_id: TRANSACTION,
        method: Method::Send,
        to_path: TO,
        from_path: FROM,
        message_id: Some(MESSAGE_ID),
        byte_range: Some(ByteRange { start: 1, end: Some(body_bytes), total: Some(body_bytes) }),
        success_report: None,
        failure_report: None,
        extra_header_lines: b"",
        content_type: Some(b"text/plain"),
    }
}

fn message(body_bytes: usize) -> Vec<u8> {
    let mut out = vec![0; body_bytes + 1024];
    let mut length = head(body_bytes as u64).write(&mut out).expect("it fits");
    out[length..length + body_bytes].fill(b'x');
    length += body_bytes;
    length +=
        write_end_line(TRANSACTION, Continuation::Last, true, &mut out[length..]).expect("it fits");
    out.truncate(length);
    out
}

/// Bytes of body and messages seen, so that nothing is optimised away.
fn cut(framer: &mut Framer, input: &[u8]) -> (usize, usize) {
    let (mut at, mut body_bytes, mut ends) = (0, 0, 0);
    while let Some(piece) = framer.next(&input[at..]).expect("well formed") {
        at += piece.consumed;
        body_bytes += piece.body.len();
        ends += usize::from(black_box(&piece).end.is_some());
    }
    (body_bytes, ends)
}

fn framer(c: &mut Criterion) {
    let mut group = c.benchmark_group("msrp framer");
    let chat = message(16);
    assert_eq!(chat.len(), 220);
    let cases = [
        ("50 chat messages in one segment", chat.repeat(50), 50),
        ("chunk of 2 KiB", message(2 * 1024), 1),
        ("message of 16 KiB", message(16 * 1024), 1),
    ];
    for (name, input, ends) in &cases {
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(*name, |b| {
            let mut framer = Framer::default();
            assert_eq!(cut(&mut framer, input).1, *ends);
            b.iter(|| cut(&mut framer, black_box(input)));
        });
    }
    // A long message as it comes: every call finds 16 KiB of nothing but body.
    let run = vec![b'x'; 16 * 1024];
    group.throughput(Throughput::Bytes(run.len() as u64));
    group.bench_function("run of 16 KiB inside a body", |b| {
        let mut framer = Framer::default();
        let opening = message(0);
        let head_bytes = opening.len() - (2 + 7 + TRANSACTION.len() + 3);
        assert_eq!(cut(&mut framer, &[&opening[..head_bytes], b"x".as_slice()].concat()), (1, 0));
        b.iter(|| {
            let (body_bytes, ends) = cut(&mut framer, black_box(&run));
            assert_eq!(body_bytes, run.len());
            assert_eq!(ends, 0);
        });
    });
    group.finish();
}

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("msrp write");
    let mut out = [0; 1024];
    group.bench_function("head of a SEND", |b| {
        let head = head(200);
        b.iter(|| black_box(&head).write(black_box(&mut out)));
    });
    group.bench_function("200 response", |b| {
        b.iter(|| write_response(black_box(TRANSACTION), 200, FROM, TO, black_box(&mut out)));
    });
    group.bench_function("REPORT", |b| {
        let report = Report {
            transaction_id: TRANSACTION,
            to_path: FROM,
            from_path: TO,
            message_id: MESSAGE_ID,
            byte_range: ByteRange { start: 1, end: Some(200), total: Some(200) },
            status: 200,
        };
        b.iter(|| black_box(&report).write(black_box(&mut out)));
    });
    group.finish();
}

fn uri(c: &mut Criterion) {
    let mut group = c.benchmark_group("msrp uri");
    for (name, text) in [
        ("name and port", TO),
        ("user, IPv6 and parameter", b"msrps://alice@[2001:db8::1]:2855/s7Yk2pQ9;tcp;a=b"),
    ] {
        assert!(Uri::parse(text).is_ok());
        group.bench_function(name, |b| b.iter(|| Uri::parse(black_box(text)).is_ok()));
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = short(); targets = framer, write, uri }
criterion_main!(benches);
