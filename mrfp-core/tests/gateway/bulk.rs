//! Bulk between two sides of plain TCP, which passes without being received: nothing is lost, and the ends of
//! the directions are what they are otherwise.

use mrfp_core::mp::ReleaseCause;

use crate::world::{ACCESS, CORE, Gateway};

/// Whatever is sent does not repeat for long.
fn file(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A few of chance; only there does a receive end by itself, so that a wait may follow.
fn gateways() -> impl Iterator<Item = Gateway> {
    (0..40).map(Gateway::faulty)
}

fn spliced(gateway: &mut Gateway) -> u64 {
    gateway.world.measure().gateway_bytes_spliced
}

#[test]
fn a_file_passes_and_a_conversation_goes_on_behind_it() {
    let mut passed = 0;
    for mut gateway in gateways() {
        let (mut a, mut b) = gateway.plain_pair();
        let file = file(400_000);
        a.send(&mut gateway, &file);
        b.send(&mut gateway, &file[1..]);
        gateway.work(&mut [&mut a, &mut b]);
        for text in [&b"first"[..], b"later"] {
            a.send(&mut gateway, text);
            b.send(&mut gateway, text);
            gateway.work(&mut [&mut a, &mut b]);
        }
        assert!(b.take_received() == [&file, &b"firstlater"[..]].concat());
        assert!(a.take_received() == [&file[1..], &b"firstlater"[..]].concat());
        passed += spliced(&mut gateway);
        gateway.subtract_both();
        let statistics = gateway.statistics(ACCESS);
        assert_eq!((statistics.bytes_received, statistics.bytes_sent), (400_010, 400_009));
        let statistics = gateway.statistics(CORE);
        assert_eq!((statistics.bytes_received, statistics.bytes_sent), (400_009, 400_010));
    }
    assert!(passed > 4_000_000, "{passed} bytes were not received");
}

#[test]
fn the_end_of_a_direction_comes_behind_the_file() {
    for mut gateway in gateways() {
        let (mut a, mut b) = gateway.plain_pair();
        let file = file(300_000);
        a.send(&mut gateway, &file);
        gateway.world.shard.driver_mut().peer_shutdown_write(a.peer);
        gateway.work(&mut [&mut a, &mut b]);
        assert!(b.take_received() == file);
        assert!(b.saw_end(&mut gateway) && !a.saw_end(&mut gateway));
        b.send(&mut gateway, &file);
        gateway.world.shard.driver_mut().peer_shutdown_write(b.peer);
        gateway.work(&mut [&mut a, &mut b]);
        assert!(a.take_received() == file);
        assert!(a.saw_end(&mut gateway));
        assert_eq!(gateway.causes(ACCESS), [ReleaseCause::PeerClosed]);
        gateway.subtract_both();
    }
}

#[test]
fn a_slow_side_holds_the_file_back_and_gets_all_of_it() {
    for mut gateway in gateways() {
        let (mut a, mut b) = gateway.plain_pair();
        let file = file(2_000_000);
        a.send(&mut gateway, &file);
        gateway.world.shard.driver_mut().peer_limit_window(b.peer, 200_000);
        gateway.work(&mut [&mut a, &mut b]);
        let metrics = gateway.world.measure();
        assert!(metrics.gateway_bytes_received < 1_700_000, "not all of it is read");
        gateway.world.shard.driver_mut().peer_resume_reading(b.peer);
        gateway.work(&mut [&mut a, &mut b]);
        assert!(b.take_received() == file);
        gateway.subtract_both();
    }
}

#[test]
fn a_reset_or_a_subtraction_in_the_middle_leaves_nothing_behind() {
    for (seed, mut gateway) in (0..).zip(gateways()) {
        let (mut a, mut b) = gateway.plain_pair();
        a.send(&mut gateway, &file(500_000));
        gateway.world.shard.driver_mut().peer_limit_window(b.peer, 100_000);
        for _ in 0..seed {
            gateway.world.shard.turn().unwrap();
        }
        let driver = gateway.world.shard.driver_mut();
        match seed % 3 {
            0 => driver.peer_reset(a.peer),
            1 => driver.peer_reset(b.peer),
            _ => gateway.subtract(ACCESS),
        }
        gateway.work(&mut [&mut a, &mut b]);
        // As long as nothing is read from it, nobody knows that it is gone.
        gateway.world.shard.driver_mut().peer_resume_reading(b.peer);
        gateway.work(&mut [&mut a, &mut b]);
        match seed % 3 {
            0 => assert_eq!(gateway.causes(ACCESS), [ReleaseCause::ConnectionLost]),
            1 => assert_eq!(gateway.causes(CORE), [ReleaseCause::ConnectionLost]),
            _ => assert!(gateway.causes(ACCESS).is_empty()),
        }
        gateway.subtract_both();
    }
}
