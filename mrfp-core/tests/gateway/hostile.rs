//! Peers that break off, keep silent, or come where they are not awaited.

use mrfp_core::Limits;
use mrfp_core::mp::{Command, Establishment, ReleaseCause, TlsRole};
use mrfp_io::Simulator;

use crate::world::{ACCESS, CORE, Gateway};

#[test]
fn a_second_connection_is_not_heard_and_the_first_unharmed() {
    let mut gateway = Gateway::calm();
    let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
    let mut strangers = Vec::new();
    for port in gateway.ports() {
        // A few may be early for a new association; there is none, and no room for more.
        for _ in 0..4 {
            let mut early = gateway.connect(port, None);
            early.send(&mut gateway, b"and now for something else");
            assert!(!early.saw_end(&mut gateway));
            strangers.push(early);
        }
        let one_more = gateway.connect(port, None);
        assert!(one_more.saw_end(&mut gateway));
    }
    assert_eq!(gateway.world.measure().connections_refused, 2);
    a.send(&mut gateway, b"hello");
    b.send(&mut gateway, b"hello");
    gateway.work(&mut [&mut a, &mut b]);
    gateway.world.pass(8);
    for second in &mut strangers {
        second.read(&mut gateway.world);
        assert!(second.received.is_empty() && second.saw_end(&mut gateway));
    }
    assert_eq!((&a.received[..], &b.received[..]), (&b"hello"[..], &b"hello"[..]));
    assert!(gateway.causes(ACCESS).is_empty() && gateway.causes(CORE).is_empty());
    gateway.subtract_both();
}

#[test]
fn a_reset_on_one_side_ends_the_other_at_once() {
    for secured in [false, true] {
        for mut gateway in [Gateway::calm()].into_iter().chain((0..20).map(Gateway::faulty)) {
            let (mut a, mut b) = match secured {
                true => gateway.secured_pair(Establishment::Incoming, TlsRole::Server),
                false => gateway.plain_pair(),
            };
            let wire = a.wire(b"half of a record");
            let driver = gateway.world.shard.driver_mut();
            driver.peer_send(a.peer, &wire[..wire.len() / 2]);
            gateway.world.settle();
            gateway.world.shard.driver_mut().peer_reset(a.peer);
            gateway.work(&mut [&mut b]);
            assert_eq!(gateway.causes(ACCESS), [ReleaseCause::ConnectionLost]);
            assert!(gateway.causes(CORE).is_empty());
            assert!(b.was_reset(&mut gateway), "nobody takes it for the end");
            gateway.subtract_both();
        }
    }
}

#[test]
fn a_peer_that_is_gone_when_there_is_something_for_it_ends_both_sides() {
    let mut gateway = Gateway::calm();
    let (mut a, b) = gateway.plain_pair();
    gateway.world.shard.driver_mut().peer_close(b.peer);
    a.send(&mut gateway, b"too late");
    gateway.work(&mut [&mut a]);
    assert_eq!(gateway.causes(CORE), [ReleaseCause::ConnectionLost]);
    assert!(a.saw_end(&mut gateway));
    gateway.subtract_both();
}

#[test]
fn silent_connections_are_released_in_the_end() {
    let limits = Limits { idle_timeout_ns: 20_000_000_000, ..Limits::default() };
    let mut gateway = Gateway::new(Simulator::without_faults(), limits);
    let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Client);
    // Whoever only listens is not silent.
    for _ in 0..4 {
        gateway.world.pass(10);
        a.send(&mut gateway, b"still here");
        gateway.work(&mut [&mut a, &mut b]);
    }
    assert!(gateway.causes(ACCESS).is_empty() && gateway.causes(CORE).is_empty());
    gateway.world.pass(25);
    gateway.work(&mut [&mut a, &mut b]);
    let causes = [gateway.causes(ACCESS), gateway.causes(CORE)].concat();
    assert!(causes.contains(&ReleaseCause::Idle), "{causes:?}");
    assert!(a.saw_end(&mut gateway) && b.saw_end(&mut gateway));
    gateway.subtract_both();
}

