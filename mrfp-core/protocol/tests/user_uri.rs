//! URIs of users: which spellings name the same.

use mrfp_protocol::user_uri::{is_same, normalise};
use proptest::prelude::*;

#[test]
fn spellings_of_one_name_are_the_same() {
    for (one, other) in [
        ("sip:alice@example.com", "SIP:alice@EXAMPLE.com"),
        ("sip:alice@example.com", "sip:%61lice@example.com;transport=TCP"),
        ("sip:alice@example.com", "sip:alice@example.com;gr=urn:uuid:1?subject=x"),
        ("sip:a%3bb@example.com", "sip:a%3Bb@example.com"),
        ("sip:alice@[2001:DB8::1]:5070", "sip:alice@[2001:db8::1]:5070"),
        ("im:alice@example.com", "IM:alice@Example.Com"),
        ("tel:+1-201-555-0123", "tel:+12015550123"),
        ("tel:+1(201)555.0123", "TEL:+12015550123;rn=+1"),
        ("tel:7042;phone-context=Example.com", "tel:70-42;PHONE-context=example.com"),
        ("tel:+49;isub=1;ext=2", "tel:+49;ext=2;isub=1"),
        ("sip:anonymous-7f3a@anonymous.invalid", "sip:anonymous-7f3a@Anonymous.Invalid"),
        ("no scheme", "no scheme"),
    ] {
        assert!(is_same(one.as_bytes(), other.as_bytes()), "{one} {other}");
    }
}

#[test]
fn names_of_different_users_differ() {
    for (one, other) in [
        ("sip:alice@example.com", "sip:Alice@example.com"),
        ("sip:alice@example.com", "sips:alice@example.com"),
        ("sip:alice@example.com", "sip:alice@example.com:5060"),
        ("sip:alice@example.com", "sip:alice@sub.example.com"),
        ("sip:alice@example.com", "im:alice@example.com"),
        ("sip:a;b@example.com", "sip:a@example.com"),
        ("sip:a;b@example.com", "sip:a%3Bb@example.com"),
        ("tel:7042;phone-context=a.example", "tel:7042;phone-context=b.example"),
        ("tel:+49", "tel:+49;ext=2"),
        ("tel:+49", "sip:+49@example.com"),
        ("sip:alice@example.com", "sip:alice@example.com;x@evil.example"),
        ("no scheme", "No scheme"),
    ] {
        assert!(!is_same(one.as_bytes(), other.as_bytes()), "{one} {other}");
    }
}

proptest! {
    #[test]
    fn the_normal_form_is_its_own(uri in "(sip|tel|im):[a-c;%0-9A-F()@.=-]{0,40}") {
        let mut form = Vec::new();
        normalise(uri.as_bytes(), &mut form);
        let mut again = Vec::new();
        normalise(&form, &mut again);
        prop_assert_eq!(form, again);
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        normalise(&bytes, &mut Vec::new());
    }
}
