//! A large message makes room for the others: on the connection of a receiver, on the shard.

mod common;

use common::{Ue, World, key};
use mrfp_core::Limits;
use mrfp_io::{Simulator, SimulatorConfig};

/// What of large messages may lie ahead of a new one on a connection, beside what the kernel has.
const AHEAD_BYTES_MAX: usize = 192 * 1024;

fn file(seed: u32, bytes: u32) -> Vec<u8> {
    (0..bytes).map(|i| (i.wrapping_mul(7).wrapping_add(seed * 31) >> 3) as u8).collect()
}

#[test]
fn a_new_message_overtakes_what_is_queued_of_a_large_one() {
    for protect in [false, true] {
        let psk = key(3);
        let mut world = World::calm();
        let mut alice = world.member(1, 1, None);
        let mut bob = world.member(1, 2, None);
        let mut carol = world.member(1, 3, protect.then_some(&psk));
        let body = file(1, 3_000_000);
        let message = alice.chunk("file0001", "file", "1-*/3000000", &body, '$');
        world.shard.driver_mut().peer_stop_reading(carol.peer);
        alice.send_raw(&mut world, &message);
        world.settle();
        let chat = bob.send("tran0001", "chat1", b"let me through");
        bob.send_raw(&mut world, &chat);
        world.settle();
        world.shard.driver_mut().peer_limit_window(carol.peer, AHEAD_BYTES_MAX);
        world.settle();
        carol.read(&mut world);
        let heard = carol.received.iter().any(|message| message.body == b"let me through");
        assert!(heard, "more than {AHEAD_BYTES_MAX} bytes lie ahead of it");
        world.shard.driver_mut().peer_resume_reading(carol.peer);
        world.settle();
        for ue in [&mut alice, &mut bob, &mut carol] {
            ue.read(&mut world);
        }
        assert_eq!(carol.bodies(), [b"let me through".to_vec(), body.clone()]);
        assert_eq!(bob.bodies(), [body]);
        assert_eq!(alice.take_statuses(), [200]);
        assert_eq!(bob.take_statuses(), [200]);
        world.subtract_all([1, 2, 3]);
    }
}

#[test]
fn what_is_overtaken_has_not_left_and_its_time_has_not_begun() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let body = file(1, 200_000);
    let message = alice.chunk("file0001", "file", "1-*/200000", &body, '$');
    world.shard.driver_mut().peer_stop_reading(bob.peer);
    alice.send_raw(&mut world, &message);
    world.settle();
    for n in 0..120 {
        let chat = alice.send(&format!("tran{n:04}"), &format!("chat{n}"), &[b'x'; 1000]);
        alice.send_raw(&mut world, &chat);
    }
    world.settle();
    // The first chunk of the file leaves, all that overtakes the others, and a little of those.
    world.shard.driver_mut().peer_limit_window(bob.peer, 300_000);
    world.settle();
    bob.read(&mut world);
    assert_eq!(bob.bodies(), vec![vec![b'x'; 1000]; 120]);
    bob.answer(&mut world, 200);
    world.pass(40);
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty(), "the file still waits for its turn");
    world.shard.driver_mut().peer_resume_reading(bob.peer);
    world.settle();
    bob.read(&mut world);
    bob.answer(&mut world, 200);
    assert!(bob.bodies().contains(&body));
    world.pass(40);
    alice.read(&mut world);
    assert!(alice.take_reports().is_empty());
    world.subtract_all([1, 2]);
}

#[test]
fn responses_and_reports_overtake_it_too() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut carol = world.member(1, 2, None);
    let body = file(1, 3_000_000);
    let message = alice.chunk("file0001", "file", "1-*/3000000", &body, '$');
    world.shard.driver_mut().peer_stop_reading(carol.peer);
    alice.send_raw(&mut world, &message);
    world.settle();
    let request = carol.empty_send("alive001");
    carol.send_raw(&mut world, &request);
    world.settle();
    world.shard.driver_mut().peer_limit_window(carol.peer, AHEAD_BYTES_MAX);
    world.settle();
    carol.read(&mut world);
    assert_eq!(carol.take_statuses(), [200]);
    world.shard.driver_mut().peer_resume_reading(carol.peer);
    world.settle();
    carol.read(&mut world);
    assert_eq!(carol.bodies(), [body]);
    world.subtract_all([1, 2]);
}

