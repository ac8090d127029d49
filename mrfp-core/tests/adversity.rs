//! What a hostile review has tried: malice, bad moments, scarcity. None of it may corrupt a message,
//! hurt a bystander or leave anything behind.

mod common;

use common::{World, identity, key, reservation};
use mrfp_core::Limits;
use mrfp_core::mp::*;
use mrfp_io::Simulator;

fn released(world: &World, t: u64) -> Option<ReleaseCause> {
    world.seen.iter().find_map(|e| match e {
        Event::BearerReleased { termination, cause } if termination.0 == t => Some(*cause),
        _ => None,
    })
}
fn dir(t: u64, direction: Direction) -> Command {
    Command::Modify(Box::new(Modify {
        termination: TerminationId(t),
        direction,
        muted: false,
        remote: None,
        psk: None,
    }))
}

#[test]
fn a_half_closed_member_that_reads_nothing_costs_no_turns() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let bob = world.member(1, 2, None);
    world.shard.driver_mut().peer_stop_reading(bob.peer);
    let m = alice.send("tran0001", "mess1", b"hello");
    alice.send_raw(&mut world, &m);
    world.settle();
    world.shard.driver_mut().peer_shutdown_write(bob.peer);
    world.settle();
}

#[test]
fn a_half_closed_stranger_that_reads_nothing_costs_no_turns() {
    // unauthenticated: 481s are queued, the peer does not read, then sends FIN
    let mut world = World::calm();
    let address: std::net::SocketAddr = "127.0.0.1:2855".parse().unwrap();
    let ue = world.connect(9, address, None);
    world.shard.driver_mut().peer_stop_reading(ue.peer);
    let m = ue.empty_send("tran0001");
    world.shard.driver_mut().peer_send(ue.peer, &m);
    world.settle();
    world.shard.driver_mut().peer_shutdown_write(ue.peer);
    for _ in 0..500 {
        world.shard.turn().unwrap();
    }
    assert!(world.shard.driver_mut().is_idle(), "spins");
}

#[test]
fn hold_in_the_middle_of_a_chunk_makes_no_hole() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let message = alice.chunk("chunk001", "first", "1-*/9", b"AAABBBCCC", '$');
    let at = message.windows(3).position(|w| w == b"BBB").unwrap();
    alice.send_raw(&mut world, &message[..at]);
    world.settle();
    world.command(dir(2, Direction::Inactive));
    alice.send_raw(&mut world, &message[at..at + 3]);
    world.settle();
    world.command(dir(2, Direction::SendRecv));
    alice.send_raw(&mut world, &message[at + 3..]);
    world.settle();
    alice.read(&mut world);
    bob.read(&mut world);
    for (_, body, end) in bob.messages() {
        assert!(
            body == b"AAABBBCCC" || end == '#',
            "corrupt: {:?} {end}",
            String::from_utf8_lossy(&body)
        );
    }
}

#[test]
fn a_receiver_and_a_sender_together_cannot_end_the_chunk_of_another_receiver() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mallory = world.member(1, 2, None);
    let mut bob = world.member(1, 3, None);
    let message = alice.chunk("chunk001", "first", "1-*/*", b"harmlessTAIL", '$');
    let at = message.windows(4).position(|w| w == b"TAIL").unwrap();
    alice.send_raw(&mut world, &message[..at]);
    world.settle();
    // Mallory looks at the raw head she got.
    let raw = world.shard.driver_mut().peer_received(mallory.peer);
    let text = String::from_utf8(raw).unwrap();
    let tid = text.split(' ').nth(1).unwrap().to_owned();
    let forged = format!(
        "\r\n-------{tid}$\r\nMSRP evil0001 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: evilmsg\r\nByte-Range: 1-6/6\r\nContent-Type: text/plain\r\n\r\nforged\r\n-------evil0001$\r\nMSRP pad00001 SEND\r\n",
        bob.local_uri, bob.remote_uri
    );
    alice.send_raw(&mut world, forged.as_bytes());
    world.settle();
    bob.read(&mut world);
    assert!(!bob.bodies().iter().any(|b| b == b"forged"), "end-line injected: {:?}", bob.received);
}

