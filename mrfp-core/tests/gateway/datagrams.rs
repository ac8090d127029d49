//! Datagrams through the gateway: latching, DTLS, and a network that loses, doubles and delays.

use std::net::SocketAddr;

use mrfp_core::Limits;
use mrfp_core::mp::{
    Bearer, Command, Establishment, Refusal, ReleaseCause, RemoteConnectionPoint, Source, TlsRole,
};
use mrfp_io::{DatagramFaults, Simulator};
use mrfp_protocol::tls::dtls::{
    Cookies, Greeting, Handshake, Profile, Progress, Record, SEAL_HEADROOM_BYTES,
    SEAL_TAILROOM_BYTES, Session,
};
use mrfp_protocol::tls::{Fingerprint, HandshakeError, Identity};
use mrfp_protocol::udptl::{Packet, Redundancy, Sender};

use crate::world::{ACCESS, CORE, Gateway, reservation};

/// A fax machine.
struct Machine {
    own: SocketAddr,
    /// Where the gateway takes its datagrams.
    gateway: SocketAddr,
    dtls: Option<Dtls>,
    received: Vec<Vec<u8>>,
}

struct Dtls {
    profile: Profile,
    identity: Identity,
    announced: Vec<Fingerprint>,
    cookies: Cookies,
    handshake: Option<Handshake>,
    session: Option<Box<Session>>,
    error: Option<HandshakeError>,
    was_told_goodbye: bool,
}

impl Machine {
    fn plain(number: u16, gateway: SocketAddr) -> Self {
        let own = SocketAddr::from(([203, 0, 113, 7], 6000 + number));
        Self { own, gateway, dtls: None, received: Vec::new() }
    }

    fn secured(number: u16, gateway: SocketAddr, announced: &Fingerprint) -> Self {
        let dtls = Dtls {
            profile: Profile::new().unwrap(),
            identity: Identity::self_signed().unwrap(),
            announced: vec![announced.clone()],
            cookies: Cookies::new(),
            handshake: None,
            session: None,
            error: None,
            was_told_goodbye: false,
        };
        Self { dtls: Some(dtls), ..Self::plain(number, gateway) }
    }

    fn dtls(&mut self) -> &mut Dtls {
        self.dtls.as_mut().unwrap()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.dtls.as_ref().unwrap().identity.fingerprint()
    }

    fn is_secured(&self) -> bool {
        self.dtls.as_ref().is_some_and(|dtls| dtls.session.is_some())
    }

    fn says_hello(&mut self) {
        let dtls = self.dtls();
        let credentials = dtls.identity.for_datagrams().unwrap();
        let handshake = Handshake::client(&dtls.profile, &credentials, &dtls.announced).unwrap();
        dtls.session = None;
        dtls.handshake = Some(handshake);
    }

    fn post(&self, world: &mut Gateway, bytes: &[u8]) {
        let driver = world.world.shard.driver_mut();
        driver.peer_send_datagram(self.own, self.gateway, bytes);
    }

    fn send(&mut self, world: &mut Gateway, bytes: &[u8]) {
        let Some(dtls) = &mut self.dtls else { return self.post(world, bytes) };
        let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + bytes.len();
        let mut memory = vec![0; range.end + SEAL_TAILROOM_BYTES];
        memory[range.clone()].copy_from_slice(bytes);
        let session = dtls.session.as_mut().expect("an association");
        let record = session.seal(&mut memory, range).unwrap();
        self.post(world, &memory[record]);
    }

    /// Takes what has come, and answers what DTLS asks.
    fn read(&mut self, world: &mut Gateway) {
        let arrived = world.world.shard.driver_mut().peer_datagrams(self.own);
        let mut output = Vec::new();
        for (from, datagram) in arrived {
            assert_eq!(from, self.gateway);
            match &mut self.dtls {
                Some(dtls) => dtls.take(datagram, &mut self.received, &mut output),
                None => self.received.push(datagram),
            }
        }
        if let Some(dtls) = &mut self.dtls {
            dtls.pass_time(&mut output);
        }
        output.iter().for_each(|datagram| self.post(world, datagram));
    }

    fn take_received(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.received)
    }
}

