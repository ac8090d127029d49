//! TLS that ends at the gateway, in both roles of TCP and of TLS.

use mrfp_core::mp::{
    Bearer, Command, Establishment, Event, Refusal, ReleaseCause, RemoteConnectionPoint,
    TerminationId, TlsRole,
};
use mrfp_protocol::tls::{Fingerprint, Handshake, Identity, Profile, ProfileConfig};
use rustls::AlertDescription;
use rustls::Error::AlertReceived;
use sha1::Sha1;
use sha2::{Digest, Sha384, Sha512};

use crate::stock::Stock;

use crate::world::{ACCESS, CORE, Gateway, Party, UE, incoming, reservation, secured, shakes};

const ESTABLISHMENTS: [Establishment; 2] = [Establishment::Incoming, Establishment::AtOnce];
const ROLES: [TlsRole; 2] = [TlsRole::Server, TlsRole::Client];

/// RFC 8446 section 6, and RFC 8122 section 6.2.
const BAD_CERTIFICATE: &str = "alert 42";

#[test]
fn converts_between_tls_and_plain_text_in_every_role() {
    for establishment in ESTABLISHMENTS {
        for role in ROLES {
            for mut gateway in [Gateway::calm()].into_iter().chain((0..5).map(Gateway::faulty)) {
                let (mut a, mut b) = gateway.secured_pair(establishment, role);
                assert!(a.is_secured());
                let long: Vec<u8> = (0..200_000u32).map(|it| (it % 251) as u8).collect();
                a.send(&mut gateway, &long);
                b.send(&mut gateway, b"from the core");
                gateway.work(&mut [&mut a, &mut b]);
                assert_eq!(a.received, b"from the core");
                assert!(b.received == long);
                gateway.subtract_both();
                assert_eq!(gateway.statistics(ACCESS).bytes_received, 200_000);
                assert_eq!(gateway.statistics(CORE).bytes_received, 13);
            }
        }
    }
}

#[test]
fn each_connection_point_has_a_certificate_of_its_own() {
    let mut gateway = Gateway::calm();
    let (_, first) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
    let (_, second) = gateway.reserve(CORE, Bearer::TlsOverTcp, None);
    assert!(first.is_some() && second.is_some());
    assert_ne!(first, second);
    assert_eq!(gateway.world.measure().gateway_points_tls, 2);
    gateway.subtract_both();
    assert_eq!(gateway.world.measure().gateway_points_tls, 0);
}

#[test]
fn without_a_certificate_there_is_no_connection_point() {
    let mut gateway = Gateway::calm();
    let refusal = gateway.refusal(reservation(1, ACCESS, Bearer::TlsOverTcp, None));
    assert_eq!(refusal, Some(Refusal::CertificatesExhausted));
    let metrics = gateway.world.measure();
    assert_eq!(metrics.gateway_certificates_exhausted, 1);
    assert_eq!(metrics.gateway_points_tls, 0);
    assert_eq!(gateway.world.shard.driver_mut().sockets_open(), 1, "its port is given back");
    gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
    gateway.world.subtract_all([ACCESS]);
}

#[test]
fn one_bit_off_in_a_fingerprint_fails_and_is_reported() {
    for establishment in ESTABLISHMENTS {
        for role in ROLES {
            for mut gateway in [Gateway::calm()].into_iter().chain((0..5).map(Gateway::faulty)) {
                let ue = Identity::self_signed().unwrap();
                let announced = one_bit_off(&ue.fingerprint());
                let mut a = begin(&mut gateway, &ue, establishment, role, vec![announced]);
                gateway.work(&mut [&mut a]);
                assert_eq!(
                    a.failure.as_deref(),
                    Some(BAD_CERTIFICATE),
                    "{establishment:?} {role:?}"
                );
                assert!(!gateway.is_bound(ACCESS));
                assert_eq!(gateway.causes(ACCESS), [ReleaseCause::PeerNotAuthenticated]);
                assert!(a.saw_end(&mut gateway));
                assert_eq!(gateway.world.measure().gateway_failures_authentication, 1);
                gateway.world.subtract_all([ACCESS]);
            }
        }
    }
}

