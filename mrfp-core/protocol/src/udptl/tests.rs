use super::*;

fn primary(number: u64) -> Vec<u8> {
    let length = 1 + number as usize * 37 % 300;
    (0..length).map(|at| (at as u64 + number) as u8).collect()
}

/// What arrives in order of the datagrams that are not lost, with their number added up from the first.
fn carried(redundancy: Redundancy, first: u16, count: u64, lost: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut sender = Sender::new(redundancy, first);
    let mut receiver = Receiver::default();
    let mut arrived = Vec::new();
    for number in 0..count {
        let mut datagram = Vec::new();
        sender.write(&primary(number), &mut datagram);
        if lost(number) {
            continue;
        }
        let packet = Packet::parse(&datagram).unwrap();
        assert_eq!(packet.sequence, first.wrapping_add(number as u16));
        for (counted, bytes) in receiver.take(&packet) {
            let number = counted - BEGIN - u64::from(first);
            let expected = primary(number);
            assert_eq!(bytes[..expected.len()], expected);
            assert!(bytes[expected.len()..].iter().all(|byte| *byte == 0));
            arrived.push(number);
        }
    }
    arrived
}

#[test]
fn writes_what_t38_shows() {
    let mut sender = Sender::new(Redundancy::Copies(2), 0xfffe);
    let mut datagrams = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for (number, datagram) in (1..).zip(&mut datagrams) {
        sender.write(&[number; 2], datagram);
    }
    assert_eq!(datagrams[0], [0xff, 0xfe, 2, 1, 1, 0, 0]);
    assert_eq!(datagrams[1], [0xff, 0xff, 2, 2, 2, 0, 1, 2, 1, 1]);
    assert_eq!(datagrams[2], [0, 0, 2, 3, 3, 0, 2, 2, 2, 2, 2, 1, 1]);
    assert_eq!(datagrams[3], [0, 1, 2, 4, 4, 0, 2, 2, 3, 3, 2, 2, 2]);
    let mut long = Vec::new();
    Sender::new(Redundancy::Copies(0), 7).write(&[9; 300], &mut long);
    assert_eq!(long[..4], [0, 7, 0x81, 0x2c]);
    assert_eq!(long[304..], [0, 0]);
    let mut parity = Sender::new(Redundancy::Parity { span: 2, entries: 1 }, 5);
    let mut datagram = Vec::new();
    for bytes in [&[1, 2][..], &[4], &[8]] {
        datagram.clear();
        parity.write(bytes, &mut datagram);
    }
    assert_eq!(datagram, [0, 7, 1, 8, 0x80, 1, 2, 1, 2, 5, 2]);
}

#[test]
fn nothing_is_missing_where_nothing_is_lost() {
    for redundancy in [Redundancy::Copies(0), Redundancy::Copies(3), PARITIES] {
        assert_eq!(carried(redundancy, 65_530, 100, |_| false), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn copies_make_up_for_as_many_in_a_row() {
    let lost = |number: u64| (10..13).contains(&number) || number % 20 == 5;
    let all: Vec<_> = (0..200).collect();
    assert_eq!(carried(Redundancy::Copies(3), 65_500, 200, lost), all);
    let arrived = carried(Redundancy::Copies(2), 65_500, 200, lost);
    assert!(!arrived.contains(&10) && arrived.contains(&11) && arrived.contains(&199));
}

#[test]
fn parities_make_up_for_one_each() {
    let lost = |number: u64| number % 16 == 3 && number > 12;
    assert_eq!(carried(PARITIES, 65_500, 200, lost), (0..200).collect::<Vec<_>>());
}

#[test]
fn sequence_numbers_go_round_for_a_day() {
    let mut sender = Sender::new(Redundancy::Copies(1), 40_000);
    let mut receiver = Receiver::default();
    let mut datagram = Vec::new();
    let mut expected = BEGIN + 40_000;
    for number in 0..2_880_000_u64 {
        datagram.clear();
        sender.write(&[number as u8], &mut datagram);
        if number % 50 == 7 {
            continue;
        }
        for (counted, bytes) in receiver.take(&Packet::parse(&datagram).unwrap()) {
            assert_eq!(counted, expected);
            assert_eq!(bytes, [(counted - BEGIN - 40_000) as u8]);
            expected += 1;
        }
    }
    assert_eq!(expected, BEGIN + 40_000 + 2_880_000);
}

#[test]
fn no_part_of_a_datagram_is_one() {
    let mut sender = Sender::new(PARITIES, 0);
    for number in 0..30 {
        let mut datagram = Vec::new();
        sender.write(&primary(number), &mut datagram);
        for length in 0..datagram.len() {
            assert_eq!(Packet::parse(&datagram[..length]), Err(Malformed));
        }
        datagram.push(0);
        assert_eq!(Packet::parse(&datagram), Err(Malformed));
    }
    for broken in [&[0, 0, 0xc1, 0][..], &[0, 0, 1, 6, 0x80, 2, 0, 1, 0], &[0, 0, 1, 6, 0, 0xff]] {
        assert_eq!(Packet::parse(broken), Err(Malformed));
    }
}

const PARITIES: Redundancy = Redundancy::Parity { span: 3, entries: 3 };