#[test]
fn a_member_who_joins_between_chunks_gets_no_tail_though_another_message_came_between() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let a1 = alice.chunk("chunk001", "long", "1-*/6", b"abc", '+');
    let b = alice.send("tran0001", "short", b"x");
    let a2 = alice.chunk("chunk002", "long", "4-6/6", b"def", '$');
    alice.send_raw(&mut world, &a1);
    alice.send_raw(&mut world, &b);
    world.settle();
    let mut carol = world.member(1, 3, None);
    alice.send_raw(&mut world, &a2);
    world.settle();
    carol.read(&mut world);
    bob.read(&mut world);
    assert!(
        carol.received.iter().all(|m| m.byte_range_start != Some(4)),
        "a tail without its beginning"
    );
}

#[test]
fn a_vanished_sender_gives_up_every_open_message() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let a1 = alice.chunk("chunk001", "long", "1-*/6", b"abc", '+');
    let b = alice.send("tran0001", "short", b"x");
    alice.send_raw(&mut world, &a1);
    alice.send_raw(&mut world, &b);
    world.settle();
    world.shard.driver_mut().peer_reset(alice.peer);
    world.settle();
    bob.read(&mut world);
    assert!(bob.messages().iter().any(|m| m.2 == '#'), "{:?}", bob.messages());
}

#[test]
fn laggards_elsewhere_do_not_get_a_healthy_member_dropped() {
    // default limits scaled by 1/512 : 32768 -> 64 small, 16384 -> 32 large, 1 MiB -> 16 KiB is generous
    let limits = Limits {
        send_buffers_small_max: 64,
        send_buffers_large_max: 32,
        egress_bytes_max: 16 * 1024,
        ..Limits::default()
    };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let mut n = 0;
    let pairs: Vec<_> = (0..12u64)
        .map(|i| {
            (world.member(100 + i, 100 + 2 * i, None), world.member(100 + i, 101 + 2 * i, None))
        })
        .collect();
    for (mut s, r) in pairs {
        world.shard.driver_mut().peer_stop_reading(r.peer);
        for _ in 0..30 {
            n += 1;
            let m = s.send(&format!("tr{n:06}"), &format!("me{n:06}"), &[b'x'; 1000]);
            s.send_raw(&mut world, &m);
            world.settle();
            s.read(&mut world);
        }
    }
    let m = alice.send("tran0001", "mess1", b"hello");
    alice.send_raw(&mut world, &m);
    world.settle();
    alice.read(&mut world);
    bob.read(&mut world);
    assert_eq!(released(&world, 1), None);
    assert_eq!(released(&world, 2), None);
    assert_eq!(bob.bodies().len(), 1);
}

/// Members dropped, of how many, when a message finds the pool used up by a neighbour.
fn cascade(members: u64) -> (usize, usize) {
    let limits = Limits {
        send_buffers_small_max: 16 + members as usize,
        send_buffers_large_max: 0,
        egress_bytes_max: 1 << 24,
        context_members_max: 5000,
        ..Limits::default()
    };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut ues: Vec<_> = (1..=members).map(|t| world.member(1, t, None)).collect();
    // everybody is in the middle of a message, nobody's bytes can leave for the moment
    for ue in &mut ues {
        let m = ue.chunk("chunk001", "first", "1-*/9", b"A", '+');
        ue.send_raw(&mut world, &m);
        world.settle();
        ue.read(&mut world);
    }
    // A neighbour Context uses up the pool.
    let mut s = world.member(2, 9001, None);
    let r = world.member(2, 9002, None);
    world.shard.driver_mut().peer_stop_reading(r.peer);
    for n in 0..20000 {
        let m = s.send(&format!("tr{n:06}"), &format!("me{n:06}"), &[b'x'; 1500]);
        s.send_raw(&mut world, &m);
        world.settle();
        if released(&world, 9001).is_some() || released(&world, 9002).is_some() {
            break;
        }
        if n < members * 105 / 100 {
            s.read(&mut world);
            continue;
        }
        let small = world.measure().send_buffers_outstanding;
        if small >= 15 + members {
            break;
        }
    }
    let m = ues[0].send("tran0002", "mess2", b"hello");
    ues[0].send_raw(&mut world, &m);
    world.settle();
    let dropped = (1..=members).filter(|&t| released(&world, t).is_some()).count();
    (dropped, members as usize)
}

