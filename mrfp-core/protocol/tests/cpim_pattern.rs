//! A head is taken for one that has been read only where reading it would say the same.

use mrfp_protocol::cpim::{HEAD_BYTES_MAX, Head, Pattern};
use proptest::prelude::*;

const HEAD: &str = "From: \"Alice\" <sip:alice@example.com>\r\nTo: <sip:room@example.com>\r\n\
     DateTime: 2026-05-15T15:02:31-03:00\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
     imdn.Message-ID: 34jk324j\r\n\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n";

fn learnt(head: &str) -> Pattern {
    let (_, length) = Head::parse(head.as_bytes()).expect("well formed").expect("complete");
    assert_eq!(length, head.len());
    let mut pattern = Pattern::default();
    assert!(pattern.learn(head.as_bytes()));
    pattern
}

#[test]
fn takes_the_same_head_at_another_time_for_the_same() {
    let pattern = learnt(HEAD);
    for (old, new) in [
        ("", ""),
        ("2026-05-15T15:02:31-03:00", "2026-05-15T15:02:32-03:00"),
        ("2026-05-15T15:02:31-03:00", "2026-05-15T15:02:31.25Z"),
        ("34jk324j", "another, longer one"),
        ("34jk324j", ""),
        ("Content-Length: 5", "Content-Length: 51234"),
    ] {
        let head = HEAD.replacen(old, new, 1);
        let message = format!("{head}Hello");
        assert_eq!(pattern.matches(message.as_bytes()), Some(head.len()), "{new}");
    }
}

#[test]
fn takes_no_head_for_the_same_that_says_something_else() {
    let pattern = learnt(HEAD);
    for (old, new) in [
        ("alice@", "mallory@"),
        ("\"Alice\"", "\"Boss\""),
        ("To: ", "to: "),
        ("room@", "carol@"),
        ("text/plain", "text/html"),
        ("urn:ietf:params:imdn", "urn:ietf:params:cpim-headers:"),
        ("DateTime: ", "DateTime:;a=b "),
        ("imdn.Message-ID", "imdn.Message-Id"),
        ("15:02:31-03:00\r\n", "15:02:31-03:00\r\nTo: <sip:eve@example.com>\r\n"),
        ("15:02:31-03:00\r\n", "15:02:31-03:00\n"),
        ("15:02:31", "15\x0102:31"),
        ("15:02:31", "15\r02:31"),
        ("\r\n\r\nContent-Type", "\r\nContent-Type"),
    ] {
        let head = HEAD.replacen(old, new, 1);
        assert_ne!(head, HEAD);
        assert_eq!(pattern.matches(head.as_bytes()), None, "{new}");
    }
}

#[test]
fn takes_no_part_of_a_head_for_the_whole() {
    let pattern = learnt(HEAD);
    for length in 0..HEAD.len() {
        assert_eq!(pattern.matches(&HEAD.as_bytes()[..length]), None, "{length}");
    }
}

#[test]
fn a_head_that_is_too_long_is_not_kept_nor_taken_for_another() {
    let long = "x".repeat(HEAD_BYTES_MAX);
    let mut pattern = learnt(HEAD);
    assert_eq!(pattern.matches(HEAD.replace("34jk324j", &long).as_bytes()), None);
    assert!(!pattern.learn(HEAD.replace("alice", &long).as_bytes()));
    assert_eq!(pattern.matches(HEAD.as_bytes()), None, "nor is the one before it");
    let many = HEAD.replace("NS: ", &format!("{}NS: ", "Subject: a\r\n".repeat(20)));
    assert!(!pattern.learn(many.as_bytes()));
    assert_eq!(pattern.matches(many.as_bytes()), None);
}

proptest! {
    /// Whatever is changed in it: where it is still taken for the same, reading it finds the same
    /// sender, recipient and kind of content, and the same length.
    #[test]
    fn what_is_taken_for_the_same_reads_the_same(
        changes in prop::collection::vec((0..HEAD.len(), prop::option::of(any::<u8>()), any::<bool>()), 0..4),
    ) {
        let pattern = learnt(HEAD);
        let mut changed = HEAD.as_bytes().to_vec();
        for (at, byte, insert) in changes {
            let at = at.min(changed.len() - 1);
            match (byte, insert) {
                (Some(byte), true) => changed.insert(at, byte),
                (Some(byte), false) => changed[at] = byte,
                (None, _) => drop(changed.remove(at)),
            }
        }
        let (known, _) = Head::parse(HEAD.as_bytes()).unwrap().unwrap();
        if let Some(length) = pattern.matches(&changed) {
            let read = Head::parse(&changed);
            let (head, head_bytes) = read.expect("well formed").expect("complete");
            prop_assert_eq!(head_bytes, length);
            prop_assert_eq!(head.from, known.from);
            prop_assert_eq!(head.to_count, known.to_count);
            prop_assert_eq!(head.first_to, known.first_to);
            prop_assert_eq!(head.content_type, known.content_type);
            prop_assert_eq!(head.content_disposition, known.content_disposition);
        }
    }
}
