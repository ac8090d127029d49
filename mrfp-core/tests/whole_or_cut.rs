//! A message that comes in one receive takes a shorter way through the shard than one that comes in
//! two. Nobody may be able to tell which: the same messages, whole and cut at many places, must have
//! the same outcome for sender and receivers.

mod common;
mod room_support;

use std::collections::BTreeMap;

use common::{Received, Ue, World};
use room_support::{client, join, policy, wrapping};

/// A SEND, as far as the cases differ.
#[derive(Clone)]
struct Case {
    lines: &'static str,
    byte_range: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    flag: char,
}

fn case(lines: &'static str, byte_range: &'static str, body: &[u8], flag: char) -> Case {
    Case { lines, byte_range, content_type: "text/plain", body: body.to_vec(), flag }
}

/// `N` stands for the length of the body.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for lines in [
        "",
        "Failure-Report: no\r\n",
        "failure-report: PARTIAL\r\n",
        "Success-Report: yes\r\n",
        "X-First: a\r\nSUCCESS-REPORT: yes\r\nX-Last: To-Path\r\n",
        "Success-Report: no\r\nFailure-Report: yes\r\n",
    ] {
        for byte_range in ["1-N/N", "", "1-*/*", "1-*/N"] {
            cases.push(case(lines, byte_range, b"hello", '$'));
        }
    }
    // What a Byte-Range says need not be true.
    for byte_range in [
        "1-3/N", "1-99/N", "1-N/*", "1-99/99", "1-N/3", "1-N/0", "2-6/6", "2-*/*", "6-N/N", "9-9/5",
    ] {
        cases.push(case("", byte_range, b"hello", '$'));
        cases.push(case("Success-Report: yes\r\n", byte_range, b"hello", '$'));
    }
    let long: Vec<u8> = (0..=255).cycle().take(6_000).collect();
    for body in [
        &b"1"[..],
        b"\r\n",
        b"-------",
        b"\r\n-------",
        b"\r\n-------tran",
        b"\r\n-------another1$\r\n",
        b"MSRP tran0001 SEND\r\nTo-Path: msrp://192.0.2.1:9/x;tcp\r\n",
        b"\0\xff\r\r\n",
        &long[..2_048],
        &long[..2_049],
        &long,
    ] {
        cases.push(case("", "1-N/N", body, '$'));
    }
    cases.push(case("", "1-N/N", b"hello", '#'));
    cases.push(case("", "1-*/*", b"hello", '#'));
    for content_type in ["text/plain;charset=utf-8", "multipart/mixed", "message/imdn+xml", "a/b"] {
        cases.push(Case { content_type, ..case("", "1-N/N", b"hello", '$') });
    }
    cases
}

impl Case {
    fn message(&self, ue: &Ue, number: usize) -> Vec<u8> {
        let (to, from) = (&ue.remote_uri, &ue.local_uri);
        let length = self.body.len().to_string();
        let range = match self.byte_range {
            "" => String::new(),
            range => format!("Byte-Range: {}\r\n", range.replace('N', &length)),
        };
        let head = format!(
            "MSRP own{number:05} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
             Message-ID: message{number}\r\n{range}{}Content-Type: {}\r\n\r\n",
            self.lines, self.content_type
        );
        let end = format!("\r\n-------own{number:05}{}\r\n", self.flag);
        [head.as_bytes(), &self.body, end.as_bytes()].concat()
    }

    /// In a wrapper that is like the ones before it.
    fn wrapped(&self, number: usize) -> Self {
        let head = format!(
            "From: <sip:alice@example.com>\r\nTo: <{}>\r\nSubject: {number}\r\n\r\n\
             Content-Type: text/plain\r\n\r\n",
            room_support::ROOM
        );
        let body = [head.as_bytes(), &self.body].concat();
        Self { body, content_type: "message/cpim", ..self.clone() }
    }
}

/// By Message-ID: the header lines of the first request, the body, how it ended.
type Heard = BTreeMap<String, (String, Vec<u8>, Option<char>)>;

/// What became of one message.
#[derive(Default, PartialEq, Eq, Debug)]
struct Outcome {
    statuses: Vec<u16>,
    reports: Vec<(u16, String, String)>,
    /// Of each receiver.
    heard: Vec<Heard>,
}

