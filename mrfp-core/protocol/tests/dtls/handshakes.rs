//! Our own ends with each other.

use std::time::{Duration, Instant};

use mrfp_protocol::tls::dtls::{Cookies, Greeting, Record};
use mrfp_protocol::tls::{CertificateFault, Fingerprint, HandshakeError};
use openssl::hash::MessageDigest;

use crate::associations::{End, converse, source};
use crate::certificates::Certified;

/// A client and a server that know each other, before a word is said.
fn pair() -> (End, End) {
    let (client, server) = (Certified::ecdsa(), Certified::ecdsa());
    let server_end = End::server(server.credentials(), &[client.fingerprint()]);
    (End::client(client.credentials(), &[server.fingerprint()]), server_end)
}

pub fn established() -> (End, End) {
    let (mut client, mut server) = pair();
    converse(&mut client, &mut server);
    assert!(client.session.is_some() && server.session.is_some());
    (client, server)
}

#[test]
fn carries_datagrams_as_they_are_both_ways() {
    let (mut client, mut server) = established();
    for size in [1, 2, 40, 300, 1172, 8000] {
        let data = vec![size as u8; size];
        client.send(&data);
        server.send(&data);
        converse(&mut client, &mut server);
        assert_eq!(client.received.pop(), Some(data.clone()));
        assert_eq!(server.received.pop(), Some(data));
    }
    let goodbye = client.session.as_mut().unwrap().close_notify();
    server.take(goodbye);
    assert_eq!(server.ended, Some(Record::CloseNotify));
}

#[test]
fn no_datagram_of_a_handshake_is_longer_than_any_path_takes() {
    let (client, server) = (Certified::rsa(), Certified::rsa());
    let mut ours = End::client(client.credentials(), &[server.fingerprint()]);
    let mut theirs = End::server(server.credentials(), &[client.fingerprint()]);
    let mut longest = 0;
    for _ in 0..6 {
        for datagram in ours.take_output() {
            longest = longest.max(datagram.len());
            theirs.take(datagram);
        }
        for datagram in theirs.take_output() {
            longest = longest.max(datagram.len());
            ours.take(datagram);
        }
    }
    assert!(ours.session.is_some() && theirs.session.is_some());
    assert!((500..=1200).contains(&longest), "{longest}");
}

#[test]
fn a_certificate_that_was_not_announced_is_a_bad_one() {
    for wrong_at_client in [true, false] {
        let (client, server, other) = (Certified::ecdsa(), Certified::ecdsa(), Certified::ecdsa());
        let expected =
            |wrong, right: &Certified| [if wrong { &other } else { right }.fingerprint()];
        let mut ours = End::client(client.credentials(), &expected(wrong_at_client, &server));
        let mut theirs = End::server(server.credentials(), &expected(!wrong_at_client, &client));
        converse(&mut ours, &mut theirs);
        let (deceived, told) = if wrong_at_client { (&ours, &theirs) } else { (&theirs, &ours) };
        let fault = HandshakeError::Certificate(CertificateFault::Fingerprint);
        assert_eq!(deceived.error, Some(fault));
        // RFC 8122 section 6.2: bad_certificate.
        assert_eq!(told.error, Some(HandshakeError::AlertReceived(42)));
        assert!(ours.session.is_none() && theirs.session.is_none());
    }
}

#[test]
fn one_bit_of_a_fingerprint_is_enough_to_fail() {
    let (client, server) = (Certified::ecdsa(), Certified::ecdsa());
    let text = server.fingerprint().to_string();
    let (rest, last) = text.split_at(text.len() - 1);
    let flipped = u8::from_str_radix(last, 16).unwrap() ^ 1;
    let wrong = Fingerprint::parse(&format!("{rest}{flipped:X}")).unwrap();
    let mut ours = End::client(client.credentials(), &[wrong]);
    let mut theirs = End::server(server.credentials(), &[client.fingerprint()]);
    converse(&mut ours, &mut theirs);
    assert_eq!(ours.error, Some(HandshakeError::Certificate(CertificateFault::Fingerprint)));
}