#[test]
fn messages_of_one_sender_that_are_not_large_keep_their_order() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let mut carol = world.member(1, 3, None);
    let body = file(1, 3_000_000);
    let message = bob.chunk("file0001", "file", "1-*/3000000", &body, '$');
    world.shard.driver_mut().peer_stop_reading(carol.peer);
    bob.send_raw(&mut world, &message);
    world.settle();
    for n in 0..20u32 {
        let text = file(n, [30, 20_000, 3_000][n as usize % 3]);
        let length = text.len();
        let range = format!("1-*/{length}");
        let chat = alice.chunk(&format!("tran{n:04}"), &format!("chat{n}"), &range, &text, '$');
        // In two parts, so that a chunk is open in between.
        let (first, second) = chat.split_at(chat.len() - 20);
        alice.send_raw(&mut world, first);
        world.settle();
        alice.send_raw(&mut world, second);
        world.settle();
    }
    world.shard.driver_mut().peer_resume_reading(carol.peer);
    world.settle();
    carol.read(&mut world);
    let bodies = carol.bodies();
    let expected = (0..20u32).map(|n| file(n, [30, 20_000, 3_000][n as usize % 3]));
    assert_eq!(bodies[..20], expected.collect::<Vec<_>>());
    assert_eq!(bodies[20], body);
    world.subtract_all([1, 2, 3]);
}

