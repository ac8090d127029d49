//! Sessions over TLS with certificates, beside plain ones and ones with keys on the same port.

#[path = "../protocol/tests/tls_common/authority.rs"]
mod authority;
mod common;

use std::net::SocketAddr;

use authority::Authority;
use common::{Ue, World, identity, key};
use mrfp_core::Limits;
use mrfp_core::mp::{Command, Event, Refusal, ReleaseCause, Security, Setup, TerminationId};
use mrfp_io::{ConnectAnswer, Simulator, SimulatorConfig};
use mrfp_protocol::tls::{
    Authorities, CertificateConfig, Fingerprint, Handshake, Identity, Profile, ProfileConfig,
};

const NODE: &str = "node.example.com";
const PEER: &str = "ue.example.com";

/// The profile of a host of this name whose authority is everybody's.
fn profile(authority: &Authority, host: &str) -> Profile {
    let issued = authority.issue(&[host]);
    let identity = Identity::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()).unwrap();
    let authorities = Authorities::from_pem(authority.pem.as_bytes()).unwrap();
    let config = CertificateConfig { identity, authorities };
    Profile::new(&ProfileConfig::default()).unwrap().with_certificates(&config).unwrap()
}

struct Setting {
    world: World,
    authority: Authority,
    peer: Profile,
}

impl Setting {
    fn new(simulator: Simulator) -> Self {
        let authority = Authority::new("authority");
        let world = World::with_profile(simulator, Limits::default(), profile(&authority, NODE));
        let peer = profile(&authority, PEER);
        Self { world, authority, peer }
    }

    fn calm() -> Self {
        Self::new(Simulator::without_faults())
    }

    fn reserve(&mut self, termination: u64) -> SocketAddr {
        self.reserve_with(termination, Vec::new())
    }

    fn reserve_with(&mut self, termination: u64, fingerprints: Vec<Fingerprint>) -> SocketAddr {
        self.world.reserve_with(1, termination, None, |reserve| {
            reserve.security = Security::TlsCertificate { fingerprints };
            let path = reserve.remote_path.take().expect("an answer");
            reserve.remote_path = Some(path.replacen("msrp://", "msrps://", 1));
        })
    }

    fn connect(&mut self, termination: u64, address: SocketAddr) -> Ue {
        let handshake = Handshake::certificate_client(&self.peer, NODE).unwrap();
        let mut ue = self.world.connect_with(termination, address, Some(handshake));
        ue.local_uri = ue.local_uri.replacen("msrp://", "msrps://", 1);
        ue
    }

    fn member(&mut self, termination: u64) -> Ue {
        let address = self.reserve(termination);
        let mut ue = self.connect(termination, address);
        assert!(ue.is_secured());
        assert!(!self.world.is_bound(termination), "not before the first request");
        assert_eq!(statuses(&mut self.world, &mut ue), [200]);
        assert!(self.world.is_bound(termination));
        ue
    }
}

/// What a binding request is answered with.
fn statuses(world: &mut World, ue: &mut Ue) -> Vec<u16> {
    let request = ue.empty_send("bind0001");
    ue.send_raw(world, &request);
    world.settle();
    ue.read(world);
    ue.take_statuses()
}

fn released(world: &World, termination: u64) -> Option<ReleaseCause> {
    world.seen.iter().find_map(|event| match event {
        Event::BearerReleased { termination: id, cause } if id.0 == termination => Some(*cause),
        _ => None,
    })
}

fn chat(world: &mut World, ues: &mut [Ue]) {
    for sender in 0..ues.len() {
        let body = format!("from {sender}").into_bytes();
        let request = ues[sender].send("chat0001", &format!("message{sender}"), &body);
        ues[sender].send_raw(world, &request);
        world.settle();
        for (receiver, ue) in ues.iter_mut().enumerate() {
            ue.read(world);
            ue.answer(world, 200);
            if receiver != sender {
                assert_eq!(ue.bodies().last(), Some(&body), "{sender} to {receiver}");
            }
        }
    }
}

