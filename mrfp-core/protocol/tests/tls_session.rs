//! Our client against our server, in memory: every suite, data both ways.

mod tls_common;

use mrfp_protocol::tls::{
    Opened, PLAINTEXT_BYTES_MAX, RECORD_BYTES_MAX, RecordError, Session, TrafficKeys,
};
use proptest::prelude::*;
use tls_common::{
    AEAD_SUITES, CBC_SUITES, TLS13, all_suites, establish, open_all, profile, seal, transfer,
};

const TLS12: &str = "PSK-AES128-GCM-SHA256";

fn pair(suite: &str) -> (Session, Session) {
    let profile = profile(suite);
    establish(&profile, &profile)
}

#[test]
fn carries_data_both_ways_for_every_suite() {
    for suite in all_suites() {
        let (mut client, mut server) = pair(suite);
        if suite != TLS13 {
            assert_eq!(client.suite(), suite);
        }
        assert_eq!(client.suite(), server.suite());
        for size in [0, 1, 2, 15, 16, 17, 255, 4096, PLAINTEXT_BYTES_MAX - 1, PLAINTEXT_BYTES_MAX] {
            let plaintext: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            transfer(&mut client, &mut server, &plaintext);
            transfer(&mut server, &mut client, &plaintext);
            transfer(&mut server, &mut client, &plaintext);
        }
    }
}

#[test]
fn carries_many_records_in_one_input() {
    for suite in all_suites() {
        let (mut client, mut server) = pair(suite);
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        for number in 0..300u32 {
            let plaintext = number.to_be_bytes().repeat(1 + number as usize % 7);
            wire.extend(seal(&mut client, &plaintext).unwrap());
            expected.extend(plaintext);
        }
        assert_eq!(open_all(&mut server, wire).unwrap(), expected);
    }
}

#[test]
fn every_prefix_of_a_record_needs_input_and_changes_nothing() {
    for suite in all_suites() {
        let (mut client, mut server) = pair(suite);
        let record = seal(&mut client, b"a short message").unwrap();
        for length in 0..record.len() {
            let mut prefix = record[..length].to_vec();
            assert!(matches!(server.open(&mut prefix), Ok(Opened::NeedInput)));
            assert_eq!(prefix, record[..length]);
        }
        assert_eq!(open_all(&mut server, record).unwrap(), b"a short message");
    }
}

#[test]
fn a_record_changed_in_any_byte_of_its_payload_is_refused() {
    for suite in all_suites() {
        // Handshakes cost; one position each is enough for the suites OpenSSL carries.
        let whole = CBC_SUITES.contains(&suite) || suite.starts_with("DHE");
        let step = if whole { 40 } else { 7 };
        let length = {
            let (mut client, _) = pair(suite);
            seal(&mut client, b"a short message").unwrap().len()
        };
        for at in (5..length).step_by(step) {
            let (mut client, mut server) = pair(suite);
            let mut record = seal(&mut client, b"a short message").unwrap();
            record[at] ^= 0x10;
            let error = open_all(&mut server, record).unwrap_err();
            assert_eq!(error, RecordError::BadRecordMac, "{suite} at {at}");
            let alert = server.fatal_alert(error);
            let received = open_all(&mut client, alert).unwrap_err();
            assert_eq!(received, RecordError::AlertReceived(20), "{suite}");
            assert!(client.fatal_alert(received).is_empty());
        }
    }
}

#[test]
fn a_record_sent_twice_is_refused() {
    for suite in all_suites() {
        let (mut client, mut server) = pair(suite);
        let record = seal(&mut client, b"pay 10").unwrap();
        open_all(&mut server, record.clone()).unwrap();
        let error = open_all(&mut server, record).unwrap_err();
        assert_eq!(error, RecordError::BadRecordMac);
    }
}

#[test]
fn an_oversized_record_is_refused_by_its_header() {
    for suite in all_suites() {
        let (_, mut server) = pair(suite);
        let [high, low] = u16::try_from(RECORD_BYTES_MAX - 5 + 1).unwrap().to_be_bytes();
        let result = server.open(&mut [23, 3, 3, high, low]);
        assert_eq!(result.err(), Some(RecordError::RecordOverflow), "{suite}");
    }
}