#[test]
fn a_large_message_is_not_starved_by_small_ones() {
    let limits = Limits { egress_bytes_max: 1 << 24, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let mut carol = world.member(1, 3, None);
    let body = file(1, 1_000_000);
    let message = alice.chunk("file0001", "file", "1-*/1000000", &body, '$');
    world.shard.driver_mut().peer_stop_reading(carol.peer);
    alice.send_raw(&mut world, &message);
    world.settle();
    for n in 0..4_000 {
        let chat = bob.send(&format!("tran{n}"), &format!("chat{n}"), &[b'x'; 1_800]);
        bob.send_raw(&mut world, &chat);
    }
    world.settle();
    // Half of what is queued is let through.
    world.shard.driver_mut().peer_limit_window(carol.peer, 4_000_000);
    world.settle();
    carol.read(&mut world);
    let large: usize = carol
        .received
        .iter()
        .filter(|message| message.body.len() > 1_800)
        .map(|message| message.body.len())
        .sum();
    assert!(large > 400_000, "{large} bytes of the large one");
    world.shard.driver_mut().peer_resume_reading(carol.peer);
    world.settle();
    carol.read(&mut world);
    for _ in 0..4 {
        carol.answer(&mut world, 200);
        carol.read(&mut world);
    }
    assert_eq!(carol.bodies().len(), 4_001);
    assert!(carol.bodies().contains(&body));
    world.subtract_all([1, 2, 3]);
}

#[test]
fn large_and_small_messages_arrive_whole_over_a_network_full_of_faults() {
    for seed in 0..30 {
        let protect = seed % 2 == 1;
        let keys = [key(1), key(2), key(3)];
        let config = SimulatorConfig { recv_buffer_count: 8, ..SimulatorConfig::default() };
        let limits = Limits { egress_bytes_max: 200_000, ..Limits::default() };
        let mut world = World::new(Simulator::with_config(seed, config), limits);
        let mut ues: Vec<Ue> =
            (0..3u64).map(|n| world.member(1, n + 1, protect.then(|| &keys[n as usize]))).collect();
        let sizes = [400_000, 300, 9_000, 90_000, 40, 150_000];
        for round in 0..6usize {
            for (index, ue) in ues.iter_mut().enumerate() {
                let size = sizes[(round + index) % sizes.len()];
                let body = file((round * 3 + index) as u32, size);
                let (id, range) = (format!("m{round}"), format!("1-*/{size}"));
                let message = ue.chunk(&format!("t{index}r{round}"), &id, &range, &body, '$');
                ue.send_raw(&mut world, &message);
            }
            if round % 2 == 1 {
                world.settle();
            }
        }
        world.settle();
        for turn in 0..30 {
            let ue = &mut ues[turn % 3];
            ue.read(&mut world);
            ue.answer(&mut world, 200);
        }
        for (index, ue) in ues.iter_mut().enumerate() {
            assert_eq!(ue.take_statuses(), [200; 6], "seed {seed}");
            let mut bodies = ue.bodies();
            bodies.sort();
            let mut expected: Vec<Vec<u8>> = (0..6usize)
                .flat_map(|round| (0..3usize).map(move |other| (round, other)))
                .filter(|&(_, other)| other != index)
                .map(|(round, other)| {
                    file((round * 3 + other) as u32, sizes[(round + other) % sizes.len()])
                })
                .collect();
            expected.sort();
            assert_eq!(bodies.len(), expected.len(), "seed {seed}");
            assert!(bodies == expected, "seed {seed}");
        }
        world.subtract_all([1, 2, 3]);
    }
}

#[test]
fn a_thousand_connections_that_speak_at_the_same_time_are_all_served() {
    let mut world = World::calm();
    let address = world.shard.address();
    let psk = key(1);
    let reserve = |world: &mut World, n: u64| {
        world.reserve(1 + n / 2, 1 + n, (n % 4 < 2).then_some(&psk));
    };
    (0..1_000).for_each(|n| reserve(&mut world, n));
    let mut ues: Vec<Ue> = Vec::new();
    for n in 0..1_000u64 {
        let credentials = (n % 4 < 2).then(|| (common::identity(1 + n), &psk));
        ues.push(world.connect_only(1 + n, address, credentials));
    }
    // Everybody's first bytes are there before the shard looks.
    for _ in 0..8 {
        for ue in &mut ues {
            ue.read(&mut world);
        }
        world.settle();
    }
    for (n, ue) in ues.iter_mut().enumerate() {
        assert!(n % 4 >= 2 || ue.is_secured(), "{n}");
        let bind = ue.empty_send(&format!("bind{n:04}"));
        let first = ue.send(&format!("tran{n:04}"), "message1", b"first words");
        ue.send_raw(&mut world, &bind);
        ue.send_raw(&mut world, &first);
    }
    world.settle();
    let mut answered = 0;
    for ue in &mut ues {
        ue.read(&mut world);
        let statuses = ue.take_statuses();
        assert_eq!(statuses.len(), 2);
        assert_eq!(statuses[0], 200);
        answered += usize::from(statuses[1] == 200);
        assert!(!world.shard.driver_mut().peer_saw_end(ue.peer));
    }
    // Whoever is first of the two finds nobody there, and is told so.
    assert!(answered >= 500, "{answered}");
    assert_eq!(world.measure().connections_refused, 0);
    world.subtract_all(1..=1_000);
}

/// Counters are published with the timers.
fn copies_after_a_turn(world: &mut World) -> u64 {
    world.shard.driver_mut().advance_ns(50_000_000);
    world.shard.turn().unwrap();
    world.metrics.read().messages_sent
}

#[test]
fn a_turn_makes_a_bounded_number_of_copies() {
    let mut world = World::calm();
    let mut others: Vec<Ue> = (1..=101).map(|n| world.member(1, n, None)).collect();
    // Twenty of them talk at once.
    for ue in &mut others[..20] {
        let flood: Vec<u8> = (0..100)
            .flat_map(|n| ue.send(&format!("tran{n}"), &format!("flood{n}"), b"to everybody"))
            .collect();
        ue.send_raw(&mut world, &flood);
    }
    let mut copies = copies_after_a_turn(&mut world);
    let (before, mut turns) = (copies, 0);
    while copies - before < 20 * 100 * 100 {
        let now = copies_after_a_turn(&mut world);
        // What one receive delivers is finished, beyond that nothing is begun.
        assert!(now - copies <= 16_384 + 50 * 100, "{} copies in one turn", now - copies);
        copies = now;
        turns += 1;
        assert!(turns < 1_000);
    }
    world.settle();
    for ue in &mut others[20..] {
        ue.read(&mut world);
        assert_eq!(ue.messages().len(), 2_000);
    }
    world.subtract_all(1..=101);
}
