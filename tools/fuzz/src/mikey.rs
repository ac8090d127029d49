//! The codec and the decoder: any bytes.

use control_api::inspect::{self, Keys, MikeyOptions, Purpose};
use control_api::mikey::codec::{self, InitiatorProof, ParseReason, Payload};
use control_api::mikey::{Error, error_message};

use crate::mikey_world::now;

/// Parsing and writing.
pub(crate) fn codec(bytes: &[u8]) -> bool {
    let mut is_good = false;
    if let Ok(message) = codec::parse(bytes) {
        assert_eq!(codec::encode(&message), bytes);
        is_good = true;
        let _ = message.check_contents();
        assert!(codec::encode_without_initiator_data(&message).len() <= bytes.len());
        for payload in &message.payloads {
            check_payload(payload);
        }
        // A message says in every part what follows, so no part of it is a message.
        for length in 0..bytes.len() {
            let error = codec::parse(&bytes[..length]).expect_err("the end is missing");
            assert_eq!(error.reason, ParseReason::Truncated);
            assert!(error.offset <= length);
        }
        assert_eq!(
            error_message(bytes, &Error::Replayed, now()).is_none(),
            message.header.data_type == codec::DataType::Error
        );
    }
    let _ = InitiatorProof::parse(bytes);
    is_good | key_data(bytes) | base_ticket(bytes)
}

fn check_payload(payload: &Payload) {
    match payload {
        Payload::Kemac(kemac) => {
            key_data(&kemac.encrypted);
        }
        Payload::Ticket(ticket) => {
            base_ticket(&ticket.data);
            let _ = InitiatorProof::parse(&ticket.initiator_data);
            let _ = ticket.policy.flags.contradiction();
        }
        _ => {}
    }
}

fn key_data(bytes: &[u8]) -> bool {
    let Ok(keys) = codec::parse_key_data(bytes) else { return false };
    assert_eq!(codec::encode_key_data(&keys).as_slice(), bytes);
    true
}

fn base_ticket(bytes: &[u8]) -> bool {
    let Ok(base) = codec::parse_base_ticket(bytes) else { return false };
    assert_eq!(codec::encode_base_ticket(&base), bytes);
    if let Some(kemac) = base.kemac() {
        key_data(&kemac.encrypted);
    }
    true
}

/// The decoder, which reads what the codec refuses, too. A line of text is one input.
pub(crate) fn inspect(bytes: &[u8]) -> bool {
    let mut keys = Keys::default();
    for (purpose, fill) in [
        (Purpose::Ticket, "01"),
        (Purpose::User, "02"),
        (Purpose::User, "03"),
        (Purpose::MessageProtection, "07"),
    ] {
        keys.add_hex(purpose, &fill.repeat(32)).expect("hex");
    }
    let json = bytes.len() % 2 == 1;
    let tls = [241];
    let options = MikeyOptions { keys: &keys, tls: &tls, show_secrets: true, json, colour: !json };
    // As hex, as what it is.
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let inputs = [("a".to_owned(), hex.into_bytes()), ("b".to_owned(), bytes.to_vec())];
    let mut is_read = false;
    for input in inputs {
        is_read |= inspect::mikey(&[input], &options, &mut Vec::new()).is_ok();
    }
    is_read
}