#[test]
fn a_record_of_another_version_is_refused() {
    for suite in all_suites() {
        let (mut client, mut server) = pair(suite);
        let mut record = seal(&mut client, b"data").unwrap();
        record[2] = 1;
        let error = open_all(&mut server, record).unwrap_err();
        assert_eq!(error, RecordError::UnexpectedMessage);
    }
}

#[test]
fn a_record_too_short_for_its_tag_is_refused() {
    for suite in all_suites() {
        let (_, mut server) = pair(suite);
        let result = server.open(&mut [23, 3, 3, 0, 3, 1, 2, 3]);
        assert_eq!(result.err(), Some(RecordError::BadRecordMac), "{suite}");
    }
}

#[test]
fn close_notify_is_understood_both_ways() {
    for suite in all_suites() {
        let (mut client, mut server) = pair(suite);
        transfer(&mut client, &mut server, b"data");
        let mut close = client.close_notify();
        let length = close.len();
        let Ok(Opened::CloseNotify { consumed }) = server.open(&mut close) else {
            panic!("{suite}: no close_notify");
        };
        assert_eq!(consumed, length);
        // One direction is closed, the other still works until it is closed too.
        transfer(&mut server, &mut client, b"last words");
        let mut close = server.close_notify();
        assert!(matches!(client.open(&mut close), Ok(Opened::CloseNotify { .. })));
    }
}

#[test]
fn a_session_survives_being_reduced_to_its_keys() {
    for suite in AEAD_SUITES.into_iter().chain([TLS13]) {
        let (mut client, mut server) = pair(suite);
        for _ in 0..3 {
            transfer(&mut client, &mut server, b"data");
            transfer(&mut server, &mut client, b"data");
            let keys: TrafficKeys = server.into_traffic_keys().unwrap();
            server = keys.into_session();
            assert_eq!(server.suite(), client.suite());
            client = client.into_traffic_keys().unwrap().into_session();
        }
    }
}

#[test]
fn a_cbc_session_cannot_be_reduced_and_goes_on() {
    let (mut client, server) = pair("PSK-AES128-CBC-SHA256");
    let mut server = server.into_traffic_keys().unwrap_err();
    transfer(&mut client, &mut server, b"data");
}

#[test]
fn sessions_and_keys_may_move_to_another_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<Session>();
    assert_send::<TrafficKeys>();
    assert_send::<mrfp_protocol::tls::Handshake>();
    assert_send::<mrfp_protocol::tls::Profile>();
}

#[test]
fn secrets_are_not_printed() {
    let (client, _) = pair(TLS12);
    assert_eq!(format!("{client:?}"), "Session(PSK-AES128-GCM-SHA256, redacted)");
    let keys = client.into_traffic_keys().unwrap();
    assert_eq!(format!("{keys:?}"), "TrafficKeys(PSK-AES128-GCM-SHA256, redacted)");
}

#[test]
fn a_flood_of_empty_records_is_cut_off() {
    for suite in AEAD_SUITES.into_iter().chain([TLS13]) {
        let (mut client, mut server) = pair(suite);
        let opened = (0..1000)
            .map_while(|_| {
                let record = seal(&mut client, b"").unwrap();
                open_all(&mut server, record).ok()
            })
            .count();
        assert!((1..100).contains(&opened), "{suite}: {opened}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn garbage_never_panics_a_session(
        mut garbage in proptest::collection::vec(any::<u8>(), 0..400),
        suite in prop::sample::select(vec![TLS12, "PSK-CHACHA20-POLY1305", "PSK-AES128-CBC-SHA", TLS13]),
        plausible in any::<bool>(),
    ) {
        let (_, mut server) = pair(suite);
        if plausible && garbage.len() > 5 {
            let length = u16::try_from(garbage.len() - 5).unwrap();
            garbage[0] = 20 + garbage[0] % 4;
            garbage[1..3].copy_from_slice(&[3, 3]);
            garbage[3..5].copy_from_slice(&length.to_be_bytes());
        }
        for _ in 0..3 {
            match server.open(&mut garbage) {
                Ok(Opened::Data { .. }) => prop_assert!(false, "garbage is no data"),
                Ok(_) => {}
                Err(error) => { server.fatal_alert(error); }
            }
        }
    }
}
