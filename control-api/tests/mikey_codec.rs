//! The codec against bytes nobody meant to send.

use control_api::mikey::codec::{self, MESSAGE_BYTES_MAX, ParseReason};
use control_api::mikey::{UriPattern, sdp_attribute, uri};
use proptest::prelude::*;

/// HDR of a TRANSFER_INIT with an empty map, then this first payload.
fn header(first: u8) -> Vec<u8> {
    vec![1, 14, first, 0, 0, 0, 0, 9, 0, 1]
}

fn reason(bytes: &[u8]) -> ParseReason {
    codec::parse(bytes).expect_err("it is wrong").reason
}

#[test]
fn a_header_alone_is_a_message() {
    let message = codec::parse(&header(0)).expect("a message");
    assert_eq!(codec::encode(&message), header(0));
}

#[test]
fn refuses_what_cannot_be_skipped() {
    let mut bytes = header(18);
    bytes.extend_from_slice(&[0, 0, 0]);
    assert_eq!(reason(&bytes), ParseReason::UnknownPayload(18));
    bytes = header(0);
    bytes[9] = 3;
    assert_eq!(reason(&bytes), ParseReason::UnknownMapType(3));
    bytes = header(0);
    bytes[0] = 2;
    assert_eq!(reason(&bytes), ParseReason::UnknownVersion(2));
    bytes = header(0);
    bytes[1] = 200;
    assert_eq!(reason(&bytes), ParseReason::UnknownDataType(200));
    bytes = header(5);
    bytes.extend_from_slice(&[0, 9, 0, 0, 0, 0]);
    assert_eq!(reason(&bytes), ParseReason::UnknownTimestampType(9));
    bytes = header(9);
    bytes.extend_from_slice(&[0, 7]);
    assert_eq!(reason(&bytes), ParseReason::UnknownAlgorithm(7));
}

#[test]
fn refuses_bytes_behind_the_last_payload() {
    let mut bytes = header(0);
    bytes.push(0);
    assert_eq!(reason(&bytes), ParseReason::TrailingBytes);
}

#[test]
fn refuses_a_second_timestamp() {
    let mut bytes = header(5);
    bytes.extend_from_slice(&[5, 3, 0, 0, 0, 1, 0, 3, 0, 0, 0, 2]);
    assert_eq!(reason(&bytes), ParseReason::DuplicatePayload(5));
}

#[test]
fn refuses_the_sixty_fifth_payload_and_not_the_sixty_fourth() {
    let chain = |count: usize| {
        let mut bytes = header(6);
        for left in (0..count).rev() {
            bytes.extend_from_slice(&[if left == 0 { 0 } else { 6 }, 1, 0, 0]);
        }
        bytes
    };
    assert!(codec::parse(&chain(64)).is_ok());
    assert_eq!(reason(&chain(65)), ParseReason::TooManyPayloads);
}

#[test]
fn refuses_a_message_that_is_too_long() {
    assert_eq!(reason(&vec![1; MESSAGE_BYTES_MAX + 1]), ParseReason::MessageTooLong);
}

#[test]
fn refuses_a_ticket_inside_a_ticket_policy() {
    let mut bytes = header(16);
    bytes.extend_from_slice(&[0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 17]);
    assert_eq!(reason(&bytes), ParseReason::MisplacedPayload(17));
}

#[test]
fn keeps_reserved_bits() {
    let mut bytes = header(12);
    bytes.extend_from_slice(&[16, 3, 0xab, 0xcd]);
    bytes.extend_from_slice(&[0, 0, 1, 1, 1, 3, 0xff, 0xff, 0, 1, 0]);
    let message = codec::parse(&bytes).expect("a message");
    assert_eq!(codec::encode(&message), bytes);
}

#[test]
fn sdp_attribute_of_another_protocol_is_none() {
    assert_eq!(sdp_attribute::decode("other AQ=="), None);
    assert_eq!(sdp_attribute::decode("mikey ???"), None);
    assert_eq!(sdp_attribute::decode("mikey"), None);
    assert_eq!(sdp_attribute::decode(" mikey AQ=="), Some(vec![1]));
}

#[test]
fn uris_compare_without_parameters_and_case_of_host() {
    let room = UriPattern::Exact("sip:room@Example.com".to_owned());
    assert!(room.matches("SIP:room@example.COM;transport=tcp?subject=x"));
    assert!(!room.matches("sip:Room@example.com"));
    assert!(!room.matches("sips:room@example.com"));
    let domain = UriPattern::Host("example.com".to_owned());
    assert!(domain.matches("sip:any@example.com:5070;lr"));
    assert!(!domain.matches("sip:example.com@evil.example"));
    assert!(!domain.matches("sip:any@sub.example.com"));
    assert!(UriPattern::Host("[::1]".to_owned()).matches("sip:a@[::1]:5060"));
    assert_eq!(uri::normalise("no scheme"), "no scheme");
}

const KNOWN_PAYLOADS: [u8; 17] = [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 21];

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = codec::parse(&bytes) {
            prop_assert_eq!(codec::encode(&message), bytes.clone());
        }
        let _ = codec::parse_key_data(&bytes);
        if let Ok(base) = codec::parse_base_ticket(&bytes) {
            prop_assert_eq!(codec::encode_base_ticket(&base), bytes);
        }
    }

    #[test]
    fn garbage_behind_a_good_header_never_panics(
        first in prop::sample::select(&KNOWN_PAYLOADS[..]),
        next in prop::sample::select(&[0_u8, 5, 6, 9, 14, 16, 17][..]),
        small in prop::collection::vec(0_u8..6, 0..40),
        rest in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = header(first);
        bytes.push(next);
        bytes.extend_from_slice(&small);
        bytes.extend_from_slice(&rest);
        if let Ok(message) = codec::parse(&bytes) {
            prop_assert_eq!(codec::encode(&message), bytes);
        }
    }

    #[test]
    fn what_parses_as_key_data_encodes_back(bytes in prop::collection::vec(0_u8..24, 0..60)) {
        if let Ok(keys) = codec::parse_key_data(&bytes) {
            let encoded = codec::encode_key_data(&keys);
            prop_assert_eq!(encoded.as_slice(), bytes.as_slice());
        }
    }

    #[test]
    fn any_text_is_a_uri_or_not_but_never_a_panic(text in ".{0,60}") {
        let _ = uri::normalise(&text);
        let _ = UriPattern::Host("example.com".to_owned()).matches(&text);
        let _ = sdp_attribute::decode(&text);
    }
}