impl Dtls {
    fn take(
        &mut self,
        mut datagram: Vec<u8>,
        received: &mut Vec<Vec<u8>>,
        output: &mut Vec<Vec<u8>>,
    ) {
        if let Some(session) = &mut self.session {
            match session.open(&mut datagram) {
                Some((Record::Data(range), _)) => received.push(datagram[range].to_vec()),
                Some((Record::Repeated, _)) => output.extend_from_slice(session.last_flight()),
                Some((Record::CloseNotify, _)) => self.was_told_goodbye = true,
                Some((Record::Nothing | Record::FatalAlert(_), _)) | None => {}
            }
        } else if let Some(handshake) = &mut self.handshake {
            let result = handshake.advance(&datagram, output);
            self.follow(result);
        } else if let Greeting::Verify(answer) = self.cookies.greet(anybody(), &datagram) {
            output.push(answer);
        } else if let Greeting::Proven(hello) = self.cookies.greet(anybody(), &datagram) {
            let credentials = self.identity.for_datagrams().unwrap();
            let handshake =
                Handshake::server(&self.profile, &credentials, &self.announced, hello).unwrap();
            self.handshake = Some(handshake);
        }
    }

    fn pass_time(&mut self, output: &mut Vec<Vec<u8>>) {
        if let Some(handshake) = &mut self.handshake {
            let result = handshake.pass_time(output);
            self.follow(result);
        }
    }

    fn follow(&mut self, result: Result<Progress, HandshakeError>) {
        match result {
            Ok(Progress::UnderWay) => return,
            Ok(Progress::Done(session)) => self.session = Some(session),
            Err(error) => self.error = Some(error),
        }
        self.handshake = None;
    }
}

/// A machine as server has one peer.
fn anybody() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

fn work(world: &mut Gateway, machines: &mut [&mut Machine]) {
    for _ in 0..8 {
        world.world.settle();
        machines.iter_mut().for_each(|machine| machine.read(world));
    }
}

fn remote(source: Source, address: Option<SocketAddr>) -> RemoteConnectionPoint {
    RemoteConnectionPoint {
        address,
        establishment: Establishment::Incoming,
        tls_role: TlsRole::Server,
        fingerprints: Vec::new(),
        source,
        msrp: None,
    }
}

fn secured(
    tls_role: TlsRole,
    source: Source,
    address: Option<SocketAddr>,
    fingerprint: Fingerprint,
) -> RemoteConnectionPoint {
    RemoteConnectionPoint { tls_role, fingerprints: vec![fingerprint], ..remote(source, address) }
}

/// A plain machine in the core whose address is known.
fn core_machine(world: &mut Gateway) -> Machine {
    let (address, _) = world.reserve(CORE, Bearer::Udp, None);
    let machine = Machine::plain(900, address);
    world.configure(CORE, remote(Source::Address, Some(machine.own)));
    assert!(world.is_bound(CORE));
    machine
}

