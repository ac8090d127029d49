//! CPIM heads: RFC 3862, RFC 4975 section 11.4, RFC 5438, and what must be refused.

use mrfp_protocol::cpim::{Address, HEAD_BYTES_MAX, Head, Malformed, Wrapper};
use proptest::prelude::*;

const REGULAR: &str = "From: Alice <sip:alice@example.com>\r\n\
     To: <sip:room@example.com>\r\n\
     DateTime: 2006-05-15T15:02:31-03:00\r\n\
     Subject:;lang=fr Objet\r\n\
     \r\n\
     Content-Type: text/plain; charset=utf-8\r\n\
     \r\n\
     hello";

fn parse(text: &str) -> (Head<'_>, &str) {
    let (head, body) = Head::parse(text.as_bytes()).expect("well formed").expect("complete");
    (head, &text[body..])
}

fn refusal(text: &str) -> Malformed {
    Head::parse(text.as_bytes()).expect_err("malformed")
}

#[test]
fn reads_both_header_blocks() {
    let (head, body) = parse(REGULAR);
    assert_eq!(body, "hello");
    let from = head.from.expect("From");
    assert_eq!(from, Address { display_name: b"Alice", uri: b"sip:alice@example.com" });
    assert_eq!(head.to_count, 1);
    assert_eq!(head.to().next().expect("To").uri, b"sip:room@example.com");
    assert_eq!(head.date_time, Some(&b"2006-05-15T15:02:31-03:00"[..]));
    assert_eq!(head.subject, Some(&b"Objet"[..]));
    assert_eq!(head.content_type, Some(&b"text/plain; charset=utf-8"[..]));
    assert_eq!(head.content_headers, b"Content-Type: text/plain; charset=utf-8\r\n");
}

#[test]
fn reads_one_block_as_rfc_4975_shows_it() {
    let (head, body) = parse(
        "To: Bob <sip:bob@example.com>\r\nFrom: Alice <sip:alice@example.com>\r\n\
         DateTime: 2006-05-15T15:02:31-03:00\r\nContent-Type: text/plain\r\n\r\nABCD",
    );
    assert_eq!(body, "ABCD");
    assert_eq!(head.content_type, Some(&b"text/plain"[..]));
    assert_eq!(head.from.expect("From").uri, b"sip:alice@example.com");
}

#[test]
fn names_every_recipient() {
    let (head, _) = parse(
        "To: <sip:a@x>\r\ncc: <sip:c@x>\r\nTo: \"B \\\" <b>\" <sip:b@x>\r\n\r\n\
         Content-type: a/b\r\n\r\n",
    );
    assert_eq!(head.to_count, 2);
    let to: Vec<_> = head.to().collect();
    assert_eq!(to[0], Address { display_name: b"", uri: b"sip:a@x" });
    assert_eq!(to[1], Address { display_name: b"B \\\" <b>", uri: b"sip:b@x" });
    assert_eq!(head.cc().next().expect("cc").uri, b"sip:c@x");
    assert!(head.from.is_none());
    assert_eq!(head.content_type, Some(&b"a/b"[..]));
}

#[test]
fn reads_imdn_headers_under_whatever_prefix() {
    let (head, body) = parse(
        "From: <im:alice@example.com>\r\nTo: <im:bob@example.com>\r\n\
         NS: receipts <urn:ietf:params:imdn>\r\n\
         receipts.Message-ID: 34jk324j\r\n\
         receipts.Disposition-Notification: positive-delivery, negative-delivery\r\n\
         Require: receipts.Message-ID, Other\r\n\r\n\
         Content-Type: message/imdn+xml\r\nContent-Disposition: notification\r\n\r\n<imdn/>",
    );
    assert_eq!(body, "<imdn/>");
    assert_eq!(head.imdn(b"Message-ID"), Some(&b"34jk324j"[..]));
    assert_eq!(
        head.imdn(b"Disposition-Notification"),
        Some(&b"positive-delivery, negative-delivery"[..])
    );
    assert_eq!(head.content_disposition, Some(&b"notification"[..]));
    assert_eq!(head.require().collect::<Vec<_>>(), [&b"receipts.Message-ID"[..], b"Other"]);
    assert_eq!(
        head.namespaces().collect::<Vec<_>>(),
        [(&b"receipts"[..], &b"urn:ietf:params:imdn"[..])]
    );
    let (plain, _) = parse(REGULAR);
    assert_eq!(plain.imdn(b"Message-ID"), None);
}

#[test]
fn finds_the_sender_behind_a_prefix() {
    let (head, _) = parse(
        "NS: c <urn:ietf:params:cpim-headers:>\r\nc.From: <sip:a@x>\r\nc.To: <sip:b@x>\r\n\
         other.From: <sip:c@x>\r\n\r\n\r\n",
    );
    assert_eq!(head.from.expect("From").uri, b"sip:a@x");
    assert_eq!(head.to_count, 1);
    assert_eq!(head.to().count(), 1);
    assert_eq!(head.content_type, None);
}

#[test]
fn refuses_a_second_sender_in_any_disguise() {
    for second in [
        "From: <sip:b@x>\r\n",
        "NS: c <urn:ietf:params:cpim-headers:>\r\nc.From: <sip:b@x>\r\n",
        "NS: <urn:other>\r\nFrom: <sip:b@x>\r\n",
    ] {
        let text = format!("From: <sip:a@x>\r\n{second}\r\n\r\n");
        assert_eq!(refusal(&text), Malformed::Duplicate, "{second}");
    }
    assert_eq!(refusal("From: <sip:a@x>\r\nfrom: <sip:b@x>\r\n\r\n\r\n"), Malformed::Header);
    assert_eq!(
        refusal("c.To: <sip:a@x>\r\nNS: c <urn:ietf:params:cpim-headers:>\r\n\r\n\r\n"),
        Malformed::Namespace
    );
    assert_eq!(
        refusal(
            "NS: c <urn:ietf:params:cpim-headers:>\r\nNS: d <urn:ietf:params:cpim-headers:>\r\n\
             \r\n\r\n"
        ),
        Malformed::Namespace
    );
}