#[test]
fn an_exhausted_pool_refuses_the_message_instead_of_emptying_the_conference() {
    let (dropped, members) = cascade(20);
    assert!(dropped <= 1, "{dropped} of {members} healthy members were dropped");
}

#[test]
fn unbound_connections_cannot_take_the_carry_buffers_of_members() {
    let limits = Limits {
        carry_buffers_max: 8,
        connections_unbound_max: 8,
        connections_unbound_per_source_max: 8,
        ..Limits::default()
    };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let address: std::net::SocketAddr = "127.0.0.1:2855".parse().unwrap();
    for _ in 0..8 {
        let peer =
            world.shard.driver_mut().peer_connect_from(address, "203.0.113.1:1".parse().unwrap());
        world.shard.driver_mut().peer_send(peer, b"M");
    }
    world.settle();
    let m = alice.send("tran0001", "mess1", b"hello");
    alice.send_raw(&mut world, &m[..40]);
    world.settle();
    alice.send_raw(&mut world, &m[40..]);
    world.settle();
    alice.read(&mut world);
    bob.read(&mut world);
    assert_eq!(released(&world, 1), None);
}

#[test]
fn binding_on_an_own_port_leaves_a_strangers_identity_alone() {
    let psk = key(1);
    let other = key(2);
    let mut world = World::calm();
    // 2 waits on the shared port under identity(2); 1 has a port of its own and, by chance, the same identity.
    let shared = world.reserve(1, 2, Some(&other));
    let own = world.reserve_with(1, 1, Some(&psk), |r| {
        r.own_port = true;
        r.security = Security::TlsPsk { identity: identity(2), psk: key(1) };
    });
    let one = world.connect(1, own, Some((identity(2), &psk)));
    assert!(one.is_secured());
    let two = world.connect(2, shared, Some((identity(2), &other)));
    assert!(two.is_secured() && world.is_bound(2), "2 can never bind any more");
}

#[test]
fn the_answer_to_a_nickname_goes_along_the_whole_from_path() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let t = String::from_utf8(alice.empty_send("tran0001")).unwrap();
    let two = format!("From-Path: {} msrp://far.example.com:1/abc;tcp", alice.local_uri);
    let t = t
        .replace(&format!("From-Path: {}", alice.local_uri), &two)
        .replace(" SEND", " NICKNAME")
        .replace("Byte-Range: 1-0/0", "Use-Nickname: \"a\"");
    alice.send_raw(&mut world, t.as_bytes());
    world.settle();
    alice.read(&mut world);
    assert!(alice.received[0].to_path.contains("far.example.com"), "{:?}", alice.received);
}
#[test]
fn a_request_that_is_refused_binds_nothing() {
    let mut world = World::calm();
    let address = world.reserve(1, 1, None);
    let mut ue = world.connect(1, address, None);
    let t = String::from_utf8(ue.empty_send("tran0001")).unwrap();
    let t = t.replace(
        &format!("To-Path: {}", ue.remote_uri),
        &format!("To-Path: {} msrp://far.example.com:1/abc;tcp", ue.remote_uri),
    );
    ue.send_raw(&mut world, t.as_bytes());
    world.settle();
    ue.read(&mut world);
    assert_eq!(ue.take_statuses(), [481]);
    assert!(!world.is_bound(1));
}

