//! Datagrams: what both drivers promise of them, and what the simulator does to them.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use mrfp_io::{DatagramFaults, Driver, Errno, Faults, Operation, Ring, Simulator, SimulatorConfig};

use crate::harness::{Harness, loopback, token};
use crate::ring::{pattern, small_config, small_ring};

/// A driver and far ends for its datagrams: sockets of the kernel, or addresses that the test plays.
trait Network: Driver + Sized {
    type End;

    fn harness() -> Harness<Self>;
    fn end(number: u16) -> Self::End;
    fn address(end: &Self::End) -> SocketAddr;
    fn post(harness: &mut Harness<Self>, from: &Self::End, to: SocketAddr, bytes: &[u8]);
    /// What has arrived, and from where.
    fn arrived(harness: &mut Harness<Self>, at: &Self::End) -> Vec<(SocketAddr, Vec<u8>)>;
    /// The same end once more, after it was gone.
    fn again(address: SocketAddr) -> Self::End;
}

impl Network for Ring {
    type End = UdpSocket;

    fn harness() -> Harness<Self> {
        small_ring()
    }

    fn end(_number: u16) -> UdpSocket {
        Self::again(loopback())
    }

    fn address(end: &UdpSocket) -> SocketAddr {
        end.local_addr().unwrap()
    }

    fn post(_harness: &mut Harness<Self>, from: &UdpSocket, to: SocketAddr, bytes: &[u8]) {
        from.send_to(bytes, to).unwrap();
    }

    fn arrived(_harness: &mut Harness<Self>, at: &UdpSocket) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut memory = vec![0; 65536];
        let mut arrived = Vec::new();
        while let Ok((length, from)) = at.recv_from(&mut memory) {
            arrived.push((from, memory[..length].to_vec()));
        }
        arrived
    }

    fn again(address: SocketAddr) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        // What was sent over loopback is there at once.
        socket.set_nonblocking(true).unwrap();
        socket
    }
}

impl Network for Simulator {
    type End = SocketAddr;

    fn harness() -> Harness<Self> {
        let recv_buffer_size_bytes = small_config().recv_buffer_size_bytes as usize;
        let config =
            SimulatorConfig { faults: Faults::NONE, recv_buffer_count: 2, recv_buffer_size_bytes };
        Harness::new(Self::with_config(0, config))
    }

    fn end(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 5000 + number))
    }

    fn address(end: &SocketAddr) -> SocketAddr {
        *end
    }

    fn post(harness: &mut Harness<Self>, from: &SocketAddr, to: SocketAddr, bytes: &[u8]) {
        harness.driver.peer_send_datagram(*from, to, bytes);
    }

    fn arrived(harness: &mut Harness<Self>, at: &SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        harness.driver.peer_datagrams(*at)
    }

    fn again(address: SocketAddr) -> SocketAddr {
        address
    }
}