#[test]
fn nothing_passes_before_the_certificate_has_been_verified() {
    let mut gateway = Gateway::calm();
    let core = gateway.reserve(CORE, Bearer::Tcp, Some(incoming())).0;
    let mut b = gateway.connect(core, None);
    b.send(&mut gateway, b"for the one who was announced");
    let (ue, stranger) = (Identity::self_signed().unwrap(), Identity::self_signed().unwrap());
    let (access, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
    let remote = secured(Establishment::Incoming, TlsRole::Server, vec![ue.fingerprint()]);
    gateway.configure(ACCESS, remote);
    let handshake = shakes(&stranger, TlsRole::Server, &[fingerprint.unwrap()]);
    let mut a = gateway.connect(access, Some(handshake));
    gateway.work(&mut [&mut a, &mut b]);
    assert!(a.received.is_empty());
    assert!(b.received.is_empty());
    assert_eq!(gateway.causes(ACCESS), [ReleaseCause::PeerNotAuthenticated]);
    assert!(gateway.causes(CORE).is_empty());
    gateway.subtract_both();
}

#[test]
fn a_peer_without_a_certificate_fails() {
    let mut gateway = Gateway::calm();
    let ue = Identity::self_signed().unwrap();
    let (access, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
    let remote = secured(Establishment::Incoming, TlsRole::Server, vec![ue.fingerprint()]);
    gateway.configure(ACCESS, remote);
    assert!(fingerprint.is_some());
    let mut a = Stock::without_certificate(&mut gateway, access);
    a.work(&mut gateway);
    assert_eq!(a.failure, Some(AlertReceived(AlertDescription::CertificateRequired)));
    assert_eq!(gateway.causes(ACCESS), [ReleaseCause::PeerNotAuthenticated]);
    gateway.world.subtract_all([ACCESS]);
}

#[test]
fn a_peer_that_refuses_our_certificate_is_a_failure_of_the_handshake() {
    for role in ROLES {
        let mut gateway = Gateway::calm();
        let ue = Identity::self_signed().unwrap();
        let (access, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
        let remote = secured(Establishment::Incoming, role, vec![ue.fingerprint()]);
        gateway.configure(ACCESS, remote);
        let handshake = shakes(&ue, role, &[one_bit_off(&fingerprint.unwrap())]);
        let mut a = gateway.connect(access, Some(handshake));
        gateway.work(&mut [&mut a]);
        assert!(a.failure.is_some());
        assert_eq!(gateway.causes(ACCESS), [ReleaseCause::TlsEstablishmentFailure], "{role:?}");
        gateway.world.subtract_all([ACCESS]);
    }
}

#[test]
fn the_strongest_hash_decides_and_any_of_its_fingerprints_will_do() {
    let issued = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    let (pem, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let own = Identity::from_pem(pem.as_bytes(), key.as_bytes()).unwrap();
    let other = Identity::self_signed().unwrap().fingerprint();
    let der = issued.cert.der();
    let of = |name: &str, digest: &[u8]| {
        let digits: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Fingerprint::parse(&format!("{name} {}", digits.join(":"))).unwrap()
    };
    let sha256 = own.fingerprint();
    let sha384 = of("sha-384", &Sha384::digest(der));
    let sha512 = of("SHA-512", &Sha512::digest(der));
    let wrong512 = of("sha-512", &[0; 64]);
    let sha1 = of("sha-1", &Sha1::digest(der));
    let wrong1 = of("sha-1", &[0; 20]);
    let cases: [(&str, Vec<Fingerprint>, bool); 8] = [
        ("SHA-1 alone", vec![sha1.clone()], true),
        ("SHA-384", vec![sha384.clone()], true),
        ("SHA-512", vec![sha512.clone()], true),
        ("several certificates", vec![other.clone(), sha256.clone()], true),
        ("a weak one that is wrong", vec![wrong1, sha256.clone()], true),
        ("a weak one that is right", vec![sha1, other], false),
        ("all of one certificate", vec![sha256.clone(), sha384, sha512], true),
        ("the strongest is wrong", vec![sha256, wrong512], false),
    ];
    for (case, announced, verified) in cases {
        for role in ROLES {
            let mut gateway = Gateway::calm();
            let establishment = Establishment::Incoming;
            let a = begin(&mut gateway, &own, establishment, role, announced.clone());
            assert_eq!(gateway.is_bound(ACCESS), verified, "{case} {role:?}");
            assert_eq!(a.failure.is_none(), verified, "{case} {role:?}");
            gateway.world.subtract_all([ACCESS]);
        }
    }
}

#[test]
fn where_tls_ends_a_fingerprint_is_needed() {
    let mut gateway = Gateway::calm();
    gateway.certificate_is_ready();
    let remote = secured(Establishment::Incoming, TlsRole::Server, Vec::new());
    let refusal = gateway.refusal(reservation(1, ACCESS, Bearer::TlsOverTcp, Some(remote)));
    assert_eq!(refusal, Some(Refusal::Transport));
    assert_eq!(gateway.world.shard.driver_mut().sockets_open(), 1);
}

#[test]
fn a_key_with_a_name_or_plain_text_is_no_way_in() {
    let mut gateway = Gateway::calm();
    let ue = Identity::self_signed().unwrap();
    let profile = Profile::new(&ProfileConfig::default()).unwrap();
    let psk = crate::common::key(1);
    for (termination, handshake) in
        [(ACCESS, Some(Handshake::client(&profile, b"somebody", &psk).unwrap())), (CORE, None)]
    {
        let remote = secured(Establishment::Incoming, TlsRole::Server, vec![ue.fingerprint()]);
        let access = gateway.reserve(termination, Bearer::TlsOverTcp, Some(remote)).0;
        let plain = handshake.is_none();
        let mut a = gateway.connect(access, handshake);
        if plain {
            a.send(&mut gateway, b"MSRP 1 SEND\r\n");
        }
        gateway.work(&mut [&mut a]);
        assert_eq!(gateway.causes(termination), [ReleaseCause::TlsEstablishmentFailure]);
    }
    gateway.subtract_both();
}

#[test]
fn goodbye_on_one_side_ends_both_when_everything_has_left() {
    for mut gateway in [Gateway::calm()].into_iter().chain((0..20).map(Gateway::faulty)) {
        let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
        let long = vec![9; 100_000];
        a.send(&mut gateway, &long);
        a.say_goodbye(&mut gateway);
        gateway.work(&mut [&mut a, &mut b]);
        assert!(b.received == long, "what was on its way arrives");
        assert!(a.was_told_goodbye);
        assert!(a.saw_end(&mut gateway) && b.saw_end(&mut gateway), "TCP goes with TLS");
        assert!(!a.was_reset(&mut gateway) && !b.was_reset(&mut gateway));
        assert_eq!(gateway.causes(ACCESS), [ReleaseCause::PeerClosed]);
        assert!(gateway.causes(CORE).is_empty(), "it has not ended it");
        gateway.subtract_both();
    }
}

#[test]
fn the_end_of_the_plain_side_is_goodbye_in_tls() {
    for mut gateway in [Gateway::calm()].into_iter().chain((0..20).map(Gateway::faulty)) {
        let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Client);
        let long = vec![9; 100_000];
        b.send(&mut gateway, &long);
        gateway.world.shard.driver_mut().peer_shutdown_write(b.peer);
        gateway.work(&mut [&mut a, &mut b]);
        assert!(a.received == long);
        assert!(a.was_told_goodbye);
        assert!(a.saw_end(&mut gateway) && b.saw_end(&mut gateway));
        assert_eq!(gateway.causes(CORE), [ReleaseCause::PeerClosed]);
        assert!(gateway.causes(ACCESS).is_empty());
        gateway.subtract_both();
    }
}

#[test]
fn what_comes_right_behind_the_handshake_waits_for_the_other_side() {
    for goodbye in [false, true] {
        for mut gateway in [Gateway::calm()].into_iter().chain((0..20).map(Gateway::faulty)) {
            let ue = Identity::self_signed().unwrap();
            let role = TlsRole::Server;
            let core = gateway.reserve(CORE, Bearer::Tcp, Some(incoming())).0;
            let (access, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
            let remote = secured(Establishment::Incoming, role, vec![ue.fingerprint()]);
            gateway.configure(ACCESS, remote);
            let peer = gateway.world.shard.driver_mut().peer_connect(access);
            let mut a = Party::new(peer, Some(shakes(&ue, role, &[fingerprint.unwrap()])));
            while !a.is_secured() {
                gateway.world.settle();
                a.read(&mut gateway.world);
            }
            // It is here before anybody could stop reading.
            a.send(&mut gateway, b"first words");
            if goodbye {
                a.say_goodbye(&mut gateway);
            }
            gateway.work(&mut [&mut a]);
            let mut b = gateway.connect(core, None);
            gateway.work(&mut [&mut a, &mut b]);
            assert_eq!(b.received, b"first words");
            assert_eq!(b.saw_end(&mut gateway), goodbye);
            gateway.subtract_both();
        }
    }
}

#[test]
fn keys_are_updated_while_media_pass() {
    let mut gateway = Gateway::calm();
    let (ue, issued) = Stock::identity();
    let remote = secured(Establishment::Incoming, TlsRole::Server, vec![ue.fingerprint()]);
    let access = gateway.reserve(ACCESS, Bearer::TlsOverTcp, Some(remote)).0;
    let core = gateway.reserve(CORE, Bearer::Tcp, Some(incoming())).0;
    let mut b = gateway.connect(core, None);
    let mut a = Stock::with_certificate(&mut gateway, access, &issued);
    a.work(&mut gateway);
    assert!(gateway.is_bound(ACCESS));
    for _ in 0..3 {
        a.update_keys();
        a.send(&mut gateway, b"under new keys");
        gateway.work(&mut [&mut b]);
        assert_eq!(b.take_received(), b"under new keys");
        b.send(&mut gateway, b"an answer");
        gateway.work(&mut [&mut b]);
        a.work(&mut gateway);
        assert_eq!(a.take_received(), b"an answer");
    }
    gateway.subtract_both();
}

#[test]
fn a_record_that_was_tampered_with_ends_the_stream() {
    let mut gateway = Gateway::calm();
    let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
    let mut wire = a.wire(b"tampered with");
    *wire.last_mut().unwrap() ^= 1;
    gateway.world.shard.driver_mut().peer_send(a.peer, &wire);
    gateway.work(&mut [&mut a, &mut b]);
    assert!(b.received.is_empty());
    assert_eq!(gateway.causes(ACCESS), [ReleaseCause::ProtocolViolation]);
    assert!(b.saw_end(&mut gateway));
    gateway.subtract_both();
}

#[test]
fn a_handshake_that_is_not_finished_is_reported() {
    for role in ROLES {
        let mut gateway = Gateway::calm();
        let ue = Identity::self_signed().unwrap();
        let remote = secured(Establishment::Incoming, role, vec![ue.fingerprint()]);
        let access = gateway.reserve(ACCESS, Bearer::TlsOverTcp, Some(remote)).0;
        let silent = gateway.connect(access, None);
        gateway.world.pass(10);
        assert_eq!(gateway.causes(ACCESS), [ReleaseCause::TlsEstablishmentFailure]);
        assert!(silent.saw_end(&mut gateway));
        gateway.world.subtract_all([ACCESS]);
    }
}

#[test]
fn tls_may_end_on_both_sides() {
    let mut gateway = Gateway::calm();
    let (ue, peer) = (Identity::self_signed().unwrap(), Identity::self_signed().unwrap());
    let mut parties = Vec::new();
    for (termination, identity) in [(ACCESS, &ue), (CORE, &peer)] {
        let (address, fingerprint) = gateway.reserve(termination, Bearer::TlsOverTcp, None);
        let announced = vec![identity.fingerprint()];
        let remote = secured(Establishment::Incoming, TlsRole::Server, announced);
        gateway.configure(termination, remote);
        let handshake = shakes(identity, TlsRole::Server, &[fingerprint.unwrap()]);
        parties.push(gateway.connect(address, Some(handshake)));
    }
    let [a, b] = &mut parties[..] else { panic!("two parties") };
    a.send(&mut gateway, b"hello");
    gateway.work(&mut [a, b]);
    assert_eq!(b.received, b"hello");
    gateway.subtract_both();
}

#[test]
fn a_connection_that_is_faster_than_the_answer_waits_for_it() {
    for role in ROLES {
        for mut gateway in [Gateway::calm()].into_iter().chain((0..10).map(Gateway::faulty)) {
            let ue = Identity::self_signed().unwrap();
            let (access, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
            let core = gateway.reserve(CORE, Bearer::Tcp, Some(incoming())).0;
            let handshake = shakes(&ue, role, &[fingerprint.unwrap()]);
            let mut a = gateway.connect(access, Some(handshake));
            assert!(!a.is_secured() && a.failure.is_none());
            let remote = secured(Establishment::Incoming, role, vec![ue.fingerprint()]);
            gateway.configure(ACCESS, remote);
            let mut b = gateway.connect(core, None);
            gateway.work(&mut [&mut a, &mut b]);
            assert!(a.is_secured());
            a.send(&mut gateway, b"hello");
            gateway.work(&mut [&mut a, &mut b]);
            assert_eq!(b.received, b"hello");
            gateway.subtract_both();
        }
    }
}

#[test]
fn many_strangers_at_once_leave_nothing_behind_and_others_unharmed() {
    const STRANGERS: u64 = 1_000;
    let mut gateway = Gateway::calm();
    let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
    let (ue, stranger) = (Identity::self_signed().unwrap(), Identity::self_signed().unwrap());
    let mut strangers = Vec::new();
    for number in 0..STRANGERS {
        let termination = 1 << 62 | number;
        gateway.certificates.push(ue.clone()).unwrap();
        let remote = secured(Establishment::Incoming, TlsRole::Server, vec![ue.fingerprint()]);
        let command = reservation(100 + number, termination, Bearer::TlsOverTcp, Some(remote));
        gateway.world.commands.push(Command::ReserveConnectionPoint(Box::new(command))).unwrap();
        if number % 100 == 99 {
            gateway.world.settle();
        }
    }
    let addresses = gateway.world.seen.iter().filter_map(|event| match event {
        Event::ConnectionPointReserved { termination, address, .. } => {
            (termination.0 >> 62 == 1).then_some(*address)
        }
        _ => None,
    });
    let addresses: Vec<_> = addresses.collect();
    assert_eq!(addresses.len(), STRANGERS as usize);
    for address in addresses {
        let handshake = shakes(&stranger, TlsRole::Server, &[ue.fingerprint()]);
        let peer = gateway.world.shard.driver_mut().peer_connect(address);
        strangers.push(Party::new(peer, Some(handshake)));
    }
    for round in 0..6u8 {
        a.send(&mut gateway, &[round; 200]);
        gateway.world.settle();
        strangers.iter_mut().for_each(|party| party.read(&mut gateway.world));
    }
    gateway.work(&mut [&mut a, &mut b]);
    assert_eq!(b.received.len(), 6 * 200);
    for (number, party) in (0..STRANGERS).zip(&strangers) {
        assert_eq!(party.failure.as_deref(), Some(BAD_CERTIFICATE));
        assert_eq!(gateway.causes(1 << 62 | number), [ReleaseCause::PeerNotAuthenticated]);
    }
    assert_eq!(gateway.world.measure().connections, 2);
    for number in 0..STRANGERS {
        let termination = TerminationId(1 << 62 | number);
        gateway.world.command(Command::Subtract { termination });
    }
    assert!(gateway.causes(ACCESS).is_empty() && gateway.causes(CORE).is_empty());
    gateway.subtract_both();
}

#[test]
fn strangers_do_not_take_the_place_of_the_peer_that_has_come_too() {
    for early in [true, false] {
        for says_nothing in [true, false] {
            for mut gateway in [Gateway::calm()].into_iter().chain((0..5).map(Gateway::faulty)) {
                let ue = Identity::self_signed().unwrap();
                let (access, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
                let fingerprint = fingerprint.unwrap();
                let remote =
                    secured(Establishment::Incoming, TlsRole::Server, vec![ue.fingerprint()]);
                if !early {
                    gateway.configure(ACCESS, remote.clone());
                }
                let somebody = Identity::self_signed().unwrap();
                let announced = std::slice::from_ref(&fingerprint);
                let shaking = shakes(&somebody, TlsRole::Server, announced);
                let mut stranger = gateway.connect(access, None);
                gateway.world.pass(1);
                let handshake = shakes(&ue, TlsRole::Server, &[fingerprint]);
                let mut a = gateway.connect(access, Some(handshake));
                assert!(!a.saw_end(&mut gateway));
                if early {
                    gateway.world.pass(1);
                    gateway.configure(ACCESS, remote);
                }
                if !says_nothing {
                    stranger = Party::new(stranger.peer, Some(shaking));
                }
                gateway.work(&mut [&mut stranger, &mut a]);
                gateway.world.pass(6);
                gateway.work(&mut [&mut stranger, &mut a]);
                assert!(stranger.saw_end(&mut gateway));
                assert!(a.is_secured() && gateway.is_bound(ACCESS), "{early} {says_nothing}");
                assert!(gateway.causes(ACCESS).is_empty());
                gateway.world.subtract_all([ACCESS]);
            }
        }
    }
}

#[test]
fn the_last_of_those_that_have_come_decides_and_it_is_reported_once() {
    let mut gateway = Gateway::calm();
    let ue = Identity::self_signed().unwrap();
    let access = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None).0;
    let mut strangers = [0; 3].map(|_| gateway.connect(access, None));
    let remote = secured(Establishment::Incoming, TlsRole::Server, vec![ue.fingerprint()]);
    gateway.configure(ACCESS, remote);
    for stranger in &mut strangers {
        assert!(gateway.causes(ACCESS).is_empty());
        stranger.send(&mut gateway, b"no TLS");
        gateway.work(&mut [stranger]);
    }
    assert_eq!(gateway.causes(ACCESS), [ReleaseCause::TlsEstablishmentFailure]);
    assert_eq!(gateway.world.measure().gateway_failures_tls, 1);
    gateway.world.subtract_all([ACCESS]);
}

/// A UE comes to a connection point whose fingerprints are `announced`.
fn begin(
    gateway: &mut Gateway,
    ue: &Identity,
    establishment: Establishment,
    role: TlsRole,
    announced: Vec<Fingerprint>,
) -> Party {
    let (access, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
    gateway.accepts_connections(UE);
    let remote: RemoteConnectionPoint = secured(establishment, role, announced);
    gateway.configure(ACCESS, remote);
    let handshake = shakes(ue, role, &[fingerprint.unwrap()]);
    match establishment {
        Establishment::Incoming => gateway.connect(access, Some(handshake)),
        Establishment::AtOnce | Establishment::WhenOtherComesIn => gateway.answer(Some(handshake)),
    }
}

fn one_bit_off(fingerprint: &Fingerprint) -> Fingerprint {
    let text = fingerprint.to_string();
    let (rest, last) = text.split_at(text.len() - 1);
    let digit = u8::from_str_radix(last, 16).unwrap() ^ 1;
    Fingerprint::parse(&format!("{rest}{digit:X}")).unwrap()
}