#[test]
fn a_member_that_reads_everything_is_never_too_slow_on_a_busy_shard() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let _bob = world.member(1, 2, None);
    let _carol = world.member(1, 3, None);
    let body = vec![b'x'; 4_000_000];
    let m = alice.chunk("long0001", "mess1", "1-*/4000000", &body, '$');
    alice.send_raw(&mut world, &m);
    for _ in 0..1000 {
        // a busy shard: 10 ms a turn
        world.shard.driver_mut().advance_ns(10_000_000);
        world.shard.turn().unwrap();
    }
    world.settle();
    assert_eq!((released(&world, 2), released(&world, 3)), (None, None));
}

#[test]
fn a_failed_start_leaves_no_shard_behind() {
    use mrfp_core::{Config, Mrfp, ShardConfig};
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let shard = |listen| ShardConfig { core: None, listen, advertise: None };
    let config = Config {
        shards: vec![shard(free), shard("203.0.113.77:1".parse().unwrap())],
        limits: Limits { recv_buffers: 16, ..Limits::default() },
        profile: mrfp_protocol::tls::ProfileConfig::default(),
        certificate: None,
        relay: None,
        gateway: None,
    };
    let bell = mrfp_io::doorbell().unwrap();
    let failed = Mrfp::start(&config, &bell.0);
    assert!(failed.is_err());
    drop(failed);
    assert!(std::net::TcpStream::connect(free).is_err(), "the first shard still listens");
}

#[test]
fn a_413_from_a_receiver_stops_that_message_towards_it() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let m = alice.chunk("long0001", "mess1", "1-*/100000", &vec![b'x'; 100_000], '$');
    alice.send_raw(&mut world, &m[..3000]);
    world.settle();
    let raw = world.shard.driver_mut().peer_received(bob.peer);
    let text = String::from_utf8(raw).unwrap();
    let tid = text.split(' ').nth(1).unwrap().to_owned();
    let r = format!(
        "MSRP {tid} 413 Stop\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------{tid}$\r\n",
        bob.remote_uri, bob.local_uri
    );
    bob.send_raw(&mut world, r.as_bytes());
    world.settle();
    alice.send_raw(&mut world, &m[3000..]);
    world.settle();
    let after = world.shard.driver_mut().peer_received(bob.peer).len();
    assert!(after < 1000, "{after} bytes after 413");
}

#[test]
fn hold_over_the_end_of_a_message_closes_the_chunk() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let message = alice.chunk("chunk001", "first", "1-*/9", b"AAABBBCCC", '$');
    let at = message.windows(3).position(|w| w == b"BBB").unwrap();
    alice.send_raw(&mut world, &message[..at]);
    world.settle();
    world.command(dir(2, Direction::Inactive));
    alice.send_raw(&mut world, &message[at..]);
    world.settle();
    world.pass(3);
    bob.read(&mut world);
    assert!(bob.received.iter().any(|m| m.end.is_some()), "the chunk stays open");
}

#[test]
fn after_hold_there_is_no_tail_without_its_beginning() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    world.command(dir(2, Direction::Inactive));
    let message = alice.chunk("chunk001", "first", "1-*/9", b"AAABBBCCC", '$');
    let at = message.windows(3).position(|w| w == b"BBB").unwrap();
    alice.send_raw(&mut world, &message[..at]);
    world.settle();
    world.command(dir(2, Direction::SendRecv));
    alice.send_raw(&mut world, &message[at..]);
    world.settle();
    bob.read(&mut world);
    assert!(bob.received.iter().all(|m| m.byte_range_start != Some(4)), "{:?}", bob.received);
}

#[test]
fn a_sender_put_on_hold_has_its_message_given_up() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let m1 = alice.chunk("chunk001", "first", "1-*/*", b"abc", '+');
    alice.send_raw(&mut world, &m1);
    world.settle();
    world.command(dir(1, Direction::Inactive));
    let m2 = alice.chunk("chunk002", "first", "4-*/6", b"def", '$');
    alice.send_raw(&mut world, &m2);
    world.settle();
    alice.read(&mut world);
    bob.read(&mut world);
    assert!(bob.messages().iter().any(|m| m.2 == '#'), "never given up");
}

