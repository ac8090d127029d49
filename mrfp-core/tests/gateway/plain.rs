//! Plain TCP on both sides: bytes pass as they are, and so do the ends of the directions.

use mrfp_core::mp::{Bearer, Establishment, ReleaseCause};

use crate::world::{ACCESS, CORE, Gateway, SERVER, incoming, outgoing};

#[test]
fn passes_bytes_in_both_directions() {
    for mut gateway in [Gateway::calm()].into_iter().chain((0..20).map(Gateway::faulty)) {
        let (mut a, mut b) = gateway.plain_pair();
        a.send(&mut gateway, b"from the access side");
        b.send(&mut gateway, b"from the core");
        gateway.work(&mut [&mut a, &mut b]);
        assert_eq!(a.received, b"from the core");
        assert_eq!(b.received, b"from the access side");
        gateway.subtract_both();
        let statistics = gateway.statistics(ACCESS);
        assert_eq!((statistics.bytes_received, statistics.bytes_sent), (20, 13));
        let statistics = gateway.statistics(CORE);
        assert_eq!((statistics.bytes_received, statistics.bytes_sent), (13, 20));
    }
}

#[test]
fn what_comes_before_the_other_side_is_up_is_not_lost() {
    for mut gateway in [Gateway::calm()].into_iter().chain((0..20).map(Gateway::faulty)) {
        let access = gateway.reserve(ACCESS, Bearer::Tcp, Some(incoming())).0;
        let mut a = gateway.connect(access, None);
        let long = vec![7; 300_000];
        a.send(&mut gateway, &long);
        gateway.work(&mut [&mut a]);
        assert_eq!(gateway.world.measure().bytes_received, 0, "TCP holds it");
        let core = gateway.reserve(CORE, Bearer::Tcp, Some(incoming())).0;
        let mut b = gateway.connect(core, None);
        gateway.work(&mut [&mut a, &mut b]);
        assert!(b.received == long);
        gateway.subtract_both();
    }
}

#[test]
fn connects_only_when_it_is_told_to() {
    let mut gateway = Gateway::calm();
    gateway.accepts_connections(SERVER);
    let access = gateway.reserve(ACCESS, Bearer::Tcp, Some(incoming())).0;
    let triggered = outgoing(SERVER, Establishment::WhenOtherComesIn);
    gateway.reserve(CORE, Bearer::Tcp, Some(triggered));
    gateway.world.pass(2);
    assert_eq!(gateway.world.shard.driver_mut().next_connected(), None);
    let mut a = gateway.connect(access, None);
    let mut b = gateway.answer(None);
    a.send(&mut gateway, b"hello");
    gateway.work(&mut [&mut a, &mut b]);
    assert_eq!(b.received, b"hello");
    gateway.subtract_both();
}

#[test]
fn a_direction_that_ends_leaves_the_other_open() {
    for mut gateway in [Gateway::calm()].into_iter().chain((0..20).map(Gateway::faulty)) {
        let (mut a, mut b) = gateway.plain_pair();
        a.send(&mut gateway, b"the last of it");
        gateway.world.shard.driver_mut().peer_shutdown_write(a.peer);
        gateway.work(&mut [&mut a, &mut b]);
        assert_eq!(b.received, b"the last of it");
        assert!(b.saw_end(&mut gateway));
        assert!(!a.saw_end(&mut gateway));
        b.send(&mut gateway, b"an answer");
        gateway.work(&mut [&mut a, &mut b]);
        assert_eq!(a.received, b"an answer");
        assert!(gateway.causes(ACCESS).is_empty() && gateway.causes(CORE).is_empty());
        gateway.world.shard.driver_mut().peer_shutdown_write(b.peer);
        gateway.work(&mut [&mut a, &mut b]);
        assert!(a.saw_end(&mut gateway));
        for side in [ACCESS, CORE] {
            assert_eq!(gateway.causes(side), [ReleaseCause::PeerClosed]);
        }
        assert!(!a.was_reset(&mut gateway) && !b.was_reset(&mut gateway));
        gateway.subtract_both();
    }
}