#[test]
fn plain_keys_and_certificates_meet_on_one_port() {
    for seed in 0..20 {
        let simulator = if seed == 0 {
            Simulator::without_faults()
        } else {
            let config = SimulatorConfig { recv_buffer_count: 8, ..SimulatorConfig::default() };
            Simulator::with_config(seed, config)
        };
        let mut setting = Setting::new(simulator);
        let certified = setting.member(1);
        let also_certified = setting.member(2);
        let keyed = setting.world.member(1, 3, Some(&key(3)));
        let plain = setting.world.member(1, 4, None);
        let mut ues = [certified, also_certified, keyed, plain];
        let world = &mut setting.world;
        chat(world, &mut ues);
        assert_eq!(world.measure().handshakes_completed, 3);
        world.subtract_all(1..=4);
    }
}

#[test]
fn a_large_message_passes_over_certificates_unchanged() {
    let mut setting = Setting::calm();
    let (mut alice, mut bob) = (setting.member(1), setting.member(2));
    let body: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
    let request = alice.send("large001", "large", &body);
    let world = &mut setting.world;
    for part in request.chunks(100_000) {
        alice.send_raw(world, part);
        world.settle();
        bob.read(world);
    }
    assert!(bob.bodies() == [body]);
    world.subtract_all([1, 2]);
}

#[test]
fn several_sessions_share_a_connection_with_certificates() {
    let mut setting = Setting::calm();
    let mut first = setting.member(1);
    let address = setting.reserve(2);
    let (to, from) = (first.remote_uri.clone(), first.local_uri.clone());
    let second = setting.connect(2, address);
    first.remote_uri.clone_from(&second.remote_uri);
    first.local_uri.clone_from(&second.local_uri);
    assert_eq!(statuses(&mut setting.world, &mut first), [200]);
    assert!(setting.world.is_bound(2));
    (first.remote_uri, first.local_uri) = (to, from);
    assert_eq!(statuses(&mut setting.world, &mut first), [200]);
    setting.world.shard.driver_mut().peer_close(second.peer);
    setting.world.subtract_all([1, 2]);
}

#[test]
fn a_certificate_does_not_stand_in_for_a_key_nor_plain_text_for_a_certificate() {
    let mut setting = Setting::calm();
    let address = setting.world.reserve(1, 1, Some(&key(1)));
    setting.world.reserve(1, 2, None);
    setting.reserve(3);
    for termination in [1, 2] {
        let mut ue = setting.connect(termination, address);
        assert!(ue.is_secured());
        assert_eq!(statuses(&mut setting.world, &mut ue), [481]);
        ue.remote_uri = ue.remote_uri.replacen("msrps://", "msrp://", 1);
        assert_eq!(statuses(&mut setting.world, &mut ue), [481]);
    }
    let mut plain = setting.world.connect(3, address, None);
    for scheme in ["msrp://", "msrps://"] {
        plain.remote_uri = plain.remote_uri.replacen("msrp://", scheme, 1);
        assert_eq!(statuses(&mut setting.world, &mut plain), [481]);
    }
    // Nor does a key: what it has bound cannot be left.
    let mut keyed = setting.world.connect(1, address, Some((identity(1), &key(1))));
    keyed.remote_uri = keyed.remote_uri.replace(&format!("{:016}", 1), &format!("{:016}", 3));
    assert_eq!(statuses(&mut setting.world, &mut keyed), [481]);
    assert!(!setting.world.is_bound(2) && !setting.world.is_bound(3));
    setting.world.subtract_all([1, 2, 3]);
}

#[test]
fn a_secured_connection_that_names_no_session_is_closed() {
    let mut setting = Setting::calm();
    let address = setting.reserve(1);
    let ue = setting.connect(1, address);
    assert!(ue.is_secured());
    setting.world.pass(8);
    assert!(setting.world.shard.driver_mut().peer_saw_end(ue.peer));
    assert_eq!(setting.world.measure().connections_unbound_timeout, 1);
    setting.world.subtract_all([1]);
}

/// What the UE of these tests, or another one, shows.
fn announced(setting: &mut Setting, own: bool) -> Vec<Fingerprint> {
    let issued = setting.authority.issue(&[PEER]);
    let identity = Identity::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()).unwrap();
    let fingerprint = identity.fingerprint();
    if own {
        let authorities = Authorities::from_pem(setting.authority.pem.as_bytes()).unwrap();
        let config = CertificateConfig { identity, authorities };
        let profile = Profile::new(&ProfileConfig::default()).unwrap();
        setting.peer = profile.with_certificates(&config).unwrap();
    }
    vec![fingerprint]
}

