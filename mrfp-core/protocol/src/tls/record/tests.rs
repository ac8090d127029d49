use super::super::keys::{DirectionKeys, Prf, SECRET_BYTES_MAX, Secret, tls12_traffic_keys};
use super::super::memory_stream::MemoryStream;
use super::super::numbers::LEVEL_FATAL;
use super::super::suite::suite_by_name;
use super::super::{Handshake, Profile, ProfileConfig, Progress, Psk, Records, Session};
use super::*;

const AEAD_SUITES: [&str; 6] = [
    "PSK-AES128-GCM-SHA256",
    "PSK-AES256-GCM-SHA384",
    "PSK-CHACHA20-POLY1305",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_256_GCM_SHA384",
];
const TLS12: &str = "PSK-AES128-GCM-SHA256";
const TLS13: &str = "TLS_AES_128_GCM_SHA256";

fn layer(suite: &str, role: Role) -> RecordLayer {
    let suite = suite_by_name(suite).unwrap();
    let Protection::Aead(aead) = suite.protection else {
        unreachable!("only AEAD suites are tested here");
    };
    let keys = match suite.version {
        Version::Tls12 => {
            let prf = Prf::new(suite.hash, &[7; 48]);
            tls12_traffic_keys(&prf, suite, aead, role, &[1; 32], &[2; 32])
        }
        Version::Tls13 => {
            let direction =
                |byte| DirectionKeys::tls13(&Secret::new([byte; SECRET_BYTES_MAX]), suite.hash);
            TrafficKeys::new(suite, role, direction(3), direction(4))
        }
    };
    RecordLayer::new(keys)
}

fn pair(suite: &str) -> (RecordLayer, RecordLayer) {
    (layer(suite, Role::Client), layer(suite, Role::Server))
}

fn seal(layer: &mut RecordLayer, plaintext: &[u8]) -> Result<Vec<u8>, RecordError> {
    let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + plaintext.len();
    let mut memory = vec![0xee; range.end + SEAL_TAILROOM_BYTES];
    memory[range.clone()].copy_from_slice(plaintext);
    let record = layer.seal(&mut memory, range)?;
    Ok(memory[record].to_vec())
}

fn open(layer: &mut RecordLayer, record: &[u8]) -> Result<Opened, RecordError> {
    layer.open(&mut record.to_vec())
}

fn assert_carries(from: &mut RecordLayer, to: &mut RecordLayer, plaintext: &[u8]) {
    let mut record = seal(from, plaintext).unwrap();
    let Ok(Opened::Data { plaintext: range, consumed }) = to.open(&mut record) else {
        panic!("no data came out");
    };
    assert_eq!(&record[range], plaintext);
    assert_eq!(consumed, record.len());
}

fn assert_handled(layer: &mut RecordLayer, record: &[u8]) {
    let Ok(Opened::Handled { consumed }) = open(layer, record) else {
        panic!("the record was not handled");
    };
    assert_eq!(consumed, record.len());
}

#[test]
fn an_established_session_stays_small() {
    assert!(size_of::<RecordLayer>() <= 1300, "{}", size_of::<RecordLayer>());
}

#[test]
fn a_session_at_rest_has_no_expanded_keys_and_goes_on() {
    for suite in AEAD_SUITES {
        let (mut client, mut server) = pair(suite);
        for round in 0..3 {
            assert_carries(&mut client, &mut server, b"before");
            assert!(client.expanded.is_some() && server.expanded.is_some());
            client.rest();
            server.rest();
            assert!(client.expanded.is_none() && server.expanded.is_none(), "round {round}");
            assert_carries(&mut server, &mut client, b"after");
        }
    }
}

#[test]
fn client_refuses_hello_request_with_a_warning_and_goes_on() {
    let (mut client, mut server) = pair(TLS12);
    let record = server.seal_small(CONTENT_HANDSHAKE, &[MESSAGE_HELLO_REQUEST, 0, 0, 0]);
    assert_handled(&mut client, &record);
    let mut warning = client.pending_output();
    let (content_type, plaintext) = server.decrypt(&mut warning).unwrap();
    assert_eq!(content_type, CONTENT_ALERT);
    assert_eq!(warning[plaintext], [LEVEL_WARNING, 100]);
    assert!(client.pending_output().is_empty());
    assert_carries(&mut client, &mut server, b"still here");
    assert_carries(&mut server, &mut client, b"so am I");
}