macro_rules! on_both {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        mod ring {
            $(#[test] $(#[$attribute])* fn $name() { super::$name::<mrfp_io::Ring>(); })*
        }
        mod simulator {
            $(#[test] $(#[$attribute])* fn $name() { super::$name::<mrfp_io::Simulator>(); })*
        }
    };
}

on_both! {
    each_buffer_leaves_as_one_datagram_in_order,
    each_datagram_is_one_run,
    takes_nothing_but_what_its_peer_sends_once_it_is_known,
    ignores_what_is_empty_or_too_long,
    an_unreachable_peer_ends_nothing,
    ends_by_cancel_and_begins_again,
    what_is_ignored_does_not_outlive_a_cancel,
    what_was_sent_before_a_shutdown_leaves,
    what_finds_no_buffer_waits,
    two_sockets_share_no_address,
    #[should_panic(expected = "not connected")]
    sends_nothing_to_nobody,
}

/// A socket that is connected to an end and receives, and its address.
fn connected<D: Network>(harness: &mut Harness<D>, end: &D::End) -> (u32, SocketAddr) {
    let (index, address) = harness.bind();
    harness.driver.connect_datagram(harness.sockets[&index], D::address(end)).unwrap();
    harness.arm_recv(index);
    harness.turn(Duration::ZERO);
    (index, address)
}

fn run_until_sent<D: Network>(harness: &mut Harness<D>, index: u32) {
    harness.run_until("all is sent", |harness| harness.seen[&index].sends_in_flight == 0);
}

fn finish<D: Network>(harness: Harness<D>) {
    drop(harness.finish());
}

fn each_buffer_leaves_as_one_datagram_in_order<D: Network>() {
    let mut harness = D::harness();
    let end = D::end(1);
    let (index, address) = connected(&mut harness, &end);
    let lengths: Vec<usize> = (1..20).map(|number| 1 + number * 67 % 1200).collect();
    for (turn, lengths) in lengths.chunks(7).enumerate() {
        lengths.iter().for_each(|length| harness.send(index, &pattern(*length)));
        if turn == 0 {
            harness.turn(Duration::ZERO);
        }
    }
    run_until_sent(&mut harness, index);
    let sent: Vec<_> = lengths.iter().map(|length| Ok(*length)).collect();
    assert_eq!(harness.seen[&index].sends, sent);
    let expected: Vec<_> = lengths.iter().map(|length| (address, pattern(*length))).collect();
    assert_eq!(D::arrived(&mut harness, &end), expected);
    finish(harness);
}

fn each_datagram_is_one_run<D: Network>() {
    let mut harness = D::harness();
    let end = D::end(1);
    let (index, address) = connected(&mut harness, &end);
    for text in ["one", "and", "another"] {
        D::post(&mut harness, &end, address, text.as_bytes());
    }
    run_rearming(&mut harness, index, 3);
    assert_eq!(harness.seen[&index].datagrams(), [&b"one"[..], b"and", b"another"]);
    finish(harness);
}

fn takes_nothing_but_what_its_peer_sends_once_it_is_known<D: Network>() {
    let mut harness = D::harness();
    let (end, stranger) = (D::end(1), D::end(2));
    let (index, address) = harness.bind();
    D::post(&mut harness, &end, address, b"early");
    D::post(&mut harness, &stranger, address, b"strange");
    harness.driver.connect_datagram(harness.sockets[&index], D::address(&end)).unwrap();
    harness.arm_recv(index);
    D::post(&mut harness, &stranger, address, b"stranger");
    D::post(&mut harness, &end, address, b"known");
    run_rearming(&mut harness, index, 1);
    harness.turn(Duration::from_millis(10));
    assert_eq!(harness.seen[&index].datagrams(), [b"known"]);
    finish(harness);
}

fn ignores_what_is_empty_or_too_long<D: Network>() {
    let mut harness = D::harness();
    let end = D::end(1);
    let (index, address) = connected(&mut harness, &end);
    let whole = pattern(small_config().recv_buffer_size_bytes as usize);
    let too_long = [&whole[..], b"!"].concat();
    for bytes in [&[][..], &whole, &too_long, &[], b"end"] {
        D::post(&mut harness, &end, address, bytes);
    }
    run_rearming(&mut harness, index, 2);
    assert_eq!(harness.seen[&index].datagrams(), [&whole[..], b"end"]);
    assert_eq!(harness.seen[&index].recv_error, None);
    assert!(!harness.seen[&index].eof);
    finish(harness);
}

fn an_unreachable_peer_ends_nothing<D: Network>() {
    let mut harness = D::harness();
    let end = D::end(1);
    let (index, address) = connected(&mut harness, &end);
    let peer = D::address(&end);
    drop(end);
    for _ in 0..3 {
        harness.send(index, b"hello?");
        run_until_sent(&mut harness, index);
        harness.turn(Duration::from_millis(10));
    }
    assert_eq!(harness.seen[&index].sends, [Ok(6); 3]);
    let end = D::again(peer);
    D::post(&mut harness, &end, address, b"hello");
    run_rearming(&mut harness, index, 1);
    let seen = &harness.seen[&index];
    assert!(seen.recv_armed && seen.recv_error.is_none() && !seen.eof);
    finish(harness);
}

fn ends_by_cancel_and_begins_again<D: Network>() {
    let mut harness = D::harness();
    let end = D::end(1);
    let (index, address) = connected(&mut harness, &end);
    harness.driver.cancel(token(Operation::Recv, index));
    harness.run_until("ended", |harness| !harness.seen[&index].recv_armed);
    assert_eq!(harness.seen[&index].recv_error, Some(Errno::CANCELED));
    D::post(&mut harness, &end, address, b"waits");
    harness.turn(Duration::from_millis(10));
    assert!(harness.seen[&index].received.is_empty());
    run_rearming(&mut harness, index, 1);
    // Nobody has cancelled what has begun since.
    D::post(&mut harness, &end, address, b"");
    D::post(&mut harness, &end, address, b"goes on");
    run_rearming(&mut harness, index, 2);
    assert_eq!(harness.seen[&index].datagrams(), [&b"waits"[..], b"goes on"]);
    finish(harness);
}

fn what_is_ignored_does_not_outlive_a_cancel<D: Network>() {
    let mut harness = D::harness();
    let end = D::end(1);
    for _ in 0..50 {
        let (index, address) = connected(&mut harness, &end);
        D::post(&mut harness, &end, address, b"");
        // What it has come to is there, and has not been looked at.
        harness.driver.wait(Some(0)).unwrap();
        harness.driver.cancel(token(Operation::Recv, index));
        D::post(&mut harness, &end, address, b"");
        harness.run_until("ended", |harness| !harness.seen[&index].recv_armed);
    }
    finish(harness);
}

fn what_was_sent_before_a_shutdown_leaves<D: Network>() {
    let mut harness = D::harness();
    let end = D::end(1);
    let (index, _) = connected(&mut harness, &end);
    for text in [b"1", b"2", b"3"] {
        harness.send(index, text);
    }
    harness.driver.shutdown(harness.sockets[&index]);
    harness.run_until("ended", |harness| {
        let seen = &harness.seen[&index];
        !seen.recv_armed && seen.sends_in_flight == 0
    });
    let arrived = D::arrived(&mut harness, &end);
    let arrived: Vec<_> = arrived.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(arrived, [b"1", b"2", b"3"]);
    finish(harness);
}

fn what_finds_no_buffer_waits<D: Network>() {
    const COUNT: u8 = 40;
    let mut harness = D::harness();
    let end = D::end(1);
    let (index, address) = connected(&mut harness, &end);
    (0..COUNT).for_each(|number| D::post(&mut harness, &end, address, &[number]));
    run_rearming(&mut harness, index, usize::from(COUNT));
    assert_eq!(harness.seen[&index].received, (0..COUNT).collect::<Vec<_>>());
    assert!(harness.seen[&index].out_of_buffers > 0);
    finish(harness);
}

fn two_sockets_share_no_address<D: Network>() {
    let mut harness = D::harness();
    let (_, address) = harness.bind();
    let taken = harness.driver.bind_datagram(address).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    finish(harness);
}

fn sends_nothing_to_nobody<D: Network>() {
    let mut harness = D::harness();
    let (index, _) = harness.bind();
    harness.send(index, b"lost");
    run_until_sent(&mut harness, index);
}

/// Until so many datagrams have come. A receive that has ended is armed again.
fn run_rearming<D: Network>(harness: &mut Harness<D>, index: u32, count: usize) {
    while harness.seen[&index].runs.len() < count {
        if !harness.seen[&index].recv_armed {
            harness.seen.get_mut(&index).unwrap().recv_error = None;
            harness.arm_recv(index);
        }
        harness.run_until("datagrams come", |harness| {
            let seen = &harness.seen[&index];
            seen.runs.len() == count || !seen.recv_armed
        });
    }
}

#[test]
fn a_ring_drops_with_datagrams_in_flight() {
    let mut harness = small_ring();
    let end = Ring::end(1);
    let (index, address) = connected(&mut harness, &end);
    Ring::post(&mut harness, &end, address, b"never read");
    (0..5).for_each(|_| harness.send(index, b"queued only"));
    drop(harness);
}

/// What arrives of 200 numbered datagrams in each direction, and in what order.
fn posted(seed: u64, faults: DatagramFaults) -> [Vec<u8>; 2] {
    let mut harness = Harness::new(Simulator::new(seed));
    harness.driver.set_datagram_faults(faults);
    let end = Simulator::end(1);
    let (index, address) = connected(&mut harness, &end);
    let mut arrived = Vec::new();
    for number in 0..200 {
        Simulator::post(&mut harness, &end, address, &[number]);
        harness.send(index, &[number]);
        harness.turn(Duration::ZERO);
        if !harness.seen[&index].recv_armed {
            harness.arm_recv(index);
        }
        arrived.extend(Simulator::arrived(&mut harness, &end));
    }
    while !harness.driver.is_idle() {
        harness.turn(Duration::ZERO);
        if !harness.seen[&index].recv_armed {
            harness.arm_recv(index);
        }
    }
    arrived.extend(Simulator::arrived(&mut harness, &end));
    let arrived = arrived.into_iter().flat_map(|(_, bytes)| bytes).collect();
    let received = harness.seen[&index].received.clone();
    finish(harness);
    [arrived, received]
}

#[test]
fn a_simulator_loses_nothing_unless_it_is_told() {
    for seed in 0..20 {
        let all: Vec<u8> = (0..200).collect();
        assert_eq!(posted(seed, DatagramFaults::default()), [all.clone(), all]);
    }
}

#[test]
fn a_simulator_loses_doubles_and_delays_datagrams_as_it_is_told() {
    let none = DatagramFaults::default();
    for numbers in posted(1, DatagramFaults { lost_per_mille: 200, ..none }) {
        assert!((100..190).contains(&numbers.len()), "{}", numbers.len());
        assert!(numbers.is_sorted_by(|one, other| one < other));
    }
    for numbers in posted(2, DatagramFaults { doubled_per_mille: 200, ..none }) {
        assert!((210..300).contains(&numbers.len()), "{}", numbers.len());
        assert!(numbers.is_sorted());
    }
    for mut numbers in posted(3, DatagramFaults { late_per_mille: 200, ..none }) {
        assert!(!numbers.is_sorted());
        numbers.sort_unstable();
        assert_eq!(numbers, (0..200).collect::<Vec<u8>>());
    }
}

mod open {
    //! Sockets that hear anybody.

    use super::*;

    /// A socket that hears anybody, and its address.
    fn open<D: Network>(harness: &mut Harness<D>) -> (u32, SocketAddr) {
        let (index, address) = harness.bind();
        harness.driver.open_datagram(harness.sockets[&index]).unwrap();
        harness.arm_recv(index);
        harness.turn(Duration::ZERO);
        (index, address)
    }

    macro_rules! on_both_open {
        ($($name:ident,)*) => {
            mod ring {
                $(#[test] fn $name() { super::$name::<mrfp_io::Ring>(); })*
            }
            mod simulator {
                $(#[test] fn $name() { super::$name::<mrfp_io::Simulator>(); })*
            }
        };
    }

    on_both_open! {
        tells_where_each_datagram_came_from,
        sends_each_buffer_where_it_is_addressed,
        nobody_who_is_not_there_disturbs_it,
        what_is_empty_or_too_long_is_ignored,
        what_finds_no_buffer_comes_later,
    }

    fn tells_where_each_datagram_came_from<D: Network>() {
        let mut harness = D::harness();
        let ends = [D::end(1), D::end(2)];
        let (index, address) = open(&mut harness);
        for (number, end) in [(1_u8, &ends[0]), (2, &ends[1]), (3, &ends[0])] {
            D::post(&mut harness, end, address, &[number]);
            run_rearming(&mut harness, index, usize::from(number));
        }
        assert_eq!(harness.seen[&index].datagrams(), [[1], [2], [3]]);
        let [one, two] = ends.each_ref().map(D::address);
        assert_eq!(harness.seen[&index].sources, [one, two, one].map(Some));
        finish(harness);
    }

    fn sends_each_buffer_where_it_is_addressed<D: Network>() {
        let mut harness = D::harness();
        let ends = [D::end(1), D::end(2)];
        let (index, address) = open(&mut harness);
        for number in 0..10_u8 {
            harness.send_to(index, &[number], D::address(&ends[usize::from(number % 2)]));
        }
        run_until_sent(&mut harness, index);
        for (parity, end) in (0_u8..).zip(&ends) {
            let expected: Vec<_> = (0..5).map(|n| (address, vec![2 * n + parity])).collect();
            assert_eq!(D::arrived(&mut harness, end), expected);
        }
        finish(harness);
    }

    fn nobody_who_is_not_there_disturbs_it<D: Network>() {
        let mut harness = D::harness();
        let end = D::end(1);
        let (index, address) = open(&mut harness);
        let gone = D::end(2);
        let nowhere = D::address(&gone);
        drop(gone);
        for _ in 0..3 {
            harness.send_to(index, b"hello?", nowhere);
            run_until_sent(&mut harness, index);
            harness.turn(Duration::from_millis(10));
        }
        D::post(&mut harness, &end, address, b"hello");
        run_rearming(&mut harness, index, 1);
        let seen = &harness.seen[&index];
        assert!(seen.recv_armed && seen.recv_error.is_none() && !seen.eof);
        assert_eq!(seen.sends, [Ok(6); 3]);
        finish(harness);
    }

    fn what_is_empty_or_too_long_is_ignored<D: Network>() {
        let mut harness = D::harness();
        let end = D::end(1);
        let (index, address) = open(&mut harness);
        let too_long = pattern(small_config().recv_buffer_size_bytes as usize + 1);
        for bytes in [&[][..], &too_long, &[], b"end"] {
            D::post(&mut harness, &end, address, bytes);
        }
        run_rearming(&mut harness, index, 1);
        assert_eq!(harness.seen[&index].datagrams(), [b"end"]);
        assert_eq!(harness.seen[&index].recv_error, None);
        finish(harness);
    }

    fn what_finds_no_buffer_comes_later<D: Network>() {
        const COUNT: u8 = 40;
        let mut harness = D::harness();
        let end = D::end(1);
        let (index, address) = open(&mut harness);
        (0..COUNT).for_each(|number| D::post(&mut harness, &end, address, &[number]));
        run_rearming(&mut harness, index, usize::from(COUNT));
        assert_eq!(harness.seen[&index].received, (0..COUNT).collect::<Vec<_>>());
        assert!(harness.seen[&index].out_of_buffers > 0);
        finish(harness);
    }
}