#[test]
fn extreme_byte_ranges_and_empty_bodies_are_answered() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let max = u64::MAX;
    for (n, range) in [
        format!("{max}-{max}/{max}"),
        format!("{max}-*/*"),
        "1-0/0".into(),
        "1-0/*".into(),
        format!("1-{max}/0"),
    ]
    .iter()
    .enumerate()
    {
        for (k, (body, flag)) in
            [(&b""[..], '$'), (b"", '+'), (b"", '#'), (b"abc", '$'), (b"abc", '+'), (b"abc", '#')]
                .into_iter()
                .enumerate()
        {
            let m = alice.chunk(&format!("tran{n}{k}"), &format!("mess{n}{k}"), range, body, flag);
            let m = String::from_utf8(m)
                .unwrap()
                .replace("Content-Type", "Success-Report: yes\r\nContent-Type");
            alice.send_raw(&mut world, m.as_bytes());
            world.settle();
            // and in pieces
            let m = m.replace("tran", "trbn").replace("mess", "mesb");
            for b in m.as_bytes().chunks(7) {
                alice.send_raw(&mut world, b);
                world.settle();
            }
        }
    }
    alice.read(&mut world);
    bob.read(&mut world);
    assert_eq!(alice.take_statuses().len(), 60);
    world.subtract_all([1, 2]);
}

