//! The serializer, character by character.

use std::collections::HashSet;

use mrfp_protocol::msrp::{
    ByteRange, Continuation, END_LINE_BYTES_MAX, FailureReport, MessageId, Method, Report,
    RequestHead, TransactionId, is_ident, write_end_line, write_response,
};

fn written(write: impl Fn(&mut [u8]) -> Option<usize>) -> String {
    let mut out = [0; 1024];
    let length = write(&mut out).expect("fits");
    // One byte less and it must say so, not panic and not cut.
    for room in 0..length {
        assert_eq!(write(&mut out[..room]), None);
    }
    assert_eq!(write(&mut out[..length]), Some(length));
    String::from_utf8(out[..length].to_vec()).expect("text")
}

fn head() -> RequestHead<'static> {
    RequestHead {
        transaction_id: b"d93kswow",
        method: Method::Send,
        to_path: b"msrp://b:1/y;tcp",
        from_path: b"msrp://a:1/x;tcp",
        message_id: None,
        byte_range: None,
        success_report: None,
        failure_report: None,
        extra_header_lines: b"",
        content_type: None,
    }
}

#[test]
fn writes_a_head_with_everything() {
    let head = RequestHead {
        message_id: Some(b"12339sdqwer"),
        byte_range: Some(ByteRange { start: 1, end: None, total: Some(6000) }),
        success_report: Some(true),
        failure_report: Some(FailureReport::Partial),
        extra_header_lines: b"X-Toy: 1\r\n",
        content_type: Some(b"text/plain"),
        ..head()
    };
    let text = written(|out| head.write(out));
    assert_eq!(
        text,
        "MSRP d93kswow SEND\r\nTo-Path: msrp://b:1/y;tcp\r\nFrom-Path: msrp://a:1/x;tcp\r\n\
         Message-ID: 12339sdqwer\r\nByte-Range: 1-*/6000\r\nSuccess-Report: yes\r\n\
         Failure-Report: partial\r\nX-Toy: 1\r\nContent-Type: text/plain\r\n\r\n"
    );
    assert!(text.len() <= head.bytes_max());
}

#[test]
fn writes_a_head_with_nothing() {
    assert_eq!(
        written(|out| head().write(out)),
        "MSRP d93kswow SEND\r\nTo-Path: msrp://b:1/y;tcp\r\nFrom-Path: msrp://a:1/x;tcp\r\n"
    );
}

#[test]
fn writes_end_lines() {
    let end = |flag, has_body| written(|out| write_end_line(b"d93kswow", flag, has_body, out));
    assert_eq!(end(Continuation::Last, true), "\r\n-------d93kswow$\r\n");
    assert_eq!(end(Continuation::More, true), "\r\n-------d93kswow+\r\n");
    assert_eq!(end(Continuation::Abort, false), "-------d93kswow#\r\n");
    let longest = write_end_line(&[b'a'; 32], Continuation::Last, true, &mut [0; 64]);
    assert_eq!(longest, Some(END_LINE_BYTES_MAX));
}

#[test]
fn writes_responses() {
    let response = |status| {
        written(|out| {
            write_response(b"d93kswow", status, b"msrp://a:1/x;tcp", b"msrp://b:1/y;tcp", out)
        })
    };
    assert_eq!(
        response(200),
        "MSRP d93kswow 200 OK\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:1/y;tcp\r\n\
         -------d93kswow$\r\n"
    );
    assert!(response(481).starts_with("MSRP d93kswow 481 No Such Session\r\n"));
    assert!(response(599).starts_with("MSRP d93kswow 599\r\n"));
}

#[test]
fn writes_a_report() {
    let report = Report {
        transaction_id: b"dkei38sd",
        to_path: b"msrp://a:1/x;tcp",
        from_path: b"msrp://b:1/y;tcp",
        message_id: b"12339sdqwer",
        byte_range: ByteRange { start: 1, end: Some(106), total: Some(106) },
        status: 200,
    };
    assert_eq!(
        written(|out| report.write(out)),
        "MSRP dkei38sd REPORT\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:1/y;tcp\r\n\
         Message-ID: 12339sdqwer\r\nByte-Range: 1-106/106\r\nStatus: 000 200 OK\r\n\
         -------dkei38sd$\r\n"
    );
}

#[test]
fn makes_identifiers_that_are_legal_and_differ() {
    let mut seen = HashSet::new();
    for bits in (0..64).map(|shift| 1u64 << shift).chain([0, u64::MAX]) {
        let id = TransactionId::from_u64(bits);
        assert!(is_ident(id.as_bytes()));
        assert!(seen.insert(id));
    }
    let mut seen = HashSet::new();
    for bits in (0..128).map(|shift| 1u128 << shift).chain([0, u128::MAX]) {
        let id = MessageId::from_u128(bits);
        assert!(is_ident(id.as_bytes()));
        assert!(seen.insert(id));
    }
}
