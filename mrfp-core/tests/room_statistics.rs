//! What is counted of a Context and of a realm.

mod common;
mod room_support;

use common::{Ue, World};
use mrfp_core::Limits;
use mrfp_core::mp::{
    Command, ContextId, Event, REALMS_MAX, RESPONSE_CODES, RealmId, Statistics, TerminationId,
};
use mrfp_io::Simulator;
use room_support::{
    ROOM, audit, chunk, client, configure, cpim, plain_client, policy, say, send, send_cpim,
    typed_cpim, uri, wrapping,
};

fn responses(statistics: &Statistics, status: u16) -> u64 {
    let index = RESPONSE_CODES.iter().position(|&code| code == status).expect("counted");
    statistics.responses[index]
}

/// Somebody of a realm.
fn join(world: &mut World, termination: u64, realm: u16, name: &str) -> Ue {
    let address = world.reserve_with(1, termination, None, |reserve| {
        configure(reserve, &policy(), client(name));
        reserve.realm = RealmId(realm);
    });
    let mut ue = world.connect(termination, address, None);
    let bind = ue.empty_send("bind0001");
    assert_eq!(say(world, &mut ue, &bind), [200]);
    ue
}

#[test]
fn requests_are_counted_by_what_they_carry_and_responses_by_code() {
    let mut world = World::calm();
    let mut alice = join(&mut world, 1, 1, "alice");
    let mut bob = join(&mut world, 2, 2, "bob");
    let mut carol = join(&mut world, 3, 2, "carol");
    let mut expected_bytes = 0;
    for (id, content_type, status) in [
        ("m1", "text/plain", 200),
        ("m2", "text/plain", 200),
        ("m3", "application/im-iscomposing+xml", 200),
        ("m4", "message/imdn+xml", 200),
        ("m5", "image/png", 200),
    ] {
        let body = typed_cpim(&uri("alice"), ROOM, content_type, b"content");
        expected_bytes += body.len() as u64;
        let message = send_cpim(&alice, id, &body);
        assert_eq!(say(&mut world, &mut alice, &message), [status]);
    }
    // Refused: for what it is, from its head, and for whom it is not.
    let message = send(&alice, "m6", "text/plain", b"bare");
    assert_eq!(say(&mut world, &mut alice, &message), [415]);
    let body = cpim(&uri("alice"), &uri("nobody"), "x");
    expected_bytes += 4 + body.len() as u64;
    let message = send_cpim(&alice, "m7", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [404]);
    let text = String::from_utf8(send(&alice, "m8", "text/plain", b"x")).unwrap();
    let auth = text.replace(" SEND\r\n", " AUTH\r\n");
    assert_eq!(say(&mut world, &mut alice, auth.as_bytes()), [501]);
    let nickname = text.replace(" SEND\r\n", " NICKNAME\r\n");
    assert_eq!(say(&mut world, &mut alice, nickname.as_bytes()), [400]);
    let other = text.replace(" SEND\r\n", " DANCE\r\n");
    assert_eq!(say(&mut world, &mut alice, other.as_bytes()), [501]);
    for (ue, status) in [(&mut bob, 200), (&mut carol, 599)] {
        ue.read(&mut world);
        ue.answer(&mut world, status);
    }
    let statistics = audit(&mut world);
    let received = &statistics.traffic.received;
    assert_eq!(received.send_chat, 4, "two that passed, two that did not");
    assert_eq!(received.send_is_composing, 1);
    assert_eq!(received.send_imdn, 1);
    assert_eq!(received.send_file, 1);
    assert_eq!(received.send_empty, 3);
    assert_eq!((received.auths, received.nicknames, received.others), (1, 1, 1));
    assert_eq!(received.bytes, expected_bytes);
    assert_eq!(responses(received, 200), 5);
    assert_eq!(received.responses_other, 5);
    let sent = &statistics.traffic.sent;
    assert_eq!(sent.send_chat, 4);
    assert_eq!((sent.send_is_composing, sent.send_imdn, sent.send_file), (2, 2, 2));
    assert_eq!(responses(sent, 200), 5 + 3);
    assert_eq!((responses(sent, 415), responses(sent, 404)), (1, 1));
    assert_eq!((responses(sent, 501), responses(sent, 400)), (2, 1));
    // The realms share it out among them.
    world.measure();
    let [first, second] = [1, 2].map(|realm| world.metrics.realm(RealmId(realm)));
    assert_eq!(world.metrics.realm(RealmId(0)), Default::default());
    assert_eq!(first.received.send_chat, 4);
    assert_eq!(first.sent.send_chat, 0);
    assert_eq!(first.received.bytes, expected_bytes);
    assert_eq!(second.sent.send_chat, 4);
    assert_eq!(second.sent.bytes, sent.bytes);
    assert_eq!(second.received.send_empty, 2);
    assert_eq!(responses(&second.received, 200), 5);
    world.subtract_all([1, 2, 3]);
    assert_eq!(world.metrics.realm(RealmId(1)), first, "a realm outlives its Contexts");
}