#[test]
fn any_of_several_fingerprints_of_the_strongest_hash_will_do() {
    let (client, server, other) = (Certified::ecdsa(), Certified::ecdsa(), Certified::ecdsa());
    let sha1 = |it: &Certified| it.fingerprint_by("sha-1", MessageDigest::sha1());
    let sha384 = |it: &Certified| it.fingerprint_by("sha-384", MessageDigest::sha384());
    let sha512 = |it: &Certified| it.fingerprint_by("sha-512", MessageDigest::sha512());
    let outcome = |fingerprints: &[Fingerprint]| {
        let mut ours = End::client(client.credentials(), fingerprints);
        let mut theirs = End::server(server.credentials(), &[client.fingerprint()]);
        converse(&mut ours, &mut theirs);
        ours.session.is_some()
    };
    assert!(outcome(&[sha1(&server)]));
    assert!(outcome(&[sha384(&server), sha1(&other)]));
    assert!(outcome(&[sha512(&other), sha512(&server), server.fingerprint()]));
    assert!(!outcome(&[sha512(&other), server.fingerprint()]));
    assert!(!outcome(&[]));
}

#[test]
fn whoever_has_not_shown_to_be_there_costs_nothing() {
    let (mut client, _) = pair();
    let cookies = Cookies::new();
    let hello = client.take_output().remove(0);
    let Greeting::Verify(answer) = cookies.greet(source(), &hello) else { panic!("no cookie yet") };
    assert!(answer.len() <= hello.len(), "nobody is flooded with our answers");
    client.take(answer);
    let proven = client.take_output().remove(0);
    assert!(matches!(cookies.greet(source(), &proven), Greeting::Proven(_)));
    // Our records could not count on from there (RFC 6347 section 4.1).
    let mut last = proven.clone();
    last[5..11].fill(0xff);
    assert!(matches!(cookies.greet(source(), &last), Greeting::Nothing));
    // The same from elsewhere, or to somebody else, is worth nothing.
    let elsewhere = "192.0.2.8:4000".parse().unwrap();
    assert!(matches!(cookies.greet(elsewhere, &proven), Greeting::Verify(_)));
    assert!(matches!(Cookies::new().greet(source(), &proven), Greeting::Verify(_)));
    for length in 0..proven.len() {
        assert!(matches!(cookies.greet(source(), &proven[..length]), Greeting::Nothing));
    }
}

/// Carries datagrams for a while, but for those that are lost, with time passing for real: OpenSSL's
/// timers know no other.
fn converse_with_losses(one: &mut End, other: &mut End, mut is_lost: impl FnMut(usize) -> bool) {
    let begun = Instant::now();
    let mut count = 0;
    let mut carry = |from: &mut End, to: &mut End| {
        for datagram in from.take_output() {
            count += 1;
            if !is_lost(count) {
                to.take(datagram);
            }
        }
    };
    while begun.elapsed() < Duration::from_secs(20)
        && !(one.session.is_some() && other.session.is_some())
    {
        carry(one, other);
        carry(other, one);
        one.pass_time();
        other.pass_time();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_datagram_of_a_handshake_may_be_lost() {
    // ClientHello, HelloVerifyRequest, ClientHello, and the two flights of more than one datagram.
    let losses: Vec<_> = (1..=7)
        .map(|lost| {
            std::thread::spawn(move || {
                let (mut client, mut server) = pair();
                converse_with_losses(&mut client, &mut server, |count| count == lost);
                assert!(
                    client.session.is_some() && server.session.is_some(),
                    "without number {lost}"
                );
                client.send(b"fax");
                server.send(b"machine");
                converse(&mut client, &mut server);
                assert_eq!(
                    (&client.received[..], &server.received[..]),
                    (&[b"machine".to_vec()][..], &[b"fax".to_vec()][..])
                );
                server.repeats
            })
        })
        .collect();
    let repeats: usize = losses.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(repeats > 0, "the last flight of the server was lost once");
}
