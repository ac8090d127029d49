//! What the controller may ask, at every moment, and what it is told.

use mrfp_core::mp::{
    Bearer, Command, ConfigureConnectionPoint, Establishment, Event, InterfaceId, Refusal,
    ReleaseCause, RemoteConnectionPoint, Source, TerminationId, TlsRole,
};
use mrfp_io::ConnectAnswer;
use mrfp_protocol::tls::Identity;

use crate::common::World;
use crate::world::{
    ACCESS, CORE, Gateway, Party, SERVER, UE, incoming, outgoing, reservation, secured, shakes,
};

#[test]
fn a_context_has_two_connection_points() {
    let mut gateway = Gateway::calm();
    gateway.reserve(ACCESS, Bearer::Tcp, None);
    gateway.reserve(CORE, Bearer::Tcp, None);
    let third = reservation(1, CORE + 1, Bearer::Tcp, None);
    assert_eq!(gateway.refusal(third), Some(Refusal::ContextFull));
    let known = reservation(2, CORE, Bearer::Tcp, None);
    assert_eq!(gateway.refusal(known), Some(Refusal::TerminationId));
    gateway.subtract(CORE);
    gateway.reserve(CORE + 1, Bearer::Tcp, None);
    gateway.world.subtract_all([ACCESS, CORE + 1]);
}

#[test]
fn one_that_is_subtracted_makes_room_before_its_connection_is_gone() {
    let mut gateway = Gateway::calm();
    let (a, b) = gateway.plain_pair();
    let driver = gateway.world.shard.driver_mut();
    driver.peer_stop_reading(b.peer);
    driver.peer_send(a.peer, &[1; 100_000]);
    gateway.world.settle();
    gateway.subtract(CORE);
    let last = gateway.world.seen.last();
    assert!(!matches!(last, Some(Event::Subtracted { .. })), "what is queued may leave");
    let core = gateway.reserve(CORE + 1, Bearer::Tcp, Some(incoming())).0;
    let mut b = gateway.connect(core, None);
    gateway.world.shard.driver_mut().peer_send(a.peer, b"for the new one");
    gateway.work(&mut [&mut b]);
    assert_eq!(b.received, b"for the new one");
    gateway.world.subtract_all([ACCESS, CORE, CORE + 1]);
}

#[test]
fn what_is_not_there_is_refused() {
    let mut gateway = Gateway::calm();
    let mut elsewhere = reservation(1, ACCESS, Bearer::Tcp, None);
    elsewhere.interface = InterfaceId(2);
    assert_eq!(gateway.refusal(elsewhere), Some(Refusal::Transport));
    let nowhere = RemoteConnectionPoint { address: None, ..outgoing(UE, Establishment::AtOnce) };
    let command = reservation(1, ACCESS, Bearer::Tcp, Some(nowhere));
    assert_eq!(gateway.refusal(command), Some(Refusal::Transport));
    gateway.subtract(ACCESS);
    assert!(matches!(gateway.world.seen.last(), Some(Event::Subtracted { .. })));
    assert_eq!(gateway.world.shard.driver_mut().sockets_open(), 1);

    let mut none = World::calm();
    let command = reservation(1, ACCESS, Bearer::Tcp, None);
    none.command(Command::ReserveConnectionPoint(Box::new(command)));
    let reason = match none.seen.last() {
        Some(Event::Refused { reason, .. }) => *reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason, Refusal::Transport, "the node is no gateway");
}

