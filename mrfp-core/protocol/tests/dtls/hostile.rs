//! Datagrams from whoever means no good, and from a network that does not care.

use mrfp_protocol::tls::dtls::{Cookies, Greeting, Record};
use proptest::prelude::*;

use crate::associations::{End, converse, source};
use crate::certificates::Certified;
use crate::handshakes::established;

#[test]
fn a_record_is_taken_once_in_any_order() {
    let (mut client, mut server) = established();
    let mut records: Vec<_> = (0..100_u8).map(|number| client.seal(&[number])).collect();
    records.swap(0, 99);
    records.swap(20, 60);
    for record in records.iter().chain(&records) {
        server.take(record.clone());
    }
    let mut received: Vec<_> = server.received.iter().map(|data| data[0]).collect();
    assert_ne!(received, (0..100).collect::<Vec<_>>());
    received.sort_unstable();
    assert_eq!(received, (0..100).collect::<Vec<_>>());
}

#[test]
fn no_changed_and_no_short_record_is_taken() {
    let (mut client, mut server) = established();
    let record = client.seal(b"a packet");
    for at in 0..record.len() {
        for bit in 0..8 {
            let mut changed = record.clone();
            changed[at] ^= 1 << bit;
            server.take(changed);
        }
        server.take(record[..at].to_vec());
    }
    assert!(server.received.is_empty() && server.ended.is_none());
    server.take(record);
    assert_eq!(server.received, [b"a packet"]);
}