fn turns(world: &mut World, n: usize, step_ns: u64) {
    for _ in 0..n {
        world.shard.driver_mut().advance_ns(step_ns);
        let on = world.shard.turn().unwrap();
        while let Some(e) = world.events.pop() {
            world.seen.push(e);
        }
        if !on {
            break;
        }
    }
}
struct Rng(u64);
impl Rng {
    fn next(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

#[test]
fn random_members_faults_and_commands_leave_nothing_behind() {
    // More, for a longer look: SEEDS=10000.
    let count = std::env::var("SEEDS").map_or(60, |seeds| seeds.parse().unwrap());
    for seed in 0..count {
        let r = std::panic::catch_unwind(|| fuzz(seed));
        assert!(r.is_ok(), "seed {seed}");
    }
}
fn fuzz(seed: u64) {
    use mrfp_io::SimulatorConfig;
    let mut rng = Rng(seed.wrapping_mul(77) + 5);
    let config = SimulatorConfig { recv_buffer_count: 8, ..SimulatorConfig::default() };
    let tight = seed.is_multiple_of(3);
    let limits = Limits {
        egress_bytes_max: if seed.is_multiple_of(2) { 30_000 } else { 1 << 20 },
        send_buffers_small_max: if tight { 40 } else { 4000 },
        send_buffers_large_max: if tight { 20 } else { 1000 },
        carry_buffers_max: if tight { 8 } else { 100 },
        ..Limits::default()
    };
    let mut world = World::new(Simulator::with_config(seed, config), limits);
    let keys: Vec<_> = (0..8).map(|n| key(n as u8 + 1)).collect();
    let mut ues = Vec::new();
    let mut live = Vec::new();
    for t in 1..=6u64 {
        let psk = (t % 2 == 0).then(|| &keys[t as usize]);
        let r = reservation(1 + t % 2, t, psk);
        world.commands.push(Command::ReserveAndConfigure(Box::new(r))).unwrap();
        live.push(t);
    }
    turns(&mut world, 20, 1_000_000);
    for t in 1..=6u64 {
        let psk = (t % 2 == 0).then(|| &keys[t as usize]);
        let address: std::net::SocketAddr = "127.0.0.1:2855".parse().unwrap();
        let mut ue = world.connect(t, address, psk.map(|p| (identity(t), p)));
        if psk.is_none() || ue.is_secured() {
            let b = ue.empty_send("bind0001");
            ue.send_raw(&mut world, &b);
        }
        ues.push((ue, psk.is_some(), Vec::<u8>::new(), true));
    }
    turns(&mut world, 100, 1_000_000);
    let mut n = 0u64;
    for step in 0..300 {
        if step % 10 == 0 {
            for (ue, ..) in &mut ues {
                ue.read(&mut world);
            }
        }
        let i = rng.next(6) as usize;
        let op = rng.next(20);
        let t = i as u64 + 1;
        let (ue, tls, pending, open) = &mut ues[i];
        if *tls && !ue.is_secured() {
            turns(&mut world, 1, 1_000_000);
            continue;
        }
        match op {
            0..=9 if *open => {
                if pending.is_empty() {
                    n += 1;
                    let len = [0, 1, 10, 3000, 20_000][rng.next(5) as usize];
                    let flag = ['$', '+', '#'][rng.next(3) as usize];
                    let range = ["1-*/*", "1-0/0", "18446744073709551615-*/*", "5-*/9"]
                        [rng.next(4) as usize];
                    let m = ue.chunk(
                        &format!("t{n:05}"),
                        &format!("m{:05}", rng.next(4)),
                        range,
                        &vec![b'-'; len],
                        flag,
                    );
                    let m = if rng.next(3) == 0 {
                        String::from_utf8(m)
                            .unwrap()
                            .replace("Content-Type", "Success-Report: yes\r\nContent-Type")
                            .into_bytes()
                    } else {
                        m
                    };
                    *pending = m;
                }
                let count = (1 + rng.next(8000) as usize).min(pending.len());
                let part: Vec<u8> = pending.drain(..count).collect();
                ue.send_raw(&mut world, &part);
            }
            10 => world.shard.driver_mut().peer_stop_reading(ue.peer),
            11 | 12 => world.shard.driver_mut().peer_resume_reading(ue.peer),
            13 => {
                let d = [Direction::Inactive, Direction::SendRecv, Direction::RecvOnly]
                    [rng.next(3) as usize];
                let _ = world.commands.push(dir(t, d));
            }
            14 if rng.next(6) == 0 => {
                let _ = world.commands.push(Command::Subtract { termination: TerminationId(t) });
            }
            15 if rng.next(8) == 0 => {
                world.shard.driver_mut().peer_reset(ue.peer);
                *open = false;
            }
            16 if rng.next(8) == 0 => {
                world.shard.driver_mut().peer_shutdown_write(ue.peer);
                *open = false;
            }
            17 if rng.next(8) == 0 => {
                world.shard.driver_mut().peer_close(ue.peer);
                *open = false;
            }
            18 if rng.next(8) == 0 && *open => {
                let g: Vec<u8> = (0..rng.next(200)).map(|_| rng.next(256) as u8).collect();
                world.shard.driver_mut().peer_send(ue.peer, &g);
                *open = false;
            }
            _ => {}
        }
        if rng.next(2) == 0 {
            turns(
                &mut world,
                1 + rng.next(4) as usize,
                [0, 1_000_000, 60_000_000][rng.next(3) as usize],
            );
        }
    }
    for (ue, ..) in &mut ues {
        ue.read(&mut world);
    }
    if seed.is_multiple_of(2) {
        world.commands.push(Command::Stop).unwrap();
        turns(&mut world, 3000, 10_000_000);
        assert!(world.seen.iter().any(|e| matches!(e, Event::Stopped)), "never stopped");
    } else {
        for t in 1..=6 {
            world.commands.push(Command::Subtract { termination: TerminationId(t) }).unwrap();
        }
        turns(&mut world, 3000, 10_000_000);
        let m = world.metrics.read();
        assert_eq!(
            (
                m.terminations,
                m.contexts,
                m.connections,
                m.send_buffers_outstanding,
                m.carry_buffers_outstanding
            ),
            (0, 0, 0, 0, 0)
        );
        assert_eq!(world.shard.driver_mut().sockets_open(), 1);
    }
}
