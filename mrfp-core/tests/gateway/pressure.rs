//! One side that is slower than the other: it sets the pace, and costs no more than its limit.

use mrfp_core::Limits;
use mrfp_core::mp::{Establishment, ReleaseCause, TlsRole};
use mrfp_io::Simulator;

use crate::world::{ACCESS, CORE, Gateway};

/// Queued for one side before the other is read from no more.
const EGRESS_BYTES_MAX: usize = 64 * 1024;

fn gateway() -> Gateway {
    let limits = Limits { egress_bytes_max: EGRESS_BYTES_MAX, ..Limits::default() };
    Gateway::new(Simulator::without_faults(), limits)
}

#[test]
fn a_slow_side_holds_the_other_back_and_gets_everything_in_the_end() {
    for slow_is_secured in [false, true] {
        let mut gateway = gateway();
        let (a, b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
        let (mut fast, mut slow) = if slow_is_secured { (b, a) } else { (a, b) };
        gateway.world.shard.driver_mut().peer_stop_reading(slow.peer);
        let long: Vec<u8> = (0..8_000_000u32).map(|it| (it % 253) as u8).collect();
        fast.send(&mut gateway, &long);
        gateway.world.pass(2);
        let metrics = gateway.world.measure();
        assert!(metrics.recv_paused > 0);
        // The limit, and what one turn brings: receive buffers of 8 KiB.
        let queued_bytes = metrics.send_buffers_outstanding as usize * 16 * 1024;
        assert!(queued_bytes < EGRESS_BYTES_MAX + 2 * 64 * 8 * 1024, "{queued_bytes}");
        // The other direction is not concerned.
        slow.send(&mut gateway, b"I am slow");
        gateway.work(&mut [&mut fast]);
        assert_eq!(fast.received, b"I am slow");
        for _ in 0..200 {
            gateway.world.shard.driver_mut().peer_limit_window(slow.peer, 100_000);
            gateway.work(&mut [&mut slow]);
        }
        assert!(slow.received == long);
        assert!(gateway.causes(ACCESS).is_empty() && gateway.causes(CORE).is_empty());
        gateway.subtract_both();
    }
}

#[test]
fn what_is_queued_for_a_slow_side_outlives_the_one_who_sent_it() {
    let mut gateway = gateway();
    let (mut a, mut b) = gateway.secured_pair(Establishment::Incoming, TlsRole::Server);
    gateway.world.shard.driver_mut().peer_stop_reading(b.peer);
    let text = vec![5; 40_000];
    a.send(&mut gateway, &text);
    a.say_goodbye(&mut gateway);
    gateway.world.pass(20);
    assert!(!b.saw_end(&mut gateway));
    gateway.world.shard.driver_mut().peer_resume_reading(b.peer);
    gateway.work(&mut [&mut b]);
    assert!(b.received == text);
    assert!(b.saw_end(&mut gateway));
    gateway.subtract_both();
}

#[test]
fn a_side_that_takes_nothing_ends_the_pair() {
    let mut gateway = gateway();
    let (mut a, b) = gateway.plain_pair();
    gateway.world.shard.driver_mut().peer_stop_reading(b.peer);
    a.send(&mut gateway, &[5; 400_000]);
    gateway.world.pass(50);
    assert!(gateway.causes(CORE).is_empty());
    gateway.world.pass(15);
    assert_eq!(gateway.causes(CORE), [ReleaseCause::TooSlow]);
    assert!(a.saw_end(&mut gateway));
    gateway.subtract_both();
}

#[test]
fn buffers_that_run_out_end_a_stream_rather_than_put_a_hole_into_it() {
    let limits =
        Limits { send_buffers_small_max: 4, send_buffers_large_max: 4, ..Limits::default() };
    let mut gateway = Gateway::new(Simulator::without_faults(), limits);
    let (mut a, mut b) = gateway.plain_pair();
    gateway.world.shard.driver_mut().peer_stop_reading(b.peer);
    let long: Vec<u8> = (0..1_000_000u32).map(|it| (it % 249) as u8).collect();
    a.send(&mut gateway, &long);
    gateway.world.pass(3);
    gateway.world.shard.driver_mut().peer_resume_reading(b.peer);
    gateway.work(&mut [&mut a, &mut b]);
    assert!(long.starts_with(&b.received));
    assert_eq!(gateway.causes(CORE), [ReleaseCause::TooSlow]);
    gateway.subtract_both();
}