#[test]
fn server_refuses_a_client_hello_split_over_records() {
    let (mut client, mut server) = pair(TLS12);
    let mut hello = vec![MESSAGE_CLIENT_HELLO, 0, 0, 200];
    hello.resize(204, 0x55);
    let (first, second) = hello.split_at(50);
    let record = client.seal_small(CONTENT_HANDSHAKE, first);
    assert_handled(&mut server, &record);
    let record = client.seal_small(CONTENT_HANDSHAKE, second);
    assert_handled(&mut server, &record);
    let warning = server.pending_output();
    assert_handled(&mut client, &warning);
    assert_carries(&mut client, &mut server, b"still here");
}

#[test]
fn refuses_data_between_the_fragments_of_a_message() {
    let (mut client, mut server) = pair(TLS12);
    let record = client.seal_small(CONTENT_HANDSHAKE, &[MESSAGE_CLIENT_HELLO, 0, 0, 200, 1, 2, 3]);
    assert_handled(&mut server, &record);
    let record = seal(&mut client, b"data").unwrap();
    let result = open(&mut server, &record);
    assert_eq!(result.err(), Some(RecordError::UnexpectedMessage));
}

#[test]
fn cuts_off_a_peer_that_keeps_renegotiating() {
    let (mut client, mut server) = pair(TLS12);
    for _ in 0..RENEGOTIATIONS_MAX {
        let record = server.seal_small(CONTENT_HANDSHAKE, &[MESSAGE_HELLO_REQUEST, 0, 0, 0]);
        assert_handled(&mut client, &record);
        assert_carries(&mut server, &mut client, b"data between");
    }
    let record = server.seal_small(CONTENT_HANDSHAKE, &[MESSAGE_HELLO_REQUEST, 0, 0, 0]);
    let result = open(&mut client, &record);
    assert_eq!(result.err(), Some(RecordError::UnexpectedMessage));
}

#[test]
fn refuses_handshake_messages_of_the_wrong_end_or_version() {
    let cases: [(&str, Role, &[u8]); 7] = [
        (TLS12, Role::Server, &[MESSAGE_HELLO_REQUEST, 0, 0, 0]),
        (TLS12, Role::Client, &[MESSAGE_CLIENT_HELLO, 0, 0, 0]),
        (TLS12, Role::Client, &[MESSAGE_HELLO_REQUEST, 0, 0, 1, 0]),
        (TLS12, Role::Client, &KEY_UPDATE_NOT_REQUESTED),
        (TLS13, Role::Server, &[MESSAGE_NEW_SESSION_TICKET, 0, 0, 0]),
        (TLS13, Role::Client, &[MESSAGE_HELLO_REQUEST, 0, 0, 0]),
        (TLS13, Role::Server, &[]),
    ];
    for (suite, receiver, message) in cases {
        let (client, server) = pair(suite);
        let (mut from, mut to) = match receiver {
            Role::Client => (server, client),
            Role::Server => (client, server),
        };
        let record = from.seal_small(CONTENT_HANDSHAKE, message);
        let result = open(&mut to, &record);
        assert_eq!(result.err(), Some(RecordError::UnexpectedMessage));
    }
}

#[test]
fn client_passes_over_a_ticket_split_over_records() {
    let (mut client, mut server) = pair(TLS13);
    let mut ticket = vec![MESSAGE_NEW_SESSION_TICKET, 0, 1, 0];
    ticket.resize(4 + 256, 0);
    // The next ticket begins in the record that ends this one.
    ticket.extend([MESSAGE_NEW_SESSION_TICKET, 0, 0, 1]);
    let record = server.seal_small(CONTENT_HANDSHAKE, &ticket[..100]);
    assert_handled(&mut client, &record);
    let record = server.seal_small(CONTENT_HANDSHAKE, &ticket[100..]);
    assert_handled(&mut client, &record);
    let record = server.seal_small(CONTENT_HANDSHAKE, &[9]);
    assert_handled(&mut client, &record);
    assert_carries(&mut server, &mut client, b"data");
}

