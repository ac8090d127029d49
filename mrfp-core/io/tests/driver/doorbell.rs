//! Waking a thread: nothing that was pushed before a ring stays unseen.

use std::os::fd::AsRawFd;
use std::time::Duration;

use mrfp_io::{Completion, Doorbell, Driver, Producer, Ring, doorbell, queue};

use crate::ring::small_config;

const COUNT: usize = 50_000;

/// Pushes and rings, at a pace that meets the other thread awake, asleep and in between.
fn push_all(mut producer: Producer<usize>, bell: &Doorbell) {
    for number in 0..COUNT {
        while producer.push(number).is_err() {
            std::thread::yield_now();
        }
        bell.ring();
        if number % 64 == 0 {
            std::thread::yield_now();
        }
        if number % 4096 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_ring_misses_no_bell() {
    let (bell, receiver) = doorbell().unwrap();
    let (producer, mut consumer) = queue(256);
    let shard = std::thread::spawn(move || {
        let mut ring = Ring::with_doorbell(small_config(), receiver).unwrap();
        let mut next = 0;
        while next < COUNT {
            // No deadline: a lost bell sleeps for ever.
            ring.wait(None).unwrap();
            while let Some(completion) = ring.next_completion() {
                assert!(matches!(completion, Completion::Doorbell));
                while let Some(number) = consumer.pop() {
                    assert_eq!(number, next);
                    next += 1;
                }
            }
        }
    });
    push_all(producer, &bell);
    shard.join().unwrap();
}

#[test]
fn a_descriptor_waiter_misses_no_bell() {
    let (bell, receiver) = doorbell().unwrap();
    let (producer, mut consumer) = queue(256);
    let waiter = std::thread::spawn(move || {
        let mut next = 0;
        while next < COUNT {
            if receiver.arm() {
                assert!(poll(receiver.as_raw_fd(), -1));
            }
            receiver.drain();
            while let Some(number) = consumer.pop() {
                assert_eq!(number, next);
                next += 1;
            }
        }
    });
    push_all(producer, &bell);
    waiter.join().unwrap();
}

#[test]
fn elides_the_system_call_while_the_waiter_is_awake() {
    let (bell, receiver) = doorbell().unwrap();
    bell.ring();
    bell.ring();
    assert!(!poll(receiver.as_raw_fd(), 0));
    assert!(!receiver.arm());
    assert!(receiver.disarm());
    assert!(receiver.arm());
    bell.ring();
    assert!(poll(receiver.as_raw_fd(), 0));
    assert!(receiver.drain());
    assert!(!poll(receiver.as_raw_fd(), 0));
    assert!(!receiver.disarm());
}

#[test]
fn a_bell_before_the_first_wait_is_heard() {
    let (bell, receiver) = doorbell().unwrap();
    bell.ring();
    let mut ring = Ring::with_doorbell(small_config(), receiver).unwrap();
    ring.wait(None).unwrap();
    assert!(matches!(ring.next_completion(), Some(Completion::Doorbell)));
    ring.wait(Some(0)).unwrap();
    assert!(ring.next_completion().is_none());
}

/// Whether the descriptor is readable within the timeout (-1: none).
fn poll(descriptor: i32, timeout_ms: i32) -> bool {
    let mut entry = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry of ours, valid across the call.
    unsafe { libc::poll(&raw mut entry, 1, timeout_ms) == 1 }
}