#[test]
fn every_chunk_counts_as_the_message_it_belongs_to() {
    let mut world = World::calm();
    let mut alice = join(&mut world, 1, 0, "alice");
    let mut bob = join(&mut world, 2, 0, "bob");
    let body = typed_cpim(&uri("alice"), ROOM, "image/png", &[7; 300]);
    let total = body.len();
    for (start, flag) in [(0, '+'), (100, '+'), (200, '+'), (300, '$')] {
        let end = if flag == '$' { total } else { start + 100 };
        let range = format!("{}-{end}/{total}", start + 1);
        let message = chunk(&alice, "m1", &range, "message/cpim", &body[start..end], flag);
        assert_eq!(say(&mut world, &mut alice, &message), [200]);
    }
    let statistics = audit(&mut world);
    // The first is held until the head is whole, and nobody can say yet what it is.
    assert_eq!(statistics.traffic.received.send_file, 3);
    assert_eq!(statistics.traffic.received.send_chat, 1);
    assert_eq!(statistics.traffic.sent.send_file, 3);
    assert_eq!(statistics.traffic.sent.bytes, total as u64);
    bob.read(&mut world);
    bob.answer(&mut world, 200);
    world.subtract_all([1, 2]);
}

#[test]
fn a_stream_negotiated_for_a_file_carries_files() {
    let mut world = World::calm();
    let address = world.reserve_with(1, 1, None, |reserve| reserve.file_transfer = true);
    let mut alice = world.connect(1, address, None);
    let bind = alice.empty_send("bind0001");
    assert_eq!(say(&mut world, &mut alice, &bind), [200]);
    let mut bob = world.member(1, 2, None);
    for ue in [&mut alice, &mut bob] {
        let message = send(ue, "m1", "text/plain", b"1,2,3");
        assert_eq!(say(&mut world, ue, &message), [200]);
    }
    let received = audit(&mut world).traffic.received;
    assert_eq!((received.send_file, received.send_chat), (1, 1));
    world.subtract_all([1, 2]);
}

#[test]
fn reports_count_in_both_directions() {
    let mut world = World::calm();
    let mut alice = world.member(1, 1, None);
    let mut bob = world.member(1, 2, None);
    let text = String::from_utf8(send(&alice, "m1", "text/plain", b"x")).unwrap();
    let message = text.replace("Content-Type", "Success-Report: yes\r\nContent-Type");
    assert_eq!(say(&mut world, &mut alice, message.as_bytes()), [200]);
    let (to, from) = (&bob.remote_uri, &bob.local_uri);
    let report = format!(
        "MSRP repo0001 REPORT\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: m1\r\n\
         Byte-Range: 1-1/1\r\nStatus: 000 200 OK\r\n-------repo0001$\r\n"
    );
    assert!(say(&mut world, &mut bob, report.as_bytes()).is_empty());
    let traffic = audit(&mut world).traffic;
    assert_eq!((traffic.received.reports, traffic.sent.reports), (1, 1));
    bob.answer(&mut world, 200);
    world.subtract_all([1, 2]);
}

#[test]
fn what_is_converted_counts_as_it_goes_out() {
    let mut world = World::calm();
    let mut alice = room_support::join(&mut world, 1, &wrapping(), client("alice"));
    let _paul = room_support::join(&mut world, 2, &wrapping(), plain_client("paul"));
    let body = cpim(&uri("alice"), ROOM, "hello");
    let message = send_cpim(&alice, "m1", &body);
    assert_eq!(say(&mut world, &mut alice, &message), [200]);
    let traffic = audit(&mut world).traffic;
    assert_eq!((traffic.received.bytes, traffic.sent.bytes), (body.len() as u64, 5));
    world.subtract_all([1, 2]);
}

#[test]
fn an_audit_of_what_is_not_there_says_so_and_no_realm_is_out_of_reach() {
    let mut world = World::calm();
    world.command(Command::Audit { context: ContextId(7) });
    assert!(matches!(
        world.seen.last(),
        Some(Event::Audited { context: ContextId(7), statistics: None })
    ));
    let _alice = join(&mut world, 1, u16::MAX, "alice");
    let _bob = join(&mut world, 2, REALMS_MAX as u16 - 1, "bob");
    world.measure();
    assert_eq!(world.metrics.realm(RealmId(0)).received.send_empty, 1);
    assert_eq!(world.metrics.realm(RealmId(REALMS_MAX as u16 - 1)).received.send_empty, 1);
    assert_eq!(world.metrics.realm(RealmId(u16::MAX)), Default::default());
    world.subtract_all([1, 2]);
}

#[test]
fn members_that_are_dropped_are_counted_in_their_room() {
    let limits = Limits { egress_bytes_max: 64 * 1024, ..Limits::default() };
    let mut world = World::new(Simulator::without_faults(), limits);
    let mut alice = join(&mut world, 1, 0, "alice");
    let _bob = join(&mut world, 2, 0, "bob");
    let carol = join(&mut world, 3, 0, "carol");
    world.shard.driver_mut().peer_stop_reading(carol.peer);
    let body = cpim(&uri("alice"), ROOM, &"x".repeat(60_000));
    for n in 0..60 {
        let message = send_cpim(&alice, &format!("message{n}"), &body);
        alice.send_raw(&mut world, &message);
        world.settle();
    }
    world.pass(10);
    assert!(
        world.seen.iter().any(|event| matches!(
            event,
            Event::BearerReleased { termination: TerminationId(3), .. }
        ))
    );
    assert_eq!(audit(&mut world).members_dropped, 1);
    world.subtract_all([1, 2, 3]);
}
