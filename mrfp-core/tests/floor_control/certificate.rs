//! TLS with certificates: known by their fingerprints, or by the first message.

use mrfp_core::Limits;
use mrfp_core::mp::*;
use mrfp_io::{ConnectAnswer, Simulator};
use mrfp_protocol::tls::{
    Authorities, CertificateConfig, Fingerprint, Handshake, Identity, Profile, ProfileConfig,
};

use crate::authority::Authority;
use crate::common::{World, key};
use crate::phone::*;

/// A world with certificates, the peer's profile, and what the peer is known by.
fn setting() -> (World, Profile, Fingerprint) {
    let authority = Authority::new("authority");
    let make = |host: &str| {
        let issued = authority.issue(&[host]);
        let identity = Identity::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()).unwrap();
        let fingerprint = identity.fingerprint();
        let authorities = Authorities::from_pem(authority.pem.as_bytes()).unwrap();
        let config = CertificateConfig { identity, authorities };
        let profile = Profile::new(&ProfileConfig::default()).unwrap();
        (profile.with_certificates(&config).unwrap(), fingerprint)
    };
    let (own, _) = make("node.example.com");
    let (peer, fingerprint) = make("ue.example.com");
    let mut world = World::with_profile(Simulator::without_faults(), Limits::default(), own);
    empty_room(&mut world);
    (world, peer, fingerprint)
}

/// The same for a stranger's certificate.
fn strange() -> Profile {
    setting().1
}

fn certified(fingerprint: &Fingerprint) -> Security {
    Security::TlsCertificate { fingerprints: vec![fingerprint.clone()] }
}

#[test]
fn in_every_role_the_certificate_that_was_announced_is_wanted() {
    for right in [true, false] {
        for tls_role in [TlsRole::Server, TlsRole::Client] {
            for we_connect in [false, true] {
                let (mut world, mut peer_profile, fingerprint) = setting();
                if !right {
                    peer_profile = strange();
                }
                let remote = "192.0.2.1:4000".parse().unwrap();
                world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
                let setup = if we_connect { Setup::Active { remote } } else { Setup::Passive };
                let mut wanted = reservation(11, setup, certified(&fingerprint));
                wanted.stream.tls_role = tls_role;
                wanted.own_port = tls_role == TlsRole::Client;
                let address = reserve(&mut world, wanted).unwrap();
                let peer = match we_connect {
                    true => world.shard.driver_mut().next_connected().expect("it connects"),
                    false => world.shard.driver_mut().peer_connect(address),
                };
                let handshake = match tls_role {
                    TlsRole::Server => {
                        Handshake::certificate_client(&peer_profile, "node.example.com")
                    }
                    TlsRole::Client => Handshake::server(&peer_profile),
                };
                let case = format!("right: {right}, {tls_role:?}, we connect: {we_connect}");
                let mut phone = Phone::new(peer, 11, Some(handshake.unwrap()));
                phone.shake_hands(&mut world);
                let known_by_message = tls_role == TlsRole::Server && !we_connect;
                if right || (known_by_message && phone.is_secured()) {
                    assert!(phone.is_secured(), "{case}");
                    assert_eq!(world.is_bound(11), !known_by_message, "{case}");
                    let expected = if right { HELLO } else { "Error 1: 5" };
                    assert_eq!(phone.hello(&mut world), expected, "{case}");
                }
                assert_eq!(world.is_bound(11), right, "{case}");
                world.subtract_all([1, 11]);
            }
        }
    }
}

#[test]
fn a_certificate_does_not_stand_in_for_a_key_nor_for_clear_text() {
    let (mut world, peer_profile, fingerprint) = setting();
    let address = reserve(&mut world, reservation(11, Setup::Passive, secured(11, 5))).unwrap();
    reserve(&mut world, reservation(12, Setup::Passive, Security::Plain)).unwrap();
    reserve(&mut world, reservation(13, Setup::Passive, certified(&fingerprint))).unwrap();
    for user_id in [11, 12] {
        let handshake = Handshake::certificate_client(&peer_profile, "node.example.com").unwrap();
        let peer = world.shard.driver_mut().peer_connect(address);
        let mut phone = Phone::new(peer, user_id, Some(handshake));
        phone.shake_hands(&mut world);
        assert!(phone.is_secured());
        assert_eq!(phone.hello(&mut world), "Error 1: 5");
    }
    let mut plain = Phone::plain(&mut world, address, 13);
    assert_eq!(plain.hello(&mut world), "Error 1: 9");
    let keyed = Phone::client(&mut world, address, 13, &key(5));
    assert!(!keyed.is_secured());
    for user_id in [11, 12, 13] {
        assert!(!world.is_bound(user_id), "{user_id}");
    }
    world.subtract_all([1, 11, 12, 13]);
}

#[test]
fn on_a_connection_of_ours_the_peer_does_not_choose_the_kind_of_tls() {
    let (mut world, peer_profile, _) = setting();
    let remote = "192.0.2.1:4000".parse().unwrap();
    world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
    reserve(&mut world, reservation(11, Setup::Active { remote }, secured(11, 5))).unwrap();
    let peer = world.shard.driver_mut().next_connected().unwrap();
    let handshake = Handshake::certificate_client(&peer_profile, "node.example.com").unwrap();
    let mut phone = Phone::new(peer, 11, Some(handshake));
    phone.shake_hands(&mut world);
    assert!(!world.is_bound(11) && phone.saw_end(&mut world));
    assert_eq!(released(&world, 11), Some(ReleaseCause::TlsEstablishmentFailure));
    world.subtract_all([1, 11]);
}

#[test]
fn without_a_certificate_none_is_promised() {
    let (mut world, _ue) = with_room(false);
    let security = Security::TlsCertificate { fingerprints: Vec::new() };
    let wanted = reservation(11, Setup::Passive, security);
    assert_eq!(reserve(&mut world, wanted), Err(Refusal::Transport));
    world.subtract_all([1]);
}
