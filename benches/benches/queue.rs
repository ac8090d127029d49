//! The queue between two threads: its own cost, and a hand-over from core to core.
#![forbid(unsafe_code)]

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mrfp_io::{doorbell, queue};

/// As large as a command or event of the control plane.
type Item = [u64; 8];

fn one_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    let (mut producer, mut consumer) = queue::<Item>(4096);
    group.bench_function("push and pop", |b| {
        b.iter(|| {
            assert!(producer.push(black_box([7; 8])).is_ok());
            consumer.pop()
        });
    });
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 pushes, then 64 pops", |b| {
        b.iter(|| {
            for number in 0..64 {
                assert!(producer.push(black_box([number; 8])).is_ok());
            }
            while let Some(item) = consumer.pop() {
                black_box(item);
            }
        });
    });
    group.finish();
}

fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue across threads");
    // Throughput: the consumer of another core takes all that comes.
    group.bench_function("hand-over, streaming", |b| {
        b.iter_custom(|count| {
            let (mut producer, mut consumer) = queue::<Item>(4096);
            let taker = thread::spawn(move || {
                let mut taken = 0;
                while taken < count {
                    match consumer.pop() {
                        Some(item) => {
                            assert_eq!(item[0], taken);
                            taken += 1;
                        }
                        None => spin_loop(),
                    }
                }
            });
            let start = Instant::now();
            for number in 0..count {
                while producer.push([number; 8]).is_err() {
                    spin_loop();
                }
            }
            taker.join().expect("all taken");
            start.elapsed()
        });
    });
    // Latency: one item there and one back, each side awake.
    group.bench_function("there and back, both awake", |b| {
        let (mut there, mut there_end) = queue::<Item>(64);
        let (mut back, mut back_end) = queue::<Item>(64);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let echo = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match there_end.pop() {
                    Some(item) => assert!(back.push(item).is_ok()),
                    None => spin_loop(),
                }
            }
        });
        b.iter(|| {
            assert!(there.push([1; 8]).is_ok());
            loop {
                match back_end.pop() {
                    Some(item) => break item,
                    None => spin_loop(),
                }
            }
        });
        stop.store(true, Ordering::Relaxed);
        echo.join().expect("ended");
    });
    group.bench_function("ring a doorbell nobody waits at", |b| {
        let (bell, _receiver) = doorbell().expect("a descriptor");
        b.iter(|| bell.ring());
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = short(); targets = one_thread, two_threads }
criterion_main!(benches);