#[test]
fn answers_a_key_update_before_the_next_data() {
    let (mut client, mut server) = pair(TLS13);
    let record = client.seal_small(CONTENT_HANDSHAKE, &[MESSAGE_KEY_UPDATE, 0, 0, 1, 1]);
    client.advance_write_keys();
    assert_handled(&mut server, &record);
    assert_carries(&mut client, &mut server, b"under the new key");
    // Not fetched by pending_output: the answer precedes the data in one range.
    let answer_and_data = seal(&mut server, b"answer").unwrap();
    assert_handled(&mut client, &answer_and_data[..KEY_UPDATE_RECORD_BYTES]);
    let mut data = answer_and_data[KEY_UPDATE_RECORD_BYTES..].to_vec();
    let Ok(Opened::Data { plaintext, .. }) = client.open(&mut data) else {
        panic!("no data behind the key update");
    };
    assert_eq!(&data[plaintext], b"answer");
    assert!(server.pending_output().is_empty());
    assert_carries(&mut server, &mut client, b"more");
}

#[test]
fn gives_the_answer_to_a_key_update_as_pending_output() {
    let (mut client, mut server) = pair(TLS13);
    let record = server.seal_small(CONTENT_HANDSHAKE, &[MESSAGE_KEY_UPDATE, 0, 0, 1, 1]);
    server.advance_write_keys();
    assert_handled(&mut client, &record);
    let answer = client.pending_output();
    assert_handled(&mut server, &answer);
    assert!(server.pending_output().is_empty());
    assert_carries(&mut client, &mut server, b"data");
    assert_carries(&mut server, &mut client, b"data");
}

#[test]
fn refuses_a_key_update_that_does_not_end_its_record_or_is_ill_formed() {
    let messages: [&[u8]; 4] = [
        &[MESSAGE_KEY_UPDATE, 0, 0, 1, 0, MESSAGE_NEW_SESSION_TICKET, 0, 0, 0],
        &[MESSAGE_KEY_UPDATE, 0, 0, 1, 2],
        &[MESSAGE_KEY_UPDATE, 0, 0, 2, 0, 0],
        &[MESSAGE_KEY_UPDATE, 0, 0, 1],
    ];
    for message in messages {
        let (mut client, mut server) = pair(TLS13);
        let record = server.seal_small(CONTENT_HANDSHAKE, message);
        let result = open(&mut client, &record);
        assert_eq!(result.err(), Some(RecordError::UnexpectedMessage));
    }
}

#[test]
fn tls13_changes_keys_before_the_cipher_limit() {
    let (mut client, mut server) = pair(TLS13);
    client.keys.blocks_written = BLOCKS_MAX;
    let plaintext = vec![9; PLAINTEXT_BYTES_MAX];
    let both = seal(&mut client, &plaintext).unwrap();
    assert_handled(&mut server, &both[..KEY_UPDATE_RECORD_BYTES]);
    let mut data = both[KEY_UPDATE_RECORD_BYTES..].to_vec();
    let Ok(Opened::Data { plaintext: range, .. }) = server.open(&mut data) else {
        panic!("no data behind the key update");
    };
    assert_eq!(data[range], plaintext);
    assert!(client.keys.blocks_written < BLOCKS_MAX);
    assert_carries(&mut client, &mut server, b"more");
}

#[test]
fn tls12_stops_at_the_cipher_limit_but_can_still_send_an_alert() {
    let (mut client, mut server) = pair(TLS12);
    client.keys.blocks_written = BLOCKS_MAX - 1;
    assert_carries(&mut client, &mut server, b"the last one");
    let result = seal(&mut client, b"one too many");
    assert_eq!(result.err(), Some(RecordError::KeysExhausted));
    let alert = client.alert(LEVEL_WARNING, ALERT_CLOSE_NOTIFY);
    assert!(matches!(open(&mut server, &alert), Ok(Opened::CloseNotify { .. })));
}

#[test]
fn chacha20_has_no_cipher_limit() {
    for suite in ["PSK-CHACHA20-POLY1305", "TLS_CHACHA20_POLY1305_SHA256"] {
        let (mut client, mut server) = pair(suite);
        client.keys.blocks_written = BLOCKS_MAX;
        assert_carries(&mut client, &mut server, b"data");
    }
}

#[test]
fn stops_at_the_sequence_limit_in_both_directions() {
    for suite in AEAD_SUITES {
        let (mut client, mut server) = pair(suite);
        client.keys.write.sequence = SEQUENCE_MAX - 1;
        server.keys.read.sequence = SEQUENCE_MAX - 1;
        assert_carries(&mut client, &mut server, b"the last one");
        let result = seal(&mut client, b"one too many");
        assert_eq!(result.err(), Some(RecordError::KeysExhausted));
        let alert = client.alert(LEVEL_WARNING, ALERT_CLOSE_NOTIFY);
        let result = open(&mut server, &alert);
        assert_eq!(result.err(), Some(RecordError::KeysExhausted));
    }
}