#[test]
fn refuses_addresses_that_are_none() {
    for value in [
        "sip:a@x",
        "<sip:a@x",
        "sip:a@x>",
        "<>",
        "<a>",
        "<sip:a@x> tail",
        "<sip:a @x>",
        "<<sip:a@x>>",
        "\"open <sip:a@x>",
        "\"a\" b <sip:a@x>",
        "<:x>",
    ] {
        assert_eq!(refusal(&format!("From: {value}\r\n\r\n\r\n")), Malformed::From, "{value}");
        assert_eq!(refusal(&format!("To: {value}\r\n\r\n\r\n")), Malformed::To, "{value}");
    }
}

#[test]
fn refuses_lines_that_are_none() {
    for (line, error) in [
        ("no colon", Malformed::Header),
        ("Name:value", Malformed::Header),
        (" Folded: value", Malformed::Header),
        ("Na me: value", Malformed::Header),
        ("Subject:;lang=fr", Malformed::Header),
        ("Subject:;x=\"open Objet", Malformed::Header),
        ("Bare: line\nfeed: x", Malformed::LineEnd),
        ("Bell: \u{7}", Malformed::LineEnd),
        ("NS: x", Malformed::Namespace),
    ] {
        assert_eq!(refusal(&format!("{line}\r\n\r\n\r\n")), error, "{line}");
    }
}

#[test]
fn waits_at_every_prefix_and_keeps_the_offset_whatever_follows() {
    let body = REGULAR.len() - "hello".len();
    for length in 0..body {
        let seen = Head::parse(&REGULAR.as_bytes()[..length]);
        assert!(matches!(seen, Ok(None)), "prefix of {length}");
    }
    for length in body..=REGULAR.len() {
        let (_, offset) = Head::parse(&REGULAR.as_bytes()[..length]).expect("ok").expect("head");
        assert_eq!(offset, body);
    }
}

#[test]
fn refuses_a_head_without_end_at_the_limit() {
    let long = format!("Subject: {}", "x".repeat(HEAD_BYTES_MAX));
    assert!(matches!(Head::parse(&long.as_bytes()[..HEAD_BYTES_MAX - 1]), Ok(None)));
    assert_eq!(refusal(&long[..HEAD_BYTES_MAX]), Malformed::HeadTooLong);
    let second = format!("From: <sip:a@x>\r\n\r\nContent-Type: {long}");
    assert_eq!(refusal(&second), Malformed::HeadTooLong);
}

#[test]
fn reads_back_what_the_wrapper_wrote() {
    let wrapper = Wrapper {
        from: b"sip:alice@example.com",
        to: b"sip:room@example.com",
        date_time: Some(b"2026-01-01T00:00:00Z"),
        extra_header_lines: b"Subject: hi\r\n",
        content_header_lines: b"Content-Type: text/plain\r\n",
    };
    let mut out = [0; 256];
    let length = wrapper.write(&mut out).expect("fits");
    assert_eq!(wrapper.bytes_len(), length);
    assert_eq!(wrapper.write(&mut out[..length - 1]), None);
    wrapper.write(&mut out).expect("fits");
    let (head, body) = Head::parse(&out[..length]).expect("ok").expect("complete");
    assert_eq!(body, length);
    assert_eq!(head.from.expect("From").uri, wrapper.from);
    assert_eq!(head.to().next().expect("To").uri, wrapper.to);
    assert_eq!(head.date_time, wrapper.date_time);
    assert_eq!(head.subject, Some(&b"hi"[..]));
    assert_eq!(head.content_headers, wrapper.content_header_lines);
}

#[test]
fn a_wrapper_without_content_is_a_whole_head() {
    let wrapper = Wrapper {
        from: b"sip:alice@example.com",
        to: b"sip:bob@example.com",
        date_time: None,
        extra_header_lines: b"",
        content_header_lines: b"",
    };
    let mut out = Vec::new();
    wrapper.append_to(&mut out);
    let (head, body) = Head::parse(&out).expect("ok").expect("complete");
    assert_eq!(body, out.len());
    assert_eq!((head.to_count, head.content_type), (1, None));
}

fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(b"From: ".to_vec()),
        Just(b"To: \"".to_vec()),
        Just(b"<sip:a@x>\r\n".to_vec()),
        Just(b"NS: c <urn:ietf:params:cpim-headers:>\r\n".to_vec()),
        Just(b"c.From: <sip:b@x>\r\n".to_vec()),
        Just(b"Subject:;x=\"\\".to_vec()),
        Just(b"Content-Type: a/b\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
    ];
    prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn never_panics_and_never_takes_a_longer_input_otherwise(bytes in garbage()) {
        // Once something is said about a prefix, more bytes do not change it.
        let mut said: Option<String> = None;
        for length in 0..=bytes.len() {
            let result = Head::parse(&bytes[..length]);
            if let Ok(Some((head, offset))) = &result {
                prop_assert!(*offset <= length);
                prop_assert_eq!(head.to().count(), head.to_count);
                let _ = (head.cc().count(), head.require().count(), head.namespaces().count());
            }
            let text = match &result {
                Ok(None) => None,
                said => Some(format!("{said:?}")),
            };
            if said.is_some() {
                prop_assert_eq!(&text, &said);
            }
            said = text;
        }
    }
}