fn heard(ue: &mut Ue) -> Heard {
    let mut heard = BTreeMap::new();
    for chunk in std::mem::take(&mut ue.received) {
        assert_eq!(chunk.method.as_deref(), Some("Send"));
        let start = chunk.byte_range_start.unwrap();
        let kept = |line: &&str| !line.starts_with("Byte-Range:");
        let lines: String = chunk.header_lines.split_inclusive('\n').filter(kept).collect();
        let Received { message_id, body, end, .. } = chunk;
        let entry = heard.entry(message_id.unwrap());
        let (_, whole, last) = entry.or_insert_with(|| {
            assert_eq!(start, 1, "the first request has the first byte");
            (lines, Vec::new(), None)
        });
        assert_eq!(start, whole.len() as u64 + 1, "no gap, no overlap");
        whole.extend(body);
        *last = end;
    }
    heard
}

/// Says one message, in one receive or in two, to receivers that answer with `status`.
fn outcome(
    world: &mut World,
    sender: &mut Ue,
    receivers: &mut [Ue],
    message: &[u8],
    cut: Option<usize>,
    status: u16,
) -> Outcome {
    let (front, rest) = message.split_at(cut.unwrap_or(message.len()));
    for part in [front, rest] {
        sender.send_raw(world, part);
        world.settle();
    }
    let mut outcome = Outcome::default();
    for receiver in receivers {
        receiver.read(world);
        receiver.answer(world, status);
        outcome.heard.push(heard(receiver));
    }
    sender.read(world);
    outcome.statuses = sender.take_statuses();
    outcome.reports = sender.take_reports();
    outcome
}

/// Where to cut: around the ends of the message and of its parts, and at even distances.
fn cuts(message: &[u8]) -> Vec<usize> {
    let blank = message.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let near = [1, 4, blank, blank + 2, blank + 4, blank + 5].into_iter();
    let end = (1..=18).map(|back| message.len() - back);
    let between = (1..8).map(|eighth| message.len() * eighth / 8);
    near.chain(end).chain(between).collect()
}

fn compare(
    mut world: World,
    mut alice: Ue,
    mut others: Vec<Ue>,
    make: impl Fn(usize, &Case) -> Case,
) {
    let mut number = 0;
    let mut say = |case: &Case, cut: Option<usize>, status| {
        number += 1;
        let message = make(number, case).message(&alice, number);
        let cut = cut.map(|at| cuts(&message)[at]);
        let told = outcome(&mut world, &mut alice, &mut others, &message, cut, status);
        (number, told)
    };
    // Nothing in an outcome but the number tells one time from another.
    let unnumbered = |number: usize, outcome: Outcome| {
        let number = |text: &str| {
            text.replace(&format!("Message-ID: message{number}\r\n"), "")
                .replace(&format!("message{number}"), "")
        };
        let subject = |body: Vec<u8>| {
            let at = body.windows(9).position(|nine| nine == b"Subject: ");
            match at {
                Some(at) => [&body[..at], &body[at + 14..]].concat(),
                None => body,
            }
        };
        let heard = outcome.heard.into_iter().flat_map(BTreeMap::into_values);
        let heard: Vec<_> = heard
            .map(|(lines, body, end)| {
                let lines: Vec<String> = lines
                    .lines()
                    .filter(|line| !line.starts_with("Message-ID: "))
                    .map(str::to_owned)
                    .collect();
                (lines, subject(body), end)
            })
            .collect();
        let reports: Vec<_> = outcome
            .reports
            .into_iter()
            .map(|(status, id, range)| (status, number(&id), range))
            .collect();
        (outcome.statuses, reports, heard)
    };
    let mut heard = 0;
    for case in cases() {
        for status in [200, 403] {
            let (at, whole) = say(&case, None, status);
            let whole = unnumbered(at, whole);
            heard += whole.2.len();
            for cut in 0..31 {
                let (at, told) = say(&case, Some(cut), status);
                let what = format!(
                    "{:?} {:?} {:?} {} {status} cut {cut}",
                    case.lines, case.byte_range, case.content_type, case.flag
                );
                assert_eq!(unnumbered(at, told), whole, "{what}");
            }
        }
    }
    assert!(heard > 50, "it is what gets through that is compared");
}

#[test]
fn two_parties_cannot_tell_a_message_that_was_cut() {
    let mut world = World::calm();
    let alice = world.member(1, 1, None);
    let bob = world.member(1, 2, None);
    compare(world, alice, vec![bob], |_, case| case.clone());
}

#[test]
fn a_room_cannot_tell_a_message_that_was_cut() {
    for policy in [policy(), wrapping()] {
        let mut world = World::calm();
        let alice = join(&mut world, 1, &policy, client("alice"));
        let others = (2..6).map(|at| join(&mut world, at, &policy, client(&format!("ue{at}"))));
        let others = others.collect();
        compare(world, alice, others, |number, case| case.wrapped(10_000 + number));
    }
}