#[test]
fn what_is_on_its_way_arrives_although_the_taker_goes_on_talking() {
    for mut gateway in [Gateway::calm()].into_iter().chain((0..10).map(Gateway::faulty)) {
        let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
        a.send(&mut gateway, b"the last of it");
        a.say_goodbye(&mut gateway);
        for _ in 0..40 {
            // What meets a closed socket becomes a reset.
            b.send(&mut gateway, b"still talking");
            gateway.world.shard.turn().unwrap();
        }
        gateway.work(&mut [&mut a, &mut b]);
        assert_eq!(b.received, b"the last of it");
        assert!(b.saw_end(&mut gateway) && !b.was_reset(&mut gateway));
        let open = gateway.world.shard.driver_mut().sockets_open();
        gateway.world.shard.driver_mut().peer_shutdown_write(b.peer);
        gateway.work(&mut [&mut a, &mut b]);
        assert_eq!(gateway.world.shard.driver_mut().sockets_open(), open - 1);
        assert!(!b.was_reset(&mut gateway));
        gateway.subtract_both();
    }
}

#[test]
fn a_taker_that_never_ends_is_not_waited_for_for_ever() {
    let mut gateway = Gateway::calm();
    let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
    a.say_goodbye(&mut gateway);
    gateway.work(&mut [&mut a, &mut b]);
    assert!(b.saw_end(&mut gateway));
    let open = gateway.world.shard.driver_mut().sockets_open();
    gateway.world.pass(65);
    assert_eq!(gateway.world.shard.driver_mut().sockets_open(), open - 1);
    assert!(!b.was_reset(&mut gateway), "it has got everything");
    gateway.subtract_both();
}

#[test]
fn a_node_that_stops_waits_for_nobody_to_end() {
    let mut gateway = Gateway::calm();
    let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
    a.say_goodbye(&mut gateway);
    gateway.work(&mut [&mut a, &mut b]);
    gateway.world.commands.push(Command::Stop).unwrap();
    let stopped = (0..100).any(|_| {
        let goes_on = gateway.world.shard.turn().unwrap();
        gateway.world.take_events();
        !goes_on
    });
    assert!(stopped);
}

#[test]
fn half_a_record_holds_a_buffer_no_longer_than_its_connection() {
    let mut gateway = Gateway::calm();
    let (mut a, b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
    let wire = a.wire(&[1; 5_000]);
    gateway.world.shard.driver_mut().peer_send(a.peer, &wire[..2_000]);
    assert_eq!(gateway.world.measure().carry_buffers_outstanding, 1);
    gateway.world.shard.driver_mut().peer_shutdown_write(b.peer);
    gateway.world.settle();
    assert_eq!(gateway.world.measure().carry_buffers_outstanding, 0);
    gateway.subtract_both();
}

#[test]
fn chance_finds_no_way_to_lose_or_to_keep_anything() {
    for seed in 0..60 {
        let mut gateway = Gateway::faulty(seed);
        let role = if seed % 2 == 0 { TlsRole::Server } else { TlsRole::Client };
        let (mut a, mut b) = match seed % 3 {
            0 => gateway.plain_pair(),
            _ => gateway.secured_pair(Establishment::Incoming, role),
        };
        let text = |from: u64, round: u64| {
            let length = 1 + (seed * 7919 + round * 104_729 + from * 31) % 40_000;
            (0..length).map(|it| (it * (round + 3) + from) as u8).collect::<Vec<u8>>()
        };
        let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
        for round in 0..10 {
            let (from_a, from_b) = (text(1, round), text(2, round));
            a.send(&mut gateway, &from_a);
            b.send(&mut gateway, &from_b);
            to_b.extend(from_a);
            to_a.extend(from_b);
            if round % 3 == 0 {
                gateway.world.shard.turn().unwrap();
            } else {
                gateway.work(&mut [&mut a, &mut b]);
            }
        }
        if seed % 4 == 0 {
            gateway.world.shard.driver_mut().peer_shutdown_write(b.peer);
        }
        gateway.work(&mut [&mut a, &mut b]);
        assert!(a.received == to_a, "{seed}");
        // Whoever ends a stream of TLS hears no more.
        assert!(to_b.starts_with(&b.received), "{seed}");
        assert!(b.received.len() == to_b.len() || (seed % 4 == 0 && seed % 3 != 0), "{seed}");
        gateway.subtract_both();
    }
}