#[test]
fn nothing_in_the_clear_disturbs_an_association() {
    let (mut client, mut server) = established();
    // A fatal alert, close_notify, ChangeCipherSpec and a ClientHello of epoch 0.
    for (content_type, body) in
        [(21, &[2, 40][..]), (21, &[1, 0]), (20, &[1]), (22, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
    {
        let mut record =
            vec![content_type, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99, 0, body.len() as u8];
        record.extend_from_slice(body);
        server.take(record.clone());
        client.take(record);
    }
    assert!(server.output.is_empty() && client.output.is_empty());
    client.send(b"goes on");
    converse(&mut client, &mut server);
    assert_eq!(server.received, [b"goes on"]);
    assert_eq!((client.ended, server.ended), (None, None));
}

#[test]
fn several_records_in_a_datagram_are_all_opened() {
    let (mut client, mut server) = established();
    let mut datagram = client.seal(b"one");
    datagram.extend([23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 77, 0, 2, 1, 1]);
    datagram.extend(client.seal(b"two"));
    datagram.extend(b"rest");
    server.take(datagram);
    assert_eq!(server.received, [b"one", b"two"]);
}

#[test]
fn garbage_before_and_during_a_handshake_does_no_harm() {
    let (client, server) = (Certified::ecdsa(), Certified::ecdsa());
    let mut ours = End::client(client.credentials(), &[server.fingerprint()]);
    let mut theirs = End::server(server.credentials(), &[client.fingerprint()]);
    let garbage = [&b""[..], b"\0", b"GET / HTTP/1.0", &[23; 100], &[22, 0xfe, 0xfd, 0, 1, 0]];
    for _ in 0..8 {
        for datagram in garbage {
            ours.take(datagram.to_vec());
            theirs.take(datagram.to_vec());
        }
        ours.take_output().into_iter().for_each(|datagram| theirs.take(datagram));
        theirs.take_output().into_iter().for_each(|datagram| ours.take(datagram));
    }
    assert_eq!((ours.error, theirs.error), (None, None));
    assert!(ours.session.is_some() && theirs.session.is_some());
}

/// RFC 6347 section 4.1.2.7.
#[test]
fn records_that_have_no_place_in_a_handshake_are_passed_over() {
    let outcome = |content_type: u8, body: &[u8]| {
        let (client, server) = (Certified::ecdsa(), Certified::ecdsa());
        let mut ours = End::client(client.credentials(), &[server.fingerprint()]);
        let mut theirs = End::server(server.credentials(), &[client.fingerprint()]);
        let mut record = vec![content_type, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 40, 0];
        record.push(body.len() as u8);
        record.extend_from_slice(body);
        for _ in 0..8 {
            ours.take(record.clone());
            theirs.take(record.clone());
            record[10] += 1;
            ours.take_output().into_iter().for_each(|datagram| theirs.take(datagram));
            theirs.take_output().into_iter().for_each(|datagram| ours.take(datagram));
        }
        ours.session.is_some() && theirs.session.is_some()
    };
    for content_type in [0, 19, 23, 24, 25, 99, 255] {
        assert!(outcome(content_type, b"forged"), "{content_type}");
        assert!(outcome(content_type, b""), "{content_type}, empty");
    }
    assert!(outcome(20, b""));
    assert!(outcome(20, b"\x01"));
}

#[test]
fn numbers_go_on_for_a_day_of_fax_and_do_not_begin_anew() {
    // A packet every 30 ms.
    const PACKETS: u32 = 24 * 3600 * 1000 / 30;
    let (mut client, mut server) = established();
    let (client, server) = (client.session.as_mut().unwrap(), server.session.as_mut().unwrap());
    let mut memory = [0; 80];
    let mut last = Vec::new();
    for number in 0..PACKETS {
        // The numbers of UDPTL begin anew every half an hour.
        memory[30..32].copy_from_slice(&(number as u16).to_be_bytes());
        let record = client.seal(&mut memory, 30..40).unwrap();
        let datagram = &mut memory[record];
        if number + 1 == PACKETS {
            last = datagram.to_vec();
        }
        let Some((Record::Data(plain), _)) = server.open(datagram) else { panic!("{number}") };
        assert_eq!(datagram[plain][..2], (number as u16).to_be_bytes());
    }
    let sequence =
        u64::from_be_bytes([0, 0, last[5], last[6], last[7], last[8], last[9], last[10]]);
    assert!((PACKETS.into()..u64::from(PACKETS) + 10).contains(&sequence), "{sequence}");
    assert_eq!(server.open(&mut last).map(|(record, _)| record), Some(Record::Nothing));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_are_taken_for_a_greeting(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(matches!(Cookies::new().greet(source(), &bytes), Greeting::Nothing));
    }

    #[test]
    fn no_bytes_are_taken_for_data(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        looks_right: bool,
    ) {
        let (_, mut server) = established();
        let mut datagram = bytes;
        if looks_right && datagram.len() >= 13 {
            let length = (datagram.len() - 13) as u16;
            datagram[..5].copy_from_slice(&[23, 0xfe, 0xfd, 0, 1]);
            datagram[11..13].copy_from_slice(&length.to_be_bytes());
        }
        server.take(datagram);
        prop_assert!(server.received.is_empty() && server.ended.is_none());
    }

    /// Broken datagrams of a handshake may end it, and nothing else.
    #[test]
    fn a_handshake_survives_changed_datagrams(which in 0_usize..6, at in 0_usize..2000, mask: u8) {
        let (client, server) = (Certified::ecdsa(), Certified::ecdsa());
        let mut ours = End::client(client.credentials(), &[server.fingerprint()]);
        let mut theirs = End::server(server.credentials(), &[client.fingerprint()]);
        let mut count = 0;
        for _ in 0..6 {
            let mut carry = |from: &mut End, to: &mut End| for mut datagram in from.take_output() {
                if count == which {
                    let at = at % datagram.len();
                    datagram[at] ^= mask;
                }
                count += 1;
                to.take(datagram);
            };
            carry(&mut ours, &mut theirs);
            carry(&mut theirs, &mut ours);
        }
        if let (Some(_), Some(_)) = (&ours.session, &theirs.session) {
            ours.send(b"fax");
            converse(&mut ours, &mut theirs);
            prop_assert_eq!(&theirs.received[..], [b"fax"]);
        }
    }
}