#[test]
fn everything_is_given_back_whenever_it_is_subtracted() {
    for turns in 0..60 {
        for (number, establishment) in
            [Establishment::Incoming, Establishment::AtOnce].into_iter().enumerate()
        {
            let mut gateway = Gateway::faulty(turns * 2 + number as u64);
            let ue = Identity::self_signed().unwrap();
            gateway.accepts_connections(UE);
            let (access, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
            let core = gateway.reserve(CORE, Bearer::Tcp, Some(incoming())).0;
            let driver = gateway.world.shard.driver_mut();
            let (a, b) = (driver.peer_connect(access), driver.peer_connect(core));
            driver.peer_send(b, &[3; 50_000]);
            let remote = secured(establishment, TlsRole::Server, vec![ue.fingerprint()]);
            let configure = ConfigureConnectionPoint {
                termination: TerminationId(ACCESS),
                remote,
                afresh: false,
            };
            let command = Command::ConfigureConnectionPoint(Box::new(configure));
            gateway.world.commands.push(command).unwrap();
            let handshake = shakes(&ue, TlsRole::Server, &[fingerprint.unwrap()]);
            let mut a = Party::new(a, Some(handshake));
            for _ in 0..turns {
                gateway.world.shard.turn().unwrap();
                a.read(&mut gateway.world);
            }
            gateway.subtract_both();
        }
    }
}

#[test]
fn without_a_connection_the_controller_is_told_in_time() {
    let mut gateway = Gateway::calm();
    let address = UE.parse().unwrap();
    gateway.world.shard.driver_mut().answer_connects(address, ConnectAnswer::Silence);
    gateway.reserve(ACCESS, Bearer::Tcp, Some(outgoing(UE, Establishment::AtOnce)));
    gateway.reserve(CORE, Bearer::Tcp, Some(incoming()));
    gateway.world.pass(30);
    assert!(gateway.causes(ACCESS).is_empty() && gateway.causes(CORE).is_empty());
    gateway.world.pass(5);
    for side in [ACCESS, CORE] {
        assert_eq!(gateway.causes(side), [ReleaseCause::TcpEstablishmentFailure]);
    }
    assert_eq!(gateway.world.measure().gateway_failures_tcp, 2);
    gateway.subtract_both();
}

#[test]
fn a_connection_that_is_refused_is_reported_at_once() {
    let mut gateway = Gateway::calm();
    gateway.reserve(ACCESS, Bearer::Tcp, Some(outgoing(UE, Establishment::AtOnce)));
    assert_eq!(gateway.causes(ACCESS), [ReleaseCause::TcpEstablishmentFailure]);
    gateway.world.subtract_all([ACCESS]);
}

#[test]
fn a_trigger_that_has_been_pulled_is_seen_later() {
    let mut gateway = Gateway::calm();
    gateway.accepts_connections(SERVER);
    let access = gateway.reserve(ACCESS, Bearer::Tcp, Some(incoming())).0;
    gateway.connect(access, None);
    let triggered = outgoing(SERVER, Establishment::WhenOtherComesIn);
    gateway.reserve(CORE, Bearer::Tcp, Some(triggered));
    assert!(gateway.is_bound(CORE));
    gateway.subtract_both();
}

#[test]
fn a_connection_from_elsewhere_is_refused_and_the_right_one_taken() {
    let host = "192.0.2.77".parse().unwrap();
    let right = "192.0.2.77:4711".parse().unwrap();
    let wrong = "192.0.2.78:4711".parse().unwrap();
    let by_host = RemoteConnectionPoint { source: Source::Host(host), ..incoming() };
    let by_address = RemoteConnectionPoint {
        address: Some("192.0.2.77:9".parse().unwrap()),
        source: Source::Address,
        ..incoming()
    };
    for (remote, early) in
        [(by_host.clone(), false), (by_host, true), (by_address.clone(), false), (by_address, true)]
    {
        let mut gateway = Gateway::calm();
        let access = gateway.reserve(ACCESS, Bearer::Tcp, None).0;
        if early {
            let stranger = gateway.world.shard.driver_mut().peer_connect_from(access, wrong);
            gateway.world.settle();
            gateway.configure(ACCESS, remote);
            assert!(gateway.world.shard.driver_mut().peer_saw_end(stranger));
        } else {
            gateway.configure(ACCESS, remote);
            let stranger = gateway.world.shard.driver_mut().peer_connect_from(access, wrong);
            gateway.world.settle();
            assert!(gateway.world.shard.driver_mut().peer_saw_end(stranger));
        }
        assert!(!gateway.is_bound(ACCESS));
        gateway.world.shard.driver_mut().peer_connect_from(access, right);
        gateway.world.settle();
        assert!(gateway.is_bound(ACCESS));
        gateway.world.subtract_all([ACCESS]);
    }
}

#[test]
fn an_early_connection_that_gives_up_makes_room_for_the_next() {
    let mut gateway = Gateway::calm();
    let access = gateway.reserve(ACCESS, Bearer::Tcp, None).0;
    let early = gateway.connect(access, None);
    gateway.world.pass(8);
    assert!(early.saw_end(&mut gateway), "nobody has vouched for it");
    assert!(gateway.causes(ACCESS).is_empty());
    gateway.connect(access, None);
    gateway.configure(ACCESS, incoming());
    assert!(gateway.is_bound(ACCESS));
    gateway.world.subtract_all([ACCESS]);
}

#[test]
fn a_connection_that_fits_stays_and_another_comes_only_when_it_is_asked_for() {
    let mut gateway = Gateway::calm();
    let (mut a, mut b) = gateway.plain_pair();
    gateway.configure(ACCESS, incoming());
    a.send(&mut gateway, b"one");
    gateway.work(&mut [&mut a, &mut b]);
    assert_eq!(b.take_received(), b"one");

    b.send(&mut gateway, b"the last for the old one");
    gateway.work(&mut [&mut a]);
    gateway.configure_afresh(ACCESS, incoming());
    assert!(a.saw_end(&mut gateway), "the old association is over");
    assert_eq!(a.received, b"the last for the old one");
    assert!(!b.saw_end(&mut gateway), "the other side stays");
    assert!(gateway.causes(ACCESS).is_empty());
    b.send(&mut gateway, b"kept for the new one");
    gateway.work(&mut [&mut b]);
    let access = gateway.ports()[0];
    let mut a = gateway.connect(access, None);
    assert_eq!(gateway.times_bound(ACCESS), 2);
    a.send(&mut gateway, b"two");
    gateway.work(&mut [&mut a, &mut b]);
    assert_eq!(a.received, b"kept for the new one");
    assert_eq!(b.received, b"two");
    gateway.subtract_both();
}

#[test]
fn a_new_association_may_be_faster_than_the_answer_that_asks_for_it() {
    for mut gateway in [Gateway::calm()].into_iter().chain((0..10).map(Gateway::faulty)) {
        let (mut old, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
        let ue = Identity::self_signed().unwrap();
        let fingerprint = gateway.own_fingerprint(ACCESS);
        let handshake = shakes(&ue, TlsRole::Server, &[fingerprint]);
        let access = gateway.ports()[0];
        let mut new = gateway.connect(access, Some(handshake));
        old.send(&mut gateway, b"goodbye, ");
        gateway.work(&mut [&mut old, &mut new, &mut b]);
        assert!(!new.is_secured() && new.failure.is_none());
        let announced = vec![ue.fingerprint()];
        let remote = secured(Establishment::Incoming, TlsRole::Server, announced);
        gateway.configure_afresh(ACCESS, remote);
        gateway.work(&mut [&mut old, &mut new, &mut b]);
        assert!(new.is_secured() && old.saw_end(&mut gateway));
        new.send(&mut gateway, b"hello again");
        gateway.work(&mut [&mut new, &mut b]);
        assert_eq!(b.received, b"goodbye, hello again");
        gateway.subtract_both();
    }
}

#[test]
fn the_peer_may_move_while_it_is_being_connected_to() {
    let mut gateway = Gateway::calm();
    let silent = UE.parse().unwrap();
    gateway.world.shard.driver_mut().answer_connects(silent, ConnectAnswer::Silence);
    gateway.accepts_connections(SERVER);
    gateway.reserve(ACCESS, Bearer::Tcp, Some(outgoing(UE, Establishment::AtOnce)));
    assert!(!gateway.is_bound(ACCESS));
    gateway.configure(ACCESS, outgoing(SERVER, Establishment::AtOnce));
    assert!(gateway.is_bound(ACCESS));
    assert!(gateway.causes(ACCESS).is_empty());
    gateway.world.subtract_all([ACCESS]);
}

#[test]
fn the_node_stops_with_connection_points_in_every_stage() {
    let mut gateway = Gateway::calm();
    gateway.plain_pair();
    gateway.reserve_in(2, ACCESS + 10, Bearer::TlsOverTcp, None);
    gateway.reserve_in(2, CORE + 10, Bearer::Tcp, Some(incoming()));
    gateway.world.commands.push(Command::Stop).unwrap();
    let stopped = (0..200).any(|_| {
        let goes_on = gateway.world.shard.turn().unwrap();
        gateway.world.take_events();
        !goes_on
    });
    assert!(stopped);
    assert_eq!(gateway.world.shard.driver_mut().sockets_open(), 0);
}

#[test]
fn a_node_that_stops_connects_to_nobody_any_more() {
    let mut gateway = Gateway::calm();
    gateway.accepts_connections(SERVER);
    gateway.reserve(CORE, Bearer::Tcp, None);
    let remote = outgoing(SERVER, Establishment::AtOnce);
    let configure =
        ConfigureConnectionPoint { termination: TerminationId(CORE), remote, afresh: false };
    for command in [Command::ConfigureConnectionPoint(Box::new(configure)), Command::Stop] {
        gateway.world.commands.push(command).unwrap();
    }
    let stopped = (0..200).any(|_| {
        let goes_on = gateway.world.shard.turn().unwrap();
        gateway.world.take_events();
        !goes_on
    });
    assert!(stopped);
    assert_eq!(gateway.world.shard.driver_mut().next_connected(), None);
}

#[test]
fn a_host_is_the_same_however_its_address_is_written() {
    for source in [Source::Host("::ffff:192.0.2.77".parse().unwrap()), Source::Address] {
        let mut gateway = Gateway::calm();
        let address = Some("[::ffff:192.0.2.77]:9".parse().unwrap());
        let remote = RemoteConnectionPoint { address, source, ..incoming() };
        let access = gateway.reserve(ACCESS, Bearer::Tcp, Some(remote)).0;
        let peer = "192.0.2.77:4711".parse().unwrap();
        gateway.world.shard.driver_mut().peer_connect_from(access, peer);
        gateway.world.settle();
        assert!(gateway.is_bound(ACCESS));
        gateway.world.subtract_all([ACCESS]);
    }
}

#[test]
fn a_side_that_was_ended_with_the_other_begins_anew_with_it() {
    for establishment in [Establishment::Incoming, Establishment::WhenOtherComesIn] {
        for resets in [true, false] {
            let mut gateway = Gateway::calm();
            gateway.accepts_connections(SERVER);
            let ue = Identity::self_signed().unwrap();
            let is_incoming = establishment == Establishment::Incoming;
            let far = if is_incoming { incoming() } else { outgoing(SERVER, establishment) };
            let core = gateway.reserve(CORE, Bearer::Tcp, Some(far)).0;
            let (access, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
            let fingerprint = fingerprint.unwrap();
            let remote = secured(Establishment::Incoming, TlsRole::Server, vec![ue.fingerprint()]);
            gateway.configure(ACCESS, remote.clone());
            let begin = |gateway: &mut Gateway| {
                let announced = std::slice::from_ref(&fingerprint);
                let handshake = shakes(&ue, TlsRole::Server, announced);
                let a = gateway.connect(access, Some(handshake));
                let b =
                    if is_incoming { gateway.connect(core, None) } else { gateway.answer(None) };
                (a, b)
            };
            let (mut a, b) = begin(&mut gateway);
            if resets {
                gateway.world.shard.driver_mut().peer_reset(a.peer);
            } else {
                a.say_goodbye(&mut gateway);
            }
            gateway.work(&mut [&mut a]);
            assert!(b.saw_end(&mut gateway));
            gateway.configure_afresh(ACCESS, remote);
            let (mut a, mut b) = begin(&mut gateway);
            a.send(&mut gateway, b"back again");
            b.send(&mut gateway, b"so am I");
            gateway.work(&mut [&mut a, &mut b]);
            assert_eq!((&a.received[..], &b.received[..]), (&b"so am I"[..], &b"back again"[..]));
            assert_eq!(gateway.times_bound(CORE), 2);
            gateway.subtract_both();
        }
    }
}

#[test]
fn a_side_that_does_not_come_back_with_the_other_is_reported() {
    let mut gateway = Gateway::calm();
    let (mut a, _) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
    gateway.world.shard.driver_mut().peer_reset(a.peer);
    gateway.work(&mut [&mut a]);
    let ue = Identity::self_signed().unwrap();
    let remote = secured(Establishment::Incoming, TlsRole::Server, vec![ue.fingerprint()]);
    gateway.configure_afresh(ACCESS, remote);
    gateway.world.pass(35);
    assert_eq!(gateway.causes(CORE), [ReleaseCause::TcpEstablishmentFailure]);
    gateway.subtract_both();
}