#[test]
fn a_peer_that_announced_a_certificate_has_to_show_it() {
    for own in [true, false] {
        let mut setting = Setting::calm();
        let fingerprints = announced(&mut setting, own);
        let address = setting.reserve_with(1, fingerprints);
        let mut ue = setting.connect(1, address);
        assert!(ue.is_secured());
        let status = if own { 200 } else { 481 };
        assert_eq!(statuses(&mut setting.world, &mut ue), [status]);
        assert_eq!(setting.world.is_bound(1), own);
        setting.world.subtract_all([1]);
    }
}

#[test]
fn without_a_certificate_none_is_promised() {
    let mut world = World::calm();
    let mut reserve = common::reservation(1, 1, None);
    reserve.security = Security::TlsCertificate { fingerprints: Vec::new() };
    world.command(Command::ReserveAndConfigure(Box::new(reserve)));
    assert!(matches!(
        world.seen[..],
        [Event::Refused { termination: TerminationId(1), reason: Refusal::Transport }]
    ));
    assert_eq!(world.measure().contexts, 0);
}

/// The shard connects; the peer shows a certificate for `shown` and says it is `named`.
fn called(setting: &mut Setting, shown: &Profile, named: &str) -> Ue {
    called_with(setting, shown, named, Vec::new())
}

fn called_with(
    setting: &mut Setting,
    shown: &Profile,
    named: &str,
    fingerprints: Vec<Fingerprint>,
) -> Ue {
    let remote: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    setting.world.shard.driver_mut().answer_connects(remote, ConnectAnswer::Accept);
    let address = setting.world.reserve_with(1, 1, None, |reserve| {
        reserve.security = Security::TlsCertificate { fingerprints };
        reserve.setup = Setup::Active { remote };
        reserve.remote_path = Some(format!("msrps://{named}:4000/ue1;tcp"));
    });
    let peer = setting.world.shard.driver_mut().next_connected().expect("it connects");
    let handshake = Handshake::server(shown).unwrap();
    setting.world.ue(1, address, Some(handshake), peer)
}

#[test]
fn as_client_the_shard_wants_a_certificate_for_the_host_of_the_path() {
    let mut setting = Setting::calm();
    let shown = profile(&setting.authority, PEER);
    let mut ue = called(&mut setting, &shown, PEER);
    assert!(ue.is_secured() && setting.world.is_bound(1));
    ue.read(&mut setting.world);
    assert_eq!(ue.received.len(), 1, "the binding SEND");
    setting.world.subtract_all([1]);
}

#[test]
fn as_client_the_shard_leaves_a_server_that_is_another() {
    for named in ["other.example.com", "192.0.2.1"] {
        let mut setting = Setting::calm();
        let shown = profile(&setting.authority, PEER);
        let ue = called(&mut setting, &shown, named);
        setting.world.pass(1);
        assert!(setting.world.shard.driver_mut().peer_saw_end(ue.peer));
        let cause = released(&setting.world, 1);
        assert_eq!(cause, Some(ReleaseCause::TlsEstablishmentFailure), "{named}");
        assert!(!setting.world.is_bound(1));
        setting.world.subtract_all([1]);
    }
    let mut setting = Setting::calm();
    let stranger = profile(&Authority::new("stranger"), PEER);
    called(&mut setting, &stranger, PEER);
    setting.world.pass(1);
    let cause = released(&setting.world, 1);
    assert_eq!(cause, Some(ReleaseCause::TlsEstablishmentFailure));
    setting.world.subtract_all([1]);
}

#[test]
fn as_client_the_shard_wants_the_certificate_that_was_announced() {
    for own in [true, false] {
        let mut setting = Setting::calm();
        let fingerprints = announced(&mut setting, own);
        let shown = setting.peer.clone();
        let ue = called_with(&mut setting, &shown, "192.0.2.1", fingerprints);
        assert_eq!(setting.world.is_bound(1), own);
        if !own {
            setting.world.pass(1);
            assert!(setting.world.shard.driver_mut().peer_saw_end(ue.peer));
            let cause = released(&setting.world, 1);
            assert_eq!(cause, Some(ReleaseCause::TlsEstablishmentFailure));
        }
        setting.world.subtract_all([1]);
    }
}
