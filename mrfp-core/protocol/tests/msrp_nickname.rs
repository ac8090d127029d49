//! Use-Nickname: what is a nickname, what removes one, what is answered 424.

use mrfp_protocol::msrp::{Framer, MalformedNickname, NICKNAME_BYTES_MAX, UseNickname};
use proptest::prelude::*;

fn take(value: &str) -> Option<String> {
    match UseNickname::parse(value.as_bytes()) {
        Ok(UseNickname::Take(nickname)) => Some(nickname.into_owned()),
        Ok(UseNickname::Remove) | Err(_) => None,
    }
}

#[test]
fn reads_quoted_strings_with_their_escapes() {
    assert_eq!(take(r#""Alice the great""#).as_deref(), Some("Alice the great"));
    assert_eq!(take(r#""a \"quoted\" \\ name""#).as_deref(), Some(r#"a "quoted" \ name"#));
    assert_eq!(take("\"Zoë\u{1f600}\"").as_deref(), Some("Zoë\u{1f600}"));
    assert_eq!(UseNickname::parse(b"\"\""), Ok(UseNickname::Remove));
}

#[test]
fn refuses_what_is_no_quoted_string() {
    for value in [
        "",
        "\"",
        "Alice",
        "\"Alice",
        "Alice\"",
        "\"a\"b\"",
        r#""a\"#,
        r#""a\""#,
        r#""a\n""#,
        "\"a\u{7}\"",
        "\"a\u{7f}\"",
    ] {
        assert_eq!(UseNickname::parse(value.as_bytes()), Err(MalformedNickname), "{value:?}");
    }
    assert_eq!(UseNickname::parse(b"\"\xff\""), Err(MalformedNickname));
}

#[test]
fn counts_octets_behind_the_escapes() {
    assert!(take(&format!("\"{}\"", "x".repeat(NICKNAME_BYTES_MAX))).is_some());
    assert!(take(&format!("\"{}\"", "x".repeat(NICKNAME_BYTES_MAX + 1))).is_none());
    assert!(take(&format!("\"{}\"", "\\\\".repeat(NICKNAME_BYTES_MAX))).is_some());
    assert!(take(&format!("\"{}\"", "ä".repeat(NICKNAME_BYTES_MAX / 2))).is_some());
    assert!(take(&format!("\"{}\"", "ä".repeat(NICKNAME_BYTES_MAX / 2 + 1))).is_none());
}

#[test]
fn a_request_names_one() {
    let of = |lines: &str| {
        let text = format!(
            "MSRP abcd NICKNAME\r\nTo-Path: msrp://a:1/b;tcp\r\nFrom-Path: msrp://c:1/d;tcp\r\n\
             {lines}-------abcd$\r\n"
        );
        let mut framer = Framer::default();
        let piece = framer.next(text.as_bytes()).expect("well formed").expect("whole");
        let head = piece.head.expect("a head");
        UseNickname::of(&head).map(|found| found.is_some())
    };
    assert_eq!(of("use-nickname: \"a\"\r\n"), Ok(true));
    assert_eq!(of(""), Ok(false));
    assert_eq!(of("Use-Nickname: \"a\"\r\nUse-Nickname: \"b\"\r\n"), Err(MalformedNickname));
}

proptest! {
    #[test]
    fn never_panics(value in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = UseNickname::parse(&value);
        let _ = UseNickname::parse(&[b"\"", value.as_slice(), b"\""].concat());
    }
}