/// A UE with DTLS, in the role it has, and a plain machine.
fn pair(world: &mut Gateway, ours: TlsRole, source: Source) -> (Machine, Machine) {
    let (address, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
    let mut ue = Machine::secured(1, address, &fingerprint.unwrap());
    let mut core = core_machine(world);
    let known = match (ours, source) {
        (TlsRole::Server, Source::Any | Source::Host(_)) => None,
        (TlsRole::Client, _) | (_, Source::Address) => Some(ue.own),
    };
    world.configure(ACCESS, secured(ours, source, known, ue.fingerprint()));
    if ours == TlsRole::Server {
        ue.says_hello();
    }
    work(world, &mut [&mut ue, &mut core]);
    (ue, core)
}

fn exchange(world: &mut Gateway, ue: &mut Machine, core: &mut Machine) {
    for number in 0..20_u8 {
        ue.send(world, &[number, 1]);
        core.send(world, &[number, 2]);
    }
    work(world, &mut [ue, core]);
    let numbered = |side| (0..20).map(|number| vec![number, side]).collect::<Vec<_>>();
    assert_eq!(core.take_received(), numbered(1));
    assert_eq!(ue.take_received(), numbered(2));
}

#[test]
fn datagrams_in_the_clear_pass_one_for_one_in_order() {
    let mut world = Gateway::calm();
    let (address, _) = world.reserve(ACCESS, Bearer::Udp, None);
    let mut ue = Machine::plain(1, address);
    let mut core = core_machine(&mut world);
    ue.send(&mut world, b"too early");
    core.send(&mut world, b"to nobody");
    work(&mut world, &mut [&mut ue, &mut core]);
    assert!(core.received.is_empty() && ue.received.is_empty());
    world.configure(ACCESS, remote(Source::Address, Some(ue.own)));
    exchange(&mut world, &mut ue, &mut core);
    world.subtract_both();
    let statistics = world.statistics(ACCESS);
    assert_eq!((statistics.bytes_received, statistics.bytes_sent), (40, 40));
}

#[test]
fn the_first_datagram_in_the_clear_finds_the_peer() {
    let mut world = Gateway::calm();
    let (address, _) = world.reserve(ACCESS, Bearer::Udp, None);
    let mut core = core_machine(&mut world);
    let (mut ue, mut stranger) = (Machine::plain(1, address), Machine::plain(2, address));
    world.configure(ACCESS, remote(Source::Any, None));
    core.send(&mut world, b"nobody is there");
    world.world.settle();
    assert!(!world.is_bound(ACCESS));
    ue.send(&mut world, b"here");
    world.world.settle();
    assert!(world.is_bound(ACCESS));
    stranger.send(&mut world, b"me too");
    core.send(&mut world, b"answer");
    work(&mut world, &mut [&mut ue, &mut stranger, &mut core]);
    assert_eq!(core.take_received(), [b"here"]);
    assert_eq!(ue.take_received(), [b"answer"]);
    assert!(stranger.received.is_empty());
}

#[test]
fn until_the_peer_has_spoken_its_sdp_tells_where_it_is() {
    let mut world = Gateway::calm();
    let (address, _) = world.reserve(ACCESS, Bearer::Udp, None);
    let mut core = core_machine(&mut world);
    let mut announced = Machine::plain(1, address);
    let mut behind_nat = Machine::plain(2, address);
    let mut stranger = Machine::plain(3, address);
    stranger.own = "198.51.100.99:6000".parse().unwrap();
    let host = behind_nat.own.ip();
    world.configure(ACCESS, remote(Source::Host(host), Some(announced.own)));
    assert!(world.is_bound(ACCESS));
    core.send(&mut world, b"1");
    stranger.send(&mut world, b"stranger");
    work(&mut world, &mut [&mut announced, &mut core]);
    behind_nat.send(&mut world, b"2");
    world.world.settle();
    core.send(&mut world, b"3");
    announced.send(&mut world, b"4");
    work(&mut world, &mut [&mut announced, &mut behind_nat, &mut stranger, &mut core]);
    assert_eq!(announced.take_received(), [b"1"]);
    assert_eq!(behind_nat.take_received(), [b"3"]);
    assert_eq!(core.take_received(), [b"2"]);
    assert!(stranger.received.is_empty());
}

#[test]
fn a_peer_that_has_moved_is_followed_when_the_controller_says_so() {
    let mut world = Gateway::calm();
    let (address, _) = world.reserve(ACCESS, Bearer::Udp, None);
    let mut core = core_machine(&mut world);
    let (mut before, mut after) = (Machine::plain(1, address), Machine::plain(2, address));
    world.configure(ACCESS, remote(Source::Address, Some(before.own)));
    exchange(&mut world, &mut before, &mut core);
    world.configure(ACCESS, remote(Source::Address, Some(after.own)));
    exchange(&mut world, &mut after, &mut core);
    before.send(&mut world, b"still there");
    work(&mut world, &mut [&mut before, &mut core]);
    assert!(core.received.is_empty());
    // Nothing new has come up. Nor has where it is not known where the peer is now.
    world.configure(ACCESS, remote(Source::Any, None));
    core.send(&mut world, b"to nobody");
    work(&mut world, &mut [&mut after, &mut core]);
    assert!(after.received.is_empty());
    exchange(&mut world, &mut before, &mut core);
    assert_eq!(world.times_bound(ACCESS), 1);
}

#[test]
fn dtls_ends_here_in_both_roles_whatever_is_known_of_the_peer() {
    let host = SocketAddr::from(([203, 0, 113, 7], 0)).ip();
    for (ours, source) in [
        (TlsRole::Server, Source::Any),
        (TlsRole::Server, Source::Host(host)),
        (TlsRole::Server, Source::Address),
        (TlsRole::Client, Source::Address),
        (TlsRole::Client, Source::Any),
    ] {
        let mut world = Gateway::calm();
        let (mut ue, mut core) = pair(&mut world, ours, source);
        assert!(ue.is_secured() && world.is_bound(ACCESS), "{ours:?} {source:?}");
        exchange(&mut world, &mut ue, &mut core);
        assert_eq!(world.times_bound(ACCESS), 1);
        world.subtract_both();
        ue.read(&mut world);
        assert!(ue.dtls().was_told_goodbye);
        assert_eq!(world.statistics(CORE).bytes_sent, 40);
        assert_eq!(world.world.shard.driver_mut().sockets_open(), 1);
    }
}

#[test]
fn what_is_sent_in_the_clear_to_a_protected_side_goes_nowhere() {
    let mut world = Gateway::calm();
    let (mut ue, mut core) = pair(&mut world, TlsRole::Server, Source::Any);
    ue.post(&mut world, b"in the clear");
    let mut stranger = Machine::plain(5, ue.gateway);
    stranger.send(&mut world, b"in the clear");
    core.send(&mut world, b"secret");
    work(&mut world, &mut [&mut stranger, &mut core]);
    assert!(core.received.is_empty() && stranger.received.is_empty());
    ue.read(&mut world);
    assert_eq!(ue.take_received(), [b"secret"]);
}

#[test]
fn a_hello_before_the_answer_is_kept() {
    let mut world = Gateway::calm();
    let (address, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
    let mut ue = Machine::secured(1, address, &fingerprint.unwrap());
    ue.says_hello();
    ue.read(&mut world);
    world.world.settle();
    assert!(world.world.shard.driver_mut().peer_datagrams(ue.own).is_empty(), "nobody is told");
    let stranger = Machine::plain(2, address);
    stranger.post(&mut world, b"not a ClientHello");
    world.world.settle();
    let mut core = core_machine(&mut world);
    let configured = secured(TlsRole::Server, Source::Any, None, ue.fingerprint());
    world.configure(ACCESS, configured);
    work(&mut world, &mut [&mut ue, &mut core]);
    assert!(ue.is_secured() && world.is_bound(ACCESS));
    exchange(&mut world, &mut ue, &mut core);
}

#[test]
fn another_certificate_than_was_announced_is_reported() {
    for ours in [TlsRole::Server, TlsRole::Client] {
        let mut world = Gateway::calm();
        let (address, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
        let mut ue = Machine::secured(1, address, &fingerprint.unwrap());
        let other = Identity::self_signed().unwrap().fingerprint();
        world.configure(ACCESS, secured(ours, Source::Address, Some(ue.own), other));
        if ours == TlsRole::Server {
            ue.says_hello();
        }
        work(&mut world, &mut [&mut ue]);
        assert_eq!(world.causes(ACCESS), [ReleaseCause::PeerNotAuthenticated]);
        // RFC 8122 section 6.2: bad_certificate.
        assert_eq!(ue.dtls().error, Some(HandshakeError::AlertReceived(42)));
        assert!(!world.is_bound(ACCESS));
    }
}

#[test]
fn strangers_do_not_keep_the_peer_out() {
    let mut world = Gateway::calm();
    let (address, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
    let fingerprint = fingerprint.unwrap();
    let mut ue = Machine::secured(1, address, &fingerprint);
    let configured = secured(TlsRole::Server, Source::Any, None, ue.fingerprint());
    world.configure(ACCESS, configured);
    let mut strangers: Vec<_> =
        (2..12).map(|number| Machine::secured(number, address, &fingerprint)).collect();
    for stranger in &mut strangers {
        stranger.says_hello();
        work(&mut world, &mut [stranger]);
        assert_eq!(stranger.dtls().error, Some(HandshakeError::AlertReceived(42)));
    }
    assert!(world.causes(ACCESS).is_empty());
    ue.says_hello();
    work(&mut world, &mut [&mut ue]);
    assert!(ue.is_secured() && world.is_bound(ACCESS));
}

/// Whoever has an address has many ports.
#[test]
fn a_stranger_who_fills_all_places_does_not_keep_others_out() {
    let mut world = Gateway::calm();
    let (address, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
    let fingerprint = fingerprint.unwrap();
    let mut ue = Machine::secured(1, address, &fingerprint);
    world.configure(ACCESS, secured(TlsRole::Server, Source::Any, None, ue.fingerprint()));
    let mut strangers: Vec<_> = (2..12)
        .map(|number| {
            let mut stranger = Machine::secured(number, address, &fingerprint);
            stranger.own.set_ip([198, 51, 100, 99].into());
            stranger
        })
        .collect();
    let mut begin = |world: &mut Gateway| {
        for stranger in &mut strangers {
            stranger.says_hello();
            stranger.read(world);
            world.world.settle();
            // It returns its cookie, and is silent then.
            stranger.read(world);
            world.world.settle();
            world.world.shard.driver_mut().peer_datagrams(stranger.own);
        }
    };
    begin(&mut world);
    ue.says_hello();
    ue.read(&mut world);
    world.world.settle();
    ue.read(&mut world);
    begin(&mut world);
    work(&mut world, &mut [&mut ue]);
    assert!(ue.is_secured() && world.is_bound(ACCESS));
}

#[test]
fn if_nobody_but_strangers_comes_that_is_reported_when_time_is_up() {
    let mut world = Gateway::calm();
    let (address, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
    let mut stranger = Machine::secured(2, address, &fingerprint.unwrap());
    let other = Identity::self_signed().unwrap().fingerprint();
    world.configure(ACCESS, secured(TlsRole::Server, Source::Any, None, other));
    stranger.says_hello();
    work(&mut world, &mut [&mut stranger]);
    assert!(world.causes(ACCESS).is_empty());
    world.world.pass(40);
    assert_eq!(world.causes(ACCESS), [ReleaseCause::PeerNotAuthenticated]);
}

#[test]
fn another_certificate_at_the_host_that_was_announced_is_reported_soon() {
    let wrong = Identity::self_signed().unwrap().fingerprint();
    let announced: SocketAddr = "203.0.113.7:9".parse().unwrap();
    for (source, address) in [(Source::Host(announced.ip()), None), (Source::Any, Some(announced))]
    {
        let mut world = Gateway::calm();
        let (address_here, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
        let mut ue = Machine::secured(1, address_here, &fingerprint.unwrap());
        world.configure(ACCESS, secured(TlsRole::Server, source, address, wrong.clone()));
        ue.says_hello();
        work(&mut world, &mut [&mut ue]);
        world.world.pass(3);
        assert!(world.causes(ACCESS).is_empty(), "it may try again");
        world.world.pass(4);
        assert_eq!(world.causes(ACCESS), [ReleaseCause::PeerNotAuthenticated]);
    }
}

#[test]
fn another_certificate_elsewhere_does_not_shorten_the_time_there_is() {
    let mut world = Gateway::calm();
    let (address, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
    let fingerprint = fingerprint.unwrap();
    let mut ue = Machine::secured(1, address, &fingerprint);
    let mut stranger = Machine::secured(2, address, &fingerprint);
    stranger.own.set_ip([198, 51, 100, 99].into());
    let configured = secured(TlsRole::Server, Source::Any, Some(ue.own), ue.fingerprint());
    world.configure(ACCESS, configured);
    stranger.says_hello();
    work(&mut world, &mut [&mut stranger]);
    assert_eq!(stranger.dtls().error, Some(HandshakeError::AlertReceived(42)));
    world.world.pass(20);
    ue.says_hello();
    work(&mut world, &mut [&mut ue]);
    assert!(ue.is_secured() && world.is_bound(ACCESS));
}

#[test]
fn if_nobody_comes_at_all_dtls_has_failed() {
    for (ours, address) in
        [(TlsRole::Server, None), (TlsRole::Client, "203.0.113.7:6001".parse().ok())]
    {
        let mut world = Gateway::calm();
        world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
        let other = Identity::self_signed().unwrap().fingerprint();
        world.configure(ACCESS, secured(ours, Source::Any, address, other));
        world.world.pass(30);
        assert!(world.causes(ACCESS).is_empty());
        world.world.pass(5);
        assert_eq!(world.causes(ACCESS), [ReleaseCause::TlsEstablishmentFailure]);
        world.subtract(ACCESS);
        assert_eq!(world.statistics(ACCESS).bytes_sent, 0);
    }
}

#[test]
fn a_goodbye_of_the_peer_is_reported() {
    let mut world = Gateway::calm();
    let (mut ue, mut core) = pair(&mut world, TlsRole::Server, Source::Any);
    let goodbye = ue.dtls().session.as_mut().unwrap().close_notify();
    ue.post(&mut world, &goodbye);
    core.send(&mut world, b"anybody?");
    work(&mut world, &mut [&mut ue, &mut core]);
    assert_eq!(world.causes(ACCESS), [ReleaseCause::PeerClosed]);
    assert!(ue.received.len() <= 1);
}

#[test]
fn whoever_is_stopped_says_goodbye() {
    // Whichever side ends first, and takes the other with it.
    for core_is_first in [false, true] {
        let mut world = Gateway::calm();
        let earlier = core_is_first.then(|| core_machine(&mut world));
        let (address, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
        let mut ue = Machine::secured(1, address, &fingerprint.unwrap());
        let mut core = earlier.unwrap_or_else(|| core_machine(&mut world));
        world.configure(ACCESS, secured(TlsRole::Server, Source::Any, None, ue.fingerprint()));
        ue.says_hello();
        work(&mut world, &mut [&mut ue, &mut core]);
        exchange(&mut world, &mut ue, &mut core);
        world.world.commands.push(Command::Stop).unwrap();
        assert!((0..200).any(|_| !world.world.shard.turn().unwrap()));
        ue.read(&mut world);
        assert!(ue.dtls().was_told_goodbye, "core first: {core_is_first}");
        assert_eq!(world.world.shard.driver_mut().sockets_open(), 0);
    }
}

#[test]
fn a_new_association_takes_the_place_of_the_old_on_the_same_port() {
    let mut world = Gateway::calm();
    let (mut ue, mut core) = pair(&mut world, TlsRole::Server, Source::Any);
    exchange(&mut world, &mut ue, &mut core);
    let again = secured(TlsRole::Server, Source::Any, None, ue.fingerprint());
    world.configure(ACCESS, again.clone());
    exchange(&mut world, &mut ue, &mut core);
    world.configure_afresh(ACCESS, again);
    work(&mut world, &mut [&mut ue]);
    assert!(ue.dtls().was_told_goodbye);
    ue.says_hello();
    work(&mut world, &mut [&mut ue, &mut core]);
    assert_eq!(world.times_bound(ACCESS), 2);
    exchange(&mut world, &mut ue, &mut core);
}

#[test]
fn a_context_is_of_datagrams_or_of_connections() {
    let mut world = Gateway::calm();
    world.reserve(ACCESS, Bearer::Udp, None);
    let mixed = reservation(1, CORE, Bearer::Tcp, None);
    assert_eq!(world.refusal(mixed), Some(Refusal::Transport));
    let nowhere = remote(Source::Address, None);
    let incomplete = reservation(2, CORE, Bearer::Udp, Some(nowhere));
    assert_eq!(world.refusal(incomplete), Some(Refusal::Transport));
    let unknown = reservation(2, CORE, Bearer::DtlsOverUdp, Some(remote(Source::Any, None)));
    assert_eq!(world.refusal(unknown), Some(Refusal::Transport));
}

#[test]
fn garbage_does_no_harm() {
    let mut world = Gateway::calm();
    let (mut ue, mut core) = pair(&mut world, TlsRole::Server, Source::Any);
    let mut state = 1_u32;
    for length in 0..600_usize {
        let garbage: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        ue.post(&mut world, &garbage);
        let record = [&[23, 0xfe, 0xfd, 0, 1][..], &garbage].concat();
        ue.post(&mut world, &record);
        world.world.settle();
    }
    assert!(core.received.is_empty());
    exchange(&mut world, &mut ue, &mut core);
}

/// A fax of so many packets each way, through a network that does what networks do; numbers that arrived.
fn fax(faults: DatagramFaults, packets: u32) -> [Vec<u32>; 2] {
    let mut world = Gateway::new(Simulator::without_faults(), Limits::default());
    let (mut ue, mut core) = pair(&mut world, TlsRole::Server, Source::Any);
    world.world.shard.driver_mut().set_datagram_faults(faults);
    let mut senders =
        [Redundancy::Copies(3), Redundancy::Copies(1)].map(|it| Sender::new(it, 65_000));
    for number in 0..packets {
        for (sender, machine) in senders.iter_mut().zip([&mut ue, &mut core]) {
            let mut datagram = Vec::new();
            sender.write(&number.to_be_bytes(), &mut datagram);
            machine.send(&mut world, &datagram);
        }
        world.world.shard.turn().unwrap();
        if number % 64 == 0 {
            world.world.settle();
            ue.read(&mut world);
            core.read(&mut world);
        }
    }
    work(&mut world, &mut [&mut ue, &mut core]);
    [ue, core].map(|machine| {
        let number = |datagram: &Vec<u8>| {
            let packet = Packet::parse(datagram).unwrap();
            let number = u32::from_be_bytes(packet.primary.try_into().unwrap());
            assert_eq!(packet.sequence, 65_000_u16.wrapping_add(number as u16));
            number
        };
        machine.received.iter().map(number).collect()
    })
}

#[test]
fn nothing_is_lost_that_the_network_does_not_lose() {
    // The numbers of UDPTL go round twice.
    const PACKETS: u32 = 140_000;
    for arrived in fax(DatagramFaults::default(), PACKETS) {
        assert!(arrived.iter().copied().eq(0..PACKETS));
    }
}

#[test]
fn what_the_network_loses_doubles_and_delays_stays_so() {
    let none = DatagramFaults::default();
    for arrived in fax(DatagramFaults { lost_per_mille: 10, ..none }, 10_000) {
        assert!((9_600..9_950).contains(&arrived.len()), "{}", arrived.len());
        assert!(arrived.is_sorted());
    }
    let [ue, core] = fax(DatagramFaults { doubled_per_mille: 100, ..none }, 5_000);
    // On the way in a record counts once, as it does on the way to the UE; the core has plain UDP.
    assert!(core.len() > 5_300 && core.is_sorted());
    assert!(ue.len() > 5_300, "what the core has sent twice are two packets");
    for mut arrived in fax(DatagramFaults { late_per_mille: 50, ..none }, 5_000) {
        assert!(!arrived.is_sorted());
        arrived.sort_unstable();
        assert!(arrived.into_iter().eq(0..5_000));
    }
}

/// The network loses our first flight; OpenSSL's timers know no time but the system's.
#[test]
fn what_a_peer_does_not_answer_is_sent_again() {
    let mut world = Gateway::calm();
    let (address, fingerprint) = world.reserve(ACCESS, Bearer::DtlsOverUdp, None);
    let mut ue = Machine::secured(1, address, &fingerprint.unwrap());
    let configured = secured(TlsRole::Client, Source::Address, Some(ue.own), ue.fingerprint());
    world.configure(ACCESS, configured);
    let lost = world.world.shard.driver_mut().peer_datagrams(ue.own);
    assert_eq!(lost.len(), 1);
    let begun = std::time::Instant::now();
    while !ue.is_secured() && begun.elapsed().as_secs() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        // Far less than the time there is.
        for _ in 0..16 {
            world.world.shard.driver_mut().advance_ns(2_000_000);
            world.world.shard.turn().unwrap();
        }
        work(&mut world, &mut [&mut ue]);
    }
    assert!(ue.is_secured() && world.is_bound(ACCESS));
}

#[test]
fn many_wrong_certificates_at_once_are_each_reported() {
    const POINTS: u64 = 300;
    let mut world = Gateway::calm();
    let wrong = Identity::self_signed().unwrap().fingerprint();
    let mut machines = Vec::new();
    for number in 0..POINTS {
        let termination = ACCESS + 2 * number + 2;
        let (address, fingerprint) =
            world.reserve_in(number + 10, termination, Bearer::DtlsOverUdp, None);
        let mut ue = Machine::secured(number as u16, address, &fingerprint.unwrap());
        let known = secured(TlsRole::Server, Source::Address, Some(ue.own), wrong.clone());
        world.configure(termination, known);
        ue.says_hello();
        machines.push((termination, ue));
    }
    for _ in 0..8 {
        machines.iter_mut().for_each(|(_, ue)| ue.read(&mut world));
        world.world.settle();
    }
    for (termination, _) in &machines {
        assert_eq!(world.causes(*termination), [ReleaseCause::PeerNotAuthenticated]);
        world.subtract(*termination);
    }
    assert_eq!(world.world.shard.driver_mut().sockets_open(), 1);
}