#[test]
fn explicit_nonces_count_up_from_the_one_of_finished() {
    let mut client = layer(TLS12, Role::Client);
    client.keys.write.iv[4..].copy_from_slice(&u64::MAX.to_be_bytes());
    let record = seal(&mut client, b"first").unwrap();
    assert_eq!(record[5..13], 0u64.to_be_bytes());
    let record = seal(&mut client, b"second").unwrap();
    assert_eq!(record[5..13], 1u64.to_be_bytes());
}

#[test]
fn tells_warnings_fatal_alerts_and_closure_apart() {
    for suite in AEAD_SUITES {
        let (mut client, mut server) = pair(suite);
        let is_tls13 = client.keys.suite.version == Version::Tls13;
        let record = client.alert(LEVEL_WARNING, ALERT_USER_CANCELED);
        assert_handled(&mut server, &record);
        let record = client.alert(LEVEL_WARNING, 112);
        let result = open(&mut server, &record);
        if is_tls13 {
            assert_eq!(result.err(), Some(RecordError::AlertReceived(112)));
        } else {
            assert!(matches!(result, Ok(Opened::Handled { .. })));
        }
        let record = client.alert(LEVEL_FATAL, 40);
        let result = open(&mut server, &record);
        assert_eq!(result.err(), Some(RecordError::AlertReceived(40)));
        let record = client.seal_small(CONTENT_ALERT, &[1]);
        let result = open(&mut server, &record);
        assert_eq!(result.err(), Some(RecordError::UnexpectedMessage));
    }
}

#[test]
fn cuts_off_a_flood_of_records_without_data() {
    for suite in AEAD_SUITES {
        let (mut client, mut server) = pair(suite);
        for _ in 0..IDLE_RECORDS_MAX {
            assert_carries(&mut client, &mut server, b"");
        }
        assert_carries(&mut client, &mut server, b"data");
        for _ in 0..IDLE_RECORDS_MAX {
            let record = client.alert(LEVEL_WARNING, ALERT_USER_CANCELED);
            assert_handled(&mut server, &record);
        }
        let record = seal(&mut client, b"").unwrap();
        let result = open(&mut server, &record);
        assert_eq!(result.err(), Some(RecordError::UnexpectedMessage));
    }
}

#[test]
fn refuses_a_plaintext_longer_than_a_record_may_carry() {
    for suite in AEAD_SUITES {
        let (mut client, mut server) = pair(suite);
        let record = client.seal_small(CONTENT_APPLICATION_DATA, &vec![0; PLAINTEXT_BYTES_MAX + 1]);
        let result = open(&mut server, &record);
        assert_eq!(result.err(), Some(RecordError::RecordOverflow));
    }
}

#[test]
fn refuses_content_types_that_have_no_place() {
    for content_type in [0, 20, 24, 255] {
        let (mut client, mut server) = pair(TLS13);
        // As the inner type; zero alone is padding without content.
        let record = client.seal_small(content_type, b"");
        let result = open(&mut server, &record);
        assert_eq!(result.err(), Some(RecordError::UnexpectedMessage));
        for suite in AEAD_SUITES {
            let (_, mut server) = pair(suite);
            let result = open(&mut server, &[content_type, 3, 3, 0, 1, 1]);
            assert_eq!(result.err(), Some(RecordError::UnexpectedMessage));
        }
    }
}

#[test]
fn accepts_padding_up_to_the_limit_of_a_record() {
    let (mut client, mut server) = pair(TLS13);
    // What seal_small adds as the content type is the last byte of padding here.
    let mut padded = b"data".to_vec();
    padded.push(CONTENT_APPLICATION_DATA);
    padded.resize(PLAINTEXT_BYTES_MAX, 0);
    let mut record = client.seal_small(0, &padded);
    let Ok(Opened::Data { plaintext, .. }) = server.open(&mut record) else {
        panic!("no data came out");
    };
    assert_eq!(&record[plaintext], b"data");
    padded.push(0);
    let record = client.seal_small(0, &padded);
    let result = open(&mut server, &record);
    assert_eq!(result.err(), Some(RecordError::RecordOverflow));
}

#[test]
fn ignores_what_follows_close_notify() {
    let (mut client, mut server) = pair(TLS12);
    let mut bytes = client.alert(LEVEL_WARNING, ALERT_CLOSE_NOTIFY);
    assert!(matches!(server.open(&mut bytes), Ok(Opened::CloseNotify { .. })));
    let mut rest = b"anything".to_vec();
    let Ok(Opened::CloseNotify { consumed }) = server.open(&mut rest) else {
        panic!("closed for reading means closed");
    };
    assert_eq!(consumed, rest.len());
}

#[test]
fn keeps_the_record_layer_while_an_answer_is_owed() {
    let (client, mut server) = pair(TLS12);
    let record = server.seal_small(CONTENT_HANDSHAKE, &[MESSAGE_HELLO_REQUEST, 0, 0, 0]);
    let mut client = Box::new(client);
    assert_handled(&mut client, &record);
    let Err(mut client) = client.into_traffic_keys() else {
        panic!("the warning would be lost");
    };
    assert!(!client.pending_output().is_empty());
    assert!(client.into_traffic_keys().is_ok());
}

/// Our record layer as the TLS 1.3 client of a stock OpenSSL server.
fn against_stock_server() -> (Box<RecordLayer>, openssl::ssl::SslStream<MemoryStream>) {
    use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslStream};
    let mut builder = SslContextBuilder::new(SslMethod::tls()).unwrap();
    builder.set_psk_server_callback(|_, _, key| {
        key[..32].copy_from_slice(&[5; 32]);
        Ok(32)
    });
    let mut ssl = Ssl::new(&builder.build()).unwrap();
    ssl.set_accept_state();
    let mut stock = SslStream::new(ssl, MemoryStream::default()).unwrap();
    let profile = Profile::new(&ProfileConfig { suites: Vec::new(), tls13: true }).unwrap();
    let psk = Psk::new(vec![5; 32]).unwrap();
    let mut handshake = Handshake::client(&profile, b"alice", &psk).unwrap();
    let mut output = Vec::new();
    let mut session = None;
    while session.is_none() {
        let input = std::mem::take(&mut stock.get_mut().outbound);
        if let (_, Progress::Done(done)) = handshake.advance(&input, &mut output).unwrap() {
            session = Some(done);
        }
        stock.get_mut().feed(&std::mem::take(&mut output));
        let _ = stock.do_handshake();
    }
    let Some(Session { records: Records::Own(layer) }) = session else {
        panic!("TLS 1.3 records are ours");
    };
    (layer, stock)
}

/// Data one way and back through a stock OpenSSL end, whatever else it sends.
fn echo(layer: &mut RecordLayer, stock: &mut openssl::ssl::SslStream<MemoryStream>) {
    let record = seal(layer, b"ping").unwrap();
    stock.get_mut().feed(&record);
    let mut received = [0; 16];
    assert_eq!(stock.ssl_read(&mut received).unwrap(), 4);
    assert_eq!(stock.ssl_write(&received[..4]).unwrap(), 4);
    let mut wire = std::mem::take(&mut stock.get_mut().outbound);
    let mut data = Vec::new();
    while !wire.is_empty() {
        let consumed = match layer.open(&mut wire).unwrap() {
            Opened::Data { plaintext, consumed } => {
                data.extend_from_slice(&wire[plaintext]);
                consumed
            }
            Opened::Handled { consumed } => consumed,
            other => panic!("{other:?}"),
        };
        wire.drain(..consumed);
    }
    assert_eq!(data, b"ping");
}

#[test]
fn stock_openssl_follows_our_key_update_and_answers_it() {
    let (mut layer, mut stock) = against_stock_server();
    echo(&mut layer, &mut stock);
    let secret_before = layer.keys.read.secret.clone();
    let update = layer.seal_small(CONTENT_HANDSHAKE, &[MESSAGE_KEY_UPDATE, 0, 0, 1, 1]);
    layer.advance_write_keys();
    stock.get_mut().feed(&update);
    echo(&mut layer, &mut stock);
    echo(&mut layer, &mut stock);
    assert_ne!(layer.keys.read.secret, secret_before);
    // The one that is due on our own account, in one range with data.
    layer.keys.blocks_written = BLOCKS_MAX;
    echo(&mut layer, &mut stock);
    echo(&mut layer, &mut stock);
}
